package report

import (
	"bytes"
	"encoding/xml"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"

	"github.com/residual-ml/residual/rundir"
)

var nan = math.NaN()

// run makes a history of n epochs that learns.
func run(n int) rundir.History {
	var h rundir.History
	for i := range n {
		rest := math.Exp(-float64(i) / 20)
		h = append(h, rundir.Epoch{Epoch: i + 1, Loss: 0.01 + 2*rest, Accuracy: 1 - 0.6*rest, ValLoss: 0.3 + 2*rest, ValAccuracy: 0.93 - 0.6*rest})
	}
	return h
}

func without(h rundir.History, clear func(*rundir.Epoch)) rundir.History {
	h = slices.Clone(h)
	for i := range h {
		clear(&h[i])
	}
	return h
}

// svgTexts parses the SVG and returns its texts; a number that is not finite
// anywhere in it is an error.
func svgTexts(t *testing.T, svg []byte) []string {
	t.Helper()
	if i := bytes.Index(svg, []byte("NaN")); i >= 0 || bytes.Contains(svg, []byte("Inf")) {
		t.Errorf("the SVG has coordinates that are no numbers")
	}
	var texts []string
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return texts
		}
		if err != nil {
			t.Fatalf("SVG: %v", err)
		}
		if data, ok := token.(xml.CharData); ok && strings.TrimSpace(string(data)) != "" {
			texts = append(texts, string(data))
		}
	}
}

func count(img image.Image, want color.RGBA) int {
	rgba := image.NewRGBA(img.Bounds()) // its Pix is much faster than At
	draw.Draw(rgba, rgba.Bounds(), img, image.Point{}, draw.Src)
	n := 0
	for p := rgba.Pix; len(p) > 0; p = p[4:] {
		if p[0] == want.R && p[1] == want.G && p[2] == want.B && p[3] == want.A {
			n++
		}
	}
	return n
}

func TestCurves(t *testing.T) {
	noValidation := func(e *rundir.Epoch) { e.ValLoss, e.ValAccuracy = nan, nan }
	gaps := run(12)
	gaps[3].ValLoss, gaps[5].ValAccuracy, gaps[7].Loss = nan, nan, math.Inf(1)
	spike := run(5)
	spike[0].ValLoss = 300

	for _, c := range []struct {
		name                 string
		history              rundir.History
		want                 []string // texts of the SVG
		unwanted             []string
		training, validation bool // lines
	}{
		{"one epoch", run(1), []string{"Training and Validation Accuracy", "Training and Validation Loss", "1", "Training 40.00 %", "Validation 2.3"}, []string{"Best", "0.5", "2 %"}, true, true},
		{"five epochs", run(5), []string{"Training and Validation Accuracy", "Best 43.88 %, epoch 5", "Best 1.94, epoch 5", "5", "Epoch", "resnet18 · <cifar10> & more"}, []string{"(log", "6"}, true, true},
		{"200 epochs", run(200), []string{"Training and Validation Loss (log scale)", "200", "100 %", "0.3"}, []string{"0", "-4", "201"}, true, true},
		{"gaps", gaps, []string{"Training and Validation Loss", "12"}, nil, true, true},
		{"no validation", without(run(5), noValidation), []string{"Training Accuracy", "Training Loss"}, []string{"Validation", "Best"}, true, false},
		{"validation only", without(run(5), func(e *rundir.Epoch) { e.Loss, e.Accuracy = nan, nan }), []string{"Validation"}, nil, false, true},
		{"diverged", without(run(2), func(e *rundir.Epoch) { e.Loss, e.ValLoss = nan, math.Inf(1) }), []string{"no finite values", "0.0"}, []string{"-0.0"}, true, true},
		{"nothing finite", without(run(3), func(e *rundir.Epoch) { e.Loss, e.Accuracy, e.ValLoss, e.ValAccuracy = nan, nan, nan, nan }), []string{"no finite values"}, []string{"Best"}, false, false},
		{"all zero", without(run(3), func(e *rundir.Epoch) { *e = rundir.Epoch{Epoch: e.Epoch} }), []string{"Best 0.00 %, epoch 1"}, nil, true, true},
		{"perfect", without(run(3), func(e *rundir.Epoch) { e.Accuracy, e.ValAccuracy = 1, 1 }), []string{"100.0 %"}, []string{"100.5 %"}, true, true},
		{"spike", spike, []string{"Training and Validation Loss (log scale)", "100"}, []string{"1e+02"}, true, true},
		{"huge and tiny", without(run(3), func(e *rundir.Epoch) {
			e.Loss, e.ValLoss = math.MaxFloat64, math.Pow(1e-30, float64(e.Epoch))
		}), nil, nil, true, true},
		{"negative loss", without(run(3), func(e *rundir.Epoch) { e.Loss = -e.Loss }), []string{"-2"}, nil, true, true},
		{"resumed late", run(30)[20:], []string{"21", "30"}, []string{"1"}, true, true},
	} {
		pngBytes, svg, err := Curves(c.history, "resnet18 · <cifar10> & more")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		texts := svgTexts(t, svg)
		for _, want := range c.want {
			if !slices.Contains(texts, want) {
				t.Errorf("%s: no text %q in %q", c.name, want, texts)
			}
		}
		for _, text := range texts {
			for _, unwanted := range c.unwanted {
				if text == unwanted || len(unwanted) > 3 && strings.HasPrefix(text, unwanted) {
					t.Errorf("%s: unwanted text %q", c.name, text)
				}
			}
		}
		img, err := png.Decode(bytes.NewReader(pngBytes))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if size := img.Bounds().Size(); size != image.Pt(1600, 688) {
			t.Errorf("%s: %v pixels", c.name, size)
		}
		// A legend alone has some dozens of pixels in its colour.
		if n := count(img, trainingColor); (n > 0) != c.training {
			t.Errorf("%s: %d pixels of the training line", c.name, n)
		}
		if n := count(img, validationColor); (n > 0) != c.validation {
			t.Errorf("%s: %d pixels of the validation line", c.name, n)
		}
	}
}

// A run with a moving average has its line too, in a legend that may take two rows,
// and the better of both validations is ringed. Without one, nothing changes.
func TestCurvesOfAverage(t *testing.T) {
	h := run(5)
	if _, svg, err := Curves(h, ""); err != nil || slices.Contains(svgTexts(t, svg), "Moving average") {
		t.Errorf("a moving average that is not there, %v", err)
	}
	for i := range h {
		h[i].EMA = &rundir.Scores{ValLoss: h[i].ValLoss + 0.1, ValAccuracy: h[i].ValAccuracy - 0.05}
	}
	h[3].EMA.ValAccuracy = 0.6789
	for name, c := range map[string]struct {
		history rundir.History
		want    []string
	}{
		"five epochs": {h, []string{"Moving average", "Best 67.89 %, epoch 4", "Best 1.94, epoch 5"}},
		"one epoch":   {h[:1], []string{"Moving average 28.00 %", "Validation 33.00 %"}},
	} {
		pngBytes, svg, err := Curves(c.history, "")
		if err != nil {
			t.Fatal(err)
		}
		texts := svgTexts(t, svg)
		for _, want := range c.want {
			if !slices.Contains(texts, want) {
				t.Errorf("%s: no text %q in %q", name, want, texts)
			}
		}
		img, err := png.Decode(bytes.NewReader(pngBytes))
		if err != nil {
			t.Fatal(err)
		}
		if n := count(img, averageColor); n == 0 {
			t.Errorf("%s: no pixel of the average's line", name)
		}
	}
	p := accuracyPanel(h)
	for _, width := range []vg.Length{10, 100, 200, 367, 1000} {
		n := 0
		for _, row := range p.legend(width) {
			x := -legendSpace
			for _, e := range row {
				x += legendSpace + e.width()
			}
			if len(row) == 0 || x > width && len(row) > 1 {
				t.Errorf("a row of %d entries is %v wide, of %v", len(row), x, width)
			}
			n += len(row)
		}
		if n != 4 {
			t.Errorf("the legend has %d entries, want 4", n)
		}
	}
}

func TestCurvesRefusesNothing(t *testing.T) {
	if _, _, err := Curves(nil, ""); err == nil {
		t.Error("drew a history without epochs")
	}
}

func TestSameHistorySameBytes(t *testing.T) {
	png1, svg1, err1 := Curves(run(7), "a")
	png2, svg2, err2 := Curves(run(7), "a")
	if err1 != nil || err2 != nil || !bytes.Equal(png1, png2) || !bytes.Equal(svg1, svg2) {
		t.Errorf("two drawings differ, errors %v, %v", err1, err2)
	}
}

func TestCaption(t *testing.T) {
	_, svg, err := Curves(run(2), strings.Repeat("long ", 100)+"\x00\xff\n")
	if err != nil {
		t.Fatal(err)
	}
	cut := ""
	for _, text := range svgTexts(t, svg) {
		if strings.HasPrefix(text, "long long") {
			cut = text
		}
	}
	if !strings.HasSuffix(cut, "…") || len(cut) < 100 || len(cut) > 250 {
		t.Errorf("a long caption became %q", cut)
	}
	if got := oneLine("a\nb\x00c\xff"); got != "a b c?" {
		t.Errorf("oneLine = %q", got)
	}
}

func TestWriteCurves(t *testing.T) {
	d, err := rundir.Create(filepath.Join(t.TempDir(), "r"))
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteCurves(d, ""); err == nil || !strings.Contains(err.Error(), d.Path()) {
		t.Errorf("before the first epoch: error %v", err)
	}
	for _, e := range run(2) {
		if err := d.AppendEpoch(e); err != nil {
			t.Fatal(err)
		}
		if err := WriteCurves(d, "a caption"); err != nil {
			t.Fatal(err)
		}
	}
	for name, start := range map[string]string{"curves.png": "\x89PNG", "curves.svg": "<?xml"} {
		b, err := os.ReadFile(filepath.Join(d.Path(), name))
		if err != nil || !strings.HasPrefix(string(b), start) {
			t.Errorf("%s starts with %.10q, error %v", name, b, err)
		}
	}
}

func labels(ticks []plot.Tick) string {
	var s []string
	for _, t := range ticks {
		s = append(s, t.Label)
	}
	return strings.Join(s, " ")
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		first, last int
		want        string
	}{
		{1, 1, "1"},
		{1, 2, "1 2"},
		{1, 5, "1 2 3 4 5"},
		{1, 10, "1 2 3 4 5 6 7 8 9 10"},
		{1, 12, "1 2 4 6 8 10 12"},
		{1, 30, "1 5 10 15 20 25 30"},
		{1, 90, "1 10 20 30 40 50 60 70 80 90"},
		{1, 200, "1 20 40 60 80 100 120 140 160 180 200"},
		{1, 1000, "1 100 200 300 400 500 600 700 800 900 1000"},
		{19, 60, "19 25 30 35 40 45 50 55 60"},
	} {
		if got := labels(epochTicks(c.first, c.last)); got != c.want {
			t.Errorf("epochs %d to %d: %s, want %s", c.first, c.last, got, c.want)
		}
	}
	for _, c := range []struct {
		name string
		axis axis
		want string
	}{
		{"tutorial accuracy", percentAxis(45, 82), "50 % 60 % 70 % 80 %"},
		{"late accuracy", percentAxis(98.4, 98.6), "96.5 % 97.0 % 97.5 % 98.0 % 98.5 % 99.0 % 99.5 % 100.0 %"},
		{"no accuracy", percentAxis(nan, nan), "0 % 20 % 40 % 60 % 80 % 100 %"},
		{"tutorial loss", lossAxis(0.55, 1.61), "0.0 0.5 1.0 1.5"},
		{"close losses", lossAxis(1.2, 1.6), "1.2 1.3 1.4 1.5 1.6"},
		{"long losses", lossAxis(0.004, 2), "0.01 0.03 0.1 0.3 1"},
		{"loss with a spike", lossAxis(0.6, 30), "0.5 1 2 5 10 20"},
		{"loss of zero", lossAxis(0, 0), "-0.04 -0.02 0.00 0.02 0.04"},
	} {
		if got := labels(c.axis.ticks); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Whatever the range, an axis contains its values and has a readable number of labels.
func TestAxesOfAnyRange(t *testing.T) {
	for low := 1e-29; low < 1e29; low *= 7.3 {
		for _, ratio := range []float64{1, 1.0001, 1.3, 2, 9, 26, 1e3, 1e9, 1e40} {
			high := min(low*ratio, 1e30)
			for _, a := range []axis{lossAxis(low, high), percentAxis(min(low, 100), min(high, 100))} {
				if n := len(a.ticks); n < 2 || n > 10 {
					t.Fatalf("%v to %v: %d labels: %s", low, high, n, labels(a.ticks))
				}
			}
			a := lossAxis(low, high)
			if !(a.min <= low && high <= a.max && a.min < a.max) {
				t.Fatalf("%v to %v: axis from %v to %v", low, high, a.min, a.max)
			}
			for _, tick := range a.ticks {
				if tick.Value < a.min || tick.Value > a.max {
					t.Fatalf("%v to %v: label at %v", low, high, tick.Value)
				}
			}
		}
	}
}
