package digits

import (
	"math"
	"testing"
)

func TestGroup(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", 45000: "45,000", 11173962: "11,173,962",
		-1: "-1", -999: "-999", -1000: "-1,000", -123456: "-123,456",
		math.MaxInt64: "9,223,372,036,854,775,807", math.MinInt64: "-9,223,372,036,854,775,808",
	} {
		if got := Group(n); got != want {
			t.Errorf("Group(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestBinary(t *testing.T) {
	for _, c := range []struct {
		n    int64
		want float64
		unit string
	}{
		{0, 0, "B"}, {1023, 1023, "B"}, {1024, 1, "K"}, {1536, 1.5, "K"}, {1 << 20, 1, "M"}, {5 << 30, 5 << 10, "M"},
	} {
		if got, unit := Binary(c.n, "B", "K", "M"); got != c.want || unit != c.unit {
			t.Errorf("Binary(%d) = %v %s, want %v %s", c.n, got, unit, c.want, c.unit)
		}
	}
}
