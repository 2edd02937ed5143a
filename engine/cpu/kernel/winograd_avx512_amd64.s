//go:build !purego

#include "textflag.h"

// The transforms of winograd.go, 16 channels at a time. AX is the offset of the
// channels in bytes, R9 the size of a plane, R10 that of three.

// POINTER sets p to element offset (4*i)(SI) of DX, or to none if it is NoPixel.
#define POINTER(i, none, p) \
	MOVLQSX (4*i)(SI), CX \
	LEAQ    (DX)(CX*4), p \
	TESTQ   CX, CX        \
	CMOVQLT none, p

#define SPILL(i) \
	POINTER(i, R8, AX) \
	MOVQ AX, (8*i)(SP)

// COLUMN is Bᵀ times column j of the patch: a, b, c, d become its elements.
#define COLUMN(j, a, b, c, d) \
	MOVQ    (8*j)(SP), CX     \
	MOVQ    (8*j+32)(SP), R12 \
	MOVQ    (8*j+64)(SP), R13 \
	MOVQ    (8*j+96)(SP), R14 \
	VMOVUPS (CX)(AX*1), a     \
	VMOVUPS (R12)(AX*1), b    \
	VMOVUPS (R13)(AX*1), c    \
	VSUBPS  (R14)(AX*1), b, d \
	VSUBPS  c, a, a           \
	VSUBPS  b, c, c           \
	VADDPS  (R13)(AX*1), b, b

// INPUTROW stores a row times B.
#define INPUTROW(to, a, b, c, d) \
	VSUBPS  c, a, a        \
	VSUBPS  d, b, d        \
	VMOVUPS a, (to)        \
	VADDPS  c, b, a        \
	VMOVUPS d, (to)(R10*1) \
	VSUBPS  b, c, b        \
	VMOVUPS a, (to)(R9*1)  \
	VMOVUPS b, (to)(R9*2)

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

// GRADIENTROW stores a row (a, b) times Aᵀ.
#define GRADIENTROW(to, a, b) \
	VADDPS  b, a, Z8       \
	VSUBPS  b, a, Z9       \
	VMOVUPS a, (to)        \
	VMOVUPS Z8, (to)(R9*1) \
	VMOVUPS Z9, (to)(R9*2) \
	VMOVUPS b, (to)(R10*1)

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

// OUTPUTCOLUMN is Aᵀ times a column.
#define OUTPUTCOLUMN(m0, m1, m2, m3, s0, s1) \
	VMOVUPS m1, Z8     \
	VMOVUPS m2, Z9     \
	VADDPS  m0, Z8, s0 \
	VSUBPS  Z9, Z8, s1 \
	VADDPS  Z9, s0, s0 \
	VSUBPS  m3, s1, s1

// OUTPUTROW stores a row times A at p and q, unless they are 0.
#define OUTPUTROW(s0, s1, s2, s3, p, q, noP, noQ) \
	VADDPS  s1, s0, Z8    \
	VSUBPS  s2, s1, Z9    \
	VADDPS  s2, Z8, Z8    \
	VSUBPS  s3, Z9, Z9    \
	TESTQ   p, p          \
	JZ      noP           \
	VMOVUPS Z8, (p)(AX*1) \
	noP:                  \
	TESTQ   q, q          \
	JZ      noQ           \
	VMOVUPS Z9, (q)(AX*1) \
	noQ:

// BIASCOLUMN is OUTPUTCOLUMN of a column whose second element gets the bias, Z12.
#define BIASCOLUMN(m0, m1, m2, m3, s0, s1) \
	VMOVUPS m1, Z8      \
	VADDPS  Z12, Z8, Z8 \
	VMOVUPS m2, Z9      \
	VADDPS  m0, Z8, s0  \
	VSUBPS  Z9, Z8, s1  \
	VADDPS  Z9, s0, s0  \
	VSUBPS  m3, s1, s1

// LOWERROW is a row times A, not less than Z10.
#define LOWERROW(s0, s1, s2, s3) \
	VADDPS s1, s0, Z8  \
	VSUBPS s2, s1, Z9  \
	VADDPS s2, Z8, Z8  \
	VSUBPS s3, Z9, Z9  \
	VMAXPS Z8, Z10, Z8 \
	VMAXPS Z9, Z10, Z9

// ENDROW stores a row of LOWERROW at p and q, unless they are 0.
#define ENDROW(p, q, noP, noQ) \
	TESTQ   p, p          \
	JZ      noP           \
	VMOVUPS Z8, (p)(AX*1) \
	noP:                  \
	TESTQ   q, q          \
	JZ      noQ           \
	VMOVUPS Z9, (q)(AX*1) \
	noQ:

// ADDROW adds what lies CX from p and q, and stores no less than Z11.
#define ADDROW(p, q, noP, noQ) \
	TESTQ   p, p              \
	JZ      noP               \
	VADDPS  (p)(CX*1), Z8, Z8 \
	VMAXPS  Z8, Z11, Z8       \
	VMOVUPS Z8, (p)(AX*1)     \
	noP:                      \
	TESTQ   q, q              \
	JZ      noQ               \
	VADDPS  (q)(CX*1), Z9, Z9 \
	VMAXPS  Z9, Z11, Z9       \
	VMOVUPS Z9, (q)(AX*1)     \
	noQ:

// ENDCOLUMNS computes both rows before LOWERROW, with the bias at CX.
#define ENDCOLUMNS \
	VMOVUPS (CX)(AX*1), Z12                                               \
	LEAQ    (R8)(AX*1), CX                                                \
	LEAQ    (CX)(R9*4), DX                                                \
	LEAQ    (DX)(R9*4), DI                                                \
	LEAQ    (DI)(R9*4), R11                                               \
	OUTPUTCOLUMN((CX), (DX), (DI), (R11), Z0, Z4)                         \
	BIASCOLUMN((CX)(R9*1), (DX)(R9*1), (DI)(R9*1), (R11)(R9*1), Z1, Z5)   \
	OUTPUTCOLUMN((CX)(R9*2), (DX)(R9*2), (DI)(R9*2), (R11)(R9*2), Z2, Z6) \
	OUTPUTCOLUMN((CX)(R10*1), (DX)(R10*1), (DI)(R10*1), (R11)(R10*1), Z3, Z7)

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

#define WEIGHTCOLUMN(g0, g1, g2, a, b, c, d) \
	VMOVUPS g0, a       \
	VMOVUPS g2, d       \
	VMOVUPS g1, Z12     \
	VADDPS  d, a, Z13   \
	VADDPS  Z12, Z13, b \
	VSUBPS  Z12, Z13, c \
	VMULPS  Z15, b, b   \
	VMULPS  Z15, c, c

#define WEIGHTROW(to, a, b, c) \
	VADDPS  c, a, Z12       \
	VADDPS  b, Z12, Z13     \
	VSUBPS  b, Z12, Z14     \
	VMULPS  Z15, Z13, Z13   \
	VMULPS  Z15, Z14, Z14   \
	VMOVUPS a, (to)         \
	VMOVUPS Z13, (to)(R9*1) \
	VMOVUPS Z14, (to)(R9*2) \
	VMOVUPS c, (to)(R10*1)

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

#define SUMCOLUMN(m0, m1, m2, m3, a, b, c) \
	VMOVUPS m1, Z12       \
	VMOVUPS m2, Z13       \
	VADDPS  Z13, Z12, Z14 \
	VSUBPS  Z13, Z12, b   \
	VMULPS  Z15, Z14, Z14 \
	VMULPS  Z15, b, b     \
	VADDPS  m0, Z14, a    \
	VSUBPS  m3, Z14, c

#define SUMROW(to, a, b, c, d) \
	VADDPS  c, b, Z12       \
	VSUBPS  c, b, Z13       \
	VMULPS  Z15, Z12, Z12   \
	VMULPS  Z15, Z13, Z13   \
	VADDPS  Z12, a, a       \
	VSUBPS  d, Z12, Z12     \
	VMOVUPS a, (to)         \
	VMOVUPS Z13, (to)(R8*1) \
	VMOVUPS Z12, (to)(R8*2)

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
