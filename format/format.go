// Package format reads and writes trained networks in the formats of other
// frameworks, and makes run directories of them and back:
//
//	m, err := format.Read("resnet20.pth")
//	err = format.WriteRun("runs/resnet20", m, nil)
//	m, err = format.ReadRun("runs/resnet20", "")
//	err = format.Write("resnet20.safetensors", "", m, artifact.WriteOptions{})
package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/internal/hint"
)

// Format is a way to keep a network in a file or a folder.
type Format struct {
	Name       string
	About      string   // one line for --help
	Extensions []string // the first is what names without one get; none: a folder

	// Detect reports whether a file is of this format, by its first bytes (up to
	// headBytes; nil of a folder). Formats are asked in the order of the table.
	Detect func(path string, head []byte) bool

	Read    func(path string) (*artifact.Model, error)
	Write   func(path string, m *artifact.Model, o artifact.WriteOptions) error // nil: only read
	Inspect func(path string) (artifact.Listing, error)
}

// Formats is the table of all formats.
var Formats = []Format{
	safetensorsFormat,
	torchFormat,
	hfFormat,
	kerasFormat,
	onnxFormat,
}

const headBytes = 4096

// Names lists the formats that can be written.
func Names() []string {
	var names []string
	for _, f := range Formats {
		if f.Write != nil {
			names = append(names, f.Name)
		}
	}
	return names
}

// Named returns the format of that name.
func Named(name string) (Format, error) {
	i := slices.IndexFunc(Formats, func(f Format) bool { return f.Name == name })
	if i < 0 {
		return Format{}, hint.Wrap(fmt.Errorf("format %q is unknown", name), "formats: "+strings.Join(Names(), ", "))
	}
	return Formats[i], nil
}

// Of returns the format of an existing file or folder, by its content.
func Of(path string) (Format, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Format{}, err
	}
	var head []byte
	switch {
	case info.IsDir():
	case !info.Mode().IsRegular():
		return Format{}, fmt.Errorf("%s: neither file nor folder", path)
	default:
		if head, err = readHead(path); err != nil {
			return Format{}, err
		}
	}
	for _, f := range Formats {
		if f.Detect(path, head) {
			return f, nil
		}
	}
	var known []string
	for _, f := range Formats {
		known = append(known, f.About)
	}
	switch {
	case info.IsDir():
		err = fmt.Errorf("%s: no format that is known: a folder without the config.json and weights of a Hugging Face folder", path)
	case len(head) == 0:
		err = fmt.Errorf("%s: the file is empty", path)
	case bytes.HasPrefix(head, []byte("version https://git-lfs")):
		return Format{}, hint.Wrap(fmt.Errorf("%s: not the file itself, but Git LFS's pointer to it", path), "get it with: git lfs pull")
	default: // an error page that was downloaded, say
		err = fmt.Errorf("%s: no format that is known: it begins with %q", path, head[:min(len(head), 16)])
	}
	return Format{}, hint.Wrap(err, "known are: "+strings.Join(known, "; "))
}

func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, headBytes)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return head[:n], nil
}

// ForOutput returns the format of that name or, where name is empty, of the
// extension of path.
func ForOutput(path, name string) (Format, error) {
	if name != "" {
		f, err := Named(name)
		if err == nil && f.Write == nil {
			err = fmt.Errorf("format %s can only be read", name)
		}
		return f, err
	}
	ext := strings.ToLower(filepath.Ext(path))
	for _, f := range Formats {
		if ext != "" && f.Write != nil && slices.Contains(f.Extensions, ext) {
			return f, nil
		}
	}
	return Format{}, hint.Wrap(fmt.Errorf("%s: its extension names no format", path), "name one with --format: "+strings.Join(Names(), ", "))
}

// Read reads a network from a file or folder of any format in the table. What
// neither the file nor Hugging Face's JSON files beside it say (size of the
// pictures, classes, preprocessing) stays unknown in the Model; Complete fills it.
func Read(path string) (*artifact.Model, error) {
	f, err := Of(path)
	if err != nil {
		return nil, err
	}
	m, err := f.Read(path)
	if err == nil && len(f.Extensions) > 0 && (m.Classes == nil || m.Preprocess == nil) {
		err = readSide(filepath.Dir(path), m)
	}
	if err != nil {
		return nil, in(path, err)
	}
	return m, nil
}

// in puts path before err unless the package that opened the file has done so.
func in(path string, err error) error {
	if text := ": " + err.Error(); strings.Contains(text, ": "+path+": ") || strings.Contains(text, ": "+filepath.Join(path, "model.")) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// Write writes m to path in the format of that name, by the extension of path
// where name is empty. A file is replaced in one piece, and on an error stays as it
// was; a folder must be empty or not exist.
func Write(path, name string, m *artifact.Model, o artifact.WriteOptions) error {
	f, err := ForOutput(path, name)
	if err != nil {
		return err
	}
	if err := m.Check(); err != nil {
		return err
	}
	if o.FoldNorm { // the same for all formats
		if m, err = m.Folded(); err != nil {
			return hint.Wrap(fmt.Errorf("writing %s: %w", path, err), "leave --fold-bn away")
		}
		o.FoldNorm = false
	}
	err = f.Write(path, m, o)
	if err != nil && !strings.Contains(err.Error(), "writing "+path) {
		err = fmt.Errorf("writing %s: %w", path, err)
	}
	return err
}

// Inspect lists what a file or folder holds.
func Inspect(path string) (artifact.Listing, error) {
	f, err := Of(path)
	if err != nil {
		return artifact.Listing{}, err
	}
	l, err := f.Inspect(path)
	if err != nil {
		return l, in(path, err)
	}
	l.Format = f.Name
	return l, nil
}
