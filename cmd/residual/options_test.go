package main

import (
	"io"
	"slices"
	"testing"

	"github.com/spf13/pflag"
)

// A recipe promises what it is known to reach only when it is left as it is.
func TestExpectationOfRecipe(t *testing.T) {
	for _, c := range []struct {
		args []string
		want bool
	}{
		{nil, true},
		{[]string{"--seed=3", "--threads=1", "--out=somewhere"}, true},
		{[]string{"--epochs=4"}, false},
		{[]string{"--learning-rate=0.001"}, false}, // the recipe's own, but given
		{[]string{"--model=resnet32"}, false},
		{[]string{"--recipe=fast"}, false},
	} {
		var o trainOptions
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.addFlags(flags)
		if err := flags.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		o.set = flags.Changed
		data, err := o.dataOptions.open(t.Context(), 0, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := o.resolve(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.Expected != nil; got != c.want {
			t.Errorf("%v: expectation %v, want one: %v", c.args, cfg.Expected, c.want)
		}
	}
	for _, flag := range decidesNothing {
		if !slices.Contains(trainFlagNames(), flag) {
			t.Errorf("--%s is no option of train", flag)
		}
	}
}

// What lr-find leaves out of train's options exists there, so that a renamed option
// does not come in by the back door.
func TestOptionsOfLRFind(t *testing.T) {
	for _, flag := range notOfLRFind {
		if !slices.Contains(trainFlagNames(), flag) {
			t.Errorf("--%s is no option of train", flag)
		}
	}
	c := newLRFind()
	for _, flag := range []string{"resume", "seeds", "epochs", "score-test"} {
		if c.Flags().Lookup(flag) != nil {
			t.Errorf("lr-find has --%s", flag)
		}
	}
	if c.Flags().Lookup("init") == nil || c.Flags().Lookup("batch-size") == nil {
		t.Error("lr-find does not say what is trained")
	}
}
