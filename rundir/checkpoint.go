package rundir

import (
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
	modelFile   = "model.safetensors"
	stateFile   = "state.safetensors"

	// lastName is the checkpoint to continue from, previousName the one that had
	// that name before: should the last be damaged, the work of one save is lost.
	lastName     = "last"
	previousName = "previous"

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

	// Fallback is set by a load that found damage: a sentence for the user that
	// names the damaged file, what is wrong with it, and the step used instead.
	Fallback string
}

// Checkpoints lists the checkpoints, sorted by step, then by name. Whether their
// files are whole shows when one is loaded.
func (d *Dir) Checkpoints() ([]CheckpointInfo, error) {
	index, _, err := d.readIndex()
	if err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(index), byStep), nil
}

func (d *Dir) checkpointPath(parts ...string) string {
	return filepath.Join(append([]string{d.path, checkpoints}, parts...)...)
}

// SaveCheckpoint saves c under a name such as "last", "best" or "epoch-0003",
// instead of what had the name before. What was "last" becomes "previous", a name
// that cannot be given otherwise: from the second save on there are at every
// moment two checkpoints that load.
//
// The files are written and flushed in a directory of their own; then the index,
// which gives the names, is replaced. So a crash at any point leaves the name
// with the old checkpoint or the new one, complete. After an error the
// checkpoints are as before and a later save works; that of a full disk wraps
// syscall.ENOSPC. Directories without a name are removed.
func (d *Dir) SaveCheckpoint(name string, c Checkpoint) error {
	if err := d.saveCheckpoint(name, c); err != nil {
		return fmt.Errorf("checkpoint %q of step %d: %w", name, c.Step, err)
	}
	return nil
}

func (d *Dir) saveCheckpoint(name string, c Checkpoint) error {
	if err := checkName(name); err != nil {
		return err
	}
	if c.Step < 0 || c.Epoch < 0 {
		return fmt.Errorf("step %d and epoch %d, want none below 0", c.Step, c.Epoch)
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
	index, _, err := d.readIndex()
	if err != nil {
		return err
	}
	d.prune(index) // first what a crash left, to have its room and its name
	if d.metrics != nil {
		if err := d.metrics.Sync(); err != nil { // a resumed run repeats from here, so the lines up to here must last
			return err
		}
	}

	dir, err := d.newStepDir(c)
	if err != nil {
		return err
	}
	info := CheckpointInfo{Name: name, Dir: dir, Step: c.Step, Epoch: c.Epoch, HasState: c.State != nil}
	info.Model, err = d.writeTensors(filepath.Join(checkpoints, dir, modelFile), c.Weights, metadata)
	if err == nil && info.HasState {
		info.State, err = d.writeTensors(filepath.Join(checkpoints, dir, stateFile), c.State, place)
	}
	if err == nil {
		err = d.writeNote(info, name)
	}
	if err == nil {
		err = atomicfile.SyncDir(d.checkpointPath())
	}
	after := maps.Clone(index)
	if err == nil {
		d.setName(after, name, info)
		err = d.writeIndex(after)
	}
	if err != nil {
		// The index on the disk is one of the two, and after a power cut may be the
		// other one: what either names stays.
		if now, _, rerr := d.readIndex(); rerr == nil {
			d.prune(index, now)
		}
		return err
	}
	d.prune(after)
	return nil
}

// writeTensors writes one file of a checkpoint and computes its sum on the way.
func (d *Dir) writeTensors(name string, tensors []safetensors.Named, metadata map[string]string) (FileSum, error) {
	s := newSummer()
	err := d.WriteFile(name, func(w io.Writer) error {
		return safetensors.Write(io.MultiWriter(w, s), tensors, metadata)
	})
	return s.sum(), err
}

// newStepDir makes checkpoints/step-<step>, or with -2, -3 … when a checkpoint
// of that step exists, which must stay until the index names the new one.
func (d *Dir) newStepDir(c Checkpoint) (string, error) {
	if err := d.at("mkdir"); err != nil {
		return "", err
	}
	if err := atomicfile.MkdirAll(d.checkpointPath()); err != nil {
		return "", err
	}
	need := int64(1 << 16) // headers, index
	for _, n := range slices.Concat(c.Weights, c.State) {
		switch {
		case n.Later != nil:
			need += int64(n.Later.Shape.Elements()) * int64(n.Later.DType.Size())
		case n.Tensor.Valid(): // otherwise Write says what is wrong
			need += int64(n.Tensor.Len()) * int64(n.Tensor.DType().Size())
		}
	}
	if err := atomicfile.CheckSpace(d.checkpointPath(), need+need/10); err != nil {
		return "", hint.Wrap(err, "free some space there; the checkpoints saved before are as they were")
	}
	name := fmt.Sprintf("step-%08d", c.Step)
	for n := 2; ; n++ {
		err := os.Mkdir(d.checkpointPath(name), 0o777)
		if !errors.Is(err, fs.ErrExist) {
			return name, err
		}
		name = fmt.Sprintf("step-%08d-%d", c.Step, n)
	}
}

// prune removes the step directories that no index names. What cannot be removed
// harms nobody and is tried again with the next checkpoint.
func (d *Dir) prune(indexes ...map[string]CheckpointInfo) {
	named := map[string]bool{}
	for _, index := range indexes {
		for _, info := range index {
			named[info.Dir] = true
		}
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

// setName gives info a name in the index. The former last becomes the previous
// one, unless it is known to be damaged: then the older one is worth more.
func (d *Dir) setName(index map[string]CheckpointInfo, name string, info CheckpointInfo) {
	last, ok := index[lastName]
	if name == lastName && ok && last.Dir != info.Dir && !d.damaged[last.Dir] && d.sizesFit(last) {
		index[previousName] = last
	}
	index[name] = info
}

// checkName refuses names that would need quoting, and the one that is not given
// from outside.
func checkName(name string) error {
	if name == "" || name != plain(name) {
		return errors.New("want a name of letters, digits, dots and dashes")
	}
	if name == previousName {
		return errors.New("what was last before gets this name by itself")
	}
	return nil
}

// NameCheckpoint gives the checkpoint called name another name too, such as
// "best" to "last", without writing its weights again.
func (d *Dir) NameCheckpoint(name, also string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	index, _, err := d.readIndex()
	if err != nil {
		return err
	}
	info, ok := index[name]
	if !ok {
		return d.noCheckpoint(name, index)
	}
	if err := checkName(also); err != nil {
		return fmt.Errorf("checkpoint %q: %w", also, err)
	}
	d.setName(index, also, info)
	if err := d.writeNote(info, namesOf(index, info.Dir)...); err != nil {
		return fmt.Errorf("checkpoint %q: %w", also, err)
	}
	if err := d.writeIndex(index); err != nil {
		return fmt.Errorf("checkpoint %q: %w", also, err)
	}
	d.prune(index)
	return nil
}

// Drop takes a name away. The checkpoint goes when it has no other.
func (d *Dir) Drop(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	index, _, err := d.readIndex()
	if err != nil {
		return err
	}
	if _, ok := index[name]; !ok {
		return d.noCheckpoint(name, index)
	}
	delete(index, name)
	if err := d.writeIndex(index); err != nil {
		return fmt.Errorf("dropping checkpoint %q: %w", name, err)
	}
	d.prune(index)
	return nil
}

// Keep keeps the n newest checkpoints of epochs, those with a name such as
// "epoch-0003", and drops that name from older ones. Other names stay, so "last",
// "previous" and "best" are kept beside them.
func (d *Dir) Keep(n int) error {
	if n < 0 {
		return fmt.Errorf("keeping %d checkpoints, want none or more", n)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	index, _, err := d.readIndex()
	if err != nil {
		return err
	}
	var epochs []CheckpointInfo
	for name, info := range index {
		number, ok := strings.CutPrefix(name, "epoch-")
		if _, err := strconv.ParseUint(number, 10, 64); ok && err == nil {
			epochs = append(epochs, info)
		}
	}
	if len(epochs) <= n {
		return nil
	}
	slices.SortFunc(epochs, byStep)
	for _, info := range epochs[:len(epochs)-n] {
		delete(index, info.Name)
	}
	if err := d.writeIndex(index); err != nil {
		return fmt.Errorf("dropping checkpoints of old epochs: %w", err)
	}
	d.prune(index)
	return nil
}

// truncateCheckpoints takes the names from checkpoints beyond step, and from
// those that a load has found damaged. "last" and "previous" go to the newest two
// that stay.
func (d *Dir) truncateCheckpoints(step int) error {
	index, rebuilt, err := d.readIndex()
	if err != nil {
		return err
	}
	_, hadLast := index[lastName]
	before := len(index)
	maps.DeleteFunc(index, func(_ string, info CheckpointInfo) bool { return info.Step > step || d.damaged[info.Dir] })
	if len(index) == before && rebuilt == nil {
		return nil
	}
	if hadLast && len(index) > 0 {
		newest := slices.SortedFunc(maps.Values(index), byStep)
		slices.Reverse(newest)
		last, ok := index[lastName]
		if !ok {
			last = newest[0]
			index[lastName] = last
			if err := d.writeNote(last, namesOf(index, last.Dir)...); err != nil {
				return err
			}
		}
		if previous, ok := index[previousName]; !ok || previous.Dir == last.Dir {
			delete(index, previousName)
			if i := slices.IndexFunc(newest, func(c CheckpointInfo) bool { return c.Dir != last.Dir }); i >= 0 {
				index[previousName] = newest[i]
			}
		}
	}
	if err := d.writeIndex(index); err != nil {
		return err
	}
	d.prune(index)
	return nil
}
