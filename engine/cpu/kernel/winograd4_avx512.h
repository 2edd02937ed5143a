// Where the vectors of AVX-512 have the constants of winograd4.h for maps.

#define CA Z16
#define CA2 Z17
#define CA3 Z18
#define CB Z19
#define CB2 Z20
#define CB3 Z21
#define CS Z22
#define CP Z23

#define CONSTANTSAB \
	VBROADCASTSS ·winograd4Constants+0(SB), Z16 \
	VBROADCASTSS ·winograd4Constants+32(SB), Z17 \
	VBROADCASTSS ·winograd4Constants+64(SB), Z18 \
	VBROADCASTSS ·winograd4Constants+96(SB), Z19 \
	VBROADCASTSS ·winograd4Constants+128(SB), Z20 \
	VBROADCASTSS ·winograd4Constants+160(SB), Z21 \
	VBROADCASTSS ·winograd4Constants+192(SB), Z22 \
	VBROADCASTSS ·winograd4Constants+224(SB), Z23
