package onnx

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/tensor"
)

// edit rewrites a message: change returns what takes the place of a field, whole
// with its tag, or nil to keep it. Messages whose numbers path names are gone into.
func edit(t testing.TB, b []byte, path []protowire.Number, change func(f field) []byte) []byte {
	t.Helper()
	var out encoder
	err := message(b, func(f field) error {
		if len(path) > 0 && f.num == path[0] && f.wire == protowire.BytesType {
			out.bytes(f.num, edit(t, f.data, path[1:], change))
			return nil
		}
		if len(path) == 0 {
			if by := change(f); by != nil {
				out = append(out, by...)
				return nil
			}
		}
		switch f.wire {
		case protowire.VarintType:
			out.integer(f.num, int64(f.number))
		case protowire.Fixed32Type:
			out.float(f.num, math.Float32frombits(uint32(f.number)))
		default:
			out.bytes(f.num, f.data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Paths of fields from ModelProto.
var (
	inGraph   = []protowire.Number{7}
	inNodes   = []protowire.Number{7, 1}
	inAttrs   = []protowire.Number{7, 1, 5}
	inTensors = []protowire.Number{7, 5}
	inOpsets  = []protowire.Number{8}
)

func textField(num protowire.Number, s string) []byte {
	var e encoder
	e.text(num, s)
	return e
}

func numberField(num protowire.Number, v int64) []byte {
	var e encoder
	e.integer(num, v)
	return e
}

// small is a network with every kind of layer but bottlenecks.
func small(t testing.TB) []byte {
	c, err := model.Named("resnet20", model.Torch, 32, 32, 3, 5)
	if err != nil {
		t.Fatal(err)
	}
	c.Filters, c.Stem, c.Blocks = 4, model.LargeStem, []int{1, 1}
	return written(t, made(t, c), artifact.WriteOptions{})
}

// once makes a change to the first field that it applies to.
func once(change func(f field) []byte) func(f field) []byte {
	done := false
	return func(f field) []byte {
		if done {
			return nil
		}
		by := change(f)
		done = by != nil
		return by
	}
}

// What cannot be read, or is not what it seems, is one error that says what and
// where.
func TestRefused(t *testing.T) {
	replaceText := func(num protowire.Number, from, to string) func(f field) []byte {
		return once(func(f field) []byte {
			if f.num == num && string(f.data) == from {
				return textField(num, to)
			}
			return nil
		})
	}
	firstNumber := func(num protowire.Number, to int64) func(f field) []byte {
		return once(func(f field) []byte {
			if f.num == num && f.wire == protowire.VarintType {
				return numberField(num, to)
			}
			return nil
		})
	}
	// attribute changes the first number of the first attribute of that name.
	attribute := func(name string, to int64) func(data []byte) []byte {
		return func(data []byte) []byte {
			done := false
			return edit(t, data, inNodes, func(f field) []byte {
				if done || f.num != 5 || !bytes.HasPrefix(f.data, textField(1, name)) {
					return nil
				}
				done = true
				var e encoder
				e.bytes(5, edit(t, f.data, nil, once(func(f field) []byte {
					if f.num == 3 || f.num == 8 {
						return numberField(f.num, to)
					}
					return nil
				})))
				return e
			})
		}
	}
	for what, c := range map[string]struct {
		change func(data []byte) []byte
		want   string
	}{
		"empty":    {func([]byte) []byte { return nil }, "no ONNX file"},
		"text":     {func([]byte) []byte { return []byte("# not a model\n") }, "no ONNX file"},
		"opset 6":  {func(d []byte) []byte { return edit(t, d, inOpsets, firstNumber(2, 6)) }, "opset 6, want 7 or newer"},
		"operator": {func(d []byte) []byte { return edit(t, d, inNodes, replaceText(4, "Relu", "LeakyRelu")) }, `1 nodes cannot be mapped: LeakyRelu "relu": the operator is not supported`},
		"domain": {func(d []byte) []byte {
			return edit(t, d, inNodes, once(func(f field) []byte {
				if f.num == 4 && string(f.data) == "Relu" {
					return append(textField(4, "Relu"), textField(7, "com.example")...)
				}
				return nil
			}))
		}, `operators of domain "com.example" are not known`},
		"other operand":  {func(d []byte) []byte { return edit(t, d, inNodes, replaceText(1, "bn1", "nothing")) }, `operand "nothing" does not exist`},
		"stride":         {attribute("strides", 3), "two that are equal"},
		"group":          {attribute("group", 2), "group is 2, want 1"},
		"dilation":       {attribute("dilations", 2), "dilations is [2 1], want 1"},
		"kernel_shape":   {attribute("kernel_shape", 5), "kernel_shape is [5 7]"},
		"negative pad":   {attribute("pads", -1), "padding"},
		"huge pad":       {attribute("pads", math.MaxInt64), "padding"},
		"flatten":        {attribute("axis", 2), "axis is 2, want 1"},
		"negative dims":  {func(d []byte) []byte { return edit(t, d, inTensors, firstNumber(1, -4)) }, "has dims"},
		"huge dims":      {func(d []byte) []byte { return edit(t, d, inTensors, firstNumber(1, math.MaxInt32)) }, "too large"},
		"more data":      {func(d []byte) []byte { return edit(t, d, inTensors, firstNumber(1, 5)) }, "bytes or numbers of data, want"},
		"element type":   {func(d []byte) []byte { return edit(t, d, inTensors, firstNumber(2, 99)) }, "type 99"},
		"integers":       {func(d []byte) []byte { return edit(t, d, inTensors, firstNumber(2, typeInt32)) }, "holds integers"},
		"tensor twice":   {func(d []byte) []byte { return edit(t, d, inTensors, replaceText(8, "bn1.bias", "bn1.weight")) }, `two tensors "bn1.weight"`},
		"computed twice": {func(d []byte) []byte { return edit(t, d, inNodes, replaceText(2, "bn1", "conv1")) }, `"conv1" is computed twice`},
		"no output":      {func(d []byte) []byte { return edit(t, d, inNodes, replaceText(2, "output", "elsewhere")) }, "no output could be computed"},
		"metadata twice": {func(d []byte) []byte {
			return append(append(d, 14<<3|2, 3, 10, 1, 'a'), 14<<3|2, 3, 10, 1, 'a')
		}, `metadata have "a" twice`},
		"functions": {func(d []byte) []byte {
			return append(d, protowire.AppendBytes(protowire.AppendTag(nil, 25, protowire.BytesType), nil)...)
		}, "functions"},
		"two graphs": {func(d []byte) []byte { return append(d, 7<<3|2, 0) }, "two graphs"},
		"not UTF-8":  {func(d []byte) []byte { return edit(t, d, inNodes, replaceText(4, "Relu", "\xff")) }, "UTF-8"},
		"sparse tensor": {func(d []byte) []byte {
			return edit(t, d, inGraph, once(func(field) []byte { return []byte{15<<3 | 2, 0} }))
		}, "sparse"},
		"many nodes": {func(d []byte) []byte {
			return protowire.AppendBytes(append([]byte{8, 8}, 7<<3|2), bytes.Repeat([]byte{1<<3 | 2, 0}, maxNodes+1))
		}, "more than 65536 nodes"},
		"many names": {func(d []byte) []byte {
			node := protowire.AppendBytes([]byte{1<<3 | 2}, bytes.Repeat([]byte{1<<3 | 2, 0}, maxStrings+1))
			return protowire.AppendBytes(append([]byte{8, 8}, 7<<3|2), node)
		}, "more than 262144 names"},
		"another ε": {func(d []byte) []byte {
			return edit(t, d, inAttrs, once(func(f field) []byte {
				if f.num == 2 && f.wire == protowire.Fixed32Type {
					var e encoder
					e.float(2, 1e-4)
					return e
				}
				return nil
			}))
		}, "another ε"},
	} {
		t.Run(what, func(t *testing.T) {
			data := c.change(small(t))
			if _, err := read(t, data); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

// Unchanged, edit gives the same bytes back: what TestRefused changes is all that
// is wrong.
func TestEdit(t *testing.T) {
	data := small(t)
	if !bytes.Equal(edit(t, data, inTensors, func(field) []byte { return nil }), data) {
		t.Error("edit changes the file")
	}
	if _, err := read(t, data); err != nil {
		t.Error(err)
	}
}

// A file that ends anywhere is an error.
func TestTruncated(t *testing.T) {
	data := small(t)
	for n := 0; n < len(data); n += 1 + n/50 {
		m, err := decode(data[:n])
		if err != nil {
			continue
		}
		// What ends between two fields of the model may still be whole.
		if _, err := m.artifact(int64(n)); err == nil && n < len(data)-2000 {
			t.Errorf("%d of %d bytes are a network", n, len(data))
		}
	}
}

// withNodes is small with more nodes before its own, and a constant "shape" of int64
// numbers, whose dims are given.
func withNodes(t *testing.T, dims, shape []int64, nodes func(g *graphWriter)) []byte {
	packed := func(values []int64) (b []byte) {
		for _, v := range values {
			b = protowire.AppendVarint(b, uint64(v))
		}
		return b
	}
	return edit(t, small(t), []protowire.Number{7}, once(func(f field) []byte {
		if f.num != 1 {
			return nil
		}
		g := &graphWriter{}
		nodes(g)
		var constant, whole, first encoder
		constant.bytes(1, packed(dims))
		constant.integer(2, typeInt64)
		constant.bytes(7, packed(shape))
		constant.text(8, "shape")
		whole.bytes(5, constant)
		first.bytes(1, f.data)
		return append(append(append([]byte{}, g.nodes...), first...), whole...)
	}))
}

// A kilobyte cannot take a gigabyte: constants computed in the graph, and what is said
// of them, are bounded by the file's size.
func TestConstantBombs(t *testing.T) {
	huge := func(op string, operands ...string) []byte {
		return withNodes(t, []int64{2}, []int64{60000, 60000}, func(g *graphWriter) { g.node("bomb", op, operands, "bomb", nil) })
	}
	long := withNodes(t, []int64{1}, []int64{60000}, func(g *graphWriter) { // shapes of 60,000 zeros
		g.node("zeros", "ConstantOfShape", []string{"shape"}, "zeros", nil)
		for i := range 2000 {
			name := fmt.Sprintf("bomb%d", i)
			g.node(name, "Reshape", []string{"bn1.weight", "zeros"}, name, nil)
		}
	})
	axes := withNodes(t, slices.Repeat([]int64{1}, 16), []int64{0}, func(g *graphWriter) { // twice as many from node to node
		last := "shape"
		for i := range 20 {
			name := fmt.Sprintf("bomb%d", i)
			g.node(name, "Gather", []string{last, last}, name, nil)
			last = name
		}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, data := range [][]byte{huge("ConstantOfShape", "shape"), huge("Expand", "bn1.weight", "shape"), long, axes} {
		m, err := read(t, data)
		if err != nil {
			t.Errorf("a node that nobody reads: %v", err)
			continue
		}
		if len(m.Unmapped) == 0 || !strings.Contains(m.Unmapped[0], "bomb") {
			t.Errorf("unmapped %.1000q", m.Unmapped)
		}
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
}

// An operator on a constant whose last operand, one too many, is computed.
func TestComputedOperands(t *testing.T) {
	for op, operands := range map[string][]string{
		"Slice": {"bn1.weight", "shape", "shape", "shape", "shape", "input"}, "Transpose": {"bn1.weight", "input"},
	} {
		m, err := read(t, withNodes(t, []int64{1}, []int64{0}, func(g *graphWriter) { g.node("odd", op, operands, "odd", nil) }))
		if err != nil || len(m.Unmapped) != 1 || !strings.Contains(m.Unmapped[0], "operand 1 is a constant") {
			t.Errorf("%s: unmapped %q, %v", op, m.Unmapped, err)
		}
	}
}

// external moves the tensors' data to other files, as PyTorch does beyond 2 GB.
func external(t *testing.T, dir, location string, change func(name string, offset, length int) (int, int)) string {
	t.Helper()
	var outside []byte
	data := edit(t, small(t), []protowire.Number{7}, func(f field) []byte {
		if f.num != 5 {
			return nil
		}
		name, kind := "", int64(0)
		var raw []byte
		_ = message(f.data, func(f field) error {
			switch f.num {
			case 8:
				name = string(f.data)
			case 2:
				kind = int64(f.number)
			case 9:
				raw = f.data
			}
			return nil
		})
		if kind != typeFloat {
			return nil
		}
		moved := edit(t, f.data, nil, func(f field) []byte {
			if f.num != 9 {
				return nil
			}
			offset, length := len(outside), len(raw)
			if change != nil {
				offset, length = change(name, offset, length)
			}
			var out encoder
			for _, kv := range [][2]string{{"location", location}, {"offset", strconv.Itoa(offset)}, {"length", strconv.Itoa(length)}} {
				var entry encoder
				entry.text(1, kv[0])
				entry.text(2, kv[1])
				out.bytes(13, entry)
			}
			out.integer(14, 1)
			return out
		})
		outside = append(outside, raw...)
		var e encoder
		e.bytes(5, moved)
		return e
	})
	path := filepath.Join(dir, "model.onnx")
	for file, content := range map[string][]byte{path: data, filepath.Join(dir, "weights.bin"): outside} {
		if err := os.WriteFile(file, content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// Data in other files is read from beside the file, and from nowhere else.
func TestExternalData(t *testing.T) {
	want, err := read(t, small(t))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(external(t, t.TempDir(), "weights.bin", nil))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(written(t, got, artifact.WriteOptions{}), written(t, want, artifact.WriteOptions{})) {
		t.Error("external data gives another network")
	}

	secret := filepath.Join(t.TempDir(), "weights.bin")
	if err := os.WriteFile(secret, make([]byte, 1<<20), 0o666); err != nil {
		t.Fatal(err)
	}
	linked := t.TempDir()
	if err := os.Symlink(secret, filepath.Join(linked, "link.bin")); err != nil {
		t.Skip(err)
	}
	for what, c := range map[string]struct {
		dir, location string
		change        func(name string, offset, length int) (int, int)
		want          string
	}{
		"above":     {t.TempDir(), "../" + filepath.Base(filepath.Dir(secret)) + "/weights.bin", nil, "want a file in the folder"},
		"absolute":  {t.TempDir(), secret, nil, "want a file in the folder"},
		"link":      {linked, "link.bin", nil, "escapes"},
		"missing":   {t.TempDir(), "nothing.bin", nil, "no such file"},
		"empty":     {t.TempDir(), "", nil, "want a file in the folder"},
		"folder":    {t.TempDir(), ".", nil, "no file"},
		"past end":  {t.TempDir(), "weights.bin", func(_ string, o, n int) (int, int) { return o + 1<<30, n }, "but the file has"},
		"negative":  {t.TempDir(), "weights.bin", func(_ string, o, n int) (int, int) { return -1, n }, "offset"},
		"overlap":   {t.TempDir(), "weights.bin", func(_ string, o, n int) (int, int) { return 0, 5000 }, "overlap"},
		"too short": {t.TempDir(), "weights.bin", func(_ string, o, n int) (int, int) { return o, n - 4 }, "of data, want"},
	} {
		t.Run(what, func(t *testing.T) {
			if _, err := ReadFile(external(t, c.dir, c.location, c.change)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

// A network beyond protobuf's limit is refused before a byte is written. Its
// weights are one long piece of memory that is never touched.
func TestTwoGigabytes(t *testing.T) {
	g := &graphWriter{names: map[string]bool{}}
	one := tensor.New(tensor.Float32, 1<<24)
	for range maxFile/(4*one.Len()) + 1 {
		g.tensors = append(g.tensors, namedTensor{"w", one})
	}
	var b bytes.Buffer
	err := g.write(&b, "large", nil, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "protobuf's limit") || b.Len() > 0 {
		t.Errorf("error %v after %d bytes", err, b.Len())
	}
}

// FuzzRead: nothing makes the reader panic, and what it takes for a network can
// be written and read again.
func FuzzRead(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.onnx")
	if err != nil || len(paths) < 10 {
		f.Fatalf("%d seeds, %v", len(paths), err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(small(f))
	for _, c := range networks(f)[:3] {
		f.Add(written(f, made(f, c), artifact.WriteOptions{Softmax: true, Preprocess: true}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil {
			return
		}
		a, err := m.artifact(int64(len(data)))
		if err != nil {
			return
		}
		if err := a.Check(); err != nil {
			t.Fatalf("read without an error: %v", err)
		}
		first := written(t, a, artifact.WriteOptions{})
		again, err := decode(first)
		if err != nil {
			t.Fatal(err)
		}
		b, err := again.artifact(int64(len(first)))
		if err != nil {
			t.Fatalf("%+v was written and is not read: %v", a.Config, err)
		}
		if !bytes.Equal(written(t, b, artifact.WriteOptions{}), first) {
			t.Fatalf("%+v came back as %+v", a.Config, b.Config)
		}
	})
}
