package dataset

import (
	"archive/tar"
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

type entry struct {
	name    string
	content []byte
	kind    byte
}

func entries(s *source, contents [][]byte) []entry {
	all := []entry{{"tiny/", nil, tar.TypeDir}, {"tiny/readme.html", []byte("hello"), tar.TypeReg}}
	for i, f := range s.files {
		all = append(all, entry{"tiny/" + f.name, contents[i], tar.TypeReg})
	}
	return all
}

func tarGz(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Size: int64(len(e.content)), Mode: 0o644}
		if e.kind == tar.TypeSymlink {
			h.Linkname = "/etc/passwd"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return gzipped(t, b.Bytes())
}

func TestArchive(t *testing.T) {
	s, contents := tinyCIFAR()
	good := entries(s, contents)
	whole := tarGz(t, good...)
	got, err := s.readArchive(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	for i := range contents {
		if !bytes.Equal(got[i], contents[i]) {
			t.Errorf("%s differs", s.files[i].name)
		}
	}
	with := func(e entry) []byte { return tarGz(t, append(entries(s, contents), e)...) }
	replaced := func(i int, e entry) []byte {
		all := entries(s, contents)
		all[i] = e
		return tarGz(t, all...)
	}
	for _, test := range []struct {
		name, want string
		archive    []byte
	}{
		{"traversal", "leads out of its folder", with(entry{"../../evil.bin", []byte("x"), tar.TypeReg})},
		{"traversal of a wanted name", "leads out of its folder", replaced(2, entry{"../one.bin", contents[0], tar.TypeReg})},
		{"absolute", "leads out of its folder", with(entry{"/etc/evil", []byte("x"), tar.TypeReg})},
		{"backslash", "leads out of its folder", with(entry{`..\evil`, []byte("x"), tar.TypeReg})},
		{"link", "not a regular file", replaced(2, entry{"tiny/one.bin", nil, tar.TypeSymlink})},
		{"twice", "occurs twice", with(entry{"tiny/one.bin", contents[0], tar.TypeReg})},
		{"short member", "25 bytes, want 26", replaced(2, entry{"tiny/one.bin", contents[0][1:], tar.TypeReg})},
		{"missing", "files are missing: one.bin", replaced(2, entry{"tiny/none.bin", contents[0], tar.TypeReg})},
		{"too much", "holds more than", with(entry{"tiny/zeros", make([]byte, 17<<20), tar.TypeReg})},
		{"no gzip", "broken archive", []byte("this is not an archive at all")},
		{"empty", "truncated", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := s.readArchive(bytes.NewReader(test.archive))
			wantError(t, err, test.want)
		})
	}
	// Wherever it is cut it says so.
	for n := 1; n < len(whole); n += 7 {
		if _, err := s.readArchive(bytes.NewReader(whole[:n])); err == nil || !strings.Contains(err.Error(), "truncated") {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(whole), err)
		}
	}
}

func TestOpenArchiveByPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "photos.tar.gz")
	write(t, path, tarGz(t, entry{"a/b.jpg", []byte("x"), tar.TypeReg}))
	_, err := Open(t.Context(), path, Options{})
	wantError(t, err, path, "cifar-10-binary.tar.gz or cifar-100-binary.tar.gz")
	write(t, path, []byte("no archive"))
	_, err = Open(t.Context(), path, Options{})
	wantError(t, err, path, "broken archive")
}

func FuzzArchive(f *testing.F) {
	s, contents := tinyCIFAR()
	f.Add(tarGz(f, entries(s, contents)...))
	f.Add(tarGz(f, entry{"../x", []byte("x"), tar.TypeReg}))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, archive []byte) {
		got, err := s.readArchive(bytes.NewReader(archive))
		if err != nil {
			if got != nil || errors.Is(err, errMissing) && err.Error() == "" {
				t.Errorf("contents beside the error %v", err)
			}
			return
		}
		for i, f := range s.files {
			if int64(len(got[i])) != f.bytes {
				t.Errorf("%s has %d bytes", f.name, len(got[i]))
			}
		}
	})
}

func FuzzRecords(f *testing.F) {
	_, contents := tinyCIFAR()
	f.Add(contents[0], uint8(1))
	f.Add(contents[0][:14], uint8(2))
	f.Add([]byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, labelBytes uint8) {
		n := 1 + int(labelBytes)%2
		m, err := parseRecords("f", data, n, 2, 2, 3)
		if err != nil {
			return
		}
		if m.Len()*(n+12) != len(data) {
			t.Fatalf("%d records of %d bytes", m.Len(), len(data))
		}
		checkAll(t, m, 3)
	})
}

func FuzzIDX(f *testing.F) {
	f.Add(idx(idxImages, []byte{1, 2, 3, 4}, 1, 2, 2), idx(idxLabels, []byte{1}, 1))
	f.Add(idx(idxImages, nil, 0, 0, 0), idx(idxLabels, nil, 0))
	f.Add(idx(idxImages, nil, 1<<31, 1<<31, 1<<31), idx(idxLabels, nil, 1<<31))
	f.Fuzz(func(t *testing.T, images, labels []byte) {
		m, err := parseIDXPair("images", images, "labels", labels, 10)
		if err != nil {
			return
		}
		if m.Len() != len(labels)-8 || m.Len()*m.height*m.width != len(images)-16 {
			t.Fatalf("%d pictures of %d×%d in %d bytes", m.Len(), m.height, m.width, len(images))
		}
		checkAll(t, m, 10)
	})
}

// checkAll decodes every picture.
func checkAll(t *testing.T, d Dataset, classes int) {
	var m Image
	for i := range d.Len() {
		if l := d.Label(i); l < 0 || l >= classes {
			t.Fatalf("label %d", l)
		}
		if err := d.Image(i, &m); err != nil || len(m.Pix) != m.Height*m.Width*m.Channels {
			t.Fatalf("picture %d: %v, %d bytes for %d×%d×%d", i, err, len(m.Pix), m.Height, m.Width, m.Channels)
		}
	}
}
