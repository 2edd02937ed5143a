package cpu

import (
	"encoding/json"
	"io"
	"time"
)

// A trace records what each worker did in the steps of runs: one event per step
// and worker, from its first task to its last.
type trace struct {
	began  time.Time
	limit  int
	worker []span // of the step that is running
	events []event
}

type span struct {
	first, last time.Time
	tasks       int
}

type event struct {
	step          string
	worker, tasks int
	start, length time.Duration
}

// StartTrace records the next runs of all programs of the engine, to so many
// events. Runs are slower while it does and allocate.
func (e *Engine) StartTrace(events int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trace = &trace{began: time.Now(), limit: events, worker: make([]span, e.pool.Threads())}
}

// StopTrace ends the recording and writes it in the Trace Event Format of Chrome,
// which chrome://tracing and https://ui.perfetto.dev open: times in microseconds,
// a row for each worker.
func (e *Engine) StopTrace(w io.Writer) error {
	e.mu.Lock()
	t := e.trace
	e.trace = nil
	e.mu.Unlock()
	type args struct {
		Tasks int `json:"tasks"`
	}
	type record struct {
		Name     string  `json:"name"`
		Phase    string  `json:"ph"`
		Start    float64 `json:"ts"`
		Duration float64 `json:"dur"`
		Process  int     `json:"pid"`
		Thread   int     `json:"tid"`
		Args     args    `json:"args"`
	}
	file := struct {
		Events []record `json:"traceEvents"`
		Unit   string   `json:"displayTimeUnit"`
	}{Events: []record{}, Unit: "ms"}
	if t != nil {
		for _, v := range t.events {
			file.Events = append(file.Events, record{Name: v.step, Phase: "X", Start: float64(v.start.Nanoseconds()) / 1e3,
				Duration: float64(v.length.Nanoseconds()) / 1e3, Process: 1, Thread: v.worker, Args: args{v.tasks}})
		}
	}
	return json.NewEncoder(w).Encode(file)
}

// run runs a step and records it, unless there are enough events.
func (t *trace) run(p *Program, s *step) {
	if len(t.events)+len(t.worker) > t.limit {
		p.engine.pool.For(s.tasks, s.body)
		return
	}
	clear(t.worker)
	p.engine.pool.For(s.tasks, func(worker, task int) {
		v := &t.worker[worker]
		if v.tasks == 0 {
			v.first = time.Now()
		}
		s.body(worker, task)
		v.tasks++
		v.last = time.Now()
	})
	for worker, v := range t.worker {
		if v.tasks > 0 {
			t.events = append(t.events, event{s.name, worker, v.tasks, v.first.Sub(t.began), v.last.Sub(v.first)})
		}
	}
}
