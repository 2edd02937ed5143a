//go:build !purego

package kernel

// adamAVX2 and adamAVX512 are adamGeneric on whole vectors.

//go:noescape
func adamAVX2(p, m, v, g, factors []float32)

//go:noescape
func adamAVX512(p, m, v, g, factors []float32)

// adamVector returns adamGeneric by a kernel for vectors of so many lanes.
func adamVector(lanes int, whole func(p, m, v, g, factors []float32)) func(p, m, v, g, factors []float32) {
	return func(p, m, v, g, factors []float32) {
		n := len(p) / lanes * lanes
		whole(p[:n], m, v, g, factors)
		adamGeneric(p[n:], m[n:], v[n:], g[n:], factors)
	}
}
