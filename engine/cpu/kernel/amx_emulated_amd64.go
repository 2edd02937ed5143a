//go:build !purego && amxemulated

package kernel

// amxPermitted is true under internal/amxemu, which does the instructions.
func amxPermitted() bool { return true }
