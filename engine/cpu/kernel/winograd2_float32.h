// Macros of the float32 transforms of winograd.go.

#define ELEMENT 4
#define SHIFT 2
#define RATIO 1
#define PIXEL(m, v) VMOVUPS m, v
#define STORE8(m) VMOVUPS V8, m
#define STORE9(m) VMOVUPS V9, m
#define ADDEND(m, v) VADDPS m, v, v

#include "winograd2.h"

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

// GRADIENTROW stores a row (a, b) times Aᵀ.
#define GRADIENTROW(to, a, b) \
	VADDPS  b, a, V8       \
	VSUBPS  b, a, V9       \
	VMOVUPS a, (to)        \
	VMOVUPS V8, (to)(R9*1) \
	VMOVUPS V9, (to)(R9*2) \
	VMOVUPS b, (to)(R10*1)

#define WEIGHTCOLUMN(g0, g1, g2, a, b, c, d) \
	VMOVUPS g0, a       \
	VMOVUPS g2, d       \
	VMOVUPS g1, V12     \
	VADDPS  d, a, V13   \
	VADDPS  V12, V13, b \
	VSUBPS  V12, V13, c \
	VMULPS  V15, b, b   \
	VMULPS  V15, c, c

#define WEIGHTROW(to, a, b, c) \
	VADDPS  c, a, V12       \
	VADDPS  b, V12, V13     \
	VSUBPS  b, V12, V14     \
	VMULPS  V15, V13, V13   \
	VMULPS  V15, V14, V14   \
	VMOVUPS a, (to)         \
	VMOVUPS V13, (to)(R9*1) \
	VMOVUPS V14, (to)(R9*2) \
	VMOVUPS c, (to)(R10*1)

#define SUMCOLUMN(m0, m1, m2, m3, a, b, c) \
	VMOVUPS m1, V12       \
	VMOVUPS m2, V13       \
	VADDPS  V13, V12, V14 \
	VSUBPS  V13, V12, b   \
	VMULPS  V15, V14, V14 \
	VMULPS  V15, b, b     \
	VADDPS  m0, V14, a    \
	VSUBPS  m3, V14, c

#define SUMROW(to, a, b, c, d) \
	VADDPS  c, b, V12       \
	VSUBPS  c, b, V13       \
	VMULPS  V15, V12, V12   \
	VMULPS  V15, V13, V13   \
	VADDPS  V12, a, a       \
	VSUBPS  d, V12, V12     \
	VMOVUPS a, (to)         \
	VMOVUPS V13, (to)(R8*1) \
	VMOVUPS V12, (to)(R8*2)
