package kernel

import (
	"fmt"
	"math"
	"testing"
)

// The matrices of Winograd's F(2×2,3×3) as the paper prints them.
var (
	matrixBT = [][]float64{{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}}
	matrixG  = [][]float64{{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}}
	matrixAT = [][]float64{{1, 1, 1, 0}, {0, 1, -1, -1}}
)

func transposed(m [][]float64) [][]float64 {
	t := make([][]float64, len(m[0]))
	for j := range t {
		for i := range m {
			t[j] = append(t[j], m[i][j])
		}
	}
	return t
}

// flipped is m with the sign of its last row changed.
func flipped(m [][]float64) [][]float64 {
	var f [][]float64
	for _, row := range m {
		f = append(f, append([]float64(nil), row...))
	}
	for j := range f[len(f)-1] {
		f[len(f)-1][j] *= -1
	}
	return f
}

// sandwich returns m·x·mᵀ and the same of absolute values; x is row-major.
func sandwich(m [][]float64, x []float64) (y, size []float64) {
	n := len(m[0])
	for i := range m {
		for j := range m {
			var sum, abs float64
			for a := range n {
				for b := range n {
					v := m[i][a] * x[a*n+b] * m[j][b]
					sum += v
					abs += math.Abs(v)
				}
			}
			y, size = append(y, sum), append(size, abs)
		}
	}
	return y, size
}

// transforms runs a test for every set, kind of numbers and number of channels.
func transforms(t *testing.T, test func(t *testing.T, w Winograd, f filler, limit func(float64) float64, c int)) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for _, c := range []int{1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 40, 65} {
				t.Run(fmt.Sprintf("C=%d real=%v", c, f.real), func(t *testing.T) { test(t, k.Winograd, f, limit, c) })
			}
		})
	})
}

// testPatches tests Input and Gradient, which multiply size×size patches by m.
func testPatches(t *testing.T, run func(dst, src, zero []float32, patches []int32, c, stride, plane int), m [][]float64, size int, f filler, limit func(float64) float64, c int) {
	const pixels, tiles = 30, 5
	src, _ := guarded(t, pixels*c, c%4)
	f.fill(src)
	zero, _ := guarded(t, c, 1)
	clear(zero)
	var patches []int32
	for range tiles * size * size {
		patches = append(patches, max(NoPixel, int32(f.rng.IntN(pixels+6)-6)*int32(c)))
	}
	stride := c + c%5
	plane := tiles*stride + 3
	dst, check := guarded(t, 16*plane, c%3)
	run(dst, src, zero, patches, c, stride, plane)
	check()
	written := 0
	for tile := range tiles {
		for k := range c {
			x := make([]float64, size*size)
			for i, o := range patches[tile*size*size:][:size*size] {
				if o != NoPixel {
					x[i] = float64(src[int(o)+k])
				}
			}
			want, abs := sandwich(m, x)
			for i, v := range want {
				if got := dst[i*plane+tile*stride+k]; !near(got, v, limit(abs[i])) {
					t.Fatalf("tile %d, channel %d, element %d is %v, want %v", tile, k, i, got, v)
				}
			}
		}
	}
	for _, v := range dst {
		if v == v {
			written++
		}
	}
	if want := 16 * tiles * c; written != want {
		t.Errorf("%d elements written, want %d", written, want)
	}
}

func TestWinogradInput(t *testing.T) {
	transforms(t, func(t *testing.T, w Winograd, f filler, limit func(float64) float64, c int) {
		testPatches(t, w.Input, matrixBT, 4, f, limit, c)
	})
}

func TestWinogradGradient(t *testing.T) {
	transforms(t, func(t *testing.T, w Winograd, f filler, limit func(float64) float64, c int) {
		testPatches(t, w.Gradient, flipped(transposed(matrixAT)), 2, f, limit, c)
	})
}

func TestWinogradOutput(t *testing.T) {
	transforms(t, func(t *testing.T, w Winograd, f filler, limit func(float64) float64, c int) {
		const tiles = 6
		stride := c + c%3
		plane := tiles*stride + 5
		src, _ := guarded(t, 16*plane, c%4)
		f.fill(src)
		dst, check := guarded(t, 4*tiles*(c+1), 2)
		at := someTiles(f.rng, tiles, c)
		w.Output(dst, src, at, c, stride, plane)
		check()
		written, stored := 0, 0
		for tile := range tiles {
			for k := range c {
				x := make([]float64, 16)
				for i := range x {
					x[i] = float64(src[i*plane+tile*stride+k])
				}
				want, abs := sandwich(matrixAT, x)
				for i, v := range want {
					o := at[4*tile+i]
					if o == NoPixel {
						continue
					}
					stored++
					if got := dst[int(o)+k]; !near(got, v, limit(abs[i])) {
						t.Fatalf("tile %d, channel %d, output %d is %v, want %v", tile, k, i, got, v)
					}
				}
			}
		}
		for _, v := range dst {
			if v == v {
				written++
			}
		}
		if written != stored || stored == 0 {
			t.Errorf("%d elements written, want %d", written, stored)
		}
	})
}

// testKernels tests Weights and Sums: from elements in one set of planes to
// elements in another.
func testKernels(t *testing.T, run func(dst, src []float32, n, from, to int), m [][]float64, f filler, limit func(float64) float64, n int) {
	in, out := len(m[0])*len(m[0]), len(m)*len(m)
	from, to := n+n%4, n+n%3
	src, _ := guarded(t, in*from, n%4)
	f.fill(src)
	dst, check := guarded(t, out*to, n%3)
	run(dst, src, n, from, to)
	check()
	for k := range n {
		x := make([]float64, in)
		for i := range x {
			x[i] = float64(src[i*from+k])
		}
		want, abs := sandwich(m, x)
		for i, v := range want {
			if got := dst[i*to+k]; !near(got, v, limit(abs[i])) {
				t.Fatalf("kernel %d, element %d is %v, want %v", k, i, got, v)
			}
		}
	}
	for i, v := range dst {
		if i%to >= n && v == v {
			t.Fatalf("wrote between the planes, at %d", i)
		}
	}
}

func TestWinogradWeights(t *testing.T) {
	transforms(t, func(t *testing.T, w Winograd, f filler, limit func(float64) float64, n int) {
		testKernels(t, w.Weights, matrixG, f, limit, n)
	})
}

func TestWinogradSums(t *testing.T) {
	transforms(t, func(t *testing.T, w Winograd, f filler, limit func(float64) float64, n int) {
		testKernels(t, func(dst, src []float32, n, plane, tap int) { w.Sums(dst, src, n, tap, plane) }, transposed(flipped(matrixG)), f, limit, n)
	})
}

func TestTranspose(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		for _, rows := range []int{0, 1, 7, 8, 9, 16, 19, 32} {
			for _, cols := range []int{1, 4, 7, 8, 11, 16, 24, 35} {
				from, to := cols+rows%3, rows+cols%4
				src, _ := guarded(t, max(0, (rows-1)*from+cols), 1)
				for i := range src {
					src[i] = float32(i)
				}
				dst, check := guarded(t, max(0, (cols-1)*to+rows), 2)
				k.Transpose(dst, src, rows, cols, to, from)
				check()
				for i, v := range dst {
					j, r := i/to, i%to
					if want := float32(r*from + j); r < rows && v != want || r >= rows && v == v {
						t.Fatalf("%d×%d: dst[%d,%d] is %v, want %v", rows, cols, j, r, v, want)
					}
				}
			}
		}
	})
}

// BenchmarkWinograd is the time of a transform for one tile of 64 channels.
func BenchmarkWinograd(b *testing.B) {
	const c, tiles = 64, 32
	const stride, plane = c + 16, tiles*(c+16) + 16 // an odd number of cache lines
	for _, k := range Supported() {
		src, zero := make([]float32, 16*c), make([]float32, c)
		planes := make([]float32, 16*plane)
		var patches, at []int32
		for range tiles {
			for i := range int32(16) {
				patches = append(patches, i*c)
			}
			at = append(at, 0, c, 2*c, 3*c)
		}
		for name, run := range map[string]func(){
			"input":    func() { k.Winograd.Input(planes, src, zero, patches, c, stride, plane) },
			"gradient": func() { k.Winograd.Gradient(planes, src, zero, at, c, stride, plane) },
			"output":   func() { k.Winograd.Output(src, planes, at, c, stride, plane) },
		} {
			b.Run(k.Set.String()+"/"+name, func(b *testing.B) {
				for b.Loop() {
					run()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/tiles, "ns/tile")
			})
		}
	}
}
