package cpu

import (
	"context"
	"math"
	"testing"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/tensor"
)

// Three steps of Adam and AdamW, with gradients from memory and from the same loop, with
// and without weight decay and with a moving average that reads new values, give the bits
// of the instructions that they are joined from, and none of these remains.
func TestJoinedAdam(t *testing.T) {
	for _, k := range kernel.Supported() {
		for _, name := range []string{"adam", "adamw"} {
			for _, more := range []bool{false, true} { // a gradient that is clipped, an average
				var bits [2][]uint32
				for i, plain := range []bool{true, false} {
					e := open(t, Options{InstructionSet: k.Set.String(), Threads: 2})
					e.plain = plain
					bits[i] = adamSteps(t, e, name, more)
				}
				if i := firstDifference(bits[0], bits[1]); i >= 0 {
					t.Errorf("%v, %s, more %v: element %d has bits %#x, want %#x", k.Set, name, more, i, bits[1][i], bits[0][i])
				}
			}
		}
	}
}

// adamSteps returns the bits of all variables after three steps.
func adamSteps(t *testing.T, e *Engine, name string, more bool) (bits []uint32) {
	t.Helper()
	c, err := optim.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	b := graph.NewBuilder()
	var parameters, gradients []*graph.Node
	for i, n := range []int{5000, 37} {
		p := b.Variable([]string{"a", "b"}[i], graph.VariableAttrs{Role: graph.Parameter, Decay: i == 0}, n)
		g := b.Input("g"+p.Name, graph.Real, n)
		if more {
			g = b.Mul(g, b.Constant(0.5))
		}
		parameters, gradients = append(parameters, p), append(gradients, g)
	}
	c.Apply(b, parameters, gradients, optim.Groups{})
	if more {
		for _, p := range parameters {
			mean := b.Variable("ema/"+p.Name, graph.VariableAttrs{Role: graph.State}, p.Shape...)
			b.Update(mean, b.Add(b.Scale(mean, 0.75), b.Scale(b.Updated(p), 0.25)))
		}
	}
	g, err := b.Build(b.Constant(1))
	if err != nil {
		t.Fatal(err)
	}
	vars := e.NewVariables()
	for i, v := range g.Variables {
		x := tensor.New(tensor.Float32, v.Shape...)
		for j := range x.Float32s() {
			x.Float32s()[j] = float32(math.Abs(math.Sin(float64(i + 7*j))))
		}
		if err := vars.Set(v.Name, x); err != nil {
			t.Fatal(err)
		}
	}
	compiled, err := e.Compile(g, vars)
	if err != nil {
		t.Fatal(err)
	}
	defer compiled.Close()
	counts := map[loopOp]int{}
	for _, l := range compiled.(*Program).loops {
		for _, in := range l.instrs {
			counts[in.op]++
		}
	}
	if !e.plain && (counts[loopAdam] != 2 || counts[loopSqrt]+counts[loopDiv] > 0) {
		t.Fatalf("%s, more %v: instructions %v, want 2 of %d", name, more, counts, loopAdam)
	}
	for step := range 3 {
		var inputs []tensor.Tensor
		for _, in := range g.Inputs {
			x := tensor.New(tensor.Float32, in.Shape...)
			for j := range x.Float32s() {
				x.Float32s()[j] = float32(math.Cos(float64(step + 3*j)))
			}
			inputs = append(inputs, x)
		}
		for i, v := range c.Scalars(int64(step+1), 0.01, optim.Groups{}) {
			inputs[2+i] = tensor.Of([]float32{float32(v)})
		}
		if _, err := compiled.Run(context.Background(), inputs...); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range g.Variables {
		x, err := vars.Get(v.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range x.Float32s() {
			bits = append(bits, math.Float32bits(f))
		}
	}
	return bits
}
