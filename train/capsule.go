package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/tensor"
)

// A capsule is one file, in safetensors, with everything that reproduces a step
// whose loss or gradient was not finite: configuration, position, variables as
// they were before it, the batch, and statistics of every value computed.

// Capsule is what a capsule says besides its tensors.
type Capsule struct {
	Config          Config        `json:"config"`
	Epoch           int           `json:"epoch"` // from 1
	Step            int           `json:"step"`  // the update that was not made, from 1
	Batch           int           `json:"batch"` // within the epoch, from 1
	Indices         []int         `json:"indices"`
	Draws           []int         `json:"draws,omitempty"` // where pictures are drawn again in an epoch; nil: Indices
	LearningRate    float64       `json:"learning_rate"`
	Loss            string        `json:"loss"` // as text: JSON has no NaN
	GradientSquares string        `json:"gradient_squares"`
	Engine          string        `json:"engine"`
	First           *LayerValues  `json:"first_not_finite"` // nil when a second run found none
	Layers          []LayerValues `json:"layers"`
}

// LayerValues are statistics of one value of a step, in the order of computing.
type LayerValues struct {
	Layer string       `json:"layer"` // such as layer1.0.conv1, or a variable's name
	Op    string       `json:"op"`
	Shape tensor.Shape `json:"shape"`
	NaN   int          `json:"nan"`
	Inf   int          `json:"inf"`
	// Of the finite elements; 0 where there are none.
	Min     float64 `json:"min"`
	Max     float64 `json:"max"`
	MeanAbs float64 `json:"mean_abs"`
}

func (v LayerValues) String() string { return fmt.Sprintf("%s (%s)", v.Layer, v.Op) }

// nonFinite is the error of a step that was not applied.
type nonFinite struct {
	batch   batchID
	step    int
	message string
	capsule string
}

func (e *nonFinite) Error() string { return e.message }

const (
	capsuleKey     = "capsule"
	variablePrefix = "variable/"
	imagesTensor   = "batch/images"
	labelsTensor   = "batch/labels"
	weightsTensor  = "batch/weights"

	// Of mixup and CutMix.
	partnersTensor       = "batch/partners"
	partnerWeightsTensor = "batch/partner_weights"
)

// capture writes the capsule of a step that was not applied and returns the
// error that says so.
func (t *Trainer) capture(b loader.Batch, batch int, loss, gradientSquares, rate float64) error {
	what := "the loss is " + fmt.Sprint(loss)
	if finite(loss) {
		what = "a gradient is not finite"
	}
	bad := &nonFinite{batch: batchID{t.at.Epoch, batch}, step: t.at.GlobalStep + 1}
	bad.message = fmt.Sprintf("step %d (epoch %d): %s; the step was not applied", bad.step, t.at.Epoch+1, what)
	layers, first, err := probe(t.config, t.engine, t.vars, b, t.config.modeOf(t.at.Epoch))
	if err != nil {
		return errors.Join(bad, fmt.Errorf("the first value that is not finite cannot be found: %w", err))
	}
	layer := "none when computed again"
	if first != nil {
		layer = first.String()
		bad.message += "; the first value that is not finite is " + layer
	}
	if t.run == nil {
		return bad
	}
	c := Capsule{
		Config: t.config, Epoch: t.at.Epoch + 1, Step: bad.step, Batch: batch + 1, Indices: b.Indices, LearningRate: rate,
		Loss: fmt.Sprint(loss), GradientSquares: fmt.Sprint(gradientSquares), Engine: t.engine.Name(), First: first, Layers: layers,
	}
	if t.config.SampleWeights != nil {
		c.Draws = b.Draws
	}
	name := fmt.Sprintf("capsule-step-%08d", bad.step)
	if n := len(t.at.Skipped); n > 0 { // the same step may have failed before, with another batch
		name += fmt.Sprintf("-rollback-%d", n)
	}
	name += ".safetensors"
	bad.capsule = filepath.Join(t.run.Path(), name)
	if err := t.run.WriteFile(name, func(w io.Writer) error { return writeCapsule(w, c, t.graph, t.vars, b) }); err != nil {
		return errors.Join(bad, fmt.Errorf("its capsule cannot be written: %w", err))
	}
	t.observe(Captured{Step: bad.step, Layer: layer, Capsule: bad.capsule})
	return hint.Wrap(bad, fmt.Sprintf("look into it with: residual replay %s; then try a lower learning rate than %g, or --on-nan rollback", hint.Quote(bad.capsule), rate))
}

func writeCapsule(w io.Writer, c Capsule, g *graph.Graph, vars engine.Variables, b loader.Batch) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	tensors := []safetensors.Named{{Name: imagesTensor, Tensor: b.Images}, {Name: labelsTensor, Tensor: b.Labels}, {Name: weightsTensor, Tensor: b.Weights}}
	if b.Partners.Valid() {
		tensors = append(tensors, safetensors.Named{Name: partnersTensor, Tensor: b.Partners}, safetensors.Named{Name: partnerWeightsTensor, Tensor: b.PartnerWeights})
	}
	variables, err := inFile(vars, g, variablePrefix)
	if err != nil {
		return err
	}
	return safetensors.Write(w, append(tensors, variables...), map[string]string{capsuleKey: string(text)})
}

// probe computes a step's forward and backward pass once more, without its
// update, and looks at every value.
func probe(c Config, eng engine.Engine, vars engine.Variables, batch loader.Batch, m mode) (layers []LayerValues, first *LayerValues, err error) {
	b := graph.NewBuilder()
	loss, _ := lossNodes(b, c, len(batch.Indices), m)
	outputs := append([]*graph.Node{loss}, b.Gradients(loss, m.trained(b)...)...)
	g, err := b.Build(outputs...)
	if err != nil {
		return nil, nil, err
	}
	g.Updates = nil
	interesting := slices.DeleteFunc(slices.Clone(g.Nodes), func(n *graph.Node) bool {
		return n.Kind != graph.Real || n.Op == graph.OpConstant || n.Op == graph.OpInput || n.Op == graph.OpVariable
	})
	for _, v := range g.Variables {
		value, err := vars.Get(v.Name)
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, look(v, value))
	}
	layers = append(layers, look(g.Inputs[0], batch.Images))
	for len(interesting) > 0 { // some at a time: all values of a step at once may not fit into memory
		n, elements := 0, 0
		for n < len(interesting) && (n == 0 || elements < probeElements) {
			elements += interesting[n].Shape.Elements()
			n++
		}
		g.Outputs, interesting = interesting[:n], interesting[n:]
		found, err := lookAt(g, eng, vars, lossInputs(c, batch, m))
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, found...)
	}
	for i := range layers {
		if layers[i].NaN+layers[i].Inf > 0 {
			return layers, &layers[i], nil
		}
	}
	return layers, nil, nil
}

// probeElements is how many elements probe looks at in one run, or a little more.
const probeElements = 1 << 25

func lookAt(g *graph.Graph, eng engine.Engine, vars engine.Variables, inputs []tensor.Tensor) ([]LayerValues, error) {
	p, err := eng.Compile(g, vars)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	out, err := p.Run(context.Background(), inputs...)
	if err != nil {
		return nil, err
	}
	var layers []LayerValues
	for i, n := range g.Outputs {
		layers = append(layers, look(n, out[i]))
	}
	return layers, nil
}

func look(n *graph.Node, t tensor.Tensor) LayerValues {
	v := LayerValues{Layer: n.Name, Op: n.Op.String(), Shape: t.Shape(), Min: math.Inf(1), Max: math.Inf(-1)}
	count := 0
	for _, x := range t.Convert(tensor.Float64).Float64s() {
		switch {
		case math.IsNaN(x):
			v.NaN++
		case math.IsInf(x, 0):
			v.Inf++
		default:
			v.Min, v.Max = min(v.Min, x), max(v.Max, x)
			v.MeanAbs += math.Abs(x)
			count++
		}
	}
	if count == 0 {
		v.Min, v.Max = 0, 0
	} else {
		v.MeanAbs /= float64(count)
	}
	return v
}

// Replay computes the step of a capsule again and says what it found. open returns
// the engine for it, which is closed in the end. What overflowed in the run's precision
// may be finite in another one.
func Replay(path string, open func(recorded Capsule) (engine.Engine, error)) (recorded Capsule, layers []LayerValues, first *LayerValues, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("capsule %s: %w", path, err)
		}
	}()
	f, err := safetensors.ReadFile(path)
	if err != nil {
		return recorded, nil, nil, err
	}
	if recorded, err = describeCapsule(f); err != nil {
		return recorded, nil, nil, err
	}
	eng, err := open(recorded)
	if err != nil {
		return recorded, nil, nil, err
	}
	defer func() { err = errors.Join(err, eng.Close()) }()
	vars := eng.NewVariables()
	batch, err := openCapsule(f, recorded, vars)
	if err != nil {
		return recorded, nil, nil, err
	}
	layers, first, err = probe(recorded.Config, eng, vars, batch, recorded.Config.modeOf(recorded.Epoch-1))
	return recorded, layers, first, err
}

// describeCapsule reads and checks what a capsule says besides its tensors.
func describeCapsule(f *safetensors.File) (recorded Capsule, err error) {
	if f.Metadata[capsuleKey] == "" {
		return recorded, fmt.Errorf("the file is no capsule: its metadata has no %q", capsuleKey)
	}
	if err := json.Unmarshal([]byte(f.Metadata[capsuleKey]), &recorded); err != nil {
		return recorded, err
	}
	return recorded, recorded.Config.Check()
}

// openCapsule reads the batch of a capsule that describeCapsule has described, and
// sets vars to its variables. All of them are checked against the network that the
// description names.
func openCapsule(f *safetensors.File, recorded Capsule, vars engine.Variables) (batch loader.Batch, err error) {
	batch.Indices, batch.Draws, batch.Epoch = recorded.Indices, recorded.Draws, recorded.Epoch-1
	m, n := recorded.Config.Model, len(recorded.Indices)
	if recorded.Draws == nil {
		batch.Draws = batch.Indices
	} else if len(batch.Draws) != n {
		return batch, fmt.Errorf("%d draws of %d pictures", len(batch.Draws), n)
	}
	type part struct {
		name  string
		into  *tensor.Tensor
		dtype tensor.DType
		shape tensor.Shape
	}
	parts := []part{
		{imagesTensor, &batch.Images, tensor.Float32, tensor.Shape{n, m.Height, m.Width, m.Channels}},
		{labelsTensor, &batch.Labels, tensor.Int32, tensor.Shape{n}},
		{weightsTensor, &batch.Weights, tensor.Float32, tensor.Shape{n}},
	}
	if recorded.Config.Augment.Mixes() {
		parts = append(parts, part{partnersTensor, &batch.Partners, tensor.Int32, tensor.Shape{n}},
			part{partnerWeightsTensor, &batch.PartnerWeights, tensor.Float32, tensor.Shape{n}})
	}
	for _, want := range parts {
		t, ok := f.Tensor(want.name)
		if !ok || t.DType() != want.dtype || !t.Shape().Equal(want.shape) {
			return batch, fmt.Errorf("tensor %s is missing or not %v %v", want.name, want.dtype, want.shape)
		}
		*want.into = t
	}
	g, err := StepGraph(recorded.Config, n)
	if err != nil {
		return batch, err
	}
	var tensors []safetensors.Named
	for _, v := range g.Variables {
		if t, ok := f.Tensor(variablePrefix + v.Name); ok {
			tensors = append(tensors, safetensors.Named{Name: v.Name, Tensor: t})
		}
	}
	return batch, setAll(vars, g, tensors, true)
}
