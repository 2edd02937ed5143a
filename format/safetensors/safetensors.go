// Package safetensors reads and writes the safetensors format, to the letter of
// https://github.com/huggingface/safetensors#format:
//
//	8 bytes   N, the length of the header, unsigned little-endian
//	N bytes   JSON that starts with '{', padded at its end with spaces:
//	          {"__metadata__": {"key": "text"}, "name":
//	           {"dtype": "F32", "shape": [2,3], "data_offsets": [0,24]}, …}
//	rest      the elements, little-endian, row-major; the offsets cover them
//	          without hole or overlap
//
// Where the reference implementation is lenient and the text is not (duplicate
// names, unknown keys, characters after the header), files are refused.
package safetensors

import (
	"fmt"

	"github.com/residual-ml/residual/tensor"
)

// Named is a tensor with its name in a file.
type Named struct {
	Name   string
	Tensor tensor.Tensor
	Later  *Later // for Write, in place of Tensor
}

// Later is a tensor that Write asks for when its turn comes, so that not all need
// be in memory at once.
type Later struct {
	DType tensor.DType
	Shape tensor.Shape
	Get   func() (tensor.Tensor, error)
}

// kind is what the header says of a tensor.
func (n Named) kind() (tensor.DType, tensor.Shape) {
	if n.Later != nil {
		return n.Later.DType, n.Later.Shape
	}
	return n.Tensor.DType(), n.Tensor.Shape()
}

// value is the tensor, now.
func (n Named) value() (tensor.Tensor, error) {
	if n.Later == nil {
		return n.Tensor, nil
	}
	t, err := n.Later.Get()
	if err == nil && (!t.Valid() || t.DType() != n.Later.DType || !t.Shape().Equal(n.Later.Shape)) {
		return t, fmt.Errorf("it is %v %v, was to be %v %v", t.DType(), t.Shape(), n.Later.DType, n.Later.Shape)
	}
	return t, err
}

// File is the content of a safetensors file.
type File struct {
	Metadata map[string]string // nil when the file has none
	Names    []string          // in the order of the header

	tensors map[string]tensor.Tensor
}

// Tensor returns the tensor of that name; ok is false when there is none.
func (f *File) Tensor(name string) (t tensor.Tensor, ok bool) {
	t, ok = f.tensors[name]
	return t, ok
}

// Tensors returns all tensors in the order of the header, sharing their elements.
func (f *File) Tensors() []Named {
	out := make([]Named, len(f.Names))
	for i, name := range f.Names {
		out[i] = Named{Name: name, Tensor: f.tensors[name]}
	}
	return out
}

const (
	metadataKey = "__metadata__"
	// maxHeader is the limit of the reference implementation, 100 MB.
	maxHeader = 100_000_000
)

// dtypes are the format's names of the types that package tensor holds.
var dtypes = []struct {
	name  string
	dtype tensor.DType
}{
	{"F64", tensor.Float64}, {"F32", tensor.Float32}, {"F16", tensor.Float16}, {"BF16", tensor.BFloat16},
	{"I64", tensor.Int64}, {"I32", tensor.Int32}, {"I16", tensor.Int16}, {"I8", tensor.Int8},
	{"U8", tensor.Uint8}, {"BOOL", tensor.Bool},
}

func dtypeNamed(name string) (tensor.DType, error) {
	for _, d := range dtypes {
		if d.name == name {
			return d.dtype, nil
		}
	}
	return 0, fmt.Errorf("dtype %q, want one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL", name)
}

func dtypeName(d tensor.DType) (string, error) {
	for _, e := range dtypes {
		if e.dtype == d {
			return e.name, nil
		}
	}
	return "", fmt.Errorf("the format has no name for %v", d)
}
