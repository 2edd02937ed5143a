package evaluate

import (
	"time"

	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/rundir"
)

// Summary is what a Collector found out, and what a run directory keeps as
// evaluations/<name>.json. Shares are between 0 and 1; what does not exist, such as
// the precision of a class that was never predicted, is NaN, and null in JSON.
type Summary struct {
	Kind string `json:"kind"` // "evaluation"

	// What was evaluated on what; the caller of Collector.Summary fills it in.
	Run        string    `json:"run,omitempty"`
	Model      string    `json:"model,omitempty"`
	Checkpoint string    `json:"checkpoint,omitempty"` // as asked for; empty: the run's result
	Resolved   string    `json:"resolved,omitempty"`   // what that is: last, best:ema, …
	Weights    string    `json:"weights,omitempty"`    // classify.Classifier.WeightsHash
	Data       string    `json:"data,omitempty"`
	DataHash   string    `json:"data_hash,omitempty"`
	Split      string    `json:"split,omitempty"`
	Limited    bool      `json:"limited,omitempty"` // a part of the split
	Skipped    int       `json:"skipped"`           // pictures left out because they cannot be read
	Time       time.Time `json:"time,omitzero"`
	Engine     string    `json:"engine,omitempty"`
	Precision  string    `json:"precision,omitempty"` // float32, bfloat16 or float64
	Looks      int       `json:"looks,omitempty"`     // at these test pictures so far, this one included
	Notes      []string  `json:"notes,omitempty"`     // what a reader of the numbers must know

	Classes []string `json:"classes"`
	Images  int      `json:"images"`

	Top1 Proportion  `json:"top1"`
	Top5 *Proportion `json:"top5,omitempty"` // of more than five classes
	// CrossEntropy is in nats, at temperature 1. Loss adds the penalty that training
	// adds, as Keras's val_loss does.
	CrossEntropy Mean         `json:"cross_entropy"`
	Loss         rundir.Float `json:"loss"`
	Penalty      rundir.Float `json:"penalty"`

	PerClass []Class `json:"per_class"`
	Macro    Macro   `json:"macro"`

	// Confusion is [true][predicted]; NoPrediction counts, by true class, pictures
	// whose logits were not numbers.
	Confusion    [][]int `json:"confusion"`
	NoPrediction []int   `json:"no_prediction,omitempty"`
	MostConfused []Pair  `json:"most_confused"`

	WorstMistakes []Picture `json:"worst_mistakes"` // wrong, the largest loss first
	LeastCertain  []Picture `json:"least_certain"`  // the lowest confidence first, right or wrong

	Calibration Calibration `json:"calibration"` // at the temperature used
	// Uncalibrated is at temperature 1, nil when that was used.
	Uncalibrated *Calibration `json:"uncalibrated,omitempty"`
	Coverage     Coverage     `json:"coverage"`

	TTA        TTA         `json:"tta"`
	Plain      *Proportion `json:"plain_top1,omitempty"` // without TTA, on the same pictures
	PlainCross *Mean       `json:"plain_cross_entropy,omitempty"`
	TTAGain    *Comparison `json:"tta_gain,omitempty"` // A: without, B: with

	Throughput Throughput `json:"throughput"`
}

// Proportion is a share with its 95 % interval by Wilson.
type Proportion struct {
	Value   rundir.Float `json:"value"`
	Low     float64      `json:"low"`
	High    float64      `json:"high"`
	Correct int          `json:"correct"`
	Images  int          `json:"images"`
}

func proportion(correct, images int) Proportion {
	low, high := metric.Wilson(correct, images)
	return Proportion{rundir.Float(float64(correct) / float64(images)), low, high, correct, images}
}

// Mean is a mean with its 95 % interval by the central limit theorem.
type Mean struct {
	Value  rundir.Float `json:"value"`
	Low    rundir.Float `json:"low"`
	High   rundir.Float `json:"high"`
	Images int          `json:"images"`
}

func meanOf(s metric.Sample) Mean {
	low, high := s.Interval()
	return Mean{rundir.Float(s.Mean), rundir.Float(low), rundir.Float(high), s.N}
}

// Class are the counts and shares of one class.
type Class struct {
	Class     string       `json:"class"`
	Index     int          `json:"index"`
	Support   int          `json:"support"`   // pictures of the class
	Predicted int          `json:"predicted"` // pictures taken for it
	Correct   int          `json:"correct"`
	Precision rundir.Float `json:"precision"`
	Recall    rundir.Float `json:"recall"`
	F1        rundir.Float `json:"f1"`
	// RecallLow and RecallHigh are Wilson's 95 % interval.
	RecallLow  float64 `json:"recall_low"`
	RecallHigh float64 `json:"recall_high"`
}

// Macro are means over classes; the mean recall is the balanced accuracy.
type Macro struct {
	Precision rundir.Float `json:"precision"`
	Recall    rundir.Float `json:"recall"`
	F1        rundir.Float `json:"f1"`
}

// Pair is a confusion: Count pictures of class Truth were taken for Predicted, a
// Share of the class.
type Pair struct {
	Truth     int     `json:"truth"`
	Predicted int     `json:"predicted"`
	Count     int     `json:"count"`
	Share     float64 `json:"share"`
}

// Picture is a picture worth looking at.
type Picture struct {
	Index            int          `json:"index"` // in the split evaluated
	Name             string       `json:"name"`
	Label            int          `json:"label"`
	Predicted        int          `json:"predicted"` // -1: none
	Confidence       rundir.Float `json:"confidence"`
	LabelProbability rundir.Float `json:"label_probability"`
	Loss             rundir.Float `json:"loss"`
	Top              []Guess      `json:"top"` // the three most probable classes
}

// Guess is a class with its probability.
type Guess struct {
	Class       int          `json:"class"`
	Probability rundir.Float `json:"probability"`
}

// Calibration says how far confidence is from accuracy.
type Calibration struct {
	Temperature float64      `json:"temperature"`
	NLL         Mean         `json:"nll"` // mean cross-entropy at the temperature
	Brier       rundir.Float `json:"brier"`
	Confidence  rundir.Float `json:"mean_confidence"`
	ECE         rundir.Float `json:"ece"`
	MCE         rundir.Float `json:"mce"`
	Bins        []Bin        `json:"bins"`
}

// Bin are the predictions with a confidence in (Low,High].
type Bin struct {
	Low        float64      `json:"low"`
	High       float64      `json:"high"`
	Count      int          `json:"count"`
	Correct    int          `json:"correct"`
	Confidence rundir.Float `json:"confidence"` // mean
	Accuracy   rundir.Float `json:"accuracy"`
	// AccuracyLow and AccuracyHigh are Wilson's 95 % interval.
	AccuracyLow  float64 `json:"accuracy_low"`
	AccuracyHigh float64 `json:"accuracy_high"`
}

// Coverage is about abstaining below a confidence.
type Coverage struct {
	Points []CoveragePoint `json:"points"` // the fewest answers first, all pictures last
	AURC   rundir.Float    `json:"aurc"`   // area under the risk–coverage curve
	// Targets are the thresholds that reach an accuracy on these pictures with the
	// most answers; what none reaches is left out.
	Targets []CoverageTarget `json:"targets"`
}

// CoveragePoint is a threshold and what comes of it.
type CoveragePoint struct {
	Threshold float64      `json:"threshold"`
	Answered  int          `json:"answered"`
	Correct   int          `json:"correct"`
	Coverage  float64      `json:"coverage"`
	Accuracy  rundir.Float `json:"accuracy"` // of those answered
	// AccuracyLow and AccuracyHigh are Wilson's 95 % interval.
	AccuracyLow  float64 `json:"accuracy_low"`
	AccuracyHigh float64 `json:"accuracy_high"`
}

// CoverageTarget is the point of the least threshold whose accuracy is Wanted.
type CoverageTarget struct {
	Wanted float64 `json:"wanted"`
	CoveragePoint
}

// Comparison is of two classifiers, A and B, on the same pictures.
type Comparison struct {
	metric.Paired
	Images     int     `json:"images"`
	Difference float64 `json:"difference"` // B's accuracy less A's
	Low        float64 `json:"low"`        // 95 % interval by Agresti & Min
	High       float64 `json:"high"`
	P          float64 `json:"p"` // McNemar's exact test
}

func comparisonOf(p metric.Paired) Comparison {
	low, high := p.Interval()
	return Comparison{p, p.Images(), p.Difference(), low, high, p.PValue()}
}

// Throughput says how fast the pass was and what bound it.
type Throughput struct {
	Seconds         float64      `json:"seconds"`
	ImagesPerSecond rundir.Float `json:"images_per_second"`
	EngineSeconds   float64      `json:"engine_seconds"`
	WaitingSeconds  float64      `json:"waiting_seconds"` // for pictures to be read
	EngineShare     rundir.Float `json:"engine_share"`    // EngineSeconds/Seconds
	Views           int          `json:"views"`
	BatchSize       int          `json:"batch_size"`
}

// throughputOf describes a finished Pass.
func throughputOf(p *Pass) Throughput {
	t := p.timing
	return Throughput{
		Seconds: t.Total.Seconds(), ImagesPerSecond: rundir.Float(float64(t.Images) / t.Total.Seconds()),
		EngineSeconds: t.Engine.Seconds(), WaitingSeconds: t.Waiting.Seconds(), EngineShare: rundir.Float(t.Engine.Seconds() / t.Total.Seconds()),
		Views: p.options.TTA.Views(), BatchSize: p.options.BatchSize,
	}
}
