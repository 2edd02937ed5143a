package structure

import (
	"fmt"
	"slices"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// front is what stood before and after the network proper.
type front struct {
	gain, offset []float64 // nil: nothing stood before
	softmax      bool
	folded       int // layers whose numbers were worked out anew
}

// simplifier is a network that simplify makes.
type simplifier struct {
	Network
	folded int
}

// simplify writes a network in the form that Of uses, computing the same:
//
//   - rescaling of the picture is taken off the front, softmax off the end;
//   - padding goes into the convolution or pool that follows;
//   - an average over the whole plane before flattening is global;
//   - a 1×1 convolution of a vector is dense;
//   - what a convolution's output is multiplied by, and what is added to it or to a
//     dense layer's, go into kernel and bias;
//   - subsampling comes before channel padding, and a 1×1 pool is subsampling;
//   - what changes nothing is left out.
func simplify(n *Network) (*Network, front, error) {
	var f front
	output := n.Output
	if output.Kind == Softmax {
		f.softmax = true
		output = output.Inputs[0]
	}
	live := (&Network{Layers: n.Layers, Output: output}).live()
	readers := map[*Layer][]*Layer{}
	for _, l := range live {
		for _, in := range l.Inputs {
			readers[in] = append(readers[in], l)
		}
	}
	s := &simplifier{}
	now := map[*Layer]*Layer{}
	for _, old := range live {
		if old.Kind == Input && len(s.Layers) > 0 {
			return nil, f, fmt.Errorf("two inputs, or one that is not first: %q", old.Name)
		}
		l := *old
		l.Inputs = nil
		for _, in := range old.Inputs {
			l.Inputs = append(l.Inputs, now[in])
		}
		if l.Kind == Rescale && l.Inputs[0].Kind == Input && onlyRescaled(old, readers) {
			f.append(l.Gain, l.Offset, l.Inputs[0].Shape[2])
			now[old] = l.Inputs[0]
			continue
		}
		layer, err := s.simplified(l)
		if err != nil {
			return nil, f, err
		}
		now[old] = layer
	}
	s.Output = now[output]
	s.Layers = s.live()
	f.folded = s.folded
	return &s.Network, f, nil
}

// onlyRescaled reports whether l and the rescalings before it are all that reads
// the picture.
func onlyRescaled(l *Layer, readers map[*Layer][]*Layer) bool {
	for l.Kind == Rescale {
		l = l.Inputs[0]
		if len(readers[l]) != 1 {
			return false
		}
	}
	return true
}

// append makes f rescale by gain and offset after what it does already.
func (f *front) append(gain, offset []float64, channels int) {
	if f.gain == nil {
		f.gain, f.offset = slices.Repeat([]float64{1}, channels), make([]float64, channels)
	}
	for c := range channels {
		f.gain[c] *= gain[c%len(gain)]
		f.offset[c] = f.offset[c]*gain[c%len(gain)] + offset[c%len(offset)]
	}
}

// simplified appends the simplest form of l, whose inputs are simplified already,
// or returns the layer that computes the same.
func (s *simplifier) simplified(l Layer) (*Layer, error) {
	var in *Layer
	if len(l.Inputs) > 0 {
		in = l.Inputs[0]
	}
	switch l.Kind {
	case Pad:
		if l.Pad == (graph.Padding{}) {
			return in, nil
		}
		if in.Kind == Pad {
			l.Pad, l.Inputs = sum(l.Pad, in.Pad), in.Inputs
		}
	case Conv:
		if len(in.Shape) == 1 {
			return s.Add(Layer{Kind: Dense, Name: l.Name, Inputs: l.Inputs, Weight: flat(l.Weight), Bias: l.Bias})
		}
		if in.Kind == Pad {
			l.Pad, l.Inputs = sum(l.Pad, in.Pad), in.Inputs
		}
	case MaxPool, AvgPool:
		if in.Kind == Pad {
			p := sum(l.Pad, in.Pad)
			fits := max(p.Top, p.Bottom, p.Left, p.Right) < l.Size
			// Zeros never win over what is not negative. In an average they
			// count as they do with CountPad.
			if fits && l.Kind == MaxPool && in.Inputs[0].notNegative() {
				l.Pad, l.Inputs = p, in.Inputs
			}
			if fits && l.Kind == AvgPool && (l.CountPad || l.Pad == (graph.Padding{})) {
				l.Pad, l.Inputs, l.CountPad = p, in.Inputs, true
			}
		}
		if l.Size == 1 { // the window is a pixel
			return s.simplified(Layer{Kind: Subsample, Name: l.Name, Inputs: l.Inputs, Stride: l.Stride})
		}
	case GlobalAvgPool:
		if len(in.Shape) == 1 {
			return in, nil
		}
	case Flatten:
		switch {
		case len(in.Shape) == 1:
			return in, nil
		case in.Kind == AvgPool && in.Pad == (graph.Padding{}) && in.Inputs[0].Shape[0] == in.Size && in.Inputs[0].Shape[1] == in.Size:
			return s.Add(Layer{Kind: GlobalAvgPool, Name: in.Name, Inputs: in.Inputs})
		case in.Shape[0] == 1 && in.Shape[1] == 1: // the average of one pixel is that pixel
			return s.Add(Layer{Kind: GlobalAvgPool, Name: l.Name, Inputs: l.Inputs})
		}
	case Subsample:
		if l.Stride == 1 {
			return in, nil
		}
		if in.Kind == PadChannels {
			few, err := s.Add(Layer{Kind: Subsample, Name: l.Name, Inputs: in.Inputs, Stride: l.Stride})
			if err != nil {
				return nil, err
			}
			return s.Add(Layer{Kind: PadChannels, Name: in.Name, Inputs: []*Layer{few}, Before: in.Before, After: in.After})
		}
	case PadChannels:
		if l.Before == 0 && l.After == 0 {
			return in, nil
		}
		if in.Kind == PadChannels {
			l.Before, l.After, l.Inputs = l.Before+in.Before, l.After+in.After, in.Inputs
		}
	case Rescale:
		if !slices.ContainsFunc(l.Gain, func(x float64) bool { return x != 1 }) && !slices.ContainsFunc(l.Offset, func(x float64) bool { return x != 0 }) {
			return in, nil
		}
		onlyAdds := !slices.ContainsFunc(l.Gain, func(x float64) bool { return x != 1 })
		if in.Kind == Conv || in.Kind == Dense && onlyAdds {
			return s.Add(s.scaled(*in, l))
		}
	case ReLU:
		if in.Kind == ReLU {
			return in, nil
		}
	}
	return s.Add(l)
}

// scaled is the convolution or dense layer in, a copy because others may read it
// as it is, with the rescaling l after it. What is only added to a layer without a
// bias is its bias, to the bit; anything else is worked out in float64 and
// rounded.
func (s *simplifier) scaled(in, l Layer) Layer {
	name := in.Bias.Name
	if !in.Bias.Present() {
		name = l.Name
	}
	channels := in.Weight.Shape[0]
	bias := make([]float64, channels)
	var kernel []float64
	if in.Bias.Value.Valid() {
		copy(bias, in.Bias.Value.Convert(tensor.Float64).Float64s())
	}
	scale := slices.ContainsFunc(l.Gain, func(x float64) bool { return x != 1 })
	if scale || in.Bias.Present() {
		s.folded++
	}
	if scale && in.Weight.Value.Valid() {
		kernel = slices.Clone(in.Weight.Value.Convert(tensor.Float64).Float64s())
	}
	narrow := make([]float32, channels)
	size := len(kernel) / channels
	for oc := range channels {
		gain := l.Gain[oc%len(l.Gain)]
		narrow[oc] = float32(bias[oc]*gain + l.Offset[oc%len(l.Offset)])
		for i := oc * size; i < (oc+1)*size; i++ {
			kernel[i] *= gain
		}
	}
	in.Bias = Value(name, tensor.Of(narrow, channels))
	if kernel != nil {
		in.Weight = Value(in.Weight.Name, tensor.Of(kernel, in.Weight.Shape...).Convert(tensor.Float32))
	}
	return in
}

func (l *Layer) notNegative() bool {
	return l.Kind == ReLU || l.Kind == MaxPool && l.Inputs[0].notNegative()
}

func sum(p, q graph.Padding) graph.Padding {
	return graph.Padding{Top: p.Top + q.Top, Bottom: p.Bottom + q.Bottom, Left: p.Left + q.Left, Right: p.Right + q.Right}
}

// flat is a 1×1 kernel [OC,C,1,1] as a dense one [OC,C].
func flat(p Param) Param {
	p.Shape = tensor.Shape{p.Shape[0], p.Shape[1]}
	if p.Value.Valid() {
		p.Value = p.Value.Reshape(p.Shape...)
	}
	return p
}
