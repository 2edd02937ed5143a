//go:build !purego

#include "textflag.h"
#include "amx.h"
#include "bf16_avx512.h"

// Tiles 0..3 are the sums of 32 rows × 32 columns, in quarters: 0 and 1 are the
// first 16 rows, 2 and 3 the others. Tiles 4 and 5 are 16 rows each of the left
// operand, 16 pairs wide; 6 and 7 are 16 pairs of 16 columns each of the right one.
// All are 16 rows of 64 bytes.
DATA tileShapes<>+0(SB)/8, $1 // palette 1
DATA tileShapes<>+8(SB)/8, $0
DATA tileShapes<>+16(SB)/8, $0x0040004000400040 // bytes of a row
DATA tileShapes<>+24(SB)/8, $0x0040004000400040
DATA tileShapes<>+32(SB)/8, $0
DATA tileShapes<>+40(SB)/8, $0
DATA tileShapes<>+48(SB)/8, $0x1010101010101010 // rows
DATA tileShapes<>+56(SB)/8, $0
GLOBL tileShapes<>(SB), RODATA|NOPTR, $64

// Memory of a call, from SI on, which is the stack pointer rounded up to 64:
//
//	0     left operand, 32 rows × 16 pairs
//	2048  right operand, 16 rows × 32 columns
//	4096  sums, 32 rows × 32 columns
//	8192  32 pointers
//	8448  zeros, 32 words
#define LEFT2 1024
#define RIGHT 2048
#define SUMS 4096
#define POINTERS 8192
#define ZEROS 8448

#define START \
	LEAQ 63(SP), SI              \
	ANDQ $~63, SI                \
	LEAQ tileShapes<>(SB), DI    \
	LDTILECFG(DI_)               \
	MOVQ $64, DX                 \
	MOVQ $128, AX

// MULTIPLYWIDE multiplies the left operand with the right one at DI, rows AX bytes
// apart; MULTIPLYSLIM does with one of 16 columns.
#define MULTIPLYWIDE \
	LEAQ LEFT2(SI), BX     \
	TILELOAD(6, 0, DI_, AX_)  \
	TILELOAD(4, 0, SI_, DX_)  \
	TILELOAD(7, 64, DI_, AX_) \
	TDPBF16(0, 4, 6)       \
	TDPBF16(1, 4, 7)       \
	TILELOAD(5, 0, BX_, DX_)  \
	TDPBF16(2, 5, 6)       \
	TDPBF16(3, 5, 7)

#define MULTIPLYSLIM \
	LEAQ LEFT2(SI), BX    \
	TILELOAD(6, 0, DI_, AX_) \
	TILELOAD(4, 0, SI_, DX_) \
	TDPBF16(0, 4, 6)      \
	TILELOAD(5, 0, BX_, DX_) \
	TDPBF16(2, 5, 6)

// PRODUCTS forms the sums of a tile of 32 pixels × 32 or, where wide is 0, 16
// columns, and stores them at SUMS in rows of 128 bytes. R8 is the tap record, R9
// the end of them, R10 the pointers to the source rows, R13 bytes into these, R15
// the pairs left, DI the weights, AX the bytes of a row of them.
//
// The rows of a tile are pixels anywhere in memory, but a tile loads rows at equal
// distances. So 16 pairs of each row are brought together first.
#define PRODUCTS(wide) \
	START                            \
	MOVQ $(64+64*wide), AX           \
	LEAQ POINTERS(SI), R10           \
	MOVQ taps_base+96(FP), R8        \
	MOVQ taps_len+104(FP), R9        \
	LEAQ (R8)(R9*4), R9              \
nexttap:                             \
	CMPQ R8, R9                      \
	JGE  summed                      \
	MOVQ src_base+48(FP), R11        \
	MOVQ zero_base+72(FP), R12       \
	XORQ BX, BX                      \
pointer:                             \
	MOVLQSX 8(R8)(BX*4), CX          \
	LEAQ (R11)(CX*4), R13            \
	TESTQ CX, CX                     \
	CMOVQLT R12, R13                 \
	MOVQ R13, (R10)(BX*8)            \
	INCQ BX                          \
	CMPQ BX, $32                     \
	JLT  pointer                     \
	MOVLQSX (R8), DI                 \
	MOVQ wei_base+128(FP), CX        \
	LEAQ (CX)(DI*4), DI              \
	ADDQ $136, R8                    \
	XORQ R13, R13                    \
	MOVQ c+120(FP), R15              \
whole:                               \
	CMPQ R15, $16                    \
	JLT  rest                        \
	XORQ BX, BX                      \
	MOVQ SI, R14                     \
row:                                 \
	MOVQ (R10)(BX*8), CX             \
	MOVQ 8(R10)(BX*8), R11           \
	VMOVUPS (CX)(R13*1), Z0          \
	VMOVUPS (R11)(R13*1), Z1         \
	MOVQ 16(R10)(BX*8), CX           \
	MOVQ 24(R10)(BX*8), R11          \
	VMOVUPS (CX)(R13*1), Z2          \
	VMOVUPS (R11)(R13*1), Z3         \
	VMOVUPS Z0, (R14)                \
	VMOVUPS Z1, 64(R14)              \
	VMOVUPS Z2, 128(R14)             \
	VMOVUPS Z3, 192(R14)             \
	ADDQ $256, R14                   \
	ADDQ $4, BX                      \
	CMPQ BX, $32                     \
	JLT  row                         \
	MULTIPLY                         \
	ADDQ $64, R13                    \
	SUBQ $16, R15                    \
	SHLQ $4, AX                      \
	ADDQ AX, DI                      \
	SHRQ $4, AX                      \
	JMP  whole                       \
rest:                                \
	TESTQ R15, R15                   \
	JZ   nexttap                     \
	MOVQ R15, CX                     \
	MOVL $1, BX                      \
	SHLL CX, BX                      \
	DECL BX                          \
	KMOVW BX, K1                     \
	XORQ BX, BX                      \
	MOVQ SI, R14                     \
restrow:                             \
	MOVQ (R10)(BX*8), CX             \
	VMOVDQU32.Z (CX)(R13*1), K1, Z0  \
	VMOVUPS Z0, (R14)                \
	ADDQ $64, R14                    \
	INCQ BX                          \
	CMPQ BX, $32                     \
	JLT  restrow                     \
	VPXORD Z0, Z0, Z0                \
	LEAQ RIGHT(SI), R14              \
	XORQ BX, BX                      \
clearright:                          \
	VMOVUPS Z0, (R14)(BX*1)          \
	ADDQ $64, BX                     \
	CMPQ BX, $2048                   \
	JLT  clearright                  \
	IMULQ AX, R15                    \
	XORQ BX, BX                      \
copyright:                           \
	VMOVUPS (DI)(BX*1), Z0           \
	VMOVUPS Z0, (R14)(BX*1)          \
	ADDQ $64, BX                     \
	CMPQ BX, R15                     \
	JLT  copyright                   \
	MOVQ R14, DI                     \
	MULTIPLY                         \
	JMP  nexttap                     \
summed:                              \
	LEAQ SUMS(SI), R14               \
	MOVQ R14, DI                     \
	MOVQ $128, AX                    \
	LEAQ 2048(R14), BX               \
	TILESTORE(0, 0, DI_, AX_)        \
	TILESTORE(1, 64, DI_, AX_)       \
	TILESTORE(2, 0, BX_, AX_)        \
	TILESTORE(3, 64, BX_, AX_)       \
	TILERELEASE                      \
	MOVQ dst_base+0(FP), DI          \
	MOVQ dstOff_base+24(FP), R10     \
	XORQ BX, BX

#define MULTIPLY MULTIPLYWIDE

// func pairTile32x32AMX(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)
TEXT ·pairTile32x32AMX(SB), 0, $8640-152
	PRODUCTS(1)

store:
	MOVLQSX (R10)(BX*4), CX
	VMOVUPS (R14), Z0
	VMOVUPS 64(R14), Z1
	NARROW2(2, 1, 0)
	VMOVUPS Z2, (DI)(CX*2)
	ADDQ $128, R14
	INCQ BX
	CMPQ BX, $32
	JLT  store
	VZEROUPPER
	RET

// func pairTileSums32x32AMX(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)
TEXT ·pairTileSums32x32AMX(SB), 0, $8640-153
	PRODUCTS(1)
	MOVBQZX accumulate+152(FP), R8

store:
	MOVLQSX (R10)(BX*4), CX
	LEAQ (DI)(CX*4), CX
	VMOVUPS (R14), Z0
	VMOVUPS 64(R14), Z1
	TESTQ R8, R8
	JZ   over
	VADDPS (CX), Z0, Z0
	VADDPS 64(CX), Z1, Z1

over:
	VMOVUPS Z0, (CX)
	VMOVUPS Z1, 64(CX)
	ADDQ $128, R14
	INCQ BX
	CMPQ BX, $32
	JLT  store
	VZEROUPPER
	RET

#undef MULTIPLY
#define MULTIPLY MULTIPLYSLIM

// func pairTile32x16AMX(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)
TEXT ·pairTile32x16AMX(SB), 0, $8640-152
	PRODUCTS(0)

store:
	MOVLQSX (R10)(BX*4), CX
	VMOVUPS (R14), Z0
	NARROW1(2, 0)
	VMOVUPS Y2, (DI)(CX*2)
	ADDQ $128, R14
	INCQ BX
	CMPQ BX, $32
	JLT  store
	VZEROUPPER
	RET

// func pairTileSums32x16AMX(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)
TEXT ·pairTileSums32x16AMX(SB), 0, $8640-153
	PRODUCTS(0)
	MOVBQZX accumulate+152(FP), R8

store:
	MOVLQSX (R10)(BX*4), CX
	LEAQ (DI)(CX*4), CX
	VMOVUPS (R14), Z0
	TESTQ R8, R8
	JZ   over
	VADDPS (CX), Z0, Z0

over:
	VMOVUPS Z0, (CX)
	ADDQ $128, R14
	INCQ BX
	CMPQ BX, $32
	JLT  store
	VZEROUPPER
	RET

#undef MULTIPLY
#define MULTIPLY MULTIPLYWIDE

// LOADPIXELS sets Z0..Z15 to 16 words from disp on of the rows whose pointers are at R10.
#define LOADPIXEL(k, z, disp) \
	MOVQ (16*k)(R10), CX  \
	VMOVUPS disp(CX), z

#define LOADPIXELS(disp) \
	LOADPIXEL(0, Z0, disp)   \
	LOADPIXEL(1, Z1, disp)   \
	LOADPIXEL(2, Z2, disp)   \
	LOADPIXEL(3, Z3, disp)   \
	LOADPIXEL(4, Z4, disp)   \
	LOADPIXEL(5, Z5, disp)   \
	LOADPIXEL(6, Z6, disp)   \
	LOADPIXEL(7, Z7, disp)   \
	LOADPIXEL(8, Z8, disp)   \
	LOADPIXEL(9, Z9, disp)   \
	LOADPIXEL(10, Z10, disp) \
	LOADPIXEL(11, Z11, disp) \
	LOADPIXEL(12, Z12, disp) \
	LOADPIXEL(13, Z13, disp) \
	LOADPIXEL(14, Z14, disp) \
	LOADPIXEL(15, Z15, disp)

// WEAVE4 transposes blocks of 4×4 words within four vectors.
#define WEAVE4(a, b, c, d, p, q, r, s) \
	VUNPCKLPS b, a, p \
	VUNPCKHPS b, a, q \
	VUNPCKLPS d, c, r \
	VUNPCKHPS d, c, s \
	VUNPCKLPD r, p, a \
	VUNPCKHPD r, p, b \
	VUNPCKLPD s, q, c \
	VUNPCKHPD s, q, d

// LANES4 exchanges quarters between the vectors of the same number in four groups.
#define LANES4(a, b, c, d, p, q, r, s) \
	VSHUFF32X4 $0x88, b, a, p \
	VSHUFF32X4 $0xdd, b, a, q \
	VSHUFF32X4 $0x88, d, c, r \
	VSHUFF32X4 $0xdd, d, c, s \
	VSHUFF32X4 $0x88, r, p, a \
	VSHUFF32X4 $0x88, s, q, b \
	VSHUFF32X4 $0xdd, r, p, c \
	VSHUFF32X4 $0xdd, s, q, d

// TRANSPOSE transposes the 16×16 words of Z0..Z15.
#define TRANSPOSE \
	WEAVE4(Z0, Z1, Z2, Z3, Z16, Z17, Z18, Z19)     \
	WEAVE4(Z4, Z5, Z6, Z7, Z20, Z21, Z22, Z23)     \
	WEAVE4(Z8, Z9, Z10, Z11, Z24, Z25, Z26, Z27)   \
	WEAVE4(Z12, Z13, Z14, Z15, Z28, Z29, Z30, Z31) \
	LANES4(Z0, Z4, Z8, Z12, Z16, Z17, Z18, Z19)    \
	LANES4(Z1, Z5, Z9, Z13, Z20, Z21, Z22, Z23)    \
	LANES4(Z2, Z6, Z10, Z14, Z24, Z25, Z26, Z27)   \
	LANES4(Z3, Z7, Z11, Z15, Z28, Z29, Z30, Z31)

#define STORELEFT(at) \
	VMOVUPS Z0, (at+0)(SI)    \
	VMOVUPS Z1, (at+64)(SI)   \
	VMOVUPS Z2, (at+128)(SI)  \
	VMOVUPS Z3, (at+192)(SI)  \
	VMOVUPS Z4, (at+256)(SI)  \
	VMOVUPS Z5, (at+320)(SI)  \
	VMOVUPS Z6, (at+384)(SI)  \
	VMOVUPS Z7, (at+448)(SI)  \
	VMOVUPS Z8, (at+512)(SI)  \
	VMOVUPS Z9, (at+576)(SI)  \
	VMOVUPS Z10, (at+640)(SI) \
	VMOVUPS Z11, (at+704)(SI) \
	VMOVUPS Z12, (at+768)(SI) \
	VMOVUPS Z13, (at+832)(SI) \
	VMOVUPS Z14, (at+896)(SI) \
	VMOVUPS Z15, (at+960)(SI)

// func pairOuterTile32x32AMX(dst []float32, src, dy []uint32, pixels []int32)
//
// Sixteen pixels at a time: their channels of x, transposed, are the left operand,
// those of dy, brought together, the right one. Missing pixels are zeros. R8 is the
// list of pixels, R9 its end.
TEXT ·pairOuterTile32x32AMX(SB), 0, $8640-96
	START
	LEAQ POINTERS(SI), R10
	LEAQ ZEROS(SI), R12
	VPXORD Z0, Z0, Z0
	VMOVUPS Z0, (R12)
	VMOVUPS Z0, 64(R12)
	MOVQ pixels_base+72(FP), R8
	MOVQ pixels_len+80(FP), R9
	LEAQ (R8)(R9*4), R9
	MOVQ src_base+24(FP), R11
	MOVQ dy_base+48(FP), R13

sixteen:
	CMPQ R8, R9
	JGE  summed
	XORQ BX, BX

pixel:
	MOVQ R12, R14
	MOVQ R12, R15
	CMPQ R8, R9
	JGE  missing
	MOVLQSX (R8), CX
	LEAQ (R11)(CX*4), R14
	MOVLQSX 4(R8), CX
	LEAQ (R13)(CX*4), R15
	ADDQ $8, R8

missing:
	MOVQ R14, (R10)(BX*8)
	MOVQ R15, 8(R10)(BX*8)
	ADDQ $2, BX
	CMPQ BX, $32
	JLT  pixel

	LOADPIXELS(0)
	TRANSPOSE
	STORELEFT(0)
	LOADPIXELS(64)
	TRANSPOSE
	STORELEFT(LEFT2)
	LEAQ RIGHT(SI), DI
	XORQ BX, BX

right:
	MOVQ 8(R10)(BX*8), CX
	VMOVUPS (CX), Z0
	VMOVUPS 64(CX), Z1
	VMOVUPS Z0, (DI)
	VMOVUPS Z1, 64(DI)
	ADDQ $128, DI
	ADDQ $2, BX
	CMPQ BX, $32
	JLT  right
	LEAQ RIGHT(SI), DI
	MULTIPLY
	JMP  sixteen

summed:
	LEAQ SUMS(SI), R14
	MOVQ R14, DI
	LEAQ 2048(R14), BX
	TILESTORE(0, 0, DI_, AX_)
	TILESTORE(1, 64, DI_, AX_)
	TILESTORE(2, 0, BX_, AX_)
	TILESTORE(3, 64, BX_, AX_)
	TILERELEASE
	MOVQ dst_base+0(FP), DI
	XORQ BX, BX

add:
	VMOVUPS (R14)(BX*1), Z0
	VADDPS (DI)(BX*1), Z0, Z0
	VMOVUPS Z0, (DI)(BX*1)
	ADDQ $64, BX
	CMPQ BX, $4096
	JLT  add
	VZEROUPPER
	RET
