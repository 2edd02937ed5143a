//go:build !unix

package main

import "os"

// stopSignals make training save and end.
var stopSignals = []os.Signal{os.Interrupt}
