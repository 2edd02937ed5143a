package torch

import (
	"archive/zip"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/residual-ml/residual/internal/hint"
)

// Read reads the state_dict of a file of size bytes.
func Read(r io.ReaderAt, size int64) (*File, error) {
	var head [4]byte
	if n, err := r.ReadAt(head[:], 0); n < len(head) {
		return nil, fmt.Errorf("%d bytes are no file of PyTorch: %w", n, err)
	}
	var saved any
	var err error
	f := &File{Layout: "zip"}
	if string(head[:2]) == "PK" {
		saved, f.Extra, err = readZip(r, size)
	} else {
		f.Layout = "stream from before PyTorch 1.6"
		saved, err = readStream(r, size)
	}
	if err != nil {
		return nil, err
	}
	var d *dict
	if d, f.Key, f.Others, err = stateDict(saved); err != nil {
		return nil, err
	}
	f.Tensors, err = load(d, size)
	return f, err
}

// extraName is the entry that Write adds for what PyTorch has no room for.
// PyTorch reads the entries that it knows by name and no others.
const extraName = "extra/residual.json"

const maxExtra = 64 << 20

// readZip reads the layout since PyTorch 1.6.
func readZip(r io.ReaderAt, size int64) (saved any, extra map[string]string, err error) {
	archive, err := zip.NewReader(r, size)
	if err != nil {
		return nil, nil, fmt.Errorf("%w, or it is cut short", err) // zip: not a valid zip file
	}
	entries, prefix, err := checkEntries(archive, size)
	if err != nil {
		return nil, nil, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if f := entries["byteorder"]; f != nil {
		b, err := readEntry(f, 16)
		if err != nil {
			return nil, nil, err
		}
		switch strings.TrimSpace(string(b)) {
		case "little":
		case "big":
			order = binary.BigEndian
		default:
			return nil, nil, fmt.Errorf("byteorder is %.16q, want little or big", b)
		}
	}
	pickle := entries["data.pkl"]
	if pickle == nil {
		return nil, nil, fmt.Errorf("zip: there is no %sdata.pkl", prefix)
	}
	in, err := pickle.Open()
	if err != nil {
		return nil, nil, fmt.Errorf("zip: %s: %w", pickle.Name, err)
	}
	defer in.Close()
	known := map[string]*storage{}
	u := newUnpickler(in, func(id tuple) (any, error) {
		s, err := newStorage(id, order, known)
		if err != nil || s.open != nil {
			return s, err
		}
		f := entries["data/"+s.key]
		if f == nil {
			return nil, fmt.Errorf("storage %s: there is no entry %sdata/%s", s.key, prefix, s.key)
		}
		if want := s.length * int64(s.dtype.Size()); int64(f.UncompressedSize64) != want {
			return nil, fmt.Errorf("storage %s: the entry has %d bytes, want %d for %d elements of %v", s.key, f.UncompressedSize64, want, s.length, s.dtype)
		}
		s.open = func() (io.Reader, error) { return f.Open() }
		return s, nil
	})
	if saved, err = u.load(); err != nil {
		return nil, nil, err
	}
	if f := entries[extraName]; f != nil {
		b, err := readEntry(f, maxExtra)
		if err != nil {
			return nil, nil, err
		}
		if err := json.Unmarshal(b, &extra); err != nil {
			return nil, nil, fmt.Errorf("zip: %s: %w", f.Name, err)
		}
	}
	return saved, extra, nil
}

// checkEntries returns the entries by name without the folder that all lie in.
// Compressed, repeated and overlapping ones are refused: PyTorch writes none, and
// zip bombs are made of them.
func checkEntries(archive *zip.Reader, size int64) (entries map[string]*zip.File, prefix string, err error) {
	entries = map[string]*zip.File{}
	type span struct {
		name       string
		begin, end int64
	}
	var spans []span
	for i, f := range archive.File {
		folder, name, ok := strings.Cut(f.Name, "/")
		if i == 0 {
			prefix = folder + "/"
		}
		if !ok || folder+"/" != prefix {
			return nil, "", fmt.Errorf("zip: entry %.100q, want all in the folder %.100q", f.Name, prefix)
		}
		if strings.HasPrefix(name, "code/") || name == "constants.pkl" {
			return nil, "", hint.Wrap(errors.New("the file is a TorchScript program, not weights"), `in Python: torch.save(torch.jit.load("program.pt").state_dict(), "weights.pth")`)
		}
		if f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64 {
			return nil, "", fmt.Errorf("zip: entry %.100q is compressed, PyTorch's are not", f.Name)
		}
		if entries[name] != nil {
			return nil, "", fmt.Errorf("zip: entry %.100q: duplicate name", f.Name)
		}
		begin, err := f.DataOffset()
		if err != nil {
			return nil, "", fmt.Errorf("zip: entry %.100q: %w", f.Name, err)
		}
		if n := f.UncompressedSize64; n > uint64(size) || begin > size-int64(n) {
			return nil, "", fmt.Errorf("zip: entry %.100q has %d bytes from byte %d on, the file has %d", f.Name, n, begin, size)
		}
		entries[name] = f
		spans = append(spans, span{f.Name, begin, begin + int64(f.UncompressedSize64)})
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end)) })
	for i := 1; i < len(spans); i++ {
		if spans[i].begin < spans[i-1].end {
			return nil, "", fmt.Errorf("zip: entries %.100q and %.100q overlap", spans[i-1].name, spans[i].name)
		}
	}
	if len(entries) == 0 {
		return nil, "", errors.New("zip: the archive is empty")
	}
	return entries, prefix, nil
}

func readEntry(f *zip.File, most uint64) ([]byte, error) {
	if f.UncompressedSize64 > most {
		return nil, fmt.Errorf("zip: entry %.100q has %d bytes, want at most %d", f.Name, f.UncompressedSize64, most)
	}
	in, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("zip: %.100q: %w", f.Name, err)
	}
	defer in.Close()
	b, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("zip: %.100q: %w", f.Name, err)
	}
	return b, nil
}

// newStorage is the storage of a reference ('storage', class, key, location,
// elements, …), the same for the same key.
func newStorage(id tuple, order binary.ByteOrder, known map[string]*storage) (*storage, error) {
	if len(id) < 5 || id[0] != any("storage") {
		if len(id) > 0 && id[0] == any("module") {
			return nil, hint.Wrap(fmt.Errorf("the file holds a whole model with its Python code: %w", errExecutable),
				`in Python: torch.save(model.state_dict(), "weights.pth")`)
		}
		return nil, fmt.Errorf("a reference of %d parts, want that of a storage", len(id))
	}
	class, okClass := id[1].(function)
	key, okKey := id[2].(string)
	length, okLength := id[4].(int64)
	dtype, isStorage := storages[class.name]
	if !okClass || !okKey || !okLength || !isStorage || length < 0 || length > 1<<40 {
		return nil, fmt.Errorf("a storage is %s, %s, %s; want class, key, number of elements", kind(id[1]), kind(id[2]), kind(id[4]))
	}
	if s := known[key]; s != nil {
		if s.dtype != dtype || s.length != length {
			return nil, fmt.Errorf("storage %.100s is %d elements of %v and %d of %v", key, s.length, s.dtype, length, dtype)
		}
		return s, nil
	}
	s := &storage{key: key, dtype: dtype, length: length, order: order}
	known[key] = s
	return s, nil
}

// The first two pickles of the stream.
const (
	magicNumber   = bigInt("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") // 0x1950a86a20f9469cfc6c
	streamVersion = int64(1001)
)

// readStream reads the layout before PyTorch 1.6.
func readStream(r io.ReaderAt, size int64) (any, error) {
	var order binary.ByteOrder = binary.LittleEndian
	known := map[string]*storage{}
	u := newUnpickler(io.NewSectionReader(r, 0, size), func(id tuple) (any, error) {
		s, err := newStorage(id, order, known)
		if err != nil {
			return nil, err
		}
		if s.length > size/int64(s.dtype.Size()) {
			return nil, fmt.Errorf("storage %.100s has %d elements of %v, more than a file of %d bytes", s.key, s.length, s.dtype, size)
		}
		if len(id) > 5 && id[5] != nil {
			return nil, fmt.Errorf("storage %.100s is a view of another one, as PyTorch before 0.4 wrote: save the file again with a newer one", s.key)
		}
		return s, nil
	})
	magic, err := u.load()
	if err != nil {
		return nil, err
	}
	if magic != any(magicNumber) {
		return nil, fmt.Errorf("the file begins with a pickle of %s, want PyTorch's magic number", kind(magic))
	}
	version, err := u.load()
	if err != nil {
		return nil, err
	}
	if version != any(streamVersion) {
		return nil, fmt.Errorf("version %s of the stream, want %d", plain(version), streamVersion)
	}
	system, err := u.load()
	if err != nil {
		return nil, err
	}
	if d, ok := system.(*dict); ok {
		if little, ok := d.get("little_endian"); ok && little == any(false) {
			order = binary.BigEndian
		}
	}
	saved, err := u.load()
	if err != nil {
		return nil, err
	}
	names, err := u.load()
	if err != nil {
		return nil, err
	}
	at := u.at
	listed, ok := names.(*list)
	if !ok {
		return nil, fmt.Errorf("the storages' names are %s, want a list", kind(names))
	}
	for _, k := range listed.items {
		key, _ := k.(string)
		s := known[key]
		if s == nil || s.open != nil {
			return nil, fmt.Errorf("storage %s is listed, but no tensor or an earlier storage has that name", plain(k))
		}
		var count [8]byte
		if _, err := r.ReadAt(count[:], at); err != nil {
			return nil, fmt.Errorf("storage %.100s: the file ends before it: it is cut short", key)
		}
		if n := order.Uint64(count[:]); n != uint64(s.length) {
			return nil, fmt.Errorf("storage %.100s has %d elements, its tensors want %d", key, n, s.length)
		}
		at += 8
		n := s.length * int64(s.dtype.Size())
		if n > size-at {
			return nil, fmt.Errorf("storage %.100s takes %d bytes from byte %d on, the file has %d: it is cut short", key, n, at, size)
		}
		from := at
		s.open = func() (io.Reader, error) { return io.NewSectionReader(r, from, n), nil }
		at += n
	}
	for key, s := range known {
		if s.open == nil {
			return nil, fmt.Errorf("storage %.100s of %d elements is not in the file", key, s.length)
		}
	}
	if at != size {
		return nil, fmt.Errorf("%d bytes follow the last storage", size-at)
	}
	return saved, nil
}
