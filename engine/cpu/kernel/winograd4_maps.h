// Transforms of gradients and of sums, as in winograd4.h, which comes first.

// GRADIENTPAIR is two rows of A times column j, y0 + V12·y2 ± V13·(y1 + V12·y3).
#define GRADIENTPAIR(j, p, m) \
	MOVQ (8*j)(SP), CX                 \
	MOVQ (8*(4+j))(SP), R12            \
	MOVQ (8*(8+j))(SP), R13            \
	MOVQ (8*(12+j))(SP), R14           \
	PIXEL((CX)(AX*1), p)                         \
	PIXEL((R12)(AX*1), V14)                      \
	PIXELFMA(VFMADD231PS, (R13)(AX*1), V12, p)   \
	PIXELFMA(VFMADD231PS, (R14)(AX*1), V12, V14) \
	BOTH(V14, p, m)

// GRADIENTROW stores a row times Aᵀ.
#define GRADIENTROW(to, x0, x1, x2, x3) \
	ROWPAIR(VFMADD231PS, x0, x2, x1, x3, CA2, CA, (to)(R9*1), (to)(R9*2))  \
	ROWPAIR(VFMADD231PS, x0, x2, x1, x3, CB2, CB, (to)(R10*1), (to)(R9*4)) \
	PUTPLANE(x0, (to))         \
	PUTPLANE(x3, (to)(R15*1))

// GRADIENTEDGE loads row i of the patch.
#define GRADIENTEDGE(i) \
	MOVQ (8*(4*i))(SP), CX     \
	MOVQ (8*(4*i+1))(SP), R12  \
	MOVQ (8*(4*i+2))(SP), R13  \
	MOVQ (8*(4*i+3))(SP), R14  \
	PIXEL((CX)(AX*1), V0)      \
	PIXEL((R12)(AX*1), V1)     \
	PIXEL((R13)(AX*1), V2)     \
	PIXEL((R14)(AX*1), V3)

// func winograd4Gradient(dst, src, zero []float32, patches []int32, c, stride, plane int)
// As winograd4Input, with sixteen pointers.
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
	GRADIENTEDGE(0)
	GRADIENTROW(R11, V0, V1, V2, V3)
	VMOVUPS CA2, V12
	VMOVUPS CA, V13
	GRADIENTPAIR(0, V0, V4)
	GRADIENTPAIR(1, V1, V5)
	GRADIENTPAIR(2, V2, V6)
	GRADIENTPAIR(3, V3, V7)
	LEAQ (R11)(R10*2), DX
	GRADIENTROW(DX, V0, V1, V2, V3)
	LEAQ (DX)(R10*2), DX
	GRADIENTROW(DX, V4, V5, V6, V7)
	VMOVUPS CB2, V12
	VMOVUPS CB, V13
	GRADIENTPAIR(0, V0, V4)
	GRADIENTPAIR(1, V1, V5)
	GRADIENTPAIR(2, V2, V6)
	GRADIENTPAIR(3, V3, V7)
	LEAQ (DX)(R10*2), DX
	GRADIENTROW(DX, V0, V1, V2, V3)
	LEAQ (DX)(R10*2), DX
	GRADIENTROW(DX, V4, V5, V6, V7)
	GRADIENTEDGE(3)
	LEAQ (DX)(R10*2), DX
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
#define OUTPUTEVEN(m0, m1, m2, m3, m4, r0, r2) \
	VMOVUPS m1, r0              \
	VADDPS m2, r0, r0           \
	VMOVUPS m3, V14             \
	VADDPS m4, V14, V14         \
	VMULPS CA2, r0, r2          \
	VFMADD231PS CB2, V14, r2    \
	VADDPS m0, r0, r0           \
	VADDPS V14, r0, r0

// OUTPUTODD is rows 1 and 3.
#define OUTPUTODD(m1, m2, m3, m4, m5, r1, r3) \
	VMOVUPS m1, r1              \
	VSUBPS m2, r1, r1           \
	VMOVUPS m3, V14             \
	VSUBPS m4, V14, V14         \
	VMULPS CA3, r1, r3          \
	VMULPS CA, r1, r1           \
	VFMADD231PS CB3, V14, r3    \
	VFMADD231PS CB, V14, r1     \
	VADDPS m5, r3, r3

// OUTPUTROW is a row times A: it becomes x0, x1, V14, x2 (winograd_output.h).
#define OUTPUTROW(x0, x1, x2, x3, x4, x5) \
	VADDPS x2, x1, V12          \
	VSUBPS x2, x1, x1           \
	VADDPS x4, x3, V13          \
	VSUBPS x4, x3, x3           \
	VMULPS CA2, V12, V14        \
	VMULPS CA3, x1, x2          \
	VMULPS CA, x1, x1           \
	VADDPS V12, x0, x0          \
	VFMADD231PS CB2, V13, V14   \
	VFMADD231PS CB3, x3, x2     \
	VFMADD231PS CB, x3, x1      \
	VADDPS V13, x0, x0          \
	VADDPS x5, x2, x2

// OUTPUTROWS sets CX, DX, DI, R11, R12, R13 to the rows of planes.
#define OUTPUTROWS \
	LEAQ (R8)(AX*RATIO), CX     \
	LEAQ (CX)(R10*2), DX        \
	LEAQ (DX)(R10*2), DI        \
	LEAQ (DI)(R10*2), R11       \
	LEAQ (R11)(R10*2), R12      \
	LEAQ (R12)(R10*2), R13

#define OUTPUTEVENS \
	OUTPUTEVEN((CX), (DX), (DI), (R11), (R12), V0, V6)                                     \
	OUTPUTEVEN((CX)(R9*1), (DX)(R9*1), (DI)(R9*1), (R11)(R9*1), (R12)(R9*1), V1, V7)       \
	OUTPUTEVEN((CX)(R9*2), (DX)(R9*2), (DI)(R9*2), (R11)(R9*2), (R12)(R9*2), V2, V8)       \
	OUTPUTEVEN((CX)(R10*1), (DX)(R10*1), (DI)(R10*1), (R11)(R10*1), (R12)(R10*1), V3, V9)  \
	OUTPUTEVEN((CX)(R9*4), (DX)(R9*4), (DI)(R9*4), (R11)(R9*4), (R12)(R9*4), V4, V10)      \
	OUTPUTEVEN((CX)(R15*1), (DX)(R15*1), (DI)(R15*1), (R11)(R15*1), (R12)(R15*1), V5, V11)

#define OUTPUTODDS \
	OUTPUTODD((DX), (DI), (R11), (R12), (R13), V0, V6)                                     \
	OUTPUTODD((DX)(R9*1), (DI)(R9*1), (R11)(R9*1), (R12)(R9*1), (R13)(R9*1), V1, V7)       \
	OUTPUTODD((DX)(R9*2), (DI)(R9*2), (R11)(R9*2), (R12)(R9*2), (R13)(R9*2), V2, V8)       \
	OUTPUTODD((DX)(R10*1), (DI)(R10*1), (R11)(R10*1), (R12)(R10*1), (R13)(R10*1), V3, V9)  \
	OUTPUTODD((DX)(R9*4), (DI)(R9*4), (R11)(R9*4), (R12)(R9*4), (R13)(R9*4), V4, V10)      \
	OUTPUTODD((DX)(R15*1), (DI)(R15*1), (R11)(R15*1), (R12)(R15*1), (R13)(R15*1), V5, V11)

#define FIRSTROW OUTPUTROW(V0, V1, V2, V3, V4, V5)
#define SECONDROW OUTPUTROW(V6, V7, V8, V9, V10, V11)
#define W0 V6
#define W1 V7
#define W2 V8

#include "winograd_output.h"
#include "winograd_output_epilogue.h"
