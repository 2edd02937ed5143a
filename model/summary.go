package model

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/digits"
	"github.com/residual-ml/residual/tensor"
)

// Summary describes a network layer by layer, for one image.
type Summary struct {
	Model  Config  `json:"model"`
	Layers []Layer `json:"layers"`

	// Totals as Keras prints them before compile: the moving statistics of
	// batch normalisation are parameters that are not trained.
	Parameters   int64 `json:"parameters"`
	Trainable    int64 `json:"trainable"`
	NonTrainable int64 `json:"non_trainable"`

	MACs            int64 `json:"macs"`             // multiply-accumulates per image, forward
	ActivationBytes int64 `json:"activation_bytes"` // of all layers' float32 outputs, per image
}

// Layer is a row of a Summary.
type Layer struct {
	Name       string       `json:"name"`
	Type       string       `json:"type"`         // Keras's class name
	Output     tensor.Shape `json:"output_shape"` // without the batch axis
	Parameters int64        `json:"parameters"`
	Trainable  int64        `json:"trainable"`
	MACs       int64        `json:"macs"`
	Inputs     []string     `json:"inputs"` // names of the layers it reads
}

// layerTypes are Keras's class names, by a layer's first operation. Keras has no
// class for the option-A shortcut.
var layerTypes = map[graph.Op]string{
	graph.OpInput: "InputLayer", graph.OpConv: "Conv2D", graph.OpBatchNorm: "BatchNormalization",
	graph.OpReLU: "ReLU", graph.OpAdd: "Add", graph.OpMaxPool: "MaxPooling2D",
	graph.OpGlobalAvgPool: "GlobalAveragePooling2D", graph.OpMatMul: "Dense",
	graph.OpAvgPool: "AveragePooling2D", graph.OpSigmoid: "Activation", graph.OpScaleChannels: "Multiply", graph.OpMul: "Rescaling",
	graph.OpSubsample: "SubsampleAndPad",
}

// Summarize builds the network for one image and describes it.
func (c Config) Summarize() (Summary, error) {
	b := graph.NewBuilder()
	images := b.Input("input", graph.Real, 1, c.Height, c.Width, c.Channels)
	net := c.Build(b, images, false)
	g, err := b.Build(net.Logits)
	if err != nil {
		return Summary{}, err
	}
	s := Summary{Model: c}
	row := map[*graph.Node]int{} // node → its layer's row
	for _, n := range g.Nodes {
		if n.Op == graph.OpVariable || n.Op == graph.OpConstant {
			continue
		}
		last := len(s.Layers) - 1
		if last < 0 || s.Layers[last].Name != n.Name {
			s.Layers = append(s.Layers, Layer{Name: n.Name, Type: layerTypes[n.Op], Inputs: []string{}})
			last++
		}
		l := &s.Layers[last]
		row[n] = last
		l.Output = n.Shape[1:]
		l.MACs += graph.MACs(n)
		for _, in := range n.Inputs {
			if in.Op == graph.OpVariable {
				size := int64(in.Shape.Elements())
				l.Parameters += size
				if in.Variable.Role == graph.Parameter {
					l.Trainable += size
				}
			} else if from := row[in]; in.Op != graph.OpConstant && from != last {
				l.Inputs = append(l.Inputs, s.Layers[from].Name)
			}
		}
	}
	for _, l := range s.Layers {
		s.Parameters += l.Parameters
		s.Trainable += l.Trainable
		s.MACs += l.MACs
		s.ActivationBytes += 4 * int64(l.Output.Elements())
	}
	s.NonTrainable = s.Parameters - s.Trainable
	return s, nil
}

// WriteText writes the summary as Keras's table with a column for
// multiply-accumulates, and Keras's lines of totals. A residual block is one row;
// expand shows its layers below it, as Keras's expand_nested does.
func (s Summary) WriteText(w io.Writer, expand bool) error {
	rows := [][]string{{"Layer (type)", "Output Shape", "Param #", "MACs"}}
	row := func(name string, l Layer) {
		shape := "(None"
		for _, d := range l.Output {
			shape += ", " + strconv.Itoa(d)
		}
		rows = append(rows, []string{name + " (" + l.Type + ")", shape + ")", digits.Group(l.Parameters), digits.Group(l.MACs)})
	}
	for _, group := range s.groups() {
		if group.name == "" {
			row(group.layers[0].Name, group.layers[0])
			continue
		}
		row(group.name, group.sum(s.Model))
		for _, l := range group.layers {
			if expand {
				row("   └ "+strings.TrimPrefix(l.Name, group.name+"."), l)
			}
		}
	}
	width := make([]int, 4)
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	rule := func(left, line, middle, right string) {
		b.WriteString(left)
		for i, n := range width {
			if i > 0 {
				b.WriteString(middle)
			}
			b.WriteString(strings.Repeat(line, n+2))
		}
		b.WriteString(right + "\n")
	}
	fmt.Fprintf(&b, "Model: %q, %s convention, %s, input %d×%d×%d\n", s.Model.Name, s.Model.Convention, s.Model.StemText(), s.Model.Height, s.Model.Width, s.Model.Channels)
	rule("┏", "━", "┳", "┓")
	for i, r := range rows {
		bar := "│"
		if i == 0 {
			bar = "┃"
		}
		fmt.Fprintf(&b, "%[1]s %-[2]*[3]s %[1]s %-[4]*[5]s %[1]s %[6]*[7]s %[1]s %[8]*[9]s %[1]s\n",
			bar, width[0], r[0], width[1], r[1], width[2], r[2], width[3], r[3])
		if i == 0 {
			rule("┡", "━", "╇", "┩")
		}
	}
	rule("└", "─", "┴", "┘")
	fmt.Fprintf(&b, " Total params: %s (%s)\n", digits.Group(s.Parameters), bytes(4*s.Parameters))
	fmt.Fprintf(&b, " Trainable params: %s (%s)\n", digits.Group(s.Trainable), bytes(4*s.Trainable))
	fmt.Fprintf(&b, " Non-trainable params: %s (%s)\n", digits.Group(s.NonTrainable), bytes(4*s.NonTrainable))
	fmt.Fprintf(&b, " Multiply-accumulates: %s per image, forward\n", digits.Group(s.MACs))
	fmt.Fprintf(&b, " Activations: %s per image in float32\n", bytes(s.ActivationBytes))
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteMermaid writes the network as a Mermaid flowchart, a subgraph per
// residual block.
func (s Summary) WriteMermaid(w io.Writer) error {
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	id := func(name string) string { return strings.ReplaceAll(name, ".", "_") }
	for _, group := range s.groups() {
		if group.name != "" {
			fmt.Fprintf(&b, "  subgraph %s [\"%s\"]\n", id(group.name), group.name)
		}
		for _, l := range group.layers {
			shape := make([]string, len(l.Output))
			for i, d := range l.Output {
				shape[i] = strconv.Itoa(d)
			}
			fmt.Fprintf(&b, "    %s_[\"%s<br/>%s %s\"]\n", id(l.Name), strings.TrimPrefix(l.Name, group.name+"."), l.Type, strings.Join(shape, "×"))
		}
		if group.name != "" {
			b.WriteString("  end\n")
		}
	}
	for _, l := range s.Layers {
		for _, in := range l.Inputs {
			fmt.Fprintf(&b, "  %s_ --> %s_\n", id(in), id(l.Name))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Grouped are the rows of WriteText: layers outside of blocks, and each block as
// one.
func (s Summary) Grouped() []Layer {
	var rows []Layer
	for _, g := range s.groups() {
		if g.name == "" {
			rows = append(rows, g.layers...)
		} else {
			rows = append(rows, g.sum(s.Model))
		}
	}
	return rows
}

// group is a residual block, or one layer outside of any, with the name "".
type group struct {
	name   string
	layers []Layer
}

func (s Summary) groups() []group {
	var groups []group
	for _, l := range s.Layers {
		name := blockOf(l.Name)
		if last := len(groups) - 1; name != "" && last >= 0 && groups[last].name == name {
			groups[last].layers = append(groups[last].layers, l)
			continue
		}
		groups = append(groups, group{name, []Layer{l}})
	}
	return groups
}

// sum is the block as one layer.
func (g group) sum(c Config) Layer {
	sum := Layer{Name: g.name, Type: "BasicBlock", Output: g.layers[len(g.layers)-1].Output}
	switch {
	case c.Block == Pooled || c.Block == Single:
		sum.Type = "Residual"
	case c.PreAct && c.Block == Bottleneck:
		sum.Type = "PreActBottleneck"
	case c.PreAct:
		sum.Type = "PreActBlock"
	case c.Block == Bottleneck:
		sum.Type = "Bottleneck"
	}
	for _, l := range g.layers {
		sum.Parameters += l.Parameters
		sum.Trainable += l.Trainable
		sum.MACs += l.MACs
	}
	return sum
}

// blockOf is the residual block a layer belongs to ("layer1.0"), or "".
func blockOf(layer string) string {
	parts := strings.SplitN(layer, ".", 3)
	if len(parts) < 3 {
		return ""
	}
	return parts[0] + "." + parts[1]
}

// bytes prints a size as Keras does: two decimals, units of 1024.
func bytes(n int64) string {
	f, unit := digits.Binary(n, "B", "KB", "MB", "GB", "TB")
	return fmt.Sprintf("%.2f %s", f, unit)
}
