package artifact

import (
	"fmt"
	"math"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// Pair is a convolution with the batch normalisation that follows it, by the
// names of their layers.
type Pair struct{ Conv, Norm string }

// Pairs lists them in the order of the network, as its graph has them.
func Pairs(c model.Config) []Pair {
	g, err := Sized(c).Graph(1)
	if err != nil {
		return nil
	}
	var pairs []Pair
	for _, n := range g.Nodes {
		if n.Op == graph.OpBatchNorm && n.Inputs[0].Op == graph.OpConv {
			pairs = append(pairs, Pair{Conv: n.Inputs[0].Name, Norm: n.Name})
		}
	}
	return pairs
}

// Epsilon is what c's batch normalisation adds to the variance.
func Epsilon(c model.Config) float64 {
	g, err := Sized(c).Graph(1)
	if err != nil {
		return 0
	}
	for _, n := range g.Nodes {
		if n.Op == graph.OpBatchNorm {
			return n.Norm.Epsilon
		}
	}
	return 0
}

// AbsorbBias returns the moving mean after which a convolution needs no bias:
//
//	γ·(x + bias - mean)/σ + β = γ·(x - (mean - bias))/σ + β
//
// Training goes on as before too, for a batch's own mean takes the bias away.
func AbsorbBias(mean tensor.Tensor, bias []float64) (tensor.Tensor, error) {
	values := mean.Convert(tensor.Float64).Float64s()
	if len(values) != len(bias) {
		return tensor.Tensor{}, fmt.Errorf("%d biases for %d channels", len(bias), len(values))
	}
	out := make([]float32, len(values))
	for i := range out {
		out[i] = float32(values[i] - bias[i])
	}
	return tensor.Of(out, len(out)), nil
}

// IdentityNorm is a batch normalisation that adds bias and changes nothing else:
// γ 1, mean 0, variance 1-ε, β the bias.
func IdentityNorm(layer string, bias []float64, epsilon float64) map[string]tensor.Tensor {
	n := len(bias)
	fill := func(v float64) tensor.Tensor {
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(v)
		}
		return tensor.Of(values, n)
	}
	shift := make([]float32, n)
	for i, b := range bias {
		shift[i] = float32(b)
	}
	return map[string]tensor.Tensor{
		layer + ".weight": fill(1), layer + ".bias": tensor.Of(shift, n),
		layer + ".running_mean": fill(0), layer + ".running_var": fill(1 - epsilon),
	}
}

// Fold returns m's tensors with each batch normalisation taken into the kernel
// and bias of its convolution, computed in float64:
//
//	s = γ/√(variance + ε),  kernel·s,  bias = β - mean·s
//
// The kernel and the bias are <conv>.weight and <conv>.bias, side by side.
func (m *Model) Fold() ([]safetensors.Named, error) {
	norm := map[string]string{} // convolution → batch normalisation
	folded := map[string]bool{}
	for _, p := range Pairs(m.Config) {
		norm[p.Conv+".weight"] = p.Norm
		for _, suffix := range []string{".weight", ".bias", ".running_mean", ".running_var"} {
			folded[p.Norm+suffix] = true
		}
	}
	epsilon := Epsilon(m.Config)
	var out []safetensors.Named
	for _, n := range m.Tensors {
		layer, isKernel := norm[n.Name]
		switch {
		case folded[n.Name]:
			continue
		case !isKernel:
			out = append(out, n)
			continue
		}
		var parts [4][]float64
		for i, suffix := range []string{".weight", ".bias", ".running_mean", ".running_var"} {
			t, ok := m.Tensor(layer + suffix)
			if !ok {
				return nil, fmt.Errorf("there is no tensor %s", layer+suffix)
			}
			parts[i] = t.Convert(tensor.Float64).Float64s()
		}
		scale, shift, mean, variance := parts[0], parts[1], parts[2], parts[3]
		kernel := n.Tensor.Clone()
		values := kernel.Float32s()
		bias := make([]float32, len(scale))
		size := len(values) / len(scale)
		for oc := range scale {
			s := scale[oc] / math.Sqrt(variance[oc]+epsilon)
			for i := oc * size; i < (oc+1)*size; i++ {
				values[i] = float32(float64(values[i]) * s)
			}
			bias[oc] = float32(shift[oc] - mean[oc]*s)
		}
		out = append(out, safetensors.Named{Name: n.Name, Tensor: kernel},
			safetensors.Named{Name: n.Name[:len(n.Name)-len("weight")] + "bias", Tensor: tensor.Of(bias, len(bias))})
	}
	return out, nil
}
