//go:build !purego

#include "textflag.h"
#include "vectors_avx512.h"

#define ADAM ·adamAVX512

#include "adam.h"
