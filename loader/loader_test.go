package loader

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/internal/random"
)

// pixels is a data set of 2×2 pictures; picture i has the grey value i in all
// channels and the label i mod 3.
type pixels struct {
	n, channels int
	bad         int // position of an unreadable picture; -1: none
	read        *atomic.Int64
}

func (p pixels) Len() int          { return p.n }
func (p pixels) Label(i int) int   { return i % 3 }
func (p pixels) Name(i int) string { return fmt.Sprintf("pixels[%d]", i) }
func (p pixels) Image(i int, dst *dataset.Image) error {
	if p.read != nil {
		p.read.Add(1)
	}
	if i == p.bad {
		return errors.New("pixels[5]: truncated")
	}
	*dst = dataset.Image{Height: 2, Width: 2, Channels: p.channels, Pix: slices.Repeat([]uint8{uint8(i)}, 4*p.channels)}
	return nil
}

func options(batch int) Options {
	return Options{BatchSize: batch, Shuffle: true, Seed: 1,
		Preprocess: Preprocess{Height: 2, Width: 2, Channels: 3, Resize: Squash, Scale: 1.0 / 255}}
}

func mustNew(t *testing.T, d dataset.Dataset, o Options) *Loader {
	t.Helper()
	l, err := New(d, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// collect returns the positions of every batch, after checking that images,
// labels and weights belong to them.
func collect(t *testing.T, l *Loader, epoch, first int) [][]int {
	t.Helper()
	var all [][]int
	for b, err := range l.Batches(t.Context(), epoch, first) {
		if err != nil {
			t.Fatal(err)
		}
		if b.Images.Shape()[0] != len(b.Indices) || b.Labels.Len() != len(b.Indices) {
			t.Fatalf("batch of %d positions has images %v", len(b.Indices), b.Images.Shape())
		}
		size := b.Images.Len() / len(b.Indices)
		for k, i := range b.Indices {
			if got, want := b.Images.Float32s()[k*size+size-1], float32(float64(i)/255); got != want {
				t.Fatalf("image at position %d has value %v, want %v", i, got, want)
			}
			if b.Labels.Int32s()[k] != int32(i%3) {
				t.Fatalf("label at position %d is %d", i, b.Labels.Int32s()[k])
			}
		}
		all = append(all, slices.Clone(b.Indices))
	}
	return all
}

// Every image once an epoch, another order each epoch, the same order for the
// same seed, a smaller last batch, and any batch can be sought.
func TestOrder(t *testing.T) {
	l := mustNew(t, pixels{n: 50, channels: 3, bad: -1}, options(8))
	if l.Steps() != 7 {
		t.Fatalf("%d steps, want 7", l.Steps())
	}
	first := collect(t, l, 0, 0)
	if len(first) != 7 || len(first[6]) != 2 {
		t.Fatalf("%d batches, the last of %d; want 7, the last of 2", len(first), len(first[len(first)-1]))
	}
	flat := slices.Concat(first...)
	if slices.IsSorted(flat) {
		t.Error("the order is not shuffled")
	}
	slices.Sort(flat)
	for i, v := range flat {
		if i != v {
			t.Fatalf("position %d is visited never or twice", i)
		}
	}
	if slices.Equal(first[0], collect(t, l, 1, 0)[0]) {
		t.Error("epoch 1 has the order of epoch 0")
	}
	o := options(8)
	o.Workers = 5
	again := collect(t, mustNew(t, pixels{n: 50, channels: 3, bad: -1}, o), 0, 3)
	for i, batch := range again {
		if !slices.Equal(batch, first[3+i]) {
			t.Errorf("batch %d is %v after seeking, %v before", 3+i, batch, first[3+i])
		}
	}
	if len(again) != 4 {
		t.Errorf("%d batches after seeking to 3, want 4", len(again))
	}
}

func TestWeights(t *testing.T) {
	o := options(10)
	o.ClassWeights = []float32{1, 2, 0.5}
	for b, err := range mustNew(t, pixels{n: 30, channels: 1, bad: -1}, o).Batches(t.Context(), 0, 0) {
		if err != nil {
			t.Fatal(err)
		}
		for k, i := range b.Indices {
			if b.Weights.Float32s()[k] != o.ClassWeights[i%3] {
				t.Errorf("weight of class %d is %v", i%3, b.Weights.Float32s()[k])
			}
		}
	}

	o = options(10)
	o.SampleWeights = []float32{0, 3, 1}
	count := [3]int{}
	l := mustNew(t, pixels{n: 3000, channels: 1, bad: -1}, o)
	for _, i := range l.Order(0) {
		count[i%3]++
	}
	if share := float64(count[1]) / 3000; count[0] != 0 || math.Abs(share-0.75) > 0.03 {
		t.Errorf("classes are drawn %v times, want none, three quarters, one quarter", count)
	}
}

// An unreadable picture ends the epoch with its error; leaving early reads no
// more than what is prepared ahead.
func TestErrorsAndLeavingEarly(t *testing.T) {
	l := mustNew(t, pixels{n: 30, channels: 3, bad: 5}, options(4))
	var last error
	for _, err := range l.Batches(t.Context(), 0, 0) {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "pixels[5]: truncated") {
		t.Errorf("error %v", last)
	}

	var read atomic.Int64
	l = mustNew(t, pixels{n: 4000, channels: 3, bad: -1, read: &read}, options(4))
	for range l.Batches(t.Context(), 0, 0) {
		break
	}
	if n := read.Load(); n > 4*(ahead+2) {
		t.Errorf("%d pictures were read for one batch of 4", n)
	}

	// A batch that is larger than any memory, of the few pictures there are.
	l = mustNew(t, pixels{n: 30, channels: 3, bad: -1}, options(math.MaxInt))
	batches := 0
	for b, err := range l.Batches(t.Context(), 0, 0) {
		if batches++; err != nil || len(b.Indices) != 30 {
			t.Errorf("a batch of %d pictures: %v", len(b.Indices), err)
		}
		if batches > 1 {
			break
		}
	}
	if batches != 1 || l.Steps() != 1 {
		t.Errorf("%d batches of %d in an epoch, want 1", batches, l.Steps())
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	last = nil
	for _, err := range l.Batches(ctx, 0, 0) {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("after cancelling: %v", last)
	}
}

func TestNewRefuses(t *testing.T) {
	for want, change := range map[string]func(o *Options, p *pixels){
		"batch size 0":     func(o *Options, p *pixels) { o.BatchSize = 0 },
		"is empty":         func(o *Options, p *pixels) { p.n = 0 },
		"class weights":    func(o *Options, p *pixels) { o.ClassWeights = []float32{1} },
		"sample weights":   func(o *Options, p *pixels) { o.SampleWeights = []float32{1, -1, 1} },
		"size 0×2":         func(o *Options, p *pixels) { o.Preprocess.Height = 0 },
		"scale is 0":       func(o *Options, p *pixels) { o.Preprocess.Scale = 0 },
		"scale is -1":      func(o *Options, p *pixels) { o.Preprocess.Scale = -1 },
		"scale is NaN":     func(o *Options, p *pixels) { o.Preprocess.Scale = math.NaN() },
		"scale is +Inf":    func(o *Options, p *pixels) { o.Preprocess.Scale = math.Inf(1) },
		"deviations [1 0":  func(o *Options, p *pixels) { o.Preprocess.Std = []float64{1, 0, 1} },
		"deviations [-1":   func(o *Options, p *pixels) { o.Preprocess.Std = []float64{-1, 1, 1} },
		"deviations [NaN":  func(o *Options, p *pixels) { o.Preprocess.Std = []float64{math.NaN(), 1, 1} },
		"means [0 0 NaN]":  func(o *Options, p *pixels) { o.Preprocess.Mean = []float64{0, 0, math.NaN()} },
		"means [0 -Inf":    func(o *Options, p *pixels) { o.Preprocess.Mean = []float64{0, math.Inf(-1), 0} },
		`resize "stretch"`: func(o *Options, p *pixels) { o.Preprocess.Resize = "stretch" },
		"1 means":          func(o *Options, p *pixels) { o.Preprocess.Mean = []float64{1} },
		"2 channels":       func(o *Options, p *pixels) { o.Preprocess.Channels = 2 },
	} {
		o, p := options(4), pixels{n: 9, channels: 3, bad: -1}
		change(&o, &p)
		if _, err := New(p, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestPreprocess(t *testing.T) {
	rgb := dataset.Image{Height: 1, Width: 2, Channels: 3, Pix: []uint8{255, 0, 51, 0, 255, 102}}
	grey := dataset.Image{Height: 1, Width: 2, Channels: 1, Pix: []uint8{0, 255}}
	p := Preprocess{Height: 1, Width: 2, Channels: 3, Resize: Squash, Scale: 1.0 / 255, Mean: []float64{0.5, 0, 0}, Std: []float64{0.5, 1, 2}}

	dst := make([]float32, 6)
	p.Apply(rgb, dst)
	if want := []float32{1, 0, 0.1, -1, 1, 0.2}; !slices.Equal(dst, want) {
		t.Errorf("normalised to %v, want %v", dst, want)
	}
	p.Apply(grey, dst)
	if want := []float32{-1, 0, 0, 1, 1, 0.5}; !slices.Equal(dst, want) {
		t.Errorf("grey to RGB %v, want %v", dst, want)
	}
	one := Preprocess{Height: 1, Width: 2, Channels: 1, Resize: Squash, Scale: 1}
	one.Apply(rgb, dst[:2])
	if want := []float32{82, 161}; !slices.Equal(dst[:2], want) { // 0.299R + 0.587G + 0.114B, rounded
		t.Errorf("RGB to grey %v, want %v", dst[:2], want)
	}

	// A wide picture, left half 0, right quarter 200: squashed all of it is seen,
	// cropped only the middle, where the two halves are equal.
	wide := dataset.Image{Height: 4, Width: 16, Channels: 1, Pix: make([]uint8, 64)}
	for y := range 4 {
		for x := 8; x < 16; x++ {
			wide.Pix[16*y+x] = 200
		}
	}
	small := Preprocess{Height: 2, Width: 2, Channels: 1, Resize: Crop, Scale: 1}
	got := make([]float32, 4)
	small.Apply(wide, got)
	if got[0] > 40 || got[1] < 160 {
		t.Errorf("cropped %v, want about 0 and 200", got)
	}
	narrow := dataset.Image{Height: 4, Width: 8, Channels: 1, Pix: make([]uint8, 32)}
	for y := range 4 {
		narrow.Pix[8*y], narrow.Pix[8*y+7] = 255, 255 // only the outer columns, which cropping cuts off
	}
	small.Apply(narrow, got)
	if slices.Max(got) > 20 {
		t.Errorf("cropping kept the outer columns: %v", got)
	}
	small.Resize = Squash
	small.Apply(narrow, got)
	if slices.Min(got) < 30 {
		t.Errorf("squashing lost the outer columns: %v", got)
	}
}

// Every offset and both directions occur, what is cut in is black, and the same
// coordinates give the same picture whatever the workers and wherever it begins.
func TestAugment(t *testing.T) {
	src := dataset.Image{Height: 3, Width: 3, Channels: 1, Pix: []uint8{1, 2, 3, 4, 5, 6, 7, 8, 9}}
	seen := map[string]int{}
	for i := range 4000 {
		got := Augment{PadCrop: 1, Flip: true}.apply(place{1, 0, i}, &src, new(dataset.Image), nil)
		seen[string(got.Pix)]++
	}
	if len(seen) != 18 {
		t.Errorf("%d different pictures, want 9 offsets × 2 directions", len(seen))
	}
	for _, want := range [][]uint8{{1, 2, 3, 4, 5, 6, 7, 8, 9}, {3, 2, 1, 6, 5, 4, 9, 8, 7}, {5, 6, 0, 8, 9, 0, 0, 0, 0}, {0, 0, 0, 0, 1, 2, 0, 4, 5}, {0, 0, 0, 2, 1, 0, 5, 4, 0}} {
		if n := seen[string(want)]; n < 120 || n > 340 { // 222 expected
			t.Errorf("%v occurs %d times of 4000", want, n)
		}
	}

	o := options(8)
	o.Augment = Augment{PadCrop: 1, Flip: true}
	images := func(workers, epoch, first int) []float32 {
		o.Workers = workers
		var all []float32
		for b, err := range mustNew(t, noisy(40), o).Batches(t.Context(), epoch, first) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b.Images.Float32s()...)
		}
		return all
	}
	whole := images(1, 0, 0)
	if !slices.Equal(images(3, 0, 0), whole) {
		t.Error("the number of workers matters")
	}
	if !slices.Equal(images(2, 0, 2), whole[2*8*12:]) {
		t.Error("seeking to batch 2 gives other pictures")
	}
	if slices.Equal(images(1, 1, 0), whole) {
		t.Error("the second epoch repeats the first")
	}
	o.Augment.PadCrop = 3
	if _, err := New(noisy(4), o); err == nil || !strings.Contains(err.Error(), "pad-crop of 3 pixels") {
		t.Errorf("error %v", err)
	}
}

// noisy is a data set of 2×2 colour pictures that all differ.
type noisy int

func (n noisy) Len() int          { return int(n) }
func (n noisy) Label(int) int     { return 0 }
func (n noisy) Name(i int) string { return fmt.Sprintf("noisy[%d]", i) }
func (n noisy) Image(i int, dst *dataset.Image) error {
	*dst = dataset.Image{Height: 2, Width: 2, Channels: 3, Pix: make([]uint8, 12)}
	r := random.New(9, uint64(i))
	for p := range dst.Pix {
		dst.Pix[p] = uint8(r.IntN(256))
	}
	return nil
}
