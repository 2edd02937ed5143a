package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/report"
	"github.com/residual-ml/residual/train"
)

// lrFindOptions are those of train that say what is trained on what, and its own.
type lrFindOptions struct {
	trainOptions
	from, to float64
	steps    int
	picture  string
}

// notOfLRFind are options of train that concern a whole run, or its directory.
var notOfLRFind = []string{"out", "runs", "resume", "save-every", "keep", "on-nan", "on-save-error", "prove-resume", "dry-run", "profile",
	"epochs", "learning-rate", "freeze-learning-rate", "schedule", "warmup", "warmup-start", "floor", "milestones", "gamma", "max-time",
	"monitor", "patience", "min-delta", "restore-best", "plateau-patience", "plateau-factor", "eval-every", "limit-val", "seeds", "score-test"}

func newLRFind() *cobra.Command {
	var o lrFindOptions
	c := &cobra.Command{
		Use:   "lr-find [DATA]",
		Short: "find a learning rate: train a few steps with rates that grow",
		Long: `A learning rate range test: training steps with a learning rate that grows
exponentially, until the loss is four times its best. The picture shows the loss by
rate; the suggestion lies where the loss falls for long. DATA and options are those of
train. Only the picture is written, and no run; the weights are forgotten.

With --init and frozen epochs (recipe finetune) it looks for the rate of the dense layer
in these, --freeze-learning-rate; with --freeze-epochs 0, for that of everything.`,
		Example: `  residual lr-find cifar10 --model resnet20
  residual lr-find cifar10 --optimizer sgd --momentum 0.9 -o rates.svg
  residual lr-find ./photos --init runs/RUN --freeze-epochs 0`,
		Args: argsBetween(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.data = args[0]
			}
			o.set = c.Flags().Changed
			return runLRFind(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVarP(&o.picture, "out", "o", "", "picture, .png or .svg (default: a file in the directory for temporary files)")
	f.Float64Var(&o.from, "from", train.RateTestFrom, "the first learning rate")
	f.Float64Var(&o.to, "to", train.RateTestTo, "the last one")
	f.IntVar(&o.steps, "steps", train.RateTestSteps, "updates")
	section(f, "The test")
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.trainOptions.addFlags(all)
	all.VisitAll(func(flag *pflag.Flag) {
		if !slices.Contains(notOfLRFind, flag.Name) {
			f.AddFlag(flag)
		}
	})
	return c
}

func runLRFind(ctx context.Context, o lrFindOptions, stdout, stderr io.Writer) (err error) {
	if ext := filepath.Ext(o.picture); o.picture != "" && ext != ".png" && ext != ".svg" {
		return hint.Wrap(usageError{fmt.Errorf("-o %s: want a name that ends in .png or .svg", o.picture)}, "for example: -o rates.svg")
	}
	show := newProgress(o.progress, stderr, io.Discard)
	ctx, stop := stopOnSignal(ctx, func() { show.notice("stopping after this step; nothing is written") })
	defer stop()
	defer func() {
		if errors.Is(err, context.Canceled) {
			err = context.Cause(ctx)
		}
	}()
	data, err := o.openData(ctx, stderr)
	if err != nil {
		return err
	}
	cfg, err := o.resolve(data)
	if err != nil {
		return err
	}
	images, err := loadersOf(data, &cfg)
	if err != nil {
		return err
	}
	eng, err := openPrecise(cfg.Engine, cfg.Precision, o.threads)
	if err != nil {
		return err
	}
	defer eng.Close()
	done := 0
	trainer, err := train.New(cfg, eng, images.fit, nil, nil, func(e train.Event) {
		if s, ok := e.(train.Stepped); ok && show.mode == "bar" {
			done++
			show.count("finding a rate", done, o.steps, fmt.Sprintf("loss %.4f", s.Loss))
		}
	})
	if err != nil {
		return err
	}
	defer trainer.Close()
	test, err := trainer.FindRate(ctx, o.from, o.to, o.steps)
	show.done()
	if err != nil {
		return err
	}

	path := ""
	if len(test.Rates) > 1 {
		caption := fmt.Sprintf("%s on %s, %s, batch %d", cfg.Model.Name, data.Name, cfg.Optimizer.Name, cfg.BatchSize*max(1, cfg.Accumulate))
		if path, err = drawRates(o.picture, test, caption); err != nil {
			return err
		}
	}
	option := "--learning-rate"
	if cfg.Freeze != nil {
		option = "--freeze-learning-rate"
	}
	if o.format == "json" {
		return writeJSON(stdout, struct {
			train.RateTest
			Option  string `json:"option"` // that takes the suggestion
			Picture string `json:"picture,omitempty"`
		}{test, option, path})
	}
	return writeRateTest(stdout, test, option, path)
}

// drawRates writes the picture and returns its path.
func drawRates(path string, test train.RateTest, caption string) (string, error) {
	picture, svg, err := report.Rates(test.Rates, test.Losses, test.Smoothed, test.Suggested, caption)
	if err != nil {
		return "", err
	}
	if path == "" {
		f, err := os.CreateTemp("", "residual-lr-find-*.png")
		if err != nil {
			return "", err
		}
		path = f.Name()
		if err := f.Close(); err != nil {
			return "", err
		}
	}
	if filepath.Ext(path) == ".svg" {
		picture = svg
	}
	return path, atomicfile.WriteFile(path, picture)
}

func writeRateTest(w io.Writer, test train.RateTest, option, path string) error {
	fmt.Fprintf(w, "%-14s  %10s  %10s\n", "learning rate", "loss", "smoothed")
	for i := range test.Rates {
		if i%max(1, len(test.Rates)/12) == 0 || i == len(test.Rates)-1 {
			fmt.Fprintf(w, "%-14.3g  %10.4f  %10.4f\n", test.Rates[i], test.Losses[i], test.Smoothed[i])
		}
	}
	if test.Stopped != "" {
		fmt.Fprintf(w, "stopped after %d steps: %s\n", len(test.Rates), test.Stopped)
	}
	if path != "" {
		fmt.Fprintf(w, "picture: %s\n", path)
	}
	if test.Suggested == 0 {
		_, err := fmt.Fprintf(w, "no suggestion: %s\n", test.NoSuggestion)
		return err
	}
	_, err := fmt.Fprintf(w, "suggestion: %s %.2g\n", option, test.Suggested)
	return err
}
