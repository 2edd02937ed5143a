// Package digits writes counts for people.
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
