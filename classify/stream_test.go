package classify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/residual-ml/residual/classify"
	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/engine/cpu"
)

func pngOf(t *testing.T, value uint8) []byte {
	t.Helper()
	m := image.NewGray(image.Rect(0, 0, 8, 8))
	for i := range m.Pix {
		m.SetGray(i%8, i/8, color.Gray{Y: value + uint8(i%3)})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Whatever the batch size and wherever unreadable pictures lie, each source has its
// outcome, in order, the same as alone.
func TestStream(t *testing.T) {
	eng, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	path := filepath.Join(t.TempDir(), "run")
	trainRun(t, eng, path)
	c, err := classify.Open(path, eng)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	dir := t.TempDir()
	errGone := errors.New("gone")
	sourcesOf := func(n int, bad func(i int) bool) iter.Seq[classify.Source] {
		return func(yield func(classify.Source) bool) {
			for i := range n {
				s := classify.Source{Name: fmt.Sprint(i), Open: func() (io.ReadCloser, error) {
					if bad(i) && i%2 == 0 {
						return nil, errGone
					} else if bad(i) {
						return io.NopCloser(strings.NewReader("no picture")), nil
					}
					return io.NopCloser(bytes.NewReader(pngOf(t, uint8(50+i%200)))), nil
				}}
				if i == 3 { // a file, opened by name
					s = classify.Source{Name: filepath.Join(dir, "3.png")}
					content := pngOf(t, 53)
					if bad(i) {
						content = content[:20]
					}
					if err := os.WriteFile(s.Name, content, 0o666); err != nil {
						t.Fatal(err)
					}
				}
				if !yield(s) {
					return
				}
			}
		}
	}
	alone := map[int][]float32{}
	for i := range 60 {
		var m dataset.Image
		if err := dataset.LoadImage(bytes.NewReader(pngOf(t, uint8(50+i))), 0, &m); err != nil {
			t.Fatal(err)
		}
		for o, err := range c.Stream(t.Context(), sourcesOf(i+1, func(k int) bool { return k != i }), 1) {
			if err != nil {
				t.Fatal(err)
			}
			if o.Err == nil {
				alone[i] = slices.Clone(o.Logits)
			}
		}
		want, err := c.Predict(t.Context(), []dataset.Image{m})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Ranked(alone[i]); err != nil || got[0].Class != want[0][0].Class || math.Abs(got[0].Probability-want[0][0].Probability) > 1e-6 {
			t.Fatalf("picture %d: %+v (%v), Predict says %+v", i, got, err, want[0])
		}
	}
	for _, batch := range []int{1, 2, 7, 16, 100} {
		for name, bad := range map[string]func(int) bool{
			"none bad": func(int) bool { return false }, "every third": func(i int) bool { return i%3 == 0 },
			"all": func(int) bool { return true }, "a long row": func(i int) bool { return i > 2 && i < 50 }, "the last": func(i int) bool { return i == 59 },
		} {
			seen := 0
			for o, err := range c.Stream(t.Context(), sourcesOf(60, bad), batch) {
				if err != nil {
					t.Fatal(err)
				}
				if filepath.Base(o.Name) != fmt.Sprint(seen) && o.Name != filepath.Join(dir, "3.png") || (o.Err != nil) != bad(seen) {
					t.Fatalf("batches of %d, %s: outcome %d is %+v", batch, name, seen, o)
				}
				if o.Err == nil {
					for k, z := range o.Logits {
						if math.Abs(float64(z-alone[seen][k])) > 1e-4 {
							t.Errorf("batches of %d, %s, picture %d: logits %v, alone %v", batch, name, seen, o.Logits, alone[seen])
						}
					}
				}
				seen++
			}
			if seen != 60 {
				t.Errorf("batches of %d, %s: %d outcomes, want 60", batch, name, seen)
			}
		}
	}

	for o, err := range c.Stream(t.Context(), sourcesOf(60, func(int) bool { return false }), 8) {
		if err != nil || o.Err != nil {
			t.Fatal(err, o.Err)
		}
		break // whoever stops early leaves nothing running
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range c.Stream(ctx, sourcesOf(1000, func(int) bool { return false }), 2) {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("cancelled: %v", last)
	}
	for _, err := range c.Stream(t.Context(), sourcesOf(1, func(int) bool { return false }), 0) {
		if err == nil {
			t.Error("batches of 0 were accepted")
		}
	}
}
