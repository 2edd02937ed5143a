// Go's assembler does not know AMX. The macros below write its instructions, for
// tiles that are given by number (Intel's manual, volume 2, chapter 3: the VEX
// prefix is 0xc4 and two bytes). Tiles lie in memory at the address in SI, DI or
// BX, given by number as 6, 7 or 3, with rows as far apart as DX (2) or AX (0) says.

#define SI_ 6
#define DI_ 7
#define BX_ 3
#define DX_ 2
#define AX_ 0

#define VEX38(prefix, v, op) \
	BYTE $0xc4                           \
	BYTE $0xe2                           \
	BYTE $(prefix | (15-v)<<3)           \
	BYTE $op

// LDTILECFG (base): shapes of all tiles; they become zero.
#define LDTILECFG(base) \
	VEX38(0, 0, 0x49) \
	BYTE $(base)

// TILERELEASE: the tiles are not in use, and cost nothing to save.
#define TILERELEASE \
	VEX38(0, 0, 0x49) \
	BYTE $0xc0

#define TILEZERO(tile) \
	VEX38(3, 0, 0x49) \
	BYTE $(0xc0 | tile<<3)

// TILELOAD is TILELOADD disp(base)(stride*1), tile, with -128 ≤ disp < 128.
#define TILELOAD(tile, disp, base, stride) \
	VEX38(3, 0, 0x4b)         \
	BYTE $(0x44 | tile<<3)    \
	BYTE $(stride<<3 | base)  \
	BYTE $disp

// TILESTORE is TILESTORED tile, disp(base)(stride*1).
#define TILESTORE(tile, disp, base, stride) \
	VEX38(2, 0, 0x4b)         \
	BYTE $(0x44 | tile<<3)    \
	BYTE $(stride<<3 | base)  \
	BYTE $disp

// TDPBF16(sum, a, b) is TDPBF16PS: sum += a·b, where a row of a and a column of b
// are pairs of bfloat16 and sum is float32.
#define TDPBF16(sum, a, b) \
	VEX38(2, b, 0x5c) \
	BYTE $(0xc0 | sum<<3 | a)
