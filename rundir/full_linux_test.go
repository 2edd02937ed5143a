package rundir

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/tensor"
)

// A small file system of its own fills up at each stage of a save, then becomes
// read-only: the error names path and cause, what was saved before loads, nothing
// half-written stays, and with room again a save works.
//
// The file system is a tmpfs in a mount namespace, so the test runs in a child
// process; where the system permits no namespaces it is skipped.
func TestFullDisk(t *testing.T) {
	const variable = "RUNDIR_TEST_FULL"
	const noMount = "cannot mount"
	if dir := os.Getenv(variable); dir != "" {
		if err := unix.Mount("residual", dir, "tmpfs", 0, "size=900k"); err != nil {
			t.Fatalf("%s a tmpfs: %v", noMount, err)
		}
		testFullDisk(t, dir)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
	child.Env = append(os.Environ(), variable+"="+t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("no namespaces here: %v", err)
	case strings.Contains(string(out), noMount):
		t.Skipf("no tmpfs here: %s", out)
	case err != nil || !strings.Contains(string(out), "--- PASS: TestFullDisk"):
		t.Errorf("%v\n%s", err, out)
	}
}

func testFullDisk(t *testing.T, dir string) {
	d, err := Create(filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteConfig(config{}); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	// fill leaves room for so many bytes, or none.
	fill := func(room int64) {
		t.Helper()
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(ballast, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(make([]byte, max(0, int64(s.Bavail)*s.Bsize-room))); err != nil {
			t.Fatal(err)
		}
	}
	save(t, d, "last", 10)
	save(t, d, "last", 20)

	// Where the room is measured before, and where it vanishes while writing: in
	// these files, after so many calls.
	for _, c := range []struct {
		point, path string
		room        int64
	}{
		{"", "checkpoints", 100_000},
		{"before checkpoints/step-00000030/model.safetensors", "step-00000030", 0},
		{"before checkpoints/step-00000030/model.safetensors", "model.safetensors", 30_000},
		{"before checkpoints/step-00000030/state.safetensors", "state.safetensors", 0},
		{"before checkpoints/step-00000030/checkpoint.json", "checkpoint.json", 0},
		{"before checkpoints/index.json", "index.json", 0},
	} {
		struck := c.point == ""
		if struck {
			fill(c.room)
		}
		d.fault = func(point string) error {
			if point == c.point && !struck {
				struck = true
				fill(c.room)
			}
			return nil
		}
		err := d.SaveCheckpoint("last", checkpoint(30))
		d.fault = nil
		if !struck {
			t.Fatalf("%q was not struck", c.point)
		}
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), filepath.Join(dir, "run")) || !strings.Contains(err.Error(), c.path) {
			t.Errorf("full %s: error %v, want ENOSPC with the path", c.point, err)
		}
		if c.point == "" && hint.Of(err) == "" {
			t.Error("no hint for a full disk")
		}
		wantTidy(t, d, 20, 10, 0)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}

	// Lines: the half one that fits is removed again.
	fill(0)
	line := map[string]string{"text": strings.Repeat("x", 3000)}
	lines := 0
	for ; lines < 1000; lines++ { // what is left of the last block
		if err = d.AppendMetrics(line); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), metricsFile) {
		t.Errorf("metrics on a full disk: error %v", err)
	}
	if err := d.AppendEpoch(epoch(1)); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), historyFile) {
		t.Errorf("history on a full disk: error %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := d.AppendMetrics(line); err != nil {
		t.Error(err)
	}
	if got, _, err := d.Follow().Poll(); err != nil || len(got) != lines+1 {
		t.Errorf("%d lines, error %v, want %d", len(got), err, lines+1)
	}
	if err := d.AppendEpoch(epoch(1)); err != nil {
		t.Error(err)
	}
	save(t, d, "last", 30)
	wantTidy(t, d, 30, 20, 0)

	// Read-only.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"saving": d.SaveCheckpoint("last", checkpoint(40)), "naming": d.NameCheckpoint("last", "best"),
		"dropping": d.Drop("previous"), "a file": d.WriteFile("x", func(io.Writer) error { return nil }),
		"metrics": d.AppendMetrics(line), "history": d.AppendEpoch(epoch(2)),
	} {
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), filepath.Join(dir, "run")) {
			t.Errorf("%s read-only: error %v, want EROFS with the path", what, err)
		}
	}
	wantTidy(t, d, 30, 20, 0)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	save(t, d, "last", 40)
	wantTidy(t, d, 40, 30, 0)

	left := 0
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && atomicfile.IsTemp(e.Name()) {
			left++
		}
		return err
	})
	if err != nil || left > 0 {
		t.Errorf("%d temporary files are left, error %v", left, err)
	}
}

// Tensors that are read when their turn comes count too: of a checkpoint for which
// there is no room nothing is read, and nothing is written.
func TestSpaceOfTensorsReadLater(t *testing.T) {
	d := newRun(t)
	save(t, d, "last", 10)
	c := checkpoint(20)
	c.Weights = append(c.Weights, safetensors.Named{Name: "huge", Later: &safetensors.Later{
		DType: tensor.Float32, Shape: tensor.Shape{1 << 20, 1 << 38}, // 1 EiB
		Get: func() (tensor.Tensor, error) {
			t.Error("a tensor is read that has no room")
			return tensor.Tensor{}, errors.New("not read")
		},
	}})
	if err := d.SaveCheckpoint("last", c); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, want ENOSPC", err)
	}
	wantCheckpoint(t, d, "last", 10)
	if got := stepDirs(t, d); len(got) != 1 {
		t.Errorf("after the refusal: %q", got)
	}
}
