package metric

import (
	"fmt"
	"slices"
)

// Confusion counts pictures by true and predicted class.
type Confusion struct {
	classes int
	counts  []int // [true][predicted], classes+1 columns: the last is "nothing", a row with NaN
}

// NewConfusion returns an empty table.
func NewConfusion(classes int) *Confusion {
	return &Confusion{classes: classes, counts: make([]int, classes*(classes+1))}
}

// AddLogits counts the predictions of rows of logits, [len(labels), classes];
// when it returns an error nothing was counted.
func AddLogits[L Label](c *Confusion, logits []float32, labels []L) error {
	return eachRow(logits, c.classes, labels, func(row []float32, label int) {
		c.add(label, Argmax(row))
	})
}

// Add counts one picture; predicted is -1 for none, as Argmax says it.
func (c *Confusion) Add(truth, predicted int) error {
	if truth < 0 || truth >= c.classes || predicted < -1 || predicted >= c.classes {
		return fmt.Errorf("metric: class %d predicted as %d, want 0 to %d", truth, predicted, c.classes-1)
	}
	c.add(truth, predicted)
	return nil
}

func (c *Confusion) add(truth, predicted int) {
	if predicted < 0 {
		predicted = c.classes
	}
	c.counts[truth*(c.classes+1)+predicted]++
}

// Classes is the number of classes.
func (c *Confusion) Classes() int { return c.classes }

// Count is the number of pictures of class truth that were taken for predicted.
func (c *Confusion) Count(truth, predicted int) int {
	return c.counts[truth*(c.classes+1)+predicted]
}

// Total is the number of pictures counted, those without a prediction included.
func (c *Confusion) Total() int {
	n := 0
	for _, v := range c.counts {
		n += v
	}
	return n
}

// Correct is the sum of the diagonal.
func (c *Confusion) Correct() int {
	n := 0
	for class := range c.classes {
		n += c.Count(class, class)
	}
	return n
}

// ClassCounts is what the table says about one class.
type ClassCounts struct {
	Support   int // pictures of the class
	Predicted int // pictures taken for it
	Correct   int // both
}

// Recall is the accuracy on the class's pictures; NaN when there is none.
func (c ClassCounts) Recall() float64 { return float64(c.Correct) / float64(c.Support) }

// Precision is the part of the predictions that is right; NaN when the class was
// never predicted.
func (c ClassCounts) Precision() float64 { return float64(c.Correct) / float64(c.Predicted) }

// F1 is the harmonic mean of precision and recall, 2·correct/(support+predicted);
// NaN when the class neither occurs nor was predicted.
func (c ClassCounts) F1() float64 {
	return 2 * float64(c.Correct) / float64(c.Support+c.Predicted)
}

// PerClass returns the counts of each class.
func (c *Confusion) PerClass() []ClassCounts {
	out := make([]ClassCounts, c.classes)
	for truth := range c.classes {
		for predicted := range c.classes {
			n := c.Count(truth, predicted)
			out[truth].Support += n
			out[predicted].Predicted += n
		}
		out[truth].Support += c.Count(truth, c.classes)
		out[truth].Correct = c.Count(truth, truth)
	}
	return out
}

// ConfusedPair is a cell beside the diagonal.
type ConfusedPair struct{ Truth, Predicted, Count int }

// MostConfused returns up to n cells beside the diagonal that are not empty, the
// largest first, equal ones by class.
func (c *Confusion) MostConfused(n int) []ConfusedPair {
	var pairs []ConfusedPair
	for truth := range c.classes {
		for predicted := range c.classes {
			if count := c.Count(truth, predicted); count > 0 && truth != predicted {
				pairs = append(pairs, ConfusedPair{truth, predicted, count})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b ConfusedPair) int { return b.Count - a.Count })
	return pairs[:min(n, len(pairs))]
}

// Macro are means over classes, each class alike.
type Macro struct{ Precision, Recall, F1 float64 }

// Macro returns the means over those classes of which a value exists, as
// scikit-learn's average="macro" with zero_division=nan. The mean recall is also
// called balanced accuracy.
func (c *Confusion) Macro() Macro {
	var precision, recall, f1 Mean
	add := func(m *Mean, v float64) {
		if v == v {
			m.Add(v, 1)
		}
	}
	for _, class := range c.PerClass() {
		add(&precision, class.Precision())
		add(&recall, class.Recall())
		add(&f1, class.F1())
	}
	return Macro{precision.Value(), recall.Value(), f1.Value()}
}
