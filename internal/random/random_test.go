package random

import (
	"math"
	"slices"
	"testing"
)

// The numbers are part of what a seed means: a change here changes every run.
func TestStreamIsFixed(t *testing.T) {
	s := New(1, 2, Name("conv1.weight"))
	got := []uint64{s.Uint64(), s.Uint64(), s.Uint64()}
	want := []uint64{0xc59d2ad96fbf03c0, 0xd751f4eced7069d0, 0x57613e4fedfa64f0}
	if !slices.Equal(got, want) {
		t.Errorf("stream = %#x, want %#x", got, want)
	}
	if a, b := New(1, 2, 3).Uint64(), New(1, 3, 2).Uint64(); a == b {
		t.Error("the order of coordinates does not matter")
	}
}

func TestMoments(t *testing.T) {
	s := New(7)
	const n = 200_000
	var mean, variance, third, uniform float64
	for range n {
		x := s.Normal()
		mean += x / n
		variance += x * x / n
		third += x * x * x / n
		uniform += s.Float64() / n
	}
	if math.Abs(mean) > 0.01 || math.Abs(variance-1) > 0.02 || math.Abs(third) > 0.05 {
		t.Errorf("normal moments %.4f %.4f %.4f, want 0 1 0", mean, variance, third)
	}
	if math.Abs(uniform-0.5) > 0.005 {
		t.Errorf("uniform mean %.4f, want 0.5", uniform)
	}
}

func TestPermIsAPermutation(t *testing.T) {
	p := New(3).Perm(1000)
	sorted := slices.Sorted(slices.Values(p))
	for i, v := range sorted {
		if v != i {
			t.Fatalf("element %d is %d", i, v)
		}
	}
	if slices.Equal(p, sorted) {
		t.Error("nothing was shuffled")
	}
}

// Beta(a,b) has the mean a/(a+b) and the variance ab/((a+b)²(a+b+1)), and stays a
// number where gamma variates are too small for one.
func TestBeta(t *testing.T) {
	for _, c := range []struct{ a, b float64 }{{1, 1}, {0.2, 0.2}, {2, 5}, {8, 8}, {0.5, 3}} {
		s := New(1, Name("beta"))
		const n = 40000
		sum, squares := 0.0, 0.0
		for range n {
			x := s.Beta(c.a, c.b)
			if !(x >= 0 && x <= 1) {
				t.Fatalf("Beta(%v,%v) gives %v", c.a, c.b, x)
			}
			sum, squares = sum+x, squares+x*x
		}
		mean := sum / n
		variance := squares/n - mean*mean
		wantMean := c.a / (c.a + c.b)
		want := wantMean * (1 - wantMean) / (c.a + c.b + 1)
		// Five deviations of the mean are 5·√(variance/n); the variance's are within 5 %.
		if math.Abs(mean-wantMean) > 5*math.Sqrt(want/n) || math.Abs(variance-want) > 0.05*want {
			t.Errorf("Beta(%v,%v): mean %.4f and variance %.5f, want %.4f and %.5f", c.a, c.b, mean, variance, wantMean, want)
		}
	}
	s := New(2)
	for range 1000 {
		if x := s.Beta(1e-3, 1e-3); math.IsNaN(x) {
			t.Fatal("Beta(0.001,0.001) is not a number")
		}
	}
}
