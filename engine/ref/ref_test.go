package ref

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

type nodes = []*graph.Node

// value is an operand or a result: a shape and its elements.
func value(shape []int, v ...float64) tensor.Tensor { return tensor.Of(v, shape...) }

func shape(axes ...int) []int { return axes }

var nan = math.NaN()

// The judge is judged: each operation on a few numbers, worked by hand.
func TestByHand(t *testing.T) {
	picture := value(shape(1, 2, 2, 1), 1, 2, 3, 4)
	pixels := value(shape(1, 2, 2, 2), 1, 10, 2, 20, 3, 30, 4, 40)
	square := value(shape(1, 3, 3, 1), 1, 2, 3, 4, 5, 6, 7, 8, 9)
	root2, root8 := math.Sqrt(2), math.Sqrt(8)
	backward := func(b *graph.Builder, y, dy, x *graph.Node) *graph.Node {
		return b.Gradients(b.Sum(b.Mul(y, dy)), x)[0]
	}
	conv := func(stride int, pad graph.Padding) func(b *graph.Builder, in nodes) *graph.Node {
		return func(b *graph.Builder, in nodes) *graph.Node {
			return b.Conv(in[0], in[1], graph.ConvAttrs{Stride: stride, Pad: pad})
		}
	}
	norm := graph.NormAttrs{Epsilon: 1}
	training := graph.NormAttrs{Epsilon: 1, Training: true}
	batchNorm := func(b *graph.Builder, x, scale, shift *graph.Node) *graph.Node {
		mean := b.BatchMean(x)
		return b.BatchNorm(x, scale, shift, mean, b.BatchVariance(x, mean), training)
	}
	window := graph.PoolAttrs{Size: 2, Stride: 1}
	tested := map[graph.Op]bool{}

	for _, c := range []struct {
		op    graph.Op
		what  string
		in    []tensor.Tensor
		build func(b *graph.Builder, in nodes) *graph.Node
		want  tensor.Tensor
	}{
		{graph.OpConstant, "", nil,
			func(b *graph.Builder, _ nodes) *graph.Node { return b.Constant(0.1) }, value(nil, 0.1)},

		// 1·1 + 2·10 + 3·100 + 4·1000
		{graph.OpConv, "one window", []tensor.Tensor{picture, value(shape(2, 2, 1, 1), 1, 10, 100, 1000)},
			conv(1, graph.Padding{}), value(shape(1, 1, 1, 1), 4321)},
		// TensorFlow's 'same' for kernel 2: a zero row below and a zero column right
		{graph.OpConv, "padding after", []tensor.Tensor{picture, value(shape(2, 2, 1, 1), 1, 10, 100, 1000)},
			conv(1, graph.Padding{Bottom: 1, Right: 1}), value(shape(1, 2, 2, 1), 4321, 402, 43, 4)},
		{graph.OpConv, "padding before", []tensor.Tensor{picture, value(shape(2, 2, 1, 1), 1, 10, 100, 1000)},
			conv(1, graph.Padding{Top: 1, Left: 1}), value(shape(1, 2, 2, 1), 1000, 2100, 3010, 4321)},
		// every second pixel, two channels to two: (c0 + c1, c0 - c1)
		{graph.OpConv, "1x1 stride 2", []tensor.Tensor{pixels, value(shape(1, 1, 2, 2), 1, 1, 1, -1)},
			conv(2, graph.Padding{}), value(shape(1, 1, 1, 2), 11, -9)},
		// dx: each pixel has the weight it was multiplied by
		{graph.OpConvBackwardData, "one window", []tensor.Tensor{picture, value(shape(2, 2, 1, 1), 1, 10, 100, 1000), value(shape(1, 1, 1, 1), 2)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, conv(1, graph.Padding{})(b, in), in[2], in[0])
			}, value(shape(1, 2, 2, 1), 2, 20, 200, 2000)},
		// the last pixel is in all four windows, with every tap
		{graph.OpConvBackwardData, "padding after", []tensor.Tensor{picture, value(shape(2, 2, 1, 1), 1, 10, 100, 1000), value(shape(1, 2, 2, 1), 1, 1, 1, 1)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, conv(1, graph.Padding{Bottom: 1, Right: 1})(b, in), in[2], in[0])
			}, value(shape(1, 2, 2, 1), 1, 11, 101, 1111)},
		{graph.OpConvBackwardData, "1x1 stride 2", []tensor.Tensor{pixels, value(shape(1, 1, 2, 2), 1, 1, 1, -1), value(shape(1, 1, 1, 2), 3, 5)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, conv(2, graph.Padding{})(b, in), in[2], in[0])
			}, value(shape(1, 2, 2, 2), 8, -2, 0, 0, 0, 0, 0, 0)},
		// dw: tap (0,0) saw all pixels, (1,1) only the last
		{graph.OpConvBackwardWeights, "padding after", []tensor.Tensor{picture, value(shape(2, 2, 1, 1), 0, 0, 0, 0), value(shape(1, 2, 2, 1), 1, 1, 1, 1)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, conv(1, graph.Padding{Bottom: 1, Right: 1})(b, in), in[2], in[1])
			}, value(shape(2, 2, 1, 1), 10, 6, 7, 4)},
		{graph.OpConvBackwardWeights, "1x1 stride 2", []tensor.Tensor{pixels, value(shape(1, 1, 2, 2), 0, 0, 0, 0), value(shape(1, 1, 1, 2), 3, 5)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, conv(2, graph.Padding{})(b, in), in[2], in[1])
			}, value(shape(1, 1, 2, 2), 3, 5, 30, 50)},

		{graph.OpBias, "", []tensor.Tensor{pixels, value(shape(2), 100, 200)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Bias(in[0], in[1]) },
			value(shape(1, 2, 2, 2), 101, 210, 102, 220, 103, 230, 104, 240)},
		{graph.OpSumChannels, "", []tensor.Tensor{pixels},
			func(b *graph.Builder, in nodes) *graph.Node { return b.SumChannels(in[0]) }, value(shape(2), 10, 100)},
		{graph.OpBatchMean, "", []tensor.Tensor{pixels},
			func(b *graph.Builder, in nodes) *graph.Node { return b.BatchMean(in[0]) }, value(shape(2), 2.5, 25)},
		// (1.5² + 0.5² + 0.5² + 1.5²)/4
		{graph.OpBatchVariance, "", []tensor.Tensor{pixels},
			func(b *graph.Builder, in nodes) *graph.Node { return b.BatchVariance(in[0], b.BatchMean(in[0])) },
			value(shape(2), 1.25, 125)},
		// (x-2)/√(3+1)·10 + 5
		{graph.OpBatchNorm, "", []tensor.Tensor{picture, value(shape(1), 10), value(shape(1), 5), value(shape(1), 2), value(shape(1), 3)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return b.BatchNorm(in[0], in[1], in[2], in[3], in[4], norm)
			},
			value(shape(1, 2, 2, 1), 0, 5, 10, 15)},
		// x = 1, 3: mean 2, variance 1, x̂ = ∓1/√2; dγ = -dy₀/√2 + dy₁/√2
		{graph.OpBatchNormBackwardScale, "", []tensor.Tensor{value(shape(2, 1), 1, 3), value(shape(1), 4), value(shape(1), 0), value(shape(2, 1), 3, 1)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, batchNorm(b, in[0], in[1], in[2]), in[3], in[1])
			}, value(shape(1), -root2)},
		// dβ/M = 2, dγ/M = -1/√2: dx = 4/√2·(3 - 2 - 1/2, 1 - 2 + 1/2)
		{graph.OpBatchNormBackwardData, "training", []tensor.Tensor{value(shape(2, 1), 1, 3), value(shape(1), 4), value(shape(1), 0), value(shape(2, 1), 3, 1)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, batchNorm(b, in[0], in[1], in[2]), in[3], in[0])
			}, value(shape(2, 1), root8/2, -root8/2)},
		{graph.OpBatchNormBackwardData, "inference", []tensor.Tensor{value(shape(2, 1), 1, 3), value(shape(1), 10), value(shape(1), 5), value(shape(1), 2), value(shape(1), 3), value(shape(2, 1), 3, 1)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, b.BatchNorm(in[0], in[1], in[2], in[3], in[4], norm), in[5], in[0])
			}, value(shape(2, 1), 15, 5)},

		{graph.OpReLU, "", []tensor.Tensor{value(shape(4), -1, 0, 2, nan)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.ReLU(in[0]) }, value(shape(4), 0, 0, 2, nan)},
		{graph.OpReLUBackward, "", []tensor.Tensor{value(shape(4), 5, 6, 7, 8), value(shape(4), 0, 2, nan, 1e-300)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.ReLUBackward(in[0], in[1]) }, value(shape(4), 0, 6, 0, 8)},
		// 1/(1+1/3) = 3/4
		{graph.OpSigmoid, "", []tensor.Tensor{value(shape(3), 0, math.Log(3), -math.Log(3))},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Sigmoid(in[0]) }, value(shape(3), 0.5, 0.75, 0.25)},
		{graph.OpScaleChannels, "by channel", []tensor.Tensor{pixels, value(shape(1, 2), 2, -1)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.ScaleChannels(in[0], in[1]) },
			value(shape(1, 2, 2, 2), 2, -10, 4, -20, 6, -30, 8, -40)},
		{graph.OpScaleChannels, "by image", []tensor.Tensor{value(shape(2, 1, 1, 2), 1, 2, 3, 4), value(shape(2), 0, 2)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.ScaleChannels(in[0], in[1]) },
			value(shape(2, 1, 1, 2), 0, 0, 6, 8)},

		{graph.OpMaxPool, "", []tensor.Tensor{square},
			func(b *graph.Builder, in nodes) *graph.Node { return b.MaxPool(in[0], window) }, value(shape(1, 2, 2, 1), 5, 6, 8, 9)},
		{graph.OpMaxPool, "padding loses, NaN wins", []tensor.Tensor{value(shape(1, 2, 2, 1), -1, -2, -3, nan)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return b.MaxPool(in[0], graph.PoolAttrs{Size: 2, Stride: 1, Pad: graph.Padding{Top: 1, Left: 1}})
			}, value(shape(1, 2, 2, 1), -1, -1, -1, nan)},
		// of equals the first, in both overlapping windows
		{graph.OpMaxPoolBackward, "", []tensor.Tensor{value(shape(1, 2, 3, 1), 7, 7, 1, 7, 2, 3), value(shape(1, 1, 2, 1), 10, 1)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, b.MaxPool(in[0], window), in[1], in[0])
			}, value(shape(1, 2, 3, 1), 10, 1, 0, 0, 0, 0)},
		{graph.OpAvgPool, "", []tensor.Tensor{square},
			func(b *graph.Builder, in nodes) *graph.Node { return b.AvgPool(in[0], window) }, value(shape(1, 2, 2, 1), 3, 4, 6, 7)},
		{graph.OpAvgPool, "padding counts", []tensor.Tensor{picture},
			func(b *graph.Builder, in nodes) *graph.Node {
				return b.AvgPool(in[0], graph.PoolAttrs{Size: 2, Stride: 1, Pad: graph.Padding{Bottom: 1, Right: 1}, CountPad: true})
			}, value(shape(1, 2, 2, 1), 2.5, 1.5, 1.75, 1)},
		{graph.OpAvgPool, "padding does not count", []tensor.Tensor{picture},
			func(b *graph.Builder, in nodes) *graph.Node {
				return b.AvgPool(in[0], graph.PoolAttrs{Size: 2, Stride: 1, Pad: graph.Padding{Bottom: 1, Right: 1}})
			}, value(shape(1, 2, 2, 1), 2.5, 3, 3.5, 4)},
		// windows of 4, 2, 2 and 1 pixels
		{graph.OpAvgPoolBackward, "", []tensor.Tensor{picture, value(shape(1, 2, 2, 1), 4, 4, 4, 4)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, b.AvgPool(in[0], graph.PoolAttrs{Size: 2, Stride: 1, Pad: graph.Padding{Bottom: 1, Right: 1}}), in[1], in[0])
			}, value(shape(1, 2, 2, 1), 1, 3, 3, 9)},
		{graph.OpGlobalAvgPool, "", []tensor.Tensor{pixels},
			func(b *graph.Builder, in nodes) *graph.Node { return b.GlobalAvgPool(in[0]) }, value(shape(1, 2), 2.5, 25)},
		{graph.OpGlobalAvgPoolBackward, "", []tensor.Tensor{pixels, value(shape(1, 2), 4, 8)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, b.GlobalAvgPool(in[0]), in[1], in[0])
			}, value(shape(1, 2, 2, 2), 1, 2, 1, 2, 1, 2, 1, 2)},

		{graph.OpMatMul, "a·b", []tensor.Tensor{value(shape(2, 2), 1, 2, 3, 4), value(shape(2, 2), 5, 6, 7, 8)},
			matMulOf(false, false), value(shape(2, 2), 19, 22, 43, 50)},
		{graph.OpMatMul, "aᵀ·b", []tensor.Tensor{value(shape(2, 2), 1, 2, 3, 4), value(shape(2, 2), 5, 6, 7, 8)},
			matMulOf(true, false), value(shape(2, 2), 26, 30, 38, 44)},
		{graph.OpMatMul, "a·bᵀ", []tensor.Tensor{value(shape(2, 2), 1, 2, 3, 4), value(shape(2, 2), 5, 6, 7, 8)},
			matMulOf(false, true), value(shape(2, 2), 17, 23, 39, 53)},
		{graph.OpMatMul, "aᵀ·bᵀ", []tensor.Tensor{value(shape(2, 2), 1, 2, 3, 4), value(shape(2, 2), 5, 6, 7, 8)},
			matMulOf(true, true), value(shape(2, 2), 23, 31, 34, 46)},
		{graph.OpMatMul, "a row and a column", []tensor.Tensor{value(shape(1, 3), 1, 2, 3), value(shape(3, 1), 4, 5, 6)},
			matMulOf(false, false), value(shape(1, 1), 32)},

		{graph.OpSubsample, "", []tensor.Tensor{square},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Subsample(in[0], 2) }, value(shape(1, 2, 2, 1), 1, 3, 7, 9)},
		{graph.OpSubsampleBackward, "", []tensor.Tensor{square, picture},
			func(b *graph.Builder, in nodes) *graph.Node { return backward(b, b.Subsample(in[0], 2), in[1], in[0]) },
			value(shape(1, 3, 3, 1), 1, 0, 2, 0, 0, 0, 3, 0, 4)},
		{graph.OpPadChannels, "", []tensor.Tensor{value(shape(1, 1, 2, 2), 1, 2, 3, 4)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.PadChannels(in[0], 1, 2) },
			value(shape(1, 1, 2, 5), 0, 1, 2, 0, 0, 0, 3, 4, 0, 0)},
		{graph.OpSliceChannels, "", []tensor.Tensor{value(shape(1, 1, 2, 4), 1, 2, 3, 4, 5, 6, 7, 8)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.SliceChannels(in[0], 2, 1) },
			value(shape(1, 1, 2, 1), 3, 7)},

		// logits log 1 and log 3, and a row that would overflow
		{graph.OpSoftmax, "", []tensor.Tensor{value(shape(2, 2), 0, math.Log(3), 1000, 1000)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Softmax(in[0]) }, value(shape(2, 2), 0.25, 0.75, 0.5, 0.5)},
		// y·(dy - Σ dy·y) with Σ = 8/4
		{graph.OpSoftmaxBackward, "", []tensor.Tensor{value(shape(1, 2), 0, math.Log(3)), value(shape(1, 2), 8, 0)},
			func(b *graph.Builder, in nodes) *graph.Node { return backward(b, b.Softmax(in[0]), in[1], in[0]) },
			value(shape(1, 2), 1.5, -1.5)},
		{graph.OpOneHot, "", []tensor.Tensor{tensor.Of([]int32{1, 0}, 2)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return b.OneHot(in[0], graph.OneHotAttrs{Classes: 2, Smoothing: 0.5})
			}, value(shape(2, 2), 0.25, 0.75, 0.75, 0.25)},
		// -log 3/4 and, without clipping, 1000
		{graph.OpCrossEntropy, "", []tensor.Tensor{value(shape(2, 2), 0, math.Log(3), 1000, 0), value(shape(2, 2), 0, 1, 0, 1)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.CrossEntropy(in[0], in[1]) },
			value(shape(2), math.Log(4.0/3), 1000)},
		// 2·((1/4,3/4)·2 - (0,2)): targets that add up to two
		{graph.OpCrossEntropyBackward, "", []tensor.Tensor{value(shape(1, 2), 0, math.Log(3)), value(shape(1, 2), 0, 2), value(shape(1), 2)},
			func(b *graph.Builder, in nodes) *graph.Node {
				return backward(b, b.CrossEntropy(in[0], in[1]), in[2], in[0])
			}, value(shape(1, 2), 1, -1)},

		{graph.OpAdd, "", []tensor.Tensor{value(shape(2), 1, 2), value(nil, 10)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Add(in[0], in[1]) }, value(shape(2), 11, 12)},
		{graph.OpSub, "", []tensor.Tensor{value(shape(2), 1, 2), value(nil, 10)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Sub(in[1], in[0]) }, value(shape(2), 9, 8)},
		{graph.OpMul, "", []tensor.Tensor{value(shape(2), 1, 2), value(shape(2), 3, 4)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Mul(in[0], in[1]) }, value(shape(2), 3, 8)},
		{graph.OpDiv, "", []tensor.Tensor{value(shape(2), 1, 2), value(nil, 10)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Div(in[1], in[0]) }, value(shape(2), 10, 5)},
		{graph.OpSqrt, "", []tensor.Tensor{value(shape(2), 9, 0)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Sqrt(in[0]) }, value(shape(2), 3, 0)},
		{graph.OpSum, "", []tensor.Tensor{value(shape(2, 2), 1, 2, 3, 4)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Sum(in[0]) }, value(nil, 10)},
		{graph.OpSumSquares, "", []tensor.Tensor{value(shape(2, 2), 1, 2, 3, 4)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.SumSquares(in[0]) }, value(nil, 30)},
		{graph.OpBroadcast, "", []tensor.Tensor{value(nil, 7)},
			func(b *graph.Builder, in nodes) *graph.Node { return b.Broadcast(in[0], tensor.Shape{1, 3}) }, value(shape(1, 3), 7, 7, 7)},
	} {
		t.Run(fmt.Sprint(c.op, " ", c.what), func(t *testing.T) {
			b := graph.NewBuilder()
			var in nodes
			for i, v := range c.in {
				kind := graph.Real
				if v.DType() == tensor.Int32 {
					kind = graph.Integer
				}
				in = append(in, b.Input(fmt.Sprint("operand ", i), kind, v.Shape()...))
			}
			g, got := evaluate(t, b, c.build(b, in), c.in...)
			tested[c.op] = true
			if !slices.ContainsFunc(g.Nodes, func(n *graph.Node) bool { return n.Op == c.op }) {
				t.Errorf("the graph has no %v", c.op)
			}
			if !got.Shape().Equal(c.want.Shape()) {
				t.Fatalf("shape %v, want %v", got.Shape(), c.want.Shape())
			}
			for i, want := range c.want.Float64s() {
				if g := got.Float64s()[i]; !(math.Abs(g-want) <= 1e-12*math.Abs(want)) && !(math.IsNaN(g) && math.IsNaN(want)) {
					t.Fatalf("%v, want %v", got.Float64s(), c.want.Float64s())
				}
			}
		})
	}
	for _, op := range graph.Ops() {
		if !tested[op] && op != graph.OpInput && op != graph.OpVariable {
			t.Errorf("%v is not worked by hand", op)
		}
	}
}

func matMulOf(a, b bool) func(*graph.Builder, nodes) *graph.Node {
	return func(builder *graph.Builder, in nodes) *graph.Node {
		return builder.MatMul(in[0], in[1], graph.MatMulAttrs{TransposeA: a, TransposeB: b})
	}
}

func evaluate(t testing.TB, b *graph.Builder, y *graph.Node, inputs ...tensor.Tensor) (*graph.Graph, tensor.Tensor) {
	t.Helper()
	g, err := b.Build(y)
	if err != nil {
		t.Fatal(err)
	}
	e := New()
	p, err := e.Compile(g, e.NewVariables())
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Run(context.Background(), inputs...)
	if err != nil {
		t.Fatal(err)
	}
	return g, out[0]
}

// Integers pass through unchanged, the only thing that can be done to them but
// OpOneHot.
func TestIntegers(t *testing.T) {
	b := graph.NewBuilder()
	_, got := evaluate(t, b, b.Input("labels", graph.Integer, 3), tensor.Of([]int32{1, math.MinInt32, math.MaxInt32}, 3))
	if want := []int32{1, math.MinInt32, math.MaxInt32}; !slices.Equal(got.Int32s(), want) {
		t.Errorf("%v, want %v", got.Int32s(), want)
	}
}

// noise is a tensor of normal numbers.
func noise(shape ...int) tensor.Tensor {
	v := tensor.New(tensor.Float64, shape...)
	source := random.New(1)
	for i := range v.Float64s() {
		v.Float64s()[i] = source.Normal()
	}
	return v
}

// Results do not depend on the number of processors: to the last bit.
func TestProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	x, w, dy := noise(3, 9, 7, 5), noise(3, 3, 5, 17), noise(3, 5, 4, 17)
	attrs := graph.ConvAttrs{Stride: 2, Pad: graph.SymmetricPadding(1)}
	results := func(processors int) (bits []float64) {
		runtime.GOMAXPROCS(processors)
		for operand := range 2 {
			b := graph.NewBuilder()
			in := nodes{b.Input("x", graph.Real, x.Shape()...), b.Input("w", graph.Real, w.Shape()...), b.Input("dy", graph.Real, dy.Shape()...)}
			y := b.Conv(in[0], in[1], attrs)
			_, d := evaluate(t, b, b.Gradients(b.Sum(b.Mul(y, in[2])), in[operand])[0], x, w, dy)
			bits = append(bits, d.Float64s()...)
		}
		b := graph.NewBuilder()
		_, y := evaluate(t, b, b.Conv(b.Input("x", graph.Real, x.Shape()...), b.Input("w", graph.Real, w.Shape()...), attrs), x, w)
		return append(bits, y.Float64s()...)
	}
	want := results(1)
	for _, processors := range []int{2, 7} {
		if !slices.Equal(results(processors), want) {
			t.Errorf("%d processors give other numbers than one", processors)
		}
	}
}

// A layer of the tutorial network, two pictures. The judge needs 1 GFLOP/s and
// processor, so that a step of the whole network takes seconds.
func BenchmarkConv(b *testing.B) {
	x, w, dy := noise(2, 16, 16, 128), noise(3, 3, 128, 128), noise(2, 16, 16, 128)
	attrs := graph.ConvAttrs{Stride: 1, Pad: graph.SymmetricPadding(1)}
	a := func(t tensor.Tensor) array { return array{t.Shape(), t.Float64s()} }
	const flops = 2 * 2 * 16 * 16 * 9 * 128 * 128
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"forward", func() { conv(newArray(dy.Shape()), a(x), a(w), attrs) }},
		{"backward_data", func() { convBackwardData(newArray(x.Shape()), a(dy), a(w), attrs) }},
		{"backward_weights", func() { convBackwardWeights(newArray(w.Shape()), a(x), a(dy), attrs) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				c.run()
			}
			b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
