package metric

import (
	"math"
	"slices"
	"testing"
)

// What no oracle says: empty, constant and not finite inputs.

func TestSampleOfFew(t *testing.T) {
	var s Sample
	if low, high := s.Interval(); !math.IsNaN(low) || !math.IsNaN(high) {
		t.Errorf("interval of nothing: %v to %v", low, high)
	}
	s.Add(3)
	if low, high := s.Interval(); s.Mean != 3 || !math.IsNaN(low) || !math.IsNaN(high) {
		t.Errorf("one number: mean %v, interval %v to %v", s.Mean, low, high)
	}
	if d := s.Deviation(); !math.IsNaN(d) {
		t.Errorf("one number: deviation %v", d)
	}
	s.Add(3)
	if low, high := s.Interval(); low != 3 || high != 3 {
		t.Errorf("twice the same: %v to %v", low, high)
	}
	s.Add(6) // 3, 3, 6: mean 4, variance (1+1+4)/2 = 3, standard error 1
	if low, high := s.Interval(); math.Abs(low-(4-z95)) > 1e-15 || math.Abs(high-(4+z95)) > 1e-15 {
		t.Errorf("3, 3, 6: %v to %v, want 4 ± %v", low, high, z95)
	}
	if d := s.Deviation(); math.Abs(d-math.Sqrt(3)) > 1e-15 {
		t.Errorf("3, 3, 6: deviation %v, want √3", d)
	}
	const t2 = 4.302652729749462 // scipy.stats.t.ppf(0.975, 2)
	if low, high := s.IntervalOfFew(); math.Abs(low-(4-t2)) > 1e-12 || math.Abs(high-(4+t2)) > 1e-12 {
		t.Errorf("3, 3, 6: %v to %v, want 4 ± %v", low, high, t2)
	}
	var one Sample
	one.Add(3)
	if low, high := one.IntervalOfFew(); !math.IsNaN(low) || !math.IsNaN(high) {
		t.Errorf("one number: %v to %v", low, high)
	}
}

// Quantiles by scipy.stats.t.ppf(0.975, freedom), SciPy 1.
func TestStudent(t *testing.T) {
	for freedom, want := range map[int]float64{1: 12.706204736174694, 2: 4.302652729749462, 3: 3.1824463052837078, 4: 2.7764451051977934,
		9: 2.262157162798205, 29: 2.045229642132703, 240: 1.9698976350766917, 999: 1.9623414611334493} {
		if got := student95(freedom); math.Abs(got-want) > 1e-11*want {
			t.Errorf("%d degrees of freedom: %v, want %v", freedom, got, want)
		}
	}
}

func TestSoftmaxLimits(t *testing.T) {
	p := make([]float64, 2)
	Softmax(p, []float32{1000, -1000}, 1)
	if p[0] != 1 || p[1] != 0 {
		t.Errorf("far apart: %v", p)
	}
	if got := CrossEntropy([]float32{1000, -1000}, 1, 1); got != 2000 {
		t.Errorf("cross-entropy of probability 0: %v, want 2000", got)
	}
	if got := CrossEntropy([]float32{1000, -1000}, 1, 4); got != 500 {
		t.Errorf("at temperature 4: %v, want 500", got)
	}
	Softmax(p, []float32{0, nan}, 1)
	if !math.IsNaN(p[0]) || !math.IsNaN(p[1]) || !math.IsNaN(CrossEntropy([]float32{0, nan}, 0, 1)) {
		t.Errorf("with NaN: %v", p)
	}
}

func TestReliabilityLimits(t *testing.T) {
	r := NewReliability(10)
	if !math.IsNaN(r.ECE()) || !math.IsNaN(r.MCE()) {
		t.Error("errors of nothing exist")
	}
	for _, bad := range []float64{-0.1, 1.1, math.NaN()} {
		if err := r.Add(bad, true); err == nil {
			t.Errorf("confidence %v was accepted", bad)
		}
	}
	// The edges belong to the bin below, 0 to the first: (0,0.1] gets 0 and 0.1,
	// (0.4,0.5] gets 0.5, (0.9,1] gets 1.
	for _, c := range []float64{0, 0.1, 0.5, 1} {
		if err := r.Add(c, c == 1); err != nil {
			t.Fatal(err)
		}
	}
	var counts []int
	for _, b := range r.Bins() {
		counts = append(counts, b.Count)
	}
	if !slices.Equal(counts, []int{2, 0, 0, 0, 1, 0, 0, 0, 0, 1}) {
		t.Errorf("bins %v", counts)
	}
	// Gaps: bin 1 |0 - 0.05|, bin 5 |0 - 0.5|, bin 10 |1 - 1|.
	if got, want := r.ECE(), (0.1+0.5)/4; math.Abs(got-want) > 1e-15 || r.MCE() != 0.5 {
		t.Errorf("ECE %v, want %v; MCE %v, want 0.5", got, want, r.MCE())
	}
}

func TestTemperatureLimits(t *testing.T) {
	inf := float32(math.Inf(1))
	for name, c := range map[string]struct {
		logits []float32
		labels []int
		want   float64
	}{
		"all right":      {[]float32{1, 0, 0, 1}, []int{0, 1}, MinTemperature},
		"all wrong":      {[]float32{1, 0, 0, 1}, []int{1, 0}, MaxTemperature},
		"knows nothing":  {[]float32{0, 0, 0, 0}, []int{1, 0}, MaxTemperature},
		"three of four":  {[]float32{3, 0, 3, 0, 3, 0, 3, 0}, []int{0, 0, 0, 1}, 3 / math.Log(3)}, // 1/(1+e^(-3/T)) = 3/4
		"large constant": {[]float32{903, 900, 903, 900, 903, 900, 903, 900}, []int{0, 0, 0, 1}, 3 / math.Log(3)},
	} {
		got, err := FitTemperature(c.logits, 2, c.labels)
		if err != nil || math.Abs(got-c.want) > 1e-9*c.want {
			t.Errorf("%s: temperature %v, %v, want %v", name, got, err, c.want)
		}
	}
	for name, logits := range map[string][]float32{"NaN": {nan, 0}, "infinite": {inf, 0}, "too few": {1}} {
		if _, err := FitTemperature(logits, 2, []int{0}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := FitTemperature(nil, 2, []int{}); err == nil {
		t.Error("nothing: no error")
	}
}

// Four answers: 0.9 right, 0.8 wrong and right, NaN (taken as 0) wrong.
func TestCoverageTies(t *testing.T) {
	var c Coverage
	if !math.IsNaN(c.AURC()) || len(c.Curve(10)) != 0 {
		t.Error("a curve of nothing exists")
	}
	c.Add(math.NaN(), false)
	c.Add(0.8, false)
	c.Add(0.9, true)
	c.Add(0.8, true)
	want := []CoveragePoint{{0.9, 1, 1}, {0.8, 3, 2}, {0, 4, 2}}
	if got := c.Curve(100); !slices.Equal(got, want) {
		t.Errorf("curve %v, want %v", got, want)
	}
	if got := c.Curve(1); !slices.Equal(got, want[2:]) {
		t.Errorf("curve of one point %v, want all pictures", got)
	}
	if got, want := c.AURC(), (0+2*(1.0/3)+0.5)/4; math.Abs(got-want) > 1e-15 {
		t.Errorf("AURC %v, want %v", got, want)
	}
	if p, ok := c.ForAccuracy(0.6); !ok || p != want[1] {
		t.Errorf("for 60 %%: %v, %v", p, ok)
	}
	if p, ok := c.ForAccuracy(0.5); !ok || p != want[2] {
		t.Errorf("for 50 %%: %v, %v, want all pictures", p, ok)
	}
	if p, ok := c.ForAccuracy(1.1); ok {
		t.Errorf("110 %% accuracy was reached: %v", p)
	}
}

func TestMostConfused(t *testing.T) {
	c := NewConfusion(3)
	for _, p := range [][2]int{{0, 1}, {2, 0}, {2, 0}, {1, 1}, {1, 0}, {1, -1}} {
		if err := c.Add(p[0], p[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := []ConfusedPair{{2, 0, 2}, {0, 1, 1}, {1, 0, 1}}
	if got := c.MostConfused(9); !slices.Equal(got, want) {
		t.Errorf("most confused %v, want %v", got, want)
	}
	if got := c.MostConfused(1); !slices.Equal(got, want[:1]) {
		t.Errorf("the most confused pair %v", got)
	}
}

func TestPairedCounts(t *testing.T) {
	var p Paired
	for _, x := range [][2]bool{{true, true}, {true, false}, {false, true}, {false, true}, {false, false}} {
		p.Add(x[0], x[1])
	}
	if p != (Paired{1, 1, 2, 1}) || p.Images() != 5 || p.Difference() != 0.2 || p.PValue() != 1 {
		t.Errorf("%+v: %d pictures, difference %v, p %v", p, p.Images(), p.Difference(), p.PValue())
	}
	if got := (Paired{OnlyB: 3}).PValue(); math.Abs(got-0.25) > 1e-15 { // 2·(1/2)³
		t.Errorf("3 to 0: p %v, want 0.25", got)
	}
}
