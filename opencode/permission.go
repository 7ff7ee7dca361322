package opencode

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/asktext"
)

// PermissionRequest is an agent's request for access, for example to a command or a file.
type PermissionRequest struct {
	Session    string         // the session that asks
	Task       string         // the nearest session that this client runs: Session itself or one of its ancestors
	Permission string         // the kind of access, for example bash, edit or external_directory
	Patterns   []string       // what the agent wants to access, for example a command or a path
	Metadata   map[string]any // further details from the server
}

// PermissionReply answers a [PermissionRequest]. The zero value rejects the request.
type PermissionReply struct {
	Allow  bool
	Always bool   // if Allow is set: similar requests are allowed until the server stops
	Reason string // if Allow is not set: the reason that the agent is given; by default a general sentence

	// If Leave is set, the client does not answer the question, and a user can answer it
	// in opencode's own window. The session waits until the question is answered. While it waits, the
	// task is shown as asking.
	Leave bool

	// If Ask is set, the task asks the question, and [bgagent.BackgroundManager.Answer] answers
	// it. If bgagent.Config.Ask is not set, the request is rejected. Ask has no effect if Allow or
	// Leave is set.
	Ask bool
}

// An agent gets one of these reasons if its question is rejected and the host has given no reason.
const (
	noReason    = "This was not allowed." + advice
	advice      = asktext.Advice
	policyPanic = "This was not allowed: the program that decides about it failed."
)

// ask is an open question: a permission request or a question to the user.
type ask struct {
	id, session, dir string
	text             string             // one line for users
	request          *PermissionRequest // nil for a question to the user
	details          map[string]any     // request.Metadata with its numbers as the server wrote them
	question         *wireAsked         // question to the user; nil if it cannot be answered with one of its options
	tool             wireCall           // tool call that asks the question
	listed           bool               // the question was found in a list, so its turn might have been aborted
	changed          bool               // another question had the same id
	owner            string             // the session found by findOwner; empty if there is no owner or the owner is not yet known
	ctx              context.Context
	cancel           context.CancelFunc
	orphaned         bool              // the question has no owner
	posed            *bgagent.Question // question as the manager asks it; nil if the manager does not ask it
	told             bool              // the question was emitted
	owned            chan struct{}     // closed when it is known who the owner is, or that there is none
	settled          chan struct{}     // closed when it is known whether the manager asks the question
}

func (w *wirePermission) ask(dir string) *ask {
	return &ask{
		id: w.ID, session: w.SessionID, dir: dir, text: firstLine("may I: " + w.Permission + " " + strings.Join(w.Patterns, ", ")), tool: w.Tool,
		request: &PermissionRequest{Session: w.SessionID, Permission: w.Permission, Patterns: w.Patterns, Metadata: w.Metadata.plain},
		details: w.Metadata.exact,
	}
}

func (w *wireQuestion) ask(dir string) *ask {
	a := &ask{id: w.ID, session: w.SessionID, dir: dir, text: untitled, tool: w.Tool}
	if len(w.Questions) > 0 {
		a.text = cmp.Or(firstLine(w.Questions[0].Question), untitled)
	}
	if len(w.Questions) == 1 && len(w.Questions[0].Options) > 0 {
		a.question = &w.Questions[0]
	}
	return a
}

// untitled is shown in place of the text of a question that has none.
const untitled = "a question to the user"

// The method "asking" registers a question. If this client runs the question's session or an ancestor of it,
// a goroutine decides who answers the question; see the method "answer". The result is the registered
// question. It is nil if the question is invalid or is no longer asked.
func (c *Client) asking(a *ask) *ask {
	if a.id == "" || !isSession(a.session) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.asks[a.id]
	if c.closed || c.dead[a.id] || known != nil && known.isSame(a) {
		return known
	}
	if known != nil { // an answer to the known question must not be used for the new question, which has the same id
		c.unask(known)
		a.changed = true
		c.tellQuestions(known.owner)
	}
	a.ctx, a.cancel = context.WithCancel(c.life)
	a.owned, a.settled = make(chan struct{}), make(chan struct{})
	c.asks[a.id] = a
	if s := c.sessions[a.session]; s != nil && s.ours {
		a.owner = a.session
		c.tellAsking(a)
	}
	c.spawn(func() { c.answer(a) })
	return a
}

// The method "answered" forgets a question that is no longer open. It keeps the question's id, because a late
// event, or a list that was requested earlier, can still contain the question.
func (c *Client) answered(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.asks[id]
	if c.dies(id); a == nil {
		return
	}
	c.unask(a)
	if a.owner == "" || c.tell == nil {
		return
	}
	if a.posed != nil {
		c.tellQuestions(a.owner)
	}
	if next := c.askOf(a.owner); next != nil {
		c.tellAsking(next) // another question of the session is still open
		return
	}
	c.tell(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: a.owner, Status: bgagent.SessionStatus{State: bgagent.SessionBusy}})
}

// unask forgets a question that is no longer open. c.mu must be held.
func (c *Client) unask(a *ask) {
	delete(c.asks, a.id)
	a.cancel()
}

// drop forgets the questions of a session whose turn has ended or is being aborted. The server
// can still list them. A question that a descendant of the session asks through the manager is
// rejected, because nobody can answer it after the turn. c.mu must be held.
func (c *Client) drop(session string) {
	owners := map[string]bool{}
	for _, a := range c.asks {
		switch {
		case a.session == session:
			c.bury(a)
		case a.owner == session && a.posed != nil:
			c.bury(a)
			c.spawn(func() { c.refuse(a, turnOver) })
		default:
			continue
		}
		if a.posed != nil {
			owners[a.owner] = true
		}
	}
	for owner := range owners {
		c.tellQuestions(owner)
	}
}

// The method "asked" returns the text of the oldest open question of the session or its descendants. It
// returns "" if there is no open question.
func (c *Client) asked(session string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.askOf(session); a != nil {
		return a.text
	}
	return ""
}

// askOf returns the oldest open question of the session or its descendants. It returns nil if there
// is no open question. Ids sort by time. c.mu must be held.
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

// maxAncestors limits the number of sessions that findOwner checks.
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

// ownerOf finds the owner of a question, stores it in a.owner and returns it. It returns "" if the
// question has no owner or is no longer open.
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

// The method "answer" decides who answers a question that has an owner. If this client answers it, the
// request is repeated until it succeeds or the question is no longer open.
func (c *Client) answer(a *ask) {
	defer a.cancel()
	reply := c.judge(a)
	close(a.settled)
	if reply != nil && retry(a.ctx, func() error { return c.reply(a.ctx, a, *reply) }) {
		c.answered(a.id)
	}
}

// judge returns this client's reply to the question. If somebody else answers the question, or if
// no answer is needed, the result is nil.
func (c *Client) judge(a *ask) *PermissionReply {
	owner := c.ownerOf(a)
	close(a.owned)
	if owner == "" || a.listed && c.hasDied(a) {
		return nil
	}
	if a.request != nil && c.cfg.Permission != nil {
		switch reply := c.decide(a, owner); {
		case a.ctx.Err() != nil || reply.Leave:
			return nil
		case reply.Allow || !reply.Ask:
			return &reply
		}
	}
	if a.request == nil && a.question == nil { // there are no options to choose from
		return &PermissionReply{}
	}
	return c.pose(a)
}

// The method "reply" sends the server a reply to a permission request. If a is a question to the user, the
// method ignores the given reply and rejects the question.
func (c *Client) reply(ctx context.Context, a *ask, reply PermissionReply) error {
	var done bool
	r := call{method: http.MethodPost, path: questionPath(a.id, "/reject"), dir: a.dir, out: &done}
	if a.request != nil {
		r.path, r.body = permissionPath(a.id), reply.body()
	}
	return c.do(ctx, r)
}

func permissionPath(id string) string     { return "/permission/" + url.PathEscape(id) + "/reply" }
func questionPath(id, rest string) string { return "/question/" + url.PathEscape(id) + rest }

// decide calls Config.Permission, the host's policy, which must not be nil. If the policy panics or
// ends its goroutine, the reply is a rejection.
func (c *Client) decide(a *ask, owner string) (reply PermissionReply) {
	request := *a.request
	request.Task = owner
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
		reply = c.cfg.Permission(a.ctx, request)
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

// The function "retry" calls f until f succeeds, or until f fails because the requested object does not
// exist. It returns false if the context has ended.
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

// The function "sleep" waits for d. It returns false if the context ends first.
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

// logPanic logs a panic in the host's policy.
func (c *Client) logPanic(v any, stack []byte) {
	if c.cfg.Logger != nil {
		c.cfg.Logger.Error("opencode: Config.Permission panicked", "panic", fmt.Sprint(v), "stack", string(stack))
	}
}
