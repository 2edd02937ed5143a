//go:build !purego

#include "textflag.h"
#include "vectors_avx512.h"
#include "winograd2_float32.h"

#define INPUT ·winogradInputAVX512
#define GRADIENT ·winogradGradientAVX512
#define OUTPUT ·winogradOutputAVX512
#define OUTPUTEPILOGUE ·winogradOutputEpilogueAVX512
#define WEIGHTS ·winogradWeightsAVX512
#define SUMS ·winogradSumsAVX512

#include "winograd2_maps.h"
#include "winograd2_kernels.h"
