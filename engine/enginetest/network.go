package enginetest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

// networkSpec is a small network with everything that the large ones have.
type networkSpec struct {
	name          string
	runs          []networkRun
	height, width int
	body          func(n *network, x *graph.Node) *graph.Node // images to features [N,C]
	epsilon       float64                                     // of batch normalisation
	adam          bool                                        // or momentum with weight decay
}

// networkRun trains with a batch size. Where an activation is zero up to
// rounding, ReLU and with it the gradient go one way or the other: then engines
// differ by far more than rounding. The data begin at a batch where that does not
// happen: TestMargins finds the number.
type networkRun struct{ batch, steps, first int }

func networks() []networkSpec {
	same := func(x *graph.Node, kernel, stride int) graph.Padding {
		return graph.SamePadding(x.Shape[1], x.Shape[2], kernel, stride)
	}
	half := func(_ *graph.Node, kernel, _ int) graph.Padding { return graph.SymmetricPadding(kernel / 2) }
	return []networkSpec{
		{"keras basic blocks", []networkRun{{1, 10, 0}, {3, 10, 2}, {16, 3, 27}}, 8, 10, func(n *network, x *graph.Node) *graph.Node {
			n.pad = same
			x = n.relu(n.convNorm("conv1", x, 16, 3, 1))
			x = n.block("layer1", x, 16, 1, false)
			x = n.block("layer2", x, 33, 2, false)
			return n.b.GlobalAvgPool(x)
		}, 1e-3, true},
		{"option A", []networkRun{{3, 10, 0}, {16, 3, 2}}, 8, 8, func(n *network, x *graph.Node) *graph.Node {
			n.pad = half
			x = n.relu(n.convNorm("conv1", x, 5, 3, 1))
			x = n.block("layer1", x, 17, 2, true)
			x = n.block("layer2", x, 17, 1, true)
			return n.b.GlobalAvgPool(x)
		}, 1e-5, false},
		{"large stem and bottleneck", []networkRun{{3, 10, 0}, {16, 3, 0}}, 21, 19, func(n *network, x *graph.Node) *graph.Node {
			n.pad = half
			x = n.relu(n.convNorm("conv1", x, 8, 7, 2))
			x = n.b.MaxPool(x, graph.PoolAttrs{Size: 3, Stride: 2, Pad: graph.SymmetricPadding(1)})
			y := n.relu(n.convNorm("layer1.conv1", x, 4, 1, 1))
			y = n.relu(n.convNorm("layer1.conv2", y, 4, 3, 2))
			y = n.convNorm("layer1.conv3", y, 16, 1, 1)
			x = n.relu(n.b.Add(y, n.convNorm("layer1.downsample", x, 16, 1, 2)))
			return n.b.GlobalAvgPool(n.b.AvgPool(x, graph.PoolAttrs{Size: 2, Stride: 1}))
		}, 1e-5, true},
	}
}

const networkClasses = 10

// network is a graph for one batch size: for training, whose outputs are the
// loss and the logits, or for evaluation, whose output is the probabilities.
type network struct {
	networkSpec
	b            *graph.Builder
	graph        *graph.Graph
	batchN       int
	training     bool
	pad          func(x *graph.Node, kernel, stride int) graph.Padding
	logits, loss *graph.Node
	kinks        []*graph.Node // operands of ReLU
}

func newNetwork(spec networkSpec, batch int, training bool) *network {
	b := graph.NewBuilder()
	n := &network{networkSpec: spec, b: b, batchN: batch, training: training}
	features := spec.body(n, b.Input("images", graph.Real, batch, spec.height, spec.width, 3))
	weight, bias := n.parameter("fc.weight", features.Shape[1], networkClasses), n.parameter("fc.bias", networkClasses)
	n.logits = b.Bias(b.MatMul(features, weight, graph.MatMulAttrs{}), bias)
	if training {
		targets := b.OneHot(b.Input("labels", graph.Integer, batch), graph.OneHotAttrs{Classes: networkClasses, Smoothing: 0.1})
		n.loss = b.Add(b.Mean(b.CrossEntropy(n.logits, targets)), b.Scale(b.SumSquares(weight), 0.01))
	}
	return n
}

// forTraining finishes a graph that makes a step.
func forTraining(t *testing.T, spec networkSpec, batch int) *network {
	t.Helper()
	n := newNetwork(spec, batch, true)
	parameters := n.b.Variables(graph.Parameter)
	for i, gradient := range n.b.Gradients(n.loss, parameters...) {
		n.update(parameters[i], gradient)
	}
	n.b.Guard(n.loss)
	n.graph = build(t, n.b, n.loss, n.logits)
	return n
}

// forEvaluation finishes a graph that normalises with moving statistics.
func forEvaluation(t *testing.T, spec networkSpec, batch int) *network {
	t.Helper()
	n := newNetwork(spec, batch, false)
	n.graph = build(t, n.b, n.b.Softmax(n.logits))
	return n
}

func (n *network) parameter(name string, shape ...int) *graph.Node {
	return n.b.Variable(name, graph.VariableAttrs{Role: graph.Parameter}, shape...)
}

// convNorm is a convolution with batch normalisation and its moving statistics.
func (n *network) convNorm(name string, x *graph.Node, channels, kernel, stride int) *graph.Node {
	b := n.b
	w := n.parameter(name+".weight", kernel, kernel, x.Shape[3], channels)
	x = b.Conv(x, w, graph.ConvAttrs{Stride: stride, Pad: n.pad(x, kernel, stride)})
	scale, shift := n.parameter(name+".scale", channels), n.parameter(name+".shift", channels)
	movingMean := b.Variable(name+".mean", graph.VariableAttrs{Role: graph.Statistic}, channels)
	movingVariance := b.Variable(name+".variance", graph.VariableAttrs{Role: graph.Statistic}, channels)
	if !n.training {
		return b.BatchNorm(x, scale, shift, movingMean, movingVariance, graph.NormAttrs{Epsilon: n.epsilon})
	}
	mean := b.BatchMean(x)
	variance := b.BatchVariance(x, mean)
	b.Update(movingMean, b.Add(b.Scale(movingMean, 0.9), b.Scale(mean, 0.1)))
	b.Update(movingVariance, b.Add(b.Scale(movingVariance, 0.9), b.Scale(variance, 0.1)))
	return b.BatchNorm(x, scale, shift, mean, variance, graph.NormAttrs{Epsilon: n.epsilon, Training: true})
}

func (n *network) relu(x *graph.Node) *graph.Node {
	n.kinks = append(n.kinks, x)
	return n.b.ReLU(x)
}

// block is a basic block; its shortcut where the shape changes is a projection
// or option A.
func (n *network) block(name string, x *graph.Node, channels, stride int, optionA bool) *graph.Node {
	b := n.b
	y := n.relu(n.convNorm(name+".conv1", x, channels, 3, stride))
	y = n.convNorm(name+".conv2", y, channels, 3, 1)
	switch more := channels - x.Shape[3]; {
	case more == 0 && stride == 1:
	case optionA:
		x = b.PadChannels(b.Subsample(x, stride), more/2, more-more/2)
	default:
		x = n.convNorm(name+".downsample", x, channels, 1, stride)
	}
	return n.relu(b.Add(y, x))
}

// update is a step of an optimizer. Epsilon is larger than in practice: where a
// gradient is nearly zero, Adam turns its rounding error into a full step.
func (n *network) update(p, gradient *graph.Node) {
	b := n.b
	state := func(name string) *graph.Node {
		return b.Variable(p.Name+"."+name, graph.VariableAttrs{Role: graph.State}, p.Shape...)
	}
	if n.adam {
		m, v := state("m"), state("v")
		newM := b.Add(b.Scale(m, 0.9), b.Scale(gradient, 0.1))
		newV := b.Add(b.Scale(v, 0.99), b.Scale(b.Mul(gradient, gradient), 0.01))
		b.Update(m, newM)
		b.Update(v, newV)
		b.Update(p, b.Sub(p, b.Div(b.Scale(newM, 0.01), b.Add(b.Sqrt(newV), b.Constant(0.01)))))
		return
	}
	velocity := state("velocity")
	next := b.Add(b.Scale(velocity, 0.9), b.Add(gradient, b.Scale(p, 1e-3)))
	b.Update(velocity, next)
	b.Update(p, b.Sub(p, b.Scale(next, 0.05)))
}

// initialise sets parameters and statistics; the optimizer's state is zero.
func (n *network) initialise(t *testing.T, vars engine.Variables) {
	t.Helper()
	for _, v := range n.graph.Variables {
		if v.Variable.Role == graph.State {
			continue
		}
		fan := 1
		for _, d := range v.Shape[:len(v.Shape)-1] {
			fan *= d
		}
		source := random.New(seed, random.Name(v.Name))
		values := make([]float32, v.Shape.Elements())
		for i := range values {
			switch {
			case v.Variable.Role == graph.Statistic:
				values[i] = float32(source.Range(0.5, 1))
			case strings.HasSuffix(v.Name, ".scale"):
				values[i] = float32(source.Range(0.7, 1.3))
			case len(v.Shape) == 1:
				// Below zero, so that ReLU and max pooling let zeros through: a shift
				// that moves all of a batch has no effect on the next normalisation,
				// and its gradient is nothing but rounding.
				values[i] = float32(source.Range(-1, 0))
			default:
				values[i] = float32(source.Normal() * math.Sqrt(2/float64(fan)))
			}
		}
		set(t, vars, v.Name, tensor.Of(values, v.Shape...))
	}
}

// batch draws the inputs of a step.
func (n *network) batch(step int) (images, labels tensor.Tensor) {
	source := random.New(seed, random.Name(n.name), uint64(step))
	x := make([]float32, n.batchN*n.height*n.width*3)
	for i := range x {
		x[i] = float32(source.Normal())
	}
	y := make([]int32, n.batchN)
	for i := range y {
		y[i] = int32(source.IntN(networkClasses))
	}
	return tensor.Of(x, n.batchN, n.height, n.width, 3), tensor.Of(y, n.batchN)
}

// trained is what some steps leave: the outputs of each, the probabilities of an
// evaluation with another batch size, and all variables.
type trained struct {
	what   []string
	values []tensor.Tensor
}

func (n *network) train(t *testing.T, e engine.Engine, r networkRun) trained {
	t.Helper()
	vars := e.NewVariables()
	n.initialise(t, vars)
	p := compile(t, e, n.graph, vars)
	defer p.Close()
	var kept trained
	keep := func(what string, v tensor.Tensor) {
		kept.what, kept.values = append(kept.what, what), append(kept.values, v.Clone())
	}
	for step := range r.steps {
		images, labels := n.batch(r.first + step)
		out := run(t, p, images, labels)
		keep(fmt.Sprintf("loss of step %d", step), out[0])
		keep(fmt.Sprintf("logits of step %d", step), out[1])
	}
	evaluation := forEvaluation(t, n.networkSpec, n.batchN+3)
	q := compile(t, e, evaluation.graph, vars)
	defer q.Close()
	images, _ := evaluation.batch(r.first + r.steps)
	keep("probabilities", run(t, q, images)[0])
	for _, name := range vars.Names() {
		v, err := vars.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		keep("variable "+name, v)
	}
	return kept
}

// networkBound is the largest error, relative to the largest element of a
// tensor, after all steps. Rounding every value to float32 leaves 1e-6.
const networkBound = 2e-5

// testNetworks trains networks: as ref does, and with the same
// bytes in a second engine.
func testNetworks(t *testing.T, open func() engine.Engine) {
	for _, spec := range networks() {
		for _, r := range spec.runs {
			t.Run(fmt.Sprintf("%s, batch %d", spec.name, r.batch), func(t *testing.T) {
				n := forTraining(t, spec, r.batch)
				e := open()
				defer e.Close()
				got, want := n.train(t, e, r), n.train(t, ref.New(), r)
				if !slices.Equal(got.what, want.what) {
					t.Fatalf("variables are\n%v, want\n%v", got.what, want.what)
				}
				worst := 0.0
				for i, what := range got.what {
					g, w := got.values[i].Convert(tensor.Float64).Float64s(), want.values[i].Float64s()
					size, wrong := 0.0, 0.0
					for j := range w {
						size = max(size, math.Abs(w[j]))
						wrong = max(wrong, math.Abs(g[j]-w[j]))
					}
					if !(wrong <= networkBound*size) {
						t.Errorf("%s: error %.3g of %.3g, allowed %v of it", what, wrong, size, networkBound)
					}
					worst = max(worst, wrong/size)
				}
				t.Logf("worst error after %d steps %.2g of %v", r.steps, worst, networkBound)

				second := open()
				defer second.Close()
				again := n.train(t, second, r)
				for i, what := range got.what {
					if !slices.Equal(bits(again.values[i]), bits(got.values[i])) {
						t.Errorf("%s: a second engine gives other bytes", what)
						break
					}
				}
			})
		}
	}
}

// testSharing tests that programs of different batch sizes see one set of
// variables: what one updates or a caller sets, the others read.
func testSharing(t *testing.T, open func() engine.Engine) {
	e := open()
	defer e.Close()
	spec := networks()[0]
	step, one, many := forTraining(t, spec, 4), forEvaluation(t, spec, 1), forEvaluation(t, spec, 7)
	vars := e.NewVariables()
	step.initialise(t, vars)
	var programs []engine.Program
	for _, n := range []*network{step, one, many} { // all compiled before anything runs
		p := compile(t, e, n.graph, vars)
		defer p.Close()
		programs = append(programs, p)
	}

	images, _ := many.batch(0)
	pixels := images.Float32s()
	first := tensor.Of(pixels[:len(pixels)/7], 1, spec.height, spec.width, 3)
	evaluate := func() float64 {
		t.Helper()
		p1 := run(t, programs[1], first)[0].Convert(tensor.Float64).Float64s()
		p7 := run(t, programs[2], images)[0].Convert(tensor.Float64).Float64s()
		for k := range p1 {
			if math.Abs(p1[k]-p7[k]) > 1e-5 {
				t.Errorf("the first picture has probabilities %v alone and %v in a batch", p1, p7[:networkClasses])
				break
			}
		}
		return p1[0]
	}
	before := evaluate()
	x, y := step.batch(1)
	run(t, programs[0], x, y)
	trained := evaluate()
	if before == trained {
		t.Error("an evaluation does not see a training step")
	}

	// Kernels that engines pack must be packed anew after Set.
	w := get(t, vars, "conv1.weight")
	for i := range w {
		w[i] *= -1
	}
	set(t, vars, "conv1.weight", tensor.Of(w, 3, 3, 3, 16))
	negated := evaluate()
	if negated == trained {
		t.Error("an evaluation does not see Set")
	}
	step.initialise(t, vars)
	if again := evaluate(); again != before {
		t.Errorf("with the first variables again, a probability is %v, was %v", again, before)
	}

	if _, err := programs[1].Run(context.Background(), images); err == nil {
		t.Error("a program for one picture takes seven")
	}
}
