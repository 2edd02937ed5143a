// Package explain says what a trained network looked at: class activation maps
// through the gradient graph, and the training pictures whose features are
// nearest to a picture's.
//
//	c, err := classify.Open("runs/2026-11-23-resnet18-cifar10", eng)
//	explanations, err := explain.New(c).Explain(ctx, pictures, explain.Options{})
package explain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"math"
	"slices"
	"strings"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// Method is a class activation map: a weighted sum of the channels of an
// activation A [H,W,C], with G = ∂logit/∂A, of which the positive part is kept.
type Method string

const (
	// GradCAM weights each channel with the mean of its gradient,
	//
	//	max(0, Σ_c A_c · mean(G_c))
	//
	// (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, equations 1 and
	// 2). With a global average pool behind the last stage that is CAM (Zhou et
	// al. 2016), so it belongs there: further forward a channel's mean gradient
	// says little about a place.
	GradCAM Method = "gradcam"

	// LayerCAM weights each element with its own gradient where that is positive,
	//
	//	max(0, Σ_c A_c · max(0, G_c))
	//
	// (Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps
	// for Localization", equations 6 to 8), so it stays sharp at earlier stages,
	// which have more pixels. It needs one backward pass like Grad-CAM; averaged
	// input gradients (SmoothGrad) need dozens and show edges of any class.
	LayerCAM Method = "layercam"
)

// Methods lists the methods.
func Methods() []Method { return []Method{GradCAM, LayerCAM} }

// Options say what is explained and how.
type Options struct {
	Method Method // "": GradCAM
	// Layer is one of Layers. "": the last stage for GradCAM, the one before it
	// for LayerCAM.
	Layer string
	// Classes is the class to explain for each picture; nil: the most probable.
	Classes []int
}

// Explanation is what there is to say about one picture.
type Explanation struct {
	Predictions []classify.Prediction // all classes, the most probable first
	Class       int                   // whose map it is
	Method      Method
	Layer       string
	Map         Map
	Features    []float32 // [C], the input of the dense layer
}

// Confidence is the probability of the most probable class.
func (e Explanation) Confidence() float64 { return e.Predictions[0].Probability }

// Map is a class activation map as it was computed, not scaled: its values are
// at least 0 and in units of the logit. All are 0 where nothing at the layer
// speaks for the class.
type Map struct {
	Height, Width int
	Values        []float32 // [Height,Width]
	// Window is the part of the picture that the map covers, and with letterbox more.
	Window image.Rectangle
}

// finite reports whether all values are numbers that can be drawn.
func (m Map) finite() bool {
	return !slices.ContainsFunc(m.Values, func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) })
}

// Explainer computes with a classifier's weights. It is not safe for concurrent use.
type Explainer struct {
	*classify.Classifier
	programs map[string]engine.Program
}

// New returns an Explainer of a classifier, whose Temperature calibrates its
// probabilities. The classifier stays the caller's to close, after the Explainer.
func New(c *classify.Classifier) *Explainer { return &Explainer{c, map[string]engine.Program{}} }

// Close frees the programs.
func (x *Explainer) Close() error {
	var errs []error
	for _, p := range x.programs {
		errs = append(errs, p.Close())
	}
	clear(x.programs)
	return errors.Join(errs...)
}

const stem = "stem"

// Layers names the activations that can be explained, from the input on: stem,
// layer1, layer2, …
func (x *Explainer) Layers() []string {
	layers := []string{stem}
	for i := range x.Config().Model.Blocks {
		layers = append(layers, fmt.Sprintf("layer%d", i+1))
	}
	return layers
}

// resolve fills what o leaves open.
func (x *Explainer) resolve(o Options, pictures int) (Options, error) {
	layers := x.Layers()
	switch o.Method {
	case "", GradCAM:
		o.Method = GradCAM
		o.Layer = cmp.Or(o.Layer, layers[len(layers)-1])
	case LayerCAM:
		o.Layer = cmp.Or(o.Layer, layers[len(layers)-2])
	default:
		return o, hint.Wrap(fmt.Errorf("explain: method %q is unknown", o.Method), "known methods: gradcam, layercam")
	}
	if !slices.Contains(layers, o.Layer) {
		return o, hint.Wrap(fmt.Errorf("explain: network %s has no layer %q to explain", x.Config().Model.Name, o.Layer),
			"its layers: "+strings.Join(layers, ", "))
	}
	if o.Classes != nil && len(o.Classes) != pictures {
		return o, fmt.Errorf("explain: %d classes for %d pictures", len(o.Classes), pictures)
	}
	for _, k := range o.Classes {
		if k < 0 || k >= len(x.Config().Classes) {
			return o, fmt.Errorf("explain: class %d, want 0 to %d", k, len(x.Config().Classes)-1)
		}
	}
	return o, nil
}

// Explain classifies pictures and computes a map for each, in one batch.
// Pictures of any size are resized as in training.
func (x *Explainer) Explain(ctx context.Context, pictures []dataset.Image, o Options) ([]Explanation, error) {
	if len(pictures) == 0 {
		return nil, nil
	}
	o, err := x.resolve(o, len(pictures))
	if err != nil {
		return nil, err
	}
	images := x.Prepare(pictures)
	features, logits, err := x.forward(ctx, images)
	if err != nil {
		return nil, err
	}
	classes := len(x.Config().Classes)
	found := make([]Explanation, len(pictures))
	wanted := make([]int32, len(pictures))
	for i := range found {
		e, row := &found[i], logits[i*classes:(i+1)*classes]
		if e.Predictions, err = x.Ranked(row); err != nil {
			return nil, fmt.Errorf("explain: picture %d: %w", i, err)
		}
		width := len(features) / len(pictures)
		e.Features = slices.Clone(features[i*width : (i+1)*width])
		e.Method, e.Layer, e.Class = o.Method, o.Layer, e.Predictions[0].Index
		if o.Classes != nil {
			e.Class = o.Classes[i]
		}
		wanted[i] = int32(e.Class)
	}
	p, err := x.program(fmt.Sprintf("map %s %d", o.Layer, len(pictures)), func() (*graph.Graph, error) {
		return mapGraph(x.Config().Model, len(pictures), o.Layer)
	})
	if err != nil {
		return nil, err
	}
	out, err := p.Run(ctx, images, tensor.Of(wanted, len(wanted)))
	if err != nil {
		return nil, err
	}
	for i, m := range maps(out[0], out[1], o.Method) {
		if !m.finite() {
			return nil, fmt.Errorf("explain: picture %d: activations of %s or their gradients are not finite", i, o.Layer)
		}
		m.Window = x.Config().Preprocess.Window(pictures[i].Height, pictures[i].Width)
		found[i].Map = m
	}
	return found, nil
}

// forward returns features [n,C] and logits [n,K], valid until the next call.
func (x *Explainer) forward(ctx context.Context, images tensor.Tensor) (features, logits []float32, err error) {
	batch := images.Shape()[0]
	p, err := x.program(fmt.Sprintf("forward %d", batch), func() (*graph.Graph, error) {
		b := graph.NewBuilder()
		m := x.Config().Model
		net := m.Build(b, b.Input("images", graph.Real, batch, m.Height, m.Width, m.Channels), false)
		return b.Build(net.Features, net.Logits)
	})
	if err != nil {
		return nil, nil, err
	}
	out, err := p.Run(ctx, images)
	if err != nil {
		return nil, nil, err
	}
	return out[0].AsFloat32s(), out[1].AsFloat32s(), nil
}

// mapGraph is the forward pass and the gradient of each picture's logit of a
// class with respect to the activation of a layer.
//
//	inputs:  images [N,H,W,C], classes [N]
//	outputs: activation [N,h,w,c], its gradient [N,h,w,c]
//
// Outside training no picture of a batch depends on another one, so the gradient
// of the sum of the logits is that of each.
func mapGraph(m model.Config, batch int, layer string) (*graph.Graph, error) {
	b := graph.NewBuilder()
	images := b.Input("images", graph.Real, batch, m.Height, m.Width, m.Channels)
	classes := b.Input("classes", graph.Integer, batch)
	net := m.Build(b, images, false)
	activation := net.Stem
	for i, stage := range net.Stages {
		if layer == fmt.Sprintf("layer%d", i+1) {
			activation = stage
		}
	}
	b.Layer("explained logit")
	logit := b.Sum(b.Mul(net.Logits, b.OneHot(classes, graph.OneHotAttrs{Classes: m.Classes})))
	return b.Build(activation, b.Gradients(logit, activation)[0])
}

// maps combines activations and gradients [N,h,w,c]. Sums are float64.
func maps(activation, gradient tensor.Tensor, method Method) []Map {
	shape := activation.Shape()
	h, w, c := shape[1], shape[2], shape[3]
	found := make([]Map, shape[0])
	all, gradients := activation.AsFloat32s(), gradient.AsFloat32s()
	for i := range found {
		a, g := all[i*h*w*c:(i+1)*h*w*c], gradients[i*h*w*c:(i+1)*h*w*c]
		m := Map{Height: h, Width: w, Values: make([]float32, h*w)}
		weight := make([]float64, c) // of the channels, in Grad-CAM
		if method == GradCAM {
			for at, v := range g {
				weight[at%c] += float64(v) / float64(h*w)
			}
		}
		for at := range m.Values {
			sum := 0.0
			for k := range c {
				v := weight[k]
				if method == LayerCAM {
					v = max(0, float64(g[at*c+k]))
				}
				sum += v * float64(a[at*c+k])
			}
			m.Values[at] = float32(max(0, sum))
		}
		found[i] = m
	}
	return found
}

func (x *Explainer) program(key string, build func() (*graph.Graph, error)) (engine.Program, error) {
	if p := x.programs[key]; p != nil {
		return p, nil
	}
	g, err := build()
	if err != nil {
		return nil, err
	}
	p, err := x.Engine().Compile(g, x.Variables())
	if err != nil {
		return nil, fmt.Errorf("explain: compiling %s: %w", key, err)
	}
	x.programs[key] = p
	return p, nil
}

// features runs the forward pass over all images of l, and hands each batch's
// features [n,C] to each.
func (x *Explainer) features(ctx context.Context, l *loader.Loader, each func(b loader.Batch, features []float32) error) error {
	for b, err := range l.Batches(ctx, 0, 0) {
		if err != nil {
			return err
		}
		features, _, err := x.forward(ctx, b.Images)
		if err != nil {
			return err
		}
		if err := each(b, features); err != nil {
			return err
		}
	}
	return nil
}
