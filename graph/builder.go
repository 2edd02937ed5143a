package graph

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/residual-ml/residual/tensor"
)

// Builder makes the nodes of one graph and checks their shapes. It keeps the
// first mistake, with the layer it was made in, and Build returns it, so that
// networks are written without error handling between the lines. After a
// mistake every method returns a placeholder.
type Builder struct {
	nodes     []*Node
	inputs    []*Node
	variables map[string]*Node
	varOrder  []*Node
	updates   []Update
	updated   map[*Node]bool
	guard     *Node
	layer     string
	err       error
}

// NewBuilder returns a Builder of an empty graph.
func NewBuilder() *Builder {
	return &Builder{variables: map[string]*Node{}, updated: map[*Node]bool{}}
}

// placeholder stands for a node that could not be made. Its shape has four
// axes so that code that reads x.Shape[3] goes on to Build and its error.
var placeholder = &Node{ID: -1, Op: OpInvalid, Shape: tensor.Shape{1, 1, 1, 1}}

// Err returns the first mistake so far.
func (b *Builder) Err() error { return b.err }

// Fail records a mistake that the caller found, unless there is one already.
func (b *Builder) Fail(format string, args ...any) *Node {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
		if b.layer != "" {
			b.err = fmt.Errorf("%s: %w", b.layer, b.err)
		}
	}
	return placeholder
}

// Layer names the nodes made until the next call, such as "layer1.0.conv1".
func (b *Builder) Layer(name string) { b.layer = name }

// owns reports whether n is a node of this graph.
func (b *Builder) owns(n *Node) bool {
	return n != nil && n.ID >= 0 && n.ID < len(b.nodes) && b.nodes[n.ID] == n
}

// mostElements is how many a node's output may have: more than fit any memory, and few
// enough that their bytes, of all nodes together, are a number.
const mostElements = min(1<<40, math.MaxInt/8)

// add appends a node made from operands; it is the only place nodes are made.
func (b *Builder) add(n Node, inputs ...*Node) *Node {
	if b.err != nil {
		return placeholder
	}
	for _, in := range inputs {
		if !b.owns(in) {
			return b.Fail("%v: operand %v belongs to another graph", n.Op, in)
		}
		if in.Kind == Integer && n.Op != OpOneHot {
			return b.Fail("%v: operand %v has integers, want real numbers", n.Op, in)
		}
	}
	elements := 1
	for _, d := range n.Shape {
		if d <= 0 {
			return b.Fail("%v: output shape %v is empty", n.Op, n.Shape)
		}
		if elements > mostElements/d {
			return b.Fail("%v: output shape %v has more than %d elements", n.Op, n.Shape, mostElements)
		}
		elements *= d
	}
	n.ID = len(b.nodes)
	n.Inputs = inputs
	if n.Name == "" {
		n.Name = b.layer
	}
	b.nodes = append(b.nodes, &n)
	return &n
}

// wantRank reports a mistake unless x has the given number of axes.
func (b *Builder) wantRank(op Op, x *Node, rank int) bool {
	if b.err == nil && len(x.Shape) != rank {
		b.Fail("%v: shape %v has %d axes, want %d", op, x.Shape, len(x.Shape), rank)
	}
	return b.err == nil
}

// wantShape reports a mistake unless x, an operand of op (or of no operation,
// OpInvalid), has the given shape.
func (b *Builder) wantShape(op Op, what string, x *Node, shape tensor.Shape) bool {
	if b.err == nil && !x.Shape.Equal(shape) {
		if op != OpInvalid {
			what = op.String() + ": " + what
		}
		b.Fail("%s has shape %v, want %v", what, x.Shape, shape)
	}
	return b.err == nil
}

// Input declares a tensor that Program.Run takes; the order of calls is the
// order of Run's arguments.
func (b *Builder) Input(name string, kind Kind, shape ...int) *Node {
	n := b.add(Node{Op: OpInput, Name: name, Kind: kind, Shape: tensor.Shape(shape)})
	b.inputs = append(b.inputs, n)
	return n
}

// Variable declares a value that outlives a run. Declaring a name twice returns
// the first node when the shapes agree.
func (b *Builder) Variable(name string, attrs VariableAttrs, shape ...int) *Node {
	if v := b.variables[name]; v != nil {
		if !v.Shape.Equal(tensor.Shape(shape)) {
			return b.Fail("variable %s: declared with shapes %v and %v", name, v.Shape, tensor.Shape(shape))
		}
		return v
	}
	n := b.add(Node{Op: OpVariable, Name: name, Variable: attrs, Shape: tensor.Shape(shape)})
	if n != placeholder {
		b.variables[name] = n
		b.varOrder = append(b.varOrder, n)
	}
	return n
}

// Variables returns the variables of one role, in the order of declaration.
func (b *Builder) Variables(role Role) []*Node {
	var vs []*Node
	for _, v := range b.varOrder {
		if v.Variable.Role == role {
			vs = append(vs, v)
		}
	}
	return vs
}

// Constant is a scalar.
func (b *Builder) Constant(v float64) *Node { return b.add(Node{Op: OpConstant, Value: v}) }

// Update lets value replace variable at the end of a run.
func (b *Builder) Update(variable, value *Node) {
	switch {
	case b.err != nil:
	case !b.owns(variable) || !b.owns(value):
		b.Fail("update: %v or %v belongs to another graph", variable, value)
	case value.Kind != Real:
		b.Fail("update: the new value %v of variable %s has integers, want real numbers", value, variable.Name)
	case variable.Op != OpVariable:
		b.Fail("update: %v is no variable", variable)
	case b.updated[variable]:
		b.Fail("update: variable %s is updated twice", variable.Name)
	case !variable.Shape.Equal(value.Shape):
		b.Fail("update: variable %s has shape %v, its new value %v", variable.Name, variable.Shape, value.Shape)
	default:
		b.updated[variable] = true
		b.updates = append(b.updates, Update{variable, value})
	}
}

// Amend replaces the value that an Update was given for variable, by one that may be
// computed from it; a variable without one gets it.
func (b *Builder) Amend(variable, value *Node) {
	if b.err != nil || !b.updated[variable] {
		b.Update(variable, value)
		return
	}
	before := slices.IndexFunc(b.updates, func(u Update) bool { return u.Variable == variable })
	b.updates = slices.Delete(b.updates, before, before+1)
	delete(b.updated, variable)
	b.Update(variable, value)
}

// Updated is the value that variable has after a run: the new one where an Update
// was given, else its own.
func (b *Builder) Updated(variable *Node) *Node {
	for _, u := range b.updates {
		if u.Variable == variable {
			return u.Value
		}
	}
	return variable
}

// Guard withholds all updates of a run in which the scalar n is not finite.
func (b *Builder) Guard(n *Node) {
	switch {
	case !b.wantShape(OpInvalid, "guard", n, tensor.Shape{}):
	case !b.owns(n) || n.Kind != Real:
		b.Fail("guard: %v is no real number of this graph", n)
	default:
		b.guard = n
	}
}

// Build finishes the graph: nodes that neither outputs, updates nor the guard
// need are left out. The Builder must not be used afterwards.
func (b *Builder) Build(outputs ...*Node) (*Graph, error) {
	if b.err != nil {
		return nil, b.err
	}
	if len(outputs) == 0 && len(b.updates) == 0 {
		return nil, errors.New("graph without outputs and updates")
	}
	needed := make([]bool, len(b.nodes))
	var need func(n *Node)
	need = func(n *Node) {
		if needed[n.ID] {
			return
		}
		needed[n.ID] = true
		for _, in := range n.Inputs {
			need(in)
		}
	}
	for _, in := range b.inputs {
		need(in) // Run takes them all, used or not
	}
	for _, o := range outputs {
		if !b.owns(o) {
			return nil, fmt.Errorf("output %v belongs to another graph", o)
		}
		need(o)
	}
	for _, u := range b.updates {
		need(u.Variable)
		need(u.Value)
	}
	if b.guard != nil {
		need(b.guard)
	}
	g := &Graph{Inputs: b.inputs, Outputs: outputs, Updates: b.updates, Guard: b.guard}
	for _, n := range b.nodes {
		if needed[n.ID] {
			n.ID = len(g.Nodes)
			g.Nodes = append(g.Nodes, n)
		}
	}
	for _, v := range b.varOrder {
		if v.ID < len(g.Nodes) && g.Nodes[v.ID] == v {
			g.Variables = append(g.Variables, v)
		}
	}
	return g, nil
}
