package torch

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/residual-ml/residual/model"
)

//go:embed model.py
var modelPy string

// understood are the fields of a model.Config that model.py builds from.
var understood = []string{"name", "convention", "height", "width", "channels", "classes", "stem", "block", "shortcut", "blocks", "filters",
	"norm", "conv_bias", "epsilon", "stride_first"}

// Module is a Python module with c as a torch.nn.Module, for networks that
// neither torchvision nor timm has: model.py with c for its CONFIG. A network
// with something that model.py does not know is an error.
func Module(c model.Config) (string, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		return "", err
	}
	for name, v := range fields {
		if !slices.Contains(understood, name) && v != nil && !reflect.ValueOf(v).IsZero() {
			return "", fmt.Errorf("the Python module knows no network with %s %v", name, v)
		}
	}
	if strings.Contains(string(b), `"""`) {
		return "", errors.New("the network's name cannot be written in Python")
	}
	return strings.Replace(modelPy, `r"""{}"""`, `r"""`+string(b)+`"""`, 1), nil
}

// Architecture is the name under which torchvision and timm have exactly the
// network c, "" where they do not: ResNets for photographs in torch convention.
func Architecture(c model.Config) string {
	for _, name := range []string{"resnet18", "resnet34", "resnet50", "resnet101", "resnet152"} {
		theirs, err := model.Named(name, model.Torch, 224, 224, 3, c.Classes)
		if err != nil {
			continue
		}
		same := c
		same.Name, same.Height, same.Width = name, 224, 224 // with global pooling any size will do
		if reflect.DeepEqual(same, theirs) {
			return name
		}
	}
	return ""
}
