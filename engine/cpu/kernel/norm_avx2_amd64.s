//go:build !purego

#include "textflag.h"
#include "vectors_avx2.h"
#include "norm_float32.h"

// norm.h for maps in float32 with AVX2. V13 and V14 have the sign bit in the channels of
// the two vectors that exist.

#define NORMALISE ·normaliseAVX2
#define GATESUMS ·gateSumsAVX2
#define MOMENTS ·momentsAVX2

// The masks of n channels begin 16-n elements into 16 of ones and 16 of zeros.
DATA ·normMasks+0(SB)/8, $-1
DATA ·normMasks+8(SB)/8, $-1
DATA ·normMasks+16(SB)/8, $-1
DATA ·normMasks+24(SB)/8, $-1
DATA ·normMasks+32(SB)/8, $-1
DATA ·normMasks+40(SB)/8, $-1
DATA ·normMasks+48(SB)/8, $-1
DATA ·normMasks+56(SB)/8, $-1
GLOBL ·normMasks(SB), RODATA|NOPTR, $128

#define MASKS \
	MOVQ    $16, R14               \
	SUBQ    CX, R14                \
	JGE     some                   \
	XORQ    R14, R14               \
some:                              \
	LEAQ    ·normMasks(SB), R9     \
	VMOVUPS (R9)(R14*4), V13       \
	VMOVUPS 32(R9)(R14*4), V14

// BOTH loads both vectors at lo and hi as such where all 16 channels exist: a load with a
// mask waits for stores that it does not overlap.
#define BOTH(memLo, memHi, lo, hi) \
	CMPQ       CX, $16        \
	JLT        4(PC)          \
	VMOVUPS    memLo, lo      \
	VMOVUPS    memHi, hi      \
	JMP        3(PC)          \
	VMASKMOVPS memLo, V13, lo \
	VMASKMOVPS memHi, V14, hi

#define CHANNELS(base, lo, hi) BOTH((base), 32(base), lo, hi)

#define PUT(base, lo, hi) \
	VMASKMOVPS lo, V13, (base)   \
	VMASKMOVPS hi, V14, 32(base)

#define LOADPART(base, lo, hi) BOTH((base)(R9*1), 32(base)(R9*1), lo, hi)

#define STOREPART \
	VMASKMOVPS V0, V13, (DI)(R9*1)   \
	VMASKMOVPS V1, V14, 32(DI)(R9*1)

#define GATE(y, t) \
	VCMPPS $1, y, V12, y \
	VANDPS y, t, t

#define ZERO(v) VXORPS v, v, v

#include "norm.h"
