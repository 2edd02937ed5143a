package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/golden"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/digits"
	"github.com/residual-ml/residual/tensor"
)

// Parameter counts and multiply-accumulates: of PyTorch, torchvision and timm for
// every network in golden/torch_counts.json, which is every name; the tutorial's from
// Keras (golden/keras_summary.txt). He et al. 2015, table 6, has the same in millions.
func TestCounts(t *testing.T) {
	type count struct {
		size, classes    int
		parameters, macs int64 // trainable
	}
	counts := map[string][]count{
		"resnet18": {{32, 10, 11_173_962, 555_422_720}},
	}
	for name, c := range golden.Load(t, "torch_counts").Counts {
		counts[name] = append(counts[name], count{c.Size, c.Classes, c.Parameters, c.MACs})
	}
	for _, name := range Names() {
		if counts[name] == nil {
			t.Errorf("%s is not counted", name)
		}
	}
	for name, millions := range map[string]string{"resnet20": "0.27", "resnet32": "0.46", "resnet44": "0.66", "resnet56": "0.85", "resnet110": "1.7"} {
		if got := fmt.Sprintf("%.2f", float64(counts[name][0].parameters)/1e6); !strings.HasPrefix(got, millions) {
			t.Errorf("%s has %s million parameters, the paper %s", name, got, millions)
		}
	}
	for name, wants := range counts {
		for _, want := range wants {
			cfg, err := Named(name, Torch, want.size, want.size, 3, want.classes)
			if err != nil {
				t.Fatal(err)
			}
			s, err := cfg.Summarize()
			if err != nil {
				t.Fatal(err)
			}
			if s.Trainable != want.parameters {
				t.Errorf("%s at %d: %d trainable parameters, want %d", name, want.size, s.Trainable, want.parameters)
			}
			if s.MACs != want.macs {
				t.Errorf("%s at %d: %d multiply-accumulates, want %d", name, want.size, s.MACs, want.macs)
			}
		}
	}
}

// The tutorial's totals, to the digit (11,183,562 = 11,173,962 + 9,600).
func TestTutorialSummary(t *testing.T) {
	cfg, err := Named("resnet18", Keras, 32, 32, 3, 10)
	if err != nil {
		t.Fatal(err)
	}
	s, err := cfg.Summarize()
	if err != nil {
		t.Fatal(err)
	}
	if s.Parameters != 11_183_562 || s.Trainable != 11_173_962 || s.NonTrainable != 9_600 {
		t.Errorf("totals %d = %d + %d", s.Parameters, s.Trainable, s.NonTrainable)
	}
	var text, expanded strings.Builder
	if err := errors.Join(s.WriteText(&text, false), s.WriteText(&expanded, true)); err != nil {
		t.Fatal(err)
	}
	for file, got := range map[string]string{
		"testdata/summary_tutorial.txt":          text.String(),
		"testdata/summary_tutorial_expanded.txt": expanded.String(),
		"testdata/summary_tutorial.mmd":          mermaid(t, s),
	} {
		if os.Getenv("RESIDUAL_UPDATE") != "" {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v; run: RESIDUAL_UPDATE=1 go test ./model", err)
		}
		if got != string(want) {
			t.Errorf("%s differs; got:\n%s", file, got)
		}
	}
}

// The rows of Keras's own table, model.summary(expand_nested=True), in
// golden/keras_summary_nested.txt: of each residual block the total, the output
// shape, and the parameters of every layer that has any.
func TestSummaryAgainstKeras(t *testing.T) {
	cfg, _ := Named("resnet18", Keras, 32, 32, 3, 10)
	s, err := cfg.Summarize()
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, g := range s.groups() {
		block := g.sum(cfg)
		if g.name != "" {
			ours = append(ours, "ResnetBlock "+keras(block))
		}
		var layers []string // Keras lists the shortcut's after the others
		for _, l := range g.layers {
			if l.Parameters > 0 {
				layers = append(layers, keras(l))
			}
		}
		slices.Sort(layers)
		ours = append(ours, layers...)
	}

	var theirs, layers []string
	flush := func() {
		slices.Sort(layers)
		theirs = append(theirs, layers...)
		layers = nil
	}
	row := regexp.MustCompile(`│ *(└ )?(\w+).*│ \(None((?:, \d+)+)\) *│ *([\d,]+) │`)
	for _, m := range row.FindAllStringSubmatch(golden.Text(t, "keras_summary_nested.txt"), -1) {
		name, shape, params := m[2], m[3], m[4]
		switch {
		case params == "0" || name == "sequential":
		case strings.HasPrefix(name, "resnet_block"):
			flush()
			theirs = append(theirs, "ResnetBlock"+shape+" "+params)
		case m[1] == "":
			flush()
			theirs = append(theirs, strings.TrimPrefix(shape, ", ")+" "+params)
		default:
			layers = append(layers, strings.TrimPrefix(shape, ", ")+" "+params)
		}
	}
	flush()
	for i := range theirs {
		theirs[i] = strings.Replace(theirs[i], "ResnetBlock, ", "ResnetBlock ", 1)
	}
	if len(theirs) < 40 || !slices.Equal(ours, theirs) {
		t.Errorf("ours:\n%s\nKeras:\n%s", strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
	}
}

// keras writes a layer as "32, 32, 64 36,864".
func keras(l Layer) string {
	shape := strings.Trim(strings.ReplaceAll(l.Output.String(), ",", ", "), "[]")
	return shape + " " + digits.Group(l.Parameters)
}

func mermaid(t *testing.T, s Summary) string {
	var b strings.Builder
	if err := s.WriteMermaid(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestOrderOfAxes(t *testing.T) {
	w := tensor.New(tensor.Float32, 2, 3, 4, 5) // [KH,KW,C,OC]
	for i := range w.Float32s() {
		w.Float32s()[i] = float32(i)
	}
	file := ToFile(w)
	if !file.Shape().Equal(tensor.Shape{5, 4, 2, 3}) {
		t.Fatalf("file shape %v, want [OC,C,KH,KW] = [5,4,2,3]", file.Shape())
	}
	// Element [oc=4, c=1, kh=1, kw=2] of the file is [1,2,1,4] of the graph.
	if got, want := file.Float32s()[((4*4+1)*2+1)*3+2], w.Float32s()[((1*3+2)*4+1)*5+4]; got != want {
		t.Errorf("element is %v, want %v", got, want)
	}
	if back := FromFile(file); !back.Shape().Equal(w.Shape()) || !slices.Equal(back.Float32s(), w.Float32s()) {
		t.Error("FromFile does not undo ToFile")
	}
	d := tensor.Of([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	if got := ToFile(d); !slices.Equal(got.Float32s(), []float32{1, 4, 2, 5, 3, 6}) || !slices.Equal(FromFile(got).Float32s(), d.Float32s()) {
		t.Errorf("dense kernel becomes %v", got.Float32s())
	}
}

func TestBothModesBuildForEveryName(t *testing.T) {
	for _, name := range Names() {
		for _, convention := range []Convention{Keras, Torch} {
			for _, size := range []int{32, 96} {
				cfg, err := Named(name, convention, size, size, 3, 7)
				if err != nil {
					t.Fatal(err)
				}
				for _, training := range []bool{true, false} {
					b := graph.NewBuilder()
					net := cfg.Build(b, b.Input("images", graph.Real, 2, size, size, 3), training)
					g, err := b.Build(net.Logits)
					if err != nil {
						t.Fatalf("%s %s %d: %v", name, convention, size, err)
					}
					if (len(g.Updates) > 0) != training {
						t.Errorf("%s: %d updates when training is %v", name, len(g.Updates), training)
					}
				}
			}
		}
	}
}

// Initial values have the deviation their distribution promises, and do not
// depend on anything but seed and name.
func TestInitial(t *testing.T) {
	cfg, _ := Named("resnet18", Keras, 32, 32, 3, 10)
	b := graph.NewBuilder()
	cfg.Build(b, b.Input("images", graph.Real, 1, 32, 32, 3), false)
	for _, v := range b.Variables(graph.Parameter) {
		a, again, other := Initial(v, 1).Float32s(), Initial(v, 1).Float32s(), Initial(v, 2).Float32s()
		if !slices.Equal(a, again) {
			t.Fatalf("%s: two draws differ", v.Name)
		}
		if v.Variable.Init.Kind != graph.GlorotUniform {
			continue
		}
		if slices.Equal(a, other) {
			t.Errorf("%s: the seed does not matter", v.Name)
		}
		var square float64
		for _, x := range a {
			square += float64(x) * float64(x) / float64(len(a))
		}
		// The variance of ±√(6/(in+out)) is 2/(in+out).
		if want := 2 / float64(v.Variable.Init.FanIn+v.Variable.Init.FanOut); square < 0.9*want || square > 1.1*want {
			t.Errorf("%s: variance %.3g, want %.3g", v.Name, square, want)
		}
	}
}

func TestCheck(t *testing.T) {
	if _, err := Named("resnet19", Keras, 32, 32, 3, 10); err == nil {
		t.Error("resnet19 exists")
	}
	good, _ := Named("resnet18", Keras, 32, 32, 3, 10)
	for field, broken := range map[string]func(c *Config){
		"convention": func(c *Config) { c.Convention = "" },
		"blocks":     func(c *Config) { c.Blocks = nil },
		"filters":    func(c *Config) { c.Filters = 0 },
		"classes":    func(c *Config) { c.Classes = 1 },
		"shortcut":   func(c *Config) { c.Block, c.Shortcut = Bottleneck, PadShortcut },
		"image size": func(c *Config) { c.Height = 0 },
		"norm":       func(c *Config) { c.Norm = "layer" },
		"epsilon":    func(c *Config) { c.Epsilon = -1e-5 },
	} {
		c := good
		broken(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v", field, err)
		}
		b := graph.NewBuilder()
		c.Build(b, b.Input("images", graph.Real, 1, 32, 32, 3), true)
		if b.Err() == nil {
			t.Errorf("%s: Build accepts it", field)
		}
	}
}

// ResNet-18 has 20 convolutions with 4,800 filters in all, each with a batch
// normalisation: biases add 4,800 parameters, leaving normalisation out takes
// away 9,600 that are trained and 9,600 that are not. The sum is what Keras
// prints for such a network with use_bias=True.
func TestBiasesAndNorm(t *testing.T) {
	for _, c := range []struct {
		norm                     Norm
		bias                     bool
		trainable, nonTrainable  int64
		layers                   int
		hasBias, hasNorm, update bool
	}{
		{"", false, 11_173_962, 9_600, 68, false, true, true},
		{BatchNorm, true, 11_173_962 + 4_800, 9_600, 68, true, true, true},
		{NoNorm, true, 11_173_962 - 9_600 + 4_800, 0, 48, true, false, false},
		{NoNorm, false, 11_173_962 - 9_600, 0, 48, false, false, false},
	} {
		cfg, _ := Named("resnet18", Keras, 32, 32, 3, 10)
		cfg.Norm, cfg.ConvBias = c.norm, c.bias
		s, err := cfg.Summarize()
		if err != nil {
			t.Fatal(err)
		}
		if s.Trainable != c.trainable || s.NonTrainable != c.nonTrainable || len(s.Layers) != c.layers {
			t.Errorf("norm %q, bias %v: %d trainable, %d others, %d layers, want %d, %d, %d",
				c.norm, c.bias, s.Trainable, s.NonTrainable, len(s.Layers), c.trainable, c.nonTrainable, c.layers)
		}
		b := graph.NewBuilder()
		net := cfg.Build(b, b.Input("images", graph.Real, 2, 32, 32, 3), true)
		g, err := b.Build(net.Logits)
		if err != nil {
			t.Fatal(err)
		}
		bias, norm := g.Variable("layer2.0.downsample.0.bias"), g.Variable("layer2.0.downsample.1.weight")
		if (bias != nil) != c.hasBias || (norm != nil) != c.hasNorm || (len(g.Updates) > 0) != c.update {
			t.Errorf("norm %q, bias %v: bias %v, norm %v, %d updates", c.norm, c.bias, bias, norm, len(g.Updates))
		}
		if bias != nil && (!bias.Shape.Equal(tensor.Shape{128}) || bias.Variable.Decay) {
			t.Errorf("bias has shape %v, decay %v", bias.Shape, bias.Variable.Decay)
		}
	}
}

// An ε of its own reaches every batch normalisation; configurations written
// before the field existed, and by networks that do not use it, have none.
func TestEpsilon(t *testing.T) {
	cfg, _ := Named("resnet20", Torch, 32, 32, 3, 10)
	if text, _ := json.Marshal(cfg); strings.Contains(string(text), "epsilon") || strings.Contains(string(text), "norm") || strings.Contains(string(text), "bias") {
		t.Errorf("a plain network is stored with %s", text)
	}
	cfg.Epsilon = 2e-5 // caffe's and MXNet's
	g, err := cfg.Graph(1)
	if err != nil {
		t.Fatal(err)
	}
	norms := 0
	for _, n := range g.Nodes {
		if n.Op == graph.OpBatchNorm {
			norms++
			if n.Norm.Epsilon != 2e-5 {
				t.Errorf("%v: epsilon %v", n, n.Norm.Epsilon)
			}
		}
	}
	if norms != 19 {
		t.Errorf("%d batch normalisations, want 19", norms)
	}
}

// TestStrideFirst has the paper's ResNet-50, as keras.applications builds it: with
// biases 25,636,712 parameters (https://keras.io/api/applications), and 3.8 G
// multiply-adds (He et al. 2015, table 1) where the stride in the 3×3 costs 4.09 G
// (torchvision's documentation of ResNet50_Weights).
func TestStrideFirst(t *testing.T) {
	c, err := Named("resnet50", Torch, 224, 224, 3, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		first bool
		macs  float64 // within half of the last digit, or above by less than one
		above float64
	}{{true, 3.8e9, 0.1e9}, {false, 4.085e9, 0.01e9}} {
		c.StrideFirst, c.ConvBias = x.first, true
		s, err := c.Summarize()
		if err != nil {
			t.Fatal(err)
		}
		if total := s.Trainable + s.NonTrainable; total != 25_636_712 {
			t.Errorf("stride first %v: %d parameters, want 25,636,712", x.first, total)
		}
		if got := float64(s.MACs); got < x.macs || got > x.macs+x.above {
			t.Errorf("stride first %v: %.4g multiply-adds, want %.4g", x.first, got, x.macs)
		}
	}
	c.Block = Basic
	if c.StrideFirst = true; c.Check() == nil {
		t.Error("a basic block has no first 1×1")
	}
}
