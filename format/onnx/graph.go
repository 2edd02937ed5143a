package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/residual-ml/residual/format/structure"
	"github.com/residual-ml/residual/tensor"
)

// value is what a name in the file stands for: a constant, or an activation.
type value struct {
	proto   *tensorProto // a constant as the file has it
	decoded tensor.Tensor
	array   *array // a constant that was worked on

	layer *structure.Layer
	// axes says what each axis of an activation is, in the file's order, such as
	// "NCHW". Of a layer without height and width (after global pooling, dense)
	// H and W are axes of size 1. Every axis but these four letters is none.
	axes string
	// rows and columns are the steps of slices along H and W that are not layers
	// yet, because exporters write one Slice per axis; 0: none.
	rows, columns int
}

// batchMark stands for the unknown number of pictures where shapes are computed
// with. No axis has this size, and arithmetic with it is not supported.
const batchMark = math.MaxInt32 - 1

// reader makes a structure.Network of a graph.
type reader struct {
	folder
	opset    int64
	values   map[string]*value
	net      *structure.Network
	problems []string // nodes that have no counterpart
	failed   map[string]bool
	batch    int64 // the file's fixed number of pictures; 0: any
}

// errSkip says that a node cannot be mapped for the same reason as one before it.
var errSkip = errors.New("an operand was not mapped")

// network translates g, whose input has the layout (NCHW or NHWC) and picture
// size that shape says.
func (m *modelProto) network(g *graphProto, opset int64, layout string, shape tensor.Shape, budget int) (*structure.Network, *reader, error) {
	r := &reader{folder: folder{left: budget}, opset: opset, values: map[string]*value{}, net: &structure.Network{}, failed: map[string]bool{}}
	for i := range g.tensors {
		t := &g.tensors[i]
		if t.name == "" || r.values[t.name] != nil {
			return nil, nil, fmt.Errorf("there are two tensors %q", t.name)
		}
		r.values[t.name] = &value{proto: t}
	}
	input, err := g.picture()
	if err != nil {
		return nil, nil, err
	}
	if d := input.dims[0]; d.size > 0 {
		r.batch = d.size
	}
	l, err := r.net.Add(structure.Layer{Kind: structure.Input, Name: input.name, Shape: shape})
	if err != nil {
		return nil, nil, err
	}
	r.values[input.name] = &value{layer: l, axes: layout}
	for i := range g.nodes {
		n := &g.nodes[i]
		if err := r.node(n); err != nil {
			for _, out := range n.outputs {
				r.failed[out] = true
			}
			if !errors.Is(err, errSkip) {
				r.problems = append(r.problems, fmt.Sprintf("%s %q: %v", n.op, n.label(), err))
			}
		}
	}
	return r.net, r, nil
}

// label is the node's name, or its first output's where it has none.
func (n *nodeProto) label() string {
	if n.name == "" && len(n.outputs) > 0 {
		return n.outputs[0]
	}
	return n.name
}

// picture is the graph's one input that is not a tensor of its own.
func (g *graphProto) picture() (*valueProto, error) {
	own := map[string]bool{}
	for i := range g.tensors {
		own[g.tensors[i].name] = true
	}
	var found *valueProto
	for i := range g.inputs {
		in := &g.inputs[i]
		if own[in.name] {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("inputs %q and %q: want one, the picture", found.name, in.name)
		}
		found = in
	}
	if found == nil {
		return nil, errors.New("no input")
	}
	if len(found.dims) != 4 {
		return nil, fmt.Errorf("input %q has %d axes, want 4: pictures, channels, height, width", found.name, len(found.dims))
	}
	return found, nil
}

// in returns operand i, nil where the node leaves an optional one out.
func (r *reader) in(n *nodeProto, i int) (*value, error) {
	if i >= len(n.inputs) || n.inputs[i] == "" {
		return nil, nil
	}
	name := n.inputs[i]
	if v := r.values[name]; v != nil {
		return v, nil
	}
	if r.failed[name] {
		return nil, errSkip
	}
	return nil, fmt.Errorf("operand %q does not exist", name)
}

// operand is in for one that must be there.
func (r *reader) operand(n *nodeProto, i int) (*value, error) {
	v, err := r.in(n, i)
	if v == nil && err == nil {
		err = fmt.Errorf("operand %d is missing", i+1)
	}
	return v, err
}

// computed is an operand that must be an activation.
func (r *reader) computed(n *nodeProto, i int) (*value, error) {
	v, err := r.operand(n, i)
	if err == nil && v.layer == nil {
		err = fmt.Errorf("operand %d is a constant", i+1)
	}
	return v, err
}

// activation is computed with slices along both axes made one.
func (r *reader) activation(n *nodeProto, i int) (*value, error) {
	v, err := r.computed(n, i)
	if err != nil {
		return nil, err
	}
	if v.rows != v.columns {
		return nil, errors.New("rows and columns are subsampled differently")
	}
	if v.rows > 1 {
		l, err := r.net.Add(structure.Layer{Kind: structure.Subsample, Name: n.label(), Inputs: []*structure.Layer{v.layer}, Stride: v.rows})
		if err != nil {
			return nil, err
		}
		*v = value{layer: l, axes: v.axes}
	}
	return v, nil
}

// tensor decodes a constant.
func (v *value) tensor() (tensor.Tensor, error) {
	switch {
	case v.layer != nil:
		return tensor.Tensor{}, errors.New("an operand that must be a constant is computed")
	case v.array != nil:
		out := make([]float32, len(v.array.values))
		for i, x := range v.array.values {
			out[i] = float32(x)
		}
		return tensor.Of(out, v.array.dims...), nil
	case !v.decoded.Valid():
		t, err := v.proto.tensor()
		if err != nil {
			return t, err
		}
		v.decoded = t
	}
	return v.decoded, nil
}

// floats is a constant of floating-point numbers in the file's own type, as a
// parameter of a layer.
func (v *value) floats(name string) (structure.Param, error) {
	t, err := v.tensor()
	if err != nil {
		return structure.Param{}, err
	}
	switch t.DType() {
	case tensor.Float32, tensor.Float64, tensor.Float16, tensor.BFloat16:
		return structure.Value(name, t), nil
	}
	return structure.Param{}, fmt.Errorf("%q holds integers", name)
}

// constant is a constant to work with.
func (r *reader) constant(v *value) (array, error) {
	if v.array != nil {
		return *v.array, nil
	}
	if v.layer == nil && !v.decoded.Valid() { // the type may be narrower than float64
		if shape, err := v.proto.axes(); err != nil {
			return array{}, err
		} else if err := r.pay(shape); err != nil {
			return array{}, err
		}
	}
	t, err := v.tensor()
	if err != nil {
		return array{}, err
	}
	a := arrayOf(t)
	v.array = &a
	return a, nil
}

// ints is operand i as a list of integers; nil where it is left out.
func (r *reader) ints(n *nodeProto, i int) ([]int, error) {
	v, err := r.in(n, i)
	if v == nil || err != nil {
		return nil, err
	}
	a, err := r.constant(v)
	if err != nil {
		return nil, err
	}
	return a.list()
}

// Attributes, with the operator's defaults.
func (n *nodeProto) attribute(name string) *attributeProto {
	for i := range n.attributes {
		if n.attributes[i].name == name {
			return &n.attributes[i]
		}
	}
	return nil
}

func (n *nodeProto) integer(name string, otherwise int) int {
	if a := n.attribute(name); a != nil {
		return int(min(max(a.integer, math.MinInt32), math.MaxInt32))
	}
	return otherwise
}

func (n *nodeProto) float(name string, otherwise float32) float32 {
	if a := n.attribute(name); a != nil {
		return a.float
	}
	return otherwise
}

func (n *nodeProto) text(name, otherwise string) string {
	if a := n.attribute(name); a != nil {
		return string(a.text)
	}
	return otherwise
}

func (n *nodeProto) integers(name string) []int {
	a := n.attribute(name)
	if a == nil {
		return nil
	}
	out := make([]int, len(a.ints))
	for i, x := range a.ints {
		out[i] = int(min(max(x, math.MinInt32), math.MaxInt32))
	}
	return out
}

// layer appends a layer over x and names it as the node's first output.
func (r *reader) layer(n *nodeProto, x *value, l structure.Layer) error {
	l.Name = n.label()
	l.Inputs = append([]*structure.Layer{x.layer}, l.Inputs...)
	added, err := r.net.Add(l)
	if err != nil {
		return err
	}
	axes := x.axes
	if l.Kind == structure.Flatten || l.Kind == structure.Dense {
		axes = "NC"
	}
	return r.set(n, &value{layer: added, axes: axes})
}

// set names the node's first output.
func (r *reader) set(n *nodeProto, v *value) error {
	if len(n.outputs) == 0 || n.outputs[0] == "" {
		return errors.New("no output")
	}
	if r.values[n.outputs[0]] != nil {
		return fmt.Errorf("%q is computed twice", n.outputs[0])
	}
	r.values[n.outputs[0]] = v
	return nil
}

// only says that an attribute has a value that is not supported.
func only(name string, got any, want string) error {
	return fmt.Errorf("%s is %v, want %s", name, got, want)
}

func (r *reader) constantNode(n *nodeProto) error {
	if len(n.attributes) != 1 {
		return fmt.Errorf("%d attributes, want the value", len(n.attributes))
	}
	a := &n.attributes[0]
	switch a.name {
	case "value":
		if a.tensor == nil {
			return errors.New("no value")
		}
		return r.set(n, &value{proto: a.tensor})
	case "value_float":
		return r.set(n, &value{array: &array{dims: []int{}, values: []float64{float64(a.float)}}})
	case "value_int":
		return r.set(n, &value{array: &array{dims: []int{}, values: []float64{float64(a.integer)}}})
	case "value_floats":
		c := array{dims: []int{len(a.floats)}}
		for _, x := range a.floats {
			c.values = append(c.values, float64(x))
		}
		return r.set(n, &value{array: &c})
	case "value_ints":
		c := array{dims: []int{len(a.ints)}}
		for _, x := range a.ints {
			c.values = append(c.values, float64(x))
		}
		return r.set(n, &value{array: &c})
	}
	return fmt.Errorf("attribute %q is not supported", a.name)
}

// allConstant reports whether every operand is a constant.
func (r *reader) allConstant(n *nodeProto) (bool, error) {
	if len(n.inputs) == 0 {
		return false, nil
	}
	for i := range n.inputs {
		v, err := r.in(n, i)
		if err != nil {
			return false, err
		}
		if v != nil && v.layer != nil {
			return false, nil
		}
	}
	return true, nil
}

// fold computes a node of constants.
func (r *reader) fold(n *nodeProto) error {
	if n.op == "Identity" {
		v, err := r.operand(n, 0)
		if err != nil {
			return err
		}
		return r.set(n, v)
	}
	var operands []array
	for i := range n.inputs {
		v, err := r.in(n, i)
		if err != nil {
			return err
		}
		if v == nil {
			operands = append(operands, array{})
			continue
		}
		a, err := r.constant(v)
		if err != nil {
			return err
		}
		operands = append(operands, a)
	}
	out, err := r.folder.node(n, operands)
	if err != nil {
		return err
	}
	return r.set(n, &value{array: &out})
}

// node computes the operators that rearrange constants; the shapes and padding
// amounts of some exporters are made so. Operands that are left out have no
// values.
func (f *folder) node(n *nodeProto, in []array) (array, error) {
	if len(in) == 0 || in[0].dims == nil {
		return array{}, errors.New("operand 1 is missing")
	}
	x := in[0]
	// list is operand i, or the attribute that it was in older operator sets.
	list := func(i int, attribute string) ([]int, error) {
		if i < len(in) && in[i].values != nil {
			return in[i].list()
		}
		return n.integers(attribute), nil
	}
	// view is x with the dims that change makes of its own and a list.
	view := func(attribute string, change func(dims, list []int) ([]int, error)) (array, error) {
		to, err := list(1, attribute)
		if err != nil {
			return array{}, err
		}
		dims, err := change(x.dims, to)
		return array{dims, x.values}, err
	}
	switch n.op {
	case "Cast":
		if to := int64(n.integer("to", 0)); to == typeInt64 || to == typeInt32 {
			out := array{x.dims, slices.Clone(x.values)}
			for i, v := range out.values {
				out.values[i] = math.Trunc(v)
			}
			return out, f.pay(x.dims)
		} else if elementSize(to) < 2 {
			return array{}, only("to", to, "a floating-point type or an integer of 32 or 64 bits")
		}
		return x, nil
	case "Shape":
		return n.shapeOf(x.dims), nil
	case "ConstantOfShape":
		dims, err := x.list()
		if err != nil {
			return array{}, err
		}
		for i, d := range dims {
			if d == batchMark { // one picture stands for all: it is zeros that are concatenated
				dims[i] = 1
			}
		}
		if err := f.pay(dims); err != nil {
			return array{}, err
		}
		fill := 0.0
		if a := n.attribute("value"); a != nil && a.tensor != nil {
			t, err := a.tensor.tensor()
			if err != nil {
				return array{}, err
			}
			if t.Len() != 1 {
				return array{}, fmt.Errorf("value: %d numbers, want 1", t.Len())
			}
			fill = arrayOf(t).values[0]
		}
		count, _ := elements(dims, math.MaxInt)
		return array{dims, slices.Repeat([]float64{fill}, count)}, nil
	case "Concat":
		return f.concat(n.integer("axis", 0), in)
	case "Add", "Sub", "Mul":
		if len(in) != 2 || in[1].dims == nil {
			return array{}, errors.New("operand 2 is missing")
		}
		return f.broadcast(x, in[1], map[string]func(a, b float64) float64{
			"Add": func(a, b float64) float64 { return a + b },
			"Sub": func(a, b float64) float64 { return a - b },
			"Mul": func(a, b float64) float64 { return a * b },
		}[n.op])
	case "Expand":
		target, err := list(1, "shape")
		if err != nil {
			return array{}, err
		}
		count, ok := elements(target, f.left)
		if !ok {
			return array{}, only("shape", target, "a small one")
		}
		return f.broadcast(x, array{target, make([]float64, count)}, func(a, _ float64) float64 { return a })
	case "Gather":
		if len(in) < 2 {
			return array{}, errors.New("operand 2 is missing")
		}
		return f.take(x, n.integer("axis", 0), in[1])
	case "Transpose":
		return f.transpose(x, n.integers("perm"))
	case "Reshape":
		return view("shape", reshaped)
	case "Squeeze":
		return view("axes", squeezed)
	case "Unsqueeze":
		return view("axes", unsqueezed)
	case "Slice":
		var lists [4][]int
		for i, name := range sliceLists {
			var err error
			if lists[i], err = list(i+1, name); err != nil {
				return array{}, err
			}
		}
		starts, ends, axes, steps := lists[0], lists[1], lists[2], lists[3]
		for i := range starts {
			axis, step := i, 1
			if i < len(axes) {
				axis = axes[i]
			}
			if i < len(steps) {
				step = steps[i]
			}
			if i >= len(ends) {
				return array{}, errors.New("fewer ends than starts")
			}
			var err error
			if x, err = f.slice(x, axis, starts[i], ends[i], step); err != nil {
				return array{}, err
			}
		}
		return x, nil
	}
	return array{}, errors.New("the operator is not supported on constants")
}

// sliceLists are the operands of Slice after the first, attributes before opset 10.
var sliceLists = [4]string{"starts", "ends", "axes", "steps"}

// shapeOf is what Shape gives of a value of these dims.
func (n *nodeProto) shapeOf(dims []int) array {
	start, count := sliced(len(dims), n.integer("start", 0), n.integer("end", len(dims)), 1)
	out := array{dims: []int{count}}
	for _, d := range dims[start : start+count] {
		out.values = append(out.values, float64(d))
	}
	return out
}
