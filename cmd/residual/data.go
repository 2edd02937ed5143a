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
		Args:  argsBetween(0, 0),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newDataInfo(), newDataGet())
	return c
}

func newDataGet() *cobra.Command {
	var o dataOptions
	c := &cobra.Command{
		Use:     "get NAME",
		Short:   "download a data set, unless it is there, and check it",
		Example: "  residual data get cifar10\n  residual data get fashion-mnist --data-dir /data",
		Args:    argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return describeData(c, &o, args[0], "text")
		},
	}
	o.addFlags(c.Flags())
	return c
}

func newDataInfo() *cobra.Command {
	var o dataOptions
	var format string
	c := &cobra.Command{
		Use:     "info DATA",
		Short:   "counts, classes, origin and hash of a data set that is there",
		Example: "  residual data info shapes\n  residual data info ./photos --format json",
		Args:    argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			o.noDownload = true
			return describeData(c, &o, args[0], format)
		},
	}
	choiceFlag(c.Flags(), &format, "format", "", "text", "json")
	o.addFlags(c.Flags())
	return c
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

func describeData(c *cobra.Command, o *dataOptions, name, format string) error {
	if err := layerOptions(c, ""); err != nil {
		return err
	}
	o.data = name
	data, err := o.open(c.Context(), 0, c.ErrOrStderr())
	if err != nil {
		return err
	}
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
		return writeJSON(c.OutOrStdout(), info)
	}
	return info.writeText(c.OutOrStdout())
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
