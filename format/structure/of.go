package structure

import (
	"fmt"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// Of is the network of a configuration as layers: picture → logits. Parameters
// have torchvision's names and, where value is not nil, the tensors that it
// returns for them, in torchvision's order of axes.
func Of(c model.Config, value func(name string) (tensor.Tensor, bool)) (*Network, error) {
	b := graph.NewBuilder()
	net := c.Build(b, b.Input("images", graph.Real, 1, c.Height, c.Width, c.Channels), false)
	g, err := b.Build(net.Logits)
	if err != nil {
		return nil, err
	}
	n := &Network{}
	layers := map[*graph.Node]*Layer{}
	param := func(v *graph.Node) (Param, error) {
		p := Param{Name: v.Name, Shape: model.FileShape(v.Shape)}
		if value == nil {
			return p, nil
		}
		t, ok := value(v.Name)
		if !ok {
			return p, fmt.Errorf("there is no tensor %s", v.Name)
		}
		if !t.Shape().Equal(p.Shape) {
			return p, fmt.Errorf("tensor %s has shape %v, the network wants %v", v.Name, t.Shape(), p.Shape)
		}
		p.Value = t
		return p, nil
	}
	uses := map[*graph.Node]int{}
	for _, node := range g.Nodes {
		for _, in := range node.Inputs {
			uses[in]++
		}
	}
	for _, node := range g.Nodes {
		if node.Op == graph.OpVariable || node.Op == graph.OpConstant {
			continue
		}
		l := Layer{Name: node.Name, Pad: node.Conv.Pad, Stride: node.Conv.Stride}
		var params []*graph.Node
		var places []*Param
		for _, in := range node.Inputs {
			switch in.Op {
			case graph.OpVariable:
				params = append(params, in)
			case graph.OpConstant:
				l.Gain = append(l.Gain, in.Value)
			default:
				l.Inputs = append(l.Inputs, layers[in])
			}
		}
		switch node.Op {
		case graph.OpInput:
			l.Kind, l.Shape = Input, node.Shape[1:]
		case graph.OpConv:
			l.Kind, places = Conv, []*Param{&l.Weight}
		case graph.OpMatMul:
			l.Kind, places = Dense, []*Param{&l.Weight}
		case graph.OpBias: // belongs to the layer before, which nobody else reads
			before := layers[node.Inputs[0]]
			if before.Kind != Conv && before.Kind != Dense || before.Bias.Present() || uses[node.Inputs[0]] > 1 {
				return nil, fmt.Errorf("%v is no bias of a layer", node)
			}
			if before.Bias, err = param(params[0]); err != nil {
				return nil, err
			}
			layers[node] = before
			continue
		case graph.OpBatchNorm:
			l.Kind, l.Epsilon = BatchNorm, node.Norm.Epsilon
			places = []*Param{&l.Scale, &l.Shift, &l.Mean, &l.Variance}
		case graph.OpReLU:
			l.Kind = ReLU
		case graph.OpAdd:
			l.Kind = Add
		case graph.OpMaxPool, graph.OpAvgPool:
			l.Kind = MaxPool
			if node.Op == graph.OpAvgPool {
				l.Kind = AvgPool
			}
			l.Size, l.Stride, l.Pad, l.CountPad = node.Pool.Size, node.Pool.Stride, node.Pool.Pad, node.Pool.CountPad
		case graph.OpGlobalAvgPool:
			l.Kind = GlobalAvgPool
		case graph.OpSigmoid:
			l.Kind = Sigmoid
		case graph.OpScaleChannels:
			l.Kind = Multiply
		case graph.OpMul:
			if len(l.Gain) != 1 || len(l.Inputs) != 1 {
				return nil, fmt.Errorf("model %s: %v is no layer times a constant", c.Name, node)
			}
			l.Kind, l.Offset = Rescale, []float64{0}
		case graph.OpSubsample:
			l.Kind, l.Stride = Subsample, node.Stride
		case graph.OpPadChannels:
			l.Kind, l.Before, l.After = PadChannels, node.Channels.Before, node.Channels.After
		default:
			return nil, fmt.Errorf("model %s: %s: files cannot hold the operation %v", c.Name, node.Name, node.Op)
		}
		if len(params) != len(places) {
			return nil, fmt.Errorf("model %s: %v has %d parameters, want %d", c.Name, node, len(params), len(places))
		}
		for i, place := range places {
			if *place, err = param(params[i]); err != nil {
				return nil, err
			}
		}
		if layers[node], err = n.Add(l); err != nil {
			return nil, err
		}
	}
	n.Output = layers[g.Outputs[0]]
	return n, nil
}
