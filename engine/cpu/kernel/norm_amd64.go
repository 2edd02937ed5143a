//go:build !purego

package kernel

//go:noescape
func normaliseAVX2(dst, x []float32, scale, shift []float32, add []float32, addScale, addShift []float32, low float32)

//go:noescape
func gateSumsAVX2(g, d, more, y, x []float32, mean, sum, products []float32)

//go:noescape
func momentsAVX2(sum, squares []float32, x []float32, mean []float32)

//go:noescape
func normaliseAVX512(dst, x []float32, scale, shift []float32, add []float32, addScale, addShift []float32, low float32)

//go:noescape
func gateSumsAVX512(g, d, more, y, x []float32, mean, sum, products []float32)

//go:noescape
func momentsAVX512(sum, squares []float32, x []float32, mean []float32)

//go:noescape
func normaliseBF16AVX512(dst, x []uint16, scale, shift []float32, add []uint16, addScale, addShift []float32, low float32)

//go:noescape
func gateSumsBF16AVX512(g, d, more, y, x []uint16, mean, sum, products []float32)

//go:noescape
func momentsBF16AVX512(sum, squares []float32, x []uint16, mean []float32)

var (
	normAVX2       = Norm[float32]{normaliseAVX2, gateSumsAVX2, momentsAVX2}
	normAVX512     = Norm[float32]{normaliseAVX512, gateSumsAVX512, momentsAVX512}
	normBF16AVX512 = Norm[uint16]{normaliseBF16AVX512, gateSumsBF16AVX512, momentsBF16AVX512}
)
