package safetensors

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/residual-ml/residual/tensor"
)

// chunkBytes is the buffer between file and elements: small enough for the
// second-level cache, a multiple of every element size.
const chunkBytes = 1 << 16

// readElements fills t from the next bytes of r.
func readElements(r io.Reader, t tensor.Tensor) error {
	le := binary.LittleEndian
	switch t.DType() {
	case tensor.Float64:
		return readEach(r, tensor.Data[float64](t), 8, func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) })
	case tensor.Float32:
		return readEach(r, tensor.Data[float32](t), 4, func(b []byte) float32 { return math.Float32frombits(le.Uint32(b)) })
	case tensor.Float16, tensor.BFloat16:
		return readEach(r, tensor.Data[uint16](t), 2, le.Uint16)
	case tensor.Int64:
		return readEach(r, tensor.Data[int64](t), 8, func(b []byte) int64 { return int64(le.Uint64(b)) })
	case tensor.Int32:
		return readEach(r, tensor.Data[int32](t), 4, func(b []byte) int32 { return int32(le.Uint32(b)) })
	case tensor.Int16:
		return readEach(r, tensor.Data[int16](t), 2, func(b []byte) int16 { return int16(le.Uint16(b)) })
	case tensor.Int8:
		return readEach(r, tensor.Data[int8](t), 1, func(b []byte) int8 { return int8(b[0]) })
	case tensor.Uint8, tensor.Bool:
		_, err := io.ReadFull(r, tensor.Data[uint8](t))
		return err
	}
	return fmt.Errorf("cannot read %v", t.DType())
}

func readEach[T any](r io.Reader, dst []T, size int, decode func([]byte) T) error {
	buf := make([]byte, min(chunkBytes, len(dst)*size))
	for len(dst) > 0 {
		chunk := buf[:min(len(buf), len(dst)*size)]
		if _, err := io.ReadFull(r, chunk); err != nil {
			return err
		}
		n := len(chunk) / size
		for i := range dst[:n] {
			dst[i] = decode(chunk[i*size:])
		}
		dst = dst[n:]
	}
	return nil
}

// writeElements is the inverse of readElements.
func writeElements(w io.Writer, t tensor.Tensor) error {
	le := binary.LittleEndian
	switch t.DType() {
	case tensor.Float64:
		return writeEach(w, tensor.Data[float64](t), 8, func(b []byte, v float64) { le.PutUint64(b, math.Float64bits(v)) })
	case tensor.Float32:
		return writeEach(w, tensor.Data[float32](t), 4, func(b []byte, v float32) { le.PutUint32(b, math.Float32bits(v)) })
	case tensor.Float16, tensor.BFloat16:
		return writeEach(w, tensor.Data[uint16](t), 2, le.PutUint16)
	case tensor.Int64:
		return writeEach(w, tensor.Data[int64](t), 8, func(b []byte, v int64) { le.PutUint64(b, uint64(v)) })
	case tensor.Int32:
		return writeEach(w, tensor.Data[int32](t), 4, func(b []byte, v int32) { le.PutUint32(b, uint32(v)) })
	case tensor.Int16:
		return writeEach(w, tensor.Data[int16](t), 2, func(b []byte, v int16) { le.PutUint16(b, uint16(v)) })
	case tensor.Int8:
		return writeEach(w, tensor.Data[int8](t), 1, func(b []byte, v int8) { b[0] = byte(v) })
	case tensor.Uint8, tensor.Bool:
		_, err := w.Write(tensor.Data[uint8](t))
		return err
	}
	return fmt.Errorf("cannot write %v", t.DType())
}

func writeEach[T any](w io.Writer, src []T, size int, encode func([]byte, T)) error {
	buf := make([]byte, min(chunkBytes, len(src)*size))
	for len(src) > 0 {
		n := min(len(buf)/size, len(src))
		for i, v := range src[:n] {
			encode(buf[i*size:], v)
		}
		if _, err := w.Write(buf[:n*size]); err != nil {
			return err
		}
		src = src[n:]
	}
	return nil
}
