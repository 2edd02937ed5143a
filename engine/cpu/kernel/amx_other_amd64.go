//go:build !purego && !linux && !amxemulated

package kernel

// amxPermitted is false where no operating system was seen to give AMX.
func amxPermitted() bool { return false }
