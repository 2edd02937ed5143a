package rundir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
)

const metricsFile = "metrics.jsonl"

// Float is a number for AppendMetrics that may be NaN or infinite: JSON has no
// such numbers, so they become null, and null becomes NaN.
type Float float64

// MarshalJSON writes null for what JSON cannot say.
func (f Float) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// UnmarshalJSON is the inverse, with NaN for null.
func (f *Float) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*f = Float(math.NaN())
		return nil
	}
	return json.Unmarshal(b, (*float64)(f))
}

// Log returns a writer that appends to log.txt.
func (d *Dir) Log() io.Writer { return logWriter{d} }

type logWriter struct{ d *Dir }

func (l logWriter) Write(p []byte) (int, error) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.d.log == nil {
		f, err := os.OpenFile(filepath.Join(l.d.path, logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
		if err != nil {
			return 0, err
		}
		l.d.log = f
	}
	return l.d.log.Write(p)
}

// openLines opens a file of lines to append to it, without the half line that a
// crash may have left at its end, and returns its size.
func (d *Dir) openLines(name string) (*os.File, int64, error) {
	f, err := os.OpenFile(filepath.Join(d.path, name), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	size, whole := info.Size(), int64(0)
	for end := size; end > 0 && whole == 0; { // backwards, block by block, to the last newline
		block := make([]byte, min(end, 1<<12))
		end -= int64(len(block))
		if _, err := f.ReadAt(block, end); err != nil {
			f.Close()
			return nil, 0, err
		}
		if i := bytes.LastIndexByte(block, '\n'); i >= 0 {
			whole = end + int64(i) + 1
		}
	}
	if whole < size {
		if err := f.Truncate(whole); err != nil {
			f.Close()
			return nil, 0, err
		}
	}
	return f, whole, nil
}

// AppendMetrics adds v, which must encode as a JSON object, to metrics.jsonl as
// one line that readers see at once. Give it an integer "step", the steps done:
// TruncateAfter goes by it. Numbers that may be NaN are of type Float.
func (d *Dir) AppendMetrics(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(d.path, metricsFile), err)
	}
	if line[0] != '{' {
		return fmt.Errorf("%s: %.20s is no JSON object", filepath.Join(d.path, metricsFile), line)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.metrics == nil {
		if d.metrics, _, err = d.openLines(metricsFile); err != nil {
			return err
		}
	}
	_, err = d.metrics.Write(append(line, '\n')) // one call: readers see whole lines, nearly always
	if err != nil {                              // the next call removes the half line that a full disk leaves
		d.metrics.Close()
		d.metrics = nil
	}
	return err
}

// Follower reads metrics.jsonl as it grows.
type Follower struct {
	path   string
	offset int64       // behind the last line returned
	seen   os.FileInfo // the file it was in
}

// Follow returns a Follower at the start of metrics.jsonl, which need not exist yet.
func (d *Dir) Follow() *Follower {
	return &Follower{path: filepath.Join(d.path, metricsFile)}
}

var errNotJSON = errors.New("the line is no JSON")

// Poll returns the complete lines that were added since the last call; a last
// line that is still being written comes with a later call. When a resumed run
// has rewritten the file, restarted is true and the lines are again all of them.
// Lines that are no JSON are left out and reported by an error, once.
func (f *Follower) Poll() (lines []json.RawMessage, restarted bool, err error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, false, err
	}
	if f.seen != nil && (!os.SameFile(f.seen, info) || info.Size() < f.offset) {
		restarted, f.offset = true, 0
	}
	f.seen = info
	if info.Size() == f.offset {
		return nil, restarted, nil
	}
	b, err := io.ReadAll(io.NewSectionReader(file, f.offset, info.Size()-f.offset))
	if err != nil {
		return nil, restarted, err
	}
	lines, n, err := splitLines(b)
	if err != nil {
		err = fmt.Errorf("%s: from byte %d: %w", f.path, f.offset, err)
	}
	f.offset += n
	return lines, restarted, err
}

// splitLines returns the complete lines of b that are JSON, and their length with
// those that are not, of which the first is in the error.
func splitLines(b []byte) (lines []json.RawMessage, length int64, err error) {
	for {
		n := bytes.IndexByte(b, '\n')
		if n < 0 {
			return lines, length, err
		}
		if json.Valid(b[:n]) {
			lines = append(lines, json.RawMessage(b[:n:n]))
		} else if err == nil {
			err = fmt.Errorf("%w: %.40q", errNotJSON, b[:n])
		}
		b = b[n+1:]
		length += int64(n) + 1
	}
}

// TruncateAfter prepares a run to continue from a checkpoint that was taken when
// epoch epochs and step steps were done: it removes what came later, since that
// comes again. These are result.json, lines of history.csv, lines of
// metrics.jsonl (those with a "step" beyond step; without one, with an "epoch"
// beyond epoch) and names of checkpoints. If that takes the name "last", it goes
// to the newest checkpoint that stays. A crash in between is repaired by calling
// it again.
func (d *Dir) TruncateAfter(epoch, step int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := os.Remove(filepath.Join(d.path, resultFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.truncateHistory(epoch); err != nil {
		return err
	}
	if err := d.truncateMetrics(epoch, step); err != nil {
		return err
	}
	return d.truncateCheckpoints(step)
}

func (d *Dir) truncateMetrics(epoch, step int) error {
	if d.metrics != nil {
		err := d.metrics.Close()
		d.metrics = nil
		if err != nil {
			return err
		}
	}
	lines, _, err := d.Follow().Poll()
	changed := errors.Is(err, errNotJSON) // a power cut can leave such lines; they must not stop a run
	if err != nil && !changed {
		return err
	}
	var kept bytes.Buffer
	for _, line := range lines {
		if !staysAfter(line, epoch, step) {
			changed = true
			continue
		}
		kept.Write(line)
		kept.WriteByte('\n')
	}
	if !changed {
		return nil
	}
	return d.WriteBytes(metricsFile, kept.Bytes())
}

// staysAfter reports whether a line of metrics.jsonl is of the time up to step,
// or without one up to epoch. One that damage made something else than AppendMetrics
// writes does not stay.
func staysAfter(line []byte, epoch, step int) bool {
	var at *struct{ Step, Epoch *float64 }
	if err := json.Unmarshal(line, &at); err != nil || at == nil {
		return false
	}
	if at.Step != nil {
		return *at.Step <= float64(step)
	}
	return at.Epoch == nil || *at.Epoch <= float64(epoch)
}
