//go:build !unix

package cpu

import "time"

var started = time.Now()

// cpuTime falls back to the wall clock.
func cpuTime() time.Duration { return time.Since(started) }
