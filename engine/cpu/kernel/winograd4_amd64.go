//go:build !purego

package kernel

// As in winograd_amd64.go, on whole vectors of channels.

//go:noescape
func winograd4InputAVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func winograd4GradientAVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func winograd4OutputAVX2(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func winograd4OutputEpilogueAVX2(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32)

//go:noescape
func winograd4WeightsAVX2(dst, src []float32, n, tap, plane int)

//go:noescape
func winograd4SumsAVX2(dst, src []float32, n, tap, plane int)

//go:noescape
func winograd4InputAVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func winograd4GradientAVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)

//go:noescape
func winograd4OutputAVX512(dst, src []float32, at []int32, c, stride, plane int)

//go:noescape
func winograd4OutputEpilogueAVX512(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32)

//go:noescape
func winograd4WeightsAVX512(dst, src []float32, n, tap, plane int)

//go:noescape
func winograd4SumsAVX512(dst, src []float32, n, tap, plane int)

var winograd4AVX2 = winograd4Generic.after(8, Winograd{
	Transforms[float32, float32]{winograd4InputAVX2, winograd4GradientAVX2, winograd4OutputAVX2, winograd4OutputEpilogueAVX2},
	winograd4WeightsAVX2, winograd4SumsAVX2,
})

var winograd4AVX512 = winograd4AVX2.after(16, Winograd{
	Transforms[float32, float32]{winograd4InputAVX512, winograd4GradientAVX512, winograd4OutputAVX512, winograd4OutputEpilogueAVX512},
	winograd4WeightsAVX512, winograd4SumsAVX512,
})

// winograd4Constants are the factors of the transforms, each as often as a vector
// of AVX2 has elements. The files of assembly name the rows.
//
//lint:ignore U1000 assembly alone reads them
var winograd4Constants = func() (rows [15][8]float32) {
	const a, b, u, v = winograd4A, winograd4B, winograd4U, winograd4V
	for i, x := range [15]float32{
		a, a * a, a * a * a, b, b * b, b * b * b, winograd4S, winograd4P, // of A and B
		1 / winograd4P, 1 / u, a / u, a * a / u, 1 / v, b / v, b * b / v, // of G
	} {
		for j := range rows[i] {
			rows[i][j] = x
		}
	}
	return rows
}()
