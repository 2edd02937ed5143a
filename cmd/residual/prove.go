package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/residual-ml/residual/internal/random"
	"github.com/residual-ml/residual/rundir"
	"github.com/residual-ml/residual/train"
)

// proveResume is "residual train --prove-resume N": the same training twice, once
// in peace and once killed with SIGKILL at N random steps and resumed each time,
// and then the comparison of every weight and every moment, bit by bit.
func proveResume(ctx context.Context, o trainOptions, flags *pflag.FlagSet, stdout, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "residual-prove-resume-")
	if err != nil {
		return err
	}
	args := append([]string{"train", o.data}, optionsOf(flags, "prove-resume", "out", "runs", "progress", "format")...)
	command := func(args ...string) *exec.Cmd {
		c := exec.CommandContext(ctx, self, append(slices.Clone(args), "--progress=none", "--format=json")...)
		c.Stderr = stderr
		return c
	}

	whole, killed := filepath.Join(dir, "whole"), filepath.Join(dir, "killed")
	fmt.Fprintf(stderr, "training in peace: %s\n", whole)
	if err := command(append(args, "--out="+whole)...).Run(); err != nil {
		return fmt.Errorf("prove-resume: training in peace: %w", err)
	}
	want, steps, err := weightsOf(whole)
	if err != nil {
		return err
	}

	if steps < 2 {
		return fmt.Errorf("prove-resume: the run has %d steps, too few to be killed in between", steps)
	}
	again := append(slices.Clone(args), "--out="+killed)
	resume := []string{"train", "--resume=" + killed, fmt.Sprintf("--threads=%d", o.threads)}
	if !o.set("save-every") { // so that it is resumed within epochs too
		again = append(again, fmt.Sprintf("--save-every=%d", max(1, steps/7)))
	}
	draw := random.New(o.seed, random.Name("prove resume"), uint64(time.Now().UnixNano()))
	fmt.Fprintf(stderr, "training again, to be killed %d times within %d steps: %s\n", o.proveResume, steps, killed)
	kills := 0
	next := again
	for attempt := 0; kills < o.proveResume && attempt < 10*o.proveResume; attempt++ {
		target := 1 + draw.IntN(steps-1)
		if next[1] == resume[1] { // later than where the checkpoint is, or it comes at once
			target = stepsIn(killed) + draw.IntN(1+max(0, steps-1-stepsIn(killed))/(o.proveResume-kills))
		}
		ended, err := killAfter(command(next...), killed, target, time.Duration(draw.Float64()*float64(20*time.Millisecond)))
		if err != nil {
			return fmt.Errorf("prove-resume: %w", err)
		}
		if ended { // before the signal came: begin once more
			kills = 0
			if err := os.RemoveAll(killed); err != nil {
				return err
			}
			next = again
			continue
		}
		kills++
		fmt.Fprintf(stderr, "killed after step %d\n", stepsIn(killed))
		next = resume
		if _, err := os.Stat(filepath.Join(killed, "config.json")); err != nil { // killed before there was a run
			next = again
		}
	}
	if kills < o.proveResume {
		return fmt.Errorf("prove-resume: killed %d times of %d: the run is too short", kills, o.proveResume)
	}
	if err := command(next...).Run(); err != nil {
		return fmt.Errorf("prove-resume: resuming: %w", err)
	}
	got, gotSteps, err := weightsOf(killed)
	if err != nil {
		return err
	}
	verdict := struct {
		Kills    int    `json:"kills"`
		Steps    int    `json:"steps"`
		Peace    string `json:"sha256_in_peace"`
		Resumed  string `json:"sha256_resumed"`
		SameBits bool   `json:"same_bits"`
	}{kills, steps, want, got, want == got && steps == gotSteps}
	if o.format == "json" {
		err = writeJSON(stdout, verdict)
	} else {
		_, err = fmt.Fprintf(stdout, "in peace          %s  %d steps\nkilled %2d times   %s  %d steps\n", want, steps, kills, got, gotSteps)
	}
	if err != nil {
		return err
	}
	if !verdict.SameBits {
		return fmt.Errorf("prove-resume: the weights differ; both runs are kept in %s", dir)
	}
	if o.format == "text" {
		fmt.Fprintln(stdout, "the same bits")
	}
	return os.RemoveAll(dir)
}

// killAfter starts a command that trains in dir and kills it some time after
// metrics.jsonl says that step is done. ended says that it was over before.
func killAfter(c *exec.Cmd, dir string, step int, delay time.Duration) (ended bool, err error) {
	if err := c.Start(); err != nil {
		return false, err
	}
	over := make(chan error, 1)
	go func() { over <- c.Wait() }()
	for {
		select {
		case err := <-over:
			return true, err
		case <-time.After(2 * time.Millisecond):
		}
		if stepsIn(dir) >= step {
			break
		}
	}
	time.Sleep(delay)
	select {
	case err := <-over:
		return true, err
	default:
	}
	if err := c.Process.Kill(); err != nil {
		return false, err
	}
	<-over
	return false, nil
}

// stepsIn reads how many steps a run's metrics.jsonl has; -1 while there is none.
func stepsIn(dir string) int {
	run, err := rundir.Open(dir)
	if err != nil {
		return -1
	}
	lines, _, err := run.Follow().Poll()
	if err != nil || len(lines) == 0 {
		return -1
	}
	var last struct {
		Step int `json:"step"`
	}
	if json.Unmarshal(lines[len(lines)-1], &last) != nil {
		return -1
	}
	return last.Step
}

// weightsOf hashes the last checkpoint of a run.
func weightsOf(path string) (hash string, steps int, err error) {
	run, err := rundir.Open(path)
	if err != nil {
		return "", 0, err
	}
	c, err := run.LoadCheckpoint("last")
	if err != nil {
		return "", 0, err
	}
	sum := sha256.New()
	if err := train.HashVariables(sum, c); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(sum.Sum(nil)), c.Step, nil
}
