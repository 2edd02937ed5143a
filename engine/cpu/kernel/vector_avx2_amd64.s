//go:build !purego

#include "textflag.h"

// BINARY is dst[i] = a[i] op b[i]: DI dst, SI a, DX b, CX elements left.
// Four vectors per round, then one, then single elements.
#define BINARY(PACKED, SINGLE) \
	MOVQ    dst_base+0(FP), DI \
	MOVQ    dst_len+8(FP), CX  \
	MOVQ    a_base+24(FP), SI  \
	MOVQ    b_base+48(FP), DX  \
	SUBQ    $32, CX            \
	JLT     vectors            \
	PCALIGN $16                \
loop32:                        \
	VMOVUPS (SI), Y0           \
	VMOVUPS 32(SI), Y1         \
	VMOVUPS 64(SI), Y2         \
	VMOVUPS 96(SI), Y3         \
	PACKED  (DX), Y0, Y0       \
	PACKED  32(DX), Y1, Y1     \
	PACKED  64(DX), Y2, Y2     \
	PACKED  96(DX), Y3, Y3     \
	VMOVUPS Y0, (DI)           \
	VMOVUPS Y1, 32(DI)         \
	VMOVUPS Y2, 64(DI)         \
	VMOVUPS Y3, 96(DI)         \
	ADDQ    $128, SI           \
	ADDQ    $128, DX           \
	ADDQ    $128, DI           \
	SUBQ    $32, CX            \
	JGE     loop32             \
vectors:                       \
	ADDQ    $24, CX            \
	JLT     tail               \
loop8:                         \
	VMOVUPS (SI), Y0           \
	PACKED  (DX), Y0, Y0       \
	VMOVUPS Y0, (DI)           \
	ADDQ    $32, SI            \
	ADDQ    $32, DX            \
	ADDQ    $32, DI            \
	SUBQ    $8, CX             \
	JGE     loop8              \
tail:                          \
	ADDQ    $8, CX             \
	JZ      done               \
loop1:                         \
	VMOVSS  (SI), X0           \
	SINGLE  (DX), X0, X0       \
	VMOVSS  X0, (DI)           \
	ADDQ    $4, SI             \
	ADDQ    $4, DX             \
	ADDQ    $4, DI             \
	DECQ    CX                 \
	JNZ     loop1              \
done:                          \
	VZEROUPPER                 \
	RET

// func addAVX2(dst, a, b []float32)
TEXT ·addAVX2(SB), NOSPLIT, $0-72
	BINARY(VADDPS, VADDSS)

// func subAVX2(dst, a, b []float32)
TEXT ·subAVX2(SB), NOSPLIT, $0-72
	BINARY(VSUBPS, VSUBSS)

// func mulAVX2(dst, a, b []float32)
TEXT ·mulAVX2(SB), NOSPLIT, $0-72
	BINARY(VMULPS, VMULSS)

// func divAVX2(dst, a, b []float32)
TEXT ·divAVX2(SB), NOSPLIT, $0-72
	BINARY(VDIVPS, VDIVSS)

// MAXPS is a > b ? a : b, and b when either is NaN.
// func maxAVX2(dst, a, b []float32)
TEXT ·maxAVX2(SB), NOSPLIT, $0-72
	BINARY(VMAXPS, VMAXSS)

// func gateAVX2(dst, a, b []float32)
// Y7 zero; the mask is b > 0 (false for NaN), written 0 < b.
TEXT ·gateAVX2(SB), NOSPLIT, $0-72
	MOVQ   dst_base+0(FP), DI
	MOVQ   dst_len+8(FP), CX
	MOVQ   a_base+24(FP), SI
	MOVQ   b_base+48(FP), DX
	VXORPS Y7, Y7, Y7
	SUBQ   $8, CX
	JLT    tail

loop8:
	VCMPPS  $1, (DX), Y7, Y0 // 0 < b
	VANDPS  (SI), Y0, Y0
	VMOVUPS Y0, (DI)
	ADDQ    $32, SI
	ADDQ    $32, DX
	ADDQ    $32, DI
	SUBQ    $8, CX
	JGE     loop8

tail:
	ADDQ $8, CX
	JZ   done

loop1:
	VCMPSS $1, (DX), X7, X0
	VMOVSS (SI), X1
	VANDPS X1, X0, X0
	VMOVSS X0, (DI)
	ADDQ   $4, SI
	ADDQ   $4, DX
	ADDQ   $4, DI
	DECQ   CX
	JNZ    loop1

done:
	VZEROUPPER
	RET

// func sqrtAVX2(dst, a []float32)
TEXT ·sqrtAVX2(SB), NOSPLIT, $0-48
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	MOVQ a_base+24(FP), SI
	SUBQ $8, CX
	JLT  tail

loop8:
	VSQRTPS (SI), Y0
	VMOVUPS Y0, (DI)
	ADDQ    $32, SI
	ADDQ    $32, DI
	SUBQ    $8, CX
	JGE     loop8

tail:
	ADDQ $8, CX
	JZ   done

loop1:
	VMOVSS  (SI), X0
	VSQRTSS X0, X0, X0
	VMOVSS  X0, (DI)
	ADDQ    $4, SI
	ADDQ    $4, DI
	DECQ    CX
	JNZ     loop1

done:
	VZEROUPPER
	RET

// func scaleAddAVX2(dst, a []float32, scale, shift float32)
// Y6 scale, Y7 shift.
TEXT ·scaleAddAVX2(SB), NOSPLIT, $0-56
	MOVQ         dst_base+0(FP), DI
	MOVQ         dst_len+8(FP), CX
	MOVQ         a_base+24(FP), SI
	VBROADCASTSS scale+48(FP), Y6
	VBROADCASTSS shift+52(FP), Y7
	SUBQ         $16, CX
	JLT          vectors

loop16:
	VMOVUPS     (SI), Y0
	VMOVUPS     32(SI), Y1
	VFMADD213PS Y7, Y6, Y0  // Y0 = Y0·scale + shift
	VFMADD213PS Y7, Y6, Y1
	VMOVUPS     Y0, (DI)
	VMOVUPS     Y1, 32(DI)
	ADDQ        $64, SI
	ADDQ        $64, DI
	SUBQ        $16, CX
	JGE         loop16

vectors:
	ADDQ        $8, CX
	JLT         tail
	VMOVUPS     (SI), Y0
	VFMADD213PS Y7, Y6, Y0
	VMOVUPS     Y0, (DI)
	ADDQ        $32, SI
	ADDQ        $32, DI
	SUBQ        $8, CX

tail:
	ADDQ $8, CX
	JZ   done

loop1:
	VMOVSS      (SI), X0
	VFMADD213SS X7, X6, X0
	VMOVSS      X0, (DI)
	ADDQ        $4, SI
	ADDQ        $4, DI
	DECQ        CX
	JNZ         loop1

done:
	VZEROUPPER
	RET

// Channel kernels. R8 is the length of a row in bytes, R9 the bytes of a row
// that whole vectors cover, AX runs over those bytes.

// func channelScaleAddAVX2(dst, x, scale, shift []float32)
// DI dst row, SI x row, DX scale, BX shift, CX end of dst.
TEXT ·channelScaleAddAVX2(SB), NOSPLIT, $0-96
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), CX
	LEAQ (DI)(CX*4), CX
	MOVQ x_base+24(FP), SI
	MOVQ scale_base+48(FP), DX
	MOVQ scale_len+56(FP), R8
	MOVQ shift_base+72(FP), BX
	MOVQ R8, R9
	ANDQ $~7, R9
	JZ   done
	SHLQ $2, R8
	SHLQ $2, R9

row:
	CMPQ DI, CX
	JGE  done
	XORQ AX, AX

loop8:
	VMOVUPS     (SI)(AX*1), Y0
	VMOVUPS     (DX)(AX*1), Y1
	VFMADD213PS (BX)(AX*1), Y1, Y0 // Y0 = Y0·scale + shift
	VMOVUPS     Y0, (DI)(AX*1)
	ADDQ        $32, AX
	CMPQ        AX, R9
	JLT         loop8
	ADDQ        R8, SI
	ADDQ        R8, DI
	JMP         row

done:
	VZEROUPPER
	RET

// The reductions go down all rows for 32 channels at a time, four vectors whose
// chains hide the latency of an addition, then for eight. DI sum, DX mean,
// R10 x, R13 the second operand, CX length of x; inside, AX is the channel's
// offset, SI and R11 the row of x and of the second operand, BX the end of x.
// LOAD, ROW and STORE fetch the sums, add a row and put the sums back.
#define REDUCE(LOAD4, ROW4, STORE4, LOAD1, ROW1, STORE1) \
	LEAQ  (R10)(CX*4), CX  \
	MOVQ  R8, R9           \
	ANDQ  $~7, R9          \
	SHLQ  $2, R8           \
	SHLQ  $2, R9           \
	XORQ  AX, AX           \
channels32:             \
	LEAQ  128(AX), BX      \
	CMPQ  BX, R9           \
	JGT   channels8        \
	LOAD4                  \
	LEAQ  (R10)(AX*1), SI  \
	LEAQ  (R13)(AX*1), R11 \
	LEAQ  (CX)(AX*1), BX   \
row32:                  \
	CMPQ  SI, BX           \
	JGE   end32            \
	ROW4                   \
	ADDQ  R8, SI           \
	ADDQ  R8, R11          \
	JMP   row32            \
end32:                  \
	STORE4                 \
	ADDQ  $128, AX         \
	JMP   channels32       \
channels8:              \
	CMPQ  AX, R9           \
	JGE   done             \
	LOAD1                  \
	LEAQ  (R10)(AX*1), SI  \
	LEAQ  (R13)(AX*1), R11 \
	LEAQ  (CX)(AX*1), BX   \
row8:                   \
	CMPQ  SI, BX           \
	JGE   end8             \
	ROW1                   \
	ADDQ  R8, SI           \
	ADDQ  R8, R11          \
	JMP   row8             \
end8:                   \
	STORE1                 \
	ADDQ  $32, AX          \
	JMP   channels8        \
done:                   \
	VZEROUPPER             \
	RET

// SUMS4 and SUMS1 are the sums of 32 and 8 channels at base: Y0..Y3.
#define LOADSUMS4(base, a, b, c, d) \
	VMOVUPS (base)(AX*1), a   \
	VMOVUPS 32(base)(AX*1), b \
	VMOVUPS 64(base)(AX*1), c \
	VMOVUPS 96(base)(AX*1), d

#define STORESUMS4(base, a, b, c, d) \
	VMOVUPS a, (base)(AX*1)   \
	VMOVUPS b, 32(base)(AX*1) \
	VMOVUPS c, 64(base)(AX*1) \
	VMOVUPS d, 96(base)(AX*1)

#define LOAD1(base, a) \
	VMOVUPS (base)(AX*1), a

#define STORE1(base, a) \
	VMOVUPS a, (base)(AX*1)

// func channelSumAVX2(sum, x []float32)
#define SUMLOAD4 LOADSUMS4(DI, Y0, Y1, Y2, Y3)
#define SUMSTORE4 STORESUMS4(DI, Y0, Y1, Y2, Y3)
#define SUMLOAD1 LOAD1(DI, Y0)
#define SUMSTORE1 STORE1(DI, Y0)
#define SUMROW4 \
	VADDPS (SI), Y0, Y0   \
	VADDPS 32(SI), Y1, Y1 \
	VADDPS 64(SI), Y2, Y2 \
	VADDPS 96(SI), Y3, Y3
#define SUMROW1 \
	VADDPS (SI), Y0, Y0

TEXT ·channelSumAVX2(SB), NOSPLIT, $0-48
	MOVQ sum_base+0(FP), DI
	MOVQ sum_len+8(FP), R8
	MOVQ x_base+24(FP), R10
	MOVQ x_len+32(FP), CX
	MOVQ R10, R13
	REDUCE(SUMLOAD4, SUMROW4, SUMSTORE4, SUMLOAD1, SUMROW1, SUMSTORE1)

// DIFFS4 sets Y8..Y11 to x - mean (Y4..Y7); DIFF1 the first of them.
#define DIFFS4 \
	VMOVUPS (SI), Y8      \
	VMOVUPS 32(SI), Y9    \
	VMOVUPS 64(SI), Y10   \
	VMOVUPS 96(SI), Y11   \
	VSUBPS  Y4, Y8, Y8    \
	VSUBPS  Y5, Y9, Y9    \
	VSUBPS  Y6, Y10, Y10  \
	VSUBPS  Y7, Y11, Y11

#define DIFF1 \
	VMOVUPS (SI), Y8   \
	VSUBPS  Y4, Y8, Y8

// func channelSquaresAVX2(sum, x, mean []float32)
#define MEANLOAD4 \
	SUMLOAD4 \
	LOADSUMS4(DX, Y4, Y5, Y6, Y7)
#define MEANLOAD1 \
	SUMLOAD1 \
	LOAD1(DX, Y4)
#define SQUARESROW4 \
	DIFFS4                    \
	VFMADD231PS Y8, Y8, Y0    \
	VFMADD231PS Y9, Y9, Y1    \
	VFMADD231PS Y10, Y10, Y2  \
	VFMADD231PS Y11, Y11, Y3
#define SQUARESROW1 \
	DIFF1                  \
	VFMADD231PS Y8, Y8, Y0

TEXT ·channelSquaresAVX2(SB), NOSPLIT, $0-72
	MOVQ sum_base+0(FP), DI
	MOVQ sum_len+8(FP), R8
	MOVQ x_base+24(FP), R10
	MOVQ x_len+32(FP), CX
	MOVQ mean_base+48(FP), DX
	MOVQ R10, R13
	REDUCE(MEANLOAD4, SQUARESROW4, SUMSTORE4, MEANLOAD1, SQUARESROW1, SUMSTORE1)

// func channelProductsAVX2(sum, x, mean, dy []float32)
#define PRODUCTSROW4 \
	DIFFS4                       \
	VFMADD231PS (R11), Y8, Y0    \
	VFMADD231PS 32(R11), Y9, Y1  \
	VFMADD231PS 64(R11), Y10, Y2 \
	VFMADD231PS 96(R11), Y11, Y3
#define PRODUCTSROW1 \
	DIFF1                     \
	VFMADD231PS (R11), Y8, Y0

TEXT ·channelProductsAVX2(SB), NOSPLIT, $0-96
	MOVQ sum_base+0(FP), DI
	MOVQ sum_len+8(FP), R8
	MOVQ x_base+24(FP), R10
	MOVQ x_len+32(FP), CX
	MOVQ mean_base+48(FP), DX
	MOVQ dy_base+72(FP), R13
	REDUCE(MEANLOAD4, PRODUCTSROW4, SUMSTORE4, MEANLOAD1, PRODUCTSROW1, SUMSTORE1)
