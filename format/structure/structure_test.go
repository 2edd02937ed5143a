package structure

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/golden"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// configs are all networks that package model names, narrow, with what files
// from elsewhere may add to them.
func configs(t *testing.T) []model.Config {
	var all []model.Config
	for _, name := range model.Names() {
		for _, convention := range []model.Convention{model.Torch, model.Keras} {
			for _, size := range []int{32, 96} {
				c, err := model.Named(name, convention, size, size+2, 3, 7)
				if err != nil {
					t.Fatal(err)
				}
				c.Filters = 8
				if c.StemFilters > 0 {
					c.StemFilters = 6
				}
				biased, bare, other := c, c, c
				biased.ConvBias = true
				bare.ConvBias, bare.Norm = true, model.NoNorm
				bare.FixedGamma, bare.NormRate = false, 0
				other.Epsilon = 1.001e-5
				if all = append(all, c); size > 32 {
					continue
				}
				all = append(all, biased, bare, other)
				if c.WhitenPad {
					c.WhitenPad = false
					all = append(all, c)
				}
				if c.Block == model.Bottleneck {
					c.StrideFirst = true
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// values makes tensors that can be told apart, of a network's variables.
func values(t *testing.T, c model.Config) map[string]tensor.Tensor {
	g, err := c.Graph(1)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]tensor.Tensor{}
	for _, v := range g.Variables {
		shape := model.FileShape(v.Shape)
		wide := golden.Weight(v.Name, shape)
		narrow := make([]float32, len(wide))
		for i, x := range wide {
			narrow[i] = float32(x)
		}
		out[v.Name] = tensor.Of(narrow, shape...)
	}
	return out
}

func lookup(tensors map[string]tensor.Tensor) func(string) (tensor.Tensor, bool) {
	return func(name string) (tensor.Tensor, bool) {
		x, ok := tensors[name]
		return x, ok
	}
}

// disguise writes a network as other programs do: layers and tensors with
// numbers for names, sums the other way round, padding as layers, an average
// pool and flatten for the global average, rescaling before, softmax after.
func disguise(t *testing.T, n *Network) *Network {
	d := &Network{}
	now := map[*Layer]*Layer{}
	add := func(l Layer) *Layer {
		l.Name = fmt.Sprint("layer_", len(d.Layers))
		added, err := d.Add(l)
		if err != nil {
			t.Fatal(err)
		}
		return added
	}
	for i, old := range n.Layers {
		l := *old
		l.Inputs = nil
		for _, in := range old.Inputs {
			l.Inputs = append(l.Inputs, now[in])
		}
		for _, p := range l.params() {
			if p.Present() {
				p.Name = fmt.Sprint("const_", i)
			}
		}
		if p := l.Pad; (l.Kind == Conv || l.Kind == MaxPool && old.Inputs[0].Kind == ReLU) && p != (graph.Padding{}) {
			l.Pad, l.Inputs = graph.Padding{}, []*Layer{add(Layer{Kind: Pad, Inputs: l.Inputs, Pad: p})}
		}
		switch l.Kind {
		case Input:
			now[old] = add(l)
			scaled := add(Layer{Kind: Rescale, Inputs: []*Layer{now[old]}, Gain: []float64{1.0 / 255}, Offset: []float64{0}})
			now[old] = add(Layer{Kind: Rescale, Inputs: []*Layer{scaled}, Gain: []float64{4, 5, 2}, Offset: []float64{-2, -1, 0}})
			continue
		case Add:
			slices.Reverse(l.Inputs)
		case PadChannels: // the other way round
			few := l.Inputs[0]
			wide := add(Layer{Kind: PadChannels, Inputs: few.Inputs, Before: l.Before, After: l.After})
			now[old] = add(Layer{Kind: AvgPool, Inputs: []*Layer{wide}, Size: 1, Stride: few.Stride})
			continue
		case GlobalAvgPool:
			if in := l.Inputs[0].Shape; in[0] == in[1] {
				pooled := add(Layer{Kind: AvgPool, Inputs: l.Inputs, Size: in[0], Stride: 1})
				now[old] = add(Layer{Kind: Flatten, Inputs: []*Layer{pooled}})
				continue
			}
		}
		now[old] = add(l)
	}
	add(Layer{Kind: Softmax, Inputs: []*Layer{now[n.Output]}})
	return d
}

// Every network of package model is found again behind its disguise, with each
// tensor in its place.
func TestRecognise(t *testing.T) {
	for _, c := range configs(t) {
		if testing.Short() && len(c.Blocks) > 3 && c.Blocks[2] > 6 {
			continue
		}
		want := values(t, c)
		n, err := Of(c, lookup(want))
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		r, err := Recognise(disguise(t, n), nil)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		got := r.Config
		got.Name = c.Name
		if c.Block == model.Pooled || c.Block == model.Single { // without strides nothing tells the paddings apart
			got.Convention = c.Convention
		}
		got.Dirac, got.FixedGamma, got.NormRate = c.Dirac, c.FixedGamma, c.NormRate // of training alone
		if !reflect.DeepEqual(got, c) {
			t.Errorf("recognised\n%+v, want\n%+v", got, c)
		}
		if len(r.Tensors) != len(want) {
			t.Errorf("%s: %d tensors, want %d", c.Name, len(r.Tensors), len(want))
		}
		for name, w := range want {
			if g, ok := r.Tensors[name]; !ok || !g.Shape().Equal(w.Shape()) || !slices.Equal(g.Float32s(), w.Float32s()) {
				t.Errorf("%s: tensor %s is another", c.Name, name)
			}
		}
		if !r.Softmax {
			t.Errorf("%s: the softmax is not reported", c.Name)
		}
		// Two rescalings in a row: x/255·(4,5,2) + (-2,-1,0).
		for k, w := range []float64{4.0 / 255, 5.0 / 255, 2.0 / 255} {
			if math.Abs(r.Gain[k]-w) > 1e-15 || r.Offset[k] != []float64{-2, -1, 0}[k] {
				t.Errorf("%s: channel %d is rescaled by %v + %v", c.Name, k, r.Gain[k], r.Offset[k])
			}
		}
	}
}

// Where nothing in the layers tells the conventions apart, the file's word counts;
// where they contradict the file's word, they count.
func TestExpected(t *testing.T) {
	c := model.Config{Name: "mine", Convention: model.Keras, Height: 9, Width: 9, Channels: 1, Classes: 2, Stem: model.SmallStem,
		Block: model.Basic, Shortcut: model.Projection, Blocks: []int{1, 1}, Filters: 4, Norm: model.NoNorm, ConvBias: true}
	n, err := Of(c, lookup(values(t, c))) // 9 pixels, stride 2: both pad 1 and 1
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct {
		expected *model.Config
		want     model.Convention
		name     string
	}{{nil, model.Torch, ""}, {&c, model.Keras, "mine"}} {
		r, err := Recognise(n, e.expected)
		if err != nil {
			t.Fatal(err)
		}
		if r.Config.Convention != e.want || r.Config.Name != e.name {
			t.Errorf("expecting %v: recognised %+v", e.expected, r.Config)
		}
	}
	wrong := c
	wrong.Filters = 8
	if r, err := Recognise(n, &wrong); err != nil || r.Config.Filters != 4 {
		t.Errorf("with a wrong expectation: %+v, %v", r, err)
	}
}

// Factors and summands after a convolution, which is what TensorFlow's exporter
// leaves of batch normalisation, are folded: w·x·2 + b·2 + 3 here.
func TestScaledConvolution(t *testing.T) {
	c, _ := model.Named("resnet20", model.Torch, 8, 8, 3, 5)
	c.Filters, c.Norm, c.ConvBias = 4, model.NoNorm, true
	want := values(t, c)
	n, err := Of(c, lookup(want))
	if err != nil {
		t.Fatal(err)
	}
	scaled := &Network{}
	now := map[*Layer]*Layer{}
	for _, old := range n.Layers {
		l := *old
		l.Inputs = nil
		for _, in := range old.Inputs {
			l.Inputs = append(l.Inputs, now[in])
		}
		if now[old], err = scaled.Add(l); err != nil {
			t.Fatal(err)
		}
		if old.Name == "layer1.0.conv1" {
			if now[old], err = scaled.Add(Layer{Kind: Rescale, Inputs: []*Layer{now[old]}, Gain: []float64{2}, Offset: []float64{3}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := Recognise(scaled, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		factor, summand := float32(1), float32(0)
		switch name {
		case "layer1.0.conv1.weight":
			factor = 2
		case "layer1.0.conv1.bias":
			factor, summand = 2, 3
		}
		for i, x := range w.Float32s() {
			if got := r.Tensors[name].Float32s()[i]; got != float32(float64(factor)*float64(x)+float64(summand)) {
				t.Fatalf("%s[%d] is %v, was %v", name, i, got, x)
			}
		}
	}
	if said := strings.Join(r.Notes, "\n"); !strings.Contains(said, "1 factors or further biases") {
		t.Errorf("it says %q", said)
	}
}

// What computes anything else is refused, with the layer and the reason.
func TestNearMisses(t *testing.T) {
	base, err := model.Named("resnet18", model.Torch, 96, 96, 3, 5)
	if err != nil {
		t.Fatal(err)
	}
	base.Filters = 4
	named := func(n *Network, kind Kind, name string) *Layer {
		for _, l := range n.Layers {
			if l.Kind == kind && l.Name == name {
				return l
			}
		}
		t.Fatalf("no layer %q", name)
		return nil
	}
	for what, c := range map[string]struct {
		break_ func(n *Network)
		want   string
	}{
		"ε of one layer": {func(n *Network) { named(n, BatchNorm, "layer2.1.bn2").Epsilon = 2e-5 }, `"layer2.1.bn2" is batch normalisation with ε 2e-05, want batch normalisation with ε 1e-05`},
		"padding":        {func(n *Network) { named(n, Conv, "layer3.0.conv1").Pad = graph.Padding{Bottom: 2, Right: 2} }, `"layer3.0.conv1"`},
		"max-pool":       {func(n *Network) { named(n, MaxPool, "maxpool").Kind = AvgPool }, `"maxpool" is 3×3 average pool`},
		"no ReLU": {func(n *Network) {
			named(n, Conv, "layer4.1.conv2").Inputs[0] = named(n, BatchNorm, "layer4.1.bn1")
		}, `"layer4.1.bn1" is batch normalisation with ε 1e-05, want ReLU`},
		"another shortcut": {func(n *Network) {
			named(n, Add, "layer1.1.add").Inputs[1] = named(n, MaxPool, "maxpool")
		}, `"maxpool"`},
		"softmax in the middle": {func(n *Network) { named(n, ReLU, "layer4.1.relu1").Kind = Softmax }, `"layer4.1.relu1" is softmax, want ReLU`},
		"no dense layer":        {func(n *Network) { n.Output = named(n, ReLU, "layer4.1.relu2") }, "no classifier"},
		"few convolutions": {func(n *Network) {
			for _, l := range n.Layers {
				if l.Kind == Conv && strings.HasSuffix(l.Name, "conv2") {
					l.Kind = ReLU
				}
			}
		}, "12 convolutions for 8 shortcuts"},
		"dead network": {func(n *Network) { n.Output = named(n, Input, "images") }, "no classifier"},
		"rescaling inside": {func(n *Network) {
			l := named(n, BatchNorm, "bn1")
			l.Kind, l.Gain, l.Offset = Rescale, []float64{2}, []float64{0}
		}, `"conv1" is 7×7 convolution of stride 2`}, // folded: a convolution where a batch normalisation belongs
	} {
		t.Run(what, func(t *testing.T) {
			n, err := Of(base, lookup(values(t, base)))
			if err != nil {
				t.Fatal(err)
			}
			c.break_(n)
			if _, err := Recognise(n, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

// Padding that no window reads, and a convolution without a bias among others
// with one, change nothing.
func TestEquivalents(t *testing.T) {
	c, _ := model.Named("resnet20", model.Torch, 32, 32, 3, 5)
	c.Filters, c.ConvBias = 4, true
	n, err := Of(c, lookup(values(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	unread, biases := 0, 0
	for _, l := range n.Layers {
		if l.Kind == Conv && l.Stride == 2 {
			l.Pad.Bottom, l.Pad.Right = 0, 0 // 32 rows, stride 2, one row before: the last window ends at row 31
			unread++
		}
		if l.Kind == Conv && biases < 3 {
			l.Bias = Param{}
			biases++
		}
	}
	r, err := Recognise(n, nil)
	if err != nil {
		t.Fatal(err)
	}
	if unread != 2 || r.Config.Convention != model.Torch || !strings.Contains(strings.Join(r.Notes, "\n"), "3 layers have no bias") {
		t.Errorf("%d convolutions of stride 2, recognised %+v, %q", unread, r.Config, r.Notes)
	}
	for _, l := range n.Layers { // zeros in all of them are none
		if l.Kind == Conv && l.Bias.Present() {
			l.Bias.Value = tensor.New(tensor.Float32, l.Bias.Shape...)
		}
	}
	if r, err := Recognise(n, nil); err != nil || r.Config.ConvBias || len(r.Tensors) != 19*5+2 || !strings.Contains(strings.Join(r.Notes, "\n"), "16 convolutions are zero") {
		t.Errorf("with biases of zero: %+v, %v", r, err)
	}
	if b := r.Tensors["conv1.bias"]; !slices.Equal(b.Float32s(), make([]float32, 4)) {
		t.Errorf("the missing bias is %v", b.Float32s())
	}
}

// Layers that do not fit their inputs are refused when they are added.
func TestAdd(t *testing.T) {
	param := func(shape ...int) Param { return Param{Name: "w", Shape: shape} }
	for what, l := range map[string]Layer{
		"channels":         {Kind: Conv, Stride: 1, Weight: param(4, 2, 3, 3)},
		"bias":             {Kind: Conv, Stride: 1, Weight: param(4, 3, 3, 3), Bias: param(3)},
		"stride":           {Kind: Conv, Weight: param(4, 3, 3, 3)},
		"kernel too large": {Kind: Conv, Stride: 1, Weight: param(4, 3, 9, 9)},
		"no kernel":        {Kind: Conv, Stride: 1},
		"negative padding": {Kind: Conv, Stride: 1, Weight: param(4, 3, 3, 3), Pad: graph.Padding{Top: -1}},
		"window":           {Kind: MaxPool, Size: 2, Stride: 1, Pad: graph.Padding{Top: 2}},
		"dense on a plane": {Kind: Dense, Weight: param(4, 3)},
		"norm":             {Kind: BatchNorm, Scale: param(3), Shift: param(3), Mean: param(3)},
		"huge padding":     {Kind: Pad, Pad: graph.Padding{Top: math.MaxInt}},
		"huge channels":    {Kind: PadChannels, Before: math.MaxInt, After: 1},
		"gain":             {Kind: Rescale, Gain: []float64{math.NaN()}, Offset: []float64{0}},
		"no such kind":     {Kind: 99},
		"two operands":     {Kind: Add},
	} {
		n := &Network{}
		in, err := n.Add(Layer{Kind: Input, Name: "input", Shape: tensor.Shape{6, 6, 3}})
		if err != nil {
			t.Fatal(err)
		}
		l.Inputs = []*Layer{in}
		if _, err := n.Add(l); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if _, err := (&Network{}).Add(Layer{Kind: Input, Shape: tensor.Shape{1 << 30, 1 << 30, 3}}); err == nil {
		t.Error("a picture of 2^60 pixels is accepted")
	}
	vector := &Layer{Kind: GlobalAvgPool, Shape: tensor.Shape{3}}
	for _, l := range []Layer{
		{Kind: MaxPool, Size: 1, Stride: 1}, {Kind: AvgPool, Size: 1, Stride: 1}, {Kind: GlobalAvgPool}, {Kind: Pad},
		{Kind: Subsample, Stride: 1}, {Kind: PadChannels, After: 1}, {Kind: Multiply, Inputs: []*Layer{vector}},
	} {
		l.Inputs = append(l.Inputs, vector)
		if _, err := (&Network{}).Add(l); err == nil {
			t.Errorf("%v of a vector is accepted", l.Kind)
		}
	}
}

func TestPreprocess(t *testing.T) {
	// ImageNet's: (x/255 - 0.485)/0.229 = x·0.017124753831663668 - 2.1179039301310043.
	mean, std, err := Preprocess([]float64{0.017124753831663668}, []float64{-2.1179039301310043}, 1.0/255)
	if err != nil || math.Abs(mean[0]-0.485) > 1e-12 || math.Abs(std[0]-0.229) > 1e-12 {
		t.Errorf("mean %v, std %v, %v", mean, std, err)
	}
	if _, _, err := Preprocess([]float64{0}, []float64{1}, 1); err == nil {
		t.Error("a gain of 0 is accepted")
	}
}
