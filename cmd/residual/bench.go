package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
	"github.com/residual-ml/residual/train"
)

type benchOptions struct {
	namedNetwork
	model, precision, only, format, profile string
	batch, threads, n                       int
	layers                                  bool
}

func newBench() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:   "bench [MODEL|RUN]",
		Short: "measure this machine: images/s, GFLOP/s of every layer, share of the peak",
		Long: `Measure training and inference of a network on synthetic images, and the three
passes of every convolution alone: what computes them (direct convolution or Winograd's
tiles), and their share of the peak that the kernel reaches from the first-level cache
at the same moment. Both in float32 and, where there are instructions for it, in
bfloat16. Figures are medians.`,
		Example: `  residual bench
  residual bench resnet50 --height 224 --width 224 --classes 1000 --layers=false
  residual bench resnet18 --se --layers=false
  residual bench --batch-size 128 --format json
  residual bench runs/RUN --only infer`,
		Args: argsBetween(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			o.model = "resnet18"
			if len(args) > 0 {
				o.model = args[0]
			}
			return runBench(c.Context(), o, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.IntVar(&o.batch, "batch-size", 32, "images per step")
	precisionFlag(f, &o.precision, "all", "auto", "float32", "bfloat16")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors)")
	f.IntVar(&o.n, "runs", 5, "measurements of each figure, of which the median counts")
	choiceFlag(f, &o.only, "only", "measure training steps, inference or the convolutions alone", "all", "train", "infer", "layers")
	f.BoolVar(&o.layers, "layers", true, "measure every convolution too")
	f.StringVar(&o.profile, "profile", "", profileHelp)
	choiceFlag(f, &o.format, "format", "of the output", "text", "json")
	section(f, "Measuring")
	o.namedNetwork.addFlags(f)
	section(f, "Network")
	return c
}

// benchReport is what "residual bench" tells.
type benchReport struct {
	Model      string           `json:"model"`
	Threads    int              `json:"threads"`
	Batch      int              `json:"batch_size"`
	Runs       int              `json:"runs"`
	Precisions []precisionSpeed `json:"precisions"`
}

// precisionSpeed is what is measured in one precision.
type precisionSpeed struct {
	Precision string       `json:"precision"`
	Engine    string       `json:"engine"`
	Peak      float64      `json:"peak_gflops"`
	Training  *throughput  `json:"training,omitempty"`
	Inference []throughput `json:"inference,omitempty"`
	Layers    []layerSpeed `json:"layers,omitempty"`
}

// throughput is the speed of whole steps.
type throughput struct {
	Batch      int     `json:"batch_size"`
	Seconds    float64 `json:"step_seconds"`               // the median, or p50
	P99        float64 `json:"step_seconds_p99,omitempty"` // of at least 100 runs
	ImagesPerS float64 `json:"images_per_second"`
	// CPUSeconds is the processor time of a step, of all threads: what counts where
	// other programs use the processors too. 0: not known.
	CPUSeconds float64 `json:"step_cpu_seconds"`
	GFLOPs     float64 `json:"gflops"` // nominal: padding counts as if it were computed
	OfPeak     float64 `json:"share_of_peak"`

	kernels map[string]string // by operation
}

// layerSpeed is the speed of one shape of convolution, with nominal operations.
type layerSpeed struct {
	Layers          []string     `json:"layers"` // that have it
	Input           tensor.Shape `json:"input"`
	Kernel          tensor.Shape `json:"kernel"`
	Stride          int          `json:"stride"`
	Forward         float64      `json:"forward_gflops"`
	BackwardData    float64      `json:"backward_data_gflops"`
	BackwardWeights float64      `json:"backward_weights_gflops"`
	// Kernels are what ran the three passes, in that order.
	Kernels [3]string `json:"kernels"`
}

// algorithm is what a cell of the table says of a kernel: direct convolution, or the
// tiles of Winograd's.
func algorithm(kernel string) string {
	if _, winograd, ok := strings.Cut(kernel, "winograd F("); ok {
		tiles, _, _ := strings.Cut(winograd, ",")
		return tiles
	}
	return "direct"
}

func runBench(ctx context.Context, o benchOptions, stdout io.Writer) (err error) {
	if o.n < 1 || o.batch < 1 {
		return usageError{fmt.Errorf("--runs %d, --batch-size %d: want numbers from 1", o.n, o.batch)}
	}
	of, _, err := o.namedNetwork.open(o.model)
	if err != nil {
		return err
	}
	m := of.Model
	precisions := []string{o.precision}
	fast, err := resolvePrecision("cpu", "auto")
	if err != nil {
		return err
	}
	switch {
	case o.precision == "auto":
		precisions = []string{fast}
	case o.precision == "all" && fast == "float32":
		precisions = []string{"float32"}
	case o.precision == "all":
		precisions = []string{"float32", "bfloat16"}
	}
	if o.profile != "" {
		stop, cannot := profileProcessor(o.profile)
		if cannot != nil {
			return cannot
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	r := benchReport{Model: m.Name, Batch: o.batch, Runs: o.n}
	for _, precision := range precisions {
		eng, err := cpu.New(cpu.Options{Threads: o.threads, Precision: precision})
		if err != nil {
			return err
		}
		r.Threads = eng.Threads()
		speed, err := benchPrecision(ctx, eng, m, o)
		if o.profile != "" && err == nil {
			err = benchTrace(ctx, eng, m, o, o.profile+"."+precision+".trace.json")
		}
		if err = errors.Join(err, eng.Close()); err != nil {
			return err
		}
		speed.Precision = precision
		r.Precisions = append(r.Precisions, speed)
	}
	if o.format == "json" {
		return writeJSON(stdout, r)
	}
	return r.writeText(stdout)
}

func benchPrecision(ctx context.Context, eng *cpu.Engine, m model.Config, o benchOptions) (precisionSpeed, error) {
	r := precisionSpeed{Engine: eng.Name()}
	const calibration = 300 * time.Millisecond
	peaks := []float64{eng.Peak(calibration)}

	if o.only == "all" || o.only == "train" {
		step, err := benchStep(m, o)
		if err != nil {
			return r, err
		}
		t, err := measure(ctx, eng, step, o.n)
		if err != nil {
			return r, err
		}
		r.Training = &t
		peaks = append(peaks, eng.Peak(calibration))
	}
	batches := []int{1, o.batch}
	switch {
	case o.only == "train" || o.only == "layers":
		batches = nil
	case o.only == "infer" || o.batch == 1:
		batches = batches[1:]
	}
	for _, batch := range batches {
		g, err := m.Graph(batch)
		if err != nil {
			return r, err
		}
		runs := o.n
		if batch == 1 && runs > 1 { // latency
			runs = max(runs, 100)
		}
		t, err := measure(ctx, eng, g, runs)
		if err != nil {
			return r, err
		}
		r.Inference = append(r.Inference, t)
	}
	peaks = append(peaks, eng.Peak(calibration))
	if o.only == "layers" || o.layers && o.only == "all" {
		layers, err := measureLayers(ctx, eng, m, o)
		if err != nil {
			return r, err
		}
		r.Layers = layers
		peaks = append(peaks, eng.Peak(calibration))
	}
	r.Peak = median(peaks)
	if r.Training != nil {
		r.Training.OfPeak = r.Training.GFLOPs / r.Peak
	}
	for i := range r.Inference {
		r.Inference[i].OfPeak = r.Inference[i].GFLOPs / r.Peak
	}
	return r, nil
}

// benchStep is the tutorial's training step.
func benchStep(m model.Config, o benchOptions) (*graph.Graph, error) {
	c, err := tutorialOf(m)
	if err != nil {
		return nil, err
	}
	return train.StepGraph(c, o.batch)
}

// benchTrace writes the timeline of some training steps, or of inference where that
// alone is measured.
func benchTrace(ctx context.Context, eng *cpu.Engine, m model.Config, o benchOptions, path string) error {
	step, err := benchStep(m, o)
	runs := 1
	if o.only == "infer" {
		step, err = m.Graph(o.batch)
		runs = o.n
	}
	if err != nil {
		return err
	}
	stop, err := profileSteps(path, eng)
	if err != nil {
		return err
	}
	_, err = measure(ctx, eng, step, runs)
	return errors.Join(err, stop())
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// measure times runs of a graph on inputs that are all one half, after two that
// do not count.
func measure(ctx context.Context, eng engine.Engine, g *graph.Graph, runs int) (throughput, error) {
	t := throughput{Batch: g.Inputs[0].Shape[0]}
	vars := eng.NewVariables()
	p, err := eng.Compile(g, vars)
	if err != nil {
		return t, err
	}
	defer p.Close()
	for _, v := range g.Variables {
		if err := vars.Set(v.Name, model.Initial(v, 0)); err != nil {
			return t, err
		}
	}
	var inputs []tensor.Tensor
	for _, in := range g.Inputs {
		x := tensor.New(tensor.Float32, in.Shape...)
		if in.Kind == graph.Integer {
			x = tensor.New(tensor.Int32, in.Shape...)
		} else {
			for i := range x.Float32s() {
				x.Float32s()[i] = 0.5
			}
		}
		inputs = append(inputs, x)
	}
	var seconds, spent []float64
	for i := range runs + 2 {
		began, used := time.Now(), processorTime()
		if _, err := p.Run(ctx, inputs...); err != nil {
			return t, err
		}
		if i >= 2 {
			seconds = append(seconds, time.Since(began).Seconds())
			spent = append(spent, (processorTime() - used).Seconds())
		}
	}
	var macs int64
	for _, n := range g.Nodes {
		macs += graph.MACs(n)
	}
	t.kernels = p.Kernels()
	t.Seconds, t.CPUSeconds = median(seconds), median(spent)
	if n := len(seconds); n >= 100 {
		slices.Sort(seconds)
		t.P99 = seconds[(99*n+99)/100-1]
	}
	t.ImagesPerS = float64(t.Batch) / t.Seconds
	t.GFLOPs = 2 * float64(macs) / t.Seconds / 1e9
	return t, nil
}

// measureLayers times each shape of convolution in the network alone.
func measureLayers(ctx context.Context, eng engine.Engine, m model.Config, o benchOptions) ([]layerSpeed, error) {
	b := graph.NewBuilder()
	net := m.Build(b, b.Input("images", graph.Real, o.batch, m.Height, m.Width, m.Channels), false)
	g, err := b.Build(net.Logits)
	if err != nil {
		return nil, err
	}
	var speeds []layerSpeed
	at := map[string]int{}
	for _, n := range g.Nodes {
		if n.Op != graph.OpConv {
			continue
		}
		x, w := n.Inputs[0].Shape, n.Inputs[1].Shape
		shape := fmt.Sprint(x, w, n.Conv)
		if i, ok := at[shape]; ok {
			speeds[i].Layers = append(speeds[i].Layers, n.Name)
			continue
		}
		at[shape] = len(speeds)
		s := layerSpeed{Layers: []string{n.Name}, Input: x, Kernel: w, Stride: n.Conv.Stride}
		into := []*float64{&s.Forward, &s.BackwardData, &s.BackwardWeights}
		for i, pass := range []graph.Op{graph.OpConv, graph.OpConvBackwardData, graph.OpConvBackwardWeights} {
			g, err := passGraph(n, pass)
			if err != nil {
				return nil, err
			}
			t, err := measure(ctx, eng, g, o.n)
			if err != nil {
				return nil, err
			}
			*into[i], s.Kernels[i] = t.GFLOPs, t.kernels[pass.String()]
		}
		speeds = append(speeds, s)
	}
	return speeds, nil
}

// passGraph is one pass of a convolution alone. The kernel is a variable, as it
// is in a network.
func passGraph(conv *graph.Node, pass graph.Op) (*graph.Graph, error) {
	b := graph.NewBuilder()
	x := b.Input("x", graph.Real, conv.Inputs[0].Shape...)
	w := b.Variable("w", conv.Inputs[1].Variable, conv.Inputs[1].Shape...)
	switch pass {
	case graph.OpConvBackwardData:
		dy := b.Input("dy", graph.Real, conv.Shape...)
		return b.Build(b.ConvBackwardData(dy, w, x, conv.Conv))
	case graph.OpConvBackwardWeights:
		dy := b.Input("dy", graph.Real, conv.Shape...)
		return b.Build(b.ConvBackwardWeights(x, dy, w, conv.Conv))
	}
	return b.Build(b.Conv(x, w, conv.Conv))
}

func (r benchReport) writeText(w io.Writer) error {
	for i, p := range r.Precisions {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s in %s on %s, %d threads; medians of %d; peak %.0f GFLOP/s\n", r.Model, p.Precision, p.Engine, r.Threads, r.Runs, p.Peak)
		if err := p.writeText(w); err != nil {
			return err
		}
	}
	return nil
}

func (r precisionSpeed) writeText(w io.Writer) error {
	row := func(what string, t throughput) {
		fmt.Fprintf(w, "%-10s batch %-4d %9.1f images/s  %9.2f ms  %7.0f GFLOP/s  %3.0f %% of peak",
			what, t.Batch, t.ImagesPerS, 1000*t.Seconds, t.GFLOPs, 100*t.OfPeak)
		if t.CPUSeconds > 0 {
			fmt.Fprintf(w, "  %.1f images/processor-s", float64(t.Batch)/t.CPUSeconds)
		}
		if t.P99 > 0 {
			fmt.Fprintf(w, "  p99 %.2f ms", 1000*t.P99)
		}
		fmt.Fprintln(w)
	}
	if r.Training != nil {
		row("training", *r.Training)
	}
	for _, t := range r.Inference {
		row("inference", t)
	}
	if len(r.Layers) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\n%-24s %-18s %-16s %6s %13s %14s %17s\n", "GFLOP/s, nominal", "input", "kernel", "stride", "forward", "backward data", "backward weights")
	for _, l := range r.Layers {
		name := l.Layers[0]
		if more := len(l.Layers) - 1; more > 0 {
			name += fmt.Sprintf(" +%d", more)
		}
		var cells [3]string
		for i, v := range []float64{l.Forward, l.BackwardData, l.BackwardWeights} {
			cells[i] = fmt.Sprintf("%.0f %6s", v, algorithm(l.Kernels[i]))
		}
		if _, err := fmt.Fprintf(w, "%-24s %-18v %-16v %6d %13s %14s %17s\n", name, l.Input, l.Kernel, l.Stride, cells[0], cells[1], cells[2]); err != nil {
			return err
		}
	}
	return nil
}
