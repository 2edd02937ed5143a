package format_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/format"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// checkpoint was written by PyTorch (golden/torch_files.py).
const checkpoint = "torch/testdata/resnet.pth"

// picture has 9×9 pixels whose bytes count up by sevens.
func picture() dataset.Image {
	m := dataset.Image{Height: 9, Width: 9, Channels: 3, Pix: make([]uint8, 9*9*3)}
	for i := range m.Pix {
		m.Pix[i] = uint8(7 * i)
	}
	return m
}

// A checkpoint of PyTorch becomes a run directory and classifies a picture.
func Example() {
	m, err := format.Read(checkpoint)
	if err != nil {
		log.Fatal(err)
	}
	// What the file does not say: the size of the pictures and the classes. The
	// preprocessing of torchvision is assumed, and told.
	notes, err := format.Complete(m, format.Given{Height: 9, Width: 9, Classes: []string{"ant", "bee", "cat"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Config.Name)
	fmt.Println(notes[0])

	dir, err := os.MkdirTemp("", "imported")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	run := filepath.Join(dir, "run")
	if err := format.WriteRun(run, m, nil); err != nil {
		log.Fatal(err)
	}

	eng, err := cpu.New(cpu.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer eng.Close()
	classifier, err := classify.Open(run, eng)
	if err != nil {
		log.Fatal(err)
	}
	defer classifier.Close()
	predictions, err := classifier.Predict(context.Background(), []dataset.Image{picture()})
	if err != nil {
		log.Fatal(err)
	}
	best := predictions[0][0]
	fmt.Printf("%s %.4f\n", best.Class, best.Probability)
	// Output:
	// resnet-basic-blocks1.2-filters4
	// preprocessing is assumed: (x/255 - [0.485 0.456 0.406])/[0.229 0.224 0.225], 9×9, crop
	// cat 0.5049
}

// The whole way from a file of PyTorch to logits, against PyTorch's own in
// float64: recognition, layout, option A, batch normalisation, preprocessing.
func TestAgainstPyTorch(t *testing.T) {
	text, err := os.ReadFile("torch/testdata/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var expected struct {
		Logits []float64 `json:"resnet_logits"`
	}
	if err := json.Unmarshal(text, &expected); err != nil || len(expected.Logits) != 3 {
		t.Fatalf("%v: %v", expected, err)
	}
	m, err := format.Read(checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if m.Steps != 4321 || len(m.Unmapped) > 0 || m.Config.Shortcut != model.PadShortcut {
		t.Errorf("%+v, %d steps, unmapped %v", m.Config, m.Steps, m.Unmapped)
	}
	if _, err := format.Complete(m, format.Given{Height: 9, Width: 9}); err != nil {
		t.Fatal(err)
	}
	eng := ref.New()
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
	images := tensor.New(tensor.Float32, 1, 9, 9, 3)
	m.Preprocess.Apply(picture(), images.Float32s())
	out, err := p.Run(t.Context(), images.Convert(tensor.Float64))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range expected.Logits {
		// The preprocessed picture is rounded to float32 here: 6e-8 of values up to 2.6.
		if got := out[1].Float64s()[k]; math.Abs(got-want) > 1e-6 {
			t.Errorf("logit %d is %v, PyTorch's %v", k, got, want)
		}
	}
}
