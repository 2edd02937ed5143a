package onnx

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/residual-ml/residual/format/structure"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// node translates one node.
func (r *reader) node(n *nodeProto) error {
	if n.domain != "" && n.domain != "ai.onnx" {
		return fmt.Errorf("operators of domain %q are not known", n.domain)
	}
	for i := range n.attributes {
		if n.attributes[i].other {
			return fmt.Errorf("attribute %q is of a kind that is not supported", n.attributes[i].name)
		}
	}
	if n.op == "Constant" {
		return r.constantNode(n)
	}
	constant, err := r.allConstant(n)
	if err != nil {
		return err
	}
	if constant {
		return r.fold(n)
	}
	switch n.op {
	case "Identity", "Dropout", "CastLike":
		if n.op == "Dropout" {
			if training, err := r.ints(n, 2); err != nil || len(training) > 0 && training[0] != 0 {
				return only("training_mode", "true", "false: the file is of a network in training")
			}
		}
		x, err := r.operand(n, 0)
		if err != nil {
			return err
		}
		return r.set(n, x)
	case "Cast":
		switch to := int64(n.integer("to", 0)); to {
		case typeFloat, typeFloat16, typeDouble, typeBfloat16:
			x, err := r.operand(n, 0)
			if err != nil {
				return err
			}
			return r.set(n, x)
		default:
			return only("to", to, "a floating-point type")
		}
	case "Shape":
		return r.shape(n)
	case "Slice":
		return r.slice(n)
	case "Concat":
		return r.concatChannels(n)
	case "Conv":
		return r.conv(n)
	case "BatchNormalization":
		return r.batchNorm(n)
	case "Relu", "Sigmoid":
		x, err := r.activation(n, 0)
		if err != nil {
			return err
		}
		kind := structure.ReLU
		if n.op == "Sigmoid" {
			kind = structure.Sigmoid
		}
		return r.layer(n, x, structure.Layer{Kind: kind})
	case "Add", "Sum", "Sub", "Mul", "Div":
		return r.arithmetic(n)
	case "MaxPool", "AveragePool":
		return r.pool(n)
	case "GlobalAveragePool":
		x, err := r.activation(n, 0)
		if err != nil {
			return err
		}
		if x.axes != "NCHW" {
			return fmt.Errorf("the input's axes are %s, want NCHW", x.axes)
		}
		return r.layer(n, x, structure.Layer{Kind: structure.GlobalAvgPool})
	case "ReduceMean":
		return r.reduceMean(n)
	case "Flatten", "Reshape", "Squeeze", "Unsqueeze":
		return r.reshape(n)
	case "Transpose":
		return r.transpose(n)
	case "Gemm", "MatMul":
		return r.dense(n)
	case "Pad":
		return r.pad(n)
	case "Softmax":
		return r.softmax(n)
	}
	return errors.New("the operator is not supported")
}

// dims are an activation's axes' sizes, with batchMark for the pictures.
func (v *value) dims() []int {
	s := v.layer.Shape
	out := make([]int, len(v.axes))
	for i, a := range v.axes {
		switch {
		case a == 'N':
			out[i] = batchMark
		case a == 'C':
			out[i] = s[len(s)-1]
		case len(s) == 1:
			out[i] = 1
		case a == 'H':
			out[i] = s[0]
		default:
			out[i] = s[1]
		}
	}
	return out
}

func (r *reader) shape(n *nodeProto) error {
	x, err := r.activation(n, 0)
	if err != nil {
		return err
	}
	out := n.shapeOf(x.dims())
	return r.set(n, &value{array: &out})
}

func (r *reader) conv(n *nodeProto) error {
	x, err := r.activation(n, 0)
	if err != nil {
		return err
	}
	w, err := r.operand(n, 1)
	if err != nil {
		return err
	}
	if x.axes != "NCHW" {
		return fmt.Errorf("the input's axes are %s, want NCHW", x.axes)
	}
	l := structure.Layer{Kind: structure.Conv}
	if l.Weight, err = w.floats(n.inputs[1]); err != nil {
		return err
	}
	if len(l.Weight.Shape) != 4 {
		return fmt.Errorf("kernel of shape %v", l.Weight.Shape)
	}
	if g := n.integer("group", 1); g != 1 {
		return only("group", g, "1")
	}
	if s := n.integers("kernel_shape"); s != nil && !slices.Equal(s, l.Weight.Shape[2:]) {
		return fmt.Errorf("kernel_shape is %v, the kernel is %v", s, l.Weight.Shape)
	}
	if b, err := r.in(n, 2); err != nil {
		return err
	} else if b != nil {
		if l.Bias, err = b.floats(n.inputs[2]); err != nil {
			return err
		}
	}
	if err := n.window(&l, x.layer.Shape, l.Weight.Shape[2:]); err != nil {
		return err
	}
	return r.layer(n, x, l)
}

// window reads strides, padding and dilations of a convolution or pool.
func (n *nodeProto) window(l *structure.Layer, in tensor.Shape, kernel []int) error {
	strides := n.integers("strides")
	if strides == nil {
		strides = []int{1, 1}
	}
	if len(strides) != 2 || strides[0] != strides[1] || strides[0] < 1 {
		return only("strides", strides, "two that are equal")
	}
	l.Stride = strides[0]
	if d := n.integers("dilations"); slices.ContainsFunc(d, func(x int) bool { return x != 1 }) {
		return only("dilations", d, "1")
	}
	pads := n.integers("pads")
	switch auto := n.text("auto_pad", "NOTSET"); auto {
	case "NOTSET", "":
		switch len(pads) {
		case 0:
		case 4:
			l.Pad = graph.Padding{Top: pads[0], Left: pads[1], Bottom: pads[2], Right: pads[3]}
		default:
			return only("pads", pads, "four numbers")
		}
	case "VALID":
	case "SAME_UPPER", "SAME_LOWER":
		if len(in) != 3 || kernel[0] != kernel[1] || kernel[0] < 1 {
			return only("auto_pad", auto, "explicit pads for such a kernel")
		}
		l.Pad = graph.SamePadding(in[0], in[1], kernel[0], l.Stride)
		if p := l.Pad; auto == "SAME_LOWER" {
			l.Pad = graph.Padding{Top: p.Bottom, Bottom: p.Top, Left: p.Right, Right: p.Left}
		}
	default:
		return only("auto_pad", auto, "NOTSET, VALID, SAME_UPPER or SAME_LOWER")
	}
	return nil
}

func (r *reader) pool(n *nodeProto) error {
	x, err := r.activation(n, 0)
	if err != nil {
		return err
	}
	if x.axes != "NCHW" {
		return fmt.Errorf("the input's axes are %s, want NCHW", x.axes)
	}
	kernel := n.integers("kernel_shape")
	in := x.layer.Shape
	if len(in) != 3 {
		return fmt.Errorf("the input has shape %v", in)
	}
	l := structure.Layer{Kind: structure.MaxPool, CountPad: n.integer("count_include_pad", 0) != 0}
	if n.op == "AveragePool" {
		l.Kind = structure.AvgPool
		if slices.Equal(kernel, in[:2]) && kernel[0] != kernel[1] && n.attribute("pads") == nil && n.text("auto_pad", "NOTSET") == "NOTSET" {
			return r.layer(n, x, structure.Layer{Kind: structure.GlobalAvgPool})
		}
	}
	if len(kernel) != 2 || kernel[0] != kernel[1] {
		return only("kernel_shape", kernel, "two numbers that are equal")
	}
	l.Size = kernel[0]
	if err := n.window(&l, in, kernel); err != nil {
		return err
	}
	if n.integer("ceil_mode", 0) != 0 {
		l.Pad.Bottom += ceilPad(in[0], l.Pad.Top, l.Pad.Bottom, l.Size, l.Stride)
		l.Pad.Right += ceilPad(in[1], l.Pad.Left, l.Pad.Right, l.Size, l.Stride)
		if l.Kind == structure.AvgPool && l.CountPad && max(l.Pad.Bottom, l.Pad.Right) > 0 {
			return only("ceil_mode", 1, "0 where padding counts in the average")
		}
	}
	if o := n.integer("storage_order", 0); o != 0 && len(n.outputs) > 1 {
		return only("storage_order", o, "0")
	}
	return r.layer(n, x, l)
}

// ceilPad is the padding that makes of the last, incomplete step along an axis a
// whole one, which is ceil_mode. A window that would begin in the padding is none.
func ceilPad(in, before, after, size, stride int) int {
	span := in + before + after - size
	if span < 0 || span%stride == 0 || (span/stride+1)*stride >= in+before {
		return 0
	}
	return stride - span%stride
}

func (r *reader) batchNorm(n *nodeProto) error {
	x, err := r.activation(n, 0)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(x.axes, "NC") {
		return fmt.Errorf("the input's axes are %s, want NCHW", x.axes)
	}
	if n.integer("training_mode", 0) != 0 {
		return only("training_mode", 1, "0: the file is of a network in training")
	}
	if n.integer("spatial", 1) == 0 {
		return only("spatial", 0, "1")
	}
	l := structure.Layer{Kind: structure.BatchNorm, Epsilon: float64(n.float("epsilon", 1e-5))}
	for i, p := range []*structure.Param{&l.Scale, &l.Shift, &l.Mean, &l.Variance} {
		v, err := r.operand(n, i+1)
		if err != nil {
			return err
		}
		if *p, err = v.floats(n.inputs[i+1]); err != nil {
			return err
		}
	}
	return r.layer(n, x, l)
}

// arithmetic is the sum of two activations, or an activation scaled or shifted
// by constants, one or one per channel.
func (r *reader) arithmetic(n *nodeProto) error {
	if len(n.inputs) != 2 {
		return fmt.Errorf("%d operands, want 2", len(n.inputs))
	}
	a, err := r.operand(n, 0)
	if err != nil {
		return err
	}
	b, err := r.operand(n, 1)
	if err != nil {
		return err
	}
	if a.layer != nil && b.layer != nil {
		if n.op == "Sub" || n.op == "Div" {
			return errors.New("of two activations, only sum and product are supported")
		}
		if a, err = r.activation(n, 0); err != nil {
			return err
		}
		if b, err = r.activation(n, 1); err != nil {
			return err
		}
		if a.axes != b.axes {
			return fmt.Errorf("axes %s and %s", a.axes, b.axes)
		}
		if n.op == "Mul" { // a picture by factors of its channels
			if len(a.layer.Shape) == 1 {
				a, b = b, a
			}
			return r.layer(n, a, structure.Layer{Kind: structure.Multiply, Inputs: []*structure.Layer{b.layer}})
		}
		return r.layer(n, a, structure.Layer{Kind: structure.Add, Inputs: []*structure.Layer{b.layer}})
	}
	at, c := 0, b
	if a.layer == nil {
		at, c = 1, a
	}
	x, err := r.activation(n, at)
	if err != nil {
		return err
	}
	numbers, err := r.perChannel(x, c)
	if err != nil {
		return err
	}
	gain, offset := []float64{1}, []float64{0}
	switch {
	case n.op == "Add" || n.op == "Sum":
		offset = numbers
	case n.op == "Mul":
		gain = numbers
	case n.op == "Sub" && at == 0:
		offset = each(numbers, func(v float64) float64 { return -v })
	case n.op == "Sub":
		gain, offset = []float64{-1}, numbers
	case at == 0:
		gain = each(numbers, func(v float64) float64 { return 1 / v })
	default:
		return errors.New("a constant divided by an activation")
	}
	return r.layer(n, x, structure.Layer{Kind: structure.Rescale, Gain: gain, Offset: offset})
}

func each(v []float64, f func(float64) float64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = f(x)
	}
	return out
}

// perChannel is a constant that is broadcast over an activation: one number, or
// one per channel.
func (r *reader) perChannel(x, c *value) ([]float64, error) {
	a, err := r.constant(c)
	if err != nil {
		return nil, err
	}
	dims := x.dims()
	if len(a.dims) > len(dims) {
		return nil, fmt.Errorf("a constant of %v on %s", a.dims, x.axes)
	}
	for i, d := range a.dims {
		axis := len(dims) - len(a.dims) + i
		if d != 1 && (x.axes[axis] != 'C' || d != dims[axis]) {
			return nil, fmt.Errorf("a constant of %v on %s of %v: want one number, or one per channel", a.dims, x.axes, x.layer.Shape)
		}
	}
	if len(a.values) == 0 {
		return nil, errors.New("a constant without numbers")
	}
	return a.values, nil
}

// reduceMean over height and width is the global average pool.
func (r *reader) reduceMean(n *nodeProto) error {
	x, err := r.activation(n, 0)
	if err != nil {
		return err
	}
	axes := n.integers("axes")
	if given, err := r.ints(n, 1); err != nil {
		return err
	} else if given != nil {
		axes = given
	}
	over := map[byte]bool{}
	for _, a := range axes {
		if a, err = axisOf(a, len(x.axes)); err != nil {
			return err
		}
		over[x.axes[a]] = true
	}
	if len(over) != 2 || !over['H'] || !over['W'] || len(x.layer.Shape) != 3 {
		return only("axes", axes, "height and width")
	}
	pooled := *x
	if n.integer("keepdims", 1) == 0 {
		pooled.axes = without(x.axes, "HW")
	}
	return r.layer(n, &pooled, structure.Layer{Kind: structure.GlobalAvgPool})
}

func without(axes, drop string) string {
	return strings.Map(func(a rune) rune {
		if strings.ContainsRune(drop, a) {
			return -1
		}
		return a
	}, axes)
}

// reshape is a view of the same numbers: flattening, or axes of size 1 that come
// and go.
func (r *reader) reshape(n *nodeProto) error {
	x, err := r.activation(n, 0)
	if err != nil {
		return err
	}
	dims := x.dims()
	var target []int
	switch n.op {
	case "Flatten":
		axis, err := axisOf(n.integer("axis", 1), len(dims))
		if err != nil || axis != 1 {
			return only("axis", n.integer("axis", 1), "1")
		}
		target = []int{batchMark, -1}
	case "Reshape":
		if target, err = r.ints(n, 1); err != nil {
			return err
		}
		if n.integer("allowzero", 0) != 0 && slices.Contains(target, 0) {
			return only("allowzero", 1, "0")
		}
	default:
		axes := n.integers("axes")
		if given, err := r.ints(n, 1); err != nil {
			return err
		} else if given != nil {
			axes = given
		}
		resize := squeezed
		if n.op == "Unsqueeze" {
			resize = unsqueezed
		}
		if target, err = resize(dims, axes); err != nil {
			return err
		}
	}
	if len(target) == 0 {
		return errors.New("no target shape")
	}
	// Pictures stay apart: the first axis is theirs, under any of its names.
	size := x.layer.Shape.Elements()
	rest := slices.Clone(target[1:])
	first, open := target[0], slices.Index(rest, -1)
	known := 1
	for i, d := range rest {
		if d == 0 && i+1 < len(dims) {
			rest[i] = dims[i+1]
		}
		if i != open {
			if rest[i] < 1 || known > size/rest[i] {
				return only("shape", target, fmt.Sprintf("one of %d numbers per picture", size))
			}
			known *= rest[i]
		}
	}
	if open >= 0 {
		rest[open] = size / known
		known *= rest[open]
	}
	if x.axes[0] != 'N' || known != size || first != batchMark && first != 0 && first != -1 && int64(first) != r.batch && !(first == 1 && r.batch == 0) {
		return only("shape", target, fmt.Sprintf("pictures first, then %d numbers", size))
	}
	if slices.Equal(rest, dims[1:]) {
		return r.set(n, x)
	}
	if len(x.layer.Shape) == 1 { // only axes of size 1 can have changed
		axes := "N"
		for _, d := range rest {
			switch {
			case d == size && !strings.Contains(axes, "C"):
				axes += "C"
			case d != 1 || len(axes) > 3:
				return only("shape", target, "the channels and axes of size 1")
			case strings.Contains(axes, "H"):
				axes += "W"
			default:
				axes += "H"
			}
		}
		return r.set(n, &value{layer: x.layer, axes: axes})
	}
	if len(rest) != 1 {
		return only("shape", target, "two axes")
	}
	return r.layer(n, x, structure.Layer{Kind: structure.Flatten})
}

func (r *reader) transpose(n *nodeProto) error {
	x, err := r.computed(n, 0)
	if err != nil {
		return err
	}
	perm := n.integers("perm")
	if perm == nil {
		for i := range x.axes {
			perm = append(perm, len(x.axes)-1-i)
		}
	}
	if err := permutation(perm, len(x.axes)); err != nil {
		return err
	}
	axes := make([]byte, len(perm))
	for i, p := range perm {
		axes[i] = x.axes[p]
	}
	moved := *x
	moved.axes = string(axes)
	return r.set(n, &moved)
}

// dense is Gemm or MatMul with a constant kernel.
func (r *reader) dense(n *nodeProto) error {
	x, err := r.activation(n, 0)
	if err != nil {
		return err
	}
	w, err := r.operand(n, 1)
	if err != nil {
		return err
	}
	if x.axes != "NC" {
		return fmt.Errorf("the input's axes are %s, want pictures and channels", x.axes)
	}
	transposed := n.op == "Gemm" && n.integer("transB", 0) != 0
	if n.op == "Gemm" {
		if a, b, t := n.float("alpha", 1), n.float("beta", 1), n.integer("transA", 0); a != 1 || b != 1 || t != 0 {
			return fmt.Errorf("alpha %v, beta %v, transA %d, want 1, 1, 0", a, b, t)
		}
	}
	l := structure.Layer{Kind: structure.Dense}
	if l.Weight, err = w.floats(n.inputs[1]); err != nil {
		return err
	}
	if len(l.Weight.Shape) != 2 {
		return fmt.Errorf("kernel of shape %v", l.Weight.Shape)
	}
	if !transposed {
		l.Weight = structure.Value(l.Weight.Name, transposed2D(l.Weight.Value))
	}
	if n.op == "Gemm" {
		c, err := r.in(n, 2)
		if err != nil {
			return err
		}
		if c != nil {
			if l.Bias, err = c.floats(n.inputs[2]); err != nil {
				return err
			}
			if s := l.Bias.Shape; len(s) == 2 && s[0] == 1 {
				l.Bias = structure.Value(l.Bias.Name, l.Bias.Value.Reshape(s[1]))
			}
		}
	}
	return r.layer(n, x, l)
}

// transposed2D is [C,K] → [K,C], in float32 unless it was float64.
func transposed2D(t tensor.Tensor) tensor.Tensor {
	s := t.Shape()
	if t.DType() == tensor.Float64 {
		return tensor.Of(flip(t.Float64s(), s), s[1], s[0])
	}
	return tensor.Of(flip(t.Convert(tensor.Float32).Float32s(), s), s[1], s[0])
}

func flip[T any](src []T, s tensor.Shape) []T {
	out := make([]T, len(src))
	for i := range s[0] {
		for j := range s[1] {
			out[j*s[0]+i] = src[i*s[1]+j]
		}
	}
	return out
}

// pad adds zeros around the picture, or channels of zeros.
func (r *reader) pad(n *nodeProto) error {
	x, err := r.activation(n, 0)
	if err != nil {
		return err
	}
	if mode := n.text("mode", "constant"); mode != "constant" {
		return only("mode", mode, "constant")
	}
	pads, by := n.integers("pads"), float64(n.float("value", 0))
	if r.opset >= 11 {
		if pads, err = r.ints(n, 1); err != nil {
			return err
		}
		if v, err := r.in(n, 2); err != nil {
			return err
		} else if v != nil {
			a, err := r.constant(v)
			if err != nil {
				return err
			}
			if len(a.values) != 1 {
				return fmt.Errorf("constant_value has %d numbers, want 1", len(a.values))
			}
			by = a.values[0]
		}
	}
	if by != 0 {
		return only("constant_value", by, "0")
	}
	axes, err := r.ints(n, 3)
	if err != nil {
		return err
	}
	if axes == nil {
		for i := range x.axes {
			axes = append(axes, i)
		}
	}
	if len(pads) != 2*len(axes) {
		return only("pads", pads, fmt.Sprintf("%d numbers", 2*len(axes)))
	}
	var p graph.Padding
	before, after := 0, 0
	for i, axis := range axes {
		if axis, err = axisOf(axis, len(x.axes)); err != nil {
			return err
		}
		b, a := pads[i], pads[len(axes)+i]
		switch x.axes[axis] {
		case 'H':
			p.Top, p.Bottom = p.Top+b, p.Bottom+a
		case 'W':
			p.Left, p.Right = p.Left+b, p.Right+a
		case 'C':
			before, after = before+b, after+a
		default:
			if a != 0 || b != 0 {
				return only("pads", pads, "none for the pictures")
			}
		}
	}
	l := x.layer
	if p != (graph.Padding{}) {
		if l, err = r.net.Add(structure.Layer{Kind: structure.Pad, Name: n.label(), Inputs: []*structure.Layer{l}, Pad: p}); err != nil {
			return err
		}
	}
	if before != 0 || after != 0 {
		if l, err = r.net.Add(structure.Layer{Kind: structure.PadChannels, Name: n.label(), Inputs: []*structure.Layer{l}, Before: before, After: after}); err != nil {
			return err
		}
	}
	return r.set(n, &value{layer: l, axes: x.axes})
}

// slice of every n-th row or column; or of everything.
func (r *reader) slice(n *nodeProto) error {
	x, err := r.computed(n, 0)
	if err != nil {
		return err
	}
	var lists [4][]int
	for i, name := range sliceLists {
		if r.opset < 10 {
			lists[i] = n.integers(name)
		} else if lists[i], err = r.ints(n, i+1); err != nil {
			return err
		}
	}
	starts, ends, axes, steps := lists[0], lists[1], lists[2], lists[3]
	if len(starts) == 0 || len(ends) != len(starts) || axes != nil && len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		return fmt.Errorf("starts %v, ends %v, axes %v, steps %v", starts, ends, axes, steps)
	}
	dims := x.dims()
	sub := *x
	for i := range starts {
		axis, step := i, 1
		if axes != nil {
			axis = axes[i]
		}
		if steps != nil {
			step = steps[i]
		}
		if axis, err = axisOf(axis, len(dims)); err != nil {
			return err
		}
		whole := starts[i] == 0 && (ends[i] >= dims[axis] || x.axes[axis] == 'N' && ends[i] == math.MaxInt32)
		switch letter := x.axes[axis]; {
		case whole && step == 1:
		case whole && step > 1 && letter == 'H' && sub.rows == 0 && len(x.layer.Shape) == 3:
			sub.rows = step
		case whole && step > 1 && letter == 'W' && sub.columns == 0 && len(x.layer.Shape) == 3:
			sub.columns = step
		default:
			return fmt.Errorf("starts %v, ends %v, axes %v, steps %v of %s %v: want every n-th row and column from the first to the last",
				starts, ends, axes, steps, x.axes, x.layer.Shape)
		}
	}
	return r.set(n, &sub)
}

// concatChannels is an activation between channels of zeros.
func (r *reader) concatChannels(n *nodeProto) error {
	var x *value
	before, after := 0, 0
	for i := range n.inputs {
		v, err := r.operand(n, i)
		if err != nil {
			return err
		}
		if v.layer != nil {
			if x != nil {
				return errors.New("two activations side by side")
			}
			if x, err = r.activation(n, i); err != nil {
				return err
			}
		}
	}
	axis, err := axisOf(n.integer("axis", 0), len(x.axes))
	if err != nil || x.axes[axis] != 'C' {
		return only("axis", n.integer("axis", 0), "the channels'")
	}
	dims, seen := x.dims(), false
	for i := range n.inputs {
		v, err := r.operand(n, i)
		if err != nil {
			return err
		}
		if v.layer != nil {
			seen = true
			continue
		}
		a, err := r.constant(v)
		if err != nil {
			return err
		}
		if len(a.dims) != len(x.axes) || slices.ContainsFunc(a.values, func(v float64) bool { return v != 0 }) {
			return fmt.Errorf("operand %d has dims %v or is not zero", i+1, a.dims)
		}
		for k, d := range a.dims {
			if k != axis && x.axes[k] != 'N' && d != dims[k] {
				return fmt.Errorf("operand %d has dims %v beside %s of %v", i+1, a.dims, x.axes, x.layer.Shape)
			}
		}
		if seen {
			after += a.dims[axis]
		} else {
			before += a.dims[axis]
		}
	}
	return r.layer(n, x, structure.Layer{Kind: structure.PadChannels, Before: before, After: after})
}

func (r *reader) softmax(n *nodeProto) error {
	x, err := r.activation(n, 0)
	if err != nil {
		return err
	}
	otherwise := -1
	if r.opset < 13 {
		otherwise = 1
	}
	axis, err := axisOf(n.integer("axis", otherwise), len(x.axes))
	if err != nil || x.axes != "NC" || axis != 1 {
		return fmt.Errorf("axis %d of %s, want the classes'", n.integer("axis", otherwise), x.axes)
	}
	return r.layer(n, x, structure.Layer{Kind: structure.Softmax})
}
