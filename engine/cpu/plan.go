package cpu

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// compiler holds what is known while a graph becomes a Program.
type compiler struct {
	p       *Program
	k       *kernel.Kernels
	g       *graph.Graph
	slotOf  []slot          // by node ID; noSlot until the node has memory
	users   [][]*graph.Node // by node ID
	updated map[string]bool // variables that this graph updates
	kept    []bool          // by node ID: an output, update or the guard needs it
	late    []bool          // by node ID: only updates need it (update.go)
	buffers []buffer        // by slot; size 0 for slots that are not in the arena
	maps    []bool          // by node ID: its value is kept as bfloat16 (bf16.go)
	wide    map[int]slot    // float32 copies of such values
	paired  map[int]slot    // copies of values in bfloat16, by node ID
	folds   []*fold         // by ID of a convolution (fold.go)
	folded  []bool          // by node ID: it is in a fold
	lowered []bool          // by node ID: its steps exist
	trains  bool            // the engine trains: variables change

	scratch, partials, channels int // largest needs so far
}

// buffer is a value in the arena, needed from step first to step last. half says
// that it is bfloat16, two numbers in each element. It is the value of node, or layout
// says what it is.
type buffer struct {
	size, first, last, offset int
	half                      bool
	node                      *graph.Node
	layout                    string
}

func compile(e *Engine, g *graph.Graph, store *variables, trains bool) (*Program, error) {
	p := &Program{engine: e, graph: g, vars: store, guard: noSlot, kernels: map[string]string{}}
	c := &compiler{
		p: p, k: e.kernels, g: g, trains: trains,
		slotOf:  make([]slot, len(g.Nodes)),
		users:   make([][]*graph.Node, len(g.Nodes)),
		kept:    make([]bool, len(g.Nodes)),
		lowered: make([]bool, len(g.Nodes)),
		updated: map[string]bool{},
		wide:    map[int]slot{},
		paired:  map[int]slot{},
	}
	for i, n := range g.Nodes {
		c.slotOf[i] = noSlot
		for _, in := range n.Inputs {
			c.users[in.ID] = append(c.users[in.ID], n)
		}
	}
	if err := c.sources(store); err != nil {
		return nil, err
	}
	if err := c.updates(); err != nil {
		return nil, err
	}
	copies, err := c.results()
	if err != nil {
		return nil, err
	}
	c.findMaps()
	c.findFolds()
	c.findLate()
	units := c.units()
	early := len(units)
	for early > 0 && units[early-1].late {
		early--
	}
	c.updateInPlace(units[early:])
	for _, u := range units[:early] {
		if err := c.lower(u); err != nil {
			return nil, err
		}
		for _, n := range u.nodes {
			c.lowered[n.ID] = true
		}
	}
	for _, cp := range copies {
		c.buffers[cp.dst].node = cp.src
		c.copyStep("copy", cp.dst, c.slotOf[cp.src.ID], cp.src.Shape.Elements())
	}
	if err := c.commit(units[early:]); err != nil {
		return nil, err
	}
	c.place()
	c.finish(copies)
	return p, nil
}

// sources gives slots to inputs, variables and constants.
func (c *compiler) sources(store *variables) error {
	p := c.p
	p.ints = make([][]int32, len(c.g.Inputs))
	p.inputs = make([]slot, len(c.g.Inputs))
	for i, n := range c.g.Inputs {
		p.inputs[i] = noSlot
		if n.Kind == graph.Real {
			p.inputs[i] = c.fixed(nil)
			c.slotOf[n.ID] = p.inputs[i]
			c.buffers[p.inputs[i]].node = n
		}
	}
	for _, n := range c.g.Variables {
		v, err := store.open(n.Name, n.Shape)
		if err != nil {
			return err
		}
		s := c.fixed(v.data)
		c.slotOf[n.ID] = s
		c.buffers[s].node = n
		p.bindings = append(p.bindings, binding{v, s})
	}
	for _, n := range c.g.Nodes {
		switch {
		case n.Op == graph.OpConstant:
			if math.IsNaN(n.Value) {
				return fmt.Errorf("%v: constant is NaN", n)
			}
			c.slotOf[n.ID] = c.fixed([]float32{float32(n.Value)})
		case c.slotOf[n.ID] == noSlot && (n.Op == graph.OpInput && n.Kind == graph.Real || n.Op == graph.OpVariable):
			return fmt.Errorf("%v is not listed in its graph", n)
		}
	}
	return nil
}

// result is an output that is copied, because its node's memory is not the
// program's own, or handed out already.
type result struct {
	src    *graph.Node
	dst    slot
	output int // index in Outputs
}

// results gives outputs memory of their own, which other programs leave alone.
func (c *compiler) results() ([]result, error) {
	var copies []result
	for i, n := range c.g.Outputs {
		if n.Kind != graph.Real {
			return nil, fmt.Errorf("output %v is an integer value, which this engine does not return", n)
		}
		c.kept[n.ID] = true
		s := c.fixed(allocate(n.Shape.Elements()))
		if c.slotOf[n.ID] == noSlot {
			c.slotOf[n.ID] = s
			c.buffers[s].node = n
		} else {
			copies = append(copies, result{n, s, i})
		}
	}
	if c.g.Guard != nil {
		c.kept[c.g.Guard.ID] = true
	}
	return copies, nil
}

// fixed returns a slot outside the arena; nil data is set at the start of a run.
func (c *compiler) fixed(data []float32) slot {
	c.p.mem = append(c.p.mem, data)
	c.buffers = append(c.buffers, buffer{})
	return slot(len(c.p.mem) - 1)
}

// temp returns a slot of size elements in the arena, which lives from the first
// to the last step that names it.
func (c *compiler) temp(size int, layout string) slot {
	s := c.fixed(nil)
	c.buffers[s] = buffer{size: size, first: -1, layout: layout}
	return s
}

// vector is fixed for numbers of each channel.
func (c *compiler) vector(data []float32) slot {
	s := c.fixed(data)
	c.buffers[s].layout = layoutOf("float32", len(data))
	return s
}

// tempVector is temp for numbers of each of n channels.
func (c *compiler) tempVector(n int) slot { return c.temp(n, layoutOf("float32", n)) }

// tempOf is temp for a value of the node's shape in float32.
func (c *compiler) tempOf(n *graph.Node) slot {
	s := c.temp(n.Shape.Elements(), "")
	c.buffers[s].node = n
	return s
}

// halfOf is tempOf in bfloat16.
func (c *compiler) halfOf(n *graph.Node) slot {
	s := c.tempHalf(n.Shape.Elements(), "")
	c.buffers[s].node = n
	return s
}

// value returns the slot of a node's output, made on first use.
func (c *compiler) value(n *graph.Node) slot {
	if c.slotOf[n.ID] == noSlot {
		if c.maps[n.ID] {
			c.slotOf[n.ID] = c.halfOf(n)
		} else {
			c.slotOf[n.ID] = c.tempOf(n)
		}
	}
	return c.slotOf[n.ID]
}

// inputsOf returns the slots of a node's operands.
func (c *compiler) inputsOf(n *graph.Node) []slot {
	s := make([]slot, len(n.Inputs))
	for i, in := range n.Inputs {
		s[i] = c.slotOf[in.ID]
	}
	return s
}

// step appends a step. slots are all values that it reads or writes. The kernel of what
// it returns may be set before the next one is appended.
func (c *compiler) step(name string, tasks int, body func(worker, task int), slots ...slot) *step {
	now := len(c.p.steps)
	next := step{name: name, tasks: tasks, body: body}
	for _, s := range slots {
		if s == noSlot || slices.Contains(next.slots, s) {
			continue
		}
		next.slots = append(next.slots, s)
		b := &c.buffers[s]
		if b.first < 0 {
			b.first = now
			next.makes = append(next.makes, made{slot: s})
		}
		b.last = max(b.last, now)
	}
	c.p.steps = append(c.p.steps, next)
	return &c.p.steps[now]
}

// keep makes a value live to the end of the run.
func (c *compiler) keep(s slot) { c.buffers[s].last = math.MaxInt }

func (c *compiler) needScratch(floats int)  { c.scratch = max(c.scratch, floats) }
func (c *compiler) needPartials(floats int) { c.partials = max(c.partials, floats) }
func (c *compiler) needChannels(n int)      { c.channels = max(c.channels, n) }

// label names a step after its node, such as "conv layer1.0.conv1".
func label(n *graph.Node) string {
	if n.Name == "" {
		return n.Op.String()
	}
	return n.Op.String() + " " + n.Name
}

func (c *compiler) copyStep(name string, dst, src slot, n int) {
	const perTask = 16 << 10
	p := c.p
	c.step(name, (n+perTask-1)/perTask, func(_, task int) {
		first, end := task*perTask, min((task+1)*perTask, n)
		copy(p.mem[dst][first:end], p.mem[src][first:])
	}, dst, src).writes(dst)
}

// place gives every arena buffer an offset such that buffers that live at the
// same time do not overlap: largest first, each at the lowest gap that fits.
func (c *compiler) place() {
	const align = 16 // elements: a cache line
	var order []slot
	for s := range c.buffers {
		if c.buffers[s].size > 0 {
			order = append(order, slot(s))
		}
	}
	slices.SortStableFunc(order, func(a, b slot) int { return cmp.Compare(c.buffers[b].size, c.buffers[a].size) })
	var placed []*buffer // by offset
	total := 0
	for _, s := range order {
		b := &c.buffers[s]
		size := (b.size + align - 1) / align * align
		at := 0
		for _, o := range placed {
			if o.last < b.first || b.last < o.first {
				continue
			}
			if o.offset-at >= size {
				break
			}
			at = max(at, o.offset+(o.size+align-1)/align*align)
		}
		b.offset = at
		total = max(total, at+size)
		i, _ := slices.BinarySearchFunc(placed, at, func(o *buffer, at int) int { return cmp.Compare(o.offset, at) })
		placed = slices.Insert(placed, i, b)
	}
	c.p.need.arena = total
	for _, s := range order {
		c.p.placed = append(c.p.placed, placement{s, c.buffers[s].offset, c.buffers[s].size})
	}
}

// unit is what is lowered together: one node, a convolution with what is folded
// into it, a batch's mean with its variance, or a loop of fused nodes.
type unit struct {
	nodes []*graph.Node // in graph order
	loop  bool
	late  bool
	order int // among the units that are ready
	needs int // units not lowered yet
	feeds []*unit
}

// units groups the nodes and orders the groups.
//
// Each node has a level, such that along an edge from a to b the level grows, or
// stays and a and b belong to the same loop. A loop is a set of nodes of one
// domain (the shape it runs over) and one level that are connected, by edges or
// by reading the same value. Levels make the groups free of cycles, and leave
// convolutions with what is folded into them so: only their last value is read.
// Loops of late nodes have no others in them; they come last.
func (c *compiler) units() []*unit {
	nodes := c.g.Nodes
	sameLoop := func(in, n *graph.Node, i int) bool { return c.late[in.ID] == c.late[n.ID] && c.sameLoop(in, n, i) }
	level := make([]int, len(nodes))
	for _, n := range nodes {
		for i, in := range n.Inputs {
			if sameLoop(in, n, i) {
				level[n.ID] = max(level[n.ID], level[in.ID])
			} else {
				level[n.ID] = max(level[n.ID], level[in.ID]+1)
			}
		}
		if pair := varianceOf(n); pair != nil {
			level[n.ID] = level[pair.ID]
		}
	}
	// A node that only loops of its own domain read moves down to the first of
	// them, so that its value need not go through memory.
	for i := len(nodes) - 1; i >= 0; i-- {
		n := nodes[i]
		if !c.loopNode(n) || reduction(n) || c.kept[i] || len(c.users[i]) == 0 {
			continue
		}
		lowest := math.MaxInt
		for _, u := range c.users[i] {
			if c.late[n.ID] != c.late[u.ID] || !c.sameLoopOnly(n, u) {
				lowest = level[i]
				break
			}
			lowest = min(lowest, level[u.ID])
		}
		level[i] = lowest
	}

	// Join connected nodes (union-find; root is the lowest ID).
	parent := make([]int, len(nodes))
	for i := range parent {
		parent[i] = i
	}
	var root func(i int) int
	root = func(i int) int {
		if parent[i] != i {
			parent[i] = root(parent[i])
		}
		return parent[i]
	}
	join := func(a, b int) {
		a, b = root(a), root(b)
		parent[max(a, b)] = min(a, b)
	}
	type reading struct {
		value, level int
		late         bool
	}
	reader := map[reading]int{}
	for _, n := range nodes {
		if pair := varianceOf(n); pair != nil {
			join(n.ID, pair.ID)
		}
		if f := c.folds[n.ID]; f != nil {
			for _, m := range f.nodes {
				join(n.ID, m.ID)
			}
		}
		if !c.loopNode(n) {
			continue
		}
		for i, in := range n.Inputs {
			if sameLoop(in, n, i) && level[in.ID] == level[n.ID] {
				join(in.ID, n.ID)
			} else if in.Shape.Equal(domain(n)) {
				r := reading{in.ID, level[n.ID], c.late[n.ID]}
				if other, ok := reader[r]; ok {
					join(other, n.ID)
				} else {
					reader[r] = n.ID
				}
			}
		}
	}

	byRoot := make([]*unit, len(nodes))
	for _, n := range nodes {
		if n.Op == graph.OpInput || n.Op == graph.OpVariable || n.Op == graph.OpConstant {
			continue
		}
		r := root(n.ID)
		if byRoot[r] == nil {
			byRoot[r] = &unit{loop: c.loopNode(n), late: c.late[n.ID]}
		}
		byRoot[r].nodes = append(byRoot[r].nodes, n)
	}
	for i := range nodes {
		u := byRoot[root(i)]
		if u == nil {
			continue
		}
		for _, in := range nodes[i].Inputs {
			if from := byRoot[root(in.ID)]; from != nil && from != u {
				from.feeds = append(from.feeds, u)
				u.needs++
			}
		}
	}

	// Kahn's order; of those ready, the one whose last node comes first in the graph,
	// and a late one only when there are no others. Sums come right after what they
	// are of, while that is in a cache: the guard has one of each gradient.
	for i, u := range byRoot {
		if u == nil || root(i) != i {
			continue
		}
		scalars := true
		for _, n := range u.nodes {
			scalars = scalars && reduction(n) && len(n.Shape) == 0
			u.order = n.ID
		}
		if scalars {
			u.order = u.nodes[0].Inputs[0].ID
		}
	}
	var ready unitHeap
	for i, u := range byRoot {
		if u != nil && root(i) == i && u.needs == 0 {
			heap.Push(&ready, u)
		}
	}
	var ordered []*unit
	for len(ready) > 0 {
		u := heap.Pop(&ready).(*unit)
		ordered = append(ordered, u)
		for _, f := range u.feeds {
			if f.needs--; f.needs == 0 {
				heap.Push(&ready, f)
			}
		}
	}
	return ordered
}

type unitHeap []*unit

func (h unitHeap) Len() int { return len(h) }
func (h unitHeap) Less(i, j int) bool {
	if h[i].late != h[j].late {
		return h[j].late
	}
	return h[i].order < h[j].order
}
func (h unitHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *unitHeap) Push(u any)   { *h = append(*h, u.(*unit)) }
func (h *unitHeap) Pop() any {
	old := *h
	u := old[len(old)-1]
	*h = old[:len(old)-1]
	return u
}

// varianceOf returns the mean node of a variance that is computed with it.
func varianceOf(n *graph.Node) *graph.Node {
	if n.Op == graph.OpBatchVariance && n.Inputs[1].Op == graph.OpBatchMean && n.Inputs[1].Inputs[0] == n.Inputs[0] {
		return n.Inputs[1]
	}
	return nil
}

// lower appends the steps of a unit.
func (c *compiler) lower(u *unit) error {
	first := len(c.p.steps)
	if err := c.lowerUnit(u); err != nil {
		return err
	}
	steps := c.p.steps[first:]
	for _, n := range u.nodes {
		c.noteResult(n, steps)
	}
	if op := u.nodes[0].Op.String(); !u.loop {
		for i := range steps {
			if s := &steps[i]; s.kernel == "" && strings.HasPrefix(s.name, op) {
				s.kernel = c.p.kernels[op]
			}
		}
	}
	return nil
}

// noteResult notes that the last of these steps that has a node's value makes it, if that is
// not known yet: outputs, and what takes the place of another value.
func (c *compiler) noteResult(n *graph.Node, steps []step) {
	at := c.slotOf[n.ID]
	for i := range slices.Backward(steps) {
		s := &steps[i]
		if !slices.Contains(s.slots, at) {
			continue
		}
		result := made{slot: at}
		if c.buffers[at].node != n {
			result.inPlace = n
		}
		if !s.wrote(at) {
			s.makes = append(s.makes, result)
		}
		return
	}
}

// genericGo is the kernel of what has none in assembly.
const genericGo = "generic go"

func (c *compiler) lowerUnit(u *unit) error {
	if u.loop {
		return c.lowerLoop(u.nodes)
	}
	n := u.nodes[0]
	for _, m := range u.nodes {
		if _, ok := c.p.kernels[m.Op.String()]; !ok {
			c.p.kernels[m.Op.String()] = genericGo
			if c.folded[m.ID] {
				c.p.kernels[m.Op.String()] = "folded into convolutions"
			}
		}
	}
	if !readsHalf(n.Op) {
		for _, in := range n.Inputs {
			if was := c.slotOf[in.ID]; was != noSlot && c.half(was) {
				c.slotOf[in.ID] = c.widened(in)
				defer func() { c.slotOf[in.ID] = was }()
			}
		}
	}
	var err error
	switch n.Op {
	case graph.OpConv, graph.OpConvBackwardData:
		err = c.lowerConv(n)
	case graph.OpConvBackwardWeights:
		err = c.lowerConvBackwardWeights(n)
	case graph.OpMatMul:
		err = c.lowerMatMul(n)
	case graph.OpBatchMean:
		c.lowerMoments(u.nodes)
	case graph.OpSigmoid:
		c.lowerSigmoid(n)
	case graph.OpScaleChannels:
		c.lowerScaleChannels(n)
	case graph.OpMaxPool:
		err = c.lowerMaxPool(n)
	case graph.OpMaxPoolBackward:
		err = c.lowerMaxPoolBackward(n)
	case graph.OpAvgPool:
		c.lowerAvgPool(n)
	case graph.OpAvgPoolBackward:
		c.lowerAvgPoolBackward(n)
	case graph.OpGlobalAvgPool:
		c.lowerGlobalAvgPool(n)
	case graph.OpGlobalAvgPoolBackward:
		c.lowerGlobalAvgPoolBackward(n)
	case graph.OpSubsample:
		c.lowerSubsample(n)
	case graph.OpSubsampleBackward:
		c.lowerSubsampleBackward(n)
	case graph.OpPadChannels, graph.OpSliceChannels:
		c.lowerChannels(n)
	case graph.OpSoftmax:
		c.lowerSoftmax(n)
	case graph.OpSoftmaxBackward:
		c.lowerSoftmaxBackward(n)
	case graph.OpOneHot:
		err = c.lowerOneHot(n)
	case graph.OpCrossEntropy:
		c.lowerCrossEntropy(n)
	case graph.OpCrossEntropyBackward:
		c.lowerCrossEntropyBackward(n)
	default:
		err = fmt.Errorf("operation is not supported")
	}
	if err != nil {
		return fmt.Errorf("%v: %w", n, err)
	}
	return nil
}

// finish says what memory steps share and hands out the outputs.
func (c *compiler) finish(copies []result) {
	p := c.p
	p.outputs = make([]tensor.Tensor, len(c.g.Outputs))
	for _, cp := range copies {
		p.outputs[cp.output] = tensor.Of(p.mem[cp.dst], cp.src.Shape...)
	}
	for i, n := range c.g.Outputs {
		if !p.outputs[i].Valid() {
			p.outputs[i] = tensor.Of(p.mem[c.slotOf[n.ID]], n.Shape...)
		}
	}
	p.buffers = c.buffers
	p.zero = make([]float32, c.channels)
	p.need.partials, p.need.scratch = c.partials, c.scratch
}
