package cpu

import (
	"context"
	"math"
	"testing"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// TestMixedGradients compares loss and gradients of a small network in mixed
// precision with float64, on noise. Roundings of 2⁻⁸ of every feature map add up,
// and where they take an activation over zero, ReLU lets a gradient through or
// not. Limits are on the relative error of each parameter's gradient, in the norm,
// and of all together. Measured: 0.11 and 0.08 with direct convolution and with
// F(4×4,3×3) in float32, 0.19 and 0.11 with F(2×2,3×3) everywhere, 0.27 and 0.17 with
// F(4×4,3×3) in bfloat16. A lost tap or product gives more than 0.3 in the others.
func TestMixedGradients(t *testing.T) {
	c := model.Config{Name: "small", Convention: model.Keras, Height: 16, Width: 16, Channels: 3, Classes: 10,
		Stem: model.SmallStem, Block: model.Basic, Shortcut: model.Projection, Blocks: []int{1, 1}, Filters: 16}
	want := gradients(t, ref.New(), c)
	for _, k := range []struct {
		winograd      string
		each, overall float64
	}{{"off", 0.18, 0.12}, {"on", 0.28, 0.16}, {"on-4x4", 0.18, 0.12}, {"on-4x4-bfloat16", 0.36, 0.24}} {
		got := gradients(t, open(t, Options{Threads: 2, Precision: "bfloat16", Winograd: k.winograd}), c)
		if math.Abs(got[0][0]-want[0][0]) > 0.01*want[0][0] {
			t.Errorf("winograd %s: loss %v, want %v", k.winograd, got[0][0], want[0][0])
		}
		worst, squares, all := 0.0, 0.0, 0.0
		for i := 1; i < len(want); i++ {
			var e, n float64
			for j, w := range want[i] {
				e += (got[i][j] - w) * (got[i][j] - w)
				n += w * w
			}
			squares, all = squares+e, all+n
			relative := math.Sqrt(e / n)
			worst = max(worst, relative)
			if !(relative <= k.each) {
				t.Errorf("winograd %s: gradient %d has the relative error %.3g, want at most %v", k.winograd, i, relative, k.each)
			}
		}
		overall := math.Sqrt(squares / all)
		t.Logf("winograd %s: loss %.5f, want %.5f; relative error of gradients %.3g at most, %.3g together", k.winograd, got[0][0], want[0][0], worst, overall)
		if !(overall <= k.overall) {
			t.Errorf("winograd %s: relative error of all gradients %.3g, want at most %v", k.winograd, overall, k.overall)
		}
	}
}

// gradients are the loss and the gradient of each parameter on random images.
func gradients(t *testing.T, e engine.Engine, c model.Config) [][]float64 {
	t.Helper()
	const batch = 16
	b := graph.NewBuilder()
	images := b.Input("images", graph.Real, batch, c.Height, c.Width, c.Channels)
	labels := b.Input("labels", graph.Integer, batch)
	net := c.Build(b, images, true)
	loss := b.Mean(b.CrossEntropy(net.Logits, b.OneHot(labels, graph.OneHotAttrs{Classes: c.Classes})))
	g, err := b.Build(append([]*graph.Node{loss}, b.Gradients(loss, b.Variables(graph.Parameter)...)...)...)
	if err != nil {
		t.Fatal(err)
	}
	vars := e.NewVariables()
	for _, v := range g.Variables {
		if err := vars.Set(v.Name, model.Initial(v, 3)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := e.Compile(g, vars)
	if err != nil {
		t.Fatal(err)
	}
	rng := random.New(9)
	x, y := tensor.New(tensor.Float32, images.Shape...), tensor.New(tensor.Int32, batch)
	for i := range x.Float32s() {
		x.Float32s()[i] = float32(rng.Normal())
	}
	for i := range y.Int32s() {
		y.Int32s()[i] = int32(i % c.Classes)
	}
	out, err := p.Run(context.Background(), x, y)
	if err != nil {
		t.Fatal(err)
	}
	var values [][]float64
	for _, o := range out {
		values = append(values, append([]float64(nil), o.Convert(tensor.Float64).Float64s()...))
	}
	return values
}
