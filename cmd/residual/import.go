package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/format"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/loader"
	"github.com/residual-ml/residual/model"
	"github.com/residual-ml/residual/rundir"
)

// givenOptions are what a user says about a network from elsewhere.
type givenOptions struct {
	model, resize, classMap string
	mean, std               []float64
	scale, cropPct          float64
	imageSize               int
	ignoreUnmapped          bool
}

func (o *givenOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.model, "model", "auto", "refuse the file unless it holds this network: "+strings.Join(model.Names(), ", "))
	numbersFlag(f, &o.mean, "mean", "`R,G,B`, or one number of grey: the network sees (x·scale - mean)/std, x from 0 to 255")
	numbersFlag(f, &o.std, "std", "`R,G,B`, as for --mean; what is given takes the place of the file's mean, std and scale")
	f.Float64Var(&o.scale, "scale", 0, "factor of x (default: 1/255)")
	choiceFlag(f, &o.resize, "resize", "how pictures of another size are treated", "file", loader.Crop, loader.Squash, loader.Letterbox)
	f.Float64Var(&o.cropPct, "crop-pct", 0, "with crop: share of the shorter side that is seen, such as 0.875 (256 to 224 pixels)")
	f.IntVar(&o.imageSize, "image-size", 0, "height and width of the network's pictures (default: the file's, else 32 or, with a 7x7 stem, 224)")
	f.StringVar(&o.classMap, "class-map", "", "file with one class name per line in the order of the outputs, or the built-in data set that has them: "+strings.Join(dataset.Names(), ", "))
	f.BoolVar(&o.ignoreUnmapped, "ignore-unmapped", false, "go on without tensors that have no place in the network")
}

// complete completes m with what was given, and returns what was assumed.
func (o *givenOptions) complete(m *artifact.Model) (notes []string, err error) {
	if o.model != "auto" && o.model != m.Config.Name {
		return nil, hint.Wrap(fmt.Errorf("--model %s: the file holds %s", o.model, m.Config.Name), "leave --model away to take what is there")
	}
	if len(m.Unmapped) > 0 && !o.ignoreUnmapped {
		return nil, hint.Wrap(fmt.Errorf("%d tensors have no place in %s: %s", len(m.Unmapped), m.Config.Name, artifact.Few(m.Unmapped)),
			"a network with them computes something else; to go on without: --ignore-unmapped")
	}
	given := format.Given{Height: o.imageSize, Width: o.imageSize, Scale: o.scale, Mean: o.mean, Std: o.std, CropPct: o.cropPct}
	if o.resize != "file" {
		given.Resize = o.resize
	}
	if o.classMap != "" {
		if given.Classes = dataset.ClassNames(o.classMap); given.Classes == nil {
			if given.Classes, err = dataset.ReadClassMap(o.classMap); err != nil {
				return nil, err
			}
		}
	}
	return format.Complete(m, given)
}

type importOptions struct {
	givenOptions
	out, runs, format, engine string
	threads                   int
}

func newImport() *cobra.Command {
	var o importOptions
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "make a run directory of a network from elsewhere",
		Long: `Read a network that another program trained and make a run directory of it, for
eval, predict and the other commands: safetensors, PyTorch's .pth and .pt, Hugging
Face folders, ONNX, Keras's .keras and .h5.

The network is recognised by the names and shapes of its tensors or, in ONNX and Keras,
by its layers. What the file does not say (size of pictures, preprocessing, names of
classes) is given by options, read from Hugging Face's JSON files beside it, or assumed.
Import tells what it recognised and assumed. The golden vectors and the checksum of the
weights that files of residual export have are verified.`,
		Example: `  residual import resnet20.th -o runs/resnet20
  residual import model.safetensors --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5
  residual import resnet18.onnx --class-map classes.txt
  residual import resnet20.th --class-map cifar10
  residual import model.keras`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return runImport(c.Context(), o, args[0], c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	o.givenOptions.addFlags(f)
	f.StringVarP(&o.out, "out", "o", "", "run directory (default: RUNS/<date>-<model>-<file>)")
	f.StringVar(&o.runs, "runs", "runs", "where run directories are made")
	choiceFlag(f, &o.format, "format", "of the report", "text", "json")
	choiceFlag(f, &o.engine, "engine", "that verifies golden vectors: cpu, or ref: float64 in plain loops, slow", "cpu", "ref")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors)")
	return c
}

// imported is what "residual import" reports, and what origin.json keeps of it.
type imported struct {
	Run        string             `json:"run,omitempty"`
	File       string             `json:"file"`
	SHA256     string             `json:"sha256,omitempty"` // of a single file
	Format     string             `json:"format"`
	Model      model.Config       `json:"model"`
	Recognised []string           `json:"recognised"`
	Assumed    []string           `json:"assumed"`
	Unmapped   []string           `json:"unmapped"`
	Preprocess *loader.Preprocess `json:"preprocess"`
	Golden     *verification      `json:"golden,omitempty"`
}

func runImport(ctx context.Context, o importOptions, file string, stdout io.Writer) error {
	f, err := format.Of(file)
	if err != nil {
		return err
	}
	m, err := format.Read(file)
	if err != nil {
		return err
	}
	notes, err := o.complete(m)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	report := imported{File: file, Format: f.Name, Model: m.Config, Recognised: m.Recognised, Assumed: append([]string{}, notes...),
		Unmapped: append([]string{}, m.Unmapped...), Preprocess: m.Preprocess}
	if len(m.Golden) > 0 {
		v, err := verifyModel(ctx, m, o.engine, o.threads)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := v.err(); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		report.Golden = &v
	}
	if report.SHA256, err = fileSHA256(file); err != nil {
		return err
	}
	if o.out == "" {
		o.out = rundir.NewName(o.runs, m.Config.Name, strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), time.Now())
	}
	from := struct {
		Version  string    `json:"version"`
		Go       string    `json:"go"`
		OS       string    `json:"os"`
		Arch     string    `json:"arch"`
		Started  time.Time `json:"started"`
		Data     any       `json:"data"`
		Imported imported  `json:"imported"`
	}{version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, time.Now().UTC().Truncate(time.Second), nil, report}
	if err := format.WriteRun(o.out, m, from); err != nil {
		return err
	}
	report.Run = o.out
	if o.format == "json" {
		return writeJSON(stdout, report)
	}
	fmt.Fprintf(stdout, "%s: %s\n", file, f.About)
	for _, r := range m.Recognised {
		fmt.Fprintf(stdout, "  %s\n", plain(r))
	}
	for _, n := range notes {
		fmt.Fprintf(stdout, "note: %s\n", plain(n))
	}
	if m.Classes == nil {
		fmt.Fprintln(stdout, "hint: --class-map names the classes, so that residual train --init keeps the dense layer for data that have them")
	}
	if len(m.Unmapped) > 0 {
		fmt.Fprintf(stdout, "note: left out: %s\n", plain(strings.Join(m.Unmapped, ", ")))
	}
	fmt.Fprintf(stdout, "preprocessing: %s\n", format.Describe(*m.Preprocess))
	if report.Golden != nil {
		fmt.Fprintf(stdout, "golden vectors: %s\n", report.Golden)
	}
	_, err = fmt.Fprintf(stdout, "run directory %s; score it with: residual eval %s DATA\n", o.out, hint.Quote(o.out))
	return err
}

// fileSHA256 is the hex SHA-256 of a file, "" of a folder.
func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
