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

// pack16AVX2 and pack6AVX2 are packGeneric for the widths of a tile.
//
//go:noescape
func pack16AVX2(dst, src []float32, stride int)

//go:noescape
func pack6AVX2(dst, src []float32, stride int)

func packVector(dst, src []float32, width, stride int) {
	switch width {
	case 16:
		pack16AVX2(dst, src, stride)
	case 6:
		pack6AVX2(dst, src, stride)
	default:
		packGeneric(dst, src, width, stride)
	}
}
