package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/residual-ml/residual/internal/hint"
)

// maxTextBytes bounds manifests and class maps.
const maxTextBytes = 256 << 20

// row is one line of a manifest.
type row struct {
	line                 int
	image, target, split string
}

// openManifest opens a CSV file whose header names the columns image (or path,
// filename, file_name), target (or label) and, optionally, split. Paths are relative to the file.
func openManifest(ctx context.Context, path string, o Options) (*Data, error) {
	text, err := readText(path)
	if err != nil {
		return nil, err
	}
	rows, err := parseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	base := filepath.Base(absolute)
	sum := sha256.Sum256(text)
	c := &collection{name: strings.TrimSuffix(base, filepath.Ext(base)), source: absolute,
		origin: []FileOrigin{{Name: base, Bytes: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}}}

	var targets []string
	for _, r := range rows {
		targets = append(targets, r.target)
	}
	slices.Sort(targets)
	targets = slices.Compact(targets)
	if numbered(targets) {
		slices.SortFunc(targets, compareNumbers)
	}
	if c.classes, err = orderClasses(targets, o.ClassMap); err != nil {
		return nil, err
	}
	for _, r := range rows {
		p := filepath.FromSlash(r.image)
		if !filepath.IsAbs(p) {
			p = filepath.Join(filepath.Dir(path), p)
		}
		c.files = append(c.files, found{p, r.split, r.target})
	}
	return c.open(ctx, o)
}

// numbered reports whether targets are the numbers 0…n-1, whose order is then
// that of numbers: 2 before 10.
func numbered(targets []string) bool {
	for _, t := range targets {
		if n, err := strconv.Atoi(t); err != nil || n < 0 || n >= len(targets) || strconv.Itoa(n) != t {
			return false
		}
	}
	return true // they are distinct
}

func compareNumbers(a, b string) int {
	x, _ := strconv.Atoi(a)
	y, _ := strconv.Atoi(b)
	return x - y
}

func parseManifest(text []byte) ([]row, error) {
	r := csv.NewReader(bytes.NewReader(withoutBOM(text)))
	r.TrimLeadingSpace = true
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty, want a header line: image,target")
	}
	if err != nil {
		return nil, err
	}
	column := func(names ...string) (int, error) {
		at := -1
		for i, h := range header {
			if slices.Contains(names, strings.ToLower(strings.TrimSpace(h))) {
				if at >= 0 {
					return 0, fmt.Errorf("columns %q and %q mean the same", header[at], h)
				}
				at = i
			}
		}
		return at, nil
	}
	imageAt, err1 := column("image", "path", "filename", "file_name")
	targetAt, err2 := column("target", "label")
	splitAt, err3 := column("split")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if imageAt < 0 || targetAt < 0 {
		err := fmt.Errorf("its columns are %q, want image (or path, filename, file_name) and target (or label), and optionally split", header)
		if len(header) == 1 && strings.ContainsAny(header[0], ";\t") {
			return nil, hint.Wrap(err, "columns are separated by commas")
		}
		return nil, err
	}

	var rows []row
	seen := map[string]row{}
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := r.FieldPos(0)
		entry := row{line: line, image: strings.TrimSpace(fields[imageAt]), target: strings.TrimSpace(fields[targetAt]), split: train}
		if entry.image == "" || entry.target == "" {
			return nil, fmt.Errorf("line %d: image is %q and target %q, want both", line, entry.image, entry.target)
		}
		if strings.ContainsRune(entry.image, 0) {
			return nil, fmt.Errorf("line %d: image %q is no file name", line, entry.image)
		}
		if splitAt >= 0 {
			if s := strings.ToLower(strings.TrimSpace(fields[splitAt])); s != "" {
				known, ok := splitNames[s]
				if !ok {
					return nil, fmt.Errorf("line %d: split is %q, want train, val, valid, validation or test", line, s)
				}
				entry.split = known
			}
		}
		if first, ok := seen[entry.image]; ok && (first.target != entry.target || first.split != entry.split) {
			return nil, fmt.Errorf("line %d: %s is %q in %s, on line %d it is %q in %s", line, entry.image, entry.target, entry.split, first.line, first.target, first.split)
		}
		seen[entry.image] = entry
		rows = append(rows, entry)
	}
	if len(rows) == 0 {
		return nil, errors.New("it has a header and no rows")
	}
	return rows, nil
}

// orderClasses returns classes as they are, or in the order of the class map,
// which must cover them and may name more.
func orderClasses(classes []string, classMap string) ([]string, error) {
	if classMap == "" {
		return classes, nil
	}
	names, err := ReadClassMap(classMap)
	if err != nil {
		return nil, err
	}
	lines := map[string]int{}
	for i, name := range names {
		if first, ok := lines[name]; ok {
			return nil, fmt.Errorf("class map %s: line %d: class %q is on line %d too", classMap, i+1, name, first)
		}
		lines[name] = i + 1
	}
	var missing []string
	for _, class := range classes {
		if lines[class] == 0 {
			missing = append(missing, class)
		}
	}
	if missing != nil {
		return nil, fmt.Errorf("class map %s: it lacks %s", classMap, few(missing))
	}
	return names, nil
}

// ReadClassMap reads a text file with the name of one class on each line. Two may
// have the same name: ImageNet has a bird and a machine that are called crane.
func ReadClassMap(path string) ([]string, error) {
	text, err := readText(path)
	if err != nil {
		return nil, fmt.Errorf("class map: %w", err)
	}
	names, err := parseClassMap(text)
	if err != nil {
		return nil, fmt.Errorf("class map %s: %w", path, err)
	}
	return names, nil
}

func parseClassMap(text []byte) ([]string, error) {
	lines := strings.Split(strings.TrimRight(string(withoutBOM(text)), "\r\n\t "), "\n")
	var names []string
	for i, line := range lines {
		name := strings.TrimSpace(line)
		if name == "" {
			return nil, fmt.Errorf("line %d is empty, want a class name on each line", i+1)
		}
		names = append(names, name)
	}
	return names, nil
}

func readText(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTextBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxTextBytes {
		return nil, fmt.Errorf("%s: it is larger than %d bytes", path, maxTextBytes)
	}
	return text, nil
}

func withoutBOM(text []byte) []byte { return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) }
