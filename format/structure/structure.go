// Package structure knows residual networks by their shape. A file such as ONNX
// or Keras's describes a network as layers and the edges between them, under
// whatever names; here that is a Network, neutral between formats, and Recognise
// finds the model.Config that computes the same and the place of every tensor
// in it. Of is the way back, from a Config to layers, for writers.
//
// Nothing is guessed: Recognise proposes configurations, builds each, and
// compares it with the file layer by layer, strides, padding, ε and shapes
// included. What it returns computes what the file computes.
package structure

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// Kind is what a layer computes.
type Kind uint8

// The kinds of layers. Activations are [H,W,C] or [C]; the batch axis is left
// out. Formulas are those of package graph's operations.
const (
	Input         Kind = iota // a picture [H,W,C]
	Conv                      // Weight [OC,C,KH,KW], Bias [OC] or none; Stride, Pad
	BatchNorm                 // (x-Mean)/√(Variance+Epsilon)·Scale + Shift, all [C]
	ReLU                      // max(x, 0)
	Add                       // of two inputs of the same shape
	MaxPool                   // Size, Stride, Pad; padding never wins
	AvgPool                   // Size, Stride, Pad, CountPad
	GlobalAvgPool             // [H,W,C] → [C]
	Dense                     // [C] → [K]: Weight [K,C], Bias [K] or none
	Flatten                   // [H,W,C] → [H·W·C], in whichever order the file has
	Pad                       // Pad rows and columns of zeros
	Subsample                 // every Stride-th row and column, from the first
	PadChannels               // Before and After channels of zeros
	Rescale                   // x·Gain + Offset, per channel or the same for all
	Softmax                   // over the classes
	Sigmoid                   // 1/(1+e⁻ˣ)
	Multiply                  // [H,W,C] by a factor for each channel [C]
)

var kindNames = [...]string{"input", "convolution", "batch normalisation", "ReLU", "addition", "max-pool", "average pool",
	"global average pool", "dense", "flatten", "zero padding", "subsampling", "channel padding", "rescaling", "softmax", "sigmoid", "multiplication by channel"}

// String names the kind in messages.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Param is a tensor of a layer, in torchvision's order of axes. One without a
// shape is absent; one without a value is of a network that was only described.
type Param struct {
	Name  string // in the file, or torchvision's in what Of makes
	Shape tensor.Shape
	Value tensor.Tensor
}

// Value makes a Param of a tensor.
func Value(name string, t tensor.Tensor) Param {
	return Param{Name: name, Shape: t.Shape(), Value: t}
}

// Present reports whether the layer has the parameter.
func (p Param) Present() bool { return p.Shape != nil }

// zero reports whether the values are known to be zeros.
func (p Param) zero() bool {
	return p.Value.Valid() && !slices.ContainsFunc(p.Value.Convert(tensor.Float32).Float32s(), func(x float32) bool { return x != 0 })
}

// Layer is a node of a Network. Kind's documentation says which fields it has.
type Layer struct {
	Kind   Kind
	Name   string // as the file calls it, for messages
	Inputs []*Layer
	Shape  tensor.Shape // of the output: [H,W,C] or [C]; Network.Add works it out

	Stride        int
	Size          int // of a pool's window
	Pad           graph.Padding
	CountPad      bool
	Before, After int
	Epsilon       float64
	Gain, Offset  []float64 // one number, or one per channel

	Weight, Bias                 Param
	Scale, Shift, Mean, Variance Param
}

// params lists what belongs to l, absent ones too.
func (l *Layer) params() []*Param {
	switch l.Kind {
	case Conv, Dense:
		return []*Param{&l.Weight, &l.Bias}
	case BatchNorm:
		return []*Param{&l.Scale, &l.Shift, &l.Mean, &l.Variance}
	}
	return nil
}

// String describes the layer, without its name.
func (l *Layer) String() string {
	var b strings.Builder
	switch l.Kind {
	case Conv:
		w := l.Weight.Shape
		fmt.Fprintf(&b, "%d×%d convolution of stride %d, padding %s, %d → %d channels", w[2], w[3], l.Stride, padText(l.Pad), w[1], w[0])
		if l.Bias.Present() {
			b.WriteString(", with bias")
		}
	case Dense:
		fmt.Fprintf(&b, "dense %d → %d", l.Weight.Shape[1], l.Weight.Shape[0])
	case BatchNorm:
		fmt.Fprintf(&b, "batch normalisation with ε %v", float32(l.Epsilon))
	case MaxPool, AvgPool:
		fmt.Fprintf(&b, "%d×%d %v of stride %d, padding %s", l.Size, l.Size, l.Kind, l.Stride, padText(l.Pad))
	case Subsample:
		fmt.Fprintf(&b, "subsampling by %d", l.Stride)
	case PadChannels:
		fmt.Fprintf(&b, "%d and %d channels of zeros", l.Before, l.After)
	case Rescale:
		fmt.Fprintf(&b, "rescaling by %v and %v", l.Gain, l.Offset)
	default:
		b.WriteString(l.Kind.String())
	}
	return b.String()
}

// padText is "1" where all sides are alike, else "top,left,bottom,right".
func padText(p graph.Padding) string {
	if p.Top == p.Bottom && p.Top == p.Left && p.Top == p.Right {
		return fmt.Sprint(p.Top)
	}
	return fmt.Sprintf("%d,%d,%d,%d", p.Top, p.Left, p.Bottom, p.Right)
}

// Network is a classifier as layers, in an order in which inputs come first.
type Network struct {
	Layers []*Layer
	Output *Layer
}

// Limits of what Add accepts: far above any network of package model, and such
// that no product of sizes overflows.
const (
	maxLayers = 1 << 16
	maxSide   = 1 << 14
	maxWidth  = 1 << 20 // channels
)

// Add appends a layer, works out its shape, and makes it the output. A layer
// that does not fit its inputs is an error that names it.
func (n *Network) Add(l Layer) (*Layer, error) {
	if len(n.Layers) >= maxLayers {
		return nil, fmt.Errorf("more than %d layers", maxLayers)
	}
	shape, err := l.infer()
	if err != nil {
		return nil, fmt.Errorf("%v %q: %w", l.Kind, l.Name, err)
	}
	l.Shape = shape
	n.Layers = append(n.Layers, &l)
	n.Output = &l
	return &l, nil
}

// infer checks a layer against its inputs and returns its output's shape.
func (l *Layer) infer() (tensor.Shape, error) {
	want := 1
	switch l.Kind {
	case Input:
		want = 0
	case Add, Multiply:
		want = 2
	}
	if len(l.Inputs) != want || slices.Contains(l.Inputs, nil) {
		return nil, fmt.Errorf("%d inputs, want %d", len(l.Inputs), want)
	}
	if l.Kind == Input {
		s := l.Shape
		if len(s) != 3 || min(s[0], s[1], s[2]) < 1 || max(s[0], s[1]) > maxSide || s[2] > maxWidth {
			return nil, fmt.Errorf("pictures of shape %v, want [height,width,channels]", s)
		}
		return s, nil
	}
	in := l.Inputs[0].Shape
	channels := in[len(in)-1]
	vector := func(p Param, n int, optional bool) error {
		if optional && !p.Present() || p.Shape.Equal(tensor.Shape{n}) {
			return nil
		}
		return fmt.Errorf("parameter %q has shape %v, want [%d]", p.Name, p.Shape, n)
	}
	spatial := func() error {
		if len(in) != 3 {
			return fmt.Errorf("input of shape %v, want [height,width,channels]", in)
		}
		return nil
	}
	if p := l.Pad; min(p.Top, p.Bottom, p.Left, p.Right) < 0 || max(p.Top, p.Bottom, p.Left, p.Right) > maxSide {
		return nil, fmt.Errorf("padding %s", padText(p))
	}
	switch l.Kind {
	case Conv:
		w := l.Weight.Shape
		if len(w) != 4 || min(w[0], w[1], w[2], w[3]) < 1 || max(w[2], w[3]) > maxSide || w[0] > maxWidth {
			return nil, fmt.Errorf("kernel of shape %v, want [filters,channels,height,width]", w)
		}
		if w[1] != channels {
			return nil, fmt.Errorf("kernel %v is for %d channels, the input %v has %d", w, w[1], in, channels)
		}
		if err := vector(l.Bias, w[0], true); err != nil {
			return nil, err
		}
		if len(in) == 1 { // a 1×1 convolution after global pooling
			if w[2] != 1 || w[3] != 1 || l.Pad != (graph.Padding{}) {
				return nil, fmt.Errorf("a %d×%d kernel on a vector", w[2], w[3])
			}
			return tensor.Shape{w[0]}, nil
		}
		return l.window(in, w[2], w[3], w[0])
	case MaxPool, AvgPool:
		if err := spatial(); err != nil {
			return nil, err
		}
		if p := l.Pad; l.Size < 1 || max(p.Top, p.Bottom, p.Left, p.Right) >= l.Size && p != (graph.Padding{}) {
			return nil, fmt.Errorf("a window of %d with padding %s", l.Size, padText(p))
		}
		return l.window(in, l.Size, l.Size, channels)
	case Dense:
		w := l.Weight.Shape
		if len(w) != 2 || min(w[0], w[1]) < 1 || w[0] > maxWidth {
			return nil, fmt.Errorf("kernel of shape %v, want [outputs,inputs]", w)
		}
		if len(in) != 1 || w[1] != channels {
			return nil, fmt.Errorf("kernel %v for an input of shape %v", w, in)
		}
		return tensor.Shape{w[0]}, vector(l.Bias, w[0], true)
	case BatchNorm:
		if !(l.Epsilon >= 0 && l.Epsilon < 1) {
			return nil, fmt.Errorf("ε is %v", l.Epsilon)
		}
		for _, p := range l.params() {
			if err := vector(*p, channels, false); err != nil {
				return nil, err
			}
		}
		return in, nil
	case Add:
		if other := l.Inputs[1].Shape; !other.Equal(in) {
			return nil, fmt.Errorf("shapes %v and %v differ", in, other)
		}
		return in, nil
	case GlobalAvgPool:
		return tensor.Shape{channels}, spatial()
	case Flatten:
		return tensor.Shape{in.Elements()}, nil
	case Pad:
		if err := spatial(); err != nil {
			return nil, err
		}
		s := tensor.Shape{in[0] + l.Pad.Top + l.Pad.Bottom, in[1] + l.Pad.Left + l.Pad.Right, channels}
		if max(s[0], s[1]) > maxSide {
			return nil, fmt.Errorf("%d×%d after padding", s[0], s[1])
		}
		return s, nil
	case Subsample:
		if err := spatial(); err != nil {
			return nil, err
		}
		if l.Stride < 1 || l.Stride > maxSide {
			return nil, fmt.Errorf("stride %d", l.Stride)
		}
		return tensor.Shape{(in[0] + l.Stride - 1) / l.Stride, (in[1] + l.Stride - 1) / l.Stride, channels}, nil
	case PadChannels:
		if err := spatial(); err != nil {
			return nil, err
		}
		if l.Before < 0 || l.After < 0 || l.Before > maxWidth || l.After > maxWidth || channels+l.Before+l.After > maxWidth {
			return nil, fmt.Errorf("%d and %d channels of zeros", l.Before, l.After)
		}
		return tensor.Shape{in[0], in[1], channels + l.Before + l.After}, nil
	case Rescale:
		for _, v := range [][]float64{l.Gain, l.Offset} {
			if len(v) != 1 && len(v) != channels {
				return nil, fmt.Errorf("%d numbers for %d channels", len(v), channels)
			}
			for _, x := range v {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					return nil, fmt.Errorf("a factor or offset is %v", x)
				}
			}
		}
		return in, nil
	case Multiply:
		if other := l.Inputs[1].Shape; len(in) != 3 || len(other) != 1 || other[0] != channels {
			return nil, fmt.Errorf("shapes %v and %v, want [height,width,channels] and [channels]", in, other)
		}
		return in, nil
	case ReLU, Softmax, Sigmoid:
		return in, nil
	}
	return nil, fmt.Errorf("no such layer")
}

// window is the shape after a window of kh×kw moved by Stride over the padded input.
func (l *Layer) window(in tensor.Shape, kh, kw, channels int) (tensor.Shape, error) {
	if l.Stride < 1 || l.Stride > maxSide {
		return nil, fmt.Errorf("stride %d", l.Stride)
	}
	h, w := in[0]+l.Pad.Top+l.Pad.Bottom-kh, in[1]+l.Pad.Left+l.Pad.Right-kw
	if h < 0 || w < 0 {
		return nil, fmt.Errorf("a window of %d×%d with padding %s does not fit the input %v", kh, kw, padText(l.Pad), in)
	}
	return tensor.Shape{h/l.Stride + 1, w/l.Stride + 1, channels}, nil
}

// Input returns the layer of the picture, nil where there is none.
func (n *Network) Input() *Layer {
	for _, l := range n.Layers {
		if l.Kind == Input {
			return l
		}
	}
	return nil
}

// live returns the layers that the output needs, in order.
func (n *Network) live() []*Layer {
	needed := map[*Layer]bool{n.Output: true}
	var live []*Layer
	for _, l := range slices.Backward(n.Layers) {
		if needed[l] {
			live = append(live, l)
			for _, in := range l.Inputs {
				needed[in] = true
			}
		}
	}
	slices.Reverse(live)
	return live
}
