package kernel

var generic = Kernels{
	Set:       Generic,
	Rows:      6,
	Cols:      16,
	ConvTile:  convTileGeneric,
	OuterTile: outerTileGeneric,
	Pack:      packGeneric,

	Add:      addGeneric,
	Sub:      subGeneric,
	Mul:      mulGeneric,
	Div:      divGeneric,
	Max:      maxGeneric,
	Gate:     gateGeneric,
	Sqrt:     sqrtGeneric,
	ScaleAdd: scaleAddGeneric,

	ChannelScaleAdd: channelScaleAddGeneric,
	ChannelSum:      channelSumGeneric,
	ChannelSquares:  channelSquaresGeneric,
	ChannelProducts: channelProductsGeneric,
	ChannelMoments:  channelMomentsGeneric,
}
