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
	const decay = 0.01
	for _, c := range []struct {
		name   string
		config Config
		update func(p, g, decay, rate float64, step int, memory *[2]float64) float64
	}{
		{"sgd", Config{Name: "sgd", WeightDecay: decay}, func(p, g, decay, rate float64, _ int, _ *[2]float64) float64 {
			return p - rate*(g+decay*p)
		}},
		{"momentum", Config{Name: "sgd", Momentum: 0.9, WeightDecay: decay}, func(p, g, decay, rate float64, _ int, m *[2]float64) float64 {
			m[0] = 0.9*m[0] + g + decay*p
			return p - rate*m[0]
		}},
		{"nesterov", Config{Name: "sgd", Momentum: 0.9, Nesterov: true, WeightDecay: decay}, func(p, g, decay, rate float64, _ int, m *[2]float64) float64 {
			g += decay * p
			m[0] = 0.9*m[0] + g
			return p - rate*(g+0.9*m[0])
		}},
		{"adam", Config{Name: "adam", Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, func(p, g, _, rate float64, step int, m *[2]float64) float64 {
			m[0], m[1] = 0.9*m[0]+0.1*g, 0.999*m[1]+0.001*g*g
			alpha := rate * math.Sqrt(1-math.Pow(0.999, float64(step))) / (1 - math.Pow(0.9, float64(step)))
			return p - alpha*m[0]/(math.Sqrt(m[1])+1e-7)
		}},
		{"adamw", Config{Name: "adamw", Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: decay}, func(p, g, decay, rate float64, step int, m *[2]float64) float64 {
			m[0], m[1] = 0.9*m[0]+0.1*g, 0.999*m[1]+0.001*g*g
			first, second := m[0]/(1-math.Pow(0.9, float64(step))), m[1]/(1-math.Pow(0.999, float64(step)))
			return p*(1-rate*decay) - rate*first/(math.Sqrt(second)+1e-8)
		}},
	} {
		// The bias has the run's rate and no decay; or a tenth of it, and decays too.
		t.Run(c.name, func(t *testing.T) {
			checkUpdates(t, c.config, c.update, Groups{}, [2]float64{1, 1}, [2]float64{decay, 0})
		})
		t.Run(c.name+" in groups", func(t *testing.T) {
			c.config.DecayAll = true
			groups := Groups{Scales: []float64{0.1, 1}, Of: func(p *graph.Node) int { return strings.Index("bk", p.Name[:1]) }}
			checkUpdates(t, c.config, c.update, groups, [2]float64{1, 0.1}, [2]float64{decay, decay})
		})
	}
}

func checkUpdates(t *testing.T, c Config, update func(p, g, decay, rate float64, step int, memory *[2]float64) float64, groups Groups, scales, decays [2]float64) {
	const rate = 0.1
	b := graph.NewBuilder()
	kernel := b.Variable("kernel", graph.VariableAttrs{Decay: true}, 1)
	bias := b.Variable("bias", graph.VariableAttrs{}, 1)
	g := b.Input("gradient", graph.Real, 1)
	c.LearningRate = rate
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	c.Apply(b, []*graph.Node{kernel, bias}, []*graph.Node{g, g}, groups)
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
	names, want := [2]string{"kernel", "bias"}, [2]float64{3, -1}
	var memory [2][2]float64
	for i, name := range names {
		if err := vars.Set(name, tensor.Of([]float64{want[i]}, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for step, g := range []float64{0.5, -2, 0.25} {
		inputs := []tensor.Tensor{tensor.Of([]float64{g}, 1)}
		for _, s := range c.Scalars(int64(step+1), rate, groups) {
			inputs = append(inputs, tensor.Of([]float64{s}))
		}
		if _, err := program.Run(t.Context(), inputs...); err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			want[i] = update(want[i], g, decays[i], rate*scales[i], step+1, &memory[i])
			got, err := vars.Get(name)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got.Float64s()[0]-want[i]) > 1e-14 {
				t.Errorf("step %d: %s is %.17g, want %.17g", step+1, name, got.Float64s()[0], want[i])
			}
		}
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
		"sgd: has no beta1":           {Name: "sgd", LearningRate: 1, Beta2: 0.9},
		"has no weight decay":         {Name: "adam", LearningRate: 1, Epsilon: 1, WeightDecay: 1},
		"weight decay is NaN":         {Name: "sgd", LearningRate: 1, WeightDecay: math.NaN()},
	} {
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", c, err, want)
		}
	}
}

// Groups with a decay of their own: a parameter whose rate is 8 times the run's and
// whose decay an eighth shrinks as fast as one with neither.
func TestGroupsDecay(t *testing.T) {
	for _, c := range []Config{
		{Name: "sgd", WeightDecay: 0.25, DecayAll: true},
		{Name: "adamw", Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: 0.25, DecayAll: true},
	} {
		groups := Groups{Scales: []float64{1, 8}, Decays: []float64{1, 0.125}, Of: func(p *graph.Node) int { return strings.Index("kb", p.Name[:1]) }}
		b := graph.NewBuilder()
		kernel, bias := b.Variable("kernel", graph.VariableAttrs{}, 1), b.Variable("bias", graph.VariableAttrs{}, 1)
		zero := b.Input("gradient", graph.Real, 1)
		c.Apply(b, []*graph.Node{kernel, bias}, []*graph.Node{zero, zero}, groups)
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
		inputs := []tensor.Tensor{tensor.Of([]float64{0}, 1)}
		for _, s := range c.Scalars(1, 0.5, groups) {
			inputs = append(inputs, tensor.Of([]float64{s}))
		}
		for _, name := range []string{"kernel", "bias"} {
			if err := vars.Set(name, tensor.Of([]float64{4}, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := program.Run(t.Context(), inputs...); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"kernel", "bias"} {
			if got, err := vars.Get(name); err != nil || got.Float64s()[0] != 4*(1-0.5*0.25) {
				t.Errorf("%s: %s is %v, want 3.5; %v", c.Name, name, got.Float64s(), err)
			}
		}
	}
}

// The steps at which slow and fast weights meet, in a run of 2 epochs of 6 steps.
// The numbers of keep are worked out by hand.
func TestLookaheadScalars(t *testing.T) {
	l := Lookahead{Every: 4, Keep: 0.6, Power: 2, Start: 0.25}
	if err := l.Check(); err != nil {
		t.Fatal(err)
	}
	apart, start, back := []float64{1, 0, 1, 0}, []float64{0, 1, 1, 0}, []float64{1, 0, 0, 1}
	want := [][]float64{apart, apart, apart, start, apart, back, apart, {0.6 * 4 / 9, 1 - 0.6*4/9, 0, 1}, apart, apart, apart, {0.6, 0.4, 0, 1}}
	begun := false
	for k := range 12 {
		var got []float64
		got, begun = l.Scalars(begun, k+1, float64(k+1)/12, 1.0/12, k%6 == 5)
		for i := range got {
			if math.Abs(got[i]-want[k][i]) > 1e-15 {
				t.Errorf("step %d: %v, want %v", k+1, got, want[k])
			}
		}
		if begun != (k >= 3) {
			t.Errorf("after step %d begun is %v", k+1, begun)
		}
	}
	if got, begun := l.Scalars(false, 6, 0.5, 1.0/12, true); begun || got[2] != 1 || got[3] != 0 {
		t.Errorf("an epoch ends before the first meeting: %v, %v", got, begun)
	}
	for want, l := range map[string]Lookahead{
		"every -1 steps":     {Every: -1},
		"steps alone":        {Keep: 0.5},
		"keeps 1 of":         {Every: 5, Keep: 1},
		"keeps NaN":          {Every: 5, Keep: math.NaN()},
		"the power -1":       {Every: 5, Power: -1},
		"starts after 1 of":  {Every: 5, Start: 1},
		"starts after NaN o": {Every: 5, Start: math.NaN()},
	} {
		if err := (Config{Name: "sgd", LearningRate: 1, Lookahead: l}).Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", l, err, want)
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
		{Schedule{Name: "constant", Warmup: 0.2, Start: 0.5}, 0.09, 0.75},
		{Schedule{Name: "linear"}, 0.25, 0.75},
		{Schedule{Name: "linear", Warmup: 0.2, Floor: 0.1}, 0.6, 0.55},
		{Schedule{Name: "multistep", Milestones: []float64{0.5, 0.75}, Gamma: 0.1}, 0.49, 1},
		{Schedule{Name: "multistep", Milestones: []float64{0.5, 0.75}, Gamma: 0.1}, 0.5, 0.1},
		{Schedule{Name: "multistep", Milestones: []float64{0.5, 0.75}, Gamma: 0.1}, 0.99, 0.01},
		{Schedule{Name: "onecycle", Warmup: 0.31, Start: 0.04, Floor: 1e-5}, 0, 0.04},
		{Schedule{Name: "onecycle", Warmup: 0.31, Start: 0.04, Floor: 1e-5}, 0.15, 0.52},
		{Schedule{Name: "onecycle", Warmup: 0.31, Start: 0.04, Floor: 1e-5}, 0.3, 1},
		{Schedule{Name: "onecycle", Warmup: 0.31, Start: 0.04, Floor: 1e-5}, 0.99, 1e-5},
	} {
		if err := c.s.Check(); err != nil {
			t.Error(err)
		}
		if got := c.s.Factor(c.done, 0.01); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%+v at %v: %v, want %v", c.s, c.done, got, c.want)
		}
	}
	for want, s := range map[string]Schedule{
		`"step" is unknown`:         {Name: "step"},
		"warm-up is 1":              {Name: "cosine", Warmup: 1},
		"floor is 2":                {Name: "cosine", Floor: 2},
		"rises from 2":              {Name: "cosine", Start: 2},
		"milestones are []":         {Name: "multistep", Gamma: 0.1},
		"milestones are [0.5 0.25]": {Name: "multistep", Gamma: 0.1, Milestones: []float64{0.5, 0.25}},
		"milestones are [NaN]":      {Name: "multistep", Gamma: 0.1, Milestones: []float64{math.NaN()}},
		"gamma is 0":                {Name: "multistep", Milestones: []float64{0.5}},
		"has no milestones":         {Name: "cosine", Milestones: []float64{0.5}},
		"onecycle: warm-up is 0":    {Name: "onecycle"},
	} {
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
