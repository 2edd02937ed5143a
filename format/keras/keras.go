// Package keras reads networks that Keras saved, and writes .keras files that
// Keras 3 loads.
//
// Read are .keras archives, whole models in HDF5 (.h5, with a model_config) and
// files of weights (.weights.h5 of Keras 3, the .h5 of save_weights before), of
// Keras 2 and 3. Where the file has a configuration made of Keras's own layers,
// the network is rebuilt from it, layer by layer, and recognised by its
// structure. A file of weights, or one whose configuration names the author's
// own classes, has no structure: then order, shapes and names are what there is
// (see weights.go), and the network that they make is said.
//
// Nothing in a file is ever executed: a Lambda or a class of the author's own is
// an error that names it.
package keras

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/structure"
	"github.com/residual-ml/residual/internal/hdf5"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
)

// The members of a .keras archive.
const (
	configMember   = "config.json"
	metadataMember = "metadata.json"
	weightsMember  = "model.weights.h5"
)

// Limits of a file.
const (
	maxConfig  = 16 << 20 // bytes of JSON
	maxMembers = 1 << 12  // of the archive
	maxRatio   = 64       // bytes inflated for a byte stored: weights hardly shrink
	minInflate = 1 << 20  // which may be inflated whatever the ratio
)

// IsArchive reports whether prefix, the first bytes of a file, can be a .keras
// archive's.
func IsArchive(prefix []byte) bool { return bytes.HasPrefix(prefix, []byte("PK\x03\x04")) }

// IsHDF5 reports whether prefix, the first bytes of a file, are HDF5's.
func IsHDF5(prefix []byte) bool { return hdf5.IsFile(prefix) }

// contents is what a file of either kind holds.
type contents struct {
	config   []byte            // nil: none
	metadata map[string]string // ours, from a file that Write made
	about    map[string]string // for people
	weights  *hdf5.File
	root     *hdf5.Object // the group of the weights
	size     int64
}

// ReadFile reads the network in the file at path.
func ReadFile(path string) (*artifact.Model, error) {
	return withFile(path, Read)
}

// InspectFile lists the tensors in the file at path.
func InspectFile(path string) (artifact.Listing, error) {
	return withFile(path, Inspect)
}

func withFile[T any](path string, do func(io.ReaderAt, int64) (T, error)) (T, error) {
	var none T
	f, err := os.Open(path)
	if err != nil {
		return none, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return none, err
	}
	out, err := do(f, info.Size())
	if err != nil {
		return none, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

// Read reads the network in a file of size bytes.
func Read(r io.ReaderAt, size int64) (*artifact.Model, error) {
	c, err := open(r, size)
	if err != nil {
		return nil, err
	}
	m, err := c.model()
	if err != nil {
		return nil, err
	}
	return m, m.ReadMetadata(c.metadata)
}

// Inspect lists the tensors of a file of size bytes.
func Inspect(r io.ReaderAt, size int64) (artifact.Listing, error) {
	c, err := open(r, size)
	if err != nil {
		return artifact.Listing{}, err
	}
	l := artifact.Listing{Bytes: size, Metadata: c.about}
	for _, o := range datasets(c.weights.Root) {
		l.Tensors = append(l.Tensors, artifact.Entry{Name: strings.TrimPrefix(o.Path, "/"), Type: o.Data.Type.String(),
			Shape: slices.Clone(o.Data.Dims), Bytes: o.Data.Bytes()})
	}
	if c.config != nil {
		if top, err := parseLayer(c.config); err == nil {
			l.Notes = append(l.Notes, top.summary())
		}
	}
	return l, nil
}

// open reads all but the tensors.
func open(r io.ReaderAt, size int64) (*contents, error) {
	head := make([]byte, min(size, 8))
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if IsHDF5(head) {
		return openHDF5(r, size)
	}
	return openArchive(r, size)
}

func openArchive(r io.ReaderAt, size int64) (*contents, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("keras archive: %w, or it is cut short", err) // zip: not a valid zip file
	}
	if len(z.File) > maxMembers {
		return nil, fmt.Errorf("keras archive: %d members, want at most %d", len(z.File), maxMembers)
	}
	members := map[string]*zip.File{}
	for _, f := range z.File {
		if members[f.Name] != nil {
			return nil, fmt.Errorf("keras archive: two members called %q", f.Name)
		}
		members[f.Name] = f
	}
	if members[configMember] == nil {
		return nil, fmt.Errorf("keras archive: there is no %s: this is no .keras file", configMember)
	}
	if members[weightsMember] == nil {
		return nil, fmt.Errorf("keras archive: there is no %s", weightsMember)
	}
	c := &contents{size: size, about: map[string]string{}}
	if c.config, err = readMember(members[configMember]); err != nil {
		return nil, err
	}
	if f := members[metadataMember]; f != nil {
		text, err := readMember(f)
		if err != nil {
			return nil, err
		}
		if err := c.readMetadata(text); err != nil {
			return nil, fmt.Errorf("%s: %w", metadataMember, err)
		}
	}
	f := members[weightsMember]
	var at io.ReaderAt
	length := int64(f.UncompressedSize64)
	if f.Method == zip.Store && f.UncompressedSize64 == f.CompressedSize64 {
		offset, err := f.DataOffset()
		if err != nil {
			return nil, fmt.Errorf("keras archive: %s: %w", f.Name, err)
		}
		if offset < 0 || length < 0 || offset > size || length > size-offset {
			return nil, fmt.Errorf("keras archive: %s: %d bytes at byte %d of %d", f.Name, length, offset, size)
		}
		at = io.NewSectionReader(r, offset, length)
	} else {
		b, err := readMember(f)
		if err != nil {
			return nil, err
		}
		at = bytes.NewReader(b)
	}
	if c.weights, err = hdf5.Read(at, length); err != nil {
		return nil, fmt.Errorf("%s: %w", weightsMember, err)
	}
	c.root = c.weights.Root
	return c, nil
}

// readMember reads a member of an archive, which must not grow much and must
// have the size and checksum that the archive says.
func readMember(f *zip.File) ([]byte, error) {
	n := f.UncompressedSize64
	switch {
	case f.Flags&1 != 0:
		return nil, fmt.Errorf("keras archive: %s is encrypted", f.Name)
	case n > minInflate && n/maxRatio > f.CompressedSize64:
		return nil, fmt.Errorf("keras archive: %s: %d bytes in %d stored: more than %d times as many are not trusted", f.Name, n, f.CompressedSize64, maxRatio)
	case f.Name != weightsMember && n > maxConfig:
		return nil, fmt.Errorf("keras archive: %s: %d bytes, want at most %d", f.Name, n, maxConfig)
	}
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("keras archive: %s: %w", f.Name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, int64(min(n, 1<<62))+1))
	if err == nil && uint64(len(b)) != n {
		err = fmt.Errorf("%d bytes or more, want %d", len(b), n)
	}
	if err != nil {
		return nil, fmt.Errorf("keras archive: %s: %w", f.Name, err)
	}
	return b, nil
}

// readMetadata reads metadata.json, in which Write puts what Keras has no place
// for.
func (c *contents) readMetadata(text []byte) error {
	if err := uniqueKeys(text); err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	for key, raw := range all {
		if key == ourKey {
			if err := json.Unmarshal(raw, &c.metadata); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			continue
		}
		var s string
		if json.Unmarshal(raw, &s) != nil {
			s = string(raw)
		}
		c.about[key] = s
	}
	for key, value := range c.metadata {
		c.about[ourKey+"."+key] = value
	}
	return nil
}

func openHDF5(r io.ReaderAt, size int64) (*contents, error) {
	f, err := hdf5.Read(r, size)
	if err != nil {
		return nil, err
	}
	c := &contents{size: size, weights: f, root: f.Root, about: map[string]string{}}
	for _, a := range f.Root.Attributes {
		if s, err := a.Strings(); err == nil && len(s) == 1 && a.Name != "model_config" {
			c.about[a.Name] = s[0]
		}
	}
	if a := f.Root.Attribute("model_config"); a != nil {
		text, err := a.Text()
		if err != nil {
			return nil, err
		}
		c.config = []byte(text)
	}
	if g := f.Root.Child("model_weights"); g != nil {
		c.root = g
	}
	return c, nil
}

// model rebuilds the network and finds its tensors.
func (c *contents) model() (*artifact.Model, error) {
	if c.config == nil {
		return c.fromWeights()
	}
	if len(c.config) > maxConfig {
		return nil, fmt.Errorf("%s: %d bytes, want at most %d", configMember, len(c.config), maxConfig)
	}
	if err := uniqueKeys(c.config); err != nil {
		return nil, fmt.Errorf("%s: %w", configMember, err)
	}
	top, err := parseLayer(c.config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", configMember, err)
	}
	if !top.isContainer() {
		m, err := c.fromWeights()
		if err != nil {
			return nil, hint.Wrap(fmt.Errorf("the model is of the class %q, whose code the file does not have; its weights alone: %w", top.Class, err),
				"build it of Keras's own layers (keras.Model(inputs, outputs)) and save it again")
		}
		m.Recognised = slices.Insert(m.Recognised, 0, fmt.Sprintf("the model is of the class %q, whose code the file does not have", top.Class))
		return m, nil
	}
	b := newBuilder(c)
	net, err := b.network(top)
	if err != nil {
		return nil, err
	}
	expected, described, err := artifact.Config(c.metadata)
	if err != nil {
		return nil, err
	}
	var hope *model.Config
	if described {
		hope = &expected
	}
	r, err := structure.Recognise(net, hope)
	if err != nil { // with pre-activation, no convolution before an addition is normalised
		if net, err = b.completeNorms(net); err != nil {
			return nil, err
		}
		r, err = structure.Recognise(net, hope)
	}
	if err != nil {
		return nil, hint.Wrap(err, "known are the networks that residual train builds; residual inspect lists the file's tensors")
	}
	config := r.Config
	if config.Name == "" {
		config.Name = artifact.Name(config)
	}
	if b.sizeUnknown && !described { // no weight depends on it
		config.Height, config.Width = 0, 0
		if r.Gain != nil { // preprocessing needs one
			config = artifact.Sized(config)
			b.note("the network takes pictures of any size: %d×%d is assumed", config.Height, config.Width)
		}
	}
	m, err := artifact.Build(config, r.Tensors, append(b.notes, r.Notes...)...)
	if err != nil {
		return nil, err
	}
	for _, o := range datasets(c.root) {
		if !b.used[o] && o.Data.Type.Class == hdf5.Float && !bookkeeping(o.Path) {
			m.Unmapped = append(m.Unmapped, strings.TrimPrefix(o.Path, "/"))
		}
	}
	if r.Gain != nil {
		if err := preprocess(m, r.Gain, r.Offset); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// preprocess makes a Preprocess of what the file's network does to its pictures.
func preprocess(m *artifact.Model, gain, offset []float64) error {
	c := m.Config
	if c.Channels != 1 && c.Channels != 3 {
		return fmt.Errorf("%d channels, want 1 or 3", c.Channels)
	}
	p := loader.Preprocess{Height: c.Height, Width: c.Width, Channels: c.Channels, Resize: loader.Squash, Scale: 1.0 / 255}
	// The deviation of bytes is 5 at the least, that of numbers in [0,1] at most 0.5.
	if slices.Max(gain) > 0.5 {
		m.Recognised = append(m.Recognised, "the network normalises its pictures, but not from 0…255: they are taken to be x/255 before")
		gain = slices.Clone(gain)
		for i := range gain {
			gain[i] /= 255
		}
	}
	alike := !slices.ContainsFunc(gain, func(x float64) bool { return x != gain[0] }) &&
		!slices.ContainsFunc(offset, func(x float64) bool { return x != 0 })
	if alike && gain[0] > 0 {
		p.Scale = gain[0]
	} else {
		mean, std, err := structure.Preprocess(gain, offset, p.Scale)
		if err != nil {
			return err
		}
		p.Mean, p.Std = mean, std
	}
	if err := p.Check(); err != nil {
		return err
	}
	m.Preprocess = &p
	m.Recognised = append(m.Recognised, "preprocessing is in the network; pictures of another size are squashed, as Keras's own loader does")
	return nil
}

// datasets lists the data sets of a file in the order of its tree.
func datasets(o *hdf5.Object) []*hdf5.Object {
	if o.Data != nil {
		return []*hdf5.Object{o}
	}
	var out []*hdf5.Object
	for _, c := range o.Children {
		out = append(out, datasets(c)...)
	}
	return out
}

// bookkeeping reports whether a path is of what training keeps beside the model.
func bookkeeping(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first == "optimizer" || first == "optimizer_weights" || strings.Contains(path, "/seed_generator/")
}

// uniqueKeys refuses JSON in which an object has a key twice: whether the first
// or the last counts differs between readers.
func uniqueKeys(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	type level struct {
		keys map[string]bool // nil in an array
		key  bool            // a key comes next
	}
	var stack []level
	for {
		token, err := d.Token()
		if err == io.EOF && len(stack) == 0 {
			return nil
		}
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		top := len(stack) - 1
		if key, ok := token.(string); ok && top >= 0 && stack[top].key {
			if stack[top].keys[key] {
				return fmt.Errorf("two keys %.60q in one object", key)
			}
			stack[top].keys[key] = true
			stack[top].key = false
			continue
		}
		if delim, ok := token.(json.Delim); ok && (delim == '{' || delim == '[') {
			if len(stack) > 1000 {
				return errors.New("JSON nested more than 1000 deep")
			}
			l := level{}
			if delim == '{' {
				l = level{map[string]bool{}, true}
			}
			stack = append(stack, l)
			continue
		} else if ok {
			stack = stack[:top]
			top--
		}
		if top >= 0 && stack[top].keys != nil {
			stack[top].key = true
		}
	}
}
