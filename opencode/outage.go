package opencode

import (
	"context"
	"errors"
	"time"

	"github.com/bgagent/bgagent"
)

// If the server stops in the middle of a turn, it forgets the turn: the session is idle afterwards
// and might not contain any message from its agent. A session whose agent wrote nothing looks the
// same. Only a client that noticed the outage can tell the two apart.

// cutOff marks every current turn as cut off, because the server cannot be reached. The mark of a
// turn is removed when the server reports that the turn's session is still in a turn.
func (c *Client) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		s.cut = s.cut || s.turn != ""
	}
}

// cutText is the error of a turn that was cut off.
const cutText = "the opencode server was unreachable in the middle of the turn"

// The method "rests" records that a session is idle. It emits an error if the session's turn was cut off. If
// the turn did end properly, its last message shows this. c.mu must be held.
func (c *Client) rests(s *session) {
	if s.cut && c.tell != nil {
		c.tell(bgagent.HostEvent{Kind: bgagent.HostError, Session: s.id, Stop: bgagent.StopInterrupted, Error: cutText})
	}
	s.turn, s.cut = "", false
}

// The method "works" records that a session is in a turn, and whether the server is retrying a request. c.mu
// must be held.
func (c *Client) works(s *session, w wireStatus) {
	s.cut = false
	if s.over.retried = w.Type == "retry"; s.over.retried {
		s.over.tried, s.over.tries, s.over.blind = s.turn, w.Attempt, !c.stream
	}
}

const (
	resolveTime  = time.Minute // how long StartTurn waits for a server whose connection dropped
	resolvePause = time.Second // pause between two attempts to read the session
)

// isCutOff reports whether the connection dropped after the request could have been sent. In this
// case, it is unknown whether the server has carried out the request.
func isCutOff(err error) bool {
	var e *ServerError
	return errors.As(err, &e) && e.Status == 0 && !e.unsent && e.Err != nil && !errors.Is(e.Err, errSlow) && isBroken(e.Err)
}

// resolve finds out what became of a prompt if the connection dropped while the prompt was being
// sent. If the session has the message, the turn was started, and the result is nil. If the session
// is idle and two reads in a row do not find the message, the prompt is sent again as the same
// message, so the session cannot contain it twice. Two reads are necessary, because a server that
// is still running answers the request before it stores the message. If the time is
// up, or the prompt is refused when it is sent again, the result is first, the error of the first attempt.
func (c *Client) resolve(ctx context.Context, id, message string, p bgagent.Prompt, in wirePrompt, first error) error {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	for absent := 0; ; {
		select {
		case <-time.After(resolvePause):
		case <-c.life.Done():
			return first
		case <-ctx.Done():
			return first
		}
		there, err := c.has(ctx, id, message)
		switch {
		case err != nil:
			absent = 0
			continue
		case there:
			c.mu.Lock()
			s := c.session(id)
			s.turn, s.cut = message, true // if the session is idle, its turn was cut off
			c.mu.Unlock()
			return nil
		}
		got, err := c.Statuses(ctx, []string{id})
		if err != nil || got[id].State != bgagent.SessionIdle {
			absent = 0
			continue
		}
		if absent++; absent < 2 {
			continue
		}
		if err := c.send(ctx, id, message, p.ID, p.Text, in); err == nil {
			return nil
		} else if e := (*ServerError)(nil); !errors.As(err, &e) || !e.unsent && !isCutOff(err) {
			return first
		}
		absent = 0
	}
}
