package graph

import (
	"strings"
	"testing"

	"github.com/residual-ml/residual/tensor"
)

func TestSamePadding(t *testing.T) {
	for _, c := range []struct {
		in, kernel, stride int
		want               Padding
	}{
		{32, 3, 1, Padding{1, 1, 1, 1}},
		{32, 3, 2, Padding{0, 1, 0, 1}}, // TensorFlow: nothing before, one after
		{33, 3, 2, Padding{1, 1, 1, 1}},
		{32, 1, 2, Padding{0, 0, 0, 0}},
		{224, 7, 2, Padding{2, 3, 2, 3}},
	} {
		if got := SamePadding(c.in, c.in, c.kernel, c.stride); got != c.want {
			t.Errorf("SamePadding(%d, kernel %d, stride %d) = %v, want %v", c.in, c.kernel, c.stride, got, c.want)
		}
	}
}

// Every way to make a node with wrong operands is an error of Build, with the
// layer's name, and the first one wins.
func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		want  string
		build func(b *Builder, x *Node)
	}{
		"add":       {"layer2.0: add: shapes [2,8,8,4] and [2,4,4,4] differ", func(b *Builder, x *Node) { b.Add(x, b.Subsample(x, 2)) }},
		"conv":      {"conv: kernel [3,3,5,8] is for 5 channels", func(b *Builder, x *Node) { b.Conv(x, weight(b, 3, 3, 5, 8), ConvAttrs{Stride: 1}) }},
		"stride":    {"want stride ≥ 1", func(b *Builder, x *Node) { b.Conv(x, weight(b, 3, 3, 4, 8), ConvAttrs{}) }},
		"too small": {"does not fit input", func(b *Builder, x *Node) { b.Conv(x, weight(b, 9, 9, 4, 8), ConvAttrs{Stride: 1}) }},
		"rank":      {"matmul: shape [2,8,8,4] has 4 axes, want 2", func(b *Builder, x *Node) { b.MatMul(x, x, MatMulAttrs{}) }},
		"labels":    {"are not integers", func(b *Builder, x *Node) { b.OneHot(b.Input("l", Real, 2), OneHotAttrs{Classes: 3}) }},
		"twice":     {"variable w is updated twice", func(b *Builder, x *Node) { w := weight(b, 1); b.Update(w, w); b.Update(w, w) }},
		"first": {"inner lengths 1 and 2", func(b *Builder, x *Node) {
			y := b.MatMul(weight(b, 1, 1), b.Variable("v", VariableAttrs{}, 2, 1), MatMulAttrs{})
			b.Add(b.Conv(y, y, ConvAttrs{}), b.ReLU(y))
		}},
		"integers": {"has integers, want real numbers", func(b *Builder, x *Node) { b.Sum(b.Input("l", Integer, 2)) }},
		"scalar":   {"sum_channels: a scalar has no channels", func(b *Builder, x *Node) { b.SumChannels(b.Constant(1)) }},
		"variance": {"batch_variance: mean has shape [3], want [4]", func(b *Builder, x *Node) { b.BatchVariance(x, weight(b, 3)) }},
		"not of batch": {"are not those of the batch", func(b *Builder, x *Node) {
			w := weight(b, 4)
			b.BatchNorm(x, w, w, w, w, NormAttrs{Epsilon: 1e-3, Training: true})
		}},
		"too large":    {"input: output shape [4294967296,4294967296] has more than 1099511627776 elements", func(b *Builder, x *Node) { b.Input("y", Real, 1<<32, 1<<32) }},
		"update":       {"belongs to another graph", func(b *Builder, x *Node) { b.Update(weight(b, 1), weight(NewBuilder(), 1)) }},
		"guard":        {"is no real number of this graph", func(b *Builder, x *Node) { b.Guard(NewBuilder().Constant(1)) }},
		"gradient of":  {"belongs to another graph", func(b *Builder, x *Node) { b.Gradients(b.Sum(x), weight(NewBuilder(), 1)) }},
		"foreign":      {"belongs to another graph", func(b *Builder, x *Node) { NewBuilder().ReLU(x); b.Add(x, NewBuilder().Constant(1)) }},
		"disconnected": {"does not depend on", func(b *Builder, x *Node) { b.Gradients(b.Sum(x), weight(b, 1)) }},
		"no scalar":    {"has shape [2,8,8,4], want []", func(b *Builder, x *Node) { b.Gradients(x, x) }},
		"padding": {"want stride ≥ 1, padding ≥ 0", func(b *Builder, x *Node) {
			b.Conv(x, weight(b, 3, 3, 4, 8), ConvAttrs{Stride: 1, Pad: Padding{Left: -1, Right: 2}})
		}},
		"conv backward data": {"conv_backward_data: gradient has shape [2,8,8,4], want [2,6,6,8]", func(b *Builder, x *Node) {
			b.ConvBackwardData(x, weight(b, 3, 3, 4, 8), x, ConvAttrs{Stride: 1})
		}},
		"conv backward data, channels": {"conv_backward_data: kernel [3,3,5,4] is for 5 channels", func(b *Builder, x *Node) {
			b.ConvBackwardData(x, weight(b, 3, 3, 5, 4), x, ConvAttrs{Stride: 1, Pad: SymmetricPadding(1)})
		}},
		"conv backward weights": {"conv_backward_weights: gradient has shape [2,8,8,4], want [2,4,4,4]", func(b *Builder, x *Node) {
			b.ConvBackwardWeights(x, x, weight(b, 3, 3, 4, 4), ConvAttrs{Stride: 2, Pad: SymmetricPadding(1)})
		}},
		"relu backward": {"relu_backward: gradient has shape [2,4,4,4], want [2,8,8,4]", func(b *Builder, x *Node) {
			b.ReLUBackward(b.Subsample(x, 2), x)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder()
			x := b.Input("images", Real, 2, 8, 8, 4)
			b.Layer("layer2.0")
			c.build(b, x)
			if _, err := b.Build(x); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want one with %q", err, c.want)
			}
		})
	}
}

func weight(b *Builder, shape ...int) *Node { return b.Variable("w", VariableAttrs{}, shape...) }

func TestBuildLeavesOutTheUnneeded(t *testing.T) {
	b := NewBuilder()
	x := b.Input("x", Real, 2, 3)
	b.Softmax(x)
	unused := b.Variable("unused", VariableAttrs{}, 3)
	b.Bias(x, unused)
	w := b.Variable("w", VariableAttrs{}, 3)
	y := b.Bias(x, w)
	b.Update(w, b.Scale(w, 0.5))
	g, err := b.Build(y)
	if err != nil {
		t.Fatal(err)
	}
	var dump strings.Builder
	if err := g.Dump(&dump); err != nil {
		t.Fatal(err)
	}
	want := `%0 input() [2,3] x
%1 variable() [3] w
%2 bias(%0, %1) [2,3]
%3 constant() []
%4 mul(%1, %3) [3]
w ← %4
`
	if dump.String() != want {
		t.Errorf("graph:\n%swant:\n%s", dump.String(), want)
	}
	if g.Variable("unused") != nil || g.Variable("w") != w || len(g.Variables) != 1 {
		t.Errorf("variables %v, want w alone", g.Variables)
	}
	for i, n := range g.Nodes {
		if n.ID != i {
			t.Errorf("node %d has ID %d", i, n.ID)
		}
	}
}

// A value used twice has the sum of both gradients; shapes of gradients are
// those of what they belong to.
func TestGradientsAddUp(t *testing.T) {
	b := NewBuilder()
	x := b.Input("x", Real, 2, 6, 6, 3)
	w := b.Variable("w", VariableAttrs{}, 3, 3, 3, 3)
	pad := ConvAttrs{Stride: 1, Pad: SymmetricPadding(1)}
	y := b.ReLU(b.Conv(x, w, pad))
	y = b.Add(b.Conv(y, w, pad), y) // the residual, and the same weights again
	g := b.Gradients(b.Mean(y), w, x)
	if b.Err() != nil {
		t.Fatal(b.Err())
	}
	if !g[0].Shape.Equal(w.Shape) || !g[1].Shape.Equal(x.Shape) {
		t.Errorf("gradients have shapes %v and %v", g[0].Shape, g[1].Shape)
	}
	if g[0].Op != OpAdd || g[0].Inputs[0].Op != OpConvBackwardWeights || g[0].Inputs[1].Op != OpConvBackwardWeights {
		t.Errorf("dw = %v, want the sum of two backward passes", g[0])
	}
}

func TestOpsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, op := range Ops() {
		if op.String() == "" || seen[op.String()] {
			t.Errorf("operation %d has the name %q", op, op)
		}
		seen[op.String()] = true
	}
}

func TestVariableTwice(t *testing.T) {
	b := NewBuilder()
	v := b.Variable("w", VariableAttrs{Role: Statistic}, 3)
	if b.Variable("w", VariableAttrs{}, 3) != v {
		t.Error("the second declaration made another node")
	}
	if got := b.Variables(Statistic); len(got) != 1 || !got[0].Shape.Equal(tensor.Shape{3}) {
		t.Errorf("statistics: %v", got)
	}
	b.Variable("w", VariableAttrs{}, 4)
	if b.Err() == nil {
		t.Error("another shape was accepted")
	}
}
