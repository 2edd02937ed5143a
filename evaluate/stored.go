package evaluate

import (
	"slices"

	"github.com/residual-ml/residual/rundir"
)

// KindEvaluation marks a Summary among the evaluations of a run.
const KindEvaluation = "evaluation"

// Stored returns the summaries that a run directory keeps, by name, sorted. Other
// things that commands keep there are passed over, and so are summaries whose parts
// do not fit each other, which this package has not written.
func Stored(run *rundir.Dir) (names []string, summaries []Summary, err error) {
	all, err := run.Evaluations()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range all {
		var s Summary
		if err := run.ReadEvaluation(name, &s); err == nil && s.Kind == KindEvaluation && s.fits() {
			names, summaries = append(names, name), append(summaries, s)
		}
	}
	return names, summaries, nil
}

// fits reports whether tables have a row for each class, and nothing is said of a class
// that there is none of: whoever shows a summary goes by that.
func (s Summary) fits() bool {
	k := len(s.Classes)
	is := func(class int) bool { return class >= 0 && class < k }
	if len(s.PerClass) != k || len(s.Confusion) != k || s.NoPrediction != nil && len(s.NoPrediction) != k {
		return false
	}
	for _, row := range s.Confusion {
		if len(row) != k {
			return false
		}
	}
	for _, p := range s.MostConfused {
		if !is(p.Truth) || !is(p.Predicted) {
			return false
		}
	}
	for _, p := range slices.Concat(s.WorstMistakes, s.LeastCertain) {
		if !is(p.Label) || p.Predicted != -1 && !is(p.Predicted) || slices.ContainsFunc(p.Top, func(g Guess) bool { return !is(g.Class) }) {
			return false
		}
	}
	return true
}
