package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
)

type predictOptions struct {
	format, engine, precision string
	topk, batchSize, threads  int
}

func newPredict() *cobra.Command {
	var o predictOptions
	c := &cobra.Command{
		Use:   "predict RUN FILE...",
		Short: "classify pictures",
		Long: `Classify picture files (JPEG, PNG, GIF, BMP, WebP) with the weights of a
run. Pictures are resized and scaled as in training. A file that cannot be read is
named on standard error, the others go on, and the exit status is 1.`,
		Example: `  residual predict runs/RUN cat.jpg
  residual predict runs/RUN --topk 3 --format csv *.png`,
		Args: argsBetween(2, -1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := layerOptions(c, ""); err != nil {
				return err
			}
			return runPredict(c.Context(), o, args[0], args[1:], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	choiceFlag(f, &o.format, "format", "", "text", "json", "csv")
	f.IntVar(&o.topk, "topk", 1, "how many classes to name for each picture")
	f.IntVar(&o.batchSize, "batch-size", 32, "pictures at a time")
	choiceFlag(f, &o.engine, "engine", "cpu, or ref: float64 in plain loops, slow", "cpu", "ref")
	precisionFlag(f, &o.precision, "float32", "bfloat16", "auto")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors)")
	return c
}

func runPredict(ctx context.Context, o predictOptions, run string, files []string, stdout, stderr io.Writer) error {
	if o.topk < 1 || o.batchSize < 1 {
		return usageError{fmt.Errorf("--topk %d, --batch-size %d: want numbers from 1", o.topk, o.batchSize)}
	}
	precision, err := resolvePrecision(o.engine, o.precision)
	if err != nil {
		return err
	}
	eng, err := openPrecise(o.engine, precision, o.threads)
	if err != nil {
		return err
	}
	defer eng.Close()
	classifier, err := classify.Open(run, eng)
	if err != nil {
		return err
	}
	defer classifier.Close()
	o.topk = min(o.topk, len(classifier.Classes()))

	out := newPredictionWriter(stdout, o.format)
	failed := 0
	var names []string
	var pictures []dataset.Image
	flush := func() error {
		predictions, err := classifier.Predict(ctx, pictures)
		for i := range predictions {
			err = errors.Join(err, out.write(names[i], predictions[i][:o.topk]))
		}
		names, pictures = names[:0], pictures[:0]
		return err
	}
	for _, name := range files {
		picture, err := readPicture(name)
		if err != nil {
			fmt.Fprintf(stderr, "residual: error: %v\n", err)
			failed++
			continue
		}
		names, pictures = append(names, name), append(pictures, picture)
		if len(names) == o.batchSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(flush(), out.close()); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d files could not be read", failed, len(files))
	}
	return nil
}

func readPicture(name string) (picture dataset.Image, err error) {
	f, err := os.Open(name)
	if err != nil {
		return picture, err
	}
	defer f.Close()
	if err := dataset.LoadImage(f, 0, &picture); err != nil {
		return picture, fmt.Errorf("%s: %w", name, err)
	}
	return picture, nil
}

// predictionWriter writes a line or lines for each file.
type predictionWriter struct {
	out    io.Writer
	format string
	csv    *csv.Writer
	all    []filePrediction
}

// filePrediction is an element of --format json.
type filePrediction struct {
	File        string                `json:"file"`
	Predictions []classify.Prediction `json:"predictions"`
}

func newPredictionWriter(w io.Writer, format string) *predictionWriter {
	p := &predictionWriter{out: w, format: format, all: []filePrediction{}}
	if format == "csv" {
		p.csv = csv.NewWriter(w)
		p.csv.Write([]string{"filename", "rank", "index", "label", "prob"}) // its error comes with close
	}
	return p
}

func (p *predictionWriter) write(file string, predictions []classify.Prediction) error {
	switch p.format {
	case "json":
		p.all = append(p.all, filePrediction{file, predictions})
		return nil
	case "csv":
		for i, x := range predictions {
			err := p.csv.Write([]string{file, strconv.Itoa(i + 1), strconv.Itoa(x.Index), x.Class, strconv.FormatFloat(x.Probability, 'g', 6, 64)})
			if err != nil {
				return err
			}
		}
		return nil
	}
	text := file + ":"
	for _, x := range predictions {
		text += fmt.Sprintf("  %s %.4f", x.Class, x.Probability)
	}
	_, err := fmt.Fprintln(p.out, text)
	return err
}

func (p *predictionWriter) close() error {
	switch p.format {
	case "json":
		return writeJSON(p.out, p.all)
	case "csv":
		p.csv.Flush()
		return p.csv.Error()
	}
	return nil
}
