package artifact

import (
	"strings"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/tensor"
)

const batchesTracked = ".num_batches_tracked"

// StateDict is m's tensors as PyTorch's state_dict of the same network has them:
// in this order, and after each moving variance num_batches_tracked, an int64
// that counts the updates. Only networks trained without a momentum use it, but a
// strict load wants it.
func (m *Model) StateDict() []safetensors.Named {
	var out []safetensors.Named
	for _, n := range m.Tensors {
		out = append(out, n)
		if layer, ok := strings.CutSuffix(n.Name, ".running_var"); ok {
			out = append(out, safetensors.Named{Name: layer + batchesTracked, Tensor: tensor.Of([]int64{int64(m.Steps)})})
		}
	}
	return out
}

// BatchesTracked returns the count of a tensor num_batches_tracked; ok is false
// of any other tensor.
func BatchesTracked(n safetensors.Named) (count int, ok bool) {
	if !strings.HasSuffix(n.Name, batchesTracked) {
		return 0, false
	}
	if n.Tensor.DType() != tensor.Int64 || n.Tensor.Len() != 1 {
		return 0, true
	}
	return int(max(0, tensor.Data[int64](n.Tensor)[0])), true
}
