package dataset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
)

// isAnimated reports whether a file whose header is sound is an animated WebP
// (RFC 9649, section 2.7: chunk VP8X, flag 2), which x/image/webp does not decode.
func isAnimated(data []byte, format string) bool {
	return format == "webp" && len(data) > 20 && string(data[12:16]) == "VP8X" && data[20]&2 != 0
}

// firstFrame makes a file of its own of the first frame of an animated WebP, and
// returns where on the canvas it lies.
func firstFrame(data []byte) (still []byte, frame image.Rectangle, err error) {
	for rest := data[12:]; len(rest) >= 8; {
		name, size := string(rest[:4]), int64(binary.LittleEndian.Uint32(rest[4:]))
		rest = rest[8:]
		if size > int64(len(rest)) {
			break
		}
		body := rest[:size]
		rest = rest[min(size+size%2, int64(len(rest))):]
		if name != "ANMF" || len(body) < 16 {
			continue
		}
		number := func(at int) int { return int(body[at]) | int(body[at+1])<<8 | int(body[at+2])<<16 }
		corner := image.Pt(2*number(0), 2*number(3))
		frame = image.Rectangle{Min: corner, Max: corner.Add(image.Pt(number(6)+1, number(9)+1))}
		head := make([]byte, 10) // of the frame: whether it is transparent, its size
		copy(head[4:], body[6:12])
		body = body[16:]
		if bytes.HasPrefix(body, []byte("ALPH")) {
			head[0] = 1 << 4
		}
		still = append([]byte("WEBP"), chunk("VP8X", head)...)
		return chunk("RIFF", append(still, body...)), frame, nil
	}
	return nil, frame, errors.New("it has no frame")
}

// chunk is a part of a RIFF file.
func chunk(name string, body []byte) []byte {
	c := append(binary.LittleEndian.AppendUint32([]byte(name), uint32(len(body))), body...)
	return append(c, make([]byte, len(body)%2)...)
}
