package opencode

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/mdtext"
)

// A question that neither Config.Permission nor the client answers is asked by the manager. The
// client emits the open questions of a session in HostQuestion events. AnswerQuestion passes the
// answers to the server.
//
// A HostQuestion event must contain all open questions, because the manager withdraws the others
// for good. So nothing is emitted for a session of an earlier process until the server has listed
// its questions and it is known which of them the manager asks.

// The options of a permission question. The server also has "always", which is not offered.
const (
	allowOnce = "allow once"
	reject    = "reject"
)

// Texts for the agent.
const (
	hostRejects = "The host has denied this." + advice
	turnOver    = "This was not allowed: the turn that could have asked about it has ended."
	tooMany     = "This was not allowed: the task asks too many questions at once." + advice
)

const (
	maxPosed = 64   // maximum number of questions of a task that the manager is asked to ask
	maxDead  = 4096 // maximum number of ids of dead questions that are remembered
	maxAskID = 200  // maximum number of bytes of an id that the manager accepts
)

// pose passes a question to the manager. If the manager cannot ask it, the result is the reply of
// the client.
func (c *Client) pose(a *ask) *PermissionReply {
	q := a.toManager(c.inputOf(a))
	if a.ctx.Err() != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, n := c.sessions[a.owner], 0
	for _, other := range c.asks {
		if other.owner == a.owner && other.posed != nil {
			n++
		}
	}
	switch {
	case c.asks[a.id] != a:
		return nil
	case s == nil || s.turn == "" && !s.inherited:
		return &PermissionReply{Reason: turnOver}
	case n >= maxPosed:
		return &PermissionReply{Reason: tooMany}
	case len(a.id) > maxAskID || mdtext.Valid(a.id) != a.id:
		return &PermissionReply{}
	}
	a.posed = q
	c.tellQuestions(a.owner)
	return nil
}

// again returns an unregistered copy of the question.
func (a *ask) again() *ask {
	return &ask{id: a.id, session: a.session, dir: a.dir, text: a.text, request: a.request, question: a.question, tool: a.tool, listed: a.listed}
}

// toManager returns the question for the manager. The argument "input" is the input of the tool call,
// or nil. The result depends only on what the server has stored, so that the question has the same
// key after a restart.
func (a *ask) toManager(input json.RawMessage) *bgagent.Question {
	q := &bgagent.Question{ID: a.id, Kind: bgagent.QuestionPermission, Title: a.text, Options: []string{allowOnce, reject}}
	if a.request != nil {
		q.Subject = mdtext.Valid(a.request.subject(input))
		return q
	}
	q.Kind, q.Options = bgagent.QuestionChoice, nil
	text := []string{a.question.Question}
	for _, o := range a.question.Options {
		q.Options = append(q.Options, o.Label)
		if o.Description != "" {
			text = append(text, o.Label+": "+o.Description)
		}
	}
	q.Subject = mdtext.Valid(strings.Join(text, "\n"))
	return q
}

// subject returns what the agent wants to do: the whole command or diff, or all that is known about the access.
func (r *PermissionRequest) subject(input json.RawMessage) string {
	var lines []string
	command, _ := r.Metadata["command"].(string)
	diff, _ := r.Metadata["diff"].(string)
	if command != "" {
		lines = append(lines, command)
	}
	for _, p := range r.Patterns {
		if command == "" || !strings.Contains(command, p) {
			lines = append(lines, p)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.Metadata)) {
		switch v := r.Metadata[key].(type) {
		case string:
			if v != command && v != diff && !slices.Contains(lines, v) {
				lines = append(lines, key+": "+v)
			}
		case bool, float64:
			lines = append(lines, fmt.Sprint(key, ": ", v))
		}
	}
	if diff != "" {
		lines = append(lines, diff)
	}
	if len(input) > 0 {
		lines = append(lines, string(input))
	}
	return strings.Join(lines, "\n")
}

// wireAsking is a message with the states of its tool calls.
type wireAsking struct {
	Parts []wireAskingPart `json:"parts"`
}

type wireAskingPart struct {
	Type   string `json:"type"`
	CallID string `json:"callID"`
	State  struct {
		Status string          `json:"status"`
		Input  json.RawMessage `json:"input"`
	} `json:"state"`
}

// callOf fetches the tool call that asks. The boolean result is false if the server does not have the
// call, or if a.ctx has ended.
func (c *Client) callOf(a *ask) (p wireAskingPart, found bool) {
	var m wireAsking
	path := sessionPath(a.session, "/message/"+url.PathEscape(a.tool.MessageID))
	if !retry(a.ctx, func() error { return c.do(a.ctx, call{method: http.MethodGet, path: path, out: &m}) }) {
		return p, false
	}
	for _, p := range m.Parts {
		if p.Type == "tool" && p.CallID == a.tool.CallID {
			return p, true
		}
	}
	return p, false
}

// hasDied reports whether the turn of a listed question has been aborted. The server lists such a
// question as long as it runs.
func (c *Client) hasDied(a *ask) bool {
	if a.tool.MessageID == "" {
		return false
	}
	p, found := c.callOf(a)
	if a.ctx.Err() != nil || found && (p.State.Status == "running" || p.State.Status == "pending") {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asks[a.id] == a {
		c.bury(a)
	}
	return true
}

// inputOf returns the input of the tool call if the question does not contain any details about the
// call. The tools of MCP servers ask such questions.
func (c *Client) inputOf(a *ask) json.RawMessage {
	if a.request == nil || len(a.request.Metadata) > 0 || a.tool.MessageID == "" {
		return nil
	}
	p, _ := c.callOf(a)
	return p.State.Input
}

// bury forgets a question whose turn has ended. c.mu must be held.
func (c *Client) bury(a *ask) {
	if len(c.dead) >= maxDead {
		clear(c.dead)
	}
	c.dead[a.id] = true
	c.unask(a)
}

// tellQuestions emits the open questions of a session. c.mu must be held.
func (c *Client) tellQuestions(owner string) {
	s := c.sessions[owner]
	if s == nil || s.unlisted || c.tell == nil {
		return
	}
	e := bgagent.HostEvent{Kind: bgagent.HostQuestion, Session: owner}
	for _, id := range slices.Sorted(maps.Keys(c.asks)) { // ids sort by time
		if a := c.asks[id]; a.owner == owner && a.posed != nil {
			e.Questions = append(e.Questions, *a.posed)
		}
	}
	s.posed = len(e.Questions) > 0
	c.tell(e)
}

// findAll requests the open questions in the directories of some of the client's sessions. c.mu must be
// held.
func (c *Client) findAll(of func(*session) bool) {
	dirs := map[string]bool{}
	for _, s := range c.sessions {
		if s.ours && s.dir != "" && of(s) {
			dirs[s.dir] = true
		}
	}
	for dir := range dirs {
		c.spawn(func() { c.findAsks(c.life, dir) })
	}
}

// findAsks requests the open questions of a directory. It is called after a gap of the
// event stream, and while there is no event stream.
func (c *Client) findAsks(ctx context.Context, dir string) {
	var permissions list[wirePermission]
	var questions list[wireQuestion]
	var before []*ask       // questions known before the requests; the lists might not contain later questions
	var sessions []*session // sessions of the directory
	c.mu.Lock()
	for _, a := range c.asks {
		if a.dir == dir {
			before = append(before, a)
		}
	}
	for _, s := range c.sessions {
		if s.ours && s.dir == dir {
			sessions = append(sessions, s)
		}
	}
	c.mu.Unlock()
	if c.do(ctx, call{method: http.MethodGet, path: "/permission", dir: dir, out: &permissions}) != nil {
		return
	}
	// Older servers have no route for questions.
	if err := c.do(ctx, call{method: http.MethodGet, path: "/question", dir: dir, out: &questions}); err != nil && !missing(err) {
		return
	}
	open := map[string]bool{}
	var found []*ask
	add := func(a *ask) {
		open[a.id], a.listed = true, true
		if a = c.asking(a); a != nil {
			found = append(found, a)
		}
	}
	for i := range permissions.items {
		add(permissions.items[i].ask(dir))
	}
	for i := range questions.items {
		add(questions.items[i].ask(dir))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range before {
		if !open[a.id] && c.asks[a.id] == a {
			c.unask(a)
		}
	}
	c.spawn(func() { c.listed(sessions, found) })
}

// listed emits the questions of sessions once it is known which of the questions the manager asks.
func (c *Client) listed(sessions []*session, found []*ask) {
	for _, a := range found {
		select {
		case <-a.settled:
		case <-c.life.Done():
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range sessions {
		if c.sessions[s.id] == s && s.posed {
			s.unlisted = false
			c.tellQuestions(s.id)
		}
	}
}

// refuse rejects a question that the manager no longer asks.
func (c *Client) refuse(a *ask, reason string) {
	retry(c.life, func() error { return c.reply(c.life, a, PermissionReply{Reason: reason}) })
}

// AnswerQuestion implements [bgagent.Answerer]. An agent whose permission question is refused reads
// the reason, after a sentence of opencode that says that the user has rejected the call. A question to
// the user can be refused only without a reason, and the turn then ends.
func (c *Client) AnswerQuestion(ctx context.Context, id string, q bgagent.Question, refusal error) error {
	c.mu.Lock()
	s, a := c.sessions[id], c.asks[q.ID]
	gone := c.dead[q.ID] || a != nil && !a.isPosedAs(id, q)
	dir := ""
	if s != nil {
		dir = s.dir
	}
	c.mu.Unlock()
	if gone {
		return fmt.Errorf("opencode: question %.200q of session %s: %w", q.ID, id, bgagent.ErrNoQuestion)
	}
	if a != nil {
		dir = a.dir
	} else if dir == "" { // an earlier process has asked the question
		w, err := c.fetch(ctx, id)
		if err != nil {
			return fmt.Errorf("opencode: answering question %.200q: %w", q.ID, err)
		}
		dir = w.Directory
	}
	var done bool
	r := call{method: http.MethodPost, dir: dir, out: &done}
	if err := r.answers(q, refusal); err != nil {
		return err
	}
	switch err := c.do(ctx, r); {
	case missing(err):
		c.answered(q.ID)
		return fmt.Errorf("opencode: question %.200q of session %s: %w", q.ID, id, bgagent.ErrNoQuestion)
	case err != nil:
		return fmt.Errorf("opencode: answering question %.200q of session %s: %w", q.ID, id, err)
	}
	c.answered(q.ID)
	return nil
}

// isPosedAs reports whether the question can be what the manager asks as q in the given session. The
// manager does not keep all of a question that it has refused as not valid, or whose turn has ended.
func (a *ask) isPosedAs(session string, q bgagent.Question) bool {
	switch {
	case a.owner != session && a.owner != "":
		return false
	case a.posed == nil: // an earlier process has asked it
		return !a.changed
	}
	return len(q.Options) == 0 || slices.Equal(q.Options, a.posed.Options) && (q.Subject == "" || q.Subject == a.posed.Subject)
}

// isSame reports whether two questions with the same id ask the same.
func (a *ask) isSame(b *ask) bool {
	return a.session == b.session && a.text == b.text && reflect.DeepEqual(a.request, b.request) && reflect.DeepEqual(a.question, b.question)
}

// answers sets the path and the body of a request that answers a question.
func (r *call) answers(q bgagent.Question, refusal error) error {
	switch {
	case q.Kind == bgagent.QuestionChoice && refusal != nil:
		r.path = questionPath(q.ID, "/reject")
	case q.Kind == bgagent.QuestionChoice:
		r.path, r.body = questionPath(q.ID, "/reply"), map[string]any{"answers": [][]string{{q.Answer}}}
	case refusal != nil:
		r.path, r.body = permissionPath(q.ID), PermissionReply{Reason: "This was not allowed: " + refusal.Error() + "." + advice}.body()
	case q.Answer == allowOnce || q.Answer == reject:
		r.path, r.body = permissionPath(q.ID), PermissionReply{Allow: q.Answer == allowOnce, Reason: hostRejects}.body()
	default:
		return fmt.Errorf("opencode: question %.200q: %q is not one of its options", q.ID, q.Answer)
	}
	return nil
}
