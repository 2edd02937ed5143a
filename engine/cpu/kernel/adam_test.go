package kernel

import (
	"math"
	"slices"
	"testing"
)

// Updates are those of the formula in float64 but for a few roundings, of every length,
// and the bits of adamGeneric.
func TestAdam(t *testing.T) {
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, _ func(float64) float64) {
			for n := range 70 {
				testAdam(t, k, f, n)
			}
		})
	})
}

func testAdam(t *testing.T, k *Kernels, f filler, n int) {
	t.Helper()
	var operands, before [4][]float32 // p, m, v, g
	var checks []func()
	for i := range operands {
		s, check := guarded(t, n, i)
		f.fill(s)
		operands[i], checks = s, append(checks, check)
	}
	p, m, v, g := operands[0], operands[1], operands[2], operands[3]
	for i := range v {
		v[i] = float32(math.Abs(float64(v[i])))
	}
	for i := range operands {
		before[i] = slices.Clone(operands[i])
	}
	factors := []float32{0.9, 0.1, 0.999, 0.001, 0.01, 1.5, 1e-3, 0.99}
	k.Adam(p, m, v, g, factors)
	for _, check := range checks {
		check()
	}
	want := func(i int, o *[4][]float32) [3]float64 {
		f := func(j int) float64 { return float64(factors[j]) }
		x := float64(o[3][i])
		m := float64(o[1][i])*f(0) + x*f(1)
		v := float64(o[2][i])*f(2) + x*x*f(3)
		return [3]float64{float64(o[0][i])*f(7) - m*f(4)/(math.Sqrt(v)*f(5)+f(6)), m, v}
	}
	for i := range n {
		w := want(i, &before)
		mAbs := math.Abs(float64(before[1][i])) + math.Abs(float64(before[3][i]))
		// An error of m counts rate/ε times in p at most.
		limits := [3]float64{0x1p-21 * (math.Abs(float64(before[0][i])) + mAbs*10), 0x1p-22 * mAbs, 0x1p-22 * w[2]}
		for j, got := range []float32{p[i], m[i], v[i]} {
			if !near(got, w[j], limits[j]) {
				t.Fatalf("n=%d: %s[%d] = %v, want %v", n, []string{"p", "m", "v"}[j], i, got, w[j])
			}
		}
	}
	if !slices.Equal(g, before[3]) {
		t.Fatalf("n=%d: g has changed", n)
	}
	adamGeneric(before[0], before[1], before[2], before[3], factors)
	for j := range operands {
		if !slices.Equal(operands[j], before[j]) {
			t.Fatalf("n=%d: operand %d has other bits than generic Go makes", n, j)
		}
	}
}
