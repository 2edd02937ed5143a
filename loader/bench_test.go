package loader

import (
	"context"
	"fmt"
	"testing"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/internal/random"
)

// noise is a data set of random pictures in memory.
type noise struct{ pictures []dataset.Image }

func newNoise(n, height, width int) noise {
	s := random.New(1)
	d := noise{make([]dataset.Image, n)}
	for i := range d.pictures {
		d.pictures[i] = dataset.Image{Height: height, Width: width, Channels: 3, Pix: make([]uint8, height*width*3)}
		for k := range d.pictures[i].Pix {
			d.pictures[i].Pix[k] = uint8(s.IntN(256))
		}
	}
	return d
}

func (d noise) Len() int          { return len(d.pictures) }
func (d noise) Label(i int) int   { return i % 10 }
func (d noise) Name(i int) string { return fmt.Sprint(i) }
func (d noise) Image(i int, dst *dataset.Image) error {
	p := d.pictures[i]
	reuse(dst, p.Height, p.Width, p.Channels)
	copy(dst.Pix, p.Pix)
	return nil
}

// BenchmarkBatches gives pictures per second, reading aside, of pictures of CIFAR's
// size and of photographs: compare with the images per second of "residual bench".
func BenchmarkBatches(b *testing.B) {
	for _, c := range []struct {
		name string
		from [2]int
		size int
		a    Augment
	}{
		{"32 plain", [2]int{32, 32}, 32, Augment{}},
		{"32 pad-crop, flip", [2]int{32, 32}, 32, Augment{PadCrop: 4, Flip: true}},
		{"32 airbench: translate, flip, cutout", [2]int{32, 32}, 32, Augment{Translate: 2, AlternatingFlip: true, Cutout: 12}},
		{"32 trivial", [2]int{32, 32}, 32, Augment{Auto: TrivialAugment}},
		{"32 rand 2 of 9", [2]int{32, 32}, 32, Augment{Auto: RandAugment, RandOps: 2, RandMagnitude: 9}},
		{"32 everything", [2]int{32, 32}, 32, Augment{ResizedCrop: 0.25, Translate: 2, Flip: true, Auto: RandAugment, RandOps: 2, RandMagnitude: 9,
			Jitter: Jitter{0.4, 0.4, 0.4, 0.1}, Cutout: 8, Erase: 0.5, Mixup: 0.2, CutMix: 1}},
		{"224 resized", [2]int{375, 500}, 224, Augment{}},
		{"224 resized crop, flip", [2]int{375, 500}, 224, Augment{ResizedCrop: 0.08, Flip: true}},
		{"224 torchvision V2: and trivial, erase, mixup, cutmix", [2]int{375, 500}, 224, Augment{ResizedCrop: 0.08, Flip: true, Auto: TrivialAugment, Erase: 0.1, Mixup: 0.2, CutMix: 1}},
	} {
		b.Run(c.name, func(b *testing.B) {
			n := 256
			if c.size > 64 {
				n = 32
			}
			l, err := New(newNoise(n, c.from[0], c.from[1]), Options{BatchSize: n, Shuffle: true, Augment: c.a,
				Preprocess: Preprocess{Height: c.size, Width: c.size, Channels: 3, Resize: Crop, Scale: 1.0 / 255, Mean: []float64{0.5, 0.5, 0.5}, Std: []float64{0.25, 0.25, 0.25}}})
			if err != nil {
				b.Fatal(err)
			}
			buffer := l.newBuffer(n)
			for epoch := 0; b.Loop(); epoch++ {
				if err := l.fill(context.Background(), buffer, epoch, l.Order(epoch), make([]int, n)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "pictures/s")
		})
	}
}
