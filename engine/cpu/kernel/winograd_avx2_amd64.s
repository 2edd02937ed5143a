//go:build !purego

#include "textflag.h"
#include "vectors_avx2.h"
#include "winograd2_float32.h"

#define INPUT ·winogradInputAVX2
#define GRADIENT ·winogradGradientAVX2
#define OUTPUT ·winogradOutputAVX2
#define OUTPUTEPILOGUE ·winogradOutputEpilogueAVX2
#define WEIGHTS ·winogradWeightsAVX2
#define SUMS ·winogradSumsAVX2

#include "winograd2_maps.h"
#include "winograd2_kernels.h"

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
