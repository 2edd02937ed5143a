package cpu

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// layer is a convolution of a named network: input [N,size,size,channels].
type layer struct {
	name                  string
	size, channels, out   int
	kernel, stride, times int
}

// layers are the distinct convolutions of two networks on 32×32 images, with
// how often each occurs.
var layers = []layer{
	{"resnet20.conv1", 32, 3, 16, 3, 1, 1},
	{"resnet20.layer1.0.conv1", 32, 16, 16, 3, 1, 6},
	{"resnet20.layer2.0.conv1", 32, 16, 32, 3, 2, 1},
	{"resnet20.layer2.0.conv2", 16, 32, 32, 3, 1, 5},
	{"resnet20.layer3.0.conv2", 8, 64, 64, 3, 1, 5},
	{"resnet18.conv1", 32, 3, 64, 3, 1, 1},
	{"resnet18.layer1.0.conv1", 32, 64, 64, 3, 1, 4},
	{"resnet18.layer2.0.conv1", 32, 64, 128, 3, 2, 1},
	{"resnet18.layer2.0.downsample", 32, 64, 128, 1, 2, 1},
	{"resnet18.layer2.0.conv2", 16, 128, 128, 3, 1, 3},
	{"resnet18.layer3.0.conv2", 8, 256, 256, 3, 1, 3},
	{"resnet18.layer4.0.conv1", 8, 256, 512, 3, 2, 1},
	{"resnet18.layer4.0.conv2", 4, 512, 512, 3, 1, 3},
}

// tilePeak measures what one thread reaches in ConvTile with all operands in
// the first cache, in GFLOP/s: the ceiling of the benchmarks below. It is
// measured beside each, because the machine's clock and neighbours change.
func tilePeak(e *Engine) float64 {
	const c, taps = 64, 4
	k := e.kernels
	src, wei, dst := make([]float32, k.Rows*c), make([]float32, c*k.Cols), make([]float32, k.Rows*k.Cols)
	var dstOff, records []int32
	for r := range k.Rows {
		dstOff = append(dstOff, int32(r*k.Cols))
	}
	for range taps {
		records = append(records, 0, 0)
		for r := range k.Rows {
			records = append(records, int32(r*c))
		}
	}
	best := 0.0
	for range 10 {
		const calls = 2000
		start := time.Now()
		for range calls {
			k.ConvTile(dst, dstOff, src, src, records, c, wei, false)
		}
		best = max(best, float64(calls*2*k.Rows*k.Cols*c*taps)/time.Since(start).Seconds()/1e9)
	}
	return best
}

// BenchmarkConv reports nominal GFLOP (products with padding count) per second
// of processor time of each pass of each layer, and its fraction of tilePeak.
// Skipped border taps can take it above what the kernel itself reaches.
func BenchmarkConv(b *testing.B) {
	for _, pass := range []graph.Op{graph.OpConv, graph.OpConvBackwardData, graph.OpConvBackwardWeights} {
		for _, l := range layers {
			for _, batch := range []int{32} {
				b.Run(fmt.Sprintf("%v/%s/N=%d", pass, l.name, batch), func(b *testing.B) { benchmarkConv(b, pass, l, batch) })
			}
		}
	}
}

func benchmarkConv(b *testing.B, pass graph.Op, l layer, batch int) {
	e := open(b, Options{})
	g := graph.NewBuilder()
	attrs := graph.ConvAttrs{Stride: l.stride, Pad: graph.SamePadding(l.size, l.size, l.kernel, l.stride)}
	x := g.Input("x", graph.Real, batch, l.size, l.size, l.channels)
	w := g.Input("w", graph.Real, l.kernel, l.kernel, l.channels, l.out)
	y := g.Conv(x, w, attrs)
	dy := g.Input("dy", graph.Real, y.Shape...)
	out := y
	switch pass {
	case graph.OpConvBackwardData:
		out = g.ConvBackwardData(dy, w, x, attrs)
	case graph.OpConvBackwardWeights:
		out = g.ConvBackwardWeights(x, dy, w, attrs)
	}
	built, err := g.Build(out)
	if err != nil {
		b.Fatal(err)
	}
	p, err := e.Compile(built, e.NewVariables())
	if err != nil {
		b.Fatal(err)
	}
	in := []tensor.Tensor{tensor.New(tensor.Float32, x.Shape...), tensor.New(tensor.Float32, w.Shape...), tensor.New(tensor.Float32, dy.Shape...)}
	for _, t := range in {
		fill(t.Float32s(), 0.5)
	}
	run := func() {
		if _, err := p.Run(context.Background(), in...); err != nil {
			b.Fatal(err)
		}
	}
	run()
	peak := tilePeak(e)
	b.ResetTimer()
	start := cpuTime()
	for b.Loop() {
		run()
	}
	spent := cpuTime() - start
	flop := 2 * float64(y.Shape.Elements()) * float64(l.kernel*l.kernel*l.channels)
	gflops := flop * float64(b.N) / spent.Seconds() / 1e9 // per thread
	b.ReportMetric(gflops, "GFLOP/cpu-s")
	b.ReportMetric(100*gflops/max(peak, tilePeak(e)), "%peak")
}
