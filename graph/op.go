package graph

import "fmt"

// Op is an operation. Its documentation gives operands, shapes and formula;
// engine/ref is the definition in numbers.
type Op uint8

// The operations. x is an activation, y an output, d means "gradient of the
// loss with respect to".
const (
	OpInvalid Op = iota

	OpInput    // a tensor given to Program.Run
	OpVariable // a value that outlives a run (VariableAttrs)
	OpConstant // Value as a scalar

	// OpConv is cross-correlation as all frameworks call convolution (ConvAttrs):
	//	x [N,H,W,C], w [KH,KW,C,OC] → [N,OH,OW,OC]
	//	y[n,oh,ow,oc] = Σ x[n, oh·stride+kh-top, ow·stride+kw-left, c] · w[kh,kw,c,oc]
	OpConv
	OpConvBackwardData    // dy [N,OH,OW,OC], w → dx [N,H,W,C]
	OpConvBackwardWeights // x, dy → dw [KH,KW,C,OC]

	OpBias        // x […,C], b [C] → x + b
	OpSumChannels // x […,C] → [C], the sum over every other axis: gradient of a bias or β

	OpBatchMean     // x […,C] → [C], over all other axes
	OpBatchVariance // x, mean → [C], the biased variance: Σ(x-mean)²/M, M = elements per channel

	// OpBatchNorm (NormAttrs) is x̂·γ + β with x̂ = (x-mean)/√(variance+ε)
	// (Ioffe, Szegedy 2015, https://arxiv.org/abs/1502.03167):
	//	x […,C], γ [C], β [C], mean [C], variance [C] → the shape of x
	OpBatchNorm
	OpBatchNormBackwardScale // dy, x, mean, variance → dγ [C] = Σ dy·x̂
	// OpBatchNormBackwardData is the gradient of x:
	//	dy, x, γ, mean, variance, dγ, dβ → γ/√(variance+ε) · (dy - dβ/M - x̂·dγ/M)   when Training
	//	dy, x, γ, mean, variance         → γ/√(variance+ε) · dy                       otherwise
	OpBatchNormBackwardData

	OpReLU         // max(x, 0); NaN stays NaN
	OpReLUBackward // dy, y → dy where y > 0, else 0
	OpSigmoid      // 1/(1+e⁻ˣ), element by element

	// OpScaleChannels multiplies every pixel by a factor:
	//	x [N,H,W,C], s [N,C] → x·s, of its image and channel (squeeze-excitation)
	//	x [N,H,W,C], s [N]   → x·s, of its image (stochastic depth); s has no gradient
	OpScaleChannels

	OpMaxPool         // x → [N,OH,OW,C] (PoolAttrs); NaN wins, so that no maximum hides it
	OpMaxPoolBackward // dy, x → dx; of equal maxima the first in row order takes all
	OpAvgPool         // x → [N,OH,OW,C] (PoolAttrs)
	OpAvgPoolBackward // dy → dx
	OpGlobalAvgPool   // x [N,H,W,C] → [N,C]
	// OpGlobalAvgPoolBackward spreads dy [N,C] over [N,H,W,C], divided by H·W.
	OpGlobalAvgPoolBackward

	OpMatMul // a [M,K], b [K,N] → [M,N], either transposed first (MatMulAttrs)

	// OpSubsample takes every Stride-th row and column, from the first:
	// with OpPadChannels, the option-A shortcut of He et al. 2015.
	OpSubsample
	OpSubsampleBackward // dy → dx, zeros between
	OpPadChannels       // zero channels before and after (ChannelAttrs)
	OpSliceChannels     // drops channels before and after (ChannelAttrs)

	OpSoftmax         // x [N,K] → probabilities
	OpSoftmaxBackward // dy, y → dx = y·(dy - Σ dy·y)
	OpOneHot          // labels [N] → targets [N,K] (OneHotAttrs); a label outside 0..K-1 is an error of Run
	// OpCrossEntropy is computed from logits, without clipping:
	//	z [N,K], targets t [N,K] → [N]: Σ_k t·(log Σ exp z - z)
	OpCrossEntropy
	OpCrossEntropyBackward // dl [N], z, t → dz = dl·(softmax(z)·Σt - t)

	// Elementwise; either operand may be a scalar, which is broadcast.
	OpAdd
	OpSub
	OpMul
	OpDiv
	OpSqrt

	OpSum        // x → scalar
	OpSumSquares // x → scalar Σx²
	OpBroadcast  // scalar → the node's shape

	numOps
)

var opNames = [numOps]string{
	OpInvalid: "invalid", OpInput: "input", OpVariable: "variable", OpConstant: "constant",
	OpConv: "conv", OpConvBackwardData: "conv_backward_data", OpConvBackwardWeights: "conv_backward_weights",
	OpBias: "bias", OpSumChannels: "sum_channels",
	OpBatchMean: "batch_mean", OpBatchVariance: "batch_variance", OpBatchNorm: "batch_norm",
	OpBatchNormBackwardScale: "batch_norm_backward_scale", OpBatchNormBackwardData: "batch_norm_backward_data",
	OpReLU: "relu", OpReLUBackward: "relu_backward", OpSigmoid: "sigmoid", OpScaleChannels: "scale_channels",
	OpMaxPool: "max_pool", OpMaxPoolBackward: "max_pool_backward",
	OpAvgPool: "avg_pool", OpAvgPoolBackward: "avg_pool_backward",
	OpGlobalAvgPool: "global_avg_pool", OpGlobalAvgPoolBackward: "global_avg_pool_backward",
	OpMatMul: "matmul", OpSubsample: "subsample", OpSubsampleBackward: "subsample_backward",
	OpPadChannels: "pad_channels", OpSliceChannels: "slice_channels",
	OpSoftmax: "softmax", OpSoftmaxBackward: "softmax_backward", OpOneHot: "one_hot",
	OpCrossEntropy: "cross_entropy", OpCrossEntropyBackward: "cross_entropy_backward",
	OpAdd: "add", OpSub: "sub", OpMul: "mul", OpDiv: "div", OpSqrt: "sqrt",
	OpSum: "sum", OpSumSquares: "sum_squares", OpBroadcast: "broadcast",
}

// String is the operation's name in plans and error messages.
func (op Op) String() string {
	if op < numOps {
		return opNames[op]
	}
	return fmt.Sprintf("op(%d)", uint8(op))
}

// Ops returns every operation, for tests that must miss none.
func Ops() []Op {
	ops := make([]Op, 0, numOps-1)
	for op := OpInvalid + 1; op < numOps; op++ {
		ops = append(ops, op)
	}
	return ops
}

// Elementwise reports whether op works on each element alone, with operands
// that are scalars or of the output's shape.
func (op Op) Elementwise() bool {
	switch op {
	case OpAdd, OpSub, OpMul, OpDiv, OpSqrt, OpReLU, OpReLUBackward:
		return true
	}
	return false
}
