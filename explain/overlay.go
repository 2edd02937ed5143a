package explain

import (
	"cmp"
	"encoding/csv"
	"image"
	"image/color"
	"io"
	"math"
	"slices"
	"strconv"

	"golang.org/x/image/draw"
	"gonum.org/v1/plot/palette/moreland"

	"github.com/residual-ml/residual/dataset"
)

// Overlays are at least so large, so that a picture of CIFAR can be seen, and at
// most, so that a photograph of 100 megapixels does not become a second one.
const (
	minOverlay = 256
	maxOverlay = 2048
)

// The map's colours are laid over the picture with an opacity that rises with
// the value: what does not speak for the class stays as it is.
const (
	opacity = 0.75
	outside = 0.35 // brightness of what the network did not see
)

// heat has 256 colours from black over red and orange to yellow, whose lightness
// in CIELAB rises evenly (Moreland 2016, "Why we use bad color maps and what you
// can do about it"), so that equal steps of the map look equal, to colour-blind
// people too. The last part of that map, to white, is left out: it would not show
// on a white picture.
var heat = func() (colors [256]color.NRGBA) {
	m := moreland.BlackBody()
	m.SetMin(0)
	m.SetMax(1)
	for i := range colors {
		c, err := m.At(0.84 * float64(i) / 255)
		if err != nil {
			panic("explain: colour map: " + err.Error()) // 0 … 1 is its range
		}
		colors[i] = color.NRGBAModel.Convert(c).(color.NRGBA)
	}
	return colors
}()

// Overlay is the picture in grey with the map in colour over it. The map is scaled
// so that the brightest colour begins at the hundredth part of its values, since a
// single one may stand out; where it is 0 the grey picture is seen. It is
// interpolated smoothly to the picture's size. Small pictures are enlarged by a
// whole number, very large ones reduced. What the network did not see is darker.
func Overlay(picture dataset.Image, m Map) *image.NRGBA {
	out, zoom := enlarged(picture)
	size := out.Bounds()
	window := image.Rect(
		int(math.Round(float64(m.Window.Min.X)*zoom)), int(math.Round(float64(m.Window.Min.Y)*zoom)),
		int(math.Round(float64(m.Window.Max.X)*zoom)), int(math.Round(float64(m.Window.Max.Y)*zoom))) // over the picture with letterbox
	values := m.resized(window.Dy(), window.Dx())
	sorted := slices.Sorted(slices.Values(m.Values))
	top := cmp.Or(sorted[len(sorted)-1-len(sorted)/100], sorted[len(sorted)-1])
	for y := range size.Dy() {
		for x := range size.Dx() {
			p := out.Pix[y*out.Stride+4*x:][:3]
			grey := color.GrayModel.Convert(color.NRGBA{p[0], p[1], p[2], 255}).(color.Gray).Y
			var ink color.NRGBA
			a, dark := 0.0, 1.0
			if !(image.Point{X: x, Y: y}).In(window) {
				dark = outside
			} else if top > 0 {
				v := float64(min(1, values[(y-window.Min.Y)*window.Dx()+x-window.Min.X]/top))
				ink, a = heat[int(255*v)], opacity*v
			}
			for c, i := range [3]uint8{ink.R, ink.G, ink.B} {
				p[c] = uint8(dark*(1-a)*float64(grey) + a*float64(i) + 0.5)
			}
		}
	}
	return out
}

// enlarged is the picture, within the limits of an overlay, and by what it was
// multiplied.
func enlarged(picture dataset.Image) (*image.NRGBA, float64) {
	zoom := 1.0
	if short := min(picture.Height, picture.Width); short < minOverlay {
		zoom = float64((minOverlay + short - 1) / short)
	}
	if long := max(picture.Height, picture.Width); zoom*float64(long) > maxOverlay {
		zoom = maxOverlay / float64(long)
	}
	full := Picture(picture)
	if zoom == 1 {
		return full, 1
	}
	out := image.NewNRGBA(image.Rect(0, 0, max(1, int(zoom*float64(picture.Width))), max(1, int(zoom*float64(picture.Height)))))
	if zoom > 1 {
		draw.NearestNeighbor.Scale(out, out.Bounds(), full, full.Bounds(), draw.Src, nil) // its pixels, as they are
	} else {
		draw.CatmullRom.Scale(out, out.Bounds(), full, full.Bounds(), draw.Src, nil)
	}
	return out, zoom
}

// Picture is a picture of a data set as one of package image.
func Picture(m dataset.Image) *image.NRGBA {
	out := image.NewNRGBA(image.Rect(0, 0, m.Width, m.Height))
	for i := range m.Height * m.Width {
		p := out.Pix[4*i:][:4]
		if m.Channels == 1 {
			p[0], p[1], p[2] = m.Pix[i], m.Pix[i], m.Pix[i]
		} else {
			copy(p, m.Pix[3*i:3*i+3])
		}
		p[3] = 255
	}
	return out
}

// resized is the map at another size by cubic convolution (Catmull-Rom), which
// goes through the map's own values, without what overshoots below 0.
func (m Map) resized(height, width int) []float32 {
	columns, rows := taps(m.Width, width), taps(m.Height, height)
	wide := make([]float32, m.Height*width)
	for y := range m.Height {
		for x, t := range columns {
			wide[y*width+x] = max(0, t.sum(m.Values[y*m.Width:], 1))
		}
	}
	out := make([]float32, height*width)
	for y, t := range rows {
		for x := range width {
			out[y*width+x] = max(0, t.sum(wide[x:], width))
		}
	}
	return out
}

// tap is one output of an interpolation: four inputs and their weights.
type tap struct {
	at     [4]int
	weight [4]float32
}

func (t tap) sum(values []float32, stride int) (s float32) {
	for i, at := range t.at {
		s += t.weight[i] * values[at*stride]
	}
	return s
}

// taps interpolates in values at as many places, pixels' centres on both sides;
// the outermost values go on beyond the border.
func taps(in, out int) []tap {
	all := make([]tap, out)
	for i := range all {
		center := (float64(i)+0.5)*float64(in)/float64(out) - 0.5
		first := int(math.Floor(center)) - 1
		for k := range 4 {
			d := math.Abs(center - float64(first+k))
			w := 0.0
			switch { // a = -½
			case d < 1:
				w = 1.5*d*d*d - 2.5*d*d + 1
			case d < 2:
				w = -0.5*d*d*d + 2.5*d*d - 4*d + 2
			}
			all[i].at[k] = min(max(first+k, 0), in-1)
			all[i].weight[k] = float32(w)
		}
	}
	return all
}

// WriteCSV writes the map's values, a line per row from the top.
func (m Map) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	for y := range m.Height {
		cells := make([]string, m.Width)
		for x := range cells {
			cells[x] = strconv.FormatFloat(float64(m.Values[y*m.Width+x]), 'g', -1, 32)
		}
		if err := out.Write(cells); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// Strip is pictures side by side, scaled to one height: what is explained and then
// its neighbours, with a wider gap between.
func Strip(pictures []dataset.Image) *image.NRGBA {
	const height, gap = 128, 4
	var scaled []*image.NRGBA
	width := -gap
	for i, p := range pictures {
		full := Picture(p)
		out := image.NewNRGBA(image.Rect(0, 0, min(4*height, max(1, height*p.Width/p.Height)), height))
		if p.Height < height {
			draw.NearestNeighbor.Scale(out, out.Bounds(), full, full.Bounds(), draw.Src, nil)
		} else {
			draw.CatmullRom.Scale(out, out.Bounds(), full, full.Bounds(), draw.Src, nil)
		}
		scaled = append(scaled, out)
		width += out.Rect.Dx() + gap
		if i == 1 {
			width += 3 * gap
		}
	}
	strip := image.NewNRGBA(image.Rect(0, 0, width, height))
	draw.Draw(strip, strip.Bounds(), image.White, image.Point{}, draw.Src)
	x := 0
	for i, s := range scaled {
		if i == 1 {
			x += 3 * gap
		}
		draw.Draw(strip, s.Rect.Add(image.Pt(x, 0)), s, image.Point{}, draw.Src)
		x += s.Rect.Dx() + gap
	}
	return strip
}
