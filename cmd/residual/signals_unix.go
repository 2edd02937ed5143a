//go:build unix

package main

import (
	"os"
	"syscall"
)

// stopSignals make training save and end. SIGTERM is what Kubernetes sends,
// SIGUSR1 what Slurm's --signal is mostly set to, SIGHUP comes when the terminal
// is closed.
var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGHUP}
