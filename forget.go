package bgagent

import (
	"context"
	"fmt"
)

// ForgetOptions are the optional arguments of [BackgroundManager.Forget].
type ForgetOptions struct {
	// With Force, a task is also deleted in three cases: its end has not been reported, tasks
	// below it are still needed, or it comes from an earlier process and its session did not stop.
	// The end is then no longer reported, but a notice that has already been created can still
	// name the task. Until every call to the client for the task has returned, even Force does not
	// delete the task.
	Force bool
}

// Forget deletes an ended task with its prompts and results, from memory and from the store. From
// then on, the id is unknown, and the task cannot be resumed. If the tool call that launched the
// task is repeated, it launches a new task. Tasks that the task launched are kept. If the client is
// a [SessionForgetter], it is asked to forget the session. Subscribers get [EventExpired].
//
// With [Config].Store, Forget returns once the deletion is durable, and it also finds tasks that
// only the store still contains. If the error matches [ErrStore], it is unknown whether the
// deletion is durable; the message says whether anything was deleted. A repeated call waits for the
// same deletion. If the store refuses to delete the record, the task stays in the store as history.
//
// The error matches [ErrUnknownTask], [ErrExpired] or [ErrNotDescendant] if the caller has no such
// task, [ErrStillLive] if the task has not ended, [ErrNotStopped] if its session has not stopped
// yet, and [ErrStillNeeded] if the task can be deleted only with Force. If Forget returns one of
// these errors, it has not deleted anything. Forget is safe for concurrent use.
func (m *BackgroundManager) Forget(ctx context.Context, by Caller, id string, o ForgetOptions) error {
	m.heard(by.Session)
	if err := m.forget(ctx, by, id, o); err != nil {
		return fmt.Errorf("bgagent: forget: %w", err)
	}
	return nil
}

func (m *BackgroundManager) forget(ctx context.Context, by Caller, id string, o ForgetOptions) error {
	if err := m.start(ctx); err != nil {
		return err
	}
	var gone *mark
	var err error
	m.fetchFor(ctx, id, func(st *state, now int64, unread error) {
		if unread != nil {
			err = fmt.Errorf("nothing was deleted: %w: %w", ErrStore, unread)
			return
		}
		var t *task
		if gone = st.forgotten(id); gone != nil && gone.t.id() == id && descends(gone.t, by) { // an earlier call deleted the task
			return
		}
		gone = nil
		if t, err = st.findOwn(by, id); err == nil {
			gone, err = st.forgetTask(t, o.Force, now)
		}
	})
	if err != nil || gone == nil {
		return err
	}
	refused := false
	err = m.untilKept(ctx, m.cfg.StoreTimeout, func(st *state) bool {
		refused = !gone.gone
		return refused || st.storing.durable(gone)
	})
	switch {
	case err != nil:
		return fmt.Errorf("task %s is deleted, but the deletion is not stored yet: %w: %w", id, ErrStore, err)
	case refused:
		return fmt.Errorf("task %s: %w: it refuses to delete the task, which stays there", id, ErrStore)
	}
	return nil
}
