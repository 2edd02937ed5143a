// Package atomicfile replaces a file such that no reader, and no crash, ever
// finds half of it: the content goes to a temporary file in the same directory,
// which is flushed to the disk and then renamed over the old one.
package atomicfile

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tempInfix marks temporary files; a killed process may leave one behind.
const tempInfix = ".tmp-"

// Write replaces the file at path by what write produces. When it returns nil
// the new content and its name are on the disk; when it returns an error the
// old file is untouched and the temporary file is gone. An error of write is
// returned wrapped.
//
// New files get the permissions of the process's umask, replaced files keep
// theirs. A symbolic link is followed, so the link stays. Anything else that is
// not a regular file is refused: renaming over /dev/null would destroy it.
func Write(path string, write func(io.Writer) error) (err error) {
	target, mode, err := resolve(path)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	dir, base := filepath.Split(target)
	temp := filepath.Join(dir, "."+base+tempInfix+rand.Text()[:8])
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	renamed := false
	defer func() { // also when write panics
		if !renamed {
			f.Close()
			os.Remove(temp)
		}
	}()

	if mode != 0 {
		if err := f.Chmod(mode); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	buffered := bufio.NewWriterSize(f, 1<<16)
	if err := write(buffered); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	for _, step := range []func() error{buffered.Flush, f.Sync, f.Close} {
		if err := step(); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	if err := os.Rename(temp, target); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	renamed = true
	if err := SyncDir(filepath.Dir(target)); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// WriteFile is Write for content that is in memory.
func WriteFile(path string, content []byte) error {
	return Write(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// IsTemp reports whether name is that of a temporary file of Write, left by a
// process that was killed.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, ".") && strings.Contains(name, tempInfix)
}

// resolve follows symbolic links to the file to replace and returns its
// permissions, 0 when there is none yet.
func resolve(path string) (target string, mode fs.FileMode, err error) {
	target = path
	if real, err := filepath.EvalSymlinks(path); err == nil {
		target = real
	} else if _, err := os.Lstat(path); err == nil {
		return "", 0, errors.New("it is a symbolic link to nowhere")
	}
	info, err := os.Stat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return target, 0, nil
	case err != nil:
		return "", 0, err
	case !info.Mode().IsRegular():
		return "", 0, fmt.Errorf("it is a %s, want a regular file", kind(info.Mode()))
	}
	return target, info.Mode().Perm(), nil
}

func kind(mode fs.FileMode) string {
	if mode.IsDir() {
		return "directory"
	}
	return "device or pipe"
}
