// Package golden holds results of Keras and PyTorch, and the numbers they were
// computed from, for tests of everything that claims to compute the same. Only
// tests import it; it imports nothing of ours.
//
// # Numbers from a formula
//
// Weights, images and labels are not stored: Python and Go compute them alike,
// without a rounding that could differ. Element i of the tensor called name is
//
//	word(name, i) = mix(fnv1a64(name) + (i+1)·0x9e3779b97f4a7c15)   modulo 2⁶⁴
//	u(name, i)    = (word >> 11)·2⁻⁵² − 1                           in [-1,1)
//
// where fnv1a64 is the FNV-1a hash of the name's UTF-8 bytes and mix is
// SplitMix64's output function (Steele, Lea, Flood 2014,
// https://doi.org/10.1145/2714064.2660195). Names are torchvision's for every
// framework (layer2.0.downsample.1.running_var), and i counts in torchvision's
// order: [OC,C,KH,KW] for convolutions, [OC,C] for the dense layer.
//
// # Digests
//
// Large results are stored as a [Digest]: the Euclidean norm, four projections
// on fixed random directions, and four elements at fixed places.
//
// The files are written by the Python scripts beside them; README.md says how.
package golden

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// How many projections and elements a Digest keeps.
const (
	projections = 4
	samples     = 4
)

const gamma = 0x9e3779b97f4a7c15

func hash(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return h
}

// word returns the 64 bits of element i of the tensor whose name has the hash h.
func word(h uint64, i int) uint64 {
	z := h + (uint64(i)+1)*gamma
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func value(h uint64, i int) float64 { return float64(word(h, i)>>11)*0x1p-52 - 1 }

// half is (u+1)/2, in [0,1).
func half(h uint64, i int) float64 { return float64(word(h, i)>>11) * 0x1p-53 }

// Value returns u(name, i), uniform in [-1,1).
func Value(name string, i int) float64 { return value(hash(name), i) }

// Values returns u(name, 0), …, u(name, n-1).
func Values(name string, n int) []float64 {
	h := hash(name)
	v := make([]float64, n)
	for i := range v {
		v[i] = value(h, i)
	}
	return v
}

// Weight returns the initial values of the variable with this torchvision name
// and shape:
//
//	kernel [OC,C,KH,KW], dense [OC,C]   √(6/(fan_in+fan_out))·u, fans with the receptive field
//	….weight, ….running_var  [C]        1 + 0.1·u
//	….bias, ….running_mean   [C]        0.1·u
//
// It panics where no rule fits, which is a mistake in the test that calls it.
func Weight(name string, shape []int) []float64 {
	n := 1
	for _, d := range shape {
		n *= d
	}
	v := Values(name, n)
	switch {
	case len(shape) > 1:
		field := 1
		for _, d := range shape[2:] {
			field *= d
		}
		limit := math.Sqrt(6 / float64((shape[0]+shape[1])*field))
		for i := range v {
			v[i] *= limit
		}
	case strings.HasSuffix(name, ".weight"), strings.HasSuffix(name, ".running_var"):
		for i := range v {
			v[i] = 1 + float64(0.1*v[i]) // the conversion forbids a fused multiply-add
		}
	case strings.HasSuffix(name, ".bias"), strings.HasSuffix(name, ".running_mean"):
		for i := range v {
			v[i] *= 0.1
		}
	default:
		panic(fmt.Sprintf("golden: weight %s: no rule for this name with shape %v", name, shape))
	}
	return v
}

// Images returns a batch, [N,H,W,C] in [0,1): (u+1)/2 of "images/<batch>".
func Images(batch, n, h, w, c int) []float64 {
	return Halves(fmt.Sprintf("images/%d", batch), n*h*w*c)
}

// Halves returns elements of the tensor of that name, (u+1)/2 in [0,1).
func Halves(name string, count int) []float64 {
	h := hash(name)
	v := make([]float64, count)
	for i := range v {
		v[i] = half(h, i)
	}
	return v
}

// Labels returns a batch's classes: ⌊classes·(u+1)/2⌋ of "labels/<batch>".
func Labels(batch, n, classes int) []int {
	name := hash(fmt.Sprintf("labels/%d", batch))
	v := make([]int, n)
	for i := range v {
		v[i] = int(float64(classes) * half(name, i))
	}
	return v
}

// Digest is what is kept of a tensor.
type Digest struct {
	N           int       `json:"n"`    // number of elements
	Norm        float64   `json:"norm"` // √Σx²
	Projections []float64 `json:"proj"` // [k] = Σ u("proj/<k>/<name>", i)·x[i]
	Samples     []float64 `json:"at"`   // [k] = x[⌊N·(u("at/<k>/<name>", 0)+1)/2⌋]
}

// NewDigest returns the digest of the values of the tensor called name.
func NewDigest(name string, values []float64) Digest {
	d := Digest{N: len(values), Projections: make([]float64, projections)}
	var square float64
	for _, x := range values {
		square += x * x
	}
	d.Norm = math.Sqrt(square)
	for k := range d.Projections {
		h := hash(fmt.Sprintf("proj/%d/%s", k, name))
		var sum float64
		for i, x := range values {
			sum += value(h, i) * x
		}
		d.Projections[k] = sum
	}
	for k := range samples {
		if len(values) > 0 {
			at := half(hash(fmt.Sprintf("at/%d/%s", k, name)), 0)
			d.Samples = append(d.Samples, values[int(float64(len(values))*at)])
		}
	}
	return d
}

// Compare returns the worst relative error of d against want, and what it is an
// error of: "norm", "projection k", "sample k" or "count". Norm and projections
// are measured in units of want's norm (a projection may happen to be near
// zero), samples in units of the sample or of want's root mean square,
// whichever is larger. The error is +Inf if the counts differ, a number is not
// finite, or want is all zero and d is not.
func (d Digest) Compare(want Digest) (worst float64, where string) {
	if d.N != want.N || len(d.Projections) != len(want.Projections) || len(d.Samples) != len(want.Samples) {
		return math.Inf(1), "count"
	}
	worst, where = relative(d.Norm, want.Norm, want.Norm), "norm"
	for k, x := range want.Projections {
		if e := relative(d.Projections[k], x, want.Norm); e > worst {
			worst, where = e, fmt.Sprintf("projection %d", k)
		}
	}
	rms := want.Norm / math.Sqrt(float64(want.N))
	for k, x := range want.Samples {
		if e := relative(d.Samples[k], x, max(rms, math.Abs(x))); e > worst {
			worst, where = e, fmt.Sprintf("sample %d", k)
		}
	}
	return worst, where
}

// relative is |got-want|/scale, 0 where both are equal, +Inf where that is no number.
func relative(got, want, scale float64) float64 {
	if got == want {
		return 0
	}
	if e := math.Abs(got-want) / scale; !math.IsNaN(e) {
		return e
	}
	return math.Inf(1)
}

// Difference returns the worst relative error of got against want, element by
// element, in units of the element or of want's root mean square, whichever is
// larger, and the element's index. Different lengths are an error of +Inf at -1.
func Difference(got, want []float64) (worst float64, index int) {
	if len(got) != len(want) {
		return math.Inf(1), -1
	}
	var square float64
	for _, x := range want {
		square += x * x
	}
	rms := math.Sqrt(square / float64(len(want)))
	for i, x := range want {
		if e := relative(got[i], x, max(rms, math.Abs(x))); e > worst {
			worst, index = e, i
		}
	}
	return worst, index
}

// CheckValues fails the test unless got is within limit of want by Difference.
// It returns the error found, for tests that report what was reached.
func CheckValues(t testing.TB, what string, got, want []float64, limit float64) float64 {
	t.Helper()
	if len(want) == 0 {
		t.Errorf("golden: %s: nothing to compare with", what)
	}
	if len(got) != len(want) {
		t.Errorf("%s: got %d values, want %d", what, len(got), len(want))
		return math.Inf(1)
	}
	worst, i := Difference(got, want)
	if !(worst <= limit) {
		t.Errorf("%s: element %d is %v, want %v: relative error %.3g, limit %.3g", what, i, got[i], want[i], worst, limit)
	}
	return worst
}

// CheckDigests fails the test unless got has exactly the tensors of want and
// the digest of each is within limit. It returns the worst error found.
func CheckDigests(t testing.TB, what string, got map[string][]float64, want map[string]Digest, limit float64) float64 {
	t.Helper()
	if len(want) == 0 {
		t.Errorf("golden: %s: nothing to compare with", what)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: got %s, which the golden file does not have", what, name)
		}
	}
	var worst float64
	for _, name := range slices.Sorted(maps.Keys(want)) {
		values, ok := got[name]
		if !ok {
			t.Errorf("%s: %s is missing", what, name)
			continue
		}
		if len(values) != want[name].N {
			t.Errorf("%s: %s has %d values, want %d", what, name, len(values), want[name].N)
			continue
		}
		e, where := NewDigest(name, values).Compare(want[name])
		if !(e <= limit) {
			t.Errorf("%s: %s: %s: relative error %.3g, limit %.3g", what, name, where, e, limit)
		}
		worst = max(worst, e)
	}
	return worst
}

// File is one golden file.
type File struct {
	Case     string            `json:"case"`
	Note     string            `json:"note"`
	Script   string            `json:"script"`
	Command  string            `json:"command"`
	Versions map[string]string `json:"versions"`

	Network   Network                      `json:"network"`
	Optimizer Optimizer                    `json:"optimizer"`
	Values    map[string][]float64         `json:"values"`  // small results, in full
	Digests   map[string]map[string]Digest `json:"digests"` // section → tensor → digest
	Ops       []Op                         `json:"ops"`
	Counts    map[string]Count             `json:"counts"` // by the network's name
	Pictures  []Picture                    `json:"pictures"`
}

// Picture is what an operation with some values makes of a picture: its bytes.
type Picture struct {
	Op     string    `json:"op"`
	Values []float64 `json:"values"`
	File   []byte    `json:"file"` // that is decoded, where this is the operation; the values are height and width
	Bytes  []byte    `json:"picture"`
}

// Count is the size of a network: its trainable parameters, and its
// multiply-accumulates for one square image.
type Count struct {
	Classes    int   `json:"classes"`
	Size       int   `json:"size"` // height and width
	Parameters int64 `json:"parameters"`
	MACs       int64 `json:"macs"`
}

// Network says which network a file is about.
type Network struct {
	Convention string  `json:"convention"` // "keras" or "torch": padding, batch norm
	Block      string  `json:"block"`      // "basic", "bottleneck", "pooled" (ResNet-9) or "single" (airbench)
	Stem       string  `json:"stem"`       // "small" (3×3), "large" (7×7 stride 2 and max-pool), "deep" (three 3×3) or "whiten"
	Shortcut   string  `json:"shortcut"`   // "projection" or "pad" (option A)
	Blocks     []int   `json:"blocks"`     // per stage
	Filters    int     `json:"filters"`    // of the first stage
	Classes    int     `json:"classes"`
	Batch      int     `json:"batch"`
	FirstBatch int     `json:"first_batch"` // step k trains on batch FirstBatch+k; margins.py says why
	Height     int     `json:"height"`
	Width      int     `json:"width"`
	L2         float64 `json:"l2"` // penalty l2·Σkernel² of the dense layer, part of the loss

	StemFilters int  `json:"stem_filters"` // 0: filters
	PreAct      bool `json:"preact"`
	AvgDown     bool `json:"avg_down"`
	SE          bool `json:"se"`

	Whiten     int     `json:"whiten"` // side of the kernel of the stem "whiten"
	WhitenPad  bool    `json:"whiten_pad"`
	Widen      []int   `json:"widen"` // filters of each stage by those of the first; null: doubled
	FixedGamma bool    `json:"fixed_gamma"`
	NormRate   float64 `json:"norm_rate"`   // 0: the convention's
	LogitScale float64 `json:"logit_scale"` // 0: that of the blocks
}

// Images returns the images of a step of the file's network, [N,H,W,3].
func (n Network) Images(step int) []float64 {
	return Images(n.FirstBatch+step, n.Batch, n.Height, n.Width, 3)
}

// Labels returns the classes of a step of the file's network.
func (n Network) Labels(step int) []int { return Labels(n.FirstBatch+step, n.Batch, n.Classes) }

// Optimizer says which update the steps of a file made.
type Optimizer struct {
	Name         string  `json:"name"` // "adam", "sgd", "adamw"
	Form         string  `json:"form"` // "keras" or "torch"
	LearningRate float64 `json:"learning_rate"`
	Momentum     float64 `json:"momentum"`
	Nesterov     bool    `json:"nesterov"`
	Beta1        float64 `json:"beta1"`
	Beta2        float64 `json:"beta2"`
	Epsilon      float64 `json:"epsilon"`
	WeightDecay  float64 `json:"weight_decay"` // of every parameter, batch norm and bias included
	Steps        int     `json:"steps"`
}

// Op is one op on small tensors. Activations are [N,H,W,C], kernels
// [OC,C,KH,KW], dense kernels [OC,C]. The outputs "out" and, where the op has
// one, others by name come with the gradients "d_<input>" of Σ out·dOut.
type Op struct {
	Name       string         `json:"name"`
	Op         string         `json:"op"`
	Attributes map[string]any `json:"attributes"` // numbers are float64, lists []any
	Inputs     map[string]struct {
		Rule  string `json:"rule"`
		Shape []int  `json:"shape"`
	} `json:"inputs"`
	Outputs map[string]Output `json:"outputs"`
}

// Output is a result of an Op: all its values, or a digest under the output's name.
type Output struct {
	Shape  []int     `json:"shape"`
	Values []float64 `json:"values"`
	Digest *Digest   `json:"digest"`
}

// Float returns a numeric attribute, and 0 where the op has none of that name.
func (o Op) Float(name string) float64 { x, _ := o.Attributes[name].(float64); return x }

// Int returns a numeric attribute, and 0 where the op has none of that name.
func (o Op) Int(name string) int { return int(o.Float(name)) }

// Ints returns a list of whole numbers, nil where the op has none of that name.
func (o Op) Ints(name string) []int {
	list, _ := o.Attributes[name].([]any)
	var v []int
	for _, x := range list {
		f, _ := x.(float64)
		v = append(v, int(f))
	}
	return v
}

// Input computes an input by its rule; its elements are those of the tensor
// "<op's name>.<input's name>".
//
//	u        u
//	ties     ⌊4·(u+1)/2⌋, so that a maximum meets equals
//	ties-2   the same, less 2
//	labels   ⌊classes·(u+1)/2⌋, classes being the attribute
//	weight   as Weight does it (γ, β and statistics of a batch norm)
//	unit     (u+1)/2
func (o Op) Input(t testing.TB, name string) (values []float64, shape []int) {
	t.Helper()
	in, ok := o.Inputs[name]
	if !ok {
		t.Fatalf("golden: op %s has no input %q", o.Name, name)
	}
	n := 1
	for _, d := range in.Shape {
		n *= d
	}
	full := o.Name + "." + name
	h := hash(full)
	v := make([]float64, n)
	for i := range v {
		switch in.Rule {
		case "u":
			v[i] = value(h, i)
		case "unit":
			v[i] = half(h, i)
		case "ties":
			v[i] = math.Floor(4 * half(h, i))
		case "ties-2":
			v[i] = math.Floor(4*half(h, i)) - 2
		case "labels":
			v[i] = math.Floor(o.Float("classes") * half(h, i))
		case "weight":
		default:
			t.Fatalf("golden: op %s: input %s has the unknown rule %q", o.Name, name, in.Rule)
		}
	}
	if in.Rule == "weight" {
		v = Weight(full, in.Shape)
	}
	return v, in.Shape
}

// Check fails the test unless got is within limit of the output called name, by
// Difference or Digest.Compare. It returns the error found.
func (o Op) Check(t testing.TB, name string, got []float64, limit float64) float64 {
	t.Helper()
	want, ok := o.Outputs[name]
	if !ok {
		t.Errorf("golden: op %s has no output %q", o.Name, name)
		return math.Inf(1)
	}
	what := o.Name + ": " + name
	if want.Digest != nil {
		return CheckDigests(t, what, map[string][]float64{name: got}, map[string]Digest{name: *want.Digest}, limit)
	}
	return CheckValues(t, what, got, want.Values, limit)
}

//go:embed *.json *.txt
var files embed.FS

// commands makes the files whose names begin so.
var commands = []struct{ prefix, command string }{
	{"augment", "python golden/augment.py"},
	{"formula", "python golden/formula.py"},
	{"keras_tutorial_narrow", "python golden/keras_tutorial.py narrow"},
	{"keras_tutorial_full", "python golden/keras_tutorial.py full"},
	{"keras_ops", "python golden/keras_tutorial.py ops"},
	{"keras_summary", "python golden/keras_tutorial.py summary"},
	{"metric", "python golden/metric.py"},
	{"pictures", "python golden/pictures.py"},
	{"torch_ops", "python golden/torch_ops.py"},
	{"torch_cam", "python golden/torch_cam.py"},
	{"torch_loop", "python golden/torch_loop.py"},
	{"torch_schedules", "python golden/torch_loop.py"},
	{"torch_resnetd", "python golden/torch_variants.py"},
	{"torch_resnet9", "python golden/torch_variants.py"},
	{"torch_resnet8w", "python golden/torch_variants.py"},
	{"torch_lookahead", "python golden/airbench.py"},
	{"torch_whitening", "python golden/airbench.py"},
	{"torch_preact", "python golden/torch_variants.py"},
	{"torch_wrn", "python golden/torch_variants.py"},
	{"torch_counts", "python golden/torch_variants.py"},
	{"torch_", "python golden/torch_resnet.py"},
}

// Load reads the golden file <name>.json. A missing file fails the test with
// the command that makes it.
func Load(t testing.TB, name string) *File {
	t.Helper()
	var f File
	if err := json.Unmarshal([]byte(Text(t, name+".json")), &f); err != nil {
		t.Fatalf("golden: %s.json: %v", name, err)
	}
	return &f
}

// Text returns a golden file as it is.
func Text(t testing.TB, name string) string {
	t.Helper()
	b, err := fs.ReadFile(files, name)
	if err != nil {
		for _, c := range commands {
			if strings.HasPrefix(name, c.prefix) {
				t.Fatalf("golden: %s is missing; make it with: %s", name, c.command)
			}
		}
		t.Fatalf("golden: %s: no such file, and no script makes it", name)
	}
	return string(b)
}
