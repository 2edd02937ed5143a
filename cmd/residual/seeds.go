package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/metric"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// The files of a directory of several seeds, beside the run directories seed-<n>.
const (
	seedsFile       = "seeds.json"        // what is trained, written first
	seedsResultFile = "seeds-result.json" // what came of it, written last
)

// seedsPlan is seeds.json: enough to go on after an interruption.
type seedsPlan struct {
	Data    string   `json:"data"`
	Options []string `json:"options"` // of the command line, the environment and the configuration file
	Seeds   []uint64 `json:"seeds"`
}

// seedsResult is seeds-result.json and what "residual train --seeds" prints.
type seedsResult struct {
	Path string       `json:"path"`
	Runs []seedResult `json:"runs"`
	// Of the runs' accuracies; the deviation is that of a sample, by n-1, and null for
	// one seed.
	Accuracy  rundir.Float       `json:"mean_accuracy"`
	Deviation rundir.Float       `json:"standard_deviation"`
	Interval  [2]rundir.Float    `json:"mean_interval_95"`     // of the mean, by Student's t; null for one seed
	Views     *seedsViews        `json:"with_views,omitempty"` // the same with test-time augmentation
	Split     string             `json:"split"`                // that the accuracies are of
	Seconds   float64            `json:"mean_seconds"`
	Expected  *train.Expectation `json:"expected,omitempty"`
}

type seedsViews struct {
	TTA       string       `json:"tta"`
	Accuracy  rundir.Float `json:"mean_accuracy"`
	Deviation rundir.Float `json:"standard_deviation"`
}

type seedResult struct {
	Seed     uint64       `json:"seed"`
	Run      string       `json:"run"`
	Accuracy rundir.Float `json:"accuracy"`
	Views    *viewsScore  `json:"with_views,omitempty"`
	Seconds  float64      `json:"seconds"`
}

// trainSeeds is "residual train --seeds K": the same training with K seeds, one
// after the other, each in a run directory of its own. Runs that have finished are
// taken as they are and one that was interrupted is resumed.
func trainSeeds(ctx context.Context, o trainOptions, flags *pflag.FlagSet, stdout, stderr io.Writer) error {
	dir, plan, err := seedsToTrain(ctx, &o, flags, stderr)
	if err != nil {
		return err
	}
	r := seedsResult{Path: dir}
	for i, seed := range plan.Seeds {
		path := filepath.Join(dir, fmt.Sprintf("seed-%d", seed))
		if run, err := rundir.Open(path); err != nil || !run.Finished() {
			one := o
			one.seed, one.seeds, one.resume, one.out = seed, 0, "", path
			if err == nil { // it was interrupted
				one = trainOptions{dataOptions: o.dataOptions, set: never, typed: never, resume: path, threads: o.threads, progress: o.progress, format: o.format}
			}
			fmt.Fprintf(stderr, "seed %d, %d of %d: %s\n", seed, i+1, len(plan.Seeds), path)
			err := runTrain(ctx, one, io.Discard, stderr, new(string))
			var stopped stoppedBy
			if errors.As(err, &stopped) {
				fmt.Fprintf(stderr, "continue with all seeds: residual train --resume %s\n", hint.Quote(dir))
			}
			if err != nil {
				return err
			}
		}
		if err := r.add(seed, path); err != nil {
			return err
		}
	}
	r.summarize()
	err = atomicfile.Write(filepath.Join(dir, seedsResultFile), func(w io.Writer) error { return writeJSON(w, r) })
	if err != nil {
		return err
	}
	return r.write(stdout, o.format)
}

func never(string) bool { return false }

// seedsToTrain makes the directory with its plan, or reads the plan of the one to
// continue.
func seedsToTrain(ctx context.Context, o *trainOptions, flags *pflag.FlagSet, stderr io.Writer) (dir string, plan seedsPlan, err error) {
	if o.resume != "" {
		b, err := os.ReadFile(filepath.Join(o.resume, seedsFile))
		if err == nil {
			err = json.Unmarshal(b, &plan)
		}
		if err != nil {
			return "", plan, fmt.Errorf("%s: %w", o.resume, err)
		}
		for _, flag := range trainFlagNames() {
			if o.typed(flag) && !slices.Contains([]string{"resume", "threads", "progress", "format"}, flag) {
				return "", plan, usageError{fmt.Errorf("--%s cannot change when several seeds are continued", flag)}
			}
		}
		again := trainOptions{}
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		again.addFlags(set)
		if err := set.Parse(plan.Options); err != nil {
			return "", plan, fmt.Errorf("%s: %s: %w", o.resume, seedsFile, err)
		}
		again.set = func(flag string) bool { return set.Changed(flag) }
		again.typed = again.set
		again.data, again.threads, again.progress, again.format = plan.Data, o.threads, o.progress, o.format
		dir = o.resume
		*o = again
		return dir, plan, nil
	}
	plan = seedsPlan{Data: o.data, Options: optionsOf(flags, "seeds", "seed", "out", "runs", "progress", "format", "threads")}
	for k := range o.seeds {
		plan.Seeds = append(plan.Seeds, o.seed+uint64(k))
	}
	dir = o.out
	if dir == "" {
		name := o.model
		if name == "" {
			name = o.recipe
		}
		dir = rundir.NewName(o.runs, name+"-seeds", o.data, time.Now())
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		err := fmt.Errorf("directory %s: not empty, it holds %s", dir, entries[0].Name())
		if isSeeds(dir) {
			return "", plan, hint.Wrap(err, "to continue these seeds: residual train --resume "+hint.Quote(dir))
		}
		return "", plan, hint.Wrap(err, "name another directory, or leave it to the program")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", plan, err
	}
	// Nothing is written before the options are known to work.
	check := *o
	check.seeds, check.dryRun = 0, false
	if err := checkOptions(ctx, check, stderr); err != nil {
		return "", plan, err
	}
	if err := atomicfile.MkdirAll(dir); err != nil {
		return "", plan, err
	}
	return dir, plan, atomicfile.Write(filepath.Join(dir, seedsFile), func(w io.Writer) error { return writeJSON(w, plan) })
}

// checkOptions resolves a configuration as runTrain does, and writes nothing.
func checkOptions(ctx context.Context, o trainOptions, stderr io.Writer) error {
	data, err := o.openData(ctx, stderr)
	if err != nil {
		return err
	}
	cfg, err := o.resolve(data)
	if err == nil {
		_, _, err = splits(data, &cfg)
	}
	return err
}

func isSeeds(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, seedsFile))
	return err == nil && info.Mode().IsRegular()
}

// optionsOf writes the flags that are set as a command line takes them, all but
// some.
func optionsOf(flags *pflag.FlagSet, without ...string) []string {
	options := []string{}
	flags.Visit(func(f *pflag.Flag) {
		if slices.Contains(without, f.Name) {
			return
		}
		value := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok { // prints in brackets
			value = strings.Join(list.GetSlice(), ",")
		}
		options = append(options, "--"+f.Name+"="+value)
	})
	return options
}

// add reads the result of a finished run.
func (r *seedsResult) add(seed uint64, path string) error {
	run, cfg, err := train.Open(path)
	if err != nil {
		return err
	}
	var one result
	if err := run.ReadResult(&one); err != nil {
		return err
	}
	accuracy, split := one.accuracy(cfg)
	r.Split, r.Expected = split, cfg.Expected
	history, err := run.History()
	if err != nil {
		return err
	}
	s := seedResult{Seed: seed, Run: path, Accuracy: rundir.Float(accuracy), Seconds: trainingSeconds(history)}
	if one.Test != nil {
		s.Views = one.Test.Views
	}
	r.Runs = append(r.Runs, s)
	return nil
}

func (r *seedsResult) summarize() {
	var accuracy, views, seconds metric.Sample
	for _, one := range r.Runs {
		accuracy.Add(float64(one.Accuracy))
		seconds.Add(one.Seconds)
		if one.Views != nil {
			views.Add(float64(one.Views.Accuracy))
		}
	}
	r.Accuracy, r.Deviation, r.Seconds = rundir.Float(accuracy.Mean), rundir.Float(accuracy.Deviation()), seconds.Mean
	low, high := accuracy.IntervalOfFew()
	r.Interval = [2]rundir.Float{rundir.Float(low), rundir.Float(high)}
	if views.N == len(r.Runs) {
		r.Views = &seedsViews{r.Runs[0].Views.TTA, rundir.Float(views.Mean), rundir.Float(views.Deviation())}
	}
}

// plusMinus writes mean and deviation, this only where there is one.
func plusMinus(mean, deviation rundir.Float) string {
	if math.IsNaN(float64(deviation)) {
		return fmt.Sprintf("%.2f %%", 100*float64(mean))
	}
	return fmt.Sprintf("%.2f ± %.2f %%", 100*float64(mean), 100*float64(deviation))
}

func (r seedsResult) write(w io.Writer, format string) error {
	if format == "json" {
		return writeJSON(w, r)
	}
	var b strings.Builder
	for _, one := range r.Runs {
		fmt.Fprintf(&b, "seed %-4d  %7.2f %%", one.Seed, 100*float64(one.Accuracy))
		if one.Views != nil {
			fmt.Fprintf(&b, "  with views (%s) %6.2f %%", one.Views.TTA, 100*float64(one.Views.Accuracy))
		}
		fmt.Fprintf(&b, "  %8s  %s\n", elapsed(one.Seconds), one.Run)
	}
	over := "over one seed, %s"
	if n := len(r.Runs); n > 1 {
		over = fmt.Sprintf("over %d seeds, %%s each", n)
	}
	fmt.Fprintf(&b, "accuracy %s: %s "+over+"\n", ofSplit(r.Split), plusMinus(r.Accuracy, r.Deviation), elapsed(r.Seconds))
	if r.Views != nil {
		fmt.Fprintf(&b, "with views (%s): %s\n", r.Views.TTA, plusMinus(r.Views.Accuracy, r.Views.Deviation))
	}
	if r.Expected != nil {
		low, high := float64(r.Interval[0]), float64(r.Interval[1])
		if math.IsNaN(low) {
			low, high = float64(r.Accuracy), float64(r.Accuracy)
		}
		fmt.Fprintf(&b, "expected %s: the mean is %s\n", r.Expected, r.Expected.Judge(float64(r.Accuracy), low, high))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
