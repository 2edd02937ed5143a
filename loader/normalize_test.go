package loader

import (
	"math"
	"testing"

	"github.com/residual-ml/residual/dataset"
)

// The numbers are those of the pictures, to their last digit, for shapes and for
// every data set that is on this machine.
func TestNormalization(t *testing.T) {
	checked := 0
	for _, name := range dataset.Names() {
		mean, std, ok := Normalization(name)
		if !ok {
			t.Errorf("%s: no numbers", name)
			continue
		}
		if testing.Short() && name != "shapes" {
			continue
		}
		data, err := dataset.Open(t.Context(), name, dataset.Options{})
		if err != nil {
			t.Logf("%s is not here: %v", name, err)
			continue
		}
		checked++
		sum, squares, pixels := make([]float64, data.Channels), make([]float64, data.Channels), 0.0
		var m dataset.Image
		for i := range data.Train.Len() {
			if err := data.Train.Image(i, &m); err != nil {
				t.Fatal(err)
			}
			pixels += float64(m.Height * m.Width)
			for k, x := range m.Pix {
				v := float64(x) / 255
				sum[k%m.Channels] += v
				squares[k%m.Channels] += v * v
			}
		}
		for c := range sum {
			m := sum[c] / pixels
			s := math.Sqrt(squares[c]/pixels - m*m)
			if math.Abs(m-mean[c]) > 0.00006 || math.Abs(s-std[c]) > 0.00006 {
				t.Errorf("%s, channel %d: mean %.5f and deviation %.5f, the table has %v and %v", name, c, m, s, mean[c], std[c])
			}
		}
	}
	if checked == 0 {
		t.Error("nothing was checked, not even shapes")
	}
	if _, _, ok := Normalization("cifar"); ok {
		t.Error("an unknown name has numbers")
	}
}
