//go:build !purego

#include "textflag.h"
#include "vectors_avx2.h"
#include "winograd_float32.h"

// What winograd4.h calls its functions and constants.

#define INPUT ·winograd4InputAVX2
#define GRADIENT ·winograd4GradientAVX2
#define OUTPUT ·winograd4OutputAVX2
#define OUTPUTEPILOGUE ·winograd4OutputEpilogueAVX2
#define WEIGHTS ·winograd4WeightsAVX2
#define SUMS ·winograd4SumsAVX2

#define CA ·winograd4Constants+0(SB)
#define CA2 ·winograd4Constants+32(SB)
#define CA3 ·winograd4Constants+64(SB)
#define CB ·winograd4Constants+96(SB)
#define CB2 ·winograd4Constants+128(SB)
#define CB3 ·winograd4Constants+160(SB)
#define CS ·winograd4Constants+192(SB)
#define CP ·winograd4Constants+224(SB)
#define CG0 ·winograd4Constants+256(SB)
#define CU0 ·winograd4Constants+288(SB)
#define CU1 ·winograd4Constants+320(SB)
#define CU2 ·winograd4Constants+352(SB)
#define CV0 ·winograd4Constants+384(SB)
#define CV1 ·winograd4Constants+416(SB)
#define CV2 ·winograd4Constants+448(SB)
#define CONSTANTSAB
#define CONSTANTSG

#include "winograd4.h"
#include "winograd4_maps.h"
#include "winograd4_kernels.h"
