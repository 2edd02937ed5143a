package cpu

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

// stepNames are the steps of a program, in order.
func stepNames(p *Program) (names []string) {
	for _, s := range p.steps {
		names = append(names, s.name)
	}
	return names
}

// preparationNames are the steps that come before all others in runs that find new weights.
func preparationNames(p *Program) (names []string) {
	for _, r := range p.preparations {
		names = append(names, r.name)
	}
	return names
}

// TestRandomGraphs compares the engine with ref on random graphs of operations
// that the plan fuses, moves and gives memory to, mixed with some that it does
// not fuse: whatever the plan makes of a graph, the numbers must stay.
func TestRandomGraphs(t *testing.T) {
	fused := 0
	for seed := range uint64(300) {
		e := open(t, Options{Threads: 1 + int(seed%3)})
		g := randomGraph(t, random.New(11, seed))
		vars, refVars := e.NewVariables(), ref.New().NewVariables()
		rng := random.New(12, seed)
		for _, v := range g.Variables {
			x := randomTensor(rng, v.Shape)
			if err := vars.Set(v.Name, x); err != nil {
				t.Fatal(err)
			}
			if err := refVars.Set(v.Name, x); err != nil {
				t.Fatal(err)
			}
		}
		p, err := e.Compile(g, vars)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		judge, err := ref.New().Compile(g, refVars)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stepNames(p.(*Program)) {
			if strings.HasPrefix(s, "loop of") {
				fused++
			}
		}
		for range 2 {
			var in, refIn []tensor.Tensor
			for _, n := range g.Inputs {
				x := randomTensor(rng, n.Shape)
				in, refIn = append(in, x), append(refIn, x.Convert(tensor.Float64))
			}
			fill(p.(*Program).arena, float32(math.NaN()))
			got, err := p.Run(context.Background(), in...)
			if err != nil {
				t.Fatal(err)
			}
			want, err := judge.Run(context.Background(), refIn...)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				compareRandom(t, fmt.Sprintf("output %d", i), g, p.(*Program), seed, got[i], want[i])
			}
			for _, name := range vars.Names() {
				got, err := vars.Get(name)
				if err != nil {
					t.Fatal(err)
				}
				want, err := refVars.Get(name)
				if err != nil {
					t.Fatal(err)
				}
				compareRandom(t, name, g, p.(*Program), seed, got, want)
			}
			if t.Failed() {
				return
			}
		}
	}
	if fused < 300 {
		t.Errorf("only %d fused loops in all graphs: the test tests little", fused)
	}
}

func compareRandom(t *testing.T, what string, g *graph.Graph, p *Program, seed uint64, got, want tensor.Tensor) {
	t.Helper()
	w := want.Convert(tensor.Float64).Float64s()
	size := 0.0
	for _, v := range w {
		size = max(size, math.Abs(v))
	}
	for j, v := range got.Float32s() {
		// Values are of the order of one and differences cancel, so this allows
		// roundoff with room; a value from the wrong place is off by far more.
		if !(math.Abs(float64(v)-w[j]) <= 1e-3*max(size, 1)) {
			var dump strings.Builder
			_ = g.Dump(&dump)
			t.Errorf("seed %d: element %d of %s is %v, want %v\n%s\n%s", seed, j, what, v, w[j], dump.String(), strings.Join(stepNames(p), "\n"))
			return
		}
	}
}

// randomTensor has values of both signs, none near zero.
func randomTensor(rng *random.Source, shape tensor.Shape) tensor.Tensor {
	x := tensor.New(tensor.Float32, shape...)
	for i := range x.Float32s() {
		x.Float32s()[i] = float32(rng.Range(0.5, 1.5)) * float32(1-2*rng.IntN(2))
	}
	return x
}

// randomGraph draws about 25 nodes over images, channels and scalars.
func randomGraph(t *testing.T, rng *random.Source) *graph.Graph {
	b := graph.NewBuilder()
	n, h, w, c := 2, 2+rng.IntN(4), 3, 1+rng.IntN(9)
	if rng.IntN(3) == 0 {
		h, w = 20, 25 // several chunks
	}
	images := []*graph.Node{b.Input("x", graph.Real, n, h, w, c), b.Variable("v", graph.VariableAttrs{}, n, h, w, c), b.Variable("u", graph.VariableAttrs{}, n, h, w, c)}
	channels := []*graph.Node{b.Input("c", graph.Real, c), b.Variable("d", graph.VariableAttrs{}, c)}
	scalars := []*graph.Node{b.Input("s", graph.Real), b.Constant(0.7), b.Variable("r", graph.VariableAttrs{})}
	vars := []*graph.Node{images[1], images[2], channels[1], scalars[2]}
	pick := func(list []*graph.Node) *graph.Node { // rather a recent one
		return list[max(rng.IntN(len(list)), rng.IntN(len(list)))]
	}
	keep := func(list *[]*graph.Node, x *graph.Node) { *list = append(*list, x) }
	// tame keeps values of the order of one: products of sums would grow.
	tame := func(x *graph.Node) *graph.Node {
		return b.Div(x, b.Sqrt(b.Add(b.Scale(b.SumSquares(x), 1/float64(x.Shape.Elements())), b.Constant(0.1))))
	}
	binary := func(list []*graph.Node) *graph.Node {
		x, y := pick(list), pick(list)
		if rng.IntN(4) == 0 {
			y = pick(scalars)
		}
		if rng.IntN(6) == 0 {
			x = b.Broadcast(pick(scalars), pick(list).Shape)
		}
		switch rng.IntN(4) {
		case 0:
			return b.Sub(x, y)
		case 1:
			return b.Mul(x, y)
		case 2:
			return b.Div(x, b.Add(b.Mul(y, y), b.Constant(1)))
		}
		return b.Add(x, y)
	}
	for range 25 {
		x := pick(images)
		switch rng.IntN(14) {
		case 0, 1, 2, 3:
			keep(&images, tame(binary(images)))
		case 4:
			keep(&images, tame(b.ReLU(x)))
		case 5:
			keep(&images, b.ReLUBackward(x, b.Mul(x, x)))
		case 6:
			keep(&images, tame(b.Bias(x, pick(channels))))
		case 7:
			mean := b.BatchMean(x)
			variance := b.BatchVariance(x, mean)
			keep(&images, tame(b.BatchNorm(x, pick(channels), pick(channels), mean, variance, graph.NormAttrs{Epsilon: 0.1, Training: true})))
			keep(&channels, tame(mean))
		case 8:
			keep(&channels, tame(b.BatchVariance(x, pick(channels))))
		case 9:
			keep(&channels, tame(b.SumChannels(x)))
		case 10:
			keep(&channels, tame(binary(channels)))
		case 11:
			keep(&scalars, tame(b.Sum(x)))
		case 12:
			keep(&scalars, tame(binary(scalars)))
		case 13: // not fused
			keep(&images, b.SliceChannels(b.PadChannels(x, 1, 2), 1, 2))
		}
	}
	for _, i := range rng.Perm(len(vars)) {
		v, list := vars[i], images
		if v.Shape.Equal(channels[0].Shape) {
			list = channels
		} else if len(v.Shape) == 0 {
			list = scalars
		}
		switch rng.IntN(4) {
		case 0, 1:
			b.Update(v, pick(list))
		case 2: // what nothing else needs, of old and new values of variables
			value := pick(list)
			for range 3 {
				w := vars[rng.IntN(len(vars))]
				if w.Shape.Equal(v.Shape) || len(w.Shape) == 0 {
					if rng.IntN(2) == 0 {
						w = b.Updated(w)
					}
					if len(w.Shape) == 0 && rng.IntN(2) == 0 {
						w = b.Broadcast(w, v.Shape)
					}
					value = b.Add(b.Scale(value, 0.5), b.Scale(w, 0.5))
				}
			}
			b.Update(v, value)
		}
	}
	var outputs []*graph.Node
	for range 3 {
		outputs = append(outputs, pick([]*graph.Node{pick(images), pick(channels), pick(scalars)}))
	}
	g, err := b.Build(outputs...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}
