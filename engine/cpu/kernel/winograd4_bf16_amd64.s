//go:build !purego

#include "textflag.h"
#include "winograd4_bf16.h"

// What winograd4.h calls its functions between feature maps in bfloat16 and planes in
// float32.

#define INPUT ·winograd4InputBF16
#define GRADIENT ·winograd4GradientBF16
#define OUTPUT ·winograd4OutputBF16
#define OUTPUTEPILOGUE ·winograd4OutputEpilogueBF16

#define RATIO 2
#define PUTPIXEL(v, m) PUTROUNDED(v, m)

#define PLANEBYTES 4
#define PUTPLANE(v, m) VMOVUPS v, m

#include "winograd4.h"
#include "winograd4_maps.h"
