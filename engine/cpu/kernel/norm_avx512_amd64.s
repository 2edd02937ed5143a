//go:build !purego

#include "textflag.h"
#include "vectors_avx512.h"
#include "norm_avx512.h"
#include "norm_float32.h"

// norm.h for maps in float32 with AVX-512.

#define NORMALISE ·normaliseAVX512
#define GATESUMS ·gateSumsAVX512
#define MOMENTS ·momentsAVX512

#define LOADPART(base, lo, hi) \
	VMOVUPS.Z (base)(R9*1), K1, lo  \
	VMOVUPS.Z 64(base)(R9*1), K2, hi

#define STOREPART \
	VMOVUPS V0, K1, (DI)(R9*1)  \
	VMOVUPS V1, K2, 64(DI)(R9*1)

#include "norm.h"
