package cpu

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
)

// Mixed precision: feature maps and their gradients lie in memory as bfloat16,
// and convolutions multiply pairs of bfloat16 with sums in float32. Everything
// else is float32 as always: arithmetic in loops, whose results are rounded when
// they go to memory, statistics, dense layers, the loss, gradients of parameters,
// parameters themselves and the optimizer's moments.
//
// A slot of such a map holds its numbers in pairs, in memory order. Steps that
// know nothing of it get a float32 copy, so a new operation works as it is.

// AutoPrecision is the faster precision of the kernels that New with empty options
// selects: bfloat16 where there are instructions for it, as was measured on a
// Zen 4 (docs/performance.md).
func AutoPrecision() (string, error) {
	k, err := kernel.FromEnvironment()
	if err != nil {
		return "", fmt.Errorf("cpu: %w", err)
	}
	if k.Set >= kernel.AVX512BF16 {
		return "bfloat16", nil
	}
	return "float32", nil
}

// halvesOf and wordsOf are views of a slot's memory as numbers and as pairs.
func halvesOf(s []float32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(s))), 2*len(s))
}

func wordsOf(s []float32) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(s))), len(s))
}

// findMaps marks the nodes that are kept as bfloat16: feature maps and their
// gradients, [N,H,W,C], that do not leave the graph.
func (c *compiler) findMaps() {
	c.maps = make([]bool, len(c.g.Nodes))
	if !c.p.engine.bf16 {
		return
	}
	for _, n := range c.g.Nodes {
		if len(n.Shape) != 4 {
			continue
		}
		switch n.Op {
		case graph.OpConv, graph.OpConvBackwardData, graph.OpMaxPool, graph.OpMaxPoolBackward, graph.OpAvgPool, graph.OpAvgPoolBackward,
			graph.OpGlobalAvgPoolBackward, graph.OpSubsample, graph.OpSubsampleBackward, graph.OpPadChannels, graph.OpSliceChannels, graph.OpScaleChannels,
			graph.OpBias, graph.OpBatchNorm, graph.OpBatchNormBackwardData:
			c.maps[n.ID] = true
		default:
			if n.Op.Elementwise() {
				for _, in := range n.Inputs {
					c.maps[n.ID] = c.maps[n.ID] || c.maps[in.ID]
				}
			}
		}
	}
	for id, kept := range c.kept {
		c.maps[id] = c.maps[id] && !kept
	}
}

// readsHalf reports whether the lowering of an operation that is not part of a
// loop takes bfloat16 operands.
func readsHalf(op graph.Op) bool {
	switch op {
	case graph.OpConv, graph.OpConvBackwardData, graph.OpConvBackwardWeights, graph.OpBatchMean, graph.OpBatchVariance,
		graph.OpMaxPool, graph.OpMaxPoolBackward, graph.OpAvgPool, graph.OpAvgPoolBackward, graph.OpGlobalAvgPool,
		graph.OpGlobalAvgPoolBackward, graph.OpSubsample, graph.OpSubsampleBackward, graph.OpPadChannels, graph.OpSliceChannels, graph.OpScaleChannels:
		return true
	}
	return false
}

// half reports whether a slot holds bfloat16.
func (c *compiler) half(s slot) bool { return s != noSlot && c.buffers[s].half }

// tempHalf is temp for size numbers in bfloat16.
func (c *compiler) tempHalf(size int, layout string) slot {
	s := c.temp((size+1)/2, layout)
	c.buffers[s].half = true
	return s
}

const convertElements = 16 << 10 // of a task that converts

// widened returns the slot of a node's value in float32: the value itself, or a copy.
func (c *compiler) widened(n *graph.Node) slot {
	from := c.slotOf[n.ID]
	if !c.half(from) {
		return from
	}
	if s, ok := c.wide[n.ID]; ok {
		return s
	}
	s := c.tempOf(n)
	c.widenStep(label(n), n.Shape.Elements(), from, s)
	c.wide[n.ID] = s
	return s
}

func (c *compiler) widenStep(name string, elements int, from, to slot) {
	p, k := c.p, &c.k.BF16
	c.step("widen "+name, (elements+convertElements-1)/convertElements, func(_, task int) {
		at := task * convertElements
		end := min(at+convertElements, elements)
		k.Widen(p.mem[to][at:end], halvesOf(p.mem[from])[at:])
	}, from, to)
}

// pairs returns the slot of a node's value [N,H,W,C] in bfloat16 with an even
// number of channels, and that number: the value itself or a copy, whose last
// channel is 0 if need be.
func (c *compiler) pairs(n *graph.Node) (s slot, channels int) {
	from, ch := c.slotOf[n.ID], n.Shape[3]
	channels = (ch + 1) &^ 1
	if c.half(from) && channels == ch {
		return from, ch
	}
	if s, ok := c.paired[n.ID]; ok {
		return s, channels
	}
	p, k, half := c.p, &c.k.BF16, c.half(from)
	pixels := n.Shape.Elements() / ch
	s = c.tempHalf(pixels*channels, layoutOf("bfloat16 NHWC", n.Shape[0], n.Shape[1], n.Shape[2], channels))
	c.paired[n.ID] = s
	perTask := max(1, convertElements/channels)
	c.step("pairs of "+label(n), (pixels+perTask-1)/perTask, func(_, task int) {
		at := task * perTask
		end := min(at+perTask, pixels)
		dst := halvesOf(p.mem[s])[at*channels : end*channels]
		switch {
		case half:
			src := halvesOf(p.mem[from])[at*ch:]
			for ; len(dst) > 0; dst, src = dst[channels:], src[ch:] {
				copy(dst, src[:ch])
				dst[ch] = 0
			}
		case ch == channels:
			k.Narrow(dst, p.mem[from][at*ch:])
		default:
			src := p.mem[from][at*ch:]
			for ; len(dst) > 0; dst, src = dst[channels:], src[ch:] {
				for j, v := range src[:ch] {
					dst[j] = kernel.ToBF16(v)
				}
				dst[ch] = 0
			}
		}
	}, from, s)
	return s, channels
}

// lowerPairs is lowerPass for src in pairs of cSrc channels, and dst in bfloat16.
func (c *compiler) lowerPairs(n *graph.Node, name string, m pixelMap, cSrc, cDst int, src, wei, dst slot, end *epilogue) error {
	t := c.k.BF16.ConvTileApart(n.Shape[0]*m.dst, cDst, 2*cSrc*m.stride())
	c.pairKernel(n)
	v := &convPass{pair: t, rows: t.Rows, cols: t.Cols, end: end}
	return c.addPass(v, name, m, n.Shape[0], cSrc/2, cDst, src, wei, dst)
}

// lowerHalf appends steps that compute a node's value in bfloat16, and one that
// widens it where it is float32 for others.
func (c *compiler) lowerHalf(n *graph.Node, steps func(dst slot) error) error {
	dst := c.value(n)
	if c.half(dst) {
		return steps(dst)
	}
	half := c.halfOf(n)
	if err := steps(half); err != nil {
		return err
	}
	c.widenStep(label(n), n.Shape.Elements(), half, dst)
	return nil
}

func (c *compiler) pairKernel(n *graph.Node) {
	t := c.k.BF16.ConvTiles[0]
	if strings.Contains(c.p.kernels[n.Op.String()], "winograd") {
		return // which says both
	}
	c.p.kernels[n.Op.String()] = fmt.Sprintf("bfloat16 igemm %d×%d %v", t.Rows, t.Cols, c.bf16Set())
}

// bf16Set is the instruction set of the bfloat16 kernels.
func (c *compiler) bf16Set() kernel.Set {
	if c.k.Set < kernel.AVX512BF16 {
		return kernel.Generic
	}
	return c.k.Set
}

// pairRows packs kernels [taps,ch,oc] as packedRows does, in pairs of channels:
// panels [oc/cols][tap][(ch+1)/2][cols].
func (c *compiler) pairRows(n *graph.Node, weights *graph.Node, taps, ch, oc int) slot {
	k, cols := &c.k.BF16, c.k.BF16.ConvTileFor(oc).Cols
	pairs, panels := (ch+1)/2, (oc+cols-1)/cols
	const perTask = 32 // pairs
	chunks := (pairs + perTask - 1) / perTask
	c.needScratch(2 * perTask * cols)
	return c.packed(n, weights, layoutOfWords(true, "panels", panels, taps, pairs, cols), panels*taps*pairs*cols, taps*chunks, func(worker int, dst, w, scale []float32, task int) {
		tap, first := task/chunks, task%chunks*perTask
		whole := min(first+perTask, ch/2) - first // pairs of which both exist
		for panel := range panels {
			valid := min(cols, oc-panel*cols)
			out := wordsOf(dst)[((panel*taps+tap)*pairs+first)*cols:]
			in, stride := w[(tap*ch+2*first)*oc+panel*cols:], oc
			if scale != nil { // before weights are rounded
				scaled := c.p.scratch[worker]
				for r := range min(2*perTask, ch-2*first) {
					c.k.Mul(scaled[r*cols:][:valid], in[r*oc:], scale[panel*cols:])
				}
				in, stride = scaled, cols
			}
			k.PackRows(out[:whole*cols], in, cols, valid, stride)
			if first+whole < min(first+perTask, pairs) { // the last channel of an odd number
				out = out[whole*cols:][:cols]
				clear(out)
				for j, v := range in[2*whole*stride:][:valid] {
					out[j] = uint32(kernel.ToBF16(v))
				}
			}
		}
	})
}

// pairColumns packs kernels [taps,ch,oc] as packedColumns does, in pairs of output
// channels: panels [ch/cols][tap][(oc+1)/2][cols].
func (c *compiler) pairColumns(n *graph.Node, weights *graph.Node, taps, ch, oc int) slot {
	k, cols := c.k, c.k.BF16.ConvTileFor(ch).Cols
	pairs, panels := (oc+1)/2, (ch+cols-1)/cols
	c.needScratch(cols * pairs)
	return c.packed(n, weights, layoutOfWords(true, "panels", panels, taps, pairs, cols), panels*taps*pairs*cols, panels*taps, func(worker int, dst, w, _ []float32, task int) {
		panel, tap := task/taps, task%taps
		rows := min(cols, ch-panel*cols)
		block := c.p.scratch[worker][:rows*pairs]
		for r := range rows {
			row := halvesOf(block[r*pairs:][:pairs])
			row[2*pairs-1] = 0
			k.BF16.Narrow(row[:oc], w[(tap*ch+panel*cols+r)*oc:][:oc])
		}
		out := dst[task*pairs*cols:][:pairs*cols]
		if rows < cols {
			clear(out)
		}
		k.Transpose(out, block, rows, pairs, cols, pairs)
	})
}
