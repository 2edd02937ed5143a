package loader

import (
	"math"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/internal/random"
)

// Automatic augmentation: the policies of torchvision
// (torchvision/transforms/autoaugment.py), with the nearest pixel and black fill.
const (
	// RandAugment applies some operations in a row, each drawn uniformly, with one
	// magnitude for all (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719).
	RandAugment = "rand"
	// TrivialAugment applies one operation with a magnitude drawn uniformly from a
	// wide range (Müller, Hutter 2021, https://arxiv.org/abs/2103.10158; torchvision's
	// TrivialAugmentWide).
	TrivialAugment = "trivial"
)

// autoOp is an operation of both policies.
type autoOp struct {
	name       string
	rand, wide span
	signed     bool // negated with probability one half
	apply      func(p, scratch *dataset.Image, magnitude float64)
}

// span is a range of magnitudes.
type span struct{ from, to float64 }

// magnitudeBins is the number of magnitudes in a range.
const magnitudeBins = 31

// ofSize stands for 150/331 of the picture's height or width, RandAugment's largest
// translation; bitsTo for a number of bits, which are rounded to whole ones.
const (
	ofSize = -1
	bitsTo = -2
)

// autoOps are in torchvision's order.
var autoOps = []autoOp{
	{"Identity", span{}, span{}, false, func(p, _ *dataset.Image, _ float64) {}},
	{"ShearX", span{0, 0.3}, span{0, 0.99}, true, shearX},
	{"ShearY", span{0, 0.3}, span{0, 0.99}, true, shearY},
	{"TranslateX", span{0, ofSize}, span{0, 32}, true, func(p, s *dataset.Image, m float64) { translate(p, s, int(m), 0) }},
	{"TranslateY", span{0, ofSize}, span{0, 32}, true, func(p, s *dataset.Image, m float64) { translate(p, s, 0, int(m)) }},
	{"Rotate", span{0, 30}, span{0, 135}, true, rotate},
	{"Brightness", span{0, 0.9}, span{0, 0.99}, true, func(p, _ *dataset.Image, m float64) { brightness(p, 1+m) }},
	{"Color", span{0, 0.9}, span{0, 0.99}, true, func(p, _ *dataset.Image, m float64) { saturation(p, 1+m) }},
	{"Contrast", span{0, 0.9}, span{0, 0.99}, true, func(p, _ *dataset.Image, m float64) { contrast(p, 1+m) }},
	{"Sharpness", span{0, 0.9}, span{0, 0.99}, true, func(p, s *dataset.Image, m float64) { sharpness(p, s, 1+m) }},
	{"Posterize", span{4, bitsTo}, span{6, bitsTo}, false, func(p, _ *dataset.Image, m float64) { posterize(p, int(m)) }},
	{"Solarize", span{255, 0}, span{255, 0}, false, func(p, _ *dataset.Image, m float64) { solarize(p, m) }},
	{"AutoContrast", span{}, span{}, false, func(p, _ *dataset.Image, _ float64) { autoContrast(p) }},
	{"Equalize", span{}, span{}, false, func(p, _ *dataset.Image, _ float64) { equalize(p) }},
}

// magnitude is element bin of the range for pictures of a size, as torch.linspace
// computes it in float32: from both ends towards the middle, in one rounding each.
func (s span) magnitude(bin, size int) float64 {
	if s.to == bitsTo { // 8 bits down to 8-from
		return 8 - math.RoundToEven(float64(float32(bin)/float32((magnitudeBins-1)/s.from)))
	}
	from, to := float32(s.from), float32(s.to)
	if s.to == ofSize {
		to = float32(150.0 / 331 * float64(size))
	}
	step := (to - from) / (magnitudeBins - 1)
	if bin < magnitudeBins/2 {
		return float64(float32(float64(from) + float64(step)*float64(bin)))
	}
	return float64(float32(float64(to) - float64(step)*float64(magnitudeBins-1-bin)))
}

// draw applies the operation with the magnitude of a bin, either way.
func (op autoOp) draw(p, scratch *dataset.Image, range_ span, bin int, s *random.Source) {
	size := p.Width
	if op.name == "TranslateY" {
		size = p.Height
	}
	m := range_.magnitude(bin, size)
	if s.Bool(0.5) && op.signed {
		m = -m
	}
	op.apply(p, scratch, m)
}

// trivialAugment changes p, which may change places with scratch.
func trivialAugment(p, scratch *dataset.Image, s *random.Source) {
	op := autoOps[s.IntN(len(autoOps))]
	op.draw(p, scratch, op.wide, s.IntN(magnitudeBins), s)
}

// randAugment is trivialAugment with some operations of one magnitude.
func randAugment(p, scratch *dataset.Image, s *random.Source, ops, magnitude int) {
	for range ops {
		op := autoOps[s.IntN(len(autoOps))]
		op.draw(p, scratch, op.rand, magnitude, s)
	}
}
