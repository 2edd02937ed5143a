// Package cpu is the default engine: float32, or bfloat16 mixed with it, on the
// processor, in pure Go with assembly kernels, threaded.
//
// Compile turns a graph into a list of steps, once: nodes that work element by
// element are fused into loops over small blocks (loop.go), convolutions become
// lists of register tiles (conv.go), every intermediate value gets a place in
// one arena by liveness (plan.go). Run executes the steps one after the other,
// each split into tasks over a fixed set of workers, and allocates nothing.
//
// Work is split by shape and sums are combined in a fixed order, so results
// have the same bits for any number of threads.
package cpu

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/parallel"
)

// Options choose how the engine uses the machine. The zero Options use all of it.
type Options struct {
	// Threads is the number of workers; 0 means GOMAXPROCS.
	Threads int
	// InstructionSet caps the kernels: "generic", "avx2", "avx512",
	// "avx512_bf16" or "amx". Empty means what RESIDUAL_CPU says, or no cap.
	InstructionSet string
	// Winograd says when convolutions of 3×3 kernels with stride 1 or, in float32, 2 go
	// through Winograd's F(4×4,3×3), or with stride 1 F(2×2,3×3), which are faster and round differently:
	// "auto" (where they are expected to be faster), "2x2" (so, but only
	// F(2×2,3×3)), "4x4-float32" (as auto, but F(4×4,3×3) has products of float32 with
	// Precision "bfloat16" too, where auto has products of bfloat16 from 64 channels on, which
	// are faster and err by three roundings of a result), "on", "on-4x4" and
	// "on-4x4-bfloat16" (one of these wherever it is possible) or "off". Empty means
	// what RESIDUAL_WINOGRAD says, or auto.
	Winograd string
	// Precision is "float32", which empty means too, or "bfloat16": feature maps
	// and the operands of convolutions in bfloat16, everything else in float32.
	Precision string
}

// Engine compiles graphs for the processor.
type Engine struct {
	kernels  *kernel.Kernels
	winograd winogradMode
	bf16     bool
	pool     *parallel.Pool
	mu       sync.Mutex // one program runs at a time: they share the pool and
	shared   workspace
	trace    *trace // nil: none is recorded
	plain    bool   // for tests: loops work block by block in float32 alone (loop_maps.go)
}

var _ engine.Engine = (*Engine)(nil)

// New starts an engine. An unknown word in the options, in RESIDUAL_CPU or in
// RESIDUAL_WINOGRAD is an error; an instruction set that the machine lacks is
// not, it only caps.
func New(o Options) (*Engine, error) {
	if o.Threads < 0 {
		return nil, fmt.Errorf("cpu: %d threads, want 0 (all) or more", o.Threads)
	}
	kernels, err := kernel.FromEnvironment()
	if o.InstructionSet != "" {
		var limit kernel.Set
		if limit, err = kernel.ParseSet(o.InstructionSet); err == nil {
			kernels = kernel.Select(limit)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	winograd, err := winogradFrom(o.Winograd)
	if err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	bf16 := o.Precision == "bfloat16"
	if !bf16 && o.Precision != "" && o.Precision != "float32" {
		return nil, fmt.Errorf("cpu: precision %q is unknown, want float32 or bfloat16", o.Precision)
	}
	if !bf16 { // what is above adds nothing
		kernels = kernel.Select(min(kernels.Set, kernel.AVX512))
	}
	threads := o.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	return &Engine{kernels: kernels, winograd: winograd, bf16: bf16, pool: parallel.New(threads)}, nil
}

// Name is "cpu/" and the instruction set, such as "cpu/avx512".
func (e *Engine) Name() string { return "cpu/" + e.kernels.Set.String() }

// Threads is the number of workers.
func (e *Engine) Threads() int { return e.pool.Threads() }

// NewVariables returns an empty store of float32 variables.
func (e *Engine) NewVariables() engine.Variables {
	return &variables{byName: map[string]*variable{}}
}

// Compile implements engine.Engine. Convolutions and max-pooling whose offsets do not fit
// 31 bits and integer values other than labels are errors.
func (e *Engine) Compile(g *graph.Graph, vars engine.Variables) (engine.Program, error) {
	store, ok := vars.(*variables)
	if !ok {
		return nil, fmt.Errorf("cpu: variables are %T, want those of this engine's NewVariables", vars)
	}
	e.mu.Lock()
	e.shared.trains = e.shared.trains || len(g.Updates) > 0
	trains := e.shared.trains
	e.mu.Unlock()
	p, err := compile(e, g, store, trains)
	if err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.shared.open(p)
	return p, nil
}

// Close ends the workers.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pool.Close()
	return nil
}
