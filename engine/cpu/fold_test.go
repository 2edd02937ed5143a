package cpu

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// foldSize is a convolution that things are folded into.
type foldSize struct{ n, h, w, c, oc, kernel, stride int }

// foldPattern is what follows a convolution of x, and the steps that a program of
// it must have, apart from copies between precisions.
type foldPattern struct {
	name  string
	build func(p *foldNet, x *graph.Node) []*graph.Node
	steps []string
}

// foldNet adds layers with variables of their own to a graph.
type foldNet struct {
	*graph.Builder
	size   foldSize
	layers int
}

func (p *foldNet) variable(what string, shape ...int) *graph.Node {
	p.layers++
	return p.Variable(fmt.Sprint(what, p.layers), graph.VariableAttrs{}, shape...)
}

func (p *foldNet) conv(x *graph.Node) *graph.Node {
	s := p.size
	return p.convBy(x, p.variable("weight", s.kernel, s.kernel, x.Shape[3], s.oc))
}

func (p *foldNet) convBy(x, w *graph.Node) *graph.Node {
	s := p.size
	return p.Conv(x, w, graph.ConvAttrs{Stride: s.stride, Pad: graph.SamePadding(s.h, s.w, s.kernel, s.stride)})
}

func (p *foldNet) norm(x *graph.Node) *graph.Node {
	c := x.Shape[3]
	return p.BatchNorm(x, p.variable("gamma", c), p.variable("beta", c), p.variable("mean", c), p.variable("variance", c), graph.NormAttrs{Epsilon: 0.25})
}

func (p *foldNet) bias(x *graph.Node) *graph.Node { return p.Bias(x, p.variable("bias", x.Shape[3])) }

// end makes an output of maps: in mixed precision an output itself is no map.
func (p *foldNet) end(maps ...*graph.Node) []*graph.Node {
	for i, m := range maps {
		maps[i] = p.MaxPool(m, graph.PoolAttrs{Size: 1, Stride: 1})
	}
	return maps
}

func foldPatterns() []foldPattern {
	return []foldPattern{
		{"batch norm", func(p *foldNet, x *graph.Node) []*graph.Node { return p.end(p.norm(p.conv(x))) },
			[]string{"conv batch_norm"}},
		{"batch norm, ReLU", func(p *foldNet, x *graph.Node) []*graph.Node { return p.end(p.ReLU(p.norm(p.conv(x)))) },
			[]string{"conv batch_norm relu"}},
		{"block with projection", func(p *foldNet, x *graph.Node) []*graph.Node {
			shortcut := p.norm(p.conv(x))
			return p.end(p.ReLU(p.Add(p.norm(p.conv(x)), shortcut)))
		}, []string{"conv batch_norm", "conv batch_norm add relu"}},
		{"the shortcut is the first operand, and read twice", func(p *foldNet, x *graph.Node) []*graph.Node {
			shortcut := p.ReLU(p.norm(p.conv(x)))
			return p.end(p.ReLU(p.Add(shortcut, p.norm(p.conv(x)))), shortcut)
		}, []string{"conv batch_norm relu", "conv batch_norm add relu"}},
		{"ReLU, then the addition", func(p *foldNet, x *graph.Node) []*graph.Node {
			shortcut := p.conv(x)
			return p.end(p.Add(p.ReLU(p.norm(p.conv(x))), shortcut))
		}, []string{"conv", "conv batch_norm relu add"}},
		{"ReLU on both sides", func(p *foldNet, x *graph.Node) []*graph.Node {
			shortcut := p.conv(x)
			return p.end(p.ReLU(p.Add(p.ReLU(p.bias(p.conv(x))), shortcut)))
		}, []string{"conv", "conv bias relu add relu"}},
		{"dense layers", func(p *foldNet, x *graph.Node) []*graph.Node {
			dense := func(x *graph.Node, columns int) *graph.Node {
				return p.Bias(p.MatMul(x, p.variable("dense", x.Shape[1], columns), graph.MatMulAttrs{}), p.variable("bias", columns))
			}
			size := min(p.size.h, p.size.w) // one pixel, whose mean is exact
			y := p.GlobalAvgPool(p.MaxPool(x, graph.PoolAttrs{Size: size, Stride: size}))
			return []*graph.Node{dense(p.ReLU(dense(y, 17)), 5)}
		}, []string{"global_avg_pool", "matmul bias relu", "matmul bias"}},
		{"addition alone", func(p *foldNet, x *graph.Node) []*graph.Node {
			shortcut := p.conv(x)
			return p.end(p.Add(p.conv(x), shortcut))
		}, []string{"conv", "conv add"}},
		{"bias, ReLU", func(p *foldNet, x *graph.Node) []*graph.Node { return p.end(p.ReLU(p.bias(p.conv(x)))) },
			[]string{"conv bias relu"}},
		{"bias and batch norm", func(p *foldNet, x *graph.Node) []*graph.Node { return p.end(p.norm(p.bias(p.conv(x)))) },
			[]string{"conv bias batch_norm"}},
		{"batch norm and another", func(p *foldNet, x *graph.Node) []*graph.Node { return p.end(p.norm(p.norm(p.conv(x)))) },
			[]string{"conv batch_norm", "batch_norm"}},
		{"two readers", func(p *foldNet, x *graph.Node) []*graph.Node {
			y := p.conv(x)
			return p.end(p.norm(y), y)
		}, []string{"conv", "batch_norm"}},
		{"one twice", func(p *foldNet, x *graph.Node) []*graph.Node {
			y := p.norm(p.conv(x))
			return p.end(p.Add(y, y))
		}, []string{"conv batch_norm", "add"}},
		{"an output between", func(p *foldNet, x *graph.Node) []*graph.Node {
			y := p.norm(p.conv(x))
			return append(p.end(p.ReLU(y)), y)
		}, []string{"conv batch_norm", "relu"}},
		{"weights that come in", func(p *foldNet, x *graph.Node) []*graph.Node {
			s := p.size
			return p.end(p.norm(p.ReLU(p.bias(p.convBy(x, p.Input("w", graph.Real, s.kernel, s.kernel, s.c, s.oc))))))
		}, []string{"pack conv", "conv bias relu", "batch_norm"}},
		{"weights and shift that come in", func(p *foldNet, x *graph.Node) []*graph.Node {
			c := p.size.oc
			y := p.convBy(x, p.Input("w", graph.Real, p.size.kernel, p.size.kernel, p.size.c, c))
			return p.end(p.BatchNorm(y, p.variable("gamma", c), p.Input("b", graph.Real, c), p.variable("mean", c), p.variable("variance", c), graph.NormAttrs{Epsilon: 0.25}))
		}, []string{"pack conv", "conv", "batch_norm coefficients", "batch_norm"}},
		{"the batch's own statistics", func(p *foldNet, x *graph.Node) []*graph.Node {
			y, c := p.conv(x), p.size.oc
			mean := p.BatchMean(y)
			return p.end(p.BatchNorm(y, p.variable("gamma", c), p.variable("beta", c), mean, p.BatchVariance(y, mean), graph.NormAttrs{Epsilon: 0.25, Training: true}))
		}, nil},
	}
}

// draw sets a value of a graph: numbers that bfloat16 holds and whose sums are
// exact, scales that are powers of two; or real ones.
func (p *foldNet) draw(rng *random.Source, n *graph.Node, exact bool) tensor.Tensor {
	x := tensor.New(tensor.Float32, n.Shape...)
	for i := range x.Float32s() {
		v := rng.Range(-1, 1)
		switch variance := strings.HasPrefix(n.Name, "variance"); {
		case exact && variance:
			v = 3.75 // with ε = ¼, the root is 2
		case variance:
			v = rng.Range(0.5, 2)
		case exact && strings.HasPrefix(n.Name, "gamma"):
			v = []float64{-4, 1, 2, 4}[rng.IntN(4)]
		case exact:
			v = float64(rng.IntN(3) - 1)
		}
		x.Float32s()[i] = float32(v)
	}
	return x
}

// What is folded into convolutions gives what ref computes step by step, where
// every sum is exact the same numbers, also after each of the variables has
// changed; and the steps are those that the patterns promise.
func TestFolds(t *testing.T) {
	sizes := []foldSize{
		{2, 5, 6, 3, 5, 3, 1},    // tails of channels, odd rows
		{3, 8, 8, 16, 33, 3, 1},  // a last panel of one channel
		{2, 7, 9, 5, 16, 3, 2},   // stride 2, with an odd number of channels
		{2, 8, 8, 34, 40, 1, 2},  // 1×1
		{15, 4, 4, 9, 130, 3, 1}, // a smaller last group
		{1, 6, 6, 72, 520, 3, 2}, // kernels of stride 2 transformed in tasks
	}
	for _, k := range kernel.Supported() {
		for _, precision := range []string{"float32", "bfloat16"} {
			if precision == "float32" && k.Set > kernel.AVX512 {
				continue
			}
			for _, winograd := range []string{"off", "on", "on-4x4", "on-4x4-bfloat16"} {
				if precision == "float32" && winograd == "on-4x4-bfloat16" {
					continue // the same as on-4x4
				}
				e := open(t, Options{Threads: 2, InstructionSet: k.Set.String(), Precision: precision, Winograd: winograd})
				for i, pattern := range foldPatterns() {
					for j, size := range sizes {
						if k.Set == kernel.Generic && (j > 2 || testing.Short()) { // slow
							continue
						}
						if precision == "bfloat16" && size.oc > 500 { // sums that it has no exact numbers for
							continue
						}
						name := fmt.Sprintf("%v, %s, winograd %s, %s, %+v", k.Set, precision, winograd, pattern.name, size)
						testFold(t, name, e, pattern, size, uint64(i*len(sizes)+j))
					}
				}
			}
		}
	}
}

func testFold(t *testing.T, name string, e *Engine, pattern foldPattern, size foldSize, seed uint64) {
	t.Helper()
	p := &foldNet{Builder: graph.NewBuilder(), size: size}
	x := p.Input("x", graph.Real, size.n, size.h, size.w, size.c)
	outputs := pattern.build(p, x)
	g, err := p.Build(outputs...)
	if err != nil {
		t.Fatal(err)
	}
	judge := ref.New()
	vars, refVars := e.NewVariables(), judge.NewVariables()
	fast, slow := compileFor(t, e, g, vars), compileFor(t, judge, g, refVars)
	defer fast.Close()
	defer slow.Close()
	checkFoldSteps(t, name, pattern, fast.(*Program))

	rng := random.New(77, seed)
	for _, exact := range []bool{true, false} {
		set := func(v *graph.Node) {
			value := p.draw(rng, v, exact)
			for _, store := range []engine.Variables{vars, refVars} {
				if err := store.Set(v.Name, value); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, v := range g.Variables {
			set(v)
		}
		for changed := -1; changed < len(g.Variables) && (exact || changed < 0); changed++ {
			if changed >= 0 {
				set(g.Variables[changed])
			}
			var in, wide []tensor.Tensor
			for _, n := range g.Inputs {
				v := p.draw(rng, n, exact)
				in, wide = append(in, v), append(wide, v.Convert(tensor.Float64))
			}
			fill(fast.(*Program).arena, float32(math.NaN()))
			for _, s := range fast.(*Program).scratch {
				fill(s, float32(math.NaN()))
			}
			got, err := fast.Run(context.Background(), in...)
			if err != nil {
				t.Fatal(err)
			}
			want, err := slow.Run(context.Background(), wide...)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				compareFold(t, fmt.Sprintf("%s, variable %d changed, output %d", name, changed, i), e, exact && pattern.steps != nil && e.winograd != winogradOn4 && e.winograd != winogradOnPairs, got[i].Float32s(), want[i].Float64s())
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

// compareFold compares exact numbers for equality, and real ones in the root mean
// square, of which 2.2e-7 was measured in float32, and 9.9e-7 through
// F(4×4,3×3), which has no exact numbers. In bfloat16 pixels, weights and
// results are rounded by 2⁻⁹ at most, and transformed operands of F(2×2,3×3) once
// more: 0.80·2⁻⁸ and 1.26·2⁻⁸ were measured.
func compareFold(t *testing.T, what string, e *Engine, exact bool, got []float32, want []float64) {
	t.Helper()
	squares, all := 0.0, 0.0
	for i, v := range got {
		d := float64(v) - want[i]
		squares, all = squares+d*d, all+want[i]*want[i]
		if exact && d != 0 || v != v {
			t.Errorf("%s: element %d is %v, want %v", what, i, v, want[i])
			return
		}
	}
	limit := 5e-7
	switch {
	case e.winograd == winogradOn4 && !e.bf16:
		limit = 2e-6
	case e.winograd == winogradOnPairs:
		limit = 6 * 0x1p-8
	case e.bf16 && e.winograd == winogradOn:
		limit = 1.8 * 0x1p-8
	case e.bf16:
		limit = 1.2 * 0x1p-8
	}

	if relative := math.Sqrt(squares / max(all, 1e-30)); !(relative <= limit) {
		t.Errorf("%s: relative error %.3g in the root mean square, want at most %.3g", what, relative, limit)
	}
}

func compileFor(t *testing.T, e engine.Engine, g *graph.Graph, vars engine.Variables) engine.Program {
	t.Helper()
	p, err := e.Compile(g, vars)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func checkFoldSteps(t *testing.T, name string, pattern foldPattern, p *Program) {
	t.Helper()
	if pattern.steps == nil {
		return
	}
	var steps []string
	for _, s := range stepNames(p) {
		s = strings.TrimPrefix(strings.TrimPrefix(s, "winograd 2×2 "), "winograd 4×4 ")
		if !strings.HasPrefix(s, "pairs of") && !strings.HasPrefix(s, "widen") && !strings.HasPrefix(s, "max_pool") {
			steps = append(steps, s)
		}
	}
	want := pattern.steps
	if len(p.winograds4) > 0 && p.winograds4[0].kernels != nil { // tasks make their own
		want = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "pack conv" })
	}
	if !slices.Equal(steps, want) {
		t.Fatalf("%s: steps %q, want %q", name, steps, want)
	}
}

// In whole networks no pass over a feature map remains but those of pooling, and
// what comes before the first convolution of a block with pre-activation.
func TestFoldedNetworks(t *testing.T) {
	base := model.Config{Name: "small", Convention: model.Keras, Height: 16, Width: 16, Channels: 3, Classes: 7,
		Stem: model.SmallStem, Block: model.Basic, Shortcut: model.Projection, Blocks: []int{2, 1}, Filters: 34}
	for _, c := range []struct {
		name  string
		edit  func(c *model.Config)
		loops int
	}{
		{"basic", func(*model.Config) {}, 0},
		{"bottleneck, large stem", func(c *model.Config) { c.Block, c.Stem, c.Convention = model.Bottleneck, model.LargeStem, model.Torch }, 0},
		{"deep stem", func(c *model.Config) { c.Stem = model.DeepStem }, 0},
		{"option A", func(c *model.Config) { c.Shortcut = model.PadShortcut }, 0},
		{"pooled", func(c *model.Config) { c.Block, c.Blocks = model.Pooled, []int{1, 0, 1} }, 0},
		{"without batch norm", func(c *model.Config) { c.Norm = model.NoNorm }, 0},
		{"pre-activation", func(c *model.Config) { c.PreAct = true }, 4}, // bn1 of three blocks, and the last
		{"squeeze-excitation", func(c *model.Config) { c.SE = true }, 2}, // the sums of identity blocks
	} {
		cfg := base
		c.edit(&cfg)
		g, err := cfg.Graph(3)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []Options{{Winograd: "on"}, {Winograd: "off"}, {Winograd: "auto", Precision: "bfloat16"}} {
			e, judge := open(t, o), ref.New()
			vars, refVars := e.NewVariables(), judge.NewVariables()
			rng := random.New(3, 4)
			for _, v := range g.Variables {
				value := model.Initial(v, 1)
				if v.Variable.Role == graph.Statistic || len(v.Shape) == 1 { // none of the factors is 1, none of the shifts 0
					for i := range value.Float32s() {
						value.Float32s()[i] += float32(rng.Range(0.1, 0.4))
					}
				}
				for _, store := range []engine.Variables{vars, refVars} {
					if err := store.Set(v.Name, value); err != nil {
						t.Fatal(err)
					}
				}
			}
			fast, slow := compileFor(t, e, g, vars), compileFor(t, judge, g, refVars)
			steps := stepNames(fast.(*Program))
			loops := 0
			for _, s := range steps {
				if strings.HasPrefix(s, "loop") || strings.HasPrefix(s, "relu") || strings.HasPrefix(s, "add") || strings.HasPrefix(s, "batch_norm") && !strings.Contains(s, "coefficients") {
					loops++
				}
			}
			if loops != c.loops {
				t.Errorf("%s, %+v: %d loops, want %d:\n%s", c.name, o, loops, c.loops, strings.Join(steps, "\n"))
			}
			x := tensor.New(tensor.Float32, g.Inputs[0].Shape...)
			for i := range x.Float32s() {
				x.Float32s()[i] = float32(rng.Normal())
			}
			got, err := fast.Run(context.Background(), x)
			if err != nil {
				t.Fatal(err)
			}
			want, err := slow.Run(context.Background(), x.Convert(tensor.Float64))
			if err != nil {
				t.Fatal(err)
			}
			// Logits, relative to the largest: 8e-7 was measured, and 0.0062 in bfloat16,
			// where every map is rounded by 2⁻⁹.
			limit, size, worst := 3e-6, 0.0, 0.0
			if e.bf16 {
				limit = 0.02
			}
			for i, w := range want[1].Float64s() {
				size, worst = max(size, math.Abs(w)), max(worst, math.Abs(float64(got[1].Float32s()[i])-w))
			}
			t.Logf("%s, %+v: error %.2g of the largest logit", c.name, o, worst/size)
			if !(worst <= limit*size) {
				t.Errorf("%s, %+v: error %.3g of a largest logit of %.3g, want at most %v of it", c.name, o, worst, size, limit)
			}
			_ = fast.Close()
		}
	}
}

// A program does what depends on variables alone once for each change of them.
func TestPreparations(t *testing.T) {
	e := open(t, Options{Threads: 1})
	g, err := small.Graph(2)
	if err != nil {
		t.Fatal(err)
	}
	vars := e.NewVariables()
	for _, v := range g.Variables {
		if err := vars.Set(v.Name, model.Initial(v, 1)); err != nil {
			t.Fatal(err)
		}
	}
	p := compileFor(t, e, g, vars).(*Program)
	ran := map[string]int{}
	for i := range p.preparations {
		r := &p.preparations[i]
		body := r.body
		r.body = func(worker, task int) {
			if task == 0 {
				ran[r.name]++
			}
			body(worker, task)
		}
	}
	x, ctx := tensor.New(tensor.Float32, g.Inputs[0].Shape...), context.Background()
	run := func(want map[string]int) {
		t.Helper()
		clear(ran)
		if _, err := p.Run(ctx, x); err != nil {
			t.Fatal(err)
		}
		for _, name := range preparationNames(p) {
			if ran[name] != want[name] {
				t.Errorf("%q ran %d times, want %d", name, ran[name], want[name])
			}
		}
	}
	all := map[string]int{}
	for _, name := range preparationNames(p) {
		all[name] = 1
	}
	if all["fold batch_norm bn1"] != 1 || all["pack conv conv1"] != 1 || len(all) != len(preparationNames(p)) {
		t.Fatalf("preparations %q", preparationNames(p))
	}
	run(all)
	run(nil)
	set := func(name string) {
		t.Helper()
		v, err := vars.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := vars.Set(name, v); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		variable string
		want     map[string]int
	}{
		{"conv1.weight", map[string]int{"pack conv conv1": 1}},
		{"bn1.weight", map[string]int{"fold batch_norm bn1": 1, "pack conv conv1": 1}},
		{"bn1.running_var", map[string]int{"fold batch_norm bn1": 1, "pack conv conv1": 1}},
		{"bn1.running_mean", map[string]int{"fold batch_norm bn1": 1}},
		{"bn1.bias", map[string]int{"fold batch_norm bn1": 1}},
	} {
		set(c.variable)
		run(c.want)
		run(nil)
	}
	if n := testing.AllocsPerRun(5, func() {
		if _, err := p.Run(ctx, x); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a run allocates %v times", n)
	}
}

// A validation inside training runs an inference program over variables that steps
// update in the meantime: what is folded follows them.
func TestFoldsFollowTraining(t *testing.T) {
	forEachVariant(t, func(t *testing.T, o Options) {
		tr := newTraining(t, open(t, o), small, 7)
		g, err := small.Graph(3)
		if err != nil {
			t.Fatal(err)
		}
		judge := ref.New()
		refVars := judge.NewVariables()
		fast, slow := compileFor(t, tr.engine, g, tr.vars).(*Program), compileFor(t, judge, g, refVars)
		defer fast.Close()
		defer slow.Close()
		if names := preparationNames(fast); !slices.Contains(names, "fold batch_norm layer2.0.bn2") {
			t.Fatalf("preparations %q", names)
		}
		rng := random.New(5, 6)
		x := tensor.New(tensor.Float32, g.Inputs[0].Shape...)
		for i := range x.Float32s() {
			x.Float32s()[i] = float32(rng.Normal())
		}
		var before []float64
		for range 3 {
			for range 2 {
				tr.step(t)
			}
			for _, v := range g.Variables {
				value, err := tr.vars.Get(v.Name)
				if err != nil {
					t.Fatal(err)
				}
				if err := refVars.Set(v.Name, value); err != nil {
					t.Fatal(err)
				}
			}
			got, err := fast.Run(context.Background(), x)
			if err != nil {
				t.Fatal(err)
			}
			want, err := slow.Run(context.Background(), x.Convert(tensor.Float64))
			if err != nil {
				t.Fatal(err)
			}
			size, worst, moved := 0.0, 0.0, 0.0
			logits := want[1].Float64s()
			for i, w := range logits {
				size, worst = max(size, math.Abs(w)), max(worst, math.Abs(float64(got[1].Float32s()[i])-w))
				if before != nil {
					moved = max(moved, math.Abs(w-before[i]))
				}
			}
			limit := 3e-6 // as in TestFoldedNetworks
			if o.Precision == "bfloat16" {
				limit = 0.02
			}
			t.Logf("error %.2g of the largest logit; steps moved one by %.2g of it", worst/size, moved/size)
			if !(worst <= limit*size) {
				t.Errorf("error %.3g of a largest logit of %.3g, want at most %v of it", worst, size, limit)
			}
			if before != nil && !(moved > 3*limit*size) {
				t.Errorf("steps moved the logits by %.3g only: the test would not see old weights", moved)
			}
			before = slices.Clone(logits)
		}
	})
}
