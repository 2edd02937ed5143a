package main

import (
	"slices"
	"testing"
)

// A mixed picture has a line for each of its classes, which narrow tiles have room
// for, and one where it is of one class alone.
func TestMixture(t *testing.T) {
	classes := []string{"cat", "dog"}
	for _, c := range []struct {
		first, second int32
		share         float64
		want          []string
	}{
		{0, 1, 0.62, []string{"62 % cat", "38 % dog"}},
		{1, 0, 0.994, []string{"99 % dog", "1 % cat"}},
		{1, 0, 0.996, []string{"100 % dog"}},
		{1, 0, 0.004, []string{"100 % cat"}},
		{1, 1, 0.5, []string{"100 % dog"}},
	} {
		if got := mixture(classes, c.first, c.second, c.share); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
