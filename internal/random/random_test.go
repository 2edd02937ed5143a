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
