package structure

import (
	"math"

	"github.com/residual-ml/residual/tensor"
)

// Fold returns the network with every batch normalisation that follows a
// convolution, whose output nobody else reads, taken into the convolution's
// kernel and bias, computed in float64:
//
//	s = γ/√(variance + ε),  kernel·s,  bias = (bias - mean)·s + β
//
// A convolution that had no bias gets one with the kernel's name, ".weight"
// replaced by ".bias". n stays as it is.
func Fold(n *Network) (*Network, error) {
	uses := map[*Layer]int{n.Output: 1}
	for _, l := range n.Layers {
		for _, in := range l.Inputs {
			uses[in]++
		}
	}
	folded := &Network{}
	now := map[*Layer]*Layer{}
	for _, old := range n.Layers {
		if old.Kind == BatchNorm && old.Inputs[0].Kind == Conv && uses[old.Inputs[0]] == 1 {
			conv := now[old.Inputs[0]]
			foldInto(conv, old)
			now[old] = conv
			continue
		}
		l := *old
		l.Inputs = nil
		for _, in := range old.Inputs {
			l.Inputs = append(l.Inputs, now[in])
		}
		added, err := folded.Add(l)
		if err != nil {
			return nil, err
		}
		now[old] = added
	}
	folded.Output = now[n.Output]
	return folded, nil
}

// foldInto changes conv, a copy, to compute norm(conv).
func foldInto(conv, norm *Layer) {
	name := biasName(conv.Weight.Name)
	if !conv.Weight.Value.Valid() { // a network without values
		conv.Bias = Param{Name: name, Shape: norm.Shift.Shape}
		return
	}
	wide := func(p Param) []float64 { return p.Value.Convert(tensor.Float64).Float64s() }
	scale, shift, mean, variance := wide(norm.Scale), wide(norm.Shift), wide(norm.Mean), wide(norm.Variance)
	bias := make([]float64, len(scale))
	if conv.Bias.Present() {
		name = conv.Bias.Name
		copy(bias, wide(conv.Bias))
	}
	kernel := wide(conv.Weight)
	narrow, narrowBias := make([]float32, len(kernel)), make([]float32, len(bias))
	size := len(kernel) / len(scale)
	for oc := range scale {
		s := scale[oc] / math.Sqrt(variance[oc]+norm.Epsilon)
		for i := oc * size; i < (oc+1)*size; i++ {
			narrow[i] = float32(kernel[i] * s)
		}
		narrowBias[oc] = float32((bias[oc]-mean[oc])*s + shift[oc])
	}
	conv.Weight = Value(conv.Weight.Name, tensor.Of(narrow, conv.Weight.Shape...))
	conv.Bias = Value(name, tensor.Of(narrowBias, len(narrowBias)))
}

// biasName is "conv1.bias" for "conv1.weight".
func biasName(weight string) string {
	const suffix = ".weight"
	if n := len(weight) - len(suffix); n >= 0 && weight[n:] == suffix {
		weight = weight[:n]
	}
	return weight + ".bias"
}
