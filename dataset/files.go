package dataset

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/internal/hint"
)

// directories returns the data directories that o stands for, in order.
func directories(o Options) ([]string, error) {
	if o.Dir != "" {
		return []string{o.Dir}, nil
	}
	var dirs []string
	if d := os.Getenv("RESIDUAL_DATA"); d != "" {
		dirs = append(dirs, d)
	}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "residual"))
	}
	if len(dirs) == 0 {
		return nil, hint.Wrap(errors.New("no data directory: neither RESIDUAL_DATA nor a cache directory is set"), "name one with --data-dir")
	}
	return dirs, nil
}

// openNamed looks for s below the data directories and downloads it when it is
// nowhere and o allows it.
func openNamed(ctx context.Context, s *source, o Options) (*Data, error) {
	dirs, err := directories(o)
	if err != nil {
		return nil, err
	}
	var other string // what lies there instead
	var denied error
	for _, dir := range dirs {
		for _, folder := range s.folders {
			d := filepath.Join(dir, filepath.FromSlash(folder))
			if !s.isIn(d) {
				if _, err := os.Stat(filepath.Join(d, s.files[0].name)); errors.Is(err, fs.ErrPermission) && denied == nil {
					denied = fmt.Errorf("%s: %w", s.name, err)
				}
				continue
			}
			data, err := openFound(s, d)
			if err == nil && data.Name != s.name {
				if folder == "" { // the other set's files, at the top of the data directory
					other = fmt.Sprintf(" (the files in %s are those of %s)", d, data.Name)
					continue
				}
				return nil, fmt.Errorf("%s holds %s, want %s", d, data.Name, s.name)
			}
			if errors.Is(err, errMissing) && o.Download {
				break // to the download, which completes it
			}
			return data, err
		}
	}
	if denied != nil { // whether the files are there nobody can say
		return nil, hint.Wrap(denied, "let this user read that directory (ls -ld shows who may), or name another one with --data-dir")
	}
	home := filepath.Join(dirs[0], s.name)
	if !o.Download {
		return nil, hint.Wrap(
			fmt.Errorf("%s: no %s in %s%s", s.name, s.files[0].name, strings.Join(dirs, " or "), other),
			fmt.Sprintf("run: residual data get %s (or %s)", s.name, s.manual(home)))
	}
	if err := s.download(ctx, home, o); err != nil {
		if h := hint.OfFile(err); h != "" { // not the network's fault
			return nil, hint.Wrap(fmt.Errorf("%s: %w", s.name, err), h+" with --data-dir")
		}
		return nil, hint.Wrap(fmt.Errorf("%s: %w", s.name, err), "without a network, "+s.manual(home))
	}
	return openFound(s, home)
}

// manual says how to get s by hand.
func (s *source) manual(home string) string {
	var names []string
	for _, r := range s.downloads() {
		names = append(names, r.name)
	}
	return fmt.Sprintf("put %s from %s into %s", strings.Join(names, ", "), s.addresses[0], home)
}

// sourceIn returns the built-in data set that lies in dir itself, or nil.
func sourceIn(dir string) *source {
	for _, s := range sources {
		if s.isIn(dir) {
			return s
		}
	}
	return nil
}

// isIn reports whether dir holds at least a part of s.
func (s *source) isIn(dir string) bool {
	if s.archive != nil && isFile(filepath.Join(dir, s.archive.name)) {
		return true
	}
	for _, f := range s.files {
		if f.find(dir) != "" {
			return true
		}
	}
	return false
}

// find returns the path of f in dir, packed or not, or "".
func (f *dataFile) find(dir string) string {
	p := filepath.Join(dir, f.name)
	if isFile(p) {
		return p
	}
	if f.packed != nil {
		if p = filepath.Join(dir, f.packed.name); isFile(p) {
			return p
		}
	}
	return ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

var errMissing = errors.New("files are missing")

// openFound opens s from dir: from its files when all are there, otherwise from
// its archive.
func openFound(s *source, dir string) (*Data, error) {
	var paths, missing []string
	for _, f := range s.files {
		if p := f.find(dir); p != "" {
			paths = append(paths, p)
		} else {
			missing = append(missing, f.name)
		}
	}
	if len(missing) == 0 {
		contents := make([][]byte, len(s.files))
		errs := make([]error, len(s.files))
		each(len(s.files), func(i int) { contents[i], errs[i] = readWhole(paths[i], s.files[i].bytes) })
		if err := errors.Join(errs...); err != nil {
			if h := hint.OfFile(err); h != "" { // nothing is damaged
				return nil, hint.Wrap(err, h)
			}
			return nil, hint.Wrap(err, "remove the damaged file, then run: residual data get "+s.name)
		}
		return s.assemble(dir, contents)
	}
	if s.archive != nil {
		if p := filepath.Join(dir, s.archive.name); isFile(p) {
			return s.openArchive(p)
		}
	}
	return nil, hint.Wrap(fmt.Errorf("%s: %w: %s", dir, errMissing, strings.Join(missing, ", ")),
		fmt.Sprintf("run: residual data get %s", s.name))
}

// readWhole reads a file, unpacked when its name ends in .gz, whose content
// must have exactly size bytes.
func readWhole(path string, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	} else if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.Size() != size {
		return nil, fmt.Errorf("%s: it has %d bytes, want %d", path, info.Size(), size)
	}
	// One byte more than wanted, so that an excess shows.
	var content bytes.Buffer
	content.Grow(int(size) + bytes.MinRead + 1)
	n, err := content.ReadFrom(io.LimitReader(r, size+1))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%s: it is truncated: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case n > size:
		return nil, fmt.Errorf("%s: it has more than the %d bytes wanted", path, size)
	case n < size:
		return nil, fmt.Errorf("%s: it has %d bytes, want %d", path, n, size)
	}
	return content.Bytes(), nil
}

// openArchive opens an archive under any name.
func openArchive(path string) (*Data, error) {
	if !isGzip(path) && !slices.Contains([]string{".gz", ".tgz"}, filepath.Ext(path)) {
		return nil, hint.Wrap(fmt.Errorf("%s is neither a CSV manifest (.csv) nor an archive of a data set (.tar.gz)", path),
			"give a built-in data set, a folder with a folder of pictures for each class, or one of these")
	}
	known := []string{}
	for _, s := range sources {
		if s.archive == nil {
			continue
		}
		known = append(known, s.archive.name)
		data, err := s.openArchive(path)
		if !errors.Is(err, errMissing) {
			return data, err
		}
	}
	return nil, hint.Wrap(fmt.Errorf("%s is neither a CSV manifest nor %s", path, strings.Join(known, " or ")),
		"unpack other archives and give the folder")
}

// isGzip reports whether a file begins as gzip's do, or cannot be read.
func isGzip(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	head := make([]byte, 2)
	_, err = io.ReadFull(f, head)
	return err == nil && head[0] == 0x1f && head[1] == 0x8b
}

func (s *source) openArchive(path string) (*Data, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	contents, err := s.readArchive(f)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
		return nil, hint.Wrap(err, "remove the damaged file, then run: residual data get "+s.name)
	}
	return s.assemble(path, contents)
}

// readArchive reads the files of s from a tar.gz. Nothing is written to disk,
// members of other names are passed over, and a name that leads out of the
// archive's folder is an error. The error is errMissing when it is a sound
// archive of something else.
func (s *source) readArchive(r io.Reader) ([][]byte, error) {
	unpacked, err := gzip.NewReader(r)
	if err != nil {
		return nil, truncated(err)
	}
	limit := int64(16 << 20) // what else an archive may hold
	for _, f := range s.files {
		limit += f.bytes
	}
	limited := &io.LimitedReader{R: unpacked, N: limit}
	members := tar.NewReader(limited)
	contents := make([][]byte, len(s.files))
	for {
		h, err := members.Next()
		if limited.N == 0 {
			return nil, fmt.Errorf("it holds more than %d bytes", limit)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, truncated(err)
		}
		if !filepath.IsLocal(filepath.FromSlash(h.Name)) || strings.Contains(h.Name, `\`) {
			return nil, fmt.Errorf("member %q leads out of its folder", h.Name)
		}
		for i, f := range s.files {
			if path.Base(h.Name) != f.name {
				continue
			}
			switch {
			case h.Typeflag != tar.TypeReg:
				return nil, fmt.Errorf("member %s is not a regular file", h.Name)
			case contents[i] != nil:
				return nil, fmt.Errorf("member %s occurs twice", h.Name)
			case h.Size != f.bytes:
				return nil, fmt.Errorf("member %s has %d bytes, want %d", h.Name, h.Size, f.bytes)
			}
			contents[i] = make([]byte, f.bytes)
			if _, err := io.ReadFull(members, contents[i]); err != nil {
				return nil, fmt.Errorf("member %s: %w", h.Name, truncated(err))
			}
		}
	}
	// To the end, where gzip keeps its sum.
	if _, err := io.Copy(io.Discard, limited); err != nil {
		return nil, truncated(err)
	}
	var missing []string
	for i, f := range s.files {
		if contents[i] == nil {
			missing = append(missing, f.name)
		}
	}
	if missing != nil {
		return nil, fmt.Errorf("%w: %s", errMissing, strings.Join(missing, ", "))
	}
	return contents, nil
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the archive is truncated: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("broken archive: %w", err)
}

// unpack writes the files of the archive at path beside it.
func (s *source) unpack(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	contents, err := s.readArchive(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for i, f := range s.files {
		if err := atomicfile.WriteFile(filepath.Join(filepath.Dir(path), f.name), contents[i]); err != nil {
			return err
		}
	}
	return nil
}

// assemble makes a Data from the contents of the files of s. When the files are
// those of another built-in data set in the same layout, it is that set.
func (s *source) assemble(from string, contents [][]byte) (*Data, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return nil, err
	}
	sums := make([][sha256.Size]byte, len(contents))
	each(len(contents), func(i int) { sums[i] = sha256.Sum256(contents[i]) })
	for _, other := range sources {
		if other != s && len(other.files) == len(s.files) && other.files[0].sha256 == hex.EncodeToString(sums[0][:]) {
			s = other
		}
	}
	training, testing, err := s.parse(s, contents)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}

	origin := Origin{Source: from, Counts: map[string]int{train: training.Len(), test: testing.Len()}}
	hash := newContentHash(s.classes)
	var differ []string
	for i, f := range s.files {
		sum := hex.EncodeToString(sums[i][:])
		official := sum == f.sha256
		if !official && f.md5 != "" {
			old := md5.Sum(contents[i])
			official = hex.EncodeToString(old[:]) == f.md5
		}
		if !official {
			differ = append(differ, f.name)
		}
		origin.Files = append(origin.Files, FileOrigin{f.name, int64(len(contents[i])), sum, official})
		hash.add(f.split, f.name, sum)
	}
	if differ != nil {
		origin.Notes = append(origin.Notes, "sums differ from the official files: "+strings.Join(differ, ", "))
	}
	origin.Hash = hash.sum()
	return &Data{Name: s.name, Classes: s.classes, Height: s.height, Width: s.width, Channels: s.channels,
		Train: training, Test: testing, Origin: origin}, nil
}

// contentHash sums lines of text that end in the SHA-256 of some content.
type contentHash struct{ lines strings.Builder }

func newContentHash(classes []string) *contentHash {
	h := &contentHash{}
	fmt.Fprintf(&h.lines, "residual dataset 1\n%q\n", classes)
	return h
}

func (h *contentHash) add(split, what, sum string) {
	fmt.Fprintf(&h.lines, "%s %s %s\n", split, what, sum)
}

func (h *contentHash) sum() string {
	sum := sha256.Sum256([]byte(h.lines.String()))
	return "sha256:" + hex.EncodeToString(sum[:])
}
