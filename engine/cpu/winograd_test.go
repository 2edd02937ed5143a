package cpu

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

// TestWinogradRounding holds Winograd's convolutions to bounds of their own on
// sums as long as those of a real layer: of 2304 products of numbers in ±1
// forward and backward data, and 512 for the weights. The error of an element,
// against float64, is at most 16·2⁻²⁴ times the sum of its absolute products,
// which direct convolution is held to as well, and in the root mean square at
// most one and a half times that of direct convolution. F(4×4,3×3) adds numbers
// further apart: it is allowed three times as much. Measured, beside 0.40 of
// direct convolution in the root mean square: 0.52 forward, 1.1 backward data,
// whose sums are short here, 0.62 for the weights; and 17 at most, at a border.
//
// With stride 2, of pictures with twice the side, forward and weights are held to the bounds
// of F(2×2,3×3): 0.27 and 0.44 at most. The gradient by the data, whose sums are as short
// as one tap's 32 products and go through both transforms all the same, may err four times as
// much as direct convolution: 1.2, or 1.3 without fused multiply-adds, and 30 at a border.
func TestWinogradRounding(t *testing.T) {
	for _, stride := range []int{1, 2} {
		t.Run(fmt.Sprintf("stride %d", stride), func(t *testing.T) { testWinogradRounding(t, stride) })
	}
}

func testWinogradRounding(t *testing.T, stride int) {
	const n, c, oc = 8, 256, 32
	size, attrs := 8*stride, graph.ConvAttrs{Stride: stride, Pad: graph.SymmetricPadding(1)}
	b := graph.NewBuilder()
	x := b.Input("x", graph.Real, n, size, size, c)
	w := b.Input("w", graph.Real, 3, 3, c, oc)
	y := b.Conv(x, w, attrs)
	dy := b.Input("dy", graph.Real, y.Shape...)
	g, err := b.Build(y, b.ConvBackwardData(dy, w, x, attrs), b.ConvBackwardWeights(x, dy, w, attrs))
	if err != nil {
		t.Fatal(err)
	}
	rng := random.New(5)
	var in, abs []tensor.Tensor
	for _, node := range []*graph.Node{x, w, dy} {
		v, a := tensor.New(tensor.Float32, node.Shape...), tensor.New(tensor.Float32, node.Shape...)
		for i := range v.Float32s() {
			v.Float32s()[i] = float32(rng.Range(-1, 1))
			a.Float32s()[i] = float32(math.Abs(float64(v.Float32s()[i])))
		}
		in, abs = append(in, v), append(abs, a)
	}
	want, terms := wideConv(in[0], in[1], in[2], attrs), wideConv(abs[0], abs[1], abs[2], attrs)
	for _, k := range kernel.Supported() {
		var direct [3]float64 // root mean squares
		for _, winograd := range []string{"off", "on", "on-4x4"} {
			if winograd == "on" && stride == 2 {
				continue
			}
			e := open(t, Options{InstructionSet: k.Set.String(), Winograd: winograd})
			p, err := e.Compile(g, e.NewVariables())
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Kernels()["conv"]; strings.Contains(got, "winograd") != (winograd != "off") {
				t.Fatalf("winograd %s: conv runs as %q", winograd, got)
			}
			got, err := p.Run(context.Background(), in...)
			if err != nil {
				t.Fatal(err)
			}
			for i, pass := range []string{"forward", "backward data", "backward weights"} {
				worst, squares := 0.0, 0.0
				for j, v := range got[i].Float32s() {
					e := math.Abs(float64(v)-want[i][j]) / (terms[i][j] * 0x1p-24)
					worst, squares = max(worst, e), squares+e*e
				}
				rms := math.Sqrt(squares / float64(len(want[i])))
				t.Logf("%v, winograd %s, %s: error %.2g at most, %.2g root mean square", k.Set, winograd, pass, worst, rms)
				limit, times := 16.0, 1.5
				switch {
				case winograd == "on-4x4" && stride == 1:
					limit, times = 48, 3
				case winograd == "on-4x4" && i == 1:
					limit, times = 48, 4
				}
				if !(worst <= limit) {
					t.Errorf("%v, winograd %s, %s: error of %.3g, want at most %v", k.Set, winograd, pass, worst, limit)
				}
				if winograd == "off" {
					direct[i] = rms
				} else if !(rms <= times*direct[i]) {
					t.Errorf("%v, winograd %s, %s: root mean square error %.3g, direct %.3g", k.Set, winograd, pass, rms, direct[i])
				}
			}
		}
	}
}

// TestWinogradRoundingBF16 does so in mixed precision, on operands that bfloat16
// holds. Direct convolution rounds results alone, by at most 2⁻⁸ of themselves and
// evenly distributed, so the root mean square is less than 1/√3 of that.
// F(2×2,3×3) also rounds transformed operands, each a sum of four numbers, and
// combines nine products into each result; 1.11 was measured. F(4×4,3×3) is in
// float32 and rounds as direct convolution does.
func TestWinogradRoundingBF16(t *testing.T) {
	const n, size, c, oc = 8, 8, 256, 32
	attrs := graph.ConvAttrs{Stride: 1, Pad: graph.SymmetricPadding(1)}
	b := graph.NewBuilder()
	x := b.Input("x", graph.Real, n, size, size, c)
	w := b.Input("w", graph.Real, 3, 3, c, oc)
	y := b.Conv(x, w, attrs)
	dy := b.Input("dy", graph.Real, y.Shape...)
	g, err := b.Build(y, b.ConvBackwardData(dy, w, x, attrs), b.ConvBackwardWeights(x, dy, w, attrs))
	if err != nil {
		t.Fatal(err)
	}
	rng := random.New(5)
	var in []tensor.Tensor
	for _, node := range []*graph.Node{x, w, dy} {
		v := tensor.New(tensor.Float32, node.Shape...)
		for i := range v.Float32s() {
			v.Float32s()[i] = kernel.FromBF16(kernel.ToBF16(float32(rng.Range(-1, 1))))
		}
		in = append(in, v)
	}
	want := wideConv(in[0], in[1], in[2], attrs)
	for _, k := range kernel.Supported() {
		for _, c := range []struct {
			winograd string
			limit    float64
		}{{"off", 0.58}, {"on", 1.5}, {"on-4x4", 0.58}, {"on-4x4-bfloat16", 4.2}} {
			e := open(t, Options{InstructionSet: k.Set.String(), Winograd: c.winograd, Precision: "bfloat16"})
			p, err := e.Compile(g, e.NewVariables())
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Kernels()["conv"]; strings.Contains(got, "winograd") != (c.winograd != "off") || !strings.Contains(got, "bfloat16") {
				t.Fatalf("winograd %s: conv runs as %q", c.winograd, got)
			}
			got, err := p.Run(context.Background(), in...)
			if err != nil {
				t.Fatal(err)
			}
			for i, pass := range []string{"forward", "backward data", "backward weights"} {
				squares, all := 0.0, 0.0
				for j, v := range got[i].Float32s() {
					squares += (float64(v) - want[i][j]) * (float64(v) - want[i][j])
					all += want[i][j] * want[i][j]
				}
				rms := math.Sqrt(squares/all) / 0x1p-8
				t.Logf("%v, winograd %s, %s: root mean square error %.3g", k.Set, c.winograd, pass, rms)
				if !(rms <= c.limit) {
					t.Errorf("%v, winograd %s, %s: root mean square error %.3g, want at most %v", k.Set, c.winograd, pass, rms, c.limit)
				}
			}
		}
	}
}

// wideConv is y, dx and dw in float64 for a 3×3 kernel.
func wideConv(x, w, dy tensor.Tensor, a graph.ConvAttrs) [3][]float64 {
	h, wd, c := x.Shape()[1], x.Shape()[2], x.Shape()[3]
	oh, ow, oc := dy.Shape()[1], dy.Shape()[2], dy.Shape()[3]
	xs, ws, dys := x.Float32s(), w.Float32s(), dy.Float32s()
	out := [3][]float64{make([]float64, dy.Len()), make([]float64, x.Len()), make([]float64, w.Len())}
	for px := range dy.Len() / oc {
		image, row, col := px/(oh*ow), px/ow%oh, px%ow
		for tap := range 9 {
			sy, sx := row*a.Stride+tap/3-a.Pad.Top, col*a.Stride+tap%3-a.Pad.Left
			if sy < 0 || sy >= h || sx < 0 || sx >= wd {
				continue
			}
			i0, k0 := ((image*h+sy)*wd+sx)*c, px*oc
			for i := range c {
				v := float64(xs[i0+i])
				at := (tap*c + i) * oc
				sum := 0.0
				for j := range oc {
					wv, d := float64(ws[at+j]), float64(dys[k0+j])
					out[0][k0+j] += v * wv
					out[2][at+j] += v * d
					sum += wv * d
				}
				out[1][i0+i] += sum
			}
		}
	}
	return out
}

// The rule of auto: 3×3 kernels with stride 1, enough channels and pixels, whole
// vectors where epilogues are, and what is cheapest of each.
func TestWinogradRule(t *testing.T) {
	for _, c := range []struct {
		set, mode      string
		pass           graph.Op
		kernel, stride int
		n, size, c, oc int
		changing       bool
		want           algorithm
	}{
		{"avx2", "auto", graph.OpConv, 3, 1, 32, 32, 64, 64, true, by4},
		{"avx512", "auto", graph.OpConv, 3, 1, 32, 16, 32, 512, true, by4},
		{"avx2", "auto", graph.OpConv, 3, 1, 32, 32, 64, 20, true, by2},
		{"avx2", "auto", graph.OpConv, 3, 1, 32, 32, 64, 20, false, direct},
		{"avx2", "auto", graph.OpConv, 3, 1, 32, 32, 3, 64, true, direct},
		{"avx2", "auto", graph.OpConv, 3, 1, 32, 32, 64, 16, true, by2},
		{"avx2", "auto", graph.OpConv, 3, 2, 32, 32, 64, 64, true, byStride2},
		{"avx2", "auto", graph.OpConv, 3, 3, 32, 32, 64, 64, true, direct},
		{"avx512", "auto", graph.OpConv, 3, 2, 32, 32, 64, 128, true, byStride2},
		{"avx512", "auto", graph.OpConvBackwardData, 3, 2, 32, 32, 64, 128, true, byStride2},
		{"avx512", "auto", graph.OpConvBackwardWeights, 3, 2, 32, 32, 64, 128, true, byStride2},
		{"avx512", "auto", graph.OpConv, 3, 2, 32, 8, 256, 512, true, byStride2},
		{"avx512", "auto", graph.OpConvBackwardData, 3, 2, 32, 8, 256, 512, true, byStride2},
		{"avx512", "auto", graph.OpConvBackwardWeights, 3, 2, 32, 8, 256, 512, true, byStride2},
		{"avx512", "auto", graph.OpConv, 3, 2, 32, 16, 32, 64, true, direct}, // changes a ReLU
		{"avx512", "auto", graph.OpConvBackwardData, 3, 2, 32, 16, 32, 64, true, byStride2},
		{"avx512", "auto", graph.OpConvBackwardWeights, 3, 2, 32, 32, 16, 32, true, byStride2},
		{"avx2", "auto", graph.OpConv, 3, 2, 32, 8, 256, 512, true, direct},
		{"avx2", "auto", graph.OpConvBackwardWeights, 3, 2, 32, 8, 256, 512, true, byStride2},
		{"avx512", "auto", graph.OpConv, 3, 2, 32, 32, 3, 64, true, direct},
		{"avx512", "auto", graph.OpConv, 3, 2, 1, 8, 256, 512, false, direct}, // one tile
		{"avx512", "auto", graph.OpConv, 3, 2, 32, 8, 256, 512, false, byStride2},
		{"avx512", "auto", graph.OpConv, 3, 2, 32, 32, 64, 20, false, direct}, // a tail in generic Go
		{"avx512", "2x2", graph.OpConv, 3, 2, 32, 32, 64, 128, true, direct},
		{"avx512", "on-4x4", graph.OpConv, 3, 2, 1, 1, 1, 1, true, byStride2},
		{"avx512", "on-4x4-bfloat16", graph.OpConv, 3, 2, 1, 1, 1, 1, true, byStride2},
		{"avx512_bf16", "auto", graph.OpConv, 3, 2, 32, 32, 64, 128, true, direct},
		{"avx512_bf16", "on-4x4", graph.OpConv, 3, 2, 32, 32, 64, 128, true, direct},
		{"avx2", "auto", graph.OpConv, 1, 1, 32, 32, 64, 64, true, direct},
		{"avx2", "auto", graph.OpConv, 5, 1, 32, 32, 64, 64, true, direct},
		{"avx512", "auto", graph.OpConv, 3, 1, 32, 4, 512, 512, true, by4}, // few pixels, many weights
		{"avx512", "auto", graph.OpConv, 3, 1, 4, 4, 512, 512, true, by4},
		{"avx512", "auto", graph.OpConv, 3, 1, 1, 8, 256, 256, false, by2},
		{"avx512", "auto", graph.OpConv, 3, 1, 1, 4, 512, 512, false, direct},
		{"avx512", "auto", graph.OpConv, 3, 1, 256, 6, 64, 64, false, by2}, // tiles of 4×4 reach over the edge
		{"avx2", "2x2", graph.OpConv, 3, 1, 32, 32, 64, 64, true, by2},
		{"avx2", "2x2", graph.OpConv, 3, 1, 32, 4, 512, 512, true, direct},
		{"avx2", "2x2", graph.OpConv, 3, 1, 128, 4, 512, 512, true, by2},
		{"avx2", "2x2", graph.OpConv, 3, 1, 32, 4, 512, 512, false, by2},
		{"avx2", "2x2", graph.OpConv, 3, 1, 1, 8, 256, 256, false, by2},
		{"avx512", "2x2", graph.OpConvBackwardWeights, 3, 1, 32, 32, 64, 64, true, by2},
		{"avx512", "auto", graph.OpConvBackwardWeights, 3, 1, 32, 32, 3, 64, true, direct},
		{"avx512_bf16", "auto", graph.OpConvBackwardWeights, 3, 1, 32, 32, 3, 64, true, direct},
		{"generic", "auto", graph.OpConv, 3, 1, 32, 32, 64, 64, true, direct},
		{"generic", "on", graph.OpConv, 3, 1, 32, 32, 64, 64, true, by2},
		{"generic", "on-4x4", graph.OpConv, 3, 1, 32, 32, 64, 64, true, by4},
		{"avx2", "on", graph.OpConv, 3, 1, 1, 1, 1, 1, true, by2},
		{"avx2", "on", graph.OpConv, 3, 2, 32, 32, 64, 64, true, direct},
		{"avx2", "off", graph.OpConv, 3, 1, 32, 32, 64, 64, true, direct},
		{"avx512_bf16", "4x4-float32", graph.OpConv, 3, 1, 32, 32, 64, 64, true, by4}, // in bfloat16
		{"avx512_bf16", "4x4-float32", graph.OpConv, 3, 1, 32, 16, 128, 128, true, by2},
		{"avx512_bf16", "4x4-float32", graph.OpConv, 3, 1, 32, 8, 256, 256, true, by2},
		{"avx512_bf16", "4x4-float32", graph.OpConv, 3, 1, 32, 4, 512, 512, true, by4},
		{"avx512_bf16", "auto", graph.OpConvBackwardWeights, 3, 1, 32, 4, 512, 512, true, by2},
		{"avx512_bf16", "4x4-float32", graph.OpConvBackwardWeights, 3, 1, 32, 32, 64, 64, true, by4},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 128, 32, 16, 16, true, by4},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 128, 32, 24, 64, true, by4},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 128, 32, 64, 24, false, direct}, // a tail in generic Go
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 128, 32, 3, 16, true, direct},
		{"avx512_bf16", "2x2", graph.OpConv, 3, 1, 32, 32, 64, 64, true, by2},
		{"avx512", "auto", graph.OpConv, 3, 1, 128, 32, 16, 16, true, by2}, // in float32: F(4×4,3×3) rounds too much
		{"avx512", "auto", graph.OpConvBackwardData, 3, 1, 128, 32, 16, 16, true, by4},
		{"avx512", "auto", graph.OpConvBackwardWeights, 3, 1, 128, 32, 16, 16, true, by4},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 32, 16, 128, 128, true, by4Pairs},
		{"avx512_bf16", "auto", graph.OpConvBackwardData, 3, 1, 32, 32, 64, 64, true, by4Pairs},
		{"avx512_bf16", "auto", graph.OpConvBackwardWeights, 3, 1, 32, 16, 128, 128, true, by4Pairs},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 32, 4, 512, 512, true, by4Pairs}, // transformed by tasks
		{"avx512_bf16", "auto", graph.OpConvBackwardData, 3, 1, 32, 4, 512, 512, true, by4Pairs},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 32, 8, 256, 256, true, by4Pairs},
		{"avx512_bf16", "auto", graph.OpConvBackwardWeights, 3, 1, 32, 32, 64, 64, true, by4Pairs},
		{"avx512_bf16", "auto", graph.OpConvBackwardWeights, 3, 1, 32, 8, 256, 256, true, by4Pairs},
		{"avx512_bf16", "auto", graph.OpConvBackwardWeights, 3, 1, 128, 4, 512, 512, true, by4Pairs},
		{"avx512_bf16", "auto", graph.OpConvBackwardWeights, 3, 1, 32, 32, 32, 64, true, by4}, // too few channels to average over
		{"avx512_bf16", "auto", graph.OpConvBackwardData, 3, 1, 32, 32, 64, 64, false, by4Pairs},
		{"avx512_bf16", "on-4x4-bfloat16", graph.OpConv, 3, 1, 32, 32, 3, 5, true, by4Pairs},
		{"avx512_bf16", "on-4x4-bfloat16", graph.OpConvBackwardWeights, 3, 1, 32, 32, 3, 5, true, by4Pairs},
		{"avx512", "auto", graph.OpConv, 3, 1, 32, 16, 128, 128, true, by4},
		{"avx512", "on-4x4-bfloat16", graph.OpConv, 3, 1, 32, 32, 3, 5, true, by4},
		{"amx", "auto", graph.OpConv, 3, 1, 32, 32, 64, 64, true, direct},
		{"avx512_bf16", "on-4x4", graph.OpConv, 3, 1, 32, 32, 64, 64, true, by4},
		{"avx512", "auto", graph.OpConv, 3, 1, 1, 16, 128, 128, false, by2}, // few pixels, 36 planes of weights
		{"avx512", "auto", graph.OpConv, 3, 1, 2, 16, 128, 128, false, by4},
		{"avx512", "auto", graph.OpConv, 3, 1, 1, 32, 64, 64, false, by4},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 1, 8, 256, 256, false, by2},
		{"avx512_bf16", "2x2", graph.OpConv, 3, 1, 1, 32, 64, 64, false, by2},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 1, 32, 64, 64, false, by4Pairs}, // inference
		{"avx512_bf16", "4x4-float32", graph.OpConvBackwardData, 3, 1, 32, 32, 64, 64, false, by4},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 1, 32, 16, 16, false, by4},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 1, 8, 64, 64, false, by2},
		{"avx512", "auto", graph.OpConv, 3, 1, 1, 8, 64, 64, false, by2},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 1, 4, 512, 512, false, direct},
		{"avx512_bf16", "auto", graph.OpConv, 3, 1, 32, 32, 32, 64, true, by4},
	} {
		precision := "float32"
		if c.set == "avx512_bf16" || c.set == "amx" {
			precision = "bfloat16"
		}
		e := open(t, Options{Threads: 1, InstructionSet: c.set, Winograd: c.mode, Precision: precision})
		if e.Name() != "cpu/"+c.set {
			continue // does not run here
		}
		compiler := &compiler{p: &Program{engine: e}, k: e.kernels}
		attrs := graph.ConvAttrs{Stride: c.stride, Pad: graph.SamePadding(c.size, c.size, c.kernel, c.stride)}
		out := (c.size + c.stride - 1) / c.stride
		x, y := []int{c.n, c.size, c.size, c.c}, []int{c.n, out, out, c.oc}
		if got := compiler.algorithm([]int{c.kernel, c.kernel, c.c, c.oc}, x, y, attrs, c.pass, c.changing); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
