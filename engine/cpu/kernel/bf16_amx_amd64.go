//go:build !purego

package kernel

import "sync"

// AMX multiplies tiles of 16 rows of 16 pairs with tiles of 16 pairs of 16
// columns. Tiles are configured and released within one call, so that no other
// code meets them, and a call takes microseconds.

//go:noescape
func pairTile32x32AMX(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)

//go:noescape
func pairTileSums32x32AMX(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)

//go:noescape
func pairTile32x16AMX(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)

//go:noescape
func pairTileSums32x16AMX(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)

//go:noescape
func pairOuterTile32x32AMX(dst []float32, src, dy []uint32, pixels []int32)

// bf16AMX packs and converts as AVX512_BF16 does, which every processor with AMX has.
var bf16AMX = func() BF16 {
	k := bf16AVX512
	k.ConvTiles = []PairTile{
		{32, 32, pairTile32x32AMX, pairTileSums32x32AMX},
		{32, 16, pairTile32x16AMX, pairTileSums32x16AMX},
	}
	k.OuterTiles = []PairOuterTile{{32, 32, pairOuterTile32x32AMX}}
	return k
}()

// amxUsable reports whether the processor has AMX, the operating system lets this
// process use it, and it computes what generic code does.
var amxUsable = sync.OnceValue(func() bool { return amxPermitted() && amxComputes() })

// amxComputes compares a small product of integers, which is exact, with the
// generic one.
func amxComputes() bool {
	const c, cols = 20, 16
	src, wei := make([]uint32, 32*c), make([]uint32, c*cols)
	for i := range src {
		src[i] = uint32(ToBF16(float32(i%7-3))) | uint32(ToBF16(float32(i%5-2)))<<16
	}
	for i := range wei {
		wei[i] = uint32(ToBF16(float32(i%11-5))) | uint32(ToBF16(float32(i%3-1)))<<16
	}
	zero := make([]uint32, c)
	got, want := make([]float32, 32*cols), make([]float32, 36*cols)
	taps, at := []int32{0, 0}, []int32{}
	for r := range 32 {
		taps, at = append(taps, int32(r*c)), append(at, int32(r*cols))
	}
	pairTileSums32x16AMX(got, at, src, zero, taps, c, wei, false)
	for r := 0; r < 32; r += 6 {
		six := []int32{0, 0}
		for q := range 6 {
			six = append(six, int32(min(r+q, 31)*c))
		}
		pairTileSumsGeneric(want[r*cols:], at[:6], src, zero, six, c, wei, false)
	}
	for i, v := range got {
		if v != want[i] {
			return false
		}
	}
	return true
}
