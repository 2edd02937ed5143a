//go:build unix

package main

import (
	"syscall"
	"time"
)

// processorTime is what all threads of this process have used, or 0 where that is
// not known.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
