// Package model writes residual networks as functions over package graph. It
// knows the networks' names, the two conventions by which frameworks differ,
// and the names and order that weights have in files.
package model

import (
	"fmt"
	"slices"
	"strings"

	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/tensor"
)

// Convention says whose defaults a network follows where Keras and PyTorch
// differ: padding, batch normalisation and initialisation.
//
//	          padding of stride 2   ε      moving statistics             kernels
//	keras     'same': 0 and 1       1e-3   0.99·old + 0.01·biased        Glorot uniform
//	torch     1 and 1               1e-5   0.9·old + 0.1·unbiased        He normal, fan-out
type Convention string

// The two conventions.
const (
	Keras Convention = "keras"
	Torch Convention = "torch"
)

// Block is the kind of residual block.
type Block string

// Basic has two 3×3 convolutions (He et al. 2015, figure 5 left); Bottleneck
// has 1×1, 3×3, 1×1 with four times the filters at the end, the stride in the
// 3×3 as torchvision has it ("v1.5"; the paper strides the first 1×1).
//
// Pooled is the unit of Page's ResNet-9 (cifar10-fast, dawn.py): a stage is one
// 3×3 convolution that doubles the filters, a 2×2 max-pool, and then residual
// units x + ReLU(bn(conv(ReLU(bn(conv(x)))))), of which a stage may have none.
//
// Single is the unit of airbench's networks (Jordan 2024,
// https://arxiv.org/abs/2404.00498, section 3.1): a stage is a 3×3
// convolution, a 2×2 max-pool, batch norm and ReLU, on a quarter of Pooled's pixels,
// and then residual units ReLU(bn(conv(x)) + x) of a single convolution.
const (
	Basic      Block = "basic"
	Bottleneck Block = "bottleneck"
	Pooled     Block = "pooled"
	Single     Block = "single"
)

// Stem is what comes before the first stage.
type Stem string

// SmallStem is one 3×3 convolution, for images of CIFAR's size; LargeStem is
// 7×7 with stride 2 and a 3×3 max-pool with stride 2, for photographs. On
// 32×32 images the two differ 15-fold in cost. DeepStem is the large one with
// three 3×3 convolutions, the first with stride 2, in place of the 7×7 (ResNet-C
// and -D of He et al. 2018, https://arxiv.org/abs/1812.01187, figure 2).
//
// WhitenStem is a small convolution with a bias whose kernel is not trained but
// computed from training pictures, so that its outputs are uncorrelated and of like
// size (Page 2019; Jordan 2024, section 3.2; see Whitening).
const (
	SmallStem  Stem = "small"
	LargeStem  Stem = "large"
	DeepStem   Stem = "deep"
	WhitenStem Stem = "whiten"
)

// Shortcut is what carries x past a block that changes its shape.
type Shortcut string

// Projection is a 1×1 convolution with batch normalisation (option B of He et
// al. 2015); PadShortcut subsamples and pads with zero channels, half before
// and half after (option A).
const (
	Projection  Shortcut = "projection"
	PadShortcut Shortcut = "pad"
)

// Norm is what follows each convolution.
type Norm string

// BatchNorm is batch normalisation; NoNorm is nothing: what is left where an
// exporter folded batch normalisation into biased convolutions.
const (
	BatchNorm Norm = "batch"
	NoNorm    Norm = "none"
)

// Config describes a network completely; it is stored with every model.
type Config struct {
	Name       string     `json:"name"`
	Convention Convention `json:"convention"`
	Height     int        `json:"height"`
	Width      int        `json:"width"`
	Channels   int        `json:"channels"`
	Classes    int        `json:"classes"`
	Stem       Stem       `json:"stem"`
	Block      Block      `json:"block"`
	Shortcut   Shortcut   `json:"shortcut"`
	Blocks     []int      `json:"blocks"`  // blocks per stage
	Filters    int        `json:"filters"` // of the first stage; each stage doubles them

	// What networks from elsewhere have; the zero values are what this package
	// builds by itself.
	Norm     Norm    `json:"norm,omitempty"`      // "" is BatchNorm
	ConvBias bool    `json:"conv_bias,omitempty"` // biases in convolutions, as Keras's layers have by default
	Epsilon  float64 `json:"epsilon,omitempty"`   // of batch normalisation; 0: the convention's

	// StrideFirst has a bottleneck's stride in its first 1×1 convolution, as the
	// paper and keras.applications have it, instead of in the 3×3.
	StrideFirst bool `json:"stride_first,omitempty"`

	// Variants; with their zero values a network is that of He et al. 2015.
	StemFilters int     `json:"stem_filters,omitempty"` // 0: Filters
	PreAct      bool    `json:"preact,omitempty"`       // normalise and activate before each convolution (He et al. 2016)
	ZeroGamma   bool    `json:"zero_gamma,omitempty"`   // every block begins as the identity (Goyal et al. 2017)
	AvgDown     bool    `json:"avg_down,omitempty"`     // projections average where they would stride (ResNet-D)
	SE          bool    `json:"se,omitempty"`           // squeeze-excitation in every block (Hu et al. 2018)
	DropPath    float64 `json:"drop_path,omitempty"`    // probability that training leaves the last block out; see DropPathRates

	// What the CIFAR-10 speed records vary.
	Widen      []int   `json:"widen,omitempty"`       // filters of each stage by those of the first, where they do not double; of single blocks
	Whiten     int     `json:"whiten,omitempty"`      // side of the whitening stem's kernel
	WhitenPad  bool    `json:"whiten_pad,omitempty"`  // zeros around the whitening stem's pictures, so that they keep their size
	Dirac      bool    `json:"dirac,omitempty"`       // convolutions begin by passing their channels on; see graph.Dirac
	FixedGamma bool    `json:"fixed_gamma,omitempty"` // batch normalisation's γ stays 1
	NormRate   float64 `json:"norm_rate,omitempty"`   // share of a batch's statistics that enters the moving ones; 0: the convention's
	LogitScale float64 `json:"logit_scale,omitempty"` // factor on the logits of pooled and single networks; 0: 1/8
}

// StemText says in words which stem a network has, as this decides its cost.
func (c Config) StemText() string {
	switch c.Stem {
	case LargeStem:
		return "7×7 stem with max-pool"
	case DeepStem:
		return "deep stem with max-pool"
	case WhitenStem:
		return fmt.Sprintf("%d×%[1]d whitening stem", c.Whiten)
	}
	return "3×3 stem"
}

// BlocksText is the numbers of blocks with commas between them, as --blocks takes
// them.
func (c Config) BlocksText() string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(c.Blocks), "[]"), " ", ",")
}

// DropPathRates returns for each residual block the probability that a training
// step skips it, image by image, rising linearly from 0 for the first to DropPath
// for the last (Huang et al. 2016, https://arxiv.org/abs/1603.09382, section 3);
// nil when no block is ever skipped.
func (c Config) DropPathRates() []float64 {
	if c.DropPath == 0 {
		return nil
	}
	n := 0
	for _, blocks := range c.Blocks {
		n += blocks
	}
	rates := make([]float64, n)
	for i := range rates {
		rates[i] = c.DropPath * float64(i) / float64(max(n-1, 1))
	}
	return rates
}

// DropPathFactors returns the inputs of Build that say which images skip which
// block, [N] each: 0 to skip, else 1/(1-rate), so that the mean stays. Each number
// is a pure function of (seed, epoch, position in the data set, block), or of what
// stands for a picture that an epoch draws again.
func (c Config) DropPathFactors(seed uint64, epoch int, positions []int) []tensor.Tensor {
	var factors []tensor.Tensor
	for block, rate := range c.DropPathRates() {
		if rate == 0 {
			continue
		}
		f := make([]float32, len(positions))
		for i, at := range positions {
			s := random.Make(seed, random.Name("drop path"), uint64(epoch), uint64(at), uint64(block))
			if !s.Bool(rate) {
				f[i] = float32(1 / (1 - rate))
			}
		}
		factors = append(factors, tensor.Of(f, len(f)))
	}
	return factors
}

// family is what a name stands for, before image and classes are known.
type family struct {
	name     string
	block    Block
	shortcut Shortcut
	blocks   []int
	filters  int
	paper    string
	variant  func(c *Config) // nil: none
}

var families = []family{
	{"resnet18", Basic, Projection, []int{2, 2, 2, 2}, 64, "He et al. 2015, table 1", nil},
	{"resnet34", Basic, Projection, []int{3, 4, 6, 3}, 64, "He et al. 2015, table 1", nil},
	{"resnet50", Bottleneck, Projection, []int{3, 4, 6, 3}, 64, "He et al. 2015, table 1", nil},
	{"resnet101", Bottleneck, Projection, []int{3, 4, 23, 3}, 64, "He et al. 2015, table 1", nil},
	{"resnet152", Bottleneck, Projection, []int{3, 8, 36, 3}, 64, "He et al. 2015, table 1", nil},
	{"resnet20", Basic, PadShortcut, []int{3, 3, 3}, 16, "He et al. 2015, section 4.2", nil},
	{"resnet32", Basic, PadShortcut, []int{5, 5, 5}, 16, "He et al. 2015, section 4.2", nil},
	{"resnet44", Basic, PadShortcut, []int{7, 7, 7}, 16, "He et al. 2015, section 4.2", nil},
	{"resnet56", Basic, PadShortcut, []int{9, 9, 9}, 16, "He et al. 2015, section 4.2", nil},
	{"resnet110", Basic, PadShortcut, []int{18, 18, 18}, 16, "He et al. 2015, section 4.2", nil},

	{"preactresnet18", Basic, Projection, []int{2, 2, 2, 2}, 64, "He et al. 2016, https://arxiv.org/abs/1603.05027", preAct},
	{"preactresnet34", Basic, Projection, []int{3, 4, 6, 3}, 64, "He et al. 2016", preAct},
	{"preactresnet50", Bottleneck, Projection, []int{3, 4, 6, 3}, 64, "He et al. 2016", preAct},
	{"preactresnet164", Bottleneck, Projection, []int{18, 18, 18}, 16, "He et al. 2016, table 4", preAct},
	{"wrn-16-4", Basic, Projection, []int{2, 2, 2}, 64, "Zagoruyko, Komodakis 2016, https://arxiv.org/abs/1605.07146, table 4", wide},
	{"wrn-28-10", Basic, Projection, []int{4, 4, 4}, 160, "Zagoruyko, Komodakis 2016, table 4", wide},
	{"resnet9", Pooled, Projection, []int{1, 0, 1}, 64, "Page 2018, https://github.com/davidcpage/cifar10-fast, dawn.py", nil},
	{"resnet8w", Single, Projection, []int{1, 1, 1}, 64, "Jordan 2024, https://github.com/KellerJordan/cifar10-airbench, airbench94.py with the shortcuts of airbench96.py and ReLU for GELU", single},
	{"resnet18d", Basic, Projection, []int{2, 2, 2, 2}, 64, "He et al. 2018, figure 2; timm's resnet18d", resnetD},
	{"resnet50d", Bottleneck, Projection, []int{3, 4, 6, 3}, 64, "He et al. 2018, figure 2; timm's resnet50d", resnetD},
	{"seresnet18", Basic, Projection, []int{2, 2, 2, 2}, 64, "Hu et al. 2018, https://arxiv.org/abs/1709.01507; timm's seresnet18", squeeze},
	{"seresnet50", Bottleneck, Projection, []int{3, 4, 6, 3}, 64, "Hu et al. 2018; timm's seresnet50", squeeze},
}

func preAct(c *Config)  { c.PreAct = true }
func wide(c *Config)    { c.PreAct, c.StemFilters = true, 16 }
func squeeze(c *Config) { c.SE = true }
func single(c *Config) {
	c.Stem, c.Whiten, c.WhitenPad, c.Widen = WhitenStem, 2, true, []int{1, 4, 4}
	c.Dirac, c.FixedGamma, c.NormRate, c.LogitScale = true, true, 0.4, 1.0/9
}
func resnetD(c *Config) {
	c.AvgDown = true
	if c.Stem == LargeStem {
		c.Stem = DeepStem
	}
}

// Names lists the networks that Named knows.
func Names() []string {
	names := make([]string, len(families))
	for i, f := range families {
		names[i] = f.name
	}
	return names
}

// Named returns a network of the literature for images [height,width,channels]
// and a number of classes. The stem follows the image size: 3×3 up to 64
// pixels, 7×7 with max-pool above. An unknown name is an error with a hint.
func Named(name string, convention Convention, height, width, channels, classes int) (Config, error) {
	i := slices.IndexFunc(families, func(f family) bool { return f.name == name })
	if i < 0 {
		return Config{}, hint.Wrap(fmt.Errorf("model %q is unknown", name), hint.DidYouMean(name, Names(), "known models: "+strings.Join(Names(), ", ")))
	}
	f := families[i]
	c := Config{Name: name, Convention: convention, Height: height, Width: width, Channels: channels, Classes: classes,
		Stem: SmallStem, Block: f.block, Shortcut: f.shortcut, Blocks: slices.Clone(f.blocks), Filters: f.filters}
	if max(height, width) > 64 && f.block != Pooled && f.block != Single {
		c.Stem = LargeStem
	}
	if f.variant != nil {
		f.variant(&c)
	}
	return c, c.Check()
}

// Widening is the field Widen of a network whose stages have so many filters.
func Widening(filters []int) []int {
	doubled := true
	factors := make([]int, len(filters))
	for stage, n := range filters {
		doubled = doubled && n == filters[0]<<stage
		factors[stage] = n / max(1, filters[0])
	}
	if doubled {
		return nil
	}
	return factors
}

// BatchNormEpsilon is the ε of batch normalisation, 0 where the network has none.
func (c Config) BatchNormEpsilon() float64 {
	switch {
	case c.Norm == NoNorm:
		return 0
	case c.Epsilon != 0:
		return c.Epsilon
	case c.Convention == Keras:
		return 1e-3
	}
	return 1e-5
}

// BatchNormRate is the share of a batch's statistics that enters the moving ones:
// PyTorch's momentum, 1 - Keras's.
func (c Config) BatchNormRate() float64 {
	switch {
	case c.NormRate != 0:
		return c.NormRate
	case c.Convention == Keras:
		return 0.01
	}
	return 0.1
}

// Check reports the first field that cannot be built.
func (c Config) Check() error {
	fail := func(field string, got any, want string) error {
		return fmt.Errorf("model %s: %s is %v, want %s", c.Name, field, got, want)
	}
	switch {
	case c.Convention != Keras && c.Convention != Torch:
		return fail("convention", c.Convention, "keras or torch")
	case c.Stem != SmallStem && c.Stem != LargeStem && c.Stem != DeepStem && c.Stem != WhitenStem:
		return fail("stem", c.Stem, "small, large, deep or whiten")
	case c.Block != Basic && c.Block != Bottleneck && c.Block != Pooled && c.Block != Single:
		return fail("block", c.Block, "basic, bottleneck, pooled or single")
	case c.Shortcut != Projection && c.Shortcut != PadShortcut:
		return fail("shortcut", c.Shortcut, "projection or pad")
	case len(c.Blocks) == 0 || slices.Min(c.Blocks) < 0:
		return fail("blocks", c.Blocks, "a number of blocks for every stage")
	case c.StrideFirst && c.Block != Bottleneck:
		return fail("stride_first", c.StrideFirst, "false without bottleneck blocks")
	case c.Shortcut == PadShortcut && c.Block == Bottleneck:
		return fail("shortcut", c.Shortcut, "projection with bottleneck blocks")
	case c.Norm != "" && c.Norm != BatchNorm && c.Norm != NoNorm:
		return fail("norm", c.Norm, "batch or none")
	case !(c.Epsilon >= 0 && c.Epsilon < 1): // also NaN
		return fail("epsilon", c.Epsilon, "0 (the convention's) or a small positive number")
	case c.Epsilon != 0 && c.Norm == NoNorm:
		return fail("epsilon", c.Epsilon, "0 without batch normalisation")
	case c.ZeroGamma && c.Norm == NoNorm && !c.PreAct:
		return fail("zero γ", c.ZeroGamma, "batch normalisation, whose γ it is")
	case c.Block == Pooled && (c.Stem != SmallStem || c.PreAct || c.AvgDown || c.Shortcut != Projection):
		return fail("block", c.Block, "basic or bottleneck with another stem or shortcut, or with pre-activation")
	case c.Block == Pooled && c.ZeroGamma: // ReLU after γ = 0 has no gradient, ever
		return fail("zero γ", c.ZeroGamma, "blocks without a ReLU before their sum")
	case c.Block == Single && (c.PreAct || c.AvgDown || c.Shortcut != Projection):
		return fail("block", c.Block, "basic or bottleneck with another shortcut or with pre-activation")
	case c.Block == Single && c.Stem != SmallStem && c.Stem != WhitenStem:
		return fail("stem", c.Stem, "small or whiten with single blocks")
	case c.Block != Single && c.Stem == WhitenStem:
		return fail("stem", c.Stem, "another one without single blocks")
	case c.Stem == WhitenStem && (c.Whiten < 1 || c.Whiten > 5):
		return fail("whiten", c.Whiten, "1 to 5, the side of the stem's kernel")
	case c.Stem != WhitenStem && c.Whiten != 0:
		return fail("whiten", c.Whiten, "0 without a whitening stem")
	case c.Stem != WhitenStem && c.WhitenPad:
		return fail("whiten pad", c.WhitenPad, "false without a whitening stem")
	case c.Stem == WhitenStem && c.StemFilters != 0:
		return fail("stem filters", c.StemFilters, "0 with a whitening stem, which has two for each number of its kernel")
	case c.Widen != nil && c.Block != Single:
		return fail("widen", c.Widen, "nothing without single blocks")
	case c.Widen != nil && (len(c.Widen) != len(c.Blocks) || slices.Min(c.Widen) < 1 || slices.Max(c.Widen) > 1<<8):
		return fail("widen", c.Widen, fmt.Sprintf("a factor from 1 to 256 for each of %d stages", len(c.Blocks)))
	case c.FixedGamma && (c.Norm == NoNorm || c.ZeroGamma):
		return fail("fixed γ", c.FixedGamma, "batch normalisation whose γ begins with 1")
	case !(c.NormRate >= 0 && c.NormRate <= 1) || c.NormRate != 0 && c.Norm == NoNorm:
		return fail("norm rate", c.NormRate, "0 (the convention's) to 1, with batch normalisation")
	case c.LogitScale != 0 && c.Block != Pooled && c.Block != Single:
		return fail("logit scale", c.LogitScale, "0 without pooled or single blocks")
	case !(c.LogitScale >= 0 && c.LogitScale <= 1<<10):
		return fail("logit scale", c.LogitScale, "a positive number, or 0 for 1/8")
	case c.Shortcut == PadShortcut && c.AvgDown:
		return fail("shortcut", c.Shortcut, "projection, which alone can average")
	case c.Block != Pooled && c.Block != Single && slices.Min(c.Blocks) < 1:
		return fail("blocks", c.Blocks, "at least one block in every stage")
	case len(c.Blocks) > 8 || slices.Max(c.Blocks) > 1000:
		return fail("blocks", c.Blocks, "at most 8 stages of 1000 blocks")
	case c.Filters < 1 || c.Filters > 1<<14:
		return fail("filters", c.Filters, "1 to 16384")
	case c.StemFilters < 0 || c.StemFilters > 1<<14:
		return fail("stem filters", c.StemFilters, "1 to 16384, or 0 for those of the first stage")
	case !(c.DropPath >= 0 && c.DropPath < 1):
		return fail("drop path", c.DropPath, "0 ≤ probability < 1")
	case c.DropPath > 0 && len(c.DropPathRates()) < 2:
		return fail("drop path", c.DropPath, "at least two blocks, as the first is never left out")
	case c.Classes < 2 || c.Classes > 1<<20:
		return fail("classes", c.Classes, "at least 2")
	case min(c.Height, c.Width) < 1 || max(c.Height, c.Width) > 1<<14:
		return fail("image size", fmt.Sprintf("%d×%d", c.Height, c.Width), "1 to 16384 on each side")
	case min(c.Height, c.Width) < c.fewestPixels():
		return fail("image size", fmt.Sprintf("%d×%d", c.Height, c.Width),
			fmt.Sprintf("at least %d pixels on each side, which each of %d stages halves", c.fewestPixels(), len(c.Blocks)))
	case c.Channels < 1 || c.Channels > 1024:
		return fail("channels", c.Channels, "1 to 1024")
	}
	return nil
}

// fewestPixels is the smallest side of an image that leaves pixels to pool in every
// stage.
func (c Config) fewestPixels() int {
	if c.Block != Pooled && c.Block != Single {
		return 1
	}
	n := 1 << len(c.Blocks)
	if c.Stem == WhitenStem && !c.WhitenPad {
		n += c.Whiten - 1
	}
	return n
}
