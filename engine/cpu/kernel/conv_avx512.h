// Macros of the tiles of conv_avx512_amd64.s, whose words are float32, and of
// bf16_avx512_amd64.s, whose words are pairs of bfloat16.

// The wide tile is 13 rows × 32 columns of sums: row r is Z(2r), Z(2r+1). Z26,
// Z27 hold 32 weights (or dy), Z28..Z31 one source word each, broadcast. The
// narrow tile is 13 rows × 16 columns: row r is Z(r), and Z26 holds weights.
//
// Thirteen rows because thirteen pointers, the index CX and the weights DI are
// all general registers there are, and because 64, 128, 256 and 512 channels are
// almost whole multiples of 13, which the backward pass of the weights wants. The
// short tile is the first 8 rows of the wide one: for the 16 pixels of a single
// picture of 4×4, which would fill 26 rows.

#define ZEROWIDE \
	VPXORD Z0, Z0, Z0    \
	VPXORD Z1, Z1, Z1    \
	VPXORD Z2, Z2, Z2    \
	VPXORD Z3, Z3, Z3    \
	VPXORD Z4, Z4, Z4    \
	VPXORD Z5, Z5, Z5    \
	VPXORD Z6, Z6, Z6    \
	VPXORD Z7, Z7, Z7    \
	VPXORD Z8, Z8, Z8    \
	VPXORD Z9, Z9, Z9    \
	VPXORD Z10, Z10, Z10 \
	VPXORD Z11, Z11, Z11 \
	VPXORD Z12, Z12, Z12 \
	VPXORD Z13, Z13, Z13 \
	VPXORD Z14, Z14, Z14 \
	VPXORD Z15, Z15, Z15 \
	VPXORD Z16, Z16, Z16 \
	VPXORD Z17, Z17, Z17 \
	VPXORD Z18, Z18, Z18 \
	VPXORD Z19, Z19, Z19 \
	VPXORD Z20, Z20, Z20 \
	VPXORD Z21, Z21, Z21 \
	VPXORD Z22, Z22, Z22 \
	VPXORD Z23, Z23, Z23 \
	VPXORD Z24, Z24, Z24 \
	VPXORD Z25, Z25, Z25

#define ZERONARROW \
	VPXORD Z0, Z0, Z0    \
	VPXORD Z1, Z1, Z1    \
	VPXORD Z2, Z2, Z2    \
	VPXORD Z3, Z3, Z3    \
	VPXORD Z4, Z4, Z4    \
	VPXORD Z5, Z5, Z5    \
	VPXORD Z6, Z6, Z6    \
	VPXORD Z7, Z7, Z7    \
	VPXORD Z8, Z8, Z8    \
	VPXORD Z9, Z9, Z9    \
	VPXORD Z10, Z10, Z10 \
	VPXORD Z11, Z11, Z11 \
	VPXORD Z12, Z12, Z12

// ROW sets p to the end of the source row of tile row r, given the end of the
// first source row and of the zeros.
#define ROW(r, p) \
	MOVLQSX (8+4*r)(DI), CX \
	MOVQ src-24(SP), p      \
	LEAQ (p)(CX*4), p       \
	TESTQ CX, CX            \
	CMOVQLT zero-32(SP), p

// TAP sets the source rows, the weights and the index for the tap record at tap,
// and moves to the next record.
#define TAP \
	MOVQ tap-8(SP), DI \
	SHORTSOURCES       \
	ROW(8, AX)         \
	ROW(9, BX)         \
	ROW(10, DX)        \
	ROW(11, SI)        \
	ROW(12, BP)        \
	WEIGHTS(60)

// TAPSHORT is TAP for the tile of 8 rows.
#define TAPSHORT \
	MOVQ tap-8(SP), DI \
	SHORTSOURCES       \
	WEIGHTS(40)

#define SHORTSOURCES \
	ROW(0, R8)  \
	ROW(1, R9)  \
	ROW(2, R10) \
	ROW(3, R11) \
	ROW(4, R12) \
	ROW(5, R13) \
	ROW(6, R14) \
	ROW(7, R15)

// WEIGHTS is the part of TAP after the rows; a record has so many bytes.
#define WEIGHTS(record) \
	MOVLQSX (DI), CX          \
	ADDQ $record, DI          \
	MOVQ DI, tap-8(SP)        \
	MOVQ wei_base+128(FP), DI \
	LEAQ (DI)(CX*4), DI       \
	MOVQ c+120(FP), CX        \
	NEGQ CX

// BEGIN sets what TAP reads.
#define BEGIN \
	MOVQ taps_base+96(FP), SI \
	MOVQ taps_len+104(FP), BX \
	LEAQ (SI)(BX*4), BX       \
	MOVQ SI, tap-8(SP)        \
	MOVQ BX, last-16(SP)      \
	MOVQ c+120(FP), CX        \
	MOVQ src_base+48(FP), DX  \
	LEAQ (DX)(CX*4), DX       \
	MOVQ DX, src-24(SP)       \
	MOVQ zero_base+72(FP), DX \
	LEAQ (DX)(CX*4), DX       \
	MOVQ DX, zero-32(SP)

// SHORTROWS, WIDEROWS and NARROWROWS do something with every row of a tile.
#define SHORTROWS(do) \
	do(0, Z0, Z1) \
	do(1, Z2, Z3) \
	do(2, Z4, Z5) \
	do(3, Z6, Z7) \
	do(4, Z8, Z9) \
	do(5, Z10, Z11) \
	do(6, Z12, Z13) \
	do(7, Z14, Z15)

#define WIDEROWS(do) \
	SHORTROWS(do) \
	do(8, Z16, Z17) \
	do(9, Z18, Z19) \
	do(10, Z20, Z21) \
	do(11, Z22, Z23) \
	do(12, Z24, Z25)

#define NARROWROWS(do) \
	do(0, Z0) \
	do(1, Z1) \
	do(2, Z2) \
	do(3, Z3) \
	do(4, Z4) \
	do(5, Z5) \
	do(6, Z6) \
	do(7, Z7) \
	do(8, Z8) \
	do(9, Z9) \
	do(10, Z10) \
	do(11, Z11) \
	do(12, Z12)

#define DSTROW(r) \
	MOVLQSX (4*r)(SI), CX \
	LEAQ (DX)(CX*4), CX

#define LOADWIDE(r, lo, hi) \
	DSTROW(r)          \
	VMOVUPS (CX), lo   \
	VMOVUPS 64(CX), hi

#define PLUSWIDE(r, lo, hi) \
	DSTROW(r)              \
	VADDPS (CX), lo, lo    \
	VADDPS 64(CX), hi, hi

#define STOREWIDE(r, lo, hi) \
	DSTROW(r)          \
	VMOVUPS lo, (CX)   \
	VMOVUPS hi, 64(CX)

#define LOADNARROW(r, v) \
	DSTROW(r)       \
	VMOVUPS (CX), v

#define PLUSNARROW(r, v) \
	DSTROW(r)         \
	VADDPS (CX), v, v

#define STORENARROW(r, v) \
	DSTROW(r)       \
	VMOVUPS v, (CX)

#define ADDWIDE(r, lo, hi) \
	VADDPS (128*r)(DX), lo, lo    \
	VADDPS (128*r+64)(DX), hi, hi \
	VMOVUPS lo, (128*r)(DX)       \
	VMOVUPS hi, (128*r+64)(DX)

#define ADDNARROW(r, v) \
	VADDPS (64*r)(DX), v, v \
	VMOVUPS v, (64*r)(DX)
