package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// RateTest is a learning rate range test (Smith 2015,
// https://arxiv.org/abs/1506.01186): updates with a rate that grows from one to
// the next, and the loss of each.
type RateTest struct {
	Rates    []float64 `json:"learning_rates"`
	Losses   []float64 `json:"losses"`
	Smoothed []float64 `json:"smoothed_losses"` // exponential mean with the factor 0.98, bias corrected
	// Suggested is the rate to begin with, fastai's "valley"; 0 where there is none.
	Suggested    float64 `json:"suggested"`
	NoSuggestion string  `json:"no_suggestion,omitempty"` // why there is none
	Stopped      string  `json:"stopped,omitempty"`       // why the test ended before its last rate

	mean float64 // exponential mean of Losses, which is not corrected for having begun with 0
}

// The defaults of fastai's lr_find.
const (
	RateTestFrom  = 1e-7
	RateTestTo    = 10.0
	RateTestSteps = 100
	// The test ends when the smoothed loss is so many times its best value.
	rateTestDiverged = 4
	rateTestSmooth   = 0.98
	// Steps take their rate in float32.
	leastRate, mostRate = 1e-37, 1e38
)

// FindRate trains steps updates with rates that grow exponentially from one
// number to another, until the loss is not finite or four times its best. What
// the configuration says about the learning rate over a run does not count;
// frozen epochs do: then it is the rate of the dense layer that is looked for.
//
// It writes nothing, and afterwards all variables have the values they had.
func (t *Trainer) FindRate(ctx context.Context, from, to float64, steps int) (test RateTest, err error) {
	if !(from > 0 && to > from) || math.IsInf(to, 0) || steps < 2 {
		return test, fmt.Errorf("learning rates from %v to %v in %d steps: want 0 < from < to and at least 2 steps", from, to, steps)
	}
	if from < leastRate || to > mostRate {
		return test, fmt.Errorf("learning rates from %v to %v: want rates between %v and %v, which float32 has", from, to, leastRate, mostRate)
	}
	before, err := values(t.vars, t.graph.Variables)
	if err != nil {
		return test, err
	}
	at, clock, run := t.at, t.clock, t.run
	t.run = nil // a step that fails leaves no capsule
	defer func() {
		t.at, t.clock, t.run, t.fixedRate = at, clock, run, 0
		for name, value := range before {
			err = errors.Join(err, t.vars.Set(name, value))
		}
	}()
	t.clock.start()

	for epoch := 0; ; epoch++ {
		var u *update
		batch := 0
		for b, err := range t.fit.Batches(ctx, epoch, 0) {
			if err != nil {
				return test, err
			}
			if u == nil {
				u = t.newUpdate(batch)
				t.fixedRate = from * math.Pow(to/from, float64(len(test.Rates))/float64(steps-1))
			}
			err := t.step(u, b, batch)
			var bad *nonFinite
			switch {
			case errors.As(err, &bad):
				test.Stopped = "the loss or a gradient is not finite"
			case err != nil:
				return test, err
			}
			if batch++; batch == u.end && test.Stopped == "" {
				test.add(t.fixedRate, u.loss.Value())
				u = nil
			}
			if test.Stopped != "" || len(test.Rates) == steps {
				test.suggest()
				return test, nil
			}
		}
	}
}

// add enters the loss of an update, and that the test has to stop where it diverges.
func (test *RateTest) add(rate, loss float64) {
	test.mean = rateTestSmooth*test.mean + (1-rateTestSmooth)*loss
	test.Rates, test.Losses = append(test.Rates, rate), append(test.Losses, loss)
	smoothed := test.mean / (1 - math.Pow(rateTestSmooth, float64(len(test.Rates))))
	test.Smoothed = append(test.Smoothed, smoothed)
	if smoothed > rateTestDiverged*slices.Min(test.Smoothed) {
		test.Stopped = fmt.Sprintf("the smoothed loss is more than %d times its best value", rateTestDiverged)
	}
}

// suggest draws the conclusion.
func (test *RateTest) suggest() {
	test.Suggested = valley(test.Rates, test.Smoothed)
	switch n := len(test.Rates); {
	case test.Suggested != 0:
	case n < fewestRates:
		test.NoSuggestion = fmt.Sprintf("of %d losses none can be judged, want at least %d", n, fewestRates)
	default:
		test.NoSuggestion = "the loss does not fall"
	}
}

// fewestRates leave valley two losses to compare.
const fewestRates = 7

// valley is fastai's suggestion: of the longest (not necessarily contiguous)
// falling sequence of losses, the rate half-way into its second third. The first
// tenth and the last five are left out, as there.
func valley(rates, losses []float64) float64 {
	first, last := len(rates)/10, len(rates)-5
	if last-first < 2 {
		return 0
	}
	rates, losses = rates[first:last], losses[first:last]
	length := make([]int, len(losses)) // of the longest that ends here, less one
	end := 0
	for i := range losses {
		for j := range i {
			if losses[i] < losses[j] && length[i] < length[j]+1 {
				length[i] = length[j] + 1
			}
		}
		if length[i] > length[end] {
			end = i
		}
	}
	if length[end] == 0 {
		return 0
	}
	start := max(0, end-length[end])
	third := float64(end-start) / 3
	return rates[start+int(third)+int(third/2)]
}
