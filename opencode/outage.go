package opencode

import "github.com/bgagent/bgagent"

// If the server stops in the middle of a turn, it forgets the turn: the session is idle afterwards
// and might not contain any message from its agent. A session whose agent wrote nothing looks the
// same. Only a client that noticed the outage can tell the two apart.

// cutOff is called when the server cannot be reached. The client treats every current turn as cut
// off until the server reports that the turn's session is still in a turn.
func (c *Client) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		s.cut = s.cut || s.turn != ""
	}
}

// cutText is the error of a turn that was cut off.
const cutText = "the opencode server was unreachable in the middle of the turn"

// rests is called when a session is idle. It emits an error if the session's turn was cut off. If
// the turn did end properly, its last message shows this. c.mu must be held.
func (c *Client) rests(s *session) {
	if s.cut && c.tell != nil {
		c.tell(bgagent.HostEvent{Kind: bgagent.HostError, Session: s.id, Stop: bgagent.StopInterrupted, Error: cutText})
	}
	s.turn, s.cut = "", false
}

// works is called when a session is in a turn. c.mu must be held.
func (c *Client) works(s *session, w wireStatus) {
	s.cut = false
	if s.over.retried = w.Type == "retry"; s.over.retried {
		s.over.tried, s.over.tries, s.over.blind = s.turn, w.Attempt, !c.stream
	}
}
