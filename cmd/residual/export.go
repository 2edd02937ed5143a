package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/format"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/format/torch"
	"github.com/residual-ml/residual/internal/hint"
)

type exportOptions struct {
	artifact.WriteOptions
	name, checkpoint, weights, out, engine string
	threads                                int
}

func (o *exportOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.name, "format", "", "of the file: "+strings.Join(format.Names(), ", ")+" (default: what its extension says)")
	f.BoolVar(&o.FoldNorm, "fold-bn", false, "fold batch normalisation into the convolutions")
	f.BoolVar(&o.Softmax, "softmax", false, "give probabilities instead of logits; onnx, keras")
	f.BoolVar(&o.Preprocess, "include-preprocess", false, "make scaling and normalisation part of the network; onnx, keras")
	choiceFlag(f, &o.engine, "engine", "that computes golden vectors: cpu, or ref: float64 in plain loops, slow", "cpu", "ref")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors)")
}

func newExport() *cobra.Command {
	var o exportOptions
	c := &cobra.Command{
		Use:   "export RUN",
		Short: "write a run's network for other programs",
		Long: `Write the network of a run for other programs, with class names, preprocessing and
golden vectors: pictures with the network's answers, which residual verify runs again.
The file is read back and verified before it replaces an older one.

Weights have torchvision's names and layout; a .keras archive has Keras's own layers. A
network that torchvision and timm do not have, such as any of the Keras convention, gets
a Python module that builds it, beside PyTorch's weights.`,
		Example: `  residual export runs/RUN --format safetensors
  residual export runs/RUN -o resnet18.pth
  residual export runs/RUN -o resnet18.onnx --fold-bn
  residual export runs/RUN -o resnet18.keras --softmax --include-preprocess
  residual export runs/RUN --format hf -o resnet18-flowers`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.name == "" && o.out == "" {
				return usageError{errors.New("want --format or -o")}
			}
			if o.out == "" {
				f, err := format.Named(o.name)
				if err != nil {
					return usageError{err}
				}
				o.out = filepath.Base(absolute(args[0])) // of "." too
				if len(f.Extensions) > 0 {
					o.out += f.Extensions[0]
				} else {
					o.out += "-" + f.Name
				}
			}
			m, err := format.ReadRun(args[0], checkpointWith(o.checkpoint, o.weights))
			if err != nil {
				return err
			}
			return o.write(c.Context(), m, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVarP(&o.out, "out", "o", "", "file, replaced if it exists, or empty folder (default: the run's name)")
	o.addFlags(f)
	checkpointFlags(f, &o.checkpoint, &o.weights)
	return c
}

func newConvert() *cobra.Command {
	var o exportOptions
	var given givenOptions
	c := &cobra.Command{
		Use:   "convert A B",
		Short: "turn a file of one format into one of another",
		Long: `Read a network from A (a file or folder of any format, or a run directory) and
write it to B, in the format that its extension or --format says. It is import and
export in one, and tells what it recognised and assumed.`,
		Example: `  residual convert resnet20.th resnet20.safetensors
  residual convert resnet18.onnx resnet18.pth --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5
  residual convert model.keras model.onnx
  residual convert resnet20.th folder --format hf`,
		Args: argsBetween(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := format.ForOutput(args[1], o.name); err != nil {
				return usageError{err}
			}
			if from, err := os.Stat(args[0]); err == nil {
				if to, err := os.Stat(args[1]); err == nil && os.SameFile(from, to) {
					return hint.Wrap(usageError{fmt.Errorf("%s: A and B are the same file", args[1])}, "name another for B")
				}
			}
			m, err := readModel(args[0])
			if err != nil {
				return err
			}
			notes, err := given.complete(m)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			for _, r := range m.Recognised {
				fmt.Fprintf(c.OutOrStdout(), "  %s\n", plain(r))
			}
			for _, n := range notes {
				fmt.Fprintf(c.OutOrStdout(), "note: %s\n", plain(n))
			}
			o.out = args[1]
			return o.write(c.Context(), m, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	o.addFlags(f)
	given.addFlags(f)
	return c
}

// write writes m to o.out with golden vectors, those it came with where it has
// some, and proves that the file can be read.
func (o exportOptions) write(ctx context.Context, m *artifact.Model, stdout io.Writer) (err error) {
	f, err := format.ForOutput(o.out, o.name)
	if err != nil {
		return usageError{err}
	}
	eng, err := openEngine(o.engine, o.threads)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, eng.Close()) }()
	if len(m.Golden) == 0 {
		if err := format.MakeGolden(ctx, m, eng); err != nil {
			return err
		}
	}
	var v verification
	o.Check = func(path string) error {
		back, err := f.Read(path)
		if err == nil {
			v, err = verifyModel(ctx, back, o.engine, o.threads)
		}
		if err == nil {
			err = v.err()
		}
		if err != nil {
			return fmt.Errorf("reading back what was written: %w", err)
		}
		return nil
	}
	if err := format.Write(o.out, f.Name, m, o.WriteOptions); err != nil {
		return err
	}
	what := m.Config.Name
	if a := torch.Architecture(m.Config); a != "" && !o.FoldNorm {
		what += " (torchvision's and timm's)"
	}
	bytes, err := sizeOnDisk(o.out)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: %s in %s, %d bytes\n", o.out, what, f.About, bytes)
	if f.Name == "torch" && torch.Architecture(m.Config) == "" {
		fmt.Fprintf(stdout, "%s: builds this network in PyTorch, which torchvision and timm do not have\n", format.ModulePath(o.out))
	}
	_, err = fmt.Fprintf(stdout, "read back; golden vectors: %v\n", v)
	return err
}

// sizeOnDisk adds up the bytes of a file, or of the files in a folder.
func sizeOnDisk(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if !info.IsDir() {
		return info.Size(), nil
	}
	entries, err := os.ReadDir(path)
	total := int64(0)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
	}
	return total, err
}
