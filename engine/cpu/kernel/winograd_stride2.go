package kernel

// Winograd's algorithm for 3×3 kernels with stride 2: tiles of 4×4 outputs with 81
// products where the definition has 144.
//
// Along an axis, output o reads inputs 2o, 2o+1 and 2o+2. Of the inputs of a tile, d0 to
// d8, those of even numbers therefore meet the first and the last tap of a kernel, as in
// a convolution of stride 1 with two taps, and those of odd numbers the tap in the middle.
// The former is F(4,2) of Cook and Toom with the points ±a, ±b and ∞, the latter four
// products. Transformed for the same points, both have the same matrix A, and their
// products are added before they are transformed back:
//
//	     -ab² -b²  a   1   0         1   a          α   α   β   β   0
//	     -ab²  b²  a  -1   0         1  -a          αa -αa  βb -βb  0
//	Bᵀ = -a²b -a²  b   1   0    G =  1   b    Aᵀ =  αa² αa² βb² βb² 0
//	     -a²b  a²  b  -1   0         1  -b          αa³-αa³ βb³-βb³ 1
//	      p    0  -s   0   1         0   1
//
//	s = a² + b²   p = a²b²   α = 1/(2a(a²-b²))   β = 1/(2b(b²-a²))
//
// Odd inputs have the first four rows and columns of Bᵀ and, at each point, the tap itself.
// Along two axes there are four phases of inputs: those of even rows and even columns have
// 5×5 transformed values, of even and odd 5×4, of odd and even 4×5, of odd and odd 4×4.
// A kernel has 6×6: after the five of the outer taps comes the one in the middle, which
// serves four points.
//
// The gradient by the inputs is the same algorithm from the gradients to each phase: the
// products of 5×5 transformed gradients with a kernel's 5×5, 5×4, 4×5 and 4×4 values. That
// by the kernel has the transposes of these matrices: it adds the products of A·dy·Aᵀ with
// the transformed inputs.
//
// The points are those of least error in the root mean square on a grid of eighths, as in winograd4.go.
// All entries of B and G are exact in float32, and those of A but 1/6.

const (
	stride2A     = 0.5
	stride2B     = 1.5
	stride2S     = stride2A*stride2A + stride2B*stride2B
	stride2P     = stride2A * stride2A * stride2B * stride2B
	stride2Alpha = 1 / (2 * stride2A * (stride2A*stride2A - stride2B*stride2B))
	stride2Beta  = 1 / (2 * stride2B * (stride2B*stride2B - stride2A*stride2A))
)

// WinogradStride2 is the set of transforms.
//
// Phases are those of feature maps, by 2·(odd rows) + (odd columns): Input from 5×5, 5×4,
// 4×5 or 4×4 values to as many planes, and Output from as many planes to 4×4 values.
// OutputEpilogue and Gradient, from 4×4 values to 5×5 planes, are those of the first phase.
// The documentation of the fields is that of F(2×2,3×3)'s generic functions.
type WinogradStride2 struct {
	Phases  [4]Transforms[float32, float32]
	Weights func(dst, src []float32, n, tap, plane int)
	Sums    func(dst, src []float32, n, tap, plane int)
}

var stride2Generic = WinogradStride2{
	Phases: [4]Transforms[float32, float32]{
		stride2Phase(grid{5, 5}), stride2Phase(grid{5, 4}), stride2Phase(grid{4, 5}), stride2Phase(grid{4, 4}),
	},
	Weights: func(dst, src []float32, n, tap, plane int) { kernels4(dst, src, n, 3, 6, tap, plane, stride2Weights) },
	Sums:    func(dst, src []float32, n, tap, plane int) { kernels4(dst, src, n, 6, 3, plane, tap, stride2Sums) },
}

func stride2Phase(g grid) Transforms[float32, float32] {
	return Transforms[float32, float32]{
		Input: func(dst, src, _ []float32, patches []int32, c, stride, plane int) {
			patches4(dst, src, same, same, patches, g, g, c, stride, plane, stride2Input)
		},
		Gradient: func(dst, src, _ []float32, patches []int32, c, stride, plane int) {
			patches4(dst, src, same, same, patches, grid{4, 4}, g, c, stride, plane, stride2Gradient)
		},
		Output: func(dst, src []float32, at []int32, c, stride, plane int) {
			output4(src, at, g, c, stride, plane, stride2Output, func(v float32, o, k int) { dst[o+k] = v })
		},
		OutputEpilogue: func(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32) {
			output4(src, at, g, len(bias), stride, plane, stride2Output, finish(dst, add, bias, before, after))
		},
	}
}

// after is Transforms.after for all of them. Of Gradient and OutputEpilogue first has
// those of the first phase.
func (rest WinogradStride2) after(lanes int, first WinogradStride2) WinogradStride2 {
	kernels := Winograd{Weights: rest.Weights, Sums: rest.Sums}.after(lanes, Winograd{Weights: first.Weights, Sums: first.Sums})
	all := WinogradStride2{Weights: kernels.Weights, Sums: kernels.Sums}
	for i := range all.Phases {
		all.Phases[i] = rest.Phases[i].after(lanes, first.Phases[i])
	}
	return all
}

// stride2Input is Bᵀ·d; the last row is that of five inputs.
func stride2Input(d [6]float32) [6]float32 {
	const a, b = stride2A, stride2B
	e, o := d[3]-b*b*d[1], a*(d[2]-b*b*d[0])
	f, q := d[3]-a*a*d[1], b*(d[2]-a*a*d[0])
	return [6]float32{o + e, o - e, q + f, q - f, d[4] - stride2S*d[2] + stride2P*d[0]}
}

// stride2Gradient is A·y.
func stride2Gradient(y [6]float32) [6]float32 {
	const a, b, α, β = stride2A, stride2B, stride2Alpha, stride2Beta
	e, o := α*y[0]+α*a*a*y[2], α*a*(y[1]+a*a*y[3])
	f, q := β*y[0]+β*b*b*y[2], β*b*(y[1]+b*b*y[3])
	return [6]float32{e + o, e - o, f + q, f - q, y[3]}
}

// stride2Output is Aᵀ·m, of five or four rows and columns; then m[4] is 0.
func stride2Output(m [6]float32) [6]float32 {
	const a, b, α, β = stride2A, stride2B, stride2Alpha, stride2Beta
	e, o, f, q := m[0]+m[1], m[0]-m[1], m[2]+m[3], m[2]-m[3]
	return [6]float32{α*e + β*f, α*a*o + β*b*q, α*a*a*e + β*b*b*f, α*a*a*a*o + β*b*b*b*q + m[4]}
}

// stride2Weights is G·(g0 g2), and g1.
func stride2Weights(g [6]float32) [6]float32 {
	const a, b = stride2A, stride2B
	return [6]float32{g[0] + a*g[2], g[0] - a*g[2], g[0] + b*g[2], g[0] - b*g[2], g[2], g[1]}
}

// stride2Sums is the transpose of stride2Weights.
func stride2Sums(s [6]float32) [6]float32 {
	const a, b = stride2A, stride2B
	return [6]float32{s[0] + s[1] + s[2] + s[3], s[5], a*(s[0]-s[1]) + b*(s[2]-s[3]) + s[4]}
}
