package hdf5

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strings"
)

// Read reads the tree of a file of size bytes: groups, attributes, and what
// the data sets are.
func Read(r io.ReaderAt, size int64) (*File, error) {
	s := newSource(r, size)
	root, err := s.superblock()
	if err == nil {
		var o *Object
		if o, err = s.object(root, "/", 0); err == nil {
			return &File{Root: o}, nil
		}
	}
	return nil, fmt.Errorf("hdf5: %w", err)
}

// superblock returns the address of the root group's header, section II.A.
func (s *source) superblock() (uint64, error) {
	b, err := s.meta(0, min(s.size, 112))
	if err != nil {
		return 0, err
	}
	if !IsFile(b) {
		return 0, fmt.Errorf("the file begins with %.8q, want %q", b, signature)
	}
	f := s.fields(b)
	f.skip(8)
	version := f.version(0, 1, 2, 3)
	if version < 2 {
		f.skip(4)
	}
	s.offset, s.length = f.u8(), f.u8()
	if f.err == nil && (s.offset != 4 && s.offset != 8 || s.length != 4 && s.length != 8) {
		f.err = fmt.Errorf("%d-byte addresses and %d-byte lengths, want 4 or 8", s.offset, s.length)
	}
	if f.err != nil { // with sizes nobody checked, go no further
		return 0, fmt.Errorf("superblock: %w", f.err)
	}
	var base, end, root uint64
	if version < 2 {
		f.skip(1 + 2 + 2 + 4)
		if version == 1 {
			f.skip(4)
		}
		base = f.address()
		f.address() // free space
		end = f.address()
		f.address() // driver information
		f.address() // the root's name
		root = f.address()
	} else {
		f.skip(1)
		base = f.address()
		f.address() // extension
		end = f.address()
		root = f.address()
		f.skip(4)
		if f.err == nil {
			f.err = checked(b[:f.at])
		}
	}
	switch {
	case f.err != nil:
		return 0, fmt.Errorf("superblock: %w", f.err)
	case base != 0:
		return 0, fmt.Errorf("superblock: base address %d, want 0: files inside other files are not read", base)
	case end > s.size:
		return 0, fmt.Errorf("the file should have %d bytes and has %d: it is cut short", end, s.size)
	}
	return root, nil
}

// message is one message of an object header.
type message struct {
	kind int
	body []byte
}

// The messages that are read, section IV.A.2.
const (
	msgDataspace     = 0x01
	msgLinkInfo      = 0x02
	msgDatatype      = 0x03
	msgFill          = 0x05
	msgLink          = 0x06
	msgExternal      = 0x07
	msgLayout        = 0x08
	msgFilters       = 0x0b
	msgAttribute     = 0x0c
	msgContinuation  = 0x10
	msgSymbolTable   = 0x11
	msgAttributeInfo = 0x15
)

// messages reads an object header of either version, section IV.A.1.
func (s *source) messages(address uint64) ([]message, error) {
	n := uint64(16)
	if address < s.size {
		n = min(n, s.size-address)
	}
	head, err := s.meta(address, n)
	if err != nil {
		return nil, err
	}
	if string(head[:min(4, len(head))]) == "OHDR" {
		return s.messages2(address)
	}
	f := s.fields(head)
	f.version(1)
	f.skip(1)
	count := f.u16()
	f.skip(4)
	size := f.u32()
	f.skip(4)
	if f.err != nil {
		return nil, f.err
	}
	var out []message
	type block struct{ address, size uint64 }
	for blocks := []block{{address + 16, uint64(size)}}; len(blocks) > 0; blocks = blocks[1:] {
		b, err := s.meta(blocks[0].address, blocks[0].size)
		if err != nil {
			return nil, err
		}
		f := s.fields(b)
		for f.left() >= 8 && count > 0 {
			count--
			kind, size, flags := f.u16(), f.u16(), f.u8()
			f.skip(3)
			m := message{kind, f.bytes(size)}
			if f.err != nil {
				return nil, fmt.Errorf("message %#x: %w", kind, f.err)
			}
			if err := m.plain(flags); err != nil {
				return nil, err
			}
			if kind == msgContinuation {
				c := s.fields(m.body)
				blocks = append(blocks, block{c.address(), c.size()})
				if c.err != nil {
					return nil, c.err
				}
				continue
			}
			out = append(out, m)
		}
	}
	return out, nil
}

func (s *source) messages2(address uint64) ([]message, error) {
	head, err := s.meta(address, min(s.size-address, 34))
	if err != nil {
		return nil, err
	}
	f := s.fields(head)
	f.expect("OHDR")
	f.version(2)
	flags := f.u8()
	if flags&0x20 != 0 {
		f.skip(16)
	}
	if flags&0x10 != 0 {
		f.skip(4)
	}
	size := f.uint(1 << (flags & 3))
	if f.err != nil {
		return nil, f.err
	}
	skip := 4 // of a message's head
	if flags&4 != 0 {
		skip += 2 // creation order
	}
	var out []message
	type block struct{ address, prefix, size uint64 }
	if size > maxMetadata {
		return nil, fmt.Errorf("an object header of %d bytes", size)
	}
	for blocks := []block{{address, uint64(f.at), uint64(f.at) + size + 4}}; len(blocks) > 0; blocks = blocks[1:] {
		b, err := s.meta(blocks[0].address, blocks[0].size)
		if err != nil {
			return nil, err
		}
		if err := checked(b); err != nil {
			return nil, fmt.Errorf("object header: %w", err)
		}
		f := s.fields(b[:len(b)-4])
		if len(out) > 0 || blocks[0].address != address {
			f.expect("OCHK")
		}
		f.at = int(min(blocks[0].prefix, uint64(len(f.b))))
		for f.err == nil && f.left() >= skip {
			kind, size, flags := f.u8(), f.u16(), f.u8()
			f.skip(skip - 4)
			m := message{kind, f.bytes(size)}
			if f.err != nil {
				return nil, fmt.Errorf("message %#x: %w", kind, f.err)
			}
			if err := m.plain(flags); err != nil {
				return nil, err
			}
			if kind == msgContinuation {
				c := s.fields(m.body)
				blocks = append(blocks, block{c.address(), 4, c.size()})
				f.err = errors.Join(f.err, c.err)
				continue
			}
			out = append(out, m)
		}
		if f.err != nil {
			return nil, f.err
		}
	}
	return out, nil
}

// plain refuses messages that are elsewhere in the file, or that a reader must
// understand and this one does not.
func (m message) plain(flags int) error {
	read := false
	switch m.kind {
	case msgDataspace, msgLinkInfo, msgDatatype, msgFill, msgLink, msgExternal, msgLayout, msgFilters, msgAttribute,
		msgContinuation, msgSymbolTable, msgAttributeInfo:
		read = true
	}
	if read && flags&2 != 0 {
		return fmt.Errorf("message %#x is shared: committed types and shared messages are not read", m.kind)
	}
	if !read && flags&0x80 != 0 && m.kind != 0 {
		return fmt.Errorf("message %#x is unknown", m.kind)
	}
	return nil
}

// object reads the object whose header is at address, and all below it.
func (s *source) object(address uint64, path string, depth int) (*Object, error) {
	if s.objects++; s.objects > maxObjects {
		return nil, fmt.Errorf("more than %d objects", maxObjects)
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%.60q…: groups are nested more than %d deep", path, maxDepth)
	}
	if s.seen[address] {
		return nil, fmt.Errorf("%s: a second link to one object: hard links are not read", path)
	}
	s.seen[address] = true
	o := &Object{Path: path}
	messages, err := s.messages(address)
	if err == nil {
		err = s.fill(o, messages)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if o.Data != nil {
		return o, nil
	}
	links, err := s.links(messages)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	o.byName = make(map[string]*Object, len(links))
	for _, l := range links {
		if l.name == "" || l.name == "." || len(l.name) > maxName || strings.Contains(l.name, "/") {
			return nil, fmt.Errorf("%s: a link called %.60q", path, l.name)
		}
		if o.byName[l.name] != nil {
			return nil, fmt.Errorf("%s: two links called %q", path, l.name)
		}
		at := path + "/" + l.name
		if path == "/" {
			at = path + l.name
		}
		if l.kind != "" {
			return nil, fmt.Errorf("%s: a %s link: only hard links are read", at, l.kind)
		}
		child, err := s.object(l.address, at, depth+1)
		if err != nil {
			return nil, err
		}
		o.Children = append(o.Children, child)
		o.byName[l.name] = child
	}
	return o, nil
}

// fill reads attributes and, of a data set, what it is.
func (s *source) fill(o *Object, messages []message) error {
	var d Dataset
	var haveSpace, haveType, haveLayout bool
	for _, m := range messages {
		var err error
		switch m.kind {
		case msgDataspace:
			d.Dims, err = s.readSpace(m.body)
			haveSpace = true
		case msgDatatype:
			d.Type, err = s.readType(m.body)
			haveType = true
		case msgLayout:
			d.layout, err = s.readLayout(m.body)
			haveLayout = true
		case msgFilters:
			d.filters, err = s.readFilters(m.body)
		case msgFill:
			d.fill, err = s.readFill(m.body)
		case msgExternal:
			err = errors.New("its data are in another file: external storage is not read")
		case msgAttribute:
			var a *Attribute
			if a, err = s.readAttribute(m.body); err == nil {
				o.Attributes = append(o.Attributes, a)
			}
		case msgAttributeInfo:
			err = s.denseAttributes(o, m.body)
		}
		if err != nil {
			return err
		}
	}
	if !haveLayout {
		return nil
	}
	if !haveSpace || !haveType {
		return errors.New("a data set without dataspace or datatype")
	}
	if hi, n := bits.Mul64(uint64(elements(d.Dims)), uint64(d.Type.Size)); hi != 0 || n > math.MaxInt64 {
		return fmt.Errorf("shape %v of %d-byte elements is too large", d.Dims, d.Type.Size)
	}
	if len(d.fill) > 0 && len(d.fill) != d.Type.Size {
		return fmt.Errorf("a fill value of %d bytes for %d-byte elements", len(d.fill), d.Type.Size)
	}
	d.src = s
	o.Data = &d
	return nil
}

// readSpace returns dimensions, section IV.A.2.b; none for a scalar, [0] for
// the null dataspace.
func (s *source) readSpace(b []byte) ([]int, error) {
	f := s.fields(b)
	version := f.version(1, 2)
	rank := f.u8()
	f.skip(1)
	kind := 1
	if version == 2 {
		kind = f.u8()
	} else {
		f.skip(5)
	}
	if f.err == nil && (rank > maxRank || kind > 2) {
		f.err = fmt.Errorf("rank %d, kind %d", rank, kind)
	}
	if kind == 2 && f.err == nil {
		return []int{0}, nil
	}
	dims := make([]int, 0, min(rank, maxRank))
	n := uint64(1)
	for f.err == nil && len(dims) < rank {
		d := f.size()
		hi, lo := bits.Mul64(n, max(d, 1)) // axes of zero do not hide an overflow
		if hi != 0 || lo > math.MaxInt64 {
			f.err = fmt.Errorf("dimension %d after %v overflows", d, dims)
			break
		}
		n = lo
		dims = append(dims, int(d))
	}
	if f.err != nil {
		return nil, fmt.Errorf("dataspace: %w", f.err)
	}
	return dims, nil
}

// readFill returns the bytes of the fill value, nil for zeros, section IV.A.2.f.
func (s *source) readFill(b []byte) ([]byte, error) {
	f := s.fields(b)
	if version := f.version(1, 2, 3); version == 3 {
		if flags := f.u8(); flags&0x20 == 0 {
			return nil, f.err
		}
	} else {
		f.skip(2)
		if defined := f.u8(); version == 2 && defined == 0 {
			return nil, f.err
		}
	}
	if f.err == nil && f.left() == 0 {
		return nil, nil
	}
	value := f.bytes(f.u32())
	if f.err != nil {
		return nil, fmt.Errorf("fill value: %w", f.err)
	}
	return value, nil
}

// readAttribute reads an attribute message, section IV.A.2.m. Its data are
// bytes of the message.
func (s *source) readAttribute(b []byte) (*Attribute, error) {
	f := s.fields(b)
	version := f.version(1, 2, 3)
	flags := f.u8()
	nameSize, typeSize, spaceSize := f.u16(), f.u16(), f.u16()
	if version == 3 {
		f.skip(1) // encoding of the name
	}
	pad := func(n int) int {
		if version == 1 {
			return (n + 7) &^ 7
		}
		return n
	}
	if f.err != nil {
		return nil, fmt.Errorf("attribute: %w", f.err)
	}
	if version > 1 && flags&3 != 0 {
		return nil, errors.New("attribute: its type or dataspace is shared: these are not read")
	}
	nameBytes := f.bytes(pad(nameSize))
	typeBytes := f.bytes(pad(typeSize))
	spaceBytes := f.bytes(pad(spaceSize))
	if f.err != nil {
		return nil, fmt.Errorf("attribute: %w", f.err)
	}
	a := &Attribute{Name: cString(nameBytes), src: s}
	var err error
	if a.Type, err = s.readType(typeBytes); err == nil {
		a.Dims, err = s.readSpace(spaceBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("attribute %q: %w", a.Name, err)
	}
	hi, n := bits.Mul64(uint64(elements(a.Dims)), uint64(a.Type.Size))
	if hi != 0 || n > uint64(f.left()) {
		return nil, fmt.Errorf("attribute %q: shape %v of %d-byte elements, but %d bytes follow", a.Name, a.Dims, a.Type.Size, f.left())
	}
	a.raw = f.bytes(int(n))
	return a, nil
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
