package train

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/rundir"
)

// EarlyStop ends a run when Monitor has not improved for a while. Its names and
// meaning are those of Keras's EarlyStopping; Patience 0 switches it off.
type EarlyStop struct {
	Patience    int     `json:"patience"`
	MinDelta    float64 `json:"min_delta"`
	RestoreBest bool    `json:"restore_best"` // the best checkpoint becomes the run's result
}

// Plateau multiplies the learning rate by Factor when Monitor has not improved
// for Patience epochs (Keras's ReduceLROnPlateau); Patience 0 switches it off.
type Plateau struct {
	Patience int     `json:"patience"`
	Factor   float64 `json:"factor"`
	MinDelta float64 `json:"min_delta"`
	MinRate  float64 `json:"min_rate"` // the rate is not multiplied to below this share of itself
}

// The values that Monitor takes.
const (
	MonitorLoss     = "val_loss"
	MonitorAccuracy = "val_accuracy"
)

func (c Config) checkWatch() error {
	switch {
	case c.Monitor != MonitorLoss && c.Monitor != MonitorAccuracy:
		return fmt.Errorf("monitor is %q, want %s or %s", c.Monitor, MonitorLoss, MonitorAccuracy)
	case c.EarlyStop.Patience < 0 || !(c.EarlyStop.MinDelta >= 0):
		return fmt.Errorf("early stopping: patience %d, min-delta %v: want numbers from 0", c.EarlyStop.Patience, c.EarlyStop.MinDelta)
	case (c.EarlyStop.Patience > 0 || c.Plateau.Patience > 0) && c.Data.Validation == "test":
		return hint.Wrap(fmt.Errorf("early stopping and plateau would choose by the test split, which are the validation data here"),
			"hold some training images out: --val-images 5000")
	case c.EarlyStop.RestoreBest && (!c.KeepBest || c.EarlyStop.Patience == 0):
		return hint.Wrap(fmt.Errorf("early stopping: restoring the best epoch needs a patience, and validation data that are not the test split"),
			"such as: --patience 5, and with recipe tutorial --val-images 5000")
	case c.Plateau.Patience < 0 || !(c.Plateau.MinDelta >= 0) || !(c.Plateau.MinRate >= 0):
		return fmt.Errorf("plateau: patience %d, min-delta %v, min-rate %v: want numbers from 0", c.Plateau.Patience, c.Plateau.MinDelta, c.Plateau.MinRate)
	case c.Plateau.Patience > 0 && !(c.Plateau.Factor > 0 && c.Plateau.Factor < 1):
		return fmt.Errorf("plateau: factor is %v, want above 0 and below 1", c.Plateau.Factor)
	}
	return nil
}

// watch is what early stopping, plateau and the best checkpoint remember.
type watch struct {
	Seen    bool    `json:"seen"`              // an epoch has ended
	Best    float64 `json:"best"`              // smallest loss or largest accuracy
	Epoch   int     `json:"epoch,omitempty"`   // that it belongs to, from 1
	Weights string  `json:"weights,omitempty"` // raw or ema: which it is of, where a moving average is kept
	Stale   stale   `json:"stale"`             // of early stopping
	Plateau stale   `json:"plateau"`
	Factor  float64 `json:"factor,omitempty"` // of the learning rate; 0 stands for 1
	Stop    bool    `json:"stop,omitempty"`
	Reason  string  `json:"reason,omitempty"`
}

// stale counts epochs without improvement on Best by more than a delta, which
// early stopping and plateau have their own of.
type stale struct {
	Best   float64 `json:"best"`
	Epochs int     `json:"epochs"`
}

func (s *stale) see(first bool, value, delta float64) {
	if first || value < s.Best-delta {
		s.Best, s.Epochs = value, 0
	} else {
		s.Epochs++
	}
}

func (w *watch) rateFactor() float64 {
	if w.Factor == 0 {
		return 1
	}
	return w.Factor
}

// monitored is the number that Monitor watches; smaller is better.
func (c Config) monitored(loss, accuracy float64) float64 {
	value := loss
	if c.Monitor == MonitorAccuracy {
		value = -accuracy
	}
	if !finite(value) {
		value = math.MaxFloat64 // the worst, and JSON can say it
	}
	return value
}

// see judges an epoch and reports whether it is the best so far.
func (w *watch) see(c Config, row rundir.Epoch, validated bool) (best bool) {
	loss, accuracy := row.ValLoss, row.ValAccuracy
	if !validated {
		loss, accuracy = row.Loss, row.Accuracy
	}
	value, weights := c.monitored(loss, accuracy), ""
	if row.EMA != nil {
		weights = RawWeights
		if average := c.monitored(row.EMA.ValLoss, row.EMA.ValAccuracy); average <= value {
			value, weights = average, EMAWeights
		}
	}
	first := !w.Seen
	w.Seen = true
	if best = first || value < w.Best; best {
		w.Best, w.Epoch, w.Weights = value, row.Epoch, weights
	}
	w.Stale.see(first, value, c.EarlyStop.MinDelta)
	if p := c.EarlyStop.Patience; p > 0 && w.Stale.Epochs >= p {
		w.Stop = true
		w.Reason = fmt.Sprintf("early stopping: %s has not improved for %d epochs; the best is epoch %d", c.Monitor, p, w.Epoch)
	}
	w.Plateau.see(first, value, c.Plateau.MinDelta)
	if p := c.Plateau.Patience; p > 0 && w.Plateau.Epochs >= p {
		w.Plateau.Epochs = 0
		w.Factor = max(w.rateFactor()*c.Plateau.Factor, c.Plateau.MinRate)
	}
	return best
}

// plan shortens the run to what the time budget allows, once the speed is
// known: fewer batches, with the schedule stretched over just these. The plan is
// part of every checkpoint, so a resumed run keeps it; but it depends on the
// speed of the machine, so runs with a budget repeat each other only by chance.
func (t *Trainer) plan() {
	if t.config.MaxTime == 0 || t.clock.steps < estimateAfter || t.clock.steps < t.clock.plannedAt+replanAfter && t.clock.plannedAt > 0 {
		return
	}
	t.clock.plannedAt = t.clock.steps
	remaining := t.remaining()
	budget := t.config.MaxTime - time.Duration((t.at.Elapsed+time.Since(t.clock.lapStart).Seconds())*float64(time.Second))
	if remaining <= budget {
		return
	}
	done := t.at.Epoch*t.fit.Steps() + t.at.Step
	all := t.config.Epochs * t.fit.Steps()
	planned := cmp.Or(t.at.Planned, all)
	share := max(0, budget.Seconds()/remaining.Seconds())
	least := done
	if t.at.Step < t.fit.Steps() { // the last update ends an epoch, where lookahead's weights meet
		least++
	}
	shorter := max(least, done+int(share*float64(planned-done)))
	if shorter >= planned || t.at.Planned > 0 && planned-shorter < planned/100+1 {
		return // not worth another change of the schedule
	}
	t.at.Planned = shorter
	t.observe(Planned{Steps: t.at.Planned, AllSteps: all, Budget: t.config.MaxTime})
}

// replanAfter is the number of steps after which the time budget is looked at
// again; a plan only ever gets shorter.
const replanAfter = 25
