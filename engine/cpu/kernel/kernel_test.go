package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// implemented are the sets that have kernels of their own.
var implemented = []Set{Generic, AVX2, AVX512, AVX512BF16, AMX}

// forEachSet runs a test for every implemented set. Missing hardware skips,
// unless RESIDUAL_TEST_REQUIRE names the set: then it fails.
func forEachSet(t *testing.T, test func(t *testing.T, k *Kernels)) {
	required := strings.Split(os.Getenv("RESIDUAL_TEST_REQUIRE"), ",")
	for _, set := range implemented {
		t.Run(set.String(), func(t *testing.T) {
			k := Select(set)
			switch {
			case k.Set == set:
				test(t, k)
			case slices.Contains(required, set.String()):
				t.Fatalf("RESIDUAL_TEST_REQUIRE names %v, which this machine or build does not run", set)
			default:
				t.Skipf("%v does not run here", set)
			}
		})
	}
}

// A set that RESIDUAL_TEST_REQUIRE names must exist and run here.
func TestRequiredSets(t *testing.T) {
	for name := range strings.SplitSeq(os.Getenv("RESIDUAL_TEST_REQUIRE"), ",") {
		if name == "" {
			continue
		}
		set, err := ParseSet(name)
		if err != nil {
			t.Errorf("RESIDUAL_TEST_REQUIRE: %v", err)
		} else if got := Select(set).Set; got != set {
			t.Errorf("RESIDUAL_TEST_REQUIRE names %v, but the best that runs here is %v", set, got)
		}
	}
}

// guarded returns a slice of n NaNs that starts at the given element offset
// inside a larger buffer of NaNs, and a check that the NaNs around it are still there.
func guarded(t *testing.T, n, offset int) (s []float32, check func()) {
	t.Helper()
	const guard = 32
	buf := make([]float32, guard+offset+n+guard)
	for i := range buf {
		buf[i] = float32(math.NaN())
	}
	lo, hi := guard+offset, guard+offset+n
	return buf[lo:hi:hi], func() {
		t.Helper()
		for i, v := range buf {
			if (i < lo || i >= hi) && v == v {
				t.Fatalf("n=%d offset=%d: wrote %v at element %d", n, offset, v, i-lo)
			}
		}
	}
}

// filler draws small integers, whose sums are exact in any order, or reals.
type filler struct {
	rng  *rand.Rand
	real bool
}

func (f filler) next() float32 {
	if f.real {
		return f.rng.Float32()*2 - 1
	}
	return float32(f.rng.IntN(9) - 4)
}

func (f filler) fill(s []float32) []float32 {
	for i := range s {
		s[i] = f.next()
	}
	return s
}

// bothFillers runs a test with integers and with reals; limit is the allowed
// error for a sum of absolute values: none for integers, 16 units of rounding
// for reals (measured sums stay below 3).
func bothFillers(test func(f filler, limit func(sumAbs float64) float64)) {
	const seed = 20260101
	test(filler{rng: rand.New(rand.NewPCG(seed, 1))}, func(float64) float64 { return 0 })
	test(filler{rng: rand.New(rand.NewPCG(seed, 2)), real: true}, func(sumAbs float64) float64 {
		return 16 * 0x1p-24 * sumAbs
	})
}

func near(got float32, want, limit float64) bool {
	return math.Abs(float64(got)-want) <= limit // false for NaN
}

func TestSelect(t *testing.T) {
	for _, set := range implemented {
		if got, err := ParseSet(set.String()); err != nil || got != set {
			t.Errorf("ParseSet(%v) = %v, %v", set, got, err)
		}
		if k := Select(set); k.Set > set {
			t.Errorf("Select(%v) gives %v", set, k.Set)
		}
	}
	t.Setenv("RESIDUAL_CPU", "generic")
	if k, err := FromEnvironment(); err != nil || k.Set != Generic {
		t.Errorf("RESIDUAL_CPU=generic: %v, %v", k, err)
	}
	t.Setenv("RESIDUAL_CPU", "amx") // a limit, not a demand
	if k, err := FromEnvironment(); err != nil || k.Set != Select(AMX).Set {
		t.Errorf("RESIDUAL_CPU=amx: %v, %v", k, err)
	}
	t.Setenv("RESIDUAL_CPU", "sse9")
	_, err := FromEnvironment()
	if err == nil || !strings.Contains(err.Error(), `RESIDUAL_CPU: kernel: unknown instruction set "sse9", want one of generic, avx2`) {
		t.Errorf("RESIDUAL_CPU=sse9: error %v", err)
	}
}

// Every field of every table is there.
func TestTablesAreComplete(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		functions := 0
		var check func(what string, v reflect.Value)
		check = func(what string, v reflect.Value) {
			switch v.Kind() {
			case reflect.Struct:
				for i := range v.NumField() {
					check(what+"."+v.Type().Field(i).Name, v.Field(i))
				}
			case reflect.Slice, reflect.Array:
				for i := range v.Len() {
					check(fmt.Sprintf("%s[%d]", what, i), v.Index(i))
				}
				if v.Len() == 0 {
					t.Errorf("%s is empty", what)
				}
			case reflect.Func:
				if functions++; v.IsNil() {
					t.Errorf("%s is missing", what)
				}
			}
		}
		check(k.Set.String(), reflect.ValueOf(*k))
		if functions < 60 {
			t.Errorf("%d functions were found", functions)
		}
	})
}

func TestConvTile(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for _, tile := range k.ConvTiles {
				for _, c := range []int{1, 2, 3, 4, 5, 7, 8, 10, 16, 63, 64, 130} {
					for _, taps := range []int{0, 1, 2, 4, 9} {
						testConvTile(t, tile, f, limit, c, taps, false)
						testConvTile(t, tile, f, limit, c, taps, true)
					}
				}
			}
		})
	})
}

func testConvTile(t *testing.T, tile ConvTile, f filler, limit func(float64) float64, c, ntaps int, accumulate bool) {
	t.Helper()
	rng, rows, cols := f.rng, tile.Rows, tile.Cols
	// Source pixels lie apart, NaNs between them.
	const pixels = 20
	src, _ := guarded(t, pixels*(c+1), c%4)
	for p := range pixels {
		f.fill(src[p*(c+1):][:c])
	}
	zero, checkZero := guarded(t, c, 1)
	clear(zero)
	wei, _ := guarded(t, 10*c*cols, 3)
	f.fill(wei)
	dst, checkDst := guarded(t, rows*(cols+3), 2)
	dstOff := make([]int32, rows)
	for r, p := range rng.Perm(rows) {
		dstOff[r] = int32(p * (cols + 3))
		f.fill(dst[dstOff[r]:][:cols])
	}
	before := slices.Clone(dst)
	taps := make([]int32, 0, ntaps*TapSize(rows))
	for range ntaps {
		taps = append(taps, int32(rng.IntN(10)*c*cols), -1<<30)
		for range rows {
			o := int32(rng.IntN(pixels+4)-4) * int32(c+1)
			taps = append(taps, max(o, NoPixel))
		}
	}
	tile.Run(dst, dstOff, src, zero, taps, c, wei, accumulate)
	checkDst()
	checkZero()
	written := make([]bool, len(dst))
	for r := range rows {
		for j := range cols {
			i := int(dstOff[r]) + j
			written[i] = true
			var want, sumAbs float64
			if accumulate {
				want = float64(before[i])
				sumAbs = math.Abs(want)
			}
			for n := range ntaps {
				tap := taps[n*TapSize(rows):]
				if o := tap[2+r]; o != NoPixel {
					for q := range c {
						v := float64(src[int(o)+q]) * float64(wei[int(tap[0])+q*cols+j])
						want += v
						sumAbs += math.Abs(v)
					}
				}
			}
			if !near(dst[i], want, limit(sumAbs)) {
				t.Fatalf("%d×%d c=%d taps=%d accumulate=%v: dst[%d][%d] = %v, want %v", rows, cols, c, ntaps, accumulate, r, j, dst[i], want)
			}
		}
	}
	for i, w := range written {
		if !w && dst[i] == dst[i] {
			t.Fatalf("c=%d taps=%d: wrote between the rows at %d", c, ntaps, i)
		}
	}
}

func TestOuterTile(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for _, tile := range k.OuterTiles {
				for n := range 40 {
					testOuterTile(t, tile, f, limit, n)
				}
			}
		})
	})
}

func testOuterTile(t *testing.T, tile OuterTile, f filler, limit func(float64) float64, n int) {
	t.Helper()
	rows, cols := tile.Rows, tile.Cols
	src, _ := guarded(t, 30*rows, n%4)
	dy, _ := guarded(t, 30*cols, (n+1)%4)
	dst, check := guarded(t, rows*cols, (n+2)%4)
	f.fill(src)
	f.fill(dy)
	before := slices.Clone(f.fill(dst))
	pixels := make([]int32, 0, 2*n)
	for range n {
		pixels = append(pixels, int32(f.rng.IntN(29*rows+1)), int32(f.rng.IntN(29*cols+1)))
	}
	tile.Run(dst, src, dy, pixels)
	check()
	for i := range rows {
		for j := range cols {
			want := float64(before[i*cols+j])
			sumAbs := math.Abs(want)
			for p := 0; p < len(pixels); p += 2 {
				v := float64(src[int(pixels[p])+i]) * float64(dy[int(pixels[p+1])+j])
				want += v
				sumAbs += math.Abs(v)
			}
			if !near(dst[i*cols+j], want, limit(sumAbs)) {
				t.Fatalf("%d×%d n=%d: dst[%d][%d] = %v, want %v", rows, cols, n, i, j, dst[i*cols+j], want)
			}
		}
	}
}

func TestPack(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		for _, width := range []int{1, 5, 6, 7, 8, 13, 16, 17, 32} {
			for n := range 40 {
				for _, stride := range []int{width, width + 1, 3 * width} {
					dst, check := guarded(t, n*width, n%4)
					src, _ := guarded(t, max(0, (n-1)*stride+width), stride%4)
					for i := range src {
						src[i] = float32(i)
					}
					k.Pack(dst, src, width, stride)
					check()
					for i := range dst {
						if want := float32(i/width*stride + i%width); dst[i] != want {
							t.Fatalf("width=%d n=%d stride=%d: dst[%d] = %v, want %v", width, n, stride, i, dst[i], want)
						}
					}
				}
			}
		}
	})
}

// The elementwise kernels round each operation once, in every set, so they are
// held to equality with the definition in float32 arithmetic.
func TestElementwise(t *testing.T) {
	type op struct {
		name   string
		kernel func(dst, a, b []float32)
		want   func(a, b float32) float32
	}
	nan := float32(math.NaN())
	forEachSet(t, func(t *testing.T, k *Kernels) {
		ops := []op{
			{"add", k.Add, func(a, b float32) float32 { return a + b }},
			{"sub", k.Sub, func(a, b float32) float32 { return a - b }},
			{"mul", k.Mul, func(a, b float32) float32 { return a * b }},
			{"div", k.Div, func(a, b float32) float32 { return a / b }},
			{"max", k.Max, func(a, b float32) float32 {
				if a > b {
					return a
				}
				return b
			}},
			{"gate", k.Gate, func(a, b float32) float32 {
				if b > 0 {
					return a
				}
				return 0
			}},
			{"sqrt", func(dst, a, _ []float32) { k.Sqrt(dst, a) }, func(a, _ float32) float32 { return float32(math.Sqrt(float64(a))) }},
		}
		rng := rand.New(rand.NewPCG(7, 7))
		for _, op := range ops {
			for n := range 201 {
				for offset := range 4 {
					dst, check := guarded(t, n, offset)
					a, _ := guarded(t, n, (offset+1)%4)
					b, _ := guarded(t, n, (offset+n)%4)
					filler{rng: rng, real: true}.fill(a)
					filler{rng: rng, real: n%2 == 0}.fill(b)
					if n > 20 {
						a[3], b[5], a[n-1], b[n-1], b[n-2] = nan, nan, float32(math.Inf(1)), 0, float32(math.Copysign(0, -1))
					}
					op.kernel(dst, a, b)
					check()
					for i := range dst {
						if want := op.want(a[i], b[i]); dst[i] != want && (dst[i] == dst[i] || want == want) {
							t.Fatalf("%s n=%d offset=%d: dst[%d] = %v, want %v of %v and %v", op.name, n, offset, i, dst[i], want, a[i], b[i])
						}
					}
					a1 := slices.Clone(a)
					op.kernel(a1, a1, b) // in place
					for i := range dst {
						if math.Float32bits(a1[i]) != math.Float32bits(dst[i]) && dst[i] == dst[i] {
							t.Fatalf("%s n=%d: in place gives %v at %d, want %v", op.name, n, a1[i], i, dst[i])
						}
					}
				}
			}
		}
	})
}

func TestScaleAdd(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for n := range 201 {
				for offset := range 4 {
					dst, check := guarded(t, n, offset)
					a, _ := guarded(t, n, (offset+n)%4)
					f.fill(a)
					scale, shift := f.next(), f.next()
					k.ScaleAdd(dst, a, scale, shift)
					check()
					for i, v := range a {
						product := float64(v) * float64(scale)
						if want := product + float64(shift); !near(dst[i], want, limit(math.Abs(product)+math.Abs(float64(shift)))) {
							t.Fatalf("n=%d: dst[%d] = %v, want %v", n, i, dst[i], want)
						}
					}
				}
			}
		})
	})
}

func TestChannelKernels(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for c := 1; c <= 80; c++ {
				for _, rows := range []int{0, 1, 2, 5, 33} {
					testChannelKernels(t, k, f, limit, rows, c)
				}
			}
		})
	})
}

func testChannelKernels(t *testing.T, k *Kernels, f filler, limit func(float64) float64, rows, c int) {
	t.Helper()
	x, _ := guarded(t, rows*c, c%4)
	dy, _ := guarded(t, rows*c, rows%4)
	mean, _ := guarded(t, c, 1)
	shift, _ := guarded(t, c, 2)
	f.fill(x)
	f.fill(dy)
	f.fill(mean)
	f.fill(shift)

	dst, check := guarded(t, rows*c, 3)
	k.ChannelScaleAdd(dst, x, mean, shift)
	check()
	for i := range dst {
		product := float64(x[i]) * float64(mean[i%c])
		if want := product + float64(shift[i%c]); !near(dst[i], want, limit(math.Abs(product)+math.Abs(float64(shift[i%c])))) {
			t.Fatalf("scale add, %d×%d: dst[%d] = %v, want %v", rows, c, i, dst[i], want)
		}
	}

	reductions := []struct {
		name   string
		kernel func(sum []float32)
		term   func(i int) float64
	}{
		{"sum", func(sum []float32) { k.ChannelSum(sum, x) }, func(i int) float64 { return float64(x[i]) }},
		{"squares", func(sum []float32) { k.ChannelSquares(sum, x, mean) }, func(i int) float64 {
			d := float64(x[i] - mean[i%c])
			return d * d
		}},
		{"products", func(sum []float32) { k.ChannelProducts(sum, x, mean, dy) }, func(i int) float64 {
			return float64(x[i]-mean[i%c]) * float64(dy[i])
		}},
	}
	for _, r := range reductions {
		sum, check := guarded(t, c, c%4)
		before := slices.Clone(f.fill(sum))
		r.kernel(sum)
		check()
		for j := range sum {
			want := float64(before[j])
			sumAbs := math.Abs(want)
			for i := j; i < len(x); i += c {
				want += r.term(i)
				sumAbs += math.Abs(r.term(i))
			}
			if !near(sum[j], want, limit(sumAbs)) {
				t.Fatalf("%s, %d×%d: sum[%d] = %v, want %v", r.name, rows, c, j, sum[j], want)
			}
		}
	}
}

// Maxima of few values, so that many are equal, with NaNs among them; what goes
// back must be in one place each, the first that is the maximum.
func TestWindowMax(t *testing.T) {
	nan := float32(math.NaN())
	forEachSet(t, func(t *testing.T, k *Kernels) {
		for _, nans := range []bool{false, true} {
			f := filler{rng: rand.New(rand.NewPCG(20260101, 3))}
			for c := range 41 {
				for pixels := 1; pixels < 11; pixels++ {
					testWindowMax(t, k, f, nans, nan, c, pixels)
				}
			}
		}
	})
}

func testWindowMax(t *testing.T, k *Kernels, f filler, nans bool, nan float32, c, pixels int) {
	t.Helper()
	const all = 12
	src, _ := guarded(t, all*c, c%4)
	f.fill(src)
	for i := range src {
		if nans && f.rng.IntN(20) == 0 {
			src[i] = nan
		}
	}
	var at []int32
	for _, p := range f.rng.Perm(all)[:pixels] {
		at = append(at, int32(p*c))
	}
	dst, check := guarded(t, c, pixels%4)
	k.WindowMax(dst, src, at)
	check()
	dx, checkDx := guarded(t, all*c, (c+1)%4)
	dy, _ := guarded(t, c, (c+2)%4)
	f.fill(dx)
	f.fill(dy)
	want := slices.Clone(dx)
	k.WindowMaxBackward(dx, dy, src, at)
	checkDx()
	for j := range c {
		values := make([]float64, 0, pixels) // math.Max and its NaN
		for _, o := range at {
			values = append(values, float64(src[int(o)+j]))
		}
		top := values[0]
		for _, v := range values {
			top = math.Max(top, v)
		}
		if got := float64(dst[j]); got != top && !(math.IsNaN(got) && math.IsNaN(top)) {
			t.Fatalf("%d channels: maximum of %v is %v", c, values, got)
		}
		first := slices.IndexFunc(values, func(v float64) bool { return v == top || math.IsNaN(v) })
		want[int(at[first])+j] += dy[j]
	}
	if !slices.Equal(dx, want) {
		t.Fatalf("%d channels, windows of %d: dx = %v, want %v", c, pixels, dx, want)
	}
}

func TestTileFor(t *testing.T) {
	k := &Tiles[ConvTile, OuterTile]{
		ConvTiles:  []ConvTile{{13, 32, nil}, {13, 16, nil}, {8, 32, nil}},
		OuterTiles: []OuterTile{{13, 32, nil}, {13, 16, nil}, {8, 16, nil}},
	}
	for channels, want := range map[int]int{1: 16, 16: 16, 17: 32, 32: 32, 33: 16, 48: 16, 49: 32, 64: 32, 1000: 32} {
		if got := k.ConvTileFor(channels).Cols; got != want {
			t.Errorf("%d channels: tile of %d columns, want %d", channels, got, want)
		}
	}
	for pass, want := range map[[2]int][2]int{{16, 512}: {8, 32}, {64, 256}: {13, 32}, {32, 512}: {8, 32}, {26, 64}: {13, 32}, {16, 48}: {13, 16}, {4096, 64}: {13, 32}} {
		if got := k.ConvTileOf(pass[0], pass[1]); got.Rows != want[0] || got.Cols != want[1] {
			t.Errorf("%v pixels and channels: tile of %d×%d, want %v", pass, got.Rows, got.Cols, want)
		}
	}
	for stride, want := range map[int]int{4096: 8, 8192: 8, 2048: 13, 4160: 13, 0: 13} {
		if got := k.ConvTileApart(4096, 64, stride); got.Rows != want || got.Cols != 32 {
			t.Errorf("pixels %d bytes apart: tile of %d×%d, want %d×32", stride, got.Rows, got.Cols, want)
		}
	}
	for sums, want := range map[[2]int][2]int{{3, 64}: {8, 16}, {16, 16}: {8, 16}, {32, 32}: {8, 16}, {13, 16}: {13, 16}, {64, 64}: {13, 32}, {512, 512}: {13, 32}, {21, 64}: {13, 32}} {
		if got := k.OuterTileFor(sums[0], sums[1]); got.Rows != want[0] || got.Cols != want[1] {
			t.Errorf("%v sums: tile of %d×%d, want %v", sums, got.Rows, got.Cols, want)
		}
	}
}

// FMA peak is what BenchmarkConvTile approaches: GFLOP/s of one thread with
// operands in the first cache.
func BenchmarkConvTile(b *testing.B) {
	for _, k := range Supported() {
		for _, tile := range k.ConvTiles {
			for _, c := range []int{16, 64, 512} {
				b.Run(fmt.Sprintf("%v/%d×%d/C=%d", k.Set, tile.Rows, tile.Cols, c), func(b *testing.B) {
					src := make([]float32, tile.Rows*c)
					wei := make([]float32, c*tile.Cols)
					dst := make([]float32, tile.Rows*tile.Cols)
					var dstOff, taps []int32
					for r := range tile.Rows {
						dstOff = append(dstOff, int32(r*tile.Cols))
					}
					for range 9 {
						taps = append(taps, 0, 0)
						for r := range tile.Rows {
							taps = append(taps, int32(r*c))
						}
					}
					for b.Loop() {
						tile.Run(dst, dstOff, src, src, taps, c, wei, false)
					}
					b.ReportMetric(float64(b.N)*float64(2*tile.Rows*tile.Cols*9*c)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}

func BenchmarkOuterTile(b *testing.B) {
	for _, k := range Supported() {
		for _, tile := range k.OuterTiles {
			b.Run(fmt.Sprintf("%v/%d×%d", k.Set, tile.Rows, tile.Cols), func(b *testing.B) {
				src := make([]float32, 256*tile.Rows)
				dy := make([]float32, 256*tile.Cols)
				dst := make([]float32, tile.Rows*tile.Cols)
				var pixels []int32
				for p := range 256 {
					pixels = append(pixels, int32(p*tile.Rows), int32(p*tile.Cols))
				}
				for b.Loop() {
					tile.Run(dst, src, dy, pixels)
				}
				b.ReportMetric(float64(b.N)*float64(2*tile.Rows*tile.Cols*256)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}
