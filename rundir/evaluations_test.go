package rundir

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestEvaluationFiles(t *testing.T) {
	d := &Dir{path: t.TempDir()}
	write := func(w io.Writer) error { _, err := io.WriteString(w, "a,b\n"); return err }
	if err := d.WriteEvaluationFile("cifar10-test", "confusion.csv", write); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(d.EvaluationPath("cifar10-test"), "confusion.csv"))
	if err != nil || string(b) != "a,b\n" {
		t.Errorf("%q, %v", b, err)
	}
	for _, bad := range [][2]string{{"", "x"}, {"x", ""}, {"..", "x"}, {"x", "../y"}, {"a/b", "x"}, {"x", ".."}, {"x", ".hidden"}} {
		if err := d.WriteEvaluationFile(bad[0], bad[1], write); err == nil {
			t.Errorf("%q, %q: no error", bad[0], bad[1])
		}
	}
	if names, err := d.Evaluations(); len(names) != 0 || err != nil {
		t.Errorf("files alone are no evaluation: %v, %v", names, err)
	}
	if got := EvaluationName("my photos/2", "test", "", "six"); got != "my-photos-2-test-six" {
		t.Errorf("name %q", got)
	}
}

// Several processes, here directories of their own, add lines at the same time;
// half a line that a crash left stays what it is.
func TestLedger(t *testing.T) {
	path := t.TempDir()
	if lines, err := (&Dir{path: path}).Ledger(); lines != nil || err != nil {
		t.Errorf("without a ledger: %s, %v", lines, err)
	}
	var wait sync.WaitGroup
	for w := range 8 {
		wait.Go(func() {
			d := &Dir{path: path}
			for i := range 20 {
				if err := d.AppendLedger(map[string]int{"writer": w, "look": i}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	d := &Dir{path: path}
	seen := map[string]bool{}
	lines, err := d.Ledger()
	for _, line := range lines {
		var x struct{ Writer, Look int }
		if err := json.Unmarshal(line, &x); err != nil {
			t.Fatal(err)
		}
		seen[fmt.Sprint(x)] = true
	}
	if len(seen) != 160 || len(lines) != 160 || err != nil {
		t.Errorf("%d lines, %d different, %v", len(lines), len(seen), err)
	}

	file := filepath.Join(path, "evaluations", "ledger.jsonl")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(before, `{"half":`...), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := d.AppendLedger(map[string]int{"look": 161}); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(after), string(before)+`{"half":`) {
		t.Errorf("what was there has changed: %v", err)
	}
	if lines, err := d.Ledger(); len(lines) != 161 || err != nil {
		t.Errorf("after half a line: %d lines, %v", len(lines), err)
	}
	if err := d.AppendLedger([]int{1}); err == nil {
		t.Error("a list was taken for an object")
	}
}
