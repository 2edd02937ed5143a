package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// progress shows training on standard error, in one of four ways, and writes
// the lines of the plain way to the run's log.
//
//	bar    one line that is redrawn, for a terminal, and a line per epoch
//	plain  a line now and then and a line per epoch, for files and pipes
//	json   an object per event
//	none   nothing
type progress struct {
	mode  string
	out   io.Writer
	log   io.Writer
	color bool

	mu    sync.Mutex
	drawn bool      // a bar stands on the current line
	shown time.Time // when the bar or the last plain line was written
	eta   time.Duration
}

const (
	barEvery   = 100 * time.Millisecond
	plainEvery = 10 * time.Second
)

// newProgress picks the way: auto is the bar on a terminal, else plain lines.
func newProgress(mode string, stderr, log io.Writer) *progress {
	p := &progress{mode: mode, out: stderr, log: log}
	if mode == "auto" {
		p.mode = "plain"
		if isTerminal(stderr) && os.Getenv("TERM") != "dumb" {
			p.mode = "bar"
			p.color = os.Getenv("NO_COLOR") == ""
		}
	}
	return p
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func terminalWidth(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 80
}

// notice shows a line of text.
func (p *progress) notice(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line(text)
}

// warn shows a warning, whatever the mode.
func (p *progress) warn(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.warning(text)
}

func (p *progress) warning(text string) {
	p.line("warning: " + text)
	if p.mode == "none" {
		fmt.Fprintln(p.out, "warning: "+text)
	}
}

// keepLog lets lasting lines go to a run's log from now on.
func (p *progress) keepLog(log io.Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = log
}

// interrupted answers the first Ctrl-C.
func (p *progress) interrupted() {
	p.notice("finishing this step, then saving; a second signal (Ctrl-C) quits at once and loses what is not saved")
}

// done removes the bar.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}

// line writes a lasting line to standard error and log.
func (p *progress) line(text string) {
	fmt.Fprintln(p.log, text)
	switch p.mode {
	case "json":
		p.object("notice", map[string]any{"text": text})
	case "bar", "plain":
		p.clear()
		fmt.Fprintln(p.out, text)
	}
}

// object writes an event as one line of JSON.
func (p *progress) object(event string, v any) {
	fields, err := json.Marshal(v)
	if err != nil {
		fields = fmt.Appendf(nil, `{"error":%q}`, err)
	}
	rest := strings.TrimPrefix(string(fields), "{")
	if rest != "}" {
		rest = "," + rest
	}
	fmt.Fprintf(p.out, "{\"event\":%q%s\n", event, rest)
}

// event shows what training tells.
func (p *progress) event(e train.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := e.(type) {
	case train.Started:
		if e.Epoch > 0 || e.Step > 0 {
			p.line(fmt.Sprintf("continuing after epoch %d, step %d of %d", e.Epoch, e.Step, e.StepsPerEpoch))
		}
	case train.Estimated:
		p.line(fmt.Sprintf("%.0f images/s: expects to take about %s", e.ImagesPerSecond, roundly(e.Remaining)))
	case train.Stepped:
		p.stepped(e)
	case train.Validating:
		p.validating(e)
	case train.Validated:
		text := fmt.Sprintf("step %d: val_loss %.4f, val_accuracy %.4f", e.Step, e.Loss, e.Accuracy)
		if e.EMA != nil {
			text += fmt.Sprintf(", moving average %.4f, %.4f", e.EMA.Loss, e.EMA.Accuracy)
		}
		p.line(text)
	case train.EpochEnded:
		p.epochEnded(e)
	case train.Planned:
		p.line(fmt.Sprintf("the time budget of %s allows %d of %d steps; the schedule is fitted to these", roundly(e.Budget), e.Steps, e.AllSteps))
	case train.Captured:
		p.line(fmt.Sprintf("step %d is not finite, first at %s; everything about it is in %s", e.Step, e.Layer, e.Capsule))
	case train.RolledBack:
		p.line(fmt.Sprintf("rolled back to step %d; batch %d of epoch %d is left out", e.Step, e.Batch, e.Epoch))
	case train.SaveFailed:
		p.warning(fmt.Sprintf("cannot save, training goes on: %v", e.Err))
	case train.FellBack:
		p.warning(e.Text)
	case train.Saved: // said by the epoch's line, or by the last line of the run
	}
}

func (p *progress) stepped(e train.Stepped) {
	p.eta = e.Remaining
	switch p.mode {
	case "json":
		p.object("step", struct {
			Epoch            int          `json:"epoch"`
			Step             int          `json:"step"`
			Steps            int          `json:"steps"`
			Loss             rundir.Float `json:"loss"`
			Accuracy         float64      `json:"sparse_categorical_accuracy"`
			ImagesPerSecond  float64      `json:"images_per_second"`
			RemainingSeconds float64      `json:"remaining_seconds"`
		}{e.Epoch, e.Step, e.Steps, rundir.Float(e.Loss), e.Accuracy, e.ImagesPerSecond, e.Remaining.Seconds()})
	case "bar":
		p.bar(fmt.Sprintf("epoch %d/%d", e.Epoch, e.Epochs), e.Step, e.Steps,
			fmt.Sprintf("loss %.4f", e.Loss), fmt.Sprintf("accuracy %.4f", e.Accuracy),
			"ETA "+roundly(e.Remaining), fmt.Sprintf("%.0f images/s", e.ImagesPerSecond))
	case "plain":
		if time.Since(p.shown) < plainEvery {
			return
		}
		if !p.shown.IsZero() {
			p.line(fmt.Sprintf("epoch %d/%d  step %d/%d  loss %.4f  accuracy %.4f  %.0f images/s  ETA %s",
				e.Epoch, e.Epochs, e.Step, e.Steps, e.Loss, e.Accuracy, e.ImagesPerSecond, roundly(e.Remaining)))
		}
		p.shown = time.Now()
	}
}

func (p *progress) validating(e train.Validating) {
	switch p.mode {
	case "bar":
		p.bar("validating", e.Done, e.Images)
	case "json":
		p.object("validating", struct {
			Done   int `json:"done"`
			Images int `json:"images"`
		}{e.Done, e.Images})
	}
}

func (p *progress) epochEnded(e train.EpochEnded) {
	r := e.Row
	text := fmt.Sprintf("epoch %d/%d  loss %.4f  accuracy %.4f", r.Epoch, e.Epochs, r.Loss, r.Accuracy)
	if r.ValLoss == r.ValLoss { // NaN: there was no validation
		text += fmt.Sprintf("  val_loss %.4f  val_accuracy %.4f", r.ValLoss, r.ValAccuracy)
		if r.EMA != nil {
			text += fmt.Sprintf("  of the moving average %.4f  %.4f", r.EMA.ValLoss, r.EMA.ValAccuracy)
		}
	}
	text += fmt.Sprintf("  %s  %.0f images/s", elapsed(r.Seconds), r.ImagesPerSecond)
	if p.mode == "json" {
		fmt.Fprintln(p.log, text)
		p.object("epoch", jsonRow(r))
	} else {
		p.line(text)
		p.shown = time.Now()
	}
	if e.Stopping != "" {
		p.line(e.Stopping)
	}
}

// count redraws the bar of something else than training.
func (p *progress) count(title string, done, of int, fields ...string) {
	p.mu.Lock() // a signal may have something said meanwhile
	defer p.mu.Unlock()
	p.bar(title, done, of, fields...)
}

// bar redraws the bar with as many of the fields behind it as the terminal's
// width has room for.
func (p *progress) bar(title string, done, of int, fields ...string) {
	if time.Since(p.shown) < barEvery && done != of {
		return
	}
	p.shown = time.Now()
	width := terminalWidth(p.out)
	cells := min(max(width-68, 4), 24) // the numbers behind it say more
	filled := cells * done / max(of, 1)
	on, dim, off := "", "", ""
	if p.color {
		on, dim, off = "\x1b[32m", "\x1b[2m", "\x1b[0m"
	}
	count := fmt.Sprintf("  %*d/%d", len(fmt.Sprint(of)), done, of)
	room := width - 1 - len(title) - 2 - cells - len(count)
	for _, f := range fields {
		if room -= 2 + len(f); room < 0 {
			break
		}
		count += "  " + f
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s  %s%s%s%s%s%s", title, on, strings.Repeat("━", filled), off+dim, strings.Repeat("━", cells-filled), off, count)
	p.drawn = true
}

// elapsed is roundly for seconds.
func elapsed(seconds float64) string { return roundly(time.Duration(seconds * float64(time.Second))) }

// roundly prints a duration with two units: 850ms, 12s, 3m05s, 2h10m.
func roundly(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	s := int(d.Round(time.Second).Seconds())
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	}
	m := (s + 30) / 60
	return fmt.Sprintf("%dh%02dm", m/60, m%60)
}

// downloadProgress shows downloads on a terminal, and a line per file elsewhere.
func downloadProgress(stderr io.Writer) func(name string, done, total int64) {
	p := newProgress("auto", stderr, io.Discard)
	last := ""
	return func(name string, done, total int64) {
		if p.mode != "bar" {
			if name != last {
				fmt.Fprintf(stderr, "downloading %s\n", name)
			}
			last = name
			return
		}
		p.count("downloading "+name, int(done>>10), int(max(total, done)>>10), "KiB")
		if done == total {
			p.done()
		}
	}
}

// noticeHandler prints the data set's notices as plain lines.
type noticeHandler struct{ out io.Writer }

func (h noticeHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (h noticeHandler) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h noticeHandler) WithGroup(string) slog.Handler                { return h }
func (h noticeHandler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "data" {
			text = a.Value.String() + ": " + text
		} else {
			text += fmt.Sprintf(" (%s: %v)", a.Key, a.Value)
		}
		return true
	})
	_, err := fmt.Fprintln(h.out, "note: "+text)
	return err
}

// countsOf says how many images train and validate.
func countsOf(l loaders) string {
	if l.val == nil {
		return fmt.Sprintf("%d training images", l.fit.Len())
	}
	return fmt.Sprintf("%d training, %d validation images", l.fit.Len(), l.val.Len())
}
