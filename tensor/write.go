package tensor

import (
	"encoding/binary"
	"io"
	"math"
)

// writeBytes is the buffer between elements and their bytes: small enough for the
// second-level cache, a multiple of every element size.
const writeBytes = 1 << 16

// Write writes the elements of t in row-major order, little-endian, a bool as a byte,
// as every file format here holds them. Its errors are w's.
func Write(w io.Writer, t Tensor) error {
	le := binary.LittleEndian
	switch data := t.data.(type) {
	case []float64:
		return write(w, data, 8, func(b []byte, v float64) { le.PutUint64(b, math.Float64bits(v)) })
	case []float32:
		return write(w, data, 4, func(b []byte, v float32) { le.PutUint32(b, math.Float32bits(v)) })
	case []uint16:
		return write(w, data, 2, le.PutUint16)
	case []int64:
		return write(w, data, 8, func(b []byte, v int64) { le.PutUint64(b, uint64(v)) })
	case []int32:
		return write(w, data, 4, func(b []byte, v int32) { le.PutUint32(b, uint32(v)) })
	case []int16:
		return write(w, data, 2, func(b []byte, v int16) { le.PutUint16(b, uint16(v)) })
	case []int8:
		return write(w, data, 1, func(b []byte, v int8) { b[0] = byte(v) })
	case []uint8:
		_, err := w.Write(data)
		return err
	}
	panic("tensor: writing of an empty tensor")
}

func write[T any](w io.Writer, data []T, size int, encode func([]byte, T)) error {
	buf := make([]byte, min(writeBytes, len(data)*size))
	for len(data) > 0 {
		n := min(len(buf)/size, len(data))
		for i, v := range data[:n] {
			encode(buf[i*size:], v)
		}
		if _, err := w.Write(buf[:n*size]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
