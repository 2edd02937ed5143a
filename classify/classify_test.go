package classify_test

import (
	"context"
	"fmt"
	"log"
	"math"
	"path/filepath"
	"testing"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

func Example() {
	eng, err := cpu.New(cpu.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer eng.Close()
	classifier, err := classify.Open("runs/2026-11-23-resnet18-shapes", eng)
	if err != nil {
		log.Fatal(err)
	}
	defer classifier.Close()
	var picture dataset.Image // dataset.LoadImage reads one from a file
	predictions, err := classifier.Predict(context.Background(), []dataset.Image{picture})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(predictions[0][0].Class, predictions[0][0].Probability)
}

// bright is a data set of 8×8 pictures, dark or bright.
type bright int

func (b bright) Len() int          { return int(b) }
func (b bright) Label(i int) int   { return i % 2 }
func (b bright) Name(i int) string { return fmt.Sprint("picture ", i) }
func (b bright) Image(i int, dst *dataset.Image) error {
	*dst = shade(8, uint8(60+90*(i%2)+i%7))
	return nil
}

func shade(size int, value uint8) dataset.Image {
	m := dataset.Image{Height: size, Width: size, Channels: 1, Pix: make([]uint8, size*size)}
	for i := range m.Pix {
		m.Pix[i] = value + uint8(i%3)
	}
	return m
}

// trainRun trains a small network to tell dark from bright.
func trainRun(t *testing.T, eng engine.Engine, path string) {
	t.Helper()
	adam, err := optim.Named("adam")
	if err != nil {
		t.Fatal(err)
	}
	cfg := train.Config{
		Model: model.Config{Name: "tiny", Convention: model.Torch, Height: 8, Width: 8, Channels: 1, Classes: 2,
			Stem: model.SmallStem, Block: model.Basic, Shortcut: model.Projection, Blocks: []int{1}, Filters: 4},
		Classes:    []string{"dark", "bright"},
		Preprocess: loader.Preprocess{Height: 8, Width: 8, Channels: 1, Resize: loader.Crop, Scale: 1.0 / 255},
		Optimizer:  adam, Schedule: optim.Schedule{Name: "constant"}, Epochs: 20, BatchSize: 16,
		Monitor: train.MonitorLoss, OnNaN: train.Stop, OnSaveError: train.Stop,
	}
	cfg.Optimizer.LearningRate = 0.01
	images, err := loader.New(bright(64), loader.Options{BatchSize: 16, Shuffle: true, Preprocess: cfg.Preprocess})
	if err != nil {
		t.Fatal(err)
	}
	run, err := rundir.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	if err := run.WriteConfig(cfg); err != nil {
		t.Fatal(err)
	}
	trainer, err := train.New(cfg, eng, images, nil, run, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer trainer.Close()
	if err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A trained run classifies pictures of any size and number of channels, one by
// one or together, with the same result.
func TestPredict(t *testing.T) {
	eng, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	path := filepath.Join(t.TempDir(), "run")
	trainRun(t, eng, path)
	c, err := classify.Open(path, eng)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	colour := dataset.Image{Height: 8, Width: 8, Channels: 3}
	for _, x := range shade(8, 160).Pix {
		colour.Pix = append(colour.Pix, x, x, x)
	}
	pictures := []dataset.Image{shade(8, 60), shade(8, 160), shade(20, 60), shade(20, 160), colour}
	together, err := c.Predict(t.Context(), pictures)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"dark", "bright", "dark", "bright", "bright"} {
		p := together[i]
		if p[0].Class != want || p[0].Probability < p[1].Probability || math.Abs(p[0].Probability+p[1].Probability-1) > 1e-6 {
			t.Errorf("picture %d: %+v, want %s first", i, p, want)
		}
		alone, err := c.Predict(t.Context(), pictures[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(alone[0][0].Probability-p[0].Probability) > 1e-6 {
			t.Errorf("picture %d: probability %v alone, %v among others", i, alone[0][0].Probability, p[0].Probability)
		}
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, row := range [][]float32{{nan, 0}, {0, inf}, {inf, -inf}, {-inf, -inf}} {
		if ranked, err := c.Ranked(row); err == nil || ranked != nil {
			t.Errorf("logits %v: %v, %v", row, ranked, err)
		}
	}
	if ranked, err := c.Ranked([]float32{-inf, 3}); err != nil || ranked[0] != (classify.Prediction{Class: c.Classes()[1], Index: 1, Probability: 1}) {
		t.Errorf("a logit of -∞: %v, %v", ranked, err)
	}
	if none, err := c.Predict(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("no pictures: %v, %v", none, err)
	}
	if _, err := classify.Open(t.TempDir(), eng); err == nil {
		t.Error("a directory without a run was opened")
	}
}
