package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/digits"
	"github.com/residual-ml/residual/train"
)

func newPlan() *cobra.Command {
	var network namedNetwork
	var precision, format string
	var batch int
	var inference, nodes bool
	c := &cobra.Command{
		Use:   "plan MODEL|RUN",
		Short: "what the engine makes of a network: fused steps, kernels, layouts, bytes",
		Long: `Print what the engine makes of a network: the steps into which it fuses the
operations of a training step, or of the forward pass, the kernels that run them, the
layout of what they make, and the memory they read, write and need. A network by name
trains by the recipe tutorial, that of a run as it did.`,
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
	preparations, steps := p.Plan()
	reads, writes := 0, 0
	for _, s := range steps {
		reads, writes = reads+s.Reads, writes+s.Writes
	}
	plan := struct {
		Engine    string            `json:"engine"`
		Precision string            `json:"precision"`
		Nodes     int               `json:"nodes"`
		Prepare   []cpu.Step        `json:"preparations"` // when weights have changed
		Steps     []cpu.Step        `json:"steps"`
		Kernels   map[string]string `json:"kernels"`
		Arena     int               `json:"arena_bytes"`
		Reads     int               `json:"bytes_read"`
		Writes    int               `json:"bytes_written"`
		MACs      int64             `json:"macs"`
	}{eng.Name(), precision, len(g.Nodes), preparations, steps, p.Kernels(), p.ArenaBytes(), reads, writes, macs}
	if format == "json" {
		return writeJSON(w, plan)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "   #\tstep\tkernel\ttasks\treads\twrites\tlive\tmakes")
	for _, s := range plan.Prepare {
		writeStep(table, " new", s)
	}
	for i, s := range plan.Steps {
		writeStep(table, fmt.Sprintf("%4d", i+1), s)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(plan.Prepare) > 0 {
		fmt.Fprintln(w, "new: in runs that find new weights")
	}
	fmt.Fprintf(w, "reads, writes: bytes of values, each counted once in a step, %s and %s in all; live: bytes of intermediate values while it runs\n",
		binarySize(reads), binarySize(writes))
	_, err = fmt.Fprintf(w, "%s %s: %d nodes in %d steps, %.1f MiB of intermediate values, %.2f GMAC\n",
		plan.Engine, plan.Precision, plan.Nodes, len(plan.Steps), float64(plan.Arena)/(1<<20), float64(macs)/1e9)
	return err
}

// writeStep writes a row. Of several values that a step makes it has the largest.
func writeStep(w io.Writer, number string, s cpu.Step) {
	makes := ""
	if len(s.Makes) > 0 {
		v := slices.MaxFunc(s.Makes, func(a, b cpu.Value) int { return cmp.Compare(a.Bytes, b.Bytes) })
		if makes = v.Layout; !strings.Contains(s.Name, v.Name) {
			makes = v.Name + " " + makes
		}
		if n := len(s.Makes) - 1; n > 0 {
			makes += fmt.Sprintf(" and %d more", n)
		}
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", number, cut(s.Name, 56), cut(s.Kernel, 40), s.Tasks,
		binarySize(s.Reads), binarySize(s.Writes), binarySize(s.Live), makes)
}

// cut returns at most so many characters of a text, the last of which is … if there are more.
func cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// binarySize is a number of bytes in steps of 1,024, such as 4.0M.
func binarySize(bytes int) string {
	value, unit := digits.Binary(bytes, "", "K", "M", "G")
	if unit == "" {
		return strconv.Itoa(bytes)
	}
	return fmt.Sprintf("%.1f%s", value, unit)
}
