package report

import (
	"fmt"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// The figure of a rate test, in points.
const (
	ratesWidth  = vg.Length(560)
	ratesHeight = vg.Length(344)
)

// Rates draws a learning rate range test, loss by rate on a logarithmic axis: the
// losses, their smoothed line, and the suggested rate where it is above 0. Losses
// beyond four times the least smoothed one are cut off.
func Rates(rates, losses, smoothed []float64, suggested float64, caption string) (png, svg []byte, err error) {
	if len(rates) < 2 || len(losses) != len(rates) || len(smoothed) != len(rates) {
		return nil, nil, fmt.Errorf("no rates to draw: %d rates, %d losses, %d smoothed", len(rates), len(losses), len(smoothed))
	}
	if low, high := rates[0], rates[len(rates)-1]; !(low > 0 && high > low) || math.IsInf(high, 0) {
		return nil, nil, fmt.Errorf("no rates to draw: they go from %v to %v, want positive numbers that grow", low, high)
	}
	return render(ratesWidth, ratesHeight, func(c draw.Canvas) { drawRates(paper(c, caption), rates, losses, smoothed, suggested) })
}

func drawRates(c draw.Canvas, rates, losses, smoothed []float64, suggested float64) {
	low, high := valueRange(series{y: smoothed})
	lowest, highest := valueRange(series{y: losses})
	low, high = min(low, lowest), max(high, min(highest, 4*low))
	air := max(0.05*(high-low), 1e-6)
	figure := plot.New()
	styleAxes(figure)
	figure.X.Min, figure.X.Max = rates[0], rates[len(rates)-1]
	figure.X.Scale = plot.LogScale{}
	figure.X.Tick.Marker = plot.ConstantTicks(decadeTicks(rates[0], rates[len(rates)-1]))
	figure.X.Label.Text = "Learning rate"
	figure.Y.Label.Text = "Loss"
	y := linearAxis(low-air, high+air, decimals)
	figure.Y.Min, figure.Y.Max, figure.Y.Tick.Marker = y.min, y.max, plot.ConstantTicks(y.ticks)
	figure.Add(dots{rates, losses}, curve{rates, smoothed}, mark{suggested})
	figure.Draw(c)
}

// decadeTicks marks the powers of ten within a range.
func decadeTicks(low, high float64) (ticks []plot.Tick) {
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		if v := math.Pow(10, e); v >= low*0.999 && v <= high*1.001 {
			ticks = append(ticks, tick(v, strconv.FormatFloat(v, 'g', 3, 64)))
		}
	}
	return ticks
}

// dots, curve and mark implement plot.Plotter; what is not finite or outside of
// the figure is left out.
type dots struct{ x, y []float64 }

func (d dots) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	for i, v := range d.y {
		if v >= p.Y.Min && v <= p.Y.Max {
			c.DrawGlyphNoClip(draw.GlyphStyle{Color: axisColor, Radius: 1.4, Shape: draw.CircleGlyph{}}, vg.Point{X: toX(d.x[i]), Y: toY(v)})
		}
	}
}

type curve struct{ x, y []float64 }

func (l curve) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	var line []vg.Point
	for i, v := range l.y {
		if finite(v) && v <= p.Y.Max {
			line = append(line, vg.Point{X: toX(l.x[i]), Y: toY(v)})
		}
	}
	c.StrokeLines(trainingStyle.line(1.8), line)
}

type mark struct{ x float64 }

func (m mark) Plot(c draw.Canvas, p *plot.Plot) {
	if !(m.x > 0) {
		return
	}
	toX, _ := p.Transforms(&c)
	x := toX(m.x)
	c.StrokeLine2(validationStyle.line(1.2), x, c.Min.Y, x, c.Max.Y)
	style := textStyle(10, validationColor)
	style.YAlign = text.YTop
	label := "suggested " + strconv.FormatFloat(m.x, 'g', 2, 64)
	if x+4+style.Width(label) > c.Max.X {
		style.XAlign = text.XRight
		x -= 8
	}
	c.FillText(style, vg.Point{X: x + 4, Y: c.Max.Y}, label)
}
