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

// TestRandomNetworks compares the engine with ref on random networks with gradients and
// updates or without, where folds, overwritten maps and each way to convolve meet in
// graphs that nobody thought of. In float32 the error of a tensor, relative to its norm,
// was 7e-4 at most in 6,000 networks, and in bfloat16 less than a half; a value from the
// wrong place is wrong by about all of itself.
func TestRandomNetworks(t *testing.T) {
	seeds := uint64(100)
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		rng := random.New(21, seed)
		o := Options{
			Threads:        1 + rng.IntN(3),
			Winograd:       []string{"auto", "on", "on-4x4", "on-4x4-bfloat16", "off"}[rng.IntN(5)],
			InstructionSet: []string{"", "", "avx2", "generic", "avx512"}[rng.IntN(5)],
			Precision:      []string{"float32", "bfloat16"}[rng.IntN(2)],
		}
		limit := 0.01
		if o.Precision == "bfloat16" {
			limit = 0.5
		}
		e := open(t, o)
		e.shared.trains = rng.IntN(2) == 0
		n := &randomNetwork{Builder: graph.NewBuilder(), rng: rng}
		g := n.graph(t, rng.IntN(2) == 0)
		vars, refVars := e.NewVariables(), ref.New().NewVariables()
		for _, v := range g.Variables {
			x := randomTensor(rng, v.Shape)
			for i, f := range x.Float32s() {
				if strings.HasPrefix(v.Name, "kernel") { // sums of the order of one
					x.Float32s()[i] = f / float32(math.Sqrt(float64(v.Shape[0]*v.Shape[1]*v.Shape[2])))
				} else if strings.HasPrefix(v.Name, "variance") {
					x.Float32s()[i] = max(f, -f)
				}
			}
			for _, s := range []interface {
				Set(name string, t tensor.Tensor) error
			}{vars, refVars} {
				if err := s.Set(v.Name, x); err != nil {
					t.Fatal(err)
				}
			}
		}
		compiled, judge := compileFor(t, e, g, vars), compileFor(t, ref.New(), g, refVars)
		p := compiled.(*Program)
		check := func(what string, got, want tensor.Tensor) {
			t.Helper()
			var wrong, all float64
			w := want.Convert(tensor.Float64).Float64s()
			for j, v := range got.Float32s() {
				wrong += (float64(v) - w[j]) * (float64(v) - w[j])
				all += w[j] * w[j]
			}
			if got := math.Sqrt(wrong / max(all, 0.1*float64(len(w)))); !(got <= limit) {
				var dump strings.Builder
				_ = g.Dump(&dump)
				t.Fatalf("seed %d, %+v: %s has the relative error %.3g\n%s\n%s", seed, o, what, got, dump.String(), strings.Join(stepNames(p), "\n"))
			}
		}
		for round := range 2 {
			var in, refIn []tensor.Tensor
			for _, n := range g.Inputs {
				x := randomTensor(rng, n.Shape)
				in, refIn = append(in, x), append(refIn, x.Convert(tensor.Float64))
			}
			if round == 0 || !p.lasting {
				fill(p.arena, float32(math.NaN()))
			}
			got, err := p.Run(context.Background(), in...)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			want, err := judge.Run(context.Background(), refIn...)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				check(fmt.Sprintf("round %d, output %d", round, i), got[i], want[i])
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
				check(fmt.Sprintf("round %d, %s", round, name), got, want)
				if len(g.Updates) == 0 {
					continue // what was made of the variables has to last
				}
				if err := vars.Set(name, want); err != nil { // so that errors do not add up
					t.Fatal(err)
				}
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// randomNetwork draws layers over images of one shape.
type randomNetwork struct {
	*graph.Builder
	rng       *random.Source
	images    []*graph.Node
	channels  int
	shared    *graph.Node // a kernel of several convolutions
	variables int
}

func (n *randomNetwork) variable(name string, shape ...int) *graph.Node {
	n.variables++
	return n.Variable(fmt.Sprint(name, n.variables), graph.VariableAttrs{}, shape...)
}

// pick is an image, rather a recent one.
func (n *randomNetwork) pick() *graph.Node {
	return n.images[max(n.rng.IntN(len(n.images)), n.rng.IntN(len(n.images)))]
}

func (n *randomNetwork) one(in int) bool { return n.rng.IntN(in) == 0 }

// tame keeps values of the order of one.
func (n *randomNetwork) tame(x *graph.Node) *graph.Node {
	return n.Div(x, n.Sqrt(n.Add(n.Scale(n.SumSquares(x), 1/float64(x.Shape.Elements())), n.Constant(0.1))))
}

func (n *randomNetwork) norm(x *graph.Node) *graph.Node {
	c := x.Shape[3]
	scale, shift, attrs := n.variable("scale", c), n.variable("shift", c), graph.NormAttrs{Epsilon: 0.1, Training: n.one(2)}
	if attrs.Training {
		mean := n.BatchMean(x)
		return n.BatchNorm(x, scale, shift, mean, n.BatchVariance(x, mean), attrs)
	}
	return n.BatchNorm(x, scale, shift, n.variable("mean", c), n.variable("variance", c), attrs)
}

func (n *randomNetwork) kernel(size, in, out int) *graph.Node {
	switch {
	case size == 3 && in == out && n.one(3):
		if n.shared == nil {
			n.shared = n.variable("kernel", 3, 3, in, out)
		}
		return n.shared
	case n.one(8): // new in each run
		return n.Scale(n.variable("kernel", size, size, in, out), 0.5)
	}
	return n.variable("kernel", size, size, in, out)
}

// conv is a convolution that keeps the shape, with what may be folded into it.
func (n *randomNetwork) conv() *graph.Node {
	size := []int{1, 3, 3}[n.rng.IntN(3)]
	x := n.Conv(n.pick(), n.kernel(size, n.channels, n.channels), graph.ConvAttrs{Stride: 1, Pad: graph.SymmetricPadding(size / 2)})
	if n.one(3) {
		x = n.Bias(x, n.variable("bias", n.channels))
	}
	if n.one(2) {
		x = n.norm(x)
	}
	if n.one(2) {
		x = n.ReLU(x)
	}
	if n.one(2) {
		x = n.Add(x, n.pick())
	} else if n.one(3) {
		x = n.Add(x, n.Conv(n.pick(), n.kernel(1, n.channels, n.channels), graph.ConvAttrs{Stride: 1}))
	}
	if n.one(2) {
		x = n.ReLU(x)
	}
	if n.one(2) {
		x = n.tame(x)
	}
	return x
}

// layer is one that keeps the shape.
func (n *randomNetwork) layer() *graph.Node {
	x, c := n.pick(), n.channels
	switch n.rng.IntN(13) {
	case 0: // down and up again
		pad := graph.Padding{Top: n.rng.IntN(2), Bottom: 1, Left: n.rng.IntN(2), Right: 1}
		if x.Shape[1]+pad.Top < 2 || x.Shape[2]+pad.Left < 2 {
			return n.ReLU(x)
		}
		w, attrs := n.kernel(3, c, 1+n.rng.IntN(20)), graph.ConvAttrs{Stride: 2, Pad: pad}
		return n.tame(n.ConvBackwardData(n.ReLU(n.norm(n.Conv(x, w, attrs))), w, x, attrs))
	case 1:
		return n.MaxPool(x, graph.PoolAttrs{Size: 3, Stride: 1, Pad: graph.SymmetricPadding(1)})
	case 2:
		return n.AvgPool(x, graph.PoolAttrs{Size: 3, Stride: 1, Pad: graph.SymmetricPadding(1), CountPad: n.one(2)})
	case 3: // squeeze and excitation
		return n.ScaleChannels(x, n.Sigmoid(n.MatMul(n.GlobalAvgPool(x), n.variable("dense", c, c), graph.MatMulAttrs{TransposeB: n.one(2)})))
	case 4:
		return n.SliceChannels(n.PadChannels(x, 1, 2), 1, 2)
	case 5:
		return n.tame(n.Add(x, n.pick()))
	case 6:
		return n.tame(n.Mul(x, n.pick()))
	case 7:
		return n.ReLU(n.norm(x))
	case 8:
		return n.tame(n.Bias(n.ReLU(x), n.variable("bias", c)))
	}
	return n.conv()
}

// graph is that of a forward pass or, when it trains, of a step with momentum.
func (n *randomNetwork) graph(t *testing.T, trains bool) *graph.Graph {
	t.Helper()
	n.channels = []int{1, 2, 3, 5, 8, 16, 17, 24, 32}[n.rng.IntN(9)]
	shape := []int{1 + n.rng.IntN(3), 1 + n.rng.IntN(9), 1 + n.rng.IntN(9), n.channels}
	if n.one(6) {
		shape[1], shape[2] = 23, 25
	}
	n.images = []*graph.Node{n.Input("x", graph.Real, shape...), n.variable("image", shape...), n.Input("y", graph.Real, shape...)}
	for range 4 + n.rng.IntN(14) {
		n.images = append(n.images, n.layer())
	}
	var outputs []*graph.Node
	for range 1 + n.rng.IntN(3) {
		y := n.pick()
		if n.one(2) {
			y = n.Softmax(n.Bias(n.MatMul(n.GlobalAvgPool(y), n.variable("dense", n.channels, 7), graph.MatMulAttrs{}), n.variable("bias", 7)))
		}
		outputs = append(outputs, y)
	}
	if trains {
		last := n.images[len(n.images)-1]
		loss := n.Scale(n.SumSquares(n.tame(n.Mul(last, n.Add(n.pick(), n.Constant(0.3))))), 0.01)
		for _, o := range outputs {
			loss = n.Add(loss, n.Scale(n.SumSquares(n.Add(o, n.Constant(1))), 0.01))
		}
		var parameters []*graph.Node
		for _, v := range n.Variables(graph.Parameter) {
			if dependsOn(loss, v, map[*graph.Node]bool{}) && !strings.HasPrefix(v.Name, "mean") && !strings.HasPrefix(v.Name, "variance") {
				parameters = append(parameters, v)
			}
		}
		for i, d := range n.Gradients(loss, parameters...) {
			velocity := n.Variable("velocity/"+parameters[i].Name, graph.VariableAttrs{Role: graph.State}, parameters[i].Shape...)
			next := n.Add(n.Scale(velocity, 0.9), n.tame(d))
			n.Update(velocity, next)
			n.Update(parameters[i], n.Sub(parameters[i], n.Scale(next, 0.05)))
		}
		n.Guard(loss)
		outputs = append(outputs, loss)
	}
	g, err := n.Build(outputs...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// dependsOn reports whether v is among what n is computed from; seen are nodes for which
// that is known not to be.
func dependsOn(n, v *graph.Node, seen map[*graph.Node]bool) bool {
	if n == v {
		return true
	}
	for _, in := range n.Inputs {
		if !seen[in] && dependsOn(in, v, seen) {
			return true
		}
	}
	seen[n] = true
	return false
}
