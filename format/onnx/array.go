package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/residual-ml/residual/tensor"
)

// axes returns a tensor's dims after checking that their product is the number
// of elements that its data holds, so nothing is allocated that the file does not
// pay for.
func (t *tensorProto) axes() (tensor.Shape, error) {
	shape := make(tensor.Shape, len(t.dims))
	n, zero := uint64(1), false
	for i, d := range t.dims {
		if d < 0 || d > math.MaxInt32 {
			return nil, fmt.Errorf("tensor %q has dims %v", t.name, t.dims)
		}
		shape[i] = int(d)
		if d == 0 {
			zero = true
		} else if n *= uint64(d); n > math.MaxInt32 {
			return nil, fmt.Errorf("tensor %q has dims %v: too large", t.name, t.dims)
		}
	}
	if zero {
		n = 0
	}
	have, unit := 0, 1
	switch size := elementSize(t.kind); {
	case size == 0:
		return nil, fmt.Errorf("tensor %q has elements of type %d, which is not supported", t.name, t.kind)
	case t.location != 0 || len(t.external) > 0:
		return nil, fmt.Errorf("tensor %q is in another file, which was not read", t.name)
	case t.segment:
		return nil, fmt.Errorf("tensor %q is in segments, which is not supported", t.name)
	case t.hasRaw:
		have, unit = len(t.raw), size
	case t.kind == typeFloat:
		have, unit = len(t.floats), 4
	case t.kind == typeDouble:
		have, unit = len(t.doubles), 8
	case t.kind == typeInt64:
		have = len(t.int64s)
	default:
		have = len(t.int32s)
	}
	if uint64(have) != n*uint64(unit) {
		return nil, fmt.Errorf("tensor %q has %d bytes or numbers of data, want %d for dims %v", t.name, have, n*uint64(unit), t.dims)
	}
	return shape, nil
}

// elementSize is the size of an element in raw_data, 0 of types that are not
// supported.
func elementSize(kind int64) int {
	switch kind {
	case typeDouble, typeInt64:
		return 8
	case typeFloat, typeInt32:
		return 4
	case typeFloat16, typeBfloat16:
		return 2
	case typeUint8, typeInt8, typeBool:
		return 1
	}
	return 0
}

// tensor decodes the elements: floating-point ones in their own type.
func (t *tensorProto) tensor() (tensor.Tensor, error) {
	shape, err := t.axes()
	if err != nil {
		return tensor.Tensor{}, err
	}
	le := binary.LittleEndian
	n := shape.Elements()
	raw := t.raw
	switch t.kind {
	case typeFloat:
		if !t.hasRaw {
			raw = t.floats
		}
		out := make([]float32, n)
		for i := range out {
			out[i] = math.Float32frombits(le.Uint32(raw[4*i:]))
		}
		return tensor.Of(out, shape...), nil
	case typeDouble:
		if !t.hasRaw {
			raw = t.doubles
		}
		out := make([]float64, n)
		for i := range out {
			out[i] = math.Float64frombits(le.Uint64(raw[8*i:]))
		}
		return tensor.Of(out, shape...), nil
	case typeFloat16, typeBfloat16:
		out := make([]uint16, n)
		for i := range out {
			if t.hasRaw {
				out[i] = le.Uint16(raw[2*i:])
			} else {
				out[i] = uint16(t.int32s[i])
			}
		}
		if t.kind == typeBfloat16 {
			return tensor.OfBits(tensor.BFloat16, out, shape...), nil
		}
		return tensor.OfBits(tensor.Float16, out, shape...), nil
	case typeInt64:
		out := make([]int64, n)
		for i := range out {
			if t.hasRaw {
				out[i] = int64(le.Uint64(raw[8*i:]))
			} else {
				out[i] = t.int64s[i]
			}
		}
		return tensor.Of(out, shape...), nil
	}
	out := make([]int32, n)
	for i := range out {
		switch {
		case !t.hasRaw:
			out[i] = int32(t.int32s[i])
		case t.kind == typeInt32:
			out[i] = int32(le.Uint32(raw[4*i:]))
		case t.kind == typeInt8:
			out[i] = int32(int8(raw[i]))
		default: // uint8, bool
			out[i] = int32(raw[i])
		}
	}
	return tensor.Of(out, shape...), nil
}

// array is a constant while it is worked on: any element type as float64, which
// holds all but integers beyond 2^53 exactly; those are "to the end" in Slice.
type array struct {
	dims   []int
	values []float64
}

func arrayOf(t tensor.Tensor) array {
	return array{append([]int{}, t.Shape()...), t.Convert(tensor.Float64).Float64s()}
}

func (a array) ints() []int {
	out := make([]int, len(a.values))
	for i, v := range a.values {
		switch {
		case v >= math.MaxInt32: // far beyond any axis
			out[i] = math.MaxInt32
		case v <= math.MinInt32:
			out[i] = math.MinInt32
		default:
			out[i] = int(v)
		}
	}
	return out
}

// list is a as a short list of integers, such as axes or pads.
func (a array) list() ([]int, error) {
	if len(a.values) > 4*maxDims {
		return nil, fmt.Errorf("a list of %d numbers", len(a.values))
	}
	return a.ints(), nil
}

// folder works on constants. It makes at most left numbers in all, so that a
// chain of nodes cannot make much of little.
type folder struct{ left int }

// pay takes the elements of dims from what is left.
func (f *folder) pay(dims []int) error {
	if len(dims) > maxDims {
		return fmt.Errorf("a constant of %d axes, want at most %d", len(dims), maxDims)
	}
	n, ok := elements(dims, f.left)
	if !ok {
		return fmt.Errorf("a constant of %v, more than this file may make", dims)
	}
	f.left -= n
	return nil
}

// elements is the product of dims; ok is false beyond limit.
func elements(dims []int, limit int) (n int, ok bool) {
	n = 1
	for _, d := range dims {
		if d < 0 || d > 0 && n > limit/d {
			return 0, false
		}
		n *= d
	}
	return n, n <= limit
}

// gather makes an array of dims whose element at index is a's at from(index), a
// position in its values.
func (f *folder) gather(a array, dims []int, from func(index []int) int) (array, error) {
	if err := f.pay(dims); err != nil {
		return array{}, err
	}
	n, _ := elements(dims, math.MaxInt)
	out := array{append([]int{}, dims...), make([]float64, n)}
	index := make([]int, len(dims))
	for i := range out.values {
		out.values[i] = a.values[from(index)]
		for axis := len(dims) - 1; axis >= 0; axis-- { // count up, last axis fastest
			if index[axis]++; index[axis] < dims[axis] {
				break
			}
			index[axis] = 0
		}
	}
	return out, nil
}

// broadcast is op on two arrays by numpy's rule. The unknown number of pictures
// is no operand.
func (f *folder) broadcast(a, b array, op func(a, b float64) float64) (array, error) {
	rank := max(len(a.dims), len(b.dims))
	full := func(x array) []int { return slices.Concat(slices.Repeat([]int{1}, rank-len(x.dims)), x.dims) }
	da, db := full(a), full(b)
	dims := make([]int, rank)
	for i := range dims {
		if dims[i] = da[i]; dims[i] == 1 {
			dims[i] = db[i]
		}
		if da[i] != dims[i] && da[i] != 1 || db[i] != dims[i] && db[i] != 1 {
			return array{}, fmt.Errorf("shapes %v and %v", a.dims, b.dims)
		}
	}
	if slices.Contains(a.values, batchMark) || slices.Contains(b.values, batchMark) {
		return array{}, fmt.Errorf("arithmetic with the number of pictures")
	}
	sa, sb := array{dims: da}.strides(), array{dims: db}.strides()
	at := func(index, dims, strides []int) int {
		i := 0
		for k, x := range index {
			if dims[k] > 1 {
				i += x * strides[k]
			}
		}
		return i
	}
	var other []int // where b is read, in order
	out, err := f.gather(a, dims, func(index []int) int {
		other = append(other, at(index, db, sb))
		return at(index, da, sa)
	})
	for i, j := range other {
		out.values[i] = op(out.values[i], b.values[j])
	}
	return out, err
}

// strides are the distances in values of neighbours along each axis.
func (a array) strides() []int {
	out := make([]int, len(a.dims))
	step := 1
	for i := len(a.dims) - 1; i >= 0; i-- {
		out[i] = step
		step *= a.dims[i]
	}
	return out
}

// transpose has axis i of the result be axis perm[i] of a; no perm reverses.
func (f *folder) transpose(a array, perm []int) (array, error) {
	if perm == nil {
		for i := range a.dims {
			perm = append(perm, len(a.dims)-1-i)
		}
	}
	if err := permutation(perm, len(a.dims)); err != nil {
		return array{}, err
	}
	stride := a.strides()
	dims := make([]int, len(perm))
	for i, p := range perm {
		dims[i] = a.dims[p]
	}
	return f.gather(a, dims, func(index []int) int {
		at := 0
		for i, p := range perm {
			at += index[i] * stride[p]
		}
		return at
	})
}

func permutation(perm []int, rank int) error {
	seen := make([]bool, rank)
	for _, p := range perm {
		if p < 0 || p >= rank || seen[p] {
			return fmt.Errorf("perm %v of %d axes", perm, rank)
		}
		seen[p] = true
	}
	if len(perm) != rank {
		return fmt.Errorf("perm %v of %d axes", perm, rank)
	}
	return nil
}

// slice takes from start to end by step along one axis, by numpy's rules.
func (f *folder) slice(a array, axis, start, end, step int) (array, error) {
	axis, err := axisOf(axis, len(a.dims))
	if err != nil || step == 0 {
		return array{}, fmt.Errorf("slice of axis %d by %d of %v", axis, step, a.dims)
	}
	first, n := sliced(a.dims[axis], start, end, step)
	dims := slices.Clone(a.dims)
	dims[axis] = n
	stride := a.strides()
	return f.gather(a, dims, func(index []int) int {
		at := 0
		for i, x := range index {
			if i == axis {
				x = first + x*step
			}
			at += x * stride[i]
		}
		return at
	})
}

// sliced is the first position and the number of positions that a slice of an
// axis of size takes.
func sliced(size, start, end, step int) (first, n int) {
	if start < 0 {
		start += size
	}
	if end < 0 {
		end += size
	}
	if step > 0 {
		start, end = min(max(start, 0), size), min(max(end, 0), size)
		return start, max(0, (end-start+step-1)/step)
	}
	start, end = min(max(start, -1), size-1), min(max(end, -1), size-1)
	return start, max(0, (start-end-step-1)/-step)
}

// axisOf turns negative axes, which count from the end.
func axisOf(axis, rank int) (int, error) {
	if axis < 0 {
		axis += rank
	}
	if axis < 0 || axis >= rank {
		return axis, fmt.Errorf("axis %d of %d axes", axis, rank)
	}
	return axis, nil
}

// concat joins arrays along an axis.
func (f *folder) concat(axis int, arrays []array) (array, error) {
	if len(arrays) == 0 || len(arrays[0].dims) == 0 {
		return array{}, fmt.Errorf("concatenation of nothing")
	}
	axis, err := axisOf(axis, len(arrays[0].dims))
	if err != nil {
		return array{}, err
	}
	dims := slices.Clone(arrays[0].dims)
	dims[axis] = 0
	for _, a := range arrays {
		if len(a.dims) != len(dims) {
			return array{}, fmt.Errorf("concatenation of %v and %v", arrays[0].dims, a.dims)
		}
		for i := range dims {
			if i != axis && a.dims[i] != dims[i] {
				return array{}, fmt.Errorf("concatenation of %v and %v", arrays[0].dims, a.dims)
			}
		}
		dims[axis] += a.dims[axis]
	}
	if err := f.pay(dims); err != nil {
		return array{}, err
	}
	out := array{dims: dims}
	before, _ := elements(dims[:axis], math.MaxInt)
	for i := range before {
		for _, a := range arrays {
			n := len(a.values) / before
			out.values = append(out.values, a.values[i*n:(i+1)*n]...)
		}
	}
	return out, nil
}

// take is Gather along an axis by indices of any shape.
func (f *folder) take(a array, axis int, indices array) (array, error) {
	axis, err := axisOf(axis, len(a.dims))
	if err != nil {
		return array{}, err
	}
	at := indices.ints()
	for i, x := range at {
		if at[i], err = axisOf(x, a.dims[axis]); err != nil {
			return array{}, err
		}
	}
	dims := slices.Concat(a.dims[:axis], indices.dims, a.dims[axis+1:])
	stride := a.strides()
	inner := array{dims: indices.dims}.strides()
	rank := len(indices.dims)
	return f.gather(a, dims, func(index []int) int {
		which, from := 0, 0
		for i, x := range index {
			switch {
			case i < axis:
				from += x * stride[i]
			case i < axis+rank:
				which += x * inner[i-axis]
			default:
				from += x * stride[i-rank+1]
			}
		}
		return from + at[which]*stride[axis]
	})
}

// reshaped resolves 0 (as it was) and -1 (the rest) of a Reshape's target.
func reshaped(dims, target []int) ([]int, error) {
	out := slices.Clone(target)
	n, ok := elements(dims, math.MaxInt32)
	known, open := 1, -1
	for i, d := range out {
		switch {
		case d == 0 && i < len(dims):
			out[i] = dims[i]
		case d == -1 && open < 0:
			open = i
			continue
		case d < 1:
			return nil, fmt.Errorf("reshape of %v to %v", dims, target)
		}
		if out[i] > 0 && known > math.MaxInt32/out[i] {
			return nil, fmt.Errorf("reshape of %v to %v", dims, target)
		}
		known *= out[i]
	}
	if open >= 0 && known > 0 {
		out[open] = n / known
		known *= out[open]
	}
	if !ok || known != n {
		return nil, fmt.Errorf("reshape of %v to %v", dims, target)
	}
	return out, nil
}

// squeezed leaves out axes of size 1: all where none are given.
func squeezed(dims, axes []int) ([]int, error) {
	drop := map[int]bool{}
	for _, a := range axes {
		a, err := axisOf(a, len(dims))
		if err != nil || dims[a] != 1 {
			return nil, fmt.Errorf("squeeze of axes %v of %v", axes, dims)
		}
		drop[a] = true
	}
	out := []int{}
	for i, d := range dims {
		if !drop[i] && !(len(axes) == 0 && d == 1) {
			out = append(out, d)
		}
	}
	return out, nil
}

// unsqueezed puts in axes of size 1, counted in the result.
func unsqueezed(dims, axes []int) ([]int, error) {
	rank := len(dims) + len(axes)
	put := map[int]bool{}
	for _, a := range axes {
		a, err := axisOf(a, rank)
		if err != nil || put[a] || rank > maxDims {
			return nil, fmt.Errorf("unsqueeze of axes %v of %v", axes, dims)
		}
		put[a] = true
	}
	out := []int{}
	for i := range rank {
		if put[i] {
			out = append(out, 1)
			continue
		}
		out = append(out, dims[0])
		dims = dims[1:]
	}
	return out, nil
}
