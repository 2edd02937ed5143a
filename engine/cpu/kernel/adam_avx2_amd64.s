//go:build !purego

#include "textflag.h"
#include "vectors_avx2.h"

#define ADAM ·adamAVX2

#include "adam.h"
