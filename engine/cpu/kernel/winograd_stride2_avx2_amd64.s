//go:build !purego

#include "textflag.h"
#include "vectors_avx2.h"
#include "winograd_float32.h"

// What winograd_stride2.h calls its functions and constants.

#define INPUT5X5 ·stride2Input5x5AVX2
#define INPUT5X4 ·stride2Input5x4AVX2
#define INPUT4X5 ·stride2Input4x5AVX2
#define INPUT4X4 ·stride2Input4x4AVX2
#define OUTPUT5X5 ·stride2Output5x5AVX2
#define OUTPUT5X4 ·stride2Output5x4AVX2
#define OUTPUT4X5 ·stride2Output4x5AVX2
#define OUTPUT4X4 ·stride2Output4x4AVX2
#define OUTPUTEPILOGUE ·stride2OutputEpilogueAVX2
#define GRADIENT ·stride2GradientAVX2
#define WEIGHTS ·stride2WeightsAVX2
#define SUMS ·stride2SumsAVX2

#define CA ·stride2Constants+0(SB)
#define CA2 ·stride2Constants+32(SB)
#define CB ·stride2Constants+64(SB)
#define CB2 ·stride2Constants+96(SB)
#define CS ·stride2Constants+128(SB)
#define CP ·stride2Constants+160(SB)
#define CF0 ·stride2Constants+192(SB)
#define CF1 ·stride2Constants+224(SB)
#define CF2 ·stride2Constants+256(SB)
#define CF3 ·stride2Constants+288(SB)
#define CH0 ·stride2Constants+320(SB)
#define CH1 ·stride2Constants+352(SB)
#define CH2 ·stride2Constants+384(SB)
#define CH3 ·stride2Constants+416(SB)
#define CONSTANTSAB

#include "winograd_stride2.h"
#include "winograd_stride2_phases.h"
