//go:build !purego

package parallel

// pause tells the processor that a loop waits (PAUSE), some tens of cycles.
func pause()
