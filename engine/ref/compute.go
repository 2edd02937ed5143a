package ref

import (
	"fmt"
	"math"

	"github.com/residual-ml/residual/graph"
)

// compute fills y, which is zero, with node n of operands in. It is the list of
// all operations; inputs and variables have their values before.
func compute(n *graph.Node, y array, in []array) error {
	switch n.Op {
	case graph.OpConstant:
		y.v[0] = n.Value

	case graph.OpConv:
		conv(y, in[0], in[1], n.Conv)
	case graph.OpConvBackwardData:
		convBackwardData(y, in[0], in[1], n.Conv)
	case graph.OpConvBackwardWeights:
		convBackwardWeights(y, in[0], in[1], n.Conv)

	case graph.OpBias:
		bias(y, in[0], in[1])
	case graph.OpSumChannels:
		sumChannels(y, in[0])

	case graph.OpBatchMean:
		batchMean(y, in[0])
	case graph.OpBatchVariance:
		batchVariance(y, in[0], in[1])
	case graph.OpBatchNorm:
		batchNorm(y, in[0], in[1], in[2], in[3], in[4], n.Norm)
	case graph.OpBatchNormBackwardScale:
		batchNormBackwardScale(y, in[0], in[1], in[2], in[3], n.Norm)
	case graph.OpBatchNormBackwardData:
		if n.Norm.Training {
			batchNormBackwardTraining(y, in[0], in[1], in[2], in[3], in[4], in[5], in[6], n.Norm)
		} else {
			batchNormBackwardInference(y, in[0], in[2], in[4], n.Norm)
		}

	case graph.OpReLU:
		each(y, in[0], func(x float64) float64 { return max(x, 0) })
	case graph.OpReLUBackward:
		pairs(y, in[0], in[1], func(dy, y float64) float64 {
			if y > 0 {
				return dy
			}
			return 0
		})
	case graph.OpSigmoid:
		each(y, in[0], func(x float64) float64 { return 1 / (1 + math.Exp(-x)) })
	case graph.OpScaleChannels:
		scaleChannels(y, in[0], in[1])

	case graph.OpMaxPool:
		maxPool(y, in[0], n.Pool)
	case graph.OpMaxPoolBackward:
		maxPoolBackward(y, in[0], in[1], n.Pool)
	case graph.OpAvgPool:
		avgPool(y, in[0], n.Pool)
	case graph.OpAvgPoolBackward:
		avgPoolBackward(y, in[0], n.Pool)
	case graph.OpGlobalAvgPool:
		globalAvgPool(y, in[0])
	case graph.OpGlobalAvgPoolBackward:
		globalAvgPoolBackward(y, in[0])

	case graph.OpMatMul:
		matMul(y, in[0], in[1], n.MatMul)

	case graph.OpSubsample:
		subsample(y, in[0], n.Stride)
	case graph.OpSubsampleBackward:
		subsampleBackward(y, in[0], n.Stride)
	case graph.OpPadChannels:
		padChannels(y, in[0], n.Channels)
	case graph.OpSliceChannels:
		sliceChannels(y, in[0], n.Channels)

	case graph.OpSoftmax:
		softmax(y, in[0])
	case graph.OpSoftmaxBackward:
		softmaxBackward(y, in[0], in[1])
	case graph.OpOneHot:
		return oneHot(y, in[0], n.OneHot)
	case graph.OpCrossEntropy:
		crossEntropy(y, in[0], in[1])
	case graph.OpCrossEntropyBackward:
		crossEntropyBackward(y, in[0], in[1], in[2])

	case graph.OpAdd:
		pairs(y, in[0], in[1], func(a, b float64) float64 { return a + b })
	case graph.OpSub:
		pairs(y, in[0], in[1], func(a, b float64) float64 { return a - b })
	case graph.OpMul:
		pairs(y, in[0], in[1], func(a, b float64) float64 { return a * b })
	case graph.OpDiv:
		pairs(y, in[0], in[1], func(a, b float64) float64 { return a / b })
	case graph.OpSqrt:
		each(y, in[0], math.Sqrt)

	case graph.OpSum:
		for _, x := range in[0].v {
			y.v[0] += x
		}
	case graph.OpSumSquares:
		for _, x := range in[0].v {
			y.v[0] += x * x
		}
	case graph.OpBroadcast:
		for i := range y.v {
			y.v[i] = in[0].v[0]
		}

	default:
		return fmt.Errorf("there is no operation %v", n.Op)
	}
	return nil
}

// each applies f to every element.
func each(y, x array, f func(x float64) float64) {
	for i, x := range x.v {
		y.v[i] = f(x)
	}
}

// pairs applies f to every pair of elements; either operand may be a scalar.
func pairs(y, a, b array, f func(a, b float64) float64) {
	stepA, stepB := 1, 1
	if len(a.shape) == 0 {
		stepA = 0
	}
	if len(b.shape) == 0 {
		stepB = 0
	}
	for i := range y.v {
		y.v[i] = f(a.v[i*stepA], b.v[i*stepB])
	}
}
