package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/residual-ml/residual/dataset"
)

func newData() *cobra.Command {
	c := &cobra.Command{
		Use:   "data",
		Short: "download, check and describe data sets",
		Args:  noCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newDataInfo(), newDataGet(), newDataVerify(), newDataShow())
	return c
}

// dataCommand completes a command about one data set, which it opens. One that
// does not download has a choice of formats.
func dataCommand(c *cobra.Command, download bool, tell func(w io.Writer, data *dataset.Data, format string) error) *cobra.Command {
	var o dataOptions
	format := "text"
	c.Args = argsBetween(1, 1)
	c.RunE = func(c *cobra.Command, args []string) error {
		o.data, o.noDownload = args[0], o.noDownload || !download
		data, err := o.open(c.Context(), 0, c.ErrOrStderr())
		if err != nil {
			return err
		}
		return tell(c.OutOrStdout(), data, format)
	}
	f := c.Flags()
	f.SortFlags = false
	if download {
		o.addPlaceFlags(f)
		return c
	}
	choiceFlag(f, &format, "format", "of the output", "text", "json")
	o.addFlags(f)
	return c
}

func newDataGet() *cobra.Command {
	return dataCommand(&cobra.Command{
		Use:     "get NAME",
		Short:   "download a data set, unless it is there, and check it",
		Example: "  residual data get cifar10\n  residual data get fashion-mnist --data-dir /data",
	}, true, describeData)
}

func newDataInfo() *cobra.Command {
	return dataCommand(&cobra.Command{
		Use:     "info DATA",
		Short:   "counts, classes, origin and hash of a data set that is there",
		Example: "  residual data info shapes\n  residual data info ./photos --format json",
	}, false, describeData)
}

// dataInfo is what "residual data info" tells.
type dataInfo struct {
	Name     string           `json:"name"`
	Classes  []string         `json:"classes"`
	Height   int              `json:"height"` // 0: pictures differ
	Width    int              `json:"width"`
	Channels int              `json:"channels"`
	PerClass map[string][]int `json:"per_class"` // split → count for each class
	Origin   dataset.Origin   `json:"origin"`
}

func describeData(w io.Writer, data *dataset.Data, format string) error {
	info := dataInfo{data.Name, data.Classes, data.Height, data.Width, data.Channels, map[string][]int{}, data.Origin}
	for split, d := range map[string]dataset.Dataset{"train": data.Train, "validation": data.Validation, "test": data.Test} {
		if d == nil {
			continue
		}
		counts := make([]int, len(data.Classes))
		for _, label := range dataset.Labels(d) {
			counts[label]++
		}
		info.PerClass[split] = counts
	}
	if format == "json" {
		return writeJSON(w, info)
	}
	return info.writeText(w)
}

func (d dataInfo) writeText(w io.Writer) error {
	size := "sizes differ"
	if d.Height > 0 {
		size = fmt.Sprintf("%d×%d", d.Height, d.Width)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d classes, %s, %d channels\nsource  %s\nhash    %s\n", d.Name, len(d.Classes), size, d.Channels, d.Origin.Source, d.Origin.Hash)
	var splits []string
	for _, s := range []string{"train", "validation", "test"} {
		if d.PerClass[s] != nil {
			splits = append(splits, s)
		}
	}
	wide := len("class")
	for _, class := range d.Classes {
		wide = max(wide, len(class))
	}
	fmt.Fprintf(&b, "%-*s", wide, "class")
	for _, s := range splits {
		fmt.Fprintf(&b, "  %10s", s)
	}
	for i, class := range d.Classes {
		fmt.Fprintf(&b, "\n%-*s", wide, class)
		for _, s := range splits {
			fmt.Fprintf(&b, "  %10d", d.PerClass[s][i])
		}
	}
	b.WriteString("\n")
	for _, note := range slices.Concat(d.Origin.Notes, d.Origin.Skipped) {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func newDataVerify() *cobra.Command {
	return dataCommand(&cobra.Command{
		Use:   "verify DATA",
		Short: "read every picture and find duplicates by content",
		Long: `Read every picture of a data set, compare its files with the published sums where
there are any, and find pictures that occur twice. The exit status is 1 when a
picture is in two splits, because then a validation or test score is not what it
seems to be.`,
		Example: "  residual data verify cifar10\n  residual data verify ./photos --format json",
	}, false, verifyData)
}

func verifyData(w io.Writer, data *dataset.Data, format string) error {
	groups, err := data.Duplicates()
	if err != nil {
		return err
	}
	leaks, conflicts := 0, 0
	for _, g := range groups {
		if slices.ContainsFunc(g, func(p dataset.Place) bool { return p.Split != g[0].Split }) {
			leaks++
		}
		if slices.ContainsFunc(g, func(p dataset.Place) bool { return p.Label != g[0].Label }) {
			conflicts++
		}
	}
	if format == "json" {
		err = writeJSON(w, struct {
			Name       string            `json:"name"`
			Origin     dataset.Origin    `json:"origin"`
			Duplicates [][]dataset.Place `json:"duplicates"`
			Leaks      int               `json:"in_two_splits"`
			Conflicts  int               `json:"with_two_labels"`
		}{data.Name, data.Origin, groups, leaks, conflicts})
	} else {
		const shown = 20
		for _, g := range groups[:min(len(groups), shown)] {
			for i, p := range g {
				if i > 0 {
					fmt.Fprint(w, " = ")
				}
				fmt.Fprintf(w, "%s (%s, %s)", p.Name, p.Split, data.Classes[p.Label])
			}
			fmt.Fprintln(w)
		}
		if more := len(groups) - shown; more > 0 {
			fmt.Fprintf(w, "and %d more groups of equal pictures\n", more)
		}
		_, err = fmt.Fprintf(w, "%s: every picture can be read; %d groups of equal pictures, %d in two splits, %d with two labels\nhash %s\n",
			data.Name, len(groups), leaks, conflicts, data.Origin.Hash)
	}
	if err == nil && leaks > 0 {
		err = fmt.Errorf("%d pictures are in two splits", leaks)
	}
	return err
}
