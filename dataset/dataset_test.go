package dataset

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/residual-ml/residual/internal/hint"
)

// tinyCIFAR is a source in CIFAR's layout with 2×2 pictures: 4 + 2 of 3 classes.
func tinyCIFAR() (*source, [][]byte) {
	record := func(label byte, first byte) []byte {
		r := []byte{label}
		for i := range byte(12) {
			r = append(r, first+i)
		}
		return r
	}
	contents := [][]byte{
		append(record(0, 10), record(1, 20)...),
		append(record(2, 30), record(1, 40)...),
		append(record(0, 50), record(2, 60)...),
	}
	s := &source{name: "tiny", classes: []string{"a", "b", "c"}, height: 2, width: 2, channels: 3,
		folders: []string{"tiny", "tiny/batches", ""}, parse: parseCIFAR,
		files: []dataFile{
			{name: "one.bin", split: train, records: 2, bytes: 26, sha256: sumOf(contents[0])},
			{name: "two.bin", split: train, records: 2, bytes: 26, sha256: sumOf(contents[1])},
			{name: "test.bin", split: test, records: 2, bytes: 26, sha256: sumOf(contents[2])},
		},
		archive: &remote{name: "tiny.tar.gz"}, addresses: []string{"https://example.invalid"},
	}
	return s, contents
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
}

func writeAll(t testing.TB, dir string, s *source, contents [][]byte) {
	t.Helper()
	for i, f := range s.files {
		write(t, filepath.Join(dir, f.name), contents[i])
	}
}

func gzipped(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// wantError checks that err's text holds each of parts.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error is %q, want it to hold %q", err, p)
		}
	}
}

func TestRecordsFoundEverywhere(t *testing.T) {
	s, contents := tinyCIFAR()
	var hashes []string
	for _, folder := range s.folders {
		dir := t.TempDir()
		writeAll(t, filepath.Join(dir, folder), s, contents)
		data, err := openNamed(t.Context(), s, Options{Dir: dir})
		if err != nil {
			t.Fatalf("%q: %v", folder, err)
		}
		if data.Train.Len() != 4 || data.Test.Len() != 2 || len(data.Origin.Notes) != 0 || !data.Origin.Files[2].Official {
			t.Errorf("%q: %+v", folder, data.Origin)
		}
		if !filepath.IsAbs(data.Origin.Source) {
			t.Errorf("source %q is not absolute", data.Origin.Source)
		}
		hashes = append(hashes, data.Origin.Hash)

		var m Image
		if err := data.Train.Image(2, &m); err != nil {
			t.Fatal(err)
		}
		want := []byte{30, 34, 38, 31, 35, 39, 32, 36, 40, 33, 37, 41} // planes interleaved
		if !bytes.Equal(m.Pix, want) || m.Height != 2 || m.Width != 2 || m.Channels != 3 {
			t.Errorf("picture 2 is %v", m)
		}
		if name := data.Train.Name(2); name != "two.bin[0]" || data.Train.Label(2) != 2 {
			t.Errorf("picture 2 is %s of class %d", name, data.Train.Label(2))
		}
		if err := data.Train.Image(4, &m); err == nil {
			t.Error("picture 4 of 4 was read")
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "tiny.tar.gz"), tarGz(t, entries(s, contents)...))
	data, err := openNamed(t.Context(), s, Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range append(hashes, data.Origin.Hash) {
		if h != hashes[0] || !strings.HasPrefix(h, "sha256:") {
			t.Errorf("equal data have hashes %s and %s", hashes[0], h)
		}
	}
}

func TestEnvironmentDirectory(t *testing.T) {
	s, contents := tinyCIFAR()
	dir := t.TempDir()
	t.Setenv("RESIDUAL_DATA", dir)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	_, err := openNamed(t.Context(), s, Options{})
	wantError(t, err, "tiny: no one.bin in", dir)
	if h := hint.Of(err); !strings.Contains(h, "residual data get tiny") || !strings.Contains(h, "tiny.tar.gz") || !strings.Contains(h, dir) {
		t.Errorf("hint is %q", h)
	}
	writeAll(t, filepath.Join(dir, "tiny"), s, contents)
	if _, err := openNamed(t.Context(), s, Options{}); err != nil {
		t.Error(err)
	}
}

func TestUnofficialFilesAreReported(t *testing.T) {
	s, contents := tinyCIFAR()
	official, err := s.assemble("x", contents)
	if err != nil {
		t.Fatal(err)
	}
	contents[1] = bytes.Clone(contents[1])
	contents[1][5]++
	dir := t.TempDir()
	writeAll(t, dir, s, contents)
	data, err := openNamed(t.Context(), s, Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if n := data.Origin.Notes; len(n) != 1 || !strings.Contains(n[0], "two.bin") || strings.Contains(n[0], "one.bin") {
		t.Errorf("notes %q", n)
	}
	if f := data.Origin.Files; !f[0].Official || f[1].Official || f[1].SHA256 != sumOf(contents[1]) {
		t.Errorf("files %+v", f)
	}
	if data.Origin.Hash == official.Origin.Hash {
		t.Error("a changed pixel left the hash as it was")
	}
}

func TestDamagedRecords(t *testing.T) {
	s, contents := tinyCIFAR()
	for _, test := range []struct {
		name   string
		damage func(dir string)
		want   []string
	}{
		{"missing", func(dir string) { os.Remove(filepath.Join(dir, "two.bin")) }, []string{"files are missing: two.bin"}},
		{"short", func(dir string) { write(t, filepath.Join(dir, "two.bin"), contents[1][:20]) }, []string{"two.bin", "20 bytes, want 26"}},
		{"long", func(dir string) { write(t, filepath.Join(dir, "two.bin"), append(bytes.Clone(contents[1]), 0)) }, []string{"27 bytes, want 26"}},
		{"label", func(dir string) {
			bad := bytes.Clone(contents[1])
			bad[13] = 3
			write(t, filepath.Join(dir, "two.bin"), bad)
		}, []string{"two.bin: record 1 has label 3, want 0..2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			writeAll(t, dir, s, contents)
			test.damage(dir)
			_, err := openNamed(t.Context(), s, Options{Dir: dir})
			wantError(t, err, test.want...)
		})
	}
}

// CIFAR-100 has the coarse label first; the fine one counts.
func TestTwoLabelBytes(t *testing.T) {
	m, err := parseRecords("train.bin", []byte{9, 2, 1, 2, 3, 9, 0, 4, 5, 6}, 2, 1, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	if m.Label(0) != 2 || m.Label(1) != 0 || m.pix[1][0] != 4 {
		t.Errorf("labels %v, pixels %v", m.labels, m.pix)
	}
}

func TestSourceTable(t *testing.T) {
	if len(cifar100.classes) != 100 {
		t.Errorf("cifar100 has %d class names", len(cifar100.classes))
	}
	for _, s := range sources {
		for _, r := range append(s.downloads(), &remote{"", 1, strings.Repeat("0", 32), strings.Repeat("0", 64)}) {
			if len(r.md5) != 32 || len(r.sha256) != 64 || r.bytes == 0 {
				t.Errorf("%s: %s lacks a sum or its size", s.name, r.name)
			}
		}
		pictures := map[string]int{}
		for _, f := range s.files {
			if len(f.sha256) != 64 {
				t.Errorf("%s: %s lacks its sum", s.name, f.name)
			}
			if !strings.Contains(f.name, "labels") {
				pictures[f.split] += f.records
			}
		}
		if want := map[string]int{"cifar10": 50000, "cifar100": 50000}[s.name]; want != 0 && pictures[train] != want {
			t.Errorf("%s has %d training pictures", s.name, pictures[train])
		}
		if pictures[test] != 10000 {
			t.Errorf("%s has %d test pictures", s.name, pictures[test])
		}
		for _, a := range s.addresses {
			if !strings.HasPrefix(a, "https://") {
				t.Errorf("%s: %s has no TLS", s.name, a)
			}
		}
	}
}

func idx(magic []byte, elements []byte, dims ...uint32) []byte {
	b := bytes.Clone(magic)
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, d)
	}
	return append(b, elements...)
}

var (
	idxImages = []byte{0, 0, 8, 3}
	idxLabels = []byte{0, 0, 8, 1}
)

func tinyMNIST() (*source, [][]byte) {
	contents := [][]byte{
		idx(idxImages, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 3, 2, 2), idx(idxLabels, []byte{0, 1, 1}, 3),
		idx(idxImages, []byte{13, 14, 15, 16}, 1, 2, 2), idx(idxLabels, []byte{1}, 1),
	}
	s := &source{name: "digits", classes: []string{"0", "1"}, height: 2, width: 2, channels: 1, folders: []string{"digits", ""}, parse: parseMNIST, addresses: []string{"https://example.invalid"}}
	for i, name := range []string{"images", "labels", "test-images", "test-labels"} {
		split, records := train, 3
		if i >= 2 {
			split, records = test, 1
		}
		s.files = append(s.files, dataFile{name: name, split: split, records: records, bytes: int64(len(contents[i])), sha256: sumOf(contents[i]), packed: &remote{name: name + ".gz"}})
	}
	return s, contents
}

func TestIDX(t *testing.T) {
	s, contents := tinyMNIST()
	dir := t.TempDir()
	writeAll(t, dir, s, contents)
	raw, err := openNamed(t.Context(), s, Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	packed := t.TempDir()
	for i, f := range s.files {
		write(t, filepath.Join(packed, "digits", f.packed.name), gzipped(t, contents[i]))
	}
	data, err := openNamed(t.Context(), s, Options{Dir: packed})
	if err != nil {
		t.Fatal(err)
	}
	if data.Origin.Hash != raw.Origin.Hash || len(data.Origin.Notes) != 0 {
		t.Errorf("packed %+v, raw %+v", data.Origin, raw.Origin)
	}
	m := Image{Pix: make([]uint8, 0, 100)}
	if err := data.Train.Image(1, &m); err != nil || !bytes.Equal(m.Pix, []byte{5, 6, 7, 8}) || m.Channels != 1 || cap(m.Pix) != 100 {
		t.Errorf("picture 1: %v %+v", err, m)
	}
}

func TestDamagedIDX(t *testing.T) {
	images, labels := idx(idxImages, []byte{1, 2, 3, 4}, 1, 2, 2), idx(idxLabels, []byte{1}, 1)
	for _, test := range []struct {
		name           string
		images, labels []byte
		want           string
	}{
		{"empty", nil, labels, "less than its header"},
		{"magic", idx([]byte{0, 0, 13, 3}, []byte{1, 2, 3, 4}, 1, 2, 2), labels, "begins with 00 00 0d 03, want 00 00 08 03"},
		{"short", images[:len(images)-1], labels, "elements"},
		{"long", append(bytes.Clone(images), 0), labels, "5 elements, its dimensions [1 2 2] need 4"},
		{"overflow", idx(idxImages, []byte{1, 2, 3, 4}, 1<<31, 1<<31, 4), labels, "more elements than there can be"},
		{"count", images, idx(idxLabels, []byte{1, 0}, 2), "2 labels, images has 1 pictures"},
		{"label", images, idx(idxLabels, []byte{2}, 1), "label 0 is 2, want 0..1"},
		{"no pixels", idx(idxImages, nil, 1, 0, 2), labels, "0×2"},
	} {
		_, err := parseIDXPair("images", test.images, "labels", test.labels, 2)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.want)
		}
	}
}

func TestDamagedGzip(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 1000)
	whole := gzipped(t, content)
	for name, test := range map[string]struct {
		packed []byte
		size   int64
		want   string
	}{
		"truncated": {whole[:len(whole)/2], 10000, "truncated"},
		"no gzip":   {content, 10000, "invalid header"},
		"bad sum":   {append(bytes.Clone(whole[:len(whole)-8]), 0, 0, 0, 0, 0, 0, 0, 0), 10000, "checksum"},
		"longer":    {whole, 9999, "more than the 9999 bytes"},
		"shorter":   {whole, 10001, "10000 bytes, want 10001"},
	} {
		path := filepath.Join(t.TempDir(), "x.gz")
		write(t, path, test.packed)
		_, err := readWhole(path, test.size)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

func TestUnknownName(t *testing.T) {
	for name, want := range map[string]string{
		"CIFAR-10": "did you mean cifar10?", "cifar1o": "did you mean cifar10?", "FashionMNIST": "did you mean fashion-mnist?",
		"minst": "did you mean mnist?", "imagenet": "give one of these names",
	} {
		_, err := Open(t.Context(), name, Options{Dir: t.TempDir()})
		wantError(t, err, name, "shapes, cifar10, cifar100, fashion-mnist, mnist")
		if h := hint.Of(err); !strings.Contains(h, want) {
			t.Errorf("%s: hint %q, want %q", name, h, want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		"on-bad-image": {OnBadImage: "ignore"},
		"fraction":     {ValFraction: 1},
		"class map":    {ClassMap: "x"},
	} {
		_, err := Open(t.Context(), "shapes", o)
		wantError(t, err, want)
	}
}

func TestOpenShapes(t *testing.T) {
	data, err := Open(t.Context(), "shapes", Options{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if data.Train == nil || data.Channels != 3 || data.Origin.Hash == "" {
		t.Errorf("%+v", data)
	}
}

// listed is a Dataset of given pixels and labels, without keys of its own.
type listed struct {
	labels []int
	pixels []uint8
}

func (l listed) Len() int          { return len(l.labels) }
func (l listed) Label(i int) int   { return l.labels[i] }
func (l listed) Name(i int) string { return fmt.Sprint(i) }
func (l listed) Image(i int, dst *Image) error {
	dst.reset(1, 2, 1)
	binary.LittleEndian.PutUint16(dst.Pix, uint16(i)*7919)
	copy(dst.Pix[:1], l.pixels[i:i+1])
	return nil
}

func TestSplitIsAFunctionOfContent(t *testing.T) {
	m := &memory{height: 1, width: 2, channels: 1, name: func(i int) string { return fmt.Sprint(i) }}
	for i := range 100 {
		m.labels = append(m.labels, uint8(i%3))
		m.pix = append(m.pix, []uint8{uint8(i), uint8(i * i)})
	}
	contents := func(d Dataset) map[string]bool {
		set := map[string]bool{}
		var p Image
		for i := range d.Len() {
			if err := d.Image(i, &p); err != nil {
				t.Fatal(err)
			}
			set[string(p.Pix)] = true
		}
		return set
	}
	rest, held := Split(m, 20, 3, 1)
	if rest.Len() != 80 || held.Len() != 20 {
		t.Fatalf("%d and %d", rest.Len(), held.Len())
	}
	if n := countLabels(held, 3); n[0] < 6 || n[1] < 6 || n[2] < 6 { // of 34, 33, 33
		t.Errorf("classes of what is held out: %v", n)
	}
	reversed := make([]int, 100)
	for i := range reversed {
		reversed[i] = 99 - i
	}
	_, again := Split(Subset(m, reversed), 20, 3, 1)
	first, second := contents(held), contents(again)
	if len(first) != 20 || fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("in another order the held-out pictures differ")
	}
	for p := range contents(rest) {
		if first[p] {
			t.Error("a picture is in both parts")
		}
	}
	_, other := Split(m, 20, 3, 2)
	if fmt.Sprint(first) == fmt.Sprint(contents(other)) {
		t.Error("another seed holds the same pictures out")
	}
	if _, all := Split(m, 1000, 3, 1); all.Len() != 100 {
		t.Errorf("1000 of 100: %d", all.Len())
	}

	// Data sets that are not this package's are keyed by what they decode to.
	l := listed{make([]int, 50), make([]uint8, 50)}
	if _, held := Split(l, 10, 1, 0); held.Len() != 10 || held.Name(0) == "" {
		t.Errorf("%d held out", held.Len())
	}
}

func TestSubset(t *testing.T) {
	l := listed{[]int{4, 5, 6}, []uint8{1, 2, 3}}
	s := Subset(l, []int{2, 0, 2})
	if got := Labels(s); fmt.Sprint(got) != "[6 4 6]" || s.Name(1) != "0" {
		t.Errorf("labels %v", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("index 3 of 3 was accepted")
		}
	}()
	Subset(l, []int{3})
}

func TestClassWeights(t *testing.T) {
	// sklearn.utils.class_weight.compute_class_weight("balanced", …) for these.
	got := ClassWeights([]int{0, 0, 0, 1, 2, 2}, 4)
	want := []float32{0.5, 1.5, 0.75, 0}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func pngOf(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// plain is a PNG of one colour.
func plain(t testing.TB, width, height int, c color.Color) []byte {
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			m.Set(x, y, c)
		}
	}
	return pngOf(t, m)
}

// Where this user may not look, nobody says that the files are missing or damaged, and
// nothing is downloaded.
func TestDenied(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := t.TempDir()
	folder := filepath.Join(dir, "mnist")
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, f := range mnist.files {
		if err := os.WriteFile(filepath.Join(folder, f.name), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	open := func() {
		t.Helper()
		_, err := Open(t.Context(), "mnist", Options{Dir: dir, Download: true, Mirror: "http://127.0.0.1:1"})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(hint.Of(err), "ls -ld") {
			t.Errorf("error %v with the hint %q, want one of permission", err, hint.Of(err))
		}
	}
	open() // the files
	for _, d := range []string{folder, dir} {
		if err := os.Chmod(d, 0); err != nil {
			t.Fatal(err)
		}
		open()
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
}
