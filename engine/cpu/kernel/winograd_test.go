package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// The matrices of Winograd's F(2×2,3×3) as the paper prints them.
var (
	matrixBT = [][]float64{{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}}
	matrixG  = [][]float64{{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}}
	matrixAT = [][]float64{{1, 1, 1, 0}, {0, 1, -1, -1}}
)

// cookToom returns Bᵀ, G and Aᵀ of F(m×m,r×r) for points that are numbers and ∞:
// with p the product of (x - point), row j of Bᵀ holds the coefficients of
// p/(x - pointⱼ), which at pointⱼ is the divisor of row j of G.
func cookToom(m, r int, points ...float64) (bt, g, at [][]float64) {
	n := len(points) + 1
	polynomial := func(without int) []float64 {
		p := []float64{1}
		for k, point := range points {
			if k == without {
				continue
			}
			q := make([]float64, len(p)+1)
			for i, c := range p {
				q[i] -= point * c
				q[i+1] += c
			}
			p = q
		}
		return append(p, make([]float64, n-len(p))...)
	}
	powers := func(point, divisor float64, count int) (row []float64) {
		for i := range count {
			row = append(row, math.Pow(point, float64(i))/divisor)
		}
		return row
	}
	var a [][]float64
	for j, point := range points {
		p := polynomial(j)
		divisor := 0.0
		for i, c := range p {
			divisor += c * math.Pow(point, float64(i))
		}
		bt, g, a = append(bt, p), append(g, powers(point, divisor, r)), append(a, powers(point, 1, m))
	}
	last := func(count int) []float64 { return append(make([]float64, count-1), 1) }
	return append(bt, polynomial(-1)), append(g, last(r)), transposed(append(a, last(m)))
}

// matrices of a set of transforms, as its kernels multiply by them.
type matrices struct {
	input, gradient, output, weights, sums [][]float64
}

var (
	matrices2 = matrices{matrixBT, flipped(transposed(matrixAT)), matrixAT, matrixG, transposed(flipped(matrixG))}
	matrices4 = func() matrices {
		bt, g, at := cookToom(4, 3, 0, 0.625, -0.625, 1.5, -1.5)
		return matrices{bt, transposed(at), at, g, transposed(g)}
	}()
)

// TestCookToom checks what it finds for F(4,3) on a convolution, and its bᵀ at
// the points 1 and 2 with the matrix that Lavin and Gray print.
func TestCookToom(t *testing.T) {
	bt, g, at := cookToom(4, 3, 0, 1, -1, 2, -2)
	for i, row := range [][]float64{{4, 0, -5, 0, 1, 0}, {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0}, {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}} {
		if !slices.Equal(bt[i], row) {
			t.Errorf("row %d of Bᵀ is %v, want %v", i, bt[i], row)
		}
	}
	times := func(m [][]float64, x []float64) (y []float64) {
		for _, row := range m {
			sum := 0.0
			for i, v := range row {
				sum += v * x[i]
			}
			y = append(y, sum)
		}
		return y
	}
	products := times(bt, []float64{1, 2, 4, 8, 16, 32})
	for i, v := range times(g, []float64{1, 10, 100}) {
		products[i] *= v
	}
	for i, v := range times(at, products) {
		if want := 421 * math.Pow(2, float64(i)); math.Abs(v-want) > 1e-9 { // 1 + 20 + 400, twice as much each
			t.Errorf("output %d is %v, want %v", i, v, want)
		}
	}
}

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
func sandwich(m [][]float64, x []float64) (y, size []float64) { return between(m, m, x) }

// between returns rows·x·columnsᵀ and the same of absolute values; x is row-major.
func between(rows, columns [][]float64, x []float64) (y, size []float64) {
	for i := range rows {
		for j := range columns {
			var sum, abs float64
			for a := range rows[i] {
				for b := range columns[j] {
					v := rows[i][a] * x[a*len(columns[j])+b] * columns[j][b]
					sum += v
					abs += math.Abs(v)
				}
			}
			y, size = append(y, sum), append(size, abs)
		}
	}
	return y, size
}

// transforms runs a test for every set, algorithm, kind of numbers and number of
// channels. The factors of F(4×4,3×3) are not exact, so integers have no
// stricter limit there.
func transforms(t *testing.T, test func(t *testing.T, w Winograd, m matrices, f filler, limit func(float64) float64, c int)) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for _, c := range []int{1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 40, 65} {
				t.Run(fmt.Sprintf("F2/C=%d real=%v", c, f.real), func(t *testing.T) { test(t, k.Winograd, matrices2, f, limit, c) })
				if f.real {
					t.Run(fmt.Sprintf("F4/C=%d", c), func(t *testing.T) { test(t, k.Winograd4, matrices4, f, limit, c) })
				}
			}
		})
	})
}

// transforms4BF16 does so for F(4×4,3×3) of feature maps in bfloat16.
func transforms4BF16(t *testing.T, test func(t *testing.T, w *Transforms[uint16, float32], f filler, limit func(float64) float64, c int)) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for _, c := range []int{1, 3, 15, 16, 17, 31, 32, 40, 65} {
				if f.real {
					t.Run(fmt.Sprintf("F4/bfloat16/C=%d", c), func(t *testing.T) { test(t, &k.BF16.Winograd4, f, limit, c) })
				}
			}
		})
	})
}

// fromHalves is Input or Gradient of patches in bfloat16 for testPatches: it rounds
// src to them first.
func fromHalves(t *testing.T, run func(dst []float32, src, zero []uint16, patches []int32, c, stride, plane int)) func(dst, src, zero []float32, patches []int32, c, stride, plane int) {
	return func(dst, src, zero []float32, patches []int32, c, stride, plane int) {
		half, _ := guarded16(t, len(src))
		copy(half, halfOf(src))
		none, _ := guarded16(t, c)
		clear(none)
		run(dst, half, none, patches, c, stride, plane)
	}
}

// testPatches tests Input and Gradient, which multiply patches by rows and columns.
func testPatches(t *testing.T, run func(dst, src, zero []float32, patches []int32, c, stride, plane int), rows, columns [][]float64, f filler, limit func(float64) float64, c int) {
	const pixels, tiles = 60, 5
	size, planes := len(rows[0])*len(columns[0]), len(rows)*len(columns)
	src, _ := guarded(t, pixels*c, c%4)
	f.fill(src)
	zero, _ := guarded(t, c, 1)
	clear(zero)
	var patches []int32
	for range tiles * size {
		patches = append(patches, max(NoPixel, int32(f.rng.IntN(pixels+6)-6)*int32(c)))
	}
	stride := c + c%5
	plane := tiles*stride + 3
	dst, check := guarded(t, planes*plane, c%3)
	run(dst, src, zero, patches, c, stride, plane)
	check()
	written := 0
	for tile := range tiles {
		for k := range c {
			x := make([]float64, size)
			for i, o := range patches[tile*size:][:size] {
				if o != NoPixel {
					x[i] = float64(src[int(o)+k])
				}
			}
			want, abs := between(rows, columns, x)
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
	if want := planes * tiles * c; written != want {
		t.Errorf("%d elements written, want %d", written, want)
	}
}

func TestWinogradInput(t *testing.T) {
	transforms(t, func(t *testing.T, w Winograd, m matrices, f filler, limit func(float64) float64, c int) {
		testPatches(t, w.Input, m.input, m.input, f, limit, c)
	})
	transforms4BF16(t, func(t *testing.T, w *Transforms[uint16, float32], f filler, limit func(float64) float64, c int) {
		testPatches(t, fromHalves(t, w.Input), matrices4.input, matrices4.input, f, limit, c)
	})
}

func TestWinogradGradient(t *testing.T) {
	transforms(t, func(t *testing.T, w Winograd, m matrices, f filler, limit func(float64) float64, c int) {
		testPatches(t, w.Gradient, m.gradient, m.gradient, f, limit, c)
	})
	transforms4BF16(t, func(t *testing.T, w *Transforms[uint16, float32], f filler, limit func(float64) float64, c int) {
		testPatches(t, fromHalves(t, w.Gradient), matrices4.gradient, matrices4.gradient, f, limit, c)
	})
}

func TestWinogradOutput(t *testing.T) {
	transforms(t, func(t *testing.T, w Winograd, m matrices, f filler, limit func(float64) float64, c int) {
		testOutput(t, w.Output, m.output, m.output, f, limit, c)
	})
	transforms4BF16(t, func(t *testing.T, w *Transforms[uint16, float32], f filler, limit func(float64) float64, c int) {
		run := func(dst, src []float32, at []int32, c, stride, plane int) {
			half, check := guarded16(t, len(dst))
			w.Output(half, src, at, c, stride, plane)
			check()
			widenGeneric(dst, half)
		}
		testOutput(t, run, matrices4.output, matrices4.output, f, func(abs float64) float64 { return limit(abs) + 0x1p-8*abs }, c) // rounded by half of that
	})
}

func testOutput(t *testing.T, run func(dst, src []float32, at []int32, c, stride, plane int), rows, columns [][]float64, f filler, limit func(float64) float64, c int) {
	const tiles = 6
	outputs, planes := len(rows)*len(columns), len(rows[0])*len(columns[0])
	stride := c + c%3
	plane := tiles*stride + 5
	src, _ := guarded(t, planes*plane, c%4)
	f.fill(src)
	dst, check := guarded(t, outputs*tiles*(c+1), 2)
	at := someTiles(f.rng, tiles, outputs, c)
	run(dst, src, at, c, stride, plane)
	check()
	written, stored := 0, 0
	for tile := range tiles {
		for k := range c {
			x := make([]float64, planes)
			for i := range x {
				x[i] = float64(src[i*plane+tile*stride+k])
			}
			want, abs := between(rows, columns, x)
			for i, v := range want {
				o := at[outputs*tile+i]
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
	transforms(t, func(t *testing.T, w Winograd, m matrices, f filler, limit func(float64) float64, n int) {
		testKernels(t, w.Weights, m.weights, f, limit, n)
	})
}

func TestWinogradSums(t *testing.T) {
	transforms(t, func(t *testing.T, w Winograd, m matrices, f filler, limit func(float64) float64, n int) {
		testKernels(t, func(dst, src []float32, n, plane, tap int) { w.Sums(dst, src, n, tap, plane) }, m.sums, f, limit, n)
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

// BenchmarkWinograd is the time of a transform for one tile of 64 channels, and
// of weights for 16 times 64 pairs of channels.
func BenchmarkWinograd(b *testing.B) {
	const c, tiles, rows = 64, 26, 16
	const stride, plane = c + 16, tiles*(c+16) + 16 // an odd number of cache lines
	for _, k := range Supported() {
		for name, w := range map[string]*Winograd{"F2": &k.Winograd, "F4": &k.Winograd4} {
			size := int32(2)
			if name == "F4" {
				size = 4
			}
			src, zero := make([]float32, 36*c), make([]float32, c)
			taps, transformed := make([]float32, 9*rows*c), make([]float32, 36*(rows*c+16))
			planes := make([]float32, 36*plane)
			var patches, at []int32
			for range tiles {
				for i := range (size + 2) * (size + 2) {
					patches = append(patches, i*c)
				}
				for i := range size * size {
					at = append(at, i*c)
				}
			}
			type transform struct {
				name string
				run  func()
				n    int
			}
			all := []transform{
				{"input", func() { w.Input(planes, src, zero, patches, c, stride, plane) }, tiles},
				{"gradient", func() { w.Gradient(planes, src, zero, at, c, stride, plane) }, tiles},
				{"output", func() { w.Output(src, planes, at, c, stride, plane) }, tiles},
				{"weights", func() { w.Weights(transformed, taps, rows*c, rows*c, rows*c+16) }, rows},
				{"sums", func() { w.Sums(taps, transformed, rows*c, rows*c, rows*c+16) }, rows},
			}
			if name == "F4" {
				h, src, zero, narrow := &k.BF16.Winograd4, make([]uint16, 36*c), make([]uint16, c), make([]uint16, 36*plane)
				all = append(all,
					transform{"bfloat16/input", func() { h.Input(planes, src, zero, patches, c, stride, plane) }, tiles},
					transform{"bfloat16/input pairs", func() { k.BF16.Winograd4Pairs(narrow, src, zero, patches, c, stride, plane) }, tiles},
					transform{"bfloat16/gradient", func() { h.Gradient(planes, src, zero, at, c, stride, plane) }, tiles},
					transform{"bfloat16/output", func() { h.Output(src, planes, at, c, stride, plane) }, tiles})
			}
			for _, t := range all {
				b.Run(k.Set.String()+"/"+name+"/"+t.name, func(b *testing.B) {
					for b.Loop() {
						t.run()
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(t.n), "ns/tile")
				})
			}
		}
	}
}
