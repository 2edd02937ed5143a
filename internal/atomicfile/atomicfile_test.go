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
