package hint

import (
	"errors"
	"fmt"
	"io"
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
