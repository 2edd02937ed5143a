package evaluate

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// CollectOptions say what a Collector keeps.
type CollectOptions struct {
	Temperature float64  // of the records' probabilities; 0: 1
	TTA         TTA      // of the records; "": None
	Classes     []string // names, where they are others than the network's; nil: those
	Pictures    int      // worst mistakes and least certain pictures to keep; 0: DefaultPictures
	Bins        int      // of the reliability diagram; 0: DefaultBins
}

// What a Collector keeps unless it is told otherwise.
const (
	DefaultPictures = 48
	DefaultBins     = 15
	maxPairs        = 50  // most confused pairs
	coveragePoints  = 100 // of the curve
)

// wantedAccuracies are those of Coverage.Targets.
var wantedAccuracies = []float64{0.9, 0.95, 0.98, 0.99, 0.995, 0.999}

// Collector makes a Summary of records.
type Collector struct {
	classes []string
	options CollectOptions

	confusion    *metric.Confusion
	top5         int
	loss         metric.Sample
	used, plain  reliability // at the temperature, and at 1
	coverage     metric.Coverage
	worst        ranked[Picture]
	doubtful     ranked[Picture]
	paired       metric.Paired // A: without TTA, B: with
	plainCorrect int
	plainLoss    metric.Sample
	scratch      []float64
}

// reliability is everything about probabilities at one temperature.
type reliability struct {
	temperature            float64
	bins                   *metric.Reliability
	nll, brier, confidence metric.Sample
}

// NewCollector returns an empty collector for a network with these classes.
func NewCollector(classes []string, o CollectOptions) *Collector {
	o.Temperature, o.TTA = cmp.Or(o.Temperature, 1), cmp.Or(o.TTA, None)
	o.Pictures, o.Bins = cmp.Or(o.Pictures, DefaultPictures), cmp.Or(o.Bins, DefaultBins)
	return &Collector{
		classes: slices.Clone(classes), options: o, confusion: metric.NewConfusion(len(classes)),
		used:     reliability{temperature: o.Temperature, bins: metric.NewReliability(o.Bins)},
		plain:    reliability{temperature: 1, bins: metric.NewReliability(o.Bins)},
		worst:    ranked[Picture]{keep: o.Pictures},
		doubtful: ranked[Picture]{keep: o.Pictures},
		scratch:  make([]float64, len(classes)),
	}
}

// Add counts a record.
func (c *Collector) Add(r Record) error {
	if err := c.confusion.Add(r.Label, r.Predicted); err != nil {
		return err
	}
	if r.Rank < 5 && r.Predicted >= 0 {
		c.top5++
	}
	c.loss.Add(r.Loss)
	c.coverage.Add(r.Confidence, r.Correct())
	c.used.add(r, r.Probabilities)
	if c.options.Temperature != 1 {
		metric.Softmax(c.scratch, r.Logits, 1)
		c.plain.add(r, c.scratch)
	}
	picture := func() Picture { return pictureOf(r) }
	if !r.Correct() {
		c.worst.offer(-r.Loss, r.Index, picture) // NaN comes first
	}
	c.doubtful.offer(r.Confidence, r.Index, picture)
	if c.options.TTA != None {
		plain := metric.Rank(r.Plain, r.Label) == 0
		if plain {
			c.plainCorrect++
		}
		c.paired.Add(plain, r.Correct())
		c.plainLoss.Add(metric.CrossEntropy(r.Plain, r.Label, 1))
	}
	return nil
}

// add counts a record's probabilities, unless they are no numbers.
func (a *reliability) add(r Record, probabilities []float64) {
	a.nll.Add(metric.CrossEntropy(r.Logits, r.Label, a.temperature))
	a.brier.Add(metric.Brier(probabilities, r.Label))
	if r.Predicted >= 0 && a.bins.Add(probabilities[r.Predicted], r.Correct()) == nil {
		a.confidence.Add(probabilities[r.Predicted])
	}
}

func (a *reliability) calibration() Calibration {
	c := Calibration{
		Temperature: a.temperature, NLL: meanOf(a.nll), Brier: rundir.Float(a.brier.Mean),
		Confidence: rundir.Float(a.confidence.Mean), ECE: rundir.Float(a.bins.ECE()), MCE: rundir.Float(a.bins.MCE()),
	}
	for _, b := range a.bins.Bins() {
		low, high := metric.Wilson(b.Correct, b.Count)
		c.Bins = append(c.Bins, Bin{b.Low, b.High, b.Count, b.Correct, rundir.Float(b.Confidence), rundir.Float(b.Accuracy), low, high})
	}
	return c
}

// Summary is what the records so far say.
func (c *Collector) Summary() Summary {
	n := c.confusion.Total()
	s := Summary{
		Kind: KindEvaluation, Classes: c.classes, Images: n, TTA: c.options.TTA,
		Top1: proportion(c.confusion.Correct(), n), CrossEntropy: meanOf(c.loss), Loss: rundir.Float(c.loss.Mean),
		MostConfused: []Pair{}, Calibration: c.used.calibration(),
		WorstMistakes: c.worst.sorted(), LeastCertain: c.doubtful.sorted(),
	}
	if len(c.classes) > 5 {
		top5 := proportion(c.top5, n)
		s.Top5 = &top5
	}
	if c.options.Temperature != 1 {
		plain := c.plain.calibration()
		s.Uncalibrated = &plain
	}
	none := 0
	for k, counts := range c.confusion.PerClass() {
		low, high := metric.Wilson(counts.Correct, counts.Support)
		s.PerClass = append(s.PerClass, Class{c.classes[k], k, counts.Support, counts.Predicted, counts.Correct,
			rundir.Float(counts.Precision()), rundir.Float(counts.Recall()), rundir.Float(counts.F1()), low, high})
		row, predicted := make([]int, len(c.classes)), 0
		for j := range row {
			row[j] = c.confusion.Count(k, j)
			predicted += row[j]
		}
		s.Confusion = append(s.Confusion, row)
		s.NoPrediction = append(s.NoPrediction, counts.Support-predicted)
		none += counts.Support - predicted
	}
	if none == 0 {
		s.NoPrediction = nil
	}
	m := c.confusion.Macro()
	s.Macro = Macro{rundir.Float(m.Precision), rundir.Float(m.Recall), rundir.Float(m.F1)}
	for _, p := range c.confusion.MostConfused(maxPairs) {
		s.MostConfused = append(s.MostConfused, Pair{p.Truth, p.Predicted, p.Count, float64(p.Count) / float64(s.PerClass[p.Truth].Support)})
	}
	s.Coverage = c.coverageOf(n)
	if c.options.TTA != None {
		plain, loss, gain := proportion(c.plainCorrect, n), meanOf(c.plainLoss), comparisonOf(c.paired)
		s.Plain, s.PlainCross, s.TTAGain = &plain, &loss, &gain
	}
	return s
}

func (c *Collector) coverageOf(images int) Coverage {
	out := Coverage{AURC: rundir.Float(c.coverage.AURC()), Points: []CoveragePoint{}, Targets: []CoverageTarget{}}
	point := func(p metric.CoveragePoint) CoveragePoint {
		low, high := metric.Wilson(p.Correct, p.Answered)
		return CoveragePoint{p.Threshold, p.Answered, p.Correct, float64(p.Answered) / float64(images), rundir.Float(p.Accuracy()), low, high}
	}
	for _, p := range c.coverage.Curve(coveragePoints) {
		out.Points = append(out.Points, point(p))
	}
	for _, wanted := range wantedAccuracies {
		if p, ok := c.coverage.ForAccuracy(wanted); ok {
			out.Targets = append(out.Targets, CoverageTarget{wanted, point(p)})
		}
	}
	return out
}

// ranked keeps the items with the least keys, NaN first, of equal keys those that
// come first in the data. It lets twice as many come in before it throws half of
// them away.
type ranked[T any] struct {
	keep  int
	items []rankedItem[T]
	worst float64 // the largest key kept at the last sorting
	full  bool
}

type rankedItem[T any] struct {
	key   float64
	index int
	item  T
}

// offer keeps an item, which is made only then, unless there are enough before it.
func (r *ranked[T]) offer(key float64, index int, make func() T) {
	if r.full && key > r.worst {
		return
	}
	r.items = append(r.items, rankedItem[T]{key, index, make()})
	if len(r.items) >= 2*r.keep {
		r.cut()
	}
}

func (r *ranked[T]) cut() {
	slices.SortFunc(r.items, func(a, b rankedItem[T]) int { // cmp.Compare: NaN is less than all numbers
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.index, b.index))
	})
	if len(r.items) >= r.keep {
		r.items = r.items[:r.keep]
		r.worst, r.full = r.items[r.keep-1].key, true
	}
}

func (r *ranked[T]) sorted() []T {
	r.cut()
	all := make([]T, len(r.items))
	for i, x := range r.items {
		all[i] = x.item
	}
	return all
}

func pictureOf(r Record) Picture {
	p := Picture{
		Index: r.Index, Name: r.Name(), Label: r.Label, Predicted: r.Predicted, Confidence: rundir.Float(r.Confidence),
		LabelProbability: rundir.Float(r.Probabilities[r.Label]), Loss: rundir.Float(r.Loss),
	}
	if r.Predicted < 0 {
		return p
	}
	order := make([]int, len(r.Logits))
	for k := range order {
		order[k] = k
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(r.Logits[b], r.Logits[a]) })
	for _, k := range order[:min(3, len(order))] {
		p.Top = append(p.Top, Guess{k, rundir.Float(r.Probabilities[k])})
	}
	return p
}

// Summarize goes over the pictures of a pass and returns their summary with loss
// penalty and throughput. each, when not nil, sees every record, as for a progress bar.
func Summarize(ctx context.Context, p *Pass, o CollectOptions, each func(Record) error) (Summary, error) {
	o.Temperature, o.TTA = p.options.Temperature, p.options.TTA
	cfg := p.classifier.Config()
	classes := cfg.Classes
	if o.Classes != nil {
		classes = o.Classes
	}
	c := NewCollector(classes, o)
	for r, err := range p.Records(ctx) {
		if err != nil {
			return Summary{}, err
		}
		if err := c.Add(r); err != nil {
			return Summary{}, err
		}
		if each != nil {
			if err := each(r); err != nil {
				return Summary{}, err
			}
		}
	}
	penalty, err := train.Penalty(cfg, p.classifier.Variables())
	if err != nil {
		return Summary{}, err
	}
	s := c.Summary()
	s.Penalty, s.Loss = rundir.Float(penalty), s.Loss+rundir.Float(penalty)
	s.Model, s.Engine, s.Throughput = cfg.Model.Name, p.classifier.Engine().Name(), throughputOf(p)
	return s, nil
}

// fitNumbers bounds the logits that FitTemperature holds: 32 MB.
const fitNumbers = 1 << 23

// ErrTooLarge is in the error of FitTemperature when the pictures' logits do not fit.
var ErrTooLarge = errors.New("too many pictures to fit a temperature to")

// FitImages is the largest number of pictures that FitTemperature takes for a
// number of classes.
func FitImages(classes int) int { return max(1, fitNumbers/classes) }

// FitTemperature finds the temperature with the least mean cross-entropy on
// pictures that the network was not trained on, and are not those it will be judged
// by. The caller fills in what data they are.
func FitTemperature(ctx context.Context, c *classify.Classifier, data dataset.Dataset, o Options, each func(Record) error) (classify.Calibration, error) {
	k := len(c.Config().Classes)
	if data.Len() > FitImages(k) {
		return classify.Calibration{}, ErrTooLarge
	}
	o.Temperature = 1
	p, err := NewPass(c, data, o)
	if err != nil {
		return classify.Calibration{}, err
	}
	logits, labels := make([]float32, 0, data.Len()*k), make([]int, 0, data.Len())
	for r, err := range p.Records(ctx) {
		if err != nil {
			return classify.Calibration{}, err
		}
		logits, labels = append(logits, r.Logits...), append(labels, r.Label)
		if each != nil {
			if err := each(r); err != nil {
				return classify.Calibration{}, err
			}
		}
	}
	t, err := metric.FitTemperature(logits, k, labels)
	if err != nil {
		return classify.Calibration{}, err
	}
	weights, err := c.WeightsHash()
	if err != nil {
		return classify.Calibration{}, err
	}
	cal := classify.Calibration{Kind: "temperature", Temperature: t, Images: len(labels), TTA: string(p.options.TTA), Weights: weights,
		Saturated: t == metric.MinTemperature || t == metric.MaxTemperature}
	probabilities := make([]float64, k)
	judge := func(t float64) (nll, ece float64) {
		var loss metric.Sample
		r := metric.NewReliability(DefaultBins)
		for i, label := range labels {
			row := logits[i*k : (i+1)*k]
			loss.Add(metric.CrossEntropy(row, label, t))
			metric.Softmax(probabilities, row, t)
			best := metric.Argmax(row)
			_ = r.Add(probabilities[best], best == label) // FitTemperature has refused what is not finite
		}
		return loss.Mean, r.ECE()
	}
	cal.NLLBefore, cal.ECEBefore = judge(1)
	cal.NLLAfter, cal.ECEAfter = judge(t)
	return cal, nil
}
