package enginetest

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

func vector(v ...float32) tensor.Tensor { return tensor.Of(v, len(v)) }

func wantVariable(t *testing.T, vars engine.Variables, name string, want ...float64) {
	t.Helper()
	if got := get(t, vars, name); !slices.Equal(got, want) {
		t.Errorf("variable %s is %v, want %v", name, got, want)
	}
}

func wantOutput(t *testing.T, got tensor.Tensor, want ...float64) {
	t.Helper()
	if v := got.Convert(tensor.Float64).Float64s(); !slices.Equal(v, want) {
		t.Errorf("output %v, want %v", v, want)
	}
}

func wantError(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error %q does not say %q", what, err, part)
		}
	}
}

// testVariables tests the store alone.
func testVariables(t *testing.T, open func() engine.Engine) {
	e := open()
	defer e.Close()
	vars := e.NewVariables()
	if len(vars.Names()) != 0 {
		t.Errorf("a new store has the names %v", vars.Names())
	}
	source := vector(1, 2, 3)
	set(t, vars, "w", source)
	double := tensor.Of([]float64{4, 5}, 2)
	set(t, vars, "b", double)
	set(t, vars, "a", tensor.Scalar(6))
	if got := vars.Names(); !slices.Equal(got, []string{"w", "b", "a"}) {
		t.Errorf("names %v, want w b a, in the order of creation", got)
	}

	source.Float32s()[0], double.Float64s()[0] = 100, 100 // the caller's again
	wantVariable(t, vars, "w", 1, 2, 3)
	wantVariable(t, vars, "b", 4, 5)
	wantVariable(t, vars, "a", 6)
	if v, err := vars.Get("b"); err != nil || !v.Shape().Equal(tensor.Shape{2}) {
		t.Errorf("b has shape %v (%v), want [2]", v.Shape(), err)
	} else if v.DType() == tensor.Float32 {
		v.Float32s()[0] = 100
	} else {
		v.Float64s()[0] = 100
	}
	wantVariable(t, vars, "b", 4, 5)

	set(t, vars, "w", vector(7, 8, 9))
	wantVariable(t, vars, "w", 7, 8, 9)
	wantError(t, "another shape", vars.Set("w", vector(1, 2)), "w", "[3]", "[2]")
	wantError(t, "the same number of elements in another shape", vars.Set("w", vector(1, 2, 3).Reshape(1, 3)), "w", "[3]", "[1,3]")
	wantError(t, "integers", vars.Set("w", tensor.Of([]int32{1, 2, 3}, 3)), "w", "int32")
	wantError(t, "integers, new", vars.Set("new", tensor.Of([]int32{1}, 1)), "new", "int32")
	wantError(t, "nothing", vars.Set("new", tensor.Tensor{}), "new")
	wantVariable(t, vars, "w", 7, 8, 9)
	_, err := vars.Get("missing")
	wantError(t, "a missing variable", err, "missing")
	if got := vars.Names(); len(got) != 3 {
		t.Errorf("after mistakes the names are %v", got)
	}
}

// otherVariables are those of an engine that does not exist.
type otherVariables struct{ engine.Variables }

// testCompile tests how a program finds or makes its variables.
func testCompile(t *testing.T, open func() engine.Engine) {
	e := open()
	defer e.Close()
	if e.Name() == "" {
		t.Error("the engine has no name")
	}
	b := graph.NewBuilder()
	x := b.Input("x", graph.Real, 1, 4, 4, 2)
	fresh := b.Variable("fresh", graph.VariableAttrs{}, 2)
	w := b.Variable("w", graph.VariableAttrs{}, 3, 3, 2, 2)
	g := build(t, b, b.Bias(b.Conv(x, w, graph.ConvAttrs{Stride: 1}), fresh))

	for what, vars := range map[string]engine.Variables{"another engine's variables": otherVariables{}, "no variables": nil} {
		_, err := e.Compile(g, vars)
		wantError(t, what, err)
	}

	vars := e.NewVariables()
	set(t, vars, "w", tensor.New(tensor.Float32, 3, 3, 2, 3))
	_, err := e.Compile(g, vars)
	wantError(t, "a variable of another shape", err, "w", "[3,3,2,3]", "[3,3,2,2]")

	vars = e.NewVariables()
	set(t, vars, "w", tensor.New(tensor.Float32, 3, 3, 2, 2))
	p := compile(t, e, g, vars)
	defer p.Close()
	wantVariable(t, vars, "fresh", 0, 0)
	if got := vars.Names(); !slices.Equal(got, []string{"w", "fresh"}) {
		t.Errorf("names %v, want w fresh", got)
	}
	if p.Kernels()["conv"] == "" {
		t.Errorf("Kernels() = %v, which does not say what computes conv", p.Kernels())
	}
}

// testUpdates tests that updates read old values and take effect together.
func testUpdates(t *testing.T, open func() engine.Engine) {
	e := open()
	defer e.Close()
	b := graph.NewBuilder()
	variable := func(name string) *graph.Node { return b.Variable(name, graph.VariableAttrs{}, 3) }
	x := b.Input("x", graph.Real, 3)
	a, c, d, f, s := variable("a"), variable("c"), variable("d"), variable("f"), variable("s")
	sum := b.Add(a, c)
	b.Update(a, c) // an exchange
	b.Update(c, a)
	b.Update(d, sum)                                 // a sum of old values
	b.Update(f, x)                                   // an input
	b.Update(s, b.Add(b.Scale(s, 0.5), b.Mul(d, d))) // in place, and of the old d
	g := build(t, b, a, sum, x, s, sum)

	vars := e.NewVariables()
	for name, v := range map[string]tensor.Tensor{"a": vector(1, 2, 3), "c": vector(10, 20, 30), "d": vector(2, 2, 3), "f": vector(0, 0, 0), "s": vector(4, 8, 16)} {
		set(t, vars, name, v)
	}
	p := compile(t, e, g, vars)
	defer p.Close()
	input := vector(7, 8, 9)
	out := run(t, p, input)
	wantOutput(t, out[0], 1, 2, 3) // the old value
	wantOutput(t, out[1], 11, 22, 33)
	wantOutput(t, out[2], 7, 8, 9)
	wantOutput(t, out[3], 4, 8, 16)
	wantOutput(t, out[4], 11, 22, 33)
	input.Float32s()[0] = 100 // is the caller's again
	wantVariable(t, vars, "a", 10, 20, 30)
	wantVariable(t, vars, "c", 1, 2, 3)
	wantVariable(t, vars, "d", 11, 22, 33)
	wantVariable(t, vars, "f", 7, 8, 9)
	wantVariable(t, vars, "s", 6, 8, 17)

	out = run(t, p, input)
	wantOutput(t, out[0], 10, 20, 30)
	wantOutput(t, out[2], 100, 8, 9)
	wantVariable(t, vars, "a", 1, 2, 3)
	wantVariable(t, vars, "s", 3+121, 4+484, 8.5+1089)

	set(t, vars, "a", vector(5, 5, 5)) // between runs
	out = run(t, p, input)
	wantOutput(t, out[0], 5, 5, 5)
	wantVariable(t, vars, "c", 5, 5, 5)

	// One read before and after it changes, by one that is not complete yet then.
	b = graph.NewBuilder()
	x, a, s = b.Input("x", graph.Real, 3), variable("a"), b.Variable("s", graph.VariableAttrs{})
	product := b.Mul(a, s)
	b.Update(s, b.Add(s, b.Constant(1)))
	b.Update(a, b.Add(product, b.Mul(x, b.Updated(s))))
	vars = e.NewVariables()
	set(t, vars, "a", vector(1, 2, 3))
	set(t, vars, "s", tensor.Scalar(10))
	p = compile(t, e, build(t, b, b.Sum(x)), vars)
	defer p.Close()
	run(t, p, vector(1, 2, 4))
	wantVariable(t, vars, "a", 10+11, 20+22, 30+44)
	wantVariable(t, vars, "s", 11)
}

// testGuard tests that a guard that is not finite withholds all updates, not
// the outputs, and only in its run.
func testGuard(t *testing.T, open func() engine.Engine) {
	e := open()
	defer e.Close()
	b := graph.NewBuilder()
	x := b.Input("x", graph.Real, 3)
	a := b.Variable("a", graph.VariableAttrs{}, 3)
	count := b.Variable("count", graph.VariableAttrs{})
	loss := b.Sum(x)
	b.Update(a, b.Add(a, x))
	b.Update(count, b.Add(count, b.Constant(1)))
	b.Guard(loss)
	vars := e.NewVariables()
	p := compile(t, e, build(t, b, b.Scale(x, 2), loss), vars)
	defer p.Close()

	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	run(t, p, vector(1, 2, 3))
	for _, bad := range []float32{nan, inf, -inf} {
		out := run(t, p, vector(4, bad, 5))
		v := out[0].Convert(tensor.Float64).Float64s()
		if v[0] != 8 || v[2] != 10 || !math.IsNaN(v[1]) && !math.IsInf(v[1], 0) {
			t.Errorf("outputs of a run with %v: %v", bad, v)
		}
		wantVariable(t, vars, "a", 1, 2, 3)
		wantVariable(t, vars, "count", 1)
	}
	run(t, p, vector(1, 1, 1))
	wantVariable(t, vars, "a", 2, 3, 4)
	wantVariable(t, vars, "count", 2)
}

// testWrongInputs tests that Run refuses them with an error and changes nothing.
func testWrongInputs(t *testing.T, open func() engine.Engine) {
	e := open()
	defer e.Close()
	b := graph.NewBuilder()
	x := b.Input("images", graph.Real, 2, 3)
	y := b.Input("labels", graph.Integer, 2)
	w := b.Variable("w", graph.VariableAttrs{}, 2, 3)
	b.Update(w, b.Add(w, x))
	vars := e.NewVariables()
	p := compile(t, e, build(t, b, b.Mean(b.CrossEntropy(b.Add(x, w), b.OneHot(y, graph.OneHotAttrs{Classes: 3})))), vars)
	defer p.Close()

	images, labels := tensor.Of([]float32{1, 2, 3, 4, 5, 6}, 2, 3), tensor.Of([]int32{0, 2}, 2)
	run(t, p, images, labels)
	before := get(t, vars, "w")
	for _, c := range []struct {
		what   string
		inputs []tensor.Tensor
		says   []string
	}{
		{"none", nil, []string{"0", "2"}},
		{"too few", []tensor.Tensor{images}, []string{"1", "2"}},
		{"too many", []tensor.Tensor{images, labels, labels}, []string{"3", "2"}},
		{"another shape", []tensor.Tensor{images.Reshape(3, 2), labels}, []string{"images", "[3,2]", "[2,3]"}},
		{"another batch", []tensor.Tensor{tensor.New(tensor.Float32, 1, 3), labels}, []string{"images", "[1,3]", "[2,3]"}},
		{"another rank", []tensor.Tensor{images.Reshape(6), labels}, []string{"images", "[6]", "[2,3]"}},
		{"more labels", []tensor.Tensor{images, tensor.New(tensor.Int32, 3)}, []string{"labels", "[3]", "[2]"}},
		{"bytes", []tensor.Tensor{tensor.New(tensor.Uint8, 2, 3), labels}, []string{"images", "uint8", "float32"}},
		{"integers", []tensor.Tensor{tensor.New(tensor.Int32, 2, 3), labels}, []string{"images", "int32", "float32"}},
		{"real labels", []tensor.Tensor{images, vector(0, 2)}, []string{"labels", "float32", "int32"}},
		{"long labels", []tensor.Tensor{images, tensor.New(tensor.Int64, 2)}, []string{"labels", "int64", "int32"}},
		{"exchanged", []tensor.Tensor{labels, images}, []string{"images"}},
		{"empty", []tensor.Tensor{{}, labels}, []string{"images"}},
	} {
		_, err := p.Run(context.Background(), c.inputs...)
		wantError(t, c.what, err, c.says...)
		wantVariable(t, vars, "w", before...)
	}
	run(t, p, images, labels)
	if slices.Equal(get(t, vars, "w"), before) {
		t.Error("after the mistakes a good run has no effect")
	}
}

// testLabels tests that a label that is no class is an error that tells which,
// and that nothing is updated.
func testLabels(t *testing.T, open func() engine.Engine) {
	e := open()
	defer e.Close()
	b := graph.NewBuilder()
	y := b.Input("labels", graph.Integer, 4)
	w := b.Variable("w", graph.VariableAttrs{})
	targets := b.OneHot(y, graph.OneHotAttrs{Classes: 7})
	b.Update(w, b.Add(w, b.Sum(targets)))
	vars := e.NewVariables()
	p := compile(t, e, build(t, b, targets), vars)
	defer p.Close()
	for _, c := range []struct {
		label int32
		says  string
	}{{7, "7"}, {-1, "-1"}, {math.MaxInt32, "2147483647"}, {math.MinInt32, "-2147483648"}} {
		_, err := p.Run(context.Background(), tensor.Of([]int32{0, 6, 1, c.label}, 4))
		wantError(t, "label "+c.says, err, "label", "3", c.says, "7") // where, what, of how many
		wantVariable(t, vars, "w", 0)
	}
	run(t, p, tensor.Of([]int32{0, 6, 5, 3}, 4))
	wantVariable(t, vars, "w", 4)
}

// countdown is a context that is cancelled when it has been asked a number of
// times, so that a run is stopped at every place where the engine looks.
type countdown struct {
	context.Context
	mu     sync.Mutex
	left   int
	cancel context.CancelFunc
}

func (c *countdown) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left < 0 {
		c.cancel()
	}
}

func (c *countdown) Err() error            { c.ask(); return c.Context.Err() }
func (c *countdown) Done() <-chan struct{} { c.ask(); return c.Context.Done() }

// testCancel tests that a run that is cancelled somewhere returns the context's
// error and updates nothing, and one that is not cancelled updates everything.
func testCancel(t *testing.T, open func() engine.Engine) {
	e := open()
	defer e.Close()
	net := forTraining(t, networks()[0], 3)
	vars := e.NewVariables()
	net.initialise(t, vars)
	p := compile(t, e, net.graph, vars)
	defer p.Close()
	images, labels := net.batch(0)

	snapshot := func() map[string][]float64 {
		s := map[string][]float64{}
		for _, name := range vars.Names() {
			s[name] = get(t, vars, name)
		}
		return s
	}
	stopped := 0
	for left := 0; ; left = left*3/2 + 1 {
		inner, cancel := context.WithCancel(context.Background())
		before := snapshot()
		_, err := p.Run(&countdown{Context: inner, left: left, cancel: cancel}, images, labels)
		cancel()
		after := snapshot()
		for name := range before {
			changed := !slices.Equal(before[name], after[name])
			if err != nil && changed {
				t.Errorf("cancelled after %d looks: variable %s was updated", left, name)
			}
			if err == nil && !changed {
				t.Errorf("finished after fewer than %d looks: variable %s was not updated", left, name)
			}
		}
		if err == nil {
			break
		}
		if stopped++; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d looks: error %v, want context.Canceled", left, err)
		}
		if left > 1e6 {
			t.Fatal("the run never ends")
		}
	}
	if stopped < 3 {
		t.Errorf("the engine looked at the context less than %d times in a run of %d nodes", stopped, len(net.graph.Nodes))
	}
}
