package ref

import "github.com/residual-ml/residual/graph"

// conv is OpConv: y[n,oh,ow,oc] = Σ x[n, oh·stride+kh-top, ow·stride+kw-left, c] · w[kh,kw,c,oc].
// Taps outside the picture have no term.
//
//	x [N,H,W,C], w [KH,KW,C,OC] → y [N,OH,OW,OC]
func conv(y, x, w array, a graph.ConvAttrs) {
	N, OH, OW := y.shape[0], y.shape[1], y.shape[2]
	H, W := x.shape[1], x.shape[2]
	KH, KW := w.shape[0], w.shape[1]
	forEach(N*OH, func(i int) {
		n, oh := i/OH, i%OH
		for ow := range OW {
			pixel := y.at(n, oh, ow)
			for kh := range KH {
				for kw := range KW {
					ih, iw := oh*a.Stride+kh-a.Pad.Top, ow*a.Stride+kw-a.Pad.Left
					if ih < 0 || ih >= H || iw < 0 || iw >= W {
						continue
					}
					for c, x := range x.at(n, ih, iw) {
						addScaled(pixel, x, w.at(kh, kw, c))
					}
				}
			}
		}
	})
}

// convBackwardData is OpConvBackwardData, from the side of an input pixel
// (ih,iw): in the forward pass it was read by output (oh,ow) through tap
// (kh,kw) where oh·stride+kh-top = ih, so it gathers dx = Σ dy·w from there.
//
//	dy [N,OH,OW,OC], w [KH,KW,C,OC] → dx [N,H,W,C]
func convBackwardData(dx, dy, w array, a graph.ConvAttrs) {
	N, H, W := dx.shape[0], dx.shape[1], dx.shape[2]
	OH, OW := dy.shape[1], dy.shape[2]
	KH, KW := w.shape[0], w.shape[1]
	forEach(N*H, func(i int) {
		n, ih := i/H, i%H
		for iw := range W {
			pixel := dx.at(n, ih, iw)
			for kh := range KH {
				for kw := range KW {
					oh, ow := ih+a.Pad.Top-kh, iw+a.Pad.Left-kw // times stride
					if oh < 0 || ow < 0 || oh%a.Stride != 0 || ow%a.Stride != 0 {
						continue
					}
					oh, ow = oh/a.Stride, ow/a.Stride
					if oh >= OH || ow >= OW {
						continue
					}
					for c := range pixel {
						pixel[c] += dot(dy.at(n, oh, ow), w.at(kh, kw, c))
					}
				}
			}
		}
	})
}

// convBackwardWeights is OpConvBackwardWeights: each weight gathers x·dy from
// every product it took part in.
//
//	x [N,H,W,C], dy [N,OH,OW,OC] → dw [KH,KW,C,OC]
func convBackwardWeights(dw, x, dy array, a graph.ConvAttrs) {
	KH, KW, C := dw.shape[0], dw.shape[1], dw.shape[2]
	N, OH, OW := dy.shape[0], dy.shape[1], dy.shape[2]
	H, W := x.shape[1], x.shape[2]
	forEach(KH*KW*C, func(i int) {
		kh, kw, c := i/C/KW, i/C%KW, i%C
		weights := dw.at(kh, kw, c)
		for n := range N {
			for oh := range OH {
				for ow := range OW {
					ih, iw := oh*a.Stride+kh-a.Pad.Top, ow*a.Stride+kw-a.Pad.Left
					if ih < 0 || ih >= H || iw < 0 || iw >= W {
						continue
					}
					addScaled(weights, x.at(n, ih, iw)[c], dy.at(n, oh, ow))
				}
			}
		}
	})
}

// addScaled is y += a·x.
func addScaled(y []float64, a float64, x []float64) {
	x = x[:len(y)]
	for i := range y {
		y[i] += a * x[i]
	}
}

// dot is Σ x·y.
func dot(x, y []float64) float64 {
	y = y[:len(x)]
	var sum float64
	for i := range x {
		sum += x[i] * y[i]
	}
	return sum
}

// matMul is OpMatMul: y[i,j] = Σ_k a[i,k]·b[k,j], where a transposed operand
// is read with its indices exchanged.
func matMul(y, a, b array, attrs graph.MatMulAttrs) {
	M, N := y.shape[0], y.shape[1]
	ai, ak, K := a.shape[1], 1, a.shape[1] // steps from row to row and along k
	if attrs.TransposeA {
		ai, ak, K = 1, a.shape[1], a.shape[0]
	}
	bk, bj := b.shape[1], 1
	if attrs.TransposeB {
		bk, bj = 1, b.shape[1]
	}
	forEach(M, func(i int) {
		for j := range N {
			for k := range K {
				y.v[i*N+j] += a.v[i*ai+k*ak] * b.v[k*bk+j*bj]
			}
		}
	})
}
