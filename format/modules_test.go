package format

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// The script runs every NAME.pth of a folder with NAME_model.py on the same
// picture, [1,3,H,W] with sin of its index, in float64.
const runModules = `
import importlib, pathlib, sys
import torch
sys.path.insert(0, sys.argv[1])
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.pth")):
    h, w = map(int, path.stem.split("_")[-2:])
    net = importlib.import_module(path.stem + "_model").load(path).double()
    x = torch.sin(torch.arange(h * w * 3, dtype=torch.float64)).reshape(1, h, w, 3).permute(0, 3, 1, 2)
    with torch.inference_mode():
        net(x).numpy().astype("<f8").tofile(path.with_suffix(".f64"))
`

// TestModules: the Python module of every network that we build computes the same
// in PyTorch as engine/ref here, both in float64. It needs a Python with torch.
func TestModules(t *testing.T) {
	python := os.Getenv("RESIDUAL_PYTHON")
	if python == "" {
		t.Skip("RESIDUAL_PYTHON names no Python with torch")
	}
	dir := t.TempDir()
	models := map[string]*artifact.Model{}
	for i, name := range model.Names() {
		for _, convention := range []model.Convention{model.Torch, model.Keras} {
			for _, size := range []int{20, 72} { // the small stem and the large one
				c, err := model.Named(name, convention, size, size, 3, 5)
				if err != nil {
					t.Fatal(err)
				}
				c.Filters = 4
				for stage := range c.Blocks {
					c.Blocks[stage] = min(c.Blocks[stage], 2)
				}
				c.ConvBias = i%3 == 1
				stem := fmt.Sprintf("%s_%s_%d_%d", strings.ReplaceAll(name, "-", "_"), convention, size, size)
				m := alive(t, c)
				if err := Write(filepath.Join(dir, stem+".pth"), "torch", m, artifact.WriteOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(filepath.Join(dir, stem+"_model.py")); err != nil {
					t.Fatal(err)
				}
				models[stem] = m
			}
		}
	}
	if out, err := exec.Command(python, "-c", runModules, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	eng := ref.New()
	worst := 0.0
	for stem, m := range models {
		raw, err := os.ReadFile(filepath.Join(dir, stem+".f64"))
		if err != nil || len(raw) != 8*m.Config.Classes {
			t.Fatalf("%s: %d bytes, %v", stem, len(raw), err)
		}
		vars := eng.NewVariables()
		for _, n := range m.Tensors {
			if err := vars.Set(n.Name, model.FromFile(n.Tensor)); err != nil {
				t.Fatal(err)
			}
		}
		g, err := m.Config.Graph(1)
		if err != nil {
			t.Fatal(err)
		}
		p, err := eng.Compile(g, vars)
		if err != nil {
			t.Fatal(err)
		}
		images := tensor.New(tensor.Float64, 1, m.Config.Height, m.Config.Width, 3)
		for i := range images.Float64s() {
			images.Float64s()[i] = math.Sin(float64(i))
		}
		out, err := p.Run(t.Context(), images)
		if err != nil {
			t.Fatal(err)
		}
		largest, difference := 0.0, 0.0
		for k, ours := range out[1].Float64s() {
			theirs := math.Float64frombits(binary.LittleEndian.Uint64(raw[8*k:]))
			largest = max(largest, math.Abs(theirs))
			difference = max(difference, math.Abs(theirs-ours))
		}
		worst = max(worst, difference/largest)
		if !(difference <= 1e-10*largest) || largest == 0 { // float64 in other orders; seen: 1e-14
			t.Errorf("%s: logits differ by %.3g, the largest is %.3g", stem, difference, largest)
		}
	}
	t.Logf("%d networks, the largest relative difference is %.2g", len(models), worst)
}

// alive is a model of c with weights that keep every layer alive.
func alive(t *testing.T, c model.Config) *artifact.Model {
	t.Helper()
	g, err := c.Graph(1)
	if err != nil {
		t.Fatal(err)
	}
	tensors := map[string]tensor.Tensor{}
	for i, v := range g.Variables {
		value := model.Initial(v, 5)
		if v.Variable.Role == graph.Statistic || strings.HasSuffix(v.Name, ".bias") {
			for k := range value.Float32s() {
				value.Float32s()[k] += float32((i+k)%5)/8 - 0.25
			}
		}
		tensors[v.Name] = model.ToFile(value)
	}
	m, err := artifact.Build(c, tensors)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Complete(m, Given{}); err != nil {
		t.Fatal(err)
	}
	return m
}
