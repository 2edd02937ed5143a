package cpu

import "math"

// workspace is the memory that the programs of an engine use in turn, because one
// of them runs at a time: it is as large as the largest of them needs. What
// outlives a run has memory of its own: variables and outputs.
type workspace struct {
	arena    []float32
	scratch  [][]float32
	partials []float32

	trains   bool     // a program that updates variables was compiled
	programs int      // that are open
	holder   *Program // the one that has it: it ran or was opened last
}

// needs are sizes of a program's part of the workspace, in elements.
type needs struct {
	arena, scratch, partials int
}

// placement says where in the arena a value lies.
type placement struct {
	slot         slot
	offset, size int
}

// open makes room for a program.
func (w *workspace) open(p *Program) {
	w.programs++
	w.leave() // so that nobody holds what is too small
	if len(w.arena) < p.need.arena {
		w.arena = nil
		w.arena = allocate(p.need.arena)
	}
	if len(w.partials) < p.need.partials {
		w.partials = make([]float32, p.need.partials)
	}
	for len(w.scratch) < p.engine.Threads() {
		w.scratch = append(w.scratch, nil)
	}
	for i, s := range w.scratch {
		if len(s) < p.need.scratch {
			w.scratch[i] = make([]float32, p.need.scratch)
		}
	}
	w.attach(p)
}

// attach gives a program its part. Nothing is allocated.
func (w *workspace) attach(p *Program) {
	p.arena, p.partials = w.arena[:p.need.arena:p.need.arena], w.partials[:p.need.partials:p.need.partials]
	p.scratch = w.scratch
	for _, v := range p.placed {
		p.mem[v.slot] = p.arena[v.offset : v.offset+v.size : v.offset+v.size]
	}
	w.holder = p
}

// leave takes its part from the program that has it.
func (w *workspace) leave() {
	p := w.holder
	if p == nil {
		return
	}
	p.arena, p.partials, p.scratch = nil, nil, nil
	for _, v := range p.placed {
		p.mem[v.slot] = nil
	}
	w.holder = nil
}

// enter prepares for a run of a program: where it lies, and what others have
// overwritten.
func (w *workspace) enter(p *Program) {
	if w.holder == p {
		return
	}
	w.leave()
	w.attach(p)
	if !p.lasting {
		return
	}
	for i := range p.preparations {
		clear(p.preparations[i].seen)
	}
}

// close gives the memory up when nobody needs it any more.
func (w *workspace) close(p *Program) {
	if w.holder == p {
		w.holder = nil
	}
	if w.programs--; w.programs == 0 {
		*w = workspace{trains: w.trains}
	}
}

// lasting returns a slot of size elements that keep their values from run to run.
// Where variables are trained, most programs run once per epoch or less, and the
// values lie in the arena: they last until another program runs (enter).
func (c *compiler) lasting(size int, layout string) slot {
	if !c.trains {
		s := c.fixed(allocate(size))
		c.buffers[s].layout = layout
		return s
	}
	c.p.lasting = true
	s := c.temp(size, layout)
	c.buffers[s].first, c.buffers[s].last = 0, math.MaxInt
	return s
}
