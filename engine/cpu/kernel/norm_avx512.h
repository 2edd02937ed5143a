// What norm.h needs of AVX-512. K1 and K2 are the channels of the two vectors that exist.

#define MASKS \
	MOVQ     $-1, R14    \
	CMPQ     CX, $32     \
	JGE      whole       \
	SHLQ     CX, R14     \
	NOTQ     R14         \
whole:                  \
	KMOVD    R14, K1     \
	KSHIFTRD $16, K1, K2

#define CHANNELS(base, lo, hi) \
	VMOVUPS.Z (base), K1, lo   \
	VMOVUPS.Z 64(base), K2, hi

#define PUT(base, lo, hi) \
	VMOVUPS lo, K1, (base)   \
	VMOVUPS hi, K2, 64(base)

#define GATE(y, t) \
	VCMPPS    $1, y, V12, K3 \
	VMOVAPS.Z t, K3, t

#define ZERO(v) VPXORD v, v, v
