package kernel

// Convolution runs without im2col, as the indirect convolution of Dukhan 2019,
// https://arxiv.org/abs/1907.02129: the matrix rows are pixels, found through a
// table of offsets, and padding is a row of zeros. We differ in that the table
// holds, per tile of rows, only the taps that touch the image, so a tile at the
// border or of a strided backward pass costs what it uses.

// TapSize is the number of int32 in one tap record of ConvTile for tiles of
// rows pixels: the weight offset, an unused word, and one source offset per row.
func TapSize(rows int) int { return rows + 2 }

// NoPixel is the source offset of a row whose tap falls on padding.
const NoPixel = -1

// convTileGeneric computes a tile of 6 pixels × 16 channels. For each tap
// record [w, _, o0..o5] of taps, row r < 6 and column j < 16:
//
//	dst[dstOff[r]+j] (+)= Σ_tap Σ_k src[o_r+k] · wei[w+k*16+j],  k < c
//
// where src[o_r:] is zero[:] when o_r is NoPixel. dst is overwritten unless
// accumulate is set; no taps make it zero. All offsets are in elements. The six
// rows of dst must not overlap each other, src or wei.
func convTileGeneric(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool) {
	const rows, cols = 6, 16
	for r := range rows {
		out := (*[cols]float32)(dst[dstOff[r]:])
		var acc [cols]float32
		if accumulate {
			acc = *out
		}
		for t := 0; t < len(taps); t += rows + 2 {
			if taps[t+2+r] == NoPixel {
				continue
			}
			x := src[taps[t+2+r]:][:c]
			w := wei[taps[t]:][:c*cols]
			for _, v := range x {
				row := (*[cols]float32)(w)
				for j := range cols {
					acc[j] += v * row[j]
				}
				w = w[cols:]
			}
		}
		*out = acc
	}
}

// outerTileGeneric adds a sum of outer products, the backward pass of the
// weights. pixels holds pairs of offsets, p and q; for i < 6 and j < 16:
//
//	dst[i*16+j] += Σ_(p,q) src[p+i] · dy[q+j]
//
// The sum over the pixels is formed first and then added to dst. src must be
// readable at all six offsets, also where the caller ignores the result.
func outerTileGeneric(dst, src, dy []float32, pixels []int32) {
	const rows, cols = 6, 16
	var acc [rows][cols]float32
	for n := 0; n < len(pixels); n += 2 {
		x := (*[rows]float32)(src[pixels[n]:])
		d := (*[cols]float32)(dy[pixels[n+1]:])
		for i := range rows {
			v := x[i]
			for j := range cols {
				acc[i][j] += v * d[j]
			}
		}
	}
	for i := range rows {
		for j := range cols {
			dst[i*cols+j] += acc[i][j]
		}
	}
}

// packGeneric copies rows of width elements that lie stride apart in src:
//
//	dst[i*width+j] = src[i*stride+j],  j < width, i < len(dst)/width
//
// It is how operands of the tiles are brought together.
func packGeneric(dst, src []float32, width, stride int) {
	for at := 0; len(dst) >= width; dst, at = dst[width:], at+stride {
		copy(dst[:width], src[at:])
	}
}
