//go:build !linux

package parallel

// yield does nothing: whoever looks out uses the processor until he sleeps.
func yield() {}
