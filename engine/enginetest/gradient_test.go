package enginetest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

// TestGradients compares what graph.Gradients appends for each operation with
// finite differences, on ref in float64. The cases are the table's: an operand
// listed there as differentiable must have a right gradient and any other must
// be refused, so that no gradient exists untested.
func TestGradients(t *testing.T) {
	tested := map[graph.Op]int{}
	for _, r := range table() {
		t.Run(r.op.String(), func(t *testing.T) {
			for _, c := range r.cases {
				for i, o := range c.operands {
					if o.kind == graph.Integer {
						continue
					}
					switch err := testGradient(t, c, i); {
					case slices.Contains(c.differentiable, i):
						if err != nil {
							t.Errorf("%s: operand %d: %v", c.name, i, err)
						}
						tested[r.op]++
					case err == nil:
						t.Errorf("%s: operand %d has a gradient, which the case does not list", c.name, i)
					}
				}
			}
		})
	}
	t.Logf("gradients tested: %v", tested)
}

// testGradient compares the gradient of one operand of a case. It returns the
// mistake if graph.Gradients refuses.
func testGradient(t *testing.T, c opCase, operand int) error {
	t.Helper()
	// A weighted sum makes a scalar in which every element counts.
	loss := func(b *graph.Builder) (loss *graph.Node, in []*graph.Node) {
		in = c.declare(b, false)
		y := c.build(b, in)
		return b.Sum(b.Mul(y, b.Input("weights", graph.Real, y.Shape...))), in
	}
	b := graph.NewBuilder()
	l, in := loss(b)
	if b.Err() != nil {
		t.Fatal(b.Err())
	}
	gradient := b.Gradients(l, in[operand])[0]
	if b.Err() != nil {
		return b.Err()
	}

	inputs := c.draw(false)
	for i, v := range inputs {
		if c.operands[i].kind == graph.Real {
			inputs[i] = v.Convert(tensor.Float64)
		}
	}
	g := build(t, b, gradient)
	weights := of(g.Inputs[len(g.Inputs)-1].Shape...)
	w := tensor.New(tensor.Float64, weights.shape...)
	weights.fill(random.New(seed, random.Name("weights")), w.Float64s(), false)
	inputs = append(inputs, w)

	e := ref.New()
	got := run(t, compile(t, e, g, e.NewVariables()), inputs...)[0].Float64s()
	b = graph.NewBuilder()
	l, _ = loss(b)
	forward := compile(t, e, build(t, b, l), e.NewVariables())
	f := func() float64 { return run(t, forward, inputs...)[0].Float64s()[0] }
	compareDifferences(t, fmt.Sprintf("%s: operand %d", c.name, operand), f, inputs[operand].Float64s(), got, 12, 1e-3)
	return nil
}

// compareDifferences compares the gradient of f with the four-point formula
//
//	f'(x) ≈ (8·(f(x+h)-f(x-h)) - (f(x+2h)-f(x-2h))) / 12h
//
// for a sample of elements of x, which f reads. The limit is 1e-6 of the
// difference or, for small ones, of their mean size; 1e-9 stands for f's own
// rounding. The formula's error grows with h⁴, that of rounding with 1/h.
func compareDifferences(t *testing.T, what string, f func() float64, x, gradient []float64, most int, h float64) {
	t.Helper()
	sample := random.New(seed, random.Name("sample")).Perm(len(x))
	sample = sample[:min(len(sample), most)]
	numeric := make([]float64, len(sample))
	mean := 0.0
	for i, at := range sample {
		old := x[at]
		moved := func(by float64) float64 { x[at] = old + by; return f() }
		numeric[i] = (8*(moved(h)-moved(-h)) - (moved(2*h) - moved(-2*h))) / (12 * h)
		x[at] = old
		mean += math.Abs(numeric[i]) / float64(len(sample))
	}
	for i, at := range sample {
		if err := math.Abs(gradient[at] - numeric[i]); !(err <= 1e-6*max(math.Abs(numeric[i]), mean)+1e-9) {
			t.Errorf("%s: gradient of element %d is %v, by differences %v", what, at, gradient[at], numeric[i])
		}
	}
}

// TestNetworkGradients does the same for every parameter of whole networks:
// gradients that meet before a shortcut, statistics that depend on the batch,
// the loss with its penalty.
func TestNetworkGradients(t *testing.T) {
	for _, spec := range networks() {
		t.Run(spec.name, func(t *testing.T) {
			n := newNetwork(spec, 3, true)
			parameters := n.b.Variables(graph.Parameter)
			gradients := n.b.Gradients(n.loss, parameters...)
			n.graph = build(t, n.b, gradients...)
			forward := newNetwork(spec, 3, true)
			forward.graph = build(t, forward.b, forward.loss)

			e := ref.New()
			vars := e.NewVariables()
			n.initialise(t, vars)
			forward.graph.Updates = nil // moving statistics, which the loss does not read
			p, q := compile(t, e, n.graph, vars), compile(t, e, forward.graph, vars)
			images, labels := n.batch(1) // in batch 0 an activation lies within a step of ReLU's kink
			got := run(t, p, images, labels)
			for i, v := range parameters {
				x := get(t, vars, v.Name)
				f := func() float64 {
					set(t, vars, v.Name, tensor.Of(x, v.Shape...))
					return run(t, q, images, labels)[0].Float64s()[0]
				}
				// A small step, so that hardly any ReLU changes its mind.
				compareDifferences(t, v.Name, f, x, got[i].Float64s(), 3, 1e-6)
				f() // the old value again
			}
		})
	}
}
