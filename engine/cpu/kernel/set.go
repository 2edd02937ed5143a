// Package kernel holds the hot loops of the CPU engine: generic Go, which says
// what a kernel computes, and assembly for instruction sets, which must compute
// the same up to the rounding of fused multiply-adds.
//
// Nothing is checked here: package cpu has checked lengths and offsets when it
// compiled the graph. Memory is float32, in mixed precision bfloat16 too; all sums are
// float32.
package kernel

import (
	"fmt"
	"os"
	"strings"
)

// Set is an instruction set, a step on the ladder
// generic < avx2 < avx512 < avx512_bf16 < amx. Each includes the ones below it.
type Set uint8

// The instruction sets in ascending order. AVX2 means AVX2 with FMA, AVX512
// means AVX-512 F, BW, DQ and VL, AVX512BF16 means AVX512_BF16 on top, which
// only bfloat16 kernels use, and AMX means AMX-BF16.
const (
	Generic Set = iota
	AVX2
	AVX512
	AVX512BF16
	AMX
)

var setNames = [...]string{"generic", "avx2", "avx512", "avx512_bf16", "amx"}

// String is the name that RESIDUAL_CPU takes.
func (s Set) String() string {
	if int(s) < len(setNames) {
		return setNames[s]
	}
	return fmt.Sprintf("set(%d)", uint8(s))
}

// ParseSet is the inverse of String.
func ParseSet(name string) (Set, error) {
	for i, n := range setNames {
		if name == n {
			return Set(i), nil
		}
	}
	return 0, fmt.Errorf("kernel: unknown instruction set %q, want one of %s", name, strings.Join(setNames[:], ", "))
}

// Kernels is the table of one instruction set. The fields' documentation is the
// generic function of the same name.
type Kernels struct {
	Set Set

	Tiles[ConvTile, OuterTile]
	Pack      func(dst, src []float32, width, stride int)
	Transpose func(dst, src []float32, rows, cols, dstStride, srcStride int)
	Winograd  Winograd // F(2×2,3×3)
	Winograd4 Winograd // F(4×4,3×3)
	Stride2   WinogradStride2
	BF16      BF16
	Norm      Norm[float32]
	Epilogue  func(dst, src []float32, from, at []int32, add, bias []float32, before, after float32)

	// Elementwise: dst[i] = f(a[i], b[i]) for i < len(dst).
	Add, Sub, Mul, Div func(dst, a, b []float32)
	Max                func(dst, a, b []float32)
	Gate               func(dst, a, b []float32)
	Sqrt               func(dst, a []float32)
	ScaleAdd           func(dst, a []float32, scale, shift float32)
	Adam               func(p, m, v, g, factors []float32)

	// Per channel: slices of c elements against rows of c elements.
	ChannelScaleAdd func(dst, x, scale, shift []float32)
	ChannelSum      func(sum, x []float32)
	ChannelSquares  func(sum, x, mean []float32)
	ChannelProducts func(sum, x, mean, dy []float32)

	WindowMax         func(dst, src []float32, at []int32)
	WindowMaxBackward func(dx, dy, src []float32, at []int32)
}

// Select returns the kernels of the highest instruction set that has kernels,
// that the processor and the operating system support, and that is not above
// the limit.
func Select(limit Set) *Kernels {
	best := &generic
	for _, k := range supported() {
		if k.Set <= limit && k.Set > best.Set {
			best = k
		}
	}
	return best
}

// FromEnvironment is Select with the limit that the environment variable
// RESIDUAL_CPU names, or none when it is empty. Another value is an error.
func FromEnvironment() (*Kernels, error) {
	name := os.Getenv("RESIDUAL_CPU")
	if name == "" {
		return Select(AMX), nil
	}
	limit, err := ParseSet(name)
	if err != nil {
		return nil, fmt.Errorf("environment variable RESIDUAL_CPU: %w", err)
	}
	return Select(limit), nil
}

// Supported returns the tables that can run here, generic first: what tests and
// benchmarks iterate over.
func Supported() []*Kernels { return append([]*Kernels{&generic}, supported()...) }
