package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/report"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// judgeOptions say which pictures a network is judged by, and how they are run.
type judgeOptions struct {
	dataOptions
	engineOptions
	split, tta       string
	batchSize, limit int
}

func (o *judgeOptions) addFlags(f *pflag.FlagSet) {
	choiceFlag(f, &o.split, "split", "which images", "auto", "test", "validation", "train")
	ttaFlag(f, &o.tta)
	f.IntVar(&o.batchSize, "batch-size", evaluate.DefaultBatchSize, "images at a time")
	f.IntVar(&o.limit, "limit", 0, "use only `N` images, stratified")
	o.engineOptions.addFlags(f)
	o.dataOptions.addFlags(f)
}

func ttaFlag(f *pflag.FlagSet, tta *string) {
	choiceFlag(f, tta, "tta", "average the logits of several views: two (flip), or six (flip, and moved by a pixel)", "none", "flip", "six")
}

// checkpointFlags add the options that choose among the weights of a run.
func checkpointFlags(f *pflag.FlagSet, checkpoint, weights *string) {
	f.StringVar(checkpoint, "checkpoint", "", "checkpoint of the run: last, best, … (default: the run's result)")
	choiceFlag(f, weights, "weights", "of a run with --ema: the moving average (ema), or the weights of the steps (raw); auto: the run's result", "auto", train.EMAWeights, train.RawWeights)
}

// checkpointWith is a checkpoint as LoadWeights takes it.
func checkpointWith(checkpoint, weights string) string {
	if weights == "auto" || weights == "" {
		return checkpoint
	}
	return checkpoint + ":" + weights
}

type evalOptions struct {
	judgeOptions
	checkpoint, format, temperature, name string
	weights                               string
	keep                                  bool
}

func newEval() *cobra.Command {
	var o evalOptions
	c := &cobra.Command{
		Use:   "eval RUN [DATA]",
		Short: "judge a run's network on a data set",
		Long: `Judge the network of a run, trained or imported: accuracy, top-5 and loss with
95 % intervals, precision and recall of each class, the confusion matrix, the worst
mistakes, calibration, and what abstaining would gain.

Without DATA it judges by the run's own data; the split is test where there is one,
else validation. Results and figures are kept in the run directory, under
evaluations/, and every look at a test split is counted there, in ledger.jsonl.

--temperature auto takes the temperature that was fitted for these weights. Where there
is none it fits one to the run's own validation images, unless they are the test split,
and keeps it. fit fits it anew, to the validation images of DATA; off leaves
probabilities as they are.`,
		Example: `  residual eval runs/RUN
  residual eval runs/RUN --tta six
  residual eval runs/RUN cifar10 --split train --format json`,
		Args: argsBetween(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 2 {
				o.data = args[1]
			}
			return runEval(c.Context(), o, args[0], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	choiceFlag(f, &o.format, "format", "of the output", "text", "json")
	checkpointFlags(f, &o.checkpoint, &o.weights)
	f.StringVar(&o.temperature, "temperature", "auto", "of the softmax: auto, fit, off or a number")
	f.StringVar(&o.name, "name", "", "name of what is kept: evaluations/NAME.json and evaluations/NAME/ (default: data and split)")
	f.BoolVar(&o.keep, "keep", true, "keep the results and figures in the run directory")
	o.judgeOptions.addFlags(f)
	return c
}

func runEval(ctx context.Context, o evalOptions, path string, stdout, stderr io.Writer) error {
	if o.temperature != "auto" && o.temperature != "fit" && o.temperature != "off" {
		if _, err := parseTemperature(o.temperature); err != nil {
			return err
		}
	}
	if o.name != "" && o.name != rundir.EvaluationName(o.name) {
		return usageError{fmt.Errorf("--name %s: want letters, digits, dots and dashes", o.name)}
	}
	o.checkpoint = checkpointWith(o.checkpoint, o.weights)
	eng, precision, err := o.openEngine()
	if err != nil {
		return err
	}
	defer eng.Close()
	c, warning, err := classify.OpenCheckpoint(path, o.checkpoint, eng)
	if err != nil {
		return err
	}
	defer c.Close()
	if warning != "" {
		fmt.Fprintln(stderr, "warning: "+warning)
	}
	pictures, err := o.judgeOptions.open(ctx, c, stderr)
	if err != nil {
		return err
	}
	show := newProgress("auto", stderr, io.Discard)
	temperature, about, err := temperatureFor(ctx, c, &pictures, o, show)
	if err != nil {
		return err
	}

	pass, err := evaluate.NewPass(c, pictures.set, evaluate.Options{BatchSize: o.batchSize, TTA: evaluate.TTA(o.tta), Temperature: temperature})
	if err != nil {
		return err
	}
	s, err := evaluate.Summarize(ctx, pass, evaluate.CollectOptions{Classes: pictures.data.Classes}, watch(show, "evaluating", pass.Len()))
	show.done()
	if err != nil {
		return err
	}
	if s.Weights, err = c.WeightsHash(); err != nil {
		return err
	}
	s.Precision = precision
	s.Resolved = train.Resolve(c.Run(), o.checkpoint, c.Config()).String()
	s.Run, s.Checkpoint, s.Time = path, o.checkpoint, time.Now().UTC().Truncate(time.Second)
	s.Data, s.DataHash, s.Split = pictures.data.Name, pictures.data.Origin.Hash, pictures.split
	s.Limited, s.Skipped = pictures.limited, len(pictures.data.Origin.Skipped)
	s.Notes = append(pictures.notes, about)
	if pictures.split == "test" {
		s.Looks = countLook(c.Run(), look{
			Time: s.Time, Command: "eval", Data: s.Data, DataHash: s.DataHash, Images: s.Images, Limited: s.Limited, Checkpoint: s.Checkpoint,
			Weights: s.Weights, TTA: o.tta, Correct: s.Top1.Correct, Engine: s.Engine, Precision: precision, Version: version(),
		}, stderr)
	}
	kept := ""
	if o.keep {
		name := o.name
		if name == "" {
			name = rundir.EvaluationName(append([]string{s.Data, s.Split, s.Checkpoint}, variant(s)...)...)
		}
		if err := keepEvaluation(c.Run(), name, s); err != nil {
			fmt.Fprintf(stderr, "warning: the results are not kept: %v\n", err)
		} else {
			kept = c.Run().EvaluationPath(name)
		}
	}
	if o.format == "json" {
		return writeJSON(stdout, s)
	}
	return evaluationText{Summary: s, kept: kept, terminal: terminalOf(stdout)}.write(stdout)
}

// variant tells evaluations apart that are of the same images in another way, or
// of fewer.
func variant(s evaluate.Summary) []string {
	var parts []string
	if s.TTA != evaluate.None {
		parts = append(parts, string(s.TTA))
	}
	if s.Precision == "bfloat16" {
		parts = append(parts, s.Precision)
	}
	if s.Limited {
		parts = append(parts, strconv.Itoa(s.Images))
	}
	return parts
}

// watch shows a bar for the records of a pass.
func watch(show *progress, title string, of int) func(evaluate.Record) error {
	seen := 0
	return func(evaluate.Record) error {
		if seen++; show.mode == "bar" {
			show.count(title, seen, of)
		}
		return nil
	}
}

// judgedPictures are what a network is judged by.
type judgedPictures struct {
	data    *dataset.Data
	set     dataset.Dataset
	split   string
	own     bool // the data the run was trained on
	limited bool
	notes   []string
}

// open opens DATA, or the data the run was trained on, and checks that they have
// the network's classes.
func (o judgeOptions) open(ctx context.Context, c *classify.Classifier, stderr io.Writer) (p judgedPictures, err error) {
	cfg := c.Config()
	if o.data == "" && cfg.Data.Source == "" {
		return p, hint.Wrap(fmt.Errorf("%s does not say what its network was trained on", c.Run().Path()),
			"name the data to judge it by, as an argument after the run")
	}
	if p.data, p.own, err = o.openOf(ctx, c.Run(), cfg, stderr); err != nil {
		return p, err
	}
	note := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		p.notes = append(p.notes, text)
	}
	switch unnamed := namesAreNumbers(cfg.Classes); {
	case slices.Equal(p.data.Classes, cfg.Classes):
	case unnamed && len(p.data.Classes) == len(cfg.Classes):
		note("the network's classes have no names: its outputs are taken for %s's classes in their order", p.data.Name)
	default:
		return p, hint.Wrap(fmt.Errorf("data set %s has the classes %v, the run was trained on %v", p.data.Name, p.data.Classes, cfg.Classes),
			"a file given to --class-map fixes the order of a folder's classes")
	}
	var was origin
	if err := c.Run().ReadOrigin(&was); err == nil && p.own && was.DataHash != p.data.Origin.Hash {
		note("%s is not what the run was trained on: its hash is %s, then it was %s", p.data.Name, p.data.Origin.Hash, was.DataHash)
	}
	if p.set, p.split, err = splitToEvaluate(p.data, cfg, p.own, o.split); err != nil {
		return p, err
	}
	all := p.set.Len()
	if p.set, err = limited(p.set, o.limit, len(p.data.Classes), cfg.Seed, "--limit"); err != nil {
		return p, err
	}
	p.limited = p.set.Len() < all
	if p.own && p.split == "test" && cfg.Data.Validation == "test" {
		epochs := "after every epoch"
		if history, err := c.Run().History(); err == nil && len(history) > 0 {
			epochs = fmt.Sprintf("after each of its %d epochs", len(history))
		}
		note("training validated on this test split %s, as the tutorial does: it is no unseen test set, and nothing may be chosen by this score", epochs)
	}
	return p, nil
}

// namesAreNumbers reports whether class names are 0, 1, 2, …: what an imported
// network has whose file names none.
func namesAreNumbers(classes []string) bool {
	for i, c := range classes {
		if c != strconv.Itoa(i) {
			return false
		}
	}
	return true
}

// splitToEvaluate returns the images that --split names. Of the data the run was
// trained on, its own, train and validation are what the run used: held out and
// limited as it was.
func splitToEvaluate(data *dataset.Data, cfg train.Config, own bool, split string) (dataset.Dataset, string, error) {
	if split == "auto" {
		split = "test"
		if data.Test == nil {
			split = "validation"
		}
	}
	sets := map[string]dataset.Dataset{"test": data.Test, "validation": data.Validation, "train": data.Train}
	if own && split != "test" {
		fit, val, err := splits(data, &cfg)
		if err != nil {
			return nil, "", err
		}
		sets["train"], sets["validation"] = fit, val
	}
	if sets[split] == nil {
		var there []string
		for _, name := range []string{"test", "validation", "train"} {
			if sets[name] != nil {
				there = append(there, name)
			}
		}
		return nil, "", hint.Wrap(fmt.Errorf("data set %s has no %s split", data.Name, split), "there are: "+strings.Join(there, ", "))
	}
	return sets[split], split, nil
}

// temperatureFor finds the temperature that --temperature names, and says in a
// sentence where it comes from.
func temperatureFor(ctx context.Context, c *classify.Classifier, p *judgedPictures, o evalOptions, show *progress) (t float64, about string, err error) {
	switch o.temperature {
	case "off":
		return 1, "probabilities are as the network gives them (temperature 1)", nil
	case "auto":
		cal, ok, err := c.Calibration(o.tta)
		if err != nil {
			return 0, "", err
		}
		if ok {
			return cal.Temperature, aboutTemperature(cal, p), nil
		}
	case "fit":
	default:
		t, err := parseTemperature(o.temperature)
		if err != nil {
			return 0, "", err
		}
		return t, fmt.Sprintf("temperature %.4g was given", t), nil
	}
	cfg := c.Config()
	val := p.data.Validation
	if p.own {
		if val = nil; cfg.Data.Validation == "validation" || cfg.Data.Validation == "held-out" {
			if _, val, err = splits(p.data, &cfg); err != nil {
				return 0, "", err
			}
		}
	}
	switch {
	case val == nil && o.temperature == "fit":
		return 0, "", hint.Wrap(fmt.Errorf("no temperature can be fitted: there are no validation images apart from the test split"),
			"hold some training images out when training: --val-images 5000")
	case !p.own && cfg.Data.Source != "" && o.temperature == "auto":
		return 1, "not calibrated: no temperature was fitted yet to validation images of what the network was trained on, and these are others", nil
	case val == nil:
		return 1, "not calibrated: there are no validation images apart from the test split to fit a temperature to", nil
	case o.limit > 0 && o.temperature == "auto":
		return 1, "not calibrated: with --limit no temperature is fitted unless --temperature fit asks for it", nil
	}
	if val, err = limited(val, evaluate.FitImages(len(cfg.Classes)), len(cfg.Classes), cfg.Seed, "--limit"); err != nil {
		return 0, "", err
	}
	cal, err := evaluate.FitTemperature(ctx, c, val, evaluate.Options{BatchSize: o.batchSize, TTA: evaluate.TTA(o.tta)}, watch(show, "fitting the temperature", val.Len()))
	show.done()
	if err != nil {
		return 0, "", err
	}
	cal.Data, cal.DataHash, cal.Split, cal.Fitted = p.data.Name, p.data.Origin.Hash, "validation", time.Now().UTC().Truncate(time.Second)
	if o.keep {
		if err := c.Run().WriteEvaluation(classify.CalibrationName(o.tta), cal); err != nil {
			show.warn(fmt.Sprintf("the temperature is not kept: %v", err))
		}
	}
	return cal.Temperature, aboutTemperature(cal, p), nil
}

func aboutTemperature(cal classify.Calibration, p *judgedPictures) string {
	text := fmt.Sprintf("temperature %.4g, fitted to %d %s images of %s", cal.Temperature, cal.Images, cal.Split, cal.Data)
	if cal.Saturated {
		text += ", the limit of what is tried: it says little"
	}
	if p.split == cal.Split && p.data.Origin.Hash == cal.DataHash {
		text += ", these very images"
	}
	return text
}

// look is a line of evaluations/ledger.jsonl: a test split was looked at.
type look struct {
	Time       time.Time `json:"time"`
	Command    string    `json:"command"`
	Data       string    `json:"data"`
	DataHash   string    `json:"data_hash"`
	Images     int       `json:"images"`
	Limited    bool      `json:"limited,omitempty"`
	Checkpoint string    `json:"checkpoint,omitempty"`
	Weights    string    `json:"weights"`
	TTA        string    `json:"tta"`
	Correct    int       `json:"correct"`
	Engine     string    `json:"engine"`
	Precision  string    `json:"precision"`
	Version    string    `json:"version"`
}

// countLook enters a look in the run's ledger and returns how many there have been
// at this test split, this one included.
func countLook(run *rundir.Dir, l look, stderr io.Writer) int {
	looks := 1
	lines, err := run.Ledger()
	for _, line := range lines {
		var before look
		if json.Unmarshal(line, &before) == nil && before.DataHash == l.DataHash {
			looks++
		}
	}
	if err = errors.Join(err, run.AppendLedger(l)); err != nil {
		fmt.Fprintf(stderr, "warning: this look at the test split is not counted: %v\n", err)
	}
	return looks
}

// keepEvaluation writes evaluations/<name>.json with figures and tables beside it.
func keepEvaluation(run *rundir.Dir, name string, s evaluate.Summary) error {
	caption := fmt.Sprintf("%s on %s, %s split, %d images", s.Model, s.Data, s.Split, s.Images)
	if s.TTA != evaluate.None {
		caption += ", views: " + string(s.TTA)
	}
	caption += "; run " + filepath.Base(absolute(run.Path()))
	write := func(file string, b []byte) error {
		return run.WriteEvaluationFile(name, file, func(w io.Writer) error {
			_, err := w.Write(b)
			return err
		})
	}
	err := run.WriteEvaluationFile(name, "confusion.csv", func(w io.Writer) error { return report.WriteConfusionCSV(w, s) })
	for file, draw := range map[string]func(evaluate.Summary, string) (png, svg []byte, err error){
		"confusion": report.Confusion, "reliability": report.Reliability, "coverage": report.Coverage,
	} {
		png, svg, drawn := draw(s, caption)
		if drawn != nil {
			return drawn
		}
		err = errors.Join(err, write(file+".png", png), write(file+".svg", svg))
	}
	return errors.Join(err, run.WriteEvaluation(name, s)) // last: whoever finds it finds the rest
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// terminal says how text may look.
type terminal struct {
	color bool
	width int
}

// terminalOf is plain for files and pipes, and with NO_COLOR or TERM=dumb.
func terminalOf(w io.Writer) terminal {
	t := terminal{width: 100}
	if isTerminal(w) {
		t.width = terminalWidth(w)
		t.color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return t
}
