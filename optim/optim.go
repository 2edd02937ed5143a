// Package optim writes optimizers as functions over package graph: the update
// of every parameter is part of the training step's graph, so it is written
// once and each engine may fuse it. In order of increasing complexity: SGD,
// Adam, AdamW; and lookahead, which goes around any of them. A Schedule is the
// learning rate over a run.
package optim

import (
	"fmt"
	"math"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/hint"
)

// Config names an optimizer and its constants; it is plain data and part of a
// run's configuration. Defaults fills what is zero.
type Config struct {
	Name         string  `json:"name"` // sgd, adam or adamw
	LearningRate float64 `json:"learning_rate"`
	Momentum     float64 `json:"momentum,omitempty"` // sgd: μ in buf = μ·buf + g
	Nesterov     bool    `json:"nesterov,omitempty"` // sgd
	Beta1        float64 `json:"beta1,omitempty"`    // adam, adamw
	Beta2        float64 `json:"beta2,omitempty"`
	Epsilon      float64 `json:"epsilon,omitempty"`
	WeightDecay  float64 `json:"weight_decay,omitempty"` // sgd: added to the gradient; adamw: decoupled
	// DecayAll lets the decay act on biases and batch normalisation too, as
	// PyTorch's optimizers do when they are given all parameters; without it,
	// only on kernels.
	DecayAll bool `json:"decay_all,omitempty"`
	// ShiftRate multiplies the learning rate of batch normalisation's β, whose weight
	// decay it leaves as strong as that of the rest; 0 is 1 (airbench's bias_scaler,
	// Jordan 2024, https://arxiv.org/abs/2404.00498, section 3.4).
	ShiftRate float64 `json:"shift_rate,omitempty"`
	// Lookahead lets weights return to slow ones every few steps.
	Lookahead Lookahead `json:"lookahead,omitzero"`
}

// Groups divides parameters into groups whose learning rates are the run's
// multiplied by a factor each (fastai's discriminative learning rates; PyTorch's
// parameter groups). The zero Groups is one group with the factor 1.
type Groups struct {
	Scales []float64               // the factors
	Decays []float64               // factors of the weight decay besides; nil: 1
	Of     func(p *graph.Node) int // index into both
}

// decay is the factor of a group's weight decay.
func (g Groups) decay(group int) float64 {
	if g.Decays == nil {
		return 1
	}
	return g.Decays[group]
}

// decayOf is the factor of a parameter's weight decay.
func (g Groups) decayOf(p *graph.Node) float64 {
	if len(g.Scales) == 0 {
		return 1
	}
	return g.decay(g.Of(p))
}

func (g Groups) scales() []float64 {
	if len(g.Scales) == 0 {
		return []float64{1}
	}
	return g.Scales
}

// pick returns the element of a list with one element for each group.
func pick[T any](g Groups, each []T, p *graph.Node) T {
	if len(g.Scales) == 0 {
		return each[0]
	}
	return each[g.Of(p)]
}

// inputs declares one scalar input for each group.
func (g Groups) inputs(b *graph.Builder, name string, into ...*[]*graph.Node) {
	for i := range g.scales() {
		for k, list := range into {
			*list = append(*list, b.Input(fmt.Sprintf("%s.%d.%d", name, i, k), graph.Real))
		}
	}
}

// Named returns an optimizer with the defaults of the framework it is known
// from: sgd and adamw from PyTorch, adam from Keras (ε 1e-7).
func Named(name string) (Config, error) {
	switch name {
	case "sgd":
		return Config{Name: name, LearningRate: 0.1, Momentum: 0.9}, nil
	case "adam":
		return Config{Name: name, LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, nil
	case "adamw":
		return Config{Name: name, LearningRate: 1e-3, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: 0.01}, nil
	}
	return Config{}, hint.Wrap(fmt.Errorf("optimizer %q is unknown", name), "known optimizers: sgd, adam, adamw")
}

// Check reports the first constant that makes no sense.
func (c Config) Check() error {
	if _, err := Named(c.Name); err != nil {
		return err
	}
	for _, p := range []struct {
		what  string
		value float64
		ok    bool
		want  string
	}{
		{"learning rate", c.LearningRate, c.LearningRate > 0 && !math.IsInf(c.LearningRate, 0), "a positive number"},
		{"momentum", c.Momentum, c.Momentum >= 0 && c.Momentum < 1, "0 ≤ momentum < 1"},
		{"weight decay", c.WeightDecay, c.WeightDecay >= 0 && !math.IsInf(c.WeightDecay, 0), "a number ≥ 0"},
		{"beta1", c.Beta1, c.Beta1 >= 0 && c.Beta1 < 1, "0 ≤ beta1 < 1"},
		{"beta2", c.Beta2, c.Beta2 >= 0 && c.Beta2 < 1, "0 ≤ beta2 < 1"},
		{"epsilon", c.Epsilon, c.Name == "sgd" || c.Epsilon > 0, "a positive number"},
		{"rate of batch norm's β", c.ShiftRate, c.ShiftRate >= 0 && !math.IsInf(c.ShiftRate, 0), "a positive factor, or 0 for none"},
	} {
		if !p.ok {
			return fmt.Errorf("optimizer %s: %s is %v, want %s", c.Name, p.what, p.value, p.want)
		}
	}
	switch {
	case c.Name != "sgd" && (c.Momentum != 0 || c.Nesterov):
		return fmt.Errorf("optimizer %s: has no momentum, only sgd does; its counterpart is beta1", c.Name)
	case c.Name == "sgd" && (c.Beta1 != 0 || c.Beta2 != 0 || c.Epsilon != 0):
		return fmt.Errorf("optimizer sgd: has no beta1, beta2 or epsilon, only adam and adamw do; the counterpart of beta1 is the momentum")
	case c.Nesterov && c.Momentum == 0:
		return fmt.Errorf("optimizer sgd: nesterov needs a momentum above 0")
	case c.Name == "adam" && c.WeightDecay != 0:
		return hint.Wrap(fmt.Errorf("optimizer adam: has no weight decay"), "use: --optimizer adamw")
	}
	return c.Lookahead.Check()
}

// Apply appends the updates of the parameters to b. It declares the scalar
// inputs that Scalars fills at each step, in the same order; which there are
// depends on the groups, not on the parameters.
func (c Config) Apply(b *graph.Builder, parameters, gradients []*graph.Node, groups Groups) {
	switch c.Name {
	case "sgd":
		c.sgd(b, parameters, gradients, groups)
	case "adam":
		c.adam(b, parameters, gradients, groups)
	case "adamw":
		c.adamW(b, parameters, gradients, groups)
	default:
		b.Fail("optimizer %q is unknown", c.Name)
	}
}

// Scalars returns the values of Apply's inputs for one step. Steps count from
// 1; rate is the learning rate that the schedule gives to this step.
func (c Config) Scalars(step int64, rate float64, groups Groups) []float64 {
	correction1 := 1 - math.Pow(c.Beta1, float64(step))
	correction2 := 1 - math.Pow(c.Beta2, float64(step))
	var values []float64
	for group, scale := range groups.scales() {
		rate := rate * scale
		switch c.Name {
		case "adam":
			values = append(values, rate*math.Sqrt(correction2)/correction1)
		case "adamw":
			values = append(values, 1-rate*c.WeightDecay*groups.decay(group), rate/correction1, 1/math.Sqrt(correction2))
		default:
			values = append(values, rate)
		}
	}
	return values
}

// decays reports whether weight decay acts on a parameter.
func (c Config) decays(p *graph.Node) bool {
	return c.WeightDecay != 0 && (p.Variable.Decay || c.DecayAll)
}

func state(b *graph.Builder, prefix string, parameter *graph.Node) *graph.Node {
	return b.Variable(prefix+parameter.Name, graph.VariableAttrs{Role: graph.State}, parameter.Shape...)
}

// sgd is stochastic gradient descent with (Nesterov) momentum, in PyTorch's
// form, https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html:
//
//	g += decay·p;  buf = μ·buf + g;  p -= rate·(buf, or g + μ·buf with Nesterov)
func (c Config) sgd(b *graph.Builder, parameters, gradients []*graph.Node, groups Groups) {
	var rates []*graph.Node
	groups.inputs(b, "optimizer.rate", &rates)
	for i, p := range parameters {
		g := gradients[i]
		if c.decays(p) {
			g = b.Add(g, b.Scale(p, c.WeightDecay*groups.decayOf(p)))
		}
		if c.Momentum != 0 {
			buf := state(b, "sgd.momentum/", p)
			next := b.Add(b.Scale(buf, c.Momentum), g)
			b.Update(buf, next)
			if c.Nesterov {
				g = b.Add(g, b.Scale(next, c.Momentum))
			} else {
				g = next
			}
		}
		b.Update(p, b.Sub(p, b.Mul(g, pick(groups, rates, p))))
	}
}

// moments updates Adam's running averages of the gradient and its square:
//
//	m = β₁·m + (1-β₁)·g;  v = β₂·v + (1-β₂)·g²
func (c Config) moments(b *graph.Builder, p, g *graph.Node) (m, v *graph.Node) {
	first, second := state(b, "adam.m/", p), state(b, "adam.v/", p)
	m = b.Add(b.Scale(first, c.Beta1), b.Scale(g, 1-c.Beta1))
	v = b.Add(b.Scale(second, c.Beta2), b.Scale(b.Mul(g, g), 1-c.Beta2))
	b.Update(first, m)
	b.Update(second, v)
	return m, v
}

// adam is Adam (Kingma, Ba 2014, https://arxiv.org/abs/1412.6980) in Keras's
// form: the bias correction is folded into the rate and ε is added to the
// uncorrected root, the paper's "ε̂" remark at the end of section 2.
//
//	p -= rate·√(1-β₂ᵗ)/(1-β₁ᵗ) · m/(√v + ε)
func (c Config) adam(b *graph.Builder, parameters, gradients []*graph.Node, groups Groups) {
	var corrected []*graph.Node
	groups.inputs(b, "optimizer.corrected_rate", &corrected)
	epsilon := b.Constant(c.Epsilon)
	for i, p := range parameters {
		m, v := c.moments(b, p, gradients[i])
		b.Update(p, b.Sub(p, b.Div(b.Mul(m, pick(groups, corrected, p)), b.Add(b.Sqrt(v), epsilon))))
	}
}

// adamW is AdamW (Loshchilov, Hutter 2017, https://arxiv.org/abs/1711.05101) in
// PyTorch's form, https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html:
//
//	p *= 1 - rate·decay;  p -= rate/(1-β₁ᵗ) · m/(√v/√(1-β₂ᵗ) + ε)
func (c Config) adamW(b *graph.Builder, parameters, gradients []*graph.Node, groups Groups) {
	var shrink, rate, root []*graph.Node
	groups.inputs(b, "optimizer.shrink,rate,root", &shrink, &rate, &root)
	epsilon := b.Constant(c.Epsilon)
	for i, p := range parameters {
		m, v := c.moments(b, p, gradients[i])
		kept := p
		if c.decays(p) {
			kept = b.Mul(p, pick(groups, shrink, p))
		}
		b.Update(p, b.Sub(kept, b.Div(b.Mul(m, pick(groups, rate, p)), b.Add(b.Mul(b.Sqrt(v), pick(groups, root, p)), epsilon))))
	}
}
