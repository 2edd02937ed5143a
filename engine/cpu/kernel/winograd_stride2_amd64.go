//go:build !purego

package kernel

// As in winograd_amd64.go, on whole vectors of channels.

//go:noescape
func stride2Input5x5AVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func stride2Output5x5AVX2(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func stride2Input5x4AVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func stride2Output5x4AVX2(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func stride2Input4x5AVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func stride2Output4x5AVX2(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func stride2Input4x4AVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func stride2Output4x4AVX2(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func stride2OutputEpilogueAVX2(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32)

//go:noescape
func stride2GradientAVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func stride2WeightsAVX2(dst, src []float32, n, tap, plane int)

//go:noescape
func stride2SumsAVX2(dst, src []float32, n, tap, plane int)

//go:noescape
func stride2Input5x5AVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func stride2Output5x5AVX512(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func stride2Input5x4AVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func stride2Output5x4AVX512(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func stride2Input4x5AVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func stride2Output4x5AVX512(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func stride2Input4x4AVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func stride2Output4x4AVX512(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func stride2OutputEpilogueAVX512(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32)

//go:noescape
func stride2GradientAVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func stride2WeightsAVX512(dst, src []float32, n, tap, plane int)

//go:noescape
func stride2SumsAVX512(dst, src []float32, n, tap, plane int)

var stride2AVX2 = stride2Generic.after(8, WinogradStride2{
	Phases: [4]Transforms[float32, float32]{
		{stride2Input5x5AVX2, stride2GradientAVX2, stride2Output5x5AVX2, stride2OutputEpilogueAVX2},
		{Input: stride2Input5x4AVX2, Output: stride2Output5x4AVX2},
		{Input: stride2Input4x5AVX2, Output: stride2Output4x5AVX2},
		{Input: stride2Input4x4AVX2, Output: stride2Output4x4AVX2},
	},
	Weights: stride2WeightsAVX2, Sums: stride2SumsAVX2,
})

var stride2AVX512 = stride2AVX2.after(16, WinogradStride2{
	Phases: [4]Transforms[float32, float32]{
		{stride2Input5x5AVX512, stride2GradientAVX512, stride2Output5x5AVX512, stride2OutputEpilogueAVX512},
		{Input: stride2Input5x4AVX512, Output: stride2Output5x4AVX512},
		{Input: stride2Input4x5AVX512, Output: stride2Output4x5AVX512},
		{Input: stride2Input4x4AVX512, Output: stride2Output4x4AVX512},
	},
	Weights: stride2WeightsAVX512, Sums: stride2SumsAVX512,
})

// stride2Constants are the factors of the transforms, each as often as a vector
// of AVX2 has elements. The files of assembly name the rows.
//
//lint:ignore U1000 assembly alone reads them
var stride2Constants = func() (rows [14][8]float32) {
	const a, b, α, β = stride2A, stride2B, stride2Alpha, stride2Beta
	for i, x := range [14]float32{
		a, a * a, b, b * b, stride2S, stride2P, // of B and G
		α, α * a, α * a * a, α * a * a * a, β, β * b, β * b * b, β * b * b * b, // of A
	} {
		for j := range rows[i] {
			rows[i][j] = x
		}
	}
	return rows
}()
