package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/report"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

func newTrain() *cobra.Command {
	var o trainOptions
	c := &cobra.Command{
		Use:   "train [DATA]",
		Short: "train a network and keep everything about it in a run directory",
		Long: `Train a residual network. DATA is a name (shapes, cifar10, cifar100,
fashion-mnist, mnist) or a path: an image folder (train/CLASS/*, or CLASS/*), a
CSV manifest, or the official archives or their unpacked files. Without DATA it
trains on shapes: generated pictures, no download.

Every option can also be set by the environment (RESIDUAL_BATCH_SIZE=64) or in a
JSON file given to --config ({"batch-size": 64}); the recipe decides the rest.

Ctrl-C finishes the step, saves, tells how to continue, and exits with 130;
SIGTERM and SIGUSR1 do the same and exit with 75, for schedulers that start the
command again with --resume.

Recipes:
` + recipesText(),
		Example: `  residual train
  residual train --model resnet20      # a fourteenth of the work
  residual train cifar10
  residual train cifar10 --recipe fast # most accuracy in ten minutes
  residual train cifar10 --limit-train 5000 --epochs 2
  residual train ./photos --image-size 64 --batch-size 16
  residual train ./photos --init runs/2026-11-23-resnet20-cifar10
  residual train --resume runs/2026-11-23-resnet18-shapes
  residual train /new/place/photos --resume runs/2026-11-23-resnet18-photos`,
		Args: argsBetween(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.data = args[0]
			}
			o.typed, o.set = typed(c.Flags()), c.Flags().Changed
			if o.resume == "" && o.typed("resume") { // an unset variable, mostly
				return hint.Wrap(usageError{errors.New("--resume is empty, want a run directory")}, "a new run is: residual train")
			}
			if o.proveResume < 0 {
				return usageError{fmt.Errorf("--prove-resume %d: want a number from 1", o.proveResume)}
			}
			switch {
			case o.seeds < 0 || o.seeds > 1000:
				return usageError{fmt.Errorf("--seeds %d: want 1 to 1000", o.seeds)}
			case o.seeds > 0 && (o.dryRun || o.proveResume > 0):
				return usageError{errors.New("--seeds: not with --dry-run or --prove-resume")}
			case o.resume != "" && isSeeds(o.resume), o.resume == "" && o.seeds > 0:
				return trainSeeds(c.Context(), o, c.Flags(), c.OutOrStdout(), c.ErrOrStderr())
			}
			if o.proveResume > 0 {
				return proveResume(c.Context(), o, c.Flags(), c.OutOrStdout(), c.ErrOrStderr())
			}
			return runTrain(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr(), new(string))
		},
	}
	o.addFlags(c.Flags())
	return c
}

// recipesText lists the recipes in lines that fit --help.
func recipesText() string {
	var b strings.Builder
	for _, name := range train.RecipeNames() {
		recipe, _ := train.RecipeNamed(name) // what is listed is there
		line := fmt.Sprintf("  %-10s", name)
		for _, word := range strings.Fields(recipe.About) {
			if utf8.RuneCountInString(line+" "+word) > 84 {
				b.WriteString(line + "\n")
				line = strings.Repeat(" ", 12)
			}
			line += " " + word
		}
		b.WriteString(line + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

// runTrain is the whole of "residual train". Read it top to bottom to see how
// the packages meet.
//
// With repeat, configuration and data are those of another run; the path of the
// run it makes is stored in path.
func runTrain(ctx context.Context, o trainOptions, stdout, stderr io.Writer, path *string) (err error) {
	show := newProgress(o.progress, stderr, io.Discard)
	ctx, stop := stopOnSignal(ctx, show.interrupted)
	defer stop()
	defer func() {
		if errors.Is(err, context.Canceled) {
			err = context.Cause(ctx) // stopped before there was anything to save
		}
	}()
	var cfg train.Config
	given := o.resume != "" || o.repeat != "" // is the configuration another run's
	changed := false
	if given {
		if cfg, changed, err = givenConfig(&o); err != nil {
			return err
		}
	}
	data, err := o.openData(ctx, stderr)
	if err != nil {
		return err
	}
	if !given {
		if cfg, err = o.resolve(data); err != nil {
			return err
		}
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
	if slow := slowWithout(eng.Name(), cfg, o.model); slow != "" {
		show.notice(slow)
	}
	if o.dryRun {
		return dryRun(ctx, cfg, eng, images.fit, images.val, o.format, stdout)
	}
	if o.repeat != "" { // before there is a directory of its own
		if cfg.Init != nil { // which that run has kept
			cfg.Init.Run, cfg.Init.Checkpoint = o.repeat, "initial"
		}
		if err := checkSameOrigin(o.repeat, data, eng, show); err != nil {
			return err
		}
	}
	run, err := openRun(o, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	*path = run.Path()
	show.keepLog(run.Log())
	if o.resume != "" {
		if err := checkSameOrigin(o.resume, data, eng, show); err != nil {
			return err
		}
	}

	if o.format == "text" && o.resume == "" {
		summary, err := cfg.Model.Summarize()
		if err != nil {
			return err
		}
		if err := summary.WriteText(stdout, false); err != nil {
			return err
		}
	}
	show.notice(fmt.Sprintf("%s on %s (%s), %s; recipe %s, %s, run directory %s",
		cfg.Model.Name, data.Name, countsOf(images), validationOf(cfg), cfg.Recipe, eng.Name()+" "+cfg.Precision, run.Path()))
	for _, note := range beforehand(cfg, images.fit.Steps(), given) {
		show.notice(note)
	}

	trainer, err := train.New(cfg, eng, images.fit, images.val, run, func(e train.Event) {
		show.event(e)
		if _, ok := e.(train.EpochEnded); ok { // whoever looks into the directory sees curves
			if err := report.WriteCurves(run, caption(cfg, data.Name)); err != nil {
				show.warn("cannot draw the curves: " + err.Error())
			}
		}
	})
	if err != nil {
		return err
	}
	defer trainer.Close()
	if o.resume != "" {
		if err = trainer.Resume(); err == nil { // what is refused leaves no trace
			err = recordResumption(run, eng, cfg, changed)
		}
	} else {
		err = writeOrigin(run, cfg, newOrigin(data, eng, cfg, trainer.Kernels(), append([]string{"residual"}, os.Args[1:]...)))
	}
	if err != nil {
		return err
	}

	if o.profile != "" {
		stop, cannot := profile(o.profile, eng)
		if cannot != nil {
			return cannot
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	began := time.Now()
	err = trainer.Run(ctx)
	show.done()
	if errors.Is(err, train.ErrStopped) {
		show.notice("stopped and saved; continue with: residual train --resume " + hint.Quote(run.Path()))
		return errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		return err
	}
	result := newResult(run, trainer.History(), trainer.Result(), time.Since(began))
	if cfg.ScoreTest != "" && data.Test != nil {
		if result.Test, err = scoreTest(ctx, run, data, cfg, trainer.Result(), eng, show, stderr); err != nil {
			if ctx.Err() != nil {
				show.notice("trained and saved, but not scored by the test split; do that with: residual train --resume " + hint.Quote(run.Path()))
			}
			return err
		}
		show.notice(result.Test.String())
	}
	if cfg.Expected != nil {
		show.notice(result.judge(cfg, images))
	}
	if err := run.WriteResult(result); err != nil {
		return err
	}
	return result.write(stdout, o.format)
}

// beforehand is what there is to say before the first step. given says that the
// configuration is another run's.
func beforehand(cfg train.Config, steps int, given bool) (notes []string) {
	if in := cfg.Init; in != nil {
		head := "its dense layer too, the classes are the same"
		if in.NewHead {
			head = fmt.Sprintf("with a new dense layer for %d classes", len(cfg.Classes))
			if _, source, err := train.Open(in.Run); err == nil && namesAreNumbers(source.Classes) && len(source.Classes) == len(cfg.Classes) {
				head += " (its own have no names; if they are these, import it again with --class-map, which keeps the layer)"
			}
		}
		if cfg.Freeze != nil {
			head += fmt.Sprintf("; %d of %d epochs train that alone", cfg.Freeze.Epochs, cfg.Epochs)
		}
		notes = append(notes, fmt.Sprintf("beginning with the weights of %s, %s", in.Run, head))
	}
	switch {
	case cfg.Expected != nil:
		notes = append(notes, "expected accuracy: "+cfg.Expected.String())
	case !given:
		notes = append(notes, "expected accuracy: not measured for these options")
	}
	if cfg.Data.Validation == "test" {
		notes = append(notes, "note: the validation data are the official test split, as in the tutorial: choose nothing by this score")
	}
	if cfg.Accumulate > steps {
		notes = append(notes, fmt.Sprintf("note: --accumulate %d is more than the %d batches of an epoch, which make one update", cfg.Accumulate, steps))
	}
	return notes
}

// slowWithout says what to do where the network that nobody chose is far too much
// for the engine: without the kernels of any instruction set it takes hours for
// what AVX2 does in minutes.
func slowWithout(engineName string, cfg train.Config, chosen string) string {
	if engineName != "cpu/generic" || chosen != "" || cfg.Model.Name != "resnet18" || cfg.Init != nil {
		return ""
	}
	return "note: without kernels for AVX2 or AVX-512 ResNet-18 takes long; a fourteenth of the work: --model resnet20"
}

// loaders are of the training and the validation images; val is nil where there
// are none.
type loaders struct{ fit, val *loader.Loader }

// loadersOf divides the data as the configuration says.
func loadersOf(data *dataset.Data, cfg *train.Config) (l loaders, err error) {
	fit, val, err := splits(data, cfg)
	if err != nil {
		return l, err
	}
	l.fit, err = loader.New(fit, loader.Options{
		BatchSize: cfg.BatchSize, Shuffle: true, Seed: cfg.Seed, Preprocess: cfg.Preprocess,
		Augment: cfg.Augment, ClassWeights: cfg.ClassWeights, SampleWeights: cfg.SampleWeights,
	})
	if err == nil && val != nil {
		l.val, err = loader.New(val, loader.Options{BatchSize: cfg.BatchSize, Preprocess: cfg.Preprocess})
	}
	return l, err
}

// openRun makes the run directory, or opens and locks the one to continue.
func openRun(o trainOptions, cfg train.Config) (*rundir.Dir, error) {
	var run *rundir.Dir
	var err error
	switch {
	case o.resume != "":
		run, err = rundir.Open(o.resume)
	case o.out != "":
		run, err = rundir.CreateLocked(o.out)
	default:
		run, err = rundir.New(o.runs, cfg.Model.Name, cfg.Data.Source, time.Now())
	}
	if err != nil {
		return nil, err
	}
	return run, run.Lock()
}

// origin is origin.json: what made the run.
type origin struct {
	Version     string            `json:"version"`
	Go          string            `json:"go"`
	OS          string            `json:"os"`
	Arch        string            `json:"arch"`
	CPUs        int               `json:"cpus"`
	CPUFeatures []string          `json:"cpu_features"`
	Started     time.Time         `json:"started"`
	Engine      string            `json:"engine"`
	Data        any               `json:"data"`
	DataHash    string            `json:"data_hash"`
	Binary      string            `json:"binary_sha256"` // of the program itself
	Config      string            `json:"config_sha256"` // of config.json's content as the run began
	Epochs      int               `json:"epochs"`        // configured then; 0: not said
	CommandLine []string          `json:"command_line"`
	Kernels     map[string]string `json:"kernels,omitempty"`
	Resumed     []resumption      `json:"resumed,omitempty"`
}

// resumption is an entry of origin.json for each time a run was continued.
type resumption struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"`
	Binary  string    `json:"binary_sha256"`
	Engine  string    `json:"engine"`
	Epochs  int       `json:"epochs"` // configured then
}

// binaryHash is the SHA-256 of the running program, "" where it cannot be read.
var binaryHash = sync.OnceValue(func() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	sum, _ := fileSHA256(path)
	return sum
})

// writeOrigin makes the directory a run: origin, and last the configuration,
// by which a run is known.
func writeOrigin(run *rundir.Dir, cfg train.Config, o origin) error {
	if err := run.WriteOrigin(o); err != nil {
		return err
	}
	return run.WriteConfig(cfg)
}

// recordResumption notes in origin.json who goes on with the run, and the
// configuration where an option has changed it.
func recordResumption(run *rundir.Dir, eng engine.Engine, cfg train.Config, changed bool) error {
	if changed {
		if err := run.WriteConfig(cfg); err != nil {
			return err
		}
	}
	var o origin
	if err := run.ReadOrigin(&o); err != nil {
		return err
	}
	o.Resumed = append(o.Resumed, resumption{time.Now().UTC().Truncate(time.Second), version(), binaryHash(), eng.Name(), cfg.Epochs})
	return run.WriteOrigin(o)
}

func caption(cfg train.Config, data string) string {
	return fmt.Sprintf("%s on %s, recipe %s: %s, learning rate %g, batch %d", cfg.Model.Name, data, cfg.Recipe,
		cfg.Optimizer.Name, cfg.Optimizer.LearningRate, cfg.BatchSize)
}

func validationOf(cfg train.Config) string {
	switch cfg.Data.Validation {
	case "held-out":
		return "validated on its held-out training images"
	case "none":
		return "not validated"
	}
	return "validated on its " + cfg.Data.Validation + " split"
}

// dryRun compiles the network, times a few steps and says what a run would be.
// It writes nothing.
func dryRun(ctx context.Context, cfg train.Config, eng engine.Engine, fit, val *loader.Loader, format string, stdout io.Writer) error {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var estimate train.Estimated
	trainer, err := train.New(cfg, eng, fit, val, nil, func(e train.Event) {
		switch e := e.(type) {
		case train.Estimated:
			estimate = e
			cancel()
		case train.EpochEnded: // of fewer steps than an estimate takes
			cancel()
		}
	})
	if err != nil {
		return err
	}
	defer trainer.Close()
	if err := trainer.Run(ctx); err != nil && !errors.Is(err, train.ErrStopped) {
		return err
	}
	var stopped stoppedBy
	if cause := context.Cause(outer); errors.As(cause, &stopped) {
		return stopped
	}
	if format == "json" {
		return writeJSON(stdout, struct {
			Model            string  `json:"model"`
			Epochs           int     `json:"epochs"`
			Steps            int     `json:"steps_per_epoch"`
			Engine           string  `json:"engine"`
			EstimatedSeconds float64 `json:"estimated_seconds,omitempty"` // of the whole run; too few steps give no estimate
			ImagesPerSecond  float64 `json:"images_per_second,omitempty"`
		}{cfg.Model.Name, cfg.Epochs, fit.Steps(), eng.Name(), estimate.Remaining.Seconds(), estimate.ImagesPerSecond})
	}
	text := fmt.Sprintf("%s, %d epochs of %d steps on %s: everything fits together", cfg.Model.Name, cfg.Epochs, fit.Steps(), eng.Name())
	if estimate.Remaining > 0 {
		text += fmt.Sprintf("; about %s at %.0f images/s", roundly(estimate.Remaining), estimate.ImagesPerSecond)
	}
	_, err = fmt.Fprintln(stdout, text)
	return err
}
