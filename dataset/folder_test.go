package dataset

import (
	"bytes"
	"context"
	"fmt"
	"image/color"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/internal/hint"
)

// photos writes n PNGs per class below dir, all different, of 3×2.
func photos(t testing.TB, dir string, n int, classes ...string) {
	t.Helper()
	for _, class := range classes {
		for i := range n {
			c := color.RGBA{uint8(i), uint8(len(dir) + len(class)), class[0], 255}
			write(t, filepath.Join(dir, class, fmt.Sprintf("%02d.png", i)), plain(t, 3, 2, c))
		}
	}
}

func TestFolderWithSplits(t *testing.T) {
	for _, val := range []string{"val", "valid", "validation"} {
		root := filepath.Join(t.TempDir(), "zoo")
		// Bytewise: upper case before lower, "10" before "2".
		photos(t, filepath.Join(root, "train"), 3, "cat", "Dog", "2", "10")
		photos(t, filepath.Join(root, val), 2, "cat", "Dog", "2", "10")
		photos(t, filepath.Join(root, "test"), 1, "cat", "Dog", "2")
		write(t, filepath.Join(root, "README.txt"), []byte("hello"))
		write(t, filepath.Join(root, "train", "cat", "notes.md"), []byte("hello"))
		write(t, filepath.Join(root, "train", "cat", ".hidden.png"), []byte("hello"))
		write(t, filepath.Join(root, ".git", "x", "y.png"), []byte("hello"))
		write(t, filepath.Join(root, "train", "cat", "more", "deep.JPG"), jpegOf(t, quadrants(), nil))

		data, err := Open(t.Context(), root, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"10", "2", "Dog", "cat"}; !slices.Equal(data.Classes, want) || data.Name != "zoo" {
			t.Errorf("%s has classes %v, want %v", data.Name, data.Classes, want)
		}
		if got := fmt.Sprint(data.Origin.Counts); got != "map[test:3 train:13 validation:8]" {
			t.Errorf("counts %s", got)
		}
		notes := strings.Join(data.Origin.Notes, "\n")
		for _, want := range []string{"2 files are not pictures", "README.txt", "notes.md", "test has no picture of 10"} {
			if !strings.Contains(notes, want) {
				t.Errorf("notes %q lack %q", notes, want)
			}
		}
		if strings.Contains(notes, "hidden") {
			t.Errorf("notes %q name hidden files", notes)
		}
		if data.Height != 0 { // one JPEG is larger
			t.Errorf("pictures of different sizes are %d×%d", data.Height, data.Width)
		}
		if name, label := data.Train.Name(0), data.Train.Label(0); name != filepath.Join(root, "train", "10", "00.png") || label != 0 {
			t.Errorf("first picture %s of class %d", name, label)
		}
		var m Image
		if err := data.Train.Image(0, &m); err != nil || m.Channels != 3 || m.Height != 2 || m.Width != 3 || m.Pix[2] != '1' {
			t.Errorf("first picture: %v %+v", err, m)
		}
	}
}

func TestFolderWithoutSplits(t *testing.T) {
	root := t.TempDir()
	photos(t, root, 20, "a", "b")
	data, err := Open(t.Context(), root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if data.Train.Len() != 40 || data.Validation != nil || data.Test != nil || data.Height != 2 || data.Width != 3 {
		t.Errorf("%+v", data)
	}
	split, err := Open(t.Context(), root, Options{ValFraction: 0.2, Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(countLabels(split.Train, 2), countLabels(split.Validation, 2)); got != "[16 16] [4 4]" {
		t.Errorf("split into %s", got)
	}
	if split.Origin.Hash != data.Origin.Hash {
		t.Error("holding pictures out changed the hash of the data")
	}

	// The same files elsewhere, renamed so that their order is another.
	other := t.TempDir()
	for i := range 20 {
		for _, class := range []string{"a", "b"} {
			content, err := os.ReadFile(filepath.Join(root, class, fmt.Sprintf("%02d.png", i)))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(other, class, fmt.Sprintf("%02d.png", 19-i)), content)
		}
	}
	renamed, err := Open(t.Context(), other, Options{ValFraction: 0.2, Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	held := func(d *Data) string {
		var all []string
		var m Image
		for i := range d.Validation.Len() {
			if err := d.Validation.Image(i, &m); err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprint(m.Pix))
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	if held(split) != held(renamed) {
		t.Error("renamed files are split in another way")
	}
}

func TestFolderHashIsOfContent(t *testing.T) {
	hash := func(change func(root string)) string {
		root := filepath.Join(t.TempDir(), "x")
		photos(t, filepath.Join(root, "train"), 2, "a", "b")
		change(root)
		data, err := Open(t.Context(), root, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return data.Origin.Hash
	}
	base := hash(func(string) {})
	if base != hash(func(string) {}) {
		t.Error("equal folders have different hashes")
	}
	if base == hash(func(root string) {
		write(t, filepath.Join(root, "train", "a", "00.png"), plain(t, 3, 2, color.White))
	}) {
		t.Error("another picture has the same hash")
	}
	if base == hash(func(root string) { os.Rename(filepath.Join(root, "train", "b"), filepath.Join(root, "train", "c")) }) {
		t.Error("another class name has the same hash")
	}
}

func TestFolderErrors(t *testing.T) {
	for name, test := range map[string]struct {
		lay  func(root string)
		want []string
	}{
		"empty":           {func(root string) {}, []string{"no pictures in class folders"}},
		"pictures on top": {func(root string) { write(t, filepath.Join(root, "a.png"), plain(t, 1, 1, color.White)) }, []string{"no pictures in class folders"}},
		"one class":       {func(root string) { photos(t, root, 1, "a") }, []string{"1 class (a), want at least 2"}},
		"empty class":     {func(root string) { photos(t, root, 1, "a", "b"); os.Mkdir(filepath.Join(root, "c"), 0o777) }, []string{filepath.Join("", "c"), "holds no pictures"}},
		"unknown class in val": {func(root string) {
			photos(t, filepath.Join(root, "train"), 1, "a", "b")
			photos(t, filepath.Join(root, "val"), 1, "a", "z")
		}, []string{`class "z" is in val and not in train`}},
		"two validations": {func(root string) {
			photos(t, filepath.Join(root, "train"), 1, "a", "b")
			photos(t, filepath.Join(root, "val"), 1, "a")
			photos(t, filepath.Join(root, "valid"), 1, "a")
		}, []string{"both val and valid"}},
		"broken": {func(root string) {
			photos(t, root, 1, "a", "b")
			write(t, filepath.Join(root, "b", "bad.jpg"), []byte("no"))
			write(t, filepath.Join(root, "b", "scan.tiff"), []byte("no"))
		}, []string{"2 of 4 pictures cannot be read", filepath.Join("b", "bad.jpg") + ": not a picture in a known format", "scan.tiff"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			test.lay(root)
			_, err := Open(t.Context(), root, Options{})
			wantError(t, err, append(test.want, root)...)
		})
	}
}

// A class may be called train.
func TestClassCalledTrain(t *testing.T) {
	root := t.TempDir()
	photos(t, root, 2, "bus", "train")
	data, err := Open(t.Context(), root, Options{})
	if err != nil || !slices.Equal(data.Classes, []string{"bus", "train"}) || data.Train.Len() != 4 {
		t.Errorf("%v %+v", err, data)
	}
}

func TestBadImagePolicy(t *testing.T) {
	root := t.TempDir()
	photos(t, root, 3, "a", "b")
	whole := jpegOf(t, quadrants(), nil)
	cut := filepath.Join(root, "a", "cut.jpg")
	write(t, cut, whole[:len(whole)-30]) // a sound header
	empty := filepath.Join(root, "b", "empty.png")
	write(t, empty, nil)

	_, err := Open(t.Context(), root, Options{})
	wantError(t, err, empty)
	if h := hint.Of(err); !strings.Contains(h, "--on-bad-image skip") {
		t.Errorf("hint %q", h)
	}
	os.Remove(empty)

	data, err := Open(t.Context(), root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	bad := -1
	for i := range data.Train.Len() {
		if data.Train.Name(i) == cut {
			bad = i
		}
	}
	err = data.Train.Image(bad, &Image{})
	wantError(t, err, cut, "broken jpeg picture")

	var log bytes.Buffer
	data, err = Open(t.Context(), root, Options{OnBadImage: "skip", Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if data.Train.Len() != 6 || len(data.Origin.Skipped) != 1 || !strings.Contains(data.Origin.Skipped[0], cut) {
		t.Errorf("%d pictures, skipped %q", data.Train.Len(), data.Origin.Skipped)
	}
	if !strings.Contains(log.String(), "1 pictures cannot be read") {
		t.Errorf("log %q", log.String())
	}
	checkAll(t, data.Train, 2)

	// A class of which nothing is left in train is an error where it matters.
	photos(t, filepath.Join(root, "s", "train"), 1, "a", "b")
	photos(t, filepath.Join(root, "s", "val"), 1, "a", "b")
	write(t, filepath.Join(root, "s", "train", "b", "00.png"), []byte("no"))
	_, err = Open(t.Context(), filepath.Join(root, "s"), Options{OnBadImage: "skip"})
	wantError(t, err, `class "b" has pictures in validation and none in train`)
}

func TestLinks(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	photos(t, root, 2, "a")
	photos(t, elsewhere, 3, "b")
	if err := os.Symlink(filepath.Join(elsewhere, "b"), filepath.Join(root, "b")); err != nil {
		t.Skip(err)
	}
	os.Symlink(root, filepath.Join(root, "a", "loop"))
	os.Symlink(filepath.Join(elsewhere, "b", "00.png"), filepath.Join(root, "a", "link.png"))
	data, err := Open(t.Context(), root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(countLabels(data.Train, 2)); got != "[3 3]" {
		t.Errorf("pictures per class %s", got)
	}
	if notes := strings.Join(data.Origin.Notes, "\n"); !strings.Contains(notes, "not followed: "+filepath.Join(root, "a", "loop")) {
		t.Errorf("notes %q", notes)
	}
}

func TestClassMap(t *testing.T) {
	root := t.TempDir()
	photos(t, filepath.Join(root, "p"), 2, "a", "b")
	file := filepath.Join(root, "classes.txt")
	open := func(text string) (*Data, error) {
		write(t, file, []byte(text))
		return Open(t.Context(), filepath.Join(root, "p"), Options{ClassMap: file})
	}
	data, err := open("\xef\xbb\xbfb\r\nother\r\na\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(data.Classes, []string{"b", "other", "a"}) || fmt.Sprint(Labels(data.Train)) != "[0 0 2 2]" {
		t.Errorf("classes %q, labels %v", data.Classes, Labels(data.Train))
	}
	for text, want := range map[string]string{
		"a\nc\n": "it lacks b", "a\nb\na\n": `line 3: class "a" is on line 1 too`, "a\n\nb\n": "line 2 is empty", "": "line 1 is empty",
	} {
		_, err := open(text)
		wantError(t, err, file, want)
	}
}

// Two classes of a network from elsewhere may have the same name, as ImageNet's two
// cranes; those of a folder, which is what tells them apart, may not.
func TestReadClassMap(t *testing.T) {
	file := filepath.Join(t.TempDir(), "classes.txt")
	write(t, file, []byte("crane\nflamingo\ncrane\n"))
	names, err := ReadClassMap(file)
	if err != nil || strings.Join(names, " ") != "crane flamingo crane" {
		t.Errorf("%q, %v", names, err)
	}
	for name, want := range map[string]string{"cifar10": "airplane truck", "mnist": "0 9", "shapes": "arrow triangle"} {
		names := ClassNames(name)
		if len(names) != 10 || names[0]+" "+names[9] != want {
			t.Errorf("%s: %q", name, names)
		}
	}
	if names := ClassNames(file); names != nil {
		t.Errorf("%q", names)
	}
}

// What would steer a terminal is no class; files of networks refuse it too.
func TestClassWithControlCharacters(t *testing.T) {
	for _, name := range []string{"a\nb", "\x1b[31mred"} {
		root := t.TempDir()
		photos(t, root, 2, "a", name)
		_, err := Open(t.Context(), root, Options{})
		wantError(t, err, fmt.Sprintf("class %q has control characters", name))
		file := filepath.Join(root, "list.csv")
		write(t, file, fmt.Appendf(nil, "image,target\na/00.png,\"%s\"\na/01.png,b\n", name))
		_, err = Open(t.Context(), file, Options{})
		wantError(t, err, fmt.Sprintf("class %q has control characters", name))
	}
}

func TestManifest(t *testing.T) {
	root := t.TempDir()
	photos(t, filepath.Join(root, "p"), 3, "a", "b")
	file := filepath.Join(root, "list.csv")
	open := func(text string) (*Data, error) {
		write(t, file, []byte(text))
		return Open(t.Context(), file, Options{})
	}
	data, err := open("\xef\xbb\xbfLabel, path ,extra,split\nyes,p/a/00.png,1,train\nno,p/b/00.png,2,\nno,p/a/01.png,3,val\nyes,\"p/b/01.png\",4,test\n")
	if err != nil {
		t.Fatal(err)
	}
	if data.Name != "list" || !slices.Equal(data.Classes, []string{"no", "yes"}) || fmt.Sprint(data.Origin.Counts) != "map[test:1 train:2 validation:1]" {
		t.Errorf("%+v", data)
	}
	if data.Train.Name(1) != filepath.Join(root, "p", "b", "00.png") || fmt.Sprint(Labels(data.Train)) != "[1 0]" {
		t.Errorf("%s, labels %v", data.Train.Name(1), Labels(data.Train))
	}
	checkAll(t, data.Train, 2)

	// Numbers are in the order of numbers.
	var text strings.Builder
	text.WriteString("image,target\n")
	for i := range 11 {
		fmt.Fprintf(&text, "p/a/%02d.png,%d\n", i%3+100*(i/3), i)
		write(t, filepath.Join(root, "p", "a", fmt.Sprintf("%02d.png", i%3+100*(i/3))), plain(t, 1, 1, color.Gray{uint8(i)}))
	}
	data, err = open(text.String())
	if err != nil || data.Classes[2] != "2" || data.Classes[10] != "10" {
		t.Errorf("%v, classes %v", err, data)
	}

	for text, want := range map[string]string{
		"":                                         "it is empty",
		"image,target\n":                           "no rows",
		"file,target\nx,y\n":                       `its columns are ["file" "target"]`,
		"image,path,target\nx,x,y\n":               `columns "image" and "path" mean the same`,
		"image,target\nx\n":                        "wrong number of fields",
		"image,target\nx,\n":                       "line 2: image is \"x\" and target \"\"",
		"image,target,split\nx,y,z\n":              `line 2: split is "z"`,
		"image,target\nx,y\nx,z\n":                 `line 3: x is "z" in train, on line 2 it is "y"`,
		"image,target\nx,\"y\n":                    "line 2",
		"image;target\nx;y\n":                      "want image (or path, filename, file_name)",
		"image,target\nnone.png,y\np/a/00.png,z\n": "none.png: ",
	} {
		_, err := open(text)
		wantError(t, err, want)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte("image,target,split\na.png,b,val\n"))
	f.Add([]byte("path,label\n\"a,b\",c\n"))
	f.Add([]byte("image,target\nx\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		rows, err := parseManifest(text)
		if err == nil && len(rows) == 0 {
			t.Error("no rows and no error")
		}
		for _, r := range rows {
			if r.image == "" || r.target == "" || !slices.Contains(splitOrder, r.split) || r.line < 2 {
				t.Errorf("row %+v", r)
			}
		}
	})
}

func FuzzClassMap(f *testing.F) {
	f.Add([]byte("a\nb\n"))
	f.Add([]byte("\xef\xbb\xbfa\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		names, err := parseClassMap(text)
		if err == nil && len(names) == 0 {
			t.Error("no names and no error")
		}
	})
}

func TestCancelled(t *testing.T) {
	root := t.TempDir()
	photos(t, root, 2, "a", "b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, root, Options{}); err == nil {
		t.Error("opened after cancellation")
	}
}

// A picture that is replaced while a run reads the folder is noticed when it is
// read, and the others are not affected.
func TestFileChangesAfterOpening(t *testing.T) {
	dir := t.TempDir()
	photos(t, dir, 3, "cat", "dog")
	data, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	changed := data.Train.Name(2)
	write(t, changed, plain(t, 5, 5, color.White))
	var m Image
	wantError(t, data.Train.Image(2, &m), filepath.Base(changed), "has changed since the data set was opened")
	for _, i := range []int{0, 1, 3} {
		if err := data.Train.Image(i, &m); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(changed); err != nil {
		t.Fatal(err)
	}
	wantError(t, data.Train.Image(2, &m), filepath.Base(changed))
}
