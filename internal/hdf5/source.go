package hdf5

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// The limits.
const (
	maxObjects   = 1 << 17 // links followed
	maxDepth     = 64      // groups within groups, and levels of any B-tree
	maxRank      = 32      // the format's own
	maxName      = 1 << 12 // bytes of a name
	maxMetadata  = 1 << 26 // bytes of one header, node or heap
	metadataBase = 1 << 22 // bytes of metadata read: metadataBase + metadataTime·size of the file
	metadataTime = 8
	decodedBase  = 1 << 20 // bytes of elements decoded, likewise: deflated zeros are a legitimate 1:1000
	decodedTimes = 32
)

var errMetadata = errors.New("the file's structures are read over and over: it is damaged or an attack")

// source is the file with its two budgets.
type source struct {
	r        io.ReaderAt
	size     uint64
	offset   int // bytes of an address: 4 or 8
	length   int // bytes of a length: 4 or 8
	metadata int64
	decoded  int64
	heaps    map[uint64][]byte // global heap collections by address
	seen     map[uint64]bool   // object headers
	objects  int
}

func newSource(r io.ReaderAt, size int64) *source {
	return &source{r: r, size: uint64(size), offset: 8, length: 8, heaps: map[uint64][]byte{}, seen: map[uint64]bool{},
		metadata: metadataBase + metadataTime*size, decoded: decodedBase + decodedTimes*size}
}

// within reports an extent that leaves the file.
func (s *source) within(address, n uint64) error {
	end, carry := bits.Add64(address, n, 0)
	if carry != 0 || end > s.size {
		return fmt.Errorf("bytes %d to %d+%d, but the file has %d", address, address, n, s.size)
	}
	return nil
}

// meta reads n bytes of structure.
func (s *source) meta(address, n uint64) ([]byte, error) {
	if err := s.within(address, n); err != nil {
		return nil, err
	}
	if n > maxMetadata {
		return nil, fmt.Errorf("%d bytes of structure, want at most %d", n, maxMetadata)
	}
	if s.metadata -= int64(n); s.metadata < 0 {
		return nil, errMetadata
	}
	return s.data(address, n)
}

// data reads n bytes that the caller has accounted for.
func (s *source) data(address, n uint64) ([]byte, error) {
	if err := s.within(address, n); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if _, err := s.r.ReadAt(b, int64(address)); err != nil && !(errors.Is(err, io.EOF) && n == 0) {
		return nil, fmt.Errorf("bytes %d to %d+%d: %w", address, address, n, unexpected(err))
	}
	return b, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// spend takes n bytes from the budget of decoded elements.
func (s *source) spend(n uint64) error {
	if n > uint64(max(s.decoded, 0)) {
		return fmt.Errorf("%d bytes of elements are more than a file of %d bytes is trusted with", n, s.size)
	}
	s.decoded -= int64(n)
	return nil
}

// undefined is the address of what does not exist: all bits set.
func (s *source) undefined(address uint64) bool {
	return address == ^uint64(0)>>(64-8*s.offset)
}

// fields is a cursor over bytes. The first read past the end sets err, and all
// reads after it are zero.
type fields struct {
	b   []byte
	at  int
	err error
	s   *source
}

func (s *source) fields(b []byte) *fields { return &fields{b: b, s: s} }

func (f *fields) bytes(n int) []byte {
	if f.err == nil && (n < 0 || n > len(f.b)-f.at) {
		f.err = fmt.Errorf("cut short: %d bytes wanted at byte %d of %d", n, f.at, len(f.b))
	}
	if f.err != nil {
		return make([]byte, max(0, min(n, 8)))
	}
	f.at += n
	return f.b[f.at-n : f.at]
}

// uint is a little-endian number of n bytes, n at most 8.
func (f *fields) uint(n int) uint64 {
	var b [8]byte
	copy(b[:], f.bytes(n))
	return binary.LittleEndian.Uint64(b[:])
}

func (f *fields) u8() int         { return int(f.uint(1)) }
func (f *fields) u16() int        { return int(f.uint(2)) }
func (f *fields) u32() int        { return int(f.uint(4)) }
func (f *fields) address() uint64 { return f.uint(f.s.offset) }
func (f *fields) size() uint64    { return f.uint(f.s.length) }
func (f *fields) skip(n int)      { f.bytes(n) }
func (f *fields) left() int       { return len(f.b) - f.at }

// expect reads a signature.
func (f *fields) expect(signature string) {
	if got := f.bytes(len(signature)); f.err == nil && string(got) != signature {
		f.err = fmt.Errorf("%q, want %q", got, signature)
	}
}

// version reads a version and compares it.
func (f *fields) version(want ...int) int {
	got := f.u8()
	if f.err != nil {
		return got
	}
	for _, w := range want {
		if got == w {
			return got
		}
	}
	f.err = fmt.Errorf("version %d, want %v", got, want)
	return got
}

// checked verifies that b ends with the checksum of what is before it.
func checked(b []byte) error {
	if len(b) < 4 {
		return fmt.Errorf("%d bytes, too few for a checksum", len(b))
	}
	body := b[:len(b)-4]
	if got, want := lookup3(body), binary.LittleEndian.Uint32(b[len(body):]); got != want {
		return fmt.Errorf("checksum %08x, want %08x: the file is damaged", got, want)
	}
	return nil
}

// lookup3 is Bob Jenkins's hashlittle of 2006,
// https://burtleburtle.net/bob/c/lookup3.c, with initial value 0: the checksum
// of HDF5's metadata.
func lookup3(b []byte) uint32 {
	rot := bits.RotateLeft32
	x := 0xdeadbeef + uint32(len(b))
	a, c := x, x
	bb := x
	for len(b) > 12 {
		a += binary.LittleEndian.Uint32(b)
		bb += binary.LittleEndian.Uint32(b[4:])
		c += binary.LittleEndian.Uint32(b[8:])
		a -= c
		a ^= rot(c, 4)
		c += bb
		bb -= a
		bb ^= rot(a, 6)
		a += c
		c -= bb
		c ^= rot(bb, 8)
		bb += a
		a -= c
		a ^= rot(c, 16)
		c += bb
		bb -= a
		bb ^= rot(a, 19)
		a += c
		c -= bb
		c ^= rot(bb, 4)
		bb += a
		b = b[12:]
	}
	if len(b) == 0 {
		return c
	}
	var tail [12]byte
	copy(tail[:], b)
	a += binary.LittleEndian.Uint32(tail[:])
	bb += binary.LittleEndian.Uint32(tail[4:])
	c += binary.LittleEndian.Uint32(tail[8:])
	c ^= bb
	c -= rot(bb, 14)
	a ^= c
	a -= rot(c, 11)
	bb ^= a
	bb -= rot(a, 25)
	c ^= bb
	c -= rot(bb, 16)
	a ^= c
	a -= rot(c, 4)
	bb ^= a
	bb -= rot(a, 14)
	c ^= bb
	c -= rot(bb, 24)
	return c
}
