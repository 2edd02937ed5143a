package main

import (
	"cmp"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/train"
)

func newPlan() *cobra.Command {
	var network namedNetwork
	var precision, format string
	var batch int
	var inference, nodes bool
	c := &cobra.Command{
		Use:   "plan MODEL|RUN",
		Short: "what the engine makes of a network: fused steps, kernels, memory",
		Long: `Print what the engine makes of a network: the steps into which it fuses the
operations of a training step, or of the forward pass, the kernels that run them, and
the memory they need. A network by name trains by the recipe tutorial, that of a run as
it did.`,
		Example: `  residual plan resnet18
  residual plan resnet18 --inference --batch-size 1
  residual plan resnet20 --graph
  residual plan resnet18 --se --blocks 1,1 --inference
  residual plan runs/RUN`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			of, isRun, err := network.open(args[0])
			if err != nil {
				return err
			}
			if batch < 0 {
				return usageError{fmt.Errorf("--batch-size %d: want a number from 1", batch)}
			}
			batch = cmp.Or(batch, of.BatchSize)
			if isRun && of.Engine == "cpu" && !c.Flags().Changed("precision") {
				precision = of.Precision
			}
			var g *graph.Graph
			if inference {
				g, err = of.Model.Graph(batch)
			} else {
				g, err = train.StepGraph(of, batch)
			}
			if err != nil {
				return err
			}
			if nodes {
				return g.Dump(c.OutOrStdout())
			}
			return writePlan(c.OutOrStdout(), g, precision, format)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.IntVar(&batch, "batch-size", 0, "images per step (default: the run's own, else 32)")
	precisionFlag(f, &precision, "auto", "float32", "bfloat16")
	f.BoolVar(&inference, "inference", false, "the forward pass alone, not a training step")
	f.BoolVar(&nodes, "graph", false, "print the graph, a line per node, instead of the plan")
	choiceFlag(f, &format, "format", "of the output", "text", "json")
	section(f, "Plan")
	network.addFlags(f)
	section(f, "Network")
	return c
}

func writePlan(w io.Writer, g *graph.Graph, precision, format string) error {
	precision, err := resolvePrecision("cpu", precision)
	if err != nil {
		return err
	}
	eng, err := cpu.New(cpu.Options{Precision: precision})
	if err != nil {
		return err
	}
	defer eng.Close()
	compiled, err := eng.Compile(g, eng.NewVariables())
	if err != nil {
		return err
	}
	defer compiled.Close()
	p := compiled.(*cpu.Program) // Compile of this engine returns no other
	var macs int64
	for _, n := range g.Nodes {
		macs += graph.MACs(n)
	}
	plan := struct {
		Engine    string            `json:"engine"`
		Precision string            `json:"precision"`
		Nodes     int               `json:"nodes"`
		Prepare   []string          `json:"preparations"` // when weights have changed
		Steps     []string          `json:"steps"`
		Kernels   map[string]string `json:"kernels"`
		Arena     int               `json:"arena_bytes"`
		MACs      int64             `json:"macs"`
	}{eng.Name(), precision, len(g.Nodes), p.Preparations(), p.Steps(), p.Kernels(), p.ArenaBytes(), macs}
	if format == "json" {
		return writeJSON(w, plan)
	}
	for _, s := range plan.Prepare {
		fmt.Fprintf(w, "new weights: %s\n", s)
	}
	for i, s := range plan.Steps {
		fmt.Fprintf(w, "%4d  %s\n", i+1, s)
	}
	_, err = fmt.Fprintf(w, "%s %s: %d nodes in %d steps, %.1f MiB of intermediate values, %.2f GMAC\n",
		plan.Engine, plan.Precision, plan.Nodes, len(plan.Steps), float64(plan.Arena)/(1<<20), float64(macs)/1e9)
	return err
}
