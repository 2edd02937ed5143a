package format

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// What a network cannot be written as says what to do, and leaves no file.
func TestRefusedWrites(t *testing.T) {
	c := model.Config{Name: "preact", Convention: model.Torch, Height: 32, Width: 32, Channels: 3, Classes: 2, Stem: model.LargeStem,
		Block: model.Basic, Shortcut: model.Projection, Blocks: []int{2}, Filters: 2, PreAct: true}
	g, err := c.Graph(1)
	if err != nil {
		t.Fatal(err)
	}
	tensors := map[string]tensor.Tensor{}
	for _, v := range g.Variables {
		tensors[v.Name] = tensor.New(tensor.Float32, model.FileShape(v.Shape)...)
	}
	m, err := artifact.Build(c, tensors)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Complete(m, Given{}); err != nil {
		t.Fatal(err)
	}
	for about, x := range map[string]struct {
		name    string
		options artifact.WriteOptions
		hint    string
	}{
		"a pool of what is not positive":     {"x.keras", artifact.WriteOptions{}, "formats that pad with nothing: onnx"},
		"no convolution before a batch norm": {"x.onnx", artifact.WriteOptions{FoldNorm: true}, "leave --fold-bn away"},
	} {
		path := filepath.Join(t.TempDir(), x.name)
		err := Write(path, "", m, x.options)
		if err == nil || !strings.HasPrefix(err.Error(), "writing "+path) || !strings.HasPrefix(hint.Of(err), x.hint) {
			t.Errorf("%s: error %v, hint %q", about, err, hint.Of(err))
		}
		if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) > 0 {
			t.Errorf("%s: there is %s", about, entries[0].Name())
		}
	}
	if err := Write(filepath.Join(t.TempDir(), "x.onnx"), "", m, artifact.WriteOptions{}); err != nil {
		t.Error(err)
	}
}
