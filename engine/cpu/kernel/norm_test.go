package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// halves16 fills s with numbers that bfloat16 holds.
func (f filler) halves16(s []uint16) []uint16 {
	for i := range s {
		s[i] = ToBF16(f.next())
	}
	return s
}

// normShapes are numbers of rows and channels: tails of both vectors, several groups.
func normShapes(test func(rows, c int)) {
	for c := 1; c <= 100; c++ {
		for _, rows := range []int{0, 1, 2, 5} {
			test(rows, c)
		}
	}
	test(33, 32)
	test(7, 256)
}

// nearBF16 says whether a bfloat16 is want, but for limit and half a unit of its last
// place on top.
func nearBF16(got uint16, want, limit float64) bool {
	return near(FromBF16(got), want, limit+math.Abs(want)*0x1p-8)
}

func TestNormalise(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			normShapes(func(rows, c int) { testNormalise(t, k, f, limit, rows, c) })
		})
	})
}

func testNormalise(t *testing.T, k *Kernels, f filler, limit func(float64) float64, rows, c int) {
	t.Helper()
	x, _ := guarded16(t, rows*c)
	add, _ := guarded16(t, rows*c)
	f.halves16(x)
	f.halves16(add)
	vectors := make([][]float32, 4) // scale, shift, addScale, addShift
	for i := range vectors {
		vectors[i], _ = guarded(t, c, i)
		f.fill(vectors[i])
	}
	for _, low := range []float32{0, float32(math.Inf(-1))} {
		for _, with := range [][]uint16{nil, add} {
			dst, check := guarded16(t, rows*c)
			k.BF16.Normalise(dst, x, vectors[0], vectors[1], with, vectors[2], vectors[3], low)
			check()
			for i := range dst {
				j := i % c
				p := float64(FromBF16(x[i])) * float64(vectors[0][j])
				want, abs := p+float64(vectors[1][j]), math.Abs(p)+math.Abs(float64(vectors[1][j]))
				if with != nil {
					p := float64(FromBF16(add[i])) * float64(vectors[2][j])
					want, abs = want+p+float64(vectors[3][j]), abs+math.Abs(p)+math.Abs(float64(vectors[3][j]))
				}
				want = math.Max(want, float64(low))
				// Sums of products of small integers have at most 8 bits: no rounding.
				if exact := limit(1) == 0; exact && float64(FromBF16(dst[i])) != want || !nearBF16(dst[i], want, limit(abs)) {
					t.Fatalf("%d×%d, add %v, low %v: dst[%d] = %v, want %v", rows, c, with != nil, low, i, FromBF16(dst[i]), want)
				}
			}
			overX, overAdd := slices.Clone(x), slices.Clone(add)
			k.BF16.Normalise(overX, overX, vectors[0], vectors[1], with, vectors[2], vectors[3], low)
			if with != nil {
				k.BF16.Normalise(overAdd, x, vectors[0], vectors[1], overAdd, vectors[2], vectors[3], low)
			}
			if !slices.Equal(overX, dst) || with != nil && !slices.Equal(overAdd, dst) {
				t.Fatalf("%d×%d: in place gives other numbers", rows, c)
			}
		}
	}
	if rows*c > 0 {
		x[rows*c-1] = 0x7fc0 // NaN
		k.BF16.Normalise(x, x, vectors[0], vectors[1], nil, nil, nil, 0)
		if v := FromBF16(x[rows*c-1]); v == v {
			t.Fatalf("%d×%d: NaN becomes %v", rows, c, v)
		}
	}
}

func TestGateSums(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			normShapes(func(rows, c int) {
				for given := range 8 {
					testGateSums(t, k, f, limit, rows, c, given&1 != 0, given&2 != 0, given&4 != 0)
				}
			})
		})
	})
}

func testGateSums(t *testing.T, k *Kernels, f filler, limit func(float64) float64, rows, c int, stores, adds, gates bool) {
	t.Helper()
	maps := make([][]uint16, 4) // d, more, y, x
	for i := range maps {
		maps[i], _ = guarded16(t, rows*c)
		f.halves16(maps[i])
	}
	d, more, y, x := maps[0], maps[1], maps[2], maps[3]
	if rows*c > 2 {
		y[rows*c-1], y[rows*c-2] = 0x7fc0, 0x8000 // NaN and -0 let nothing through
	}
	g, checkG := guarded16(t, rows*c)
	mean, _ := guarded(t, c, 1)
	sum, checkSum := guarded(t, c, 2)
	products, checkProducts := guarded(t, c, 3)
	f.fill(mean)
	f.fill(sum)
	f.fill(products)
	wantSum, wantProducts, absSum, absProducts := make([]float64, c), make([]float64, c), make([]float64, c), make([]float64, c)
	for j := range c {
		wantSum[j], wantProducts[j] = float64(sum[j]), float64(products[j])
		absSum[j], absProducts[j] = math.Abs(wantSum[j]), math.Abs(wantProducts[j])
	}
	want := make([]float64, rows*c)
	for i := range want {
		j, v := i%c, float64(FromBF16(d[i]))
		if adds {
			v += float64(FromBF16(more[i]))
		}
		if gates && !(FromBF16(y[i]) > 0) {
			v = 0
		}
		p := float64(FromBF16(x[i])-mean[j]) * v
		want[i] = v
		wantSum[j], absSum[j] = wantSum[j]+v, absSum[j]+math.Abs(v)
		wantProducts[j], absProducts[j] = wantProducts[j]+p, absProducts[j]+math.Abs(p)
	}
	name := fmt.Sprintf("%d×%d, stores %v, adds %v, gates %v", rows, c, stores, adds, gates)
	var to []uint16
	if stores {
		to = g
	}
	if !adds {
		more = nil
	}
	if !gates {
		y = nil
	}
	sums := [2][]float32{slices.Clone(sum), slices.Clone(products)}
	k.BF16.GateSums(to, d, more, y, x, mean, sum, products)
	for _, over := range [][]uint16{d, more} { // in place
		if stores && len(over) > 0 {
			was := slices.Clone(over)
			k.BF16.GateSums(over, d, more, y, x, mean, sums[0], sums[1])
			if !slices.Equal(over, g) {
				t.Fatalf("%s: in place gives other numbers", name)
			}
			copy(over, was)
		}
	}
	checkG()
	checkSum()
	checkProducts()
	for i, v := range g {
		if !stores && v != 0xffff {
			t.Fatalf("%s: wrote g[%d] = %#x", name, i, v)
		}
		if stores && !nearBF16(v, want[i], 0) {
			t.Fatalf("%s: g[%d] = %v, want %v", name, i, FromBF16(v), want[i])
		}
	}
	for j := range c {
		if !near(sum[j], wantSum[j], limit(absSum[j])) || !near(products[j], wantProducts[j], limit(absProducts[j])) {
			t.Fatalf("%s: sums of channel %d are %v and %v, want %v and %v", name, j, sum[j], products[j], wantSum[j], wantProducts[j])
		}
	}
}

func TestMomentsBF16(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			normShapes(func(rows, c int) {
				x, _ := guarded16(t, rows*c)
				f.halves16(x)
				mean, _ := guarded(t, c, 1)
				sum, checkSum := guarded(t, c, 2)
				squares, checkSquares := guarded(t, c, 3)
				f.fill(mean)
				f.fill(sum)
				f.fill(squares)
				before := [][]float32{slices.Clone(sum), slices.Clone(squares)}
				k.BF16.Moments(sum, squares, x, mean)
				checkSum()
				checkSquares()
				for j := range c {
					s, q := float64(before[0][j]), float64(before[1][j])
					sAbs, qAbs := math.Abs(s), math.Abs(q)
					for i := j; i < len(x); i += c {
						d := float64(FromBF16(x[i]) - mean[j])
						s, q, sAbs, qAbs = s+d, q+d*d, sAbs+math.Abs(d), qAbs+d*d
					}
					if !near(sum[j], s, limit(sAbs)) || !near(squares[j], q, limit(qAbs)) {
						t.Fatalf("%d×%d: channel %d has %v and %v, want %v and %v", rows, c, j, sum[j], squares[j], s, q)
					}
				}
			})
		})
	})
}

// BenchmarkNorm is the kernels over maps that the second cache holds, in numbers of
// one map per second.
func BenchmarkNorm(b *testing.B) {
	const c, rows = 64, 1024
	f := filler{rng: rand.New(rand.NewPCG(1, 1)), real: true}
	maps := make([][]uint16, 5)
	for i := range maps {
		maps[i] = f.halves16(make([]uint16, rows*c))
	}
	v := make([][]float32, 4)
	for i := range v {
		v[i] = f.fill(make([]float32, c))
	}
	for _, k := range Supported() {
		for name, run := range map[string]func(){
			"normalise":     func() { k.BF16.Normalise(maps[0], maps[1], v[0], v[1], nil, nil, nil, 0) },
			"normalise+add": func() { k.BF16.Normalise(maps[0], maps[1], v[0], v[1], maps[2], v[2], v[3], 0) },
			"gate sums":     func() { k.BF16.GateSums(maps[0], maps[1], maps[2], maps[3], maps[4], v[0], v[1], v[2]) },
			"moments":       func() { k.BF16.Moments(v[1], v[2], maps[0], v[0]) },
		} {
			b.Run(fmt.Sprintf("%v/%s", k.Set, name), func(b *testing.B) {
				for b.Loop() {
					run()
				}
				b.ReportMetric(float64(b.N)*rows*c/b.Elapsed().Seconds()/1e9, "G/s")
			})
		}
	}
}
