// Package classify uses a trained network in a Go program:
//
//	eng, err := cpu.New(cpu.Options{}) // of package engine/cpu
//	c, err := classify.Open("runs/2026-11-23-resnet18-cifar10", eng)
//	predictions, err := c.Predict(ctx, images)
package classify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/tensor"
	"github.com/residual-ml/residual/train"
)

// Classifier is a trained network with its preprocessing and class names. It is
// not safe for concurrent use.
type Classifier struct {
	run         *rundir.Dir
	config      train.Config
	engine      engine.Engine
	vars        engine.Variables
	programs    engine.Programs
	temperature float64
	weights     string // WeightsHash, once asked for
}

// Prediction is a class with its probability.
type Prediction struct {
	Class       string  `json:"class"`
	Index       int     `json:"index"`
	Probability float64 `json:"probability"`
}

// Open loads the weights of a run directory: the last, or the best where early
// stopping restored it. Of a damaged checkpoint the one before is used, with a
// warning to slog's default. The engine stays the caller's to close, after the
// classifier.
func Open(runPath string, e engine.Engine) (*Classifier, error) {
	c, warning, err := OpenCheckpoint(runPath, "", e)
	if warning != "" {
		slog.Warn(warning, "run", runPath)
	}
	return c, err
}

// OpenCheckpoint is Open for a checkpoint by name: last, best, or "" for the run's
// result, with :ema or :raw behind to choose between the moving average and the
// weights of the steps. The warning says which one was taken instead of a damaged one.
func OpenCheckpoint(runPath, checkpoint string, e engine.Engine) (c *Classifier, warning string, err error) {
	run, config, err := train.Open(runPath)
	if err != nil {
		return nil, "", err
	}
	c = &Classifier{run: run, config: config, engine: e, vars: e.NewVariables(), temperature: 1}
	c.programs.Compile = func(batch int) (engine.Program, error) {
		g, err := config.Model.Graph(batch)
		if err != nil {
			return nil, err
		}
		return e.Compile(g, c.vars)
	}
	if warning, err = train.LoadWeights(run, checkpoint, config, c.vars); err != nil {
		return nil, "", err
	}
	return c, warning, nil
}

// Classes returns the names of the classes in the order of the network's outputs.
func (c *Classifier) Classes() []string { return slices.Clone(c.config.Classes) }

// Config is the run's configuration: network, preprocessing, data.
func (c *Classifier) Config() train.Config { return c.config }

// Run is the run directory.
func (c *Classifier) Run() *rundir.Dir { return c.run }

// Engine is the engine that Open was given.
func (c *Classifier) Engine() engine.Engine { return c.engine }

// Variables is the store with the weights, for other graphs of the same network.
func (c *Classifier) Variables() engine.Variables { return c.vars }

// Temperature divides the logits before the softmax of Predict; it is 1 until
// SetTemperature.
func (c *Classifier) Temperature() float64 { return c.temperature }

// SetTemperature makes Predict's probabilities flatter (above 1) or steeper; the
// order of the classes stays the same. Calibration finds the one that was fitted.
func (c *Classifier) SetTemperature(t float64) error {
	if !(t > 0) || math.IsInf(t, 0) {
		return fmt.Errorf("temperature %v, want a number above 0", t)
	}
	c.temperature = t
	return nil
}

// Logits runs the network on a batch of preprocessed pictures [N,H,W,C] (see Prepare).
// The logits [N,K], before softmax and temperature, are valid until the next call.
func (c *Classifier) Logits(ctx context.Context, images tensor.Tensor) ([]float32, error) {
	p, err := c.programs.Get(images.Shape()[0])
	if err != nil {
		return nil, err
	}
	out, err := p.Run(ctx, images)
	if err != nil {
		return nil, err
	}
	return out[1].AsFloat32s(), nil
}

// Prepare makes of pictures of any size what Logits takes, float32 [N,H,W,C]: resized
// and scaled as in training.
func (c *Classifier) Prepare(pictures []dataset.Image) tensor.Tensor {
	pre := c.config.Preprocess
	images := tensor.New(tensor.Float32, len(pictures), pre.Height, pre.Width, pre.Channels)
	size := pre.Height * pre.Width * pre.Channels
	for i, picture := range pictures {
		pre.Apply(picture, images.Float32s()[i*size:(i+1)*size])
	}
	return images
}

// Predict returns, for each picture, all classes with their probabilities, the
// most probable first. Pictures of any size are resized as in training.
func (c *Classifier) Predict(ctx context.Context, pictures []dataset.Image) ([][]Prediction, error) {
	if len(pictures) == 0 {
		return nil, nil
	}
	logits, err := c.Logits(ctx, c.Prepare(pictures))
	if err != nil {
		return nil, err
	}
	k := len(c.config.Classes)
	predictions := make([][]Prediction, len(pictures))
	for i := range predictions {
		if predictions[i], err = c.Ranked(logits[i*k : (i+1)*k]); err != nil {
			return nil, fmt.Errorf("picture %d: %w", i, err)
		}
	}
	return predictions, nil
}

// Ranked returns all classes with the probabilities that a row of logits and the
// temperature give them, the most probable first, equal ones in the network's order.
// A row with NaN or +∞, which has no probabilities, is an error.
func (c *Classifier) Ranked(logits []float32) ([]Prediction, error) {
	probabilities := make([]float64, len(logits))
	metric.Softmax(probabilities, logits, c.temperature)
	if slices.ContainsFunc(probabilities, math.IsNaN) {
		return nil, fmt.Errorf("the network's outputs are no finite numbers: %v", logits)
	}
	row := make([]Prediction, len(logits))
	for k, class := range c.config.Classes {
		row[k] = Prediction{class, k, probabilities[k]}
	}
	slices.SortStableFunc(row, func(a, b Prediction) int { return cmp.Compare(b.Probability, a.Probability) })
	return row, nil
}

// WeightsHash is "sha256:…" over names, shapes and numbers of the network's
// variables as they were loaded: what was found out about equal weights holds,
// whatever the checkpoint is called.
func (c *Classifier) WeightsHash() (string, error) {
	if c.weights != "" {
		return c.weights, nil
	}
	g, err := c.config.Model.Graph(1)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, v := range g.Variables {
		value, err := c.vars.Get(v.Name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(sum, v.Name, value.Shape())
		_ = tensor.Write(sum, value.Convert(tensor.Float32)) // a hash takes all
	}
	c.weights = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return c.weights, nil
}

// Calibration is a temperature that was fitted to pictures the network was not
// trained on, as a run keeps it in evaluations/temperature.json.
type Calibration struct {
	Kind        string    `json:"kind"` // "temperature"
	Temperature float64   `json:"temperature"`
	Data        string    `json:"data"` // what it was fitted to
	DataHash    string    `json:"data_hash"`
	Split       string    `json:"split"`
	Images      int       `json:"images"`
	TTA         string    `json:"tta"`          // views that were averaged: none, flip, six
	Weights     string    `json:"weights"`      // WeightsHash of the network
	NLLBefore   float64   `json:"nll_before"`   // mean cross-entropy of these pictures at temperature 1
	NLLAfter    float64   `json:"nll_after"`    // and at the one fitted
	ECEBefore   float64   `json:"ece_before"`   // expected calibration error, 15 bins
	ECEAfter    float64   `json:"ece_after"`    //
	Fitted      time.Time `json:"fitted"`       // when
	Saturated   bool      `json:"at_the_limit"` // it is metric.MinTemperature or MaxTemperature: the data say no more
}

// CalibrationName is the evaluation that keeps the calibration for a way of
// averaging views: none, flip or six.
func CalibrationName(tta string) string {
	if tta == "" || tta == "none" {
		return "temperature"
	}
	return "temperature-" + tta
}

// Calibration returns the temperature that was fitted for these weights and kept
// in the run directory; ok is false when there is none, or only one of other weights.
func (c *Classifier) Calibration(tta string) (cal Calibration, ok bool, err error) {
	if err := c.run.ReadEvaluation(CalibrationName(tta), &cal); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return Calibration{}, false, err
	}
	weights, err := c.WeightsHash()
	if err != nil || weights != cal.Weights {
		return Calibration{}, false, err
	}
	if t := cal.Temperature; !(t >= metric.MinTemperature && t <= metric.MaxTemperature) {
		return Calibration{}, false, fmt.Errorf("%s: evaluations/%s.json: temperature %v, want %v to %v",
			c.run.Path(), CalibrationName(tta), t, metric.MinTemperature, metric.MaxTemperature)
	}
	return cal, true, nil
}

// Close frees the programs.
func (c *Classifier) Close() error { return c.programs.Close() }
