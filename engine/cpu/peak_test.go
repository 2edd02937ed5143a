package cpu

import (
	"testing"
	"time"
)

func TestPeak(t *testing.T) {
	e, err := New(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if peak := e.Peak(20 * time.Millisecond); !(peak > 0.01 && peak < 1e6) {
		t.Errorf("a peak of %v GFLOP/s", peak)
	}
}
