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
