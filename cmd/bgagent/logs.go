package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/transcript"
)

// logsCmd is the command "bgagent logs".
type logsCmd struct {
	ID     string `arg:"" help:"Id of the task."`
	Follow bool   `short:"f" help:"Keep printing new output of the task's program until the task has ended. Its bgagent serve must run."`
}

// Help implements kong's help provider.
func (logsCmd) Help() string {
	return `Prints what the program of a task of serve or mcp has printed. Lines of standard error begin with "stderr: ". The logs of run are in its results folder.

Exit codes: 0 the log was printed; 1 it could not be read, or the output could not be written; 2 invalid input, or there is no such task; 130 interrupted.`
}

// followPause is the pause between two reads of a log.
const followPause = 200 * time.Millisecond

// Run implements the subcommand.
func (c logsCmd) Run(all *cli, stop stops) error {
	folder, err := all.folder()
	if err != nil {
		return err
	}
	v, t, server, shared, err := findAnywhere(stop.soft, folder, c.ID)
	if err != nil {
		return err
	}
	if server != nil {
		return c.printServed(stop.soft, os.Stdout, server, shared.Task.ID)
	}
	if err := v.reader.Close(); err != nil {
		return err
	}
	if v.Kind == statedir.Run {
		return &exitError{exitInput, fmt.Errorf("task %s belongs to %v; when it has ended, its log is in that folder", t.ID, v)}
	}
	server, err = v.server()
	switch {
	case err == nil:
		return c.printServed(stop.soft, os.Stdout, server, t.ID)
	case !errors.Is(err, control.ErrNone):
		return fmt.Errorf("%v: %w", v, err)
	case c.Follow && !t.Status.Terminal():
		return noServer(v, t.ID, err)
	}
	return c.printKept(os.Stdout, v, t)
}

// printKept prints the log from the files in the store.
func (c logsCmd) printKept(w io.Writer, v *view, t bgagent.Task) error {
	for from := int64(0); ; {
		text, next, err := transcript.ReadLog(v.Logs(), t.ID, from)
		if err != nil {
			return fmt.Errorf("reading the log of task %s: %w", t.ID, err)
		}
		if next == from {
			sayEmpty(t.ID, next)
			return nil
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		from = next
	}
}

// printServed prints the log as the server returns it. With --follow, printServed returns when the task has
// ended.
func (c logsCmd) printServed(ctx context.Context, w io.Writer, server *control.Client, id string) error {
	for from := int64(0); ; {
		part, err := server.Log(ctx, control.LogInput{ID: id, From: from})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return refused(err)
		}
		if _, err := io.WriteString(w, part.Text); err != nil {
			return err
		}
		if part.Next != from {
			from = part.Next
			continue
		}
		if !c.Follow || part.Ended {
			sayEmpty(id, from)
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(followPause):
		}
	}
}

// sayEmpty prints a message if the size of a log is 0.
func sayEmpty(id string, size int64) {
	if size == 0 {
		warn("the program of task %s has printed nothing, or its log is no longer kept", id)
	}
}
