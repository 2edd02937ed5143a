package optim

import (
	"math"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/tensor"
)

// Three steps on one kernel and one bias with fixed gradients, against the
// published formulas written out. (Golden files compare whole networks with
// PyTorch and Keras, in package train; there every parameter decays.)
func TestUpdates(t *testing.T) {
	const rate, decay = 0.1, 0.01
	gradients := []float64{0.5, -2, 0.25}
	for _, c := range []struct {
		name   string
		config Config
		update func(p, g, decay float64, step int, memory *[2]float64) float64
	}{
		{"sgd", Config{Name: "sgd", WeightDecay: decay}, func(p, g, decay float64, _ int, _ *[2]float64) float64 {
			return p - rate*(g+decay*p)
		}},
		{"momentum", Config{Name: "sgd", Momentum: 0.9, WeightDecay: decay}, func(p, g, decay float64, _ int, m *[2]float64) float64 {
			m[0] = 0.9*m[0] + g + decay*p
			return p - rate*m[0]
		}},
		{"nesterov", Config{Name: "sgd", Momentum: 0.9, Nesterov: true, WeightDecay: decay}, func(p, g, decay float64, _ int, m *[2]float64) float64 {
			g += decay * p
			m[0] = 0.9*m[0] + g
			return p - rate*(g+0.9*m[0])
		}},
		{"adam", Config{Name: "adam", Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, func(p, g, _ float64, step int, m *[2]float64) float64 {
			m[0], m[1] = 0.9*m[0]+0.1*g, 0.999*m[1]+0.001*g*g
			alpha := rate * math.Sqrt(1-math.Pow(0.999, float64(step))) / (1 - math.Pow(0.9, float64(step)))
			return p - alpha*m[0]/(math.Sqrt(m[1])+1e-7)
		}},
		{"adamw", Config{Name: "adamw", Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: decay}, func(p, g, decay float64, step int, m *[2]float64) float64 {
			m[0], m[1] = 0.9*m[0]+0.1*g, 0.999*m[1]+0.001*g*g
			first, second := m[0]/(1-math.Pow(0.9, float64(step))), m[1]/(1-math.Pow(0.999, float64(step)))
			return p*(1-rate*decay) - rate*first/(math.Sqrt(second)+1e-8)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := graph.NewBuilder()
			kernel := b.Variable("kernel", graph.VariableAttrs{Decay: true}, 1)
			bias := b.Variable("bias", graph.VariableAttrs{}, 1)
			g := b.Input("gradient", graph.Real, 1)
			c.config.LearningRate = rate
			if err := c.config.Check(); err != nil {
				t.Fatal(err)
			}
			c.config.Apply(b, []*graph.Node{kernel, bias}, []*graph.Node{g, g})
			built, err := b.Build()
			if err != nil {
				t.Fatal(err)
			}
			eng := ref.New()
			vars := eng.NewVariables()
			program, err := eng.Compile(built, vars)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]float64{"kernel": 3, "bias": -1}
			memory := map[string]*[2]float64{"kernel": {}, "bias": {}}
			for name, x := range want {
				if err := vars.Set(name, tensor.Of([]float64{x}, 1)); err != nil {
					t.Fatal(err)
				}
			}
			for step, g := range gradients {
				inputs := []tensor.Tensor{tensor.Of([]float64{g}, 1)}
				for _, s := range c.config.Scalars(int64(step+1), rate) {
					inputs = append(inputs, tensor.Of([]float64{s}))
				}
				if _, err := program.Run(t.Context(), inputs...); err != nil {
					t.Fatal(err)
				}
				want["kernel"] = c.update(want["kernel"], g, decay, step+1, memory["kernel"])
				want["bias"] = c.update(want["bias"], g, 0, step+1, memory["bias"])
				for name, x := range want {
					got, err := vars.Get(name)
					if err != nil {
						t.Fatal(err)
					}
					if math.Abs(got.Float64s()[0]-x) > 1e-14 {
						t.Errorf("step %d: %s is %.17g, want %.17g", step+1, name, got.Float64s()[0], x)
					}
				}
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for _, name := range []string{"sgd", "adam", "adamw"} {
		c, err := Named(name)
		if err != nil || c.Check() != nil {
			t.Errorf("%s: the defaults are refused: %v, %v", name, err, c.Check())
		}
	}
	for want, c := range map[string]Config{
		`optimizer "lion" is unknown`: {Name: "lion"},
		"learning rate is 0":          {Name: "sgd"},
		"momentum is 1":               {Name: "sgd", LearningRate: 1, Momentum: 1},
		"needs a momentum":            {Name: "sgd", LearningRate: 1, Nesterov: true},
		"epsilon is 0":                {Name: "adam", LearningRate: 1},
		"has no weight decay":         {Name: "adam", LearningRate: 1, Epsilon: 1, WeightDecay: 1},
		"weight decay is NaN":         {Name: "sgd", LearningRate: 1, WeightDecay: math.NaN()},
	} {
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", c, err, want)
		}
	}
}

func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		s          Schedule
		done, want float64
	}{
		{Schedule{Name: "constant"}, 0.7, 1},
		{Schedule{Name: "cosine"}, 0, 1},
		{Schedule{Name: "cosine"}, 0.5, 0.5},
		{Schedule{Name: "cosine"}, 1, 0},
		{Schedule{Name: "cosine", Floor: 0.1}, 1, 0.1},
		{Schedule{Name: "cosine", Warmup: 0.2}, 0, 0.01 / 0.2}, // the first step is not lost
		{Schedule{Name: "cosine", Warmup: 0.2}, 0.1, 0.11 / 0.2},
		{Schedule{Name: "cosine", Warmup: 0.2}, 0.2, 1},
		{Schedule{Name: "cosine", Warmup: 0.2}, 0.6, 0.5},
	} {
		if err := c.s.Check(); err != nil {
			t.Error(err)
		}
		if got := c.s.Factor(c.done, 0.01); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%+v at %v: %v, want %v", c.s, c.done, got, c.want)
		}
	}
	for want, s := range map[string]Schedule{`"step" is unknown`: {Name: "step"}, "warm-up is 1": {Name: "cosine", Warmup: 1}, "floor is 2": {Name: "cosine", Floor: 2}} {
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
