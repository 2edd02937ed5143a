package dataset

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"

	"github.com/residual-ml/residual/internal/random"
)

// key identifies a picture by its content: the first 16 bytes of a SHA-256.
type key [16]byte

// keyed is implemented by data sets that know their pictures' keys without
// decoding them.
type keyed interface{ key(i int) key }

// keyOf returns the key of picture i: over its bytes as they are stored, or as
// decoded, or over its name where it cannot be decoded.
func keyOf(d Dataset, i int) key {
	if k, ok := d.(keyed); ok {
		return k.key(i)
	}
	var m Image
	if err := d.Image(i, &m); err != nil {
		return shorten(sha256.Sum256([]byte(d.Name(i))))
	}
	return shorten(sha256.Sum256(m.Pix))
}

func shorten(sum [sha256.Size]byte) key { return key(sum[:len(key{})]) }

// subset is some of a data set's pictures in a given order.
type subset struct {
	of      Dataset
	indices []int
}

// Subset returns the pictures of d at the given indices, in that order. An
// index may occur more than once. It panics when an index is out of range.
func Subset(d Dataset, indices []int) Dataset {
	for _, i := range indices {
		if i < 0 || i >= d.Len() {
			panic("dataset: Subset: index out of range")
		}
	}
	return &subset{d, slices.Clone(indices)}
}

func (s *subset) Len() int                      { return len(s.indices) }
func (s *subset) Label(i int) int               { return s.of.Label(s.indices[i]) }
func (s *subset) Image(i int, dst *Image) error { return s.of.Image(s.indices[i], dst) }
func (s *subset) Name(i int) string             { return s.of.Name(s.indices[i]) }
func (s *subset) key(i int) key                 { return keyOf(s.of, s.indices[i]) }

// Split holds n pictures of d out, each class in proportion (largest remainder
// first), and returns the others and those, both in the order of d. Which
// pictures are held out depends on their content and the seed and not on their
// order or names; equal pictures of a class rank side by side. n is limited to
// 0..d.Len(), classes is the number of classes.
func Split(d Dataset, n int, classes int, seed uint64) (rest, held Dataset) {
	n = max(0, min(n, d.Len()))
	type ranked struct {
		index int
		rank  uint64
		key   key
	}
	pictures := make([]ranked, d.Len())
	each(d.Len(), func(i int) {
		k := keyOf(d, i)
		s := random.Make(seed, random.Name("split"), binary.LittleEndian.Uint64(k[:]), binary.LittleEndian.Uint64(k[8:]))
		pictures[i] = ranked{i, s.Uint64(), k}
	})
	byClass := make([][]ranked, classes)
	for _, p := range pictures {
		c := d.Label(p.index)
		byClass[c] = append(byClass[c], p)
	}
	quotas := quotas(byClass, n, d.Len(), func(class []ranked) int { return len(class) })

	isHeld := make([]bool, d.Len())
	for c, class := range byClass {
		slices.SortStableFunc(class, func(a, b ranked) int {
			return cmp.Or(cmp.Compare(a.rank, b.rank), bytes.Compare(a.key[:], b.key[:]))
		})
		for _, p := range class[:quotas[c]] {
			isHeld[p.index] = true
		}
	}
	var out, kept []int
	for i, h := range isHeld {
		if h {
			out = append(out, i)
		} else {
			kept = append(kept, i)
		}
	}
	return &subset{d, kept}, &subset{d, out}
}

// quotas divides n among groups in proportion to their sizes, which sum to
// total: whole parts, then one more to the largest remainders.
func quotas[G any](groups []G, n, total int, size func(G) int) []int {
	quotas := make([]int, len(groups))
	if total == 0 {
		return quotas
	}
	order := make([]int, len(groups))
	left := n
	for g := range groups {
		order[g] = g
		quotas[g] = n * size(groups[g]) / total
		left -= quotas[g]
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(n*size(groups[b])%total, n*size(groups[a])%total)
	})
	for _, g := range order[:left] {
		quotas[g]++
	}
	return quotas
}

// each calls do(0) … do(n-1), on all processors, in no order.
func each(n int, do func(i int)) {
	workers := min(n, runtime.GOMAXPROCS(0))
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	wait.Wait()
}

// Labels returns the labels of all pictures in order.
func Labels(d Dataset) []int {
	labels := make([]int, d.Len())
	for i := range labels {
		labels[i] = d.Label(i)
	}
	return labels
}

// ClassWeights returns the "balanced" weights of scikit-learn,
// n/(classes·count), by which each class contributes equally to a weighted sum.
// A class without pictures has weight 0. Labels must lie in [0,classes).
func ClassWeights(labels []int, classes int) []float32 {
	counts := make([]int, classes)
	for _, l := range labels {
		counts[l]++
	}
	weights := make([]float32, classes)
	for c, count := range counts {
		if count > 0 {
			weights[c] = float32(float64(len(labels)) / (float64(classes) * float64(count)))
		}
	}
	return weights
}
