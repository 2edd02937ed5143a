package dataset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/bmp"

	"github.com/residual-ml/residual/golden"
)

// quadrants is 6×4: red and green above, blue and white below.
func quadrants() *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, 6, 4))
	for y := range 4 {
		for x := range 6 {
			m.Set(x, y, []color.RGBA{{255, 0, 0, 255}, {0, 255, 0, 255}, {0, 0, 255, 255}, {255, 255, 255, 255}}[y/2*2+x/3])
		}
	}
	return m
}

// corners names the colours at the four corners, clockwise from top left.
func corners(m *Image) string {
	name := func(x, y int) string {
		p := m.Pix[(y*m.Width+x)*m.Channels:][:3]
		// JPEG is not exact.
		return string([]byte{"kr"[p[0]/128], "kg"[p[1]/128], "kb"[p[2]/128]})
	}
	return strings.Join([]string{name(0, 0), name(m.Width-1, 0), name(m.Width-1, m.Height-1), name(0, m.Height-1)}, " ")
}

// tiff is an EXIF block with an orientation and nothing else.
func tiff(order binary.AppendByteOrder, orientation uint16) []byte {
	b := []byte("II*\x00")
	if order.String() == "BigEndian" {
		b = []byte("MM\x00*")
	}
	b = order.AppendUint32(b, 8)           // first directory
	b = order.AppendUint16(b, 1)           // entries
	b = order.AppendUint16(b, 0x0112)      // Orientation
	b = order.AppendUint16(b, 3)           // SHORT
	b = order.AppendUint32(b, 1)           // one
	b = order.AppendUint16(b, orientation) // left-justified in four bytes
	b = order.AppendUint16(b, 0)
	return order.AppendUint32(b, 0)
}

func jpegOf(t testing.TB, m image.Image, exif []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 100}); err != nil {
		t.Fatal(err)
	}
	if exif == nil {
		return b.Bytes()
	}
	segment := append([]byte("Exif\x00\x00"), exif...)
	head := binary.BigEndian.AppendUint16([]byte{0xff, 0xd8, 0xff, 0xe1}, uint16(len(segment)+2))
	return append(append(head, segment...), b.Bytes()[2:]...)
}

// withEXIF adds an eXIf chunk behind a PNG's header.
func withEXIF(data, exif []byte) []byte {
	const afterHeader = 8 + 25
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(exif)))
	body := append([]byte("eXIf"), exif...)
	chunk = append(chunk, body...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(body))
	return append(append(bytes.Clone(data[:afterHeader]), chunk...), data[afterHeader:]...)
}

func TestOrientation(t *testing.T) {
	const r, g, b, w = "rkk", "kgk", "kkb", "rgb"
	// Stored red, green / blue, white: what is seen, clockwise from top left.
	// Stored clockwise that is r g w b.
	want := map[uint16][]string{
		1: {r, g, w, b}, 2: {g, r, b, w}, 3: {w, b, r, g}, 4: {b, w, g, r},
		5: {r, b, w, g}, 6: {b, r, g, w}, 7: {w, g, r, b}, 8: {g, w, b, r},
		0: {r, g, w, b}, 9: {r, g, w, b}, // not defined: as stored
	}
	for o, colours := range want {
		for name, data := range map[string][]byte{
			"jpeg little": jpegOf(t, quadrants(), tiff(binary.LittleEndian, o)),
			"jpeg big":    jpegOf(t, quadrants(), tiff(binary.BigEndian, o)),
			"png":         withEXIF(pngOf(t, quadrants()), tiff(binary.BigEndian, o)),
		} {
			var m Image
			if err := DecodeImage(data, &m); err != nil {
				t.Fatal(err)
			}
			if got, want := corners(&m), strings.Join(colours, " "); got != want {
				t.Errorf("%s, orientation %d: corners %s, want %s", name, o, got, want)
			}
			height, width := 4, 6
			if o >= 5 && o <= 8 {
				height, width = 6, 4
			}
			if m.Height != height || m.Width != width {
				t.Errorf("%s, orientation %d: %d×%d, want %d×%d", name, o, m.Height, m.Width, height, width)
			}
			if head, err := decodeHeader(data); err != nil {
				t.Error(err)
			} else if h, w := head.size(); h != height || w != width {
				t.Errorf("%s, orientation %d: header says %d×%d", name, o, h, w)
			}
		}
	}
}

// Damaged metadata do not keep a sound picture from being read.
func TestDamagedEXIF(t *testing.T) {
	for _, exif := range [][]byte{[]byte("II*\x00"), []byte("garbage garbage"), tiff(binary.LittleEndian, 6)[:12], append([]byte("II*\x00\xff\xff\xff\xff"), make([]byte, 20)...)} {
		var m Image
		if err := DecodeImage(jpegOf(t, quadrants(), exif), &m); err != nil || m.Width != 6 {
			t.Errorf("%q: %v", exif, err)
		}
	}
}

func TestFormats(t *testing.T) {
	palette := color.Palette{color.RGBA{255, 0, 0, 255}, color.RGBA{0, 255, 0, 255}, color.RGBA{0, 0, 255, 255}, color.White}
	paletted := image.NewPaletted(image.Rect(0, 0, 6, 4), palette)
	draw.Draw(paletted, paletted.Rect, quadrants(), image.Point{}, draw.Src)
	deep := image.NewRGBA64(paletted.Rect)
	draw.Draw(deep, deep.Rect, quadrants(), image.Point{}, draw.Src)
	translucent := image.NewNRGBA64(paletted.Rect)
	draw.Draw(translucent, deep.Rect, quadrants(), image.Point{}, draw.Src)
	translucent.SetNRGBA64(3, 2, color.NRGBA64{}) // an unseen one makes PNG keep the alpha

	var asGIF, asBMP bytes.Buffer
	if err := gif.EncodeAll(&asGIF, &gif.GIF{Image: []*image.Paletted{paletted, image.NewPaletted(paletted.Rect, palette)}, Delay: []int{1, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := bmp.Encode(&asBMP, quadrants()); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"png": pngOf(t, quadrants()), "palette png": pngOf(t, paletted), "16-bit png": pngOf(t, deep), "16-bit alpha png": pngOf(t, translucent),
		"animated gif": asGIF.Bytes(), "bmp": asBMP.Bytes(), "jpeg": jpegOf(t, quadrants(), nil),
	} {
		var m Image
		if err := LoadImage(bytes.NewReader(data), 0, &m); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.Height != 4 || m.Width != 6 || m.Channels != 3 || corners(&m) != "rkk kgk rgb kkb" {
			t.Errorf("%s: %d×%d×%d, corners %s", name, m.Height, m.Width, m.Channels, corners(&m))
		}
	}
}

// losslessWebP writes the picture red-blue / blue-blue, 2×2, as WebP: Go has no
// encoder. The bit stream (RFC 9649, section 3) has no transforms and a prefix
// code of at most two symbols per channel.
func losslessWebP(exif []byte) []byte {
	var bits []bool
	put := func(value, n int) {
		for i := range n {
			bits = append(bits, value>>i&1 == 1)
		}
	}
	put(0x2f, 8)
	put(2-1, 14)
	put(2-1, 14)
	put(0, 1+3)                                     // no alpha, version
	put(0, 3)                                       // no transform, colour cache, groups
	one := func(s int) { put(0b101, 3); put(s, 8) } // simple, one symbol, eight bits
	two := func() { put(0b011, 3); put(0, 1); put(255, 8) }
	one(0)   // green
	two()    // red
	two()    // blue
	one(255) // alpha
	one(0)   // distance
	for _, red := range []int{1, 0, 0, 0} {
		put(red, 1)
		put(1-red, 1)
	}
	stream := make([]byte, (len(bits)+7)/8)
	for i, b := range bits {
		if b {
			stream[i/8] |= 1 << (i % 8)
		}
	}
	body := []byte("WEBP")
	if exif != nil {
		body = append(body, chunk("VP8X", []byte{8, 0, 0, 0, 1, 0, 0, 1, 0, 0})...)
	}
	body = append(body, chunk("VP8L", stream)...)
	if exif != nil {
		body = append(body, chunk("EXIF", exif)...)
	}
	return chunk("RIFF", body)
}

func TestWebP(t *testing.T) {
	for want, exif := range map[string][]byte{
		"rkk kkb kkb kkb": nil,
		"kkb rkk kkb kkb": tiff(binary.LittleEndian, 6), // a quarter turn clockwise
	} {
		var m Image
		if err := DecodeImage(losslessWebP(exif), &m); err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		if got := corners(&m); got != want {
			t.Errorf("corners %s, want %s", got, want)
		}
	}
}

// animatedWebP has the picture of losslessWebP for its only frame, at a place on a
// canvas.
func animatedWebP(canvas, at image.Point) []byte {
	u24 := func(n int) []byte { return []byte{byte(n), byte(n >> 8), byte(n >> 16)} }
	head := slices.Concat([]byte{2, 0, 0, 0}, u24(canvas.X-1), u24(canvas.Y-1))
	frame := slices.Concat(u24(at.X/2), u24(at.Y/2), u24(2-1), u24(2-1), u24(100), []byte{0})
	frame = append(frame, losslessWebP(nil)[12:]...)
	return chunk("RIFF", slices.Concat([]byte("WEBP"), chunk("VP8X", head), chunk("ANIM", make([]byte, 6)), chunk("ANMF", frame)))
}

func TestWebPFrameSmallerThanCanvas(t *testing.T) {
	var m Image
	if err := DecodeImage(animatedWebP(image.Pt(5, 4), image.Pt(2, 2)), &m); err != nil {
		t.Fatal(err)
	}
	want := ""
	for y := range 4 {
		for x := range 5 {
			switch {
			case x == 2 && y == 2:
				want += "\xff\x00\x00"
			case x >= 2 && x < 4 && y >= 2:
				want += "\x00\x00\xff"
			default:
				want += "\xff\xff\xff"
			}
		}
	}
	if m.Height != 4 || m.Width != 5 || string(m.Pix) != want {
		t.Errorf("%d×%d, % x, want % x", m.Height, m.Width, m.Pix, want)
	}
}

func TestBadAnimatedWebP(t *testing.T) {
	whole := animatedWebP(image.Pt(4, 4), image.Pt(2, 2))
	for name, data := range map[string][]byte{
		"outside":  animatedWebP(image.Pt(4, 4), image.Pt(4, 2)),
		"no frame": whole[:12+18],
		"cut":      whole[:len(whole)-4],
		"huge":     bytes.Replace(whole, []byte{1, 0, 0, 1, 0, 0, 100}, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 100}, 1),
	} {
		if err := DecodeImage(data, &Image{}); err == nil || !strings.Contains(err.Error(), "broken webp picture: ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestGIFFrameSmallerThanScreen(t *testing.T) {
	frame := image.NewPaletted(image.Rect(1, 1, 3, 2), color.Palette{color.Black, color.Transparent})
	frame.Pix[1] = 1
	var b bytes.Buffer
	err := gif.EncodeAll(&b, &gif.GIF{Image: []*image.Paletted{frame}, Delay: []int{0}, Config: image.Config{Width: 4, Height: 3, ColorModel: frame.Palette}})
	if err != nil {
		t.Fatal(err)
	}
	var m Image
	if err := DecodeImage(b.Bytes(), &m); err != nil {
		t.Fatal(err)
	}
	if m.Width != 4 || m.Height != 3 {
		t.Fatalf("%d×%d, want 3×4", m.Height, m.Width)
	}
	for p := range 12 {
		want := uint8(255)
		if p == 5 {
			want = 0
		}
		if m.Pix[3*p] != want {
			t.Errorf("pixel %d is %d, want %d", p, m.Pix[3*p], want)
		}
	}
}

func TestTransparencyIsWhite(t *testing.T) {
	m := image.NewNRGBA(image.Rect(0, 0, 3, 1))
	m.SetNRGBA(0, 0, color.NRGBA{200, 100, 0, 0})
	m.SetNRGBA(1, 0, color.NRGBA{200, 100, 0, 51}) // a fifth
	m.SetNRGBA(2, 0, color.NRGBA{200, 100, 0, 255})
	var got Image
	if err := DecodeImage(pngOf(t, m), &got); err != nil {
		t.Fatal(err)
	}
	want := []int{255, 255, 255, 244, 224, 204, 200, 100, 0}
	for i, v := range got.Pix {
		if math.Abs(float64(int(v)-want[i])) > 1 {
			t.Fatalf("pixels %v, want %v", got.Pix, want)
		}
	}
}

func TestGrey(t *testing.T) {
	eight := image.NewGray(image.Rect(0, 0, 2, 1))
	eight.Pix = []byte{7, 250}
	deep := image.NewGray16(eight.Rect)
	deep.SetGray16(0, 0, color.Gray16{0x07ff})
	deep.SetGray16(1, 0, color.Gray16{0xfa00})
	for _, m := range []image.Image{eight, deep} {
		got := Image{Pix: make([]uint8, 0, 64)}
		if err := DecodeImage(pngOf(t, m), &got); err != nil {
			t.Fatal(err)
		}
		if got.Channels != 1 || !bytes.Equal(got.Pix, []byte{7, 250}) {
			t.Errorf("%T: %+v", m, got)
		}
		got.ToRGB()
		if got.Channels != 3 || !bytes.Equal(got.Pix, []byte{7, 7, 7, 250, 250, 250}) {
			t.Errorf("%T as RGB: %+v", m, got)
		}
		got.ToGrey()
		if got.Channels != 1 || !bytes.Equal(got.Pix, []byte{7, 250}) {
			t.Errorf("%T and back: %+v", m, got)
		}
	}
	red := Image{Height: 1, Width: 1, Channels: 3, Pix: []uint8{255, 0, 0}}
	if red.ToGrey(); red.Pix[0] != 76 { // 0.299·255
		t.Errorf("red is %d", red.Pix[0])
	}
}

// The Go distribution's own pictures: CMYK and progressive JPEG and the like,
// each with a PNG of what it should look like.
func TestToolchainPictures(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("no go command: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src", "image", "testdata")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no picture files with this Go: %v", err)
	}
	load := func(name string) (m Image) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := DecodeImage(data, &m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		m.ToRGB()
		return m
	}
	for name, test := range map[string]struct {
		reference string
		tolerance float64 // mean absolute difference
	}{
		"video-001.cmyk.jpeg":        {"video-001.cmyk.png", 8},
		"video-001.rgb.jpeg":         {"video-001.rgb.png", 8},
		"video-001.progressive.jpeg": {"video-001.png", 8},
		"video-001.interlaced.gif":   {"video-001.png", 16},
		"video-005.gray.jpeg":        {"video-005.gray.png", 8},
	} {
		got, want := load(name), load(test.reference)
		if got.Height != want.Height || got.Width != want.Width {
			t.Errorf("%s: %d×%d, want %d×%d", name, got.Height, got.Width, want.Height, want.Width)
			continue
		}
		sum := 0.0
		for i := range got.Pix {
			sum += math.Abs(float64(got.Pix[i]) - float64(want.Pix[i]))
		}
		if mean := sum / float64(len(got.Pix)); mean > test.tolerance {
			t.Errorf("%s: differs from %s by %.1f on average", name, test.reference, mean)
		}
	}
	for _, name := range []string{"video-001.progressive.truncated.jpeg"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := DecodeImage(data[:len(data)/2], &Image{}); err == nil {
			t.Errorf("half of %s was decoded", name)
		}
	}
}

// bigPNG is a PNG that claims width×height and has no pixels.
func bigPNG(width, height uint32) []byte {
	b := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d")
	body := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	body = binary.BigEndian.AppendUint32(body, height)
	body = append(body, 8, 2, 0, 0, 0)
	b = append(b, body...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(body))
}

func TestBadPictures(t *testing.T) {
	whole := jpegOf(t, quadrants(), nil)
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"empty":     {nil, "not a picture in a known format"},
		"text":      {[]byte("hello"), "not a picture in a known format"},
		"cut":       {whole[:len(whole)-30], "broken jpeg picture"},
		"cut head":  {whole[:30], "broken picture header"},
		"too large": {bigPNG(20_000, 5_001), "20000×5001, more than 100 million pixels"},
		"too long":  {bigPNG(1, 65_536), "1×65536, more than 65535 pixels on one side"},
		"overflow":  {bigPNG(1<<31-1, 1<<31-1), "pixels"},
		"no pixels": {bigPNG(10_000, 10_000), "broken png picture"},
		"zero":      {bigPNG(0, 10), "broken"},
	} {
		err := DecodeImage(test.data, &Image{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			// Which check refuses absurd dimensions is the decoder's business.
			if name != "overflow" || err == nil {
				t.Errorf("%s: error %v, want %q", name, err, test.want)
			}
		}
	}
	err := LoadImage(bytes.NewReader(whole), int64(len(whole)-1), &Image{})
	wantError(t, err, fmt.Sprintf("larger than %d bytes", len(whole)-1))
}

func FuzzDecodeImage(f *testing.F) {
	f.Add(jpegOf(f, quadrants(), tiff(binary.LittleEndian, 6)))
	f.Add(withEXIF(pngOf(f, quadrants()), tiff(binary.BigEndian, 5)))
	var asGIF, asBMP bytes.Buffer
	if err := gif.Encode(&asGIF, quadrants(), nil); err != nil {
		f.Fatal(err)
	}
	if err := bmp.Encode(&asBMP, quadrants()); err != nil {
		f.Fatal(err)
	}
	f.Add(asGIF.Bytes())
	f.Add(losslessWebP(tiff(binary.LittleEndian, 6)))
	f.Add(asBMP.Bytes())
	f.Add(animatedWebP(image.Pt(5, 4), image.Pt(2, 2)))
	for _, g := range golden.Load(f, "pictures").Pictures {
		f.Add(g.File)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, _, err := image.DecodeConfig(bytes.NewReader(data)); err == nil && c.Width > 1<<20/max(c.Height, 1) {
			t.Skip("large pictures are slow and tell nothing more")
		}
		var m Image
		if err := DecodeImage(data, &m); err != nil {
			return
		}
		if m.Height <= 0 || m.Width <= 0 || len(m.Pix) != m.Height*m.Width*m.Channels || m.Channels != 1 && m.Channels != 3 {
			t.Fatalf("%d×%d×%d in %d bytes", m.Height, m.Width, m.Channels, len(m.Pix))
		}
		head, err := decodeHeader(data)
		if err != nil {
			t.Fatal(err)
		}
		if h, w := head.size(); h != m.Height || w != m.Width {
			t.Fatalf("decoded %d×%d, header says %d×%d", m.Height, m.Width, h, w)
		}
	})
}

// A decoder that panics, in the header or behind it, is a picture that cannot be read.
func TestDecoderPanics(t *testing.T) {
	fail := func(io.Reader) (image.Image, error) { panic("a mistake") }
	image.RegisterFormat("mistaken", "MISTAKEN", fail, func(io.Reader) (image.Config, error) { panic("a mistake") })
	image.RegisterFormat("sound header", "SOUNDHEADER", fail, func(io.Reader) (image.Config, error) { return image.Config{Width: 2, Height: 2}, nil })
	for _, head := range []string{"MISTAKEN", "SOUNDHEADER"} {
		dir := t.TempDir()
		photos(t, dir, 2, "cat", "dog")
		write(t, filepath.Join(dir, "cat", "odd.png"), []byte(head))
		data, err := Open(t.Context(), dir, Options{OnBadImage: badImageSkip})
		if err != nil {
			t.Fatal(err)
		}
		if s := data.Origin.Skipped; len(s) != 1 || !strings.Contains(s[0], "the decoder failed: a mistake") {
			t.Errorf("%s: skipped %q", head, s)
		}
	}
}
