// Package digits writes counts and sizes for people.
package digits

import "strconv"

// Group writes 11173962 as 11,173,962.
func Group[T int | int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Binary returns a number in the largest of units, each 1024 times the one before, in which
// it is at least 1.
func Binary[T int | int64](n T, units ...string) (value float64, unit string) {
	value, unit = float64(n), units[0]
	for _, next := range units[1:] {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	return value, unit
}
