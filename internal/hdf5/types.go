package hdf5

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/residual-ml/residual/tensor"
)

// Class is what the elements of a type are.
type Class uint8

// The classes that are read; Other is refused when a value of it is asked for.
const (
	Other Class = iota
	Integer
	Float
	BFloat16
	FixedString
	VariableString
	Opaque
)

// classNames are the format's classes, section IV.A.2.d.
var classNames = []string{"fixed-point", "floating-point", "time", "string", "bit field", "opaque", "compound", "reference", "enumeration", "variable-length", "array", "complex"}

// Type is the type of an element.
type Type struct {
	Class     Class
	Size      int // bytes in the file
	BigEndian bool
	Signed    bool
	spaces    bool   // strings are padded with spaces, not zeros
	what      string // for errors
}

func (t Type) String() string { return t.what }

// readType reads a datatype message.
func (s *source) readType(b []byte) (Type, error) {
	f := s.fields(b)
	t, err := f.datatype(0)
	if err == nil {
		err = f.err
	}
	if err != nil {
		return Type{}, fmt.Errorf("datatype: %w", err)
	}
	return t, nil
}

func (f *fields) datatype(depth int) (Type, error) {
	head := f.u8()
	class, version := head&15, head>>4
	flags := int(f.uint(3))
	size := f.u32()
	if f.err != nil {
		return Type{}, f.err
	}
	if version < 1 || version > 5 {
		return Type{}, fmt.Errorf("version %d, want 1 to 5", version)
	}
	if size < 1 || size > maxMetadata {
		return Type{}, fmt.Errorf("%d bytes for an element", size)
	}
	t := Type{Size: size, what: fmt.Sprintf("class %d", class)}
	if class < len(classNames) {
		t.what = fmt.Sprintf("%d-byte %s", size, classNames[class])
	}
	switch class {
	case 0: // fixed-point
		offset, precision := f.u16(), f.u16()
		t.BigEndian, t.Signed = flags&1 != 0, flags&8 != 0
		if offset == 0 && precision == 8*size && (size == 1 || size == 2 || size == 4 || size == 8) {
			t.Class = Integer
		}
	case 1: // floating-point
		offset, precision := f.u16(), f.u16()
		exponent, exponentBits, mantissa, mantissaBits, bias := f.u8(), f.u8(), f.u8(), f.u8(), f.u32()
		t.BigEndian = flags&1 != 0
		if flags&(1<<6) != 0 || flags>>4&3 != 2 || offset != 0 || precision != 8*size || mantissa != 0 ||
			exponent != mantissaBits || flags>>8&0xff != precision-1 {
			break // a VAX, or a layout of its own
		}
		switch [4]int{size, exponentBits, mantissaBits, bias} {
		case [4]int{2, 5, 10, 15}, [4]int{4, 8, 23, 127}, [4]int{8, 11, 52, 1023}:
			t.Class = Float
		case [4]int{2, 8, 7, 127}:
			t.Class = BFloat16
		}
	case 3:
		t.Class, t.spaces = FixedString, flags&15 == 2
	case 5:
		t.Class = Opaque
	case 8: // an enumeration is its base type; h5py's booleans are one
		if depth > 0 {
			return Type{}, fmt.Errorf("an enumeration of enumerations")
		}
		base, err := f.datatype(depth + 1)
		if err != nil {
			return Type{}, fmt.Errorf("enumeration: %w", err)
		}
		if base.Class == Integer && base.Size == size {
			base.what = t.what
			t = base
		}
	case 9:
		if flags&15 == 1 && size == 4+f.s.offset+4 {
			t.Class = VariableString
		}
	}
	if d, err := t.dtype(); err == nil && t.Class != Opaque {
		t.what = d.String()
		if t.BigEndian && size > 1 {
			t.what += " (big-endian)"
		}
	}
	return t, f.err
}

// dtype is the tensor's type for t.
func (t Type) dtype() (tensor.DType, error) {
	switch {
	case t.Class == Float && t.Size == 8:
		return tensor.Float64, nil
	case t.Class == Float && t.Size == 4:
		return tensor.Float32, nil
	case t.Class == Float && t.Size == 2:
		return tensor.Float16, nil
	case t.Class == BFloat16, t.Class == Opaque && t.Size == 2:
		return tensor.BFloat16, nil
	case t.Class == Integer && t.Signed:
		return map[int]tensor.DType{1: tensor.Int8, 2: tensor.Int16, 4: tensor.Int32, 8: tensor.Int64}[t.Size], nil
	case t.Class == Integer && t.Size == 1:
		return tensor.Uint8, nil
	}
	return 0, fmt.Errorf("elements are %v: these cannot be read as numbers", t)
}

// decode fills t from its elements in a file.
func decode(t tensor.Tensor, raw []byte, bigEndian bool) {
	var order binary.ByteOrder = binary.LittleEndian
	if bigEndian {
		order = binary.BigEndian
	}
	switch t.DType() {
	case tensor.Float64:
		decodeEach(tensor.Data[float64](t), raw, 8, func(b []byte) float64 { return math.Float64frombits(order.Uint64(b)) })
	case tensor.Float32:
		decodeEach(tensor.Data[float32](t), raw, 4, func(b []byte) float32 { return math.Float32frombits(order.Uint32(b)) })
	case tensor.Float16, tensor.BFloat16:
		decodeEach(tensor.Data[uint16](t), raw, 2, order.Uint16)
	case tensor.Int64:
		decodeEach(tensor.Data[int64](t), raw, 8, func(b []byte) int64 { return int64(order.Uint64(b)) })
	case tensor.Int32:
		decodeEach(tensor.Data[int32](t), raw, 4, func(b []byte) int32 { return int32(order.Uint32(b)) })
	case tensor.Int16:
		decodeEach(tensor.Data[int16](t), raw, 2, func(b []byte) int16 { return int16(order.Uint16(b)) })
	case tensor.Int8:
		decodeEach(tensor.Data[int8](t), raw, 1, func(b []byte) int8 { return int8(b[0]) })
	case tensor.Uint8:
		copy(tensor.Data[uint8](t), raw)
	}
}

func decodeEach[T any](dst []T, raw []byte, size int, value func([]byte) T) {
	for i := range dst {
		dst[i] = value(raw[i*size:])
	}
}

// strings reads n strings.
func (s *source) strings(t Type, raw []byte, n int) ([]string, error) {
	if t.Class != FixedString && t.Class != VariableString {
		return nil, fmt.Errorf("elements are %v, want strings", t)
	}
	out := make([]string, n)
	for i := range out {
		b := raw[i*t.Size : (i+1)*t.Size]
		if t.Class == VariableString {
			f := s.fields(b)
			length, address, index := f.uint(4), f.address(), f.u32()
			if length == 0 || s.undefined(address) {
				continue
			}
			object, err := s.globalHeap(address, index)
			if err != nil {
				return nil, fmt.Errorf("string %d: %w", i, err)
			}
			if uint64(len(object)) < length {
				return nil, fmt.Errorf("string %d: %d bytes, but its place holds %d", i, length, len(object))
			}
			b = object[:length]
		}
		if t.spaces {
			b = bytes.TrimRight(b, " ")
		} else if end := bytes.IndexByte(b, 0); end >= 0 {
			b = b[:end]
		}
		if err := s.spend(uint64(len(b))); err != nil { // many elements may name one long string
			return nil, err
		}
		out[i] = string(b)
	}
	return out, nil
}

// globalHeap returns object index of the collection at address, section III.E.
func (s *source) globalHeap(address uint64, index int) ([]byte, error) {
	b, ok := s.heaps[address]
	if !ok {
		head, err := s.meta(address, uint64(8+s.length))
		if err != nil {
			return nil, fmt.Errorf("global heap: %w", err)
		}
		f := s.fields(head)
		f.expect("GCOL")
		f.version(1)
		f.skip(3)
		size := f.size()
		if f.err != nil {
			return nil, fmt.Errorf("global heap: %w", f.err)
		}
		if b, err = s.meta(address, size); err != nil {
			return nil, fmt.Errorf("global heap: %w", err)
		}
		s.heaps[address] = b
	}
	f := s.fields(b)
	f.skip(8 + s.length)
	for f.left() >= 8+s.length {
		i := f.u16()
		f.skip(6)
		size := f.size()
		if i == 0 || size > uint64(f.left()) {
			break // free space ends the collection
		}
		data := f.bytes(int(size))
		if i == index {
			return data, nil
		}
		f.skip(min(int(-size&7), f.left()))
	}
	return nil, fmt.Errorf("global heap at byte %d has no object %d", address, index)
}
