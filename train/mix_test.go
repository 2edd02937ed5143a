package train

import (
	"math"
	"slices"
	"testing"

	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// The loss of mixed pictures is the cross-entropy with the mixed distribution as
// target, smoothed and weighted by class.
func TestLossOfMixedPictures(t *testing.T) {
	c := testConfig()
	c.Augment.Mixup, c.LabelSmoothing = 1, 0.1
	b := graph.NewBuilder()
	loss, logits := lossNodes(b, c, 3, training)
	g, err := b.Build(loss, logits)
	if err != nil {
		t.Fatal(err)
	}
	g.Updates = nil
	e := ref.New()
	vars := e.NewVariables()
	squares := 0.0
	for _, v := range g.Variables {
		value := model.Initial(v, 3)
		if err := vars.Set(v.Name, value); err != nil {
			t.Fatal(err)
		}
		if v.Name == "fc.weight" {
			for _, w := range value.Float32s() {
				squares += float64(w) * float64(w)
			}
		}
	}
	p, err := e.Compile(g, vars)
	if err != nil {
		t.Fatal(err)
	}
	pixels := make([]float32, 3*64)
	for i := range pixels {
		pixels[i] = float32(i%7) / 7
	}
	const share = 0.3
	classWeight := []float64{1, 2}
	labels, partners := []int32{0, 1, 1}, []int32{1, 0, 1}
	weights, second := make([]float32, 3), make([]float32, 3)
	for i := range 3 {
		weights[i], second[i] = float32(share*classWeight[labels[i]]), float32((1-share)*classWeight[partners[i]])
	}
	out, err := p.Run(t.Context(), tensor.Of(pixels, 3, 8, 8, 1), tensor.Of(labels, 3), tensor.Of(weights, 3), tensor.Of(partners, 3), tensor.Of(second, 3))
	if err != nil {
		t.Fatal(err)
	}
	z := out[1].Float64s()
	want := c.L2 * squares
	for i := range 3 {
		row := z[2*i : 2*i+2]
		log := math.Log(math.Exp(row[0]) + math.Exp(row[1]))
		for k := range 2 {
			target := 0.0 // weighted: share of the label, 0.9 of it and 0.05 everywhere
			for _, l := range []struct {
				label int32
				share float64
			}{{labels[i], share}, {partners[i], 1 - share}} {
				smooth := 0.05
				if int(l.label) == k {
					smooth += 0.9
				}
				target += l.share * classWeight[l.label] * smooth
			}
			want += target * (log - row[k]) / 3
		}
	}
	if got := scalar(out[0]); math.Abs(got-want) > 1e-7 { // weights are float32
		t.Errorf("loss %v, want %v", got, want)
	}

	// An evaluation knows nothing of it.
	if g, err := evalGraph(c, 3); err != nil || len(g.Inputs) != 3 {
		t.Errorf("an evaluation takes %d inputs; %v", len(g.Inputs), err)
	}
}

// A step's inputs are what its graph asks for, in that order.
func TestInputsOfMixedPictures(t *testing.T) {
	c := testConfig()
	c.Augment.CutMix, c.Model.Blocks, c.Model.DropPath = 1, []int{2, 1}, 0.5
	c.ClassWeights = []float32{1, 3}
	l, err := loader.New(stripes(8), loader.Options{BatchSize: 8, Seed: 1, Preprocess: c.Preprocess, Augment: c.Augment, ClassWeights: c.ClassWeights})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := l.At(t.Context(), 0, []int{0, 2, 1, 3, 5, 4, 6, 7})
	if err != nil {
		t.Fatal(err)
	}
	b := graph.NewBuilder()
	loss, _ := lossNodes(b, c, 8, training)
	g, err := b.Build(loss)
	if err != nil {
		t.Fatal(err)
	}
	drops := c.Model.DropPathFactors(c.Seed, 0, batch.Draws)
	want := []struct {
		name  string
		value tensor.Tensor
	}{{"images", batch.Images}, {"labels", batch.Labels}, {"weights", batch.Weights}, {"partners", batch.Partners},
		{"partner_weights", batch.PartnerWeights}, {"drop_path.layer1.1", drops[0]}, {"drop_path.layer2.0", drops[1]}}
	got := lossInputs(c, batch, training)
	if len(got) != len(want) || len(g.Inputs) != len(want) {
		t.Fatalf("%d inputs for %d, want %d", len(got), len(g.Inputs), len(want))
	}
	for i, w := range want {
		if g.Inputs[i].Name != w.name || !slices.Equal(float64s(got[i]), float64s(w.value)) {
			t.Errorf("input %d of the graph is %s, %v is given; want %s, %v", i, g.Inputs[i].Name, float64s(got[i])[:8], w.name, float64s(w.value)[:8])
		}
	}
	again := batch
	again.Draws = []int{0, 2, 1, 3, 5, 4, 6, 14} // the last is another draw of picture 6
	if got, dropped := lossInputs(c, again, training)[6], drops[1]; !slices.Equal(float64s(got)[:7], float64s(dropped)[:7]) || slices.Equal(float64s(got), float64s(dropped)) {
		t.Errorf("dropped %v, where the eighth picture is drawn again %v", float64s(dropped), float64s(got))
	}
	if slices.Equal(batch.Labels.Int32s(), batch.Partners.Int32s()) || slices.Equal(batch.Weights.Float32s(), batch.PartnerWeights.Float32s()) {
		t.Error("first and second labels cannot be told apart")
	}
}

// A mixed picture counts with the share of the class that is predicted.
func TestAccuracyOfMixedPictures(t *testing.T) {
	b := loader.Batch{Indices: []int{5, 6, 7, 8}, Labels: tensor.Of([]int32{0, 1, 2, 2}, 4)}
	logits := []float32{9, 0, 0, 9, 0, 0, 9, 0, 0, 0, 0, 9} // predicts 0, 0, 0, 2
	if got, err := correctOf(b, logits, 3); err != nil || got != 2 {
		t.Errorf("%v unmixed pictures are correct, want 2; %v", got, err)
	}
	b.Share, b.Partners = 0.75, tensor.Of([]int32{1, 0, 1, 2}, 4)
	// 0.75 of the first's own label, 0.25 of the second's other, nothing, all.
	if got, err := correctOf(b, logits, 3); err != nil || got != 0.75+0.25+0+1 {
		t.Errorf("%v mixed pictures are correct, want 2; %v", got, err)
	}
	b.Partners = tensor.Of([]int32{1, 0, 3, 2}, 4)
	if _, err := correctOf(b, logits, 3); err == nil {
		t.Error("a label outside of the classes is accepted")
	}
}
