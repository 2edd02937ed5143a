package main

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/rundir"
)

type namedPictures int

func (n namedPictures) Len() int      { return int(n) }
func (n namedPictures) Label(int) int { return 0 }
func (n namedPictures) Name(i int) string {
	return fmt.Sprintf("/a/long/way/to/where/the/pictures/lie/%d.png", i)
}
func (n namedPictures) Image(int, *dataset.Image) error { return nil }

// confident makes the summary of a network of k classes: of each class, with names
// that begin alike, eight pictures are right and two are taken for the next.
func confident(t *testing.T, k int) evaluate.Summary {
	t.Helper()
	var names []string
	for i := range k {
		names = append(names, fmt.Sprintf("species of number %d", i))
	}
	c := evaluate.NewCollector(names, evaluate.CollectOptions{})
	for i := range 10 * k {
		label, says := i/10, i/10
		logits, p := make([]float32, k), make([]float64, k)
		logits[says] = 4 + float32(i%10)
		if i%10 < 2 {
			says = (label + 1) % k
			logits[label], logits[says] = 0, 1+float32(i%10)
		}
		metric.Softmax(p, logits, 1)
		if err := c.Add(evaluate.NewRecord(namedPictures(10*k), i, label, logits, p)); err != nil {
			t.Fatal(err)
		}
	}
	s := c.Summary()
	s.Data, s.Split, s.Model, s.Engine = "birds", "test", "resnet20", "cpu"
	return s
}

var escape = regexp.MustCompile("\x1b\\[[0-9;]*m")

// The text fits the terminal, says the same with and without colours, and shows the
// classes that matter where there is no room for all.
func TestEvaluationText(t *testing.T) {
	for _, k := range []int{2, 10, 200} {
		s := confident(t, k)
		texts := map[bool]string{}
		for _, color := range []bool{true, false} {
			var b strings.Builder
			if err := (evaluationText{Summary: s, terminal: terminal{color: color, width: 100}}).write(&b); err != nil {
				t.Fatal(err)
			}
			texts[color] = b.String()
		}
		if !strings.Contains(texts[true], "\x1b[48;5;") || strings.Contains(texts[false], "\x1b") {
			t.Errorf("%d classes: colours are missing, or where they must not be", k)
		}
		if plain := escape.ReplaceAllString(texts[true], ""); plain != texts[false] {
			t.Errorf("%d classes: with colours the text says something else:\n%s\nthan without:\n%s", k, plain, texts[false])
		}
		for line := range strings.Lines(texts[false]) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 125 {
				t.Errorf("%d classes: a line of %d letters: %s", k, n, line)
			}
		}
		for _, want := range []string{
			"birds, test split, " + fmt.Sprint(10*k) + " images", fmt.Sprintf("accuracy  80.00 %%  (%d of %d", 8*k, 10*k),
			"2 of 10 species of number 0 taken for species of number 1 (20.0 %)", "…", "Abstaining", "100.00 %",
			"#1", // names that are the same when cut give way to numbers
		} {
			if !strings.Contains(texts[false], want) {
				t.Errorf("%d classes: no %q in\n%s", k, want, texts[false])
			}
		}
		if shown := strings.Contains(texts[false], "of 200 classes with the most mistakes"); shown != (k == 200) {
			t.Errorf("%d classes: a part is shown: %v", k, shown)
		}
	}
}

// Which of two is said to be better follows the test and the sign.
func TestVersusText(t *testing.T) {
	for _, c := range []struct {
		paired metric.Paired
		want   string
	}{
		{metric.Paired{Both: 900, OnlyA: 10, OnlyB: 40, Neither: 50}, "B is better: were they equal, so uneven a split had the probability 2.4e-05"},
		{metric.Paired{Both: 900, OnlyA: 40, OnlyB: 10, Neither: 50}, "A is better: were they equal, so uneven a split had the probability 2.4e-05"},
		{metric.Paired{Both: 900, OnlyA: 24, OnlyB: 26, Neither: 50}, "no difference is shown: were they equal, so uneven a split had the probability 0.888"},
	} {
		low, high := c.paired.Interval()
		v := evaluate.Versus{Classes: []string{"cat"}, Accuracy: evaluate.Comparison{Paired: c.paired, Images: 1000,
			Difference: c.paired.Difference(), Low: low, High: high, P: c.paired.PValue()},
			Lost: []evaluate.Change{{Name: "a.png", B: -1, AConfidence: 0.9}}}
		v.B.TrainingSeconds = rundir.Float(math.NaN())
		var b strings.Builder
		if err := writeVersus(&b, v, "cpu", [2]int{3, 1}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{c.want, "a.png  cat     A: cat     90.00 %  B: (none)   0.00 %", "look 3 of A and look 1 of B", "not known"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%+v: no %q in\n%s", c.paired, want, b.String())
			}
		}
	}
}

// What is no terminal gets no colours.
func TestTerminalOf(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := terminalOf(f); got != (terminal{width: 100}) {
		t.Errorf("a file is %+v", got)
	}
}

// A small probability is not 0, and of a readable length.
func TestProbabilityText(t *testing.T) {
	for p, want := range map[float64]string{1: "100.00", 0.5: "50.00", 0.0005: "0.05", 0.00005: "0.01", 0.000046: "0.0046", 0.000001: "0.0001", 2e-11: "2e-09"} {
		if got := probability(p); got != want {
			t.Errorf("probability(%g) is %q, want %q", p, got, want)
		}
	}
}
