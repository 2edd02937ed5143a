package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// names lists a directory, hidden files included.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	for _, want := range []string{"first", "", "second"} {
		if err := WriteFile(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got := content(t, path); got != want {
			t.Errorf("content %q, want %q", got, want)
		}
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("directory holds %q, want one file", got)
	}
}

// The temporary file is in no error, however deep the one that names it is wrapped.
func TestNameless(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json")
	for _, err := range []error{
		WriteChecked(path, func(io.Writer) error { return nil }, func(temp string) error {
			return fmt.Errorf("reading: %w", &os.PathError{Op: "read", Path: temp, Err: syscall.ENOSPC})
		}),
		WriteChecked(path, func(io.Writer) error { return nil }, func(temp string) error {
			return fmt.Errorf("reading: %s: %w", temp, syscall.ENOSPC)
		}),
		WriteFile(filepath.Join(path, "..", "nowhere", "b.json"), nil),
	} {
		if err == nil || strings.Contains(err.Error(), tempInfix) || strings.Contains(err.Error(), "::") || !errors.Is(err, syscall.ENOSPC) && !strings.Contains(err.Error(), "the folder ") {
			t.Errorf("error %v", err)
		}
	}
	if left := names(t, filepath.Dir(path)); len(left) != 0 {
		t.Errorf("the directory holds %q", left)
	}
}

func TestFailureLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	if err := WriteFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	planted := errors.New("planted")
	big := bytes.Repeat([]byte("new"), 1<<18) // larger than any buffer

	err := Write(path, func(w io.Writer) error {
		w.Write(big)
		// What a crash at this moment would leave: the old file and a marked temporary one.
		if got := content(t, path); got != "old" {
			t.Errorf("while writing, a reader sees %d bytes", len(got))
		}
		left := names(t, dir)
		if len(left) != 2 || !IsTemp(left[0]) || IsTemp(left[1]) {
			t.Errorf("while writing, the directory holds %q", left)
		}
		return planted
	})
	if !errors.Is(err, planted) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want the planted one with the path", err)
	}

	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		Write(path, func(w io.Writer) error { w.Write(big); panic("planted") })
	}()

	if got := content(t, path); got != "old" {
		t.Errorf("after failures the file holds %d bytes, want the old content", len(got))
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("after failures the directory holds %q", got)
	}
}

// failing is a file that does what a failing disk does, at one of its steps.
type failing struct {
	*os.File
	step string
	room int // bytes until "write" or "short" strikes
}

var errPlanted = errors.New("planted")

func (f *failing) Write(p []byte) (int, error) {
	if f.step != "write" && f.step != "short" || len(p) <= f.room {
		f.room -= len(p)
		return f.File.Write(p)
	}
	n, _ := f.File.Write(p[:f.room])
	if f.step == "short" {
		return n, io.ErrShortWrite // as os.File says it
	}
	return n, &os.PathError{Op: "write", Path: f.Name(), Err: errPlanted}
}

func (f *failing) Sync() error {
	if f.step == "sync" {
		return errPlanted
	}
	return f.File.Sync()
}

func (f *failing) Close() error {
	if f.step == "close" {
		f.File.Close()
		return errPlanted
	}
	return f.File.Close()
}

// Whatever step fails: the error names file and cause, the old content stays,
// the temporary file goes, and the next write works.
func TestFailingDisk(t *testing.T) {
	real := create
	defer func() { create = real }()
	big := bytes.Repeat([]byte("new"), 1<<18)
	for _, step := range []string{"write", "short", "sync", "close", "rename"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.json")
		if err := WriteFile(path, []byte("old")); err != nil {
			t.Fatal(err)
		}
		create = func(path string) (file, error) {
			f, err := real(path)
			return &failing{f.(*os.File), step, 200_000}, err
		}
		want, count := errPlanted, 1
		err := Write(path, func(w io.Writer) error {
			if step == "rename" { // a directory in the way, which is not empty
				os.Remove(path)
				os.MkdirAll(filepath.Join(path, "b"), 0o777)
			}
			_, err := w.Write(big)
			return err
		})
		switch step {
		case "short":
			want = io.ErrShortWrite
		case "rename":
			want = nil
			if err == nil {
				t.Error("a directory was replaced")
			}
			os.RemoveAll(path)
			count = 0
		}
		if want != nil && (!errors.Is(err, want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), tempInfix)) {
			t.Errorf("%s: error %v, want %v with the path", step, err, want)
		}
		if got := names(t, dir); len(got) != count {
			t.Errorf("%s: the directory holds %q", step, got)
		}
		if step != "rename" && content(t, path) != "old" {
			t.Errorf("%s: the old content is gone", step)
		}
		create = real
		if err := WriteFile(path, big); err != nil || content(t, path) != string(big) {
			t.Errorf("%s: writing again: error %v", step, err)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := MkdirAll(filepath.Join(dir, "a", "b", "c")); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFile(filepath.Join(dir, "a", "b", "c", "file"), nil); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(filepath.Join(dir, "a", "b", "c", "file", "d")); err == nil {
		t.Error("a directory was made below a file")
	}
}

func TestCheckSpace(t *testing.T) {
	if err := CheckSpace(t.TempDir(), 1); err != nil {
		t.Error(err)
	}
	err := CheckSpace(t.TempDir(), 1<<62)
	switch runtime.GOOS {
	case "linux", "darwin", "freebsd":
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("4 EB: error %v", err)
		}
	default:
		if err != nil {
			t.Error(err)
		}
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFile(filepath.Join(dir, "missing", "a"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: error %v", err)
	}
	if err := WriteFile(dir, nil); err == nil || !strings.Contains(err.Error(), "want a regular file") {
		t.Errorf("a directory as target: error %v", err)
	}
	if _, err := os.Stat(os.DevNull); err == nil {
		if err := WriteFile(os.DevNull, nil); err == nil {
			t.Fatalf("%s was replaced", os.DevNull)
		}
	}
}

func TestLinksAndModesStay(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links and modes are not those of Unix")
	}
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.WriteFile(real, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(real, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Lstat(link); info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link became a file")
	}
	if info, _ := os.Stat(real); info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, want 0640", info.Mode().Perm())
	}
	if got := content(t, real); got != "new" {
		t.Errorf("content %q", got)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "dangling"), nil); err == nil {
		t.Error("a dangling link was replaced")
	}
}

// Readers see one whole version or another, while writers race.
func TestReadersSeeWholeVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	version := func(i int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("%04d", i)), 50_000) }
	if err := WriteFile(path, version(0)); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for i := range 2 {
		writers.Go(func() {
			for j := range 10 {
				if err := WriteFile(path, version(2*j+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for reads := 0; ; reads++ {
		got := content(t, path)
		if len(got) != 200_000 || strings.Count(got, got[:4]) < 50_000 {
			t.Fatalf("a reader saw a mixture or %d of 200000 bytes", len(got))
		}
		select {
		case <-done:
			if reads == 0 {
				t.Error("no read happened while writing")
			}
			return
		default:
		}
	}
}
