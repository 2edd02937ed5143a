//go:build !purego

#include "textflag.h"

// Max-pooling. SI is src at the eight channels, R8 the first offset, R9 past the
// last one, R10 runs over them, AX counts channels in bytes to BX.

// WINDOWMAX sets Y0 to the maximum of the window, or NaN: MAXPS gives its second
// operand where one is NaN, so a NaN in Y0 stays, and one in Y1 is put there.
#define WINDOWMAX \
	MOVLQSX (R8), CX              \
	VMOVUPS (SI)(CX*4), Y0        \
	LEAQ    4(R8), R10            \
	CMPQ    R10, R9               \
	JGE     maximum               \
pixel:                            \
	MOVLQSX   (R10), CX           \
	VMOVUPS   (SI)(CX*4), Y1      \
	VCMPPS    $3, Y1, Y1, Y2      \ // NaN
	VMAXPS    Y0, Y1, Y3          \
	VBLENDVPS Y2, Y1, Y3, Y0      \
	ADDQ      $4, R10             \
	CMPQ      R10, R9             \
	JLT       pixel               \
maximum:

// func windowMaxAVX2(dst, src []float32, at []int32)
// DI dst.
TEXT ·windowMaxAVX2(SB), NOSPLIT, $0-72
	MOVQ dst_base+0(FP), DI
	MOVQ dst_len+8(FP), BX
	MOVQ src_base+24(FP), SI
	MOVQ at_base+48(FP), R8
	MOVQ at_len+56(FP), R9
	LEAQ (R8)(R9*4), R9
	SHRQ $3, BX
	JZ   done

channels:
	WINDOWMAX
	VMOVUPS Y0, (DI)
	ADDQ    $32, DI
	ADDQ    $32, SI
	DECQ    BX
	JNZ     channels

done:
	VZEROUPPER
	RET

// func windowMaxBackwardAVX2(dx, dy, src []float32, at []int32)
// DI dx, DX dy; Y4 dy, Y5 the channels whose maximum is still to come.
TEXT ·windowMaxBackwardAVX2(SB), NOSPLIT, $0-96
	MOVQ dx_base+0(FP), DI
	MOVQ dy_base+24(FP), DX
	MOVQ dy_len+32(FP), BX
	MOVQ src_base+48(FP), SI
	MOVQ at_base+72(FP), R8
	MOVQ at_len+80(FP), R9
	LEAQ (R8)(R9*4), R9
	SHRQ $3, BX
	JZ   done

channels:
	WINDOWMAX
	VMOVUPS  (DX), Y4
	VPCMPEQD Y5, Y5, Y5
	MOVQ     R8, R10

give:
	MOVLQSX (R10), CX
	VMOVUPS (SI)(CX*4), Y1
	VCMPPS  $0, Y1, Y0, Y2 // the maximum
	VCMPPS  $3, Y1, Y1, Y3 // NaN
	VORPS   Y2, Y3, Y2
	VANDPS  Y5, Y2, Y2
	VANDNPS Y5, Y2, Y5     // Y5 &^= Y2
	VANDPS  Y4, Y2, Y2
	VADDPS  (DI)(CX*4), Y2, Y2
	VMOVUPS Y2, (DI)(CX*4)
	ADDQ    $4, R10
	CMPQ    R10, R9
	JLT     give
	ADDQ    $32, DI
	ADDQ    $32, DX
	ADDQ    $32, SI
	DECQ    BX
	JNZ     channels

done:
	VZEROUPPER
	RET
