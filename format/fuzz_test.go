package format

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/model"
)

// FuzzModel: whatever weights and metadata say, there is a model that fits
// together, or an error. A model's metadata are read again as they are written.
func FuzzModel(f *testing.F) {
	accepts := func(data []byte) bool {
		_, err := modelOf(data)
		return err == nil
	}
	var seeds [][]byte
	seed := func(tensors []safetensors.Named, metadata map[string]string) {
		var b bytes.Buffer
		if err := safetensors.Write(&b, tensors, metadata); err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, b.Bytes())
	}
	m := tiny(f, model.Torch)
	if _, err := Complete(m, Given{}); err != nil {
		f.Fatal(err)
	}
	if err := MakeGolden(f.Context(), m, ref.New()); err != nil {
		f.Fatal(err)
	}
	metadata, err := m.WriteMetadata()
	if err != nil {
		f.Fatal(err)
	}
	seed(m.Tensors, metadata)
	seed(m.StateDict(), nil)
	seed(m.Tensors[1:], nil)
	for key, bad := range map[string]string{"model": `{}`, "golden": `[{"picture":"","logits":[]}]`, "preprocess": `{"height":12,"width":12,"channels":3,"resize":"crop"}`, "classes": "[]"} {
		changed := map[string]string{key: bad}
		for k, v := range metadata {
			if k != key {
				changed[k] = v
			}
		}
		seed(m.Tensors, changed)
	}
	good := 0
	for _, s := range seeds {
		f.Add(s)
		if accepts(s) {
			good++
		}
	}
	if good < 2 || len(seeds)-good < 2 {
		f.Fatalf("%d of %d seeds are accepted", good, len(seeds))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := modelOf(data)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of more than one line: %v", err)
			}
			return
		}
		g, err := file.Graph()
		if err != nil || len(g.Variables) != len(file.Tensors) {
			t.Fatalf("%d tensors for a network of %d: %v", len(file.Tensors), len(g.Variables), err)
		}
		text, err := file.WriteMetadata()
		if err != nil {
			t.Fatal(err)
		}
		again, err := fromTensors(file.Tensors, text)
		if err != nil {
			t.Fatalf("metadata that were written are not read: %v", err)
		}
		sameModel(t, again, file)
	})
}

// modelOf reads and completes a model in memory.
func modelOf(data []byte) (*artifact.Model, error) {
	file, err := safetensors.Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	m, err := fromTensors(file.Tensors(), file.Metadata)
	if err == nil {
		_, err = Complete(m, Given{})
	}
	return m, err
}

// FuzzSide: whatever Hugging Face's JSON files say, what is taken of them fits the
// network, or there is an error.
func FuzzSide(f *testing.F) {
	dir := f.TempDir()
	c := tiny(f, model.Torch).Config
	c.Height, c.Width = 0, 0
	read := func(t testing.TB, config, processor string) (*artifact.Model, error) {
		m := &artifact.Model{Config: c}
		for name, text := range map[string]string{"config.json": config, "preprocessor_config.json": processor} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		return m, readSide(dir, m)
	}
	good := 0
	seeds := [][2]string{
		{timmJSON, `{}`}, {transformersJSON, processorJSON}, {`{}`, `{"size": {"height": 16, "width": 18}, "do_rescale": false}`}, {`{}`, `{"size": {"shortest_edge": 9}}`},
		{`[]`, `{}`}, {`{`, ``}, {`{"pretrained_cfg": {"input_size": [3, -1, 4], "mean": [0]}}`, `{}`}, {`{}`, `{"size": 99999999}`}, {`{"id2label": {"x": "y"}}`, `{"size": "a"}`},
	}
	for _, s := range seeds {
		f.Add(s[0], s[1])
		if _, err := read(f, s[0], s[1]); err == nil {
			good++
		}
	}
	if good < 3 || len(seeds)-good < 3 {
		f.Fatalf("%d of %d seeds are accepted", good, len(seeds))
	}
	f.Fuzz(func(t *testing.T, config, processor string) {
		m, err := read(t, config, processor)
		if err != nil {
			return
		}
		if m.Classes != nil && len(m.Classes) != m.Config.Classes {
			t.Errorf("%d names for %d classes", len(m.Classes), m.Config.Classes)
		}
		if p := m.Preprocess; p != nil && (p.Check() != nil || p.Height != m.Config.Height || p.Width != m.Config.Width) {
			t.Errorf("preprocessing %+v for %+v", *p, m.Config)
		}
	})
}
