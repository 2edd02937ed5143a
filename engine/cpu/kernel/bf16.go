package kernel

import "math"

// bfloat16 is the upper half of a float32: its sign, its exponent and 8 bits of
// its mantissa. A pair is two of them in one word, the first in the low half.
// Products are of pairs, as the instruction VDPBF16PS forms them: two products
// are added to a float32 sum. So where float32 kernels walk over words of one
// number, these walk over words of two, and everything else is alike.

// BF16 are the kernels of mixed precision. Each field's documentation is the
// generic function of the same name.
type BF16 struct {
	Tiles[PairTile, PairOuterTile]
	PackRows   func(dst []uint32, src []float32, width, valid, stride int)
	PackImages func(dst []uint32, a, b []uint16, width, valid, stride int)
	Narrow     func(dst []uint16, src []float32)
	Widen      func(dst []float32, src []uint16)

	Norm Norm[uint16]

	// F(2×2,3×3) with products of bfloat16, F(4×4,3×3) with those of float32, and its
	// Input for products of bfloat16; the transforms of weights are in float32.
	Winograd       Transforms[uint16, uint16]
	Winograd4      Transforms[uint16, float32]
	Winograd4Pairs func(dst, src, zero []uint16, patches []int32, c, stride, plane int)

	Epilogue func(dst []uint16, src []float32, from, at []int32, add []uint16, bias []float32, before, after float32)
}

// ToBF16 rounds to the nearest bfloat16, to even between two. NaN stays NaN.
func ToBF16(v float32) uint16 {
	b := math.Float32bits(v)
	if v != v {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// FromBF16 is the number that b stands for.
func FromBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// halves returns the two numbers of a pair.
func halves(pair uint32) (first, second float32) {
	return math.Float32frombits(pair << 16), math.Float32frombits(pair & 0xffff0000)
}

// narrowGeneric: dst = src, rounded to bfloat16. The vector version flushes
// numbers below the smallest normal one to zero.
func narrowGeneric(dst []uint16, src []float32) {
	src = src[:len(dst)]
	for i, v := range src {
		dst[i] = ToBF16(v)
	}
}

// widenGeneric: dst = src, exactly.
func widenGeneric(dst []float32, src []uint16) {
	src = src[:len(dst)]
	for i, v := range src {
		dst[i] = FromBF16(v)
	}
}

// packRowsGeneric rounds rows of float32 and packs them in pairs of rows, of
// which valid elements exist:
//
//	dst[i*width+j] = (src[2i*stride+j], src[(2i+1)*stride+j]),  j < valid, and 0 from there to width
func packRowsGeneric(dst []uint32, src []float32, width, valid, stride int) {
	for ; len(dst) >= width; dst = dst[width:] {
		for j := range valid {
			dst[j] = uint32(ToBF16(src[j])) | uint32(ToBF16(src[stride+j]))<<16
		}
		clear(dst[valid:width])
		src = src[min(2*stride, len(src)):]
	}
}

// packImagesGeneric packs the same pixels of two images in pairs: rows of width
// pairs, of which valid exist, that lie stride elements apart in a and b.
//
//	dst[i*width+j] = (a[i*stride+j], b[i*stride+j]),  j < valid, and 0 from there to width
//
// Without b, its elements are 0.
func packImagesGeneric(dst []uint32, a, b []uint16, width, valid, stride int) {
	for at := 0; len(dst) >= width; dst, at = dst[width:], at+stride {
		for j, v := range a[at:][:valid] {
			dst[j] = uint32(v)
		}
		if len(b) > 0 {
			for j, v := range b[at:][:valid] {
				dst[j] |= uint32(v) << 16
			}
		}
		clear(dst[valid:width])
	}
}

// pairTileGeneric is convTileGeneric on pairs: c of them for each tap, and all
// offsets but those of dst in pairs.
func pairTileGeneric(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32) {
	const rows, cols = 6, 16
	var sums [rows * cols]float32
	var at [rows]int32
	for r := range at {
		at[r] = int32(r * cols)
	}
	pairTileSumsGeneric(sums[:], at[:], src, zero, taps, c, wei, false)
	for r := range rows {
		narrowGeneric(dst[dstOff[r]:][:cols], sums[r*cols:])
	}
}

// pairTileSumsGeneric is pairTileGeneric with sums in float32.
func pairTileSumsGeneric(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool) {
	const rows, cols = 6, 16
	for r := range rows {
		for j := 0; j < cols; j += 4 {
			d := (*[4]float32)(dst[int(dstOff[r])+j:])
			var s [4]float32
			if accumulate {
				s = *d
			}
			s0, s1, s2, s3 := s[0], s[1], s[2], s[3]
			for t := 0; t < len(taps); t += rows + 2 {
				x := zero[:c]
				if o := taps[t+2+r]; o != NoPixel {
					x = src[o:][:c]
				}
				at := int(taps[t]) + j
				for _, v := range x {
					v0, v1 := halves(v)
					w := (*[4]uint32)(wei[at:])
					at += cols
					w0, w1 := halves(w[0])
					s0 += v0*w0 + v1*w1
					w0, w1 = halves(w[1])
					s1 += v0*w0 + v1*w1
					w0, w1 = halves(w[2])
					s2 += v0*w0 + v1*w1
					w0, w1 = halves(w[3])
					s3 += v0*w0 + v1*w1
				}
			}
			*d = [4]float32{s0, s1, s2, s3}
		}
	}
}

// pairOuterTileGeneric is outerTileGeneric on pairs: pairs of pixels, that is.
func pairOuterTileGeneric(dst []float32, src, dy []uint32, pixels []int32) {
	const rows, cols = 6, 16
	for i := range rows {
		for j := 0; j < cols; j += 4 {
			var s0, s1, s2, s3 float32
			for n := 1; n < len(pixels); n += 2 {
				x0, x1 := halves(src[int(pixels[n-1])+i])
				d := (*[4]uint32)(dy[int(pixels[n])+j:])
				d0, d1 := halves(d[0])
				s0 += x0*d0 + x1*d1
				d0, d1 = halves(d[1])
				s1 += x0*d0 + x1*d1
				d0, d1 = halves(d[2])
				s2 += x0*d0 + x1*d1
				d0, d1 = halves(d[3])
				s3 += x0*d0 + x1*d1
			}
			d := (*[4]float32)(dst[i*cols+j:])
			d[0] += s0
			d[1] += s1
			d[2] += s2
			d[3] += s3
		}
	}
}

// winogradInputBF16Generic is winogradInputGeneric in float32 from bfloat16 to
// bfloat16.
func winogradInputBF16Generic(dst, src, _ []uint16, patches []int32, c, stride, plane int) {
	one := [16]int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	var in, out [16]float32
	for t := 0; t < len(patches)/16; t++ {
		for k := range c {
			gatherBF16(in[:], src, patches[t*16:], k)
			winogradInputGeneric(out[:], in[:], nil, one[:], 1, 1, 1)
			for i, v := range out {
				dst[i*plane+t*stride+k] = ToBF16(v)
			}
		}
	}
}

// winogradGradientBF16Generic is winogradGradientGeneric in the same way.
func winogradGradientBF16Generic(dst, src, _ []uint16, patches []int32, c, stride, plane int) {
	one := [4]int32{0, 1, 2, 3}
	var in [4]float32
	var out [16]float32
	for t := 0; t < len(patches)/4; t++ {
		for k := range c {
			gatherBF16(in[:], src, patches[t*4:], k)
			winogradGradientGeneric(out[:], in[:], nil, one[:], 1, 1, 1)
			for i, v := range out {
				dst[i*plane+t*stride+k] = ToBF16(v)
			}
		}
	}
}

// gatherBF16: dst[i] = src[at[i]+k], or 0 at NoPixel.
func gatherBF16(dst []float32, src []uint16, at []int32, k int) {
	for i, o := range at[:len(dst)] {
		if dst[i] = 0; o != NoPixel {
			dst[i] = FromBF16(src[int(o)+k])
		}
	}
}

// winogradOutputBF16Generic is winogradOutputGeneric with rounded results.
func winogradOutputBF16Generic(dst []uint16, src []float32, at []int32, c, stride, plane int) {
	one := [4]int32{0, 1, 2, 3}
	var in [16]float32
	var out [4]float32
	for t := 0; t < len(at)/4; t++ {
		for k := range c {
			for i := range in {
				in[i] = src[i*plane+t*stride+k]
			}
			winogradOutputGeneric(out[:], in[:], one[:], 1, 1, 1)
			for i, o := range at[t*4:][:4] {
				if o != NoPixel {
					dst[int(o)+k] = ToBF16(out[i])
				}
			}
		}
	}
}

var bf16Generic = BF16{
	Tiles: Tiles[PairTile, PairOuterTile]{
		ConvTiles:  []PairTile{{6, 16, pairTileGeneric, pairTileSumsGeneric}},
		OuterTiles: []PairOuterTile{{6, 16, pairOuterTileGeneric}},
	},
	PackRows:   packRowsGeneric,
	PackImages: packImagesGeneric,
	Narrow:     narrowGeneric,
	Widen:      widenGeneric,

	Norm: normGeneric[uint16](),

	Winograd:       winogradBF16Generic,
	Winograd4:      winograd4BF16Generic,
	Winograd4Pairs: winograd4PairsGeneric,
	Epilogue:       epilogueBF16Generic,
}

var winogradBF16Generic = Transforms[uint16, uint16]{
	winogradInputBF16Generic, winogradGradientBF16Generic, winogradOutputBF16Generic, winogradOutputEpilogueBF16Generic,
}
