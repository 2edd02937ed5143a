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
// old file is untouched and the temporary file is gone, unless only flushing the
// folder failed: then the new one is there, and may be lost with the power. An error
// of write is returned wrapped.
//
// New files get the permissions of the process's umask, replaced files keep
// theirs. A symbolic link is followed, so the link stays. Anything else that is
// not a regular file is refused: renaming over /dev/null would destroy it.
func Write(path string, write func(io.Writer) error) error { return WriteChecked(path, write, nil) }

// WriteChecked is Write that asks check, where it is not nil, about the finished
// file before it takes the old one's place. An error of check is one of write.
func WriteChecked(path string, write func(io.Writer) error, check func(temp string) error) error {
	target, mode, err := resolve(path)
	if err == nil {
		err = replace(target, mode, write, check)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// file is what replace needs of an *os.File; tests have others, which fail.
type file interface {
	io.Writer
	Chmod(fs.FileMode) error
	Sync() error
	Close() error
}

var create = func(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

func replace(target string, mode fs.FileMode, write func(io.Writer) error, check func(temp string) error) error {
	dir, base := filepath.Split(target)
	temp := filepath.Join(dir, "."+base+tempInfix+rand.Text()[:8])
	f, err := create(temp)
	if err != nil {
		return cause(err, temp)
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
			return cause(err, temp)
		}
	}
	buffered := bufio.NewWriterSize(f, 1<<16)
	if err := write(buffered); err != nil {
		return cause(err, temp)
	}
	for _, step := range []func() error{buffered.Flush, f.Sync, f.Close} {
		if err := step(); err != nil {
			return cause(err, temp)
		}
	}
	if check != nil {
		if err := check(temp); err != nil {
			return cause(err, temp)
		}
	}
	if err := os.Rename(temp, target); err != nil {
		return cause(err, temp)
	}
	renamed = true
	return SyncDir(filepath.Dir(target))
}

// cause takes the temporary file, of which nobody has heard, out of an error.
func cause(err error, temp string) error {
	if p, ok := err.(*fs.PathError); ok && p.Path == temp {
		if p.Op == "open" && errors.Is(p, fs.ErrNotExist) {
			return fmt.Errorf("the folder %s: %w", filepath.Dir(temp), p.Err)
		}
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	}
	if l, ok := err.(*os.LinkError); ok {
		return fmt.Errorf("%s: %w", l.Op, l.Err)
	}
	if strings.Contains(err.Error(), temp) {
		return nameless{err, temp}
	}
	return err
}

// nameless is an error that mentions the temporary file within.
type nameless struct {
	error
	temp string
}

func (e nameless) Error() string {
	text := ": " + e.error.Error()
	for _, name := range [][2]string{{": " + e.temp + ": ", ": "}, {" " + e.temp + ": ", ": "}, {e.temp, "it"}} {
		text = strings.ReplaceAll(text, name[0], name[1])
	}
	return strings.TrimPrefix(text, ": ")
}

func (e nameless) Unwrap() error { return e.error }

// WriteFile is Write for content that is in memory.
func WriteFile(path string, content []byte) error {
	return Write(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// MkdirAll is os.MkdirAll that flushes the names of new directories to the disk.
func MkdirAll(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		if info, serr := os.Stat(dir); serr == nil && info.IsDir() {
			return nil // another process was faster
		}
		return err
	}
	if err := SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) { // one may write without reading
		return err
	}
	return nil
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
