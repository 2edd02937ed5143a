//go:build !purego

#include "textflag.h"
#include "bf16_avx512.h"
#include "vectors_avx512.h"

// What winograd4.h calls its functions and constants from feature maps to planes in
// bfloat16. Z31 is a number on its way.

#define INPUT ·winograd4InputPairs

#define ELEMENT 2
#define PIXEL(m, v) \
	VPMOVZXWD m, v \
	VPSLLD $16, v, v
#define PIXELFMA(fma, m, c, v) \
	PIXEL(m, Z31) \
	fma Z31, c, v

#define PLANEBYTES 2
#define PUTPLANE(v, m) \
	VMOVAPS v, Z31   \
	NARROW1(31, 31)  \
	VMOVUPS Y31, m

#define CA Z16
#define CA2 Z17
#define CA3 Z18
#define CB Z19
#define CB2 Z20
#define CB3 Z21
#define CS Z22
#define CP Z23

#define CONSTANTSAB \
	VBROADCASTSS ·winograd4Constants+0(SB), Z16 \
	VBROADCASTSS ·winograd4Constants+32(SB), Z17 \
	VBROADCASTSS ·winograd4Constants+64(SB), Z18 \
	VBROADCASTSS ·winograd4Constants+96(SB), Z19 \
	VBROADCASTSS ·winograd4Constants+128(SB), Z20 \
	VBROADCASTSS ·winograd4Constants+160(SB), Z21 \
	VBROADCASTSS ·winograd4Constants+192(SB), Z22 \
	VBROADCASTSS ·winograd4Constants+224(SB), Z23

#include "winograd4.h"
