// Macros of the transforms of winograd.go, for the files that define vectors
// (vectors_avx2.h, vectors_avx512.h) and what an element of a feature map is:
// ELEMENT its bytes, SHIFT their logarithm, RATIO 4/ELEMENT, STORE8 and STORE9 put V8 and V9 to memory,
// ADDEND adds memory to a vector.
//
// AX is the offset of the channels in bytes of elements, R9 the size of a plane,
// R10 that of three.

// POINTER sets p to element offset (4*i)(SI) of DX, or to none if it is NoPixel.
#define POINTER(i, none, p) \
	MOVLQSX (4*i)(SI), CX       \
	LEAQ    (DX)(CX*ELEMENT), p \
	TESTQ   CX, CX              \
	CMOVQLT none, p

#define SPILL(i) \
	POINTER(i, R8, AX) \
	MOVQ AX, (8*i)(SP)

// OUTPUTCOLUMN is Aᵀ times a column.
#define OUTPUTCOLUMN(m0, m1, m2, m3, s0, s1) \
	VMOVUPS m1, V8     \
	VMOVUPS m2, V9     \
	VADDPS  m0, V8, s0 \
	VSUBPS  V9, V8, s1 \
	VADDPS  V9, s0, s0 \
	VSUBPS  m3, s1, s1

// OUTPUTROW stores a row times A at p and q, unless they are 0.
#define OUTPUTROW(s0, s1, s2, s3, p, q, noP, noQ) \
	VADDPS  s1, s0, V8 \
	VSUBPS  s2, s1, V9 \
	VADDPS  s2, V8, V8 \
	VSUBPS  s3, V9, V9 \
	TESTQ   p, p       \
	JZ      noP        \
	STORE8((p)(AX*1))  \
	noP:               \
	TESTQ   q, q       \
	JZ      noQ        \
	STORE9((q)(AX*1))  \
	noQ:

// BIASCOLUMN is OUTPUTCOLUMN of a column whose second element gets the bias, V12.
#define BIASCOLUMN(m0, m1, m2, m3, s0, s1) \
	VMOVUPS m1, V8      \
	VADDPS  V12, V8, V8 \
	VMOVUPS m2, V9      \
	VADDPS  m0, V8, s0  \
	VSUBPS  V9, V8, s1  \
	VADDPS  V9, s0, s0  \
	VSUBPS  m3, s1, s1

// LOWERROW is a row times A, not less than V10.
#define LOWERROW(s0, s1, s2, s3) \
	VADDPS s1, s0, V8  \
	VSUBPS s2, s1, V9  \
	VADDPS s2, V8, V8  \
	VSUBPS s3, V9, V9  \
	VMAXPS V8, V10, V8 \
	VMAXPS V9, V10, V9

// ENDROW stores a row of LOWERROW at p and q, unless they are 0.
#define ENDROW(p, q, noP, noQ) \
	TESTQ   p, p      \
	JZ      noP       \
	STORE8((p)(AX*1)) \
	noP:              \
	TESTQ   q, q      \
	JZ      noQ       \
	STORE9((q)(AX*1)) \
	noQ:

// ADDROW adds what lies CX from p and q, and stores no less than V11.
#define ADDROW(p, q, noP, noQ) \
	TESTQ   p, p          \
	JZ      noP           \
	ADDEND((p)(CX*1), V8) \
	VMAXPS  V8, V11, V8   \
	STORE8((p)(AX*1))     \
	noP:                  \
	TESTQ   q, q          \
	JZ      noQ           \
	ADDEND((q)(CX*1), V9) \
	VMAXPS  V9, V11, V9   \
	STORE9((q)(AX*1))     \
	noQ:

// ENDCOLUMNS computes both rows before LOWERROW, with the bias at CX.
#define ENDCOLUMNS \
	VMOVUPS (CX)(AX*RATIO), V12                                           \
	LEAQ    (R8)(AX*RATIO), CX                                            \
	LEAQ    (CX)(R9*4), DX                                                \
	LEAQ    (DX)(R9*4), DI                                                \
	LEAQ    (DI)(R9*4), R11                                               \
	OUTPUTCOLUMN((CX), (DX), (DI), (R11), V0, V4)                         \
	BIASCOLUMN((CX)(R9*1), (DX)(R9*1), (DI)(R9*1), (R11)(R9*1), V1, V5)   \
	OUTPUTCOLUMN((CX)(R9*2), (DX)(R9*2), (DI)(R9*2), (R11)(R9*2), V2, V6) \
	OUTPUTCOLUMN((CX)(R10*1), (DX)(R10*1), (DI)(R10*1), (R11)(R10*1), V3, V7)
