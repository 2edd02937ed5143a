package train

import (
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// The test ends when the loss explodes, its suggestion lies before that, and
// nothing remains of it.
func TestFindRate(t *testing.T) {
	c := testConfig()
	c.Optimizer.Name, c.Optimizer.Beta1, c.Optimizer.Beta2, c.Optimizer.Epsilon = "sgd", 0, 0, 0
	c.Optimizer.Momentum, c.EMA, c.Accumulate = 0.9, 0.9, 2
	run := newRun(t, c)
	trainer := newTrainer(t, c, run, nil)
	before, at := weights(t, trainer.vars), trainer.at
	test, err := trainer.FindRate(t.Context(), 1e-5, 1e4, 60)
	if err != nil {
		t.Fatal(err)
	}
	if test.Stopped == "" || len(test.Rates) < 20 || len(test.Rates) >= 60 {
		t.Errorf("%d of 60 steps, stopped by %q", len(test.Rates), test.Stopped)
	}
	if !(test.Suggested > 1e-4 && test.Suggested < 1) {
		t.Errorf("the suggestion is %v", test.Suggested)
	}
	if got, want := test.Rates[10]/test.Rates[9], math.Pow(1e9, 1.0/59); math.Abs(got-want) > 1e-9 || test.Rates[0] != 1e-5 {
		t.Errorf("rates begin with %v and grow by %v, want by %v", test.Rates[0], got, want)
	}
	// The exponential mean, written out.
	sum, weight := 0.0, 0.0
	for i, loss := range test.Losses {
		sum, weight = sum*0.98+loss, weight*0.98+1
		if math.Abs(test.Smoothed[i]-sum/weight) > 1e-9*test.Smoothed[i] {
			t.Fatalf("step %d: smoothed loss %v, want %v", i, test.Smoothed[i], sum/weight)
		}
	}
	if got := weights(t, trainer.vars); !maps.EqualFunc(got, before, slices.Equal) {
		t.Error("the weights are not what they were")
	}
	if trainer.at.GlobalStep != at.GlobalStep || trainer.at.Loss != at.Loss || trainer.run != run || trainer.rate(2) != c.Optimizer.LearningRate {
		t.Errorf("the position is %+v, was %+v; the rate %v", trainer.at, at, trainer.rate(2))
	}
	entries, err := os.ReadDir(run.Path())
	if err != nil || len(entries) != 1 {
		t.Errorf("the run directory holds %v, want config.json alone; %v", entries, err)
	}

	// All the way where nothing explodes, over several epochs.
	short, err := trainer.FindRate(t.Context(), 1e-9, 1e-8, 12)
	if err != nil || len(short.Rates) != 12 || short.Stopped != "" {
		t.Errorf("%d of 12 steps, stopped by %q: %v", len(short.Rates), short.Stopped, err)
	}
	for _, bad := range [][2]float64{{1e-300, 1}, {1, 1e300}, {1e-300, 1e300}} { // the last ratio is infinite
		if _, err := trainer.FindRate(t.Context(), bad[0], bad[1], 10); err == nil || !strings.Contains(err.Error(), "want rates between 1e-37 and 1e+38") {
			t.Errorf("%v: error %v", bad, err)
		}
	}
	for _, bad := range [][3]float64{{0, 1, 10}, {1, 1, 10}, {1, math.Inf(1), 10}, {1e-3, 1, 1}, {math.NaN(), 1, 10}} {
		if _, err := trainer.FindRate(t.Context(), bad[0], bad[1], int(bad[2])); err == nil || !strings.Contains(err.Error(), "want 0 < from < to") {
			t.Errorf("%v: error %v", bad, err)
		}
	}
}

// Of twenty rates the first two and the last five do not count. The longest
// falling sequence is the one from 4 to 13, of which 5, half of the second third,
// lies at 4+3+1.
func TestValley(t *testing.T) {
	var rates, losses []float64
	for i := range 20 {
		rates = append(rates, float64(i))
		loss := 10.0
		if i < 4 {
			loss = 1 + float64(i)
		}
		if i >= 4 {
			loss = 20 - float64(i)
		}
		if i >= 13 {
			loss = 7 + float64(i-13)
		}
		losses = append(losses, loss)
	}
	if got := valley(rates, losses); got != 8 {
		t.Errorf("valley at %v, want 8", got)
	}
	slices.Sort(losses)
	if got := valley(rates, losses); got != 0 {
		t.Errorf("a loss that only rises: %v, want 0", got)
	}
	falling := []float64{9, 8, 7, 6, 5, 4, 3}
	for n, want := range map[int]string{6: "of 6 losses none can be judged, want at least 7", 7: ""} { // two beside the last five
		test := RateTest{Rates: rates[1 : 1+n], Smoothed: falling[:n]}
		if test.suggest(); test.NoSuggestion != want || (test.Suggested != 0) != (want == "") {
			t.Errorf("%d losses that fall: suggestion %v, %q, want %q", n, test.Suggested, test.NoSuggestion, want)
		}
	}
}
