package bgagent

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
	in.Prompt = clean(in.Prompt)
	if invisible(in.Prompt) {
		return s, fmt.Errorf("bgagent: resume: %w", &InputError{"Prompt", "is missing; it must say how the agent is to go on"})
	}
	ref = strings.TrimSpace(ref)
	model := ""
	if in.Model != "" {
		var agent string
		m.update(func(int64) {
			var k kindKey
			if k, err = m.kindOfLocked(by, ref); err == nil {
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
	m.update(func(now int64) {
		var t *task
		if t, err = m.resumeLocked(ctx, by, chain, ref, in.Prompt, model, foreground, now); err == nil {
			s = m.snapshotLocked(t)
		} else if n := m.nodes[by.Session]; n != nil {
			m.dropNodeLocked(n)
		}
	})
	if err != nil {
		return s, fmt.Errorf("bgagent: resume: %w", err)
	}
	return s, nil
}

// refLocked finds a task by its id or its session's, or what is left of it.
func (m *BackgroundManager) refLocked(by Caller, ref string) (*task, *tombstone, error) {
	if s := m.sessionLocked(ref); s != nil {
		ref = s.task.id()
	}
	if num, ok := parseID(ref); ok && m.tasks[num] != nil {
		t, err := m.ownLocked(by, ref)
		return t, nil, err
	}
	if tomb := m.tombLocked(ref); tomb != nil {
		if by.Session != "" && !tomb.descends(by.Session) {
			return nil, nil, fmt.Errorf("task %s: %w", ref, ErrNotDescendant)
		}
		if tomb.sess != nil && tomb.sess.id == ref {
			return nil, tomb, nil
		}
	}
	t, err := m.ownLocked(by, ref)
	return t, nil, err
}

func (m *BackgroundManager) kindOfLocked(by Caller, ref string) (kindKey, error) {
	t, tomb, err := m.refLocked(by, ref)
	switch {
	case err != nil:
		return kindKey{}, err
	case tomb != nil:
		return tomb.kind.key, nil
	default:
		return t.kind.key, nil
	}
}

func (m *BackgroundManager) resumeLocked(ctx context.Context, by Caller, chain []SessionInfo, ref, prompt, model string, foreground bool, now int64) (*task, error) {
	if m.closing || m.draining {
		return nil, ErrClosed
	}
	t, tomb, err := m.refLocked(by, ref)
	if err != nil {
		return nil, err
	}
	var again uint64
	if by.ToolCallID != "" {
		var id string
		if t != nil {
			id = t.id()
		} else {
			id = tomb.id
		}
		if again = m.callHash(by, id, prompt); t != nil && t.more != nil && t.more.again == again {
			m.awaitLocked(t, foreground)
			return t, nil
		}
	}
	if err := resumable(t, tomb); err != nil {
		return nil, err
	}
	up, err := m.resumeNodeLocked(by, chain, t, tomb)
	if err != nil {
		return nil, err
	}
	top, _ := up.root()
	if err := m.roomLocked(top); err != nil {
		m.dropNodeLocked(up)
		return nil, err
	}
	if t == nil {
		t = m.reviveLocked(tomb, up)
	}
	m.reopenLocked(t, up, now)
	t.text = prompt
	if again != 0 || t.more != nil {
		t.extra().again = again
	}
	t.set(flagForeground|flagUnanswered, foreground)
	if ctx != context.Background() {
		t.extra().values = context.WithoutCancel(ctx)
	}
	if model != "" && model != t.kind.key.model {
		key := t.kind.key
		key.model = model
		old := t.kind
		t.kind = m.kindLocked(key, old.cl, old.own)
		m.releaseKindLocked(old)
	}
	m.openLocked(t, +1)
	t.set(flagUnstarted, t.run != nil)
	m.emitLocked(EventResumed, t)
	m.logLocked(logResumed, t)
	m.queueLocked(t, now)
	return t, nil
}

// resumable says why a task, or what is left of it, cannot be resumed.
func resumable(t *task, tomb *tombstone) error {
	switch {
	case t == nil && tomb.stuck:
		return fmt.Errorf("task %s: %w", tomb.id, ErrNotStopped)
	case t == nil && tomb.sess.gone:
		return fmt.Errorf("task %s: session %s was deleted: %w", tomb.id, tomb.sess.id, ErrNoSession)
	case t == nil:
		return nil
	case t.live():
		return fmt.Errorf("task %s is %s: %w", t.id(), t.status, ErrStillLive)
	case t.sess != nil && t.sess.stuck, t.run != nil && t.run.overrun:
		return fmt.Errorf("task %s: %w", t.id(), ErrNotStopped)
	case t.sess != nil && t.sess.gone:
		return fmt.Errorf("task %s: session %s was deleted: %w", t.id(), t.sess.id, ErrNoSession)
	}
	return nil
}

// resumeNodeLocked returns the node that is told of the new attempt's end: the
// caller's; for the host the task's own parent, or the nearest one above it
// that can still be told.
func (m *BackgroundManager) resumeNodeLocked(by Caller, chain []SessionInfo, t *task, tomb *tombstone) (*node, error) {
	if by.Session != "" {
		return m.launchNodeLocked(by.Session, chain)
	}
	var first *node
	if t != nil {
		first = t.up
	} else {
		first = m.nodeLocked(tomb.parent)
	}
	n := first
	for p := n.parentTask(); n.lapsed || p != nil && !p.live(); p = n.parentTask() {
		n = n.above()
	}
	m.dropNodeLocked(first)
	return m.nodeLocked(n.session), nil // unless something needs it, it has just gone
}

// reopenLocked makes room for a new attempt of an ended task.
func (m *BackgroundManager) reopenLocked(t *task, up *node, now int64) {
	if f := t.fin; f != nil {
		x := t.extra()
		if f.unsaid {
			x.unsaid = joined(x.unsaid, t.text)
		} else {
			x.unsaid = ""
		}
		x.past = append(slices.Clip(x.past), Attempt{
			Number: int(t.no), Status: t.status, Cause: t.cause, Reason: f.reason,
			Queued: m.wall(t.queued), Started: m.wall(f.started), Ended: m.wall(f.ended),
		})
		if len(x.past) > pastAttempts {
			x.past = slices.Clone(x.past[1:])
		}
	}
	t.set(flagUnanswered, false)
	m.forgetCallLocked(t)
	t.setLost(false)
	if t.notice == NoticeOwed {
		t.set(flagOldDebts, true)
	}
	t.set(flagDropped, false)
	if old := t.up; old != up {
		if t.notice == NoticeOwed { // the debts of the earlier attempt stay behind, and go with it
			// Nothing may expire by that: not t, and not the last task of up.
			m.keep.trimming = true
			m.settleTaskLocked(t, NoticeGivenUp, now)
			m.keep.trimming = false
			t.set(flagOldDebts, false)
		}
		old.forgetDebts(t)
		old.compact()
		moved := t.subtreeLive()
		top, _ := old.root()
		top.tree -= moved
		old.unlink(t)
		up.link(t)
		top, _ = up.root()
		top.tree += moved
		m.dropNodeLocked(old)
	}
	if t.stay(); t.fin != nil {
		m.keep.text -= int64(len(t.fin.result))
		t.fin = nil
	}
	t.transition(Pending, CauseNone)
	t.no++
	t.debt, t.notice, t.queued = -1, NoticeNone, now
}

// joined puts prompts one after the other.
func joined(first, then string) string {
	if first == "" {
		return then
	}
	return first + "\n\n" + then
}

// subtreeLive counts the live tasks under an ended task.
func (t *task) subtreeLive() (live int) {
	if t.sess != nil && t.sess.own != nil {
		t.sess.own.each(func(x *task) {
			if x.live() {
				live++
			}
		})
	}
	return live
}
