package bgagent

import (
	"context"
	"fmt"
)

// ForgetOptions are the optional arguments of [BackgroundManager.Forget].
type ForgetOptions struct {
	// Force also deletes a task whose end has not been reported, one that delegates to tasks that are
	// still needed, and one whose session did not stop in time. The end is then never reported.
	Force bool
}

// Forget deletes an ended task with its prompts and results, from memory and from the store. It does not
// delete the task's session from the agent runtime. From then on, the id is unknown, and the task
// cannot be resumed. Tasks that the task has launched stay. Subscribers get [EventExpired] if the task
// was in memory.
//
// With [Config].Store, Forget returns once the deletion is durable, and also finds tasks that only the
// store still contains. If ctx ends first, or if that takes longer than Config.StoreTimeout, the error
// matches [ErrStore], and the task will be deleted later.
//
// The error matches [ErrUnknownTask], [ErrExpired] or [ErrNotDescendant] if the caller has no such
// task, [ErrStillLive] if the task has not ended, [ErrNotStopped] if its session is still being
// stopped, and [ErrStillNeeded] if only Force deletes the task. If Forget returns one of these errors,
// it has deleted nothing. Forget is safe for concurrent use.
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
	if err := m.fetch(ctx, id); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	var gone *mark
	var err error
	m.update(func(st *state, now int64) {
		var t *task
		if t, err = st.findOwn(by, id); err == nil {
			gone, err = st.forgetTask(t, o.Force, now)
		}
	})
	if err != nil || gone == nil {
		return err
	}
	refused := false
	err = m.untilKept(ctx, m.cfg.StoreTimeout, func(st *state) bool {
		refused = gone.refused
		return st.storing.durable(gone)
	})
	switch {
	case err != nil:
		return fmt.Errorf("task %s is deleted, which is not stored yet: %w: %w", id, ErrStore, err)
	case refused:
		return fmt.Errorf("task %s: %w: it refuses to delete the task", id, ErrStore)
	}
	return nil
}
