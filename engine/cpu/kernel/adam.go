package kernel

import "math"

// Factors of Adam, in this order.
const (
	AdamKeep1 = iota // β₁
	AdamTake1        // 1-β₁
	AdamKeep2        // β₂
	AdamTake2        // 1-β₂
	AdamRate
	AdamRoot
	AdamEpsilon
	AdamShrink
	AdamFactors // how many there are
)

// adamGeneric is an update of parameters by Adam (root and shrink 1) or AdamW, each
// operation rounded as if alone:
//
//	m = m·keep1 + g·take1
//	v = v·keep2 + g²·take2
//	p = p·shrink - (m·rate)/(√v·root + ε)
func adamGeneric(p, m, v, g, factors []float32) {
	f := (*[AdamFactors]float32)(factors)
	m, v, g = m[:len(p)], v[:len(p)], g[:len(p)]
	for i, x := range g {
		// Conversions keep compilers from fusing products and sums.
		m[i] = float32(m[i]*f[AdamKeep1]) + float32(x*f[AdamTake1])
		v[i] = float32(v[i]*f[AdamKeep2]) + float32(float32(x*x)*f[AdamTake2])
		root := float32(float32(math.Sqrt(float64(v[i]))) * f[AdamRoot])
		p[i] = float32(p[i]*f[AdamShrink]) - float32(m[i]*f[AdamRate])/(root+f[AdamEpsilon])
	}
}
