package bgagent

import (
	"context"
	"fmt"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Resume continues an ended task, named by its id or its session's, with
// another prompt in the same session. It opens a new attempt of the same task,
// which queues like any other, and returns at once; ctx bounds what it may have to
// ask the host before, Config.Model and the parents of a session that is not a
// task's own. When the earlier attempt is
// still being stopped the new one waits for that; if it does not stop in time
// the new one ends as an error. Whoever resumes is told of the end from now on. A
// repetition by the same caller with the same non-empty tool-call id and prompt
// opens no further attempt while this one is live. When the session never got the
// prompts before, because the task was cancelled in the line or could not start,
// these come first, as one text with the new one.
//
// The error matches [ErrStillLive] for a task that has not ended, [ErrNotStopped],
// [ErrUnknownTask], [ErrExpired], [ErrNotDescendant], [ErrNoSession] for a
// session that was deleted, [ErrTooManyTasks] or [ErrClosed].
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

// joined puts prompts one after the other.
func joined(first, then string) string {
	if first == "" {
		return then
	}
	return first + "\n\n" + then
}
