package metric

import (
	"math"
	"slices"
)

// Coverage is about a classifier that may abstain: when it answers only where its
// confidence is at least a threshold, which part of the pictures does it answer,
// and how often is it right? It keeps eight bytes for each picture.
type Coverage struct {
	decisions []float64 // confidence, negative where the prediction is wrong
	correct   int
}

// CoveragePoint is a threshold and what comes of it.
type CoveragePoint struct {
	Threshold float64 // answers from this confidence on
	Answered  int
	Correct   int // of those answered
}

// Accuracy is that of the pictures answered.
func (p CoveragePoint) Accuracy() float64 { return float64(p.Correct) / float64(p.Answered) }

// Add counts a prediction with its confidence in [0,1]; of what is no number it
// is 0, so that it is answered last.
func (c *Coverage) Add(confidence float64, correct bool) {
	if !(confidence > 0) {
		confidence = 0
	}
	if correct {
		c.correct++
	} else {
		confidence = math.Copysign(confidence, -1)
	}
	c.decisions = append(c.decisions, confidence)
}

// Len is the number of predictions.
func (c *Coverage) Len() int { return len(c.decisions) }

// each calls f for each distinct confidence, the highest first, with the number
// of pictures that have it, until f returns false.
func (c *Coverage) each(f func(p CoveragePoint, same int) bool) {
	slices.SortFunc(c.decisions, func(a, b float64) int {
		switch a, b = math.Abs(a), math.Abs(b); {
		case a > b:
			return -1
		case a < b:
			return 1
		}
		return 0
	})
	var p CoveragePoint
	for i := 0; i < len(c.decisions); {
		same := 0
		p.Threshold = math.Abs(c.decisions[i])
		for ; i < len(c.decisions) && math.Abs(c.decisions[i]) == p.Threshold; i++ {
			same++
			if !math.Signbit(c.decisions[i]) {
				p.Correct++
			}
		}
		p.Answered = i
		if !f(p, same) {
			return
		}
	}
}

// Curve returns at most about n points, the fewest answers first and all pictures
// last: for each n-th of the pictures the first threshold that answers so many.
// Pictures of equal confidence are answered together.
func (c *Coverage) Curve(n int) []CoveragePoint {
	var points []CoveragePoint
	next := 1
	c.each(func(p CoveragePoint, _ int) bool {
		if p.Answered*n >= next*len(c.decisions) || p.Answered == len(c.decisions) {
			points = append(points, p)
			next = p.Answered*n/len(c.decisions) + 1
		}
		return true
	})
	return points
}

// ForAccuracy returns the point that answers most among those whose accuracy is
// at least wanted; false when no threshold reaches it. On other pictures of the
// same kind the accuracy scatters around it.
func (c *Coverage) ForAccuracy(wanted float64) (best CoveragePoint, ok bool) {
	c.each(func(p CoveragePoint, _ int) bool {
		if p.Accuracy() >= wanted {
			best, ok = p, true
		}
		return true
	})
	return best, ok
}

// AtThreshold answers from a confidence on.
func (c *Coverage) AtThreshold(threshold float64) CoveragePoint {
	at := CoveragePoint{Threshold: threshold}
	c.each(func(p CoveragePoint, _ int) bool {
		if p.Threshold < threshold {
			return false
		}
		at.Answered, at.Correct = p.Answered, p.Correct
		return true
	})
	return at
}

// AURC is the area under the risk–coverage curve: the mean over k of the error
// among the k most confident pictures (Geifman & El-Yaniv 2017,
// https://arxiv.org/abs/1705.08500). Pictures of equal confidence all count with
// the error after the last of them, so that their order does not matter. NaN
// without pictures.
func (c *Coverage) AURC() float64 {
	sum := 0.0
	c.each(func(p CoveragePoint, same int) bool {
		sum += float64(same) * (1 - p.Accuracy())
		return true
	})
	return sum / float64(len(c.decisions))
}
