package explain

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/tensor"
)

// Neighbour is a picture of a data set with the cosine of the angle between its
// features and those asked about: 1 is the same direction.
type Neighbour struct {
	Index  int     `json:"index"` // in the data set
	Cosine float64 `json:"cosine"`
}

// Index is a file with the features of all pictures of a data set, float32
// [N,C], in NumPy's .npy format.
type Index struct {
	path          string
	images, width int
}

// Index returns the features of data's pictures, from the file in dir when there
// is one, else it computes and writes it; progress is told how many pictures are
// done. The file's name follows from the weights, the engine, the preprocessing
// and source, which must say what data holds: its hash and the split. No more
// than a batch is in memory.
func (x *Explainer) Index(ctx context.Context, dir string, data dataset.Dataset, source string, batchSize int, progress func(done, total int)) (*Index, error) {
	key, err := x.key(source, data.Len())
	if err != nil {
		return nil, err
	}
	width, err := x.width()
	if err != nil {
		return nil, err
	}
	ix := &Index{path: filepath.Join(dir, "features-"+key+".npy"), images: data.Len(), width: width}
	if info, err := os.Stat(ix.path); err == nil && info.Size() == int64(len(ix.header()))+4*int64(ix.images)*int64(ix.width) {
		return ix, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := loader.New(data, loader.Options{BatchSize: batchSize, Preprocess: x.Config().Preprocess})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	err = atomicfile.Write(ix.path, func(w io.Writer) error {
		if _, err := w.Write(ix.header()); err != nil {
			return err
		}
		done := 0
		return x.features(ctx, l, func(b loader.Batch, features []float32) error {
			done += len(b.Indices)
			if progress != nil {
				progress(done, ix.images)
			}
			return tensor.Write(w, tensor.Of(features, len(features)))
		})
	})
	if err != nil {
		return nil, err
	}
	return ix, nil
}

// width is C of the features: the rows of the dense layer's kernel.
func (x *Explainer) width() (int, error) {
	kernel, err := x.Variables().Get("fc.weight")
	if err != nil {
		return 0, err
	}
	return kernel.Shape()[0], nil
}

// key names what the features depend on.
func (x *Explainer) key(source string, images int) (string, error) {
	weights, err := x.WeightsHash()
	if err != nil {
		return "", err
	}
	c := x.Config()
	about, err := json.Marshal([]any{source, images, weights, x.Engine().Name(), c.Precision, c.Preprocess, c.Model})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(about)
	return hex.EncodeToString(sum[:8]), nil
}

// header is that of version 1.0 of the format,
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html: magic
// word, version, length, and a Python dictionary padded to a multiple of 64.
func (ix *Index) header() []byte {
	text := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", ix.images, ix.width)
	text += strings.Repeat(" ", 63-(10+len(text))%64) + "\n"
	head := append([]byte("\x93NUMPY\x01\x00"), 0, 0)
	binary.LittleEndian.PutUint16(head[8:], uint16(len(text)))
	return append(head, text...)
}

// Path is where the file lies.
func (ix *Index) Path() string { return ix.path }

// Nearest returns, for each row of features, the k pictures with the largest
// cosine, the nearest first and the lower index of equals. It compares with every
// picture, in one pass over the file; products are summed in float64. A vector of
// zeros has the cosine 0 with all.
func (ix *Index) Nearest(ctx context.Context, features [][]float32, k int) ([][]Neighbour, error) {
	norms := make([]float64, len(features))
	for i, f := range features {
		if len(f) != ix.width {
			return nil, fmt.Errorf("explain: %d features, %s has %d", len(f), ix.path, ix.width)
		}
		norms[i] = math.Sqrt(dot(f, f))
	}
	file, err := os.Open(ix.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, 1<<20)
	header := make([]byte, len(ix.header()))
	if _, err := io.ReadFull(in, header); err != nil || string(header) != string(ix.header()) {
		return nil, fmt.Errorf("%s: not the features of %d pictures: header %.80q: %w", ix.path, ix.images, header, cmp.Or(err, errors.New("another shape")))
	}
	found := make([][]Neighbour, len(features))
	raw, row := make([]byte, 4*ix.width), make([]float32, ix.width)
	for n := range ix.images {
		if n%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if _, err := io.ReadFull(in, raw); err != nil {
			return nil, fmt.Errorf("%s: picture %d: %w", ix.path, n, err)
		}
		for i := range row {
			row[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		norm := math.Sqrt(dot(row, row))
		for i, f := range features {
			cosine := 0.0
			if p := norm * norms[i]; p > 0 {
				cosine = dot(row, f) / p
			}
			found[i] = insert(found[i], Neighbour{n, cosine}, k)
		}
	}
	return found, nil
}

// insert keeps the k nearest, sorted; n comes after all in the list by index.
func insert(list []Neighbour, n Neighbour, k int) []Neighbour {
	if len(list) == k && (k == 0 || !(n.Cosine > list[k-1].Cosine)) {
		return list
	}
	at := len(list)
	for at > 0 && n.Cosine > list[at-1].Cosine {
		at--
	}
	list = slices.Insert(list, at, n)
	return list[:min(len(list), k)]
}

func dot(a, b []float32) float64 {
	sum := 0.0
	for i, v := range a {
		sum += float64(v) * float64(b[i])
	}
	return sum
}
