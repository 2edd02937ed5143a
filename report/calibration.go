package report

import (
	"fmt"
	"image/color"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/residual-ml/residual/evaluate"
)

const (
	squareWidth  = vg.Length(430)
	squareHeight = vg.Length(448)
)

// Reliability draws how often predictions are right against the probability that
// the network gives them, with 95 % intervals, without and with temperature, and
// below it how many predictions there are.
func Reliability(s evaluate.Summary, caption string) (png, svg []byte, err error) {
	return render(squareWidth, squareHeight, func(c draw.Canvas) {
		c = frame(c, "Reliability", caption)
		lines := []calibrationLine{{s.Calibration, trainingStyle, "As it is"}}
		if s.Uncalibrated != nil {
			lines = []calibrationLine{
				{*s.Uncalibrated, validationStyle, "As it is"},
				{s.Calibration, trainingStyle, fmt.Sprintf("Temperature %.3g", s.Calibration.Temperature)},
			}
		}
		at := c.Max.Y - 8
		for _, l := range lines {
			x := c.Min.X
			c.StrokeLine2(l.style.line(1.8), x, at, x+22, at)
			l.style.marker(&c, vg.Point{X: x + 11, Y: at})
			style := textStyle(10, softColor)
			style.YAlign = text.YCenter
			c.FillText(style, vg.Point{X: x + 27, Y: at + 0.8},
				fmt.Sprintf("%s: calibration error (ECE) %s %%", l.label, percent(float64(l.ECE))))
			at -= 15
		}
		c.Max.Y = at - 2

		histogram := c
		histogram.Max.Y = c.Min.Y + 84
		upper := c
		upper.Min.Y = histogram.Max.Y + 6

		p := percentPlot(0, 100)
		p.Add(diagonal{})
		for _, l := range lines {
			p.Add(l)
		}
		p.Y.Label.Text = "Accuracy"
		p.X.Tick.Marker = plot.ConstantTicks(quietTicks(0, 100, 20))
		most := 0.0
		for _, l := range lines {
			for _, b := range l.Bins {
				most = max(most, 100*float64(b.Count)/float64(s.Images))
			}
		}
		step := histogramStep(most)
		counts := percentPlot(0, 2*step)
		counts.X.Label.Text = "Probability of the prediction"
		counts.Y.Label.Text = "Pictures"
		counts.Y.Tick.Marker = plot.ConstantTicks([]plot.Tick{tick(0, "0 %"), tick(step, fmt.Sprintf("%g %%", step)), tick(2*step, fmt.Sprintf("%g %%", 2*step))})
		for i, l := range lines {
			counts.Add(countBars{l, s.Images, i, len(lines)})
		}
		drawAligned(upper, p, histogram, counts)
	})
}

// histogramStep is a round distance of ticks, two of which hold most, in percent.
func histogramStep(most float64) float64 {
	for _, step := range []float64{1, 2, 5, 10, 15, 20, 30, 40} {
		if 2*step >= most {
			return step
		}
	}
	return 50
}

// coverageRange holds the accuracies, in percent, and their intervals but those of
// the first tenth, where few pictures make them wider than all else.
func coverageRange(v evaluate.Coverage) (low, high float64) {
	var all []float64
	for _, p := range v.Points {
		if p.Coverage >= firstShown || len(v.Points) == 1 {
			all = append(all, 100*float64(p.Accuracy))
		}
		if p.Coverage >= 0.1 {
			all = append(all, 100*p.AccuracyLow, 100*p.AccuracyHigh)
		}
	}
	return valueRange(series{y: all})
}

// Coverage draws the accuracy of the pictures that are answered when the network
// abstains from the least certain, with 95 % intervals.
func Coverage(s evaluate.Summary, caption string) (png, svg []byte, err error) {
	return render(squareWidth, squareHeight, func(c draw.Canvas) {
		c = frame(c, "Accuracy When Abstaining", caption)
		y := percentAxis(coverageRange(s.Coverage))
		p := percentPlot(y.min, y.max)
		p.Y.Tick.Marker = plot.ConstantTicks(y.ticks)
		p.Y.Label.Text = "Accuracy of the answers"
		p.X.Label.Text = "Answered"
		style := textStyle(10, softColor)
		style.YAlign = text.YCenter
		c.StrokeLine2(trainingStyle.line(1.8), c.Min.X, c.Max.Y-8, c.Min.X+22, c.Max.Y-8)
		trainingStyle.marker(&c, vg.Point{X: c.Min.X + 11, Y: c.Max.Y - 8})
		c.FillText(style, vg.Point{X: c.Min.X + 27, Y: c.Max.Y - 7.2},
			"Accuracy with its 95 % interval; marked: from which probability on")
		c.Max.Y -= 22
		p.Add(coverageCurve{s.Coverage})
		p.Draw(c)
	})
}

// Threshold writes a probability with three digits, or as many as it takes to tell
// it from 1.
func Threshold(p float64) string {
	for digits := 3; digits < 9; digits++ {
		if text := strconv.FormatFloat(p, 'f', digits, 64); text[0] != '1' {
			return text
		}
	}
	return strconv.FormatFloat(p, 'f', 9, 64)
}

// firstShown is the coverage at which the curve begins: before it few pictures
// decide.
const firstShown = 0.02

// frame is paper with a title.
func frame(c draw.Canvas, title, caption string) draw.Canvas {
	c = paper(c, caption)
	c.FillText(titleStyle(), vg.Point{X: c.Min.X, Y: c.Max.Y}, title)
	c.Max.Y -= 22
	return c
}

// percentPlot has the x axis 0 to 100 %.
func percentPlot(low, high float64) *plot.Plot {
	p := plot.New()
	styleAxes(p)
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 100, low, high
	p.X.Tick.Marker = plot.ConstantTicks(percentTicks(0, 100, 20))
	p.Y.Tick.Marker = p.X.Tick.Marker
	return p
}

func percentTicks(from, to, step int) []plot.Tick {
	var ticks []plot.Tick
	for v := from; v <= to; v += step {
		ticks = append(ticks, tick(float64(v), fmt.Sprintf("%d %%", v)))
	}
	return ticks
}

// quietTicks are ticks of an axis whose labels stand on the one below.
func quietTicks(from, to, step int) []plot.Tick {
	ticks := percentTicks(from, to, step)
	for i := range ticks {
		ticks[i].Label = " "
	}
	return ticks
}

// drawAligned draws two plots whose x axes lie on the same points.
func drawAligned(upper draw.Canvas, top *plot.Plot, lower draw.Canvas, bottom *plot.Plot) {
	a, b := top.DataCanvas(upper), bottom.DataCanvas(lower)
	left := max(a.Min.X-upper.Min.X, b.Min.X-lower.Min.X)
	right := max(upper.Max.X-a.Max.X, lower.Max.X-b.Max.X)
	crop := func(c draw.Canvas, data draw.Canvas) draw.Canvas {
		c.Min.X += left - (data.Min.X - c.Min.X)
		c.Max.X -= right - (c.Max.X - data.Max.X)
		return c
	}
	top.Draw(crop(upper, a))
	bottom.Draw(crop(lower, b))
}

// diagonal is where accuracy equals confidence.
type diagonal struct{}

func (diagonal) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	style := draw.LineStyle{Color: axisColor, Width: 1, Dashes: []vg.Length{4, 3}}
	c.StrokeLine2(style, x(0), y(0), x(100), y(100))
}

// calibrationLine has a point with an interval for each bin that is not empty, at
// the mean confidence in it.
type calibrationLine struct {
	evaluate.Calibration
	style lineStyle
	label string
}

func (l calibrationLine) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	var points []vg.Point
	for _, b := range l.Bins {
		if b.Count == 0 {
			continue
		}
		at := vg.Point{X: x(100 * float64(b.Confidence)), Y: y(100 * float64(b.Accuracy))}
		points = append(points, at)
		c.StrokeLine2(l.style.line(0.9), at.X, y(100*b.AccuracyLow), at.X, y(100*b.AccuracyHigh))
	}
	if len(points) > 1 {
		c.StrokeLines(l.style.line(1.6), points)
	}
	for _, at := range points {
		l.style.marker(&c, at)
	}
}

// countBars shows what part of the pictures lies in each bin, the lines' bars side
// by side.
type countBars struct {
	calibrationLine
	images, index, of int
}

func (b countBars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	c.SetColor(b.style.color)
	for _, bin := range b.Bins {
		left, right := x(100*bin.Low)+1, x(100*bin.High)-1
		width := (right - left) / vg.Length(b.of)
		height := y(100 * float64(bin.Count) / float64(b.images))
		if bin.Count > 0 {
			height = max(height, y(0)+0.6) // a few of many are seen too
			c.Fill(rectangle(left+vg.Length(b.index)*width, y(0), left+vg.Length(b.index+1)*width, height))
		}
	}
}

// coverageCurve is the accuracy with its band, and the thresholds of the targets.
type coverageCurve struct{ evaluate.Coverage }

func (v coverageCurve) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	inside := func(accuracy float64) vg.Length {
		return y(min(max(100*accuracy, p.Y.Min), p.Y.Max))
	}
	var line, low, high []vg.Point
	for _, at := range v.Points {
		if at.Coverage < firstShown && len(v.Points) > 1 {
			continue
		}
		px := x(100 * at.Coverage)
		line = append(line, vg.Point{X: px, Y: inside(float64(at.Accuracy))})
		low = append(low, vg.Point{X: px, Y: inside(at.AccuracyLow)})
		high = append(high, vg.Point{X: px, Y: inside(at.AccuracyHigh)})
	}
	if len(line) == 0 {
		return
	}
	var band vg.Path
	band.Move(low[0])
	for _, at := range low[1:] {
		band.Line(at)
	}
	for i := len(high) - 1; i >= 0; i-- {
		band.Line(high[i])
	}
	band.Close()
	c.SetColor(color.RGBA{0xd4, 0xe6, 0xf1, 0xff})
	c.Fill(band)
	if len(line) > 1 {
		c.StrokeLines(trainingStyle.line(1.8), line)
	}
	style := textStyle(9, inkColor)
	lowest := vg.Length(-1)
	for _, t := range v.Targets {
		if t.Coverage < firstShown || t.Coverage == 1 {
			continue
		}
		at := vg.Point{X: x(100 * t.Coverage), Y: inside(float64(t.Accuracy))}
		trainingStyle.marker(&c, at)
		label := fmt.Sprintf("≥ %.3g %%: from %s on", 100*t.Wanted, Threshold(t.Threshold))
		style.XAlign, style.YAlign = text.XLeft, text.YBottom
		if at.X+8+style.Width(label) > c.Max.X {
			style.XAlign = text.XRight
		}
		offset := vg.Length(6)
		if style.XAlign == text.XRight {
			offset = -6
			style.YAlign = text.YTop
		}
		if lowest >= 0 && lowest-at.Y < 11 && lowest-at.Y > -11 {
			continue
		}
		lowest = at.Y
		box := style.Rectangle(label).Add(vg.Point{X: at.X + offset, Y: at.Y})
		c.SetColor(color.White) // the label crosses the grid
		c.Fill(rectangle(box.Min.X-1, box.Min.Y, box.Max.X+1, box.Max.Y))
		c.FillText(style, vg.Point{X: at.X + offset, Y: at.Y}, label)
	}
}
