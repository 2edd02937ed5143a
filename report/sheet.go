package report

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"

	scale "golang.org/x/image/draw"
	xfont "golang.org/x/image/font"
	"golang.org/x/image/math/fixed"
	"gonum.org/v1/plot/font"
)

// Sheet is a table of pictures: a row for each, with a name, and a column for each of
// its forms.
type Sheet struct {
	Title, Subtitle string
	Columns         []string // headings
	Rows            []SheetRow
}

// SheetRow is a row of a Sheet, with as many tiles as the sheet has columns.
type SheetRow struct {
	Name, Detail string
	Tiles        []Tile
}

// Tile is a picture and the lines that stand below it, if any.
type Tile struct {
	Picture  image.Image
	Captions []string
}

// Measures of a sheet, in pixels. Small pictures are enlarged by a whole number,
// to at least minTile, and large ones reduced to maxTile.
const (
	sheetMargin = 28
	tileGap     = 8
	captionLine = 14
	minTile     = 84
	maxTile     = 160
	maxSheet    = 1 << 14 // on a side
)

// Draw paints the sheet on white. A sheet without pictures, with rows of another
// length than its headings, or too large to paint is an error.
func (s Sheet) Draw() (image.Image, error) {
	if len(s.Rows) == 0 || len(s.Columns) == 0 {
		return nil, fmt.Errorf("report: a sheet of %d rows and %d columns", len(s.Rows), len(s.Columns))
	}
	captions := 0         // of the picture with most
	width, height := 0, 0 // of the largest picture
	for i, r := range s.Rows {
		if len(r.Tiles) != len(s.Columns) {
			return nil, fmt.Errorf("report: row %d of a sheet has %d pictures, want %d", i, len(r.Tiles), len(s.Columns))
		}
		for _, t := range r.Tiles {
			captions = max(captions, len(t.Captions))
			width, height = max(width, t.Picture.Bounds().Dx()), max(height, t.Picture.Bounds().Dy())
		}
	}
	if width == 0 || height == 0 {
		return nil, fmt.Errorf("report: the pictures of a sheet are empty")
	}
	zoom := 1.0
	switch long := max(width, height); {
	case long < minTile:
		zoom = float64((minTile + long - 1) / long)
	case long > maxTile:
		zoom = float64(maxTile) / float64(long)
	}
	tileW, tileH := max(1, int(float64(width)*zoom)), max(1, int(float64(height)*zoom))

	p := painter{}
	if err := p.open(); err != nil {
		return nil, err
	}
	names := 0
	for _, r := range s.Rows {
		names = max(names, p.width(p.bold, r.Name), p.width(p.small, r.Detail))
	}
	below := 0
	if captions > 0 {
		below = 2 + captionLine*captions
	}
	left := sheetMargin + names + 18
	top := sheetMargin + 52 + 22
	all := image.Rect(0, 0, left+len(s.Columns)*(tileW+tileGap)-tileGap+sheetMargin, top+len(s.Rows)*(tileH+below+tileGap)-tileGap+sheetMargin)
	all.Max.X = max(all.Max.X, 2*sheetMargin+max(p.width(p.title, s.Title), p.width(p.small, s.Subtitle)))
	if all.Dx() > maxSheet || all.Dy() > maxSheet {
		return nil, fmt.Errorf("report: a sheet of %d×%d pixels, want at most %d on a side", all.Dx(), all.Dy(), maxSheet)
	}

	p.out = image.NewNRGBA(all)
	draw.Draw(p.out, all, image.White, image.Point{}, draw.Src)
	p.write(p.title, inkColor, sheetMargin, sheetMargin+14, s.Title)
	p.write(p.small, softColor, sheetMargin, sheetMargin+34, s.Subtitle)
	for c, heading := range s.Columns {
		x := left + c*(tileW+tileGap)
		p.write(p.small, softColor, x+(tileW-p.width(p.small, heading))/2, top-9, heading)
	}
	for i, r := range s.Rows {
		y := top + i*(tileH+below+tileGap)
		p.write(p.bold, inkColor, left-18-p.width(p.bold, r.Name), y+tileH/2-1, r.Name)
		p.write(p.small, softColor, left-18-p.width(p.small, r.Detail), y+tileH/2+14, r.Detail)
		for c, t := range r.Tiles {
			x := left + c*(tileW+tileGap)
			p.paste(t.Picture, zoom, x, y)
			for line, caption := range t.Captions {
				caption = p.fit(p.small, caption, tileW)
				p.write(p.small, softColor, x+(tileW-p.width(p.small, caption))/2, y+tileH+12+captionLine*line, caption)
			}
		}
	}
	return p.out, nil
}

// painter writes and pastes on a sheet.
type painter struct {
	out                *image.NRGBA
	title, bold, small xfont.Face
}

func (p *painter) open() error {
	for _, f := range []struct {
		face   *xfont.Face
		size   font.Length
		weight xfont.Weight
	}{{&p.title, 17, xfont.WeightBold}, {&p.bold, 13, xfont.WeightBold}, {&p.small, 11, xfont.WeightNormal}} {
		want := sans(f.size)
		want.Weight = f.weight
		face := font.DefaultCache.Lookup(want, f.size)
		if face.Face == nil {
			return fmt.Errorf("report: there is no font %v", want)
		}
		*f.face = face.FontFace(72)
	}
	return nil
}

func (p *painter) width(face xfont.Face, text string) int {
	return xfont.MeasureString(face, oneLine(text)).Ceil()
}

// fit shortens a text until it is no wider than so many pixels.
func (p *painter) fit(face xfont.Face, text string, width int) string {
	if p.width(face, text) <= width {
		return text
	}
	runes := []rune(text)
	for len(runes) > 0 && p.width(face, string(runes)+"…") > width {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

// write sets a text with its baseline at (x,y).
func (p *painter) write(face xfont.Face, ink color.Color, x, y int, text string) {
	d := xfont.Drawer{Dst: p.out, Src: image.NewUniform(ink), Face: face, Dot: fixed.P(x, y)}
	d.DrawString(oneLine(text))
}

// paste puts a picture with its upper left corner at (x,y): every pixel a square when
// it is enlarged, averages when it is reduced.
func (p *painter) paste(picture image.Image, zoom float64, x, y int) {
	from := picture.Bounds()
	w, h := max(1, int(float64(from.Dx())*zoom)), max(1, int(float64(from.Dy())*zoom))
	to := image.Rect(x, y, x+w, y+h)
	if zoom >= 1 {
		scale.NearestNeighbor.Scale(p.out, to, picture, from, scale.Src, nil)
		return
	}
	scale.CatmullRom.Scale(p.out, to, picture, from, scale.Src, nil)
}
