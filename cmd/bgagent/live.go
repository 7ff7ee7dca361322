package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/command"
	"github.com/bgagent/bgagent/internal/cleantext"
)

// This file contains code that is shared by the commands that show and control a running "bgagent
// serve".

// The method "server" returns a client for the "bgagent serve" that uses the store. The error is
// [control.ErrNone] if the store does not belong to a running serve that accepts commands.
func (v *view) server() (*control.Client, error) {
	if v.process != "" {
		return nil, control.ErrNone // the view already contains what the server reported
	}
	if v.Kind != statedir.Serve || !v.lives {
		return nil, control.ErrNone
	}
	return control.Dial(v.Dir, v.owner)
}

// refresh asks the running server for the tasks that have not ended, because the store can lag
// behind by a few seconds. If the server does not answer, the method "refresh" prints a warning
// and leaves the view as it is.
func (v *view) refresh(ctx context.Context) {
	c, err := v.server()
	if err == nil {
		var s control.Status
		if s, err = c.Status(ctx); err == nil {
			v.now = &s
			v.merge(ctx, c, s.Tasks)
			return
		}
	}
	if !errors.Is(err, control.ErrNone) && ctx.Err() == nil {
		warn("%v: %v; the output comes from its store", v, err)
	}
}

// The method "silent" returns the time without a sign of life after which a working task is shown as silent.
// If no server was asked, the default applies. 0 means never.
func (v *view) silent() time.Duration {
	if v.now != nil {
		return v.now.Silent
	}
	return bgagent.DefaultStaleTimeout / 2
}

// The method "merge" replaces tasks in the view with the tasks from the server. The argument "live"
// contains all tasks that have not ended.
func (v *view) merge(ctx context.Context, c *control.Client, live []bgagent.Task) {
	known := map[string]bool{}
	for _, t := range live {
		known[t.ID] = true
	}
	var ended []bgagent.Task
	for _, t := range v.tasks {
		switch {
		case known[t.ID]:
			continue
		case !t.Status.Terminal(): // the task ended after the store was read
			if latest, err := c.Task(ctx, control.TaskInput{ID: t.ID}); err == nil {
				t = latest
			}
		}
		ended = append(ended, t)
	}
	v.tasks = append(slices.Clone(live), ended...)
}

// inTask returns an error if this program is running inside a turn of a task. An agent must not control the
// tasks of others. Like the depth limit, this check stops only well-behaved programs.
func inTask() error {
	depth, err := fleet.Depth()
	switch {
	case err != nil:
		return &exitError{exitInput, err}
	case depth > 0 || os.Getenv(command.TurnVariable) != "":
		return &exitError{exitInput, errors.New("this command is for people and is refused inside a turn of a task; a task controls the tasks that it has launched with the tools delegate_task, background_output and background_cancel")}
	}
	return nil
}

// controlled returns a client for the running "bgagent serve" that has the task, and the task's id.
// The argument "ref" is the id of the task or of its session.
func controlled(ctx context.Context, all *cli, ref string) (*control.Client, string, error) {
	if err := inTask(); err != nil {
		return nil, "", err
	}
	folder, err := all.folder()
	if err != nil {
		return nil, "", err
	}
	v, t, c, shared, err := findAnywhere(ctx, folder, ref)
	if err != nil || c != nil {
		return c, shared.Task.ID, err
	}
	c, err = v.server()
	if err = errors.Join(noServer(v, t.ID, err), v.reader.Close()); err != nil {
		return nil, "", err
	}
	return c, t.ID, nil
}

// noServer describes why a task cannot be controlled. It expects the error that view.server returned. If this
// error is nil, the result is nil.
func noServer(v *view, id string, err error) error {
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, control.ErrNone):
		return fmt.Errorf("%v: %w", v, err)
	case !v.lives && v.Kind == statedir.Serve:
		return &exitError{exitInput, fmt.Errorf("%v, which has task %s, does not run; start it with this configuration, and repeat the command", v, id)}
	case !v.lives:
		return &exitError{exitInput, fmt.Errorf("%v, which had task %s, %s", v, id, v.state())}
	case v.Kind != statedir.Serve:
		return &exitError{exitInput, fmt.Errorf("task %s belongs to %v (process %d); only the tasks of bgagent serve can be controlled from here", id, v, v.owner.PID)}
	}
	return &exitError{exitFailed, fmt.Errorf("%v runs as process %d, but %w now: it is starting or ending, or it is an older version; try again, or start it again", v, v.owner.PID, err)}
}

// The function "refused" returns the error to report for a request that failed. If the server reported that
// the request was invalid, the returned error has the exit code for invalid input.
func refused(err error) error {
	var e *control.Error
	if errors.As(err, &e) && e.Input {
		return &exitError{exitInput, err}
	}
	return err
}

// undone is like the function "refused", but for requests that change something. The argument "then" is the
// advice to give if the request's outcome is unknown.
func undone(err error, then string) error {
	if errors.Is(err, control.ErrUnanswered) {
		return fmt.Errorf("the request was sent, but %w; it can still take effect: %s", err, then)
	}
	return refused(err)
}

// clock returns the time of day of "at". The result includes the date if "now" is on another day.
func clock(at, now time.Time) string {
	at, now = at.Local(), now.Local()
	if at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format(time.TimeOnly)
	}
	return at.Format(time.DateTime)
}

// The function "doing" describes what a task is doing or, if it has ended, how it ended. The argument
// "silent" is the result of view.silent.
func doing(t bgagent.Task, now time.Time, silent time.Duration) (state, detail string) {
	since := func(at time.Time) string { return max(now.Sub(at), 0).Round(time.Second).String() }
	switch {
	case t.Status.Terminal():
		return t.Status.String(), plainReason(t)
	case t.Phase == bgagent.PhaseParked:
		detail = t.Reason
		if !t.Until.IsZero() {
			detail += ", until " + clock(t.Until, now)
		}
		return "parked", detail
	case t.Status == bgagent.Pending:
		detail = "for " + since(t.Queued)
		if q := t.Queue; q != nil {
			detail += fmt.Sprintf(", place %d; %s: %d of %d in use", q.Place, q.Pool.Name, q.Pool.InUse, q.Pool.Limit)
		}
		return "queued", detail
	case t.Outage != nil:
		return "running", "out of reach for " + since(t.Outage.Since) + ": " + t.Outage.Reason
	case t.Phase == bgagent.PhaseAsking:
		return "asking", t.Progress.Detail
	case t.Phase == bgagent.PhaseWaiting:
		return "waiting", fmt.Sprintf("for %d of its own tasks", t.Waiting)
	case t.Phase == bgagent.PhaseTurn && silent > 0 && !t.Progress.LastActivity.IsZero() && now.Sub(t.Progress.LastActivity) >= silent:
		return "running", "silent for " + since(t.Progress.LastActivity)
	case t.Progress.LastTool != "":
		return "running", fmt.Sprintf("%d tool calls, last %s", t.Progress.ToolCalls, t.Progress.LastTool)
	}
	return "running", ""
}

// The function "clean" returns each string as a single line without control characters.
func clean(texts ...string) []any {
	out := make([]any, len(texts))
	for i, text := range texts {
		out[i] = cleantext.Line(text)
	}
	return out
}
