package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/format"
	"github.com/residual-ml/residual/format/artifact"
)

func newInspect() *cobra.Command {
	var how string
	c := &cobra.Command{
		Use:   "inspect FILE|RUN",
		Short: "tensors, shapes, types, sizes and metadata of a file",
		Long: `List what a file or folder with weights holds, of any format that residual import
reads. Nothing needs to be recognised: it works for networks of other kinds too.`,
		Example: `  residual inspect resnet20.th
  residual inspect model.safetensors --format json`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			l, err := inspect(args[0])
			if err != nil {
				return err
			}
			if how == "json" {
				return writeJSON(c.OutOrStdout(), l)
			}
			return writeListing(c.OutOrStdout(), args[0], l)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	choiceFlag(f, &how, "format", "of the output", "text", "json")
	return c
}

// inspect lists a file or folder of any format, or the network of a run.
func inspect(path string) (artifact.Listing, error) {
	if !isRun(path) {
		return format.Inspect(path)
	}
	m, err := format.ReadRun(path, "")
	if err != nil {
		return artifact.Listing{}, err
	}
	l := artifact.Listing{Format: "run directory", Tensors: artifact.List(m.Tensors)}
	for _, t := range l.Tensors {
		l.Bytes += t.Bytes
	}
	l.Metadata, err = m.WriteMetadata()
	return l, err
}

func writeListing(w io.Writer, path string, l artifact.Listing) error {
	fmt.Fprintf(w, "%s: %s, %d bytes\n", path, l.Format, l.Bytes)
	for _, n := range l.Notes {
		fmt.Fprintln(w, plain(n))
	}
	for _, key := range slices.Sorted(maps.Keys(l.Metadata)) {
		fmt.Fprintf(w, "metadata %s: %s\n", plain(key), plain(shortened(l.Metadata[key])))
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "tensor\ttype\tshape\tbytes")
	elements, bytes := int64(0), int64(0)
	for _, t := range l.Tensors {
		fmt.Fprintf(table, "%s\t%s\t%v\t%d\n", plain(t.Name), t.Type, t.Shape, t.Bytes)
		elements += int64(t.Shape.Elements())
		bytes += t.Bytes
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d tensors, %d elements, %d bytes\n", len(l.Tensors), elements, bytes)
	return err
}

// shortened is a text that fits a line of a terminal or two.
func shortened(text string) string {
	const most = 160
	if len(text) <= most {
		return text
	}
	cut := most
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return fmt.Sprintf("%s… (%d bytes)", text[:cut], len(text))
}
