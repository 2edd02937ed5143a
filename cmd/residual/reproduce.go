package main

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

func newReproduce() *cobra.Command {
	var o trainOptions
	c := &cobra.Command{
		Use:   "reproduce RUN [DATA]",
		Short: "train a run again from its configuration and compare",
		Long: `Read a run's configuration and origin, check that the data are the same, train
again, and compare history and weights. The exit status is 0 when all weights have
the same bits, which is to be expected with the same program, engine and instruction
set, whatever the number of threads. DATA names the data where they have moved.`,
		Example: "  residual reproduce runs/RUN",
		Args:    argsBetween(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			o.set = func(flag string) bool { return c.Flags().Changed(flag) }
			if o.repeat = args[0]; len(args) == 2 {
				o.data = args[1]
			}
			return reproduce(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	o.data = "shapes"
	f.StringVarP(&o.out, "out", "o", "", "run directory of the new run (default: as for train)")
	f.StringVar(&o.runs, "runs", "runs", "where run directories are made")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors)")
	f.StringVar(&o.dataDir, "data-dir", "", "where data sets are, if they have moved")
	choiceFlag(f, &o.progress, "progress", "on standard error: live bar on a terminal, lines otherwise", "auto", "plain", "json", "none")
	choiceFlag(f, &o.format, "format", "of the output", "text", "json")
	return c
}

func reproduce(ctx context.Context, o trainOptions, stdout, stderr io.Writer) error {
	path := o.repeat
	was, cfg, err := train.Open(path)
	if err != nil {
		return err
	}
	if !was.Finished() {
		return fmt.Errorf("%s has not finished: there is nothing to compare with", path)
	}
	again := ""
	if err := runTrain(ctx, o, io.Discard, stderr, &again); err != nil {
		return err
	}
	now, err := rundir.Open(again)
	if err != nil {
		return err
	}
	v := struct {
		Run           string  `json:"run"`
		Again         string  `json:"again"`
		Engine        string  `json:"engine"`
		EngineAgain   string  `json:"engine_again"`
		Version       string  `json:"version"`
		VersionAgain  string  `json:"version_again"`
		Weights       string  `json:"sha256"`
		WeightsAgain  string  `json:"sha256_again"`
		SameBits      bool    `json:"same_bits"`
		LargestChange float64 `json:"largest_history_difference"`
	}{Run: path, Again: again}
	if v.Weights, _, err = weightsOf(path); err != nil {
		return err
	}
	if v.WeightsAgain, _, err = weightsOf(again); err != nil {
		return err
	}
	v.SameBits = v.Weights == v.WeightsAgain
	var a, b origin
	if err := was.ReadOrigin(&a); err != nil {
		return err
	}
	if err := now.ReadOrigin(&b); err != nil {
		return err
	}
	v.Engine, v.EngineAgain, v.Version, v.VersionAgain = a.Engine, b.Engine, a.Version, b.Version
	ha, err := was.History()
	if err != nil {
		return err
	}
	hb, err := now.History()
	if err != nil {
		return err
	}
	if len(ha) != len(hb) {
		return fmt.Errorf("%s has %d epochs, its repetition %d", path, len(ha), len(hb))
	}
	for i := range ha {
		for _, k := range historyKeys {
			if d := math.Abs(k.value(ha[i]) - k.value(hb[i])); d > v.LargestChange {
				v.LargestChange = d
			}
		}
	}
	if o.format == "json" {
		err = writeJSON(stdout, v)
	} else {
		_, err = fmt.Fprintf(stdout, "%s  %s  %s, %s\n%s  %s  %s, %s\nlargest difference in the history: %g\n",
			v.Weights, path, v.Engine, v.Version, v.WeightsAgain, again, v.EngineAgain, v.VersionAgain, v.LargestChange)
	}
	if err != nil || v.SameBits {
		return err
	}
	switch {
	case v.Engine != v.EngineAgain || v.Version != v.VersionAgain:
		return fmt.Errorf("the weights differ, as they may: engine %s with %s, then %s with %s", v.Engine, v.Version, v.EngineAgain, v.VersionAgain)
	case a.Epochs != 0 && a.Epochs != cfg.Epochs:
		return fmt.Errorf("the weights differ, as they may: the run began with a schedule of %d epochs and was continued for %d, its repetition has %[2]d from the beginning", a.Epochs, cfg.Epochs)
	case cfg.MaxTime > 0:
		return fmt.Errorf("the weights differ, as they may: how far a run gets in %s depends on the machine's speed", roundly(cfg.MaxTime))
	}
	return fmt.Errorf("the weights differ")
}
