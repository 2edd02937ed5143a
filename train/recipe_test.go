package train

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/model"
)

// Every recipe can be run as it is, is told by one line, and does not choose by
// the test split.
func TestRecipes(t *testing.T) {
	if len(RecipeNames()) < 5 {
		t.Fatalf("recipes %v", RecipeNames())
	}
	for _, name := range RecipeNames() {
		r, err := RecipeNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		m := r.Model
		if m == "" {
			m = "resnet18"
		}
		c := testConfig()
		if c.Model, err = model.Named(m, r.Convention, 32, 32, 3, 10); err != nil {
			t.Fatal(err)
		}
		c.Classes = make([]string, 10)
		c.Preprocess.Height, c.Preprocess.Width, c.Preprocess.Channels = 32, 32, 3
		c.Optimizer, c.Schedule, c.Freeze, c.LRMult, c.L2, c.Epochs, c.BatchSize = r.Optimizer, r.Schedule, r.Freeze, r.LRMult, r.L2, r.Epochs, r.BatchSize
		c.StemEpochs, c.LabelSmoothing, c.ClipNorm, c.EMA, c.Augment, c.ScoreTest = r.StemEpochs, r.LabelSmoothing, r.ClipNorm, r.EMA, r.Augment, r.ScoreTest
		if r.Freeze != nil {
			c.Init = &Init{}
		}
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for network, s := range r.Schedules {
			if err := s.Check(); err != nil || !slices.Contains(model.Names(), network) {
				t.Errorf("%s: schedule of %s: %v", name, network, err)
			}
		}
		if r.About == "" || strings.Contains(r.About, "\n") {
			t.Errorf("%s: about %q", name, r.About)
		}
		if r.ValidateOnTest && r.HoldOut > 0 || r.ValidateOnTest == (r.ScoreTest != "") {
			t.Errorf("%s: validates on the test split: %v, holds %d images out, scores the test split %q", name, r.ValidateOnTest, r.HoldOut, r.ScoreTest)
		}
		for _, e := range r.Expected {
			if !(e.Low > 0 && e.Low <= e.High && e.High <= 1) || e.Source == "" || r.Expectation(e.Data, e.Model) == nil {
				t.Errorf("%s: expectation %+v", name, e)
			}
		}
	}
	r, _ := RecipeNamed("he2015")
	if r.Expectation("cifar10", "resnet18") != nil {
		t.Error("he2015 promises something for resnet18")
	}
	// 64,000 steps, as 45,000 images are 352 steps of 128.
	if steps := r.Epochs * 352; steps < 64_000 || steps > 64_352 {
		t.Errorf("he2015 has %d steps", steps)
	}
	step := 1.0 / 64_000
	for at, want := range map[float64][2]float64{0: {1, 0.1 + 0.9/400}, 200 * step: {1, 0.1 + 0.9*201/400}, 400 * step: {1, 1}, 0.6: {0.1, 0.1}, 0.8: {0.01, 0.01}} {
		for i, network := range []string{"resnet20", "resnet110"} {
			if f := r.ScheduleOf(network).Factor(at, step); math.Abs(f-want[i]) > 1e-12 {
				t.Errorf("he2015's rate for %s after %v of the run is %v of 0.1, want %v", network, at, f, want[i])
			}
		}
	}
}

func TestExpectation(t *testing.T) {
	e := Expectation{Low: 0.9125, High: 0.9173, Source: "a paper"}
	if got := e.String(); got != "91.25 to 91.73 % (a paper)" {
		t.Errorf("%q", got)
	}
	for _, c := range []struct {
		accuracy, low, high float64
		want                string
	}{
		{0.915, 0.91, 0.92, "as expected"},
		{0.9125, 0.91, 0.92, "as expected"},
		{0.910, 0.904, 0.916, "0.25 points below it, which chance can explain"},
		{0.900, 0.894, 0.906, "1.25 points below it"},
		{0.920, 0.914, 0.926, "0.27 points above it, which chance can explain"},
		{0.930, 0.925, 0.935, "1.27 points above it"},
	} {
		if got := e.Judge(c.accuracy, c.low, c.high); got != c.want {
			t.Errorf("%v: %q, want %q", c.accuracy, got, c.want)
		}
	}
}
