package dataset

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// Place is a picture of a split of a data set.
type Place struct {
	Split string `json:"split"`
	Index int    `json:"index"`
	Name  string `json:"name"`
	Label int    `json:"label"`
}

// Duplicates finds the pictures of all splits that have the same pixels (files:
// the same bytes). Each group has at least two pictures, training first, in
// order. All pictures are read once; the error names the first that cannot be.
func (d *Data) Duplicates() ([][]Place, error) {
	byKey := map[key][]Place{}
	var order []key
	for _, s := range []struct {
		name string
		set  Dataset
	}{{train, d.Train}, {validation, d.Validation}, {test, d.Test}} {
		if s.set == nil {
			continue
		}
		keys := make([]key, s.set.Len())
		errs := make([]error, s.set.Len())
		var next atomic.Int64
		var workers sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			workers.Go(func() {
				var m Image
				for i := int(next.Add(1)) - 1; i < len(keys); i = int(next.Add(1)) - 1 {
					if errs[i] = s.set.Image(i, &m); errs[i] == nil {
						keys[i] = keyOf(s.set, i)
					}
				}
			})
		}
		workers.Wait()
		for i, k := range keys {
			if errs[i] != nil {
				return nil, fmt.Errorf("%s split: %w", s.name, errs[i])
			}
			if byKey[k] == nil {
				order = append(order, k)
			}
			byKey[k] = append(byKey[k], Place{s.name, i, s.set.Name(i), s.set.Label(i)})
		}
	}
	var groups [][]Place
	for _, k := range order {
		if len(byKey[k]) > 1 {
			groups = append(groups, byKey[k])
		}
	}
	return groups, nil
}
