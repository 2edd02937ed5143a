package evaluate

import "github.com/residual-ml/residual/rundir"

// KindEvaluation marks a Summary among the evaluations of a run.
const KindEvaluation = "evaluation"

// Stored returns the summaries that a run directory keeps, by name, sorted. Other
// things that commands keep there are passed over.
func Stored(run *rundir.Dir) (names []string, summaries []Summary, err error) {
	all, err := run.Evaluations()
	if err != nil {
		return nil, nil, err
	}
	for _, name := range all {
		var s Summary
		if err := run.ReadEvaluation(name, &s); err == nil && s.Kind == KindEvaluation {
			names, summaries = append(names, name), append(summaries, s)
		}
	}
	return names, summaries, nil
}
