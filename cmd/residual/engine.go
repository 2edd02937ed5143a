package main

import (
	"fmt"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/internal/hint"
)

// openEngine is the one place that knows all engines.
func openEngine(name string, threads int) (engine.Engine, error) {
	switch name {
	case "cpu":
		return cpu.New(cpu.Options{Threads: threads})
	case "ref":
		return ref.New(), nil
	}
	return nil, hint.Wrap(fmt.Errorf("engine %q is unknown", name), "engines: cpu, ref (float64 in plain loops, slow)")
}

// precisionOf is what an engine computes in, for the record.
func precisionOf(engineName string) string {
	if engineName == "ref" {
		return "float64"
	}
	return "float32"
}
