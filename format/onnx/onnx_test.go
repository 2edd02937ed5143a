package onnx

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/golden"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// made is a network with weights by formula.
func made(t testing.TB, c model.Config) *artifact.Model {
	t.Helper()
	g, err := c.Graph(1)
	if err != nil {
		t.Fatal(err)
	}
	tensors := map[string]tensor.Tensor{}
	for _, v := range g.Variables {
		shape := model.FileShape(v.Shape)
		wide := golden.Weight(v.Name, shape)
		narrow := make([]float32, len(wide))
		for i, x := range wide {
			narrow[i] = float32(x)
		}
		tensors[v.Name] = tensor.Of(narrow, shape...)
	}
	m, err := artifact.Build(c, tensors)
	if err != nil {
		t.Fatal(err)
	}
	for k := range c.Classes {
		m.Classes = append(m.Classes, "class "+string(rune('A'+k)))
	}
	m.Preprocess = &loader.Preprocess{Height: c.Height, Width: c.Width, Channels: c.Channels, Resize: loader.Squash, Scale: 1.0 / 255}
	if c.Channels == 3 {
		m.Preprocess.Mean, m.Preprocess.Std = []float64{0.485, 0.456, 0.406}, []float64{0.229, 0.224, 0.225}
	}
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	m.Golden = []artifact.Golden{{Picture: picture.Bytes(), Logits: make([]float32, c.Classes)}}
	return m
}

// networks are all kinds that can be written, narrow and small.
func networks(t testing.TB) []model.Config {
	var all []model.Config
	add := func(name string, convention model.Convention, size int, change func(c *model.Config)) {
		c, err := model.Named(name, convention, size, size, 3, 5)
		if err != nil {
			t.Fatal(err)
		}
		c.Filters = 4
		c.Stem = model.SmallStem
		if change != nil {
			change(&c)
		}
		all = append(all, c)
	}
	for _, convention := range []model.Convention{model.Keras, model.Torch} {
		add("resnet18", convention, 16, nil)
		add("resnet20", convention, 9, func(c *model.Config) { c.Channels = 1; c.Filters = 5 })
		add("resnet50", convention, 32, func(c *model.Config) { c.Stem = model.LargeStem; c.Width = 34 })
	}
	add("preactresnet18", model.Torch, 16, nil)
	add("preactresnet50", model.Keras, 32, func(c *model.Config) { c.Stem = model.LargeStem; c.StrideFirst = true })
	add("wrn-16-4", model.Torch, 16, nil)
	add("resnet9", model.Torch, 32, nil)
	add("resnet9", model.Keras, 16, func(c *model.Config) { c.Blocks = []int{0, 2}; c.StemFilters = 3 })
	add("resnet8w", model.Torch, 32, func(c *model.Config) { c.Stem, c.LogitScale = model.WhitenStem, 7.0/64 }) // 1/9 is no float32
	add("resnet8w", model.Torch, 18, func(c *model.Config) {
		c.Whiten, c.WhitenPad, c.Widen, c.LogitScale, c.Blocks = 0, false, nil, 0, []int{2, 0, 3}
	})
	add("resnet50d", model.Torch, 34, func(c *model.Config) { c.Stem = model.DeepStem })
	add("resnet18d", model.Keras, 18, nil)
	add("seresnet18", model.Torch, 16, func(c *model.Config) { c.SE = true })
	add("seresnet50", model.Torch, 32, func(c *model.Config) { c.Stem = model.LargeStem; c.ZeroGamma = true; c.DropPath = 0.1 })
	add("resnet34", model.Keras, 16, func(c *model.Config) { c.ConvBias = true; c.Epsilon = 2e-5 })
	add("resnet18", model.Keras, 16, func(c *model.Config) { c.ConvBias = true; c.Norm = model.NoNorm })
	return all
}

func written(t testing.TB, m *artifact.Model, o artifact.WriteOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, m, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(t testing.TB, data []byte) (*artifact.Model, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return ReadFile(path)
}

// What is written is read back with every bit, whatever options it was written
// with, and gives the same file again.
func TestRoundTrip(t *testing.T) {
	for _, c := range networks(t) {
		for _, o := range []artifact.WriteOptions{{}, {Softmax: true}, {Preprocess: true}, {Softmax: true, Preprocess: true}} {
			m := made(t, c)
			first := written(t, m, o)
			got, err := read(t, first)
			if err != nil {
				t.Errorf("%+v %+v: %v", c, o, err)
				continue
			}
			if !reflect.DeepEqual(got.Config, m.Config) || !slices.Equal(got.Classes, m.Classes) ||
				!reflect.DeepEqual(got.Preprocess, m.Preprocess) || !reflect.DeepEqual(got.Golden, m.Golden) {
				t.Errorf("wrote %+v %+v\nread  %+v %+v", m.Config, m.Preprocess, got.Config, got.Preprocess)
			}
			if len(got.Unmapped) > 0 {
				t.Errorf("unmapped: %v", got.Unmapped)
			}
			for i, n := range m.Tensors {
				if g := got.Tensors[i]; g.Name != n.Name || !g.Tensor.Shape().Equal(n.Tensor.Shape()) || !slices.Equal(g.Tensor.Float32s(), n.Tensor.Float32s()) {
					t.Errorf("%s: tensor %s came back as %s with other numbers", c.Name, n.Name, g.Name)
				}
			}
			if second := written(t, got, o); !bytes.Equal(first, second) {
				t.Errorf("%s %+v: the second export differs from the first", c.Name, o)
			}
		}
	}
}

// An exported file computes what the engines compute. The evaluator works in
// float64 as engine/ref does, and differs by the order of sums alone; engine/cpu
// works in float32.
func TestSameLogits(t *testing.T) {
	cpuEngine, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer cpuEngine.Close()
	for _, c := range networks(t) {
		m := made(t, c)
		const n = 2
		x := golden.Images(3, n, c.Height, c.Width, c.Channels)
		want := logits(t, ref.New(), m, tensor.Of(x, n, c.Height, c.Width, c.Channels), n)
		narrow := tensor.Of(x, n, c.Height, c.Width, c.Channels).Convert(tensor.Float32)
		fast := logits(t, cpuEngine, m, narrow, n)

		file, err := decode(written(t, m, artifact.WriteOptions{}))
		if err != nil {
			t.Fatal(err)
		}
		f := &folder{left: 1 << 30}
		nchw, err := f.transpose(array{[]int{n, c.Height, c.Width, c.Channels}, x}, []int{0, 3, 1, 2})
		if err != nil {
			t.Fatal(err)
		}
		got := evaluate(t, file, nchw)
		if !slices.Equal(got.dims, []int{n, c.Classes}) {
			t.Fatalf("output has dims %v", got.dims)
		}
		worst, at := golden.Difference(got.values, want)
		if worst > 1e-9 { // ε is float32 in the file, off by 5e-8 of itself: measured 8e-11
			t.Errorf("%+v: logit %d is %v, engine/ref has %v", c, at, got.values[at], want[at])
		}
		worstFast, at := golden.Difference(got.values, fast)
		if worstFast > 5e-6 { // float32: measured 4e-7
			t.Errorf("%+v: logit %d is %v, engine/cpu has %v", c, at, got.values[at], fast[at])
		}
		t.Logf("%s %s: ref %.1e, cpu %.1e", c.Name, c.Convention, worst, worstFast)
	}
}

// With preprocessing in the graph the input is a picture's bytes, with softmax
// the output is probabilities.
func TestPreprocessAndSoftmax(t *testing.T) {
	for _, channels := range []int{1, 3} {
		c, err := model.Named("resnet18", model.Torch, 12, 10, channels, 5)
		if err != nil {
			t.Fatal(err)
		}
		c.Filters = 4
		m := made(t, c)
		picture := dataset.Image{Height: 12, Width: 10, Channels: channels, Pix: make([]uint8, 12*10*channels)}
		raw := array{dims: []int{1, 12, 10, channels}}
		for i, x := range golden.Values("picture", len(picture.Pix)) {
			picture.Pix[i] = uint8(128 + 127*x)
			raw.values = append(raw.values, float64(picture.Pix[i]))
		}
		prepared := tensor.New(tensor.Float32, 1, 12, 10, channels)
		m.Preprocess.Apply(picture, prepared.Float32s())
		e := ref.New()
		g, err := c.Graph(1)
		if err != nil {
			t.Fatal(err)
		}
		out := run(t, e, m, g, prepared)
		want := out[0].Convert(tensor.Float64).Float64s()

		file, err := decode(written(t, m, artifact.WriteOptions{Softmax: true, Preprocess: true}))
		if err != nil {
			t.Fatal(err)
		}
		if in := file.graph.inputs[0]; in.kind != typeUint8 || in.dims[3].size != int64(channels) || in.dims[0].name != "batch" {
			t.Errorf("input is %+v", in)
		}
		got := evaluate(t, file, raw)
		// float32(scale/std) and float32(mean/std) are off by 6e-8 of values up to 2.6.
		if worst, at := golden.Difference(got.values, want); worst > 1e-6 {
			t.Errorf("%d channels: probability %d is %v, want %v", channels, at, got.values[at], want[at])
		}
		text, err := file.metadataText()
		if err != nil || text["Image.BitmapPixelFormat"] != map[int]string{1: "Gray8", 3: "Rgb8"}[channels] || text["classes"] == "" {
			t.Errorf("metadata %v, %v", text, err)
		}
	}
}

// Folded batch normalisation changes logits by rounding alone, is written with
// biases and without BatchNormalization, and comes back as it was written.
func TestFolded(t *testing.T) {
	for _, name := range []string{"resnet18", "resnet50"} {
		c, err := model.Named(name, model.Keras, 16, 16, 3, 5)
		if err != nil {
			t.Fatal(err)
		}
		c.Filters = 4
		m := made(t, c)
		folded, err := m.Folded()
		if err != nil {
			t.Fatal(err)
		}
		first := written(t, folded, artifact.WriteOptions{})
		file, err := decode(first)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range file.graph.nodes {
			if n.op == "BatchNormalization" || n.op == "Conv" && len(n.inputs) != 3 {
				t.Errorf("%s: node %s %q has operands %q", name, n.op, n.name, n.inputs)
			}
		}
		x := array{[]int{1, 3, 16, 16}, golden.Values("x", 3*16*16)}
		plain, err := decode(written(t, m, artifact.WriteOptions{}))
		if err != nil {
			t.Fatal(err)
		}
		got, want := evaluate(t, file, x), evaluate(t, plain, x)
		// Kernels rounded to float32 leave some 2^-24 per layer: measured 9e-8.
		if worst, at := golden.Difference(got.values, want.values); worst > 1e-6 {
			t.Errorf("%s: logit %d is %v, want %v", name, at, got.values[at], want.values[at])
		}
		back, err := read(t, first)
		if err != nil {
			t.Fatal(err)
		}
		if back.Config.Norm != model.NoNorm || !bytes.Equal(written(t, back, artifact.WriteOptions{}), first) {
			t.Errorf("%s: the folded file came back as %+v", name, back.Config)
		}
	}
}

func run(t *testing.T, e engine.Engine, m *artifact.Model, g *graph.Graph, images tensor.Tensor) []tensor.Tensor {
	t.Helper()
	vars := e.NewVariables()
	for _, n := range m.Tensors {
		if err := vars.Set(n.Name, model.FromFile(n.Tensor)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := e.Compile(g, vars)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	out, err := p.Run(context.Background(), images)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func logits(t *testing.T, e engine.Engine, m *artifact.Model, images tensor.Tensor, n int) []float64 {
	t.Helper()
	g, err := m.Config.Graph(n)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(run(t, e, m, g, images)[1].Convert(tensor.Float64).Float64s())
}
