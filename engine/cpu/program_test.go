package cpu

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/tensor"
)

// training is a training step of a network with Adam on fixed random images.
type training struct {
	engine  *Engine
	vars    engine.Variables
	program *Program
	inputs  []tensor.Tensor
}

func newTraining(t testing.TB, e *Engine, c model.Config, batch int) *training {
	t.Helper()
	b := graph.NewBuilder()
	images := b.Input("images", graph.Real, batch, c.Height, c.Width, c.Channels)
	labels := b.Input("labels", graph.Integer, batch)
	net := c.Build(b, images, true)
	loss := b.Mean(b.CrossEntropy(net.Logits, b.OneHot(labels, graph.OneHotAttrs{Classes: c.Classes})))
	loss = b.Add(loss, b.Scale(b.SumSquares(net.Kernel), 0.01))
	parameters := b.Variables(graph.Parameter)
	adam, err := optim.Named("adam")
	if err != nil {
		t.Fatal(err)
	}
	adam.Apply(b, parameters, b.Gradients(loss, parameters...), optim.Groups{})
	b.Guard(loss)
	g, err := b.Build(loss, net.Logits)
	if err != nil {
		t.Fatal(err)
	}

	tr := &training{engine: e, vars: e.NewVariables()}
	for _, v := range g.Variables {
		if err := tr.vars.Set(v.Name, model.Initial(v, 1)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := e.Compile(g, tr.vars)
	if err != nil {
		t.Fatal(err)
	}
	tr.program = p.(*Program)
	t.Cleanup(func() { _ = p.Close() })

	rng := random.New(7)
	x, y := tensor.New(tensor.Float32, images.Shape...), tensor.New(tensor.Int32, batch)
	for i := range x.Float32s() {
		x.Float32s()[i] = float32(rng.Range(0, 1))
	}
	for i := range y.Int32s() {
		y.Int32s()[i] = int32(i % c.Classes)
	}
	tr.inputs = []tensor.Tensor{x, y, tensor.Scalar(1e-3)}
	return tr
}

func (tr *training) step(t testing.TB) []tensor.Tensor {
	t.Helper()
	out, err := tr.program.Run(context.Background(), tr.inputs...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// bits returns every variable and the last outputs as bit patterns.
func (tr *training) bits(t testing.TB, out []tensor.Tensor) []uint32 {
	t.Helper()
	var bits []uint32
	add := func(x tensor.Tensor) {
		for _, v := range x.Float32s() {
			bits = append(bits, math.Float32bits(v))
		}
	}
	for _, o := range out {
		add(o)
	}
	for _, name := range tr.vars.Names() {
		v, err := tr.vars.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		add(v)
	}
	return bits
}

// small has a projection, odd sizes and tails everywhere.
var small = model.Config{Name: "small", Convention: model.Keras, Height: 10, Width: 13, Channels: 3, Classes: 7,
	Stem: model.SmallStem, Block: model.Basic, Shortcut: model.Projection, Blocks: []int{1, 1}, Filters: 20}

func TestSameBitsForAnyNumberOfThreads(t *testing.T) { forEachVariant(t, testSameBits) }

// forEachVariant runs a test for each way to convolve.
func forEachVariant(t *testing.T, test func(t *testing.T, o Options)) {
	for _, o := range []Options{{Winograd: "off"}, {Winograd: "on"}, {Winograd: "on-4x4"}, {Precision: "bfloat16", Winograd: "off"}, {Precision: "bfloat16", Winograd: "on"}, {Precision: "bfloat16", Winograd: "on-4x4"}, {Precision: "bfloat16", Winograd: "on-4x4-bfloat16"}} {
		t.Run(fmt.Sprintf("winograd=%s,precision=%s", o.Winograd, o.Precision), func(t *testing.T) { test(t, o) })
	}
}

func testSameBits(t *testing.T, o Options) {
	var want []uint32
	for _, threads := range []int{1, 2, 3, 8} {
		o.Threads = threads
		tr := newTraining(t, open(t, o), small, 7)
		var out []tensor.Tensor
		for range 3 {
			out = tr.step(t)
		}
		got := tr.bits(t, out)
		if want == nil {
			want = got
			if loss := out[0].Float32s()[0]; !finite(loss) || loss == 0 {
				t.Fatalf("loss = %v", loss)
			}
		}
		if i := firstDifference(got, want); i >= 0 {
			t.Errorf("%d threads: element %d of %d has bits %#x, want %#x", threads, i, len(want), got[i], want[i])
		}
	}
}

func firstDifference(a, b []uint32) int {
	if len(a) != len(b) {
		return 0
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// A run computes everything it reads: old contents of the arena, scratch and
// partial sums, here NaN, change nothing.
func TestRunIgnoresOldMemory(t *testing.T) { forEachVariant(t, testIgnoresOldMemory) }

func testIgnoresOldMemory(t *testing.T, o Options) {
	o.Threads = 2
	clean, dirty := newTraining(t, open(t, o), small, 7), newTraining(t, open(t, o), small, 7)
	for range 2 {
		p := dirty.program
		nan := float32(math.NaN())
		fill(p.arena, nan)
		fill(p.partials, nan)
		for _, s := range p.scratch {
			fill(s, nan)
		}
		want, got := clean.bits(t, clean.step(t)), dirty.bits(t, dirty.step(t))
		if i := firstDifference(got, want); i >= 0 {
			t.Fatalf("element %d of %d has bits %#x, want %#x", i, len(want), got[i], want[i])
		}
	}
}

// Parameters and moments have one copy: each is updated where it lies, by a loop
// that comes after all that a run can fail of.
func TestUpdatesInPlace(t *testing.T) {
	p := newTraining(t, open(t, Options{Threads: 1}), small, 7).program
	adam, parameters := 0, 0
	for _, s := range p.steps[p.commit:] {
		if strings.Contains(s.name, "sqrt") {
			adam++
		}
	}
	for _, v := range p.graph.Variables {
		switch v.Variable.Role {
		case graph.Parameter:
			parameters++
			fallthrough
		case graph.State:
			if slices.Contains(stepNames(p), "copy "+v.Name) {
				t.Errorf("the new value of %s is copied", v.Name)
			}
		}
	}
	if adam != parameters || adam == 0 {
		t.Errorf("%d loops update %d parameters", adam, parameters)
	}
}

// A panic in the midst of the updates leaves variables that nobody gets.
func TestHalfAnUpdate(t *testing.T) {
	for _, when := range []string{"before", "in"} {
		tr := newTraining(t, open(t, Options{Threads: 2}), small, 7)
		tr.step(t)
		want, p := tr.bits(t, nil), tr.program
		at := p.commit - 1
		if when == "in" {
			at = p.commit + 3
		}
		p.steps[at].body = func(_, _ int) { panic("a fault") }
		if _, err := p.Run(context.Background(), tr.inputs...); err == nil || !strings.Contains(err.Error(), "a fault") {
			t.Fatalf("%s the updates: error %v", when, err)
		}
		name := tr.vars.Names()[0]
		if when == "before" {
			if i := firstDifference(tr.bits(t, nil), want); i >= 0 {
				t.Errorf("element %d was updated", i)
			}
			continue
		}
		value, err := tr.vars.Get(name)
		if err == nil {
			t.Error("half an update can be read")
		}
		_, runErr := p.Run(context.Background(), tr.inputs...)
		for what, err := range map[string]error{"get": err, "set": tr.vars.Set(name, value), "run": runErr} {
			if err == nil {
				t.Errorf("%s: no error", what)
			}
		}
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	forEachVariant(t, testAllocatesNothing)
}

func testAllocatesNothing(t *testing.T, o Options) {
	for threads := 1; threads <= 3; threads++ {
		o.Threads = threads
		tr := newTraining(t, open(t, o), small, 5)
		ctx := context.Background()
		if n := testing.AllocsPerRun(5, func() {
			if _, err := tr.program.Run(ctx, tr.inputs...); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%d threads: a run allocates %v times", threads, n)
		}
	}
}

// What Plan says of a training step: its convolutions and their layouts, an update of each
// parameter by one kernel, and bytes that the arena has room for.
func TestProgramPlan(t *testing.T) {
	for _, o := range []Options{{Threads: 1}, {Threads: 1, Precision: "bfloat16"}, {Threads: 1, Winograd: "off"}} {
		p := newTraining(t, open(t, o), small, 7).program
		preparations, steps := p.Plan()
		if len(preparations) != 0 || len(steps) != len(p.steps) {
			t.Fatalf("%d preparations and %d steps, want 0 and %d", len(preparations), len(steps), len(p.steps))
		}
		maps := "float32"
		if o.Precision != "" {
			maps = o.Precision
		}
		made, most, adam := map[string]int{}, 0, 0
		for _, s := range steps {
			if s.Live < 0 || s.Live > p.ArenaBytes() {
				t.Errorf("%s: %d bytes are live of %d", s.Name, s.Live, p.ArenaBytes())
			}
			most = max(most, s.Live)
			writes := 0
			for _, v := range s.Makes {
				made[v.Name]++
				writes += v.Bytes
			}
			if s.Writes != writes || s.Kernel == "" || s.Tasks < 1 {
				t.Errorf("%+v: writes %d bytes", s, writes)
			}
			switch {
			case strings.HasSuffix(s.Kernel, " adam"):
				adam++
				// Parameter, two averages and the gradient are read, three are written.
				if len(s.Makes) != 3 || s.Reads < s.Writes/3*4 {
					t.Errorf("%+v: want three values made, and four read", s)
				}
			case s.Name == "conv conv1", strings.HasPrefix(s.Name, "winograd") && strings.HasSuffix(s.Name, " conv conv1"):
				if want := maps + " NHWC [7,10,13,20]"; len(s.Makes) != 1 || s.Makes[0].Layout != want || !strings.Contains(s.Kernel, " products ") {
					t.Errorf("%+v: want %s made by products", s, want)
				}
			}
		}
		if most < p.ArenaBytes()*3/4 {
			t.Errorf("%d bytes are live at most, the arena has %d", most, p.ArenaBytes())
		}
		parameters := 0
		for _, n := range p.graph.Variables {
			if n.Variable.Role == graph.Parameter {
				parameters++
			}
			if n.Variable.Role != graph.Fixed && made[n.Name] != 1 {
				t.Errorf("%s is made %d times", n.Name, made[n.Name])
			}
		}
		if adam != parameters || adam == 0 {
			t.Errorf("%d kernels of Adam for %d parameters", adam, parameters)
		}
	}
}

// What Plan says of inference: preparations that make what convolutions read, and a result that
// takes the place of what was added to it.
func TestProgramPlanInference(t *testing.T) {
	g, err := small.Graph(3)
	if err != nil {
		t.Fatal(err)
	}
	e := open(t, Options{Threads: 1, Winograd: "off"})
	p := compileFor(t, e, g, e.NewVariables()).(*Program)
	defer p.Close()
	preparations, steps := p.Plan()
	byName := map[string]Step{}
	for _, s := range slices.Concat(preparations, steps) {
		byName[s.Name] = s
	}
	const maps = 4 * 3 * 10 * 13 * 20 // bytes of the first block's feature maps
	const rows, kernel = 3 * 3 * 20, 4 * 3 * 3 * 20 * 20
	cols := e.kernels.ConvTileFor(20).Cols
	panels := (20 + cols - 1) / cols
	packed := 4 * panels * rows * cols
	for name, want := range map[string]Step{
		"fold batch_norm layer1.0.bn2": {Reads: 4 * 4 * 20, Writes: 2 * 4 * 20},
		"pack conv layer1.0.conv2":     {Reads: kernel + 4*20, Writes: packed, Makes: []Value{{Layout: fmt.Sprintf("float32 panels [%d,%d,%d]", panels, rows, cols)}}},
		"conv layer1.0.conv2 batch_norm add relu": {Reads: 2*maps + packed + 4*20, Writes: maps,
			Makes: []Value{{Name: "relu layer1.0.relu2", Layout: "float32 NHWC [3,10,13,20]"}}},
		"softmax softmax": {Reads: 4 * 3 * 7, Writes: 4 * 3 * 7, Makes: []Value{{Name: "softmax softmax", Layout: "float32 [3,7]"}}},
	} {
		got, ok := byName[name]
		if !ok {
			t.Fatalf("no step %q in %q and %q", name, preparationNames(p), stepNames(p))
		}
		if got.Reads != want.Reads || got.Writes != want.Writes {
			t.Errorf("%s: reads %d bytes and writes %d, want %d and %d", name, got.Reads, got.Writes, want.Reads, want.Writes)
		}
		if want.Makes != nil && (len(got.Makes) != 1 || got.Makes[0].Name != want.Makes[0].Name || got.Makes[0].Layout != want.Makes[0].Layout) {
			t.Errorf("%s: makes %+v, want %+v", name, got.Makes, want.Makes)
		}
	}
	if kernel := byName["softmax softmax"].Kernel; kernel != p.Kernels()["softmax"] {
		t.Errorf("softmax by %q, want %q", kernel, p.Kernels()["softmax"])
	}
}

// The plan fuses what it promises: an update per parameter is one loop, batch
// normalisation and ReLU are one, and so are the sums of its backward pass.
func TestPlan(t *testing.T) {
	tr := newTraining(t, open(t, Options{Threads: 1}), small, 7)
	steps := stepNames(tr.program)
	count := func(parts ...string) int {
		n := 0
		for _, s := range steps {
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(s, p) }) {
				n++
			}
		}
		return n
	}
	parameters := 0
	for _, v := range tr.program.graph.Variables {
		if v.Variable.Role == graph.Parameter {
			parameters++
		}
	}
	if got := count("sqrt", "div", "loop of"); got != parameters {
		t.Errorf("%d loops update parameters, want one for each of %d", got, parameters)
	}
	if got := count("loop of", " batch_norm ", " relu"); got != 5 { // conv1; conv1 and conv2 of two blocks
		t.Errorf("%d loops normalise and apply ReLU, want 5", got)
	}
	if got := count("relu_backward", "batch_norm_backward_scale", "sum_channels"); got != 5 {
		t.Errorf("%d loops hold ReLU's backward pass and the sums of batch normalisation's, want 5", got)
	}
	for _, op := range []string{"conv", "conv_backward_data", "conv_backward_weights", "matmul"} {
		if got := tr.program.Kernels()[op]; !strings.Contains(got, "igemm") {
			t.Errorf("%s runs as %q", op, got)
		}
	}
	if t.Failed() {
		t.Log("steps:\n" + strings.Join(steps, "\n"))
	}
}

// Values share memory: a deep network's arena is smaller than all its values.
func TestArenaIsShared(t *testing.T) {
	tr := newTraining(t, open(t, Options{Threads: 1}), small, 7)
	total := 0
	for _, n := range tr.program.graph.Nodes {
		total += 4 * n.Shape.Elements()
	}
	if got := tr.program.ArenaBytes(); got > total*2/3 {
		t.Errorf("arena of %d bytes for values of %d", got, total)
	}
}

// A trace has an event for each step, with all its tasks, in order of time; it
// ends where it is full, and changes no number.
func TestTrace(t *testing.T) {
	e := open(t, Options{Threads: 3})
	plain, traced := newTraining(t, e, small, 7), newTraining(t, e, small, 7)
	want := plain.bits(t, plain.step(t))
	e.StartTrace(100000)
	got := traced.bits(t, traced.step(t))
	var file bytes.Buffer
	if err := e.StopTrace(&file); err != nil {
		t.Fatal(err)
	}
	if i := firstDifference(got, want); i >= 0 {
		t.Errorf("element %d differs with a trace", i)
	}
	var trace struct {
		TraceEvents []struct {
			Name    string
			TS, Dur float64
			TID     int
			Args    struct{ Tasks int }
		}
	}
	if err := json.Unmarshal(file.Bytes(), &trace); err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, s := range traced.program.steps {
		tasks, end := 0, 0.0
		for tasks < s.tasks && i < len(trace.TraceEvents) {
			v := trace.TraceEvents[i]
			if v.Name != s.name || v.TS < end || v.Dur < 0 || v.TID < 0 || v.TID >= 3 {
				t.Fatalf("event %d is %+v, want one of step %q", i, v, s.name)
			}
			tasks += v.Args.Tasks
			i++
		}
		if tasks != s.tasks {
			t.Fatalf("step %q has %d tasks in the trace, want %d", s.name, tasks, s.tasks)
		}
	}
	if i != len(trace.TraceEvents) {
		t.Errorf("%d events, want %d", len(trace.TraceEvents), i)
	}

	e.StartTrace(10)
	traced.step(t)
	file.Reset()
	if err := e.StopTrace(&file); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(file.Bytes(), &trace); err != nil {
		t.Fatal(err)
	}
	if n := len(trace.TraceEvents); n == 0 || n > 10 {
		t.Errorf("%d events, want at most 10", n)
	}
	file.Reset()
	if err := e.StopTrace(&file); err != nil || !strings.Contains(file.String(), `"traceEvents":[]`) {
		t.Errorf("without a trace: %v, %s", err, &file)
	}
}

// Weights that a program does not update are packed again only after they change.
func TestEvaluationSeesNewWeights(t *testing.T) {
	forEachVariant(t, testNewWeights)
}

func testNewWeights(t *testing.T, o Options) {
	o.Threads = 2
	e := open(t, o)
	b := graph.NewBuilder()
	x := b.Input("x", graph.Real, 1, 2, 2, 1)
	w := b.Variable("w", graph.VariableAttrs{}, 3, 3, 1, 1)
	g, err := b.Build(b.Conv(x, w, graph.ConvAttrs{Stride: 1, Pad: graph.SymmetricPadding(1)}))
	if err != nil {
		t.Fatal(err)
	}
	vars := e.NewVariables()
	p, err := e.Compile(g, vars)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []float32{2, 3, -1} {
		if err := vars.Set("w", tensor.Of([]float32{0, 0, 0, 0, v, 0, 0, 0, 0}, 3, 3, 1, 1)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			out, err := p.Run(context.Background(), tensor.Of([]float32{1, 2, 3, 4}, 1, 2, 2, 1))
			if err != nil {
				t.Fatal(err)
			}
			allowed := float32(0)
			if e.winograd == winogradOnPairs { // rounds what it transforms
				allowed = 0.1
			}
			if got := out[0].Float32s(); !(max(got[3]-4*v, 4*v-got[3]) <= allowed) {
				t.Errorf("w = %v: y = %v", v, got)
			}
		}
	}
}

// A mistake inside a kernel is an error of Run, not the end of the program.
func TestPanicBecomesError(t *testing.T) {
	for _, threads := range []int{1, 3} {
		tr := newTraining(t, open(t, Options{Threads: threads}), small, 5)
		before := tr.bits(t, nil)
		s := &tr.program.steps[len(tr.program.steps)/2]
		body := s.body
		s.body = func(_, _ int) { panic("planted") }
		_, err := tr.program.Run(context.Background(), tr.inputs...)
		if err == nil || !strings.Contains(err.Error(), "cpu: internal error") || !strings.Contains(err.Error(), "planted") {
			t.Fatalf("error %v", err)
		}
		if i := firstDifference(tr.bits(t, nil), before); i >= 0 {
			t.Errorf("the failed run changed variables")
		}
		s.body = body
		tr.step(t) // and the engine still works
	}
}

// What cannot run is an error of Compile, before memory of its size is asked for.
func TestCompileRefuses(t *testing.T) {
	e := open(t, Options{Threads: 1})
	sumOf := func(build func(b *graph.Builder) *graph.Node) *graph.Graph {
		b := graph.NewBuilder()
		g, err := b.Build(b.Sum(build(b)))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	conv := func(pass graph.Op, size, channels, kernel int) *graph.Graph {
		return sumOf(func(b *graph.Builder) *graph.Node {
			attrs := graph.ConvAttrs{Stride: 1, Pad: graph.SymmetricPadding(kernel / 2)}
			x := b.Input("x", graph.Real, 1, size, size, channels)
			w := b.Input("w", graph.Real, kernel, kernel, channels, channels)
			switch pass {
			case graph.OpConvBackwardData:
				return b.ConvBackwardData(x, w, x, attrs)
			case graph.OpConvBackwardWeights:
				return b.ConvBackwardWeights(x, x, w, attrs)
			}
			return b.Conv(x, w, attrs)
		})
	}
	pool := func(b *graph.Builder) (x, y *graph.Node) {
		x = b.Input("x", graph.Real, 1, 2, 2, 1<<30)
		return x, b.MaxPool(x, graph.PoolAttrs{Size: 2, Stride: 2})
	}
	b := graph.NewBuilder()
	b.Input("x", graph.Real, 2)
	labels, err := b.Build(b.Input("labels", graph.Integer, 2))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const large = "too many for this engine"
	for _, c := range []struct {
		name string
		g    *graph.Graph
		want string
	}{
		{"forward", conv(graph.OpConv, 40000, 2, 1), large},
		{"backward data", conv(graph.OpConvBackwardData, 40000, 2, 1), large},
		{"backward weights", conv(graph.OpConvBackwardWeights, 40000, 2, 1), large},
		{"taps, forward", conv(graph.OpConv, 1<<14, 1, 3), large},
		{"taps, backward data", conv(graph.OpConvBackwardData, 1<<14, 1, 3), large},
		{"taps, backward weights", conv(graph.OpConvBackwardWeights, 1<<14, 1, 3), large},
		{"max pool", sumOf(func(b *graph.Builder) *graph.Node { _, y := pool(b); return y }), large},
		{"max pool backward", sumOf(func(b *graph.Builder) *graph.Node { x, y := pool(b); return b.Gradients(b.Sum(y), x)[0] }), large},
		{"integer output", labels, "integer"},
	} {
		if _, err := e.Compile(c.g, e.NewVariables()); err == nil || !strings.HasPrefix(err.Error(), "cpu: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one about %q", c.name, err, c.want)
		}
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 1<<20 {
		t.Errorf("%d bytes were allocated", after.TotalAlloc-before.TotalAlloc)
	}
	if _, err := e.Compile(labels, nil); err == nil || !strings.Contains(err.Error(), "NewVariables") {
		t.Errorf("no variables: error %v", err)
	}
}

// However many images a batch has, offsets are within some of them.
func TestManyImages(t *testing.T) {
	b := graph.NewBuilder()
	attrs := graph.ConvAttrs{Stride: 1, Pad: graph.SymmetricPadding(1)}
	x := b.Input("x", graph.Real, 1<<19, 16, 16, 1)
	w := b.Input("w", graph.Real, 3, 3, 1, 1)
	g, err := b.Build(b.Sum(b.ConvBackwardWeights(x, x, w, attrs)))
	if err != nil {
		t.Fatal(err)
	}
	e := open(t, Options{Threads: 1})
	if _, err := e.Compile(g, e.NewVariables()); err != nil {
		t.Error(err)
	}
}

func TestNew(t *testing.T) {
	if _, err := New(Options{Threads: -1}); err == nil || !strings.Contains(err.Error(), "-1 threads") {
		t.Errorf("-1 threads: error %v", err)
	}
	if _, err := New(Options{InstructionSet: "mmx"}); err == nil || !strings.Contains(err.Error(), `unknown instruction set "mmx"`) {
		t.Errorf("instruction set mmx: error %v", err)
	}
	if e := open(t, Options{Threads: 3, InstructionSet: "generic"}); e.Name() != "cpu/generic" || e.Threads() != 3 {
		t.Errorf("engine %s with %d threads", e.Name(), e.Threads())
	}
	if _, err := New(Options{Winograd: "yes"}); err == nil || !strings.Contains(err.Error(), `option Winograd is "yes", want one of auto, 2x2, 4x4-float32, on, on-4x4, on-4x4-bfloat16, off`) {
		t.Errorf("Winograd yes: error %v", err)
	}
	if _, err := New(Options{Precision: "half"}); err == nil || !strings.Contains(err.Error(), `precision "half" is unknown, want float32 or bfloat16`) {
		t.Errorf("precision half: error %v", err)
	}
	t.Setenv("RESIDUAL_WINOGRAD", "1")
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), `RESIDUAL_WINOGRAD is "1"`) {
		t.Errorf("RESIDUAL_WINOGRAD=1: error %v", err)
	}
	if e := open(t, Options{Winograd: "off"}); e.winograd != winogradOff { // the option comes first
		t.Errorf("RESIDUAL_WINOGRAD=1 and option off: mode %v", e.winograd)
	}
	t.Setenv("RESIDUAL_CPU", "mmx")
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "RESIDUAL_CPU") {
		t.Errorf("RESIDUAL_CPU=mmx: error %v", err)
	}
}

// BenchmarkTrainingStep is a whole step with Adam; the metric is images per second.
func BenchmarkTrainingStep(b *testing.B) {
	for _, name := range []string{"resnet20", "resnet18"} {
		for i := range 4 {
			batch, precision := []int{32, 128}[i/2], []string{"float32", "bfloat16"}[i%2]
			b.Run(fmt.Sprintf("%s/N=%d/%s", name, batch, precision), func(b *testing.B) {
				c, err := model.Named(name, model.Keras, 32, 32, 3, 10)
				if err != nil {
					b.Fatal(err)
				}
				tr := newTraining(b, open(b, Options{Precision: precision}), c, batch)
				tr.step(b)
				b.ResetTimer()
				start := cpuTime()
				for b.Loop() {
					tr.step(b)
				}
				b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "images/s")
				b.ReportMetric(float64(batch*b.N)/(cpuTime()-start).Seconds(), "images/cpu-s")
				b.ReportMetric(float64(tr.program.ArenaBytes())/(1<<20), "arena-MiB")
			})
		}
	}
}

// BenchmarkSteps shows where the processor time of a training step goes: -v
// prints the most expensive kinds of step.
func BenchmarkSteps(b *testing.B) {
	for i := range 6 {
		name, precision := []string{"resnet20", "resnet18", "resnet50"}[i/2], []string{"float32", "bfloat16"}[i%2]
		b.Run(name+"/"+precision, func(b *testing.B) {
			size, classes := 32, 10
			if name == "resnet50" {
				size, classes = 224, 1000
			}
			c, err := model.Named(name, model.Keras, size, size, 3, classes)
			if err != nil {
				b.Fatal(err)
			}
			tr := newTraining(b, open(b, Options{Precision: precision}), c, 32)
			defer profiled(b, tr.program)()
			b.ResetTimer()
			for b.Loop() {
				tr.step(b)
			}
		})
	}
}

// BenchmarkInference is the forward pass with folded batch normalisation; -v
// prints the most expensive steps.
func BenchmarkInference(b *testing.B) {
	for i := range 6 {
		batch, precision := []int{1, 32, 256}[i/2], []string{"float32", "bfloat16"}[i%2]
		b.Run(fmt.Sprintf("resnet18/N=%d/%s", batch, precision), func(b *testing.B) {
			c, err := model.Named("resnet18", model.Keras, 32, 32, 3, 10)
			if err != nil {
				b.Fatal(err)
			}
			g, err := c.Graph(batch)
			if err != nil {
				b.Fatal(err)
			}
			e := open(b, Options{Precision: precision})
			vars := e.NewVariables()
			for _, v := range g.Variables {
				if err := vars.Set(v.Name, model.Initial(v, 1)); err != nil {
					b.Fatal(err)
				}
			}
			p, err := e.Compile(g, vars)
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			x := tensor.New(tensor.Float32, g.Inputs[0].Shape...)
			fill(x.Float32s(), 0.5)
			run := func() {
				if _, err := p.Run(context.Background(), x); err != nil {
					b.Fatal(err)
				}
			}
			run()
			defer profiled(b, p.(*Program))()
			b.ResetTimer()
			start := cpuTime()
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(batch*b.N)/(cpuTime()-start).Seconds(), "images/cpu-s")
		})
	}
}

// profiled makes the steps of a program run on one thread and measures them.
// What it returns logs the most expensive kinds of step, of which a number of
// runs have been made by then: processor time, and the sum of the fastest times of
// their tasks, which other programs slow down less.
func profiled(b *testing.B, p *Program) (log func()) {
	type kind struct {
		name       string
		time, best time.Duration
	}
	kinds := map[string]*kind{}
	best := fastest(p)
	of := func(s *step) *kind {
		name, _, _ := strings.Cut(s.name, " layer")
		if len(p.updated) == 0 {
			name = s.name
		}
		if kinds[name] == nil {
			kinds[name] = &kind{name: name}
		}
		return kinds[name]
	}
	for i := range p.steps {
		s := &p.steps[i]
		body, k := s.body, of(s)
		s.body = func(_, _ int) {
			start := cpuTime()
			body(0, 0)
			k.time += cpuTime() - start
		}
	}
	return func() {
		var all time.Duration
		for i, d := range best() {
			of(&p.steps[i]).best += d
			all += d
		}
		b.Logf("fastest, all steps: %v", all.Round(time.Microsecond))
		most := slices.SortedFunc(maps.Values(kinds), func(x, y *kind) int { return int(y.best - x.best) })
		for _, k := range most[:min(len(most), 30)] {
			b.Logf("%10v, fastest %10v %s", (k.time / time.Duration(b.N)).Round(time.Microsecond), k.best.Round(time.Microsecond), k.name)
		}
	}
}
