// Feature maps in bfloat16 for winograd4.h. Z31 is a number on its way.

#include "bf16_avx512.h"
#include "vectors_avx512.h"
#include "winograd4_avx512.h"

#define ELEMENT 2
#define PIXEL(m, v) \
	VPMOVZXWD m, v \
	VPSLLD $16, v, v
#define PIXELADD(m, v) \
	PIXEL(m, Z31)    \
	VADDPS Z31, v, v
#define PIXELFMA(fma, m, c, v) \
	PIXEL(m, Z31) \
	fma Z31, c, v

// PUTROUNDED stores a vector rounded to bfloat16.
#define PUTROUNDED(v, m) \
	VMOVAPS v, Z31   \
	NARROW1(31, 31)  \
	VMOVUPS Y31, m
