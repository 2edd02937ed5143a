package loader

import (
	"fmt"
	"image"
	"math"
	"slices"

	"github.com/residual-ml/residual/dataset"
)

// Preprocess turns a picture into the numbers a network was trained on. It is
// plain data and travels with every model.
//
//	(x·Scale - Mean)/Std    per channel, x in 0..255
type Preprocess struct {
	Height   int       `json:"height"`
	Width    int       `json:"width"`
	Channels int       `json:"channels"` // 3: RGB (grey is repeated); 1: grey (ITU-R BT.601 luma of RGB)
	Resize   string    `json:"resize"`   // for pictures of another size: squash, crop or letterbox
	Scale    float64   `json:"scale"`
	Mean     []float64 `json:"mean,omitempty"`
	Std      []float64 `json:"std,omitempty"`

	// CropPct, with Crop, is the share of the shorter side that is seen: pictures
	// are scaled to 1/CropPct of the target and the centre is cut out, 0.875 being
	// 256 and 224 pixels (timm's crop_pct; torchvision's Resize and CenterCrop). It
	// holds for pictures of the target's size as well. 0: all of it.
	CropPct float64 `json:"crop_pct,omitempty"`
}

// The resize policies: Squash ignores the aspect ratio; Crop scales the
// shorter side to fit and cuts the longer one around its centre; Letterbox scales
// the longer side to fit and fills up with black on both sides (Pillow's
// ImageOps.pad, Keras's pad_to_aspect_ratio).
const (
	Squash    = "squash"
	Crop      = "crop"
	Letterbox = "letterbox"
)

// Check reports the first field that makes no sense.
func (p Preprocess) Check() error {
	switch {
	case min(p.Height, p.Width) < 1 || max(p.Height, p.Width) > 1<<14:
		return fmt.Errorf("preprocess: size %d×%d, want 1 to 16384 on each side", p.Height, p.Width)
	case p.Channels != 1 && p.Channels != 3:
		return fmt.Errorf("preprocess: %d channels, want 1 or 3", p.Channels)
	case p.Resize != Squash && p.Resize != Crop && p.Resize != Letterbox:
		return fmt.Errorf("preprocess: resize %q, want squash, crop or letterbox", p.Resize)
	case p.CropPct != 0 && !(p.CropPct >= 0.1 && p.CropPct <= 1):
		return fmt.Errorf("preprocess: crop-pct %v, want 0.1 to 1", p.CropPct)
	case p.CropPct != 0 && p.Resize != Crop:
		return fmt.Errorf("preprocess: crop-pct %v with resize %s, want crop", p.CropPct, p.Resize)
	case !(p.Scale > 0) || math.IsInf(p.Scale, 0):
		return fmt.Errorf("preprocess: scale is %v, want 1/255 or the like", p.Scale)
	case len(p.Mean) != 0 && len(p.Mean) != p.Channels || len(p.Std) != 0 && len(p.Std) != p.Channels:
		return fmt.Errorf("preprocess: %d means and %d deviations, want none or one for each of %d channels", len(p.Mean), len(p.Std), p.Channels)
	case slices.ContainsFunc(p.Mean, func(m float64) bool { return math.IsNaN(m) || math.IsInf(m, 0) }):
		return fmt.Errorf("preprocess: means %v, want numbers", p.Mean)
	case slices.ContainsFunc(p.Std, func(s float64) bool { return !(s > 0) || math.IsInf(s, 0) }):
		return fmt.Errorf("preprocess: deviations %v, want numbers above 0", p.Std)
	}
	return nil
}

// Linear writes (x·Scale - Mean)/Std as x·gain + offset, for each channel.
func (p Preprocess) Linear() (gain, offset []float64) {
	gain, offset = make([]float64, p.Channels), make([]float64, p.Channels)
	for c := range p.Channels {
		mean, std := p.normalization(c)
		gain[c], offset[c] = p.Scale/std, 0-mean/std // 0-: no negative zero
	}
	return gain, offset
}

// normalization is the mean and deviation of a channel.
func (p Preprocess) normalization(c int) (mean, std float64) {
	std = 1
	if len(p.Mean) > 0 {
		mean = p.Mean[c]
	}
	if len(p.Std) > 0 {
		std = p.Std[c]
	}
	return mean, std
}

// preparer applies a Preprocess with memory of its own; one goroutine uses it.
type preparer struct {
	Preprocess
	table [][256]float32 // per channel: the number for each byte

	// The picture as read, as resized, as augmented; memory that is used again.
	picture, sized, augmented, scratch dataset.Image
	resampler                          resampler
}

func newPreparer(p Preprocess) *preparer {
	t := &preparer{Preprocess: p, table: make([][256]float32, p.Channels)}
	for c := range t.table {
		mean, std := p.normalization(c)
		for x := range t.table[c] {
			t.table[c][x] = float32((float64(x)*p.Scale - mean) / std)
		}
	}
	return t
}

// Apply writes a picture's numbers to dst [Height,Width,Channels].
func (p Preprocess) Apply(picture dataset.Image, dst []float32) {
	newPreparer(p).apply(picture, Augment{}, place{}, dst)
}

// apply writes a picture's numbers to dst; the picture at that place is augmented
// as training does it, except for mixing.
func (t *preparer) apply(picture dataset.Image, augment Augment, at place, dst []float32) {
	switch {
	case augment.ResizedCrop > 0:
		from := augment.window(at, picture.Height, picture.Width)
		t.draw(picture, from, image.Rect(0, 0, t.Width, t.Height))
		picture = t.sized
	case picture.Height != t.Height || picture.Width != t.Width || t.CropPct != 0:
		from, to := t.geometry(picture.Height, picture.Width)
		t.draw(picture, from, to)
		picture = t.sized
	}
	if augment == (Augment{}) {
		t.numbers(picture, dst)
		return
	}
	t.numbers(*augment.apply(at, &picture, &t.augmented, &t.scratch), dst)
	augment.punch(at, dst, t.Height, t.Width, t.Channels)
}

// numbers writes (x·Scale - Mean)/Std.
func (t *preparer) numbers(picture dataset.Image, dst []float32) {
	switch {
	case picture.Channels == t.Channels && t.Channels == 3:
		r, g, b := &t.table[0], &t.table[1], &t.table[2]
		for pix := picture.Pix; len(pix) >= 3 && len(dst) >= 3; pix, dst = pix[3:], dst[3:] { // so the compiler sees that nothing is out of bounds
			dst[0], dst[1], dst[2] = r[pix[0]], g[pix[1]], b[pix[2]]
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
// aspect, of which CropPct takes a share, or with Letterbox the smallest one that
// holds the picture.
func (p Preprocess) Window(height, width int) image.Rectangle {
	w, h := width, height
	switch p.Resize {
	case Squash:
		return image.Rect(0, 0, width, height)
	case Letterbox:
		if w*p.Height > h*p.Width {
			h = (w*p.Height + p.Width/2) / p.Width
		} else {
			w = (h*p.Width + p.Height/2) / p.Height
		}
		x, y := -((w - width) / 2), -((h - height) / 2)
		return image.Rect(x, y, x+w, y+h)
	}
	if w*p.Height > h*p.Width {
		w = max(1, (h*p.Width+p.Height/2)/p.Height)
	} else {
		h = max(1, (w*p.Height+p.Width/2)/p.Width)
	}
	if p.CropPct != 0 {
		w, h = max(1, int(math.Round(p.CropPct*float64(w)))), max(1, int(math.Round(p.CropPct*float64(h))))
	}
	x, y := (width-w)/2, (height-h)/2
	return image.Rect(x, y, x+w, y+h)
}

// letterbox is what the black bars leave of the target.
func (p Preprocess) letterbox(height, width int) image.Rectangle {
	w, h := p.Width, p.Height
	if width*p.Height > height*p.Width { // rounded to even, as Python rounds
		h = max(1, int(math.RoundToEven(float64(height)/float64(width)*float64(p.Width))))
	} else {
		w = max(1, int(math.RoundToEven(float64(width)/float64(height)*float64(p.Height))))
	}
	x, y := int(math.RoundToEven(float64(p.Width-w)*0.5)), int(math.RoundToEven(float64(p.Height-h)*0.5))
	return image.Rect(x, y, x+w, y+h)
}

// geometry returns which part of a picture is scaled to which rectangle; the latter
// may reach over the target's edges.
func (p Preprocess) geometry(height, width int) (from, to image.Rectangle) {
	switch {
	case p.Resize == Letterbox:
		return image.Rect(0, 0, width, height), p.letterbox(height, width)
	case p.CropPct == 0:
		return p.Window(height, width), image.Rect(0, 0, p.Width, p.Height)
	}
	// The whole picture, its shorter side (for a square target) ⌊size/CropPct⌋ long.
	w, h := int(float64(p.Width)/p.CropPct), int(float64(p.Height)/p.CropPct)
	if w*height >= h*width {
		h = int(float64(w*height) / float64(width))
	} else {
		w = int(float64(h*width) / float64(height))
	}
	x, y := int(math.RoundToEven(float64(w-p.Width)/2)), int(math.RoundToEven(float64(h-p.Height)/2))
	return image.Rect(0, 0, width, height), image.Rect(-x, -y, w-x, h-y)
}

// draw scales a part of src to a rectangle of t.sized, which is black elsewhere.
func (t *preparer) draw(src dataset.Image, from, to image.Rectangle) {
	reuse(&t.sized, t.Height, t.Width, src.Channels)
	if !image.Rect(0, 0, t.Width, t.Height).In(to) {
		clear(t.sized.Pix)
	}
	t.resampler.scale(&t.sized, to, src, from)
}
