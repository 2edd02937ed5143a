package report

import (
	"image"
	"image/color"
	"slices"
	"strings"
	"testing"
)

func tile(width, height int, c color.NRGBA) Tile {
	p := image.NewNRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		copy(p.Pix[4*i:], []uint8{c.R, c.G, c.B, 255})
	}
	return Tile{Picture: p}
}

// Every tile is where it belongs, of the size that its kind has, and nothing is
// painted over another.
func TestSheet(t *testing.T) {
	red, blue := color.NRGBA{200, 0, 0, 255}, color.NRGBA{0, 0, 200, 255}
	heights := map[int]int{}
	for _, c := range []struct{ size, want, captions int }{{32, 96, 1}, {84, 84, 1}, {160, 160, 1}, {300, 160, 1}, {300, 160, 0}, {300, 160, 3}} {
		s := Sheet{Title: "pictures", Subtitle: "how", Columns: []string{"first", "second"}}
		for range 3 {
			s.Rows = append(s.Rows, SheetRow{Name: "class\nname", Detail: "picture 1", Tiles: []Tile{tile(c.size, c.size, red), tile(c.size, c.size, blue)}})
		}
		s.Rows[1].Tiles[1].Captions = slices.Repeat([]string{strings.Repeat("a very long caption ", 20)}, c.captions)
		out, err := s.Draw()
		if err != nil {
			t.Fatal(err)
		}
		heights[c.captions] = out.Bounds().Dy()
		counts := map[color.NRGBA]int{}
		box := map[color.NRGBA]image.Rectangle{}
		for y := range out.Bounds().Dy() {
			for x := range out.Bounds().Dx() {
				at := out.At(x, y).(color.NRGBA)
				counts[at]++
				box[at] = box[at].Union(image.Rect(x, y, x+1, y+1))
			}
		}
		for _, colour := range []color.NRGBA{red, blue} {
			if counts[colour] != 3*c.want*c.want || box[colour].Dx() != c.want {
				t.Errorf("pictures of %d pixels: %d of one colour in %v, want 3·%d²", c.size, counts[colour], box[colour], c.want)
			}
		}
		if box[red].Max.X+tileGap != box[blue].Min.X {
			t.Errorf("columns at %v and %v", box[red], box[blue])
		}
		if counts[color.NRGBA{255, 255, 255, 255}] < out.Bounds().Dx()*sheetMargin {
			t.Error("no margin is white")
		}
	}
	if one, three := heights[1]-heights[0], heights[3]-heights[1]; one != 3*(2+captionLine) || three != 3*2*captionLine {
		t.Errorf("three rows take %d pixels for a line below pictures, and %d for two more", one, three)
	}
}

func TestSheetRefuses(t *testing.T) {
	one := tile(8, 8, color.NRGBA{A: 255})
	for want, s := range map[string]Sheet{
		"0 rows":             {Columns: []string{"a"}},
		"0 columns":          {Rows: []SheetRow{{}}},
		"has 1 pictures":     {Columns: []string{"a", "b"}, Rows: []SheetRow{{Tiles: []Tile{one}}}},
		"are empty":          {Columns: []string{"a"}, Rows: []SheetRow{{Tiles: []Tile{{Picture: image.NewNRGBA(image.Rectangle{})}}}}},
		"pixels, want at mo": {Columns: slices.Repeat([]string{"a"}, 400), Rows: []SheetRow{{Tiles: slices.Repeat([]Tile{one}, 400)}}},
	} {
		if _, err := s.Draw(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
