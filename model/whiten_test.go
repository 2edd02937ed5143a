package model

import (
	"math"
	"strings"
	"testing"

	"github.com/residual-ml/residual/golden"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

// The kernel of a whitening stem against torch.linalg.eigh. Pictures are float32
// here and float64 there, which a filter with the smallest eigenvalue amplifies;
// found: 2e-6.
func TestWhitening(t *testing.T) {
	f := golden.Load(t, "torch_whitening")
	const n, size = 4, 12
	sums := golden.Images(3, n, size, size, 3)
	at := func(i, y, x, c int) *float64 { return &sums[((i*size+y)*size+x)*3+c] }
	for i := range sums {
		sums[i] -= 0.5
	}
	for i := range n {
		for y := range size {
			for x := range size {
				for c := range 3 {
					if y > 0 {
						*at(i, y, x, c) += *at(i, y-1, x, c)
					}
				}
			}
		}
		for y := range size {
			for x := 1; x < size; x++ {
				for c := range 3 {
					*at(i, y, x, c) += *at(i, y, x-1, c)
				}
			}
		}
	}
	w := NewWhitening(2, 3)
	half := n / 2 * size * size * 3
	for _, part := range [][]float64{sums[:half], sums[half:]} {
		if err := w.Add(tensor.Of(part, n/2, size, size, 3).Convert(tensor.Float32)); err != nil {
			t.Fatal(err)
		}
	}
	kernel, err := w.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("error: %.2g", golden.CheckValues(t, "kernel", ToFile(kernel).Convert(tensor.Float64).Float64s(), f.Values["kernel"], 1e-5))
}

// Whatever the matrix: A·v = λ·v, the vectors are orthonormal, the values in order.
// Equal values, none and a hundred orders of magnitude are among them.
func TestEigen(t *testing.T) {
	for seed := range uint64(40) {
		s := random.New(seed)
		n := 1 + int(seed)%12
		a := make([]float64, n*n)
		for i := range n {
			for j := range i + 1 {
				v := s.Normal() * math.Pow(10, s.Range(-3, 3))
				if seed%4 == 3 {
					v = float64(int(v) % 2)
				}
				a[i*n+j], a[j*n+i] = v, v
			}
		}
		norm := 1e-300
		for _, v := range a {
			norm = max(norm, math.Abs(v))
		}
		values, vectors := eigen(append([]float64(nil), a...), n)
		if len(values) != n {
			t.Fatalf("%d values of %d rows", len(values), n)
		}
		for f, value := range values {
			v := vectors[f*n : (f+1)*n]
			if f > 0 && values[f-1] < value {
				t.Errorf("seed %d: values %v are not in order", seed, values)
			}
			for i := range n {
				sum := -value * v[i]
				for j := range n {
					sum += a[i*n+j] * v[j]
				}
				if math.Abs(sum) > 1e-13*norm*float64(n) {
					t.Errorf("seed %d: row %d of A·v - λ·v is %g", seed, i, sum)
				}
			}
			for g := range f + 1 {
				dot := 0.0
				for i := range n {
					dot += v[i] * vectors[g*n+i]
				}
				if want := map[bool]float64{true: 1}[g == f]; math.Abs(dot-want) > 1e-13 {
					t.Errorf("seed %d: vectors %d and %d: %g, want %g", seed, f, g, dot, want)
				}
			}
		}
	}
}

func TestWhiteningErrors(t *testing.T) {
	w := NewWhitening(2, 3)
	if _, err := w.Kernel(); err == nil || !strings.Contains(err.Error(), "0 patches") {
		t.Errorf("without pictures: %v", err)
	}
	if err := w.Add(tensor.New(tensor.Float32, 1, 4, 4, 1)); err == nil || !strings.Contains(err.Error(), "[N,H,W,3]") {
		t.Errorf("grey pictures: %v", err)
	}
	nan := tensor.New(tensor.Float32, 1, 2, 2, 3)
	nan.Float32s()[5] = float32(math.NaN())
	if err := w.Add(nan); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Kernel(); err == nil || !strings.Contains(err.Error(), "NaN") {
		t.Errorf("NaN: %v", err)
	}
}

// A convolution that begins with Dirac passes its channels on, exactly; the filters
// beyond them are drawn, uniformly in ±1/√fan-in.
func TestDirac(t *testing.T) {
	for _, shape := range []tensor.Shape{{3, 3, 4, 10}, {3, 3, 6, 6}, {1, 1, 5, 3}} {
		fan := shape[0] * shape[1] * shape[2]
		v := &graph.Node{Op: graph.OpVariable, Name: "w", Shape: shape,
			Variable: graph.VariableAttrs{Init: graph.Init{Kind: graph.Dirac, FanIn: fan}}}
		w := Initial(v, 1).Float32s()
		drawn := map[float32]bool{}
		for at, x := range w {
			filter, channel, tap := at%shape[3], at/shape[3]%shape[2], at/shape[3]/shape[2]
			if filter < shape[2] {
				want := float32(0)
				if filter == channel && tap == shape[0]*shape[1]/2 {
					want = 1
				}
				if x != want {
					t.Errorf("%v: tap %d of channel %d for filter %d is %v, want %v", shape, tap, channel, filter, x, want)
				}
				continue
			}
			if math.Abs(float64(x)) > 1/math.Sqrt(float64(fan)) {
				t.Errorf("%v: %v is beyond 1/√%d", shape, x, fan)
			}
			drawn[x] = true
		}
		if want := fan * max(0, shape[3]-shape[2]); len(drawn) < want*9/10 {
			t.Errorf("%v: %d different numbers drawn of %d", shape, len(drawn), want)
		}
	}
}
