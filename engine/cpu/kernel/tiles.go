package kernel

import "math"

// Tiles are those of one instruction set and precision, C of convolution forward and
// backward data, O of backward weights, with the choice between them.
type Tiles[C, O sized] struct {
	ConvTiles  []C
	OuterTiles []O
}

// ConvTile is a kernel of forward and backward-data convolution that keeps
// Rows × Cols sums in registers.
type ConvTile struct {
	Rows, Cols int
	Run        func(dst []float32, dstOff []int32, src, zero []float32, taps []int32, c int, wei []float32, accumulate bool)
}

// OuterTile is one of backward-weights convolution.
type OuterTile struct {
	Rows, Cols int
	Run        func(dst, src, dy []float32, pixels []int32)
}

// PairTile is ConvTile for pairs. Run rounds the sums to bfloat16, Sums leaves
// them as they are.
type PairTile struct {
	Rows, Cols int
	Run        func(dst []uint16, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32)
	Sums       func(dst []float32, dstOff []int32, src, zero []uint32, taps []int32, c int, wei []uint32, accumulate bool)
}

// PairOuterTile is OuterTile for pairs.
type PairOuterTile struct {
	Rows, Cols int
	Run        func(dst []float32, src, dy []uint32, pixels []int32)
}

type sized interface{ size() (rows, cols int) }

func (t ConvTile) size() (rows, cols int)      { return t.Rows, t.Cols }
func (t OuterTile) size() (rows, cols int)     { return t.Rows, t.Cols }
func (t PairTile) size() (rows, cols int)      { return t.Rows, t.Cols }
func (t PairOuterTile) size() (rows, cols int) { return t.Rows, t.Cols }

// tileCost is what a matrix of sums costs in tiles: the products, with those of
// rows and columns that only fill tiles up, and the loads of operands, which count
// for two products each: from the second cache a tile of 8×16 took 1.3 times as long
// for a product as one of 13×32 (gradient of a 7×7 kernel in bfloat16, Zen 4).
func tileCost(rows, cols, tileRows, tileCols int) float64 {
	up := func(n, to int) int { return (n + to - 1) / to * to }
	return float64(up(rows, tileRows)*up(cols, tileCols)) * (1 + 2/float64(tileRows) + 2/float64(tileCols))
}

// conflicts is how much longer a tile takes because of where the pixels lie that are
// its rows: pages apart, their lines share one set of the first cache, whose 8 ways
// hold 8 of them. Then 13 rows, each line of which is read 16 times, took 1.2 times as
// long as 8 (pixels of 4,096 bytes, Zen 4).
func conflicts(rows, stride int) float64 {
	const page, ways = 4096, 8
	if rows > ways && stride > 0 && stride%page == 0 {
		return 1.2
	}
	return 1
}

// cheapest returns the tile of least cost, the first of several.
func cheapest[T sized](tiles []T, cost func(rows, cols int) float64) *T {
	best, least := 0, math.Inf(1)
	for i, t := range tiles {
		if c := cost(t.size()); c < least {
			best, least = i, c
		}
	}
	return &tiles[best]
}

// ConvTileFor returns the cheapest tile for many pixels of that many channels.
func (t *Tiles[C, O]) ConvTileFor(channels int) *C {
	return cheapest(t.ConvTiles, func(rows, cols int) float64 {
		return tileCost(rows, channels, rows, cols) / float64(rows)
	})
}

// ConvTileOf returns the cheapest tile for so many pixels with the columns of
// ConvTileFor.
func (t *Tiles[C, O]) ConvTileOf(pixels, channels int) *C {
	return t.ConvTileApart(pixels, channels, 0)
}

// ConvTileApart is ConvTileOf for pixels that lie stride bytes apart.
func (t *Tiles[C, O]) ConvTileApart(pixels, channels, stride int) *C {
	_, columns := (*t.ConvTileFor(channels)).size()
	return cheapest(t.ConvTiles, func(rows, cols int) float64 {
		if cols != columns {
			return math.Inf(1)
		}
		return tileCost(pixels, channels, rows, cols) * conflicts(rows, stride)
	})
}

// OuterTileFor returns the cheapest tile for sums of so many rows and columns.
func (t *Tiles[C, O]) OuterTileFor(rows, cols int) *O {
	return cheapest(t.OuterTiles, func(tileRows, tileCols int) float64 {
		return tileCost(rows, cols, tileRows, tileCols)
	})
}
