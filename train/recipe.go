package train

import (
	"fmt"
	"slices"
	"strings"

	"github.com/residual-ml/residual/internal/hint"
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
	L2         float64
	Epochs     int
	BatchSize  int
	// ValidateOnTest uses the official test split as validation data, as the
	// tutorial does. No choice may then be made by the validation score.
	ValidateOnTest bool
}

var recipes = []Recipe{
	{
		Name:       "tutorial",
		About:      "the Keras tutorial: Adam 1e-3, batch 32, 5 epochs, x/255, validated on the test split",
		Convention: model.Keras,
		Optimizer:  optim.Config{Name: "adam", LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7},
		// keras.regularizers.l2()'s default, on the dense layer's kernel alone.
		L2: 0.01, Epochs: 5, BatchSize: 32, ValidateOnTest: true,
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
