package keras

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/golden"
	"github.com/residual-ml/residual/internal/hdf5"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// expected is what Keras predicts, and what must be refused;
// golden/keras_files.py writes it with the files.
type expected struct {
	Keras string
	Files map[string]struct {
		Outputs  [][]float64
		Softmax  bool
		Size     int
		Channels int
		Factor   float64 // of the images, which are in [0,1)
	}
	Refused map[string]string
}

func readExpected(t testing.TB) expected {
	t.Helper()
	var e expected
	b, err := os.ReadFile("testdata/expected.json")
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Files) < 15 || len(e.Refused) < 3 {
		t.Fatalf("%d files and %d refused ones", len(e.Files), len(e.Refused))
	}
	return e
}

// file inflates a file of testdata.
func file(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(b []byte) (*artifact.Model, error) { return Read(bytes.NewReader(b), int64(len(b))) }

// outputs are the network's probabilities and logits for images
// [N,height,width,channels], as engine/ref computes them.
func outputs(t *testing.T, m *artifact.Model, images []float64, n int) (probabilities, logits []float64) {
	t.Helper()
	return outputsOf(t, ref.New(), m, images, n)
}

func outputsOf(t *testing.T, e engine.Engine, m *artifact.Model, images []float64, n int) (probabilities, logits []float64) {
	t.Helper()
	c := artifact.Sized(m.Config)
	g, err := c.Graph(n)
	if err != nil {
		t.Fatal(err)
	}
	vars := e.NewVariables()
	for _, x := range m.Tensors {
		if err := vars.Set(x.Name, model.FromFile(x.Tensor)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := e.Compile(g, vars)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	x := tensor.Of(images, n, c.Height, c.Width, c.Channels)
	if e.Name() != "ref" {
		x = x.Convert(tensor.Float32)
	}
	out, err := p.Run(context.Background(), x)
	if err != nil {
		t.Fatal(err)
	}
	return out[0].Convert(tensor.Float64).Float64s(), out[1].Convert(tensor.Float64).Float64s()
}

// prepared scales images as m's preprocessing says, if it says anything.
func prepared(m *artifact.Model, images []float64, factor float64) []float64 {
	images = slices.Clone(images)
	for i := range images {
		images[i] *= factor
		if p := m.Preprocess; p != nil {
			images[i] *= p.Scale
			if p.Mean != nil {
				images[i] -= p.Mean[i%len(p.Mean)]
			}
			if p.Std != nil {
				images[i] /= p.Std[i%len(p.Std)]
			}
		}
	}
	return images
}

// TestRead compares with what Keras predicts in float32. Seen: 2.4e-7 of the
// largest output at most.
func TestRead(t *testing.T) {
	e := readExpected(t)
	for name, want := range e.Files {
		t.Run(name, func(t *testing.T) {
			m, err := read(file(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Unmapped) > 0 {
				t.Errorf("tensors without a place: %q", m.Unmapped)
			}
			if want.Factor == 255 && m.Preprocess == nil && !strings.Contains(name, "weights") {
				t.Error("the preprocessing in the network is lost")
			}
			if strings.Contains(name, "weights") && want.Factor == 255 {
				m.Preprocess = &loader.Preprocess{Scale: 1.0 / 255} // weights do not know
			}
			if m.Config.Height == 0 {
				m.Config.Height, m.Config.Width = want.Size, want.Size
			}
			if c := m.Config; c.Height != want.Size || c.Width != want.Size || c.Channels != want.Channels {
				t.Fatalf("pictures of %d×%d×%d, want %d and %d", c.Height, c.Width, c.Channels, want.Size, want.Channels)
			}
			n := len(want.Outputs)
			images := prepared(m, golden.Images(0, n, want.Size, want.Size, want.Channels), want.Factor)
			probabilities, logits := outputs(t, m, images, n)
			got := logits
			if want.Softmax {
				got = probabilities
			}
			golden.CheckValues(t, "outputs", got, slices.Concat(want.Outputs...), 2e-6)
			t.Log(strings.Join(m.Recognised, "\n"))
		})
	}
}

// TestLarge compares networks of full size, which golden/keras_files.py --large
// writes into a folder, on the CPU engine.
func TestLarge(t *testing.T) {
	dir := os.Getenv("RESIDUAL_KERAS_FILES")
	if dir == "" {
		t.Skip("RESIDUAL_KERAS_FILES names no folder of golden/keras_files.py --large")
	}
	var e expected
	b, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil || len(e.Files) == 0 {
		t.Fatalf("%d files, %v", len(e.Files), err)
	}
	eng, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range e.Files {
		t.Run(name, func(t *testing.T) {
			m, err := ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if m.Config.Height == 0 {
				m.Config.Height, m.Config.Width = want.Size, want.Size
			}
			probabilities, _ := outputsOf(t, eng, m, golden.Images(0, len(want.Outputs), want.Size, want.Size, want.Channels), len(want.Outputs))
			worst := golden.CheckValues(t, "outputs", probabilities, slices.Concat(want.Outputs...), 1e-5)
			t.Logf("%s, %d tensors, unmapped %v: worst difference %.2g", m.Config.Name, len(m.Tensors), m.Unmapped, worst)
		})
	}
}

func TestRefused(t *testing.T) {
	for name, want := range readExpected(t).Refused {
		if _, err := read(file(t, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want …%s…", name, err, want)
		}
	}
}

// networks are what is written and read back: all that package model has and
// Keras can express.
func networks(t *testing.T) map[string]*artifact.Model {
	t.Helper()
	all := map[string]*artifact.Model{}
	for _, x := range []struct {
		name   string
		change func(*model.Config)
	}{
		{"keras-basic", func(c *model.Config) { c.Convention = model.Keras }},
		{"torch-basic", func(c *model.Config) {}},
		{"torch-pad", func(c *model.Config) { c.Shortcut = model.PadShortcut }},
		{"keras-pad", func(c *model.Config) { c.Shortcut, c.Convention = model.PadShortcut, model.Keras }},
		{"torch-bottleneck-large", func(c *model.Config) { c.Block, c.Stem, c.Height, c.Width = model.Bottleneck, model.LargeStem, 40, 72 }},
		{"keras-bottleneck-large", func(c *model.Config) {
			c.Block, c.Stem, c.Height, c.Width, c.Convention = model.Bottleneck, model.LargeStem, 37, 50, model.Keras
		}},
		{"keras-biased", func(c *model.Config) { c.Convention, c.ConvBias = model.Keras, true }},
		{"torch-folded", func(c *model.Config) { c.Norm, c.ConvBias = model.NoNorm, true }},
		{"torch-epsilon", func(c *model.Config) { c.Epsilon = 1.001e-5 }},
		{"torch-pooled", func(c *model.Config) { c.Block, c.Filters, c.Blocks = model.Pooled, 2, []int{1, 0} }},
		{"keras-pooled", func(c *model.Config) {
			c.Block, c.Convention, c.StemFilters, c.LogitScale = model.Pooled, model.Keras, 3, 7.0/64
		}},
		{"torch-single", func(c *model.Config) {
			c.Block, c.Stem, c.Whiten, c.WhitenPad, c.Widen = model.Single, model.WhitenStem, 2, true, []int{1, 4}
			c.Dirac, c.FixedGamma, c.NormRate, c.LogitScale = true, true, 0.4, 1.0/9
		}},
		{"keras-single", func(c *model.Config) {
			c.Block, c.Convention, c.Stem, c.Whiten, c.Height, c.Width = model.Single, model.Keras, model.WhitenStem, 3, 18, 19
		}},
		{"torch-preact", func(c *model.Config) { c.PreAct, c.StemFilters = true, 3 }},
		{"keras-preact-bottleneck", func(c *model.Config) { c.PreAct, c.Block, c.Convention = true, model.Bottleneck, model.Keras }},
		{"torch-average", func(c *model.Config) { c.AvgDown, c.Stem, c.Height, c.Width = true, model.DeepStem, 34, 34 }},
		{"torch-squeeze", func(c *model.Config) { c.SE = true }},
		{"keras-squeeze-bottleneck", func(c *model.Config) {
			c.SE, c.Block, c.Convention = true, model.Bottleneck, model.Keras
		}},
		{"odd-sizes", func(c *model.Config) { c.Convention, c.Height, c.Width, c.Channels = model.Keras, 17, 23, 1 }},
	} {
		c := model.Config{Name: x.name, Convention: model.Torch, Height: 16, Width: 16, Channels: 3, Classes: 3, Stem: model.SmallStem,
			Block: model.Basic, Shortcut: model.Projection, Blocks: []int{1, 2}, Filters: 4}
		x.change(&c)
		g, err := c.Graph(1)
		if err != nil {
			t.Fatal(err)
		}
		tensors := map[string]tensor.Tensor{}
		for _, v := range g.Variables {
			shape := model.FileShape(v.Shape)
			w := golden.Values(x.name+v.Name, shape.Elements())
			if !strings.HasSuffix(v.Name, "bias") && !strings.HasSuffix(v.Name, "mean") && len(shape) == 1 {
				for i := range w {
					w[i] = 1 + w[i]/4
				}
			}
			tensors[v.Name] = tensor.Of(w, shape...).Convert(tensor.Float32)
		}
		m, err := artifact.Build(c, tensors)
		if err != nil {
			t.Fatal(err)
		}
		m.Classes = []string{"one", "two", "<three>"}
		m.Preprocess = &loader.Preprocess{Height: c.Height, Width: c.Width, Channels: c.Channels, Resize: loader.Crop, Scale: 1.0 / 255,
			Mean: slices.Repeat([]float64{0.25}, c.Channels), Std: slices.Repeat([]float64{0.5}, c.Channels)}
		m.Golden = []artifact.Golden{{Picture: []byte("not looked at"), Logits: []float32{1, -2.5, 3e-7}}}
		all[x.name] = m
	}
	return all
}

func written(t *testing.T, m *artifact.Model, o artifact.WriteOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, m, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRoundTrip: every tensor comes back with the same bits, all else with the
// same values, and what was read is written as the same bytes.
func TestRoundTrip(t *testing.T) {
	for name, m := range networks(t) {
		t.Run(name, func(t *testing.T) {
			c := m.Config
			first := written(t, m, artifact.WriteOptions{})
			back, err := read(first)
			if err != nil {
				t.Fatal(err)
			}
			if len(back.Tensors) != len(m.Tensors) || len(back.Unmapped) > 0 {
				t.Fatalf("%d tensors, want %d; unmapped %q", len(back.Tensors), len(m.Tensors), back.Unmapped)
			}
			for i, n := range m.Tensors {
				got := back.Tensors[i]
				if got.Name != n.Name || !slices.Equal(got.Tensor.Float32s(), n.Tensor.Float32s()) {
					t.Errorf("tensor %s came back as %s with other values", n.Name, got.Name)
				}
			}
			if got, want := fmt.Sprintf("%+v %v %+v %v", back.Config, back.Classes, *back.Preprocess, back.Golden),
				fmt.Sprintf("%+v %v %+v %v", m.Config, m.Classes, *m.Preprocess, m.Golden); got != want {
				t.Errorf("read back\n%s, want\n%s", got, want)
			}
			if momentum := fmt.Sprintf(`"momentum":%v,`, 1-c.BatchNormRate()); c.Norm != model.NoNorm && !bytes.Contains(first, []byte(momentum)) {
				t.Errorf("no layer has %s", momentum)
			}
			if !bytes.Equal(written(t, back, artifact.WriteOptions{}), first) {
				t.Error("written again, the file differs")
			}
		})
	}
}

// TestWithoutMetadata reads written files as somebody else's: the structure alone
// must give the same function. Where the metadata are missing, so are names.
func TestWithoutMetadata(t *testing.T) {
	for name, m := range networks(t) {
		for _, o := range []artifact.WriteOptions{{}, {Softmax: true, Preprocess: true}, {FoldNorm: true}} {
			t.Run(fmt.Sprintf("%s %+v", name, o), func(t *testing.T) {
				file := m
				if o.FoldNorm && m.Config.PreAct {
					t.Skip("batch normalisation after a sum has no convolution to be folded into")
				}
				if o.FoldNorm {
					var err error
					if file, err = m.Folded(); err != nil {
						t.Fatal(err)
					}
				}
				stripped := without(t, written(t, file, artifact.WriteOptions{Softmax: o.Softmax, Preprocess: o.Preprocess}), metadataMember)
				back, err := read(stripped)
				if err != nil {
					t.Fatal(err)
				}
				if (back.Preprocess != nil) != o.Preprocess {
					t.Errorf("preprocessing is %v", back.Preprocess)
				}
				c := m.Config
				images := golden.Images(0, 2, c.Height, c.Width, c.Channels)
				first := images
				if o.Preprocess {
					first = prepared(m, images, 255)
					images = prepared(back, images, 255)
				}
				_, want := outputs(t, m, first, 2)
				_, got := outputs(t, back, images, 2)
				limit := 1e-12
				if o.FoldNorm || o.Preprocess {
					limit = 1e-5 // folded kernels are rounded to float32
				}
				golden.CheckValues(t, "logits", got, want, limit)
			})
		}
	}
}

// without copies an archive but for one member, deflated, in another order.
func without(t *testing.T, b []byte, name string) []byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range slices.Backward(z.File) {
		if f.Name == name {
			continue
		}
		from, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		to, err := w.Create(f.Name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, from); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestHostile are archives that are none, or claim too much.
func TestHostile(t *testing.T) {
	good := written(t, networks(t)["keras-basic"], artifact.WriteOptions{})
	z, err := zip.NewReader(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	members := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if members[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	type member struct {
		name string
		data []byte
	}
	archive := func(list ...member) []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for _, m := range list {
			f, err := w.Create(m.name)
			if err == nil {
				_, err = f.Write(m.data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	config, weights := member{configMember, members[configMember]}, member{weightsMember, members[weightsMember]}
	changed := func(old, new string) member {
		if !bytes.Contains(config.data, []byte(old)) {
			t.Fatalf("the configuration has no %s", old)
		}
		return member{configMember, bytes.Replace(config.data, []byte(old), []byte(new), 1)}
	}
	if _, err := read(archive(config, weights)); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "zip"},
		{"no archive", []byte("PK\x03\x04 and then nothing"), "zip"},
		{"no config", archive(weights), "there is no config.json"},
		{"no weights", archive(config), "there is no model.weights.h5"},
		{"twice", archive(config, weights, config), "two members called"},
		{"bomb", archive(config, member{weightsMember, make([]byte, 8<<20)}), "not trusted"},
		{"bomb of JSON", archive(member{configMember, bytes.Repeat([]byte(" "), 8<<20)}, weights), "not trusted"},
		{"weights are no HDF5", archive(config, member{weightsMember, []byte("weights")}), "the file begins with"},
		{"weights cut", archive(config, member{weightsMember, weights.data[:len(weights.data)/2]}), "cut short"},
		{"JSON cut", archive(member{configMember, config.data[:len(config.data)/2]}, weights), "unexpected EOF"},
		{"JSON of nothing", archive(member{configMember, []byte("{}")}, weights), "class_name"},
		{"JSON of a list", archive(member{configMember, []byte("[]")}, weights), "cannot unmarshal"},
		{"keys twice", archive(changed(`"filters":4`, `"filters":4,"filters":5`), weights), `two keys "filters"`},
		{"deep JSON", archive(member{configMember, []byte(strings.Repeat("[", 5000) + strings.Repeat("]", 5000))}, weights), "nested"},
		{"another kernel", archive(changed(`"filters":4`, `"filters":5`), weights), "want 5 filters"},
		{"huge picture", archive(changed(`"batch_shape":[null,16,16,3]`, `"batch_shape":[null,1000000,16,3]`), weights), "pictures of shape"},
		{"negative stride", archive(changed(`"strides":[1,1]`, `"strides":[-1,-1]`), weights), "strides [-1 -1]"},
		{"cycle", archive(changed(`"keras_history":["images",0,0]`, `"keras_history":["relu",0,0]`), weights), "input of itself"},
		{"unknown layer", archive(changed(`"keras_history":["images",0,0]`, `"keras_history":["pictures",0,0]`), weights), `no layer "pictures"`},
		{"unknown class", archive(changed(`"class_name":"Add"`, `"class_name":"Subtract"`), weights), "Subtract: no layer of a residual network"},
		{"other ε", archive(changed(`"epsilon":0.001`, `"epsilon":0.01`), weights), "another ε"},
		{"code by module", archive(changed(`"module":"keras.layers"`, `"module":"os"`), weights), `class "os.`},
	} {
		_, err := read(x.file)
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want …%s…", x.name, err, x.want)
		}
	}
	for n := 0; n < len(good); n += 97 {
		if _, err := read(good[:n]); err == nil {
			t.Fatalf("cut to %d of %d bytes it was read", n, len(good))
		}
	}
}

// A dense kernel [0,2⁴⁶] has no bytes, and its bias must not be made of nothing.
func TestEmptyKernel(t *testing.T) {
	root := hdf5.NewGroup()
	layers := root.Group("layers")
	for name, shape := range map[string][]int{
		"conv2d": {3, 3, 3, 0}, "conv2d_1": {3, 3, 0, 0}, "conv2d_2": {3, 3, 0, 0}, "dense": {0, 1 << 46},
	} {
		layers.Group(name).Group("vars").Dataset("0", tensor.New(tensor.Float32, shape...))
	}
	var b bytes.Buffer
	if err := hdf5.Write(&b, root); err != nil {
		t.Fatal(err)
	}
	if _, err := read(b.Bytes()); err == nil || !strings.Contains(err.Error(), "those of no layer that is known") {
		t.Errorf("got %v", err)
	}
}

// Models within models, each of which calls the next four times, are 4⁸ models.
func TestNestedCalls(t *testing.T) {
	const calls = 4
	model := `{"class_name":"Functional","name":"m","config":{"name":"m","layers":[{"class_name":"InputLayer","name":"i","config":{"batch_shape":[null,8,8,3]},"inbound_nodes":[]}],` +
		`"input_layers":["i",0,0],"output_layers":["i",0,0]}}`
	for range maxNesting {
		nodes := []string{`[["i",0,0,{}]]`}
		for i := range calls - 1 {
			nodes = append(nodes, fmt.Sprintf(`[["m",%d,0,{}]]`, i))
		}
		inner := strings.TrimSuffix(model, "}") + `,"inbound_nodes":[` + strings.Join(nodes, ",") + "]}"
		model = `{"class_name":"Functional","name":"m","config":{"name":"m","layers":[{"class_name":"InputLayer","name":"i","config":{"batch_shape":[null,8,8,3]},"inbound_nodes":[]},` +
			inner + fmt.Sprintf(`],"input_layers":["i",0,0],"output_layers":["m",%d,0]}}`, calls-1)
	}
	root := hdf5.NewGroup()
	root.Group("layers")
	var weights, b bytes.Buffer
	if err := hdf5.Write(&weights, root); err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(&b)
	for name, data := range map[string][]byte{configMember: []byte(model), weightsMember: weights.Bytes()} {
		f, err := w.Create(name)
		if err == nil {
			_, err = f.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := read(b.Bytes()); err == nil || !strings.Contains(err.Error(), "called too often") {
		t.Errorf("got %v", err)
	}
}

// TestOwnMetadata: what contradicts the network is refused.
func TestOwnMetadata(t *testing.T) {
	m := networks(t)["torch-basic"]
	m.Golden[0].Logits[0] = float32(math.Copysign(0, -1))
	b := written(t, m, artifact.WriteOptions{})
	for old, new := range map[string]string{`\"two\",`: ` `, `[\"one\",`: `[\"one\",\"more\",`} {
		if !bytes.Contains(b, []byte(old)) {
			t.Fatalf("the file has no %s", old)
		}
		if _, err := read(rewritten(t, b, old, new)); err == nil || !strings.Contains(err.Error(), "class names") {
			t.Errorf("%s for %s: %v", new, old, err)
		}
	}
}

func rewritten(t *testing.T, b []byte, old, new string) []byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		to, err := w.Create(f.Name)
		if err == nil {
			_, err = to.Write(bytes.Replace(data, []byte(old), []byte(new), 1))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func FuzzRead(f *testing.F) {
	e := readExpected(f)
	n := 0
	for name := range e.Files {
		f.Add(file(f, name))
		n++
	}
	for name := range e.Refused {
		f.Add(file(f, name))
		n++
	}
	if n < 20 {
		f.Fatalf("%d seeds", n)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := read(b)
		if err != nil {
			return
		}
		if err := m.Check(); err != nil {
			t.Error(err)
		}
		total := 0
		for _, n := range m.Tensors {
			total += n.Tensor.Len() * 4
		}
		if total > 1<<22+64*len(b) {
			t.Errorf("%d bytes of tensors from %d", total, len(b))
		}
	})
}

// TestCut gives convolutions their places by shapes, and by names where these do
// not tell.
func TestCut(t *testing.T) {
	conv := func(path string, k, in, out int) unit {
		return unit{path: path, kind: "conv", shapes: [][]int{{k, k, in, out}}}
	}
	for _, x := range []struct {
		name  string
		convs []unit
		want  string // names, or a part of the error
	}{
		{"basic", []unit{conv("c", 3, 3, 8), conv("c", 3, 8, 8), conv("c", 3, 8, 8), conv("c", 3, 8, 16), conv("c", 3, 16, 16), conv("c", 1, 8, 16)},
			"conv1 layer1.0.conv1 layer1.0.conv2 layer2.0.conv1 layer2.0.conv2 layer2.0.downsample.0"},
		{"shortcut first", []unit{conv("c", 3, 1, 8), conv("c", 3, 8, 8), conv("c", 3, 8, 8), conv("c", 1, 8, 16), conv("c", 3, 8, 16), conv("c", 3, 16, 16)},
			"conv1 layer1.0.conv1 layer1.0.conv2 layer2.0.downsample.0 layer2.0.conv1 layer2.0.conv2"},
		{"option A", []unit{conv("c", 3, 3, 8), conv("c", 3, 8, 8), conv("c", 3, 8, 8), conv("c", 3, 8, 16), conv("c", 3, 16, 16)},
			"conv1 layer1.0.conv1 layer1.0.conv2 layer2.0.conv1 layer2.0.conv2"},
		{"keras.applications", []unit{conv("conv1_conv", 7, 3, 8), conv("conv2_block1_1_conv", 1, 8, 8), conv("conv2_block1_2_conv", 3, 8, 8),
			conv("conv2_block1_0_conv", 1, 8, 32), conv("conv2_block1_3_conv", 1, 8, 32)},
			"conv1 layer1.0.conv1 layer1.0.conv2 layer1.0.downsample.0 layer1.0.conv3"},
		{"named shortcut last", []unit{conv("a", 7, 3, 8), conv("b", 1, 8, 8), conv("c", 3, 8, 8), conv("d", 1, 8, 32), conv("downsample", 1, 8, 32)},
			"conv1 layer1.0.conv1 layer1.0.conv2 layer1.0.conv3 layer1.0.downsample.0"},
		{"shortcut before the first", []unit{conv("a", 7, 3, 8), conv("b", 1, 8, 32), conv("c", 1, 8, 8), conv("d", 3, 8, 8), conv("e", 1, 8, 32)},
			"conv1 layer1.0.downsample.0 layer1.0.conv1 layer1.0.conv2 layer1.0.conv3"},
		{"nothing tells", []unit{conv("a", 7, 3, 8), conv("b", 1, 8, 8), conv("c", 3, 8, 8), conv("d", 1, 8, 32), conv("e", 1, 8, 32)},
			"d and e have one shape"},
		{"a hole", []unit{conv("a", 3, 3, 8), conv("b", 3, 8, 8), conv("c", 3, 8, 16)}, "b, a 3×3 convolution of 8 to 8 channels, begins no"},
		{"a stem of 5×5", []unit{conv("a", 5, 3, 8), conv("b", 3, 8, 8), conv("c", 3, 8, 8)}, "want 3×3 or 7×7"},
		{"half of the shortcuts", []unit{conv("c", 3, 3, 8), conv("c", 3, 8, 8), conv("c", 3, 8, 8), conv("c", 3, 8, 16), conv("c", 3, 16, 16),
			conv("c", 3, 16, 32), conv("c", 3, 32, 32), conv("c", 1, 16, 32)}, "1 of 2 shortcuts"},
	} {
		names, _, err := cut(x.convs)
		got := strings.Join(names, " ")
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != x.want || err != nil && !strings.Contains(got, x.want) {
			t.Errorf("%s: %s, want %s", x.name, got, x.want)
		}
	}
}

// TestOrder: in the configurations that Keras wrote layers have Keras's order.
func TestOrder(t *testing.T) {
	for _, name := range []string{"functional.keras", "bottleneck.keras", "biased.keras", "option_a.keras", "first_stride.keras"} {
		b := file(t, name)
		c, err := open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		top, err := parseLayer(c.config)
		if err != nil {
			t.Fatal(err)
		}
		config, err := top.container()
		if err != nil {
			t.Fatal(err)
		}
		byName := map[string]*kerasLayer{}
		var layers []*kerasLayer
		var want []string
		for _, l := range config.Layers {
			k := &kerasLayer{name: l.Name}
			byName[l.Name] = k
			layers = append(layers, k)
			want = append(want, l.Name)
			nodes, err := inboundNodes(l.Inbound)
			if err != nil || len(nodes) > 1 {
				t.Fatalf("%s: %d calls, %v", l.Name, len(nodes), err)
			}
			for _, node := range nodes {
				for _, in := range node {
					k.inputs = append(k.inputs, byName[in.layer])
				}
			}
		}
		out := layers[len(layers)-1]
		slices.Reverse(layers)
		var got []string
		for _, l := range kerasOrder(layers, out) {
			got = append(got, l.name)
		}
		if !slices.Equal(got, want) || len(want) < 10 {
			t.Errorf("%s: layers in the order\n%q, want\n%q", name, got, want)
		}
	}
}

// TestPreprocess: rescaling in front becomes (x·Scale - Mean)/Std of bytes.
func TestPreprocess(t *testing.T) {
	for _, x := range []struct {
		gain, offset []float64
		want         string // scale, mean, std
	}{
		{[]float64{1.0 / 255, 1.0 / 255, 1.0 / 255}, []float64{0, 0, 0}, "0.003922 [] []"},
		{[]float64{1, 1, 1}, []float64{0, 0, 0}, "0.003922 [] []"}, // of x/255
		{[]float64{2.0 / 255, 2.0 / 255, 2.0 / 255}, []float64{-1, -1, -1}, "0.003922 [0.5 0.5 0.5] [0.5 0.5 0.5]"},
		{[]float64{4, 5, 2}, []float64{-2, -2.5, -1}, "0.003922 [0.5 0.5 0.5] [0.25 0.2 0.5]"}, // of x/255
	} {
		m := &artifact.Model{Config: model.Config{Height: 8, Width: 8, Channels: 3}}
		if err := preprocess(m, x.gain, x.offset); err != nil {
			t.Fatal(err)
		}
		p := m.Preprocess
		if got := fmt.Sprintf("%.4g %.4g %.4g", p.Scale, p.Mean, p.Std); got != x.want {
			t.Errorf("%v, %v: %s, want %s", x.gain, x.offset, got, x.want)
		}
	}
	m := &artifact.Model{Config: model.Config{Height: 8, Width: 8, Channels: 1}}
	if err := preprocess(m, []float64{-1}, []float64{0}); err == nil {
		t.Error("pictures turned into their negatives have no preprocessing here")
	}
}

// TestMixedPrecision: what cannot be kept is said.
func TestMixedPrecision(t *testing.T) {
	m := networks(t)["keras-basic"]
	b := rewritten(t, written(t, m, artifact.WriteOptions{}), `"dtype":"float32","filters"`, `"dtype":"mixed_float16","filters"`)
	back, err := read(b)
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(back.Recognised, "\n"); strings.Count(notes, "mixed precision") != 1 {
		t.Errorf("notes %q do not say once that the precision differs", notes)
	}
}
