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
	}
	return all
}

var avx2 = Kernels{
	Set:       AVX2,
	Rows:      6,
	Cols:      16,
	ConvTile:  convTileAVX2,
	OuterTile: outerTileAVX2,
	Pack:      packVector,

	Add:      addAVX2,
	Sub:      subAVX2,
	Mul:      mulAVX2,
	Div:      divAVX2,
	Max:      maxAVX2,
	Gate:     gateAVX2,
	Sqrt:     sqrtAVX2,
	ScaleAdd: scaleAddAVX2,

	ChannelScaleAdd: channelScaleAddVector,
	ChannelSum:      channelSumVector,
	ChannelSquares:  channelSquaresVector,
	ChannelProducts: channelProductsVector,
	ChannelMoments:  channelMomentsVector,
}
