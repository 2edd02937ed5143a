package ref

import (
	"math"

	"github.com/residual-ml/residual/graph"
)

// windows calls visit for every pixel of the picture that the window of output
// pixel (oh,ow) covers, in row order.
func windows(x array, oh, ow int, a graph.PoolAttrs, visit func(h, w int)) {
	H, W := x.shape[1], x.shape[2]
	for kh := range a.Size {
		for kw := range a.Size {
			h, w := oh*a.Stride+kh-a.Pad.Top, ow*a.Stride+kw-a.Pad.Left
			if h >= 0 && h < H && w >= 0 && w < W {
				visit(h, w)
			}
		}
	}
}

// pixels calls visit for every pixel of a picture [N,H,W,C].
func pixels(y array, visit func(n, h, w int)) {
	for n := range y.shape[0] {
		for h := range y.shape[1] {
			for w := range y.shape[2] {
				visit(n, h, w)
			}
		}
	}
}

// maxPool is OpMaxPool: x [N,H,W,C] → y [N,OH,OW,C]. A NaN in the window wins.
func maxPool(y, x array, a graph.PoolAttrs) {
	pixels(y, func(n, oh, ow int) {
		for c := range y.at(n, oh, ow) {
			best := math.Inf(-1)
			windows(x, oh, ow, a, func(h, w int) { best = max(best, x.at(n, h, w)[c]) })
			y.at(n, oh, ow)[c] = best
		}
	})
}

// maxPoolBackward is OpMaxPoolBackward: dy [N,OH,OW,C], x → dx [N,H,W,C]. The
// first maximum, or the first NaN, of a window in row order takes all.
func maxPoolBackward(dx, dy, x array, a graph.PoolAttrs) {
	pixels(dy, func(n, oh, ow int) {
		for c := range dy.at(n, oh, ow) {
			best, bestH, bestW := math.NaN(), -1, -1
			windows(x, oh, ow, a, func(h, w int) {
				v := x.at(n, h, w)[c]
				if bestH < 0 || v > best || math.IsNaN(v) && !math.IsNaN(best) {
					best, bestH, bestW = v, h, w
				}
			})
			dx.at(n, bestH, bestW)[c] += dy.at(n, oh, ow)[c]
		}
	})
}

// windowSize is the denominator of an average.
func windowSize(x array, oh, ow int, a graph.PoolAttrs) float64 {
	if a.CountPad {
		return float64(a.Size * a.Size)
	}
	var count float64
	windows(x, oh, ow, a, func(_, _ int) { count++ })
	return count
}

// avgPool is OpAvgPool: x [N,H,W,C] → y [N,OH,OW,C].
func avgPool(y, x array, a graph.PoolAttrs) {
	pixels(y, func(n, oh, ow int) {
		count := windowSize(x, oh, ow, a)
		for c := range y.at(n, oh, ow) {
			var sum float64
			windows(x, oh, ow, a, func(h, w int) { sum += x.at(n, h, w)[c] })
			y.at(n, oh, ow)[c] = sum / count
		}
	})
}

// avgPoolBackward is OpAvgPoolBackward: dy [N,OH,OW,C] → dx [N,H,W,C].
func avgPoolBackward(dx, dy array, a graph.PoolAttrs) {
	pixels(dy, func(n, oh, ow int) {
		count := windowSize(dx, oh, ow, a)
		for c, d := range dy.at(n, oh, ow) {
			windows(dx, oh, ow, a, func(h, w int) { dx.at(n, h, w)[c] += d / count })
		}
	})
}

// globalAvgPool is OpGlobalAvgPool: x [N,H,W,C] → y [N,C].
func globalAvgPool(y, x array) {
	area := float64(x.shape[1] * x.shape[2])
	pixels(x, func(n, h, w int) {
		for c, v := range x.at(n, h, w) {
			y.row(n)[c] += v
		}
	})
	for i := range y.v {
		y.v[i] /= area
	}
}

// globalAvgPoolBackward is OpGlobalAvgPoolBackward: dy [N,C] → dx [N,H,W,C].
func globalAvgPoolBackward(dx, dy array) {
	area := float64(dx.shape[1] * dx.shape[2])
	pixels(dx, func(n, h, w int) {
		for c, d := range dy.row(n) {
			dx.at(n, h, w)[c] = d / area
		}
	})
}

// subsample is OpSubsample: y[n,h,w,c] = x[n, h·stride, w·stride, c].
func subsample(y, x array, stride int) {
	pixels(y, func(n, h, w int) { copy(y.at(n, h, w), x.at(n, h*stride, w*stride)) })
}

// subsampleBackward is OpSubsampleBackward: dx[n, h·stride, w·stride, c] = dy[n,h,w,c].
func subsampleBackward(dx, dy array, stride int) {
	pixels(dy, func(n, h, w int) { copy(dx.at(n, h*stride, w*stride), dy.at(n, h, w)) })
}

// padChannels is OpPadChannels.
func padChannels(y, x array, a graph.ChannelAttrs) {
	pixels(x, func(n, h, w int) { copy(y.at(n, h, w)[a.Before:], x.at(n, h, w)) })
}

// sliceChannels is OpSliceChannels.
func sliceChannels(y, x array, a graph.ChannelAttrs) {
	pixels(y, func(n, h, w int) { copy(y.at(n, h, w), x.at(n, h, w)[a.Before:]) })
}
