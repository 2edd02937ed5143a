// Package evaluate judges a trained network on a data set. A Pass yields a Record
// for each picture, in the order of the data set, while the next pictures are
// being read; a Collector makes a Summary of them:
//
//	pass, err := evaluate.NewPass(classifier, data.Test, evaluate.Options{})
//	c := evaluate.NewCollector(classifier.Classes(), evaluate.CollectOptions{})
//	for record, err := range pass.Records(ctx) {
//		...
//		err = c.Add(record)
//	}
//	summary := c.Summary()
//
// Memory does not grow with the pictures: a few batches, and in a Collector eight
// bytes for each picture, are held.
package evaluate

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/tensor"
)

// Options say how a Pass goes over the pictures.
type Options struct {
	BatchSize int // 0: DefaultBatchSize
	TTA       TTA // "": None
	// Temperature divides the logits before the softmax; 0: the classifier's.
	Temperature float64
}

// DefaultBatchSize is large enough that small networks are not slowed down by what
// happens between batches.
const DefaultBatchSize = 64

// Pass goes over a data set once.
type Pass struct {
	classifier *classify.Classifier
	data       dataset.Dataset
	images     *loader.Loader
	options    Options
	timing     Timing
}

// Timing says where a Pass spent its time. Reading and decoding happen beside the
// engine; Waiting is what remains of them.
type Timing struct {
	Images  int
	Total   time.Duration
	Engine  time.Duration // within the engine, all views
	Waiting time.Duration // for pictures
	Warming time.Duration // the first batch's part of Engine: compiling
}

// NewPass checks the options and that the labels are classes of the network.
func NewPass(c *classify.Classifier, data dataset.Dataset, o Options) (*Pass, error) {
	if o.BatchSize == 0 {
		o.BatchSize = DefaultBatchSize
	}
	if o.TTA == "" {
		o.TTA = None
	}
	if o.TTA.views() == nil {
		return nil, fmt.Errorf("evaluate: test-time augmentation %q, want one of %v", o.TTA, TTAs)
	}
	if o.Temperature == 0 {
		o.Temperature = c.Temperature()
	}
	if !(o.Temperature > 0) {
		return nil, fmt.Errorf("evaluate: temperature %v, want a number above 0", o.Temperature)
	}
	images, err := loader.New(data, loader.Options{BatchSize: o.BatchSize, Preprocess: c.Config().Preprocess})
	if err != nil {
		return nil, err
	}
	return &Pass{classifier: c, data: data, images: images, options: o}, nil
}

// Len is the number of pictures.
func (p *Pass) Len() int { return p.data.Len() }

// Options are those of NewPass after defaults.
func (p *Pass) Options() Options { return p.options }

// Timing is that of the Records so far.
func (p *Pass) Timing() Timing { return p.timing }

// Record is what the network says about one picture.
type Record struct {
	Index      int     // in the data set
	Label      int     // the truth
	Predicted  int     // the most probable class; -1 when a logit is NaN
	Rank       int     // of the label among the classes: 0 is right, 1 second, …
	Confidence float64 // probability of Predicted; 0 when there is none
	Loss       float64 // cross-entropy of the label in nats, at temperature 1, without penalty

	// Logits [K], of several views their weighted mean, and the probabilities that
	// they give at the Pass's temperature. Valid until the next record.
	Logits        []float32
	Probabilities []float64
	// Plain are the logits of the picture as it is: Logits without augmentation.
	Plain []float32

	data dataset.Dataset
}

// NewRecord is the record of picture index of data, with its logits and the
// probabilities made of them: what Records yields, for a Collector that is fed by hand.
func NewRecord(data dataset.Dataset, index, label int, logits []float32, probabilities []float64) Record {
	r := Record{
		Index: index, Label: label, Predicted: metric.Argmax(logits), Rank: metric.Rank(logits, label), Loss: metric.CrossEntropy(logits, label, 1),
		Logits: logits, Plain: logits, Probabilities: probabilities, data: data,
	}
	if r.Predicted >= 0 {
		r.Confidence = probabilities[r.Predicted]
	}
	return r
}

// Correct reports whether the prediction is the label.
func (r Record) Correct() bool { return r.Rank == 0 }

// Name is what a person would look for: the file's path, or "test_batch.bin[17]".
func (r Record) Name() string { return r.data.Name(r.Index) }

// Image reads the picture as it lies in the data set.
func (r Record) Image(dst *dataset.Image) error { return r.data.Image(r.Index, dst) }

// Records yields a record for each picture. The first error ends the sequence. It
// may be called again; Timing then starts anew.
func (p *Pass) Records(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		k := len(p.classifier.Config().Classes)
		p.timing = Timing{}
		began := time.Now()
		waiting := began
		v := viewer{classifier: p.classifier, views: p.options.TTA.views(), classes: k}
		probabilities := make([]float64, k)
		for b, err := range p.images.Batches(ctx, 0, 0) {
			if err != nil {
				yield(Record{}, err)
				return
			}
			computing := time.Now()
			p.timing.Waiting += computing.Sub(waiting)
			if err := v.run(ctx, b.Images); err != nil {
				yield(Record{}, err)
				return
			}
			took := time.Since(computing)
			p.timing.Engine += took
			if p.timing.Images == 0 {
				p.timing.Warming = took
			}
			labels := b.Labels.Int32s()
			for i, index := range b.Indices {
				label := int(labels[i])
				if label < 0 || label >= k {
					yield(Record{}, fmt.Errorf("evaluate: %s has label %d, the network has %d classes", p.data.Name(index), label, k))
					return
				}
				logits := v.logits[i*k : (i+1)*k]
				metric.Softmax(probabilities, logits, p.options.Temperature)
				r := NewRecord(p.data, index, label, logits, probabilities)
				r.Plain = v.plain[i*k : (i+1)*k]
				p.timing.Images++
				p.timing.Total = time.Since(began)
				if !yield(r, nil) {
					return
				}
			}
			waiting = time.Now()
		}
		p.timing.Total = time.Since(began)
	}
}

// Averaged returns what computes the logits of preprocessed pictures as Pass does
// it: their weighted mean over the views. It is no more safe for concurrent use
// than the classifier, and what it returns is valid until its next call.
func Averaged(c *classify.Classifier, tta TTA) (func(context.Context, tensor.Tensor) ([]float32, error), error) {
	v := viewer{classifier: c, views: tta.views(), classes: len(c.Config().Classes)}
	if v.views == nil {
		return nil, fmt.Errorf("evaluate: test-time augmentation %q, want one of %v", tta, TTAs)
	}
	return func(ctx context.Context, images tensor.Tensor) ([]float32, error) {
		err := v.run(ctx, images)
		return v.logits, err
	}, nil
}

// viewer runs the network on the views of a batch.
type viewer struct {
	classifier *classify.Classifier
	views      []view
	classes    int

	changed       []float32 // the batch as a view shows it
	logits, plain []float32 // [n,K]
}

func (v *viewer) run(ctx context.Context, images tensor.Tensor) error {
	shape := images.Shape()
	if len(v.views) == 1 {
		logits, err := v.classifier.Logits(ctx, images)
		v.logits, v.plain = logits, logits
		return err
	}
	n := shape[0] * v.classes
	v.logits = slices.Grow(v.logits[:0], n)[:n]
	clear(v.logits)
	v.changed = slices.Grow(v.changed[:0], images.Len())[:images.Len()]
	for _, view := range v.views {
		x := images
		if !view.plain() {
			view.apply(v.changed, images.Float32s(), shape[1], shape[2], shape[3])
			x = tensor.Of(v.changed, shape...)
		}
		logits, err := v.classifier.Logits(ctx, x)
		if err != nil {
			return err
		}
		if view.plain() {
			v.plain = append(v.plain[:0], logits...)
		}
		for i, z := range logits {
			v.logits[i] += view.weight * z
		}
	}
	return nil
}
