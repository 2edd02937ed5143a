package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"image/color"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/metric"
)

type numbered int

func (n numbered) Len() int                        { return int(n) }
func (n numbered) Label(i int) int                 { return i % 3 }
func (n numbered) Name(i int) string               { return strconv.Itoa(i) }
func (n numbered) Image(int, *dataset.Image) error { return nil }

// evaluation is what a network with some skill on so many classes would get; the
// last class never occurs.
func evaluation(t *testing.T, classes, images int, temperature float64) evaluate.Summary {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	var names []string
	for k := range classes {
		names = append(names, fmt.Sprintf("class <%d> & %s", k, strings.Repeat("x", k%9)))
	}
	c := evaluate.NewCollector(names, evaluate.CollectOptions{Temperature: temperature})
	logits, p := make([]float32, classes), make([]float64, classes)
	for i := range images {
		label := r.IntN(classes - 1)
		for k := range logits {
			logits[k] = float32(2 * r.NormFloat64())
		}
		logits[label] += 3
		metric.Softmax(p, logits, temperature)
		if err := c.Add(evaluate.NewRecord(numbered(images), i, label, logits, p)); err != nil {
			t.Fatal(err)
		}
	}
	return c.Summary()
}

func TestEvaluationFigures(t *testing.T) {
	var broken evaluate.Summary // a network that answers NaN to everything
	{
		c := evaluate.NewCollector([]string{"a", "b", "c"}, evaluate.CollectOptions{})
		nan := []float64{math.NaN(), math.NaN(), math.NaN()}
		if err := c.Add(evaluate.NewRecord(numbered(1), 0, 1, []float32{float32(nan[0]), 0, 0}, nan)); err != nil {
			t.Fatal(err)
		}
		broken = c.Summary()
	}
	for name, c := range map[string]struct {
		s    evaluate.Summary
		says []string // somewhere in each of the three
	}{
		"ten classes": {evaluation(t, 10, 500, 1.5), []string{"Precision, %", "Temperature 1.5: calibration error", "Answered"}},
		"two":         {evaluation(t, 2, 40, 1), []string{"Recall, %", "As it is: calibration error", "Answered"}},
		"twenty":      {evaluation(t, 20, 300, 1), []string{"class <3> & xxx", "Probability of the prediction", "interval"}},
		"hundred":     {evaluation(t, 100, 3000, 1), []string{"Rows: true class", "Pictures", "interval"}},
		"many":        {evaluation(t, 150, 3000, 1), []string{"The 100 of 150 classes with the most mistakes", "Accuracy", "interval"}},
		"one picture": {evaluation(t, 3, 1, 1), []string{"Confusion Matrix", "Reliability", "Abstaining"}},
		"NaN":         {broken, []string{"Confusion Matrix", "Reliability", "Abstaining"}},
	} {
		for i, draw := range []func(evaluate.Summary, string) ([]byte, []byte, error){Confusion, Reliability, Coverage} {
			png, svg, err := draw(c.s, "a caption")
			if err != nil {
				t.Fatalf("%s, figure %d: %v", name, i, err)
			}
			if name == "ten classes" {
				if again, _, err := draw(c.s, "a caption"); err != nil || !bytes.Equal(png, again) {
					t.Errorf("figure %d: drawn twice it is another: %v", i, err)
				}
			}
			texts := strings.Join(svgTexts(t, svg), "\n")
			if !strings.Contains(texts, c.says[i]) || !strings.Contains(texts, "a caption") {
				t.Errorf("%s, figure %d: want %q and the caption in\n%s", name, i, c.says[i], texts)
			}
		}
	}
}

// Every count of the matrix is on the figure and in the table.
func TestConfusionNumbers(t *testing.T) {
	s := evaluation(t, 10, 500, 1)
	_, svg, err := Confusion(s, "")
	if err != nil {
		t.Fatal(err)
	}
	texts := svgTexts(t, svg)
	for _, row := range s.Confusion {
		for _, n := range row {
			if n > 0 && !slices.Contains(texts, strconv.Itoa(n)) {
				t.Errorf("%d is not on the figure", n)
			}
		}
	}
	var b bytes.Buffer
	if err := WriteConfusionCSV(&b, s); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != 11 || len(rows[0]) != 11 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i, row := range s.Confusion {
		if rows[i+1][0] != s.Classes[i] || rows[0][i+1] != s.Classes[i] {
			t.Errorf("class %d is called %q and %q", i, rows[i+1][0], rows[0][i+1])
		}
		for j, n := range row {
			if rows[i+1][j+1] != strconv.Itoa(n) {
				t.Errorf("cell %d,%d is %s, want %d", i, j, rows[i+1][j+1], n)
			}
		}
	}
}

// Which classes are left when there is no room: those with the most mistakes.
func TestConfusionClasses(t *testing.T) {
	s := evaluate.Summary{Classes: []string{"a", "b", "c", "d"}, PerClass: []evaluate.Class{
		{Support: 10, Predicted: 10, Correct: 10}, {Support: 10, Predicted: 9, Correct: 7}, {Support: 10, Predicted: 10, Correct: 9}, {Support: 10, Predicted: 11, Correct: 4},
	}}
	for n, want := range map[int][]int{4: {0, 1, 2, 3}, 9: {0, 1, 2, 3}, 2: {1, 3}, 1: {3}} {
		if got := ConfusionClasses(s, n); !slices.Equal(got, want) {
			t.Errorf("room for %d: classes %v, want %v", n, got, want)
		}
	}
}

// Numbers can be read on every shade: 4.5:1 is WCAG 2's level AA.
func TestShadesContrast(t *testing.T) {
	for i := range 1001 {
		for _, right := range []bool{true, false} {
			fill, ink := shade(float64(i)/1000, right)
			got := contrast(fill, ink)
			if got < 4.5 {
				t.Fatalf("share %v, right %v: contrast %.2f of %v on %v", float64(i)/1000, right, got, ink, fill)
			}
		}
	}
	if got := contrast(color.RGBA{0, 0, 0, 255}, color.RGBA{255, 255, 255, 255}); math.Abs(got-21) > 1e-9 {
		t.Errorf("black on white has contrast %v, want 21", got)
	}
}

func TestThreshold(t *testing.T) {
	for p, want := range map[float64]string{0: "0.000", 0.8438: "0.844", 0.99951: "0.9995", 0.99999996: "0.99999996", 1: "1.000000000"} {
		if got := Threshold(p); got != want {
			t.Errorf("%v is written %s, want %s", p, got, want)
		}
	}
}

func TestHistogramStep(t *testing.T) {
	for most := 0.0; most <= 100; most += 0.5 {
		step := histogramStep(most)
		if 2*step < most {
			t.Errorf("%g %% does not fit an axis up to %g %%", most, 2*step)
		}
		if step != 1 && step != math.Trunc(step) {
			t.Errorf("ticks of %g %% for %g %%", step, most)
		}
	}
	if got := histogramStep(27); got != 15 {
		t.Errorf("ticks of %g %% for 27 %%, want 15", got)
	}
}

// The axis holds the interval of all pictures and that of each point from a tenth of
// them on, not the one of a single picture.
func TestCoverageRange(t *testing.T) {
	s := evaluation(t, 2, 70, 1)
	low, high := coverageRange(s.Coverage)
	seen, wide := 0, 0
	for _, p := range s.Coverage.Points {
		if p.Coverage >= 0.1 {
			seen++
			if 100*p.AccuracyLow < low || 100*p.AccuracyHigh > high {
				t.Errorf("at %g answered the interval %g to %g is outside %g to %g", p.Coverage, 100*p.AccuracyLow, 100*p.AccuracyHigh, low, high)
			}
		} else if 100*p.AccuracyLow < low {
			wide++
		}
	}
	if seen == 0 || wide == 0 {
		t.Errorf("%d points from a tenth on, %d before with a wider interval: nothing was tested", seen, wide)
	}
	for name, v := range map[string]evaluate.Coverage{"none": {}, "one": evaluation(t, 3, 1, 1).Coverage} {
		axis := percentAxis(coverageRange(v))
		if !(axis.min < axis.max) {
			t.Errorf("%s: axis from %g to %g", name, axis.min, axis.max)
		}
	}
}

// With two classes the caption needs more room than the cells.
func TestCaptionOfSmallMatrix(t *testing.T) {
	const caption = "resnet20 on hymenoptera, validation split, 70 images; run ab1"
	_, svg, err := Confusion(evaluation(t, 2, 70, 1), caption)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(svg), caption) {
		t.Error("the caption is cut")
	}
}
