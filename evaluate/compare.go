package evaluate

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/rundir"
)

// Versus is the outcome of two networks, A and B, on the same pictures.
type Versus struct {
	Kind     string    `json:"kind"` // "comparison"
	Data     string    `json:"data,omitempty"`
	DataHash string    `json:"data_hash,omitempty"`
	Split    string    `json:"split,omitempty"`
	Limited  bool      `json:"limited,omitempty"`
	Time     time.Time `json:"time,omitzero"`
	Notes    []string  `json:"notes,omitempty"`

	Classes []string `json:"classes"`
	A       Side     `json:"a"`
	B       Side     `json:"b"`

	Accuracy Comparison `json:"accuracy"`
	// CrossEntropy is the mean over pictures of B's loss less A's, with its interval.
	CrossEntropy Mean `json:"cross_entropy_difference"`
	Same         int  `json:"same_answer"` // pictures to which both give the same class, right or wrong

	// Righted are pictures that only B has right, Lost those that only A has: of each
	// those of which the one that is right is most certain.
	Righted []Change `json:"righted"`
	Lost    []Change `json:"lost"`
}

// Side is one of the two networks with what it costs.
type Side struct {
	Run          string     `json:"run"`
	Model        string     `json:"model"`
	Checkpoint   string     `json:"checkpoint,omitempty"` // last, best:ema, …
	Weights      string     `json:"weights"`
	Top1         Proportion `json:"top1"`
	CrossEntropy Mean       `json:"cross_entropy"` // at temperature 1, without penalty

	Parameters      int64        `json:"parameters"`
	MACs            int64        `json:"macs"`             // per picture and view
	ActivationBytes int64        `json:"activation_bytes"` // per picture
	ImagesPerSecond rundir.Float `json:"images_per_second"`
	// TrainingSeconds are those of all epochs; NaN for a network that came from
	// elsewhere.
	TrainingSeconds rundir.Float `json:"training_seconds"`
	Epochs          int          `json:"epochs"`
}

// Change is a picture of which the two say different things.
type Change struct {
	Index       int          `json:"index"`
	Name        string       `json:"name"`
	Label       int          `json:"label"`
	A           int          `json:"a"` // what A says; -1: nothing
	B           int          `json:"b"`
	AConfidence rundir.Float `json:"a_confidence"`
	BConfidence rundir.Float `json:"b_confidence"`
}

// CompareOptions say how two networks are compared.
type CompareOptions struct {
	Options
	Classes  []string // names; nil: A's
	Pictures int      // to keep of those righted and of those lost; 0: DefaultPictures
	// Changed, when not nil, is told of every picture to which the two give different
	// answers, in the order of the data.
	Changed func(Change) error
	// Each, when not nil, is told of every picture that a network has seen, as for a
	// progress bar.
	Each func(Record) error
}

// Compare goes over the pictures with one network and then with the other, and
// tests by the pictures on which only one is right whether they differ. Sixteen
// bytes are held for each picture.
func Compare(ctx context.Context, a, b *classify.Classifier, data dataset.Dataset, o CompareOptions) (Versus, error) {
	ca, cb := a.Config(), b.Config()
	if len(ca.Classes) != len(cb.Classes) {
		return Versus{}, fmt.Errorf("evaluate: networks of %d and %d classes cannot be compared", len(ca.Classes), len(cb.Classes))
	}
	v := Versus{Kind: "comparison", Classes: o.Classes, Righted: []Change{}, Lost: []Change{}}
	if v.Classes == nil {
		v.Classes = ca.Classes
	}
	o.Temperature = 1
	if o.Pictures == 0 {
		o.Pictures = DefaultPictures
	}
	type answer struct {
		loss       float64
		confidence float32
		class      int32
	}
	answers := make([]answer, 0, data.Len())
	first, err := side(ctx, a, data, o, &v.A, func(r Record) error {
		answers = append(answers, answer{r.Loss, float32(r.Confidence), int32(r.Predicted)})
		return nil
	})
	if err != nil {
		return v, err
	}
	var paired metric.Paired
	var difference metric.Sample
	righted, lost := ranked[Change]{keep: o.Pictures}, ranked[Change]{keep: o.Pictures}
	second, err := side(ctx, b, data, o, &v.B, func(r Record) error {
		was := answers[r.Index]
		change := Change{r.Index, "", r.Label, int(was.class), r.Predicted, rundir.Float(was.confidence), rundir.Float(r.Confidence)}
		before := change.A == r.Label
		paired.Add(before, r.Correct())
		difference.Add(r.Loss - was.loss)
		if change.A == change.B {
			v.Same++
			return nil
		}
		change.Name = r.Name()
		if r.Correct() {
			righted.offer(-r.Confidence, r.Index, func() Change { return change }) // the surest first
		} else if before {
			lost.offer(-float64(was.confidence), r.Index, func() Change { return change })
		}
		if o.Changed != nil {
			return o.Changed(change)
		}
		return nil
	})
	if err != nil {
		return v, err
	}
	v.A.Top1, v.A.CrossEntropy = proportion(paired.Both+paired.OnlyA, paired.Images()), meanOf(first)
	v.B.Top1, v.B.CrossEntropy = proportion(paired.Both+paired.OnlyB, paired.Images()), meanOf(second)
	v.Accuracy, v.CrossEntropy = comparisonOf(paired), meanOf(difference)
	v.Righted, v.Lost = righted.sorted(), lost.sorted()
	return v, nil
}

// side runs one network and fills in what it costs.
func side(ctx context.Context, c *classify.Classifier, data dataset.Dataset, o CompareOptions, s *Side, see func(Record) error) (losses metric.Sample, err error) {
	p, err := NewPass(c, data, o.Options)
	if err != nil {
		return losses, err
	}
	for r, err := range p.Records(ctx) {
		if err != nil {
			return losses, err
		}
		losses.Add(r.Loss)
		if err := see(r); err != nil {
			return losses, err
		}
		if o.Each != nil {
			if err := o.Each(r); err != nil {
				return losses, err
			}
		}
	}
	cfg := c.Config()
	cost, err := cfg.Model.Summarize()
	if err != nil {
		return losses, err
	}
	s.Run, s.Model = c.Run().Path(), cfg.Model.Name
	s.Parameters, s.MACs, s.ActivationBytes = cost.Parameters, cost.MACs, cost.ActivationBytes
	s.ImagesPerSecond = rundir.Float(float64(p.timing.Images) / p.timing.Total.Seconds())
	if s.Weights, err = c.WeightsHash(); err != nil {
		return losses, err
	}
	history, err := c.Run().History()
	if err != nil || len(history) == 0 { // an imported network has none
		s.TrainingSeconds = rundir.Float(math.NaN())
		return losses, nil
	}
	s.Epochs = len(history)
	for _, e := range history {
		s.TrainingSeconds += rundir.Float(e.Seconds)
	}
	return losses, nil
}
