package format

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/torch"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
)

// hfFormat is a folder as the Hugging Face hub has it: weights, config.json in
// timm's form, preprocessor_config.json in that of transformers, a model card.
var hfFormat = Format{
	Name: "hf", About: "Hugging Face folders (config.json, model.safetensors, README.md)",
	Detect: func(path string, head []byte) bool {
		_, err := hfWeights(path)
		return head == nil && err == nil
	},
	Read: readHF, Write: writeHF,
	Inspect: func(path string) (artifact.Listing, error) {
		weights, err := hfWeights(path)
		if err != nil {
			return artifact.Listing{}, err
		}
		l, err := hfFile(weights).Inspect(weights)
		l.Notes = append([]string{"weights: " + filepath.Base(weights)}, l.Notes...)
		return l, err
	},
}

// hfWeights is the file of weights in a folder, by timm's order of preference.
func hfWeights(dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, "config.json")); err != nil {
		return "", err
	}
	for _, name := range []string{"model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: neither model.safetensors nor pytorch_model.bin: %w", dir, fs.ErrNotExist)
}

func readHF(dir string) (*artifact.Model, error) {
	weights, err := hfWeights(dir)
	if err != nil {
		return nil, err
	}
	m, err := hfFile(weights).Read(weights)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(weights), err)
	}
	return m, readSide(dir, m)
}

// hfFile is the format of a folder's file of weights.
func hfFile(weights string) Format {
	if filepath.Ext(weights) == ".safetensors" {
		return safetensorsFormat
	}
	return torchFormat
}

// hfConfig is what is read of config.json, timm's or transformers'.
type hfConfig struct {
	Architecture string            `json:"architecture"`
	LabelNames   []string          `json:"label_names"`
	IDToLabel    map[string]string `json:"id2label"`
	Pretrained   hfPretrained      `json:"pretrained_cfg"`

	// What makes another network of the same weights: of timm, and of transformers.
	ModelArgs            map[string]any `json:"model_args"`
	ModelType            string         `json:"model_type"`
	HiddenAct            string         `json:"hidden_act"`
	DownsampleFirst      bool           `json:"downsample_in_first_stage"`
	DownsampleBottleneck bool           `json:"downsample_in_bottleneck"`
}

// timmDefaults are the arguments of timm's ResNets that weights do not show.
var timmDefaults = []struct {
	name  string
	value any
}{{"act_layer", "relu"}, {"aa_layer", "none"}, {"global_pool", "avg"}, {"output_stride", 32.0}, {"replace_stem_pool", false}}

// network compares what c says of the network with m, which was recognised by names
// and shapes: those of timm's resnetblur50 and of a resnet50 with SiLU are
// resnet50's. What package model does not build is an error.
func (c hfConfig) network(m *artifact.Model) error {
	if c.ModelType == "resnet" { // transformers' ResNetConfig
		switch {
		case c.HiddenAct != "" && c.HiddenAct != "relu":
			return fmt.Errorf("config.json: hidden_act is %q, want relu", c.HiddenAct)
		case c.DownsampleFirst:
			return errors.New("config.json: downsample_in_first_stage is true, want false")
		case c.DownsampleBottleneck && m.Config.Block == model.Bottleneck && !m.Config.StrideFirst:
			m.Config.StrideFirst = true
			m.Config.Name = artifact.Name(m.Config)
			m.Recognised = append(m.Recognised, "config.json has the stride in the first convolution of a block: "+m.Config.Name)
		}
		return nil
	}
	for _, filtered := range []string{"blur", "aa"} {
		if strings.Contains(c.Architecture, "resnet"+filtered) {
			return fmt.Errorf("config.json: timm's %s filters where it strides, which no network here does", c.Architecture)
		}
	}
	for _, arg := range timmDefaults {
		if got := c.ModelArgs[arg.name]; got != nil && got != arg.value {
			return fmt.Errorf("config.json: model_args has %s %v, want timm's %v", arg.name, got, arg.value)
		}
	}
	if c.Architecture != "" && c.Architecture != m.Config.Name {
		m.Recognised = append(m.Recognised, fmt.Sprintf("config.json calls the network %s; taken for %s, by names and shapes", c.Architecture, m.Config.Name))
	}
	return nil
}

// hfPretrained is timm's pretrained_cfg.
type hfPretrained struct {
	InputSize     []int     `json:"input_size"` // C, H, W
	CropPct       float64   `json:"crop_pct"`
	CropMode      string    `json:"crop_mode"`
	Interpolation string    `json:"interpolation"`
	Mean          []float64 `json:"mean"`
	Std           []float64 `json:"std"`
}

// hfProcessor is preprocessor_config.json of transformers.
type hfProcessor struct {
	Type          string          `json:"image_processor_type"`
	OldType       string          `json:"feature_extractor_type"`
	Size          json.RawMessage `json:"size"`
	DoCenterCrop  bool            `json:"do_center_crop"`
	CropSize      json.RawMessage `json:"crop_size"`
	Resample      *int            `json:"resample"` // Pillow's number: 3 is bicubic
	CropPct       float64         `json:"crop_pct"`
	DoRescale     *bool           `json:"do_rescale"`
	RescaleFactor float64         `json:"rescale_factor"`
	DoNormalize   *bool           `json:"do_normalize"`
	Mean          []float64       `json:"image_mean"`
	Std           []float64       `json:"image_std"`
}

// maxSide bounds a side file.
const maxSide = 16 << 20

// readSide fills what m does not say about classes and preprocessing from the
// files beside its weights, in dir: config.json and preprocessor_config.json as
// timm and transformers write them. Missing files are no error. What was read is
// told in m.Recognised.
func readSide(dir string, m *artifact.Model) error {
	var c hfConfig
	var p hfProcessor
	hasConfig, err := readSideFile(filepath.Join(dir, "config.json"), maxSide, &c)
	if err != nil {
		return err
	}
	hasProcessor, err := readSideFile(filepath.Join(dir, "preprocessor_config.json"), maxSide, &p)
	if err != nil {
		return err
	}
	note := func(format string, args ...any) { m.Recognised = append(m.Recognised, fmt.Sprintf(format, args...)) }
	if hasConfig {
		if err := c.network(m); err != nil {
			return err
		}
	}
	if m.Classes == nil && hasConfig {
		if names := c.classes(m.Config.Classes); names != nil {
			m.Classes = names
			note("config.json has the names of the classes")
		}
	}
	if m.Preprocess != nil {
		return nil
	}
	var pre loader.Preprocess
	from, pct, bicubic := "", 0.0, true
	switch t := c.Pretrained; {
	case hasConfig && len(t.Mean) > 0 && len(t.InputSize) == 3:
		pre = loader.Preprocess{Height: t.InputSize[1], Width: t.InputSize[2], Channels: t.InputSize[0], Resize: loader.Crop, Scale: 1.0 / 255, Mean: t.Mean, Std: t.Std}
		for _, mode := range cropModes {
			if t.CropMode == mode.timm {
				pre.Resize = mode.policy
			}
		}
		from, pct = "config.json", t.CropPct
		if t.Interpolation != "" {
			bicubic = t.Interpolation == "bicubic"
		}
	case hasProcessor:
		if pre, pct = p.geometry(); pre.Height == 0 {
			return nil
		}
		pre.Channels, pre.Scale = m.Config.Channels, cmp.Or(p.RescaleFactor, 1.0/255)
		bicubic = p.Resample == nil || *p.Resample == 3
		if p.DoRescale != nil && !*p.DoRescale {
			pre.Scale = 1
		}
		if p.DoNormalize == nil || *p.DoNormalize {
			pre.Mean, pre.Std = p.Mean, p.Std
		}
		from = "preprocessor_config.json"
	default:
		return nil
	}
	if pct != 1 && pre.Resize == loader.Crop {
		pre.CropPct = pct
	}
	if err := pre.Check(); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	note("%s has the preprocessing", from)
	if pre.Resize == loader.Letterbox && slices.Max(append(pre.Mean, 0)) > 0 {
		note("timm's border has the colour of the mean, here it is black")
	}
	if !bicubic {
		note("%s wants another interpolation than bicubic, which is what pictures are resized with here", from)
	}
	m.Preprocess = &pre
	if m.Config.Height == 0 || m.Config.Width == 0 {
		m.Config.Height, m.Config.Width = pre.Height, pre.Width
	}
	return m.Check()
}

// readSideFile fills v from a file of JSON that may be missing and is refused
// beyond limit bytes.
func readSideFile(path string, limit int64, v any) (found bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return false, fmt.Errorf("%s: %d bytes, want a file of %d at most", path, info.Size(), limit)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, hint.Wrap(fmt.Errorf("%s: %w", path, err), "if it does not belong to the weights beside it, put these into a folder of their own")
	}
	return true, nil
}

// classes are the names of n classes in their order, nil where there are not so
// many.
func (c hfConfig) classes(n int) []string {
	if len(c.LabelNames) == n {
		return c.LabelNames
	}
	names := make([]string, n)
	for id, name := range c.IDToLabel {
		i, err := strconv.Atoi(id)
		if err != nil || i < 0 || i >= n {
			return nil
		}
		names[i] = name
	}
	if len(c.IDToLabel) != n || slices.Contains(names, "") {
		return nil
	}
	for i, name := range names { // transformers' LABEL_0 … are no names
		if name != fmt.Sprintf("LABEL_%d", i) {
			return names
		}
	}
	return nil
}

// geometry is size and policy, with the share of the shorter side that a crop
// leaves, of transformers' processors for images: one that squashes to a height and a
// width (ViT), one that scales the shorter side and crops (Bit, CLIP), and one with a
// crop_pct that squashes from 384 pixels on (ConvNext, which its ResNets have).
func (p hfProcessor) geometry() (pre loader.Preprocess, pct float64) {
	kind := cmp.Or(p.Type, p.OldType)
	size, square := hfSize(p.Size)
	pre = loader.Preprocess{Height: size[0], Width: size[1], Resize: loader.Crop}
	convNext := strings.HasPrefix(kind, "ConvNext")
	crop, _ := hfSize(p.CropSize)
	switch side := size[0]; {
	case square, strings.HasPrefix(kind, "ViT"), convNext && side >= 384:
		pre.Resize = loader.Squash
	case convNext:
		pct = cmp.Or(p.CropPct, 224./256)
	case p.DoCenterCrop && crop[0] > 0 && crop[0] == crop[1] && crop[0] <= side:
		pre.Height, pre.Width, pct = crop[0], crop[1], float64(crop[0])/float64(side)
	default:
		pct = p.CropPct
	}
	return pre, pct
}

// hfSize reads 224, {"shortest_edge": 224} or {"height": 224, "width": 224}; square
// is the last one.
func hfSize(text json.RawMessage) (hw [2]int, square bool) {
	var side int
	if json.Unmarshal(text, &side) == nil {
		return [2]int{side, side}, false
	}
	var s struct {
		ShortestEdge int `json:"shortest_edge"`
		Height       int `json:"height"`
		Width        int `json:"width"`
	}
	if json.Unmarshal(text, &s) != nil {
		return hw, false
	}
	if s.ShortestEdge > 0 {
		return [2]int{s.ShortestEdge, s.ShortestEdge}, false
	}
	return [2]int{s.Height, s.Width}, true
}

// writeHF writes the folder. A network that timm does not have gets model.py and
// no architecture, so that nobody builds another one for these weights.
func writeHF(dir string, m *artifact.Model, o artifact.WriteOptions) (err error) {
	if err := o.Refuse("hf", artifact.WriteOptions{}); err != nil {
		return err
	}
	if m.Preprocess == nil {
		return errors.New("preprocessing is not known")
	}
	architecture := torch.Architecture(m.Config)
	python := ""
	if architecture == "" {
		if python, err = torch.Module(m.Config); err != nil {
			return err
		}
	}
	info, missing := os.Stat(dir)
	if missing == nil && !info.IsDir() {
		return errors.New("it is a file, want a folder that is empty or not there")
	}
	if err := atomicfile.MkdirAll(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("not empty, it holds %s", entries[0].Name())
	}
	defer func() {
		if err != nil { // nothing half-written stays
			for _, name := range []string{"README.md", "config.json", "preprocessor_config.json", "model.py", "model.safetensors"} {
				os.Remove(filepath.Join(dir, name))
			}
			if missing != nil {
				os.Remove(dir)
			}
		}
	}()
	config, err := indented(hfConfigOf(m, architecture))
	if err != nil {
		return err
	}
	processor, err := indented(hfProcessorOf(*m.Preprocess))
	if err != nil {
		return err
	}
	files := map[string][]byte{"README.md": []byte(modelCard(m, architecture)), "config.json": config, "preprocessor_config.json": processor}
	if python != "" {
		files["model.py"] = []byte(python)
	}
	for name, content := range files {
		if err := atomicfile.WriteFile(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	err = atomicfile.Write(filepath.Join(dir, "model.safetensors"), func(w io.Writer) error { return writeSafetensors(w, m) })
	if err == nil && o.Check != nil {
		err = o.Check(dir)
	}
	return err
}

func indented(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

// cropModes are timm's names of the resize policies.
var cropModes = []struct{ policy, timm string }{{loader.Crop, "center"}, {loader.Squash, "squash"}, {loader.Letterbox, "border"}}

// hfConfigOf is config.json: timm's where timm has the network.
func hfConfigOf(m *artifact.Model, architecture string) map[string]any {
	c, p := m.Config, *m.Preprocess
	mean, std := channelwise(p.Mean, 0, p.Channels), channelwise(p.Std, 1, p.Channels)
	mode := ""
	for _, m := range cropModes {
		if m.policy == p.Resize {
			mode = m.timm
		}
	}
	pretrained := map[string]any{
		"input_size": []int{c.Channels, c.Height, c.Width}, "fixed_input_size": false, "interpolation": "bicubic",
		"crop_pct": cmp.Or(p.CropPct, 1), "crop_mode": mode, "mean": mean, "std": std, "num_classes": c.Classes,
		"first_conv": "conv1", "classifier": "fc", "license": "", "origin_url": "",
	}
	features := c.Filters << (len(c.Blocks) - 1)
	if c.Block == model.Bottleneck {
		features *= 4
	}
	config := map[string]any{"num_classes": c.Classes, "num_features": features, "global_pool": "avg", "pretrained_cfg": pretrained, "residual": c}
	if architecture != "" {
		config["architecture"] = architecture
	}
	if m.Classes != nil {
		config["label_names"] = m.Classes
	}
	return config
}

// hfProcessorOf is preprocessor_config.json. (x·rescale_factor - mean)/std is
// what a loader.Preprocess says too. There is no letterbox, and no crop that is not
// square: that squashes there, and the model card says so.
func hfProcessorOf(p loader.Preprocess) map[string]any {
	normalize := len(p.Mean)+len(p.Std) > 0
	config := map[string]any{
		"do_resize": true, "resample": 3, "do_rescale": true, "rescale_factor": p.Scale, "do_normalize": normalize,
		"image_mean": channelwise(p.Mean, 0, p.Channels), "image_std": channelwise(p.Std, 1, p.Channels),
	}
	if p.Resize == loader.Crop && p.Height == p.Width { // not ConvNext's, which squashes from 384 pixels on
		config["image_processor_type"] = "BitImageProcessor"
		config["size"] = map[string]int{"shortest_edge": int(float64(p.Height) / cmp.Or(p.CropPct, 1))}
		config["do_center_crop"], config["crop_size"] = true, map[string]int{"height": p.Height, "width": p.Width}
		config["do_convert_rgb"] = p.Channels == 3
	} else {
		config["image_processor_type"] = "ViTImageProcessor"
		config["size"] = map[string]int{"height": p.Height, "width": p.Width}
	}
	return config
}

// channelwise is numbers or, where there are none, the same for each channel.
func channelwise(numbers []float64, otherwise float64, channels int) []float64 {
	if len(numbers) > 0 {
		return numbers
	}
	all := make([]float64, channels)
	for i := range all {
		all[i] = otherwise
	}
	return all
}

// modelCard is README.md with the front matter of the hub.
func modelCard(m *artifact.Model, architecture string) string {
	c := m.Config
	var b strings.Builder
	library := "pytorch"
	if architecture != "" {
		library = "timm"
	}
	fmt.Fprintf(&b, "---\ntags:\n- image-classification\n- %s\n- residual\npipeline_tag: image-classification\nlibrary_name: %s\n---\n\n", library, library)
	fmt.Fprintf(&b, "# %s\n\nA residual network for images of %d×%d with %d channels and %d classes, exported by\n[residual](https://github.com/residual-ml/residual).\n\n", c.Name, c.Height, c.Width, c.Channels, c.Classes)
	parameters := 0
	for _, n := range m.Tensors {
		parameters += n.Tensor.Len()
	}
	fmt.Fprintf(&b, "- %s blocks %s, %d filters in the first stage, %d numbers in all (moving statistics included)\n", c.Block, strings.Trim(fmt.Sprint(c.Blocks), "[]"), c.Filters, parameters)
	epsilon := fmt.Sprintf("ε %g", c.BatchNormEpsilon())
	if c.Norm == model.NoNorm {
		epsilon = "no batch normalisation"
	}
	fmt.Fprintf(&b, "- convention of %s: %s\n", map[model.Convention]string{model.Keras: "Keras (padding 'same')", model.Torch: "PyTorch (symmetric padding)"}[c.Convention], epsilon)
	fmt.Fprintf(&b, "- preprocessing: %s\n", Describe(*m.Preprocess))
	if p := m.Preprocess; p.Resize != loader.Squash && hfProcessorOf(*p)["crop_size"] == nil {
		fmt.Fprintf(&b, "- transformers cannot do that: preprocessor_config.json squashes pictures to %d×%d\n", p.Height, p.Width)
		if p.Resize == loader.Letterbox && len(p.Mean) > 0 {
			b.WriteString("- nor can timm quite: the bars are black, its own have the colour of the mean\n")
		}
	}
	if m.Classes != nil {
		shown := m.Classes
		more := ""
		if len(shown) > 20 {
			shown, more = shown[:20], ", …"
		}
		fmt.Fprintf(&b, "- classes: %s%s\n", strings.Join(shown, ", "), more)
	}
	if architecture != "" {
		fmt.Fprintf(&b, "\nIt is timm's and torchvision's %s:\n\n    import timm\n    net = timm.create_model(%q, num_classes=%d, checkpoint_path=\"model.safetensors\")\n", architecture, architecture, c.Classes)
	} else {
		b.WriteString("\nNeither torchvision nor timm has this network; model.py builds it:\n\n    from model import load\n    net = load(\"model.safetensors\")\n")
	}
	b.WriteString("\nThe metadata of model.safetensors hold golden vectors: pictures with the network's logits. `residual verify` runs\nthem again.\n")
	return b.String()
}
