package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A file for --config is refused with an error that names it, or sets options
// that are options.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{
		`{"epochs": 3, "batch-size": 64, "blocks": [1, 2], "flip": true, "schedule": "cosine", "max-time": "90m"}`,
		`{}`, `null`, `[`, `{"epochs": {}}`, `{"epochs": [[[1]]]}`, `{"epochs": 1e300}`, `{"help": true}`, `{"config": "x"}`, `{"schedule": "\u0000"}`,
	} {
		f.Add([]byte(s))
	}
	if err := optionsFrom(f, []byte(`{"epochs": 3, "blocks": [1, 2]}`)); err != nil {
		f.Fatal(err)
	}
	if err := optionsFrom(f, make([]byte, maxOptions+1)); err == nil {
		f.Fatal("a file beyond the limit is accepted")
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := optionsFrom(t, data); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}

func optionsFrom(t testing.TB, data []byte) error {
	path := filepath.Join(t.TempDir(), "options.json")
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return layerOptions(newTrain(), path)
}
