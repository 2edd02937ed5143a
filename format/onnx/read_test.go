package onnx

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/golden"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// expectation is what golden/onnx_files.py wrote of a file.
type expectation struct {
	Note      string    `json:"note"`
	Opset     int64     `json:"opset"`
	Operators []string  `json:"operators"`
	Size      int       `json:"size"`
	NHWC      bool      `json:"nhwc"`
	Scale     float64   `json:"scale"` // of the pictures that onnxruntime got
	Output    []float64 `json:"output"`
	Exact     bool      `json:"exact"` // the tensors are golden.Weight's
}

func expectations(t testing.TB) map[string]expectation {
	t.Helper()
	data, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		t.Fatalf("%v; run: python golden/onnx_files.py", err)
	}
	var file struct{ Files map[string]expectation }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob("testdata/*.onnx")
	if err != nil || len(paths) != len(file.Files) || len(paths) < 10 {
		t.Fatalf("%d files, %d expectations, want the same and at least 10; run: python golden/onnx_files.py", len(paths), len(file.Files))
	}
	return file.Files
}

// pictureOf is the input that onnxruntime got, in float64.
func pictureOf(t testing.TB, e expectation) array {
	a := array{[]int{1, e.Size, e.Size, 3}, golden.Images(0, 1, e.Size, e.Size, 3)}
	for i := range a.values {
		a.values[i] *= e.Scale
	}
	if e.NHWC {
		return a
	}
	f := &folder{left: 1 << 20}
	a, err := f.transpose(a, []int{0, 3, 1, 2})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// limit is how far float64 may be from onnxruntime's float32, or float16.
func limit(name string) float64 {
	if strings.Contains(name, "half") {
		return 5e-3 // measured 1e-3: 2^-11 of every activation
	}
	return 2e-6 // measured 4e-7
}

// The evaluator computes what onnxruntime computes: it is worth judging by.
func TestEvaluator(t *testing.T) {
	for name, e := range expectations(t) {
		m, _, err := open(filepath.Join("testdata", name+".onnx"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := evaluate(t, m, pictureOf(t, e))
		worst, at := golden.Difference(got.values, e.Output)
		if worst > limit(name) {
			t.Errorf("%s: output %d is %v, onnxruntime has %v", name, at, got.values[at], e.Output[at])
		}
		t.Logf("%s: %.1e", name, worst)
	}
}

// Files of other programs become networks that compute the same.
func TestRead(t *testing.T) {
	for name, e := range expectations(t) {
		m, err := ReadFile(filepath.Join("testdata", name+".onnx"))
		if err != nil {
			t.Errorf("%s (%s): %v", name, e.Note, err)
			continue
		}
		t.Logf("%s: %s", name, strings.Join(m.Recognised, "; "))
		if len(m.Unmapped) > 0 {
			t.Errorf("%s: unmapped %v", name, m.Unmapped)
		}
		c := artifact.Sized(m.Config)
		if e.Exact {
			checkExact(t, name, m)
		}
		// The pictures go through the file's own preprocessing as bytes would.
		x := golden.Images(0, 1, e.Size, e.Size, 3)
		if m.Preprocess != nil {
			gain, offset := m.Preprocess.Linear()
			for i := range x {
				x[i] = 255*x[i]*gain[i%3] + offset[i%3]
			}
		}
		g, err := c.Graph(1)
		if err != nil {
			t.Fatal(err)
		}
		out := run(t, ref.New(), m, g, tensor.Of(x, 1, e.Size, e.Size, 3))
		k := 1
		if slices.Contains(e.Operators, "Softmax") {
			k = 0
		}
		got := out[k].Convert(tensor.Float64).Float64s()
		if worst, at := golden.Difference(got, e.Output); worst > limit(name) {
			t.Errorf("%s: output %d is %v, onnxruntime has %v", name, at, got[at], e.Output[at])
		}
	}
}

// checkExact compares tensors with the formula that made them.
func checkExact(t *testing.T, name string, m *artifact.Model) {
	t.Helper()
	if len(m.Tensors) < 15 || m.Config.Norm == model.NoNorm {
		t.Errorf("%s: %d tensors of %+v", name, len(m.Tensors), m.Config)
	}
	for _, n := range m.Tensors {
		for i, w := range golden.Weight(n.Name, n.Tensor.Shape()) {
			if got := n.Tensor.Float32s()[i]; got != float32(w) {
				t.Errorf("%s: %s[%d] is %v, want %v", name, n.Name, i, got, float32(w))
				break
			}
		}
	}
}
