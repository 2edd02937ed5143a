package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// testScore is the one look at the test split that ends a run.
type testScore struct {
	Accuracy rundir.Float `json:"accuracy"`
	Interval [2]float64   `json:"interval_95"`
	Correct  int          `json:"correct"`
	Images   int          `json:"images"`
	Views    *viewsScore  `json:"with_views,omitempty"` // test-time augmentation
	Looks    int          `json:"looks"`                // at this split, of this run, this one counted
}

// viewsScore is the accuracy of the mean of several views of each picture.
type viewsScore struct {
	TTA      string       `json:"tta"`
	Accuracy rundir.Float `json:"accuracy"`
	Interval [2]float64   `json:"interval_95"`
	Correct  int          `json:"correct"`
}

// scoreTest judges a run's result by the test split, once, and counts the look.
func scoreTest(ctx context.Context, run *rundir.Dir, data *dataset.Data, cfg train.Config, which train.Result, eng engine.Engine, show *progress, stderr io.Writer) (*testScore, error) {
	tta := cfg.ScoreTest
	c, _, err := classify.OpenCheckpoint(run.Path(), which.String(), eng)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	pass, err := evaluate.NewPass(c, data.Test, evaluate.Options{BatchSize: evaluate.DefaultBatchSize, TTA: evaluate.TTA(tta)})
	if err != nil {
		return nil, err
	}
	s, err := evaluate.Summarize(ctx, pass, evaluate.CollectOptions{Classes: data.Classes}, watch(show, "scoring the test split", pass.Len()))
	show.done()
	if err != nil {
		return nil, err
	}
	weights, err := c.WeightsHash()
	if err != nil {
		return nil, err
	}
	score := &testScore{Images: s.Images, Looks: countLook(run, look{
		Time: time.Now().UTC().Truncate(time.Second), Command: "train", Data: data.Name, DataHash: data.Origin.Hash, Images: s.Images,
		Checkpoint: which.String(), Weights: weights, TTA: tta, Correct: s.Top1.Correct, Engine: eng.Name(), Precision: cfg.Precision, Version: version(),
	}, stderr)}
	plain := s.Top1
	if s.Plain != nil {
		plain = *s.Plain
		score.Views = &viewsScore{TTA: tta, Accuracy: s.Top1.Value, Interval: [2]float64{s.Top1.Low, s.Top1.High}, Correct: s.Top1.Correct}
	}
	score.Accuracy, score.Interval, score.Correct = plain.Value, [2]float64{plain.Low, plain.High}, plain.Correct
	return score, nil
}

func (s testScore) String() string {
	text := fmt.Sprintf("test split: %.2f %% (%d of %d; 95 %% interval %.2f to %.2f)", 100*float64(s.Accuracy), s.Correct, s.Images, 100*s.Interval[0], 100*s.Interval[1])
	if s.Views != nil {
		text += fmt.Sprintf("; with views (%s) %.2f %%", s.Views.TTA, 100*float64(s.Views.Accuracy))
	}
	return fmt.Sprintf("%s; look number %d", text, s.Looks)
}
