package rundir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/tensor"
)

// checkpoint returns one that is recognised by its step.
func checkpoint(step int) Checkpoint {
	return checkpointOf(step, 20_000) // more than a buffer, so that it is written in pieces
}

func checkpointOf(step, size int) Checkpoint {
	weights := make([]float32, size)
	for i := range weights {
		weights[i] = float32(step*i) + 0.5
	}
	return Checkpoint{
		Step: step, Epoch: step / 10,
		Weights:  []safetensors.Named{{Name: "conv1.weight", Tensor: tensor.Of(weights, 20, size/20)}},
		State:    []safetensors.Named{{Name: "adam.m", Tensor: tensor.Of([]float32{float32(step)}, 1)}, {Name: "rng", Tensor: tensor.Of([]int64{int64(step)})}},
		Metadata: map[string]string{"classes": `["a","b"]`},
	}
}

// same compares as files would: a nil and an empty shape are one.
func same(t *testing.T, a, b Checkpoint) bool {
	t.Helper()
	text := func(c Checkpoint) string {
		var s strings.Builder
		for _, part := range [][]safetensors.Named{c.Weights, c.State} {
			if err := safetensors.Write(&s, part, c.Metadata); err != nil {
				t.Fatal(err)
			}
		}
		return fmt.Sprint(c.Step, c.Epoch, c.State == nil, s.String())
	}
	return text(a) == text(b)
}

// wantCheckpoint loads name and compares all of it with checkpoint(step).
func wantCheckpoint(t *testing.T, d *Dir, name string, step int) {
	t.Helper()
	got, err := d.LoadCheckpoint(name)
	if err != nil {
		t.Errorf("%v", err)
	} else if !same(t, got, checkpoint(step)) {
		t.Errorf("checkpoint %q is of step %d and differs from that saved at step %d", name, got.Step, step)
	}
}

// stepDirs lists what is in checkpoints/ beside the index.
func stepDirs(t *testing.T, d *Dir) []string {
	t.Helper()
	entries, err := os.ReadDir(d.checkpointPath())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != indexFile {
			names = append(names, e.Name())
		}
	}
	return names
}

func save(t *testing.T, d *Dir, name string, step int) {
	t.Helper()
	if err := d.SaveCheckpoint(name, checkpoint(step)); err != nil {
		t.Fatal(err)
	}
}

func TestCheckpoints(t *testing.T) {
	d := newRun(t)
	if _, err := d.LoadCheckpoint("last"); err == nil || !strings.Contains(err.Error(), "nothing was saved yet") {
		t.Errorf("before the first: error %v", err)
	}
	save(t, d, "last", 10)
	if err := d.NameCheckpoint("last", "best"); err != nil {
		t.Fatal(err)
	}
	save(t, d, "last", 20)
	save(t, d, "epoch-0003", 30)
	save(t, d, "last", 30) // a second of that step
	wantCheckpoint(t, d, "best", 10)
	wantCheckpoint(t, d, "epoch-0003", 30)
	wantCheckpoint(t, d, "last", 30)
	wantCheckpoint(t, d, "previous", 20)
	if got, want := stepDirs(t, d), []string{"step-00000010", "step-00000020", "step-00000030", "step-00000030-2"}; !slices.Equal(got, want) {
		t.Errorf("directories %q, want %q", got, want)
	}
	all, err := d.Checkpoints()
	var names []string
	for _, c := range all {
		names = append(names, fmt.Sprint(c.Name, "@", c.Step, "/", c.Epoch))
		if _, err := os.Stat(c.ModelPath); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"best@10/1", "previous@20/2", "epoch-0003@30/3", "last@30/3"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("checkpoints %q, error %v, want %q", names, err, want)
	}

	if c, err := d.LoadWeights("best"); err != nil || c.State != nil || len(c.Weights) != 1 || c.Metadata["classes"] == "" {
		t.Errorf("weights alone: %d tensors, %d of state, error %v", len(c.Weights), len(c.State), err)
	}
	if _, err := d.LoadCheckpoint("worst"); err == nil || !strings.Contains(err.Error(), "there are: best, epoch-0003, last, previous") {
		t.Errorf("unknown name: error %v", err)
	}
	if err := d.NameCheckpoint("worst", "best"); err == nil {
		t.Error("named a checkpoint that is not there")
	}

	// An imported model has no state.
	imported := checkpoint(40)
	imported.State = nil
	if err := d.SaveCheckpoint("imported", imported); err != nil {
		t.Fatal(err)
	}
	if got, err := d.LoadCheckpoint("imported"); err != nil || !same(t, got, imported) {
		t.Errorf("without state: %d tensors of state, error %v", len(got.State), err)
	}
}

func TestCheckpointRefusals(t *testing.T) {
	d := newRun(t)
	save(t, d, "last", 10)
	for _, name := range []string{"", "a/b", "a b", "previous"} {
		if err := d.SaveCheckpoint(name, checkpoint(1)); err == nil {
			t.Errorf("name %q was accepted", name)
		}
		if err := d.NameCheckpoint("last", name); err == nil {
			t.Errorf("name %q was given", name)
		}
	}
	taken := checkpoint(20)
	taken.Metadata["residual.step"] = "3"
	if err := d.SaveCheckpoint("last", taken); err == nil {
		t.Error("a taken metadata key was accepted")
	}
	twice := checkpoint(20)
	twice.Weights = append(twice.Weights, twice.Weights[0])
	if err := d.SaveCheckpoint("last", twice); err == nil || !strings.Contains(err.Error(), `checkpoint "last" of step 20`) {
		t.Errorf("a tensor twice: error %v", err)
	}
	wantCheckpoint(t, d, "last", 10)
	if got := stepDirs(t, d); len(got) != 1 {
		t.Errorf("after refusals: %q", got)
	}
}

// Each story is a sequence of saves; the last one is struck at every point at
// which it touches the disk.
var stories = []struct {
	name   string
	before func(t *testing.T, d *Dir)
	step   int // saved as "last" in the end
	last   int // "last" before that, 0 for none
	best   int // "best" before and after, 0 for none
}{
	{"the first", func(*testing.T, *Dir) {}, 10, 0, 0},
	{"the second", func(t *testing.T, d *Dir) { save(t, d, "last", 10) }, 20, 10, 0},
	{"the same step", func(t *testing.T, d *Dir) { save(t, d, "last", 20) }, 20, 20, 0},
	{"the third", func(t *testing.T, d *Dir) { save(t, d, "last", 10); save(t, d, "last", 20) }, 30, 20, 0},
	{"beside the best", func(t *testing.T, d *Dir) {
		save(t, d, "last", 10)
		if err := d.NameCheckpoint("last", "best"); err != nil {
			t.Fatal(err)
		}
		save(t, d, "last", 20)
	}, 30, 20, 10},
	{"over rubbish", func(t *testing.T, d *Dir) {
		save(t, d, "last", 10)
		if err := os.Mkdir(d.checkpointPath("step-00000020"), 0o777); err != nil {
			t.Fatal(err)
		}
		write(t, d.checkpointPath("step-00000020", modelFile), "half")
	}, 20, 10, 0},
}

// wantWhole checks that "last" is the checkpoint before or after the save, it
// reports which, "best" untouched, and every other name one that loads.
func wantWhole(t *testing.T, d *Dir, last, step, best int) (saved bool) {
	t.Helper()
	c, err := d.LoadCheckpoint("last")
	switch {
	case err != nil && last == 0 && strings.Contains(err.Error(), "nothing was saved yet"):
	case err != nil:
		t.Errorf("%v", err)
	case c.Step != last && c.Step != step:
		t.Errorf("last is of step %d, want %d or %d", c.Step, last, step)
	default:
		wantCheckpoint(t, d, "last", c.Step)
		saved = c.Step == step
	}
	if best != 0 {
		wantCheckpoint(t, d, "best", best)
	}
	if c.Fallback != "" && last != 0 {
		t.Errorf("a failing save did damage: %s", c.Fallback)
	}
	all, err := d.Checkpoints()
	if err != nil {
		t.Error(err)
	}
	for _, info := range all {
		wantCheckpoint(t, d, info.Name, info.Step)
	}
	return saved
}

// wantTidy checks all names after a save that succeeded, and that nothing else is
// left.
func wantTidy(t *testing.T, d *Dir, step, last, best int) {
	t.Helper()
	wantCheckpoint(t, d, "last", step)
	if last != 0 {
		if c, err := d.LoadCheckpoint("previous"); err != nil || c.Step != last && c.Step != step {
			t.Errorf("previous is of step %d, want %d or %d; error %v", c.Step, last, step, err)
		}
	}
	if best != 0 {
		wantCheckpoint(t, d, "best", best)
	}
	index, rebuilt, err := d.readIndex()
	if err != nil || rebuilt != nil {
		t.Fatalf("index: %v, %v", rebuilt, err)
	}
	var named []string
	for _, info := range index {
		named = append(named, info.Dir)
	}
	slices.Sort(named)
	named = slices.Compact(named)
	if got := stepDirs(t, d); !slices.Equal(got, named) {
		t.Errorf("directories %q, the index names %q", got, named)
	}
	for _, dir := range named {
		entries, err := os.ReadDir(d.checkpointPath(dir))
		if err != nil || len(entries) != 3 {
			t.Errorf("%s holds %v, error %v, want model, state and note", dir, entries, err)
		}
	}
}

// The disk fails at each point in turn: the save reports it, the previous
// checkpoint loads, and the next save succeeds and leaves no rubbish.
func TestSaveWhenTheDiskFails(t *testing.T) {
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel() // it waits for the disk
			points := 0
			for k := 1; ; k++ {
				d := newRun(t)
				s.before(t, d)
				planted := errors.New("disk failed")
				count, point := 0, ""
				d.fault = func(p string) error {
					if count++; count >= k { // once it fails, it stays so
						if point == "" {
							point = p
						}
						return planted
					}
					return nil
				}
				err := d.SaveCheckpoint("last", checkpoint(s.step))
				d.fault = nil
				if point == "" {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				points++
				// Removing old directories is not part of the promise, nor is the flush after the rename.
				late := strings.HasPrefix(point, "remove") || strings.HasPrefix(point, "after checkpoints/index")
				if !errors.Is(err, planted) && !late {
					t.Errorf("failing at %q: error %v", point, err)
				}
				// The first save needs no index to be found.
				if wantWhole(t, d, s.last, s.step, s.best) && !late && s.last != s.step && s.last != 0 {
					t.Errorf("failing at %q: the checkpoint counts as saved", point)
				}
				if t.Failed() {
					t.Fatalf("at point %d, %q", k, point)
				}
				save(t, d, "last", s.step)
				wantTidy(t, d, s.step, s.last, s.best)
				if t.Failed() {
					t.Fatalf("after failing at %q and saving again", point)
				}
			}
			if points < 9 {
				t.Errorf("only %d points were struck", points)
			}
		})
	}
}

// The process is killed at each point in turn: what the disk holds at that moment
// is opened as a new process would.
func TestSaveWhenKilled(t *testing.T) {
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel() // it waits for the disk
			d := newRun(t)
			s.before(t, d)
			var snapshots, points []string
			d.fault = func(p string) error {
				copied := filepath.Join(t.TempDir(), "run")
				if err := os.CopyFS(copied, os.DirFS(d.Path())); err != nil {
					t.Fatal(err)
				}
				snapshots, points = append(snapshots, copied), append(points, p)
				return nil
			}
			save(t, d, "last", s.step)
			if len(points) < 9 {
				t.Errorf("only %d points were struck: %q", len(points), points)
			}
			halves := 0
			for i, path := range snapshots {
				d, err := Open(path)
				if err != nil {
					t.Fatal(err)
				}
				wantWhole(t, d, s.last, s.step, s.best)
				temps := func() int {
					matches, _ := filepath.Glob(filepath.Join(path, checkpoints, "*", ".*.tmp-*"))
					return len(matches)
				}
				if temps() > 0 {
					halves++
				}
				if err := d.Lock(); err != nil {
					t.Fatal(err)
				}
				if temps() > 0 {
					t.Error("temporary files stay")
				}
				save(t, d, "last", s.step)
				wantTidy(t, d, s.step, s.last, s.best)
				d.Close()
				if t.Failed() {
					t.Fatalf("killed at point %d, %q", i, points[i])
				}
			}
			if halves == 0 {
				t.Error("no snapshot caught a file half-written")
			}
		})
	}
}

// A reader loads while a run replaces its checkpoint again and again.
func TestLoadWhileSaving(t *testing.T) {
	d := newRun(t)
	save(t, d, "last", 1)
	reader, err := Open(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		for step := 2; step < 20; step++ {
			if err := d.SaveCheckpoint("last", checkpoint(step)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for reads, seen := 0, 0; ; reads++ {
		c, err := reader.LoadCheckpoint("last")
		if err != nil {
			t.Error(err)
		} else if c.Step < seen || c.Weights[0].Tensor.Float32s()[1] != float32(c.Step)+0.5 {
			t.Errorf("checkpoint of step %d after %d, or mixed", c.Step, seen)
		}
		seen = c.Step
		select {
		case err := <-done:
			if err != nil || reads == 0 {
				t.Errorf("%d reads, error %v", reads, err)
			}
			return
		default:
		}
	}
}

func TestTruncateCheckpoints(t *testing.T) {
	d := newRun(t)
	for step := 10; step <= 30; step += 10 {
		save(t, d, fmt.Sprintf("epoch-%04d", step/10), step)
	}
	for name, of := range map[string]string{"last": "epoch-0003", "best": "epoch-0001"} {
		if err := d.NameCheckpoint(of, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.TruncateAfter(2, 20); err != nil {
		t.Fatal(err)
	}
	wantCheckpoint(t, d, "last", 20)
	wantCheckpoint(t, d, "best", 10)
	wantCheckpoint(t, d, "epoch-0002", 20)
	if _, err := d.LoadCheckpoint("epoch-0003"); err == nil {
		t.Error("a checkpoint of the future that is no more was loaded")
	}
	if got := stepDirs(t, d); len(got) != 2 {
		t.Errorf("directories %q", got)
	}
	if err := os.Remove(d.checkpointPath(indexFile)); err != nil {
		t.Fatal(err)
	}
	wantCheckpoint(t, d, "last", 20) // the step directory knows of its new name
}

// An index that was replaced, but perhaps not for ever, since flushing its name
// failed: the checkpoints of both are kept until the next save.
func TestSaveWhenTheIndexIsNotFlushed(t *testing.T) {
	d := newRun(t)
	for step := 10; step <= 20; step += 10 {
		save(t, d, "last", step)
	}
	old := read(t, d, filepath.Join(checkpoints, indexFile))
	planted := errors.New("planted")
	d.fault = func(point string) error {
		if point == "after checkpoints/index.json" {
			return planted
		}
		return nil
	}
	if err := d.SaveCheckpoint("last", checkpoint(30)); !errors.Is(err, planted) {
		t.Errorf("error %v", err)
	}
	d.fault = nil
	wantCheckpoint(t, d, "last", 30)
	wantCheckpoint(t, d, "previous", 20)
	write(t, d.checkpointPath(indexFile), old) // a power cut
	wantCheckpoint(t, d, "last", 20)
	wantCheckpoint(t, d, "previous", 10)
	save(t, d, "last", 30)
	wantTidy(t, d, 30, 20, 0)
}
