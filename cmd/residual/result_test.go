package main

import (
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// A run is judged by the epoch and the weights that are its result, and says which
// these are.
func TestAccuracyOfResult(t *testing.T) {
	history := rundir.History{
		{Epoch: 1, Loss: 3, Accuracy: 0.1, ValLoss: 2.5, ValAccuracy: 0.21, EMA: &rundir.Scores{ValLoss: 2.6, ValAccuracy: 0.22}},
		{Epoch: 2, Loss: 2, Accuracy: 0.3, ValLoss: 1.5, ValAccuracy: 0.41, EMA: &rundir.Scores{ValLoss: 1.4, ValAccuracy: 0.42}},
		{Epoch: 3, Loss: 1, Accuracy: 0.5, ValLoss: 1.9, ValAccuracy: 0.31, EMA: &rundir.Scores{ValLoss: 1.8, ValAccuracy: 0.32}},
	}
	plain := rundir.History{history[0], history[1], history[2]}
	for i := range plain {
		plain[i].EMA = nil
	}
	run, err := rundir.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		history rundir.History
		which   train.Result
		want    float64
		says    string
	}{
		{plain, train.Result{Checkpoint: "last", Epoch: 3}, 0.31, ""},
		{plain, train.Result{Checkpoint: "last"}, 0.31, ""}, // of an older version
		{plain, train.Result{Checkpoint: "best", Epoch: 2}, 0.41, `the result is checkpoint "best", epoch 2: val_loss 1.5000  val_accuracy 0.4100`},
		{history, train.Result{Checkpoint: "last", Weights: "raw", Epoch: 3}, 0.31, `the result is the raw weights of checkpoint "last": val_loss 1.9000  val_accuracy 0.3100`},
		{history, train.Result{Checkpoint: "last", Weights: "ema", Epoch: 3}, 0.32, `the result is the moving average of checkpoint "last": val_loss 1.8000  val_accuracy 0.3200`},
		{history, train.Result{Checkpoint: "best", Weights: "ema", Epoch: 2}, 0.42, `the result is the moving average of checkpoint "best", epoch 2: val_loss 1.4000  val_accuracy 0.4200`},
	} {
		r := newResult(run, c.history, c.which, 0)
		if got, split := r.accuracy(train.Config{Data: train.DataConfig{Validation: "held-out"}}); got != c.want || split != "held-out" {
			t.Errorf("%+v: accuracy %v %s, want %v", c.which, got, split, c.want)
		}
		var text strings.Builder
		if err := r.write(&text, "text"); err != nil {
			t.Fatal(err)
		}
		line := ""
		for _, l := range strings.Split(text.String(), "\n") {
			if strings.HasPrefix(l, "the result is") {
				line = l
			}
		}
		if line != c.says {
			t.Errorf("%+v: it says %q, want %q", c.which, line, c.says)
		}
	}
	for i := range plain {
		plain[i].Seconds = 3600
	}
	for took, want := range map[time.Duration]string{
		3*time.Hour + time.Minute: run.Path() + " in 3h01m; curves: ",
		20 * time.Minute:          run.Path() + " in 20m00s since it was continued, all epochs in 3h00m; curves: ",
	} {
		var text strings.Builder
		if err := newResult(run, plain, train.Result{Checkpoint: "last", Epoch: 3}, took).write(&text, "text"); err != nil || !strings.Contains(text.String(), want) {
			t.Errorf("after %v: %v, it says %q, want %q", took, err, text.String(), want)
		}
	}
	plain[0].Seconds = math.NaN() // missing in history.csv
	if err := newResult(run, plain, train.Result{Checkpoint: "last", Epoch: 3}, 0).write(io.Discard, "json"); err != nil {
		t.Errorf("without the seconds of an epoch: %v", err)
	}
	unseen := newResult(run, nil, train.Result{Checkpoint: "last", Epoch: 4}, 0)
	if got, _ := unseen.accuracy(train.Config{}); !math.IsNaN(got) {
		t.Errorf("without a history the accuracy is %v", got)
	}
}

// What is expected is compared with the interval of the mean, which is narrow for many
// seeds however much single ones scatter.
func TestSeedsAsExpected(t *testing.T) {
	for n, want := range map[int]string{2: "0.50 points below it, which chance can explain", 20: "0.50 points below it", 1: "1.50 points below it"} {
		r := seedsResult{Split: "test", Expected: &train.Expectation{Low: 0.925, High: 0.93, Source: "nobody"}}
		for i := range n {
			r.Runs = append(r.Runs, seedResult{Accuracy: rundir.Float(0.91 + 0.02*float64(i%2))})
		}
		r.summarize()
		var text strings.Builder
		if err := r.write(&text, "text"); err != nil || !strings.Contains(text.String(), "the mean is "+want+"\n") {
			t.Errorf("%d seeds: %v, got:\n%s", n, err, text.String())
		}
		if err := r.write(&text, "json"); err != nil {
			t.Error(err)
		}
	}
}

// Several seeds have a mean and a deviation with and without views; one has no
// deviation.
func TestTextOfSeeds(t *testing.T) {
	score := func(views rundir.Float) *viewsScore { return &viewsScore{TTA: "six", Accuracy: views} }
	r := seedsResult{Split: "test", Runs: []seedResult{
		{Seed: 3, Run: "a/seed-3", Accuracy: 0.91, Views: score(0.93), Seconds: 61}, {Seed: 4, Run: "a/seed-4", Accuracy: 0.93, Views: score(0.95), Seconds: 59},
	}}
	for n, want := range map[int]string{
		2: `seed 3       91.00 %  with views (six)  93.00 %     1m01s  a/seed-3
seed 4       93.00 %  with views (six)  95.00 %       59s  a/seed-4
accuracy on the test split: 92.00 ± 1.41 % over 2 seeds, 1m00s each
with views (six): 94.00 ± 1.41 %
`,
		1: `seed 3       91.00 %  with views (six)  93.00 %     1m01s  a/seed-3
accuracy on the test split: 91.00 % over one seed, 1m01s
with views (six): 93.00 %
`,
	} {
		some := r
		some.Runs = r.Runs[:n]
		some.summarize()
		var text strings.Builder
		if err := some.write(&text, "text"); err != nil || text.String() != want {
			t.Errorf("%d seeds: %v, got:\n%s", n, err, text.String())
		}
	}
}
