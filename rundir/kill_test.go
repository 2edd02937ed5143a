package rundir

import (
	"bufio"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/residual-ml/residual/internal/atomicfile"
)

// killSize makes checkpoints of 240 kB, which are written in several pieces.
const killSize = 60_000

// A process that saves all the time is killed with SIGKILL at a random moment,
// again and again: each time the directory loads a whole checkpoint, no older than
// the last one of which it said that it was saved, and the next process goes on.
//
// RESIDUAL_LONG=1 makes it 200 kills instead of 25.
func TestKilledWhileSaving(t *testing.T) {
	const variable = "RUNDIR_TEST_SAVE"
	if path := os.Getenv(variable); path != "" {
		fmt.Println("error:", saveForever(path))
		return
	}
	kills := 25
	if os.Getenv("RESIDUAL_LONG") != "" {
		kills = 200
	} else if testing.Short() {
		kills = 5
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 0))

	d := newRun(t)
	kill, halves, steps := 0, 0, 0
	// On a slow disk the first few may hit nothing.
	for ; kill < kills || (halves == 0 || steps == 0) && kill < 10*kills; kill++ {
		child := exec.Command(os.Args[0], "-test.run=^TestKilledWhileSaving$")
		child.Env = append(os.Environ(), variable+"="+d.Path())
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewScanner(out)
		if said.Scan(); said.Text() != "ready" {
			t.Fatalf("kill %d: the child says %q", kill, said.Text())
		}
		go func() {
			time.Sleep(time.Duration(moments.Int64N(int64(60 * time.Millisecond))))
			child.Process.Kill()
		}()
		saved := steps
		for said.Scan() {
			if _, err := fmt.Sscanf(said.Text(), "saved %d", &saved); err != nil {
				t.Fatalf("kill %d: the child says %q", kill, said.Text())
			}
		}
		child.Wait()
		if unfinished(t, d) {
			halves++
		}
		steps = checkKilled(t, d, saved)
		if t.Failed() {
			t.Fatalf("after kill %d of seed %d", kill, seed)
		}
	}
	t.Logf("%d kills, %d of them in the midst of a save, %d steps saved", kill, halves, steps)
	if halves == 0 || steps == 0 {
		t.Error("the kills hit nothing")
	}
}

// saveForever continues a run as training does, a step at a time.
func saveForever(path string) error {
	d, err := Open(path)
	if err != nil {
		return err
	}
	if err := d.Lock(); err != nil {
		return err
	}
	all, err := d.Checkpoints()
	if err != nil {
		return err
	}
	var c Checkpoint
	if len(all) > 0 {
		if c, err = d.LoadCheckpoint("last"); err != nil {
			return err
		}
	}
	if err := d.TruncateAfter(c.Epoch, c.Step); err != nil {
		return err
	}
	fmt.Println("ready")
	for step := c.Step + 1; ; step++ {
		c := checkpointOf(step, killSize)
		err := d.AppendMetrics(stepMetrics{Step: step})
		if err == nil && step%10 == 0 {
			err = d.AppendEpoch(epoch(c.Epoch))
		}
		if err == nil {
			err = d.SaveCheckpoint("last", c)
		}
		if err == nil {
			fmt.Println("saved", step)
		}
		if err == nil && step%3 == 0 {
			err = d.NameCheckpoint("last", "best")
		}
		if err == nil && step%2 == 0 {
			if err = d.NameCheckpoint("last", fmt.Sprintf("epoch-%04d", step)); err == nil {
				err = d.Keep(2)
			}
		}
		if err != nil {
			return err
		}
	}
}

// unfinished reports whether the directory holds something of which no index
// knows yet, or no longer.
func unfinished(t *testing.T, d *Dir) bool {
	t.Helper()
	index, _, err := d.readIndex()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	err = filepath.WalkDir(d.Path(), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(e.Name(), "step-") && len(namesOf(index, e.Name())) == 0 || atomicfile.IsTemp(e.Name()) {
			found = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// checkKilled opens the run as a new process would, of which the killed one said
// that it had saved the step, and returns the step of the last checkpoint.
func checkKilled(t *testing.T, old *Dir, saved int) int {
	t.Helper()
	d, err := Open(old.Path())
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.Checkpoints()
	if err != nil {
		t.Fatal(err)
	}
	last, previous := 0, 0
	for _, info := range all {
		c, err := d.LoadCheckpoint(info.Name)
		if err != nil || c.Fallback != "" {
			// Only before the first index is written the name comes from elsewhere.
			if err != nil || saved > 0 {
				t.Errorf("checkpoint %q: error %v, %q", info.Name, err, c.Fallback)
			}
		}
		if !same(t, c, checkpointOf(info.Step, killSize)) {
			t.Errorf("checkpoint %q of step %d is not what was saved", info.Name, info.Step)
		}
		switch info.Name {
		case "last":
			last = info.Step
			if h, err := d.History(); err != nil || len(h) < c.Epoch {
				t.Errorf("history of %d epochs, error %v, the checkpoint has %d", len(h), err, c.Epoch)
			}
			if lines, _, err := d.Follow().Poll(); err != nil || len(lines) < c.Step {
				t.Errorf("metrics of %d steps, error %v, the checkpoint has %d", len(lines), err, c.Step)
			}
		case "previous":
			previous = info.Step
		}
	}
	if last != saved && last != saved+1 {
		t.Errorf("last is of step %d, the process had saved %d", last, saved)
	}
	if last > 1 && previous != last-1 {
		t.Errorf("previous is of step %d, last of %d", previous, last)
	}
	return last
}
