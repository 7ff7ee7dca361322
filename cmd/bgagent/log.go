package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// logFlags contains the flags that select the place where a server writes its log.
type logFlags struct {
	Log     string `type:"path" placeholder:"FILE" help:"Append a line for each launch, start and end to this file. A new file is readable only by you."`
	Verbose bool   `short:"v" help:"Write the same lines to standard error."`
}

// open opens the log file named by the flags. It returns nil if they do not name a file.
func (f logFlags) open() (*os.File, error) {
	if f.Log == "" {
		return nil, nil
	}
	file, err := os.OpenFile(f.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--log %s: the file cannot be written: %w", f.Log, unpathed(err))
	}
	return file, nil
}

// logger returns the logger that the flags ask for, or nil if they do not ask for one.
func (f logFlags) logger(file *os.File) *slog.Logger {
	var to []io.Writer
	if file != nil {
		to = append(to, file)
	}
	if f.Verbose {
		to = append(to, os.Stderr)
	}
	if len(to) == 0 {
		return nil
	}
	return slog.New(slog.NewTextHandler(io.MultiWriter(to...), nil))
}

// unpathed removes the path from an operating system error, because the caller's message already contains the
// path.
func unpathed(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// problemsOnly drops the library's log lines about launches, starts and ends of
// tasks. logEvent writes its own lines about these events.
type problemsOnly struct{ slog.Handler }

// Handle implements [slog.Handler].
func (h problemsOnly) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "task ") {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// library returns the logger to pass to a manager. It is nil if l is nil.
func library(l *slog.Logger) *slog.Logger {
	if l == nil {
		return nil
	}
	return slog.New(problemsOnly{l.Handler()})
}

// logEvent writes a line if a task was launched, resumed or started, if a task ended or was replaced by
// another attempt, if the store has trouble, and if events were missed. It ignores all other events.
func logEvent(l *slog.Logger, e bgagent.Event) {
	t := e.Task
	level, attrs := slog.LevelInfo, []slog.Attr{slog.String("task", t.ID), slog.String("agent", t.Agent)}
	switch e.Kind {
	case bgagent.EventLaunched, bgagent.EventResumed:
		attrs = append(attrs, slog.String("by", cleantext.Line(t.Root)), slog.String("description", cleantext.Line(t.Description)))
	case bgagent.EventStarted:
		attrs = append(attrs, slog.Duration("waited", t.Started.Sub(t.Queued)))
	case bgagent.EventSuperseded:
		attrs = append(attrs, slog.String("reason", cleantext.Line(plainReason(t))))
	case bgagent.EventEnded:
		attrs = append(attrs, slog.String("status", t.Status.String()))
		if t.Status != bgagent.Completed {
			attrs = append(attrs, slog.String("reason", cleantext.Line(plainReason(t))))
		}
		if !t.Started.IsZero() {
			attrs = append(attrs, slog.Duration("took", t.Ended.Sub(t.Started)))
		}
		if t.Status == bgagent.Failed {
			level = slog.LevelWarn
		}
	case bgagent.EventStoreTrouble:
		level = slog.LevelError
	case bgagent.EventMissed:
		level, attrs = slog.LevelWarn, []slog.Attr{slog.Uint64("events", e.Missed)}
	default:
		return
	}
	l.LogAttrs(context.Background(), level, e.Kind.String(), attrs...)
}

// plainReason returns why a task ended, without redundant words.
func plainReason(t bgagent.Task) string {
	if t.Reason == "" {
		return t.Cause.String()
	}
	return fleet.InKeys(strings.TrimPrefix(t.Reason, "the turn: "))
}
