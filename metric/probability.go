package metric

import "math"

// Softmax writes the probabilities of a row of logits at a temperature to dst,
// which has the row's length:
//
//	dst[k] = exp(row[k]/T) / Σ_j exp(row[j]/T)
//
// T = 1 is the softmax itself; above 1 it is flatter, the prediction is the same
// (Guo et al. 2017, https://arxiv.org/abs/1706.04599). A row with NaN or +∞ gives NaN.
func Softmax(dst []float64, row []float32, temperature float64) {
	top := largest(row)
	sum := 0.0
	for k, v := range row {
		dst[k] = math.Exp((float64(v) - top) / temperature)
		sum += dst[k]
	}
	for k := range dst {
		dst[k] /= sum
	}
}

// CrossEntropy is -log of the label's probability in Softmax, in nats, computed
// from the logits so that it is exact where the probability rounds to 0 or 1.
func CrossEntropy(row []float32, label int, temperature float64) float64 {
	top := largest(row)
	sum := 0.0
	for _, v := range row {
		sum += math.Exp((float64(v) - top) / temperature)
	}
	return math.Log(sum) - (float64(row[label])-top)/temperature
}

// largest is the largest logit, NaN when the row has a NaN.
func largest(row []float32) float64 {
	top := math.Inf(-1)
	for _, v := range row {
		top = math.Max(top, float64(v)) // Max keeps a NaN
	}
	return top
}

// Sample is the running mean and variance of numbers, such as the losses of
// single pictures (Welford 1962, "Note on a method for calculating corrected sums
// of squares and products"). Its fields are the whole state.
type Sample struct {
	N       int
	Mean    float64
	Squares float64 // Σ (x - mean)²
}

// Add counts x.
func (s *Sample) Add(x float64) {
	s.N++
	d := x - s.Mean
	s.Mean += d / float64(s.N)
	s.Squares += d * (x - s.Mean)
}

// Deviation is the standard deviation, by N-1: NaN of fewer than two numbers.
func (s Sample) Deviation() float64 {
	if s.N < 2 {
		return math.NaN()
	}
	return math.Sqrt(s.Squares / float64(s.N-1))
}

// Interval returns the 95 % interval of the mean that the central limit theorem
// gives, mean ± z·s/√n with s² = Σ(x-mean)²/(n-1). It is NaN for fewer than two
// numbers, and too narrow for fewer than about 30.
func (s Sample) Interval() (low, high float64) {
	half := z95 * math.Sqrt(s.Squares/float64(s.N-1)/float64(s.N))
	if s.N < 2 {
		half = math.NaN()
	}
	return s.Mean - half, s.Mean + half
}

// IntervalOfFew returns the 95 % interval of the mean of few numbers that scatter
// normally, such as the accuracies of runs with several seeds: mean ± t·s/√n, with
// Student's t for n-1 degrees of freedom (Student 1908, "The probable error of a
// mean"). It is NaN for fewer than two numbers.
func (s Sample) IntervalOfFew() (low, high float64) {
	if s.N < 2 {
		return math.NaN(), math.NaN()
	}
	half := student95(s.N-1) * s.Deviation() / math.Sqrt(float64(s.N))
	return s.Mean - half, s.Mean + half
}

// student95 is the 97.5 % quantile of Student's distribution. The probability of what
// lies within ±t is, with θ = atan(t/√ν), a finite sum (Abramowitz & Stegun 26.7.3,
// 26.7.4):
//
//	odd ν    2/π·(θ + sin θ·(cos θ + 2/3·cos³θ + … + 2·4⋯(ν-3)/(3·5⋯(ν-2))·cos^(ν-2)θ))
//	even ν   sin θ·(1 + 1/2·cos²θ + … + 1·3⋯(ν-3)/(2·4⋯(ν-2))·cos^(ν-2)θ)
func student95(freedom int) float64 {
	within := func(theta float64) float64 {
		sin, cos := math.Sincos(theta)
		odd := freedom % 2
		term := math.Pow(cos, float64(odd))
		sum := term
		for k := 2 + odd; k <= freedom-2; k += 2 {
			term *= float64(k-1) / float64(k) * cos * cos
			sum += term
		}
		switch {
		case freedom == 1:
			return 2 / math.Pi * theta
		case odd == 1:
			return 2 / math.Pi * (theta + sin*sum)
		}
		return sin * sum
	}
	low, high := 0.0, math.Pi/2
	for range 60 {
		if middle := (low + high) / 2; within(middle) < 0.95 {
			low = middle
		} else {
			high = middle
		}
	}
	return math.Sqrt(float64(freedom)) * math.Tan(low)
}

// z95 is the 97.5 % quantile of the normal distribution.
const z95 = 1.959963984540054
