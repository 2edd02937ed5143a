package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/internal/digits"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/rundir"
)

// Figures of the page are SVG with the page's own colours (page.css), so that they
// follow its theme. They are about as wide as a telephone in portrait, so that
// their letters stay readable there.
const (
	chartWidth, chartHeight = 420.0, 270.0
	chartLeft, chartRight   = 46.0, 20.0
	chartTop, chartBottom   = 12.0, 38.0
)

// chart is a figure with two axes.
type chart struct {
	b                      strings.Builder
	x, y                   axis
	left, right, top, base float64
}

// newChart begins a figure; title and description are for those who do not see it.
func newChart(id, title, description, xLabel string, x, y axis) *chart {
	c := &chart{x: x, y: y, left: chartLeft, right: chartWidth - chartRight, top: chartTop, base: chartHeight - chartBottom}
	fmt.Fprintf(&c.b, `<svg viewBox="0 0 %g %g" role="img" aria-labelledby="%s-title %s-desc"><title id="%s-title">%s</title><desc id="%s-desc">%s</desc>`,
		chartWidth, chartHeight, id, id, id, html.EscapeString(title), id, html.EscapeString(description))
	for _, t := range y.ticks {
		at := c.atY(t.Value)
		fmt.Fprintf(&c.b, `<line class="grid" x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(c.left), px(c.right), px(at), px(at))
		fmt.Fprintf(&c.b, `<text class="tick" x="%s" y="%s" text-anchor="end">%s</text>`, px(c.left-6), px(at+4), html.EscapeString(t.Label))
	}
	fmt.Fprintf(&c.b, `<line class="axis" x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(c.left), px(c.right), px(c.base), px(c.base))
	for _, t := range x.ticks {
		at := c.atX(t.Value)
		fmt.Fprintf(&c.b, `<line class="axis" x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(at), px(at), px(c.base), px(c.base+4))
		fmt.Fprintf(&c.b, `<text class="tick" x="%s" y="%s" text-anchor="middle">%s</text>`, px(at), px(c.base+17), html.EscapeString(t.Label))
	}
	fmt.Fprintf(&c.b, `<text class="label" x="%s" y="%s" text-anchor="middle">%s</text>`, px((c.left+c.right)/2), px(chartHeight-5), html.EscapeString(xLabel))
	return c
}

func (c *chart) done() template.HTML {
	c.b.WriteString("</svg>")
	return template.HTML(c.b.String())
}

func (c *chart) atX(v float64) float64 { return c.left + (c.right-c.left)*c.x.part(v) }
func (c *chart) atY(v float64) float64 { return c.base - (c.base-c.top)*c.y.part(v) }

// part is where v lies within the axis, 0 to 1.
func (a axis) part(v float64) float64 {
	p := (v - a.min) / (a.max - a.min)
	if a.log {
		p = math.Log(v/a.min) / math.Log(a.max/a.min)
	}
	return min(1, max(0, p))
}

// px is a coordinate: a tenth of a unit is enough.
func px(v float64) string { return strconv.FormatFloat(math.Round(10*v)/10, 'f', -1, 64) }

// line draws through points; values that are not finite interrupt it. With marks
// each point is also shown, of a second line as squares, of a third as diamonds.
func (c *chart) line(class string, x, y []float64, marks bool) {
	var path strings.Builder
	move := true
	for i := range x {
		if !finite(y[i]) || c.y.log && y[i] <= 0 {
			move = true
			continue
		}
		command := "L"
		if move {
			command = "M"
		}
		move = false
		fmt.Fprintf(&path, "%s%s %s", command, px(c.atX(x[i])), px(c.atY(y[i])))
	}
	if path.Len() == 0 {
		return
	}
	fmt.Fprintf(&c.b, `<path class="line %s" d="%s"/>`, class, path.String())
	if !marks {
		return
	}
	every := max(1, (len(x)+11)/12)
	for i := range x {
		if !finite(y[i]) || len(x) > 25 && i%every != 0 {
			continue
		}
		switch class {
		case "average":
			fmt.Fprintf(&c.b, `<path class="mark %s" d="M%s %sl4.4 4.4l-4.4 4.4l-4.4 -4.4z"/>`, class, px(c.atX(x[i])), px(c.atY(y[i])-4.4))
		case "validation":
			fmt.Fprintf(&c.b, `<rect class="mark %s" x="%s" y="%s" width="6.4" height="6.4"/>`, class, px(c.atX(x[i])-3.2), px(c.atY(y[i])-3.2))
		default:
			fmt.Fprintf(&c.b, `<circle class="mark %s" cx="%s" cy="%s" r="3.4"/>`, class, px(c.atX(x[i])), px(c.atY(y[i])))
		}
	}
}

func epochs(h rundir.History, value func(rundir.Epoch) float64) (x, y []float64) {
	for _, e := range h {
		x, y = append(x, float64(e.Epoch)), append(y, value(e))
	}
	return x, y
}

func epochAxis(h rundir.History, from float64) axis {
	first, last := h[0].Epoch, h[len(h)-1].Epoch
	a := axis{min: min(from, float64(first)), max: float64(last)}
	pad := max(0.02*(a.max-a.min), 0.1)
	a.min, a.max = a.min-pad*min(1, from), a.max+pad
	a.ticks = epochTicks(first, last)
	return a
}

// describe says what a line does, for those who do not see it.
func describe(name string, y []float64, format func(float64) string) string {
	var values []float64
	for _, v := range y {
		if finite(v) {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return ""
	}
	return fmt.Sprintf("%s goes from %s to %s (least %s, largest %s). ", name,
		format(values[0]), format(values[len(values)-1]), format(slices.Min(values)), format(slices.Max(values)))
}

func accuracyChart(h rundir.History) template.HTML {
	x, training := epochs(h, func(e rundir.Epoch) float64 { return 100 * e.Accuracy })
	_, validation := epochs(h, func(e rundir.Epoch) float64 { return 100 * e.ValAccuracy })
	_, average := epochs(h, func(e rundir.Epoch) float64 { return 100 * averageOf(e).ValAccuracy })
	low, high := valueRange(series{x: x, y: training}, series{x: x, y: validation}, series{x: x, y: average})
	format := func(v float64) string { return fmt.Sprintf("%.2f %%", v) }
	c := newChart("accuracy", "Accuracy by epoch", describe("Training accuracy", training, format)+describe("Validation accuracy", validation, format)+describe("That of the moving average of the weights", average, format),
		"epoch", epochAxis(h, 1), percentAxis(low, high))
	c.line("training", x, training, true)
	c.line("validation", x, validation, true)
	c.line("average", x, average, true)
	return c.done()
}

func lossChart(h rundir.History, steps []Step) template.HTML {
	x, training := epochs(h, func(e rundir.Epoch) float64 { return e.Loss })
	_, validation := epochs(h, func(e rundir.Epoch) float64 { return e.ValLoss })
	_, average := epochs(h, func(e rundir.Epoch) float64 { return averageOf(e).ValLoss })
	at, single := stepValues(steps, func(s Step) float64 { return s.Loss })
	low, high := valueRange(series{x: x, y: training}, series{x: x, y: validation}, series{x: x, y: average}, series{x: at, y: single})
	from := 1.0
	if len(steps) > 0 {
		from = 0
	}
	c := newChart("loss", "Loss by epoch", describe("Training loss", training, number)+describe("Validation loss", validation, number)+describe("That of the moving average of the weights", average, number),
		"epoch", epochAxis(h, from), lossAxis(low, high))
	c.line("steps", at, single, false)
	c.line("training", x, training, true)
	c.line("validation", x, validation, true)
	c.line("average", x, average, true)
	return c.done()
}

func rateChart(h rundir.History, steps []Step) template.HTML {
	x, y := epochs(h, func(e rundir.Epoch) float64 { return e.LearningRate })
	from := 1.0
	if len(steps) > 0 {
		from = 0
		x, y = stepValues(steps, func(s Step) float64 { return s.LearningRate })
	}
	_, high := valueRange(series{x: x, y: y})
	if !(high > 0) {
		high = 1
	}
	c := newChart("rate", "Learning rate", describe("The learning rate", y, number), "epoch", epochAxis(h, from), linearAxis(0, 1.05*high, decimals))
	c.line("training", x, y, false)
	return c.done()
}

func stepValues(steps []Step, value func(Step) float64) (x, y []float64) {
	for _, s := range steps {
		x, y = append(x, s.Epoch), append(y, value(s))
	}
	return x, y
}

// reliabilityChart shows accuracy by confidence; on the diagonal confidence is
// what it says.
func reliabilityChart(s *evaluate.Summary) template.HTML {
	unit := linearAxis(0, 1, func(v, step float64) string { return fmt.Sprintf("%.0f %%", 100*v) })
	cal := s.Calibration
	c := newChart("reliability", "Reliability diagram", fmt.Sprintf(
		"Accuracy against confidence in %d bins. The expected calibration error is %.4f, mean confidence %s, accuracy %s.",
		len(cal.Bins), float64(cal.ECE), percentText(float64(cal.Confidence)), percentText(float64(s.Top1.Value))), "confidence", unit, unit)
	largest := 0
	for _, b := range cal.Bins {
		largest = max(largest, b.Count)
	}
	for _, b := range cal.Bins {
		if b.Count == 0 {
			continue
		}
		x0, x1 := c.atX(b.Low), c.atX(b.High)
		y := c.atY(float64(b.Accuracy))
		fmt.Fprintf(&c.b, `<rect class="bar" x="%s" y="%s" width="%s" height="%s" style="fill-opacity:%.2f"><title>confidence %.0f to %.0f %%: %s images, %s right</title></rect>`,
			px(x0+1), px(y), px(x1-x0-2), px(c.base-y), 0.3+0.7*float64(b.Count)/float64(largest), 100*b.Low, 100*b.High, digits.Group(b.Count), percentText(float64(b.Accuracy)))
		middle := px((x0 + x1) / 2)
		fmt.Fprintf(&c.b, `<line class="whisker" x1="%s" x2="%s" y1="%s" y2="%s"/>`, middle, middle, px(c.atY(b.AccuracyLow)), px(c.atY(b.AccuracyHigh)))
	}
	fmt.Fprintf(&c.b, `<line class="ideal" x1="%s" y1="%s" x2="%s" y2="%s"/>`, px(c.atX(0)), px(c.atY(0)), px(c.atX(1)), px(c.atY(1)))
	return c.done()
}

// coverageChart shows the accuracy of the answers when the least certain part is
// not answered.
func coverageChart(s *evaluate.Summary) template.HTML {
	var x, y, low, high []float64
	for _, p := range s.Coverage.Points {
		x, y = append(x, p.Coverage), append(y, 100*float64(p.Accuracy))
		low, high = append(low, 100*p.AccuracyLow), append(high, 100*p.AccuracyHigh)
	}
	c := newChart("coverage", "Accuracy of the pictures answered", describe("With ever more of the pictures answered the accuracy", y, func(v float64) string { return fmt.Sprintf("%.2f %%", v) }),
		"pictures answered", linearAxis(0, 1, func(v, step float64) string { return fmt.Sprintf("%.0f %%", 100*v) }), percentAxis(coverageRange(s.Coverage)))
	var band strings.Builder
	for i := range x {
		fmt.Fprintf(&band, "%s,%s ", px(c.atX(x[i])), px(c.atY(high[i])))
	}
	for i := len(x) - 1; i >= 0; i-- {
		fmt.Fprintf(&band, "%s,%s ", px(c.atX(x[i])), px(c.atY(low[i])))
	}
	fmt.Fprintf(&c.b, `<polygon class="band" points="%s"/>`, strings.TrimSpace(band.String()))
	c.line("training", x, y, false)
	return c.done()
}

// heatChart is a confusion matrix of many classes: a square per confusion.
func heatChart(s *evaluate.Summary) template.HTML {
	n := len(s.Classes)
	const side = 420.0
	cell := side / float64(n)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-labelledby="heat-title heat-desc"><title id="heat-title">Confusion matrix</title><desc id="heat-desc">%d true classes from top to bottom, %d predicted classes from left to right. The most frequent confusions are in the table of most confused classes.</desc>`, side, side, n, n)
	fmt.Fprintf(&b, `<rect class="frame" x="0" y="0" width="%g" height="%g"/>`, side, side)
	for i, row := range s.Confusion {
		for j, v := range row {
			if v == 0 {
				continue
			}
			kind := "wrong"
			if i == j {
				kind = "right"
			}
			fmt.Fprintf(&b, `<rect class="%s" x="%s" y="%s" width="%.2f" height="%.2f" style="fill-opacity:%.2f"/>`,
				kind, px(float64(j)*cell), px(float64(i)*cell), cell, cell, min(1, 0.15+0.85*math.Sqrt(share(v, s.PerClass[i].Support))))
		}
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// networkChart draws the network from its configuration: stem, stages with their
// blocks, shortcuts as arcs over them, and the head. Of many blocks the middle ones
// are counted.
func networkChart(s model.Summary) template.HTML {
	c := s.Model
	const width, rowHeight, blockHeight, gap = 420.0, 92.0, 34.0, 12.0
	rows := len(c.Blocks) + 2
	height := rowHeight*float64(rows) - 20
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="network" viewBox="0 0 %g %g" role="img" aria-labelledby="network-title network-desc"><title id="network-title">The network</title><desc id="network-desc">%s</desc>`,
		width, height, html.EscapeString(networkText(s)))
	text := func(class string, x, y float64, anchor, t string) {
		fmt.Fprintf(&b, `<text class="%s" x="%s" y="%s" text-anchor="%s">%s</text>`, class, px(x), px(y), anchor, html.EscapeString(t))
	}
	box := func(class string, x, y, w float64, label string) {
		fmt.Fprintf(&b, `<rect class="box %s" x="%s" y="%s" width="%s" height="%g" rx="6"/>`, class, px(x), px(y), px(w), blockHeight)
		text("boxtext", x+w/2, y+blockHeight/2+4, "middle", label)
	}
	arrow := func(x0, x1, y float64) {
		fmt.Fprintf(&b, `<path class="arrow" d="M%s %sL%s %sM%s %sl-4 -3.5M%s %sl-4 3.5"/>`, px(x0), px(y), px(x1), px(y), px(x1), px(y), px(x1), px(y))
	}
	down := func(y float64) {
		fmt.Fprintf(&b, `<path class="arrow" d="M24 %sL24 %sM24 %sl-3.5 -4M24 %sl3.5 -4"/>`, px(y), px(y+16), px(y+16), px(y+16))
	}

	y := 30.0
	text("rowname", 0, y-12, "start", "stem")
	text("shape", width, y-12, "end", fmt.Sprintf("%d×%d×%d → %s", c.Height, c.Width, c.Channels, outputOf(s, "layer1", true)))
	first := map[model.Stem]string{model.SmallStem: "3×3", model.LargeStem: "7×7, stride 2", model.DeepStem: "3×3 3×3 3×3, stride 2", model.WhitenStem: fmt.Sprintf("%d×%[1]d whitening", c.Whiten)}[c.Stem]
	pooled := pooled(c)
	box("", 0, y, 150, first)
	if c.Stem == model.LargeStem || c.Stem == model.DeepStem {
		arrow(150, 170, y+blockHeight/2)
		box("", 170, y, 150, "3×3 max-pool, stride 2")
	}
	for stage, blocks := range c.Blocks {
		down(y + blockHeight + 4)
		y += rowHeight
		name := fmt.Sprintf("layer%d", stage+1)
		text("rowname", 0, y-24, "start", fmt.Sprintf("%s: %d %s", name, blocks, plural(blocks, "block")))
		text("shape", width, y-24, "end", outputOf(s, name, false))
		const most = 5
		shown, left := min(blocks, most), 0.0
		w := min(96, (width-gap*float64(most-1))/most)
		if pooled { // a convolution and a pool before the blocks
			const before = 126
			box("", 0, y, before, "3×3, 2×2 max-pool")
			left, w = before+gap, (width-before-gap*most)/most
		}
		for i := range shown {
			x := left + float64(i)*(w+gap)
			label := "3×3 3×3"
			if c.Block == model.Bottleneck {
				label = "1×1 3×3 1×1"
			} else if c.Block == model.Pooled {
				label = "3×3 ×2"
			} else if c.Block == model.Single {
				label = "3×3"
			}
			skipped := blocks > most && i == most-2
			if skipped {
				label = fmt.Sprintf("%d more", blocks-most+1)
			}
			box("block", x, y, w, label)
			if x > 0 {
				arrow(x-gap, x, y+blockHeight/2)
			}
			if skipped {
				continue
			}
			class := "identity"
			grows := stage > 0 || c.Block == model.Bottleneck || c.StemFilters != 0 && c.StemFilters != c.Filters
			if i == 0 && grows && !pooled { // the shape changes
				class = string(c.Shortcut)
			}
			fmt.Fprintf(&b, `<path class="shortcut %s" d="M%s %sC%s %s %s %s %s %s"/>`, class, px(x+6), px(y), px(x+14), px(y-17), px(x+w-14), px(y-17), px(x+w-6), px(y))
		}
	}
	down(y + blockHeight + 4)
	y += rowHeight - 20
	pool := "global average pool"
	if pooled {
		pool = "global max-pool"
	}
	box("", 0, y, 140, pool)
	arrow(140, 160, y+blockHeight/2)
	box("", 160, y, 140, fmt.Sprintf("dense, %s classes", digits.Group(c.Classes)))
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// outputOf is the shape that leaves a stage, or with before that enters it.
func outputOf(s model.Summary, stage string, before bool) string {
	shape := ""
	for _, l := range s.Layers {
		if strings.HasPrefix(l.Name, stage+".") {
			if before {
				return shape
			}
		} else if !before && shape != "" {
			break
		}
		if before || strings.HasPrefix(l.Name, stage+".") {
			shape = strings.Trim(strings.ReplaceAll(fmt.Sprint([]int(l.Output)), " ", "×"), "[]")
		}
	}
	return shape
}

// networkText says in words what networkChart draws.
func networkText(s model.Summary) string {
	c := s.Model
	stem := "a 3×3 convolution"
	switch c.Stem {
	case model.LargeStem:
		stem = "a 7×7 convolution with stride 2 and a 3×3 max-pool with stride 2"
	case model.DeepStem:
		stem = "three 3×3 convolutions, the first with stride 2, and a 3×3 max-pool with stride 2"
	case model.WhitenStem:
		stem = fmt.Sprintf("a %d×%[1]d convolution that whitens them", c.Whiten)
	}
	text := fmt.Sprintf("Images of %d×%d×%d go through %s. ", c.Height, c.Width, c.Channels, stem)
	for i, n := range c.Blocks {
		before := ""
		if pooled(c) {
			before = "a 3×3 convolution, a 2×2 max-pool and "
		}
		text += fmt.Sprintf("Stage layer%d has %s%d %s %s and ends with %s. ", i+1, before, n, c.Block, plural(n, "block"), outputOf(s, fmt.Sprintf("layer%d", i+1), false))
	}
	text += "Each block adds its input to its output"
	if !pooled(c) {
		text += "; where the shape changes the shortcut is " + shortcutText(c.Shortcut)
	}
	return text + fmt.Sprintf(". A global pool and a dense layer give %d classes.", c.Classes)
}

// pooled reports whether stages begin with a convolution and a max-pool, so that no
// block changes its input's shape.
func pooled(c model.Config) bool { return c.Block == model.Pooled || c.Block == model.Single }

func shortcutText(s model.Shortcut) string {
	if s == model.PadShortcut {
		return "subsampling with zero channels (option A)"
	}
	return "a 1×1 convolution (option B)"
}
