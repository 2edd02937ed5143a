// Package hint attaches to an error the one thing its reader can do about it.
// Commands print it on a line of its own, after the error.
package hint

import "errors"

type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// Wrap returns err with a hint, an imperative such as "run: residual data get
// cifar10". The error's text is unchanged; Wrap(nil, …) is nil.
func Wrap(err error, hint string) error {
	if err == nil {
		return nil
	}
	return hinted{err, hint}
}

// Of returns the outermost hint in err's chain, or "".
func Of(err error) string {
	var h hinted
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}
