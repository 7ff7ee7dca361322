package opencode

import "github.com/bgagent/bgagent"

// A server that has ended in the middle of a turn has forgotten it: the session
// is idle afterwards, and perhaps without a message. That this was no turn of an
// agent that had nothing to say can only be told by whoever saw the server away.

// cutOff notes that the server is away: the turns that it was in are cut off,
// unless it turns out that they go on.
func (c *Client) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		s.cut = s.cut || s.turn != ""
	}
}

// cutText is the reason of a turn that has not come to its end.
const cutText = "the opencode server was away in the middle of the turn"

// rests notes that a session is idle, and tells of a turn that was cut off. What
// has come to its end all the same says so itself. c.mu must be held.
func (c *Client) rests(s *session) {
	if s.cut && c.tell != nil {
		c.tell(bgagent.HostEvent{Kind: bgagent.HostError, Session: s.id, Stop: bgagent.StopInterrupted, Error: cutText})
	}
	s.turn, s.cut = "", false
}

// works notes that a session is in a turn. c.mu must be held.
func (c *Client) works(s *session, w wireStatus) {
	s.cut = false
	s.over.retried = w.Type == "retry"
}
