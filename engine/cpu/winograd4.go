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
// In mixed precision feature maps are bfloat16. With few channels transformed values and
// products are float32 all the same: bfloat16 is short for them (decision 22). With more
// they are bfloat16: forward and by data those are a winogradPass, and gradients of kernels
// are winograd4Weights by pairs.

const winograd4Planes = 36

// oddPlane is the size of a plane of at least n elements of float32, such that the
// elements of one tile in all planes share no cache set.
func oddPlane(n int) int { return oddLines(n, 16) }

// winograd4Kernels transforms rows k0 to k0+depth of one panel of kernels w: with
// j a column of the panel, plane i of row k0+r goes to dst[i·plane + r·cols + j].
// Columns beyond the last are left as they are: what becomes of them is not used.
// Output channels are multiplied by scale, unless it is nil (fold.go).
type winograd4Kernels func(worker int, dst, w, scale []float32, plane, k0, depth, panel int)

// kernelTransform is Weights of kernel.Winograd.
type kernelTransform func(dst, src []float32, n, tap, plane int)

// winograd4Rows are kernels [3,3,ch,oc] as the forward pass wants them: rows are
// input channels, columns output channels. Scratch from at on holds the kernels
// of at most depth rows.
func (c *compiler) winograd4Rows(transform kernelTransform, ch, oc, at, depth, cols int) winograd4Kernels {
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
		transform(dst, block, size, size, plane)
	}
}

// winograd4Columns are kernels [3,3,ch,oc] as backward data wants them, with channels
// exchanged: rows are output channels, columns input channels. turned says that the
// order of the taps is the other one, from bottom to top and from right to left.
func (c *compiler) winograd4Columns(transform kernelTransform, turned [2]bool, ch, oc, at, depth, cols int) winograd4Kernels {
	p, k := c.p, c.k
	c.needScratch(at + 9*depth*cols)
	return func(worker int, dst, w, _ []float32, plane, k0, depth, panel int) {
		size := depth * cols
		block := p.scratch[worker][at:][:9*size]
		for tap := range 9 {
			from, row, column := w[(tap*ch+panel*cols)*oc+k0:], tap/3, tap%3
			if turned[0] {
				row = 2 - row
			}
			if turned[1] {
				column = 2 - column
			}
			k.Transpose(block[(3*row+column)*size:][:size], from, min(cols, ch-panel*cols), depth, cols, oc)
		}
		transform(dst, block, size, size, plane)
	}
}

// winograd4Packed is how many transformed numbers of a kernel may go through memory.
const winograd4Packed = 1 << 20

// winograd4PairKernels is winograd4Kernels for products of bfloat16: plane i of rows k0 to
// k0+depth goes, rounded and in pairs of rows, to dst[i·plane:][:(depth+1)/2·cols].
type winograd4PairKernels func(worker int, dst []uint32, w, scale []float32, plane, k0, depth, panel int)

// winograd4Rounded makes those of kernels [3,3,ch,oc], of rows and columns as
// winograd4Rows has them or, turned, winograd4Columns. What is not rounded yet is in
// scratch from at on, of at most depth rows.
func (c *compiler) winograd4Rounded(ch, oc, at, depth, cols int, turned bool) winograd4PairKernels {
	p, k := c.p, &c.k.BF16
	size := oddPlane(depth * cols)
	c.needScratch(at + winograd4Planes*size)
	var kernels winograd4Kernels
	if turned {
		kernels = c.winograd4Columns(c.k.Winograd4.Weights, [2]bool{true, true}, ch, oc, at+winograd4Planes*size, depth, cols)
	} else {
		kernels = c.winograd4Rows(c.k.Winograd4.Weights, ch, oc, at+winograd4Planes*size, depth, cols)
	}
	return func(worker int, dst []uint32, w, scale []float32, plane, k0, depth, panel int) {
		block := p.scratch[worker][at:]
		kernels(worker, block, w, scale, size, k0, depth, panel)
		roundPlanes(k, dst, plane, block, size, depth, cols)
	}
}

// roundPlanes rounds planes of so many rows, in pairs of rows. One without a partner gets
// zeros.
func roundPlanes(k *kernel.BF16, dst []uint32, plane int, from []float32, size, rows, cols int) {
	for i := range winograd4Planes {
		from := from[i*size:]
		clear(from[rows*cols : (rows+1)/2*2*cols])
		k.PackRows(dst[i*plane:][:(rows+1)/2*cols], from, cols, cols, cols)
	}
}

// winograd4Pairs packs transformed kernels [3,3,ch,oc] for products of bfloat16: panels
// [columns/cols][plane][(rows+1)/2][cols].
func (c *compiler) winograd4Pairs(n *graph.Node, weights *graph.Node, ch, oc int, turned bool) slot {
	const perTask = 32 // rows
	rows, columns := ch, oc
	if turned {
		rows, columns = oc, ch
	}
	cols := c.k.BF16.ConvTileFor(columns).Cols
	plane, chunks, panels := (rows+1)/2*cols, (rows+perTask-1)/perTask, (columns+cols-1)/cols
	kernels := c.winograd4Rounded(ch, oc, 0, perTask, cols, turned)
	return c.packed(n, weights, layoutOfWords(true, "panels", panels, winograd4Planes, (rows+1)/2, cols), panels*winograd4Planes*plane, panels*chunks, func(worker int, dst, w, scale []float32, task int) {
		panel, k0 := task/chunks, task%chunks*perTask
		out := wordsOf(dst)[panel*winograd4Planes*plane+k0/2*cols:]
		kernels(worker, out, w, scale, plane, k0, min(perTask, rows-k0), panel)
	})
}

// winograd4InTasks says that the tasks of a pass in products of bfloat16 transform kernels
// themselves: those are large, new in each run, and needed for one block of tiles alone.
func winograd4InTasks(changing bool, tiles, ch, oc int) bool {
	return changing && tiles <= pairTask.tiles && winograd4Planes*ch*oc > winograd4Packed
}

// pairTask is what such a task has: at most so many tiles and columns, so many channels of
// the source at a time, and what it costs to transform a kernel, as in convCosts.
var pairTask = struct {
	tiles, columns, depth int
	kernel                float64
}{65, 32, 64, 350}

// winograd4Task says whether transformed kernels go through memory, and of how many
// tiles and columns tasks are. The sums of a task, its transformed source and kernels
// come to about the second cache.
func winograd4Task(ch, oc int) (packed bool, tiles, columns int) {
	if winograd4Planes*ch*oc <= winograd4Packed {
		return true, 16, 128
	}
	return false, 39, 32
}

// winograd4Patches transforms patches of the values in s by the kernel for float32 or for
// bfloat16.
func (c *compiler) winograd4Patches(s slot, wide func(dst, src, zero []float32, patches []int32, c, stride, plane int),
	half func(dst []float32, src, zero []uint16, patches []int32, c, stride, plane int)) winograd4Input {
	p := c.p
	if c.half(s) {
		return func(dst []float32, at int, patches []int32, channels int, l planes) {
			half(dst, halvesOf(p.mem[s])[at:], halvesOf(p.zero), patches, channels, l.stride, l.size)
		}
	}
	return func(dst []float32, at int, patches []int32, channels int, l planes) {
		wide(dst, p.mem[s][at:], p.zero, patches, channels, l.stride, l.size)
	}
}

// winograd4Pass is a compiled convolution, forward or backward data, of stride 1 or 2.
// The latter has four phases of pixels, of the source forward and of the destination
// backward.
type winograd4Pass struct {
	winogradTasks
	phases     [3]winogradBlocks // of stride 2, further ones
	p          *Program
	tile       *kernel.ConvTile
	wei, dst   slot
	inputs     []winograd4Input  // of the source, of each of its phases
	outputs    []winograd4Output // of the destination
	half       bool              // dst is bfloat16, and what is added
	cSrc, cDst int
	srcStep    int // elements of one source image
	dstStep    int
	plane      int                // of the transformed weights of a panel
	depth      int                // channels of the source that are transformed at a time
	kernels    winograd4Kernels   // of wei; nil when wei has them transformed, [panel][plane][cSrc][cols]
	scale      slot               // of output channels, for kernels
	in, out    planes             // of scratch
	inPlanes   int                // how many
	outPlanes  int                //
	products   []winograd4Product // of which sums become planes of out
	at         []int32            // offsets of rows of out
	end        *epilogue
}

// winograd4Input is Input of patches in a value whose elements, from at on, are of
// either precision.
type winograd4Input func(dst []float32, at int, patches []int32, c int, l planes)

// winograd4Output are the transforms to a feature map in float32 or bfloat16, from the
// planes first and after.
type winograd4Output struct {
	first int
	wide  *kernel.Transforms[float32, float32]
	half  *kernel.Transforms[uint16, float32]
}

// winograd4Product is a product for plane to: records of taps over the rows of a tile, of
// planes of the source and of the kernels. more says that it is not the first for its plane.
type winograd4Product struct {
	to   int
	taps []int32
	more bool
}

// term is a plane of a transformed source, and one of the kernels, that meet.
type term struct{ in, kernel int }

// longestChain is how many products are added one after the other before their sum is
// added to others, which keeps rounding small.
const longestChain = 64

// product appends products of these planes, whose sum becomes plane to.
func (v *winograd4Pass) product(to int, terms ...term) {
	together := max(longestChain/v.depth, 1)
	for first := 0; first < len(terms); first += together {
		var taps []int32
		for _, t := range terms[first:min(first+together, len(terms))] {
			taps = append(taps, int32(t.kernel*v.plane), 0)
			for r := range v.tile.Rows {
				taps = append(taps, int32(t.in*v.in.size+r*v.in.stride))
			}
		}
		v.products = append(v.products, winograd4Product{to, taps, first > 0})
	}
}

// blocksOf returns the tiles of a phase.
func (v *winograd4Pass) blocksOf(phase int) *winogradBlocks {
	if phase == 0 {
		return &v.winogradBlocks
	}
	return &v.phases[phase-1]
}

// lowerWinograd4 appends the steps of a convolution.
func (c *compiler) lowerWinograd4(n *graph.Node, name string, weights *graph.Node, of convolution, src, dst slot, end *epilogue) error {
	packed, wantTiles, wantColumns := winograd4Task(of.cSrc, of.cDst)
	v := &winograd4Pass{
		inPlanes: winograd4Planes, outPlanes: winograd4Planes,
		inputs:  []winograd4Input{c.winograd4Patches(src, c.k.Winograd4.Input, c.k.BF16.Winograd4.Input)},
		outputs: []winograd4Output{{0, &c.k.Winograd4.Transforms, &c.k.BF16.Winograd4}},
	}
	top, left := of.padding()
	err := c.layOutWinograd4(v, of, wantTiles, [2]tileAxis{winogradAxis(4, of.oh, top), winogradAxis(4, of.ow, left)})
	if err != nil {
		return err
	}
	turned := [2]bool{of.backward, of.backward}
	c.prepareWinograd4(v, n, weights, of, longestChain, wantColumns, packed, c.k.Winograd4.Weights, turned, dst, end)
	for i := range winograd4Planes {
		v.product(i, term{i, i})
	}
	c.winogradKernel(n, by4)
	c.step("winograd 4×4 "+name, v.tasks(), v.run, append(end.reads(), src, v.wei, dst)...).kernel = c.products(false, v.tile.Rows, v.tile.Cols)
	return nil
}

// layOutWinograd4 chooses the tile of a pass whose phases have these rows and columns, and
// divides theirs into blocks of about so many.
func (c *compiler) layOutWinograd4(v *winograd4Pass, of convolution, wantTiles int, phases ...[2]tileAxis) error {
	perImage := phases[0][0].tiles * phases[0][1].tiles
	v.tile = c.k.ConvTileOf(of.images*perImage, of.cDst)
	group := groupImages(perImage, of.images, v.tile.Rows)
	v.srcStep, v.dstStep = of.h*of.w*of.cSrc, of.oh*of.ow*of.cDst
	if max(group*v.srcStep, group*v.dstStep, of.cSrc*v.tile.Cols) > math.MaxInt32 {
		return errTooLarge
	}
	for i, p := range phases {
		blocks := v.blocksOf(i)
		blocks.group(group, of, p[0], p[1])
		blocks.divide(max(wantTiles/v.tile.Rows, 1) * v.tile.Rows)
	}
	return nil
}

// prepareWinograd4 lays out scratch and kernels of a pass whose tiles are divided; what
// remains are its products. turned is that of winograd4Columns.
func (c *compiler) prepareWinograd4(v *winograd4Pass, n, weights *graph.Node, of convolution, wantDepth, wantColumns int, packed bool, transform kernelTransform, turned [2]bool, dst slot, end *epilogue) {
	cSrc, cDst := of.cSrc, of.cDst
	kernels := func(at, depth int) winograd4Kernels {
		if of.backward {
			return c.winograd4Columns(transform, turned, cDst, cSrc, at, depth, v.tile.Cols)
		}
		return c.winograd4Rows(transform, cSrc, cDst, at, depth, v.tile.Cols)
	}
	v.p, v.dst, v.half, v.scale, v.cSrc, v.cDst, v.end = c.p, dst, c.half(dst), noSlot, cSrc, cDst, end
	cols := v.tile.Cols
	v.panels = (cDst + cols - 1) / cols
	v.share(wantColumns / cols)
	v.depth = min(wantDepth, cSrc)
	v.in = planes{v.depth, oddPlane(v.tilesPerBlock * v.depth)}
	v.out = planes{v.panelsPerTask * cols, oddPlane(v.tilesPerBlock * v.panelsPerTask * cols)}
	for r := range v.tile.Rows {
		v.at = append(v.at, int32(r*v.out.stride))
	}
	scratch := v.inPlanes*v.in.size + v.outPlanes*v.out.size
	c.needScratch(scratch)
	c.needChannels(max(cSrc, cDst))
	c.p.winograds4 = append(c.p.winograds4, v)
	if packed {
		const perTask = 32 // rows
		v.plane = oddPlane(cSrc * cols)
		pack, chunks := kernels(0, perTask), (cSrc+perTask-1)/perTask
		v.wei = c.packed(n, weights, layoutOf("float32 panels", v.panels, winograd4Planes, cSrc, cols), winograd4Planes*v.panels*v.plane, v.panels*chunks, func(worker int, dst, w, scale []float32, task int) {
			panel, k0 := task/chunks, task%chunks*perTask
			pack(worker, dst[panel*winograd4Planes*v.plane+k0*cols:], w, scale, v.plane, k0, min(perTask, cSrc-k0), panel)
		})
		return
	}
	v.plane = oddPlane(v.depth * cols)
	v.kernels = kernels(scratch+winograd4Planes*v.plane, v.depth)
	v.wei = c.widened(weights)
	if f := c.folds[n.ID]; f != nil {
		v.scale = f.scale
	}
}

// run computes one task: some tiles of one group times some panels.
func (v *winograd4Pass) run(worker, task int) {
	p := v.p
	rows, cols := v.tile.Rows, v.tile.Cols
	block, panel0, panelEnd := v.task(task)
	image, _, at := v.of(block)
	tiles := len(at) / 16
	srcAt, dstAt := image*v.srcStep, image*v.dstStep+panel0*cols
	columns := min(panelEnd*cols, v.cDst) - panel0*cols
	scratch := p.scratch[worker]
	in, scratch := scratch[:v.inPlanes*v.in.size], scratch[v.inPlanes*v.in.size:]
	out, scratch := scratch[:v.outPlanes*v.out.size], scratch[v.outPlanes*v.out.size:]
	for c0 := 0; c0 < v.cSrc; c0 += v.depth {
		depth, first := min(v.depth, v.cSrc-c0), 0
		for phase, input := range v.inputs {
			blocks := v.blocksOf(phase)
			_, patches, _ := blocks.of(block)
			input(in[first*v.in.size:], srcAt+c0, patches, depth, v.in)
			first += blocks.tables.inputs
		}
		wei, panelStep, together := p.mem[v.wei], winograd4Planes*v.plane, panelEnd-panel0
		if v.kernels != nil {
			together = 1
		}
		for first := panel0; first < panelEnd; first += together {
			kernels := scratch
			if v.kernels == nil {
				kernels = wei[first*panelStep+c0*cols:]
			} else {
				var scale []float32
				if v.scale != noSlot {
					scale = p.mem[v.scale]
				}
				v.kernels(worker, kernels, wei, scale, v.plane, c0, depth, first)
			}
			for i := range v.products {
				product := &v.products[i]
				for panel := range together {
					w := kernels[panel*panelStep:]
					to := out[product.to*v.out.size+(first-panel0+panel)*cols:]
					for tile := 0; tile < tiles; tile += rows {
						v.tile.Run(to[tile*v.out.stride:], v.at, in[tile*v.in.stride:], p.zero, product.taps, depth, w, c0 > 0 || product.more)
					}
				}
			}
		}
	}
	dst, halves := p.mem[v.dst], halvesOf(p.mem[v.dst])
	for phase, output := range v.outputs {
		_, _, at := v.blocksOf(phase).of(block)
		switch from, stride, size := out[output.first*v.out.size:], v.out.stride, v.out.size; {
		case v.end == nil && v.half:
			output.half.Output(halves[dstAt:], from, at, columns, stride, size)
		case v.end == nil:
			output.wide.Output(dst[dstAt:], from, at, columns, stride, size)
		default:
			e, bias := v.end, v.end.biasOf(p, panel0*cols, panel0*cols+columns)
			if v.half {
				output.half.OutputEpilogue(halves[dstAt:], from, at, stride, size, e.addHalvesOf(p, dstAt), bias, e.before, e.after)
			} else {
				output.wide.OutputEpilogue(dst[dstAt:], from, at, stride, size, e.addOf(p, dstAt), bias, e.before, e.after)
			}
		}
	}
}

// winograd4Weights computes dw, of stride 1 or 2. A task adds the products of some
// channels of x with some of dy over the tiles of a shard to sums in scratch, block by
// block, and transforms the sums at the end; shards are added, in order, into dw.
type winograd4Weights struct {
	winogradBlocks
	phases            [3]winogradBlocks // of stride 2, further ones of x
	p                 *Program
	add               winograd4Products
	rows, cols        int // of the tiles that sums consist of
	x, dy, dw         slot
	inputs            []winograd4Input // of x, of each phase
	gradient          winograd4Input   // of dy
	back              kernelTransform  // of sums
	parts             slot             // [shard][3,3,c,oc], or dw when there is one shard
	c, oc             int
	xStep, dyStep     int // elements of one image
	channels, columns int // of x and dy per task; the latter whole panels
	strips, panels    int // of a task
	groupsX, groupsDy int // of channels and columns
	shards            int
	inPlanes          int    // of a phase of x, the most
	gradPlanes        int    // of dy
	in, grad          planes // of scratch
	sums              int    // size of a plane of [panel][strip][rows*cols] in scratch
	tile              *kernel.OuterTile
	products          [][]winograd4Outer     // of each phase of x
	byPairs           *winograd4WeightsPairs // instead of tile, products, inputs and gradient
}

// winograd4Products adds the products of a block, of some channels from c0 on and columns from o0
// on, to sums. The rest of scratch is its own.
type winograd4Products func(sums, scratch []float32, block, c0, o0, channels, columns int)

// winograd4Outer is the product that makes a plane of sums: the tiles of one plane or
// more of x and dy, these and the ones after them. offsets are those of perTile planes
// for each tile.
type winograd4Outer struct {
	in, grad, sums, perTile int
	offsets                 []int32
}

// blocksOf returns the tiles of a phase of x.
func (v *winograd4Weights) blocksOf(phase int) *winogradBlocks {
	if phase == 0 {
		return &v.winogradBlocks
	}
	return &v.phases[phase-1]
}

// offsets lists, for all tiles, planes of x and dy that meet in one product.
func (v *winograd4Weights) offsets(together ...[2]int) (offsets []int32) {
	for t := range v.tilesPerBlock {
		for _, plane := range together {
			offsets = append(offsets, int32(plane[0]*v.in.size+t*v.in.stride), int32(plane[1]*v.grad.size+t*v.grad.stride))
		}
	}
	return offsets
}

func (c *compiler) lowerWinograd4Weights(n *graph.Node, a algorithm) error {
	x, dy := n.Inputs[0], n.Inputs[1]
	axes := [2]tileAxis{winogradAxis(4, dy.Shape[1], n.Conv.Pad.Top), winogradAxis(4, dy.Shape[2], n.Conv.Pad.Left)}
	v := &winograd4Weights{inPlanes: winograd4Planes, gradPlanes: winograd4Planes, back: c.k.Winograd4.Sums}
	if a == by4Pairs {
		if err := c.layOutWinograd4WeightsPairs(v, n, axes); err != nil {
			return err
		}
	} else {
		const wantTiles = 40
		v.inputs = []winograd4Input{c.winograd4Patches(c.slotOf[x.ID], c.k.Winograd4.Input, c.k.BF16.Winograd4.Input)}
		v.gradient = c.winograd4Patches(c.slotOf[dy.ID], c.k.Winograd4.Gradient, c.k.BF16.Winograd4.Gradient)
		if err := c.layOutWinograd4Weights(v, n, wantTiles, axes); err != nil {
			return err
		}
		var products []winograd4Outer
		offsets := v.offsets([2]int{})
		for i := range winograd4Planes {
			products = append(products, winograd4Outer{i, i, i, 1, offsets})
		}
		v.products = [][]winograd4Outer{products}
	}
	c.winogradKernel(n, a)
	c.winograd4WeightsSteps(v, n)
	return nil
}

// layOutWinograd4Weights divides the work of a pass with products of float32, whose phases of
// x have these rows and columns, and lays out scratch; what remains are the products.
func (c *compiler) layOutWinograd4Weights(v *winograd4Weights, n *graph.Node, wantTiles int, phases ...[2]tileAxis) error {
	x, dy := n.Inputs[0], n.Inputs[1]
	v.tile = c.k.OuterTileFor(x.Shape[3], dy.Shape[3])
	v.x, v.dy, v.rows, v.cols, v.add = c.slotOf[x.ID], c.slotOf[dy.ID], v.tile.Rows, v.tile.Cols, v.addFloats
	if err := c.shareWinograd4Weights(v, n, x.Shape[3], dy.Shape[3], winograd4Share{64, 64, wantTiles}, phases...); err != nil {
		return err
	}
	v.in = planes{v.channels, oddPlane(v.tilesPerBlock*v.channels + v.rows)} // a tile may read past the last channel
	v.grad = planes{v.columns, oddPlane(v.tilesPerBlock * v.columns)}
	c.needScratch(winograd4Planes*v.sums + v.inPlanes*v.in.size + v.gradPlanes*v.grad.size)
	return nil
}

// winograd4Share is what a task computes at a time, about: sums of so many channels and columns, over
// so many tiles.
type winograd4Share struct{ channels, columns, tiles int }

// shareWinograd4Weights divides the work of a pass into tasks. A pixel has xCh and dyCh numbers in
// memory.
func (c *compiler) shareWinograd4Weights(v *winograd4Weights, n *graph.Node, xCh, dyCh int, want winograd4Share, phases ...[2]tileAxis) error {
	const wantTasks = 16
	x, dy := n.Inputs[0], n.Inputs[1]
	images, h, w, ch := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	oh, ow, oc := dy.Shape[1], dy.Shape[2], dy.Shape[3]
	of := convolution{images: images, h: h, w: w, oh: oh, ow: ow, cSrc: xCh, cDst: dyCh}
	v.p, v.c, v.oc = c.p, ch, oc
	v.xStep, v.dyStep = h*w*xCh, oh*ow*dyCh
	v.channels = min(want.channels, ch)
	v.strips = (v.channels + v.rows - 1) / v.rows
	v.panels = min(max(want.columns/v.cols, 1), (oc+v.cols-1)/v.cols)
	v.columns = v.panels * v.cols
	v.groupsX, v.groupsDy = (ch+v.channels-1)/v.channels, (oc+v.columns-1)/v.columns
	group := min(max(want.tiles/(phases[0][0].tiles*phases[0][1].tiles), 1), images)
	if max(group*v.xStep, group*v.dyStep) > math.MaxInt32 {
		return errTooLarge
	}
	for i, p := range phases {
		blocks := v.blocksOf(i)
		blocks.group(group, of, p[0], p[1])
		chunks := (blocks.tables.tiles() + want.tiles - 1) / want.tiles
		blocks.divide((blocks.tables.tiles() + chunks - 1) / chunks)
	}
	v.shards = min((wantTasks+v.groupsX*v.groupsDy-1)/(v.groupsX*v.groupsDy), v.blocks)
	v.sums = oddPlane(v.panels * v.strips * v.rows * v.cols)
	c.needChannels(max(ch, oc))
	c.p.winogradWeights4 = append(c.p.winogradWeights4, v)
	return nil
}

// winograd4WeightsSteps appends the steps.
func (c *compiler) winograd4WeightsSteps(v *winograd4Weights, n *graph.Node) {
	const what = "winograd 4×4 "
	name := label(n)
	if v.shards == 1 {
		v.dw = c.value(n)
		v.parts = v.dw
		c.step(what+name, v.groupsX*v.groupsDy, v.run, v.x, v.dy, v.dw).kernel = c.products(v.byPairs != nil, v.rows, v.cols)
		return
	}
	v.parts = c.temp(v.shards*9*v.c*v.oc, layoutOf("float32 sums", v.shards, 3, 3, v.c, v.oc))
	c.step(what+name, v.shards*v.groupsX*v.groupsDy, v.run, v.x, v.dy, v.parts).kernel = c.products(v.byPairs != nil, v.rows, v.cols)
	v.dw = c.value(n)
	c.step("sum "+name, 9, v.total, v.parts, v.dw)
}

// run computes one shard of the gradients of some channels and columns.
func (v *winograd4Weights) run(worker, task int) {
	p, size := v.p, v.rows*v.cols
	shard, task := task%v.shards, task/v.shards
	c0, o0 := task%v.groupsX*v.channels, task/v.groupsX*v.columns
	channels, columns := min(v.channels, v.c-c0), min(v.columns, v.oc-o0)
	strips, panels := (channels+v.rows-1)/v.rows, (columns+v.cols-1)/v.cols
	sums, scratch := p.scratch[worker][:winograd4Planes*v.sums], p.scratch[worker][winograd4Planes*v.sums:]
	clear(sums)
	for block := shard * v.blocks / v.shards; block < (shard+1)*v.blocks/v.shards; block++ {
		v.add(sums, scratch, block, c0, o0, channels, columns)
	}
	dst := p.mem[v.parts][shard*9*v.c*v.oc:]
	for panel := range panels {
		for r := range channels {
			from := sums[(panel*strips+r/v.rows)*size+r%v.rows*v.cols:]
			v.back(dst[(c0+r)*v.oc+o0+panel*v.cols:], from, min(v.cols, columns-panel*v.cols), v.c*v.oc, v.sums)
		}
	}
}

// addFloats is add with products of float32.
func (v *winograd4Weights) addFloats(sums, scratch []float32, block, c0, o0, channels, columns int) {
	strips, panels, size := (channels+v.rows-1)/v.rows, (columns+v.cols-1)/v.cols, v.rows*v.cols
	in, grad := scratch[:v.inPlanes*v.in.size], scratch[v.inPlanes*v.in.size:][:v.gradPlanes*v.grad.size]
	image, _, at := v.of(block)
	tiles := len(at) / 16
	v.gradient(grad, image*v.dyStep+o0, at, columns, v.grad)
	for phase, input := range v.inputs {
		_, patches, _ := v.blocksOf(phase).of(block)
		input(in, image*v.xStep+c0, patches, channels, v.in)
		for _, product := range v.products[phase] {
			for panel := range panels {
				dy := grad[product.grad*v.grad.size+panel*v.cols:]
				for strip := range strips {
					dst := sums[product.sums*v.sums+(panel*strips+strip)*size:][:size]
					v.tile.Run(dst, in[product.in*v.in.size+strip*v.rows:], dy, product.offsets[:2*tiles*product.perTile])
				}
			}
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

// winograd4WeightsPairs is what winograd4Weights has for products of bfloat16.
type winograd4WeightsPairs struct {
	*outerPairs
	planes int // words of scratch for what is not packed yet
}

// layOutWinograd4WeightsPairs is layOutWinograd4Weights for products of pairs of tiles, of transformed
// values rounded to bfloat16, with stride 1.
func (c *compiler) layOutWinograd4WeightsPairs(v *winograd4Weights, n *graph.Node, axes [2]tileAxis) error {
	x, dy := n.Inputs[0], n.Inputs[1]
	ch, oc := x.Shape[3], dy.Shape[3]
	want := winograd4Share{64, 64, 40}
	if ch >= 128 { // x is transformed less often
		want = winograd4Share{128, 32, 64}
	}
	tile := c.k.BF16.OuterTileFor(ch, oc)
	v.rows, v.cols, v.add = tile.Rows, tile.Cols, v.addPairs
	v.x, ch = c.pairs(x)
	v.dy, oc = c.pairs(dy)
	if err := c.shareWinograd4Weights(v, n, ch, oc, want, axes); err != nil {
		return err
	}
	by := &winograd4WeightsPairs{outerPairs: newOuterPairs(tile, v.tilesPerBlock)}
	v.in, v.grad = newPlanes(2*by.pairs, v.channels, 32), planes{v.cols, oddPlane(2 * by.pairs * v.cols)}
	by.planes = winograd4Planes * max(v.in.size/2, v.grad.size)
	v.byPairs = by
	c.needScratch(winograd4Planes*v.sums + by.planes + winograd4Planes*by.pairs*(v.strips*v.rows+v.columns))
	return nil
}

// addPairs is add with products of bfloat16. x is packed as [plane][strip][pair][rows], dy as
// [panel][plane][pair][cols].
func (v *winograd4Weights) addPairs(sums, scratch []float32, block, c0, o0, channels, columns int) {
	p, by, k, l := v.p, v.byPairs, &v.p.engine.kernels.BF16, v.grad
	strips, panels, size := (channels+v.rows-1)/v.rows, (columns+v.cols-1)/v.cols, v.rows*v.cols
	strip, panel := by.pairs*v.rows, by.pairs*v.cols // words
	raw, scratch := scratch[:by.planes], scratch[by.planes:]
	in, grad := wordsOf(scratch[:winograd4Planes*strips*strip]), wordsOf(scratch[winograd4Planes*strips*strip:])
	image, patches, at := v.of(block)
	tiles := len(at) / 16
	k.Winograd4Pairs(halvesOf(raw), halvesOf(p.mem[v.x])[image*v.xStep+c0:], halvesOf(p.zero), patches, channels, v.in.stride, v.in.size)
	packTiles(k, in, halvesOf(raw), winograd4Planes, tiles, strips, v.rows, strip, channels, v.in)
	for i := range panels {
		dy := halvesOf(p.mem[v.dy])[image*v.dyStep+o0+i*v.cols:]
		k.Winograd4.Gradient(raw, dy, halvesOf(p.zero), at, min(v.cols, columns-i*v.cols), l.stride, l.size)
		roundPlanes(k, grad[i*winograd4Planes*panel:], panel, raw, l.size, tiles, v.cols)
	}
	for plane := range winograd4Planes {
		for i := range panels {
			by.outerPairs.add(sums[plane*v.sums+i*strips*size:], in[plane*strips*strip:], grad[(i*winograd4Planes+plane)*panel:], strips, tiles)
		}
	}
}
