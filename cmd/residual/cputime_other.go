//go:build !unix

package main

import "time"

// processorTime is what all threads of this process have used, or 0 where that is
// not known.
func processorTime() time.Duration { return 0 }
