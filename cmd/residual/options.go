package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/cpu"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/format"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// dataOptions are what every command that reads a data set takes.
type dataOptions struct {
	data       string
	dataDir    string
	mirror     string
	classMap   string
	onBadImage string
	noDownload bool

	undivided bool // a folder without a validation split gives none of its pictures to one
}

func (o *dataOptions) addFlags(f *pflag.FlagSet) {
	o.addPlaceFlags(f)
	f.StringVar(&o.classMap, "class-map", "", "file with one class name per line, for folders and manifests")
	choiceFlag(f, &o.onBadImage, "on-bad-image", "what to do with pictures that cannot be read", "fail", "skip")
}

// addPlaceFlags adds what matters for a built-in data set alone.
func (o *dataOptions) addPlaceFlags(f *pflag.FlagSet) {
	f.StringVar(&o.dataDir, "data-dir", "", "where data sets are (default $RESIDUAL_DATA, else the user's cache)")
	f.StringVar(&o.mirror, "mirror", "", "base URL to download from instead of the official addresses")
	f.BoolVar(&o.noDownload, "no-download", false, "fail instead of downloading what is missing")
}

// trainOptions are the flags of "residual train", before recipe and data have
// filled in what was left alone.
type trainOptions struct {
	dataOptions
	networkOptions
	pictureOptions
	augmentOptions
	set   func(flag string) bool // was it given, by any layer above the recipe
	typed func(flag string) bool // was it given on the command line

	recipe, model, convention, optimizer string

	epochs, batchSize, limitTrain, limitVal, valImages, evalEvery int
	learningRate, momentum, weightDecay, l2, labelSmoothing       float64
	beta1, beta2, epsilon                                         float64
	nesterov                                                      bool
	classWeights, sampler                                         string
	seed                                                          uint64

	decayAll               bool
	accumulate             int
	clipNorm, clipValue    float64
	ema                    float64
	shiftRate              float64
	lookahead              optim.Lookahead
	schedule               string
	warmup, start, floor   float64
	milestones             []float64
	gamma                  float64
	init, scoreTest        string
	seeds                  int
	freezeEpochs           int
	stemEpochs             int
	freezeRate, lrMult     float64
	monitor                string
	patience, plateauEvery int
	minDelta, plateauRate  float64
	restoreBest, dryRun    bool
	maxTime                time.Duration
	onNaN, onSaveError     string
	saveEvery, keep        int
	proveResume            int

	engine, precision, profile string
	threads                    int

	out, runs, resume, config, progress, format string

	repeat string // run whose configuration is used, of "residual reproduce"
}

func (o *trainOptions) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	o.data = "shapes"
	f.StringVar(&o.recipe, "recipe", "tutorial", "named set of defaults: "+strings.Join(train.RecipeNames(), ", ")+" (with --init: finetune)")
	f.StringVar(&o.init, "init", "", "begin with the weights of this run: network, picture size and normalisation are its own, the dense layer is new for other classes")
	section(f, "Recipe")
	f.StringVar(&o.model, "model", "", "network: "+strings.Join(model.Names(), ", ")+" (default: the recipe's; resnet18 with tutorial)")
	choiceFlag(f, &o.convention, "convention", "framework whose padding, batch norm and initial weights are used", "recipe", "keras", "torch")
	o.networkOptions.addFlags(f)
	o.networkOptions.addTrainingFlags(f)
	section(f, "Network")
	o.pictureOptions.addFlags(f)
	section(f, "Pictures")
	o.augmentOptions.addFlags(f)
	section(f, "Augmentation, of training pictures")

	f.IntVar(&o.epochs, "epochs", 0, "passes over the training images")
	f.IntVar(&o.batchSize, "batch-size", 0, "images per step")
	choiceFlag(f, &o.optimizer, "optimizer", "what turns gradients into steps", "recipe", "sgd", "adam", "adamw")
	f.Float64Var(&o.learningRate, "learning-rate", 0, "step size")
	f.Float64Var(&o.momentum, "momentum", 0, "of sgd")
	f.BoolVar(&o.nesterov, "nesterov", false, "Nesterov momentum, of sgd")
	f.Float64Var(&o.beta1, "beta1", 0, "of adam and adamw: decay of the mean gradient")
	f.Float64Var(&o.beta2, "beta2", 0, "of adam and adamw: decay of the mean squared gradient")
	f.Float64Var(&o.epsilon, "epsilon", 0, "of adam and adamw: what is added to the root")
	f.Float64Var(&o.weightDecay, "weight-decay", 0, "of kernels, with sgd and adamw")
	f.BoolVar(&o.decayAll, "decay-all", false, "decay biases and batch norm too")
	f.IntVar(&o.freezeEpochs, "freeze-epochs", 0, "with --init: train the dense layer alone in the first `N` epochs")
	f.Float64Var(&o.freezeRate, "freeze-learning-rate", 0, "step size in these epochs")
	f.IntVar(&o.stemEpochs, "stem-epochs", 0, "train the stem in the first `N` epochs only; 0: in all")
	f.Float64Var(&o.lrMult, "lr-mult", 0, "divide the learning rate by this in the stem, by less in each later stage, and by 1 in the dense layer")
	f.IntVar(&o.accumulate, "accumulate", 0, "batches per update, by the mean over all their images")
	f.Float64Var(&o.clipNorm, "clip-norm", 0, "clip the norm of all gradients together to this")
	f.Float64Var(&o.clipValue, "clip-value", 0, "clip every element of the gradients to this")
	f.Float64Var(&o.ema, "ema", 0, "keep, validate and save a moving average of the weights with this decay, such as 0.999")
	f.Float64Var(&o.shiftRate, "shift-rate", 0, "multiply the learning rate of batch norm's β by this, at the same weight decay")
	f.IntVar(&o.lookahead.Every, "lookahead", 0, "mix the weights with slow ones every `N` steps; 0: never")
	f.Float64Var(&o.lookahead.Keep, "lookahead-keep", 0.5, "share of the slow weights in the mix at the end of the run")
	f.Float64Var(&o.lookahead.Power, "lookahead-power", 0, "before the end, that share times (part of the run done)^this")
	f.Float64Var(&o.lookahead.Start, "lookahead-start", 0, "part of the run before the first mix")
	f.Float64Var(&o.l2, "l2", 0, "penalty on the dense layer's kernel, part of the loss")
	f.Float64Var(&o.labelSmoothing, "label-smoothing", 0, "share of the target spread over all classes")
	choiceFlag(f, &o.classWeights, "class-weights", "weight the loss by class; balanced: n/(classes·count)", "none", "balanced")
	choiceFlag(f, &o.sampler, "sampler", "how images are drawn; balanced: with replacement, all classes equally often", "uniform", "balanced")
	f.Uint64Var(&o.seed, "seed", 0, "of initial weights, order, augmentation and splits")
	f.IntVar(&o.seeds, "seeds", 0, "train with `N` seeds, from --seed on, each in a run of its own, and print mean and deviation")

	choiceFlag(f, &o.schedule, "schedule", "of the learning rate over the run (see also --plateau-patience)", append([]string{"recipe"}, optim.Schedules()...)...)
	f.Float64Var(&o.warmup, "warmup", 0, "share of the run in which the learning rate rises")
	f.Float64Var(&o.start, "warmup-start", 0, "factor of the learning rate that it rises from")
	f.Float64Var(&o.floor, "floor", 0, "factor of the learning rate that linear, cosine and onecycle end with")
	numbersFlag(f, &o.milestones, "milestones", "shares of the run at which multistep lowers the learning rate, such as 0.5,0.75")
	f.Float64Var(&o.gamma, "gamma", 0.1, "factor of multistep at each milestone")
	section(f, "Optimisation")

	choiceFlag(f, &o.monitor, "monitor", "what early stopping, plateau and the best checkpoint watch", train.MonitorLoss, train.MonitorAccuracy)
	f.IntVar(&o.patience, "patience", 0, "stop after `N` epochs without improvement")
	f.Float64Var(&o.minDelta, "min-delta", 0, "smallest change that counts as an improvement")
	f.BoolVar(&o.restoreBest, "restore-best", false, "with --patience: the best epoch is the result, not the last")
	f.IntVar(&o.plateauEvery, "plateau-patience", 0, "lower the learning rate after `N` epochs without improvement")
	f.Float64Var(&o.plateauRate, "plateau-factor", 0.1, "factor by which --plateau-patience lowers it")
	f.DurationVar(&o.maxTime, "max-time", 0, "fit the run, schedule included, into this time, such as 90m")
	f.BoolVar(&o.dryRun, "dry-run", false, "check everything, time a few steps, write nothing")
	section(f, "Watching and stopping")

	f.IntVar(&o.limitTrain, "limit-train", 0, "use only `N` training images, stratified")
	f.IntVar(&o.limitVal, "limit-val", 0, "use only `N` validation images, stratified")
	f.IntVar(&o.valImages, "val-images", 0, "hold `N` training images out for validation; 0: none, whatever the recipe says")
	f.IntVar(&o.evalEvery, "eval-every", 0, "also validate every `N` steps")
	choiceFlag(f, &o.scoreTest, "score-test", "score the test split once, after the run: as it is (none), or also by the mean of several views (flip, six); not where it is the validation data, as with recipe tutorial", "recipe", "none", "flip", "six", "off")
	o.dataOptions.addFlags(f)
	section(f, "Data")

	choiceFlag(f, &o.engine, "engine", "cpu, or ref: float64 in plain loops, slow", "cpu", "ref")
	precisionFlag(f, &o.precision, "auto", "float32", "bfloat16")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors); the result does not depend on it")
	f.StringVar(&o.profile, "profile", "", profileHelp)
	f.StringVarP(&o.out, "out", "o", "", "run directory (default: RUNS/<date>-<model>-<data>)")
	f.StringVar(&o.runs, "runs", "runs", "where run directories are made")
	f.StringVar(&o.resume, "resume", "", "continue the run in this directory; DATA names its data where they have moved")
	f.IntVar(&o.saveEvery, "save-every", 0, "also save every `N` steps")
	f.IntVar(&o.keep, "keep", 0, "keep the checkpoints of the last `N` epochs too")
	choiceFlag(f, &o.onNaN, "on-nan", "when a loss or gradient is not finite: stop, or go on from the last checkpoint without that batch", train.Stop, train.RollBack)
	choiceFlag(f, &o.onSaveError, "on-save-error", "when the run directory cannot be written", train.Stop, train.KeepTraining)
	f.IntVar(&o.proveResume, "prove-resume", 0, "train twice, the second time killed (SIGKILL) and resumed `N` times, and compare the weights")
	f.StringVar(&o.config, "config", "", "JSON file with options")
	choiceFlag(f, &o.progress, "progress", "on standard error: live bar on a terminal, lines otherwise", "auto", "plain", "json", "none")
	choiceFlag(f, &o.format, "format", "of the result on standard output", "text", "json")
	section(f, "The run")
}

// mayChange are the options that --resume accepts beside it. More epochs stretch
// a schedule that goes by the share of the run; none of the others changes what a
// step computes. Data and their classes may lie elsewhere, but must be the same.
var mayChange = []string{"resume", "epochs", "threads", "profile", "progress", "format", "data-dir", "class-map", "mirror", "no-download", "runs",
	"save-every", "keep", "on-nan", "on-save-error"}

// givenConfig reads the configuration of the run to continue or repeat and refuses
// options on the command line that would change it; those of the environment are
// for new runs. changed says that an option that may change has changed it.
func givenConfig(o *trainOptions) (cfg train.Config, changed bool, err error) {
	path := o.resume + o.repeat
	_, cfg, err = train.Open(path)
	if err != nil {
		return cfg, false, err
	}
	if cfg.Recipe == format.Recipe {
		return cfg, false, hint.Wrap(usageError{fmt.Errorf("%s was imported, so that there is no training to continue or repeat", path)},
			"to train it further: residual train DATA --init "+hint.Quote(path))
	}
	for _, flag := range trainFlagNames() {
		if o.repeat == "" && o.typed(flag) && !slices.Contains(mayChange, flag) {
			return cfg, false, hint.Wrap(usageError{fmt.Errorf("--%s cannot change when a run is continued", flag)},
				"options that may change: --"+strings.Join(mayChange[1:], ", --"))
		}
	}
	before := cfg
	if o.data != "shapes" && o.data != cfg.Data.Source { // they may lie elsewhere now: checkSameOrigin compares their content
		for _, name := range []string{o.data, cfg.Data.Source} {
			if slices.Contains(dataset.Names(), name) {
				return cfg, false, usageError{fmt.Errorf("%s was trained on %s, not on %s", path, cfg.Data.Source, o.data)}
			}
		}
		cfg.Data.Source = o.data
	}
	if o.repeat == "" && o.typed("class-map") {
		cfg.Data.ClassMap = o.classMap
	}
	o.data, o.classMap, o.onBadImage, o.seed = cfg.Data.Source, cfg.Data.ClassMap, cfg.Data.OnBadImage, cfg.Seed
	o.undivided = cfg.Data.Undivided
	o.dataDir = cmp.Or(o.dataDir, cfg.Data.Dir)
	if o.repeat != "" {
		return cfg, false, nil
	}
	if o.typed("epochs") && o.epochs < cfg.Epochs {
		return cfg, false, usageError{fmt.Errorf("--epochs %d: the run is configured for %d, want at least as many", o.epochs, cfg.Epochs)}
	}
	overrideInto(o.typed, "epochs", &cfg.Epochs, o.epochs)
	overrideInto(o.typed, "save-every", &cfg.SaveEvery, o.saveEvery)
	overrideInto(o.typed, "keep", &cfg.Keep, o.keep)
	overrideInto(o.typed, "on-nan", &cfg.OnNaN, o.onNaN)
	overrideInto(o.typed, "on-save-error", &cfg.OnSaveError, o.onSaveError)
	if cfg.Epochs != before.Epochs { // then it is not what was measured
		cfg.Expected = nil
	}
	changed = cfg.Epochs != before.Epochs || cfg.SaveEvery != before.SaveEvery || cfg.Keep != before.Keep ||
		cfg.OnNaN != before.OnNaN || cfg.OnSaveError != before.OnSaveError || cfg.Data != before.Data
	return cfg, changed, cfg.Check()
}

func trainFlagNames() []string {
	var names []string
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(trainOptions).addFlags(flags)
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// valFraction is the part of a folder's pictures that is held out when the
// folder has no validation split.
const valFraction = 0.2

// open opens the data set and tells notices and downloads on stderr. The seed
// decides what a folder holds out; the generated pictures are always the same,
// so that runs with several seeds compare.
func (o *dataOptions) open(ctx context.Context, seed uint64, stderr io.Writer) (*dataset.Data, error) {
	if o.data == "shapes" {
		seed = 0
	}
	fraction := valFraction
	if o.undivided {
		fraction = 0
	}
	return dataset.Open(ctx, o.data, dataset.Options{
		Dir: o.dataDir, Download: !o.noDownload, Mirror: o.mirror, OnBadImage: o.onBadImage,
		Seed: seed, ValFraction: fraction, ClassMap: o.classMap,
		Progress: downloadProgress(stderr), Log: slog.New(noticeHandler{stderr}),
	})
}

// openOf opens DATA or, where none is named, the data that a run was trained on. own
// says that they are these: by their name or, where they lie elsewhere now, by their
// content.
func (o dataOptions) openOf(ctx context.Context, run *rundir.Dir, cfg train.Config, stderr io.Writer) (data *dataset.Data, own bool, err error) {
	source := cfg.Data.Source
	if own = o.data == "" || o.data == source; own {
		o = o.ofRun(cfg)
		data, err = o.open(ctx, cfg.Seed, stderr)
		return data, own, whereNow(err, source)
	}
	var was origin
	data, err = o.open(ctx, cfg.Seed, stderr)
	if err != nil || source == "" || run.ReadOrigin(&was) != nil || was.DataHash != data.Origin.Hash {
		return data, false, err
	}
	if as := o.ofRun(cfg); as != o { // and divided as for the run
		data, err = as.open(ctx, cfg.Seed, io.Discard)
	}
	return data, true, err
}

// ofRun fills in where a run's own data are, unless they are named, and how they are
// read.
func (o dataOptions) ofRun(cfg train.Config) dataOptions {
	o.data, o.undivided = cmp.Or(o.data, cfg.Data.Source), cfg.Data.Undivided
	if o.onBadImage == "fail" && cfg.Data.OnBadImage != "" {
		o.onBadImage = cfg.Data.OnBadImage
	}
	o.dataDir, o.classMap = cmp.Or(o.dataDir, cfg.Data.Dir), cmp.Or(o.classMap, cfg.Data.ClassMap)
	return o
}

// whereNow says what to do where the data of a run do not lie where they lay.
func whereNow(err error, source string) error {
	if _, missing := os.Stat(source); err == nil || missing == nil || slices.Contains(dataset.Names(), source) {
		return err
	}
	return hint.Wrap(err, "the run was trained on it: name, as DATA, where it lies now")
}

// openData opens the data set to train on. A number of pictures to hold out takes
// the place of a folder's fifth.
func (o *trainOptions) openData(ctx context.Context, stderr io.Writer) (*dataset.Data, error) {
	if o.valImages < 0 {
		return nil, usageError{fmt.Errorf("--val-images %d: want a number from 0", o.valImages)}
	}
	if o.resume == "" && o.repeat == "" { // those have their run's
		o.undivided = o.set("val-images")
	}
	data, err := o.dataOptions.open(ctx, o.seed, stderr)
	if o.resume != "" || o.repeat != "" {
		err = whereNow(err, o.data)
	}
	return data, err
}

// resolve fills everything that was left alone, from the recipe and the data,
// into the configuration that the run directory keeps.
func (o *trainOptions) resolve(data *dataset.Data) (train.Config, error) {
	if o.init != "" && !o.set("recipe") {
		o.recipe = "finetune"
	}
	recipe, err := train.RecipeNamed(o.recipe)
	if err != nil {
		return train.Config{}, err
	}
	if o.precision == "auto" && recipe.Precision != "" {
		o.precision = recipe.Precision
	}
	precision, err := resolvePrecision(o.engine, o.precision)
	if err != nil {
		return train.Config{}, err
	}
	c := train.Config{
		Recipe: recipe.Name, Classes: data.Classes, Optimizer: recipe.Optimizer, L2: recipe.L2, LRMult: recipe.LRMult, StemEpochs: recipe.StemEpochs,
		LabelSmoothing: recipe.LabelSmoothing, ClipNorm: recipe.ClipNorm, EMA: recipe.EMA, Epochs: recipe.Epochs, BatchSize: recipe.BatchSize,
		Seed: o.seed, EvalEvery: o.evalEvery, Monitor: o.monitor,
		EarlyStop: train.EarlyStop{Patience: o.patience, MinDelta: o.minDelta, RestoreBest: o.restoreBest},
		Plateau:   train.Plateau{Patience: o.plateauEvery, Factor: o.plateauRate, MinDelta: o.minDelta},
		MaxTime:   o.maxTime, OnNaN: o.onNaN, OnSaveError: o.onSaveError, SaveEvery: o.saveEvery, Keep: o.keep, Engine: o.engine, Precision: precision,
		Data: train.DataConfig{
			Source: o.data, Dir: o.dataDir, ValImages: o.valImages, LimitTrain: o.limitTrain, LimitVal: o.limitVal,
			ClassMap: o.classMap, OnBadImage: o.onBadImage, Undivided: o.undivided,
		},
	}
	if err := o.resolveSplits(&c, recipe, data); err != nil {
		return c, err
	}
	if err := o.resolveNetwork(&c, recipe, data); err != nil {
		return c, err
	}
	if o.optimizer != "recipe" && o.optimizer != recipe.Optimizer.Name {
		if c.Optimizer, err = optim.Named(o.optimizer); err != nil {
			return c, err
		}
	}
	overrideInto(o.set, "epochs", &c.Epochs, o.epochs)
	overrideInto(o.set, "batch-size", &c.BatchSize, o.batchSize)
	overrideInto(o.set, "l2", &c.L2, o.l2)
	overrideInto(o.set, "learning-rate", &c.Optimizer.LearningRate, o.learningRate)
	overrideInto(o.set, "momentum", &c.Optimizer.Momentum, o.momentum)
	overrideInto(o.set, "nesterov", &c.Optimizer.Nesterov, o.nesterov)
	overrideInto(o.set, "beta1", &c.Optimizer.Beta1, o.beta1)
	overrideInto(o.set, "beta2", &c.Optimizer.Beta2, o.beta2)
	overrideInto(o.set, "epsilon", &c.Optimizer.Epsilon, o.epsilon)
	overrideInto(o.set, "weight-decay", &c.Optimizer.WeightDecay, o.weightDecay)
	overrideInto(o.set, "decay-all", &c.Optimizer.DecayAll, o.decayAll)
	overrideInto(o.set, "shift-rate", &c.Optimizer.ShiftRate, o.shiftRate)
	c.Optimizer.Lookahead = o.resolveLookahead(c.Optimizer.Lookahead)
	overrideInto(o.set, "label-smoothing", &c.LabelSmoothing, o.labelSmoothing)
	overrideInto(o.set, "stem-epochs", &c.StemEpochs, o.stemEpochs)
	overrideInto(o.set, "lr-mult", &c.LRMult, o.lrMult)
	overrideInto(o.set, "accumulate", &c.Accumulate, o.accumulate)
	overrideInto(o.set, "clip-norm", &c.ClipNorm, o.clipNorm)
	overrideInto(o.set, "clip-value", &c.ClipValue, o.clipValue)
	overrideInto(o.set, "ema", &c.EMA, o.ema)
	if c.Augment, err = o.augmentOptions.apply(recipe.Augment); err != nil {
		return c, err
	}
	c.Schedule = o.resolveSchedule(recipe.ScheduleOf(c.Model.Name))
	c.Freeze = o.resolveFreeze(recipe, c.Optimizer.LearningRate)
	if err := o.withoutEffect(c); err != nil {
		return c, err
	}
	if o.unchanged() {
		c.Expected = recipe.Expectation(data.Name, c.Model.Name)
	}

	if data.Train == nil {
		return c, fmt.Errorf("data set %s has no training pictures", data.Name)
	}
	balanced := dataset.ClassWeights(dataset.Labels(data.Train), len(data.Classes))
	if o.classWeights == "balanced" {
		c.ClassWeights = balanced
	}
	if o.sampler == "balanced" {
		c.SampleWeights = balanced
	}
	if err := c.Check(); err != nil {
		return c, usageError{err}
	}
	return c, nil
}

// resolveSplits decides which images validate, and how the test split is scored in the
// end.
func (o *trainOptions) resolveSplits(c *train.Config, recipe train.Recipe, data *dataset.Data) error {
	switch {
	case o.valImages > 0:
		c.Data.Validation = "held-out"
	case data.Validation != nil:
		c.Data.Validation = "validation"
	case recipe.ValidateOnTest && data.Test != nil:
		c.Data.Validation = "test"
	case recipe.HoldOut > 0 && !o.set("val-images") && data.Train != nil && data.Train.Len() >= 10:
		c.Data.Validation, c.Data.ValImages = "held-out", min(recipe.HoldOut, data.Train.Len()/10)
	default:
		c.Data.Validation = "none"
	}
	asked := o.scoreTest != "recipe" && o.scoreTest != "off"
	switch {
	case c.Data.Validation == "test" && asked:
		return hint.Wrap(usageError{fmt.Errorf("--score-test %s: the test split are the validation data here", o.scoreTest)},
			"hold some training images out: --val-images 5000")
	case data.Test == nil && asked:
		return usageError{fmt.Errorf("--score-test %s: data set %s has no test split", o.scoreTest, data.Name)}
	case data.Test != nil && c.Data.Validation != "test":
		c.ScoreTest = recipe.ScoreTest
		if o.scoreTest != "recipe" {
			c.ScoreTest = strings.TrimPrefix(o.scoreTest, "off")
		}
	}
	c.KeepBest = c.Data.Validation == "validation" || c.Data.Validation == "held-out"
	return nil
}

// withoutEffect refuses options that change nothing because another one is missing.
func (o *trainOptions) withoutEffect(c train.Config) error {
	watched := c.EarlyStop.Patience > 0 || c.Plateau.Patience > 0
	for _, x := range []struct {
		flag   string
		effect bool
		needs  string
	}{
		{"plateau-factor", c.Plateau.Patience > 0, "--plateau-patience"},
		{"min-delta", watched, "--patience or --plateau-patience"},
		{"warmup-start", c.Schedule.Warmup > 0, "--warmup"},
		{"floor", slices.Contains([]string{"linear", "cosine", "onecycle"}, c.Schedule.Name), "--schedule linear, cosine or onecycle"},
		{"freeze-learning-rate", c.Freeze != nil, "--init and --freeze-epochs"},
	} {
		if o.set(x.flag) && !x.effect {
			return usageError{fmt.Errorf("--%s has no effect without %s", x.flag, x.needs)}
		}
	}
	return nil
}

func overrideInto[T any](set func(string) bool, flag string, field *T, value T) {
	if set(flag) {
		*field = value
	}
}

// decidesNothing are options that leave a recipe what it is: they choose data,
// network or seed, or how a run is carried out.
var decidesNothing = []string{"recipe", "model", "seed", "seeds", "data-dir", "mirror", "no-download", "on-bad-image", "engine", "threads",
	"out", "runs", "save-every", "keep", "on-nan", "on-save-error", "config", "progress", "format", "dry-run", "prove-resume", "eval-every", "limit-val", "score-test"}

// unchanged reports whether the recipe's own options are used.
func (o *trainOptions) unchanged() bool {
	for _, flag := range trainFlagNames() {
		if o.set(flag) && !slices.Contains(decidesNothing, flag) {
			return false
		}
	}
	return true
}

// resolveNetwork decides network and preprocessing: those of the run whose
// weights are used, else by recipe and data.
func (o *trainOptions) resolveNetwork(c *train.Config, recipe train.Recipe, data *dataset.Data) (err error) {
	if o.init != "" {
		var source train.Config
		if c.Init, source, err = train.NewInit(o.init, data.Classes); err != nil {
			return err
		}
		for _, flag := range []string{"model", "convention", "stem", "blocks", "filters", "widen", "whiten", "whiten-pad", "preact", "avg-down", "se", "zero-gamma", "fixed-gamma", "dirac", "logit-scale"} {
			if o.set(flag) {
				return usageError{fmt.Errorf("--%s cannot be chosen with --init: the weights of %s are those of %s", flag, o.init, source.Model.Name)}
			}
		}
		c.Model, c.Preprocess = source.Model, o.pictureOptions.override(source.Preprocess)
		c.Model.Classes = len(data.Classes)
		overrideInto(o.set, "drop-path", &c.Model.DropPath, o.dropPath)
		overrideInto(o.set, "norm-rate", &c.Model.NormRate, o.normRate)
		c.Model.Height, c.Model.Width = c.Preprocess.Height, c.Preprocess.Width
		return nil
	}
	c.Preprocess = o.pictureOptions.preprocess(recipe, data)
	c.Model, err = o.network(recipe, c.Preprocess.Height, c.Preprocess.Width, data.Channels, len(data.Classes))
	return err
}

// normalizationOf are mean and deviation of the data set's pictures where they
// are known, else those of photographs.
func normalizationOf(data *dataset.Data) (mean, std []float64) {
	mean, std, ok := loader.Normalization(data.Name)
	if !ok {
		mean, std, _ = loader.Normalization("imagenet")
	}
	if data.Channels == 1 && len(mean) == 3 { // the luma's, by its weights; the deviations are nearly equal
		mean, std = []float64{0.299*mean[0] + 0.587*mean[1] + 0.114*mean[2]}, std[1:2]
	}
	return mean, std
}

// resolveSchedule is the recipe's schedule, or another one with the defaults it
// is known with (fastai's of onecycle), changed by the flags.
func (o *trainOptions) resolveSchedule(s optim.Schedule) optim.Schedule {
	if o.schedule != "recipe" && o.schedule != s.Name {
		s = optim.Schedule{Name: o.schedule}
		if s.Name == "onecycle" {
			s.Warmup, s.Start, s.Floor = 0.25, 1.0/25, 1e-5
		}
		if s.Name == "multistep" {
			s.Milestones, s.Gamma = []float64{0.5, 0.75}, o.gamma
		}
	}
	overrideInto(o.set, "warmup", &s.Warmup, o.warmup)
	overrideInto(o.set, "warmup-start", &s.Start, o.start)
	overrideInto(o.set, "floor", &s.Floor, o.floor)
	overrideInto(o.set, "milestones", &s.Milestones, o.milestones)
	overrideInto(o.set, "gamma", &s.Gamma, o.gamma)
	return s
}

// resolveLookahead is the recipe's lookahead, or the paper's, changed by the flags.
func (o *trainOptions) resolveLookahead(l optim.Lookahead) optim.Lookahead {
	if o.set("lookahead") && o.lookahead.Every == 0 {
		return optim.Lookahead{}
	}
	if l.Every == 0 && o.set("lookahead") {
		l.Keep = o.lookahead.Keep
	}
	overrideInto(o.set, "lookahead", &l.Every, o.lookahead.Every)
	overrideInto(o.set, "lookahead-keep", &l.Keep, o.lookahead.Keep)
	overrideInto(o.set, "lookahead-power", &l.Power, o.lookahead.Power)
	overrideInto(o.set, "lookahead-start", &l.Start, o.lookahead.Start)
	return l
}

// resolveFreeze is the phase that trains the dense layer alone. Its learning rate
// keeps the recipe's proportion to that of the rest.
func (o *trainOptions) resolveFreeze(recipe train.Recipe, rate float64) *train.Freeze {
	f := train.Freeze{LearningRate: rate, Schedule: optim.Schedule{Name: "constant"}}
	if recipe.Freeze != nil {
		f = *recipe.Freeze
		f.LearningRate *= rate / recipe.Optimizer.LearningRate
	}
	overrideInto(o.set, "freeze-epochs", &f.Epochs, o.freezeEpochs)
	overrideInto(o.set, "freeze-learning-rate", &f.LearningRate, o.freezeRate)
	if f.Epochs == 0 {
		return nil
	}
	return &f
}

func (o *trainOptions) network(recipe train.Recipe, height, width, channels, classes int) (model.Config, error) {
	name := cmp.Or(o.model, recipe.Model, "resnet18")
	convention := recipe.Convention
	if o.convention != "recipe" {
		convention = model.Convention(o.convention)
	}
	m, err := model.Named(name, convention, height, width, channels, classes)
	if err != nil {
		return m, err
	}
	return o.networkOptions.apply(m)
}

// splits returns the training and validation images that the configuration
// names. Both are functions of content and seed, not of the order on disk.
func splits(data *dataset.Data, c *train.Config) (fit, val dataset.Dataset, err error) {
	fit = data.Train
	k := len(data.Classes)
	if fit == nil {
		return nil, nil, fmt.Errorf("data set %s has no training pictures", data.Name)
	}
	switch c.Data.Validation {
	case "held-out":
		if c.Data.ValImages >= fit.Len() {
			return nil, nil, fmt.Errorf("--val-images %d: data set %s has %d training images", c.Data.ValImages, data.Name, fit.Len())
		}
		fit, val = dataset.Split(fit, c.Data.ValImages, k, c.Seed)
	case "validation":
		val = data.Validation
	case "test":
		val = data.Test
	}
	if val == nil && c.Data.Validation != "none" {
		return nil, nil, fmt.Errorf("data set %s has no %s split", data.Name, c.Data.Validation)
	}
	if fit, err = limited(fit, c.Data.LimitTrain, k, c.Seed, "--limit-train"); err != nil {
		return nil, nil, err
	}
	if val != nil {
		val, err = limited(val, c.Data.LimitVal, k, c.Seed, "--limit-val")
	}
	return fit, val, err
}

func limited(d dataset.Dataset, n, classes int, seed uint64, flag string) (dataset.Dataset, error) {
	if n < 0 {
		return nil, usageError{fmt.Errorf("%s %d: want a positive number", flag, n)}
	}
	if n == 0 || n >= d.Len() {
		return d, nil
	}
	_, some := dataset.Split(d, n, classes, seed)
	return some, nil
}

// checkSameOrigin refuses to continue or repeat a run on data that are not what
// it began on, and says when program or engine is another one.
func checkSameOrigin(path string, data *dataset.Data, eng engine.Engine, show *progress) error {
	run, err := rundir.Open(path)
	if err != nil {
		return err
	}
	var was origin
	if err := run.ReadOrigin(&was); err != nil {
		return err
	}
	if was.DataHash != data.Origin.Hash {
		return hint.Wrap(fmt.Errorf("%s was trained on data with the hash %s, %s has %s", run.Path(), was.DataHash, data.Name, data.Origin.Hash),
			"bring the old data back, or start a new run")
	}
	if was.Engine != eng.Name() || was.Version != version() {
		show.notice(fmt.Sprintf("note: %s began on %s with version %s, this is %s with %s: bits may differ from those of one run in one piece",
			path, was.Engine, was.Version, eng.Name(), version()))
	}
	return nil
}

// cpuFeatures names the instruction sets that kernels may use here.
func cpuFeatures() []string {
	features := []string{}
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"avx2", cpu.X86.HasAVX2}, {"fma", cpu.X86.HasFMA}, {"avx512f", cpu.X86.HasAVX512F}, {"avx512bw", cpu.X86.HasAVX512BW},
		{"avx512vl", cpu.X86.HasAVX512VL}, {"avx512_bf16", cpu.X86.HasAVX512BF16}, {"amx_tile", cpu.X86.HasAMXTile}, {"amx_bf16", cpu.X86.HasAMXBF16},
		{"asimd", cpu.ARM64.HasASIMD},
	} {
		if f.has {
			features = append(features, f.name)
		}
	}
	return features
}

func newOrigin(data *dataset.Data, eng engine.Engine, cfg train.Config, kernels map[string]string, commandLine []string) origin {
	config, _ := json.Marshal(cfg) // what was read or resolved can be written
	sum := sha256.Sum256(config)
	return origin{
		Binary: binaryHash(), Config: hex.EncodeToString(sum[:]), Epochs: cfg.Epochs,
		Version: version(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		CPUs: runtime.NumCPU(), CPUFeatures: cpuFeatures(),
		Started: time.Now().UTC().Truncate(time.Second), Engine: eng.Name(), Kernels: kernels,
		Data: data.Origin, DataHash: data.Origin.Hash, CommandLine: commandLine,
	}
}
