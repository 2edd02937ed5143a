package rundir

import (
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks f until it is closed; it does not wait. Windows locks ranges of
// bytes, and locked ones cannot be read: this one lies behind the text.
func tryLock(f *os.File) error {
	at := &windows.Overlapped{OffsetHigh: 1}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if err == windows.ERROR_LOCK_VIOLATION {
		return ErrInUse
	}
	return err
}
