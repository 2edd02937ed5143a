//go:build !purego

#include "textflag.h"
#include "vectors_avx512.h"
#include "winograd2_float32.h"

// The transforms of winograd.go, 16 channels at a time. AX is the offset of the
// channels in bytes, R9 the size of a plane, R10 that of three.

// func winogradInputAVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)
// SI patch, BX patches left, DX src, R8 zero, DI dst, R11 dst of these channels,
// R15 end of the channels; the stack holds sixteen pointers.
TEXT ·winogradInputAVX512(SB), NOSPLIT, $128-120
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
	ANDQ $~15, R15
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
	COLUMN(0, Z0, Z4, Z8, Z12)
	COLUMN(1, Z1, Z5, Z9, Z13)
	COLUMN(2, Z2, Z6, Z10, Z14)
	COLUMN(3, Z3, Z7, Z11, Z15)
	INPUTROW(R11, Z0, Z1, Z2, Z3)
	LEAQ (R11)(R9*4), CX
	INPUTROW(CX, Z4, Z5, Z6, Z7)
	LEAQ (CX)(R9*4), CX
	INPUTROW(CX, Z8, Z9, Z10, Z11)
	LEAQ (CX)(R9*4), CX
	INPUTROW(CX, Z12, Z13, Z14, Z15)
	ADDQ $64, AX
	ADDQ $64, R11
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

// func winogradGradientAVX512(dst, src, zero []float32, patches []int32, c, stride, plane int)
// As winogradInputAVX512, with the four pointers in R12..R15 and the end of the channels at c.
TEXT ·winogradGradientAVX512(SB), NOSPLIT, $8-120
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
	ANDQ $~15, R11
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
	VMOVUPS (R12)(AX*1), Z0
	VMOVUPS (R13)(AX*1), Z1
	VMOVUPS (R14)(AX*1), Z2
	VMOVUPS (R15)(AX*1), Z3
	VADDPS Z2, Z0, Z4
	VADDPS Z3, Z1, Z5
	VSUBPS Z2, Z0, Z6
	VSUBPS Z3, Z1, Z7
	GRADIENTROW(R11, Z0, Z1)
	LEAQ (R11)(R9*4), CX
	GRADIENTROW(CX, Z4, Z5)
	LEAQ (CX)(R9*4), CX
	GRADIENTROW(CX, Z6, Z7)
	LEAQ (CX)(R9*4), CX
	GRADIENTROW(CX, Z2, Z3)
	ADDQ $64, AX
	ADDQ $64, R11
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

// func winogradOutputAVX512(dst, src []float32, at []int32, c, stride, plane int)
// SI offsets of a tile, BX tiles left, R8 src, R12..R15 destinations or 0; CX, DX,
// DI, R11 are the four rows of planes.
TEXT ·winogradOutputAVX512(SB), NOSPLIT, $8-96
	MOVQ src_base+24(FP), R8
	MOVQ at_base+48(FP), SI
	MOVQ at_len+56(FP), BX
	MOVQ c+72(FP), R11
	MOVQ plane+88(FP), R9
	SHRQ $2, BX
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~15, R11
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
	OUTPUTCOLUMN((CX), (DX), (DI), (R11), Z0, Z4)
	OUTPUTCOLUMN((CX)(R9*1), (DX)(R9*1), (DI)(R9*1), (R11)(R9*1), Z1, Z5)
	OUTPUTCOLUMN((CX)(R9*2), (DX)(R9*2), (DI)(R9*2), (R11)(R9*2), Z2, Z6)
	OUTPUTCOLUMN((CX)(R10*1), (DX)(R10*1), (DI)(R10*1), (R11)(R10*1), Z3, Z7)
	OUTPUTROW(Z0, Z1, Z2, Z3, R12, R13, no0, no1)
	OUTPUTROW(Z4, Z5, Z6, Z7, R14, R15, no2, no3)
	ADDQ $64, AX
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

// func winogradOutputEpilogueAVX512(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32)
// Registers as above, but BX is the distance from dst to add; the stack holds the
// end of the channels and the tiles left. Z10 and Z11 are before and after.
TEXT ·winogradOutputEpilogueAVX512(SB), NOSPLIT, $16-144
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
	ANDQ $~15, R11
	JZ   done
	SHLQ $2, R11
	MOVQ R11, (SP)
	VBROADCASTSS before+136(FP), Z10
	VBROADCASTSS after+140(FP), Z11
	CMPQ add_len+96(FP), $0
	JNE  tile
	VMAXPS Z11, Z10, Z10

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
	LOWERROW(Z0, Z1, Z2, Z3)
	ENDROW(R12, R13, no0, no1)
	LOWERROW(Z4, Z5, Z6, Z7)
	ENDROW(R14, R15, no2, no3)
	ADDQ $64, AX
	CMPQ AX, (SP)
	JLT  channels
	JMP  next

adding:
	MOVQ bias_base+112(FP), CX
	ENDCOLUMNS
	LEAQ (AX)(BX*1), CX
	LOWERROW(Z0, Z1, Z2, Z3)
	ADDROW(R12, R13, no4, no5)
	LOWERROW(Z4, Z5, Z6, Z7)
	ADDROW(R14, R15, no6, no7)
	ADDQ $64, AX
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
DATA halfAVX512<>+0(SB)/4, $0.5
GLOBL halfAVX512<>(SB), RODATA|NOPTR, $4

// func winogradWeightsAVX512(dst, src []float32, n, tap, plane int)
// SI, R11, R12 are three rows of taps, R8 the size of a tap, DI dst, BX elements left.
TEXT ·winogradWeightsAVX512(SB), NOSPLIT, $0-72
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
	VBROADCASTSS halfAVX512<>(SB), Z15
	SUBQ $16, BX
	JLT  done

elements:
	WEIGHTCOLUMN((SI), (R11), (R12), Z0, Z3, Z6, Z9)
	WEIGHTCOLUMN((SI)(R8*1), (R11)(R8*1), (R12)(R8*1), Z1, Z4, Z7, Z10)
	WEIGHTCOLUMN((SI)(R8*2), (R11)(R8*2), (R12)(R8*2), Z2, Z5, Z8, Z11)
	WEIGHTROW(DI, Z0, Z1, Z2)
	LEAQ (DI)(R9*4), CX
	WEIGHTROW(CX, Z3, Z4, Z5)
	LEAQ (CX)(R9*4), CX
	WEIGHTROW(CX, Z6, Z7, Z8)
	LEAQ (CX)(R9*4), CX
	WEIGHTROW(CX, Z9, Z10, Z11)
	ADDQ $64, SI
	ADDQ $64, R11
	ADDQ $64, R12
	ADDQ $64, DI
	SUBQ $16, BX
	JGE  elements

done:
	VZEROUPPER
	RET

// func winogradSumsAVX512(dst, src []float32, n, tap, plane int)
// SI, CX, DX, R11 are four rows of planes, DI, R12, R13 three rows of taps, R8 the
// size of a tap, BX elements left.
TEXT ·winogradSumsAVX512(SB), NOSPLIT, $0-72
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
	VBROADCASTSS halfAVX512<>(SB), Z15
	SUBQ $16, BX
	JLT  done

elements:
	LEAQ (SI)(R9*4), CX
	LEAQ (CX)(R9*4), DX
	LEAQ (DX)(R9*4), R11
	SUMCOLUMN((SI), (CX), (DX), (R11), Z0, Z4, Z8)
	SUMCOLUMN((SI)(R9*1), (CX)(R9*1), (DX)(R9*1), (R11)(R9*1), Z1, Z5, Z9)
	SUMCOLUMN((SI)(R9*2), (CX)(R9*2), (DX)(R9*2), (R11)(R9*2), Z2, Z6, Z10)
	SUMCOLUMN((SI)(R10*1), (CX)(R10*1), (DX)(R10*1), (R11)(R10*1), Z3, Z7, Z11)
	SUMROW(DI, Z0, Z1, Z2, Z3)
	SUMROW(R12, Z4, Z5, Z6, Z7)
	SUMROW(R13, Z8, Z9, Z10, Z11)
	ADDQ $64, SI
	ADDQ $64, DI
	ADDQ $64, R12
	ADDQ $64, R13
	SUBQ $16, BX
	JGE  elements

done:
	VZEROUPPER
	RET
