package cpu

import (
	"fmt"
	"math"
	"strings"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// A loop runs a list of elementwise and per-channel instructions over a domain,
// block by block: intermediate values stay in blocks of scratch that fit the
// first cache, and only what others need is written to memory. An Adam update
// reads gradient, weight and two moments once and writes three of them once.
//
// Blocks are rows of the domain's last axis where an instruction works per
// channel, and plain runs of elements otherwise. Some blocks form a chunk, the
// unit of work. Sums are kept per chunk and combined in the order of the chunks.

const (
	blockElements = 1024 // a few operands of 4 KB stay in L1
	leastBlock    = 256  // of loops with many operands (settleBlocks)
	chunkBlocks   = 16   // at most, per chunk; of bfloat16, whose sums cost more beside the rest, four times as many
	wantChunks    = 32   // fewer blocks per chunk rather than fewer chunks than this
	sumLanes      = 16   // parallel sums of Sum and SumSquares
)

// loopNode reports whether a node becomes an instruction of a loop.
func (c *compiler) loopNode(n *graph.Node) bool {
	if c.folded[n.ID] {
		return false
	}
	switch n.Op {
	case graph.OpBias, graph.OpBatchNorm, graph.OpBatchNormBackwardData, graph.OpBroadcast:
		return true
	}
	return n.Op.Elementwise() || reduction(n)
}

// reduction reports whether a loop node sums over its domain. Its value exists
// only after the loop.
func reduction(n *graph.Node) bool {
	switch n.Op {
	case graph.OpSum, graph.OpSumSquares, graph.OpSumChannels, graph.OpBatchNormBackwardScale:
		return true
	case graph.OpBatchVariance:
		return varianceOf(n) == nil
	}
	return false
}

// domain is the shape a loop node runs over.
func domain(n *graph.Node) tensor.Shape {
	if reduction(n) {
		return n.Inputs[0].Shape
	}
	return n.Shape
}

// blockOperand reports whether operand i of a loop node is read element by
// element (scalars aside), and not as a vector of channels.
func blockOperand(n *graph.Node, i int) bool {
	switch n.Op {
	case graph.OpBias, graph.OpBatchNorm, graph.OpBatchVariance:
		return i == 0
	case graph.OpBatchNormBackwardData, graph.OpBatchNormBackwardScale:
		return i <= 1
	case graph.OpBroadcast:
		return false
	}
	return true
}

// sameLoop reports whether n can take operand i, in, from a block of the same loop.
func (c *compiler) sameLoop(in, n *graph.Node, i int) bool {
	return c.loopNode(n) && c.loopNode(in) && !reduction(in) && blockOperand(n, i) && in.Shape.Equal(domain(n))
}

// sameLoopOnly reports whether user reads n in no other way than sameLoop.
func (c *compiler) sameLoopOnly(n, user *graph.Node) bool {
	for i, in := range user.Inputs {
		if in == n && !c.sameLoop(n, user, i) {
			return false
		}
	}
	return true
}

type loopOp uint8

const (
	loopFill loopOp = iota // dst = scalar
	loopAdd
	loopSub
	loopMul
	loopDiv
	loopSqrt
	loopReLU
	loopGate
	loopAddScalar       // a + scalar
	loopSubScalar       // a - scalar
	loopScalarSub       // scalar - a
	loopMulScalar       // a · scalar
	loopChannelScaleAdd // a · scale + shift, per channel
	loopWiden           // a is bfloat16 in memory
	loopNarrow          // dst is bfloat16 in memory
	loopNormalise       // maps in memory (loop_maps.go)
	loopAdam            // an update (loop_adam.go)

	// Reductions add to the sums of the chunk.
	loopSum
	loopSumSquares
	loopChannelSum
	loopChannelSquares  // (a - mean)²
	loopChannelProducts // (a - mean)·b
	loopGateSums        // of maps in memory
)

// loopNames are what Plan calls the instructions.
var loopNames = [...]string{
	loopFill: "fill", loopAdd: "add", loopSub: "sub", loopMul: "mul", loopDiv: "div", loopSqrt: "sqrt", loopReLU: "relu", loopGate: "gate",
	loopAddScalar: "add", loopSubScalar: "sub", loopScalarSub: "sub", loopMulScalar: "mul", loopChannelScaleAdd: "scale-add",
	loopWiden: "widen", loopNarrow: "narrow", loopNormalise: "normalise", loopAdam: "adam", loopSum: "sum", loopSumSquares: "squares",
	loopChannelSum: "channel-sum", loopChannelSquares: "channel-squares", loopChannelProducts: "channel-products", loopGateSums: "gate-sums",
}

// kernel lists the instructions of a loop, after they were joined, and the elements of its
// blocks.
func (l *loop) kernel() string {
	var names []string
	for _, in := range l.instrs {
		names = append(names, loopNames[in.op])
	}
	return fmt.Sprintf("blocks of %d: %s", l.block, strings.Join(names, " "))
}

// reduces reports whether an instruction adds to sums and makes no value.
func (op loopOp) reduces() bool { return op >= loopSum }

// place says where a block operand lies: at the block's offset in a slot, or in
// a block of scratch.
type place struct {
	temp  bool
	index int // slot, or number of the temporary
}

type loopInstr struct {
	op     loopOp
	dst    place
	a, b   place
	scalar slot
	scale  slot // or mean
	shift  slot
	sums   int // reductions: offset in partials of the first chunk's sums
	lanes  int // reductions: sums per chunk
	maps   *mapsInstr
	adam   *adamInstr
}

// loop is a compiled loop.
type loop struct {
	p         *Program
	instrs    []loopInstr
	elements  int
	block     int // elements
	perChunk  int // blocks
	temps     int
	reduction bool
}

// lowerLoop appends the steps of a loop: the coefficients it needs, the loop,
// and the totals of its sums.
func (c *compiler) lowerLoop(nodes []*graph.Node) error {
	b := loopBuilder{c: c, loop: &loop{p: c.p}, group: map[*graph.Node]bool{}, at: map[*graph.Node]place{}}
	for _, n := range nodes {
		b.group[n] = true
	}
	if err := b.shape(nodes); err != nil {
		return err
	}
	name := fmt.Sprintf("loop of %d", len(nodes))
	for _, n := range nodes {
		b.node(n)
		for _, store := range b.stores {
			b.emit(store)
		}
		b.stores = b.stores[:0]
		name += " " + n.Op.String()
		c.p.kernels[n.Op.String()] = "fused loop " + c.k.Set.String()
	}
	if len(nodes) == 1 {
		name = label(nodes[0])
	} else if nodes[0].Name != "" {
		name += " " + nodes[0].Name
	}
	l := b.loop
	if len(l.instrs) == 0 {
		return nil // nothing but broadcasts that their readers take as scalars
	}
	if !c.p.engine.plain {
		b.joinMaps()
		b.overwriteMaps(nodes)
		b.joinAdam()
	}
	b.assignTemps()
	b.settleBlocks()
	c.p.loops = append(c.p.loops, l)
	c.needScratch(l.temps*l.block + kernel.AdamFactors)
	c.needPartials(b.partials)
	c.needChannels(l.block)
	c.step(name, l.chunks(), l.run, b.slots...).kernel = l.kernel()
	for _, finish := range b.totals {
		finish()
	}
	return nil
}

func (l *loop) chunks() int {
	span := l.block * l.perChunk
	return (l.elements + span - 1) / span
}

type loopBuilder struct {
	c        *compiler
	loop     *loop
	channels int // length of a row; 1 when nothing works per channel
	group    map[*graph.Node]bool
	at       map[*graph.Node]place
	slots    []slot // all that the loop reads and writes
	partials int
	totals   []func()
	stores   []loopInstr // of the node's results, rounded to bfloat16
}

// shape decides blocks and chunks.
func (b *loopBuilder) shape(nodes []*graph.Node) error {
	dom := domain(nodes[0])
	l := b.loop
	l.elements = dom.Elements()
	b.channels = 1
	for _, n := range nodes {
		switch n.Op {
		case graph.OpBias, graph.OpBatchNorm, graph.OpBatchNormBackwardData, graph.OpSumChannels, graph.OpBatchNormBackwardScale, graph.OpBatchVariance:
			if len(dom) == 0 {
				return fmt.Errorf("%v: a scalar has no channels", n)
			}
			b.channels = dom[len(dom)-1]
		}
	}
	l.block = max(1, blockElements/b.channels) * b.channels
	blocks := (l.elements + l.block - 1) / l.block
	most := chunkBlocks
	if b.c.p.engine.bf16 {
		most *= 4
	}
	l.perChunk = min(max(blocks/wantChunks, 1), most)
	return nil
}

// settleBlocks halves the blocks of a loop over elements that has many operands, so that
// all of them stay in the first cache: Adam's eight took 19.4 ms for ResNet-18 with blocks
// of 1,024, 16.1 with 512 and 14.9 with 256. Chunks stay as they are.
func (b *loopBuilder) settleBlocks() {
	l := b.loop
	operands := map[place]bool{}
	for _, in := range l.instrs {
		for _, at := range append(in.operands(), in.dst) {
			operands[at] = true
		}
	}
	for b.channels == 1 && l.block > leastBlock && l.block*len(operands) > blockElements*2 {
		l.block, l.perChunk = l.block/2, l.perChunk*2
	}
}

// use notes that the loop reads or writes a slot.
func (b *loopBuilder) use(s slot) slot {
	b.slots = append(b.slots, s)
	return s
}

// operand returns where a block operand lies, or the slot of a scalar.
func (b *loopBuilder) operand(n *graph.Node, i int) (at place, scalar slot) {
	in := n.Inputs[i]
	if in.Op == graph.OpBroadcast && in.Shape.Equal(domain(n)) {
		return place{}, b.use(b.c.slotOf[in.Inputs[0].ID])
	}
	if len(in.Shape) == 0 && len(domain(n)) != 0 {
		return place{}, b.use(b.c.slotOf[in.ID])
	}
	if at, ok := b.at[in]; ok {
		return at, noSlot
	}
	if s := b.c.slotOf[in.ID]; b.c.half(s) { // once, for all readers in the loop
		t := b.temp()
		b.emit(loopInstr{op: loopWiden, dst: t, a: place{index: int(b.use(s))}})
		b.at[in] = t
		return t, noSlot
	}
	return place{index: int(b.use(b.c.slotOf[in.ID]))}, noSlot
}

// vector is operand where a scalar is spread over a block first.
func (b *loopBuilder) vector(n *graph.Node, i int) place {
	at, scalar := b.operand(n, i)
	if scalar == noSlot {
		return at
	}
	t := b.temp()
	b.emit(loopInstr{op: loopFill, dst: t, scalar: scalar})
	return t
}

func (b *loopBuilder) temp() place {
	b.loop.temps++
	return place{temp: true, index: b.loop.temps - 1}
}

func (b *loopBuilder) emit(in loopInstr) { b.loop.instrs = append(b.loop.instrs, in) }

// result returns where the value of n goes: to memory when anyone outside the
// loop reads it, to a temporary otherwise.
func (b *loopBuilder) result(n *graph.Node) place {
	outside := b.c.kept[n.ID]
	for _, u := range b.c.users[n.ID] {
		if n.Op == graph.OpBroadcast && b.c.sameLoopOnly(n, u) {
			continue // read as a scalar wherever it is
		}
		outside = outside || !b.group[u] || !b.c.sameLoopOnly(n, u)
	}
	var at place
	switch {
	case outside && b.c.half(b.c.value(n)):
		at = b.temp()
		b.stores = append(b.stores, loopInstr{op: loopNarrow, dst: place{index: int(b.use(b.c.value(n)))}, a: at})
	case outside:
		at = place{index: int(b.use(b.c.value(n)))}
	default:
		at = b.temp()
	}
	b.at[n] = at
	return at
}

// node emits the instructions of one node.
func (b *loopBuilder) node(n *graph.Node) {
	in := b.c.inputsOf(n)
	switch n.Op {
	case graph.OpAdd, graph.OpMul:
		x, xs := b.operand(n, 0)
		y, ys := b.operand(n, 1)
		if xs != noSlot { // both commute
			x, xs, y, ys = y, ys, x, xs
		}
		if xs != noSlot { // both scalars
			x = b.vector(n, 0)
			_, ys = b.operand(n, 1)
		}
		vector, scalar := loopAdd, loopAddScalar
		if n.Op == graph.OpMul {
			vector, scalar = loopMul, loopMulScalar
		}
		if ys != noSlot {
			b.emit(loopInstr{op: scalar, dst: b.result(n), a: x, scalar: ys})
		} else {
			b.emit(loopInstr{op: vector, dst: b.result(n), a: x, b: y})
		}
	case graph.OpSub:
		_, xs := b.operand(n, 0)
		_, ys := b.operand(n, 1)
		switch {
		case ys != noSlot:
			x := b.vector(n, 0)
			b.emit(loopInstr{op: loopSubScalar, dst: b.result(n), a: x, scalar: ys})
		case xs != noSlot:
			y, _ := b.operand(n, 1)
			b.emit(loopInstr{op: loopScalarSub, dst: b.result(n), a: y, scalar: xs})
		default:
			b.binary(loopSub, n)
		}
	case graph.OpDiv:
		b.binary(loopDiv, n)
	case graph.OpReLUBackward:
		b.binary(loopGate, n)
	case graph.OpSqrt:
		x := b.vector(n, 0)
		b.emit(loopInstr{op: loopSqrt, dst: b.result(n), a: x})
	case graph.OpReLU:
		x := b.vector(n, 0)
		b.emit(loopInstr{op: loopReLU, dst: b.result(n), a: x})
	case graph.OpBroadcast:
		if at := b.result(n); !at.temp {
			b.emit(loopInstr{op: loopFill, dst: at, scalar: b.use(in[0])})
		}
	case graph.OpBias:
		x := b.vector(n, 0)
		scale := b.constant(1)
		b.emit(loopInstr{op: loopChannelScaleAdd, dst: b.result(n), a: x, scale: b.use(scale), shift: b.use(in[1])})
	case graph.OpBatchNorm:
		x := b.vector(n, 0)
		scale, shift := b.normCoefficients(n, in)
		b.emit(loopInstr{op: loopChannelScaleAdd, dst: b.result(n), a: x, scale: b.use(scale), shift: b.use(shift)})
	case graph.OpBatchNormBackwardData:
		b.normBackwardData(n, in)

	case graph.OpSum:
		b.reduce(n, loopInstr{op: loopSum, a: b.vector(n, 0)}, sumLanes, nil)
	case graph.OpSumSquares:
		b.reduce(n, loopInstr{op: loopSumSquares, a: b.vector(n, 0)}, sumLanes, nil)
	case graph.OpSumChannels:
		b.reduce(n, loopInstr{op: loopChannelSum, a: b.vector(n, 0)}, b.channels, nil)
	case graph.OpBatchVariance:
		count := float64(b.loop.elements / b.channels)
		b.reduce(n, loopInstr{op: loopChannelSquares, a: b.vector(n, 0), scale: b.use(in[1])}, b.channels,
			func(_ int, total float64) float64 { return total / count })
	case graph.OpBatchNormBackwardScale: // dγ = Σ dy·(x-mean)/√(variance+ε)
		p, variance := b.c.p, in[3]
		dy := b.vector(n, 0)
		x := b.vector(n, 1)
		b.reduce(n, loopInstr{op: loopChannelProducts, a: x, b: dy, scale: b.use(in[2])}, b.channels,
			func(j int, total float64) float64 {
				return total / math.Sqrt(float64(p.mem[variance][j])+n.Norm.Epsilon)
			}, variance)
	}
}

func (b *loopBuilder) binary(op loopOp, n *graph.Node) {
	x := b.vector(n, 0)
	y := b.vector(n, 1)
	b.emit(loopInstr{op: op, dst: b.result(n), a: x, b: y})
}

// channelVector returns the slot of per-channel coefficients that a serial step
// before the loop computes from the values in reads.
func (b *loopBuilder) channelVector(name string, n int, compute func(v []float32), reads ...slot) slot {
	p, s := b.c.p, b.c.tempVector(n)
	b.c.step(name+" coefficients", 1, func(_, _ int) { compute(p.mem[s]) }, append(reads, s)...).kernel = genericGo
	return s
}

// constant returns the slot of coefficients that are all v.
func (b *loopBuilder) constant(v float32) slot {
	data := make([]float32, b.channels)
	fill(data, v)
	return b.c.vector(data)
}

// normCoefficients: y = x·scale + shift is batch normalisation of x + bias, with
// scale = γ/√(variance+ε) and shift = β - (mean-bias)·scale. No bias is 0.
func normCoefficients(scale, shift, gamma, beta, mean, variance, bias []float32, eps float64) {
	for j := range scale {
		s, m := float64(gamma[j])/math.Sqrt(float64(variance[j])+eps), float64(mean[j])
		if bias != nil {
			m -= float64(bias[j])
		}
		scale[j], shift[j] = float32(s), float32(float64(beta[j])-m*s)
	}
}

// normCoefficients returns those of a node's batch normalisation.
func (b *loopBuilder) normCoefficients(n *graph.Node, in []slot) (scale, shift slot) {
	p, eps := b.c.p, n.Norm.Epsilon
	compute := func(scale []float32) {
		normCoefficients(scale, p.mem[shift], p.mem[in[1]], p.mem[in[2]], p.mem[in[3]], p.mem[in[4]], nil, eps)
	}
	if ofVariables(n) {
		scale, shift = b.constant(0), b.constant(0)
		b.c.prepare(label(n)+" coefficients", 1, func(_, _ int) { compute(p.mem[scale]) }, n.Inputs[1:]...).writes(scale, shift)
		return scale, shift
	}
	shift = b.c.tempVector(b.channels)
	scale = b.channelVector(label(n), b.channels, compute, in[1], in[2], in[3], in[4], shift)
	return scale, shift
}

// normBackwardData: dx = dy·a + x·b + k with a = γ/√(variance+ε) and, in
// training, b = -a·dγ/(M·√(variance+ε)), k = -a·dβ/M - mean·b.
func (b *loopBuilder) normBackwardData(n *graph.Node, in []slot) {
	p, eps := b.c.p, n.Norm.Epsilon
	zero := b.constant(0)
	if !n.Norm.Training {
		a := b.channelVector(label(n), b.channels, func(a []float32) {
			gamma, variance := p.mem[in[2]], p.mem[in[4]]
			for j := range a {
				a[j] = float32(float64(gamma[j]) / math.Sqrt(float64(variance[j])+eps))
			}
		}, in[2], in[4])
		dy := b.vector(n, 0)
		b.emit(loopInstr{op: loopChannelScaleAdd, dst: b.result(n), a: dy, scale: b.use(a), shift: b.use(zero)})
		return
	}
	m := float64(b.loop.elements / b.channels)
	ofX, shift := b.c.tempVector(b.channels), b.c.tempVector(b.channels)
	ofDy := b.channelVector(label(n), b.channels, func(ofDy []float32) {
		gamma, mean, variance, dGamma, dBeta := p.mem[in[2]], p.mem[in[3]], p.mem[in[4]], p.mem[in[5]], p.mem[in[6]]
		ofX, shift := p.mem[ofX], p.mem[shift]
		for j := range ofDy {
			inv := 1 / math.Sqrt(float64(variance[j])+eps)
			a := float64(gamma[j]) * inv
			bx := -a * float64(dGamma[j]) * inv / m
			ofDy[j], ofX[j] = float32(a), float32(bx)
			shift[j] = float32(-a*float64(dBeta[j])/m - float64(mean[j])*bx)
		}
	}, in[2], in[3], in[4], in[5], in[6], ofX, shift)
	dy := b.vector(n, 0)
	x := b.vector(n, 1)
	t, u := b.temp(), b.temp()
	b.emit(loopInstr{op: loopChannelScaleAdd, dst: t, a: x, scale: b.use(ofX), shift: b.use(shift)})
	b.emit(loopInstr{op: loopChannelScaleAdd, dst: u, a: dy, scale: b.use(ofDy), shift: b.use(zero)})
	b.emit(loopInstr{op: loopAdd, dst: b.result(n), a: t, b: u})
}

// reduce emits a reduction and the serial step after the loop that adds up the
// chunks, in float64 and in their order. Sums of more lanes than the node has
// elements are added up too. last is applied to each total.
func (b *loopBuilder) reduce(n *graph.Node, in loopInstr, lanes int, last func(j int, total float64) float64, reads ...slot) {
	in.sums, in.lanes = b.partials, lanes
	chunks := b.loop.chunks()
	b.partials += chunks * lanes
	b.loop.reduction = true
	b.emit(in)
	p, dst := b.c.p, b.c.value(n)
	b.totals = append(b.totals, func() {
		b.c.step(label(n)+" total", totalTasks(n.Shape.Elements()), func(_, task int) {
			out := p.mem[dst]
			sums := p.partials[in.sums:][:chunks*lanes]
			if len(out) < lanes { // a scalar of all lanes
				total := 0.0
				for _, v := range sums {
					total += float64(v)
				}
				if last != nil {
					total = last(0, total)
				}
				out[0] = float32(total)
				return
			}
			first := task * totalChannels
			end := min(first+totalChannels, lanes)
			var totals [totalChannels]float64
			for ; len(sums) > 0; sums = sums[lanes:] {
				for j, v := range sums[first:end] {
					totals[j] += float64(v)
				}
			}
			for j := range end - first {
				if last != nil {
					totals[j] = last(first+j, totals[j])
				}
				out[first+j] = float32(totals[j])
			}
		}, append(reads, dst)...)
	})
}

// totalChannels is how many channels' sums over the chunks one task adds up, chunk
// by chunk: as many as lie together in memory and keep all threads busy.
const totalChannels = 64

func totalTasks(channels int) int { return (channels + totalChannels - 1) / totalChannels }

// assignTemps lets temporaries share blocks of scratch once they are read for
// the last time.
func (b *loopBuilder) assignTemps() {
	l := b.loop
	lastUse := make([]int, l.temps)
	for i, in := range l.instrs {
		for _, at := range []place{in.dst, in.a, in.b} {
			if at.temp {
				lastUse[at.index] = i
			}
		}
	}
	var free []int // blocks of scratch
	blockOf := make([]int, l.temps)
	blocks := 0
	release := func(at place, now int) {
		if at.temp && lastUse[at.index] == now {
			free = append(free, blockOf[at.index])
			lastUse[at.index] = -1 // once, also when a and b are the same
		}
	}
	for i := range l.instrs {
		in := &l.instrs[i]
		release(in.a, i) // before dst is placed: kernels work in place
		release(in.b, i)
		for _, at := range []*place{&in.a, &in.b} {
			if at.temp {
				at.index = blockOf[at.index]
			}
		}
		if !in.dst.temp {
			continue
		}
		t := in.dst.index
		if n := len(free); n > 0 {
			blockOf[t], free = free[n-1], free[:n-1]
		} else {
			blockOf[t] = blocks
			blocks++
		}
		release(in.dst, i) // a value nobody reads
		in.dst.index = blockOf[t]
	}
	l.temps = blocks
}

// run computes one chunk.
func (l *loop) run(worker, chunk int) {
	p := l.p
	scratch := p.scratch[worker]
	if l.reduction {
		for i := range l.instrs {
			in := &l.instrs[i]
			clear(p.partials[in.sums+chunk*in.lanes:][:in.lanes])
			if in.op == loopGateSums {
				clear(p.partials[in.maps.products+chunk*in.lanes:][:in.lanes])
			}
		}
	}
	at := chunk * l.perChunk * l.block
	for end := min(at+l.perChunk*l.block, l.elements); at < end; at += l.block {
		n := min(l.block, end-at)
		for i := range l.instrs {
			l.exec(&l.instrs[i], scratch, chunk, at, n)
		}
	}
}

// blockOf returns the n elements of a block operand that starts at element at.
func (l *loop) blockOf(o place, scratch []float32, at, n int) []float32 {
	if o.temp {
		return scratch[o.index*l.block:][:n]
	}
	return l.p.mem[o.index][at : at+n]
}

// exec runs one instruction on one block.
func (l *loop) exec(in *loopInstr, scratch []float32, chunk, at, n int) {
	p, k := l.p, l.p.engine.kernels
	if in.maps != nil {
		l.runMaps(in, chunk, at, n)
		return
	}
	if in.op == loopFill {
		fill(l.blockOf(in.dst, scratch, at, n), p.mem[in.scalar][0])
		return
	}
	if in.op == loopWiden {
		k.BF16.Widen(l.blockOf(in.dst, scratch, at, n), halvesOf(p.mem[in.a.index])[at:])
		return
	}
	a := l.blockOf(in.a, scratch, at, n)
	if in.op == loopNarrow {
		k.BF16.Narrow(halvesOf(p.mem[in.dst.index])[at:at+n], a)
		return
	}
	switch in.op {
	case loopSum, loopSumSquares:
		sums := p.partials[in.sums+chunk*sumLanes:][:sumLanes]
		whole := n / sumLanes * sumLanes
		if in.op == loopSum {
			k.ChannelSum(sums, a[:whole])
			for j, v := range a[whole:] {
				sums[j] += v
			}
			return
		}
		k.ChannelSquares(sums, a[:whole], p.zero[:sumLanes])
		for j, v := range a[whole:] {
			sums[j] += v * v
		}
		return
	case loopChannelSum:
		k.ChannelSum(p.partials[in.sums+chunk*in.lanes:][:in.lanes], a)
		return
	case loopChannelSquares:
		k.ChannelSquares(p.partials[in.sums+chunk*in.lanes:][:in.lanes], a, p.mem[in.scale])
		return
	case loopChannelProducts:
		k.ChannelProducts(p.partials[in.sums+chunk*in.lanes:][:in.lanes], a, p.mem[in.scale], l.blockOf(in.b, scratch, at, n))
		return
	}
	if in.op == loopAdam {
		l.runAdam(in.adam, a, scratch, at)
		return
	}
	dst := l.blockOf(in.dst, scratch, at, n)
	switch in.op {
	case loopAdd:
		k.Add(dst, a, l.blockOf(in.b, scratch, at, n))
	case loopSub:
		k.Sub(dst, a, l.blockOf(in.b, scratch, at, n))
	case loopMul:
		k.Mul(dst, a, l.blockOf(in.b, scratch, at, n))
	case loopDiv:
		k.Div(dst, a, l.blockOf(in.b, scratch, at, n))
	case loopSqrt:
		k.Sqrt(dst, a)
	case loopReLU:
		k.Max(dst, p.zero, a) // the bound first, so that NaN stays NaN
	case loopGate:
		k.Gate(dst, a, l.blockOf(in.b, scratch, at, n))
	case loopAddScalar:
		k.ScaleAdd(dst, a, 1, p.mem[in.scalar][0])
	case loopSubScalar:
		k.ScaleAdd(dst, a, 1, -p.mem[in.scalar][0])
	case loopScalarSub:
		k.ScaleAdd(dst, a, -1, p.mem[in.scalar][0])
	case loopMulScalar:
		k.ScaleAdd(dst, a, p.mem[in.scalar][0], 0)
	case loopChannelScaleAdd:
		k.ChannelScaleAdd(dst, a, p.mem[in.scale], p.mem[in.shift])
	}
}

func fill(v []float32, x float32) {
	for i := range v {
		v[i] = x
	}
}
