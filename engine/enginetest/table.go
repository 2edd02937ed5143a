package enginetest

import (
	"fmt"
	"math"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

// row says how an operation is tested.
type row struct {
	op    graph.Op
	cases []opCase

	// An element may be wrong by bound·2⁻²⁴·terms: bound roundings of the
	// largest numbers that occur in its computation. Sums have 16: measured
	// sums of 4,608 products in any sensible order err by less than 3, and one
	// lost product by more than 3,600. The error of no other operation grows
	// with anything, and its bound counts its roundings.
	bound float64
	terms builder // nil: the operation itself on absolute values
}

// opCase is an operation on operands of certain shapes.
type opCase struct {
	name     string
	operands []operand
	build    builder
	terms    builder // nil: that of the row
	exact    bool    // on small integers, no float32 engine has an excuse to round

	// differentiable lists the operands for which graph.Gradients has a
	// gradient, which is compared with finite differences; for the others it
	// must report a mistake.
	differentiable []int
}

func (r row) termsOf(c opCase) builder {
	switch {
	case c.terms != nil:
		return c.terms
	case r.terms != nil:
		return r.terms
	}
	return func(b *graph.Builder, in []*graph.Node) *graph.Node {
		absolute := make([]*graph.Node, len(in))
		for i, n := range in {
			if absolute[i] = n; n.Kind == graph.Real {
				absolute[i] = abs(b, n)
			}
		}
		return c.build(b, absolute)
	}
}

// operand is the shape of an operand and what to fill it with.
type operand struct {
	shape tensor.Shape
	kind  graph.Kind
	fill  func(r *random.Source, v []float64, integers bool)
}

// of is an operand of any numbers: integers -4..4, or normal deviates, but none
// so near to zero that a finite difference would step over it.
func of(shape ...int) operand {
	return operand{shape: shape, fill: func(r *random.Source, v []float64, integers bool) {
		for i := range v {
			if v[i] = r.Normal(); integers {
				v[i] = float64(r.IntN(9) - 4)
			} else if math.Abs(v[i]) < 0.02 {
				v[i] = math.Copysign(0.02, v[i])
			}
		}
	}}
}

// positive is an operand of 1, 2 and 4, or of reals in [0.5,2).
func positive(shape ...int) operand {
	return operand{shape: shape, fill: func(r *random.Source, v []float64, integers bool) {
		for i := range v {
			if v[i] = r.Range(0.5, 2); integers {
				v[i] = float64(int(1) << r.IntN(3))
			}
		}
	}}
}

// distinct is an operand of reals no two of which are close, so that finite
// differences change no maximum; its integers have many equals.
func distinct(shape ...int) operand {
	o := of(shape...)
	integersOf := o.fill
	o.fill = func(r *random.Source, v []float64, integers bool) {
		if integers {
			integersOf(r, v, true)
			return
		}
		for i, p := range r.Perm(len(v)) {
			v[i] = 0.02*float64(p-len(v)/2) + 0.005
		}
	}
	return o
}

// scaled multiplies the real numbers of an operand and adds to them.
func (o operand) scaled(factor, offset float64) operand {
	fill := o.fill
	o.fill = func(r *random.Source, v []float64, integers bool) {
		fill(r, v, integers)
		for i := range v {
			if !integers {
				v[i] = v[i]*factor + offset
			}
		}
	}
	return o
}

// labels is an operand of n labels.
func labels(n, classes int) operand {
	return operand{shape: tensor.Shape{n}, kind: graph.Integer, fill: func(r *random.Source, v []float64, _ bool) {
		for i := range v {
			v[i] = float64(r.IntN(classes))
		}
	}}
}

// table has a row for each operation, in the order of package graph.
func table() []row {
	var rows []row
	for _, part := range [][]row{leaves(), convolutions(), channels(), gates(), pools(), dense(), shortcuts(), losses(), elementwise()} {
		rows = append(rows, part...)
	}
	return rows
}

func leaves() []row {
	identity := func(_ *graph.Builder, in []*graph.Node) *graph.Node { return in[0] }
	var cases []opCase
	for _, shape := range []tensor.Shape{{}, {1}, {17}, {3, 5, 7, 3}} {
		cases = append(cases, opCase{name: shape.String(), operands: []operand{of(shape...)}, build: identity, exact: true, differentiable: []int{0}})
	}
	constant := func(v float64) opCase {
		build := func(b *graph.Builder, _ []*graph.Node) *graph.Node { return b.Constant(v) }
		terms := func(b *graph.Builder, _ []*graph.Node) *graph.Node { return b.Constant(math.Abs(v)) }
		return opCase{name: fmt.Sprint(v), build: build, terms: terms, exact: v == float64(float32(v))}
	}
	return []row{
		{op: graph.OpInput, cases: cases},    // exact
		{op: graph.OpVariable, cases: cases}, // exact
		{op: graph.OpConstant, bound: 1, cases: []opCase{constant(0), constant(-3), constant(0.1), constant(1e-7), constant(1e30)}},
	}
}

// convCase are the shapes of a convolution.
type convCase struct {
	n, h, w, c int
	kh, kw, oc int
	stride     int
	pad        graph.Padding
}

func convCases() []convCase {
	none, one := graph.Padding{}, graph.SymmetricPadding(1)
	return []convCase{
		{1, 5, 7, 1, 3, 3, 1, 1, one},
		{3, 8, 8, 3, 3, 3, 16, 1, graph.SamePadding(8, 8, 3, 1)},
		{2, 8, 6, 16, 3, 3, 33, 2, graph.SamePadding(8, 6, 3, 2)}, // TensorFlow's 'same': 0 before, 1 after
		{2, 9, 6, 5, 3, 3, 16, 2, graph.SamePadding(9, 6, 3, 2)},  // and unlike along both axes
		{2, 8, 8, 16, 3, 3, 32, 2, one},                           // PyTorch's
		{1, 8, 6, 17, 1, 1, 10, 1, none},
		{3, 9, 7, 33, 1, 1, 16, 2, none}, // projection shortcut
		{2, 8, 8, 5, 1, 1, 10, 2, none},  // that never reads the last row
		{2, 11, 13, 3, 7, 7, 16, 2, graph.SymmetricPadding(3)},
		{2, 12, 10, 3, 7, 7, 5, 2, graph.SamePadding(12, 10, 7, 2)},
		{1, 7, 9, 5, 5, 5, 17, 1, graph.SymmetricPadding(2)},
		{32, 4, 4, 16, 3, 3, 16, 1, one},
		{33, 3, 5, 3, 3, 3, 10, 1, one},
		{1, 1, 1, 16, 3, 3, 10, 1, one}, // all taps but one in the padding
		{2, 2, 3, 17, 3, 3, 5, 2, one},
		{1, 6, 5, 5, 3, 3, 17, 1, graph.Padding{Top: 0, Bottom: 2, Left: 1, Right: 0}},
		{2, 5, 6, 3, 1, 3, 5, 1, graph.Padding{Left: 1, Right: 1}},
		{2, 7, 10, 5, 3, 2, 10, 3, none},
		{1, 6, 6, 160, 3, 3, 64, 1, one}, // 1,440 products in a sum
	}
}

func convolutions() []row {
	forward := row{op: graph.OpConv, bound: 16}
	data := row{op: graph.OpConvBackwardData, bound: 16}
	weights := row{op: graph.OpConvBackwardWeights, bound: 16}
	for _, s := range convCases() {
		attrs := graph.ConvAttrs{Stride: s.stride, Pad: s.pad}
		oh := (s.h+s.pad.Top+s.pad.Bottom-s.kh)/s.stride + 1
		ow := (s.w+s.pad.Left+s.pad.Right-s.kw)/s.stride + 1
		x, w, dy := of(s.n, s.h, s.w, s.c), of(s.kh, s.kw, s.c, s.oc), of(s.n, oh, ow, s.oc)
		name := fmt.Sprintf("%dx%dx%dx%d kernel %dx%dx%d stride %d pad %v", s.n, s.h, s.w, s.c, s.kh, s.kw, s.oc, s.stride, s.pad)
		forward.cases = append(forward.cases, opCase{name: name, operands: []operand{x, w}, exact: true, differentiable: []int{0, 1},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.Conv(in[0], in[1], attrs) }})
		like := &graph.Node{Shape: x.shape}
		data.cases = append(data.cases, opCase{name: name, operands: []operand{dy, w}, exact: true, differentiable: []int{0, 1},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
				return b.ConvBackwardData(in[0], in[1], like, attrs)
			}})
		likeW := &graph.Node{Shape: w.shape}
		weights.cases = append(weights.cases, opCase{name: name, operands: []operand{x, dy}, exact: true,
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
				return b.ConvBackwardWeights(in[0], in[1], likeW, attrs)
			}})
	}
	return []row{forward, data, weights}
}

// normed is x̂ of numbers that are all of one sign: the largest that x-mean can
// be on the way, also when an engine folds batch normalisation into x·a + b.
func normed(b *graph.Builder, x, mean, variance *graph.Node, attrs graph.NormAttrs) *graph.Node {
	attrs.Training = false
	one, zero := b.Broadcast(b.Constant(1), mean.Shape), b.Broadcast(b.Constant(0), mean.Shape)
	return b.BatchNorm(abs(b, x), one, zero, b.Scale(abs(b, mean), -1), variance, attrs)
}

// spread is v [C] at every pixel of a picture like x.
func spread(b *graph.Builder, v, x *graph.Node) *graph.Node {
	return b.Bias(b.Broadcast(b.Constant(0), x.Shape), v)
}

func channels() []row {
	rows := []row{
		{op: graph.OpBias, bound: 1},
		{op: graph.OpSumChannels, bound: 16},
		{op: graph.OpBatchMean, bound: 16},
		// The terms are squares and their error is relative to themselves, not
		// to x: an engine that subtracts squares of the mean fails.
		{op: graph.OpBatchVariance, bound: 16, terms: func(b *graph.Builder, in []*graph.Node) *graph.Node {
			if len(in) == 1 {
				in = append(in, b.BatchMean(in[0]))
			}
			return b.BatchVariance(in[0], in[1])
		}},
		{op: graph.OpBatchNorm, bound: 16},
		{op: graph.OpBatchNormBackwardScale, bound: 32},
		{op: graph.OpBatchNormBackwardData, bound: 32},
	}
	for _, s := range []struct {
		shape tensor.Shape
		exact bool // the mean divides by a power of two
	}{
		{tensor.Shape{1, 1, 2, 1}, true},
		{tensor.Shape{3, 5, 7, 3}, false},
		{tensor.Shape{2, 4, 8, 5}, true},
		{tensor.Shape{32, 4, 4, 16}, true},
		{tensor.Shape{2, 9, 6, 17}, false},
		{tensor.Shape{1, 11, 3, 33}, false},
		{tensor.Shape{32, 13, 12, 3}, false}, // 4,992 elements per channel
		{tensor.Shape{5, 10}, false},         // of a dense layer
		{tensor.Shape{64, 10}, true},
	} {
		C := s.shape[len(s.shape)-1]
		x, name := of(s.shape...), s.shape.String()
		c := func(build builder, exact bool, operands ...operand) opCase {
			return opCase{name: name, operands: operands, build: build, exact: exact}
		}
		bias := c(func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.Bias(in[0], in[1]) }, true, x, of(C))
		bias.differentiable = []int{0, 1}
		sum := c(func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.SumChannels(in[0]) }, true, x)
		mean := c(func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.BatchMean(in[0]) }, s.exact, x)
		variance := c(func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.BatchVariance(in[0], in[1]) }, s.exact, x, of(C))
		rows[0].cases = append(rows[0].cases, bias)
		rows[1].cases = append(rows[1].cases, sum)
		rows[2].cases = append(rows[2].cases, mean)
		rows[3].cases = append(rows[3].cases, variance)

		// A mean far from zero: what a channel after a ReLU may look like.
		far := c(func(b *graph.Builder, in []*graph.Node) *graph.Node {
			return b.BatchVariance(in[0], b.BatchMean(in[0]))
		}, false, x.scaled(1, 50))
		far.name += " far from zero"
		rows[3].cases = append(rows[3].cases, far)

		for _, epsilon := range []float64{1e-3, 1e-5} {
			training, inference := normCases(s.shape, epsilon)
			for i := range 3 {
				rows[4+i].cases = append(rows[4+i].cases, training[i], inference[i])
			}
		}
	}
	return rows
}

// normCases are batch normalisation, its dγ and its dx, in training and not.
func normCases(shape tensor.Shape, epsilon float64) (training, inference [3]opCase) {
	C := shape[len(shape)-1]
	x, scale, shift, dy := of(shape...).scaled(1.5, 0.5), of(C), of(C), of(shape...)
	for _, train := range []bool{true, false} {
		attrs := graph.NormAttrs{Epsilon: epsilon, Training: train}
		operands := []operand{x, scale, shift, of(C).scaled(0.3, 0.4), positive(C)}
		dyAt := len(operands)
		if train {
			operands = operands[:3]
			dyAt = 3
		}
		statistics := func(b *graph.Builder, in []*graph.Node) (mean, variance *graph.Node) {
			if train {
				mean = b.BatchMean(in[0])
				return mean, b.BatchVariance(in[0], mean)
			}
			return in[3], in[4]
		}
		forward := func(b *graph.Builder, in []*graph.Node) *graph.Node {
			mean, variance := statistics(b, in)
			return b.BatchNorm(in[0], in[1], in[2], mean, variance, attrs)
		}
		termsOfForward := func(b *graph.Builder, in []*graph.Node) *graph.Node {
			mean, variance := statistics(b, in)
			n := normed(b, in[0], mean, variance, attrs)
			return b.Bias(b.Mul(n, spread(b, abs(b, in[1]), n)), abs(b, in[2]))
		}
		gradient := func(operand int) builder {
			return func(b *graph.Builder, in []*graph.Node) *graph.Node {
				return backward(b, forward(b, in), in[dyAt], in[operand])
			}
		}
		termsOfScale := func(b *graph.Builder, in []*graph.Node) *graph.Node {
			mean, variance := statistics(b, in)
			return b.SumChannels(b.Mul(abs(b, in[dyAt]), normed(b, in[0], mean, variance, attrs)))
		}
		// γ/√(variance+ε) · (dy - dβ/M - x̂·dγ/M) without anything cancelled
		termsOfData := func(b *graph.Builder, in []*graph.Node) *graph.Node {
			mean, variance := statistics(b, in)
			sum := abs(b, in[dyAt])
			if train {
				perChannel := 1 / float64(shape.Elements()/C)
				n := normed(b, in[0], mean, variance, attrs)
				shift := b.Scale(b.SumChannels(abs(b, in[dyAt])), perChannel)
				scale := b.Scale(termsOfScale(b, in), perChannel)
				sum = b.Add(b.Bias(sum, shift), b.Mul(n, spread(b, scale, n)))
			}
			deviation := b.Sqrt(b.Add(variance, b.Constant(epsilon)))
			return b.Mul(sum, spread(b, b.Div(abs(b, in[1]), deviation), sum))
		}

		name := fmt.Sprintf("%v inference epsilon %v", shape, epsilon)
		if train {
			name = fmt.Sprintf("%v training epsilon %v", shape, epsilon)
		}
		withGradient := append(append([]operand{}, operands...), dy)
		cases := [3]opCase{
			{name: name, operands: operands, build: forward, terms: termsOfForward, differentiable: []int{0, 1, 2}},
			{name: name, operands: withGradient, build: gradient(1), terms: termsOfScale},
			{name: name, operands: withGradient, build: gradient(0), terms: termsOfData},
		}
		if train {
			training = cases
		} else {
			inference = cases
		}
	}
	return training, inference
}

// gates are what squeeze-excitation and stochastic depth need.
func gates() []row {
	// The result is rounded once from float64.
	sigmoid := row{op: graph.OpSigmoid, bound: 1, terms: func(b *graph.Builder, in []*graph.Node) *graph.Node {
		return b.Sigmoid(in[0]) // all positive
	}}
	for _, shape := range []tensor.Shape{{}, {1}, {3, 17}, {2, 5, 7, 3}, {33331}} {
		sigmoid.cases = append(sigmoid.cases, opCase{name: shape.String(), operands: []operand{of(shape...).scaled(3, 0)}, differentiable: []int{0},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.Sigmoid(in[0]) }})
	}
	scale := row{op: graph.OpScaleChannels, bound: 1} // one product
	for _, shape := range []tensor.Shape{{1, 1, 1, 1}, {2, 5, 7, 3}, {3, 4, 4, 16}, {5, 3, 2, 33}, {33, 8, 8, 5}} {
		build := func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.ScaleChannels(in[0], in[1]) }
		scale.cases = append(scale.cases,
			opCase{name: shape.String() + " by channel", operands: []operand{of(shape...), of(shape[0], shape[3])}, build: build, exact: true, differentiable: []int{0, 1}},
			opCase{name: shape.String() + " by image", operands: []operand{of(shape...), of(shape[0])}, build: build, exact: true, differentiable: []int{0}})
	}
	return []row{sigmoid, scale}
}

func pools() []row {
	rows := []row{
		{op: graph.OpReLU},         // exact
		{op: graph.OpReLUBackward}, // exact
		{op: graph.OpMaxPool},      // exact
		// Windows overlap: up to nine gradients meet in a pixel.
		{op: graph.OpMaxPoolBackward, bound: 8},
		{op: graph.OpAvgPool, bound: 16},
		{op: graph.OpAvgPoolBackward, bound: 16},
		{op: graph.OpGlobalAvgPool, bound: 16},
		{op: graph.OpGlobalAvgPoolBackward, bound: 2},
	}
	for _, shape := range []tensor.Shape{{}, {1}, {7}, {3, 17}, {2, 5, 7, 3}, {3, 8, 6, 33}} {
		rows[0].cases = append(rows[0].cases, opCase{name: shape.String(), operands: []operand{of(shape...)}, exact: true, differentiable: []int{0},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.ReLU(in[0]) }})
		rows[1].cases = append(rows[1].cases, opCase{name: shape.String(), operands: []operand{of(shape...), of(shape...)}, exact: true,
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.ReLUBackward(in[0], in[1]) },
			terms: func(b *graph.Builder, in []*graph.Node) *graph.Node { return abs(b, in[0]) }})
	}
	for _, s := range []struct {
		shape tensor.Shape
		attrs graph.PoolAttrs
		exact bool // averages divide by powers of two
	}{
		{tensor.Shape{2, 8, 8, 3}, graph.PoolAttrs{Size: 2, Stride: 2}, true},
		{tensor.Shape{1, 7, 9, 5}, graph.PoolAttrs{Size: 2, Stride: 2}, true}, // the last row is not read
		{tensor.Shape{2, 9, 6, 16}, graph.PoolAttrs{Size: 3, Stride: 2, Pad: graph.SymmetricPadding(1), CountPad: true}, false},
		{tensor.Shape{2, 9, 6, 17}, graph.PoolAttrs{Size: 3, Stride: 2, Pad: graph.SymmetricPadding(1)}, false},
		{tensor.Shape{3, 8, 6, 1}, graph.PoolAttrs{Size: 3, Stride: 2, Pad: graph.SamePadding(8, 6, 3, 2)}, false},
		{tensor.Shape{1, 5, 4, 33}, graph.PoolAttrs{Size: 3, Stride: 1, Pad: graph.SymmetricPadding(1)}, false},
		{tensor.Shape{2, 6, 5, 3}, graph.PoolAttrs{Size: 2, Stride: 1, Pad: graph.Padding{Bottom: 1, Left: 1}}, true},
		{tensor.Shape{1, 7, 7, 2}, graph.PoolAttrs{Size: 2, Stride: 3}, true},
		{tensor.Shape{1, 1, 1, 5}, graph.PoolAttrs{Size: 3, Stride: 1, Pad: graph.SymmetricPadding(1)}, false},
	} {
		name := fmt.Sprintf("%v %+v", s.shape, s.attrs)
		probe := graph.NewBuilder() // knows the output's shape
		dy := of(probe.MaxPool(probe.Input("x", graph.Real, s.shape...), s.attrs).Shape...)
		maxPool := func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.MaxPool(in[0], s.attrs) }
		avgPool := func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.AvgPool(in[0], s.attrs) }
		rows[2].cases = append(rows[2].cases, opCase{name: name, operands: []operand{distinct(s.shape...)}, build: maxPool, exact: true, differentiable: []int{0}})
		maxBackward := func(b *graph.Builder, in []*graph.Node) *graph.Node { return backward(b, maxPool(b, in), in[1], in[0]) }
		rows[3].cases = append(rows[3].cases, opCase{name: name, operands: []operand{distinct(s.shape...), dy}, build: maxBackward, exact: true,
			terms: func(b *graph.Builder, in []*graph.Node) *graph.Node {
				return maxBackward(b, []*graph.Node{in[0], abs(b, in[1])})
			}})
		rows[4].cases = append(rows[4].cases, opCase{name: name, operands: []operand{of(s.shape...)}, build: avgPool, exact: s.exact, differentiable: []int{0}})
		rows[5].cases = append(rows[5].cases, opCase{name: name, operands: []operand{of(s.shape...), dy}, exact: s.exact,
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return backward(b, avgPool(b, in), in[1], in[0]) }})
	}
	for _, s := range []struct {
		shape tensor.Shape
		exact bool
	}{
		{tensor.Shape{2, 4, 4, 5}, true}, {tensor.Shape{1, 1, 1, 3}, true}, {tensor.Shape{3, 7, 5, 17}, false},
		{tensor.Shape{32, 8, 4, 16}, true}, {tensor.Shape{2, 7, 7, 33}, false},
	} {
		pool := func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.GlobalAvgPool(in[0]) }
		rows[6].cases = append(rows[6].cases, opCase{name: s.shape.String(), operands: []operand{of(s.shape...)}, build: pool, exact: s.exact, differentiable: []int{0}})
		rows[7].cases = append(rows[7].cases, opCase{name: s.shape.String(), operands: []operand{of(s.shape...), of(s.shape[0], s.shape[3])}, exact: s.exact,
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return backward(b, pool(b, in), in[1], in[0]) }})
	}
	return rows
}

func dense() []row {
	r := row{op: graph.OpMatMul, bound: 16}
	for _, s := range []struct{ m, k, n int }{
		{1, 1, 1}, {3, 17, 10}, {32, 64, 10}, {5, 33, 16}, {17, 5, 1}, {1, 16, 33}, {2, 512, 10}, {7, 1, 9}, {65, 70, 49},
	} {
		for _, attrs := range []graph.MatMulAttrs{{}, {TransposeA: true}, {TransposeB: true}, {TransposeA: true, TransposeB: true}} {
			a, b := of(s.m, s.k), of(s.k, s.n)
			if attrs.TransposeA {
				a = of(s.k, s.m)
			}
			if attrs.TransposeB {
				b = of(s.n, s.k)
			}
			r.cases = append(r.cases, opCase{name: fmt.Sprintf("%dx%dx%d %+v", s.m, s.k, s.n, attrs), operands: []operand{a, b}, exact: true, differentiable: []int{0, 1},
				build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.MatMul(in[0], in[1], attrs) }})
		}
	}
	return []row{r}
}

// shortcuts are the operations of option A; all of them move numbers, exactly.
func shortcuts() []row {
	rows := []row{{op: graph.OpSubsample}, {op: graph.OpSubsampleBackward}, {op: graph.OpPadChannels}, {op: graph.OpSliceChannels}}
	for _, s := range []struct {
		shape  tensor.Shape
		stride int
	}{
		{tensor.Shape{2, 8, 8, 16}, 2}, {tensor.Shape{1, 7, 9, 3}, 2}, {tensor.Shape{3, 5, 4, 17}, 1}, {tensor.Shape{1, 7, 10, 5}, 3}, {tensor.Shape{1, 1, 1, 1}, 2},
	} {
		name := fmt.Sprintf("%v stride %d", s.shape, s.stride)
		subsample := func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.Subsample(in[0], s.stride) }
		up := func(v int) int { return (v + s.stride - 1) / s.stride }
		dy := of(s.shape[0], up(s.shape[1]), up(s.shape[2]), s.shape[3])
		rows[0].cases = append(rows[0].cases, opCase{name: name, operands: []operand{of(s.shape...)}, build: subsample, exact: true, differentiable: []int{0}})
		rows[1].cases = append(rows[1].cases, opCase{name: name, operands: []operand{of(s.shape...), dy}, exact: true,
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node {
				return backward(b, subsample(b, in), in[1], in[0])
			}})
	}
	for _, s := range []struct {
		shape         tensor.Shape
		before, after int
	}{
		{tensor.Shape{2, 4, 4, 16}, 8, 8}, {tensor.Shape{1, 3, 5, 3}, 0, 2}, {tensor.Shape{3, 2, 3, 5}, 3, 0}, {tensor.Shape{1, 2, 2, 1}, 0, 0}, {tensor.Shape{2, 3, 4, 33}, 1, 2},
	} {
		wide := append(tensor.Shape{}, s.shape...)
		wide[3] += s.before + s.after
		rows[2].cases = append(rows[2].cases, opCase{name: fmt.Sprintf("%v by %d and %d", s.shape, s.before, s.after), operands: []operand{of(s.shape...)}, exact: true, differentiable: []int{0},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.PadChannels(in[0], s.before, s.after) }})
		rows[3].cases = append(rows[3].cases, opCase{name: fmt.Sprintf("%v by %d and %d", wide, s.before, s.after), operands: []operand{of(wide...)}, exact: true, differentiable: []int{0},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.SliceChannels(in[0], s.before, s.after) }})
	}
	return rows
}

// rowSums is Σ_k x[n,k] in every element of row n.
func rowSums(b *graph.Builder, x *graph.Node) *graph.Node {
	K := x.Shape[1]
	return b.MatMul(x, b.Broadcast(b.Constant(1), tensor.Shape{K, K}), graph.MatMulAttrs{})
}

// spreadRows is v [N] in every element of a row of x [N,K].
func spreadRows(b *graph.Builder, v, x *graph.Node) *graph.Node {
	N, K := x.Shape[0], x.Shape[1]
	columns := b.Bias(b.Broadcast(b.Constant(0), tensor.Shape{K, N}), v)
	return b.MatMul(columns, b.Broadcast(b.Constant(1/float64(K)), tensor.Shape{K, K}), graph.MatMulAttrs{TransposeA: true})
}

// logitError is a bound of the relative error of exp(z-max z) in roundings:
// that of z-max z, which becomes relative, and a few of exp itself.
func logitError(b *graph.Builder, z *graph.Node) *graph.Node {
	return b.Add(rowSums(b, abs(b, z)), b.Constant(2))
}

func losses() []row {
	softmax := row{op: graph.OpSoftmax, bound: 4, terms: func(b *graph.Builder, in []*graph.Node) *graph.Node {
		return b.Mul(b.Softmax(in[0]), logitError(b, in[0]))
	}}
	softmaxBackward := row{op: graph.OpSoftmaxBackward, bound: 4, terms: func(b *graph.Builder, in []*graph.Node) *graph.Node {
		y, dy := b.Softmax(in[0]), abs(b, in[1])
		return b.Mul(logitError(b, in[0]), b.Mul(y, b.Add(dy, rowSums(b, b.Mul(dy, y)))))
	}}
	oneHot := row{op: graph.OpOneHot, bound: 2}
	crossEntropy := row{op: graph.OpCrossEntropy, bound: 4, terms: func(b *graph.Builder, in []*graph.Node) *graph.Node {
		// Σt·(|log Σ exp z| + max|z|), and more: Σ|z| for the maximum
		z, t := in[0], in[1]
		one := b.Broadcast(b.Constant(1), tensor.Shape{z.Shape[1], 1})
		total := b.MatMul(t, one, graph.MatMulAttrs{})
		return b.Mul(total, b.Add(b.Scale(b.MatMul(abs(b, z), one, graph.MatMulAttrs{}), 2), b.Constant(1+math.Log(float64(z.Shape[1])))))
	}}
	// dl·(softmax(z)·Σt + t)
	crossEntropyBackward := row{op: graph.OpCrossEntropyBackward, bound: 4, terms: func(b *graph.Builder, in []*graph.Node) *graph.Node {
		z, t, dl := in[0], in[1], in[2]
		sum := b.Add(b.Mul(b.Softmax(z), rowSums(b, t)), t)
		return b.Mul(b.Mul(sum, logitError(b, z)), spreadRows(b, abs(b, dl), z))
	}}

	for _, s := range []struct {
		n, k  int
		scale float64
	}{{1, 2, 1}, {3, 10, 2}, {32, 10, 1}, {5, 17, 0.01}, {2, 100, 3}, {4, 10, 60}} {
		name := fmt.Sprintf("%dx%d times %v", s.n, s.k, s.scale)
		z, t := of(s.n, s.k).scaled(s.scale, 0), positive(s.n, s.k)
		build := func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.Softmax(in[0]) }
		softmax.cases = append(softmax.cases, opCase{name: name, operands: []operand{z}, build: build, differentiable: []int{0}})
		softmaxBackward.cases = append(softmaxBackward.cases, opCase{name: name, operands: []operand{z, of(s.n, s.k)},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return backward(b, build(b, in), in[1], in[0]) }})
		entropy := func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.CrossEntropy(in[0], in[1]) }
		crossEntropy.cases = append(crossEntropy.cases, opCase{name: name, operands: []operand{z, t}, build: entropy, differentiable: []int{0}})
		crossEntropyBackward.cases = append(crossEntropyBackward.cases, opCase{name: name, operands: []operand{z, t, of(s.n)},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return backward(b, entropy(b, in), in[2], in[0]) }})

		for _, smoothing := range []float64{0, 0.1} {
			attrs := graph.OneHotAttrs{Classes: s.k, Smoothing: smoothing}
			oneHot.cases = append(oneHot.cases, opCase{name: fmt.Sprintf("%s smoothing %v", name, smoothing), operands: []operand{labels(s.n, s.k)}, exact: smoothing == 0,
				build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.OneHot(in[0], attrs) }})
		}
	}
	return []row{softmax, softmaxBackward, oneHot, crossEntropy, crossEntropyBackward}
}

func elementwise() []row {
	type binary func(b *graph.Builder, x, y *graph.Node) *graph.Node
	pair := func(op graph.Op, bound float64, f binary, second func(shape ...int) operand, terms builder) row {
		r := row{op: op, bound: bound, terms: terms}
		for _, s := range []struct{ a, b tensor.Shape }{
			{tensor.Shape{}, tensor.Shape{}}, {tensor.Shape{7}, tensor.Shape{7}}, {tensor.Shape{7}, tensor.Shape{}}, {tensor.Shape{}, tensor.Shape{17}},
			{tensor.Shape{1}, tensor.Shape{}}, {tensor.Shape{2, 5, 7, 3}, tensor.Shape{2, 5, 7, 3}}, {tensor.Shape{3, 33}, tensor.Shape{}},
			{tensor.Shape{33331}, tensor.Shape{33331}}, // enough for many threads
		} {
			r.cases = append(r.cases, opCase{name: fmt.Sprintf("%v and %v", s.a, s.b), operands: []operand{of(s.a...), second(s.b...)}, exact: true, differentiable: []int{0, 1},
				build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return f(b, in[0], in[1]) }})
		}
		twice := opCase{name: "with itself", operands: []operand{second(3, 5)}, exact: true, differentiable: []int{0},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return f(b, in[0], in[0]) }}
		if terms != nil {
			twice.terms = func(b *graph.Builder, in []*graph.Node) *graph.Node {
				return terms(b, []*graph.Node{in[0], in[0]})
			}
		}
		r.cases = append(r.cases, twice)
		return r
	}
	rows := []row{
		pair(graph.OpAdd, 1, (*graph.Builder).Add, of, nil),
		pair(graph.OpSub, 1, (*graph.Builder).Sub, of, func(b *graph.Builder, in []*graph.Node) *graph.Node {
			return b.Add(abs(b, in[0]), abs(b, in[1]))
		}),
		pair(graph.OpMul, 1, (*graph.Builder).Mul, of, nil),
		pair(graph.OpDiv, 2, (*graph.Builder).Div, positive, nil), // 2: a reciprocal and a product
	}

	sqrt := row{op: graph.OpSqrt, bound: 2}
	sum := row{op: graph.OpSum, bound: 16}
	squares := row{op: graph.OpSumSquares, bound: 16}
	for _, shape := range []tensor.Shape{{}, {1}, {3, 5}, {2, 5, 7, 3}, {33331}} {
		sqrt.cases = append(sqrt.cases, opCase{name: shape.String(), operands: []operand{positive(shape...)}, differentiable: []int{0},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.Sqrt(in[0]) }})
		sum.cases = append(sum.cases, opCase{name: shape.String(), operands: []operand{of(shape...)}, exact: true, differentiable: []int{0},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.Sum(in[0]) }})
		squares.cases = append(squares.cases, opCase{name: shape.String(), operands: []operand{of(shape...)}, exact: true, differentiable: []int{0},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.SumSquares(in[0]) }})
	}
	broadcast := row{op: graph.OpBroadcast} // exact
	for _, shape := range []tensor.Shape{{}, {1}, {17}, {2, 3, 5, 7}} {
		broadcast.cases = append(broadcast.cases, opCase{name: shape.String(), operands: []operand{of()}, exact: true, differentiable: []int{0},
			build: func(b *graph.Builder, in []*graph.Node) *graph.Node { return b.Broadcast(in[0], shape) }})
	}
	return append(rows, sqrt, sum, squares, broadcast)
}

// abs is |x|, exactly for float32 numbers computed in float64.
func abs(b *graph.Builder, x *graph.Node) *graph.Node { return b.Sqrt(b.Mul(x, x)) }

// backward is the gradient of x given dy, that of y.
func backward(b *graph.Builder, y, dy, x *graph.Node) *graph.Node {
	return b.Gradients(b.Sum(b.Mul(y, dy)), x)[0]
}
