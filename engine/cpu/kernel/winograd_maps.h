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
