// The output transform of winograd4_maps.h and winograd_stride2_phase.h. These define OUTPUTROWS,
// which sets the registers of rows of planes; OUTPUTEVENS, which computes rows 0 and 2 of Aᵀ
// times all columns, and OUTPUTODDS, rows 1 and 3; FIRSTROW and SECONDROW, the one and the
// other of these times A: V0, V1, V14, V2 and W0, W1, V14, W2.

// func winogradOutput(dst, src []float32, at []int32, c, stride, plane int)
TEXT OUTPUT(SB), NOSPLIT, $136-96
	TILES(c+72(FP), plane+88(FP))

tile:
	CMPQ SI, BX
	JGE  done
	MOVQ dst_base+0(FP), DX
	XORQ DI, DI
	POINTERS16(0, DI)
	XORQ AX, AX

channels:
	OUTPUTROWS
	OUTPUTEVENS
	FIRSTROW
	PUTROW(0, V0, V1, V2, no0, no1, no2, no3)
	SECONDROW
	PUTROW(2, W0, W1, W2, no8, no9, no10, no11)
	OUTPUTODDS
	FIRSTROW
	PUTROW(1, V0, V1, V2, no4, no5, no6, no7)
	SECONDROW
	PUTROW(3, W0, W1, W2, no12, no13, no14, no15)
	ADDQ $(ELEMENT*LANES), AX
	CMPQ AX, 128(SP)
	JLT  channels
	MOVQ stride+80(FP), CX
	LEAQ (R8)(CX*4), R8
	ADDQ $64, SI
	JMP  tile

done:
	VZEROUPPER
	RET
