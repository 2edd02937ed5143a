package tensor

import (
	"bytes"
	"encoding/hex"
	"io"
	"math"
	"strings"
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

func TestWrite(t *testing.T) {
	for want, x := range map[string]Tensor{
		"000000000000f03f":                Of([]float64{1}, 1),
		"0000803f000000c0":                Of([]float32{1, -2}, 2),
		"803f00c0":                        OfBits(BFloat16, []uint16{0x3f80, 0xc000}, 2),
		"feffffffffffffff":                Of([]int64{-2}),
		"04030201":                        Of([]int32{0x01020304}, 1),
		"0201feff":                        Of([]int16{0x0102, -2}, 1, 2),
		"01fe":                            Of([]int8{1, -2}, 2),
		"0100":                            Of([]uint8{1, 0}, 2),
		strings.Repeat("0000803f", 40000): filled(40000, 1), // more than one buffer
	} {
		var b bytes.Buffer
		if err := Write(&b, x); err != nil || hex.EncodeToString(b.Bytes()) != want {
			t.Errorf("%v %v: % .20x (%v), want %.40s", x.DType(), x.Shape(), b.Bytes(), err, want)
		}
	}
	if err := Write(full{}, filled(40000, 1)); err != io.ErrShortWrite {
		t.Errorf("writing to what is full: %v", err)
	}
}

func filled(n int, v float32) Tensor {
	x := New(Float32, n)
	for i := range x.Float32s() {
		x.Float32s()[i] = v
	}
	return x
}

// full takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
