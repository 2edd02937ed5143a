package metric

import (
	"cmp"
	"fmt"
	"math"
)

// Reliability compares what a classifier says of its predictions, the probability
// of the class it names, with how often they are right, in bins of equal width.
type Reliability struct {
	bins []ReliabilityBin
	n    int
}

// ReliabilityBin is the part of the predictions whose confidence lies in (Low,High],
// the first with 0.
type ReliabilityBin struct {
	Low, High  float64
	Count      int
	Correct    int
	Confidence float64 // mean; NaN when the bin is empty
	Accuracy   float64 // Correct/Count; NaN when the bin is empty
}

// NewReliability returns an empty table; 15 bins are usual.
func NewReliability(bins int) *Reliability {
	r := &Reliability{bins: make([]ReliabilityBin, bins)}
	for i := range r.bins {
		r.bins[i].Low, r.bins[i].High = float64(i)/float64(bins), float64(i+1)/float64(bins)
	}
	return r
}

// Add counts a prediction. What is no probability is refused.
func (r *Reliability) Add(confidence float64, correct bool) error {
	if !(confidence >= 0 && confidence <= 1) {
		return fmt.Errorf("metric: confidence %v, want a probability", confidence)
	}
	b := &r.bins[max(0, min(len(r.bins)-1, int(math.Ceil(confidence*float64(len(r.bins))))-1))]
	b.Count++
	b.Confidence += confidence
	if correct {
		b.Correct++
	}
	r.n++
	return nil
}

// Bins returns the table.
func (r *Reliability) Bins() []ReliabilityBin {
	bins := make([]ReliabilityBin, len(r.bins))
	for i, b := range r.bins {
		b.Accuracy = float64(b.Correct) / float64(b.Count)
		b.Confidence /= float64(b.Count)
		bins[i] = b
	}
	return bins
}

// ECE is the expected calibration error, Σ count/n·|accuracy - confidence| over
// bins (Naeini et al. 2015; Guo et al. 2017, equation 3). NaN without predictions.
// It depends on the number of bins and is biased upwards for few pictures.
func (r *Reliability) ECE() float64 {
	sum := 0.0
	for _, b := range r.bins {
		sum += math.Abs(float64(b.Correct) - b.Confidence)
	}
	return sum / float64(r.n)
}

// MCE is the maximum calibration error, the largest |accuracy - confidence| of a
// bin that is not empty (Guo et al. 2017, equation 5).
func (r *Reliability) MCE() float64 {
	most := math.NaN()
	for _, b := range r.bins {
		if gap := math.Abs(float64(b.Correct)-b.Confidence) / float64(b.Count); !(gap <= most) && b.Count > 0 {
			most = gap
		}
	}
	return most
}

// Brier is the squared distance of a row of probabilities from the label's
// one-hot row, Σ_k (p_k - [k = label])² (Brier 1950), from 0 to 2.
func Brier(probabilities []float64, label int) float64 {
	sum := 0.0
	for k, p := range probabilities {
		if k == label {
			p--
		}
		sum += p * p
	}
	return sum
}

// MinTemperature and MaxTemperature bound FitTemperature: labels that are all
// predicted right would want 0, those of a network that knows nothing infinity.
const (
	MinTemperature = 0.05
	MaxTemperature = 20
)

// FitTemperature returns the temperature with the least mean cross-entropy over
// rows of logits [len(labels), classes] (Guo et al. 2017, section 4.2), within
// MinTemperature and MaxTemperature. In β = 1/T the mean is convex, with the
// derivative
//
//	d/dβ = mean of (Σ_k p_k·z_k) - z_label,   p = softmax(β·z)
//
// whose zero Newton's method finds, kept inside a bracket that shrinks. Rows that
// are not finite are refused: they have no cross-entropy.
func FitTemperature[L Label](logits []float32, classes int, labels []L) (float64, error) {
	if len(labels) == 0 {
		return 0, fmt.Errorf("metric: no pictures to fit a temperature to")
	}
	var bad error
	err := eachRow(logits, classes, labels, func(row []float32, _ int) {
		for _, v := range row {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				bad = fmt.Errorf("metric: a logit is %v, no temperature fits that", v)
			}
		}
	})
	if err != nil || bad != nil {
		return 0, cmp.Or(err, bad)
	}
	slope := func(beta float64) (first, second float64) {
		_ = eachRow(logits, classes, labels, func(row []float32, label int) { // checked above
			top := largest(row)
			var sum, mean, square float64 // of exp, exp·z, exp·z², with z relative to the largest
			for _, v := range row {
				z := float64(v) - top
				e := math.Exp(beta * z)
				sum += e
				mean += e * z
				square += e * z * z
			}
			mean /= sum
			first += mean - (float64(row[label]) - top)
			second += square/sum - mean*mean
		})
		return first, second
	}
	low, high := 1/float64(MaxTemperature), 1/float64(MinTemperature)
	if first, _ := slope(low); first >= 0 {
		return MaxTemperature, nil
	}
	if first, _ := slope(high); first <= 0 {
		return MinTemperature, nil
	}
	beta := 1.0
	for range 100 {
		first, second := slope(beta)
		if first < 0 {
			low = beta
		} else {
			high = beta
		}
		next := beta - first/second
		if !(next > low && next < high) {
			next = (low + high) / 2
		}
		if math.Abs(next-beta) <= 1e-12*beta {
			beta = next
			break
		}
		beta = next
	}
	return 1 / beta, nil
}
