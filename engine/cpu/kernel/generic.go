package kernel

var generic = Kernels{
	Set:       Generic,
	Tiles:     Tiles[ConvTile, OuterTile]{[]ConvTile{{6, 16, convTileGeneric}}, []OuterTile{{6, 16, outerTileGeneric}}},
	Pack:      packGeneric,
	Transpose: transposeGeneric,
	Winograd:  winogradGeneric,
	Winograd4: winograd4Generic,
	Stride2:   stride2Generic,
	BF16:      bf16Generic,
	Norm:      normGeneric[float32](),
	Epilogue:  epilogueGeneric,

	Add:      addGeneric,
	Sub:      subGeneric,
	Mul:      mulGeneric,
	Div:      divGeneric,
	Max:      maxGeneric,
	Gate:     gateGeneric,
	Sqrt:     sqrtGeneric,
	ScaleAdd: scaleAddGeneric,
	Adam:     adamGeneric,

	ChannelScaleAdd: channelScaleAddGeneric,
	ChannelSum:      channelSumGeneric,
	ChannelSquares:  channelSquaresGeneric,
	ChannelProducts: channelProductsGeneric,

	WindowMax:         windowMaxGeneric,
	WindowMaxBackward: windowMaxBackwardGeneric,
}

var winogradGeneric = Winograd{
	Transforms[float32, float32]{winogradInputGeneric, winogradGradientGeneric, winogradOutputGeneric, winogradOutputEpilogueGeneric},
	winogradWeightsGeneric, winogradSumsGeneric,
}
