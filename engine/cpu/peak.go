package cpu

import (
	"time"

	"github.com/residual-ml/residual/engine/cpu/kernel"
)

// Peak measures what the convolution kernel reaches on all workers together when
// its operands lie in the first-level cache, in GFLOP/s (a multiply and an add
// are two operations): the ceiling against which layers are judged. It is
// measured beside them because processors change their clock and share cores.
// It takes about d.
func (e *Engine) Peak(d time.Duration) float64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	const channels, taps = 64, 3 // channels in words
	tile := e.kernels.ConvTiles[0]
	rows, cols, perWord := tile.Rows, tile.Cols, 1
	pair := e.kernels.BF16.ConvTiles[0]
	if e.bf16 {
		rows, cols, perWord = pair.Rows, pair.Cols, 2
	}
	size := kernel.TapSize(rows)
	began := time.Now()
	products := make([]int64, e.pool.Threads())
	e.pool.For(e.pool.Threads(), func(_, task int) {
		dst := make([]float32, rows*cols)
		src := make([]float32, rows*channels)
		wei := make([]float32, taps*channels*cols)
		offsets := make([]int32, rows)
		records := make([]int32, taps*size)
		for r := range rows {
			offsets[r] = int32(r * cols)
			for t := range taps {
				records[t*size] = int32(t * channels * cols)
				records[t*size+2+r] = int32(r * channels)
			}
		}
		for time.Since(began) < d {
			const repeat = 200
			for range repeat {
				if e.bf16 {
					pair.Run(halvesOf(dst), offsets, wordsOf(src), wordsOf(src), records, channels, wordsOf(wei))
				} else {
					tile.Run(dst, offsets, src, src, records, channels, wei, true)
				}
			}
			products[task] += repeat * int64(rows*cols*taps*channels*perWord)
		}
	})
	seconds := time.Since(began).Seconds()
	var total int64
	for _, n := range products {
		total += n
	}
	return 2 * float64(total) / seconds / 1e9
}
