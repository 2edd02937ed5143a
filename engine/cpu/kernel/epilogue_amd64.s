//go:build !purego

#include "textflag.h"
#include "bf16_avx512.h"

// The epilogues of epilogue.go. BX rows left, R8 from, R9 at, SI src, DI dst, R10
// add, DX bias, R11 whole vectors' channels, AX the channel; R12, R13 and R15 are
// src, dst and add of the row.
#define ROWS(ELEMENT) \
	MOVQ    dst_base+0(FP), DI     \
	MOVQ    src_base+24(FP), SI    \
	MOVQ    from_base+48(FP), R8   \
	MOVQ    at_base+72(FP), R9     \
	MOVQ    at_len+80(FP), BX      \
	MOVQ    add_base+96(FP), R10   \
	MOVQ    bias_base+120(FP), DX  \
	MOVQ    bias_len+128(FP), R11  \
row:                               \
	DECQ    BX                     \
	JLT     done                   \
	MOVLQSX (R9), CX               \
	MOVLQSX (R8), R12              \
	ADDQ    $4, R9                 \
	ADDQ    $4, R8                 \
	TESTQ   CX, CX                 \
	JLT     row                    \
	LEAQ    (SI)(R12*4), R12       \
	LEAQ    (DI)(CX*ELEMENT), R13  \
	LEAQ    (R10)(CX*ELEMENT), R15 \
	XORQ    AX, AX                 \
	CMPQ    add_len+104(FP), $0    \
	JNE     adding

// func epilogueAVX2(dst, src []float32, from, at []int32, add, bias []float32, before, after float32)
TEXT ·epilogueAVX2(SB), NOSPLIT, $0-152
	VBROADCASTSS before+144(FP), Y6
	VBROADCASTSS after+148(FP), Y7
	ROWS(4)
	SUBQ $8, R11

plain:
	CMPQ    AX, R11
	JGT     next
	VMOVUPS (R12)(AX*4), Y0
	VADDPS  (DX)(AX*4), Y0, Y0
	VMAXPS  Y0, Y6, Y0
	VMAXPS  Y0, Y7, Y0
	VMOVUPS Y0, (R13)(AX*4)
	ADDQ    $8, AX
	JMP     plain

adding:
	SUBQ $8, R11

add:
	CMPQ    AX, R11
	JGT     next
	VMOVUPS (R12)(AX*4), Y0
	VADDPS  (DX)(AX*4), Y0, Y0
	VMAXPS  Y0, Y6, Y0
	VADDPS  (R15)(AX*4), Y0, Y0
	VMAXPS  Y0, Y7, Y0
	VMOVUPS Y0, (R13)(AX*4)
	ADDQ    $8, AX
	JMP     add

next:
	ADDQ $8, R11
	JMP  row

done:
	VZEROUPPER
	RET

// MASK sets K1 to the channels after the whole vectors.
#define MASK \
	MOVQ  bias_len+128(FP), CX \
	ANDQ  $15, CX              \
	MOVQ  $-1, AX              \
	SHLQ  CX, AX               \
	NOTQ  AX                   \
	KMOVW AX, K1

// SUM sets Z0 to 16 sums with their bias, not less than before.
#define SUM \
	VMOVUPS (R12)(AX*4), Z0    \
	VADDPS  (DX)(AX*4), Z0, Z0 \
	VMAXPS  Z0, Z6, Z0

// SUMTAIL is SUM of the channels of K1.
#define SUMTAIL \
	VMOVUPS.Z (R12)(AX*4), K1, Z0 \
	VMOVUPS.Z (DX)(AX*4), K1, Z1  \
	VADDPS    Z1, Z0, Z0          \
	VMAXPS    Z0, Z6, Z0

// func epilogueAVX512(dst, src []float32, from, at []int32, add, bias []float32, before, after float32)
TEXT ·epilogueAVX512(SB), NOSPLIT, $0-152
	VBROADCASTSS before+144(FP), Z6
	VBROADCASTSS after+148(FP), Z7
	MASK
	ROWS(4)

plain:
	SUBQ    $16, R11
	JLT     plainTail
	SUM
	VMAXPS  Z0, Z7, Z0
	VMOVUPS Z0, (R13)(AX*4)
	ADDQ    $16, AX
	JMP     plain

plainTail:
	CMPQ      R11, $-16
	JE        next
	SUMTAIL
	VMAXPS    Z0, Z7, Z0
	VMOVUPS   Z0, K1, (R13)(AX*4)
	JMP       next

adding:
	SUBQ    $16, R11
	JLT     addTail
	SUM
	VADDPS  (R15)(AX*4), Z0, Z0
	VMAXPS  Z0, Z7, Z0
	VMOVUPS Z0, (R13)(AX*4)
	ADDQ    $16, AX
	JMP     adding

addTail:
	CMPQ      R11, $-16
	JE        next
	SUMTAIL
	VMOVUPS.Z (R15)(AX*4), K1, Z2
	VADDPS    Z2, Z0, Z0
	VMAXPS    Z0, Z7, Z0
	VMOVUPS   Z0, K1, (R13)(AX*4)

next:
	MOVQ bias_len+128(FP), R11
	JMP  row

done:
	VZEROUPPER
	RET

// func epilogueBF16AVX512(dst []uint16, src []float32, from, at []int32, add []uint16, bias []float32, before, after float32)
TEXT ·epilogueBF16AVX512(SB), NOSPLIT, $0-152
	VBROADCASTSS before+144(FP), Z6
	VBROADCASTSS after+148(FP), Z7
	MASK
	ROWS(2)

plain:
	SUBQ    $16, R11
	JLT     plainTail
	SUM
	VMAXPS  Z0, Z7, Z0
	NARROW1(0, 0)
	VMOVUPS Y0, (R13)(AX*2)
	ADDQ    $16, AX
	JMP     plain

plainTail:
	CMPQ      R11, $-16
	JE        next
	SUMTAIL
	VMAXPS    Z0, Z7, Z0
	NARROW1(0, 0)
	VMOVDQU16 Y0, K1, (R13)(AX*2)
	JMP       next

adding:
	SUBQ      $16, R11
	JLT       addTail
	SUM
	VPMOVZXWD (R15)(AX*2), Z1
	VPSLLD    $16, Z1, Z1
	VADDPS    Z1, Z0, Z0
	VMAXPS    Z0, Z7, Z0
	NARROW1(0, 0)
	VMOVUPS   Y0, (R13)(AX*2)
	ADDQ      $16, AX
	JMP       adding

addTail:
	CMPQ        R11, $-16
	JE          next
	SUMTAIL
	VPMOVZXWD.Z (R15)(AX*2), K1, Z2
	VPSLLD      $16, Z2, Z2
	VADDPS      Z2, Z0, Z0
	VMAXPS      Z0, Z7, Z0
	NARROW1(0, 0)
	VMOVDQU16   Y0, K1, (R13)(AX*2)

next:
	MOVQ bias_len+128(FP), R11
	JMP  row

done:
	VZEROUPPER
	RET
