package hdf5

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
)

// layout says where a data set's elements are, section IV.A.2.i.
type layout struct {
	class   int
	compact []byte
	address uint64
	size    uint64 // contiguous: bytes
	chunk   []int  // chunked: elements of a chunk along each axis, and last the bytes of an element
	index   int    // chunked: what finds the chunks
	single  uint64 // of a single filtered chunk: bytes stored
	mask    uint32 // and filters left out
}

// The classes of layouts and the kinds of chunk index; the version 1 B-tree
// has no number in the format.
const (
	compactLayout    = 0
	contiguousLayout = 1
	chunkedLayout    = 2

	treeIndex     = 0
	singleIndex   = 1
	implicitIndex = 2
	fixedIndex    = 3
)

func (s *source) readLayout(b []byte) (layout, error) {
	f := s.fields(b)
	version := f.version(3, 4)
	l := layout{class: f.u8()}
	switch l.class {
	case compactLayout:
		l.compact = f.bytes(f.u16())
	case contiguousLayout:
		l.address, l.size = f.address(), f.size()
	case chunkedLayout:
		flags, width := 0, 4
		if version == 4 {
			flags = f.u8()
		}
		rank := f.u8()
		if version == 3 {
			l.address = f.address()
		} else if width = f.u8(); f.err == nil && (width < 1 || width > 8) {
			f.err = fmt.Errorf("chunk dimensions of %d bytes", width)
		}
		if f.err == nil && (rank < 2 || rank > maxRank+1) {
			f.err = fmt.Errorf("chunks of rank %d", rank-1)
		}
		n := uint64(1)
		for i := 0; i < rank && f.err == nil; i++ {
			d := f.uint(width)
			hi, lo := bits.Mul64(n, d)
			if d == 0 || hi != 0 || lo > math.MaxInt32 {
				f.err = fmt.Errorf("a chunk dimension of %d after %v", d, l.chunk)
				break
			}
			n = lo
			l.chunk = append(l.chunk, int(d))
		}
		if version == 3 || f.err != nil {
			break
		}
		switch l.index = f.u8(); l.index {
		case singleIndex:
			if flags&2 != 0 {
				l.single = f.size()
				l.mask = uint32(f.uint(4))
			}
		case implicitIndex:
		case fixedIndex:
			f.skip(1)
		default:
			return l, fmt.Errorf("layout: chunk index of kind %d: extensible arrays and B-trees of version 2 are not read", l.index)
		}
		l.address = f.address()
	case 3:
		return l, errors.New("layout: its data are views of other data sets: virtual data sets are not read")
	default:
		return l, fmt.Errorf("layout: class %d", l.class)
	}
	if f.err != nil {
		return l, fmt.Errorf("layout: %w", f.err)
	}
	return l, nil
}

// filter is a step of the pipeline between elements and bytes stored.
type filter struct {
	id     int
	values []int
}

// The filters that are read.
const (
	deflateFilter    = 1
	shuffleFilter    = 2
	fletcher32Filter = 3
)

var filterNames = map[int]string{4: "szip", 5: "nbit", 6: "scale-offset", 32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32015: "Zstandard"}

// readFilters reads a filter pipeline message, section IV.A.2.l.
func (s *source) readFilters(b []byte) ([]filter, error) {
	f := s.fields(b)
	version := f.version(1, 2)
	n := f.u8()
	if version == 1 {
		f.skip(6)
	}
	if f.err == nil && n > 32 {
		f.err = fmt.Errorf("%d filters, want at most 32", n)
	}
	var out []filter
	for i := 0; i < n && f.err == nil; i++ {
		x := filter{id: f.u16()}
		name := 0
		if version == 1 || x.id >= 256 {
			name = f.u16()
		}
		f.skip(2)
		values := f.u16()
		if version == 1 {
			name = (name + 7) &^ 7
		}
		f.skip(name)
		for j := 0; j < values && f.err == nil; j++ {
			x.values = append(x.values, f.u32())
		}
		if version == 1 && values%2 == 1 {
			f.skip(min(4, f.left()))
		}
		if f.err == nil && (x.id < deflateFilter || x.id > fletcher32Filter) {
			name := filterNames[x.id]
			if name == "" {
				name = fmt.Sprint("number ", x.id)
			}
			return nil, fmt.Errorf("filter %s is not read; deflate, shuffle and fletcher32 are", name)
		}
		out = append(out, x)
	}
	if f.err != nil {
		return nil, fmt.Errorf("filters: %w", f.err)
	}
	return out, nil
}

// raw returns the elements' bytes.
func (d *Dataset) raw() ([]byte, error) {
	s, n := d.src, uint64(d.Bytes())
	if err := s.spend(n); err != nil {
		return nil, err
	}
	if d.layout.class != chunkedLayout && len(d.filters) > 0 {
		return nil, errors.New("filters on data that are not in chunks")
	}
	switch {
	case n == 0:
		return nil, nil
	case d.layout.class == compactLayout:
		if uint64(len(d.layout.compact)) != n {
			return nil, fmt.Errorf("%d bytes stored, want %d", len(d.layout.compact), n)
		}
		return d.layout.compact, nil
	case s.undefined(d.layout.address):
		return d.filled(n), nil
	case d.layout.class == contiguousLayout:
		if d.layout.size != n {
			return nil, fmt.Errorf("%d bytes stored, want %d", d.layout.size, n)
		}
		return s.data(d.layout.address, n)
	}
	return d.chunks(n)
}

// filled is n bytes of fill values.
func (d *Dataset) filled(n uint64) []byte {
	out := make([]byte, n)
	if len(bytes.Trim(d.fill, "\x00")) > 0 {
		for i := 0; i < len(out); i += len(d.fill) {
			copy(out[i:], d.fill)
		}
	}
	return out
}

// chunks assembles a chunked data set. A chunk reaches over the edge where the
// shape is no multiple of it.
func (d *Dataset) chunks(n uint64) ([]byte, error) {
	s, l := d.src, d.layout
	rank := len(d.Dims)
	if len(l.chunk) != rank+1 || l.chunk[rank] != d.Type.Size {
		return nil, fmt.Errorf("chunks of %v for shape %v of %d-byte elements", l.chunk, d.Dims, d.Type.Size)
	}
	chunkBytes := uint64(elements(l.chunk))
	count := make([]int, rank) // of chunks along each axis
	total := uint64(1)
	for i := range count {
		count[i] = (d.Dims[i]-1)/l.chunk[i] + 1
		total *= uint64(count[i]) // at most the number of elements
	}
	out := d.filled(n)
	at := make([]int, rank)
	place := func(i uint64) []int { // the chunk's first element
		for axis := rank - 1; axis >= 0; axis-- {
			at[axis] = int(i%uint64(count[axis])) * l.chunk[axis]
			i /= uint64(count[axis])
		}
		return at
	}
	put := func(at []int, address, stored uint64, mask uint32) error {
		if s.undefined(address) {
			return nil
		}
		if err := s.spend(chunkBytes); err != nil { // many chunks may name the same bytes
			return err
		}
		b, err := d.chunk(address, stored, chunkBytes, mask)
		if err != nil {
			return fmt.Errorf("chunk at %v: %w", at, err)
		}
		scatter(out, b, d.Dims, l.chunk, at)
		return nil
	}

	switch l.index {
	case treeIndex:
		seen := uint64(0)
		err := s.tree1(l.address, 1, 8+8*(rank+1), func(key []byte, child uint64) error {
			if seen++; seen > total {
				return fmt.Errorf("more than the %d chunks of shape %v", total, d.Dims)
			}
			f := s.fields(key)
			stored, mask := f.uint(4), uint32(f.uint(4))
			for i := range at {
				v := f.uint(8)
				if v >= uint64(d.Dims[i]) || v%uint64(l.chunk[i]) != 0 {
					return fmt.Errorf("a chunk at %d of axis %d, in chunks of %v for shape %v", v, i, l.chunk, d.Dims)
				}
				at[i] = int(v)
			}
			return put(at, child, stored, mask)
		})
		return out, err
	case singleIndex:
		if total != 1 {
			return nil, fmt.Errorf("a single chunk of %v for shape %v", l.chunk, d.Dims)
		}
		stored := chunkBytes
		if len(d.filters) > 0 {
			stored = l.single
		}
		return out, put(place(0), l.address, stored, l.mask)
	case implicitIndex:
		if len(d.filters) > 0 {
			return nil, errors.New("filters on chunks without an index")
		}
		if hi, all := bits.Mul64(total, chunkBytes); hi != 0 || s.within(l.address, all) != nil {
			return nil, fmt.Errorf("%d chunks of %d bytes at byte %d, but the file has %d bytes", total, chunkBytes, l.address, s.size)
		}
		for i := range total {
			if err := put(place(i), l.address+i*chunkBytes, chunkBytes, 0); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return out, s.fixedArray(l.address, total, len(d.filters) > 0, chunkBytes, func(i, address, stored uint64, mask uint32) error {
		return put(place(i), address, stored, mask)
	})
}

// fixedArray visits the chunks of a fixed array, section III.C.1 (chunked
// indexes): a header and one block of addresses.
func (s *source) fixedArray(address, total uint64, filtered bool, chunkBytes uint64, visit func(i, address, stored uint64, mask uint32) error) error {
	b, err := s.meta(address, uint64(8+s.length+s.offset+4))
	if err != nil {
		return fmt.Errorf("fixed array: %w", err)
	}
	f := s.fields(b)
	f.expect("FAHD")
	f.version(0)
	client, entry, pageBits := f.u8(), f.u8(), f.u8()
	n := f.size()
	block := f.address()
	if f.err == nil {
		f.err = checked(b)
	}
	sizeBytes := entry - s.offset - 4
	switch {
	case f.err != nil:
		return fmt.Errorf("fixed array: %w", f.err)
	case (client == 1) != filtered || !filtered && entry != s.offset || filtered && (sizeBytes < 1 || sizeBytes > 8):
		return fmt.Errorf("fixed array: entries of %d bytes, kind %d", entry, client)
	case n != total:
		return fmt.Errorf("fixed array: %d chunks, want %d", n, total)
	case pageBits < 64 && n > 1<<pageBits:
		return fmt.Errorf("fixed array: %d chunks are in pages: these are not read", n)
	case s.undefined(block):
		return nil
	case n > s.size:
		return fmt.Errorf("fixed array: %d chunks in a file of %d bytes", n, s.size)
	}
	b, err = s.meta(block, uint64(6+s.offset)+n*uint64(entry)+4)
	if err != nil {
		return fmt.Errorf("fixed array: %w", err)
	}
	f = s.fields(b)
	f.expect("FADB")
	f.version(0)
	f.skip(1 + s.offset)
	if f.err == nil {
		f.err = checked(b)
	}
	for i := uint64(0); i < n && f.err == nil; i++ {
		address, stored, mask := f.address(), chunkBytes, uint32(0)
		if filtered {
			stored, mask = f.uint(sizeBytes), uint32(f.uint(4))
		}
		if f.err == nil {
			if err := visit(i, address, stored, mask); err != nil {
				return err
			}
		}
	}
	if f.err != nil {
		return fmt.Errorf("fixed array: %w", f.err)
	}
	return nil
}

// chunk reads the stored bytes of a chunk and undoes the filters, last first;
// a bit of mask says that a filter was left out.
func (d *Dataset) chunk(address, stored, want uint64, mask uint32) ([]byte, error) {
	if stored > want+want/8+1<<10 { // deflate grows what it cannot shrink by far less
		return nil, fmt.Errorf("%d bytes stored for %d", stored, want)
	}
	b, err := d.src.data(address, stored)
	if err != nil {
		return nil, err
	}
	for i := len(d.filters) - 1; i >= 0; i-- {
		if mask>>i&1 != 0 {
			continue
		}
		switch d.filters[i].id {
		case deflateFilter:
			b, err = inflate(b, want+8) // a checksum may be inside
		case shuffleFilter:
			b = unshuffle(b, d.Type.Size)
		case fletcher32Filter:
			b, err = fletcher32(b)
		}
		if err != nil {
			return nil, err
		}
	}
	if uint64(len(b)) != want {
		return nil, fmt.Errorf("%d bytes, want %d", len(b), want)
	}
	return b, nil
}

// inflate returns at most limit bytes.
func inflate(b []byte, limit uint64) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("deflate: %w", unexpected(err))
	}
	out, err := io.ReadAll(io.LimitReader(z, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("deflate: %w", unexpected(err))
	}
	if uint64(len(out)) > limit {
		return nil, fmt.Errorf("deflate: more than %d bytes", limit)
	}
	return out, nil
}

// unshuffle puts the bytes of each element together again: they were stored as
// all first bytes, then all second bytes, …; what does not fill an element
// stays at the end.
func unshuffle(b []byte, size int) []byte {
	n := len(b) / size
	if size < 2 || n < 2 {
		return b
	}
	out := make([]byte, len(b))
	for j := range size {
		for i, x := range b[j*n : (j+1)*n] {
			out[i*size+j] = x
		}
	}
	copy(out[n*size:], b[n*size:])
	return out
}

// fletcher32 verifies and removes the checksum that ends b.
func fletcher32(b []byte) ([]byte, error) {
	if len(b) < 4 {
		return nil, errors.New("fletcher32: no room for the checksum")
	}
	body, stored := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	var a, c uint32 // sums modulo 65535 of 16-bit big-endian words
	for i := 0; i < len(body); i += 2 {
		w := uint32(body[i]) << 8
		if i+1 < len(body) {
			w |= uint32(body[i+1])
		}
		a = (a + w) % 65535
		c = (c + a) % 65535
	}
	// The library folds sums instead of dividing, so 65535 stands for its 0.
	same := func(x, y uint32) bool { return x%65535 == y%65535 }
	if !same(stored&0xffff, a) || !same(stored>>16, c) {
		return nil, fmt.Errorf("fletcher32: checksum %08x, want %04x%04x: the file is damaged", stored, c, a)
	}
	return body, nil
}

// scatter copies a chunk whose first element is at `at` into the whole array.
// The last axis of chunk is the bytes of an element.
func scatter(dst, src []byte, dims, chunk, at []int) {
	rank := len(dims)
	if rank == 0 {
		copy(dst, src)
		return
	}
	size := chunk[rank]
	row := min(chunk[rank-1], dims[rank-1]-at[rank-1]) * size
	index := make([]int, rank) // within the chunk; the last axis stays 0
	for {
		to, from := 0, 0
		inside := true
		for i := range rank {
			p := at[i] + index[i]
			inside = inside && p < dims[i]
			to = to*dims[i] + p
			from = from*chunk[i] + index[i]
		}
		if inside {
			copy(dst[to*size:to*size+row], src[from*size:])
		}
		axis := rank - 2
		for ; axis >= 0; axis-- {
			if index[axis]++; index[axis] < chunk[axis] && at[axis]+index[axis] < dims[axis] {
				break
			}
			index[axis] = 0
		}
		if axis < 0 {
			return
		}
	}
}
