package cpu

import "github.com/residual-ml/residual/graph"

// 3×3 convolutions of stride 2 through kernel/winograd_stride2.go, in tiles of 4×4
// outputs: the passes of winograd4.go with four phases of the pixels that are twice as many.
// Forward and for the gradient of kernels, phases of the source are transformed, 81 values
// for a tile, whose 81 products come to the sums of 25 planes. Backward data, one
// transform of 25 values meets the kernels of all phases, and phases of the destination are
// transformed back. Kernels have 36 planes throughout.

// stride2Phases are the rows and columns of planes of each phase, and the first of their
// planes.
var stride2Phases = [4]struct{ rows, columns, first int }{{5, 5, 0}, {5, 4, 25}, {4, 5, 45}, {4, 4, 65}}

const (
	stride2Planes = 81 // of all phases
	stride2Points = 25 // of sums, and of gradients
)

// stride2Kernel is the plane of a kernel for plane (i,j) of a phase: 6×6 planes, the last row
// and column of which are those of the middle tap, for all points.
func stride2Kernel(phase, i, j int) int {
	if phase/2 == 1 {
		i = 5
	}
	if phase%2 == 1 {
		j = 5
	}
	return 6*i + j
}

// stride2Forward is the axis of a phase of the source, for so many outputs.
func stride2Forward(odd, outputs, padding int) tileAxis {
	return tileAxis{
		tiles: (outputs + 3) / 4, inputs: 5 - odd, outputs: 4,
		from: func(tile, i int) int { return 2*(4*tile+i) + odd - padding },
		to:   func(tile, i int) int { return 4*tile + i },
	}
}

// stride2Backward is the axis of a phase of the destination, for so many of its pixels, all
// phases together. A tile has eight of them, and reads five gradients. Pixels of the odd
// phase have a tap with one gradient, those of the even one with that and the one before.
// Where the first pixel is of the even phase, tiles are computed from end to beginning, such that
// the gradients of the odd phase are the first four; where it is of the odd one, the even
// pixel comes after it, and its taps are exchanged, which turned says.
func stride2Backward(odd, pixels, padding int) (a tileAxis, turned bool) {
	a = tileAxis{tiles: (pixels + 7) / 8, inputs: 5, outputs: 4}
	if padding%2 == 0 {
		a.from = func(tile, i int) int { return padding/2 + 4*tile + 3 - i }
		a.to = func(tile, i int) int { return 2*(4*tile+3-i) + odd }
		return a, false
	}
	a.from = func(tile, i int) int { return padding/2 + 4*tile + i }
	a.to = func(tile, i int) int { return 2*(4*tile+i) + 1 - odd }
	return a, true
}

// stride2Task says whether transformed kernels go through memory, and how many tiles,
// channels of the source and of the destination are computed at a time. 81 planes of the
// one and 25 of the other come to half the second cache, so that two threads of a core
// can share it; four kernels meet in the sums that are made of 32 channels.
func stride2Task(ch, oc int, backward bool) (packed bool, tiles, depth, columns int) {
	switch packed = winograd4Planes*ch*oc <= 5<<18; {
	case packed && backward:
		return true, 16, 64, 64
	case packed:
		return true, 16, 64, 128
	case backward:
		return false, 32, 64, 32
	}
	return false, 32, 32, 64
}

// lowerStride2 appends the steps of a convolution of stride 2 in float32.
func (c *compiler) lowerStride2(n *graph.Node, name string, weights *graph.Node, of convolution, src, dst slot, end *epilogue) error {
	k, pad := &c.k.Stride2, of.attrs.Pad
	packed, wantTiles, wantDepth, wantColumns := stride2Task(of.cSrc, of.cDst, of.backward)
	v := &winograd4Pass{inPlanes: stride2Planes, outPlanes: stride2Points}
	var axes [4][2]tileAxis // of phases
	var turned [2]bool
	for phase := range axes {
		if of.backward {
			axes[phase][0], turned[0] = stride2Backward(phase/2, of.oh, pad.Top)
			axes[phase][1], turned[1] = stride2Backward(phase%2, of.ow, pad.Left)
			v.outputs = append(v.outputs, winograd4Output{first: stride2Phases[phase].first, wide: &k.Phases[phase]})
		} else {
			axes[phase] = [2]tileAxis{stride2Forward(phase/2, of.oh, pad.Top), stride2Forward(phase%2, of.ow, pad.Left)}
			v.inputs = append(v.inputs, c.winograd4Patches(src, k.Phases[phase].Input, nil))
		}
	}
	if of.backward {
		v.inPlanes, v.outPlanes = stride2Points, stride2Planes
		v.inputs = append(v.inputs, c.winograd4Patches(src, k.Phases[0].Input, nil))
	} else {
		v.outputs = []winograd4Output{{wide: &k.Phases[0]}}
	}
	if err := c.layOutWinograd4(v, of, wantTiles, axes[:]...); err != nil {
		return err
	}
	c.prepareWinograd4(v, n, weights, of, wantDepth, wantColumns, packed, k.Weights, turned, dst, end)
	if of.backward {
		for phase, f := range stride2Phases {
			for i := range f.rows {
				for j := range f.columns {
					v.product(f.first+i*f.columns+j, term{5*i + j, stride2Kernel(phase, i, j)})
				}
			}
		}
	} else {
		for to := range stride2Points {
			i, j := to/5, to%5
			var terms []term
			for phase, f := range stride2Phases {
				if i < f.rows && j < f.columns {
					terms = append(terms, term{f.first + i*f.columns + j, stride2Kernel(phase, i, j)})
				}
			}
			v.product(to, terms...)
		}
	}
	c.winogradKernel(n, byStride2)
	c.step("winograd 4×4 "+name, v.tasks(), v.run, append(end.reads(), src, v.wei, dst)...).kernel = c.products(false, v.tile.Rows, v.tile.Cols)
	return nil
}

// lowerStride2Weights appends the steps of the gradient of a kernel.
func (c *compiler) lowerStride2Weights(n *graph.Node) error {
	const wantTiles = 32
	k, dy := &c.k.Stride2, n.Inputs[1].Shape
	v := &winograd4Weights{inPlanes: stride2Points, gradPlanes: stride2Points, back: k.Sums}
	v.gradient = c.winograd4Patches(c.slotOf[n.Inputs[1].ID], k.Phases[0].Gradient, nil)
	var axes [4][2]tileAxis
	for phase := range axes {
		axes[phase] = [2]tileAxis{stride2Forward(phase/2, dy[1], n.Conv.Pad.Top), stride2Forward(phase%2, dy[2], n.Conv.Pad.Left)}
		v.inputs = append(v.inputs, c.winograd4Patches(c.slotOf[n.Inputs[0].ID], k.Phases[phase].Input, nil))
	}
	if err := c.layOutWinograd4Weights(v, n, wantTiles, axes[:]...); err != nil {
		return err
	}
	for phase, f := range stride2Phases {
		// Points that share a tap, whose products one sum has.
		together := map[int][][2]int{}
		for i := range f.rows {
			for j := range f.columns {
				sums := stride2Kernel(phase, i, j)
				together[sums] = append(together[sums], [2]int{i*f.columns + j, 5*i + j})
			}
		}
		var products []winograd4Outer
		for sums := range winograd4Planes {
			if planes := together[sums]; planes != nil {
				products = append(products, winograd4Outer{sums: sums, perTile: len(planes), offsets: v.offsets(planes...)})
			}
		}
		v.products = append(v.products, products)
	}
	c.winogradKernel(n, byStride2)
	c.winograd4WeightsSteps(v, n)
	return nil
}
