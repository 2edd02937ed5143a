package hint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

func TestWrap(t *testing.T) {
	err := fmt.Errorf("reading: %w", Wrap(io.ErrUnexpectedEOF, "get it again"))
	if Of(err) != "get it again" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Of = %q, error %v", Of(err), err)
	}
	if Wrap(nil, "x") != nil || Of(io.EOF) != "" {
		t.Error("a hint appeared from nothing")
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{"runs/2026-01-02-m": "runs/2026-01-02-m", "my run": "'my run'", "it's": `'it'\''s'`, "": "''", "a;b": "'a;b'", "猫": "'猫'"} {
		if got := Quote(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}

func TestOfFile(t *testing.T) {
	for want, err := range map[string]error{
		"permission": &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES},
		"room":       fmt.Errorf("writing: %w", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}),
	} {
		if got := OfFile(err); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q in it", err, got, want)
		}
	}
	if got := OfFile(io.ErrUnexpectedEOF); got != "" {
		t.Errorf("%q appeared from nothing", got)
	}
}

func TestNearest(t *testing.T) {
	candidates := []string{"cifar10", "mnist", "fashion-mnist", "epochs", "l2"}
	for word, want := range map[string]string{
		"CIFAR-10": "cifar10", "cifar1o": "cifar10", "FashionMNIST": "fashion-mnist", "minst": "mnist", "epoch": "epochs",
		"lr": "", "": "", "l2": "l2", "imagenet": "", "cif": "",
	} {
		if got := Nearest(word, candidates); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
	if got := DidYouMean("epoch", candidates, "see --help"); got != "did you mean epochs? see --help" {
		t.Errorf("%q", got)
	}
	if got := DidYouMean("imagenet", candidates, "see --help"); got != "see --help" {
		t.Errorf("%q", got)
	}
}
