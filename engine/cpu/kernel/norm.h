// The kernels of norm.go, for a set of vectors (vectors_avx2.h, vectors_avx512.h) and a
// type of maps. They go down some rows, a block, for two vectors of channels at a time,
// which keep what belongs to a channel in registers, and once more for the channels that
// remain; then the next block. Lines of long blocks would be read in jumps, which a
// processor does not foresee: they have 512 bytes, or a row, or, where channels fill no
// more than two vectors, all rows. R8 is the length of a row in bytes, R9 runs over the
// rows of a block to AX, CX counts the channels that are left, done is where the block
// begins in the maps. V4 to V11 belong to the channels, V12 is a bound. The set defines
//
//	MASKS                     what selects the CX channels that are left, at most 2·LANES; spoils R9, R14
//	CHANNELS(base, lo, hi)    loads these of float32 at base
//	PUT(base, lo, hi)         stores them
//	GATE(y, t)                sets t to 0 where y is not above V12; spoils y
//
// and the type
//
//	ELEMENT                   its bytes
//	NUMBERS(base, lo, hi)     loads the channels of a row of base
//	STORE(part, half, stored) stores V0 and V1 at a row of DI; spoils V2; the names are labels
//
// A store with a mask takes longer, and when dst is an operand the load of the next row
// must wait for it, as it counts as a whole one: STORE stores two vectors, or one, as such.

// ROWS begins a kernel over so many channels and elements: R8, and the size of a block in
// block. It goes to end when there are no elements.
#define ROWS(channels, elements) \
	MOVQ   channels, R8          \
	IMUL3Q $ELEMENT, R8, R8      \
	MOVQ   elements, AX          \
	IMUL3Q $ELEMENT, AX, AX      \
	MOVQ   AX, all-8(SP)         \
	TESTQ  AX, AX                \
	JZ     end                   \
	MOVQ   $0, done-16(SP)       \
	CMPQ   R8, $(2*LANES*ELEMENT) \
	JLE    sized                 \
	MOVQ   R8, AX                \
double:                          \
	CMPQ   AX, $256              \
	JGT    sized                 \
	ADDQ   AX, AX                \
	JMP    double                \
sized:                           \
	MOVQ   AX, block-24(SP)

// BLOCK sets R14 to where a block begins and AX to its size. ENDBLOCK goes to block when
// there is another one.
#define BLOCK \
	MOVQ    done-16(SP), R14  \
	MOVQ    all-8(SP), AX     \
	SUBQ    R14, AX           \
	CMPQ    AX, block-24(SP)  \
	CMOVQGT block-24(SP), AX

#define ENDBLOCK(label) \
	MOVQ done-16(SP), R14  \
	ADDQ block-24(SP), R14 \
	MOVQ R14, done-16(SP)  \
	CMPQ R14, all-8(SP)    \
	JLT  label

// MAP sets a register to the block in a map.
#define MAP(base, r) \
	MOVQ base, r \
	ADDQ R14, r

// NEXTROW goes to the next row at label, NEXTMAP and NEXTCHANNELS to the next channels of
// a map and of float32, NEXTGROUP to those at label.
#define NEXTROW(label) \
	ADDQ R8, R9 \
	CMPQ R9, AX \
	JLT  label

#define NEXTMAP(base) ADDQ $(2*LANES*ELEMENT), base
#define NEXTCHANNELS(base) ADDQ $(2*LANES*4), base

#define NEXTGROUP(label) \
	SUBQ $(2*LANES), CX \
	JGT  label

// PUTSUMS stores two sums of the channels, V6, V7 at R12 and V8, V9 at R13.
#define PUTSUMS \
	CMPQ    CX, $(2*LANES)        \
	JLT     putPart               \
	VMOVUPS V6, (R12)             \
	VMOVUPS V7, (4*LANES)(R12)    \
	VMOVUPS V8, (R13)             \
	VMOVUPS V9, (4*LANES)(R13)    \
	JMP     put                   \
putPart:                          \
	PUT(R12, V6, V7)              \
	PUT(R13, V8, V9)              \
put:

// func normalise(dst, x []T, scale, shift []float32, add []T, addScale, addShift []float32, low float32)
// DI dst, SI x, DX add; R10 scale, R11 shift, R12 and R13 those of add; V12 low.
TEXT NORMALISE(SB), NOSPLIT, $24-172
	ROWS(scale_len+56(FP), dst_len+8(FP))
	VBROADCASTSS low+168(FP), V12

block:
	BLOCK
	MAP(dst_base+0(FP), DI)
	MAP(x_base+24(FP), SI)
	MOVQ scale_base+48(FP), R10
	MOVQ scale_len+56(FP), CX
	MOVQ shift_base+72(FP), R11
	MAP(add_base+96(FP), DX)
	MOVQ add_len+104(FP), BX
	MOVQ addScale_base+120(FP), R12
	MOVQ addShift_base+144(FP), R13

group:
	MASKS
	XORQ R9, R9
	CHANNELS(R10, V4, V5)
	CHANNELS(R11, V6, V7)
	TESTQ BX, BX
	JNZ   both

one:
	NUMBERS(SI, V0, V1)
	VFMADD213PS V6, V4, V0
	VFMADD213PS V7, V5, V1
	VMAXPS V0, V12, V0
	VMAXPS V1, V12, V1
	STORE(onePart, oneHalf, oneStored)
	NEXTROW(one)
	JMP  next

both:
	CHANNELS(R12, V8, V9)
	CHANNELS(R13, V10, V11)
	NEXTCHANNELS(R12)
	NEXTCHANNELS(R13)

two:
	NUMBERS(SI, V0, V1)
	NUMBERS(DX, V2, V3)
	VFMADD213PS V6, V4, V0
	VFMADD213PS V7, V5, V1
	VFMADD213PS V10, V8, V2
	VFMADD213PS V11, V9, V3
	VADDPS V2, V0, V0
	VADDPS V3, V1, V1
	VMAXPS V0, V12, V0
	VMAXPS V1, V12, V1
	STORE(twoPart, twoHalf, twoStored)
	NEXTROW(two)
	NEXTMAP(DX)

next:
	NEXTMAP(DI)
	NEXTMAP(SI)
	NEXTCHANNELS(R10)
	NEXTCHANNELS(R11)
	NEXTGROUP(group)
	ENDBLOCK(block)

end:
	VZEROUPPER
	RET

// func gateSums(g, d, more, y, x []T, mean, sum, products []float32)
// DI g, SI d, DX more, BX y, R10 x; R11 mean, R12 sum, R13 products. V4, V5 the mean,
// V6, V7 the sum, V8, V9 the products, V12 zero. R15 has bit 0 when g is given, bit 1
// when more is, bit 2 when y is.
TEXT GATESUMS(SB), NOSPLIT, $24-192
	ROWS(sum_len+152(FP), x_len+104(FP))
	ZERO(V12)
	XORQ R15, R15
	CMPQ g_len+8(FP), $0
	JE   without
	ORQ  $1, R15

without:
	CMPQ more_len+56(FP), $0
	JE   alone
	ORQ  $2, R15

alone:
	CMPQ y_len+80(FP), $0
	JE   block
	ORQ  $4, R15

block:
	BLOCK
	MAP(g_base+0(FP), DI)
	MAP(d_base+24(FP), SI)
	MAP(more_base+48(FP), DX)
	MAP(y_base+72(FP), BX)
	MAP(x_base+96(FP), R10)
	MOVQ mean_base+120(FP), R11
	MOVQ sum_base+144(FP), R12
	MOVQ sum_len+152(FP), CX
	MOVQ products_base+168(FP), R13

group:
	MASKS
	XORQ R9, R9
	CHANNELS(R11, V4, V5)
	CHANNELS(R12, V6, V7)
	CHANNELS(R13, V8, V9)

row:
	NUMBERS(SI, V0, V1)
	TESTB $2, R15
	JZ    gate
	NUMBERS(DX, V2, V3)
	VADDPS V2, V0, V0
	VADDPS V3, V1, V1

gate:
	TESTB $4, R15
	JZ    store
	NUMBERS(BX, V2, V3)
	GATE(V2, V0)
	GATE(V3, V1)

store:
	TESTB $1, R15
	JZ    stored
	STORE(part, half, stored)
	NUMBERS(R10, V2, V3)
	VSUBPS V4, V2, V2
	VSUBPS V5, V3, V3
	VADDPS V0, V6, V6
	VADDPS V1, V7, V7
	VFMADD231PS V0, V2, V8
	VFMADD231PS V1, V3, V9
	NEXTROW(row)
	PUTSUMS
	NEXTMAP(DI)
	NEXTMAP(SI)
	NEXTMAP(DX)
	NEXTMAP(BX)
	NEXTMAP(R10)
	NEXTCHANNELS(R11)
	NEXTCHANNELS(R12)
	NEXTCHANNELS(R13)
	NEXTGROUP(group)
	ENDBLOCK(block)

end:
	VZEROUPPER
	RET

// func moments(sum, squares []float32, x []T, mean []float32)
// R12 sum, R13 squares, SI x, R11 mean. V4, V5 the mean, V6, V7 the sum, V8, V9 the
// squares.
TEXT MOMENTS(SB), NOSPLIT, $24-96
	ROWS(sum_len+8(FP), x_len+56(FP))

block:
	BLOCK
	MOVQ sum_base+0(FP), R12
	MOVQ sum_len+8(FP), CX
	MOVQ squares_base+24(FP), R13
	MAP(x_base+48(FP), SI)
	MOVQ mean_base+72(FP), R11

group:
	MASKS
	XORQ R9, R9
	CHANNELS(R11, V4, V5)
	CHANNELS(R12, V6, V7)
	CHANNELS(R13, V8, V9)

row:
	NUMBERS(SI, V0, V1)
	VSUBPS V4, V0, V0
	VSUBPS V5, V1, V1
	VADDPS V0, V6, V6
	VADDPS V1, V7, V7
	VFMADD231PS V0, V0, V8
	VFMADD231PS V1, V1, V9
	NEXTROW(row)
	PUTSUMS
	NEXTMAP(SI)
	NEXTCHANNELS(R11)
	NEXTCHANNELS(R12)
	NEXTCHANNELS(R13)
	NEXTGROUP(group)
	ENDBLOCK(block)

end:
	VZEROUPPER
	RET
