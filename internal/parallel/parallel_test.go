package parallel

import (
	"errors"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Every task runs exactly once, whatever the numbers of threads and tasks.
func TestForRunsEveryTaskOnce(t *testing.T) {
	for _, threads := range []int{0, 1, 2, 3, 8} {
		p := New(threads)
		for _, n := range []int{0, 1, 2, 7, 1000} {
			count := make([]atomic.Int32, n)
			p.For(n, func(worker, task int) {
				if worker < 0 || worker >= p.Threads() {
					t.Errorf("worker %d of %d", worker, p.Threads())
				}
				count[task].Add(1)
			})
			for task := range count {
				if got := count[task].Load(); got != 1 {
					t.Fatalf("%d threads, %d tasks: task %d ran %d times", threads, n, task, got)
				}
			}
		}
		p.Close()
	}
}

// The same with helpers that look out, that are woken, and that fall asleep as they
// are called, also where threads are more than processors.
func TestForWhileHeld(t *testing.T) {
	for _, processors := range []int{1, 2, 4} {
		runtimeOf(t, processors)
		for _, threads := range []int{1, 2, 4, 8} {
			p := New(threads)
			var sum atomic.Int64
			want := int64(0)
			for round := range 300 {
				p.Hold()
				if eager := threads > 1 && threads <= processors; p.eager.Load() != eager {
					t.Fatalf("%d threads, %d processors: helpers look out: %v, want %v", threads, processors, !eager, eager)
				}
				for call := range 3 {
					n := round%5 + call
					p.For(n, func(_, task int) { sum.Add(int64(task) + 1) })
					want += int64(n * (n + 1) / 2)
				}
				if round%3 > 0 {
					if p.Release(); p.eager.Load() {
						t.Fatal("helpers look out after Release")
					}
				}
				if round%50 == 0 {
					time.Sleep(2 * lookOut) // all sleep
				}
			}
			if sum.Load() != want {
				t.Errorf("%d threads, %d processors: sum of tasks %d, want %d", threads, processors, sum.Load(), want)
			}
			p.Close()
		}
	}
}

// runtimeOf sets GOMAXPROCS for the rest of a test.
func runtimeOf(t testing.TB, processors int) {
	before := runtime.GOMAXPROCS(processors)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// Nobody uses a processor between runs: helpers fall asleep after Release, and while
// the pool is held too if nothing comes for long.
func TestHelpersFallAsleep(t *testing.T) {
	runtimeOf(t, 4)
	for _, release := range []bool{true, false} {
		p := New(4)
		p.Hold()
		p.For(100, func(_, _ int) {})
		if release {
			p.Release()
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			sleepers := 0
			for _, h := range p.helpers {
				if h.state.Load() == asleep {
					sleepers++
				}
			}
			if sleepers == 3 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("released %v: %d of 3 helpers sleep", release, sleepers)
			}
		}
		p.Close()
	}
}

// For does not wait for helpers that have not begun: here one that does not exist
// yet, and is woken once for two calls.
func TestForWaitsForNoLateHelper(t *testing.T) {
	h := &helper{wake: make(chan struct{}, 1)}
	h.state.Store(asleep)
	p := &Pool{threads: 2, helpers: []*helper{h}, done: make(chan struct{}, 1)}
	ran := 0
	for range 2 {
		p.For(4, func(worker, _ int) {
			if worker != 0 {
				t.Errorf("worker %d runs", worker)
			}
			ran++
		})
	}
	if ran != 8 || len(h.wake) != 1 {
		t.Errorf("%d tasks ran, want 8; the helper was woken %d times, want once", ran, len(h.wake))
	}
	began := make(chan struct{})
	go func() {
		<-h.wake
		close(began)
		p.serve(1, h)
	}()
	<-began
	var workers atomic.Int32
	p.For(2, func(_, _ int) { // both are needed
		workers.Add(1)
		for workers.Load() < 2 {
			runtime.Gosched()
		}
	})
	p.Close()
}

// For waits for helpers that have begun, asleep if it takes long.
func TestForWaitsForHelpers(t *testing.T) {
	runtimeOf(t, 2)
	p := New(2)
	defer p.Close()
	for round := range 20 {
		if round >= 10 {
			p.Hold()
		}
		var begun, ended atomic.Int32
		p.For(2, func(worker, _ int) {
			for begun.Add(1); begun.Load() < 2; { // one task each
				runtime.Gosched()
			}
			for worker == 1 && p.running.Load() < sleeping {
				runtime.Gosched()
			}
			ended.Add(1)
		})
		if ended.Load() != 2 {
			t.Fatalf("round %d: For returned after %d of 2 tasks", round, ended.Load())
		}
	}
}

func TestForDoesNotAllocate(t *testing.T) {
	p := New(3)
	defer p.Close()
	var sum atomic.Int64
	body := func(_, task int) { sum.Add(int64(task)) }
	if n := testing.AllocsPerRun(100, func() {
		p.Hold()
		p.For(16, body)
		p.Release()
	}); n != 0 {
		t.Errorf("For allocates %v times", n)
	}
	if sum.Load() != 101*120 {
		t.Errorf("sum = %d, want %d", sum.Load(), 101*120)
	}
}

func TestForPropagatesPanics(t *testing.T) {
	p := New(3)
	defer p.Close()
	for range 20 {
		func() {
			defer func() {
				err, _ := recover().(error)
				var failure *Panic
				if !errors.As(err, &failure) || failure.Value != "boom" || !strings.Contains(err.Error(), "task 5 panicked: boom") {
					t.Fatalf("recovered %v", err)
				}
			}()
			p.For(100, func(_, task int) {
				if task == 5 {
					panic("boom")
				}
			})
			t.Fatal("For returned")
		}()
	}
	ran := 0
	New(1).For(3, func(_, _ int) { ran++ }) // and the pool's kind still works
	p.For(1, func(_, _ int) { ran++ })
	if ran != 4 {
		t.Errorf("%d tasks ran after the panic, want 4", ran)
	}
}

// BenchmarkFor measures how long it takes until both workers have begun and ended.
func BenchmarkFor(b *testing.B) {
	for _, held := range []bool{false, true} {
		b.Run(map[bool]string{false: "sleeping", true: "held"}[held], func(b *testing.B) {
			runtimeOf(b, 2)
			p := New(2)
			defer p.Close()
			if held {
				p.Hold()
			}
			var begun atomic.Int32
			body := func(_, _ int) {
				for begun.Add(1); begun.Load() < 2; {
					pause()
				}
			}
			for b.Loop() {
				begun.Store(0)
				p.For(2, body)
			}
		})
	}
}
