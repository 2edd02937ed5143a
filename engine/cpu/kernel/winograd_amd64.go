//go:build !purego

package kernel

// The transforms in assembly work on whole vectors of channels; Transforms.after says
// what becomes of those that remain.

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
	Transforms[float32, float32]{winogradInputAVX2, winogradGradientAVX2, winogradOutputAVX2, winogradOutputEpilogueAVX2},
	winogradWeightsAVX2, winogradSumsAVX2,
})

var winogradAVX512 = winogradAVX2.after(16, Winograd{
	Transforms[float32, float32]{winogradInputAVX512, winogradGradientAVX512, winogradOutputAVX512, winogradOutputEpilogueAVX512},
	winogradWeightsAVX512, winogradSumsAVX512,
})

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
