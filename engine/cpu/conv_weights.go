package cpu

import (
	"math"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
)

// weightsPass computes dw [KH,KW,C,OC] = Σ over images and pixels of x · dy.
//
// The pixels are cut into blocks. For a block, the channels of x are packed in
// strips of Rows channels, [C/Rows][pixel][Rows], those of dy in panels
// [OC/Cols][pixel][Cols], so that a kernel call over the block's pixels reads
// two short runs of memory. Blocks are shared out among shards; each shard adds
// its blocks, in order, to sums of its own, and the shards are added, in order,
// into dw. The number of shards depends on the shape alone.
//
// Where channels are so few that a strip would be mostly empty, as in the first
// layer of a network, the taps of a line of the kernel are joined: x is not cut in
// strips but lies as in memory, with the padding of its lines, so that the Rows
// elements from a pixel on are the channels of this and the next pixels, which are
// what the next taps read. c then counts the channels of all of them, and taps the
// lines of the kernel.
//
// In mixed precision the elements are pairs of the same pixel of two images
// (bf16.go), and images below are pairs of them.
type weightsPass struct {
	p             *Program
	tile          *kernel.OuterTile     // or
	pair          *kernel.PairOuterTile // of pairs
	rows, cols    int                   // of the tile
	images        int                   // in mixed precision: of x and dy
	xPerImage     int                   // pixels
	dyPerImage    int                   //
	xStep, dyStep int                   // elements of a pixel
	x, dy, dw     slot
	sums          slot // [shard][panel][strip][tap][Rows*Cols]
	packedX       slot // all blocks, when several tasks read them; else noSlot
	c, oc         int
	taps          int
	strips        int // of channels of x
	panels        int // of channels of dy
	shards        int
	panelsPerTask int
	blocks        []weightsBlock
	maxX, maxDy   int // pixels of the largest block
	xPixels       int // of all blocks
	unit          int // elements of a packed pixel
	joined        *joined
}

// joined says how lines of x are packed whose taps are joined.
type joined struct {
	channels int // of a pixel
	width    int // pixels of a line of x
	left     int // pixels of padding before them
	padded   int // pixels of a packed line
}

// weightsBlock is a run of pixels of x and dy, in memory order, with the pairs
// of pixels that each tap joins.
type weightsBlock struct {
	x0, xPixels   int       // first pixel over all images, number of pixels
	dy0, dyPixels int       //
	gather        []int32   // pixels of x that are read, counted from x0, when these are few; xPixels is their number
	lines         int       // of x, when taps are joined; xPixels are those of the packed lines
	packed        int       // pixels of x in the blocks before
	pairs         [][]int32 // per tap: offsets into a packed strip and panel
}

func (c *compiler) lowerConvBackwardWeights(n *graph.Node) error {
	if err := checkConv(n.Inputs[0], n.Inputs[1], n.Shape[0], n.Shape[1]); err != nil {
		return err
	}
	switch a := c.algorithm(n.Shape, n.Inputs[0].Shape, n.Inputs[1].Shape, n.Conv, n.Op, true); a {
	case byStride2:
		return c.lowerStride2Weights(n)
	case by4, by4Pairs:
		return c.lowerWinograd4Weights(n, a)
	case by2:
		return c.lowerWinogradWeights(n)
	}
	x, dy := n.Inputs[0], n.Inputs[1]
	images, h, w, ch := x.Shape[0], x.Shape[1], x.Shape[2], x.Shape[3]
	oh, ow, oc := dy.Shape[1], dy.Shape[2], dy.Shape[3]
	kh, kw := n.Shape[0], n.Shape[1]
	v := &weightsPass{
		p: c.p, packedX: noSlot, c: ch, oc: oc, taps: kh * kw,
		images: images, xPerImage: h * w, dyPerImage: oh * ow,
	}
	// Joined, if lines make a block and no strip gets emptier by it.
	joins := kw > 1 && ch < 8 && oh*ow >= 2*blockPixels
	if joins {
		v.c, v.taps = kw*ch, kh
	}
	if c.p.engine.bf16 {
		v.pair = c.k.BF16.OuterTileFor(v.c, oc)
		v.rows, v.cols = v.pair.Rows, v.pair.Cols
	} else {
		v.tile = c.k.OuterTileFor(v.c, oc)
		v.rows, v.cols = v.tile.Rows, v.tile.Cols
	}
	if imagesPerBlock(oh*ow, images)*max(h*w, oh*ow) > math.MaxInt32/max(v.rows, v.cols) {
		return errTooLarge
	}
	if v.pair != nil {
		v.x, v.xStep = c.pairs(x)
		v.dy, v.dyStep = c.pairs(dy)
		images = (images + 1) / 2
		c.pairKernel(n)
	} else {
		v.x, v.xStep, v.dy, v.dyStep = c.slotOf[x.ID], ch, c.slotOf[dy.ID], oc
		c.igemm(n)
	}
	if joins {
		v.joined = &joined{channels: ch, width: w, left: n.Conv.Pad.Left, padded: (ow-1)*n.Conv.Stride + kw}
	}
	v.strips, v.panels = (v.c+v.rows-1)/v.rows, (oc+v.cols-1)/v.cols
	if joins {
		v.unit = ch
		v.cutJoined(images, h, w, oh, ow, n.Conv)
	} else {
		v.unit = v.strips * v.rows
		v.cut(forwardPixels(h, w, oh, ow, kh, kw, n.Conv), images, ow)
	}

	shardSize := v.panels * v.strips * v.taps * v.rows * v.cols
	const shardFloats, maxShards, wantTasks = 512 << 10, 16, 32
	v.shards = min(max(shardFloats/shardSize, 1), maxShards, len(v.blocks))
	chunks := min((wantTasks+v.shards-1)/v.shards, v.panels)
	if v.shards == maxShards {
		chunks = 1
	}
	v.panelsPerTask = (v.panels + chunks - 1) / chunks
	chunks = (v.panels + v.panelsPerTask - 1) / v.panelsPerTask

	name := label(n)
	c.needScratch(v.maxX*v.unit + v.slack() + v.maxDy*v.cols)
	if chunks > 1 {
		v.packedX = c.temp(v.xPixels*v.unit+v.slack(), layoutOfWords(v.pair != nil, "pixels in blocks", v.xPixels, v.unit))
		c.step("pack "+name, len(v.blocks), func(_, i int) {
			v.packX(&v.blocks[i], v.blockX(i, nil))
		}, v.x, v.packedX)
	}
	v.sums = c.temp(v.shards*shardSize, layoutOf("float32 sums", v.shards, v.panels, v.strips, v.taps, v.rows, v.cols))
	c.step(name, v.shards*chunks, v.run, v.x, v.packedX, v.dy, v.sums).kernel = c.products(v.pair != nil, v.rows, v.cols)
	v.dw = c.value(n)
	c.p.weights = append(c.p.weights, v)
	c.step("sum "+name, v.strips, v.total, v.sums, v.dw)
	return nil
}

// blockPixels is how many pixels of dy a block has, or up to twice as many.
const blockPixels = 256

// imagesPerBlock is how many images of so many pixels of dy share a block, at most.
func imagesPerBlock(pixels, images int) int { return min(max(2*blockPixels/pixels, 1), images) }

// cut makes the blocks: some whole images, or some lines of one.
func (v *weightsPass) cut(m pixelMap, images, ow int) {
	if m.dst >= 2*blockPixels { // lines
		lines := max(blockPixels/ow, 1)
		var blocks []weightsBlock
		for d0 := 0; d0 < m.dst; d0 += lines * ow {
			blocks = append(blocks, newWeightsBlock(m, 1, d0, min(lines*ow, m.dst-d0), v.rows, v.cols))
		}
		v.repeat(blocks, images, m.src, m.dst)
		return
	}
	group := imagesPerBlock(m.dst, images)
	whole := newWeightsBlock(m, group, 0, m.dst, v.rows, v.cols)
	for n := 0; n < images; n += group {
		b := whole
		if images-n < group {
			b = newWeightsBlock(m, images-n, 0, m.dst, v.rows, v.cols)
		}
		b.x0 += n * m.src
		b.dy0 += n * m.dst
		v.add(b)
	}
}

// cutJoined makes the blocks, of lines of an image, of a pass whose taps are joined.
func (v *weightsPass) cutJoined(images, h, w, oh, ow int, a graph.ConvAttrs) {
	perBlock := max(blockPixels/ow, 1)
	var blocks []weightsBlock
	for y0 := 0; y0 < oh; y0 += perBlock {
		y1 := min(y0+perBlock, oh)
		first := max(y0*a.Stride-a.Pad.Top, 0) // line of x, and the one after the last
		end := min((y1-1)*a.Stride-a.Pad.Top+v.taps, h)
		b := weightsBlock{
			x0: first * w, lines: max(end-first, 0), xPixels: max(end-first, 0) * v.joined.padded,
			dy0: y0 * ow, dyPixels: (y1 - y0) * ow, pairs: make([][]int32, v.taps),
		}
		for tap := range v.taps {
			for y := y0; y < y1; y++ {
				line := y*a.Stride - a.Pad.Top + tap
				if line < 0 || line >= h {
					continue
				}
				for x := range ow {
					b.pairs[tap] = append(b.pairs[tap],
						int32(((line-first)*v.joined.padded+x*a.Stride)*v.unit), int32(((y-y0)*ow+x)*v.cols))
				}
			}
		}
		blocks = append(blocks, b)
	}
	v.repeat(blocks, images, h*w, oh*ow)
}

// repeat adds the blocks of one image, of so many pixels of x and dy, for each image. All
// of them share its pairs.
func (v *weightsPass) repeat(blocks []weightsBlock, images, xPixels, dyPixels int) {
	for n := range images {
		for _, b := range blocks {
			b.x0 += n * xPixels
			b.dy0 += n * dyPixels
			v.add(b)
		}
	}
}

// slack is how many elements after the packed pixels a kernel may read.
func (v *weightsPass) slack() int {
	if v.joined == nil {
		return 0
	}
	return v.strips * v.rows
}

// strip returns where a kernel reads strip i of a block whose x is packed in x.
func (v *weightsPass) strip(b *weightsBlock, x []float32, i int) []float32 {
	if v.joined != nil {
		return x[i*v.rows:]
	}
	return x[i*b.xPixels*v.rows:][:b.xPixels*v.rows]
}

func (v *weightsPass) add(b weightsBlock) {
	b.packed = v.xPixels
	v.xPixels += b.xPixels
	v.blocks = append(v.blocks, b)
	v.maxX, v.maxDy = max(v.maxX, b.xPixels), max(v.maxDy, b.dyPixels)
}

// newWeightsBlock joins the pixels d0..d0+count of each of some images with
// their source pixels. Several images must be whole.
func newWeightsBlock(m pixelMap, images, d0, count, rows, cols int) weightsBlock {
	lo, hi := int32(math.MaxInt32), int32(-1) // source pixels that are read
	for _, s := range m.at[d0*m.taps : (d0+count)*m.taps] {
		if s != kernel.NoPixel {
			lo, hi = min(lo, s), max(hi, s)
		}
	}
	b := weightsBlock{dy0: d0, dyPixels: images * count, pairs: make([][]int32, m.taps)}
	if images > 1 {
		lo, hi = 0, int32(m.src-1)
	}
	if hi >= 0 {
		b.x0, b.xPixels = int(lo), images*int(hi-lo+1)
	}
	position := make([]int32, b.xPixels) // of a source pixel in the packed block
	used := 0
	for n := range images {
		for _, s := range m.at[d0*m.taps : (d0+count)*m.taps] {
			if s != kernel.NoPixel {
				position[n*m.src+int(s-lo)] = 1
			}
		}
	}
	for _, mark := range position {
		used += int(mark)
	}
	if 2*used <= b.xPixels { // as in a 1×1 convolution of stride 2
		for px, mark := range position {
			if mark == 1 {
				position[px] = int32(len(b.gather))
				b.gather = append(b.gather, int32(px))
			}
		}
		b.xPixels = used
	} else {
		for px := range position {
			position[px] = int32(px)
		}
	}
	for tap := range m.taps {
		for n := range images {
			for d := range count {
				if s := m.at[(d0+d)*m.taps+tap]; s != kernel.NoPixel {
					b.pairs[tap] = append(b.pairs[tap], position[n*m.src+int(s-lo)]*int32(rows), int32((n*count+d)*cols))
				}
			}
		}
	}
	return b
}

// blockX returns where block i of x lies packed: in memory for all tasks, or in
// a worker's scratch.
func (v *weightsPass) blockX(i int, scratch []float32) []float32 {
	b := &v.blocks[i]
	size := b.xPixels*v.unit + v.slack()
	if v.packedX == noSlot {
		return scratch[:size]
	}
	return v.p.mem[v.packedX][b.packed*v.unit:][:size]
}

// packX packs the channels of x in strips [strip][pixel][rows]. Rows beyond the
// last channel get whatever follows in memory: their sums are not used.
func (v *weightsPass) packX(b *weightsBlock, dst []float32) {
	k, rows := v.p.engine.kernels, v.rows
	if v.joined != nil {
		v.packLines(b, dst)
		return
	}
	if v.pair != nil {
		for strip := range v.strips {
			out := wordsOf(dst[strip*b.xPixels*rows:][:b.xPixels*rows])
			valid := min(rows, v.c-strip*rows)
			if b.gather == nil {
				v.packPairs(out, v.x, b.x0, b.xPixels, v.xPerImage, v.xStep, strip*rows, rows, valid)
				continue
			}
			for i, px := range b.gather {
				v.packPairs(out[i*rows:], v.x, b.x0+int(px), 1, v.xPerImage, v.xStep, strip*rows, rows, valid)
			}
		}
		return
	}
	x := v.p.mem[v.x][b.x0*v.c:]
	for strip := range v.strips {
		out := dst[strip*b.xPixels*rows:][:b.xPixels*rows]
		if b.gather == nil {
			packStrip(k, out, x[strip*rows:], v.c, rows)
			continue
		}
		for i, px := range b.gather {
			packStrip(k, out[i*rows:][:rows], x[int(px)*v.c+strip*rows:], v.c, rows)
		}
	}
}

// packLines packs whole lines of x, with zeros for the padding before and after
// them. What follows the last one is not used.
func (v *weightsPass) packLines(b *weightsBlock, dst []float32) {
	j := v.joined
	within := min(j.width, max(j.padded-j.left, 0)) // pixels of a line that are read
	for line := range b.lines {
		out := dst[line*j.padded*j.channels:][:j.padded*j.channels]
		before := min(j.left*j.channels, len(out))
		clear(out[:before])
		clear(out[before+within*j.channels:])
		out = out[before:][:within*j.channels]
		pixel := b.x0 + line*j.width
		if v.pair != nil {
			v.packPairs(wordsOf(out), v.x, pixel, within, v.xPerImage, v.xStep, 0, j.channels, j.channels)
		} else {
			copy(out, v.p.mem[v.x][pixel*j.channels:])
		}
	}
}

// packStrip packs rows elements of each pixel of c elements; x starts at the
// first of them and may end after the last pixel's channels.
func packStrip(k *kernel.Kernels, dst, x []float32, c, rows int) {
	whole := min(len(dst)/rows, max(len(x)-rows+c, 0)/c) // pixels that x has rows elements of
	k.Pack(dst[:whole*rows], x, rows, c)
	for i := whole; i < len(dst)/rows; i++ {
		copy(dst[i*rows:][:rows], x[i*c:])
	}
}

// packDy packs one panel of channels of dy, [pixel][cols].
func (v *weightsPass) packDy(b *weightsBlock, dst []float32, panel int) {
	cols := v.cols
	if v.pair != nil {
		v.packPairs(wordsOf(dst), v.dy, b.dy0, b.dyPixels, v.dyPerImage, v.dyStep, panel*cols, cols, min(cols, v.oc-panel*cols))
		return
	}
	packPanel(v.p.engine.kernels, cols, dst[:b.dyPixels*cols], v.p.mem[v.dy][b.dy0*v.oc:], v.oc, panel)
}

// packPairs packs valid channels from first on of count pixels of pairs of images,
// width pairs for each. perImage are the pixels of an image, step the elements of
// a pixel.
func (v *weightsPass) packPairs(dst []uint32, src slot, pixel, count, perImage, step, first, width, valid int) {
	k, all := &v.p.engine.kernels.BF16, halvesOf(v.p.mem[src])
	for count > 0 {
		pair, at := pixel/perImage, pixel%perImage
		n := min(count, perImage-at)
		a := all[(2*pair*perImage+at)*step+first:]
		var b []uint16
		if 2*pair+1 < v.images {
			b = a[perImage*step:]
		}
		k.PackImages(dst[:n*width], a, b, width, valid, step)
		dst, pixel, count = dst[n*width:], pixel+n, count-n
	}
}

// run adds the blocks of one shard to its sums, for some panels.
func (v *weightsPass) run(worker, task int) {
	p := v.p
	shard := task % v.shards
	panel0 := task / v.shards * v.panelsPerTask
	panelEnd := min(panel0+v.panelsPerTask, v.panels)
	tile := v.rows * v.cols
	panelSize := v.strips * v.taps * tile
	sums := p.mem[v.sums][shard*v.panels*panelSize:]
	clear(sums[panel0*panelSize : panelEnd*panelSize])
	xSize := v.maxX*v.unit + v.slack()
	scratch := p.scratch[worker]
	for i := shard * len(v.blocks) / v.shards; i < (shard+1)*len(v.blocks)/v.shards; i++ {
		b := &v.blocks[i]
		x := v.blockX(i, scratch)
		if v.packedX == noSlot {
			v.packX(b, x)
		}
		dy := scratch[xSize:][:b.dyPixels*v.cols]
		for panel := panel0; panel < panelEnd; panel++ {
			v.packDy(b, dy, panel)
			dst := sums[panel*panelSize:][:panelSize]
			for strip := range v.strips {
				xs := v.strip(b, x, strip)
				for _, pairs := range b.pairs {
					if v.pair != nil {
						v.pair.Run(dst[:tile], wordsOf(xs), wordsOf(dy), pairs)
					} else {
						v.tile.Run(dst[:tile], xs, dy, pairs)
					}
					dst = dst[tile:]
				}
			}
		}
	}
}

// total adds the shards of one strip of channels into dw.
func (v *weightsPass) total(_, strip int) {
	p := v.p
	tile := v.rows * v.cols
	panelSize := v.strips * v.taps * tile
	sums, dw := p.mem[v.sums], p.mem[v.dw]
	for tap := range v.taps {
		for panel := range v.panels {
			valid := min(v.cols, v.oc-panel*v.cols)
			at := panel*panelSize + (strip*v.taps+tap)*tile
			for r := range min(v.rows, v.c-strip*v.rows) {
				dst := dw[(tap*v.c+strip*v.rows+r)*v.oc+panel*v.cols:][:valid]
				copy(dst, sums[at+r*v.cols:])
				for shard := 1; shard < v.shards; shard++ {
					for j, s := range sums[shard*v.panels*panelSize+at+r*v.cols:][:valid] {
						dst[j] += s
					}
				}
			}
		}
	}
}
