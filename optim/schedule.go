package optim

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/residual-ml/residual/internal/hint"
)

// Schedule makes the learning rate a function of how much of the run is done.
// It is plain data and part of a run's configuration.
type Schedule struct {
	Name string `json:"name"` // constant, linear, cosine, multistep or onecycle
	// Warmup is the share of the run in which the rate rises from Start, before
	// the rest follows Name.
	Warmup float64 `json:"warmup,omitempty"`
	Start  float64 `json:"start,omitempty"` // factor that the warm-up rises from
	// Floor is the factor that linear, cosine and onecycle end with.
	Floor float64 `json:"floor,omitempty"`
	// Milestones are the shares of the run at which multistep multiplies the rate
	// by Gamma.
	Milestones []float64 `json:"milestones,omitempty"`
	Gamma      float64   `json:"gamma,omitempty"`
}

// Schedules lists the names.
func Schedules() []string { return []string{"constant", "linear", "cosine", "multistep", "onecycle"} }

// Check reports the first field that makes no sense.
func (s Schedule) Check() error {
	switch {
	case !slices.Contains(Schedules(), s.Name):
		return hint.Wrap(fmt.Errorf("schedule %q is unknown", s.Name), "known schedules: "+strings.Join(Schedules(), ", "))
	case !(s.Warmup >= 0 && s.Warmup < 1):
		return fmt.Errorf("schedule %s: warm-up is %v of the run, want 0 ≤ warm-up < 1", s.Name, s.Warmup)
	case !(s.Start >= 0 && s.Start <= 1):
		return fmt.Errorf("schedule %s: the warm-up rises from %v, want 0 to 1", s.Name, s.Start)
	case !(s.Floor >= 0 && s.Floor <= 1):
		return fmt.Errorf("schedule %s: floor is %v, want 0 to 1", s.Name, s.Floor)
	case s.Name != "multistep" && (len(s.Milestones) > 0 || s.Gamma != 0):
		return hint.Wrap(fmt.Errorf("schedule %s: has no milestones and gamma, only multistep does", s.Name), "use: --schedule multistep")
	case s.Name == "multistep" && (len(s.Milestones) == 0 || !slices.IsSorted(s.Milestones) || !(s.Milestones[0] > 0) || !(slices.Max(s.Milestones) < 1)):
		return fmt.Errorf("schedule multistep: milestones are %v, want shares of the run in order, above 0 and below 1", s.Milestones)
	case s.Name == "multistep" && !(s.Gamma > 0 && s.Gamma < 1):
		return fmt.Errorf("schedule multistep: gamma is %v, want above 0 and below 1", s.Gamma)
	case s.Name == "onecycle" && s.Warmup == 0:
		return fmt.Errorf("schedule onecycle: warm-up is 0, want the share of the run in which the rate rises, such as 0.25")
	}
	return nil
}

// Factor is what the learning rate is multiplied with in a step, given the share
// of the run that lies before the step (0 at the first) and the share that one
// step is:
//
//	warm-up    Start + (1-Start)·(done+step)/Warmup, so that it does not begin with a rate of zero
//	constant   1
//	linear     Floor + (1-Floor)·(1-t), t from 0 to 1 after the warm-up
//	cosine     Floor + (1-Floor)·(1+cos(π·t))/2
//	multistep  Gammaᵏ, k the number of milestones reached
//	onecycle   from Start to 1 and from there to Floor, both along half a cosine
//
// (cosine: Loshchilov, Hutter 2016, https://arxiv.org/abs/1608.03983, without
// restarts; onecycle: Smith, Topin 2017, https://arxiv.org/abs/1708.07120, with
// cosines and without the momentum's counter-movement; the last step has Floor,
// as in PyTorch's OneCycleLR.)
func (s Schedule) Factor(done, step float64) float64 {
	if s.Name == "onecycle" {
		return s.oneCycle(done, step)
	}
	if done+step < s.Warmup {
		return s.Start + (1-s.Start)*(done+step)/s.Warmup
	}
	t := min(1, max(0, (done-s.Warmup)/(1-s.Warmup)))
	switch s.Name {
	case "linear":
		return s.Floor + (1-s.Floor)*(1-t)
	case "cosine":
		return halfCosine(1, s.Floor, t)
	case "multistep":
		reached := 0
		for _, m := range s.Milestones {
			if done >= m-step/2 { // the step nearest to it: shares are rounded
				reached++
			}
		}
		return math.Pow(s.Gamma, float64(reached))
	}
	return 1
}

func (s Schedule) oneCycle(done, step float64) float64 {
	if step >= 1 {
		return 1 // a run of one step
	}
	// The peak is at step Warmup·total-1, counted from 0, and the end at total-1.
	peak := s.Warmup - step
	if done < peak {
		return halfCosine(s.Start, 1, done/peak)
	}
	return halfCosine(1, s.Floor, min(1, (done-peak)/(1-step-peak)))
}

// halfCosine goes from a to b while t goes from 0 to 1.
func halfCosine(a, b, t float64) float64 { return b + (a-b)*(1+math.Cos(math.Pi*t))/2 }
