package format

import (
	"context"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
)

// interopTolerance is how far a logit of another program may be from ours, as a
// share of the largest of all: float32 sums in other orders. Seen: 5e-7 (ResNet-20,
// 2.3e-5 of 46), 6e-7 (keras convention), 7.5e-7 (resnet8w, 4.8e-6 of 6.45).
const interopTolerance = 5e-6

// TestInterop compares with what PyTorch and onnxruntime made of exported files:
// the same class for each of CIFAR-10's 10,000 test pictures, and the logits.
// bench/interop.py writes theirs.
func TestInterop(t *testing.T) {
	dir := os.Getenv("RESIDUAL_INTEROP")
	if dir == "" || os.Getenv("RESIDUAL_DATA") == "" {
		t.Skip("RESIDUAL_INTEROP names no folder with logits of bench/interop.py, or RESIDUAL_DATA no data")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.logits"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files in %s, %v", len(files), dir, err)
	}
	data, err := dataset.Open(t.Context(), "cifar10", dataset.Options{})
	if err != nil {
		t.Fatal(err)
	}
	eng, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Read(strings.TrimSuffix(file, ".logits"))
			if err != nil {
				t.Fatal(err)
			}
			const batch = 100
			k := m.Config.Classes
			if len(raw) != 4*k*data.Test.Len() || data.Test.Len()%batch != 0 {
				t.Fatalf("%d bytes of logits for %d pictures of %d classes", len(raw), data.Test.Len(), k)
			}
			l, err := loader.New(data.Test, loader.Options{BatchSize: batch, Preprocess: *m.Preprocess})
			if err != nil {
				t.Fatal(err)
			}
			g, err := m.Config.Graph(batch)
			if err != nil {
				t.Fatal(err)
			}
			vars := eng.NewVariables()
			for _, n := range m.Tensors {
				if err := vars.Set(n.Name, model.FromFile(n.Tensor)); err != nil {
					t.Fatal(err)
				}
			}
			program, err := eng.Compile(g, vars)
			if err != nil {
				t.Fatal(err)
			}
			defer program.Close()
			worst, largest, other, right, at := 0.0, 1.0, 0, 0, 0
			for b, err := range l.Batches(context.Background(), 0, 0) {
				if err != nil {
					t.Fatal(err)
				}
				out, err := program.Run(t.Context(), b.Images)
				if err != nil {
					t.Fatal(err)
				}
				ours := out[1].Float32s()
				for i, label := range b.Labels.Int32s() {
					best, theirBest := 0, 0
					theirs := make([]float64, k)
					for c := range k {
						theirs[c] = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*(at*k+c):])))
						ours := ours[i*k:]
						worst = max(worst, math.Abs(theirs[c]-float64(ours[c])))
						largest = max(largest, math.Abs(theirs[c]))
						if ours[c] > ours[best] {
							best = c
						}
						if theirs[c] > theirs[theirBest] {
							theirBest = c
						}
					}
					if best != theirBest {
						other++
					}
					if best == int(label) {
						right++
					}
					at++
				}
			}
			t.Logf("%d pictures: %d right here, %d classified otherwise there; logits differ by %.2g at most, of %.3g", at, right, other, worst, largest)
			if other > 0 || !(worst <= interopTolerance*largest) {
				t.Errorf("%d pictures are classified otherwise, logits differ by %.3g, want 0 and at most %.3g", other, worst, interopTolerance*largest)
			}
		})
	}
}
