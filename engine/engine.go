// Package engine is the line between what is computed, a graph.Graph, and how: an
// Engine compiles graphs for one kind of hardware. Package engine/cpu is the default
// one, engine/ref the slow one that judges it, and engine/enginetest what each must
// pass.
package engine

import (
	"context"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// Engine turns graphs into programs.
type Engine interface {
	// Name is what a run directory records, such as "cpu/avx2" or "ref".
	Name() string

	// NewVariables returns an empty store for variables, in whatever memory
	// and layout the engine's kernels want.
	NewVariables() Variables

	// Compile checks the graph, plans memory and picks kernels, once. The
	// program reads and updates the graph's variables in vars, which must come
	// from the same engine; programs for training, evaluation and other batch
	// sizes share them by name. A variable that vars does not hold yet is
	// created with zeros; one of another shape is an error.
	Compile(g *graph.Graph, vars Variables) (Program, error)

	// Close stops the engine's workers. Programs must not run afterwards.
	Close() error
}

// Variables is a store of named values that outlive a run: parameters, moving
// statistics and the optimizer's state, in graph layout as far as callers see.
type Variables interface {
	// Names returns all names in the order the variables were created.
	Names() []string
	// Get returns a copy of a variable, in the engine's precision.
	Get(name string) (tensor.Tensor, error)
	// Set creates or overwrites a variable from float32 or float64 numbers. A
	// shape that differs from the existing variable's is an error.
	Set(name string, t tensor.Tensor) error
}

// Program is a compiled graph. Programs that share variables must not run at
// the same time, and one program is not safe for concurrent use.
type Program interface {
	// Run computes the outputs and then applies the updates, all of them or,
	// when the graph's guard is not finite or an error is returned, none.
	// Inputs are float32 (or the engine's precision) for real nodes and int32
	// for integer nodes, in the order of Graph.Inputs. The outputs are in the
	// engine's precision and valid until the next Run.
	// Cancelling ctx stops between operations and returns its error.
	Run(ctx context.Context, inputs ...tensor.Tensor) (outputs []tensor.Tensor, err error)

	// Kernels says for each kind of operation which implementation runs it,
	// such as "conv": "float32 igemm 6×16 avx2", for the record.
	Kernels() map[string]string

	// Close frees the program's memory.
	Close() error
}
