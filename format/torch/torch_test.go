package torch

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/tensor"
)

// TestRead compares with what torch.load itself makes of the files of
// golden/torch_files.py, to the bit.
func TestRead(t *testing.T) {
	text, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var expected struct {
		Files map[string][]struct {
			Name, Dtype string
			Shape       []int
			Values      []string
		}
	}
	if err := json.Unmarshal(text, &expected); err != nil {
		t.Fatal(err)
	}
	if len(expected.Files) < 14 {
		t.Fatalf("%d files", len(expected.Files))
	}
	for file, want := range expected.Files {
		f, err := ReadFile("testdata/" + file + ".pth")
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if len(f.Tensors) != len(want) || len(want) == 0 {
			t.Errorf("%s: %d tensors, want %d", file, len(f.Tensors), len(want))
			continue
		}
		for i, w := range want {
			got := f.Tensors[i]
			if got.Name != w.Name || got.Tensor.DType().String() != w.Dtype || !slices.Equal(got.Tensor.Shape(), w.Shape) {
				t.Errorf("%s: tensor %d is %s %v %v, want %+v", file, i, got.Name, got.Tensor.DType(), got.Tensor.Shape(), w)
				continue
			}
			if values := textOf(got.Tensor); !slices.Equal(values, w.Values) {
				t.Errorf("%s: %s is %v, want %v", file, w.Name, values, w.Values)
			}
		}
		if wantKey := map[string]string{"checkpoint": "state_dict", "nested": "net.model", "only_one": "my_weights"}[file]; f.Key != wantKey {
			t.Errorf("%s: taken from %q, want %q", file, f.Key, wantKey)
		}
		if file == "checkpoint" && strings.Join(f.Others, "; ") != `epoch 7; best_acc 91.5; arch "net"; optimizer (a dictionary of 2)` {
			t.Errorf("%s: others %q", file, f.Others)
		}
	}
}

// textOf writes numbers as the script does.
func textOf(t tensor.Tensor) []string {
	out := []string{}
	add := func(v int64) { out = append(out, strconv.FormatInt(v, 10)) }
	switch t.DType() {
	case tensor.Int64:
		for _, v := range tensor.Data[int64](t) {
			add(v)
		}
	case tensor.Float32, tensor.Float64, tensor.Float16, tensor.BFloat16:
		for _, v := range t.Convert(tensor.Float64).Float64s() {
			s := strconv.FormatFloat(v, 'f', -1, 64)
			if !strings.Contains(s, ".") {
				s += ".0"
			}
			out = append(out, s)
		}
	default:
		for _, v := range t.Convert(tensor.Float64).Float64s() {
			add(int64(v))
		}
	}
	return out
}

// TestRefused: each file is refused with what is wrong, and nothing of it runs.
func TestRefused(t *testing.T) {
	refused := map[string]string{
		"module": "__main__.Net", "namespace": "argparse.Namespace", "executable": "posix.system",
		"executable_legacy": "posix.system", "no_tensors": "the dictionary holds epoch 3, lr (a list of 1)", "tensor": "the file holds a tensor",
		"script": "TorchScript",
	}
	files, err := filepath.Glob("testdata/refused_*.pth")
	if err != nil || len(files) != len(refused) {
		t.Fatalf("%d files, %v; want %d", len(files), err, len(refused))
	}
	for name, want := range refused {
		_, err := ReadFile("testdata/refused_" + name + ".pth")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", name, err, want)
		}
	}
	if _, err := os.Stat("residual-was-here"); err == nil {
		t.Error("a file was executed")
	}
}

func some() []safetensors.Named {
	return []safetensors.Named{
		{Name: "a", Tensor: tensor.Of([]float32{1, -2, 3, float32(math.Inf(1)), 5, math.SmallestNonzeroFloat32}, 2, 3)},
		{Name: "b.é", Tensor: tensor.Of([]float64{math.Pi})}, {Name: "c", Tensor: tensor.Of([]int64{-1, 1 << 60}, 2)},
		{Name: "d", Tensor: tensor.OfBits(tensor.BFloat16, []uint16{0x3f80, 1, 2}, 3, 1)}, {Name: "e", Tensor: tensor.OfBits(tensor.Float16, []uint16{9}, 1)},
		{Name: "f", Tensor: tensor.Of([]int32{7}, 1)}, {Name: "g", Tensor: tensor.Of([]int16{-7}, 1)}, {Name: "h", Tensor: tensor.Of([]int8{-7}, 1)},
		{Name: "i", Tensor: tensor.Of([]uint8{255}, 1)}, {Name: "j", Tensor: tensor.New(tensor.Bool, 2)}, {Name: "k", Tensor: tensor.New(tensor.Float32, 0, 3)},
		{Name: "l", Tensor: tensor.New(tensor.Float32, 300, 300)},
	}
}

func written(t testing.TB, tensors []safetensors.Named, extra map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, tensors, extra); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// elements returns the bytes of x; so NaNs compare.
func elements(t testing.TB, x tensor.Tensor) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tensor.Write(&b, x); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(b []byte) (*File, error) { return Read(bytes.NewReader(b), int64(len(b))) }

// What is written is read as it was, the same bytes each time, with the storages
// where PyTorch can map them.
func TestWrite(t *testing.T) {
	extra := map[string]string{"z": "1", "golden": "[]"}
	b := written(t, some(), extra)
	if !bytes.Equal(b, written(t, some(), extra)) {
		t.Error("the second file differs")
	}
	f, err := read(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Extra) != 2 || f.Extra["golden"] != "[]" || f.Key != "" {
		t.Errorf("extra %v, key %q", f.Extra, f.Key)
	}
	for i, want := range some() {
		got := f.Tensors[i]
		if got.Name != want.Name || got.Tensor.DType() != want.Tensor.DType() || !got.Tensor.Shape().Equal(want.Tensor.Shape()) ||
			!bytes.Equal(elements(t, got.Tensor), elements(t, want.Tensor)) {
			t.Errorf("%s is %v %v", want.Name, got.Tensor.DType(), got.Tensor.Shape())
		}
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range z.File {
		if at, err := e.DataOffset(); err != nil || at%alignment != 0 {
			t.Errorf("%s begins at byte %d, %v", e.Name, at, err)
		}
	}
	for about, bad := range map[string][]safetensors.Named{
		"twice": {some()[0], some()[0]}, "no data": {{Name: "a"}}, "name": {{Name: "\xff", Tensor: tensor.Scalar(1)}},
	} {
		if err := Write(io.Discard, bad, nil); err == nil {
			t.Errorf("%s: no error", about)
		}
	}
}

// archiveOf is a zip with these entries, in order.
func archiveOf(t testing.TB, method uint16, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		e, err := w.CreateHeader(&zip.FileHeader{Name: entries[i], Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(e, entries[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pickled is a dictionary with one tensor "w" of the given geometry over the
// storage "0" of n float32.
func pickled(n, offset int, size, stride string) string {
	number := func(v int) string { return "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(v))) }
	text := func(s string) string { return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s }
	return "\x80\x02}" + text("w") + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") +
		number(n) + "tQ" + number(offset) + "(" + size + "t(" + stride + "t\x89}tRs."
}

// TestHostile has one file for each thing that a file may not do.
func TestHostile(t *testing.T) {
	good := written(t, some(), nil)
	stored := func(entries ...string) []byte { return archiveOf(t, zip.Store, entries...) }
	legacy, err := os.ReadFile("testdata/legacy.pth")
	if err != nil {
		t.Fatal(err)
	}
	four := strings.Repeat("\x00", 16)
	bomb := ")" + strings.Repeat("2\x86", 16) // a tuple of twice the one before, and so on
	if _, err := read(stored("a/data.pkl", pickled(4, 0, "K\x04", "K\x01"), "a/data/0", four)); err != nil {
		t.Fatalf("the file that others are made from: %v", err)
	}
	for about, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":              {nil, "0 bytes are no file"},
		"not PyTorch's":      {[]byte("hello, world"), "pickle"},
		"cut zip":            {good[:len(good)-10], "zip"},
		"cut stream":         {legacy[:len(legacy)-3], "cut short"},
		"longer stream":      {append(slices.Clone(legacy), 1, 2), "2 bytes follow"},
		"cut pickle":         {legacy[:100], "cut short"},
		"compressed":         {archiveOf(t, zip.Deflate, "a/data.pkl", pickled(4, 0, "K\x04", "K\x01"), "a/data/0", four), "is compressed"},
		"duplicate entry":    {stored("a/data.pkl", "\x80\x02}.", "a/data.pkl", "\x80\x02}."), "duplicate name"},
		"two folders":        {stored("a/data.pkl", "\x80\x02}.", "b/data/0", four), "want all in the folder"},
		"no pickle":          {stored("a/data/0", four), "there is no a/data.pkl"},
		"empty archive":      {stored(), "zip"},
		"storage missing":    {stored("a/data.pkl", pickled(4, 0, "K\x04", "K\x01")), "no entry a/data/0"},
		"storage too short":  {stored("a/data.pkl", pickled(5, 0, "K\x04", "K\x01"), "a/data/0", four), "has 16 bytes, want 20"},
		"storage negative":   {stored("a/data.pkl", pickled(-1, 0, "K\x04", "K\x01"), "a/data/0", four), "number of elements"},
		"offset beyond":      {stored("a/data.pkl", pickled(4, 1, "K\x04", "K\x01"), "a/data/0", four), "not within its storage"},
		"offset negative":    {stored("a/data.pkl", pickled(4, -1, "K\x04", "K\x01"), "a/data/0", four), "not within its storage"},
		"empty beyond":       {stored("a/data.pkl", pickled(4, 5, "K\x00", "K\x01"), "a/data/0", four), "not within its storage"},
		"stride beyond":      {stored("a/data.pkl", pickled(4, 0, "K\x02", "K\x04"), "a/data/0", four), "not within its storage"},
		"stride negative":    {stored("a/data.pkl", pickled(4, 3, "K\x02", "J\xff\xff\xff\xff"), "a/data/0", four), "strides"},
		"expanded":           {stored("a/data.pkl", pickled(4, 0, "M\xff\xff", "K\x00"), "a/data/0", four), "more elements than its storage"},
		"overflow":           {stored("a/data.pkl", pickled(4, 0, strings.Repeat("J\xff\xff\xff\x7f", 4), strings.Repeat("K\x00", 4)), "a/data/0", four), "too large"},
		"axes and strides":   {stored("a/data.pkl", pickled(4, 0, "K\x02K\x02", "K\x01"), "a/data/0", four), "want storage, offset, shape, strides"},
		"byteorder":          {stored("a/data.pkl", "\x80\x02}.", "a/byteorder", "middle"), "want little or big"},
		"damaged":            {bytes.Replace(good, []byte("\x00\x00\x80\x3f"), []byte("\x00\x00\x80\x3e"), 1), "checksum"},
		"unknown class":      {stored("a/data.pkl", "\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R."), "builtins.eval"},
		"class by stack":     {stored("a/data.pkl", "\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01a\x85R."), "os.system"},
		"instance":           {stored("a/data.pkl", "\x80\x02(ios\nsystem\n."), "instruction 0x69"},
		"extension registry": {stored("a/data.pkl", "\x80\x02\x82\x01."), "instruction 0x82"},
		"protocol 0":         {stored("a/data.pkl", "(dp0\n."), "instruction 0x70"},
		"cyclic":             {stored("a/data.pkl", "\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."), "no state_dict"},
		"cyclic list":        {stored("a/data.pkl", "\x80\x02]q\x00h\x00a."), "a list of 1"},
		"empty stack":        {stored("a/data.pkl", "\x80\x020."), "stack is empty"},
		"no mark":            {stored("a/data.pkl", "\x80\x02t."), "no mark"},
		"memo":               {stored("a/data.pkl", "\x80\x02h\x07."), "nothing was remembered as 7"},
		"huge text":          {stored("a/data.pkl", "\x80\x02X\xff\xff\xff\x7f."), "more than"},
		"call of no class":   {stored("a/data.pkl", "\x80\x02K\x01)R."), "a number is called"},
		"list as a key":      {stored("a/data.pkl", "\x80\x02}]K\x01s."), "a key is a list"},
		"endless":            {stored("a/data.pkl", "\x80\x02"+strings.Repeat("N0", maxInstructions/2)+"."), "instructions"},
		"endless name":       {stored("a/data.pkl", "\x80\x02c"+strings.Repeat("x", 2000)), "a name of more"},
		"tuples as a shape":  {stored("a/data.pkl", pickled(4, 0, bomb, "K\x01"), "a/data/0", four), "strides"},
		"tuples as a key":    {stored("a/data.pkl", "\x80\x02}"+bomb+"K\x01s."), "no state_dict"},
		"tuples as version":  {[]byte(strings.Replace(string(legacy), "\x80\x02M\xe9\x03.", "\x80\x02"+bomb+".", 1)), "version [a tuple of 2"},
		"tuples as a name":   {[]byte(strings.Replace(string(legacy), "\x80\x02]q\x00(", "\x80\x02]q\x00("+bomb, 1)), "a tuple of 2] is listed"},
		"name twice":         {stored("a/data.pkl", strings.TrimSuffix(pickled(4, 0, "K\x04", "K\x01"), ".")+strings.TrimPrefix(pickled(4, 0, "K\x04", "K\x01"), "\x80\x02}"), "a/data/0", four), "duplicate name"},
	} {
		_, err := read(c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 4000 {
			t.Errorf("%s: %.200v, want one short line with %q", about, err, c.want)
		}
	}
}

// A small file of many views of one storage may not become a large one.
func TestAmplification(t *testing.T) {
	const n = 1 << 16
	var b strings.Builder
	view := pickled(n, 0, "J\x00\x00\x01\x00", "K\x01")
	view = strings.TrimSuffix(strings.TrimPrefix(view, "\x80\x02}"), ".")
	b.WriteString("\x80\x02}")
	for i := range 100 {
		b.WriteString(strings.Replace(view, "\x01\x00\x00\x00w", "\x03\x00\x00\x00w"+string(rune('0'+i/10))+string(rune('0'+i%10)), 1))
	}
	b.WriteString(".")
	_, err := read(archiveOf(t, zip.Store, "a/data.pkl", b.String(), "a/data/0", strings.Repeat("\x00", 4*n)))
	if err == nil || !strings.Contains(err.Error(), "share storages") {
		t.Errorf("got %v", err)
	}
}

// Entries that lie over each other: the directory is changed to say so.
func TestOverlap(t *testing.T) {
	file := archiveOf(t, zip.Store, "a/data.pkl", pickled(4, 0, "K\x04", "K\x01"), "a/data/0", strings.Repeat("\x00", 16), "a/data/1", strings.Repeat("\x00", 16))
	directory := bytes.LastIndex(file, []byte("PK\x01\x02"))
	second := bytes.LastIndex(file[:directory], []byte("PK\x01\x02"))
	copy(file[directory+42:directory+46], file[second+42:second+46]) // offset of the local header
	if _, err := read(file); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("got %v", err)
	}
}

// The bytes of a file written on a big-endian machine.
func TestBigEndian(t *testing.T) {
	f, err := read(archiveOf(t, zip.Store, "a/data.pkl", pickled(2, 0, "K\x02", "K\x01"), "a/byteorder", "big", "a/data/0", "\x3f\x80\x00\x00\xc0\x00\x00\x00"))
	if err != nil || !slices.Equal(f.Tensors[0].Tensor.Float32s(), []float32{1, -2}) {
		t.Errorf("got %+v, %v", f, err)
	}
}

// Whatever is cut off or changed, there is an error or a state_dict, never a
// panic; cut files are always errors.
func TestEveryCut(t *testing.T) {
	for _, name := range []string{"plain", "legacy"} {
		file, err := os.ReadFile("testdata/" + name + ".pth")
		if err != nil {
			t.Fatal(err)
		}
		for n := range file {
			if _, err := read(file[:n]); err == nil {
				t.Errorf("%s cut to %d of %d bytes is read", name, n, len(file))
			}
		}
	}
	if _, err := ReadFile("testdata/none.pth"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// FuzzRead: what is read is written and read again as the same.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.pth")
	if err != nil {
		f.Fatal(err)
	}
	accepted, refused := 0, 0
	for _, name := range files {
		file, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
		if _, err := read(file); err == nil {
			accepted++
		} else {
			refused++
		}
	}
	f.Add(archiveOf(f, zip.Store, "a/data.pkl", pickled(4, 0, "K\x04", "K\x01"), "a/data/0", strings.Repeat("\x00", 16)))
	if accepted < 10 || refused < 5 {
		f.Fatalf("%d seeds are accepted and %d refused", accepted, refused)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := read(data)
		if err != nil {
			return
		}
		total := 0
		for _, n := range file.Tensors {
			total += n.Tensor.Len()
		}
		if total > 4*len(data)+1<<16 {
			t.Fatalf("%d elements from %d bytes", total, len(data))
		}
		var b bytes.Buffer
		if err := Write(&b, file.Tensors, file.Extra); err != nil {
			return // such as a name that is not UTF-8
		}
		again, err := read(b.Bytes())
		if len(file.Tensors) == 0 {
			return
		}
		if err != nil || len(again.Tensors) != len(file.Tensors) {
			t.Fatalf("written and read again: %v", err)
		}
		for i, n := range again.Tensors {
			if !bytes.Equal(elements(t, n.Tensor), elements(t, file.Tensors[i].Tensor)) {
				t.Errorf("tensor %s differs", n.Name)
			}
		}
	})
}

// FuzzPickle is FuzzRead of the pickle alone, which a mutation of a zip with its
// checksum does not reach.
func FuzzPickle(f *testing.F) {
	accepted := 0
	entries := func(pickle string) []byte {
		return archiveOf(f, zip.Store, "a/data.pkl", pickle, "a/data/0", strings.Repeat("\x00", 16))
	}
	seeds := []string{
		pickled(4, 0, "K\x04", "K\x01"), pickled(4, 0, "K\x02K\x02", "K\x01K\x02"), pickled(4, 1, "K\x03", "K\x01"),
		"\x80\x02ccollections\nOrderedDict\n)R.", "\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "\x80\x02cos\nsystem\n.", "\x80\x04\x95\x08\x00\x00\x00\x00\x00\x00\x00]\x94.",
		"\x80\x02(K\x01M\x02\x03J\x04\x05\x06\x07\x8a\x02\x08\x09G\x40\x09\x21\xfb\x54\x44\x2d\x18N\x88\x89t.",
	}
	for _, s := range seeds {
		f.Add([]byte(s))
		if _, err := read(entries(s)); err == nil {
			accepted++
		}
	}
	if accepted < 3 || accepted == len(seeds) {
		f.Fatalf("%d of %d seeds are accepted", accepted, len(seeds))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if file, err := read(archiveOf(t, zip.Store, "a/data.pkl", string(data), "a/data/0", strings.Repeat("\x00", 16))); err == nil {
			for _, n := range file.Tensors {
				if n.Tensor.Len() > 4 {
					t.Errorf("tensor of %d elements from a storage of 4", n.Tensor.Len())
				}
			}
		}
	})
}
