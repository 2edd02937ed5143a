//go:build !purego && !amxemulated

package kernel

import (
	"syscall"

	"golang.org/x/sys/cpu"
)

// amxPermitted reports whether there is AMX and Linux lets this process use the
// tiles: their state is large, so a process must ask for it, once, with
// arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA). Linux older than 5.16,
// sandboxes and emulators refuse.
func amxPermitted() bool {
	const requestPermission, tileData = 0x1023, 18
	if !cpu.X86.HasAMXTile || !cpu.X86.HasAMXBF16 {
		return false
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, requestPermission, tileData, 0)
	return errno == 0
}
