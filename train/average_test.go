package train

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/tensor"
)

// The history has the scores of both sets of weights, a checkpoint has both, and
// the result is the one that validates better.
func TestMovingAverage(t *testing.T) {
	c := testConfig()
	c.EMA, c.Data.Validation, c.KeepBest = 0.9, "validation", true
	run := newRun(t, c)
	trainer := newTrainer(t, c, run, nil)
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	history, err := run.History()
	if err != nil || len(history) != 3 {
		t.Fatal(history, err)
	}
	last := history[2]
	if last.EMA == nil || last.EMA.ValLoss == last.ValLoss {
		t.Fatalf("the last epoch is %+v", last)
	}
	score := func(checkpoint string) float64 {
		eng := newEngine(t)
		vars := eng.NewVariables()
		if _, err := LoadWeights(run, checkpoint, c, vars); err != nil {
			t.Fatal(err)
		}
		e := NewEvaluator(c, eng, vars)
		defer e.Close()
		s, err := e.Run(t.Context(), trainer.val, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s.Loss
	}
	if got := score("last:raw"); got != last.ValLoss {
		t.Errorf("the raw weights score %v, the history has %v", got, last.ValLoss)
	}
	if got := score("last:ema"); got != last.EMA.ValLoss {
		t.Errorf("the moving average scores %v, the history has %v", got, last.EMA.ValLoss)
	}
	better := EMAWeights
	if last.ValLoss < last.EMA.ValLoss {
		better = RawWeights
	}
	if got, want := trainer.Result(), (Result{"last", better, 3}); got != want {
		t.Errorf("the result is %+v, want %+v", got, want)
	}
	// The best of six validations.
	best, which := math.Inf(1), ""
	for _, e := range history {
		for w, loss := range map[string]float64{RawWeights: e.ValLoss, EMAWeights: e.EMA.ValLoss} {
			if loss < best {
				best, which = loss, w
			}
		}
	}
	if w := trainer.at.Watch; w.Best != best || w.Weights != which {
		t.Errorf("the best is %v of %s, want %v of %s", w.Best, w.Weights, best, which)
	}
	lines, _, err := run.Follow().Poll()
	if err != nil || !strings.Contains(string(lines[len(lines)-1]), `"best_weights":"`+which+`"`) {
		t.Errorf("the last line of the metrics is %s, %v", lines[len(lines)-1], err)
	}

	// Without a result the average is meant, with one what it says.
	if got := score(""); got != last.EMA.ValLoss {
		t.Errorf("without a result the score is %v, want the average's %v", got, last.EMA.ValLoss)
	}
	for which, want := range map[string]float64{RawWeights: last.ValLoss, EMAWeights: last.EMA.ValLoss} {
		if err := run.WriteResult(Result{Checkpoint: "last", Weights: which}); err != nil {
			t.Fatal(err)
		}
		if got := score(""); got != want {
			t.Errorf("the result is %s: the score is %v, want %v", which, got, want)
		}
	}
	for _, bad := range []string{"last:half", "first:ema"} {
		if _, err := LoadWeights(run, bad, c, newEngine(t).NewVariables()); err == nil {
			t.Errorf("%s was loaded", bad)
		}
	}
	c.EMA = 0
	if _, err := LoadWeights(run, "last:ema", c, newEngine(t).NewVariables()); err == nil || !strings.Contains(err.Error(), "keeps no moving average") {
		t.Errorf("error %v", err)
	}
}

// Where validation may choose nothing, the result is the average.
func TestResultWithoutChoice(t *testing.T) {
	worse := rundir.History{{ValLoss: 1, EMA: &rundir.Scores{ValLoss: 2}}}
	for validation, want := range map[string]string{"test": EMAWeights, "validation": RawWeights} {
		c := testConfig()
		c.EMA, c.Data.Validation = 0.9, validation
		trainer := &Trainer{config: c, history: worse, val: new(loader.Loader)}
		if got := trainer.Result(); got.Weights != want {
			t.Errorf("validated on %s: the result is %+v, want %s", validation, got, want)
		}
	}
}

// A batch in the middle of an update that is not finite takes nothing along: the
// moving statistics that the batches before it have moved go back.
func TestNonFiniteWithinAnUpdate(t *testing.T) {
	c := testConfig()
	c.Accumulate = 2
	for _, bad := range []int{0, 1, 4} { // the first, the last of an update, an update of one batch
		run := newRun(t, c)
		trainer := newTrainer(t, c, run, nil)
		order := trainer.fit.Order(0)
		var before map[string][]uint32
		updates := bad / 2
		seen := 0
		trainer.observe = func(e Event) {
			if _, ok := e.(Stepped); ok {
				seen++
			}
		}
		u := (*update)(nil)
		batch := 0
		var failed error
		for b, err := range trainer.fit.Batches(t.Context(), 0, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if u == nil {
				u = trainer.newUpdate(batch)
				if seen == updates {
					before = weights(t, trainer.vars)
				}
			}
			if batch == bad { // a loader cannot make a NaN, so the batch is spoiled on its way
				b.Weights = tensor.Of(slices.Repeat([]float32{float32(math.NaN())}, len(b.Indices)), len(b.Indices))
			}
			if failed = trainer.step(u, b, batch); failed != nil {
				break
			}
			if batch++; batch == u.end {
				u = nil
			}
		}
		if failed == nil || !strings.Contains(failed.Error(), "the step was not applied") || seen != updates {
			t.Fatalf("batch %d: error %v after %d updates, want %d", bad, failed, seen, updates)
		}
		after := weights(t, trainer.vars)
		for name, w := range before {
			if !slices.Equal(after[name], w) {
				t.Errorf("batch %d: %s has changed", bad, name)
			}
		}
		capsules, err := filepath.Glob(filepath.Join(run.Path(), "capsule-*"))
		if err != nil || len(capsules) != 1 {
			t.Fatal(capsules, err)
		}
		recorded, _, first, err := Replay(capsules[0], opens(t, "float32"))
		if err != nil || first == nil || recorded.Batch != bad+1 || !slices.Equal(recorded.Indices, order[16*bad:min(72, 16*bad+16)]) {
			t.Errorf("batch %d: the capsule has batch %d with %v, first %v: %v", bad, recorded.Batch, recorded.Indices, first, err)
		}
	}
}
