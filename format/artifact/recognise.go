package artifact

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// ours are the names that networks of package model have, torchvision's.
var ours = regexp.MustCompile(`^(conv1|conv1\.\d|bn1|norm|fc|layer\d+\.\d+\.(conv\d|bn\d|downsample\.[012]|se\.fc[12])|whiten|(prep|layer\d+(\.residual\d*(\.res[12])?)?)\.(conv|bn)|layer\d+\.residual\d*\.se\.fc[12])\.(weight|bias|running_mean|running_var|num_batches_tracked)$`)

// schemes are other names of the same tensors. Each is tried on all names, and
// the one that makes most of them ours is taken.
var schemes = []struct {
	about  string
	rename []rename
}{
	{"torchvision and timm", nil},
	{"CIFAR ResNets of akamaster and kuangliu (linear, shortcut)", []rename{
		{regexp.MustCompile(`^linear\.`), "fc."},
		{regexp.MustCompile(`\.shortcut\.([01])\.`), ".downsample.$1."},
	}},
	{"Hugging Face transformers (embedder, encoder.stages)", []rename{
		{regexp.MustCompile(`^embedder\.embedder\.convolution\.`), "conv1."},
		{regexp.MustCompile(`^embedder\.embedder\.normalization\.`), "bn1."},
		{regexp.MustCompile(`^encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution\.`), "layer+$1.$2.downsample.0."},
		{regexp.MustCompile(`^encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization\.`), "layer+$1.$2.downsample.1."},
		{regexp.MustCompile(`^encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.`), "layer+$1.$2.conv+$3."},
		{regexp.MustCompile(`^encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization\.`), "layer+$1.$2.bn+$3."},
	}},
	{"timm's resnetv2 (stem.conv, stages.blocks)", []rename{
		{regexp.MustCompile(`^stem\.conv\.`), "conv1."},
		{regexp.MustCompile(`^stages\.(\d+)\.blocks\.(\d+)\.downsample\.conv\.`), "layer+$1.$2.downsample.0."},
		{regexp.MustCompile(`^stages\.(\d+)\.blocks\.(\d+)\.norm(\d+)\.`), "layer+$1.$2.bn$3."},
		{regexp.MustCompile(`^stages\.(\d+)\.blocks\.(\d+)\.conv(\d+)\.`), "layer+$1.$2.conv$3."},
	}},
	{"wide-residual-networks (group0.block0)", []rename{
		{regexp.MustCompile(`^conv0\.`), "conv1."}, {regexp.MustCompile(`^bn\.`), "norm."},
		{regexp.MustCompile(`^group(\d+)\.block(\d+)\.convdim\.`), "layer+$1.$2.downsample.0."},
		{regexp.MustCompile(`^group(\d+)\.block(\d+)\.bn(\d+)\.`), "layer+$1.$2.bn+$3."},
		{regexp.MustCompile(`^group(\d+)\.block(\d+)\.conv(\d+)\.`), "layer+$1.$2.conv+$3."},
	}},
}

// rename replaces a part of a name; "+2" in the result counts on to 3, for names
// that number from 0 where torchvision numbers from 1.
type rename struct {
	pattern *regexp.Regexp
	by      string
}

var countOn = regexp.MustCompile(`\+(\d+)`)

func renamed(name string, by []rename) string {
	for _, r := range by {
		name = r.pattern.ReplaceAllString(name, r.by)
	}
	return countOn.ReplaceAllStringFunc(name, func(s string) string {
		n, err := strconv.Atoi(s[1:])
		if err != nil {
			return s
		}
		return strconv.Itoa(n + 1)
	})
}

// biased are biases of convolutions, not of a batch normalisation.
var biased = regexp.MustCompile(`(conv\d?|conv1\.[036]|downsample\.0)\.bias$`)

// dense are names of the last layer that are read as fc where there is no fc.
var dense = regexp.MustCompile(`^(?:\w+\.)?(?:fc|linear|classifier|head|head\.fc|(?:fc|classifier|head)\.\d)\.(weight|bias)$`)

// Recognise finds the network of package model that tensors belong to, from
// their names and shapes alone, and makes a Model of them in torch convention.
// It removes what a wrapper puts before all names (module., model., …) and knows
// the names of torchvision, timm, the common CIFAR ResNets and transformers, with
// and without batch normalisation and biases of convolutions. Recognised says what
// it made of them; what has no place is listed in Unmapped. What is not a residual
// network of package model is an error with the first tensor that does not fit.
//
// Neither stride, padding nor ε nor the size of the pictures can be seen in
// weights: those are torchvision's, and Config.Height and Width stay 0.
func Recognise(tensors []safetensors.Named) (*Model, error) {
	r := &recogniser{tensors: map[string]tensor.Tensor{}}
	if err := r.names(tensors); err != nil {
		return nil, err
	}
	r.note("the file's names and shapes say nothing of stride, padding, ε, activations: torchvision's are taken")
	c, err := r.config()
	if err != nil {
		return nil, hint.Wrap(err, "known are the networks that residual train builds; residual inspect lists the file's tensors")
	}
	m, err := Build(c, r.tensors, r.notes...)
	if err != nil {
		return nil, err
	}
	for i, name := range m.Unmapped { // as the file calls them
		m.Unmapped[i] = r.original[name]
	}
	m.Unmapped = append(m.Unmapped, r.strange...)
	sortNatural(m.Unmapped)
	m.Steps = r.steps
	return m, nil
}

type recogniser struct {
	tensors  map[string]tensor.Tensor // by our name
	original map[string]string        // our name → the file's
	strange  []string                 // the file's names that are not ours
	notes    []string
	steps    int
}

func (r *recogniser) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// names fills tensors from the file's.
func (r *recogniser) names(file []safetensors.Named) error {
	prefix := commonPrefix(file)
	best, bestOurs := 0, -1
	for i, s := range schemes {
		count := 0
		for _, n := range file {
			if ours.MatchString(renamed(strings.TrimPrefix(n.Name, prefix), s.rename)) {
				count++
			}
		}
		if count > bestOurs {
			best, bestOurs = i, count
		}
	}
	if bestOurs <= 0 {
		var names []string
		for _, n := range file {
			names = append(names, n.Name)
		}
		return fmt.Errorf("no residual network: no tensor has the name of one, there are %s", Few(names))
	}
	if prefix != "" {
		r.note("%q before the names is a wrapper's and removed", prefix)
	}
	r.note("names are those of %s", schemes[best].about)

	r.original = map[string]string{}
	add := func(name string, n safetensors.Named) error {
		if first, twice := r.original[name]; twice {
			return fmt.Errorf("tensors %s and %s are both %s", first, n.Name, name)
		}
		r.original[name] = n.Name
		r.tensors[name] = n.Tensor
		return nil
	}
	var rest []safetensors.Named
	for _, n := range file {
		name := renamed(strings.TrimPrefix(n.Name, prefix), schemes[best].rename)
		if !ours.MatchString(name) {
			rest = append(rest, n)
			continue
		}
		if count, ok := BatchesTracked(n); ok {
			r.steps = max(r.steps, count)
			continue
		}
		if s := n.Tensor.Shape(); strings.Contains(name, ".se.fc") && len(s) == 4 && s[2]*s[3] == 1 {
			n.Tensor = n.Tensor.Reshape(s[0], s[1]) // timm's are 1×1 convolutions
		}
		if err := add(name, n); err != nil {
			return err
		}
	}
	_, hasDense := r.tensors["fc.weight"]
	for _, n := range rest {
		if m := dense.FindStringSubmatch(strings.TrimPrefix(n.Name, prefix)); m != nil && !hasDense {
			r.note("%s is fc.%s", n.Name, m[1])
			if s := n.Tensor.Shape(); len(s) == 4 && s[2]*s[3] == 1 {
				n.Tensor = n.Tensor.Reshape(s[0], s[1])
			}
			if err := add("fc."+m[1], n); err != nil {
				return err
			}
			continue
		}
		r.strange = append(r.strange, n.Name)
	}
	return nil
}

// commonPrefix is what stands before the first convolution's name, such as
// "module.", where most names begin with it.
func commonPrefix(file []safetensors.Named) string {
	stems := []string{"conv1.weight", "conv1.0.weight", "embedder.embedder.convolution.weight", "stem.conv.weight", "conv0.weight", "whiten.weight", "prep.conv.weight"}
	shortest := ""
	for _, n := range file {
		for _, stem := range stems {
			p, ok := strings.CutSuffix(n.Name, stem)
			if ok && (p == "" || strings.HasSuffix(p, ".")) && (shortest == "" || len(n.Name) < len(shortest)) {
				shortest = n.Name
			}
		}
	}
	for _, stem := range stems {
		if p, ok := strings.CutSuffix(shortest, stem); ok {
			return p
		}
	}
	return ""
}

// config reads the network off shapes.
func (r *recogniser) config() (model.Config, error) {
	if _, ok := r.tensors["layer1.conv.weight"]; ok {
		return r.pooledConfig()
	}
	c := model.Config{Convention: model.Torch, Block: model.Basic, Shortcut: model.Projection}
	first, last := "conv1", "conv1" // convolutions of the stem
	if _, ok := r.tensors["conv1.0.weight"]; ok {
		first, last = "conv1.0", "conv1.6"
	}
	stem, err := r.kernel(first)
	if err != nil {
		return c, err
	}
	end, err := r.kernel(last)
	if err != nil {
		return c, err
	}
	width, err := r.kernel("layer1.0.conv1")
	if err != nil {
		return c, fmt.Errorf("no residual blocks: %w", err)
	}
	c.Filters, c.Channels = width[0], stem[1]
	if end[0] != c.Filters {
		c.StemFilters = end[0]
	}
	switch size := stem[2]; {
	case first != last:
		c.Stem = model.DeepStem
	case size == 3:
		c.Stem = model.SmallStem
	case size == 7:
		c.Stem = model.LargeStem
	default:
		return c, fmt.Errorf("tensor %s: a stem of %d×%d, want 3×3 or 7×7", r.original[first+".weight"], size, size)
	}
	_, c.PreAct = r.tensors["norm.weight"]
	_, c.SE = r.tensors["layer1.0.se.fc1.weight"]
	if _, ok := r.tensors["layer1.0.conv3.weight"]; ok {
		c.Block = model.Bottleneck
	}
	projections := 0
	for stage := 1; ; stage++ {
		blocks := 0
		for {
			if _, ok := r.tensors[fmt.Sprintf("layer%d.%d.conv1.weight", stage, blocks)]; !ok {
				break
			}
			blocks++
		}
		if blocks == 0 {
			break
		}
		c.Blocks = append(c.Blocks, blocks)
		if _, ok := r.tensors[fmt.Sprintf("layer%d.0.downsample.0.weight", stage)]; ok && stage > 1 {
			projections++
		}
		if t, ok := r.tensors[fmt.Sprintf("layer%d.0.downsample.1.weight", stage)]; ok && len(t.Shape()) == 4 { // after a pool
			projections++
			c.AvgDown = true
		}
	}
	if projections == 0 && len(c.Blocks) > 1 {
		c.Shortcut = model.PadShortcut
	}
	if c.Classes, err = r.classes(); err != nil {
		return c, err
	}
	if _, ok := r.tensors["fc.bias"]; !ok {
		r.note("the dense layer has no bias: it is zero")
		r.tensors["fc.bias"] = tensor.New(tensor.Float32, c.Classes)
	}

	r.common(&c)
	if err := r.check(&c); err != nil {
		return c, err
	}
	shortcut := "projection shortcuts (option B)"
	switch {
	case c.Shortcut == model.PadShortcut:
		shortcut = "shortcuts that subsample and pad with zeros (option A)"
	case c.AvgDown:
		shortcut = "shortcuts that average and project (ResNet-D)"
	}
	more := ""
	if c.PreAct {
		more += ", pre-activation"
	}
	if c.SE {
		more += ", squeeze-excitation"
	}
	r.note("%s: %s blocks %s, %d filters in the first stage, %s, %s%s, %d channels in, %d classes",
		c.Name, c.Block, c.BlocksText(), c.Filters, shortcut, c.StemText(), more, c.Channels, c.Classes)
	return c, nil
}

// pooledConfig reads a network of pooled or single blocks off shapes.
func (r *recogniser) pooledConfig() (model.Config, error) {
	c := model.Config{Convention: model.Torch, Block: model.Single, Shortcut: model.Projection, Stem: model.SmallStem}
	first := "conv1"
	if _, ok := r.tensors["prep.conv.weight"]; ok {
		c.Block, first = model.Pooled, "prep.conv"
	} else if _, ok := r.tensors["whiten.weight"]; ok {
		c.Stem, first = model.WhitenStem, "whiten"
	}
	stem, err := r.kernel(first)
	if err != nil {
		return c, err
	}
	c.Channels = stem[1]
	if c.Stem == model.WhitenStem {
		c.Whiten, c.WhitenPad = stem[2], true
		r.note("the whitening stem is taken to pad its pictures, as resnet8w does")
	}
	var widths []int
	for stage := 1; ; stage++ {
		name := fmt.Sprintf("layer%d", stage)
		if _, ok := r.tensors[name+".conv.weight"]; !ok {
			break
		}
		conv, err := r.kernel(name + ".conv")
		if err != nil {
			return c, err
		}
		widths = append(widths, conv[0])
		blocks := 0
		for {
			unit := name + ".residual"
			if blocks > 0 {
				unit += strconv.Itoa(blocks + 1)
			}
			_, one := r.tensors[unit+".conv.weight"]
			_, two := r.tensors[unit+".res1.conv.weight"]
			if !one && !two || one != (c.Block == model.Single) {
				break
			}
			blocks++
			_, c.SE = r.tensors[unit+".se.fc1.weight"]
		}
		c.Blocks = append(c.Blocks, blocks)
	}
	c.Filters = widths[0]
	if c.Block == model.Pooled {
		c.Filters /= 2
	}
	if c.Stem == model.SmallStem && stem[0] != c.Filters {
		c.StemFilters = stem[0]
	}
	if c.Block == model.Single {
		c.Widen = model.Widening(widths)
	}
	if c.Classes, err = r.classes(); err != nil {
		return c, err
	}
	scale := "1/8, as in ResNet-9"
	if c.Block == model.Single {
		c.LogitScale, scale = 1.0/9, "1/9, as in airbench"
	}
	r.note("the factor on the logits, which changes no prediction but how sure it is, is taken to be %s", scale)
	r.common(&c)
	if err := r.check(&c); err != nil {
		return c, err
	}
	r.note("%s: %s blocks %s, %d filters in the first stage, %s, %d channels in, %d classes",
		c.Name, c.Block, c.BlocksText(), c.Filters, c.StemText(), c.Channels, c.Classes)
	return c, nil
}

// common finds batch normalisation and biases.
func (r *recogniser) common(c *model.Config) {
	norms := 0
	for name := range r.tensors {
		if biased.MatchString(name) {
			c.ConvBias = true
		}
		if strings.HasSuffix(name, ".running_mean") {
			norms++
		}
	}
	if norms == 0 {
		c.Norm = model.NoNorm
		r.note("there is no batch normalisation: it is folded into the convolutions")
	}
	if c.ConvBias {
		r.note("convolutions have biases")
	}
}

// check names the network and compares shapes.
func (r *recogniser) check(c *model.Config) error {
	c.Name = Name(*c)
	if err := Sized(*c).Check(); err != nil {
		return err
	}
	return r.shapes(*c)
}

// kernel is the shape [OC,C,KH,KW] of a convolution, whose kernel is square.
func (r *recogniser) kernel(layer string) (tensor.Shape, error) {
	t, ok := r.tensors[layer+".weight"]
	if !ok {
		return nil, fmt.Errorf("there is no tensor %s.weight", layer)
	}
	if s := t.Shape(); len(s) == 4 && s[2] == s[3] && s.Elements() > 0 {
		return s, nil
	}
	return nil, fmt.Errorf("tensor %s has shape %v, want the square kernel [OC,C,K,K] of a convolution", r.original[layer+".weight"], t.Shape())
}

// classes is the number of rows of the dense layer's kernel.
func (r *recogniser) classes() (int, error) {
	t, ok := r.tensors["fc.weight"]
	if !ok {
		return 0, fmt.Errorf("no dense layer: there is no tensor fc.weight")
	}
	// A kernel without elements takes no byte of a file, however many rows it has.
	if s := t.Shape(); len(s) != 2 || s.Elements() == 0 {
		return 0, fmt.Errorf("tensor %s has shape %v, want the kernel [classes,C] of a dense layer", r.original["fc.weight"], s)
	}
	return t.Shape()[0], nil
}

// shapes finds the first convolution that c would not have so.
func (r *recogniser) shapes(c model.Config) error {
	g, err := Sized(c).Graph(1)
	if err != nil {
		return err
	}
	for _, v := range g.Variables {
		t, ok := r.tensors[v.Name]
		if want := model.FileShape(v.Shape); ok && !t.Shape().Equal(want) {
			return fmt.Errorf("tensor %s has shape %v, %s would have %v", cmp.Or(r.original[v.Name], v.Name), t.Shape(), c.Name, want)
		}
	}
	return nil
}

// Name is the literature's name of a network, or one that describes it.
func Name(c model.Config) string {
	for _, name := range model.Names() {
		for _, size := range []int{32, 224} {
			f, err := model.Named(name, c.Convention, size, size, c.Channels, c.Classes)
			if err != nil || c.Stem == model.DeepStem != (f.Stem == model.DeepStem) {
				continue
			}
			like := c // but for what does not make another network of it
			like.Name, like.Height, like.Width, like.Stem = f.Name, f.Height, f.Width, f.Stem
			like.Norm, like.ConvBias, like.Epsilon, like.ZeroGamma, like.DropPath = f.Norm, f.ConvBias, f.Epsilon, f.ZeroGamma, f.DropPath
			like.Dirac, like.FixedGamma, like.NormRate = f.Dirac, f.FixedGamma, f.NormRate
			if reflect.DeepEqual(like, f) {
				return name
			}
		}
	}
	return fmt.Sprintf("resnet-%s-blocks%s-filters%d", c.Block, strings.Join(strings.Fields(strings.Trim(fmt.Sprint(c.Blocks), "[]")), "."), c.Filters)
}

// sortNatural sorts names with numbers in them by number.
func sortNatural(names []string) {
	slices.SortFunc(names, func(a, b string) int {
		x, y := strings.Split(a, "."), strings.Split(b, ".")
		for i := range min(len(x), len(y)) {
			if x[i] == y[i] {
				continue
			}
			m, errM := strconv.Atoi(x[i])
			n, errN := strconv.Atoi(y[i])
			if errM == nil && errN == nil && m != n {
				return cmp.Compare(m, n)
			}
			return cmp.Compare(x[i], y[i])
		}
		return cmp.Compare(len(x), len(y))
	})
}
