package main

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
)

// stoppedBy is the cause of a context that a signal cancelled, and the error of
// a command that it stopped.
type stoppedBy struct{ os.Signal }

func (s stoppedBy) Error() string { return "stopped by " + s.Signal.String() }

func (s stoppedBy) exitCode() int {
	if s.Signal == os.Interrupt {
		return exitInterrupted
	}
	return exitRequeue
}

// stopOnSignal cancels the context at the first SIGINT, SIGTERM or SIGUSR1, with
// a stoppedBy as its cause, and tells so. The second one ends the process. It is
// called before anything that takes time, so that a signal is heeded during
// start-up and validation too.
func stopOnSignal(ctx context.Context, tell func()) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, stopSignals...)
	var ended atomic.Bool
	go func() {
		for s := range signals {
			if ended.Load() {
				return
			}
			if ctx.Err() != nil {
				os.Exit(stoppedBy{s}.exitCode())
			}
			tell()
			cancel(stoppedBy{s})
		}
	}()
	return ctx, func() {
		ended.Store(true)
		signal.Stop(signals)
		close(signals)
		cancel(nil)
	}
}
