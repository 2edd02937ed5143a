package kernel

import "unsafe"

// Norm is batch normalisation of feature maps, in float32 or bfloat16: each kernel reads
// and writes memory once, without copies in float32. Rows have c channels, the length of
// the per-channel slices; len of the maps is a multiple of it. The fields' documentation
// is the generic function of the same name.
type Norm[T Number] struct {
	Normalise func(dst, x []T, scale, shift []float32, add []T, addScale, addShift []float32, low float32)
	GateSums  func(g, d, more, y, x []T, mean, sum, products []float32)
	Moments   func(sum, squares []float32, x []T, mean []float32)
}

// Number is what maps are made of: float32, or bfloat16 as its bits.
type Number interface{ uint16 | float32 }

// number is the number that v stands for.
func number[T Number](v T) float32 {
	if unsafe.Sizeof(v) == 2 { // known when it is compiled
		return FromBF16(uint16(v))
	}
	return float32(v)
}

// rounded is v as T.
func rounded[T Number](v float32) T {
	var t T
	if unsafe.Sizeof(t) == 2 {
		return T(ToBF16(v))
	}
	return T(v)
}

// normaliseGeneric: dst[r,j] = max(low, x[r,j]·scale[j] + shift[j]), rounded, or,
// where add is given,
//
//	dst[r,j] = max(low, x[r,j]·scale[j] + shift[j] + (add[r,j]·addScale[j] + addShift[j]))
//
// With low 0 it ends in ReLU, with low -Inf it does not; NaN stays NaN. dst may be
// an operand. The vector version rounds each product with its sum once.
func normaliseGeneric[T Number](dst, x []T, scale, shift []float32, add []T, addScale, addShift []float32, low float32) {
	c := len(scale)
	for at := 0; at < len(dst); at += c {
		for j, s := range scale {
			v := number(x[at+j])*s + shift[j]
			if len(add) > 0 {
				v += number(add[at+j])*addScale[j] + addShift[j]
			}
			dst[at+j] = rounded[T](lower(low, v))
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
func gateSumsGeneric[T Number](g, d, more, y, x []T, mean, sum, products []float32) {
	c := len(sum)
	for at := 0; at < len(x); at += c {
		for j := range c {
			t := number(d[at+j])
			if len(more) > 0 {
				t += number(more[at+j])
			}
			if len(y) > 0 && !(number(y[at+j]) > 0) {
				t = 0
			}
			if len(g) > 0 {
				g[at+j] = rounded[T](t)
			}
			sum[j] += t
			products[j] += (number(x[at+j]) - mean[j]) * t
		}
	}
}

// momentsGeneric: sum[j] += Σ_r (x[r,j] - mean[j]) and
// squares[j] += Σ_r (x[r,j] - mean[j])².
func momentsGeneric[T Number](sum, squares []float32, x []T, mean []float32) {
	for ; len(x) > 0; x = x[len(sum):] {
		for j, v := range x[:len(sum)] {
			d := number(v) - mean[j]
			sum[j] += d
			squares[j] += d * d
		}
	}
}

func normGeneric[T Number]() Norm[T] {
	return Norm[T]{normaliseGeneric[T], gateSumsGeneric[T], momentsGeneric[T]}
}
