//go:build linux && amd64

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/cpu"
)

// The AMX kernels compute what generic code does, on any processor that has the
// other instructions they use. With RESIDUAL_LONG the engine's operations are
// tried with them too, for minutes.
func TestKernels(t *testing.T) {
	if testing.Short() {
		t.Skip("builds another test")
	}
	if !cpu.X86.HasAVX512BF16 {
		t.Skip("this processor lacks AVX512_BF16, which the AMX kernels use beside AMX")
	}
	t.Run("kernels", func(t *testing.T) { runUnder(t, "../../engine/cpu/kernel", "Pair.*/^amx$") })
	if os.Getenv("RESIDUAL_LONG") != "" {
		t.Run("engine", func(t *testing.T) {
			runUnder(t, "../../engine/cpu", "TestMixedConformance/^amx$|TestConformanceOfLargeTiles/^amx$")
		})
	}
}

func runUnder(t *testing.T, dir, pattern string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "amx.test")
	build := exec.Command("go", "test", "-c", "-tags", "amxemulated", "-o", program, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Chdir(dir)
	code, count, err := run(program, []string{"-test.run", pattern})
	switch {
	case errors.Is(err, syscall.EPERM) && !slices.Contains(strings.Split(os.Getenv("RESIDUAL_TEST_REQUIRE"), ","), "amx"):
		t.Skip("this machine does not let processes be traced:", err)
	case err != nil:
		t.Fatal(err)
	case code != 0 || count < 1000:
		t.Fatalf("%s, %s: exit code %d after %d AMX instructions", dir, pattern, code, count)
	}
	t.Logf("%s: %d AMX instructions", dir, count)
}

// Products and sums worked by hand: 3 pairs in a row, 2 rows, 2 columns.
func TestMultiply(t *testing.T) {
	bf16 := map[float32]uint16{0: 0, 1: 0x3f80, 2: 0x4000, 3: 0x4040, -1: 0xbf80, 0.5: 0x3f00}
	fill := func(rows [][]float32) (d [maxRows][rowBytes]byte) {
		for r, row := range rows {
			for i, v := range row {
				d[r][2*i], d[r][2*i+1] = byte(bf16[v]), byte(bf16[v]>>8)
			}
		}
		return d
	}
	var cfg [64]byte
	cfg[0] = 1
	for tile, shape := range [][2]byte{{2, 8}, {2, 12}, {3, 8}} {
		cfg[48+tile], cfg[16+2*tile] = shape[0], shape[1]
	}
	var x tiles
	if err := x.configure(cfg); err != nil {
		t.Fatal(err)
	}
	x.data[1] = fill([][]float32{{1, 2, 3, 0, -1, 0.5}, {0, 1, 0, 2, 0, 3}})
	x.data[2] = fill([][]float32{{1, 0, 2, 1}, {0, 1, 1, 2}, {2, 2, -1, 0}})
	for range 2 { // twice: the sums stay
		if err := x.multiply(0, 1, 2); err != nil {
			t.Fatal(err)
		}
	}
	// row 0: column 0: 1·1+2·0 + 3·0+0·1 + -1·2+0.5·2 = 0; column 1: 1·2+2·1 + 3·1+0·2 + -1·-1+0.5·0 = 8
	// row 1: column 0: 0+1·0 + 0+2·1 + 0+3·2 = 8; column 1: 0+1·1 + 0+2·2 + 0+3·0 = 5
	for i, want := range []float32{0, 16, 16, 10} {
		if got := word(x.data[0][i/2][4*(i%2):]); got != want {
			t.Errorf("sum [%d][%d] is %v, want %v", i/2, i%2, got, want)
		}
	}
	if err := x.multiply(0, 2, 1); err == nil {
		t.Error("tiles that do not fit are multiplied")
	}
}
