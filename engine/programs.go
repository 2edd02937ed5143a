package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Programs keeps one compiled program for each batch size it is asked for: the
// full one, and that of the last batch of an epoch. It is not safe for concurrent
// use.
type Programs struct {
	// Compile makes the program for a batch size, once.
	Compile func(batch int) (Program, error)

	bySize map[int]Program
}

// Get returns the program for a batch size.
func (p *Programs) Get(batch int) (Program, error) {
	if program := p.bySize[batch]; program != nil {
		return program, nil
	}
	program, err := p.Compile(batch)
	if err != nil {
		return nil, fmt.Errorf("compiling for batches of %d: %w", batch, err)
	}
	if p.bySize == nil {
		p.bySize = map[int]Program{}
	}
	p.bySize[batch] = program
	return program, nil
}

// Kernels says which implementation runs each operation of the largest batch, nil
// before the first Get.
func (p *Programs) Kernels() map[string]string {
	if len(p.bySize) == 0 {
		return nil
	}
	return p.bySize[slices.Max(slices.Collect(maps.Keys(p.bySize)))].Kernels()
}

// Close frees the programs; Get compiles them anew.
func (p *Programs) Close() error {
	var errs []error
	for _, program := range p.bySize {
		errs = append(errs, program.Close())
	}
	p.bySize = nil
	return errors.Join(errs...)
}
