//go:build !amd64 || purego

package kernel

func supported() []*Kernels { return nil }
