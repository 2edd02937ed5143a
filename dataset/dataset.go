// Package dataset reads labelled images from disk as bytes and keeps their
// origin: CIFAR-10 and CIFAR-100 (binary layout), MNIST and Fashion-MNIST
// (IDX), folders of pictures, CSV manifests, and the generated set "shapes".
//
// Pixels stay 8-bit integers here; scaling and augmentation belong to package
// loader.
package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/residual-ml/residual/internal/hint"
)

// Image is an 8-bit picture, rows top to bottom: Pix[(y*Width+x)*Channels+c];
// Channels is 1 (grey) or 3 (RGB).
type Image struct {
	Height, Width, Channels int
	Pix                     []uint8
}

// reset gives m its dimensions and reuses Pix when it is large enough. The
// pixels are undefined.
func (m *Image) reset(height, width, channels int) {
	m.Height, m.Width, m.Channels = height, width, channels
	n := height * width * channels
	if cap(m.Pix) < n {
		m.Pix = make([]uint8, n)
	}
	m.Pix = m.Pix[:n]
}

// Dataset is an indexed, labelled collection of pictures. It is safe for
// concurrent use.
type Dataset interface {
	Len() int
	// Label returns an index into Data.Classes.
	Label(i int) int
	// Image decodes picture i into dst and reuses dst.Pix when it is large
	// enough.
	Image(i int, dst *Image) error
	// Name is what a person would look for: a file's path, or
	// "test_batch.bin[17]".
	Name(i int) string
}

// Data is an opened data set: its splits and where they came from.
type Data struct {
	Name    string // "cifar10", or the folder's base name
	Classes []string
	// Height and Width are 0 where pictures differ in size. Channels is 3 or 1
	// and the same for all pictures.
	Height, Width, Channels int
	// The splits are nil where the data has none.
	Train, Validation, Test Dataset
	Origin                  Origin
}

// Origin says where data came from and what exactly it was. It is recorded in
// a run's origin.json.
type Origin struct {
	// Source is the directory, archive or manifest the bytes came from.
	Source string `json:"source"`
	// Hash is "sha256:…" over classes, labels and content in order, so equal
	// data has an equal hash wherever it lies and however it is packed.
	Hash string `json:"hash"`
	// Files are the files read, where they are few: not those of an image folder.
	Files []FileOrigin `json:"files,omitempty"`
	// Notes are facts a reader of results should know, such as sums that differ
	// from those of the official files.
	Notes []string `json:"notes,omitempty"`
	// Skipped lists the pictures left out under Options.OnBadImage "skip", each
	// with the reason.
	Skipped []string `json:"skipped,omitempty"`
	// Counts is the number of pictures per split.
	Counts map[string]int `json:"counts"`
}

// FileOrigin identifies one file. Bytes and SHA256 are those of the unpacked
// content; Official says that they are the published ones.
type FileOrigin struct {
	Name     string `json:"name"`
	Bytes    int64  `json:"bytes"`
	SHA256   string `json:"sha256"`
	Official bool   `json:"official"`
}

// Options say where Open looks and what it may do.
type Options struct {
	// Dir is the data directory. Empty: RESIDUAL_DATA where it is set, then
	// os.UserCacheDir()/residual.
	Dir string
	// Download allows fetching what is missing. It goes below Dir, or the first
	// of the directories that stand for an empty Dir.
	Download bool
	// Mirror replaces the official addresses: a base URL below which the files
	// lie under their official names. Sums are checked all the same.
	Mirror string
	// OnBadImage is "fail" (the default), an error that names the files, or
	// "skip", which leaves them out and lists them in Origin.Skipped.
	OnBadImage string
	// Seed and ValFraction hold part of the training pictures of a folder or
	// manifest out as validation data when it has none of its own. A
	// ValFraction of 0 holds none out. Seed also generates "shapes".
	Seed        uint64
	ValFraction float64
	// ClassMap names a text file with one class name per line. It fixes the
	// order of the classes of a folder or manifest and must cover them.
	ClassMap string
	// Progress is told about downloads; total is 0 where it is not known.
	Progress func(name string, done, total int64)
	// Log receives notices. Nil discards them.
	Log *slog.Logger
}

// Values of Options.OnBadImage.
const (
	badImageFail = "fail"
	badImageSkip = "skip"
)

const (
	train      = "train"
	validation = "validation"
	test       = "test"
)

// Open opens a built-in data set by name (see Names) or the data at a path: an
// image folder ({train,val|valid|validation,test}/<class>/… or <class>/…), a
// CSV manifest, or the official files of a built-in set, packed or unpacked.
// Where both exist the name wins; write ./cifar10 for the folder.
//
// CIFAR and MNIST are read into memory. Of pictures in files only the headers
// are kept, but each file is read once for its hash, and with OnBadImage "skip"
// decoded once, so that what is left can be read later.
func Open(ctx context.Context, nameOrPath string, o Options) (*Data, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch o.OnBadImage {
	case "":
		o.OnBadImage = badImageFail
	case badImageFail, badImageSkip:
	default:
		return nil, fmt.Errorf("dataset: on-bad-image is %q, want fail or skip", o.OnBadImage)
	}
	if !(o.ValFraction >= 0 && o.ValFraction < 1) {
		return nil, fmt.Errorf("dataset: validation fraction is %v, want at least 0 and below 1", o.ValFraction)
	}

	builtIn := sourceNamed(nameOrPath)
	if (builtIn != nil || nameOrPath == shapesName) && o.ClassMap != "" {
		return nil, fmt.Errorf("dataset: %s has its own classes: a class map is only for folders and CSV manifests", nameOrPath)
	}
	var data *Data
	var err error
	switch {
	case nameOrPath == shapesName:
		data = openShapes(o.Seed)
	case builtIn != nil:
		data, err = openNamed(ctx, builtIn, o)
	default:
		data, err = openPath(ctx, nameOrPath, o)
	}
	if err != nil {
		return nil, fmt.Errorf("dataset: %w", err)
	}
	for _, note := range data.Origin.Notes {
		o.Log.Warn(note, "data", data.Name)
	}
	if n := len(data.Origin.Skipped); n > 0 {
		o.Log.Warn(fmt.Sprintf("%d pictures cannot be read and are left out", n), "data", data.Name, "first", data.Origin.Skipped[0])
	}
	return data, nil
}

const shapesName = "shapes"

// Names returns the names of the built-in data sets.
func Names() []string {
	names := []string{shapesName}
	for _, s := range sources {
		names = append(names, s.name)
	}
	return names
}

// ClassNames returns the classes of a built-in data set, nil of any other name.
func ClassNames(name string) []string {
	if name == shapesName {
		return shapeNames()
	}
	if s := sourceNamed(name); s != nil {
		return slices.Clone(s.classes)
	}
	return nil
}

func openPath(ctx context.Context, name string, o Options) (*Data, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, unknownName(name)
	case err != nil:
		return nil, err
	case info.IsDir():
		if s := sourceIn(name); s != nil {
			if o.ClassMap != "" {
				return nil, fmt.Errorf("%s holds %s, which has its own classes: a class map is only for folders and CSV manifests", name, s.name)
			}
			return openFound(s, name)
		}
		return openFolder(ctx, name, o)
	case strings.EqualFold(filepath.Ext(name), ".csv"):
		return openManifest(ctx, name, o)
	case IsPicture(name):
		return nil, hint.Wrap(fmt.Errorf("%s is one picture, want a folder with a folder for each class", name),
			"to classify it: residual predict RUN "+hint.Quote(name))
	default:
		return openArchive(name)
	}
}

func unknownName(name string) error {
	if target, err := os.Readlink(name); err == nil {
		return fmt.Errorf("%s is a symbolic link to %s, which is not there", name, target)
	}
	err := fmt.Errorf("%q is neither a built-in data set (%s) nor a file or folder", name, strings.Join(Names(), ", "))
	if near := hint.Nearest(name, Names()); near != "" {
		return hint.Wrap(err, fmt.Sprintf("did you mean %s?", near))
	}
	return hint.Wrap(err, "give one of these names, or the path of an image folder or CSV manifest")
}
