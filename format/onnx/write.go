package onnx

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/structure"
	"github.com/residual-ml/residual/tensor"
)

// Versions that Write gives its files: opset 17 with IR version 8, which is what
// onnxruntime reads since 1.12 (2022) and everything since.
const (
	writtenOpset = 17
	writtenIR    = 8
)

// Write writes m as an ONNX file: input [batch,C,H,W] of float32, normalised,
// output [batch,K], the logits or, by o, probabilities. With o.Preprocess the
// input is [batch,H,W,C] of bytes, pictures of the network's size. Names of
// layers and tensors are torchvision's, metadata_props hold what artifact's
// metadata do. The same m gives the same bytes.
func Write(w io.Writer, m *artifact.Model, o artifact.WriteOptions) error {
	if err := o.Refuse("onnx", artifact.WriteOptions{Softmax: true, Preprocess: true}); err != nil {
		return err
	}
	c := artifact.Sized(m.Config)
	net, err := structure.Of(c, m.Tensor)
	if err != nil {
		return err
	}
	g := &graphWriter{names: map[string]bool{}, values: map[*structure.Layer]string{}}
	g.names["input"], g.names["output"] = true, true
	bytesIn := o.Preprocess
	if bytesIn {
		if m.Preprocess == nil {
			return fmt.Errorf("preprocessing is to be part of the network, but is not known")
		}
		g.preprocess(m.Preprocess.Linear())
	}
	for _, l := range net.Layers {
		if err := g.layer(l, l == net.Output && !o.Softmax); err != nil {
			return err
		}
	}
	if o.Softmax {
		g.node("softmax", "Softmax", []string{g.values[net.Output]}, "output", func(e *encoder) { e.attribute("axis", 1) })
	}

	text, err := m.WriteMetadata()
	if err != nil {
		return err
	}
	if bytesIn { // ONNX's own description of images, docs/MetadataProps.md
		text["Image.BitmapPixelFormat"] = map[int]string{1: "Gray8", 3: "Rgb8"}[c.Channels]
		text["Image.ColorSpaceGamma"] = "SRGB"
		text["Image.NominalPixelRange"] = "NominalRange_0_255"
	}
	input := valueInfo("input", typeFloat, c.Channels, c.Height, c.Width)
	if bytesIn {
		input = valueInfo("input", typeUint8, c.Height, c.Width, c.Channels)
	}
	return g.write(w, c.Name, input, valueInfo("output", typeFloat, c.Classes), text)
}

// graphWriter collects nodes and tensors.
type graphWriter struct {
	nodes   encoder
	tensors []namedTensor
	names   map[string]bool // taken by values
	values  map[*structure.Layer]string
	picture string // what the network proper reads
}

type namedTensor struct {
	name   string
	tensor tensor.Tensor
}

// node appends a node with one output.
func (g *graphWriter) node(name, op string, inputs []string, output string, attributes func(e *encoder)) {
	var n encoder
	for _, in := range inputs {
		n.text(1, in)
	}
	n.text(2, output)
	n.text(3, name)
	n.text(4, op)
	if attributes != nil {
		attributes(&n)
	}
	g.nodes.bytes(1, n)
}

// constant keeps a tensor under a name and returns it.
func (g *graphWriter) constant(name string, t tensor.Tensor) string {
	g.tensors = append(g.tensors, namedTensor{name, t})
	return name
}

// fresh returns name, or name with something that op adds where it is taken.
func (g *graphWriter) fresh(name, op string) string {
	if g.names[name] {
		name += "." + op
	}
	g.names[name] = true
	return name
}

// preprocess turns bytes [batch,H,W,C] into numbers [batch,C,H,W] and rescales
// them.
func (g *graphWriter) preprocess(gain, offset []float64) {
	channels := func(v []float64) tensor.Tensor {
		out := make([]float32, len(v))
		for i, x := range v {
			out[i] = float32(x)
		}
		return tensor.Of(out, 1, len(out), 1, 1)
	}
	g.node("preprocess.cast", "Cast", []string{"input"}, "preprocess.cast", func(e *encoder) { e.attribute("to", typeFloat) })
	g.node("preprocess.transpose", "Transpose", []string{"preprocess.cast"}, "preprocess.transpose", func(e *encoder) {
		e.attribute("perm", []int64{0, 3, 1, 2})
	})
	g.node("preprocess.scale", "Mul", []string{"preprocess.transpose", g.constant("preprocess.gain", channels(gain))}, "preprocess.scale", nil)
	g.node("preprocess.shift", "Add", []string{"preprocess.scale", g.constant("preprocess.offset", channels(offset))}, "preprocess.shift", nil)
	g.picture = "preprocess.shift"
}

// layer appends the nodes of one layer; last names its output "output".
func (g *graphWriter) layer(l *structure.Layer, last bool) error {
	if l.Kind == structure.Input {
		g.values[l] = "input"
		if g.picture != "" {
			g.values[l] = g.picture
		}
		return nil
	}
	var inputs []string
	for _, in := range l.Inputs {
		inputs = append(inputs, g.values[in])
	}
	param := func(ps ...structure.Param) {
		for _, p := range ps {
			if p.Present() {
				inputs = append(inputs, g.constant(p.Name, p.Value))
			}
		}
	}
	square := func(n int) []int64 { return []int64{int64(n), int64(n)} }
	pads := []int64{int64(l.Pad.Top), int64(l.Pad.Left), int64(l.Pad.Bottom), int64(l.Pad.Right)}
	integers := func(v ...int64) tensor.Tensor { return tensor.Of(v, len(v)) }
	op := ""
	var attributes func(e *encoder)
	switch l.Kind {
	case structure.Conv:
		op = "Conv"
		param(l.Weight, l.Bias)
		attributes = func(e *encoder) {
			e.attribute("dilations", square(1))
			e.attribute("group", 1)
			e.attribute("kernel_shape", []int64{int64(l.Weight.Shape[2]), int64(l.Weight.Shape[3])})
			e.attribute("pads", pads)
			e.attribute("strides", square(l.Stride))
		}
	case structure.BatchNorm:
		op = "BatchNormalization"
		param(l.Scale, l.Shift, l.Mean, l.Variance)
		attributes = func(e *encoder) { e.attribute("epsilon", float32(l.Epsilon)) }
	case structure.ReLU:
		op = "Relu"
	case structure.Add:
		op = "Add"
	case structure.Sigmoid:
		op = "Sigmoid"
	case structure.Multiply: // the factors get axes for height and width
		op = "Mul"
		wide := g.fresh(l.Name+".factors", op)
		g.node(wide, "Unsqueeze", []string{inputs[1], g.constant(l.Name+".axes", integers(2, 3))}, wide, nil)
		inputs[1] = wide
	case structure.Rescale: // of vectors: ResNet-9's outputs
		if len(l.Gain) != 1 || len(l.Offset) != 1 || l.Offset[0] != 0 {
			return fmt.Errorf("layer %q: %v is not written", l.Name, l)
		}
		op = "Mul"
		inputs = append(inputs, g.constant(l.Name+".factor", tensor.Of([]float32{float32(l.Gain[0])}, 1)))
	case structure.MaxPool, structure.AvgPool:
		op = "MaxPool"
		if l.Kind == structure.AvgPool {
			op = "AveragePool"
		}
		attributes = func(e *encoder) {
			if l.Kind == structure.AvgPool && l.CountPad {
				e.attribute("count_include_pad", 1)
			}
			e.attribute("kernel_shape", square(l.Size))
			e.attribute("pads", pads)
			e.attribute("strides", square(l.Stride))
		}
	case structure.GlobalAvgPool: // keeps two axes of size 1, which Flatten takes away
		pooled := g.fresh(l.Name, "pool")
		g.node(pooled, "GlobalAveragePool", inputs, pooled, nil)
		op, inputs = "Flatten", []string{pooled}
		attributes = func(e *encoder) { e.attribute("axis", 1) }
	case structure.Dense:
		op = "Gemm"
		param(l.Weight, l.Bias)
		attributes = func(e *encoder) { e.attribute("transB", 1) }
	case structure.Subsample:
		op = "Slice"
		name := l.Name + ".slice"
		inputs = append(inputs, g.constant(name+".starts", integers(0, 0)), g.constant(name+".ends", integers(math.MaxInt64, math.MaxInt64)),
			g.constant(name+".axes", integers(2, 3)), g.constant(name+".steps", integers(int64(l.Stride), int64(l.Stride))))
	case structure.PadChannels:
		op = "Pad"
		inputs = append(inputs, g.constant(l.Name+".pads", integers(0, int64(l.Before), 0, 0, 0, int64(l.After), 0, 0)))
	default:
		return fmt.Errorf("layer %q: ONNX files of this package have no %v", l.Name, l.Kind)
	}
	name := g.fresh(l.Name, op)
	g.values[l] = name
	if last {
		g.values[l] = "output"
	}
	g.node(name, op, inputs, g.values[l], attributes)
	return nil
}

// valueInfo describes an input or output of these sizes for each picture of a batch.
func valueInfo(name string, kind int64, sizes ...int) encoder {
	var shape, dim encoder
	dim.text(2, "batch")
	shape.bytes(1, dim)
	for _, n := range sizes {
		dim = nil
		dim.integer(1, int64(n))
		shape.bytes(1, dim)
	}
	var typed, tensorType, v encoder
	tensorType.integer(1, kind)
	tensorType.bytes(2, shape)
	typed.bytes(1, tensorType)
	v.text(1, name)
	v.bytes(2, typed)
	return v
}

// write writes the message in pieces: the weights are not copied. Fields are in
// the order of their numbers.
func (g *graphWriter) write(w io.Writer, name string, input, output encoder, text map[string]string) error {
	var before, after encoder // the graph's fields around the tensors
	before = append(before, g.nodes...)
	before.text(2, name)
	after.bytes(11, input)
	after.bytes(12, output)

	heads := make([]encoder, len(g.tensors)) // of each TensorProto, up to raw_data's bytes
	size := int64(len(before) + len(after))
	for i, t := range g.tensors {
		var head encoder
		for _, d := range t.tensor.Shape() {
			head.integer(1, int64(d))
		}
		kind := int64(typeFloat)
		switch t.tensor.DType() {
		case tensor.Float32:
		case tensor.Int64:
			kind = typeInt64
		default:
			return fmt.Errorf("tensor %s is %v, want float32", t.name, t.tensor.DType())
		}
		head.integer(2, kind)
		head.text(8, t.name)
		bytes := int64(t.tensor.Len()) * int64(t.tensor.DType().Size())
		head = protowire.AppendVarint(protowire.AppendTag(head, 9, protowire.BytesType), uint64(bytes))
		whole := int64(len(head)) + bytes
		heads[i] = append(protowire.AppendVarint(protowire.AppendTag(nil, 5, protowire.BytesType), uint64(whole)), head...)
		size += int64(len(heads[i])) + bytes
	}

	var start, end encoder
	start.integer(1, writtenIR)
	start.text(2, "residual")
	start = protowire.AppendVarint(protowire.AppendTag(start, 7, protowire.BytesType), uint64(size))
	var opset encoder
	opset.text(1, "")
	opset.integer(2, writtenOpset)
	end.bytes(8, opset)
	for _, key := range slices.Sorted(maps.Keys(text)) {
		var entry encoder
		entry.text(1, key)
		entry.text(2, text[key])
		end.bytes(14, entry)
	}
	if total := size + int64(len(start)+len(end)); total > maxFile {
		return fmt.Errorf("the network takes %d bytes, an ONNX file holds at most %d (protobuf's limit); safetensors has no such limit", total, maxFile)
	}

	out := bufio.NewWriterSize(w, 1<<16)
	out.Write(start) // errors stay until Flush
	out.Write(before)
	for i, t := range g.tensors {
		out.Write(heads[i])
		if err := tensor.Write(out, t.tensor); err != nil {
			return err
		}
	}
	out.Write(after)
	out.Write(end)
	return out.Flush()
}
