// The transforms of winograd4.go, LANES channels at a time, for the files that
// define the registers V0..V15 and the constants: CA, CA2, CA3 are a, a², a³, CB..
// those of b, CS s, CP p, CG0 1/p, CU0..CU2 1/u, a/u, a²/u, and CV0..CV2 1/v, b/v,
// b²/v. Constants are in memory or registers.
//
// Feature maps have elements of ELEMENT bytes: PIXEL loads a vector of them, PIXELFMA
// is a multiply-add of a constant and one of them. Planes of transformed patches have
// elements of PLANEBYTES, and PUTPLANE stores a vector of them. For what is in
// winograd4_maps.h, planes are float32 and RATIO times as large; there PIXELADD adds a
// vector of a feature map to another, and PUTPIXEL stores one.
//
// Two rows of the first product, twelve vectors, are formed and used at a time.
// The registers are those of winograd_maps.h.

#include "winograd_maps.h"

// BOTH sets p to V13·o + p and m to p - V13·o.
#define BOTH(o, p, m) \
	VMOVAPS p, m               \
	VFMADD231PS o, V13, p      \
	VFNMADD231PS o, V13, m

// INPUTPAIR is two rows of Bᵀ times column j of the patch, d4 - V12·d2 ± V13·(d3 - V12·d1).
#define INPUTPAIR(j, p, m) \
	MOVQ (8*(6+j))(SP), CX              \
	MOVQ (8*(12+j))(SP), R12            \
	MOVQ (8*(18+j))(SP), R13            \
	MOVQ (8*(24+j))(SP), R14            \
	PIXEL((R14)(AX*1), p)                         \
	PIXEL((R13)(AX*1), V14)                       \
	PIXELFMA(VFNMADD231PS, (R12)(AX*1), V12, p)   \
	PIXELFMA(VFNMADD231PS, (CX)(AX*1), V12, V14)  \
	BOTH(V14, p, m)

// INPUTEDGE is the first and the last row, d4 - V12·d2 + V13·d0 and the same of d5, d3, d1.
#define INPUTEDGE(j, p, m) \
	MOVQ (8*(24+j))(SP), CX             \
	MOVQ (8*(12+j))(SP), R12            \
	MOVQ (8*j)(SP), R13                 \
	PIXEL((CX)(AX*1), p)                          \
	PIXELFMA(VFNMADD231PS, (R12)(AX*1), V12, p)   \
	PIXELFMA(VFMADD231PS, (R13)(AX*1), V13, p)    \
	MOVQ (8*(30+j))(SP), CX             \
	MOVQ (8*(18+j))(SP), R12            \
	MOVQ (8*(6+j))(SP), R13             \
	PIXEL((CX)(AX*1), m)                          \
	PIXELFMA(VFNMADD231PS, (R12)(AX*1), V12, m)   \
	PIXELFMA(VFMADD231PS, (R13)(AX*1), V13, m)

// ROWPAIR stores e0 + c·e1 ± d·(o0 + c·o1), or with VFNMADD231PS for add, e0 - c·e1 ±
// d·(o0 - c·o1).
#define ROWPAIR(add, e0, e1, o0, o1, c, d, p, m) \
	VMOVAPS e0, V12           \
	VMOVAPS o0, V13           \
	add c, e1, V12            \
	add c, o1, V13            \
	VMOVAPS V12, V14          \
	VFMADD231PS d, V13, V12   \
	VFNMADD231PS d, V13, V14  \
	PUTPLANE(V12, p)          \
	PUTPLANE(V14, m)

// INPUTROW stores a row times B.
#define INPUTROW(to, x0, x1, x2, x3, x4, x5) \
	ROWPAIR(VFNMADD231PS, x4, x2, x3, x1, CB2, CA, (to)(R9*1), (to)(R9*2))  \
	ROWPAIR(VFNMADD231PS, x4, x2, x3, x1, CA2, CB, (to)(R10*1), (to)(R9*4)) \
	VFNMADD231PS CS, x2, x4    \
	VFNMADD231PS CS, x3, x5    \
	VFMADD231PS CP, x0, x4     \
	VFMADD231PS CP, x1, x5     \
	PUTPLANE(x4, (to))         \
	PUTPLANE(x5, (to)(R15*1))

// func winograd4Input(dst, src, zero []float32, patches []int32, c, stride, plane int)
// SI patch, BX end of the patches, DX src or rows of planes, R8 zero, DI dst, R11
// dst of these channels; the stack holds 36 pointers and the end of the channels.
TEXT INPUT(SB), NOSPLIT, $296-120
	PATCHES(288)

patch:
	CMPQ SI, BX
	JGE  done
	MOVQ src_base+24(FP), DX
	POINTERS16(0, R8)
	POINTERS16(16, R8)
	POINTERS4(32, R8)
	XORQ AX, AX
	MOVQ DI, R11

channels:
	VMOVUPS CB2, V12
	VMOVUPS CA, V13
	INPUTPAIR(0, V0, V6)
	INPUTPAIR(1, V1, V7)
	INPUTPAIR(2, V2, V8)
	INPUTPAIR(3, V3, V9)
	INPUTPAIR(4, V4, V10)
	INPUTPAIR(5, V5, V11)
	LEAQ (R11)(R10*2), DX
	INPUTROW(DX, V0, V1, V2, V3, V4, V5)
	LEAQ (DX)(R10*2), DX
	INPUTROW(DX, V6, V7, V8, V9, V10, V11)
	VMOVUPS CA2, V12
	VMOVUPS CB, V13
	INPUTPAIR(0, V0, V6)
	INPUTPAIR(1, V1, V7)
	INPUTPAIR(2, V2, V8)
	INPUTPAIR(3, V3, V9)
	INPUTPAIR(4, V4, V10)
	INPUTPAIR(5, V5, V11)
	LEAQ (DX)(R10*2), DX
	INPUTROW(DX, V0, V1, V2, V3, V4, V5)
	LEAQ (DX)(R10*2), DX
	INPUTROW(DX, V6, V7, V8, V9, V10, V11)
	VMOVUPS CS, V12
	VMOVUPS CP, V13
	INPUTEDGE(0, V0, V6)
	INPUTEDGE(1, V1, V7)
	INPUTEDGE(2, V2, V8)
	INPUTEDGE(3, V3, V9)
	INPUTEDGE(4, V4, V10)
	INPUTEDGE(5, V5, V11)
	LEAQ (DX)(R10*2), DX
	INPUTROW(DX, V6, V7, V8, V9, V10, V11)
	INPUTROW(R11, V0, V1, V2, V3, V4, V5)
	ADDQ $(ELEMENT*LANES), AX
	ADDQ $(PLANEBYTES*LANES), R11
	CMPQ AX, 288(SP)
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*PLANEBYTES), DI
	ADDQ $144, SI
	JMP  patch

done:
	VZEROUPPER
	RET
