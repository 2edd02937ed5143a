package train

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/optim"
)

// unreadable are stripes of which one cannot be read for a while.
type unreadable struct {
	stripes
	bad *atomic.Int64 // its index; -1: none
}

func (u unreadable) Image(i int, dst *dataset.Image) error {
	if int64(i) == u.bad.Load() {
		return errors.New("planted")
	}
	return u.stripes.Image(i, dst)
}

// A picture that cannot be read ends a run in the middle of an update. What is saved
// is what was before that update, moving statistics too: going on gives the bits of a
// run in one piece.
func TestUnreadableWithinAnUpdate(t *testing.T) {
	c := testConfig()
	c.Accumulate, c.Epochs = 2, 2
	whole := newTrainer(t, c, newRun(t, c), nil)
	if err := whole.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	data := unreadable{72, new(atomic.Int64)}
	run := newRun(t, c)
	begin := func() *Trainer {
		fit, err := loader.New(data, loader.Options{BatchSize: c.BatchSize, Shuffle: true, Seed: c.Seed, Preprocess: c.Preprocess})
		if err != nil {
			t.Fatal(err)
		}
		trainer, err := New(c, newEngine(t), fit, whole.val, run, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { trainer.Close() })
		return trainer
	}
	broken := begin()
	data.bad.Store(int64(broken.fit.Order(0)[3*c.BatchSize])) // in the second batch of the second update
	if err := broken.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "planted") || broken.at.GlobalStep != 1 {
		t.Fatalf("error %v after %d updates, want the planted one after 1", err, broken.at.GlobalStep)
	}
	data.bad.Store(-1)
	again := begin()
	if err := again.Resume(); err != nil {
		t.Fatal(err)
	}
	if again.at.GlobalStep != 1 {
		t.Fatalf("going on after %d updates, want 1", again.at.GlobalStep)
	}
	if err := again.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := weights(t, whole.vars)
	for name, got := range weights(t, again.vars) {
		if !slices.Equal(got, want[name]) {
			t.Errorf("%s differs from that of a run in one piece", name)
		}
	}
}

// With --on-save-error continue, a line of history.csv that could not be written comes
// with the next one that can.
func TestHistoryThatCouldNotBeWritten(t *testing.T) {
	c := testConfig()
	c.OnSaveError, c.Epochs = KeepTraining, 4
	run := newRun(t, c)
	inTheWay := filepath.Join(run.Path(), "history.csv")
	if err := os.Mkdir(inTheWay, 0o777); err != nil {
		t.Fatal(err)
	}
	failed := 0
	trainer := newTrainer(t, c, run, func(e Event) {
		switch e := e.(type) {
		case SaveFailed:
			failed++
		case EpochEnded:
			if e.Row.Epoch == 2 {
				if err := os.Remove(inTheWay); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	history, err := run.History()
	if err != nil || failed != 2 || len(history) != 4 {
		t.Fatalf("%d failures, history of %d epochs, %v; want 2 and 4", failed, len(history), err)
	}
	for i, e := range history {
		if e != trainer.History()[i] {
			t.Errorf("epoch %d is %+v, want %+v", i+1, e, trainer.History()[i])
		}
	}
}

// The result is the best of the checkpoints that are there: that of a better epoch may
// not have been saved.
func TestResultThatWasSaved(t *testing.T) {
	c := testConfig()
	c.Data.Validation, c.KeepBest, c.Keep, c.EMA = "validation", true, 3, 0.5
	c.EarlyStop = EarlyStop{Patience: 9, RestoreBest: true}
	run := newRun(t, c)
	trainer := newTrainer(t, c, run, nil)
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	weightsOf := func(epoch int) string {
		if e := trainer.History()[epoch-1]; e.ValLoss < e.EMA.ValLoss {
			return RawWeights
		}
		return EMAWeights
	}
	if got, want := trainer.Result(), (Result{"best", trainer.at.Watch.Weights, trainer.at.Watch.Epoch}); got != want {
		t.Errorf("the result is %+v, want %+v", got, want)
	}
	for epoch, name := range map[int]string{1: "epoch-0001", 2: "epoch-0002"} {
		if err := run.NameCheckpoint(name, bestCheckpoint); err != nil {
			t.Fatal(err)
		}
		if got, want := trainer.Result(), (Result{"best", weightsOf(epoch), epoch}); got != want {
			t.Errorf("best is epoch %d: the result is %+v, want %+v", epoch, got, want)
		}
	}
	if err := run.Drop(bestCheckpoint); err != nil {
		t.Fatal(err)
	}
	if got, want := trainer.Result(), (Result{"last", weightsOf(3), 3}); got != want {
		t.Errorf("without a best: the result is %+v, want %+v", got, want)
	}
}

// A time budget that is spent in the middle of an epoch leaves one update, which ends
// it as other epochs end: with lookahead's slow weights.
func TestBudgetEndsWithTheSlowWeights(t *testing.T) {
	c := testConfig()
	c.Optimizer.Lookahead = optim.Lookahead{Every: 4, Keep: 0.5}
	c.MaxTime = time.Nanosecond
	trainer := newTrainer(t, c, nil, nil)
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if trainer.at.GlobalStep >= 10 || !trainer.at.Slow {
		t.Fatalf("%d updates, slow weights: %v; want fewer than two epochs' 10, true", trainer.at.GlobalStep, trainer.at.Slow)
	}
	all := weights(t, trainer.vars)
	slow := maps.Collect(maps.All(all))
	maps.DeleteFunc(slow, func(name string, _ []uint32) bool { return !strings.HasPrefix(name, optim.SlowPrefix) })
	if len(slow) == 0 {
		t.Fatal("there are no slow weights")
	}
	for name, want := range slow {
		if name = strings.TrimPrefix(name, optim.SlowPrefix); !slices.Equal(all[name], want) {
			t.Errorf("%s is not what its slow weights are", name)
		}
	}
}
