package report

import (
	"fmt"
	"math"
	"strconv"

	"gonum.org/v1/plot"
)

// axis is the vertical range of a panel with its labels.
type axis struct {
	min, max float64
	log      bool
	ticks    []plot.Tick
}

// valueRange returns the least and the largest finite value, NaN when there is none.
func valueRange(all ...series) (low, high float64) {
	low, high = math.NaN(), math.NaN()
	for _, s := range all {
		for _, v := range s.y {
			if !finite(v) {
				continue
			}
			if !(low <= v) {
				low = v
			}
			if !(high >= v) {
				high = v
			}
		}
	}
	return low, high
}

// finite reports whether v can be drawn: what is past 1e30 has diverged and would
// overflow the arithmetic of the axes.
func finite(v float64) bool { return math.Abs(v) < 1e30 }

// percentAxis spans the values and some air, within 0 to 100 %, and at least four
// points, so that noise does not fill the picture.
func percentAxis(low, high float64) axis {
	if math.IsNaN(low) {
		low, high = 0, 100
	}
	air := max(0.06*(high-low), 2-(high-low)/2)
	return linearAxis(max(0, low-air), min(100, high+air), func(v float64, step float64) string {
		return decimals(v, step) + " %"
	})
}

// lossAxis is linear from zero where the values fill that, linear around them
// where they lie close together, and logarithmic where they span so much that
// the lower ones would lie on the axis.
func lossAxis(low, high float64) axis {
	switch {
	case math.IsNaN(low):
		return linearAxis(0, 1, decimals)
	case low > 0 && high/low > 25:
		return logAxis(low, high)
	case low >= 0 && high > 0 && low <= 0.4*high:
		return linearAxis(0, 1.04*high, decimals)
	}
	air := max(0.06*(high-low), 0.02*math.Abs(high))
	if air == 0 {
		air = 0.05
	}
	return linearAxis(low-air, high+air, decimals)
}

// linearAxis has about five labels at round values within its range.
func linearAxis(low, high float64, label func(v, step float64) string) axis {
	a := axis{min: low, max: high}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/5)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (high-low)/(m*step) <= 7.5 {
			step *= m
			break
		}
	}
	slack := 1e-9 * (high - low)
	for i := math.Ceil((low - slack) / step); i*step <= high+slack; i++ {
		v := i*step + 0 // + 0 makes a zero of minus zero
		a.ticks = append(a.ticks, tick(min(max(v, low), high), label(v, step)))
	}
	return a
}

// logAxis has labels at 1, 2 and 5 times the powers of ten, and fewer when the
// range is long.
func logAxis(low, high float64) axis {
	a := axis{min: low / 1.25, max: high * 1.25, log: true}
	decades := math.Log10(a.max / a.min)
	mantissas := []float64{1, 2, 5}
	switch {
	case decades > 4:
		mantissas = []float64{1}
	case decades > 2:
		mantissas = []float64{1, 3}
	}
	every := max(1, int(math.Ceil(decades/8)))
	for e := int(math.Floor(math.Log10(a.min))); e <= int(math.Ceil(math.Log10(a.max))); e++ {
		for _, m := range mantissas {
			if v := m * math.Pow10(e); v >= a.min && v <= a.max && e%every == 0 {
				a.ticks = append(a.ticks, tick(v, decimals(v, v)))
			}
		}
	}
	return a
}

// decimals writes v with the digits that tell it from v + step.
func decimals(v, step float64) string {
	if step < 1e-5 || step > 1e6 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	digits := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
	return fmt.Sprintf("%.*f", digits, v)
}
