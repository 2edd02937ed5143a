package dataset

import "image"

// JPEG and lossy WebP keep luma and chroma, and chroma mostly at half the
// resolution. Go's image.YCbCr repeats chroma and takes all of it for JPEG's; what
// networks from elsewhere saw came from libjpeg and libwebp (through Pillow,
// TensorFlow, OpenCV), which interpolate and know two formulas.

// chroma turns rows of a YCbCr picture into RGB.
type chroma struct {
	src    *image.YCbCr
	webp   bool
	across int // pixels for each sample of chroma
	down   int
	cb, cr []uint8 // a row of chroma at the resolution of luma
	sums   []int
}

func newChroma(src *image.YCbCr, webp bool) *chroma {
	c := &chroma{src: src, webp: webp, across: 1, down: 1}
	switch src.SubsampleRatio {
	case image.YCbCrSubsampleRatio422:
		c.across = 2
	case image.YCbCrSubsampleRatio420:
		c.across, c.down = 2, 2
	case image.YCbCrSubsampleRatio440:
		c.down = 2
	case image.YCbCrSubsampleRatio411:
		c.across = 4
	case image.YCbCrSubsampleRatio410:
		c.across, c.down = 4, 2
	}
	samples := (src.Rect.Dx() + c.across - 1) / c.across
	c.cb, c.cr = make([]uint8, samples*c.across), make([]uint8, samples*c.across)
	c.sums = make([]int, samples)
	return c
}

// row writes the RGB of row y, counted from the top, to out.
func (c *chroma) row(y int, out []uint8) {
	c.interpolate(c.cb, c.src.Cb, y)
	c.interpolate(c.cr, c.src.Cr, y)
	luma := c.src.Y[y*c.src.YStride:][:c.src.Rect.Dx()]
	cb, cr := c.cb[:len(luma)], c.cr[:len(luma)]
	if c.webp { // libwebp, src/dsp/yuv.h: luma from 16 to 235, ITU-R BT.601
		clip := func(v int) uint8 { return uint8(max(0, min(255, v>>6))) }
		for x, l := range luma {
			l, u, v := int(l)*19077>>8, int(cb[x]), int(cr[x])
			out[3*x] = clip(l + v*26149>>8 - 14234)
			out[3*x+1] = clip(l - u*6419>>8 - v*13320>>8 + 8708)
			out[3*x+2] = clip(l + u*33050>>8 - 17685)
		}
		return
	}
	// libjpeg, jdcolor.c: luma from 0 to 255.
	const half = 1 << 15
	clip := func(v int) uint8 { return uint8(max(0, min(255, v))) }
	for x, l := range luma {
		l, u, v := int(l), int(cb[x])-128, int(cr[x])-128
		out[3*x] = clip(l + (91881*v+half)>>16)
		out[3*x+1] = clip(l + (half-22554*u-46802*v)>>16)
		out[3*x+2] = clip(l + (116130*u+half)>>16)
	}
}

// interpolate brings row y of a plane of chroma to the resolution of luma: a half
// is interpolated with weights of 3/4 and 1/4 along each axis, as luma's pixels lie a
// quarter beside chroma's (libjpeg's "fancy upsampling", jdsample.c, and libwebp's,
// src/dsp/upsampling.c); what is coarser is repeated.
func (c *chroma) interpolate(out, plane []uint8, y int) {
	rows, n := (c.src.Rect.Dy()+c.down-1)/c.down, len(c.sums)
	line := func(row int) []uint8 { return plane[max(0, min(row, rows-1))*c.src.CStride:][:n] }
	near := line(y / c.down)
	if c.across == 4 || c.across == 1 && c.down == 1 {
		for x := range out {
			out[x] = near[x/c.across]
		}
		return
	}
	far := near
	if c.down == 2 {
		far = line(y/2 - 1 + y%2*2)
	}
	if c.across == 1 {
		for x := range out {
			out[x] = uint8((3*int(near[x]) + int(far[x]) + 1 + y%2) >> 2)
		}
		return
	}
	shift, left, right := 2, 1, 2 // libjpeg alternates how it rounds
	for x := range c.sums {
		c.sums[x] = int(near[x])
	}
	if c.down == 2 {
		shift, left, right = 4, 8, 7
		if c.webp {
			right = 8
		}
		for x := range c.sums {
			c.sums[x] = 3*int(near[x]) + int(far[x])
		}
	}
	for x, sum := range c.sums {
		before, after := c.sums[max(0, x-1)], c.sums[min(x+1, n-1)]
		out[2*x] = uint8((3*sum + before + left) >> shift)
		out[2*x+1] = uint8((3*sum + after + right) >> shift)
	}
}
