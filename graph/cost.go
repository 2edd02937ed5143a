package graph

// MACs returns the multiply-accumulates of a convolution or matrix product,
// padding included as papers count it; 0 for every other operation.
func MACs(n *Node) int64 {
	switch n.Op {
	case OpConv: // per output element one kernel window
		w := n.Inputs[1].Shape
		return int64(n.Shape.Elements()) * int64(w[0]*w[1]*w[2])
	case OpConvBackwardData:
		dy, w := n.Inputs[0].Shape, n.Inputs[1].Shape
		return int64(dy.Elements()) * int64(w[0]*w[1]*w[2])
	case OpConvBackwardWeights:
		dy := n.Inputs[1].Shape
		return int64(dy.Elements()) * int64(n.Shape[0]*n.Shape[1]*n.Shape[2])
	case OpMatMul:
		inner := n.Inputs[0].Shape[1]
		if n.MatMul.TransposeA {
			inner = n.Inputs[0].Shape[0]
		}
		return int64(n.Shape.Elements()) * int64(inner)
	}
	return 0
}
