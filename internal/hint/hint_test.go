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
