package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/format"
	"github.com/residual-ml/residual/format/artifact"
	"github.com/residual-ml/residual/internal/hint"
	"github.com/residual-ml/residual/rundir"
)

func newVerify() *cobra.Command {
	var o struct {
		format, engine string
		threads        int
	}
	c := &cobra.Command{
		Use:   "verify FILE|RUN",
		Short: "prove that an exported network still answers as it did",
		Long: `Run the golden vectors of an exported network or an imported run: pictures in the
file with the answers that the network gave when it was exported. They prove the
whole way: decode, resize, normalise, network. The checksum of the weights in the file
finds damage that is too small to show in an answer. The exit status is 1 when an
answer differs by more than 1e-4 of the largest logit, or a weight at all.`,
		Example: `  residual verify resnet18.onnx
  residual verify resnet18.safetensors --engine ref`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := readModel(args[0])
			if err != nil {
				return err
			}
			v, err := verifyModel(c.Context(), m, o.engine, o.threads)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err := v.write(c.OutOrStdout(), o.format); err != nil {
				return err
			}
			if err := v.err(); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.SortFlags = false
	choiceFlag(f, &o.format, "format", "of the output", "text", "json")
	choiceFlag(f, &o.engine, "engine", "cpu, or ref: float64 in plain loops, slow", "cpu", "ref")
	f.IntVar(&o.threads, "threads", 0, "worker threads (default: all processors)")
	return c
}

// readModel reads the result of a run directory, or a file or folder of any format.
func readModel(path string) (*artifact.Model, error) {
	if isRun(path) {
		return format.ReadRun(path, "")
	}
	return format.Read(path)
}

// isRun reports whether a path is a run directory, and no Hugging Face folder, which
// has a config.json too.
func isRun(path string) bool {
	_, noRun := rundir.Open(path)
	_, noFormat := format.Of(path)
	return noRun == nil && noFormat != nil
}

// verification is the outcome of running golden vectors.
type verification struct {
	Vectors []format.Comparison `json:"vectors"`
	Agree   int                 `json:"agree"`
	Engine  string              `json:"engine"`

	// Of the weights; Exported is what the file says it was, "" in files that older
	// versions wrote and in run directories.
	SHA256   string `json:"weights_sha256"`
	Exported string `json:"weights_sha256_exported,omitempty"`
}

func verifyModel(ctx context.Context, m *artifact.Model, engine string, threads int) (v verification, err error) {
	if len(m.Golden) == 0 {
		return v, hint.Wrap(errors.New("there are no golden vectors to verify"), "files that residual export or residual convert wrote have some")
	}
	eng, err := openEngine(engine, threads)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, eng.Close()) }()
	v.Engine, v.SHA256, v.Exported = eng.Name(), m.SHA256(), m.Checksum
	v.Vectors, err = format.Verify(ctx, m, eng)
	for _, c := range v.Vectors {
		if c.Agrees {
			v.Agree++
		}
	}
	return v, err
}

func (v verification) String() string {
	worst := 0.0
	for _, c := range v.Vectors {
		worst = max(worst, c.Difference)
	}
	return fmt.Sprintf("%d of %d agree on %s, the largest difference of a logit is %.2g", v.Agree, len(v.Vectors), v.Engine, worst)
}

// damaged reports whether the weights are known not to be those that were exported.
func (v verification) damaged() bool { return v.Exported != "" && v.Exported != v.SHA256 }

// err is nil when all agree, and the weights are what they were.
func (v verification) err() error {
	const changed = "the weights are not those that were exported: their SHA-256 is %.12s…, want %.12s…"
	agree := v.Agree == len(v.Vectors)
	switch {
	case v.damaged() && agree:
		return hint.Wrap(fmt.Errorf(changed+"; the golden vectors agree within rounding", v.SHA256, v.Exported),
			"the file is damaged, or another program has changed its weights: get or export it again")
	case v.damaged():
		return hint.Wrap(fmt.Errorf("golden vectors: %v; "+changed, v, v.SHA256, v.Exported),
			"the file is damaged, or another program has changed its weights: get or export it again")
	case !agree && v.Exported != "":
		return hint.Wrap(fmt.Errorf("golden vectors: %v", v), "the weights are those that were exported: classes, preprocessing or the vectors were changed, or this program computes otherwise")
	case !agree:
		return hint.Wrap(fmt.Errorf("golden vectors: %v", v), "the file is damaged, or this program computes it wrongly: see what --engine ref answers")
	}
	return nil
}

func (v verification) write(w io.Writer, how string) error {
	if how == "json" {
		return writeJSON(w, v)
	}
	for _, c := range v.Vectors {
		verdict := "agrees"
		if !c.Agrees {
			verdict = "DIFFERS"
		}
		fmt.Fprintf(w, "picture %d, %d×%d: logits differ by %.2g at most, %.2g is allowed: %s\n", c.Picture, c.Width, c.Height, c.Difference, c.Allowed, verdict)
	}
	switch {
	case v.damaged():
		fmt.Fprintf(w, "weights: SHA-256 %.12s…, exported were %.12s…: DIFFERS\n", v.SHA256, v.Exported)
	case v.Exported != "":
		fmt.Fprintf(w, "weights: SHA-256 %.12s…: as exported\n", v.SHA256)
	}
	_, err := fmt.Fprintf(w, "%v\n", v)
	return err
}
