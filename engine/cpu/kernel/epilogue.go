package kernel

// Epilogues finish sums where they are written: a bias for each channel, ReLU
// before or after the addition of another value, or neither. bias has the length
// of the channels c; before and after are lower bounds, 0 for ReLU and -Inf for
// none. A NaN stays one.

// epilogueGeneric finishes rows of sums: for o = at[r] unless it is NoPixel, and
// j < c
//
//	dst[o+j] = max(after, max(before, src[from[r]+j] + bias[j]) + add[o+j])
//
// Without add, of length 0, nothing is added. dst may be add.
func epilogueGeneric(dst, src []float32, from, at []int32, add, bias []float32, before, after float32) {
	for r, o := range at {
		if o == NoPixel {
			continue
		}
		to, sums := dst[o:][:len(bias)], src[from[r]:][:len(bias)]
		if len(add) == 0 {
			for j, b := range bias {
				to[j] = lower(after, lower(before, sums[j]+b))
			}
			continue
		}
		more := add[o:][:len(bias)]
		for j, b := range bias {
			to[j] = lower(after, lower(before, sums[j]+b)+more[j])
		}
	}
}

// lower is the greater of v and its lower bound, and v when it is NaN.
func lower(bound, v float32) float32 {
	if bound > v {
		return bound
	}
	return v
}

// epilogueBF16Generic is epilogueGeneric with dst and add in bfloat16.
func epilogueBF16Generic(dst []uint16, src []float32, from, at []int32, add []uint16, bias []float32, before, after float32) {
	end := finishBF16(dst, add, bias, before, after)
	for r, o := range at {
		if o == NoPixel {
			continue
		}
		for k, sum := range src[from[r]:][:len(bias)] {
			end(sum, int(o), k)
		}
	}
}

// winogradOutputEpilogueGeneric is winogradOutputGeneric with an epilogue. Vector
// versions add the bias to element (1,1) of the products, whose factor in all four
// results is 1.
func winogradOutputEpilogueGeneric(dst, src []float32, at []int32, stride, plane int, add, bias []float32, before, after float32) {
	outputEpilogue(winogradOutputGeneric, 16, 4, src, at, stride, plane, len(bias), finish(dst, add, bias, before, after))
}

// finish returns what an epilogue does with the sum of channel k of the pixel at o.
func finish(dst, add, bias []float32, before, after float32) func(sum float32, o, k int) {
	return func(sum float32, o, k int) {
		v := lower(before, sum+bias[k])
		if len(add) > 0 {
			v += add[o+k]
		}
		dst[o+k] = lower(after, v)
	}
}

// finishBF16 is finish with dst and add in bfloat16.
func finishBF16(dst, add []uint16, bias []float32, before, after float32) func(sum float32, o, k int) {
	return func(sum float32, o, k int) {
		v := lower(before, sum+bias[k])
		if len(add) > 0 {
			v += FromBF16(add[o+k])
		}
		dst[o+k] = ToBF16(lower(after, v))
	}
}

// outputEpilogue is an output transform of c channels from so many planes to so many
// values, each of which is finished.
func outputEpilogue(output func(dst, src []float32, at []int32, c, stride, plane int), planes, outputs int,
	src []float32, at []int32, stride, plane, c int, finish func(sum float32, o, k int)) {
	one := make([]int32, outputs)
	for i := range one {
		one[i] = int32(i)
	}
	in, out := make([]float32, planes), make([]float32, outputs)
	for t := 0; t < len(at)/outputs; t++ {
		for k := range c {
			for i := range in {
				in[i] = src[i*plane+t*stride+k]
			}
			output(out, in, one, 1, 1, 1)
			for i, o := range at[t*outputs:][:outputs] {
				if o != NoPixel {
					finish(out[i], int(o), k)
				}
			}
		}
	}
}

// winogradOutputEpilogueBF16Generic is the same with dst and add in bfloat16.
func winogradOutputEpilogueBF16Generic(dst []uint16, src []float32, at []int32, stride, plane int, add []uint16, bias []float32, before, after float32) {
	outputEpilogue(winogradOutputGeneric, 16, 4, src, at, stride, plane, len(bias), finishBF16(dst, add, bias, before, after))
}
