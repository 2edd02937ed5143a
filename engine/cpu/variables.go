package cpu

import (
	"fmt"
	"slices"

	"github.com/residual-ml/residual/tensor"
)

// variables is the engine's store.
type variables struct {
	names  []string
	byName map[string]*variable
	broken error // what ended an update half-way; nobody gets what it left
}

type variable struct {
	shape tensor.Shape
	data  []float32 // stays where it is: programs hold it
	// version counts changes, so that programs repack weights only when needed.
	version uint64
}

// Names returns the names in the order of creation.
func (v *variables) Names() []string { return slices.Clone(v.names) }

// Get returns a float32 copy.
func (v *variables) Get(name string) (tensor.Tensor, error) {
	if v.broken != nil {
		return tensor.Tensor{}, v.broken
	}
	x := v.byName[name]
	if x == nil {
		return tensor.Tensor{}, fmt.Errorf("cpu: variable %q does not exist", name)
	}
	return tensor.Of(slices.Clone(x.data), x.shape...), nil
}

// Set creates or overwrites a variable.
func (v *variables) Set(name string, t tensor.Tensor) error {
	if !t.Valid() || (t.DType() != tensor.Float32 && t.DType() != tensor.Float64) {
		return fmt.Errorf("cpu: variable %q: set from %v, want float32 or float64", name, t.DType())
	}
	x, err := v.open(name, t.Shape())
	if err != nil {
		return err
	}
	if t.DType() == tensor.Float64 {
		t = t.Convert(tensor.Float32)
	}
	copy(x.data, t.Float32s())
	x.version++
	return nil
}

// open returns the variable of that name, created with zeros if need be.
func (v *variables) open(name string, shape tensor.Shape) (*variable, error) {
	if v.broken != nil {
		return nil, v.broken
	}
	x := v.byName[name]
	if x == nil {
		x = &variable{shape: slices.Clone(shape), data: allocate(shape.Elements()), version: 1}
		v.byName[name] = x
		v.names = append(v.names, name)
	}
	if !x.shape.Equal(shape) {
		return nil, fmt.Errorf("cpu: variable %q has shape %v, want %v", name, x.shape, shape)
	}
	return x, nil
}
