package rundir

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func epoch(n int) Epoch {
	return Epoch{n, 1.5, 0.25, 2, math.NaN(), 1e-3, 12.5, 3000, nil}
}

func TestHistory(t *testing.T) {
	d := newRun(t)
	if h, err := d.History(); len(h) != 0 || err != nil {
		t.Errorf("history of nothing: %v, %v", h, err)
	}
	for n := 1; n <= 2; n++ {
		if err := d.AppendEpoch(epoch(n)); err != nil {
			t.Fatal(err)
		}
	}
	want := "epoch,loss,sparse_categorical_accuracy,val_loss,val_sparse_categorical_accuracy,learning_rate,seconds,images_per_second\n" +
		"1,1.5,0.25,2,,0.001,12.5,3000\n2,1.5,0.25,2,,0.001,12.5,3000\n"
	if got := read(t, d, "history.csv"); got != want {
		t.Errorf("history.csv is\n%swant\n%s", got, want)
	}

	// A crash while a line is written: readers leave it out, the next line replaces it.
	path := filepath.Join(d.Path(), "history.csv")
	write(t, path, want+"3,1.5,0.2")
	h, err := d.History()
	if err != nil || len(h) != 2 || h[1].Epoch != 2 || h[1].Seconds != 12.5 || !math.IsNaN(h[1].ValAccuracy) {
		t.Errorf("history %v, error %v", h, err)
	}
	e := epoch(3)
	e.Loss = math.Inf(1)
	if err := d.AppendEpoch(e); err != nil {
		t.Fatal(err)
	}
	if got := read(t, d, "history.csv"); got != want+"3,+Inf,0.25,2,,0.001,12.5,3000\n" {
		t.Errorf("after the repair history.csv is\n%s", got)
	}
	if h, err := d.History(); err != nil || len(h) != 3 || !math.IsInf(h[2].Loss, 1) {
		t.Errorf("history %v, error %v", h, err)
	}

	// Cut in the header.
	write(t, path, "epoch,lo")
	if h, err := d.History(); len(h) != 0 || err != nil {
		t.Errorf("history %v, error %v", h, err)
	}
	if err := d.AppendEpoch(epoch(1)); err != nil {
		t.Fatal(err)
	}
	if h, err := d.History(); len(h) != 1 || err != nil {
		t.Errorf("history %v, error %v", h, err)
	}

	// Columns go by name; those of a newer version are ignored.
	write(t, path, "new,loss,epoch\nx,0.5,1\n")
	if h, err := d.History(); err != nil || len(h) != 1 || h[0].Loss != 0.5 || !math.IsNaN(h[0].Accuracy) {
		t.Errorf("history %v, error %v", h, err)
	}
	for content, want := range map[string]string{
		"a,b\n1,2\n":          "no column epoch",
		"epoch,loss\n1\n":     "line 2: 1 cells, want 2",
		"epoch,loss\nx,1\n":   `epoch is "x"`,
		"epoch,loss\n1,abc\n": `loss is "abc"`,
	} {
		write(t, path, content)
		if _, err := d.History(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: error %v, want %q in it", content, err, want)
		}
	}
}

// texts polls and returns the lines as strings.
func texts(t *testing.T, f *Follower) (lines []string, restarted bool) {
	t.Helper()
	raw, restarted, err := f.Poll()
	if err != nil {
		t.Error(err)
	}
	for _, r := range raw {
		lines = append(lines, string(r))
	}
	return lines, restarted
}

func wantLines(t *testing.T, f *Follower, restarted bool, want ...string) {
	t.Helper()
	got, r := texts(t, f)
	if !reflect.DeepEqual(got, want) || r != restarted {
		t.Errorf("lines %q, restarted %v; want %q, %v", got, r, want, restarted)
	}
}

type stepMetrics struct {
	Step int   `json:"step"`
	Loss Float `json:"loss"`
}

func TestFollow(t *testing.T) {
	d := newRun(t)
	f := d.Follow()
	wantLines(t, f, false) // no file yet
	if err := d.AppendMetrics(stepMetrics{1, 0.5}); err != nil {
		t.Fatal(err)
	}
	if err := d.AppendMetrics(stepMetrics{2, Float(math.NaN())}); err != nil {
		t.Fatal(err)
	}
	wantLines(t, f, false, `{"step":1,"loss":0.5}`, `{"step":2,"loss":null}`)
	wantLines(t, f, false)

	// A line that arrives in pieces.
	path := filepath.Join(d.Path(), "metrics.jsonl")
	raw, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.WriteString(`{"step":3,`)
	wantLines(t, f, false)
	raw.WriteString(`"loss":1}` + "\n" + `{"st`)
	wantLines(t, f, false, `{"step":3,"loss":1}`)

	// A crash left the half line; a resumed process appends.
	resumed, err := Open(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer resumed.Close()
	if err := resumed.AppendMetrics(stepMetrics{4, 2}); err != nil {
		t.Fatal(err)
	}
	wantLines(t, f, false, `{"step":4,"loss":2}`)

	// A resumed run goes back, and the follower starts again.
	if err := resumed.TruncateAfter(1, 2); err != nil {
		t.Fatal(err)
	}
	// The file may have become longer than it was, so its size says nothing.
	for step := 3; step <= 5; step++ {
		if err := resumed.AppendMetrics(stepMetrics{step, 9}); err != nil {
			t.Fatal(err)
		}
	}
	wantLines(t, f, true, `{"step":1,"loss":0.5}`, `{"step":2,"loss":null}`,
		`{"step":3,"loss":9}`, `{"step":4,"loss":9}`, `{"step":5,"loss":9}`)

	// A damaged line is reported once and skipped.
	if err := resumed.Close(); err != nil {
		t.Fatal(err)
	}
	content := read(t, d, "metrics.jsonl")
	write(t, path, content+"\x00\x00\n{\"step\":6}\n")
	lines, _, err := f.Poll()
	if err == nil || len(lines) != 1 {
		t.Errorf("damaged line: %q, error %v", lines, err)
	}
	wantLines(t, f, false)
	if err := resumed.TruncateAfter(1, 6); err != nil {
		t.Fatal(err)
	}
	if got := read(t, d, "metrics.jsonl"); got != content+"{\"step\":6}\n" {
		t.Errorf("after the repair: %q", got)
	}

	for _, v := range []any{[]int{1}, 3, "x", nil, math.NaN(), json.RawMessage("{\n")} {
		if err := d.AppendMetrics(v); err == nil {
			t.Errorf("%v was accepted as metrics", v)
		}
	}
}

func TestFloat(t *testing.T) {
	b, err := json.Marshal([]Float{1.5, Float(math.NaN()), Float(math.Inf(-1))})
	if err != nil || string(b) != "[1.5,null,null]" {
		t.Errorf("%s, %v", b, err)
	}
	var back []Float
	if err := json.Unmarshal(b, &back); err != nil || back[0] != 1.5 || !math.IsNaN(float64(back[1])) {
		t.Errorf("%v, %v", back, err)
	}
}

func TestOpenLinesRepairs(t *testing.T) {
	d := newRun(t)
	long := strings.Repeat("x", 10_000) // longer than the blocks it is searched by
	for content, want := range map[string]string{
		"": "", "half": "", long: "", "a\n": "a\n", "a\nhalf": "a\n", "a\n" + long: "a\n",
		long + "\n": long + "\n", long + "\n" + long: long + "\n",
	} {
		write(t, filepath.Join(d.Path(), "f"), content)
		f, size, err := d.openLines("f")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if got := read(t, d, "f"); got != want || size != int64(len(want)) {
			t.Errorf("%d bytes became %d (%d), want %d", len(content), len(got), size, len(want))
		}
	}
}

func TestTruncateAfter(t *testing.T) {
	d := newRun(t)
	for n := 1; n <= 3; n++ {
		for s := range 10 {
			if err := d.AppendMetrics(map[string]int{"step": 10*(n-1) + s + 1, "epoch": n}); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.AppendMetrics(map[string]int{"epoch": n, "val": 1}); err != nil {
			t.Fatal(err)
		}
		if err := d.AppendEpoch(epoch(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.WriteResult(1); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is left to do
		if err := d.TruncateAfter(1, 15); err != nil {
			t.Fatal(err)
		}
		h, err := d.History()
		if err != nil || len(h) != 1 || h[0].Loss != 1.5 {
			t.Errorf("history %v, error %v", h, err)
		}
		lines, _ := texts(t, d.Follow())
		if len(lines) != 16 || lines[15] != `{"epoch":2,"step":15}` || lines[10] != `{"epoch":1,"val":1}` {
			t.Errorf("%d lines: %q", len(lines), lines)
		}
		if d.Finished() {
			t.Error("a run to be continued counts as finished")
		}
	}
	if err := d.AppendEpoch(epoch(2)); err != nil {
		t.Fatal(err)
	}
	if h, _ := d.History(); len(h) != 2 {
		t.Errorf("history %v", h)
	}
	if err := newRun(t).TruncateAfter(0, 0); err != nil {
		t.Errorf("a run without files: %v", err)
	}
}

// A damaged history.csv does not stop a run, and what a checkpoint knows of it
// brings it back.
func TestRepairHistory(t *testing.T) {
	d := newRun(t)
	var h History
	for i := range 3 {
		h = append(h, Epoch{Epoch: i + 1, Loss: float64(i), ValLoss: math.NaN(), ValAccuracy: 0.5})
		if err := d.AppendEpoch(h[i]); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(d.Path(), historyFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Replace(whole, []byte("\n2,"), []byte("\ntwo,"), 1)
	if err := os.WriteFile(path, damaged, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := d.History(); err == nil {
		t.Fatal("the damage is not seen")
	}
	if err := errors.Join(d.TruncateAfter(3, 100), d.RepairHistory(h)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, whole) {
		t.Errorf("repaired:\n%s\nwant:\n%s\n%v", got, whole, err)
	}
	if err := errors.Join(d.TruncateAfter(1, 100), d.RepairHistory(h[:1])); err != nil {
		t.Fatal(err)
	}
	if got, err := d.History(); err != nil || len(got) != 1 {
		t.Errorf("%d rows after going back to epoch 1; %v", len(got), err)
	}
}
