package report

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/residual-ml/residual/rundir"
)

// lineStyle is a colour with a marker.
type lineStyle struct {
	color color.Color
	shape draw.GlyphDrawer
	size  vg.Length
}

var (
	trainingStyle   = lineStyle{trainingColor, draw.CircleGlyph{}, 3}
	validationStyle = lineStyle{validationColor, draw.BoxGlyph{}, 2.7}
	averageStyle    = lineStyle{averageColor, draw.PyramidGlyph{}, 3.2}
)

func (s lineStyle) line(width vg.Length) draw.LineStyle {
	return draw.LineStyle{Color: s.color, Width: width}
}

// marker draws the marker with a white edge, so that crossing lines stay apart.
func (s lineStyle) marker(c *draw.Canvas, at vg.Point) {
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: color.White, Radius: s.size + 0.9, Shape: s.shape}, at)
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: s.color, Radius: s.size, Shape: s.shape}, at)
}

// series is a line of a panel; it implements plot.Plotter. Values that are not
// finite interrupt it.
type series struct {
	x, y  []float64
	style lineStyle
}

func newSeries(history rundir.History, value func(rundir.Epoch) float64) series {
	var s series
	for _, e := range history {
		s.x = append(s.x, float64(e.Epoch))
		s.y = append(s.y, value(e))
	}
	return s
}

func (s series) empty() bool { return s.extreme(func(a, b float64) bool { return a < b }) < 0 }

// extreme returns the index of the first value that none is better than, -1 when
// no value is finite.
func (s series) extreme(better func(a, b float64) bool) int {
	best := -1
	for i, v := range s.y {
		if finite(v) && (best < 0 || better(v, s.y[best])) {
			best = i
		}
	}
	return best
}

// Plot draws the line, and markers: one per epoch, or about a dozen of many.
func (s series) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	width, every := vg.Length(1.8), 1
	if len(s.x) > 25 {
		width, every = 1.4, (len(s.x)+11)/12
	}
	var piece, markers []vg.Point
	stroke := func() {
		if len(piece) > 1 {
			c.StrokeLines(s.style.line(width), piece)
		} else if len(piece) == 1 {
			markers = append(markers, piece[0]) // or a value between two gaps would not be seen
		}
		piece = nil
	}
	for i, v := range s.y {
		if !finite(v) {
			stroke()
			continue
		}
		at := vg.Point{X: toX(s.x[i]), Y: toY(v)}
		piece = append(piece, at)
		if i%every == 0 {
			markers = append(markers, at)
		}
	}
	stroke()
	for _, at := range markers {
		s.style.marker(&c, at)
	}
}

// ring marks the best validation; it implements plot.Plotter.
type ring struct{ x, y float64 }

func (r ring) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	drawRing(&c, vg.Point{X: toX(r.x), Y: toY(r.y)})
}

const ringRadius = vg.Length(5.8)

func drawRing(c *draw.Canvas, at vg.Point) {
	c.SetLineStyle(draw.LineStyle{Color: inkColor, Width: 1})
	var p vg.Path
	p.Move(vg.Point{X: at.X + ringRadius, Y: at.Y})
	p.Arc(at, ringRadius, 0, 2*math.Pi)
	p.Close()
	c.Stroke(p)
}

// notice is text in the middle of a panel that has nothing else to show.
type notice string

func (n notice) Plot(c draw.Canvas, _ *plot.Plot) {
	style := textStyle(11, softColor)
	style.XAlign, style.YAlign = text.XCenter, text.YCenter
	c.FillText(style, c.Center(), string(n))
}
