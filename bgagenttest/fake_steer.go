package bgagenttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

var _ bgagent.Steerer = (*Fake)(nil)

// Steer implements [bgagent.Steerer]. It adds the message to the session's running turn. Without
// Steerable, it returns [errors.ErrUnsupported].
func (f *Fake) Steer(ctx context.Context, id string, msg bgagent.TurnMessage) error {
	if !f.Steerable {
		return fmt.Errorf("%s is not Steerable: %w", f.kind, errors.ErrUnsupported)
	}
	return f.act(ctx, Call{Kind: CallSteer, Session: id}, func() error { return f.join(id, msg) })
}

// The method "join" adds the message to the session's running turn.
func (f *Fake) join(id string, msg bgagent.TurnMessage) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[id]
	switch {
	case f.isDead():
		return errDead
	case s == nil:
		return fmt.Errorf("%s: session %q: %w", f.kind, id, bgagent.ErrNoSession)
	case slices.Contains(s.joined, msg.ID):
		f.book.wrong("session %s got the message %s twice", id, msg.ID)
		return fmt.Errorf("%s: session %q has the message %s already", f.kind, id, msg.ID)
	case s.run == nil:
		return fmt.Errorf("%s: session %q is not in a turn", f.kind, id)
	}
	t := s.run
	s.joined = append(s.joined, msg.ID)
	t.steered = append(t.steered, msg)
	if t.msg != nil { // the joining message becomes the newest one, and older messages never change, so the message that is being written ends here
		t.msg.Finished = true
		f.putLocked(s, *t.msg)
		t.msg = nil
	}
	f.putLocked(s, bgagent.Message{ID: f.messageIDLocked(s), Role: bgagent.RoleUser, Text: msg.Text, Finished: true, Time: time.Now()})
	return nil
}

// Steered returns the messages that have joined the turn so far, oldest first.
func (t *Turn) Steered() []bgagent.TurnMessage {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	return slices.Clone(t.steered)
}
