package loader

import (
	"fmt"
	"image"
	"math"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/internal/random"
)

// Augment changes training pictures at random. What happens to a picture is a pure
// function of (seed, epoch, position in the data set), and one setting does not
// change what another one does. The zero Augment changes nothing.
//
// The order is that of the fields, which is torchvision's: geometry, colour,
// normalisation, holes, and last the mixing of two pictures of a batch.
type Augment struct {
	// ResizedCrop, when above 0, cuts out a random part of the picture as it was read,
	// with at least this share of its area and an aspect between 3:4 and 4:3, instead
	// of resizing all of it (Szegedy et al. 2014, section 6; torchvision's
	// RandomResizedCrop, whose default is 0.08).
	ResizedCrop float64 `json:"resized_crop,omitempty"`
	// PadCrop pads each side with so many black pixels and cuts a window of the
	// picture's size out of the result, at a uniform place (He et al. 2015,
	// section 4.2, with 4).
	PadCrop int `json:"pad_crop,omitempty"`
	// Translate is PadCrop with the picture's reflection instead of black
	// (airbench's translate).
	Translate int `json:"translate,omitempty"`
	// Flip mirrors left and right with probability one half.
	Flip bool `json:"flip,omitempty"`
	// AlternatingFlip draws which pictures are mirrored in the first epoch alone;
	// in every second one after it these are the others (Jordan 2024,
	// https://arxiv.org/abs/2404.00498, section 3.6).
	AlternatingFlip bool `json:"alternating_flip,omitempty"`

	// Auto is RandAugment or TrivialAugment. RandOps and RandMagnitude, of 0 to 30,
	// are RandAugment's, torchvision's defaults being 2 and 9.
	Auto          string `json:"auto,omitempty"`
	RandOps       int    `json:"rand_ops,omitempty"`
	RandMagnitude int    `json:"rand_magnitude,omitempty"`

	// Jitter changes brightness, contrast, saturation and hue in random order
	// (torchvision's ColorJitter).
	Jitter Jitter `json:"jitter,omitzero"`

	// Cutout sets a square of so many pixels on a side to 0 after normalisation,
	// at a uniform place inside the picture (DeVries, Taylor 2017,
	// https://arxiv.org/abs/1708.04552, who let it reach over the edge; inside as in
	// Page's cifar10-fast and airbench).
	Cutout int `json:"cutout,omitempty"`
	// Erase is the probability of setting a rectangle to 0 after normalisation, of 2
	// to 33 % of the area and an aspect between 0.3 and 3.3 (Zhong et al. 2017,
	// https://arxiv.org/abs/1708.04896; torchvision's RandomErasing).
	Erase float64 `json:"erase,omitempty"`

	// Mixup and CutMix are the parameters α of the distribution Beta(α,α) of a
	// batch's share λ; see mix.go. With both, each batch draws one of them.
	Mixup  float64 `json:"mixup,omitempty"`
	CutMix float64 `json:"cutmix,omitempty"`
}

// Jitter are the largest changes of ColorJitter. Factors of the first three are
// uniform in [max(0, 1-x), 1+x], the turn of the hue in [-x, x].
type Jitter struct {
	Brightness float64 `json:"brightness,omitempty"`
	Contrast   float64 `json:"contrast,omitempty"`
	Saturation float64 `json:"saturation,omitempty"`
	Hue        float64 `json:"hue,omitempty"` // at most 0.5
}

// Mixes reports whether training pictures have two labels.
func (a Augment) Mixes() bool { return a.Mixup > 0 || a.CutMix > 0 }

// Check reports the first field that makes no sense for pictures of that size.
func (a Augment) Check(height, width int) error {
	side := min(height, width)
	share := func(v float64) bool { return v >= 0 && v <= 1 }
	notNegative := func(v float64) bool { return v >= 0 && v <= 1e3 }
	switch {
	case !share(a.ResizedCrop):
		return fmt.Errorf("augment: resized-crop from %v of the area, want 0 to 1", a.ResizedCrop)
	case a.PadCrop < 0 || a.PadCrop > side:
		return fmt.Errorf("augment: pad-crop of %d pixels, want 0 to %d", a.PadCrop, side)
	case a.Translate < 0 || a.Translate >= side:
		return fmt.Errorf("augment: translation of %d pixels, want 0 to %d, which a reflection can fill", a.Translate, side-1)
	case a.PadCrop > 0 && a.Translate > 0:
		return fmt.Errorf("augment: pad-crop of %d and translation of %d pixels, want one of them", a.PadCrop, a.Translate)
	case a.Flip && a.AlternatingFlip:
		return fmt.Errorf("augment: flip and alternating flip, want one of them")
	case a.Auto != "" && a.Auto != RandAugment && a.Auto != TrivialAugment:
		return fmt.Errorf("augment: auto is %q, want %s or %s", a.Auto, RandAugment, TrivialAugment)
	case a.Auto == RandAugment && (a.RandOps < 1 || a.RandOps > 16 || a.RandMagnitude < 0 || a.RandMagnitude >= magnitudeBins):
		return fmt.Errorf("augment: %d operations of magnitude %d, want 1 to 16 of 0 to %d", a.RandOps, a.RandMagnitude, magnitudeBins-1)
	case !notNegative(a.Jitter.Brightness) || !notNegative(a.Jitter.Contrast) || !notNegative(a.Jitter.Saturation):
		return fmt.Errorf("augment: jitter %+v, want numbers from 0", a.Jitter)
	case !(a.Jitter.Hue >= 0 && a.Jitter.Hue <= 0.5):
		return fmt.Errorf("augment: jitter of the hue by %v, want 0 to 0.5", a.Jitter.Hue)
	case a.Cutout < 0 || a.Cutout > side:
		return fmt.Errorf("augment: cutout of %d pixels, want 0 to %d", a.Cutout, side)
	case !share(a.Erase):
		return fmt.Errorf("augment: erase with probability %v, want 0 to 1", a.Erase)
	case !notNegative(a.Mixup) || !notNegative(a.CutMix):
		return fmt.Errorf("augment: mixup %v, cutmix %v, want numbers from 0", a.Mixup, a.CutMix)
	}
	return nil
}

// place says which picture of which epoch is augmented, and so how.
type place struct {
	seed            uint64
	epoch, position int
}

// stream is the source of random numbers of one kind of change.
func (at place) stream(what string) random.Source {
	return random.Make(at.seed, random.Name(what), uint64(at.epoch), uint64(at.position))
}

// window is the part of a picture of that size that ResizedCrop sees, which is
// torchvision's rule: ten attempts, then the largest centred part of a valid aspect.
func (a Augment) window(at place, height, width int) image.Rectangle {
	const least, most = 3.0 / 4, 4.0 / 3
	s := at.stream("resized crop")
	for range 10 {
		area := float64(height*width) * s.Range(a.ResizedCrop, 1)
		aspect := math.Exp(s.Range(math.Log(least), math.Log(most)))
		w, h := int(math.RoundToEven(math.Sqrt(area*aspect))), int(math.RoundToEven(math.Sqrt(area/aspect)))
		if w > 0 && w <= width && h > 0 && h <= height {
			y, x := s.IntN(height-h+1), s.IntN(width-w+1)
			return image.Rect(x, y, x+w, y+h)
		}
	}
	w, h := width, height
	switch aspect := float64(width) / float64(height); {
	case aspect < least:
		h = int(math.RoundToEven(float64(w) / least))
	case aspect > most:
		w = int(math.RoundToEven(float64(h) * most))
	}
	x, y := (width-w)/2, (height-h)/2
	return image.Rect(x, y, x+w, y+h)
}

// apply changes the bytes of src, with dst and scratch as memory; it returns
// whichever of src and dst holds the result.
func (a Augment) apply(at place, src, dst, scratch *dataset.Image) *dataset.Image {
	p := a.move(at, src, dst)
	if a.Auto == "" && a.Jitter == (Jitter{}) {
		return p
	}
	if p == src { // whose memory is the reader's
		reuse(dst, src.Height, src.Width, src.Channels)
		copy(dst.Pix, src.Pix)
		p = dst
	}
	switch s := at.stream("auto"); a.Auto {
	case TrivialAugment:
		trivialAugment(p, scratch, &s)
	case RandAugment:
		randAugment(p, scratch, &s, a.RandOps, a.RandMagnitude)
	}
	if a.Jitter != (Jitter{}) {
		s := at.stream("jitter")
		a.Jitter.apply(p, &s)
	}
	return p
}

func (j Jitter) apply(p *dataset.Image, s *random.Source) {
	order := [4]int{0, 1, 2, 3}
	s.Shuffle(4, func(i, k int) { order[i], order[k] = order[k], order[i] })
	factor := func(x float64) float64 { return s.Range(max(0, 1-x), 1+x) }
	b, c, sat, turn := factor(j.Brightness), factor(j.Contrast), factor(j.Saturation), s.Range(-j.Hue, j.Hue)
	for _, what := range order {
		switch {
		case what == 0 && j.Brightness > 0:
			brightness(p, b)
		case what == 1 && j.Contrast > 0:
			contrast(p, c)
		case what == 2 && j.Saturation > 0:
			saturation(p, sat)
		case what == 3 && j.Hue > 0:
			hue(p, turn)
		}
	}
}

// move shifts and mirrors.
func (a Augment) move(at place, src, dst *dataset.Image) *dataset.Image {
	// Always the same number of values, so that one setting does not change what
	// another one does.
	s := at.stream("augment")
	most := max(a.PadCrop, a.Translate)
	dy, dx := s.IntN(2*most+1)-most, s.IntN(2*most+1)-most
	flip := s.Bool(0.5) && a.Flip
	if a.AlternatingFlip {
		first := random.Make(at.seed, random.Name("first flip"), uint64(at.position))
		flip = first.Bool(0.5) != (at.epoch%2 == 1)
	}
	if dy == 0 && dx == 0 && !flip {
		return src
	}
	h, w, c := src.Height, src.Width, src.Channels
	reuse(dst, h, w, c)
	if a.PadCrop > 0 {
		clear(dst.Pix)
	}
	x0, x1 := max(0, -dx), min(w, w-dx) // the columns that show the picture, before they are mirrored
	for y := range h {
		fromY, ok := a.source(y+dy, h)
		if !ok {
			continue
		}
		from, to := src.Pix[fromY*w*c:(fromY+1)*w*c], dst.Pix[y*w*c:(y+1)*w*c]
		if flip {
			mirror(to[(w-x1)*c:(w-x0)*c], from[(x0+dx)*c:(x1+dx)*c], c)
		} else {
			copy(to[x0*c:x1*c], from[(x0+dx)*c:])
		}
		if a.Translate == 0 {
			continue
		}
		for _, edge := range [2][2]int{{0, x0}, {x1, w}} {
			for x := edge[0]; x < edge[1]; x++ {
				fromX, _ := a.source(x+dx, w)
				at := x
				if flip {
					at = w - 1 - x
				}
				copy(to[at*c:(at+1)*c], from[fromX*c:])
			}
		}
	}
	return dst
}

// mirror copies pixels of c channels in reverse order.
func mirror(dst, src []uint8, c int) {
	if c == 3 {
		for ; len(dst) >= 3 && len(src) >= 3; dst, src = dst[3:], src[:len(src)-3] {
			px := src[len(src)-3:]
			dst[0], dst[1], dst[2] = px[0], px[1], px[2]
		}
		return
	}
	for ; len(dst) >= c && len(src) >= c; dst, src = dst[c:], src[:len(src)-c] {
		copy(dst[:c], src[len(src)-c:])
	}
}

// source is the row or column of a picture that stands at position i of its padded
// self, if any.
func (a Augment) source(i, n int) (int, bool) {
	switch {
	case i >= 0 && i < n:
		return i, true
	case a.Translate == 0:
		return 0, false
	case i < 0:
		return -i, true
	}
	return 2*(n-1) - i, true
}

// punch sets what Cutout and Erase choose to 0, in dst [height,width,channels].
func (a Augment) punch(at place, dst []float32, height, width, channels int) {
	if a.Cutout > 0 {
		s := at.stream("cutout")
		y, x := s.IntN(height-a.Cutout+1), s.IntN(width-a.Cutout+1)
		blank(dst, width, channels, image.Rect(x, y, x+a.Cutout, y+a.Cutout))
	}
	if a.Erase == 0 {
		return
	}
	if s := at.stream("erase"); s.Bool(a.Erase) {
		blank(dst, width, channels, erased(&s, height, width))
	}
}

// erased is the rectangle of torchvision's RandomErasing, which may be empty.
func erased(s *random.Source, height, width int) image.Rectangle {
	for range 10 {
		area := float64(height*width) * s.Range(0.02, 0.33)
		aspect := math.Exp(s.Range(math.Log(0.3), math.Log(3.3)))
		h, w := int(math.RoundToEven(math.Sqrt(area*aspect))), int(math.RoundToEven(math.Sqrt(area/aspect)))
		if h < height && w < width {
			y, x := s.IntN(height-h+1), s.IntN(width-w+1)
			return image.Rect(x, y, x+w, y+h)
		}
	}
	return image.Rectangle{}
}

func blank(dst []float32, width, channels int, r image.Rectangle) {
	for y := r.Min.Y; y < r.Max.Y; y++ {
		clear(dst[(y*width+r.Min.X)*channels : (y*width+r.Max.X)*channels])
	}
}
