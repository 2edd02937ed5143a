package report

import (
	"encoding/csv"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/residual-ml/residual/evaluate"
)

// maxMatrix is the number of classes that a figure shows: a cell of 100 is as
// small as a person can see.
const maxMatrix = 100

// WriteConfusionCSV writes the whole matrix: a row for each true class, a column
// for each predicted one, and one for pictures without a prediction where there are any.
func WriteConfusionCSV(w io.Writer, s evaluate.Summary) error {
	out := csv.NewWriter(w)
	header := append([]string{"true"}, s.Classes...)
	if s.NoPrediction != nil {
		header = append(header, "(none)")
	}
	_ = out.Write(header) // Error, below, has its error
	for k, counts := range s.Confusion {
		row := []string{s.Classes[k]}
		for _, n := range counts {
			row = append(row, strconv.Itoa(n))
		}
		if s.NoPrediction != nil {
			row = append(row, strconv.Itoa(s.NoPrediction[k]))
		}
		_ = out.Write(row)
	}
	out.Flush()
	return out.Error()
}

// ConfusionClasses are the classes, in their order, that a view with room for at
// most n of them shows: all, or those with the most mistakes, made or received.
func ConfusionClasses(s evaluate.Summary, n int) []int {
	all := make([]int, len(s.Classes))
	mistakes := make([]int, len(s.Classes))
	for i, c := range s.PerClass {
		all[i] = i
		mistakes[i] = c.Support - c.Correct + c.Predicted - c.Correct
	}
	if len(all) <= n {
		return all
	}
	slices.SortStableFunc(all, func(a, b int) int { return mistakes[b] - mistakes[a] })
	all = all[:n]
	slices.Sort(all)
	return all
}

// Confusion draws the confusion matrix: rows are true classes, columns predicted
// ones, with recall at the right and precision below. Shade is the share of the row,
// stronger than in proportion for the few, and blue where it is right.
func Confusion(s evaluate.Summary, caption string) (png, svg []byte, err error) {
	m := newMatrix(s, caption)
	return render(m.width, m.height, m.draw)
}

type matrix struct {
	evaluate.Summary
	caption       string
	classes       []int
	cell          vg.Length
	left, top     vg.Length // of the cells
	width, height vg.Length
	label, number text.Style
}

func newMatrix(s evaluate.Summary, caption string) *matrix {
	m := &matrix{Summary: s, caption: caption, classes: ConfusionClasses(s, maxMatrix)}
	k := len(m.classes)
	size := font.Length(10)
	switch {
	case k <= 12:
		m.cell = 42
	case k <= 30:
		m.cell = 24
		size = 8
	default:
		m.cell = max(8.5, 720/vg.Length(k))
		size = 7
	}
	m.label = textStyle(size, inkColor)
	m.number = textStyle(min(size, 10), inkColor)
	widest := vg.Length(0)
	for _, c := range m.classes {
		widest = max(widest, m.label.Width(m.name(c)))
	}
	m.left = margin + widest + 8
	m.top = margin + 58 + widest*vg.Length(math.Sin(m.slant()))
	side := vg.Length(0)
	if m.numbered() {
		side = m.cell
		m.left = max(m.left, margin+m.label.Width("Precision, %")+8)
	}
	last := m.label.Width("Recall, %") * vg.Length(math.Cos(m.slant()))
	m.width = m.left + m.cell*vg.Length(k) + side + margin + max(0, last-m.cell/2)
	// With two classes the texts are wider than the cells.
	soft := textStyle(9, softColor)
	m.width = max(m.width, min(2*margin+soft.Width(oneLine(caption)), squareWidth))
	m.height = m.top + m.cell*vg.Length(k) + side + margin + footHeight
	return m
}

// numbered reports whether cells have room for numbers.
func (m *matrix) numbered() bool { return len(m.classes) <= 30 }

// slant is the angle of the names above the columns: upright where slanted ones would
// run into each other.
func (m *matrix) slant() float64 {
	if m.numbered() {
		return math.Pi / 4
	}
	return math.Pi / 2
}

// name is a class's name, cut where it would take more room than the cells.
func (m *matrix) name(class int) string { return fit(m.label, oneLine(m.Classes[class]), 110) }

func (m *matrix) draw(c draw.Canvas) {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	y := func(fromTop vg.Length) vg.Length { return c.Max.Y - fromTop }

	c.FillText(titleStyle(), vg.Point{X: margin, Y: y(margin)}, "Confusion Matrix")
	soft := textStyle(10, softColor)
	soft.YAlign = text.YTop
	what := "Rows: true class. Columns: prediction."
	if n := len(m.Classes); n > len(m.classes) {
		what += fmt.Sprintf(" The %d of %d classes with the most mistakes.", len(m.classes), n)
	}
	c.FillText(soft, vg.Point{X: margin, Y: y(margin + 18)}, fit(soft, what, m.width-2*margin))
	foot := textStyle(9, softColor)
	c.FillText(foot, vg.Point{X: margin, Y: c.Min.Y + margin - 6}, fit(foot, oneLine(m.caption), m.width-2*margin))

	row, column := m.label, m.label
	row.XAlign, row.YAlign = text.XRight, text.YCenter
	column.Rotation, column.YAlign = m.slant(), text.YCenter
	number := m.number
	number.XAlign, number.YAlign = text.XCenter, text.YCenter
	if m.numbered() {
		end := (vg.Length(len(m.classes)) + 0.5) * m.cell
		row, column := row, column
		row.Color, column.Color = softColor, softColor
		c.FillText(row, vg.Point{X: m.left - 6, Y: y(m.top+end) + 0.6}, "Precision, %")
		c.FillText(column, vg.Point{X: m.left + end, Y: y(m.top - 7)}, "Recall, %")
	}
	for i, truth := range m.classes {
		center := y(m.top + (vg.Length(i)+0.5)*m.cell)
		c.FillText(row, vg.Point{X: m.left - 6, Y: center + 0.6}, m.name(truth))
		c.FillText(column, vg.Point{X: m.left + (vg.Length(i)+0.5)*m.cell, Y: y(m.top - 7)}, m.name(truth))
		support := m.PerClass[truth].Support
		for j, predicted := range m.classes {
			n := m.Summary.Confusion[truth][predicted]
			share := 0.0
			if support > 0 {
				share = float64(n) / float64(support)
			}
			fill, ink := shade(share, truth == predicted)
			x := m.left + vg.Length(j)*m.cell
			gap := vg.Length(0.75)
			if !m.numbered() {
				gap = 0.25
			}
			c.SetColor(fill)
			c.Fill(rectangle(x+gap, center-m.cell/2+gap, x+m.cell-gap, center+m.cell/2-gap))
			if n > 0 && m.numbered() {
				number.Color = ink
				c.FillText(number, vg.Point{X: x + m.cell/2, Y: center + 0.6}, strconv.Itoa(n))
			}
		}
		if m.numbered() {
			side := number
			side.Color = softColor
			c.FillText(side, vg.Point{X: m.left + (vg.Length(len(m.classes))+0.5)*m.cell, Y: center + 0.6}, percent(float64(m.PerClass[truth].Recall)))
			c.FillText(side, vg.Point{X: m.left + (vg.Length(i)+0.5)*m.cell, Y: y(m.top + (vg.Length(len(m.classes))+0.5)*m.cell)}, percent(float64(m.PerClass[truth].Precision)))
		}
	}
}

// percent is a percentage in as few letters as it takes.
func percent(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.1f", 100*v)
}

func rectangle(x0, y0, x1, y1 vg.Length) vg.Path {
	var p vg.Path
	p.Move(vg.Point{X: x0, Y: y0})
	p.Line(vg.Point{X: x1, Y: y0})
	p.Line(vg.Point{X: x1, Y: y1})
	p.Line(vg.Point{X: x0, Y: y1})
	p.Close()
	return p
}

// On some shades nothing less than black or white can be read.
var (
	blackColor = color.RGBA{0, 0, 0, 0xff}
	whiteColor = color.RGBA{0xff, 0xff, 0xff, 0xff}
)

// deepBlue is the curves' blue, darker, so that the many numbers on it are white.
var deepBlue = color.RGBA{0x00, 0x55, 0x8f, 0xff}

// shade is a cell's colour and that of the number on it: towards blue for what is
// right and vermilion for mistakes, of which a hundredth is already seen.
func shade(share float64, right bool) (fill, ink color.RGBA) {
	target, strength := validationColor, math.Sqrt(share)*1.4
	if right {
		target, strength = deepBlue, share
	}
	strength = min(1, strength)
	if share == 0 {
		return color.RGBA{0xf6, 0xf6, 0xf6, 0xff}, blackColor
	}
	strength = 0.06 + 0.94*strength
	mix := func(to uint8) uint8 { return uint8(255 + strength*(float64(to)-255) + 0.5) }
	out := color.RGBA{mix(target.R), mix(target.G), mix(target.B), 0xff}
	if contrast(out, whiteColor) > contrast(out, blackColor) {
		return out, whiteColor
	}
	return out, blackColor
}

// contrast is WCAG 2's ratio of two colours, from 1 to 21.
func contrast(a, b color.RGBA) float64 {
	light := func(c color.RGBA) float64 {
		linear := func(v uint8) float64 {
			x := float64(v) / 255
			if x <= 0.04045 {
				return x / 12.92
			}
			return math.Pow((x+0.055)/1.055, 2.4)
		}
		return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
	}
	x, y := light(a), light(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}
