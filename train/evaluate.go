package train

import (
	"context"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/tensor"
)

// Score is the outcome of an evaluation. Loss is the mean over images of the
// cross-entropy, penalty included.
type Score struct {
	Loss     float64 `json:"loss"`
	Accuracy float64 `json:"accuracy"`
	Correct  int     `json:"correct"`
	Images   int     `json:"images"`
}

// Evaluator runs a model's forward pass with moving statistics over data. Its
// programs, one for each batch size it meets, share the variables it was given.
type Evaluator struct {
	config   Config
	engine   engine.Engine
	vars     engine.Variables
	programs engine.Programs
}

// NewEvaluator returns an evaluator of the variables in vars.
func NewEvaluator(c Config, e engine.Engine, vars engine.Variables) *Evaluator {
	ev := &Evaluator{config: c, engine: e, vars: vars}
	ev.programs.Compile = func(batch int) (engine.Program, error) {
		g, err := evalGraph(c, batch)
		if err != nil {
			return nil, err
		}
		return e.Compile(g, vars)
	}
	return ev
}

// Close frees the programs.
func (ev *Evaluator) Close() error { return ev.programs.Close() }

// Run scores all images of l. each, when not nil, sees every batch with its
// logits [n,K], which are valid until it returns.
func (ev *Evaluator) Run(ctx context.Context, l *loader.Loader, each func(b loader.Batch, logits []float32) error) (Score, error) {
	var loss metric.Mean
	var s Score
	for b, err := range l.Batches(ctx, 0, 0) {
		if err != nil {
			return s, err
		}
		p, err := ev.programs.Get(len(b.Indices))
		if err != nil {
			return s, err
		}
		out, err := p.Run(ctx, b.Images, b.Labels, b.Weights)
		if err != nil {
			return s, err
		}
		logits := out[1].AsFloat32s()
		correct, err := metric.Correct(logits, ev.config.Model.Classes, b.Labels.Int32s())
		if err != nil {
			return s, err
		}
		loss.Add(scalar(out[0]), float64(len(b.Indices)))
		s.Correct += correct
		s.Images += len(b.Indices)
		if each != nil {
			if err := each(b, logits); err != nil {
				return s, err
			}
		}
	}
	s.Loss, s.Accuracy = loss.Value(), float64(s.Correct)/float64(s.Images)
	return s, nil
}

// scalar reads an output of any engine's precision.
func scalar(t tensor.Tensor) float64 {
	if t.DType() == tensor.Float64 {
		return t.Float64s()[0]
	}
	return float64(t.Float32s()[0])
}
