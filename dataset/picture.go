package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif" // decoders for image.Decode
	_ "image/jpeg"
	_ "image/png"
	"io"

	"github.com/bep/imagemeta"
	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/webp"
)

// Limits on one picture, checked before memory is taken for it.
const (
	// MaxPixels is the largest number of pixels DecodeImage accepts.
	MaxPixels = 100_000_000
	// MaxSide is the longest side DecodeImage accepts, which is JPEG's own limit. Without
	// it a small PNG, of one row or column of MaxPixels, takes gigabytes to resize.
	MaxSide = 65_535
	// MaxFileBytes is the largest picture file a folder or manifest may hold.
	MaxFileBytes = 256 << 20
)

// LoadImage reads one picture file of at most limit bytes (MaxFileBytes where
// limit is 0) from r and decodes it as DecodeImage does.
func LoadImage(r io.Reader, limit int64, dst *Image) error {
	data, err := readLimited(r, limit)
	if err != nil {
		return err
	}
	return DecodeImage(data, dst)
}

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	if limit <= 0 {
		limit = MaxFileBytes
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("picture file is larger than %d bytes", limit)
	}
	return data, nil
}

// DecodeImage decodes one picture file into dst: JPEG (also CMYK), PNG, GIF (its
// first frame), BMP or WebP (of an animation the first frame). The EXIF orientation is applied,
// transparency is composited on white, 16-bit samples keep their upper 8 bits.
// Colour profiles are ignored, so samples are taken as they are. Pictures in a
// grey format get one channel, all others three.
//
// It returns an error and leaves dst undefined when the format is none of
// these, the picture has more than MaxPixels or a side above MaxSide, or the data
// are broken.
func DecodeImage(data []byte, dst *Image) (err error) {
	defer decoderFailed(&err)
	head, err := decodeHeader(data)
	if err != nil {
		return err
	}
	screen := image.Rectangle{Max: head.stored}
	partial := head.format == "gif" // a first frame may cover only a part of the screen
	if isAnimated(data, head.format) {
		var frame image.Rectangle
		if data, frame, err = firstFrame(data); err == nil && !frame.In(screen) {
			err = fmt.Errorf("its first frame %v leaves the picture %v", frame, screen)
		}
		if err != nil {
			return fmt.Errorf("broken %s picture: %w", head.format, err)
		}
		screen, partial = screen.Sub(frame.Min), true
	}
	picture, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("broken %s picture: %w", head.format, err)
	}
	if size := picture.Bounds(); !partial && size != screen {
		return fmt.Errorf("broken %s picture: it is %d×%d, its header says %d×%d", head.format, size.Dx(), size.Dy(), screen.Dx(), screen.Dy())
	}
	if head.orientation == 1 {
		flatten(picture, screen, head.format, dst)
		return nil
	}
	var upright Image
	flatten(picture, screen, head.format, &upright)
	orient(&upright, head.orientation, dst)
	return nil
}

// decoderFailed, deferred, makes an error of a panic: a mistake of a decoder must not end
// a run.
func decoderFailed(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the decoder failed: %v", p)
	}
}

// header is what a picture's file says before its pixels are decoded.
type header struct {
	format      string
	stored      image.Point // width and height as stored, before orientation
	orientation int         // EXIF, 1..8
}

// size returns the height and width of the picture as it is to be seen.
func (h header) size() (height, width int) {
	if h.orientation >= 5 {
		return h.stored.X, h.stored.Y
	}
	return h.stored.Y, h.stored.X
}

func decodeHeader(data []byte) (h header, err error) {
	defer decoderFailed(&err)
	config, format, err := image.DecodeConfig(bytes.NewReader(data))
	switch {
	case errors.Is(err, image.ErrFormat):
		return header{}, errors.New("not a picture in a known format (JPEG, PNG, GIF, BMP, WebP)")
	case err != nil:
		return header{}, fmt.Errorf("broken picture header: %w", err)
	case config.Width <= 0 || config.Height <= 0:
		return header{}, fmt.Errorf("broken %s picture: it is %d×%d", format, config.Width, config.Height)
	case max(config.Width, config.Height) > MaxSide:
		return header{}, fmt.Errorf("%s picture is %d×%d, more than %d pixels on one side", format, config.Width, config.Height, MaxSide)
	case config.Width > MaxPixels/config.Height:
		return header{}, fmt.Errorf("%s picture is %d×%d, more than %d million pixels", format, config.Width, config.Height, MaxPixels/1_000_000)
	}
	return header{format, image.Pt(config.Width, config.Height), orientation(data, format)}, nil
}

// orientation returns the EXIF orientation of a file, 1 where it has none or
// its metadata are damaged: they must not keep a sound picture from being read.
func orientation(data []byte, format string) int {
	formats := map[string]imagemeta.ImageFormat{"jpeg": imagemeta.JPEG, "png": imagemeta.PNG, "webp": imagemeta.WebP}
	f, ok := formats[format]
	if !ok {
		return 1
	}
	found := 1
	_, _ = imagemeta.Decode(imagemeta.Options{
		R:           bytes.NewReader(data),
		ImageFormat: f,
		Sources:     imagemeta.EXIF,
		ShouldHandleTag: func(tag imagemeta.TagInfo) bool {
			return tag.Tag == "Orientation" && tag.Namespace == "IFD0"
		},
		HandleTag: func(tag imagemeta.TagInfo) error {
			if v, ok := tag.Value.(uint16); ok && 1 <= v && v <= 8 {
				found = int(v)
			}
			return imagemeta.ErrStopWalking
		},
	})
	return found
}

// flatten writes the part of src inside screen to dst without transparency, and
// white where src does not reach.
func flatten(src image.Image, screen image.Rectangle, format string, dst *Image) {
	width := screen.Dx()
	switch src := src.(type) {
	case *image.Gray:
		dst.reset(screen.Dy(), width, 1)
		for y := range dst.Height {
			copy(dst.Pix[y*width:][:width], src.Pix[y*src.Stride:])
		}
		return
	case *image.Gray16:
		dst.reset(screen.Dy(), width, 1)
		for y := range dst.Height {
			for x := range width {
				dst.Pix[y*width+x] = src.Pix[y*src.Stride+2*x]
			}
		}
		return
	}

	dst.reset(screen.Dy(), width, 3)
	seen := src.Bounds().Intersect(screen)
	if seen != screen {
		for i := range dst.Pix {
			dst.Pix[i] = 255
		}
	}
	write := rows(src, seen.Min.X, format)
	for y := seen.Min.Y; y < seen.Max.Y; y++ {
		write(y, dst.Pix[((y-screen.Min.Y)*width+seen.Min.X-screen.Min.X)*3:][:3*seen.Dx()])
	}
}

// rows returns a function that writes a row of src from x = left on as RGB, on white.
func rows(src image.Image, left int, format string) func(y int, out []uint8) {
	switch src := src.(type) {
	case *image.YCbCr:
		return newChroma(src, format == "webp").row
	case *image.NYCbCrA:
		c := newChroma(&src.YCbCr, format == "webp")
		return func(y int, out []uint8) {
			c.row(y, out)
			for x, a := range src.A[y*src.AStride:][:len(out)/3] {
				p := out[3*x:][:3]
				p[0], p[1], p[2] = over(p[0], a), over(p[1], a), over(p[2], a)
			}
		}
	case *image.Paletted:
		var palette [256][3]uint8
		for n := range palette {
			palette[n] = [3]uint8{255, 255, 255} // a colour that is not there
		}
		for n, c := range src.Palette {
			palette[n][0], palette[n][1], palette[n][2] = onWhite(c)
		}
		return func(y int, out []uint8) {
			for x, n := range src.Pix[src.PixOffset(left, y):][:len(out)/3] {
				copy(out[3*x:], palette[n][:])
			}
		}
	case *image.RGBA: // opaque PNG, BMP
		return func(y int, out []uint8) {
			for pix := src.Pix[src.PixOffset(left, y):]; len(out) >= 3; pix, out = pix[4:], out[3:] {
				white := 255 - pix[3]
				out[0], out[1], out[2] = pix[0]+white, pix[1]+white, pix[2]+white
			}
		}
	}
	return func(y int, out []uint8) {
		for x := range len(out) / 3 {
			out[3*x], out[3*x+1], out[3*x+2] = onWhite(src.At(left+x, y))
		}
	}
}

// onWhite composites a colour on white.
func onWhite(c color.Color) (r, g, b uint8) {
	n := color.NRGBAModel.Convert(c).(color.NRGBA)
	return over(n.R, n.A), over(n.G, n.A), over(n.B, n.A)
}

// over is v with opacity a on white.
func over(v, a uint8) uint8 { return uint8((int(v)*int(a) + 255*(255-int(a)) + 127) / 255) }

// orient writes src to dst as EXIF orientation o (2..8) says it is to be seen
// (CIPA DC-008, "Orientation").
func orient(src *Image, o int, dst *Image) {
	h, w, channels := src.Height, src.Width, src.Channels
	if o >= 5 {
		dst.reset(w, h, channels)
	} else {
		dst.reset(h, w, channels)
	}
	i := 0
	for y := range dst.Height {
		for x := range dst.Width {
			var sx, sy int
			switch o {
			case 2: // mirrored left to right
				sx, sy = w-1-x, y
			case 3: // half a turn
				sx, sy = w-1-x, h-1-y
			case 4: // mirrored top to bottom
				sx, sy = x, h-1-y
			case 5: // transposed
				sx, sy = y, x
			case 6: // to be turned a quarter clockwise
				sx, sy = y, h-1-x
			case 7: // transposed along the other diagonal
				sx, sy = w-1-y, h-1-x
			case 8: // to be turned a quarter counter-clockwise
				sx, sy = w-1-y, x
			}
			copy(dst.Pix[i:i+channels], src.Pix[(sy*w+sx)*channels:])
			i += channels
		}
	}
}

// ToRGB gives a grey picture three equal channels, in place. It does nothing to
// a picture that has three.
func (m *Image) ToRGB() {
	if m.Channels != 1 {
		return
	}
	n := m.Height * m.Width
	grey := m.Pix[:n]
	m.reset(m.Height, m.Width, 3)
	// Backwards, so that a shared array is read before it is overwritten.
	for i := n - 1; i >= 0; i-- {
		v := grey[i]
		m.Pix[3*i], m.Pix[3*i+1], m.Pix[3*i+2] = v, v, v
	}
}

// ToGrey replaces an RGB picture by its luma (Rec. 601, as in JPEG), in place.
// It does nothing to a picture that is grey.
func (m *Image) ToGrey() {
	if m.Channels != 3 {
		return
	}
	n := m.Height * m.Width
	for i := range n {
		r, g, b := int(m.Pix[3*i]), int(m.Pix[3*i+1]), int(m.Pix[3*i+2])
		m.Pix[i] = uint8((19595*r + 38470*g + 7471*b + 1<<15) >> 16)
	}
	m.Channels = 1
	m.Pix = m.Pix[:n]
}
