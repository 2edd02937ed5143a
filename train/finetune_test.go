package train

import (
	"errors"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
)

// finetuneConfig begins with the weights of a run of one epoch, for other classes.
func finetuneConfig(t *testing.T) Config {
	source := testConfig()
	source.Epochs = 1
	run := newRun(t, source)
	if err := newTrainer(t, source, run, nil).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := testConfig()
	c.Classes, c.Seed = []string{"left", "up"}, 6
	var err error
	if c.Init, _, err = NewInit(run.Path(), c.Classes); err != nil {
		t.Fatal(err)
	}
	c.Freeze = &Freeze{Epochs: 1, LearningRate: 2e-3, Schedule: optim.Schedule{Name: "onecycle", Warmup: 0.99, Start: 0.04}}
	c.Optimizer, _ = optim.Named("adamw")
	c.Schedule = optim.Schedule{Name: "onecycle", Warmup: 0.3, Start: 0.2}
	c.LRMult = 100
	return c
}

// In the frozen epochs the dense layer alone changes; then everything does, the
// stem a hundredth as much as the dense layer; and the optimizer begins anew.
func TestFineTuning(t *testing.T) {
	c := finetuneConfig(t)
	c.Schedule = optim.Schedule{Name: "constant"}
	source, sourceConfig, err := Open(c.Init.Run)
	if err != nil {
		t.Fatal(err)
	}
	sourceVars := newEngine(t).NewVariables()
	if _, err := LoadWeights(source, "", sourceConfig, sourceVars); err != nil {
		t.Fatal(err)
	}
	trained := weights(t, sourceVars)

	run := newRun(t, c)
	trainer := newTrainer(t, c, run, nil)
	start := weights(t, trainer.vars)
	for name := range trained {
		if same := slices.Equal(trained[name], start[name]); same == model.InHead(name) {
			t.Errorf("%s: the weights of the other run are used: %v", name, same)
		}
	}
	// SGD's first step is rate·gradient: with Adam's it is the rate in every
	// element, whatever the gradient.
	largest := func(name string, before, after map[string][]uint32) (most float64) {
		for i := range before[name] {
			most = max(most, math.Abs(float64(math.Float32frombits(before[name][i])-math.Float32frombits(after[name][i]))))
		}
		return most
	}
	steps, changedStatistics := 0, 0
	var thawed map[string][]uint32
	trainer.observe = func(e Event) {
		switch e := e.(type) {
		case EpochEnded:
			if e.Row.Epoch != 1 {
				return
			}
			thawed = weights(t, trainer.vars)
			for name := range trained {
				if slices.Equal(thawed[name], start[name]) == model.InHead(name) {
					t.Errorf("after the frozen epoch: %s has changed: %v", name, model.InHead(name))
				}
			}
		case Stepped:
			if steps++; steps != 6 {
				return
			}
			after := weights(t, trainer.vars)
			for name := range trained {
				moved := largest(name, thawed, after)
				if strings.Contains(name, "running_") {
					if moved > 0 {
						changedStatistics++
					}
					continue
				}
				// Two stages: depths 0 to 3. AdamW's decay adds 1 % of the rate at most.
				want := 1e-3 * math.Pow(100, float64(c.Model.Depth(name))/3-1)
				if moved < 0.7*want || moved > 1.03*want {
					t.Errorf("%s: the first step after the frozen epoch is %.3g, want %.3g", name, moved, want)
				}
			}
		}
	}
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if changedStatistics == 0 {
		t.Error("no moving statistics changed after the frozen epoch")
	}

	// The directory is enough to begin once more, and another run's new weights
	// would be noticed.
	if err := os.Rename(c.Init.Run, c.Init.Run+"-away"); err != nil {
		t.Fatal(err)
	}
	again := newTrainer(t, c, run, nil)
	if got := weights(t, again.vars); !maps.EqualFunc(got, start, slices.Equal) {
		t.Error("beginning again from the run's own directory gives other weights")
	}
	c.Init.Run, c.Init.Checkpoint, c.Init.SHA256 = run.Path(), lastCheckpoint, strings.Repeat("0", 64)
	fresh := newRun(t, c)
	if _, err := New(c, newEngine(t), trainer.fit, nil, fresh, nil); err == nil || !strings.Contains(err.Error(), "have changed: their SHA-256 is") {
		t.Errorf("error %v", err)
	}
}

// With the same classes the dense layer is the other run's too.
func TestSameClassesKeepTheHead(t *testing.T) {
	c := finetuneConfig(t)
	_, source, err := Open(c.Init.Run)
	if err != nil {
		t.Fatal(err)
	}
	c.Classes = source.Classes
	if c.Init, _, err = NewInit(c.Init.Run, c.Classes); err != nil {
		t.Fatal(err)
	}
	sourceRun, _, _ := Open(c.Init.Run)
	vars := newEngine(t).NewVariables()
	if _, err := LoadWeights(sourceRun, "", source, vars); err != nil {
		t.Fatal(err)
	}
	got := weights(t, newTrainer(t, c, nil, nil).vars)
	for name, want := range weights(t, vars) {
		if !slices.Equal(got[name], want) {
			t.Errorf("%s differs", name)
		}
	}
	c.Model.Filters = 6
	if _, err := New(c, newEngine(t), newTrainer(t, testConfig(), nil, nil).fit, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "has shape") {
		t.Errorf("weights of another network: error %v", err)
	}
}

// The frozen epochs and those after them are two runs to the schedule.
func TestRatesOfFineTuning(t *testing.T) {
	c := finetuneConfig(t)
	trainer := newTrainer(t, c, nil, nil)
	var rates []float64
	trainer.observe = func(e Event) {
		if _, ok := e.(Stepped); ok {
			rates = append(rates, trainer.at.Rate)
		}
	}
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(rates) != 15 {
		t.Fatalf("%d steps, want 15", len(rates))
	}
	for i, rate := range rates {
		want := c.Freeze.LearningRate * c.Freeze.Schedule.Factor(float64(i)/5, 1.0/5)
		if i >= 5 {
			want = c.Optimizer.LearningRate * c.Schedule.Factor(float64(i-5)/10, 1.0/10)
		}
		if math.Abs(rate-want) > 1e-15 {
			t.Errorf("step %d: rate %v, want %v", i+1, rate, want)
		}
	}
}

// A rate test that takes more than the first epoch's batches goes on looking for
// the rate of the dense layer, with stochastic depth as without.
func TestFindRateOfFrozenEpochs(t *testing.T) {
	c := finetuneConfig(t)
	c.Model.DropPath = 0.5
	trainer := newTrainer(t, c, nil, nil)
	test, err := trainer.FindRate(t.Context(), 1e-4, 1e-2, 8) // an epoch has 5 batches
	if err != nil || len(test.Rates) != 8 {
		t.Errorf("%d of 8 steps: %v", len(test.Rates), err)
	}
}

func TestFinetuneCheck(t *testing.T) {
	good := finetuneConfig(t)
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, broken := range map[string]func(c *Config){
		"freezing 4 of 3 epochs":                    func(c *Config) { c.Freeze.Epochs = 4 },
		"freezing 0 of 3 epochs":                    func(c *Config) { c.Freeze.Epochs = 0 },
		"the weights are random":                    func(c *Config) { c.Init = nil },
		"learning rate of the frozen epochs is NaN": func(c *Config) { c.Freeze.LearningRate = math.NaN() },
		"schedule \"step\" is unknown":              func(c *Config) { c.Freeze.Schedule.Name = "step" },
		"lr-mult is 0.5":                            func(c *Config) { c.LRMult = 0.5 },
	} {
		c := good
		freeze := *good.Freeze
		c.Freeze = &freeze
		broken(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, _, err := NewInit(t.TempDir(), nil); err == nil {
		t.Error("an empty directory was taken for a run")
	}
}

// A run that was killed before its first step has the weights it began with, or
// takes them again.
func TestResumeOfFineTuningWithoutCheckpoint(t *testing.T) {
	c := finetuneConfig(t)
	run := newRun(t, c)
	first := newTrainer(t, c, run, nil)
	want := weights(t, first.vars)
	if err := first.saveInitial(); err != nil {
		t.Fatal(err)
	}
	second := newTrainer(t, c, run, nil)
	if err := second.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := weights(t, second.vars); !maps.EqualFunc(got, want, slices.Equal) {
		t.Error("the weights differ")
	}
	if err := errors.Join(second.Run(t.Context())); err != nil || len(second.History()) != 3 {
		t.Errorf("%d epochs, %v", len(second.History()), err)
	}
}
