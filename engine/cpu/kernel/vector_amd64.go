//go:build !purego

package kernel

// The assembly of each elementwise kernel is the loop of its generic twin,
// eight elements at a time. Lengths need not be multiples of eight.

//go:noescape
func addAVX2(dst, a, b []float32)

//go:noescape
func subAVX2(dst, a, b []float32)

//go:noescape
func mulAVX2(dst, a, b []float32)

//go:noescape
func divAVX2(dst, a, b []float32)

//go:noescape
func maxAVX2(dst, a, b []float32)

//go:noescape
func gateAVX2(dst, a, b []float32)

//go:noescape
func sqrtAVX2(dst, a []float32)

// scaleAddAVX2 is scaleAddGeneric with one rounding.
//
//go:noescape
func scaleAddAVX2(dst, a []float32, scale, shift float32)

// The per-channel kernels in assembly work on the first eight·n channels of
// each row; rows are len(x)/c, where c, the row length, is given. The vector
// functions below finish the last c%8 channels in Go.

//go:noescape
func channelScaleAddAVX2(dst, x, scale, shift []float32)

//go:noescape
func channelSumAVX2(sum, x []float32)

//go:noescape
func channelSquaresAVX2(sum, x, mean []float32)

//go:noescape
func channelProductsAVX2(sum, x, mean, dy []float32)

func channelScaleAddVector(dst, x, scale, shift []float32) {
	c := len(scale)
	channelScaleAddAVX2(dst, x, scale, shift)
	for j := c &^ 7; j < c; j++ {
		for i := j; i < len(dst); i += c {
			dst[i] = x[i]*scale[j] + shift[j]
		}
	}
}

func channelSumVector(sum, x []float32) {
	c := len(sum)
	channelSumAVX2(sum, x)
	for j := c &^ 7; j < c; j++ {
		for i := j; i < len(x); i += c {
			sum[j] += x[i]
		}
	}
}

func channelSquaresVector(sum, x, mean []float32) {
	c := len(sum)
	channelSquaresAVX2(sum, x, mean)
	for j := c &^ 7; j < c; j++ {
		for i := j; i < len(x); i += c {
			d := x[i] - mean[j]
			sum[j] += d * d
		}
	}
}

func channelProductsVector(sum, x, mean, dy []float32) {
	c := len(sum)
	channelProductsAVX2(sum, x, mean, dy)
	for j := c &^ 7; j < c; j++ {
		for i := j; i < len(x); i += c {
			sum[j] += (x[i] - mean[j]) * dy[i]
		}
	}
}
