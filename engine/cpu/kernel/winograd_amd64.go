//go:build !purego

package kernel

// The transforms in assembly work on whole vectors of channels; the functions
// below leave the channels that remain to the next lower instruction set.

//go:noescape
func winogradInputAVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func winogradGradientAVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func winogradOutputAVX2(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func winogradOutputEpilogueAVX2(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32)

//go:noescape
func winogradWeightsAVX2(dst, src []float32, n, tap, plane int)

//go:noescape
func winogradSumsAVX2(dst, src []float32, n, tap, plane int)

//go:noescape
func winogradInputAVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func winogradGradientAVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func winogradOutputAVX512(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func winogradOutputEpilogueAVX512(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32)

//go:noescape
func winogradWeightsAVX512(dst, src []float32, n, tap, plane int)

//go:noescape
func winogradSumsAVX512(dst, src []float32, n, tap, plane int)

var winogradAVX2 = winogradGeneric.after(8, Winograd{
	Input:    winogradInputAVX2,
	Gradient: winogradGradientAVX2,
	Output:   winogradOutputAVX2,

	OutputEpilogue: winogradOutputEpilogueAVX2,

	Weights: winogradWeightsAVX2,
	Sums:    winogradSumsAVX2,
})

var winogradAVX512 = winogradAVX2.after(16, Winograd{
	Input:    winogradInputAVX512,
	Gradient: winogradGradientAVX512,
	Output:   winogradOutputAVX512,

	OutputEpilogue: winogradOutputEpilogueAVX512,

	Weights: winogradWeightsAVX512,
	Sums:    winogradSumsAVX512,
})

// after returns transforms that run first on whole vectors of the given number
// of channels, and rest on the channels after them.
func (rest Winograd) after(lanes int, first Winograd) Winograd {
	// patches is the form of Input and Gradient, kernels that of Weights and Sums.
	patches := func(first, rest func(dst, src, zero []float32, patches []int32, c, stride, plane int)) func(dst, src, zero []float32, patches []int32, c, stride, plane int) {
		return func(dst, src, zero []float32, patches []int32, c, stride, plane int) {
			first(dst, src, zero, patches, c, stride, plane)
			if done := c / lanes * lanes; done < c {
				rest(dst[done:], src[done:], zero, patches, c-done, stride, plane)
			}
		}
	}
	kernels := func(first, rest func(dst, src []float32, n, tap, plane int)) func(dst, src []float32, n, tap, plane int) {
		return func(dst, src []float32, n, tap, plane int) {
			first(dst, src, n, tap, plane)
			if done := n / lanes * lanes; done < n {
				rest(dst[done:], src[done:], n-done, tap, plane)
			}
		}
	}
	return Winograd{
		Input:    patches(first.Input, rest.Input),
		Gradient: patches(first.Gradient, rest.Gradient),
		Output: func(dst, src []float32, at []int32, c, stride, plane int) {
			first.Output(dst, src, at, c, stride, plane)
			if done := c / lanes * lanes; done < c {
				rest.Output(dst[done:], src[done:], at, c-done, stride, plane)
			}
		},
		OutputEpilogue: func(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32) {
			first.OutputEpilogue(dst, src, at, stride, plane, add, bias, before, after)
			if done := len(bias) / lanes * lanes; done < len(bias) {
				rest.OutputEpilogue(dst[done:], src[done:], at, stride, plane, add[min(done, len(add)):], bias[done:], before, after)
			}
		},
		Weights: kernels(first.Weights, rest.Weights),
		Sums:    kernels(first.Sums, rest.Sums),
	}
}

// transpose8AVX2 is transposeGeneric for eight rows and cols/8·8 columns.
//
//go:noescape
func transpose8AVX2(dst, src []float32, cols, dstStride, srcStride int)

func transposeAVX2(dst, src []float32, rows, cols, dstStride, srcStride int) {
	for ; rows >= 8; rows -= 8 {
		transpose8AVX2(dst, src, cols, dstStride, srcStride)
		if done := cols &^ 7; done < cols {
			transposeGeneric(dst[done*dstStride:], src[done:], 8, cols-done, dstStride, srcStride)
		}
		if rows > 8 {
			dst, src = dst[8:], src[8*srcStride:]
		} else {
			return
		}
	}
	transposeGeneric(dst, src, rows, cols, dstStride, srcStride)
}
