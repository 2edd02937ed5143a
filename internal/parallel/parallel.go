// Package parallel runs independent tasks on a fixed set of workers.
package parallel

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Pool is a fixed set of workers: the caller of For and threads-1 goroutines, its
// helpers, that sleep between calls, or look out for work between Hold and Release.
// It is not safe for concurrent use. Close ends the goroutines.
type Pool struct {
	threads int
	helpers []*helper
	eager   atomic.Bool // between Hold and Release
	closed  atomic.Bool
	done    chan struct{} // the last helper to finish sends, if For sleeps
	body    func(worker, task int)
	tasks   int64
	failure atomic.Pointer[Panic]

	_       [cacheLine]byte // what all write lies apart
	next    atomic.Int64
	_       [cacheLine]byte
	running atomic.Int32 // helpers that For waits for; and sleeping
	_       [cacheLine]byte
}

const cacheLine = 64

// sleeping is added to Pool.running when For goes to sleep.
const sleeping = 1 << 30

// helper is a worker that is not the caller of For.
type helper struct {
	state atomic.Int32
	wake  chan struct{} // For sends to a helper that was asleep
	_     [cacheLine]byte
}

// The states of a helper. For calls it; then either it takes the call, or For takes
// it back because no task is left.
const (
	called  = iota
	waiting // or working
	asleep
)

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
		h := &helper{wake: make(chan struct{}, 1)}
		h.state.Store(waiting)
		p.helpers = append(p.helpers, h)
		go p.serve(worker, h)
	}
	return p
}

// serve is the life of a helper.
func (p *Pool) serve(worker int, h *helper) {
	for {
		if !p.spin(&h.state) && h.state.CompareAndSwap(waiting, asleep) {
			<-h.wake
		}
		if p.closed.Load() {
			return
		}
		if h.state.CompareAndSwap(called, waiting) {
			p.work(worker)
			if p.running.Add(-1) == sleeping {
				p.done <- struct{}{}
			}
		}
	}
}

// Threads is the number of workers; worker numbers are below it.
func (p *Pool) Threads() int { return p.threads }

// lookOut is how long one who waits looks out before he sleeps: about what it costs
// to be woken, so that waiting costs at most twice what the better of both would.
// After alone he lets other threads of the machine go first: the one he waits for may
// be among them.
const (
	lookOut = 100 * time.Microsecond
	alone   = 5 * time.Microsecond
)

// Hold says that calls of For follow each other closely until Release. Whoever waits
// in between, a helper for work or For for its helpers, then does so actively for up
// to 100 µs before he sleeps, because to be woken takes some 60 µs. With fewer
// processors than threads (GOMAXPROCS) Hold does nothing.
func (p *Pool) Hold() {
	p.eager.Store(p.threads > 1 && p.threads <= runtime.GOMAXPROCS(0))
}

// Release ends what Hold began: helpers sleep until the next call of For.
func (p *Pool) Release() { p.eager.Store(false) }

// spin waits actively until v is 0, and reports whether it is. It gives up when a
// sleep is due.
func (p *Pool) spin(v *atomic.Int32) bool {
	if v.Load() == 0 {
		return true
	}
	if !p.eager.Load() {
		return false
	}
	began := time.Now()
	for p.eager.Load() {
		for range 32 {
			pause()
			if v.Load() == 0 {
				return true
			}
		}
		switch waited := time.Since(began); {
		case waited > lookOut:
			return false
		case waited > alone:
			yield()
		}
	}
	return false
}

// For calls body(worker, task) once for each task in [0,n) and returns when all
// have returned. Tasks are taken in ascending order; which worker takes one is
// left to chance, so results must not depend on it: worker is there to choose
// scratch memory. For allocates nothing, and waits for no helper that has not begun.
// When tasks panic, the remaining ones are not started and For panics with a *Panic.
func (p *Pool) For(n int, body func(worker, task int)) {
	if n <= 0 {
		return
	}
	helpers := p.helpers[:min(p.threads, n)-1]
	p.body, p.tasks = body, int64(n)
	p.next.Store(0)
	p.running.Store(int32(len(helpers)))
	for _, h := range helpers {
		if h.state.Swap(called) == asleep {
			h.wake <- struct{}{}
		}
	}
	p.work(0)
	for _, h := range helpers {
		if h.state.CompareAndSwap(called, waiting) { // it is late
			p.running.Add(-1)
		}
	}
	if len(helpers) > 0 && !p.spin(&p.running) && p.running.Add(sleeping) != sleeping {
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
	p.closed.Store(true)
	for _, h := range p.helpers {
		if h.state.Swap(called) == asleep {
			h.wake <- struct{}{}
		}
	}
	p.helpers = nil
	p.threads = 1
}
