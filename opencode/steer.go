package opencode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/bgagent/bgagent"
)

var _ bgagent.Steerer = (*Client)(nil)

// joinsKey is the metadata key for bgagent.TurnMessage.ID in the part of a message that joined a
// turn. The server stores the metadata.
const joinsKey = "bgagent.joins"

// joinPoll is the pause between two checks of whether the turn has read a message.
const joinPoll = 200 * time.Millisecond

var errNoTurn = errors.New("the session is not in a turn")

// Steer implements [bgagent.Steerer]. The message is added to the session. The server's loop for
// the running turn reads the message before its next request to the model: after the tool calls of
// the current request, or after the text of the current request, which is not cut short. The turn
// then ends with the answer to the message. Steer returns nil once the next request has begun. If
// the turn ends first, Steer removes the message and returns an error, and no turn starts. If ctx
// ends first, the error matches [bgagent.ErrUncertain], because the server does not remove messages
// from a running turn, so the turn can still read the message. If the turn does not read it, the
// client removes the message before it starts the next turn. Messages cannot join a turn that began
// before this client was created.
func (c *Client) Steer(ctx context.Context, id string, msg bgagent.TurnMessage) error {
	if !isSession(id) {
		return c.noSession()
	}
	asked, done := c.holdTurns(id)
	defer done()
	in, calm := asked()
	if !calm {
		return fmt.Errorf("session %s: %w: it is being aborted", id, errNoTurn)
	}
	if err := c.inTurn(ctx, id); err != nil {
		return err
	}
	if now, _ := asked(); in.MessageID == "" || now.MessageID != in.MessageID {
		return fmt.Errorf("session %s: %w that this client has started", id, errNoTurn)
	}
	err := c.join(ctx, id, msg, in)
	if now, _ := asked(); err == nil && now.MessageID != in.MessageID {
		return fmt.Errorf("session %s: %w: another turn has begun", id, bgagent.ErrUncertain)
	}
	return err
}

// holdTurns makes the next turn of the session wait until the returned function "done" is called.
// The function "asked" returns the prompt of the last turn, and reports whether no abort request is
// in flight.
func (c *Client) holdTurns(id string) (asked func() (wirePrompt, bool), done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.session(id)
	if s.joins++; s.joins == 1 {
		s.joined = make(chan struct{})
	}
	asked = func() (wirePrompt, bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return s.asked, s.aborts == 0
	}
	return asked, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.joins--; s.joins == 0 {
			close(s.joined)
			s.joined = nil
		}
	}
}

// join stores the message in a session that was in a turn shortly before, and waits until the turn
// has read it. The prompt "in" is that of the turn, without its parts.
func (c *Client) join(ctx context.Context, id string, msg bgagent.TurnMessage, in wirePrompt) error {
	message, there, err := c.place(ctx, id, msg.ID)
	if err != nil {
		return err
	}
	if there {
		return fmt.Errorf("session %s: %w: it already has the message", id, bgagent.ErrUncertain)
	}
	in.MessageID, in.NoReply = message, true // the server does not start a turn for such a message
	in.Parts = []wirePromptPart{{ID: partID(message), Type: "text", Text: msg.Text, Metadata: map[string]string{joinsKey: msg.ID}}}
	var stored wireMessage
	err = c.do(ctx, call{method: http.MethodPost, path: sessionPath(id, "/message"), body: in, out: &stored})
	var refused *ServerError
	if errors.As(err, &refused) && (refused.unsent || refused.Status >= 400 && refused.Status < 500) {
		return fmt.Errorf("session %s: %w", id, err)
	}
	if err == nil {
		err = c.awaitRead(ctx, id, message)
	}
	if err == nil || errors.Is(err, errNoTurn) {
		return err
	}
	c.mu.Lock()
	s := c.session(id)
	s.unread = append(s.unread, message)
	c.mu.Unlock()
	return fmt.Errorf("session %s: %w: %w", id, bgagent.ErrUncertain, err)
}

// inTurn returns an error if the session is not in a turn.
func (c *Client) inTurn(ctx context.Context, id string) error {
	got, err := c.Statuses(ctx, []string{id})
	if err != nil {
		return err
	}
	switch got[id].State {
	case bgagent.SessionBusy, bgagent.SessionRetrying, bgagent.SessionAsking:
		return nil
	case bgagent.SessionGone:
		return c.noSession()
	}
	return fmt.Errorf("session %s: %w", id, errNoTurn)
}

// awaitRead waits until the turn has read a stored message. If the turn ends first, awaitRead removes the
// message and returns errNoTurn.
func (c *Client) awaitRead(ctx context.Context, id, message string) error {
	for {
		ended := c.inTurn(ctx, id)
		if ended != nil && !errors.Is(ended, errNoTurn) {
			return ended
		}
		read, err := c.wasRead(ctx, id, message)
		switch {
		case err != nil || read:
			return err
		case ended != nil:
			return c.takeBack(ctx, id, message)
		}
		select {
		case <-time.After(joinPoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// wasRead reports whether the model was called after the message was stored. In that case, the
// server has an answer to this message, or to a later one that was read together with it.
func (c *Client) wasRead(ctx context.Context, id, message string) (read bool, err error) {
	_, _, err = c.back(ctx, id, func(w *wireMessage) bool {
		read = read || w.Info.ParentID >= message
		return read || w.Info.ID < message
	})
	return read, err
}

// takeBack removes a message that no turn has read, and returns errNoTurn.
func (c *Client) takeBack(ctx context.Context, id, message string) error {
	if err := c.remove(ctx, id, message); err != nil {
		return err
	}
	there, err := c.has(ctx, id, message)
	switch {
	case err != nil:
		return err
	case there:
		return errors.New("the server has not removed the message")
	}
	return fmt.Errorf("session %s: %w: its turn has just ended", id, errNoTurn)
}

func (c *Client) remove(ctx context.Context, id, message string) error {
	var gone bool
	err := c.do(ctx, call{method: http.MethodDelete, path: sessionPath(id, "/message/"+url.PathEscape(message)), out: &gone})
	if missing(err) {
		return nil
	}
	return err
}

// settleJoins waits until no message is being added to a turn of the session. It removes the
// messages that no turn has read, because the next turn would otherwise get them.
func (c *Client) settleJoins(ctx context.Context, id string) error {
	for {
		c.mu.Lock()
		s := c.session(id)
		joined, unread := s.joined, s.unread
		if joined == nil {
			s.unread = nil
		}
		c.mu.Unlock()
		if joined == nil {
			return c.removeUnread(ctx, id, unread)
		}
		select {
		case <-joined:
		case <-ctx.Done():
			return fmt.Errorf("waiting for a message to session %s: %w", id, context.Cause(ctx))
		}
	}
}

func (c *Client) removeUnread(ctx context.Context, id string, unread []string) error {
	for i, message := range unread {
		read, err := c.wasRead(ctx, id, message)
		if err == nil && !read {
			err = c.remove(ctx, id, message)
		}
		if err != nil {
			c.mu.Lock()
			s := c.session(id)
			s.unread = append(s.unread, unread[i:]...)
			c.mu.Unlock()
			return fmt.Errorf("removing a message that no turn of session %s has read: %w", id, err)
		}
	}
	return nil
}
