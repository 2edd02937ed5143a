package explain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/golden"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/tensor"
	"github.com/residual-ml/residual/train"
)

func cpuEngine(t *testing.T) engine.Engine {
	t.Helper()
	eng, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	return eng
}

// setFormula fills vars with the golden files' weights.
func setFormula(t *testing.T, vars engine.Variables, g *graph.Graph) {
	t.Helper()
	for _, v := range g.Variables {
		shape := model.ToFile(tensor.New(tensor.Float64, v.Shape...)).Shape()
		value := model.FromFile(tensor.Of(golden.Weight(v.Name, shape), shape...))
		if err := vars.Set(v.Name, value); err != nil {
			t.Fatal(err)
		}
	}
}

// Maps of both methods at every stage against pytorch-grad-cam, in float64. A map
// is float32, so rounding alone is 2⁻²⁴ to 2⁻²³ of a value: engine/ref is found at
// 1.0e-7. engine/cpu computes in float32 and is found at 1.7e-6.
func TestAgainstPyTorch(t *testing.T) {
	engines := map[string]struct {
		engine engine.Engine
		limit  float64
	}{"ref": {ref.New(), 1.2e-7}, "cpu": {cpuEngine(t), 1e-5}}
	for _, file := range []string{"torch_cam_resnet20", "torch_cam_resnet18"} {
		f := golden.Load(t, file)
		n := f.Network
		m := model.Config{Name: "golden", Convention: model.Convention(n.Convention), Height: n.Height, Width: n.Width, Channels: 3,
			Classes: n.Classes, Stem: model.Stem(n.Stem), Block: model.Block(n.Block), Shortcut: model.Shortcut(n.Shortcut), Blocks: n.Blocks, Filters: n.Filters}
		classes := make([]int32, n.Batch)
		for i, c := range f.Values["classes"] {
			classes[i] = int32(c)
		}
		for name, e := range engines {
			if name == "ref" && file == "torch_cam_resnet18" && testing.Short() {
				continue // half a minute
			}
			compared := 0
			for stage := range n.Blocks {
				layer := "layer" + string(rune('1'+stage))
				g, err := mapGraph(m, n.Batch, layer)
				if err != nil {
					t.Fatal(err)
				}
				vars := e.engine.NewVariables()
				setFormula(t, vars, g)
				p, err := e.engine.Compile(g, vars)
				if err != nil {
					t.Fatal(err)
				}
				images := tensor.Of(n.Images(0), n.Batch, n.Height, n.Width, 3)
				if name == "cpu" {
					images = images.Convert(tensor.Float32)
				}
				out, err := p.Run(t.Context(), images, tensor.Of(classes, n.Batch))
				if err != nil {
					t.Fatal(err)
				}
				for _, method := range Methods() {
					want, ok := f.Values[string(method)+"/"+layer]
					if !ok {
						continue
					}
					compared++
					var got []float64
					for _, m := range maps(out[0], out[1], method) {
						for _, v := range m.Values {
							got = append(got, float64(v))
						}
					}
					worst := golden.CheckValues(t, file+"/"+name+" "+string(method)+" "+layer, got, want, e.limit)
					t.Logf("%s %s %s %s: %.1e", file, name, method, layer, worst)
				}
				p.Close()
			}
			if compared < 5 {
				t.Errorf("%s: %d maps compared", file, compared)
			}
		}
	}
}

// tiny is an Explainer of an untrained network for 12×12 pictures.
func tiny(t *testing.T, e engine.Engine) *Explainer {
	t.Helper()
	adam, err := optim.Named("adam")
	if err != nil {
		t.Fatal(err)
	}
	c := train.Config{
		Model: model.Config{Name: "tiny", Convention: model.Torch, Height: 12, Width: 12, Channels: 3, Classes: 3,
			Stem: model.SmallStem, Block: model.Basic, Shortcut: model.Projection, Blocks: []int{1, 1}, Filters: 4},
		Classes:    []string{"a", "b", "c"},
		Preprocess: loader.Preprocess{Height: 12, Width: 12, Channels: 3, Resize: loader.Crop, Scale: 1.0 / 255},
		Optimizer:  adam, Schedule: optim.Schedule{Name: "constant"}, Epochs: 1, BatchSize: 4,
		Monitor: train.MonitorLoss, OnNaN: train.Stop, OnSaveError: train.Stop,
	}
	run, err := rundir.Create(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	if err := run.WriteConfig(c); err != nil {
		t.Fatal(err)
	}
	g, err := c.Model.Graph(1)
	if err != nil {
		t.Fatal(err)
	}
	var weights rundir.Checkpoint
	for _, v := range g.Variables {
		shape := model.ToFile(tensor.New(tensor.Float64, v.Shape...)).Shape()
		weights.Weights = append(weights.Weights, safetensors.Named{Name: v.Name, Tensor: tensor.Of(golden.Weight(v.Name, shape), shape...).Convert(tensor.Float32)})
	}
	if err := run.SaveCheckpoint("last", weights); err != nil {
		t.Fatal(err)
	}
	classifier, err := classify.Open(run.Path(), e)
	if err != nil {
		t.Fatal(err)
	}
	x := New(classifier)
	t.Cleanup(func() {
		if err := errors.Join(x.Close(), classifier.Close()); err != nil {
			t.Error(err)
		}
	})
	return x
}

// noise is a data set of pictures of random bytes.
type noise struct{ n, height, width int }

func (d noise) Len() int          { return d.n }
func (d noise) Label(i int) int   { return i % 3 }
func (d noise) Name(i int) string { return "noise" }
func (d noise) Image(i int, dst *dataset.Image) error {
	*dst = dataset.Image{Height: d.height, Width: d.width, Channels: 3}
	for k := range d.height * d.width * 3 {
		v := golden.Value("picture "+string(rune('a'+i)), k)
		dst.Pix = append(dst.Pix, uint8(127+127*v))
	}
	return nil
}

func (d noise) pictures(t *testing.T) []dataset.Image {
	t.Helper()
	all := make([]dataset.Image, d.n)
	for i := range all {
		if err := d.Image(i, &all[i]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// What the map promises, by the definition: the logit of a class rises with the
// activation of the last stage by Grad-CAM's weights. With a global average pool
// those are the dense kernel's column over the number of pixels, so before its
// positive part is taken the map sums to the logit without the bias.
func TestGradCAMSumsToTheLogit(t *testing.T) {
	x := tiny(t, cpuEngine(t))
	pictures := noise{2, 12, 12}.pictures(t)
	found, err := x.Explain(t.Context(), pictures, Options{Classes: []int{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	bias, err := x.Variables().Get("fc.bias")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := x.Variables().Get("fc.weight")
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range found {
		if e.Layer != "layer2" || e.Method != GradCAM || e.Map.Height != 6 || e.Map.Width != 6 {
			t.Fatalf("explanation of %s by %s, %d×%d", e.Layer, e.Method, e.Map.Height, e.Map.Width)
		}
		g, err := mapGraph(x.Config().Model, len(pictures), "layer2")
		if err != nil {
			t.Fatal(err)
		}
		p, err := x.Engine().Compile(g, x.Variables())
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.Run(t.Context(), x.Prepare(pictures), tensor.Of([]int32{1, 2}, 2))
		if err != nil {
			t.Fatal(err)
		}
		activation := out[0].Float32s()[i*36*8 : (i+1)*36*8]
		logit := float64(bias.Float32s()[e.Class])
		for at, want := range e.Map.Values {
			sum := 0.0
			for c := range 8 {
				sum += float64(activation[at*8+c]) * float64(kernel.Float32s()[c*3+e.Class]) / 36
			}
			logit += sum
			if math.Abs(max(0, sum)-float64(want)) > 1e-6 {
				t.Errorf("picture %d: map %v at %d, want %v", i, want, at, max(0, sum))
			}
		}
		// Probabilities are softmax of the logits: their ratio gives the difference.
		var p1, pOther float64
		for _, q := range e.Predictions {
			if q.Index == e.Class {
				p1 = q.Probability
			} else if q.Index == 0 {
				pOther = q.Probability
			}
		}
		other := float64(bias.Float32s()[0])
		for c, f := range e.Features {
			other += float64(f) * float64(kernel.Float32s()[c*3])
		}
		if d := math.Log(p1/pOther) - (logit - other); math.Abs(d) > 1e-5 {
			t.Errorf("picture %d: logits differ by %v, the probabilities say %v", i, logit-other, math.Log(p1/pOther))
		}
	}
}

func TestOptions(t *testing.T) {
	x := tiny(t, cpuEngine(t))
	pictures := noise{1, 20, 30}.pictures(t)
	if err := x.SetTemperature(4); err != nil {
		t.Fatal(err)
	}
	hot, err := x.Explain(t.Context(), pictures, Options{Method: LayerCAM})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.SetTemperature(1); err != nil {
		t.Fatal(err)
	}
	cold, err := x.Explain(t.Context(), pictures, Options{Layer: stem})
	if err != nil {
		t.Fatal(err)
	}
	if hot[0].Layer != "layer1" || hot[0].Map.Height != 12 || cold[0].Layer != stem || cold[0].Map.Height != 12 {
		t.Errorf("layers %s %d and %s %d", hot[0].Layer, hot[0].Map.Height, cold[0].Layer, cold[0].Map.Height)
	}
	// Four times the temperature is the fourth root of the ratio.
	a, b := hot[0].Predictions, cold[0].Predictions
	if got, want := a[0].Probability/a[2].Probability, math.Pow(b[0].Probability/b[2].Probability, 0.25); math.Abs(got/want-1) > 1e-9 {
		t.Errorf("ratio %v at temperature 4, want %v", got, want)
	}
	if w := hot[0].Map.Window; w.Min.X != 5 || w.Max.X != 25 || w.Dy() != 20 {
		t.Errorf("of a picture 30×20 the network sees %v, want the middle 20", w)
	}
	for text, o := range map[string]Options{
		`method "magic"`: {Method: "magic"}, `layer "layer3"`: {Layer: "layer3"},
		"2 classes for 1": {Classes: []int{0, 1}}, "class 3": {Classes: []int{3}},
	} {
		_, err := x.Explain(t.Context(), pictures, o)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want an error with %s", o, err, text)
		}
	}
	if _, err := x.Explain(t.Context(), pictures, Options{Layer: "conv1"}); !strings.Contains(hint.Of(err), "stem, layer1, layer2") {
		t.Errorf("hint %q does not name the layers", hint.Of(err))
	}
}

// The nearest pictures against sorting all cosines, in float64; the picture
// itself comes first; the file is made once and named by what it depends on.
func TestNearest(t *testing.T) {
	x := tiny(t, cpuEngine(t))
	data := noise{9, 12, 12}
	dir := filepath.Join(t.TempDir(), "evaluations")
	calls := 0
	count := func(done, total int) { calls++ }
	ix, err := x.Index(t.Context(), dir, data, "hash train", 4, count)
	if err != nil {
		t.Fatal(err)
	}
	if calls != 3 {
		t.Errorf("%d batches, want 3", calls)
	}
	found, err := x.Explain(t.Context(), data.pictures(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]float32
	for _, e := range found {
		rows = append(rows, e.Features)
	}
	got, err := ix.Nearest(t.Context(), rows, 4)
	if err != nil {
		t.Fatal(err)
	}
	for i, list := range got {
		cosine := func(k int) float64 {
			return dot(rows[i], rows[k]) / math.Sqrt(dot(rows[i], rows[i])*dot(rows[k], rows[k]))
		}
		order := make([]int, data.n)
		for k := range order {
			order[k] = k
		}
		slices.SortStableFunc(order, func(a, b int) int { return -compare(cosine(a), cosine(b)) })
		if list[0].Index != i || math.Abs(list[0].Cosine-1) > 1e-6 {
			t.Errorf("picture %d: nearest is %+v, want itself", i, list[0])
		}
		for k, n := range list {
			if n.Index != order[k] || math.Abs(n.Cosine-cosine(order[k])) > 1e-5 {
				t.Errorf("picture %d, neighbour %d: %+v, want %d with %v", i, k, n, order[k], cosine(order[k]))
			}
		}
	}
	again, err := x.Index(t.Context(), dir, data, "hash train", 4, count)
	if err != nil || again.Path() != ix.Path() || calls != 3 {
		t.Errorf("second time: %v, %s instead of %s, %d batches", err, again.Path(), ix.Path(), calls)
	}
	other, err := x.Index(t.Context(), dir, data, "hash test", 4, nil)
	if err != nil || other.Path() == ix.Path() {
		t.Errorf("other pictures: %v, the same file %s", err, other.Path())
	}
	// A file that was cut short or is something else is not searched.
	b, err := os.ReadFile(ix.Path())
	if err != nil {
		t.Fatal(err)
	}
	for what, content := range map[string][]byte{"cut": b[:len(b)-5], "another shape": bytes.Replace(b, []byte("(9, 8)"), []byte("(8, 9)"), 1), "empty": nil} {
		if err := os.WriteFile(ix.Path(), content, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := ix.Nearest(t.Context(), rows, 4); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := ix.Nearest(t.Context(), [][]float32{{1}}, 1); err == nil {
		t.Error("features of another width: no error")
	}
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// A network whose activations overflow, though its logits are finite, has no maps of
// them.
func TestOverflow(t *testing.T) {
	x := tiny(t, cpuEngine(t))
	for name, value := range map[string]float32{
		"bn1.weight": 0, "bn1.bias": math.MaxFloat32, "layer1.0.conv1.weight": 0,
		"layer1.0.bn2.weight": 0, "layer1.0.bn2.bias": math.MaxFloat32, // whose sum is infinite
		"layer2.0.conv1.weight": -1, "layer2.0.downsample.0.weight": -1, // and nothing after ReLU
	} {
		v, err := x.Variables().Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range v.Float32s() {
			v.Float32s()[i] = value
		}
		if err := x.Variables().Set(name, v); err != nil {
			t.Fatal(err)
		}
	}
	_, err := x.Explain(t.Context(), noise{1, 12, 12}.pictures(t), Options{Layer: "layer1"})
	if err == nil || !strings.Contains(err.Error(), "picture 0: activations of layer1 or their gradients are not finite") {
		t.Errorf("error %v", err)
	}
}

// numpy.save(numpy.zeros((9, 8), "<f4")) begins with these 128 bytes.
func TestHeader(t *testing.T) {
	ix := &Index{images: 9, width: 8}
	got := ix.header()
	want := "\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9, 8), }"
	if len(got) != 128 || !strings.HasPrefix(string(got), want) || got[127] != '\n' || binary.LittleEndian.Uint16(got[8:]) != 118 {
		t.Errorf("header %q of %d bytes", got, len(got))
	}
}

// Cubic convolution keeps constants and straight lines away from the border, and
// values where the sizes are equal.
func TestResized(t *testing.T) {
	m := Map{Height: 4, Width: 5}
	for y := range 4 {
		for x := range 5 {
			m.Values = append(m.Values, float32(2*x+10*y+1))
		}
	}
	if got := m.resized(4, 5); !slices.Equal(got, m.Values) {
		t.Errorf("the same size: %v", got)
	}
	got := m.resized(40, 50)
	for y := 15; y < 25; y++ {
		for x := 15; x < 35; x++ {
			want := 2*((float64(x)+0.5)/10-0.5) + 10*((float64(y)+0.5)/10-0.5) + 1
			if math.Abs(float64(got[y*50+x])-want) > 1e-4 {
				t.Fatalf("at %d,%d: %v, want %v", x, y, got[y*50+x], want)
			}
		}
	}
	var b bytes.Buffer
	if err := m.WriteCSV(&b); err != nil || !strings.HasPrefix(b.String(), "1,3,5,7,9\n11,13") || strings.Count(b.String(), "\n") != 4 {
		t.Errorf("CSV %q, %v", b.String(), err)
	}
}

func TestOverlay(t *testing.T) {
	x := tiny(t, cpuEngine(t))
	grey := dataset.Image{Height: 20, Width: 30, Channels: 1, Pix: bytes.Repeat([]byte{100}, 600)}
	m := Map{Height: 2, Width: 2, Values: []float32{0, 0, 0, 3}, Window: x.Config().Preprocess.Window(20, 30)}
	out := Overlay(grey, m)
	if out.Rect.Dx() != 30*13 || out.Rect.Dy() != 20*13 {
		t.Fatalf("overlay is %v, want 13 times 30×20", out.Rect)
	}
	corner, cold, hot := out.NRGBAAt(2, 2), out.NRGBAAt(5*13+2, 2), out.NRGBAAt(25*13-2, 20*13-2)
	if corner.R != 35 || corner.G != 35 { // outside of the window
		t.Errorf("what the network does not see is %v, want 35 of 100", corner)
	}
	if cold.R != 100 || cold.B != 100 {
		t.Errorf("where the map is 0 there is %v, want the picture", cold)
	}
	if hot.R < 170 || hot.G < 150 || hot.B > 60 { // yellow over 100 with opacity 0.75
		t.Errorf("at the largest value there is %v, want nearly yellow", hot)
	}
	// Where a picture was padded to a square, the map goes beyond it: the lower right
	// quarter begins in the middle of the picture.
	padded := Overlay(grey, Map{Height: 2, Width: 2, Values: m.Values, Window: image.Rect(0, -5, 30, 25)})
	if a, b := padded.NRGBAAt(2, 2), padded.NRGBAAt(30*13-2, 20*13-2); a.R != 100 || b.R < 150 || b.B > 60 {
		t.Errorf("of a padded picture the corners are %v and %v", a, b)
	}
	// A map of zeros changes nothing; a panorama is reduced.
	m.Values = make([]float32, 4)
	if got := Overlay(grey, m).NRGBAAt(15*13, 10*13); got.R != 100 {
		t.Errorf("a map of zeros gives %v", got)
	}
	wide := dataset.Image{Height: 1, Width: 5000, Channels: 1, Pix: make([]byte, 5000)}
	if got := Overlay(wide, Map{Height: 1, Width: 1, Values: []float32{1}, Window: x.Config().Preprocess.Window(1, 5000)}).Rect; got.Dx() != 2048 || got.Dy() != 1 {
		t.Errorf("overlay of 5000×1 is %v", got)
	}
}

func TestHeatGrowsLighter(t *testing.T) {
	for i := 1; i < 256; i++ {
		luma := func(i int) int {
			c := heat[i]
			return 299*int(c.R) + 587*int(c.G) + 114*int(c.B)
		}
		if luma(i)+1500 < luma(i-1) {
			t.Errorf("colour %d is darker than the one before: %v, %v", i, heat[i], heat[i-1])
		}
	}
}

func TestStrip(t *testing.T) {
	wide := dataset.Image{Height: 64, Width: 128, Channels: 1, Pix: bytes.Repeat([]byte{9}, 64*128)}
	square := dataset.Image{Height: 200, Width: 200, Channels: 3, Pix: bytes.Repeat([]byte{7}, 3*200*200)}
	out := Strip([]dataset.Image{wide, square, square})
	if want := image.Rect(0, 0, 256+16+128+4+128, 128); out.Rect != want {
		t.Fatalf("strip is %v, want %v", out.Rect, want)
	}
	for x, want := range map[int]uint8{255: 9, 256: 255, 271: 255, 272: 7, 399: 7, 401: 255, 404: 7, 531: 7} {
		if got := out.NRGBAAt(x, 64).R; got != want {
			t.Errorf("at %d there is %d, want %d", x, got, want)
		}
	}
}
