package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/residual-ml/residual/tensor"
)

// Whitening computes the kernel of a whitening stem from pictures. Its filters are
// the eigenvectors v of the second moments of all patches of k×k pixels, and their
// negatives, as a ReLU follows:
//
//	±v/√(λ + 5e-4)
//
// λ is v's eigenvalue, the mean square of v·patch, and the largest comes first
// (airbench's init_whitening_conv; Jordan 2024, https://arxiv.org/abs/2404.00498,
// section 3.2). Of v and -v that one is first whose largest component is positive.
type Whitening struct {
	side, channels int
	moments        []float64 // Σ patch·patchᵀ, above the diagonal and on it
	patches        float64
}

// NewWhitening is for kernels of k×k pixels and pictures with so many channels.
func NewWhitening(k, channels int) *Whitening {
	n := k * k * channels
	return &Whitening{side: k, channels: channels, moments: make([]float64, n*n)}
}

// Patches is the number of patches in a picture.
func (w *Whitening) Patches(height, width int) int {
	return max(0, height-w.side+1) * max(0, width-w.side+1)
}

// Add takes preprocessed pictures into account, [N,H,W,C].
func (w *Whitening) Add(images tensor.Tensor) error {
	s := images.Shape()
	if len(s) != 4 || s[3] != w.channels || images.DType() != tensor.Float32 {
		return fmt.Errorf("whitening: images are %v of shape %v, want float32 [N,H,W,%d]", images.DType(), s, w.channels)
	}
	values := images.Float32s()
	row := w.side * w.channels // numbers of a patch that lie one after the other
	n := w.side * row
	patch := make([]float64, n)
	for image := range s[0] {
		for y := range max(0, s[1]-w.side+1) {
			for x := range max(0, s[2]-w.side+1) {
				for ky := range w.side {
					from := (((image*s[1])+y+ky)*s[2] + x) * w.channels
					for i, v := range values[from : from+row] {
						patch[ky*row+i] = float64(v)
					}
				}
				for i, a := range patch {
					sums := w.moments[i*n : (i+1)*n]
					for j := i; j < n; j++ {
						sums[j] += a * patch[j]
					}
				}
			}
		}
	}
	w.patches += float64(s[0] * w.Patches(s[1], s[2]))
	return nil
}

// Kernel is [k,k,C,2·k²·C].
func (w *Whitening) Kernel() (tensor.Tensor, error) {
	n := w.side * w.side * w.channels
	a := make([]float64, n*n)
	for i := range n {
		for j := i; j < n; j++ {
			m := w.moments[i*n+j] / w.patches // NaN without patches
			if math.IsNaN(m) || math.IsInf(m, 0) {
				return tensor.Tensor{}, fmt.Errorf("whitening: the mean square of %g patches is %v, want a number", w.patches, m)
			}
			a[i*n+j], a[j*n+i] = m, m
		}
	}
	values, vectors := eigen(a, n)
	kernel := tensor.New(tensor.Float32, w.side, w.side, w.channels, 2*n)
	out := kernel.Float32s()
	for f, value := range values {
		v := vectors[f*n : (f+1)*n]
		scale := 1 / math.Sqrt(max(value, 0)+5e-4) // rounding may leave less than nothing
		if largest := slices.MaxFunc(v, func(a, b float64) int { return cmp.Compare(math.Abs(a), math.Abs(b)) }); largest < 0 {
			scale = -scale
		}
		for i, component := range v {
			out[i*2*n+f], out[i*2*n+n+f] = float32(scale*component), float32(-scale*component)
		}
	}
	return kernel, nil
}

// eigen returns the eigenvalues of the symmetric matrix a [n,n], the largest first,
// and their eigenvectors of length 1, a row each. It overwrites a.
//
// Jacobi's method: rotations in the plane of two axes, each of which makes one
// element zero, until the rest is nothing beside the diagonal (Golub, Van Loan,
// Matrix Computations, section 8.5). For the few dozen rows that a patch has that
// is as exact as any method, and the result is a function of a alone.
func eigen(a []float64, n int) (values, vectors []float64) {
	rows := make([]float64, n*n)
	for i := range n {
		rows[i*n+i] = 1
	}
	for range 100 { // sweeps; they converge quadratically, ten are many
		rest, diagonal := 0.0, 0.0
		for i := range n {
			diagonal += a[i*n+i] * a[i*n+i]
			for j := range i {
				rest += a[i*n+j] * a[i*n+j]
			}
		}
		if rest <= 1e-32*diagonal {
			break
		}
		for p := range n {
			for q := p + 1; q < n; q++ {
				if a[p*n+q] == 0 {
					continue
				}
				ratio := (a[q*n+q] - a[p*n+p]) / (2 * a[p*n+q])
				t := math.Copysign(1, ratio) / (math.Abs(ratio) + math.Hypot(ratio, 1)) // the smaller root of t² + 2·ratio·t - 1
				c := 1 / math.Hypot(t, 1)
				s := t * c
				rotate := func(m []float64, i, j int) { m[i], m[j] = c*m[i]-s*m[j], s*m[i]+c*m[j] }
				for k := range n { // a·J, Jᵀ·a, and the rows of vectors
					rotate(a, k*n+p, k*n+q)
				}
				for k := range n {
					rotate(a, p*n+k, q*n+k)
					rotate(rows, p*n+k, q*n+k)
				}
			}
		}
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(a[j*n+j], a[i*n+i]) })
	for _, i := range order {
		values = append(values, a[i*n+i])
		vectors = append(vectors, rows[i*n:(i+1)*n]...)
	}
	return values, vectors
}
