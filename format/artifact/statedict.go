package artifact

import (
	"strings"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/tensor"
)

const batchesTracked = ".num_batches_tracked"

// StateDict is m's tensors as PyTorch's state_dict of the same network has them:
// in torchvision's order, where a block's shortcut comes last, and after each
// moving variance num_batches_tracked, an int64 that counts the updates. Only
// networks trained without a momentum use it, but a strict load wants it.
func (m *Model) StateDict() []safetensors.Named {
	var out, shortcut []safetensors.Named
	block := ""
	add := func(to *[]safetensors.Named, n safetensors.Named) {
		*to = append(*to, n)
		if layer, ok := strings.CutSuffix(n.Name, ".running_var"); ok {
			*to = append(*to, safetensors.Named{Name: layer + batchesTracked, Tensor: tensor.Of([]int64{int64(m.Steps)})})
		}
	}
	for _, n := range m.Tensors {
		if parts := strings.SplitN(n.Name, ".", 3); len(parts) == 3 && parts[0]+"."+parts[1] != block || len(parts) < 3 {
			out, shortcut = append(out, shortcut...), nil
			block = strings.Join(parts[:min(2, len(parts))], ".")
		}
		if strings.HasPrefix(n.Name, block+".downsample.") {
			add(&shortcut, n)
		} else {
			add(&out, n)
		}
	}
	return append(out, shortcut...)
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
