package ref

import (
	"math"

	"github.com/residual-ml/residual/graph"
)

// bias is OpBias: y = x + b, x […,C], b [C].
func bias(y, x, b array) {
	rows, C := x.rows()
	for i := range rows {
		for c := range C {
			y.row(i)[c] = x.row(i)[c] + b.v[c]
		}
	}
}

// sumChannels is OpSumChannels: x […,C] → y [C].
func sumChannels(y, x array) {
	rows, C := x.rows()
	for i := range rows {
		for c := range C {
			y.v[c] += x.row(i)[c]
		}
	}
}

// batchMean is OpBatchMean: x […,C] → mean [C].
func batchMean(mean, x array) {
	M, C := x.rows()
	sumChannels(mean, x)
	for c := range C {
		mean.v[c] /= float64(M)
	}
}

// batchVariance is OpBatchVariance: Σ(x-mean)²/M, x […,C], mean [C] → [C].
func batchVariance(variance, x, mean array) {
	M, C := x.rows()
	for i := range M {
		for c := range C {
			d := x.row(i)[c] - mean.v[c]
			variance.v[c] += d * d
		}
	}
	for c := range C {
		variance.v[c] /= float64(M)
	}
}

// batchNorm is OpBatchNorm: y = (x-mean)/√(variance+ε)·γ + β.
func batchNorm(y, x, scale, shift, mean, variance array, a graph.NormAttrs) {
	M, C := x.rows()
	for i := range M {
		for c := range C {
			normed := (x.row(i)[c] - mean.v[c]) / math.Sqrt(variance.v[c]+a.Epsilon)
			y.row(i)[c] = normed*scale.v[c] + shift.v[c]
		}
	}
}

// batchNormBackwardScale is OpBatchNormBackwardScale: y = x̂·γ + β, so dγ = Σ dy·x̂.
func batchNormBackwardScale(dScale, dy, x, mean, variance array, a graph.NormAttrs) {
	M, C := x.rows()
	for i := range M {
		for c := range C {
			normed := (x.row(i)[c] - mean.v[c]) / math.Sqrt(variance.v[c]+a.Epsilon)
			dScale.v[c] += dy.row(i)[c] * normed
		}
	}
}

// batchNormBackwardTraining is OpBatchNormBackwardData where mean and variance
// are those of x: dx = γ/√(variance+ε) · (dy - dβ/M - x̂·dγ/M).
func batchNormBackwardTraining(dx, dy, x, scale, mean, variance, dScale, dShift array, a graph.NormAttrs) {
	M, C := x.rows()
	for i := range M {
		for c := range C {
			deviation := math.Sqrt(variance.v[c] + a.Epsilon)
			normed := (x.row(i)[c] - mean.v[c]) / deviation
			d := dy.row(i)[c] - dShift.v[c]/float64(M) - normed*dScale.v[c]/float64(M)
			dx.row(i)[c] = scale.v[c] / deviation * d
		}
	}
}

// batchNormBackwardInference is OpBatchNormBackwardData where mean and variance
// do not depend on x: dx = γ/√(variance+ε) · dy.
func batchNormBackwardInference(dx, dy, scale, variance array, a graph.NormAttrs) {
	M, C := dy.rows()
	for i := range M {
		for c := range C {
			dx.row(i)[c] = scale.v[c] / math.Sqrt(variance.v[c]+a.Epsilon) * dy.row(i)[c]
		}
	}
}

// scaleChannels is OpScaleChannels: y = x·s, x [N,H,W,C], s [N,C] or [N].
func scaleChannels(y, x, s array) {
	pixels(x, func(n, h, w int) {
		for c, v := range x.at(n, h, w) {
			if len(s.shape) == 1 {
				y.at(n, h, w)[c] = v * s.v[n]
			} else {
				y.at(n, h, w)[c] = v * s.row(n)[c]
			}
		}
	})
}
