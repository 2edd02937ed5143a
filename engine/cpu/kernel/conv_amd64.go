//go:build !purego

package kernel

// convTileAVX2 is convTileGeneric with fused multiply-adds: twelve vectors of
// eight sums stay in registers over all taps and channels.
//
//go:noescape
func convTileAVX2(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool)

// outerTileAVX2 is outerTileGeneric with fused multiply-adds.
//
//go:noescape
func outerTileAVX2(dst, src, dy []float32, pixels []int32)

// The AVX-512 tiles are those of generic Go with 13 rows and 32 or 16 columns,
// and with fused multiply-adds: a row is two vectors of sums, or one.

//go:noescape
func convTile13x32AVX512(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool)

// convTile8x32AVX512 is for few pixels.
//
//go:noescape
func convTile8x32AVX512(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool)

//go:noescape
func convTile13x16AVX512(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool)

//go:noescape
func outerTile13x32AVX512(dst, src, dy []float32, pixels []int32)

//go:noescape
func outerTile13x16AVX512(dst, src, dy []float32, pixels []int32)

// outerTile8x16AVX512 is for few channels.
//
//go:noescape
func outerTile8x16AVX512(dst, src, dy []float32, pixels []int32)

// epilogueAVX2 is epilogueGeneric on the first eight·n channels, epilogueAVX512 on
// all.
//
//go:noescape
func epilogueAVX2(dst, src []float32, from, at []int32, add, bias []float32, before, after float32)

//go:noescape
func epilogueAVX512(dst, src []float32, from, at []int32, add, bias []float32, before, after float32)

func epilogueVector(dst, src []float32, from, at []int32, add, bias []float32, before, after float32) {
	epilogueAVX2(dst, src, from, at, add, bias, before, after)
	if done := len(bias) &^ 7; done < len(bias) {
		epilogueGeneric(dst[done:], src[done:], from, at, add[min(done, len(add)):], bias[done:], before, after)
	}
}

// pack16AVX2 and its like are packGeneric for the widths of a tile.
//
//go:noescape
func pack16AVX2(dst, src []float32, stride int)

//go:noescape
func pack6AVX2(dst, src []float32, stride int)

//go:noescape
func pack32AVX512(dst, src []float32, stride int)

//go:noescape
func pack13AVX512(dst, src []float32, stride int)

//go:noescape
func pack8AVX512(dst, src []float32, stride int)

func packAVX2(dst, src []float32, width, stride int) {
	switch width {
	case 16:
		pack16AVX2(dst, src, stride)
	case 6:
		pack6AVX2(dst, src, stride)
	default:
		packGeneric(dst, src, width, stride)
	}
}

func packAVX512(dst, src []float32, width, stride int) {
	switch width {
	case 32:
		pack32AVX512(dst, src, stride)
	case 13:
		pack13AVX512(dst, src, stride)
	case 8:
		pack8AVX512(dst, src, stride)
	default:
		packAVX2(dst, src, width, stride)
	}
}
