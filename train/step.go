package train

import (
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// StepGraph is one whole training step: forward pass, loss, gradients, update.
//
//	inputs:  images [N,H,W,C], labels [N], weights [N], the optimizer's scalars
//	outputs: loss (scalar, with penalty), logits [N,K], Σ of all gradients' squares (scalar)
//
// The updates are withheld when the loss or a gradient is not finite.
func StepGraph(c Config, batch int) (*graph.Graph, error) { return stepGraph(c, batch, training) }

func stepGraph(c Config, batch int, m mode) (*graph.Graph, error) {
	b := graph.NewBuilder()
	loss, logits := lossNodes(b, c, batch, m)
	parameters := m.trained(b)
	gradients := b.Gradients(loss, parameters...)
	b.Layer("optimizer")
	c.Optimizer.Apply(b, parameters, gradients, c.groups())
	squares := b.Constant(0)
	for _, g := range gradients {
		squares = b.Add(squares, b.SumSquares(g))
	}
	b.Guard(b.Add(loss, b.Scale(squares, 0))) // 0·∞ is NaN
	return b.Build(loss, logits, squares)
}

// evalGraph is the forward pass with moving statistics, and the loss.
//
//	inputs:  images [N,H,W,C], labels [N], weights [N]
//	outputs: loss (scalar, with penalty), logits [N,K]
func evalGraph(c Config, batch int) (*graph.Graph, error) {
	b := graph.NewBuilder()
	loss, logits := lossNodes(b, c, batch, inference)
	return b.Build(loss, logits)
}

// lossNodes is mean over the batch of weight·cross-entropy, plus the penalty,
// as Keras adds it up. Label smoothing is for training only.
func lossNodes(b *graph.Builder, c Config, batch int, use mode) (loss, logits *graph.Node) {
	m := c.Model
	images := b.Input("images", graph.Real, batch, m.Height, m.Width, m.Channels)
	labels := b.Input("labels", graph.Integer, batch)
	weights := b.Input("weights", graph.Real, batch)
	net := m.Build(b, images, use == training)

	b.Layer("loss")
	oneHot := graph.OneHotAttrs{Classes: m.Classes}
	if use != inference {
		oneHot.Smoothing = c.LabelSmoothing
	}
	each := b.CrossEntropy(net.Logits, b.OneHot(labels, oneHot))
	loss = b.Mean(b.Mul(each, weights))
	if c.L2 != 0 {
		loss = b.Add(loss, b.Scale(b.SumSquares(net.Kernel), c.L2))
	}
	return loss, net.Logits
}

// Penalty is the part of the loss that does not depend on images, L2·Σ kernel² of
// the dense layer.
func Penalty(c Config, vars engine.Variables) (float64, error) {
	if c.L2 == 0 {
		return 0, nil
	}
	m := c.Model
	b := graph.NewBuilder()
	net := m.Build(b, b.Input("images", graph.Real, 1, m.Height, m.Width, m.Channels), false)
	if _, err := b.Build(net.Logits); err != nil {
		return 0, err
	}
	kernel, err := vars.Get(net.Kernel.Name)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for _, w := range kernel.Convert(tensor.Float64).Float64s() {
		sum += w * w
	}
	return c.L2 * sum, nil
}
