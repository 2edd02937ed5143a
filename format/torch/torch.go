// Package torch reads and writes the weights that PyTorch's torch.save keeps in
// .pth, .pt and .th files:
//
//   - zip archives (PyTorch 1.6 and later): stored entries NAME/data.pkl, a pickle
//     that refers to NAME/data/0, NAME/data/1, …; NAME/byteorder, NAME/version;
//   - the stream before that: pickles of a magic number, a version, the writing
//     system, the object, the storages' names; then the storages.
//
// A pickle is a program. The one interpreter here knows tensors, dictionaries,
// lists, tuples, text and numbers; every other class or function is refused by
// its name, so that reading a file executes nothing of it. What a file claims is
// compared with its size before memory is taken.
//
// torch.serialization in https://github.com/pytorch/pytorch is the only
// specification of either layout.
package torch

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/tensor"
)

// File is what a file of PyTorch holds.
type File struct {
	// Tensors are those of the state_dict in its order. They share nothing with
	// each other, whatever they shared in PyTorch.
	Tensors []safetensors.Named
	// Key is where the state_dict lies in a checkpoint dictionary, such as
	// "state_dict" or "model.ema"; empty when it is the whole file.
	Key string
	// Others are what else the dictionary holds, with the kind of each value.
	Others []string
	// Layout says which of the two layouts it is, for people.
	Layout string
	// Extra is a text that Write kept beside the tensors; PyTorch ignores it.
	Extra map[string]string
}

// keys are the names under which checkpoints keep a state_dict, in the order in
// which they are tried.
var keys = []string{"state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params", "state_dict_ema", "model_ema", "ema"}

// ReadFile reads the state_dict of the file at path.
func ReadFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("torch: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("torch: %w", err)
	}
	file, err := Read(f, info.Size())
	if err != nil {
		return nil, hint.Wrap(fmt.Errorf("torch: %w", err), hint.Of(err))
	}
	return file, nil
}

// stateDict finds the dictionary of tensors in what was saved.
func stateDict(saved any) (d *dict, key string, others []string, err error) {
	top, ok := saved.(*dict)
	if !ok {
		return nil, "", nil, fmt.Errorf("the file holds %s, want a dictionary of tensors or one that has it", kind(saved))
	}
	holds := map[*dict]bool{} // one dictionary may be in a file a million times
	holdsTensors := func(d *dict) bool {
		if _, known := holds[d]; !known {
			holds[d] = d.holdsTensors()
		}
		return holds[d]
	}
	if holdsTensors(top) {
		return top, "", nonTensors(top), nil
	}
	inside := func(d *dict, prefix string) (found *dict, at string) {
		for _, key := range keys {
			if v, ok := d.get(key); ok {
				if nested, ok := v.(*dict); ok && holdsTensors(nested) {
					return nested, prefix + key
				}
			}
		}
		candidates := 0
		for _, e := range d.entries {
			name, isText := e.key.(string)
			if nested, ok := e.value.(*dict); ok && isText && holdsTensors(nested) {
				found, at = nested, prefix+name
				candidates++
			}
		}
		if candidates != 1 { // one and no other: that is it, whatever its name
			return nil, ""
		}
		return found, at
	}
	if d, key = inside(top, ""); d == nil {
		for _, k := range keys { // {"model": {"state_dict": …}}
			if v, ok := top.get(k); ok {
				if nested, ok := v.(*dict); ok {
					if d, key = inside(nested, k+"."); d != nil {
						break
					}
				}
			}
		}
	}
	others = contents(top, key)
	if d == nil {
		return nil, "", nil, hint.Wrap(fmt.Errorf("no state_dict: the dictionary holds %s", few(others)),
			`in Python: torch.save(model.state_dict(), "weights.pth")`)
	}
	return d, key, others, nil
}

// holdsTensors reports whether the values of d are tensors, with a few exceptions.
func (d *dict) holdsTensors() bool {
	n := 0
	for _, e := range d.entries {
		if _, ok := e.value.(*lazy); ok {
			n++
		}
	}
	return n > 0 && 2*n > len(d.entries)
}

// mostListed bounds how many keys of a dictionary are listed: a pickle that remembers
// one long key can have it a million times.
const mostListed = 1000

// nonTensors lists the keys of d whose values are no tensors.
func nonTensors(d *dict) []string {
	var names []string
	for _, e := range d.entries {
		if _, ok := e.value.(*lazy); !ok && len(names) < mostListed {
			names = append(names, fmt.Sprintf("%s (%s)", plain(e.key), kind(e.value)))
		}
	}
	return names
}

// contents lists the keys of d but for the one that was taken.
func contents(d *dict, but string) []string {
	var names []string
	for _, e := range d.entries[:min(mostListed, len(d.entries))] {
		if name, ok := e.key.(string); ok && (name == but || strings.HasPrefix(but, name+".")) {
			continue
		}
		text := fmt.Sprintf("%s (%s)", plain(e.key), kind(e.value))
		switch v := e.value.(type) {
		case int64, float64, bool:
			text = fmt.Sprintf("%s %v", plain(e.key), v)
		case string:
			text = fmt.Sprintf("%s %.40q", plain(e.key), v)
		}
		names = append(names, text)
	}
	return names
}

// load makes tensors of a state_dict's entries.
func load(d *dict, fileSize int64) ([]safetensors.Named, error) {
	// Tensors may share storages, so that they take more memory than the file.
	total := int64(0)
	for _, e := range d.entries {
		if t, ok := e.value.(*lazy); ok {
			total += int64(t.elements()) * int64(t.storage.dtype.Size())
		}
	}
	if most := 4*fileSize + 1<<16; total > most {
		return nil, fmt.Errorf("the tensors share storages and would take %d bytes, more than four times the file's %d", total, fileSize)
	}
	var out []safetensors.Named
	seen := map[string]bool{}
	reader := &storageReader{}
	for _, e := range d.entries {
		t, ok := e.value.(*lazy)
		if !ok {
			continue
		}
		name, ok := e.key.(string)
		if !ok {
			return nil, fmt.Errorf("a tensor has the key %v, want text", e.key)
		}
		if seen[name] {
			return nil, fmt.Errorf("tensor %q: duplicate name", name)
		}
		seen[name] = true
		value, err := reader.tensor(t)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		out = append(out, safetensors.Named{Name: name, Tensor: value})
	}
	return out, nil
}

// plain writes a number, a bool, the beginning of a text or a tuple of such; of other
// values only what they are.
func plain(v any) string {
	switch v := v.(type) {
	case int64, float64, bool, tuple:
		return fmt.Sprint(v)
	case string:
		return fmt.Sprintf("%.100s", v)
	}
	return kind(v)
}

// kind names what a value is, for people.
func kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case *lazy:
		return "a tensor"
	case *dict:
		return fmt.Sprintf("a dictionary of %d", len(v.entries))
	case *list:
		return fmt.Sprintf("a list of %d", len(v.items))
	case tuple:
		return fmt.Sprintf("a tuple of %d", len(v))
	case string:
		return "text"
	case int64, bigInt, float64:
		return "a number"
	case bool:
		return "a bool"
	case function:
		return "the class " + v.String()
	case *storage:
		return "a storage"
	}
	return fmt.Sprintf("%T", v)
}

func few(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	if len(names) > 6 {
		names = append(slices.Clone(names[:6]), fmt.Sprintf("and %d more", len(names)-6))
	}
	return strings.Join(names, ", ")
}

// storages are PyTorch's classes of storages with the type of their elements.
var storages = map[string]tensor.DType{
	"FloatStorage": tensor.Float32, "DoubleStorage": tensor.Float64, "HalfStorage": tensor.Float16, "BFloat16Storage": tensor.BFloat16,
	"LongStorage": tensor.Int64, "IntStorage": tensor.Int32, "ShortStorage": tensor.Int16, "CharStorage": tensor.Int8,
	"ByteStorage": tensor.Uint8, "BoolStorage": tensor.Bool,
}

func storageClass(d tensor.DType) string {
	for name, dtype := range storages {
		if dtype == d {
			return name
		}
	}
	return ""
}
