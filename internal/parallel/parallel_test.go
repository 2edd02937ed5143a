package parallel

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
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

func TestForDoesNotAllocate(t *testing.T) {
	p := New(3)
	defer p.Close()
	var sum atomic.Int64
	body := func(_, task int) { sum.Add(int64(task)) }
	if n := testing.AllocsPerRun(100, func() { p.For(16, body) }); n != 0 {
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

func BenchmarkFor(b *testing.B) {
	p := New(2)
	defer p.Close()
	body := func(_, _ int) {}
	for b.Loop() {
		p.For(2, body)
	}
}
