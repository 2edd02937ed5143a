package rundir

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/internal/hint"
)

// LoadCheckpoint reads the checkpoint of that name, complete, and compares its
// files with the sums in the index. Of a damaged "last" it takes "previous", or
// the newest other one that is whole, and says so in Fallback; of any other name
// damage is an error.
func (d *Dir) LoadCheckpoint(name string) (Checkpoint, error) { return d.load(name, true) }

// LoadWeights is LoadCheckpoint without State: all that a prediction needs.
func (d *Dir) LoadWeights(name string) (Checkpoint, error) { return d.load(name, false) }

func (d *Dir) load(name string, state bool) (Checkpoint, error) {
	for {
		index, rebuilt, err := d.readIndex()
		if err != nil {
			return Checkpoint{}, hint.Wrap(err, "nothing here says what is whole; to train again without it, move "+d.checkpointPath()+" away")
		}
		info, ok := index[name]
		if !ok {
			return Checkpoint{}, d.noCheckpoint(name, index)
		}
		c, err := d.loadDir(info, state)
		if err != nil {
			if now, _, rerr := d.readIndex(); rerr == nil && now[name] != info {
				continue // a run in progress replaced and removed it meanwhile
			}
			return d.fallBack(index, info, state, errors.Join(rebuilt, err))
		}
		if rebuilt != nil {
			c.Fallback = fmt.Sprintf("%v; the step directories say that %q is of step %d", rebuilt, name, c.Step)
		}
		return c, nil
	}
}

// fallBack loads what is used instead of the checkpoint bad, in which damage was
// found.
func (d *Dir) fallBack(index map[string]CheckpointInfo, bad CheckpointInfo, state bool, damage error) (Checkpoint, error) {
	d.setDamaged(bad)
	tried := map[string]bool{bad.Dir: true}
	others := slices.SortedFunc(maps.Values(index), byStep)
	slices.Reverse(others)
	if previous, ok := index[previousName]; ok {
		others = append([]CheckpointInfo{previous}, others...)
	}
	if bad.Name != lastName {
		err := fmt.Errorf("checkpoint %q of step %d: %w", bad.Name, bad.Step, oneLine(damage))
		return Checkpoint{}, hint.Wrap(err, "there are: "+strings.Join(slices.Sorted(maps.Keys(index)), ", "))
	}
	for _, info := range others {
		if tried[info.Dir] || state && bad.HasState && !info.HasState {
			continue // without state training cannot continue
		}
		tried[info.Dir] = true
		c, err := d.loadDir(info, state)
		if err != nil {
			d.setDamaged(info)
			damage = errors.Join(damage, err)
			continue
		}
		c.Fallback = fmt.Sprintf("checkpoint %q of step %d is damaged: %v; using %q of step %d instead",
			bad.Name, bad.Step, oneLine(damage), info.Name, info.Step)
		return c, nil
	}
	err := fmt.Errorf("run directory %s: no checkpoint is whole: %w", d.path, oneLine(damage))
	return Checkpoint{}, hint.Wrap(err, "bring the files back from a copy, or train again: residual train")
}

func (d *Dir) setDamaged(info CheckpointInfo) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.damaged == nil {
		d.damaged = map[string]bool{}
	}
	d.damaged[info.Dir] = true
}

// oneLine is err with the texts that errors.Join sets below each other side by
// side.
func oneLine(err error) error { return line{err} }

type line struct{ error }

func (l line) Error() string { return strings.ReplaceAll(l.error.Error(), "\n", "; ") }
func (l line) Unwrap() error { return l.error }

func (d *Dir) noCheckpoint(name string, index map[string]CheckpointInfo) error {
	if len(index) == 0 {
		return hint.Wrap(fmt.Errorf("run directory %s: no checkpoint %q: nothing was saved yet", d.path, name),
			"the first checkpoint is saved after the first epoch")
	}
	return fmt.Errorf("run directory %s: no checkpoint %q, there are: %s",
		d.path, name, strings.Join(slices.Sorted(maps.Keys(index)), ", "))
}

func (d *Dir) loadDir(info CheckpointInfo, state bool) (Checkpoint, error) {
	c := Checkpoint{Step: info.Step, Epoch: info.Epoch, Metadata: map[string]string{}}
	model, err := d.readWhole(info, modelFile, info.Model)
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
		file, err := d.readWhole(info, stateFile, info.State)
		if err != nil {
			return c, err
		}
		c.State = file.Tensors()
	}
	return c, nil
}

// readWhole reads a file of a checkpoint and compares it with its sum on the way.
func (d *Dir) readWhole(info CheckpointInfo, name string, want FileSum) (*safetensors.File, error) {
	path := d.checkpointPath(info.Dir, name)
	if err := sizeFits(path, want); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, reason(err))
	}
	defer f.Close()
	s := newSummer()
	file, err := safetensors.ReadFrom(io.TeeReader(io.LimitReader(f, want.Bytes), s), want.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, reason(err))
	}
	if got := s.sum(); got != want {
		return nil, fmt.Errorf("%s: its SHA-256 is %.12s…, want %.12s…", path, got.SHA256, want.SHA256)
	}
	for key, want := range map[string]int{stepKey: info.Step, epochKey: info.Epoch} {
		if got := file.Metadata[key]; got != strconv.Itoa(want) {
			return nil, fmt.Errorf("%s: %s is %q, the index says %d", path, key, got, want)
		}
	}
	return file, nil
}

// sizeFits finds what can be found without reading.
func sizeFits(path string, want FileSum) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, reason(err))
	}
	if !info.Mode().IsRegular() || info.Size() != want.Bytes {
		return fmt.Errorf("%s: %d bytes, want a file of %d", path, info.Size(), want.Bytes)
	}
	return nil
}

// sizesFit reports whether the files of a checkpoint are there, as long as they
// should be.
func (d *Dir) sizesFit(info CheckpointInfo) bool {
	return sizeFits(d.checkpointPath(info.Dir, modelFile), info.Model) == nil &&
		(!info.HasState || sizeFits(d.checkpointPath(info.Dir, stateFile), info.State) == nil)
}
