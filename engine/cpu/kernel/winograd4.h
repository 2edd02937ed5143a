// The transforms of winograd4.go, LANES channels at a time, for the files that
// define the registers V0..V15 and the constants: CA, CA2, CA3 are a, a², a³, CB..
// those of b, CS s, CP p, CG0 1/p, CU0..CU2 1/u, a/u, a²/u, and CV0..CV2 1/v, b/v,
// b²/v. Constants are in memory or registers.
//
// Planes are float32, feature maps have elements of ELEMENT bytes, RATIO times
// fewer: PIXEL loads a vector of them, PIXELADD adds one to a vector, PIXELFMA is
// a multiply-add of a constant and one of them, and PUTPIXEL stores one.
//
// Two rows of the first product, twelve vectors, are formed and used at a time.
// AX is the offset of the channels in bytes of elements, R9 the size of a plane,
// R10 and R15 those of three and five.

// PLANES sets R9, R10, R15.
#define PLANES(plane) \
	MOVQ plane, R9        \
	SHLQ $2, R9           \
	LEAQ (R9)(R9*2), R10  \
	LEAQ (R9)(R9*4), R15

// POINTER spills element offset i(SI) of DX, or none if it is NoPixel.
#define POINTER(i, none) \
	MOVLQSX (4*i)(SI), CX  \
	LEAQ    (DX)(CX*ELEMENT), AX \
	TESTQ   CX, CX         \
	CMOVQLT none, AX       \
	MOVQ    AX, (8*i)(SP)

#define POINTERS4(i, none) \
	POINTER(i, none)     \
	POINTER((i+1), none) \
	POINTER((i+2), none) \
	POINTER((i+3), none)

#define POINTERS16(i, none) \
	POINTERS4(i, none)      \
	POINTERS4((i+4), none)  \
	POINTERS4((i+8), none)  \
	POINTERS4((i+12), none)

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
	VMOVUPS V12, p            \
	VMOVUPS V14, m

// INPUTROW stores a row times B.
#define INPUTROW(to, x0, x1, x2, x3, x4, x5) \
	ROWPAIR(VFNMADD231PS, x4, x2, x3, x1, CB2, CA, (to)(R9*1), (to)(R9*2))  \
	ROWPAIR(VFNMADD231PS, x4, x2, x3, x1, CA2, CB, (to)(R10*1), (to)(R9*4)) \
	VFNMADD231PS CS, x2, x4    \
	VFNMADD231PS CS, x3, x5    \
	VFMADD231PS CP, x0, x4     \
	VFMADD231PS CP, x1, x5     \
	VMOVUPS x4, (to)           \
	VMOVUPS x5, (to)(R15*1)

// func winograd4Input(dst, src, zero []float32, patches []int32, c, stride, plane int)
// SI patch, BX end of the patches, DX src or rows of planes, R8 zero, DI dst, R11
// dst of these channels; the stack holds 36 pointers and the end of the channels.
TEXT INPUT(SB), NOSPLIT, $296-120
	MOVQ dst_base+0(FP), DI
	MOVQ zero_base+48(FP), R8
	MOVQ patches_base+72(FP), SI
	MOVQ patches_len+80(FP), BX
	LEAQ (SI)(BX*4), BX
	MOVQ c+96(FP), CX
	ANDQ $~(LANES-1), CX
	JZ   done
	IMUL3Q $ELEMENT, CX, CX
	MOVQ CX, 288(SP)
	PLANES(plane+112(FP))
	CONSTANTSAB

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
	ADDQ $(4*LANES), R11
	CMPQ AX, 288(SP)
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*4), DI
	ADDQ $144, SI
	JMP  patch

done:
	VZEROUPPER
	RET

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
	VMOVUPS x0, (to)           \
	VMOVUPS x3, (to)(R15*1)

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
	MOVQ dst_base+0(FP), DI
	MOVQ zero_base+48(FP), R8
	MOVQ patches_base+72(FP), SI
	MOVQ patches_len+80(FP), BX
	LEAQ (SI)(BX*4), BX
	MOVQ c+96(FP), CX
	ANDQ $~(LANES-1), CX
	JZ   done
	IMUL3Q $ELEMENT, CX, CX
	MOVQ CX, 128(SP)
	PLANES(plane+112(FP))
	CONSTANTSAB

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
	ADDQ $(4*LANES), R11
	CMPQ AX, 128(SP)
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*4), DI
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

// OUTPUTROW is a row times A: it becomes x0, x1, V14, x2.
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

// PUT stores v at pointer i, unless it is 0.
#define PUT(i, v, no) \
	MOVQ (8*i)(SP), R14     \
	TESTQ R14, R14          \
	JZ no                   \
	PUTPIXEL(v, (R14)(AX*1)) \
	no:

// PUTROW stores row i times A.
#define PUTROW(i, x0, x1, x2, x3, x4, x5, no0, no1, no2, no3) \
	OUTPUTROW(x0, x1, x2, x3, x4, x5) \
	PUT((4*i), x0, no0)         \
	PUT((4*i+1), x1, no1)       \
	PUT((4*i+2), V14, no2)      \
	PUT((4*i+3), x2, no3)

// END is PUT with an epilogue: V15 is the bias, V12 and V13 are the bounds.
#define END(i, v, last, no) \
	MOVQ (8*i)(SP), R14         \
	TESTQ R14, R14              \
	JZ no                       \
	VADDPS V15, v, v            \
	VMAXPS v, V12, v            \
	CMPQ add_len+96(FP), $0     \
	JEQ last                    \
	MOVQ 136(SP), CX            \
	ADDQ R14, CX                \
	PIXELADD((CX)(AX*1), v)     \
	VMAXPS v, V13, v            \
	last:                       \
	PUTPIXEL(v, (R14)(AX*1))    \
	no:

// ENDROW is PUTROW with an epilogue.
#define ENDROW(i, x0, x1, x2, x3, x4, x5, last0, last1, last2, last3, no0, no1, no2, no3) \
	OUTPUTROW(x0, x1, x2, x3, x4, x5) \
	VBROADCASTSS 144(SP), V12    \
	VBROADCASTSS after+140(FP), V13 \
	END((4*i), x0, last0, no0)   \
	END((4*i+1), x1, last1, no1) \
	END((4*i+2), V14, last2, no2) \
	END((4*i+3), x2, last3, no3)

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

// func winograd4Output(dst, src []float32, at []int32, c, stride, plane int)
// SI offsets of a tile, BX their end, R8 src; the stack holds sixteen destinations
// or 0 and the end of the channels.
TEXT OUTPUT(SB), NOSPLIT, $136-96
	MOVQ src_base+24(FP), R8
	MOVQ at_base+48(FP), SI
	MOVQ at_len+56(FP), BX
	LEAQ (SI)(BX*4), BX
	MOVQ c+72(FP), CX
	ANDQ $~(LANES-1), CX
	JZ   done
	IMUL3Q $ELEMENT, CX, CX
	MOVQ CX, 128(SP)
	PLANES(plane+88(FP))
	CONSTANTSAB

tile:
	CMPQ SI, BX
	JGE  done
	MOVQ dst_base+0(FP), DX
	XORQ DI, DI
	POINTERS16(0, DI)
	XORQ AX, AX

channels:
	OUTPUTROWS
	OUTPUTEVENS
	PUTROW(0, V0, V1, V2, V3, V4, V5, no0, no1, no2, no3)
	PUTROW(2, V6, V7, V8, V9, V10, V11, no8, no9, no10, no11)
	OUTPUTODDS
	PUTROW(1, V0, V1, V2, V3, V4, V5, no4, no5, no6, no7)
	PUTROW(3, V6, V7, V8, V9, V10, V11, no12, no13, no14, no15)
	ADDQ $(ELEMENT*LANES), AX
	CMPQ AX, 128(SP)
	JLT  channels
	MOVQ stride+80(FP), CX
	LEAQ (R8)(CX*4), R8
	ADDQ $64, SI
	JMP  tile

done:
	VZEROUPPER
	RET

// func winograd4OutputEpilogue(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32)
// As winograd4Output; the stack also holds the distance from dst to add, and the
// first bound.
TEXT OUTPUTEPILOGUE(SB), NOSPLIT, $152-144
	MOVQ src_base+24(FP), R8
	MOVQ at_base+48(FP), SI
	MOVQ at_len+56(FP), BX
	LEAQ (SI)(BX*4), BX
	MOVQ bias_len+120(FP), CX
	ANDQ $~(LANES-1), CX
	JZ   done
	IMUL3Q $ELEMENT, CX, CX
	MOVQ CX, 128(SP)
	MOVQ add_base+88(FP), CX
	SUBQ dst_base+0(FP), CX
	MOVQ CX, 136(SP)
	VMOVSS before+136(FP), X0
	CMPQ add_len+96(FP), $0
	JNE  bounds
	VMAXSS after+140(FP), X0, X0

bounds:
	VMOVSS X0, 144(SP)
	PLANES(plane+80(FP))
	CONSTANTSAB

tile:
	CMPQ SI, BX
	JGE  done
	MOVQ dst_base+0(FP), DX
	XORQ DI, DI
	POINTERS16(0, DI)
	XORQ AX, AX

channels:
	MOVQ bias_base+112(FP), CX
	VMOVUPS (CX)(AX*RATIO), V15
	OUTPUTROWS
	OUTPUTEVENS
	ENDROW(0, V0, V1, V2, V3, V4, V5, last0, last1, last2, last3, no0, no1, no2, no3)
	ENDROW(2, V6, V7, V8, V9, V10, V11, last8, last9, last10, last11, no8, no9, no10, no11)
	OUTPUTODDS
	ENDROW(1, V0, V1, V2, V3, V4, V5, last4, last5, last6, last7, no4, no5, no6, no7)
	ENDROW(3, V6, V7, V8, V9, V10, V11, last12, last13, last14, last15, no12, no13, no14, no15)
	ADDQ $(ELEMENT*LANES), AX
	CMPQ AX, 128(SP)
	JLT  channels
	MOVQ stride+72(FP), CX
	LEAQ (R8)(CX*4), R8
	ADDQ $64, SI
	JMP  tile

done:
	VZEROUPPER
	RET

#ifdef WEIGHTS

// WEIGHTPAIR is two rows of G times a column, c0·g0 + c2·g2 ± c1·g1.
#define WEIGHTPAIR(g0, g1, g2, c0, c1, c2, p, m) \
	VMOVUPS g0, p               \
	VMOVUPS g2, V12             \
	VMOVUPS g1, V14             \
	VMULPS c0, p, p             \
	VFMADD231PS c2, V12, p      \
	VMOVAPS p, m                \
	VFMADD231PS c1, V14, p      \
	VFNMADD231PS c1, V14, m

#define WEIGHTROWPAIR(x0, x1, x2, c0, c1, c2, p, m) \
	VMULPS c0, x0, V12          \
	VFMADD231PS c2, x2, V12     \
	VMOVAPS V12, V13            \
	VFMADD231PS c1, x1, V12     \
	VFNMADD231PS c1, x1, V13    \
	VMOVUPS V12, p              \
	VMOVUPS V13, m

// WEIGHTROW stores a row times Gᵀ.
#define WEIGHTROW(to, x0, x1, x2) \
	WEIGHTROWPAIR(x0, x1, x2, CU0, CU1, CU2, (to)(R9*1), (to)(R9*2))  \
	WEIGHTROWPAIR(x0, x1, x2, CV0, CV1, CV2, (to)(R10*1), (to)(R9*4)) \
	VMULPS CG0, x0, x0          \
	VMOVUPS x0, (to)            \
	VMOVUPS x2, (to)(R15*1)

// func winograd4Weights(dst, src []float32, n, tap, plane int)
// SI, R11, R12 are three rows of taps, R8 the size of a tap, DI dst, BX elements left.
TEXT WEIGHTS(SB), NOSPLIT, $0-72
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ n+48(FP), BX
	MOVQ tap+56(FP), R8
	SHLQ $2, R8
	LEAQ (R8)(R8*2), CX
	LEAQ (SI)(CX*1), R11
	LEAQ (R11)(CX*1), R12
	PLANES(plane+64(FP))
	SUBQ $LANES, BX
	JLT  done
	CONSTANTSG

elements:
	WEIGHTPAIR((SI), (R11), (R12), CU0, CU1, CU2, V0, V3)
	WEIGHTPAIR((SI)(R8*1), (R11)(R8*1), (R12)(R8*1), CU0, CU1, CU2, V1, V4)
	WEIGHTPAIR((SI)(R8*2), (R11)(R8*2), (R12)(R8*2), CU0, CU1, CU2, V2, V5)
	LEAQ (DI)(R10*2), CX
	WEIGHTROW(CX, V0, V1, V2)
	LEAQ (CX)(R10*2), CX
	WEIGHTROW(CX, V3, V4, V5)
	WEIGHTPAIR((SI), (R11), (R12), CV0, CV1, CV2, V0, V3)
	WEIGHTPAIR((SI)(R8*1), (R11)(R8*1), (R12)(R8*1), CV0, CV1, CV2, V1, V4)
	WEIGHTPAIR((SI)(R8*2), (R11)(R8*2), (R12)(R8*2), CV0, CV1, CV2, V2, V5)
	LEAQ (CX)(R10*2), CX
	WEIGHTROW(CX, V0, V1, V2)
	LEAQ (CX)(R10*2), CX
	WEIGHTROW(CX, V3, V4, V5)
	VMOVUPS (R12), V0
	VMOVUPS (R12)(R8*1), V1
	VMOVUPS (R12)(R8*2), V2
	LEAQ (CX)(R10*2), CX
	WEIGHTROW(CX, V0, V1, V2)
	VMOVUPS (SI), V0
	VMOVUPS (SI)(R8*1), V1
	VMOVUPS (SI)(R8*2), V2
	VMULPS CG0, V0, V0
	VMULPS CG0, V1, V1
	VMULPS CG0, V2, V2
	WEIGHTROW(DI, V0, V1, V2)
	ADDQ $(4*LANES), SI
	ADDQ $(4*LANES), R11
	ADDQ $(4*LANES), R12
	ADDQ $(4*LANES), DI
	SUBQ $LANES, BX
	JGE  elements

done:
	VZEROUPPER
	RET

// SUMEVEN is rows 0 and 2 of Gᵀ times a column.
#define SUMEVEN(m0, m1, m2, m3, m4, m5, r0, r2) \
	VMOVUPS m1, r0              \
	VADDPS m2, r0, r0           \
	VMOVUPS m3, V14             \
	VADDPS m4, V14, V14         \
	VMULPS CU2, r0, r2          \
	VMULPS CU0, r0, r0          \
	VFMADD231PS CV2, V14, r2    \
	VFMADD231PS CV0, V14, r0    \
	VMOVUPS m0, V14             \
	VADDPS m5, r2, r2           \
	VFMADD231PS CG0, V14, r0

// SUMODD is row 1.
#define SUMODD(m1, m2, m3, m4, r1) \
	VMOVUPS m1, r1              \
	VSUBPS m2, r1, r1           \
	VMOVUPS m3, V14             \
	VSUBPS m4, V14, V14         \
	VMULPS CU1, r1, r1          \
	VFMADD231PS CV1, V14, r1

// SUMROW stores a row times G.
#define SUMROW(to, x0, x1, x2, x3, x4, x5) \
	VADDPS x2, x1, V12          \
	VSUBPS x2, x1, x1           \
	VADDPS x4, x3, V13          \
	VSUBPS x4, x3, x3           \
	VMULPS CG0, x0, x0          \
	VMULPS CU1, x1, x1          \
	VMULPS CU2, V12, V14        \
	VFMADD231PS CU0, V12, x0    \
	VFMADD231PS CV1, x3, x1     \
	VFMADD231PS CV2, V13, V14   \
	VFMADD231PS CV0, V13, x0    \
	VADDPS x5, V14, V14         \
	VMOVUPS x0, (to)            \
	VMOVUPS x1, (to)(R8*1)      \
	VMOVUPS V14, (to)(R8*2)

// func winograd4Sums(dst, src []float32, n, tap, plane int)
// SI, CX, DX, R11, R14, AX are six rows of planes, DI, R12, R13 three rows of taps,
// R8 the size of a tap, BX elements left.
TEXT SUMS(SB), NOSPLIT, $0-72
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ n+48(FP), BX
	MOVQ tap+56(FP), R8
	SHLQ $2, R8
	LEAQ (R8)(R8*2), CX
	LEAQ (DI)(CX*1), R12
	LEAQ (R12)(CX*1), R13
	PLANES(plane+64(FP))
	SUBQ $LANES, BX
	JLT  done
	CONSTANTSG

elements:
	LEAQ (SI)(R10*2), CX
	LEAQ (CX)(R10*2), DX
	LEAQ (DX)(R10*2), R11
	LEAQ (R11)(R10*2), R14
	LEAQ (R14)(R10*2), AX
	SUMEVEN((SI), (CX), (DX), (R11), (R14), (AX), V0, V6)
	SUMEVEN((SI)(R9*1), (CX)(R9*1), (DX)(R9*1), (R11)(R9*1), (R14)(R9*1), (AX)(R9*1), V1, V7)
	SUMEVEN((SI)(R9*2), (CX)(R9*2), (DX)(R9*2), (R11)(R9*2), (R14)(R9*2), (AX)(R9*2), V2, V8)
	SUMEVEN((SI)(R10*1), (CX)(R10*1), (DX)(R10*1), (R11)(R10*1), (R14)(R10*1), (AX)(R10*1), V3, V9)
	SUMEVEN((SI)(R9*4), (CX)(R9*4), (DX)(R9*4), (R11)(R9*4), (R14)(R9*4), (AX)(R9*4), V4, V10)
	SUMEVEN((SI)(R15*1), (CX)(R15*1), (DX)(R15*1), (R11)(R15*1), (R14)(R15*1), (AX)(R15*1), V5, V11)
	SUMROW(DI, V0, V1, V2, V3, V4, V5)
	SUMROW(R13, V6, V7, V8, V9, V10, V11)
	SUMODD((CX), (DX), (R11), (R14), V0)
	SUMODD((CX)(R9*1), (DX)(R9*1), (R11)(R9*1), (R14)(R9*1), V1)
	SUMODD((CX)(R9*2), (DX)(R9*2), (R11)(R9*2), (R14)(R9*2), V2)
	SUMODD((CX)(R10*1), (DX)(R10*1), (R11)(R10*1), (R14)(R10*1), V3)
	SUMODD((CX)(R9*4), (DX)(R9*4), (R11)(R9*4), (R14)(R9*4), V4)
	SUMODD((CX)(R15*1), (DX)(R15*1), (R11)(R15*1), (R14)(R15*1), V5)
	SUMROW(R12, V0, V1, V2, V3, V4, V5)
	ADDQ $(4*LANES), SI
	ADDQ $(4*LANES), DI
	ADDQ $(4*LANES), R12
	ADDQ $(4*LANES), R13
	SUBQ $LANES, BX
	JGE  elements

done:
	VZEROUPPER
	RET

#endif
