package inproc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bgagent/bgagent"
)

// receiveWithin is how long Steer waits for the agent to receive a message. It is shorter than
// bgagent.DefaultCallTimeout, the manager's usual time limit for Steer. If the manager's limit ended
// the call first, the manager would not know whether the agent had received the message.
const receiveWithin = 5 * time.Second

// Receive returns a channel of the messages that are sent to the task with [bgagent.SendInput].Now during
// the turn. The channel has no buffer, so a message is handed over only when the agent receives it from the
// channel. If the agent does not receive it within 5 s, the message is refused. Until the agent
// calls Receive in a turn, all these messages are refused. Messages that are sent without Now
// become the prompts of later turns. The channel is never closed.
func (t *Turn) Receive() <-chan bgagent.TurnMessage {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.inbox == nil {
		t.inbox = make(chan bgagent.TurnMessage)
	}
	return t.inbox
}

// Steer implements [bgagent.Steerer]. It waits until the agent has received the message; see
// [Turn.Receive].
func (c *Client) Steer(ctx context.Context, id string, msg bgagent.TurnMessage) error {
	c.mu.Lock()
	var t *Turn
	var inbox chan bgagent.TurnMessage
	s := c.sessions[id]
	if s != nil && s.run != nil {
		t, inbox = s.run, s.run.inbox
	}
	c.mu.Unlock()
	switch {
	case s == nil:
		return fmt.Errorf("inproc: session %q: %w", id, bgagent.ErrNoSession)
	case t == nil:
		return fmt.Errorf("inproc: session %q is not in a turn", id)
	case inbox == nil:
		return fmt.Errorf("inproc: the agent does not call Turn.Receive: %w", errors.ErrUnsupported)
	}
	timer := time.NewTimer(receiveWithin)
	defer timer.Stop()
	select {
	case inbox <- msg:
		return nil
	case <-t.over:
		return fmt.Errorf("inproc: the turn of session %q has ended", id)
	case <-timer.C:
		return fmt.Errorf("inproc: the agent has not received the message within %v", receiveWithin)
	case <-ctx.Done():
		return ctx.Err()
	}
}
