package train

import (
	"time"

	"github.com/residual-ml/residual/rundir"
)

// Event is something that happened in training. Events are told in order, from
// the goroutine that trains, and must not be kept waiting.
type Event interface{ event() }

// Started is told once, before the first step of a run or of its continuation.
type Started struct {
	Epochs, Epoch, Step int // Epoch and Step are those already done
	StepsPerEpoch       int
	Images, ValImages   int
	Engine              string
}

// Estimated is told once a few steps have been timed.
type Estimated struct {
	Remaining       time.Duration // until the end of the run, validations included
	ImagesPerSecond float64
}

// Stepped is told after each step. Loss and Accuracy are running means over the
// epoch, as Keras shows them.
type Stepped struct {
	Epoch, Epochs   int // from 1
	Step, Steps     int // within the epoch, from 1
	Loss, Accuracy  float64
	ImagesPerSecond float64       // of the last few seconds
	Remaining       time.Duration // of the whole run
}

// Validating is told while a validation runs.
type Validating struct{ Done, Images int }

// Validated is told after a validation that --eval-every asked for.
type Validated struct {
	Epoch, Step    int
	Loss, Accuracy float64
	EMA            *Score // of the moving average; nil: none
}

// EpochEnded is told after the validation of each epoch.
type EpochEnded struct {
	Epochs   int
	Row      rundir.Epoch
	Best     bool   // the best validation so far
	Stopping string // why no epoch follows, when that is not the number of epochs
}

// Planned is told when a time budget shortens the run.
type Planned struct {
	Steps, AllSteps int // batches in the run, and what all epochs would have
	Budget          time.Duration
}

// Captured is told when a loss or gradient is not finite.
type Captured struct {
	Step    int    // the step that was not applied
	Layer   string // the first layer that is not finite
	Capsule string // path of the file that reproduces it
}

// RolledBack is told when training goes on from the last checkpoint without a
// batch.
type RolledBack struct{ Epoch, Step, Batch int }

// SaveFailed is told when writing the run directory failed and training goes on.
type SaveFailed struct{ Err error }

// FellBack is told when a resumed run's newest checkpoint was damaged.
type FellBack struct{ Text string }

// Saved is told after a checkpoint was written.
type Saved struct{ Epoch, Step int }

func (Started) event()    {}
func (Estimated) event()  {}
func (Stepped) event()    {}
func (Validating) event() {}
func (Validated) event()  {}
func (EpochEnded) event() {}
func (Saved) event()      {}
func (Planned) event()    {}
func (Captured) event()   {}
func (RolledBack) event() {}
func (SaveFailed) event() {}
func (FellBack) event()   {}
