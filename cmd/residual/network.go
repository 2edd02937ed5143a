package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// networkOptions change a network of the literature.
type networkOptions struct {
	blocks                         []int
	filters                        int
	stem                           string
	preact, zeroGamma, avgDown, se bool
	dropPath                       float64
	widen                          []int
	whiten                         int
	whitenPad, dirac, fixedGamma   bool
	normRate, logitScale           float64

	flags *pflag.FlagSet
}

func (o *networkOptions) addFlags(f *pflag.FlagSet) {
	o.flags = f
	f.IntSliceVar(&o.blocks, "blocks", nil, "blocks per stage, such as 2,2,2,2")
	f.IntVar(&o.filters, "filters", 0, "filters of the first stage, doubled in each that follows")
	f.IntSliceVar(&o.widen, "widen", nil, "filters of each stage as multiples of the first's, such as 1,4,4, in networks like resnet8w")
	choiceFlag(f, &o.stem, "stem", "3x3 (small), 7x7 with max-pool (large), three 3x3 with max-pool (deep), or a kernel computed from training pictures (whiten, in networks like resnet8w); auto: small up to 64 pixels",
		"auto", string(model.SmallStem), string(model.LargeStem), string(model.DeepStem), string(model.WhitenStem))
	f.IntVar(&o.whiten, "whiten", 0, "side of the whitening stem's kernel")
	f.BoolVar(&o.whitenPad, "whiten-pad", false, "pad the whitening stem's pictures with zeros, so that they keep their size")
	f.BoolVar(&o.preact, "preact", false, "pre-activation: batch norm and ReLU before each convolution, not after")
	f.BoolVar(&o.zeroGamma, "zero-gamma", false, "start every block as its shortcut: the last batch norm's γ begins at 0")
	f.BoolVar(&o.avgDown, "avg-down", false, "shortcuts average 2x2 pixels instead of striding (ResNet-D)")
	f.BoolVar(&o.se, "se", false, "squeeze-excitation in every block")
	f.BoolVar(&o.fixedGamma, "fixed-gamma", false, "batch norm's γ stays 1")
	f.Float64Var(&o.logitScale, "logit-scale", 0, "factor on the logits of resnet9 and resnet8w")
}

// addTrainingFlags adds what matters in training alone.
func (o *networkOptions) addTrainingFlags(f *pflag.FlagSet) {
	f.Float64Var(&o.dropPath, "drop-path", 0, "stochastic depth: probability that an image skips the last block; falls to 0 for the first block")
	f.BoolVar(&o.dirac, "dirac", false, "start convolutions as the identity on their channels")
	f.Float64Var(&o.normRate, "norm-rate", 0, "share of a batch's statistics in batch norm's moving ones (PyTorch's momentum)")
}

// apply changes a network of the literature, and its name when it is no longer
// that. A flag that nothing set leaves the network as it is.
func (o *networkOptions) apply(m model.Config) (model.Config, error) {
	if len(o.blocks) > 0 && !slices.Equal(o.blocks, m.Blocks) {
		m.Blocks = o.blocks
		m.Name += "-blocks" + strings.Trim(strings.ReplaceAll(fmt.Sprint(o.blocks), " ", "."), "[]")
	}
	if o.filters != 0 && o.filters != m.Filters {
		m.Filters = o.filters
		m.Name += fmt.Sprintf("-filters%d", o.filters)
	}
	if len(o.widen) > 0 && !slices.Equal(o.widen, m.Widen) {
		m.Widen = o.widen
		m.Name += "-widen" + strings.Trim(strings.ReplaceAll(fmt.Sprint(o.widen), " ", "."), "[]")
	}
	if o.stem != "auto" {
		m.Stem = model.Stem(o.stem)
		switch {
		case m.Stem != model.WhitenStem:
			m.Whiten, m.WhitenPad = 0, false
		case m.Whiten == 0:
			m.Whiten = 2
		}
	}
	if o.flags.Changed("whiten") && o.whiten != m.Whiten {
		m.Whiten = o.whiten
		m.Name += fmt.Sprintf("-whiten%d", o.whiten)
	}
	for _, variant := range []struct {
		flag  string
		field *bool
		value bool
	}{{"preact", &m.PreAct, o.preact}, {"avg-down", &m.AvgDown, o.avgDown}, {"se", &m.SE, o.se}} {
		if o.flags.Changed(variant.flag) && *variant.field != variant.value {
			*variant.field = variant.value
			m.Name += "-" + map[bool]string{false: "no"}[variant.value] + variant.flag
		}
	}
	overrideInto(o.flags.Changed, "zero-gamma", &m.ZeroGamma, o.zeroGamma)
	overrideInto(o.flags.Changed, "drop-path", &m.DropPath, o.dropPath)
	overrideInto(o.flags.Changed, "whiten-pad", &m.WhitenPad, o.whitenPad)
	overrideInto(o.flags.Changed, "dirac", &m.Dirac, o.dirac)
	overrideInto(o.flags.Changed, "fixed-gamma", &m.FixedGamma, o.fixedGamma)
	overrideInto(o.flags.Changed, "norm-rate", &m.NormRate, o.normRate)
	overrideInto(o.flags.Changed, "logit-scale", &m.LogitScale, o.logitScale)
	return m, m.Check()
}

// namedNetwork is a network of the literature with its changes, its images and
// its classes, of the commands that take a name and no data.
type namedNetwork struct {
	networkOptions
	own                              *pflag.FlagSet // its flags
	convention                       string
	height, width, channels, classes int
}

func (o *namedNetwork) addFlags(flags *pflag.FlagSet) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.SortFlags = false
	o.own = f
	defer func() { flags.AddFlagSet(f) }()
	choiceFlag(f, &o.convention, "convention", "whose padding and batch norm", "keras", "torch")
	f.IntVar(&o.height, "height", 32, "of the images")
	f.IntVar(&o.width, "width", 32, "of the images")
	f.IntVar(&o.channels, "channels", 3, "of the images")
	f.IntVar(&o.classes, "classes", 10, "number of classes")
	o.networkOptions.addFlags(f)
}

func (o *namedNetwork) build(name string) (model.Config, error) {
	m, err := model.Named(name, model.Convention(o.convention), o.height, o.width, o.channels, o.classes)
	if err != nil {
		return m, err
	}
	return o.networkOptions.apply(m)
}

// open is how the network of a name is trained by the recipe tutorial, or that of a run
// directory by its own. A run has its network: options for another one are an error,
// and so is what is neither a name nor a run.
func (o *namedNetwork) open(name string) (c train.Config, isRun bool, err error) {
	if names := model.Names(); !slices.Contains(names, name) {
		run, err := rundir.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			err = hint.Wrap(fmt.Errorf("%q is no model, and %w", name, err), hint.DidYouMean(name, names, "known models: "+strings.Join(names, ", ")))
		}
		if err != nil {
			return c, false, err
		}
		var given error
		o.own.VisitAll(func(f *pflag.Flag) {
			if typed(o.own)(f.Name) && given == nil {
				given = usageError{fmt.Errorf("--%s is for networks by name; %s is a run, which has its own", f.Name, name)}
			}
		})
		if given != nil {
			return c, true, given
		}
		return c, true, run.ReadConfig(&c)
	}
	m, err := o.build(name)
	if err != nil {
		return c, false, err
	}
	c, err = tutorialOf(m)
	return c, false, err
}

// tutorialOf is how the recipe tutorial trains a network, as far as a step's graph
// depends on it.
func tutorialOf(m model.Config) (train.Config, error) {
	recipe, err := train.RecipeNamed("tutorial")
	return train.Config{
		Model: m, Classes: make([]string, m.Classes), Optimizer: recipe.Optimizer, L2: recipe.L2, Epochs: 1, BatchSize: recipe.BatchSize, Engine: "cpu",
		Preprocess: loader.Preprocess{Height: m.Height, Width: m.Width, Channels: m.Channels, Resize: loader.Squash, Scale: 1},
	}, err
}
