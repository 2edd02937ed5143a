//go:build !purego

#include "textflag.h"
#include "vectors_avx512.h"
#include "winograd4_avx512.h"
#include "winograd_float32.h"

// What winograd4.h calls its functions and constants.

#define INPUT ·winograd4InputAVX512
#define GRADIENT ·winograd4GradientAVX512
#define OUTPUT ·winograd4OutputAVX512
#define OUTPUTEPILOGUE ·winograd4OutputEpilogueAVX512
#define WEIGHTS ·winograd4WeightsAVX512
#define SUMS ·winograd4SumsAVX512

#define CG0 Z24
#define CU0 Z25
#define CU1 Z26
#define CU2 Z27
#define CV0 Z28
#define CV1 Z29
#define CV2 Z30

#define CONSTANTSG \
	VBROADCASTSS ·winograd4Constants+256(SB), Z24 \
	VBROADCASTSS ·winograd4Constants+288(SB), Z25 \
	VBROADCASTSS ·winograd4Constants+320(SB), Z26 \
	VBROADCASTSS ·winograd4Constants+352(SB), Z27 \
	VBROADCASTSS ·winograd4Constants+384(SB), Z28 \
	VBROADCASTSS ·winograd4Constants+416(SB), Z29 \
	VBROADCASTSS ·winograd4Constants+448(SB), Z30

#include "winograd4.h"
#include "winograd4_maps.h"
#include "winograd4_kernels.h"
