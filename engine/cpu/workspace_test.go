package cpu

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"weak"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// scoring is the inference program of a network on fixed random images.
type scoring struct {
	program *Program
	images  tensor.Tensor
}

func newScoring(t testing.TB, e *Engine, vars engine.Variables, c model.Config, batch int) *scoring {
	t.Helper()
	g, err := c.Graph(batch)
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.Compile(g, vars)
	if err != nil {
		t.Fatal(err)
	}
	s := &scoring{p.(*Program), tensor.New(tensor.Float32, g.Inputs[0].Shape...)}
	rng := random.New(uint64(batch))
	for i := range s.images.Float32s() {
		s.images.Float32s()[i] = float32(rng.Range(0, 1))
	}
	return s
}

func (s *scoring) run(t testing.TB) []float32 {
	t.Helper()
	out, err := s.program.Run(context.Background(), s.images)
	if err != nil {
		t.Fatal(err)
	}
	return out[0].Float32s()
}

// Programs that take turns share one arena and compute what each computes on an
// engine of its own; an output stays when others run.
func TestProgramsShareMemory(t *testing.T) { forEachVariant(t, testShareMemory) }

func testShareMemory(t *testing.T, o Options) {
	o.Threads = 2
	together, alone := open(t, o), open(t, o)
	trained, want := newTraining(t, together, small, 7), newTraining(t, alone, small, 7)
	large, little := newScoring(t, together, trained.vars, small, 9), newScoring(t, together, trained.vars, small, 2)
	for round := range 3 {
		trained.step(t)
		want.step(t)
		// What was copied to another engine, which does nothing but score.
		fresh := open(t, o)
		vars := fresh.NewVariables()
		for _, name := range want.vars.Names() {
			v, err := want.vars.Get(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := vars.Set(name, v); err != nil {
				t.Fatal(err)
			}
		}
		var kept [][]float32
		for _, s := range []*scoring{large, large, little, large, little} {
			got := s.run(t)
			if &s.program.arena[0] != &together.shared.arena[0] {
				t.Fatal("a program has an arena of its own")
			}
			judge := newScoring(t, fresh, vars, small, s.images.Shape()[0]).run(t)
			if !slices.Equal(got, judge) {
				t.Fatalf("round %d, %d images: logits %v, want %v", round, s.images.Shape()[0], got, judge)
			}
			kept = append(kept, got, judge)
		}
		got := trained.bits(t, trained.step(t))
		if i := firstDifference(got, want.bits(t, want.step(t))); i >= 0 {
			t.Fatalf("round %d: element %d differs after others have used the memory", round, i)
		}
		if &trained.program.arena[0] != &together.shared.arena[0] || large.program.arena != nil || little.program.arena != nil {
			t.Fatal("not the last program alone has the arena")
		}
		for i := 0; i < len(kept); i += 2 {
			if !slices.Equal(kept[i], kept[i+1]) {
				t.Errorf("round %d: output %d was overwritten", round, i/2)
			}
		}
	}
}

// Packed weights of an engine that trains last until another program runs; of one
// that does not, until the weights change.
func TestPanelsLast(t *testing.T) {
	for _, train := range []bool{true, false} {
		e := open(t, Options{Threads: 1})
		vars := e.NewVariables()
		if train {
			vars = newTraining(t, e, small, 3).vars
		}
		a, b := newScoring(t, e, vars, small, 2), newScoring(t, e, vars, small, 3)
		prepared := 0
		for i := range a.program.preparations {
			r := &a.program.preparations[i]
			body := r.body
			r.body = func(worker, task int) {
				if task == 0 {
					prepared++
				}
				body(worker, task)
			}
		}
		all := len(a.program.preparations)
		if all == 0 {
			t.Fatal("nothing is prepared")
		}
		want := 0
		for i, s := range []*scoring{a, a, b, a, a} {
			if s.run(t); i == 0 || i == 3 && train {
				want += all
			}
			if prepared != want {
				t.Fatalf("trains %v: %d preparations after run %d, want %d", train, prepared, i, want)
			}
		}
	}
}

// An arena that a program has outgrown is given up, though others have run in it.
func TestOutgrownArenaIsGivenUp(t *testing.T) {
	for _, precision := range []string{"float32", "bfloat16"} {
		e := open(t, Options{Threads: 1, Precision: precision})
		trained := newTraining(t, e, small, 3)
		trained.step(t)
		old := weak.Make(&e.shared.arena[0])
		large := newTraining(t, e, small, 9)
		runtime.GC()
		if old.Value() != nil {
			t.Errorf("%s: the smaller arena is still there", precision)
		}
		large.step(t)
		trained.step(t)
	}
}

// The memory goes with the last program, and a new one gets new memory.
func TestWorkspaceIsGivenUp(t *testing.T) {
	e := open(t, Options{Threads: 1})
	vars := newTraining(t, open(t, Options{Threads: 1}), small, 3).vars // trained elsewhere
	a, b := newScoring(t, e, vars, small, 2), newScoring(t, e, vars, small, 20)
	if len(e.shared.arena) != b.program.need.arena {
		t.Errorf("an arena of %d, want %d, the larger program's", len(e.shared.arena), b.program.need.arena)
	}
	for _, s := range a.program.placed { // or the first arena would be there still, beside the larger one
		if a.program.arena != nil || a.program.mem[s.slot] != nil {
			t.Fatal("the smaller program holds memory that it has no more")
		}
	}
	before := slices.Clone(a.run(t))
	for range 2 { // closing twice counts once
		if err := b.program.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(a.run(t), before) || before[0] == before[1] {
		t.Errorf("logits %v, before the other program was closed %v", a.run(t), before)
	}
	if err := a.program.Close(); err != nil {
		t.Fatal(err)
	}
	if e.shared.arena != nil || e.shared.scratch != nil || e.shared.partials != nil {
		t.Error("memory is kept for no program")
	}
	if got := newScoring(t, e, vars, small, 2).run(t); !slices.Equal(got, before) {
		t.Errorf("logits %v of a new program, want %v", got, before)
	}
}
