package hdf5

import (
	"errors"
	"fmt"
	"math/bits"
)

// link is a member of a group. Only hard links have an address; of the others
// the kind is kept, to refuse them by name.
type link struct {
	name    string
	address uint64
	kind    string
}

// links returns the members of a group, from whichever of the three places
// they are in.
func (s *source) links(messages []message) ([]link, error) {
	var out []link
	for _, m := range messages {
		var more []link
		var err error
		switch m.kind {
		case msgSymbolTable:
			more, err = s.symbolTable(m.body)
		case msgLink:
			var l link
			l, err = s.readLink(m.body)
			more = []link{l}
		case msgLinkInfo:
			more, err = s.denseLinks(m.body)
		}
		if err != nil {
			return nil, err
		}
		if out = append(out, more...); len(out) > maxObjects {
			return nil, fmt.Errorf("more than %d links", maxObjects)
		}
	}
	return out, nil
}

// symbolTable reads an old group: a B-tree of symbol table nodes, whose names
// lie in a local heap; sections III.A.1, III.B, III.D.
func (s *source) symbolTable(b []byte) ([]link, error) {
	f := s.fields(b)
	tree, heap := f.address(), f.address()
	if f.err != nil {
		return nil, fmt.Errorf("symbol table: %w", f.err)
	}
	head, err := s.meta(heap, uint64(8+2*s.length+s.offset))
	if err != nil {
		return nil, fmt.Errorf("local heap: %w", err)
	}
	f = s.fields(head)
	f.expect("HEAP")
	f.version(0)
	f.skip(3)
	size := f.size()
	f.size()
	address := f.address()
	if f.err != nil {
		return nil, fmt.Errorf("local heap: %w", f.err)
	}
	names, err := s.meta(address, size)
	if err != nil {
		return nil, fmt.Errorf("local heap: %w", err)
	}

	var out []link
	err = s.tree1(tree, 0, s.length, func(_ []byte, node uint64) error {
		head, err := s.meta(node, 8)
		if err != nil {
			return err
		}
		f := s.fields(head)
		f.expect("SNOD")
		f.version(1)
		f.skip(1)
		n := f.u16()
		if f.err != nil {
			return f.err
		}
		entry := 2*s.offset + 24
		b, err := s.meta(node+8, uint64(n*entry))
		if err != nil {
			return err
		}
		for f = s.fields(b); f.left() >= entry; {
			at := f.address()
			l := link{address: f.address()}
			cache := f.u32()
			f.skip(20)
			if at >= uint64(len(names)) {
				return fmt.Errorf("a name at byte %d of a heap of %d", at, len(names))
			}
			l.name = cString(names[at:min(at+maxName+1, uint64(len(names)))])
			if cache == 2 {
				l.kind = "soft"
			}
			if out = append(out, l); len(out) > maxObjects {
				return fmt.Errorf("more than %d links", maxObjects)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("symbol table: %w", err)
	}
	return out, nil
}

// tree1 visits the children of a version 1 B-tree's leaves in order, each with
// the key before it; section III.A.1.
func (s *source) tree1(address uint64, kind, keySize int, visit func(key []byte, child uint64) error) error {
	return s.tree1Node(address, kind, keySize, -1, visit)
}

func (s *source) tree1Node(address uint64, kind, keySize, wantLevel int, visit func([]byte, uint64) error) error {
	head, err := s.meta(address, uint64(8+2*s.offset))
	if err != nil {
		return err
	}
	f := s.fields(head)
	f.expect("TREE")
	got, level, n := f.u8(), f.u8(), f.u16()
	switch {
	case f.err != nil:
		return f.err
	case got != kind:
		return fmt.Errorf("a B-tree of kind %d, want %d", got, kind)
	case level > maxDepth, wantLevel >= 0 && level != wantLevel:
		return fmt.Errorf("a B-tree node of level %d, want %d", level, wantLevel)
	}
	b, err := s.meta(address+uint64(len(head)), uint64(n*(keySize+s.offset)))
	if err != nil {
		return err
	}
	for f = s.fields(b); f.left() > 0 && f.err == nil; {
		key, child := f.bytes(keySize), f.address()
		if level > 0 {
			err = s.tree1Node(child, kind, keySize, level-1, visit)
		} else {
			err = visit(key, child)
		}
		if err != nil {
			return err
		}
	}
	return f.err
}

// readLink reads a link message, section IV.A.2.g.
func (s *source) readLink(b []byte) (link, error) {
	f := s.fields(b)
	f.version(1)
	flags := f.u8()
	kind := 0
	if flags&8 != 0 {
		kind = f.u8()
	}
	if flags&4 != 0 {
		f.skip(8)
	}
	if flags&16 != 0 {
		f.skip(1)
	}
	n := f.uint(1 << (flags & 3))
	if f.err == nil && n > maxName {
		f.err = fmt.Errorf("a name of %d bytes", n)
	}
	l := link{name: string(f.bytes(int(min(n, maxName))))}
	switch kind {
	case 0:
		l.address = f.address()
	case 1:
		l.kind = "soft"
	case 64:
		l.kind = "external"
	default:
		l.kind = "user-defined"
	}
	if f.err != nil {
		return link{}, fmt.Errorf("link: %w", f.err)
	}
	return l, nil
}

// denseLinks reads the links of a group that keeps them in a fractal heap,
// section IV.A.2.c; none if it does not.
func (s *source) denseLinks(b []byte) ([]link, error) {
	f := s.fields(b)
	f.version(0)
	if f.u8()&1 != 0 {
		f.skip(8)
	}
	heap, index := f.address(), f.address()
	if f.err != nil {
		return nil, fmt.Errorf("link info: %w", f.err)
	}
	if s.undefined(heap) {
		return nil, nil
	}
	var out []link
	err := s.dense(heap, index, 5, 4, func(b []byte) error {
		l, err := s.readLink(b)
		out = append(out, l)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	return out, nil
}

// denseAttributes is the same for attributes, section IV.A.2.v.
func (s *source) denseAttributes(o *Object, b []byte) error {
	f := s.fields(b)
	f.version(0)
	if f.u8()&1 != 0 {
		f.skip(2)
	}
	heap, index := f.address(), f.address()
	if f.err != nil {
		return fmt.Errorf("attribute info: %w", f.err)
	}
	if s.undefined(heap) {
		return nil
	}
	err := s.dense(heap, index, 8, 0, func(b []byte) error {
		a, err := s.readAttribute(b)
		if err == nil {
			o.Attributes = append(o.Attributes, a)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	return nil
}

// dense visits the objects of a fractal heap in the order of a version 2
// B-tree of the given kind, whose records have the heap's ID at byte idAt.
func (s *source) dense(heapAddress, index uint64, kind, idAt int, visit func([]byte) error) error {
	heap, err := s.readFractalHeap(heapAddress)
	if err != nil {
		return fmt.Errorf("fractal heap: %w", err)
	}
	n := 0
	return s.tree2(index, kind, func(record []byte) error {
		if n++; n > maxObjects {
			return fmt.Errorf("more than %d records", maxObjects)
		}
		if len(record) < idAt+heap.idSize {
			return fmt.Errorf("records of %d bytes, want %d", len(record), idAt+heap.idSize)
		}
		b, err := heap.object(record[idAt : idAt+heap.idSize])
		if err != nil {
			return fmt.Errorf("fractal heap: %w", err)
		}
		return visit(b)
	})
}

// tree2 visits the records of a version 2 B-tree, section III.A.2.
func (s *source) tree2(address uint64, kind int, visit func([]byte) error) error {
	b, err := s.meta(address, uint64(16+s.offset+2+s.length+4))
	if err != nil {
		return fmt.Errorf("tree of links: %w", err)
	}
	f := s.fields(b)
	f.expect("BTHD")
	f.version(0)
	got := f.u8()
	t := tree2{source: s, kind: kind, node: f.u32(), record: f.u16(), visit: visit}
	depth := f.u16()
	f.skip(2)
	root := f.address()
	n := f.u16()
	switch {
	case f.err != nil:
		return fmt.Errorf("tree of links: %w", f.err)
	case got != kind:
		return fmt.Errorf("a B-tree of kind %d, want %d", got, kind)
	case depth > maxDepth || t.record < 1 || t.node < 64 || t.node > maxMetadata:
		return fmt.Errorf("a B-tree of depth %d, with nodes of %d and records of %d bytes", depth, t.node, t.record)
	}
	if err := checked(b); err != nil {
		return fmt.Errorf("tree of links: %w", err)
	}
	if n == 0 && s.undefined(root) {
		return nil
	}

	// A node holds what its size allows; counts are as wide as the largest
	// needs (H5B2hdr.c).
	most := uint64(t.node-10) / uint64(t.record)
	t.countSize = encodedSize(most)
	t.totalSize = []int{0}
	total := most
	for range depth {
		pointer := s.offset + t.countSize + t.totalSize[len(t.totalSize)-1]
		most = uint64(max(0, t.node-10-pointer)) / uint64(t.record+pointer)
		hi, lo := bits.Mul64(most+1, total)
		if hi != 0 || lo+most < lo {
			return fmt.Errorf("a B-tree of depth %d is too deep", depth)
		}
		total = lo + most
		t.totalSize = append(t.totalSize, encodedSize(total))
	}
	if err := t.walk(root, n, depth); err != nil {
		return fmt.Errorf("tree of links: %w", err)
	}
	return nil
}

type tree2 struct {
	*source
	kind, node, record int
	countSize          int   // bytes of a child's number of records
	totalSize          []int // by level of the child: bytes of the number of records below it
	visit              func([]byte) error
}

func (t *tree2) walk(address uint64, n, depth int) error {
	b, err := t.meta(address, uint64(t.node))
	if err != nil {
		return err
	}
	f := t.fields(b)
	if depth == 0 {
		f.expect("BTLF")
	} else {
		f.expect("BTIN")
	}
	f.version(0)
	if kind := f.u8(); f.err == nil && kind != t.kind {
		return fmt.Errorf("a node of kind %d, want %d", kind, t.kind)
	}
	records := f.bytes(n * t.record)
	type child struct {
		address uint64
		n       int
	}
	var children []child
	if depth > 0 {
		for range n + 1 {
			children = append(children, child{f.address(), int(f.uint(t.countSize))})
			f.skip(t.totalSize[depth-1])
			if f.err != nil {
				break
			}
		}
	}
	f.skip(4)
	if f.err == nil {
		f.err = checked(b[:f.at])
	}
	if f.err != nil {
		return f.err
	}
	for i := range n + 1 {
		if depth > 0 {
			if err := t.walk(children[i].address, children[i].n, depth-1); err != nil {
				return err
			}
		}
		if i < n {
			if err := t.visit(records[i*t.record : (i+1)*t.record]); err != nil {
				return err
			}
		}
	}
	return nil
}

// encodedSize is the bytes that numbers up to n need.
func encodedSize(n uint64) int { return (max(bits.Len64(n), 1) + 7) / 8 }

// fractalHeap is section III.G: objects in direct blocks, which a tree of
// indirect blocks finds. Block sizes double from row to row, the first two rows
// being equal.
type fractalHeap struct {
	*source
	address       uint64
	idSize        int
	checked       bool // direct blocks have checksums
	width         uint64
	start, direct uint64 // sizes of the smallest and largest direct block
	root          uint64
	rows          int // of the root indirect block; 0: the root is a direct block
	offsetSize    int // bytes of an offset within the heap
	lengthSize    int // bytes of an object's length
}

func (s *source) readFractalHeap(address uint64) (*fractalHeap, error) {
	b, err := s.meta(address, uint64(26+12*s.length+3*s.offset))
	if err != nil {
		return nil, err
	}
	f := s.fields(b)
	f.expect("FRHP")
	f.version(0)
	h := &fractalHeap{source: s, address: address}
	h.idSize = f.u16()
	filters := f.u16()
	h.checked = f.u8()&2 != 0
	largest := f.uint(4)
	f.skip(s.length + s.offset + s.length + s.offset) // huge objects, free space
	f.skip(8 * s.length)                              // statistics
	h.width = uint64(f.u16())
	h.start, h.direct = f.size(), f.size()
	maxBits := f.u16()
	f.skip(2)
	h.root = f.address()
	h.rows = f.u16()
	power := func(n uint64) bool { return n > 0 && n&(n-1) == 0 && n <= maxMetadata }
	switch {
	case f.err != nil:
		return nil, f.err
	case filters != 0:
		return nil, errors.New("its blocks are filtered: these are not read")
	case !power(h.width) || !power(h.start) || !power(h.direct) || h.start > h.direct || maxBits < 1 || maxBits > 64 || h.rows > 64:
		return nil, fmt.Errorf("a table of width %d, blocks of %d to %d bytes, %d rows, %d bits", h.width, h.start, h.direct, h.rows, maxBits)
	}
	h.offsetSize = (maxBits + 7) / 8
	h.lengthSize = min((bits.Len64(h.direct)+6)/8, encodedSize(largest))
	if h.idSize < 1+h.offsetSize+h.lengthSize {
		return nil, fmt.Errorf("IDs of %d bytes, want at least %d", h.idSize, 1+h.offsetSize+h.lengthSize)
	}
	f.skip(4)
	if f.err == nil {
		f.err = checked(b[:f.at])
	}
	return h, f.err
}

// object returns the bytes that an ID stands for.
func (h *fractalHeap) object(id []byte) ([]byte, error) {
	f := h.fields(id)
	head := f.u8()
	switch head >> 4 {
	case 0: // managed
	case 2: // tiny: in the ID itself
		b := f.bytes(head&15 + 1)
		return b, f.err
	default:
		return nil, fmt.Errorf("an object of kind %d: huge objects are not read", head>>4)
	}
	offset, n := f.uint(h.offsetSize), f.uint(h.lengthSize)
	if f.err != nil {
		return nil, f.err
	}
	block, size, blockOffset := h.root, h.start, uint64(0)
	if h.rows > 0 {
		var err error
		if block, size, blockOffset, err = h.find(h.root, h.rows, 0, offset, 0); err != nil {
			return nil, err
		}
	}
	if offset < blockOffset || n > size || offset-blockOffset > size-n {
		return nil, fmt.Errorf("an object of %d bytes at %d, in a block of %d at %d", n, offset, size, blockOffset)
	}
	head4, err := h.meta(block, 4)
	if err != nil {
		return nil, err
	}
	if string(head4) != "FHDB" {
		return nil, fmt.Errorf("%q, want %q", head4, "FHDB")
	}
	if block > h.size {
		return nil, fmt.Errorf("a block at byte %d of %d", block, h.size)
	}
	return h.meta(block+offset-blockOffset, n)
}

// rowSize is the size of a row's blocks, 0 if no file can have them.
func (h *fractalHeap) rowSize(row int) uint64 {
	shift := max(0, row-1)
	if shift > 40 {
		return 0
	}
	return h.start << shift
}

// find returns the direct block that holds the heap's byte offset, below the
// indirect block at address, which begins at byte begin of the heap.
func (h *fractalHeap) find(address uint64, rows int, begin, offset uint64, depth int) (block, size, blockOffset uint64, err error) {
	if depth > maxDepth {
		return 0, 0, 0, errors.New("too many levels")
	}
	directRows := bits.Len64(h.direct) - bits.Len64(h.start) + 2
	entries := uint64(rows) * h.width
	b, err := h.meta(address, uint64(5+h.source.offset+h.offsetSize)+entries*uint64(h.source.offset)+4)
	if err != nil {
		return 0, 0, 0, err
	}
	f := h.fields(b)
	f.expect("FHIB")
	f.version(0)
	f.skip(h.source.offset + h.offsetSize)
	if f.err == nil {
		f.err = checked(b)
	}
	for row := 0; row < rows && f.err == nil; row++ {
		size := h.rowSize(row)
		if size == 0 {
			break
		}
		for range h.width {
			child := f.address()
			if offset-begin < size { // offset ≥ begin throughout
				switch {
				case h.undefined(child):
					return 0, 0, 0, fmt.Errorf("byte %d is in a block that was never written", offset)
				case row < directRows:
					return child, size, begin, nil
				}
				below := bits.Len64(size) - bits.Len64(h.start*h.width) + 1
				if below < 1 {
					return 0, 0, 0, fmt.Errorf("an indirect block of %d rows", below)
				}
				return h.find(child, below, begin, offset, depth+1)
			}
			begin += size
		}
	}
	if f.err != nil {
		return 0, 0, 0, f.err
	}
	return 0, 0, 0, fmt.Errorf("byte %d is outside the heap", offset)
}
