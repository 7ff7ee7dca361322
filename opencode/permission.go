package opencode

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// PermissionRequest is an agent's request for access, for instance to a command or a
// file.
type PermissionRequest struct {
	Session    string         // the session that asks
	Task       string         // the nearest session that this client runs: Session itself or one of its ancestors
	Permission string         // the kind of access, for example bash, edit or external_directory
	Patterns   []string       // the objects of the access, for example a command or a path
	Metadata   map[string]any // further details from the server
}

// PermissionReply answers a [PermissionRequest]. The zero value rejects the request.
type PermissionReply struct {
	Allow  bool
	Always bool   // if Allow is set: similar requests are allowed until the server stops
	Reason string // if Allow is not set: the reason that the agent reads; by default a general sentence

	// If Leave is set, the client does not answer the question, and a user can answer it
	// in opencode's own window. The session waits until the question is answered.
	// Meanwhile, the task is shown as asking.
	Leave bool
}

// Texts that an agent reads if its question is rejected without a reason.
const (
	noReason    = "This was not allowed, and nobody can be asked: the task runs in the background. Go on without it, or say in your answer what you would have needed."
	policyPanic = "This was not allowed: the program that decides about it failed."
)

// ask is an open question: a permission request or a question to the user.
type ask struct {
	id, session, dir string
	text             string             // one line for users
	request          *PermissionRequest // nil for a question to the user
	owner            string             // the session found by findOwner; empty if there is no owner or the owner is not known yet
	ctx              context.Context
	cancel           context.CancelFunc
	orphaned         bool // the question has no owner
}

func (w *wirePermission) ask(dir string) *ask {
	return &ask{
		id: w.ID, session: w.SessionID, dir: dir, text: firstLine("may I: " + w.Permission + " " + strings.Join(w.Patterns, ", ")),
		request: &PermissionRequest{Session: w.SessionID, Permission: w.Permission, Patterns: w.Patterns, Metadata: w.Metadata},
	}
}

func (w *wireQuestion) ask(dir string) *ask {
	a := &ask{id: w.ID, session: w.SessionID, dir: dir, text: "a question to the user"}
	if len(w.Questions) > 0 {
		a.text = firstLine(w.Questions[0].Question)
	}
	return a
}

// The method "asking" registers a question. A goroutine answers the question if this
// client runs the question's session or an ancestor of it.
func (c *Client) asking(a *ask) {
	if a.id == "" || !isSession(a.session) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.asks[a.id] != nil {
		return
	}
	a.ctx, a.cancel = context.WithCancel(c.life)
	c.asks[a.id] = a
	if s := c.sessions[a.session]; s != nil && s.ours {
		a.owner = a.session
		c.tellAsking(a)
	}
	c.spawn(func() { c.answer(a) })
}

// The method "answered" records that a question is no longer open.
func (c *Client) answered(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.asks[id]
	if a == nil {
		return
	}
	delete(c.asks, id)
	a.cancel()
	if a.owner == "" || c.tell == nil {
		return
	}
	if next := c.askOf(a.owner); next != nil {
		c.tellAsking(next) // another question of the session is still open
		return
	}
	c.tell(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: a.owner, Status: bgagent.SessionStatus{State: bgagent.SessionBusy}})
}

// drop forgets the questions of a session whose turn has ended or is being aborted.
// c.mu must be held.
func (c *Client) drop(session string) {
	for _, a := range c.asksOf(session) {
		delete(c.asks, a.id)
		a.cancel()
	}
}

// asksOf returns the open questions of a session. c.mu must be held.
func (c *Client) asksOf(session string) (out []*ask) {
	for _, a := range c.asks {
		if a.session == session {
			out = append(out, a)
		}
	}
	return out
}

// The method "asked" returns the text of the oldest open question of the session or of a
// descendant. It returns "" if there is no open question.
func (c *Client) asked(session string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.askOf(session); a != nil {
		return a.text
	}
	return ""
}

// askOf returns the oldest open question of the session or of a descendant. It returns
// nil if there is no open question. Ids sort by time. c.mu must be held.
func (c *Client) askOf(session string) (oldest *ask) {
	for _, a := range c.asks {
		if a.owner == session && (oldest == nil || a.id < oldest.id) {
			oldest = a
		}
	}
	return oldest
}

// tellAsking emits the status SessionAsking for the owner of the question. c.mu must be
// held.
func (c *Client) tellAsking(a *ask) {
	if c.tell != nil {
		c.tell(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: a.owner, Status: bgagent.SessionStatus{State: bgagent.SessionAsking, Detail: a.text}})
	}
}

// maxAncestors bounds the number of sessions that findOwner checks.
const maxAncestors = 16

// findOwner looks for a session that this client runs. It begins at the question's
// session, continues with the session's ancestors, and returns the first match. If
// there is none, it returns "".
func (c *Client) findOwner(a *ask) (owner string, err error) {
	id := a.session
	for range maxAncestors {
		c.mu.Lock()
		s := c.sessions[id]
		ours := s != nil && s.ours
		c.mu.Unlock()
		if ours {
			return id, nil
		}
		w, err := c.fetch(a.ctx, id)
		if err != nil {
			return "", err
		}
		if w.ParentID == "" {
			return "", nil
		}
		id = w.ParentID
	}
	return "", nil
}

// ownerOf finds the owner of a question, sets the field "owner" and returns the owner. It
// returns "" if the question has no owner or is no longer open.
func (c *Client) ownerOf(a *ask) string {
	for {
		c.mu.Lock()
		heirs := c.heirs
		c.mu.Unlock()
		var owner string
		ok := retry(a.ctx, func() (err error) {
			owner, err = c.findOwner(a)
			return err
		})
		if !ok {
			return ""
		}
		c.mu.Lock()
		again := owner == "" && c.heirs != heirs // the client inherited a session during the search
		switch {
		case owner == "":
			a.orphaned = !again
		case a.owner == "":
			a.owner = owner
			c.tellAsking(a)
		}
		c.mu.Unlock()
		if !again {
			return owner
		}
	}
}

// The method "answer" answers a question if the question has an owner. It repeats the
// request until the request succeeds or the question is no longer open.
func (c *Client) answer(a *ask) {
	defer a.cancel()
	owner := c.ownerOf(a)
	if owner == "" {
		return
	}
	var done bool
	r := call{method: http.MethodPost, path: "/question/" + url.PathEscape(a.id) + "/reject", dir: a.dir, out: &done}
	if a.request != nil {
		a.request.Task = owner
		reply := c.decide(a)
		if reply.Leave || a.ctx.Err() != nil {
			return
		}
		r.path, r.body = "/permission/"+url.PathEscape(a.id)+"/reply", reply.body()
	}
	if retry(a.ctx, func() error { return c.do(a.ctx, r) }) {
		c.answered(a.id)
	}
}

// decide calls Config.Permission, the host's policy. If the policy panics or ends its
// goroutine, the reply is a rejection.
func (c *Client) decide(a *ask) (reply PermissionReply) {
	if c.cfg.Permission == nil {
		return PermissionReply{}
	}
	done := make(chan PermissionReply, 1)
	c.mu.Lock()
	c.spawn(func() {
		reply := PermissionReply{Reason: policyPanic}
		defer func() {
			if v := recover(); v != nil {
				reply = PermissionReply{Reason: policyPanic}
				c.logPanic(v, debug.Stack())
			}
			done <- reply
		}()
		reply = c.cfg.Permission(a.ctx, *a.request)
	})
	c.mu.Unlock()
	select {
	case reply = <-done:
	case <-a.ctx.Done():
	}
	return reply
}

func (r PermissionReply) body() map[string]string {
	switch {
	case r.Allow && r.Always:
		return map[string]string{"reply": "always"}
	case r.Allow:
		return map[string]string{"reply": "once"}
	case r.Reason == "":
		r.Reason = noReason
	}
	// After a rejection with a message, the agent continues. A rejection without a message
	// would end the agent's turn.
	return map[string]string{"reply": "reject", "message": r.Reason}
}

// retry calls f until f succeeds or fails because the requested object does not exist.
// It reports false if the context has ended.
func retry(ctx context.Context, f func() error) bool {
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 30*time.Second) {
		if err := f(); err == nil || missing(err) {
			return ctx.Err() == nil
		}
		if !sleep(ctx, pause) {
			return false
		}
	}
}

// sleep waits for d. It reports false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// findAsks requests the open questions of a directory. It is called after a gap of the
// event stream, and while there is no event stream.
func (c *Client) findAsks(ctx context.Context, dir string) {
	var permissions list[wirePermission]
	var questions list[wireQuestion]
	var before []*ask // questions known before the requests; the lists might not contain later questions
	c.mu.Lock()
	for _, a := range c.asks {
		if a.dir == dir {
			before = append(before, a)
		}
	}
	c.mu.Unlock()
	if c.do(ctx, call{method: http.MethodGet, path: "/permission", dir: dir, out: &permissions}) != nil {
		return
	}
	open := map[string]bool{}
	for i := range permissions.items {
		open[permissions.items[i].ID] = true
		c.asking(permissions.items[i].ask(dir))
	}
	// Older servers have no route for questions.
	if c.do(ctx, call{method: http.MethodGet, path: "/question", dir: dir, out: &questions}) != nil {
		return
	}
	for i := range questions.items {
		open[questions.items[i].ID] = true
		c.asking(questions.items[i].ask(dir))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range before {
		if !open[a.id] {
			delete(c.asks, a.id)
			a.cancel()
		}
	}
}

// logPanic reports a panic of the host's policy.
func (c *Client) logPanic(v any, stack []byte) {
	if c.cfg.Logger != nil {
		c.cfg.Logger.Error("opencode: Config.Permission panicked", "panic", fmt.Sprint(v), "stack", string(stack))
	}
}
