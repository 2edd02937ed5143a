// Package tensor holds numbers in host memory: a shape, a data type and one
// Go slice in row-major order. It computes nothing; engines do that.
package tensor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Shape lists the lengths of a tensor's axes, outermost first. A scalar has
// the empty shape. Images are [N,H,W,C] (see package graph for the alphabet).
type Shape []int

// Elements returns the number of elements a tensor of this shape has: the
// product of the axes, 1 for a scalar.
func (s Shape) Elements() int {
	n := 1
	for _, d := range s {
		n *= d
	}
	return n
}

// Equal reports whether both shapes have the same axes.
func (s Shape) Equal(o Shape) bool { return slices.Equal(s, o) }

// String writes the shape as "[32,32,32,3]".
func (s Shape) String() string {
	parts := make([]string, len(s))
	for i, d := range s {
		parts[i] = strconv.Itoa(d)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// DType is the type of a tensor's elements.
type DType uint8

// The element types that files and engines use. Half-precision types are kept
// as their bit patterns in uint16; package tensor does no arithmetic.
const (
	Float32 DType = iota
	Float64
	Float16
	BFloat16
	Int64
	Int32
	Int16
	Int8
	Uint8
	Bool
)

var dtypeNames = [...]string{"float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"}

// String is the lower-case name, such as "float32".
func (d DType) String() string {
	if int(d) < len(dtypeNames) {
		return dtypeNames[d]
	}
	return fmt.Sprintf("dtype(%d)", uint8(d))
}

// Size is the number of bytes of one element.
func (d DType) Size() int {
	switch d {
	case Float64, Int64:
		return 8
	case Float32, Int32:
		return 4
	case Float16, BFloat16, Int16:
		return 2
	}
	return 1
}

// Tensor is a shape with its elements in row-major order. Copying a Tensor
// copies the header; both copies share the elements. The zero Tensor has no
// data and is only good for comparison with Valid.
type Tensor struct {
	shape Shape
	dtype DType
	data  any // the slice type that New makes for dtype
}

// New returns a tensor of zeros.
func New(dtype DType, shape ...int) Tensor {
	n := Shape(shape).Elements()
	t := Tensor{shape: slices.Clone(Shape(shape)), dtype: dtype}
	switch dtype {
	case Float32:
		t.data = make([]float32, n)
	case Float64:
		t.data = make([]float64, n)
	case Float16, BFloat16:
		t.data = make([]uint16, n)
	case Int64:
		t.data = make([]int64, n)
	case Int32:
		t.data = make([]int32, n)
	case Int16:
		t.data = make([]int16, n)
	case Int8:
		t.data = make([]int8, n)
	case Uint8, Bool:
		t.data = make([]uint8, n)
	default:
		panic("tensor.New: unknown " + dtype.String())
	}
	return t
}

// Element is a Go type that holds tensor elements without conversion.
type Element interface {
	float32 | float64 | int64 | int32 | int16 | int8 | uint8
}

// Of wraps data, which it does not copy. It panics when the number of elements
// does not fit the shape: that is a mistake of the program, not of its input.
func Of[T Element](data []T, shape ...int) Tensor {
	t := Tensor{shape: slices.Clone(Shape(shape)), data: data}
	switch any(data).(type) {
	case []float32:
		t.dtype = Float32
	case []float64:
		t.dtype = Float64
	case []int64:
		t.dtype = Int64
	case []int32:
		t.dtype = Int32
	case []int16:
		t.dtype = Int16
	case []int8:
		t.dtype = Int8
	case []uint8:
		t.dtype = Uint8
	}
	if len(data) != t.shape.Elements() {
		panic(fmt.Sprintf("tensor.Of: %d elements for shape %v, want %d", len(data), t.shape, t.shape.Elements()))
	}
	return t
}

// OfBits wraps half-precision bit patterns; dtype is Float16 or BFloat16.
// It panics, as Of does, when data does not fit the shape.
func OfBits(dtype DType, data []uint16, shape ...int) Tensor {
	t := Tensor{shape: slices.Clone(Shape(shape)), dtype: dtype, data: data}
	if (dtype != Float16 && dtype != BFloat16) || len(data) != t.shape.Elements() {
		panic(fmt.Sprintf("tensor.OfBits: %d elements of %v for shape %v", len(data), dtype, t.shape))
	}
	return t
}

// Scalar returns a float32 tensor of empty shape.
func Scalar(v float32) Tensor { return Of([]float32{v}) }

// Valid reports whether t holds data, that is, whether it is not the zero Tensor.
func (t Tensor) Valid() bool { return t.data != nil }

// Shape returns the axes. The caller must not change them.
func (t Tensor) Shape() Shape { return t.shape }

// DType returns the element type.
func (t Tensor) DType() DType { return t.dtype }

// Len returns the number of elements.
func (t Tensor) Len() int { return t.shape.Elements() }

// Data returns the elements of a tensor whose type is known; it shares memory
// with t. It panics when the tensor holds another type; use Floats to convert.
func Data[T Element | uint16](t Tensor) []T {
	d, ok := t.data.([]T)
	if !ok {
		panic(fmt.Sprintf("tensor: %v tensor of shape %v holds no %T", t.dtype, t.shape, d))
	}
	return d
}

// Float32s returns the elements of a float32 tensor, sharing memory.
func (t Tensor) Float32s() []float32 { return Data[float32](t) }

// Float64s returns the elements of a float64 tensor, sharing memory.
func (t Tensor) Float64s() []float64 { return Data[float64](t) }

// Int32s returns the elements of an int32 tensor, sharing memory.
func (t Tensor) Int32s() []int32 { return Data[int32](t) }

// Reshape returns a tensor with other axes over the same elements. It panics
// when the number of elements differs.
func (t Tensor) Reshape(shape ...int) Tensor {
	if Shape(shape).Elements() != t.Len() {
		panic(fmt.Sprintf("tensor: cannot reshape %v to %v", t.shape, Shape(shape)))
	}
	t.shape = slices.Clone(Shape(shape))
	return t
}

// Clone returns a copy that shares nothing with t.
func (t Tensor) Clone() Tensor {
	c := Tensor{shape: slices.Clone(t.shape), dtype: t.dtype}
	switch d := t.data.(type) {
	case []float32:
		c.data = slices.Clone(d)
	case []float64:
		c.data = slices.Clone(d)
	case []uint16:
		c.data = slices.Clone(d)
	case []int64:
		c.data = slices.Clone(d)
	case []int32:
		c.data = slices.Clone(d)
	case []int16:
		c.data = slices.Clone(d)
	case []int8:
		c.data = slices.Clone(d)
	case []uint8:
		c.data = slices.Clone(d)
	}
	return c
}

// Convert returns a copy of a number tensor as dtype, which must be Float32,
// Float64 or Int32. Float32 → Float64 is exact; the other directions round or
// truncate as Go's conversions do.
func (t Tensor) Convert(dtype DType) Tensor {
	out := New(dtype, t.shape...)
	switch dst := out.data.(type) {
	case []float32:
		convertTo(t, dst)
	case []float64:
		convertTo(t, dst)
	case []int32:
		convertTo(t, dst)
	default:
		panic("tensor: cannot convert to " + dtype.String())
	}
	return out
}

// AsFloat32s returns the elements of a number tensor as float32: its own where it is
// one of Float32, else those of Convert.
func (t Tensor) AsFloat32s() []float32 {
	if t.dtype != Float32 {
		t = t.Convert(Float32)
	}
	return t.Float32s()
}

func convertTo[D float32 | float64 | int32](t Tensor, dst []D) {
	switch src := t.data.(type) {
	case []float32:
		convertSlice(dst, src)
	case []float64:
		convertSlice(dst, src)
	case []int64:
		convertSlice(dst, src)
	case []int32:
		convertSlice(dst, src)
	case []int16:
		convertSlice(dst, src)
	case []int8:
		convertSlice(dst, src)
	case []uint8:
		convertSlice(dst, src)
	case []uint16:
		convert := Float16ToFloat32
		if t.dtype == BFloat16 {
			convert = BFloat16ToFloat32
		}
		for i, v := range src {
			dst[i] = D(convert(v))
		}
	default:
		panic("tensor: conversion of an empty tensor")
	}
}

func convertSlice[D float32 | float64 | int32, S Element](dst []D, src []S) {
	for i, v := range src {
		dst[i] = D(v)
	}
}
