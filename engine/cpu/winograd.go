package cpu

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
)

// Convolutions of 3×3 kernels with stride 1 can go through Winograd's F(2×2,3×3)
// (kernel/winograd.go), which needs 16 products where the definition has 36.
//
// A task transforms a block of tiles into scratch that stays in the second
// cache, multiplies the 16 planes by transformed weights with the register tiles
// of direct convolution, and transforms the products back. Nothing transformed
// goes through memory but the weights.

// winogradMode says when Winograd's algorithm is used.
type winogradMode uint8

const (
	winogradAuto      winogradMode = iota // where it is expected to be faster
	winogradAuto2                         // so, but only F(2×2,3×3)
	winogradAutoFloat                     // so, but F(4×4,3×3) has products of float32 throughout
	winogradOn                            // F(2×2,3×3) wherever it is possible
	winogradOn4                           // F(4×4,3×3) wherever it is possible
	winogradOnPairs                       // so, with products of bfloat16 where there are such
	winogradOff
)

var winogradModes = map[string]winogradMode{
	"": winogradAuto, "auto": winogradAuto, "2x2": winogradAuto2, "4x4-float32": winogradAutoFloat,
	"on": winogradOn, "on-4x4": winogradOn4, "on-4x4-bfloat16": winogradOnPairs, "off": winogradOff,
}

// winogradFrom returns the mode that the option names, or else the environment
// variable RESIDUAL_WINOGRAD.
func winogradFrom(option string) (winogradMode, error) {
	where := "option Winograd"
	if option == "" {
		option, where = os.Getenv("RESIDUAL_WINOGRAD"), "environment variable RESIDUAL_WINOGRAD"
	}
	mode, ok := winogradModes[option]
	if !ok {
		return 0, fmt.Errorf("%s is %q, want one of auto, 2x2, 4x4-float32, on, on-4x4, on-4x4-bfloat16, off", where, option)
	}
	return mode, nil
}

// algorithm is a way to compute a convolution.
type algorithm uint8

const (
	direct    algorithm = iota
	by2                 // F(2×2,3×3), in mixed precision with products of bfloat16
	by4                 // F(4×4,3×3) with products of float32
	by4Pairs            // F(4×4,3×3) with products of bfloat16
	byStride2           // tiles of 4×4 of a convolution of stride 2
)

// kernelUse says what a pass does with the kernels.
type kernelUse uint8

const (
	kernelsFixed    kernelUse = iota // reads them, packed in an earlier run
	kernelsChanging                  // reads them, new in each run
	kernelsComputed                  // computes their gradient
)

// convCost is what a pass takes for each pair of channels, in products of the
// float32 tiles (about 17 ps): for each product, for each transformed tile and
// channel of either side, and for the kernel.
type convCost struct{ product, transform, kernel float64 }

// convCosts are those of each algorithm. The products of direct convolution are those of taps inside
// the picture, F(2×2,3×3) has 16 for each tile, and F(4×4,3×3) 36.
// They were fitted to layers of 16 to 512 channels of 4×4 to 32×32 pixels in
// batches of 1 to 128 on a Zen 4 with AVX-512 (decision 22); kernels that come from
// memory, as in a whole network, cost what they did there. In mixed precision direct
// convolution and F(2×2,3×3) have products of bfloat16, two for little more than one,
// and F(4×4,3×3) has those of float32; at 64 channels the latter two are as fast as
// each other, and here the one that errs less costs a little less.
var convCosts = [...][3][5]convCost{
	{ // float32
		kernelsFixed:    {direct: {1.05, 0, 0}, by2: {1.10, 62, 180}, by4: {1.08, 220, 850}, byStride2: {1.08, 500, 850}},
		kernelsChanging: {direct: {1.05, 0, 250}, by2: {1.10, 62, 1400}, by4: {1.08, 220, 200}, byStride2: {1.08, 500, 200}},
		kernelsComputed: {direct: {1.10, 0, 250}, by2: {1.20, 75, 380}, by4: {1.36, 110, 420}, byStride2: {1.36, 150, 420}},
	},
	{ // bfloat16
		kernelsFixed:    {direct: {0.55, 0, 0}, by2: {0.57, 110, 50}, by4: {1.08, 220, 850}, by4Pairs: {0.53, 193, 450}},
		kernelsChanging: {direct: {0.55, 0, 250}, by2: {0.57, 110, 850}, by4: {1.08, 220, 200}, by4Pairs: {0.53, 193, 1250}},
		kernelsComputed: {direct: {0.60, 0, 250}, by2: {0.65, 130, 380}, by4: {1.36, 110, 420}, by4Pairs: {0.66, 150, 1000}},
	},
}

// algorithm returns the one for a pass of a convolution from x to y: the cheapest by
// convCosts. changing says that the kernels are new in each run.
//
// What rounds too much has a limit on the channels over which it averages. In float32
// that is F(4×4,3×3) forward: with 16 channels it would be twice as fast as direct
// convolution, but take a ReLU over zero that PyTorch does not (decision 22); gradients
// change no ReLU. (Stride 2 errs less than direct convolution, forward, and has that limit
// twice as high all the same: with 32 channels it is this ReLU again.) In mixed precision
// it is F(2×2,3×3), whose transformed values are bfloat16, and F(4×4,3×3) with products of
// bfloat16, which errs by three roundings of the result (decisions 24 and 27).
//
// Transforms in assembly work on whole vectors. What remains of the channels is
// transformed with the vector before it, unless an epilogue forbids that.
//
// With AMX, products of bfloat16 cost an eighth of those of AVX512_BF16, and everything
// is direct: that is what the manual says, and was not measured.
func (c *compiler) algorithm(kernelShape, x, y []int, a graph.ConvAttrs, pass graph.Op, changing bool) algorithm {
	ch, oc := kernelShape[2], kernelShape[3]
	if kernelShape[0] != 3 || kernelShape[1] != 3 || a.Stride > 2 {
		return direct
	}
	if only, ok := c.onlyAlgorithm(a.Stride, pass); ok {
		return only
	}
	mode := c.p.engine.winograd
	use, precision, usable := kernelsFixed, 0, c.k.Set >= kernel.AVX2
	least2, least4, lanes := 16, 16, 8
	switch {
	case pass == graph.OpConvBackwardWeights:
		use = kernelsComputed
	case changing:
		use = kernelsChanging
	}
	switch {
	case c.p.engine.bf16:
		precision, usable = 1, c.bf16Set() == kernel.AVX512BF16
		least2, lanes = 64, 16
	case pass == graph.OpConv:
		least4 = 32 * a.Stride
	}
	if !usable || use == kernelsFixed && oc%lanes != 0 {
		return direct
	}
	taps := func(in, out, pad int) int { // inside the image, along one axis
		n := 0
		for o := range out {
			for tap := range 3 {
				if i := o*a.Stride - pad + tap; i >= 0 && i < in {
					n++
				}
			}
		}
		return n
	}
	costs := &convCosts[precision][use]
	near := 1.0
	if use == kernelsFixed { // small ones are still in the caches
		near = min(1, float64(ch*oc)/(64*64))
	}
	cost := func(of convCost, products, tiles, ch, oc int) float64 {
		return of.product*float64(products) + of.transform*float64(tiles)*(1/float64(ch)+1/float64(oc)) + of.kernel*near
	}
	tiles := func(size int) int { return x[0] * ((y[1] + size - 1) / size) * ((y[2] + size - 1) / size) }
	best, least, channels := direct, cost(costs[direct], x[0]*taps(x[1], y[1], a.Pad.Top)*taps(x[2], y[2], a.Pad.Left), 0, ch, oc), min(ch, oc)
	consider := func(a algorithm, cost float64) {
		if cost < least {
			best, least = a, cost
		}
	}
	if a.Stride == 1 && channels >= least2 {
		consider(by2, cost(costs[by2], 16*tiles(2), tiles(2), ch, oc))
	}
	if mode == winogradAuto2 || channels < least4 {
		return best
	}
	filled := func(rows int) int { return (tiles(4) + rows - 1) / rows * rows } // tiles of products
	if a.Stride == 1 && precision == 1 && mode != winogradAutoFloat && channels >= least2 {
		of, columns, rows := costs[by4Pairs], oc, filled(2)
		if use != kernelsComputed {
			rows = filled(c.k.BF16.ConvTileOf(tiles(4), oc).Rows)
		}
		if winograd4InTasks(use == kernelsChanging, tiles(4), ch, oc) {
			of.kernel, columns = pairTask.kernel, pairTask.columns
		}
		consider(by4Pairs, cost(of, winograd4Planes*rows, tiles(4), ch, columns))
	}
	large, products := by4, winograd4Planes
	if a.Stride == 2 {
		large, products = byStride2, stride2Planes
	}
	rows, columns, more := tiles(4), oc, 0.0
	if use != kernelsComputed {
		packed, perTask, wide := winograd4Task(ch, oc)
		if a.Stride == 2 {
			packed, perTask, _, wide = stride2Task(ch, oc, pass == graph.OpConvBackwardData)
			if !packed && c.k.Set == kernel.AVX2 { // no faster with its smaller tiles
				return best
			}
		}
		if !packed {
			use = kernelsChanging // whose transforms are made in each run
		}
		if kernels := winograd4Planes * ch * oc; kernels > 256<<10 { // more than the second cache
			more = 90 * float64((rows-1)/perTask) // for each further block that reads them
		}
		rows, columns = filled(c.k.ConvTileOf(rows, oc).Rows), min(oc, wide)
	}
	consider(large, cost(convCosts[precision][use][large], products*rows, tiles(4), ch, columns)+more)
	return best
}

// onlyAlgorithm returns the one that is possible with this stride, or asked for.
func (c *compiler) onlyAlgorithm(stride int, pass graph.Op) (only algorithm, ok bool) {
	mode, bf16 := c.p.engine.winograd, c.p.engine.bf16
	switch {
	case mode == winogradOff, stride == 2 && (bf16 || mode == winogradOn || mode == winogradAuto2):
		return direct, true
	case stride == 2 && (mode == winogradOn4 || mode == winogradOnPairs):
		return byStride2, true
	case mode == winogradOn:
		return by2, true
	case mode == winogradOnPairs && bf16:
		return by4Pairs, true
	case mode == winogradOn4 || mode == winogradOnPairs:
		return by4, true
	}
	return direct, false
}

// winogradKernel notes the implementation of an operation for the record: all
// sizes of tiles that its layers have.
func (c *compiler) winogradKernel(n *graph.Node, a algorithm) {
	precision, set := "float32", c.k.Set
	op, name := n.Op.String(), [...]string{by2: "F(2×2,3×3)", by4: "F(4×4,3×3)", by4Pairs: "F(4×4,3×3) in bfloat16", byStride2: "F(4×4,3×3) with stride 2"}[a]
	if c.p.engine.bf16 {
		precision, set = "bfloat16", c.bf16Set()
		if a == by4 {
			name += " in float32"
		}
	}
	known, found := strings.CutPrefix(c.p.kernels[op], precision+" winograd ")
	known, _, _ = strings.Cut(known, " and ")
	switch {
	case found && slices.Contains(strings.Split(known, ", "), name):
		return
	case found:
		name = known + ", " + name
	}
	c.p.kernels[op] = fmt.Sprintf("%s winograd %s and igemm %v", precision, name, set)
}

// winogradTiles are the tiles of a group of images: pixels of the destination and the
// patch of the source that they are computed from. Offsets are in elements from the
// first image of the group, or NoPixel.
type winogradTiles struct {
	images          int
	inputs, outputs int     // of a tile
	patches         []int32 // inputs per tile
	at              []int32 // outputs per tile
}

func (t *winogradTiles) tiles() int { return len(t.at) / t.outputs }

// of returns the patches and destinations of tiles first to end.
func (t *winogradTiles) of(first, end int) (patches, at []int32) {
	return t.patches[t.inputs*first : t.inputs*end], t.at[t.outputs*first : t.outputs*end]
}

// tileAxis says which pixels tiles have along one axis: input i of a tile is pixel
// from(tile, i) of the source, output i is pixel to(tile, i) of the destination. Those
// outside are padding, and not computed.
type tileAxis struct {
	tiles, inputs, outputs int
	from, to               func(tile, i int) int
}

// winogradAxis is that of tiles of size pixels, from a patch larger by two, for a
// convolution with padding before the first of so many pixels.
func winogradAxis(size, pixels, padding int) tileAxis {
	return tileAxis{
		tiles: (pixels + size - 1) / size, inputs: size + 2, outputs: size,
		from: func(tile, i int) int { return tile*size - padding + i },
		to:   func(tile, i int) int { return tile*size + i },
	}
}

// newWinogradTiles lists the tiles of so many images of a convolution.
func newWinogradTiles(images int, of convolution, rows, columns tileAxis) *winogradTiles {
	t := &winogradTiles{images: images, inputs: rows.inputs * columns.inputs, outputs: rows.outputs * columns.outputs}
	offset := func(y, x, h, w, image, c int) int32 {
		if y < 0 || y >= h || x < 0 || x >= w {
			return kernel.NoPixel
		}
		return int32(((image*h+y)*w + x) * c)
	}
	for n := range images {
		for y := range rows.tiles {
			for x := range columns.tiles {
				for i := range t.inputs {
					t.patches = append(t.patches, offset(rows.from(y, i/columns.inputs), columns.from(x, i%columns.inputs), of.h, of.w, n, of.cSrc))
				}
				for i := range t.outputs {
					t.at = append(t.at, offset(rows.to(y, i/columns.outputs), columns.to(x, i%columns.outputs), of.oh, of.ow, n, of.cDst))
				}
			}
		}
	}
	return t
}

// winogradBlocks divides the tiles of all images into blocks. A block belongs to one
// group of images; the last group may be smaller.
type winogradBlocks struct {
	groups         int
	tables, last   *winogradTiles // of all groups but the last, and of that
	tilesPerBlock  int
	chunks, blocks int // blocks per group, and of all groups
}

// group lists the tiles of the images in groups of so many.
func (b *winogradBlocks) group(together int, of convolution, rows, columns tileAxis) {
	b.groups = (of.images + together - 1) / together
	b.tables = newWinogradTiles(together, of, rows, columns)
	b.last = b.tables
	if rest := of.images - (b.groups-1)*together; rest != together {
		b.last = newWinogradTiles(rest, of, rows, columns)
	}
}

// divide makes blocks of so many tiles.
func (b *winogradBlocks) divide(tilesPerBlock int) {
	b.tilesPerBlock = tilesPerBlock
	b.chunks = (b.tables.tiles() + tilesPerBlock - 1) / tilesPerBlock
	b.blocks = (b.groups-1)*b.chunks + (b.last.tiles()+tilesPerBlock-1)/tilesPerBlock
}

// of returns a block's tiles, and the first image of their group.
func (b *winogradBlocks) of(block int) (image int, patches, at []int32) {
	group := min(block/b.chunks, b.groups-1)
	t := b.tables
	if group == b.groups-1 {
		t = b.last
	}
	first := (block - group*b.chunks) * b.tilesPerBlock
	patches, at = t.of(first, min(first+b.tilesPerBlock, t.tiles()))
	return group * b.tables.images, patches, at
}

// winogradTasks are blocks of tiles times panels of destination channels.
type winogradTasks struct {
	winogradBlocks
	panels, panelsPerTask int
}

// share gives tasks so many panels, or fewer where there would be too few tasks.
func (t *winogradTasks) share(panelsPerTask int) {
	t.panelsPerTask = min(max(panelsPerTask, 1), t.panels)
	for t.tasks() < 16 && t.panelsPerTask > 1 {
		t.panelsPerTask = (t.panelsPerTask + 1) / 2
	}
}

func (t *winogradTasks) tasks() int {
	return t.blocks * ((t.panels + t.panelsPerTask - 1) / t.panelsPerTask)
}

// task returns the block and the panels of a task.
func (t *winogradTasks) task(task int) (block, panel, panelEnd int) {
	panel = task / t.blocks * t.panelsPerTask
	return task % t.blocks, panel, min(panel+t.panelsPerTask, t.panels)
}

// planes is the layout of transformed values in scratch: plane i begins at
// i·size, and a tile's channels lie stride elements apart.
type planes struct{ stride, size int }

// newPlanes keeps rows and planes off each other's cache sets: both distances
// are odd numbers of cache lines, of so many elements.
func newPlanes(tiles, channels, line int) planes {
	stride := oddLines(channels, line)
	return planes{stride, oddLines(tiles*stride, line)}
}

// oddLines is the size of at least n elements that is an odd number of cache lines.
func oddLines(n, line int) int { return ((n+line-1)/line | 1) * line }

// winogradPass is a compiled convolution, forward or backward data. In mixed
// precision source, destination and transformed source are bfloat16, products
// are of pairs of channels, and in has two elements in a word; there tiles may be of
// 4×4 too.
type winogradPass struct {
	winogradTasks
	p             *Program
	size, planes  int              // of the tiles, and of what is transformed
	tile          *kernel.ConvTile // or
	pair          *kernel.PairTile
	rows, cols    int // of the tile
	src, wei, dst slot
	cSrc, cDst    int
	srcStep       int // elements of one source image
	dstStep       int
	depth         int // channels of the source that are transformed at a time
	in, out       planes
	weiPlane      int                  // words of a plane of the transformed weights of a panel
	kernels       winograd4PairKernels // of wei; nil when wei has them transformed, [panel][plane][cSrc][cols]
	weiRows       int                  // channels of the source that kernels has
	taps          []int32              // the record of one tap over the rows of in
	at            []int32              // offsets of rows of out
	end           *epilogue
}

// lowerWinograd appends the steps of a convolution through transformed weights, by2
// or by4Pairs. In mixed precision source and destination are bfloat16. inTasks says that
// wei are weights as they are, which tasks transform.
func (c *compiler) lowerWinograd(a algorithm, n *graph.Node, name string, of convolution, src, wei slot, inTasks bool, dst slot, end *epilogue) error {
	wantTiles, wantDepth, wantColumns, line, perWord := 52, 128, 128, 16, 1
	v := &winogradPass{
		p: c.p, src: src, wei: wei, dst: dst, cSrc: of.cSrc, cDst: of.cDst,
		srcStep: of.h * of.w * of.cSrc, dstStep: of.oh * of.ow * of.cDst, end: end, size: 2, planes: 16,
	}
	if a == by4Pairs {
		v.size, v.planes, wantTiles = 4, winograd4Planes, 13
	}
	if c.p.engine.bf16 {
		wantDepth, line, perWord = 256, 32, 2
	}
	if inTasks {
		wantTiles, wantDepth, wantColumns = pairTask.tiles, pairTask.depth, pairTask.columns
	}
	top, left := of.padding()
	rows, columns := winogradAxis(v.size, of.oh, top), winogradAxis(v.size, of.ow, left)
	perImage := rows.tiles * columns.tiles
	if c.p.engine.bf16 {
		v.pair = c.k.BF16.ConvTileOf(of.images*perImage, v.cDst)
		v.rows, v.cols = v.pair.Rows, v.pair.Cols
	} else {
		v.tile = c.k.ConvTileOf(of.images*perImage, v.cDst)
		v.rows, v.cols = v.tile.Rows, v.tile.Cols
	}
	v.panels = (v.cDst + v.cols - 1) / v.cols
	group := groupImages(perImage, of.images, v.rows)
	if max(group*v.srcStep, group*v.dstStep, v.cSrc*v.cols) > math.MaxInt32 {
		return errTooLarge
	}
	v.group(group, of, rows, columns)
	v.divide(max(wantTiles/v.rows, 1) * v.rows)
	v.share(wantColumns / v.cols)
	v.depth = min(wantDepth, v.cSrc)
	v.in = newPlanes(v.tilesPerBlock, v.depth, line)
	v.out = newPlanes(v.tilesPerBlock, v.panelsPerTask*v.cols, 16)
	v.taps = []int32{0, 0}
	for r := range v.rows {
		v.taps = append(v.taps, int32(r*v.in.stride/perWord))
		v.at = append(v.at, int32(r*v.out.stride))
	}
	scratch := v.planes * (v.in.size/perWord + v.out.size)
	c.needScratch(scratch)
	if inTasks {
		weights := n.Inputs[1].Shape
		v.weiRows = weights[2]
		if of.backward {
			v.weiRows = weights[3]
		}
		v.weiPlane = v.depth / 2 * v.cols
		v.kernels = c.winograd4Rounded(weights[2], weights[3], scratch+v.planes*v.weiPlane, v.depth, v.cols, of.backward)
	} else {
		v.weiPlane = v.cSrc / perWord * v.cols
	}
	c.needChannels(max(v.cSrc, v.cDst))
	c.p.winograds = append(c.p.winograds, v)
	c.winogradKernel(n, a)
	c.step(fmt.Sprintf("winograd %d×%d %s", v.size, v.size, name), v.tasks(), v.run, append(end.reads(), src, wei, dst)...).kernel = c.products(v.pair != nil, v.rows, v.cols)
	return nil
}

// run computes one task: some tiles of one group times some panels.
func (v *winogradPass) run(worker, task int) {
	p, f := v.p, &v.p.engine.kernels.Winograd
	block, panel0, panelEnd := v.task(task)
	image, patches, at := v.of(block)
	tiles := len(at) / (v.size * v.size)
	srcAt, dstAt := image*v.srcStep, image*v.dstStep+panel0*v.cols
	columns := min(panelEnd*v.cols, v.cDst) - panel0*v.cols
	wei := p.mem[v.wei]
	if v.pair != nil {
		bf16 := &p.engine.kernels.BF16
		input, output, outputEpilogue := bf16.Winograd.Input, bf16.Winograd.Output, bf16.Winograd.OutputEpilogue
		if v.size == 4 {
			input, output, outputEpilogue = bf16.Winograd4Pairs, bf16.Winograd4.Output, bf16.Winograd4.OutputEpilogue
		}
		scratch := p.scratch[worker]
		in, scratch := scratch[:v.planes/2*v.in.size], scratch[v.planes/2*v.in.size:]
		out, scratch := scratch[:v.planes*v.out.size], scratch[v.planes*v.out.size:]
		for c0 := 0; c0 < v.cSrc; c0 += v.depth {
			c := min(v.depth, v.cSrc-c0)
			input(halvesOf(in), halvesOf(p.mem[v.src])[srcAt+c0:], halvesOf(p.zero), patches, c, v.in.stride, v.in.size)
			if v.kernels == nil {
				v.addPairs(out, in, wordsOf(wei[panel0*v.planes*v.weiPlane+c0/2*v.cols:]), panelEnd-panel0, tiles, c0, c)
				continue
			}
			for panel := panel0; panel < panelEnd; panel++ {
				kernels := wordsOf(scratch)
				v.kernels(worker, kernels, wei, nil, v.weiPlane, c0, min(c, v.weiRows-c0), panel)
				v.addPairs(out[(panel-panel0)*v.cols:], in, kernels, 1, tiles, c0, c)
			}
		}
		dst := halvesOf(p.mem[v.dst])[dstAt:]
		if v.end == nil {
			output(dst, out, at, columns, v.out.stride, v.out.size)
			return
		}
		bias := v.end.biasOf(p, panel0*v.cols, panel0*v.cols+columns)
		outputEpilogue(dst, out, at, v.out.stride, v.out.size, v.end.addHalvesOf(p, dstAt), bias, v.end.before, v.end.after)
		return
	}
	in := p.scratch[worker][:16*v.in.size]
	out := p.scratch[worker][16*v.in.size:][:16*v.out.size]
	for c0 := 0; c0 < v.cSrc; c0 += v.depth {
		c := min(v.depth, v.cSrc-c0)
		f.Input(in, p.mem[v.src][srcAt+c0:], p.zero, patches, c, v.in.stride, v.in.size)
		for plane := range 16 {
			for panel := panel0; panel < panelEnd; panel++ {
				w := wei[((panel*16+plane)*v.cSrc+c0)*v.cols:]
				to := out[plane*v.out.size+(panel-panel0)*v.cols:]
				for tile := 0; tile < tiles; tile += v.rows {
					v.tile.Run(to[tile*v.out.stride:], v.at, in[plane*v.in.size+tile*v.in.stride:], p.zero, v.taps, c, w, c0 > 0)
				}
			}
		}
	}
	dst := p.mem[v.dst][dstAt:]
	if v.end == nil {
		f.Output(dst, out, at, columns, v.out.stride, v.out.size)
		return
	}
	bias := v.end.biasOf(p, panel0*v.cols, panel0*v.cols+columns)
	f.OutputEpilogue(dst, out, at, v.out.stride, v.out.size, v.end.addOf(p, dstAt), bias, v.end.before, v.end.after)
}

// addPairs adds products of c channels of the source from c0 on, in pairs, with transformed kernels of
// some panels to out; the first channels begin it.
func (v *winogradPass) addPairs(out, in []float32, kernels []uint32, panels, tiles, c0, c int) {
	zero := wordsOf(v.p.zero)
	for plane := range v.planes {
		for panel := range panels {
			w, to := kernels[(panel*v.planes+plane)*v.weiPlane:], out[plane*v.out.size+panel*v.cols:]
			for tile := 0; tile < tiles; tile += v.rows {
				x := wordsOf(in[(plane*v.in.size+tile*v.in.stride)/2:])
				v.pair.Sums(to[tile*v.out.stride:], v.at, x, zero, v.taps, c/2, w, c0 > 0)
			}
		}
	}
}

// winogradRows packs transformed kernels [3,3,c,oc] in panels
// [oc/cols][plane][c][cols]. Columns beyond the last are left as they are: what
// becomes of them is not used.
func (c *compiler) winogradRows(n *graph.Node, weights *graph.Node, ch, oc int) slot {
	const perTask = 16
	f, cols := &c.k.Winograd, c.k.ConvTileFor(oc).Cols
	layout, size := c.panels(16*ch, oc)
	return c.packed(n, weights, layout, size, (ch+perTask-1)/perTask, func(_ int, dst, w, scale []float32, task int) {
		for row := task * perTask; row < min((task+1)*perTask, ch); row++ {
			for panel := 0; panel*cols < oc; panel++ {
				to, valid := dst[(panel*16*ch+row)*cols:], min(cols, oc-panel*cols)
				f.Weights(to, w[row*oc+panel*cols:], valid, ch*oc, ch*cols)
				if scale != nil {
					scaleRows(c.k, to[:15*ch*cols+valid], ch*cols, scale[panel*cols:][:valid])
				}
			}
		}
	})
}

// winogradColumns packs what winogradRows does of the kernels turned by 180° and
// with channels exchanged, as backward data wants them: panels
// [c/cols][plane][oc][cols]. A turned kernel has the transform of the kernel with
// rows 0 and 3, and columns 0 and 3, exchanged.
func (c *compiler) winogradColumns(n *graph.Node, weights *graph.Node, ch, oc int) slot {
	const width = 32 // of oc at a time
	k, cols := c.k, c.k.ConvTileFor(ch).Cols
	panels, chunks := (ch+cols-1)/cols, (oc+width-1)/width
	size := cols*width + 16 // of a plane in scratch
	turned := [4]int{3, 1, 2, 0}
	c.needScratch(16 * size)
	layout, packed := c.panels(16*oc, ch)
	return c.packed(n, weights, layout, packed, panels*chunks, func(worker int, dst, w, _ []float32, task int) {
		c0, o0 := task%panels*cols, task/panels*width
		rows, wide := min(cols, ch-c0), min(width, oc-o0)
		block := c.p.scratch[worker]
		for r := range rows {
			k.Winograd.Weights(block[r*width:], w[(c0+r)*oc+o0:], wide, ch*oc, size)
		}
		for plane := range 16 {
			to := 4*turned[plane/4] + turned[plane%4]
			k.Transpose(dst[((task%panels*16+to)*oc+o0)*cols:], block[plane*size:], rows, wide, cols, width)
		}
	})
}

// winogradPairs packs kernels [3,3,ch,oc] for the algorithm's products of bfloat16, as
// the forward pass wants them or, turned, backward data. inTasks says that they are left
// as they are, because tasks transform them.
func (c *compiler) winogradPairs(a algorithm, n *graph.Node, weights *graph.Node, of convolution) (wei slot, inTasks bool) {
	ch, oc := weights.Shape[2], weights.Shape[3]
	switch {
	case a == by4Pairs && winograd4InTasks(c.changing(weights), of.images*((of.oh+3)/4)*((of.ow+3)/4), ch, oc):
		return c.widened(weights), true
	case a == by4Pairs:
		return c.winograd4Pairs(n, weights, ch, oc, of.backward), false
	case of.backward:
		return c.winogradPairColumns(n, weights, ch, oc), false
	}
	return c.winogradPairRows(n, weights, ch, oc), false
}

// winogradPairRows is winogradRows with transformed kernels rounded to bfloat16, in
// pairs of channels: panels [oc/cols][plane][(ch+1)/2][cols].
func (c *compiler) winogradPairRows(n *graph.Node, weights *graph.Node, ch, oc int) slot {
	const perTask = 16 // channels
	k, cols := c.k, c.k.BF16.ConvTileFor(oc).Cols
	pairs, panels := (ch+1)/2, (oc+cols-1)/cols
	size := perTask * cols // of a plane in scratch
	c.needScratch(16 * size)
	return c.packed(n, weights, layoutOfWords(true, "panels", panels, 16, pairs, cols), panels*16*pairs*cols, (ch+perTask-1)/perTask, func(worker int, dst, w, scale []float32, task int) {
		c0 := task * perTask
		rows := min(perTask, ch-c0)
		block := c.p.scratch[worker][:16*size]
		for panel := range panels {
			valid := min(cols, oc-panel*cols)
			for r := range rows {
				k.Winograd.Weights(block[r*cols:], w[(c0+r)*oc+panel*cols:], valid, ch*oc, size)
			}
			for plane := range 16 {
				from := block[plane*size:][:size]
				if scale != nil { // before weights are rounded
					scaleRows(k, from[:rows*cols], cols, scale[panel*cols:][:valid])
				}
				if rows%2 == 1 {
					clear(from[rows*cols:][:cols])
				}
				out := wordsOf(dst)[((panel*16+plane)*pairs+c0/2)*cols:][:(rows+1)/2*cols]
				k.BF16.PackRows(out, from, cols, valid, cols)
			}
		}
	})
}

// winogradPairColumns is winogradColumns in the same way, in pairs of output
// channels: panels [ch/cols][plane][(oc+1)/2][cols].
func (c *compiler) winogradPairColumns(n *graph.Node, weights *graph.Node, ch, oc int) slot {
	const width = 32 // of oc at a time
	k, cols := c.k, c.k.BF16.ConvTileFor(ch).Cols
	panels, chunks, pairs := (ch+cols-1)/cols, (oc+width-1)/width, (oc+1)/2
	size := cols*width + 16 // of a plane in scratch
	turned := [4]int{3, 1, 2, 0}
	c.needScratch(16*size + cols*width/2)
	return c.packed(n, weights, layoutOfWords(true, "panels", panels, 16, pairs, cols), panels*16*pairs*cols, panels*chunks, func(worker int, dst, w, _ []float32, task int) {
		c0, o0 := task%panels*cols, task/panels*width
		rows, wide := min(cols, ch-c0), min(width, oc-o0)
		block := c.p.scratch[worker][:16*size]
		narrow := c.p.scratch[worker][16*size:][:rows*width/2]
		if wide < width {
			clear(block)
		}
		for r := range rows {
			k.Winograd.Weights(block[r*width:], w[(c0+r)*oc+o0:], wide, ch*oc, size)
		}
		for plane := range 16 {
			to := 4*turned[plane/4] + turned[plane%4]
			k.BF16.Narrow(halvesOf(narrow), block[plane*size:][:rows*width])
			out := dst[((task%panels*16+to)*pairs+o0/2)*cols:]
			if rows < cols {
				clear(out[:(wide+1)/2*cols])
			}
			k.Transpose(out, narrow, rows, (wide+1)/2, cols, width/2)
		}
	})
}

// winogradWeights computes dw as weightsPass does, block by block of tiles and in
// shards, with sums of products of transformed values that are transformed back
// at the end. In mixed precision transformed values are bfloat16 and products are
// of pairs of tiles: x and dy are packed in pairs for each block. Where panels make
// tasks enough there, no sums go through memory: a task computes those of a panel,
// for some strips at a time, over all blocks (runPanel).
type winogradWeights struct {
	winogradBlocks
	p              *Program
	tile           *kernel.OuterTile // or
	pair           *kernel.PairOuterTile
	rows, cols     int // of the tile of sums
	x, dy, dw      slot
	sums           slot // [shard][plane][panel][strip][Rows*Cols]
	packedX        slot // [block][plane][strip][tile][Rows] of x, transformed, when several tasks read it; else noSlot
	c, oc          int
	xStep, dyStep  int // elements of one image
	strips, panels int
	panelsPerTask  int
	shards         int
	stripsAtOnce   int // of runPanel
	keptGrads      int // words from a block's gradients to the next block's there, which are kept, or 0
	in, grad       planes
	stripStep      int         // from a strip of a transformed block of x to the next
	offsets        []int32     // of tiles in a strip and a panel
	byPairs        *outerPairs // in mixed precision
}

func (c *compiler) lowerWinogradWeights(n *graph.Node) error {
	x, dy := n.Inputs[0], n.Inputs[1]
	images, h, w, ch := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	oh, ow, oc := dy.Shape[1], dy.Shape[2], dy.Shape[3]
	v := &winogradWeights{p: c.p, x: c.slotOf[x.ID], dy: c.slotOf[dy.ID], packedX: noSlot, c: ch, oc: oc}
	xCh, dyCh := ch, oc // in memory
	if c.p.engine.bf16 {
		v.pair = c.k.BF16.OuterTileFor(ch, oc)
		v.rows, v.cols = v.pair.Rows, v.pair.Cols
		v.x, xCh = c.pairs(x)
		v.dy, dyCh = c.pairs(dy)
	} else {
		v.tile = c.k.OuterTileFor(ch, oc)
		v.rows, v.cols = v.tile.Rows, v.tile.Cols
	}
	of := convolution{images: images, h: h, w: w, oh: oh, ow: ow, cSrc: xCh, cDst: dyCh}
	v.xStep, v.dyStep = h*w*xCh, oh*ow*dyCh
	v.strips, v.panels = (ch+v.rows-1)/v.rows, (oc+v.cols-1)/v.cols
	// Many tiles, because each block reads and writes all sums; fewer where their
	// transforms would not stay in the second cache.
	wantTiles := 128
	if ch+oc <= 128 {
		wantTiles = 64
	}
	perImage := ((oh + 1) / 2) * ((ow + 1) / 2)
	group := min((wantTiles+perImage-1)/perImage, images)
	if max(group*v.xStep, group*v.dyStep) > math.MaxInt32 {
		return errTooLarge
	}
	v.group(group, of, winogradAxis(2, oh, n.Conv.Pad.Top), winogradAxis(2, ow, n.Conv.Pad.Left))
	v.divide(min(wantTiles, v.tables.tiles()))

	shardSize := v.panels * v.strips * 16 * v.rows * v.cols
	const shardFloats, maxShards, wantTasks = 2304 << 10, 16, 8
	v.shards = min(max(shardFloats/shardSize, 1), maxShards, v.blocks)
	chunks := min((wantTasks+v.shards-1)/v.shards, v.panels)
	byPanel := v.pair != nil && v.panels >= wantTasks
	if byPanel {
		v.shards, chunks = 1, v.panels
	}
	v.panelsPerTask = (v.panels + chunks - 1) / chunks
	chunks = (v.panels + v.panelsPerTask - 1) / v.panelsPerTask

	c.needChannels(max(ch, oc))
	c.winogradKernel(n, by2)
	c.p.winogradWeights = append(c.p.winogradWeights, v)
	name := label(n)
	if v.pair != nil {
		v.byPairs = newOuterPairs(v.pair, v.tilesPerBlock)
		v.stripStep = v.byPairs.pairs * v.rows
		v.in = newPlanes(2*v.byPairs.pairs, ch, 32)
		v.grad = newPlanes(2*v.byPairs.pairs, v.panelsPerTask*v.cols, 32)
		if byPanel {
			c.needScratch(v.halves() + v.layOutPanel())
		} else {
			c.needScratch(v.halves() + 16*(v.strips*v.stripStep+v.panelsPerTask*v.byPairs.pairs*v.cols))
		}
	} else {
		v.in = newPlanes(v.tilesPerBlock, v.strips*v.rows, 16)
		v.grad = newPlanes(v.tilesPerBlock, v.panelsPerTask*v.cols, 16)
		c.needScratch(16 * (v.in.size + v.grad.size))
		rowStep := v.in.stride
		v.stripStep = v.rows
		if chunks > 1 {
			rowStep, v.stripStep = v.rows, v.tilesPerBlock*v.rows
		}
		for t := range v.tilesPerBlock {
			v.offsets = append(v.offsets, int32(t*rowStep), int32(t*v.grad.stride))
		}
	}
	if chunks > 1 {
		v.packedX = c.temp(v.blocks*16*v.strips*v.stripStep, layoutOfWords(v.pair != nil, "tiles", v.blocks, 16, v.strips, v.stripStep))
		c.step("pack winograd 2×2 "+name, v.blocks, v.packX, v.x, v.packedX)
	}
	if byPanel {
		v.dw = c.value(n)
		c.step("winograd 2×2 "+name, v.panels, v.runPanel, v.packedX, v.dy, v.dw).kernel = c.products(true, v.rows, v.cols)
		return nil
	}
	v.sums = c.temp(v.shards*shardSize, layoutOf("float32 sums", v.shards, v.panels, v.strips, 16, v.rows, v.cols))
	c.step("winograd 2×2 "+name, v.shards*chunks, v.run, v.x, v.packedX, v.dy, v.sums).kernel = c.products(v.pair != nil, v.rows, v.cols)
	v.dw = c.value(n)
	c.step("sum "+name, v.strips*v.panels, v.total, v.sums, v.dw)
	return nil
}

// layOutPanel chooses the strips that runPanel sums at once, and returns the scratch it needs
// beside halves: their sums, and transformed gradients, of all blocks if these are read again
// for further strips.
func (v *winogradWeights) layOutPanel() int {
	const most = 192 << 10 // sums of a task, which stay in the second cache
	strip, grads := 16*v.rows*v.cols, 16*v.byPairs.pairs*v.cols
	rounds := (v.strips*strip + most - 1) / most
	v.stripsAtOnce = (v.strips + rounds - 1) / rounds
	if rounds > 1 {
		v.keptGrads = grads
		grads *= v.blocks
	}
	return v.stripsAtOnce*strip + grads
}

// halves is how many words of scratch have planes of bfloat16 before they are packed.
func (v *winogradWeights) halves() int { return 8 * max(v.in.size, v.grad.size) }

// input transforms a block of x.
func (v *winogradWeights) input(block int, dst []float32) {
	p := v.p
	image, patches, _ := v.of(block)
	p.engine.kernels.Winograd.Input(dst, p.mem[v.x][image*v.xStep:], p.zero, patches, v.c, v.in.stride, v.in.size)
}

// packX transforms a block of x for all tasks. Reading strips of it from memory
// is fast only if they lie in one piece.
func (v *winogradWeights) packX(worker, block int) {
	if v.pair != nil {
		dst := v.p.mem[v.packedX][block*16*v.strips*v.stripStep:][:16*v.strips*v.stripStep]
		v.inputPairs(block, wordsOf(dst), halvesOf(v.p.scratch[worker]))
		return
	}
	in := v.p.scratch[worker][:16*v.in.size]
	v.input(block, in)
	_, _, at := v.of(block)
	dst := v.p.mem[v.packedX][block*16*v.strips*v.stripStep:]
	for plane := range 16 {
		for strip := range v.strips {
			v.p.engine.kernels.Pack(dst[:len(at)/4*v.rows], in[plane*v.in.size+strip*v.rows:], v.rows, v.in.stride)
			dst = dst[v.stripStep:]
		}
	}
}

// inputPairs transforms a block of x and packs it in pairs of tiles,
// [plane][strip][pair][rows]; planes is scratch.
func (v *winogradWeights) inputPairs(block int, dst []uint32, planes []uint16) {
	p, k := v.p, &v.p.engine.kernels.BF16
	image, patches, at := v.of(block)
	x := halvesOf(p.mem[v.x])[image*v.xStep:]
	k.Winograd.Input(planes, x, halvesOf(p.zero), patches, v.c, v.in.stride, v.in.size)
	packTiles(k, dst, planes, 16, len(at)/4, v.strips, v.rows, v.stripStep, v.c, v.in)
}

// outerPairs are the products of pairs of tiles, for gradients of kernels.
type outerPairs struct {
	tile    *kernel.PairOuterTile
	pairs   int     // of tiles in a block
	offsets []int32 // of these in a strip and in a panel
}

func newOuterPairs(tile *kernel.PairOuterTile, tiles int) *outerPairs {
	o := &outerPairs{tile: tile, pairs: (tiles + 1) / 2}
	for pair := range o.pairs {
		o.offsets = append(o.offsets, int32(pair*tile.Rows), int32(pair*tile.Cols))
	}
	return o
}

// add adds those of so many tiles of strips of x, [strip][pair][Rows], and of a panel of dy,
// [pair][Cols], to as many tiles of sums.
func (o *outerPairs) add(sums []float32, x, dy []uint32, strips, tiles int) {
	size, step := o.tile.Rows*o.tile.Cols, o.pairs*o.tile.Rows
	for strip := range strips {
		o.tile.Run(sums[strip*size:][:size], x[strip*step:], dy, o.offsets[:(tiles+1)/2*2])
	}
}

// packTiles packs tiles of count planes in pairs, for each plane and part of width channels;
// part is the distance of these in dst. A tile without a partner gets zeros.
func packTiles(k *kernel.BF16, dst []uint32, from []uint16, count, tiles, parts, width, part, channels int, l planes) {
	pairs := (tiles + 1) / 2
	for plane := range count {
		all := from[plane*l.size:]
		if tiles%2 == 1 {
			clear(all[tiles*l.stride:][:channels])
		}
		for i := range parts {
			k.PackImages(dst[:pairs*width], all[i*width:], all[l.stride+i*width:], width, min(width, channels-i*width), 2*l.stride)
			dst = dst[part:]
		}
	}
}

// run adds the blocks of one shard to its sums, for some panels.
func (v *winogradWeights) run(worker, task int) {
	p := v.p
	shard := task % v.shards
	panel0 := task / v.shards * v.panelsPerTask
	panelEnd := min(panel0+v.panelsPerTask, v.panels)
	columns := min(panelEnd*v.cols, v.oc) - panel0*v.cols
	size := v.rows * v.cols
	planeSize := v.panels * v.strips * size
	sums := p.mem[v.sums][shard*16*planeSize:][:16*planeSize]
	for plane := range 16 {
		clear(sums[plane*planeSize+panel0*v.strips*size : plane*planeSize+panelEnd*v.strips*size])
	}
	for block := shard * v.blocks / v.shards; block < (shard+1)*v.blocks/v.shards; block++ {
		if v.pair != nil {
			v.addPairs(worker, block, panel0, panelEnd, columns, sums)
		} else {
			v.add(worker, block, panel0, panelEnd, columns, sums)
		}
	}
}

// add adds a block to sums.
func (v *winogradWeights) add(worker, block, panel0, panelEnd, columns int, sums []float32) {
	p, size := v.p, v.rows*v.cols
	in := p.scratch[worker][:16*v.in.size]
	grad := p.scratch[worker][16*v.in.size:][:16*v.grad.size]
	image, _, at := v.of(block)
	planeStep := v.in.size
	if v.packedX == noSlot {
		v.input(block, in)
	} else {
		planeStep = v.strips * v.stripStep
		in = p.mem[v.packedX][block*16*planeStep:]
	}
	dy := p.mem[v.dy][image*v.dyStep+panel0*v.cols:]
	p.engine.kernels.Winograd.Gradient(grad, dy, p.zero, at, columns, v.grad.stride, v.grad.size)
	for plane := range 16 {
		for panel := panel0; panel < panelEnd; panel++ {
			dy := grad[plane*v.grad.size+(panel-panel0)*v.cols:]
			for strip := range v.strips {
				dst := sums[((plane*v.panels+panel)*v.strips+strip)*size:][:size]
				v.tile.Run(dst, in[plane*planeStep+strip*v.stripStep:], dy, v.offsets[:len(at)/2])
			}
		}
	}
}

// addPairs is add in mixed precision.
func (v *winogradWeights) addPairs(worker, block, panel0, panelEnd, columns int, sums []float32) {
	scratch := v.p.scratch[worker]
	halves, scratch := scratch[:v.halves()], scratch[v.halves():]
	inStep, gradStep := v.strips*v.stripStep, v.byPairs.pairs*v.cols
	in := wordsOf(scratch[:16*inStep])
	grad := wordsOf(scratch[16*inStep:][:16*v.panelsPerTask*gradStep])
	if v.packedX == noSlot {
		v.inputPairs(block, in, halvesOf(halves))
	} else {
		in = wordsOf(v.p.mem[v.packedX][block*16*inStep:])
	}
	panels := panelEnd - panel0
	tiles := v.gradientPairs(block, panel0, panels, columns, grad, halvesOf(halves))
	for plane := range 16 {
		for panel := range panels {
			dst := sums[(plane*v.panels+panel0+panel)*v.strips*v.rows*v.cols:]
			v.byPairs.add(dst, in[plane*inStep:], grad[(plane*panels+panel)*gradStep:], v.strips, tiles)
		}
	}
}

// gradientPairs transforms some panels of a block of dy and packs them in pairs of tiles,
// [plane][panel][pair][cols]; planes is scratch. It returns the number of tiles.
func (v *winogradWeights) gradientPairs(block, panel0, panels, columns int, dst []uint32, planes []uint16) (tiles int) {
	p, k := v.p, &v.p.engine.kernels.BF16
	image, _, at := v.of(block)
	tiles = len(at) / 4
	dy := halvesOf(p.mem[v.dy])[image*v.dyStep+panel0*v.cols:]
	k.Winograd.Gradient(planes, dy, halvesOf(p.zero), at, columns, v.grad.stride, v.grad.size)
	packTiles(k, dst, planes, 16, tiles, panels, v.cols, v.byPairs.pairs*v.cols, columns, v.grad)
	return tiles
}

// runPanel computes dw of one panel.
func (v *winogradWeights) runPanel(worker, panel int) {
	tile, inStep, gradStep := v.rows*v.cols, v.strips*v.stripStep, v.byPairs.pairs*v.cols
	planeSize := v.stripsAtOnce * tile
	scratch := v.p.scratch[worker]
	halves, scratch := halvesOf(scratch[:v.halves()]), scratch[v.halves():]
	sums, grads := scratch[:16*planeSize], wordsOf(scratch[16*planeSize:])
	columns := min(v.cols, v.oc-panel*v.cols)
	for first := 0; first < v.strips; first += v.stripsAtOnce {
		strips := min(v.stripsAtOnce, v.strips-first)
		clear(sums)
		for block := range v.blocks {
			grad := grads[block*v.keptGrads:]
			if first == 0 {
				v.gradientPairs(block, panel, 1, columns, grad, halves)
			}
			_, _, at := v.of(block)
			x := wordsOf(v.p.mem[v.packedX][block*16*inStep+first*v.stripStep:])
			for plane := range 16 {
				v.byPairs.add(sums[plane*planeSize:], x[plane*inStep:], grad[plane*gradStep:], strips, len(at)/4)
			}
		}
		for strip := range strips {
			v.back(sums[strip*tile:], planeSize, first+strip, panel)
		}
	}
}

// total adds the shards of one strip and panel and transforms the sums into dw.
func (v *winogradWeights) total(_, task int) {
	p, kernels := v.p, v.p.engine.kernels
	panel, strip := task/v.strips, task%v.strips
	size := v.rows * v.cols
	planeSize := v.panels * v.strips * size
	sums := p.mem[v.sums][task*size:]
	for shard := 1; shard < v.shards; shard++ {
		for plane := range 16 {
			dst := sums[plane*planeSize:][:size]
			kernels.Add(dst, dst, sums[(shard*16+plane)*planeSize:])
		}
	}
	v.back(sums, planeSize, strip, panel)
}

// back transforms the sums of one strip and panel, planeSize apart, into dw.
func (v *winogradWeights) back(sums []float32, planeSize, strip, panel int) {
	columns, dw := min(v.cols, v.oc-panel*v.cols), v.p.mem[v.dw]
	for r := range min(v.rows, v.c-strip*v.rows) {
		v.p.engine.kernels.Winograd.Sums(dw[(strip*v.rows+r)*v.oc+panel*v.cols:], sums[r*v.cols:], columns, v.c*v.oc, planeSize)
	}
}
