package train

import (
	"encoding/json"
	"errors"
	"fmt"

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
)

// lastCheckpoint is the name of the newest checkpoint.
const lastCheckpoint = "last"

// save writes everything that continuing needs, as the checkpoint "last".
func (t *Trainer) save() error {
	if t.run == nil {
		return nil
	}
	c := rundir.Checkpoint{Step: t.at.GlobalStep, Epoch: t.at.Epoch, Metadata: map[string]string{}}
	for key, v := range map[string]any{modelKey: t.config.Model, classesKey: t.config.Classes, preprocessKey: t.config.Preprocess, positionKey: t.at} {
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("checkpoint: %s: %w", key, err)
		}
		c.Metadata[key] = string(text)
	}
	for _, v := range t.graph.Variables {
		value, err := t.vars.Get(v.Name)
		if err != nil {
			return err
		}
		named := safetensors.Named{Name: v.Name, Tensor: model.ToFile(value.Convert(tensor.Float32))}
		if v.Variable.Role == graph.State {
			c.State = append(c.State, named)
		} else {
			c.Weights = append(c.Weights, named)
		}
	}
	if err := t.run.SaveCheckpoint(lastCheckpoint, c); err != nil {
		return err
	}
	t.observe(Saved{t.at.Epoch, t.at.GlobalStep})
	return nil
}

// Resume continues from the run directory's last checkpoint: variables, the
// optimizer's state, position within the epoch, and history. What the directory
// records beyond the checkpoint is removed, since it comes again. A run that
// ended before its first checkpoint starts from the beginning.
func (t *Trainer) Resume() error {
	if all, err := t.run.Checkpoints(); err != nil || len(all) == 0 {
		return errors.Join(err, t.run.TruncateAfter(0, 0))
	}
	c, err := t.run.LoadCheckpoint(lastCheckpoint)
	if err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("checkpoint of step %d: %w", c.Step, err) }
	var at position
	if err := json.Unmarshal([]byte(c.Metadata[positionKey]), &at); err != nil {
		return fail(fmt.Errorf("its position %q: %w", c.Metadata[positionKey], err))
	}
	if at.GlobalStep != c.Step || at.Epoch < 0 || at.Step < 0 || at.Step > t.fit.Steps() {
		return fail(fmt.Errorf("position %+v does not fit %d steps in an epoch", at, t.fit.Steps()))
	}
	if at.Epoch >= t.config.Epochs {
		return hint.Wrap(fmt.Errorf("%s: all %d epochs are done", t.run.Path(), at.Epoch), "train longer with: --epochs N")
	}
	if err := setAll(t.vars, t.graph, append(c.Weights, c.State...), true); err != nil {
		return fail(err)
	}
	if err := t.run.TruncateAfter(at.Epoch, at.GlobalStep); err != nil {
		return err
	}
	t.at = at
	t.history, err = t.run.History()
	if err == nil && len(t.history) != at.Epoch {
		return fmt.Errorf("%s: history.csv has %d epochs, the checkpoint %d", t.run.Path(), len(t.history), at.Epoch)
	}
	return err
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
// checkpoint, such as "last".
func LoadWeights(run *rundir.Dir, checkpoint string, c Config, vars engine.Variables) error {
	saved, err := run.LoadWeights(checkpoint)
	if err != nil {
		return err
	}
	g, err := c.Model.Graph(1)
	if err == nil {
		err = setAll(vars, g, saved.Weights, false)
	}
	if err != nil {
		return fmt.Errorf("%s: checkpoint %q: %w", run.Path(), checkpoint, err)
	}
	return nil
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
