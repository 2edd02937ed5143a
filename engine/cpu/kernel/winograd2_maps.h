// The transforms of winograd.go from and to feature maps, LANES channels at a time, for
// files that have defined winograd2.h's macros; COLUMN, INPUTROW and GRADIENTROW, which
// store rows of planes of maps' elements; PIXEL, which loads a vector of a map; and the
// functions' names. AX is the offset of the channels in bytes of elements, R9 the size of
// a plane, R10 that of three.

// func winogradInput(dst, src, zero []M, patches []int32, c, stride, plane int)
// SI patch, BX patches left, DX src, R8 zero, DI dst, R11 dst of these channels,
// R15 end of the channels; the stack holds sixteen pointers.
TEXT INPUT(SB), NOSPLIT, $128-120
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), DX
	MOVQ zero_base+48(FP), R8
	MOVQ patches_base+72(FP), SI
	MOVQ patches_len+80(FP), BX
	MOVQ c+96(FP), R15
	MOVQ plane+112(FP), R9
	SHRQ $4, BX
	SHLQ $SHIFT, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~(LANES-1), R15
	JZ   done
	SHLQ $SHIFT, R15

patch:
	TESTQ BX, BX
	JZ    done
	SPILL(0)
	SPILL(1)
	SPILL(2)
	SPILL(3)
	SPILL(4)
	SPILL(5)
	SPILL(6)
	SPILL(7)
	SPILL(8)
	SPILL(9)
	SPILL(10)
	SPILL(11)
	SPILL(12)
	SPILL(13)
	SPILL(14)
	SPILL(15)
	XORQ AX, AX
	MOVQ DI, R11

channels:
	COLUMN(0, V0, V4, V8, V12)
	COLUMN(1, V1, V5, V9, V13)
	COLUMN(2, V2, V6, V10, V14)
	COLUMN(3, V3, V7, V11, V15)
	INPUTROW(R11, V0, V1, V2, V3)
	LEAQ (R11)(R9*4), CX
	INPUTROW(CX, V4, V5, V6, V7)
	LEAQ (CX)(R9*4), CX
	INPUTROW(CX, V8, V9, V10, V11)
	LEAQ (CX)(R9*4), CX
	INPUTROW(CX, V12, V13, V14, V15)
	ADDQ $(LANES*ELEMENT), AX
	ADDQ $(LANES*ELEMENT), R11
	CMPQ AX, R15
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*ELEMENT), DI
	ADDQ $64, SI
	DECQ BX
	JMP  patch

done:
	VZEROUPPER
	RET

// func winogradGradient(dst, src, zero []M, patches []int32, c, stride, plane int)
// As winogradInput, with the four pointers in R12..R15 and the end of the channels at (SP).
TEXT GRADIENT(SB), NOSPLIT, $8-120
	MOVQ dst_base+0(FP), DI
	MOVQ src_base+24(FP), DX
	MOVQ zero_base+48(FP), R8
	MOVQ patches_base+72(FP), SI
	MOVQ patches_len+80(FP), BX
	MOVQ c+96(FP), R11
	MOVQ plane+112(FP), R9
	SHRQ $2, BX
	SHLQ $SHIFT, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~(LANES-1), R11
	JZ   done
	SHLQ $SHIFT, R11
	MOVQ R11, (SP)

patch:
	TESTQ BX, BX
	JZ    done
	POINTER(0, R8, R12)
	POINTER(1, R8, R13)
	POINTER(2, R8, R14)
	POINTER(3, R8, R15)
	XORQ AX, AX
	MOVQ DI, R11

channels:
	PIXEL((R12)(AX*1), V0)
	PIXEL((R13)(AX*1), V1)
	PIXEL((R14)(AX*1), V2)
	PIXEL((R15)(AX*1), V3)
	VADDPS V2, V0, V4
	VADDPS V3, V1, V5
	VSUBPS V2, V0, V6
	VSUBPS V3, V1, V7
	GRADIENTROW(R11, V0, V1)
	LEAQ (R11)(R9*4), CX
	GRADIENTROW(CX, V4, V5)
	LEAQ (CX)(R9*4), CX
	GRADIENTROW(CX, V6, V7)
	LEAQ (CX)(R9*4), CX
	GRADIENTROW(CX, V2, V3)
	ADDQ $(LANES*ELEMENT), AX
	ADDQ $(LANES*ELEMENT), R11
	CMPQ AX, (SP)
	JLT  channels
	MOVQ stride+104(FP), CX
	LEAQ (DI)(CX*ELEMENT), DI
	ADDQ $16, SI
	DECQ BX
	JMP  patch

done:
	VZEROUPPER
	RET

// func winogradOutput(dst []M, src []float32, at []int32, c, stride, plane int)
// SI offsets of a tile, BX tiles left, R8 src, R12..R15 destinations or 0; CX, DX,
// DI, R11 are the four rows of planes, of float32.
TEXT OUTPUT(SB), NOSPLIT, $8-96
	MOVQ src_base+24(FP), R8
	MOVQ at_base+48(FP), SI
	MOVQ at_len+56(FP), BX
	MOVQ c+72(FP), R11
	MOVQ plane+88(FP), R9
	SHRQ $2, BX
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~(LANES-1), R11
	JZ   done
	SHLQ $SHIFT, R11
	MOVQ R11, (SP)

tile:
	TESTQ BX, BX
	JZ    done
	MOVQ  dst_base+0(FP), DX
	XORQ  AX, AX
	POINTER(0, AX, R12)
	POINTER(1, AX, R13)
	POINTER(2, AX, R14)
	POINTER(3, AX, R15)

channels:
	LEAQ (R8)(AX*RATIO), CX
	LEAQ (CX)(R9*4), DX
	LEAQ (DX)(R9*4), DI
	LEAQ (DI)(R9*4), R11
	OUTPUTCOLUMN((CX), (DX), (DI), (R11), V0, V4)
	OUTPUTCOLUMN((CX)(R9*1), (DX)(R9*1), (DI)(R9*1), (R11)(R9*1), V1, V5)
	OUTPUTCOLUMN((CX)(R9*2), (DX)(R9*2), (DI)(R9*2), (R11)(R9*2), V2, V6)
	OUTPUTCOLUMN((CX)(R10*1), (DX)(R10*1), (DI)(R10*1), (R11)(R10*1), V3, V7)
	OUTPUTROW(V0, V1, V2, V3, R12, R13, no0, no1)
	OUTPUTROW(V4, V5, V6, V7, R14, R15, no2, no3)
	ADDQ $(LANES*ELEMENT), AX
	CMPQ AX, (SP)
	JLT  channels
	MOVQ stride+80(FP), CX
	LEAQ (R8)(CX*4), R8
	ADDQ $16, SI
	DECQ BX
	JMP  tile

done:
	VZEROUPPER
	RET

// func winogradOutputEpilogue(dst []M, src []float32, at []int32, stride, plane int, add []M, bias []float32, before, after float32)
// Registers as above, but BX is the distance from dst to add; the stack holds the
// end of the channels and the tiles left. V10 and V11 are before and after.
TEXT OUTPUTEPILOGUE(SB), NOSPLIT, $16-144
	MOVQ src_base+24(FP), R8
	MOVQ at_base+48(FP), SI
	MOVQ at_len+56(FP), CX
	MOVQ bias_len+120(FP), R11
	MOVQ plane+80(FP), R9
	MOVQ add_base+88(FP), BX
	SUBQ dst_base+0(FP), BX
	SHRQ $2, CX
	MOVQ CX, 8(SP)
	SHLQ $2, R9
	LEAQ (R9)(R9*2), R10
	ANDQ $~(LANES-1), R11
	JZ   done
	SHLQ $SHIFT, R11
	MOVQ R11, (SP)
	VBROADCASTSS before+136(FP), V10
	VBROADCASTSS after+140(FP), V11
	CMPQ add_len+96(FP), $0
	JNE  tile
	VMAXPS V11, V10, V10

tile:
	DECQ 8(SP)
	JLT  done
	MOVQ dst_base+0(FP), DX
	XORQ AX, AX
	POINTER(0, AX, R12)
	POINTER(1, AX, R13)
	POINTER(2, AX, R14)
	POINTER(3, AX, R15)
	CMPQ add_len+96(FP), $0
	JNE  adding

channels:
	MOVQ bias_base+112(FP), CX
	ENDCOLUMNS
	LOWERROW(V0, V1, V2, V3)
	ENDROW(R12, R13, no0, no1)
	LOWERROW(V4, V5, V6, V7)
	ENDROW(R14, R15, no2, no3)
	ADDQ $(LANES*ELEMENT), AX
	CMPQ AX, (SP)
	JLT  channels
	JMP  next

adding:
	MOVQ bias_base+112(FP), CX
	ENDCOLUMNS
	LEAQ (AX)(BX*1), CX
	LOWERROW(V0, V1, V2, V3)
	ADDROW(R12, R13, no4, no5)
	LOWERROW(V4, V5, V6, V7)
	ADDROW(R14, R15, no6, no7)
	ADDQ $(LANES*ELEMENT), AX
	CMPQ AX, (SP)
	JLT  adding

next:
	MOVQ stride+72(FP), CX
	LEAQ (R8)(CX*4), R8
	ADDQ $16, SI
	JMP  tile

done:
	VZEROUPPER
	RET
