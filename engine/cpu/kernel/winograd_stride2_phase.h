// The transforms of one phase for winograd_stride2_phases.h: INPUT and OUTPUT are the names
// of the functions.

// func winogradStride2Input(dst, src, zero []float32, patches []int32, c, stride, plane int)
// SI patch, BX end of the patches, DX src or rows of planes, R8 zero, DI dst, R11
// dst of these channels; the stack holds up to 25 pointers and the end of the channels.
TEXT INPUT(SB), NOSPLIT, $208-120
	PATCHES(200)

patch:
	CMPQ SI, BX
	JGE  done
	MOVQ src_base+24(FP), DX
	POINTERS16(0, R8)
	FIFTHROW(POINTERS4(16, R8))
	FIFTHROW(FIFTHCOLUMN(POINTERS4(20, R8)))
	FIFTHROW(FIFTHCOLUMN(POINTER(24, R8)))
	FIFTHCOLUMN(POINTERS4(16, R8))
	FIFTHROW(LINE)
	ADDQ $(4*4*SPAN), SI
	XORQ AX, AX
	MOVQ DI, R11

channels:
	VMOVUPS CB2, V12
	VMOVUPS CA, V13
	INPUTPAIR(0, V0, V5)
	INPUTPAIR(1, V1, V6)
	INPUTPAIR(2, V2, V7)
	INPUTPAIR(3, V3, V8)
	FIFTHCOLUMN(INPUTPAIR(4, V4, V9))
	INPUTROW(R11, V0, V1, V2, V3, V4)
	DOWN(R11, DX)
	INPUTROW(DX, V5, V6, V7, V8, V9)
	VMOVUPS CA2, V12
	VMOVUPS CB, V13
	INPUTPAIR(0, V0, V5)
	INPUTPAIR(1, V1, V6)
	INPUTPAIR(2, V2, V7)
	INPUTPAIR(3, V3, V8)
	FIFTHCOLUMN(INPUTPAIR(4, V4, V9))
	DOWN(DX, DX)
	INPUTROW(DX, V0, V1, V2, V3, V4)
	DOWN(DX, DX)
	INPUTROW(DX, V5, V6, V7, V8, V9)
	FIFTHROW(INPUTLASTS)
	FIFTHROW(DOWN(DX, DX))
	FIFTHROW(INPUTROW(DX, V0, V1, V2, V3, V4))
	ADDQ $(ELEMENT*LANES), AX
	ADDQ $(PLANEBYTES*LANES), R11
	CMPQ AX, 200(SP)
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*PLANEBYTES), DI
	JMP  patch

done:
	VZEROUPPER
	RET

#include "winograd_output.h"
