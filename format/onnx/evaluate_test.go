package onnx

import (
	"errors"
	"math"
	"slices"
	"testing"
)

// evaluate runs a graph as its operators are defined in
// https://onnx.ai/onnx/operators/, in float64, by plain loops over every index.
// It knows nothing of packages structure, graph and model: files that are
// written are judged by it, and it is judged by golden/onnx_*.onnx, whose outputs
// are onnxruntime's.
func evaluate(t testing.TB, m *modelProto, picture array) array {
	t.Helper()
	values := map[string]array{"": {}}
	f := &folder{left: math.MaxInt}
	for i := range m.graph.tensors {
		p := &m.graph.tensors[i]
		v, err := p.tensor()
		if err != nil {
			t.Fatal(err)
		}
		values[p.name] = arrayOf(v)
	}
	for _, in := range m.graph.inputs {
		if _, own := values[in.name]; !own {
			values[in.name] = picture
		}
	}
	for i := range m.graph.nodes {
		n := &m.graph.nodes[i]
		var in []array
		for _, name := range n.inputs {
			v, ok := values[name]
			if !ok {
				t.Fatalf("node %q: operand %q is not computed before", n.label(), name)
			}
			in = append(in, v)
		}
		out, err := evaluateNode(f, n, in)
		if err != nil {
			t.Fatalf("%s %q: %v", n.op, n.label(), err)
		}
		if _, twice := values[n.outputs[0]]; twice {
			t.Fatalf("%q is computed twice", n.outputs[0])
		}
		values[n.outputs[0]] = out
	}
	out, ok := values[m.graph.outputs[0].name]
	if !ok {
		t.Fatalf("output %q is not computed", m.graph.outputs[0].name)
	}
	return out
}

func evaluateNode(f *folder, n *nodeProto, in []array) (array, error) {
	elementwise := func(op func(a, b float64) float64) (array, error) { return f.broadcast(in[0], in[1], op) }
	each := func(op func(x float64) float64) (array, error) {
		out := array{in[0].dims, slices.Clone(in[0].values)}
		for i, x := range out.values {
			out.values[i] = op(x)
		}
		return out, nil
	}
	list := func(i int, attribute string) []int {
		if i < len(in) && in[i].dims != nil {
			return in[i].ints()
		}
		return n.integers(attribute)
	}
	switch n.op {
	case "Constant":
		r := &reader{values: map[string]*value{}}
		if err := r.constantNode(n); err != nil {
			return array{}, err
		}
		v := r.values[n.outputs[0]]
		if v.array != nil {
			return *v.array, nil
		}
		c, err := v.proto.tensor()
		return arrayOf(c), err
	case "Identity", "Dropout", "CastLike":
		return in[0], nil
	case "Cast": // of numbers that stay what they are
		return in[0], nil
	case "Relu":
		return each(func(x float64) float64 { return max(x, 0) })
	case "Sigmoid":
		return each(func(x float64) float64 { return 1 / (1 + math.Exp(-x)) })
	case "Add", "Sum":
		return elementwise(func(a, b float64) float64 { return a + b })
	case "Sub":
		return elementwise(func(a, b float64) float64 { return a - b })
	case "Mul":
		return elementwise(func(a, b float64) float64 { return a * b })
	case "Div":
		return elementwise(func(a, b float64) float64 { return a / b })
	case "Conv":
		return evaluateConv(n, in)
	case "BatchNormalization":
		out := array{in[0].dims, slices.Clone(in[0].values)}
		eps := float64(n.float("epsilon", 1e-5))
		plane := 1
		for _, d := range in[0].dims[2:] {
			plane *= d
		}
		for i := range out.values {
			c := i / plane % in[0].dims[1]
			out.values[i] = (out.values[i]-in[3].values[c])/math.Sqrt(in[4].values[c]+eps)*in[1].values[c] + in[2].values[c]
		}
		return out, nil
	case "MaxPool", "AveragePool":
		return evaluatePool(n, in[0])
	case "GlobalAveragePool":
		return reduceMean(in[0], []int{2, 3}, true), nil
	case "ReduceMean":
		return reduceMean(in[0], list(1, "axes"), n.integer("keepdims", 1) != 0), nil
	case "Flatten":
		axis, _ := axisOf(n.integer("axis", 1), len(in[0].dims))
		rows := 1
		for _, d := range in[0].dims[:axis] {
			rows *= d
		}
		return array{[]int{rows, len(in[0].values) / rows}, in[0].values}, nil
	case "Gemm", "MatMul":
		a, b := in[0], in[1]
		if n.op == "Gemm" && n.integer("transB", 0) != 0 {
			b, _ = f.transpose(b, nil)
		}
		out := array{dims: []int{a.dims[0], b.dims[1]}}
		for i := range a.dims[0] {
			for j := range b.dims[1] {
				sum := 0.0
				for k := range a.dims[1] {
					sum += a.values[i*a.dims[1]+k] * b.values[k*b.dims[1]+j]
				}
				out.values = append(out.values, sum)
			}
		}
		if n.op == "Gemm" && len(in) > 2 {
			return f.broadcast(out, in[2], func(a, b float64) float64 { return a + b })
		}
		return out, nil
	case "Pad":
		pads := list(1, "pads")
		if n.text("mode", "constant") != "constant" {
			return array{}, errors.New("mode")
		}
		rank := len(in[0].dims)
		if len(in) > 3 || len(pads) != 2*rank {
			return array{}, errors.New("axes")
		}
		dims := slices.Clone(in[0].dims)
		for i := range dims {
			dims[i] += pads[i] + pads[rank+i]
		}
		out, stride := array{dims: dims}, in[0].strides()
		walk(dims, func(index []int) {
			at := 0
			for i, x := range index {
				if x -= pads[i]; x < 0 || x >= in[0].dims[i] {
					out.values = append(out.values, 0)
					return
				}
				at += x * stride[i]
			}
			out.values = append(out.values, in[0].values[at])
		})
		return out, nil
	case "Softmax":
		out := array{in[0].dims, slices.Clone(in[0].values)}
		k := in[0].dims[len(in[0].dims)-1]
		for i := 0; i < len(out.values); i += k {
			row := out.values[i : i+k]
			most, sum := slices.Max(row), 0.0
			for j, x := range row {
				row[j] = math.Exp(x - most)
				sum += row[j]
			}
			for j := range row {
				row[j] /= sum
			}
		}
		return out, nil
	}
	return f.node(n, in)
}

// walk visits every index of dims, the last axis fastest.
func walk(dims []int, visit func(index []int)) {
	index := make([]int, len(dims))
	n, _ := elements(dims, math.MaxInt)
	for range n {
		visit(index)
		for axis := len(dims) - 1; axis >= 0; axis-- {
			if index[axis]++; index[axis] < dims[axis] {
				break
			}
			index[axis] = 0
		}
	}
}

func reduceMean(x array, axes []int, keep bool) array {
	over := make([]bool, len(x.dims))
	count := 1
	for _, a := range axes {
		a, _ = axisOf(a, len(x.dims))
		over[a] = true
		count *= x.dims[a]
	}
	var kept, dims []int
	for i, d := range x.dims {
		if over[i] {
			kept = append(kept, 1)
			if keep {
				dims = append(dims, 1)
			}
			continue
		}
		kept = append(kept, d)
		dims = append(dims, d)
	}
	stride := array{dims: kept}.strides()
	out := array{dims, make([]float64, len(x.values)/count)}
	i := 0
	walk(x.dims, func(index []int) {
		at := 0
		for k, p := range index {
			if !over[k] {
				at += p * stride[k]
			}
		}
		out.values[at] += x.values[i] / float64(count)
		i++
	})
	return out
}

// windowOf is strides and the padding [top,left,bottom,right] of a node.
func windowOf(n *nodeProto, in []int, kernel []int) (strides, pads []int) {
	strides, pads = n.integers("strides"), n.integers("pads")
	if strides == nil {
		strides = []int{1, 1}
	}
	if pads == nil {
		pads = []int{0, 0, 0, 0}
	}
	if auto := n.text("auto_pad", "NOTSET"); auto == "SAME_UPPER" || auto == "SAME_LOWER" {
		for i := range 2 {
			size := in[2+i]
			total := max(((size+strides[i]-1)/strides[i]-1)*strides[i]+kernel[i]-size, 0)
			pads[i], pads[2+i] = total/2, total-total/2
			if auto == "SAME_LOWER" {
				pads[i], pads[2+i] = pads[2+i], pads[i]
			}
		}
	}
	return strides, pads
}

func evaluateConv(n *nodeProto, in []array) (array, error) {
	x, w := in[0], in[1]
	if n.integer("group", 1) != 1 || slices.ContainsFunc(n.integers("dilations"), func(d int) bool { return d != 1 }) {
		return array{}, errors.New("group or dilations")
	}
	N, C, H, W := x.dims[0], x.dims[1], x.dims[2], x.dims[3]
	OC, KH, KW := w.dims[0], w.dims[2], w.dims[3]
	strides, pads := windowOf(n, x.dims, w.dims[2:])
	OH, OW := (H+pads[0]+pads[2]-KH)/strides[0]+1, (W+pads[1]+pads[3]-KW)/strides[1]+1
	out := array{dims: []int{N, OC, OH, OW}}
	walk(out.dims, func(at []int) {
		sum := 0.0
		if len(in) > 2 {
			sum = in[2].values[at[1]]
		}
		for c := range C {
			for kh := range KH {
				h := at[2]*strides[0] + kh - pads[0]
				if h < 0 || h >= H {
					continue
				}
				for kw := range KW {
					if v := at[3]*strides[1] + kw - pads[1]; v >= 0 && v < W {
						sum += x.values[((at[0]*C+c)*H+h)*W+v] * w.values[((at[1]*C+c)*KH+kh)*KW+kw]
					}
				}
			}
		}
		out.values = append(out.values, sum)
	})
	return out, nil
}

func evaluatePool(n *nodeProto, x array) (array, error) {
	kernel := n.integers("kernel_shape")
	strides, pads := windowOf(n, x.dims, kernel)
	C, H, W := x.dims[1], x.dims[2], x.dims[3]
	positions := func(size, i int) int {
		span := size + pads[i] + pads[2+i] - kernel[i]
		if n.integer("ceil_mode", 0) != 0 {
			span += strides[i] - 1
		}
		return span/strides[i] + 1
	}
	out := array{dims: []int{x.dims[0], C, positions(H, 0), positions(W, 1)}}
	walk(out.dims, func(at []int) {
		most, sum, inside := math.Inf(-1), 0.0, 0
		for kh := range kernel[0] {
			for kw := range kernel[1] {
				h, v := at[2]*strides[0]+kh-pads[0], at[3]*strides[1]+kw-pads[1]
				if h >= 0 && h < H && v >= 0 && v < W {
					value := x.values[((at[0]*C+at[1])*H+h)*W+v]
					most, sum, inside = max(most, value), sum+value, inside+1
				}
			}
		}
		if n.integer("count_include_pad", 0) != 0 {
			inside = kernel[0] * kernel[1]
		}
		if n.op == "MaxPool" {
			out.values = append(out.values, most)
		} else {
			out.values = append(out.values, sum/float64(inside))
		}
	})
	return out, nil
}
