package train

import "time"

// estimateAfter is the number of steps that are timed before the first estimate;
// the first, which touches all memory for the first time, does not count.
const estimateAfter = 6

// clock measures speed. It decides nothing that is computed.
type clock struct {
	lapStart   time.Time
	steps      int
	validation time.Duration // of the last validation; 0: none yet
	plannedAt  int           // steps timed when the time budget was last looked at
	seconds    float64       // smoothed, per image
	last       time.Time
}

func (c *clock) start() { c.lapStart, c.last = time.Now(), time.Now() }

// restart forgets the speed of the steps so far.
func (c *clock) restart() { c.steps, c.plannedAt, c.seconds, c.last = 0, 0, 0, time.Now() }

// lap returns the seconds since the last lap.
func (c *clock) lap() float64 {
	now := time.Now()
	s := now.Sub(c.lapStart).Seconds()
	c.lapStart = now
	return s
}

// stepped ends a step and returns its seconds, from the end of what came before.
func (c *clock) stepped(images int) float64 {
	now := time.Now()
	seconds := now.Sub(c.last).Seconds()
	each := seconds / float64(images)
	c.last = now
	c.steps++
	switch {
	case c.steps == 1:
	case c.seconds == 0:
		c.seconds = each
	default:
		c.seconds += (each - c.seconds) / float64(min(c.steps-1, 20))
	}
	return seconds
}

// validated keeps a validation's time, which is none of the next step's.
func (c *clock) validated(took time.Duration) {
	c.validation, c.last = took, time.Now()
}

func (c *clock) rate() float64 {
	if c.seconds == 0 {
		return 0
	}
	return 1 / c.seconds
}

// remaining estimates the time to the end of the run. Until a validation has
// been timed, an image is taken to cost a third there of what it costs in
// training, where the backward pass has twice the products of the forward pass.
func (t *Trainer) remaining() time.Duration {
	epochs := t.config.Epochs - t.at.Epoch
	images := float64(epochs*t.fit.Len() - t.at.Step*t.config.BatchSize)
	if t.at.Planned > 0 {
		left := t.at.Planned - t.at.Epoch*t.fit.Steps() - t.at.Step
		images = float64(left * t.config.BatchSize)
		epochs = (left + t.fit.Steps() - 1) / t.fit.Steps()
	}
	total := time.Duration(images * t.clock.seconds * float64(time.Second))
	if t.val == nil {
		return total
	}
	validation := t.clock.validation
	if validation == 0 {
		validation = time.Duration(float64(t.val.Len()) * t.clock.seconds / 3 * float64(time.Second))
	}
	validations := epochs
	if every := t.config.EvalEvery; every > 0 {
		validations += int(images) / t.config.BatchSize / every
	}
	return total + time.Duration(validations)*validation
}
