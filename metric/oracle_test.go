package metric

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/residual-ml/residual/golden"
)

// oracle is what scikit-learn, SciPy and NumPy say: golden/metric.py.
type oracle struct {
	Classes         int
	Labels          []int
	Values          struct{ Logits []float32 }
	Confusion       []int
	Precision       []*float64
	Recall          []*float64
	F1              []*float64
	Support         []int
	Macro           [3]float64
	Top             map[string]int
	NLL             float64
	NLLInterval     [2]float64 `json:"nll_interval"`
	Brier           float64
	Bins            int
	ECE, MCE        float64
	BinCounts       []int `json:"bin_counts"`
	Temperature     float64
	TemperatureNLL  float64 `json:"temperature_nll"`
	TemperatureECE  float64 `json:"temperature_ece"`
	AURC            float64
	AnsweredCorrect map[string]int `json:"answered_correct"`
	AnsweredAt90    int            `json:"answered_at_90"`
	Paired          [][6]float64
}

func readOracle(t *testing.T) oracle {
	t.Helper()
	var o oracle
	if err := json.Unmarshal([]byte(golden.Text(t, "metric.json")), &o); err != nil {
		t.Fatal(err)
	}
	if len(o.Labels) < 100 || len(o.Values.Logits) != len(o.Labels)*o.Classes {
		t.Fatalf("%d labels and %d logits in the file", len(o.Labels), len(o.Values.Logits))
	}
	return o
}

func (o oracle) row(i int) []float32 { return o.Values.Logits[i*o.Classes : (i+1)*o.Classes] }

// near allows the last digits of float64; values are of order 1.
func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-12) {
		t.Errorf("%s: %.17g, want %.17g", what, got, want)
	}
}

func TestConfusionAgainstOracle(t *testing.T) {
	o := readOracle(t)
	c := NewConfusion(o.Classes)
	if err := AddLogits(c, o.Values.Logits, o.Labels); err != nil {
		t.Fatal(err)
	}
	for i, want := range o.Confusion {
		if got := c.Count(i/o.Classes, i%o.Classes); got != want {
			t.Errorf("class %d taken for %d: %d, want %d", i/o.Classes, i%o.Classes, got, want)
		}
	}
	missing := 0
	compare := func(what string, class int, got float64, want *float64) {
		if want == nil {
			missing++
			if !math.IsNaN(got) {
				t.Errorf("%s of class %d: %v, want NaN", what, class, got)
			}
			return
		}
		near(t, what+" of class "+strconv.Itoa(class), got, *want)
	}
	for k, class := range c.PerClass() {
		compare("precision", k, class.Precision(), o.Precision[k])
		compare("recall", k, class.Recall(), o.Recall[k])
		compare("F1", k, class.F1(), o.F1[k])
		if class.Support != o.Support[k] {
			t.Errorf("support of class %d: %d, want %d", k, class.Support, o.Support[k])
		}
	}
	if missing == 0 {
		t.Error("every value exists: the rule for those that do not was not tested")
	}
	m := c.Macro()
	near(t, "macro precision", m.Precision, o.Macro[0])
	near(t, "macro recall", m.Recall, o.Macro[1])
	near(t, "macro F1", m.F1, o.Macro[2])
	for k, want := range o.Top {
		n, _ := strconv.Atoi(k)
		if got, err := CorrectTopK(o.Values.Logits, o.Classes, o.Labels, n); got != want || err != nil {
			t.Errorf("top-%s: %d, %v, want %d", k, got, err, want)
		}
	}
}

func TestProbabilitiesAgainstOracle(t *testing.T) {
	o := readOracle(t)
	for _, c := range []struct {
		temperature, nll, ece float64
	}{{1, o.NLL, o.ECE}, {o.Temperature, o.TemperatureNLL, o.TemperatureECE}} {
		var loss, brier Sample
		p := make([]float64, o.Classes)
		r := NewReliability(o.Bins)
		for i, label := range o.Labels {
			Softmax(p, o.row(i), c.temperature)
			loss.Add(CrossEntropy(o.row(i), label, c.temperature))
			brier.Add(Brier(p, label))
			best := Argmax(o.row(i))
			if err := r.Add(p[best], best == label); err != nil {
				t.Fatal(err)
			}
		}
		near(t, "cross-entropy", loss.Mean, c.nll)
		near(t, "ECE", r.ECE(), c.ece)
		if c.temperature != 1 {
			continue
		}
		near(t, "Brier score", brier.Mean, o.Brier)
		near(t, "MCE", r.MCE(), o.MCE)
		low, high := loss.Interval()
		near(t, "lower end", low, o.NLLInterval[0])
		near(t, "upper end", high, o.NLLInterval[1])
		for i, b := range r.Bins() {
			if b.Count != o.BinCounts[i] {
				t.Errorf("bin %d: %d predictions, want %d", i, b.Count, o.BinCounts[i])
			}
		}
	}
}

// SciPy's minimum is flat: its place is good to about the root of its value's
// precision, the value to all of it.
func TestTemperatureAgainstOracle(t *testing.T) {
	o := readOracle(t)
	got, err := FitTemperature(o.Values.Logits, o.Classes, o.Labels)
	if err != nil || math.Abs(got-o.Temperature) > 1e-6 {
		t.Errorf("temperature %v, %v, want %v", got, err, o.Temperature)
	}
	var loss Sample
	for i, label := range o.Labels {
		loss.Add(CrossEntropy(o.row(i), label, got))
	}
	near(t, "cross-entropy at it", loss.Mean, o.TemperatureNLL)
}

func TestCoverageAgainstOracle(t *testing.T) {
	o := readOracle(t)
	var c Coverage
	p := make([]float64, o.Classes)
	for i, label := range o.Labels {
		Softmax(p, o.row(i), 1)
		c.Add(slices.Max(p), Argmax(o.row(i)) == label)
	}
	near(t, "AURC", c.AURC(), o.AURC)
	points := map[int]CoveragePoint{}
	for _, point := range c.Curve(len(o.Labels)) {
		points[point.Answered] = point
	}
	for k, want := range o.AnsweredCorrect {
		n, _ := strconv.Atoi(k)
		if got := points[n]; got.Correct != want {
			t.Errorf("of the %d most confident %d are right, want %d", n, got.Correct, want)
		}
		if again := c.AtThreshold(points[n].Threshold); again != points[n] {
			t.Errorf("at threshold %v: %+v, on the curve %+v", points[n].Threshold, again, points[n])
		}
	}
	if got, ok := c.ForAccuracy(0.9); !ok || got.Answered != o.AnsweredAt90 {
		t.Errorf("90 %% accuracy with %d answers, %v, want %d", got.Answered, ok, o.AnsweredAt90)
	}
}

func TestPairedAgainstOracle(t *testing.T) {
	o := readOracle(t)
	if len(o.Paired) < 5 {
		t.Fatalf("%d pairs in the file", len(o.Paired))
	}
	for _, row := range o.Paired {
		a, b, n := int(row[0]), int(row[1]), int(row[2])
		p := Paired{Both: n - a - b, OnlyA: a, OnlyB: b}
		// Differences of logarithms of factorials lose digits: 1e4·ln 1e4 · 2⁻⁵³ ≈ 1e-11.
		if got := p.PValue(); math.Abs(got-row[3]) > 1e-10*row[3] {
			t.Errorf("%+v: p %v, want %v", p, got, row[3])
		}
		low, high := p.Interval()
		near(t, "lower end", low, row[4])
		near(t, "upper end", high, row[5])
		if mirrored := (Paired{p.Both, p.OnlyB, p.OnlyA, p.Neither}); mirrored.PValue() != p.PValue() || mirrored.Difference() != -p.Difference() {
			t.Errorf("%+v: not the same the other way round", p)
		}
	}
}
