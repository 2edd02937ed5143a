package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/train"
)

type evalOptions struct {
	dataOptions
	split, checkpoint, engine, precision, format string
	batchSize, threads, limit                    int
}

func newEval() *cobra.Command {
	var o evalOptions
	c := &cobra.Command{
		Use:   "eval RUN [DATA]",
		Short: "score a run's network on a data set",
		Long: `Evaluate the weights of a run: loss and accuracy with its 95 % interval.
Without DATA it is the data the run was trained on; the split is test where there
is one, else validation.`,
		Example: `  residual eval runs/RUN
  residual eval runs/RUN cifar10 --split train --format json`,
		Args: argsBetween(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := layerOptions(c, ""); err != nil {
				return err
			}
			if len(args) == 2 {
				o.data = args[1]
			}
			return runEval(c.Context(), o, args[0], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	choiceFlag(f, &o.format, "format", "", "text", "json")
	choiceFlag(f, &o.split, "split", "which images", "auto", "test", "validation", "train")
	f.StringVar(&o.checkpoint, "checkpoint", "", "which weights: last, best, … (default: the run's result)")
	f.IntVar(&o.batchSize, "batch-size", 32, "images at a time")
	f.IntVar(&o.limit, "limit", 0, "use only so many images, stratified")
	choiceFlag(f, &o.engine, "engine", "cpu, or ref: float64 in plain loops, slow", "cpu", "ref")
	precisionFlag(f, &o.precision, "float32", "bfloat16", "auto")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors)")
	o.dataOptions.addFlags(f)
	return c
}

// evaluation is the outcome of "residual eval".
type evaluation struct {
	Run        string     `json:"run"`
	Checkpoint string     `json:"checkpoint,omitempty"`
	Data       string     `json:"data"`
	Split      string     `json:"split"`
	Images     int        `json:"images"`
	Correct    int        `json:"correct"`
	Accuracy   float64    `json:"sparse_categorical_accuracy"`
	Interval   [2]float64 `json:"accuracy_interval_95"` // Wilson
	Loss       float64    `json:"loss"`
	Top5       *float64   `json:"top5_accuracy,omitempty"` // of more than five classes
	Seconds    float64    `json:"seconds"`
	Engine     string     `json:"engine"`
	Precision  string     `json:"precision"`
}

func runEval(ctx context.Context, o evalOptions, path string, stdout, stderr io.Writer) error {
	run, cfg, err := train.Open(path)
	if err != nil {
		return err
	}
	own := o.data == "" || o.data == cfg.Data.Source
	if own {
		o.data = cfg.Data.Source
		if o.onBadImage == "fail" && cfg.Data.OnBadImage != "" {
			o.onBadImage = cfg.Data.OnBadImage
		}
		if o.dataDir == "" {
			o.dataDir = cfg.Data.Dir
		}
		if o.classMap == "" {
			o.classMap = cfg.Data.ClassMap
		}
	}
	data, err := o.dataOptions.open(ctx, cfg.Seed, stderr)
	if err != nil {
		return err
	}
	if !slices.Equal(data.Classes, cfg.Classes) {
		return hint.Wrap(fmt.Errorf("data set %s has the classes %v, the run was trained on %v", data.Name, data.Classes, cfg.Classes),
			"a file given to --class-map fixes the order of a folder's classes")
	}
	var was origin
	if err := run.ReadOrigin(&was); err == nil && own && was.DataHash != data.Origin.Hash {
		fmt.Fprintf(stderr, "note: %s is not what the run was trained on: its hash is %s, then it was %s\n", data.Name, data.Origin.Hash, was.DataHash)
	}
	set, split, err := splitToEvaluate(data, cfg, own, o.split)
	if err != nil {
		return err
	}
	if set, err = limited(set, o.limit, len(data.Classes), cfg.Seed, "--limit"); err != nil {
		return err
	}
	images, err := loader.New(set, loader.Options{BatchSize: o.batchSize, Preprocess: cfg.Preprocess})
	if err != nil {
		return err
	}
	precision, err := resolvePrecision(o.engine, o.precision)
	if err != nil {
		return err
	}
	eng, err := openPrecise(o.engine, precision, o.threads)
	if err != nil {
		return err
	}
	defer eng.Close()
	vars := eng.NewVariables()
	warning, err := train.LoadWeights(run, o.checkpoint, cfg, vars)
	if err != nil {
		return err
	}
	if warning != "" {
		fmt.Fprintln(stderr, "warning: "+warning)
	}

	show := newProgress("auto", stderr, io.Discard)
	evaluator := train.NewEvaluator(cfg, eng, vars)
	defer evaluator.Close()
	began, top5, seen := time.Now(), 0, 0
	score, err := evaluator.Run(ctx, images, func(b loader.Batch, logits []float32) error {
		seen += len(b.Indices)
		if show.mode == "bar" {
			show.bar("evaluating", seen, images.Len())
		}
		n, err := metric.CorrectTopK(logits, len(cfg.Classes), b.Labels.Int32s(), 5)
		top5 += n
		return err
	})
	show.done()
	if err != nil {
		return err
	}
	e := evaluation{
		Run: run.Path(), Checkpoint: o.checkpoint, Data: data.Name, Split: split, Images: score.Images, Correct: score.Correct,
		Accuracy: score.Accuracy, Loss: score.Loss, Seconds: time.Since(began).Seconds(), Engine: eng.Name(), Precision: precision,
	}
	e.Interval[0], e.Interval[1] = metric.Wilson(score.Correct, score.Images)
	if len(cfg.Classes) > 5 {
		share := float64(top5) / float64(score.Images)
		e.Top5 = &share
	}
	if o.format == "json" {
		return writeJSON(stdout, e)
	}
	fmt.Fprintf(stdout, "%s, %s split, %d images\n", data.Name, split, e.Images)
	fmt.Fprintf(stdout, "accuracy  %.2f %%  (%d of %d; 95 %% interval %.2f to %.2f)\n", 100*e.Accuracy, e.Correct, e.Images, 100*e.Interval[0], 100*e.Interval[1])
	if e.Top5 != nil {
		fmt.Fprintf(stdout, "top-5     %.2f %%\n", 100**e.Top5)
	}
	fmt.Fprintf(stdout, "loss      %.4f\n", e.Loss)
	_, err = fmt.Fprintf(stdout, "time      %s, %.0f images/s on %s %s\n", roundly(time.Since(began)), math.Round(float64(e.Images)/e.Seconds), e.Engine, e.Precision)
	return err
}

// splitToEvaluate returns the images that --split names. Of the data the run was
// trained on, its own, train and validation are what the run used: held out and
// limited as it was.
func splitToEvaluate(data *dataset.Data, cfg train.Config, own bool, split string) (dataset.Dataset, string, error) {
	if split == "auto" {
		split = "test"
		if data.Test == nil {
			split = "validation"
		}
	}
	sets := map[string]dataset.Dataset{"test": data.Test, "validation": data.Validation, "train": data.Train}
	if own && split != "test" {
		fit, val, err := splits(data, &cfg)
		if err != nil {
			return nil, "", err
		}
		sets["train"], sets["validation"] = fit, val
	}
	if sets[split] == nil {
		return nil, "", fmt.Errorf("data set %s has no %s split", data.Name, split)
	}
	return sets[split], split, nil
}
