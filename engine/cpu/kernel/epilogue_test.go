package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// epilogueCase is a way to end: ReLU before or after the addition of more.
type epilogueCase struct {
	before, after float32
	add           bool
}

func epilogueCases() []epilogueCase {
	none := float32(math.Inf(-1))
	return []epilogueCase{{none, none, false}, {0, none, false}, {none, 0, false}, {none, none, true}, {0, none, true}, {none, 0, true}, {0, 0, true}}
}

// want is what an epilogue makes of a sum.
func (c epilogueCase) want(sum, bias, more float64) float64 {
	v := sum + bias
	if c.before == 0 && v < 0 {
		v = 0
	}
	if c.add {
		v += more
	}
	if c.after == 0 && v < 0 {
		v = 0
	}
	return v
}

// halfOf rounds numbers to bfloat16, and keeps a copy of them as they are then.
func halfOf(wide []float32) []uint16 {
	half := make([]uint16, len(wide))
	narrowGeneric(half, wide)
	widenGeneric(wide, half)
	return half
}

var epilogueChannels = []int{1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 40, 65}

// Rows go to their places, NoPixel to none; a row may be given twice.
func TestEpilogue(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for _, c := range epilogueChannels {
				for _, e := range epilogueCases() {
					const rows = 7
					src, _ := guarded(t, rows*(c+2), 1)
					f.fill(src)
					bias, _ := guarded(t, c, 3)
					f.fill(bias)
					var from, at []int32
					for r, p := range f.rng.Perm(rows) {
						from, at = append(from, int32(r*(c+2))), append(at, int32(p*(c+1)))
					}
					from[6], at[6] = from[5], at[5]
					at[2] = NoPixel
					more, _ := guarded(t, rows*(c+1), 2)
					f.fill(more)
					half := halfOf(more)
					if !e.add {
						more, half = nil, nil
					}
					dst, check := guarded(t, rows*(c+1), 1)
					k.Epilogue(dst, src, from, at, more, bias, e.before, e.after)
					check()
					dst16, check16 := guarded16(t, rows*(c+1))
					k.BF16.Epilogue(dst16, src, from, at, half, bias, e.before, e.after)
					check16()
					written := 0
					for i := range dst {
						if dst[i] == dst[i] {
							written++
						}
						if (dst16[i] != 0xffff) != (dst[i] == dst[i]) {
							t.Fatalf("%+v, C=%d: element %d is %v and, in bfloat16, %#x", e, c, i, dst[i], dst16[i])
						}
					}
					if written != 5*c {
						t.Fatalf("%+v, C=%d: %d elements written, want %d", e, c, written, 5*c)
					}
					for r, o := range at {
						if o == NoPixel {
							continue
						}
						for j := range c {
							s, b, m := float64(src[int(from[r])+j]), float64(bias[j]), 0.0
							if e.add {
								m = float64(more[int(o)+j])
							}
							want := e.want(s, b, m)
							if got := dst[int(o)+j]; !near(got, want, limit(math.Abs(s)+math.Abs(b)+math.Abs(m))) {
								t.Fatalf("%+v, C=%d: row %d, channel %d is %v, want %v", e, c, r, j, got, want)
							}
							if got := dst16[int(o)+j]; got != ToBF16(dst[int(o)+j]) {
								t.Fatalf("%+v, C=%d: row %d, channel %d is %v in bfloat16, want %v", e, c, r, j, FromBF16(got), dst[int(o)+j])
							}
						}
					}
				}
			}
		})
	})
}

// A sum that is not a number stays one, past both bounds.
func TestEpilogueKeepsNaN(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		const c = 19
		nan := float32(math.NaN())
		src, bias, at := make([]float32, c), make([]float32, c), []int32{0}
		planes := make([]float32, 36*c)
		for i := range src {
			src[i] = nan
		}
		for i := range planes {
			planes[i] = nan
		}
		for _, e := range epilogueCases() {
			more, half := make([]float32, c), make([]uint16, c)
			if !e.add {
				more, half = nil, nil
			}
			dst, dst16 := make([]float32, c), make([]uint16, c)
			seen := func(what string) {
				t.Helper()
				for i := range dst {
					if v := FromBF16(dst16[i]); dst[i] == dst[i] || v == v {
						t.Fatalf("%+v: element %d of %s is %v, and %v in bfloat16", e, i, what, dst[i], v)
					}
				}
				clear(dst)
				clear(dst16)
			}
			k.Epilogue(dst, src, at, at, more, bias, e.before, e.after)
			k.BF16.Epilogue(dst16, src, at, at, half, bias, e.before, e.after)
			seen("an epilogue")
			one := []int32{0, NoPixel, NoPixel, NoPixel}
			k.Winograd.OutputEpilogue(dst, planes, one, c, c, more, bias, e.before, e.after)
			k.BF16.Winograd.OutputEpilogue(dst16, planes, one, c, c, half, bias, e.before, e.after)
			seen("an output")
			one = slices.Repeat([]int32{NoPixel}, 16)
			one[5] = 0
			k.Winograd4.OutputEpilogue(dst, planes, one, c, c, more, bias, e.before, e.after)
			k.BF16.Winograd4.OutputEpilogue(dst16, planes, one, c, c, half, bias, e.before, e.after)
			seen("an output of 4×4")
			k.Stride2.Phases[0].OutputEpilogue(dst, planes, one, c, c, more, bias, e.before, e.after)
			narrowGeneric(dst16, dst)
			seen("an output of stride 2")
		}
	})
}

func TestWinogradOutputEpilogue(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			for _, c := range epilogueChannels {
				for _, e := range epilogueCases() {
					testOutputEpilogue(t, k.Winograd.OutputEpilogue, k.BF16.Winograd.OutputEpilogue, matrixAT, f, limit, c, e)
					if f.real {
						testOutputEpilogue(t, k.Winograd4.OutputEpilogue, k.BF16.Winograd4.OutputEpilogue, matrices4.output, f, limit, c, e)
						testOutputEpilogue(t, k.Stride2.Phases[0].OutputEpilogue, nil, stride2Matrices().output, f, limit, c, e)
					}
				}
			}
		})
	})
}

// testOutputEpilogue tests one algorithm, whose output transform is m·x·mᵀ, and its
// version for bfloat16, if there is one.
func testOutputEpilogue(t *testing.T,
	run func(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32),
	run16 func(dst []uint16, src []float32, at []int32, stride, plane int, add []uint16, bias []float32, before, after float32), m [][]float64, f filler, limit func(float64) float64, c int, e epilogueCase) {
	t.Helper()
	const tiles = 6
	outputs, planes := len(m)*len(m), len(m[0])*len(m[0])
	stride := c + c%3
	plane := tiles*stride + 5
	src, _ := guarded(t, planes*plane, c%4)
	f.fill(src)
	bias, _ := guarded(t, c, 1)
	f.fill(bias)
	more, _ := guarded(t, outputs*tiles*(c+1), 3)
	f.fill(more)
	half := halfOf(more)
	if !e.add {
		more, half = nil, nil
	}
	dst, check := guarded(t, outputs*tiles*(c+1), 2)
	dst16, check16 := guarded16(t, outputs*tiles*(c+1))
	at := someTiles(f.rng, tiles, outputs, c)
	run(dst, src, at, stride, plane, more, bias, e.before, e.after)
	check()
	if run16 != nil {
		run16(dst16, src, at, stride, plane, half, bias, e.before, e.after)
		check16()
	} else {
		narrowGeneric(dst16, dst)
	}
	written, stored := 0, 0
	for tile := range tiles {
		for j := range c {
			x := make([]float64, planes)
			for i := range x {
				x[i] = float64(src[i*plane+tile*stride+j])
			}
			sums, abs := sandwich(m, x)
			for i, sum := range sums {
				o := int(at[outputs*tile+i])
				if o == NoPixel {
					continue
				}
				stored++
				b, added := float64(bias[j]), 0.0
				if e.add {
					added = float64(more[o+j])
				}
				want, allowed := e.want(sum, b, added), limit(abs[i]+math.Abs(b)+math.Abs(added))
				if got := dst[o+j]; !near(got, want, allowed) {
					t.Fatalf("%+v, C=%d: tile %d, channel %d, output %d is %v, want %v", e, c, tile, j, i, got, want)
				}
				// bfloat16: half a unit of rounding more, which is 2⁻⁹ of the result and more.
				if got := FromBF16(dst16[o+j]); !near(got, want, allowed+0x1p-8*math.Abs(want)) {
					t.Fatalf("%+v, C=%d: tile %d, channel %d, output %d is %v in bfloat16, want %v", e, c, tile, j, i, got, want)
				}
			}
		}
	}
	for i, v := range dst {
		if v == v {
			written++
		}
		if half := FromBF16(dst16[i]); (half == half) != (v == v) {
			t.Fatalf("%+v, C=%d: element %d is %v and, in bfloat16, %#x", e, c, i, v, dst16[i])
		}
	}
	if written != stored || stored == 0 {
		t.Errorf("%+v, C=%d: %d elements written, want %d", e, c, written, stored)
	}
}

// someTiles are offsets of the pixels of tiles in random order, c+1 elements
// apart, without some and without a whole tile.
func someTiles(rng *rand.Rand, tiles, pixels, c int) []int32 {
	var at []int32
	for i, p := range rng.Perm(pixels * tiles) {
		if i%7 == 3 || i/pixels == 2 {
			at = append(at, NoPixel)
		} else {
			at = append(at, int32(p*(c+1)))
		}
	}
	return at
}
