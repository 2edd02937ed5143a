package graph

import "github.com/residual-ml/residual/tensor"

// Gradients appends the nodes that compute the gradient of a scalar with
// respect to each of wrt, and returns them in that order. It goes backwards
// through the nodes made so far (reverse-mode differentiation) and adds up the
// contributions of every use. A node that the scalar does not depend on is a
// mistake: a parameter that never learns is a disconnected network.
func (b *Builder) Gradients(of *Node, wrt ...*Node) []*Node {
	failed := make([]*Node, len(wrt))
	for i := range failed {
		failed[i] = placeholder
	}
	if !b.wantShape(OpInvalid, "the node to differentiate", of, tensor.Shape{}) {
		return failed
	}
	for _, n := range append([]*Node{of}, wrt...) {
		if !b.owns(n) {
			b.Fail("gradient: %v belongs to another graph", n)
			return failed
		}
	}

	// Only nodes on a path from wrt to the scalar need a gradient.
	leads := make([]bool, len(b.nodes))
	for _, w := range wrt {
		leads[w.ID] = true
	}
	for _, n := range b.nodes {
		for _, in := range n.Inputs {
			leads[n.ID] = leads[n.ID] || leads[in.ID]
		}
	}

	grad := make([]*Node, len(b.nodes)) // d of / d node, so far
	forward := b.nodes[:of.ID+1]        // nodes appended below are not differentiated
	grad[of.ID] = b.Constant(1)
	layer := b.layer
	for i := len(forward) - 1; i >= 0; i-- {
		n := forward[i]
		if grad[i] == nil || !leads[i] {
			continue
		}
		b.layer = n.Name
		for k, d := range b.backward(n, grad[i], func(k int) bool { return leads[n.Inputs[k].ID] }) {
			in := n.Inputs[k]
			switch {
			case d == nil || !leads[in.ID]:
			case grad[in.ID] == nil:
				grad[in.ID] = d
			default:
				grad[in.ID] = b.Add(grad[in.ID], d)
			}
		}
	}
	b.layer = layer

	out := make([]*Node, len(wrt))
	for i, w := range wrt {
		if grad[w.ID] == nil {
			b.Fail("gradient: %v does not depend on %v", of, w)
			return failed
		}
		out[i] = grad[w.ID]
	}
	return out
}

// backward returns the gradient of each operand of n, given dy, that of its
// output; nil where there is none or want says that nobody needs it. Each case
// begins with the forward line.
func (b *Builder) backward(n, dy *Node, want func(operand int) bool) []*Node {
	in := n.Inputs
	d := make([]*Node, len(in))
	switch n.Op {
	case OpInput, OpVariable, OpConstant, OpOneHot:

	case OpConv: // y = conv(x, w)
		if want(0) {
			d[0] = b.ConvBackwardData(dy, in[1], in[0], n.Conv)
		}
		if want(1) {
			d[1] = b.ConvBackwardWeights(in[0], dy, in[1], n.Conv)
		}
	case OpConvBackwardData: // dx = convᵀ(dy, w), linear in both: its adjoint is conv
		if want(0) {
			d[0] = b.Conv(dy, in[1], n.Conv)
		}
		if want(1) {
			d[1] = b.ConvBackwardWeights(dy, in[0], in[1], n.Conv)
		}

	case OpBias: // y = x + bias
		d[0] = dy
		if want(1) {
			d[1] = b.SumChannels(dy)
		}

	case OpBatchNorm: // y = (x-mean)/√(variance+ε)·γ + β
		x, scale, mean, variance := in[0], in[1], in[3], in[4]
		dScale := b.add(Node{Op: OpBatchNormBackwardScale, Norm: n.Norm, Shape: scale.Shape}, dy, x, mean, variance)
		dShift := b.SumChannels(dy)
		operands := []*Node{dy, x, scale, mean, variance}
		if n.Norm.Training { // mean and variance are functions of x, and end here
			operands = append(operands, dScale, dShift)
		} else if want(3) || want(4) {
			b.Fail("gradient: batch_norm outside training has none for its mean and variance")
		}
		if want(0) {
			d[0] = b.add(Node{Op: OpBatchNormBackwardData, Norm: n.Norm, Shape: x.Shape}, operands...)
		}
		d[1], d[2] = dScale, dShift
	case OpBatchMean, OpBatchVariance: // reached only through a node other than OpBatchNorm
		b.Fail("gradient: %v has one only inside batch_norm", n.Op)

	case OpReLU: // y = max(x, 0)
		d[0] = b.ReLUBackward(dy, n)
	case OpSigmoid: // y = 1/(1+exp(-x)): dx = dy·y·(1-y)
		d[0] = b.Mul(dy, b.Mul(n, b.Sub(b.Constant(1), n)))
	case OpScaleChannels: // y = x·s: dx = dy·s, ds = Σ over H and W of dy·x
		if want(0) {
			d[0] = b.ScaleChannels(dy, in[1])
		}
		if want(1) && len(in[1].Shape) == 1 {
			b.Fail("gradient: scale_channels has none for one factor per image")
		} else if want(1) {
			area := in[0].Shape[1] * in[0].Shape[2]
			d[1] = b.Scale(b.GlobalAvgPool(b.Mul(dy, in[0])), float64(area))
		}
	case OpMaxPool: // y = max over the window
		d[0] = b.add(Node{Op: OpMaxPoolBackward, Pool: n.Pool, Shape: in[0].Shape}, dy, in[0])
	case OpAvgPool: // y = mean over the window
		d[0] = b.add(Node{Op: OpAvgPoolBackward, Pool: n.Pool, Shape: in[0].Shape}, dy)
	case OpGlobalAvgPool: // y = mean over H and W
		d[0] = b.add(Node{Op: OpGlobalAvgPoolBackward, Shape: in[0].Shape}, dy)

	case OpMatMul: // y = op(a)·op(b)
		d[0], d[1] = b.matMulBackward(n, dy, want)

	case OpSubsample: // y = x[:, ::stride, ::stride, :]
		d[0] = b.add(Node{Op: OpSubsampleBackward, Stride: n.Stride, Shape: in[0].Shape}, dy)
	case OpPadChannels: // y = [0…, x, 0…]
		d[0] = b.SliceChannels(dy, n.Channels.Before, n.Channels.After)
	case OpSliceChannels: // y = x without some channels
		d[0] = b.PadChannels(dy, n.Channels.Before, n.Channels.After)

	case OpSoftmax: // y = exp(x)/Σ exp(x)
		d[0] = b.add(Node{Op: OpSoftmaxBackward, Shape: n.Shape}, dy, n)
	case OpCrossEntropy: // l = Σ t·(log Σ exp z - z)
		d[0] = b.add(Node{Op: OpCrossEntropyBackward, Shape: in[0].Shape}, dy, in[0], in[1])
		if want(1) {
			b.Fail("gradient: cross_entropy has none for its targets")
		}

	case OpAdd: // y = a + b
		d[0], d[1] = b.sumTo(in[0], dy), b.sumTo(in[1], dy)
	case OpSub: // y = a - b
		d[0] = b.sumTo(in[0], dy)
		if want(1) {
			d[1] = b.sumTo(in[1], b.Scale(dy, -1))
		}
	case OpMul: // y = a · b
		if want(0) {
			d[0] = b.sumTo(in[0], b.Mul(dy, in[1]))
		}
		if want(1) {
			d[1] = b.sumTo(in[1], b.Mul(dy, in[0]))
		}
	case OpDiv: // y = a / b: da = dy/b, db = -dy·y/b
		if want(0) {
			d[0] = b.sumTo(in[0], b.Div(dy, in[1]))
		}
		if want(1) {
			d[1] = b.sumTo(in[1], b.Scale(b.Div(b.Mul(dy, n), in[1]), -1))
		}
	case OpSqrt: // y = √x: dx = dy/(2y)
		d[0] = b.Div(b.Scale(dy, 0.5), n)
	case OpSum: // y = Σ x
		d[0] = b.Broadcast(dy, in[0].Shape)
	case OpSumSquares: // y = Σ x²
		d[0] = b.Mul(b.Scale(in[0], 2), dy)
	case OpBroadcast: // y = x everywhere
		d[0] = b.Sum(dy)

	default:
		b.Fail("gradient: %v has none", n.Op)
	}
	return d
}

// sumTo adds up the gradient of an operand that was broadcast from a scalar.
func (b *Builder) sumTo(operand, d *Node) *Node {
	if len(operand.Shape) == 0 && len(d.Shape) != 0 {
		return b.Sum(d)
	}
	return d
}

func (b *Builder) matMulBackward(n, dy *Node, want func(int) bool) (da, db *Node) {
	x, y, t := n.Inputs[0], n.Inputs[1], n.MatMul
	if want(0) {
		if t.TransposeA { // y = aᵀ·op(b): da = op(b)·dyᵀ
			da = b.MatMul(y, dy, MatMulAttrs{TransposeA: t.TransposeB, TransposeB: true})
		} else { // da = dy·op(b)ᵀ
			da = b.MatMul(dy, y, MatMulAttrs{TransposeB: !t.TransposeB})
		}
	}
	if want(1) {
		if t.TransposeB { // y = op(a)·bᵀ: db = dyᵀ·op(a)
			db = b.MatMul(dy, x, MatMulAttrs{TransposeA: true, TransposeB: t.TransposeA})
		} else { // db = op(a)ᵀ·dy
			db = b.MatMul(x, dy, MatMulAttrs{TransposeA: !t.TransposeA})
		}
	}
	return da, db
}
