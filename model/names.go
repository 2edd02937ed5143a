package model

import (
	"strconv"
	"strings"

	"github.com/residual-ml/residual/tensor"
)

// Variables have torchvision's names everywhere (layer1.0.conv1.weight, …).
// Their order of axes differs: engines want [KH,KW,C,OC] and [C,OC], files have
// torchvision's [OC,C,KH,KW] and [OC,C]. This file is the only place that
// converts. The names are a file format; do not improve them.

// ToFile converts a variable, or an optimizer's moment of one, from graph order
// to file order. The result shares nothing with t; it is float64 when t is, else
// float32.
func ToFile(t tensor.Tensor) tensor.Tensor {
	s := t.Shape()
	switch len(s) {
	case 4:
		return permute(t, FileShape(s), []int{1, s[3], s[1] * s[2] * s[3], s[2] * s[3]})
	case 2:
		return permute(t, FileShape(s), []int{1, s[1]})
	}
	return t.Convert(precision(t))
}

// FileShape is the shape in a file of a variable whose shape in the graph is s:
// [KH,KW,C,OC] → [OC,C,KH,KW], [C,OC] → [OC,C].
func FileShape(s tensor.Shape) tensor.Shape {
	switch len(s) {
	case 4:
		return tensor.Shape{s[3], s[2], s[0], s[1]}
	case 2:
		return tensor.Shape{s[1], s[0]}
	}
	return s
}

// FromFile is the inverse of ToFile.
func FromFile(t tensor.Tensor) tensor.Tensor {
	s := t.Shape()
	switch len(s) {
	case 4:
		return permute(t, tensor.Shape{s[2], s[3], s[1], s[0]}, []int{s[3], 1, s[2] * s[3], s[1] * s[2] * s[3]})
	case 2:
		return permute(t, tensor.Shape{s[1], s[0]}, []int{1, s[1]})
	}
	return t.Convert(precision(t))
}

func precision(t tensor.Tensor) tensor.DType {
	if t.DType() == tensor.Float64 {
		return tensor.Float64
	}
	return tensor.Float32
}

// permute reads t with the given stride for each axis of shape.
func permute(t tensor.Tensor, shape tensor.Shape, stride []int) tensor.Tensor {
	out := tensor.New(precision(t), shape...)
	if out.DType() == tensor.Float64 {
		permuteSlice(out.Float64s(), t.Float64s(), shape, stride)
	} else {
		permuteSlice(out.Float32s(), t.Convert(tensor.Float32).Float32s(), shape, stride)
	}
	return out
}

func permuteSlice[T float32 | float64](dst, src []T, shape tensor.Shape, stride []int) {
	index := make([]int, len(shape))
	at := 0
	for i := range dst {
		dst[i] = src[at]
		for axis := len(shape) - 1; axis >= 0; axis-- { // count up, last axis fastest
			index[axis]++
			at += stride[axis]
			if index[axis] < shape[axis] {
				break
			}
			at -= index[axis] * stride[axis]
			index[axis] = 0
		}
	}
}

// Depths is the number of depths that Depth knows: the stem, each stage of
// blocks, the dense layer.
func (c Config) Depths() int { return len(c.Blocks) + 2 }

// Depth says where in the network a parameter lies: 0 in the stem, 1 and on in
// the stages, Depths()-1 in what comes after them. Names are those of files.
func (c Config) Depth(name string) int {
	layer, _, _ := strings.Cut(name, ".")
	if stage, ok := strings.CutPrefix(layer, "layer"); ok {
		if n, err := strconv.Atoi(stage); err == nil && n >= 1 && n <= len(c.Blocks) {
			return n
		}
	}
	if InStem(name) {
		return 0
	}
	return c.Depths() - 1
}

// InStem reports whether a parameter belongs to what comes before the first stage, and
// not to the last batch norm of networks with pre-activation or the dense layer.
func InStem(name string) bool {
	return !InHead(name) && !strings.HasPrefix(name, "layer") && !strings.HasPrefix(name, "norm.")
}

// InHead reports whether a parameter belongs to the dense layer, which is as wide
// as there are classes.
func InHead(name string) bool { return strings.HasPrefix(name, "fc.") }
