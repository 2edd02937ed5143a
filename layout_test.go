package residual_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// mayImport is the architecture: for each package of this module, the packages
// of this module it may import. A new edge is a decision, so it is made here.
var mayImport = map[string][]string{
	"tensor":  {},
	"dataset": {"internal/atomicfile", "internal/hint", "internal/random"},
	"loader":  {"dataset", "internal/random", "tensor"},
	"metric":  {},

	"graph": {"tensor"},
	"model": {"graph", "internal/digits", "internal/hint", "internal/random", "tensor"},
	"optim": {"graph", "internal/hint"},

	"engine":            {"graph", "tensor"},
	"engine/ref":        {"engine", "graph", "tensor"},
	"engine/cpu":        {"engine", "engine/cpu/kernel", "graph", "internal/parallel", "tensor"},
	"engine/cpu/kernel": {},
	"engine/enginetest": {"engine", "engine/ref", "graph", "internal/random", "tensor"},

	"train":    {"engine", "format/safetensors", "graph", "internal/hint", "loader", "metric", "model", "optim", "rundir", "tensor"},
	"classify": {"dataset", "engine", "metric", "rundir", "tensor", "train"},
	"evaluate": {"classify", "dataset", "loader", "metric", "rundir", "tensor", "train"},
	"explain":  {"classify", "dataset", "engine", "graph", "internal/atomicfile", "internal/hint", "loader", "metric", "model", "tensor"},
	"rundir":   {"format/safetensors", "internal/atomicfile", "internal/hint", "tensor"},
	"report":   {"evaluate", "internal/digits", "model", "rundir"},

	// Formats make and take an artifact.Model; the table in format knows them all.
	"format":             {"dataset", "engine", "format/artifact", "format/keras", "format/onnx", "format/safetensors", "format/torch", "internal/atomicfile", "internal/hint", "internal/random", "loader", "model", "optim", "rundir", "tensor", "train"},
	"format/artifact":    {"format/safetensors", "graph", "internal/hint", "loader", "model", "tensor"},
	"format/keras":       {"format/artifact", "format/structure", "graph", "internal/hdf5", "internal/hint", "loader", "model", "tensor"},
	"format/safetensors": {"internal/atomicfile", "tensor"},
	"format/torch":       {"format/safetensors", "graph", "internal/hint", "model", "tensor"},
	"format/onnx":        {"format/artifact", "format/structure", "graph", "internal/hint", "loader", "model", "tensor"},
	"format/structure":   {"graph", "model", "tensor"},

	// Only commands and tests know all engines.
	"cmd/residual": {"anything"},
	"golden":       {},

	"internal/amxemu":     {},
	"internal/atomicfile": {},
	"internal/digits":     {},
	"internal/hdf5":       {"tensor"},
	"internal/hint":       {},
	"internal/parallel":   {},
	"internal/random":     {},
}

// TestLayout reads import clauses itself, not through "go list", so that the
// test cache notices when a file changes.
func TestLayout(t *testing.T) {
	const module = "github.com/residual-ml/residual/"
	seen := map[string]bool{}
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && name != "." && strings.ContainsAny(d.Name()[:1], "._") {
			return fs.SkipDir // as the go command does
		}
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		pkg := path.Dir(name)
		seen[pkg] = true
		may, known := mayImport[pkg]
		if !known {
			t.Errorf("%s: package %s is not in the layout table", name, pkg)
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imp, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module)
			if ours && !slices.Contains(may, imp) && !slices.Contains(may, "anything") {
				t.Errorf("%s: %s must not import %s", name, pkg, imp)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range mayImport {
		if !seen[pkg] {
			t.Errorf("package %s of the layout table does not exist", pkg)
		}
	}
}
