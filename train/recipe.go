package train

import (
	"fmt"
	"slices"
	"strings"

	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
)

// Recipe is a named set of defaults: everything a run needs besides its data.
// Options override any of it.
type Recipe struct {
	Name       string
	About      string // one line for --help
	Model      string // "": resnet18
	Convention model.Convention
	Optimizer  optim.Config
	Schedule   optim.Schedule
	// Schedules has those networks, by name, whose schedule is another one.
	Schedules map[string]optim.Schedule
	// Freeze is the phase in which only the dense layer learns; Epochs counts it.
	// A recipe with it begins with the weights of another run.
	Freeze *Freeze
	LRMult float64
	// StemEpochs: the stem learns in the first epochs alone; 0: in all.
	StemEpochs int
	L2         float64
	Epochs     int

	BatchSize      int
	LabelSmoothing float64
	ClipNorm       float64
	EMA            float64
	Augment        loader.Augment
	// Normalize subtracts mean and divides by deviation of the data set's
	// pictures (of ImageNet's where they are not known), or as the run whose
	// weights are used did; without it, only x/255.
	Normalize bool
	// ValidateOnTest uses the official test split as validation data, as the
	// tutorial does. No choice may then be made by the validation score. Without
	// it, HoldOut training images are held out where the data have no validation
	// split, or a tenth where that is less, and the test split is scored once, after
	// the run. A recipe with neither trains with all images and leaves nothing to
	// choose by.
	ValidateOnTest bool
	HoldOut        int
	ScoreTest      string // Config.ScoreTest
	// Precision is what "auto" means; empty: the faster one.
	Precision string

	// Expected says what the recipe, unchanged, reaches.
	Expected []Expectation
}

// Expectation is the accuracy that a recipe is known to reach with a network on a
// data set.
type Expectation struct {
	Data  string `json:"data"`
	Model string `json:"model"`
	// Low and High are shares: of test images, or of validation images where the
	// recipe validates on the test split.
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Source string  `json:"source"` // who measured it
}

// ScheduleOf returns the schedule for a network.
func (r Recipe) ScheduleOf(model string) optim.Schedule {
	if s, other := r.Schedules[model]; other {
		return s
	}
	return r.Schedule
}

// Expectation returns what the recipe is known to reach, nil where nobody has
// measured it.
func (r Recipe) Expectation(data, model string) *Expectation {
	i := slices.IndexFunc(r.Expected, func(e Expectation) bool { return e.Data == data && e.Model == model })
	if i < 0 {
		return nil
	}
	e := r.Expected[i]
	return &e
}

// String says it in words, with percentages.
func (e Expectation) String() string {
	band := fmt.Sprintf("%.2f %%", 100*e.Low)
	if e.High > e.Low {
		band = fmt.Sprintf("%.2f to %.2f %%", 100*e.Low, 100*e.High)
	}
	return band + " (" + e.Source + ")"
}

// Judge says in words how an accuracy compares. Outside of the band it makes a
// difference whether chance can explain it: low to high is its interval.
func (e Expectation) Judge(accuracy, low, high float64) string {
	switch {
	case accuracy < e.Low && high >= e.Low:
		return fmt.Sprintf("%.2f points below it, which chance can explain", 100*(e.Low-accuracy))
	case accuracy < e.Low:
		return fmt.Sprintf("%.2f points below it", 100*(e.Low-accuracy))
	case accuracy > e.High && low <= e.High:
		return fmt.Sprintf("%.2f points above it, which chance can explain", 100*(accuracy-e.High))
	case accuracy > e.High:
		return fmt.Sprintf("%.2f points above it", 100*(accuracy-e.High))
	}
	return "as expected"
}

var constant = optim.Schedule{Name: "constant"}

// What airbench94.py has (https://github.com/KellerJordan/cifar10-airbench). There
// the loss is a sum over 1024 pictures, the rate 11.5/(1024·(1+1/(1-0.85))) and the
// decay 0.0153·1024/11.5; of the mean that is a rate of 1.5 and a decay of 0.00133.
var (
	airbench = optim.Config{Name: "sgd", LearningRate: 1.5, Momentum: 0.85, Nesterov: true, WeightDecay: 0.0153 / 11.5, DecayAll: true,
		ShiftRate: 64, Lookahead: optim.Lookahead{Every: 5, Keep: 0.7738, Power: 3, Start: 0.3}} // 0.95⁵
	airbenchRate    = optim.Schedule{Name: "linear", Warmup: 0.23, Start: 0.2, Floor: 0.07}
	airbenchAugment = loader.Augment{Translate: 2, AlternatingFlip: true}
)

var recipes = []Recipe{
	{
		Name:       "tutorial",
		About:      "the Keras tutorial: Adam 1e-3, batch 32, 5 epochs, x/255, validated on the test split",
		Convention: model.Keras,
		Optimizer:  optim.Config{Name: "adam", LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7},
		Schedule:   constant,
		// keras.regularizers.l2()'s default, on the dense layer's kernel alone.
		L2: 0.01, Epochs: 5, BatchSize: 32, ValidateOnTest: true,
		Precision: "float32", // in which the claim of parity is made
		Expected: []Expectation{
			{"cifar10", "resnet18", 0.7911, 0.7911, "one run, seed 0, README"},
			{"shapes", "resnet18", 0.96375, 0.9862, "seed 0 with five sets of kernels, README"},
			{"shapes", "resnet20", 0.932, 1, "seeds 0 to 4, README"},
		},
	},
	{
		// speedrun94 in fewer epochs.
		Name:       "fast",
		About:      "most accuracy in ten minutes of two cores: resnet8w, a small residual network with a whitening stem, in nine epochs of speedrun94's recipe",
		Model:      "resnet8w",
		Convention: model.Torch,
		Optimizer:  airbench, Schedule: airbenchRate, StemEpochs: 3,
		Epochs: 9, BatchSize: 1024, LabelSmoothing: 0.2,
		Augment: airbenchAugment, Normalize: true, HoldOut: 5000, ScoreTest: "six",
		Expected: []Expectation{{"cifar10", "resnet8w", 0.9233, 0.9244, "seeds 0 to 2, README; with six views 92.93 to 93.15 %"}},
	},
	{
		// He et al. 2015, section 4.2: 64k steps of 128 images, a tenth of the rate
		// after 32k and 48k; 45,000 images make 352 steps an epoch. Weight decay acts
		// on all parameters, as in the re-run. The paper subtracts a per-pixel mean,
		// this the mean of each channel. The paper warms ResNet-110 up with a rate of
		// 0.01 for about 400 steps; here it rises from there in 400.
		Name:       "he2015",
		About:      "He et al. 2015 for ResNet-20 to -110: SGD 0.1, 64,000 steps of 128 images, a tenth after 32,000 and 48,000",
		Model:      "resnet20",
		Convention: model.Torch,
		Optimizer:  optim.Config{Name: "sgd", LearningRate: 0.1, Momentum: 0.9, WeightDecay: 1e-4, DecayAll: true},
		Schedule:   optim.Schedule{Name: "multistep", Milestones: []float64{0.5, 0.75}, Gamma: 0.1},
		Schedules: map[string]optim.Schedule{
			"resnet110": {Name: "multistep", Milestones: []float64{0.5, 0.75}, Gamma: 0.1, Warmup: 400.0 / 64000, Start: 0.1},
		},
		Epochs: 182, BatchSize: 128, Augment: loader.Augment{PadCrop: 4, Flip: true}, Normalize: true, HoldOut: 5000, ScoreTest: "flip",
		Expected: []Expectation{
			{"cifar10", "resnet20", 0.9125, 0.9173, he2015Source},
			{"cifar10", "resnet32", 0.9249, 0.9263, he2015Source},
			{"cifar10", "resnet44", 0.9283, 0.9310, he2015Source},
			{"cifar10", "resnet56", 0.9303, 0.9339, he2015Source},
			{"cifar10", "resnet110", 0.9357, 0.9368, he2015Source},
		},
	},
	{
		// What kuangliu/pytorch-cifar's main.py does in 200 epochs (SGD of 0.1, cosine,
		// 5e-4) in less than a quarter of them, with Nesterov momentum, label smoothing and
		// the augmentation of airbench96.py (40 epochs, 96 %).
		Name:       "best",
		About:      "ResNet-18 as well as it goes in some hours: 45 epochs of SGD 0.1 with a cosine, cutout, label smoothing, moving average",
		Model:      "resnet18",
		Convention: model.Torch,
		Optimizer:  optim.Config{Name: "sgd", LearningRate: 0.1, Momentum: 0.9, Nesterov: true, WeightDecay: 5e-4},
		Schedule:   optim.Schedule{Name: "cosine", Warmup: 0.05},
		Epochs:     45, BatchSize: 128, LabelSmoothing: 0.1, EMA: 0.999,
		Augment: loader.Augment{Translate: 4, AlternatingFlip: true, Cutout: 12}, Normalize: true, HoldOut: 5000, ScoreTest: "six",
		Expected: []Expectation{{"cifar10", "resnet18", 0.9467, 0.9467, "seed 0, README; with six views 95.14 %"}},
	},
	{
		// The recipe of airbench94.py, 94.01 % as the mean of 1000 runs of 9.9 epochs, with
		// all training images as there. Fourteen epochs were decided on 45,000 of them:
		// docs/decisions/0020-speedrun.md.
		Name:       "speedrun94",
		About:      "resnet8w in fourteen epochs of all training images, after the CIFAR-10 speed records of Page, hlb-CIFAR10 and airbench",
		Model:      "resnet8w",
		Convention: model.Torch,
		Optimizer:  airbench, Schedule: airbenchRate, StemEpochs: 3,
		Epochs: 14, BatchSize: 1024, LabelSmoothing: 0.2,
		Augment: airbenchAugment, Normalize: true, ScoreTest: "six",
		Expected: []Expectation{{"cifar10", "resnet8w", 0.9323, 0.9354, "seeds 0 to 4, README; with six views 93.90 to 94.27 %"}},
	},
	{
		// fastai's fine_tune(epochs, base_lr=2e-3, freeze_epochs=1, lr_mult=100,
		// pct_start=0.3, div=5.0): one frozen epoch with base_lr, rising nearly to
		// its end, then half of base_lr. Its Adam decays weights decoupled, but not
		// of batch normalisation and biases, and so does adamw here.
		Name:       "finetune",
		About:      "from trained weights (--init RUN): an epoch of the dense layer alone, then all, AdamW, rates from 1e-5 in the stem to 1e-3",
		Convention: model.Torch,
		Optimizer:  optim.Config{Name: "adamw", LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.99, Epsilon: 1e-5, WeightDecay: 0.01},
		Schedule:   optim.Schedule{Name: "onecycle", Warmup: 0.3, Start: 1.0 / 5, Floor: 1e-5},
		Freeze:     &Freeze{Epochs: 1, LearningRate: 2e-3, Schedule: optim.Schedule{Name: "onecycle", Warmup: 0.99, Start: 1.0 / 25, Floor: 1e-5}},
		LRMult:     100,
		Epochs:     6, BatchSize: 32, Augment: loader.Augment{Flip: true}, Normalize: true, HoldOut: 5000, ScoreTest: "flip",
	},
}

const he2015Source = "He et al. 2015, table 6, to the re-run of akamaster/pytorch_resnet_cifar10"

// RecipeNamed returns a recipe. An unknown name is an error with a hint.
func RecipeNamed(name string) (Recipe, error) {
	i := slices.IndexFunc(recipes, func(r Recipe) bool { return r.Name == name })
	if i < 0 {
		return Recipe{}, hint.Wrap(fmt.Errorf("recipe %q is unknown", name), hint.DidYouMean(name, RecipeNames(), "known recipes: "+strings.Join(RecipeNames(), ", ")))
	}
	return recipes[i], nil
}

// RecipeNames lists the recipes.
func RecipeNames() []string {
	names := make([]string, len(recipes))
	for i, r := range recipes {
		names[i] = r.Name
	}
	return names
}
