package opencode

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

// A manager with a store continues the sessions of an earlier process. For this purpose, the client
// of the earlier process added metadata on the server: the key of the task is in the metadata of the
// task's session, and the id of each prompt is in the metadata of the prompt's part. The client also
// reads the directory, the parent, the rules and the prompts from the server.

// Home implements [bgagent.SessionHome]. It returns the server's address, without the user and the
// password. A loopback address means a different server on every machine. Therefore, managers on
// several machines must not share a store if their servers have loopback addresses.
func (c *Client) Home() string { return c.home }

// sameTitle is the maximum number of sessions that are searched for a key.
const sameTitle = 100

// The method "repeated" looks for a session that was already created for the key. An earlier process might
// have created the session and exited before it stored the id. The boolean result reports whether there is
// such a session.
func (c *Client) repeated(ctx context.Context, dir, key string, in *wireNewSession) (w wireSession, found bool, err error) {
	query := url.Values{"limit": {strconv.Itoa(sameTitle)}}
	if in.Title != "" {
		query.Set("search", in.Title)
	}
	var got list[wireSession]
	if err := c.do(ctx, call{method: http.MethodGet, path: "/session", dir: dir, query: query, out: &got}); err != nil {
		return w, false, err
	}
	for _, w := range got.items {
		if w.key() == key && w.ParentID == in.ParentID && isSession(w.ID) {
			return w, true, nil
		}
	}
	return w, false, nil
}

// key returns the key of the task for which the session was created. It returns "" if the
// session was not created by a manager with a store.
func (w *wireSession) key() (key string) {
	var m map[string]json.RawMessage
	if len(w.Metadata) == 0 || json.Unmarshal(w.Metadata, &m) != nil || json.Unmarshal(m[metadataKey], &key) != nil {
		return ""
	}
	return key
}

// inherit makes the client treat a session as its own if an earlier process created the session for
// a task. The client calls this method when the manager reads the messages of the session, because
// a manager reads only the messages of its own tasks. If the session cannot be fetched, the next call
// retries.
func (c *Client) inherit(ctx context.Context, id string) {
	if !isSession(id) {
		return
	}
	c.mu.Lock()
	s := c.sessions[id]
	known := s != nil && s.dir != ""
	c.mu.Unlock()
	if !known {
		if _, err := c.fetch(ctx, id); err != nil {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s = c.sessions[id]
	if s == nil || s.ours || s.key == "" {
		return
	}
	s.ours, s.inherited, s.unlisted, s.posed = true, true, true, true
	c.heirs++
	for _, a := range c.asks {
		if a.orphaned { // the question might belong to this session or to one of its descendants, so look again
			delete(c.asks, a.id)
			c.spawn(func() { c.asking(a.again()) })
		}
	}
	if dir := s.dir; c.stream { // without an event stream, the method Statuses requests the questions
		c.find(dir)
	}
}

// recall stores the prompts that the lines of an inherited session contain. It assumes that the
// turn of the last prompt is still running. If that turn has ended, the next status shows it.
func (c *Client) recall(id string, lines []line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil || !s.inherited || len(lines) == 0 {
		return
	}
	for i := range lines {
		if t := &lines[i].track; t.key != "" {
			s.note(sent{t.key, t.prompt})
			s.note(sent{cmp.Or(t.last, t.key), t.prompt})
		}
	}
	if len(s.sent) > 0 {
		s.inherited = false
		s.turn = cmp.Or(s.turn, s.sent[len(s.sent)-1].message)
	}
}
