//go:build !purego

package kernel

//go:noescape
func pairTile13x32AVX512(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)

//go:noescape
func pairTileSums13x32AVX512(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)

// pairTile8x32AVX512 and pairTileSums8x32AVX512 are for few pixels.
//
//go:noescape
func pairTile8x32AVX512(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)

//go:noescape
func pairTileSums8x32AVX512(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)

//go:noescape
func pairTile13x16AVX512(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)

//go:noescape
func pairTileSums13x16AVX512(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)

//go:noescape
func pairOuterTile13x32AVX512(dst []float32, src, dy []uint32, pixels []int32)

//go:noescape
func pairOuterTile13x16AVX512(dst []float32, src, dy []uint32, pixels []int32)

//go:noescape
func pairOuterTile8x16AVX512(dst []float32, src, dy []uint32, pixels []int32)

// packRows16AVX512 and packRows32AVX512 are packRowsGeneric for a width of which
// all elements exist.
//
//go:noescape
func packRows16AVX512(dst []uint32, src []float32, stride int)

//go:noescape
func packRows32AVX512(dst []uint32, src []float32, stride int)

// packImages16AVX512 is packImagesGeneric for widths to 16, packImages32AVX512
// for widths to 32. The bits of load and store are the elements to load and the
// pairs to store of each row.
//
//go:noescape
func packImages16AVX512(dst []uint32, a, b []uint16, width, stride int, load, store uint32)

//go:noescape
func packImages32AVX512(dst []uint32, a, b []uint16, width, stride int, load, store uint32)

//go:noescape
func narrowAVX512(dst []uint16, src []float32)

//go:noescape
func widenAVX512(dst []float32, src []uint16)

// The transforms in assembly work on whole vectors of 16 channels.

//go:noescape
func winogradInputBF16(dst, src, zero []uint16, patches []int32, c, stride, plane int)

//go:noescape
func winogradGradientBF16(dst, src, zero []uint16, patches []int32, c, stride, plane int)

//go:noescape
func winogradOutputBF16(dst []uint16, src []float32, at []int32, c, stride, plane int)

//go:noescape
func winogradOutputEpilogueBF16(dst []uint16, src []float32, at []int32, stride, plane int, add []uint16, bias []float32, before, after float32)

// The same of F(4×4,3×3), with planes of float32, and its Input with planes of bfloat16.

//go:noescape
func winograd4InputBF16(dst []float32, src, zero []uint16, patches []int32, c, stride, plane int)

//go:noescape
func winograd4InputPairs(dst, src, zero []uint16, patches []int32, c, stride, plane int)

//go:noescape
func winograd4GradientBF16(dst []float32, src, zero []uint16, patches []int32, c, stride, plane int)

//go:noescape
func winograd4OutputBF16(dst []uint16, src []float32, at []int32, c, stride, plane int)

//go:noescape
func winograd4OutputEpilogueBF16(dst []uint16, src []float32, at []int32, stride, plane int, add []uint16, bias []float32, before, after float32)

// epilogueBF16AVX512 is epilogueBF16Generic.
//
//go:noescape
func epilogueBF16AVX512(dst []uint16, src []float32, from, at []int32, add []uint16, bias []float32, before, after float32)

func packRowsAVX512(dst []uint32, src []float32, width, valid, stride int) {
	switch {
	case width == 32 && valid == 32:
		packRows32AVX512(dst, src, stride)
	case width == 16 && valid == 16:
		packRows16AVX512(dst, src, stride)
	default:
		packRowsGeneric(dst, src, width, valid, stride)
	}
}

func packImagesAVX512(dst []uint32, a, b []uint16, width, valid, stride int) {
	load, store := uint32(1<<valid-1), uint32(1<<width-1)
	switch {
	case len(b) == 0 || width > 32:
		packImagesGeneric(dst, a, b, width, valid, stride)
	case width > 16:
		packImages32AVX512(dst, a, b, width, stride, load, store)
	default:
		packImages16AVX512(dst, a, b, width, stride, load, store)
	}
}

var bf16AVX512 = BF16{
	Tiles: Tiles[PairTile, PairOuterTile]{
		ConvTiles: []PairTile{
			{13, 32, pairTile13x32AVX512, pairTileSums13x32AVX512},
			{13, 16, pairTile13x16AVX512, pairTileSums13x16AVX512},
			{8, 32, pairTile8x32AVX512, pairTileSums8x32AVX512},
		},
		OuterTiles: []PairOuterTile{{13, 32, pairOuterTile13x32AVX512}, {13, 16, pairOuterTile13x16AVX512}, {8, 16, pairOuterTile8x16AVX512}},
	},
	PackRows:   packRowsAVX512,
	PackImages: packImagesAVX512,
	Narrow:     narrowAVX512,
	Widen:      widenAVX512,

	Norm: normBF16AVX512,

	Winograd: winogradBF16Generic.after(16, Transforms[uint16, uint16]{
		winogradInputBF16, winogradGradientBF16, winogradOutputBF16, winogradOutputEpilogueBF16,
	}),
	Winograd4: winograd4BF16Generic.after(16, Transforms[uint16, float32]{
		winograd4InputBF16, winograd4GradientBF16, winograd4OutputBF16, winograd4OutputEpilogueBF16,
	}),
	Winograd4Pairs: patchesAfter(16, winograd4InputPairs, winograd4PairsGeneric),
	Epilogue:       epilogueBF16AVX512,
}
