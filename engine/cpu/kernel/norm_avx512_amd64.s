//go:build !purego

#include "textflag.h"
#include "bf16_avx512.h"

// The kernels of norm.go go down the rows for 32 channels at a time, a cache line of
// bfloat16, and once more for the channels that remain. R8 is the length of a row in
// bytes, R9 runs over the rows to AX, CX counts the channels that are left, and K1
// and K2 are those of the two vectors that exist.

// GROUP sets the masks, and goes to done when no channel is left. R14 is 1 when all
// 32 exist.
#define GROUP \
	TESTQ    CX, CX      \
	JLE      done        \
	MOVQ     $-1, R14     \
	CMPQ     CX, $32     \
	JGE      whole       \
	SHLQ     CX, R14      \
	NOTQ     R14          \
whole:                   \
	KMOVD    R14, K1      \
	KSHIFTRD $16, K1, K2 \
	XORQ     R9, R9

// NUMBERS sets lo and hi to the 32 numbers at a row of base.
#define NUMBERS(base, lo, hi) \
	VPMOVZXWD.Z (base)(R9*1), K1, lo   \
	VPMOVZXWD.Z 32(base)(R9*1), K2, hi \
	VPSLLD      $16, lo, lo            \
	VPSLLD      $16, hi, hi

// CHANNELS loads the values of the channels at base, PUT stores them.
#define CHANNELS(base, lo, hi) \
	VMOVUPS.Z (base), K1, lo   \
	VMOVUPS.Z 64(base), K2, hi

#define PUT(base, lo, hi) \
	VMOVUPS lo, K1, (base)   \
	VMOVUPS hi, K2, 64(base)

// ROUND stores Z0, Z1 at a row of DI, rounded to bfloat16. It spoils Z2. A store with a
// mask takes longer, and when dst is an operand the load of the next row must wait for
// it, as it counts as one of 64 bytes: 16 channels, as in ResNet-20, are stored as such.
#define ROUND(part, half, stored) \
	NARROW2(2, 1, 0)              \
	CMPQ      CX, $32             \
	JLT       part                \
	VMOVDQU32 Z2, (DI)(R9*1)      \
	JMP       stored              \
part:                             \
	CMPQ      CX, $16             \
	JEQ       half                \
	VMOVDQU16 Z2, K1, (DI)(R9*1)  \
	JMP       stored              \
half:                             \
	VMOVDQU32 Y2, (DI)(R9*1)      \
stored:

// func normaliseAVX512(dst, x []uint16, scale, shift []float32, add []uint16, addScale, addShift []float32, low float32)
// DI dst, SI x, DX add; R10 scale, R11 shift, R12 and R13 those of add; Z31 low.
TEXT ·normaliseAVX512(SB), NOSPLIT, $0-172
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), AX
	MOVQ x_base+24(FP), SI
	MOVQ scale_base+48(FP), R10
	MOVQ scale_len+56(FP), CX
	MOVQ shift_base+72(FP), R11
	MOVQ add_base+96(FP), DX
	MOVQ add_len+104(FP), BX
	MOVQ addScale_base+120(FP), R12
	MOVQ addShift_base+144(FP), R13
	VBROADCASTSS low+168(FP), Z31
	ADDQ AX, AX
	JZ   done
	LEAQ (CX)(CX*1), R8

group:
	GROUP
	CHANNELS(R10, Z16, Z17)
	CHANNELS(R11, Z18, Z19)
	TESTQ BX, BX
	JNZ   both

one:
	NUMBERS(SI, Z0, Z1)
	VFMADD213PS Z18, Z16, Z0
	VFMADD213PS Z19, Z17, Z1
	VMAXPS Z0, Z31, Z0
	VMAXPS Z1, Z31, Z1
	ROUND(onePart, oneHalf, oneStored)
	ADDQ R8, R9
	CMPQ R9, AX
	JLT  one
	JMP  next

both:
	CHANNELS(R12, Z20, Z21)
	CHANNELS(R13, Z22, Z23)
	ADDQ $128, R12
	ADDQ $128, R13

two:
	NUMBERS(SI, Z0, Z1)
	NUMBERS(DX, Z2, Z3)
	VFMADD213PS Z18, Z16, Z0
	VFMADD213PS Z19, Z17, Z1
	VFMADD213PS Z22, Z20, Z2
	VFMADD213PS Z23, Z21, Z3
	VADDPS Z2, Z0, Z0
	VADDPS Z3, Z1, Z1
	VMAXPS Z0, Z31, Z0
	VMAXPS Z1, Z31, Z1
	ROUND(twoPart, twoHalf, twoStored)
	ADDQ R8, R9
	CMPQ R9, AX
	JLT  two
	ADDQ $64, DX

next:
	ADDQ $64, DI
	ADDQ $64, SI
	ADDQ $128, R10
	ADDQ $128, R11
	SUBQ $32, CX
	JMP  group

done:
	VZEROUPPER
	RET

// func gateSumsAVX512(g, d, more, y, x []uint16, mean, sum, products []float32)
// DI g, SI d, DX more, BX y, R10 x; R11 mean, R12 sum, R13 products. Z16, Z17 the mean,
// Z18, Z19 the sum, Z20, Z21 the products, Z31 zero. R15 has bit 0 when g is given, bit 1
// when more is, bit 2 when y is.
TEXT ·gateSumsAVX512(SB), NOSPLIT, $0-192
	MOVQ g_base+0(FP), DI
	MOVQ d_base+24(FP), SI
	MOVQ more_base+48(FP), DX
	MOVQ y_base+72(FP), BX
	MOVQ x_base+96(FP), R10
	MOVQ x_len+104(FP), AX
	MOVQ mean_base+120(FP), R11
	MOVQ sum_base+144(FP), R12
	MOVQ sum_len+152(FP), CX
	MOVQ products_base+168(FP), R13
	ADDQ AX, AX
	JZ   done
	LEAQ (CX)(CX*1), R8
	VPXORD Z31, Z31, Z31
	XORQ R15, R15
	CMPQ g_len+8(FP), $0
	JE   without
	ORQ  $1, R15

without:
	CMPQ more_len+56(FP), $0
	JE   alone
	ORQ  $2, R15

alone:
	CMPQ y_len+80(FP), $0
	JE   group
	ORQ  $4, R15

group:
	GROUP
	CHANNELS(R11, Z16, Z17)
	CHANNELS(R12, Z18, Z19)
	CHANNELS(R13, Z20, Z21)

row:
	NUMBERS(SI, Z0, Z1)
	TESTB $2, R15
	JZ    gate
	NUMBERS(DX, Z2, Z3)
	VADDPS Z2, Z0, Z0
	VADDPS Z3, Z1, Z1

gate:
	TESTB $4, R15
	JZ    store
	NUMBERS(BX, Z2, Z3)
	VCMPPS $1, Z2, Z31, K3 // 0 < y
	VCMPPS $1, Z3, Z31, K4
	VMOVAPS.Z Z0, K3, Z0
	VMOVAPS.Z Z1, K4, Z1

store:
	TESTB $1, R15
	JZ    stored
	ROUND(part, half, stored)
	NUMBERS(R10, Z2, Z3)
	VSUBPS Z16, Z2, Z2
	VSUBPS Z17, Z3, Z3
	VADDPS Z0, Z18, Z18
	VADDPS Z1, Z19, Z19
	VFMADD231PS Z0, Z2, Z20
	VFMADD231PS Z1, Z3, Z21
	ADDQ R8, R9
	CMPQ R9, AX
	JLT  row
	PUT(R12, Z18, Z19)
	PUT(R13, Z20, Z21)
	ADDQ $64, DI
	ADDQ $64, SI
	ADDQ $64, DX
	ADDQ $64, BX
	ADDQ $64, R10
	ADDQ $128, R11
	ADDQ $128, R12
	ADDQ $128, R13
	SUBQ $32, CX
	JMP  group

done:
	VZEROUPPER
	RET

// func momentsBF16AVX512(sum, squares []float32, x []uint16, mean []float32)
// R12 sum, R13 squares, SI x, R11 mean. Z16, Z17 the mean, Z18, Z19 the sum, Z20, Z21 the
// squares.
TEXT ·momentsBF16AVX512(SB), NOSPLIT, $0-96
	MOVQ sum_base+0(FP), R12
	MOVQ sum_len+8(FP), CX
	MOVQ squares_base+24(FP), R13
	MOVQ x_base+48(FP), SI
	MOVQ x_len+56(FP), AX
	MOVQ mean_base+72(FP), R11
	ADDQ AX, AX
	JZ   done
	LEAQ (CX)(CX*1), R8

group:
	GROUP
	CHANNELS(R11, Z16, Z17)
	CHANNELS(R12, Z18, Z19)
	CHANNELS(R13, Z20, Z21)

row:
	NUMBERS(SI, Z0, Z1)
	VSUBPS Z16, Z0, Z0
	VSUBPS Z17, Z1, Z1
	VADDPS Z0, Z18, Z18
	VADDPS Z1, Z19, Z19
	VFMADD231PS Z0, Z0, Z20
	VFMADD231PS Z1, Z1, Z21
	ADDQ R8, R9
	CMPQ R9, AX
	JLT  row
	PUT(R12, Z18, Z19)
	PUT(R13, Z20, Z21)
	ADDQ $64, SI
	ADDQ $128, R11
	ADDQ $128, R12
	ADDQ $128, R13
	SUBQ $32, CX
	JMP  group

done:
	VZEROUPPER
	RET
