package loader

import (
	"image"
	"math"
)

// Mixing combines every picture of a batch with the one before it, and their labels,
// by a share λ that the batch draws from Beta(α,α) (torchvision's MixUp and CutMix):
//
//	mixup (Zhang et al. 2017, https://arxiv.org/abs/1710.09412)
//	    λ·picture + (1-λ)·other
//	CutMix (Yun et al. 2019, https://arxiv.org/abs/1905.04899)
//	    other within a rectangle of about 1-λ of the area, picture elsewhere; λ
//	    becomes the share of the area that is left
//
// What a batch draws is a pure function of (seed, epoch, its first position).

// mixing is what one batch drew.
type mixing struct {
	share float64         // λ, of the picture itself
	box   image.Rectangle // of CutMix; empty: mixup
}

// mixing draws for the batch that begins with the position at.
func (a Augment) mixing(at place, height, width int) mixing {
	s := at.stream("mix")
	cut := a.CutMix > 0 && (a.Mixup == 0 || s.Bool(0.5))
	if !cut {
		return mixing{share: s.Beta(a.Mixup, a.Mixup)}
	}
	share := s.Beta(a.CutMix, a.CutMix)
	return cutMix(share, s.IntN(width), s.IntN(height), height, width)
}

// cutMix is the rectangle around (x,y) of a share λ, cut off at the edges.
func cutMix(share float64, x, y, height, width int) mixing {
	r := 0.5 * math.Sqrt(1-share)
	halfW, halfH := int(r*float64(width)), int(r*float64(height))
	box := image.Rect(max(x-halfW, 0), max(y-halfH, 0), min(x+halfW, width), min(y+halfH, height))
	return mixing{1 - float64(box.Dx()*box.Dy())/float64(width*height), box}
}

// apply mixes the pictures of a batch [n,height,width,channels] in place; the first
// is mixed with the last. spare holds one picture.
func (m mixing) apply(images, spare []float32, n, width, channels int) {
	size := len(images) / n
	picture := func(i int) []float32 { return images[i*size : (i+1)*size] }
	last := spare[:size]
	copy(last, picture(n-1))
	for i := n - 1; i >= 0; i-- { // downwards: the one before is still unmixed
		other := last
		if i > 0 {
			other = picture(i - 1)
		}
		m.into(picture(i), other, width, channels)
	}
}

func (m mixing) into(picture, other []float32, width, channels int) {
	if m.box.Empty() {
		a, b := float32(m.share), float32(1-m.share)
		for i, v := range other {
			picture[i] = float32(a*picture[i]) + float32(b*v)
		}
		return
	}
	for y := m.box.Min.Y; y < m.box.Max.Y; y++ {
		from, to := (y*width+m.box.Min.X)*channels, (y*width+m.box.Max.X)*channels
		copy(picture[from:to], other[from:to])
	}
}

// labels fills the batch's second labels and the weights of both.
func (m mixing) labels(labels, partners []int32, weights, partnerWeights []float32, classWeights []float32) {
	n := len(labels)
	for i := range n {
		partners[i] = labels[(i+n-1)%n]
		first, second := float32(1), float32(1)
		if classWeights != nil {
			first, second = classWeights[labels[i]], classWeights[partners[i]]
		}
		weights[i], partnerWeights[i] = first*float32(m.share), second*float32(1-m.share)
	}
}
