// Go's assembler does not know AVX512_BF16. The macros below write its
// instructions, for vector registers that are given by number (Intel's manual,
// volume 2, section 2.7: the EVEX prefix is 0x62 and three bytes with the upper
// bits of the registers, inverted).

#define EVEX(dst, v, src, pp) \
	BYTE $0x62                                                                              \
	BYTE $(0x02 | (8-(dst&8))<<4 | (16-(src&16))<<2 | (8-(src&8))<<2 | (16-(dst&16))) \
	BYTE $(0x04 | pp | (15-(v&15))<<3)                                                      \
	BYTE $(0x40 | (16-(v&16))>>1)

// DPBF16 is VDPBF16PS Z(src), Z(v), Z(dst): dst += v·src, both products of each pair.
#define DPBF16(dst, v, src) \
	EVEX(dst, v, src, 2) \
	BYTE $0x52           \
	BYTE $(0xc0 | (dst&7)<<3 | (src&7))

// NARROW2 is VCVTNE2PS2BF16 Z(lo), Z(hi), Z(dst): 16 numbers of lo, then 16 of hi,
// rounded.
#define NARROW2(dst, hi, lo) \
	EVEX(dst, hi, lo, 3) \
	BYTE $0x72           \
	BYTE $(0xc0 | (dst&7)<<3 | (lo&7))

// NARROW1 is VCVTNEPS2BF16 Z(src), Y(dst).
#define NARROW1(dst, src) \
	EVEX(dst, 0, src, 2) \
	BYTE $0x72           \
	BYTE $(0xc0 | (dst&7)<<3 | (src&7))
