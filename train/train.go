package train

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/graph"
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
	programs map[stepKind]*engine.Programs
	eval     *Evaluator
	average  *average // nil: none is kept

	at      position
	history rundir.History
	clock   clock
	savedAt int // updates made when the last checkpoint was written; -1: none

	saveFailed bool
	rowsLost   bool    // history.csv lacks epochs
	fixedRate  float64 // of a rate test; 0: none
}

// position is where training is: enough, with the variables, to continue as if
// nothing had happened. It is saved with every checkpoint.
type position struct {
	Epoch      int         `json:"epoch"`       // epochs done
	Step       int         `json:"step"`        // batches done in the next epoch
	GlobalStep int         `json:"global_step"` // updates made in all
	Loss       metric.Mean `json:"loss"`        // of the unfinished epoch
	Accuracy   metric.Mean `json:"accuracy"`
	Seconds    float64     `json:"-"` // spent on the unfinished epoch
	Training   float64     `json:"-"` // of these, in steps
	Elapsed    float64     `json:"-"` // spent on the run, over all resumptions

	// Skipped are batches that --on-nan rollback leaves out.
	Skipped []batchID `json:"skipped,omitempty"`
	// Watch is the state of early stopping, plateau and the best checkpoint.
	Watch watch `json:"watch"`
	// Rate is the learning rate of the last step.
	Rate float64 `json:"rate,omitempty"`
	// ValidatedAt is the number of updates at which EvalEvery last validated.
	ValidatedAt int `json:"validated_at,omitempty"`
	// Thawed is the number of updates made when the frozen epochs were over.
	Thawed int `json:"thawed,omitempty"`
	// Slow says that lookahead has its slow weights.
	Slow bool `json:"slow,omitempty"`
	// Planned is the number of batches in the whole run when a time budget
	// allows fewer than all epochs; 0: all.
	Planned int `json:"planned,omitempty"`
}

// batchID names a batch of the run.
type batchID struct {
	Epoch int `json:"epoch"` // from 0
	Step  int `json:"step"`  // within the epoch, from 0
}

// New prepares training from initial weights. observe may be nil.
func New(c Config, e engine.Engine, fit, val *loader.Loader, run *rundir.Dir, observe func(Event)) (*Trainer, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if observe == nil {
		observe = func(Event) {}
	}
	t := &Trainer{config: c, engine: e, vars: e.NewVariables(), fit: fit, val: val, run: run, observe: observe, savedAt: -1}
	g, err := StepGraph(c, c.BatchSize)
	if err != nil {
		return nil, err
	}
	t.graph = g
	t.programs = map[stepKind]*engine.Programs{}
	for _, kind := range []stepKind{{training, true}, {training, false}, {headOnly, true}, {headOnly, false}, {settled, true}, {settled, false}} {
		t.programs[kind] = &engine.Programs{Compile: func(batch int) (engine.Program, error) {
			g, err := stepGraph(c, batch, kind)
			if err != nil {
				return nil, err
			}
			return e.Compile(g, t.vars)
		}}
	}
	t.eval = NewEvaluator(c, e, t.vars)
	if c.EMA > 0 {
		t.average = newAverage(c, e)
	}
	if _, err := t.programs[stepKind{c.modeOf(0), true}].Get(min(c.BatchSize, fit.Len())); err != nil {
		return nil, err
	}
	if err := t.initialize(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// initialize sets every variable to its value before the first step.
func (t *Trainer) initialize() error {
	for _, v := range t.graph.Variables {
		if err := t.vars.Set(v.Name, model.Initial(v, t.config.Seed)); err != nil {
			return err
		}
	}
	if t.config.Init == nil {
		return t.whiten()
	}
	weights, err := t.config.Init.load(t.run)
	if err != nil {
		return err
	}
	g := *t.graph
	g.Variables = slices.DeleteFunc(slices.Clone(g.Variables), func(v *graph.Node) bool { return t.config.Init.NewHead && model.InHead(v.Name) })
	if err := setAll(t.vars, &g, weights, false); err != nil {
		return fmt.Errorf("the weights to begin with, of %s: %w", t.config.Init.Run, err)
	}
	return nil
}

// whitenFrom is how many pictures, and patches of them, the kernel of a whitening
// stem is computed from at most: airbench's 5,000 of CIFAR-10 with their 31² patches.
const whitenFrom, whitenPatches = 5000, 5000 * 31 * 31

// whiten computes the kernel of a whitening stem, from training pictures that are
// evenly spread over the data set, as validation would see them.
func (t *Trainer) whiten() error {
	m := t.config.Model
	if m.Whiten == 0 {
		return nil
	}
	w := model.NewWhitening(m.Whiten, m.Channels)
	n := max(1, min(whitenFrom, t.fit.Len(), whitenPatches/max(1, w.Patches(m.Height, m.Width))))
	const together = 100
	for first := 0; first < n; first += together {
		positions := make([]int, min(together, n-first))
		for i := range positions {
			positions[i] = (first + i) * t.fit.Len() / n
		}
		b, err := t.fit.Plain().At(context.Background(), 0, positions)
		if err == nil {
			err = w.Add(b.Images)
		}
		if err != nil {
			return fmt.Errorf("the whitening stem's kernel: %w", err)
		}
	}
	kernel, err := w.Kernel()
	if err != nil {
		return err
	}
	return t.vars.Set("whiten.weight", kernel)
}

// clearState sets the optimizer's state to what it is before the first step; the
// moving average is not part of it.
func (t *Trainer) clearState() error {
	for _, v := range t.graph.Variables {
		if v.Variable.Role == graph.State && !strings.HasPrefix(v.Name, averagePrefix) {
			if err := t.vars.Set(v.Name, model.Initial(v, t.config.Seed)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close frees the programs. The engine is the caller's to close.
func (t *Trainer) Close() error {
	errs := []error{t.eval.Close(), t.average.close()}
	for _, p := range t.programs {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// Kernels says which implementation runs each operation of a step.
func (t *Trainer) Kernels() map[string]string {
	return t.programs[stepKind{t.config.modeOf(t.at.Epoch), true}].Kernels()
}

// Variables is the store with the weights.
func (t *Trainer) Variables() engine.Variables { return t.vars }

// History returns a row for each epoch that has ended.
func (t *Trainer) History() rundir.History { return t.history }

// Run trains to the last epoch, or until early stopping or the time budget ends
// the run. When ctx is cancelled it finishes the step, saves and returns
// ErrStopped.
func (t *Trainer) Run(ctx context.Context) error {
	started := Started{
		Epochs: t.config.Epochs, Epoch: t.at.Epoch, Step: t.at.Step, StepsPerEpoch: t.fit.Steps(),
		Images: t.fit.Len(), Engine: t.engine.Name(),
	}
	if t.val != nil {
		started.ValImages = t.val.Len()
	}
	t.observe(started)
	if err := t.saveInitial(); err != nil {
		return err
	}
	t.clock.start()
	for !t.finished() {
		err := t.epoch(ctx)
		var bad *nonFinite
		switch {
		case err == nil:
		case errors.As(err, &bad) && t.config.OnNaN == RollBack:
			if err := t.rollBack(bad); err != nil {
				return err
			}
		case ctx.Err() != nil && errors.Is(err, ctx.Err()):
			t.spend()
			if saved, err := t.save(); err != nil || !saved && t.run != nil {
				return fmt.Errorf("stopped, but not saved: %w", cmp.Or(err, errNotSaved))
			}
			return ErrStopped
		default:
			t.spend()
			return t.saveAfter(err)
		}
	}
	return nil
}

// finished reports whether nothing is left to do.
func (t *Trainer) finished() bool {
	return t.at.Epoch >= t.config.Epochs || t.at.Watch.Stop ||
		t.at.Planned > 0 && t.at.Epoch*t.fit.Steps() >= t.at.Planned // the last epoch ends with its validation
}

// stepsOfEpoch is the number of batches in the current epoch: all, or what the
// time budget leaves.
func (t *Trainer) stepsOfEpoch() int {
	steps := t.fit.Steps()
	if t.at.Planned > 0 {
		steps = min(steps, t.at.Planned-t.at.Epoch*steps)
	}
	return steps
}

// spend books the time since the last call on the unfinished epoch.
func (t *Trainer) spend() {
	s := t.clock.lap()
	t.at.Seconds += s
	t.at.Elapsed += s
}

// epoch does the steps that are left of the epoch, validates, and enters the
// result in history and checkpoint.
func (t *Trainer) epoch(ctx context.Context) error {
	if err := t.thaw(); err != nil {
		return err
	}
	if err := t.steps(ctx); err != nil {
		return err
	}
	row, err := t.judgeEpoch(ctx)
	if err != nil {
		return err
	}
	t.history = append(t.history, row)
	best := t.at.Watch.see(t.config, row, t.val != nil)
	t.at = position{Epoch: t.at.Epoch + 1, GlobalStep: t.at.GlobalStep,
		Skipped: t.at.Skipped, Watch: t.at.Watch, Planned: t.at.Planned, Thawed: t.at.Thawed, Slow: t.at.Slow, Elapsed: t.at.Elapsed}
	if err := t.recordEpoch(row); err != nil {
		return err
	}
	t.observe(EpochEnded{Epochs: t.config.Epochs, Row: row, Best: best, Stopping: t.at.Watch.Reason})
	saved, err := t.save()
	if err != nil || !saved {
		return err
	}
	return t.nameCheckpoints(best)
}

// steps does the steps that are left of the epoch.
func (t *Trainer) steps(ctx context.Context) error {
	var u *update // nil between two updates
	batch := t.at.Step
	for b, err := range t.fit.Batches(context.WithoutCancel(ctx), t.at.Epoch, t.at.Step) {
		if err != nil {
			return errors.Join(err, t.undo(u))
		}
		if u == nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			if batch >= t.stepsOfEpoch() {
				break
			}
			if err := t.betweenSteps(ctx); err != nil {
				return err
			}
			u = t.newUpdate(batch)
		}
		if err := t.step(u, b, batch); err != nil {
			return err
		}
		if batch++; batch == u.end {
			t.at.Step = batch
			u = nil
		}
	}
	return nil
}

// judgeEpoch validates and returns the epoch's row of the history.
func (t *Trainer) judgeEpoch(ctx context.Context) (rundir.Epoch, error) {
	if t.at.Accuracy.Weight == 0 {
		return rundir.Epoch{}, fmt.Errorf("epoch %d: no step could be applied, %d batches were left out", t.at.Epoch+1, len(t.at.Skipped))
	}
	row := rundir.Epoch{
		Epoch: t.at.Epoch + 1, Loss: t.at.Loss.Value(), Accuracy: t.at.Accuracy.Value(),
		ValLoss: math.NaN(), ValAccuracy: math.NaN(), LearningRate: t.at.Rate,
		ImagesPerSecond: t.at.Accuracy.Weight / t.at.Training,
	}
	if t.val != nil {
		score, average, err := t.validate(ctx)
		if err != nil {
			return row, err
		}
		row.ValLoss, row.ValAccuracy = score.Loss, score.Accuracy
		if average != nil {
			row.EMA = &rundir.Scores{ValLoss: average.Loss, ValAccuracy: average.Accuracy}
		}
	}
	t.spend()
	row.Seconds = t.at.Seconds
	return row, nil
}

// recordEpoch enters an epoch in history.csv and metrics.jsonl.
func (t *Trainer) recordEpoch(row rundir.Epoch) error {
	if t.run == nil {
		return nil
	}
	if err := t.keepGoing(t.appendEpoch(row)); err != nil {
		return err
	}
	r := epochRecord{Event: "epoch", Step: t.at.GlobalStep, Epoch: row.Epoch, Loss: rundir.Float(row.Loss), Accuracy: rundir.Float(row.Accuracy),
		ValLoss: rundir.Float(row.ValLoss), ValAccuracy: rundir.Float(row.ValAccuracy), Seconds: row.Seconds, ImagesPerSecond: rundir.Float(row.ImagesPerSecond)}
	if row.EMA != nil {
		r.EMA = newEMARecord(row.EMA.ValLoss, row.EMA.ValAccuracy)
		r.BestWeights = t.at.Watch.Weights
	}
	return t.record(r)
}

// appendEpoch adds an epoch to history.csv, and before it those that could not be
// written.
func (t *Trainer) appendEpoch(row rundir.Epoch) (err error) {
	if t.rowsLost {
		err = t.run.RepairHistory(t.history)
	} else {
		err = t.run.AppendEpoch(row)
	}
	t.rowsLost = err != nil
	return err
}

// betweenSteps does what EvalEvery and SaveEvery ask for after the last step,
// unless that step ended an epoch, which does both anyway.
func (t *Trainer) betweenSteps(ctx context.Context) error {
	done := t.at.GlobalStep
	if t.at.Step == 0 || done == 0 {
		return nil
	}
	if every := t.config.EvalEvery; every > 0 && done%every == 0 && t.at.ValidatedAt != done {
		if err := t.validateBetween(ctx); err != nil {
			return err
		}
	}
	if every := t.config.SaveEvery; every > 0 && done%every == 0 && t.savedAt != done {
		t.spend()
		_, err := t.save()
		return err
	}
	return nil
}

// rate is the learning rate of the next update, which takes so many batches: the
// optimizer's, times the schedule's and the plateau's factors. Frozen epochs and those
// after them are two runs to the schedule, whose steps are updates.
func (t *Trainer) rate(batches int) float64 {
	if t.fixedRate > 0 {
		return t.fixedRate
	}
	total := t.total()
	done := t.at.Epoch*t.fit.Steps() + t.at.Step
	base, schedule := t.config.Optimizer.LearningRate, t.config.Schedule
	frozen := min(t.config.frozenEpochs()*t.fit.Steps(), total)
	if done < frozen {
		base, schedule, total = t.config.Freeze.LearningRate, t.config.Freeze.Schedule, frozen
	} else {
		done, total = done-frozen, total-frozen
	}
	factor := schedule.Factor(float64(done)/float64(total), float64(batches)/float64(total))
	return base * factor * t.at.Watch.rateFactor()
}

// total is the number of batches of the whole run.
func (t *Trainer) total() int { return cmp.Or(t.at.Planned, t.config.Epochs*t.fit.Steps()) }

// update is what the batches of one update have come to so far. A position lies
// between two updates: what is in here is never saved.
type update struct {
	batches  []int // of the epoch, those that are left out not among them
	end      int   // the batch after the last one
	of       int   // images in all
	images   int   // so far
	loss     metric.Mean
	correct  float64
	previous map[string]tensor.Tensor // moving statistics before the first batch
}

// newUpdate begins the update whose first batch is the given one.
func (t *Trainer) newUpdate(first int) *update {
	u := &update{end: min(first+max(1, t.config.Accumulate), t.stepsOfEpoch())}
	for batch := first; batch < u.end; batch++ {
		if !slices.Contains(t.at.Skipped, batchID{t.at.Epoch, batch}) {
			u.batches = append(u.batches, batch)
			u.of += min(t.config.BatchSize, t.fit.Len()-batch*t.config.BatchSize)
		}
	}
	return u
}

// step trains on one batch: the whole of an update, or the next part of it.
func (t *Trainer) step(u *update, b loader.Batch, batch int) error {
	if !slices.Contains(u.batches, batch) {
		return nil // left out
	}
	last := batch == u.batches[len(u.batches)-1]
	p, err := t.programs[stepKind{t.config.modeOf(t.at.Epoch), last}].Get(len(b.Indices))
	if err != nil {
		return err
	}
	if !last && u.images == 0 {
		if u.previous, err = values(t.vars, t.statistics()); err != nil {
			return err
		}
	}
	rate := t.rate(u.end - t.at.Step)
	inputs, slow := t.stepInputs(u, b, rate, last)
	out, err := p.Run(context.Background(), inputs...)
	if err != nil {
		return errors.Join(fmt.Errorf("step %d: %w", t.at.GlobalStep+1, err), t.undo(u))
	}
	loss, gradientSquares := scalar(out[0]), scalar(out[2])
	if !finite(loss) || !finite(gradientSquares) { // the graph's guard has withheld the update
		if err := t.undo(u); err != nil {
			return err
		}
		return t.capture(b, batch, loss, gradientSquares, rate)
	}
	correct, err := correctOf(b, out[1].AsFloat32s(), t.config.Model.Classes)
	if err != nil {
		return err
	}
	u.images += len(b.Indices)
	u.correct += correct
	u.loss.Add(loss, float64(len(b.Indices)))
	if !last {
		return nil
	}
	t.at.Slow = slow
	return t.updated(u, rate, math.Sqrt(gradientSquares))
}

// updated counts an update that was made, and tells of it.
func (t *Trainer) updated(u *update, rate, gradientNorm float64) error {
	images, loss := float64(u.images), u.loss.Value()
	t.at.Loss.Add(loss, images)
	t.at.Accuracy.Add(u.correct/images, images)
	t.at.Step = u.end
	t.at.GlobalStep++
	t.at.Rate = rate
	seconds := t.clock.stepped(u.images)
	t.at.Training += seconds
	if err := t.record(stepRecord{Event: "step", Step: t.at.GlobalStep, Epoch: t.at.Epoch + 1, Loss: rundir.Float(loss),
		Accuracy: u.correct / images, LearningRate: rate, GradientNorm: gradientNorm, StepSeconds: seconds}); err != nil {
		return err
	}

	t.plan()
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

// undo gives the moving statistics back what the batches of an update that will not be
// made have changed. u may be nil.
func (t *Trainer) undo(u *update) error {
	if u == nil {
		return nil
	}
	for name, value := range u.previous {
		if err := t.vars.Set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// correctOf is the number of pictures whose largest logit is that of their label.
// A mixed picture counts with the share that the class of its largest logit has in
// it, so that the most a batch can reach is the larger share, but where both labels
// are the same.
func correctOf(b loader.Batch, logits []float32, classes int) (float64, error) {
	first, err := metric.Correct(logits, classes, b.Labels.Int32s())
	if err != nil || !b.Partners.Valid() {
		return float64(first), err
	}
	second, err := metric.Correct(logits, classes, b.Partners.Int32s())
	return b.Share*float64(first) + (1-b.Share)*float64(second), err
}

// stepInputs are the inputs of a step's graph, and what position.Slow is after it.
// The optimizer counts updates from 1, and from 1 again when it began anew.
func (t *Trainer) stepInputs(u *update, b loader.Batch, rate float64, last bool) (inputs []tensor.Tensor, slow bool) {
	m := t.config.modeOf(t.at.Epoch)
	inputs, slow = lossInputs(t.config, b, m), t.at.Slow
	scalars := t.config.accumulateScalars(u.images, len(b.Indices), u.of)
	if last {
		next := t.at.GlobalStep + 1
		var lookahead []float64
		if m.whole() {
			steps, total := t.fit.Steps(), float64(t.total())
			lookahead, slow = t.config.Optimizer.Lookahead.Scalars(slow, next,
				float64(t.at.Epoch*steps+u.end)/total, float64(u.end-t.at.Step)/total, u.end == t.stepsOfEpoch())
		}
		scalars = append(scalars, t.config.updateScalars(next-t.at.Thawed, next, rate, lookahead)...)
	}
	for _, s := range scalars {
		inputs = append(inputs, tensor.Scalar(float32(s)))
	}
	return inputs, slow
}

// statistics are the variables that batch normalisation moves.
func (t *Trainer) statistics() []*graph.Node {
	return slices.DeleteFunc(slices.Clone(t.graph.Variables), func(v *graph.Node) bool { return v.Variable.Role != graph.Statistic })
}

// values are copies of variables, by name.
func values(vars engine.Variables, of []*graph.Node) (map[string]tensor.Tensor, error) {
	all := map[string]tensor.Tensor{}
	for _, v := range of {
		value, err := vars.Get(v.Name)
		if err != nil {
			return nil, err
		}
		all[v.Name] = value
	}
	return all, nil
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// validate scores the weights and, where one is kept, their moving average.
func (t *Trainer) validate(ctx context.Context) (score Score, average *Score, err error) {
	began, seen := time.Now(), 0
	images := t.val.Len()
	if t.average != nil {
		images *= 2
	}
	each := func(b loader.Batch, _ []float32) error {
		seen += len(b.Indices)
		t.observe(Validating{seen, images})
		return nil
	}
	score, err = t.eval.Run(ctx, t.val, each)
	if err == nil && t.average != nil {
		average = new(Score)
		if err = t.average.take(t.vars, t.graph); err == nil {
			*average, err = t.average.eval.Run(ctx, t.val, each)
		}
	}
	t.clock.validated(time.Since(began))
	return score, average, err
}

// validateBetween is the validation of EvalEvery, in the middle of an epoch.
func (t *Trainer) validateBetween(ctx context.Context) error {
	if t.val == nil {
		return nil
	}
	score, average, err := t.validate(ctx)
	if err != nil {
		return err
	}
	t.at.ValidatedAt = t.at.GlobalStep
	t.observe(Validated{Epoch: t.at.Epoch + 1, Step: t.at.GlobalStep, Loss: score.Loss, Accuracy: score.Accuracy, EMA: average})
	r := epochRecord{Event: "validation", Step: t.at.GlobalStep, Epoch: t.at.Epoch + 1, Loss: rundir.Float(math.NaN()), Accuracy: rundir.Float(math.NaN()),
		ValLoss: rundir.Float(score.Loss), ValAccuracy: rundir.Float(score.Accuracy)}
	if average != nil {
		r.EMA = newEMARecord(average.Loss, average.Accuracy)
	}
	return t.record(r)
}

// stepRecord and epochRecord are lines of metrics.jsonl.
type stepRecord struct {
	Event        string       `json:"event"`
	Step         int          `json:"step"`
	Epoch        int          `json:"epoch"`
	Loss         rundir.Float `json:"loss"` // of this batch alone
	Accuracy     float64      `json:"accuracy"`
	LearningRate float64      `json:"learning_rate"`
	GradientNorm float64      `json:"gradient_norm"` // of all parameters together
	StepSeconds  float64      `json:"step_seconds"`  // waiting for the batch included
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
	EMA             *emaRecord   `json:"ema,omitempty"`          // of the moving average
	BestWeights     string       `json:"best_weights,omitempty"` // raw or ema: which the best validation so far was of
}

type emaRecord struct {
	ValLoss     rundir.Float `json:"val_loss"`
	ValAccuracy rundir.Float `json:"val_accuracy"`
}

func newEMARecord(loss, accuracy float64) *emaRecord {
	return &emaRecord{rundir.Float(loss), rundir.Float(accuracy)}
}

func (t *Trainer) record(v any) error {
	if t.run == nil {
		return nil
	}
	return t.keepGoing(t.run.AppendMetrics(v))
}

// keepGoing applies OnSaveError to an error in writing the run directory.
func (t *Trainer) keepGoing(err error) error {
	if err != nil && t.config.OnSaveError == KeepTraining {
		t.observe(SaveFailed{err})
		return nil
	}
	return err
}
