package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/residual-ml/residual/tensor"
)

// Write writes tensors and metadata. The same arguments give the same bytes.
//
// The header lists the tensors as given. The data are stored by descending
// element size, otherwise as given, and the header is padded to a multiple of 8
// bytes: so every tensor is aligned for its type, which readers that map the
// file count on; the reference implementation does the same.
func Write(w io.Writer, tensors []Named, metadata map[string]string) error {
	header, stored, err := layOut(tensors, metadata)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("safetensors: writing the header: %w", err)
	}
	for _, n := range stored {
		t, err := n.value()
		if err == nil {
			err = tensor.Write(w, t)
		}
		if err != nil {
			return fmt.Errorf("safetensors: writing tensor %q: %w", n.Name, err)
		}
	}
	return nil
}

// bytes is the size of a tensor's data.
func (n Named) bytes() int64 {
	dtype, shape := n.kind()
	return int64(shape.Elements()) * int64(dtype.Size())
}

// layOut returns the header with its length prefix, and the tensors in the order
// in which their data follow.
func layOut(tensors []Named, metadata map[string]string) (header []byte, stored []Named, err error) {
	seen := make(map[string]bool, len(tensors))
	for _, n := range tensors {
		switch {
		case n.Name == metadataKey:
			return nil, nil, fmt.Errorf("tensor %q: the name is reserved", n.Name)
		case !utf8.ValidString(n.Name):
			return nil, nil, fmt.Errorf("tensor %q: the name is not UTF-8", n.Name)
		case seen[n.Name]:
			return nil, nil, fmt.Errorf("tensor %q: duplicate name", n.Name)
		case n.Later == nil && !n.Tensor.Valid():
			return nil, nil, fmt.Errorf("tensor %q: has no data", n.Name)
		}
		seen[n.Name] = true
	}

	stored = slices.Clone(tensors)
	slices.SortStableFunc(stored, func(a, b Named) int {
		x, _ := a.kind()
		y, _ := b.kind()
		return cmp.Compare(y.Size(), x.Size())
	})
	begin := make(map[string]int64, len(stored))
	at := int64(0)
	for _, n := range stored {
		begin[n.Name] = at
		at += n.bytes()
	}

	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	if metadata != nil {
		for key, value := range metadata {
			if !utf8.ValidString(key) || !utf8.ValidString(value) {
				return nil, nil, fmt.Errorf("metadata %q: %q is not UTF-8", key, value)
			}
		}
		writeJSON(&b, metadataKey)
		b.WriteByte(':')
		writeJSON(&b, metadata) // encoding/json sorts the keys
	}
	for i, n := range tensors {
		if i > 0 || metadata != nil {
			b.WriteByte(',')
		}
		kind, shape := n.kind()
		dtype, err := dtypeName(kind)
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", n.Name, err)
		}
		writeJSON(&b, n.Name)
		fmt.Fprintf(&b, `:{"dtype":%q,"shape":%v,"data_offsets":[%d,%d]}`, dtype, shape,
			begin[n.Name], begin[n.Name]+n.bytes())
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	header = b.Bytes()
	if len(header)-8 > maxHeader {
		return nil, nil, errors.New("the header is longer than the 100 MB that readers accept")
	}
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	return header, stored, nil
}

// writeJSON writes v, a string or a map of strings, without the escapes that
// encoding/json adds for HTML. It cannot fail.
func writeJSON(b *bytes.Buffer, v any) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("safetensors: encoding strings: " + err.Error())
	}
	b.Truncate(b.Len() - 1) // Encode ends with a newline
}
