package golden

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Python wrote formula.json; every number must come out the same, bit for bit.
func TestFormula(t *testing.T) {
	var file struct {
		Hashes      map[string]string
		Elements    map[string][]float64
		FarElements map[string][2]float64 `json:"far_elements"`
		Shapes      map[string][]int
		Values      map[string][]float64
		Digests     map[string]map[string]Digest
	}
	if err := json.Unmarshal([]byte(Text(t, "formula.json")), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Hashes) < 4 || len(file.Elements) < 4 || len(file.Shapes) < 8 || len(file.Values) < 10 {
		t.Fatalf("formula.json has %d hashes, %d elements, %d shapes, %d values: too few",
			len(file.Hashes), len(file.Elements), len(file.Shapes), len(file.Values))
	}
	for name, want := range file.Hashes {
		if got := fmt.Sprintf("%016x", hash(name)); got != want {
			t.Errorf("hash of %s is %s, want %s", name, got, want)
		}
	}
	for name, want := range file.Elements {
		if got := Values(name, len(want)); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	for name, far := range file.FarElements {
		if got := Value(name, int(far[0])); got != far[1] {
			t.Errorf("element %v of %s is %v, want %v", far[0], name, got, far[1])
		}
	}
	for name, shape := range file.Shapes {
		w := Weight(name, shape)
		if want := file.Values[name]; !slices.Equal(w[:len(want)], want) {
			t.Errorf("weight %s: got %v, want %v", name, w[:len(want)], want)
		}
		// The sums run in another order than numpy's.
		if e, where := NewDigest(name, w).Compare(file.Digests["weights"][name]); e > 1e-15 {
			t.Errorf("digest of %s: %s: relative error %.3g", name, where, e)
		}
	}
	if got := Images(2, 2, 2, 2, 3); !slices.Equal(got, file.Values["images/2"]) {
		t.Errorf("images: got %v, want %v", got, file.Values["images/2"])
	}
	var labels []float64
	for _, l := range Labels(2, 16, 10) {
		labels = append(labels, float64(l))
	}
	if !slices.Equal(labels, file.Values["labels/2"]) {
		t.Errorf("labels: got %v, want %v", labels, file.Values["labels/2"])
	}
}

// No error hides from a digest, neither in one element nor in the order of elements.
func TestDigestSeesErrors(t *testing.T) {
	const n = 4608
	x := Values("x", n)
	want := NewDigest("x", x)
	if e, _ := NewDigest("x", x).Compare(want); e != 0 {
		t.Errorf("a tensor differs from itself by %g", e)
	}
	rms := want.Norm / math.Sqrt(n)
	changes := map[string]func([]float64){
		"one element":    func(v []float64) { v[1234] += rms },
		"two swapped":    func(v []float64) { v[17], v[18] = v[18], v[17] },
		"transposed":     func(v []float64) { copy(v, transposed(v, 48)) },
		"sign":           func(v []float64) { v[7] = -v[7] },
		"scaled":         func(v []float64) { scale(v, 1.001) },
		"another name's": func(v []float64) { copy(v, Values("y", n)) },
	}
	for what, change := range changes {
		y := slices.Clone(x)
		change(y)
		if e, _ := NewDigest("x", y).Compare(want); !(e > 1e-4) {
			t.Errorf("%s: seen only as %g", what, e)
		}
	}
	// Rounding to float32 must look like what it is.
	y := slices.Clone(x)
	for i := range y {
		y[i] = float64(float32(y[i]))
	}
	if e, where := NewDigest("x", y).Compare(want); e < 1e-10 || e > 1e-7 {
		t.Errorf("rounding to float32 looks like %g (%s), want 1e-10 to 1e-7", e, where)
	}
	for what, v := range map[string]float64{"NaN": math.NaN(), "Inf": math.Inf(1)} {
		y := slices.Clone(x)
		y[3] = v
		if e, _ := NewDigest("x", y).Compare(want); !math.IsInf(e, 1) {
			t.Errorf("%s: error %g, want +Inf", what, e)
		}
	}
	zero := NewDigest("z", make([]float64, 5))
	if e, _ := zero.Compare(zero); e != 0 {
		t.Errorf("zeros differ from zeros by %g", e)
	}
	if e, _ := NewDigest("z", []float64{0, 1e-30, 0, 0, 0}).Compare(zero); !math.IsInf(e, 1) {
		t.Errorf("something differs from zeros by %g, want +Inf", e)
	}
	if e, where := NewDigest("x", x[1:]).Compare(want); !math.IsInf(e, 1) || where != "count" {
		t.Errorf("fewer elements: %g (%s)", e, where)
	}
}

func transposed(v []float64, rows int) []float64 {
	out := make([]float64, 0, len(v))
	for c := range len(v) / rows {
		for r := range rows {
			out = append(out, v[r*(len(v)/rows)+c])
		}
	}
	return out
}

func scale(v []float64, by float64) {
	for i := range v {
		v[i] *= by
	}
}

func TestDifference(t *testing.T) {
	for _, c := range []struct {
		got, want []float64
		worst     float64
		index     int
	}{
		{[]float64{1, 2}, []float64{1, 2}, 0, 0},
		{[]float64{3, 4.5}, []float64{3, 4}, 0.125, 1},
		{[]float64{1}, []float64{1, 2}, math.Inf(1), -1},
		{[]float64{3, math.NaN()}, []float64{3, 4}, math.Inf(1), 1},
		{[]float64{0, 0}, []float64{0, 0}, 0, 0},
	} {
		if e, i := Difference(c.got, c.want); e != c.worst || i != c.index {
			t.Errorf("Difference(%v, %v) = %g at %d, want %g at %d", c.got, c.want, e, i, c.worst, c.index)
		}
	}
}

// recorder notes that a check failed instead of failing.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Errorf(f string, a ...any) { r.failures = append(r.failures, fmt.Sprintf(f, a...)) }
func (r *recorder) Fatalf(f string, a ...any) { r.Errorf(f, a...); panic(r) }

func TestChecksFail(t *testing.T) {
	x := Values("a", 10)
	want := map[string]Digest{"a": NewDigest("a", x)}
	for what, c := range map[string]struct {
		check func(r *recorder)
		says  string
	}{
		"good":    {func(r *recorder) { CheckDigests(r, "g", map[string][]float64{"a": x}, want, 0) }, ""},
		"missing": {func(r *recorder) { CheckDigests(r, "g", nil, want, 1) }, "a is missing"},
		"extra": {func(r *recorder) { CheckDigests(r, "g", map[string][]float64{"a": x, "b": x}, want, 1) },
			"got b, which the golden file does not have"},
		"nothing": {func(r *recorder) { CheckDigests(r, "g", nil, nil, 1) }, "nothing to compare with"},
		"short":   {func(r *recorder) { CheckDigests(r, "g", map[string][]float64{"a": x[1:]}, want, 1) }, "a has 9 values, want 10"},
		"wrong":   {func(r *recorder) { CheckDigests(r, "g", map[string][]float64{"a": Values("b", 10)}, want, 0.1) }, "limit 0.1"},
		"NaN":     {func(r *recorder) { CheckValues(r, "v", []float64{math.NaN()}, []float64{1}, 1) }, "element 0 is NaN"},
		"file": {func(r *recorder) {
			defer func() { _ = recover() }()
			Load(r, "torch_resnet19")
		}, "make it with: python golden/torch_resnet.py"},
	} {
		r := &recorder{TB: t}
		c.check(r)
		if said := strings.Join(r.failures, "\n"); (said == "") != (c.says == "") || !strings.Contains(said, c.says) {
			t.Errorf("%s: says %q, want %q", what, said, c.says)
		}
	}
}

// Every file that is here must say where it comes from, be small, and hold
// something; every file that the comparisons rely on must be here.
func TestFiles(t *testing.T) {
	names, err := filepath.Glob("*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() >= 50_000 {
			t.Errorf("%s is %d bytes, the limit is 50,000", name, info.Size())
		}
		f := Load(t, strings.TrimSuffix(name, ".json"))
		if f.Case+".json" != name || f.Note == "" || f.Versions["numpy"] == "" {
			t.Errorf("%s: case %q, note %q, versions %v", name, f.Case, f.Note, f.Versions)
		}
		if _, err := os.Stat(f.Script); err != nil || !strings.HasPrefix(f.Command, "python golden/"+f.Script) {
			t.Errorf("%s: script %q, command %q: %v", name, f.Script, f.Command, err)
		}
		if !slices.ContainsFunc(commands, func(c struct{ prefix, command string }) bool {
			return strings.HasPrefix(name, c.prefix) && c.command == f.Command
		}) {
			t.Errorf("%s: the command table does not lead to %q", name, f.Command)
		}
		if len(f.Values)+len(f.Digests)+len(f.Ops)+len(f.Counts)+len(f.Pictures) == 0 {
			t.Errorf("%s is empty", name)
		}
		for section, tensors := range f.Digests {
			for tensor, d := range tensors {
				if d.N <= 0 || d.Norm < 0 || len(d.Projections) != projections || len(d.Samples) != samples {
					t.Errorf("%s: %s %s: %+v", name, section, tensor, d)
				}
			}
		}
		for _, op := range f.Ops {
			for _, input := range slices.Sorted(maps.Keys(op.Inputs)) {
				op.Input(t, input)
			}
			if len(op.Outputs) == 0 {
				t.Errorf("%s: op %s has no outputs", name, op.Name)
			}
		}
	}
}

// The totals are the ones that the whole project is held to.
func TestSummaries(t *testing.T) {
	for _, name := range []string{"keras_summary.txt", "keras_summary_nested.txt"} {
		text := Text(t, name)
		for _, line := range []string{
			" Total params: 11,183,562 (42.66 MB)",
			" Trainable params: 11,173,962 (42.63 MB)",
			" Non-trainable params: 9,600 (37.50 KB)",
		} {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("%s lacks %q", name, line)
			}
		}
	}
}
