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
}

// EpochEnded is told after the validation of each epoch.
type EpochEnded struct {
	Epochs int
	Row    rundir.Epoch
}

// Saved is told after a checkpoint was written.
type Saved struct{ Epoch, Step int }

func (Started) event()    {}
func (Estimated) event()  {}
func (Stepped) event()    {}
func (Validating) event() {}
func (Validated) event()  {}
func (EpochEnded) event() {}
func (Saved) event()      {}
