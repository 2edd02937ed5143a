// Package onnx reads and writes residual classifiers as ONNX files
// (https://onnx.ai). Writing gives the operators of opset 17 under torchvision's
// names; reading takes files of any exporter from opset 7 on whose graph
// is a residual network that package model can build, found by package structure.
package onnx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/structure"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// maxFile is protobuf's limit of a message: 2 GB.
const maxFile = math.MaxInt32

// oldestOpset is the first whose operators mean what this package takes them to
// mean: before it, BatchNormalization and Dropout had a training mode by default.
const oldestOpset = 7

// Looks reports whether a file that begins with head may be ONNX: a protobuf message
// that begins with the version of the IR, as all exporters write it, and, unless the
// file's name says ONNX, goes on with another field of a ModelProto: producer_name,
// producer_version, domain, model_version, doc_string, graph or opset_import.
func Looks(path string, head []byte) bool {
	if len(head) < 3 || head[0] != 1<<3 {
		return false
	}
	if strings.EqualFold(filepath.Ext(path), ".onnx") {
		return true
	}
	return head[1] > 0 && head[1] < 0x80 && bytes.IndexByte([]byte{2<<3 | 2, 3<<3 | 2, 4<<3 | 2, 5 << 3, 6<<3 | 2, 7<<3 | 2, 8<<3 | 2}, head[2]) >= 0
}

// ReadFile reads the network in the file at path. Tensors that the file keeps in
// other files are read from the same folder, and from nowhere else.
func ReadFile(path string) (*artifact.Model, error) {
	m, size, err := open(path)
	if err != nil {
		return nil, err
	}
	return m.artifact(size)
}

// Inspect lists the tensors and metadata of the file at path.
func Inspect(path string) (artifact.Listing, error) {
	m, size, err := open(path)
	if err != nil {
		return artifact.Listing{}, err
	}
	l := artifact.Listing{Bytes: size, Metadata: map[string]string{}}
	for i := range m.graph.tensors {
		t := &m.graph.tensors[i]
		shape, err := t.axes()
		if err != nil {
			return l, err
		}
		l.Tensors = append(l.Tensors, artifact.Entry{Name: t.name, Type: typeName(t.kind), Shape: shape,
			Bytes: int64(shape.Elements()) * int64(elementSize(t.kind))})
	}
	for _, e := range m.metadata {
		l.Metadata[e.key] = e.value
	}
	opset, err := m.opset()
	if err != nil {
		return l, err
	}
	producer := ""
	if m.producer != "" {
		producer = ", made by " + m.producer
	}
	l.Notes = append(l.Notes, fmt.Sprintf("ONNX IR version %d, opset %d%s", m.irVersion, opset, producer))
	counts := map[string]int{}
	for i := range m.graph.nodes {
		counts[m.graph.nodes[i].op]++
	}
	var ops []string
	for op, n := range counts {
		ops = append(ops, fmt.Sprintf("%d %s", n, op))
	}
	slices.Sort(ops)
	l.Notes = append(l.Notes, fmt.Sprintf("%d nodes: %s", len(m.graph.nodes), strings.Join(ops, ", ")))
	return l, nil
}

// typeName is the name of an element type, as package tensor calls it.
func typeName(kind int64) string {
	return map[int64]string{typeFloat: "float32", typeUint8: "uint8", typeInt8: "int8", typeInt32: "int32", typeInt64: "int64",
		typeBool: "bool", typeFloat16: "float16", typeDouble: "float64", typeBfloat16: "bfloat16"}[kind]
}

// open decodes a file and the files that it keeps tensors in. size counts all.
func open(path string) (m *modelProto, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if info.Size() > maxFile {
		return nil, 0, fmt.Errorf("%d bytes, want at most %d, as protobuf has it", info.Size(), maxFile)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, 0, err
	}
	if m, err = decode(data); err != nil {
		return nil, 0, err
	}
	outside, err := m.readExternal(filepath.Dir(path))
	return m, info.Size() + outside, err
}

// decode reads a message that shares memory with data.
func decode(data []byte) (*modelProto, error) {
	m, err := new(decoder).model(data)
	if err != nil {
		return nil, fmt.Errorf("no ONNX file, or a damaged one: %w", err)
	}
	if m.graph == nil || m.irVersion == 0 || len(m.opsets) == 0 {
		return nil, errors.New("no ONNX file: it has no graph, version or operator set")
	}
	return m, nil
}

// opset is the version of the standard operators.
func (m *modelProto) opset() (int64, error) {
	for _, o := range m.opsets {
		if o.domain == "" || o.domain == "ai.onnx" {
			return o.version, nil
		}
	}
	return 0, errors.New("the file names no version of the standard operators")
}

// readExternal reads tensors whose data lies in files beside the model, and
// returns the size of those files. os.Root keeps paths, links included, in
// the folder. The tensors together may not be longer than the files.
func (m *modelProto) readExternal(dir string) (int64, error) {
	var tensors []*tensorProto
	for i := range m.graph.tensors {
		tensors = append(tensors, &m.graph.tensors[i])
	}
	for i := range m.graph.nodes {
		for k := range m.graph.nodes[i].attributes {
			if t := m.graph.nodes[i].attributes[k].tensor; t != nil {
				tensors = append(tensors, t)
			}
		}
	}
	var root *os.Root
	files := map[string]*os.File{}
	defer func() {
		for _, f := range files {
			f.Close()
		}
		if root != nil {
			root.Close()
		}
	}()
	sizes, total, left := map[string]int64{}, int64(0), int64(0)
	for _, t := range tensors {
		if t.location == 0 && len(t.external) == 0 {
			continue
		}
		where, offset, length, err := t.outside()
		if err != nil {
			return 0, err
		}
		if root == nil {
			if root, err = os.OpenRoot(dir); err != nil {
				return 0, err
			}
		}
		f := files[where]
		if f == nil {
			if len(files) >= 256 {
				return 0, errors.New("tensors in more than 256 other files")
			}
			if f, err = root.Open(where); err != nil {
				return 0, hint.Wrap(fmt.Errorf("tensor %q is in another file: %w", t.name, err), "the file must lie in the folder of the .onnx file")
			}
			files[where] = f
			info, err := f.Stat()
			if err != nil {
				return 0, err
			}
			if !info.Mode().IsRegular() {
				return 0, fmt.Errorf("tensor %q is in %q, which is no file", t.name, where)
			}
			sizes[where] = info.Size()
			total += info.Size()
			left += info.Size()
		}
		if length < 0 {
			length = max(sizes[where]-offset, 0)
		}
		if offset > sizes[where] || length > sizes[where]-offset {
			return 0, fmt.Errorf("tensor %q is at byte %d of %q for %d bytes, but the file has %d", t.name, offset, where, length, sizes[where])
		}
		if left -= length; left < 0 {
			return 0, fmt.Errorf("tensor %q: the tensors in other files are longer than those files: they overlap", t.name)
		}
		t.raw, t.hasRaw, t.location, t.external = make([]byte, length), true, 0, nil
		if _, err := f.ReadAt(t.raw, offset); err != nil {
			return 0, fmt.Errorf("tensor %q in %q: %w", t.name, where, err)
		}
	}
	return total, nil
}

// outside reads where a tensor's data lies; length is -1 where it is not said.
func (t *tensorProto) outside() (where string, offset, length int64, err error) {
	length = -1
	for _, e := range t.external {
		switch e.key {
		case "location":
			where = e.value
		case "offset":
			_, err = fmt.Sscan(e.value, &offset)
		case "length":
			_, err = fmt.Sscan(e.value, &length)
		}
		if err != nil || offset < 0 {
			return "", 0, 0, fmt.Errorf("tensor %q: %s is %q", t.name, e.key, e.value)
		}
	}
	if !filepath.IsLocal(filepath.FromSlash(where)) {
		return "", 0, 0, fmt.Errorf("tensor %q is in %q, want a file in the folder of the .onnx file", t.name, where)
	}
	return filepath.FromSlash(where), offset, length, nil
}

// metadataText returns metadata_props by key.
func (m *modelProto) metadataText() (map[string]string, error) {
	text := map[string]string{}
	for _, e := range m.metadata {
		if _, twice := text[e.key]; twice {
			return nil, fmt.Errorf("metadata have %q twice", e.key)
		}
		text[e.key] = e.value
	}
	return text, nil
}

// artifact recognises the network. size is what the file may be worth in memory.
func (m *modelProto) artifact(size int64) (*artifact.Model, error) {
	opset, err := m.opset()
	if err != nil {
		return nil, err
	}
	switch g := m.graph; {
	case opset < oldestOpset:
		return nil, hint.Wrap(fmt.Errorf("opset %d, want %d or newer", opset, oldestOpset), "onnx.version_converter, or an export by a newer program, gives one")
	case m.functions > 0:
		return nil, fmt.Errorf("the file defines %d functions, which are not supported", m.functions)
	case g.sparse > 0 || g.quantisings > 0:
		return nil, errors.New("sparse and quantised tensors are not supported")
	case len(g.outputs) == 0:
		return nil, errors.New("the graph has no output")
	}
	text, err := m.metadataText()
	if err != nil {
		return nil, err
	}
	expected, ours, err := artifact.Config(text)
	if err != nil {
		ours = false // "model" of another program
	}
	var hinted *model.Config
	if ours {
		hinted = &expected
	}
	found, err := m.recognise(opset, hinted, int(min(size, maxFile)))
	if err != nil {
		return nil, err
	}
	if found.Config.Name == "" {
		found.Config.Name = artifact.Name(found.Config)
	}
	a, err := artifact.Build(found.Config, found.Tensors, found.notes...)
	if err != nil {
		return nil, err
	}
	a.Unmapped = append(a.Unmapped, found.unmapped...)
	if ours {
		if expected.Name != found.Config.Name {
			a.Recognised = append(a.Recognised, fmt.Sprintf("the metadata describe %s, which the layers are not: the layers count", expected.Name))
		}
		if err := a.ReadMetadata(text); err != nil {
			return nil, err
		}
	}
	return a, found.preprocess(a)
}

// recognised is a structure.Result with what else the file says.
type recognised struct {
	*structure.Result
	input    int64 // TensorProto.DataType of the pictures
	notes    []string
	unmapped []string // nodes without a counterpart that the output does not need
}

// recognise tries the layouts and sizes that the input's axes allow. Only one
// layout can lead to convolutions, whose channels come second.
func (m *modelProto) recognise(opset int64, expected *model.Config, size int) (*recognised, error) {
	input, err := m.graph.picture()
	if err != nil {
		return nil, err
	}
	d := input.dims
	for _, dim := range d {
		if dim.size < 0 || dim.size > math.MaxInt32 {
			return nil, fmt.Errorf("input %q has an axis of %d", input.name, dim.size)
		}
	}
	var first error
	for _, layout := range []struct {
		axes                    string
		height, width, channels int64
	}{{"NCHW", d[2].size, d[3].size, d[1].size}, {"NHWC", d[1].size, d[2].size, d[3].size}} {
		for _, assumed := range sizes(layout.height, layout.width, expected) {
			channels := layout.channels
			if channels == 0 {
				channels = m.graph.channels()
			}
			shape := tensor.Shape{assumed.height, assumed.width, int(channels)}
			found, err := m.recogniseSized(opset, layout.axes, shape, expected, size)
			if err == nil && assumed.stem != "" && found.Config.Stem != assumed.stem {
				continue // the other assumption is this stem's
			}
			if err == nil {
				found.input = input.kind
				if assumed.stem != "" {
					found.Config.Height, found.Config.Width = 0, 0
				}
				return found, nil
			}
			if first == nil || errors.Is(first, errLayout) && !errors.Is(err, errLayout) {
				first = err
			}
		}
	}
	return nil, first
}

// assumption is a size of pictures; stem says that it is only what networks with
// that stem are usually for.
type assumption struct {
	height, width int
	stem          model.Stem
}

// sizes are the sizes to try where the file leaves height or width open.
func sizes(height, width int64, expected *model.Config) []assumption {
	if height > 0 && width > 0 {
		return []assumption{{int(height), int(width), ""}}
	}
	if expected != nil {
		return []assumption{{expected.Height, expected.Width, ""}}
	}
	var out []assumption
	for _, stem := range []model.Stem{model.LargeStem, model.SmallStem} {
		c := artifact.Sized(model.Config{Stem: stem})
		out = append(out, assumption{c.Height, c.Width, stem})
	}
	return out
}

// channels is how many channels the first convolution takes, 3 where there is none.
func (g *graphProto) channels() int64 {
	for i := range g.nodes {
		if n := &g.nodes[i]; n.op == "Conv" && len(n.inputs) > 1 {
			for k := range g.tensors {
				if t := &g.tensors[k]; t.name == n.inputs[1] && len(t.dims) == 4 {
					return t.dims[1]
				}
			}
		}
	}
	return 3
}

// errLayout marks errors that another layout of the input may not have.
var errLayout = errors.New("no output could be computed")

func (m *modelProto) recogniseSized(opset int64, axes string, shape tensor.Shape, expected *model.Config, size int) (*recognised, error) {
	net, r, err := m.network(m.graph, opset, axes, shape, 1<<16+size)
	if err != nil {
		return nil, err
	}
	var candidates []*value
	for _, out := range m.graph.outputs {
		if v := r.values[out.name]; v != nil && v.layer != nil {
			candidates = append(candidates, v)
		}
	}
	if len(candidates) == 0 {
		err := fmt.Errorf("%w: %s", errLayout, r.listed())
		if len(r.problems) == 0 {
			err = fmt.Errorf("%w: none depends on the input", errLayout)
		}
		return nil, err
	}
	var found *recognised
	var first error
	for _, v := range candidates {
		net.Output = v.layer
		result, err := structure.Recognise(net, expected)
		switch {
		case err != nil && first == nil:
			first = err
		case err == nil && found != nil:
			return nil, errors.New("more than one output is a classifier")
		case err == nil:
			found = &recognised{Result: result, notes: result.Notes, unmapped: r.problems}
		}
	}
	if found == nil {
		if len(r.problems) > 0 {
			first = fmt.Errorf("%w; %s", first, r.listed())
		}
		return nil, first
	}
	if len(m.graph.outputs) > 1 {
		found.notes = append(found.notes, fmt.Sprintf("of %d outputs, one is a classifier's; the others are left out", len(m.graph.outputs)))
	}
	if found.Softmax {
		found.notes = append(found.notes, "the softmax at the end is left out: logits come before it")
	}
	return found, nil
}

// listed names the nodes that have no counterpart.
func (r *reader) listed() string {
	const most = 8
	text := strings.Join(r.problems[:min(most, len(r.problems))], "; ")
	if more := len(r.problems) - most; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return fmt.Sprintf("%d nodes cannot be mapped: %s", len(r.problems), text)
}

// preprocess gives a the rescaling that the file's network begins with.
func (f *recognised) preprocess(a *artifact.Model) error {
	if f.Gain == nil {
		return nil
	}
	if p := a.Preprocess; p != nil && agree(*p, f.Gain, f.Offset) {
		a.Recognised = append(a.Recognised, "the network's own rescaling of pictures is that of the metadata")
		return nil
	}
	// A network that takes floating-point numbers may have been made for 0..255
	// or for 0..1; only one of the two leaves numbers as networks like them.
	gain := slices.Clone(f.Gain)
	unit := "0..255"
	if f.input != typeUint8 && slices.Max(gain)*255 > 64 {
		unit = "0..1, by their size,"
		for c := range gain {
			gain[c] /= 255
		}
	}
	const scale = 1.0 / 255
	mean, std, err := structure.Preprocess(gain, f.Offset, scale)
	if err != nil {
		return err
	}
	p := loader.Preprocess{Resize: loader.Crop}
	if a.Preprocess != nil {
		p = *a.Preprocess
		a.Golden = nil
		a.Recognised = append(a.Recognised, "the metadata's preprocessing is not the network's own, which counts; golden vectors are left out")
	}
	c := artifact.Sized(a.Config)
	p.Height, p.Width, p.Channels, p.Scale, p.Mean, p.Std = c.Height, c.Width, c.Channels, scale, mean, std
	a.Preprocess = &p
	a.Config = c
	a.Recognised = append(a.Recognised, fmt.Sprintf("the network itself rescales its pictures, numbers of %s: mean %.4g, std %.4g of x/255", unit, mean, std))
	return p.Check()
}

// agree reports whether a preprocessing is x·gain + offset but for float32.
func agree(p loader.Preprocess, gain, offset []float64) bool {
	near := func(a, b float64) bool { return !(math.Abs(a-b) > 1e-6*max(math.Abs(a), math.Abs(b))) }
	g, o := p.Linear()
	return slices.EqualFunc(g, gain, near) && slices.EqualFunc(o, offset, near)
}
