package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/metric"
)

type predictOptions struct {
	engineOptions
	format, checkpoint, temperature, filesFrom, weights, tta string
	topk, batchSize                                          int
	threshold                                                float64
}

func newPredict() *cobra.Command {
	var o predictOptions
	c := &cobra.Command{
		Use:   "predict RUN PATH...",
		Short: "classify pictures",
		Long: `Classify pictures (JPEG, PNG, GIF, BMP, WebP) with the network of a run, trained
or imported. A PATH is a file, a folder with all pictures below it, a pattern such
as 'photos/*.jpg', or - for one picture on standard input; --files-from reads a path
from each line of a file. Pictures are resized and scaled as in training.

A picture that cannot be read is named on standard error, the others go on, and the
exit status is 1. csv has timm's columns: filename, index, label, prob, and with
--topk index_0, index_1, … Probabilities are calibrated where residual eval has
fitted a temperature for these weights and views (--tta).`,
		Example: `  residual predict runs/RUN cat.jpg
  residual predict runs/RUN --topk 3 --format csv photos/ > labels.csv
  residual predict runs/RUN --threshold 0.9 '*.png'
  residual predict runs/RUN --tta six cat.jpg
  curl -s https://example.org/cat.jpg | residual predict runs/RUN -
  find / -name '*.jpg' | residual predict runs/RUN --files-from - --format jsonl`,
		Args: argsBetween(1, -1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) < 2 && o.filesFrom == "" {
				return argsBetween(2, -1)(c, args)
			}
			return runPredict(c.Context(), o, args[0], args[1:], c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	choiceFlag(f, &o.format, "format", "of the output", "text", "json", "jsonl", "csv")
	f.IntVar(&o.topk, "topk", 1, "how many classes to name for each picture")
	f.Float64Var(&o.threshold, "threshold", 0, "abstain where the most probable class has a lower probability")
	f.StringVar(&o.temperature, "temperature", "auto", "of the softmax: auto (what eval fitted), off or a number")
	f.StringVar(&o.filesFrom, "files-from", "", "file with a path on each line; - for standard input")
	ttaFlag(f, &o.tta)
	checkpointFlags(f, &o.checkpoint, &o.weights)
	f.IntVar(&o.batchSize, "batch-size", 32, "pictures at a time")
	o.engineOptions.addFlags(f)
	return c
}

func runPredict(ctx context.Context, o predictOptions, run string, paths []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if o.topk < 1 || o.batchSize < 1 || !(o.threshold >= 0 && o.threshold <= 1) {
		return usageError{fmt.Errorf("--topk %d, --batch-size %d, --threshold %v: want numbers from 1, from 1, and from 0 to 1", o.topk, o.batchSize, o.threshold)}
	}
	eng, _, err := o.openEngine()
	if err != nil {
		return err
	}
	defer eng.Close()
	c, warning, err := classify.OpenCheckpoint(run, checkpointWith(o.checkpoint, o.weights), eng)
	if err != nil {
		return err
	}
	defer c.Close()
	if warning != "" {
		fmt.Fprintln(stderr, "warning: "+warning)
	}
	if err := setTemperature(c, o.temperature, o.tta); err != nil {
		return err
	}
	logits, err := evaluate.Averaged(c, evaluate.TTA(o.tta))
	if err != nil {
		return err
	}
	from := pictureSources{paths: paths, list: o.filesFrom, stdin: stdin}
	if err := from.check(); err != nil {
		return err
	}

	// Text is for a person who watches; whatever reads the others can wait.
	buffered := bufio.NewWriterSize(stdout, 1<<16)
	out := predictionWriter{out: buffered, format: o.format, topk: min(o.topk, len(c.Classes())), threshold: o.threshold, limited: o.threshold > 0}
	err = out.begin()
	failed, seen := 0, 0
	for outcome, streamed := range c.StreamBy(ctx, from.all, o.batchSize, logits) {
		if err = errors.Join(err, streamed); err != nil {
			return err
		}
		seen++
		var ranked []classify.Prediction
		if outcome.Err == nil {
			if ranked, err = c.Ranked(outcome.Logits); err != nil {
				outcome.Err = fmt.Errorf("%s: %w", outcome.Name, err)
			}
		}
		if outcome.Err != nil {
			failed++
			err = errors.Join(buffered.Flush(), out.failed(outcome))
			complain(stderr, outcome.Err, hint.Of(outcome.Err))
		} else {
			err = out.write(outcome.Name, ranked)
		}
	}
	if err := errors.Join(err, out.end(), buffered.Flush(), from.err); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d files could not be classified", failed, seen)
	}
	return nil
}

// setTemperature applies --temperature: auto (what was fitted to the mean of these
// views), off or a number.
func setTemperature(c *classify.Classifier, option, tta string) error {
	switch option {
	case "off":
		return nil
	case "auto":
		cal, ok, err := c.Calibration(tta)
		if err != nil || !ok {
			return err
		}
		return c.SetTemperature(cal.Temperature)
	}
	t, err := parseTemperature(option)
	if err != nil {
		return err
	}
	return c.SetTemperature(t)
}

// parseTemperature reads a number, within what a fit may find.
func parseTemperature(option string) (float64, error) {
	t, err := strconv.ParseFloat(option, 64)
	if err != nil || !(t >= metric.MinTemperature && t <= metric.MaxTemperature) {
		return 0, usageError{fmt.Errorf("--temperature %s: want a word that --help names or a number from %v to %v", option, metric.MinTemperature, metric.MaxTemperature)}
	}
	return t, nil
}

// pictureSources finds the pictures that the command line names.
type pictureSources struct {
	paths []string
	list  string // --files-from
	stdin io.Reader
	err   error // of reading the list
}

// check refuses what cannot be before anything is computed.
func (p *pictureSources) check() error {
	stdins := 0
	for _, path := range append([]string{p.list}, p.paths...) {
		if path == "-" {
			stdins++
		}
	}
	if stdins > 1 {
		return usageError{errors.New("standard input can be read once: give - once, to --files-from or as a path")}
	}
	if p.list != "" && p.list != "-" {
		if _, err := os.Stat(p.list); err != nil {
			return fmt.Errorf("--files-from: %w", err)
		}
	}
	return nil
}

// all yields the pictures of all paths, those of a folder or pattern in bytewise
// order. What is not there is a source that cannot be opened.
func (p *pictureSources) all(yield func(classify.Source) bool) {
	for _, path := range p.paths {
		for s := range p.of(path) {
			if !yield(s) {
				return
			}
		}
	}
	if p.list == "" {
		return
	}
	lines := p.stdin
	if p.list != "-" {
		f, err := os.Open(p.list)
		if err != nil {
			p.err = err
			return
		}
		defer f.Close()
		lines = f
	}
	scanner := bufio.NewScanner(lines)
	for scanner.Scan() {
		line := strings.TrimSuffix(scanner.Text(), "\r")
		if line == "" {
			continue
		}
		for s := range p.of(line) {
			if !yield(s) {
				return
			}
		}
	}
	p.err = scanner.Err()
}

func (p *pictureSources) of(path string) iter.Seq[classify.Source] {
	return func(yield func(classify.Source) bool) {
		if path == "-" {
			yield(classify.Source{Name: "-", Open: func() (io.ReadCloser, error) { return io.NopCloser(p.stdin), nil }})
			return
		}
		info, err := os.Stat(path)
		switch {
		case err == nil && info.IsDir():
			below(path, yield)
		case errors.Is(err, fs.ErrNotExist) && strings.ContainsAny(path, "*?["):
			matches, bad := filepath.Glob(path)
			if len(matches) == 0 {
				if bad == nil {
					bad = errors.New("no file matches")
				}
				yield(unreadable(path, fmt.Errorf("%s: %w", path, bad)))
				return
			}
			for _, match := range matches {
				info, err := os.Stat(match)
				if err == nil && info.IsDir() {
					if !below(match, yield) {
						return
					}
				} else if !yield(classify.Source{Name: match}) {
					return
				}
			}
		default:
			yield(classify.Source{Name: path})
		}
	}
}

// below yields the pictures in a folder and the folders in it, those whose name
// begins with a dot left out.
func below(dir string, yield func(classify.Source) bool) (more bool) {
	found := 0
	root := dir + string(filepath.Separator) // of a link what it leads to
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		hidden := path != root && strings.HasPrefix(d.Name(), ".")
		switch {
		case err != nil:
			found++
			if !yield(unreadable(path, err)) {
				return fs.SkipAll
			}
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
		case hidden && d.IsDir():
			return fs.SkipDir
		case hidden || d.IsDir() || !dataset.IsPicture(path):
		case d.Type()&^fs.ModeSymlink != 0: // a pipe, which waits for somebody to write
		default:
			found++
			if !yield(classify.Source{Name: path}) {
				found = -1
				return fs.SkipAll
			}
		}
		return nil
	})
	if found == 0 && err == nil {
		return yield(unreadable(dir, hint.Wrap(fmt.Errorf("%s: no pictures in this folder", dir), "pictures are known by their names: .jpg, .png, …")))
	}
	return found >= 0
}

func unreadable(name string, err error) classify.Source {
	return classify.Source{Name: name, Open: func() (io.ReadCloser, error) { return nil, err }}
}

// predictionWriter writes what was found for each file as soon as it is known.
type predictionWriter struct {
	out       *bufio.Writer
	format    string
	topk      int
	threshold float64
	limited   bool // a threshold was given

	csv   *csv.Writer
	wrote bool
}

// filePrediction is an element of --format json and a line of jsonl.
type filePrediction struct {
	File        string                `json:"file"`
	Predictions []classify.Prediction `json:"predictions,omitempty"`
	Abstain     *bool                 `json:"abstain,omitempty"` // with --threshold
	Error       string                `json:"error,omitempty"`   // it cannot be read
}

func (p *predictionWriter) begin() error {
	switch p.format {
	case "json":
		_, err := p.out.WriteString("[")
		return err
	case "csv":
		p.csv = csv.NewWriter(p.out)
		header := []string{"filename"}
		for _, column := range []string{"index", "label", "prob"} {
			if p.topk == 1 {
				header = append(header, column)
				continue
			}
			for k := range p.topk {
				header = append(header, fmt.Sprintf("%s_%d", column, k))
			}
		}
		if p.limited {
			header = append(header, "abstain")
		}
		return p.csv.Write(header)
	}
	return nil
}

func (p *predictionWriter) write(file string, predictions []classify.Prediction) error {
	abstain := !(predictions[0].Probability >= p.threshold)
	predictions = predictions[:p.topk]
	switch p.format {
	case "json", "jsonl":
		f := filePrediction{File: file, Predictions: predictions}
		if p.limited {
			f.Abstain = &abstain
		}
		return p.object(f)
	case "csv":
		row := []string{file}
		for _, x := range predictions {
			row = append(row, strconv.Itoa(x.Index))
		}
		for _, x := range predictions {
			row = append(row, x.Class)
		}
		for _, x := range predictions {
			row = append(row, strconv.FormatFloat(x.Probability, 'g', 6, 64))
		}
		if p.limited {
			row = append(row, strconv.FormatBool(abstain))
		}
		return p.csv.Write(row)
	}
	text := plain(file) + ":"
	if p.limited && abstain {
		text += "  abstains:"
	}
	for _, x := range predictions {
		text += fmt.Sprintf("  %s %.4f", plain(x.Class), x.Probability)
	}
	_, err := fmt.Fprintln(p.out, text)
	return errors.Join(err, p.out.Flush())
}

// failed enters a file that could not be classified where the format has a place.
func (p *predictionWriter) failed(o classify.Outcome) error {
	if p.format == "json" || p.format == "jsonl" {
		return p.object(filePrediction{File: o.Name, Error: o.Err.Error()})
	}
	return nil
}

func (p *predictionWriter) object(f filePrediction) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // people read these names
	if p.format == "json" {
		enc.SetIndent("  ", "  ")
		b.WriteString(map[bool]string{false: "\n  ", true: ",\n  "}[p.wrote])
	}
	p.wrote = true
	if err := enc.Encode(f); err != nil {
		return err
	}
	text := b.String()
	if p.format == "json" {
		text = strings.TrimSuffix(text, "\n")
	}
	_, err := p.out.WriteString(text)
	return err
}

func (p *predictionWriter) end() error {
	switch p.format {
	case "json":
		end := "]\n"
		if p.wrote {
			end = "\n]\n"
		}
		_, err := p.out.WriteString(end)
		return err
	case "csv":
		p.csv.Flush()
		return p.csv.Error()
	}
	return nil
}
