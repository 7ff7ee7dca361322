package bgagent

import (
	"context"
	"errors"
	"fmt"
)

// Messages reads the conversation of a task's session on behalf of a caller: at
// most max messages that are new or have changed since the cursor, oldest
// first. A task without a session has none. It calls the client and waits for
// it, for at most Config.CallTimeout.
//
// The error matches [errors.ErrUnsupported] when the task's client is no
// [MessageReader], [ErrUnknownTask], [ErrExpired], [ErrNotDescendant] or
// [ErrClosed]; otherwise it is the client's.
func (m *BackgroundManager) Messages(ctx context.Context, by Caller, id string, after Cursor, max int) (Page, error) {
	if max <= 0 {
		return Page{}, &InputError{"max", fmt.Sprintf("is %d; it must be a positive number of messages", max)}
	}
	m.mu.Lock()
	t, err := m.ownLocked(by, id)
	var cl *client
	session := ""
	if err == nil {
		cl = t.kind.cl
		if t.sess != nil {
			session = t.sess.id
		}
	}
	m.mu.Unlock()
	switch {
	case err != nil:
		return Page{}, err
	case cl.reader == nil:
		return Page{}, fmt.Errorf("bgagent: messages of task %s: %w", id, errors.ErrUnsupported)
	case session == "":
		return Page{}, nil
	case m.isClosed():
		return Page{}, fmt.Errorf("bgagent: messages of task %s: %w", id, ErrClosed)
	}
	page, err := within(ctx, m, goCall, "Messages", m.cfg.CallTimeout, func(ctx context.Context) (Page, error) {
		return cl.reader.Messages(ctx, session, after, max)
	})
	if err != nil {
		return Page{}, fmt.Errorf("bgagent: messages of task %s: %w", id, err)
	}
	return page, nil
}
