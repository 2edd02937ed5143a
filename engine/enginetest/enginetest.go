// Package enginetest is what every engine must pass: each operation of
// package graph against engine/ref, and the promises of package engine.
//
// A new operation gets a row in table.go: the shapes to try, how close the
// engine must come and why. RunAll fails while the row is missing, and the
// gradients of all rows are compared with finite differences here, so that one
// description of an operation serves both.
//
//	enginetest.go  RunAll and how a case is run and compared
//	table.go       a row for each operation
//	contract.go    variables, updates, guards, errors, cancellation
//	network.go     small networks trained for ten steps
package enginetest

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

// RunAll tests the engine that open returns. Each group of tests opens its
// own and closes it.
func RunAll(t *testing.T, open func() engine.Engine) {
	t.Run("ops", func(t *testing.T) { testOps(t, open, nil) })
	runContract(t, open)
	t.Run("networks", func(t *testing.T) { testNetworks(t, open) })
}

// RunMixed is RunAll for an engine that keeps feature maps in bfloat16. Operands
// with four axes are numbers that bfloat16 holds, and a result with four axes may be rounded to
// it once more than in RunAll. Convolutions may err by some more roundings to it
// of their terms, on numbers that are not small integers. Whole networks are left
// to the engine's own tests.
func RunMixed(t *testing.T, open func() engine.Engine, roundings float64) {
	t.Run("ops", func(t *testing.T) { testOps(t, open, &roundings) })
	runContract(t, open)
}

// RunTransformed tests the convolutions of an engine that computes them from
// transformed pixels and kernels with factors that are not exact: results on small
// integers are not either, and each may err by the given multiple of the bound in
// the table.
func RunTransformed(t *testing.T, open func() engine.Engine, times float64) {
	runTransformed(t, open, times, testCase)
}

// RunMixedTransformed is RunTransformed for an engine that keeps feature maps in
// bfloat16: a result may be rounded once more, and err by more roundings of its terms
// where what is transformed is rounded as well.
func RunMixedTransformed(t *testing.T, open func() engine.Engine, times, roundings float64) {
	runTransformed(t, open, times, func(t *testing.T, e engine.Engine, r row, c opCase) { testMixed(t, e, r, c, roundings) })
}

func runTransformed(t *testing.T, open func() engine.Engine, times float64, test func(t *testing.T, e engine.Engine, r row, c opCase)) {
	e := open()
	defer e.Close()
	for _, r := range convolutions() {
		r.bound *= times
		for _, c := range r.cases {
			c.exact = false
			t.Run(r.op.String()+"/"+c.name, func(t *testing.T) { test(t, e, r, c) })
		}
	}
}

func runContract(t *testing.T, open func() engine.Engine) {
	t.Run("variables", func(t *testing.T) { testVariables(t, open) })
	t.Run("compile", func(t *testing.T) { testCompile(t, open) })
	t.Run("updates", func(t *testing.T) { testUpdates(t, open) })
	t.Run("guard", func(t *testing.T) { testGuard(t, open) })
	t.Run("wrong inputs", func(t *testing.T) { testWrongInputs(t, open) })
	t.Run("labels", func(t *testing.T) { testLabels(t, open) })
	t.Run("cancel", func(t *testing.T) { testCancel(t, open) })
	t.Run("sharing", func(t *testing.T) { testSharing(t, open) })
}

// seed begins every stream of random numbers here; failures print the case,
// whose name is the other coordinate.
const seed = 20151210

// roundoff is the largest relative error of rounding to float32.
const roundoff = 0x1p-24

// smallest is an error that is always allowed: engines may flush numbers below
// the smallest normal float32 to zero.
const smallest = 0x1p-126

func testOps(t *testing.T, open func() engine.Engine, mixed *float64) {
	e := open()
	defer e.Close()
	rows := table()
	for _, op := range graph.Ops() {
		if i := slices.IndexFunc(rows, func(r row) bool { return r.op == op }); i < 0 || len(rows[i].cases) == 0 {
			t.Errorf("no row of enginetest tests %v", op)
		}
	}
	for _, r := range rows {
		t.Run(r.op.String(), func(t *testing.T) {
			for _, c := range r.cases {
				t.Run(c.name, func(t *testing.T) {
					if mixed != nil {
						testMixed(t, e, r, c, *mixed)
					} else {
						testCase(t, e, r, c)
					}
				})
			}
		})
	}
}

// testCase compares one case with ref: small integers, where every sum is
// exact and so the results are equal, then real numbers, then a NaN in each
// operand. Operands are inputs of the program first, then variables, which
// engines may keep in another layout.
func testCase(t *testing.T, e engine.Engine, r row, c opCase) {
	for _, variables := range []bool{false, true} {
		where := "inputs"
		if variables {
			where = "variables"
		}
		if c.exact {
			values := c.draw(true)
			got := evaluate(t, e, r.op, c, c.build, values, variables)
			want := evaluate(t, ref.New(), r.op, c, c.build, values, variables)
			compareExact(t, where+", integers", got, want)
		}

		values := c.draw(false)
		got := evaluate(t, e, r.op, c, c.build, values, variables)
		want := evaluate(t, ref.New(), r.op, c, c.build, values, variables)
		terms := evaluate(t, ref.New(), graph.OpInvalid, c, r.termsOf(c), values, variables)
		compare(t, where+", real numbers", got, want, r.bound, terms)
	}

	// What ref says is not a number must not be one: a diverged network must be
	// seen. The reverse is not asked for; 0·NaN in padding is an engine's choice.
	for i, o := range c.operands {
		if o.kind == graph.Integer {
			continue
		}
		values := c.draw(false)
		v := values[i].Float32s()
		v[len(v)/2] = float32(math.NaN())
		got := evaluate(t, e, r.op, c, c.build, values, false).Convert(tensor.Float64).Float64s()
		for j, want := range evaluate(t, ref.New(), r.op, c, c.build, values, false).Float64s() {
			if math.IsNaN(want) && !math.IsNaN(got[j]) {
				t.Errorf("with NaN in operand %d: element %d is %v, want NaN", i, j, got[j])
				break
			}
		}
	}
}

// testMixed compares a case with ref as testCase does. Operands with four axes are
// numbers that bfloat16 holds; these and results like them pass through an average
// over one pixel, so that they are feature maps that go through memory.
func testMixed(t *testing.T, e engine.Engine, r row, c opCase, roundings float64) {
	memory := func(b *graph.Builder, n *graph.Node) *graph.Node {
		if n.Kind == graph.Integer || len(n.Shape) != 4 {
			return n
		}
		return b.AvgPool(n, graph.PoolAttrs{Size: 1, Stride: 1})
	}
	build := func(b *graph.Builder, in []*graph.Node) *graph.Node {
		maps := make([]*graph.Node, len(in))
		for i, n := range in {
			maps[i] = memory(b, n)
		}
		return memory(b, c.build(b, maps))
	}
	// Gradients of kernels have four axes too, but are no feature maps.
	rounded := r.op != graph.OpConvBackwardWeights
	if r.op != graph.OpConv && r.op != graph.OpConvBackwardData && r.op != graph.OpConvBackwardWeights {
		roundings = 0
	}
	for _, variables := range []bool{false, true} {
		for _, integers := range []bool{true, false} {
			if integers && !c.exact {
				continue
			}
			values := c.draw(integers)
			for i, v := range values {
				if c.operands[i].kind == graph.Real && len(v.Shape()) == 4 {
					for j, x := range v.Float32s() {
						v.Float32s()[j] = toBF16(x)
					}
				}
			}
			got := evaluate(t, e, r.op, c, build, values, variables)
			want := evaluate(t, ref.New(), r.op, c, c.build, values, variables)
			if integers {
				want = want.Convert(tensor.Float32)
				if rounded && len(want.Shape()) == 4 {
					for j, x := range want.Float32s() {
						want.Float32s()[j] = toBF16(x)
					}
				}
				compareExact(t, "integers", got, want)
				continue
			}
			terms := evaluate(t, ref.New(), graph.OpInvalid, c, r.termsOf(c), values, variables)
			sizes, wants := terms.Convert(tensor.Float64), want.Convert(tensor.Float64).Float64s()
			for j := range sizes.Float64s() {
				s := &sizes.Float64s()[j]
				*s *= r.bound*roundoff + roundings*roundoffBF16
				if rounded && len(want.Shape()) == 4 {
					*s += math.Abs(wants[j]) * roundoffBF16
				}
			}
			compare(t, "real numbers", got, want, 1/roundoff, sizes)
		}
	}
}

// roundoffBF16 is the largest relative error of rounding to bfloat16.
const roundoffBF16 = 0x1p-8

// toBF16 rounds to the nearest number that bfloat16 has.
func toBF16(v float32) float32 { return tensor.BFloat16ToFloat32(tensor.Float32ToBFloat16(v)) }

// draw fills the operands of a case: small integers or real numbers.
func (c opCase) draw(integers bool) []tensor.Tensor {
	values := make([]tensor.Tensor, len(c.operands))
	for i, o := range c.operands {
		source := random.New(seed, random.Name(c.name), uint64(i))
		v := make([]float64, o.shape.Elements())
		o.fill(source, v, integers)
		dtype := tensor.Float32
		if o.kind == graph.Integer {
			dtype = tensor.Int32
		}
		values[i] = tensor.Of(v, o.shape...).Convert(dtype)
	}
	return values
}

// declare makes nodes for the operands of a case; real ones are variables if
// so wanted.
func (c opCase) declare(b *graph.Builder, variables bool) []*graph.Node {
	nodes := make([]*graph.Node, len(c.operands))
	for i, o := range c.operands {
		if variables && o.kind == graph.Real {
			nodes[i] = b.Variable(operandName(i), graph.VariableAttrs{}, o.shape...)
		} else {
			nodes[i] = b.Input(operandName(i), o.kind, o.shape...)
		}
	}
	return nodes
}

func operandName(i int) string { return string(rune('a' + i)) }

type builder func(b *graph.Builder, in []*graph.Node) *graph.Node

// evaluate computes what build makes of the operands of a case. The graph must
// contain op, or the row tests something else than it says; OpInvalid asks for
// none.
func evaluate(t *testing.T, e engine.Engine, op graph.Op, c opCase, build builder, values []tensor.Tensor, variables bool) tensor.Tensor {
	t.Helper()
	b := graph.NewBuilder()
	g, err := b.Build(build(b, c.declare(b, variables)))
	if err != nil {
		t.Fatal(err)
	}
	if op != graph.OpInvalid && !slices.ContainsFunc(g.Nodes, func(n *graph.Node) bool { return n.Op == op }) {
		if op != graph.OpInput && op != graph.OpVariable { // each is there in one of both ways to declare operands
			t.Fatalf("the graph has no %v", op)
		}
	}

	store := e.NewVariables()
	var inputs []tensor.Tensor
	for i, v := range values {
		if variables && c.operands[i].kind == graph.Real {
			set(t, store, operandName(i), v)
		} else {
			inputs = append(inputs, v.Clone())
		}
	}
	p := compile(t, e, g, store)
	defer p.Close()
	outputs := run(t, p, inputs...)
	if !variables {
		for i := range inputs {
			if !slices.Equal(bits(inputs[i]), bits(values[i])) {
				t.Errorf("Run changed input %d", i)
			}
		}
	}
	if len(outputs) != 1 || !outputs[0].Shape().Equal(g.Outputs[0].Shape) {
		t.Fatalf("outputs %v, want one of shape %v", outputs, g.Outputs[0].Shape)
	}
	return outputs[0].Clone()
}

// bits are the elements of a tensor in a form in which NaN equals NaN.
func bits(t tensor.Tensor) []uint64 {
	out := make([]uint64, t.Len())
	for i, v := range t.Convert(tensor.Float64).Float64s() {
		out[i] = math.Float64bits(v)
	}
	return out
}

func compareExact(t *testing.T, what string, got, want tensor.Tensor) {
	t.Helper()
	wants := want.Convert(tensor.Float64).Float64s()
	wrong := 0
	for i, g := range got.Convert(tensor.Float64).Float64s() {
		if g != wants[i] {
			if wrong++; wrong <= 3 {
				t.Errorf("%s: element %v is %v, want %v", what, position(i, got.Shape()), g, wants[i])
			}
		}
	}
	if wrong > 3 {
		t.Errorf("%s: %d of %d elements are wrong", what, wrong, got.Len())
	}
}

// compare allows each element an error of bound·2⁻²⁴ times its element of terms.
func compare(t *testing.T, what string, got, want tensor.Tensor, bound float64, terms tensor.Tensor) {
	t.Helper()
	wants, sizes := want.Convert(tensor.Float64).Float64s(), terms.Convert(tensor.Float64).Float64s()
	if len(sizes) != len(wants) {
		t.Fatalf("%s: %d terms for %d elements", what, len(sizes), len(wants))
	}
	wrong, worst := 0, 0.0
	for i, g := range got.Convert(tensor.Float64).Float64s() {
		err := math.Abs(g - wants[i])
		if !(err <= bound*roundoff*sizes[i]+smallest) { // also for NaN
			if wrong++; wrong <= 3 {
				t.Errorf("%s: element %v is %v, want %v: the error %.3g is %.3g of 2⁻²⁴·%.3g, allowed %v",
					what, position(i, got.Shape()), g, wants[i], err, err/(roundoff*sizes[i]), sizes[i], bound)
			}
		}
		if err > smallest {
			worst = max(worst, err/(roundoff*sizes[i]))
		}
	}
	if wrong > 3 {
		t.Errorf("%s: %d of %d elements are wrong", what, wrong, got.Len())
	}
	t.Logf("%s: worst error %.2g of %v", what, worst, bound)
}

// position turns an offset into indices.
func position(offset int, shape tensor.Shape) []int {
	at := make([]int, len(shape))
	for i := len(shape) - 1; i >= 0; i-- {
		at[i] = offset % shape[i]
		offset /= shape[i]
	}
	return at
}

func build(t *testing.T, b *graph.Builder, outputs ...*graph.Node) *graph.Graph {
	t.Helper()
	g, err := b.Build(outputs...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func compile(t *testing.T, e engine.Engine, g *graph.Graph, vars engine.Variables) engine.Program {
	t.Helper()
	p, err := e.Compile(g, vars)
	if err != nil {
		t.Fatalf("%s: compile: %v", e.Name(), err)
	}
	return p
}

func run(t *testing.T, p engine.Program, inputs ...tensor.Tensor) []tensor.Tensor {
	t.Helper()
	outputs, err := p.Run(context.Background(), inputs...)
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return outputs
}

func set(t *testing.T, vars engine.Variables, name string, v tensor.Tensor) {
	t.Helper()
	if err := vars.Set(name, v); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, vars engine.Variables, name string) []float64 {
	t.Helper()
	v, err := vars.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return v.Convert(tensor.Float64).Float64s()
}
