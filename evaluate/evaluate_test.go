package evaluate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"maps"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/tensor"
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
	ctx := context.Background()
	data, err := dataset.Open(ctx, "shapes", dataset.Options{})
	if err != nil {
		log.Fatal(err)
	}

	pass, err := evaluate.NewPass(classifier, data.Test, evaluate.Options{TTA: evaluate.Flip})
	if err != nil {
		log.Fatal(err)
	}
	for record, err := range pass.Records(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if !record.Correct() {
			fmt.Println(record.Name(), classifier.Classes()[record.Predicted], record.Confidence)
		}
	}

	summary, err := evaluate.Summarize(ctx, pass, evaluate.CollectOptions{}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f (%.4f to %.4f)\n", summary.Top1.Value, summary.Top1.Low, summary.Top1.High)
}

// stripes is a data set of 6×6 pictures of three classes that a small network
// learns in part: the class's brightness with noise.
type stripes int

func (s stripes) Len() int          { return int(s) }
func (s stripes) Label(i int) int   { return i % 3 }
func (s stripes) Name(i int) string { return fmt.Sprint("picture ", i) }
func (s stripes) Image(i int, dst *dataset.Image) error {
	*dst = dataset.Image{Height: 6, Width: 6, Channels: 1, Pix: make([]uint8, 36)}
	for p := range dst.Pix {
		dst.Pix[p] = uint8(40 + 30*(i%3) + (i*7+p*p*13+i*p*5)%90)
	}
	return nil
}

func open(t *testing.T) (*classify.Classifier, engine.Engine) {
	t.Helper()
	eng, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	path := filepath.Join(t.TempDir(), "run")
	trainRun(t, eng, path, 1)
	c, err := classify.Open(path, eng)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, eng
}

func trainRun(t *testing.T, eng engine.Engine, path string, seed uint64) {
	t.Helper()
	adam, err := optim.Named("adam")
	if err != nil {
		t.Fatal(err)
	}
	cfg := train.Config{
		Model: model.Config{Name: "tiny", Convention: model.Torch, Height: 6, Width: 6, Channels: 1, Classes: 3,
			Stem: model.SmallStem, Block: model.Basic, Shortcut: model.Projection, Blocks: []int{1}, Filters: 4},
		Classes:    []string{"low", "middle", "high"},
		Preprocess: loader.Preprocess{Height: 6, Width: 6, Channels: 1, Resize: loader.Crop, Scale: 1.0 / 255},
		Optimizer:  adam, L2: 0.01, Schedule: optim.Schedule{Name: "constant"}, Epochs: 3, BatchSize: 16, Seed: seed,
		Monitor: train.MonitorLoss, OnNaN: train.Stop, OnSaveError: train.Stop,
	}
	cfg.Optimizer.LearningRate = 0.01
	images, err := loader.New(stripes(192), loader.Options{BatchSize: 16, Shuffle: true, Preprocess: cfg.Preprocess})
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

// Records against pictures that are shown to the network one by one, the views of
// six written out.
func TestRecords(t *testing.T) {
	c, _ := open(t)
	const n, size, temperature = 23, 6, 1.7 // a tail of 3 after batches of 5
	logitsOf := func(pixels [size][size]float32) []float32 {
		flat := make([]float32, 0, size*size)
		for _, row := range pixels {
			flat = append(flat, row[:]...)
		}
		out, err := c.Logits(t.Context(), tensor.Of(flat, 1, size, size, 1))
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(out)
	}
	mirrored := func(p [size][size]float32) [size][size]float32 {
		for y := range p {
			slices.Reverse(p[y][:])
		}
		return p
	}
	// moved is the window of the picture with a reflected border of one pixel that
	// begins at (at,at).
	moved := func(p [size][size]float32, at int) (out [size][size]float32) {
		var padded [size + 2][size + 2]float32
		for y := range padded {
			for x := range padded {
				fold := func(i int) int {
					switch i {
					case -1:
						return 1
					case size:
						return size - 2
					}
					return i
				}
				padded[y][x] = p[fold(y-1)][fold(x-1)]
			}
		}
		for y := range out {
			copy(out[y][:], padded[y+at][at:])
		}
		return out
	}
	for _, tta := range evaluate.TTAs {
		p, err := evaluate.NewPass(c, stripes(n), evaluate.Options{BatchSize: 5, TTA: tta, Temperature: temperature})
		if err != nil {
			t.Fatal(err)
		}
		averaged, err := evaluate.Averaged(c, tta)
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for r, err := range p.Records(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			var picture dataset.Image
			if err := r.Image(&picture); err != nil {
				t.Fatal(err)
			}
			var pixels [size][size]float32
			for i, x := range picture.Pix {
				pixels[i/size][i%size] = float32(float64(x) / 255)
			}
			mirror := func(p [size][size]float32) []float32 {
				a, b := logitsOf(p), logitsOf(mirrored(p))
				for k := range a {
					a[k] = 0.5*a[k] + 0.5*b[k]
				}
				return a
			}
			plain := logitsOf(pixels)
			want := slices.Clone(plain)
			switch tta {
			case evaluate.Flip:
				want = mirror(pixels)
			case evaluate.Six:
				a, b, c := mirror(pixels), mirror(moved(pixels, 0)), mirror(moved(pixels, 2))
				for k := range want {
					want[k] = 0.5*a[k] + 0.25*b[k] + 0.25*c[k]
				}
			}
			probabilities := make([]float64, 3)
			metric.Softmax(probabilities, want, temperature)
			for k := range want {
				// Batches of other sizes may add in another order.
				if math.Abs(float64(r.Logits[k]-want[k])) > 1e-5 || math.Abs(float64(r.Plain[k]-plain[k])) > 1e-5 || math.Abs(r.Probabilities[k]-probabilities[k]) > 1e-5 {
					t.Fatalf("%s, picture %d: logits %v, plain %v, probabilities %v; want %v, %v, %v", tta, r.Index, r.Logits, r.Plain, r.Probabilities, want, plain, probabilities)
				}
			}
			flat := make([]float32, size*size)
			for i := range flat {
				flat[i] = pixels[i/size][i%size]
			}
			alone, err := averaged(t.Context(), tensor.Of(flat, 1, size, size, 1))
			if err != nil || len(alone) != len(want) {
				t.Fatalf("%s, picture %d: averaged %v, %v", tta, r.Index, alone, err)
			}
			for k := range want { // which adds up in another order
				if math.Abs(float64(alone[k]-want[k])) > 1e-5 {
					t.Fatalf("%s, picture %d: averaged %v, want %v", tta, r.Index, alone, want)
				}
			}
			if r.Index != seen || r.Label != seen%3 || r.Name() != fmt.Sprint("picture ", seen) {
				t.Fatalf("record %d is %+v", seen, r)
			}
			if r.Predicted != metric.Argmax(want) || r.Correct() != (r.Predicted == r.Label) || math.Abs(r.Confidence-slices.Max(probabilities)) > 1e-5 {
				t.Errorf("%s, picture %d: predicted %d with %v, correct %v; logits %v", tta, seen, r.Predicted, r.Confidence, r.Correct(), want)
			}
			if math.Abs(r.Loss-metric.CrossEntropy(want, r.Label, 1)) > 1e-5 {
				t.Errorf("%s, picture %d: loss %v", tta, seen, r.Loss)
			}
			seen++
		}
		if timing := p.Timing(); seen != n || timing.Images != n || timing.Engine <= 0 || timing.Engine+timing.Waiting > timing.Total {
			t.Errorf("%s: %d records, timing %+v", tta, seen, timing)
		}
	}
}

// The summary of a pass against the evaluation that training does, penalty
// included, and against counting again.
func TestSummarize(t *testing.T) {
	c, eng := open(t)
	const n = 70
	p, err := evaluate.NewPass(c, stripes(n), evaluate.Options{BatchSize: 16, TTA: evaluate.Flip, Temperature: 2})
	if err != nil {
		t.Fatal(err)
	}
	correct, seen := 0, 0
	s, err := evaluate.Summarize(t.Context(), p, evaluate.CollectOptions{Pictures: 5}, func(r evaluate.Record) error {
		if r.Correct() {
			correct++
		}
		seen++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != n || s.Images != n || s.Top1.Correct != correct || s.Top1.Images != n || s.Top5 != nil || correct == 0 || correct == n {
		t.Errorf("%d records, %d right; summary %+v", seen, correct, s.Top1)
	}
	cfg := c.Config()
	images, err := loader.New(stripes(n), loader.Options{BatchSize: 16, Preprocess: cfg.Preprocess})
	if err != nil {
		t.Fatal(err)
	}
	ev := train.NewEvaluator(cfg, eng, c.Variables())
	defer ev.Close()
	score, err := ev.Run(t.Context(), images, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Plain.Correct != score.Correct || s.Penalty <= 0 || math.Abs(float64(s.PlainCross.Value+s.Penalty)-score.Loss) > 1e-5 {
		t.Errorf("without augmentation %d right, loss %v + %v; training says %d, %v", s.Plain.Correct, s.PlainCross.Value, s.Penalty, score.Correct, score.Loss)
	}
	if math.Abs(float64(s.Loss-s.CrossEntropy.Value-s.Penalty)) > 1e-12 {
		t.Errorf("loss %v, cross-entropy %v, penalty %v", s.Loss, s.CrossEntropy.Value, s.Penalty)
	}
	if s.TTAGain.Images != n || s.TTAGain.OnlyB-s.TTAGain.OnlyA != s.Top1.Correct-s.Plain.Correct {
		t.Errorf("gain %+v from %d to %d", s.TTAGain, s.Plain.Correct, s.Top1.Correct)
	}
	if s.Calibration.Temperature != 2 || s.Uncalibrated == nil || s.Uncalibrated.NLL.Value != s.CrossEntropy.Value || s.Calibration.NLL.Value == s.CrossEntropy.Value {
		t.Errorf("calibration %+v, without %+v", s.Calibration, s.Uncalibrated)
	}
	if len(s.WorstMistakes) != 5 || len(s.LeastCertain) != 5 || s.Throughput.Views != 2 || s.Throughput.Seconds <= 0 {
		t.Errorf("%d worst mistakes, %d least certain, throughput %+v", len(s.WorstMistakes), len(s.LeastCertain), s.Throughput)
	}
}

// The collector on six records worked by hand. Probabilities of three classes are
// p, (1-p)/2, (1-p)/2 with the logit log p - log((1-p)/2) for one class.
func TestCollector(t *testing.T) {
	c := evaluate.NewCollector([]string{"a", "b", "c"}, evaluate.CollectOptions{Pictures: 2, Bins: 2})
	nan := float32(math.NaN())
	add := func(index, label, says int, p float64) {
		t.Helper()
		logits := make([]float32, 3)
		logits[says] = float32(math.Log(p) - math.Log((1-p)/2))
		probabilities := make([]float64, 3)
		metric.Softmax(probabilities, logits, 1)
		err := c.Add(evaluate.NewRecord(stripes(9), index, label, logits, probabilities))
		if err != nil {
			t.Fatal(err)
		}
	}
	add(0, 0, 0, 0.9)
	add(1, 0, 1, 0.8) // wrong: the label has 0.1
	add(2, 1, 1, 0.7)
	add(3, 1, 2, 0.4) // wrong: 0.3
	add(4, 0, 1, 0.6) // wrong: 0.2
	s := c.Summary()
	near := func(what string, got rundir.Float, want float64) {
		t.Helper()
		if math.Abs(float64(got)-want) > 1e-6 { // logits are float32
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	near("accuracy", s.Top1.Value, 2.0/5)
	near("cross-entropy", s.CrossEntropy.Value, -(math.Log(0.9)+math.Log(0.1)+math.Log(0.7)+math.Log(0.3)+math.Log(0.2))/5)
	if want := [][]int{{1, 2, 0}, {0, 1, 1}, {0, 0, 0}}; !reflect.DeepEqual(s.Confusion, want) || s.NoPrediction != nil {
		t.Errorf("confusion %v, none %v, want %v", s.Confusion, s.NoPrediction, want)
	}
	if want := []evaluate.Pair{{Truth: 0, Predicted: 1, Count: 2, Share: 2.0 / 3}, {Truth: 1, Predicted: 2, Count: 1, Share: 0.5}}; !slices.Equal(s.MostConfused, want) {
		t.Errorf("most confused %v, want %v", s.MostConfused, want)
	}
	near("precision of b", s.PerClass[1].Precision, 1.0/3)
	near("recall of a", s.PerClass[0].Recall, 1.0/3)
	near("F1 of b", s.PerClass[1].F1, 2.0/5)
	if s.PerClass[2].Support != 0 || s.PerClass[2].Recall == s.PerClass[2].Recall {
		t.Errorf("class c, which does not occur: %+v", s.PerClass[2])
	}
	index := func(pictures []evaluate.Picture) (all []int) {
		for _, p := range pictures {
			all = append(all, p.Index)
		}
		return all
	}
	if got := index(s.WorstMistakes); !slices.Equal(got, []int{1, 4}) {
		t.Errorf("worst mistakes %v, want 1, 4", got)
	}
	if got := index(s.LeastCertain); !slices.Equal(got, []int{3, 4}) {
		t.Errorf("least certain %v, want 3, 4", got)
	}
	worst := s.WorstMistakes[0]
	near("its label's probability", worst.LabelProbability, 0.1)
	near("its confidence", worst.Confidence, 0.8)
	if worst.Name != "picture 1" || worst.Label != 0 || worst.Predicted != 1 || len(worst.Top) != 3 || worst.Top[0].Class != 1 {
		t.Errorf("worst mistake %+v", worst)
	}
	// Bins (0,½] with 0.4, wrong, and (½,1] with 0.9+0.8+0.7+0.6 = 3, two right.
	near("ECE", s.Calibration.ECE, (0.4+1)/5)
	near("confidence", s.Calibration.Confidence, 3.4/5)
	// Most confident first: right, wrong, right, wrong, wrong.
	near("AURC", s.Coverage.AURC, (0+1.0/2+1.0/3+2.0/4+3.0/5)/5)
	if len(s.Coverage.Points) != 5 || s.Coverage.Points[2].Correct != 2 || s.Coverage.Points[2].Coverage != 0.6 {
		t.Errorf("coverage %+v", s.Coverage.Points)
	}
	if len(s.Coverage.Targets) == 0 || s.Coverage.Targets[0].Answered != 1 {
		t.Errorf("targets %+v", s.Coverage.Targets)
	}

	// A picture whose logits are not numbers is wrong, and everything still encodes.
	if err := c.Add(evaluate.NewRecord(stripes(9), 5, 2, []float32{nan, 0, 0}, []float64{math.NaN(), math.NaN(), math.NaN()})); err != nil {
		t.Fatal(err)
	}
	s = c.Summary()
	if s.Images != 6 || s.Top1.Correct != 2 || !slices.Equal(s.NoPrediction, []int{0, 0, 1}) || s.WorstMistakes[0].Index != 5 {
		t.Errorf("with NaN: %d pictures, %d right, none %v, worst %+v", s.Images, s.Top1.Correct, s.NoPrediction, s.WorstMistakes[0])
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back evaluate.Summary
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil || string(again) != string(b) {
		t.Errorf("written and read it is another summary: %v", err)
	}
}

// A summary that speaks of classes it does not have is passed over, one of an
// evaluation is not.
func TestStored(t *testing.T) {
	run, err := rundir.Create(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	stored := func(change func(s *evaluate.Summary)) int {
		t.Helper()
		c := evaluate.NewCollector([]string{"a", "b"}, evaluate.CollectOptions{})
		for i, logits := range [][]float32{{1, 0}, {1, 0}, {float32(math.NaN()), 0}} {
			p := make([]float64, 2)
			metric.Softmax(p, logits, 1)
			if err := c.Add(evaluate.NewRecord(stripes(9), i, i%2, logits, p)); err != nil {
				t.Fatal(err)
			}
		}
		s := c.Summary()
		change(&s)
		if err := run.WriteEvaluation("one", s); err != nil {
			t.Fatal(err)
		}
		names, all, err := evaluate.Stored(run)
		if err != nil || len(names) != len(all) {
			t.Fatalf("%d names of %d summaries, %v", len(names), len(all), err)
		}
		return len(all)
	}
	if n := stored(func(*evaluate.Summary) {}); n != 1 {
		t.Errorf("%d summaries, want the one that was written", n)
	}
	for name, change := range map[string]func(s *evaluate.Summary){
		"a class more":    func(s *evaluate.Summary) { s.Classes = append(s.Classes, "c") },
		"a class less":    func(s *evaluate.Summary) { s.PerClass = s.PerClass[:1] },
		"a row less":      func(s *evaluate.Summary) { s.Confusion = s.Confusion[:1] },
		"a short row":     func(s *evaluate.Summary) { s.Confusion[1] = s.Confusion[1][:1] },
		"no prediction":   func(s *evaluate.Summary) { s.NoPrediction = s.NoPrediction[:1] },
		"most confused":   func(s *evaluate.Summary) { s.MostConfused[0].Predicted = 2 },
		"a label":         func(s *evaluate.Summary) { s.WorstMistakes[0].Label = -1 },
		"a prediction":    func(s *evaluate.Summary) { s.LeastCertain[0].Predicted = 2 },
		"a likely class":  func(s *evaluate.Summary) { s.LeastCertain[2].Top[0].Class = 2 },
		"another mistake": func(s *evaluate.Summary) { s.WorstMistakes[1].Predicted = -2 },
	} {
		if n := stored(change); n != 0 {
			t.Errorf("%s: the summary is taken", name)
		}
	}
}

// The pictures kept are those that sorting all of them would give.
func TestKeptPictures(t *testing.T) {
	c := evaluate.NewCollector([]string{"a", "b"}, evaluate.CollectOptions{Pictures: 7})
	type entry struct {
		index int
		p     float64
	}
	var all []entry
	for i := range 500 {
		p := 0.5 + float64((i*7919)%101)/250 // many equal ones
		all = append(all, entry{i, p})
		if err := c.Add(evaluate.NewRecord(stripes(500), i, 0, []float32{float32(p), 0}, []float64{p, 1 - p})); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int {
		if a.p < b.p {
			return -1
		} else if a.p > b.p {
			return 1
		}
		return 0
	})
	for i, p := range c.Summary().LeastCertain {
		if p.Index != all[i].index {
			t.Errorf("least certain %d: picture %d, want %d", i, p.Index, all[i].index)
		}
	}
}

// A fitted temperature is kept for these weights and taken for no others.
func TestFitTemperature(t *testing.T) {
	c, eng := open(t)
	cal, err := evaluate.FitTemperature(t.Context(), c, stripes(100), evaluate.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cal.Images != 100 || cal.TTA != "none" || !(cal.NLLAfter < cal.NLLBefore) || cal.Saturated {
		t.Errorf("calibration %+v", cal)
	}
	// A little more or less is worse.
	for _, t2 := range []float64{cal.Temperature * 0.99, cal.Temperature * 1.01} {
		p, err := evaluate.NewPass(c, stripes(100), evaluate.Options{Temperature: t2})
		if err != nil {
			t.Fatal(err)
		}
		s, err := evaluate.Summarize(t.Context(), p, evaluate.CollectOptions{}, nil)
		if err != nil || float64(s.Calibration.NLL.Value) <= cal.NLLAfter {
			t.Errorf("temperature %v: %v, %v, at %v it is %v", t2, s.Calibration.NLL.Value, err, cal.Temperature, cal.NLLAfter)
		}
	}
	if _, ok, err := c.Calibration("none"); ok || err != nil {
		t.Errorf("a calibration before one is written: %v, %v", ok, err)
	}
	if err := c.Run().WriteEvaluation(classify.CalibrationName("none"), cal); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := c.Calibration("none"); !ok || err != nil || got.Temperature != cal.Temperature {
		t.Errorf("written %+v, read %+v, %v, %v", cal, got, ok, err)
	}
	for _, bad := range []float64{0, -1, 1e9} { // a file that something else wrote
		damaged := cal
		damaged.Temperature = bad
		if err := c.Run().WriteEvaluation(classify.CalibrationName("flip"), damaged); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := c.Calibration("flip"); ok || err == nil {
			t.Errorf("temperature %v was taken: %v, %v", bad, ok, err)
		}
	}
	if _, ok, err := c.Calibration("six"); ok || err != nil {
		t.Errorf("that of other views: %v, %v", ok, err)
	}
	if names, _, err := evaluate.Stored(c.Run()); len(names) != 0 || err != nil {
		t.Errorf("a temperature is no summary: %v, %v", names, err)
	}

	path := filepath.Join(t.TempDir(), "other")
	trainRun(t, eng, path, 2)
	other, err := classify.Open(path, eng)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Run().WriteEvaluation(classify.CalibrationName("none"), cal); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := other.Calibration("none"); ok || err != nil {
		t.Errorf("the temperature of other weights was taken: %v, %v", ok, err)
	}
}

// broken is a data set whose last picture cannot be read.
type broken struct{ stripes }

func (b broken) Image(i int, dst *dataset.Image) error {
	if i == b.Len()-1 {
		return errors.New("it is cut short")
	}
	return b.stripes.Image(i, dst)
}

// foreign has a label that is no class.
type foreign struct{ stripes }

func (f foreign) Label(i int) int { return i % 4 }

func TestErrors(t *testing.T) {
	c, _ := open(t)
	for _, o := range []evaluate.Options{{BatchSize: -1}, {TTA: "ten"}, {Temperature: -1}, {Temperature: math.NaN()}} {
		if _, err := evaluate.NewPass(c, stripes(3), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	if _, err := evaluate.Averaged(c, "ten"); err == nil {
		t.Error("ten views were accepted")
	}
	for what, d := range map[string]dataset.Dataset{"a broken picture": broken{stripes(9)}, "a label too large": foreign{stripes(9)}} {
		p, err := evaluate.NewPass(c, d, evaluate.Options{BatchSize: 2})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := evaluate.Summarize(t.Context(), p, evaluate.CollectOptions{}, nil); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	p, err := evaluate.NewPass(c, stripes(90), evaluate.Options{BatchSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	_, err = evaluate.Summarize(ctx, p, evaluate.CollectOptions{}, func(evaluate.Record) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := evaluate.FitTemperature(t.Context(), c, stripes(evaluate.FitImages(3)+1), evaluate.Options{}, nil); !errors.Is(err, evaluate.ErrTooLarge) {
		t.Errorf("too many pictures: %v", err)
	}
}

// Two networks against counting by hand from their records.
func TestCompare(t *testing.T) {
	a, eng := open(t)
	path := filepath.Join(t.TempDir(), "other")
	trainRun(t, eng, path, 7)
	b, err := classify.Open(path, eng)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const n = 90
	records := func(c *classify.Classifier) (all []evaluate.Record) {
		p, err := evaluate.NewPass(c, stripes(n), evaluate.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for r, err := range p.Records(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		return all
	}
	var want metric.Paired
	var losses float64
	same := 0
	changed, righted, lost := []int{}, map[int]float64{}, map[int]float64{}
	ra, rb := records(a), records(b)
	for i := range ra {
		want.Add(ra[i].Correct(), rb[i].Correct())
		losses += (rb[i].Loss - ra[i].Loss) / n
		switch {
		case ra[i].Predicted == rb[i].Predicted:
			same++
			continue
		case rb[i].Correct():
			righted[i] = rb[i].Confidence
		case ra[i].Correct():
			lost[i] = ra[i].Confidence
		}
		changed = append(changed, i)
	}
	if want.OnlyA == 0 || want.OnlyB == 0 || same == 0 {
		t.Fatalf("the two networks show too little: %+v, %d the same", want, same)
	}
	var told []int
	v, err := evaluate.Compare(t.Context(), a, b, stripes(n), evaluate.CompareOptions{Pictures: 3, Changed: func(c evaluate.Change) error {
		told = append(told, c.Index)
		if c.A != ra[c.Index].Predicted || c.B != rb[c.Index].Predicted || c.Label != c.Index%3 {
			t.Errorf("change %+v, records %+v and %+v", c, ra[c.Index], rb[c.Index])
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if v.Accuracy.Paired != want || v.Accuracy.P != want.PValue() || v.Accuracy.Difference != want.Difference() || v.Same != same || !slices.Equal(told, changed) {
		t.Errorf("%+v, %d the same, changed %v; want %+v, %d, %v", v.Accuracy, v.Same, told, want, same, changed)
	}
	if math.Abs(float64(v.CrossEntropy.Value)-losses) > 1e-9 || math.Abs(float64(v.B.CrossEntropy.Value-v.A.CrossEntropy.Value)-losses) > 1e-9 {
		t.Errorf("losses differ by %v, sides by %v, want %v", v.CrossEntropy.Value, v.B.CrossEntropy.Value-v.A.CrossEntropy.Value, losses)
	}
	for name, c := range map[string]struct {
		got  []evaluate.Change
		want map[int]float64
	}{"righted": {v.Righted, righted}, "lost": {v.Lost, lost}} {
		surest := slices.Sorted(maps.Values(c.want))
		slices.Reverse(surest)
		if len(c.got) != min(3, len(surest)) {
			t.Errorf("%s: %d pictures of %d", name, len(c.got), len(surest))
		}
		for i, x := range c.got {
			if math.Abs(c.want[x.Index]-surest[i]) > 1e-6 {
				t.Errorf("%s %d: picture %d with %v, the surest has %v", name, i, x.Index, c.want[x.Index], surest[i])
			}
		}
	}
	if v.A.Top1.Correct != want.Both+want.OnlyA || v.B.Top1.Correct != want.Both+want.OnlyB || v.A.Epochs != 3 || v.A.TrainingSeconds <= 0 ||
		v.A.Parameters != 36+16+2*(144+16)+15 || v.A.Weights == v.B.Weights || v.A.ImagesPerSecond <= 0 {
		t.Errorf("sides %+v and %+v", v.A, v.B)
	}
}
