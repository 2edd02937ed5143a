package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/residual-ml/residual/engine/cpu"
	"github.com/residual-ml/residual/engine/ref"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/graph"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/tensor"
)

// tiny is a small network with weights in the given convention.
func tiny(t testing.TB, convention model.Convention) *artifact.Model {
	t.Helper()
	return tinyOf(t, model.Config{Convention: convention, Height: 12, Width: 12, Channels: 3, Classes: 4, Stem: model.SmallStem, Block: model.Basic,
		Shortcut: model.Projection, Blocks: []int{1, 1}, Filters: 4})
}

// tinySingle is a small network of resnet8w's kind.
func tinySingle() model.Config {
	return model.Config{Convention: model.Torch, Height: 12, Width: 12, Channels: 3, Classes: 4, Stem: model.WhitenStem, Block: model.Single,
		Shortcut: model.Projection, Blocks: []int{1, 1}, Filters: 4, Whiten: 2, WhitenPad: true, Widen: []int{1, 4},
		Dirac: true, FixedGamma: true, NormRate: 0.4, LogitScale: 1.0 / 9}
}

func tinyOf(t testing.TB, c model.Config) *artifact.Model {
	t.Helper()
	c.Name = artifact.Name(c)
	g, err := c.Graph(1)
	if err != nil {
		t.Fatal(err)
	}
	tensors := map[string]tensor.Tensor{}
	for i, v := range g.Variables {
		value := model.Initial(v, 7)
		if v.Variable.Role == graph.Statistic {
			for k := range value.Float32s() {
				value.Float32s()[k] += float32((i+k)%5)/8 - 0.25 // means around 0, variances around 1
			}
		}
		tensors[v.Name] = model.ToFile(value)
	}
	m, err := artifact.Build(c, tensors)
	if err != nil {
		t.Fatal(err)
	}
	m.Steps = 30
	return m
}

// complete is tiny with golden vectors.
func complete(t *testing.T, convention model.Convention) *artifact.Model {
	t.Helper()
	return completed(t, tiny(t, convention))
}

func completed(t *testing.T, m *artifact.Model) *artifact.Model {
	t.Helper()
	notes, err := Complete(m, Given{Classes: []string{"ant", "bee", "cat", "dog"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := "preprocessing is assumed: "; len(notes) != 1 || !strings.HasPrefix(notes[0], want) {
		t.Errorf("notes %q, want one with %q", notes, want)
	}
	if err := MakeGolden(t.Context(), m, ref.New()); err != nil {
		t.Fatal(err)
	}
	return m
}

func sameModel(t testing.TB, got, want *artifact.Model) {
	t.Helper()
	if len(got.Tensors) != len(want.Tensors) {
		t.Fatalf("%d tensors, want %d", len(got.Tensors), len(want.Tensors))
	}
	for i, n := range got.Tensors {
		w := want.Tensors[i]
		if n.Name != w.Name || !n.Tensor.Shape().Equal(w.Tensor.Shape()) || !slices.EqualFunc(n.Tensor.Float32s(), w.Tensor.Float32s(), sameBits) {
			t.Errorf("tensor %s differs from %s", n.Name, w.Name)
		}
	}
	text, err := got.WriteMetadata()
	if err != nil {
		t.Fatal(err)
	}
	wantText, err := want.WriteMetadata()
	if err != nil {
		t.Fatal(err)
	}
	for key, v := range wantText {
		if text[key] != v {
			t.Errorf("%s is %s, want %s", key, text[key], v)
		}
	}
}

// What cannot be written to its end leaves nothing behind, so that the next try is
// not refused; a directory that was there stays.
func TestUnfinishedRun(t *testing.T) {
	m := complete(t, model.Torch)
	fresh, there := filepath.Join(t.TempDir(), "run"), t.TempDir()
	for _, path := range []string{fresh, there} {
		if err := WriteRun(path, m, make(chan int)); err == nil { // no JSON
			t.Fatalf("%s: no error", path)
		}
	}
	if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", fresh, err)
	}
	if entries, err := os.ReadDir(there); err != nil || len(entries) > 0 {
		t.Errorf("%s holds %v, %v", there, entries, err)
	}
	if err := WriteRun(there, m, nil); err != nil {
		t.Error(err)
	}
}

// Of many at once that write the same run directory one does, and the others leave it alone.
func TestRunWrittenOnce(t *testing.T) {
	m, path := complete(t, model.Torch), filepath.Join(t.TempDir(), "run")
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = WriteRun(path, m, nil) })
	}
	wg.Wait()
	written := 0
	for _, err := range errs {
		switch {
		case err == nil:
			written++
		case !errors.Is(err, rundir.ErrInUse) && !strings.Contains(err.Error(), "not empty"):
			t.Errorf("error %v, want that it is in use or not empty", err)
		}
	}
	if written != 1 {
		t.Errorf("%d were written, want 1", written)
	}
	if back, err := ReadRun(path, ""); err != nil {
		t.Error(err)
	} else {
		sameModel(t, back, m)
	}
}

// sameBits is equality for which NaN equals itself.
func sameBits(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }

// Whatever can be written is read back as it was, through a run directory too,
// and the second file is the first one to the byte.
func TestRoundTrips(t *testing.T) {
	tried := 0
	for _, f := range Formats {
		if f.Write == nil {
			continue
		}
		tried++
		for _, kind := range []string{"torch", "keras", "single", "single folded"} {
			t.Run(f.Name+"/"+kind, func(t *testing.T) {
				var m *artifact.Model
				switch kind {
				case "torch", "keras":
					m = complete(t, model.Convention(kind))
				case "single":
					m = completed(t, tinyOf(t, tinySingle()))
				default:
					var err error
					if m, err = completed(t, tinyOf(t, tinySingle())).Folded(); err != nil {
						t.Fatal(err)
					}
				}
				name := "model"
				if len(f.Extensions) > 0 {
					name += f.Extensions[0]
				}
				first := filepath.Join(t.TempDir(), name)
				if err := Write(first, f.Name, m, artifact.WriteOptions{}); err != nil {
					t.Fatal(err)
				}
				back, err := Read(first)
				if err != nil {
					t.Fatal(err)
				}
				if len(back.Unmapped) > 0 {
					t.Errorf("unmapped: %v", back.Unmapped)
				}
				sameModel(t, back, m)

				run := filepath.Join(t.TempDir(), "run")
				if err := WriteRun(run, back, map[string]string{"file": first}); err != nil {
					t.Fatal(err)
				}
				again, err := ReadRun(run, "")
				if err != nil {
					t.Fatal(err)
				}
				sameModel(t, again, m)
				second := filepath.Join(t.TempDir(), name)
				if err := Write(second, "", again, artifact.WriteOptions{}); err != nil && len(f.Extensions) > 0 {
					t.Fatal(err)
				} else if len(f.Extensions) == 0 {
					if err := Write(second, f.Name, again, artifact.WriteOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				sameFiles(t, first, second)

				all, err := Verify(t.Context(), back, ref.New())
				if err != nil || len(all) != 3 {
					t.Fatalf("%v, %v", all, err)
				}
				for _, c := range all {
					if !c.Agrees {
						t.Errorf("golden vector %+v", c)
					}
				}
				if l, err := Inspect(first); err != nil || l.Format != f.Name || len(l.Tensors) == 0 || l.Bytes == 0 {
					t.Errorf("listing %+v, %v", l, err)
				}
			})
		}
	}
	if tried == 0 {
		t.Error("no format can be written")
	}
}

// sameFiles compares two files, or the files of two folders.
func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	names := []string{"."}
	if entries, err := os.ReadDir(a); err == nil {
		names = nil
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		t.Errorf("%s is empty", a)
	}
	for _, name := range names {
		x, errX := os.ReadFile(filepath.Join(a, name))
		y, errY := os.ReadFile(filepath.Join(b, name))
		if errX != nil || errY != nil || !bytes.Equal(x, y) {
			t.Errorf("%s: the second file differs from the first: %d bytes and %d, %v, %v", name, len(x), len(y), errX, errY)
		}
	}
}

// Golden vectors hold on another engine, and notice a changed weight, mean and
// resize policy.
func TestVerify(t *testing.T) {
	eng, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	agree := func(m *artifact.Model) int {
		all, err := Verify(t.Context(), m, eng)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, c := range all {
			if c.Agrees {
				n++
			}
		}
		return n
	}
	m := complete(t, model.Torch)
	if n := agree(m); n != 3 {
		t.Errorf("%d of 3 agree", n)
	}
	folded, err := m.Folded()
	if err != nil {
		t.Fatal(err)
	}
	if n := agree(folded); n != 3 || len(folded.Tensors) >= len(m.Tensors) {
		t.Errorf("folded: %d of 3 agree, %d tensors", n, len(folded.Tensors))
	}
	policy := *m.Preprocess
	policy.Resize = "squash"
	m.Preprocess = &policy
	if n := agree(m); n != 1 {
		t.Errorf("with another resize policy %d of 3 agree, want the square one", n)
	}
	m = complete(t, model.Torch)
	mean := *m.Preprocess
	mean.Mean = []float64{0.485, 0.456, 0.41}
	m.Preprocess = &mean
	if n := agree(m); n != 0 {
		t.Errorf("with another mean %d of 3 agree", n)
	}
	m = complete(t, model.Torch)
	m.Tensors[0].Tensor.Float32s()[0] += 0.05
	if n := agree(m); n != 0 {
		t.Errorf("with another weight %d of 3 agree", n)
	}
	m.Golden = nil
	if _, err := Verify(t.Context(), m, eng); err == nil {
		t.Error("nothing to verify is no error")
	}
}

func TestComplete(t *testing.T) {
	m := tiny(t, model.Torch)
	m.Config.Height, m.Config.Width = 0, 0
	notes, err := Complete(m, Given{})
	if err != nil || len(notes) != 3 || m.Config.Height != 32 || m.Preprocess.Mean[0] != 0.485 || m.ClassNames()[3] != "3" {
		t.Errorf("%q %v %+v", notes, err, m)
	}
	m = complete(t, model.Torch)
	notes, err = Complete(m, Given{Mean: []float64{0, 0, 0}, Std: []float64{1, 1, 1}})
	if err != nil || m.Golden != nil || len(notes) != 2 || m.Preprocess.Scale != 1.0/255 {
		t.Errorf("golden vectors outlive another preprocessing: %q %v", notes, err)
	}
	if !strings.Contains(notes[0], "preprocessing is overruled: (x/255 - [0.485 0.456 0.406])/[0.229 0.224 0.225]") {
		t.Errorf("what the file says is dropped with %q", notes[0])
	}
	for want, given := range map[string]Given{ // half of a preprocessing: the other half is told
		"no deviations are given: 1 is assumed":                       {Mean: []float64{0.5, 0.5, 0.5}},
		"no means are given: 0 is assumed":                            {Std: []float64{0.5, 0.5, 0.5}},
		"neither means nor deviations are given: 0 and 1 are assumed": {Scale: 1},
	} {
		if notes, err := Complete(tiny(t, model.Torch), given); err != nil || !slices.Contains(notes, want) {
			t.Errorf("%+v: %q, %v, want %q", given, notes, err, want)
		}
	}
	m = complete(t, model.Torch)
	same := Given{Scale: m.Preprocess.Scale, Mean: m.Preprocess.Mean, Std: m.Preprocess.Std}
	if notes, err := Complete(m, same); err != nil || len(notes) != 0 || m.Golden == nil {
		t.Errorf("what the file says too, given: %q %v", notes, err)
	}
	for _, given := range []Given{{Height: -3}, {Width: -3}, {Scale: -1}, {Classes: []string{"a"}}, {Mean: []float64{1}}, {Resize: "x"}, {CropPct: 2}, {Resize: "squash", CropPct: 0.5}, {Std: []float64{0, 1, 1}}} {
		if _, err := Complete(tiny(t, model.Torch), given); err == nil {
			t.Errorf("%+v: no error", given)
		}
	}
}

// A file that is cut short is named once, whichever package finds it.
func TestCutShort(t *testing.T) {
	for _, f := range Formats {
		whole := filepath.Join(t.TempDir(), "whole"+strings.Join(f.Extensions[:min(1, len(f.Extensions))], ""))
		if err := Write(whole, f.Name, complete(t, model.Torch), artifact.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		file := whole
		if len(f.Extensions) == 0 {
			file = filepath.Join(whole, "model.safetensors")
		}
		if err := os.Truncate(file, sizeOf(file)*2/3); err != nil {
			t.Fatal(err)
		}
		_, err := Read(whole)
		if err == nil || strings.Count(err.Error(), whole) != 1 {
			t.Errorf("%s: Read: %v, want one with %s once", f.Name, err, whole)
		}
		_, err = Inspect(whole)
		if err == nil || strings.Count(err.Error(), whole) != 1 {
			t.Errorf("%s: Inspect: %v, want one with %s once", f.Name, err, whole)
		}
	}
}

// A write that fails in the end leaves everything as it was: an older file, the module
// beside it, an empty folder, nothing.
func TestFailedWrite(t *testing.T) {
	m := completed(t, tinyOf(t, tinySingle()))
	refuse := artifact.WriteOptions{Check: func(path string) error {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("asked about %v", err)
		}
		return errors.New("planted")
	}}
	for _, f := range Formats {
		t.Run(f.Name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "model"+strings.Join(f.Extensions[:min(1, len(f.Extensions))], ""))
			old := map[string]string{}
			for range 2 {
				if err := Write(path, f.Name, m, refuse); err == nil || !strings.Contains(err.Error(), "planted") || strings.Count(err.Error(), path) != 1 {
					t.Errorf("error %v, want the planted one with %s once", err, path)
				}
				entries, err := os.ReadDir(dir)
				if err != nil || len(entries) != len(old) {
					t.Fatalf("%v, %v, want %d files", entries, err, len(old))
				}
				for name, want := range old {
					if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
						t.Errorf("%s was %q and is %q, %v", name, want, b, err)
					}
				}
				if len(f.Extensions) == 0 {
					continue // a folder that is not empty is refused before
				}
				old[filepath.Base(path)] = "older weights"
				if f.Name == "torch" {
					old["model_model.py"] = `"""older, as residual exported it: a module` + "\n"
				}
				for name, content := range old {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := Write(path, f.Name, m, artifact.WriteOptions{}); err != nil {
				t.Error(err)
			}
			if back, err := Read(path); err != nil {
				t.Error(err)
			} else {
				sameModel(t, back, m)
			}
		})
	}
}

// One flipped low bit of a weight, which golden vectors cannot see, is found: by the
// format's own sums or by the checksum of the weights. Files without a checksum, which
// older versions wrote, are read as before.
func TestChecksum(t *testing.T) {
	m := tinyOf(t, tinySingle())
	mean, ok := m.Tensor("layer1.bn.running_mean")
	if !ok {
		t.Fatal("no moving mean")
	}
	mean.Float32s()[1] = 0.3 // to be found in the file
	completed(t, m)
	var needle []byte
	for _, x := range mean.Float32s() {
		needle = binary.LittleEndian.AppendUint32(needle, math.Float32bits(x))
	}
	for _, f := range Formats {
		t.Run(f.Name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "model"+strings.Join(f.Extensions[:min(1, len(f.Extensions))], ""))
			if err := Write(path, f.Name, m, artifact.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			back, err := Read(path)
			if err != nil || back.Checksum == "" || back.Checksum != back.SHA256() || back.Checksum != m.SHA256() {
				t.Fatalf("checksum %q, %v, want %q", back.Checksum, err, m.SHA256())
			}
			file := path
			if len(f.Extensions) == 0 {
				file = filepath.Join(path, "model.safetensors")
			}
			b, err := os.ReadFile(file)
			if err != nil || bytes.Count(b, needle) != 1 {
				t.Fatalf("the mean is %d times in the file, %v", bytes.Count(b, needle), err)
			}
			b[bytes.Index(b, needle)] ^= 1
			if err := os.WriteFile(file, b, 0o666); err != nil {
				t.Fatal(err)
			}
			back, err = Read(path)
			if err != nil {
				if !strings.Contains(err.Error(), "checksum") {
					t.Errorf("error %v, want one of a checksum", err)
				}
				return // of the zip archive
			}
			if back.Checksum != m.SHA256() || back.SHA256() == m.SHA256() {
				t.Errorf("the sum of the damaged weights is %s, of the whole ones %s, the file says %s", back.SHA256(), m.SHA256(), back.Checksum)
			}
			all, err := Verify(t.Context(), back, ref.New())
			if err != nil || len(all) != 3 || !all[0].Agrees {
				t.Errorf("golden vectors are not expected to see it: %+v, %v", all, err)
			}
		})
	}
	text, err := m.WriteMetadata()
	if err != nil {
		t.Fatal(err)
	}
	delete(text, "weights_sha256")
	old, err := fromTensors(m.Tensors, text)
	if err != nil || old.Checksum != "" || len(old.Golden) != 3 {
		t.Errorf("a file of an older version: checksum %q, %v", old.Checksum, err)
	}
	text["weights_sha256"] = m.SHA256()
	folded, err := m.Folded()
	if err != nil {
		t.Fatal(err)
	}
	if err := folded.ReadMetadata(text); err != nil || folded.Checksum != "" {
		t.Errorf("the sum of another network counts: %q, %v", folded.Checksum, err)
	}
}

// A Python file of the user's own is not replaced by a network's module.
func TestForeignModule(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "net_model.py")
	if err := os.WriteFile(mine, []byte("import torch\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	err := Write(filepath.Join(dir, "net.pth"), "", complete(t, model.Torch), artifact.WriteOptions{})
	if err == nil || !strings.Contains(err.Error(), mine) || hint.Of(err) == "" {
		t.Errorf("error %v, want one with %s and a hint", err, mine)
	}
	if b, err := os.ReadFile(mine); err != nil || string(b) != "import torch\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// Files of no format, and names that say none.
func TestUnknown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	for _, content := range []string{"", "hello", "\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", content, err)
		}
	}
	// A file of a format need not have its extension.
	for _, f := range Formats {
		if len(f.Extensions) == 0 {
			continue
		}
		other := filepath.Join(t.TempDir(), "weights.of-mine")
		if err := Write(other, f.Name, complete(t, model.Torch), artifact.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if got, err := Of(other); err != nil || got.Name != f.Name {
			t.Errorf("%s under another name is %q, %v", f.Name, got.Name, err)
		}
	}
	for content, want := range map[string]string{
		"<!DOCTYPE html><html>":                 `it begins with "<!DOCTYPE html><"`,
		"version https://git-lfs.github.com/sp": "Git LFS's pointer",
	} {
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), want) || hint.Of(err) == "" {
			t.Errorf("%q: %v, want %q and a hint", content, err, want)
		}
	}
	if _, err := Read(t.TempDir()); err == nil {
		t.Error("an empty folder was read")
	}
	if err := Write(path, "", tiny(t, model.Torch), artifact.WriteOptions{}); err == nil {
		t.Error("a name without extension was written")
	}
	if _, err := Named("pickle"); err == nil {
		t.Error("format pickle is known")
	}
}
