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
	Convention model.Convention
	Optimizer  optim.Config
	Schedule   optim.Schedule
	// Freeze is the phase in which only the dense layer learns; Epochs counts it.
	// A recipe with it begins with the weights of another run.
	Freeze *Freeze
	LRMult float64
	L2     float64
	Epochs int

	BatchSize int
	Augment   loader.Augment
	// Normalize subtracts mean and divides by deviation of the data set's
	// pictures (of ImageNet's where they are not known), or as the run whose
	// weights are used did; without it, only x/255.
	Normalize bool
	// ValidateOnTest uses the official test split as validation data, as the
	// tutorial does. No choice may then be made by the validation score. Without
	// it, HoldOut training images are held out where the data have no validation
	// split, or a tenth where that is less.
	ValidateOnTest bool
	HoldOut        int
	// Precision is what "auto" means; empty: the faster one.
	Precision string
}

var constant = optim.Schedule{Name: "constant"}

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
		Epochs:     6, BatchSize: 32, Augment: loader.Augment{Flip: true}, Normalize: true, HoldOut: 5000,
	},
}

// RecipeNamed returns a recipe. An unknown name is an error with a hint.
func RecipeNamed(name string) (Recipe, error) {
	i := slices.IndexFunc(recipes, func(r Recipe) bool { return r.Name == name })
	if i < 0 {
		return Recipe{}, hint.Wrap(fmt.Errorf("recipe %q is unknown", name), "known recipes: "+strings.Join(RecipeNames(), ", "))
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
