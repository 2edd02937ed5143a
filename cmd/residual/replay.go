package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/train"
)

func newReplay() *cobra.Command {
	var engineName, format string
	c := &cobra.Command{
		Use:   "replay CAPSULE",
		Short: "compute a step again whose loss or gradient was not finite",
		Long: `A run that meets a loss or gradient that is not finite does not apply the step and
leaves a capsule: the batch, the weights before the step, statistics of every value.
Replay computes it again and names the first layer that is not finite.`,
		Example: "  residual replay runs/RUN/capsule-step-00000123.safetensors",
		Args:    argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			eng, err := openEngine(engineName, 0)
			if err != nil {
				return err
			}
			defer eng.Close()
			capsule, layers, first, err := train.Replay(args[0], eng)
			if err != nil {
				return err
			}
			if format == "json" {
				return writeJSON(c.OutOrStdout(), struct {
					Capsule train.Capsule       `json:"capsule"`
					First   *train.LayerValues  `json:"first_not_finite_now"`
					Layers  []train.LayerValues `json:"layers_now"`
				}{capsule, first, layers})
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "step %d, epoch %d, batch %d: loss %s, sum of squared gradients %s, learning rate %g, on %s\n",
				capsule.Step, capsule.Epoch, capsule.Batch, capsule.Loss, capsule.GradientSquares, capsule.LearningRate, capsule.Engine)
			fmt.Fprintf(w, "images %v\n\n", capsule.Indices)
			fmt.Fprintf(w, "%-34s %-26s %12s %12s %12s %8s %8s\n", "layer", "value", "min", "max", "mean |x|", "NaN", "Inf")
			for _, l := range layers {
				if l.NaN+l.Inf == 0 && (first == nil || l.MeanAbs < 1e4) && l.Op != "input" {
					continue // what is finite and not large explains nothing
				}
				fmt.Fprintf(w, "%-34s %-26s %12.4g %12.4g %12.4g %8d %8d\n", l.Layer, l.Op, l.Min, l.Max, l.MeanAbs, l.NaN, l.Inf)
			}
			recorded := "nothing"
			if capsule.First != nil {
				recorded = capsule.First.String()
			}
			now := "nothing"
			if first != nil {
				now = first.String()
			}
			_, err = fmt.Fprintf(w, "\nfirst not finite: %s; when it happened: %s\n", now, recorded)
			return err
		},
	}
	choiceFlag(c.Flags(), &engineName, "engine", "cpu, or ref: float64 in plain loops, slow", "cpu", "ref")
	choiceFlag(c.Flags(), &format, "format", "of the output", "text", "json")
	return c
}
