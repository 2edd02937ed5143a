package kernel

// Max-pooling goes window by window: at holds the offsets of its pixels in
// elements, at least one, in the order in which the first of equal maxima counts.

// windowMaxGeneric: dst[j] = max over o in at of src[o+j], and NaN if one of them
// is NaN.
func windowMaxGeneric(dst, src []float32, at []int32) {
	copy(dst, src[at[0]:])
	for _, o := range at[1:] {
		for j, v := range src[o:][:len(dst)] {
			if v > dst[j] || v != v {
				dst[j] = v
			}
		}
	}
}

// windowMaxBackwardGeneric: dx[o+j] += dy[j] for the first o in at for which
// src[o+j] is the maximum, or NaN.
func windowMaxBackwardGeneric(dx, dy, src []float32, at []int32) {
	for j, d := range dy {
		best := int(at[0]) + j
		for _, o := range at[1:] {
			if i := int(o) + j; src[i] > src[best] || src[i] != src[i] && src[best] == src[best] {
				best = i
			}
		}
		dx[best] += d
	}
}
