package loader

import (
	"fmt"
	"image"
	"slices"

	"golang.org/x/image/draw"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/internal/random"
)

// Preprocess turns a picture into the numbers a network was trained on. It is
// plain data and travels with every model.
//
//	(x·Scale - Mean)/Std    per channel, x in 0..255
type Preprocess struct {
	Height   int       `json:"height"`
	Width    int       `json:"width"`
	Channels int       `json:"channels"` // 3: RGB (grey is repeated); 1: grey (ITU-R BT.601 luma of RGB)
	Resize   string    `json:"resize"`   // for pictures of another size: squash or crop
	Scale    float64   `json:"scale"`
	Mean     []float64 `json:"mean,omitempty"`
	Std      []float64 `json:"std,omitempty"`
}

// The resize policies: Squash ignores the aspect ratio; Crop scales the
// shorter side to fit and cuts the longer one around its centre.
const (
	Squash = "squash"
	Crop   = "crop"
)

// Check reports the first field that makes no sense.
func (p Preprocess) Check() error {
	switch {
	case min(p.Height, p.Width) < 1 || max(p.Height, p.Width) > 1<<14:
		return fmt.Errorf("preprocess: size %d×%d, want 1 to 16384 on each side", p.Height, p.Width)
	case p.Channels != 1 && p.Channels != 3:
		return fmt.Errorf("preprocess: %d channels, want 1 or 3", p.Channels)
	case p.Resize != Squash && p.Resize != Crop:
		return fmt.Errorf("preprocess: resize %q, want squash or crop", p.Resize)
	case p.Scale == 0:
		return fmt.Errorf("preprocess: scale is 0, want 1/255 or the like")
	case len(p.Mean) != 0 && len(p.Mean) != p.Channels || len(p.Std) != 0 && len(p.Std) != p.Channels:
		return fmt.Errorf("preprocess: %d means and %d deviations, want none or one for each of %d channels", len(p.Mean), len(p.Std), p.Channels)
	case slices.Contains(p.Std, 0):
		return fmt.Errorf("preprocess: a deviation is 0")
	}
	return nil
}

// preparer applies a Preprocess with memory of its own; one goroutine uses it.
type preparer struct {
	Preprocess
	table [][256]float32 // per channel: the number for each byte

	// The picture as read, as resized, as augmented; memory that is used again.
	picture, sized, augmented dataset.Image
}

func newPreparer(p Preprocess) *preparer {
	t := &preparer{Preprocess: p, table: make([][256]float32, p.Channels)}
	for c := range t.table {
		mean, std := 0.0, 1.0
		if len(p.Mean) > 0 {
			mean = p.Mean[c]
		}
		if len(p.Std) > 0 {
			std = p.Std[c]
		}
		for x := range t.table[c] {
			t.table[c][x] = float32((float64(x)*p.Scale - mean) / std)
		}
	}
	return t
}

// Apply writes a picture's numbers to dst [Height,Width,Channels].
func (p Preprocess) Apply(picture dataset.Image, dst []float32) {
	newPreparer(p).apply(picture, Augment{}, new(random.Source), dst)
}

func (t *preparer) apply(picture dataset.Image, augment Augment, s *random.Source, dst []float32) {
	if picture.Height != t.Height || picture.Width != t.Width {
		t.resize(picture, &t.sized)
		picture = t.sized
	}
	if augment != (Augment{}) {
		picture = *augment.apply(s, &picture, &t.augmented)
	}
	switch {
	case picture.Channels == t.Channels && t.Channels == 3:
		r, g, b := &t.table[0], &t.table[1], &t.table[2]
		for i := 0; i+2 < len(picture.Pix) && i+2 < len(dst); i += 3 {
			dst[i] = r[picture.Pix[i]]
			dst[i+1] = g[picture.Pix[i+1]]
			dst[i+2] = b[picture.Pix[i+2]]
		}
	case picture.Channels == t.Channels:
		for i, x := range picture.Pix {
			dst[i] = t.table[0][x]
		}
	case t.Channels == 3: // grey → RGB
		for i, x := range picture.Pix {
			for c := range 3 {
				dst[3*i+c] = t.table[c][x]
			}
		}
	default: // RGB → grey
		for i := range t.Height * t.Width {
			r, g, b := int(picture.Pix[3*i]), int(picture.Pix[3*i+1]), int(picture.Pix[3*i+2])
			dst[i] = t.table[0][(299*r+587*g+114*b+500)/1000]
		}
	}
}

// Window returns the part of a picture of that size that the network gets to
// see: all of it, or with Crop the largest centred rectangle of the target's
// aspect.
func (p Preprocess) Window(height, width int) image.Rectangle {
	if p.Resize != Crop {
		return image.Rect(0, 0, width, height)
	}
	w, h := width, height
	if w*p.Height > h*p.Width {
		w = max(1, (h*p.Width+p.Height/2)/p.Height)
	} else {
		h = max(1, (w*p.Height+p.Width/2)/p.Width)
	}
	x, y := (width-w)/2, (height-h)/2
	return image.Rect(x, y, x+w, y+h)
}

// resize scales with the Catmull-Rom kernel, widened when shrinking, as Pillow's
// BICUBIC does.
func (p Preprocess) resize(src dataset.Image, dst *dataset.Image) {
	from := p.Window(src.Height, src.Width)
	height, width := p.Height, p.Width
	*dst = dataset.Image{Height: height, Width: width, Channels: src.Channels, Pix: slices.Grow(dst.Pix[:0], height*width*src.Channels)[:height*width*src.Channels]}
	if src.Channels == 1 {
		grey := &image.Gray{Pix: src.Pix, Stride: src.Width, Rect: image.Rect(0, 0, src.Width, src.Height)}
		out := &image.Gray{Pix: dst.Pix, Stride: width, Rect: image.Rect(0, 0, width, height)}
		draw.CatmullRom.Scale(out, out.Rect, grey, from, draw.Src, nil)
		return
	}
	full := image.NewRGBA(image.Rect(0, 0, src.Width, src.Height))
	for i := range src.Width * src.Height {
		copy(full.Pix[4*i:], src.Pix[3*i:3*i+3])
		full.Pix[4*i+3] = 255
	}
	out := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.CatmullRom.Scale(out, out.Rect, full, from, draw.Src, nil)
	for i := range width * height {
		copy(dst.Pix[3*i:3*i+3], out.Pix[4*i:])
	}
}
