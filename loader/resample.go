package loader

import (
	"image"
	"math"
	"slices"

	"github.com/residual-ml/residual/dataset"
)

// Resampling as Pillow's resize does it with BICUBIC (src/libImaging/Resample.c), to
// the byte (golden/augment.json): networks that were trained elsewhere see here what
// they saw there. Rows first, then columns, each in fixed point with rounding to bytes
// in between; the kernel is widened when shrinking.

// taps are the source pixels and weights of every output pixel along an axis.
type taps struct {
	first   []int // by output pixel
	counts  []int
	weights []int32 // width of them for each output pixel, in units of 2⁻²²
	width   int
}

const tapBits = 32 - 8 - 2

// cubic is the Catmull-Rom kernel (Keys 1981 with a = -1/2).
func cubic(x float64) float64 {
	const a = -0.5
	switch x = math.Abs(x); {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}

// set computes the taps of output pixels from to to-1 where in pixels become out.
func (t *taps) set(in, out, from, to int) {
	scale := float64(in) / float64(out)
	wide := max(scale, 1)
	support := 2 * wide
	t.width = 2*int(math.Ceil(support)) + 1
	n := to - from
	t.first, t.counts = slices.Grow(t.first[:0], n)[:n], slices.Grow(t.counts[:0], n)[:n]
	t.weights = slices.Grow(t.weights[:0], n*t.width)[:n*t.width]
	for i := range n {
		centre := (float64(from+i) + 0.5) * scale
		first := max(0, int(centre-support+0.5))
		count := min(in, int(centre+support+0.5)) - first
		t.first[i], t.counts[i] = first, count
		weight := func(k int) float64 { return cubic((float64(k+first) - centre + 0.5) * (1 / wide)) }
		sum := 0.0
		for k := range count {
			sum += weight(k)
		}
		for k := range count {
			w := weight(k)
			if sum != 0 {
				w /= sum
			}
			t.weights[i*t.width+k] = int32(math.Copysign(0.5, w) + w*(1<<tapBits))
		}
	}
}

// resampler scales pictures with memory of its own.
type resampler struct {
	x, y taps
	rows []uint8 // the first pass's result
}

// scale draws the part from of src on the rectangle to of dst, which may reach over
// dst's edges; the rest of dst stays.
func (r *resampler) scale(dst *dataset.Image, to image.Rectangle, src dataset.Image, from image.Rectangle) {
	seen := to.Intersect(image.Rect(0, 0, dst.Width, dst.Height))
	if seen.Empty() || from.Empty() {
		return
	}
	ch := src.Channels
	r.x.set(from.Dx(), to.Dx(), seen.Min.X-to.Min.X, seen.Max.X-to.Min.X)
	r.y.set(from.Dy(), to.Dy(), seen.Min.Y-to.Min.Y, seen.Max.Y-to.Min.Y)
	last := seen.Dy() - 1
	top, bottom := r.y.first[0], r.y.first[last]+r.y.counts[last] // of the rows that are read
	row := seen.Dx() * ch
	r.rows = slices.Grow(r.rows[:0], (bottom-top)*row)[:(bottom-top)*row]
	for y := top; y < bottom; y++ {
		r.x.along(r.rows[(y-top)*row:][:row], src.Pix[((from.Min.Y+y)*src.Width+from.Min.X)*ch:][:from.Dx()*ch], ch)
	}
	for i := range seen.Dy() {
		out := dst.Pix[((seen.Min.Y+i)*dst.Width+seen.Min.X)*ch:][:row]
		r.y.across(out, r.rows[(r.y.first[i]-top)*row:], i)
	}
}

// along computes a row of output pixels from a row of pixels.
func (t *taps) along(out, in []uint8, ch int) {
	for i, first := range t.first {
		weights := t.weights[i*t.width:][:t.counts[i]]
		if ch == 3 {
			px := in[3*first:][:3*len(weights)]
			a, b, c := int32(1<<(tapBits-1)), int32(1<<(tapBits-1)), int32(1<<(tapBits-1))
			for k, w := range weights {
				a += w * int32(px[3*k])
				b += w * int32(px[3*k+1])
				c += w * int32(px[3*k+2])
			}
			out[3*i], out[3*i+1], out[3*i+2] = clip(a), clip(b), clip(c)
			continue
		}
		for c := range ch {
			sum := int32(1 << (tapBits - 1))
			for k, w := range weights {
				sum += w * int32(in[(first+k)*ch+c])
			}
			out[i*ch+c] = clip(sum)
		}
	}
}

// across computes output row i from rows below each other.
func (t *taps) across(out, rows []uint8, i int) {
	weights := t.weights[i*t.width:][:t.counts[i]]
	for x := range out {
		sum := int32(1 << (tapBits - 1))
		at := x
		for _, w := range weights {
			sum += w * int32(rows[at])
			at += len(out)
		}
		out[x] = clip(sum)
	}
}

func clip(sum int32) uint8 { return uint8(max(0, min(255, sum>>tapBits))) }
