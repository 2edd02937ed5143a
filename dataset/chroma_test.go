package dataset

import (
	"strings"
	"testing"

	"github.com/residual-ml/residual/golden"
)

// Pictures have Pillow's pixels (golden/pictures.py). Only JPEG's inverse cosine
// transform rounds otherwise in Go: by one level of luma or chroma, of which blue
// gets 1.772. Chroma that is repeated instead of interpolated is off by 31 levels
// here, and by 9.4 on average.
func TestPicturesAreThoseOfPillow(t *testing.T) {
	for _, g := range golden.Load(t, "pictures").Pictures {
		var m Image
		if err := DecodeImage(g.File, &m); err != nil {
			t.Errorf("%s: %v", g.Op, err)
			continue
		}
		if height, width := int(g.Values[0]), int(g.Values[1]); m.Height != height || m.Width != width || m.Channels != 3 || len(m.Pix) != len(g.Bytes) {
			t.Errorf("%s: %d×%d×%d, want %d×%d×3", g.Op, m.Height, m.Width, m.Channels, height, width)
			continue
		}
		largest, sum := 0, 0
		for i, v := range m.Pix {
			d := max(int(v)-int(g.Bytes[i]), int(g.Bytes[i])-int(v))
			largest, sum = max(largest, d), sum+d
		}
		allowed, mean := 0, 0.0
		if strings.HasPrefix(g.Op, "jpeg") {
			allowed, mean = 3, 0.1
		}
		if got := float64(sum) / float64(len(m.Pix)); largest > allowed || got > mean {
			t.Errorf("%s: differs by %d levels at most and %.3f on average, want %d and %.3f", g.Op, largest, got, allowed, mean)
		} else {
			t.Logf("%s: %d, %.3f", g.Op, largest, got)
		}
	}
}
