package kernel

import (
	"fmt"
	"testing"
)

// stride2Matrices returns what transforms of stride 2 multiply by, from the matrices of
// F(4×4,2×2), whose divisors go from G to A. A kernel's matrix has the row of its middle
// tap last.
func stride2Matrices() matrices {
	bt, g, at := cookToom(4, 2, 0.5, -0.5, 1.5, -1.5)
	for j := range 4 {
		sign, divisor := float64(1-2*(j%2)), 1/g[j][0] // that of -a is the negative of that of a
		for i := range bt[j] {
			bt[j][i] *= sign
		}
		for i := range at {
			at[i][j] /= sign * divisor
		}
		g[j][1] *= divisor
		g[j][0] = 1
	}
	var weights [][]float64
	for _, row := range g {
		weights = append(weights, []float64{row[0], 0, row[1]})
	}
	weights = append(weights, []float64{0, 1, 0})
	return matrices{bt, transposed(at), at, weights, transposed(weights)}
}

// inPhase returns the part of a matrix for the odd inputs of a phase: without the last
// row and column where those are of the point ∞.
func inPhase(m [][]float64, odd, rows, columns bool) (part [][]float64) {
	for i, row := range m {
		if odd && rows && i == 4 {
			break
		}
		if odd && columns {
			row = row[:4]
		}
		part = append(part, row)
	}
	return part
}

// TestStride2Matrices multiplies nine numbers with three taps by them.
func TestStride2Matrices(t *testing.T) {
	m := stride2Matrices()
	x, w := [9]float64{2, 3, 5, 7, 11, 13, 17, 19, 23}, [3]float64{29, 31, 37}
	for o := range 4 {
		want := x[2*o]*w[0] + x[2*o+1]*w[1] + x[2*o+2]*w[2]
		got := 0.0
		for j := range 5 {
			even, odd, outer, middle := 0.0, 0.0, 0.0, w[1]
			for i := range 5 {
				even += m.input[j][i] * x[2*i]
			}
			for i := range 4 {
				if j < 4 {
					odd += m.input[j][i] * x[2*i+1]
				}
			}
			for i := range w {
				outer += m.weights[j][i] * w[i]
			}
			got += m.output[o][j] * (even*outer + odd*middle)
		}
		if !near(float32(got), want, 1e-3) {
			t.Errorf("output %d is %v, want %v", o, got, want)
		}
	}
}

func TestStride2(t *testing.T) {
	m := stride2Matrices()
	forEachSet(t, func(t *testing.T, k *Kernels) {
		bothFillers(func(f filler, limit func(float64) float64) {
			if !f.real {
				return // 1/6 is not exact
			}
			for _, c := range []int{1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 40, 65} {
				for phase := range k.Stride2.Phases {
					transforms, oddRows, oddColumns := &k.Stride2.Phases[phase], phase/2 == 1, phase%2 == 1
					t.Run(fmt.Sprintf("phase %d/input/C=%d", phase, c), func(t *testing.T) {
						testPatches(t, transforms.Input, inPhase(m.input, oddRows, true, true), inPhase(m.input, oddColumns, true, true), f, limit, c)
					})
					t.Run(fmt.Sprintf("phase %d/output/C=%d", phase, c), func(t *testing.T) {
						testOutput(t, transforms.Output, inPhase(m.output, oddRows, false, true), inPhase(m.output, oddColumns, false, true), f, limit, c)
					})
				}
				t.Run(fmt.Sprintf("gradient/C=%d", c), func(t *testing.T) {
					testPatches(t, k.Stride2.Phases[0].Gradient, m.gradient, m.gradient, f, limit, c)
				})
				t.Run(fmt.Sprintf("weights/C=%d", c), func(t *testing.T) {
					testKernels(t, k.Stride2.Weights, m.weights, f, limit, c)
				})
				t.Run(fmt.Sprintf("sums/C=%d", c), func(t *testing.T) {
					testKernels(t, func(dst, src []float32, n, plane, tap int) { k.Stride2.Sums(dst, src, n, tap, plane) }, m.sums, f, limit, c)
				})
			}
		})
	})
}
