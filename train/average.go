package train

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/rundir"
)

// The two sets of weights that a run with a moving average has.
const (
	RawWeights = "raw"
	EMAWeights = "ema"
)

// average scores the moving average of the weights, in a store of its own: the
// weights themselves stay where they are.
type average struct {
	vars engine.Variables
	eval *Evaluator
}

func newAverage(c Config, e engine.Engine) *average {
	vars := e.NewVariables()
	return &average{vars, NewEvaluator(c, e, vars)}
}

func (a *average) close() error {
	if a == nil {
		return nil
	}
	return a.eval.Close()
}

// take copies the moving average out of the variables of training.
func (a *average) take(from engine.Variables, g *graph.Graph) error {
	for _, v := range g.Variables {
		name, ok := strings.CutPrefix(v.Name, averagePrefix)
		if !ok {
			continue
		}
		value, err := from.Get(v.Name)
		if err != nil {
			return err
		}
		if err := a.vars.Set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// Result is the checkpoint that is a run's result, and which of its weights where
// it keeps a moving average.
type Result struct {
	Checkpoint string `json:"checkpoint"`
	Weights    string `json:"weights,omitempty"` // raw or ema; "": there is only one
	Epoch      int    `json:"epoch,omitempty"`   // after which the checkpoint was saved, from 1; 0: not said
}

// String is the result as LoadWeights takes it.
func (r Result) String() string {
	if r.Weights == "" {
		return r.Checkpoint
	}
	return r.Checkpoint + ":" + r.Weights
}

// Result is the run's: the best checkpoint where early stopping restores it (the best
// of those that could be saved), else the last. Of weights and moving average it is what
// validation says is better, unless that was on the test split, which chooses nothing:
// then the average.
func (t *Trainer) Result() Result {
	r := Result{Checkpoint: lastCheckpoint, Epoch: len(t.history)}
	if t.config.EarlyStop.RestoreBest && t.config.EarlyStop.Patience > 0 && t.run != nil {
		if best, ok := checkpointNamed(t.run, bestCheckpoint); ok && best.Epoch >= 1 && best.Epoch <= len(t.history) {
			r.Checkpoint, r.Epoch = bestCheckpoint, best.Epoch
		}
	}
	if t.config.EMA > 0 {
		r.Weights = EMAWeights
	}
	if r.Weights == "" || t.val == nil || t.config.Data.Validation == "test" || len(t.history) == 0 {
		return r
	}
	row := t.history[r.Epoch-1]
	if row.EMA != nil && t.config.monitored(row.ValLoss, row.ValAccuracy) < t.config.monitored(row.EMA.ValLoss, row.EMA.ValAccuracy) {
		r.Weights = RawWeights
	}
	return r
}

// resultOf is the recorded result of a run, or of one that has not ended its last
// checkpoint.
func resultOf(run *rundir.Dir, c Config) Result {
	var r Result
	if err := run.ReadResult(&r); err != nil || r.Checkpoint == "" {
		r = Result{Checkpoint: lastCheckpoint}
	}
	if r.Weights == "" && c.EMA > 0 {
		r.Weights = EMAWeights
	}
	return r
}

// Resolve says which checkpoint, and which of its weights, LoadWeights takes.
func Resolve(run *rundir.Dir, checkpoint string, c Config) Result {
	result := resultOf(run, c)
	name, which, _ := strings.Cut(checkpoint, ":")
	return Result{Checkpoint: cmp.Or(name, result.Checkpoint), Weights: cmp.Or(which, result.Weights)}
}

// readWeights reads what LoadWeights loads, in file order.
func readWeights(run *rundir.Dir, checkpoint string, c Config) (weights []safetensors.Named, warning string, err error) {
	taken := Resolve(run, checkpoint, c)
	name, which := taken.Checkpoint, taken.Weights
	switch which {
	case "", RawWeights:
		saved, err := run.LoadWeights(name)
		return saved.Weights, saved.Fallback, err
	case EMAWeights:
	default:
		return nil, "", fmt.Errorf("weights %q: want raw or ema", which)
	}
	if c.EMA == 0 {
		return nil, "", fmt.Errorf("%s keeps no moving average of its weights", run.Path())
	}
	saved, err := run.LoadCheckpoint(name)
	if err != nil {
		return nil, "", err
	}
	for _, n := range saved.State {
		if name, ok := strings.CutPrefix(n.Name, averagePrefix); ok {
			n.Name = name
			weights = append(weights, n)
		}
	}
	return slices.Clip(weights), saved.Fallback, nil
}
