//go:build !purego

#include "textflag.h"
#include "bf16_avx512.h"
#include "vectors_avx512.h"

#define ELEMENT 2
#define SHIFT 1
#define RATIO 2
#define PIXEL(m, v) \
	VPMOVZXWD m, v \
	VPSLLD $16, v, v
#define STORE8(m) \
	NARROW1(8, 8) \
	VMOVUPS Y8, m
#define STORE9(m) \
	NARROW1(9, 9) \
	VMOVUPS Y9, m
#define ADDEND(m, v) \
	PIXEL(m, Z13)   \
	VADDPS Z13, v, v

#include "winograd2.h"

// The transforms between bfloat16 in memory and float32 in registers.

// COLUMN is Bᵀ times column j of the patch: a, b, c, d become its elements.
#define COLUMN(j, a, b, c, d) \
	MOVQ    (8*j)(SP), CX     \
	MOVQ    (8*j+32)(SP), R12 \
	MOVQ    (8*j+64)(SP), R13 \
	MOVQ    (8*j+96)(SP), R14 \
	PIXEL((CX)(AX*1), a)      \
	PIXEL((R12)(AX*1), b)     \
	PIXEL((R13)(AX*1), c)     \
	PIXEL((R14)(AX*1), d)     \
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

// GRADIENTROW stores a row (a, b) times Aᵀ.
#define GRADIENTROW(to, a, b) \
	VMOVAPS a, Z16   \
	VADDPS b, a, Z17 \
	VSUBPS b, a, Z18 \
	VMOVAPS b, Z19   \
	PUT4(to)

#define INPUT ·winogradInputBF16
#define GRADIENT ·winogradGradientBF16
#define OUTPUT ·winogradOutputBF16
#define OUTPUTEPILOGUE ·winogradOutputEpilogueBF16

#include "winograd2_maps.h"
