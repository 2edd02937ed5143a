//go:build !purego

#include "textflag.h"
#include "conv_avx512.h"
#include "bf16_avx512.h"

// The tiles of conv_avx512_amd64.s on pairs of bfloat16: where those multiply and
// add, these use VDPBF16PS, which adds both products of a pair to a sum.

// WIDE4 adds the outer product of four rows of pairs with Z26, Z27 to the sums from s on.
#define WIDE4(x0, x1, x2, x3, s) \
	VBROADCASTSS x0, Z28   \
	VBROADCASTSS x1, Z29   \
	VBROADCASTSS x2, Z30   \
	VBROADCASTSS x3, Z31   \
	DPBF16(s, 28, 26)      \
	DPBF16((s+1), 28, 27)  \
	DPBF16((s+2), 29, 26)  \
	DPBF16((s+3), 29, 27)  \
	DPBF16((s+4), 30, 26)  \
	DPBF16((s+5), 30, 27)  \
	DPBF16((s+6), 31, 26)  \
	DPBF16((s+7), 31, 27)

// SHORT does so with the column x0..x7, WIDE with x0..x12.
#define SHORT(x0, x1, x2, x3, x4, x5, x6, x7) \
	WIDE4(x0, x1, x2, x3, 0) \
	WIDE4(x4, x5, x6, x7, 8)

#define WIDE(x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12) \
	SHORT(x0, x1, x2, x3, x4, x5, x6, x7) \
	WIDE4(x8, x9, x10, x11, 16) \
	VBROADCASTSS x12, Z28 \
	DPBF16(24, 28, 26) \
	DPBF16(25, 28, 27)

// SLIM4 and SLIM are WIDE4 and WIDE with Z26 alone.
#define SLIM4(x0, x1, x2, x3, s) \
	VBROADCASTSS x0, Z28   \
	VBROADCASTSS x1, Z29   \
	VBROADCASTSS x2, Z30   \
	VBROADCASTSS x3, Z31   \
	DPBF16(s, 28, 26)      \
	DPBF16((s+1), 29, 26)  \
	DPBF16((s+2), 30, 26)  \
	DPBF16((s+3), 31, 26)

#define SLIM(x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12) \
	SLIM4(x0, x1, x2, x3, 0) \
	SLIM4(x4, x5, x6, x7, 4) \
	SLIM4(x8, x9, x10, x11, 8) \
	VBROADCASTSS x12, Z28 \
	DPBF16(12, 28, 26)

// ROUNDROW sets CX to row r of dst, whose elements have two bytes.
#define ROUNDROW(r) \
	MOVLQSX (4*r)(SI), CX \
	LEAQ (DX)(CX*2), CX

// ROUNDWIDE and ROUNDSLIM store a row, whose vectors they know by its number.
#define ROUNDWIDE(r, lo, hi) \
	ROUNDROW(r)                  \
	NARROW2(28, (2*r+1), (2*r))  \
	VMOVUPS Z28, (CX)

#define ROUNDSLIM(r, v) \
	ROUNDROW(r)       \
	NARROW1(28, r)    \
	VMOVUPS Y28, (CX)

// AHEAD fetches what lies a fixed distance after each row into the second cache. Rows
// are pixels that mostly follow each other, so that is where the next tiles' rows are.
// The processor does not see it coming: 13 rows are read side by side, each a few lines
// long. The distance is a tile of 512 channels, or some of fewer. It made 1×1
// convolutions whose pixels come from memory up to 1.4 times as fast (256 to 64
// channels), and cost the others nothing measurable, as products take all of the time.
#define AHEAD \
	PREFETCHT1 13312(R8)(CX*4) \
	PREFETCHT1 13312(R9)(CX*4) \
	PREFETCHT1 13312(R10)(CX*4) \
	PREFETCHT1 13312(R11)(CX*4) \
	PREFETCHT1 13312(R12)(CX*4) \
	PREFETCHT1 13312(R13)(CX*4) \
	PREFETCHT1 13312(R14)(CX*4) \
	PREFETCHT1 13312(R15)(CX*4) \
	PREFETCHT1 13312(AX)(CX*4) \
	PREFETCHT1 13312(BX)(CX*4) \
	PREFETCHT1 13312(DX)(CX*4) \
	PREFETCHT1 13312(SI)(CX*4) \
	PREFETCHT1 13312(BP)(CX*4)

// func pairTile13x32AVX512(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)
// R8..R15, AX, BX, DX, SI, BP are the ends of the source rows, CX runs from -c to 0, DI weights.
TEXT ·pairTile13x32AVX512(SB), NOSPLIT, $32-152
	ZEROWIDE
	BEGIN

next:
	MOVQ tap-8(SP), DI
	CMPQ DI, last-16(SP)
	JGE  store
	TAP
	TESTQ CX, CX
	JZ    next
	PCALIGN $32

pair:
	AHEAD
	VMOVUPS (DI), Z26
	VMOVUPS 64(DI), Z27
	WIDE((R8)(CX*4), (R9)(CX*4), (R10)(CX*4), (R11)(CX*4), (R12)(CX*4), (R13)(CX*4), (R14)(CX*4), (R15)(CX*4), (AX)(CX*4), (BX)(CX*4), (DX)(CX*4), (SI)(CX*4), (BP)(CX*4))
	ADDQ $128, DI
	INCQ CX
	JNZ  pair
	JMP  next

store:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	WIDEROWS(ROUNDWIDE)
	VZEROUPPER
	RET

// func pairTileSums13x32AVX512(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)
// As the one above, but for what becomes of the sums.
TEXT ·pairTileSums13x32AVX512(SB), NOSPLIT, $32-153
	CMPB accumulate+152(FP), $0
	JNE  load
	ZEROWIDE
	JMP  start

load:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	WIDEROWS(LOADWIDE)

start:
	BEGIN

next:
	MOVQ tap-8(SP), DI
	CMPQ DI, last-16(SP)
	JGE  store
	TAP
	TESTQ CX, CX
	JZ    next
	PCALIGN $32

pair:
	AHEAD
	VMOVUPS (DI), Z26
	VMOVUPS 64(DI), Z27
	WIDE((R8)(CX*4), (R9)(CX*4), (R10)(CX*4), (R11)(CX*4), (R12)(CX*4), (R13)(CX*4), (R14)(CX*4), (R15)(CX*4), (AX)(CX*4), (BX)(CX*4), (DX)(CX*4), (SI)(CX*4), (BP)(CX*4))
	ADDQ $128, DI
	INCQ CX
	JNZ  pair
	JMP  next

store:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	WIDEROWS(STOREWIDE)
	VZEROUPPER
	RET

// func pairTile8x32AVX512(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)
// As the one of 13 rows; R8..R15 are the ends of the source rows.
TEXT ·pairTile8x32AVX512(SB), NOSPLIT, $32-152
	ZEROWIDE
	BEGIN

next:
	MOVQ tap-8(SP), DI
	CMPQ DI, last-16(SP)
	JGE  store
	TAPSHORT
	TESTQ CX, CX
	JZ    next
	PCALIGN $32

pair:
	VMOVUPS (DI), Z26
	VMOVUPS 64(DI), Z27
	SHORT((R8)(CX*4), (R9)(CX*4), (R10)(CX*4), (R11)(CX*4), (R12)(CX*4), (R13)(CX*4), (R14)(CX*4), (R15)(CX*4))
	ADDQ $128, DI
	INCQ CX
	JNZ  pair
	JMP  next

store:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	SHORTROWS(ROUNDWIDE)
	VZEROUPPER
	RET

// func pairTileSums8x32AVX512(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)
// As the one of 13 rows; R8..R15 are the ends of the source rows.
TEXT ·pairTileSums8x32AVX512(SB), NOSPLIT, $32-153
	CMPB accumulate+152(FP), $0
	JNE  load
	ZEROWIDE
	JMP  start

load:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	SHORTROWS(LOADWIDE)

start:
	BEGIN

next:
	MOVQ tap-8(SP), DI
	CMPQ DI, last-16(SP)
	JGE  store
	TAPSHORT
	TESTQ CX, CX
	JZ    next
	PCALIGN $32

pair:
	VMOVUPS (DI), Z26
	VMOVUPS 64(DI), Z27
	SHORT((R8)(CX*4), (R9)(CX*4), (R10)(CX*4), (R11)(CX*4), (R12)(CX*4), (R13)(CX*4), (R14)(CX*4), (R15)(CX*4))
	ADDQ $128, DI
	INCQ CX
	JNZ  pair
	JMP  next

store:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	SHORTROWS(STOREWIDE)
	VZEROUPPER
	RET

// func pairTile13x16AVX512(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)
// R8..R15, AX, BX, DX, SI, BP are the ends of the source rows, CX runs from -c to 0, DI weights.
TEXT ·pairTile13x16AVX512(SB), NOSPLIT, $32-152
	ZERONARROW
	BEGIN

next:
	MOVQ tap-8(SP), DI
	CMPQ DI, last-16(SP)
	JGE  store
	TAP
	TESTQ CX, CX
	JZ    next
	PCALIGN $32

pair:
	VMOVUPS (DI), Z26
	SLIM((R8)(CX*4), (R9)(CX*4), (R10)(CX*4), (R11)(CX*4), (R12)(CX*4), (R13)(CX*4), (R14)(CX*4), (R15)(CX*4), (AX)(CX*4), (BX)(CX*4), (DX)(CX*4), (SI)(CX*4), (BP)(CX*4))
	ADDQ $64, DI
	INCQ CX
	JNZ  pair
	JMP  next

store:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	NARROWROWS(ROUNDSLIM)
	VZEROUPPER
	RET

// func pairTileSums13x16AVX512(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)
// As the one above, but for what becomes of the sums.
TEXT ·pairTileSums13x16AVX512(SB), NOSPLIT, $32-153
	CMPB accumulate+152(FP), $0
	JNE  load
	ZERONARROW
	JMP  start

load:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	NARROWROWS(LOADNARROW)

start:
	BEGIN

next:
	MOVQ tap-8(SP), DI
	CMPQ DI, last-16(SP)
	JGE  store
	TAP
	TESTQ CX, CX
	JZ    next
	PCALIGN $32

pair:
	VMOVUPS (DI), Z26
	SLIM((R8)(CX*4), (R9)(CX*4), (R10)(CX*4), (R11)(CX*4), (R12)(CX*4), (R13)(CX*4), (R14)(CX*4), (R15)(CX*4), (AX)(CX*4), (BX)(CX*4), (DX)(CX*4), (SI)(CX*4), (BP)(CX*4))
	ADDQ $64, DI
	INCQ CX
	JNZ  pair
	JMP  next

store:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	NARROWROWS(STORENARROW)
	VZEROUPPER
	RET

// func pairOuterTile13x32AVX512(dst []float32, src, dy []uint32, pixels []int32)
// SI pixel pair, BX pairs left, DX src, DI dy.
TEXT ·pairOuterTile13x32AVX512(SB), NOSPLIT, $0-96
	ZEROWIDE
	MOVQ src_base+24(FP), DX
	MOVQ dy_base+48(FP), DI
	MOVQ pixels_base+72(FP), SI
	MOVQ pixels_len+80(FP), BX
	SHRQ $1, BX
	JZ   store
	PCALIGN $32

pixel:
	MOVLQSX (SI), R8
	MOVLQSX 4(SI), R9
	VMOVUPS (DI)(R9*4), Z26
	VMOVUPS 64(DI)(R9*4), Z27
	LEAQ (DX)(R8*4), R8
	WIDE(0(R8), 4(R8), 8(R8), 12(R8), 16(R8), 20(R8), 24(R8), 28(R8), 32(R8), 36(R8), 40(R8), 44(R8), 48(R8))
	ADDQ $8, SI
	DECQ BX
	JNZ  pixel

store:
	MOVQ dst_base+0(FP), DX
	WIDEROWS(ADDWIDE)
	VZEROUPPER
	RET

// func pairOuterTile13x16AVX512(dst []float32, src, dy []uint32, pixels []int32)
// SI pixel pair, BX pairs left, DX src, DI dy.
TEXT ·pairOuterTile13x16AVX512(SB), NOSPLIT, $0-96
	ZERONARROW
	MOVQ src_base+24(FP), DX
	MOVQ dy_base+48(FP), DI
	MOVQ pixels_base+72(FP), SI
	MOVQ pixels_len+80(FP), BX
	SHRQ $1, BX
	JZ   store
	PCALIGN $32

pixel:
	MOVLQSX (SI), R8
	MOVLQSX 4(SI), R9
	VMOVUPS (DI)(R9*4), Z26
	LEAQ (DX)(R8*4), R8
	SLIM(0(R8), 4(R8), 8(R8), 12(R8), 16(R8), 20(R8), 24(R8), 28(R8), 32(R8), 36(R8), 40(R8), 44(R8), 48(R8))
	ADDQ $8, SI
	DECQ BX
	JNZ  pixel

store:
	MOVQ dst_base+0(FP), DX
	NARROWROWS(ADDNARROW)
	VZEROUPPER
	RET

// func pairOuterTile8x16AVX512(dst []float32, src, dy []uint32, pixels []int32)
// SI pixel pair, BX pairs left, DX src, DI dy.
TEXT ·pairOuterTile8x16AVX512(SB), NOSPLIT, $0-96
	ZERONARROW
	MOVQ src_base+24(FP), DX
	MOVQ dy_base+48(FP), DI
	MOVQ pixels_base+72(FP), SI
	MOVQ pixels_len+80(FP), BX
	SHRQ $1, BX
	JZ   store
	PCALIGN $32

pixel:
	MOVLQSX (SI), R8
	MOVLQSX 4(SI), R9
	VMOVUPS (DI)(R9*4), Z26
	LEAQ (DX)(R8*4), R8
	VBROADCASTSS 0(R8), Z28
	VBROADCASTSS 4(R8), Z29
	VBROADCASTSS 8(R8), Z30
	VBROADCASTSS 12(R8), Z31
	DPBF16(0, 28, 26)
	DPBF16(1, 29, 26)
	DPBF16(2, 30, 26)
	DPBF16(3, 31, 26)
	VBROADCASTSS 16(R8), Z28
	VBROADCASTSS 20(R8), Z29
	VBROADCASTSS 24(R8), Z30
	VBROADCASTSS 28(R8), Z31
	DPBF16(4, 28, 26)
	DPBF16(5, 29, 26)
	DPBF16(6, 30, 26)
	DPBF16(7, 31, 26)
	ADDQ $8, SI
	DECQ BX
	JNZ  pixel

store:
	MOVQ dst_base+0(FP), DX
	ADDNARROW(0, Z0)
	ADDNARROW(1, Z1)
	ADDNARROW(2, Z2)
	ADDNARROW(3, Z3)
	ADDNARROW(4, Z4)
	ADDNARROW(5, Z5)
	ADDNARROW(6, Z6)
	ADDNARROW(7, Z7)
	VZEROUPPER
	RET

// interleave are the words that make pairs of the two halves of a vector: 0, 16, 1, 17, …
DATA interleave<>+0(SB)/8, $0x0011000100100000
DATA interleave<>+8(SB)/8, $0x0013000300120002
DATA interleave<>+16(SB)/8, $0x0015000500140004
DATA interleave<>+24(SB)/8, $0x0017000700160006
DATA interleave<>+32(SB)/8, $0x0019000900180008
DATA interleave<>+40(SB)/8, $0x001b000b001a000a
DATA interleave<>+48(SB)/8, $0x001d000d001c000c
DATA interleave<>+56(SB)/8, $0x001f000f001e000e
GLOBL interleave<>(SB), RODATA|NOPTR, $64

// func packRows16AVX512(dst []uint32, src []float32, stride int)
// DI dst, CX pairs left, SI row, DX stride in bytes.
TEXT ·packRows16AVX512(SB), NOSPLIT, $0-56
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), DX
	SHLQ $2, DX
	VMOVDQU32 interleave<>(SB), Z31
	SUBQ $16, CX
	JLT  done

row:
	VMOVUPS (SI), Z0
	VMOVUPS (SI)(DX*1), Z1
	NARROW2(2, 1, 0)
	VPERMW Z2, Z31, Z2
	VMOVDQU32 Z2, (DI)
	LEAQ (SI)(DX*2), SI
	ADDQ $64, DI
	SUBQ $16, CX
	JGE  row

done:
	VZEROUPPER
	RET

// func packRows32AVX512(dst []uint32, src []float32, stride int)
// DI dst, CX pairs left, SI row, DX stride in bytes.
TEXT ·packRows32AVX512(SB), NOSPLIT, $0-56
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), DX
	SHLQ $2, DX
	VMOVDQU32 interleave<>(SB), Z31
	SUBQ $32, CX
	JLT  done

row:
	VMOVUPS (SI), Z0
	VMOVUPS (SI)(DX*1), Z1
	NARROW2(2, 1, 0)
	VPERMW Z2, Z31, Z2
	VMOVDQU32 Z2, (DI)
	VMOVUPS 64(SI), Z0
	VMOVUPS 64(SI)(DX*1), Z1
	NARROW2(2, 1, 0)
	VPERMW Z2, Z31, Z2
	VMOVDQU32 Z2, 64(DI)
	LEAQ (SI)(DX*2), SI
	ADDQ $128, DI
	SUBQ $32, CX
	JGE  row

done:
	VZEROUPPER
	RET

// func packImages16AVX512(dst []uint32, a, b []uint16, width, stride int, load, store uint32)
// DI dst, CX pairs left, SI pixel of a, R8 of b, DX stride in bytes, R9 width; K1 elements
// to load and K3 pairs to store.
TEXT ·packImages16AVX512(SB), NOSPLIT, $0-96
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ a_base+24(FP), SI
	MOVQ b_base+48(FP), R8
	MOVQ width+72(FP), R9
	MOVQ stride+80(FP), DX
	SHLQ $1, DX
	MOVL load+88(FP), AX
	KMOVW AX, K1
	MOVL store+92(FP), AX
	KMOVW AX, K3
	SUBQ R9, CX
	JLT  done

pixel:
	VPMOVZXWD.Z (SI), K1, Z0
	VPMOVZXWD.Z (R8), K1, Z1
	VPSLLD $16, Z1, Z1
	VPORD Z0, Z1, Z0
	VMOVDQU32 Z0, K3, (DI)
	ADDQ DX, SI
	ADDQ DX, R8
	LEAQ (DI)(R9*4), DI
	SUBQ R9, CX
	JGE  pixel

done:
	VZEROUPPER
	RET

// func packImages32AVX512(dst []uint32, a, b []uint16, width, stride int, load, store uint32)
// DI dst, CX pairs left, SI pixel of a, R8 of b, DX stride in bytes, R9 width; K1, K2 elements
// to load and K3, K4 pairs to store.
TEXT ·packImages32AVX512(SB), NOSPLIT, $0-96
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ a_base+24(FP), SI
	MOVQ b_base+48(FP), R8
	MOVQ width+72(FP), R9
	MOVQ stride+80(FP), DX
	SHLQ $1, DX
	MOVL load+88(FP), AX
	KMOVW AX, K1
	SHRL $16, AX
	KMOVW AX, K2
	MOVL store+92(FP), AX
	KMOVW AX, K3
	SHRL $16, AX
	KMOVW AX, K4
	SUBQ R9, CX
	JLT  done

pixel:
	VPMOVZXWD.Z (SI), K1, Z0
	VPMOVZXWD.Z (R8), K1, Z1
	VPSLLD $16, Z1, Z1
	VPORD Z0, Z1, Z0
	VMOVDQU32 Z0, K3, (DI)
	VPMOVZXWD.Z 32(SI), K2, Z2
	VPMOVZXWD.Z 32(R8), K2, Z3
	VPSLLD $16, Z3, Z3
	VPORD Z2, Z3, Z2
	VMOVDQU32 Z2, K4, 64(DI)
	ADDQ DX, SI
	ADDQ DX, R8
	LEAQ (DI)(R9*4), DI
	SUBQ R9, CX
	JGE  pixel

done:
	VZEROUPPER
	RET

// func narrowAVX512(dst []uint16, src []float32)
// DI dst, SI src, CX elements left.
TEXT ·narrowAVX512(SB), NOSPLIT, $0-48
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ src_base+24(FP), SI
	SUBQ $32, CX
	JLT  rest

vector:
	VMOVUPS (SI), Z0
	VMOVUPS 64(SI), Z1
	NARROW2(2, 1, 0)
	VMOVDQU32 Z2, (DI)
	ADDQ $128, SI
	ADDQ $64, DI
	SUBQ $32, CX
	JGE  vector

rest:
	ADDQ $32, CX
	JZ   done
	MOVQ $-1, AX
	SHLQ CX, AX
	NOTQ AX
	KMOVD AX, K1
	KSHIFTRD $16, K1, K2
	VMOVUPS.Z (SI), K1, Z0
	VMOVUPS.Z 64(SI), K2, Z1
	NARROW2(2, 1, 0)
	VMOVDQU16 Z2, K1, (DI)

done:
	VZEROUPPER
	RET

// func widenAVX512(dst []float32, src []uint16)
// DI dst, SI src, CX elements left.
TEXT ·widenAVX512(SB), NOSPLIT, $0-48
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ src_base+24(FP), SI
	SUBQ $32, CX
	JLT  rest

vector:
	VPMOVZXWD (SI), Z0
	VPMOVZXWD 32(SI), Z1
	VPSLLD $16, Z0, Z0
	VPSLLD $16, Z1, Z1
	VMOVUPS Z0, (DI)
	VMOVUPS Z1, 64(DI)
	ADDQ $64, SI
	ADDQ $128, DI
	SUBQ $32, CX
	JGE  vector

rest:
	ADDQ $32, CX
	JZ   done
	MOVQ $-1, AX
	SHLQ CX, AX
	NOTQ AX
	KMOVD AX, K1
	KSHIFTRD $16, K1, K2
	VPMOVZXWD.Z (SI), K1, Z0
	VPMOVZXWD.Z 32(SI), K2, Z1
	VPSLLD $16, Z0, Z0
	VPSLLD $16, Z1, Z1
	VMOVUPS Z0, K1, (DI)
	VMOVUPS Z1, K2, 64(DI)

done:
	VZEROUPPER
	RET
