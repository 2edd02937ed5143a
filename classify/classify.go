// Package classify uses a trained network in a Go program:
//
//	c, err := classify.Open("runs/2026-11-23-resnet18-cifar10", eng)
//	predictions, err := c.Predict(ctx, images)
package classify

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/tensor"
	"github.com/residual-ml/residual/train"
)

// Classifier is a trained network with its preprocessing and class names. It is
// not safe for concurrent use.
type Classifier struct {
	classes    []string
	preprocess loader.Preprocess
	config     train.Config
	engine     engine.Engine
	vars       engine.Variables
	programs   map[int]engine.Program // by batch size
}

// Prediction is a class with its probability.
type Prediction struct {
	Class       string  `json:"class"`
	Index       int     `json:"index"`
	Probability float64 `json:"probability"`
}

// Open loads the weights of a run directory: the last, or the best where early
// stopping restored it. Of a damaged checkpoint the one before is used, with a
// warning to slog's default. The engine stays the
// caller's to close, after the classifier.
func Open(runPath string, e engine.Engine) (*Classifier, error) {
	run, config, err := train.Open(runPath)
	if err != nil {
		return nil, err
	}
	c := &Classifier{classes: config.Classes, preprocess: config.Preprocess, config: config, engine: e,
		vars: e.NewVariables(), programs: map[int]engine.Program{}}
	warning, err := train.LoadWeights(run, "", config, c.vars)
	if err != nil {
		return nil, err
	}
	if warning != "" {
		slog.Warn(warning, "run", runPath)
	}
	return c, nil
}

// Classes returns the names of the classes in the order of the network's outputs.
func (c *Classifier) Classes() []string { return slices.Clone(c.classes) }

// Predict returns, for each picture, all classes with their probabilities, the
// most probable first. Pictures of any size are resized as in training.
func (c *Classifier) Predict(ctx context.Context, pictures []dataset.Image) ([][]Prediction, error) {
	if len(pictures) == 0 {
		return nil, nil
	}
	p, err := c.program(len(pictures))
	if err != nil {
		return nil, err
	}
	pre := c.preprocess
	images := tensor.New(tensor.Float32, len(pictures), pre.Height, pre.Width, pre.Channels)
	size := pre.Height * pre.Width * pre.Channels
	for i, picture := range pictures {
		pre.Apply(picture, images.Float32s()[i*size:(i+1)*size])
	}
	out, err := p.Run(ctx, images)
	if err != nil {
		return nil, err
	}
	probabilities := out[0].Convert(tensor.Float64).Float64s()
	predictions := make([][]Prediction, len(pictures))
	for i := range predictions {
		row := make([]Prediction, len(c.classes))
		for k, class := range c.classes {
			row[k] = Prediction{class, k, probabilities[i*len(c.classes)+k]}
		}
		slices.SortStableFunc(row, func(a, b Prediction) int { return cmp.Compare(b.Probability, a.Probability) })
		predictions[i] = row
	}
	return predictions, nil
}

func (c *Classifier) program(batch int) (engine.Program, error) {
	if p := c.programs[batch]; p != nil {
		return p, nil
	}
	g, err := c.config.Model.Graph(batch)
	if err != nil {
		return nil, err
	}
	p, err := c.engine.Compile(g, c.vars)
	if err != nil {
		return nil, fmt.Errorf("compiling for batches of %d: %w", batch, err)
	}
	c.programs[batch] = p
	return p, nil
}

// Close frees the programs.
func (c *Classifier) Close() error {
	for _, p := range c.programs {
		if err := p.Close(); err != nil {
			return err
		}
	}
	return nil
}
