//go:build !purego

#include "textflag.h"
#include "vectors_avx2.h"
#include "winograd2_float32.h"

// The transforms of winograd.go, 8 channels at a time. AX is the offset of the
// channels in bytes, R9 the size of a plane, R10 that of three.

// func winogradInputAVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)
// SI patch, BX patches left, DX src, R8 zero, DI dst, R11 dst of these channels,
// R15 end of the channels; the stack holds sixteen pointers.
TEXT ·winogradInputAVX2(SB), NOSPLIT, $128-120
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), DX
	MOVQ zero_base+48(FP), R8
	MOVQ patches_base+72(FP), SI
	MOVQ patches_len+80(FP), BX
	MOVQ c+96(FP), R15
	MOVQ plane+112(FP), R9
	SHRQ $4, BX
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~7, R15
	JZ   done
	SHLQ $2, R15

patch:
	TESTQ BX, BX
	JZ    done
	SPILL(0)
	SPILL(1)
	SPILL(2)
	SPILL(3)
	SPILL(4)
	SPILL(5)
	SPILL(6)
	SPILL(7)
	SPILL(8)
	SPILL(9)
	SPILL(10)
	SPILL(11)
	SPILL(12)
	SPILL(13)
	SPILL(14)
	SPILL(15)
	XORQ AX, AX
	MOVQ DI, R11

channels:
	COLUMN(0, Y0, Y4, Y8, Y12)
	COLUMN(1, Y1, Y5, Y9, Y13)
	COLUMN(2, Y2, Y6, Y10, Y14)
	COLUMN(3, Y3, Y7, Y11, Y15)
	INPUTROW(R11, Y0, Y1, Y2, Y3)
	LEAQ (R11)(R9*4), CX
	INPUTROW(CX, Y4, Y5, Y6, Y7)
	LEAQ (CX)(R9*4), CX
	INPUTROW(CX, Y8, Y9, Y10, Y11)
	LEAQ (CX)(R9*4), CX
	INPUTROW(CX, Y12, Y13, Y14, Y15)
	ADDQ $32, AX
	ADDQ $32, R11
	CMPQ AX, R15
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*4), DI
	ADDQ $64, SI
	DECQ BX
	JMP  patch

done:
	VZEROUPPER
	RET

// func winogradGradientAVX2(dst, src, zero []float32, patches []int32, c, stride, plane int)
// As winogradInputAVX2, with the four pointers in R12..R15 and the end of the channels at c.
TEXT ·winogradGradientAVX2(SB), NOSPLIT, $8-120
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), DX
	MOVQ zero_base+48(FP), R8
	MOVQ patches_base+72(FP), SI
	MOVQ patches_len+80(FP), BX
	MOVQ c+96(FP), R11
	MOVQ plane+112(FP), R9
	SHRQ $2, BX
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~7, R11
	JZ   done
	SHLQ $2, R11
	MOVQ R11, (SP)

patch:
	TESTQ BX, BX
	JZ    done
	POINTER(0, R8, R12)
	POINTER(1, R8, R13)
	POINTER(2, R8, R14)
	POINTER(3, R8, R15)
	XORQ AX, AX
	MOVQ DI, R11

channels:
	VMOVUPS (R12)(AX*1), Y0
	VMOVUPS (R13)(AX*1), Y1
	VMOVUPS (R14)(AX*1), Y2
	VMOVUPS (R15)(AX*1), Y3
	VADDPS Y2, Y0, Y4
	VADDPS Y3, Y1, Y5
	VSUBPS Y2, Y0, Y6
	VSUBPS Y3, Y1, Y7
	GRADIENTROW(R11, Y0, Y1)
	LEAQ (R11)(R9*4), CX
	GRADIENTROW(CX, Y4, Y5)
	LEAQ (CX)(R9*4), CX
	GRADIENTROW(CX, Y6, Y7)
	LEAQ (CX)(R9*4), CX
	GRADIENTROW(CX, Y2, Y3)
	ADDQ $32, AX
	ADDQ $32, R11
	CMPQ AX, (SP)
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*4), DI
	ADDQ $16, SI
	DECQ BX
	JMP  patch

done:
	VZEROUPPER
	RET

// func winogradOutputAVX2(dst, src []float32, at []int32, c, stride, plane int)
// SI offsets of a tile, BX tiles left, R8 src, R12..R15 destinations or 0; CX, DX,
// DI, R11 are the four rows of planes.
TEXT ·winogradOutputAVX2(SB), NOSPLIT, $8-96
	MOVQ src_base+24(FP), R8
	MOVQ at_base+48(FP), SI
	MOVQ at_len+56(FP), BX
	MOVQ c+72(FP), R11
	MOVQ plane+88(FP), R9
	SHRQ $2, BX
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~7, R11
	JZ   done
	SHLQ $2, R11
	MOVQ R11, (SP)

tile:
	TESTQ BX, BX
	JZ    done
	MOVQ  dst_base+0(FP), DX
	XORQ  AX, AX
	POINTER(0, AX, R12)
	POINTER(1, AX, R13)
	POINTER(2, AX, R14)
	POINTER(3, AX, R15)

channels:
	LEAQ (R8)(AX*1), CX
	LEAQ (CX)(R9*4), DX
	LEAQ (DX)(R9*4), DI
	LEAQ (DI)(R9*4), R11
	OUTPUTCOLUMN((CX), (DX), (DI), (R11), Y0, Y4)
	OUTPUTCOLUMN((CX)(R9*1), (DX)(R9*1), (DI)(R9*1), (R11)(R9*1), Y1, Y5)
	OUTPUTCOLUMN((CX)(R9*2), (DX)(R9*2), (DI)(R9*2), (R11)(R9*2), Y2, Y6)
	OUTPUTCOLUMN((CX)(R10*1), (DX)(R10*1), (DI)(R10*1), (R11)(R10*1), Y3, Y7)
	OUTPUTROW(Y0, Y1, Y2, Y3, R12, R13, no0, no1)
	OUTPUTROW(Y4, Y5, Y6, Y7, R14, R15, no2, no3)
	ADDQ $32, AX
	CMPQ AX, (SP)
	JLT  channels
	MOVQ stride+80(FP), CX
	LEAQ (R8)(CX*4), R8
	ADDQ $16, SI
	DECQ BX
	JMP  tile

done:
	VZEROUPPER
	RET

// func winogradOutputEpilogueAVX2(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32)
// Registers as above, but BX is the distance from dst to add; the stack holds the
// end of the channels and the tiles left. Y10 and Y11 are before and after.
TEXT ·winogradOutputEpilogueAVX2(SB), NOSPLIT, $16-144
	MOVQ src_base+24(FP), R8
	MOVQ at_base+48(FP), SI
	MOVQ at_len+56(FP), CX
	MOVQ bias_len+120(FP), R11
	MOVQ plane+80(FP), R9
	MOVQ add_base+88(FP), BX
	SUBQ dst_base+0(FP), BX
	SHRQ $2, CX
	MOVQ CX, 8(SP)
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~7, R11
	JZ   done
	SHLQ $2, R11
	MOVQ R11, (SP)
	VBROADCASTSS before+136(FP), Y10
	VBROADCASTSS after+140(FP), Y11
	CMPQ add_len+96(FP), $0
	JNE  tile
	VMAXPS Y11, Y10, Y10

tile:
	DECQ 8(SP)
	JLT  done
	MOVQ dst_base+0(FP), DX
	XORQ AX, AX
	POINTER(0, AX, R12)
	POINTER(1, AX, R13)
	POINTER(2, AX, R14)
	POINTER(3, AX, R15)
	CMPQ add_len+96(FP), $0
	JNE  adding

channels:
	MOVQ bias_base+112(FP), CX
	ENDCOLUMNS
	LOWERROW(Y0, Y1, Y2, Y3)
	ENDROW(R12, R13, no0, no1)
	LOWERROW(Y4, Y5, Y6, Y7)
	ENDROW(R14, R15, no2, no3)
	ADDQ $32, AX
	CMPQ AX, (SP)
	JLT  channels
	JMP  next

adding:
	MOVQ bias_base+112(FP), CX
	ENDCOLUMNS
	LEAQ (AX)(BX*1), CX
	LOWERROW(Y0, Y1, Y2, Y3)
	ADDROW(R12, R13, no4, no5)
	LOWERROW(Y4, Y5, Y6, Y7)
	ADDROW(R14, R15, no6, no7)
	ADDQ $32, AX
	CMPQ AX, (SP)
	JLT  adding

next:
	MOVQ stride+72(FP), CX
	LEAQ (R8)(CX*4), R8
	ADDQ $16, SI
	JMP  tile

done:
	VZEROUPPER
	RET

// A half, for the transforms of the weights.
DATA halfAVX2<>+0(SB)/4, $0.5
GLOBL halfAVX2<>(SB), RODATA|NOPTR, $4

// func winogradWeightsAVX2(dst, src []float32, n, tap, plane int)
// SI, R11, R12 are three rows of taps, R8 the size of a tap, DI dst, BX elements left.
TEXT ·winogradWeightsAVX2(SB), NOSPLIT, $0-72
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ n+48(FP), BX
	MOVQ tap+56(FP), R8
	MOVQ plane+64(FP), R9
	SHLQ $2, R8
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	LEAQ (R8)(R8*2), CX
	LEAQ (SI)(CX*1), R11
	LEAQ (R11)(CX*1), R12
	VBROADCASTSS halfAVX2<>(SB), Y15
	SUBQ $8, BX
	JLT  done

elements:
	WEIGHTCOLUMN((SI), (R11), (R12), Y0, Y3, Y6, Y9)
	WEIGHTCOLUMN((SI)(R8*1), (R11)(R8*1), (R12)(R8*1), Y1, Y4, Y7, Y10)
	WEIGHTCOLUMN((SI)(R8*2), (R11)(R8*2), (R12)(R8*2), Y2, Y5, Y8, Y11)
	WEIGHTROW(DI, Y0, Y1, Y2)
	LEAQ (DI)(R9*4), CX
	WEIGHTROW(CX, Y3, Y4, Y5)
	LEAQ (CX)(R9*4), CX
	WEIGHTROW(CX, Y6, Y7, Y8)
	LEAQ (CX)(R9*4), CX
	WEIGHTROW(CX, Y9, Y10, Y11)
	ADDQ $32, SI
	ADDQ $32, R11
	ADDQ $32, R12
	ADDQ $32, DI
	SUBQ $8, BX
	JGE  elements

done:
	VZEROUPPER
	RET

// func winogradSumsAVX2(dst, src []float32, n, tap, plane int)
// SI, CX, DX, R11 are four rows of planes, DI, R12, R13 three rows of taps, R8 the
// size of a tap, BX elements left.
TEXT ·winogradSumsAVX2(SB), NOSPLIT, $0-72
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ n+48(FP), BX
	MOVQ tap+56(FP), R8
	MOVQ plane+64(FP), R9
	SHLQ $2, R8
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	LEAQ (R8)(R8*2), CX
	LEAQ (DI)(CX*1), R12
	LEAQ (R12)(CX*1), R13
	VBROADCASTSS halfAVX2<>(SB), Y15
	SUBQ $8, BX
	JLT  done

elements:
	LEAQ (SI)(R9*4), CX
	LEAQ (CX)(R9*4), DX
	LEAQ (DX)(R9*4), R11
	SUMCOLUMN((SI), (CX), (DX), (R11), Y0, Y4, Y8)
	SUMCOLUMN((SI)(R9*1), (CX)(R9*1), (DX)(R9*1), (R11)(R9*1), Y1, Y5, Y9)
	SUMCOLUMN((SI)(R9*2), (CX)(R9*2), (DX)(R9*2), (R11)(R9*2), Y2, Y6, Y10)
	SUMCOLUMN((SI)(R10*1), (CX)(R10*1), (DX)(R10*1), (R11)(R10*1), Y3, Y7, Y11)
	SUMROW(DI, Y0, Y1, Y2, Y3)
	SUMROW(R12, Y4, Y5, Y6, Y7)
	SUMROW(R13, Y8, Y9, Y10, Y11)
	ADDQ $32, SI
	ADDQ $32, DI
	ADDQ $32, R12
	ADDQ $32, R13
	SUBQ $8, BX
	JGE  elements

done:
	VZEROUPPER
	RET

// TRANSPOSE4 transposes columns at..at+3 of the eight rows R8 apart at SI and R11,
// into rows R9 apart at CX.
#define TRANSPOSE4(at) \
	VMOVUPS at(SI), X0                     \
	VMOVUPS at(SI)(R8*1), X1               \
	VMOVUPS at(SI)(R8*2), X2               \
	VMOVUPS at(SI)(R10*1), X3              \
	VINSERTF128 $1, at(R11), Y0, Y0        \
	VINSERTF128 $1, at(R11)(R8*1), Y1, Y1  \
	VINSERTF128 $1, at(R11)(R8*2), Y2, Y2  \
	VINSERTF128 $1, at(R11)(R10*1), Y3, Y3 \
	VUNPCKLPS Y1, Y0, Y4                   \
	VUNPCKHPS Y1, Y0, Y5                   \
	VUNPCKLPS Y3, Y2, Y6                   \
	VUNPCKHPS Y3, Y2, Y7                   \
	VSHUFPS $0x44, Y6, Y4, Y0              \
	VSHUFPS $0xEE, Y6, Y4, Y1              \
	VSHUFPS $0x44, Y7, Y5, Y2              \
	VSHUFPS $0xEE, Y7, Y5, Y3              \
	VMOVUPS Y0, (CX)                       \
	VMOVUPS Y1, (CX)(R9*1)                 \
	VMOVUPS Y2, (CX)(R9*2)                 \
	VMOVUPS Y3, (CX)(R12*1)

// func transpose8AVX2(dst, src []float32, cols, dstStride, srcStride int)
// SI, R11 rows 0 and 4 of src, DI dst, BX columns left.
TEXT ·transpose8AVX2(SB), NOSPLIT, $0-72
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ cols+48(FP), BX
	MOVQ dstStride+56(FP), R9
	MOVQ srcStride+64(FP), R8
	SHLQ $2, R8
	SHLQ $2, R9
	LEAQ (R8)(R8*2), R10
	LEAQ (R9)(R9*2), R12
	LEAQ (SI)(R8*4), R11
	SUBQ $8, BX
	JLT  done

columns:
	MOVQ DI, CX
	TRANSPOSE4(0)
	LEAQ (DI)(R9*4), CX
	TRANSPOSE4(16)
	LEAQ (DI)(R9*8), DI
	ADDQ $32, SI
	ADDQ $32, R11
	SUBQ $8, BX
	JGE  columns

done:
	VZEROUPPER
	RET
