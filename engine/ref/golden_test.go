package ref

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/golden"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// goldenLimit is the relative error allowed against PyTorch and Keras, which
// computed in float64 too and differ in the order of their sums.
const goldenLimit = 1e-12

// Each operation, with its gradients, against PyTorch and Keras.
func TestGolden(t *testing.T) {
	for _, file := range []string{"torch_ops", "keras_ops"} {
		f := golden.Load(t, file)
		if len(f.Ops) == 0 {
			t.Errorf("%s.json has no operations", file)
		}
		worst := 0.0
		for _, o := range f.Ops {
			t.Run(o.Name, func(t *testing.T) { worst = max(worst, testGolden(t, o)) })
		}
		t.Logf("%s: worst relative error %.2g of %g", file, worst, goldenLimit)
	}
}

// goldenGraph is an operation of a golden file as a graph: inputs by name, and
// outputs, of which "out" is one and those of the gradients are added later.
type goldenGraph struct {
	t       *testing.T
	o       golden.Op
	b       *graph.Builder
	nodes   map[string]*graph.Node
	tensors []tensor.Tensor
	outputs map[string]*graph.Node
}

// input declares an input; kernels change from the files' layout to the graph's.
func (g *goldenGraph) input(name string) *graph.Node {
	v, shape := g.o.Input(g.t, name)
	x := value(shape, v...)
	kind := graph.Real
	switch {
	case name == "labels":
		kind, x = graph.Integer, x.Convert(tensor.Int32)
	case name == "weight" && len(shape) > 1:
		x = tensor.New(tensor.Float64, append(slices.Clone(shape[2:]), shape[1], shape[0])...)
		for i := range v {
			x.Float64s()[graphIndex(i, shape)] = v[i]
		}
	}
	return g.declare(name, kind, x)
}

func (g *goldenGraph) declare(name string, kind graph.Kind, x tensor.Tensor) *graph.Node {
	g.nodes[name] = g.b.Input(name, kind, x.Shape()...)
	g.tensors = append(g.tensors, x)
	return g.nodes[name]
}

// graphIndex is where element i of a file's kernel [OC,C,KH,KW] lies in a
// graph's [KH,KW,C,OC], or of [OC,C] in [C,OC].
func graphIndex(i int, shape []int) int {
	oc, c := shape[0], shape[1]
	taps := tensor.Shape(shape[2:]).Elements()
	return (i%taps*c+i/taps%c)*oc + i/taps/c
}

func testGolden(t *testing.T, o golden.Op) (worst float64) {
	g := &goldenGraph{t: t, o: o, b: graph.NewBuilder(), nodes: map[string]*graph.Node{}, outputs: map[string]*graph.Node{}}
	out := g.build()
	g.outputs["out"] = out
	loss := out
	if len(out.Shape) > 0 {
		loss = g.b.Sum(g.b.Mul(out, g.input("dOut")))
	}
	for name := range o.Outputs {
		if operand, ok := strings.CutPrefix(name, "d_"); ok {
			g.outputs[name] = g.b.Gradients(loss, g.nodes[operand])[0]
		}
	}

	names := slices.Sorted(maps.Keys(g.outputs))
	if want := slices.Sorted(maps.Keys(o.Outputs)); !slices.Equal(names, want) {
		t.Fatalf("outputs %v, the file has %v", names, want)
	}
	var outputs nodes
	for _, name := range names {
		outputs = append(outputs, g.outputs[name])
	}
	built, err := g.b.Build(outputs...)
	if err != nil {
		t.Fatal(err)
	}
	e := New()
	p, err := e.Compile(built, e.NewVariables())
	if err != nil {
		t.Fatal(err)
	}
	results, err := p.Run(context.Background(), g.tensors...)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		got := results[i].Float64s()
		if want := o.Outputs[name].Shape; name == "d_weight" && len(want) > 1 {
			file := make([]float64, len(got))
			for i := range file {
				file[i] = got[graphIndex(i, want)]
			}
			got = file
		}
		worst = max(worst, o.Check(t, name, got, goldenLimit))
	}
	return worst
}

// build makes the operation's output, and puts others into g.outputs.
func (g *goldenGraph) build() *graph.Node {
	b, o := g.b, g.o
	var pad graph.Padding
	if p := o.Ints("padding"); len(p) == 4 {
		pad = graph.Padding{Top: p[0], Bottom: p[1], Left: p[2], Right: p[3]}
	}
	pool := graph.PoolAttrs{Size: o.Int("window"), Stride: o.Int("stride"), Pad: pad, CountPad: true}
	switch o.Op {
	case "conv":
		return b.Conv(g.input("x"), g.input("weight"), graph.ConvAttrs{Stride: o.Int("stride"), Pad: pad})
	case "max_pool":
		return b.MaxPool(g.input("x"), pool)
	case "avg_pool":
		return b.AvgPool(g.input("x"), pool)
	case "global_avg_pool":
		return b.GlobalAvgPool(g.input("x"))
	case "dense":
		return b.Bias(b.MatMul(g.input("x"), g.input("weight"), graph.MatMulAttrs{}), g.input("bias"))
	case "relu":
		return b.ReLU(g.input("x"))
	case "add":
		return b.Add(g.input("x"), g.input("y"))
	case "pad_shortcut":
		return b.PadChannels(b.Subsample(g.input("x"), o.Int("stride")), o.Int("channels_before"), o.Int("channels_after"))
	case "batch_norm":
		return g.batchNorm()
	case "cross_entropy":
		return g.crossEntropy()
	}
	g.t.Fatalf("no graph for the operation %q", o.Op)
	return nil
}

func (g *goldenGraph) batchNorm() *graph.Node {
	b, o := g.b, g.o
	x, scale, shift := g.input("x"), g.input("weight"), g.input("bias")
	runningMean, runningVariance := g.input("running_mean"), g.input("running_var")
	attrs := graph.NormAttrs{Epsilon: o.Float("epsilon"), Training: o.Int("training") != 0}
	if !attrs.Training {
		return b.BatchNorm(x, scale, shift, runningMean, runningVariance, attrs)
	}
	mean := b.BatchMean(x)
	variance := b.BatchVariance(x, mean)
	// PyTorch keeps the unbiased variance: M/(M-1) of the one it normalises with.
	M := float64(x.Shape.Elements() / scale.Shape[0])
	move := func(running, batch *graph.Node, factor float64) *graph.Node {
		m := o.Float("momentum")
		return b.Add(b.Scale(running, 1-m), b.Scale(batch, m*factor))
	}
	g.outputs["running_mean"] = move(runningMean, mean, 1)
	g.outputs["running_var"] = move(runningVariance, variance, M/(M-1))
	return b.BatchNorm(x, scale, shift, mean, variance, attrs)
}

// crossEntropy is the mean loss, or the mean weighted by the labels' classes:
//
//	Σ_n Σ_k w[k]·t[n,k]·(log Σ exp z - z) / Σ_n w[label]
func (g *goldenGraph) crossEntropy() *graph.Node {
	b, o := g.b, g.o
	logits, labels := b.Scale(g.input("x"), o.Float("logit_scale")), g.input("labels")
	classes := o.Int("classes")
	targets := b.OneHot(labels, graph.OneHotAttrs{Classes: classes, Smoothing: o.Float("smoothing")})
	if o.Inputs["class_weights"].Shape == nil {
		return b.Mean(b.CrossEntropy(logits, targets))
	}
	weights, _ := o.Input(g.t, "class_weights")
	diagonal := tensor.New(tensor.Float64, classes, classes)
	for k, w := range weights {
		diagonal.Float64s()[k*classes+k] = w
	}
	byClass := g.declare("class_weights", graph.Real, diagonal)
	weighted := func(t *graph.Node) *graph.Node { return b.MatMul(t, byClass, graph.MatMulAttrs{}) }
	total := b.Sum(weighted(b.OneHot(labels, graph.OneHotAttrs{Classes: classes})))
	return b.Div(b.Sum(b.CrossEntropy(logits, weighted(targets))), total)
}
