package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/report"
)

// evaluationText is an evaluation for a person at a terminal or reading a log.
type evaluationText struct {
	evaluate.Summary
	kept string // where it is kept, or ""
	terminal
	b strings.Builder
}

func (e evaluationText) write(w io.Writer) error {
	e.head()
	e.classes()
	e.matrix()
	e.mistakes()
	e.calibration()
	e.coverage()
	e.foot()
	_, err := io.WriteString(w, e.b.String())
	return err
}

func (e *evaluationText) printf(format string, args ...any) { fmt.Fprintf(&e.b, format, args...) }

// title begins a section.
func (e *evaluationText) title(text string) {
	if e.color {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	e.printf("\n%s\n", text)
}

func percent(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.2f", 100*v)
}

// ofCheckpoint says which weights were judged, where a run has others: such as
// " (moving average of checkpoint last)".
func ofCheckpoint(resolved string) string {
	name, which, both := strings.Cut(resolved, ":")
	switch {
	case both:
		return fmt.Sprintf(" (%s of checkpoint %s)", weightsNamed(which), name)
	case name != "" && name != "last":
		return fmt.Sprintf(" (checkpoint %s)", name)
	}
	return ""
}

func (e *evaluationText) head() {
	e.printf("%s, %s split, %d images: %s%s on %s %s\n", e.Data, e.Split, e.Images, e.Model, ofCheckpoint(e.Resolved), e.Engine, e.Precision)
	share := func(name string, p evaluate.Proportion) {
		e.printf("%-9s %s %%  (%d of %d; 95 %% interval %s to %s)\n", name, percent(float64(p.Value)), p.Correct, p.Images, percent(p.Low), percent(p.High))
	}
	name := "accuracy"
	if e.TTA != evaluate.None {
		share(name, *e.Plain)
		name = "  " + string(e.TTA)
	}
	share(name, e.Top1)
	if e.TTAGain != nil {
		e.printf("%-9s %+.2f points (95 %% interval %+.2f to %+.2f), p = %s: %d pictures righted, %d lost\n", "  gain",
			100*e.TTAGain.Difference, 100*e.TTAGain.Low, 100*e.TTAGain.High, pValue(e.TTAGain.P), e.TTAGain.OnlyB, e.TTAGain.OnlyA)
	}
	if e.Top5 != nil {
		share("top-5", *e.Top5)
	}
	c := e.CrossEntropy
	e.printf("%-9s %.4f  (95 %% interval %.4f to %.4f", "loss", e.Loss, c.Low+e.Penalty, c.High+e.Penalty)
	if e.Penalty > 0 {
		e.printf("; cross-entropy %.4f + penalty %.4f", c.Value, e.Penalty)
	}
	e.printf(")\n")
}

// pValue writes a probability so that a small one is not 0.
func pValue(p float64) string {
	if p < 0.001 {
		return fmt.Sprintf("%.1e", p)
	}
	return fmt.Sprintf("%.3f", p)
}

// shownClasses are as many as a person reads.
const shownClasses = 20

func (e *evaluationText) classes() {
	classes := slices.Clone(e.PerClass)
	title := "Classes"
	if len(classes) > shownClasses {
		slices.SortStableFunc(classes, func(a, b evaluate.Class) int {
			switch {
			case float64(a.Recall) < float64(b.Recall):
				return -1
			case float64(a.Recall) > float64(b.Recall):
				return 1
			}
			return 0
		})
		classes = classes[:shownClasses]
		title = fmt.Sprintf("Classes: the %d of %d with the lowest recall", shownClasses, len(e.PerClass))
	}
	e.title(title)
	width := 8
	for _, c := range classes {
		width = max(width, min(utf8.RuneCountInString(c.Class), 24))
	}
	e.printf("%-*s  images  precision  recall  (95 %% interval)      F1\n", width, "")
	for _, c := range classes {
		e.printf("%s  %6d  %9s  %6s  %-16s  %6s\n", pad(c.Class, width), c.Support, percent(float64(c.Precision)), percent(float64(c.Recall)),
			fmt.Sprintf("(%s to %s)", percent(c.RecallLow), percent(c.RecallHigh)), percent(float64(c.F1)))
	}
	e.printf("%s  %6d  %9s  %6s  %-16s  %6s\n", pad("mean", width), e.Images, percent(float64(e.Macro.Precision)), percent(float64(e.Macro.Recall)), "", percent(float64(e.Macro.F1)))
}

// pad cuts or fills a text to a number of letters.
func pad(s string, width int) string {
	runes := []rune(s)
	if len(runes) > width {
		runes = append(runes[:width-1], '…')
	}
	return string(runes) + strings.Repeat(" ", width-len(runes))
}

// matrix writes the confusion matrix: shaded on a terminal with colours, numbers
// alone elsewhere.
func (e *evaluationText) matrix() {
	label := 0
	for _, c := range e.Classes {
		label = max(label, min(utf8.RuneCountInString(c), 14))
	}
	cell := 5
	for _, row := range e.Confusion {
		for _, n := range row {
			cell = max(cell, len(strconv.Itoa(n))+2)
		}
	}
	classes := report.ConfusionClasses(e.Summary, max(2, min((e.width-label-1)/cell, 40)))
	title := "Confusions: rows are the truth, columns the prediction"
	if len(classes) < len(e.Classes) {
		title += fmt.Sprintf("; the %d of %d classes with the most mistakes", len(classes), len(e.Classes))
	}
	e.title(title)

	// Names cut to the width of a cell head the columns, unless that makes them equal.
	short := func(k int) string {
		runes := []rune(e.Classes[k])
		return string(runes[:min(len(runes), cell-1)])
	}
	different := map[string]bool{}
	for _, k := range classes {
		different[short(k)] = true
	}
	if len(different) < len(classes) {
		short = func(k int) string { return "#" + strconv.Itoa(k) }
		label = min(label+5, 19)
	}
	rowName := func(k int) string {
		if head := short(k); strings.HasPrefix(head, "#") && head != e.Classes[k] {
			return head + " " + e.Classes[k]
		}
		return e.Classes[k]
	}
	e.printf("%*s", label, "")
	for _, k := range classes {
		e.printf("%*s", cell, short(k))
	}
	e.printf("\n")
	for _, truth := range classes {
		e.printf("%s", pad(rowName(truth), label))
		for _, predicted := range classes {
			n := e.Confusion[truth][predicted]
			text := "·"
			if n > 0 {
				text = strconv.Itoa(n)
			}
			text = fmt.Sprintf("%*s", cell, text)
			if e.color {
				text = shaded(text, n, e.PerClass[truth].Support, truth == predicted)
			}
			e.b.WriteString(text)
		}
		e.printf("\n")
	}
	if len(e.MostConfused) == 0 {
		return
	}
	e.title("Most confused")
	for _, p := range e.MostConfused[:min(5, len(e.MostConfused))] {
		e.printf("%5d of %d %s taken for %s (%.1f %%)\n", p.Count, e.PerClass[p.Truth].Support, e.Classes[p.Truth], e.Classes[p.Predicted], 100*p.Share)
	}
}

// shaded puts a cell on a background of the 256-colour palette: blues for what is
// right, oranges for mistakes from two in a hundred on. Fewer stay without one, since
// on a dark terminal every shade, a pale one most of all, calls for attention.
func shaded(text string, n, support int, right bool) string {
	if n == 0 || support == 0 {
		return "\x1b[2m" + text + "\x1b[0m"
	}
	type level struct {
		from  float64
		color int
	}
	levels := []level{{0.75, 33}, {0.5, 75}, {0.25, 117}, {0, 153}}
	if !right {
		levels = []level{{0.2, 202}, {0.1, 208}, {0.05, 215}, {0.02, 180}}
	}
	share := float64(n) / float64(support)
	for _, l := range levels {
		if share >= l.from {
			return fmt.Sprintf("\x1b[48;5;%dm\x1b[38;5;16m%s\x1b[0m", l.color, text)
		}
	}
	return text
}

func (e *evaluationText) mistakes() {
	e.pictures("Worst mistakes: the truth had the least probability", e.WorstMistakes)
	e.pictures("Least certain", e.LeastCertain)
}

func (e *evaluationText) pictures(title string, pictures []evaluate.Picture) {
	if len(pictures) == 0 {
		return
	}
	e.title(title)
	pictures = pictures[:min(5, len(pictures))]
	class := func(k int) string {
		if k < 0 {
			return "nothing"
		}
		return e.Classes[k]
	}
	names, classes := 0, 0
	for _, p := range pictures {
		names = max(names, utf8.RuneCountInString(shortPath(p.Name)))
		classes = max(classes, min(utf8.RuneCountInString(class(p.Label)), 24), min(utf8.RuneCountInString(class(p.Predicted)), 24))
	}
	for _, p := range pictures {
		e.printf("  %s  %s ", pad(shortPath(p.Name), names), pad(class(p.Label), classes))
		if p.Label == p.Predicted {
			e.printf("%6s %%  rightly\n", percent(float64(p.Confidence)))
			continue
		}
		e.printf("%6s %%  called %s with %5s %%\n", probability(float64(p.LabelProbability)), pad(class(p.Predicted), classes), percent(float64(p.Confidence)))
	}
}

// probability is a percentage of which a small one is not 0.
func probability(p float64) string {
	switch {
	case p >= 0.00005:
	case p >= 0.000001:
		return fmt.Sprintf("%.4f", 100*p)
	default:
		return fmt.Sprintf("%.0e", 100*p)
	}
	return percent(p)
}

// shortPath keeps the end of a long path.
func shortPath(s string) string {
	const most = 44
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return "…" + string(runes[len(runes)-most+1:])
}

func (e *evaluationText) calibration() {
	c := e.Calibration
	e.title("Calibration")
	line := func(name string, c evaluate.Calibration) {
		e.printf("  %-18s ECE %5s %%  NLL %.4f  Brier %.4f  mean probability %s %%, accuracy %s %%\n", name,
			percent(float64(c.ECE)), c.NLL.Value, c.Brier, percent(float64(c.Confidence)), percent(float64(e.Top1.Value)))
	}
	if e.Uncalibrated != nil {
		line("as it is", *e.Uncalibrated)
		line(fmt.Sprintf("temperature %.4g", c.Temperature), c)
	} else {
		line("as it is", c)
	}
	e.printf("  probability   images  right\n")
	const cells = 25
	for _, b := range c.Bins {
		if b.Count == 0 {
			continue
		}
		bar := []rune(strings.Repeat("━", int(math.Round(cells*float64(b.Accuracy)))) + strings.Repeat("─", cells))[:cells]
		mark := min(int(cells*float64(b.Confidence)), cells-1)
		bar[mark] = '┃' // where it would end, were probability and accuracy the same
		e.printf("  %3.0f to %3.0f %%  %7d  %5.1f %%  %s\n", 100*b.Low, 100*b.High, b.Count, 100*b.Accuracy, string(bar))
	}
	e.printf("  ━ how often it is right  ┃ the probability it gives\n")
}

func (e *evaluationText) coverage() {
	if len(e.Coverage.Targets) == 0 {
		return
	}
	e.title("Abstaining: answer only from a probability on")
	e.printf("  from        answered  accuracy  (95 %% interval)\n")
	before := e.Images // answered without abstaining
	for _, t := range e.Coverage.Targets {
		if t.Answered == before {
			continue // one threshold does for several
		}
		before = t.Answered
		e.printf("  %-10s  %6.2f %%  %6s %%  (%s to %s)\n", report.Threshold(t.Threshold), 100*t.Coverage, percent(float64(t.Accuracy)), percent(t.AccuracyLow), percent(t.AccuracyHigh))
	}
	e.printf("  0           %6.2f %%  %6s %%  (%s to %s)\n", 100.0, percent(float64(e.Top1.Value)), percent(e.Top1.Low), percent(e.Top1.High))
	e.printf("  These thresholds are chosen by the images they are judged by: expect a little less elsewhere.\n")
}

func (e *evaluationText) foot() {
	t := e.Throughput
	e.printf("\ntime      %s, %.0f images/s", elapsed(t.Seconds), math.Round(float64(t.ImagesPerSecond)))
	if t.Views > 1 {
		e.printf(" of %d views", t.Views)
	}
	e.printf("; %.1f %% of it in the engine, %.1f %% waiting for pictures\n", 100*float64(t.EngineShare), 100*t.WaitingSeconds/t.Seconds)
	for _, n := range e.Notes {
		e.printf("note      %s\n", n)
	}
	if e.Looks > 0 {
		e.printf("ledger    look %d of this run at the test split of %s\n", e.Looks, e.Data)
	}
	if e.kept != "" {
		e.printf("kept      %s.json, and in %s/ confusion.csv and the figures confusion, reliability, coverage (.svg, .png)\n", e.kept, e.kept)
	}
}
