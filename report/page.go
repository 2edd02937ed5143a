package report

import (
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/internal/digits"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/rundir"
)

// Page is everything that WritePage shows. What is nil or empty is said to be
// missing, with what would bring it.
type Page struct {
	Title   string // of the page: model and data
	Run     string // path of the run directory, as given
	Lead    string // a sentence or two: what was trained on what, and how good it is
	Made    time.Time
	Status  string // "finished", "in progress", "imported", …
	About   []Fact // what was trained on what
	Figures []Fact // headline figures, with Detail

	History rundir.History
	Steps   []Step // within the epochs; may be empty

	// Evaluation is what the figures about quality are of, EvaluationName its name
	// in the run directory; Others are the run's other ones.
	Evaluation     *evaluate.Summary
	EvaluationName string
	Others         []evaluate.Summary

	Examples        [][]Example // by class, in the order of Evaluation.PerClass
	Worst, Doubtful []Example
	Cropped         bool   // of the pictures with maps some lost their edges before the network saw them
	MissingPictures string // why there are no pictures, "" when there are
	// MissingNeighbours says why pictures have no neighbours, "" where they have them
	// or nobody asked for any.
	MissingNeighbours string
	EvaluateCommand   string // what makes an evaluation
	Network           model.Summary
	Speed             []Fact
	Receipt           []Fact
	Kernels           [][2]string // operation and implementation
	Commands, Config  string      // the command line, and config.json
	Notes             []string    // what a reader of the numbers must know
}

// Fact is a name with its value, and perhaps a remark.
type Fact struct{ Name, Value, Detail string }

// Step is a training step; Epoch is its position, so that 1 is the end of the
// first epoch.
type Step struct{ Epoch, Loss, LearningRate float64 }

// Example is a picture with what the network says about it.
type Example struct {
	Name      string
	Picture   []byte // PNG or JPEG
	Predicted string
	Truth     string
	Wrong     bool
	Small     bool // to be enlarged pixel by pixel
	// Chances are the most probable classes, and the true one.
	Chances []Chance
	// Maps are overlays that show where the evidence for a class lies.
	Maps []ExampleMap
	// Neighbours are the training images that the network finds most like it.
	Neighbours []ExampleNeighbour
}

// Chance is a class with its probability.
type Chance struct {
	Class       string
	Probability float64
	Truth       bool
}

// ExampleMap is the picture with a class activation map over it.
type ExampleMap struct {
	Picture []byte
	Class   string
	Truth   bool // it is the true class
	Empty   bool // there is no evidence for it
}

// ExampleNeighbour is a training image like the picture.
type ExampleNeighbour struct {
	Name    string
	Picture []byte
	Class   string
	Truth   bool // it is of the picture's true class
	Small   bool
	Cosine  float64 // of the angle between the features of the two
}

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"css":     func() template.CSS { return template.CSS(pageCSS) },
	"image":   dataURI,
	"percent": percentText,
	"chance":  chanceText,
	"number":  number,
	"count":   countText,
	"share":   func(n, of int) float64 { return share(n, of) },
	"inc":     func(i int) int { return i + 1 },
	"width":   func(p float64) string { return strconv.FormatFloat(100*min(1, max(0, p)), 'f', 1, 64) },
	"float":   func(f rundir.Float) float64 { return float64(f) },
	"shape": func(l model.Layer) string {
		return strings.Trim(strings.ReplaceAll(fmt.Sprint([]int(l.Output)), " ", "×"), "[]")
	},
	"bytes":   func(l model.Layer) string { return size(4 * int64(l.Output.Elements())) },
	"size":    size,
	"class":   func(s *evaluate.Summary, k int) string { return className(s.Classes, k) },
	"date":    func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") },
	"targets": distinctTargets,
	"nan":     func(f float64) bool { return math.IsNaN(f) },
	"tint":    tint, "wrongtint": wrongTint,
	"first": func(n int, p []evaluate.Pair) []evaluate.Pair { return p[:min(n, len(p))] },
	"averages": func(h rundir.History) bool {
		return slices.ContainsFunc(h, func(e rundir.Epoch) bool { return e.EMA != nil })
	},
	"average":  averageOf,
	"accuracy": accuracyChart, "loss": lossChart, "rate": rateChart,
	"reliability": reliabilityChart, "coverage": coverageChart,
	"heat": heatChart, "network": networkChart, "pooled": pooled,
}).Parse(pageHTML))

// WritePage writes the page: one HTML file that refers to nothing outside of
// itself. The same Page gives the same bytes.
func WritePage(w io.Writer, p Page) error {
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// dataURI is a picture inside the page. What is no picture is left out.
func dataURI(picture []byte) (template.URL, error) {
	kind := http.DetectContentType(picture)
	if kind != "image/png" && kind != "image/jpeg" {
		return "", fmt.Errorf("a picture is %s, want PNG or JPEG", kind)
	}
	return template.URL("data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(picture)), nil
}

func className(classes []string, k int) string {
	if k < 0 || k >= len(classes) {
		return "nothing"
	}
	return classes[k]
}

// percentText writes a share, such as "90.12 %".
func percentText(share float64) string {
	if math.IsNaN(share) {
		return "–"
	}
	return fmt.Sprintf("%.2f %%", 100*share)
}

// chanceText writes a probability, of which a small one is not 0.
func chanceText(p float64) string {
	if p > 0 && p < 0.00005 {
		return "< 0.01 %"
	}
	return percentText(p)
}

// distinctTargets leaves out accuracies that the threshold of a higher one brings.
func distinctTargets(all []evaluate.CoverageTarget) []evaluate.CoverageTarget {
	var kept []evaluate.CoverageTarget
	for i, t := range all {
		if i+1 == len(all) || all[i+1].Answered != t.Answered {
			kept = append(kept, t)
		}
	}
	return kept
}

// number writes a value with about four digits.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case math.IsInf(v, 0):
		return "∞"
	case v == 0:
		return "0"
	case a >= 1000:
		return digits.Group(int64(math.Round(v)))
	case a < 1e-3:
		return strconv.FormatFloat(v, 'g', 3, 64)
	default:
		return strconv.FormatFloat(v, 'f', max(0, 3-int(math.Floor(math.Log10(a)))), 64)
	}
}

// countText is digits.Group for a template.
func countText(n any) (string, error) {
	switch n := n.(type) {
	case int:
		return digits.Group(n), nil
	case int64:
		return digits.Group(n), nil
	}
	return "", fmt.Errorf("count of a %T", n)
}

func share(n, of int) float64 {
	if of == 0 {
		return math.NaN()
	}
	return float64(n) / float64(of)
}

// size writes bytes in units of 1024.
func size(n int64) string {
	f, unit := digits.Binary(n, "B", "kB", "MB", "GB", "TB")
	if unit == "B" {
		return digits.Group(n) + " B"
	}
	return fmt.Sprintf("%.2f %s", f, unit)
}

// tint is how strongly a cell of the confusion matrix is coloured, in percent of
// the accent colour: at most 50, so that the ink on it keeps a contrast of 4.5:1
// in both themes. The root lets rare confusions be seen.
func tint(n, of int) string {
	if n == 0 || of == 0 {
		return "0"
	}
	return strconv.FormatFloat(50*math.Sqrt(share(n, of)), 'f', 1, 64)
}

// wrongTint is tint for mistakes: twice as strong, so that one in a hundred is seen
// on a dark page too, and as strong as it gets from a quarter on.
func wrongTint(n, of int) string { return tint(min(4*n, of), of) }
