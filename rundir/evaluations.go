package rundir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/residual-ml/residual/internal/atomicfile"
)

const (
	evaluations = "evaluations"
	ledgerFile  = "ledger.jsonl"
)

// WriteEvaluation writes evaluations/<name>.json; any process may do that.
func (d *Dir) WriteEvaluation(name string, v any) error {
	if err := d.makeEvaluations(name); err != nil {
		return err
	}
	return d.writeJSON(filepath.Join(evaluations, name+".json"), v)
}

// WriteEvaluationFile writes evaluations/<name>/<file>, a figure or table that
// belongs to that evaluation.
func (d *Dir) WriteEvaluationFile(name, file string, write func(io.Writer) error) error {
	if !isPlain(file) {
		return fmt.Errorf("%s: file %q of an evaluation: want a name of letters, digits, dots and dashes", d.path, file)
	}
	if err := d.makeEvaluations(name, name); err != nil {
		return err
	}
	return d.WriteFile(filepath.Join(evaluations, name, file), write)
}

// makeEvaluations checks the name and makes evaluations/ with the directories
// below it.
func (d *Dir) makeEvaluations(name string, below ...string) error {
	if !isPlain(name) {
		return fmt.Errorf("%s: evaluation %q: want a name of letters, digits, dots and dashes", d.path, name)
	}
	return os.MkdirAll(filepath.Join(append([]string{d.path, evaluations}, below...)...), 0o777)
}

// isPlain reports whether s can be the name of a file: not hidden, and in no other place.
func isPlain(s string) bool { return s != "" && s == plain(s) && s[0] != '.' }

// EvaluationName makes a name for WriteEvaluation of parts, such as a data set and
// a split; empty ones are left out.
func EvaluationName(parts ...string) string {
	var name []string
	for _, p := range parts {
		if p = plain(p); p != "" {
			name = append(name, p)
		}
	}
	return plain(strings.TrimLeft(strings.Join(name, "-"), "."))
}

// EvaluationPath is where WriteEvaluationFile puts the files of that name.
func (d *Dir) EvaluationPath(name string) string { return filepath.Join(d.path, evaluations, name) }

// ReadEvaluation fills v from evaluations/<name>.json; when there is none the error
// is fs.ErrNotExist.
func (d *Dir) ReadEvaluation(name string, v any) error {
	return d.readJSON(filepath.Join(evaluations, name+".json"), v)
}

// Evaluations lists the names that ReadEvaluation takes, sorted.
func (d *Dir) Evaluations() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.path, evaluations))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && !atomicfile.IsTemp(e.Name()) {
			names = append(names, name)
		}
	}
	return names, nil
}

// AppendLedger adds v, which must encode as a JSON object, as a line to
// evaluations/ledger.jsonl: the record of every look at a test split. Lines are only
// ever added, by any process.
func (d *Dir) AppendLedger(v any) error {
	path := filepath.Join(d.path, evaluations, ledgerFile)
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if line[0] != '{' {
		return fmt.Errorf("%s: %.20s is no JSON object", path, line)
	}
	if err := d.makeEvaluations(ledgerFile); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	var last [1]byte // after a crash a line may have no end; it keeps what it has
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		if _, err := f.ReadAt(last[:], info.Size()-1); err == nil && last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	_, err = f.Write(append(line, '\n')) // one call, so that lines of several processes stay whole
	return errors.Join(err, f.Sync(), f.Close())
}

// Ledger returns the lines of AppendLedger, those that are no JSON left out; without
// a ledger there are none.
func (d *Dir) Ledger() ([]json.RawMessage, error) {
	b, err := readSmall(filepath.Join(d.path, evaluations, ledgerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines, _, _ := splitLines(b) // what a crash left of a line is no look
	return lines, nil
}
