//go:build unix

package cpu

import (
	"syscall"
	"time"
)

// cpuTime is the processor time of all threads of this process, which other
// programs on the machine do not lengthen.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
