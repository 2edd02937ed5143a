// Package random derives independent streams of numbers from a seed and the
// coordinates of what is drawn: (seed, epoch, index), (seed, variable name).
// Because a stream is a pure function of its coordinates, resuming anywhere is
// a seek, never a replay, and results do not depend on threads. The generator
// is fixed here, so that no Go release changes a run.
package random

import (
	"math"
	"math/bits"
)

// Source is a SplitMix64 stream (Steele, Lea, Flood 2014,
// https://doi.org/10.1145/2714064.2660195). The zero Source is the stream of
// state 0; use New. It is not safe for concurrent use.
type Source struct{ state uint64 }

const gamma = 0x9e3779b97f4a7c15

// mix is SplitMix64's output function, a bijection of 64-bit words.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// New returns the stream that belongs to a seed and any number of coordinates.
// The order of coordinates matters.
func New(seed uint64, coordinates ...uint64) *Source {
	s := Make(seed, coordinates...)
	return &s
}

// Make is New without the allocation, for inner loops.
func Make(seed uint64, coordinates ...uint64) Source {
	h := mix(seed + gamma)
	for i, c := range coordinates {
		h = mix(h ^ mix(c+gamma*uint64(i+2)))
	}
	return Source{h}
}

// Name turns a name into a coordinate (FNV-1a, 64 bits).
func Name(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return h
}

// Uint64 returns 64 uniform bits.
func (s *Source) Uint64() uint64 {
	s.state += gamma
	return mix(s.state)
}

// Float64 returns a uniform number in [0,1) with 53 random bits.
func (s *Source) Float64() float64 { return float64(s.Uint64()>>11) * 0x1p-53 }

// Range returns a uniform number in [lo,hi).
func (s *Source) Range(lo, hi float64) float64 { return lo + (hi-lo)*s.Float64() }

// IntN returns a uniform integer in [0,n); n must be positive. Lemire's method
// without rejection: the bias is below n·2⁻⁶⁴.
func (s *Source) IntN(n int) int {
	hi, _ := bits.Mul64(s.Uint64(), uint64(n))
	return int(hi)
}

// Bool returns true with probability p.
func (s *Source) Bool(p float64) bool { return s.Float64() < p }

// Normal returns a standard normal number (Box–Muller, one of the pair).
func (s *Source) Normal() float64 {
	r := math.Sqrt(-2 * math.Log(1-s.Float64()))
	return r * math.Cos(2*math.Pi*s.Float64())
}

// Beta returns a number of the distribution Beta(a,b) for positive a and b: X/(X+Y)
// with X and Y of the gamma distributions of these shapes, in logarithms, which stay
// finite where X and Y are too small for a number.
func (s *Source) Beta(a, b float64) float64 {
	x, y := s.logGamma(a), s.logGamma(b)
	return 1 / (1 + math.Exp(y-x))
}

// logGamma returns the logarithm of a number of the gamma distribution (Marsaglia,
// Tsang 2000, https://doi.org/10.1145/358407.358414); below shape 1 by that of
// shape+1 times U^(1/shape).
func (s *Source) logGamma(shape float64) float64 {
	log := 0.0
	if shape < 1 {
		log = math.Log(1-s.Float64()) / shape
		shape++
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := s.Normal()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-s.Float64()) < 0.5*x*x+d-d*v+d*math.Log(v) {
			return log + math.Log(d*v)
		}
	}
}

// Shuffle permutes n elements through swap (Fisher–Yates, downwards).
func (s *Source) Shuffle(n int, swap func(i, j int)) {
	for i := n - 1; i > 0; i-- {
		swap(i, s.IntN(i+1))
	}
}

// Perm returns a permutation of 0..n-1.
func (s *Source) Perm(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	s.Shuffle(n, func(i, j int) { p[i], p[j] = p[j], p[i] })
	return p
}
