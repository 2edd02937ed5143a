package loader

import (
	"math"
	"slices"

	"github.com/residual-ml/residual/dataset"
)

// What RandAugment, TrivialAugment and colour jitter do to a picture. All of it is
// Pillow's arithmetic, byte for byte (golden/augment.json), so that a picture
// augmented here is one that torchvision's transforms may give. Functions change p
// in place and take scratch where they need a second picture. Pictures have one
// channel or three.

// reuse gives dst the size of p.
func reuse(dst *dataset.Image, height, width, channels int) {
	n := height * width * channels
	*dst = dataset.Image{Height: height, Width: width, Channels: channels, Pix: slices.Grow(dst.Pix[:0], n)[:n]}
}

// luma is Pillow's "L" of a pixel: ITU-R BT.601 in 16 bits.
func luma(r, g, b uint8) uint8 {
	return uint8((uint32(r)*19595 + uint32(g)*38470 + uint32(b)*7471 + 0x8000) >> 16)
}

// grey is luma of pixel i.
func grey(p *dataset.Image, i int) uint8 {
	if p.Channels == 1 {
		return p.Pix[i]
	}
	return luma(p.Pix[3*i], p.Pix[3*i+1], p.Pix[3*i+2])
}

// blend is Pillow's Image.blend: from + share·(to-from), truncated, beyond [0,1]
// too.
func blend(from, to uint8, share float32) uint8 {
	v := float32(from) + float32(share*float32(int(to)-int(from)))
	return uint8(max(0, min(255, v)))
}

// mapBytes replaces every byte of channel c of step channels.
func mapBytes(p *dataset.Image, c, step int, table *[256]uint8) {
	for i := c; i < len(p.Pix); i += step {
		p.Pix[i] = table[p.Pix[i]]
	}
}

func mapAll(p *dataset.Image, f func(x int) uint8) {
	var table [256]uint8
	for x := range table {
		table[x] = f(x)
	}
	mapBytes(p, 0, 1, &table)
}

// brightness is ImageEnhance.Brightness: 0 is black, 1 the picture.
func brightness(p *dataset.Image, factor float64) {
	mapAll(p, func(x int) uint8 { return blend(0, uint8(x), float32(factor)) })
}

// contrast is ImageEnhance.Contrast: 0 is the mean grey.
func contrast(p *dataset.Image, factor float64) {
	sum, n := 0, p.Height*p.Width
	for i := range n {
		sum += int(grey(p, i))
	}
	mean := uint8(float64(sum)/float64(n) + 0.5)
	mapAll(p, func(x int) uint8 { return blend(mean, uint8(x), float32(factor)) })
}

// saturation is ImageEnhance.Color: 0 is grey.
func saturation(p *dataset.Image, factor float64) {
	for i := 0; i+2 < len(p.Pix) && p.Channels == 3; i += 3 {
		px := p.Pix[i : i+3 : i+3]
		l := luma(px[0], px[1], px[2])
		for c, x := range px {
			px[c] = blend(l, x, float32(factor))
		}
	}
}

// sharpness is ImageEnhance.Sharpness: 0 is smoothed by the filter 1 1 1, 1 5 1,
// 1 1 1 over 13, but for the outermost pixels, 1 the picture, 2 sharpened.
func sharpness(p, scratch *dataset.Image, factor float64) {
	h, w, ch := p.Height, p.Width, p.Channels
	if h < 3 || w < 3 {
		return
	}
	reuse(scratch, h, w, ch)
	copy(scratch.Pix, p.Pix)
	const outer, centre = float32(1) / 13, float32(5) / 13
	src := scratch.Pix
	row := w * ch
	for y := 1; y < h-1; y++ {
		for i := y*row + ch; i < (y+1)*row-ch; i++ {
			sum := func(at int, middle float32) float32 {
				return float32(src[at-ch])*outer + float32(src[at])*middle + float32(src[at+ch])*outer
			}
			smooth := float32(0.5)
			smooth += sum(i+row, outer)
			smooth += sum(i, centre)
			smooth += sum(i-row, outer)
			p.Pix[i] = blend(uint8(min(smooth, 255)), src[i], float32(factor))
		}
	}
}

// posterize keeps the highest bits of every byte.
func posterize(p *dataset.Image, bits int) {
	mask := uint8(0xff << (8 - bits))
	mapAll(p, func(x int) uint8 { return uint8(x) & mask })
}

// solarize inverts bytes from the threshold on.
func solarize(p *dataset.Image, threshold float64) {
	mapAll(p, func(x int) uint8 {
		if float64(x) < threshold {
			return uint8(x)
		}
		return uint8(255 - x)
	})
}

func histogram(p *dataset.Image, c int) (h [256]int) {
	for i := c; i < len(p.Pix); i += p.Channels {
		h[p.Pix[i]]++
	}
	return h
}

// autoContrast stretches each channel to 0..255.
func autoContrast(p *dataset.Image) {
	for c := range p.Channels {
		h := histogram(p, c)
		lo, hi := 0, 255
		for lo < 255 && h[lo] == 0 {
			lo++
		}
		for hi > 0 && h[hi] == 0 {
			hi--
		}
		if hi <= lo {
			continue
		}
		scale := 255 / float64(hi-lo)
		offset := float64(-lo) * scale
		var table [256]uint8
		for x := range table {
			v := float64(float64(x)*scale) + offset
			table[x] = uint8(max(0, min(255, v)))
		}
		mapBytes(p, c, p.Channels, &table)
	}
}

// equalize spreads each channel so that its histogram is as flat as can be.
func equalize(p *dataset.Image) {
	for c := range p.Channels {
		h := histogram(p, c)
		total, last, different := 0, 0, 0
		for _, n := range h {
			if n > 0 {
				total, last, different = total+n, n, different+1
			}
		}
		step := (total - last) / 255
		if different <= 1 || step == 0 {
			continue
		}
		var table [256]uint8
		n := step / 2
		for x := range table {
			table[x] = uint8(min(n/step, 255))
			n += h[x]
		}
		mapBytes(p, c, p.Channels, &table)
	}
}

// hue turns the hue by a share of the circle in [-0.5,0.5], through Pillow's HSV in
// bytes, as torchvision does.
func hue(p *dataset.Image, turn float64) {
	shift := uint8(int32(turn * 255))
	for i := 0; i+2 < len(p.Pix) && p.Channels == 3; i += 3 {
		px := p.Pix[i : i+3 : i+3]
		h, s, v := toHSV(px[0], px[1], px[2])
		px[0], px[1], px[2] = fromHSV(h+shift, s, v)
	}
}

// toHSV follows Pillow's rgb2hsv_row, whose variables are float32 and whose
// constants are float64.
func toHSV(r, g, b uint8) (h, s, v uint8) {
	hi, lo := max(r, g, b), min(r, g, b)
	if lo == hi {
		return 0, 0, hi
	}
	chroma := float32(hi - lo)
	rc, gc, bc := float32(hi-r)/chroma, float32(hi-g)/chroma, float32(hi-b)/chroma
	var at float32
	switch hi {
	case r:
		at = bc - gc
	case g:
		at = float32(2 + float64(rc) - float64(bc))
	default:
		at = float32(4 + float64(gc) - float64(rc))
	}
	turn := float64(at)/6 + 1 // fmod(…, 1), of 5/6 to 11/6
	if turn >= 1 {
		turn--
	}
	return uint8(float64(float32(turn)) * 255), uint8(float64(chroma/float32(hi)) * 255), hi
}

// fromHSV follows Pillow's hsv2rgb.
func fromHSV(h, s, v uint8) (r, g, b uint8) {
	if s == 0 {
		return v, v, v
	}
	sector := float64(int(h) * 6 / 255)
	f := float64(float32(float64(h)*6/255 - sector))
	fs := float64(float32(float64(s) / 255))
	at := func(share float64) uint8 { return uint8(float64(v)*share + 0.5) }
	p, q, t := at(1-fs), at(1-float64(fs*f)), at(1-float64(fs*(1-f)))
	switch int(sector) % 6 {
	case 0:
		return v, t, p
	case 1:
		return q, v, p
	case 2:
		return p, v, t
	case 3:
		return p, q, v
	case 4:
		return t, p, v
	}
	return v, p, q
}

// affine is Pillow's transform with the nearest pixel and black outside: output
// pixel (x,y) shows m[0]·x + m[1]·y + m[2], m[3]·x + m[4]·y + m[5] of the picture, at
// pixel centres, in fixed point with 16 bits.
func affine(p, scratch *dataset.Image, m [6]float64) {
	fix := func(v float64) int64 { return int64(math.Floor(v*65536 + 0.5)) }
	h, w, ch := p.Height, p.Width, p.Channels
	reuse(scratch, h, w, ch)
	clear(scratch.Pix)
	sx, sy := fix(m[2]+m[0]*0.5+m[1]*0.5), fix(m[5]+m[3]*0.5+m[4]*0.5)
	for y := range h {
		atX, atY := sx+int64(y)*fix(m[1]), sy+int64(y)*fix(m[4])
		for x := range w {
			if fromX, fromY := int(atX>>16), int(atY>>16); fromX >= 0 && fromX < w && fromY >= 0 && fromY < h {
				copy(scratch.Pix[(y*w+x)*ch:][:ch], p.Pix[(fromY*w+fromX)*ch:])
			}
			atX += fix(m[0])
			atY += fix(m[3])
		}
	}
	*p, *scratch = *scratch, *p
}

func shearX(p, scratch *dataset.Image, by float64) {
	affine(p, scratch, [6]float64{1, by, 0, 0, 1, 0})
}

func shearY(p, scratch *dataset.Image, by float64) {
	affine(p, scratch, [6]float64{1, 0, 0, by, 1, 0})
}

func translate(p, scratch *dataset.Image, x, y int) {
	affine(p, scratch, [6]float64{1, 0, float64(-x), 0, 1, float64(-y)})
}

// rotate turns about the centre, counter-clockwise, by degrees.
func rotate(p, scratch *dataset.Image, degrees float64) {
	angle := -degrees * math.Pi / 180
	round := func(v float64) float64 { return math.Round(v*1e15) / 1e15 }
	cos, sin := round(math.Cos(angle)), round(math.Sin(angle))
	cx, cy := float64(p.Width)/2, float64(p.Height)/2
	affine(p, scratch, [6]float64{cos, sin, -cx*cos - cy*sin + cx, -sin, cos, cx*sin - cy*cos + cy})
}
