//go:build !purego

package kernel

// The assembly works on whole vectors of eight channels, generic Go on the
// channels that remain.

//go:noescape
func windowMaxAVX2(dst, src []float32, at []int32)

//go:noescape
func windowMaxBackwardAVX2(dx, dy, src []float32, at []int32)

func windowMaxVector(dst, src []float32, at []int32) {
	windowMaxAVX2(dst, src, at)
	if done := len(dst) &^ 7; done < len(dst) {
		windowMaxGeneric(dst[done:], src[done:], at)
	}
}

func windowMaxBackwardVector(dx, dy, src []float32, at []int32) {
	windowMaxBackwardAVX2(dx, dy, src, at)
	if done := len(dy) &^ 7; done < len(dy) {
		windowMaxBackwardGeneric(dx[done:], dy[done:], src[done:], at)
	}
}
