package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/evaluate"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/digits"
	"github.com/residual-ml/residual/train"
)

type compareOptions struct {
	judgeOptions
	format, changes string
	checkpoints     [2]string
}

func newCompare() *cobra.Command {
	var o compareOptions
	c := &cobra.Command{
		Use:   "compare RUN_A RUN_B [DATA]",
		Short: "is one run's network better than another's",
		Long: `Run two networks on the same pictures. It prints the difference of their accuracies
with its 95 % interval, McNemar's exact test, which goes by the pictures that only one
of them has right, what changed, and what each costs.

Without DATA it compares on the data of RUN_A. A look at a test split is counted
in both runs. Both may be the same run with --checkpoint-a or --checkpoint-b.`,
		Example: `  residual compare runs/OLD runs/NEW
  residual compare runs/OLD runs/NEW cifar10 --changes changes.csv
  residual compare runs/OLD runs/NEW --tta flip --format json
  residual compare runs/RUN runs/RUN --checkpoint-a last:raw --checkpoint-b last:ema`,
		Args: argsBetween(2, 3),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 3 {
				o.data = args[2]
			}
			return runCompare(c.Context(), o, args[0], args[1], c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	choiceFlag(f, &o.format, "format", "of the output", "text", "json")
	for i, side := range []string{"a", "b"} {
		f.StringVar(&o.checkpoints[i], "checkpoint-"+side, "", fmt.Sprintf("checkpoint of RUN_%s: last, best, …; of a run with --ema also last:ema (the moving average) and last:raw (default: the run's result)", strings.ToUpper(side)))
	}
	f.StringVar(&o.changes, "changes", "", "write the pictures with different answers to this CSV file")
	o.judgeOptions.addFlags(f)
	return c
}

func runCompare(ctx context.Context, o compareOptions, pathA, pathB string, stdout, stderr io.Writer) error {
	eng, precision, err := o.openEngine()
	if err != nil {
		return err
	}
	defer eng.Close()
	var networks [2]*classify.Classifier
	for i, path := range []string{pathA, pathB} {
		c, warning, err := classify.OpenCheckpoint(path, o.checkpoints[i], eng)
		if err != nil {
			return err
		}
		defer c.Close()
		if warning != "" {
			fmt.Fprintf(stderr, "warning: %s: %s\n", path, warning)
		}
		networks[i] = c
	}
	a, b := networks[0], networks[1]
	pictures, err := o.judgeOptions.open(ctx, a, stderr)
	if err != nil {
		return err
	}
	ca, cb := a.Config(), b.Config()
	if !slices.Equal(cb.Classes, pictures.data.Classes) && !(namesAreNumbers(cb.Classes) && len(cb.Classes) == len(pictures.data.Classes)) {
		return fmt.Errorf("data set %s has the classes %v, %s was trained on %v", pictures.data.Name, pictures.data.Classes, pathB, cb.Classes)
	}
	if pictures.split != "test" && (!reflect.DeepEqual(ca.Data, cb.Data) || ca.Seed != cb.Seed) {
		pictures.notes = append(pictures.notes, fmt.Sprintf("the runs do not say that they were trained on the same images: %s may have been trained on some of these", pathB))
	}

	show := newProgress("auto", stderr, io.Discard)
	options := evaluate.CompareOptions{
		Options: evaluate.Options{BatchSize: o.batchSize, TTA: evaluate.TTA(o.tta)}, Classes: pictures.data.Classes,
		Each: watch(show, "comparing", 2*pictures.set.Len()),
	}
	var v evaluate.Versus
	if o.changes == "" {
		v, err = evaluate.Compare(ctx, a, b, pictures.set, options)
	} else {
		err = atomicfile.Write(o.changes, func(w io.Writer) error {
			table := csv.NewWriter(w)
			_ = table.Write([]string{"index", "filename", "true", "a", "a_prob", "b", "b_prob"}) // Error, below, has its error
			options.Changed = func(c evaluate.Change) error {
				name := func(k int) string { return className(pictures.data.Classes, k) }
				return table.Write([]string{strconv.Itoa(c.Index), c.Name, name(c.Label),
					name(c.A), strconv.FormatFloat(float64(c.AConfidence), 'g', 6, 64), name(c.B), strconv.FormatFloat(float64(c.BConfidence), 'g', 6, 64)})
			}
			var err error
			v, err = evaluate.Compare(ctx, a, b, pictures.set, options)
			table.Flush()
			return errors.Join(err, table.Error())
		})
	}
	show.done()
	if err != nil {
		return err
	}
	v.Data, v.DataHash, v.Split, v.Limited = pictures.data.Name, pictures.data.Origin.Hash, pictures.split, pictures.limited
	v.Time, v.Notes = time.Now().UTC().Truncate(time.Second), pictures.notes
	v.A.Run, v.B.Run = pathA, pathB
	for i, s := range []*evaluate.Side{&v.A, &v.B} {
		s.Checkpoint = train.Resolve(networks[i].Run(), o.checkpoints[i], networks[i].Config()).String()
	}
	looks := [2]int{}
	if v.Split == "test" {
		for i, s := range []evaluate.Side{v.A, v.B} {
			looks[i] = countLook(networks[i].Run(), look{
				Time: v.Time, Command: "compare", Data: v.Data, DataHash: v.DataHash, Images: v.Accuracy.Images, Limited: v.Limited,
				Checkpoint: o.checkpoints[i], Weights: s.Weights, TTA: o.tta, Correct: s.Top1.Correct, Engine: eng.Name(), Precision: precision, Version: version(),
			}, stderr)
		}
	}
	if o.format == "json" {
		return writeJSON(stdout, v)
	}
	return writeVersus(stdout, v, fmt.Sprintf("%s %s", eng.Name(), precision), looks)
}

// className is a class's name, and (none) for the prediction -1.
func className(classes []string, k int) string {
	if k < 0 {
		return "(none)"
	}
	return classes[k]
}

// significant is the probability below which a difference is called one.
const significant = 0.05

func writeVersus(w io.Writer, v evaluate.Versus, engine string, looks [2]int) error {
	var b strings.Builder
	printf := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	c := v.Accuracy
	printf("%s, %s split, %d images, on %s\n", v.Data, v.Split, c.Images, engine)

	rows := [][3]string{{"", "A: " + v.A.Model, "B: " + v.B.Model}, {"run", shortPath(v.A.Run), shortPath(v.B.Run)}}
	row := func(name string, value func(evaluate.Side) string) {
		rows = append(rows, [3]string{name, value(v.A), value(v.B)})
	}
	row("checkpoint", func(s evaluate.Side) string {
		name, which, both := strings.Cut(s.Checkpoint, ":")
		if both {
			name += ", " + weightsNamed(which)
		}
		return name
	})
	row("accuracy", func(s evaluate.Side) string {
		return fmt.Sprintf("%s %%  (%s to %s)", percent(float64(s.Top1.Value)), percent(s.Top1.Low), percent(s.Top1.High))
	})
	row("cross-entropy", func(s evaluate.Side) string {
		return fmt.Sprintf("%.4f  (%.4f to %.4f)", s.CrossEntropy.Value, s.CrossEntropy.Low, s.CrossEntropy.High)
	})
	row("parameters", func(s evaluate.Side) string { return digits.Group(s.Parameters) })
	row("multiply-accumulates", func(s evaluate.Side) string { return digits.Group(s.MACs) + " per image" })
	row("images/s", func(s evaluate.Side) string { return fmt.Sprintf("%.0f", s.ImagesPerSecond) })
	row("training", func(s evaluate.Side) string {
		if math.IsNaN(float64(s.TrainingSeconds)) {
			return "not known"
		}
		return fmt.Sprintf("%s, %d epochs", elapsed(float64(s.TrainingSeconds)), s.Epochs)
	})
	var width [3]int
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, r := range rows {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%s  %s  %s", pad(r[0], width[0]), pad(r[1], width[1]), r[2]), " ") + "\n")
	}

	printf("\nB - A: %+.2f points of accuracy (95 %% interval %+.2f to %+.2f), cross-entropy %+.4f (%+.4f to %+.4f)\n",
		100*c.Difference, 100*c.Low, 100*c.High, v.CrossEntropy.Value, v.CrossEntropy.Low, v.CrossEntropy.High)
	switch better := map[bool]string{true: "B", false: "A"}[c.Difference > 0]; {
	case c.P < significant:
		printf("%s is better: were they equal, so uneven a split had the probability %s (McNemar's exact test)\n", better, pValue(c.P))
	default:
		printf("no difference is shown: were they equal, so uneven a split had the probability %s (McNemar's exact test)\n", pValue(c.P))
	}
	printf("right: both %d, A alone %d, B alone %d, neither %d; the same answer to %.1f %%\n", c.Both, c.OnlyA, c.OnlyB, c.Neither, 100*float64(v.Same)/float64(c.Images))
	list := func(title string, changes []evaluate.Change) {
		if len(changes) == 0 {
			return
		}
		printf("\n%s\n", title)
		changes = changes[:min(8, len(changes))]
		name, class := 0, 0
		for _, x := range changes {
			name = max(name, utf8.RuneCountInString(shortPath(x.Name)))
			class = max(class, utf8.RuneCountInString(className(v.Classes, x.Label)), utf8.RuneCountInString(className(v.Classes, x.A)), utf8.RuneCountInString(className(v.Classes, x.B)))
		}
		class = min(class, 24)
		for _, x := range changes {
			printf("  %s  %s  A: %s %6s %%  B: %s %6s %%\n", pad(shortPath(x.Name), name), pad(className(v.Classes, x.Label), class),
				pad(className(v.Classes, x.A), class), percent(float64(x.AConfidence)), pad(className(v.Classes, x.B), class), percent(float64(x.BConfidence)))
		}
	}
	list("Right with B alone, the surest first", v.Righted)
	list("Right with A alone, the surest first", v.Lost)
	if len(v.Notes) > 0 || looks[0] > 0 {
		printf("\n")
	}
	for _, n := range v.Notes {
		printf("note      %s\n", n)
	}
	if looks[0] > 0 {
		printf("ledger    look %d of A and look %d of B at the test split of %s\n", looks[0], looks[1], v.Data)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
