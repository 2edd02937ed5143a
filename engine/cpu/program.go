package cpu

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/parallel"
	"github.com/residual-ml/residual/tensor"
)

// step is one parallel loop of a program: body is called for each task. The rest is for
// Program.Plan: the values that it reads or writes, and of these what it makes.
type step struct {
	name   string
	tasks  int
	body   func(worker, task int)
	kernel string
	slots  []slot
	makes  []made
}

// made is a value that a step makes: of a node, if it takes the place of another.
type made struct {
	slot    slot
	inPlace *graph.Node
}

// slot is an index into Program.mem: where a value lies.
type slot int

// Program is a compiled graph. See engine.Program.
type Program struct {
	engine *Engine
	graph  *graph.Graph
	vars   *variables
	steps  []step
	commit int // the first step that changes variables; steps from here on all run, or none

	preparations []preparation // come first, when variables have changed

	// mem holds every value of the current run: slices of the arena, variables and
	// constants, which stay, and inputs, set when a run starts.
	mem  [][]float32
	ints [][]int32 // values of integer inputs, by position in graph.Inputs

	need     needs // of the memory that programs share; parts of it are
	placed   []placement
	arena    []float32
	scratch  [][]float32 // per worker
	partials []float32   // of the reduction that is running (loop.go)

	zero []float32 // the padding pixel

	inputs   []slot // of real inputs, by position
	bindings []binding
	updated  []*variable
	guard    slot // noSlot: none
	lasting  bool // there are values in the arena that last from run to run
	outputs  []tensor.Tensor
	fail     error // set by a step that cannot go on

	buffers []buffer // by slot, for Plan

	loops            []*loop     // for tests: what became of them
	passes           []*convPass // and which paths a shape takes
	weights          []*weightsPass
	winograds        []*winogradPass
	winogradWeights  []*winogradWeights
	winograds4       []*winograd4Pass
	winogradWeights4 []*winograd4Weights
	kernels          map[string]string
	closed           bool
}

// binding ties a variable of the store to its slot.
type binding struct {
	variable *variable
	slot     slot
}

const noSlot slot = -1

// Run implements engine.Program.
func (p *Program) Run(ctx context.Context, inputs ...tensor.Tensor) (outputs []tensor.Tensor, err error) {
	p.engine.mu.Lock()
	defer p.engine.mu.Unlock()
	if p.closed {
		return nil, errors.New("cpu: run of a closed program")
	}
	if p.vars.broken != nil {
		return nil, p.vars.broken
	}
	if err := p.bind(inputs); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	p.engine.shared.enter(p)
	p.engine.pool.Hold()
	defer p.engine.pool.Release()
	committing := false
	defer func() {
		if v := recover(); v != nil {
			failure, ok := v.(*parallel.Panic)
			if !ok {
				panic(v)
			}
			outputs, err = nil, fmt.Errorf("cpu: internal error: %w", failure)
			if committing {
				p.vars.broken = fmt.Errorf("cpu: an internal error in the midst of an update has left the variables half old, half new: %w", failure)
			}
		}
	}()
	for i := range p.preparations {
		r := &p.preparations[i]
		if !r.due() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p.run(&r.step)
		r.done()
	}
	for i := range p.steps {
		if i == p.commit && p.guard != noSlot && !finite(p.mem[p.guard][0]) {
			return p.outputs, nil
		}
		if err := ctx.Err(); err != nil && !committing {
			return nil, err
		}
		committing = i >= p.commit
		s := &p.steps[i]
		p.run(s)
		if p.fail != nil {
			return nil, fmt.Errorf("cpu: %s: %w", s.name, p.fail)
		}
	}
	for _, v := range p.updated {
		v.version++
	}
	return p.outputs, nil
}

func (p *Program) run(s *step) {
	if p.engine.trace != nil {
		p.engine.trace.run(p, s)
	} else {
		p.engine.pool.For(s.tasks, s.body)
	}
}

func finite(v float32) bool {
	return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0)
}

// bind checks the inputs and fills the slots that change from run to run.
func (p *Program) bind(inputs []tensor.Tensor) error {
	p.fail = nil
	if len(inputs) != len(p.graph.Inputs) {
		return fmt.Errorf("run with %d inputs, want %d", len(inputs), len(p.graph.Inputs))
	}
	for i, n := range p.graph.Inputs {
		t := inputs[i]
		want := tensor.Float32
		if n.Kind == graph.Integer {
			want = tensor.Int32
		}
		if !t.Valid() {
			return fmt.Errorf("input %q is empty", n.Name)
		}
		if t.DType() != want || !t.Shape().Equal(n.Shape) {
			return fmt.Errorf("input %q is %v %v, want %v %v", n.Name, t.DType(), t.Shape(), want, n.Shape)
		}
	}
	for i, n := range p.graph.Inputs {
		if n.Kind == graph.Integer {
			p.ints[i] = inputs[i].Int32s()
		} else {
			p.mem[p.inputs[i]] = inputs[i].Float32s()
		}
	}
	return nil
}

// Kernels implements engine.Program.
func (p *Program) Kernels() map[string]string { return maps.Clone(p.kernels) }

// ArenaBytes is the memory of the intermediate values, shared by liveness, and
// with the engine's other programs.
func (p *Program) ArenaBytes() int { return 4 * p.need.arena }

// Close frees the program's memory.
func (p *Program) Close() error {
	p.engine.mu.Lock()
	defer p.engine.mu.Unlock()
	if !p.closed {
		p.engine.shared.close(p)
	}
	*p = Program{engine: p.engine, closed: true}
	return nil
}
