package artifact

import (
	"fmt"
	"math"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// Folded returns the same function without batch normalisation: each is taken
// into the kernel and bias of the convolution before it, computed in float64:
//
//	s = γ/√(variance + ε),  kernel·s,  bias = (bias - mean)·s + β
//
// past a max-pool too where every s is positive, as the maximum of s·x + b is then
// s times the maximum of x, plus b.
//
// m stays as it is, and the golden vectors hold for both.
func (m *Model) Folded() (*Model, error) {
	if m.Config.Norm == model.NoNorm {
		return m, nil
	}
	g, err := m.Graph()
	if err != nil {
		return nil, err
	}
	tensors := map[string]tensor.Tensor{}
	for _, n := range m.Tensors {
		tensors[n.Name] = n.Tensor
	}
	c := m.Config
	c.Norm, c.ConvBias, c.Epsilon = model.NoNorm, true, 0
	c.FixedGamma, c.NormRate = false, 0
	for _, n := range g.Nodes {
		if n.Op != graph.OpBatchNorm {
			continue
		}
		conv := n.Inputs[0]
		if conv.Op == graph.OpMaxPool {
			for channel, s := range tensors[n.Name+".weight"].Convert(tensor.Float64).Float64s() {
				if !(s > 0) {
					return nil, fmt.Errorf("layer %s follows a max-pool and has γ %v in channel %d, so that it cannot be folded", n.Name, s, channel)
				}
			}
			conv = conv.Inputs[0]
		}
		if conv.Op == graph.OpBias {
			conv = conv.Inputs[0]
		}
		if conv.Op != graph.OpConv {
			return nil, fmt.Errorf("layer %s follows no convolution, so that it cannot be folded", n.Name)
		}
		foldInto(tensors, conv.Name, n.Name, n.Norm.Epsilon)
	}
	folded, err := Build(c, tensors, m.Recognised...)
	if err != nil {
		return nil, err
	}
	folded.Classes, folded.Preprocess, folded.Golden, folded.Steps = m.Classes, m.Preprocess, m.Golden, m.Steps
	return folded, nil
}

func foldInto(tensors map[string]tensor.Tensor, conv, norm string, epsilon float64) {
	take := func(name string) []float64 {
		t := tensors[name]
		delete(tensors, name)
		return t.Convert(tensor.Float64).Float64s()
	}
	scale, shift, mean, variance := take(norm+".weight"), take(norm+".bias"), take(norm+".running_mean"), take(norm+".running_var")
	kernel := tensors[conv+".weight"].Clone()
	values := kernel.Float32s()
	bias := make([]float32, len(scale))
	before := make([]float64, len(scale))
	if t, ok := tensors[conv+".bias"]; ok {
		before = t.Convert(tensor.Float64).Float64s()
	}
	size := len(values) / len(scale)
	for oc := range scale {
		s := scale[oc] / math.Sqrt(variance[oc]+epsilon)
		for i := oc * size; i < (oc+1)*size; i++ {
			values[i] = float32(float64(values[i]) * s)
		}
		bias[oc] = float32((before[oc]-mean[oc])*s + shift[oc])
	}
	tensors[conv+".weight"], tensors[conv+".bias"] = kernel, tensor.Of(bias, len(bias))
}
