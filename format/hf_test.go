package format

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// folder writes weights without metadata and JSON files beside them.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := safetensors.Write(f, tiny(t, model.Torch).StateDict(), map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The JSON files of timm (from its model card of resnet18.a1_in1k, shortened) and
// of transformers (microsoft/resnet-18).
const (
	timmJSON = `{"architecture": "resnet18", "num_classes": 4, "label_names": ["w", "x", "y", "z"], "pretrained_cfg": {"tag": "a1_in1k",
		"input_size": [3, 24, 28], "crop_pct": 0.95, "crop_mode": "center", "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}`
	transformersJSON = `{"model_type": "resnet", "depths": [2, 2, 2, 2], "id2label": {"0": "a", "3": "d", "1": "b", "2": "c"}}`
	processorJSON    = `{"crop_pct": 0.875, "do_normalize": true, "do_resize": true, "feature_extractor_type": "ConvNextFeatureExtractor",
		"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 3, "size": 20}`
)

func processorOnly(text string) map[string]string {
	return map[string]string{"config.json": "{}", "preprocessor_config.json": text}
}

// Pictures are resized bicubically here; who was trained otherwise is told.
func TestReadHFInterpolation(t *testing.T) {
	for about, c := range map[string]struct {
		files map[string]string
		told  bool
	}{
		"timm, bicubic":          {map[string]string{"config.json": timmJSON}, false},
		"timm, bilinear":         {map[string]string{"config.json": strings.Replace(timmJSON, "bicubic", "bilinear", 1)}, true},
		"timm, border":           {map[string]string{"config.json": strings.Replace(timmJSON, "center", "border", 1)}, false},
		"timm, nothing":          {map[string]string{"config.json": strings.Replace(timmJSON, `"interpolation": "bicubic", `, "", 1)}, false},
		"transformers, bicubic":  {processorOnly(processorJSON), false},
		"transformers, bilinear": {processorOnly(strings.Replace(processorJSON, `"resample": 3`, `"resample": 2`, 1)), true},
	} {
		m, err := Read(folder(t, c.files))
		if err != nil {
			t.Fatal(err)
		}
		if told := strings.Contains(strings.Join(m.Recognised, "\n"), "border has the colour of the mean"); told != strings.Contains(about, "border") {
			t.Errorf("%s: told of the border %v: %q", about, told, m.Recognised)
		}
		if told := strings.Contains(strings.Join(m.Recognised, "\n"), "another interpolation than bicubic"); told != c.told {
			t.Errorf("%s: told %v: %q", about, told, m.Recognised)
		}
	}
}

func TestReadHF(t *testing.T) {
	timm, transformers, processor := timmJSON, transformersJSON, processorJSON
	for about, c := range map[string]struct {
		files   map[string]string
		classes string
		want    *loader.Preprocess
	}{
		"timm": {map[string]string{"config.json": timm}, "w x y z", &loader.Preprocess{Height: 24, Width: 28, Channels: 3, Resize: loader.Crop,
			Scale: 1.0 / 255, Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225}, CropPct: 0.95}},
		"border": {map[string]string{"config.json": strings.Replace(timm, "center", "border", 1)}, "w x y z", &loader.Preprocess{Height: 24, Width: 28, Channels: 3,
			Resize: loader.Letterbox, Scale: 1.0 / 255, Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225}}},
		"transformers": {map[string]string{"config.json": transformers, "preprocessor_config.json": processor}, "a b c d", &loader.Preprocess{Height: 20, Width: 20,
			Channels: 3, Resize: loader.Crop, Scale: 1.0 / 255, Mean: []float64{0.5, 0.4, 0.3}, Std: []float64{0.2, 0.3, 0.4}, CropPct: 0.875}},
		"ConvNext's default": {processorOnly(`{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 64}, "do_normalize": false}`), "", &loader.Preprocess{
			Height: 64, Width: 64, Channels: 3, Resize: loader.Crop, Scale: 1.0 / 255, CropPct: 0.875}},
		"ConvNext of 384": {processorOnly(`{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "crop_pct": 0.875, "do_normalize": false}`), "", &loader.Preprocess{
			Height: 384, Width: 384, Channels: 3, Resize: loader.Squash, Scale: 1.0 / 255}},
		"Bit": {processorOnly(`{"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "do_center_crop": true, "crop_size": {"height": 224, "width": 224}, "do_normalize": false}`), "", &loader.Preprocess{
			Height: 224, Width: 224, Channels: 3, Resize: loader.Crop, Scale: 1.0 / 255, CropPct: 0.875}},
		"old ViT": {processorOnly(`{"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "do_normalize": false}`), "", &loader.Preprocess{
			Height: 32, Width: 32, Channels: 3, Resize: loader.Squash, Scale: 1.0 / 255}},
		"squash": {map[string]string{"config.json": "{}", "preprocessor_config.json": `{"size": {"height": 16, "width": 18}, "do_rescale": false, "do_normalize": false, "image_mean": [1, 2, 3]}`},
			"", &loader.Preprocess{Height: 16, Width: 18, Channels: 3, Resize: loader.Squash, Scale: 1}},
		"nothing":       {map[string]string{"config.json": `{"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2", "3": "LABEL_3"}}`}, "", nil},
		"other classes": {map[string]string{"config.json": `{"label_names": ["a"], "id2label": {"0": "a", "9": "b", "1": "c", "2": "d"}}`}, "", nil},
	} {
		dir := folder(t, c.files)
		for _, path := range []string{dir, filepath.Join(dir, "model.safetensors")} { // the side files of one file too
			m, err := Read(path)
			if err != nil {
				t.Errorf("%s: %v", about, err)
				continue
			}
			got, _ := json.Marshal(m.Preprocess)
			want, _ := json.Marshal(c.want)
			if strings.Join(m.Classes, " ") != c.classes || string(got) != string(want) {
				t.Errorf("%s: classes %v, preprocessing %s; want %s, %s", about, m.Classes, got, c.classes, want)
			}
			if c.want != nil && m.Config.Height != c.want.Height {
				t.Errorf("%s: height %d", about, m.Config.Height)
			}
		}
	}
	for about, files := range map[string]map[string]string{
		"no JSON":   {"config.json": "{"},
		"a mean":    {"config.json": strings.Replace(timm, "0.485, ", "", 1)},
		"no folder": {"config.json": "[]"},
	} {
		if m, err := Read(folder(t, files)); err == nil {
			t.Errorf("%s: read as %+v", about, m)
		}
	}
}

// Networks of other functions with the same names and shapes.
func TestReadHFNetwork(t *testing.T) {
	timm := func(edit string) string { return strings.Replace(timmJSON, `"architecture": "resnet18"`, edit, 1) }
	for about, c := range map[string]struct{ config, err, told string }{
		"relu":              {`{"model_type": "resnet", "hidden_act": "relu"}`, "", ""},
		"gelu":              {`{"model_type": "resnet", "hidden_act": "gelu"}`, `hidden_act is "gelu"`, ""},
		"another model":     {`{"model_type": "bit", "hidden_act": "gelu"}`, "", ""},
		"first stage":       {`{"model_type": "resnet", "downsample_in_first_stage": true}`, "downsample_in_first_stage", ""},
		"basic blocks":      {`{"model_type": "resnet", "downsample_in_bottleneck": true}`, "", ""},
		"timm's blur":       {timm(`"architecture": "resnetblur50"`), "resnetblur50 filters", ""},
		"timm's aa":         {timm(`"architecture": "seresnetaa50d"`), "seresnetaa50d filters", ""},
		"timm's activation": {timm(`"architecture": "resnet18", "model_args": {"in_chans": 3, "act_layer": "silu"}`), "model_args has act_layer silu, want timm's relu", ""},
		"timm's defaults":   {timm(`"architecture": "resnet18", "model_args": {"global_pool": "avg", "output_stride": 32, "aa_layer": null, "drop_rate": 0.1}`), "", ""},
		"timm's stride":     {timm(`"architecture": "resnet18", "model_args": {"output_stride": 8}`), "model_args has output_stride 8, want timm's 32", ""},
		"timm's other name": {timm(`"architecture": "tv_resnet18"`), "", "config.json calls the network tv_resnet18"},
	} {
		m, err := Read(folder(t, map[string]string{"config.json": c.config}))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", about, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", about, err)
		} else if !strings.Contains(strings.Join(m.Recognised, "\n"), c.told) {
			t.Errorf("%s: told %q", about, m.Recognised)
		}
	}
	m := &artifact.Model{Config: model.Config{Block: model.Bottleneck, Blocks: []int{1}, Filters: 4}}
	if err := (hfConfig{ModelType: "resnet", DownsampleBottleneck: true}).network(m); err != nil || !m.Config.StrideFirst || len(m.Recognised) != 1 {
		t.Errorf("%+v, %v", m, err)
	}
}

// What neither timm nor transformers can do the model card says.
func TestModelCardSquashes(t *testing.T) {
	for about, c := range map[string]struct {
		pre          loader.Preprocess
		transformers bool
		timm         bool
	}{
		"square crop": {loader.Preprocess{Height: 32, Width: 32, Channels: 3, Resize: loader.Crop, Scale: 1}, false, false},
		"squash":      {loader.Preprocess{Height: 32, Width: 40, Channels: 3, Resize: loader.Squash, Scale: 1}, false, false},
		"wide crop":   {loader.Preprocess{Height: 32, Width: 40, Channels: 3, Resize: loader.Crop, Scale: 1}, true, false},
		"letterbox":   {loader.Preprocess{Height: 32, Width: 32, Channels: 3, Resize: loader.Letterbox, Scale: 1, Mean: []float64{.5, .5, .5}}, true, true},
	} {
		m := tiny(t, model.Torch)
		m.Preprocess = &c.pre
		card := modelCard(m, "")
		if strings.Contains(card, "transformers cannot do that") != c.transformers || strings.Contains(card, "nor can timm") != c.timm {
			t.Errorf("%s: %s", about, card)
		}
	}
}

// An architecture is claimed exactly where timm has the network; any other comes
// with the module that builds it.
func TestWriteHF(t *testing.T) {
	photo := func(edit func(*model.Config)) model.Config {
		c, err := model.Named("resnet18", model.Torch, 96, 96, 3, 7)
		if err != nil {
			t.Fatal(err)
		}
		edit(&c)
		return c
	}
	for about, c := range map[string]struct {
		config model.Config
		claims bool
	}{
		"timm's":   {photo(func(*model.Config) {}), true},
		"keras":    {photo(func(c *model.Config) { c.Convention = model.Keras }), false},
		"stem":     {photo(func(c *model.Config) { c.Stem = model.SmallStem }), false},
		"filters":  {photo(func(c *model.Config) { c.Filters = 8 }), false},
		"blocks":   {photo(func(c *model.Config) { c.Blocks = []int{1, 1, 1, 1} }), false},
		"grey":     {photo(func(c *model.Config) { c.Channels = 1 }), false},
		"biases":   {photo(func(c *model.Config) { c.ConvBias = true }), false},
		"ε":        {photo(func(c *model.Config) { c.Epsilon = 1e-4 }), false},
		"resnet20": {tiny(t, model.Torch).Config, false},
	} {
		g, err := c.config.Graph(1)
		if err != nil {
			t.Fatal(err)
		}
		tensors := map[string]tensor.Tensor{}
		for _, v := range g.Variables {
			tensors[v.Name] = tensor.New(tensor.Float32, model.FileShape(v.Shape)...)
		}
		m, err := artifact.Build(c.config, tensors)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Complete(m, Given{CropPct: 0.875}); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "out")
		if err := Write(dir, "hf", m, artifact.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		config, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		processor, err := os.ReadFile(filepath.Join(dir, "preprocessor_config.json"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(config), `"crop_pct": 0.875`) {
			t.Errorf("%s: config.json has another crop_pct: %s", about, config)
		}
		var p hfProcessor
		if err := json.Unmarshal(processor, &p); err != nil {
			t.Fatal(err)
		}
		// ⌊96/0.875⌋ = 109, as timm and transformers compute it.
		if pre, pct := p.geometry(); pre.Resize != loader.Crop || pre.Height != c.config.Height || int(float64(pre.Height)/pct) != int(float64(pre.Height)/0.875) {
			t.Errorf("%s: preprocessor_config.json crops %v of %+v: %s", about, pct, pre, processor)
		}
		card, err := os.ReadFile(filepath.Join(dir, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		claims := strings.Contains(string(config), `"architecture": "resnet18"`) && strings.Contains(string(card), "library_name: timm")
		says := strings.Contains(string(config), "architecture") || strings.Contains(string(card), "timm.create_model")
		if claims != c.claims || says != c.claims || slices.Contains(names, "model.py") == c.claims {
			t.Errorf("%s: claims %v, says %v, files %v", about, claims, says, names)
		}
		if !strings.HasPrefix(string(card), "---\ntags:\n- image-classification\n") {
			t.Errorf("%s: the card begins %.60q", about, card)
		}
		if err := Write(dir, "hf", m, artifact.WriteOptions{}); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("%s: written over: %v", about, err)
		}
	}
}
