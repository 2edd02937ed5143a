package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const historyFile = "history.csv"

// Epoch is a line of history.csv. NaN stands for a value that is missing, such
// as that of a validation that did not take place, and is an empty cell there.
type Epoch struct {
	Epoch           int     // from 1
	Loss            float64 // loss: training, running mean over the epoch, penalty included
	Accuracy        float64 // sparse_categorical_accuracy: training, running mean, 0 to 1
	ValLoss         float64 // val_loss
	ValAccuracy     float64 // val_sparse_categorical_accuracy
	LearningRate    float64 // learning_rate of the epoch's last step
	Seconds         float64 // seconds, validation included
	ImagesPerSecond float64 // images_per_second, training alone
	EMA             *Scores // of the moving average of the weights; nil: none
}

// Scores are a validation's; in history.csv ema_val_loss and
// ema_val_sparse_categorical_accuracy.
type Scores struct {
	ValLoss, ValAccuracy float64
}

// History is a run's epochs in order.
type History []Epoch

type column struct {
	name  string
	value func(*Epoch) *float64
}

// columns are those of history.csv after "epoch"; the names of the first four are
// the keys of Keras's History.
var columns = []column{
	{"loss", func(e *Epoch) *float64 { return &e.Loss }},
	{"sparse_categorical_accuracy", func(e *Epoch) *float64 { return &e.Accuracy }},
	{"val_loss", func(e *Epoch) *float64 { return &e.ValLoss }},
	{"val_sparse_categorical_accuracy", func(e *Epoch) *float64 { return &e.ValAccuracy }},
	{"learning_rate", func(e *Epoch) *float64 { return &e.LearningRate }},
	{"seconds", func(e *Epoch) *float64 { return &e.Seconds }},
	{"images_per_second", func(e *Epoch) *float64 { return &e.ImagesPerSecond }},
}

// emaColumns come after them in runs that keep a moving average.
var emaColumns = []column{
	{"ema_val_loss", func(e *Epoch) *float64 { return &e.EMA.ValLoss }},
	{"ema_val_sparse_categorical_accuracy", func(e *Epoch) *float64 { return &e.EMA.ValAccuracy }},
}

// columnsOf are the columns of a history with or without a moving average.
func columnsOf(ema bool) []column {
	if ema {
		return slices.Concat(columns, emaColumns)
	}
	return columns
}

// AppendEpoch adds a line to history.csv and flushes it to the disk.
func (d *Dir) AppendEpoch(e Epoch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, size, err := d.openLines(historyFile)
	if err != nil {
		return err
	}
	text := e.line()
	if size == 0 {
		text = headerLine(e.EMA != nil) + text
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err // names the file
}

func headerLine(ema bool) string {
	names := []string{"epoch"}
	for _, c := range columnsOf(ema) {
		names = append(names, c.name)
	}
	return strings.Join(names, ",") + "\n"
}

func (e Epoch) line() string {
	cells := []string{strconv.Itoa(e.Epoch)}
	for _, c := range columnsOf(e.EMA != nil) {
		cell := ""
		if v := *c.value(&e); !math.IsNaN(v) {
			cell = strconv.FormatFloat(v, 'g', -1, 64)
		}
		cells = append(cells, cell)
	}
	return strings.Join(cells, ",") + "\n"
}

// History reads history.csv; it is empty while no epoch has ended. A last line
// that is being written is left out, columns are found by their names.
func (d *Dir) History() (History, error) {
	path := filepath.Join(d.path, historyFile)
	b, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	history, err := parseHistory(string(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return history, nil
}

// parseHistory returns the rows before the first damaged line, and its error.
func parseHistory(text string) (History, error) {
	lines := strings.Split(text[:strings.LastIndexByte(text, '\n')+1], "\n")
	lines = lines[:len(lines)-1] // after the last newline comes nothing
	if len(lines) == 0 {
		return nil, nil
	}
	header := strings.Split(lines[0], ",")
	if !slices.Contains(header, "epoch") {
		return nil, fmt.Errorf("header %q has no column epoch", lines[0])
	}
	var history History
	for i, line := range lines[1:] {
		e, err := parseEpoch(header, strings.Split(line, ","))
		if err != nil {
			return history, fmt.Errorf("line %d: %w", i+2, err)
		}
		history = append(history, e)
	}
	return history, nil
}

func parseEpoch(header, cells []string) (e Epoch, err error) {
	if len(cells) != len(header) {
		return e, fmt.Errorf("%d cells, want %d", len(cells), len(header))
	}
	all := columnsOf(slices.Contains(header, emaColumns[0].name))
	if len(all) > len(columns) {
		e.EMA = new(Scores)
	}
	for _, c := range all {
		*c.value(&e) = math.NaN()
	}
	for i, cell := range cells {
		if header[i] == "epoch" {
			if e.Epoch, err = strconv.Atoi(cell); err != nil {
				return e, fmt.Errorf("epoch is %q, want an integer", cell)
			}
			continue
		}
		for _, c := range all {
			if c.name != header[i] || cell == "" {
				continue
			}
			if *c.value(&e), err = strconv.ParseFloat(cell, 64); err != nil {
				return e, fmt.Errorf("%s is %q, want a number", c.name, cell)
			}
		}
	}
	return e, nil
}

// truncateHistory keeps the epochs up to epoch, and nothing from the first
// damaged line on; RepairHistory brings those epochs back.
func (d *Dir) truncateHistory(epoch int) error {
	b, err := readSmall(filepath.Join(d.path, historyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	all, damage := parseHistory(string(b))
	keep := slices.DeleteFunc(slices.Clone(all), func(e Epoch) bool { return e.Epoch > epoch })
	if damage == nil && len(keep) == len(all) {
		return nil
	}
	return d.WriteBytes(historyFile, []byte(keep.text()))
}

// RepairHistory makes history.csv say what h says, which a checkpoint keeps as
// well: the file may be damaged, or have rows that the checkpoint does not know.
func (d *Dir) RepairHistory(h History) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b, err := readSmall(filepath.Join(d.path, historyFile)); err == nil && string(b) == h.text() || len(h) == 0 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return d.WriteBytes(historyFile, []byte(h.text()))
}

// text is history.csv.
func (h History) text() string {
	var b strings.Builder
	b.WriteString(headerLine(len(h) > 0 && h[0].EMA != nil))
	for _, e := range h {
		b.WriteString(e.line())
	}
	return b.String()
}
