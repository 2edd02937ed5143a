package train

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/golden"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/tensor"
)

// What happens around a gradient, against PyTorch: accumulation over batches of
// unequal size, clipping, decay of kernels alone, rates by depth, the moving
// average, a frozen network. Float64 on both sides, and the order of sums is
// what is left; in float32 the losses are compared, as whole networks amplify
// rounding (docs/numerics.md).
func TestGoldenLoop(t *testing.T) {
	for _, c := range []struct {
		file  string
		sizes []int // of the batches of an update
		use   func(c *Config)
	}{
		{"torch_loop_accumulate", []int{8, 4}, func(c *Config) { c.Accumulate, c.ClipNorm, c.EMA = 2, 1.5, 0.15 }},
		{"torch_loop_depths", []int{8}, func(c *Config) {
			c.ClipValue, c.ClipNorm, c.LRMult = 0.05, 1.5, 100
			c.Schedule = optim.Schedule{Name: "onecycle", Warmup: 0.3, Start: 1.0 / 25, Floor: 1.0 / 100}
		}},
		{"torch_loop_frozen", []int{8}, func(c *Config) { c.Freeze = &Freeze{Epochs: 1} }},
	} {
		t.Run(c.file, func(t *testing.T) {
			f := golden.Load(t, c.file)
			config := goldenConfig(f.Network)
			config.Schedule = optim.Schedule{Name: "constant"}
			o := f.Optimizer
			config.Optimizer = optim.Config{Name: o.Name, LearningRate: o.LearningRate, Momentum: o.Momentum, Nesterov: o.Nesterov,
				Beta1: o.Beta1, Beta2: o.Beta2, Epsilon: o.Epsilon, WeightDecay: o.WeightDecay}
			c.use(&config)
			t.Run("ref", func(t *testing.T) { compareLoop(t, ref.New(), config, f, c.sizes, 1e-10, 1e-10) })
			t.Run("cpu", func(t *testing.T) {
				eng, err := cpu.New(cpu.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer eng.Close()
				compareLoop(t, eng, config, f, c.sizes, 3e-4, 0)
			})
		})
	}
}

func compareLoop(t *testing.T, eng engine.Engine, c Config, f *golden.File, sizes []int, lossLimit, variablesLimit float64) {
	vars := eng.NewVariables()
	program := func(batch int, update bool) engine.Program {
		g, err := stepGraph(c, batch, stepKind{c.modeOf(0), update})
		if err != nil {
			t.Fatal(err)
		}
		p, err := eng.Compile(g, vars)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	g, err := StepGraph(c, sizes[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range g.Variables {
		value := tensor.New(tensor.Float64, v.Shape...)
		if strings.Contains(v.Name, "/") { // the optimizer's and the average
			if err := vars.Set(v.Name, value); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := vars.Set(v.Name, goldenWeight(v)); err != nil {
			t.Fatal(err)
		}
	}
	all, batch := 0, 0
	for _, n := range sizes {
		all += n
	}
	var losses, norms []float64
	for step := 1; step <= f.Optimizer.Steps; step++ {
		loss, before := 0.0, 0
		for i, n := range sizes {
			network, last := f.Network, i == len(sizes)-1
			network.Batch = n
			inputs := goldenBatch(network, batch)
			batch++
			scalars := c.accumulateScalars(before, n, all)
			before += n
			if last {
				rate := c.Optimizer.LearningRate * c.Schedule.Factor(float64(step-1)/10, 0.1)
				scalars = append(scalars, c.updateScalars(step, step, rate, nil)...)
			}
			for _, s := range scalars {
				inputs = append(inputs, tensor.Of([]float64{s}))
			}
			out, err := program(n, last).Run(context.Background(), inPrecisionOf(eng, inputs)...)
			if err != nil {
				t.Fatal(err)
			}
			loss += scalar(out[0]) * float64(n) / float64(all)
			if last {
				norms = append(norms, math.Sqrt(scalar(out[2])))
			}
		}
		losses = append(losses, loss)
	}
	t.Logf("largest error of the losses: %.2g", golden.CheckValues(t, "losses", losses, f.Values["losses"], lossLimit))
	t.Logf("largest error of the norms: %.2g", golden.CheckValues(t, "norms", norms, f.Values["norms"], 10*lossLimit))
	if variablesLimit == 0 {
		return
	}
	checkVariables(t, f, g, vars, variablesLimit)
	if want := f.Digests["ema"]; want != nil {
		got := map[string][]float64{}
		for name := range want {
			value, err := vars.Get(averagePrefix + name)
			if err != nil {
				t.Fatal(err)
			}
			got[name] = float64s(model.ToFile(value))
		}
		t.Logf("largest error of the average: %.2g", golden.CheckDigests(t, "average", got, want, variablesLimit))
	}
}

// Updates with lookahead and a rate of its own for batch normalisation's β, over
// two epochs, with the first meeting within the first of them.
func TestGoldenLookahead(t *testing.T) {
	f := golden.Load(t, "torch_lookahead")
	c := goldenConfig(f.Network)
	o, l := f.Optimizer, f.Values["lookahead"]
	c.LabelSmoothing = 0.2
	c.Optimizer = optim.Config{Name: o.Name, LearningRate: o.LearningRate, Momentum: o.Momentum, Nesterov: o.Nesterov, WeightDecay: o.WeightDecay,
		DecayAll: true, ShiftRate: f.Values["shift_rate"][0], Lookahead: optim.Lookahead{Every: int(l[0]), Keep: l[1], Power: l[2], Start: l[3]}}
	if err := c.Optimizer.Check(); err != nil {
		t.Fatal(err)
	}
	compare := func(t *testing.T, eng engine.Engine, lossLimit, variablesLimit float64) {
		vars := eng.NewVariables()
		g, err := StepGraph(c, c.BatchSize)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range g.Variables {
			value := tensor.New(tensor.Float64, v.Shape...)
			if !strings.Contains(v.Name, "/") {
				value = goldenWeight(v)
			}
			if err := vars.Set(v.Name, value); err != nil {
				t.Fatal(err)
			}
		}
		p, err := eng.Compile(g, vars)
		if err != nil {
			t.Fatal(err)
		}
		epoch, begun := int(f.Values["steps_per_epoch"][0]), false
		var losses []float64
		for k := range o.Steps {
			inputs := goldenBatch(f.Network, k)
			var meeting []float64
			meeting, begun = c.Optimizer.Lookahead.Scalars(begun, k+1, float64(k+1)/float64(o.Steps), 1/float64(o.Steps), (k+1)%epoch == 0)
			for _, s := range c.updateScalars(k+1, k+1, o.LearningRate, meeting) {
				inputs = append(inputs, tensor.Of([]float64{s}))
			}
			out, err := p.Run(context.Background(), inPrecisionOf(eng, inputs)...)
			if err != nil {
				t.Fatal(err)
			}
			losses = append(losses, scalar(out[0]))
		}
		t.Logf("largest error of the losses: %.2g", golden.CheckValues(t, "losses", losses, f.Values["losses"], lossLimit))
		if variablesLimit == 0 {
			return
		}
		checkVariables(t, f, g, vars, variablesLimit)
		got := map[string][]float64{}
		for name := range f.Digests["slow"] {
			value, err := vars.Get(optim.SlowPrefix + name)
			if err != nil {
				t.Fatal(err)
			}
			got[name] = float64s(model.ToFile(value))
		}
		t.Logf("largest error of the slow weights: %.2g", golden.CheckDigests(t, "slow", got, f.Digests["slow"], variablesLimit))
	}
	t.Run("ref", func(t *testing.T) { compare(t, ref.New(), 1e-10, 1e-10) })
	t.Run("cpu", func(t *testing.T) {
		eng, err := cpu.New(cpu.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer eng.Close()
		compare(t, eng, 3e-4, 0)
	})
}

func TestGoldenSchedules(t *testing.T) {
	f := golden.Load(t, "torch_schedules")
	const steps = 20
	for name, s := range map[string]optim.Schedule{
		"cosine":            {Name: "cosine", Floor: 0.1},
		"cosine, warm-up":   {Name: "cosine", Floor: 0.1, Warmup: 0.25, Start: 0.1},
		"constant, warm-up": {Name: "constant", Warmup: 0.25, Start: 0.1},
		"linear":            {Name: "linear", Floor: 0.1},
		"multistep":         {Name: "multistep", Milestones: []float64{0.5, 0.75}, Gamma: 0.1},
		"onecycle":          {Name: "onecycle", Warmup: 0.3, Start: 1.0 / 25, Floor: 0.01},
	} {
		if err := s.Check(); err != nil {
			t.Error(err)
		}
		got := make([]float64, steps)
		for i := range got {
			got[i] = s.Factor(float64(i)/steps, 1.0/steps)
		}
		golden.CheckValues(t, name, got, f.Values[name], 1e-14)
	}
	if len(f.Values) != 6 {
		t.Errorf("the file has %d schedules, 6 are compared", len(f.Values))
	}
}
