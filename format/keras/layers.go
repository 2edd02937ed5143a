package keras

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/residual-ml/residual/format/structure"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// anySize stands for a picture's side that the configuration leaves open: large
// enough for every stride.
const anySize = 224

// input adds the picture.
func (m *modelBuilder) input(l *layerState) (*structure.Layer, error) {
	shape := l.options.BatchShape
	if shape == nil {
		shape = l.options.BatchInput
	}
	if len(shape) != 4 {
		return nil, fmt.Errorf("layer %q: an input of %d axes, want pictures [N,H,W,C]", l.layer.Name, len(shape))
	}
	var s tensor.Shape
	for _, d := range shape[1:3] {
		if d == nil {
			m.sizeUnknown = true
			s = append(s, anySize)
			continue
		}
		s = append(s, *d)
	}
	if shape[3] == nil {
		return nil, fmt.Errorf("layer %q: pictures of an unknown number of channels", l.layer.Name)
	}
	return m.net.Add(structure.Layer{Kind: structure.Input, Name: l.layer.Name, Shape: append(s, *shape[3])})
}

// call adds what l computes of its inputs.
func (m *modelBuilder) call(l *layerState, inputs []*structure.Layer) (*structure.Layer, error) {
	x, err := m.compute(l, inputs)
	if err != nil {
		return nil, fmt.Errorf("layer %q, %s: %w", l.layer.Name, l.Class, err)
	}
	return x, nil
}

func (m *modelBuilder) compute(l *layerState, inputs []*structure.Layer) (*structure.Layer, error) {
	o := &l.options
	if len(inputs) == 0 {
		return nil, errors.New("it has no input")
	}
	if o.DataFormat != nil && *o.DataFormat == "channels_first" && l.Class != "ZeroPadding2D" {
		return nil, errors.New("data_format is channels_first: pictures here are [H,W,C]")
	}
	if bytes.Contains(o.DType, []byte("mixed_")) && !m.mixed {
		m.mixed = true
		m.note("the model computes in mixed precision (%s): here it is float32, so that answers differ in the last digits", o.DType)
	}
	s := structure.Layer{Name: l.layer.Name, Inputs: inputs, Stride: 1}
	switch l.Class {
	case "Conv2D", "Convolution2D":
		return m.conv(l, s)
	case "Dense":
		return m.dense(l, s)
	case "BatchNormalization", "BatchNormalizationV1", "SyncBatchNormalization":
		return m.batchNorm(l, s)
	case "Activation":
		return m.activation(o.Activation, inputs[0], s.Name)
	case "Relu": // keras.ops.relu
		s.Kind = structure.ReLU
		return m.net.Add(s)
	case "ReLU":
		if o.MaxValue != nil || !zero(o.NegativeSlope) || !zero(o.Threshold) {
			return nil, errors.New("a ReLU with limit, slope or threshold")
		}
		s.Kind = structure.ReLU
		return m.net.Add(s)
	case "Softmax":
		if axis, ok := axisOf(o.Axis); !ok || axis != -1 && axis != len(inputs[0].Shape) {
			return nil, fmt.Errorf("over axis %s, want the last", o.Axis)
		}
		s.Kind = structure.Softmax
		return m.net.Add(s)
	case "Add":
		s.Kind = structure.Add
		return m.net.Add(s)
	case "TFOpLambda": // an operator on tensors of Keras 2's functional models
		var function string
		if json.Unmarshal(o.Function, &function) == nil && slices.Contains([]string{"__operators__.add", "math.add"}, function) && len(inputs) == 2 {
			s.Kind = structure.Add
			return m.net.Add(s)
		}
		if function == "nn.relu" && len(inputs) == 1 {
			s.Kind = structure.ReLU
			return m.net.Add(s)
		}
		return nil, fmt.Errorf("the operation %s is not known", o.Function)
	case "MaxPooling2D", "MaxPool2D", "AveragePooling2D":
		s.Kind = structure.MaxPool
		if l.Class == "AveragePooling2D" {
			s.Kind = structure.AvgPool
		}
		if o.Pool == (pair{}) {
			o.Pool = pair{2, 2}
		}
		if o.Strides == (pair{}) {
			o.Strides = o.Pool
		}
		return m.window(s, o.Pool, o)
	case "GlobalAveragePooling2D", "GlobalAvgPool2D":
		s.Kind = structure.GlobalAvgPool
		return m.net.Add(s)
	case "GlobalMaxPooling2D", "GlobalMaxPool2D":
		in := inputs[0].Shape
		if len(in) != 3 || in[0] != in[1] {
			return nil, fmt.Errorf("an input of shape %v, want a square [H,W,C]", in)
		}
		s.Kind, s.Size, s.Stride = structure.MaxPool, in[0], in[0]
		pixel, err := m.net.Add(s)
		if err != nil {
			return nil, err
		}
		return m.net.Add(structure.Layer{Kind: structure.GlobalAvgPool, Name: s.Name, Inputs: []*structure.Layer{pixel}})
	case "Flatten":
		s.Kind = structure.Flatten
		return m.net.Add(s)
	case "Reshape": // [C] → [1,1,C], where a vector is taken for it
		c := inputs[0].Shape
		if len(c) != 1 || len(o.Target) != 3 || o.Target[0] != 1 || o.Target[1] != 1 || o.Target[2] != c[0] && o.Target[2] != -1 {
			return nil, fmt.Errorf("%v to %v, want the channels [C] to [1,1,C]", c, o.Target)
		}
		return inputs[0], nil
	case "Multiply":
		if len(inputs) == 2 && len(inputs[0].Shape) == 1 {
			s.Inputs = []*structure.Layer{inputs[1], inputs[0]}
		}
		s.Kind = structure.Multiply
		return m.net.Add(s)
	case "ZeroPadding2D":
		return m.zeroPadding(o, s)
	case "Rescaling":
		var err error
		if s.Gain, err = floats(o.Scale, 1); err != nil {
			return nil, fmt.Errorf("scale: %w", err)
		}
		if s.Offset, err = floats(o.Offset, 0); err != nil {
			return nil, fmt.Errorf("offset: %w", err)
		}
		s.Kind = structure.Rescale
		return m.net.Add(s)
	case "Normalization":
		return m.normalization(l, s)
	case "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "ActivityRegularization", "Identity",
		"RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness", "RandomCrop":
		if l.Class == "RandomCrop" {
			return nil, errors.New("it changes the size of pictures in use too")
		}
		if len(inputs) != 1 {
			return nil, fmt.Errorf("%d inputs, want one", len(inputs))
		}
		if l.Class != "Identity" {
			m.note("layer %q, %s, does nothing outside of training and is left out", s.Name, l.Class)
		}
		return inputs[0], nil
	case "Functional", "Model", "Sequential":
		if len(inputs) != 1 {
			return nil, fmt.Errorf("%d inputs, want one", len(inputs))
		}
		return m.container(l.layer, m.scope.nested(l.weights), inputs[0], m.depth+1)
	case "Lambda":
		return nil, errors.New("it holds code: code in files is never run")
	}
	return nil, errors.New("no layer of a residual network that is known")
}

// activation adds the activation that a layer has by name.
func (m *modelBuilder) activation(raw json.RawMessage, x *structure.Layer, name string) (*structure.Layer, error) {
	var function string
	if len(raw) > 0 && json.Unmarshal(raw, &function) != nil {
		var object struct {
			Class  string          `json:"class_name"`
			Config json.RawMessage `json:"config"`
		}
		if err := json.Unmarshal(raw, &object); err != nil {
			return nil, fmt.Errorf("activation: %w", err)
		}
		if object.Class == "function" { // Keras's own are plain names
			return nil, fmt.Errorf("activation is the function %s of the author's own: code in files is never run", object.Config)
		}
		function = strings.ToLower(object.Class) // a layer, such as ReLU
	}
	s := structure.Layer{Name: name, Inputs: []*structure.Layer{x}}
	switch function {
	case "", "linear":
		return x, nil
	case "relu":
		s.Kind = structure.ReLU
	case "softmax":
		s.Kind = structure.Softmax
	case "sigmoid":
		s.Kind = structure.Sigmoid
	default:
		return nil, fmt.Errorf("activation %q is none of a residual network that is known: relu, softmax, sigmoid and linear are", function)
	}
	return m.net.Add(s)
}

func (m *modelBuilder) conv(l *layerState, s structure.Layer) (*structure.Layer, error) {
	o := &l.options
	if o.Strides == (pair{}) {
		o.Strides = pair{1, 1}
	}
	if o.Dilation != (pair{}) && o.Dilation != (pair{1, 1}) {
		return nil, fmt.Errorf("dilation %v, want none", o.Dilation)
	}
	if o.Groups != nil && *o.Groups != 1 {
		return nil, fmt.Errorf("%d groups, want one", *o.Groups)
	}
	vars, err := m.take(l, 1, o.UseBias, "kernel", "bias")
	if err != nil {
		return nil, err
	}
	s.Kind, s.Weight, s.Bias = structure.Conv, vars[0], vars[1]
	if w := s.Weight.Shape; len(w) != 4 || w[2] != o.Kernel[0] || w[3] != o.Kernel[1] || w[0] != o.Filters {
		return nil, fmt.Errorf("kernel %v in the file, want %d filters of %v", s.Weight.Shape, o.Filters, o.Kernel)
	}
	x, err := m.window(s, o.Kernel, o)
	if err != nil {
		return nil, err
	}
	return m.activation(o.Activation, x, s.Name)
}

// window gives a convolution or a pool its stride and padding, and adds it.
func (m *modelBuilder) window(s structure.Layer, size pair, o *options) (*structure.Layer, error) {
	if o.Strides[0] != o.Strides[1] {
		return nil, fmt.Errorf("strides %v, want the same in both directions", o.Strides)
	}
	if s.Kind != structure.Conv {
		if size[0] != size[1] {
			return nil, fmt.Errorf("a pool of %v, want a square", size)
		}
		s.Size = size[0]
	}
	if s.Stride = o.Strides[0]; s.Stride < 1 || min(size[0], size[1]) < 1 || max(size[0], size[1], s.Stride) > 1<<14 {
		return nil, fmt.Errorf("size %v, strides %v", size, o.Strides)
	}
	var padding string
	if err := json.Unmarshal(o.Padding, &padding); err != nil && len(o.Padding) > 0 {
		return nil, fmt.Errorf("padding: %w", err)
	}
	switch padding {
	case "", "valid":
	case "same":
		in := s.Inputs[0].Shape
		if len(in) != 3 {
			return nil, fmt.Errorf("input of shape %v, want [H,W,C]", in)
		}
		h, w := graph.SamePadding(in[0], in[0], size[0], s.Stride), graph.SamePadding(in[1], in[1], size[1], s.Stride)
		s.Pad = graph.Padding{Top: h.Top, Bottom: h.Bottom, Left: w.Left, Right: w.Right}
	default:
		return nil, fmt.Errorf("padding %q, want same or valid", padding)
	}
	return m.net.Add(s)
}

func (m *modelBuilder) dense(l *layerState, s structure.Layer) (*structure.Layer, error) {
	vars, err := m.take(l, 1, l.options.UseBias, "kernel", "bias")
	if err != nil {
		return nil, err
	}
	s.Kind, s.Weight, s.Bias = structure.Dense, vars[0], vars[1]
	if w := s.Weight.Shape; len(w) != 2 || w[0] != l.options.Units {
		return nil, fmt.Errorf("kernel %v in the file, want %d units", w, l.options.Units)
	}
	x, err := m.net.Add(s)
	if err != nil {
		return nil, err
	}
	return m.activation(l.options.Activation, x, s.Name)
}

func (m *modelBuilder) batchNorm(l *layerState, s structure.Layer) (*structure.Layer, error) {
	o := &l.options
	in := s.Inputs[0].Shape
	if axis, ok := axisOf(o.Axis); !ok || axis != -1 && axis != len(in) {
		return nil, fmt.Errorf("over axis %s, want the last", o.Axis)
	}
	if o.Renorm {
		return nil, errors.New("batch renormalisation is not known")
	}
	scaled := true
	if len(o.Scale) > 0 {
		if err := json.Unmarshal(o.Scale, &scaled); err != nil {
			return nil, fmt.Errorf("scale: %w", err)
		}
	}
	names := []string{"moving_mean", "moving_variance"}
	if o.Center == nil || *o.Center {
		names = append([]string{"beta"}, names...)
	}
	if scaled {
		names = append([]string{"gamma"}, names...)
	}
	vars, err := m.take(l, len(names), nil, names...)
	if err != nil {
		return nil, err
	}
	s.Kind, s.Epsilon = structure.BatchNorm, 1e-3
	if o.Epsilon != nil {
		s.Epsilon = *o.Epsilon
	}
	// A scale or shift that the layer does not have is 1 or 0.
	channels := in[len(in)-1]
	s.Scale, s.Shift = structure.Value("", full(channels, 1)), structure.Value("", full(channels, 0))
	for i, name := range names {
		switch name {
		case "gamma":
			s.Scale = vars[i]
		case "beta":
			s.Shift = vars[i]
		case "moving_mean":
			s.Mean = vars[i]
		case "moving_variance":
			s.Variance = vars[i]
		}
	}
	return m.net.Add(s)
}

// full is n times v.
func full(n int, v float32) tensor.Tensor {
	values := make([]float32, n)
	for i := range values {
		values[i] = v
	}
	return tensor.Of(values, n)
}

// zeroPadding is rows and columns of zeros; with channels_first it pads the last
// two axes, which for pictures [H,W,C] are columns and channels (see Write).
func (m *modelBuilder) zeroPadding(o *options, s structure.Layer) (*structure.Layer, error) {
	var sides [2][2]int
	var n int
	var each [2]int
	switch {
	case json.Unmarshal(o.Padding, &n) == nil:
		sides = [2][2]int{{n, n}, {n, n}}
	case json.Unmarshal(o.Padding, &each) == nil:
		sides = [2][2]int{{each[0], each[0]}, {each[1], each[1]}}
	default:
		if err := json.Unmarshal(o.Padding, &sides); err != nil {
			return nil, fmt.Errorf("padding: %w", err)
		}
	}
	if o.DataFormat != nil && *o.DataFormat == "channels_first" {
		if sides[0] != [2]int{} {
			return nil, errors.New("channels_first: pictures here are [H,W,C]")
		}
		s.Kind, s.Before, s.After = structure.PadChannels, sides[1][0], sides[1][1]
		return m.net.Add(s)
	}
	s.Kind = structure.Pad
	s.Pad = graph.Padding{Top: sides[0][0], Bottom: sides[0][1], Left: sides[1][0], Right: sides[1][1]}
	return m.net.Add(s)
}

// normalization is (x - mean)/max(√variance, 1e-7), the numbers from the
// configuration or from the layer's weights.
func (m *modelBuilder) normalization(l *layerState, s structure.Layer) (*structure.Layer, error) {
	o := &l.options
	channels := s.Inputs[0].Shape
	if axis, ok := axisOf(o.Axis); !ok || axis != -1 && axis != len(channels) {
		return nil, fmt.Errorf("over axis %s, want the last", o.Axis)
	}
	if o.Invert {
		return nil, errors.New("an inverted normalisation")
	}
	mean, err := floats(o.Mean, 0)
	if err != nil {
		return nil, fmt.Errorf("mean: %w", err)
	}
	variance, err := floats(o.Variance, 1)
	if err != nil {
		return nil, fmt.Errorf("variance: %w", err)
	}
	given := len(o.Mean) > 0 && !bytes.Equal(o.Mean, []byte("null"))
	if !given {
		vars, err := m.take(l, 2, nil, "mean", "variance")
		if err != nil {
			return nil, err
		}
		mean, variance = wide(vars[0].Value), wide(vars[1].Value)
	}
	if len(mean) != len(variance) {
		return nil, fmt.Errorf("%d means and %d variances", len(mean), len(variance))
	}
	s.Kind = structure.Rescale
	for i := range mean {
		deviation := normalDeviation(variance[i])
		s.Gain = append(s.Gain, 1/deviation)
		s.Offset = append(s.Offset, -mean[i]/deviation)
	}
	return m.net.Add(s)
}
