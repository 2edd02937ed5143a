package dataset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"

	"github.com/residual-ml/residual/internal/random"
)

// The size of the data set shapes. 3,200 pictures are 100 steps of 32, so the
// five epochs of the tutorial recipe are 500 steps: Keras's batch norm
// (momentum 0.99) needs about 460 to forget its initial statistics.
const (
	shapesSide  = 32 // height and width of a picture
	shapesBytes = shapesSide * shapesSide * 3
	shapesTrain = 3200
	shapesTest  = 800
)

// shapeNames are the classes of openShapes.
func shapeNames() []string {
	classes := make([]string, len(forms))
	for i, f := range forms {
		classes[i] = f.name
	}
	return classes
}

// openShapes generates the embedded data set: every picture shows one of ten
// geometric forms (shapes_forms.go), filled or outlined, of random size, place,
// rotation, colours and texture, among clutter and under noise. It is lighter or
// darker than the background with equal chance, so that colour tells nothing.
//
// A picture is a pure function of (seed, split, index), the same bytes on every
// architecture; TestShapesAreFixed holds the hash. Labels are index modulo 10:
// any prefix of a split is balanced.
func openShapes(seed uint64) *Data {
	classes := shapeNames()
	training, testing := newShapes(seed, train, shapesTrain), newShapes(seed, test, shapesTest)
	hash := newContentHash(classes)
	for _, s := range []*shapes{training, testing} {
		sum := sha256.Sum256(s.pix)
		hash.add(s.split, "index modulo 10", hex.EncodeToString(sum[:]))
	}
	return &Data{
		Name: shapesName, Classes: classes, Height: shapesSide, Width: shapesSide, Channels: 3,
		Train: training, Test: testing,
		Origin: Origin{
			Source: fmt.Sprintf("generated with seed %d", seed),
			Hash:   hash.sum(),
			Counts: map[string]int{train: training.Len(), test: testing.Len()},
		},
	}
}

// shapes is one split of the generated data in memory.
type shapes struct {
	split string
	pix   []uint8 // [Len,32,32,3]
}

func newShapes(seed uint64, split string, n int) *shapes {
	s := &shapes{split, make([]uint8, n*shapesBytes)}
	each(n, func(i int) {
		drawShape(s.at(i), s.Label(i), random.Make(seed, random.Name(shapesName), random.Name(split), uint64(i)))
	})
	return s
}

func (s *shapes) at(i int) []uint8 { return s.pix[i*shapesBytes:][:shapesBytes] }
func (s *shapes) Len() int         { return len(s.pix) / shapesBytes }
func (s *shapes) Label(i int) int  { return i % len(forms) }
func (s *shapes) Name(i int) string {
	return fmt.Sprintf("%s/%04d-%s", s.split, i, forms[s.Label(i)].name)
}

func (s *shapes) Image(i int, dst *Image) error {
	if i < 0 || i >= s.Len() {
		return fmt.Errorf("dataset: picture %d of %d", i, s.Len())
	}
	dst.reset(shapesSide, shapesSide, 3)
	copy(dst.Pix, s.at(i))
	return nil
}

// drawShape paints one picture of a class, back to front: background, clutter,
// the form, a little clutter over it, noise.
func drawShape(pix []uint8, class int, source random.Source) {
	p := painter{Source: source}

	ground := p.paint(p.colour(), 10, 40)
	p.layer(vec{16, 16}, 16, func(at vec) (float64, rgb) { return 1, ground.at(at) })

	// Another form, small and cut off by the frame.
	if p.Bool(0.3) {
		edge := p.direction().times(17)
		small := form{p.IntN(len(forms)), p.between(3, 5), vec{16, 16}.plus(edge), p.upright(), p.Bool(0.5)}
		ink := p.colour()
		p.layer(small.centre, small.reach(), func(at vec) (float64, rgb) { return coverage(small.distance(at)), ink })
	}
	for range p.IntN(3) {
		p.mark(p.between(0, 4), p.between(0.4, 1))
	}

	radius := p.between(12, 14.5)
	play := 16 - radius
	main := form{
		class, radius,
		vec{16 + p.between(-play, play), 16 + p.between(-play, play)},
		p.upright(), p.Bool(0.5),
	}
	fill := p.paint(p.contrasting(ground), 5, 40)
	edge := p.contrasting(ground)
	width := p.between(1.6, 2.8)
	edged, hollow := p.Bool(0.5), p.Bool(0.35)
	p.layer(main.centre, main.reach(), func(at vec) (float64, rgb) {
		d := main.distance(at)
		rim := d + width // positive on the rim, a band inside the form's border
		switch {
		case hollow:
			return coverage(max(d, -rim)), edge
		case edged:
			return coverage(d), mix(fill.at(at), edge, 1-coverage(rim))
		}
		return coverage(d), fill.at(at)
	})

	if p.Bool(0.25) {
		p.mark(p.between(0, 3), p.between(0.4, 0.8))
	}
	p.develop(pix, 2+p.IntN(8))
}

// painter is a canvas with the stream of random numbers that fills it.
//
// Compilers may fuse x*y+z into one rounding (arm64, amd64 at GOAMD64=v3), and
// math.Sin differs with that. So that the pictures are the same bytes
// everywhere, this file and shapes_forms.go use only + - * / and square roots,
// and every product that is added to something stands in float64(…), which
// forces its rounding (products by powers of two are exact without it).
// Source.Range and Source.Normal do not, hence between.
type painter struct {
	random.Source
	canvas [shapesSide * shapesSide]rgb
}

// rgb is a colour, 0 to 255 per channel.
type rgb [3]float64

// mix is a at t=0 and b at t=1.
func mix(a, b rgb, t float64) rgb {
	for c := range a {
		a[c] += float64((b[c] - a[c]) * t)
	}
	return a
}

func (p *painter) between(lo, hi float64) float64 { return lo + float64((hi-lo)*p.Float64()) }

// direction returns a uniform unit vector.
func (p *painter) direction() vec {
	for {
		v := vec{p.between(-1, 1), p.between(-1, 1)}
		if r := v.length(); r > 0.1 && r <= 1 {
			return v.times(1 / r)
		}
	}
}

// upright returns a unit vector that points up the canvas, give or take 11°.
func (p *painter) upright() vec {
	v := vec{p.between(-0.2, 0.2), -1}
	return v.times(1 / v.length())
}

// colour draws a vivid colour: half of the channels are quite on or off.
func (p *painter) colour() (c rgb) {
	for i := range c {
		c[i] = max(0, min(255, p.between(-128, 383)))
	}
	return c
}

// contrasting draws a colour that can be told from both colours of a paint.
// There always is one: those two differ by up to 40, so that a corner of the
// colour cube, with its chance of 1/64 or more, is at least 210 from both.
func (p *painter) contrasting(ground paint) rgb {
	const least = 200
	for {
		c := p.colour()
		if difference(c, ground.a) > least && difference(c, ground.b) > least {
			return c
		}
	}
}

func difference(a, b rgb) float64 {
	var sum float64
	for c := range a {
		sum += float64((a[c] - b[c]) * (a[c] - b[c]))
	}
	return math.Sqrt(sum)
}

// paint is a texture: two colours mixed by a pattern.
type paint struct {
	a, b    rgb
	pattern int // gradient, stripes, checks, clouds
	along   vec // direction, one period long
	phase   float64
	clouds  [6][6]float64
}

// paint draws a texture from a to a colour that differs from it by lo to hi.
func (p *painter) paint(a rgb, lo, hi float64) paint {
	t := paint{a: a, pattern: p.IntN(4), phase: p.between(0, 1)}
	for {
		t.b = p.colour()
		if d := difference(a, t.b); d > 1 {
			t.b = mix(a, t.b, min(1, p.between(lo, hi)/d))
			break
		}
	}
	period := p.between(5, 14)
	if t.pattern == 0 {
		period = shapesSide
	}
	t.along = p.direction().times(1 / period)
	for i := range t.clouds {
		for j := range t.clouds[i] {
			t.clouds[i][j] = p.Float64()
		}
	}
	return t
}

// at returns the colour at a point of the canvas.
func (t *paint) at(at vec) rgb {
	u := at.dot(t.along) + t.phase
	v := at.dot(t.along.turned()) + t.phase
	var mixture float64
	switch t.pattern {
	case 0:
		mixture = max(0, min(1, u-t.phase/2))
	case 1:
		mixture = stripe(u)
	case 2:
		mixture = math.Abs(stripe(u) - stripe(v))
	default: // bilinear between random values 8 pixels apart
		x, y := at.x/8, at.y/8
		i, j := int(x), int(y)
		x, y = x-float64(i), y-float64(j)
		top := t.clouds[j][i] + float64((t.clouds[j][i+1]-t.clouds[j][i])*x)
		low := t.clouds[j+1][i] + float64((t.clouds[j+1][i+1]-t.clouds[j+1][i])*x)
		mixture = top + float64((low-top)*y)
	}
	return mix(t.a, t.b, mixture)
}

// stripe is a square wave of period 1 with soft flanks.
func stripe(u float64) float64 {
	u -= math.Floor(u)
	return max(0, min(1, 0.5+float64(4*(0.5-2*math.Abs(u-0.5)))))
}

// layer blends ink into the canvas, in a square of a half width around a
// centre: draw gives opacity and colour per pixel.
func (p *painter) layer(centre vec, reach float64, draw func(at vec) (opacity float64, ink rgb)) {
	x0, x1 := int(max(0, centre.x-reach)), int(min(shapesSide, centre.x+reach+1))
	y0, y1 := int(max(0, centre.y-reach)), int(min(shapesSide, centre.y+reach+1))
	for y := y0; y < y1; y++ {
		for x := x0; x < x1; x++ {
			if opacity, ink := draw(vec{float64(x) + 0.5, float64(y) + 0.5}); opacity > 0 {
				pixel := &p.canvas[y*shapesSide+x]
				*pixel = mix(*pixel, ink, opacity)
			}
		}
	}
}

// mark draws a line of a length and a half width in pixels; a short one is a dot.
func (p *painter) mark(length, half float64) {
	from := vec{p.between(0, shapesSide), p.between(0, shapesSide)}
	to := from.plus(p.direction().times(length))
	ink := p.colour()
	p.layer(from, length+half+1, func(at vec) (float64, rgb) { return coverage(segment(at, from, to) - half), ink })
}

// develop adds triangular noise of ± amplitude and rounds to bytes.
func (p *painter) develop(pix []uint8, amplitude int) {
	for i, colour := range p.canvas {
		bits := p.Uint64()
		for c, v := range colour {
			noise := int(bits&255) + int(bits>>8&255) - 255
			bits >>= 16
			pix[3*i+c] = uint8(min(255, max(0, int(v+0.5)+noise*amplitude/255)))
		}
	}
}
