package enginetest

import (
	"math"
	"testing"

	"github.com/residual-ml/residual/engine/ref"
)

// The judge passes its own court: it keeps the promises of package engine, and
// the tests do not ask for more than float64 gives.
func TestRef(t *testing.T) { RunAll(t, ref.New) }

// TestMargins keeps testNetworks fair: no activation of its runs is so near to
// zero that rounding to float32 decides what ReLU does. Activations are of size
// one, and float32 engines differ in the last places by 1e-6.
func TestMargins(t *testing.T) {
	const needed = 1e-5
	for _, spec := range networks() {
		for _, r := range spec.runs {
			for first := r.first; ; first++ {
				got := margin(t, spec, r, first, needed)
				if got >= needed {
					if first != r.first {
						t.Errorf("%s, batch %d: begin with batch %d, where no activation is nearer to zero than %.2g", spec.name, r.batch, first, got)
					}
					break
				}
				if first > r.first+200 {
					t.Fatalf("%s, batch %d: an activation is as near to zero as %.2g, with all data tried", spec.name, r.batch, got)
				}
			}
		}
	}
}

// margin is the size of the smallest activation that ReLU sees in a run; it
// stops at one that is too small.
func margin(t *testing.T, spec networkSpec, r networkRun, first int, needed float64) float64 {
	t.Helper()
	n := forTraining(t, spec, r.batch)
	g := *n.graph
	g.Outputs = n.kinks
	e := ref.New()
	vars := e.NewVariables()
	n.initialise(t, vars)
	p := compile(t, e, &g, vars)
	smallest := math.Inf(1)
	for step := range r.steps {
		images, labels := n.batch(first + step)
		for _, activations := range run(t, p, images, labels) {
			for _, a := range activations.Float64s() {
				smallest = min(smallest, math.Abs(a))
			}
		}
		if smallest < needed {
			break
		}
	}
	return smallest
}
