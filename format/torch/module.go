package torch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// moduleMark is in the first line of every module.
const moduleMark = ", as residual exported it: "

const moduleHead = `"""%s` + moduleMark + `the network layer by layer. Needs torch and
nothing else:

    net = load("WEIGHTS")          # .pth, or .safetensors (needs safetensors)
    logits = net(images)           # images [N,%d,%d,%d], preprocessed

It is no model of torchvision or timm.
"""

import torch
from torch import nn
from torch.nn import functional as F

CONFIG = r"""%s"""


def put(root, path, layer):
    """Adds a layer under a path such as layer1.0.conv1."""
    *parents, last = path.split(".")
    for name in parents:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    root.add_module(last, layer)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
`

const moduleTail = `

def load(path):
    """The network with the weights of a file, for predictions."""
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        weights = load_file(path)
    else:
        weights = torch.load(path, weights_only=True)
    net = Net()
    net.load_state_dict(weights)  # strictly
    return net.eval()
`

// Module is a Python module that builds c with torch.nn, for networks that neither torchvision nor timm has. It is written from
// c's graph, a line for each layer, so that paddings and ε are what c has.
func Module(c model.Config) (string, error) {
	g, err := c.Graph(1)
	if err != nil {
		return "", err
	}
	config, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	if strings.Contains(string(config), `"""`) || strings.ContainsAny(c.Name, "\"\\\n") {
		return "", errors.New("the network's name cannot be written in Python")
	}
	w := &moduleWriter{biased: map[string]bool{}, register: map[*graph.Node]string{}, rate: c.BatchNormRate()}
	for _, v := range g.Variables {
		if layer, ok := strings.CutSuffix(v.Name, ".bias"); ok {
			w.biased[layer] = true
		}
	}
	logits := g.Outputs[1] // before softmax
	w.count(g, logits)
	for _, n := range g.Nodes {
		if n.ID > logits.ID {
			break
		}
		if err := w.node(n); err != nil {
			return "", fmt.Errorf("the Python module: layer %s: %w", n.Name, err)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, moduleHead, c.Name, c.Channels, c.Height, c.Width, config)
	b.WriteString(w.layers.String())
	b.WriteString("\n    def forward(self, x):\n        layer = self.get_submodule\n")
	b.WriteString(w.forward.String())
	fmt.Fprintf(&b, "        return %s\n", w.register[logits])
	b.WriteString(moduleTail)
	return b.String(), nil
}

// IsModule reports whether a file that begins with head is what Module writes.
func IsModule(head []byte) bool {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	return bytes.HasPrefix(line, []byte(`"""`)) && bytes.Contains(line, []byte(moduleMark))
}

// moduleWriter turns the nodes of a graph into lines of Python.
type moduleWriter struct {
	layers, forward strings.Builder
	biased          map[string]bool // layers with a bias
	rate            float64         // of moving statistics

	register map[*graph.Node]string // the Python variable that holds a node's value
	uses     map[*graph.Node]int    // readers that are still to come
	free     []string               // variables that nobody reads any more
	made     int
}

// count finds how often each value is read.
func (w *moduleWriter) count(g *graph.Graph, last *graph.Node) {
	w.uses = map[*graph.Node]int{last: 1}
	for _, n := range g.Nodes {
		if n.ID <= last.ID {
			for _, in := range n.Inputs {
				w.uses[in]++
			}
		}
	}
}

// assign writes a line that computes n. Operands that nobody reads afterwards
// leave their variable to it.
func (w *moduleWriter) assign(n *graph.Node, format string, args ...any) {
	expression := fmt.Sprintf(format, args...)
	for _, in := range n.Inputs {
		w.uses[in]--
		if r := w.register[in]; r != "" && w.uses[in] == 0 {
			w.free = append(w.free, r)
		}
	}
	if len(w.free) == 0 {
		w.made++
		w.free = append(w.free, "x"+strconv.Itoa(w.made))
	}
	r := w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	w.register[n] = r
	fmt.Fprintf(&w.forward, "        %s = %s\n", r, expression)
}

func (w *moduleWriter) put(layer, format string, args ...any) {
	fmt.Fprintf(&w.layers, "        put(self, %q, %s)\n", layer, fmt.Sprintf(format, args...))
}

// python is True or False.
func python(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// padded is x with padding around it, where both sides do not have the same.
func padded(x string, p graph.Padding, value string) (padded, symmetric string) {
	if p.Top == p.Bottom && p.Left == p.Right {
		return x, fmt.Sprintf("(%d, %d)", p.Top, p.Left)
	}
	return fmt.Sprintf("F.pad(%s, (%d, %d, %d, %d)%s)", x, p.Left, p.Right, p.Top, p.Bottom, value), "(0, 0)"
}

func (w *moduleWriter) node(n *graph.Node) error {
	x := ""
	if len(n.Inputs) > 0 {
		x = w.register[n.Inputs[0]]
	}
	switch n.Op {
	case graph.OpVariable, graph.OpConstant:
		return nil
	case graph.OpInput:
		w.register[n] = "x"
	case graph.OpConv:
		k := n.Inputs[1].Shape // [KH,KW,C,OC]
		from, padding := padded(x, n.Conv.Pad, "")
		w.put(n.Name, "nn.Conv2d(%d, %d, (%d, %d), stride=%d, padding=%s, bias=%s)", k[2], k[3], k[0], k[1], n.Conv.Stride, padding, python(w.biased[n.Name]))
		w.assign(n, "layer(%q)(%s)", n.Name, from)
	case graph.OpMatMul:
		s := n.Inputs[1].Shape // [C,OC]
		if n.MatMul != (graph.MatMulAttrs{}) || n.Inputs[1].Op != graph.OpVariable {
			return errors.New("it is no dense layer")
		}
		w.put(n.Name, "nn.Linear(%d, %d, bias=%s)", s[0], s[1], python(w.biased[n.Name]))
		w.assign(n, "layer(%q)(%s)", n.Name, x)
	case graph.OpBias: // part of the layer before it
		if before := n.Inputs[0]; before.Name != n.Name || !w.biased[n.Name] || w.uses[before] != 1 {
			return errors.New("a bias that belongs to no layer")
		}
		w.register[n] = x
	case graph.OpBatchNorm:
		w.put(n.Name, "nn.BatchNorm2d(%d, eps=%v, momentum=%v)", n.Shape[len(n.Shape)-1], n.Norm.Epsilon, w.rate)
		w.assign(n, "layer(%q)(%s)", n.Name, x)
	case graph.OpReLU:
		w.assign(n, "F.relu(%s)", x)
	case graph.OpMaxPool:
		from, padding := padded(x, n.Pool.Pad, `, value=float("-inf")`)
		w.assign(n, "F.max_pool2d(%s, %d, %d, %s)", from, n.Pool.Size, n.Pool.Stride, padding)
	case graph.OpAvgPool:
		p := n.Pool.Pad
		switch {
		case p == (graph.Padding{}):
			w.assign(n, "F.avg_pool2d(%s, %d, %d)", x, n.Pool.Size, n.Pool.Stride)
		case p.Top == 0 && p.Left == 0 && !n.Pool.CountPad:
			w.assign(n, "F.avg_pool2d(%s, %d, %d, ceil_mode=True, count_include_pad=False)", x, n.Pool.Size, n.Pool.Stride)
		default:
			return fmt.Errorf("average pooling with the padding %+v", p)
		}
	case graph.OpGlobalAvgPool:
		w.assign(n, "%s.mean((2, 3))", x)
	case graph.OpSubsample:
		w.assign(n, "%s[:, :, ::%d, ::%d]", x, n.Stride, n.Stride)
	case graph.OpPadChannels:
		w.assign(n, "F.pad(%s, (0, 0, 0, 0, %d, %d))", x, n.Channels.Before, n.Channels.After)
	case graph.OpAdd:
		w.assign(n, "%s + %s", x, w.register[n.Inputs[1]])
	case graph.OpMul:
		y := n.Inputs[1]
		if y.Op != graph.OpConstant {
			return errors.New("a product of two values")
		}
		w.assign(n, "%s * %v", x, y.Value)
	case graph.OpSigmoid:
		w.assign(n, "torch.sigmoid(%s)", x)
	case graph.OpScaleChannels: // x [N,C,H,W], a factor for each image and channel [N,C]
		if !n.Inputs[1].Shape.Equal(tensor.Shape{n.Shape[0], n.Shape[3]}) {
			return fmt.Errorf("factors of shape %v", n.Inputs[1].Shape)
		}
		w.assign(n, "%s * %s[:, :, None, None]", x, w.register[n.Inputs[1]])
	default:
		return fmt.Errorf("there is no PyTorch for %v", n.Op)
	}
	return nil
}

// Architecture is the name under which torchvision and timm have exactly the
// network c, "" where they do not: ResNets for photographs in torch convention.
func Architecture(c model.Config) string {
	for _, name := range []string{"resnet18", "resnet34", "resnet50", "resnet101", "resnet152"} {
		theirs, err := model.Named(name, model.Torch, 224, 224, 3, c.Classes)
		if err != nil {
			continue
		}
		same := c
		same.Name, same.Height, same.Width = name, 224, 224 // with global pooling any size will do
		if same.Norm == model.BatchNorm {                   // said or not
			same.Norm = theirs.Norm
		}
		if reflect.DeepEqual(same, theirs) {
			return name
		}
	}
	return ""
}
