// Package report turns run directories and evaluations into figures (PNG and SVG),
// and a run into one HTML page.
package report

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/residual-ml/residual/rundir"
)

// The figure, in points; a point is two pixels of the PNG.
const (
	figureWidth  = vg.Length(800)
	figureHeight = vg.Length(344)
	pngDPI       = 144
	margin       = vg.Length(18)
	gutter       = vg.Length(30) // between the panels
	headHeight   = vg.Length(44) // title and legend of a panel, of one row
	legendHeight = vg.Length(15) // each further row
	footHeight   = vg.Length(20) // caption
)

// Blue, vermilion and bluish green of Okabe and Ito, "Color universal design" (2008), which
// colour-blind people tell apart. Each line has a marker of its own as well.
var (
	trainingColor   = color.RGBA{0x00, 0x72, 0xb2, 0xff}
	validationColor = color.RGBA{0xd5, 0x5e, 0x00, 0xff}
	averageColor    = color.RGBA{0x00, 0x9e, 0x73, 0xff}
	inkColor        = color.RGBA{0x22, 0x22, 0x22, 0xff}
	softColor       = color.RGBA{0x5c, 0x5c, 0x5c, 0xff} // 6.7:1 on white
	gridColor       = color.RGBA{0xe4, 0xe4, 0xe4, 0xff}
	axisColor       = color.RGBA{0x9a, 0x9a, 0x9a, 0xff}
)

// WriteCurves writes curves.png and curves.svg into the run directory: accuracy
// and loss by epoch, training and validation, as the tutorial shows them, and the
// validation of the moving average of the weights where the run keeps one. The
// caption says in a line what was trained on what and how.
func WriteCurves(d *rundir.Dir, caption string) error {
	history, err := d.History()
	if err != nil {
		return err
	}
	png, svg, err := Curves(history, caption)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Path(), err)
	}
	for name, b := range map[string][]byte{"curves.png": png, "curves.svg": svg} {
		if err := d.WriteBytes(name, b); err != nil {
			return err
		}
	}
	return nil
}

// Curves draws what WriteCurves writes: a PNG of 1600 pixels width and an SVG.
// Values that are missing or not finite leave a gap. The same history gives the
// same bytes.
func Curves(history rundir.History, caption string) (png, svg []byte, err error) {
	if len(history) == 0 {
		return nil, nil, errors.New("no curves to draw: no epoch has ended")
	}
	return render(figureWidth, figureHeight, func(c draw.Canvas) { drawFigure(paper(c, caption), history) })
}

// render draws a figure twice: as a PNG with two pixels for each point, and as an SVG.
func render(width, height vg.Length, drawOn func(draw.Canvas)) (png, svg []byte, err error) {
	bitmap := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(pngDPI))
	drawOn(draw.New(bitmap))
	var b bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: bitmap}).WriteTo(&b); err != nil {
		return nil, nil, err
	}

	vector := vgsvg.New(width, height)
	drawOn(draw.New(vector))
	var s bytes.Buffer
	if _, err := vector.WriteTo(&s); err != nil {
		return nil, nil, err
	}
	return b.Bytes(), withFonts(s.Bytes()), nil
}

// withFonts names fonts for browsers without ours, which would take one with
// serifs. Arial and Helvetica have the same widths.
func withFonts(svg []byte) []byte {
	return bytes.ReplaceAll(svg, []byte("font-family:Liberation Sans;"),
		[]byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif;"))
}

// paper paints a figure's background with the caption at its foot, and returns what
// is left within the margins.
func paper(c draw.Canvas, caption string) draw.Canvas {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	c = draw.Crop(c, margin, -margin, margin-6, -margin)
	if caption != "" {
		style := textStyle(9, softColor)
		c.FillText(style, vg.Point{X: c.Min.X, Y: c.Min.Y}, fit(style, oneLine(caption), c.Max.X-c.Min.X))
	}
	c.Min.Y += footHeight
	return c
}

// titleStyle is that of a figure's or a panel's title, whose top it is set by.
func titleStyle() text.Style {
	style := textStyle(12.5, inkColor)
	style.Font.Weight = xfont.WeightBold
	style.YAlign = text.YTop
	return style
}

func drawFigure(c draw.Canvas, history rundir.History) {
	half := (c.Max.X - c.Min.X - gutter) / 2
	accuracy, loss := accuracyPanel(history), lossPanel(history)
	rows := max(len(accuracy.legend(half)), len(loss.legend(half)))
	drawPanel(draw.Crop(c, 0, -half-gutter, 0, 0), accuracy, rows)
	drawPanel(draw.Crop(c, half+gutter, 0, 0, 0), loss, rows)
}

// panel is one of the two pictures.
type panel struct {
	title                         string
	training, validation, average series               // average: validation of the moving average
	best                          point                // of the two kinds of validation
	format                        func(float64) string // of a value in the legend
	y                             axis
}

// point is a value of a line; ok is false where there is none.
type point struct {
	x, y float64
	ok   bool
}

// averageOf are the scores of the moving average, NaN where there is none.
func averageOf(e rundir.Epoch) rundir.Scores {
	if e.EMA == nil {
		return rundir.Scores{ValLoss: math.NaN(), ValAccuracy: math.NaN()}
	}
	return *e.EMA
}

// bestOf is the best value of all lines, of equals that of the first line.
func bestOf(better func(a, b float64) bool, lines ...series) (best point) {
	for _, s := range lines {
		if i := s.extreme(better); i >= 0 && (!best.ok || better(s.y[i], best.y)) {
			best = point{s.x[i], s.y[i], true}
		}
	}
	return best
}

func accuracyPanel(history rundir.History) panel {
	p := panel{
		training:   newSeries(history, func(e rundir.Epoch) float64 { return 100 * e.Accuracy }),
		validation: newSeries(history, func(e rundir.Epoch) float64 { return 100 * e.ValAccuracy }),
		average:    newSeries(history, func(e rundir.Epoch) float64 { return 100 * averageOf(e).ValAccuracy }),
	}
	p.best = bestOf(func(a, b float64) bool { return a > b }, p.validation, p.average)
	p.format = func(v float64) string { return fmt.Sprintf("%.2f %%", v) }
	p.title = p.shown() + " Accuracy"
	low, high := valueRange(p.training, p.validation, p.average)
	if len(history) == 1 {
		low, high = low-10, high+10 // a difference must not look larger than it is
	}
	p.y = percentAxis(low, high)
	return p
}

func lossPanel(history rundir.History) panel {
	p := panel{
		training:   newSeries(history, func(e rundir.Epoch) float64 { return e.Loss }),
		validation: newSeries(history, func(e rundir.Epoch) float64 { return e.ValLoss }),
		average:    newSeries(history, func(e rundir.Epoch) float64 { return averageOf(e).ValLoss }),
	}
	p.best = bestOf(func(a, b float64) bool { return a < b }, p.validation, p.average)
	p.format = func(v float64) string { return fmt.Sprintf("%.3g", v) }
	low, high := valueRange(p.training, p.validation, p.average)
	if len(history) == 1 {
		low, high = max(min(low, 0), low-0.25*high), 1.25*high
	}
	p.y = lossAxis(low, high)
	p.title = p.shown() + " Loss"
	if p.y.log {
		p.title += " (log scale)"
	}
	return p
}

// shown names the lines that the panel has.
func (p panel) shown() string {
	if p.validation.empty() && !p.training.empty() {
		return "Training"
	}
	return "Training and Validation"
}

// drawPanel leaves room for so many rows of a legend.
func drawPanel(c draw.Canvas, p panel, rows int) {
	p.training.style, p.validation.style, p.average.style = trainingStyle, validationStyle, averageStyle
	c.FillText(titleStyle(), vg.Point{X: c.Min.X, Y: c.Max.Y}, p.title)
	drawLegend(c, p.legend(c.Max.X-c.Min.X), c.Max.Y-headHeight+16)

	figure := plot.New()
	first, last := slices.Min(p.training.x), slices.Max(p.training.x)
	pad := max(0.03*(last-first), 0.12)
	if first == last {
		pad = 0.5
	}
	figure.X.Min, figure.X.Max = first-pad, last+pad
	figure.X.Tick.Marker = plot.ConstantTicks(epochTicks(int(first), int(last)))
	figure.X.Label.Text = "Epoch"
	figure.Y.Min, figure.Y.Max = p.y.min, p.y.max
	figure.Y.Tick.Marker = plot.ConstantTicks(p.y.ticks)
	if p.y.log {
		figure.Y.Scale = plot.LogScale{}
	}
	styleAxes(figure)
	if p.training.empty() && p.validation.empty() {
		figure.Add(notice("no finite values"))
	}
	figure.Add(p.training, p.validation, p.average)
	if p.best.ok && first < last {
		figure.Add(ring{p.best.x, p.best.y})
	}
	c.Max.Y -= headHeight + legendHeight*vg.Length(rows-1)
	figure.Draw(c)
}

// styleAxes gives a plot the look of all figures: plain axes, a horizontal grid, no
// background.
func styleAxes(figure *plot.Plot) {
	figure.BackgroundColor = nil
	for _, axis := range []*plot.Axis{&figure.X, &figure.Y} {
		axis.Padding = 0
		axis.LineStyle = draw.LineStyle{Color: axisColor, Width: 0.8}
		axis.Tick.LineStyle = axis.LineStyle
		axis.Tick.Length = 3.5
		axis.Tick.Label.Font = sans(10)
		axis.Tick.Label.Color = softColor
		axis.Label.Padding = 3
		axis.Label.TextStyle.Font = sans(10)
		axis.Label.TextStyle.Color = softColor
	}
	figure.Y.LineStyle.Width = 0 // the grid carries the labels
	figure.Y.Tick.LineStyle.Width = 0
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal = draw.LineStyle{Color: gridColor, Width: 0.8}
	figure.Add(grid)
}

// entry is a line of a panel in its legend, or the ring.
type entry struct {
	label string
	style *lineStyle // nil: the ring
}

const legendLine, legendGap, legendSpace = vg.Length(22), vg.Length(5), vg.Length(15)

func legendText() text.Style {
	style := textStyle(10, softColor)
	style.YAlign = text.YCenter
	return style
}

func (e entry) width() vg.Length {
	sign := 2 * ringRadius
	if e.style != nil {
		sign = legendLine
	}
	return sign + legendGap + legendText().Width(e.label)
}

// legend is what the legend says, in rows that fit a width.
func (p panel) legend(width vg.Length) [][]entry {
	single := len(p.training.x) == 1 // then the values say more than dots, and none is best
	var all []entry
	for _, s := range []struct {
		label string
		series
		style lineStyle
	}{{"Training", p.training, trainingStyle}, {"Validation", p.validation, validationStyle}, {"Moving average", p.average, averageStyle}} {
		if s.empty() {
			continue
		}
		if single {
			s.label += " " + p.format(s.y[0])
		}
		all = append(all, entry{s.label, &s.style})
	}
	if p.best.ok && !single {
		all = append(all, entry{fmt.Sprintf("Best %s, epoch %d", p.format(p.best.y), int(p.best.x)), nil})
	}
	rows, x := [][]entry{nil}, vg.Length(0)
	for _, e := range all {
		last := len(rows) - 1
		if len(rows[last]) > 0 && x+e.width() > width {
			rows, x = append(rows, nil), 0
			last++
		}
		rows[last] = append(rows[last], e)
		x += e.width() + legendSpace
	}
	return rows
}

// drawLegend writes the legend in rows, outside of the data, which no corner of
// a panel is sure to be free of.
func drawLegend(c draw.Canvas, rows [][]entry, y vg.Length) {
	style := legendText()
	for _, row := range rows {
		x := c.Min.X
		for _, e := range row {
			if e.style == nil {
				drawRing(&c, vg.Point{X: x + ringRadius, Y: y})
			} else {
				c.StrokeLine2(e.style.line(1.8), x, y, x+legendLine, y)
				e.style.marker(&c, vg.Point{X: x + legendLine/2, Y: y})
			}
			label := x + e.width() - style.Width(e.label)
			c.FillText(style, vg.Point{X: label, Y: y + 0.8}, e.label) // lower-case letters level with the line
			x += e.width() + legendSpace
		}
		y -= legendHeight
	}
}

func sans(size font.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

func textStyle(size font.Length, ink color.Color) text.Style {
	return text.Style{Color: ink, Font: sans(size), Handler: plot.DefaultTextHandler}
}

// oneLine makes of s what XML and a line can hold.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// fit cuts s, with an ellipsis, to a width.
func fit(style text.Style, s string, width vg.Length) string {
	runes := []rune(s)
	for n := len(runes); n > 0; n-- {
		if n < len(runes) {
			s = string(runes[:n]) + "…"
		}
		if style.Width(s) <= width {
			return s
		}
	}
	return ""
}

// epochTicks marks whole epochs: at most ten of them, at round distances, and
// the first.
func epochTicks(first, last int) []plot.Tick {
	step := 1
	for power := 1; (last-first)/step >= 10; {
		switch step / power {
		case 1:
			step = 2 * power
		case 2:
			step = 5 * power
		default:
			power *= 10
			step = power
		}
	}
	ticks := []plot.Tick{tick(float64(first), strconv.Itoa(first))}
	for e := (first/step + 1) * step; e <= last; e += step {
		if e-first >= (step+1)/2 { // or its label touches the first
			ticks = append(ticks, tick(float64(e), strconv.Itoa(e)))
		}
	}
	return ticks
}

func tick(value float64, label string) plot.Tick { return plot.Tick{Value: value, Label: label} }
