package keras

import (
	"archive/zip"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/structure"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/hdf5"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// ourKey is where metadata.json has what Keras has no place for: the model's
// configuration, classes, preprocessing and golden vectors. Keras does not read
// metadata.json, and extracts whole archives that have a fourth member.
const ourKey = "residual"

// version is the version of Keras whose format Write follows.
const version = "3.0.0"

// Write writes m as a .keras archive that Keras 3 loads, with any backend and in
// safe mode: a functional model of standard layers, which computes what m does.
// Padding that 'same' does not mean is a ZeroPadding2D; a shortcut of option A is
// an AveragePooling2D of one pixel, which subsamples, and a ZeroPadding2D with
// channels_first, which pads the last axis, for these pictures the channels. The
// factor on a pooled network's logits is a Rescaling.
//
// The same model gives the same bytes.
func Write(w io.Writer, m *artifact.Model, o artifact.WriteOptions) error {
	if err := o.Refuse("keras", artifact.WriteOptions{Softmax: true, Preprocess: true}); err != nil {
		return err
	}
	metadata, err := m.WriteMetadata()
	if err != nil {
		return err
	}
	sized := artifact.Sized(m.Config)
	net, err := structure.Of(sized, m.Tensor)
	if err != nil {
		return err
	}
	layers, err := layersOf(net, m, o)
	if err != nil {
		return err
	}
	config, err := functional(m.Config.Name, layers)
	if err != nil {
		return err
	}
	about, err := json.Marshal(map[string]any{"keras_version": version, ourKey: metadata})
	if err != nil {
		return err
	}

	z := zip.NewWriter(w)
	member := func(name string, fill func(io.Writer) error) error {
		f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			return err
		}
		return fill(f)
	}
	text := func(b []byte) func(io.Writer) error {
		return func(w io.Writer) error { _, err := w.Write(b); return err }
	}
	for _, err := range []error{
		member(metadataMember, text(about)),
		member(configMember, text(config)),
		member(weightsMember, func(w io.Writer) error { return writeWeights(w, m.Config.Name, layers) }),
		z.Close(),
	} {
		if err != nil {
			return fmt.Errorf("keras archive: %w", err)
		}
	}
	return nil
}

// kerasLayer is a layer as Keras has it.
type kerasLayer struct {
	name, class string
	options     map[string]any
	inputs      []*kerasLayer
	shape       tensor.Shape // of the output
	weights     []tensor.Tensor
}

// layersOf writes a network in Keras's layers.
func layersOf(net *structure.Network, m *artifact.Model, o artifact.WriteOptions) ([]*kerasLayer, error) {
	var layers []*kerasLayer
	names := map[string]bool{}
	add := func(name, class string, shape tensor.Shape, options map[string]any, inputs ...*kerasLayer) *kerasLayer {
		name = strings.ReplaceAll(name, ".", "_")
		if names[name] {
			name += "_" + snake(class)
		}
		for base, i := name, 2; names[name]; i++ {
			name = base + "_" + strconv.Itoa(i)
		}
		names[name] = true
		l := &kerasLayer{name: name, class: class, options: options, inputs: inputs, shape: shape}
		layers = append(layers, l)
		return l
	}
	now := map[*structure.Layer]*kerasLayer{}
	for _, l := range net.Layers {
		var in *kerasLayer
		if len(l.Inputs) > 0 {
			in = now[l.Inputs[0]]
		}
		// padded puts a padding that the layer itself has no word for before it.
		padded := func(kernelH, kernelW int) string {
			s := l.Inputs[0].Shape
			h, w := graph.SamePadding(s[0], s[0], kernelH, l.Stride), graph.SamePadding(s[1], s[1], kernelW, l.Stride)
			switch l.Pad {
			case graph.Padding{}:
				return "valid"
			case graph.Padding{Top: h.Top, Bottom: h.Bottom, Left: w.Left, Right: w.Right}:
				return "same"
			}
			shape := tensor.Shape{s[0] + l.Pad.Top + l.Pad.Bottom, s[1] + l.Pad.Left + l.Pad.Right, s[2]}
			in = add(l.Name+".pad", "ZeroPadding2D", shape, map[string]any{"data_format": "channels_last",
				"padding": [][]int{{l.Pad.Top, l.Pad.Bottom}, {l.Pad.Left, l.Pad.Right}}}, in)
			return "valid"
		}
		switch l.Kind {
		case structure.Input:
			now[l] = add("images", "InputLayer", l.Shape, map[string]any{"batch_shape": []any{nil, l.Shape[0], l.Shape[1], l.Shape[2]}, "dtype": "float32"})
			if o.Preprocess {
				p := m.Preprocess
				if p == nil {
					return nil, errors.New("the preprocessing is not known, so that the network cannot include it")
				}
				gain, offset := p.Linear()
				if len(p.Mean) == 0 && len(p.Std) == 0 { // one number is that of all channels
					gain, offset = gain[:1], offset[:1]
				}
				now[l] = add("rescaling", "Rescaling", l.Shape, map[string]any{"scale": gain, "offset": offset}, now[l])
			}
		case structure.Conv:
			size := l.Weight.Shape[2:]
			padding := padded(size[0], size[1])
			k := add(l.Name, "Conv2D", l.Shape, map[string]any{"filters": l.Weight.Shape[0], "kernel_size": []int{size[0], size[1]},
				"strides": []int{l.Stride, l.Stride}, "padding": padding, "use_bias": l.Bias.Present(), "data_format": "channels_last"}, in)
			k.weights = kernelAndBias(l)
			now[l] = k
		case structure.Dense:
			k := add(l.Name, "Dense", l.Shape, map[string]any{"units": l.Weight.Shape[0], "use_bias": l.Bias.Present()}, in)
			k.weights = kernelAndBias(l)
			now[l] = k
		case structure.BatchNorm:
			k := add(l.Name, "BatchNormalization", l.Shape, map[string]any{"axis": -1, "epsilon": l.Epsilon, "momentum": 1 - m.Config.BatchNormRate()}, in)
			k.weights = []tensor.Tensor{l.Scale.Value, l.Shift.Value, l.Mean.Value, l.Variance.Value}
			now[l] = k
		case structure.ReLU:
			now[l] = add(l.Name, "Activation", l.Shape, map[string]any{"activation": "relu"}, in)
		case structure.Add:
			now[l] = add(l.Name, "Add", l.Shape, nil, in, now[l.Inputs[1]])
		case structure.MaxPool:
			if l.Inputs[0].Kind != structure.ReLU && l.Pad != (graph.Padding{}) {
				return nil, hint.Wrap(fmt.Errorf("layer %s: Keras has zeros around a max-pool, which are the same only behind a ReLU", l.Name), "formats that pad with nothing: onnx, torch, safetensors")
			}
			padding := padded(l.Size, l.Size)
			now[l] = add(l.Name, "MaxPooling2D", l.Shape, map[string]any{"pool_size": []int{l.Size, l.Size}, "strides": []int{l.Stride, l.Stride}, "padding": padding}, in)
		case structure.AvgPool:
			if l.CountPad && l.Pad != (graph.Padding{}) {
				padded(0, 0) // zeros that count: never Keras's own padding
				l = &structure.Layer{Kind: l.Kind, Name: l.Name, Inputs: l.Inputs, Shape: l.Shape, Size: l.Size, Stride: l.Stride}
			}
			padding := "valid"
			if l.Pad != (graph.Padding{}) {
				if padding = padded(l.Size, l.Size); padding != "same" {
					return nil, fmt.Errorf("layer %s: Keras has no average that leaves out such padding", l.Name)
				}
			}
			now[l] = add(l.Name, "AveragePooling2D", l.Shape, map[string]any{"pool_size": []int{l.Size, l.Size}, "strides": []int{l.Stride, l.Stride}, "padding": padding}, in)
		case structure.GlobalAvgPool:
			now[l] = add(l.Name, "GlobalAveragePooling2D", l.Shape, nil, in)
		case structure.Subsample:
			now[l] = add(l.Name, "AveragePooling2D", l.Shape, map[string]any{"pool_size": []int{1, 1}, "strides": []int{l.Stride, l.Stride}, "padding": "valid"}, in)
		case structure.PadChannels:
			now[l] = add(l.Name, "ZeroPadding2D", l.Shape, map[string]any{"data_format": "channels_first",
				"padding": [][]int{{0, 0}, {l.Before, l.After}}}, in)
		case structure.Sigmoid:
			now[l] = add(l.Name, "Activation", l.Shape, map[string]any{"activation": "sigmoid"}, in)
		case structure.Multiply: // Keras stretches axes of 1
			gate, c := now[l.Inputs[1]], l.Shape[2]
			one := add(l.Name+".reshape", "Reshape", tensor.Shape{1, 1, c}, map[string]any{"target_shape": []int{1, 1, c}}, gate)
			now[l] = add(l.Name, "Multiply", l.Shape, nil, in, one)
		case structure.Rescale: // of the logits: one number
			now[l] = add(l.Name, "Rescaling", l.Shape, map[string]any{"scale": l.Gain[0], "offset": l.Offset[0]}, in)
		default:
			return nil, fmt.Errorf("layer %s: %v cannot be written for Keras", l.Name, l)
		}
	}
	out := now[net.Output]
	if o.Softmax {
		out = add("softmax", "Activation", out.shape, map[string]any{"activation": "softmax"}, out)
	}
	return kerasOrder(layers, out), nil
}

// kernelAndBias are in Keras's order of axes, [KH,KW,C,OC] and [C,K].
func kernelAndBias(l *structure.Layer) []tensor.Tensor {
	w := []tensor.Tensor{model.FromFile(l.Weight.Value)}
	if l.Bias.Present() {
		w = append(w, l.Bias.Value)
	}
	return w
}

// kerasOrder is the order that Keras gives a functional model's layers when it
// loads it, and by which it counts the layers of a class to find their weights
// (keras/src/ops/function.py, map_graph): by depth, the longest way to the
// output, deepest first; of equal depth by when a depth-first walk from the
// output meets them.
func kerasOrder(layers []*kerasLayer, out *kerasLayer) []*kerasLayer {
	index := map[*kerasLayer]int{}
	var finished []*kerasLayer // inputs first
	var walk func(*kerasLayer)
	walk = func(l *kerasLayer) {
		if _, met := index[l]; met {
			return
		}
		index[l] = len(index)
		for _, in := range l.inputs {
			walk(in)
		}
		finished = append(finished, l)
	}
	walk(out)
	depth := map[*kerasLayer]int{}
	for _, l := range slices.Backward(finished) {
		for _, in := range l.inputs {
			depth[in] = max(depth[in], depth[l]+1)
		}
	}
	layers = slices.DeleteFunc(layers, func(l *kerasLayer) bool { _, met := index[l]; return !met })
	slices.SortStableFunc(layers, func(a, b *kerasLayer) int {
		return cmp.Or(cmp.Compare(depth[b], depth[a]), cmp.Compare(index[a], index[b]))
	})
	return layers
}

// functional is the configuration of a functional model, whose last layer is the
// output.
func functional(name string, layers []*kerasLayer) ([]byte, error) {
	batch := func(s tensor.Shape) []any {
		shape := []any{nil}
		for _, d := range s {
			shape = append(shape, d)
		}
		return shape
	}
	type object = map[string]any
	var list []object
	for _, l := range layers {
		options := object{"name": l.name, "trainable": true, "dtype": "float32"}
		if l.class == "InputLayer" {
			delete(options, "trainable")
		}
		for k, v := range l.options {
			options[k] = v
		}
		nodes := []object{}
		if len(l.inputs) > 0 {
			var tensors []any
			for _, in := range l.inputs {
				tensors = append(tensors, object{"class_name": "__keras_tensor__",
					"config": object{"shape": batch(in.shape), "dtype": "float32", "keras_history": []any{in.name, 0, 0}}})
			}
			if len(tensors) > 1 { // Add takes a list
				tensors = []any{tensors}
			}
			nodes = append(nodes, object{"args": tensors, "kwargs": object{}})
		}
		list = append(list, object{"module": "keras.layers", "class_name": l.class, "config": options, "registered_name": nil,
			"name": l.name, "inbound_nodes": nodes})
	}
	end := func(l *kerasLayer) []any { return []any{l.name, 0, 0} }
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(object{
		"module": "keras.src.models.functional", "class_name": "Functional", "registered_name": "Functional",
		"config": object{"name": modelName(name), "trainable": true, "layers": list,
			"input_layers": end(layers[0]), "output_layers": end(layers[len(layers)-1])},
	})
	return b.Bytes(), err
}

// modelName is name without what Keras does not like in names.
func modelName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, name)
}

// writeWeights writes model.weights.h5: layers/<class>_<k>/vars/<i>.
func writeWeights(w io.Writer, name string, layers []*kerasLayer) error {
	root := hdf5.NewGroup()
	root.Group("vars").Attribute("name", modelName(name))
	groups := root.Group("layers")
	count := map[string]int{}
	for _, l := range layers {
		base := snake(l.class)
		k := count[base]
		count[base]++
		if k > 0 {
			base += "_" + strconv.Itoa(k)
		}
		vars := groups.Group(base).Group("vars")
		vars.Attribute("name", l.name)
		for i, t := range l.weights {
			vars.Dataset(strconv.Itoa(i), t)
		}
	}
	return hdf5.Write(w, root)
}
