package cpu

import (
	"fmt"
	"slices"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// Step is one parallel loop of a program, for people who ask what was fused and for profiles.
// Bytes count each value once, and neither scratch nor the sums that a reduction keeps by chunk.
type Step struct {
	Name   string  `json:"name"`
	Kernel string  `json:"kernel"` // of products their precision and tile, of loops their instructions, else the instruction set
	Tasks  int     `json:"tasks"`  // that threads share
	Makes  []Value `json:"makes"`
	Reads  int     `json:"bytes_read"`    // of values that were there before
	Writes int     `json:"bytes_written"` // of those that it makes, also in the place of others
	Live   int     `json:"bytes_live"`    // of values in the arena, while it runs
}

// Value is what a step makes: a feature map, weights in the order in which products read
// them, a variable.
type Value struct {
	Name   string `json:"name,omitempty"` // of the operation or variable, if it is one's
	Layout string `json:"layout"`         // precision, order and shape
	Bytes  int    `json:"bytes"`
}

// Plan returns the steps in the order in which they run, and those that come before all others
// in runs that find new weights.
func (p *Program) Plan() (preparations, steps []Step) {
	p.engine.mu.Lock() // a run sets p.mem
	defer p.engine.mu.Unlock()
	preparations, steps = []Step{}, []Step{}
	for _, r := range p.preparations {
		preparations = append(preparations, p.describe(&r.step))
	}
	changes := make([]int, len(p.steps)+1) // in what is live, from a step on
	for _, b := range p.buffers {
		if b.size > 0 && b.first >= 0 {
			changes[b.first] += 4 * b.size
			if b.last < len(p.steps) {
				changes[b.last+1] -= 4 * b.size
			}
		}
	}
	live := 0
	for i := range p.steps {
		live += changes[i]
		s := p.describe(&p.steps[i])
		s.Live = live
		steps = append(steps, s)
	}
	return preparations, steps
}

func (p *Program) describe(s *step) Step {
	d := Step{Name: s.name, Kernel: s.kernel, Tasks: s.tasks, Makes: []Value{}}
	if d.Kernel == "" {
		d.Kernel = p.engine.kernels.Set.String()
	}
	for _, at := range s.slots {
		if !s.wrote(at) {
			d.Reads += p.value(made{slot: at}).Bytes
		}
	}
	for _, m := range s.makes {
		v := p.value(m)
		d.Writes += v.Bytes
		if m.inPlace != nil {
			d.Reads += v.Bytes
		}
		d.Makes = append(d.Makes, v)
	}
	return d
}

func (p *Program) value(m made) Value {
	b := &p.buffers[m.slot]
	v := Value{Layout: b.layout, Bytes: 4 * b.size}
	n := b.node
	switch {
	case b.size == 0 && n != nil: // given from outside, an output or a variable
		v.Bytes = 4 * n.Shape.Elements()
	case b.size == 0:
		v.Bytes = 4 * len(p.mem[m.slot])
	}
	if n == nil {
		return v
	}
	if m.inPlace != nil && n.Op != graph.OpVariable {
		n = m.inPlace
	}
	v.Name = n.Name
	if n.Op != graph.OpVariable {
		v.Name = label(n)
	}
	order := ""
	if len(n.Shape) == 4 {
		order = " NHWC"
		if n.Op == graph.OpVariable || n.Op == graph.OpConvBackwardWeights {
			order = " HWIO"
		}
	}
	v.Layout = layoutOf(precisionOf(b.half)+order, n.Shape...)
	return v
}

// layoutOf says how numbers lie in memory, the last dimension in one piece.
func layoutOf(what string, dims ...int) string { return what + " " + tensor.Shape(dims).String() }

// layoutOfWords is layoutOf for words of four bytes, each of which has two numbers in bfloat16.
func layoutOfWords(bf16 bool, what string, words ...int) string {
	if bf16 {
		words = append(words, 2)
	}
	return layoutOf(precisionOf(bf16)+" "+what, words...)
}

func precisionOf(half bool) string {
	if half {
		return "bfloat16"
	}
	return "float32"
}

// products names a kernel of products by what it multiplies and the size of its tiles of sums.
func (c *compiler) products(bf16 bool, rows, cols int) string {
	set := c.k.Set
	if bf16 {
		set = c.bf16Set()
	}
	return fmt.Sprintf("%s products %d×%d, %v", precisionOf(bf16), rows, cols, set)
}

// from says what a step reads, where that is not what decides whether it runs.
func (s *step) from(slots ...slot) *step {
	s.slots = slots
	return s
}

// writes notes that a step makes these values.
func (s *step) writes(slots ...slot) {
	for _, at := range slots {
		if !s.wrote(at) {
			s.makes = append(s.makes, made{slot: at})
		}
	}
}

func (s *step) wrote(at slot) bool {
	return slices.ContainsFunc(s.makes, func(m made) bool { return m.slot == at })
}
