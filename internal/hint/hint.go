// Package hint attaches to an error the one thing its reader can do about it.
// Commands print it on a line of its own, after the error.
package hint

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
)

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

// Quote writes a word, such as a path, so that a shell reads it back.
func Quote(word string) string {
	plain := word != "" && strings.IndexFunc(word, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_./=:,+@%", c))
	}) < 0
	if plain {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// OfFile is what can be done about an error of the operating system that concerns any
// file: no permission, no space. "" for all others.
func OfFile(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "this user has no permission there: give it (ls -ld shows who has), or name another place"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room on that disk, or name another place"
	}
	return ""
}

// Nearest returns the candidate that word is probably a misspelling of, or "".
func Nearest(word string, candidates []string) string {
	plain := strings.NewReplacer("-", "", "_", "", " ", "", ".", "")
	fold := func(s string) string { return plain.Replace(strings.ToLower(s)) }
	word = fold(word)
	best, least := "", min(3, (len(word)+1)/2) // more than two edits, or half of it, are another word
	for _, c := range candidates {
		if d := editDistance(word, fold(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// DidYouMean is a hint that begins with the candidate that word is probably a
// misspelling of, where there is one, and ends with the rest.
func DidYouMean(word string, candidates []string, rest string) string {
	if near := Nearest(word, candidates); near != "" {
		return "did you mean " + near + "? " + rest
	}
	return rest
}

// editDistance is the Levenshtein distance in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
