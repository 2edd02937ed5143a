package kernel

// Batch normalisation of feature maps in bfloat16, without copies in float32: each
// kernel reads and writes memory once. Rows have c channels, the length of the
// per-channel slices; len of the maps is a multiple of it.

// normaliseGeneric: dst[r,j] = max(low, x[r,j]·scale[j] + shift[j]), rounded, or,
// where add is given,
//
//	dst[r,j] = max(low, x[r,j]·scale[j] + shift[j] + (add[r,j]·addScale[j] + addShift[j]))
//
// With low 0 it ends in ReLU, with low -Inf it does not; NaN stays NaN. dst may be
// an operand. The vector version rounds each product with its sum once.
func normaliseGeneric(dst, x []uint16, scale, shift []float32, add []uint16, addScale, addShift []float32, low float32) {
	c := len(scale)
	for at := 0; at < len(dst); at += c {
		for j, s := range scale {
			v := FromBF16(x[at+j])*s + shift[j]
			if len(add) > 0 {
				v += FromBF16(add[at+j])*addScale[j] + addShift[j]
			}
			dst[at+j] = ToBF16(lower(low, v))
		}
	}
}

// gateSumsGeneric adds up the gradients of batch normalisation's shift and scale,
// behind ReLU's: with t[r,j] = d[r,j], plus more[r,j] where more is given, and 0
// unless y[r,j] > 0 where y is given,
//
//	sum[j] += Σ_r t[r,j]
//	products[j] += Σ_r (x[r,j] - mean[j])·t[r,j]
//	g[r,j] = t[r,j], rounded, where g is given
//
// Sums run over the rows in order.
func gateSumsGeneric(g, d, more, y, x []uint16, mean, sum, products []float32) {
	c := len(sum)
	for at := 0; at < len(x); at += c {
		for j := range c {
			t := FromBF16(d[at+j])
			if len(more) > 0 {
				t += FromBF16(more[at+j])
			}
			if len(y) > 0 && !(FromBF16(y[at+j]) > 0) {
				t = 0
			}
			if len(g) > 0 {
				g[at+j] = ToBF16(t)
			}
			sum[j] += t
			products[j] += (FromBF16(x[at+j]) - mean[j]) * t
		}
	}
}

// momentsBF16Generic is channelMomentsGeneric for x in bfloat16.
func momentsBF16Generic(sum, squares []float32, x []uint16, mean []float32) {
	for ; len(x) > 0; x = x[len(sum):] {
		for j, v := range x[:len(sum)] {
			d := FromBF16(v) - mean[j]
			sum[j] += d
			squares[j] += d * d
		}
	}
}
