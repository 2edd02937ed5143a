package ref

import (
	"fmt"
	"math"
	"slices"

	"github.com/residual-ml/residual/graph"
)

// logSumExp is log Σ exp z, with the maximum taken out so that nothing overflows.
func logSumExp(z []float64) float64 {
	top := slices.Max(z) // NaN if there is one
	var sum float64
	for _, z := range z {
		sum += math.Exp(z - top)
	}
	return top + math.Log(sum)
}

// softmax is OpSoftmax: y = exp(x)/Σ exp(x), x [N,K] → y [N,K].
func softmax(y, x array) {
	N, K := x.rows()
	for n := range N {
		top := slices.Max(x.row(n))
		var sum float64
		for k := range K {
			y.row(n)[k] = math.Exp(x.row(n)[k] - top)
			sum += y.row(n)[k]
		}
		for k := range K {
			y.row(n)[k] /= sum
		}
	}
}

// softmaxBackward is OpSoftmaxBackward: dx = y·(dy - Σ dy·y), all [N,K].
func softmaxBackward(dx, dy, y array) {
	N, K := y.rows()
	for n := range N {
		sum := dot(dy.row(n), y.row(n))
		for k := range K {
			dx.row(n)[k] = y.row(n)[k] * (dy.row(n)[k] - sum)
		}
	}
}

// oneHot is OpOneHot: labels [N] → y [N,K], 1-s+s/K at the label and s/K elsewhere.
func oneHot(y, labels array, a graph.OneHotAttrs) error {
	rest := a.Smoothing / float64(a.Classes)
	for n, label := range labels.v {
		if label < 0 || int(label) >= a.Classes {
			return fmt.Errorf("one_hot: label %d is %d, want 0..%d for %d classes", n, int(label), a.Classes-1, a.Classes)
		}
		for k := range y.row(n) {
			y.row(n)[k] = rest
		}
		y.row(n)[int(label)] = 1 - a.Smoothing + rest
	}
	return nil
}

// crossEntropy is OpCrossEntropy: l = Σ t·(log Σ exp z - z), z and t [N,K] → l [N].
func crossEntropy(l, z, t array) {
	N, K := z.rows()
	for n := range N {
		lse := logSumExp(z.row(n))
		for k := range K {
			l.v[n] += t.row(n)[k] * (lse - z.row(n)[k])
		}
	}
}

// crossEntropyBackward is OpCrossEntropyBackward: dz = dl·(softmax(z)·Σt - t),
// dl [N], z and t [N,K] → dz [N,K].
func crossEntropyBackward(dz, dl, z, t array) {
	N, K := z.rows()
	softmax(dz, z)
	for n := range N {
		var total float64
		for k := range K {
			total += t.row(n)[k]
		}
		for k := range K {
			dz.row(n)[k] = dl.v[n] * (dz.row(n)[k]*total - t.row(n)[k])
		}
	}
}
