package train

import (
	"encoding/json"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/optim"
	"github.com/residual-ml/residual/tensor"
)

// Whatever a config.json says, Check refuses it or the network can be built.
func FuzzConfig(f *testing.F) {
	accepted := 0
	add := func(change func(c *Config)) {
		c := testConfig()
		change(&c)
		if c.Check() == nil {
			accepted++
		}
		data, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	add(func(*Config) {})
	add(func(c *Config) { c.Model.Blocks = []int{1, 2, 1, 1}; c.Model.Block = "bottleneck" })
	add(func(c *Config) { c.Model.Shortcut = "pad" })
	add(func(c *Config) { c.Model.Stem = "large"; c.Model.Height, c.Preprocess.Height = 1, 1 })
	add(func(c *Config) { c.Model.Filters = -1 })
	add(func(c *Config) { c.Optimizer, _ = optim.Named("sgd") })
	add(func(c *Config) { c.Accumulate, c.ClipNorm, c.ClipValue, c.EMA = 3, 1, 1, 0.9 })
	add(func(c *Config) {
		c.Init, c.LRMult = &Init{Run: "elsewhere"}, 10
		c.Freeze = &Freeze{Epochs: 1, LearningRate: 1, Schedule: c.Schedule}
	})
	f.Add([]byte(`{"model": {"blocks": [9223372036854775807]}}`))
	f.Add([]byte(`{"epochs": 1e3, "schedule": null, "max_time_ns": -1}`))
	f.Add([]byte(`[`))
	if accepted < 4 {
		f.Fatalf("%d seeds are accepted, want at least 4", accepted)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Config
		if json.Unmarshal(data, &c) != nil || c.Check() != nil {
			return
		}
		blocks := 0
		for _, n := range c.Model.Blocks {
			blocks += n
		}
		if blocks > 20 {
			return // builds as well, but slowly
		}
		if _, err := stepGraph(c, 2, stepKind{training, true}); err != nil && c.Model.Stem == "small" {
			t.Errorf("a checked configuration cannot be built: %v\n%s", err, data)
		}
	})
}

// A capsule is refused with an error or its variables are set, whatever its description says
// of the tensors in it; FuzzRead of format/safetensors is for the bytes around.
func FuzzCapsule(f *testing.F) {
	path := capsuleOfTinyRun(f)
	capsule, err := safetensors.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	text := capsule.Metadata[capsuleKey]
	for _, change := range [][2]string{
		{"", ""}, {`"filters":2`, `"filters":3`}, {`"blocks":[1]`, `"blocks":[1,1]`}, {`"height":`, `"height":1`},
		{`"indices":[`, `"indices":[0,`}, {`"config":{`, `"config":[{`}, {`"adam"`, `"sgd"`},
	} {
		if !strings.Contains(text, change[0]) {
			f.Fatalf("the description has no %s to change:\n%s", change[0], text)
		}
		f.Add(strings.Replace(text, change[0], change[1], 1))
	}
	f.Add(text[:len(text)/2])
	f.Add("{}")
	eng, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		f.Fatal(err)
	}
	defer eng.Close()
	if _, _, first, err := Replay(path, opens(f, "float32")); err != nil || first == nil {
		f.Fatalf("the capsule that the seeds are made from does not replay: %v", err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		changed := *capsule
		changed.Metadata = map[string]string{capsuleKey: text}
		vars := eng.NewVariables()
		recorded, err := describeCapsule(&changed)
		if err == nil {
			_, err = openCapsule(&changed, recorded, vars)
		}
		if err == nil && len(vars.Names()) == 0 {
			t.Errorf("nothing is set, and no error: %+v", recorded)
		}
	})
}

func capsuleOfTinyRun(f *testing.F) string {
	c := testConfig()
	c.Model.Blocks, c.Model.Filters = []int{1}, 2
	run := newRun(f, c)
	trainer := newTrainer(f, c, run, nil)
	if err := trainer.vars.Set("fc.bias", tensor.Of([]float32{float32(math.NaN()), 0}, 2)); err != nil {
		f.Fatal(err)
	}
	if err := trainer.Run(f.Context()); err == nil {
		f.Fatal("a NaN was trained with")
	}
	return filepath.Join(run.Path(), "capsule-step-00000001.safetensors")
}
