package opencode

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/bgagent/bgagent"
)

// If the model provider refuses a turn, the server keeps the prompt. If the client sends the
// prompt's message again without the part that contains the text, the server continues the turn, and
// the model gets the prompt only once. In place of that part, the client sends a part with empty
// text, which the model does not get. The metadata of the new part contains the id of the new prompt,
// so every client can find out from the session whether the turn was continued for this prompt.

// keys returns the ids of the prompts that a message from this package stands for: the id of the
// prompt that was sent, followed by the ids of the prompts that continued its turn. If the server
// copies the message, the copy has the same keys.
func (m *wireMessage) keys() (keys []string) {
	for i := range m.Parts {
		if key := m.Parts[i].promptID(); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

// The constant "deepest" is the maximum number of messages that are searched for the message of an earlier
// prompt. A turn has fewer messages.
const deepest = 20_000

// The method "unanswered" looks for the message of an earlier prompt. A new prompt, which has the given key,
// is meant to continue the turn of the earlier prompt. The method returns the message's id and the part to
// send. If the turn cannot be continued, the part is nil. The boolean result reports whether the session
// already has the new prompt.
func (c *Client) unanswered(ctx context.Context, id, earlier, key string) (message string, part *wirePromptPart, there bool, err error) {
	var keys []string
	read, found := 0, false
	list, _, err := c.back(ctx, id, func(w *wireMessage) bool {
		read++
		if w.sentFor() != "" {
			keys = w.keys()
			found = slices.Contains(keys, key) || slices.Contains(keys, earlier)
		}
		return found || read >= deepest
	})
	if err != nil {
		return "", nil, false, fmt.Errorf("looking for the unanswered prompt in session %s: %w", id, err)
	}
	if !found {
		return "", nil, false, nil
	}
	message = list[0].Info.ID
	if slices.Contains(keys, key) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.session(id).note(sent{key, message})
		return message, nil, true, nil
	}
	if lines := c.lines(id, track{}, list); lines[len(lines)-1].track.whole { // the last prompt has a whole answer, so the server would not call the model again
		return "", nil, false, nil
	}
	return message, &wirePromptPart{
		// Parts are sorted by their ids, and this id sorts after the ids of the earlier parts.
		ID: fmt.Sprintf("%s%03d%s", partID(message), len(keys), tail(key)), Type: "text", Ignored: true, Metadata: map[string]string{metadataKey: key},
	}, false, nil
}

// The method "continued" reports whether the turn of a prompt message is being continued or was continued.
func (c *Client) continued(session, message string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	if s := c.sessions[session]; s != nil {
		for _, x := range s.sent {
			if x.message == message {
				n++
			}
		}
	}
	return n > 1
}

// continuedBefore returns the message of the last prompt if two conditions are met: the position is
// after that message, and the prompt's turn has been continued since the position was determined. The
// caller needs the message, because it might know only the earlier ids of the prompt. continuedBefore
// also records the prompt's last id in the position and in the prompt's later messages, which are in
// the list "rest". As a result, the message is not returned again for a later position.
func (c *Client) continuedBefore(ctx context.Context, id string, p *position, rest []line) (*bgagent.Message, error) {
	prompt, known := p.track.prompt, cmp.Or(p.track.last, p.track.key)
	if prompt == "" || slices.ContainsFunc(rest, func(l line) bool { return l.ID == prompt }) {
		return nil, nil
	}
	c.mu.Lock()
	s := c.sessions[id]
	read := s != nil && (s.inherited || cmp.Or(s.lastKey(prompt), known) != known)
	c.mu.Unlock()
	if !read {
		return nil, nil
	}
	var w wireMessage
	err := c.do(ctx, call{method: http.MethodGet, path: sessionPath(id, "/message/"+url.PathEscape(prompt)), out: &w})
	if missing(err) { // the user has reverted the prompt's message
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys := w.keys()
	if len(keys) == 0 || keys[len(keys)-1] == known {
		return nil, nil
	}
	last := keys[len(keys)-1]
	c.mu.Lock()
	s.note(sent{keys[0], prompt})
	s.note(sent{last, prompt})
	c.mu.Unlock()
	p.track.last = last
	for i := range rest {
		if rest[i].track.prompt == prompt {
			rest[i].track.last = last
		}
	}
	m := w.message()
	return &m, nil
}

// lastKey returns the id of the last prompt that this client knows for a message, or "" if it does
// not know any. Client.mu must be held.
func (s *session) lastKey(message string) (key string) {
	for _, x := range s.sent {
		if x.message == message {
			key = x.key
		}
	}
	return key
}

// The method "tries" returns how many times the server made the request that has now finally failed. It
// returns 0 if the number is unknown.
func (c *Client) tries(session string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[session]; s != nil && s.over.tries > 0 && s.over.tried == s.turn {
		return s.over.tries + 1
	}
	return 0
}

// asksAnew records that the server has made another request to the model.
func (c *Client) asksAnew(session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[session]; s != nil {
		s.over.tries = 0
	}
}
