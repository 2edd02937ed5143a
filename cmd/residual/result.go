package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// result is result.json and what "residual train" prints last. Its history has
// Keras's keys.
type result struct {
	Run     string  `json:"run"`
	Epochs  int     `json:"epochs"`
	Seconds float64 `json:"seconds"` // of this process, without what came before a resume
	// EpochSeconds are those of all epochs, validation included.
	EpochSeconds float64                   `json:"epoch_seconds"`
	History      map[string][]rundir.Float `json:"history"`
	train.Result
	Test     *testScore         `json:"test,omitempty"`
	Expected *train.Expectation `json:"expected,omitempty"`
	Verdict  string             `json:"verdict,omitempty"` // how the accuracy compares with what was expected
}

// accuracy is the one that a run is judged by, with the split it is of: the test
// split where it was scored, else the validation of the epoch that is its result,
// else the training of that epoch.
func (r result) accuracy(cfg train.Config) (accuracy float64, split string) {
	switch {
	case r.Test != nil:
		return float64(r.Test.Accuracy), "test"
	case cfg.Data.Validation == "none":
		return r.ofResult("sparse_categorical_accuracy"), "train"
	}
	return r.validated("val_sparse_categorical_accuracy"), cfg.Data.Validation
}

// judge compares the accuracy with what the recipe promised, and says so.
func (r *result) judge(cfg train.Config, images loaders) string {
	accuracy, _ := r.accuracy(cfg)
	n := images.fit.Len()
	if images.val != nil {
		n = images.val.Len()
	}
	if r.Test != nil {
		n = r.Test.Images
	}
	low, high := metric.Wilson(int(math.Round(accuracy*float64(n))), n)
	r.Expected, r.Verdict = cfg.Expected, cfg.Expected.Judge(accuracy, low, high)
	return fmt.Sprintf("expected %s: %.2f %% is %s", r.Expected, 100*accuracy, r.Verdict)
}

// validated is a column of the history, of the weights that are the result, in the
// epoch that is.
func (r result) validated(key string) float64 {
	if r.Weights == train.EMAWeights {
		key = "ema_" + key
	}
	return r.ofResult(key)
}

// ofResult is a column of the history in the epoch that is the result: the last
// where the run does not say.
func (r result) ofResult(key string) float64 {
	h := r.History[key]
	epoch := cmp.Or(r.Epoch, len(h))
	if epoch < 1 || epoch > len(h) {
		return math.NaN()
	}
	return float64(h[epoch-1])
}

// ofSplit says which images an accuracy is of.
func ofSplit(split string) string {
	switch split {
	case "train":
		return "of the last epoch's training images"
	case "held-out":
		return "on held-out training images"
	}
	return "on the " + split + " split"
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

func newResult(run *rundir.Dir, history rundir.History, which train.Result, took time.Duration) result {
	r := result{Run: run.Path(), Epochs: len(history), Seconds: took.Seconds(), EpochSeconds: trainingSeconds(history), History: map[string][]rundir.Float{}, Result: which}
	add := func(key string, value func(rundir.Epoch) float64) {
		values := make([]rundir.Float, len(history))
		missing := 0
		for i, e := range history {
			values[i] = rundir.Float(value(e))
			if math.IsNaN(value(e)) {
				missing++
			}
		}
		if missing < len(values) { // as in Keras, no validation means no keys
			r.History[key] = values
		}
	}
	for _, k := range historyKeys {
		add(k.key, k.value)
	}
	if len(history) > 0 && history[0].EMA != nil {
		add("ema_val_loss", func(e rundir.Epoch) float64 { return e.EMA.ValLoss })
		add("ema_val_sparse_categorical_accuracy", func(e rundir.Epoch) float64 { return e.EMA.ValAccuracy })
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
	if best := r.Checkpoint != "last"; r.Weights != "" || best {
		of := "checkpoint"
		if r.Weights != "" {
			of = "the " + weightsNamed(r.Weights) + " of checkpoint"
		}
		fmt.Fprintf(&b, "\nthe result is %s %q", of, r.Checkpoint)
		if best {
			fmt.Fprintf(&b, ", epoch %d", r.Epoch)
		}
		if loss := r.validated("val_loss"); !math.IsNaN(loss) {
			fmt.Fprintf(&b, ": val_loss %.4f  val_accuracy %.4f", loss, r.validated("val_sparse_categorical_accuracy"))
		}
	}
	fmt.Fprintf(&b, "\n%s in %s", r.Run, elapsed(r.Seconds))
	if r.EpochSeconds > r.Seconds {
		fmt.Fprintf(&b, " since it was continued, all epochs in %s", elapsed(r.EpochSeconds))
	}
	fmt.Fprintf(&b, "; curves: %s/curves.png; judge it: residual eval %s\n", r.Run, hint.Quote(r.Run))
	_, err := io.WriteString(w, b.String())
	return err
}

// weightsNamed says in words which of a run's two sets of weights is meant.
func weightsNamed(which string) string {
	if which == train.EMAWeights {
		return "moving average"
	}
	return "raw weights"
}

// jsonRow is an epoch with the keys of history.csv.
func jsonRow(e rundir.Epoch) map[string]any {
	row := map[string]any{"epoch": e.Epoch, "seconds": e.Seconds, "images_per_second": rundir.Float(e.ImagesPerSecond)}
	for _, k := range historyKeys {
		row[k.key] = rundir.Float(k.value(e))
	}
	if e.EMA != nil {
		row["ema_val_loss"], row["ema_val_sparse_categorical_accuracy"] = rundir.Float(e.EMA.ValLoss), rundir.Float(e.EMA.ValAccuracy)
	}
	return row
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
