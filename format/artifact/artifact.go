// Package artifact is a trained network outside a run directory: what every
// file format reads and writes. It is plain data; package format knows the
// formats and the way to and from run directories.
package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// Model is a network with its weights and with what is needed to use it.
type Model struct {
	// Config is the network. Height and Width are 0 where a file does not say
	// for which pictures it was trained: weights alone do not.
	Config model.Config

	// Tensors are the parameters and moving statistics of Config: exactly its
	// variables, in its order, float32, with torchvision's names and layout
	// (kernels [OC,C,KH,KW], dense [OC,C]). Build makes them so.
	Tensors []safetensors.Named

	Classes    []string           // names in the order of the outputs; nil: not known
	Preprocess *loader.Preprocess // nil: not known
	Golden     []Golden           // what the network answers to a few pictures

	// Steps is how many updates made the weights, PyTorch's num_batches_tracked;
	// 0 where it is not known.
	Steps int

	// Checksum is what the file says SHA256 is, "" where it does not say.
	Checksum string

	// Recognised says in sentences how Config and Tensors came out of a file;
	// Unmapped names the tensors of the file that have no place in Config.
	Recognised []string
	Unmapped   []string
}

// Golden is an encoded picture with the network's answer, so that whoever reads
// the model can prove the whole way: decode, resize, normalise, network.
type Golden struct {
	Picture []byte    `json:"picture"` // a PNG file; base64 in JSON
	Logits  []float32 `json:"logits"`  // before softmax
}

// Graph is the network for one image, whose variables Tensors are.
// Where the size of the pictures is not known it is that of the stem's home.
func (m *Model) Graph() (*graph.Graph, error) { return Sized(m.Config).Graph(1) }

// Sized fills in height and width where they are not known: 32×32 for the stem
// of small images, 224×224 for that of photographs. Of a network with global
// average pooling no weight depends on them.
func Sized(c model.Config) model.Config {
	size := 32
	if c.Stem == model.LargeStem || c.Stem == model.DeepStem {
		size = 224
	}
	if c.Height == 0 {
		c.Height = size
	}
	if c.Width == 0 {
		c.Width = size
	}
	return c
}

// Build makes a Model of c from tensors by torchvision's names, in torchvision's
// layout and any floating-point type. Tensors that are missing or of another
// shape are an error that names them; names that c has no place for go to
// Unmapped. Values that float32 does not hold exactly are counted in Recognised.
func Build(c model.Config, tensors map[string]tensor.Tensor, recognised ...string) (*Model, error) {
	m := &Model{Config: c, Recognised: recognised}
	g, err := m.Graph()
	if err != nil {
		return nil, err
	}
	var missing []string
	place := map[string]bool{}
	rounded := 0
	for _, v := range g.Variables {
		place[v.Name] = true
		t, ok := tensors[v.Name]
		if !ok {
			missing = append(missing, v.Name)
			continue
		}
		if !IsFloat(t.DType()) {
			return nil, fmt.Errorf("tensor %s is %v, want floating-point numbers", v.Name, t.DType())
		}
		if want := model.FileShape(v.Shape); !t.Shape().Equal(want) {
			return nil, fmt.Errorf("tensor %s has shape %v, the network wants %v", v.Name, t.Shape(), want)
		}
		value, lost := Float32(t)
		rounded += lost
		m.Tensors = append(m.Tensors, safetensors.Named{Name: v.Name, Tensor: value})
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("model %s needs %s, which the file does not have", c.Name, Few(missing))
	}
	for name := range tensors {
		if !place[name] {
			m.Unmapped = append(m.Unmapped, name)
		}
	}
	sortNatural(m.Unmapped)
	if rounded > 0 {
		m.Recognised = append(m.Recognised, fmt.Sprintf("%d numbers are rounded from float64 to float32", rounded))
	}
	return m, nil
}

// IsFloat reports whether numbers of that type are floating-point.
func IsFloat(d tensor.DType) bool {
	return d == tensor.Float32 || d == tensor.Float64 || d == tensor.Float16 || d == tensor.BFloat16
}

// Float32 returns t as float32, a float32 tensor itself, and how many numbers
// changed by that: none from half precision.
func Float32(t tensor.Tensor) (value tensor.Tensor, rounded int) {
	if t.DType() == tensor.Float32 {
		return t, 0
	}
	value = t.Convert(tensor.Float32)
	if t.DType() == tensor.Float64 {
		narrow := value.Float32s()
		for i, x := range t.Float64s() {
			if y := float64(narrow[i]); y != x && !math.IsNaN(x) {
				rounded++
			}
		}
	}
	return value, rounded
}

// Tensor returns the tensor of that name; ok is false where there is none.
func (m *Model) Tensor(name string) (t tensor.Tensor, ok bool) {
	for _, n := range m.Tensors {
		if n.Name == name {
			return n.Tensor, true
		}
	}
	return t, false
}

// SHA256 is the sum, in hexadecimal, of the network's parameters: for each of Tensors
// a line "name [axes]" and its float32 numbers, little-endian. Formats change nothing
// of it. Unlike golden vectors it tells a flipped bit from rounding.
func (m *Model) SHA256() string {
	sum := sha256.New()
	for _, n := range m.Tensors {
		fmt.Fprintf(sum, "%s %v\n", n.Name, n.Tensor.Shape())
		_ = tensor.Write(sum, n.Tensor) // a hash takes all
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// ClassNames returns Classes or, where they are not known, the numbers from 0.
func (m *Model) ClassNames() []string {
	if m.Classes != nil {
		return m.Classes
	}
	return Numbers(m.Config.Classes)
}

// Numbers are the names of n classes of which only the number is known.
func Numbers(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	return names
}

// Check reports the first part of m that does not fit the others.
func (m *Model) Check() error {
	c := m.Config
	if m.Classes != nil && len(m.Classes) != c.Classes {
		return fmt.Errorf("%d class names for a network of %d classes", len(m.Classes), c.Classes)
	}
	for _, name := range m.Classes { // they are shown on terminals
		if strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
			return fmt.Errorf("class name %.100q has control characters", name)
		}
	}
	if p := m.Preprocess; p != nil {
		if err := p.Check(); err != nil {
			return err
		}
		if p.Height != c.Height || p.Width != c.Width || p.Channels != c.Channels {
			return fmt.Errorf("preprocessing makes %d×%d×%d images, the network takes %d×%d×%d", p.Height, p.Width, p.Channels, c.Height, c.Width, c.Channels)
		}
	}
	for i, g := range m.Golden {
		if len(g.Logits) != c.Classes {
			return fmt.Errorf("golden vector %d has %d logits for a network of %d classes", i+1, len(g.Logits), c.Classes)
		}
	}
	return nil
}

// Few lists the first names and how many others there are.
func Few(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// WriteOptions are what the user may ask of a file. A format refuses, with
// Refuse, those it has no use for.
type WriteOptions struct {
	FoldNorm   bool // batch normalisation folded into convolutions (Fold)
	Softmax    bool // probabilities instead of logits come out
	Preprocess bool // scaling and normalisation are part of the network

	// Check, where it is not nil, is asked about what was written, at path, before
	// it takes the place of an older file. On its error all is as it was.
	Check func(path string) error
}

// Refuse returns an error that names the first option set in o and not in can.
func (o WriteOptions) Refuse(format string, can WriteOptions) error {
	for _, x := range []struct {
		flag     string
		set, can bool
	}{
		{"--fold-bn", o.FoldNorm, can.FoldNorm}, {"--softmax", o.Softmax, can.Softmax}, {"--include-preprocess", o.Preprocess, can.Preprocess},
	} {
		if x.set && !x.can {
			return fmt.Errorf("format %s has no %s", format, x.flag)
		}
	}
	return nil
}

// Listing is what a file holds, as residual inspect shows it.
type Listing struct {
	Format   string            `json:"format"`
	Bytes    int64             `json:"bytes"`
	Tensors  []Entry           `json:"tensors"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Notes    []string          `json:"notes,omitempty"` // what else there is to say, in sentences
}

// Entry is a tensor of a file, as it is there.
type Entry struct {
	Name  string       `json:"name"`
	Type  string       `json:"dtype"`
	Shape tensor.Shape `json:"shape"`
	Bytes int64        `json:"bytes"`
}

// List makes the entries of tensors.
func List(tensors []safetensors.Named) []Entry {
	entries := make([]Entry, len(tensors))
	for i, n := range tensors {
		t := n.Tensor
		entries[i] = Entry{n.Name, t.DType().String(), t.Shape(), int64(t.Len()) * int64(t.DType().Size())}
	}
	return entries
}
