package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/tensor"
	"github.com/residual-ml/residual/train"
)

// Recipe is what config.json of an imported run has for a recipe.
const Recipe = "import"

// goldenFile of a run directory holds the golden vectors that came with it, so
// that they leave with it again.
const goldenFile = "golden.json"

// maxGolden bounds that file.
const maxGolden = 1 << 26

// WriteRun makes a run directory of m, which must be complete (Complete): one
// that eval, predict, summary and all other commands use like a run that was
// trained here. origin is written to origin.json. On an error nothing is left of
// what it wrote.
func WriteRun(path string, m *artifact.Model, origin any) error {
	if m.Preprocess == nil {
		return fmt.Errorf("run directory %s: preprocessing is not known", path)
	}
	if err := m.Check(); err != nil {
		return err
	}
	c := train.Config{
		Recipe: Recipe, Model: m.Config, Classes: m.ClassNames(), Preprocess: *m.Preprocess,
		// It is not going to be trained, but a configuration is complete.
		Optimizer: optim.Config{Name: "sgd", LearningRate: 0.1}, Schedule: optim.Schedule{Name: "constant"}, Epochs: 1, BatchSize: 32,
		Monitor: train.MonitorLoss, OnNaN: train.Stop, OnSaveError: train.Stop,
		Data: train.DataConfig{Validation: "none"}, Engine: "cpu", Precision: "float32",
	}
	if err := c.Check(); err != nil {
		return err
	}
	_, missing := os.Stat(path)
	run, err := rundir.CreateLocked(path)
	if err != nil { // what is there is not ours to remove
		return err
	}
	checkpoint := rundir.Checkpoint{Step: m.Steps, Weights: m.Tensors, Metadata: map[string]string{}}
	if checkpoint.Metadata, err = m.WithoutGolden().WriteMetadata(); err == nil {
		err = run.SaveCheckpoint("last", checkpoint)
	}
	if err == nil && len(m.Golden) > 0 {
		err = run.WriteFile(goldenFile, func(w io.Writer) error { return json.NewEncoder(w).Encode(m.Golden) })
	}
	if err == nil {
		err = run.WriteOrigin(origin)
	}
	if err == nil {
		err = run.WriteConfig(c)
	}
	if err == nil {
		err = run.WriteResult(struct {
			Run        string   `json:"run"`
			Recipe     string   `json:"recipe"`
			Epochs     int      `json:"epochs"`
			Checkpoint string   `json:"checkpoint"`
			History    struct{} `json:"history"`
		}{run.Path(), Recipe, 0, "last", struct{}{}})
	}
	err = errors.Join(err, run.Close())
	if err != nil { // Create has found it empty, but for what a run killed at its start leaves
		entries, _ := os.ReadDir(path)
		for _, e := range entries {
			err = errors.Join(err, os.RemoveAll(filepath.Join(path, e.Name())))
		}
		if missing != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// ReadRun reads the network of a run directory: the checkpoint of that name, or
// the one that is the run's result. Of a damaged one the checkpoint before is
// taken, and Recognised says so.
func ReadRun(path, checkpoint string) (*artifact.Model, error) {
	run, c, err := train.Open(path)
	if err != nil {
		return nil, err
	}
	store := &variables{values: map[string]tensor.Tensor{}}
	warning, err := train.LoadWeights(run, checkpoint, c, store)
	if err != nil {
		return nil, err
	}
	tensors := map[string]tensor.Tensor{}
	for name, t := range store.values {
		tensors[name] = model.ToFile(t)
	}
	m, err := artifact.Build(c.Model, tensors)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if warning != "" {
		m.Recognised = append(m.Recognised, warning)
	}
	if !slices.Equal(c.Classes, artifact.Numbers(len(c.Classes))) {
		m.Classes = c.Classes
	}
	m.Preprocess = &c.Preprocess
	if m.Steps, err = stepOf(run, checkpoint); err != nil {
		return nil, err
	}
	if checkpoint == "" {
		if m.Golden, err = readGolden(filepath.Join(path, goldenFile)); err != nil {
			return nil, err
		}
	}
	return m, m.Check()
}

// stepOf is how many updates made a checkpoint.
func stepOf(run *rundir.Dir, name string) (int, error) {
	name, _, _ = strings.Cut(name, ":") // ":ema" and ":raw" are of the same step
	if name == "" {
		name = "last"
		var result struct{ Checkpoint string }
		if err := run.ReadResult(&result); err == nil && result.Checkpoint != "" {
			name, _, _ = strings.Cut(result.Checkpoint, ":")
		}
	}
	all, err := run.Checkpoints()
	for _, c := range all {
		if c.Name == name {
			return c.Step, nil
		}
	}
	return 0, err
}

func readGolden(path string) ([]artifact.Golden, error) {
	var golden []artifact.Golden
	_, err := readSideFile(path, maxGolden, &golden)
	return golden, err
}

// variables is a store that keeps what it is given, in graph layout.
type variables struct {
	names  []string
	values map[string]tensor.Tensor
}

var _ engine.Variables = (*variables)(nil)

func (v *variables) Names() []string { return v.names }

func (v *variables) Get(name string) (tensor.Tensor, error) {
	t, ok := v.values[name]
	if !ok {
		return t, fmt.Errorf("no variable %s", name)
	}
	return t, nil
}

func (v *variables) Set(name string, t tensor.Tensor) error {
	if _, ok := v.values[name]; !ok {
		v.names = append(v.names, name)
	}
	v.values[name] = t
	return nil
}
