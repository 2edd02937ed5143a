package keras

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/structure"
	"github.com/residual-ml/residual/internal/hdf5"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// scope finds the weights of the layers of one model. There are two layouts:
//
//	Keras 3   layers/<class>_<k>/vars/<i>; k counts the layers of a class in the
//	          configuration's order, and newer files tell the layer's name in an
//	          attribute of vars
//	HDF5      <layer>, with the attribute weight_names: paths below it, such as
//	          conv2d/kernel:0, in the order of the layer's weights
type scope struct {
	layers  map[string]*hdf5.Object // Keras 3: by the name in the attribute
	group   *hdf5.Object            // Keras 3: the group "layers"; nil where the model has no weights
	counter map[string]int          // Keras 3: layers seen, by class

	legacy  *hdf5.Object        // HDF5: the group of all layers, or nil
	members map[string]*weights // HDF5, within a model in a model: by the layer's name
}

// weights are those of a layer, in its order.
type weights struct {
	group *hdf5.Object   // Keras 3: the layer's; of a model, its own
	names []string       // HDF5: last element of each weight's path
	found []*hdf5.Object // the data sets
	inner map[string]*weights
	err   error
}

// newScope is the scope of the outermost model.
func newScope(c *contents) (*scope, error) {
	for _, name := range []string{"layers", "_layer_checkpoint_dependencies"} {
		if c.root.Child(name) != nil {
			return storeScope(c.root), nil
		}
	}
	if stringList(c.root, "layer_names") != nil {
		return &scope{legacy: c.root}, nil
	}
	return nil, errors.New("there are no weights: neither a group layers nor a list layer_names")
}

// storeScope is the scope of a model whose own group is g.
func storeScope(g *hdf5.Object) *scope {
	s := &scope{layers: map[string]*hdf5.Object{}, counter: map[string]int{}}
	for _, name := range []string{"layers", "_layer_checkpoint_dependencies"} {
		if s.group = g.Child(name); s.group != nil {
			break
		}
	}
	if s.group == nil {
		return s
	}
	for _, l := range s.group.Children {
		if vars := l.Child("vars"); vars != nil {
			if a := vars.Attribute("name"); a != nil {
				if name, err := a.Text(); err == nil {
					s.layers[name] = l
				}
			}
		}
	}
	return s
}

// next returns the weights of the next layer of the configuration.
func (s *scope) next(name, class string) weights {
	if s.legacy != nil {
		return legacyWeights(s.legacy.Child(name))
	}
	if s.members != nil {
		if w := s.members[name]; w != nil {
			return *w
		}
		return weights{}
	}
	base := snake(class)
	k := s.counter[base]
	s.counter[base]++
	if s.group == nil {
		return weights{}
	}
	l := s.layers[name]
	if l == nil && len(s.layers) == 0 {
		if k > 0 {
			base += "_" + strconv.Itoa(k)
		}
		l = s.group.Child(base)
	}
	if l == nil {
		return weights{}
	}
	w := weights{group: l}
	if vars := l.Child("vars"); vars != nil {
		for i := range vars.Children {
			o := vars.Child(strconv.Itoa(i))
			if o == nil || o.Data == nil {
				w.err = fmt.Errorf("%s has no data set %d", vars.Path, i)
				break
			}
			w.found = append(w.found, o)
		}
	}
	return w
}

// nested is the scope of a model within the model, whose weights are w.
func (s *scope) nested(w weights) *scope {
	if s.legacy == nil && s.members == nil {
		if w.group == nil {
			return &scope{counter: map[string]int{}}
		}
		return storeScope(w.group)
	}
	if w.inner == nil {
		w.inner = map[string]*weights{}
	}
	return &scope{members: w.inner}
}

// legacyWeights reads the group of a layer in the older layout.
func legacyWeights(g *hdf5.Object) weights {
	if g == nil {
		return weights{}
	}
	w := weights{inner: map[string]*weights{}}
	for _, path := range stringList(g, "weight_names") {
		o := g.Child(path)
		if o == nil || o.Data == nil {
			w.err = fmt.Errorf("%s has no data set %q", g.Path, path)
			return w
		}
		parts := strings.Split(path, "/")
		name := variableName(parts[len(parts)-1])
		w.names, w.found = append(w.names, name), append(w.found, o)
		if len(parts) > 1 {
			layer := parts[len(parts)-2]
			if w.inner[layer] == nil {
				w.inner[layer] = &weights{inner: map[string]*weights{}}
			}
			in := w.inner[layer]
			in.names, in.found = append(in.names, name), append(in.found, o)
		}
		for _, outer := range parts[:max(0, len(parts)-2)] { // models within it find it too
			if w.inner[outer] == nil {
				w.inner[outer] = &weights{inner: w.inner}
			}
		}
	}
	return w
}

var tfSuffix = regexp.MustCompile(`(_\d+)?:\d+$`)

// variableName is kernel of kernel:0 and kernel_1:0.
func variableName(s string) string { return tfSuffix.ReplaceAllString(s, "") }

// stringList reads an attribute of strings, which Keras splits into name0, name1,
// … where it would be too long. It is nil where there is none, empty where it is.
func stringList(o *hdf5.Object, name string) []string {
	if a := o.Attribute(name); a != nil {
		list, err := a.Strings()
		if err != nil || list == nil {
			list = []string{} // an empty list has no type of strings
		}
		return list
	}
	var all []string
	for i := 0; ; i++ {
		a := o.Attribute(name + strconv.Itoa(i))
		if a == nil {
			return all
		}
		list, err := a.Strings()
		if err != nil {
			return all
		}
		all = append(all, list...)
	}
}

var (
	snakeWord  = regexp.MustCompile(`(.)([A-Z][a-z]+)`)
	snakeUpper = regexp.MustCompile(`([a-z])([A-Z])`)
)

// snake is Keras's name of a class's instances: batch_normalization, re_lu, conv2d.
func snake(class string) string {
	s := snakeWord.ReplaceAllString(class, "${1}_$2")
	return strings.ToLower(snakeUpper.ReplaceAllString(s, "${1}_$2"))
}

// take reads a layer's weights in the order of names, of which the first `least`
// must exist; the next one exists where bias is nil or true. Kernels come in
// torchvision's order of axes.
func (b *builder) take(l *layerState, least int, bias *bool, names ...string) ([]structure.Param, error) {
	w := l.weights
	if w.err != nil {
		return nil, w.err
	}
	want := len(names)
	if bias != nil && !*bias {
		want = least
	}
	if len(w.found) < want {
		return nil, fmt.Errorf("%d weights in the file, want %d: %s", len(w.found), want, strings.Join(names[:want], ", "))
	}
	if len(w.found) > want && l.Class != "Normalization" { // which keeps a count as well
		return nil, fmt.Errorf("%d weights in the file, want %d: %s", len(w.found), want, strings.Join(names[:want], ", "))
	}
	params := make([]structure.Param, len(names))
	for i := range want {
		o := w.found[i]
		if w.names != nil { // the layout tells the name; an order of its own is possible
			for j, name := range w.names {
				if name == names[i] {
					o = w.found[j]
				}
			}
		}
		t, err := value(o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", names[i], err)
		}
		b.used[o] = true
		params[i] = structure.Value(strings.TrimPrefix(o.Path, "/"), t)
	}
	return params, nil
}

// value reads a tensor and brings it into torchvision's order of axes.
func value(o *hdf5.Object) (tensor.Tensor, error) {
	t, err := o.Data.Tensor()
	if err != nil {
		return t, fmt.Errorf("%s: %w", o.Path, err)
	}
	if !artifact.IsFloat(t.DType()) {
		return t, fmt.Errorf("%s is %v, want floating-point numbers", o.Path, t.DType())
	}
	return model.ToFile(t), nil
}

func wide(t tensor.Tensor) []float64 { return t.Convert(tensor.Float64).Float64s() }

// normalDeviation is what Keras's Normalization divides by.
func normalDeviation(variance float64) float64 { return max(math.Sqrt(variance), 1e-7) }
