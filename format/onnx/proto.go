package onnx

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of onnx.proto that networks of this kind use, with the fields
// that are looked at. Numbers of fields and types are those of
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto and are a file format.
type (
	modelProto struct {
		irVersion int64
		producer  string
		graph     *graphProto
		opsets    []opsetProto
		metadata  []entryProto
		functions int
	}
	opsetProto struct {
		domain  string
		version int64
	}
	entryProto struct{ key, value string }
	graphProto struct {
		nodes       []nodeProto
		tensors     []tensorProto // initializer
		inputs      []valueProto
		outputs     []valueProto
		sparse      int // sparse_initializer
		quantisings int // quantization_annotation
	}
	nodeProto struct {
		name, op, domain string
		inputs, outputs  []string
		attributes       []attributeProto
	}
	attributeProto struct {
		name    string
		float   float32
		integer int64
		text    []byte
		tensor  *tensorProto
		floats  []float32
		ints    []int64
		other   bool // a graph, strings or anything else
	}
	tensorProto struct {
		name     string
		dims     []int64
		kind     int64 // TensorProto.DataType
		raw      []byte
		hasRaw   bool
		floats   []byte // float_data, 4 bytes each
		doubles  []byte // double_data, 8 bytes each
		int32s   []int64
		int64s   []int64
		external []entryProto
		location int64 // 1: external
		segment  bool
	}
	valueProto struct {
		name string
		kind int64
		dims []dimProto // nil: not said
	}
	// dimProto is an axis: its size, or a name where size is 0.
	dimProto struct {
		size int64
		name string
	}
)

// TensorProto.DataType.
const (
	typeFloat    = 1
	typeUint8    = 2
	typeInt8     = 3
	typeInt32    = 6
	typeInt64    = 7
	typeBool     = 9
	typeFloat16  = 10
	typeDouble   = 11
	typeBfloat16 = 16
)

// AttributeProto.AttributeType.
const (
	attrFloat  = 1
	attrInt    = 2
	attrString = 3
	attrInts   = 7
)

// Limits that no network of ours comes near; what they stop is a file of a few
// megabytes that unfolds to gigabytes of Go structures.
const (
	maxNodes   = 1 << 16
	maxStrings = 1 << 18 // inputs, outputs and attributes, all nodes together
	maxDims    = 16
	maxList    = 1 << 20 // numbers in attributes
	maxVarints = 1 << 26 // numbers of tensors that are written as varints, of a byte or more each
)

var errTruncated = errors.New("the file is cut short or damaged")

// field is one field of a message: number holds varints and fixed numbers, data
// what has a length. data shares memory with the file.
type field struct {
	num    protowire.Number
	wire   protowire.Type
	number uint64
	data   []byte
}

// message calls each for every field of b.
func message(b []byte, each func(f field) error) error {
	for len(b) > 0 {
		num, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errTruncated
		}
		b = b[n:]
		f := field{num: num, wire: wire}
		switch wire {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			f.number = uint64(v)
		case protowire.Fixed64Type:
			f.number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.data, n = protowire.ConsumeBytes(b)
		default: // groups, which ONNX never had
			return errTruncated
		}
		if n < 0 {
			return errTruncated
		}
		b = b[n:]
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

// want checks that a field has the type that its number promises.
func (f field) want(wire protowire.Type) error {
	if f.wire != wire {
		return fmt.Errorf("field %d has wire type %d, want %d: %w", f.num, f.wire, wire, errTruncated)
	}
	return nil
}

func (f field) text(dst *string) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	if !utf8.Valid(f.data) {
		return fmt.Errorf("field %d is no UTF-8 text", f.num)
	}
	*dst = string(f.data)
	return nil
}

func (f field) integer(dst *int64) error {
	*dst = int64(f.number)
	return f.want(protowire.VarintType)
}

// integers appends the number or, packed, the numbers of a repeated field.
func (f field) integers(dst *[]int64, limit int) error {
	if f.wire == protowire.VarintType {
		if len(*dst) >= limit {
			return fmt.Errorf("field %d has more than %d numbers", f.num, limit)
		}
		*dst = append(*dst, int64(f.number))
		return nil
	}
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	for b := f.data; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return errTruncated
		}
		if len(*dst) >= limit {
			return fmt.Errorf("field %d has more than %d numbers", f.num, limit)
		}
		*dst = append(*dst, int64(v))
		b = b[n:]
	}
	return nil
}

// fixed appends the bytes of numbers of size bytes each. The usual case, one
// packed field, copies nothing.
func (f field) fixed(dst *[]byte, size int) error {
	switch {
	case f.wire == protowire.BytesType && len(f.data)%size == 0:
		if len(*dst) == 0 {
			*dst = f.data[:len(f.data):len(f.data)]
		} else {
			*dst = append(*dst, f.data...)
		}
		return nil
	case f.wire == protowire.Fixed32Type && size == 4:
		*dst = protowire.AppendFixed32(*dst, uint32(f.number))
		return nil
	case f.wire == protowire.Fixed64Type && size == 8:
		*dst = protowire.AppendFixed64(*dst, f.number)
		return nil
	}
	return fmt.Errorf("field %d: %w", f.num, errTruncated)
}

// decoder counts what it makes, so that a small file cannot become large.
type decoder struct{ nodes, strings, numbers, varints int }

func (d *decoder) model(b []byte) (*modelProto, error) {
	m := &modelProto{}
	err := message(b, func(f field) error {
		switch f.num {
		case 1:
			return f.integer(&m.irVersion)
		case 2:
			return f.text(&m.producer)
		case 7:
			if m.graph != nil {
				return errors.New("there are two graphs")
			}
			if err := f.want(protowire.BytesType); err != nil {
				return err
			}
			var err error
			m.graph, err = d.graph(f.data)
			return err
		case 8:
			if len(m.opsets) >= 64 {
				return errors.New("more than 64 operator sets")
			}
			var o opsetProto
			err := f.message(func(f field) error {
				switch f.num {
				case 1:
					return f.text(&o.domain)
				case 2:
					return f.integer(&o.version)
				}
				return nil
			})
			m.opsets = append(m.opsets, o)
			return err
		case 14:
			return d.entry(f, &m.metadata)
		case 25:
			m.functions++
		}
		return nil
	})
	return m, err
}

// message reads a field that is a message.
func (f field) message(each func(f field) error) error {
	if err := f.want(protowire.BytesType); err != nil {
		return err
	}
	return message(f.data, each)
}

// count adds to a counter that has a limit.
func count(n *int, limit int, what string) error {
	if *n++; *n > limit {
		return fmt.Errorf("more than %d %s", limit, what)
	}
	return nil
}

func (d *decoder) entry(f field, dst *[]entryProto) error {
	if err := count(&d.strings, maxStrings, "names"); err != nil {
		return err
	}
	var e entryProto
	err := f.message(func(f field) error {
		switch f.num {
		case 1:
			return f.text(&e.key)
		case 2:
			return f.text(&e.value)
		}
		return nil
	})
	*dst = append(*dst, e)
	return err
}

func (d *decoder) graph(b []byte) (*graphProto, error) {
	g := &graphProto{}
	err := message(b, func(f field) error {
		switch f.num {
		case 1:
			if err := count(&d.nodes, maxNodes, "nodes"); err != nil {
				return err
			}
			n, err := d.node(f)
			g.nodes = append(g.nodes, n)
			return err
		case 5:
			if err := count(&d.nodes, maxNodes, "nodes and tensors"); err != nil {
				return err
			}
			t, err := d.tensor(f)
			g.tensors = append(g.tensors, t)
			return err
		case 11:
			return d.value(f, &g.inputs)
		case 12:
			return d.value(f, &g.outputs)
		case 14:
			g.quantisings++
		case 15:
			g.sparse++
		}
		return nil
	})
	return g, err
}

func (d *decoder) node(f field) (nodeProto, error) {
	var n nodeProto
	name := func(f field, dst *[]string) error {
		if err := count(&d.strings, maxStrings, "names"); err != nil {
			return err
		}
		var s string
		err := f.text(&s)
		*dst = append(*dst, s)
		return err
	}
	err := f.message(func(f field) error {
		switch f.num {
		case 1:
			return name(f, &n.inputs)
		case 2:
			return name(f, &n.outputs)
		case 3:
			return f.text(&n.name)
		case 4:
			return f.text(&n.op)
		case 5:
			if err := count(&d.strings, maxStrings, "attributes"); err != nil {
				return err
			}
			a, err := d.attribute(f)
			n.attributes = append(n.attributes, a)
			return err
		case 7:
			return f.text(&n.domain)
		}
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("node %q: %w", n.name, err)
	}
	return n, nil
}

func (d *decoder) attribute(f field) (attributeProto, error) {
	var a attributeProto
	err := f.message(func(f field) error {
		switch f.num {
		case 1:
			return f.text(&a.name)
		case 2:
			a.float = math.Float32frombits(uint32(f.number))
			return f.want(protowire.Fixed32Type)
		case 3:
			return f.integer(&a.integer)
		case 4:
			a.text = f.data
			return f.want(protowire.BytesType)
		case 5:
			t, err := d.tensor(f)
			a.tensor = &t
			return err
		case 7:
			var b []byte
			if err := f.fixed(&b, 4); err != nil {
				return err
			}
			if d.numbers += len(b) / 4; d.numbers > maxList {
				return fmt.Errorf("more than %d numbers in attributes", maxList)
			}
			for ; len(b) > 0; b = b[4:] {
				v, _ := protowire.ConsumeFixed32(b)
				a.floats = append(a.floats, math.Float32frombits(v))
			}
			return nil
		case 8:
			before := len(a.ints)
			err := f.integers(&a.ints, maxList)
			if d.numbers += len(a.ints) - before; d.numbers > maxList {
				return fmt.Errorf("more than %d numbers in attributes", maxList)
			}
			return err
		case 6, 9, 10, 11, 14, 15, 21, 22, 23:
			a.other = true
		}
		return nil
	})
	if err != nil {
		return a, fmt.Errorf("attribute %q: %w", a.name, err)
	}
	return a, nil
}

func (d *decoder) tensor(f field) (tensorProto, error) {
	var t tensorProto
	err := f.message(func(f field) error {
		switch f.num {
		case 1:
			return f.integers(&t.dims, maxDims)
		case 2:
			return f.integer(&t.kind)
		case 3:
			t.segment = true
		case 4:
			return f.fixed(&t.floats, 4)
		case 5:
			return d.list(f, &t.int32s)
		case 7:
			return d.list(f, &t.int64s)
		case 8:
			return f.text(&t.name)
		case 9:
			t.raw, t.hasRaw = f.data, true
			return f.want(protowire.BytesType)
		case 10:
			return f.fixed(&t.doubles, 8)
		case 13:
			return d.entry(f, &t.external)
		case 14:
			return f.integer(&t.location)
		}
		return nil
	})
	if err != nil {
		return t, fmt.Errorf("tensor %q: %w", t.name, err)
	}
	return t, nil
}

// list is integers with the limit of all tensors together.
func (d *decoder) list(f field, dst *[]int64) error {
	before := len(*dst)
	err := f.integers(dst, before+maxVarints-d.varints)
	d.varints += len(*dst) - before
	return err
}

// value reads a ValueInfoProto with a tensor's type.
func (d *decoder) value(f field, dst *[]valueProto) error {
	if err := count(&d.strings, maxStrings, "names"); err != nil {
		return err
	}
	var v valueProto
	dim := func(f field) error {
		if len(v.dims) >= maxDims {
			return fmt.Errorf("more than %d axes", maxDims)
		}
		var dim dimProto
		err := f.message(func(f field) error {
			switch f.num {
			case 1:
				return f.integer(&dim.size)
			case 2:
				return f.text(&dim.name)
			}
			return nil
		})
		v.dims = append(v.dims, dim)
		return err
	}
	err := f.message(func(f field) error {
		switch f.num {
		case 1:
			return f.text(&v.name)
		case 2:
			return f.message(func(f field) error {
				if f.num != 1 { // a sequence, a map, …
					return nil
				}
				return f.message(func(f field) error {
					switch f.num {
					case 1:
						return f.integer(&v.kind)
					case 2:
						return f.message(func(f field) error {
							if f.num == 1 {
								return dim(f)
							}
							return nil
						})
					}
					return nil
				})
			})
		}
		return nil
	})
	*dst = append(*dst, v)
	if err != nil {
		return fmt.Errorf("value %q: %w", v.name, err)
	}
	return nil
}

// The encoder writes the same messages. It builds the file in pieces, so that
// the weights are not copied.
type encoder []byte

func (e *encoder) integer(num protowire.Number, v int64) {
	*e = protowire.AppendVarint(protowire.AppendTag(*e, num, protowire.VarintType), uint64(v))
}

func (e *encoder) text(num protowire.Number, s string) {
	*e = protowire.AppendString(protowire.AppendTag(*e, num, protowire.BytesType), s)
}

func (e *encoder) bytes(num protowire.Number, b []byte) {
	*e = protowire.AppendBytes(protowire.AppendTag(*e, num, protowire.BytesType), b)
}

func (e *encoder) float(num protowire.Number, v float32) {
	*e = protowire.AppendFixed32(protowire.AppendTag(*e, num, protowire.Fixed32Type), math.Float32bits(v))
}

// attribute appends an attribute to a node: an int, a float32, a string or ints.
func (e *encoder) attribute(name string, v any) {
	const attributes = 5 // of NodeProto
	var a encoder
	a.text(1, name)
	switch v := v.(type) {
	case int:
		a.integer(3, int64(v))
		a.integer(20, attrInt)
	case float32:
		a.float(2, v)
		a.integer(20, attrFloat)
	case string:
		a.text(4, v)
		a.integer(20, attrString)
	case []int64:
		for _, i := range v { // not packed in onnx.proto, which is proto2
			a.integer(8, i)
		}
		a.integer(20, attrInts)
	}
	e.bytes(attributes, a)
}
