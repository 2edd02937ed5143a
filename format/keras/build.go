package keras

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/residual-ml/residual/format/structure"
	"github.com/residual-ml/residual/internal/hdf5"
)

// builder makes a structure.Network of a configuration and its weights.
type builder struct {
	net         structure.Network
	file        *contents
	used        map[*hdf5.Object]bool
	notes       []string
	sizeUnknown bool
	mixed       bool // said already
	parsed      int  // bytes of the models built, each as often as it is called
}

func newBuilder(c *contents) *builder {
	return &builder{file: c, used: map[*hdf5.Object]bool{}}
}

func (b *builder) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

// Limits of a configuration.
const (
	maxLayers  = 1 << 14
	maxNesting = 8 // models within models
	maxCalls   = 64
)

// network builds the whole model.
func (b *builder) network(top layer) (*structure.Network, error) {
	s, err := newScope(b.file)
	if err != nil {
		return nil, err
	}
	if b.net.Output, err = b.container(top, s, nil, 0); err != nil {
		return nil, err
	}
	return &b.net, nil
}

// container builds a model within a model, whose input is in; nil for the
// outermost one, which has an input layer of its own. It returns the output.
func (b *builder) container(l layer, s *scope, in *structure.Layer, depth int) (*structure.Layer, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("model %q: models are nested more than %d deep", l.Name, maxNesting)
	}
	// A model that calls another one several times, which does the same, and so on, would
	// take for ever.
	if b.parsed += len(l.Config); b.parsed > maxCalls*len(b.file.config) {
		return nil, fmt.Errorf("model %q: models within models are called too often", l.Name)
	}
	c, err := l.container()
	if err != nil {
		return nil, err
	}
	if len(c.Layers) == 0 || len(c.Layers) > maxLayers {
		return nil, fmt.Errorf("model %q: %d layers, want 1 to %d", c.Name, len(c.Layers), maxLayers)
	}
	m := &modelBuilder{builder: b, scope: s, in: in, depth: depth, layers: map[string]*layerState{}, done: map[edge]*structure.Layer{}}
	for i := range c.Layers {
		x := &layerState{layer: c.Layers[i]}
		if custom := x.custom(); custom != "" {
			return nil, fmt.Errorf("layer %q is of the class %q, which is not Keras's own: code in files is never run", x.layer.Name, custom)
		}
		if !x.isContainer() {
			if err := json.Unmarshal(x.Config, &x.options); err != nil {
				return nil, fmt.Errorf("layer %q, %s: %w", x.layer.Name, x.Class, err)
			}
		} else {
			inner, err := x.container()
			if err != nil {
				return nil, err
			}
			x.options.Name = inner.Name
		}
		if x.layer.Name == "" { // Sequential has the name inside only
			x.layer.Name = x.options.Name
		}
		if m.layers[x.layer.Name] != nil {
			return nil, fmt.Errorf("two layers called %q", x.layer.Name)
		}
		x.weights = s.next(x.layer.Name, x.Class)
		m.layers[x.layer.Name] = x
		m.order = append(m.order, x)
	}
	if l.Class == "Sequential" {
		return m.sequential(c)
	}
	out, err := oneRef(c.Outputs)
	if err != nil {
		return nil, fmt.Errorf("model %q: output_layers: %w", c.Name, err)
	}
	if _, err := oneRef(c.Inputs); err != nil {
		return nil, fmt.Errorf("model %q: input_layers: %w", c.Name, err)
	}
	return m.resolve(out)
}

// layerState is a layer of a model while it is built.
type layerState struct {
	layer
	options options
	weights weights
	nodes   [][]edge // inputs of each call
	parsed  bool
}

type modelBuilder struct {
	*builder
	scope  *scope
	in     *structure.Layer
	depth  int
	layers map[string]*layerState
	order  []*layerState
	done   map[edge]*structure.Layer // nil while it is being built
}

// sequential calls the layers one after the other.
func (m *modelBuilder) sequential(c container) (*structure.Layer, error) {
	x := m.in
	for _, l := range m.order {
		var err error
		switch {
		case l.Class == "InputLayer":
			if x == nil {
				x, err = m.input(l)
			}
		case x == nil: // the first layer says what comes in, or the model does
			first := *l
			if first.options.BatchShape == nil && first.options.BatchInput == nil {
				first.options.BatchShape = c.Shape
			}
			if x, err = m.input(&first); err != nil {
				return nil, err
			}
			x, err = m.call(l, []*structure.Layer{x})
		default:
			x, err = m.call(l, []*structure.Layer{x})
		}
		if err != nil {
			return nil, err
		}
	}
	return x, nil
}

// resolve returns the layer that computes a tensor, building all before it.
func (m *modelBuilder) resolve(r edge) (*structure.Layer, error) {
	l := m.layers[r.layer]
	if l == nil {
		return nil, fmt.Errorf("there is no layer %q", r.layer)
	}
	if l.Class == "InputLayer" {
		r.node = 0
		if done := m.done[r]; done != nil {
			return done, nil
		}
		x := m.in
		if x == nil {
			var err error
			if x, err = m.input(l); err != nil {
				return nil, err
			}
		}
		m.done[r] = x
		return x, nil
	}
	if !l.parsed {
		l.parsed = true
		var err error
		if l.nodes, err = inboundNodes(l.Inbound); err != nil {
			return nil, fmt.Errorf("layer %q: inbound_nodes: %w", r.layer, err)
		}
	}
	switch {
	case len(l.nodes) == 1: // whatever its number is called: nested models count from 1
		r.node = 0
	case l.isContainer() && r.node == len(l.nodes):
		r.node--
	}
	if r.node < 0 || r.node >= len(l.nodes) {
		return nil, fmt.Errorf("layer %q is called %d times, call %d is wanted", r.layer, len(l.nodes), r.node)
	}
	if done, begun := m.done[r]; begun {
		if done == nil {
			return nil, fmt.Errorf("layer %q is an input of itself", r.layer)
		}
		return done, nil
	}
	m.done[r] = nil
	var inputs []*structure.Layer
	for _, in := range l.nodes[r.node] {
		x, err := m.resolve(in)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, x)
	}
	x, err := m.call(l, inputs)
	if err != nil {
		return nil, err
	}
	m.done[r] = x
	return x, nil
}

// completeNorms puts a batch normalisation that changes nothing behind each
// convolution that goes into an addition without one, where the others have
// one: a common way to write shortcuts in Keras.
func (b *builder) completeNorms(n *structure.Network) (*structure.Network, error) {
	var epsilon float64
	norms := false
	readers := map[*structure.Layer][]*structure.Layer{}
	for _, l := range n.Layers {
		if l.Kind == structure.BatchNorm && !norms {
			norms, epsilon = true, l.Epsilon
		}
		for _, in := range l.Inputs {
			readers[in] = append(readers[in], l)
		}
	}
	bare := func(l *structure.Layer) bool {
		return norms && l.Kind == structure.Conv && len(readers[l]) == 1 && readers[l][0].Kind == structure.Add
	}
	if !slices.ContainsFunc(n.Layers, bare) {
		return n, nil
	}
	out := &structure.Network{}
	now := map[*structure.Layer]*structure.Layer{}
	added := 0
	for _, old := range n.Layers {
		l := *old
		l.Inputs = nil
		for _, in := range old.Inputs {
			l.Inputs = append(l.Inputs, now[in])
		}
		x, err := out.Add(l)
		if err != nil {
			return nil, err
		}
		if bare(old) {
			norm := structure.Layer{Kind: structure.BatchNorm, Name: old.Name, Inputs: []*structure.Layer{x}, Epsilon: epsilon}
			channels := x.Shape[len(x.Shape)-1]
			norm.Scale, norm.Shift = structure.Value("", full(channels, 1)), structure.Value("", full(channels, 0))
			norm.Mean, norm.Variance = structure.Value("", full(channels, 0)), structure.Value("", full(channels, float32(1-epsilon)))
			if x, err = out.Add(norm); err != nil {
				return nil, err
			}
			added++
		}
		now[old] = x
	}
	out.Output = now[n.Output]
	b.note("%d convolutions before an addition have no batch normalisation: one that changes nothing is put in", added)
	return out, nil
}
