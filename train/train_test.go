package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/tensor"
)

// stripes is a data set of 8×8 pictures, horizontal stripes or vertical ones
// with noise, that a small network learns at once.
type stripes int

func (s stripes) Len() int          { return int(s) }
func (s stripes) Label(i int) int   { return i % 2 }
func (s stripes) Name(i int) string { return fmt.Sprintf("stripes[%d]", i) }
func (s stripes) Image(i int, dst *dataset.Image) error {
	*dst = dataset.Image{Height: 8, Width: 8, Channels: 1, Pix: make([]uint8, 64)}
	r := random.New(3, uint64(i))
	for p := range dst.Pix {
		line := p % 8
		if i%2 == 0 {
			line = p / 8
		}
		dst.Pix[p] = uint8(100*(line%2) + r.IntN(100))
	}
	return nil
}

func testConfig() Config {
	m := model.Config{Name: "tiny", Convention: model.Keras, Height: 8, Width: 8, Channels: 1, Classes: 2,
		Stem: model.SmallStem, Block: model.Basic, Shortcut: model.Projection, Blocks: []int{1, 1}, Filters: 4}
	o, _ := optim.Named("adam")
	return Config{
		Recipe: "test", Data: DataConfig{Source: "stripes", Validation: "test"}, Model: m, Classes: []string{"across", "down"},
		Preprocess: loader.Preprocess{Height: 8, Width: 8, Channels: 1, Resize: loader.Crop, Scale: 1.0 / 255},
		Optimizer:  o, L2: 0.01, Epochs: 3, BatchSize: 16, Seed: 5, Schedule: optim.Schedule{Name: "constant"},
		Monitor: MonitorLoss, OnNaN: Stop, OnSaveError: Stop, Engine: "cpu", Precision: "float32",
	}
}

func newEngine(t testing.TB) engine.Engine {
	t.Helper()
	e, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// newTrainer trains on 72 images: 4 batches of 16 and one of 8.
func newTrainer(t testing.TB, c Config, run *rundir.Dir, observe func(Event)) *Trainer {
	t.Helper()
	fit, err := loader.New(stripes(72), loader.Options{BatchSize: c.BatchSize, Shuffle: true, Seed: c.Seed, Preprocess: c.Preprocess,
		Augment: c.Augment, ClassWeights: c.ClassWeights, SampleWeights: c.SampleWeights})
	if err != nil {
		t.Fatal(err)
	}
	val, err := loader.New(stripes(40), loader.Options{BatchSize: c.BatchSize, Preprocess: c.Preprocess})
	if err != nil {
		t.Fatal(err)
	}
	trainer, err := New(c, newEngine(t), fit, val, run, observe)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trainer.Close() })
	return trainer
}

func newRun(t testing.TB, c Config) *rundir.Dir {
	t.Helper()
	run, err := rundir.Create(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	if err := run.WriteConfig(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run.Close() })
	return run
}

// weights returns all variables, bit by bit. Sums of gradients are none between
// two updates.
func weights(t *testing.T, vars engine.Variables) map[string][]uint32 {
	t.Helper()
	all := map[string][]uint32{}
	for _, name := range vars.Names() {
		if strings.HasPrefix(name, "accumulate/") {
			continue
		}
		v, err := vars.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range v.Float32s() {
			all[name] = append(all[name], math.Float32bits(x))
		}
	}
	return all
}

func sameWeights(t *testing.T, got, want map[string][]uint32) {
	t.Helper()
	if len(got) != len(want) || len(want) < 10 {
		t.Fatalf("%d variables, want %d", len(got), len(want))
	}
	for name := range want {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s differs", name)
		}
	}
}

func TestTrainingLearnsAndKeepsHistory(t *testing.T) {
	c := testConfig()
	c.Epochs, c.EvalEvery = 10, 3
	run := newRun(t, c)
	var epochs, steps, between int
	trainer := newTrainer(t, c, run, func(e Event) {
		switch e := e.(type) {
		case Started:
			if e.StepsPerEpoch != 5 || e.Images != 72 || e.ValImages != 40 {
				t.Errorf("started with %+v", e)
			}
		case Stepped:
			steps++
		case Validated:
			between++
		case EpochEnded:
			epochs++
		}
	})
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Every third of 50 steps, but for 15, 30 and 45, where an epoch ends anyway.
	if epochs != 10 || steps != 50 || between != 13 {
		t.Errorf("%d epochs, %d steps, %d validations between, want 10, 50, 13", epochs, steps, between)
	}
	history, err := run.History()
	if err != nil {
		t.Fatal(err)
	}
	if len(history) != 10 || !(history[9].Loss < history[0].Loss/2) || !(history[9].Accuracy > 0.95) {
		t.Errorf("history %+v, want 10 epochs of falling loss", history)
	}

	// What was saved scores as the last validation did.
	_, opened, err := Open(run.Path())
	if err != nil {
		t.Fatal(err)
	}
	eng := newEngine(t)
	vars := eng.NewVariables()
	if warning, err := LoadWeights(run, "last", opened, vars); err != nil || warning != "" {
		t.Fatal(warning, err)
	}
	evaluator := NewEvaluator(opened, eng, vars)
	defer evaluator.Close()
	score, err := evaluator.Run(t.Context(), trainer.val, nil)
	if err != nil {
		t.Fatal(err)
	}
	if score.Loss != history[9].ValLoss || score.Accuracy != history[9].ValAccuracy || score.Images != 40 {
		t.Errorf("saved weights score %+v, the history says %+v", score, history[9])
	}
}

// The epoch's training values are means over images, so that the last, smaller
// batch counts for less; the loss includes the penalty.
func TestHistoryWeighsBatchesBySize(t *testing.T) {
	c := testConfig()
	c.Epochs = 1
	run := newRun(t, c)
	trainer := newTrainer(t, c, run, nil)
	var batch, seen float64 = 0, 0
	var want float64
	previous := 0.0
	trainer.observe = func(e Event) {
		if s, ok := e.(Stepped); ok {
			batch = 16
			if s.Step == s.Steps {
				batch = 8
			}
			loss := (s.Loss*(seen+batch) - previous*seen) / batch // of this batch alone
			want += loss * batch / 72
			seen, previous = seen+batch, s.Loss
		}
	}
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := trainer.History()[0].Loss; math.Abs(got-want) > 1e-12 || seen != 72 {
		t.Errorf("loss of the epoch %v, want %v over 72 images (%v seen)", got, want, seen)
	}
	lines, _, err := run.Follow().Poll()
	if err != nil || len(lines) != 6 {
		t.Errorf("%d lines in metrics.jsonl, want 5 steps and an epoch; %v", len(lines), err)
	}
}

// Stopped anywhere and continued, a run ends with the bits of one that was not,
// whatever it uses.
func TestResumeIsExact(t *testing.T) {
	for name, use := range map[string]func(c *Config){
		"tutorial": func(c *Config) {},
		"augmented, cosine with warm-up, sgd, sampled, weighted": func(c *Config) {
			c.Augment = loader.Augment{PadCrop: 2, Flip: true}
			c.Schedule = optim.Schedule{Name: "cosine", Warmup: 0.3}
			c.Optimizer = optim.Config{Name: "sgd", LearningRate: 0.05, Momentum: 0.9, Nesterov: true, WeightDecay: 1e-3}
			c.SampleWeights, c.ClassWeights = []float32{1, 2}, []float32{1, 0.5}
		},
		"stochastic depth, squeeze-excitation, zero γ": func(c *Config) {
			c.Model.Blocks, c.Model.DropPath, c.Model.SE, c.Model.ZeroGamma = []int{2, 1}, 0.5, true, true
		},
		"every augmentation, mixed labels": func(c *Config) {
			c.Augment = loader.Augment{ResizedCrop: 0.5, Translate: 2, AlternatingFlip: true, Auto: loader.TrivialAugment,
				Jitter: loader.Jitter{Brightness: 0.4, Contrast: 0.4, Saturation: 0.4, Hue: 0.1}, Cutout: 2, Erase: 0.5, Mixup: 0.2, CutMix: 1}
			c.ClassWeights = []float32{1, 0.5}
		},
		"adamw, plateau, best, validated within epochs, saved within epochs": func(c *Config) {
			c.Optimizer, _ = optim.Named("adamw")
			c.Data.Validation, c.KeepBest, c.Keep = "validation", true, 2
			c.Plateau = Plateau{Patience: 1, Factor: 0.5, MinDelta: 100}
			c.EvalEvery, c.SaveEvery, c.LabelSmoothing = 2, 3, 0.1
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig()
			use(&c)
			resumeIsExact(t, c)
		})
	}
	for _, k := range []int{2, 3} {
		t.Run(fmt.Sprintf("%d batches accumulated, clipped, averaged, best", k), func(t *testing.T) {
			c := testConfig()
			c.Accumulate, c.ClipNorm, c.ClipValue, c.EMA = k, 0.5, 0.1, 0.99
			c.Schedule = optim.Schedule{Name: "multistep", Milestones: []float64{0.4, 0.8}, Gamma: 0.3}
			c.Data.Validation, c.KeepBest, c.EvalEvery, c.SaveEvery = "validation", true, 2, 3
			c.Epochs = 5
			resumeIsExact(t, c)
		})
	}
	t.Run("whitening stem, lookahead, rate of β, averaged, two batches accumulated", func(t *testing.T) {
		c := whitenConfig()
		c.EMA, c.Accumulate, c.SaveEvery, c.StemEpochs = 0.9, 2, 2, 1
		resumeIsExact(t, c)
	})
	t.Run("fine-tuned, with frozen epochs and rates by depth", func(t *testing.T) { resumeIsExact(t, finetuneConfig(t)) })
}

// whitenConfig is a network with a whitening stem and fixed γ, trained as the speed
// records do.
func whitenConfig() Config {
	c := testConfig()
	c.Model.Block, c.Model.Stem, c.Model.Whiten, c.Model.Widen = model.Single, model.WhitenStem, 2, []int{1, 3}
	c.Model.Dirac, c.Model.FixedGamma, c.Model.NormRate, c.Model.LogitScale = true, true, 0.4, 0.5
	c.Augment = loader.Augment{Translate: 1, AlternatingFlip: true}
	c.Optimizer = optim.Config{Name: "sgd", LearningRate: 0.05, Momentum: 0.85, Nesterov: true, WeightDecay: 1e-3, DecayAll: true,
		ShiftRate: 4, Lookahead: optim.Lookahead{Every: 2, Keep: 0.5, Power: 1, Start: 0.2}}
	c.L2, c.LabelSmoothing = 0, 0.2
	return c
}

// The stem's kernel comes from the training pictures, whatever the seed, and neither
// it nor γ ever changes; after each epoch the weights are the slow ones; such a run is
// evaluated from its directory alone, moving average and all.
func TestWhiteningStem(t *testing.T) {
	c := whitenConfig()
	c.EMA = 0.9
	other := c
	other.Seed = 99
	kernel := weights(t, newTrainer(t, c, nil, nil).Variables())["whiten.weight"]
	if again := weights(t, newTrainer(t, other, nil, nil).Variables())["whiten.weight"]; len(kernel) != 4*8 || !slices.Equal(kernel, again) {
		t.Errorf("the kernel is %v with one seed, %v with another", kernel, again)
	}
	w := model.NewWhitening(2, 1)
	all, err := loader.New(stripes(72), loader.Options{BatchSize: 72, Preprocess: c.Preprocess})
	if err != nil {
		t.Fatal(err)
	}
	for b, err := range all.Batches(t.Context(), 0, 0) {
		if err := errors.Join(err, w.Add(b.Images)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := w.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range want.Float32s() {
		if math.Float32bits(x) != kernel[i] {
			t.Fatalf("number %d of the kernel is %v, want %v of all pictures without augmentation", i, math.Float32frombits(kernel[i]), x)
		}
	}

	run := newRun(t, c)
	trainer := newTrainer(t, c, run, nil)
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := weights(t, trainer.Variables())
	fixed, slow := 0, 0
	for name, value := range after {
		if name == "whiten.weight" || strings.HasSuffix(name, "bn.weight") && !strings.Contains(name, "/") {
			fixed++
			before := kernel
			if name != "whiten.weight" {
				before = slices.Repeat([]uint32{math.Float32bits(1)}, len(value))
			}
			if !slices.Equal(value, before) || !slices.Equal(after[averagePrefix+name], before) {
				t.Errorf("%s has changed", name)
			}
		}
		if copied, ok := strings.CutPrefix(name, optim.SlowPrefix); ok {
			slow++
			if !slices.Equal(value, after[copied]) {
				t.Errorf("%s is not its slow copy after the last epoch", copied)
			}
		}
	}
	if fixed != 1+2*2 || slow != 1+2*2*(1+1+2)+1 {
		t.Errorf("%d fixed variables, %d slow copies", fixed, slow)
	}
	for _, which := range []string{"last:raw", "last:ema"} {
		eng := newEngine(t)
		vars := eng.NewVariables()
		if _, err := LoadWeights(run, which, c, vars); err != nil {
			t.Fatal(err)
		}
		e := NewEvaluator(c, eng, vars)
		defer e.Close()
		got, err := e.Run(t.Context(), trainer.val, nil)
		want := trainer.History()[2].ValLoss
		if which == "last:ema" {
			want = trainer.History()[2].EMA.ValLoss
		}
		if err != nil || got.Loss != want {
			t.Errorf("%s: loss %v, want %v; %v", which, got.Loss, want, err)
		}
	}
}

// Slow weights begin at the end of the first epoch here, as what the weights are
// without lookahead; a second epoch from there takes them a tenth of the way.
func TestLookaheadOverEpochs(t *testing.T) {
	c := whitenConfig()
	c.Epochs = 2
	run := func(l optim.Lookahead) (after [2]map[string][]uint32) {
		c.Optimizer.Lookahead = l
		epoch := 0
		var trainer *Trainer
		trainer = newTrainer(t, c, nil, func(e Event) {
			if _, ok := e.(EpochEnded); ok {
				after[epoch] = weights(t, trainer.Variables())
				epoch++
			}
		})
		if err := trainer.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		return after
	}
	without, with := run(optim.Lookahead{}), run(optim.Lookahead{Every: 5, Keep: 0.9}) // 5 steps an epoch
	moved := 0.0
	for name, first := range without[0] {
		if strings.Contains(name, "/") {
			continue
		}
		if !slices.Equal(with[0][name], first) {
			t.Errorf("%s is another after the first epoch", name)
		}
		for i := range first {
			from, to := math.Float32frombits(first[i]), math.Float32frombits(without[1][name][i])
			got, want := math.Float32frombits(with[1][name][i]), 0.9*float64(from)+0.1*float64(to)
			if math.Abs(float64(got)-want) > 1e-6*(1+math.Abs(want)) {
				t.Fatalf("%s: number %d went from %v to %v, want %v, as it is %v without", name, i, from, got, want, to)
			}
			moved = max(moved, math.Abs(float64(to-from)))
		}
	}
	if moved < 0.01 {
		t.Errorf("nothing moved by more than %v in the second epoch", moved)
	}
}

// After its epochs the stem stays as it is, bit by bit, and all the rest goes on.
func TestStemEpochs(t *testing.T) {
	c := testConfig()
	c.StemEpochs = 1
	c.Model.DropPath = 0.1 // whose inputs a step without the stem takes too
	var after []map[string][]uint32
	var trainer *Trainer
	trainer = newTrainer(t, c, nil, func(e Event) {
		if _, ok := e.(EpochEnded); ok {
			after = append(after, weights(t, trainer.Variables()))
		}
	})
	before := weights(t, trainer.Variables())
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	stem := 0
	for name := range before {
		parameter := !strings.Contains(name, "/") && !strings.Contains(name, "running")
		if !parameter {
			continue
		}
		if slices.Equal(before[name], after[0][name]) {
			t.Errorf("%s has not learnt in the first epoch", name)
		}
		in := strings.HasPrefix(name, "conv1.") || strings.HasPrefix(name, "bn1.")
		if in {
			stem++
		}
		if stays := slices.Equal(after[0][name], after[2][name]); stays != in {
			t.Errorf("%s stays: %v, it is in the stem: %v", name, stays, in)
		}
	}
	if stem != 3 {
		t.Errorf("%d parameters in the stem, want 3", stem)
	}
	if slices.Equal(after[0]["bn1.running_mean"], after[2]["bn1.running_mean"]) {
		t.Error("the stem's moving statistics stay")
	}
}

func resumeIsExact(t *testing.T, c Config) {
	wholeRun := newRun(t, c)
	whole := newTrainer(t, c, wholeRun, nil)
	if err := whole.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := weights(t, whole.Variables())
	wantLines, _, err := wholeRun.Follow().Poll()
	if err != nil {
		t.Fatal(err)
	}

	for _, stopAt := range []int{1, 4, 5, 8, 14} {
		if stopAt >= whole.at.GlobalStep {
			continue
		}
		t.Run(fmt.Sprint(stopAt), func(t *testing.T) {
			run := newRun(t, c)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			steps := 0
			first := newTrainer(t, c, run, func(e Event) {
				if _, ok := e.(Stepped); ok {
					if steps++; steps == stopAt {
						cancel()
					}
				}
			})
			if err := first.Run(ctx); !errors.Is(err, ErrStopped) {
				t.Fatalf("error %v, want ErrStopped", err)
			}
			if steps != stopAt {
				t.Fatalf("%d steps after stopping at %d", steps, stopAt)
			}
			second := newTrainer(t, c, run, nil)
			if err := second.Resume(); err != nil {
				t.Fatal(err)
			}
			if err := second.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			sameWeights(t, weights(t, second.Variables()), want)
			for i, e := range second.History() {
				w := whole.History()[i]
				if e.Loss != w.Loss || e.Accuracy != w.Accuracy || e.ValLoss != w.ValLoss || !reflect.DeepEqual(e.EMA, w.EMA) || e.LearningRate != w.LearningRate {
					t.Errorf("epoch %d: %+v, want %+v", i+1, e, w)
				}
			}
			history, err := run.History()
			if err != nil || len(history) != c.Epochs {
				t.Errorf("history.csv has %d epochs, %v", len(history), err)
			}
			lines, _, err := run.Follow().Poll()
			if err != nil || len(lines) != len(wantLines) {
				t.Errorf("metrics.jsonl has %d lines, want the %d of the run in one piece; %v", len(lines), len(wantLines), err)
			}
			if second.at.Watch != whole.at.Watch {
				t.Errorf("watch %+v, want %+v", second.at.Watch, whole.at.Watch)
			}
		})
	}
}

func TestResumeOfAFinishedRunIsRefused(t *testing.T) {
	c := testConfig()
	c.Epochs = 1
	run := newRun(t, c)
	if err := newTrainer(t, c, run, nil).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Killed before its result was written, it can be resumed to do nothing more.
	unfinished := newTrainer(t, c, run, nil)
	if err := errors.Join(unfinished.Resume(), unfinished.Run(t.Context())); err != nil || len(unfinished.History()) != 1 || unfinished.at.GlobalStep != 5 {
		t.Errorf("resuming without a result: %v, %d epochs", err, len(unfinished.History()))
	}
	if err := run.WriteResult(struct{}{}); err != nil {
		t.Fatal(err)
	}
	if err := newTrainer(t, c, run, nil).Resume(); err == nil || !strings.Contains(err.Error(), "all 1 epochs are done") {
		t.Errorf("error %v", err)
	}
	if !run.Finished() {
		t.Error("the refused attempt took the result away")
	}
	other := c
	other.Model.Filters = 6
	if err := newTrainer(t, other, run, nil).Resume(); err == nil {
		t.Error("weights of another network were accepted")
	}
	c.Epochs = 2
	longer := newTrainer(t, c, run, nil)
	if err := errors.Join(longer.Resume(), longer.Run(t.Context())); err != nil || len(longer.History()) != 2 {
		t.Errorf("training longer: %v, %d epochs", err, len(longer.History()))
	}
}

// A run that was killed before its first checkpoint starts again.
func TestResumeWithoutCheckpoint(t *testing.T) {
	c := testConfig()
	run := newRun(t, c)
	if err := run.AppendMetrics(map[string]int{"step": 1}); err != nil {
		t.Fatal(err)
	}
	trainer := newTrainer(t, c, run, nil)
	if err := trainer.Resume(); err != nil {
		t.Fatal(err)
	}
	if lines, _, err := run.Follow().Poll(); err != nil || len(lines) != 0 {
		t.Errorf("metrics.jsonl still has %d lines; %v", len(lines), err)
	}
}

// spoil sets the first bias of the dense layer to a value that is not finite.
func spoil(t *testing.T, trainer *Trainer, value float64) {
	t.Helper()
	bias, err := trainer.vars.Get("fc.bias")
	if err != nil {
		t.Fatal(err)
	}
	bias.Float32s()[0] = float32(value)
	if err := trainer.vars.Set("fc.bias", bias); err != nil {
		t.Fatal(err)
	}
}

// A loss that is not finite ends training with the step's number, and leaves the
// weights and the last checkpoint as they were.
func TestNonFiniteLoss(t *testing.T) {
	c := testConfig()
	run := newRun(t, c)
	trainer := newTrainer(t, c, run, nil)
	var before map[string][]uint32
	trainer.observe = func(e Event) {
		if s, ok := e.(Stepped); ok && s.Epoch == 2 && s.Step == 2 {
			spoil(t, trainer, math.Inf(1))
			before = weights(t, trainer.vars)
		}
	}
	err := trainer.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "step 8 (epoch 2): the loss is NaN; the step was not applied; the first value that is not finite is fc.bias (variable)") {
		t.Fatalf("error %v", err)
	}
	sameWeights(t, weights(t, trainer.vars), before)
	saved, err := run.LoadWeights("last")
	if err != nil || saved.Step != 5 {
		t.Errorf("last checkpoint is of step %d, want 5; %v", saved.Step, err)
	}
}

func TestClassWeightsScaleTheLoss(t *testing.T) {
	c := testConfig()
	c.L2 = 0
	eng := newEngine(t)
	g, err := evalGraph(c, 2)
	if err != nil {
		t.Fatal(err)
	}
	vars := eng.NewVariables()
	p, err := eng.Compile(g, vars)
	if err != nil {
		t.Fatal(err)
	}
	// All variables are zero, so both classes have probability ½.
	images, labels := tensor.New(tensor.Float32, 2, 8, 8, 1), tensor.Of([]int32{0, 1}, 2)
	out, err := p.Run(t.Context(), images, labels, tensor.Of([]float32{3, 1}, 2))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := scalar(out[0]), (3+1)*math.Ln2/2; math.Abs(got-want) > 1e-6 {
		t.Errorf("weighted loss %v, want %v", got, want)
	}
}

func TestConfigCheck(t *testing.T) {
	good := testConfig()
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, broken := range map[string]func(c *Config){
		"epochs is 0":           func(c *Config) { c.Epochs = 0 },
		"batch size is 0":       func(c *Config) { c.BatchSize = 0 },
		"16777217 epochs, 16":   func(c *Config) { c.Epochs = most + 1 },
		"3 epochs, 9223372036":  func(c *Config) { c.BatchSize = math.MaxInt },
		"images in a batch, 9":  func(c *Config) { c.Accumulate = math.MaxInt },
		"3 class names":         func(c *Config) { c.Classes = []string{"a", "b", "c"} },
		"makes 4×8×1 images":    func(c *Config) { c.Preprocess.Height = 4 },
		"learning rate is -1":   func(c *Config) { c.Optimizer.LearningRate = -1 },
		"label smoothing is 1":  func(c *Config) { c.LabelSmoothing = 1 },
		"l2 is NaN":             func(c *Config) { c.L2 = math.NaN() },
		"adam: has no momentum": func(c *Config) { c.Optimizer.Momentum = 0.9 },
		"accumulate is -1":      func(c *Config) { c.Accumulate = -1 },
		"clipped to norm NaN":   func(c *Config) { c.ClipNorm = math.NaN() },
		"and value -1":          func(c *Config) { c.ClipValue = -1 },
		"ema is 1":              func(c *Config) { c.EMA = 1 },
		"filters is 0":          func(c *Config) { c.Model.Filters = 0 },
		"stem learns in -1":     func(c *Config) { c.StemEpochs = -1 },
		"lookahead is every -1": func(c *Config) { c.Optimizer.Lookahead.Every = -1 },
		"rate of batch norm's":  func(c *Config) { c.Optimizer.ShiftRate = -1 },
	} {
		c := good
		broken(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// A damaged newest checkpoint is noticed, the one before is used, and training
// from there ends with the same bits.
func TestResumeFromDamagedCheckpoint(t *testing.T) {
	c := testConfig()
	run := newRun(t, c)
	whole := newTrainer(t, c, run, nil)
	if err := whole.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := weights(t, whole.Variables())
	all, err := run.Checkpoints()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range all {
		if info.Name != "last" {
			continue
		}
		data, err := os.ReadFile(info.ModelPath)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-9] ^= 1
		if err := os.WriteFile(info.ModelPath, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	warning := ""
	again := newTrainer(t, c, run, func(e Event) {
		if f, ok := e.(FellBack); ok {
			warning = f.Text
		}
	})
	if err := errors.Join(again.Resume(), again.Run(t.Context())); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(warning, "model.safetensors") || !strings.Contains(warning, "step 10") {
		t.Errorf("warning %q", warning)
	}
	sameWeights(t, weights(t, again.Variables()), want)
}

// With --on-nan rollback a batch that spoils a step is left out, and training
// goes on from the last checkpoint; resuming leaves it out again. Another batch may
// spoil the same step then, and has a capsule of its own.
func TestRollBack(t *testing.T) {
	c := testConfig()
	c.OnNaN, c.Epochs, c.Model.DropPath, c.Augment.CutMix = RollBack, 2, 0.5, 1
	c.SampleWeights = []float32{1, 1} // pictures come again, and are dropped in another way
	run := newRun(t, c)
	var events []string
	trainer := newTrainer(t, c, run, nil)
	spoiled := 0
	trainer.observe = func(e Event) {
		switch e := e.(type) {
		case Stepped:
			if e.Epoch == 2 && e.Step == 2 && spoiled < 2 {
				spoiled++
				spoil(t, trainer, math.NaN())
			}
		case Captured:
			events = append(events, "captured "+e.Layer)
		case RolledBack:
			events = append(events, fmt.Sprintf("back to %d without batch %d of epoch %d", e.Step, e.Batch, e.Epoch))
		}
	}
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{
		"captured fc.bias (variable)", "back to 5 without batch 3 of epoch 2",
		"captured fc.bias (variable)", "back to 5 without batch 4 of epoch 2",
	}; !slices.Equal(events, want) {
		t.Errorf("events %q, want %q", events, want)
	}
	if trainer.at.GlobalStep != 8 || len(trainer.History()) != 2 {
		t.Errorf("%d updates in %d epochs, want 8 in 2", trainer.at.GlobalStep, len(trainer.History()))
	}
	recorded, layers, first, err := Replay(filepath.Join(run.Path(), "capsule-step-00000008.safetensors"), opens(t, "float32"))
	if err != nil {
		t.Fatal(err)
	}
	if first == nil || first.String() != "fc.bias (variable)" || recorded.First.String() != first.String() || len(layers) != len(recorded.Layers) || recorded.Batch != 3 {
		t.Errorf("replayed: first %v of %d values; recorded %v of %d, batch %d", first, len(layers), recorded.First, len(recorded.Layers), recorded.Batch)
	}
	for i, l := range layers {
		if !reflect.DeepEqual(l, recorded.Layers[i]) {
			t.Errorf("replayed: %+v, recorded %+v", l, recorded.Layers[i])
		}
	}
	if !slices.ContainsFunc(recorded.Draws, func(at int) bool { return at >= 72 }) {
		t.Errorf("no picture of the batch came again: %v", recorded.Draws)
	}
	recorded, _, _, err = Replay(filepath.Join(run.Path(), "capsule-step-00000008-rollback-1.safetensors"), opens(t, "float32"))
	if err != nil {
		t.Fatal(err)
	}
	if recorded.Step != 8 || recorded.Batch != 4 {
		t.Errorf("the second capsule is of step %d, batch %d; want 8, 4", recorded.Step, recorded.Batch)
	}
}

// opens opens the CPU engine in that precision for Replay.
func opens(t testing.TB, precision string) func(Capsule) (engine.Engine, error) {
	t.Helper()
	return func(Capsule) (engine.Engine, error) { return cpu.New(cpu.Options{Precision: precision}) }
}

// A run that is infinite in bfloat16 alone: pixels just below float32's largest number,
// which round to infinity in bfloat16, and a stem whose kernel makes them small again.
// Its capsule, replayed in bfloat16, is infinite in the same place; in float32 it is not.
func TestReplayPrecision(t *testing.T) {
	c := testConfig()
	c.Precision, c.Epochs = "bfloat16", 1
	c.Preprocess.Scale = 3.4e38 / 199                                               // of the largest pixel; bfloat16's largest number is 3.3895e38
	c.Model.Block, c.Model.Stem, c.Model.Whiten = model.Single, model.WhitenStem, 2 // whose kernel has no gradient, which were as large
	for _, precision := range []string{"float32", "bfloat16"} {
		run := newRun(t, c)
		eng, err := opens(t, precision)(Capsule{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { eng.Close() })
		fit, err := loader.New(stripes(16), loader.Options{BatchSize: c.BatchSize, Preprocess: c.Preprocess})
		if err != nil {
			t.Fatal(err)
		}
		trainer, err := New(c, eng, fit, nil, run, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { trainer.Close() })
		kernel, err := trainer.vars.Get("whiten.weight")
		if err != nil {
			t.Fatal(err)
		}
		for i := range kernel.Float32s() {
			kernel.Float32s()[i] = 1e-38 * float32(1+i%3)
		}
		if err := trainer.vars.Set("whiten.weight", kernel); err != nil {
			t.Fatal(err)
		}
		err = trainer.Run(t.Context())
		if precision == "float32" {
			if err != nil {
				t.Errorf("in float32: %v", err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "not finite is whiten") {
			t.Fatalf("in bfloat16: %v, want the stem not to be finite", err)
		}
		capsule := filepath.Join(run.Path(), "capsule-step-00000001.safetensors")
		for _, again := range []string{"bfloat16", "float32"} {
			recorded, _, first, err := Replay(capsule, opens(t, again))
			if err != nil || recorded.Config.Precision != "bfloat16" || recorded.First == nil {
				t.Fatalf("%s: %v, recorded in %s, first %v", again, err, recorded.Config.Precision, recorded.First)
			}
			if (first != nil) != (again == "bfloat16") || first != nil && !reflect.DeepEqual(first, recorded.First) {
				t.Errorf("in %s the first value that is not finite is %v, recorded is %v", again, first, recorded.First)
			}
		}
	}
}

// exhausted is an engine that has no memory for another program.
type exhausted struct{ engine.Engine }

func (exhausted) Compile(*graph.Graph, engine.Variables) (engine.Program, error) {
	return nil, errors.New("planted")
}

// Where the layer cannot be found, the error still says that the step was not finite.
func TestNonFiniteWithoutProbe(t *testing.T) {
	trainer := newTrainer(t, testConfig(), nil, nil)
	trainer.engine = exhausted{trainer.engine}
	spoil(t, trainer, math.Inf(1))
	err := trainer.Run(t.Context())
	var bad *nonFinite
	if !errors.As(err, &bad) || bad.step != 1 || !strings.Contains(err.Error(), "the loss is NaN") || !strings.Contains(err.Error(), "planted") {
		t.Errorf("error %v", err)
	}
}

// A gradient can be infinite where the loss is not; that step is not applied
// either.
func TestNonFiniteGradient(t *testing.T) {
	c := testConfig()
	trainer := newTrainer(t, c, nil, nil)
	scale, err := trainer.vars.Get("fc.weight")
	if err != nil {
		t.Fatal(err)
	}
	for i := range scale.Float32s() { // [C,K]: the two classes far apart
		scale.Float32s()[i] = 3e18 * float32(1-2*(i%2)) // the loss is finite, the gradients' squares are not
	}
	if err := trainer.vars.Set("fc.weight", scale); err != nil {
		t.Fatal(err)
	}
	before := weights(t, trainer.vars)
	err = trainer.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "step 1 (epoch 1): a gradient is not finite") {
		t.Errorf("error %v", err)
	}
	sameWeights(t, weights(t, trainer.vars), before)
}

// When the disk fails, training stops with the error, or goes on.
func TestSaveError(t *testing.T) {
	for _, policy := range []string{Stop, KeepTraining} {
		c := testConfig()
		c.OnSaveError = policy
		run := newRun(t, c)
		var failed error
		trainer := newTrainer(t, c, run, nil)
		trainer.observe = func(e Event) {
			switch e := e.(type) {
			case EpochEnded:
				if e.Row.Epoch == 2 { // a file where the directory of checkpoints was
					path := filepath.Join(run.Path(), "checkpoints")
					if err := errors.Join(os.Rename(path, path+"-away"), os.WriteFile(path, nil, 0o666)); err != nil {
						t.Fatal(err)
					}
				}
			case SaveFailed:
				failed = e.Err
			}
		}
		err := trainer.Run(t.Context())
		if policy == Stop && (err == nil || failed != nil) {
			t.Errorf("stop: error %v, event %v", err, failed)
		}
		if policy == KeepTraining && (err != nil || failed == nil || len(trainer.History()) != 3) {
			t.Errorf("continue: error %v, event %v, %d epochs", err, failed, len(trainer.History()))
		}
		path := filepath.Join(run.Path(), "checkpoints")
		if err := errors.Join(os.Remove(path), os.Rename(path+"-away", path)); err != nil {
			t.Fatal(err)
		}
		older, err := run.LoadCheckpoint("last")
		if err != nil || older.Epoch != 1 {
			t.Errorf("the older checkpoint is of epoch %d, want 1; %v", older.Epoch, err)
		}
	}
}

// Where batches accumulate, updates are the schedule's steps: three of five batches
// have the rates of three steps, the first of a warm-up in three and the last that of
// the floor.
func TestRateOfAccumulation(t *testing.T) {
	for _, s := range []optim.Schedule{
		{Name: "onecycle", Warmup: 0.5, Start: 0.1, Floor: 0.01}, {Name: "linear", Warmup: 0.9}, {Name: "cosine"},
		{Name: "multistep", Milestones: []float64{0.4, 0.8}, Gamma: 0.1},
	} {
		c := testConfig()
		c.Schedule, c.Accumulate = s, 5
		trainer := newTrainer(t, c, nil, nil)
		if err := trainer.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, e := range trainer.History() {
			if want := 1e-3 * s.Factor(float64(i)/3, 1.0/3); math.Abs(e.LearningRate-want) > 1e-12 {
				t.Errorf("%s, update %d: rate %v, want %v", s.Name, i+1, e.LearningRate, want)
			}
		}
		if n := len(trainer.History()); n != 3 || trainer.at.GlobalStep != 3 {
			t.Errorf("%s: %d updates in %d epochs, want 3", s.Name, trainer.at.GlobalStep, n)
		}
	}
}

// A schedule and a plateau give the rate that the history shows.
func TestRateFollowsSchedule(t *testing.T) {
	c := testConfig()
	c.Schedule = optim.Schedule{Name: "cosine"}
	c.Plateau = Plateau{Patience: 1, Factor: 0.5, MinDelta: 100}
	c.Data.Validation = "validation"
	var rates []float64
	run := newRun(t, c)
	if err := newTrainer(t, c, run, nil).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines, _, err := run.Follow().Poll()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		var r struct {
			Event string
			Rate  float64 `json:"learning_rate"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		if r.Event == "step" {
			rates = append(rates, r.Rate)
		}
	}
	for i, rate := range rates {
		want := 1e-3 * (1 + math.Cos(math.Pi*float64(i)/15)) / 2
		if i >= 10 { // the second epoch did not improve by 100
			want /= 2
		}
		if math.Abs(rate-want) > 1e-12 {
			t.Errorf("step %d: rate %v, want %v", i+1, rate, want)
		}
	}
	if len(rates) != 15 {
		t.Errorf("%d steps, want 15", len(rates))
	}
}

func TestEarlyStopping(t *testing.T) {
	c := testConfig()
	c.Monitor = MonitorAccuracy
	c.EarlyStop = EarlyStop{Patience: 2, MinDelta: 0.05}
	var w watch
	for i, accuracy := range []float64{0.5, 0.6, 0.62, 0.61} { // 0.62 is the best, but no improvement by 0.05
		best := w.see(c, rundir.Epoch{Epoch: i + 1, ValAccuracy: accuracy, ValLoss: 1}, true)
		if best != (i < 3) || w.Stop != (i == 3) {
			t.Errorf("epoch %d: best %v, stop %v", i+1, best, w.Stop)
		}
	}
	if w.Epoch != 3 {
		t.Errorf("the best epoch is %d, want 3", w.Epoch)
	}
}

// Whatever ends a run, what was reached is saved, unless the weights are bad.
func TestErrorsSaveFirst(t *testing.T) {
	c := testConfig()
	run := newRun(t, c)
	trainer := newTrainer(t, c, run, nil)
	broken, err := loader.New(vanishing{72, 40}, loader.Options{BatchSize: c.BatchSize, Preprocess: c.Preprocess})
	if err != nil {
		t.Fatal(err)
	}
	trainer.fit = broken
	if err := trainer.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "picture 40 is gone") {
		t.Fatalf("error %v", err)
	}
	saved, err := run.LoadWeights("last")
	if err != nil || saved.Step != 2 {
		t.Errorf("the checkpoint is of step %d, want 2: %v", saved.Step, err)
	}
}

// vanishing is stripes with a picture that cannot be read.
type vanishing struct{ n, gone int }

func (v vanishing) Len() int          { return v.n }
func (v vanishing) Label(i int) int   { return i % 2 }
func (v vanishing) Name(i int) string { return fmt.Sprint(i) }
func (v vanishing) Image(i int, dst *dataset.Image) error {
	if i == v.gone {
		return fmt.Errorf("picture %d is gone", i)
	}
	return stripes(v.n).Image(i, dst)
}

// A damaged directory is never truncated.
func TestResumeChangesNothingWhenCheckpointsCannotBeListed(t *testing.T) {
	c := testConfig()
	run := newRun(t, c)
	if err := newTrainer(t, c, run, nil).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	notes, err := filepath.Glob(filepath.Join(run.Path(), "checkpoints", "step-*", "checkpoint.json"))
	if err != nil || len(notes) == 0 {
		t.Fatal(notes, err)
	}
	for _, path := range append(notes, filepath.Join(run.Path(), "checkpoints", "index.json")) {
		if err := os.WriteFile(path, []byte("damaged"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := newTrainer(t, c, run, nil).Resume(); err == nil {
		t.Fatal("the damage was not noticed")
	}
	if h, err := run.History(); err != nil || len(h) != 3 {
		t.Errorf("history.csv has %d rows, want 3; %v", len(h), err)
	}
}

// Killed between saving a checkpoint and naming it the best, a resumed run names it.
func TestBestIsNamedAfterResume(t *testing.T) {
	c := testConfig()
	c.KeepBest, c.Keep = true, 5
	c.Data.Validation = "validation"
	run := newRun(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := newTrainer(t, c, run, nil)
	first.observe = func(e Event) {
		if s, ok := e.(Saved); ok && s.Epoch == 2 {
			panic("killed")
		}
	}
	func() {
		defer func() { _ = recover() }()
		_ = first.Run(ctx)
	}()
	second := newTrainer(t, c, run, nil)
	if err := second.Resume(); err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	all, err := run.Checkpoints()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range all {
		names[info.Name] = info.Epoch
	}
	if names["epoch-0002"] != 2 || names["best"] != second.at.Watch.Epoch {
		t.Errorf("checkpoints %v, want epoch-0002 and best of epoch %d", names, second.at.Watch.Epoch)
	}
}
