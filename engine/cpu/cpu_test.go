package cpu

import (
	"testing"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu/kernel"
	"github.com/residual-ml/residual/engine/enginetest"
)

func open(t testing.TB, o Options) *Engine {
	t.Helper()
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// Every instruction set that runs here passes what every engine must, with direct
// convolution and with Winograd's wherever it is possible. (Package kernel's
// tests fail when a required set does not run.)
func TestConformance(t *testing.T) {
	for _, k := range kernel.Supported() {
		if k.Set > kernel.AVX512 { // for bfloat16 alone
			continue
		}
		for threads, winograd := range map[int]string{1: "off", 3: "on"} {
			t.Run(k.Set.String()+"/winograd="+winograd, func(t *testing.T) {
				enginetest.RunAll(t, func() engine.Engine {
					e := open(t, Options{Threads: threads, InstructionSet: k.Set.String(), Winograd: winograd})
					if want := "cpu/" + k.Set.String(); e.Name() != want {
						t.Errorf("engine %q, want %q", e.Name(), want)
					}
					return e
				})
			})
		}
	}
}

// F(4×4,3×3) wherever it is possible, with as few as one channel, where nothing
// averages the rounding of transforms out, has errors of up to 45 units of the
// sums' terms, three times the bound of other convolutions. (The rule of auto
// wants 16 channels at least: TestWinogradRounding.) In mixed precision transforms and
// products are float32 as well, and only results are rounded once more; with products
// of bfloat16 so are transformed values, and errors of up to 20 roundings of a result's own
// terms were seen, at the border of small pictures.
func TestConformanceOfLargeTiles(t *testing.T) {
	for _, k := range kernel.Supported() {
		if k.Set > kernel.AVX512 {
			continue
		}
		t.Run(k.Set.String(), func(t *testing.T) {
			enginetest.RunTransformed(t, func() engine.Engine {
				return open(t, Options{Threads: 3, InstructionSet: k.Set.String(), Winograd: "on-4x4"})
			}, 4)
		})
	}
	for _, k := range kernel.Supported() {
		t.Run(k.Set.String()+"/bfloat16", func(t *testing.T) {
			enginetest.RunMixedTransformed(t, func() engine.Engine {
				return open(t, Options{Threads: 3, InstructionSet: k.Set.String(), Winograd: "on-4x4", Precision: "bfloat16"})
			}, 4, 0)
			enginetest.RunMixedTransformed(t, func() engine.Engine {
				return open(t, Options{Threads: 3, InstructionSet: k.Set.String(), Winograd: "on-4x4-bfloat16", Precision: "bfloat16"})
			}, 4, 24)
		})
	}
}

// So does mixed precision. Winograd's convolutions round transformed operands, and
// so err by what is large in the tile around a result; errors of up to 2.9
// roundings of the result's own terms were seen, at the border of small pictures.
func TestMixedConformance(t *testing.T) {
	for _, k := range kernel.Supported() {
		for winograd, roundings := range map[string]float64{"off": 0, "on": 6} {
			t.Run(k.Set.String()+"/winograd="+winograd, func(t *testing.T) {
				enginetest.RunMixed(t, func() engine.Engine {
					e := open(t, Options{Threads: 3, InstructionSet: k.Set.String(), Precision: "bfloat16", Winograd: winograd})
					if want := "cpu/" + k.Set.String(); e.Name() != want {
						t.Errorf("engine %q, want %q", e.Name(), want)
					}
					return e
				}, roundings)
			})
		}
	}
}
