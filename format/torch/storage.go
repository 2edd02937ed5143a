package torch

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"

	"github.com/residual-ml/residual/tensor"
)

// storage is a run of elements in the file, of which tensors are views.
type storage struct {
	key    string
	dtype  tensor.DType
	length int64 // elements
	order  binary.ByteOrder

	// open returns the storage's bytes; set by the layout, which has compared
	// length with the file.
	open func() (io.Reader, error)
}

// lazy is a tensor that has not been read yet.
type lazy struct {
	storage *storage
	offset  int64 // elements
	shape   tensor.Shape
	stride  []int64 // elements
}

// newLazy checks the arguments of torch._utils._rebuild_tensor_v2: every element
// lies within the storage, and there are no more elements than the storage has.
func newLazy(args tuple) (*lazy, error) {
	s, ok := args[0].(*storage)
	offset, okOffset := args[1].(int64)
	size, okSize := args[2].(tuple)
	stride, okStride := args[3].(tuple)
	if !ok || !okOffset || !okSize || !okStride || len(size) != len(stride) {
		return nil, fmt.Errorf("a tensor is made of %s, %s, %s, %s; want storage, offset, shape, strides", kind(args[0]), kind(args[1]), kind(args[2]), kind(args[3]))
	}
	if len(size) > 16 {
		return nil, fmt.Errorf("a tensor of %d axes, want at most 16", len(size))
	}
	t := &lazy{storage: s, offset: offset}
	elements, last := uint64(1), offset
	for i := range size {
		n, okN := size[i].(int64)
		step, okStep := stride[i].(int64)
		if !okN || !okStep || n < 0 || step < 0 || n > math.MaxInt32*1024 || step > math.MaxInt32*1024 {
			return nil, fmt.Errorf("a tensor of shape %v and strides %v", size, stride)
		}
		t.shape = append(t.shape, int(n))
		t.stride = append(t.stride, step)
		hi, lo := bits.Mul64(elements, uint64(n))
		if hi != 0 || lo > math.MaxInt64 {
			return nil, fmt.Errorf("a tensor of shape %v is too large", size)
		}
		elements = lo
		if n > 1 {
			hi, reach := bits.Mul64(uint64(n-1), uint64(step))
			if hi != 0 || reach > math.MaxInt64/32 {
				return nil, fmt.Errorf("a tensor of shape %v and strides %v reaches too far", size, stride)
			}
			last += int64(reach)
		}
	}
	if offset < 0 || offset > s.length || elements > 0 && last >= s.length {
		return nil, fmt.Errorf("a tensor of shape %v, strides %v from element %d on is not within its storage %s of %d elements", size, stride, offset, s.key, s.length)
	}
	if int64(elements) > s.length {
		return nil, fmt.Errorf("a tensor of shape %v has more elements than its storage %s, which has %d", size, s.key, s.length)
	}
	return t, nil
}

func (t *lazy) elements() int { return t.shape.Elements() }

// contiguous reports whether t's elements lie in row-major order without gaps.
func (t *lazy) contiguous() bool {
	want := int64(1)
	for i := len(t.shape) - 1; i >= 0; i-- {
		if t.shape[i] != 1 && t.stride[i] != want {
			return false
		}
		want *= int64(t.shape[i])
	}
	return true
}

// storageReader reads tensors and keeps the bytes of the last storage, for those
// that share one follow each other.
type storageReader struct {
	last *storage
	data []byte
}

func (r *storageReader) tensor(t *lazy) (tensor.Tensor, error) {
	s := t.storage
	if r.last != s {
		in, err := s.open()
		if err != nil {
			return tensor.Tensor{}, err
		}
		r.data, r.last = make([]byte, s.length*int64(s.dtype.Size())), nil
		if _, err := io.ReadFull(in, r.data); err != nil {
			return tensor.Tensor{}, fmt.Errorf("storage %s: %w", s.key, err)
		}
		// What checks a sum at its end has to be read to the end.
		if _, err := in.Read(make([]byte, 1)); err != nil && err != io.EOF {
			return tensor.Tensor{}, fmt.Errorf("storage %s: %w", s.key, err)
		}
		r.last = s
	}
	out := tensor.New(s.dtype, t.shape...)
	order := s.order
	switch s.dtype {
	case tensor.Float64:
		gather(t, r.data, tensor.Data[float64](out), 8, func(b []byte) float64 { return math.Float64frombits(order.Uint64(b)) })
	case tensor.Float32:
		gather(t, r.data, tensor.Data[float32](out), 4, func(b []byte) float32 { return math.Float32frombits(order.Uint32(b)) })
	case tensor.Float16, tensor.BFloat16:
		gather(t, r.data, tensor.Data[uint16](out), 2, order.Uint16)
	case tensor.Int64:
		gather(t, r.data, tensor.Data[int64](out), 8, func(b []byte) int64 { return int64(order.Uint64(b)) })
	case tensor.Int32:
		gather(t, r.data, tensor.Data[int32](out), 4, func(b []byte) int32 { return int32(order.Uint32(b)) })
	case tensor.Int16:
		gather(t, r.data, tensor.Data[int16](out), 2, func(b []byte) int16 { return int16(order.Uint16(b)) })
	case tensor.Int8:
		gather(t, r.data, tensor.Data[int8](out), 1, func(b []byte) int8 { return int8(b[0]) })
	default:
		gather(t, r.data, tensor.Data[uint8](out), 1, func(b []byte) uint8 { return b[0] })
	}
	return out, nil
}

// gather fills dst, row-major, with the elements of t in data.
func gather[T any](t *lazy, data []byte, dst []T, size int64, decode func([]byte) T) {
	if t.contiguous() {
		data = data[t.offset*size:]
		for i := range dst {
			dst[i] = decode(data[int64(i)*size:])
		}
		return
	}
	index := make([]int, len(t.shape))
	at := t.offset
	for i := range dst {
		dst[i] = decode(data[at*size:])
		for axis := len(index) - 1; axis >= 0; axis-- { // count up, last axis fastest
			index[axis]++
			at += t.stride[axis]
			if index[axis] < t.shape[axis] {
				break
			}
			at -= int64(index[axis]) * t.stride[axis]
			index[axis] = 0
		}
	}
}
