package bgagent

import (
	"context"
	"fmt"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Resume continues an ended task with another prompt in the same session. ref is the id of the task
// or of its session. Resume opens a new attempt, which queues like any other, and returns at once.
// ctx bounds only what Resume asks the host first: Config.Model, and the parents of a session that
// does not belong to a task.
//
// If the earlier attempt is still being stopped, the new one waits for that. If the earlier one
// does not stop in time, the new one fails. From now on, the session that resumed the task is told
// about its end.
//
// If the same caller repeats a call with the same non-empty tool-call id and prompt while the
// attempt is live, Resume opens no further attempt. If earlier prompts never reached the session,
// because the task was cancelled in line or could not start, they precede the new prompt in one
// text.
//
// The error matches [ErrStillLive] for a task that has not ended, [ErrNotStopped],
// [ErrUnknownTask], [ErrExpired], [ErrNotDescendant], [ErrNoSession] for a session that was
// deleted, [ErrTooManyTasks] or [ErrClosed].
func (m *BackgroundManager) Resume(ctx context.Context, by Caller, ref string, in ResumeInput) (Task, error) {
	return m.resume(ctx, by, ref, in, false)
}

func (m *BackgroundManager) resume(ctx context.Context, by Caller, ref string, in ResumeInput, foreground bool) (s Task, err error) {
	if err := ctx.Err(); err != nil {
		return s, err
	}
	in.Prompt = mdtext.Valid(in.Prompt)
	if mdtext.Invisible(in.Prompt) {
		return s, fmt.Errorf("bgagent: resume: %w", &InputError{"Prompt", "is missing; it must say how the agent is to go on"})
	}
	ref = strings.TrimSpace(ref)
	model := ""
	if in.Model != "" {
		var agent string
		m.update(func(st *state, _ int64) {
			var k kindKey
			if k, err = st.kindOf(by, ref); err == nil {
				agent = k.agent
			}
		})
		if err == nil {
			model, err = m.modelFor(ctx, agent, in.Model)
		}
		if err != nil {
			return s, fmt.Errorf("bgagent: resume: %w", err)
		}
	}
	chain, err := m.lookUpParents(ctx, by.Session)
	if err != nil {
		return s, fmt.Errorf("bgagent: resume: %w", err)
	}
	values := valuesOf(ctx)
	m.update(func(st *state, now int64) {
		var t *task
		if t, err = st.resume(values, by, chain, ref, in.Prompt, model, foreground, now); err == nil {
			st.settle(now) // it may start at once
			s = st.snapshot(t)
		} else if n := st.nodes[by.Session]; n != nil {
			st.touchNode(n)
		}
	})
	if err != nil {
		return s, fmt.Errorf("bgagent: resume: %w", err)
	}
	return s, nil
}

// joined joins two prompts with an empty line.
func joined(first, then string) string {
	if first == "" {
		return then
	}
	return first + "\n\n" + then
}
