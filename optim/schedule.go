package optim

import (
	"fmt"
	"math"

	"github.com/residual-ml/residual/internal/hint"
)

// Schedule makes the learning rate a function of how much of the run is done.
// It is plain data and part of a run's configuration.
type Schedule struct {
	Name string `json:"name"` // constant or cosine
	// Warmup is the share of the run in which the rate rises linearly from 0,
	// before the rest follows Name.
	Warmup float64 `json:"warmup,omitempty"`
	// Floor is the factor that the cosine ends with.
	Floor float64 `json:"floor,omitempty"`
}

// Check reports the first field that makes no sense.
func (s Schedule) Check() error {
	switch {
	case s.Name != "constant" && s.Name != "cosine":
		return hint.Wrap(fmt.Errorf("schedule %q is unknown", s.Name), "known schedules: constant, cosine")
	case !(s.Warmup >= 0 && s.Warmup < 1):
		return fmt.Errorf("schedule %s: warm-up is %v of the run, want 0 ≤ warm-up < 1", s.Name, s.Warmup)
	case !(s.Floor >= 0 && s.Floor <= 1):
		return fmt.Errorf("schedule %s: floor is %v, want 0 to 1", s.Name, s.Floor)
	}
	return nil
}

// Factor is what the learning rate is multiplied with in a step, given the share
// of the run that lies before the step (0 at the first) and the share that one
// step is, so that a warm-up does not begin with a rate of zero:
//
//	warm-up    (done+step)/Warmup
//	constant   1
//	cosine     Floor + (1-Floor)·(1+cos(π·t))/2, t from 0 to 1 after the warm-up
//
// (Loshchilov, Hutter 2016, https://arxiv.org/abs/1608.03983, without restarts.)
func (s Schedule) Factor(done, step float64) float64 {
	if done+step < s.Warmup {
		return (done + step) / s.Warmup
	}
	if s.Name != "cosine" {
		return 1
	}
	t := max(0, (done-s.Warmup)/(1-s.Warmup))
	return s.Floor + (1-s.Floor)*(1+math.Cos(math.Pi*min(t, 1)))/2
}
