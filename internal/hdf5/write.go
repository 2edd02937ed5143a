package hdf5

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/residual-ml/residual/tensor"
)

// Group is a group to be written.
type Group struct {
	attributes []writeAttribute
	members    []*member
	names      map[string]bool
}

type writeAttribute struct{ name, value string }

// member is a group or a tensor in a group; the rest is where Write puts it.
type member struct {
	name    string
	group   *Group
	tensor  tensor.Tensor
	address uint64 // of the object header
	data    uint64 // of the elements
}

// NewGroup returns an empty group: a file's root.
func NewGroup() *Group { return &Group{names: map[string]bool{}} }

// Attribute adds a string.
func (g *Group) Attribute(name, value string) {
	g.attributes = append(g.attributes, writeAttribute{name, value})
}

// Group adds a group and returns it.
func (g *Group) Group(name string) *Group {
	child := NewGroup()
	g.add(&member{name: name, group: child})
	return child
}

// Dataset adds a tensor of floats, 32-bit or 64-bit signed integers or bytes.
func (g *Group) Dataset(name string, t tensor.Tensor) { g.add(&member{name: name, tensor: t}) }

// add panics where two members have one name, which is a mistake in the caller.
func (g *Group) add(m *member) {
	if g.names[m.name] {
		panic(fmt.Sprintf("hdf5: two members called %q", m.name))
	}
	g.names[m.name] = true
	g.members = append(g.members, m)
}

// Sizes of a superblock of version 2, and the alignment of what follows.
const (
	superblockSize = 48
	alignment      = 8
)

func align(n uint64) uint64 { return (n + alignment - 1) &^ (alignment - 1) }

// Write writes a file whose root is g: the superblock, all object headers, then
// the elements, so that the same content gives the same bytes.
func Write(w io.Writer, g *Group) error {
	root := &member{group: g}
	var all []*member
	var list func(*member)
	list = func(m *member) {
		all = append(all, m)
		if m.group != nil {
			for _, c := range m.group.members {
				list(c)
			}
		}
	}
	list(root)

	// Headers have the same size whatever the addresses in them.
	at := uint64(superblockSize)
	for _, m := range all {
		h, err := m.header()
		if err != nil {
			return fmt.Errorf("hdf5: %q: %w", m.name, err)
		}
		m.address = at
		at = align(at + uint64(len(h)))
	}
	for _, m := range all {
		if m.group == nil && m.tensor.Len() > 0 {
			m.data = at
			at = align(at + uint64(m.tensor.Len()*m.tensor.DType().Size()))
		}
	}

	out := &counter{w: bufio.NewWriterSize(w, 1<<16)}
	super := append([]byte(signature), 2, 8, 8, 0)
	super = le64(super, 0, math.MaxUint64, at, root.address)
	out.Write(le32(super, lookup3(super)))
	for _, m := range all {
		h, err := m.header()
		if err != nil {
			return fmt.Errorf("hdf5: %q: %w", m.name, err)
		}
		out.pad(m.address)
		out.Write(h)
	}
	for _, m := range all {
		if m.group == nil && m.tensor.Len() > 0 {
			out.pad(m.data)
			_ = tensor.Write(out, m.tensor) // out keeps the error
		}
	}
	out.pad(at)
	if out.err == nil {
		out.err = out.w.Flush()
	}
	if out.err != nil {
		return fmt.Errorf("hdf5: %w", out.err)
	}
	return nil
}

// header is the object header of version 2.
func (m *member) header() ([]byte, error) {
	var body []byte
	message := func(kind byte, data []byte) error {
		if len(data) > math.MaxUint16 {
			return fmt.Errorf("message %#x of %d bytes, want at most %d", kind, len(data), math.MaxUint16)
		}
		body = append(le16(append(body, kind), uint16(len(data))), 0)
		body = append(body, data...)
		return nil
	}
	if m.group != nil {
		// Link info and group info: nothing tracked, no heap.
		if err := message(msgLinkInfo, le64([]byte{0, 0}, math.MaxUint64, math.MaxUint64)); err != nil {
			return nil, err
		}
		if err := message(0x0a, []byte{0, 0}); err != nil {
			return nil, err
		}
		for _, a := range m.group.attributes {
			name := append([]byte(a.name), 0)
			kind := le32([]byte{0x13, 0x10, 0, 0}, uint32(max(len(a.value), 1))) // a string, UTF-8, ended by zero
			kind[1] |= 1                                                         // or filled by zeros
			space := []byte{2, 0, 0, 0}                                          // scalar
			data := le16([]byte{3, 0}, uint16(len(name)), uint16(len(kind)), uint16(len(space)))
			data = append(data, 1) // the name is UTF-8
			data = append(append(append(data, name...), kind...), space...)
			data = append(data, a.value...)
			if a.value == "" {
				data = append(data, 0)
			}
			if err := message(msgAttribute, data); err != nil {
				return nil, fmt.Errorf("attribute %q: %w", a.name, err)
			}
		}
		for _, c := range m.group.members {
			if c.name == "" || len(c.name) > maxName {
				return nil, fmt.Errorf("a member called %.60q", c.name)
			}
			data := le16([]byte{1, 0x11, 1}, uint16(len(c.name))) // UTF-8, length in two bytes
			data = le64(append(data, c.name...), c.address)
			if err := message(msgLink, data); err != nil {
				return nil, err
			}
		}
	} else {
		kind, err := datatype(m.tensor.DType())
		if err != nil {
			return nil, err
		}
		shape := m.tensor.Shape()
		space := []byte{2, byte(len(shape)), 0, 1}
		if len(shape) == 0 {
			space[3] = 0
		}
		for _, d := range shape {
			space = le64(space, uint64(d))
		}
		address := m.data
		if m.tensor.Len() == 0 {
			address = math.MaxUint64
		}
		layout := le64([]byte{3, contiguousLayout}, address, uint64(m.tensor.Len()*m.tensor.DType().Size()))
		for _, x := range []struct {
			kind byte
			data []byte
		}{{msgDataspace, space}, {msgDatatype, kind}, {msgFill, []byte{3, 0x0a}}, {msgLayout, layout}} {
			if err := message(x.kind, x.data); err != nil {
				return nil, err
			}
		}
	}
	if len(body) > maxMetadata {
		return nil, fmt.Errorf("an object header of %d bytes", len(body))
	}
	h := append([]byte("OHDR"), 2, 2) // the size below has four bytes
	h = append(le32(h, uint32(len(body))), body...)
	return le32(h, lookup3(h)), nil
}

// datatype is the message for a tensor's type, little-endian.
func datatype(t tensor.DType) ([]byte, error) {
	float := func(size, exponentAt, exponentBits, bias int) []byte {
		b := le32([]byte{0x11, 0x20, byte(8*size - 1), 0}, uint32(size))
		b = le16(b, 0, uint16(8*size))
		b = append(b, byte(exponentAt), byte(exponentBits), 0, byte(exponentAt))
		return le32(b, uint32(bias))
	}
	integer := func(size int, flags byte) []byte {
		return le16(le32([]byte{0x10, flags, 0, 0}, uint32(size)), 0, uint16(8*size))
	}
	switch t {
	case tensor.Float64:
		return float(8, 52, 11, 1023), nil
	case tensor.Float32:
		return float(4, 23, 8, 127), nil
	case tensor.Float16:
		return float(2, 10, 5, 15), nil
	case tensor.Int64:
		return integer(8, 8), nil
	case tensor.Int32:
		return integer(4, 8), nil
	case tensor.Uint8:
		return integer(1, 0), nil
	}
	return nil, fmt.Errorf("cannot write %v", t)
}

// counter writes and knows where it is; the first error stays.
type counter struct {
	w   *bufio.Writer
	at  uint64
	err error
}

func (c *counter) Write(b []byte) (int, error) {
	if c.err == nil {
		_, c.err = c.w.Write(b)
	}
	c.at += uint64(len(b))
	return len(b), c.err
}

// pad writes zeros up to byte `to`.
func (c *counter) pad(to uint64) {
	if to > c.at {
		c.Write(make([]byte, to-c.at))
	}
}

func le16(b []byte, v ...uint16) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint16(b, x)
	}
	return b
}

func le32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }

func le64(b []byte, v ...uint64) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}
