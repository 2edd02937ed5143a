// Package loader makes batches of labelled images: their order, their numbers
// and, while the engine computes, the next batches ahead of time. What a batch
// holds is a pure function of (seed, epoch, position), so a resumed run seeks
// instead of replaying, and the number of workers changes nothing.
package loader

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

// Options say what batches are made of.
type Options struct {
	BatchSize  int
	Shuffle    bool // another order every epoch
	Seed       uint64
	Preprocess Preprocess
	Augment    Augment // for training

	// ClassWeights multiply the loss of each class's images; nil: all 1.
	ClassWeights []float32
	// SampleWeights draws images with replacement, an image of class k with
	// probability proportional to SampleWeights[k]; nil: every image once. One
	// drawn again in an epoch is augmented in another way.
	SampleWeights []float32

	Workers int // goroutines that decode pictures; 0: GOMAXPROCS
}

// Batch is one step's images. Its tensors are reused: they are valid until the
// next batch is asked for.
type Batch struct {
	Images  tensor.Tensor // float32 [n,H,W,C], preprocessed
	Labels  tensor.Tensor // int32 [n]
	Weights tensor.Tensor // float32 [n], from ClassWeights
	Indices []int         // positions in the data set
	Draws   []int         // the same, more by the data's length for each time that the epoch drew the picture before
	Epoch   int           // from 0

	// With mixup or CutMix each picture has a second label. Share is that of the first,
	// of all pictures alike; both weights have their label's share as a factor.
	Partners       tensor.Tensor // int32 [n]
	PartnerWeights tensor.Tensor // float32 [n]
	Share          float64
}

// Loader makes batches of a data set. It is safe for concurrent use.
type Loader struct {
	data    dataset.Dataset
	options Options
}

// New checks the options against the data.
func New(data dataset.Dataset, o Options) (*Loader, error) {
	if err := o.Preprocess.Check(); err != nil {
		return nil, err
	}
	if err := o.Augment.Check(o.Preprocess.Height, o.Preprocess.Width); err != nil {
		return nil, err
	}
	if o.BatchSize < 1 {
		return nil, fmt.Errorf("loader: batch size %d, want at least 1", o.BatchSize)
	}
	if data.Len() == 0 {
		return nil, errors.New("loader: the data set is empty")
	}
	for what, weights := range map[string][]float32{"class weights": o.ClassWeights, "sample weights": o.SampleWeights} {
		for i := 0; weights != nil && i < data.Len(); i++ {
			if k := data.Label(i); k >= len(weights) || !(weights[k] >= 0) {
				return nil, fmt.Errorf("loader: %s %v: want one number ≥ 0 for each class, class %d has none", what, weights, k)
			}
		}
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	return &Loader{data, o}, nil
}

// Plain is a loader of the same pictures in their own order, without augmentation.
func (l *Loader) Plain() *Loader {
	return &Loader{l.data, Options{BatchSize: l.options.BatchSize, Preprocess: l.options.Preprocess, Workers: l.options.Workers}}
}

// Len is the number of images in an epoch.
func (l *Loader) Len() int { return l.data.Len() }

// Steps is the number of batches in an epoch; the last may be smaller.
func (l *Loader) Steps() int { return (l.data.Len()-1)/l.options.BatchSize + 1 }

// Order returns the positions that an epoch visits, in order.
func (l *Loader) Order(epoch int) []int {
	n := l.data.Len()
	if l.options.SampleWeights != nil {
		return l.drawWeighted(epoch)
	}
	if l.options.Shuffle {
		return random.New(l.options.Seed, random.Name("order"), uint64(epoch)).Perm(n)
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

func (l *Loader) drawWeighted(epoch int) []int {
	n := l.data.Len()
	upTo := make([]float64, n) // running sum of weights
	total := 0.0
	for i := range upTo {
		total += float64(l.options.SampleWeights[l.data.Label(i)])
		upTo[i] = total
	}
	s := random.New(l.options.Seed, random.Name("weighted order"), uint64(epoch))
	order := make([]int, n)
	for i := range order {
		u := s.Float64() * total
		order[i] = min(sort.Search(n, func(k int) bool { return upTo[k] > u }), n-1)
	}
	return order
}

// draws are the positions of an order where those that were there before stand behind
// the last of the data: what is random about a picture goes by them.
func (l *Loader) draws(order []int) []int {
	if l.options.SampleWeights == nil {
		return order
	}
	draws, seen := make([]int, len(order)), make([]int, l.data.Len())
	for i, at := range order {
		draws[i] = at + seen[at]*l.data.Len()
		seen[at]++
	}
	return draws
}

// ahead is how many batches are ready before they are asked for.
const ahead = 2

// Batches yields an epoch's batches beginning with batch number first. Pictures
// are read while the caller computes. The first error ends the sequence.
func (l *Loader) Batches(ctx context.Context, epoch, first int) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		free, full := make(chan *buffer, ahead+1), make(chan *buffer, ahead+1)
		var done sync.WaitGroup
		defer done.Wait()
		defer cancel()
		order := l.Order(epoch)
		draws := l.draws(order)
		size := min(l.options.BatchSize, len(order)) // a batch may have room for more pictures than there are
		for range ahead + 1 {
			free <- l.newBuffer(size)
		}
		done.Go(func() {
			defer close(full)
			for at := first * size; at < len(order); at += size {
				select {
				case <-ctx.Done():
					return
				case b := <-free:
					end := min(at+size, len(order))
					b.err = l.fill(ctx, b, epoch, order[at:end], draws[at:end])
					full <- b
					if b.err != nil {
						return
					}
				}
			}
		})
		for b := range full {
			if b.err != nil {
				yield(Batch{}, b.err)
				return
			}
			if !yield(b.batch, nil) {
				return
			}
			free <- b
		}
		if ctx.Err() != nil {
			yield(Batch{}, ctx.Err())
		}
	}
}

// At returns the pictures at the given positions as training would see them in an
// epoch if they were a batch and it had not drawn them before.
func (l *Loader) At(ctx context.Context, epoch int, positions []int) (Batch, error) {
	if len(positions) == 0 {
		return Batch{}, errors.New("loader: a batch of no pictures")
	}
	b := l.newBuffer(len(positions))
	err := l.fill(ctx, b, epoch, positions, positions)
	return b.batch, err
}

// buffer is the memory of one batch.
type buffer struct {
	images    []float32
	labels    []int32
	weights   []float32
	partners  []int32 // and the rest, of a mixing augmentation
	second    []float32
	spare     []float32
	preparers []*preparer // one for each worker
	batch     Batch
	err       error
}

func (l *Loader) newBuffer(pictures int) *buffer {
	p := l.options.Preprocess
	size := p.Height * p.Width * p.Channels
	b := &buffer{
		images:  make([]float32, pictures*size),
		labels:  make([]int32, pictures),
		weights: make([]float32, pictures),
	}
	if l.options.Augment.Mixes() {
		b.partners, b.second, b.spare = make([]int32, pictures), make([]float32, pictures), make([]float32, size)
	}
	for range l.options.Workers {
		b.preparers = append(b.preparers, newPreparer(p))
	}
	return b
}

// fill reads the pictures at the given positions, several at a time, and augments them
// by their draws.
func (l *Loader) fill(ctx context.Context, b *buffer, epoch int, positions, draws []int) error {
	p := l.options.Preprocess
	size := p.Height * p.Width * p.Channels
	errs := make([]error, len(positions))
	var next atomic.Int64
	work := func(t *preparer) {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(positions) || ctx.Err() != nil {
				return
			}
			at := positions[i]
			if errs[i] = l.data.Image(at, &t.picture); errs[i] == nil {
				t.apply(t.picture, l.options.Augment, place{l.options.Seed, epoch, draws[i]}, b.images[i*size:(i+1)*size])
			}
			b.labels[i] = int32(l.data.Label(at))
			b.weights[i] = 1
			if l.options.ClassWeights != nil {
				b.weights[i] = l.options.ClassWeights[b.labels[i]]
			}
		}
	}
	var workers sync.WaitGroup
	for _, t := range b.preparers[1:] {
		workers.Go(func() { work(t) })
	}
	work(b.preparers[0])
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	n := len(positions)
	b.batch = Batch{
		Images:  tensor.Of(b.images[:n*size], n, p.Height, p.Width, p.Channels),
		Labels:  tensor.Of(b.labels[:n], n),
		Weights: tensor.Of(b.weights[:n], n),
		Indices: positions,
		Draws:   draws,
		Epoch:   epoch,
	}
	if a := l.options.Augment; a.Mixes() {
		m := a.mixing(place{l.options.Seed, epoch, draws[0]}, p.Height, p.Width)
		m.apply(b.images[:n*size], b.spare, n, p.Width, p.Channels)
		m.labels(b.labels[:n], b.partners[:n], b.weights[:n], b.second[:n], l.options.ClassWeights)
		b.batch.Partners, b.batch.PartnerWeights, b.batch.Share = tensor.Of(b.partners[:n], n), tensor.Of(b.second[:n], n), m.share
	}
	return ctx.Err()
}
