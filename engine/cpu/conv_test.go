package cpu

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
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
	{"resnet20.layer3.0.conv1", 16, 32, 64, 3, 2, 1},
	{"resnet20.layer3.0.conv2", 8, 64, 64, 3, 1, 5},
	{"resnet18.conv1", 32, 3, 64, 3, 1, 1},
	{"resnet18.layer1.0.conv1", 32, 64, 64, 3, 1, 4},
	{"resnet18.layer2.0.conv1", 32, 64, 128, 3, 2, 1},
	{"resnet18.layer2.0.downsample", 32, 64, 128, 1, 2, 1},
	{"resnet18.layer2.0.conv2", 16, 128, 128, 3, 1, 3},
	{"resnet18.layer3.0.conv1", 16, 128, 256, 3, 2, 1},
	{"resnet18.layer3.0.conv2", 8, 256, 256, 3, 1, 3},
	{"resnet18.layer4.0.conv1", 8, 256, 512, 3, 2, 1},
	{"resnet18.layer4.0.conv2", 4, 512, 512, 3, 1, 3},
}

// tilePeak measures what one thread reaches in ConvTile with all operands in
// the first cache, in GFLOP/s: the ceiling of the benchmarks below. It is
// measured beside each, because the machine's clock and neighbours change.
func tilePeak(e *Engine) float64 {
	const c, taps = 64, 4
	k := e.kernels.ConvTiles[0]
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
			k.Run(dst, dstOff, src, src, records, c, wei, false)
		}
		best = max(best, float64(calls*2*k.Rows*k.Cols*c*taps)/time.Since(start).Seconds()/1e9)
	}
	return best
}

// BenchmarkConv reports nominal GFLOP (products with padding count) per second
// of processor time of each pass of each layer, and its fraction of tilePeak.
// Skipped border taps can take it above what the kernel itself reaches. Where
// other programs run, GFLOP/best-s says more: the fastest time of each task counts.
// In bfloat16 feature maps come from and go to averages over one pixel, so that they
// lie in memory as in a network; these averages do not count.
func BenchmarkConv(b *testing.B) {
	for _, pass := range []graph.Op{graph.OpConv, graph.OpConvBackwardData, graph.OpConvBackwardWeights} {
		for _, l := range layers {
			for _, precision := range []string{"float32", "bfloat16"} {
				const batch = 32
				b.Run(fmt.Sprintf("%v/%s/N=%d/%s", pass, l.name, batch, precision), func(b *testing.B) { benchmarkConv(b, pass, l, batch, precision) })
			}
		}
	}
}

func benchmarkConv(b *testing.B, pass graph.Op, l layer, batch int, precision string) {
	e := open(b, Options{Precision: precision})
	g := graph.NewBuilder()
	attrs := graph.ConvAttrs{Stride: l.stride, Pad: graph.SamePadding(l.size, l.size, l.kernel, l.stride)}
	x := g.Input("x", graph.Real, batch, l.size, l.size, l.channels)
	w := g.Input("w", graph.Real, l.kernel, l.kernel, l.channels, l.out)
	size := (l.size + l.stride - 1) / l.stride
	dy := g.Input("dy", graph.Real, batch, size, size, l.out)
	memory := func(n *graph.Node) *graph.Node {
		if precision == "bfloat16" {
			return g.AvgPool(n, graph.PoolAttrs{Size: 1, Stride: 1})
		}
		return n
	}
	var out *graph.Node
	switch pass {
	case graph.OpConv:
		out = memory(g.Conv(memory(x), w, attrs))
	case graph.OpConvBackwardData:
		out = memory(g.ConvBackwardData(memory(dy), w, x, attrs))
	case graph.OpConvBackwardWeights:
		out = g.ConvBackwardWeights(memory(x), memory(dy), w, attrs)
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
	best := fastest(p.(*Program))
	steps, spent := p.(*Program).steps, time.Duration(0)
	counts := func(s *step) bool { return strings.Contains(s.name, pass.String()) }
	for i := range steps {
		if s := &steps[i]; counts(s) {
			body := s.body
			s.body = func(worker, task int) {
				start := cpuTime()
				body(worker, task)
				spent += cpuTime() - start
			}
		}
	}
	b.ResetTimer()
	for b.Loop() {
		run()
	}
	flop := 2 * float64(dy.Shape.Elements()) * float64(l.kernel*l.kernel*l.channels)
	gflops := flop * float64(b.N) / spent.Seconds() / 1e9 // per thread
	b.ReportMetric(gflops, "GFLOP/cpu-s")
	b.ReportMetric(100*gflops/max(peak, tilePeak(e)), "%peak")
	var all time.Duration
	for i, d := range best() {
		if counts(&steps[i]) {
			all += d
		}
	}
	b.ReportMetric(flop/all.Seconds()/1e9, "GFLOP/best-s")
}

// fastest makes the steps of a program run on one thread. What it returns gives,
// for each step, the sum of the fastest times of its tasks. A task is shorter than
// the time that the system gives other programs in between.
func fastest(p *Program) (times func() []time.Duration) {
	best := make([][]time.Duration, len(p.steps))
	for i := range p.steps {
		s := &p.steps[i]
		body, tasks := s.body, slices.Repeat([]time.Duration{math.MaxInt64}, s.tasks)
		best[i] = tasks
		s.tasks = 1
		s.body = func(_, _ int) {
			for task := range tasks {
				start := time.Now()
				body(0, task)
				tasks[task] = min(tasks[task], time.Since(start))
			}
		}
	}
	return func() (sums []time.Duration) {
		for _, tasks := range best {
			var sum time.Duration
			for _, d := range tasks {
				sum += d
			}
			sums = append(sums, sum)
		}
		return sums
	}
}

// TestConvPasses compares the three passes with plain loops on small integers,
// whose sums are exact (Winograd's halves and quarters too, and in bfloat16 until they are rounded), so that any mistake in tables, tails, groups, blocks or
// shards is an inequality. The shapes are chosen to reach each of them. F(4×4,3×3) is not exact: it may be wrong by a
// tenth, of sums of up to 15,000 products, where a mistake is wrong by whole numbers. In bfloat16 it reads and writes
// feature maps that averages over one pixel make, and results are rounded to them; with products of bfloat16 it may be
// wrong by a quarter of what results are in the root mean square, where a tenth was seen and a mistake makes the whole.
func TestConvPasses(t *testing.T) {
	same := func(h, w, kernel, stride int) graph.Padding { return graph.SamePadding(h, w, kernel, stride) }
	sym := func(p int) func(_, _, _, _ int) graph.Padding {
		return func(_, _, _, _ int) graph.Padding { return graph.SymmetricPadding(p) }
	}
	lopsided := func(_, _, _, _ int) graph.Padding { return graph.Padding{Top: 2, Left: 1, Right: 3} }
	for _, c := range []struct {
		why            string
		n, h, w, c, oc int
		kh, kw, stride int
		pad            func(h, w, kernel, stride int) graph.Padding
		reach          func(f *convPass, w *weightsPass) bool // the code path that the case is for
		winograd       func(f *winogradPass, w *winogradWeights) bool
		winograd4      func(f *winograd4Pass, w *winograd4Weights) bool
		pairs          func(f *winogradPass, w *winograd4Weights) bool // F(4×4,3×3) with products of bfloat16
	}{
		{why: "one pixel", n: 1, h: 1, w: 1, c: 1, oc: 1, kh: 1, kw: 1, stride: 1, pad: sym(0)},
		{why: "last group smaller", n: 15, h: 4, w: 4, c: 10, oc: 17, kh: 3, kw: 3, stride: 1, pad: same, reach: func(f *convPass, w *weightsPass) bool { return f.groups > 1 && f.last != f.tables }},
		{why: "stride 2, keras", n: 3, h: 8, w: 6, c: 16, oc: 32, kh: 3, kw: 3, stride: 2, pad: same},
		{why: "stride 2, odd", n: 2, h: 9, w: 7, c: 5, oc: 16, kh: 3, kw: 3, stride: 2, pad: sym(1)},
		{why: "1×1 stride 2 skips pixels", n: 4, h: 8, w: 8, c: 16, oc: 33, kh: 1, kw: 1, stride: 2, pad: sym(0), reach: func(f *convPass, w *weightsPass) bool { return w.blocks[0].gather != nil }},
		{why: "kernel and padding lopsided", n: 2, h: 7, w: 8, c: 3, oc: 4, kh: 2, kw: 4, stride: 1, pad: lopsided},
		{why: "stride 3 over the kernel", n: 2, h: 10, w: 11, c: 4, oc: 3, kh: 2, kw: 2, stride: 3, pad: sym(0)},
		{why: "large stem", n: 2, h: 40, w: 50, c: 3, oc: 16, kh: 7, kw: 7, stride: 2, pad: sym(3)},
		{why: "taps of a line joined", n: 3, h: 47, w: 53, c: 3, oc: 33, kh: 7, kw: 7, stride: 2, pad: sym(3), reach: func(f *convPass, w *weightsPass) bool {
			return w.joined != nil && (w.strips > 1 || w.rows > 7*3) && len(w.blocks) > 5 // rows of AMX hold them all
		}},
		{why: "taps of a line joined, lopsided", n: 2, h: 30, w: 21, c: 5, oc: 9, kh: 2, kw: 4, stride: 1, pad: lopsided,
			reach: func(f *convPass, w *weightsPass) bool { return w.joined != nil }},
		{why: "taps of a line joined, padding that no tap reads, lines left out", n: 2, h: 50, w: 101, c: 1, oc: 2, kh: 1, kw: 2, stride: 3, pad: sym(2),
			reach: func(f *convPass, w *weightsPass) bool { return w.joined != nil }},
		{why: "lines, shards", n: 5, h: 24, w: 30, c: 16, oc: 16, kh: 3, kw: 3, stride: 1, pad: same, reach: func(f *convPass, w *weightsPass) bool {
			return f.groups > 1 && f.chunks > 1 && w.shards > 1 && len(w.blocks) > 5 && w.packedX == noSlot
		}},
		{why: "lines wider than a block", n: 1, h: 3, w: 300, c: 7, oc: 5, kh: 3, kw: 3, stride: 1, pad: same,
			reach: func(f *convPass, w *weightsPass) bool { return len(w.blocks) > 1 }},
		{why: "panels apart, packed x", n: 3, h: 5, w: 5, c: 65, oc: 144, kh: 3, kw: 3, stride: 1, pad: same, reach: func(f *convPass, w *weightsPass) bool {
			return f.panelsPerTask < f.panels && w.panelsPerTask < w.panels && w.packedX != noSlot
		}},
		{why: "winograd: groups and blocks", n: 17, h: 11, w: 12, c: 9, oc: 33, kh: 3, kw: 3, stride: 1, pad: same, winograd: func(f *winogradPass, w *winogradWeights) bool {
			return f.groups > 1 && f.last != f.tables && f.chunks > 1 && w.shards > 1 && w.blocks > w.shards
		}, winograd4: func(f *winograd4Pass, w *winograd4Weights) bool { return f.kernels == nil && w.shards > 1 }},
		{why: "winograd: depth, panels", n: 2, h: 7, w: 4, c: 150, oc: 140, kh: 3, kw: 3, stride: 1, pad: sym(0), winograd: func(f *winogradPass, w *winogradWeights) bool {
			return f.depth < f.cSrc && f.panelsPerTask < f.panels && w.packedX != noSlot
		}, winograd4: func(f *winograd4Pass, w *winograd4Weights) bool {
			return f.depth < f.cSrc && f.panelsPerTask < f.panels && w.groupsX > 1 && w.groupsDy > 1
		}, pairs: func(f *winogradPass, w *winograd4Weights) bool {
			return f.kernels == nil && f.panelsPerTask < f.panels && w.groupsX > 1 && w.groupsDy > 1
		}},
		{why: "winograd: blocks, groups, shards of 4×4", n: 15, h: 26, w: 25, c: 10, oc: 17, kh: 3, kw: 3, stride: 1, pad: same, winograd4: func(f *winograd4Pass, w *winograd4Weights) bool {
			return f.groups > 1 && f.last != f.tables && f.chunks > 1 && w.shards > 1 && w.blocks > w.shards && w.chunks > 1
		}, pairs: func(f *winogradPass, w *winograd4Weights) bool {
			return w.shards > 1 && w.blocks > w.shards && w.tilesPerBlock%2 == 1
		}},
		{why: "winograd: kernels in tasks", n: 7, h: 3, w: 5, c: 165, oc: 181, kh: 3, kw: 3, stride: 1, pad: same, winograd4: func(f *winograd4Pass, w *winograd4Weights) bool {
			return f.kernels != nil && f.depth < f.cSrc && f.panelsPerTask < f.panels && w.shards == 1
		}, pairs: func(f *winogradPass, w *winograd4Weights) bool {
			return f.kernels != nil && f.weiRows%2 == 1 && f.depth < f.cSrc && f.panelsPerTask < f.panels && w.shards == 1
		}},
		{why: "winograd: lopsided", n: 2, h: 5, w: 6, c: 8, oc: 16, kh: 3, kw: 3, stride: 1, pad: lopsided},
		{why: "winograd, stride 2: even, padding after", n: 3, h: 18, w: 16, c: 17, oc: 33, kh: 3, kw: 3, stride: 2, pad: same},
		{why: "winograd, stride 2: odd, padding before", n: 2, h: 17, w: 13, c: 8, oc: 16, kh: 3, kw: 3, stride: 2, pad: sym(1)},
		{why: "winograd, stride 2: even, padding before", n: 2, h: 8, w: 20, c: 8, oc: 40, kh: 3, kw: 3, stride: 2, pad: sym(1)},
		{why: "winograd, stride 2: no padding", n: 2, h: 10, w: 11, c: 5, oc: 7, kh: 3, kw: 3, stride: 2, pad: sym(0)},
		{why: "winograd, stride 2: much padding", n: 2, h: 3, w: 4, c: 5, oc: 7, kh: 3, kw: 3, stride: 2, pad: sym(3)},
		{why: "winograd, stride 2: lopsided", n: 2, h: 9, w: 14, c: 8, oc: 16, kh: 3, kw: 3, stride: 2, pad: lopsided},
		{why: "winograd, stride 2: blocks, groups, shards", n: 15, h: 51, w: 50, c: 3, oc: 17, kh: 3, kw: 3, stride: 2, pad: same, winograd4: func(f *winograd4Pass, w *winograd4Weights) bool {
			return f.groups > 1 && f.last != f.tables && f.chunks > 1 && w.shards > 1 && w.blocks > w.shards && w.chunks > 1
		}},
		{why: "winograd, stride 2: kernels in tasks", n: 2, h: 6, w: 9, c: 190, oc: 200, kh: 3, kw: 3, stride: 2, pad: same, winograd4: func(f *winograd4Pass, w *winograd4Weights) bool {
			return f.kernels != nil && f.depth < f.cSrc && f.panelsPerTask < f.panels && w.groupsX > 1 && w.groupsDy > 1
		}},
		{why: "pixels a page apart", n: 2, h: 3, w: 5, c: 2048, oc: 64, kh: 1, kw: 1, stride: 1, pad: sym(0),
			reach: func(f *convPass, w *weightsPass) bool { return f.rows != 13 }},
		{why: "only padding in places", n: 1, h: 2, w: 2, c: 2, oc: 2, kh: 1, kw: 1, stride: 1, pad: sym(2)},
	} {
		t.Run(c.why, func(t *testing.T) {
			attrs := graph.ConvAttrs{Stride: c.stride, Pad: c.pad(c.h, c.w, c.kh, c.stride)}
			passes := func(memory func(b *graph.Builder, n *graph.Node) *graph.Node) *graph.Graph {
				b := graph.NewBuilder()
				x := b.Input("x", graph.Real, c.n, c.h, c.w, c.c)
				w := b.Input("w", graph.Real, c.kh, c.kw, c.c, c.oc)
				y := b.Conv(memory(b, x), w, attrs)
				dy := b.Input("dy", graph.Real, y.Shape...)
				dx := b.ConvBackwardData(memory(b, dy), w, x, attrs)
				g, err := b.Build(memory(b, y), memory(b, dx), b.ConvBackwardWeights(memory(b, x), memory(b, dy), w, attrs))
				if err != nil {
					t.Fatal(err)
				}
				return g
			}
			wide := passes(func(_ *graph.Builder, n *graph.Node) *graph.Node { return n })
			half := passes(func(b *graph.Builder, n *graph.Node) *graph.Node {
				return b.AvgPool(n, graph.PoolAttrs{Size: 1, Stride: 1})
			})
			rng := random.New(3, random.Name(c.why))
			in := make([]tensor.Tensor, 3)
			for i, n := range wide.Inputs {
				in[i] = tensor.New(tensor.Float32, n.Shape...)
				for j := range in[i].Float32s() {
					in[i].Float32s()[j] = float32(rng.IntN(9) - 4)
				}
			}
			want := naiveConv(in[0], in[1], in[2], attrs)
			for _, k := range kernel.Supported() {
				for threads, winograd := range map[int]string{1: "off", 3: "off", 2: "on", 4: "on", 5: "on-4x4", 6: "off", 7: "on-4x4", 8: "on-4x4-bfloat16", 9: "on"} {
					g, precision := wide, "float32"
					switch threads {
					case 6:
						precision = "bfloat16"
					case 7, 8, 9:
						g, precision = half, "bfloat16"
					}
					e := open(t, Options{Threads: threads, InstructionSet: k.Set.String(), Winograd: winograd, Precision: precision})
					p, err := e.Compile(g, e.NewVariables())
					if err != nil {
						t.Fatal(err)
					}
					if c.reach != nil && winograd == "off" {
						if f, w := p.(*Program).passes[0], p.(*Program).weights[0]; !c.reach(f, w) {
							t.Fatalf("%v: the case does not reach what it is for: %d groups, %d chunks, %d of %d panels per task; %d shards, %d blocks", k.Set,
								f.groups, f.chunks, f.panelsPerTask, f.panels, w.shards, len(w.blocks))
						}
					}
					if c.winograd != nil && winograd == "on" && precision == "float32" {
						if f, w := p.(*Program).winograds[0], p.(*Program).winogradWeights[0]; !c.winograd(f, w) {
							t.Fatalf("%v: the case does not reach what it is for: %d groups, %d chunks, %d of %d panels per task; %d shards, %d blocks", k.Set,
								f.groups, f.chunks, f.panelsPerTask, f.panels, w.shards, w.blocks)
						}
					}
					limit := float32(0)
					by4 := c.kh == 3 && c.kw == 3 && c.stride == 1
					if winograd == "on-4x4-bfloat16" && by4 {
						passes, w := p.(*Program).winograds, p.(*Program).winogradWeights4[0]
						for _, f := range passes {
							if len(passes) != 2 || f.size != 4 || w.byPairs == nil {
								t.Fatalf("%v: %d passes, tiles of %d, gradient of kernels by pairs: %v", k.Set, len(passes), f.size, w.byPairs != nil)
							}
							if c.pairs != nil && !c.pairs(f, w) {
								t.Fatalf("%v: the case does not reach what it is for: depth %d of %d, %d of %d panels per task; %d shards, %d blocks of %d tiles, %d × %d groups", k.Set,
									f.depth, f.cSrc, f.panelsPerTask, f.panels, w.shards, w.blocks, w.tilesPerBlock, w.groupsX, w.groupsDy)
							}
						}
					}
					if winograd == "on-4x4" && (by4 || c.kh == 3 && c.kw == 3 && c.stride == 2 && precision == "float32") {
						limit = 0.1
						f, w := p.(*Program).winograds4[0], p.(*Program).winogradWeights4[0]
						if f.half != (precision == "bfloat16") {
							t.Fatalf("%v, %s: results in bfloat16: %v", k.Set, precision, f.half)
						}
						if c.winograd4 != nil && !c.winograd4(f, w) {
							t.Fatalf("%v: the case does not reach what it is for: %d groups, %d chunks, %d of %d panels per task; %d shards, %d blocks, %d × %d groups", k.Set,
								f.groups, f.chunks, f.panelsPerTask, f.panels, w.shards, w.blocks, w.groupsX, w.groupsDy)
						}
					}
					nan := float32(math.NaN())
					fill(p.(*Program).arena, nan)
					for _, s := range p.(*Program).scratch {
						fill(s, nan)
					}
					got, err := p.Run(context.Background(), in...)
					if err != nil {
						t.Fatal(err)
					}
					for i, pass := range []string{"forward", "backward data", "backward weights"} {
						if winograd == "on-4x4-bfloat16" && by4 {
							limit = rootMeanSquare(want[i]) / 4
						}
						for j, v := range got[i].Float32s() {
							want, allowed := want[i][j], limit
							if precision == "bfloat16" && pass != "backward weights" { // maps are rounded, sums of integers are not
								if limit == 0 {
									want = kernel.FromBF16(kernel.ToBF16(want))
								} else {
									allowed += 0x1p-8 * max(want, -want)
								}
							}
							if !(max(v-want, want-v) <= allowed) {
								t.Fatalf("%s %s, %v, winograd %s, %d threads: element %d of %v is %v, want %v", pass, precision, k.Set, winograd, threads, j, got[i].Shape(), v, want)
							}
						}
					}
				}
			}
		})
	}
}

// TestWinogradPanels compares gradients of kernels in mixed precision whose tasks are panels
// with direct convolution in float32. On small integers both are exact.
func TestWinogradPanels(t *testing.T) {
	for _, c := range []struct {
		n, size, c, oc int
		blocks, rounds int // of AVX512_BF16
	}{
		{1, 3, 10, 230, 1, 1},
		{3, 17, 11, 257, 3, 1}, // the last block smaller, with an odd number of tiles
		{1, 5, 400, 256, 1, 2},
		{1, 23, 400, 256, 2, 2},
	} {
		b := graph.NewBuilder()
		x := b.Input("x", graph.Real, c.n, c.size, c.size, c.c)
		dy := b.Input("dy", graph.Real, c.n, c.size, c.size, c.oc)
		w := &graph.Node{Shape: tensor.Shape{3, 3, c.c, c.oc}}
		attrs := graph.ConvAttrs{Stride: 1, Pad: graph.SymmetricPadding(1)}
		g, err := b.Build(b.ConvBackwardWeights(x, dy, w, attrs))
		if err != nil {
			t.Fatal(err)
		}
		rng := random.New(5, uint64(c.c))
		in := []tensor.Tensor{tensor.New(tensor.Float32, x.Shape...), tensor.New(tensor.Float32, dy.Shape...)}
		for _, x := range in {
			for i := range x.Float32s() {
				x.Float32s()[i] = float32(rng.IntN(9) - 4)
			}
		}
		run := func(o Options) (*Program, []float32) {
			e := open(t, o)
			p, err := e.Compile(g, e.NewVariables())
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range append(p.(*Program).scratch, p.(*Program).arena) {
				fill(s, float32(math.NaN()))
			}
			out, err := p.Run(context.Background(), in...)
			if err != nil {
				t.Fatal(err)
			}
			return p.(*Program), out[0].Float32s()
		}
		_, want := run(Options{Threads: 1, Winograd: "off"})
		for _, k := range kernel.Supported() {
			p, got := run(Options{Threads: 3, InstructionSet: k.Set.String(), Winograd: "on", Precision: "bfloat16"})
			v := p.winogradWeights[0]
			if rounds := (v.strips + v.stripsAtOnce - 1) / v.stripsAtOnce; k.Set == kernel.AVX512BF16 && (v.blocks != c.blocks || rounds != c.rounds) {
				t.Errorf("%+v: %d blocks, %d rounds of strips", c, v.blocks, rounds)
			}
			if i := slices.IndexFunc(got, func(v float32) bool { return v != v }); i >= 0 || !slices.Equal(got, want) {
				t.Errorf("%+v, %v: gradients differ from direct convolution's; the first NaN is %d", c, k.Set, i)
			}
		}
	}
}

// Pairs of pixels are those of one image, or of some small ones, however many there are.
func TestImagesShareTables(t *testing.T) {
	e := open(t, Options{Threads: 1})
	pairs := func(images, size, channels, kernel int) (numbers int) {
		b := graph.NewBuilder()
		attrs := graph.ConvAttrs{Stride: 2, Pad: graph.SymmetricPadding(kernel / 2)}
		x := b.Input("x", graph.Real, images, size, size, channels)
		w := &graph.Node{Shape: tensor.Shape{kernel, kernel, channels, 16}}
		dy := b.Input("dy", graph.Real, images, size/2, size/2, 16)
		g, err := b.Build(b.ConvBackwardWeights(x, dy, w, attrs))
		if err != nil {
			t.Fatal(err)
		}
		p, err := e.Compile(g, e.NewVariables())
		if err != nil {
			t.Fatal(err)
		}
		seen := map[*int32]bool{}
		for _, block := range p.(*Program).weights[0].blocks {
			for _, tap := range block.pairs {
				if len(tap) > 0 && !seen[&tap[0]] {
					seen[&tap[0]], numbers = true, numbers+len(tap)
				}
			}
		}
		return numbers
	}
	for _, c := range []struct {
		why                    string
		size, channels, kernel int
	}{{"taps of a line joined", 64, 3, 7}, {"lines", 64, 16, 5}, {"images", 16, 16, 5}} {
		if few, many := pairs(16, c.size, c.channels, c.kernel), pairs(64, c.size, c.channels, c.kernel); few == 0 || many != few {
			t.Errorf("%s: %d numbers for 16 images, %d for 64", c.why, few, many)
		}
	}
}

func rootMeanSquare(v []float32) float32 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return float32(math.Sqrt(sum / float64(len(v))))
}

// naiveConv returns y, dx and dw by the definition of graph.OpConv.
func naiveConv(x, w, dy tensor.Tensor, a graph.ConvAttrs) [3][]float32 {
	xs, ws, ys := x.Shape(), w.Shape(), dy.Shape()
	out := [3][]float32{make([]float32, dy.Len()), make([]float32, x.Len()), make([]float32, w.Len())}
	for n := range ys[0] {
		for oh := range ys[1] {
			for ow := range ys[2] {
				for kh := range ws[0] {
					for kw := range ws[1] {
						ih, iw := oh*a.Stride+kh-a.Pad.Top, ow*a.Stride+kw-a.Pad.Left
						if ih < 0 || ih >= xs[1] || iw < 0 || iw >= xs[2] {
							continue
						}
						for c := range ws[2] {
							for oc := range ws[3] {
								i := ((n*xs[1]+ih)*xs[2]+iw)*xs[3] + c
								j := ((kh*ws[1]+kw)*ws[2]+c)*ws[3] + oc
								k := ((n*ys[1]+oh)*ys[2]+ow)*ys[3] + oc
								out[0][k] += x.Float32s()[i] * w.Float32s()[j]
								out[1][i] += dy.Float32s()[k] * w.Float32s()[j]
								out[2][j] += dy.Float32s()[k] * x.Float32s()[i]
							}
						}
					}
				}
			}
		}
	}
	return out
}
