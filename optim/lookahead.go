package optim

import (
	"fmt"
	"math"

	"github.com/residual-ml/residual/graph"
)

// Lookahead keeps a second, slow set of all weights and moving statistics, and lets
// the two meet every few steps (Zhang et al. 2019, https://arxiv.org/abs/1907.08610):
//
//	slow = keep·slow + (1-keep)·fast;  fast = slow
//
// keep grows over the run, so that weights move fast at first and are averaged at
// its end, and the fast weights go back to the slow ones after every epoch, before
// it is judged, both as in airbench (Jordan 2024, https://arxiv.org/abs/2404.00498,
// section 3.4). The optimizer's own state stays as it is. The first time, slow
// becomes what fast is. It is plain data; the zero value does nothing.
type Lookahead struct {
	Every int     `json:"every,omitempty"` // steps; 0: never
	Keep  float64 `json:"keep,omitempty"`  // share of slow that stays, at the end of the run: 1-α of the paper
	Power float64 `json:"power,omitempty"` // before: Keep·(share of the run)^Power; 0: Keep from the beginning
	Start float64 `json:"start,omitempty"` // share of the run before the first time
}

// Check reports the first field that makes no sense.
func (l Lookahead) Check() error {
	switch {
	case l.Every < 0:
		return fmt.Errorf("lookahead is every %d steps, want a positive number, or 0 for never", l.Every)
	case l.Every == 0 && l != Lookahead{}:
		return fmt.Errorf("lookahead keeps %v, power %v, start %v, want them with a number of steps alone", l.Keep, l.Power, l.Start)
	case !(l.Keep >= 0 && l.Keep < 1):
		return fmt.Errorf("lookahead keeps %v of the slow weights, want 0 ≤ keep < 1", l.Keep)
	case !(l.Power >= 0) || math.IsInf(l.Power, 0):
		return fmt.Errorf("lookahead has the power %v, want a number ≥ 0", l.Power)
	case !(l.Start >= 0 && l.Start < 1):
		return fmt.Errorf("lookahead starts after %v of the run, want 0 ≤ start < 1", l.Start)
	}
	return nil
}

// SlowPrefix comes before a variable's name in that of its slow copy.
const SlowPrefix = "lookahead/"

// Apply appends the meeting to the updates of variables, after those of the
// optimizer. It declares the inputs that Scalars fills.
func (l Lookahead) Apply(b *graph.Builder, variables []*graph.Node) {
	if l.Every == 0 {
		return
	}
	var in [4]*graph.Node
	for i, name := range []string{"keep", "take", "stay", "meet"} {
		in[i] = b.Input("lookahead."+name, graph.Real)
	}
	keep, take, stay, meet := in[0], in[1], in[2], in[3]
	for _, v := range variables {
		slow := b.Variable(SlowPrefix+v.Name, graph.VariableAttrs{Role: graph.State}, v.Shape...)
		fast := b.Updated(v)
		next := b.Add(b.Mul(slow, keep), b.Mul(fast, take))
		b.Update(slow, next)
		b.Amend(v, b.Add(b.Mul(fast, stay), b.Mul(next, meet)))
	}
}

// Scalars returns the values of Apply's inputs for one step, and whether there are
// slow weights after it, as begun says for before it. Steps count from 1; done is
// the share of the run after this step, of which it is step; last says that it ends
// an epoch.
func (l Lookahead) Scalars(begun bool, number int, done, step float64, last bool) (values []float64, begins bool) {
	if l.Every == 0 {
		return nil, false
	}
	meets := number%l.Every == 0 && done-step >= l.Start-step/2 // shares are rounded
	switch {
	case meets && !begun:
		return []float64{0, 1, 1, 0}, true
	case meets:
		keep := l.Keep * math.Pow(done, l.Power)
		return []float64{keep, 1 - keep, 0, 1}, true
	case begun && last: // slow as it is
		return []float64{1, 0, 0, 1}, true
	}
	return []float64{1, 0, 1, 0}, begun
}
