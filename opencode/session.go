package opencode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

// session is the client's record of a session. Client.mu guards its fields.
type session struct {
	id      string
	dir     string     // working directory; empty if not yet known
	parent  string     // empty for a root session
	created int64      // Unix time in milliseconds by the server's clock
	ours    bool       // this client created, prompted or inherited the session
	key     string     // key of the task in the session's metadata; empty if there is none
	empty   bool       // this client created the session, and the session has no messages yet
	rules   []wireRule // the permission rules that this client set
	ruled   bool       // whether the field "rules" is set

	inherited bool // the session is from an earlier process, and its prompts have not been read yet
	unlisted  bool // the session is from an earlier process, and its open questions are not yet known
	searched  bool // whether the field "sent" contains the messages that an earlier process sent

	posed bool // the manager might have open questions of the session

	sent   []sent        // the last prompts and notices, oldest first
	aborts int           // number of unanswered abort requests
	calm   chan struct{} // closed when aborts becomes zero; nil while it is zero

	turn  string     // id of the current turn's prompt message; empty when the turn is known to have ended
	asked wirePrompt // prompt of the last turn that this client started, without its parts; messages that join the turn have the same agent, model and system text
	cut   bool       // the server could not be reached during the current turn

	joins  int           // number of messages that are being added to the current turn
	joined chan struct{} // closed when joins becomes zero; nil while it is zero
	unread []string      // ids of stored messages that might not have been read by any turn
	over   over

	// The session's state according to the event stream. It is needed to check whether the stream
	// keeps up with the server.
	awaited string    // id of the current turn's prompt message until the stream mentions it; then empty
	busy    bool      // according to the stream, the session is in a turn
	behind  time.Time // when the server began to report the session as idle while the stream did not; zero if they agree
}

// The type "sent" describes a prompt or a notice that was sent to a session. The field "key" is bgagent's id
// for the prompt or notice, and the field "message" is the id of the resulting message on the server.
type sent struct{ key, message string }

// maxSent limits the number of sent prompts and notices that are remembered per session. Older
// prompts and notices are never sent again.
const maxSent = 16

// maxSessions limits the number of remembered sessions. When the limit is reached, the client
// forgets the sessions that it does not run, for example users' sessions.
const maxSessions = 4096

// session returns the record of a session, and creates the record if needed. c.mu must
// be held.
func (c *Client) session(id string) *session {
	s := c.sessions[id]
	if s == nil {
		if len(c.sessions) >= maxSessions {
			c.evict()
		}
		s = &session{id: id}
		c.sessions[id] = s
	}
	return s
}

// evict forgets the sessions that can be fetched from the server again. c.mu must be
// held.
func (c *Client) evict() {
	for id, s := range c.sessions {
		if !s.ours && s.aborts == 0 {
			delete(c.sessions, id)
		}
	}
}

// learn updates a session's record from the server's answer. c.mu must be held.
func (c *Client) learn(w wireSession) *session {
	s := c.session(w.ID)
	s.dir, s.parent, s.created, s.key = w.Directory, w.ParentID, int64(w.Time.Created), w.key()
	return s
}

// fetch asks the server for a session.
func (c *Client) fetch(ctx context.Context, id string) (w wireSession, err error) {
	if !isSession(id) {
		return w, c.noSession()
	}
	if err := c.do(ctx, call{method: http.MethodGet, path: sessionPath(id, ""), out: &w}); err != nil {
		if missing(err) {
			err = c.noSession()
		}
		return w, err
	}
	if w.ID != id {
		return w, &ServerError{URL: c.base, Status: http.StatusOK, Detail: "the answer is not the requested session", Advice: adviceNotOpencode}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.learn(w)
	return w, nil
}

// CreateSession implements [bgagent.SessionClient]. If the session s.Parent exists on the server,
// the new session is its child and works in its directory. If s.Directory is set, the new session
// works there instead. CreateSession refuses an agent or model that does not exist, and a directory
// that cannot be read, because the server would accept them and report an error later or not at
// all. The error matches [bgagent.ErrUnreachable] if the server cannot be reached and no session
// was created.
//
// If s.Key is set, the client stores it in the session's metadata. A repeated call with the same
// key returns the session that the first call created, even in another process. To find that
// session, the client searches the 100 newest sessions whose titles contain s.Title. If the session
// is not among them, the client creates another session, and the first session remains empty.
func (c *Client) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	in, dir, err := c.newSession(ctx, s)
	if err != nil {
		return "", unstarted(true, err)
	}
	if s.Key != "" {
		w, found, err := c.repeated(ctx, dir, s.Key, &in)
		if err != nil {
			return "", unstarted(true, err)
		}
		if found {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.learn(w).ours = true
			return w.ID, nil
		}
		in.Metadata = map[string]string{metadataKey: s.Key}
	}
	var w wireSession
	if err := c.do(ctx, call{method: http.MethodPost, path: "/session", dir: dir, body: in, out: &w}); err != nil {
		return "", unstarted(false, err)
	}
	if !isSession(w.ID) {
		return "", &ServerError{URL: c.base, Status: http.StatusOK, Detail: "the new session has no id", Advice: adviceNotOpencode}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.sessions[w.ID]; w.ID == s.Parent || known != nil && known.ours {
		return "", &ServerError{URL: c.base, Status: http.StatusOK, Detail: "the new session has the id of an existing one, " + w.ID, Advice: adviceNotOpencode}
	}
	rec := c.learn(w)
	rec.ours, rec.empty, rec.searched, rec.rules, rec.ruled = true, true, true, in.Permission, true
	return w.ID, nil
}

// newSession prepares the request for a new session and determines the session's directory. It does
// not create the session.
func (c *Client) newSession(ctx context.Context, s bgagent.SessionSpec) (in wireNewSession, dir string, err error) {
	in = wireNewSession{Title: s.Title, Agent: cmp.Or(s.Agent, c.cfg.Agent), Permission: c.rules(s.Permissions)}
	dir = s.Directory
	if isSession(s.Parent) {
		switch parent, err := c.fetch(ctx, s.Parent); {
		case err == nil:
			in.ParentID, dir = s.Parent, cmp.Or(dir, parent.Directory)
		case !errors.Is(err, bgagent.ErrNoSession): // if the session does not exist, Parent names a scope
			return in, "", err
		}
	}
	dir = cmp.Or(dir, c.cfg.Directory)
	in.Model, err = c.usable(ctx, dir, in.Agent, s.Model)
	return in, dir, err
}

// The method "usable" checks the directory, the agent and the model, because the server does not check them.
// It returns the model, split into provider and name.
func (c *Client) usable(ctx context.Context, dir, agent, model string) (*wireModel, error) {
	m, err := parseModel(cmp.Or(model, c.cfg.Model))
	if err != nil {
		return nil, err
	}
	if err := c.readable(ctx, dir); err != nil {
		return nil, err
	}
	if agent != "" {
		if err := c.hasAgent(ctx, dir, agent); err != nil {
			return nil, err
		}
	}
	return m, c.hasModel(ctx, dir, m)
}

// The method "readable" returns an error if the server cannot read the directory. When the server lists an
// unreadable directory, it fails with status 500. The result is not remembered: a directory can be removed
// later, and a turn in it would run and find nothing.
func (c *Client) readable(ctx context.Context, dir string) error {
	if dir == "" {
		return nil
	}
	if !absolute(dir) {
		return fmt.Errorf("the directory %q is not an absolute path on the opencode server's machine", dir)
	}
	err := c.do(ctx, call{method: http.MethodGet, path: "/file", dir: dir, query: url.Values{"path": {"."}}, out: &count{}})
	var e *ServerError
	switch {
	case errors.As(err, &e) && e.Status == http.StatusInternalServerError && e.Advice == "":
		return fmt.Errorf("the opencode server at %s cannot read the directory %q: create it there, or name another", c.base, dir)
	case errors.As(err, &e) && (e.Status == 0 || e.Advice == advicePassword || e.Advice == adviceRedirect):
		return err
	}
	return nil // a server without this route reports an unreadable directory later
}

// Abort implements [bgagent.SessionClient]. It returns when the server has answered. The session is
// then idle, but the events that report this can arrive later.
func (c *Client) Abort(ctx context.Context, id string) error {
	if !isSession(id) {
		return nil
	}
	c.mu.Lock()
	s := c.session(id)
	if s.turn != "" {
		s.over.aborted = s.turn
	}
	if s.aborts++; s.calm == nil {
		s.calm = make(chan struct{})
	}
	c.drop(id)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.aborts--; s.aborts == 0 {
			close(s.calm)
			s.calm = nil
		}
	}()
	var done bool
	err := c.do(ctx, call{method: http.MethodPost, path: sessionPath(id, "/abort"), out: &done})
	if err != nil && !missing(err) {
		return fmt.Errorf("aborting session %s: %w", id, err)
	}
	return nil
}

// The method "calmed" returns when no abort request for the session is in flight, and no message is being
// added to a turn. The server might never run a prompt that overtakes an abort request.
func (c *Client) calmed(ctx context.Context, id string) error {
	for {
		c.mu.Lock()
		calm := c.session(id).calm
		c.mu.Unlock()
		if calm == nil {
			return c.settleJoins(ctx, id)
		}
		select {
		case <-calm:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the abort of session %s: %w", id, context.Cause(ctx))
		}
	}
}

// FindSession implements [bgagent.SessionFinder].
func (c *Client) FindSession(ctx context.Context, id string) (bgagent.SessionInfo, error) {
	w, err := c.fetch(ctx, id)
	if err != nil {
		return bgagent.SessionInfo{}, fmt.Errorf("looking up session %s: %w", id, err)
	}
	return bgagent.SessionInfo{Parent: w.ParentID, Directory: w.Directory}, nil
}

// ForgetSession implements [bgagent.SessionForgetter]. The session stays on the
// server; see [Client.Delete].
func (c *Client) ForgetSession(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil && s.aborts == 0 {
		delete(c.sessions, id)
		if c.stream {
			c.dropped = append(c.dropped, id)
		}
	}
}

// deletePoll is the pause between two of Delete's checks of whether the sessions are idle.
const deletePoll = 50 * time.Millisecond

// Delete deletes a session and its descendants, including their messages. Deleting a session does
// not stop its turn, so Delete first aborts the turns and waits until the sessions are idle or ctx
// ends. If the session does not exist, Delete returns nil.
func (c *Client) Delete(ctx context.Context, id string) error {
	w, err := c.fetch(ctx, id)
	if errors.Is(err, bgagent.ErrNoSession) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting session %s: %w", id, err)
	}
	all, err := c.descendants(ctx, w)
	if err != nil {
		return fmt.Errorf("deleting session %s: listing its children: %w", id, err)
	}
	for _, s := range all {
		if err := c.Abort(ctx, s); err != nil {
			return fmt.Errorf("deleting session %s: %w", id, err)
		}
	}
	if err := c.rested(ctx, all); err != nil {
		return fmt.Errorf("deleting session %s: %w", id, err)
	}
	var done bool
	err = c.do(ctx, call{method: http.MethodDelete, path: sessionPath(id, ""), out: &done})
	if err != nil && !missing(err) {
		return fmt.Errorf("deleting session %s: %w", id, err)
	}
	for _, s := range all {
		c.ForgetSession(s)
	}
	return nil
}

// descendants returns the ids of a session and its descendants.
func (c *Client) descendants(ctx context.Context, top wireSession) ([]string, error) {
	ids := []string{top.ID}
	for i := 0; i < len(ids); i++ {
		var children list[wireSession]
		err := c.do(ctx, call{method: http.MethodGet, path: sessionPath(ids[i], "/children"), out: &children})
		if err != nil && !missing(err) {
			return nil, err
		}
		c.mu.Lock()
		for _, w := range children.items {
			if isSession(w.ID) && !slices.Contains(ids, w.ID) {
				c.learn(w)
				ids = append(ids, w.ID)
			}
		}
		c.mu.Unlock()
	}
	return ids, nil
}

// The method "rested" returns when none of the sessions is in a turn.
func (c *Client) rested(ctx context.Context, ids []string) error {
	tick := time.NewTicker(deletePoll)
	defer tick.Stop()
	for {
		got, err := c.Statuses(ctx, ids)
		if err != nil {
			return err
		}
		busy := ""
		for _, id := range ids {
			if s := got[id].State; s != bgagent.SessionIdle && s != bgagent.SessionGone {
				busy = id
			}
		}
		if busy == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for session %s to become idle: %w", busy, context.Cause(ctx))
		}
	}
}
