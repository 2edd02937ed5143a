package torch

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/tensor"
)

// folder is the folder of all entries; torch.save names it after the file, or so
// where it writes to memory.
const folder = "archive/"

// alignment of the storages' bytes, so that PyTorch can map them.
const alignment = 64

// Write writes tensors as a state_dict, as torch.save does: a zip of stored
// entries with a pickle of protocol 2, an OrderedDict of plain tensors that
// torch.load reads with weights_only. extra, when not nil, is kept in an entry that
// PyTorch ignores. The same arguments give the same bytes.
func Write(w io.Writer, tensors []safetensors.Named, extra map[string]string) error {
	p, err := pickleOf(tensors)
	if err != nil {
		return fmt.Errorf("torch: %w", err)
	}
	z := &archiveWriter{}
	z.zip = zip.NewWriter(countingWriter{w, &z.at})
	z.add("data.pkl", p)
	z.add("byteorder", []byte("little"))
	for i, n := range tensors {
		var b bytes.Buffer
		b.Grow(n.Tensor.Len() * n.Tensor.DType().Size())
		if err := tensor.Write(&b, n.Tensor); err != nil {
			return fmt.Errorf("torch: %w", err)
		}
		z.add("data/"+strconv.Itoa(i), b.Bytes())
	}
	if extra != nil {
		text, err := json.Marshal(extra) // sorts the keys
		if err != nil {
			return fmt.Errorf("torch: %w", err)
		}
		z.add(extraName, text)
	}
	z.add("version", []byte("3\n"))
	if z.err == nil {
		z.err = z.zip.Close()
	}
	if z.err != nil {
		return fmt.Errorf("torch: %w", z.err)
	}
	return nil
}

type countingWriter struct {
	io.Writer
	n *int64
}

func (c countingWriter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	*c.n += int64(n)
	return n, err
}

type archiveWriter struct {
	zip *zip.Writer
	at  int64 // bytes written
	err error
}

// add writes an entry whose bytes begin at a multiple of alignment: the gap is an
// extra field "FB", as PyTorch's own writer makes it.
func (z *archiveWriter) add(name string, content []byte) {
	if z.err != nil {
		return
	}
	if z.err = z.zip.Flush(); z.err != nil {
		return
	}
	h := &zip.FileHeader{
		Name: folder + name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(content),
		CompressedSize64: uint64(len(content)), UncompressedSize64: uint64(len(content)),
	}
	const localHeader, fieldHeader = 30, 4
	begin := z.at + localHeader + int64(len(h.Name)) + fieldHeader
	gap := (alignment - begin%alignment) % alignment
	h.Extra = append([]byte("FB"), byte(gap), byte(gap>>8))
	h.Extra = append(h.Extra, bytes.Repeat([]byte("Z"), int(gap))...)
	out, err := z.zip.CreateRaw(h)
	if err == nil {
		_, err = out.Write(content)
	}
	z.err = err
}

// pickleOf is the pickle of an OrderedDict from names to tensors; tensor i has
// storage i to itself.
func pickleOf(tensors []safetensors.Named) ([]byte, error) {
	var b bytes.Buffer
	text := func(s string) {
		b.WriteByte('X')
		b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
		b.WriteString(s)
	}
	number := func(n int) {
		switch {
		case n < 1<<8:
			b.Write([]byte{'K', byte(n)})
		case n < 1<<16:
			b.Write([]byte{'M', byte(n), byte(n >> 8)})
		case n <= math.MaxInt32:
			b.WriteByte('J')
			b.Write(binary.LittleEndian.AppendUint32(nil, uint32(n)))
		default:
			b.Write([]byte{0x8a, 8})
			b.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
		}
	}
	numbers := func(shape []int) {
		b.WriteByte('(')
		for _, n := range shape {
			number(n)
		}
		b.WriteByte('t')
	}
	ordered := func() { b.WriteString("ccollections\nOrderedDict\n)R") }

	seen := map[string]bool{}
	b.Write([]byte{0x80, 2})
	ordered()
	b.WriteByte('(')
	for i, n := range tensors {
		class := storageClass(n.Tensor.DType())
		switch {
		case !n.Tensor.Valid():
			return nil, fmt.Errorf("tensor %q: has no data", n.Name)
		case !utf8.ValidString(n.Name) || len(n.Name) > maxText:
			return nil, fmt.Errorf("tensor %.100q: the name is not UTF-8, or too long", n.Name)
		case seen[n.Name]:
			return nil, fmt.Errorf("tensor %q: duplicate name", n.Name)
		case class == "":
			return nil, fmt.Errorf("tensor %q: PyTorch has no storage of %v", n.Name, n.Tensor.DType())
		}
		seen[n.Name] = true
		shape := n.Tensor.Shape()
		stride := make([]int, len(shape))
		step := 1
		for axis := len(shape) - 1; axis >= 0; axis-- {
			stride[axis] = step
			step *= shape[axis]
		}
		text(n.Name)
		b.WriteString("ctorch._utils\n_rebuild_tensor_v2\n((")
		text("storage")
		b.WriteString("ctorch\n" + class + "\n")
		text(strconv.Itoa(i))
		text("cpu")
		number(n.Tensor.Len())
		b.WriteString("tQ")
		number(0)
		numbers(shape)
		numbers(stride)
		b.WriteByte(0x89) // requires_grad
		ordered()         // backward_hooks
		b.WriteString("tR")
	}
	b.WriteString("u.")
	return b.Bytes(), nil
}
