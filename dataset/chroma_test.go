package dataset

import (
	"encoding/json"
	"os"
	"testing"
)

type goldenPicture struct {
	Name          string
	File, Pixels  []byte
	Height, Width int
}

func goldenPictures(t testing.TB) []goldenPicture {
	t.Helper()
	text, err := os.ReadFile("../golden/pictures.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []goldenPicture
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("golden/pictures.json has no pictures")
	}
	return all
}

// Pictures have Pillow's pixels (golden/pictures.py). Only JPEG's inverse cosine
// transform rounds otherwise in Go: by one level of luma or chroma, of which blue
// gets 1.772. Chroma that is repeated instead of interpolated is off by 31 levels
// here, and by 9.4 on average.
func TestPicturesAreThoseOfPillow(t *testing.T) {
	for _, g := range goldenPictures(t) {
		var m Image
		if err := DecodeImage(g.File, &m); err != nil {
			t.Errorf("%s: %v", g.Name, err)
			continue
		}
		if m.Height != g.Height || m.Width != g.Width || m.Channels != 3 || len(m.Pix) != len(g.Pixels) {
			t.Errorf("%s: %d×%d×%d, want %d×%d×3", g.Name, m.Height, m.Width, m.Channels, g.Height, g.Width)
			continue
		}
		largest, sum := 0, 0
		for i, v := range m.Pix {
			d := max(int(v)-int(g.Pixels[i]), int(g.Pixels[i])-int(v))
			largest, sum = max(largest, d), sum+d
		}
		allowed, mean := 0, 0.0
		if g.Name[:4] == "jpeg" {
			allowed, mean = 3, 0.1
		}
		if got := float64(sum) / float64(len(m.Pix)); largest > allowed || got > mean {
			t.Errorf("%s: differs by %d levels at most and %.3f on average, want %d and %.3f", g.Name, largest, got, allowed, mean)
		} else {
			t.Logf("%s: %d, %.3f", g.Name, largest, got)
		}
	}
}
