package main

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// The bar fits 80 columns, and lasting lines replace it and go to the log too.
func TestBar(t *testing.T) {
	var out, log strings.Builder
	p := newProgress("plain", &out, &log)
	p.mode = "bar"
	p.event(train.Stepped{Epoch: 1, Epochs: 5, Step: 781, Steps: 1563, Loss: 1.234567, Accuracy: 0.5, ImagesPerSecond: 61.4, Remaining: 192 * time.Second})
	bar := strings.TrimPrefix(out.String(), "\r\x1b[K")
	if want := "epoch 1/5  " + strings.Repeat("━", 12) + "   781/1563  loss 1.2346  accuracy 0.5000  ETA 3m12s"; bar != want {
		t.Errorf("bar %q, want %q", bar, want)
	}
	if n := utf8.RuneCountInString(bar); n >= 80 {
		t.Errorf("the bar has %d columns, want fewer than 80", n)
	}
	if log.Len() != 0 {
		t.Errorf("the bar was logged: %q", log.String())
	}
	out.Reset()
	p.event(train.EpochEnded{Epochs: 5, Row: rundir.Epoch{Epoch: 1, Loss: 1, Accuracy: 0.5, ValLoss: 2, ValAccuracy: 0.25, Seconds: 61, ImagesPerSecond: 60}})
	want := "epoch 1/5  loss 1.0000  accuracy 0.5000  val_loss 2.0000  val_accuracy 0.2500  1m01s  60 images/s\n"
	if out.String() != "\r\x1b[K"+want || log.String() != want {
		t.Errorf("terminal %q, log %q, want %q", out.String(), log.String(), want)
	}
}

func TestPlainAndJSON(t *testing.T) {
	var out, log strings.Builder
	p := newProgress("auto", &out, &log)
	if p.mode != "plain" {
		t.Fatalf("auto is %q where there is no terminal, want plain", p.mode)
	}
	row := rundir.Epoch{Epoch: 1, Loss: 1, ValLoss: math.NaN(), ValAccuracy: math.NaN(), ImagesPerSecond: 60}
	p.event(train.EpochEnded{Epochs: 1, Row: row})
	if strings.Contains(out.String(), "val_") || strings.Contains(out.String(), "\x1b") {
		t.Errorf("plain line %q", out.String())
	}
	out.Reset()
	p.mode = "json"
	p.event(train.EpochEnded{Epochs: 1, Row: row})
	if want := `"val_loss":null`; !strings.HasPrefix(out.String(), `{"event":"epoch",`) || !strings.Contains(out.String(), want) {
		t.Errorf("object %q, want one with %s", out.String(), want)
	}
	out.Reset()
	p.mode = "none"
	p.notice("something")
	if out.Len() != 0 {
		t.Errorf("none shows %q", out.String())
	}
}

func TestRoundly(t *testing.T) {
	for d, want := range map[time.Duration]string{
		850 * time.Millisecond: "850ms", 59400 * time.Millisecond: "59s", 59900 * time.Millisecond: "1m00s", 185 * time.Second: "3m05s",
		3599600 * time.Millisecond: "1h00m", 130 * time.Minute: "2h10m",
	} {
		if got := roundly(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
