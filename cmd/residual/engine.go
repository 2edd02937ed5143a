package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/internal/hint"
)

// engineOptions choose the engine of a command that uses a trained network.
type engineOptions struct {
	engine, precision string
	threads           int
}

func (o *engineOptions) addFlags(f *pflag.FlagSet) {
	choiceFlag(f, &o.engine, "engine", "cpu, or ref: float64 in plain loops, slow", "cpu", "ref")
	precisionFlag(f, &o.precision, "float32", "bfloat16", "auto")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors)")
}

// openEngine opens the engine, and says in which precision.
func (o *engineOptions) openEngine() (eng engine.Engine, precision string, err error) {
	if precision, err = resolvePrecision(o.engine, o.precision); err != nil {
		return nil, "", err
	}
	eng, err = openPrecise(o.engine, precision, o.threads)
	return eng, precision, err
}

// openEngine is openPrecise for float32, or float64 of the reference engine.
func openEngine(name string, threads int) (engine.Engine, error) {
	return openPrecise(name, precisionOf(name), threads)
}

// openPrecise is the one place that knows all engines. precision is what
// resolvePrecision returns.
func openPrecise(name, precision string, threads int) (engine.Engine, error) {
	switch name {
	case "cpu":
		return cpu.New(cpu.Options{Threads: threads, Precision: precision})
	case "ref":
		return ref.New(), nil
	}
	return nil, hint.Wrap(fmt.Errorf("engine %q is unknown", name), "engines: cpu, ref (float64 in plain loops, slow)")
}

// precisionOf is what an engine computes in by default.
func precisionOf(engineName string) string {
	if engineName == "ref" {
		return "float64"
	}
	return "float32"
}

// precisionFlag adds --precision. The first of the values is the default.
func precisionFlag(f *pflag.FlagSet, value *string, allowed ...string) {
	choiceFlag(f, value, "precision", "of feature maps and of products in convolutions; auto: what is faster here", allowed...)
}

// resolvePrecision is what --precision makes of an engine: the record says it,
// never auto.
func resolvePrecision(engineName, precision string) (string, error) {
	switch {
	case engineName == "ref" && precision == "bfloat16":
		return "", usageError{errors.New("--precision bfloat16: the engine ref computes in float64 alone")}
	case engineName == "ref":
		return "float64", nil
	case precision == "auto":
		return cpu.AutoPrecision()
	}
	return precision, nil
}
