//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// stopSignals make training save and end. SIGTERM is what Kubernetes sends,
// SIGUSR1 what Slurm's --signal is mostly set to, SIGHUP comes when the terminal
// is closed: unless nohup has said that this is to be ignored.
var stopSignals = func() []os.Signal {
	heeded := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGUSR1}
	if !signal.Ignored(syscall.SIGHUP) {
		heeded = append(heeded, syscall.SIGHUP)
	}
	return heeded
}()
