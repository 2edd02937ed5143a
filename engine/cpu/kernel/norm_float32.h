// What norm.h needs of maps in float32. The set defines LOADPART and STOREPART, which
// move the channels of a row that exist.

#define ELEMENT 4

#define NUMBERS(base, lo, hi) LOADPART(base, lo, hi)

#define STORE(part, half, stored) \
	CMPQ    CX, $(2*LANES)             \
	JLT     part                       \
	VMOVUPS V0, (DI)(R9*1)             \
	VMOVUPS V1, (4*LANES)(DI)(R9*1)    \
	JMP     stored                     \
part:                                  \
	CMPQ    CX, $LANES                 \
	JEQ     half                       \
	STOREPART                          \
	JMP     stored                     \
half:                                  \
	VMOVUPS V0, (DI)(R9*1)             \
stored:
