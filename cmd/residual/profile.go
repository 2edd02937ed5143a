package main

import (
	"errors"
	"os"
	"runtime/pprof"

	"github.com/residual-ml/residual/engine"
	"github.com/residual-ml/residual/engine/cpu"
)

// profileHelp is the text of --profile.
const profileHelp = "write a processor profile for pprof to this file, and a timeline of the engine's steps beside it (.trace.json, for ui.perfetto.dev)"

// profileProcessor writes a profile of the processor to a file until stop is called.
func profileProcessor(path string) (stop func() error, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// profileSteps writes a timeline of the first steps that an engine runs to a file,
// when stop is called; of other engines than cpu nothing.
func profileSteps(path string, eng engine.Engine) (stop func() error, err error) {
	e, ok := eng.(*cpu.Engine)
	if !ok {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	const events = 100_000 // about 20 MB
	e.StartTrace(events)
	return func() error { return errors.Join(e.StopTrace(f), f.Close()) }, nil
}

// profile does both, with the timeline beside the profile.
func profile(path string, eng engine.Engine) (stop func() error, err error) {
	processor, err := profileProcessor(path)
	if err != nil {
		return nil, err
	}
	steps, err := profileSteps(path+".trace.json", eng)
	if err != nil {
		return nil, errors.Join(err, processor())
	}
	return func() error { return errors.Join(steps(), processor()) }, nil
}
