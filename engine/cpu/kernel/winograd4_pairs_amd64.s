//go:build !purego

#include "textflag.h"
#include "winograd4_bf16.h"

// What winograd4.h calls its function from feature maps to planes in bfloat16.

#define INPUT ·winograd4InputPairs

#define PLANEBYTES 2
#define PUTPLANE(v, m) PUTROUNDED(v, m)

#include "winograd4.h"
