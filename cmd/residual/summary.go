package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/model"
)

func newSummary() *cobra.Command {
	var o struct {
		namedNetwork
		format string
		expand bool
	}
	c := &cobra.Command{
		Use:   "summary MODEL|RUN",
		Short: "layers, shapes, parameters and multiply-accumulates of a network",
		Long: `Print a network layer by layer with Keras's totals. MODEL is a name such as
resnet18, RUN a run directory. For a name, the options give the images and classes.`,
		Example: `  residual summary resnet18
  residual summary resnet50 --height 224 --width 224 --classes 1000 --convention torch
  residual summary resnet18 --expand-nested
  residual summary resnet18 --format mermaid
  residual summary runs/RUN --format json`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			of, _, err := o.namedNetwork.open(args[0])
			if err != nil {
				return err
			}
			s, err := of.Model.Summarize()
			if err != nil {
				return err
			}
			return writeSummary(c.OutOrStdout(), s, o.format, o.expand)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	choiceFlag(f, &o.format, "format", "of the output", "text", "json", "mermaid")
	f.BoolVar(&o.expand, "expand-nested", false, "show the layers within residual blocks")
	o.namedNetwork.addFlags(f)
	return c
}

func writeSummary(w io.Writer, s model.Summary, format string, expand bool) error {
	switch format {
	case "json":
		return writeJSON(w, s)
	case "mermaid":
		return s.WriteMermaid(w)
	}
	return s.WriteText(w, expand)
}
