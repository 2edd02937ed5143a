package hdf5

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/tensor"
)

// manifest is what h5py says is in the files of testdata, and what must be
// refused; golden/hdf5_files.py writes it.
type manifest struct {
	Files map[string]struct {
		Groups     []string
		Attributes map[string][]string
		Datasets   map[string]struct {
			Type   string
			Shape  []int
			Values []float64
		}
	}
	Refused map[string]string
	Deep    int // groups called group_with_a_long_name_0000, … in /g of deep.h5.gz
}

func readManifest(t *testing.T) manifest {
	t.Helper()
	var m manifest
	b, err := os.ReadFile("testdata/manifest.json")
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Files) < 4 || len(m.Refused) < 8 {
		t.Fatalf("%d files and %d refused ones", len(m.Files), len(m.Refused))
	}
	return m
}

func open(t *testing.T, name string) (*File, error) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return Read(bytes.NewReader(b), int64(len(b)))
}

// walk calls visit for o and all below it.
func walk(o *Object, visit func(*Object)) {
	visit(o)
	for _, c := range o.Children {
		walk(c, visit)
	}
}

var dtypes = map[string]tensor.DType{"float16": tensor.Float16, "float32": tensor.Float32, "float64": tensor.Float64, "int8": tensor.Int8,
	"int16": tensor.Int16, "int32": tensor.Int32, "int64": tensor.Int64, "uint8": tensor.Uint8, "bool": tensor.Int8}

func TestRead(t *testing.T) {
	for name, want := range readManifest(t).Files {
		t.Run(name, func(t *testing.T) {
			f, err := open(t, name)
			if err != nil {
				t.Fatal(err)
			}
			var groups []string
			datasets, attributes := 0, 0
			walk(f.Root, func(o *Object) {
				if o.Data == nil {
					groups = append(groups, o.Path)
				} else {
					datasets++
				}
				for _, a := range o.Attributes {
					if _, err := a.Strings(); err == nil {
						attributes++
					}
				}
			})
			slices.Sort(groups)
			slices.Sort(want.Groups)
			if !slices.Equal(groups, want.Groups) {
				t.Errorf("groups %q, want %q", groups, want.Groups)
			}
			if datasets != len(want.Datasets) || attributes != len(want.Attributes) || datasets == 0 {
				t.Errorf("%d data sets and %d attributes of strings, want %d and %d", datasets, attributes, len(want.Datasets), len(want.Attributes))
			}
			for path, w := range want.Datasets {
				o := f.Root.Child(path[1:])
				if o == nil || o.Data == nil {
					t.Errorf("no data set %s", path)
					continue
				}
				got, err := o.Data.Tensor()
				if err != nil {
					t.Errorf("%s: %v", path, err)
					continue
				}
				if !slices.Equal(got.Shape(), tensor.Shape(w.Shape)) || got.DType() != dtypes[w.Type] {
					t.Errorf("%s: %v %v, want %s %v", path, got.DType(), got.Shape(), w.Type, w.Shape)
					continue
				}
				for i, v := range got.Convert(tensor.Float64).Float64s() {
					if v != w.Values[i] {
						t.Errorf("%s[%d] = %v, want %v", path, i, v, w.Values[i])
						break
					}
				}
			}
			for at, w := range want.Attributes {
				path, name, _ := strings.Cut(at, "@")
				o := f.Root
				if path != "/" {
					o = o.Child(path[1:])
				}
				if o == nil || o.Attribute(name) == nil {
					t.Errorf("no attribute %s", at)
					continue
				}
				if got, err := o.Attribute(name).Strings(); err != nil || !slices.Equal(got, w) {
					t.Errorf("%s = %.60q, %v; want %.60q", at, got, err, w)
				}
			}
		})
	}
}

// TestDeep has an index of three levels and a heap of several rows.
func TestDeep(t *testing.T) {
	want := readManifest(t).Deep
	packed, err := os.Open("testdata/deep.h5.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	g := f.Root.Child("g")
	if g == nil || len(g.Children) != want || want < 1000 {
		t.Fatalf("%v, want %d groups", g, want)
	}
	for i := range want {
		if name := fmt.Sprintf("group_with_a_long_name_%04d", i); g.Child(name) == nil {
			t.Errorf("there is no %s", name)
		}
	}
}

// TestDamaged flips a bit in everything that has a checksum.
func TestDamaged(t *testing.T) {
	good, err := os.ReadFile("testdata/latest.h5")
	if err != nil {
		t.Fatal(err)
	}
	everything := func(b []byte) error {
		f, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return err
		}
		walk(f.Root, func(o *Object) {
			if o.Data == nil {
				return
			}
			if _, e := o.Data.Tensor(); e != nil {
				err = e
			}
		})
		return err
	}
	if err := everything(good); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{signature, "OHDR", "FRHP", "BTHD", "BTLF", "FAHD", "FADB"} {
		found := 0
		for at := 0; ; at++ {
			next := bytes.Index(good[at:], []byte(kind))
			if next < 0 {
				break
			}
			at += next
			found++
			for _, offset := range []int{len(kind) + 3, len(kind) + 8} {
				bad := bytes.Clone(good)
				bad[at+offset] ^= 0x10
				if err := everything(bad); err == nil {
					t.Errorf("%q at byte %d with a bit of byte %d flipped was read", kind, at, offset)
				}
			}
		}
		if found == 0 {
			t.Errorf("the file has no %q", kind)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, want := range readManifest(t).Refused {
		if _, err := open(t, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want …%s…", name, err, want)
		}
	}
}

// tree is a file with every type and shape that Write knows.
func tree() *Group {
	root := NewGroup()
	root.Attribute("keras_version", "3.15.1")
	root.Attribute("empty", "")
	root.Attribute("sign", "残差")
	layers := root.Group("layers")
	for i := range 40 {
		vars := layers.Group(fmt.Sprintf("conv2d_%d", i)).Group("vars")
		vars.Attribute("name", fmt.Sprintf("layer%d", i))
		vars.Dataset("0", tensor.Of([]float32{float32(i), -1.5, float32(math.Inf(1)), 0}, 2, 1, 2))
	}
	root.Group("nothing")
	types := root.Group("types")
	types.Dataset("float64", tensor.Of([]float64{math.Pi, -0.5, 1e300}, 3))
	types.Dataset("float16", tensor.OfBits(tensor.Float16, []uint16{0x3c00, 0xc000, 0x7bff}, 3))
	types.Dataset("int64", tensor.Of([]int64{math.MinInt64, 7}, 2))
	types.Dataset("int32", tensor.Of([]int32{-1, 7, 9}, 3))
	types.Dataset("uint8", tensor.Of([]uint8{1, 255, 3}, 3))
	types.Dataset("scalar", tensor.Scalar(2.5))
	types.Dataset("none", tensor.New(tensor.Float32, 0, 4))
	return root
}

func TestWriteReadBack(t *testing.T) {
	var first, second bytes.Buffer
	for _, w := range []*bytes.Buffer{&first, &second} {
		if err := Write(w, tree()); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same tree written twice differs")
	}
	f, err := Read(bytes.NewReader(first.Bytes()), int64(first.Len()))
	if err != nil {
		t.Fatal(err)
	}
	var compare func(path string, g *Group, o *Object) int
	compare = func(path string, g *Group, o *Object) int {
		for _, a := range g.attributes {
			if got, err := o.Attribute(a.name).Text(); err != nil || got != a.value {
				t.Errorf("%s@%s = %q, %v; want %q", path, a.name, got, err, a.value)
			}
		}
		if len(o.Children) != len(g.members) {
			t.Fatalf("%s has %d members, want %d", path, len(o.Children), len(g.members))
		}
		n := 0
		for i, m := range g.members {
			c := o.Children[i]
			if c.Name() != m.name {
				t.Fatalf("%s: member %d is %q, want %q", path, i, c.Name(), m.name)
			}
			if m.group != nil {
				n += compare(c.Path, m.group, c)
				continue
			}
			got, err := c.Data.Tensor()
			if err != nil || !got.Shape().Equal(m.tensor.Shape()) || !reflect.DeepEqual(got.Reshape(got.Len()), m.tensor.Reshape(got.Len())) {
				t.Errorf("%s = %v, %v; want %v", c.Path, got, err, m.tensor)
			}
			n++
		}
		return n
	}
	if n := compare("/", tree(), f.Root); n != 47 {
		t.Errorf("%d tensors compared, want 47", n)
	}
}

// TestLookup3 has the values of the author's own file (driver5 of lookup3.c).
func TestLookup3(t *testing.T) {
	for text, want := range map[string]uint32{"": 0xdeadbeef, "Four score and seven years ago": 0x17770551} {
		if got := lookup3([]byte(text)); got != want {
			t.Errorf("lookup3(%q) = %08x, want %08x", text, got, want)
		}
	}
}

// TestTruncated cuts files everywhere: an error, never a panic or a success.
func TestTruncated(t *testing.T) {
	for _, name := range []string{"earliest.h5", "latest.h5"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(b); n += 61 {
			if _, err := Read(bytes.NewReader(b[:n]), int64(n)); err == nil {
				t.Fatalf("%s cut to %d of %d bytes was read", name, n, len(b))
			}
		}
	}
}

// TestBombs are small files that claim much.
func TestBombs(t *testing.T) {
	var b bytes.Buffer
	root := NewGroup()
	root.Dataset("x", tensor.New(tensor.Float32, 4, 4))
	if err := Write(&b, root); err != nil {
		t.Fatal(err)
	}
	// The dataspace of x: version 2, rank 2, 4×4. The header's checksum follows its 4-byte size.
	space := append([]byte{2, 2, 0, 1}, le64(nil, 4, 4)...)
	at := bytes.Index(b.Bytes(), space)
	header := bytes.LastIndex(b.Bytes()[:at], []byte("OHDR"))
	size := 10 + int(b.Bytes()[header+6])
	for _, dims := range [][2]uint64{{1 << 40, 1 << 40}, {1 << 31, 1 << 31}, {0, math.MaxUint64}, {1 << 20, 1 << 20}, {4, 5}} {
		bomb := bytes.Clone(b.Bytes())
		copy(bomb[at+4:], le64(nil, dims[0], dims[1]))
		copy(bomb[header+size:], le32(nil, lookup3(bomb[header:header+size])))
		f, err := Read(bytes.NewReader(bomb), int64(len(bomb)))
		if err == nil {
			_, err = f.Root.Child("x").Data.Tensor()
		}
		if err == nil || strings.Contains(err.Error(), "checksum") {
			t.Errorf("%v elements in %d bytes: %v", dims, len(bomb), err)
		}
	}
}

func FuzzRead(f *testing.F) {
	names, err := filepath.Glob("testdata/*.h5")
	if err != nil || len(names) < 10 {
		f.Fatalf("%d seeds, %v", len(names), err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		bytes := int64(0)
		walk(file.Root, func(o *Object) {
			for _, a := range o.Attributes {
				a.Strings()
			}
			if o.Data == nil {
				return
			}
			if x, err := o.Data.Tensor(); err == nil {
				bytes += int64(x.Len() * x.DType().Size())
			}
		})
		if limit := int64(decodedBase + decodedTimes*len(b)); bytes > limit {
			t.Errorf("%d bytes decoded from %d", bytes, len(b))
		}
	})
}
