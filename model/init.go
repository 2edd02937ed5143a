package model

import (
	"math"

	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

// Initial draws a variable's first value, in graph order. It is a pure function
// of the seed and the variable's name, so it does not depend on the order or
// number of variables.
func Initial(v *graph.Node, seed uint64) tensor.Tensor {
	t := tensor.New(tensor.Float32, v.Shape...)
	values := t.Float32s()
	fill := func(draw func(s *random.Source) float64) {
		s := random.New(seed, random.Name("initial weights"), random.Name(v.Name))
		for i := range values {
			values[i] = float32(draw(s))
		}
	}
	init := v.Variable.Init
	switch init.Kind {
	case graph.Zeros:
	case graph.Ones:
		fill(func(*random.Source) float64 { return 1 })
	case graph.GlorotUniform:
		limit := math.Sqrt(6 / float64(init.FanIn+init.FanOut))
		fill(func(s *random.Source) float64 { return s.Range(-limit, limit) })
	case graph.HeNormalFanOut:
		deviation := math.Sqrt(2 / float64(init.FanOut))
		fill(func(s *random.Source) float64 { return deviation * s.Normal() })
	case graph.LeCunUniform, graph.Dirac, graph.Whitening:
		limit := 1 / math.Sqrt(float64(init.FanIn))
		fill(func(s *random.Source) float64 { return s.Range(-limit, limit) })
	}
	if init.Kind == graph.Dirac { // [KH,KW,C,OC]
		kh, kw, c, oc := v.Shape[0], v.Shape[1], v.Shape[2], v.Shape[3]
		for at := range values {
			channel, filter := at/oc%c, at%oc
			switch {
			case filter >= c:
			case filter == channel && at/oc/c == kh/2*kw+kw/2:
				values[at] = 1
			default:
				values[at] = 0
			}
		}
	}
	return t
}
