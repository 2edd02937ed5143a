package tensor

import (
	"math"
	"testing"
)

func TestShape(t *testing.T) {
	if got := (Shape{}).Elements(); got != 1 {
		t.Errorf("scalar has %d elements, want 1", got)
	}
	if got := (Shape{2, 3, 0}).Elements(); got != 0 {
		t.Errorf("[2,3,0] has %d elements, want 0", got)
	}
	if got := (Shape{32, 3}).String(); got != "[32,3]" {
		t.Errorf("String() = %q", got)
	}
}

func TestConvert(t *testing.T) {
	a := Of([]float64{1.5, -2.5, 3}, 3)
	if got := a.Convert(Float32).Float32s(); got[0] != 1.5 || got[1] != -2.5 || got[2] != 3 {
		t.Errorf("float64 → float32: %v", got)
	}
	b := Of([]uint8{0, 255}, 2)
	if got := b.Convert(Float64).Float64s(); got[1] != 255 {
		t.Errorf("uint8 → float64: %v", got)
	}
	h := OfBits(Float16, []uint16{0x3c00, 0xc000, 0x0001, 0x7c00}, 4)
	want := []float32{1, -2, 1.0 / (1 << 24), float32(math.Inf(1))}
	for i, v := range h.Convert(Float32).Float32s() {
		if v != want[i] {
			t.Errorf("float16 element %d = %v, want %v", i, v, want[i])
		}
	}
}

func TestCloneSharesNothing(t *testing.T) {
	a := Of([]float32{1, 2}, 2)
	c := a.Clone()
	c.Float32s()[0] = 9
	if a.Float32s()[0] != 1 {
		t.Error("changing the clone changed the original")
	}
	r := a.Reshape(1, 2)
	r.Float32s()[1] = 7
	if a.Float32s()[1] != 7 {
		t.Error("Reshape must share the elements")
	}
}

// Every bfloat16 pattern widens and rounds back to itself; halfway cases go to even.
func TestBFloat16(t *testing.T) {
	for b := 0; b < 1<<16; b++ {
		f := BFloat16ToFloat32(uint16(b))
		if f != f {
			continue
		}
		if got := Float32ToBFloat16(f); got != uint16(b) {
			t.Fatalf("%#04x → %v → %#04x", b, f, got)
		}
	}
	if got := Float32ToBFloat16(math.Float32frombits(0x3f808000)); got != 0x3f80 {
		t.Errorf("halfway above an even pattern rounds to %#04x, want 0x3f80", got)
	}
	if got := Float32ToBFloat16(math.Float32frombits(0x3f818000)); got != 0x3f82 {
		t.Errorf("halfway above an odd pattern rounds to %#04x, want 0x3f82", got)
	}
	if f := BFloat16ToFloat32(Float32ToBFloat16(float32(math.NaN()))); f == f {
		t.Error("NaN became a number")
	}
}
