package ref

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/residual-ml/residual/tensor"
)

// array is a value while it is computed: elements in row-major order.
type array struct {
	shape tensor.Shape
	v     []float64
}

func newArray(shape tensor.Shape) array { return array{shape, make([]float64, shape.Elements())} }

// tensor returns a copy.
func (a array) tensor() tensor.Tensor { return tensor.Of(slices.Clone(a.v), a.shape...) }

// at returns the last axis of an array with four: the channels of a pixel
// (n, h, w), or the weights of a tap and input channel (kh, kw, c).
func (a array) at(i, j, k int) []float64 {
	s := a.shape
	n := s[3]
	start := ((i*s[1]+j)*s[2] + k) * n
	return a.v[start : start+n : start+n]
}

// rows returns an array of any shape as a matrix whose columns are the last
// axis: pixels by channels, images by classes.
func (a array) rows() (rows, columns int) {
	columns = a.shape[len(a.shape)-1]
	return len(a.v) / columns, columns
}

// row returns row i of that matrix.
func (a array) row(i int) []float64 {
	columns := a.shape[len(a.shape)-1]
	return a.v[i*columns : (i+1)*columns : (i+1)*columns]
}

// forEach calls body(i) once for each i in [0,n), on all processors. Each call
// must write a part of the output that no other call reads or writes.
func forEach(n int, body func(i int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				body(i)
			}
		})
	}
	workers.Wait()
}
