package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/rundir"
)

// samplePage has everything a page can have, with names that would break markup
// which does not escape them.
func samplePage(t *testing.T, classes int) Page {
	t.Helper()
	network, err := model.Named("resnet20", model.Torch, 32, 32, 3, classes)
	if err != nil {
		t.Fatal(err)
	}
	summary, err := network.Summarize()
	if err != nil {
		t.Fatal(err)
	}
	s := &evaluate.Summary{Data: "shapes", Split: "test", Images: 10 * classes, Engine: "cpu/avx2"}
	for k := range classes {
		name := fmt.Sprintf(`class %d <b>&"'`, k)
		row := make([]int, classes)
		row[k], row[(k+1)%classes] = 8, 2
		s.Classes, s.Confusion = append(s.Classes, name), append(s.Confusion, row)
		s.PerClass = append(s.PerClass, evaluate.Class{Class: name, Index: k, Support: 10, Predicted: 10, Correct: 8, Precision: 0.8, Recall: 0.8,
			F1: rundir.Float(math.NaN()), RecallLow: 0.49, RecallHigh: 0.94})
		s.MostConfused = append(s.MostConfused, evaluate.Pair{Truth: k, Predicted: (k + 1) % classes, Count: 2, Share: 0.2})
	}
	s.Top1 = evaluate.Proportion{Value: 0.8, Low: 0.71, High: 0.87, Correct: 8 * classes, Images: 10 * classes}
	s.Calibration = evaluate.Calibration{Temperature: 1.25, ECE: 0.0314, Bins: []evaluate.Bin{
		{Low: 0, High: 0.5, Count: 0}, {Low: 0.5, High: 1, Count: 100, Correct: 80, Accuracy: 0.8, Confidence: 0.83, AccuracyLow: 0.7, AccuracyHigh: 0.87}}}
	s.Uncalibrated = &evaluate.Calibration{Temperature: 1, ECE: 0.06}
	s.Coverage = evaluate.Coverage{
		Points:  []evaluate.CoveragePoint{{Threshold: 0.9, Answered: 50, Correct: 48, Coverage: 0.5, Accuracy: 0.96, AccuracyLow: 0.9, AccuracyHigh: 0.99}, {Threshold: 0, Answered: 100, Correct: 80, Coverage: 1, Accuracy: 0.8, AccuracyLow: 0.7, AccuracyHigh: 0.87}},
		Targets: []evaluate.CoverageTarget{{Wanted: 0.95, CoveragePoint: evaluate.CoveragePoint{Threshold: 0.9, Coverage: 0.5, Accuracy: 0.96}}},
	}
	var small, photo bytes.Buffer
	if err := errors.Join(png.Encode(&small, image.NewNRGBA(image.Rect(0, 0, 3, 3))), jpeg.Encode(&photo, image.NewGray(image.Rect(0, 0, 8, 8)), nil)); err != nil {
		t.Fatal(err)
	}
	example := Example{Name: `a "name" <i>.png`, Picture: small.Bytes(), Truth: s.Classes[0], Predicted: s.Classes[1], Wrong: true, Small: true,
		Chances:    []Chance{{s.Classes[1], 0.9, false}, {s.Classes[0], 0.01, true}},
		Maps:       []ExampleMap{{photo.Bytes(), s.Classes[1], false, false}, {photo.Bytes(), s.Classes[0], true, true}},
		Neighbours: []ExampleNeighbour{{"<like>.png", small.Bytes(), s.Classes[0], true, true, 0.98765}, {"b.jpg", photo.Bytes(), s.Classes[1], false, false, 0.5}}}
	right := example
	right.Wrong, right.Predicted, right.Maps = false, right.Truth, right.Maps[:1]
	p := Page{
		Title: "resnet20 on <shapes>", Run: "runs/a b", Lead: "It is <good>.", Made: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), Status: "finished",
		About: []Fact{{"Data", "shapes", "generated"}}, Figures: []Fact{{"Accuracy", "80.00 %", "71.00 to 87.00"}},
		History: rundir.History{
			{Epoch: 1, Loss: 2, Accuracy: 0.3, ValLoss: 1.9, ValAccuracy: 0.35, LearningRate: 0.1, Seconds: 12, ImagesPerSecond: 900},
			{Epoch: 2, Loss: 1, Accuracy: 0.7, ValLoss: math.NaN(), ValAccuracy: math.NaN(), LearningRate: 0.05, Seconds: 11, ImagesPerSecond: 950}},
		Steps:      []Step{{0.5, 2.3, 0.1}, {1.5, 1.2, 0.07}, {2, math.Inf(1), 0.05}},
		Evaluation: s, EvaluationName: "shapes-test", Others: []evaluate.Summary{*s}, Worst: []Example{example}, Doubtful: []Example{right},
		Network: summary, Speed: []Fact{{"Training", "900 images/s", ""}}, Receipt: []Fact{{"Weights", "sha256:00", ""}},
		Kernels: [][2]string{{"conv", "igemm"}}, Commands: "residual train 'a b'", Config: `{"a": "<b>"}`, Notes: []string{"look <2>"},
	}
	for range classes {
		p.Examples = append(p.Examples, []Example{example, right})
	}
	return p
}

func write(t *testing.T, p Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := WritePage(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// element is an element of a page that was parsed, with all text below it.
type element struct {
	name     string
	attr     map[string]string
	text     string
	parent   *element
	children []*element
}

// parse reads a page and fails where elements are not closed in order.
func parse(t *testing.T, page string) (all []*element) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(page, "<!DOCTYPE html>")))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	at := &element{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the page is no HTML: %v", err)
		}
		switch x := token.(type) {
		case xml.StartElement:
			e := &element{name: x.Name.Local, attr: map[string]string{}, parent: at}
			for _, a := range x.Attr {
				name := a.Name.Local
				if a.Name.Space != "" {
					name = a.Name.Space + ":" + name
				}
				e.attr[name] = a.Value
			}
			at.children = append(at.children, e)
			all = append(all, e)
			at = e
		case xml.EndElement:
			if at.name != x.Name.Local {
				t.Fatalf("</%s> closes <%s>", x.Name.Local, at.name)
			}
			at.parent.text += at.text
			at = at.parent
		case xml.CharData:
			at.text += string(x)
		}
	}
	if at.parent != nil {
		t.Fatalf("<%s> is not closed", at.name)
	}
	return all
}

// What makes the page accessible and complete in itself: texts for pictures and
// drawings, captions, labels, headings in order, and not one reference outside.
func TestPageStructure(t *testing.T) {
	for name, p := range map[string]Page{
		"full": samplePage(t, 3), "many classes": samplePage(t, 40), "very many": samplePage(t, 300),
		"bare": {Title: "resnet20", Status: "imported", Network: samplePage(t, 3).Network, EvaluateCommand: "residual eval RUN"},
	} {
		page := write(t, p)
		all := parse(t, page)
		ids := map[string]bool{}
		for _, e := range all {
			if id, ok := e.attr["id"]; ok {
				if ids[id] {
					t.Errorf("%s: id %s twice", name, id)
				}
				ids[id] = true
			}
		}
		counts, heading := map[string]int{}, 0
		for _, e := range all {
			counts[e.name]++
			for _, a := range []string{"src", "href", "srcset", "action", "data", "xlink:href"} {
				v, ok := e.attr[a]
				if ok && !strings.HasPrefix(v, "#") && !(a == "src" && strings.HasPrefix(v, "data:image/")) {
					t.Errorf("%s: <%s %s=%.60q> refers to something outside of the page", name, e.name, a, v)
				}
				if strings.HasPrefix(v, "#") && !ids[v[1:]] {
					t.Errorf("%s: %s leads nowhere", name, v)
				}
			}
			for _, a := range []string{"aria-labelledby", "aria-describedby"} {
				for _, id := range strings.Fields(e.attr[a]) {
					if !ids[id] {
						t.Errorf("%s: %s of <%s> names %s, which does not exist", name, a, e.name, id)
					}
				}
			}
			has := func(child string) bool {
				return slices.ContainsFunc(e.children, func(c *element) bool { return c.name == child && strings.TrimSpace(c.text) != "" })
			}
			switch e.name {
			case "script", "link", "iframe", "object", "embed", "form":
				t.Errorf("%s: the page has a <%s>", name, e.name)
			case "img":
				if strings.TrimSpace(e.attr["alt"]) == "" {
					t.Errorf("%s: a picture has no alt", name)
				}
			case "svg":
				if e.attr["role"] != "img" || e.attr["aria-labelledby"] == "" || !has("title") || !has("desc") {
					t.Errorf("%s: a drawing without role, title or description: %v", name, e.attr)
				}
			case "table":
				if !has("caption") {
					t.Errorf("%s: a table without caption", name)
				}
			case "th":
				if e.attr["scope"] == "" {
					t.Errorf("%s: heading %q of a table has no scope", name, e.text)
				}
			case "section":
				if e.attr["aria-labelledby"] == "" {
					t.Errorf("%s: section %s has no label", name, e.attr["id"])
				}
			case "h1", "h2", "h3", "h4":
				level := int(e.name[1] - '0')
				if level > heading+1 || strings.TrimSpace(e.text) == "" {
					t.Errorf("%s: heading %q of level %d after level %d", name, e.text, level, heading)
				}
				heading = level
			}
			if e.attr["role"] == "region" && (e.attr["tabindex"] != "0" || e.attr["aria-label"] == "") {
				t.Errorf("%s: a part that scrolls cannot be reached by keyboard: %v", name, e.attr)
			}
		}
		if counts["h1"] != 1 || counts["main"] != 1 || counts["h2"] < 10 || counts["html"] != 1 || !strings.Contains(page, `<html lang="en">`) {
			t.Errorf("%s: elements %v", name, counts)
		}
		want := map[string]int{"full": 6, "many classes": 7, "very many": 6, "bare": 1}[name]
		if counts["svg"] != want {
			t.Errorf("%s: %d drawings, want %d", name, counts["svg"], want)
		}
		for _, bad := range []string{"http:", "https:", "url(", "@import", "ZgotmplZ", "NaN", "%!"} {
			if strings.Contains(page, bad) {
				t.Errorf("%s: the page contains %q", name, bad)
			}
		}
	}
}

// What the page says, and what of it is escaped.
func TestPageContent(t *testing.T) {
	p := samplePage(t, 3)
	page := write(t, p)
	if again := write(t, p); again != page {
		t.Error("the same page has other bytes the second time")
	}
	for text, n := range map[string]int{
		"<h1>resnet20 on &lt;shapes&gt;</h1>": 1, "prefers-color-scheme: dark": 1, "@media print": 1,
		"without a temperature 6.00 %": 1, "<td class=\"n right\" style=\"--tint:44.7%\">8</td>": 3, // 50·√0.8
		"none for <b>": 1, "<td class=\"n\">80.00 %</td><td class=\"n\">80.00 %</td><td class=\"n\">49.00 % to 94.00 %</td>": 3, "data:image/png;base64,": 10, "data:image/jpeg;base64,": 5,
		`title="&lt;like&gt;.png: cosine 0.9877"`: 2, `<span class="yes">class 0`: 2,
		"look &lt;2&gt;": 1, "269,": 1, "<b>&\"": 0, "<i>": 0,
	} {
		if got := strings.Count(page, text); got != n {
			t.Errorf("%q is there %d times, want %d", text, got, n)
		}
	}
	if cut := "Dark edges were cut off"; strings.Contains(page, cut) {
		t.Errorf("%q without cropping", cut)
	} else if p.Cropped = true; !strings.Contains(write(t, p), cut) {
		t.Errorf("%q is not there with cropping", cut)
	}
	averaged := samplePage(t, 3)
	averaged.History[1].EMA = &rundir.Scores{ValLoss: 0.8765, ValAccuracy: 0.7654}
	withAverage := write(t, averaged)
	for text, n := range map[string]int{
		"of the moving average</span>": 2, "<td class=\"n\">76.54 %</td>": 1, `class="mark average"`: 2, "Average’s accuracy": 1,
		"That of the moving average of the weights goes from 76.54 %": 1,
	} {
		if got := strings.Count(withAverage, text); got != n || strings.Contains(page, text) {
			t.Errorf("with a moving average %q is there %d times, want %d, and without one %v", text, got, n, strings.Contains(page, text))
		}
	}
	if strings.Contains(withAverage, "NaN") {
		t.Error("an epoch without average shows NaN")
	}
	if rows := strings.Count(withAverage, "<tr><th scope=\"row\" class=\"n\">"); rows < 2 {
		t.Errorf("%d epochs in the table", rows)
	}
	if none := "There are no training images beside them"; strings.Contains(page, none) {
		t.Errorf("%q beside such images", none)
	} else if p.MissingNeighbours = "the <data> are gone"; !strings.Contains(write(t, p), none+": the &lt;data&gt; are gone.") {
		t.Errorf("%q is not there", none)
	}
	bare := write(t, Page{Title: "resnet20", Status: "imported", Network: p.Network, EvaluateCommand: "residual eval RUN DATA"})
	if strings.Count(bare, "residual eval RUN DATA") != 5 || !strings.Contains(bare, "trained elsewhere and imported") {
		t.Error("a page without history and evaluation does not say so in each of its sections")
	}
	if err := WritePage(io.Discard, Page{Worst: []Example{{Picture: []byte("<svg onload=x>")}}, Evaluation: p.Evaluation, Network: p.Network}); err == nil {
		t.Error("a picture that is none was put into the page")
	}
}

// The drawing of a stage with many blocks has the first three and the last, counts
// the others (of 8 and 36), and says all in words.
func TestNetworkChart(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"resnet20", "Stage layer2 has 3 basic blocks and ends with 16×16×32"},
		{"resnet152", "4 more"}, {"resnet152", "32 more"}, {"resnet50", "a 7×7 convolution with stride 2"}, {"resnet9", "3×3, 2×2 max-pool"},
		{"resnet8w", "a 2×2 convolution that whitens them. Stage layer1 has a 3×3 convolution, a 2×2 max-pool and 1 single block and"},
	} {
		size := 32
		if c.name != "resnet20" && c.name != "resnet9" && c.name != "resnet8w" {
			size = 224
		}
		m, err := model.Named(c.name, model.Torch, size, size, 3, 10)
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.Summarize()
		if err != nil {
			t.Fatal(err)
		}
		got := string(networkChart(s))
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %q is not in the drawing", c.name, c.want)
		}
		if strings.Contains(got, "option B") == pooled(m) && m.Shortcut == model.Projection {
			t.Errorf("%s: shortcuts of option B: %s", c.name, networkText(s))
		}
		if n := strings.Count(got, `class="shortcut `); n == 0 || n > 4*len(m.Blocks) {
			t.Errorf("%s: %d shortcuts", c.name, n)
		}
	}
}

var variable = regexp.MustCompile(`--([a-z]+): #([0-9a-f]{6});`)

// Text has the contrast that WCAG 2.2 level AA asks for, 4.5:1, on all grounds it
// stands on, in both themes; lines of figures have 3:1.
func TestContrast(t *testing.T) {
	light, rest, ok := strings.Cut(pageCSS, "@media (prefers-color-scheme: dark)")
	dark, _, ok2 := strings.Cut(rest, "* { box-sizing")
	if !ok || !ok2 {
		t.Fatal("page.css has no dark theme")
	}
	for theme, css := range map[string]string{"light": light, "dark": dark} {
		colors := map[string][3]float64{}
		for _, m := range variable.FindAllStringSubmatch(css, -1) {
			v, err := strconv.ParseUint(m[2], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			colors[m[1]] = [3]float64{float64(v >> 16), float64(v >> 8 & 255), float64(v & 255)}
		}
		if len(colors) != 11 {
			t.Fatalf("%s: %d colours", theme, len(colors))
		}
		mix := func(a string, share float64, b string) (c [3]float64) {
			for i := range c {
				c[i] = share*colors[a][i] + (1-share)*colors[b][i]
			}
			return c
		}
		for _, c := range []struct {
			what   string
			ink    string
			ground [3]float64
			least  float64
		}{
			{"text", "ink", colors["bg"], 4.5}, {"text", "ink", colors["panel"], 4.5}, {"text in a box", "ink", colors["box"], 4.5},
			{"soft text", "soft", colors["bg"], 4.5}, {"soft text", "soft", colors["panel"], 4.5}, {"links", "accent", colors["bg"], 4.5},
			{"right", "good", colors["panel"], 4.5}, {"wrong", "bad", colors["panel"], 4.5},
			{"the diagonal", "ink", mix("training", 0.5, "panel"), 4.5}, {"a confusion", "ink", mix("validation", 0.5, "panel"), 4.5},
			{"a bar", "ink", mix("training", 0.3, "bg"), 4.5}, {"the true bar", "ink", mix("good", 0.35, "bg"), 4.5},
			{"a line", "training", colors["bg"], 3}, {"a line", "validation", colors["bg"], 3}, {"a frame", "bad", colors["bg"], 3},
		} {
			if got := wcagContrast(colors[c.ink], c.ground); got < c.least {
				t.Errorf("%s: %s (%s) has contrast %.2f, want %.1f", theme, c.what, c.ink, got, c.least)
			}
		}
	}
}

// wcagContrast is that of WCAG 2.2.
func wcagContrast(a, b [3]float64) float64 {
	luminance := func(c [3]float64) float64 {
		sum := 0.0
		for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
			v := c[i] / 255
			if v <= 0.04045 {
				v /= 12.92
			} else {
				v = math.Pow((v+0.055)/1.055, 2.4)
			}
			sum += weight * v
		}
		return sum
	}
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.1: "0.1000", 12.3456: "12.35", 1234.5: "1,235", 0.00012345: "0.000123", -45678: "-45,678"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
	if number(math.NaN()) != "–" || number(math.Inf(1)) != "∞" || percentText(math.NaN()) != "–" || size(1536) != "1.50 kB" || size(999) != "999 B" {
		t.Error("numbers are written in another way")
	}
}

func TestSmallChances(t *testing.T) {
	for p, want := range map[float64]string{0: "0.00 %", 1e-9: "< 0.01 %", 0.00004: "< 0.01 %", 0.00005: "0.01 %", 0.5: "50.00 %", 1: "100.00 %"} {
		if got := chanceText(p); got != want {
			t.Errorf("chanceText(%g) is %q, want %q", p, got, want)
		}
	}
}

// A threshold that serves several accuracies is shown once, for the highest.
func TestDistinctTargets(t *testing.T) {
	target := func(wanted float64, answered int) evaluate.CoverageTarget {
		return evaluate.CoverageTarget{Wanted: wanted, CoveragePoint: evaluate.CoveragePoint{Answered: answered}}
	}
	got := distinctTargets([]evaluate.CoverageTarget{target(0.9, 13), target(0.95, 8), target(0.98, 8), target(0.99, 8), target(0.999, 5)})
	want := []evaluate.CoverageTarget{target(0.9, 13), target(0.99, 8), target(0.999, 5)}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := distinctTargets(nil); len(got) != 0 {
		t.Errorf("of none: %+v", got)
	}
}

func TestTint(t *testing.T) {
	for _, c := range []struct {
		n, of        int
		right, wrong string
	}{{0, 10, "0", "0"}, {3, 0, "0", "0"}, {1, 100, "5.0", "10.0"}, {4, 100, "10.0", "20.0"}, {25, 100, "25.0", "50.0"}, {100, 100, "50.0", "50.0"}} {
		if got := tint(c.n, c.of); got != c.right {
			t.Errorf("tint(%d, %d) is %s, want %s", c.n, c.of, got, c.right)
		}
		if got := wrongTint(c.n, c.of); got != c.wrong {
			t.Errorf("wrongTint(%d, %d) is %s, want %s", c.n, c.of, got, c.wrong)
		}
	}
}
