package cpu

import (
	"fmt"
	"math"

	"github.com/residual-ml/residual/graph"
)

// Operations that are neither convolutions nor loops. They cost little in a
// residual network, so most are plain Go, one task per image.

// lowerMoments computes a batch's mean and, if nodes has it, variance in one
// pass over memory, as pairs of a chunk's mean and Σ(x-mean)² that are combined
// in float64 (Chan, Golub, LeVeque 1983, https://doi.org/10.1080/00031305.1983.10483115).
// Within a chunk, which stays in the second cache, a first pass finds a rounded
// mean m and a second one Σ(x-m) and Σ(x-m)², which correct it. Unlike
// E[x²]-E[x]² this does not cancel when the mean is far from zero. In bfloat16 m is
// the chunk's first row, which is as near as values that far apart need, and saves the
// first pass.
func (c *compiler) lowerMoments(nodes []*graph.Node) {
	p, k := c.p, c.k
	n := nodes[0]
	x := n.Inputs[0]
	src, mean, variance := c.slotOf[x.ID], c.value(n), noSlot
	for _, m := range nodes[1:] {
		variance = c.value(m)
	}
	c.p.kernels[n.Op.String()] = "chunked moments " + k.Set.String()
	c.p.kernels[graph.OpBatchVariance.String()] = c.p.kernels[n.Op.String()]
	ch := n.Shape[0]
	rows := x.Shape.Elements() / ch
	half := c.half(src)
	wantElements := 16 << 10
	if half {
		wantElements *= 4 // no second pass
	}
	perChunk := max(1, min(wantElements/ch, (rows+wantChunks-1)/wantChunks))
	chunks := (rows + perChunk - 1) / perChunk
	rowsOf := func(chunk int) int { return min(perChunk, rows-chunk*perChunk) }
	// part returns a chunk's m, Σ(x-m) and Σ(x-m)².
	part := func(chunk int) (m, sum, squares []float32) {
		sums := p.partials[chunk*3*ch:][:3*ch]
		return sums[:ch], sums[ch : 2*ch], sums[2*ch:]
	}
	c.needPartials(chunks * 3 * ch)
	c.step("moments "+n.Name, chunks, func(_, chunk int) {
		rows, at := rowsOf(chunk), chunk*perChunk*ch
		m, sum, squares := part(chunk)
		clear(p.partials[chunk*3*ch:][:3*ch])
		if half {
			maps := halvesOf(p.mem[src])[at:][:rows*ch]
			k.BF16.Widen(m, maps)
			k.BF16.Norm.Moments(sum, squares, maps, m)
			return
		}
		values := p.mem[src][at:][:rows*ch]
		k.Norm.Moments(m, squares, values, sum) // sum is 0
		clear(squares)
		k.ScaleAdd(m, m, 1/float32(rows), 0)
		k.Norm.Moments(sum, squares, values, m)
	}, src)
	c.step("moments total "+n.Name, totalTasks(ch), func(_, task int) {
		first := task * totalChannels
		end := min(first+totalChannels, ch)
		var totals [totalChannels]float64
		for chunk := range chunks {
			m, sum, _ := part(chunk)
			count := float64(rowsOf(chunk))
			for j, v := range m[first:end] {
				totals[j] += count*float64(v) + float64(sum[first+j])
			}
		}
		var all [totalChannels]float64 // the mean
		for j := range end - first {
			all[j] = totals[j] / float64(rows)
			p.mem[mean][first+j] = float32(all[j])
		}
		if variance == noSlot {
			return
		}
		clear(totals[:])
		for chunk := range chunks { // Σ(x-all)² = Σ(x-m)² + 2(m-all)Σ(x-m) + rows·(m-all)²
			m, sum, squares := part(chunk)
			count := float64(rowsOf(chunk))
			for j, v := range m[first:end] {
				d := float64(v) - all[j]
				totals[j] += float64(squares[first+j]) + 2*d*float64(sum[first+j]) + count*d*d
			}
		}
		for j := range end - first {
			p.mem[variance][first+j] = float32(totals[j] / float64(rows))
		}
	}, mean, variance)
}

// imageStep appends a step of one task per image; body gets the image's part
// of each operand and of the output, in float32: of bfloat16 a copy in scratch.
func (c *compiler) imageStep(n *graph.Node, body func(out []float32, in [][]float32)) {
	p, dst, images := c.p, c.value(n), n.Shape[0]
	all := append(c.inputsOf(n), dst) // the output last
	// Where the copies lie in scratch; -1: float32 in memory.
	copies := make([]int, len(all))
	size := make([]int, len(all)) // of an image
	scratch := 0
	for i, s := range all {
		shape := n.Shape
		if i < len(n.Inputs) {
			shape = n.Inputs[i].Shape
		}
		size[i], copies[i] = shape.Elements()/images, -1
		if c.half(s) {
			copies[i] = scratch
			scratch += size[i]
		}
	}
	c.needScratch(scratch)
	// Operand lists, one per worker, so that a run allocates nothing.
	operands := make([][][]float32, p.engine.Threads())
	for w := range operands {
		operands[w] = make([][]float32, len(all))
	}
	k, last := &c.k.BF16, len(all)-1
	c.step(label(n), images, func(worker, image int) {
		in := operands[worker]
		for i, s := range all {
			if copies[i] < 0 {
				in[i] = p.mem[s][image*size[i]:][:size[i]]
				continue
			}
			in[i] = p.scratch[worker][copies[i]:][:size[i]]
			if i < last {
				k.Widen(in[i], halvesOf(p.mem[s])[image*size[i]:])
			}
		}
		body(in[last], in[:last])
		if copies[last] >= 0 {
			k.Narrow(halvesOf(p.mem[dst])[image*size[last]:][:size[last]], in[last])
		}
		clear(in) // holds no memory that the program may have no more (workspace.go)
	}, all...)
}

// lowerSigmoid: y = 1/(1+exp(-x)), in float64 inside.
func (c *compiler) lowerSigmoid(n *graph.Node) {
	const chunk = 4096
	p, src, dst := c.p, c.slotOf[n.Inputs[0].ID], c.value(n)
	elements := n.Shape.Elements()
	c.step(label(n), (elements+chunk-1)/chunk, func(_, task int) {
		first, last := task*chunk, min((task+1)*chunk, elements)
		for i, x := range p.mem[src][first:last] {
			p.mem[dst][first+i] = float32(1 / (1 + math.Exp(-float64(x))))
		}
	}, src, dst)
}

// lowerScaleChannels: y = x·s, with factors of each image, or of each image's
// channels.
func (c *compiler) lowerScaleChannels(n *graph.Node) {
	p, k := c.p, c.k
	if len(n.Inputs[1].Shape) == 1 {
		c.imageStep(n, func(y []float32, in [][]float32) { k.ScaleAdd(y, in[0], in[1][0], 0) })
		return
	}
	ch := n.Shape[3]
	c.needChannels(ch)
	c.imageStep(n, func(y []float32, in [][]float32) { k.ChannelScaleAdd(y, in[0], in[1], p.zero[:ch]) })
}

// window is one position of a pooling window inside an image.
type window struct {
	pixels []int32 // source pixels, in row order
	count  float32 // the average's denominator
}

// windows lists a pooling's windows in the order of the output pixels.
func windows(h, w, oh, ow int, a graph.PoolAttrs) []window {
	list := make([]window, 0, oh*ow)
	for y := range oh {
		for x := range ow {
			var v window
			y0, x0 := y*a.Stride-a.Pad.Top, x*a.Stride-a.Pad.Left
			for sy := max(y0, 0); sy < min(y0+a.Size, h); sy++ {
				for sx := max(x0, 0); sx < min(x0+a.Size, w); sx++ {
					v.pixels = append(v.pixels, int32(sy*w+sx))
				}
			}
			v.count = float32(len(v.pixels))
			if a.CountPad {
				v.count = float32(a.Size * a.Size)
			}
			list = append(list, v)
		}
	}
	return list
}

// offsets makes element offsets of the windows' pixels.
func offsets(wins []window, channels int) []window {
	for _, win := range wins {
		for i := range win.pixels {
			win.pixels[i] *= int32(channels)
		}
	}
	return wins
}

// lowerMaxPool: y = max over the window. A NaN in the window gives NaN.
func (c *compiler) lowerMaxPool(n *graph.Node) error {
	x, k := n.Inputs[0].Shape, c.k
	if err := checkImages(n.Inputs[0]); err != nil {
		return err
	}
	ch := x[3]
	wins := offsets(windows(x[1], x[2], n.Shape[1], n.Shape[2], n.Pool), ch)
	c.p.kernels[n.Op.String()] = "windows " + k.Set.String()
	c.imageStep(n, func(y []float32, in [][]float32) {
		for o, win := range wins {
			k.WindowMax(y[o*ch:][:ch], in[0], win.pixels)
		}
	})
	return nil
}

// lowerMaxPoolBackward: dx gets dy where x was the first maximum of its window.
func (c *compiler) lowerMaxPoolBackward(n *graph.Node) error {
	dy, k := n.Inputs[0].Shape, c.k
	if err := checkImages(n); err != nil {
		return err
	}
	ch := n.Shape[3]
	wins := offsets(windows(n.Shape[1], n.Shape[2], dy[1], dy[2], n.Pool), ch)
	c.p.kernels[n.Op.String()] = "windows " + k.Set.String()
	c.imageStep(n, func(dx []float32, in [][]float32) {
		clear(dx)
		for o, win := range wins {
			k.WindowMaxBackward(dx, in[0][o*ch:][:ch], in[1], win.pixels)
		}
	})
	return nil
}

// lowerAvgPool: y = sum over the window / count.
func (c *compiler) lowerAvgPool(n *graph.Node) {
	x, k := n.Inputs[0].Shape, c.k
	ch := x[3]
	wins := windows(x[1], x[2], n.Shape[1], n.Shape[2], n.Pool)
	c.imageStep(n, func(y []float32, in [][]float32) {
		for o, win := range wins {
			out := y[o*ch:][:ch]
			clear(out)
			for _, px := range win.pixels {
				k.Add(out, out, in[0][int(px)*ch:])
			}
			k.ScaleAdd(out, out, 1/win.count, 0)
		}
	})
}

// lowerAvgPoolBackward: dx = Σ over the windows that hold it of dy / count.
func (c *compiler) lowerAvgPoolBackward(n *graph.Node) {
	dy := n.Inputs[0].Shape
	ch := n.Shape[3]
	wins := windows(n.Shape[1], n.Shape[2], dy[1], dy[2], n.Pool)
	c.imageStep(n, func(dx []float32, in [][]float32) {
		clear(dx)
		for o, win := range wins {
			share := 1 / win.count
			for _, px := range win.pixels {
				out := dx[int(px)*ch:][:ch]
				for j, d := range in[0][o*ch:][:ch] {
					out[j] += d * share
				}
			}
		}
	})
}

// lowerGlobalAvgPool: y [N,C] = mean of x over H and W.
func (c *compiler) lowerGlobalAvgPool(n *graph.Node) {
	x, k := n.Inputs[0].Shape, c.k
	share := 1 / float32(x[1]*x[2])
	c.imageStep(n, func(y []float32, in [][]float32) {
		clear(y)
		k.ChannelSum(y, in[0])
		k.ScaleAdd(y, y, share, 0)
	})
}

// lowerGlobalAvgPoolBackward: dx = dy / (H·W) at every pixel.
func (c *compiler) lowerGlobalAvgPoolBackward(n *graph.Node) {
	k, ch := c.k, n.Shape[3]
	share := 1 / float32(n.Shape[1]*n.Shape[2])
	c.imageStep(n, func(dx []float32, in [][]float32) {
		for ; len(dx) > 0; dx = dx[ch:] {
			k.ScaleAdd(dx[:ch], in[0], share, 0)
		}
	})
}

// lowerSubsample: y = every stride-th row and column of x.
func (c *compiler) lowerSubsample(n *graph.Node) {
	x := n.Inputs[0].Shape
	w, ch, stride, oh, ow := x[2], x[3], n.Stride, n.Shape[1], n.Shape[2]
	c.imageStep(n, func(y []float32, in [][]float32) {
		for i := range oh {
			for j := range ow {
				copy(y[(i*ow+j)*ch:][:ch], in[0][(i*w+j)*stride*ch:])
			}
		}
	})
}

// lowerSubsampleBackward: dx = dy at the pixels that were taken, 0 elsewhere.
func (c *compiler) lowerSubsampleBackward(n *graph.Node) {
	dy := n.Inputs[0].Shape
	w, ch, stride, oh, ow := n.Shape[2], n.Shape[3], n.Stride, dy[1], dy[2]
	c.imageStep(n, func(dx []float32, in [][]float32) {
		clear(dx)
		for i := range oh {
			for j := range ow {
				copy(dx[(i*w+j)*stride*ch:][:ch], in[0][(i*ow+j)*ch:])
			}
		}
	})
}

// lowerChannels pads with zero channels or drops channels, before and after.
func (c *compiler) lowerChannels(n *graph.Node) {
	from, to, before := n.Inputs[0].Shape[3], n.Shape[3], n.Channels.Before
	slice := n.Op == graph.OpSliceChannels
	c.imageStep(n, func(y []float32, in [][]float32) {
		x := in[0]
		for ; len(y) > 0; x, y = x[from:], y[to:] {
			if slice {
				copy(y[:to], x[before:])
				continue
			}
			clear(y[:before])
			copy(y[before:], x[:from])
			clear(y[before+from : to])
		}
	})
}

// logSumExp returns log Σ exp z, with the maximum taken out so that nothing overflows.
func logSumExp(z []float32) float64 {
	top := math.Inf(-1)
	for _, v := range z {
		top = math.Max(top, float64(v)) // NaN wins
	}
	sum := 0.0
	for _, v := range z {
		sum += math.Exp(float64(v) - top)
	}
	return top + math.Log(sum)
}

// lowerSoftmax: y = exp(x) / Σ exp(x) per row, in float64 inside.
func (c *compiler) lowerSoftmax(n *graph.Node) {
	c.imageStep(n, func(y []float32, in [][]float32) {
		log := logSumExp(in[0])
		for j, v := range in[0] {
			y[j] = float32(math.Exp(float64(v) - log))
		}
	})
}

// lowerSoftmaxBackward: dx = y·(dy - Σ dy·y) per row.
func (c *compiler) lowerSoftmaxBackward(n *graph.Node) {
	c.imageStep(n, func(dx []float32, in [][]float32) {
		dy, y := in[0], in[1]
		dot := 0.0
		for j := range y {
			dot += float64(dy[j]) * float64(y[j])
		}
		for j := range dx {
			dx[j] = float32(float64(y[j]) * (float64(dy[j]) - dot))
		}
	})
}

// lowerOneHot: targets from integer labels, which must be an input.
func (c *compiler) lowerOneHot(n *graph.Node) error {
	p, input := c.p, -1
	for i, in := range c.g.Inputs {
		if in == n.Inputs[0] {
			input = i
		}
	}
	if input < 0 {
		return fmt.Errorf("labels %v are no input", n.Inputs[0])
	}
	classes, dst := n.OneHot.Classes, c.value(n)
	off := float32(n.OneHot.Smoothing / float64(classes))
	on := float32(1 - n.OneHot.Smoothing + n.OneHot.Smoothing/float64(classes))
	c.step(label(n), 1, func(_, _ int) {
		t := p.mem[dst]
		fill(t, off)
		for i, l := range p.ints[input] {
			if l < 0 || int(l) >= classes {
				p.fail = fmt.Errorf("label %d of image %d is outside 0..%d (%d classes)", l, i, classes-1, classes)
				return
			}
			t[i*classes+int(l)] = on
		}
	}, dst)
	return nil
}

// lowerCrossEntropy: l = Σ t·(log Σ exp z - z) per row, in float64 inside.
func (c *compiler) lowerCrossEntropy(n *graph.Node) {
	c.imageStep(n, func(l []float32, in [][]float32) {
		z, t := in[0], in[1]
		log, total := logSumExp(z), 0.0
		for j := range z {
			if t[j] != 0 { // 0·∞ of a class that is impossible and not wanted
				total += float64(t[j]) * (log - float64(z[j]))
			}
		}
		l[0] = float32(total)
	})
}

// lowerCrossEntropyBackward: dz = dl·(softmax(z)·Σt - t).
func (c *compiler) lowerCrossEntropyBackward(n *graph.Node) {
	c.imageStep(n, func(dz []float32, in [][]float32) {
		dl, z, t := float64(in[0][0]), in[1], in[2]
		log, sum := logSumExp(z), 0.0
		for _, v := range t {
			sum += float64(v)
		}
		for j := range dz {
			dz[j] = float32(dl * (math.Exp(float64(z[j])-log)*sum - float64(t[j])))
		}
	})
}
