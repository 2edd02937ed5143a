package dataset

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// realData returns the directory of data sets that are too large to keep here.
func realData(t testing.TB, below string) string {
	t.Helper()
	dir := os.Getenv("RESIDUAL_DATA")
	if dir == "" {
		t.Skip("RESIDUAL_DATA names no directory with real data")
	}
	if _, err := os.Stat(filepath.Join(dir, below)); err != nil {
		t.Skipf("no %s in RESIDUAL_DATA: %v", below, err)
	}
	return dir
}

func TestRealCIFAR10(t *testing.T) {
	realData(t, "cifar10")
	data, err := Open(t.Context(), "cifar10", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if data.Train.Len() != 50000 || data.Test.Len() != 10000 || data.Validation != nil {
		t.Fatalf("%d and %d pictures", data.Train.Len(), data.Test.Len())
	}
	for split, d := range map[string]Dataset{"train": data.Train, "test": data.Test} {
		counts := make([]int, 10)
		for _, l := range Labels(d) {
			counts[l]++
		}
		for class, n := range counts {
			if n != d.Len()/10 {
				t.Errorf("%s has %d pictures of %s, want %d", split, n, data.Classes[class], d.Len()/10)
			}
		}
	}

	// The well-known statistics of the training pictures.
	var sum, squares [3]float64
	var m Image
	for i := range data.Train.Len() {
		if err := data.Train.Image(i, &m); err != nil {
			t.Fatal(err)
		}
		var s, q [3]int
		for p, v := range m.Pix {
			s[p%3] += int(v)
			q[p%3] += int(v) * int(v)
		}
		for c := range 3 {
			sum[c] += float64(s[c])
			squares[c] += float64(q[c])
		}
	}
	const pixels = 50000 * 1024
	wantMean := [3]float64{0.491400, 0.482158, 0.446531}
	wantDeviation := [3]float64{0.247030, 0.243485, 0.261587}
	for c := range 3 {
		mean := sum[c] / pixels
		deviation := math.Sqrt(squares[c]/pixels - mean*mean)
		if math.Abs(mean/255-wantMean[c]) > 2e-6 || math.Abs(deviation/255-wantDeviation[c]) > 2e-6 {
			t.Errorf("channel %d: mean %.6f deviation %.6f, want %.6f %.6f", c, mean/255, deviation/255, wantMean[c], wantDeviation[c])
		}
	}

	rest, held := Split(data.Train, 5000, 10, 0)
	if rest.Len() != 45000 || held.Len() != 5000 {
		t.Errorf("split into %d and %d", rest.Len(), held.Len())
	}
	for class, n := range countLabels(held, 10) {
		if n != 500 {
			t.Errorf("%d of class %d held out, want 500", n, class)
		}
	}
	t.Logf("%s %v", data.Origin.Hash, data.Origin.Notes)
}

func TestRealFashionMNIST(t *testing.T) {
	realData(t, "fashion-mnist")
	data, err := Open(t.Context(), "fashion-mnist", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range data.Origin.Files {
		if !f.Official {
			t.Errorf("%s is not official", f.Name)
		}
	}
	if n := countLabels(data.Train, 10); !slices.Equal(n, slices.Repeat([]int{6000}, 10)) {
		t.Errorf("training pictures per class: %v", n)
	}
	// As a path the files are recognised, under another set's name refused.
	dir := filepath.Join(os.Getenv("RESIDUAL_DATA"), "fashion-mnist")
	_, err = Open(t.Context(), "mnist", Options{Dir: dir})
	wantError(t, err, "mnist: no train-images-idx3-ubyte", "are those of fashion-mnist")
	if byPath, err := Open(t.Context(), dir, Options{}); err != nil || byPath.Name != "fashion-mnist" || byPath.Origin.Hash != data.Origin.Hash {
		t.Errorf("by path: %v", err)
	}
}

func TestRealPhotographs(t *testing.T) {
	dir := filepath.Join(realData(t, "hymenoptera"), "hymenoptera")
	data, err := Open(t.Context(), dir, Options{OnBadImage: "skip"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(data.Classes, []string{"ants", "bees"}) || data.Height != 0 || data.Channels != 3 {
		t.Errorf("classes %v, %d×%d×%d", data.Classes, data.Height, data.Width, data.Channels)
	}
	if data.Train.Len() != 150 || data.Validation.Len() != 70 || data.Test != nil || len(data.Origin.Skipped) != 0 {
		t.Errorf("%v, skipped %v", data.Origin.Counts, data.Origin.Skipped)
	}
	var m Image
	for i := range data.Validation.Len() {
		if err := data.Validation.Image(i, &m); err != nil || m.Channels != 3 || m.Width < 236 {
			t.Errorf("%s: %v, %d×%d×%d", data.Validation.Name(i), err, m.Height, m.Width, m.Channels)
		}
	}
}

func countLabels(d Dataset, classes int) []int {
	counts := make([]int, classes)
	for _, l := range Labels(d) {
		counts[l]++
	}
	return counts
}
