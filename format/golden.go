package format

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// Tolerance is how far logits may be from those of a golden vector, as a share of
// the largest of them (at least 1). Engines and instruction sets add up float32
// numbers in different orders; what was seen is in docs/decisions.
const Tolerance = 1e-4

// maxActivations bounds what running a network on one picture takes: ResNet-152
// at 224×224 takes 0.2 GB.
const maxActivations = 8 << 30

// Comparison is the outcome for one golden vector.
type Comparison struct {
	Picture    int     `json:"picture"` // from 1
	Width      int     `json:"width"`
	Height     int     `json:"height"`
	Difference float64 `json:"max_difference"` // of a logit
	Allowed    float64 `json:"allowed"`
	Agrees     bool    `json:"agrees"`
}

// MakeGolden gives m golden vectors: three generated pictures, the same for all
// models of a size, and what the network answers to them. One is square, one
// wide, one tall and grey, so that resizing and conversion are proven too.
func MakeGolden(ctx context.Context, m *artifact.Model, e engine.Engine) error {
	side := min(m.Config.Height, m.Config.Width, 64)
	m.Golden = nil
	for i, size := range []image.Point{{side, side}, {side + side/4, side - side/8}, {side - side/8, side + side/4}} {
		picture, err := goldenPicture(size, i, i == 2)
		if err != nil {
			return err
		}
		m.Golden = append(m.Golden, artifact.Golden{Picture: picture})
	}
	p, err := newPredictor(m, e)
	if err != nil {
		return err
	}
	defer p.close()
	for i := range m.Golden {
		logits, _, err := p.predict(ctx, m.Golden[i].Picture)
		if err != nil {
			return fmt.Errorf("golden vector %d: %w", i+1, err)
		}
		for _, x := range logits {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return fmt.Errorf("golden vector %d: a logit is %v", i+1, x)
			}
		}
		m.Golden[i].Logits = logits
	}
	return nil
}

// goldenPicture is a PNG of smooth waves in three colours, or grey.
func goldenPicture(size image.Point, number int, grey bool) ([]byte, error) {
	size.X, size.Y = max(size.X, 1), max(size.Y, 1)
	s := random.New(0, random.Name("golden"), uint64(number))
	var across, down, phase [3]float64
	for c := range 3 {
		across[c], down[c], phase[c] = s.Range(-0.5, 0.5), s.Range(-0.5, 0.5), s.Range(0, 6)
	}
	at := func(x, y, c int) uint8 {
		wave := math.Sin(across[c]*float64(x) + down[c]*float64(y) + phase[c])
		return uint8(math.Round(127.5 + 127*wave))
	}
	bounds := image.Rectangle{Max: size}
	var picture image.Image
	rgba, luma := image.NewNRGBA(bounds), image.NewGray(bounds)
	for y := range size.Y {
		for x := range size.X {
			rgba.SetNRGBA(x, y, color.NRGBA{at(x, y, 0), at(x, y, 1), at(x, y, 2), 255})
			luma.SetGray(x, y, color.Gray{at(x, y, 0)})
		}
	}
	picture = rgba
	if grey {
		picture = luma
	}
	var b bytes.Buffer
	err := png.Encode(&b, picture)
	return b.Bytes(), err
}

// Verify runs m's golden vectors: decode, resize, normalise, network. That the
// answers differ is in the comparisons, not an error; that there is nothing to
// compare is one.
func Verify(ctx context.Context, m *artifact.Model, e engine.Engine) ([]Comparison, error) {
	if len(m.Golden) == 0 {
		return nil, errors.New("there are no golden vectors")
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	p, err := newPredictor(m, e)
	if err != nil {
		return nil, err
	}
	defer p.close()
	var all []Comparison
	for i, g := range m.Golden {
		logits, picture, err := p.predict(ctx, g.Picture)
		if err != nil {
			return nil, fmt.Errorf("golden vector %d: %w", i+1, err)
		}
		c := Comparison{Picture: i + 1, Width: picture.Width, Height: picture.Height, Allowed: 1}
		for k, want := range g.Logits {
			c.Difference = max(c.Difference, math.Abs(float64(logits[k])-float64(want))) // NaN stays NaN
			c.Allowed = max(c.Allowed, math.Abs(float64(want)))
		}
		c.Allowed *= Tolerance
		c.Agrees = c.Difference <= c.Allowed
		all = append(all, c)
	}
	return all, nil
}

// predictor runs m's network on single pictures.
type predictor struct {
	m       *artifact.Model
	program engine.Program
}

func newPredictor(m *artifact.Model, e engine.Engine) (*predictor, error) {
	if m.Preprocess == nil {
		return nil, errors.New("preprocessing is not known")
	}
	// A file may claim any size of pictures.
	summary, err := m.Config.Summarize()
	if err != nil {
		return nil, err
	}
	if summary.ActivationBytes > maxActivations {
		return nil, fmt.Errorf("one picture of %d×%d takes %d bytes of activations, want at most %d", m.Config.Height, m.Config.Width, summary.ActivationBytes, int64(maxActivations))
	}
	g, err := m.Graph()
	if err != nil {
		return nil, err
	}
	vars := e.NewVariables()
	for _, n := range m.Tensors {
		if err := vars.Set(n.Name, model.FromFile(n.Tensor)); err != nil {
			return nil, err
		}
	}
	program, err := e.Compile(g, vars)
	return &predictor{m, program}, err
}

func (p *predictor) close() { p.program.Close() }

// predict returns the logits for an encoded picture, and the picture.
func (p *predictor) predict(ctx context.Context, encoded []byte) ([]float32, dataset.Image, error) {
	var picture dataset.Image
	if err := dataset.DecodeImage(encoded, &picture); err != nil {
		return nil, picture, err
	}
	pre := *p.m.Preprocess
	images := tensor.New(tensor.Float32, 1, pre.Height, pre.Width, pre.Channels)
	pre.Apply(picture, images.Float32s())
	out, err := p.program.Run(ctx, images)
	if err != nil {
		return nil, picture, err
	}
	return out[1].Convert(tensor.Float32).Float32s(), picture, nil
}
