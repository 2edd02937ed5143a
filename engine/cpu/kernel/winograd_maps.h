// Macros of transforms between feature maps and planes, LANES channels at a time, for
// files that define what winograd4.h says of registers, elements and planes, and
// CONSTANTSAB, which loads what constants are in registers.
//
// AX is the offset of the channels in bytes of elements, R9 the size of a plane,
// R10 and R15 those of three and five.

// PLANES sets R9, R10, R15.
#define PLANES(plane, bytes) \
	MOVQ plane, R9        \
	IMUL3Q $bytes, R9, R9 \
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

// PATCHES prepares for patches, of which the stack holds pointers and then, at end, the
// end of the channels in bytes. Without a whole vector of them it goes to done.
#define PATCHES(end) \
	MOVQ dst_base+0(FP), DI \
	MOVQ zero_base+48(FP), R8 \
	MOVQ patches_base+72(FP), SI \
	MOVQ patches_len+80(FP), BX \
	LEAQ (SI)(BX*4), BX \
	MOVQ c+96(FP), CX \
	ANDQ $~(LANES-1), CX \
	JZ   done \
	IMUL3Q $ELEMENT, CX, CX \
	MOVQ CX, end(SP) \
	PLANES(plane+112(FP), PLANEBYTES) \
	CONSTANTSAB

// PUT stores v at pointer i, unless it is 0.
#define PUT(i, v, no) \
	MOVQ (8*i)(SP), R14     \
	TESTQ R14, R14          \
	JZ no                   \
	PUTPIXEL(v, (R14)(AX*1)) \
	no:

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

// PUTROW stores row i of 16 outputs, x0, x1, V14, x3.
#define PUTROW(i, x0, x1, x3, no0, no1, no2, no3) \
	PUT((4*i), x0, no0)         \
	PUT((4*i+1), x1, no1)       \
	PUT((4*i+2), V14, no2)      \
	PUT((4*i+3), x3, no3)

// ENDROW is PUTROW with an epilogue.
#define ENDROW(i, x0, x1, x3, last0, last1, last2, last3, no0, no1, no2, no3) \
	VBROADCASTSS 144(SP), V12    \
	VBROADCASTSS after+140(FP), V13 \
	END((4*i), x0, last0, no0)   \
	END((4*i+1), x1, last1, no1) \
	END((4*i+2), V14, last2, no2) \
	END((4*i+3), x3, last3, no3)

// TILES prepares for offsets of 16 outputs, for which the stack has pointers and then,
// at 128, the end of the channels in bytes. Without a whole vector of them it goes to
// done. SI offsets of a tile, BX their end, R8 src.
#define TILES(channels, plane) \
	MOVQ src_base+24(FP), R8 \
	MOVQ at_base+48(FP), SI \
	MOVQ at_len+56(FP), BX \
	LEAQ (SI)(BX*4), BX \
	MOVQ channels, CX \
	ANDQ $~(LANES-1), CX \
	JZ   done \
	IMUL3Q $ELEMENT, CX, CX \
	MOVQ CX, 128(SP) \
	PLANES(plane, 4) \
	CONSTANTSAB

// TILESEPILOGUE is TILES with an epilogue: the stack also has the distance from dst to
// add at 136, and the first bound at 144.
#define TILESEPILOGUE \
	TILES(bias_len+120(FP), plane+80(FP)) \
	MOVQ add_base+88(FP), CX \
	SUBQ dst_base+0(FP), CX \
	MOVQ CX, 136(SP) \
	VMOVSS before+136(FP), X0 \
	CMPQ add_len+96(FP), $0 \
	JNE  bounds \
	VMAXSS after+140(FP), X0, X0 \
	bounds: \
	VMOVSS X0, 144(SP)

// KERNELS prepares for n elements of kernels, float32 throughout: DI dst, SI src, BX
// elements left, R8 the size of a tap, CX that of a row of them. Without a whole vector of
// elements it goes to done.
#define KERNELS \
	MOVQ dst_base+0(FP), DI \
	MOVQ src_base+24(FP), SI \
	MOVQ n+48(FP), BX \
	MOVQ tap+56(FP), R8 \
	SHLQ $2, R8 \
	LEAQ (R8)(R8*2), CX \
	PLANES(plane+64(FP), 4) \
	SUBQ $LANES, BX \
	JLT  done

// WEIGHTKERNELS is KERNELS for the transform of a kernel: SI, R11, R12 are three rows of
// taps.
#define WEIGHTKERNELS \
	KERNELS \
	LEAQ (SI)(CX*1), R11 \
	LEAQ (R11)(CX*1), R12

// SUMKERNELS is KERNELS for the transform back: DI, R12, R13 are three rows of taps.
#define SUMKERNELS \
	KERNELS \
	LEAQ (DI)(CX*1), R12 \
	LEAQ (R12)(CX*1), R13

// SUMROWS sets CX, DX, R11, R14, AX to the rows of 6×6 planes after SI.
#define SUMROWS \
	LEAQ (SI)(R10*2), CX \
	LEAQ (CX)(R10*2), DX \
	LEAQ (DX)(R10*2), R11 \
	LEAQ (R11)(R10*2), R14 \
	LEAQ (R14)(R10*2), AX

// NEXTWEIGHTS goes on to the next vector of elements.
#define NEXTWEIGHTS(elements) \
	ADDQ $(4*LANES), SI \
	ADDQ $(4*LANES), R11 \
	ADDQ $(4*LANES), R12 \
	ADDQ $(4*LANES), DI \
	SUBQ $LANES, BX \
	JGE  elements

#define NEXTSUMS(elements) \
	ADDQ $(4*LANES), SI \
	ADDQ $(4*LANES), DI \
	ADDQ $(4*LANES), R12 \
	ADDQ $(4*LANES), R13 \
	SUBQ $LANES, BX \
	JGE  elements
