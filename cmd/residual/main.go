// Command residual trains, evaluates and uses residual image classifiers.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/internal/hint"
)

func main() {
	// Weights, moments, feature maps and data are few, large and live long; room for
	// as much garbage again, which is Go's default, would be wasted on them.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(20)
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes. After a signal, work is saved and can be continued: Interrupted is
// the shell's code for SIGINT, and Requeue (EX_TEMPFAIL of sysexits.h) tells a
// scheduler that sent SIGTERM or SIGUSR1 to start the job again, with --resume.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitRequeue     = 75
	exitInterrupted = 130
)

// usageError marks mistakes in the command line itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error } // to its hint

// run is main without the process: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	var stopped stoppedBy
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &stopped):
		return stopped.exitCode()
	}
	complain(stderr, err, cmp.Or(hint.Of(err), hint.OfFile(err)))
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitError
}

// complain writes an error and what can be done about it.
func complain(stderr io.Writer, err error, hint string) {
	fmt.Fprintf(stderr, "residual: error: %s\n", said(err))
	if hint != "" {
		fmt.Fprintf(stderr, "residual: hint: %s\n", plainLines(hint))
	}
}

// said is an error as it is shown: "path: what", not "open path: what", and what is
// there instead, if it is a symbolic link.
func said(err error) string {
	text := err.Error()
	if p, ok := err.(*fs.PathError); ok {
		text = p.Path + ": " + p.Err.Error()
	}
	var p *fs.PathError
	if errors.As(err, &p) && errors.Is(p, fs.ErrNotExist) {
		if target, link := os.Readlink(p.Path); link == nil {
			text += fmt.Sprintf(" (%s is a symbolic link to %s)", p.Path, target)
		}
	}
	return plainLines(text)
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "residual",
		Short: "train, judge and use residual image classifiers",
		Long: `residual trains residual image classifiers (ResNets) on this machine's CPU, and
evaluates and uses them. It is one static binary: no Python, nothing to install.

RUN is the directory that residual train or residual import leaves, below runs/.
The environment can set every option: RESIDUAL_BATCH_SIZE=64 is --batch-size 64.
RESIDUAL_CPU=generic, avx2, avx512 or avx512_bf16 caps the instruction set.

The exit status is 0, 2 for a mistake in the command line, 1 for other errors; 130
after Ctrl-C and 75 after SIGTERM or SIGUSR1, when training has saved its work.`,
		Example: `  residual train                       # ResNet-18 on generated pictures: at once, offline
  residual train cifar10               # the tutorial: ResNet-18, Adam, batch 32, 5 epochs
  residual train ./photos              # a folder: photos/<class>/*.jpg
  residual summary resnet18
  residual eval runs/RUN
  residual predict runs/RUN cat.jpg`,
		Version: version(),
		// Options are filled in from the environment and files before a command begins.
		PersistentPreRunE: layer,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              noCommand,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	cobra.AddTemplateFunc("flagSections", flagSections)
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(),
		"Flags:\n{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}", "{{flagSections .LocalFlags}}", 1))
	root.SetVersionTemplate("residual {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	cobra.EnableCommandSorting = false // --help lists them as they come to be used
	root.AddCommand(newTrain(), newEval(), newPredict(), newExplain(), newReport(), newCompare(), newSummary(), newData())
	root.AddCommand(newImport(), newExport(), newConvert(), newVerify(), newInspect())
	root.AddCommand(newLRFind(), newReproduce(), newReplay(), newBench(), newPlan())
	return root
}

// version is the module's version or, from a clone, the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && v == "devel" {
			v += "-" + s.Value[:12]
		}
		if s.Key == "vcs.modified" && s.Value == "true" {
			v += "+changes"
		}
	}
	return v + " " + info.GoVersion
}
