package rundir

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	indexFile = "index.json"      // in checkpoints/: what has which name
	noteFile  = "checkpoint.json" // in each step directory: the same about it, should the index be lost
)

// CheckpointInfo says where a checkpoint lies and what its files must be.
type CheckpointInfo struct {
	Name string `json:"-"`
	// Dir is the directory below checkpoints/.
	Dir       string  `json:"dir"`
	Step      int     `json:"step"`
	Epoch     int     `json:"epoch"`
	HasState  bool    `json:"has_state"`
	Model     FileSum `json:"model"`
	State     FileSum `json:"state,omitzero"`
	ModelPath string  `json:"-"` // of model.safetensors
}

// FileSum is how a load knows a whole file.
type FileSum struct {
	Bytes  int64  `json:"size_bytes"`
	SHA256 string `json:"sha256"` // hexadecimal
}

// summer is a writer that computes the FileSum of what goes through it.
type summer struct {
	hash  hash.Hash
	bytes int64
}

func newSummer() *summer { return &summer{hash: sha256.New()} }

func (s *summer) Write(p []byte) (int, error) {
	s.bytes += int64(len(p))
	return s.hash.Write(p)
}

func (s *summer) sum() FileSum { return FileSum{s.bytes, hex.EncodeToString(s.hash.Sum(nil))} }

// note is the content of checkpoint.json. The directory it lies in counts, not
// that which it says.
type note struct {
	Names []string `json:"names"`
	CheckpointInfo
}

// sealed is JSON with its checksum, so that a changed byte is noticed also where
// the text is JSON still.
type sealed struct {
	Content json.RawMessage `json:"content"`
	SHA256  string          `json:"sha256"` // of the content without white space
}

func seal(v any) (sealed, error) {
	content, err := json.Marshal(v)
	return sealed{content, fmt.Sprintf("%x", sha256.Sum256(content))}, err
}

func unseal(b []byte, v any) error {
	var s sealed
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var content bytes.Buffer
	if err := json.Compact(&content, s.Content); err != nil {
		return errors.New("it has no content")
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(content.Bytes())); got != s.SHA256 {
		return fmt.Errorf("the SHA-256 of its content is %.12s…, want %.12s…", got, s.SHA256)
	}
	return json.Unmarshal(content.Bytes(), v)
}

func (c CheckpointInfo) check() error {
	switch {
	case !strings.HasPrefix(c.Dir, "step-") || c.Dir != plain(c.Dir):
		return fmt.Errorf("it lies in %q, want the name of a directory step-…", c.Dir)
	case c.Step < 0 || c.Epoch < 0:
		return fmt.Errorf("step %d and epoch %d, want none below 0", c.Step, c.Epoch)
	case !c.Model.valid() || c.HasState != c.State.valid():
		return errors.New("its sums are not those of files")
	}
	return nil
}

func (s FileSum) valid() bool {
	b, err := hex.DecodeString(s.SHA256)
	return err == nil && len(b) == sha256.Size && s.Bytes > 0
}

// byStep orders by step, then by name.
func byStep(a, b CheckpointInfo) int {
	return cmp.Or(cmp.Compare(a.Step, b.Step), strings.Compare(a.Name, b.Name), strings.Compare(a.Dir, b.Dir))
}

// namesOf lists the names that the index gives a directory, sorted.
func namesOf(index map[string]CheckpointInfo, dir string) []string {
	var names []string
	for name, info := range index {
		if info.Dir == dir {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// parseIndex reads index.json: checkpoints by name.
func parseIndex(b []byte) (map[string]CheckpointInfo, error) {
	index := map[string]CheckpointInfo{}
	if err := unseal(b, &index); err != nil {
		return nil, err
	}
	if index == nil {
		return nil, errors.New("it names nothing")
	}
	for name, info := range index {
		if name == "" || name != plain(name) {
			return nil, fmt.Errorf("%q is not the name of a checkpoint", name)
		}
		if err := info.check(); err != nil {
			return nil, fmt.Errorf("checkpoint %q: %w", name, err)
		}
		info.Name = name
		index[name] = info
	}
	return index, nil
}

// parseNote reads checkpoint.json.
func parseNote(b []byte) (note, error) {
	var n note
	if err := unseal(b, &n); err != nil {
		return n, err
	}
	for _, name := range n.Names {
		if name == "" || name != plain(name) {
			return n, fmt.Errorf("%q is not the name of a checkpoint", name)
		}
	}
	return n, n.check()
}

// readIndex returns the checkpoints by name, none when nothing was saved yet.
// When index.json is damaged or lost they come from the step directories; rebuilt
// then says what is wrong with it. Nothing is repaired: the next save does that.
func (d *Dir) readIndex() (index map[string]CheckpointInfo, rebuilt, err error) {
	path := d.checkpointPath(indexFile)
	b, err := readSmall(path)
	if err == nil {
		index, err = parseIndex(b)
	}
	if err != nil {
		lost := errors.Is(err, fs.ErrNotExist)
		rebuilt = fmt.Errorf("%s: %w", path, reason(err))
		index, err = d.rebuildIndex()
		if err != nil {
			return nil, nil, fmt.Errorf("%w; %w", rebuilt, err)
		}
		if lost && len(index) == 0 {
			rebuilt = nil
		} else if len(index) == 0 {
			return nil, nil, fmt.Errorf("%w, and no step directory has a %s to rebuild it from", rebuilt, noteFile)
		}
	}
	for name, info := range index {
		info.ModelPath = d.checkpointPath(info.Dir, modelFile)
		index[name] = info
	}
	return index, rebuilt, nil
}

// rebuildIndex makes an index from the notes in the step directories. Of several
// that had a name, the one with the most steps has it now, since training goes
// forward; the second of those that were "last" is "previous". So a name may come
// back that had been dropped while its directory stayed.
func (d *Dir) rebuildIndex() (map[string]CheckpointInfo, error) {
	entries, err := os.ReadDir(d.checkpointPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var notes []note
	var damage error
	for _, e := range entries {
		path := d.checkpointPath(e.Name(), noteFile)
		if !e.IsDir() || !strings.HasPrefix(e.Name(), "step-") {
			continue
		}
		b, err := readSmall(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a save that did not end
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, reason(err))
		}
		n, err := parseNote(b)
		if err != nil {
			damage = fmt.Errorf("%s: %w", path, err)
			continue
		}
		n.Dir = e.Name()
		if n.check() == nil {
			notes = append(notes, n)
		}
	}
	index := map[string]CheckpointInfo{}
	if len(notes) == 0 {
		return index, damage
	}
	slices.SortFunc(notes, func(a, b note) int { return byStep(a.CheckpointInfo, b.CheckpointInfo) })
	for _, n := range notes {
		last, hadLast := index[lastName]
		for _, name := range n.Names {
			n.Name = name
			index[name] = n.CheckpointInfo
		}
		if hadLast && slices.Contains(n.Names, lastName) {
			last.Name = previousName
			index[previousName] = last
		}
	}
	return index, nil
}

func (d *Dir) writeIndex(index map[string]CheckpointInfo) error {
	s, err := seal(index)
	if err != nil {
		return err
	}
	return d.writeJSON(filepath.Join(checkpoints, indexFile), s)
}

func (d *Dir) writeNote(info CheckpointInfo, names ...string) error {
	// "previous" is what follows from the others, see rebuildIndex.
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == previousName })
	s, err := seal(note{names, info})
	if err != nil {
		return err
	}
	return d.writeJSON(filepath.Join(checkpoints, info.Dir, noteFile), s)
}
