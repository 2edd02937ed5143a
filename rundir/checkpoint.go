package rundir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
)

const (
	checkpoints = "checkpoints"
	indexFile   = "index.json"
	modelFile   = "model.safetensors"
	stateFile   = "state.safetensors"

	// Keys in the metadata of both files, so that each says by itself where it
	// belongs.
	stepKey  = "residual.step"
	epochKey = "residual.epoch"
)

// Checkpoint is a model in training.
type Checkpoint struct {
	Step  int // steps done
	Epoch int // whole epochs done

	Weights []safetensors.Named // parameters and moving statistics: what a prediction needs
	State   []safetensors.Named // the rest of what training needs; nil when it is not kept

	// Metadata is written with the weights, so that model.safetensors alone can be
	// used: names of the classes, preprocessing. Keys starting with "residual." are
	// taken.
	Metadata map[string]string
}

// CheckpointInfo says where a checkpoint lies.
type CheckpointInfo struct {
	Name string `json:"-"`
	// Dir is the directory below checkpoints/.
	Dir       string `json:"dir"`
	Step      int    `json:"step"`
	Epoch     int    `json:"epoch"`
	HasState  bool   `json:"has_state"`
	ModelPath string `json:"-"` // of model.safetensors
}

// Checkpoints lists the checkpoints, sorted by step, then by name.
func (d *Dir) Checkpoints() ([]CheckpointInfo, error) {
	index, err := d.readIndex()
	if err != nil {
		return nil, err
	}
	all := slices.Collect(maps.Values(index))
	slices.SortFunc(all, func(a, b CheckpointInfo) int {
		if a.Step != b.Step {
			return a.Step - b.Step
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all, nil
}

func (d *Dir) checkpointPath(parts ...string) string {
	return filepath.Join(append([]string{d.path, checkpoints}, parts...)...)
}

// readIndex returns the checkpoints by name, none when there is no index yet.
func (d *Dir) readIndex() (map[string]CheckpointInfo, error) {
	path := d.checkpointPath(indexFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]CheckpointInfo{}, nil
	}
	if err != nil {
		return nil, err
	}
	var index map[string]CheckpointInfo
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for name, info := range index {
		if info.Dir == "" || info.Dir != filepath.Base(info.Dir) || info.Dir == ".." || info.Dir == "." {
			return nil, fmt.Errorf("%s: checkpoint %q lies in %q, want the name of a directory", path, name, info.Dir)
		}
		info.Name = name
		info.ModelPath = d.checkpointPath(info.Dir, modelFile)
		index[name] = info
	}
	return index, nil
}

func (d *Dir) writeIndex(index map[string]CheckpointInfo) error {
	return d.writeJSON(filepath.Join(checkpoints, indexFile), index)
}

// SaveCheckpoint saves c under a name such as "last", "best" or "epoch-0003",
// instead of what had the name before.
//
// The files are written and flushed in a directory of their own; then the index,
// which gives the names, is replaced. So a crash at any point leaves the name
// with the old checkpoint or the new one, complete. Directories without a name
// are removed.
func (d *Dir) SaveCheckpoint(name string, c Checkpoint) error {
	if err := d.saveCheckpoint(name, c); err != nil {
		return fmt.Errorf("checkpoint %q of step %d: %w", name, c.Step, err)
	}
	return nil
}

func (d *Dir) saveCheckpoint(name string, c Checkpoint) error {
	if name == "" || name != plain(name) {
		return errors.New("want a name of letters, digits, dots and dashes")
	}
	metadata := maps.Clone(c.Metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	for key := range metadata {
		if strings.HasPrefix(key, "residual.") {
			return fmt.Errorf("metadata key %q is taken", key)
		}
	}
	place := map[string]string{stepKey: strconv.Itoa(c.Step), epochKey: strconv.Itoa(c.Epoch)}
	maps.Copy(metadata, place)

	d.mu.Lock()
	defer d.mu.Unlock()
	index, err := d.readIndex()
	if err != nil {
		return err
	}
	d.prune(index) // first what a crash left, to have its room and its name
	if d.metrics != nil {
		if err := d.metrics.Sync(); err != nil { // a resumed run repeats from here, so the lines up to here must last
			return err
		}
	}

	dir, err := d.newStepDir(c.Step)
	if err != nil {
		return err
	}
	info := CheckpointInfo{Dir: dir, Step: c.Step, Epoch: c.Epoch, HasState: c.State != nil}
	err = d.WriteFile(filepath.Join(checkpoints, dir, modelFile), func(w io.Writer) error {
		return safetensors.Write(w, c.Weights, metadata)
	})
	if err == nil && info.HasState {
		err = d.WriteFile(filepath.Join(checkpoints, dir, stateFile), func(w io.Writer) error {
			return safetensors.Write(w, c.State, place)
		})
	}
	if err == nil {
		err = atomicfile.SyncDir(d.checkpointPath())
	}
	if err == nil {
		index[name] = info
		err = d.writeIndex(index)
	}
	if err != nil {
		if index, rerr := d.readIndex(); rerr == nil {
			d.prune(index)
		}
		return err
	}
	d.prune(index)
	return nil
}

// newStepDir makes checkpoints/step-<step>, or with -2, -3 … when a checkpoint
// of that step exists, which must stay until the index names the new one.
func (d *Dir) newStepDir(step int) (string, error) {
	if err := d.at("mkdir"); err != nil {
		return "", err
	}
	if err := os.MkdirAll(d.checkpointPath(), 0o777); err != nil {
		return "", err
	}
	name := fmt.Sprintf("step-%08d", step)
	for n := 2; ; n++ {
		err := os.Mkdir(d.checkpointPath(name), 0o777)
		if !errors.Is(err, fs.ErrExist) {
			return name, err
		}
		name = fmt.Sprintf("step-%08d-%d", step, n)
	}
}

// prune removes the step directories that the index does not name. What cannot
// be removed harms nobody and is tried again with the next checkpoint.
func (d *Dir) prune(index map[string]CheckpointInfo) {
	named := map[string]bool{}
	for _, info := range index {
		named[info.Dir] = true
	}
	entries, _ := os.ReadDir(d.checkpointPath())
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "step-") && !named[e.Name()] {
			if d.at("remove "+e.Name()) == nil {
				os.RemoveAll(d.checkpointPath(e.Name()))
			}
		}
	}
}

// NameCheckpoint gives the checkpoint called name another name too, such as
// "best" to "last", without writing its weights again.
func (d *Dir) NameCheckpoint(name, also string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	index, err := d.readIndex()
	if err != nil {
		return err
	}
	info, ok := index[name]
	if !ok {
		return d.noCheckpoint(name, index)
	}
	if also == "" || also != plain(also) {
		return fmt.Errorf("checkpoint %q: want a name of letters, digits, dots and dashes", also)
	}
	index[also] = info
	if err := d.writeIndex(index); err != nil {
		return fmt.Errorf("checkpoint %q: %w", also, err)
	}
	d.prune(index)
	return nil
}

func (d *Dir) noCheckpoint(name string, index map[string]CheckpointInfo) error {
	if len(index) == 0 {
		return hint.Wrap(fmt.Errorf("run directory %s: no checkpoint %q: nothing was saved yet", d.path, name),
			"the first checkpoint is saved after the first epoch")
	}
	return fmt.Errorf("run directory %s: no checkpoint %q, there are: %s",
		d.path, name, strings.Join(slices.Sorted(maps.Keys(index)), ", "))
}

// LoadCheckpoint reads the checkpoint of that name, complete.
func (d *Dir) LoadCheckpoint(name string) (Checkpoint, error) { return d.load(name, true) }

// LoadWeights is LoadCheckpoint without State: all that a prediction needs.
func (d *Dir) LoadWeights(name string) (Checkpoint, error) { return d.load(name, false) }

func (d *Dir) load(name string, state bool) (Checkpoint, error) {
	for tries := 1; ; tries++ {
		index, err := d.readIndex()
		if err != nil {
			return Checkpoint{}, err
		}
		info, ok := index[name]
		if !ok {
			return Checkpoint{}, d.noCheckpoint(name, index)
		}
		c, err := d.loadDir(info, state)
		if errors.Is(err, fs.ErrNotExist) && tries < 5 {
			continue // a run in progress replaced and removed it; the index names the new one
		}
		if err != nil {
			return Checkpoint{}, fmt.Errorf("checkpoint %q: %w", name, err)
		}
		return c, nil
	}
}

func (d *Dir) loadDir(info CheckpointInfo, state bool) (Checkpoint, error) {
	c := Checkpoint{Step: info.Step, Epoch: info.Epoch, Metadata: map[string]string{}}
	model, err := readPlaced(info.ModelPath, info)
	if err != nil {
		return c, err
	}
	c.Weights = model.Tensors()
	for key, value := range model.Metadata {
		if !strings.HasPrefix(key, "residual.") {
			c.Metadata[key] = value
		}
	}
	if state && info.HasState {
		file, err := readPlaced(d.checkpointPath(info.Dir, stateFile), info)
		if err != nil {
			return c, err
		}
		c.State = file.Tensors()
	}
	return c, nil
}

// readPlaced reads a file and checks that it is of the step that the index says.
func readPlaced(path string, info CheckpointInfo) (*safetensors.File, error) {
	f, err := safetensors.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if got, want := f.Metadata[stepKey], strconv.Itoa(info.Step); got != want {
		return nil, fmt.Errorf("%s: %s is %q, the index says %s", path, stepKey, got, want)
	}
	return f, nil
}

// truncateCheckpoints takes the names from checkpoints beyond step.
func (d *Dir) truncateCheckpoints(step int) error {
	index, err := d.readIndex()
	if err != nil {
		return err
	}
	_, hadLast := index["last"]
	before := len(index)
	var newest *CheckpointInfo
	for name, info := range index {
		if info.Step > step {
			delete(index, name)
		} else if newest == nil || info.Step > newest.Step {
			newest = &info
		}
	}
	if len(index) == before {
		return nil
	}
	if _, has := index["last"]; hadLast && !has && newest != nil {
		index["last"] = *newest
	}
	if err := d.writeIndex(index); err != nil {
		return err
	}
	d.prune(index)
	return nil
}
