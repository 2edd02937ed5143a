package format

import (
	"bytes"
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
