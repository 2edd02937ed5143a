package metric

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

var nan = float32(math.NaN())

// The tutorial's epoch: 1562 batches of 32 and one of 16 count as 50,000 images.
func TestMean(t *testing.T) {
	var m Mean
	if !math.IsNaN(m.Value()) {
		t.Errorf("a mean of nothing is %v, want NaN", m.Value())
	}
	for range 1562 {
		m.Add(2, 32)
	}
	m.Add(10, 16)
	if want := (2*49984 + 10*16) / 50000.0; m.Value() != want {
		t.Errorf("mean %v, want %v", m.Value(), want)
	}
}

func TestArgmaxAndRank(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		row    []float32
		argmax int
		ranks  []int
	}{
		{[]float32{1, 3, 2}, 1, []int{2, 0, 1}},
		{[]float32{5, 5, 5}, 0, []int{0, 1, 2}},
		{[]float32{-inf, inf, inf}, 1, []int{2, 0, 1}},
		{[]float32{1, nan, 2}, -1, []int{3, 3, 3}},
		{[]float32{nan, 1, 2}, -1, []int{3, 3, 3}},
		{[]float32{7}, 0, []int{0}},
	} {
		if got := Argmax(c.row); got != c.argmax {
			t.Errorf("Argmax(%v) = %d, want %d", c.row, got, c.argmax)
		}
		for label, want := range c.ranks {
			if got := Rank(c.row, label); got != want {
				t.Errorf("Rank(%v, %d) = %d, want %d", c.row, label, got, want)
			}
		}
	}
	if got := Argmax(nil); got != -1 {
		t.Errorf("Argmax of nothing = %d", got)
	}
}

// Rank against sorting, with ties.
func TestRankAgainstSort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		row := make([]float32, 1+r.IntN(12))
		for i := range row {
			row[i] = float32(r.IntN(5))
		}
		order := make([]int, len(row))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return int(row[b] - row[a]) })
		for rank, class := range order {
			if got := Rank(row, class); got != rank {
				t.Fatalf("Rank(%v, %d) = %d, want %d", row, class, got, rank)
			}
		}
	}
}

func TestCorrect(t *testing.T) {
	logits := []float32{
		3, 2, 1,
		3, 2, 1,
		1, 2, 3,
		nan, 9, 1,
	}
	labels := []uint8{0, 1, 0, 1}
	for k, want := range map[int]int{1: 1, 2: 2, 3: 3, 9: 3} { // the row with NaN is never right
		got, err := CorrectTopK(logits, 3, labels, k)
		if err != nil || got != want {
			t.Errorf("top-%d: %d correct, error %v, want %d", k, got, err, want)
		}
	}
	if got, err := Correct(logits, 3, labels); got != 1 || err != nil {
		t.Errorf("Correct = %d, %v, want 1", got, err)
	}
	for name, f := range map[string]func() (int, error){
		"too few logits":  func() (int, error) { return Correct(logits[:11], 3, labels) },
		"no classes":      func() (int, error) { return Correct(nil, 0, []int{}) },
		"label too large": func() (int, error) { return Correct(logits, 3, []int32{0, 1, 3, 0}) },
		"negative label":  func() (int, error) { return Correct(logits, 3, []int32{0, 1, -1, 0}) },
		"top-0":           func() (int, error) { return CorrectTopK(logits, 3, labels, 0) },
	} {
		if n, err := f(); err == nil || n != 0 {
			t.Errorf("%s: %d, error %v", name, n, err)
		}
	}
}

// Values computed in Python from the other form of the formula, the roots of
// (p-x)² = z²x(1-x)/n.
func TestWilson(t *testing.T) {
	for _, c := range []struct {
		correct, total int
		low, high      float64
	}{
		{0, 10, 0, 0.2775327998628892},
		{10, 10, 0.7224672001371106, 1},
		{5, 10, 0.2365930905125640, 0.7634069094874360},
		{9150, 10000, 0.9093735, 0.9203080},
		{0, 0, 0, 1},
	} {
		low, high := Wilson(c.correct, c.total)
		if math.Abs(low-c.low) > 1e-6 || math.Abs(high-c.high) > 1e-6 {
			t.Errorf("Wilson(%d, %d) = %.7f, %.7f, want %.7f, %.7f", c.correct, c.total, low, high, c.low, c.high)
		}
		if low < 0 || high > 1 {
			t.Errorf("Wilson(%d, %d) = %v, %v leaves [0,1]", c.correct, c.total, low, high)
		}
	}
}

func TestConfusion(t *testing.T) {
	c := NewConfusion(3)
	logits := []float32{
		9, 1, 0, // class 0, right
		1, 9, 0, // class 0 taken for 1
		1, 9, 0, // class 1, right
		nan, 1, 2, // class 1, nothing predicted
	}
	if err := AddLogits(c, logits, []int{0, 0, 1, 1}); err != nil {
		t.Fatal(err)
	}
	if err := AddLogits(c, logits, []int{0, 0, 1, 7}); err == nil {
		t.Error("label 7 of 3 classes was accepted")
	}
	if err := c.Add(0, 3); err == nil {
		t.Error("prediction 3 of 3 classes was accepted")
	}
	if c.Total() != 4 || c.Correct() != 2 || c.Count(0, 1) != 1 {
		t.Errorf("total %d, correct %d, 0 taken for 1: %d; want 4, 2, 1", c.Total(), c.Correct(), c.Count(0, 1))
	}
	want := []ClassCounts{{2, 1, 1}, {2, 2, 1}, {0, 0, 0}}
	got := c.PerClass()
	if !slices.Equal(got, want) {
		t.Errorf("per class %v, want %v", got, want)
	}
	if got[0].Recall() != 0.5 || got[0].Precision() != 1 || math.Abs(got[0].F1()-2.0/3) > 1e-15 {
		t.Errorf("class 0: recall %v, precision %v, F1 %v; want 1/2, 1, 2/3", got[0].Recall(), got[0].Precision(), got[0].F1())
	}
	if !math.IsNaN(got[2].Recall()) || !math.IsNaN(got[2].F1()) {
		t.Error("a class that never occurs must have no recall")
	}
}
