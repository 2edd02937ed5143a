// func adam(p, m, v, g, factors []float32)
// DI p, SI m, DX v, BX g, R8 factors, CX elements left. V4 to V11 are the factors in
// their order.
TEXT ADAM(SB), NOSPLIT, $0-120
	MOVQ p_base+0(FP), DI
	MOVQ p_len+8(FP), CX
	MOVQ m_base+24(FP), SI
	MOVQ v_base+48(FP), DX
	MOVQ g_base+72(FP), BX
	MOVQ factors_base+96(FP), R8
	VBROADCASTSS (R8), V4
	VBROADCASTSS 4(R8), V5
	VBROADCASTSS 8(R8), V6
	VBROADCASTSS 12(R8), V7
	VBROADCASTSS 16(R8), V8
	VBROADCASTSS 20(R8), V9
	VBROADCASTSS 24(R8), V10
	VBROADCASTSS 28(R8), V11
	SUBQ $LANES, CX
	JLT  done

loop:
	VMOVUPS (BX), V0
	VMULPS  (SI), V4, V1 // m·keep1
	VMULPS  V0, V5, V2   // g·take1
	VADDPS  V2, V1, V1
	VMOVUPS V1, (SI)
	VMULPS  (DX), V6, V2 // v·keep2
	VMULPS  V0, V0, V0
	VMULPS  V0, V7, V0   // g²·take2
	VADDPS  V0, V2, V2
	VMOVUPS V2, (DX)
	VMULPS  V1, V8, V1   // m·rate
	VSQRTPS V2, V2
	VMULPS  V2, V9, V2
	VADDPS  V10, V2, V2  // √v·root + ε
	VDIVPS  V2, V1, V1
	VMULPS  (DI), V11, V0
	VSUBPS  V1, V0, V0
	VMOVUPS V0, (DI)
	ADDQ    $(4*LANES), DI
	ADDQ    $(4*LANES), SI
	ADDQ    $(4*LANES), DX
	ADDQ    $(4*LANES), BX
	SUBQ    $LANES, CX
	JGE     loop

done:
	VZEROUPPER
	RET
