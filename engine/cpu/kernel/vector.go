package kernel

import "math"

// Elementwise kernels run over len(dst) elements; the other slices are at least
// as long. dst may be one of the operands and must not overlap them otherwise.

// addGeneric: dst = a + b.
func addGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

// subGeneric: dst = a - b.
func subGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] - b[i]
	}
}

// mulGeneric: dst = a · b.
func mulGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] * b[i]
	}
}

// divGeneric: dst = a / b.
func divGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] / b[i]
	}
}

// maxGeneric: dst = a where a > b, else b. So a NaN in a gives b and a NaN in b
// gives NaN: with the number in a and the bound in b this is the order of
// MAXPS, so ReLU must put the bound first to keep a NaN visible.
func maxGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		v := b[i]
		if a[i] > v {
			v = a[i]
		}
		dst[i] = v
	}
}

// gateGeneric: dst = a where b > 0, else 0: the backward pass of ReLU with
// a = dOut and b = the input or the output.
func gateGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		var v float32
		if b[i] > 0 {
			v = a[i]
		}
		dst[i] = v
	}
}

// sqrtGeneric: dst = √a.
func sqrtGeneric(dst, a []float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = float32(math.Sqrt(float64(a[i])))
	}
}

// scaleAddGeneric: dst = a·scale + shift. The vector version rounds once.
func scaleAddGeneric(dst, a []float32, scale, shift float32) {
	a = a[:len(dst)]
	for i := range dst {
		dst[i] = a[i]*scale + shift
	}
}

// Channel kernels treat x as rows of c channels, where c is the length of the
// per-channel slices and len(x) a multiple of it. Sums run over the rows in
// order, one float32 lane per channel; callers keep the number of rows small
// and combine such chunks themselves.

// channelScaleAddGeneric: dst[r,j] = x[r,j]·scale[j] + shift[j]. The vector
// version rounds once.
func channelScaleAddGeneric(dst, x, scale, shift []float32) {
	c := len(scale)
	shift = shift[:c]
	for len(dst) > 0 {
		d, s := dst[:c], x[:c]
		for j := range d {
			d[j] = s[j]*scale[j] + shift[j]
		}
		dst, x = dst[c:], x[c:]
	}
}

// channelSumGeneric: sum[j] += Σ_r x[r,j].
func channelSumGeneric(sum, x []float32) {
	for ; len(x) > 0; x = x[len(sum):] {
		for j, v := range x[:len(sum)] {
			sum[j] += v
		}
	}
}

// channelSquaresGeneric: sum[j] += Σ_r (x[r,j] - mean[j])².
func channelSquaresGeneric(sum, x, mean []float32) {
	mean = mean[:len(sum)]
	for ; len(x) > 0; x = x[len(sum):] {
		for j, v := range x[:len(sum)] {
			d := v - mean[j]
			sum[j] += d * d
		}
	}
}

// channelProductsGeneric: sum[j] += Σ_r (x[r,j] - mean[j]) · dy[r,j].
func channelProductsGeneric(sum, x, mean, dy []float32) {
	c := len(sum)
	mean = mean[:c]
	for len(x) > 0 {
		g := dy[:c]
		for j, v := range x[:c] {
			sum[j] += (v - mean[j]) * g[j]
		}
		x, dy = x[c:], dy[c:]
	}
}
