package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/tensor"
)

// ErrStopped is in the error of Run when its context was cancelled: the step
// was finished and, with a run directory, everything saved.
var ErrStopped = errors.New("stopped")

// Trainer trains one network. It is not safe for concurrent use.
type Trainer struct {
	config  Config
	engine  engine.Engine
	vars    engine.Variables
	fit     *loader.Loader
	val     *loader.Loader // nil: no validation
	run     *rundir.Dir    // nil: nothing is kept
	observe func(Event)

	graph    *graph.Graph // of a full step, for the variables' names and roles
	programs programs
	eval     *Evaluator

	at      position
	history rundir.History
	clock   clock
}

// position is where training is: enough, with the variables, to continue as if
// nothing had happened. It is saved with every checkpoint.
type position struct {
	Epoch      int         `json:"epoch"`       // epochs done
	Step       int         `json:"step"`        // steps done in the next epoch
	GlobalStep int         `json:"global_step"` // steps done in all
	Loss       metric.Mean `json:"loss"`        // of the unfinished epoch
	Accuracy   metric.Mean `json:"accuracy"`
	Seconds    float64     `json:"seconds"`       // spent on the unfinished epoch
	Training   float64     `json:"training_secs"` // of these, in steps
}

// New prepares training from initial weights. observe may be nil.
func New(c Config, e engine.Engine, fit, val *loader.Loader, run *rundir.Dir, observe func(Event)) (*Trainer, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if observe == nil {
		observe = func(Event) {}
	}
	t := &Trainer{config: c, engine: e, vars: e.NewVariables(), fit: fit, val: val, run: run, observe: observe}
	g, err := stepGraph(c, c.BatchSize)
	if err != nil {
		return nil, err
	}
	t.graph = g
	t.programs.compile = func(batch int) (engine.Program, error) {
		g, err := stepGraph(c, batch)
		if err != nil {
			return nil, err
		}
		return e.Compile(g, t.vars)
	}
	t.eval = NewEvaluator(c, e, t.vars)
	if _, err := t.programs.get(min(c.BatchSize, fit.Len())); err != nil {
		return nil, err
	}
	return t, Initialize(t.vars, g, func(v *graph.Node) tensor.Tensor { return model.Initial(v, c.Seed) })
}

// Close frees the programs. The engine is the caller's to close.
func (t *Trainer) Close() error { return errors.Join(t.programs.close(), t.eval.Close()) }

// Kernels says which implementation runs each operation of a step.
func (t *Trainer) Kernels() map[string]string {
	for _, p := range t.programs.bySize {
		return p.Kernels()
	}
	return nil
}

// Variables is the store with the weights.
func (t *Trainer) Variables() engine.Variables { return t.vars }

// History returns a row for each epoch that has ended.
func (t *Trainer) History() rundir.History { return t.history }

// Run trains to the last epoch. When ctx is cancelled it finishes the step,
// saves and returns ErrStopped.
func (t *Trainer) Run(ctx context.Context) error {
	started := Started{
		Epochs: t.config.Epochs, Epoch: t.at.Epoch, Step: t.at.Step, StepsPerEpoch: t.fit.Steps(),
		Images: t.fit.Len(), Engine: t.engine.Name(),
	}
	if t.val != nil {
		started.ValImages = t.val.Len()
	}
	t.observe(started)
	t.clock.start()
	for t.at.Epoch < t.config.Epochs {
		if err := t.epoch(ctx); err != nil {
			if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
				return err
			}
			t.at.Seconds += t.clock.lap()
			if err := t.save(); err != nil {
				return errors.Join(ErrStopped, err)
			}
			return ErrStopped
		}
	}
	return nil
}

// epoch does the steps that are left of the epoch, validates, and enters the
// result in history and checkpoint.
func (t *Trainer) epoch(ctx context.Context) error {
	for b, err := range t.fit.Batches(context.WithoutCancel(ctx), t.at.Epoch, t.at.Step) {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.step(b); err != nil {
			return err
		}
		if every := t.config.EvalEvery; every > 0 && t.at.GlobalStep%every == 0 && t.at.Step < t.fit.Steps() {
			if err := t.validateBetween(ctx); err != nil {
				return err
			}
		}
	}

	row := rundir.Epoch{
		Epoch: t.at.Epoch + 1, Loss: t.at.Loss.Value(), Accuracy: t.at.Accuracy.Value(),
		ValLoss: math.NaN(), ValAccuracy: math.NaN(), LearningRate: t.config.Optimizer.LearningRate,
		ImagesPerSecond: t.at.Accuracy.Weight / t.at.Training,
	}
	if t.val != nil {
		score, err := t.validate(ctx)
		if err != nil {
			return err
		}
		row.ValLoss, row.ValAccuracy = score.Loss, score.Accuracy
	}
	row.Seconds = t.at.Seconds + t.clock.lap()
	t.history = append(t.history, row)
	t.at = position{Epoch: t.at.Epoch + 1, GlobalStep: t.at.GlobalStep}
	if t.run != nil {
		if err := t.run.AppendEpoch(row); err != nil {
			return err
		}
		if err := t.record(epochRecord{Event: "epoch", Step: t.at.GlobalStep, Epoch: row.Epoch, Loss: rundir.Float(row.Loss), Accuracy: rundir.Float(row.Accuracy),
			ValLoss: rundir.Float(row.ValLoss), ValAccuracy: rundir.Float(row.ValAccuracy), Seconds: row.Seconds, ImagesPerSecond: rundir.Float(row.ImagesPerSecond)}); err != nil {
			return err
		}
	}
	t.observe(EpochEnded{Epochs: t.config.Epochs, Row: row})
	return t.save()
}

// step trains on one batch.
func (t *Trainer) step(b loader.Batch) error {
	began := time.Now()
	p, err := t.programs.get(len(b.Indices))
	if err != nil {
		return err
	}
	rate := t.config.Optimizer.LearningRate
	inputs := []tensor.Tensor{b.Images, b.Labels, b.Weights}
	for _, s := range t.config.Optimizer.Scalars(int64(t.at.GlobalStep+1), rate) {
		inputs = append(inputs, tensor.Scalar(float32(s)))
	}
	out, err := p.Run(context.Background(), inputs...)
	if err != nil {
		return fmt.Errorf("step %d: %w", t.at.GlobalStep+1, err)
	}
	loss := scalar(out[0])
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		// The graph's guard has withheld the update.
		err := fmt.Errorf("step %d (epoch %d): the loss is %v; the step was not applied and no checkpoint was overwritten",
			t.at.GlobalStep+1, t.at.Epoch+1, loss)
		return hint.Wrap(err, fmt.Sprintf("try a lower learning rate than %g, or look at the data", rate))
	}
	labels := b.Labels.Int32s()
	correct, err := metric.Correct(float32s(out[1]), t.config.Model.Classes, labels)
	if err != nil {
		return err
	}
	images := float64(len(labels))
	t.at.Loss.Add(loss, images)
	t.at.Accuracy.Add(float64(correct)/images, images)
	t.at.Step++
	t.at.GlobalStep++
	seconds := time.Since(began).Seconds()
	t.at.Training += seconds
	t.clock.stepped(len(labels))
	if err := t.record(stepRecord{Event: "step", Step: t.at.GlobalStep, Epoch: t.at.Epoch + 1, Loss: rundir.Float(loss),
		Accuracy: float64(correct) / images, LearningRate: rate, StepSeconds: seconds}); err != nil {
		return err
	}

	remaining := t.remaining()
	if t.clock.steps == estimateAfter {
		t.observe(Estimated{remaining, t.clock.rate()})
	}
	t.observe(Stepped{
		Epoch: t.at.Epoch + 1, Epochs: t.config.Epochs, Step: t.at.Step, Steps: t.fit.Steps(),
		Loss: t.at.Loss.Value(), Accuracy: t.at.Accuracy.Value(),
		ImagesPerSecond: t.clock.rate(), Remaining: remaining,
	})
	return nil
}

func (t *Trainer) validate(ctx context.Context) (Score, error) {
	began, seen := time.Now(), 0
	score, err := t.eval.Run(ctx, t.val, func(b loader.Batch, _ []float32) error {
		seen += len(b.Indices)
		t.observe(Validating{seen, t.val.Len()})
		return nil
	})
	t.clock.validation = time.Since(began)
	return score, err
}

// validateBetween is the validation of EvalEvery, in the middle of an epoch.
func (t *Trainer) validateBetween(ctx context.Context) error {
	if t.val == nil {
		return nil
	}
	score, err := t.validate(ctx)
	if err != nil {
		return err
	}
	t.observe(Validated{Epoch: t.at.Epoch + 1, Step: t.at.GlobalStep, Loss: score.Loss, Accuracy: score.Accuracy})
	return t.record(epochRecord{Event: "validation", Step: t.at.GlobalStep, Epoch: t.at.Epoch + 1, Loss: rundir.Float(math.NaN()), Accuracy: rundir.Float(math.NaN()),
		ValLoss: rundir.Float(score.Loss), ValAccuracy: rundir.Float(score.Accuracy)})
}

// stepRecord and epochRecord are lines of metrics.jsonl.
type stepRecord struct {
	Event        string       `json:"event"`
	Step         int          `json:"step"`
	Epoch        int          `json:"epoch"`
	Loss         rundir.Float `json:"loss"` // of this batch alone
	Accuracy     float64      `json:"accuracy"`
	LearningRate float64      `json:"learning_rate"`
	StepSeconds  float64      `json:"step_seconds"`
}

type epochRecord struct {
	Event           string       `json:"event"`
	Step            int          `json:"step"`
	Epoch           int          `json:"epoch"`
	Loss            rundir.Float `json:"loss"`
	Accuracy        rundir.Float `json:"accuracy"`
	ValLoss         rundir.Float `json:"val_loss"`
	ValAccuracy     rundir.Float `json:"val_accuracy"`
	Seconds         float64      `json:"seconds"`
	ImagesPerSecond rundir.Float `json:"images_per_second"`
}

func (t *Trainer) record(v any) error {
	if t.run == nil {
		return nil
	}
	return t.run.AppendMetrics(v)
}

// estimateAfter is the number of steps that are timed before the first estimate;
// the first, which touches all memory for the first time, does not count.
const estimateAfter = 6

// clock measures speed. It decides nothing that is computed.
type clock struct {
	lapStart   time.Time
	steps      int
	validation time.Duration // of the last validation; 0: none yet
	seconds    float64       // smoothed, per image
	last       time.Time
}

func (c *clock) start() { c.lapStart, c.last = time.Now(), time.Now() }

// lap returns the seconds since the last lap.
func (c *clock) lap() float64 {
	now := time.Now()
	s := now.Sub(c.lapStart).Seconds()
	c.lapStart = now
	return s
}

func (c *clock) stepped(images int) {
	now := time.Now()
	each := now.Sub(c.last).Seconds() / float64(images)
	c.last = now
	c.steps++
	switch {
	case c.steps == 1:
	case c.seconds == 0:
		c.seconds = each
	default:
		c.seconds += (each - c.seconds) / float64(min(c.steps-1, 20))
	}
}

func (c *clock) rate() float64 {
	if c.seconds == 0 {
		return 0
	}
	return 1 / c.seconds
}

// remaining estimates the time to the end of the run. Until a validation has
// been timed, an image is taken to cost a third there of what it costs in
// training, where the backward pass has twice the products of the forward pass.
func (t *Trainer) remaining() time.Duration {
	epochs := t.config.Epochs - t.at.Epoch
	images := float64(epochs*t.fit.Len() - t.at.Step*t.config.BatchSize)
	total := time.Duration(images * t.clock.seconds * float64(time.Second))
	if t.val == nil {
		return total
	}
	validation := t.clock.validation
	if validation == 0 {
		validation = time.Duration(float64(t.val.Len()) * t.clock.seconds / 3 * float64(time.Second))
	}
	return total + time.Duration(epochs)*validation
}
