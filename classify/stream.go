package classify

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/tensor"
)

// Source is a picture file that Stream reads.
type Source struct {
	Name string
	Open func() (io.ReadCloser, error) // nil: the file Name
}

// Outcome is what Stream finds for one source.
type Outcome struct {
	Name   string
	Logits []float32 // [K], before softmax and temperature (see Ranked); valid until the next outcome
	Err    error     // the picture cannot be read; then there are no logits
}

// Stream classifies pictures one after the other, as many at a time as batch says,
// and yields an outcome for each source in their order. While the engine computes,
// the next pictures are read and decoded on all processors. A picture that cannot
// be read is an outcome; an error of the second value ends the sequence. Memory
// does not grow with the number of sources.
func (c *Classifier) Stream(ctx context.Context, sources iter.Seq[Source], batch int) iter.Seq2[Outcome, error] {
	return c.StreamBy(ctx, sources, batch, c.Logits)
}

// StreamBy is Stream with logits that are computed in another way than Logits,
// such as the mean over several views (evaluate.Averaged): like that it takes
// preprocessed pictures [N,H,W,C] and returns [N,K].
func (c *Classifier) StreamBy(ctx context.Context, sources iter.Seq[Source], batch int,
	logits func(context.Context, tensor.Tensor) ([]float32, error)) iter.Seq2[Outcome, error] {
	return func(yield func(Outcome, error) bool) {
		if batch < 1 {
			yield(Outcome{}, fmt.Errorf("classify: batches of %d, want at least 1", batch))
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		free, full := make(chan *pictureBatch, 2), make(chan *pictureBatch, 2)
		var reading sync.WaitGroup
		defer reading.Wait()
		defer cancel()
		for range cap(free) {
			free <- c.newPictureBatch(batch)
		}
		reading.Go(func() {
			defer close(full)
			next, stop := iter.Pull(sources)
			defer stop()
			for more := true; more; {
				select {
				case <-ctx.Done():
					return
				case b := <-free:
					more = b.fill(ctx, next)
					full <- b
				}
			}
		})
		for b := range full {
			if err := ctx.Err(); err != nil {
				yield(Outcome{}, err)
				return
			}
			if !c.classifyBatch(ctx, b, logits, yield) {
				return
			}
			free <- b
		}
		if err := ctx.Err(); err != nil {
			yield(Outcome{}, err)
		}
	}
}

func (c *Classifier) classifyBatch(ctx context.Context, b *pictureBatch, compute func(context.Context, tensor.Tensor) ([]float32, error), yield func(Outcome, error) bool) bool {
	pre, k := c.config.Preprocess, len(c.config.Classes)
	var logits []float32
	if b.rows > 0 {
		size := pre.Height * pre.Width * pre.Channels
		var err error
		logits, err = compute(ctx, tensor.Of(b.numbers[:b.rows*size], b.rows, pre.Height, pre.Width, pre.Channels))
		if err != nil {
			yield(Outcome{}, err)
			return false
		}
	}
	row := 0
	for _, o := range b.outcomes {
		if o.Err == nil {
			o.Logits = logits[row*k : (row+1)*k]
			row++
		}
		if !yield(o, nil) {
			return false
		}
	}
	return true
}

// pictureBatch is memory for a batch: the numbers of the pictures that could be
// read, in order without gaps, and outcomes of these and of the others.
type pictureBatch struct {
	classifier *Classifier
	size       int // of a picture in numbers
	batch      int
	numbers    []float32
	outcomes   []Outcome
	rows       int // pictures read
	pictures   []dataset.Image
}

func (c *Classifier) newPictureBatch(batch int) *pictureBatch {
	pre := c.config.Preprocess
	size := pre.Height * pre.Width * pre.Channels
	return &pictureBatch{classifier: c, size: size, batch: batch, numbers: make([]float32, batch*size), pictures: make([]dataset.Image, runtime.GOMAXPROCS(0))}
}

// fill reads until the batch is full of readable pictures, so that the engine need
// not prepare for many sizes, or until there are far more unreadable ones. It
// returns false at the end of the sources.
func (b *pictureBatch) fill(ctx context.Context, next func() (Source, bool)) (more bool) {
	b.outcomes, b.rows = b.outcomes[:0], 0
	var sources []Source
	for b.rows < b.batch && len(b.outcomes) < 8*b.batch && ctx.Err() == nil {
		sources = sources[:0]
		for len(sources) < b.batch-b.rows {
			s, ok := next()
			if !ok {
				break
			}
			sources = append(sources, s)
		}
		if len(sources) == 0 {
			return false
		}
		first, row := len(b.outcomes), b.rows
		for _, s := range sources {
			b.outcomes = append(b.outcomes, Outcome{Name: s.Name})
		}
		b.readAll(sources, b.outcomes[first:], row)
		for i, o := range b.outcomes[first:] {
			if o.Err != nil {
				continue
			}
			if from := row + i; from != b.rows {
				copy(b.numbers[b.rows*b.size:(b.rows+1)*b.size], b.numbers[from*b.size:(from+1)*b.size])
			}
			b.rows++
		}
	}
	return true
}

// readAll reads sources into the rows from row on, several at a time.
func (b *pictureBatch) readAll(sources []Source, outcomes []Outcome, row int) {
	var taken atomic.Int64
	var workers sync.WaitGroup
	for w := range min(len(b.pictures), len(sources)) {
		workers.Go(func() {
			for {
				i := int(taken.Add(1)) - 1
				if i >= len(sources) {
					return
				}
				if outcomes[i].Err = sources[i].read(&b.pictures[w]); outcomes[i].Err == nil {
					b.classifier.config.Preprocess.Apply(b.pictures[w], b.numbers[(row+i)*b.size:(row+i+1)*b.size])
				}
			}
		})
	}
	workers.Wait()
}

func (s Source) read(picture *dataset.Image) error {
	open := s.Open
	if open == nil {
		open = func() (io.ReadCloser, error) { return os.Open(s.Name) }
	}
	f, err := open()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := dataset.LoadImage(f, 0, picture); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	return nil
}
