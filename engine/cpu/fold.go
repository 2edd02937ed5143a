package cpu

import (
	"math"
	"slices"

	"github.com/residual-ml/residual/graph"
)

// In a program that updates nothing, what follows a convolution and reads it
// alone is done where its sums are written, while they are in the first cache: a
// bias, batch normalisation with moving statistics, ReLU, the addition of a
// shortcut. No pass over the feature map remains.
//
// Batch normalisation is (x-mean)·s + β with s = γ/√(variance+ε). The factor s
// goes into the weights of its output channel when they are packed, the rest is a
// bias; both are computed again when one of the variables has changed.

// fold is a convolution with what is folded into it, of which anything may be
// missing: out = max(0, max(0, norm(conv+bias)) + add). Or it is a matrix product
// with a bias and ReLU.
type fold struct {
	bias, norm *graph.Node // OpBias and OpBatchNorm
	add        *graph.Node // the other operand of the addition
	relu       [2]bool     // before and after it
	nodes      []*graph.Node
	out        *graph.Node // the last of nodes: the value that goes to memory
	scale      slot        // s, or noSlot
	shift      slot        // [OC], or noSlot
}

// findFolds finds what is folded into the convolutions of an inference program.
// Of two convolutions that are added, the later one takes the addition.
func (c *compiler) findFolds() {
	c.folds = make([]*fold, len(c.g.Nodes))
	c.folded = make([]bool, len(c.g.Nodes))
	if len(c.g.Updates) > 0 {
		return
	}
	for _, n := range slices.Backward(c.g.Nodes) {
		if n.Op != graph.OpConv && n.Op != graph.OpMatMul {
			continue
		}
		f := &fold{out: n, scale: noSlot, shift: noSlot}
		for c.foldNext(f, n) {
		}
		if len(f.nodes) > 0 {
			c.folds[n.ID] = f
		}
	}
}

// foldNext adds the only reader of f.out to f, if it can be folded. first is the
// convolution or matrix product.
func (c *compiler) foldNext(f *fold, first *graph.Node) bool {
	if c.kept[f.out.ID] || len(c.users[f.out.ID]) != 1 {
		return false
	}
	n := c.users[f.out.ID][0]
	constants := ofVariables(n)
	begun, conv := f.add != nil || f.relu[0], first.Op == graph.OpConv
	switch {
	case c.folded[n.ID]:
		return false
	case n.Op == graph.OpBias && n.Inputs[0] == f.out && constants && !begun && f.bias == nil && f.norm == nil:
		f.bias = n
	case conv && n.Op == graph.OpBatchNorm && n.Inputs[0] == f.out && constants && !n.Norm.Training &&
		first.Inputs[1].Op == graph.OpVariable && !begun && f.norm == nil:
		f.norm = n
	case conv && n.Op == graph.OpAdd && f.add == nil && !f.relu[1] && c.addend(n, f.out) != nil:
		f.add = c.addend(n, f.out)
	case n.Op == graph.OpReLU && f.add == nil && !f.relu[0]:
		f.relu[0] = true
	case n.Op == graph.OpReLU && f.add != nil && !f.relu[1]:
		f.relu[1] = true
	default:
		return false
	}
	f.nodes, f.out = append(f.nodes, n), n
	c.folded[n.ID] = true
	return true
}

// ofVariables reports whether all operands of a node but the first are variables.
func ofVariables(n *graph.Node) bool {
	return !slices.ContainsFunc(n.Inputs[1:], func(v *graph.Node) bool { return v.Op != graph.OpVariable })
}

// addend returns the operand that an addition adds to x, if it is a value of the
// same shape that lies in memory as the convolution's result will.
func (c *compiler) addend(n, x *graph.Node) *graph.Node {
	other := n.Inputs[0]
	if other == x {
		other = n.Inputs[1]
	}
	if !other.Shape.Equal(x.Shape) || other.Op == graph.OpBroadcast || c.p.engine.bf16 && !c.maps[other.ID] {
		return nil
	}
	return other
}

// overwrite lets the result of a convolution take the place of what is added to
// it, if nobody reads that afterwards: then memory that has just been read is
// written, and no other.
func (c *compiler) overwrite(f *fold, conv *graph.Node) {
	if f.add == nil || c.kept[f.out.ID] || c.kept[f.add.ID] || c.slotOf[f.out.ID] != noSlot {
		return
	}
	for _, n := range c.users[f.add.ID] {
		if n == conv || !c.lowered[n.ID] && !slices.Contains(f.nodes, n) {
			return
		}
	}
	if s := c.slotOf[f.add.ID]; c.buffers[s].size > 0 && c.half(s) == c.maps[f.out.ID] {
		c.slotOf[f.out.ID] = s
	}
}

// foldOf returns what is folded into a node, with its coefficients made, or nil.
func (c *compiler) foldOf(n *graph.Node) *fold {
	f := c.folds[n.ID]
	if f == nil || f.bias == nil && f.norm == nil || f.shift != noSlot {
		return f
	}
	p, oc := c.p, n.Shape[len(n.Shape)-1]
	f.shift = c.vector(make([]float32, oc))
	if f.norm == nil {
		bias := c.slotOf[f.bias.Inputs[1].ID]
		c.prepare(label(f.bias), 1, func(_, _ int) { copy(p.mem[f.shift], p.mem[bias]) }, f.bias.Inputs[1]).writes(f.shift)
		return f
	}
	f.scale = c.vector(make([]float32, oc))
	in, eps, bias := c.inputsOf(f.norm), f.norm.Norm.Epsilon, noSlot
	reads := f.norm.Inputs[1:]
	if f.bias != nil {
		bias = c.slotOf[f.bias.Inputs[1].ID]
		reads = append(slices.Clone(reads), f.bias.Inputs[1])
	}
	c.prepare("fold "+label(f.norm), 1, func(_, _ int) {
		var before []float32
		if bias != noSlot {
			before = p.mem[bias]
		}
		normCoefficients(p.mem[f.scale], p.mem[f.shift], p.mem[in[1]], p.mem[in[2]], p.mem[in[3]], p.mem[in[4]], before, eps)
	}, reads...).writes(f.scale, f.shift)
	return f
}

// name is that of a convolution's step: the operations in it.
func (f *fold) name(n *graph.Node) string {
	name := label(n)
	if f != nil {
		for _, m := range f.nodes {
			name += " " + m.Op.String()
		}
	}
	return name
}

// epilogue is what a pass does with its sums: out = max(after, max(before,
// sum+bias)+add).
type epilogue struct {
	bias, add     slot // noSlot: none
	before, after float32
}

func (c *compiler) epilogueOf(f *fold) *epilogue {
	if f == nil {
		return nil
	}
	e := &epilogue{bias: f.shift, add: noSlot}
	if f.add != nil {
		e.add = c.slotOf[f.add.ID]
	}
	bound := [2]float32{float32(math.Inf(-1)), float32(math.Inf(-1))}
	for i, relu := range f.relu {
		if relu {
			bound[i] = 0
		}
	}
	e.before, e.after = bound[0], bound[1]
	return e
}

// reads returns the slots that an epilogue reads.
func (e *epilogue) reads() []slot {
	if e == nil {
		return nil
	}
	return []slot{e.bias, e.add}
}

// biasOf returns the bias of channels from to to.
func (e *epilogue) biasOf(p *Program, from, to int) []float32 {
	if e.bias == noSlot {
		return p.zero[from:to]
	}
	return p.mem[e.bias][from:to]
}

// addOf returns what is added to the value from element at on, and nothing where
// nothing is; addHalvesOf is the same in bfloat16.
func (e *epilogue) addOf(p *Program, at int) []float32 {
	if e.add == noSlot {
		return nil
	}
	return p.mem[e.add][at:]
}

func (e *epilogue) addHalvesOf(p *Program, at int) []uint16 {
	if e.add == noSlot {
		return nil
	}
	return halvesOf(p.mem[e.add])[at:]
}

// preparation is work that depends on variables alone, such as packing weights.
// It comes before the steps of a run, when one of the variables has changed.
type preparation struct {
	step
	reads []*variable
	seen  []uint64 // the versions of the last time; 0 is none, or overwritten since
}

// prepare appends a preparation that reads the given variables.
func (c *compiler) prepare(name string, tasks int, body func(worker, task int), reads ...*graph.Node) *step {
	r := preparation{step: step{name: name, tasks: tasks, body: body}, seen: make([]uint64, len(reads))}
	for _, n := range reads {
		r.slots = append(r.slots, c.slotOf[n.ID])
		for _, b := range c.p.bindings {
			if b.slot == c.slotOf[n.ID] {
				r.reads = append(r.reads, b.variable)
			}
		}
	}
	c.p.preparations = append(c.p.preparations, r)
	return &c.p.preparations[len(c.p.preparations)-1].step
}

// due reports whether a variable has changed since the last time.
func (r *preparation) due() bool {
	for i, v := range r.reads {
		if r.seen[i] != v.version {
			return true
		}
	}
	return false
}

func (r *preparation) done() {
	for i, v := range r.reads {
		r.seen[i] = v.version
	}
}
