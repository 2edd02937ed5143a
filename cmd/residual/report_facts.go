package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/format"
	"github.com/residual-ml/residual/internal/digits"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/report"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// about says what was trained on what.
func (r *reporting) about(from origin, im *imported) []report.Fact {
	cfg, p := r.config, &r.page
	var facts []report.Fact
	add := func(name, value, detail string) {
		if value != "" {
			facts = append(facts, report.Fact{Name: name, Value: value, Detail: detail})
		}
	}
	if im != nil {
		add("Imported from", im.File, im.Format)
		add("Recognised", strings.Join(im.Recognised, "; "), "")
		add("Assumed", strings.Join(im.Assumed, "; "), "")
	}
	var data dataset.Origin
	if b, err := json.Marshal(from.Data); err == nil {
		_ = json.Unmarshal(b, &data) // what is not there is not told
	}
	if cfg.Data.Source != "" {
		lies := data.Source
		if lies == cfg.Data.Source {
			lies = ""
		}
		add("Data", cfg.Data.Source, lies)
		var counts []string
		for _, split := range []string{"train", "validation", "test"} {
			if n := data.Counts[split]; n > 0 {
				counts = append(counts, fmt.Sprintf("%s %s", digits.Group(n), split))
			}
		}
		add("Images", strings.Join(counts, ", "), heldOut(cfg.Data))
		add("Data hash", from.DataHash, "")
		add("Notes on the data", strings.Join(data.Notes, "; "), "")
		if n := len(data.Skipped); n > 0 {
			add("Left out", fmt.Sprintf("%d pictures that cannot be read", n), data.Skipped[0])
		}
	}
	add("Classes", fmt.Sprintf("%s: %s", digits.Group(len(cfg.Classes)), fewWords(cfg.Classes, 40)), "")
	add("Preprocessing", format.Describe(cfg.Preprocess), "")
	network := cfg.Model // without what is told elsewhere
	network.Name, network.Height, network.Width, network.Channels, network.Classes = "", 0, 0, 0, 0
	add("Network", cfg.Model.Name, inWords(network))
	if p.Status == "imported" {
		return facts
	}
	add("Recipe", cfg.Recipe, "options given on the command line override it")
	add("Optimizer", inWords(cfg.Optimizer), "")
	add("Schedule", inWords(cfg.Schedule), "")
	add("Augmentation", cmp.Or(inWords(cfg.Augment), "none"), "")
	penalty := ""
	if cfg.L2 != 0 {
		penalty = fmt.Sprintf("with %g·Σ kernel² of the dense layer", cfg.L2)
	}
	if cfg.LabelSmoothing != 0 {
		penalty = strings.TrimSpace(penalty + fmt.Sprintf(" with label smoothing %g", cfg.LabelSmoothing))
	}
	add("Loss", "cross-entropy", penalty)
	add("Epochs and batches", fmt.Sprintf("%d of %d epochs, batches of %d", len(p.History), cfg.Epochs, cfg.BatchSize), "")
	if cfg.Init != nil {
		head := "all of it"
		if cfg.Init.NewHead {
			head = "with a new dense layer"
		}
		add("Initial weights", cfg.Init.Run, head)
	}
	add("Seed", fmt.Sprint(cfg.Seed), "of initial weights, order, augmentation and splits")
	return facts
}

func heldOut(d train.DataConfig) string {
	var parts []string
	switch d.Validation {
	case "held-out":
		parts = append(parts, fmt.Sprintf("%s training images held out for validation", digits.Group(d.ValImages)))
	case "test":
		parts = append(parts, "validated on the test split after each epoch")
	case "none":
		parts = append(parts, "not validated")
	}
	if d.LimitTrain > 0 {
		parts = append(parts, fmt.Sprintf("only %s training images used", digits.Group(d.LimitTrain)))
	}
	if d.LimitVal > 0 {
		parts = append(parts, fmt.Sprintf("only %s validation images used", digits.Group(d.LimitVal)))
	}
	return strings.Join(parts, ", ")
}

// inWords writes the fields of a configuration that are not zero, such as "sgd,
// learning rate 0.1, momentum 0.9", in the order they are written as JSON.
func inWords(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return strings.Trim(string(b), `"`)
	}
	var parts []string
	for dec.More() {
		key, err := dec.Token()
		var value any
		if err == nil {
			err = dec.Decode(&value)
		}
		if err != nil {
			return ""
		}
		name := strings.ReplaceAll(fmt.Sprint(key), "_", " ")
		switch x := value.(type) {
		case nil:
		case bool:
			if x {
				parts = append(parts, name)
			}
		case string:
			if name == "name" && x != "" {
				parts = append(parts, x)
			} else if x != "" {
				parts = append(parts, name+" "+x)
			}
		case float64:
			if x != 0 {
				parts = append(parts, fmt.Sprintf("%s %g", name, x))
			}
		default:
			parts = append(parts, name+" "+jsonText(x))
		}
	}
	return strings.Join(parts, ", ")
}

func fewWords(words []string, most int) string {
	if len(words) > most {
		return strings.Join(words[:most], ", ") + fmt.Sprintf(" … and %s more", digits.Group(len(words)-most))
	}
	return strings.Join(words, ", ")
}

// lead is the page in a sentence or two.
func (r *reporting) lead(im *imported) string {
	p, cfg := &r.page, r.config
	text := fmt.Sprintf("%s with %s trainable parameters", cfg.Model.Name, digits.Group(p.Network.Trainable))
	switch {
	case p.Status == "imported":
		text += ", trained elsewhere"
		if im != nil {
			text += " and imported from " + filepath.Base(im.File)
		}
	case len(p.History) == 0:
		text += ", whose training has not ended an epoch yet"
	default:
		text += fmt.Sprintf(", trained for %d %s on %s", len(p.History), nounOf(len(p.History), "epoch"), filepath.Base(cfg.Data.Source))
	}
	text += "."
	if s := p.Evaluation; s != nil {
		text += fmt.Sprintf(" Of %s %s images of %s it classifies %.2f %% rightly (95 %% interval %.2f to %.2f).",
			digits.Group(s.Images), s.Split, s.Data, 100*float64(s.Top1.Value), 100*s.Top1.Low, 100*s.Top1.High)
	}
	return text
}

func nounOf(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

func (r *reporting) figures() []report.Fact {
	p := &r.page
	var facts []report.Fact
	add := func(name, value, detail string) {
		facts = append(facts, report.Fact{Name: name, Value: value, Detail: detail})
	}
	if s := p.Evaluation; s != nil {
		of := fmt.Sprintf("%s images of %s, %s", digits.Group(s.Images), s.Data, s.Split)
		if s.TTA != evaluate.None {
			of += ", views: " + string(s.TTA)
		}
		add("Accuracy", fmt.Sprintf("%.2f %%", 100*float64(s.Top1.Value)), fmt.Sprintf("%.2f to %.2f; %s", 100*s.Top1.Low, 100*s.Top1.High, of))
		if s.Top5 != nil {
			add("Top-5 accuracy", fmt.Sprintf("%.2f %%", 100*float64(s.Top5.Value)), fmt.Sprintf("%.2f to %.2f", 100*s.Top5.Low, 100*s.Top5.High))
		}
		add("Cross-entropy", fmt.Sprintf("%.4f", float64(s.CrossEntropy.Value)), fmt.Sprintf("%.4f to %.4f", float64(s.CrossEntropy.Low), float64(s.CrossEntropy.High)))
		detail := "temperature 1"
		if s.Uncalibrated != nil {
			detail = fmt.Sprintf("temperature %.3g; %.2f %% without", s.Calibration.Temperature, 100*float64(s.Uncalibrated.ECE))
		}
		add("Calibration error", fmt.Sprintf("%.2f %%", 100*float64(s.Calibration.ECE)), detail)
	}
	if best, average := bestEpoch(p.History); best >= 0 {
		e := p.History[best]
		value, of := e.ValAccuracy, "accuracy"
		if average {
			value, of = e.EMA.ValAccuracy, "accuracy of the moving average"
		}
		add("Best validation", fmt.Sprintf("%.2f %%", 100*value), fmt.Sprintf("%s, epoch %d of %d", of, e.Epoch, r.config.Epochs))
	}
	add("Trainable parameters", digits.Group(p.Network.Trainable), fmt.Sprintf("%s multiply-accumulates per image", digits.Group(p.Network.MACs)))
	if took := trainingSeconds(p.History); took > 0 {
		add("Training time", elapsed(took), fmt.Sprintf("%d %s, validation included", len(p.History), nounOf(len(p.History), "epoch")))
	}
	return facts
}

// bestEpoch is the index of the epoch with the best validation accuracy, -1 for
// none; average says that it is that of the moving average of the weights.
func bestEpoch(h rundir.History) (best int, average bool) {
	best, accuracy := -1, math.Inf(-1)
	for i, e := range h {
		if e.ValAccuracy > accuracy {
			best, accuracy, average = i, e.ValAccuracy, false
		}
		if e.EMA != nil && e.EMA.ValAccuracy > accuracy {
			best, accuracy, average = i, e.EMA.ValAccuracy, true
		}
	}
	return best, average
}

// trainingSeconds is how long the epochs took, of all resumptions; what is missing counts
// nothing.
func trainingSeconds(h rundir.History) float64 {
	sum := 0.0
	for _, e := range h {
		if e.Seconds == e.Seconds {
			sum += e.Seconds
		}
	}
	return sum
}

func (r *reporting) speed() []report.Fact {
	p := &r.page
	var facts []report.Fact
	var rates []float64
	for _, e := range p.History {
		if e.ImagesPerSecond > 0 {
			rates = append(rates, e.ImagesPerSecond)
		}
	}
	if len(rates) > 0 {
		slices.Sort(rates)
		facts = append(facts,
			report.Fact{Name: "Training", Value: fmt.Sprintf("%.0f images/s", rates[len(rates)/2]), Detail: fmt.Sprintf("median of %d epochs, from %.0f to %.0f", len(rates), rates[0], rates[len(rates)-1])},
			report.Fact{Name: "Whole run", Value: elapsed(trainingSeconds(p.History)), Detail: "validation included"})
	}
	if s := p.Evaluation; s != nil && s.Throughput.Seconds > 0 {
		t := s.Throughput
		facts = append(facts, report.Fact{Name: "Evaluation", Value: fmt.Sprintf("%.0f images/s", float64(t.ImagesPerSecond)),
			Detail: fmt.Sprintf("batches of %d on %s; %.0f %% of the time in the engine, %.0f %% waiting for pictures", t.BatchSize, s.Engine, 100*float64(t.EngineShare), 100*t.WaitingSeconds/t.Seconds)})
	}
	return facts
}

func (r *reporting) receipt(from origin, known bool, im *imported) error {
	p := &r.page
	add := func(name, value, detail string) {
		if value != "" {
			p.Receipt = append(p.Receipt, report.Fact{Name: name, Value: value, Detail: detail})
		}
	}
	add("Run", absolute(p.Run), "")
	if known {
		add("Began", from.Started.UTC().Format("2006-01-02 15:04:05 MST"), "")
		add("Program", from.Version, hashOf(from.Binary))
		add("Machine", strings.TrimSpace(fmt.Sprintf("%s/%s", from.OS, from.Arch)), processors(from))
		add("Engine", from.Engine, r.config.Precision)
		add("Configuration", hashOf(from.Config), "as the run began")
		add("Data", from.DataHash, "")
		for _, again := range from.Resumed {
			add("Resumed", again.Time.UTC().Format("2006-01-02 15:04:05 MST"), fmt.Sprintf("%s on %s", again.Version, again.Engine))
		}
		for _, op := range slices.Sorted(maps.Keys(from.Kernels)) {
			p.Kernels = append(p.Kernels, [2]string{op, from.Kernels[op]})
		}
		words := make([]string, len(from.CommandLine))
		for i, w := range from.CommandLine {
			words[i] = hint.Quote(w)
		}
		p.Commands = strings.Join(words, " ")
	}
	if im != nil {
		add("File", im.File, hashOf(im.SHA256))
	}
	if r.x != nil {
		weights, err := r.x.WeightsHash()
		if err != nil {
			return err
		}
		add("Weights", weights, "of the run's result")
		cal, ok, err := r.x.Calibration("none")
		if err != nil {
			return err
		}
		if ok {
			add("Temperature", fmt.Sprintf("%.4g", cal.Temperature), fmt.Sprintf("fitted to %s %s images of %s", digits.Group(cal.Images), cal.Split, cal.Data))
		}
	}
	if s := p.Evaluation; s != nil {
		add("Evaluation", p.EvaluationName, fmt.Sprintf("%s on %s; data %s", s.Time.UTC().Format("2006-01-02 15:04:05 MST"), s.Engine, s.DataHash))
	}
	add("Report", version(), "")
	var config json.RawMessage
	if err := r.run.ReadConfig(&config); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := json.Indent(&text, config, "", "  "); err != nil {
		return err
	}
	p.Config = text.String()
	return nil
}

func hashOf(sum string) string {
	if sum == "" {
		return ""
	}
	return "sha256:" + strings.TrimPrefix(sum, "sha256:")
}

func processors(from origin) string {
	if from.CPUs == 0 {
		return ""
	}
	return fmt.Sprintf("%d processors: %s", from.CPUs, strings.Join(from.CPUFeatures, ", "))
}
