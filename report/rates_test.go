package report

import (
	"bytes"
	"image/png"
	"math"
	"strings"
	"testing"
)

func TestRates(t *testing.T) {
	var rates, losses, smoothed []float64
	for i := range 50 {
		rates = append(rates, math.Pow(10, -6+float64(i)/7))
		losses = append(losses, 2.3-1.5*math.Exp(-math.Pow(float64(i-30)/10, 2)))
		smoothed = append(smoothed, losses[i])
	}
	losses[48], losses[49] = math.Inf(1), math.NaN()
	bitmap, svg, err := Rates(rates, losses, smoothed, 1e-3, "a <network> on data")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"suggested 0.001", "Learning rate", "1e-05", "a &lt;network&gt; on data"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the picture has no %q", want)
		}
	}
	if m, err := png.Decode(bytes.NewReader(bitmap)); err != nil || m.Bounds().Dx() != 1120 {
		t.Errorf("a picture of %v, %v", m.Bounds(), err)
	}
	if _, svg, err = Rates(rates, losses, smoothed, 0, ""); err != nil || strings.Contains(string(svg), "suggested") {
		t.Errorf("no suggestion: %v", err)
	}
	// Nothing finite, or all alike.
	for _, y := range []float64{math.NaN(), math.Inf(1), 1, 0} {
		flat := []float64{y, y}
		if _, _, err := Rates(rates[:2], flat, flat, 1, ""); err != nil {
			t.Errorf("losses of %v: %v", y, err)
		}
	}
	if _, _, err := Rates(rates[:1], losses[:1], smoothed[:1], 0, ""); err == nil {
		t.Error("a single rate was drawn")
	}
	for _, bad := range [][]float64{{1e-7, math.Inf(1)}, {0, 1}, {1, 1}, {math.NaN(), 1}} { // powers of ten up to infinity are many
		if _, _, err := Rates(bad, losses[:2], smoothed[:2], 0, ""); err == nil || !strings.Contains(err.Error(), "want positive numbers that grow") {
			t.Errorf("rates %v: error %v", bad, err)
		}
	}
}
