package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/internal/hint"
)

// notOptions are flags that neither environment nor configuration file sets. The
// processes that --prove-resume starts would start others.
var notOptions = []string{"help", "version", "config", "resume", "prove-resume"}

// maxOptions is far more bytes than all options need.
const maxOptions = 1 << 20

// configFlag is the flag of commands that read options from a file.
const configFlag = "config"

// layer is layerOptions for a command with its configuration file, where it has
// one. It runs before every command.
func layer(c *cobra.Command, _ []string) error {
	file := ""
	if f := c.Flags().Lookup(configFlag); f != nil {
		if f.Value.String() == "" {
			_ = f.Value.Set(os.Getenv("RESIDUAL_CONFIG")) // a string takes any
		}
		file = f.Value.String()
	}
	return layerOptions(c, file)
}

// layeredKey marks flags that were not given on the command line.
const layeredKey = "layered"

// typed reports whether a flag was given on the command line itself.
func typed(flags *pflag.FlagSet) func(flag string) bool {
	return func(flag string) bool {
		f := flags.Lookup(flag)
		return f != nil && f.Changed && f.Annotations[layeredKey] == nil
	}
}

// layerOptions fills the flags that the command line left alone: from the
// environment (--batch-size is RESIDUAL_BATCH_SIZE), else from the configuration
// file, a JSON object of flag names. What is still unset the recipe decides.
func layerOptions(c *cobra.Command, configFile string) error {
	file := map[string]any{}
	if configFile != "" {
		f, err := os.Open(configFile)
		if err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxOptions+1))
		if err == nil && len(data) > maxOptions {
			err = fmt.Errorf("more than %d bytes", maxOptions)
		}
		if err == nil {
			err = json.Unmarshal(data, &file)
		}
		if err == nil { // a seed may have more digits than a float64
			numbers := json.NewDecoder(bytes.NewReader(data))
			numbers.UseNumber()
			err = numbers.Decode(&file)
		}
		if err != nil {
			return hint.Wrap(fmt.Errorf("configuration %s: %w", configFile, err), `want an object of options, such as {"epochs": 3, "batch-size": 64}`)
		}
	}
	for name := range file {
		if f := c.Flags().Lookup(name); f == nil || slices.Contains(notOptions, name) {
			return hint.Wrap(fmt.Errorf("configuration %s: %q is no option of %s", configFile, name, c.CommandPath()), "see: "+c.CommandPath()+" --help")
		}
	}
	var first error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || first != nil || slices.Contains(notOptions, f.Name) {
			return
		}
		variable := "RESIDUAL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, from := os.Getenv(variable), variable
		if value == "" {
			v, ok := file[f.Name]
			if !ok {
				return
			}
			value, from = jsonText(v), "configuration "+configFile
		}
		if err := c.Flags().Set(f.Name, value); err != nil {
			first = fmt.Errorf("%s: %w", from, flagError(c, err))
		}
		_ = c.Flags().SetAnnotation(f.Name, layeredKey, []string{from}) // it exists
	})
	return first
}

// jsonText writes a JSON value as a flag takes it: lists with commas.
func jsonText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			return v.String()
		}
		number, _ := v.Float64() // that it is one was found before
		return jsonText(number)
	case []any:
		parts := make([]string, len(v))
		for i, p := range v {
			parts[i] = jsonText(p)
		}
		return strings.Join(parts, ",")
	}
	data, _ := json.Marshal(v) // what was unmarshalled marshals
	return string(data)
}

// choice is a flag that takes one of a few words.
type choice struct {
	value   *string
	allowed []string
}

func (c choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}

func (c choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("want one of %s", strings.Join(c.allowed, ", "))
	}
	*c.value = s
	return nil
}

func (c choice) Type() string { return strings.Join(c.allowed, "|") }

// choiceFlag adds a flag of which the first word allowed is the default.
func choiceFlag(flags *pflag.FlagSet, value *string, name, usage string, allowed ...string) {
	*value = allowed[0]
	flags.Var(choice{value, allowed}, name, usage)
}

// numbersFlag adds a flag that takes numbers with commas between them.
func numbersFlag(flags *pflag.FlagSet, value *[]float64, name, usage string) {
	flags.Float64SliceVar(value, name, nil, usage)
	f := flags.Lookup(name)
	f.Value, f.DefValue = numbers{f.Value.(listValue), value}, "" // a slice's
}

type listValue interface {
	pflag.Value
	pflag.SliceValue
}

// numbers is a list that --help does not call float64Slice, and that is written with
// all digits, so that another process reads the same: pflag's has six decimals.
type numbers struct {
	listValue
	value *[]float64
}

func (numbers) Type() string { return "numbers" }

func (n numbers) GetSlice() []string {
	digits := make([]string, len(*n.value))
	for i, v := range *n.value {
		digits[i] = strconv.FormatFloat(v, 'g', -1, 64)
	}
	return digits
}

// wanted says in words what a flag of a type takes.
var wanted = map[string]string{
	"int": "a whole number", "uint64": "a whole number from 0", "float64": "a number", "bool": "true or false",
	"duration": "a time such as 90m or 1h30m", "intSlice": "whole numbers with commas between them", "numbers": "numbers with commas between them",
}

// synonyms are names that flags have in other programs.
var synonyms = map[string]string{
	"lr": "learning-rate", "wd": "weight-decay", "bs": "batch-size", "output": "out", "workers": "threads", "device": "engine",
	"pretrained": "init", "arch": "model", "dtype": "precision",
}

// flagError says what is wrong with a flag, and which one or what was meant.
func flagError(c *cobra.Command, err error) error {
	see := "see: " + c.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		given := unknown.GetSpecifiedName()
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		near := hint.Nearest(given, names)
		if near == "" {
			i := slices.IndexFunc(names, func(name string) bool { return len(given) > 2 && strings.HasPrefix(name, given) })
			if synonym := synonyms[given]; slices.Contains(names, synonym) {
				near = synonym
			} else if i >= 0 {
				near = names[i]
			}
		}
		if near != "" {
			see = "did you mean --" + near + "? " + see
		}
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		cause := errors.Unwrap(invalid)
		if w := wanted[f.Value.Type()]; w != "" {
			cause = errors.New("want " + w)
		}
		err = fmt.Errorf("--%s %s: %w", f.Name, invalid.GetValue(), cause)
	}
	return hint.Wrap(usageError{err}, see)
}

// noCommand refuses words after a command that only has others below it.
func noCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	return hint.Wrap(usageError{fmt.Errorf("unknown command %q of %s", args[0], c.CommandPath())},
		hint.DidYouMean(args[0], names, "see: "+c.CommandPath()+" --help"))
}

// argsBetween refuses fewer or more arguments; most below 0 is any number.
func argsBetween(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return hint.Wrap(usageError{fmt.Errorf("%s: got %d arguments", c.CommandPath(), len(args))}, "usage: "+c.UseLine())
		}
		return nil
	}
}

const sectionKey = "section"

// section gives the flags that were added since the last call a heading in --help.
func section(flags *pflag.FlagSet, title string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Annotations[sectionKey] == nil {
			f.Annotations = map[string][]string{sectionKey: {title}}
		}
	})
}

// flagSections is the part of --help that lists flags, under their headings in
// the order they were added; those without one come last.
func flagSections(flags *pflag.FlagSet) string {
	var titles []string
	sets := map[string]*pflag.FlagSet{}
	flags.VisitAll(func(f *pflag.Flag) {
		title := "Flags"
		if a := f.Annotations[sectionKey]; a != nil {
			title = a[0]
		}
		if sets[title] == nil {
			titles = append(titles, title)
			sets[title] = pflag.NewFlagSet("", pflag.ContinueOnError)
			sets[title].SortFlags = flags.SortFlags
		}
		sets[title].AddFlag(f)
	})
	if i := slices.Index(titles, "Flags"); len(titles) > 1 && i >= 0 {
		titles = append(slices.Delete(titles, i, i+1), "Flags")
	}
	text := ""
	for _, title := range titles {
		heading := title
		if title == "Flags" && len(titles) > 1 {
			heading = "Other flags"
		}
		text += heading + ":\n" + sets[title].FlagUsages() + "\n"
	}
	return strings.TrimRight(text, "\n")
}
