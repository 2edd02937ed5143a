package model

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

func variant(change func(c *Config)) Config {
	c, _ := Named("resnet18", Torch, 32, 32, 3, 10)
	change(&c)
	return c
}

// What starts at zero: with zero γ the last batch norm of every block, or its
// last convolution where none follows, and nothing else. Without, nothing.
func TestZeroGamma(t *testing.T) {
	for what, c := range map[string]struct {
		cfg    Config
		suffix string // of the kernels or γ that are zero
	}{
		"basic":      {variant(func(c *Config) {}), ".bn2.weight"},
		"bottleneck": {variant(func(c *Config) { c.Block = Bottleneck }), ".bn3.weight"},
		"preact":     {variant(func(c *Config) { c.PreAct = true }), ".conv2.weight"},
	} {
		for _, zero := range []bool{true, false} {
			c.cfg.ZeroGamma = zero
			b := graph.NewBuilder()
			c.cfg.Build(b, b.Input("images", graph.Real, 1, 32, 32, 3), true)
			zeros := 0
			for _, v := range b.Variables(graph.Parameter) {
				isZero := v.Variable.Init.Kind == graph.Zeros && strings.HasSuffix(v.Name, ".weight")
				if isZero != (zero && strings.HasSuffix(v.Name, c.suffix)) {
					t.Errorf("%s, zero γ %v: %s starts at %v", what, zero, v.Name, v.Variable.Init.Kind)
				}
				if isZero {
					zeros++
					if v.Variable.Decay != (len(v.Shape) > 1) {
						t.Errorf("%s: weight decay of %s is %v", what, v.Name, v.Variable.Decay)
					}
				}
			}
			if zero && zeros != 8 || !zero && zeros != 0 {
				t.Errorf("%s, zero γ %v: %d layers start at zero", what, zero, zeros)
			}
		}
	}
}

// A block that all images skip is its shortcut: with factors 0, 1/(1-rate) and 1
// the sum before the ReLU is x, x + branch/(1-rate) and x + branch.
func TestDropPath(t *testing.T) {
	c := variant(func(c *Config) {
		c.Height, c.Width, c.Blocks, c.Filters, c.DropPath, c.PreAct = 8, 8, []int{2}, 4, 0.4, true
	})
	if got := c.DropPathRates(); !slices.Equal(got, []float64{0, 0.4}) {
		t.Fatalf("rates %v", got)
	}
	e := ref.New()
	vars := e.NewVariables()
	pixels := make([]float64, 3*8*8*3)
	s := random.New(1)
	for i := range pixels {
		pixels[i] = s.Normal()
	}
	images := tensor.Of(pixels, 3, 8, 8, 3)
	sums := func(factors ...float64) (x, y []float64) { // of the block that may be skipped
		b := graph.NewBuilder()
		net := c.Build(b, b.Input("images", graph.Real, 3, 8, 8, 3), true)
		g, err := b.Build(net.Logits)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range g.Variables {
			if err := vars.Set(v.Name, Initial(v, 1)); err != nil {
				t.Fatal(err)
			}
		}
		g.Updates = nil
		var adds []*graph.Node
		for _, n := range g.Nodes {
			if n.Op == graph.OpAdd && strings.HasSuffix(n.Name, ".add") {
				adds = append(adds, n)
			}
		}
		g.Outputs = adds
		p, err := e.Compile(g, vars)
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.Run(t.Context(), images, tensor.Of(factors, 3))
		if err != nil {
			t.Fatal(err)
		}
		return out[0].Float64s(), out[1].Float64s()
	}
	_, whole := sums(1, 1, 1)
	x, y := sums(0, 1/(1-0.4), 1)
	n := len(x) / 3
	moved := 0.0
	for i := range x {
		branch := whole[i] - x[i]
		want := x[i] + branch*[]float64{0, 1 / (1 - 0.4), 1}[i/n]
		if math.Abs(y[i]-want) > 1e-12 {
			t.Fatalf("image %d: the sum is %v, want %v", i/n, y[i], want)
		}
		moved = max(moved, math.Abs(branch))
	}
	if moved == 0 {
		t.Error("the branch is zero")
	}

	b := graph.NewBuilder()
	net := c.Build(b, b.Input("images", graph.Real, 3, 8, 8, 3), false)
	if g, err := b.Build(net.Logits); err != nil || len(g.Inputs) != 1 {
		t.Errorf("inference takes %d inputs, want the images alone; %v", len(g.Inputs), err)
	}
}

// Factors depend on seed, epoch, position and block, and on nothing else; their
// share of zeros is the rate, their mean 1.
func TestDropPathFactors(t *testing.T) {
	c := variant(func(c *Config) { c.DropPath = 0.7 })
	positions := make([]int, 20000)
	for i := range positions {
		positions[i] = i
	}
	all := c.DropPathFactors(3, 2, positions)
	if len(all) != 7 {
		t.Fatalf("factors of %d blocks, want 7 of 8: the first is never skipped", len(all))
	}
	for k, f := range all {
		rate := c.DropPathRates()[k+1]
		zeros, mean := 0, 0.0
		for _, v := range f.Float32s() {
			if v == 0 {
				zeros++
			}
			mean += float64(v) / float64(f.Len())
		}
		// Five deviations of a share of 20,000 are below 0.018, of its scaled mean 0.055.
		if share := float64(zeros) / float64(f.Len()); math.Abs(share-rate) > 0.018 || math.Abs(mean-1) > 0.055 {
			t.Errorf("block %d: %.3f are zero, want %.3f; mean %.3f", k+1, share, rate, mean)
		}
	}
	some := c.DropPathFactors(3, 2, []int{7, 100, 19999})
	for k := range some {
		for i, at := range []int{7, 100, 19999} {
			if some[k].Float32s()[i] != all[k].Float32s()[at] {
				t.Errorf("block %d, position %d: %v alone, %v among others", k, at, some[k].Float32s()[i], all[k].Float32s()[at])
			}
		}
	}
	for what, other := range map[string][]tensor.Tensor{"epoch": c.DropPathFactors(3, 1, positions), "seed": c.DropPathFactors(4, 2, positions)} {
		if slices.Equal(other[0].Float32s(), all[0].Float32s()) {
			t.Errorf("another %s gives the same factors", what)
		}
	}
	if slices.Equal(all[5].Float32s(), all[6].Float32s()) {
		t.Error("two blocks have the same factors")
	}
}

// Every combination that cannot work is refused with the reason.
// What follows the stages learns as fast as the dense layer, and is not frozen with the
// stem.
func TestDepth(t *testing.T) {
	c, err := Named("preactresnet18", Torch, 32, 32, 3, 10)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"conv1.weight": 0, "layer1.0.bn1.weight": 1, "layer4.1.conv2.weight": 4, "norm.weight": 5, "norm.bias": 5, "fc.weight": 5} {
		if got := c.Depth(name); got != want || c.Depths() != 6 || InStem(name) != (want == 0) {
			t.Errorf("%s: depth %d of %d, in the stem: %v; want %d of 6", name, got, c.Depths(), InStem(name), want)
		}
	}
}

func TestVariantsRefused(t *testing.T) {
	for want, change := range map[string]func(c *Config){
		"stem filters":               func(c *Config) { c.StemFilters = -1 },
		"drop path is 1":             func(c *Config) { c.DropPath = 1 },
		"drop path is NaN":           func(c *Config) { c.DropPath = math.NaN() },
		"at least two blocks":        func(c *Config) { c.DropPath, c.Blocks = 0.1, []int{1} },
		"which alone can average":    func(c *Config) { c.AvgDown, c.Shortcut = true, PadShortcut },
		"stem is wide":               func(c *Config) { c.Stem = "wide" },
		"block is pooled":            func(c *Config) { c.Block, c.PreAct = Pooled, true },
		"ReLU before their sum":      func(c *Config) { c.Block, c.ZeroGamma = Pooled, true },
		"batch normalisation, whose": func(c *Config) { c.Norm, c.ZeroGamma = NoNorm, true },
		"at least one block":         func(c *Config) { c.Blocks = []int{1, 0} },
		"a number of blocks":         func(c *Config) { c.Block, c.Blocks = Pooled, []int{1, -1} },
		"block is single":            func(c *Config) { c.Block, c.PreAct = Single, true },
		"small or whiten":            func(c *Config) { c.Block, c.Stem = Single, LargeStem },
		"without single blocks":      func(c *Config) { c.Stem, c.Whiten = WhitenStem, 2 },
		"whiten is 0":                func(c *Config) { c.Block, c.Stem = Single, WhitenStem },
		"whiten pad is true":         func(c *Config) { c.WhitenPad = true },
		"whiten is 2":                func(c *Config) { c.Whiten = 2 },
		"two for each number":        func(c *Config) { c.Block, c.Stem, c.Whiten, c.StemFilters = Single, WhitenStem, 2, 8 },
		"widen is [1 4]":             func(c *Config) { c.Widen = []int{1, 4} },
		"for every stage":            func(c *Config) { c.Block, c.Blocks, c.Widen = Single, []int{}, []int{} }, // as JSON may have it
		"a factor from 1":            func(c *Config) { c.Block, c.Blocks, c.Widen = Single, []int{1}, []int{1, 4} },
		"γ begins with 1":            func(c *Config) { c.FixedGamma, c.ZeroGamma = true, true },
		"norm rate is 2":             func(c *Config) { c.NormRate = 2 },
		"logit scale is 2":           func(c *Config) { c.LogitScale = 2 },
		"logit scale is -1":          func(c *Config) { c.Block, c.LogitScale = Pooled, -1 },
	} {
		c := variant(change)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	// Pictures that are smaller than the pools, and the smallest that are not.
	for name, least := range map[string]int{"resnet9": 8, "resnet8w": 8, "resnet20": 1} {
		c, err := Named(name, Torch, least, least, 3, 10)
		if err == nil {
			_, err = c.Summarize()
		}
		if err != nil {
			t.Errorf("%s at %d: %v", name, least, err)
		}
		if c.Height--; least > 1 {
			if err := c.Check(); err == nil || !strings.Contains(err.Error(), "image size is 7×8, want at least 8 pixels on each side") {
				t.Errorf("%s: error %v", name, err)
			}
		}
	}
	c, err := Named("resnet8w", Torch, 9, 9, 3, 10)
	if c.WhitenPad = false; err == nil {
		_, err = c.Summarize()
	}
	if err != nil {
		t.Error(err)
	}
	if c.Width = 8; c.Check() == nil {
		t.Error("8 columns without padding are 7 after the whitening stem, too few for three pools")
	}
}

// Photographs get the stem for photographs, and the network's own kind of it.
func TestStems(t *testing.T) {
	for name, want := range map[string][2]Stem{ // at 32 and at 224 pixels
		"resnet18": {SmallStem, LargeStem}, "resnet50d": {SmallStem, DeepStem}, "resnet9": {SmallStem, SmallStem}, "resnet8w": {WhitenStem, WhitenStem}, "wrn-28-10": {SmallStem, LargeStem},
	} {
		for i, size := range []int{32, 224} {
			c, err := Named(name, Torch, size, size, 3, 10)
			if err != nil || c.Stem != want[i] {
				t.Errorf("%s at %d: stem %s, want %s; %v", name, size, c.Stem, want[i], err)
			}
		}
	}
}
