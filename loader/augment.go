package loader

import (
	"fmt"
	"slices"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/internal/random"
)

// Augment changes training pictures at random, after resizing. What happens to a
// picture is a pure function of (seed, epoch, position in the data set). The
// zero Augment changes nothing.
type Augment struct {
	// PadCrop pads each side with so many black pixels and cuts a window of the
	// picture's size out of the result, at a uniform place (He et al. 2015,
	// section 4.2, with 4).
	PadCrop int `json:"pad_crop,omitempty"`
	// Flip mirrors left and right with probability one half.
	Flip bool `json:"flip,omitempty"`
}

// Check reports the first field that makes no sense for pictures of that size.
func (a Augment) Check(height, width int) error {
	if a.PadCrop < 0 || a.PadCrop > min(height, width) {
		return fmt.Errorf("augment: pad-crop of %d pixels, want 0 to %d", a.PadCrop, min(height, width))
	}
	return nil
}

// apply draws from s and changes src, with dst as memory; it returns whichever
// of the two holds the result. It always draws the same number of values, so
// that one setting does not change what another one does.
func (a Augment) apply(s *random.Source, src, dst *dataset.Image) *dataset.Image {
	dy, dx := s.IntN(2*a.PadCrop+1)-a.PadCrop, s.IntN(2*a.PadCrop+1)-a.PadCrop
	flip := s.Bool(0.5) && a.Flip
	if dy == 0 && dx == 0 && !flip {
		return src
	}
	h, w, c := src.Height, src.Width, src.Channels
	*dst = dataset.Image{Height: h, Width: w, Channels: c, Pix: slices.Grow(dst.Pix[:0], h*w*c)[:h*w*c]}
	clear(dst.Pix)
	for y := max(0, -dy); y < min(h, h-dy); y++ { // rows whose source y+dy exists
		from, to := src.Pix[(y+dy)*w*c:(y+dy+1)*w*c], dst.Pix[y*w*c:(y+1)*w*c]
		x0, x1 := max(0, -dx), min(w, w-dx)
		if !flip {
			copy(to[x0*c:x1*c], from[(x0+dx)*c:])
			continue
		}
		for x := x0; x < x1; x++ {
			copy(to[(w-1-x)*c:(w-x)*c], from[(x+dx)*c:])
		}
	}
	return dst
}
