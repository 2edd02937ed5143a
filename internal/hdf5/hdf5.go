// Package hdf5 reads the part of HDF5 that Keras and h5py write, and writes a
// small part of it that they read.
//
// Format: HDF5 File Format Specification Version 3.0,
// https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html; section
// numbers in this package are its. Read are
//
//	superblocks      0, 1, 2, 3
//	object headers   1, 2, with continuations
//	groups           symbol tables (B-tree 1, local heap); links in the header; links in a fractal heap (B-tree 2)
//	attributes       in the header; in a fractal heap
//	types            integers, IEEE floats of 16, 32, 64 bits in both byte orders, bfloat16, strings of fixed and variable
//	                 length, booleans and other enumerations as integers, opaque bytes
//	layouts          compact, contiguous, chunked (B-tree 1; a single chunk, implicit and fixed arrays)
//	filters          deflate, shuffle, fletcher32
//
// Everything else is refused by name: soft and external links, external and
// virtual data, other filters and types. Written are superblock 2, object
// headers 2, links in the header, contiguous data, strings of fixed length; no
// times, so the same content is the same bytes.
//
// A file is not trusted. Offsets are checked against the file's size before
// anything is read, checksums are verified where the format has them, an object
// that two links name is refused (so there are no cycles), and two budgets
// bound the work: bytes of metadata read, and bytes of elements decoded, both
// in proportion to the file's size.
package hdf5

import (
	"fmt"
	"strings"

	"github.com/residual-ml/residual/tensor"
)

// signature begins every file, section II.A.
const signature = "\x89HDF\r\n\x1a\n"

// IsFile reports whether prefix, the first bytes of a file, are HDF5's.
func IsFile(prefix []byte) bool { return strings.HasPrefix(string(prefix), signature) }

// File is an open file. Its tree is read; its data are not yet.
type File struct {
	Root *Object
}

// Object is a group or a data set.
type Object struct {
	Path       string // "/" for the root, "/layers/conv2d" below it
	Attributes []*Attribute
	Children   []*Object // of a group: by name where the file sorts them so, else as stored
	Data       *Dataset  // nil for a group

	byName map[string]*Object // Children
}

// Name is the last element of Path.
func (o *Object) Name() string { return o.Path[strings.LastIndexByte(o.Path, '/')+1:] }

// Child follows a path of names below o: "vars/0". It returns nil where there
// is no such object.
func (o *Object) Child(path string) *Object {
	for name := range strings.SplitSeq(path, "/") {
		if o = o.byName[name]; o == nil {
			return nil
		}
	}
	return o
}

// Attribute returns the attribute called name, or nil.
func (o *Object) Attribute(name string) *Attribute {
	for _, a := range o.Attributes {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// Attribute is a small value beside an object.
type Attribute struct {
	Name string
	Type Type
	Dims []int // none for a scalar
	raw  []byte
	src  *source
}

// Strings returns the elements of an attribute of strings.
func (a *Attribute) Strings() ([]string, error) {
	s, err := a.src.strings(a.Type, a.raw, elements(a.Dims))
	if err != nil {
		return nil, fmt.Errorf("attribute %q: %w", a.Name, err)
	}
	return s, nil
}

// Text returns the one string that an attribute holds.
func (a *Attribute) Text() (string, error) {
	s, err := a.Strings()
	if err == nil && len(s) != 1 {
		err = fmt.Errorf("attribute %q: %d strings, want one", a.Name, len(s))
	}
	if err != nil {
		return "", err
	}
	return s[0], nil
}

// Dataset is an array of elements of one type.
type Dataset struct {
	Type Type
	Dims []int // none for a scalar

	layout  layout
	filters []filter
	fill    []byte // one element, or nil for zeros
	src     *source
}

// Bytes is the size of the elements in memory.
func (d *Dataset) Bytes() int64 { return int64(elements(d.Dims)) * int64(d.Type.Size) }

// Tensor reads the numbers. Floats keep their width, integers and booleans
// become the tensor's type of the same width and sign; an unsigned integer
// wider than a byte and anything that is no number is an error. The two bytes
// of an opaque element are taken for a bfloat16: that is how h5py stores what
// Keras calls so.
func (d *Dataset) Tensor() (tensor.Tensor, error) {
	dtype, err := d.Type.dtype()
	if err != nil {
		return tensor.Tensor{}, err
	}
	raw, err := d.raw()
	if err != nil {
		return tensor.Tensor{}, err
	}
	t := tensor.New(dtype, d.Dims...)
	decode(t, raw, d.Type.BigEndian)
	return t, nil
}

// elements is the product of dims, which were checked when they were read.
func elements(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}
