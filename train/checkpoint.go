package train

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/tensor"
)

// Keys of a checkpoint's metadata. With modelKey, classesKey and preprocessKey
// the file of weights can be used without the run directory.
const (
	modelKey      = "model"
	classesKey    = "classes"
	preprocessKey = "preprocess"
	positionKey   = "position"
	historyKey    = "history"
)

// clockTensor is a tensor among the state with position's Seconds, Training and
// Elapsed, and then Seconds and ImagesPerSecond of each epoch of the history.
const clockTensor = "clock"

// Names of checkpoints: the newest, and the best by validation.
const (
	lastCheckpoint = "last"
	bestCheckpoint = "best"
)

// save writes everything that continuing needs, as the checkpoint "last". Under
// OnSaveError "continue", saved is false and err nil when that failed.
func (t *Trainer) save() (saved bool, err error) {
	if t.run == nil {
		return false, nil
	}
	c := rundir.Checkpoint{Step: t.at.GlobalStep, Epoch: t.at.Epoch, Metadata: map[string]string{}}
	for key, v := range map[string]any{modelKey: t.config.Model, classesKey: t.config.Classes, preprocessKey: t.config.Preprocess, positionKey: t.at, historyKey: saveHistory(t.history)} {
		text, err := json.Marshal(v)
		if err != nil {
			return false, fmt.Errorf("checkpoint: %s: %w", key, err)
		}
		c.Metadata[key] = string(text)
	}
	// Times are kept apart, so that the file of weights is the same for the same run.
	times := []float64{t.at.Seconds, t.at.Training, t.at.Elapsed}
	for _, e := range t.history {
		times = append(times, e.Seconds, e.ImagesPerSecond)
	}
	c.State = append(c.State, safetensors.Named{Name: clockTensor, Tensor: tensor.Of(times, len(times))})
	variables, err := inFile(t.vars, t.graph, "")
	if err != nil {
		return false, err
	}
	for i, v := range t.graph.Variables {
		if v.Variable.Role == graph.State {
			c.State = append(c.State, variables[i])
		} else {
			c.Weights = append(c.Weights, variables[i])
		}
	}
	if err := t.run.SaveCheckpoint(lastCheckpoint, c); err != nil {
		t.saveFailed = true
		return false, t.keepGoing(err)
	}
	t.savedAt = t.at.GlobalStep
	t.observe(Saved{t.at.Epoch, t.at.GlobalStep})
	return true, nil
}

// inFile are a graph's variables as they go to a file, under their names after a
// prefix. They are read one by one when they are written: together they would be
// copies of all weights and moments.
func inFile(vars engine.Variables, g *graph.Graph, prefix string) ([]safetensors.Named, error) {
	var all []safetensors.Named
	var precision tensor.DType // the engine's, of all variables
	for i, v := range g.Variables {
		get := func() (tensor.Tensor, error) {
			value, err := vars.Get(v.Name)
			if err != nil {
				return value, err
			}
			return model.ToFile(value), nil
		}
		if i == 0 {
			first, err := get()
			if err != nil {
				return nil, err
			}
			precision = first.DType()
		}
		all = append(all, safetensors.Named{Name: prefix + v.Name, Later: &safetensors.Later{DType: precision, Shape: model.FileShape(v.Shape), Get: get}})
	}
	return all, nil
}

var errNotSaved = errors.New("the run directory cannot be written")

// saveAfter saves what was reached when training ends with an error that is not
// about saving, and returns that error. Weights that are not finite are not
// saved: the checkpoint before is better.
func (t *Trainer) saveAfter(cause error) error {
	if t.run == nil || t.savedAt == t.at.GlobalStep || t.saveFailed {
		return cause
	}
	for _, v := range t.graph.Variables {
		value, err := t.vars.Get(v.Name)
		if err != nil {
			return errors.Join(cause, err)
		}
		if seen := look(v, value); seen.NaN+seen.Inf > 0 {
			return cause
		}
	}
	_, err := t.save()
	return errors.Join(cause, err)
}

// nameCheckpoints gives the checkpoint that was just saved the names that are
// kept: best, and those of single epochs.
func (t *Trainer) nameCheckpoints(best bool) error {
	if t.run == nil {
		return nil
	}
	if best && t.config.KeepBest {
		if err := t.keepGoing(t.run.NameCheckpoint(lastCheckpoint, bestCheckpoint)); err != nil {
			return err
		}
	}
	if t.config.Keep == 0 {
		return nil
	}
	if err := t.run.NameCheckpoint(lastCheckpoint, fmt.Sprintf("epoch-%04d", t.at.Epoch)); err != nil {
		return t.keepGoing(err)
	}
	return t.keepGoing(t.run.Keep(t.config.Keep))
}

// rollBack goes back to the last checkpoint, or to the initial weights, and
// leaves the batch out whose step was not finite.
func (t *Trainer) rollBack(bad *nonFinite) error {
	skipped := append(slices.Clone(t.at.Skipped), bad.batch)
	if len(skipped) > maxRollbacks {
		return fmt.Errorf("%w; rolled back %d times, that is enough", bad, maxRollbacks)
	}
	elapsed, planned := t.at.Elapsed, t.at.Planned
	if t.run == nil {
		return bad
	}
	saved, err := t.run.Checkpoints()
	if err != nil {
		return err
	}
	if trained(saved) {
		if err = t.restore(); err == nil {
			err = t.forgetLater()
		}
	} else {
		t.at, t.history = position{}, nil
		err = errors.Join(t.run.TruncateAfter(0, 0), t.initialize())
	}
	if err != nil {
		return err
	}
	t.at.Skipped, t.at.Elapsed, t.at.Planned = skipped, elapsed, planned
	t.observe(RolledBack{Epoch: bad.batch.Epoch + 1, Step: t.at.GlobalStep, Batch: bad.batch.Step + 1})
	return t.record(struct {
		Event string  `json:"event"`
		Step  int     `json:"step"`
		Batch batchID `json:"batch"`
	}{"rollback", t.at.GlobalStep, bad.batch})
}

// maxRollbacks is how many batches a run may leave out before it gives up.
const maxRollbacks = 20

// Resume continues from the run directory's last checkpoint: variables, the
// optimizer's state, position within the epoch, and history. What the directory
// records beyond the checkpoint is removed, since it comes again. A run that
// ended before its first checkpoint starts from the beginning.
func (t *Trainer) Resume() error {
	all, err := t.run.Checkpoints()
	if err != nil {
		return err
	}
	if !trained(all) {
		return t.run.TruncateAfter(0, 0)
	}
	if err := t.restore(); err != nil {
		return err
	}
	switch {
	case !t.finished():
		if err := t.forgetLater(); err != nil {
			return err
		}
		if t.at.Step == 0 && t.at.Epoch > 0 { // killed between saving and naming, perhaps
			return t.nameCheckpoints(t.at.Watch.Epoch == t.at.Epoch)
		}
		return nil
	case !t.run.Finished(): // killed before its result was written: Run has nothing to do
		return errors.Join(t.run.RepairHistory(t.history), t.nameCheckpoints(t.at.Watch.Epoch == t.at.Epoch))
	case t.at.Epoch >= t.config.Epochs:
		return hint.Wrap(fmt.Errorf("%s: all %d epochs are done", t.run.Path(), t.at.Epoch), "train longer with: --epochs N")
	}
	return fmt.Errorf("%s: the run has ended after epoch %d: %s", t.run.Path(), t.at.Epoch, cmp.Or(t.at.Watch.Reason, "its time budget is spent"))
}

// trained reports whether there is a checkpoint besides the one that training
// began with.
func trained(all []rundir.CheckpointInfo) bool {
	return slices.ContainsFunc(all, func(c rundir.CheckpointInfo) bool { return c.Name != initialCheckpoint })
}

// forgetLater removes what the run directory records beyond the position.
func (t *Trainer) forgetLater() error {
	if err := t.run.TruncateAfter(t.at.Epoch, t.at.GlobalStep); err != nil {
		return err
	}
	return t.run.RepairHistory(t.history)
}

// restore sets everything in memory to what the last checkpoint says.
func (t *Trainer) restore() error {
	c, err := t.run.LoadCheckpoint(lastCheckpoint)
	if err != nil {
		return err
	}
	if c.Fallback != "" {
		t.observe(FellBack{c.Fallback})
	}
	fail := func(err error) error { return fmt.Errorf("checkpoint of step %d: %w", c.Step, err) }
	var at position
	if err := json.Unmarshal([]byte(c.Metadata[positionKey]), &at); err != nil {
		return fail(fmt.Errorf("its position %q: %w", c.Metadata[positionKey], err))
	}
	if at.GlobalStep != c.Step || at.Epoch < 0 || at.Step < 0 || at.Step > t.fit.Steps() {
		return fail(fmt.Errorf("position %+v does not fit %d steps in an epoch", at, t.fit.Steps()))
	}
	var saved []savedEpoch
	if err := json.Unmarshal([]byte(c.Metadata[historyKey]), &saved); err != nil {
		return fail(fmt.Errorf("its history: %w", err))
	}
	if len(saved) != at.Epoch {
		return fail(fmt.Errorf("its history has %d epochs, its position %d", len(saved), at.Epoch))
	}
	i := slices.IndexFunc(c.State, func(n safetensors.Named) bool { return n.Name == clockTensor })
	if i < 0 || c.State[i].Tensor.DType() != tensor.Float64 || c.State[i].Tensor.Len() != 3+2*len(saved) {
		return fail(fmt.Errorf("it has no tensor %s of %d float64", clockTensor, 3+2*len(saved)))
	}
	times := c.State[i].Tensor.Float64s()
	c.State = slices.Delete(c.State, i, i+1)
	at.Seconds, at.Training, at.Elapsed = times[0], times[1], times[2]
	if err := setAll(t.vars, t.graph, append(c.Weights, c.State...), true); err != nil {
		return fail(err)
	}
	t.at, t.history = at, nil
	for i, e := range saved {
		t.history = append(t.history, rundir.Epoch{
			Epoch: e.Epoch, Loss: float64(e.Loss), Accuracy: float64(e.Accuracy), ValLoss: float64(e.ValLoss), ValAccuracy: float64(e.ValAccuracy),
			LearningRate: e.LearningRate, Seconds: times[3+2*i], ImagesPerSecond: times[4+2*i],
		})
		if e.EMA != nil {
			t.history[i].EMA = &rundir.Scores{ValLoss: float64(e.EMA.ValLoss), ValAccuracy: float64(e.EMA.ValAccuracy)}
		}
	}
	return nil
}

// savedEpoch is a row of the history in a checkpoint, with null for NaN. Times
// are not in it: the file of weights is the same for the same run.
type savedEpoch struct {
	Epoch        int          `json:"epoch"`
	Loss         rundir.Float `json:"loss"`
	Accuracy     rundir.Float `json:"sparse_categorical_accuracy"`
	ValLoss      rundir.Float `json:"val_loss"`
	ValAccuracy  rundir.Float `json:"val_sparse_categorical_accuracy"`
	LearningRate float64      `json:"learning_rate"`

	EMA *emaRecord `json:"ema,omitempty"`
}

func saveHistory(h rundir.History) []savedEpoch {
	saved := make([]savedEpoch, len(h))
	for i, e := range h {
		saved[i] = savedEpoch{e.Epoch, rundir.Float(e.Loss), rundir.Float(e.Accuracy), rundir.Float(e.ValLoss), rundir.Float(e.ValAccuracy), e.LearningRate, nil}
		if e.EMA != nil {
			saved[i].EMA = newEMARecord(e.EMA.ValLoss, e.EMA.ValAccuracy)
		}
	}
	return saved
}

// Open opens a run and reads its configuration.
func Open(path string) (*rundir.Dir, Config, error) {
	var c Config
	run, err := rundir.Open(path)
	if err != nil {
		return nil, c, err
	}
	if err := run.ReadConfig(&c); err != nil {
		return nil, c, err
	}
	if err := c.Check(); err != nil {
		return nil, c, fmt.Errorf("%s: config.json: %w", path, err)
	}
	return run, c, nil
}

// LoadWeights fills vars with the parameters and moving statistics of a run's
// checkpoint: "last", "best", or "" for the one that is the run's result. A suffix
// ":raw" or ":ema" chooses between the weights and their moving average; without
// it they are those of the result, or the average where the run has not ended.
// When the checkpoint's files are damaged and another one was taken, warning says so.
func LoadWeights(run *rundir.Dir, checkpoint string, c Config, vars engine.Variables) (warning string, err error) {
	weights, warning, err := readWeights(run, checkpoint, c)
	if err != nil {
		return "", err
	}
	g, err := c.Model.Graph(1)
	if err == nil {
		err = setAll(vars, g, weights, false)
	}
	if err != nil {
		return "", fmt.Errorf("%s: checkpoint %q: %w", run.Path(), checkpoint, err)
	}
	return warning, nil
}

// setAll sets every variable of g from tensors in file order. A tensor that is
// missing, superfluous or of another shape is an error; the optimizer's state
// may be missing unless state is wanted.
func setAll(vars engine.Variables, g *graph.Graph, tensors []safetensors.Named, state bool) error {
	byName := map[string]safetensors.Named{}
	for _, n := range tensors {
		byName[n.Name] = n
	}
	for _, v := range g.Variables {
		n, ok := byName[v.Name]
		if !ok {
			if v.Variable.Role == graph.State && !state {
				continue
			}
			return fmt.Errorf("it has no tensor %s", v.Name)
		}
		delete(byName, v.Name)
		value := model.FromFile(n.Tensor)
		if !value.Shape().Equal(v.Shape) {
			return fmt.Errorf("tensor %s has shape %v, the network wants %v", v.Name, n.Tensor.Shape(), v.Shape)
		}
		if err := vars.Set(v.Name, value); err != nil {
			return err
		}
	}
	for name := range byName {
		return fmt.Errorf("tensor %s has no place in the network", name)
	}
	return nil
}

// HashVariables writes everything that a checkpoint's future depends on to w:
// weights and the optimizer's state, names, shapes and bits, in order. Times,
// which differ from run to run, are left out.
func HashVariables(w io.Writer, c rundir.Checkpoint) error {
	for _, n := range append(slices.Clone(c.Weights), c.State...) {
		if n.Name == clockTensor {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s %v %v\n", n.Name, n.Tensor.DType(), n.Tensor.Shape()); err != nil {
			return err
		}
		if err := tensor.Write(w, n.Tensor.Convert(tensor.Float64)); err != nil {
			return err
		}
	}
	return nil
}
