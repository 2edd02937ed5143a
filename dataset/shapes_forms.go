package dataset

import "math"

// forms are the classes of the data set shapes. Each distance function is
// negative inside the form and positive outside, about the distance to its
// border where that is near (Quilez, https://iquilezles.org/articles/distfunctions2d),
// and the form about fills the unit circle; y points up.
var forms = []struct {
	name     string
	distance func(at vec) float64
}{
	{"arrow", polygon(arrowCorners)},
	{"circle", func(at vec) float64 { return at.length() - 0.9 }},
	{"crescent", crescent},
	{"cross", cross},
	{"flower", flower},
	{"heart", heart},
	{"spiral", spiral},
	{"square", polygon([]vec{{-0.75, -0.75}, {0.75, -0.75}, {0.75, 0.75}, {-0.75, 0.75}})},
	{"star", polygon(starCorners)},
	{"triangle", polygon([]vec{{0, 0.9}, {0.85, -0.7}, {-0.85, -0.7}})},
}

// fifths are the corners of a regular pentagon that stands, (sin, cos) of multiples of 72°.
var fifths = []vec{
	{0, 1},
	{0.9510565162951535, 0.30901699437494745},
	{0.5877852522924731, -0.8090169943749475},
	{-0.5877852522924731, -0.8090169943749475},
	{-0.9510565162951535, 0.30901699437494745},
}

var arrowCorners = []vec{
	{-0.2, -0.95}, {-0.2, 0.1}, {-0.7, 0.1}, {0, 0.95}, {0.7, 0.1}, {0.2, 0.1}, {0.2, -0.95},
}

// The inner corners of the star point opposite to the outer ones.
var starCorners = []vec{
	fifths[0], fifths[3].times(-0.42), fifths[1], fifths[4].times(-0.42), fifths[2],
	fifths[0].times(-0.42), fifths[3], fifths[1].times(-0.42), fifths[4], fifths[2].times(-0.42),
}

// crescent is a disc without another disc.
func crescent(at vec) float64 {
	at.x -= 0.25
	return max(at.length()-0.95, 0.8-at.plus(vec{-0.45, 0}).length())
}

// cross is two bars, folded into one by symmetry.
func cross(at vec) float64 {
	x, y := math.Abs(at.x), math.Abs(at.y)
	if y > x {
		x, y = y, x
	}
	outside := vec{max(x-0.95, 0), max(y-0.28, 0)}
	return outside.length() + min(max(x-0.95, y-0.28), 0)
}

// flower is five petals around a disc.
func flower(at vec) float64 {
	d := at.length() - 0.45
	for _, petal := range fifths {
		d = min(d, at.plus(petal.times(-0.6)).length()-0.36)
	}
	return d
}

// heart stands on its tip at (0,0) and is 1.1 high before it is scaled and centred.
func heart(at vec) float64 {
	const scale = 0.62
	x, y := math.Abs(float64(at.x*scale)), float64(at.y*scale)+0.55
	at = vec{x, y}
	if x+y > 1 {
		return (at.plus(vec{-0.25, -0.75}).length() - math.Sqrt2/4) / scale
	}
	diagonal := max(x+y, 0) / 2
	d := min(at.plus(vec{0, -1}).length(), at.plus(vec{-diagonal, -diagonal}).length())
	if x < y {
		d = -d
	}
	return d / scale
}

// spiral is two turns of a line made of half circles, alternately around two centres.
func spiral(at vec) float64 {
	const (
		start = 0.12 // radius of the innermost half circle
		grow  = 0.2  // added by each half turn
		half  = 0.1  // half width of the line
	)
	at.x += grow / 2
	centre := vec{0, 0}
	radius := start
	if at.y < 0 {
		centre, radius = vec{-grow, 0}, start+grow
	}
	r := at.plus(centre).length()
	d := min(math.Abs(r-radius), math.Abs(r-radius-2*grow))
	d = min(d, at.plus(vec{-start, 0}).length())
	d = min(d, at.plus(vec{-start - 4*grow, 0}).length())
	return d - half
}

// polygon returns the distance function of a closed line of corners.
func polygon(corners []vec) func(at vec) float64 {
	return func(at vec) float64 {
		nearest, inside := math.Inf(1), false
		from := corners[len(corners)-1]
		for _, to := range corners {
			nearest = min(nearest, segment(at, from, to))
			// Count the edges that a ray from the point crosses.
			if (from.y > at.y) != (to.y > at.y) &&
				at.x < from.x+float64((to.x-from.x)*((at.y-from.y)/(to.y-from.y))) {
				inside = !inside
			}
			from = to
		}
		if inside {
			return -nearest
		}
		return nearest
	}
}

// segment is the distance from a point to a line segment.
func segment(at, from, to vec) float64 {
	along, at := to.plus(from.times(-1)), at.plus(from.times(-1))
	t := max(0, min(1, at.dot(along)/along.dot(along)))
	return at.plus(along.times(-t)).length()
}

// form is a form put on the canvas; lengths are in pixels.
type form struct {
	class    int
	radius   float64
	centre   vec
	up       vec // unit vector on the canvas, whose y points down
	mirrored bool
}

// reach is how far from its centre a form touches pixels.
func (f *form) reach() float64 { return float64(1.1*f.radius) + 1 }

func (f *form) distance(at vec) float64 {
	at = at.plus(f.centre.times(-1))
	right, up := f.up.turned(), f.up
	at = vec{at.dot(right), at.dot(up)}.times(1 / f.radius)
	if f.mirrored {
		at.x = -at.x
	}
	return float64(forms[f.class].distance(at) * f.radius)
}

// coverage is the share of a pixel that lies inside a border at this distance.
func coverage(distance float64) float64 { return max(0, min(1, 0.5-distance)) }

// vec is a point or vector of the plane. Its products are rounded before they
// are added; see painter.
type vec struct{ x, y float64 }

func (v vec) plus(w vec) vec      { return vec{v.x + w.x, v.y + w.y} }
func (v vec) times(f float64) vec { return vec{float64(v.x * f), float64(v.y * f)} }
func (v vec) dot(w vec) float64   { return float64(v.x*w.x) + float64(v.y*w.y) }
func (v vec) turned() vec         { return vec{-v.y, v.x} } // by a quarter, clockwise on the canvas
func (v vec) length() float64     { return math.Sqrt(v.dot(v)) }
