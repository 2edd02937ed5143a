//go:build !purego

#include "textflag.h"
#include "vectors_avx512.h"
#include "winograd_float32.h"

// What winograd_stride2.h calls its functions and constants.

#define INPUT5X5 ·stride2Input5x5AVX512
#define INPUT5X4 ·stride2Input5x4AVX512
#define INPUT4X5 ·stride2Input4x5AVX512
#define INPUT4X4 ·stride2Input4x4AVX512
#define OUTPUT5X5 ·stride2Output5x5AVX512
#define OUTPUT5X4 ·stride2Output5x4AVX512
#define OUTPUT4X5 ·stride2Output4x5AVX512
#define OUTPUT4X4 ·stride2Output4x4AVX512
#define OUTPUTEPILOGUE ·stride2OutputEpilogueAVX512
#define GRADIENT ·stride2GradientAVX512
#define WEIGHTS ·stride2WeightsAVX512
#define SUMS ·stride2SumsAVX512

#define CA Z16
#define CA2 Z17
#define CB Z18
#define CB2 Z19
#define CS Z20
#define CP Z21
#define CF0 Z22
#define CF1 Z23
#define CF2 Z24
#define CF3 Z25
#define CH0 Z26
#define CH1 Z27
#define CH2 Z28
#define CH3 Z29

#define CONSTANTSAB \
	VBROADCASTSS ·stride2Constants+0(SB), Z16 \
	VBROADCASTSS ·stride2Constants+32(SB), Z17 \
	VBROADCASTSS ·stride2Constants+64(SB), Z18 \
	VBROADCASTSS ·stride2Constants+96(SB), Z19 \
	VBROADCASTSS ·stride2Constants+128(SB), Z20 \
	VBROADCASTSS ·stride2Constants+160(SB), Z21 \
	VBROADCASTSS ·stride2Constants+192(SB), Z22 \
	VBROADCASTSS ·stride2Constants+224(SB), Z23 \
	VBROADCASTSS ·stride2Constants+256(SB), Z24 \
	VBROADCASTSS ·stride2Constants+288(SB), Z25 \
	VBROADCASTSS ·stride2Constants+320(SB), Z26 \
	VBROADCASTSS ·stride2Constants+352(SB), Z27 \
	VBROADCASTSS ·stride2Constants+384(SB), Z28 \
	VBROADCASTSS ·stride2Constants+416(SB), Z29

#include "winograd_stride2.h"
#include "winograd_stride2_phases.h"
