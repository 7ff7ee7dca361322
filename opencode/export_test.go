package opencode

import "github.com/bgagent/bgagent"

// Remembered returns how many sessions the client remembers.
func Remembered(c *Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sessions)
}

// NewFollower returns what takes the events of a connection, for a client that
// runs the given sessions.
func NewFollower(c *Client, emit func(bgagent.HostEvent), sessions ...string) *follower {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range sessions {
		c.session(id).ours = true
	}
	return newFollower(c, emit, false)
}

// Views returns of how many sessions the follower keeps messages.
func Views(f *follower) int { return len(f.views) }

// Tell has the client tell what happens to sessions in the same way as the
// follower.
func Tell(c *Client, emit func(bgagent.HostEvent)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tell = emit
}

// For tests of what is not exported.
var (
	ReadEvents  = readEvents
	Event       = (*follower).event
	Down        = (*follower).down
	ParseModel  = parseModel
	StampAt     = stampAt
	StampOf     = stampOf
	ParseCursor = parseCursor
	MessageID   = stamp.messageID
	PartID      = partID
)

// Decode decodes one message as the server sends it.
type Decode = wireMessage

// Message returns what the port makes of it.
func Message(m *Decode) bgagent.Message { return m.message() }

// PageOf returns a page of messages after a cursor.
func PageOf(after bgagent.Cursor, list []bgagent.Message, max int) (bgagent.Page, error) {
	p, err := parseCursor(after)
	if err != nil {
		return bgagent.Page{}, err
	}
	lines := make([]line, len(list))
	for i := range list {
		lines[i].Message = list[i]
	}
	for i := len(list) - 1; i >= 0; i-- { // as since does
		if p.settled != "" && list[i].ID == p.settled {
			lines = lines[i+1:]
			break
		}
	}
	return p.page(lines, after, max), nil
}
