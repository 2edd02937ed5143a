package metric

import "math"

// Paired counts how two classifiers, A and B, did on the same pictures.
type Paired struct {
	Both    int `json:"both_right"`
	OnlyA   int `json:"only_a_right"`
	OnlyB   int `json:"only_b_right"`
	Neither int `json:"both_wrong"`
}

// Add counts a picture.
func (p *Paired) Add(a, b bool) {
	switch {
	case a && b:
		p.Both++
	case a:
		p.OnlyA++
	case b:
		p.OnlyB++
	default:
		p.Neither++
	}
}

// Images is the number of pictures.
func (p Paired) Images() int { return p.Both + p.OnlyA + p.OnlyB + p.Neither }

// Difference is B's accuracy less A's.
func (p Paired) Difference() float64 { return float64(p.OnlyB-p.OnlyA) / float64(p.Images()) }

// Interval returns the 95 % interval of the difference by Agresti & Min (2005,
// "Simple improved confidence intervals for comparing matched proportions"):
// Wald's interval after half a picture was added to each of the four counts. With
// b = OnlyA + ½, c = OnlyB + ½, n = Images + 2:
//
//	(c-b)/n ± z·√(b+c - (c-b)²/n) / n
//
// Its centre is shrunk a little towards 0 in comparison with Difference.
func (p Paired) Interval() (low, high float64) {
	b, c, n := float64(p.OnlyA)+0.5, float64(p.OnlyB)+0.5, float64(p.Images())+2
	half := z95 * math.Sqrt(b+c-(c-b)*(c-b)/n) / n
	return max(-1, (c-b)/n-half), min(1, (c-b)/n+half)
}

// PValue is that of McNemar's test in its exact form: were both equally good, each
// picture that only one gets right would be A's or B's like a coin's side, and
// this is the probability of a split at least as uneven as the one seen, on
// either side. 1 when they never differ.
func (p Paired) PValue() float64 {
	n, k := p.OnlyA+p.OnlyB, min(p.OnlyA, p.OnlyB)
	if 2*k == n {
		return 1
	}
	logChoose := func(k int) float64 {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(k + 1))
		c, _ := math.Lgamma(float64(n - k + 1))
		return a - b - c
	}
	// Σ_{i≤k} C(n,i)/2ⁿ from its largest term down: C(n,i-1) = C(n,i)·i/(n-i+1).
	term := math.Exp(logChoose(k) - float64(n)*math.Ln2)
	sum := 0.0
	for i := k; i >= 0 && term > sum*1e-18; i-- {
		sum += term
		term *= float64(i) / float64(n-i+1)
	}
	return min(1, 2*sum)
}
