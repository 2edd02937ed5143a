package structure

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// Result is what a network turned out to be.
type Result struct {
	Config model.Config // without a name, unless it is the one that was expected

	// Tensors are the network's parameters by torchvision's names, in
	// torchvision's order of axes, with the values and types of the file: the
	// variables of Config, all of them and no others.
	Tensors map[string]tensor.Tensor

	// Gain and Offset say that the file's network rescales its pictures first,
	// x·Gain + Offset per channel, which Config does not; nil: it does not.
	Gain, Offset []float64
	// Softmax says that the file's network ends in a softmax.
	Softmax bool

	Notes []string // in sentences: what was recognised, and by what
}

// Recognise finds the configuration that computes what n computes, and the place
// of n's parameters in it. Where two configurations do, which happens when
// the conventions' paddings agree on the pictures' size and no ε tells them
// apart, expected decides, then torch. expected, which may be nil, is what else is
// said of the network, such as a file's metadata.
//
// A network that is none of package model's is an error that names the layer at
// which the nearest one differs.
func Recognise(n *Network, expected *model.Config) (*Result, error) {
	if n.Output == nil || n.Input() == nil {
		return nil, fmt.Errorf("the network has no input or no output")
	}
	s, front, err := simplify(n)
	if err != nil {
		return nil, err
	}
	if s.Input() == nil {
		return nil, fmt.Errorf("the output does not depend on the input")
	}
	proposals, err := propose(s, expected)
	if err != nil {
		return nil, err
	}
	var nearest *matching
	for _, c := range proposals {
		pattern, err := Of(c, nil)
		if err != nil {
			continue // a proposal that cannot be built, such as for a size that strides away
		}
		m := &matching{bound: map[*Layer]*Layer{}, config: c}
		if m.match(pattern.Output, s.Output) {
			r, err := m.result()
			if err != nil {
				return nil, err
			}
			r.Gain, r.Offset, r.Softmax = front.gain, front.offset, front.softmax
			if front.folded > 0 {
				r.Notes = append(r.Notes, fmt.Sprintf("%d factors or further biases after layers are folded into them: the same function up to rounding", front.folded))
			}
			return r, nil
		}
		if nearest == nil || m.most > nearest.most {
			nearest = m
		}
	}
	if nearest == nil {
		return nil, fmt.Errorf("no residual network: no configuration has its sizes")
	}
	return nil, fmt.Errorf("no residual network that is known; nearest is %s, but %s", Describe(nearest.config), nearest.why)
}

// facts are what can be read off a network directly.
type facts struct {
	stages, units []int // widths of the stages, and how many additions each has
	first         *Layer
	convolutions  int
	stem          []int // filters of the first three convolutions
	norm          bool  // batch normalisation
	normAfterSum  bool
	options       bool  // option A
	pools         []int // additions after each 2×2 max-pool, as ResNet-9 has them
	pooled        []int // and its channels
	later         bool  // a convolution but the first has a bias
}

// propose reads off the network what can be read off directly, and lists the
// configurations with all combinations of the rest, likely ones first.
func propose(s *Network, expected *model.Config) ([]model.Config, error) {
	in := s.Input().Shape
	base := model.Config{Name: "network", Height: in[0], Width: in[1], Channels: in[2]}
	var f facts
	for _, l := range s.Layers {
		switch l.Kind {
		case Add:
			if n, w := len(f.stages), l.Shape[len(l.Shape)-1]; n > 0 && f.stages[n-1] == w {
				f.units[n-1]++
			} else {
				f.stages, f.units = append(f.stages, w), append(f.units, 1)
			}
			if len(f.pools) > 0 {
				f.pools[len(f.pools)-1]++
			}
		case Conv:
			if f.convolutions++; f.first == nil {
				f.first = l
			}
			if len(f.stem) < 3 {
				f.stem = append(f.stem, l.Weight.Shape[0])
			}
			bias := l.Bias.Present() && !l.Bias.zero()
			base.ConvBias = base.ConvBias || bias
			f.later = f.later || bias && f.convolutions > 1
		case BatchNorm:
			if !f.norm {
				base.Epsilon = l.Epsilon
			}
			f.norm = true
			f.normAfterSum = f.normAfterSum || l.Inputs[0].Kind == Add
		case MaxPool:
			if l.Size == 2 && l.Stride == 2 {
				f.pools, f.pooled = append(f.pools, 0), append(f.pooled, l.Shape[2])
			}
		case Sigmoid:
			base.SE = true
		case AvgPool:
			base.AvgDown = true
		case Subsample, PadChannels:
			f.options = true
		}
	}
	last := s.Output
	if last.Kind == Rescale {
		last = last.Inputs[0]
	}
	if last.Kind != Dense {
		return nil, fmt.Errorf("no classifier: the last layer, %q, is %v, want a dense one", last.Name, last)
	}
	base.Classes = last.Shape[0]
	if len(f.stages) == 0 {
		return nil, fmt.Errorf("no residual network: no layer adds a shortcut")
	}
	sums := 0
	for _, n := range f.units {
		sums += n
	}
	if f.convolutions < 2*sums && (len(f.pools) == 0 || f.convolutions < sums+len(f.pools)) {
		return nil, fmt.Errorf("no residual network: %d convolutions for %d shortcuts, want two or three for each", f.convolutions, sums)
	}
	if !f.norm {
		base.Norm = model.NoNorm
	}

	conventions := []model.Convention{model.Torch, model.Keras}
	if f.norm && sameEpsilon(base.Epsilon, 1e-3) || expected != nil && expected.Convention == model.Keras {
		conventions = []model.Convention{model.Keras, model.Torch}
	}
	var proposals []model.Config
	add := func(c model.Config) {
		for _, convention := range conventions {
			c := c
			c.Convention = convention
			if c.Epsilon = 0; f.norm && !sameEpsilon(c.BatchNormEpsilon(), base.Epsilon) {
				c.Epsilon = decimal(base.Epsilon)
			}
			if c.Check() == nil {
				proposals = append(proposals, c)
			}
		}
	}
	if expected != nil && expected.Check() == nil {
		proposals = append(proposals, *expected)
	}
	if len(f.pools) > 0 {
		scale := 0.125
		if s.Output.Kind == Rescale && len(s.Output.Gain) == 1 {
			scale = s.Output.Gain[0]
		}
		switch { // as a file's float32 has it
		case sameEpsilon(scale, 1.0/9):
			base.LogitScale = 1.0 / 9
		case !sameEpsilon(scale, 0.125):
			base.LogitScale = decimal(scale)
		}
		for _, blocks := range f.stagesOfPools() {
			for _, c := range append(f.singles(base, blocks), f.pooledBlocks(base, blocks)) {
				add(c)
			}
		}
		base.LogitScale = 0
	}
	base.Stem = model.SmallStem
	stemFilters := f.stem[0]
	switch w := f.first.Weight.Shape; {
	case w[2] > 3:
		base.Stem = model.LargeStem
	case f.first.Stride > 1 && len(f.stem) == 3:
		base.Stem = model.DeepStem
		stemFilters = f.stem[2]
	}
	base.Blocks = f.units
	base.Shortcut = model.Projection
	if f.options {
		base.Shortcut = model.PadShortcut
	}
	orders := []bool{f.normAfterSum} // of pre-activation
	if !f.norm {
		orders = []bool{false, true}
	}
	for _, kind := range []struct {
		block       model.Block
		strideFirst bool
	}{{model.Basic, false}, {model.Bottleneck, false}, {model.Bottleneck, true}} {
		for _, preAct := range orders {
			c := base
			c.Block, c.StrideFirst, c.PreAct = kind.block, kind.strideFirst, preAct
			c.Filters = f.stages[0]
			if c.Block == model.Bottleneck {
				c.Filters /= 4
			}
			if stemFilters != c.Filters {
				c.StemFilters = stemFilters
			}
			add(c)
		}
	}
	return proposals, nil
}

// stagesOfPools are what the additions in each stage may be, where a stage begins with a
// convolution and a 2×2 max-pool. The last pool, over all that is left, may be one of
// 2×2 too, or a stage without additions.
func (f facts) stagesOfPools() [][]int {
	if n := len(f.pools); n > 1 && f.pools[n-1] == 0 {
		return [][]int{f.pools[:n-1], f.pools}
	}
	return [][]int{f.pools}
}

// singles are networks of airbench's kind, with a whitening stem or a trained one.
func (f facts) singles(c model.Config, blocks []int) []model.Config {
	c.Block, c.Shortcut, c.Stem, c.Blocks = model.Single, model.Projection, model.SmallStem, blocks
	widths := f.pooled[:len(blocks)]
	c.Filters = widths[0]
	c.Widen = model.Widening(widths)
	whitened := c
	whitened.Stem, whitened.Whiten, whitened.ConvBias = model.WhitenStem, f.first.Weight.Shape[2], f.later
	if f.stem[0] != c.Filters {
		c.StemFilters = f.stem[0]
	}
	padded := whitened
	padded.WhitenPad = true
	return []model.Config{whitened, padded, c}
}

// pooledBlocks is a ResNet-9.
func (f facts) pooledBlocks(c model.Config, blocks []int) model.Config {
	c.Block, c.Shortcut, c.Stem, c.Blocks = model.Pooled, model.Projection, model.SmallStem, blocks
	c.Filters = f.stem[min(1, len(f.stem)-1)] / 2
	if f.stem[0] != c.Filters {
		c.StemFilters = f.stem[0]
	}
	return c
}

// sameEpsilon compares as float32, in which ONNX keeps ε.
func sameEpsilon(a, b float64) bool { return float32(a) == float32(b) }

// decimal is the shortest decimal that is the same number in float32: 1.001e-5
// for what a file has as 1.0009999641624745e-05.
func decimal(x float64) float64 {
	if y, err := strconv.ParseFloat(strconv.FormatFloat(x, 'g', -1, 32), 64); err == nil && sameEpsilon(x, y) {
		return y
	}
	return x
}

// matching compares a pattern, what Of makes of config, with a simplified
// network, from the outputs back.
type matching struct {
	config model.Config
	bound  map[*Layer]*Layer // pattern → network
	trail  []*Layer          // bound patterns, to undo

	most int    // the most layers that were ever bound
	why  string // what stood in the way there
}

// match binds p to l and everything before them, or nothing at all.
func (m *matching) match(p, l *Layer) bool {
	if other, known := m.bound[p]; known {
		if other != l {
			m.fail("%q is not where a shortcut begins", l.Name)
		}
		return other == l
	}
	if why := differ(p, l); why != "" {
		m.fail("layer %q is %v, want %v (%s)", l.Name, l, p, why)
		return false
	}
	mark := len(m.trail)
	m.bound[p] = l
	m.trail = append(m.trail, p)
	if m.matchInputs(p, l) {
		return true
	}
	m.undo(mark)
	return false
}

// undo unbinds what was bound after the first patterns of the trail.
func (m *matching) undo(mark int) {
	for _, undone := range m.trail[mark:] {
		delete(m.bound, undone)
	}
	m.trail = m.trail[:mark]
}

func (m *matching) matchInputs(p, l *Layer) bool {
	if p.Kind != Add {
		for i := range p.Inputs {
			if !m.match(p.Inputs[i], l.Inputs[i]) {
				return false
			}
		}
		return true
	}
	// The operands of a sum may be exchanged. The wrong order is found out
	// within a block, so trying both does not multiply.
	for _, first := range []int{0, 1} {
		mark := len(m.trail)
		if m.match(p.Inputs[0], l.Inputs[first]) && m.match(p.Inputs[1], l.Inputs[1-first]) {
			return true
		}
		m.undo(mark)
	}
	return false
}

func (m *matching) fail(format string, args ...any) {
	if n := len(m.trail); m.why == "" || n > m.most {
		m.most, m.why = n, fmt.Sprintf(format, args...)
	}
}

// differ says what makes l another computation than p, "" where nothing does.
// Padding after the last window that a stride reaches is not looked at: it is
// never read.
func differ(p, l *Layer) string {
	switch {
	case p.Kind != l.Kind:
		return "another kind of layer"
	case !p.Shape.Equal(l.Shape):
		return fmt.Sprintf("output of shape %v, want %v", l.Shape, p.Shape)
	}
	params, others := p.params(), l.params()
	for i := range params {
		if a, b := params[i], others[i]; a.Present() != b.Present() {
			// Without a bias is with one of zeros.
			if !a.Present() && !b.zero() {
				return fmt.Sprintf("there is no place for %q", b.Name)
			}
			if a.Present() && a != &p.Bias {
				return fmt.Sprintf("there is no %s", a.Name)
			}
		} else if !a.Shape.Equal(b.Shape) {
			return fmt.Sprintf("%q has shape %v, want %v", b.Name, b.Shape, a.Shape)
		}
	}
	switch p.Kind {
	case Conv, MaxPool, AvgPool, Subsample:
		switch {
		case p.Stride != l.Stride:
			return "another stride"
		case p.Size != l.Size:
			return "another size"
		case p.Pad.Top != l.Pad.Top || p.Pad.Left != l.Pad.Left:
			return "other padding"
		case p.Kind == AvgPool && p.CountPad != l.CountPad && (p.Pad != l.Pad || p.Pad.Top+p.Pad.Bottom+p.Pad.Left+p.Pad.Right > 0):
			return "padding counts otherwise in the average"
		}
	case PadChannels:
		if p.Before != l.Before || p.After != l.After {
			return "other channels"
		}
	case BatchNorm:
		if !sameEpsilon(p.Epsilon, l.Epsilon) {
			return "another ε"
		}
	case Rescale:
		if !slices.EqualFunc(p.Gain, l.Gain, sameEpsilon) || !slices.EqualFunc(p.Offset, l.Offset, sameEpsilon) {
			return "other numbers"
		}
	}
	return ""
}

// result collects the parameters of a complete match.
func (m *matching) result() (*Result, error) {
	r := &Result{Config: m.config, Tensors: map[string]tensor.Tensor{}}
	zeros, left := 0, 0
	for _, p := range m.trail {
		others := m.bound[p].params()
		for i, param := range p.params() {
			value := others[i].Value
			if !param.Present() {
				if others[i].Present() {
					left++
				}
				continue
			}
			if !others[i].Present() {
				zeros++
				value = tensor.New(tensor.Float32, param.Shape...)
			}
			if !value.Valid() {
				return nil, fmt.Errorf("layer %q: there is no value of %q", m.bound[p].Name, others[i].Name)
			}
			r.Tensors[param.Name] = value
		}
	}
	r.Notes = append(r.Notes, Describe(m.config)+", recognised by its layers")
	if zeros > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d layers have no bias where others have: it is zero", zeros))
	}
	if left > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("the biases of %d convolutions are zero and left out", left))
	}
	if r.Config.Name == "network" {
		r.Config.Name = ""
	}
	return r, nil
}

// Describe says what a configuration is, in words.
func Describe(c model.Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "a network of %s blocks %s with %d filters in the first stage, ", c.Block,
		c.BlocksText(), c.Filters)
	for stage := 1; stage < len(c.Widen); stage++ {
		fmt.Fprintf(&b, "%d in stage %d, ", c.Filters*c.Widen[stage], stage+1)
	}
	b.WriteString(c.StemText() + ", ")
	if c.StemFilters != 0 {
		fmt.Fprintf(&b, "%d filters in the stem, ", c.StemFilters)
	}
	if c.PreAct {
		b.WriteString("pre-activation, ")
	}
	if c.SE {
		b.WriteString("squeeze-excitation, ")
	}
	switch {
	case c.Block == model.Pooled || c.Block == model.Single:
		fmt.Fprintf(&b, "a factor of %v on the logits, ", float32(cmp.Or(c.LogitScale, 0.125)))
	case c.Shortcut == model.PadShortcut:
		b.WriteString("shortcuts that subsample and pad with zeros (option A), ")
	default:
		b.WriteString("projection shortcuts (option B")
		if c.AvgDown {
			b.WriteString(" of averages")
		}
		b.WriteString("), ")
	}
	fmt.Fprintf(&b, "padding of the %s convention, ", c.Convention)
	if c.Norm == model.NoNorm {
		b.WriteString("no batch normalisation, ")
	} else {
		fmt.Fprintf(&b, "batch normalisation with ε %v, ", float32(c.BatchNormEpsilon()))
	}
	if c.StrideFirst {
		b.WriteString("strides in the first 1×1, ")
	}
	if c.ConvBias {
		b.WriteString("biases in convolutions, ")
	}
	fmt.Fprintf(&b, "pictures of %d×%d×%d, %d classes", c.Height, c.Width, c.Channels, c.Classes)
	return b.String()
}

// Preprocess writes x·gain + offset as (x·scale - mean)/std with the given scale,
// such as 1/255. A gain of zero or below has no deviation and is an error.
func Preprocess(gain, offset []float64, scale float64) (mean, std []float64, err error) {
	for c := range gain {
		s := scale / gain[c]
		if !(s > 0) || math.IsInf(s, 0) {
			return nil, nil, fmt.Errorf("pictures are scaled by %v in channel %d, want a positive number", gain[c], c)
		}
		std = append(std, s)
		mean = append(mean, -offset[c]*s+0) // + 0: no negative zero
	}
	return mean, std, nil
}
