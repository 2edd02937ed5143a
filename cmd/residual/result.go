package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/residual-ml/residual/rundir"
)

// result is result.json and what "residual train" prints last. Its history has
// Keras's keys.
type result struct {
	Run     string                    `json:"run"`
	Epochs  int                       `json:"epochs"`
	Seconds float64                   `json:"seconds"` // of this process, without what came before a resume
	History map[string][]rundir.Float `json:"history"`
	// Checkpoint is the one that is the run's result.
	Checkpoint string `json:"checkpoint"`
}

// historyKeys are Keras's names, in its order.
var historyKeys = []struct {
	key   string
	value func(rundir.Epoch) float64
}{
	{"loss", func(e rundir.Epoch) float64 { return e.Loss }},
	{"sparse_categorical_accuracy", func(e rundir.Epoch) float64 { return e.Accuracy }},
	{"val_loss", func(e rundir.Epoch) float64 { return e.ValLoss }},
	{"val_sparse_categorical_accuracy", func(e rundir.Epoch) float64 { return e.ValAccuracy }},
}

func newResult(run *rundir.Dir, history rundir.History, checkpoint string, took time.Duration) result {
	r := result{Run: run.Path(), Epochs: len(history), Seconds: took.Seconds(), History: map[string][]rundir.Float{}, Checkpoint: checkpoint}
	for _, k := range historyKeys {
		values := make([]rundir.Float, len(history))
		missing := 0
		for i, e := range history {
			values[i] = rundir.Float(k.value(e))
			if math.IsNaN(k.value(e)) {
				missing++
			}
		}
		if missing < len(values) { // as in Keras, no validation means no keys
			r.History[k.key] = values
		}
	}
	return r
}

func (r result) write(w io.Writer, format string) error {
	if format == "json" {
		return writeJSON(w, r)
	}
	var b strings.Builder
	var keys []string
	for _, k := range historyKeys {
		if r.History[k.key] != nil {
			keys = append(keys, k.key)
		}
	}
	b.WriteString("epoch")
	for _, k := range keys {
		fmt.Fprintf(&b, "  %s", k)
	}
	for i := range r.Epochs {
		fmt.Fprintf(&b, "\n%5d", i+1)
		for _, k := range keys {
			fmt.Fprintf(&b, "  %*.4f", len(k), float64(r.History[k][i]))
		}
	}
	fmt.Fprintf(&b, "\n%s in %s; curves: %s/curves.png\n", r.Run, roundly(time.Duration(r.Seconds*float64(time.Second))), r.Run)
	_, err := io.WriteString(w, b.String())
	return err
}

// jsonRow is an epoch with the keys of history.csv.
func jsonRow(e rundir.Epoch) map[string]any {
	row := map[string]any{"epoch": e.Epoch, "seconds": e.Seconds, "images_per_second": rundir.Float(e.ImagesPerSecond)}
	for _, k := range historyKeys {
		row[k.key] = rundir.Float(k.value(e))
	}
	return row
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
