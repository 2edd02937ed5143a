// Package parallel runs independent tasks on a fixed set of workers.
package parallel

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
)

// Pool is a fixed set of workers: the caller of For and threads-1 goroutines
// that wait between calls. It is not safe for concurrent use. Close ends the
// goroutines.
type Pool struct {
	threads int
	body    func(worker, task int)
	tasks   int64
	next    atomic.Int64
	running atomic.Int64  // helpers that have not finished the current For
	done    chan struct{} // the last helper to finish sends
	wake    []chan struct{}
	failure atomic.Pointer[Panic]
}

// Panic is what For panics with when a task panicked: the value and the stack
// of the task, which the caller's own stack does not show.
type Panic struct {
	Task  int
	Value any
	Stack []byte
}

// Error names the task and shows its stack.
func (p *Panic) Error() string {
	return fmt.Sprintf("parallel: task %d panicked: %v\n%s", p.Task, p.Value, p.Stack)
}

// New returns a pool of the given number of threads, at least one. A pool of
// one thread runs everything on its caller.
func New(threads int) *Pool {
	p := &Pool{threads: max(threads, 1), done: make(chan struct{}, 1)}
	for worker := 1; worker < p.threads; worker++ {
		wake := make(chan struct{}, 1)
		p.wake = append(p.wake, wake)
		go func() {
			for range wake {
				p.work(worker)
				if p.running.Add(-1) == 0 {
					p.done <- struct{}{}
				}
			}
		}()
	}
	return p
}

// Threads is the number of workers; worker numbers are below it.
func (p *Pool) Threads() int { return p.threads }

// For calls body(worker, task) once for each task in [0,n) and returns when all
// have returned. Tasks are taken in ascending order; which worker takes one is
// left to chance, so results must not depend on it: worker is there to choose
// scratch memory. For allocates nothing. When tasks panic, the remaining ones
// are not started and For panics with a *Panic.
func (p *Pool) For(n int, body func(worker, task int)) {
	if n <= 0 {
		return
	}
	helpers := min(p.threads, n) - 1
	p.body, p.tasks = body, int64(n)
	p.next.Store(0)
	p.running.Store(int64(helpers))
	for _, wake := range p.wake[:helpers] {
		wake <- struct{}{}
	}
	p.work(0)
	if helpers > 0 {
		<-p.done
	}
	p.body = nil
	if failure := p.failure.Swap(nil); failure != nil {
		panic(failure)
	}
}

func (p *Pool) work(worker int) {
	task := -1
	defer func() {
		if v := recover(); v != nil {
			p.next.Store(p.tasks) // start no further task
			p.failure.CompareAndSwap(nil, &Panic{Task: task, Value: v, Stack: debug.Stack()})
		}
	}()
	for {
		t := p.next.Add(1) - 1
		if t >= p.tasks {
			return
		}
		task = int(t)
		p.body(worker, task)
	}
}

// Close ends the workers. The pool must not be used afterwards.
func (p *Pool) Close() {
	for _, wake := range p.wake {
		close(wake)
	}
	p.wake = nil
	p.threads = 1
}
