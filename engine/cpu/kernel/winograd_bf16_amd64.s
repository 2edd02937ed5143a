//go:build !purego

#include "textflag.h"
#include "bf16_avx512.h"
#include "vectors_avx512.h"

#define ELEMENT 2
#define RATIO 2
#define STORE8(m) \
	NARROW1(8, 8) \
	VMOVUPS Y8, m
#define STORE9(m) \
	NARROW1(9, 9) \
	VMOVUPS Y9, m
#define ADDEND(m, v) \
	WIDEN(m, Z13)   \
	VADDPS Z13, v, v

#include "winograd2.h"

// The transforms of winograd_avx512_amd64.s between bfloat16 in memory and float32
// in registers. AX is the offset of the channels in bytes of bfloat16, R9 the size
// of a plane, R10 that of three.

// WIDEN sets v to 16 numbers at m.
#define WIDEN(m, v) \
	VPMOVZXWD m, v \
	VPSLLD $16, v, v

// COLUMN is Bᵀ times column j of the patch: a, b, c, d become its elements.
#define COLUMN(j, a, b, c, d) \
	MOVQ    (8*j)(SP), CX     \
	MOVQ    (8*j+32)(SP), R12 \
	MOVQ    (8*j+64)(SP), R13 \
	MOVQ    (8*j+96)(SP), R14 \
	WIDEN((CX)(AX*1), a)      \
	WIDEN((R12)(AX*1), b)     \
	WIDEN((R13)(AX*1), c)     \
	WIDEN((R14)(AX*1), d)     \
	VSUBPS  d, b, d           \
	VSUBPS  c, a, a           \
	VADDPS  c, b, Z16         \
	VSUBPS  b, c, c           \
	VMOVAPS Z16, b

// PUT4 rounds Z16..Z19 and stores them in four planes from to on.
#define PUT4(to) \
	NARROW1(16, 16)          \
	NARROW1(17, 17)          \
	NARROW1(18, 18)          \
	NARROW1(19, 19)          \
	VMOVUPS Y16, (to)        \
	VMOVUPS Y17, (to)(R9*1)  \
	VMOVUPS Y18, (to)(R9*2)  \
	VMOVUPS Y19, (to)(R10*1)

// INPUTROW stores a row times B.
#define INPUTROW(to, a, b, c, d) \
	VSUBPS c, a, Z16 \
	VADDPS c, b, Z17 \
	VSUBPS b, c, Z18 \
	VSUBPS d, b, Z19 \
	PUT4(to)

// func winogradInputBF16(dst, src, zero []uint16, patches []int32, c, stride, plane int)
// SI patch, BX patches left, DX src, R8 zero, DI dst, R11 dst of these channels,
// R15 end of the channels; the stack holds sixteen pointers.
TEXT ·winogradInputBF16(SB), NOSPLIT, $128-120
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), DX
	MOVQ zero_base+48(FP), R8
	MOVQ patches_base+72(FP), SI
	MOVQ patches_len+80(FP), BX
	MOVQ c+96(FP), R15
	MOVQ plane+112(FP), R9
	SHRQ $4, BX
	SHLQ $1, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~15, R15
	JZ   done
	SHLQ $1, R15

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
	ADDQ $32, AX
	ADDQ $32, R11
	CMPQ AX, R15
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*2), DI
	ADDQ $64, SI
	DECQ BX
	JMP  patch

done:
	VZEROUPPER
	RET

// GRADIENTROW stores a row (a, b) times Aᵀ.
#define GRADIENTROW(to, a, b) \
	VMOVAPS a, Z16   \
	VADDPS b, a, Z17 \
	VSUBPS b, a, Z18 \
	VMOVAPS b, Z19   \
	PUT4(to)

// func winogradGradientBF16(dst, src, zero []uint16, patches []int32, c, stride, plane int)
// As winogradInputBF16, with the four pointers in R12..R15 and the end of the channels at (SP).
TEXT ·winogradGradientBF16(SB), NOSPLIT, $8-120
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), DX
	MOVQ zero_base+48(FP), R8
	MOVQ patches_base+72(FP), SI
	MOVQ patches_len+80(FP), BX
	MOVQ c+96(FP), R11
	MOVQ plane+112(FP), R9
	SHRQ $2, BX
	SHLQ $1, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~15, R11
	JZ   done
	SHLQ $1, R11
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
	WIDEN((R12)(AX*1), Z0)
	WIDEN((R13)(AX*1), Z1)
	WIDEN((R14)(AX*1), Z2)
	WIDEN((R15)(AX*1), Z3)
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
	ADDQ $32, AX
	ADDQ $32, R11
	CMPQ AX, (SP)
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*2), DI
	ADDQ $16, SI
	DECQ BX
	JMP  patch

done:
	VZEROUPPER
	RET

// func winogradOutputBF16(dst []uint16, src []float32, at []int32, c, stride, plane int)
// SI offsets of a tile, BX tiles left, R8 src, R12..R15 destinations or 0; CX, DX,
// DI, R11 are the four rows of planes, of float32.
TEXT ·winogradOutputBF16(SB), NOSPLIT, $8-96
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
	SHLQ $1, R11
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
	LEAQ (R8)(AX*2), CX
	LEAQ (CX)(R9*4), DX
	LEAQ (DX)(R9*4), DI
	LEAQ (DI)(R9*4), R11
	OUTPUTCOLUMN((CX), (DX), (DI), (R11), Z0, Z4)
	OUTPUTCOLUMN((CX)(R9*1), (DX)(R9*1), (DI)(R9*1), (R11)(R9*1), Z1, Z5)
	OUTPUTCOLUMN((CX)(R9*2), (DX)(R9*2), (DI)(R9*2), (R11)(R9*2), Z2, Z6)
	OUTPUTCOLUMN((CX)(R10*1), (DX)(R10*1), (DI)(R10*1), (R11)(R10*1), Z3, Z7)
	OUTPUTROW(Z0, Z1, Z2, Z3, R12, R13, no0, no1)
	OUTPUTROW(Z4, Z5, Z6, Z7, R14, R15, no2, no3)
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

// func winogradOutputEpilogueBF16(dst []uint16, src []float32, at []int32, stride, plane int, add []uint16, bias []float32, before, after float32)
// Registers as above, but BX is the distance from dst to add; the stack holds the
// end of the channels and the tiles left. Z10 and Z11 are before and after.
TEXT ·winogradOutputEpilogueBF16(SB), NOSPLIT, $16-144
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
	SHLQ $1, R11
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
	ADDQ $32, AX
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
