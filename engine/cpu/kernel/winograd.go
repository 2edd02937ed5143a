package kernel

// Winograd's minimal filtering F(2×2,3×3) after Lavin and Gray 2015,
// https://arxiv.org/abs/1509.09308: a tile of 2×2 outputs of a 3×3 convolution is
//
//	Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A
//
// of the 4×4 patch d and the kernel g, with 16 products for each pair of
// channels where the definition has 36. Its derivative by g is
//
//	dg = Gᵀ [Σ (A dY Aᵀ) ⊙ (Bᵀ d B)] G
//
//	     1  0 -1  0        1   0   0         1  1  1  0
//	Bᵀ = 0  1  1  0   G =  ½   ½   ½    Aᵀ = 0  1 -1 -1
//	     0 -1  1  0        ½  -½   ½
//	     0  1  0 -1        0   0   1
//
// The kernels here are the transforms. Transformed values lie in 16 planes: plane
// 4i+j holds element (i,j) of all tiles, tiles stride elements apart. The
// products are 16 matrix products, one for each plane.

// Winograd is the set of transforms. Each field's documentation is the generic
// function of the same name.
type Winograd struct {
	Transforms[float32, float32]
	Weights func(dst, src []float32, n, tap, plane int)
	Sums    func(dst, src []float32, n, tap, plane int)
}

// Transforms are those from and to feature maps of elements M: patches go to
// planes of elements P, and sums come from planes of float32.
type Transforms[M, P float32 | uint16] struct {
	Input    func(dst []P, src, zero []M, patches []int32, c, stride, plane int)
	Gradient func(dst []P, src, zero []M, patches []int32, c, stride, plane int)
	Output   func(dst []M, src []float32, at []int32, c, stride, plane int)

	OutputEpilogue func(dst []M, src []float32, at []int32, stride, plane int, add []M, bias []float32, before, after float32)
}

// after returns transforms that run first on whole vectors of the given number
// of channels, once more on the last of them if some remain, and rest where there is
// not one vector, or where that must not be: what is added may be overwritten.
func (rest Transforms[M, P]) after(lanes int, first Transforms[M, P]) Transforms[M, P] {
	return Transforms[M, P]{
		Input:    patchesAfter(lanes, first.Input, rest.Input),
		Gradient: patchesAfter(lanes, first.Gradient, rest.Gradient),
		Output: func(dst []M, src []float32, at []int32, c, stride, plane int) {
			switch last := c - lanes; {
			case last < 0:
				rest.Output(dst, src, at, c, stride, plane)
				return
			case last%lanes != 0:
				first.Output(dst[last:], src[last:], at, lanes, stride, plane)
			}
			first.Output(dst, src, at, c, stride, plane)
		},
		OutputEpilogue: func(dst []M, src []float32, at []int32, stride, plane int, add []M, bias []float32, before, after float32) {
			first.OutputEpilogue(dst, src, at, stride, plane, add, bias, before, after)
			if done := len(bias) / lanes * lanes; done < len(bias) {
				rest.OutputEpilogue(dst[done:], src[done:], at, stride, plane, add[min(done, len(add)):], bias[done:], before, after)
			}
		},
	}
}

// patchesAfter is Transforms.after for Input and Gradient.
func patchesAfter[M, P float32 | uint16](lanes int, first, rest func(dst []P, src, zero []M, patches []int32, c, stride, plane int)) func(dst []P, src, zero []M, patches []int32, c, stride, plane int) {
	return func(dst []P, src, zero []M, patches []int32, c, stride, plane int) {
		switch last := c - lanes; {
		case last < 0:
			rest(dst, src, zero, patches, c, stride, plane)
			return
		case last%lanes != 0:
			first(dst[last:], src[last:], zero, patches, lanes, stride, plane)
		}
		first(dst, src, zero, patches, c, stride, plane)
	}
}

// after is Transforms.after for all of them.
func (rest Winograd) after(lanes int, first Winograd) Winograd {
	type kernels = func(dst, src []float32, n, from, to int)
	both := func(first, rest kernels) kernels {
		return func(dst, src []float32, n, from, to int) {
			first(dst, src, n, from, to)
			if done := n / lanes * lanes; done < n {
				rest(dst[done:], src[done:], n-done, from, to)
			}
		}
	}
	return Winograd{rest.Transforms.after(lanes, first.Transforms), both(first.Weights, rest.Weights), both(first.Sums, rest.Sums)}
}

// winogradInputGeneric transforms patches of c channels: with d the 4×4 values at
// the 16 offsets of patch t, 0 at NoPixel, for k < c
//
//	dst[(4i+j)·plane + t·stride + k] = (Bᵀ d B)[i][j]
//
// zero has at least c zeros.
func winogradInputGeneric(dst, src, _ []float32, patches []int32, c, stride, plane int) {
	for t := 0; t < len(patches)/16; t++ {
		for k := range c {
			var d, r [16]float32
			for i, o := range patches[t*16:][:16] {
				if o != NoPixel {
					d[i] = src[int(o)+k]
				}
			}
			for j := range 4 {
				r[j], r[4+j], r[8+j], r[12+j] = d[j]-d[8+j], d[4+j]+d[8+j], d[8+j]-d[4+j], d[4+j]-d[12+j]
			}
			at := t*stride + k
			for i := 0; i < 16; i += 4 {
				row := r[i:][:4]
				dst[i*plane+at] = row[0] - row[2]
				dst[(i+1)*plane+at] = row[1] + row[2]
				dst[(i+2)*plane+at] = row[2] - row[1]
				dst[(i+3)*plane+at] = row[1] - row[3]
			}
		}
	}
}

// winogradGradientGeneric transforms gradients of 2×2 outputs in the same way
// into A dY Aᵀ, except that the last row of A has the other sign, which saves
// negations; winogradSums takes that back. patches has 4 offsets per tile.
func winogradGradientGeneric(dst, src, _ []float32, patches []int32, c, stride, plane int) {
	for t := 0; t < len(patches)/4; t++ {
		for k := range c {
			var d [4]float32
			for i, o := range patches[t*4:][:4] {
				if o != NoPixel {
					d[i] = src[int(o)+k]
				}
			}
			at := t*stride + k
			for i, row := range [4][2]float32{{d[0], d[1]}, {d[0] + d[2], d[1] + d[3]}, {d[0] - d[2], d[1] - d[3]}, {d[2], d[3]}} {
				dst[4*i*plane+at] = row[0]
				dst[(4*i+1)*plane+at] = row[0] + row[1]
				dst[(4*i+2)*plane+at] = row[0] - row[1]
				dst[(4*i+3)*plane+at] = row[1]
			}
		}
	}
}

// winogradOutputGeneric transforms products back: with m[i][j] =
// src[(4i+j)·plane + t·stride + k], the 2×2 values Aᵀ m A go to the 4 offsets of
// tile t in at, plus k; NoPixel is left out.
func winogradOutputGeneric(dst, src []float32, at []int32, c, stride, plane int) {
	for t := 0; t < len(at)/4; t++ {
		for k := range c {
			m := func(i, j int) float32 { return src[(4*i+j)*plane+t*stride+k] }
			var s [2][4]float32
			for j := range 4 {
				s[0][j] = m(1, j) + m(0, j) + m(2, j)
				s[1][j] = m(1, j) - m(2, j) - m(3, j)
			}
			for i, o := range at[t*4:][:4] {
				if o == NoPixel {
					continue
				}
				v := &s[i/2]
				if i%2 == 0 {
					dst[int(o)+k] = v[0] + v[1] + v[2]
				} else {
					dst[int(o)+k] = v[1] - v[2] - v[3]
				}
			}
		}
	}
}

// winogradWeightsGeneric transforms n kernels g[a][b] = src[(3a+b)·tap + k]:
//
//	dst[(4i+j)·plane + k] = (G g Gᵀ)[i][j]
func winogradWeightsGeneric(dst, src []float32, n, tap, plane int) {
	for k := range n {
		var r [4][3]float32
		for b := range 3 {
			g0, g1, g2 := src[b*tap+k], src[(3+b)*tap+k], src[(6+b)*tap+k]
			r[0][b], r[1][b], r[2][b], r[3][b] = g0, (g0+g2+g1)*0.5, (g0+g2-g1)*0.5, g2
		}
		for i, row := range r {
			dst[4*i*plane+k] = row[0]
			dst[(4*i+1)*plane+k] = (row[0] + row[2] + row[1]) * 0.5
			dst[(4*i+2)*plane+k] = (row[0] + row[2] - row[1]) * 0.5
			dst[(4*i+3)*plane+k] = row[2]
		}
	}
}

// winogradSumsGeneric transforms sums of products s[i][j] = src[(4i+j)·plane + k]
// into gradients of n kernels, with the last row of G negative, as
// winogradGradient wants:
//
//	dst[(3a+b)·tap + k] = (Gᵀ s G)[a][b]
func winogradSumsGeneric(dst, src []float32, n, tap, plane int) {
	for k := range n {
		var r [3][4]float32
		for j := range 4 {
			s0, s1, s2, s3 := src[j*plane+k], src[(4+j)*plane+k], src[(8+j)*plane+k], src[(12+j)*plane+k]
			r[0][j], r[1][j], r[2][j] = s0+(s1+s2)*0.5, (s1-s2)*0.5, (s1+s2)*0.5-s3
		}
		for a, row := range r {
			dst[3*a*tap+k] = row[0] + (row[1]+row[2])*0.5
			dst[(3*a+1)*tap+k] = (row[1] - row[2]) * 0.5
			dst[(3*a+2)*tap+k] = (row[1]+row[2])*0.5 - row[3]
		}
	}
}

// transposeGeneric: dst[j·dstStride+i] = src[i·srcStride+j], i < rows, j < cols.
func transposeGeneric(dst, src []float32, rows, cols, dstStride, srcStride int) {
	for i := range rows {
		at := i
		for _, v := range src[i*srcStride:][:cols] {
			dst[at] = v
			at += dstStride
		}
	}
}
