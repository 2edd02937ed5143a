// Package rundir is the directory that a training run leaves behind:
//
//	runs/<date>-<model>-<data>/
//	  config.json      every option after defaults
//	  origin.json      version, commit, processor, engine, data set and its hash
//	  log.txt          what the terminal showed
//	  metrics.jsonl    append-only, one object per line, units in the names
//	  history.csv      one line per epoch
//	  curves.png/.svg  accuracy and loss, training and validation
//	  checkpoints/     index.json and step-00000500/{model,state}.safetensors, checkpoint.json
//	  evaluations/     what other commands found out about the run; ledger.jsonl: looks at the test split
//	  report.html      what "residual report" wrote
//	  lock             held while a process trains here
//	  result.json      written last: its presence means "finished"
//
// A step whose loss or gradient was not finite leaves capsule-step-….safetensors
// beside them.
//
// Training and import create it; everything else reads it and only adds under
// evaluations/, and report.html. Whole files are replaced atomically and the others
// only grow by lines, so a reader, or a process killed at any point, never finds half
// of one. A Dir may be used by several goroutines.
package rundir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
)

const (
	configFile = "config.json"
	originFile = "origin.json"
	resultFile = "result.json"
	logFile    = "log.txt"
	lockFile   = "lock"
)

// Dir is a run directory.
type Dir struct {
	path string

	mu      sync.Mutex
	log     *os.File        // log.txt, nil until something is logged
	metrics *os.File        // metrics.jsonl, nil until something is appended
	lock    *os.File        // nil while not locked
	damaged map[string]bool // step directories that a load found damaged

	// fault, set by tests, is told before each change of the disk what comes; its
	// error makes the change fail.
	fault func(point string) error
}

// NewName returns a path parent/<date>-<model>-<data> that does not exist yet,
// with -2, -3, … after it when it does. An empty parent is "runs"; of a data path
// the last element is taken.
func NewName(parent, model, data string, now time.Time) string {
	if parent == "" {
		parent = "runs"
	}
	if abs, err := filepath.Abs(data); err == nil { // so that "." has a name
		data = filepath.Base(abs)
	}
	name := now.Format(time.DateOnly) + "-" + plain(model) + "-" + plain(data)
	path := filepath.Join(parent, name)
	for n := 2; ; n++ {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) || n > 10_000 {
			return path // Create says what is wrong with it, if anything
		}
		path = filepath.Join(parent, fmt.Sprintf("%s-%d", name, n))
	}
}

// plain keeps letters, digits, dots and dashes of a name, which then needs no
// quoting in a shell.
func plain(s string) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || r == '.' || r == '_' {
			return r
		}
		return '-'
	}, s))
	return strings.Trim(string(runes[:min(len(runes), 60)]), "-")
}

// New makes a run directory with the first of NewName's paths that is free. Several
// processes that begin at the same moment get one each.
func New(parent, model, data string, now time.Time) (*Dir, error) {
	for before := ""; ; {
		path := NewName(parent, model, data, now)
		if path == before { // there are too many
			return Create(path)
		}
		before = path
		if err := atomicfile.MkdirAll(filepath.Dir(path)); err != nil {
			return nil, fmt.Errorf("run directory %s: %w", path, err)
		}
		switch err := os.Mkdir(path, 0o777); {
		case err == nil:
			return Create(path)
		case !errors.Is(err, fs.ErrExist): // else another process was faster
			return nil, fmt.Errorf("run directory %s: %w", path, reason(err))
		}
	}
}

// Create makes a run directory and its parents. A directory that exists must be
// empty. It becomes a run directory for Open with WriteConfig.
func Create(path string) (*Dir, error) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return nil, hint.Wrap(fmt.Errorf("run directory %s: it is a file", path), "name another directory, or leave it to the program")
	}
	if err := atomicfile.MkdirAll(path); err != nil {
		return nil, fmt.Errorf("run directory %s: %w", path, err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("run directory %s: %w", path, err)
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { // what a run killed at its start leaves
		return slices.Contains([]string{lockFile, logFile, originFile}, e.Name()) || atomicfile.IsTemp(e.Name())
	})
	if len(entries) > 0 {
		err := fmt.Errorf("run directory %s: not empty, it holds %s", path, entries[0].Name())
		if isRun(path) {
			return nil, hint.Wrap(err, "to continue that run: residual train --resume "+hint.Quote(path)+"; else name another directory")
		}
		return nil, hint.Wrap(err, "name another directory, or leave it to the program")
	}
	return &Dir{path: path}, nil
}

// CreateLocked is Create and Lock: of several processes that make the same directory at
// once one gets it, even if it ends before the others have looked.
func CreateLocked(path string) (*Dir, error) {
	d, err := Create(path)
	if err != nil {
		return nil, err
	}
	if err = d.Lock(); err == nil {
		_, err = Create(path) // still empty, or it was written between the two
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Open opens a run directory to read it or to continue the run. It changes nothing.
func Open(path string) (*Dir, error) {
	if isRun(path) {
		return &Dir{path: path}, nil
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		err = fmt.Errorf("run directory %s: %w", path, reason(err))
	case !info.IsDir():
		return nil, hint.Wrap(fmt.Errorf("run directory %s: it is a file", path), "a file with a network becomes a run by: residual import "+hint.Quote(path))
	case isHuggingFace(path):
		return nil, hint.Wrap(fmt.Errorf("run directory %s: it is a Hugging Face folder", path), "it becomes a run by: residual import "+hint.Quote(path))
	default:
		err = fmt.Errorf("run directory %s: it has no %s, so it is none", path, configFile)
	}
	for _, parent := range []string{path, filepath.Dir(path), "runs"} {
		if runs, _ := List(parent); len(runs) > 0 {
			return nil, hint.Wrap(err, "the newest run in "+parent+" is "+newest(runs))
		}
	}
	return nil, hint.Wrap(err, "make one with: residual train")
}

// newest is the run whose configuration was written last; names go by the day.
func newest(runs []string) string {
	at := func(run string) time.Time {
		info, err := os.Stat(filepath.Join(run, configFile))
		if err != nil {
			return time.Time{}
		}
		return info.ModTime()
	}
	return slices.MaxFunc(runs, func(a, b string) int { return at(a).Compare(at(b)) })
}

// reason is the cause of an error of package os without operation and path.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func isRun(path string) bool {
	info, err := os.Stat(filepath.Join(path, configFile))
	return err == nil && info.Mode().IsRegular() && !isHuggingFace(path)
}

// isHuggingFace reports whether the config.json in path is that of a Hugging Face
// folder: weights or preprocessing lie beside it, and no checkpoints.
func isHuggingFace(path string) bool {
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(path, name))
		return err == nil
	}
	return has(configFile) && !has(checkpoints) &&
		slices.ContainsFunc([]string{"model.safetensors", "pytorch_model.bin", "preprocessor_config.json"}, has)
}

// List returns the paths of the run directories in parent, sorted by name, that
// is by date.
func List(parent string) ([]string, error) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, fmt.Errorf("runs in %s: %w", parent, reason(err))
	}
	var runs []string
	for _, e := range entries {
		if path := filepath.Join(parent, e.Name()); isRun(path) {
			runs = append(runs, path)
		}
	}
	return runs, nil
}

// Path is the path that Create or Open got.
func (d *Dir) Path() string { return d.path }

// WriteConfig writes config.json, every option of the run after defaults.
func (d *Dir) WriteConfig(v any) error { return d.writeJSON(configFile, v) }

// ReadConfig fills v from config.json. Keys that v does not know are ignored.
func (d *Dir) ReadConfig(v any) error { return d.readJSON(configFile, v) }

// WriteOrigin writes origin.json: what made the run, where, from which data.
func (d *Dir) WriteOrigin(v any) error { return d.writeJSON(originFile, v) }

// ReadOrigin fills v from origin.json.
func (d *Dir) ReadOrigin(v any) error { return d.readJSON(originFile, v) }

// WriteResult writes result.json. It is the last thing a run does.
func (d *Dir) WriteResult(v any) error { return d.writeJSON(resultFile, v) }

// ReadResult fills v from result.json; of a run that has not finished the error
// is fs.ErrNotExist.
func (d *Dir) ReadResult(v any) error { return d.readJSON(resultFile, v) }

// Finished reports whether the run has its result.
func (d *Dir) Finished() bool {
	_, err := os.Stat(filepath.Join(d.path, resultFile))
	return err == nil
}

// WriteFile replaces a file of the run, such as curves.png, atomically.
func (d *Dir) WriteFile(name string, write func(io.Writer) error) error {
	if err := d.at("before " + name); err != nil {
		return err
	}
	err := atomicfile.Write(filepath.Join(d.path, name), func(w io.Writer) error {
		if d.fault != nil {
			w = faultWriter{w, d, name}
		}
		return write(w)
	})
	if err != nil {
		return err
	}
	return d.at("after " + name)
}

// at is a point where tests let the run crash.
func (d *Dir) at(point string) error {
	if d.fault == nil {
		return nil
	}
	return d.fault(point)
}

type faultWriter struct {
	io.Writer
	d    *Dir
	name string
}

func (f faultWriter) Write(p []byte) (int, error) {
	if err := f.d.at("within " + f.name); err != nil {
		return 0, err
	}
	return f.Writer.Write(p)
}

func (d *Dir) writeJSON(name string, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // people read these files
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(d.path, name), err)
	}
	return d.WriteBytes(name, b.Bytes())
}

// WriteBytes is WriteFile for content that is in memory.
func (d *Dir) WriteBytes(name string, content []byte) error {
	return d.WriteFile(name, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// maxSmall bounds the files that are read at once, all but tensors and metrics:
// the index of a million checkpoints is smaller.
const maxSmall = 1 << 29

// readSmall reads a file that a run directory from elsewhere may have made huge,
// or a pipe that never ends.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSmall {
		return nil, fmt.Errorf("%s: %v of %d bytes, want a regular file of %d at most", path, info.Mode().Type(), info.Size(), maxSmall)
	}
	return os.ReadFile(path)
}

func (d *Dir) readJSON(name string, v any) error {
	path := filepath.Join(d.path, name)
	b, err := readSmall(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, reason(err))
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// ErrInUse is in the error of Lock when another process trains in the directory.
var ErrInUse = errors.New("in use by another process")

// Lock makes sure that no other process trains in the directory until Close, or
// until this process ends in whatever way. It also removes what a killed process
// left half-written.
func (d *Dir) Lock() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(d.path, lockFile), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return fmt.Errorf("run directory %s: %w", d.path, err)
	}
	if err := tryLock(f); err != nil {
		defer f.Close()
		if errors.Is(err, ErrInUse) {
			holder, _ := io.ReadAll(io.LimitReader(f, 200))
			return hint.Wrap(fmt.Errorf("run directory %s: %w (%s)", d.path, err, bytes.TrimSpace(holder)),
				"wait until it has ended, or start a run of its own")
		}
		return fmt.Errorf("run directory %s: cannot lock it: %w", d.path, err)
	}
	d.lock = f

	host, _ := os.Hostname()
	holder := fmt.Sprintf("process %d on %s since %s\n", os.Getpid(), host, time.Now().Format(time.DateTime))
	if err := f.Truncate(0); err == nil {
		f.WriteAt([]byte(holder), 0) // a courtesy to whoever is refused; the lock holds without it
	}
	for _, dir := range []string{".", checkpoints, checkpoints + "/step-*"} { // evaluations/ is open to other processes
		left, _ := fs.Glob(os.DirFS(d.path), dir+"/.*")
		for _, name := range left {
			if atomicfile.IsTemp(filepath.Base(name)) {
				os.Remove(filepath.Join(d.path, name))
			}
		}
	}
	return nil
}

// Close flushes and closes the files that grow, and unlocks.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, f := range []**os.File{&d.log, &d.metrics} {
		if *f != nil {
			errs = append(errs, (*f).Sync(), (*f).Close())
			*f = nil
		}
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close()) // which unlocks
		d.lock = nil
	}
	return errors.Join(errs...)
}
