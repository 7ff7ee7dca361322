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

// joinsKey is the key of bgagent.TurnMessage.ID in the metadata of the part of a message that has joined a
// turn. The server stores the metadata.
const joinsKey = "bgagent.joins"

// settleTime is how long the client waits after it has stored a message in a busy session. A turn that was
// ending when the message was stored is over by then.
const settleTime = 300 * time.Millisecond

var errNoTurn = errors.New("the session is not in a turn")

// Steer implements [bgagent.Steerer]. The message becomes a message of the session. The server's loop
// for the running turn reads it before its next request to the model: after the tool calls of the present
// request, or after its text, which is not cut. The turn then ends with the answer to the message. If the
// turn has ended in the meantime, Steer removes the message again and returns an error, and no turn
// starts. A turn that began before this client was created cannot be joined.
func (c *Client) Steer(ctx context.Context, id string, msg bgagent.TurnMessage) error {
	if !isSession(id) {
		return c.noSession()
	}
	c.mu.Lock()
	s := c.session(id)
	in, calm := s.asked, s.aborts == 0
	c.mu.Unlock()
	if !calm {
		return fmt.Errorf("session %s: %w: it is being aborted", id, errNoTurn)
	}
	if err := c.inTurn(ctx, id); err != nil {
		return err
	}
	if in.MessageID == "" {
		return fmt.Errorf("session %s: %w that this client has started", id, errNoTurn)
	}
	return c.join(ctx, id, msg, in)
}

// join stores the message in a session that was in a turn shortly before. The argument "in" is the prompt
// of the turn, without its parts.
func (c *Client) join(ctx context.Context, id string, msg bgagent.TurnMessage, in wirePrompt) error {
	message, there, err := c.place(ctx, id, msg.ID)
	if err != nil || there {
		return err
	}
	in.MessageID, in.NoReply = message, true // the server starts no turn for such a message
	in.Parts = []wirePromptPart{{ID: partID(message), Type: "text", Text: msg.Text, Metadata: map[string]string{joinsKey: msg.ID}}}
	var stored wireMessage
	err = c.do(ctx, call{method: http.MethodPost, path: sessionPath(id, "/message"), body: in, out: &stored})
	var refused *ServerError
	switch {
	case err == nil:
	case errors.As(err, &refused) && (refused.unsent || refused.Status >= 400 && refused.Status < 500):
		return fmt.Errorf("session %s: %w", id, err)
	default:
		return fmt.Errorf("session %s: %w: %w", id, bgagent.ErrUncertain, err)
	}
	if err := c.joined(ctx, id, message); err != nil {
		return fmt.Errorf("session %s: %w: %w", id, bgagent.ErrUncertain, err)
	}
	if there, err = c.has(ctx, id, message); err != nil {
		return fmt.Errorf("session %s: %w: %w", id, bgagent.ErrUncertain, err)
	}
	if !there {
		return fmt.Errorf("session %s: %w: its turn has just ended", id, errNoTurn)
	}
	return nil
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

// joined makes sure that a stored message is part of a turn. If the turn ended before it has read the
// message, joined removes the message.
func (c *Client) joined(ctx context.Context, id, message string) error {
	select {
	case <-time.After(settleTime):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch err := c.inTurn(ctx, id); {
	case err == nil:
		return nil
	case !errors.Is(err, errNoTurn):
		return err
	}
	answered := false
	if _, _, err := c.back(ctx, id, func(w *wireMessage) bool {
		answered = answered || w.Info.ParentID == message
		return answered || w.Info.ID <= message
	}); err != nil || answered {
		return err
	}
	var gone bool
	return c.do(ctx, call{method: http.MethodDelete, path: sessionPath(id, "/message/"+url.PathEscape(message)), out: &gone})
}
