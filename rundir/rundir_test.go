package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/residual-ml/residual/internal/hint"
)

type config struct {
	Model string `json:"model"`
	Seed  int    `json:"seed"`
}

// newRun returns a run directory with its configuration.
func newRun(t *testing.T) *Dir {
	t.Helper()
	d, err := Create(filepath.Join(t.TempDir(), "runs", "r"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.WriteConfig(config{"resnet20", 7}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, d *Dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.Path(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNewName(t *testing.T) {
	parent := t.TempDir()
	now := time.Date(2026, 3, 4, 23, 0, 0, 0, time.UTC)
	for _, want := range []string{"2026-03-04-resnet18-cifar10", "2026-03-04-resnet18-cifar10-2", "2026-03-04-resnet18-cifar10-3"} {
		got := NewName(parent, "resnet18", "cifar10", now)
		if got != filepath.Join(parent, want) {
			t.Fatalf("name %s, want %s", got, want)
		}
		if _, err := Create(got); err != nil {
			t.Fatal(err)
		}
	}
	// A clock that jumps, back or forth: every name is a new directory.
	seen := map[string]bool{}
	for _, jump := range []int{0, -50, 0, 1000, -50, -3000, 0} {
		path := NewName(parent, "resnet18", "cifar10", now.AddDate(jump, 0, 0))
		if _, err := Create(path); err != nil || seen[path] {
			t.Errorf("after a jump of %d years: %s, error %v", jump, path, err)
		}
		seen[path] = true
		write(t, filepath.Join(path, configFile), "{}")
	}
	if runs, err := List(parent); err != nil || len(runs) != len(seen) {
		t.Errorf("List = %q, %v, want %d runs", runs, err, len(seen))
	}
	for data, want := range map[string]string{
		"./photos":              "photos",
		"/data/my photos/":      "my-photos",
		"../猫 und Käse":         "猫-und-Käse",
		strings.Repeat("a", 99): strings.Repeat("a", 60),
	} {
		if got := NewName("", "m", data, now); got != filepath.Join("runs", "2026-03-04-m-"+want) {
			t.Errorf("name for data %q: %s, want …-%s", data, got, want)
		}
	}
	if got := NewName("", "m", ".", now); strings.HasSuffix(got, "-.") || strings.HasSuffix(got, "-") {
		t.Errorf("name for data %q: %s", ".", got)
	}
}

func TestNewAtTheSameMoment(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "runs")
	now := time.Date(2026, 3, 4, 23, 0, 0, 0, time.UTC)
	const processes = 8
	paths, begin := make(chan string, processes), make(chan struct{})
	for range processes {
		go func() {
			<-begin
			run, err := New(parent, "resnet18", "cifar10", now)
			if err == nil {
				err = run.Lock()
			}
			if err != nil {
				t.Error(err)
				paths <- ""
				return
			}
			defer run.Close()
			paths <- run.Path()
		}()
	}
	close(begin)
	seen := map[string]bool{}
	for range processes {
		seen[<-paths] = true
	}
	if len(seen) != processes {
		t.Errorf("%d processes got the directories %v", processes, seen)
	}
}

func TestCreateAndOpen(t *testing.T) {
	parent := t.TempDir()
	path := filepath.Join(parent, "runs", "a")
	d, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("a directory without configuration was opened")
	}
	if err := d.WriteConfig(config{"<b>", 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path); err == nil || !strings.Contains(hint.Of(err), "--resume "+path) {
		t.Errorf("creating over a run: error %v, hint %q", err, hint.Of(err))
	}

	opened, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var c config
	if err := opened.ReadConfig(&c); err != nil || c != (config{"<b>", 3}) {
		t.Errorf("configuration %v, error %v", c, err)
	}
	if got := read(t, d, "config.json"); got != "{\n  \"model\": \"<b>\",\n  \"seed\": 3\n}\n" {
		t.Errorf("config.json is %q", got)
	}
	if entries, _ := os.ReadDir(path); len(entries) != 1 {
		t.Errorf("opening and reading left %v", entries)
	}

	// What is no run directory, with a hint to one that is near.
	file := filepath.Join(parent, "file")
	write(t, file, "x")
	for other, want := range map[string]string{
		filepath.Join(parent, "runs"):      "has no config.json",
		filepath.Join(parent, "runs", "b"): "no such file",
		file:                               "it is a file",
	} {
		_, err := Open(other)
		if runtime.GOOS != "windows" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), other)) {
			t.Errorf("Open(%s): error %v, want %q in it", other, err, want)
		}
		if strings.Contains(other, "runs") && !strings.Contains(hint.Of(err), path) {
			t.Errorf("Open(%s): hint %q, want it to name %s", other, hint.Of(err), path)
		}
	}
	if _, err := Open(file); !strings.Contains(hint.Of(err), "residual import "+file) {
		t.Errorf("a file: hint %q, want it to name import", hint.Of(err))
	}

	// A Hugging Face folder has a config.json too; weights in a run make none of it.
	hub := filepath.Join(parent, "runs", "hub")
	if err := os.Mkdir(hub, 0o777); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(hub, "config.json"), "{}")
	write(t, filepath.Join(hub, "model.safetensors"), "")
	if _, err := Open(hub); err == nil || !strings.Contains(err.Error(), "Hugging Face") || !strings.Contains(hint.Of(err), "residual import "+hub) {
		t.Errorf("a Hugging Face folder: error %v, hint %q", err, hint.Of(err))
	}
	if runs, err := List(filepath.Join(parent, "runs")); err != nil || !slices.Equal(runs, []string{path}) {
		t.Errorf("List: %v, %v, want %s alone", runs, err, path)
	}
	if err := os.Mkdir(filepath.Join(path, checkpoints), 0o777); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(path, "model.safetensors"), "")
	if _, err := Open(path); err != nil {
		t.Errorf("a run with weights beside its configuration: %v", err)
	}
	if _, err := Create(filepath.Join(file, "a")); err == nil {
		t.Error("created a directory below a file")
	}
	write(t, filepath.Join(parent, "runs", "notes.txt"), "x")
	if runs, err := List(filepath.Join(parent, "runs")); err != nil || !slices.Equal(runs, []string{path}) {
		t.Errorf("List = %v, %v", runs, err)
	}
}

func TestResultAndEvaluations(t *testing.T) {
	d := newRun(t)
	var c config
	if err := d.ReadResult(&c); !errors.Is(err, fs.ErrNotExist) || d.Finished() {
		t.Errorf("before the result: error %v, finished %v", err, d.Finished())
	}
	if err := d.WriteOrigin(config{"o", 1}); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteResult(config{"r", 2}); err != nil {
		t.Fatal(err)
	}
	if err := d.ReadResult(&c); err != nil || c.Model != "r" || !d.Finished() {
		t.Errorf("result %v, error %v, finished %v", c, err, d.Finished())
	}
	if err := d.ReadOrigin(&c); err != nil || c.Model != "o" {
		t.Errorf("origin %v, error %v", c, err)
	}
	if err := d.WriteResult(func() {}); err == nil || !strings.Contains(err.Error(), "result.json") {
		t.Errorf("writing a function: error %v", err)
	}
	write(t, filepath.Join(d.Path(), "config.json"), "{")
	if err := d.ReadConfig(&c); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("a damaged configuration: error %v", err)
	}

	if names, err := d.Evaluations(); len(names) != 0 || err != nil {
		t.Errorf("evaluations %v, %v", names, err)
	}
	for _, name := range []string{"test", "cifar10-test"} {
		if err := d.WriteEvaluation(name, config{name, 0}); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := d.Evaluations(); !slices.Equal(names, []string{"cifar10-test", "test"}) || err != nil {
		t.Errorf("evaluations %v, %v", names, err)
	}
	if err := d.ReadEvaluation("test", &c); err != nil || c.Model != "test" {
		t.Errorf("evaluation %v, %v", c, err)
	}
	for _, name := range []string{"", "../config", "a/b", "a b"} {
		if err := d.WriteEvaluation(name, c); err == nil {
			t.Errorf("evaluation %q was accepted", name)
		}
	}
}

func TestLock(t *testing.T) {
	d := newRun(t)
	left := filepath.Join(d.Path(), ".history.csv.tmp-ABCDEFGH")
	write(t, left, "half")
	if err := d.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := d.Lock(); err != nil {
		t.Errorf("locking again: %v", err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the temporary file of a killed process is still there")
	}
	other, err := Open(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	err = other.Lock()
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d on", os.Getpid())) || hint.Of(err) == "" {
		t.Errorf("second lock: error %v, hint %q", err, hint.Of(err))
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Lock(); err != nil {
		t.Errorf("after Close: %v", err)
	}
	other.Close()
}

// The lock holds against another process and ends when that is killed.
func TestLockOfKilledProcess(t *testing.T) {
	const variable = "RUNDIR_TEST_LOCK"
	if path := os.Getenv(variable); path != "" {
		d, err := Open(path)
		if err == nil {
			err = d.Lock()
		}
		fmt.Println("child:", err)
		time.Sleep(time.Minute)
		return
	}
	d := newRun(t)
	child := exec.Command(os.Args[0], "-test.run=^TestLockOfKilledProcess$")
	child.Env = append(os.Environ(), variable+"="+d.Path())
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	buf := make([]byte, 100)
	n, _ := out.Read(buf)
	if string(buf[:n]) != "child: <nil>\n" {
		t.Fatalf("the child says %q", buf[:n])
	}
	if err := d.Lock(); !errors.Is(err, ErrInUse) {
		t.Errorf("while the child holds the lock: error %v", err)
	}
	child.Process.Kill()
	child.Wait()
	if err := d.Lock(); err != nil {
		t.Errorf("after the child was killed: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	d := newRun(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 50 {
				fmt.Fprintf(d.Log(), "line %d\n", j)
				if err := d.AppendMetrics(map[string]int{"step": 50*i + j}); err != nil {
					t.Error(err)
				}
			}
			if err := d.SaveCheckpoint(fmt.Sprintf("epoch-%04d", i), checkpoint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(read(t, d, "log.txt"), "\n"); n != 200 {
		t.Errorf("%d lines in the log, want 200", n)
	}
	lines, _, err := d.Follow().Poll()
	if err != nil || len(lines) != 200 {
		t.Errorf("%d metrics, error %v, want 200", len(lines), err)
	}
	if all, err := d.Checkpoints(); err != nil || len(all) != 4 {
		t.Errorf("checkpoints %v, %v, want 4", all, err)
	}
}
