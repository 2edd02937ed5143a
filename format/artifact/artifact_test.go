package artifact

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// weights makes the tensors of a network as files have them, with numbers that
// differ from tensor to tensor.
func weights(t *testing.T, c model.Config) []safetensors.Named {
	t.Helper()
	g, err := Sized(c).Graph(1)
	if err != nil {
		t.Fatal(err)
	}
	var out []safetensors.Named
	for i, v := range g.Variables {
		value := model.Initial(v, 1)
		if v.Variable.Role == graph.Statistic || strings.HasSuffix(v.Name, ".bias") {
			for k, x := range value.Float32s() {
				value.Float32s()[k] = x + 0.25 + float32((i+k)%7)/8
			}
		}
		out = append(out, safetensors.Named{Name: v.Name, Tensor: model.ToFile(value)})
	}
	return out
}

func network(t *testing.T, name string, size, channels, classes int) model.Config {
	t.Helper()
	c, err := model.Named(name, model.Torch, size, size, channels, classes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// small is a network of few weights with everything that is recognised.
func small(block model.Block, shortcut model.Shortcut, stem model.Stem) model.Config {
	c := model.Config{Convention: model.Torch, Channels: 3, Classes: 5, Stem: stem, Block: block, Shortcut: shortcut,
		Blocks: []int{1, 2}, Filters: 4}
	c.Name = Name(c)
	return c
}

// Every network that we build is recognised from names and shapes, whatever
// wrapper stands before the names.
func TestRecognise(t *testing.T) {
	cases := []model.Config{
		small(model.Basic, model.Projection, model.SmallStem), small(model.Basic, model.PadShortcut, model.SmallStem),
		small(model.Bottleneck, model.Projection, model.LargeStem), small(model.Basic, model.Projection, model.LargeStem),
		network(t, "resnet20", 32, 1, 10),
	}
	for _, name := range []string{"preactresnet18", "preactresnet50", "wrn-16-4", "resnet18d", "resnet50d", "seresnet18", "seresnet50"} {
		for _, size := range []int{32, 224} {
			c := network(t, name, size, 3, 5)
			c.Filters, c.StemFilters = 8, min(c.StemFilters, 6)
			for stage := range c.Blocks {
				c.Blocks[stage] = min(c.Blocks[stage], 1+stage%2)
			}
			c.Name = Name(c)
			cases = append(cases, c)
		}
	}
	for _, name := range []string{"resnet9", "resnet8w"} {
		c := network(t, name, 32, 3, 10)
		c.Dirac, c.FixedGamma, c.NormRate = false, false, 0 // of training alone
		more := c
		more.Filters, more.Blocks, more.Name = 6, []int{2, 1, 3}, Name(c)
		if more.Block == model.Single {
			more.Widen, more.Stem, more.Whiten, more.WhitenPad, more.StemFilters = []int{1, 3, 2}, model.SmallStem, 0, false, 5
		}
		more.Name = Name(more)
		cases = append(cases, c, more)
	}
	if !testing.Short() {
		cases = append(cases, network(t, "resnet18", 32, 3, 10), network(t, "resnet50", 224, 3, 1000), network(t, "resnet110", 32, 3, 100), network(t, "wrn-28-10", 32, 3, 10))
	}
	for _, want := range cases {
		want.Height, want.Width = 0, 0 // weights do not say
		tensors := weights(t, want)
		for _, prefix := range []string{"", "module.", "_orig_mod.model."} {
			var file []safetensors.Named
			for _, n := range tensors {
				file = append(file, safetensors.Named{Name: prefix + n.Name, Tensor: n.Tensor})
				if layer, ok := strings.CutSuffix(n.Name, ".running_var"); ok {
					file = append(file, safetensors.Named{Name: prefix + layer + ".num_batches_tracked", Tensor: tensor.Of([]int64{700})})
				}
			}
			slices.Reverse(file)
			m, err := Recognise(file)
			if err != nil {
				t.Errorf("%s with prefix %q: %v", want.Name, prefix, err)
				continue
			}
			if !equalConfig(m.Config, want) || len(m.Unmapped) > 0 || m.Steps != 700 {
				t.Errorf("prefix %q: got %+v, steps %d, unmapped %v; want %+v", prefix, m.Config, m.Steps, m.Unmapped, want)
			}
			if len(m.Tensors) != len(tensors) {
				t.Fatalf("%s: %d tensors, want %d", want.Name, len(m.Tensors), len(tensors))
			}
			for i, n := range m.Tensors {
				if n.Name != tensors[i].Name || !slices.Equal(n.Tensor.Float32s(), tensors[i].Tensor.Float32s()) {
					t.Fatalf("%s: tensor %d is %s, want %s with the same numbers", want.Name, i, n.Name, tensors[i].Name)
				}
			}
			if said := strings.Join(m.Recognised, "\n"); prefix != "" && !strings.Contains(said, prefix) || !strings.Contains(said, want.Name) {
				t.Errorf("it says %q", said)
			}
		}
	}
}

func equalConfig(a, b model.Config) bool {
	return reflect.DeepEqual(a, b)
}

// Other names of the same layers: those of akamaster's and kuangliu's CIFAR
// networks, and those of transformers.
func TestSchemes(t *testing.T) {
	for about, rename := range map[string]*strings.Replacer{
		"linear, shortcut": strings.NewReplacer("fc.", "linear.", ".downsample.", ".shortcut."),
		"embedder": strings.NewReplacer("layer1.", "resnet.encoder.stages.0.layers.", "layer2.", "resnet.encoder.stages.1.layers.",
			".conv1.", ".layer.0.convolution.", ".conv2.", ".layer.1.convolution.", ".bn1.", ".layer.0.normalization.", ".bn2.", ".layer.1.normalization.",
			".downsample.0.", ".shortcut.convolution.", ".downsample.1.", ".shortcut.normalization.",
			"conv1.", "resnet.embedder.embedder.convolution.", "bn1.", "resnet.embedder.embedder.normalization.", "fc.", "classifier.1."),
		"resnetv2": strings.NewReplacer("layer1.", "stages.0.blocks.", "layer2.", "stages.1.blocks.", ".bn", ".norm", ".downsample.0.", ".downsample.conv.",
			"conv1.weight", "stem.conv.weight", ".conv1.weight", ".conv1.weight", "fc.", "head.fc."),
		"group0": strings.NewReplacer("layer1.", "group0.block", "layer2.", "group1.block", ".bn1.", ".bn0.", ".bn2.", ".bn1.", ".conv1.", ".conv0.", ".conv2.", ".conv1.",
			".downsample.0.", ".convdim.", "conv1.", "conv0.", "norm.", "bn."),
	} {
		c := small(model.Basic, model.Projection, model.SmallStem)
		if about == "resnetv2" || about == "group0" {
			c.PreAct = true
			c.Name = Name(c)
		}
		var file []safetensors.Named
		for _, n := range weights(t, c) {
			file = append(file, safetensors.Named{Name: rename.Replace(n.Name), Tensor: n.Tensor})
		}
		m, err := Recognise(file)
		if err != nil {
			t.Errorf("%s: %v", about, err)
			continue
		}
		if !equalConfig(m.Config, c) || len(m.Unmapped) > 0 || !strings.Contains(strings.Join(m.Recognised, "\n"), about) {
			t.Errorf("%s: got %+v, unmapped %v, says %q", about, m.Config, m.Unmapped, m.Recognised)
		}
	}
}

// What has no place is listed, and what is no residual network of ours refused
// with the tensor that says so.
func TestRecogniseRefuses(t *testing.T) {
	c := small(model.Basic, model.Projection, model.SmallStem)
	change := func(edit func(map[string]tensor.Tensor)) []safetensors.Named {
		byName := map[string]tensor.Tensor{}
		for _, n := range weights(t, c) {
			byName[n.Name] = n.Tensor
		}
		edit(byName)
		var out []safetensors.Named
		for name, x := range byName {
			out = append(out, safetensors.Named{Name: name, Tensor: x})
		}
		return out
	}
	m, err := Recognise(change(func(m map[string]tensor.Tensor) {
		m["layer2.1.se.fc1.weight"] = tensor.New(tensor.Float32, 2)
		m["layer10.extra"] = tensor.New(tensor.Float32, 2)
	}))
	if err != nil || !slices.Equal(m.Unmapped, []string{"layer10.extra", "layer2.1.se.fc1.weight"}) {
		t.Errorf("unmapped %v, %v", m, err)
	}
	for want, edit := range map[string]func(map[string]tensor.Tensor){
		"layer2.0.conv1.weight has shape [9,4,3,3]": func(m map[string]tensor.Tensor) {
			m["layer2.0.conv1.weight"] = tensor.New(tensor.Float32, 9, 4, 3, 3)
		},
		"needs layer1.0.bn2.running_var": func(m map[string]tensor.Tensor) { delete(m, "layer1.0.bn2.running_var") },
		"a stem of 5×5":                  func(m map[string]tensor.Tensor) { m["conv1.weight"] = tensor.New(tensor.Float32, 4, 3, 5, 5) },
		"there is no tensor fc.weight":   func(m map[string]tensor.Tensor) { delete(m, "fc.weight") },
		"fc.weight has shape [70368744177664,0]": func(m map[string]tensor.Tensor) { // of no bytes in a file
			m["fc.weight"] = tensor.New(tensor.Float32, 1<<46, 0)
			delete(m, "fc.bias")
		},
		"no tensor layer1.0.conv1.weight": func(m map[string]tensor.Tensor) { delete(m, "layer1.0.conv1.weight") },
		"the square kernel":               func(m map[string]tensor.Tensor) { m["conv1.weight"] = tensor.New(tensor.Float32, 4, 3) },
		"want floating-point numbers":     func(m map[string]tensor.Tensor) { m["bn1.bias"] = tensor.New(tensor.Int64, 4) },
		"no tensor has the name of one":   func(m map[string]tensor.Tensor) { clear(m); m["a"] = tensor.Scalar(1) },
		"needs layer2.1.bn2.weight, layer2.": func(m map[string]tensor.Tensor) { // cut short
			for name := range m {
				if strings.HasPrefix(name, "layer2.1.bn2") {
					delete(m, name)
				}
			}
		},
	} {
		if m, err := Recognise(change(edit)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v; want an error with %q", m, err, want)
		}
	}
}

// Half precision becomes float32 exactly; what float32 does not hold is counted.
func TestPrecisions(t *testing.T) {
	c := small(model.Basic, model.PadShortcut, model.SmallStem)
	file := weights(t, c)
	for i, n := range file {
		switch n.Name {
		case "bn1.weight":
			file[i].Tensor = tensor.OfBits(tensor.BFloat16, []uint16{0x3f80, 0x3fc0, 0xbf80, 0x4000}, 4) // 1, 1.5, -1, 2
		case "bn1.bias":
			file[i].Tensor = tensor.OfBits(tensor.Float16, []uint16{0x3c00, 0x3e00, 0xbc00, 0x0001}, 4) // 1, 1.5, -1, 2^-24
		case "fc.bias":
			file[i].Tensor = tensor.Of([]float64{0.1, 0.5, 2, 3, math.Pi}, 5)
		}
	}
	m, err := Recognise(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]float32{
		"bn1.weight": {1, 1.5, -1, 2}, "bn1.bias": {1, 1.5, -1, 1.0 / (1 << 24)}, "fc.bias": {0.1, 0.5, 2, 3, math.Pi},
	} {
		if got, _ := m.Tensor(name); !slices.Equal(got.Float32s(), want) {
			t.Errorf("%s: %v, want %v", name, got.Float32s(), want)
		}
	}
	if last := m.Recognised[len(m.Recognised)-1]; last != "2 numbers are rounded from float64 to float32" {
		t.Errorf("says %q", last)
	}
}

// Metadata survive the way to text and back, and the text is always the same.
func TestMetadata(t *testing.T) {
	c := small(model.Basic, model.Projection, model.SmallStem)
	c.Height, c.Width = 8, 8
	byName := map[string]tensor.Tensor{}
	for _, n := range weights(t, c) {
		byName[n.Name] = n.Tensor
	}
	m, err := Build(c, byName)
	if err != nil {
		t.Fatal(err)
	}
	m.Classes, m.Steps = []string{"a", "b", "c", "d", "é<"}, 12
	m.Golden = []Golden{{Picture: []byte{1, 2, 3}, Logits: []float32{0.1, 1e-20, -3, 4, 5}}}
	text, err := m.WriteMetadata()
	if err != nil {
		t.Fatal(err)
	}
	got, ok, err := Config(text)
	if err != nil || !ok || !equalConfig(got, c) {
		t.Fatalf("%+v %v %v", got, ok, err)
	}
	back, err := Build(got, byName)
	if err == nil {
		err = back.ReadMetadata(text)
	}
	if err != nil || !slices.Equal(back.Classes, m.Classes) || back.Steps != 12 || !slices.Equal(back.Golden[0].Logits, m.Golden[0].Logits) {
		t.Fatalf("%+v, %v", back, err)
	}
	again, err := back.WriteMetadata()
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range text {
		if again[key] != value {
			t.Errorf("%s: %s, want %s", key, again[key], value)
		}
	}
	for key, bad := range map[string]string{
		"classes": `["a"]`, "golden": `[{"picture":"","logits":[1]}]`, "preprocess": `{"height":-1}`, "steps": "-1", "model": `{"name":`,
	} {
		text, _ := m.WriteMetadata()
		text[key] = bad
		_, _, err := Config(text)
		fresh, buildErr := Build(c, byName)
		if buildErr != nil {
			t.Fatal(buildErr)
		}
		if err == nil {
			err = fresh.ReadMetadata(text)
		}
		if err == nil {
			t.Errorf("metadata %s %q: no error", key, bad)
		}
	}
}

// Convolutions with biases, and without batch normalisation, are recognised as
// what they are.
func TestRecogniseBiases(t *testing.T) {
	for _, norm := range []model.Norm{"", model.NoNorm} {
		c := small(model.Basic, model.Projection, model.SmallStem)
		c.ConvBias, c.Norm = true, norm
		m, err := Recognise(weights(t, c))
		if err != nil {
			t.Fatal(err)
		}
		if !m.Config.ConvBias || m.Config.Norm != norm || len(m.Unmapped) > 0 {
			t.Errorf("norm %q: got %+v, unmapped %v", norm, m.Config, m.Unmapped)
		}
	}
}

// The order of torchvision's state_dict (torchvision 0.29, resnet18 and resnet50:
// list(net.state_dict())), of which this is the pattern.
func TestStateDict(t *testing.T) {
	c := small(model.Bottleneck, model.Projection, model.LargeStem)
	m, err := Recognise(weights(t, c))
	if err != nil {
		t.Fatal(err)
	}
	m.Steps = 77
	var layers []string
	counts := 0
	for _, n := range m.StateDict() {
		layer := n.Name[:strings.LastIndexByte(n.Name, '.')]
		if len(layers) == 0 || layers[len(layers)-1] != layer {
			layers = append(layers, layer)
		}
		if steps, ok := BatchesTracked(n); ok {
			counts++
			if steps != 77 {
				t.Errorf("%s is %d, want 77", n.Name, steps)
			}
		}
	}
	block := func(name string, shortcut bool) string {
		text := ""
		for _, l := range []string{"conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1"} {
			if shortcut || !strings.HasPrefix(l, "downsample") {
				text += name + "." + l + " "
			}
		}
		return text
	}
	want := "conv1 bn1 " + block("layer1.0", true) + block("layer2.0", true) + block("layer2.1", false) + "fc"
	if got := strings.Join(layers, " "); got != want || counts != 12 {
		t.Errorf("got %s with %d counts, want %s with 12", got, counts, want)
	}
}

// Every network of the literature has its own name, also with another stem, and a
// variant of one has not its name.
func TestName(t *testing.T) {
	for _, name := range model.Names() {
		for _, size := range []int{32, 224} {
			c, err := model.Named(name, model.Torch, size, size, 3, 10)
			if err != nil {
				t.Fatal(err)
			}
			if got := Name(c); got != name {
				t.Errorf("%s at %d pixels is called %s", name, size, got)
			}
			for what, change := range map[string]func(c *model.Config){
				"pre-activation":     func(c *model.Config) { c.PreAct = !c.PreAct },
				"squeeze-excitation": func(c *model.Config) { c.SE = !c.SE },
				"averages":           func(c *model.Config) { c.AvgDown = !c.AvgDown },
				"stem":               func(c *model.Config) { c.StemFilters = 11 },
				"filters":            func(c *model.Config) { c.Filters += 2 },
			} {
				other := c
				if change(&other); other.Check() != nil {
					continue
				}
				// A change may lead from one name to another, such as seresnet18's to resnet18.
				if got := Name(other); got == name {
					t.Errorf("%s with other %s is called so too", name, what)
				}
			}
		}
	}
}
