package model

import (
	"fmt"

	"github.com/residual-ml/residual/graph"
)

// Network is a residual network appended to a graph.
type Network struct {
	// Stem is the output of the stem and Stages those of the stages,
	// [N,H,W,C] each; the last is what the global average pool takes.
	Stem     *graph.Node
	Stages   []*graph.Node
	Features *graph.Node // [N,C], after the global average pool
	Logits   *graph.Node // [N,K], before softmax
	Kernel   *graph.Node // [C,K], the dense layer's kernel: the one that the tutorial penalises
}

// Build appends the network to b: images [N,H,W,C] → logits [N,K]. In training,
// batch normalisation uses the batch's statistics and updates the moving ones;
// otherwise it uses the moving ones. Mistakes are b's to report.
func (c Config) Build(b *graph.Builder, images *graph.Node, training bool) Network {
	if err := c.Check(); err != nil {
		b.Fail("%w", err)
		return Network{images, []*graph.Node{images}, images, images, images}
	}
	n := network{Builder: b, Config: c, training: training}

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
			if c.Block == Bottleneck {
				x = n.bottleneck(x, name, width, stride)
			} else {
				x = n.basic(x, name, width, stride)
			}
		}
		net.Stages = append(net.Stages, x)
		width *= 2
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
	training bool
}

// stem is [N,H,W,C] → [N,H,W,filters], or a quarter of height and width with
// the large stem.
func (n *network) stem(x *graph.Node) *graph.Node {
	if n.Stem == SmallStem {
		x = n.conv(x, "conv1", n.Filters, 3, 1)
		x = n.batchNorm(x, "bn1")
		return n.relu(x, "relu")
	}
	x = n.conv(x, "conv1", n.Filters, 7, 2)
	x = n.batchNorm(x, "bn1")
	x = n.relu(x, "relu")
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
	y = n.batchNorm(y, name+".bn2")

	n.Layer(name + ".add")
	y = n.Add(y, shortcut)
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
	y = n.batchNorm(y, name+".bn3")

	n.Layer(name + ".add")
	y = n.Add(y, shortcut)
	return n.relu(y, name+".relu3")
}

// shortcut is the identity where the shape stays, else option A or B.
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
	x = n.conv(x, name+".downsample.0", width, 1, stride)
	return n.batchNorm(x, name+".downsample.1")
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
	rate, unbiased := 0.1, true
	if n.Convention == Keras {
		rate, unbiased = 0.01, false
	}
	channels := x.Shape[len(x.Shape)-1]
	variable := func(suffix string, role graph.Role, init graph.InitKind) *graph.Node {
		return n.Variable(name+suffix, graph.VariableAttrs{Role: role, Init: graph.Init{Kind: init}}, channels)
	}
	scale := variable(".weight", graph.Parameter, graph.Ones)
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
	bias := n.Variable(name+".bias", graph.VariableAttrs{Init: biasInit}, classes)
	return n.Bias(n.MatMul(x, kernel, graph.MatMulAttrs{}), bias), kernel
}
