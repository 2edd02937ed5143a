//go:build linux && amd64

// Command amxemu runs a program on a processor without AMX and does its AMX
// instructions in its place:
//
//	go test -c -tags amxemulated -o kernel.test ./engine/cpu/kernel
//	go run ./internal/amxemu ./kernel.test -test.run Pair
//
// It traces the program (ptrace). An AMX instruction stops a thread with an
// illegal-instruction signal; amxemu computes what the instruction would have
// done to the tiles, which it keeps, and to the thread's memory, and lets the
// thread go on behind it. This takes some microseconds for each: it is for
// tests of what kernels compute, and says nothing about their speed.
//
// The build tag amxemulated makes package kernel believe that there is AMX.
// Known are LDTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILESTORED and
// TDPBF16PS, as Intel's Software Developer's Manual, volume 2, defines them.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: amxemu PROGRAM [ARGUMENT...]")
		os.Exit(2)
	}
	code, count, err := run(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "amxemu:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "amxemu: %d AMX instructions\n", count)
	if code == 0 && count == 0 {
		fmt.Fprintln(os.Stderr, "amxemu: the program has used no AMX: was it built with -tags amxemulated?")
		code = 1
	}
	os.Exit(code)
}

const (
	traceFork     = 0x2
	traceVfork    = 0x4
	traceClone    = 0x8
	killWithUs    = 0x100000 // PTRACE_O_EXITKILL
	everyThread   = 0x40000000
	shellSignaled = 128
)

// run traces a program to its end and returns its exit code and the number of
// instructions emulated.
func run(program string, args []string) (code, count int, err error) {
	runtime.LockOSThread() // only the thread that traces may ask
	c := exec.Command(program, args...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := c.Start(); err != nil {
		return 0, 0, err
	}
	pid := c.Process.Pid
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return 0, 0, err
	}
	if err := syscall.PtraceSetOptions(pid, traceFork|traceVfork|traceClone|killWithUs); err != nil {
		return 0, 0, fmt.Errorf("tracing %s: %w", program, err)
	}
	if err := syscall.PtraceCont(pid, 0); err != nil {
		return 0, 0, err
	}
	threads := map[int]*tiles{}
	for {
		tid, err := syscall.Wait4(-1, &status, everyThread, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return 0, count, err
		case status.Exited() || status.Signaled():
			delete(threads, tid)
			if tid != pid {
				continue
			}
			if status.Signaled() {
				return shellSignaled + int(status.Signal()), count, nil
			}
			return status.ExitStatus(), count, nil
		case !status.Stopped():
			continue
		}
		signal := status.StopSignal()
		switch signal {
		case syscall.SIGTRAP:
			signal = 0
		case syscall.SIGSTOP:
			if threads[tid] == nil { // a new thread's first stop
				threads[tid] = &tiles{}
				signal = 0
			}
		case syscall.SIGILL:
			if threads[tid] == nil {
				threads[tid] = &tiles{}
			}
			done, err := threads[tid].step(tid)
			if err != nil {
				return 0, count, err
			}
			if done {
				count++
				signal = 0
			}
		}
		if err := syscall.PtraceCont(tid, int(signal)); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, count, err
		}
	}
}
