package kernel

// Winograd's F(4×4,3×3): tiles of 4×4 outputs from patches of 6×6, with 36
// products where the definition has 144 and F(2×2,3×3) has 64. It is the
// algorithm of winograd.go with the matrices of Cook and Toom for the points 0,
// ±a, ±b and ∞:
//
//	     p   0  -s   0   1   0         1/p     0      0
//	     0 -ab² -b²  a   1   0         1/u    a/u   a²/u         1  1  1  1  1  0
//	Bᵀ = 0  ab² -b² -a   1   0    G =  1/u   -a/u   a²/u    Aᵀ = 0  a -a  b -b  0
//	     0 -a²b -a²  b   1   0         1/v    b/v   b²/v         0 a² a² b² b²  0
//	     0  a²b -a² -b   1   0         1/v   -b/v   b²/v         0 a³-a³ b³-b³  1
//	     0   p   0  -s   0   1          0      0      1
//
//	s = a² + b²   p = a²b²   u = 2a²(a²-b²)   v = 2b²(b²-a²)
//
// The usual points 1 and 2 have shorter constants; 5/8 and 3/2 are those of
// least error in the root mean square, which is less than half as large. (Searched for as in
// Barabasz, Anderson, Soodhalter and Gregg 2020, https://arxiv.org/abs/1803.10986.)
// All entries of A and B are exact in float32.

const (
	winograd4A = 0.625
	winograd4B = 1.5
	winograd4S = winograd4A*winograd4A + winograd4B*winograd4B
	winograd4P = winograd4A * winograd4A * winograd4B * winograd4B
	winograd4U = 2 * winograd4A * winograd4A * (winograd4A*winograd4A - winograd4B*winograd4B)
	winograd4V = 2 * winograd4B * winograd4B * (winograd4B*winograd4B - winograd4A*winograd4A)
)

var winograd4Generic = Winograd{
	Transforms: transforms4(same, same, finish),

	Weights: func(dst, src []float32, n, tap, plane int) { kernels4(dst, src, n, 3, 6, tap, plane, winograd4Weights) },
	Sums:    func(dst, src []float32, n, tap, plane int) { kernels4(dst, src, n, 6, 3, plane, tap, winograd4Sums) },
}

func same(v float32) float32 { return v }

// winograd4PairsGeneric is Input from bfloat16 to planes of bfloat16, for products of
// pairs.
func winograd4PairsGeneric(dst, src, _ []uint16, patches []int32, c, stride, plane int) {
	patches4(dst, src, FromBF16, ToBF16, patches, grid{6, 6}, grid{6, 6}, c, stride, plane, winograd4Input)
}

// winograd4BF16Generic is for feature maps in bfloat16: planes are float32 all the same.
var winograd4BF16Generic = transforms4(FromBF16, ToBF16, finishBF16)

// transforms4 are those of feature maps whose elements load and store convert.
func transforms4[M float32 | uint16](load func(M) float32, store func(float32) M,
	finish func(dst, add []M, bias []float32, before, after float32) func(sum float32, o, k int)) Transforms[M, float32] {
	return Transforms[M, float32]{
		Input: func(dst []float32, src, _ []M, patches []int32, c, stride, plane int) {
			patches4(dst, src, load, same, patches, grid{6, 6}, grid{6, 6}, c, stride, plane, winograd4Input)
		},
		Gradient: func(dst []float32, src, _ []M, patches []int32, c, stride, plane int) {
			patches4(dst, src, load, same, patches, grid{4, 4}, grid{6, 6}, c, stride, plane, winograd4Gradient)
		},
		Output: func(dst []M, src []float32, at []int32, c, stride, plane int) {
			output4(src, at, grid{6, 6}, c, stride, plane, winograd4Output, func(v float32, o, k int) { dst[o+k] = store(v) })
		},
		OutputEpilogue: func(dst []M, src []float32, at []int32, stride, plane int, add []M, bias []float32, before, after float32) {
			output4(src, at, grid{6, 6}, len(bias), stride, plane, winograd4Output, finish(dst, add, bias, before, after))
		},
	}
}

// Each of the following is a matrix times a column of at most six numbers.

// winograd4Input is Bᵀ·d.
func winograd4Input(d [6]float32) [6]float32 {
	const a, b = winograd4A, winograd4B
	e, o := d[4]-b*b*d[2], a*(d[3]-b*b*d[1])
	f, q := d[4]-a*a*d[2], b*(d[3]-a*a*d[1])
	return [6]float32{
		d[4] - winograd4S*d[2] + winograd4P*d[0], e + o, e - o, f + q, f - q, d[5] - winograd4S*d[3] + winograd4P*d[1],
	}
}

// winograd4Gradient is A·y.
func winograd4Gradient(y [6]float32) [6]float32 {
	const a, b = winograd4A, winograd4B
	e, o := y[0]+a*a*y[2], a*(y[1]+a*a*y[3])
	f, q := y[0]+b*b*y[2], b*(y[1]+b*b*y[3])
	return [6]float32{y[0], e + o, e - o, f + q, f - q, y[3]}
}

// winograd4Output is Aᵀ·m.
func winograd4Output(m [6]float32) [6]float32 {
	const a, b = winograd4A, winograd4B
	e, o, f, q := m[1]+m[2], m[1]-m[2], m[3]+m[4], m[3]-m[4]
	return [6]float32{m[0] + e + f, a*o + b*q, a*a*e + b*b*f, a*a*a*o + b*b*b*q + m[5]}
}

// winograd4Weights is G·g.
func winograd4Weights(g [6]float32) [6]float32 {
	const a, b = winograd4A, winograd4B
	e, o := g[0]*(1/winograd4U)+g[2]*(a*a/winograd4U), g[1]*(a/winograd4U)
	f, q := g[0]*(1/winograd4V)+g[2]*(b*b/winograd4V), g[1]*(b/winograd4V)
	return [6]float32{g[0] * (1 / winograd4P), e + o, e - o, f + q, f - q, g[2]}
}

// winograd4Sums is Gᵀ·s.
func winograd4Sums(s [6]float32) [6]float32 {
	const a, b = winograd4A, winograd4B
	e, o, f, q := s[1]+s[2], s[1]-s[2], s[3]+s[4], s[3]-s[4]
	return [6]float32{
		s[0]*(1/winograd4P) + e*(1/winograd4U) + f*(1/winograd4V),
		o*(a/winograd4U) + q*(b/winograd4V),
		e*(a*a/winograd4U) + f*(b*b/winograd4V) + s[5],
	}
}

// sandwich4 replaces the numbers x, in n columns and rows of six, by M·x·Mᵀ.
func sandwich4(x *[36]float32, n int, m func([6]float32) [6]float32) {
	for j := range n {
		for i, v := range m([6]float32{x[j], x[6+j], x[12+j], x[18+j], x[24+j], x[30+j]}) {
			x[6*i+j] = v
		}
	}
	for i := 0; i < 36; i += 6 {
		*(*[6]float32)(x[i:]) = m([6]float32(x[i:]))
	}
}

// grid is a number of rows and of columns.
type grid struct{ rows, cols int }

// put is where number i of a grid lies in rows of six.
func (g grid) put(i int) int { return i/g.cols*6 + i%g.cols }

func (g grid) size() int { return g.rows * g.cols }

// patches4 is winogradInputGeneric for patches of from, into planes of to.
func patches4[M, P float32 | uint16](dst []P, src []M, load func(M) float32, store func(float32) P, patches []int32, from, to grid, c, stride, plane int, m func([6]float32) [6]float32) {
	for t := 0; t < len(patches)/from.size(); t++ {
		for k := range c {
			var x [36]float32
			for i, o := range patches[t*from.size():][:from.size()] {
				if o != NoPixel {
					x[from.put(i)] = load(src[int(o)+k])
				}
			}
			sandwich4(&x, from.cols, m)
			for i := range to.size() {
				dst[i*plane+t*stride+k] = store(x[to.put(i)])
			}
		}
	}
}

// output4 is winogradOutputGeneric from planes of from to 4×4 values: put stores that
// of channel k of the pixel at o.
func output4(src []float32, at []int32, from grid, c, stride, plane int, m func([6]float32) [6]float32, put func(v float32, o, k int)) {
	for t := 0; t < len(at)/16; t++ {
		for k := range c {
			var x [36]float32
			for i := range from.size() {
				x[from.put(i)] = src[i*plane+t*stride+k]
			}
			sandwich4(&x, from.cols, m)
			for i, o := range at[t*16:][:16] {
				if o != NoPixel {
					put(x[i/4*6+i%4], int(o), k)
				}
			}
		}
	}
}

// kernels4 transforms n matrices of from×from elements to to×to: element (i,j)
// of matrix k is src[(from·i+j)·srcStep + k].
func kernels4(dst, src []float32, n, from, to, srcStep, dstStep int, m func([6]float32) [6]float32) {
	for k := range n {
		var x [36]float32
		for i := range from * from {
			x[i/from*6+i%from] = src[i*srcStep+k]
		}
		sandwich4(&x, from, m)
		for i := range to * to {
			dst[i*dstStep+k] = x[i/to*6+i%to]
		}
	}
}
