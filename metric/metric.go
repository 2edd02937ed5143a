// Package metric measures classifiers: running means, accuracy, top-k, confusion
// counts, calibration, abstaining, paired tests and intervals. All arithmetic is
// float64; logits come as rows of float32, [N, classes] in row-major order, as engines
// return them.
package metric

import (
	"fmt"
	"math"
)

// Mean is a running weighted mean, such as the loss of an epoch weighted by
// batch size. Its fields are the whole state, so it can be saved and continued.
type Mean struct {
	Sum    float64 // Σ weight·value
	Weight float64 // Σ weight
}

// Add counts value with weight, the number of images it is the mean of.
func (m *Mean) Add(value, weight float64) {
	m.Sum += value * weight
	m.Weight += weight
}

// Value is Σ weight·value / Σ weight; NaN while nothing was added.
func (m Mean) Value() float64 { return m.Sum / m.Weight }

// Label is a Go type that holds class indices.
type Label interface {
	~int | ~int64 | ~int32 | ~uint8
}

// Rank returns how many classes come before label when the row of logits is
// sorted: 0 means that label is the prediction. Equal logits keep the order of
// their classes, so exactly one class has each rank and rank 0 is Argmax. A row
// with a NaN predicts nothing: its rank is len(row).
func Rank(row []float32, label int) int {
	rank := 0
	for class, v := range row {
		if v != v {
			return len(row)
		}
		if v > row[label] || v == row[label] && class < label {
			rank++
		}
	}
	return rank
}

// Argmax returns the class with the largest logit, the first of equals; -1 when
// the row has a NaN or nothing.
func Argmax(row []float32) int {
	best := -1
	for class, v := range row {
		if v != v {
			return -1
		}
		if best < 0 || v > row[best] {
			best = class
		}
	}
	return best
}

// CorrectTopK returns how many rows of logits [len(labels), classes] have their
// label among the k largest; k = 1 counts what accuracy counts. It checks sizes
// and labels.
func CorrectTopK[L Label](logits []float32, classes int, labels []L, k int) (int, error) {
	if k < 1 {
		return 0, fmt.Errorf("metric: top-%d, want at least 1", k)
	}
	k = min(k, classes) // or the rank of a row with NaN would count
	correct := 0
	err := eachRow(logits, classes, labels, func(row []float32, label int) {
		if Rank(row, label) < k {
			correct++
		}
	})
	return correct, err
}

// Correct is CorrectTopK with k = 1: divided by the number of labels it is the
// accuracy, Keras's sparse_categorical_accuracy.
func Correct[L Label](logits []float32, classes int, labels []L) (int, error) {
	return CorrectTopK(logits, classes, labels, 1)
}

// eachRow calls f for each row, after it has checked all of them.
func eachRow[L Label](logits []float32, classes int, labels []L, f func(row []float32, label int)) error {
	if classes < 1 || len(logits) != classes*len(labels) {
		return fmt.Errorf("metric: %d logits for %d labels, want %d·%d", len(logits), len(labels), len(labels), classes)
	}
	for i, label := range labels {
		if int(label) < 0 || int(label) >= classes {
			return fmt.Errorf("metric: label %d of row %d, want 0 to %d", label, i, classes-1)
		}
	}
	for i, label := range labels {
		f(logits[i*classes:(i+1)*classes], int(label))
	}
	return nil
}

// Wilson returns the 95 % score interval of a proportion, of which correct of
// total was seen (Wilson 1927, "Probable inference, the law of succession, and
// statistical inference"):
//
//	(p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n),  z = 1.95996…
//
// Unlike p ± z·√(p(1-p)/n) it stays within [0,1] and holds for small n. With
// total 0 nothing is known: 0 and 1.
func Wilson(correct, total int) (low, high float64) {
	if total <= 0 {
		return 0, 1
	}
	n := float64(total)
	p := float64(correct) / n
	center := p + z95*z95/(2*n)
	half := z95 * math.Sqrt(p*(1-p)/n+z95*z95/(4*n*n))
	scale := 1 + z95*z95/n
	return max(0, (center-half)/scale), min(1, (center+half)/scale)
}
