package cpu

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
)

// pixelMap says, for one image, which source pixel each tap of each destination
// pixel reads: at[dst*taps+tap], or kernel.NoPixel. Forward and backward-data
// convolution, strided or not, differ only in this map and in the weights.
type pixelMap struct {
	dst, src, taps int
	at             []int32
}

// forwardPixels is the map of a convolution from x [N,H,W,C] to y [N,OH,OW,OC];
// taps are numbered kh·KW+kw.
func forwardPixels(h, w, oh, ow, kh, kw int, a graph.ConvAttrs) pixelMap {
	m := pixelMap{dst: oh * ow, src: h * w, taps: kh * kw}
	m.at = make([]int32, 0, m.dst*m.taps)
	for y := range oh {
		for x := range ow {
			for i := range kh {
				for j := range kw {
					sy, sx := y*a.Stride+i-a.Pad.Top, x*a.Stride+j-a.Pad.Left
					if sy < 0 || sy >= h || sx < 0 || sx >= w {
						m.at = append(m.at, kernel.NoPixel)
					} else {
						m.at = append(m.at, int32(sy*w+sx))
					}
				}
			}
		}
	}
	return m
}

// inverse is the map of the backward-data pass: a tap leads back from the
// source pixel to the one destination pixel that reads it through this tap.
func (m pixelMap) inverse() pixelMap {
	inv := pixelMap{dst: m.src, src: m.dst, taps: m.taps, at: make([]int32, m.src*m.taps)}
	for i := range inv.at {
		inv.at[i] = kernel.NoPixel
	}
	for i, s := range m.at {
		if s != kernel.NoPixel {
			inv.at[int(s)*m.taps+i%m.taps] = int32(i / m.taps)
		}
	}
	return inv
}

// mask has a bit for each of the first 64 taps that pixel d of the map has.
func (m pixelMap) mask(d int) uint64 {
	var mask uint64
	for t, s := range m.at[d*m.taps:][:m.taps] {
		if s != kernel.NoPixel {
			mask |= 1 << (t & 63)
		}
	}
	return mask
}

// stride is the distance, in source pixels, of the rows of a tile: of two destination
// pixels with the same taps that follow each other, or of two images of one pixel. It
// is 0 if there are none.
func (m pixelMap) stride() int {
	if m.dst == 1 {
		return m.src
	}
	first := map[uint64]int{}
	for d := range m.dst {
		mask := m.mask(d)
		before, ok := first[mask]
		if !ok {
			first[mask] = d
			continue
		}
		for tap := range m.taps {
			if s := m.at[d*m.taps+tap]; s != kernel.NoPixel {
				return int(s - m.at[before*m.taps+tap])
			}
		}
	}
	return 0
}

// tileTable is the work list of a convolution over a group of images: tiles of
// rows pixels, each with the taps that any of them has. Offsets are in elements
// from the first image of the group.
type tileTable struct {
	images int
	rows   int
	pixels int     // of which the last tile may have fewer than rows
	dst    []int32 // rows per tile
	taps   []int32 // kernel tap records
	first  []int32 // tile t has records taps[first[t]:first[t+1]]
}

func (t *tileTable) tiles() int { return len(t.dst) / t.rows }

// newTileTable lays the pixels of a group of images out as tiles. Pixels with
// the same taps come together, so that border taps and the gaps of a strided
// backward pass cost little; within them the order is that of memory. The last
// tile repeats its last pixel, which computes and writes the same twice.
func newTileTable(m pixelMap, images, rows, cSrc, cDst, cols int) *tileTable {
	type pixel struct {
		mask       uint64
		image, dst int32
	}
	pixels := make([]pixel, 0, images*m.dst)
	for n := range images {
		for d := range m.dst {
			pixels = append(pixels, pixel{m.mask(d), int32(n), int32(d)})
		}
	}
	slices.SortStableFunc(pixels, func(a, b pixel) int { return cmp.Compare(b.mask, a.mask) })

	t := &tileTable{images: images, rows: rows, pixels: len(pixels)}
	for start := 0; start < len(pixels); start += rows {
		tile := make([]pixel, rows)
		for r := range tile {
			tile[r] = pixels[min(start+r, len(pixels)-1)]
			t.dst = append(t.dst, (tile[r].image*int32(m.dst)+tile[r].dst)*int32(cDst))
		}
		t.first = append(t.first, int32(len(t.taps)))
		for tap := range m.taps {
			record := []int32{int32(tap * cSrc * cols), 0}
			used := false
			for _, px := range tile {
				o := m.at[int(px.dst)*m.taps+tap]
				if o != kernel.NoPixel {
					o = (px.image*int32(m.src) + o) * int32(cSrc)
					used = true
				}
				record = append(record, o)
			}
			if used {
				t.taps = append(t.taps, record...)
			}
		}
	}
	t.first = append(t.first, int32(len(t.taps)))
	return t
}

// groupImages chooses how many images a tile table covers: enough pixels that
// tiles are rarely split, few enough that the table stays small.
func groupImages(pixels, images, rows int) int {
	group := 1
	switch waste := (rows - pixels%rows) % rows; {
	case pixels < 16*rows:
		group = (16*rows + pixels - 1) / pixels
		group = (group + rows - 1) / rows * rows
	case waste*100 > pixels:
		group = 3
	}
	return min(group, images)
}

// convPass is a compiled convolution, forward or backward data, or a matrix
// product, which is a convolution of one tap over images of one pixel.
type convPass struct {
	p              *Program
	tile           *kernel.ConvTile // or
	pair           *kernel.PairTile // (bf16.go), where src and weights are in pairs, and dst is bfloat16
	rows, cols     int              // of the tile
	src, wei, dst  slot
	cSrc, cDst     int
	srcStep        int // elements of one source image
	dstStep        int
	panelSize      int // packed weights of one panel of cols channels
	panels         int
	panelsPerTask  int
	tilesPerTask   int
	groups         int        // of images, the last one may be smaller
	tables         *tileTable // of all groups but the last
	last           *tileTable
	chunks, lastCh int       // tasks per group and panel chunk
	tight          []int32   // offsets of the rows of a tile stored without gaps
	end            *epilogue // nil: sums are stored as they are
}

// lowerPass appends the steps of a convolution from src to dst through packed
// weights.
func (c *compiler) lowerPass(name string, m pixelMap, images, cSrc, cDst int, src, wei, dst slot, end *epilogue) error {
	k := c.k.ConvTileApart(images*m.dst, cDst, 4*cSrc*m.stride())
	return c.addPass(&convPass{tile: k, rows: k.Rows, cols: k.Cols, end: end}, name, m, images, cSrc, cDst, src, wei, dst)
}

// addPass appends the steps of a pass whose tile is known. cSrc counts the words
// of a source pixel.
func (c *compiler) addPass(v *convPass, name string, m pixelMap, images, cSrc, cDst int, src, wei, dst slot) error {
	v.p, v.src, v.wei, v.dst, v.cSrc, v.cDst = c.p, src, wei, dst, cSrc, cDst
	v.srcStep, v.dstStep = m.src*cSrc, m.dst*cDst
	v.panelSize, v.panels = m.taps*cSrc*v.cols, (cDst+v.cols-1)/v.cols
	group := groupImages(m.dst, images, v.rows)
	if max(group*v.srcStep, group*v.dstStep, v.panelSize) > math.MaxInt32 {
		return errTooLarge
	}
	v.groups = (images + group - 1) / group
	v.tables = newTileTable(m, group, v.rows, cSrc, cDst, v.cols)
	v.last = v.tables
	if rest := images - (v.groups-1)*group; rest != group {
		v.last = newTileTable(m, rest, v.rows, cSrc, cDst, v.cols)
	}

	// A task takes as many panels as fit the second cache beside the source, and
	// a run of tiles whose source stays there while the panels go by.
	const panelFloats = 64 << 10
	v.panelsPerTask = min(max(panelFloats/v.panelSize, 1), v.panels)
	v.tilesPerTask = 32
	for v.tasks() < 16 && v.panelsPerTask > 1 {
		v.panelsPerTask = (v.panelsPerTask + 1) / 2
	}
	for r := range endTiles * v.rows {
		v.tight = append(v.tight, int32(r*v.cols))
	}
	c.needScratch(endTiles * v.rows * v.cols)
	c.needChannels(max(cSrc, cDst))
	c.p.passes = append(c.p.passes, v)
	c.step(name, v.tasks(), v.run, append(v.end.reads(), src, wei, dst)...).kernel = c.products(v.pair != nil, v.rows, v.cols)
	return nil
}

// tasks counts the tasks, and sets what run needs to tell them apart.
func (v *convPass) tasks() int {
	v.chunks = (v.tables.tiles() + v.tilesPerTask - 1) / v.tilesPerTask
	v.lastCh = (v.last.tiles() + v.tilesPerTask - 1) / v.tilesPerTask
	perPanels := (v.groups-1)*v.chunks + v.lastCh
	return perPanels * ((v.panels + v.panelsPerTask - 1) / v.panelsPerTask)
}

// run computes one task: some tiles of one group times some panels. Tasks of
// the same panels follow each other, so that large weights are read once.
func (v *convPass) run(worker, task int) {
	p := v.p
	perPanels := (v.groups-1)*v.chunks + v.lastCh
	panel0 := task / perPanels * v.panelsPerTask
	task %= perPanels
	group := min(task/v.chunks, v.groups-1)
	tile0 := (task - group*v.chunks) * v.tilesPerTask
	t := v.tables
	if group == v.groups-1 {
		t = v.last
	}
	src := p.mem[v.src][group*v.tables.images*v.srcStep:]
	wei := p.mem[v.wei]
	dst, offset := p.mem[v.dst], group*v.tables.images*v.dstStep
	rows, cols := v.rows, v.cols
	for panel := panel0; panel < min(panel0+v.panelsPerTask, v.panels); panel++ {
		w := wei[panel*v.panelSize:][:v.panelSize]
		valid := min(cols, v.cDst-panel*cols)
		tileEnd := min(tile0+v.tilesPerTask, t.tiles())
		if v.end != nil {
			for tile := tile0; tile < tileEnd; tile += endTiles {
				v.runEnd(p.scratch[worker], t, tile, min(tile+endTiles, tileEnd), src, w, offset, panel*cols, valid)
			}
			continue
		}
		for tile := tile0; tile < tileEnd; tile++ {
			taps := t.taps[t.first[tile]:t.first[tile+1]]
			at := t.dst[tile*rows:][:rows]
			if v.pair != nil {
				k, words := v.pair, wordsOf(src)
				out := halvesOf(dst)[offset+panel*cols:]
				if valid == cols {
					k.Run(out, at, words, wordsOf(p.zero), taps, v.cSrc, wordsOf(w))
					continue
				}
				buf := halvesOf(p.scratch[worker])[:rows*cols]
				k.Run(buf, v.tight, words, wordsOf(p.zero), taps, v.cSrc, wordsOf(w))
				for r, o := range at {
					copy(out[o:][:valid], buf[r*cols:])
				}
				continue
			}
			k, out := v.tile, dst[offset+panel*cols:]
			if valid == cols {
				k.Run(out, at, src, p.zero, taps, v.cSrc, w, false)
				continue
			}
			buf := p.scratch[worker][:rows*cols]
			k.Run(buf, v.tight, src, p.zero, taps, v.cSrc, w, false)
			for r, o := range at {
				copy(out[o:][:valid], buf[r*cols:])
			}
		}
	}
}

// endTiles is how many tiles meet their epilogue at once: sums that have just been
// stored are slow to load.
const endTiles = 8

// runEnd computes tiles with an epilogue, from channel column, of which valid
// exist. offset is that of the group of images in dst.
func (v *convPass) runEnd(sums []float32, t *tileTable, tile, tileEnd int, src, w []float32, offset, column, valid int) {
	p, k := v.p, v.p.engine.kernels
	bias := v.end.biasOf(p, column, column+valid)
	at := t.dst[tile*v.rows : min(tileEnd*v.rows, t.pixels)] // each once: dst may be what is added
	for i := tile; i < tileEnd; i++ {
		taps, to := t.taps[t.first[i]:t.first[i+1]], sums[(i-tile)*v.rows*v.cols:]
		if v.pair != nil {
			v.pair.Sums(to, v.tight, wordsOf(src), wordsOf(p.zero), taps, v.cSrc, wordsOf(w), false)
		} else {
			v.tile.Run(to, v.tight, src, p.zero, taps, v.cSrc, w, false)
		}
	}
	if v.pair != nil {
		k.BF16.Epilogue(halvesOf(p.mem[v.dst])[offset+column:], sums, v.tight, at, v.end.addHalvesOf(p, offset+column), bias, v.end.before, v.end.after)
		return
	}
	k.Epilogue(p.mem[v.dst][offset+column:], sums, v.tight, at, v.end.addOf(p, offset+column), bias, v.end.before, v.end.after)
}

// changing reports whether weights are new in each run.
func (c *compiler) changing(weights *graph.Node) bool {
	return weights.Op != graph.OpVariable || c.updated[weights.Name]
}

// packed returns the slot of size weights, which pack fills in the given number of tasks. Packing
// is repeated only when the weights have changed, or the panels were overwritten
// (lasting); weights that this graph does not update keep their panels from run to
// run. pack multiplies them by scale,
// for each output channel, unless it is nil (fold.go).
func (c *compiler) packed(n *graph.Node, weights *graph.Node, layout string, size, tasks int, pack func(worker int, dst, w, scale []float32, task int)) slot {
	p := c.p
	src := c.widened(weights)
	name := "pack " + label(n)
	if c.changing(weights) {
		dst := c.temp(size, layout)
		c.step(name, tasks, func(worker, task int) { pack(worker, p.mem[dst], p.mem[src], nil, task) }, src, dst)
		return dst
	}
	dst := c.lasting(size, layout)
	if f := c.foldOf(n); f != nil && f.scale != noSlot {
		c.prepare(name, tasks, func(worker, task int) { pack(worker, p.mem[dst], p.mem[src], p.mem[f.scale], task) },
			weights, f.norm.Inputs[1], f.norm.Inputs[4]).from(src, f.scale).writes(dst)
		return dst
	}
	c.prepare(name, tasks, func(worker, task int) { pack(worker, p.mem[dst], p.mem[src], nil, task) }, weights).writes(dst)
	return dst
}

// scaleRows multiplies rows of the given length, whose first elements belong to
// the channels of scale.
func scaleRows(k *kernel.Kernels, rows []float32, length int, scale []float32) {
	for ; len(rows) >= len(scale) && len(scale) > 0; rows = rows[min(length, len(rows)):] {
		k.Mul(rows[:len(scale)], rows, scale)
	}
}

// panels returns layout and size of a matrix of k rows and n columns in panels
// [n/cols][k][cols], the order that the passes read weights in.
func (c *compiler) panels(k, n int) (layout string, size int) {
	cols := c.k.ConvTileFor(n).Cols
	count := (n + cols - 1) / cols
	return layoutOf("float32 panels", count, k, cols), count * k * cols
}

// packedRows packs a row-major matrix [k,n] in panels.
func (c *compiler) packedRows(n *graph.Node, weights *graph.Node, k, cols int) slot {
	const perTask, together = 64, 8 // rows; together share the lines that are read while these are near
	width := c.k.ConvTileFor(cols).Cols
	layout, size := c.panels(k, cols)
	return c.packed(n, weights, layout, size, (k+perTask-1)/perTask, func(_ int, dst, w, scale []float32, task int) {
		end := min((task+1)*perTask, k)
		for row := task * perTask; row < end; row += together {
			rows := min(together, end-row)
			for panel := 0; panel*width < cols; panel++ {
				to := dst[(panel*k+row)*width:][:rows*width]
				packPanel(c.k, width, to, w[row*cols:], cols, panel)
				if scale != nil {
					scaleRows(c.k, to, width, scale[panel*width:min((panel+1)*width, cols)])
				}
			}
		}
	})
}

// packPanel packs one panel of cols columns of a row-major matrix of n:
// dst[i*cols+j] = w[i*n+panel*cols+j], and 0 beyond the last column.
func packPanel(k *kernel.Kernels, cols int, dst, w []float32, n, panel int) {
	at := panel * cols
	if n-at >= cols {
		k.Pack(dst, w[at:], cols, n)
		return
	}
	for ; len(dst) > 0; dst, at = dst[cols:], at+n {
		clear(dst[copy(dst[:n-panel*cols], w[at:]):cols])
	}
}

// packedColumns packs the transposes of taps matrices [n,k] that follow
// each other in panels: row tap·k+i, column j of the result is w[tap,j,i].
func (c *compiler) packedColumns(n *graph.Node, weights *graph.Node, taps, cols, k int) slot {
	width := c.k.ConvTileFor(cols).Cols
	panels := (cols + width - 1) / width
	layout, size := c.panels(taps*k, cols)
	return c.packed(n, weights, layout, size, panels, func(_ int, dst, w, _ []float32, panel int) {
		packColumns(c.k, dst[panel*taps*k*width:][:taps*k*width], w, taps, cols, k, width, panel)
	})
}

// packColumns packs the transposes of taps matrices [n,k] that follow each
// other: panel[(tap*k+i)*cols+j] = w[tap,panel*cols+j,i].
func packColumns(kernels *kernel.Kernels, dst, w []float32, taps, n, k, cols, panel int) {
	rows := min(cols, n-panel*cols)
	for tap := range taps {
		out := dst[tap*k*cols:][:k*cols]
		if rows < cols {
			clear(out)
		}
		kernels.Transpose(out, w[(tap*n+panel*cols)*k:], rows, k, cols, k)
	}
}

// igemm notes the implementation of an operation for the record.
func (c *compiler) igemm(n *graph.Node) {
	t := c.k.ConvTiles[0]
	if strings.Contains(c.p.kernels[n.Op.String()], "winograd") {
		return // which says both
	}
	c.p.kernels[n.Op.String()] = fmt.Sprintf("float32 igemm %d×%d %v", t.Rows, t.Cols, c.k.Set)
}

// errTooLarge is returned before a table of that size is made.
var errTooLarge = errors.New("an image, a kernel or the taps of an image's pixels are more than 2³¹-1 elements, too many for this engine's offsets")

// checkImages returns an error if offsets within an image of these nodes do not fit.
func checkImages(nodes ...*graph.Node) error {
	for _, n := range nodes {
		if n.Shape.Elements()/n.Shape[0] > math.MaxInt32 {
			return errTooLarge
		}
	}
	return nil
}

// checkConv is checkImages for a convolution between x and y in any direction, whose
// tables have an offset for each tap of each pixel, and up to half as many words beside.
func checkConv(x, y *graph.Node, kh, kw int) error {
	if max(x.Shape[1]*x.Shape[2], y.Shape[1]*y.Shape[2]) > math.MaxInt32/2/(kh*kw) {
		return errTooLarge
	}
	return checkImages(x, y)
}

// convolution is what a pass, forward or backward by data, computes.
type convolution struct {
	images       int
	h, w, oh, ow int // pixels of source and destination
	cSrc, cDst   int
	backward     bool
	attrs        graph.ConvAttrs
}

// padding is what lies before the source of a 3×3 convolution of stride 1. Backward, its
// kernel is turned.
func (v *convolution) padding() (top, left int) {
	if v.backward {
		return 2 - v.attrs.Pad.Top, 2 - v.attrs.Pad.Left
	}
	return v.attrs.Pad.Top, v.attrs.Pad.Left
}

// pixels is the map of the pass for any kernel.
func (v *convolution) pixels(kh, kw int) pixelMap {
	if v.backward {
		return forwardPixels(v.oh, v.ow, v.h, v.w, kh, kw, v.attrs).inverse()
	}
	return forwardPixels(v.h, v.w, v.oh, v.ow, kh, kw, v.attrs)
}

// lowerConv appends the steps of OpConv, with what is folded into it, or of
// OpConvBackwardData.
func (c *compiler) lowerConv(n *graph.Node) error {
	from, w := n.Inputs[0], n.Inputs[1]
	v := convolution{
		images: n.Shape[0], h: from.Shape[1], w: from.Shape[2], oh: n.Shape[1], ow: n.Shape[2],
		cSrc: from.Shape[3], cDst: n.Shape[3], backward: n.Op == graph.OpConvBackwardData, attrs: n.Conv,
	}
	x, y := from, n
	if v.backward {
		x, y = n, from
	}
	kh, kw, ch, oc := w.Shape[0], w.Shape[1], w.Shape[2], w.Shape[3]
	if err := checkConv(x, y, kh, kw); err != nil {
		return err
	}
	out, f := n, c.foldOf(n)
	if f != nil {
		out = f.out
		c.overwrite(f, n)
	}
	name, end := f.name(n), c.epilogueOf(f)
	algorithm := c.algorithm(w.Shape, x.Shape, y.Shape, n.Conv, n.Op, c.changing(w))
	switch {
	case algorithm == byStride2:
		return c.lowerStride2(n, name, w, v, c.slotOf[from.ID], c.value(out), end)
	case algorithm == by4:
		steps := func(dst slot) error { return c.lowerWinograd4(n, name, w, v, c.slotOf[from.ID], dst, end) }
		if end != nil && c.half(end.add) { // then the result has to be
			return c.lowerHalf(out, steps)
		}
		return steps(c.value(out))
	case c.p.engine.bf16:
		var src slot
		src, v.cSrc = c.pairs(from)
		if algorithm != direct {
			wei, inTasks := c.winogradPairs(algorithm, n, w, v)
			return c.lowerHalf(out, func(dst slot) error {
				return c.lowerWinograd(algorithm, n, name, v, src, wei, inTasks, dst, end)
			})
		}
		m, pack := v.pixels(kh, kw), c.pairRows
		if v.backward {
			pack = c.pairColumns
		}
		wei := pack(n, w, kh*kw, ch, oc)
		return c.lowerHalf(out, func(dst slot) error { return c.lowerPairs(n, name, m, v.cSrc, v.cDst, src, wei, dst, end) })
	case algorithm == by2:
		pack := c.winogradRows
		if v.backward {
			pack = c.winogradColumns
		}
		return c.lowerWinograd(algorithm, n, name, v, c.slotOf[from.ID], pack(n, w, ch, oc), false, c.value(out), end)
	}
	c.igemm(n)
	var wei slot
	if v.backward {
		wei = c.packedColumns(n, w, kh*kw, ch, oc)
	} else {
		wei = c.packedRows(n, w, kh*kw*ch, oc)
	}
	return c.lowerPass(name, v.pixels(kh, kw), v.images, v.cSrc, v.cDst, c.slotOf[from.ID], wei, c.value(out), end)
}

// lowerMatMul turns op(a)·op(b) into a pass of one tap; a transposed a is
// transposed first.
func (c *compiler) lowerMatMul(n *graph.Node) error {
	a, b, p := n.Inputs[0], n.Inputs[1], c.p
	rows, cols := n.Shape[0], n.Shape[1]
	k := a.Shape[1]
	src := c.slotOf[a.ID]
	if n.MatMul.TransposeA {
		k = a.Shape[0]
		from := src
		src = c.temp(rows*k, layoutOf("float32", rows, k))
		c.step("transpose "+label(n), rows, func(_, row int) {
			dst, a := p.mem[src][row*k:][:k], p.mem[from]
			for i := range dst {
				dst[i] = a[i*rows+row]
			}
		}, from, src)
	}
	var wei slot
	if n.MatMul.TransposeB {
		wei = c.packedColumns(n, b, 1, cols, k)
	} else {
		wei = c.packedRows(n, b, k, cols)
	}
	c.igemm(n)
	m := pixelMap{dst: 1, src: 1, taps: 1, at: []int32{0}}
	out, f := n, c.foldOf(n)
	if f != nil {
		out = f.out
	}
	return c.lowerPass(f.name(n), m, rows, k, cols, src, wei, c.value(out), c.epilogueOf(f))
}
