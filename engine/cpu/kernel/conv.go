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
// accumulate is set; then the sum is formed first and added to it, which rounds
// less than a longer sum. No taps make the sum zero. All offsets are in elements. dst must
// not overlap src or wei, nor its rows each other, but without accumulate the
// same row may be given twice.
//
// The loops go over 2 × 4 sums at a time, which a compiler keeps in registers.
func convTileGeneric(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool) {
	const rows, cols = 6, 16
	for r := 0; r < rows; r += 2 {
		for j := 0; j < cols; j += 4 {
			d0 := (*[4]float32)(dst[int(dstOff[r])+j:])
			d1 := (*[4]float32)(dst[int(dstOff[r+1])+j:])
			var a0, a1, a2, a3, b0, b1, b2, b3 float32
			for t := 0; t < len(taps); t += rows + 2 {
				x, y := zero[:c], zero[:c]
				if o := taps[t+2+r]; o != NoPixel {
					x = src[o:][:c]
				}
				if o := taps[t+3+r]; o != NoPixel {
					y = src[o:][:c]
				}
				at := int(taps[t]) + j
				for k, v := range x {
					u := y[k]
					w := (*[4]float32)(wei[at:])
					at += cols
					a0 += v * w[0]
					b0 += u * w[0]
					a1 += v * w[1]
					b1 += u * w[1]
					a2 += v * w[2]
					b2 += u * w[2]
					a3 += v * w[3]
					b3 += u * w[3]
				}
			}
			if accumulate {
				a0, a1, a2, a3 = a0+d0[0], a1+d0[1], a2+d0[2], a3+d0[3]
				b0, b1, b2, b3 = b0+d1[0], b1+d1[1], b2+d1[2], b3+d1[3]
			}
			*d0 = [4]float32{a0, a1, a2, a3}
			*d1 = [4]float32{b0, b1, b2, b3}
		}
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
	for i := 0; i < rows; i += 2 {
		for j := 0; j < cols; j += 4 {
			var a0, a1, a2, a3, b0, b1, b2, b3 float32
			for n := 1; n < len(pixels); n += 2 {
				x := (*[2]float32)(src[int(pixels[n-1])+i:])
				d := (*[4]float32)(dy[int(pixels[n])+j:])
				a0 += x[0] * d[0]
				b0 += x[1] * d[0]
				a1 += x[0] * d[1]
				b1 += x[1] * d[1]
				a2 += x[0] * d[2]
				b2 += x[1] * d[2]
				a3 += x[0] * d[3]
				b3 += x[1] * d[3]
			}
			d0, d1 := (*[4]float32)(dst[i*cols+j:]), (*[4]float32)(dst[(i+1)*cols+j:])
			d0[0] += a0
			d0[1] += a1
			d0[2] += a2
			d0[3] += a3
			d1[0] += b0
			d1[1] += b1
			d1[2] += b2
			d1[3] += b3
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
