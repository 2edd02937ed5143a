// winograd_output.h with an epilogue.

// func winogradOutputEpilogue(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32)
TEXT OUTPUTEPILOGUE(SB), NOSPLIT, $152-144
	TILESEPILOGUE

tile:
	CMPQ SI, BX
	JGE  done
	MOVQ dst_base+0(FP), DX
	XORQ DI, DI
	POINTERS16(0, DI)
	XORQ AX, AX

channels:
	MOVQ bias_base+112(FP), CX
	VMOVUPS (CX)(AX*RATIO), V15
	OUTPUTROWS
	OUTPUTEVENS
	FIRSTROW
	ENDROW(0, V0, V1, V2, last0, last1, last2, last3, no0, no1, no2, no3)
	SECONDROW
	ENDROW(2, W0, W1, W2, last8, last9, last10, last11, no8, no9, no10, no11)
	OUTPUTODDS
	FIRSTROW
	ENDROW(1, V0, V1, V2, last4, last5, last6, last7, no4, no5, no6, no7)
	SECONDROW
	ENDROW(3, W0, W1, W2, last12, last13, last14, last15, no12, no13, no14, no15)
	ADDQ $(ELEMENT*LANES), AX
	CMPQ AX, 128(SP)
	JLT  channels
	MOVQ stride+72(FP), CX
	LEAQ (R8)(CX*4), R8
	ADDQ $64, SI
	JMP  tile

done:
	VZEROUPPER
	RET
