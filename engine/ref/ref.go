// Package ref is the engine that judges the others: float64, plain loops, one
// function per operation whose loops are the formula of graph.Op. Where the
// documentation of an operation leaves something open, this package decides.
//
// It is slow on purpose, but not absurdly: the loops over output channels are
// contiguous and independent parts of an output are computed on all
// processors, each by one goroutine in a fixed order, so that results do not
// depend on their number.
package ref

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// New returns the reference engine. Its precision is float64: that is the type
// of outputs and of variables, and real inputs may be float32 or float64.
func New() engine.Engine { return ref{} }

type ref struct{}

func (ref) Name() string { return "ref" }

func (ref) NewVariables() engine.Variables {
	return &variables{values: map[string]*array{}}
}

func (ref) Close() error { return nil }

func (ref) Compile(g *graph.Graph, vars engine.Variables) (engine.Program, error) {
	store, ok := vars.(*variables)
	if !ok {
		return nil, fmt.Errorf("ref: variables are a %T, want those of NewVariables", vars)
	}
	for _, v := range g.Variables {
		if have := store.values[v.Name]; have != nil && !have.shape.Equal(v.Shape) {
			return nil, fmt.Errorf("ref: variable %s has shape %v, the graph wants %v", v.Name, have.shape, v.Shape)
		}
	}
	p := &program{graph: g, variables: map[*graph.Node]*array{}, lastUse: make([]int, len(g.Nodes))}
	for _, v := range g.Variables {
		p.variables[v] = store.add(v.Name, v.Shape)
	}
	for i, n := range g.Nodes {
		for _, in := range n.Inputs {
			p.lastUse[in.ID] = i
		}
	}
	keep := slices.Clone(g.Outputs)
	for _, u := range g.Updates {
		keep = append(keep, u.Value)
	}
	if g.Guard != nil {
		keep = append(keep, g.Guard)
	}
	for _, n := range keep {
		p.lastUse[n.ID] = len(g.Nodes)
	}
	return p, nil
}

type variables struct {
	names  []string
	values map[string]*array
}

// add returns the variable of that name, which it makes of zeros if need be.
func (s *variables) add(name string, shape tensor.Shape) *array {
	if s.values[name] == nil {
		a := newArray(slices.Clone(shape))
		s.names = append(s.names, name)
		s.values[name] = &a
	}
	return s.values[name]
}

func (s *variables) Names() []string { return slices.Clone(s.names) }

func (s *variables) Get(name string) (tensor.Tensor, error) {
	a := s.values[name]
	if a == nil {
		return tensor.Tensor{}, fmt.Errorf("ref: there is no variable %s", name)
	}
	return a.tensor(), nil
}

func (s *variables) Set(name string, t tensor.Tensor) error {
	v, err := reals(t)
	if err != nil {
		return fmt.Errorf("ref: variable %s: %w", name, err)
	}
	if have := s.values[name]; have != nil && !have.shape.Equal(t.Shape()) {
		return fmt.Errorf("ref: variable %s has shape %v, cannot set it to %v", name, have.shape, t.Shape())
	}
	s.add(name, t.Shape()).v = slices.Clone(v)
	return nil
}

// program runs a graph node by node. Nothing is planned but when a value is
// used for the last time, so that memory holds what is still needed.
type program struct {
	graph     *graph.Graph
	variables map[*graph.Node]*array
	lastUse   []int // by Node.ID: the last node that reads it; len(Nodes) keeps it to the end
}

func (p *program) Run(ctx context.Context, inputs ...tensor.Tensor) ([]tensor.Tensor, error) {
	if len(inputs) != len(p.graph.Inputs) {
		return nil, fmt.Errorf("ref: %d inputs, want %d", len(inputs), len(p.graph.Inputs))
	}
	values := make([]array, len(p.graph.Nodes))
	for i, n := range p.graph.Inputs {
		a, err := input(n, inputs[i])
		if err != nil {
			return nil, fmt.Errorf("ref: input %s: %w", n.Name, err)
		}
		values[n.ID] = a
	}
	for _, v := range p.graph.Variables {
		values[v.ID] = *p.variables[v]
	}

	var operands []array
	for i, n := range p.graph.Nodes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if n.Op == graph.OpInput || n.Op == graph.OpVariable {
			continue
		}
		operands = operands[:0]
		for _, in := range n.Inputs {
			operands = append(operands, values[in.ID])
		}
		values[i] = newArray(n.Shape)
		if err := compute(n, values[i], operands); err != nil {
			return nil, fmt.Errorf("ref: %w", err)
		}
		for _, in := range n.Inputs {
			if p.lastUse[in.ID] == i {
				values[in.ID] = array{}
			}
		}
	}

	outputs := make([]tensor.Tensor, len(p.graph.Outputs))
	for i, n := range p.graph.Outputs {
		if n.Kind == graph.Integer { // an input passed through
			outputs[i] = values[n.ID].tensor().Convert(tensor.Int32)
		} else {
			outputs[i] = values[n.ID].tensor()
		}
	}
	if p.graph.Guard != nil {
		if g := values[p.graph.Guard.ID].v[0]; math.IsNaN(g) || math.IsInf(g, 0) {
			return outputs, nil
		}
	}
	for _, u := range p.graph.Updates {
		p.variables[u.Variable].v = slices.Clone(values[u.Value.ID].v)
	}
	return outputs, nil
}

// input checks a tensor given to Run. Labels are kept as float64 too, which
// holds every int32.
func input(n *graph.Node, t tensor.Tensor) (array, error) {
	if !t.Valid() {
		return array{}, fmt.Errorf("the tensor is empty")
	}
	if !t.Shape().Equal(n.Shape) {
		return array{}, fmt.Errorf("shape %v, want %v", t.Shape(), n.Shape)
	}
	if n.Kind == graph.Integer {
		if t.DType() != tensor.Int32 {
			return array{}, fmt.Errorf("elements are %v, want int32", t.DType())
		}
		return array{n.Shape, t.Convert(tensor.Float64).Float64s()}, nil
	}
	v, err := reals(t)
	return array{n.Shape, v}, err
}

// reals returns the elements of a float32 or float64 tensor.
func reals(t tensor.Tensor) ([]float64, error) {
	switch {
	case !t.Valid():
		return nil, fmt.Errorf("the tensor is empty")
	case t.DType() == tensor.Float64:
		return t.Float64s(), nil
	case t.DType() == tensor.Float32:
		return t.Convert(tensor.Float64).Float64s(), nil
	}
	return nil, fmt.Errorf("elements are %v, want float32 or float64", t.DType())
}

func (p *program) Kernels() map[string]string {
	kernels := map[string]string{}
	for _, n := range p.graph.Nodes {
		kernels[n.Op.String()] = "float64 loops"
	}
	return kernels
}

func (p *program) Close() error { return nil }
