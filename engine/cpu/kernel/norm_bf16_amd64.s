//go:build !purego

#include "textflag.h"
#include "bf16_avx512.h"
#include "vectors_avx512.h"
#include "norm_avx512.h"

// norm.h for maps in bfloat16, of which 32 channels are a cache line.

#define NORMALISE ·normaliseBF16AVX512
#define GATESUMS ·gateSumsBF16AVX512
#define MOMENTS ·momentsBF16AVX512

#define ELEMENT 2

#define NUMBERS(base, lo, hi) \
	VPMOVZXWD.Z (base)(R9*1), K1, lo   \
	VPMOVZXWD.Z 32(base)(R9*1), K2, hi \
	VPSLLD      $16, lo, lo            \
	VPSLLD      $16, hi, hi

#define STORE(part, half, stored) \
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

#include "norm.h"
