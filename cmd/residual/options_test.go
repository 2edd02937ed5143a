package main

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/dataset"
	"github.com/residual-ml/residual/train"
)

// Without arguments, train trains the tutorial's network; where that would take
// hours it says what would not.
func TestDefaultNetwork(t *testing.T) {
	for _, c := range []struct {
		args          []string
		engine, model string
		advised       bool
	}{
		{nil, "cpu/avx2", "resnet18", false},
		{nil, "cpu/generic", "resnet18", true},
		{[]string{"--seed=1", "--epochs=2"}, "cpu/generic", "resnet18", true},
		{[]string{"--model=resnet18"}, "cpu/generic", "resnet18", false},
		{[]string{"--model=resnet20"}, "cpu/generic", "resnet20", false},
		{[]string{"--blocks=1", "--filters=4"}, "cpu/generic", "resnet18-blocks1-filters4", false},
		{[]string{"--recipe=fast"}, "cpu/generic", "resnet8w", false},
	} {
		var o trainOptions
		cfg := resolved(t, &o, c.args)
		if cfg.Model.Name != c.model {
			t.Errorf("%v: network %s, want %s", c.args, cfg.Model.Name, c.model)
		}
		if advice := slowWithout(c.engine, cfg, o.model); (advice != "") != c.advised {
			t.Errorf("%v on %s: advice %q, want one: %v", c.args, c.engine, advice, c.advised)
		}
	}
}

// A network has its own schedule where the recipe knows one; options come before it.
func TestScheduleOfNetwork(t *testing.T) {
	for want, args := range map[float64][]string{
		400.0 / 64000: {"--recipe=he2015", "--model=resnet110"},
		0:             {"--recipe=he2015", "--model=resnet56"},
		0.1:           {"--recipe=he2015", "--model=resnet110", "--schedule=onecycle", "--warmup=0.1"},
	} {
		var o trainOptions
		if s := resolved(t, &o, args).Schedule; s.Warmup != want {
			t.Errorf("%v: schedule %+v, want a warm-up of %v", args, s, want)
		}
	}
}

// Options reach the processes of --prove-resume, and the seeds that are continued, as
// they were given.
func TestOptionsAgain(t *testing.T) {
	given := []string{"--mean=0.49139968,1e-09", "--learning-rate=0.012345678901", "--blocks=1,2", "--max-time=1h30m0s", "--nesterov=true", "--stem=small"}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(trainOptions).addFlags(flags)
	if err := flags.Parse(append(given, "--seeds=3")); err != nil {
		t.Fatal(err)
	}
	if again := optionsOf(flags, "seeds"); !slices.Equal(again, given) {
		t.Errorf("options %q, given were %q", again, given)
	}
}

var shapes = sync.OnceValues(func() (*dataset.Data, error) {
	return dataset.Open(context.Background(), "shapes", dataset.Options{})
})

// resolved is the configuration that options of train make, on shapes.
func resolved(t *testing.T, o *trainOptions, args []string) train.Config {
	t.Helper()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.addFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	o.set = flags.Changed
	data, err := shapes()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := o.resolve(data)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

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
		cfg := resolved(t, new(trainOptions), c.args)
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
