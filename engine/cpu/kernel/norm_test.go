package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// guardedMap is guarded or guarded16.
func guardedMap[T Number](t *testing.T, n int) (s []T, check func()) {
	if unsafe.Sizeof(s[0]) == 4 {
		f, check := guarded(t, n, 0)
		return any(f).([]T), check
	}
	h, check := guarded16(t, n)
	return any(h).([]T), check
}

// fillMap fills s with numbers that T holds.
func fillMap[T Number](f filler, s []T) []T {
	for i := range s {
		s[i] = rounded[T](f.next())
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

// nearNumber says whether got is want, but for limit, and in bfloat16 half a unit of its
// last place on top.
func nearNumber[T Number](got T, want, limit float64) bool {
	if unsafe.Sizeof(got) == 2 {
		limit += math.Abs(want) * 0x1p-8
	}
	return near(number(got), want, limit)
}

// normCase is a shape and the numbers in it.
type normCase struct {
	f       filler
	limit   func(sumAbs float64) float64
	rows, c int
}

// forEachNorm runs a test of kernels for float32 and one of those for bfloat16.
func forEachNorm(t *testing.T, float func(*testing.T, *Norm[float32], normCase), half func(*testing.T, *Norm[uint16], normCase)) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			normShapes(func(rows, c int) {
				float(t, &k.Norm, normCase{f, limit, rows, c})
				half(t, &k.BF16.Norm, normCase{f, limit, rows, c})
			})
		})
	})
}

func TestNormalise(t *testing.T) { forEachNorm(t, testNormalise[float32], testNormalise[uint16]) }

func testNormalise[T Number](t *testing.T, k *Norm[T], n normCase) {
	t.Helper()
	rows, c := n.rows, n.c
	x, _ := guardedMap[T](t, rows*c)
	add, _ := guardedMap[T](t, rows*c)
	fillMap(n.f, x)
	fillMap(n.f, add)
	vectors := make([][]float32, 4) // scale, shift, addScale, addShift
	for i := range vectors {
		vectors[i], _ = guarded(t, c, i)
		n.f.fill(vectors[i])
	}
	for _, low := range []float32{0, float32(math.Inf(-1))} {
		for _, with := range [][]T{nil, add} {
			dst, check := guardedMap[T](t, rows*c)
			k.Normalise(dst, x, vectors[0], vectors[1], with, vectors[2], vectors[3], low)
			check()
			for i := range dst {
				j := i % c
				p := float64(number(x[i])) * float64(vectors[0][j])
				want, abs := p+float64(vectors[1][j]), math.Abs(p)+math.Abs(float64(vectors[1][j]))
				if with != nil {
					p := float64(number(add[i])) * float64(vectors[2][j])
					want, abs = want+p+float64(vectors[3][j]), abs+math.Abs(p)+math.Abs(float64(vectors[3][j]))
				}
				want = math.Max(want, float64(low))
				// Sums of products of small integers have at most 8 bits: no rounding.
				if exact := n.limit(1) == 0; exact && float64(number(dst[i])) != want || !nearNumber(dst[i], want, n.limit(abs)) {
					t.Fatalf("%d×%d, add %v, low %v: dst[%d] = %v, want %v", rows, c, with != nil, low, i, number(dst[i]), want)
				}
			}
			overX, overAdd := slices.Clone(x), slices.Clone(add)
			k.Normalise(overX, overX, vectors[0], vectors[1], with, vectors[2], vectors[3], low)
			if with != nil {
				k.Normalise(overAdd, x, vectors[0], vectors[1], overAdd, vectors[2], vectors[3], low)
			}
			if !slices.Equal(overX, dst) || with != nil && !slices.Equal(overAdd, dst) {
				t.Fatalf("%d×%d: in place gives other numbers", rows, c)
			}
		}
	}
	if rows*c > 0 {
		x[rows*c-1] = rounded[T](float32(math.NaN()))
		k.Normalise(x, x, vectors[0], vectors[1], nil, nil, nil, 0)
		if v := number(x[rows*c-1]); v == v {
			t.Fatalf("%d×%d: NaN becomes %v", rows, c, v)
		}
	}
}

func TestGateSums(t *testing.T) { forEachNorm(t, testGateSums[float32], testGateSums[uint16]) }

func testGateSums[T Number](t *testing.T, k *Norm[T], n normCase) {
	t.Helper()
	for given := range 8 {
		testGateSumsOf(t, k, n, given&1 != 0, given&2 != 0, given&4 != 0)
	}
}

func testGateSumsOf[T Number](t *testing.T, k *Norm[T], n normCase, stores, adds, gates bool) {
	t.Helper()
	f, limit, rows, c := n.f, n.limit, n.rows, n.c
	maps := make([][]T, 4) // d, more, y, x
	for i := range maps {
		maps[i], _ = guardedMap[T](t, rows*c)
		fillMap(f, maps[i])
	}
	d, more, y, x := maps[0], maps[1], maps[2], maps[3]
	if rows*c > 2 {
		// NaN and -0 let nothing through.
		y[rows*c-1], y[rows*c-2] = rounded[T](float32(math.NaN())), rounded[T](float32(math.Copysign(0, -1)))
	}
	g, checkG := guardedMap[T](t, rows*c)
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
		j, v := i%c, float64(number(d[i]))
		if adds {
			v += float64(number(more[i]))
		}
		if gates && !(number(y[i]) > 0) {
			v = 0
		}
		p := float64(number(x[i])-mean[j]) * v
		want[i] = v
		wantSum[j], absSum[j] = wantSum[j]+v, absSum[j]+math.Abs(v)
		wantProducts[j], absProducts[j] = wantProducts[j]+p, absProducts[j]+math.Abs(p)
	}
	name := fmt.Sprintf("%d×%d, stores %v, adds %v, gates %v", rows, c, stores, adds, gates)
	var to []T
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
	k.GateSums(to, d, more, y, x, mean, sum, products)
	for _, over := range [][]T{d, more} { // in place
		if stores && len(over) > 0 {
			was := slices.Clone(over)
			k.GateSums(over, d, more, y, x, mean, sums[0], sums[1])
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
		if v := number(v); !stores && v == v {
			t.Fatalf("%s: wrote g[%d] = %v", name, i, v)
		}
		if stores && !nearNumber(v, want[i], limit(math.Abs(want[i]))) {
			t.Fatalf("%s: g[%d] = %v, want %v", name, i, number(v), want[i])
		}
	}
	for j := range c {
		if !near(sum[j], wantSum[j], limit(absSum[j])) || !near(products[j], wantProducts[j], limit(absProducts[j])) {
			t.Fatalf("%s: sums of channel %d are %v and %v, want %v and %v", name, j, sum[j], products[j], wantSum[j], wantProducts[j])
		}
	}
}

func TestMoments(t *testing.T) { forEachNorm(t, testMoments[float32], testMoments[uint16]) }

func testMoments[T Number](t *testing.T, k *Norm[T], n normCase) {
	t.Helper()
	f, limit, rows, c := n.f, n.limit, n.rows, n.c
	x, _ := guardedMap[T](t, rows*c)
	fillMap(f, x)
	mean, _ := guarded(t, c, 1)
	sum, checkSum := guarded(t, c, 2)
	squares, checkSquares := guarded(t, c, 3)
	f.fill(mean)
	f.fill(sum)
	f.fill(squares)
	before := [][]float32{slices.Clone(sum), slices.Clone(squares)}
	k.Moments(sum, squares, x, mean)
	checkSum()
	checkSquares()
	for j := range c {
		s, q := float64(before[0][j]), float64(before[1][j])
		sAbs, qAbs := math.Abs(s), math.Abs(q)
		for i := j; i < len(x); i += c {
			d := float64(number(x[i]) - mean[j])
			s, q, sAbs, qAbs = s+d, q+d*d, sAbs+math.Abs(d), qAbs+d*d
		}
		if !near(sum[j], s, limit(sAbs)) || !near(squares[j], q, limit(qAbs)) {
			t.Fatalf("%d×%d: channel %d has %v and %v, want %v and %v", rows, c, j, sum[j], squares[j], s, q)
		}
	}
}

// BenchmarkNorm is the kernels over maps that the second cache holds, in numbers of
// one map per second.
func BenchmarkNorm(b *testing.B) {
	for _, k := range Supported() {
		benchmarkNorm(b, k.Set.String()+"/float32", &k.Norm)
		benchmarkNorm(b, k.Set.String()+"/bfloat16", &k.BF16.Norm)
	}
}

func benchmarkNorm[T Number](b *testing.B, set string, k *Norm[T]) {
	const c, rows = 64, 512
	f := filler{rng: rand.New(rand.NewPCG(1, 1)), real: true}
	maps := make([][]T, 5)
	for i := range maps {
		maps[i] = fillMap(f, make([]T, rows*c))
	}
	v := make([][]float32, 4)
	for i := range v {
		v[i] = f.fill(make([]float32, c))
	}
	for _, kernel := range []struct {
		name string
		run  func()
	}{
		{"normalise", func() { k.Normalise(maps[0], maps[1], v[0], v[1], nil, nil, nil, 0) }},
		{"normalise+add", func() { k.Normalise(maps[0], maps[1], v[0], v[1], maps[2], v[2], v[3], 0) }},
		{"gate sums", func() { k.GateSums(maps[0], maps[1], maps[2], maps[3], maps[4], v[0], v[1], v[2]) }},
		{"moments", func() { k.Moments(v[1], v[2], maps[0], v[0]) }},
	} {
		b.Run(set+"/"+kernel.name, func(b *testing.B) {
			for b.Loop() {
				kernel.run()
			}
			b.ReportMetric(float64(b.N)*rows*c/b.Elapsed().Seconds()/1e9, "G/s")
		})
	}
}
