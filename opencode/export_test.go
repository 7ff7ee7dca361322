package opencode

import (
	"context"
	"encoding/json"
	"time"

	"github.com/bgagent/bgagent"
)

// Remembered returns the number of sessions that the client remembers.
func Remembered(c *Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sessions)
}

// NewFollower returns a follower for a new connection of a client that runs the given sessions.
func NewFollower(c *Client, emit func(bgagent.HostEvent), sessions ...string) *follower {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range sessions {
		c.session(id).ours = true
	}
	return newFollower(c, emit, false)
}

// Views returns the number of sessions for which the follower keeps messages.
func Views(f *follower) int { return len(f.views) }

// ProviderErrorIn returns the provider error in a recorded session error or status.
func ProviderErrorIn(line []byte, at time.Time) *bgagent.ProviderError {
	var s wireStatus
	if json.Unmarshal(line, &s) == nil && s.Type == "retry" {
		return s.provider(at)
	}
	var e wireError
	if err := json.Unmarshal(line, &e); err != nil {
		panic(err)
	}
	return e.provider(at)
}

// Tell sets the function with which the client emits events.
func Tell(c *Client, emit func(bgagent.HostEvent)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tell = emit
}

// Join stores a message that is meant to join a turn, even though the session is not in a turn.
func Join(c *Client, ctx context.Context, id string, msg bgagent.TurnMessage) error {
	return c.join(ctx, id, msg, c.session(id).asked)
}

// These variables give tests access to functions that are not exported.
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

type Decode = wireMessage

func Message(m *Decode) bgagent.Message { return m.message() }

func PageOf(after bgagent.Cursor, list []bgagent.Message, max int) (bgagent.Page, error) {
	p, err := parseCursor(after)
	if err != nil {
		return bgagent.Page{}, err
	}
	lines := make([]line, len(list))
	for i := range list {
		lines[i].Message = list[i]
	}
	for i := len(list) - 1; i >= 0; i-- { // from the newest message to the oldest
		if p.settled != "" && list[i].ID == p.settled {
			lines = lines[i+1:]
			break
		}
	}
	return p.page(lines, after, max), nil
}
