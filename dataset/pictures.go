package dataset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/residual-ml/residual/internal/hint"
)

// pictures is a data set of picture files, which are decoded when asked for.
type pictures struct{ files []pictureFile }

type pictureFile struct {
	path  string
	label int
	key   key
}

func (p *pictures) Len() int          { return len(p.files) }
func (p *pictures) Label(i int) int   { return p.files[i].label }
func (p *pictures) Name(i int) string { return p.files[i].path }
func (p *pictures) key(i int) key     { return p.files[i].key }

// Image decodes picture i. All pictures have three channels, grey ones too. A
// file that is not what it was when the data set was opened is an error.
func (p *pictures) Image(i int, dst *Image) error {
	if i < 0 || i >= len(p.files) {
		return fmt.Errorf("dataset: picture %d of %d", i, len(p.files))
	}
	path := p.files[i].path
	data, err := readPicture(path)
	if err == nil && shorten(sha256.Sum256(data)) != p.files[i].key {
		// Training on would give a result that its recorded origin does not explain.
		return hint.Wrap(fmt.Errorf("dataset: %s: the file has changed since the data set was opened", path),
			"bring the old file back and resume, or start a new run")
	}
	if err == nil {
		err = DecodeImage(data, dst)
	}
	if err != nil {
		return hint.Wrap(fmt.Errorf("dataset: %s: %w", path, pathless(err)), skipHint)
	}
	dst.ToRGB()
	return nil
}

const skipHint = "leave such pictures out with --on-bad-image skip"

func readPicture(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // opening a pipe waits for somebody to write
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, MaxFileBytes)
}

// pathless takes the path off an error that will be reported with it.
func pathless(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// found is a picture file before anybody looked inside.
type found struct{ path, split, class string }

// decodable are the extensions of formats that can be read; known to be
// pictures but not readable are those in unreadable, which are bad pictures
// rather than something to pass over.
var (
	decodable  = strings.Fields(".jpg .jpeg .jpe .jfif .png .gif .bmp .webp")
	unreadable = strings.Fields(".tif .tiff .heic .heif .avif .jxl .jp2 .svg .ico .pcx .ppm .pgm .tga .psd .dng .cr2 .nef .arw")
)

// IsPicture reports whether a file is a picture by its name, of a format that is
// read or of one that would have to be converted.
func IsPicture(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return slices.Contains(decodable, ext) || slices.Contains(unreadable, ext)
}

// collection is what a folder or a manifest lists.
type collection struct {
	name    string
	source  string
	classes []string // in order
	files   []found
	notes   []string
	origin  []FileOrigin
}

// open reads each file once and makes the splits.
func (c *collection) open(ctx context.Context, o Options) (*Data, error) {
	if len(c.classes) < 2 {
		return nil, fmt.Errorf("%s: it has %d class (%s), want at least 2", c.source, len(c.classes), strings.Join(c.classes, ""))
	}
	labels := map[string]int{}
	for i, class := range c.classes {
		if strings.ContainsFunc(class, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) { // a terminal would obey it
			return nil, hint.Wrap(fmt.Errorf("%s: class %q has control characters", c.source, class), "rename it")
		}
		labels[class] = i
	}
	results, err := c.examine(ctx, o.OnBadImage == badImageSkip)
	if err != nil {
		return nil, err
	}

	data := &Data{Name: c.name, Classes: c.classes, Channels: 3,
		Origin: Origin{Source: c.source, Files: c.origin, Notes: c.notes, Counts: map[string]int{}}}
	hash := newContentHash(c.classes)
	splits := map[string]*pictures{}
	counts := map[string][]int{} // by split and class
	var bad []error
	sameSize := true
	for i, f := range c.files {
		r := results[i]
		if r.err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", f.path, pathless(r.err)))
			continue
		}
		if splits[f.split] == nil {
			splits[f.split] = &pictures{}
			counts[f.split] = make([]int, len(c.classes))
		}
		label := labels[f.class]
		splits[f.split].files = append(splits[f.split].files, pictureFile{f.path, label, shorten(r.sum)})
		counts[f.split][label]++
		hash.add(f.split, fmt.Sprint(label), hex.EncodeToString(r.sum[:]))
		if data.Height == 0 {
			data.Height, data.Width = r.height, r.width
		}
		sameSize = sameSize && r.height == data.Height && r.width == data.Width
	}
	if !sameSize {
		data.Height, data.Width = 0, 0
	}
	if len(bad) > 0 && o.OnBadImage == badImageFail {
		return nil, hint.Wrap(fmt.Errorf("%d of %d pictures cannot be read: %w", len(bad), len(c.files), firstFew(bad)), skipHint)
	}
	for _, err := range bad {
		data.Origin.Skipped = append(data.Origin.Skipped, err.Error())
	}
	if len(splits) == 0 {
		return nil, fmt.Errorf("%s: no picture can be read", c.source)
	}
	data.Origin.Hash = hash.sum()
	notes, err := c.compare(counts)
	if err != nil {
		return nil, err
	}
	data.Origin.Notes = append(data.Origin.Notes, notes...)

	// A nil *pictures must not become a Dataset that is not nil.
	if p := splits[train]; p != nil {
		data.Train = p
	}
	if p := splits[validation]; p != nil {
		data.Validation = p
	}
	if p := splits[test]; p != nil {
		data.Test = p
	}
	if data.Train != nil && data.Validation == nil && o.ValFraction > 0 {
		n := int(math.Round(o.ValFraction * float64(data.Train.Len())))
		if n == 0 {
			return nil, hint.Wrap(fmt.Errorf("%s: %d training pictures are too few to hold a fraction of %v out", c.source, data.Train.Len(), o.ValFraction),
				"add pictures; residual train --val-images 0 holds none out")
		}
		data.Train, data.Validation = Split(data.Train, n, len(c.classes), o.Seed)
	}
	for name, d := range map[string]Dataset{train: data.Train, validation: data.Validation, test: data.Test} {
		if d != nil {
			data.Origin.Counts[name] = d.Len()
		}
	}
	return data, nil
}

// examined is what was seen of a picture's file.
type examined struct {
	height, width int
	sum           [sha256.Size]byte
	err           error
}

// examine reads each file once, its header and, if decode is set, its pixels.
func (c *collection) examine(ctx context.Context, decode bool) ([]examined, error) {
	results := make([]examined, len(c.files))
	each(len(c.files), func(i int) {
		r := &results[i]
		if r.err = ctx.Err(); r.err != nil {
			return
		}
		data, err := readPicture(c.files[i].path)
		if err != nil {
			r.err = err
			return
		}
		r.sum = sha256.Sum256(data)
		head, err := decodeHeader(data)
		if err == nil && decode {
			err = DecodeImage(data, &Image{})
		}
		r.err = err
		r.height, r.width = head.size()
	})
	return results, ctx.Err()
}

// compare returns notes of classes that a split lacks, from the number of pictures by
// split and class. A class that others have and training lacks is an error.
func (c *collection) compare(counts map[string][]int) (notes []string, err error) {
	for _, split := range splitOrder {
		var empty []string
		for class, n := range counts[split] {
			if n == 0 {
				empty = append(empty, c.classes[class])
			} else if counts[train] != nil && counts[train][class] == 0 { // without training it is only to be evaluated
				return nil, fmt.Errorf("%s: class %q has pictures in %s and none in train", c.source, c.classes[class], split)
			}
		}
		if len(empty) > 0 {
			notes = append(notes, fmt.Sprintf("%s has no picture of %s", split, few(empty)))
		}
	}
	return notes, nil
}

// firstFew joins the first of many errors.
func firstFew(errs []error) error {
	const shown = 5
	if len(errs) > shown {
		errs = append(slices.Clone(errs[:shown]), fmt.Errorf("… and %d more", len(errs)-shown))
	}
	return errors.Join(errs...)
}

// few lists the first of many names.
func few(names []string) string {
	const shown = 10
	if len(names) > shown {
		return fmt.Sprintf("%s … and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
	}
	return strings.Join(names, ", ")
}

// splitNames are the names of folders and manifest entries that mean a split.
var splitNames = map[string]string{
	"train": train, "val": validation, "valid": validation, "validation": validation, "test": test,
}

var splitOrder = []string{train, validation, test}

// openFolder opens {train,val|valid|validation,test}/<class>/… or <class>/….
// Classes are the folders' names in bytewise order, or in that of the class map.
func openFolder(ctx context.Context, root string, o Options) (*Data, error) {
	absolute, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	c := &collection{name: filepath.Base(absolute), source: absolute}
	w := &walker{ctx: ctx, others: map[string]bool{}}
	top, err := w.folders(root)
	if err != nil {
		return nil, err
	}

	// A folder named "train" is a split when it holds folders; otherwise it may
	// be the class of the railway.
	splits := map[string]string{}
	for _, dir := range top {
		split, ok := splitNames[dir]
		if !ok {
			continue
		}
		inside, err := w.folders(filepath.Join(root, dir))
		if err != nil {
			return nil, err
		}
		if len(inside) == 0 {
			continue
		}
		if other, ok := splits[split]; ok {
			return nil, fmt.Errorf("%s: both %s and %s are %s splits", root, other, dir, split)
		}
		splits[split] = dir
	}
	var names []string
	if len(splits) == 0 {
		if names, err = c.classFolders(w, root, "", train); err != nil {
			return nil, err
		}
	} else {
		for _, dir := range top {
			if splits[splitNames[dir]] != dir {
				c.notes = append(c.notes, fmt.Sprintf("folder %s is not part of a split and is not used", dir))
			}
		}
		for _, split := range splitOrder {
			dir, ok := splits[split]
			if !ok {
				continue
			}
			classes, err := c.classFolders(w, root, dir, split)
			if err != nil {
				return nil, err
			}
			if _, ok := splits[train]; ok && split != train {
				for _, class := range classes {
					if _, found := slices.BinarySearch(names, class); !found {
						return nil, fmt.Errorf("%s: class %q is in %s and not in %s", root, class, dir, splits[train])
					}
				}
				continue
			}
			names = append(names, classes...)
		}
	}
	if len(c.files) == 0 {
		return nil, hint.Wrap(fmt.Errorf("%s: no pictures in class folders", root),
			"lay them out as FOLDER/<class>/picture.jpg or FOLDER/{train,val,test}/<class>/picture.jpg")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if c.classes, err = orderClasses(names, o.ClassMap); err != nil {
		return nil, err
	}
	// By label, so that the class map and not the folders' order decides.
	position := map[string]int{}
	for i, class := range c.classes {
		position[class] = i
	}
	slices.SortStableFunc(c.files, func(a, b found) int {
		return cmp.Or(cmp.Compare(slices.Index(splitOrder, a.split), slices.Index(splitOrder, b.split)),
			cmp.Compare(position[a.class], position[b.class]))
	})
	if len(w.others) > 0 {
		others := slices.Sorted(maps.Keys(w.others))
		c.notes = append(c.notes, fmt.Sprintf("%d files are not pictures and are not used: %s", len(others), few(others)))
	}
	if len(w.links) > 0 {
		c.notes = append(c.notes, "links to folders are not followed: "+few(w.links))
	}
	return c.open(ctx, o)
}

// classFolders adds the pictures of all class folders in root/dir and returns
// the classes' names.
func (c *collection) classFolders(w *walker, root, dir, split string) ([]string, error) {
	classes, err := w.folders(filepath.Join(root, dir))
	if err != nil {
		return nil, err
	}
	for _, class := range classes {
		before := len(c.files)
		err := w.pictures(filepath.Join(root, dir, class), 0, func(path string) {
			c.files = append(c.files, found{path, split, class})
		})
		if err != nil {
			return nil, err
		}
		if len(c.files) == before {
			return nil, hint.Wrap(fmt.Errorf("%s holds no pictures", filepath.Join(root, dir, class)), "every folder is a class: put pictures into it, or remove it")
		}
	}
	return classes, nil
}

// walker reads folders in bytewise order and counts what it passes over. Hidden
// entries (.name) are ignored.
type walker struct {
	ctx    context.Context
	others map[string]bool
	links  []string
}

// folders returns the names of the folders in dir, also of links to folders:
// the depth at which they are looked for is fixed, so no loop can arise. Files
// beside them are counted as others.
func (w *walker) folders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.IsDir() {
			names = append(names, e.Name())
		} else {
			w.others[filepath.Join(dir, e.Name())] = true
		}
	}
	return names, nil
}

// maxDepth bounds folders within a class folder.
const maxDepth = 32

// pictures calls add for each picture in dir and the folders in it.
func (w *walker) pictures(dir string, depth int, add func(path string)) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("%s: folders are nested more than %d deep", dir, maxDepth)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			if err := w.pictures(path, depth+1, add); err != nil {
				return err
			}
		case isLinkToFolder(e, path):
			w.links = append(w.links, path)
		case IsPicture(e.Name()):
			add(path)
		default:
			w.others[path] = true
		}
	}
	return nil
}

func isLinkToFolder(e fs.DirEntry, path string) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
