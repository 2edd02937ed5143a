package cpu

import (
	"math"
	"slices"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
)

// The loops of a residual network have two shapes, however their nodes are put
// together: batch normalisation or its backward pass by data, forward with a shortcut
// and ReLU, and the sums that its backward pass needs, behind ReLU's. Step by step over
// a block, most of the time goes to operands in scratch, in mixed precision to copies in
// float32. So once a loop's instructions are known, those of either shape are joined to
// one, which reads and writes maps where they lie (kernel/norm.go) and rounds what it
// stores as they do.

// mapsInstr is what loopNormalise and loopGateSums need beside loopInstr.
type mapsInstr struct {
	maps               [5]slot // noSlot where not given; of loopNormalise dst, x, add; of loopGateSums g, d, more, y, x
	addScale, addShift slot
	low                float32
	products           int  // as loopInstr.sums, which are those of t
	half               bool // maps are bfloat16
}

var noMaps = [5]slot{noSlot, noSlot, noSlot, noSlot, noSlot}

// mapsJoiner joins instructions of a loop whose temporaries are not placed yet.
type mapsJoiner struct {
	b      *loopBuilder
	instrs []loopInstr
	values map[place]*mapsValue
	joined []bool // by instruction: another one does its work
}

// mapsValue is what a block operand holds: a temporary, a map, or what an instruction
// stores.
type mapsValue struct {
	def   int   // the instruction that makes it; -1 for a map
	uses  []int // those that read it
	store slot  // the map that it goes to
	last  int   // the instruction that stores it there
}

// joinMaps joins what it can. Copies that are not read any more go too.
func (b *loopBuilder) joinMaps() {
	l := b.loop
	j := &mapsJoiner{b: b, instrs: l.instrs, values: map[place]*mapsValue{}, joined: make([]bool, len(l.instrs))}
	for i, in := range l.instrs {
		for _, at := range in.operands() {
			if j.values[at] == nil {
				j.values[at] = &mapsValue{def: -1, store: noSlot}
			}
			if in.op != loopNarrow {
				j.values[at].uses = append(j.values[at].uses, i)
			}
		}
		switch {
		case in.op == loopNarrow:
			v := j.values[in.a]
			v.store, v.last = slot(in.dst.index), i
		case !in.op.reduces():
			v := &mapsValue{def: i, store: noSlot, last: i}
			if !in.dst.temp {
				v.store = slot(in.dst.index)
			}
			j.values[in.dst] = v
		}
	}
	last := map[int][]loopInstr{} // what takes the place of an instruction
	for i, in := range l.instrs {
		var joins []loopInstr
		switch {
		case j.joined[i]:
		case in.op == loopChannelProducts:
			joins = j.gateSums(in.b)
		case in.op == loopNarrow:
			joins = j.normalise(in.a)
		case !in.op.reduces() && !in.dst.temp:
			joins = j.normalise(in.dst)
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
			for _, at := range in.operands() {
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

// operands returns the block operands that an instruction reads, each once.
func (in *loopInstr) operands() []place {
	switch in.op {
	case loopFill:
		return nil
	case loopAdd, loopSub, loopMul, loopDiv, loopGate, loopChannelProducts:
		if in.b != in.a {
			return []place{in.a, in.b}
		}
	}
	return []place{in.a}
}

// unread reports whether joined instructions do all that is done with a value.
func (j *mapsJoiner) unread(at place) bool {
	v := j.values[at]
	for _, i := range v.uses {
		if !j.joined[i] {
			return false
		}
	}
	return v.store == noSlot || j.joined[v.last]
}

// made returns the instruction that makes a value, and its number, if it is of that kind.
func (j *mapsJoiner) made(at place, op loopOp) (*loopInstr, int) {
	if v := j.values[at]; v.def >= 0 && j.instrs[v.def].op == op {
		return &j.instrs[v.def], v.def
	}
	return nil, -1
}

// mapOf returns the map that a value is, or is the copy of.
func (j *mapsJoiner) mapOf(at place) (slot, bool) {
	if in, _ := j.made(at, loopWiden); in != nil {
		return slot(in.a.index), true
	}
	return slot(at.index), !at.temp && j.values[at].def < 0
}

// own reports whether nothing but one instruction, or none but memory, gets a value.
func (j *mapsJoiner) own(at place) bool {
	v := j.values[at]
	if v.store != noSlot {
		return len(v.uses) == 0
	}
	return len(v.uses) == 1
}

// term returns a map and its factors if at is x·scale + shift, or a map alone.
func (j *mapsJoiner) term(at place, done *[]int) (x, scale, shift slot, ok bool) {
	if x, ok := j.mapOf(at); ok {
		return x, noSlot, noSlot, true
	}
	in, i := j.made(at, loopChannelScaleAdd)
	if in == nil || !j.own(at) {
		return noSlot, noSlot, noSlot, false
	}
	*done = append(*done, i)
	x, ok = j.mapOf(in.a)
	return x, in.scale, in.shift, ok
}

// normalise joins what leads to the map that a value is stored in, or returns nothing.
func (j *mapsJoiner) normalise(at place) []loopInstr {
	if !j.own(at) {
		return nil
	}
	w := mapsInstr{maps: noMaps, addScale: noSlot, addShift: noSlot, low: float32(math.Inf(-1))}
	w.maps[0] = j.values[at].store
	done := []int{j.values[at].last}
	if in, d := j.made(at, loopReLU); in != nil {
		if !j.own(in.a) {
			return nil
		}
		at, w.low, done = in.a, 0, append(done, d)
	}
	first, second := at, at
	in, d := j.made(at, loopAdd)
	adds := in != nil
	if adds {
		first, second, done = in.a, in.b, append(done, d)
	}
	x, scale, shift, ok := j.term(first, &done)
	if !ok {
		return nil
	}
	if adds {
		if w.maps[2], w.addScale, w.addShift, ok = j.term(second, &done); !ok {
			return nil
		}
		if scale == noSlot {
			x, scale, shift, w.maps[2], w.addScale, w.addShift = w.maps[2], w.addScale, w.addShift, x, noSlot, noSlot
		}
		if w.addScale == noSlot {
			w.addScale, w.addShift = j.b.constant(1), j.b.constant(0)
		}
	}
	w.maps[1] = x
	if scale == noSlot || !j.take(&w, done) {
		return nil
	}
	return []loopInstr{{op: loopNormalise, scale: scale, shift: shift, maps: &w}}
}

// take marks instructions as joined, if the maps are of one type.
func (j *mapsJoiner) take(w *mapsInstr, done []int) bool {
	w.half = j.b.c.half(w.maps[1])
	for _, s := range w.maps {
		if s != noSlot && j.b.c.half(s) != w.half {
			return false
		}
	}
	for _, i := range done {
		j.joined[i] = true
	}
	return true
}

// gateSums joins the sums over a value, what leads to it, and its store, or returns
// nothing. Two batch norms behind the same addition make two of each sum.
func (j *mapsJoiner) gateSums(t place) []loopInstr {
	w := mapsInstr{maps: noMaps}
	w.maps[0] = j.values[t].store
	var done []int
	if w.maps[0] != noSlot {
		done = append(done, j.values[t].last)
	}
	var ok bool
	d := t
	if in, i := j.made(d, loopGate); in != nil {
		if w.maps[3], ok = j.mapOf(in.b); !ok {
			return nil
		}
		d, done = in.a, append(done, i)
		if _, isMap := j.mapOf(d); !isMap && !j.own(d) {
			return nil
		}
	}
	if in, i := j.made(d, loopAdd); in != nil {
		a, okA := j.mapOf(in.a)
		b, okB := j.mapOf(in.b)
		if !okA || !okB {
			return nil
		}
		w.maps[1], w.maps[2], done = a, b, append(done, i)
	} else if w.maps[1], ok = j.mapOf(d); !ok {
		return nil
	}
	var sums, products []*loopInstr
	for _, i := range j.values[t].uses {
		in := &j.instrs[i]
		switch {
		case in.op == loopChannelSum:
			sums = append(sums, in)
		case in.op == loopChannelProducts && in.b == t:
			if w.maps[4], ok = j.mapOf(in.a); !ok {
				return nil
			}
			products = append(products, in)
		default:
			return nil
		}
		done = append(done, i)
	}
	if len(sums) != len(products) || !j.take(&w, done) {
		return nil
	}
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

// runMaps runs loopNormalise or loopGateSums on the n elements from at on.
func (l *loop) runMaps(in *loopInstr, chunk, at, n int) {
	k := l.p.engine.kernels
	if in.maps.half {
		runMaps(l, in, &k.BF16.Norm, halvesOf, chunk, at, n)
	} else {
		runMaps(l, in, &k.Norm, floatsOf, chunk, at, n)
	}
}

func floatsOf(s []float32) []float32 { return s }

// runMaps is the method for maps of one type, which of makes of a slot's memory.
func runMaps[T kernel.Number](l *loop, in *loopInstr, k *kernel.Norm[T], of func([]float32) []T, chunk, at, n int) {
	p, w := l.p, in.maps
	var maps [5][]T
	for i, s := range w.maps {
		if s != noSlot {
			maps[i] = of(p.mem[s])[at : at+n]
		}
	}
	if in.op == loopGateSums {
		sums, products := p.partials[in.sums+chunk*in.lanes:], p.partials[w.products+chunk*in.lanes:]
		k.GateSums(maps[0], maps[1], maps[2], maps[3], maps[4], p.mem[in.scale], sums[:in.lanes], products[:in.lanes])
		return
	}
	var addScale, addShift []float32
	if w.addScale != noSlot {
		addScale, addShift = p.mem[w.addScale], p.mem[w.addShift]
	}
	k.Normalise(maps[0], maps[1], p.mem[in.scale], p.mem[in.shift], maps[2], addScale, addShift, w.low)
}
