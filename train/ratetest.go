package train

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
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
	before, err := snapshot(t.vars, t.graph)
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

	smoothed, best := 0.0, math.Inf(1)
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
			stepErr := t.step(u, b, batch)
			var bad *nonFinite
			if errors.As(stepErr, &bad) {
				test.Stopped = "the loss or a gradient is not finite"
				test.suggest()
				return test, nil
			}
			if stepErr != nil {
				return test, stepErr
			}
			if batch++; batch < u.end {
				continue
			}
			loss := u.loss.Value()
			u = nil
			n := len(test.Rates) + 1
			smoothed = rateTestSmooth*smoothed + (1-rateTestSmooth)*loss
			mean := smoothed / (1 - math.Pow(rateTestSmooth, float64(n)))
			test.Rates, test.Losses, test.Smoothed = append(test.Rates, t.fixedRate), append(test.Losses, loss), append(test.Smoothed, mean)
			best = min(best, mean)
			if mean > rateTestDiverged*best {
				test.Stopped = fmt.Sprintf("the smoothed loss is more than %d times its best value", rateTestDiverged)
			}
			if test.Stopped != "" || n == steps {
				test.suggest()
				return test, nil
			}
		}
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

// snapshot copies every variable of a graph.
func snapshot(vars engine.Variables, g *graph.Graph) (map[string]tensor.Tensor, error) {
	all := map[string]tensor.Tensor{}
	for _, v := range g.Variables {
		value, err := vars.Get(v.Name)
		if err != nil {
			return nil, err
		}
		all[v.Name] = value
	}
	return all, nil
}
