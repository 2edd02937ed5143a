package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// memory is a data set whose bytes are in memory, each picture as planes:
// pix[i][(c*height+y)*width+x].
type memory struct {
	height, width, channels int
	labels                  []uint8
	pix                     [][]uint8
	name                    func(i int) string
}

func (m *memory) Len() int          { return len(m.labels) }
func (m *memory) Label(i int) int   { return int(m.labels[i]) }
func (m *memory) Name(i int) string { return m.name(i) }
func (m *memory) key(i int) key     { return shorten(sha256.Sum256(m.pix[i])) }

func (m *memory) Image(i int, dst *Image) error {
	if i < 0 || i >= len(m.pix) {
		return fmt.Errorf("dataset: picture %d of %d", i, len(m.pix))
	}
	dst.reset(m.height, m.width, m.channels)
	src := m.pix[i]
	if m.channels == 1 {
		copy(dst.Pix, src)
		return nil
	}
	n := m.height * m.width
	r, g, b := src[:n], src[n:][:n], src[2*n:][:n]
	for p, out := 0, dst.Pix; p < n && len(out) >= 3; p, out = p+1, out[3:] { // so the compiler sees that nothing is out of bounds
		out[0], out[1], out[2] = r[p], g[p], b[p]
	}
	return nil
}

// append adds other, whose pictures keep their names.
func (m *memory) append(other *memory) *memory {
	if m == nil {
		return other
	}
	first, name := m.Len(), m.name
	m.labels = append(m.labels, other.labels...)
	m.pix = append(m.pix, other.pix...)
	m.name = func(i int) string {
		if i < first {
			return name(i)
		}
		return other.name(i - first)
	}
	return m
}

// parseCIFAR reads the binary layout of https://www.cs.toronto.edu/~kriz/cifar.html:
// records of label bytes and three planes of 1,024 bytes. CIFAR-100 has two
// label bytes, the coarse one first, which is not used. Nor are the text files
// with class names, which are built in.
func parseCIFAR(s *source, contents [][]byte) (training, testing *memory, err error) {
	for i, f := range s.files {
		labelBytes := int(f.bytes)/f.records - s.height*s.width*s.channels
		part, err := parseRecords(f.name, contents[i], labelBytes, s.height, s.width, len(s.classes))
		if err != nil {
			return nil, nil, err
		}
		if f.split == test {
			testing = testing.append(part)
		} else {
			training = training.append(part)
		}
	}
	return training, testing, nil
}

// parseRecords cuts one file of records. The label is the last label byte.
func parseRecords(name string, data []byte, labelBytes, height, width, classes int) (*memory, error) {
	record := labelBytes + 3*height*width
	if len(data)%record != 0 {
		return nil, fmt.Errorf("%s: it has %d bytes, want a multiple of %d", name, len(data), record)
	}
	n := len(data) / record
	m := &memory{height: height, width: width, channels: 3,
		labels: make([]uint8, n), pix: make([][]uint8, n),
		name: func(i int) string { return fmt.Sprintf("%s[%d]", name, i) },
	}
	for i := range n {
		r := data[i*record:][:record:record]
		m.labels[i], m.pix[i] = r[labelBytes-1], r[labelBytes:]
		if int(m.labels[i]) >= classes {
			return nil, fmt.Errorf("%s: record %d has label %d, want 0..%d", name, i, m.labels[i], classes-1)
		}
	}
	return m, nil
}

// parseMNIST reads pairs of image and label files in IDX format.
func parseMNIST(s *source, contents [][]byte) (training, testing *memory, err error) {
	for i := 0; i+1 < len(s.files); i += 2 {
		images, labels := s.files[i], s.files[i+1]
		m, err := parseIDXPair(images.name, contents[i], labels.name, contents[i+1], len(s.classes))
		if err != nil {
			return nil, nil, err
		}
		if m.height != s.height || m.width != s.width || m.Len() != images.records {
			return nil, nil, fmt.Errorf("%s: %d pictures of %d×%d, want %d of %d×%d", images.name, m.Len(), m.height, m.width, images.records, s.height, s.width)
		}
		if images.split == test {
			testing = m
		} else {
			training = m
		}
	}
	return training, testing, nil
}

func parseIDXPair(imageName string, imageData []byte, labelName string, labelData []byte, classes int) (*memory, error) {
	dims, pix, err := parseIDX(imageData, 3)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", imageName, err)
	}
	_, labels, err := parseIDX(labelData, 1)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", labelName, err)
	}
	n, size := dims[0], dims[1]*dims[2]
	if len(labels) != n {
		return nil, fmt.Errorf("%s has %d labels, %s has %d pictures", labelName, len(labels), imageName, n)
	}
	if n > 0 && size == 0 {
		return nil, fmt.Errorf("%s: pictures are %d×%d", imageName, dims[1], dims[2])
	}
	m := &memory{height: dims[1], width: dims[2], channels: 1, labels: labels, pix: make([][]uint8, n),
		name: func(i int) string { return fmt.Sprintf("%s[%d]", imageName, i) },
	}
	for i := range n {
		m.pix[i] = pix[i*size:][:size:size]
		if int(labels[i]) >= classes {
			return nil, fmt.Errorf("%s: label %d is %d, want 0..%d", labelName, i, labels[i], classes-1)
		}
	}
	return m, nil
}

// parseIDX reads an IDX file of unsigned bytes: 0, 0, 8, the number of
// dimensions, each as a big-endian uint32, the elements. It returns the
// dimensions and the elements, which share data's memory.
func parseIDX(data []byte, dimensions int) (dims []int, elements []byte, err error) {
	header := 4 + 4*dimensions
	if len(data) < header {
		return nil, nil, fmt.Errorf("it has %d bytes, less than its header of %d", len(data), header)
	}
	if want := [4]byte{0, 0, 8, byte(dimensions)}; [4]byte(data) != want {
		return nil, nil, fmt.Errorf("it begins with % x, want % x (IDX, unsigned bytes, %d dimensions)", data[:4], want, dimensions)
	}
	elements = data[header:]
	product := uint64(1)
	for d := range dimensions {
		n := binary.BigEndian.Uint32(data[4+4*d:])
		dims = append(dims, int(n))
		overflow, low := bits.Mul64(product, uint64(n))
		if overflow != 0 {
			return nil, nil, fmt.Errorf("its dimensions %v need more elements than there can be", dims)
		}
		product = low
	}
	if product != uint64(len(elements)) {
		return nil, nil, fmt.Errorf("it has %d elements, its dimensions %v need %d", len(elements), dims, product)
	}
	return dims, elements, nil
}
