//go:build linux && amd64

package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"syscall"
)

const (
	maxRows  = 16
	rowBytes = 64
)

// tiles are the AMX registers of a thread.
type tiles struct {
	configured bool
	rows       [8]int // of each tile
	bytes      [8]int // of a row
	data       [8][maxRows][rowBytes]byte
}

// instruction is a decoded AMX instruction.
type instruction struct {
	name            string
	length          int
	tile, left      int    // of TDPBF16PS the sum and the left operand
	right           int    // operand
	address, stride uint64 // of memory
}

// step does the instruction at which a thread has stopped. It is false for
// instructions that are not AMX.
func (t *tiles) step(tid int) (bool, error) {
	var regs syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &regs); err != nil {
		return false, err
	}
	code := make([]byte, 16)
	if _, err := syscall.PtracePeekText(tid, uintptr(regs.Rip), code); err != nil {
		return false, err
	}
	in, ok := decode(code, &regs)
	if !ok {
		return false, nil
	}
	if err := t.do(tid, in); err != nil {
		return false, fmt.Errorf("%s at %#x: %w", in.name, regs.Rip, err)
	}
	regs.Rip += uint64(in.length)
	return true, syscall.PtraceSetRegs(tid, &regs)
}

// decode knows the three-byte VEX form in which these instructions come:
// C4, then R̄X̄B̄ and the map (0F38), then W, v̄v̄v̄v̄, L and the prefix.
func decode(code []byte, regs *syscall.PtraceRegs) (in instruction, ok bool) {
	const none, f3, f2 = 0, 2, 3
	if code[0] != 0xc4 || code[1]&0x1f != 2 || code[2]&0x84 != 0 {
		return in, false
	}
	prefix, op, modrm := code[2]&3, code[3], code[4]
	mod, reg, rm := modrm>>6, int(modrm>>3&7), int(modrm&7)
	in.length = 5
	switch {
	case op == 0x49 && prefix == none && modrm == 0xc0:
		in.name = "TILERELEASE"
		return in, true
	case op == 0x49 && prefix == f2 && mod == 3 && rm == 0:
		in.name, in.tile = "TILEZERO", reg
		return in, true
	case op == 0x5c && prefix == f3 && mod == 3:
		in.name, in.tile, in.left, in.right = "TDPBF16PS", reg, rm, int(^code[2]>>3&15)
		return in, in.right < 8
	case op == 0x49 && prefix == none && mod != 3 && reg == 0:
		in.name = "LDTILECFG"
	case op == 0x4b && prefix == f2 && mod != 3 && rm == 4:
		in.name, in.tile = "TILELOADD", reg
	case op == 0x4b && prefix == f3 && mod != 3 && rm == 4:
		in.name, in.tile = "TILESTORED", reg
	default:
		return in, false
	}
	base := rm | int(^code[1]>>5&1)<<3
	if rm == 4 {
		sib := code[5]
		in.length++
		base = int(sib&7) | int(^code[1]>>5&1)<<3
		if index := int(sib>>3&7) | int(^code[1]>>6&1)<<3; index != 4 {
			in.stride = register(regs, index) << (sib >> 6)
		}
	}
	if mod == 0 && base&7 == 5 {
		return in, false // addresses without a base or relative to RIP are not used
	}
	in.address = register(regs, base)
	switch mod {
	case 1:
		in.address += uint64(int64(int8(code[in.length])))
		in.length++
	case 2:
		in.address += uint64(int64(int32(binary.LittleEndian.Uint32(code[in.length:]))))
		in.length += 4
	}
	return in, true
}

func register(r *syscall.PtraceRegs, n int) uint64 {
	return [16]uint64{r.Rax, r.Rcx, r.Rdx, r.Rbx, r.Rsp, r.Rbp, r.Rsi, r.Rdi, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15}[n]
}

func (t *tiles) do(tid int, in instruction) error {
	if in.name != "LDTILECFG" && in.name != "TILERELEASE" && !t.configured {
		return fmt.Errorf("the tiles are not configured")
	}
	switch in.name {
	case "LDTILECFG":
		var cfg [64]byte
		if _, err := syscall.PtracePeekData(tid, uintptr(in.address), cfg[:]); err != nil {
			return err
		}
		return t.configure(cfg)
	case "TILERELEASE":
		*t = tiles{}
	case "TILEZERO":
		t.data[in.tile] = [maxRows][rowBytes]byte{}
	case "TILELOADD":
		t.data[in.tile] = [maxRows][rowBytes]byte{}
		for r := range t.rows[in.tile] {
			row := t.data[in.tile][r][:t.bytes[in.tile]]
			if _, err := syscall.PtracePeekData(tid, uintptr(in.address+uint64(r)*in.stride), row); err != nil {
				return err
			}
		}
	case "TILESTORED":
		for r := range t.rows[in.tile] {
			row := t.data[in.tile][r][:t.bytes[in.tile]]
			if _, err := syscall.PtracePokeData(tid, uintptr(in.address+uint64(r)*in.stride), row); err != nil {
				return err
			}
		}
	case "TDPBF16PS":
		return t.multiply(in.tile, in.left, in.right)
	}
	return nil
}

// configure reads the operand of LDTILECFG: palette, start row, then from byte 16
// the bytes in a row, 16 bits for each tile, and from byte 48 the rows.
func (t *tiles) configure(cfg [64]byte) error {
	*t = tiles{configured: true}
	if cfg[0] != 1 || cfg[1] != 0 {
		return fmt.Errorf("palette %d and start row %d, want 1 and 0", cfg[0], cfg[1])
	}
	for i := range 16 {
		n, rows := int(binary.LittleEndian.Uint16(cfg[16+2*i:])), int(cfg[48+i])
		if n > rowBytes || rows > maxRows || i >= 8 && n+rows > 0 || (n == 0) != (rows == 0) {
			return fmt.Errorf("tile %d of %d rows of %d bytes", i, rows, n)
		}
		if i < 8 {
			t.rows[i], t.bytes[i] = rows, n
		}
	}
	return nil
}

// multiply is TDPBF16PS: sum[m][n] += Σ_k left[m][k]·right[k][n], where every k is
// a pair of bfloat16. The sums of the first and of the second numbers of the
// pairs are kept apart, each product added with one rounding, then added to each
// other and to what was there. Denormal numbers count as zero.
func (t *tiles) multiply(sum, left, right int) error {
	rows, cols, pairs := t.rows[sum], t.bytes[sum]/4, t.bytes[left]/4
	if rows != t.rows[left] || pairs != t.rows[right] || t.bytes[sum] != t.bytes[right] || sum == left || sum == right || left == right {
		return fmt.Errorf("tiles %d (%d×%d), %d (%d×%d) and %d (%d×%d) do not fit each other", sum, rows, t.bytes[sum],
			left, t.rows[left], t.bytes[left], right, t.rows[right], t.bytes[right])
	}
	at := func(row *[rowBytes]byte, i int) float32 {
		return flush(math.Float32frombits(uint32(binary.LittleEndian.Uint16(row[2*i:])) << 16))
	}
	// A product of two bfloat16 and its sum with a float32 are formed in float64
	// and rounded once more, which is one rounding in all but rare cases.
	fma := func(a, b, c float32) float32 { return flush(float32(math.FMA(float64(a), float64(b), float64(c)))) }
	for m := range rows {
		for n := range cols {
			var first, second float32
			for k := range pairs {
				first = fma(at(&t.data[left][m], 2*k), at(&t.data[right][k], 2*n), first)
				second = fma(at(&t.data[left][m], 2*k+1), at(&t.data[right][k], 2*n+1), second)
			}
			at := t.data[sum][m][4*n:]
			binary.LittleEndian.PutUint32(at, math.Float32bits(flush(flush(word(at))+flush(first+second))))
		}
	}
	return nil
}

func word(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }

// flush makes denormal numbers zero.
func flush(v float32) float32 {
	if math.Abs(float64(v)) < 0x1p-126 {
		return float32(math.Copysign(0, float64(v)))
	}
	return v
}
