// The transforms of winograd.go of kernels and of sums of products, LANES at a time, by the
// macros of winograd2_float32.h.

// A half, for the transforms of the weights.
DATA half<>+0(SB)/4, $0.5
GLOBL half<>(SB), RODATA|NOPTR, $4

// func winogradWeights(dst, src []float32, n, tap, plane int)
// SI, R11, R12 are three rows of taps, R8 the size of a tap, DI dst, BX elements left.
TEXT WEIGHTS(SB), NOSPLIT, $0-72
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ n+48(FP), BX
	MOVQ tap+56(FP), R8
	MOVQ plane+64(FP), R9
	SHLQ $2, R8
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	LEAQ (R8)(R8*2), CX
	LEAQ (SI)(CX*1), R11
	LEAQ (R11)(CX*1), R12
	VBROADCASTSS half<>(SB), V15
	SUBQ $LANES, BX
	JLT  done

elements:
	WEIGHTCOLUMN((SI), (R11), (R12), V0, V3, V6, V9)
	WEIGHTCOLUMN((SI)(R8*1), (R11)(R8*1), (R12)(R8*1), V1, V4, V7, V10)
	WEIGHTCOLUMN((SI)(R8*2), (R11)(R8*2), (R12)(R8*2), V2, V5, V8, V11)
	WEIGHTROW(DI, V0, V1, V2)
	LEAQ (DI)(R9*4), CX
	WEIGHTROW(CX, V3, V4, V5)
	LEAQ (CX)(R9*4), CX
	WEIGHTROW(CX, V6, V7, V8)
	LEAQ (CX)(R9*4), CX
	WEIGHTROW(CX, V9, V10, V11)
	ADDQ $(4*LANES), SI
	ADDQ $(4*LANES), R11
	ADDQ $(4*LANES), R12
	ADDQ $(4*LANES), DI
	SUBQ $LANES, BX
	JGE  elements

done:
	VZEROUPPER
	RET

// func winogradSums(dst, src []float32, n, tap, plane int)
// SI, CX, DX, R11 are four rows of planes, DI, R12, R13 three rows of taps, R8 the
// size of a tap, BX elements left.
TEXT SUMS(SB), NOSPLIT, $0-72
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), SI
	MOVQ n+48(FP), BX
	MOVQ tap+56(FP), R8
	MOVQ plane+64(FP), R9
	SHLQ $2, R8
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	LEAQ (R8)(R8*2), CX
	LEAQ (DI)(CX*1), R12
	LEAQ (R12)(CX*1), R13
	VBROADCASTSS half<>(SB), V15
	SUBQ $LANES, BX
	JLT  done

elements:
	LEAQ (SI)(R9*4), CX
	LEAQ (CX)(R9*4), DX
	LEAQ (DX)(R9*4), R11
	SUMCOLUMN((SI), (CX), (DX), (R11), V0, V4, V8)
	SUMCOLUMN((SI)(R9*1), (CX)(R9*1), (DX)(R9*1), (R11)(R9*1), V1, V5, V9)
	SUMCOLUMN((SI)(R9*2), (CX)(R9*2), (DX)(R9*2), (R11)(R9*2), V2, V6, V10)
	SUMCOLUMN((SI)(R10*1), (CX)(R10*1), (DX)(R10*1), (R11)(R10*1), V3, V7, V11)
	SUMROW(DI, V0, V1, V2, V3)
	SUMROW(R12, V4, V5, V6, V7)
	SUMROW(R13, V8, V9, V10, V11)
	ADDQ $(4*LANES), SI
	ADDQ $(4*LANES), DI
	ADDQ $(4*LANES), R12
	ADDQ $(4*LANES), R13
	SUBQ $LANES, BX
	JGE  elements

done:
	VZEROUPPER
	RET
