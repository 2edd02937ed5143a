package safetensors

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/residual-ml/residual/tensor"
)

// entry is one tensor as the header describes it; offsets are relative to the
// first byte after the header.
type entry struct {
	name       string
	dtype      tensor.DType
	shape      []int
	begin, end int64
}

// ReadFile reads the file at path.
func ReadFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	file, err := read(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	return file, nil
}

// Read reads a file of size bytes. Everything the header claims is checked
// against size before memory is taken for it.
func Read(r io.ReaderAt, size int64) (*File, error) {
	return ReadFrom(io.NewSectionReader(r, 0, size), size)
}

// ReadFrom is Read for a stream. It reads the size bytes once and in order, so
// that r may compute a checksum on the way.
func ReadFrom(r io.Reader, size int64) (*File, error) {
	file, err := read(r, size)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	return file, nil
}

func read(r io.Reader, size int64) (*File, error) {
	if size < 8 {
		return nil, fmt.Errorf("%d bytes, want at least the 8 of the header length", size)
	}
	r = bufio.NewReaderSize(r, chunkBytes) // for the many small tensors
	var prefix [8]byte
	if err := readFull(r, prefix[:]); err != nil {
		return nil, fmt.Errorf("header length: %w", err)
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxHeader {
		return nil, fmt.Errorf("header length is %d, want at most %d: this is no safetensors file", n, maxHeader)
	}
	if int64(n) > size-8 {
		return nil, fmt.Errorf("header length is %d, but only %d bytes follow: the file is cut short", n, size-8)
	}
	header := make([]byte, n)
	if err := readFull(r, header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	entries, metadata, err := parseHeader(header)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	byOffset, err := checkOffsets(entries, size-8-int64(n))
	if err != nil {
		return nil, err
	}

	f := &File{Metadata: metadata, tensors: make(map[string]tensor.Tensor, len(entries))}
	for _, e := range entries {
		f.Names = append(f.Names, e.name)
	}
	for _, e := range byOffset {
		t := tensor.New(e.dtype, e.shape...)
		if err := readElements(r, t); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", e.name, unexpected(err))
		}
		f.tensors[e.name] = t
	}
	return f, nil
}

func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	return unexpected(err)
}

// unexpected turns the end of the file into an error: size promised more.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// checkOffsets verifies that the tensors cover the buffer of size bytes from its
// first byte to its last, without hole or overlap, and that each is as long as
// its type and shape say. It returns them in the order of their data.
func checkOffsets(entries []entry, size int64) ([]entry, error) {
	for _, e := range entries {
		want, err := byteLen(e.dtype, e.shape)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", e.name, err)
		}
		if e.begin > e.end || e.end > size {
			return nil, fmt.Errorf("tensor %q: data_offsets [%d,%d], want an ascending pair within the %d bytes of data", e.name, e.begin, e.end, size)
		}
		if got := e.end - e.begin; got != want {
			name, _ := dtypeName(e.dtype)
			return nil, fmt.Errorf("tensor %q: data_offsets span %d bytes, want %d for %s %v", e.name, got, want, name, tensor.Shape(e.shape))
		}
	}
	byOffset := slices.Clone(entries)
	slices.SortStableFunc(byOffset, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	at := int64(0)
	for _, e := range byOffset {
		if e.begin != at {
			return nil, fmt.Errorf("tensor %q: data starts at byte %d, want %d: no hole and no overlap", e.name, e.begin, at)
		}
		at = e.end
	}
	if at != size {
		return nil, fmt.Errorf("%d bytes of data, want %d: the tensors must cover them all", size, at)
	}
	return byOffset, nil
}

// byteLen is the size of a tensor's elements. It refuses shapes whose other axes
// overflow an int even where a zero axis makes the product zero: such a shape is
// an attack or a mistake.
func byteLen(dtype tensor.DType, shape []int) (int64, error) {
	n, zero := uint64(dtype.Size()), false
	for _, d := range shape {
		if d == 0 {
			zero = true
			continue
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt {
			return 0, fmt.Errorf("shape %v is too large", tensor.Shape(shape))
		}
		n = lo
	}
	if zero {
		return 0, nil
	}
	return int64(n), nil
}

// parseHeader reads the JSON, strictly: encoding/json alone would accept
// duplicates and invalid UTF-8.
func parseHeader(header []byte) ([]entry, map[string]string, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, fmt.Errorf("starts with %.8q, want '{'", header)
	}
	if !utf8.Valid(header) {
		return nil, nil, errors.New("invalid UTF-8")
	}
	text := bytes.TrimRight(header, " ")
	if text[len(text)-1] != '}' {
		return nil, nil, fmt.Errorf("ends with %q, want '}' and then only spaces", text[len(text)-1:])
	}
	if !json.Valid(text) {
		var v json.RawMessage
		return nil, nil, json.Unmarshal(text, &v) // says where
	}

	var entries []entry
	var metadata map[string]string
	p := parser{json.NewDecoder(bytes.NewReader(text))}
	p.dec.UseNumber()
	err := p.object(func(name string) (err error) {
		if name == metadataKey {
			metadata = map[string]string{}
			if err = p.object(func(key string) (err error) {
				metadata[key], err = p.text()
				return err
			}); err != nil {
				return fmt.Errorf("%s: %w", metadataKey, err)
			}
			return nil
		}
		e, err := p.entry(name)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		entries = append(entries, e)
		return nil
	})
	return entries, metadata, err
}

// parser walks JSON that is known to be well-formed.
type parser struct{ dec *json.Decoder }

func (p parser) entry(name string) (entry, error) {
	e := entry{name: name}
	var seen int
	err := p.object(func(key string) error {
		seen++
		switch key {
		case "dtype":
			name, err := p.text()
			if err != nil {
				return fmt.Errorf("dtype: %w", err)
			}
			e.dtype, err = dtypeNamed(name)
			return err
		case "shape":
			axes, err := p.integers(strconv.IntSize - 1)
			if err != nil {
				return fmt.Errorf("shape: %w", err)
			}
			e.shape = make([]int, len(axes))
			for i, d := range axes {
				e.shape[i] = int(d)
			}
			return nil
		case "data_offsets":
			offsets, err := p.integers(63)
			if err != nil {
				return fmt.Errorf("data_offsets: %w", err)
			}
			if len(offsets) != 2 {
				return fmt.Errorf("data_offsets has %d numbers, want 2", len(offsets))
			}
			e.begin, e.end = offsets[0], offsets[1]
			return nil
		}
		return fmt.Errorf("key %q, want dtype, shape, data_offsets", key)
	})
	if err == nil && seen != 3 {
		err = errors.New("want all of dtype, shape, data_offsets")
	}
	return e, err
}

// object calls value for each key, with the decoder before the value.
func (p parser) object(value func(key string) error) error {
	if err := p.delim('{', "an object"); err != nil {
		return err
	}
	seen := map[string]bool{}
	for p.dec.More() {
		key, err := p.text()
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("duplicate name %q", key)
		}
		seen[key] = true
		if err := value(key); err != nil {
			return err
		}
	}
	_, err := p.dec.Token()
	return err
}

func (p parser) delim(want json.Delim, what string) error {
	token, err := p.dec.Token()
	if err == nil && token != want {
		err = fmt.Errorf("found %v, want %s", token, what)
	}
	return err
}

func (p parser) text() (string, error) {
	token, err := p.dec.Token()
	if err != nil {
		return "", err
	}
	s, ok := token.(string)
	if !ok {
		return "", fmt.Errorf("found %v, want a string", token)
	}
	return s, nil
}

// integers reads an array of integers from 0 below 2^width.
func (p parser) integers(width int) ([]int64, error) {
	if err := p.delim('[', "an array"); err != nil {
		return nil, err
	}
	var out []int64
	for p.dec.More() {
		token, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		number, ok := token.(json.Number)
		if !ok {
			return nil, fmt.Errorf("found %v, want a number", token)
		}
		v, err := strconv.ParseUint(number.String(), 10, width)
		if err != nil {
			return nil, fmt.Errorf("found %s, want an integer from 0 below 2^%d", number, width)
		}
		out = append(out, int64(v))
	}
	_, err := p.dec.Token()
	return out, err
}
