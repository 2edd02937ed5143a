// The transforms of winograd_stride2.go, LANES channels at a time, for the files that
// define what winograd_maps.h wants and the constants: CA, CA2 are a, a², CB, CB2 those of b,
// CS s, CP p, CF0..CF3 α, αa, αa², αa³, and CH0..CH3 β, βb, βb², βb³. Constants are in memory or
// registers. The functions of each phase are in winograd_stride2_phase.h.

#include "winograd_maps.h"

// A phase has SPAN columns; FIFTHROW(x) and FIFTHCOLUMN(x) are x if it has five rows or
// columns, and nothing if four (winograd_stride2_phases.h). DOWN goes to the planes of the
// next row.

#define DOWN(row, next) \
	LEAQ (row)(R9*4), next  \
	FIFTHCOLUMN(PLANE(next))

#define LINE ADDQ $(4*SPAN), SI

#define PLANE(next) ADDQ R9, next

#define PLUS(m, v) VADDPS m, v, v

// TWICE sets p to V13·o + p and m to V13·o - p.
#define TWICE(o, p, m) \
	VMOVAPS p, m           \
	VFMADD231PS o, V13, p  \
	VFMSUB231PS o, V13, m

// INPUTPAIR is two rows of Bᵀ times column j of a patch of SPAN columns,
// V13·(d2 - V12·d0) ± (d3 - V12·d1).
#define INPUTPAIR(j, p, m) \
	MOVQ (8*j)(SP), CX                            \
	MOVQ (8*(SPAN+j))(SP), R12                    \
	MOVQ (8*(2*SPAN+j))(SP), R13                  \
	MOVQ (8*(3*SPAN+j))(SP), R14                  \
	PIXEL((R14)(AX*1), p)                         \
	PIXEL((R13)(AX*1), V14)                       \
	PIXELFMA(VFNMADD231PS, (R12)(AX*1), V12, p)   \
	PIXELFMA(VFNMADD231PS, (CX)(AX*1), V12, V14)  \
	TWICE(V14, p, m)

// INPUTLAST is the last row, d4 - V12·d2 + V13·d0.
#define INPUTLAST(j, p) \
	MOVQ (8*j)(SP), CX                            \
	MOVQ (8*(2*SPAN+j))(SP), R12                  \
	MOVQ (8*(4*SPAN+j))(SP), R13                  \
	PIXEL((R13)(AX*1), p)                         \
	PIXELFMA(VFNMADD231PS, (R12)(AX*1), V12, p)   \
	PIXELFMA(VFMADD231PS, (CX)(AX*1), V13, p)

#define INPUTLASTS \
	VMOVUPS CS, V12   \
	VMOVUPS CP, V13   \
	INPUTLAST(0, V0)  \
	INPUTLAST(1, V1)  \
	INPUTLAST(2, V2)  \
	INPUTLAST(3, V3)  \
	FIFTHCOLUMN(INPUTLAST(4, V4))

#define INPUTROWPAIR(x0, x1, x2, x3, c, d, p, m) \
	VMOVAPS x3, V12            \
	VMOVAPS x2, V13            \
	VFNMADD231PS c, x1, V12    \
	VFNMADD231PS c, x0, V13    \
	VMOVAPS V12, V14           \
	VFMADD231PS d, V13, V12    \
	VFMSUB231PS d, V13, V14    \
	PUTPLANE(V12, p)           \
	PUTPLANE(V14, m)

// INPUTROW stores a row times B.
#define INPUTROW(to, x0, x1, x2, x3, x4) \
	INPUTROWPAIR(x0, x1, x2, x3, CB2, CA, (to), (to)(R9*1))          \
	INPUTROWPAIR(x0, x1, x2, x3, CA2, CB, (to)(R9*2), (to)(R10*1)) \
	FIFTHCOLUMN(INPUTROWLAST(to, x0, x2, x4))

#define INPUTROWLAST(to, x0, x2, x4) \
	VFNMADD231PS CS, x2, x4  \
	VFMADD231PS CP, x0, x4   \
	PUTPLANE(x4, (to)(R9*4))

// GRADIENTPAIR is two rows of A times column j, c0·y0 + V12·y2 ± c1·(y1 + V13·y3).
#define GRADIENTPAIR(j, c0, c1, p, m) \
	MOVQ (8*j)(SP), CX                           \
	MOVQ (8*(4+j))(SP), R12                      \
	MOVQ (8*(8+j))(SP), R13                      \
	MOVQ (8*(12+j))(SP), R14                     \
	PIXEL((CX)(AX*1), p)                         \
	PIXEL((R12)(AX*1), V14)                      \
	VMULPS c0, p, p                              \
	PIXELFMA(VFMADD231PS, (R14)(AX*1), V13, V14) \
	PIXELFMA(VFMADD231PS, (R13)(AX*1), V12, p)   \
	VMOVAPS p, m                                 \
	VFMADD231PS c1, V14, p                       \
	VFNMADD231PS c1, V14, m

#define GRADIENTROWPAIR(x0, x1, x2, x3, c0, c1, c2, c, p, m) \
	VMULPS c0, x0, V12         \
	VMOVAPS x1, V13            \
	VFMADD231PS c2, x2, V12    \
	VFMADD231PS c, x3, V13     \
	VMOVAPS V12, V14           \
	VFMADD231PS c1, V13, V12   \
	VFNMADD231PS c1, V13, V14  \
	PUTPLANE(V12, p)           \
	PUTPLANE(V14, m)

// GRADIENTROW stores a row times Aᵀ.
#define GRADIENTROW(to, x0, x1, x2, x3) \
	GRADIENTROWPAIR(x0, x1, x2, x3, CF0, CF1, CF2, CA2, (to), (to)(R9*1))          \
	GRADIENTROWPAIR(x0, x1, x2, x3, CH0, CH1, CH2, CB2, (to)(R9*2), (to)(R10*1))   \
	PUTPLANE(x3, (to)(R9*4))

// func winogradStride2Gradient(dst, src, zero []float32, patches []int32, c, stride, plane int)
// As the one of a phase, with sixteen pointers.
TEXT GRADIENT(SB), NOSPLIT, $136-120
	PATCHES(128)

patch:
	CMPQ SI, BX
	JGE  done
	MOVQ src_base+24(FP), DX
	POINTERS16(0, R8)
	XORQ AX, AX
	MOVQ DI, R11

channels:
	VMOVUPS CF2, V12
	VMOVUPS CA2, V13
	GRADIENTPAIR(0, CF0, CF1, V0, V4)
	GRADIENTPAIR(1, CF0, CF1, V1, V5)
	GRADIENTPAIR(2, CF0, CF1, V2, V6)
	GRADIENTPAIR(3, CF0, CF1, V3, V7)
	GRADIENTROW(R11, V0, V1, V2, V3)
	LEAQ (R11)(R15*1), DX
	GRADIENTROW(DX, V4, V5, V6, V7)
	VMOVUPS CH2, V12
	VMOVUPS CB2, V13
	GRADIENTPAIR(0, CH0, CH1, V0, V4)
	GRADIENTPAIR(1, CH0, CH1, V1, V5)
	GRADIENTPAIR(2, CH0, CH1, V2, V6)
	GRADIENTPAIR(3, CH0, CH1, V3, V7)
	LEAQ (DX)(R15*1), DX
	GRADIENTROW(DX, V0, V1, V2, V3)
	LEAQ (DX)(R15*1), DX
	GRADIENTROW(DX, V4, V5, V6, V7)
	MOVQ (8*12)(SP), CX
	MOVQ (8*13)(SP), R12
	MOVQ (8*14)(SP), R13
	MOVQ (8*15)(SP), R14
	PIXEL((CX)(AX*1), V0)
	PIXEL((R12)(AX*1), V1)
	PIXEL((R13)(AX*1), V2)
	PIXEL((R14)(AX*1), V3)
	LEAQ (DX)(R15*1), DX
	GRADIENTROW(DX, V0, V1, V2, V3)
	ADDQ $(ELEMENT*LANES), AX
	ADDQ $(PLANEBYTES*LANES), R11
	CMPQ AX, 128(SP)
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*PLANEBYTES), DI
	ADDQ $64, SI
	JMP  patch

done:
	VZEROUPPER
	RET

// OUTPUTEVEN is rows 0 and 2 of Aᵀ times a column.
#define OUTPUTEVEN(m0, m1, m2, m3, r0, r2) \
	VMOVUPS m0, r0              \
	VADDPS m1, r0, r0           \
	VMOVUPS m2, V14             \
	VADDPS m3, V14, V14         \
	VMULPS CF2, r0, r2          \
	VMULPS CF0, r0, r0          \
	VFMADD231PS CH2, V14, r2    \
	VFMADD231PS CH0, V14, r0

// OUTPUTODD is rows 1 and 3, but for what the last row of a column of five adds.
#define OUTPUTODD(m0, m1, m2, m3, r1, r3) \
	VMOVUPS m0, r1              \
	VSUBPS m1, r1, r1           \
	VMOVUPS m2, V14             \
	VSUBPS m3, V14, V14         \
	VMULPS CF3, r1, r3          \
	VMULPS CF1, r1, r1          \
	VFMADD231PS CH3, V14, r3    \
	VFMADD231PS CH1, V14, r1

// OUTPUTROW is a row times A: it becomes x0, x1, V14, x2 (winograd_output.h).
#define OUTPUTROW(x0, x1, x2, x3, x4) \
	VADDPS x1, x0, V12          \
	VSUBPS x1, x0, x0           \
	VADDPS x3, x2, V13          \
	VSUBPS x3, x2, x3           \
	VMULPS CF1, x0, x1          \
	VMULPS CF3, x0, x2          \
	VMULPS CF2, V12, V14        \
	VMULPS CF0, V12, x0         \
	VFMADD231PS CH1, x3, x1     \
	VFMADD231PS CH3, x3, x2     \
	VFMADD231PS CH2, V13, V14   \
	VFMADD231PS CH0, V13, x0    \
	FIFTHCOLUMN(PLUS(x4, x2))

// OUTPUTROWS sets R13, DX, DI, R11, R12 to the rows of planes.
#define OUTPUTROWS \
	LEAQ (R8)(AX*RATIO), R13 \
	DOWN(R13, DX)            \
	DOWN(DX, DI)            \
	DOWN(DI, R11)           \
	DOWN(R11, R12)

#define OUTPUTEVENS \
	OUTPUTEVEN((R13), (DX), (DI), (R11), V0, V5)                             \
	OUTPUTEVEN((R13)(R9*1), (DX)(R9*1), (DI)(R9*1), (R11)(R9*1), V1, V6)     \
	OUTPUTEVEN((R13)(R9*2), (DX)(R9*2), (DI)(R9*2), (R11)(R9*2), V2, V7)     \
	OUTPUTEVEN((R13)(R10*1), (DX)(R10*1), (DI)(R10*1), (R11)(R10*1), V3, V8) \
	FIFTHCOLUMN(OUTPUTEVEN((R13)(R9*4), (DX)(R9*4), (DI)(R9*4), (R11)(R9*4), V4, V9))

#define OUTPUTODDS \
	OUTPUTODD((R13), (DX), (DI), (R11), V0, V5)                             \
	OUTPUTODD((R13)(R9*1), (DX)(R9*1), (DI)(R9*1), (R11)(R9*1), V1, V6)     \
	OUTPUTODD((R13)(R9*2), (DX)(R9*2), (DI)(R9*2), (R11)(R9*2), V2, V7)     \
	OUTPUTODD((R13)(R10*1), (DX)(R10*1), (DI)(R10*1), (R11)(R10*1), V3, V8) \
	FIFTHCOLUMN(OUTPUTODD((R13)(R9*4), (DX)(R9*4), (DI)(R9*4), (R11)(R9*4), V4, V9)) \
	FIFTHROW(OUTPUTLASTS)

// OUTPUTLASTS adds the last of five rows.
#define OUTPUTLASTS \
	PLUS((R12), V5)         \
	PLUS((R12)(R9*1), V6)   \
	PLUS((R12)(R9*2), V7)   \
	PLUS((R12)(R10*1), V8)  \
	FIFTHCOLUMN(PLUS((R12)(R9*4), V9))

#define FIRSTROW OUTPUTROW(V0, V1, V2, V3, V4)
#define SECONDROW OUTPUTROW(V5, V6, V7, V8, V9)
#define W0 V5
#define W1 V6
#define W2 V7

// WEIGHTPAIR is g0 ± V13·g2.
#define WEIGHTPAIR(g0, g2, p, m) \
	VMOVUPS g0, p              \
	VMOVUPS g2, V14            \
	VMOVAPS p, m               \
	VFMADD231PS V14, V13, p    \
	VFNMADD231PS V14, V13, m

#define WEIGHTROWPAIR(x0, x2, c, p, m) \
	VMOVAPS x0, V12            \
	VMOVAPS x0, V14            \
	VFMADD231PS c, x2, V12     \
	VFNMADD231PS c, x2, V14    \
	VMOVUPS V12, p             \
	VMOVUPS V14, m

// WEIGHTROW stores the transform of a row.
#define WEIGHTROW(to, x0, x1, x2) \
	WEIGHTROWPAIR(x0, x2, CA, (to), (to)(R9*1))          \
	WEIGHTROWPAIR(x0, x2, CB, (to)(R9*2), (to)(R10*1))   \
	VMOVUPS x2, (to)(R9*4)     \
	VMOVUPS x1, (to)(R15*1)

// func winogradStride2Weights(dst, src []float32, n, tap, plane int)
// SI, R11, R12 are three rows of taps, R8 the size of a tap, DI dst, BX elements left.
TEXT WEIGHTS(SB), NOSPLIT, $0-72
	WEIGHTKERNELS
	CONSTANTSAB

elements:
	VMOVUPS CA, V13
	WEIGHTPAIR((SI), (R12), V0, V3)
	WEIGHTPAIR((SI)(R8*1), (R12)(R8*1), V1, V4)
	WEIGHTPAIR((SI)(R8*2), (R12)(R8*2), V2, V5)
	WEIGHTROW(DI, V0, V1, V2)
	LEAQ (DI)(R10*2), CX
	WEIGHTROW(CX, V3, V4, V5)
	VMOVUPS CB, V13
	WEIGHTPAIR((SI), (R12), V0, V3)
	WEIGHTPAIR((SI)(R8*1), (R12)(R8*1), V1, V4)
	WEIGHTPAIR((SI)(R8*2), (R12)(R8*2), V2, V5)
	LEAQ (CX)(R10*2), CX
	WEIGHTROW(CX, V0, V1, V2)
	LEAQ (CX)(R10*2), CX
	WEIGHTROW(CX, V3, V4, V5)
	VMOVUPS (R12), V0
	VMOVUPS (R12)(R8*1), V1
	VMOVUPS (R12)(R8*2), V2
	LEAQ (CX)(R10*2), CX
	WEIGHTROW(CX, V0, V1, V2)
	VMOVUPS (R11), V0
	VMOVUPS (R11)(R8*1), V1
	VMOVUPS (R11)(R8*2), V2
	LEAQ (CX)(R10*2), CX
	WEIGHTROW(CX, V0, V1, V2)
	NEXTWEIGHTS(elements)

done:
	VZEROUPPER
	RET

// SUMOUTER is the rows of the outer taps times a column.
#define SUMOUTER(s0, s1, s2, s3, s4, r0, r2) \
	VMOVUPS s0, r0              \
	VMOVUPS s2, V12             \
	VSUBPS s1, r0, V13          \
	VSUBPS s3, V12, V14         \
	VADDPS s1, r0, r0           \
	VADDPS s3, V12, V12         \
	VMULPS CA, V13, r2          \
	VADDPS V12, r0, r0          \
	VFMADD231PS CB, V14, r2     \
	VADDPS s4, r2, r2

// SUMROW stores the taps of a row.
#define SUMROW(to, x0, x1, x2, x3, x4, x5) \
	VSUBPS x1, x0, V12          \
	VSUBPS x3, x2, V13          \
	VADDPS x1, x0, x0           \
	VADDPS x3, x2, x2           \
	VMULPS CA, V12, V12         \
	VADDPS x2, x0, x0           \
	VFMADD231PS CB, V13, V12    \
	VADDPS x4, V12, V12         \
	VMOVUPS x0, (to)            \
	VMOVUPS x5, (to)(R8*1)      \
	VMOVUPS V12, (to)(R8*2)

// func winogradStride2Sums(dst, src []float32, n, tap, plane int)
// SI, CX, DX, R11, R14, AX are six rows of planes, DI, R12, R13 three rows of taps,
// R8 the size of a tap, BX elements left.
TEXT SUMS(SB), NOSPLIT, $0-72
	SUMKERNELS
	CONSTANTSAB

elements:
	SUMROWS
	SUMOUTER((SI), (CX), (DX), (R11), (R14), V0, V6)
	SUMOUTER((SI)(R9*1), (CX)(R9*1), (DX)(R9*1), (R11)(R9*1), (R14)(R9*1), V1, V7)
	SUMOUTER((SI)(R9*2), (CX)(R9*2), (DX)(R9*2), (R11)(R9*2), (R14)(R9*2), V2, V8)
	SUMOUTER((SI)(R10*1), (CX)(R10*1), (DX)(R10*1), (R11)(R10*1), (R14)(R10*1), V3, V9)
	SUMOUTER((SI)(R9*4), (CX)(R9*4), (DX)(R9*4), (R11)(R9*4), (R14)(R9*4), V4, V10)
	SUMOUTER((SI)(R15*1), (CX)(R15*1), (DX)(R15*1), (R11)(R15*1), (R14)(R15*1), V5, V11)
	SUMROW(DI, V0, V1, V2, V3, V4, V5)
	SUMROW(R13, V6, V7, V8, V9, V10, V11)
	VMOVUPS (AX), V0
	VMOVUPS (AX)(R9*1), V1
	VMOVUPS (AX)(R9*2), V2
	VMOVUPS (AX)(R10*1), V3
	VMOVUPS (AX)(R9*4), V4
	VMOVUPS (AX)(R15*1), V5
	SUMROW(R12, V0, V1, V2, V3, V4, V5)
	NEXTSUMS(elements)

done:
	VZEROUPPER
	RET
