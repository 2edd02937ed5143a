//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

// supported returns the tables above generic that can run here. Package cpu
// has asked CPUID and, through XGETBV, whether the operating system saves the
// registers.
func supported() []*Kernels {
	var all []*Kernels
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		all = append(all, &avx2)
		if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL {
			all = append(all, &avx512)
			if cpu.X86.HasAVX512BF16 {
				all = append(all, &avx512BF16)
				if amxUsable() {
					all = append(all, &amx)
				}
			}
		}
	}
	return all
}

var avx2 = Kernels{
	Set:       AVX2,
	Tiles:     Tiles[ConvTile, OuterTile]{[]ConvTile{{6, 16, convTileAVX2}}, []OuterTile{{6, 16, outerTileAVX2}}},
	Pack:      packAVX2,
	Transpose: transposeAVX2,
	Winograd:  winogradAVX2,
	Winograd4: winograd4AVX2,
	Stride2:   stride2AVX2,
	BF16:      bf16Generic,
	Norm:      normAVX2,
	Epilogue:  epilogueVector,

	Add:      addAVX2,
	Sub:      subAVX2,
	Mul:      mulAVX2,
	Div:      divAVX2,
	Max:      maxAVX2,
	Gate:     gateAVX2,
	Sqrt:     sqrtAVX2,
	ScaleAdd: scaleAddAVX2,
	Adam:     adamVector(8, adamAVX2),

	ChannelScaleAdd: channelScaleAddVector,
	ChannelSum:      channelSumVector,
	ChannelSquares:  channelSquaresVector,
	ChannelProducts: channelProductsVector,

	WindowMax:         windowMaxVector,
	WindowMaxBackward: windowMaxBackwardVector,
}

// avx512 shares the loops over blocks with avx2: they are bound by loads and
// stores.
var avx512 = func() Kernels {
	k := avx2
	k.Set = AVX512
	k.ConvTiles = []ConvTile{{13, 32, convTile13x32AVX512}, {13, 16, convTile13x16AVX512}, {8, 32, convTile8x32AVX512}}
	k.OuterTiles = []OuterTile{{13, 32, outerTile13x32AVX512}, {13, 16, outerTile13x16AVX512}, {8, 16, outerTile8x16AVX512}}
	k.Pack = packAVX512
	k.Winograd = winogradAVX512
	k.Winograd4 = winograd4AVX512
	k.Norm = normAVX512
	k.Stride2 = stride2AVX512
	k.Adam = adamVector(16, adamAVX512)
	k.Epilogue = epilogueAVX512
	return k
}()

// avx512BF16 computes in float32 as avx512 does.
var avx512BF16 = func() Kernels {
	k := avx512
	k.Set = AVX512BF16
	k.BF16 = bf16AVX512
	return k
}()

// amx has what avx512BF16 has, and tiles for bfloat16.
var amx = func() Kernels {
	k := avx512BF16
	k.Set = AMX
	k.BF16 = bf16AMX
	return k
}()
