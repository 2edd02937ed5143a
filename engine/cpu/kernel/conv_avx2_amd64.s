//go:build !purego

#include "textflag.h"

// A tile is 6 rows × 16 columns of sums: row r is Y(2r), Y(2r+1).
// Y12, Y13 hold sixteen weights (or dy), Y14, Y15 one source value each,
// broadcast. Twelve chains of sums hide the latency of FMA (4 or 5 cycles,
// two per cycle).

#define ZEROTILE \
	VXORPS Y0, Y0, Y0    \
	VXORPS Y1, Y1, Y1    \
	VXORPS Y2, Y2, Y2    \
	VXORPS Y3, Y3, Y3    \
	VXORPS Y4, Y4, Y4    \
	VXORPS Y5, Y5, Y5    \
	VXORPS Y6, Y6, Y6    \
	VXORPS Y7, Y7, Y7    \
	VXORPS Y8, Y8, Y8    \
	VXORPS Y9, Y9, Y9    \
	VXORPS Y10, Y10, Y10 \
	VXORPS Y11, Y11, Y11

// PRODUCTS adds the outer product of the column x0..x5 with Y12, Y13.
#define PRODUCTS(x0, x1, x2, x3, x4, x5) \
	VBROADCASTSS x0, Y14          \
	VBROADCASTSS x1, Y15          \
	VFMADD231PS  Y12, Y14, Y0     \
	VFMADD231PS  Y13, Y14, Y1     \
	VFMADD231PS  Y12, Y15, Y2     \
	VFMADD231PS  Y13, Y15, Y3     \
	VBROADCASTSS x2, Y14          \
	VBROADCASTSS x3, Y15          \
	VFMADD231PS  Y12, Y14, Y4     \
	VFMADD231PS  Y13, Y14, Y5     \
	VFMADD231PS  Y12, Y15, Y6     \
	VFMADD231PS  Y13, Y15, Y7     \
	VBROADCASTSS x4, Y14          \
	VBROADCASTSS x5, Y15          \
	VFMADD231PS  Y12, Y14, Y8     \
	VFMADD231PS  Y13, Y14, Y9     \
	VFMADD231PS  Y12, Y15, Y10    \
	VFMADD231PS  Y13, Y15, Y11

// CHANNEL is step k of a tap: source channel k of six pixels, weights k.
#define CHANNEL(k) \
	VMOVUPS (k*64)(DI), Y12    \
	VMOVUPS (k*64+32)(DI), Y13 \
	PRODUCTS((k*4)(R8), (k*4)(R9), (k*4)(R10), (k*4)(R11), (k*4)(R12), (k*4)(R13))

// ROW sets p to the source row of tile row r: src + offset, or zero if negative.
#define ROW(r, p) \
	MOVLQSX (8+4*r)(SI), CX \
	LEAQ    (DX)(CX*4), p   \
	TESTQ   CX, CX          \
	CMOVQLT AX, p

// DSTROW sets CX to row r of dst.
#define DSTROW(r) \
	MOVLQSX (4*r)(SI), CX \
	LEAQ    (DX)(CX*4), CX

#define PLUSROW(r, lo, hi) \
	DSTROW(r)              \
	VADDPS (CX), lo, lo    \
	VADDPS 32(CX), hi, hi

#define STOREROW(r, lo, hi) \
	DSTROW(r)           \
	VMOVUPS lo, (CX)    \
	VMOVUPS hi, 32(CX)

// func convTileAVX2(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool)
// SI tap record, BX records left, R8..R13 source rows, DI weights, CX channels left.
TEXT ·convTileAVX2(SB), NOSPLIT, $0-153
	ZEROTILE
	MOVQ taps_base+96(FP), SI
	MOVQ taps_len+104(FP), BX
	SHRQ $3, BX
	JZ   end
	MOVQ src_base+48(FP), DX
	MOVQ zero_base+72(FP), AX

tap:
	MOVLQSX (SI), CX
	MOVQ    wei_base+128(FP), DI
	LEAQ    (DI)(CX*4), DI
	ROW(0, R8)
	ROW(1, R9)
	ROW(2, R10)
	ROW(3, R11)
	ROW(4, R12)
	ROW(5, R13)
	ADDQ    $32, SI
	MOVQ    c+120(FP), CX
	SUBQ    $4, CX
	JLT     tail
	PCALIGN $32

channels4:
	CHANNEL(0)
	CHANNEL(1)
	CHANNEL(2)
	CHANNEL(3)
	ADDQ $256, DI
	ADDQ $16, R8
	ADDQ $16, R9
	ADDQ $16, R10
	ADDQ $16, R11
	ADDQ $16, R12
	ADDQ $16, R13
	SUBQ $4, CX
	JGE  channels4

tail:
	ADDQ $4, CX
	JZ   next

channel:
	CHANNEL(0)
	ADDQ $64, DI
	ADDQ $4, R8
	ADDQ $4, R9
	ADDQ $4, R10
	ADDQ $4, R11
	ADDQ $4, R12
	ADDQ $4, R13
	DECQ CX
	JNZ  channel

next:
	DECQ BX
	JNZ  tap

end:
	MOVQ dst_base+0(FP), DX
	MOVQ dstOff_base+24(FP), SI
	CMPB accumulate+152(FP), $0
	JEQ  store
	PLUSROW(0, Y0, Y1)
	PLUSROW(1, Y2, Y3)
	PLUSROW(2, Y4, Y5)
	PLUSROW(3, Y6, Y7)
	PLUSROW(4, Y8, Y9)
	PLUSROW(5, Y10, Y11)

store:
	STOREROW(0, Y0, Y1)
	STOREROW(1, Y2, Y3)
	STOREROW(2, Y4, Y5)
	STOREROW(3, Y6, Y7)
	STOREROW(4, Y8, Y9)
	STOREROW(5, Y10, Y11)
	VZEROUPPER
	RET

// PIXEL adds the outer product of pixel pair n: six channels of src, sixteen of dy.
#define PIXEL(n) \
	MOVLQSX (8*n)(SI), R8           \
	MOVLQSX (8*n+4)(SI), R9         \
	VMOVUPS (DI)(R9*4), Y12         \
	VMOVUPS 32(DI)(R9*4), Y13       \
	LEAQ    (DX)(R8*4), R8          \
	PRODUCTS((R8), 4(R8), 8(R8), 12(R8), 16(R8), 20(R8))

#define ADDROW(r, lo, hi) \
	VADDPS  (64*r)(DX), lo, lo     \
	VADDPS  (64*r+32)(DX), hi, hi  \
	VMOVUPS lo, (64*r)(DX)         \
	VMOVUPS hi, (64*r+32)(DX)

// func outerTileAVX2(dst, src, dy []float32, pixels []int32)
// SI pixel pair, BX pairs left, DX src, DI dy.
TEXT ·outerTileAVX2(SB), NOSPLIT, $0-96
	ZEROTILE
	MOVQ src_base+24(FP), DX
	MOVQ dy_base+48(FP), DI
	MOVQ pixels_base+72(FP), SI
	MOVQ pixels_len+80(FP), BX
	SHRQ $1, BX
	SUBQ $2, BX
	JLT  tail
	PCALIGN $32

pixels2:
	PIXEL(0)
	PIXEL(1)
	ADDQ $16, SI
	SUBQ $2, BX
	JGE  pixels2

tail:
	ADDQ $2, BX
	JZ   store
	PIXEL(0)

store:
	MOVQ dst_base+0(FP), DX
	ADDROW(0, Y0, Y1)
	ADDROW(1, Y2, Y3)
	ADDROW(2, Y4, Y5)
	ADDROW(3, Y6, Y7)
	ADDROW(4, Y8, Y9)
	ADDROW(5, Y10, Y11)
	VZEROUPPER
	RET

// func pack16AVX2(dst, src []float32, stride int)
// DI dst, CX elements left, SI src row, DX stride in bytes.
TEXT ·pack16AVX2(SB), NOSPLIT, $0-56
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), DX
	SHLQ $2, DX
	SUBQ $16, CX
	JLT  done

row:
	VMOVUPS (SI), Y0
	VMOVUPS 32(SI), Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	ADDQ    DX, SI
	ADDQ    $64, DI
	SUBQ    $16, CX
	JGE     row

done:
	VZEROUPPER
	RET

// func pack6AVX2(dst, src []float32, stride int)
// As pack16AVX2, with AX the last pair of a row.
TEXT ·pack6AVX2(SB), NOSPLIT, $0-56
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ src_base+24(FP), SI
	MOVQ stride+48(FP), DX
	SHLQ $2, DX
	SUBQ $6, CX
	JLT  done

row:
	VMOVUPS (SI), X0
	MOVQ    16(SI), AX
	VMOVUPS X0, (DI)
	MOVQ    AX, 16(DI)
	ADDQ    DX, SI
	ADDQ    $24, DI
	SUBQ    $6, CX
	JGE     row

done:
	RET
