package train

import (
	"slices"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/tensor"
)

// StepGraph is one whole training step on one batch: forward pass, loss,
// gradients, update.
//
//	inputs:  those of lossNodes, the scalars of the optimizer, of lookahead, of the moving average
//	outputs: loss (scalar, with penalty), logits [N,K], Σ of all gradients' squares (scalar)
//
// The updates are withheld when the loss or a gradient is not finite.
func StepGraph(c Config, batch int) (*graph.Graph, error) {
	c.Accumulate = 1
	return stepGraph(c, batch, stepKind{training, true})
}

// stepKind says what a step's graph does.
type stepKind struct {
	mode mode
	// update: the parameters are updated; without it, the gradients are only added
	// to those of earlier batches.
	update bool
}

// stepGraph is StepGraph where batches accumulate, and of the other kinds. Then
// two scalars come before the optimizer's:
//
//	accumulated = keep·accumulated + share·gradient
//
// keep is 0 in the first batch of an update, else 1; share is the batch's part of
// all images of the update.
func stepGraph(c Config, batch int, kind stepKind) (*graph.Graph, error) {
	b := graph.NewBuilder()
	loss, logits := lossNodes(b, c, batch, kind.mode)
	parameters := kind.mode.trained(b)
	gradients := b.Gradients(loss, parameters...)
	b.Layer("optimizer")
	if c.Accumulate > 1 {
		keep, share := b.Input("accumulate.keep", graph.Real), b.Input("accumulate.share", graph.Real)
		for i, p := range parameters {
			sum := b.Variable("accumulate/"+p.Name, graph.VariableAttrs{Role: graph.State}, p.Shape...)
			gradients[i] = b.Add(b.Mul(sum, keep), b.Mul(gradients[i], share))
			if !kind.update {
				b.Update(sum, gradients[i])
			}
		}
	}
	squares := b.Constant(0)
	for _, g := range gradients {
		squares = b.Add(squares, b.SumSquares(g))
	}
	b.Guard(b.Add(loss, b.Scale(squares, 0))) // 0·∞ is NaN
	if kind.update {
		c.Optimizer.Apply(b, parameters, c.clip(b, gradients, squares), c.groups())
		if kind.mode.whole() {
			c.Optimizer.Lookahead.Apply(b, slices.Concat(parameters, b.Variables(graph.Statistic)))
		}
		c.average(b)
	}
	return b.Build(loss, logits, squares)
}

// accumulateScalars are the scalars of accumulation for a batch of n images after
// so many others, of all of an update.
func (c Config) accumulateScalars(before, n, all int) []float64 {
	if c.Accumulate <= 1 {
		return nil
	}
	return []float64{float64(min(1, before)), float64(n) / float64(all)}
}

// updateScalars are those of optimizer, lookahead and moving average; the first and
// the last count their updates from 1.
func (c Config) updateScalars(optimizerStep, averageStep int, rate float64, lookahead []float64) []float64 {
	scalars := append(c.Optimizer.Scalars(int64(optimizerStep), rate, c.groups()), lookahead...)
	if c.EMA > 0 {
		keep := c.averageKeep(averageStep)
		scalars = append(scalars, keep, 1-keep)
	}
	return scalars
}

// clip bounds gradients as PyTorch's clip_grad_value_ and clip_grad_norm_ do, in
// this order:
//
//	g = min(max(g, -ClipValue), ClipValue)
//	g = g·ClipNorm/max(ClipNorm, norm+1e-6)
//
// There is no minimum among the operations: max(x, 0) is ReLU. Where nothing is
// bounded the value is exactly g.
func (c Config) clip(b *graph.Builder, gradients []*graph.Node, squares *graph.Node) []*graph.Node {
	if c.ClipValue > 0 {
		bound := b.Constant(c.ClipValue)
		squares = b.Constant(0)
		for i, g := range gradients {
			above, below := b.ReLU(b.Sub(g, bound)), b.ReLU(b.Sub(b.Scale(g, -1), bound))
			gradients[i] = b.Add(b.Sub(g, above), below)
			squares = b.Add(squares, b.SumSquares(gradients[i]))
		}
	}
	if c.ClipNorm > 0 {
		bound := b.Constant(c.ClipNorm)
		excess := b.ReLU(b.Sub(b.Add(b.Sqrt(squares), b.Constant(1e-6)), bound))
		factor := b.Div(bound, b.Add(bound, excess))
		for i, g := range gradients {
			gradients[i] = b.Mul(g, factor)
		}
	}
	return gradients
}

// averagePrefix comes before a variable's name in that of its moving average.
const averagePrefix = "ema/"

// average appends the moving average of all parameters and statistics:
//
//	average = keep·average + (1-keep)·new value
//
// Statistics are averaged too, as torchvision does, since they fit the averaged
// weights no better than those of one step. What is fixed is copied.
func (c Config) average(b *graph.Builder) {
	if c.EMA == 0 {
		return
	}
	keep, take := b.Input("ema.keep", graph.Real), b.Input("ema.take", graph.Real)
	for _, v := range slices.Concat(b.Variables(graph.Parameter), b.Variables(graph.Statistic)) {
		mean := b.Variable(averagePrefix+v.Name, graph.VariableAttrs{Role: graph.State}, v.Shape...)
		b.Update(mean, b.Add(b.Mul(mean, keep), b.Mul(b.Updated(v), take)))
	}
	for _, v := range b.Variables(graph.Fixed) {
		same := b.Variable(averagePrefix+v.Name, graph.VariableAttrs{Role: graph.State}, v.Shape...)
		b.Update(same, b.Scale(v, 1))
	}
}

// averageKeep is how much of the moving average stays in an update, steps counted
// from 1: none in the first, and then less than EMA as long as the average would
// remember the beginning too well (TensorFlow's ExponentialMovingAverage with
// num_updates).
func (c Config) averageKeep(step int) float64 {
	if step == 1 {
		return 0
	}
	n := float64(step - 1)
	return min(c.EMA, (1+n)/(10+n))
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
// as Keras adds it up. Label smoothing is for training only. Inputs are images
// [N,H,W,C], labels [N], weights [N] and, in training, for mixup and CutMix the
// second labels [N] and their weights [N], whose loss is added (cross-entropy is
// linear in its targets), and the factors of stochastic depth.
func lossNodes(b *graph.Builder, c Config, batch int, use mode) (loss, logits *graph.Node) {
	m := c.Model
	images := b.Input("images", graph.Real, batch, m.Height, m.Width, m.Channels)
	labels := b.Input("labels", graph.Integer, batch)
	weights := b.Input("weights", graph.Real, batch)
	var partners, partnerWeights *graph.Node
	if use != inference && c.Augment.Mixes() {
		partners = b.Input("partners", graph.Integer, batch)
		partnerWeights = b.Input("partner_weights", graph.Real, batch)
	}
	net := m.Build(b, images, use.whole())

	b.Layer("loss")
	oneHot := graph.OneHotAttrs{Classes: m.Classes}
	if use != inference {
		oneHot.Smoothing = c.LabelSmoothing
	}
	each := b.Mul(b.CrossEntropy(net.Logits, b.OneHot(labels, oneHot)), weights)
	if partners != nil {
		each = b.Add(each, b.Mul(b.CrossEntropy(net.Logits, b.OneHot(partners, oneHot)), partnerWeights))
	}
	loss = b.Mean(each)
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

// lossInputs are the inputs of lossNodes for a batch of training. The mode is not
// always that of the batch's epoch: a rate test goes on in the first epoch's.
func lossInputs(c Config, b loader.Batch, m mode) []tensor.Tensor {
	inputs := []tensor.Tensor{b.Images, b.Labels, b.Weights}
	if c.Augment.Mixes() {
		inputs = append(inputs, b.Partners, b.PartnerWeights)
	}
	if m.whole() {
		inputs = slices.Concat(inputs, c.Model.DropPathFactors(c.Seed, b.Epoch, b.Draws))
	}
	return inputs
}
