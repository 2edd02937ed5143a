package dataset

import (
	"fmt"
	"testing"
)

// numbers is a data set of pictures of one pixel.
type numbers []uint8

func (n numbers) Len() int          { return len(n) }
func (n numbers) Label(i int) int   { return i % 2 }
func (n numbers) Name(i int) string { return fmt.Sprint("number ", i) }
func (n numbers) Image(i int, dst *Image) error {
	if n[i] == 255 {
		return fmt.Errorf("number %d: truncated", i)
	}
	*dst = Image{Height: 1, Width: 1, Channels: 1, Pix: n[i : i+1]}
	return nil
}

func TestDuplicates(t *testing.T) {
	d := &Data{Train: numbers{1, 2, 3, 2}, Test: numbers{4, 3, 5}}
	groups, err := d.Duplicates()
	if err != nil {
		t.Fatal(err)
	}
	want := "[[{train 1 number 1 1} {train 3 number 3 1}] [{train 2 number 2 0} {test 1 number 1 1}]]"
	if got := fmt.Sprint(groups); got != want {
		t.Errorf("duplicates %s, want %s", got, want)
	}
	d.Test = numbers{255}
	if _, err := d.Duplicates(); err == nil || err.Error() != "test split: number 0: truncated" {
		t.Errorf("error %v", err)
	}
}
