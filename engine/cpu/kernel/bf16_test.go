package kernel

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// nearestBF16 rounds by the definition: the nearest number of 8 significant bits,
// to even between two.
func nearestBF16(v float32) uint16 {
	f := new(big.Float).SetMode(big.ToNearestEven).SetPrec(8).SetFloat64(float64(v))
	r, _ := f.Float32()
	return uint16(math.Float32bits(r) >> 16)
}

func TestToBF16(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		in   float32
		want uint16
	}{
		{0, 0}, {float32(math.Copysign(0, -1)), 0x8000}, {1, 0x3f80}, {-2, 0xc000}, {inf, 0x7f80}, {-inf, 0xff80},
		{1 + 0x1p-8, 0x3f80}, {1 + 0x3p-8, 0x3f82}, {1 + 0x1p-8 + 0x1p-20, 0x3f81}, // between two: to even
		{math.MaxFloat32, 0x7f80},
	} {
		if got := ToBF16(c.in); got != c.want {
			t.Errorf("ToBF16(%v) = %#x, want %#x", c.in, got, c.want)
		}
	}
	for _, bits := range []uint32{0x7fc00000, 0x7f800001, 0xff80ffff} {
		if got := FromBF16(ToBF16(math.Float32frombits(bits))); got == got {
			t.Errorf("NaN %#x becomes %v", bits, got)
		}
	}
	rng := rand.New(rand.NewPCG(3, 1))
	for range 10000 {
		v := math.Float32frombits(rng.Uint32())
		if e := math.Float32bits(v) >> 23 & 0xff; e == 0 || e >= 254 {
			continue
		}
		if got, want := ToBF16(v), nearestBF16(v); got != want {
			t.Fatalf("ToBF16(%v) = %#x, want %#x", v, got, want)
		}
	}
}

// guarded16 and guarded32 are guarded for the words of bfloat16 kernels: n words of
// 0xffff, which are NaN, between others, and a check that these are still there.
func guarded16(t *testing.T, n int) (s []uint16, check func()) {
	t.Helper()
	return guardedWords[uint16](t, n, 0xffff)
}

func guarded32(t *testing.T, n int) (s []uint32, check func()) {
	t.Helper()
	return guardedWords[uint32](t, n, 0xffffffff)
}

func guardedWords[T uint16 | uint32](t *testing.T, n int, nan T) (s []T, check func()) {
	const guard = 64
	buf := make([]T, guard+n+guard)
	for i := range buf {
		buf[i] = nan
	}
	return buf[guard : guard+n : guard+n], func() {
		t.Helper()
		for i, v := range buf {
			if (i < guard || i >= guard+n) && v != nan {
				t.Fatalf("n=%d: wrote %#x at element %d", n, v, i-guard)
			}
		}
	}
}

// pairs fills words with pairs of numbers that bfloat16 holds.
func (f filler) pairs(s []uint32) {
	for i := range s {
		s[i] = uint32(ToBF16(f.next())) | uint32(ToBF16(f.next()))<<16
	}
}

// dot is the sum of the two products of pairs, and of their absolute values.
func dot(a, b uint32) (sum, abs float64) {
	a0, a1 := halves(a)
	b0, b1 := halves(b)
	p, q := float64(a0)*float64(b0), float64(a1)*float64(b1)
	return p + q, math.Abs(p) + math.Abs(q)
}

func TestPairTile(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for _, tile := range k.BF16.ConvTiles {
				for _, c := range []int{1, 2, 3, 5, 8, 31, 32, 65} {
					for _, taps := range []int{0, 1, 2, 9} {
						testPairTile(t, tile, f, limit, c, taps, false)
						testPairTile(t, tile, f, limit, c, taps, true)
					}
				}
			}
		})
	})
}

// testPairTile compares Sums with float64, and Run with Sums rounded.
func testPairTile(t *testing.T, tile PairTile, f filler, limit func(float64) float64, c, ntaps int, accumulate bool) {
	t.Helper()
	rng, rows, cols := f.rng, tile.Rows, tile.Cols
	const pixels = 20
	src, _ := guarded32(t, pixels*(c+1))
	for p := range pixels {
		f.pairs(src[p*(c+1):][:c])
	}
	zero := make([]uint32, c)
	wei, _ := guarded32(t, 10*c*cols)
	f.pairs(wei)
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
			taps = append(taps, max(int32(rng.IntN(pixels+4)-4)*int32(c+1), NoPixel))
		}
	}
	tile.Sums(dst, dstOff, src, zero, taps, c, wei, accumulate)
	checkDst()
	rounded, checkRounded := guarded16(t, len(dst))
	tile.Run(rounded, dstOff, src, zero, taps, c, wei)
	checkRounded()
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
						sum, abs := dot(src[int(o)+q], wei[int(tap[0])+q*cols+j])
						want += sum
						sumAbs += abs
					}
				}
			}
			if !near(dst[i], want, limit(sumAbs)) {
				t.Fatalf("%d×%d c=%d taps=%d accumulate=%v: dst[%d][%d] = %v, want %v", rows, cols, c, ntaps, accumulate, r, j, dst[i], want)
			}
			if !accumulate && math.Abs(float64(dst[i])) > 0x1p-120 && rounded[i] != ToBF16(dst[i]) {
				t.Fatalf("%d×%d c=%d taps=%d: rounded to %v, want %v of %v", rows, cols, c, ntaps, FromBF16(rounded[i]), FromBF16(ToBF16(dst[i])), dst[i])
			}
		}
	}
	for i, w := range written {
		if !w && (dst[i] == dst[i] || rounded[i] != 0xffff) {
			t.Fatalf("c=%d taps=%d: wrote between the rows at %d", c, ntaps, i)
		}
	}
}

func TestPairOuterTile(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for _, tile := range k.BF16.OuterTiles {
				for n := range 40 {
					rows, cols := tile.Rows, tile.Cols
					src, _ := guarded32(t, 30*rows)
					dy, _ := guarded32(t, 30*cols)
					dst, check := guarded(t, rows*cols, (n+2)%4)
					f.pairs(src)
					f.pairs(dy)
					before := slices.Clone(f.fill(dst))
					pixels := make([]int32, 0, 2*n)
					for range n {
						pixels = append(pixels, int32(f.rng.IntN(29*rows+1)), int32(f.rng.IntN(29*cols+1)))
					}
					tile.Run(dst, src, dy, pixels)
					check()
					for i := range dst {
						want := float64(before[i])
						sumAbs := math.Abs(want)
						for p := 0; p < len(pixels); p += 2 {
							sum, abs := dot(src[int(pixels[p])+i/cols], dy[int(pixels[p+1])+i%cols])
							want += sum
							sumAbs += abs
						}
						if !near(dst[i], want, limit(sumAbs)) {
							t.Fatalf("%d×%d n=%d: dst[%d] = %v, want %v", rows, cols, n, i, dst[i], want)
						}
					}
				}
			}
		})
	})
}

func TestBF16Packing(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		f := filler{rng: rand.New(rand.NewPCG(5, 5)), real: true}
		for _, width := range []int{6, 8, 13, 16, 32} {
			for valid := 1; valid <= width; valid++ {
				for rows := range 5 {
					stride := valid + rows%3
					dst, check := guarded32(t, rows*width)
					src, _ := guarded(t, max(0, (2*rows-1)*stride+valid), rows)
					f.fill(src)
					k.BF16.PackRows(dst, src, width, valid, stride)
					check()
					for i, got := range dst {
						want := uint32(0)
						if j := i % width; j < valid {
							at := i/width*2*stride + j
							want = uint32(ToBF16(src[at])) | uint32(ToBF16(src[at+stride]))<<16
						}
						if got != want {
							t.Fatalf("rows, width=%d valid=%d: dst[%d] = %#x, want %#x", width, valid, i, got, want)
						}
					}

					a, _ := guarded16(t, max(0, (rows-1)*stride+valid))
					b, _ := guarded16(t, len(a))
					for i := range a {
						a[i], b[i] = uint16(f.rng.Uint32()), uint16(f.rng.Uint32())
					}
					for _, b := range [][]uint16{b, nil} {
						dst, check := guarded32(t, rows*width)
						k.BF16.PackImages(dst, a, b, width, valid, stride)
						check()
						for i, got := range dst {
							want := uint32(0)
							if j := i % width; j < valid {
								want = uint32(a[i/width*stride+j])
								if b != nil {
									want |= uint32(b[i/width*stride+j]) << 16
								}
							}
							if got != want {
								t.Fatalf("images, width=%d valid=%d: dst[%d] = %#x, want %#x", width, valid, i, got, want)
							}
						}
					}
				}
			}
		}
	})
}

func TestBF16Conversions(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		f := filler{rng: rand.New(rand.NewPCG(6, 6)), real: true}
		for n := range 200 {
			src, _ := guarded(t, n, n%4)
			f.fill(src)
			if n > 5 {
				src[1], src[n-1] = float32(math.Inf(-1)), float32(math.NaN())
			}
			dst, check := guarded16(t, n)
			k.BF16.Narrow(dst, src)
			check()
			for i, got := range dst {
				if want := ToBF16(src[i]); got != want && src[i] == src[i] || src[i] != src[i] && FromBF16(got) == FromBF16(got) {
					t.Fatalf("n=%d: %v becomes %v", n, src[i], FromBF16(got))
				}
			}
			wide, check := guarded(t, n, (n+1)%4)
			k.BF16.Widen(wide, dst)
			check()
			for i, got := range wide {
				if want := FromBF16(dst[i]); got != want && want == want {
					t.Fatalf("n=%d: dst[%d] = %v, want %v", n, i, got, want)
				}
			}
		}
	})
}

// The transforms between bfloat16 are those of float32, which have a test of their
// own, on widened numbers and with rounded results.
func TestWinogradBF16(t *testing.T) {
	const pixels, tiles = 30, 5
	forEachSet(t, func(t *testing.T, k *Kernels) {
		rng := rand.New(rand.NewPCG(8, 8))
		f := filler{rng: rng, real: true}
		for _, c := range []int{1, 2, 15, 16, 17, 32, 50} {
			stride := c + c%5
			plane := tiles*stride + 3
			src := make([]uint16, pixels*c)
			for i := range src {
				src[i] = ToBF16(f.next())
			}
			wide := make([]float32, len(src))
			widenGeneric(wide, src)
			zero := make([]uint16, c)
			offsets := func(n int) []int32 {
				var o []int32
				for range n {
					o = append(o, max(NoPixel, int32(rng.IntN(pixels+6)-6)*int32(c)))
				}
				return o
			}
			compare := func(what string, got []uint16, want []float32) {
				t.Helper()
				for i, v := range want {
					if rounded := ToBF16(v); v == v && got[i] != rounded || v != v && got[i] != 0xffff {
						t.Fatalf("%s, c=%d: element %d is %v, want %v", what, c, i, FromBF16(got[i]), FromBF16(rounded))
					}
				}
			}
			for _, p := range []struct {
				what   string
				size   int
				planes int
				run    func(dst, src, zero []uint16, patches []int32, c, stride, plane int)
				wide   func(dst, src, zero []float32, patches []int32, c, stride, plane int)
			}{
				{"input", 16, 16, k.BF16.Winograd.Input, winogradInputGeneric},
				{"gradient", 4, 16, k.BF16.Winograd.Gradient, winogradGradientGeneric},
				{"input of 4×4", 36, 36, k.BF16.Winograd4Pairs, func(dst, _, _ []float32, patches []int32, c, stride, plane int) {
					k.BF16.Winograd4.Input(dst, src, zero, patches, c, stride, plane) // which has a test of its own
				}},
			} {
				patches := offsets(tiles * p.size)
				got, check := guarded16(t, p.planes*plane)
				want, _ := guarded(t, p.planes*plane, 0)
				p.run(got, src, zero, patches, c, stride, plane)
				check()
				p.wide(want, wide, nil, patches, c, stride, plane)
				compare(p.what, got, want)
			}

			sums := f.fill(make([]float32, 16*plane))
			at := make([]int32, 0, 4*tiles)
			for _, pixel := range rng.Perm(pixels)[:4*tiles] {
				at = append(at, int32(pixel*c))
			}
			at[3], at[9] = NoPixel, NoPixel
			got, check := guarded16(t, pixels*c)
			want, _ := guarded(t, pixels*c, 0)
			k.BF16.Winograd.Output(got, sums, at, c, stride, plane)
			check()
			winogradOutputGeneric(want, sums, at, c, stride, plane)
			compare("output", got, want)
		}
	})
}
