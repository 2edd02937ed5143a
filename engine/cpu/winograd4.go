package cpu

import (
	"math"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
)

// Convolutions through F(4×4,3×3) (kernel/winograd4.go), whose 36 products for 16
// pixels are a quarter of the definition's. They run as those of winograd.go do,
// except that transformed kernels, which are four times as large, go through memory
// only if they are small: otherwise tasks transform what they need themselves, into
// scratch.
//
// In mixed precision feature maps are bfloat16, but transformed values and products
// are float32 all the same: bfloat16 is short for them (decision 22). What is faster
// with products of bfloat16, and less exact, is a winogradPass.

const winograd4Planes = 36

// oddPlane is the size of a plane of at least n elements of float32, such that the
// elements of one tile in all planes share no cache set.
func oddPlane(n int) int { return oddLines(n, 16) }

// winograd4Kernels transforms rows k0 to k0+depth of one panel of kernels w: with
// j a column of the panel, plane i of row k0+r goes to dst[i·plane + r·cols + j].
// Columns beyond the last are left as they are: what becomes of them is not used.
// Output channels are multiplied by scale, unless it is nil (fold.go).
type winograd4Kernels func(worker int, dst, w, scale []float32, plane, k0, depth, panel int)

// winograd4Rows are kernels [3,3,ch,oc] as the forward pass wants them: rows are
// input channels, columns output channels. Scratch from at on holds the kernels
// of at most depth rows.
func (c *compiler) winograd4Rows(ch, oc, at, depth, cols int) winograd4Kernels {
	p, k := c.p, c.k
	c.needScratch(at + 9*depth*cols)
	return func(worker int, dst, w, scale []float32, plane, k0, depth, panel int) {
		size := depth * cols
		block := p.scratch[worker][at:][:9*size]
		for tap := range 9 {
			packPanel(k, cols, block[tap*size:][:size], w[(tap*ch+k0)*oc:], oc, panel)
		}
		if scale != nil {
			scaleRows(k, block, cols, scale[panel*cols:min((panel+1)*cols, oc)])
		}
		k.Winograd4.Weights(dst, block, size, size, plane)
	}
}

// winograd4Columns are kernels [3,3,ch,oc] as backward data wants them, turned by
// 180° and with channels exchanged: rows are output channels, columns input
// channels.
func (c *compiler) winograd4Columns(ch, oc, at, depth, cols int) winograd4Kernels {
	p, k := c.p, c.k
	c.needScratch(at + 9*depth*cols)
	return func(worker int, dst, w, _ []float32, plane, k0, depth, panel int) {
		size := depth * cols
		block := p.scratch[worker][at:][:9*size]
		for tap := range 9 {
			from := w[(tap*ch+panel*cols)*oc+k0:]
			k.Transpose(block[(8-tap)*size:][:size], from, min(cols, ch-panel*cols), depth, cols, oc)
		}
		k.Winograd4.Weights(dst, block, size, size, plane)
	}
}

// winograd4Packed is how many transformed numbers of a kernel may go through memory.
const winograd4Packed = 1 << 20

// winograd4Pairs packs transformed kernels [3,3,ch,oc] rounded to bfloat16, in pairs of
// rows: panels [columns/cols][plane][(rows+1)/2][cols], of rows and columns as
// winograd4Rows has them or, turned, winograd4Columns.
func (c *compiler) winograd4Pairs(n *graph.Node, weights *graph.Node, ch, oc int, turned bool) slot {
	const perTask = 32 // rows
	rows, columns := ch, oc
	if turned {
		rows, columns = oc, ch
	}
	k, cols := &c.k.BF16, c.k.BF16.ConvTileFor(columns).Cols
	pairs, chunks, panels := (rows+1)/2, (rows+perTask-1)/perTask, (columns+cols-1)/cols
	plane := oddPlane(perTask * cols) // in scratch
	c.needScratch(winograd4Planes * plane)
	transform := c.winograd4Rows
	if turned {
		transform = c.winograd4Columns
	}
	kernels := transform(ch, oc, winograd4Planes*plane, perTask, cols)
	return c.packed(n, weights, panels*winograd4Planes*pairs*cols, panels*chunks, func(worker int, dst, w, scale []float32, task int) {
		panel, k0 := task/chunks, task%chunks*perTask
		depth, block := min(perTask, rows-k0), c.p.scratch[worker]
		kernels(worker, block, w, scale, plane, k0, depth, panel)
		for i := range winograd4Planes {
			from := block[i*plane:]
			clear(from[depth*cols : (depth+1)/2*2*cols]) // the partner of the last of an odd number
			out := wordsOf(dst)[((panel*winograd4Planes+i)*pairs+k0/2)*cols:][:(depth+1)/2*cols]
			k.PackRows(out, from, cols, cols, cols)
		}
	})
}

// winograd4Task says whether transformed kernels go through memory, and of how many
// tiles and columns tasks are. The sums of a task, its transformed source and kernels
// come to about the second cache.
func winograd4Task(ch, oc int) (packed bool, tiles, columns int) {
	if winograd4Planes*ch*oc <= winograd4Packed {
		return true, 16, 128
	}
	return false, 39, 32
}

// winograd4Patches transforms patches of the values in s from element at on: those
// of c channels, input ones or gradients.
func (c *compiler) winograd4Patches(s slot, gradient bool) func(dst []float32, at int, patches []int32, channels int, l planes) {
	p, wide, half := c.p, c.k.Winograd4.Input, c.k.BF16.Winograd4.Input
	if gradient {
		wide, half = c.k.Winograd4.Gradient, c.k.BF16.Winograd4.Gradient
	}
	if c.half(s) {
		return func(dst []float32, at int, patches []int32, channels int, l planes) {
			half(dst, halvesOf(p.mem[s])[at:], halvesOf(p.zero), patches, channels, l.stride, l.size)
		}
	}
	return func(dst []float32, at int, patches []int32, channels int, l planes) {
		wide(dst, p.mem[s][at:], p.zero, patches, channels, l.stride, l.size)
	}
}

// winograd4Pass is a compiled convolution, forward or backward data.
type winograd4Pass struct {
	winogradTasks
	p          *Program
	tile       *kernel.ConvTile
	wei, dst   slot
	input      func(dst []float32, at int, patches []int32, c int, l planes) // of the source
	half       bool                                                          // dst is bfloat16, and what is added
	cSrc, cDst int
	srcStep    int // elements of one source image
	dstStep    int
	plane      int              // of the transformed weights of a panel
	depth      int              // channels of the source that are transformed at a time
	kernels    winograd4Kernels // of wei; nil when wei has them transformed, [panel][plane][cSrc][cols]
	scale      slot             // of output channels, for kernels
	in, out    planes           // of scratch
	taps       []int32          // the record of one tap over the rows of in
	at         []int32          // offsets of rows of out
	end        *epilogue
}

// lowerWinograd4 appends the steps of a convolution. h, w and oh, ow are the
// pixels of source and destination; turned says that it is backward data.
func (c *compiler) lowerWinograd4(n *graph.Node, name string, weights *graph.Node, images, h, w, oh, ow, top, left, cSrc, cDst int, src, dst slot, turned bool, end *epilogue) error {
	const wantDepth = 64 // chains of so many sums keep rounding small
	packed, wantTiles, wantColumns := winograd4Task(cSrc, cDst)
	perImage := ((oh + 3) / 4) * ((ow + 3) / 4)
	tile := c.k.ConvTileOf(images*perImage, cDst)
	v := &winograd4Pass{
		p: c.p, tile: tile, input: c.winograd4Patches(src, false), dst: dst, half: c.half(dst), scale: noSlot, cSrc: cSrc, cDst: cDst,
		srcStep: h * w * cSrc, dstStep: oh * ow * cDst, end: end,
	}
	v.panels = (cDst + tile.Cols - 1) / tile.Cols
	group := groupImages(perImage, images, tile.Rows)
	if max(group*v.srcStep, group*v.dstStep, cSrc*tile.Cols) > math.MaxInt32 {
		return errTooLarge
	}
	v.group(4, images, group, h, w, oh, ow, top, left, cSrc, cDst)
	v.divide(max(wantTiles/tile.Rows, 1) * tile.Rows)
	v.share(wantColumns / tile.Cols)
	v.depth = min(wantDepth, cSrc)
	v.in = planes{v.depth, oddPlane(v.tilesPerBlock * v.depth)}
	v.out = planes{v.panelsPerTask * tile.Cols, oddPlane(v.tilesPerBlock * v.panelsPerTask * tile.Cols)}
	v.taps = []int32{0, 0}
	for r := range tile.Rows {
		v.taps = append(v.taps, int32(r*v.in.stride))
		v.at = append(v.at, int32(r*v.out.stride))
	}
	scratch := winograd4Planes * (v.in.size + v.out.size)
	c.needScratch(scratch)
	c.needChannels(max(cSrc, cDst))
	kernels := func(at, depth int) winograd4Kernels {
		if turned {
			return c.winograd4Columns(cDst, cSrc, at, depth, tile.Cols)
		}
		return c.winograd4Rows(cSrc, cDst, at, depth, tile.Cols)
	}
	if packed {
		const perTask = 32 // rows
		v.plane = oddPlane(cSrc * tile.Cols)
		pack, chunks := kernels(0, perTask), (cSrc+perTask-1)/perTask
		v.wei = c.packed(n, weights, winograd4Planes*v.panels*v.plane, v.panels*chunks, func(worker int, dst, w, scale []float32, task int) {
			panel, k0 := task/chunks, task%chunks*perTask
			pack(worker, dst[panel*winograd4Planes*v.plane+k0*tile.Cols:], w, scale, v.plane, k0, min(perTask, cSrc-k0), panel)
		})
	} else {
		v.plane = oddPlane(v.depth * tile.Cols)
		v.kernels = kernels(scratch+winograd4Planes*v.panelsPerTask*v.plane, v.depth)
		if v.wei = c.slotOf[weights.ID]; c.half(v.wei) {
			v.wei = c.widened(weights)
		}
		if f := c.folds[n.ID]; f != nil {
			v.scale = f.scale
		}
	}
	c.p.winograds4 = append(c.p.winograds4, v)
	c.winogradKernel(n, by4)
	c.step("winograd 4×4 "+name, v.tasks(), v.run, append(end.reads(), src, v.wei, dst)...)
	return nil
}

// run computes one task: some tiles of one group times some panels.
func (v *winograd4Pass) run(worker, task int) {
	p, wide, half := v.p, &v.p.engine.kernels.Winograd4, &v.p.engine.kernels.BF16.Winograd4
	rows, cols := v.tile.Rows, v.tile.Cols
	block, panel0, panelEnd := v.task(task)
	image, patches, at := v.of(block)
	tiles := len(at) / 16
	srcAt, dstAt := image*v.srcStep, image*v.dstStep+panel0*cols
	columns := min(panelEnd*cols, v.cDst) - panel0*cols
	scratch := p.scratch[worker]
	in, scratch := scratch[:winograd4Planes*v.in.size], scratch[winograd4Planes*v.in.size:]
	out, scratch := scratch[:winograd4Planes*v.out.size], scratch[winograd4Planes*v.out.size:]
	for c0 := 0; c0 < v.cSrc; c0 += v.depth {
		depth := min(v.depth, v.cSrc-c0)
		v.input(in, srcAt+c0, patches, depth, v.in)
		wei, panelStep := p.mem[v.wei], winograd4Planes*v.plane
		if v.kernels == nil {
			wei = wei[panel0*panelStep+c0*cols:]
		} else {
			var scale []float32
			if v.scale != noSlot {
				scale = p.mem[v.scale]
			}
			for panel := panel0; panel < panelEnd; panel++ {
				v.kernels(worker, scratch[(panel-panel0)*panelStep:], wei, scale, v.plane, c0, depth, panel)
			}
			wei = scratch
		}
		for i := range winograd4Planes {
			for panel := range panelEnd - panel0 {
				w := wei[panel*panelStep+i*v.plane:]
				to := out[i*v.out.size+panel*cols:]
				for tile := 0; tile < tiles; tile += rows {
					v.tile.Run(to[tile*v.out.stride:], v.at, in[i*v.in.size+tile*v.in.stride:], p.zero, v.taps, depth, w, c0 > 0)
				}
			}
		}
	}
	dst, halves := p.mem[v.dst], halvesOf(p.mem[v.dst])
	switch stride, size := v.out.stride, v.out.size; {
	case v.end == nil && v.half:
		half.Output(halves[dstAt:], out, at, columns, stride, size)
	case v.end == nil:
		wide.Output(dst[dstAt:], out, at, columns, stride, size)
	default:
		e, bias := v.end, v.end.biasOf(p, panel0*cols, panel0*cols+columns)
		if v.half {
			half.OutputEpilogue(halves[dstAt:], out, at, stride, size, e.addHalvesOf(p, dstAt), bias, e.before, e.after)
		} else {
			wide.OutputEpilogue(dst[dstAt:], out, at, stride, size, e.addOf(p, dstAt), bias, e.before, e.after)
		}
	}
}

// winograd4Weights computes dw. A task adds the products of some channels of x
// with some of dy over the tiles of a shard to sums in scratch, block by block,
// and transforms the sums at the end; shards are added, in order, into dw.
type winograd4Weights struct {
	winogradBlocks
	p                 *Program
	tile              *kernel.OuterTile
	dw                slot
	input, gradient   func(dst []float32, at int, patches []int32, c int, l planes) // of x and dy
	parts             slot                                                          // [shard][3,3,c,oc], or dw when there is one shard
	c, oc             int
	xStep, dyStep     int // elements of one image
	channels, columns int // of x and dy per task; the latter whole panels
	strips, panels    int // of a task
	groupsX, groupsDy int // of channels and columns
	shards            int
	in, grad          planes  // of scratch
	sums              int     // size of a plane of [panel][strip][Rows*Cols] in scratch
	offsets           []int32 // of tiles in in and grad
}

func (c *compiler) lowerWinograd4Weights(n *graph.Node) error {
	x, dy := n.Inputs[0], n.Inputs[1]
	images, h, w, ch := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	oh, ow, oc := dy.Shape[1], dy.Shape[2], dy.Shape[3]
	if err := checkImages(x, dy); err != nil {
		return err
	}
	const wantChannels, wantColumns, wantTiles, wantTasks = 64, 64, 40, 16
	tile := c.k.OuterTileFor(ch, oc)
	v := &winograd4Weights{
		p: c.p, tile: tile, c: ch, oc: oc,
		input: c.winograd4Patches(c.slotOf[x.ID], false), gradient: c.winograd4Patches(c.slotOf[dy.ID], true),
		xStep: h * w * ch, dyStep: oh * ow * oc,
		channels: min(wantChannels, ch),
	}
	v.strips = (v.channels + tile.Rows - 1) / tile.Rows
	v.panels = min(max(wantColumns/tile.Cols, 1), (oc+tile.Cols-1)/tile.Cols)
	v.columns = v.panels * tile.Cols
	v.groupsX, v.groupsDy = (ch+v.channels-1)/v.channels, (oc+v.columns-1)/v.columns
	perImage := ((oh + 3) / 4) * ((ow + 3) / 4)
	group := min(max(wantTiles/perImage, 1), images)
	if max(group*v.xStep, group*v.dyStep) > math.MaxInt32 {
		return errTooLarge
	}
	v.group(4, images, group, h, w, oh, ow, n.Conv.Pad.Top, n.Conv.Pad.Left, ch, oc)
	chunks := (v.tables.tiles() + wantTiles - 1) / wantTiles
	v.divide((v.tables.tiles() + chunks - 1) / chunks)
	v.shards = min((wantTasks+v.groupsX*v.groupsDy-1)/(v.groupsX*v.groupsDy), v.blocks)

	v.in = planes{v.channels, oddPlane(v.tilesPerBlock*v.channels + tile.Rows)} // a tile may read past the last channel
	v.grad = planes{v.columns, oddPlane(v.tilesPerBlock * v.columns)}
	v.sums = oddPlane(v.panels * v.strips * tile.Rows * tile.Cols)
	for t := range v.tilesPerBlock {
		v.offsets = append(v.offsets, int32(t*v.in.stride), int32(t*v.grad.stride))
	}
	c.p.winogradWeights4 = append(c.p.winogradWeights4, v)
	c.needScratch(winograd4Planes * (v.in.size + v.grad.size + v.sums))
	c.needChannels(max(ch, oc))
	c.winogradKernel(n, by4)
	name := label(n)
	if v.shards == 1 {
		v.dw = c.value(n)
		v.parts = v.dw
		c.step("winograd 4×4 "+name, v.groupsX*v.groupsDy, v.run, c.slotOf[x.ID], c.slotOf[dy.ID], v.dw)
		return nil
	}
	v.parts = c.temp(v.shards * 9 * ch * oc)
	c.step("winograd 4×4 "+name, v.shards*v.groupsX*v.groupsDy, v.run, c.slotOf[x.ID], c.slotOf[dy.ID], v.parts)
	v.dw = c.value(n)
	c.step("sum "+name, 9, v.total, v.parts, v.dw)
	return nil
}

// run computes one shard of the gradients of some channels and columns.
func (v *winograd4Weights) run(worker, task int) {
	p, f, size := v.p, &v.p.engine.kernels.Winograd4, v.tile.Rows*v.tile.Cols
	shard, task := task%v.shards, task/v.shards
	c0, o0 := task%v.groupsX*v.channels, task/v.groupsX*v.columns
	channels, columns := min(v.channels, v.c-c0), min(v.columns, v.oc-o0)
	strips, panels := (channels+v.tile.Rows-1)/v.tile.Rows, (columns+v.tile.Cols-1)/v.tile.Cols
	scratch := p.scratch[worker]
	in, scratch := scratch[:winograd4Planes*v.in.size], scratch[winograd4Planes*v.in.size:]
	grad, scratch := scratch[:winograd4Planes*v.grad.size], scratch[winograd4Planes*v.grad.size:]
	sums := scratch[:winograd4Planes*v.sums]
	clear(sums)
	for block := shard * v.blocks / v.shards; block < (shard+1)*v.blocks/v.shards; block++ {
		image, patches, at := v.of(block)
		tiles := len(at) / 16
		v.input(in, image*v.xStep+c0, patches, channels, v.in)
		v.gradient(grad, image*v.dyStep+o0, at, columns, v.grad)
		for i := range winograd4Planes {
			for panel := range panels {
				dy := grad[i*v.grad.size+panel*v.tile.Cols:]
				for strip := range strips {
					dst := sums[i*v.sums+(panel*strips+strip)*size:][:size]
					v.tile.Run(dst, in[i*v.in.size+strip*v.tile.Rows:], dy, v.offsets[:2*tiles])
				}
			}
		}
	}
	dst := p.mem[v.parts][shard*9*v.c*v.oc:]
	for panel := range panels {
		for r := range channels {
			from := sums[(panel*strips+r/v.tile.Rows)*size+r%v.tile.Rows*v.tile.Cols:]
			f.Sums(dst[(c0+r)*v.oc+o0+panel*v.tile.Cols:], from, min(v.tile.Cols, columns-panel*v.tile.Cols), v.c*v.oc, v.sums)
		}
	}
}

// total adds one tap of all shards.
func (v *winograd4Weights) total(_, tap int) {
	size := v.c * v.oc
	dw, parts := v.p.mem[v.dw][tap*size:][:size], v.p.mem[v.parts]
	copy(dw, parts[tap*size:])
	for shard := 1; shard < v.shards; shard++ {
		v.p.engine.kernels.Add(dw, dw, parts[(shard*9+tap)*size:])
	}
}
