package model

import (
	"cmp"
	"fmt"

	"github.com/residual-ml/residual/graph"
)

// Network is a residual network appended to a graph.
type Network struct {
	// Stem is the output of the stem and Stages those of the stages,
	// [N,H,W,C] each; the last, activated, is what the global pool takes.
	Stem     *graph.Node
	Stages   []*graph.Node
	Features *graph.Node // [N,C], after the global pool
	Logits   *graph.Node // [N,K], before softmax
	Kernel   *graph.Node // [C,K], the dense layer's kernel: the one that the tutorial penalises
}

// Build appends the network to b: images [N,H,W,C] → logits [N,K]. In training,
// batch normalisation uses the batch's statistics and updates the moving ones;
// otherwise it uses the moving ones. With DropPath, training takes further inputs:
// for each block of DropPathRates that is ever skipped, in order, a factor for
// each image [N], 0 or 1/(1-rate). Mistakes are b's to report.
func (c Config) Build(b *graph.Builder, images *graph.Node, training bool) Network {
	if err := c.Check(); err != nil {
		b.Fail("%w", err)
		return Network{images, []*graph.Node{images}, images, images, images}
	}
	n := network{Builder: b, Config: c, training: training}
	if training {
		n.dropRates = c.DropPathRates()
	}
	switch c.Block {
	case Pooled:
		return n.pooled(images)
	case Single:
		return n.single(images)
	}

	x := n.stem(images)
	net := Network{Stem: x}
	width := c.Filters
	for stage, blocks := range c.Blocks {
		for i := range blocks {
			stride := 1
			if stage > 0 && i == 0 {
				stride = 2
			}
			name := fmt.Sprintf("layer%d.%d", stage+1, i)
			switch {
			case c.PreAct:
				x = n.preAct(x, name, width, stride)
			case c.Block == Bottleneck:
				x = n.bottleneck(x, name, width, stride)
			default:
				x = n.basic(x, name, width, stride)
			}
		}
		net.Stages = append(net.Stages, x)
		width *= 2
	}
	if c.PreAct { // the last block's sum is not activated yet
		x = n.batchNorm(x, "norm")
		x = n.relu(x, "relu")
		net.Stages[len(net.Stages)-1] = x
	}

	b.Layer("avgpool")
	net.Features = b.GlobalAvgPool(x)
	net.Logits, net.Kernel = n.dense(net.Features, "fc", c.Classes)
	return net
}

// Graph is the network alone, for predictions: images [N,H,W,C] → probabilities
// [N,K] and logits [N,K].
func (c Config) Graph(batch int) (*graph.Graph, error) {
	b := graph.NewBuilder()
	net := c.Build(b, b.Input("images", graph.Real, batch, c.Height, c.Width, c.Channels), false)
	b.Layer("softmax")
	return b.Build(b.Softmax(net.Logits), net.Logits)
}

// network adds layers with parameters to a graph.Builder.
type network struct {
	*graph.Builder
	Config
	training  bool
	dropRates []float64 // of the blocks that are not built yet
}

// stem is [N,H,W,C] → [N,H,W,filters], or a quarter of height and width with
// the large and deep stems. With pre-activation the first block normalises, as
// in timm's resnetv2. The deep stem carries timm's names: conv1.0, conv1.1 (batch
// norm), conv1.3, conv1.4, conv1.6.
func (n *network) stem(x *graph.Node) *graph.Node {
	width := cmp.Or(n.StemFilters, n.Filters)
	switch n.Stem {
	case SmallStem:
		x = n.conv(x, "conv1", width, 3, 1)
	case LargeStem:
		x = n.conv(x, "conv1", width, 7, 2)
	case DeepStem:
		half := max(width/2, 1)
		x = n.relu(n.batchNorm(n.conv(x, "conv1.0", half, 3, 2), "conv1.1"), "conv1.2")
		x = n.relu(n.batchNorm(n.conv(x, "conv1.3", half, 3, 1), "conv1.4"), "conv1.5")
		x = n.conv(x, "conv1.6", width, 3, 1)
	}
	if !n.PreAct {
		x = n.batchNorm(x, "bn1")
		x = n.relu(x, "relu")
	}
	if n.Stem == SmallStem {
		return x
	}
	n.Layer("maxpool")
	return n.MaxPool(x, graph.PoolAttrs{Size: 3, Stride: 2, Pad: n.padding(x, 3, 2)})
}

// basic is the two-convolution residual block of He et al. 2015,
// https://arxiv.org/abs/1512.03385, figure 2: y = ReLU(F(x) + shortcut(x)).
//
//	x [N,H,W,C] → [N,H/stride,W/stride,width]
//
// Parameters carry torchvision's names: conv1, bn1, conv2, bn2, and
// downsample.0 (convolution), downsample.1 (batch norm).
func (n *network) basic(x *graph.Node, name string, width, stride int) *graph.Node {
	shortcut := n.shortcut(x, name, width, stride)

	y := n.conv(x, name+".conv1", width, 3, stride)
	y = n.batchNorm(y, name+".bn1")
	y = n.relu(y, name+".relu1")

	y = n.conv(y, name+".conv2", width, 3, 1)
	y = n.lastNorm(y, name+".bn2")

	y = n.sum(y, shortcut, name)
	return n.relu(y, name+".relu2")
}

// bottleneck is the three-convolution block of figure 5, right; the output has
// 4·width channels.
func (n *network) bottleneck(x *graph.Node, name string, width, stride int) *graph.Node {
	shortcut := n.shortcut(x, name, 4*width, stride)

	first, second := 1, stride
	if n.StrideFirst {
		first, second = stride, 1
	}
	y := n.conv(x, name+".conv1", width, 1, first)
	y = n.batchNorm(y, name+".bn1")
	y = n.relu(y, name+".relu1")

	y = n.conv(y, name+".conv2", width, 3, second)
	y = n.batchNorm(y, name+".bn2")
	y = n.relu(y, name+".relu2")

	y = n.conv(y, name+".conv3", 4*width, 1, 1)
	y = n.lastNorm(y, name+".bn3")

	y = n.sum(y, shortcut, name)
	return n.relu(y, name+".relu3")
}

// preAct is the block of He et al. 2016, https://arxiv.org/abs/1603.05027, figure
// 4 (e): batch norm and ReLU come before each convolution, and nothing after the
// sum. A projection sees the activated input, the identity the raw one.
//
//	x [N,H,W,C] → [N,H/stride,W/stride,width], or 4·width with bottleneck blocks
//
// Parameters are named as in the other blocks. Elsewhere they are called:
//
//	here                      wide-residual-networks     timm's resnetv2
//	conv1                     conv0                      stem.conv
//	layer1.0.bn1, .conv1      group0.block0.bn0, .conv0  stages.0.blocks.0.norm1, .conv1
//	layer1.0.downsample.0     group0.block0.convdim      stages.0.blocks.0.downsample.conv
//	norm                      bn                         norm
func (n *network) preAct(x *graph.Node, name string, width, stride int) *graph.Node {
	kernels, strides, widths := []int{3, 3}, []int{stride, 1}, []int{width, width}
	if n.Block == Bottleneck {
		kernels, strides, widths = []int{1, 3, 1}, []int{1, stride, 1}, []int{width, width, 4 * width}
		if n.StrideFirst {
			strides = []int{stride, 1, 1}
		}
	}
	shortcut, y := x, x
	for i := range kernels {
		part := fmt.Sprint(i + 1)
		y = n.batchNorm(y, name+".bn"+part)
		y = n.relu(y, name+".relu"+part)
		if i == 0 && (stride != 1 || x.Shape[3] != widths[len(widths)-1]) {
			shortcut = n.shortcut(y, name, widths[len(widths)-1], stride)
		}
		if n.ZeroGamma && i == len(kernels)-1 { // no γ follows: timm zeroes the kernel
			n.Variable(name+".conv"+part+".weight", graph.VariableAttrs{Decay: true}, kernels[i], kernels[i], y.Shape[3], widths[i])
		}
		y = n.conv(y, name+".conv"+part, widths[i], kernels[i], strides[i])
	}
	return n.sum(y, shortcut, name)
}

// pooled is Page's ResNet-9: prep, and stages of a convolution that doubles the
// filters, a 2×2 max-pool, and residual units. At the end the maximum of each
// channel over the picture (of 4×4 pixels where images have 32×32), a dense layer
// without bias, and a factor of 1/8 on its outputs. Names are those of dawn.py
// with dots for its underscores, but fc for linear.
func (n *network) pooled(x *graph.Node) Network {
	unit := func(x *graph.Node, name string, width int) *graph.Node {
		x = n.conv(x, name+".conv", width, 3, 1)
		x = n.batchNorm(x, name+".bn")
		return n.relu(x, name+".relu")
	}
	x = unit(x, "prep", cmp.Or(n.StemFilters, n.Filters))
	net := Network{Stem: x}
	width := n.Filters
	for stage, blocks := range n.Blocks {
		width *= 2
		name := fmt.Sprintf("layer%d", stage+1)
		x = unit(x, name, width)
		n.Layer(name + ".pool")
		x = n.MaxPool(x, graph.PoolAttrs{Size: 2, Stride: 2})
		for i := range blocks {
			name := name + ".residual"
			if i > 0 {
				name += fmt.Sprint(i + 1)
			}
			y := unit(x, name+".res1", width)
			y = unit(y, name+".res2", width)
			x = n.sum(y, x, name)
		}
		net.Stages = append(net.Stages, x)
	}
	return n.maxHead(x, net)
}

// maxHead is what follows the last stage of a pooled or single network.
func (n *network) maxHead(x *graph.Node, net Network) Network {
	n.Layer("pool") // a square picture becomes one pixel, of which the mean is itself
	size := min(x.Shape[1], x.Shape[2])
	net.Features = n.GlobalAvgPool(n.MaxPool(x, graph.PoolAttrs{Size: size, Stride: size}))
	net.Logits, net.Kernel = n.dense(net.Features, "fc", n.Classes)
	n.Layer("classifier")
	net.Logits = n.Scale(net.Logits, cmp.Or(n.LogitScale, 0.125))
	return net
}

// single is airbench's network with a shortcut past the second convolution of
// each stage: the stem, and stages of a convolution, a 2×2 max-pool, batch norm,
// ReLU and residual units (layer1.conv, layer1.bn, layer1.residual.conv, …). The
// end is that of pooled networks.
func (n *network) single(x *graph.Node) Network {
	if n.Stem == WhitenStem {
		x = n.whiten(x)
	} else {
		x = n.stem(x)
	}
	net := Network{Stem: x}
	width := n.Filters
	for stage, blocks := range n.Blocks {
		switch {
		case n.Widen != nil:
			width = n.Filters * n.Widen[stage]
		case stage > 0:
			width *= 2
		}
		name := fmt.Sprintf("layer%d", stage+1)
		x = n.conv(x, name+".conv", width, 3, 1)
		n.Layer(name + ".pool")
		x = n.MaxPool(x, graph.PoolAttrs{Size: 2, Stride: 2})
		x = n.batchNorm(x, name+".bn")
		x = n.relu(x, name+".relu")
		for i := range blocks {
			name := name + ".residual"
			if i > 0 {
				name += fmt.Sprint(i + 1)
			}
			y := n.conv(x, name+".conv", width, 3, 1)
			y = n.batchNorm(y, name+".bn")
			y = n.sum(y, x, name)
			x = n.relu(y, name+".relu")
		}
		net.Stages = append(net.Stages, x)
	}
	return n.maxHead(x, net)
}

// whiten is the whitening stem and a ReLU: [N,H,W,C] → [N,H',W',2·k²·C] with
// H' = H-k+1 as in airbench or, with WhitenPad, H' = H, the larger half of the zeros
// after the picture. Then pools halve 32 rows to 16, 8 and 4 and lose none; 31 become
// 15, 7 and 3. The kernel is Whitening's.
func (n *network) whiten(x *graph.Node) *graph.Node {
	n.Layer("whiten")
	k, channels := n.Whiten, x.Shape[3]
	width := 2 * k * k * channels
	init := graph.Init{Kind: graph.Whitening, FanIn: k * k * channels, FanOut: k * k * width}
	w := n.Variable("whiten.weight", graph.VariableAttrs{Role: graph.Fixed, Init: init}, k, k, channels, width)
	attrs := graph.ConvAttrs{Stride: 1}
	if n.WhitenPad {
		attrs.Pad = graph.SamePadding(x.Shape[1], x.Shape[2], k, 1)
	}
	x = n.Conv(x, w, attrs)
	x = n.Bias(x, n.Variable("whiten.bias", graph.VariableAttrs{}, width))
	return n.relu(x, "whiten.relu")
}

// sum ends a block's branch y and adds the shortcut: squeeze-excitation first,
// stochastic depth last.
func (n *network) sum(y, shortcut *graph.Node, name string) *graph.Node {
	if n.SE {
		y = n.squeezeExcite(y, name+".se")
	}
	if len(n.dropRates) > 0 {
		rate := n.dropRates[0]
		n.dropRates = n.dropRates[1:]
		if rate > 0 {
			n.Layer(name + ".drop_path")
			y = n.ScaleChannels(y, n.Input("drop_path."+name, graph.Real, y.Shape[0]))
		}
	}
	n.Layer(name + ".add")
	return n.Add(y, shortcut)
}

// squeezeExcite multiplies each channel by a factor in (0,1) that two dense
// layers compute from all channels' means (Hu et al. 2018, figure 3):
//
//	x [N,H,W,C] → x·sigmoid(fc2(ReLU(fc1(mean of x))))
//
// The inner width is C/16 as a multiple of 8, at least 8, as in timm's seresnet
// models; there fc1 and fc2 are 1×1 convolutions, [OC,C,1,1] in files instead of
// [OC,C].
func (n *network) squeezeExcite(x *graph.Node, name string) *graph.Node {
	channels := x.Shape[3]
	inner := max(8, (channels/16+4)/8*8)
	n.Layer(name + ".pool")
	s := n.GlobalAvgPool(x)
	s, _ = n.dense(s, name+".fc1", inner)
	s = n.relu(s, name+".relu")
	s, _ = n.dense(s, name+".fc2", channels)
	n.Layer(name + ".gate")
	s = n.Sigmoid(s)
	n.Layer(name + ".scale")
	return n.ScaleChannels(x, s)
}

// lastNorm is the batch norm that ends a block's branch. With ZeroGamma its γ
// begins at 0, so that the block begins as its shortcut (torchvision's
// zero_init_residual).
func (n *network) lastNorm(x *graph.Node, name string) *graph.Node {
	if n.ZeroGamma { // the first declaration of a variable counts
		n.Variable(name+".weight", graph.VariableAttrs{}, x.Shape[3])
	}
	return n.batchNorm(x, name)
}

// shortcut is the identity where the shape stays, else option A or B. With
// AvgDown the projection does not stride but sees averages of 2×2 pixels (ResNet-D),
// and its names move by one, as in timm. With pre-activation it has no batch norm.
func (n *network) shortcut(x *graph.Node, name string, width, stride int) *graph.Node {
	channels := x.Shape[3]
	if stride == 1 && channels == width {
		return x
	}
	if n.Shortcut == PadShortcut {
		n.Layer(name + ".downsample")
		x = n.Subsample(x, stride)
		half := (width - channels) / 2
		return n.PadChannels(x, half, width-channels-half)
	}
	conv, norm := name+".downsample.0", name+".downsample.1"
	if n.AvgDown {
		conv, norm = norm, name+".downsample.2"
		if stride > 1 {
			n.Layer(name + ".downsample.0")
			pad := graph.SamePadding(x.Shape[1], x.Shape[2], stride, stride) // PyTorch's ceil_mode
			x = n.AvgPool(x, graph.PoolAttrs{Size: stride, Stride: stride, Pad: pad})
			stride = 1
		}
	}
	x = n.conv(x, conv, width, 1, stride)
	if n.PreAct {
		return x
	}
	return n.batchNorm(x, norm)
}

// padding keeps ⌈size/stride⌉ rows and columns, by the convention's rule.
func (n *network) padding(x *graph.Node, kernel, stride int) graph.Padding {
	if n.Convention == Keras {
		return graph.SamePadding(x.Shape[1], x.Shape[2], kernel, stride)
	}
	return graph.SymmetricPadding((kernel - 1) / 2)
}

// conv is a convolution, without bias unless ConvBias asks for one.
func (n *network) conv(x *graph.Node, name string, width, kernel, stride int) *graph.Node {
	n.Layer(name)
	channels := x.Shape[3]
	init := graph.Init{Kind: graph.HeNormalFanOut, FanIn: kernel * kernel * channels, FanOut: kernel * kernel * width}
	if n.Convention == Keras {
		init.Kind = graph.GlorotUniform
	}
	if n.Dirac {
		init.Kind = graph.Dirac
	}
	w := n.Variable(name+".weight", graph.VariableAttrs{Init: init, Decay: true}, kernel, kernel, channels, width)
	y := n.Conv(x, w, graph.ConvAttrs{Stride: stride, Pad: n.padding(x, kernel, stride)})
	if !n.ConvBias {
		return y
	}
	biasInit := graph.Init{Kind: graph.LeCunUniform, FanIn: init.FanIn} // PyTorch's Conv2d
	if n.Convention == Keras {
		biasInit.Kind = graph.Zeros
	}
	return n.Bias(y, n.Variable(name+".bias", graph.VariableAttrs{Init: biasInit}, width))
}

// batchNorm normalises with the batch's statistics in training, and updates
//
//	moving = (1-rate)·moving + rate·batch
//
// where Keras writes momentum for 1-rate (0.99) and PyTorch for rate (0.1).
// The variance that enters is the biased one in Keras 3, the unbiased one
// (divided by M-1 where the biased is by M) in PyTorch.
//
// It is x itself in a network without normalisation.
func (n *network) batchNorm(x *graph.Node, name string) *graph.Node {
	if n.Norm == NoNorm {
		return x
	}
	n.Layer(name)
	rate, unbiased := n.BatchNormRate(), n.Convention != Keras
	channels := x.Shape[len(x.Shape)-1]
	variable := func(suffix string, role graph.Role, init graph.InitKind) *graph.Node {
		attrs := graph.VariableAttrs{Role: role, Init: graph.Init{Kind: init}, Shift: suffix == ".bias"}
		return n.Variable(name+suffix, attrs, channels)
	}
	gamma := graph.Parameter
	if n.FixedGamma {
		gamma = graph.Fixed
	}
	scale := variable(".weight", gamma, graph.Ones)
	shift := variable(".bias", graph.Parameter, graph.Zeros)
	movingMean := variable(".running_mean", graph.Statistic, graph.Zeros)
	movingVariance := variable(".running_var", graph.Statistic, graph.Ones)
	attrs := graph.NormAttrs{Epsilon: n.BatchNormEpsilon(), Training: n.training}
	if !n.training {
		return n.BatchNorm(x, scale, shift, movingMean, movingVariance, attrs)
	}

	mean := n.BatchMean(x)
	variance := n.BatchVariance(x, mean)
	entering := rate
	if m := x.Shape.Elements() / channels; unbiased && m > 1 {
		entering *= float64(m) / float64(m-1)
	}
	n.Update(movingMean, n.Add(n.Scale(movingMean, 1-rate), n.Scale(mean, rate)))
	n.Update(movingVariance, n.Add(n.Scale(movingVariance, 1-rate), n.Scale(variance, entering)))
	return n.BatchNorm(x, scale, shift, mean, variance, attrs)
}

func (n *network) relu(x *graph.Node, name string) *graph.Node {
	n.Layer(name)
	return n.ReLU(x)
}

// dense is x·w + bias: [N,C] → [N,K].
func (n *network) dense(x *graph.Node, name string, classes int) (y, kernel *graph.Node) {
	n.Layer(name)
	channels := x.Shape[len(x.Shape)-1]
	kernelInit := graph.Init{Kind: graph.LeCunUniform, FanIn: channels, FanOut: classes}
	biasInit := kernelInit
	if n.Convention == Keras {
		kernelInit.Kind, biasInit.Kind = graph.GlorotUniform, graph.Zeros
	}
	kernel = n.Variable(name+".weight", graph.VariableAttrs{Init: kernelInit, Decay: true}, channels, classes)
	if (n.Block == Pooled || n.Block == Single) && name == "fc" {
		return n.MatMul(x, kernel, graph.MatMulAttrs{}), kernel
	}
	bias := n.Variable(name+".bias", graph.VariableAttrs{Init: biasInit}, classes)
	return n.Bias(n.MatMul(x, kernel, graph.MatMulAttrs{}), bias), kernel
}
