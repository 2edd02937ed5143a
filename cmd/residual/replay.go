package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/train"
)

func newReplay() *cobra.Command {
	var engineName, precision, format string
	c := &cobra.Command{
		Use:   "replay CAPSULE",
		Short: "compute a step again whose loss or gradient was not finite",
		Long: `A run that meets a loss or gradient that is not finite does not apply the step and
leaves a capsule: the batch, the weights before the step, statistics of every value.
Replay computes the step again, with the engine and in the precision of the run, and names
the first layer that is not finite. Another precision shows whether the run's is to
blame.`,
		Example: `  residual replay runs/RUN/capsule-step-00000123.safetensors
  residual replay runs/RUN/capsule-step-00000123.safetensors --precision float32`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			var now, then string // engines with their precision
			capsule, layers, first, err := train.Replay(args[0], func(recorded train.Capsule) (engine.Engine, error) {
				name, in, err := replayedBy(recorded.Config, engineName, precision)
				if err != nil {
					return nil, err
				}
				eng, err := openPrecise(name, in, 0)
				if err == nil {
					now, then = eng.Name()+" "+in, recorded.Engine+" "+cmp.Or(recorded.Config.Precision, precisionOf(recorded.Config.Engine))
				}
				return eng, err
			})
			if err != nil {
				return capsuleHint(err, args[0])
			}
			r := replayed{capsule, now, first, layers}
			if format == "json" {
				return writeJSON(c.OutOrStdout(), r)
			}
			return r.write(c.OutOrStdout(), then)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	choiceFlag(f, &engineName, "engine", "that of the run, cpu, or ref: float64 in plain loops, slow", "run", "cpu", "ref")
	choiceFlag(f, &precision, "precision", "that of the run, or another one to compare", "run", "float32", "bfloat16")
	choiceFlag(f, &format, "format", "of the output", "text", "json")
	return c
}

// replayed is what "residual replay" tells.
type replayed struct {
	Capsule train.Capsule       `json:"capsule"`
	Engine  string              `json:"engine_now"`
	First   *train.LayerValues  `json:"first_not_finite_now"`
	Layers  []train.LayerValues `json:"layers_now"`
}

// write tells it to a person; then is the engine of the run.
func (r replayed) write(w io.Writer, then string) error {
	fmt.Fprintf(w, "step %d, epoch %d, batch %d: loss %s, sum of squared gradients %s, learning rate %g, on %s\n",
		r.Capsule.Step, r.Capsule.Epoch, r.Capsule.Batch, r.Capsule.Loss, r.Capsule.GradientSquares, r.Capsule.LearningRate, then)
	if r.Engine == then {
		fmt.Fprintf(w, "computed again on %s, as the run did\n", r.Engine)
	} else {
		fmt.Fprintf(w, "computed again on %s, where the run used %s\n", r.Engine, then)
	}
	fmt.Fprintf(w, "images %v\n\n", r.Capsule.Indices)
	fmt.Fprintf(w, "%-34s %-26s %12s %12s %12s %8s %8s\n", "layer", "value", "min", "max", "mean |x|", "NaN", "Inf")
	for _, l := range r.Layers {
		if l.NaN+l.Inf == 0 && (r.First == nil || l.MeanAbs < 1e4) && l.Op != "input" {
			continue // what is finite and not large explains nothing
		}
		fmt.Fprintf(w, "%-34s %-26s %12.4g %12.4g %12.4g %8d %8d\n", l.Layer, l.Op, l.Min, l.Max, l.MeanAbs, l.NaN, l.Inf)
	}
	name := func(v *train.LayerValues) string {
		if v == nil {
			return "nothing"
		}
		return v.String()
	}
	_, err := fmt.Fprintf(w, "\nfirst not finite: %s; when it happened: %s\n", name(r.First), name(r.Capsule.First))
	return err
}

// capsuleHint says where capsules are.
func capsuleHint(err error, path string) error {
	if hint.Of(err) != "" {
		return err
	}
	capsules, _ := filepath.Glob(filepath.Join(path, "capsule-*.safetensors"))
	info, missing := os.Stat(path)
	switch {
	case len(capsules) > 0:
		return hint.Wrap(err, "name one of the capsules in it: "+capsules[0])
	case missing == nil && info.IsDir():
		return hint.Wrap(err, "a run leaves capsule-….safetensors in its directory when a loss or gradient is not finite; here is none")
	}
	return hint.Wrap(err, "capsules are the files capsule-….safetensors of run directories")
}

// replayedBy resolves --engine and --precision of replay. The reference engine has one
// precision, which no other engine has.
func replayedBy(run train.Config, engineName, precision string) (name, in string, err error) {
	if name = engineName; name == "run" {
		name = run.Engine
	}
	if precision == "run" {
		if precision = run.Precision; name != run.Engine || precision == "" {
			precision = precisionOf(name)
		}
	}
	in, err = resolvePrecision(name, precision)
	return name, in, err
}
