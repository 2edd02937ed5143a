//go:build darwin || freebsd || linux

package atomicfile

import (
	"fmt"
	"syscall"
)

// CheckSpace returns an error, syscall.ENOSPC wrapped, when the file system of
// dir says that it has no room for need bytes. One that says nothing is believed
// to have it.
func CheckSpace(dir string, need int64) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil || s.Blocks == 0 {
		return nil
	}
	// Bavail is signed where it may be below zero.
	if free := int64(s.Bavail) * int64(s.Bsize); free < need {
		return fmt.Errorf("%s: %w: %.1f MB are free, %.1f MB are needed", dir, syscall.ENOSPC, float64(max(free, 0))/1e6, float64(need)/1e6)
	}
	return nil
}
