package keras

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/internal/hdf5"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// Weights without a structure. A file of weights says which tensors belong to
// one layer; the network is found from them in three steps:
//
//  1. order: the k-th convolution and the k-th batch normalisation belong
//     together, k by the numbers in the names that Keras gives by itself
//     (conv2d_7), by the file's own list of layers, or by names, whichever
//     makes their widths agree;
//  2. shapes: the first convolution is the stem, the others are cut into
//     blocks, each from one width to the next;
//  3. what a file of weights cannot tell (strides, padding, ε) is Keras's
//     default, and said.
//
// Everything found is checked by artifact.Build against the network.

// unit is a layer with weights.
type unit struct {
	path   string   // of its group, for messages and order
	name   string   // that Keras or the author gave, where it is not in the path
	auto   []string // base and number, where the name is one that Keras gives
	kind   string   // conv, norm, dense
	found  []*hdf5.Object
	shapes [][]int
}

func (u unit) filters() int { s := u.shapes[0]; return s[len(s)-1] }

// fromWeights finds the network of a file without a usable configuration.
func (c *contents) fromWeights() (*artifact.Model, error) {
	units, ordered, err := c.units()
	if err != nil {
		return nil, err
	}
	byKind := map[string][]unit{}
	for _, u := range units {
		byKind[u.kind] = append(byKind[u.kind], u)
	}
	convs, norms := byKind["conv"], byKind["norm"]
	switch {
	case len(convs) < 3:
		return nil, fmt.Errorf("no residual network: %d convolutions with weights", len(convs))
	case len(byKind["dense"]) != 1:
		return nil, fmt.Errorf("no classifier that is known: %d dense layers, want one", len(byKind["dense"]))
	case len(norms) != 0 && len(norms) != len(convs):
		return nil, fmt.Errorf("%d convolutions and %d batch normalisations, want as many of both, or none of these", len(convs), len(norms))
	}
	var first error
	for _, order := range orders(ordered) {
		convs, norms := slices.Clone(convs), slices.Clone(norms)
		if !order.sort(convs) || !order.sort(norms) {
			continue
		}
		m, err := c.assemble(convs, norms, byKind["dense"][0], order.about)
		if err == nil {
			return m, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, hint.Wrap(fmt.Errorf("no residual network that is known by its weights alone: %w", first),
		"save the whole model (model.save) instead of its weights, built of Keras's own layers")
}

// units lists the layers with weights. ordered says that the file lists layers
// in the order in which they were made.
func (c *contents) units() (units []unit, ordered bool, err error) {
	if layers := stringList(c.root, "layer_names"); layers != nil {
		for _, name := range layers {
			g := c.root.Child(name)
			if g == nil {
				return nil, false, fmt.Errorf("layer_names has %q, which has no group", name)
			}
			var of []*unit
			at := map[string]int{}
			for _, path := range stringList(g, "weight_names") {
				o := g.Child(path)
				if o == nil || o.Data == nil {
					return nil, false, fmt.Errorf("%s has no data set %q", g.Path, path)
				}
				prefix := path[:max(0, strings.LastIndexByte(path, '/'))]
				i, known := at[prefix]
				if !known {
					i = len(of)
					at[prefix] = i
					of = append(of, &unit{path: strings.TrimPrefix(g.Path, "/") + "/" + prefix})
				}
				of[i].found = append(of[i].found, o)
			}
			for _, u := range of {
				units = append(units, *u)
			}
		}
		ordered = true
	} else {
		storeUnits(c.root, &units)
	}
	kept := units[:0]
	for _, u := range units {
		if bookkeeping("/"+u.path) || !slices.ContainsFunc(u.found, func(o *hdf5.Object) bool { return o.Data.Type.Class != hdf5.Integer }) {
			continue // an optimizer's, or a random generator's
		}
		for _, o := range u.found {
			u.shapes = append(u.shapes, o.Data.Dims)
		}
		if u.kind, err = kindOf(u); err != nil {
			return nil, false, fmt.Errorf("%s: %w", u.path, err)
		}
		kept = append(kept, u)
	}
	return kept, ordered, nil
}

// storeUnits collects the layers of Keras 3's layout below o.
func storeUnits(o *hdf5.Object, units *[]unit) {
	if vars := o.Child("vars"); vars != nil && len(vars.Children) > 0 {
		u := unit{path: strings.TrimPrefix(o.Path, "/")}
		for _, v := range vars.Children {
			if v.Data != nil {
				u.found = append(u.found, v)
			}
		}
		slices.SortStableFunc(u.found, func(a, b *hdf5.Object) int { return natural(a.Name(), b.Name()) })
		if a := vars.Attribute("name"); a != nil {
			if name, err := a.Text(); err == nil {
				u.name, u.auto = name, autoName.FindStringSubmatch(name)
			}
		}
		*units = append(*units, u)
	}
	for _, child := range o.Children {
		if child.Data == nil && child.Name() != "vars" {
			storeUnits(child, units)
		}
	}
}

// A shortcut's convolution is told by its name where shapes do not tell it: the
// words for it, or keras.applications' number 0 (conv2_block1_0_conv).
var (
	shortcutName     = regexp.MustCompile(`(?i)down|short|proj|skip|identity|(^|[_/])0_conv`)
	applicationsName = regexp.MustCompile(`(?:^|/)conv\d+_block\d+_[0-3]_conv(?:/|$)`)
)

func (u unit) isShortcut() bool { return shortcutName.MatchString(u.path + "/" + u.name) }

// autoName is a name that Keras gives: base and number.
var autoName = regexp.MustCompile(`^(conv2d|batch_normalization|dense)(?:_(\d+))?$`)

// kindOf tells layers apart by the shapes of their weights.
func kindOf(u unit) (string, error) {
	s := u.shapes
	vector := func(i, n int) bool { return len(s[i]) == 1 && s[i][0] == n }
	switch {
	case slices.ContainsFunc(s, func(dims []int) bool { return slices.Contains(dims, 0) }): // no bytes, of which much could be made
	case len(s[0]) == 4 && (len(s) == 1 || len(s) == 2 && vector(1, s[0][3])):
		return "conv", nil
	case len(s[0]) == 2 && (len(s) == 1 || len(s) == 2 && vector(1, s[0][1])):
		return "dense", nil
	case len(s) == 4 && len(s[0]) == 1 && vector(1, s[0][0]) && vector(2, s[0][0]) && vector(3, s[0][0]):
		return "norm", nil
	}
	return "", fmt.Errorf("weights of shapes %v are those of no layer that is known: a convolution, a batch normalisation of four vectors and a dense layer are", s)
}

// order is a way to put layers into the order in which they are applied.
type order struct {
	about string
	sort  func([]unit) bool // false: it has nothing to say
}

func orders(listed bool) []order {
	if listed {
		return []order{{"the file's list of layers", func([]unit) bool { return true }}}
	}
	return []order{
		{"the numbers in the names that Keras gave", func(u []unit) bool {
			for _, x := range u {
				if x.auto == nil || x.auto[1] != u[0].auto[1] {
					return false
				}
			}
			number := func(x unit) int {
				n, err := strconv.Atoi("0" + x.auto[2])
				if err != nil {
					return math.MaxInt
				}
				return n
			}
			slices.SortStableFunc(u, func(a, b unit) int { return cmp.Compare(number(a), number(b)) })
			return true
		}},
		{"names, outer layers first: compare its answers with Keras's, for convolutions of one shape may be exchanged", func(u []unit) bool {
			slices.SortStableFunc(u, func(a, b unit) int { return byPath(a.path, b.path) })
			return true
		}},
	}
}

// byPath compares paths so that a group's own layers come before those of the
// groups within it.
func byPath(a, b string) int {
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	for i := range min(len(x), len(y)) {
		if lastX, lastY := i == len(x)-1, i == len(y)-1; lastX != lastY {
			if lastX {
				return -1
			}
			return 1
		}
		if c := natural(x[i], y[i]); c != 0 {
			return c
		}
	}
	return 0
}

var numbered = regexp.MustCompile(`^(.*?)_?(\d*)$`)

// natural compares names that end with numbers: block, block_2, block_10.
func natural(a, b string) int {
	x, y := numbered.FindStringSubmatch(a), numbered.FindStringSubmatch(b)
	if x == nil || y == nil {
		return cmp.Compare(a, b)
	}
	return cmp.Or(cmp.Compare(x[1], y[1]), cmp.Compare(len(x[2]), len(y[2])), cmp.Compare(x[2], y[2]))
}

// assemble makes a network of convolutions in order.
func (c *contents) assemble(convs, norms []unit, dense unit, about string) (*artifact.Model, error) {
	for i, n := range norms {
		if n.filters() != convs[i].filters() {
			return nil, fmt.Errorf("%s has %d filters, the batch normalisation %s has %d channels", convs[i].path, convs[i].filters(), n.path, n.filters())
		}
	}
	layers, config, err := cut(convs)
	if err != nil {
		return nil, err
	}
	if config.Classes = dense.shapes[0][1]; dense.shapes[0][0] != convs[len(convs)-1].filters() && dense.shapes[0][0] != config.features() {
		return nil, fmt.Errorf("%s takes %d numbers, the network gives %d", dense.path, dense.shapes[0][0], config.features())
	}
	if len(norms) == 0 {
		config.Norm = model.NoNorm
	}
	biased := 0
	for _, u := range convs {
		biased += len(u.found) - 1
	}
	config.ConvBias = biased > 0
	notes := []string{fmt.Sprintf("the file has weights alone: a network of %s blocks %s with %d filters in the first stage is recognised by shapes, the order by %s",
		config.Block, config.BlocksText(), config.Filters, about)}
	if !slices.ContainsFunc(convs[1:], func(u unit) bool { return !applicationsName.MatchString(u.path + "/" + u.name) }) && config.Block == model.Bottleneck {
		config.Convention, config.StrideFirst, config.Epsilon = model.Torch, true, 1.001e-5
		notes = append(notes, "the names are those of keras.applications' ResNet: its strides (in the first 1×1), padding and ε are taken; "+
			"what Keras offers as its weights was trained on BGR pictures less (103.939, 116.779, 123.68)")
	} else {
		notes = append(notes, "strides, padding and ε are not in a file of weights: Keras's defaults are taken ('same', 1e-3; stride 2 where a stage begins)")
	}
	config.Name = artifact.Name(config.Config)

	tensors := map[string]tensor.Tensor{}
	zeros := 0
	put := func(layer string, u unit, suffixes ...string) error {
		for i, suffix := range suffixes {
			if i >= len(u.found) { // the bias
				tensors[layer+suffix] = tensor.New(tensor.Float32, u.filters())
				zeros++
				continue
			}
			t, err := value(u.found[i])
			if err != nil {
				return err
			}
			tensors[layer+suffix] = t
		}
		return nil
	}
	suffixes := []string{".weight"}
	if config.ConvBias {
		suffixes = append(suffixes, ".bias")
	}
	for i, name := range layers {
		if err := put(name, convs[i], suffixes...); err != nil {
			return nil, err
		}
		if len(norms) > 0 {
			if err := put(normName(name), norms[i], ".weight", ".bias", ".running_mean", ".running_var"); err != nil {
				return nil, err
			}
		}
	}
	if err := put("fc", dense, ".weight", ".bias"); err != nil {
		return nil, err
	}
	if zeros > 0 {
		notes = append(notes, fmt.Sprintf("%d layers have no bias where others have: it is zero", zeros))
	}
	return artifact.Build(config.Config, tensors, notes...)
}

// normName is torchvision's name of the batch normalisation behind a convolution.
func normName(conv string) string {
	if before, ok := strings.CutSuffix(conv, "downsample.0"); ok {
		return before + "downsample.1"
	}
	i := strings.LastIndex(conv, "conv")
	return conv[:i] + "bn" + conv[i+len("conv"):]
}

// shaped is a Config while it is read off shapes.
type shaped struct{ model.Config }

// features is what the last block gives.
func (s shaped) features() int {
	n := s.Filters << (len(s.Blocks) - 1)
	if s.Block == model.Bottleneck {
		n *= 4
	}
	return n
}

// cut gives each convolution its name in a residual network of package model.
func cut(convs []unit) ([]string, shaped, error) {
	var s shaped
	stem := convs[0].shapes[0]
	s.Convention, s.Channels, s.Filters = model.Keras, stem[2], stem[3]
	switch {
	case stem[0] == 3 && stem[1] == 3:
		s.Stem = model.SmallStem
	case stem[0] == 7 && stem[1] == 7:
		s.Stem = model.LargeStem
	default:
		return nil, s, fmt.Errorf("%s: a stem of %d×%d, want 3×3 or 7×7", convs[0].path, stem[0], stem[1])
	}
	if s.Channels != 1 && s.Channels != 3 {
		return nil, s, fmt.Errorf("%s: a stem for %d channels, want 1 or 3", convs[0].path, s.Channels)
	}
	is := func(i, k, in, out int) bool {
		return i < len(convs) && slices.Equal(convs[i].shapes[0], []int{k, k, in, out})
	}
	s.Block = model.Basic
	if is(1, 1, s.Filters, s.Filters) || is(1, 1, s.Filters, 4*s.Filters) {
		s.Block = model.Bottleneck
	}
	type kernel struct {
		name       string
		k, in, out int
	}
	layers := []string{"conv1"}
	projections, changes := 0, 0
	channels, width := s.Filters, s.Filters
	for i := 1; i < len(convs); {
		begin := len(s.Blocks) == 0
		out := width
		kernels := func() []kernel {
			if s.Block == model.Bottleneck {
				return []kernel{{"conv1", 1, channels, width}, {"conv2", 3, width, width}, {"conv3", 1, width, 4 * width}}
			}
			return []kernel{{"conv1", 3, channels, width}, {"conv2", 3, width, width}}
		}
		// A block's convolutions may come in any order; those of equal shape
		// keep theirs.
		match := func(want []kernel) []string {
			if i+len(want) > len(convs) {
				return nil
			}
			names := make([]string, len(want))
			for j := range want {
				found := slices.IndexFunc(want, func(k kernel) bool {
					return !slices.Contains(names, k.name) && is(i+j, k.k, k.in, k.out)
				})
				if found < 0 {
					return nil
				}
				names[j] = want[found].name
			}
			return names
		}
		try := func() []string {
			out = width
			if s.Block == model.Bottleneck {
				out = 4 * width
			}
			if channels != out {
				if names := match(append(kernels(), kernel{"downsample.0", 1, channels, out})); names != nil {
					return names
				}
				if s.Block == model.Bottleneck {
					return nil
				}
			}
			return match(kernels())
		}
		names := try()
		if names == nil || begin {
			if !begin {
				width *= 2
				names = try()
			}
			s.Blocks = append(s.Blocks, 0)
		}
		if names == nil {
			return nil, s, fmt.Errorf("%s, a %d×%d convolution of %d to %d channels, begins no %s block for %d channels", convs[i].path,
				convs[i].shapes[0][0], convs[i].shapes[0][1], convs[i].shapes[0][2], convs[i].filters(), s.Block, channels)
		}
		if err := tellShortcut(names, convs[i:]); err != nil {
			return nil, s, err
		}
		stage := len(s.Blocks)
		for _, name := range names {
			layers = append(layers, fmt.Sprintf("layer%d.%d.%s", stage, s.Blocks[stage-1], name))
		}
		if channels != out {
			changes++
			if slices.Contains(names, "downsample.0") {
				projections++
			}
		}
		s.Blocks[stage-1]++
		i += len(names)
		channels = out
	}
	s.Shortcut = model.Projection
	switch {
	case projections == changes:
	case projections == 0:
		s.Shortcut = model.PadShortcut
	default:
		return nil, s, fmt.Errorf("%d of %d shortcuts that change the width have a convolution", projections, changes)
	}
	return layers, s, nil
}

// tellShortcut corrects the names of a block's convolutions where the shortcut's
// has the shape of another: of a bottleneck's last, when the stage's width is that
// of what comes in. A shortcut before the block's first convolution cannot be
// its last; otherwise its name must tell.
func tellShortcut(names []string, convs []unit) error {
	last, shortcut := slices.Index(names, "conv3"), slices.Index(names, "downsample.0")
	if last < 0 || shortcut < 0 || !slices.Equal(convs[last].shapes[0], convs[shortcut].shapes[0]) {
		return nil
	}
	earlier, later := min(last, shortcut), max(last, shortcut)
	switch a, b := convs[earlier].isShortcut(), convs[later].isShortcut(); {
	case earlier < slices.Index(names, "conv1"), a && !b:
		names[earlier], names[later] = "downsample.0", "conv3"
	case b && !a:
		names[earlier], names[later] = "conv3", "downsample.0"
	default:
		return fmt.Errorf("%s and %s have one shape, and nothing tells which is the shortcut's", convs[earlier].path, convs[later].path)
	}
	return nil
}
