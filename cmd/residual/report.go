package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/image/draw"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/explain"
	"github.com/residual-ml/residual/format"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/report"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

type reportOptions struct {
	dataOptions
	out, format, name, engine     string
	pictures, neighbours, threads int
}

func newReport() *cobra.Command {
	var o reportOptions
	c := &cobra.Command{
		Use:   "report RUN [DATA]",
		Short: "write what there is to know about a run as one HTML page",
		Long: `Write one HTML file that needs nothing else, no network and no program but a
browser: what was trained on what, figures with intervals, curves, confusion matrix,
classes with pictures, the worst mistakes and least certain pictures with maps of
what the network looked at and the training images most like them, calibration,
the network, speed, and a receipt with hashes, versions and command line.

It shows the evaluation that residual eval kept last, of test images before others;
--evaluation names another one. DATA is the data set that was evaluated, where that
is not the run's own.

The first call with --neighbours computes the features of all training images and
keeps them under evaluations/ in the run directory, as residual explain does.`,
		Example: `  residual eval runs/RUN && residual report runs/RUN
  residual report runs/RUN -o report.html --pictures 48`,
		Args: argsBetween(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 2 {
				o.data = args[1]
			}
			return runReport(c.Context(), o, args[0], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVarP(&o.out, "out", "o", "", "the file (default: report.html in the run directory)")
	f.StringVar(&o.name, "evaluation", "", "name of the evaluation to show: evaluations/NAME.json")
	f.IntVar(&o.pictures, "pictures", 24, "worst mistakes to show, and half as many doubts")
	f.IntVar(&o.neighbours, "neighbours", 3, "training images to show beside each of these, where the run's data are there")
	choiceFlag(f, &o.format, "format", "of the result on standard output", "text", "json")
	choiceFlag(f, &o.engine, "engine", "cpu, or ref: float64 in plain loops, slow", "cpu", "ref")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors)")
	o.dataOptions.addFlags(f)
	return c
}

// examplesOfClass is how many pictures of each class the page shows, and mostExamples
// how many of all classes.
const (
	examplesOfClass = 8
	mostExamples    = 1000
	explainBatch    = 16
)

func runReport(ctx context.Context, o reportOptions, path string, stdout, stderr io.Writer) error {
	if o.pictures < 0 || o.neighbours < 0 {
		return usageError{fmt.Errorf("--pictures %d, --neighbours %d: want numbers from 0", o.pictures, o.neighbours)}
	}
	eng, err := openEngine(o.engine, o.threads)
	if err != nil {
		return err
	}
	defer eng.Close()
	run, cfg, err := train.Open(path)
	if err != nil {
		return err
	}
	r := reporting{options: o, run: run, config: cfg, page: report.Page{Run: path, Made: time.Now().Truncate(time.Second)}}
	x, calibrated, err := openExplainer(path, "", "auto", eng, stderr)
	if err == nil { // a run without a checkpoint yet has something to tell too
		defer closeExplainer(x)
		r.x, r.calibrated = x, calibrated
	} else {
		fmt.Fprintf(stderr, "note: without the network's own answers: %v\n", err)
	}
	if err := r.collect(ctx, stderr); err != nil {
		return err
	}
	if o.out == "" {
		o.out = filepath.Join(path, "report.html")
	}
	size := int64(0)
	err = atomicfile.Write(o.out, func(w io.Writer) error {
		counted := countingWriter{w, &size}
		return report.WritePage(counted, r.page)
	})
	if err != nil {
		return err
	}
	if o.format == "json" {
		return writeJSON(stdout, map[string]any{"report": o.out, "size_bytes": size, "evaluation": r.page.EvaluationName,
			"mistakes": len(r.page.Worst), "doubts": len(r.page.Doubtful), "missing_pictures": r.page.MissingPictures, "missing_neighbours": r.page.MissingNeighbours})
	}
	if r.page.Evaluation == nil {
		fmt.Fprintf(stderr, "note: the run was not evaluated, so the page shows no mistakes; before: %s\n", r.page.EvaluateCommand)
	} else if r.page.MissingPictures != "" {
		fmt.Fprintf(stderr, "note: no pictures: %s\n", r.page.MissingPictures)
	} else if r.page.MissingNeighbours != "" {
		fmt.Fprintf(stderr, "note: no neighbours: %s\n", r.page.MissingNeighbours)
	}
	_, err = fmt.Fprintf(stdout, "%s (%.1f MB)\n", o.out, float64(size)/1e6)
	return err
}

type countingWriter struct {
	io.Writer
	n *int64
}

func (w countingWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	*w.n += int64(n)
	return n, err
}

// reporting collects a page.
type reporting struct {
	options    reportOptions
	run        *rundir.Dir
	config     train.Config
	x          *explain.Explainer // nil: no weights
	calibrated bool
	training   splitsOfRun    // data with training images
	index      *explain.Index // their features; nil: no neighbours
	page       report.Page
}

func (r *reporting) collect(ctx context.Context, stderr io.Writer) error {
	p, cfg := &r.page, r.config
	var from struct {
		origin
		Imported *imported `json:"imported"`
	}
	originErr := r.run.ReadOrigin(&from)
	history, err := r.run.History()
	if err != nil {
		return err
	}
	p.History = history
	if p.Steps, err = stepsOf(r.run, history); err != nil {
		return err
	}
	if p.Network, err = cfg.Model.Summarize(); err != nil {
		return err
	}
	p.Status = "in progress or interrupted"
	switch {
	case from.Imported != nil || cfg.Recipe == format.Recipe:
		p.Status = "imported"
	case r.run.Finished():
		p.Status = "finished"
	}
	p.EvaluateCommand = "residual eval " + hint.Quote(p.Run)
	if cfg.Data.Source == "" {
		p.EvaluateCommand += " DATA"
	}
	if err := r.evaluation(ctx, stderr); err != nil {
		return err
	}

	p.Title = cfg.Model.Name
	if data := r.dataName(); data != "" {
		p.Title += " on " + data
	}
	p.About = r.about(from.origin, from.Imported)
	p.Lead = r.lead(from.Imported)
	p.Figures = r.figures()
	p.Speed = r.speed()
	return r.receipt(from.origin, originErr == nil, from.Imported)
}

func (r *reporting) dataName() string {
	if s := r.config.Data.Source; s != "" {
		return filepath.Base(s)
	}
	if r.page.Evaluation != nil {
		return r.page.Evaluation.Data
	}
	return ""
}

// evaluation chooses the evaluation to show, and shows pictures of its data.
func (r *reporting) evaluation(ctx context.Context, stderr io.Writer) error {
	names, all, err := evaluate.Stored(r.run)
	if err != nil {
		return err
	}
	p := &r.page
	weights := ""
	if r.x != nil {
		if weights, err = r.x.WeightsHash(); err != nil {
			return err
		}
	}
	chosen := -1
	for i, s := range all {
		switch {
		case r.options.name != "":
			if names[i] == r.options.name {
				chosen = i
			}
		case chosen < 0 || slices.Compare(merits(s, weights), merits(all[chosen], weights)) > 0:
			chosen = i
		}
	}
	if r.options.name != "" && chosen < 0 {
		return fmt.Errorf("%s has no evaluation %q, there are: %s", r.run.Path(), r.options.name, strings.Join(names, ", "))
	}
	if chosen < 0 {
		return nil
	}
	s := all[chosen]
	p.Evaluation, p.EvaluationName = &s, names[chosen]
	p.Others = slices.Delete(all, chosen, chosen+1)
	p.Notes = append(p.Notes, s.Notes...)
	if s.Looks > 1 {
		p.Notes = append(p.Notes, fmt.Sprintf("this was look number %d at the test split with this run", s.Looks))
	}
	if weights != "" && (s.Weights != weights || len(s.Classes) != len(r.config.Classes)) {
		p.Notes = append(p.Notes, "the evaluation is of other weights than the run's result: evaluate again")
		p.MissingPictures = "the evaluation is of other weights than those the run has now; to evaluate again: " + p.EvaluateCommand
		return nil
	}
	if r.x == nil {
		p.MissingPictures = "the run has no weights"
		return nil
	}
	set, data, own, err := r.evaluated(ctx, s, stderr)
	if err != nil {
		p.MissingPictures = err.Error()
		return nil
	}
	if err := r.openNeighbours(ctx, data, own, stderr); err != nil {
		if ctx.Err() != nil {
			return err
		}
		p.MissingNeighbours = err.Error()
	}
	return r.pictures(ctx, s, set)
}

// openNeighbours makes ready to show training images beside pictures; the error
// says why there are none. data is what was evaluated, own says that the run was
// trained on it.
func (r *reporting) openNeighbours(ctx context.Context, data *dataset.Data, own bool, stderr io.Writer) (err error) {
	cfg := r.config
	if r.options.neighbours == 0 || r.options.pictures == 0 {
		return nil
	}
	if !own {
		if cfg.Data.Source == "" {
			return errors.New("the run does not say what its network was trained on")
		}
		o := r.options.dataOptions
		o.data, o.classMap, o.noDownload = "", "", true
		o = o.ofRun(cfg)
		if data, err = o.open(ctx, cfg.Seed, stderr); err != nil {
			return err
		}
	}
	var was origin
	if err := r.run.ReadOrigin(&was); err == nil && was.DataHash != data.Origin.Hash {
		return fmt.Errorf("%s has the hash %s, the run was trained on %s", data.Name, data.Origin.Hash, was.DataHash)
	}
	training, err := splitsOf(data, cfg, true)
	if err != nil {
		return err
	}
	r.training = training
	r.index, err = training.index(ctx, r.x, evaluate.DefaultBatchSize, stderr)
	return err
}

// neighboursOf finds the training images most like pictures that were explained. A
// training image is not its own neighbour.
func (r *reporting) neighboursOf(ctx context.Context, s evaluate.Summary, chosen []evaluate.Picture, explained []explain.Explanation) ([][]report.ExampleNeighbour, error) {
	all := make([][]report.ExampleNeighbour, len(chosen))
	if r.index == nil || len(chosen) == 0 {
		return all, nil
	}
	features := make([][]float32, len(chosen))
	for i := range explained {
		features[i] = explained[i].Features
	}
	itself := s.Split == "train" && !s.Limited && s.Data == r.training.name
	nearest, err := r.index.Nearest(ctx, features, r.options.neighbours+1)
	if err != nil {
		return nil, err
	}
	set := r.training.sets["train"]
	for i, found := range nearest {
		for _, n := range found {
			if itself && n.Index == chosen[i].Index || len(all[i]) == r.options.neighbours {
				continue
			}
			var picture dataset.Image
			if err := set.Image(n.Index, &picture); err != nil {
				return nil, err
			}
			class := r.training.classes[set.Label(n.Index)]
			like := report.ExampleNeighbour{Name: filepath.Base(set.Name(n.Index)), Class: class, Truth: class == s.Classes[chosen[i].Label], Small: isSmall(picture), Cosine: n.Cosine}
			if like.Picture, err = thumbnail(explain.Picture(picture), 128, like.Small); err != nil {
				return nil, err
			}
			all[i] = append(all[i], like)
		}
	}
	return all, nil
}

// merits order evaluations: of these weights, of test images, of all of them, as
// they are, the newest.
func merits(s evaluate.Summary, weights string) []int64 {
	one := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	return []int64{one(s.Weights == weights), one(s.Split != "train"), one(s.Split == "test"), one(!s.Limited), one(s.TTA == evaluate.None), s.Time.Unix()}
}

// evaluated opens the images that an evaluation is of; own says that the run was
// trained on these data.
func (r *reporting) evaluated(ctx context.Context, s evaluate.Summary, stderr io.Writer) (set dataset.Dataset, data *dataset.Data, own bool, err error) {
	o, cfg := r.options.dataOptions, r.config
	if o.data == "" && cfg.Data.Source == "" {
		return nil, nil, own, fmt.Errorf("the run does not say where %s is; name it: residual report %s DATA", s.Data, hint.Quote(r.page.Run))
	}
	o.noDownload = true // a page is no reason to fetch gigabytes
	data, own, err = o.openOf(ctx, r.run, cfg, stderr)
	if err != nil {
		return nil, nil, own, err
	}
	if data.Origin.Hash != s.DataHash {
		return nil, nil, own, fmt.Errorf("%s has the hash %s, the evaluation is of %s with %s", data.Name, data.Origin.Hash, s.Data, s.DataHash)
	}
	set, _, err = splitToEvaluate(data, cfg, own, s.Split)
	if err != nil {
		return nil, nil, own, err
	}
	if s.Limited {
		if set, err = limited(set, s.Images, len(data.Classes), cfg.Seed, "--limit"); err != nil {
			return nil, nil, own, err
		}
	}
	if set.Len() != s.Images {
		return nil, nil, own, fmt.Errorf("the %s split of %s has %d images, the evaluation is of %d", s.Split, data.Name, set.Len(), s.Images)
	}
	return set, data, own, nil
}

// pictures fills in examples of the classes and the galleries.
func (r *reporting) pictures(ctx context.Context, s evaluate.Summary, set dataset.Dataset) error {
	p := &r.page
	var err error
	if p.Worst, err = r.gallery(ctx, s, set, s.WorstMistakes[:min(len(s.WorstMistakes), r.options.pictures)]); err != nil {
		return err
	}
	if p.Doubtful, err = r.gallery(ctx, s, set, s.LeastCertain[:min(len(s.LeastCertain), r.options.pictures/2)]); err != nil {
		return err
	}
	if len(s.Classes)*examplesOfClass > mostExamples {
		return nil
	}
	// Pictures of each class, spread evenly over the data.
	of := make([][]int, len(s.Classes))
	for i := range set.Len() {
		if k := set.Label(i); k >= 0 && k < len(of) {
			of[k] = append(of[k], i)
		}
	}
	p.Examples = make([][]report.Example, len(of))
	for k, all := range of {
		n := min(len(all), examplesOfClass)
		if n == 0 {
			continue
		}
		pictures := make([]dataset.Image, n)
		for i := range n {
			if err := set.Image(all[i*len(all)/n], &pictures[i]); err != nil {
				return err
			}
		}
		predictions, err := r.x.Predict(ctx, pictures)
		if err != nil {
			return err
		}
		for i, picture := range pictures {
			e := report.Example{Name: filepath.Base(set.Name(all[i*len(all)/n])), Truth: s.Classes[k], Predicted: s.Classes[predictions[i][0].Index],
				Wrong: predictions[i][0].Index != k, Small: isSmall(picture)}
			if e.Picture, err = thumbnail(explain.Picture(picture), 96, e.Small); err != nil {
				return err
			}
			p.Examples[k] = append(p.Examples[k], e)
		}
	}
	return nil
}

// gallery explains pictures: the evidence for the prediction, and for the truth
// where that is another class.
func (r *reporting) gallery(ctx context.Context, s evaluate.Summary, set dataset.Dataset, chosen []evaluate.Picture) ([]report.Example, error) {
	var all []report.Example
	for part := range slices.Chunk(chosen, explainBatch) {
		pictures := make([]dataset.Image, len(part))
		predicted, truth := make([]int, len(part)), make([]int, len(part))
		for i, c := range part {
			if c.Index < 0 || c.Index >= set.Len() || set.Label(c.Index) != c.Label {
				return nil, fmt.Errorf("evaluation %s: picture %d of class %d is not in the data", r.page.EvaluationName, c.Index, c.Label)
			}
			if err := set.Image(c.Index, &pictures[i]); err != nil {
				return nil, err
			}
			predicted[i], truth[i] = max(0, c.Predicted), c.Label
		}
		forPredicted, err := r.x.Explain(ctx, pictures, explain.Options{Classes: predicted})
		if err != nil {
			return nil, err
		}
		forTruth, err := r.x.Explain(ctx, pictures, explain.Options{Classes: truth})
		if err != nil {
			return nil, err
		}
		neighbours, err := r.neighboursOf(ctx, s, part, forPredicted)
		if err != nil {
			return nil, err
		}
		for i, c := range part {
			e := report.Example{Name: filepath.Base(c.Name), Neighbours: neighbours[i], Truth: s.Classes[c.Label], Wrong: c.Predicted != c.Label, Predicted: "nothing", Small: isSmall(pictures[i])}
			if c.Predicted >= 0 {
				e.Predicted = s.Classes[c.Predicted]
			}
			shown := false
			for _, g := range c.Top {
				e.Chances = append(e.Chances, report.Chance{Class: s.Classes[g.Class], Probability: float64(g.Probability), Truth: g.Class == c.Label})
				shown = shown || g.Class == c.Label
			}
			if !shown {
				e.Chances = append(e.Chances, report.Chance{Class: e.Truth, Probability: float64(c.LabelProbability), Truth: true})
			}
			if e.Picture, err = thumbnail(explain.Picture(pictures[i]), 192, e.Small); err != nil {
				return nil, err
			}
			found := []explain.Explanation{forPredicted[i]}
			if e.Wrong {
				found = append(found, forTruth[i])
			}
			for _, f := range found {
				r.page.Cropped = r.page.Cropped || !image.Rect(0, 0, pictures[i].Width, pictures[i].Height).In(f.Map.Window)
				overlay, err := thumbnail(explain.Overlay(pictures[i], f.Map), 192, false)
				if err != nil {
					return nil, err
				}
				e.Maps = append(e.Maps, report.ExampleMap{Picture: overlay, Class: s.Classes[f.Class], Truth: f.Class == c.Label, Empty: slices.Max(f.Map.Values) == 0})
			}
			all = append(all, e)
		}
	}
	return all, nil
}

func isSmall(m dataset.Image) bool { return max(m.Height, m.Width) <= 64 }

// thumbnail encodes a picture of at most side pixels: a small one as it is, as PNG,
// any other as JPEG, which is a tenth of the size for photographs.
func thumbnail(m *image.NRGBA, side int, exact bool) ([]byte, error) {
	var b bytes.Buffer
	if exact {
		err := png.Encode(&b, m)
		return b.Bytes(), err
	}
	w, h := m.Rect.Dx(), m.Rect.Dy()
	if long := max(w, h); long > side {
		w, h = max(1, w*side/long), max(1, h*side/long)
	}
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.CatmullRom.Scale(out, out.Rect, m, m.Rect, draw.Src, nil)
	err := jpeg.Encode(&b, out, &jpeg.Options{Quality: 85})
	return b.Bytes(), err
}

// mostSteps bounds the points of a curve by step.
const mostSteps = 400

// stepsOf reads the steps of a run from its metrics: as they are, or the means of
// neighbours where they are many.
func stepsOf(run *rundir.Dir, history rundir.History) ([]report.Step, error) {
	if len(history) == 0 {
		return nil, nil
	}
	lines, _, err := run.Follow().Poll()
	if err != nil && len(lines) == 0 {
		return nil, err // lines that are no JSON are left out
	}
	type step struct {
		Event        string       `json:"event"`
		Step         int          `json:"step"`
		Epoch        int          `json:"epoch"`
		Loss         rundir.Float `json:"loss"`
		LearningRate rundir.Float `json:"learning_rate"`
	}
	var steps []step
	first, last := map[int]int{}, map[int]int{} // of an epoch
	for _, line := range lines {
		var s step
		if json.Unmarshal(line, &s) != nil || s.Event != "step" || s.Epoch < 1 || s.Epoch > history[len(history)-1].Epoch {
			continue
		}
		if n, ok := first[s.Epoch]; !ok || s.Step < n {
			first[s.Epoch] = s.Step
		}
		last[s.Epoch] = max(last[s.Epoch], s.Step)
		steps = append(steps, s)
	}
	every := (len(steps) + mostSteps - 1) / mostSteps
	var all []report.Step
	for part := range slices.Chunk(steps, max(1, every)) {
		var mean report.Step
		for _, s := range part {
			at := float64(s.Epoch-1) + float64(s.Step-first[s.Epoch]+1)/float64(last[s.Epoch]-first[s.Epoch]+1)
			n := float64(len(part))
			mean.Epoch += at / n
			mean.Loss += float64(s.Loss) / n
			mean.LearningRate += float64(s.LearningRate) / n
		}
		all = append(all, mean)
	}
	return all, nil
}
