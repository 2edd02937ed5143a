//go:build !purego

#include "textflag.h"
#include "conv_avx512.h"

// SHORT adds the outer product of the column x0..x7 with Z26, Z27.
#define SHORT(x0, x1, x2, x3, x4, x5, x6, x7) \
	VBROADCASTSS x0, Z28      \
	VBROADCASTSS x1, Z29      \
	VBROADCASTSS x2, Z30      \
	VBROADCASTSS x3, Z31      \
	VFMADD231PS Z26, Z28, Z0  \
	VFMADD231PS Z27, Z28, Z1  \
	VFMADD231PS Z26, Z29, Z2  \
	VFMADD231PS Z27, Z29, Z3  \
	VFMADD231PS Z26, Z30, Z4  \
	VFMADD231PS Z27, Z30, Z5  \
	VFMADD231PS Z26, Z31, Z6  \
	VFMADD231PS Z27, Z31, Z7  \
	VBROADCASTSS x4, Z28      \
	VBROADCASTSS x5, Z29      \
	VBROADCASTSS x6, Z30      \
	VBROADCASTSS x7, Z31      \
	VFMADD231PS Z26, Z28, Z8  \
	VFMADD231PS Z27, Z28, Z9  \
	VFMADD231PS Z26, Z29, Z10 \
	VFMADD231PS Z27, Z29, Z11 \
	VFMADD231PS Z26, Z30, Z12 \
	VFMADD231PS Z27, Z30, Z13 \
	VFMADD231PS Z26, Z31, Z14 \
	VFMADD231PS Z27, Z31, Z15

// WIDE adds the outer product of the column x0..x12 with Z26, Z27.
#define WIDE(x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12) \
	SHORT(x0, x1, x2, x3, x4, x5, x6, x7) \
	VBROADCASTSS x8, Z28      \
	VBROADCASTSS x9, Z29      \
	VBROADCASTSS x10, Z30     \
	VBROADCASTSS x11, Z31     \
	VFMADD231PS Z26, Z28, Z16 \
	VFMADD231PS Z27, Z28, Z17 \
	VFMADD231PS Z26, Z29, Z18 \
	VFMADD231PS Z27, Z29, Z19 \
	VFMADD231PS Z26, Z30, Z20 \
	VFMADD231PS Z27, Z30, Z21 \
	VFMADD231PS Z26, Z31, Z22 \
	VFMADD231PS Z27, Z31, Z23 \
	VBROADCASTSS x12, Z28     \
	VFMADD231PS Z26, Z28, Z24 \
	VFMADD231PS Z27, Z28, Z25

// NARROW adds the outer product of the column x0..x12 with Z26.
#define NARROW(x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12) \
	VFMADD231PS.BCST x0, Z26, Z0   \
	VFMADD231PS.BCST x1, Z26, Z1   \
	VFMADD231PS.BCST x2, Z26, Z2   \
	VFMADD231PS.BCST x3, Z26, Z3   \
	VFMADD231PS.BCST x4, Z26, Z4   \
	VFMADD231PS.BCST x5, Z26, Z5   \
	VFMADD231PS.BCST x6, Z26, Z6   \
	VFMADD231PS.BCST x7, Z26, Z7   \
	VFMADD231PS.BCST x8, Z26, Z8   \
	VFMADD231PS.BCST x9, Z26, Z9   \
	VFMADD231PS.BCST x10, Z26, Z10 \
	VFMADD231PS.BCST x11, Z26, Z11 \
	VFMADD231PS.BCST x12, Z26, Z12

// func convTile13x32AVX512(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool)
// R8..R15, AX, BX, DX, SI, BP are the ends of the source rows, CX runs from -c to 0, DI weights.
TEXT ·convTile13x32AVX512(SB), NOSPLIT, $32-153
	ZEROWIDE
	BEGIN

next:
	MOVQ tap-8(SP), DI
	CMPQ DI, last-16(SP)
	JGE  end
	TAP
	TESTQ CX, CX
	JZ    next
	PCALIGN $32

channel:
	VMOVUPS (DI), Z26
	VMOVUPS 64(DI), Z27
	WIDE((R8)(CX*4), (R9)(CX*4), (R10)(CX*4), (R11)(CX*4), (R12)(CX*4), (R13)(CX*4), (R14)(CX*4), (R15)(CX*4), (AX)(CX*4), (BX)(CX*4), (DX)(CX*4), (SI)(CX*4), (BP)(CX*4))
	ADDQ $128, DI
	INCQ CX
	JNZ  channel
	JMP  next

end:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	CMPB accumulate+152(FP), $0
	JEQ  store
	WIDEROWS(PLUSWIDE)

store:
	WIDEROWS(STOREWIDE)
	VZEROUPPER
	RET

// func convTile8x32AVX512(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool)
// As the one of 13 rows; R8..R15 are the ends of the source rows.
TEXT ·convTile8x32AVX512(SB), NOSPLIT, $32-153
	ZEROWIDE
	BEGIN

next:
	MOVQ tap-8(SP), DI
	CMPQ DI, last-16(SP)
	JGE  end
	TAPSHORT
	TESTQ CX, CX
	JZ    next
	PCALIGN $32

channel:
	VMOVUPS (DI), Z26
	VMOVUPS 64(DI), Z27
	SHORT((R8)(CX*4), (R9)(CX*4), (R10)(CX*4), (R11)(CX*4), (R12)(CX*4), (R13)(CX*4), (R14)(CX*4), (R15)(CX*4))
	ADDQ $128, DI
	INCQ CX
	JNZ  channel
	JMP  next

end:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	CMPB accumulate+152(FP), $0
	JEQ  store
	SHORTROWS(PLUSWIDE)

store:
	SHORTROWS(STOREWIDE)
	VZEROUPPER
	RET

// func convTile13x16AVX512(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool)
// R8..R15, AX, BX, DX, SI, BP are the ends of the source rows, CX runs from -c to 0, DI weights.
TEXT ·convTile13x16AVX512(SB), NOSPLIT, $32-153
	ZERONARROW
	BEGIN

next:
	MOVQ tap-8(SP), DI
	CMPQ DI, last-16(SP)
	JGE  end
	TAP
	TESTQ CX, CX
	JZ    next
	PCALIGN $32

channel:
	VMOVUPS (DI), Z26
	NARROW((R8)(CX*4), (R9)(CX*4), (R10)(CX*4), (R11)(CX*4), (R12)(CX*4), (R13)(CX*4), (R14)(CX*4), (R15)(CX*4), (AX)(CX*4), (BX)(CX*4), (DX)(CX*4), (SI)(CX*4), (BP)(CX*4))
	ADDQ $64, DI
	INCQ CX
	JNZ  channel
	JMP  next

end:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	CMPB accumulate+152(FP), $0
	JEQ  store
	NARROWROWS(PLUSNARROW)

store:
	NARROWROWS(STORENARROW)
	VZEROUPPER
	RET

// func outerTile13x32AVX512(dst, src, dy []float32, pixels []int32)
// SI pixel pair, BX pairs left, DX src, DI dy.
TEXT ·outerTile13x32AVX512(SB), NOSPLIT, $0-96
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

// func outerTile13x16AVX512(dst, src, dy []float32, pixels []int32)
// SI pixel pair, BX pairs left, DX src, DI dy.
TEXT ·outerTile13x16AVX512(SB), NOSPLIT, $0-96
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
	NARROW(0(R8), 4(R8), 8(R8), 12(R8), 16(R8), 20(R8), 24(R8), 28(R8), 32(R8), 36(R8), 40(R8), 44(R8), 48(R8))
	ADDQ $8, SI
	DECQ BX
	JNZ  pixel

store:
	MOVQ dst_base+0(FP), DX
	NARROWROWS(ADDNARROW)
	VZEROUPPER
	RET

// func outerTile8x16AVX512(dst, src, dy []float32, pixels []int32)
// As the others, with eight rows Z0..Z7.
TEXT ·outerTile8x16AVX512(SB), NOSPLIT, $0-96
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
	VFMADD231PS.BCST 0(R8), Z26, Z0
	VFMADD231PS.BCST 4(R8), Z26, Z1
	VFMADD231PS.BCST 8(R8), Z26, Z2
	VFMADD231PS.BCST 12(R8), Z26, Z3
	VFMADD231PS.BCST 16(R8), Z26, Z4
	VFMADD231PS.BCST 20(R8), Z26, Z5
	VFMADD231PS.BCST 24(R8), Z26, Z6
	VFMADD231PS.BCST 28(R8), Z26, Z7
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

// func pack32AVX512(dst, src []float32, stride int)
// DI dst, CX elements left, SI src row, DX stride in bytes.
TEXT ·pack32AVX512(SB), NOSPLIT, $0-56
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), DX
	SHLQ $2, DX
	SUBQ $32, CX
	JLT  done

row:
	VMOVUPS (SI), Z0
	VMOVUPS 64(SI), Z1
	VMOVUPS Z0, (DI)
	VMOVUPS Z1, 64(DI)
	ADDQ DX, SI
	ADDQ $128, DI
	SUBQ $32, CX
	JGE  row

done:
	VZEROUPPER
	RET

// Elements 5, 6 and 7 of a row are written twice.
// func pack13AVX512(dst, src []float32, stride int)
// DI dst, CX elements left, SI src row, DX stride in bytes.
TEXT ·pack13AVX512(SB), NOSPLIT, $0-56
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), DX
	SHLQ $2, DX
	SUBQ $13, CX
	JLT  done

row:
	VMOVUPS (SI), Y0
	VMOVUPS 20(SI), Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 20(DI)
	ADDQ DX, SI
	ADDQ $52, DI
	SUBQ $13, CX
	JGE  row

done:
	VZEROUPPER
	RET

// func pack8AVX512(dst, src []float32, stride int)
// DI dst, CX elements left, SI src row, DX stride in bytes.
TEXT ·pack8AVX512(SB), NOSPLIT, $0-56
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), DX
	SHLQ $2, DX
	SUBQ $8, CX
	JLT  done

row:
	VMOVUPS (SI), Y0
	VMOVUPS Y0, (DI)
	ADDQ DX, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JGE  row

done:
	VZEROUPPER
	RET
