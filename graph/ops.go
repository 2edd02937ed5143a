package graph

import (
	"slices"

	"github.com/residual-ml/residual/tensor"
)

// SamePadding is TensorFlow's 'same' rule for one axis pair: the output has
// ⌈in/stride⌉ rows, and an odd total of padding puts the larger half after.
func SamePadding(h, w, kernel, stride int) Padding {
	top, bottom := sameAxis(h, kernel, stride)
	left, right := sameAxis(w, kernel, stride)
	return Padding{top, bottom, left, right}
}

func sameAxis(in, kernel, stride int) (before, after int) {
	out := (in + stride - 1) / stride
	total := max((out-1)*stride+kernel-in, 0)
	return total / 2, total - total/2
}

// SymmetricPadding pads every side alike, PyTorch's rule.
func SymmetricPadding(p int) Padding { return Padding{p, p, p, p} }

// outputSize is the number of window positions along one axis; 0 when the
// window does not fit.
func outputSize(in, before, after, kernel, stride int) int {
	if in+before+after < kernel {
		return 0
	}
	return (in+before+after-kernel)/stride + 1
}

// convOutput is the shape [N,OH,OW,OC] of a convolution's output, from those of x and the
// kernel; op names a mistake in them.
func (b *Builder) convOutput(op Op, x, w *Node, attrs ConvAttrs) (shape tensor.Shape, ok bool) {
	if !b.wantRank(op, x, 4) || !b.wantRank(op, w, 4) {
		return nil, false
	}
	p := attrs.Pad
	oh := outputSize(x.Shape[1], p.Top, p.Bottom, w.Shape[0], max(attrs.Stride, 1))
	ow := outputSize(x.Shape[2], p.Left, p.Right, w.Shape[1], max(attrs.Stride, 1))
	switch {
	case w.Shape[2] != x.Shape[3]:
		b.Fail("%v: kernel %v is for %d channels, input %v has %d", op, w.Shape, w.Shape[2], x.Shape, x.Shape[3])
	case attrs.Stride < 1 || min(p.Top, p.Bottom, p.Left, p.Right) < 0:
		b.Fail("%v: stride %d, padding %+v: want stride ≥ 1, padding ≥ 0", op, attrs.Stride, p)
	case oh < 1 || ow < 1:
		b.Fail("%v: kernel %v with padding %+v does not fit input %v", op, w.Shape, p, x.Shape)
	}
	return tensor.Shape{x.Shape[0], oh, ow, w.Shape[3]}, b.err == nil
}

// Conv is OpConv: x [N,H,W,C], w [KH,KW,C,OC] → [N,OH,OW,OC].
func (b *Builder) Conv(x, w *Node, attrs ConvAttrs) *Node {
	shape, ok := b.convOutput(OpConv, x, w, attrs)
	if !ok {
		return placeholder
	}
	return b.add(Node{Op: OpConv, Conv: attrs, Shape: shape}, x, w)
}

// ConvBackwardData is OpConvBackwardData; like names the forward input, whose
// shape dx has.
func (b *Builder) ConvBackwardData(dy, w, like *Node, attrs ConvAttrs) *Node {
	shape, ok := b.convOutput(OpConvBackwardData, like, w, attrs)
	if !ok || !b.wantShape(OpConvBackwardData, "gradient", dy, shape) {
		return placeholder
	}
	return b.add(Node{Op: OpConvBackwardData, Conv: attrs, Shape: like.Shape}, dy, w)
}

// ConvBackwardWeights is OpConvBackwardWeights; like names the kernel, whose
// shape dw has.
func (b *Builder) ConvBackwardWeights(x, dy, like *Node, attrs ConvAttrs) *Node {
	shape, ok := b.convOutput(OpConvBackwardWeights, x, like, attrs)
	if !ok || !b.wantShape(OpConvBackwardWeights, "gradient", dy, shape) {
		return placeholder
	}
	return b.add(Node{Op: OpConvBackwardWeights, Conv: attrs, Shape: like.Shape}, x, dy)
}

// channelsOf is the shape [C] of a per-channel operand of x.
func (b *Builder) channelsOf(op Op, x *Node) tensor.Shape {
	if len(x.Shape) == 0 {
		b.Fail("%v: a scalar has no channels", op)
		return placeholder.Shape[:1]
	}
	return x.Shape[len(x.Shape)-1:]
}

// Bias is OpBias: x […,C] + bias [C].
func (b *Builder) Bias(x, bias *Node) *Node {
	if !b.wantShape(OpBias, "bias", bias, b.channelsOf(OpBias, x)) {
		return placeholder
	}
	return b.add(Node{Op: OpBias, Shape: x.Shape}, x, bias)
}

// SumChannels is OpSumChannels: x […,C] → [C].
func (b *Builder) SumChannels(x *Node) *Node {
	return b.add(Node{Op: OpSumChannels, Shape: b.channelsOf(OpSumChannels, x)}, x)
}

// BatchMean is OpBatchMean: x […,C] → [C].
func (b *Builder) BatchMean(x *Node) *Node {
	return b.add(Node{Op: OpBatchMean, Shape: b.channelsOf(OpBatchMean, x)}, x)
}

// BatchVariance is OpBatchVariance, biased: x […,C], mean [C] → [C].
func (b *Builder) BatchVariance(x, mean *Node) *Node {
	if !b.wantShape(OpBatchVariance, "mean", mean, b.channelsOf(OpBatchVariance, x)) {
		return placeholder
	}
	return b.add(Node{Op: OpBatchVariance, Shape: mean.Shape}, x, mean)
}

// BatchNorm is OpBatchNorm.
func (b *Builder) BatchNorm(x, scale, shift, mean, variance *Node, attrs NormAttrs) *Node {
	for _, p := range []struct {
		what string
		n    *Node
	}{{"γ", scale}, {"β", shift}, {"mean", mean}, {"variance", variance}} {
		if !b.wantShape(OpBatchNorm, p.what, p.n, b.channelsOf(OpBatchNorm, x)) {
			return placeholder
		}
	}
	if attrs.Epsilon <= 0 {
		return b.Fail("batch_norm: epsilon %v, want a positive number", attrs.Epsilon)
	}
	if attrs.Training && (mean.Op != OpBatchMean || mean.Inputs[0] != x ||
		variance.Op != OpBatchVariance || variance.Inputs[0] != x || variance.Inputs[1] != mean) {
		return b.Fail("batch_norm: mean %v and variance %v are not those of the batch %v, which training normalises with", mean, variance, x)
	}
	return b.add(Node{Op: OpBatchNorm, Norm: attrs, Shape: x.Shape}, x, scale, shift, mean, variance)
}

// ReLU is OpReLU.
func (b *Builder) ReLU(x *Node) *Node { return b.add(Node{Op: OpReLU, Shape: x.Shape}, x) }

// ReLUBackward is OpReLUBackward: dy where y is positive.
func (b *Builder) ReLUBackward(dy, y *Node) *Node {
	if !b.wantShape(OpReLUBackward, "gradient", dy, y.Shape) {
		return placeholder
	}
	return b.add(Node{Op: OpReLUBackward, Shape: y.Shape}, dy, y)
}

// Sigmoid is OpSigmoid.
func (b *Builder) Sigmoid(x *Node) *Node { return b.add(Node{Op: OpSigmoid, Shape: x.Shape}, x) }

// ScaleChannels is OpScaleChannels: x [N,H,W,C] · s, which is [N,C] or [N].
func (b *Builder) ScaleChannels(x, s *Node) *Node {
	if !b.wantRank(OpScaleChannels, x, 4) {
		return placeholder
	}
	want := tensor.Shape{x.Shape[0], x.Shape[3]}
	if len(s.Shape) == 1 {
		want = want[:1]
	}
	if !b.wantShape(OpScaleChannels, "factors", s, want) {
		return placeholder
	}
	return b.add(Node{Op: OpScaleChannels, Shape: x.Shape}, x, s)
}

func (b *Builder) pool(op Op, x *Node, attrs PoolAttrs) *Node {
	if !b.wantRank(op, x, 4) {
		return placeholder
	}
	p := attrs.Pad
	if attrs.Size < 1 || attrs.Stride < 1 || min(p.Top, p.Bottom, p.Left, p.Right) < 0 ||
		max(p.Top, p.Bottom, p.Left, p.Right) >= attrs.Size {
		return b.Fail("%v: %+v: want size and stride ≥ 1, padding below size", op, attrs)
	}
	oh := outputSize(x.Shape[1], p.Top, p.Bottom, attrs.Size, attrs.Stride)
	ow := outputSize(x.Shape[2], p.Left, p.Right, attrs.Size, attrs.Stride)
	if oh < 1 || ow < 1 {
		return b.Fail("%v: window %+v does not fit input %v", op, attrs, x.Shape)
	}
	return b.add(Node{Op: op, Pool: attrs, Shape: tensor.Shape{x.Shape[0], oh, ow, x.Shape[3]}}, x)
}

// MaxPool is OpMaxPool.
func (b *Builder) MaxPool(x *Node, attrs PoolAttrs) *Node { return b.pool(OpMaxPool, x, attrs) }

// AvgPool is OpAvgPool.
func (b *Builder) AvgPool(x *Node, attrs PoolAttrs) *Node { return b.pool(OpAvgPool, x, attrs) }

// GlobalAvgPool is OpGlobalAvgPool: [N,H,W,C] → [N,C].
func (b *Builder) GlobalAvgPool(x *Node) *Node {
	if !b.wantRank(OpGlobalAvgPool, x, 4) {
		return placeholder
	}
	return b.add(Node{Op: OpGlobalAvgPool, Shape: tensor.Shape{x.Shape[0], x.Shape[3]}}, x)
}

// MatMul is OpMatMul: x [M,K], y [K,N] → [M,N] after the transpositions.
func (b *Builder) MatMul(x, y *Node, attrs MatMulAttrs) *Node {
	if !b.wantRank(OpMatMul, x, 2) || !b.wantRank(OpMatMul, y, 2) {
		return placeholder
	}
	m, k := x.Shape[0], x.Shape[1]
	if attrs.TransposeA {
		m, k = k, m
	}
	k2, n := y.Shape[0], y.Shape[1]
	if attrs.TransposeB {
		k2, n = n, k2
	}
	if k != k2 {
		return b.Fail("matmul: %v and %v (%+v) have inner lengths %d and %d", x.Shape, y.Shape, attrs, k, k2)
	}
	return b.add(Node{Op: OpMatMul, MatMul: attrs, Shape: tensor.Shape{m, n}}, x, y)
}

// Subsample is OpSubsample: every stride-th row and column.
func (b *Builder) Subsample(x *Node, stride int) *Node {
	if !b.wantRank(OpSubsample, x, 4) {
		return placeholder
	}
	if stride < 1 {
		return b.Fail("subsample: stride %d, want ≥ 1", stride)
	}
	s := x.Shape
	shape := tensor.Shape{s[0], (s[1] + stride - 1) / stride, (s[2] + stride - 1) / stride, s[3]}
	return b.add(Node{Op: OpSubsample, Stride: stride, Shape: shape}, x)
}

// PadChannels is OpPadChannels.
func (b *Builder) PadChannels(x *Node, before, after int) *Node {
	return b.channels(OpPadChannels, x, ChannelAttrs{before, after}, before+after)
}

// SliceChannels is OpSliceChannels, which undoes PadChannels.
func (b *Builder) SliceChannels(x *Node, before, after int) *Node {
	return b.channels(OpSliceChannels, x, ChannelAttrs{before, after}, -before-after)
}

func (b *Builder) channels(op Op, x *Node, attrs ChannelAttrs, change int) *Node {
	if !b.wantRank(op, x, 4) {
		return placeholder
	}
	if attrs.Before < 0 || attrs.After < 0 {
		return b.Fail("%v: %+v: want counts ≥ 0", op, attrs)
	}
	shape := slices.Clone(x.Shape)
	shape[3] += change
	return b.add(Node{Op: op, Channels: attrs, Shape: shape}, x)
}

// Softmax is OpSoftmax: x [N,K] → probabilities.
func (b *Builder) Softmax(x *Node) *Node {
	if !b.wantRank(OpSoftmax, x, 2) {
		return placeholder
	}
	return b.add(Node{Op: OpSoftmax, Shape: x.Shape}, x)
}

// OneHot is OpOneHot: labels [N] → targets [N,K].
func (b *Builder) OneHot(labels *Node, attrs OneHotAttrs) *Node {
	if !b.wantRank(OpOneHot, labels, 1) {
		return placeholder
	}
	if labels.Kind != Integer {
		return b.Fail("one_hot: labels %v are not integers", labels)
	}
	if attrs.Classes < 2 || attrs.Smoothing < 0 || attrs.Smoothing >= 1 {
		return b.Fail("one_hot: %d classes, smoothing %v: want ≥ 2 classes, 0 ≤ smoothing < 1", attrs.Classes, attrs.Smoothing)
	}
	return b.add(Node{Op: OpOneHot, OneHot: attrs, Shape: tensor.Shape{labels.Shape[0], attrs.Classes}}, labels)
}

// CrossEntropy is OpCrossEntropy: logits [N,K], targets [N,K] → [N].
func (b *Builder) CrossEntropy(logits, targets *Node) *Node {
	if !b.wantRank(OpCrossEntropy, logits, 2) || !b.wantShape(OpCrossEntropy, "targets", targets, logits.Shape) {
		return placeholder
	}
	return b.add(Node{Op: OpCrossEntropy, Shape: logits.Shape[:1]}, logits, targets)
}

func (b *Builder) binary(op Op, x, y *Node) *Node {
	shape := x.Shape
	if len(shape) == 0 {
		shape = y.Shape
	}
	if b.err == nil && len(y.Shape) != 0 && !y.Shape.Equal(shape) {
		return b.Fail("%v: shapes %v and %v differ", op, x.Shape, y.Shape)
	}
	return b.add(Node{Op: op, Shape: shape}, x, y)
}

// Add is OpAdd: x + y.
func (b *Builder) Add(x, y *Node) *Node { return b.binary(OpAdd, x, y) }

// Sub is OpSub: x - y.
func (b *Builder) Sub(x, y *Node) *Node { return b.binary(OpSub, x, y) }

// Mul is OpMul: x · y.
func (b *Builder) Mul(x, y *Node) *Node { return b.binary(OpMul, x, y) }

// Div is OpDiv: x / y.
func (b *Builder) Div(x, y *Node) *Node { return b.binary(OpDiv, x, y) }

// Scale is x times a constant.
func (b *Builder) Scale(x *Node, c float64) *Node { return b.Mul(x, b.Constant(c)) }

// Sqrt is OpSqrt.
func (b *Builder) Sqrt(x *Node) *Node { return b.add(Node{Op: OpSqrt, Shape: x.Shape}, x) }

// Sum is OpSum: x → scalar.
func (b *Builder) Sum(x *Node) *Node { return b.add(Node{Op: OpSum}, x) }

// SumSquares is OpSumSquares: x → scalar.
func (b *Builder) SumSquares(x *Node) *Node { return b.add(Node{Op: OpSumSquares}, x) }

// Mean is the sum over all elements divided by their number.
func (b *Builder) Mean(x *Node) *Node { return b.Scale(b.Sum(x), 1/float64(x.Shape.Elements())) }

// Broadcast is OpBroadcast: scalar → shape.
func (b *Builder) Broadcast(x *Node, shape tensor.Shape) *Node {
	if !b.wantShape(OpBroadcast, "operand", x, tensor.Shape{}) {
		return placeholder
	}
	return b.add(Node{Op: OpBroadcast, Shape: shape}, x)
}
