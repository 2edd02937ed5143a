package rundir

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/residual-ml/residual/internal/hint"
)

// threeSaved returns a run with last at step 30, previous at 20, and best and
// epoch-0001 at 10.
func threeSaved(t *testing.T) *Dir {
	t.Helper()
	d := newRun(t)
	save(t, d, "last", 10)
	for _, name := range []string{"best", "epoch-0001"} {
		if err := d.NameCheckpoint("last", name); err != nil {
			t.Fatal(err)
		}
	}
	save(t, d, "last", 20)
	save(t, d, "last", 30)
	return d
}

// damages are what can happen to a file.
var damages = []struct {
	name   string
	strike func(t *testing.T, path string, content []byte)
}{
	{"cut short", func(t *testing.T, path string, b []byte) { write(t, path, string(b[:len(b)-2])) }},
	{"a byte more", func(t *testing.T, path string, b []byte) { write(t, path, string(b)+"x") }},
	{"empty", func(t *testing.T, path string, _ []byte) { write(t, path, "") }},
	{"zeros", func(t *testing.T, path string, b []byte) { write(t, path, string(make([]byte, len(b)))) }},
	{"missing", func(t *testing.T, path string, _ []byte) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}},
	{"a directory", func(t *testing.T, path string, _ []byte) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}},
	{"a bit in the middle", func(t *testing.T, path string, b []byte) {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		write(t, path, string(b))
	}},
	{"the last bit", func(t *testing.T, path string, b []byte) {
		b = bytes.Clone(b)
		b[len(b)-2] ^= 128
		write(t, path, string(b))
	}},
	{"NaN in the header", func(t *testing.T, path string, b []byte) {
		b = bytes.Clone(b)
		copy(b[8:], "NaN")
		write(t, path, string(b))
	}},
}

// Damage to a file of the last checkpoint: the previous one is used, the user is
// told, and training on from there repairs the directory.
func TestDamagedLast(t *testing.T) {
	for _, file := range []string{modelFile, stateFile} {
		for _, damage := range damages {
			t.Run(file+"/"+damage.name, func(t *testing.T) {
				t.Parallel()
				d := threeSaved(t)
				path := d.checkpointPath("step-00000030", file)
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				damage.strike(t, path, b)

				c, err := d.LoadCheckpoint("last")
				if err != nil {
					t.Fatal(err)
				}
				if !same(t, c, checkpoint(20)) {
					t.Errorf("step %d was loaded, want the previous one, 20", c.Step)
				}
				for _, want := range []string{path, "of step 30 is damaged", `using "previous" of step 20`} {
					if !strings.Contains(c.Fallback, want) {
						t.Errorf("the user is told %q, want %q in it", c.Fallback, want)
					}
				}
				w, err := d.LoadWeights("last")
				if want := map[string]int{modelFile: 20, stateFile: 30}[file]; err != nil || w.Step != want {
					t.Errorf("weights of step %d, error %v, want those of step %d", w.Step, err, want)
				}
				if got := len(stepDirs(t, d)); got != 3 {
					t.Errorf("loading left %d directories of 3", got)
				}

				if err := d.TruncateAfter(2, c.Step); err != nil {
					t.Fatal(err)
				}
				wantCheckpoint(t, d, "last", 20)
				wantCheckpoint(t, d, "previous", 10)
				save(t, d, "last", 30)
				wantTidy(t, d, 30, 20, 10)
				wantCheckpoint(t, d, "previous", 20)
			})
		}
	}
}

// Once damage is known, a save does not give up the good previous checkpoint
// for the damaged last one.
func TestSaveAfterDamage(t *testing.T) {
	for _, known := range []bool{true, false} {
		d := threeSaved(t)
		path := d.checkpointPath("step-00000030", modelFile)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if known {
			b[len(b)-1] ^= 1
			write(t, path, string(b))
			if _, err := d.LoadWeights("last"); err != nil {
				t.Fatal(err)
			}
		} else {
			write(t, path, string(b[:100])) // seen by its length
		}
		save(t, d, "last", 40)
		wantCheckpoint(t, d, "last", 40)
		wantCheckpoint(t, d, "previous", 20)
	}
}

// Two checkpoints of one step, of which the newer is damaged: going on from that
// step takes the name from it.
func TestDamagedAtTheSameStep(t *testing.T) {
	d := newRun(t)
	save(t, d, "last", 20)
	save(t, d, "last", 20)
	write(t, d.checkpointPath("step-00000020-2", modelFile), "x")
	c, err := d.LoadCheckpoint("last")
	if err != nil || c.Step != 20 || c.Fallback == "" {
		t.Errorf("step %d, error %v, %q", c.Step, err, c.Fallback)
	}
	if err := d.TruncateAfter(2, 20); err != nil {
		t.Fatal(err)
	}
	if c, err := d.LoadCheckpoint("last"); err != nil || c.Fallback != "" {
		t.Errorf("error %v, %q", err, c.Fallback)
	}
}

// With ever more damage the newest whole checkpoint is found, and in the end
// there is a clear error.
func TestDamagedLastAndMore(t *testing.T) {
	d := threeSaved(t)
	for _, c := range []struct {
		dir  string
		step int
	}{{"step-00000030", 20}, {"step-00000020", 10}} {
		if err := os.RemoveAll(d.checkpointPath(c.dir)); err != nil {
			t.Fatal(err)
		}
		got, err := d.LoadCheckpoint("last")
		if err != nil || !same(t, got, checkpoint(c.step)) || !strings.Contains(got.Fallback, c.dir) {
			t.Errorf("without %s: step %d, error %v, %q", c.dir, got.Step, err, got.Fallback)
		}
	}
	wantCheckpoint(t, d, "best", 10)
	path := d.checkpointPath("step-00000010", modelFile)
	write(t, path, "x")
	_, err := d.LoadCheckpoint("last")
	if err == nil || strings.Contains(err.Error(), "\n") || hint.Of(err) == "" {
		t.Errorf("nothing is whole: error %v, hint %q", err, hint.Of(err))
	}
	for _, file := range []string{"step-00000030", "step-00000020", path} {
		if err != nil && !strings.Contains(err.Error(), file) {
			t.Errorf("error %v, want %s in it", err, file)
		}
	}
	// The damage of another name is no reason to take something else in silence.
	if _, err := d.LoadCheckpoint("best"); err == nil || !strings.Contains(err.Error(), path) || hint.Of(err) == "" {
		t.Errorf("damaged best: error %v, hint %q", err, hint.Of(err))
	}
	save(t, d, "last", 40) // none of this stops a later save
	wantCheckpoint(t, d, "last", 40)
}

// A checkpoint without state cannot stand in for one to continue from.
func TestFallbackNeedsState(t *testing.T) {
	d := newRun(t)
	imported := checkpoint(10)
	imported.State = nil
	if err := d.SaveCheckpoint("imported", imported); err != nil {
		t.Fatal(err)
	}
	save(t, d, "last", 20)
	write(t, d.checkpointPath("step-00000020", stateFile), "x")
	if c, err := d.LoadCheckpoint("last"); err == nil {
		t.Errorf("step %d was loaded to continue from, without state", c.Step)
	}
	write(t, d.checkpointPath("step-00000020", modelFile), "x")
	if c, err := d.LoadWeights("last"); err != nil || c.Step != 10 || c.Fallback == "" {
		t.Errorf("weights of step %d, error %v, %q", c.Step, err, c.Fallback)
	}
}

// The index is rebuilt from the step directories, all names at their places,
// whatever the clock says about the files.
func TestDamagedIndex(t *testing.T) {
	for _, damage := range append(damages[:len(damages):len(damages)], struct {
		name   string
		strike func(t *testing.T, path string, content []byte)
	}{"another step", func(t *testing.T, path string, b []byte) {
		write(t, path, strings.Replace(string(b), `"step": 30`, `"step": 31`, 1))
	}}) {
		t.Run(damage.name, func(t *testing.T) {
			t.Parallel()
			d := threeSaved(t)
			for i, dir := range stepDirs(t, d) { // the clock went backwards
				past := time.Date(2020-i, 1, 1, 0, 0, 0, 0, time.UTC)
				if err := os.Chtimes(d.checkpointPath(dir), past, past); err != nil {
					t.Fatal(err)
				}
			}
			before, err := d.Checkpoints()
			if err != nil {
				t.Fatal(err)
			}
			path := d.checkpointPath(indexFile)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damage.strike(t, path, b)

			for name, step := range map[string]int{"last": 30, "previous": 20, "best": 10, "epoch-0001": 10} {
				wantCheckpoint(t, d, name, step)
				c, err := d.LoadWeights(name)
				if want := fmt.Sprintf("%q is of step %d", name, step); err != nil || !strings.Contains(c.Fallback, path) || !strings.Contains(c.Fallback, want) {
					t.Errorf("%s: the user is told %q, error %v, want %s and %q", name, c.Fallback, err, path, want)
				}
			}
			if after, err := d.Checkpoints(); err != nil || !slices.Equal(after, before) {
				t.Errorf("checkpoints %v, error %v, want %v", after, err, before)
			}
			if damage.name == "a directory" {
				return // which no save can replace
			}
			save(t, d, "last", 40)
			wantTidy(t, d, 40, 30, 10)
			if c, err := d.LoadWeights("last"); err != nil || c.Fallback != "" {
				t.Errorf("after a save: error %v, %q", err, c.Fallback)
			}
		})
	}
}

// Index and last checkpoint damaged at once, and what cannot be rebuilt.
func TestDamagedIndexAndMore(t *testing.T) {
	d := threeSaved(t)
	index := d.checkpointPath(indexFile)
	write(t, index, "{")
	write(t, d.checkpointPath("step-00000030", modelFile), "x")
	c, err := d.LoadCheckpoint("last")
	if err != nil || c.Step != 20 || !strings.Contains(c.Fallback, index) || !strings.Contains(c.Fallback, "step-00000030") {
		t.Errorf("step %d, error %v, %q", c.Step, err, c.Fallback)
	}
	if err := d.TruncateAfter(2, 20); err != nil {
		t.Fatal(err)
	}
	if c, err := d.LoadCheckpoint("last"); err != nil || c.Step != 20 || c.Fallback != "" {
		t.Errorf("after going on from there: step %d, error %v, %q", c.Step, err, c.Fallback)
	}

	write(t, index, "{")
	for _, dir := range stepDirs(t, d) {
		write(t, d.checkpointPath(dir, noteFile), "{}")
	}
	dirs := stepDirs(t, d)
	if _, err := d.LoadCheckpoint("last"); err == nil || !strings.Contains(err.Error(), index) || !strings.Contains(err.Error(), noteFile) || hint.Of(err) == "" {
		t.Errorf("error %v, hint %q", err, hint.Of(err))
	}
	if _, err := d.Checkpoints(); err == nil {
		t.Error("damage was taken for a run that saved nothing")
	}
	if err := d.SaveCheckpoint("last", checkpoint(40)); err == nil {
		t.Error("saved over checkpoints that nothing describes any more")
	}
	if got := stepDirs(t, d); !slices.Equal(got, dirs) {
		t.Errorf("directories %q, want %q untouched", got, dirs)
	}
}

// The sums in the index are those of the files, as sha256sum would print them.
func TestSums(t *testing.T) {
	d := threeSaved(t)
	all, err := d.Checkpoints()
	if err != nil || len(all) != 4 {
		t.Fatalf("checkpoints %v, error %v", all, err)
	}
	for _, c := range all {
		for file, got := range map[string]FileSum{modelFile: c.Model, stateFile: c.State} {
			b, err := os.ReadFile(filepath.Join(d.Path(), checkpoints, c.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			if want := (FileSum{int64(len(b)), fmt.Sprintf("%x", sha256.Sum256(b))}); got != want {
				t.Errorf("%s of %s: %v, want %v", file, c.Name, got, want)
			}
		}
	}
}

func TestDropAndKeep(t *testing.T) {
	d := newRun(t)
	for e := 1; e <= 12; e++ {
		save(t, d, "last", 10*e)
		if err := d.NameCheckpoint("last", fmt.Sprintf("epoch-%04d", e)); err != nil {
			t.Fatal(err)
		}
		if e == 2 {
			if err := d.NameCheckpoint("last", "best"); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Keep(3); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int{"best": 20, "epoch-0010": 100, "epoch-0011": 110, "epoch-0012": 120, "last": 120, "previous": 110}
	wantNames := func() {
		t.Helper()
		index, _, err := d.readIndex()
		if err != nil || !slices.Equal(slices.Sorted(maps.Keys(index)), slices.Sorted(maps.Keys(want))) {
			t.Fatalf("names %q, error %v, want %v", slices.Sorted(maps.Keys(index)), err, want)
		}
		for name, step := range want {
			wantCheckpoint(t, d, name, step)
		}
	}
	wantNames()
	wantTidy(t, d, 120, 110, 20)

	if err := d.Keep(0); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(want, func(name string, _ int) bool { return strings.HasPrefix(name, "epoch-") })
	wantNames()
	if got := len(stepDirs(t, d)); got != 3 {
		t.Errorf("%d directories, want 3", got)
	}
	if err := d.Drop("best"); err != nil {
		t.Fatal(err)
	}
	delete(want, "best")
	wantNames()
	if got := len(stepDirs(t, d)); got != 2 {
		t.Errorf("%d directories, want 2", got)
	}
	if err := d.Drop("best"); err == nil {
		t.Error("dropped a name that is not there")
	}
	if err := d.Keep(-1); err == nil {
		t.Error("kept less than nothing")
	}
	for _, name := range []string{"epoch-0001", "epoch-x", "epoch-"} { // the last two are names like others
		save(t, d, strings.TrimSuffix(name, "-"), 130)
	}
	if err := d.Keep(0); err != nil {
		t.Fatal(err)
	}
	want["epoch-x"], want["epoch"] = 130, 130
	wantNames()
}
