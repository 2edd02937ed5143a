// Transforms of kernels, and of sums for their gradients, as in winograd4.h, which
// comes first.

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
	WEIGHTKERNELS
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
	NEXTWEIGHTS(elements)

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
	SUMKERNELS
	CONSTANTSG

elements:
	SUMROWS
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
	NEXTSUMS(elements)

done:
	VZEROUPPER
	RET
