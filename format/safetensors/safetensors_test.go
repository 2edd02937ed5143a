package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/residual-ml/residual/tensor"
)

// everything has each type, a scalar, empty tensors and sizes that would leave
// the next tensor unaligned; the float32 one is longer than the copy buffer.
func everything() []Named {
	long := make([]float32, chunkBytes/4+3)
	for i := range long {
		long[i] = float32(i) * 0.37
	}
	return []Named{
		{Name: "u8", Tensor: tensor.Of([]uint8{1, 2, 255}, 3)},
		{Name: "f64", Tensor: tensor.Of([]float64{0.1, math.Inf(-1), 1e300}, 3, 1)},
		{Name: "long", Tensor: tensor.Of(long, len(long))},
		{Name: "f16", Tensor: tensor.OfBits(tensor.Float16, []uint16{0x3c00, 0x7e01}, 2)},
		{Name: "i8", Tensor: tensor.Of([]int8{-128, 127}, 2)},
		{Name: "bf16", Tensor: tensor.OfBits(tensor.BFloat16, []uint16{0xff80}, 1)},
		{Name: "i64", Tensor: tensor.Of([]int64{math.MinInt64}, 1)},
		{Name: "i32", Tensor: tensor.Of([]int32{math.MinInt32, 5}, 1, 2)},
		{Name: "i16", Tensor: tensor.Of([]int16{-3, 4}, 2)},
		{Name: "bool", Tensor: tensor.New(tensor.Bool, 3)},
		{Name: "scalar", Tensor: tensor.Scalar(3.5)},
		{Name: "empty", Tensor: tensor.New(tensor.Float32, 3, 0, 2)},
		{Name: `ünïcode "quoted" <&>` + "\u2028\n", Tensor: tensor.Of([]uint8{9}, 1)},
	}
}

func encode(t testing.TB, tensors []Named, metadata map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, tensors, metadata); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// elements returns the bytes of t as the file has them; so NaNs compare.
func elements(t testing.TB, x tensor.Tensor) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tensor.Write(&b, x); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func wantEqual(t testing.TB, f *File, tensors []Named, metadata map[string]string) {
	t.Helper()
	if !maps.Equal(f.Metadata, metadata) || (f.Metadata == nil) != (metadata == nil) {
		t.Errorf("metadata %q, want %q", f.Metadata, metadata)
	}
	if len(f.Names) != len(tensors) {
		t.Fatalf("%d tensors, want %d", len(f.Names), len(tensors))
	}
	for i, got := range f.Tensors() {
		want := tensors[i]
		if got.Name != want.Name || got.Tensor.DType() != want.Tensor.DType() || !got.Tensor.Shape().Equal(want.Tensor.Shape()) {
			t.Errorf("tensor %d: %q %v %v, want %q %v %v", i, got.Name, got.Tensor.DType(), got.Tensor.Shape(),
				want.Name, want.Tensor.DType(), want.Tensor.Shape())
		} else if !bytes.Equal(elements(t, got.Tensor), elements(t, want.Tensor)) {
			t.Errorf("tensor %q: other elements", got.Name)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for name, metadata := range map[string]map[string]string{
		"without metadata": nil, "empty metadata": {}, "metadata": {"b": "2", "a": "<1> \" \n\u2028", "": ""},
	} {
		for _, tensors := range [][]Named{everything(), nil} {
			data := encode(t, tensors, metadata)
			f, err := Read(bytes.NewReader(data), int64(len(data)))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			wantEqual(t, f, tensors, metadata)
			if again := encode(t, f.Tensors(), f.Metadata); !bytes.Equal(again, data) {
				t.Errorf("%s: writing what was read gives other bytes", name)
			}
		}
	}
}

// Tensors that are asked for one by one make the same file; one that is not what
// was said, or cannot be had, is an error.
func TestLater(t *testing.T) {
	want := everything()
	later := slices.Clone(want)
	asked := 0
	for i, n := range want {
		get := func() (tensor.Tensor, error) {
			asked++
			return n.Tensor, nil
		}
		later[i] = Named{Name: n.Name, Later: &Later{DType: n.Tensor.DType(), Shape: n.Tensor.Shape(), Get: get}}
	}
	if !bytes.Equal(encode(t, later, nil), encode(t, want, nil)) {
		t.Error("other bytes")
	}
	if asked != len(want) {
		t.Errorf("%d tensors were asked for %d times", len(want), asked)
	}
	for what, got := range map[string]tensor.Tensor{"shape": tensor.New(tensor.Float32, 3, 1), "float64": tensor.New(tensor.Float64, 3), "gone": {}} {
		get := func() (tensor.Tensor, error) {
			if what == "gone" {
				return got, errors.New("gone")
			}
			return got, nil
		}
		err := Write(io.Discard, []Named{{Name: "x", Later: &Later{DType: tensor.Float32, Shape: tensor.Shape{3}, Get: get}}}, nil)
		if err == nil || !strings.Contains(err.Error(), `"x"`) || what == "gone" && !strings.Contains(err.Error(), what) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// Mapped files are read in place, so every tensor must lie at a multiple of its
// element size from the start of the file.
func TestAlignment(t *testing.T) {
	data := encode(t, everything(), nil)
	n := binary.LittleEndian.Uint64(data)
	entries, _, err := parseHeader(data[8 : 8+n])
	if err != nil || len(entries) != len(everything()) {
		t.Fatalf("%d entries, error %v", len(entries), err)
	}
	for _, e := range entries {
		if at := 8 + int64(n) + e.begin; at%int64(e.dtype.Size()) != 0 {
			t.Errorf("tensor %q of %v starts at byte %d", e.name, e.dtype, at)
		}
	}
}

// testdata/python.safetensors was written by the reference implementation; see
// python.py beside it.
func TestReadsReference(t *testing.T) {
	f, err := ReadFile("testdata/python.safetensors")
	if err != nil {
		t.Fatalf("%v; make it with: python3 testdata/python.py", err)
	}
	want := map[string]tensor.Tensor{
		"f64":                          tensor.Of([]float64{0.1, -2.5, math.Inf(1), 1e300}, 2, 2),
		"f32":                          tensor.Of([]float32{0, 0.25, 0.5, 0.75, 1, 1.25}, 2, 3),
		"f16":                          tensor.OfBits(tensor.Float16, []uint16{0x3e00, 0xfbff}, 2),
		"bf16":                         tensor.OfBits(tensor.BFloat16, []uint16{0x3fc0, 0xff62}, 2),
		"i64":                          tensor.Of([]int64{math.MinInt64, math.MaxInt64}, 2),
		"i32":                          tensor.Of([]int32{math.MinInt32, 7}, 2, 1),
		"i16":                          tensor.Of([]int16{-32768, 32767, 1}, 3),
		"i8":                           tensor.Of([]int8{-128, 127, 0}, 3),
		"u8":                           tensor.Of([]uint8{0, 255, 1}, 3),
		"scalar":                       tensor.Of([]int64{42}),
		"empty":                        tensor.New(tensor.Float32, 3, 0, 2),
		"ünïcode \"quoted\" <&>\u2028": tensor.Of([]uint8{9}, 1),
	}
	truth := tensor.New(tensor.Bool, 3)
	copy(tensor.Data[uint8](truth), []uint8{1, 0, 1})
	want["bool"] = truth

	var tensors []Named
	for _, name := range f.Names {
		x, ok := want[name]
		if !ok {
			t.Fatalf("unexpected tensor %q", name)
		}
		tensors = append(tensors, Named{Name: name, Tensor: x})
	}
	if len(tensors) != len(want) {
		t.Errorf("%d tensors, want %d", len(tensors), len(want))
	}
	wantEqual(t, f, tensors, map[string]string{"format": "pt", "quote": "a \"b\" \\ \n é"})
	if _, ok := f.Tensor("none"); ok {
		t.Error("found a tensor that is not there")
	}
}

// file builds a file from header text and a number of data bytes.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

// hostile are files to refuse, after the list of attacks in the repository of
// the reference implementation, with a part of the error.
var hostile = []struct {
	name string
	file []byte
	want string
}{
	{"no bytes", nil, "0 bytes"},
	{"seven bytes", make([]byte, 7), "7 bytes"},
	{"length zero", file("", 0), "want '{'"},
	{"length beyond the file", append(binary.LittleEndian.AppendUint64(nil, 100), "{}"...), "cut short"},
	{"length beyond the limit", binary.LittleEndian.AppendUint64(nil, maxHeader+1), "no safetensors file"},
	{"negative length", binary.LittleEndian.AppendUint64(nil, 1<<63+2), "no safetensors file"},
	{"zip", []byte("PK\x03\x04\x00\x00\x00\x00\x00\x00"), "cut short"},
	{"space before the object", file(" {}", 0), "want '{'"},
	{"array", file("[]", 0), "want '{'"},
	{"open object", file("{", 0), "want '}'"},
	{"newline after the object", file("{}\n", 0), "only spaces"},
	{"zero after the object", file("{}\x00", 0), "only spaces"},
	{"two objects", file("{}{}", 0), "header: invalid character"},
	{"trailing comma", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},}`, 1), "invalid character"},
	{"invalid UTF-8", file("{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1), "UTF-8"},
	{"duplicate tensor", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), `duplicate name "a"`},
	{"duplicate metadata", file(`{"__metadata__":{"a":"1","a":"2"}}`, 0), `__metadata__: duplicate name "a"`},
	{"duplicate metadata object", file(`{"__metadata__":{},"__metadata__":{}}`, 0), "duplicate name"},
	{"duplicate key", file(`{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), "duplicate name"},
	{"metadata with a number", file(`{"__metadata__":{"a":1}}`, 0), "want a string"},
	{"metadata is null", file(`{"__metadata__":null}`, 0), "want an object"},
	{"tensor is a string", file(`{"a":"b"}`, 0), "want an object"},
	{"no dtype", file(`{"a":{"shape":[1],"data_offsets":[0,1]}}`, 1), "want all of"},
	{"another key", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":0}}`, 1), `key "x"`},
	{"unknown dtype", file(`{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}`, 1), `tensor "a": dtype "F8_E4M3", want one of`},
	{"negative axis", file(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1), "found -1"},
	{"fractional axis", file(`{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, 1), "found 1.0"},
	{"exponent axis", file(`{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}`, 1), "found 1e0"},
	{"axis beyond int64", file(`{"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}}`, 1), "found 18446744073709551616"},
	{"shape is null", file(`{"a":{"dtype":"U8","shape":null,"data_offsets":[0,1]}}`, 1), "want an array"},
	{"overflowing shape", file(`{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}`, 0), "too large"},
	{"overflowing byte length", file(`{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}`, 0), "too large"},
	{"overflowing empty shape", file(`{"a":{"dtype":"U8","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}}`, 0), "too large"},
	{"giant claim, no data", file(`{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}`, 16), "within the 16 bytes"},
	{"three offsets", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}`, 1), "has 3 numbers"},
	{"negative offset", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}`, 1), "found -1"},
	{"descending offsets", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1), "ascending"},
	{"size against shape", file(`{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,12]}}`, 12), "span 12 bytes, want 16 for F32 [2,2]"},
	{"scalar without data", file(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,0]}}`, 0), "want 4"},
	{"overlap", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3), `tensor "b": data starts at byte 1, want 2`},
	{"same bytes twice", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 2), "no overlap"},
	{"hole", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3), "no hole"},
	{"hole at the start", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "no hole"},
	{"data behind the tensors", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2), "2 bytes of data, want 1"},
	{"data without tensors", file(`{}`, 1), "want 0"},
	{"deep nesting", file(`{"a":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)+"}", 0), "depth"},
}

func TestHostile(t *testing.T) {
	for _, h := range hostile {
		_, err := Read(bytes.NewReader(h.file), int64(len(h.file)))
		if err == nil {
			t.Errorf("%s: accepted", h.name)
		} else if !strings.Contains(err.Error(), h.want) {
			t.Errorf("%s: error %q, want %q in it", h.name, err, h.want)
		}
	}
}

// Files that look odd but are in order.
func TestAccepts(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing":           file("{}", 0),
		"padding":           file("{}      ", 0),
		"spaces inside":     file("{ \n}", 0),
		"reverse order":     file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2),
		"empty in between":  file(`{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"e":{"dtype":"F64","shape":[0],"data_offsets":[1,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2),
		"empty at the end":  file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"e":{"dtype":"F64","shape":[2,0],"data_offsets":[1,1]}}`, 1),
		"empty name":        file(`{"":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`, 1),
		"bool that is no 1": append(file(`{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}`, 0), 7),
	} {
		if _, err := Read(bytes.NewReader(data), int64(len(data))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOrderIsThatOfTheHeader(t *testing.T) {
	data := file(`{"z":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 0)
	data = append(data, 10, 20)
	f, err := Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	z, _ := f.Tensor("z")
	if !slices.Equal(f.Names, []string{"z", "a"}) || tensor.Data[uint8](z)[0] != 20 {
		t.Errorf("names %q, z = %v", f.Names, tensor.Data[uint8](z))
	}
}

func TestWriteRefuses(t *testing.T) {
	one := tensor.Scalar(1)
	for want, tensors := range map[string][]Named{
		"reserved":       {{Name: "__metadata__", Tensor: one}},
		"not UTF-8":      {{Name: "a\xff", Tensor: one}},
		"duplicate name": {{Name: "a", Tensor: one}, {Name: "a", Tensor: one}},
		"has no data":    {{Name: "a", Tensor: tensor.Tensor{}}},
	} {
		var b bytes.Buffer
		err := Write(&b, tensors, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
		if b.Len() != 0 {
			t.Errorf("%s: %d bytes were written before the refusal", want, b.Len())
		}
	}
	if err := Write(io.Discard, nil, map[string]string{"a": "\xff"}); err == nil {
		t.Error("metadata that is not UTF-8 was accepted")
	}
}

// A file that ends, or a disk that fills, anywhere must give an error, never a
// shorter tensor.
func TestCutAnywhere(t *testing.T) {
	data := encode(t, everything(), map[string]string{"a": "b"})
	path := filepath.Join(t.TempDir(), "cut")
	for n := 0; n < len(data); n += 1 + n/50 {
		if err := os.WriteFile(path, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Fatalf("the first %d of %d bytes: error %v, want one with the path", n, len(data), err)
		}
		// The size may also be right and the reader fail.
		if _, err := Read(bytes.NewReader(data[:n]), int64(len(data))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("a reader of %d of %d bytes: error %v", n, len(data), err)
		}
		if err := Write(&full{room: n}, everything(), map[string]string{"a": "b"}); !errors.Is(err, errFull) {
			t.Fatalf("writing with room for %d bytes: error %v", n, err)
		}
	}
	if _, err := ReadFile(path + "-missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: error %v", err)
	}
}

var errFull = errors.New("disk full")

type full struct{ room int }

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.room {
		return f.room, errFull
	}
	f.room -= len(p)
	return len(p), nil
}

// A stream is read once, in order, to its last byte: a checksum on the way sees
// all of it.
func TestReadFromSeesEveryByte(t *testing.T) {
	data := encode(t, everything(), map[string]string{"a": "b"})
	var seen bytes.Buffer
	source := iotest.HalfReader(io.TeeReader(bytes.NewReader(data), &seen))
	f, err := ReadFrom(source, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, f, everything(), map[string]string{"a": "b"})
	if !bytes.Equal(seen.Bytes(), data) {
		t.Errorf("%d bytes went by, want the %d of the file in order", seen.Len(), len(data))
	}
	planted := errors.New("planted")
	broken := io.MultiReader(bytes.NewReader(data[:len(data)/2]), iotest.ErrReader(planted))
	if _, err := ReadFrom(broken, int64(len(data))); !errors.Is(err, planted) {
		t.Errorf("a disk that fails: error %v", err)
	}
}

// addSeeds adds the seeds of a fuzz target and makes sure that they are some,
// and of both kinds: files to accept and files to refuse.
func addSeeds(f *testing.F, seeds [][]byte, accepts func([]byte) bool) {
	f.Helper()
	accepted := 0
	for _, seed := range seeds {
		f.Add(seed)
		if accepts(seed) {
			accepted++
		}
	}
	if accepted < 2 || len(seeds)-accepted < 2 {
		f.Fatalf("of %d seeds %d are accepted, want two or more of each kind", len(seeds), accepted)
	}
}

// FuzzRead: what parses can be written, and reading that gives the same again.
func FuzzRead(f *testing.F) {
	reference, err := os.ReadFile("testdata/python.safetensors")
	if err != nil {
		f.Fatal(err)
	}
	seeds := [][]byte{reference, encode(f, everything()[:2], map[string]string{"a": "b"}), encode(f, nil, nil)}
	for _, h := range hostile {
		seeds = append(seeds, h.file)
	}
	addSeeds(f, seeds, func(data []byte) bool {
		_, err := Read(bytes.NewReader(data), int64(len(data)))
		return err == nil
	})
	f.Fuzz(checkRead)
}

func checkRead(t *testing.T, data []byte) {
	first, err := Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return
	}
	written := encode(t, first.Tensors(), first.Metadata)
	second, err := Read(bytes.NewReader(written), int64(len(written)))
	if err != nil {
		t.Fatalf("cannot read what was written: %v", err)
	}
	wantEqual(t, second, first.Tensors(), first.Metadata)
	if again := encode(t, second.Tensors(), second.Metadata); !bytes.Equal(again, written) {
		t.Error("the same content gave other bytes")
	}
}

// FuzzHeader is FuzzRead for what mutations of whole files seldom reach: each
// header gets the length in front and the data behind that it asks for.
func FuzzHeader(f *testing.F) {
	var seeds [][]byte
	for _, file := range [][]byte{encode(f, everything(), map[string]string{"a": "b"}), encode(f, nil, nil)} {
		seeds = append(seeds, file[8:8+binary.LittleEndian.Uint64(file)])
	}
	for _, h := range hostile {
		if n := len(h.file); n > 8 {
			seeds = append(seeds, h.file[8:8+min(uint64(n)-8, binary.LittleEndian.Uint64(h.file))])
		}
	}
	addSeeds(f, seeds, func(header []byte) bool {
		_, _, err := parseHeader(header)
		return err == nil
	})
	f.Fuzz(func(t *testing.T, header []byte) {
		entries, _, err := parseHeader(header)
		if err != nil {
			return
		}
		size := int64(0)
		for _, e := range entries {
			size = max(size, e.end)
		}
		if size <= 1<<20 {
			checkRead(t, file(string(header), int(size)))
		}
	})
}

func BenchmarkReadWrite(b *testing.B) {
	// The weights of ResNet-18 as one tensor: 44.7 MB.
	tensors := []Named{{Name: "w", Tensor: tensor.New(tensor.Float32, 11_183_562)}}
	data := encode(b, tensors, nil)
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if _, err := Read(bytes.NewReader(data), int64(len(data))); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if err := Write(io.Discard, tensors, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
