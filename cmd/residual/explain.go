package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/explain"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

type explainOptions struct {
	dataOptions
	method, class, layer, checkpoint, weights, temperature string
	topk, neighbours, batchSize, threads                   int
	threshold                                              float64
	out, format, engine                                    string
	given                                                  func(flag string) bool
}

func newExplain() *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:   "explain RUN IMAGE...",
		Short: "show what a network looked at",
		Long: `Classify pictures and show for each where the evidence for a class lies (a class
activation map, through the gradient graph), and which training images the network
finds most like it. An IMAGE is a file, or an image of the run's data: test:17,
validation:0, train:3.

For each picture three files go to the directory -o: the picture with the map over it
(PNG), the map's values before any scaling (CSV), and the neighbours (PNG).

gradcam looks at the last stage: few, large patches. layercam is sharp at earlier
stages too: --layer layer2. Probabilities are calibrated where residual eval
has fitted a temperature; below --threshold the network abstains.

The first call computes the features of all training images and keeps them under
evaluations/ in the run directory; --neighbours 0 does without.`,
		Example: `  residual explain runs/RUN cat.jpg
  residual explain runs/RUN test:17 --method layercam --class dog -o why`,
		Args: argsBetween(2, -1),
		RunE: func(c *cobra.Command, args []string) error {
			o.given = func(flag string) bool { return c.Flags().Changed(flag) }
			return runExplain(c.Context(), o, args[0], args[1:], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	choiceFlag(f, &o.method, "method", "kind of map", "gradcam", "layercam")
	f.StringVar(&o.class, "class", "", "class whose evidence is shown: a name or number (default: the most probable one)")
	f.StringVar(&o.layer, "layer", "", "activation to explain: stem, layer1, … (default: the last stage; for layercam the one before)")
	f.IntVar(&o.topk, "topk", 3, "how many classes to name for each picture")
	f.IntVar(&o.neighbours, "neighbours", 5, "how many training images to name for each picture")
	f.Float64Var(&o.threshold, "threshold", 0, "abstain where the most probable class has a lower probability")
	choiceFlag(f, &o.temperature, "temperature", "of the softmax: auto (what eval fitted) or off", "auto", "off")
	f.StringVarP(&o.out, "out", "o", "explanations", "directory for the pictures and values")
	choiceFlag(f, &o.format, "format", "of the output", "text", "json")
	checkpointFlags(f, &o.checkpoint, &o.weights)
	f.StringVar(&o.data, "neighbours-in", "", "data set whose training images are searched for neighbours (default: the run's)")
	f.IntVar(&o.batchSize, "batch-size", 64, "images at a time")
	choiceFlag(f, &o.engine, "engine", "cpu, or ref: float64 in plain loops, slow", "cpu", "ref")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors)")
	o.dataOptions.addFlags(f)
	return c
}

// explanation is an element of --format json.
type explanation struct {
	File        string                `json:"file"`
	Predictions []classify.Prediction `json:"predictions"`
	Temperature float64               `json:"temperature"`
	Calibrated  bool                  `json:"calibrated"`
	Abstain     bool                  `json:"abstain"`
	Threshold   float64               `json:"threshold"`
	Class       string                `json:"explained_class"`
	Method      explain.Method        `json:"method"`
	Layer       string                `json:"layer"`
	MapSize     [2]int                `json:"map_size"` // height, width
	MapMaximum  float32               `json:"map_maximum"`
	Overlay     string                `json:"overlay"`
	Values      string                `json:"values"`
	Neighbours  []neighbour           `json:"neighbours"`
	Strip       string                `json:"neighbours_picture,omitempty"`
}

// neighbour is a training image like the picture explained.
type neighbour struct {
	explain.Neighbour
	Name  string `json:"name"`
	Class string `json:"class"`
}

func runExplain(ctx context.Context, o explainOptions, path string, files []string, stdout, stderr io.Writer) error {
	if o.topk < 1 || o.batchSize < 1 || o.neighbours < 0 || !(o.threshold >= 0 && o.threshold <= 1) {
		return usageError{fmt.Errorf("--topk %d, --batch-size %d, --neighbours %d, --threshold %v: want numbers from 1, from 1, from 0, and from 0 to 1",
			o.topk, o.batchSize, o.neighbours, o.threshold)}
	}
	eng, err := openEngine(o.engine, o.threads)
	if err != nil {
		return err
	}
	defer eng.Close()
	x, calibrated, err := openExplainer(path, checkpointWith(o.checkpoint, o.weights), o.temperature, eng, stderr)
	if err != nil {
		return err
	}
	defer closeExplainer(x)
	cfg := x.Config()
	e := explaining{x: x, calibrated: calibrated, classes: cfg.Classes, names: map[string]bool{}}
	own, err := o.openSplits(ctx, x.Run(), cfg, files, stderr)
	if err != nil {
		return err
	}
	if len(own.classes) == len(cfg.Classes) && namesAreNumbers(cfg.Classes) && !namesAreNumbers(own.classes) {
		fmt.Fprintf(stderr, "note: the network's classes have no names: its outputs are taken for %s's classes in their order\n", own.name)
		e.classes = own.classes
	}
	if e.class, err = classNamed(o.class, e.classes); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o777); err != nil {
		return err
	}
	if !slices.ContainsFunc(files, func(name string) bool { return own.has(name) }) {
		o.neighbours = 0 // nothing will be explained
	}
	if o.neighbours > 0 {
		e.training, e.trainingClasses = own.sets["train"], own.classes
		if e.index, err = own.index(ctx, x, o.batchSize, stderr); err != nil {
			return hint.Wrap(err, "to do without: --neighbours 0")
		}
	}
	e.options = o
	all, failed, err := e.explainAll(ctx, own, files, stdout, stderr)
	if err != nil {
		return err
	}
	if o.format == "json" {
		if err := writeJSON(stdout, all); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d pictures could not be read", failed, len(files))
	}
	return nil
}

// openExplainer opens a run with the temperature that was fitted to its weights,
// where there is one and temperature is "auto".
func openExplainer(path, checkpoint, temperature string, eng engine.Engine, stderr io.Writer) (x *explain.Explainer, calibrated bool, err error) {
	c, warning, err := classify.OpenCheckpoint(path, checkpoint, eng)
	if err != nil {
		return nil, false, err
	}
	if warning != "" {
		fmt.Fprintln(stderr, "warning: "+warning)
	}
	if temperature == "auto" {
		cal, ok, err := c.Calibration("none")
		if err == nil && ok {
			err = c.SetTemperature(cal.Temperature)
		}
		if err != nil {
			return nil, false, errors.Join(err, c.Close())
		}
		calibrated = ok
	}
	return explain.New(c), calibrated, nil
}

func closeExplainer(x *explain.Explainer) error { return errors.Join(x.Close(), x.Classifier.Close()) }

// classNamed is the index of a class given by name or number, -1 for "".
func classNamed(name string, classes []string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if k := slices.Index(classes, name); k >= 0 {
		return k, nil
	}
	if k, err := strconv.Atoi(name); err == nil && k >= 0 && k < len(classes) {
		return k, nil
	}
	few := classes
	if len(few) > 20 {
		few = append(slices.Clone(few[:20]), "…")
	}
	return 0, hint.Wrap(usageError{fmt.Errorf("--class %s: the network has no such class", name)}, "its classes: "+strings.Join(few, ", "))
}

// splitsOfRun are the images of a data set as a run divides them.
type splitsOfRun struct {
	name, hash string
	classes    []string
	sets       map[string]dataset.Dataset // train, validation, test
}

// openSplits opens --neighbours-in, or the data of the run, where one of the pictures or
// the neighbours come from them. It leaves neighbours out that nobody has asked for and
// that are not there.
func (o *explainOptions) openSplits(ctx context.Context, run *rundir.Dir, cfg train.Config, files []string, stderr io.Writer) (splitsOfRun, error) {
	named := o.data != "" || cfg.Data.Source != ""
	pictures := slices.ContainsFunc(files, func(name string) bool { _, _, ok := splitAndIndex(name); return ok })
	switch {
	case pictures && !named:
		return splitsOfRun{}, hint.Wrap(errors.New("the run does not say what its network was trained on"), "name the data: --neighbours-in DATA")
	case o.neighbours > 0 && !named:
		fmt.Fprintf(stderr, "note: no neighbours: %s does not say what its network was trained on; --neighbours-in DATA names some\n", run.Path())
		o.neighbours = 0
		return splitsOfRun{}, nil
	case !pictures && o.neighbours == 0:
		return splitsOfRun{}, nil
	}
	asked := pictures || o.given("neighbours") || o.data != ""
	o.noDownload = o.noDownload || !asked
	data, own, err := o.openOf(ctx, run, cfg, stderr)
	var s splitsOfRun
	if err == nil {
		s, err = splitsOf(data, cfg, own)
	}
	if err != nil && !asked {
		fmt.Fprintf(stderr, "note: no neighbours: the training images cannot be opened: %v\n", err)
		o.neighbours = 0
		return splitsOfRun{}, nil
	}
	return s, err
}

func splitsOf(data *dataset.Data, cfg train.Config, own bool) (splitsOfRun, error) {
	s := splitsOfRun{name: data.Name, hash: data.Origin.Hash, classes: data.Classes,
		sets: map[string]dataset.Dataset{"train": data.Train, "validation": data.Validation, "test": data.Test}}
	if own {
		fit, val, err := splits(data, &cfg)
		if err != nil {
			return s, err
		}
		s.sets["train"], s.sets["validation"] = fit, val
		// The hash is that of the whole; which images were held out follows from these.
		s.hash += fmt.Sprintf(" %s %d %d %d", cfg.Data.Validation, cfg.Data.ValImages, cfg.Data.LimitTrain, cfg.Seed)
	}
	return s, nil
}

// index finds or computes the features of the training images.
func (s splitsOfRun) index(ctx context.Context, x *explain.Explainer, batch int, stderr io.Writer) (*explain.Index, error) {
	training := s.sets["train"]
	if training == nil {
		return nil, fmt.Errorf("data set %s has no training images to find neighbours in", s.name)
	}
	show := newProgress("auto", stderr, io.Discard)
	told := false
	ix, err := x.Index(ctx, filepath.Join(x.Run().Path(), "evaluations"), training, s.hash+" train", batch, func(done, of int) {
		if !told {
			show.notice(fmt.Sprintf("note: computing the features of %d training images, once; --neighbours 0 does without", of))
			told = true
		}
		if show.mode == "bar" {
			show.count("features of the training images", done, of)
		}
	})
	show.done()
	if err != nil {
		err = fmt.Errorf("features of the training images: %w", err)
	}
	return ix, err
}

// splitAndIndex reads "test:17".
func splitAndIndex(name string) (split string, index int, ok bool) {
	split, number, found := strings.Cut(name, ":")
	if !found || split != "train" && split != "validation" && split != "test" {
		return "", 0, false
	}
	index, err := strconv.Atoi(number)
	return split, index, err == nil && index >= 0
}

// read reads a picture: a file or one of the splits.
func (s splitsOfRun) read(name string) (picture dataset.Image, err error) {
	split, index, ok := splitAndIndex(name)
	if !ok {
		return readPicture(name)
	}
	set := s.sets[split]
	if set == nil {
		return picture, fmt.Errorf("%s: data set %s has no %s split", name, s.name, split)
	}
	if index >= set.Len() {
		return picture, fmt.Errorf("%s: the %s split of %s has %d images, the first is 0", name, split, s.name, set.Len())
	}
	return picture, set.Image(index, &picture)
}

// readPicture reads a picture file.
func readPicture(name string) (picture dataset.Image, err error) {
	f, err := os.Open(name)
	if err != nil {
		return picture, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return picture, hint.Wrap(fmt.Errorf("%s: a folder, want a picture", name), "name the pictures in it, such as "+filepath.Join(name, "*.jpg"))
	}
	if err := dataset.LoadImage(f, 0, &picture); err != nil {
		return picture, fmt.Errorf("%s: %w", name, err)
	}
	return picture, nil
}

// has reports whether there is a picture to read under that name, broken or not.
func (s splitsOfRun) has(name string) bool {
	if split, index, ok := splitAndIndex(name); ok {
		return s.sets[split] != nil && index < s.sets[split].Len()
	}
	info, err := os.Stat(name)
	return err == nil && !info.IsDir()
}

// explaining is what all pictures of a command share.
type explaining struct {
	options    explainOptions
	x          *explain.Explainer
	calibrated bool
	classes    []string // names of the network's outputs
	class      int      // -1: the most probable

	index           *explain.Index // nil: no neighbours
	training        dataset.Dataset
	trainingClasses []string

	names map[string]bool // of files written so far
}

// explainAll explains pictures in batches, and writes what it finds to stdout as text
// unless JSON is asked for. failed of them could not be read.
func (e *explaining) explainAll(ctx context.Context, own splitsOfRun, files []string, stdout, stderr io.Writer) (all []explanation, failed int, err error) {
	all = []explanation{}
	var names []string
	var pictures []dataset.Image
	pixels := 0 // of these, so that photographs of many megapixels do not fill the memory
	flush := func() error {
		found, err := e.explain(ctx, names, pictures)
		if err != nil {
			return err
		}
		for _, f := range found {
			if e.options.format == "text" {
				if err := f.write(stdout); err != nil {
					return err
				}
			}
		}
		all = append(all, found...)
		names, pictures, pixels = names[:0], nil, 0
		return nil
	}
	for _, name := range files {
		picture, err := own.read(name)
		if err != nil {
			complain(stderr, err, hint.Of(err))
			failed++
			continue
		}
		names, pictures, pixels = append(names, name), append(pictures, picture), pixels+len(picture.Pix)
		if len(names) == e.options.batchSize || pixels > 1<<28 {
			if err := flush(); err != nil {
				return all, failed, err
			}
		}
	}
	err = flush()
	return all, failed, err
}

// explain explains a batch and writes its files.
func (e *explaining) explain(ctx context.Context, names []string, pictures []dataset.Image) ([]explanation, error) {
	o := explain.Options{Method: explain.Method(e.options.method), Layer: e.options.layer}
	if e.class >= 0 {
		o.Classes = slices.Repeat([]int{e.class}, len(pictures))
	}
	found, err := e.x.Explain(ctx, pictures, o)
	if err != nil {
		return nil, err
	}
	nearest := make([][]explain.Neighbour, len(found))
	if e.index != nil && len(found) > 0 {
		features := make([][]float32, len(found))
		for i, f := range found {
			features[i] = f.Features
		}
		if nearest, err = e.index.Nearest(ctx, features, e.options.neighbours); err != nil {
			return nil, err
		}
	}
	all := make([]explanation, len(found))
	for i, f := range found {
		a := explanation{
			File: names[i], Predictions: f.Predictions[:min(e.options.topk, len(f.Predictions))],
			Temperature: e.x.Temperature(), Calibrated: e.calibrated,
			Abstain: f.Confidence() < e.options.threshold, Threshold: e.options.threshold,
			Class: e.classes[f.Class], Method: f.Method, Layer: f.Layer,
			MapSize: [2]int{f.Map.Height, f.Map.Width}, MapMaximum: slices.Max(f.Map.Values), Neighbours: []neighbour{},
		}
		for k, p := range a.Predictions {
			a.Predictions[k].Class = e.classes[p.Index]
		}
		base := e.fileName(names[i])
		a.Overlay, a.Values = base+"-"+e.options.method+".png", base+"-"+e.options.method+".csv"
		if err := writePNG(a.Overlay, explain.Overlay(pictures[i], f.Map)); err != nil {
			return nil, err
		}
		if err := atomicfile.Write(a.Values, f.Map.WriteCSV); err != nil {
			return nil, err
		}
		strip := []dataset.Image{pictures[i]}
		for _, n := range nearest[i] {
			a.Neighbours = append(a.Neighbours, neighbour{n, e.training.Name(n.Index), e.trainingClasses[e.training.Label(n.Index)]})
			var picture dataset.Image
			if err := e.training.Image(n.Index, &picture); err != nil {
				return nil, err
			}
			strip = append(strip, picture)
		}
		if len(strip) > 1 {
			a.Strip = base + "-neighbours.png"
			if err := writePNG(a.Strip, explain.Strip(strip)); err != nil {
				return nil, err
			}
		}
		all[i] = a
	}
	return all, nil
}

// fileName is where files of a picture go, without their endings: its own name,
// with a number where another picture had the same.
func (e *explaining) fileName(picture string) string {
	name := strings.TrimSuffix(filepath.Base(picture), filepath.Ext(picture))
	name = strings.ReplaceAll(name, ":", "-")
	own := name
	for n := 2; e.names[own]; n++ {
		own = name + "-" + strconv.Itoa(n)
	}
	e.names[own] = true
	return filepath.Join(e.options.out, own)
}

func writePNG(path string, picture image.Image) error {
	return atomicfile.Write(path, func(w io.Writer) error { return png.Encode(w, picture) })
}

func (a explanation) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", plain(a.File))
	for _, p := range a.Predictions {
		fmt.Fprintf(&b, "  %s %.4f", plain(p.Class), p.Probability)
	}
	if a.Calibrated {
		fmt.Fprintf(&b, "  (calibrated, temperature %.3g)", a.Temperature)
	}
	if a.Abstain {
		fmt.Fprintf(&b, "\n  abstains: %.4f is below %g", a.Predictions[0].Probability, a.Threshold)
	}
	fmt.Fprintf(&b, "\n  %s for %s at %s, %d×%d: %s, %s\n", a.Method, a.Class, a.Layer, a.MapSize[0], a.MapSize[1], a.Overlay, a.Values)
	if a.MapMaximum == 0 {
		fmt.Fprintf(&b, "  nothing at %s speaks for %s: the map is 0 everywhere\n", a.Layer, a.Class)
	}
	if a.Strip != "" {
		fmt.Fprintf(&b, "  most like it among the training images: %s\n", a.Strip)
	}
	wide := 0
	for _, n := range a.Neighbours {
		wide = max(wide, len([]rune(n.Class)))
	}
	for _, n := range a.Neighbours {
		fmt.Fprintf(&b, "    cosine %.4f  %-*s  %s\n", n.Cosine, wide, n.Class, n.Name)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
