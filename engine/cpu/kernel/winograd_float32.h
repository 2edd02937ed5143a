// Feature maps and planes in float32 for winograd4.h and winograd_stride2.h.

#define ELEMENT 4
#define RATIO 1
#define PIXEL(m, v) VMOVUPS m, v
#define PIXELADD(m, v) VADDPS m, v, v
#define PIXELFMA(fma, m, c, v) fma m, c, v
#define PUTPIXEL(v, m) VMOVUPS v, m

#define PLANEBYTES 4
#define PUTPLANE(v, m) VMOVUPS v, m
