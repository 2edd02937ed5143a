package cpu

import (
	"math"
	"slices"

	"github.com/residual-ml/residual/graph"
)

// In mixed precision the loops of a residual network have two shapes, however their
// nodes are put together: batch normalisation or its backward pass by data, forward
// with a shortcut and ReLU, and the sums that its backward pass needs, behind ReLU's.
// Step by step over a block, most of the time goes to copies in float32. So once a
// loop's instructions are known, those of either shape are joined to one, which reads
// and writes maps where they lie (kernel/norm.go) and rounds what it stores as they do.

// mapsInstr is what loopNormalise and loopGateSums need beside loopInstr.
type mapsInstr struct {
	maps               [5]slot // noSlot where not given; of loopNormalise dst, x, add; of loopGateSums g, d, more, y, x
	addScale, addShift slot
	low                float32
	products           int // as loopInstr.sums, which are those of t
}

// mapsJoiner joins instructions of a loop whose temporaries are not placed yet.
type mapsJoiner struct {
	b      *loopBuilder
	instrs []loopInstr
	def    []int   // by temporary: the instruction that makes it
	uses   [][]int // and those that read it
	joined []bool  // by instruction: another one does its work
}

// joinMaps joins what it can. Copies that are not read any more go too.
func (b *loopBuilder) joinMaps() {
	l := b.loop
	j := &mapsJoiner{b: b, instrs: l.instrs, def: make([]int, l.temps), uses: make([][]int, l.temps), joined: make([]bool, len(l.instrs))}
	for i, in := range l.instrs {
		if in.dst.temp {
			j.def[in.dst.index] = i
		}
		for _, at := range in.operands() {
			j.uses[at.index] = append(j.uses[at.index], i)
		}
	}
	var joins []loopInstr
	last := map[int][]loopInstr{} // what takes the place of an instruction
	for i, in := range l.instrs {
		switch {
		case in.op == loopNarrow && !j.joined[i]:
			joins = j.normalise(i)
		case in.op == loopChannelProducts && in.b.temp && !j.joined[i]:
			joins = j.gateSums(in.b.index)
		default:
			joins = nil
		}
		if len(joins) > 0 {
			last[i] = joins
		}
	}
	if len(last) == 0 {
		return
	}
	l.instrs = nil
	for i, in := range j.instrs {
		l.instrs = append(l.instrs, last[i]...)
		if !j.joined[i] && !(in.op == loopWiden && j.unread(in.dst)) {
			l.instrs = append(l.instrs, in)
		}
	}
}

// overwriteMaps lets what a joined instruction stores take the place of a map that
// nobody reads afterwards: memory that has just been read is written, and no other. So
// the gradient behind ReLU's gate overwrites the one before it, and a convolution's
// gradient its result.
func (b *loopBuilder) overwriteMaps(nodes []*graph.Node) {
	c := b.c
	reads := map[slot]int{} // by instructions of the loop
	for _, in := range b.loop.instrs {
		if in.maps == nil {
			for _, at := range []place{in.a, in.b} {
				if !at.temp {
					reads[slot(at.index)]++
				}
			}
			continue
		}
		for _, s := range in.maps.maps[1:] {
			reads[s]++
		}
	}
	for i := range b.loop.instrs {
		in := &b.loop.instrs[i]
		if in.maps == nil || in.maps.maps[0] == noSlot {
			continue
		}
		old := in.maps.maps[0]
		at := slices.IndexFunc(nodes, func(n *graph.Node) bool { return c.slotOf[n.ID] == old })
		if at < 0 || c.kept[nodes[at].ID] || c.buffers[old].first >= 0 {
			continue
		}
		candidates := in.maps.maps[1:3] // x or add, d or more
		for _, s := range candidates {
			if s == noSlot || reads[s] != 1 || c.buffers[s].size != c.buffers[old].size || !b.last(s, nodes) {
				continue
			}
			c.slotOf[nodes[at].ID], in.maps.maps[0] = s, s
			c.buffers[old].size = 0
			b.slots = slices.DeleteFunc(b.slots, func(other slot) bool { return other == old })
			break
		}
	}
}

// last reports whether only the loop of these nodes still reads a slot of the arena.
func (b *loopBuilder) last(s slot, nodes []*graph.Node) bool {
	c := b.c
	for _, n := range c.g.Nodes {
		if c.slotOf[n.ID] != s {
			continue
		}
		if c.kept[n.ID] {
			return false
		}
		for _, u := range c.users[n.ID] {
			if !c.lowered[u.ID] && !slices.Contains(nodes, u) {
				return false
			}
		}
	}
	return c.buffers[s].size > 0
}

// operands returns the temporaries that an instruction reads, each once.
func (in *loopInstr) operands() (at []place) {
	if in.a.temp {
		at = append(at, in.a)
	}
	if in.b.temp && (!in.a.temp || in.b != in.a) {
		at = append(at, in.b)
	}
	return at
}

func (j *mapsJoiner) unread(at place) bool {
	for _, i := range j.uses[at.index] {
		if !j.joined[i] {
			return false
		}
	}
	return true
}

// of returns the instruction that makes a temporary, and its number.
func (j *mapsJoiner) of(at place) (*loopInstr, int) {
	i := j.def[at.index]
	return &j.instrs[i], i
}

// mapOf returns the map whose copy a temporary is.
func (j *mapsJoiner) mapOf(at place) (slot, bool) {
	if at.temp {
		if in, _ := j.of(at); in.op == loopWiden {
			return slot(in.a.index), true
		}
	}
	return noSlot, false
}

// own reports whether nothing but one instruction reads a temporary.
func (j *mapsJoiner) own(at place) bool { return at.temp && len(j.uses[at.index]) == 1 }

// term returns a map and its factors if at is x·scale + shift, or a map alone.
func (j *mapsJoiner) term(at place, done *[]int) (x, scale, shift slot, ok bool) {
	if x, ok := j.mapOf(at); ok {
		return x, noSlot, noSlot, true
	}
	if !j.own(at) {
		return noSlot, noSlot, noSlot, false
	}
	in, i := j.of(at)
	if in.op != loopChannelScaleAdd {
		return noSlot, noSlot, noSlot, false
	}
	*done = append(*done, i)
	x, ok = j.mapOf(in.a)
	return x, in.scale, in.shift, ok
}

// normalise joins what leads to the map that instruction i stores, or returns nothing.
func (j *mapsJoiner) normalise(i int) []loopInstr {
	done := []int{i}
	at, low := j.instrs[i].a, float32(math.Inf(-1))
	if in, d := j.of(at); in.op == loopReLU && j.own(at) {
		at, low, done = in.a, 0, append(done, d)
	}
	if !j.own(at) {
		return nil
	}
	first, second := at, at
	in, d := j.of(at)
	adds := in.op == loopAdd
	if adds {
		first, second, done = in.a, in.b, append(done, d)
	}
	x, scale, shift, ok := j.term(first, &done)
	if !ok {
		return nil
	}
	add, addScale, addShift := noSlot, noSlot, noSlot
	if adds {
		if add, addScale, addShift, ok = j.term(second, &done); !ok {
			return nil
		}
		if scale == noSlot {
			x, scale, shift, add, addScale, addShift = add, addScale, addShift, x, noSlot, noSlot
		}
		if addScale == noSlot {
			addScale, addShift = j.b.constant(1), j.b.constant(0)
		}
	}
	if scale == noSlot {
		return nil
	}
	j.take(done)
	return []loopInstr{{op: loopNormalise, scale: scale, shift: shift, maps: &mapsInstr{
		maps: [5]slot{slot(j.instrs[i].dst.index), x, add, noSlot, noSlot}, addScale: addScale, addShift: addShift, low: low}}}
}

func (j *mapsJoiner) take(done []int) {
	for _, i := range done {
		j.joined[i] = true
	}
}

// gateSums joins the sums over the temporary t, what leads to it, and its store, or
// returns nothing. Two batch norms behind the same addition make two of each sum.
func (j *mapsJoiner) gateSums(t int) []loopInstr {
	w := mapsInstr{maps: [5]slot{noSlot, noSlot, noSlot, noSlot, noSlot}}
	var done []int
	d := place{temp: true, index: t}
	if in, i := j.of(d); in.op == loopGate {
		y, ok := j.mapOf(in.b)
		if !ok {
			return nil
		}
		w.maps[3], d, done = y, in.a, append(done, i)
		if _, isMap := j.mapOf(d); !isMap && !j.own(d) {
			return nil
		}
	}
	if !d.temp {
		return nil
	}
	if in, i := j.of(d); in.op == loopAdd {
		a, okA := j.mapOf(in.a)
		b, okB := j.mapOf(in.b)
		if !okA || !okB {
			return nil
		}
		w.maps[1], w.maps[2], done = a, b, append(done, i)
	} else if x, ok := j.mapOf(d); ok {
		w.maps[1] = x
	} else {
		return nil
	}
	var sums, products []*loopInstr
	for _, i := range j.uses[t] {
		in := &j.instrs[i]
		switch _, ok := j.mapOf(in.a); {
		case in.op == loopNarrow && w.maps[0] == noSlot:
			w.maps[0] = slot(in.dst.index)
		case in.op == loopChannelSum:
			sums = append(sums, in)
		case in.op == loopChannelProducts && ok && in.b.temp && in.b.index == t:
			products = append(products, in)
		default:
			return nil
		}
		done = append(done, i)
	}
	if len(sums) != len(products) {
		return nil
	}
	j.take(done)
	var joins []loopInstr
	for i, in := range products {
		next := w
		next.maps[4], _ = j.mapOf(in.a)
		next.products = in.sums
		if i > 0 {
			next.maps[0] = noSlot
		}
		joins = append(joins, loopInstr{op: loopGateSums, scale: in.scale, sums: sums[i].sums, lanes: in.lanes, maps: &next})
	}
	return joins
}

// mapElements is how many elements of maps go to a kernel at a time, or a row. Kernels
// keep what belongs to a channel in registers while they go down the rows, so lines of
// longer blocks are read in jumps, which a processor does not foresee: in a step of
// ResNet-50 a pass over maps took up to half as long again with 1,024.
const mapElements = 256

// runMaps runs loopNormalise or loopGateSums on the n elements from at on.
func (l *loop) runMaps(in *loopInstr, chunk, at, n int) {
	p, w := l.p, in.maps
	k := &p.engine.kernels.BF16
	var maps, part [5][]uint16
	for i, s := range w.maps {
		if s != noSlot {
			maps[i] = halvesOf(p.mem[s])[at : at+n]
		}
	}
	factors := p.mem[in.scale]
	step := max(mapElements/len(factors), 1) * len(factors)
	for first := 0; first < n; first += step {
		end := min(first+step, n)
		for i, m := range maps {
			if m != nil {
				part[i] = m[first:end]
			}
		}
		if in.op == loopGateSums {
			sums, products := p.partials[in.sums+chunk*in.lanes:], p.partials[w.products+chunk*in.lanes:]
			k.GateSums(part[0], part[1], part[2], part[3], part[4], factors, sums[:in.lanes], products[:in.lanes])
			continue
		}
		var addScale, addShift []float32
		if w.addScale != noSlot {
			addScale, addShift = p.mem[w.addScale], p.mem[w.addShift]
		}
		k.Normalise(part[0], part[1], factors, p.mem[in.shift], part[2], addScale, addShift, w.low)
	}
}
