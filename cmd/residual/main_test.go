package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/format/safetensors"
	"github.com/residual-ml/residual/internal/atomicfile"
	"github.com/residual-ml/residual/tensor"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"residual": main})
}

// The stories in testdata read like a manual: commands, what they print, and
// what they leave behind. They know two commands of their own:
//
//	bare FILE        writes a small network's weights as another program would
//	pictures DIR N   writes N pictures of shapes as DIR/<class>/<i>.png
//	contains FILE N TEXT   demands TEXT exactly N times in FILE
//	stall FILE       serves downloads that never come at $STALLED, and writes
//	                 FILE at the first request
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			for _, v := range e.Vars { // nothing of the tester's own environment
				if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "RESIDUAL_") {
					e.Setenv(name, "")
				}
			}
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, "cache"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"stall": func(ts *testscript.TestScript, _ bool, args []string) {
				ended, file := make(chan struct{}), ts.MkAbs(args[0])
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if err := os.WriteFile(file, nil, 0o666); err != nil {
						t.Error(err)
					}
					select {
					case <-ended:
					case <-r.Context().Done():
					}
				}))
				ts.Defer(func() { close(ended); server.Close() })
				ts.Setenv("STALLED", server.URL)
			},
			"pictures": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[1])
				ts.Check(err)
				ts.Check(writePictures(ts.MkAbs(args[0]), n))
			},
			"bare": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(writeBare(ts.MkAbs(args[0]))) },
			"flipbit": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(flipBit(ts.MkAbs(args[0]), ts.MkAbs(args[1])))
			},
			"contains": func(ts *testscript.TestScript, neg bool, args []string) {
				want, err := strconv.Atoi(args[1])
				ts.Check(err)
				if got := strings.Count(ts.ReadFile(args[0]), args[2]); (got == want) == neg {
					ts.Fatalf("%s has %q %d times, want %d", args[0], args[2], got, want)
				}
			},
		},
	})
}

// flipBit copies a safetensors file with the lowest bit of one bias changed.
func flipBit(from, to string) error {
	f, err := safetensors.ReadFile(from)
	if err != nil {
		return err
	}
	bias, ok := f.Tensor("fc.bias")
	if !ok {
		return errors.New("no fc.bias")
	}
	x := &bias.Float32s()[0]
	*x = math.Float32frombits(math.Float32bits(*x) ^ 1)
	return atomicfile.Write(to, func(w io.Writer) error { return safetensors.Write(w, f.Tensors(), f.Metadata) })
}

func writePictures(dir string, n int) error {
	data, err := dataset.Open(context.Background(), "shapes", dataset.Options{})
	if err != nil {
		return err
	}
	var m dataset.Image
	for i := range n {
		if err := data.Train.Image(i, &m); err != nil {
			return err
		}
		picture := image.NewRGBA(image.Rect(0, 0, m.Width, m.Height))
		for p := range m.Width * m.Height {
			picture.SetRGBA(p%m.Width, p/m.Width, color.RGBA{m.Pix[3*p], m.Pix[3*p+1], m.Pix[3*p+2], 255})
		}
		class := filepath.Join(dir, data.Classes[data.Train.Label(i)])
		if err := os.MkdirAll(class, 0o777); err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(class, fmt.Sprintf("%d.png", i)))
		if err != nil {
			return err
		}
		if err := png.Encode(f, picture); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// writeBare writes the weights of a network of one block and two classes as
// another program would, without any metadata, and with a wrapper's prefix.
func writeBare(path string) error {
	var tensors []safetensors.Named
	add := func(name string, shape ...int) {
		t := tensor.New(tensor.Float32, shape...)
		for i := range t.Float32s() {
			t.Float32s()[i] = 0.5 - float32(i%5)/8
		}
		tensors = append(tensors, safetensors.Named{Name: "module." + name, Tensor: t})
	}
	for _, layer := range [][2]string{{"conv1", "bn1"}, {"layer1.0.conv1", "layer1.0.bn1"}, {"layer1.0.conv2", "layer1.0.bn2"}} {
		channels := 1
		if layer[0] == "conv1" {
			channels = 3
		}
		add(layer[0]+".weight", 1, channels, 3, 3)
		for _, part := range []string{"weight", "bias", "running_mean", "running_var"} {
			add(layer[1]+"."+part, 1)
		}
	}
	add("fc.weight", 2, 1)
	add("fc.bias", 2)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(safetensors.Write(f, tensors, nil), f.Close())
}
