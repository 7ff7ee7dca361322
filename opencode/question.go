package opencode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/asktext"
	"github.com/bgagent/bgagent/internal/mdtext"
)

// If neither Config.Permission nor the client answers a question, the manager asks it. The client
// emits the open questions of a session in HostQuestion events. AnswerQuestion passes the answers
// to the server.
//
// A HostQuestion event must contain all open questions, because the manager permanently withdraws
// all others. Therefore, nothing is emitted for a session from an earlier process until the server
// has listed its questions and it is known which of them the manager asks.

// The options of a permission question. The server also has "always", which is not offered.
const (
	allowOnce = asktext.AllowOnce
	reject    = "reject"
)

// These are messages for the agent.
const (
	hostRejects = "The host has denied this." + advice
	turnOver    = "This was not allowed: the turn that could have asked about it has ended."
	unclear     = "This was not allowed: the details of the request are not known." + advice
	noEvents    = "This was not allowed: nobody can be asked, because the events of the server cannot be followed." + advice
	tooMany     = "This was not allowed: the task asks too many questions at once." + advice
)

const (
	maxPosed = 64   // maximum number of questions per task that are passed to the manager
	maxDead  = 4096 // maximum number of question ids that are remembered after the questions' turns have ended
	maxAskID = 200  // maximum number of bytes of an id that the manager accepts

	eventsAway = 10 * time.Minute // how long a question waits for the manager to follow events again
	callTries  = 6                // maximum number of times that a tool call is fetched if the server answers with an error

	inputReads = 10                     // maximum number of times that a tool call is read to find its input
	inputPause = 200 * time.Millisecond // pause between two of these reads
)

// pose passes a question to the manager. If the manager cannot ask it, the result is the client's
// reply.
func (c *Client) pose(a *ask) *PermissionReply {
	input, known := c.inputOf(a)
	q := a.toManager(input)
	switch {
	case a.ctx.Err() != nil:
		return nil
	case !known || a.request != nil && (strings.TrimSpace(q.Subject) == "" || slices.Contains(a.request.Patterns, "")):
		return &PermissionReply{Reason: unclear}
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
	if c.tellQuestions(a.owner); c.tell == nil && !s.unlisted {
		c.spawn(func() { c.awaitEvents(a) })
	}
	return nil
}

// awaitEvents gives the manager some time to learn about a question from the events. If the manager does not
// follow the events within this time, awaitEvents rejects the question.
func (c *Client) awaitEvents(a *ask) {
	if !sleep(c.life, eventsAway) {
		return
	}
	c.mu.Lock()
	untold := c.asks[a.id] == a && !a.told
	if untold {
		c.bury(a)
	}
	c.mu.Unlock()
	if untold {
		c.refuse(a, noEvents)
	}
}

// tellAll emits the open questions that were not emitted earlier because nobody followed the
// events. c.mu must be held.
func (c *Client) tellAll() {
	owners := map[string]bool{}
	for _, a := range c.asks {
		if a.posed != nil && !a.told {
			owners[a.owner] = true
		}
	}
	for owner := range owners {
		c.tellQuestions(owner)
	}
}

// The method "again" returns an unregistered copy of the question.
func (a *ask) again() *ask {
	return &ask{id: a.id, session: a.session, dir: a.dir, text: a.text, request: a.request, details: a.details, question: a.question, tool: a.tool, listed: a.listed}
}

// toManager returns the question for the manager. input is the tool call's input, or nil. The result depends
// only on what the server has stored, so that the question has the same key after a restart.
func (a *ask) toManager(input json.RawMessage) *bgagent.Question {
	q := &bgagent.Question{ID: a.id, Kind: bgagent.QuestionPermission, Title: asktext.Shown(a.text), Options: []string{allowOnce, reject}}
	if a.request != nil {
		q.Subject = a.subject(input)
		return q
	}
	asktext.Choose(q, a.question.Question, a.question.Options)
	return q
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

// callOf fetches the tool call that asks the question. If the server does not have the call, the
// result "found" is false. If the server repeatedly answers with another error, callOf returns the
// error. While the server does not answer at all, callOf repeats the request until a.ctx ends.
func (c *Client) callOf(a *ask) (p wireAskingPart, found bool, err error) {
	var m wireAsking
	path := sessionPath(a.session, "/message/"+url.PathEscape(a.tool.MessageID))
	answers := 0
	retry(a.ctx, func() error {
		var e *ServerError
		err = c.do(a.ctx, call{method: http.MethodGet, path: path, out: &m})
		if errors.As(err, &e) && e.Status != 0 {
			answers++
		}
		if answers == callTries {
			return nil
		}
		return err
	})
	switch {
	case a.ctx.Err() != nil:
		return p, false, a.ctx.Err()
	case missing(err):
		return p, false, nil
	case err != nil:
		return p, false, err
	}
	for _, p := range m.Parts {
		if p.Type == "tool" && p.CallID == a.tool.CallID {
			return p, true, nil
		}
	}
	return p, false, nil
}

// hasDied reports whether the turn of a listed question was aborted. If it was, the tool call that
// asks the question is no longer pending or running, and hasDied forgets the question. The server
// continues to list such a question until the server stops.
func (c *Client) hasDied(a *ask) bool {
	if a.tool.MessageID == "" {
		return false
	}
	p, found, err := c.callOf(a)
	if err != nil || found && (p.State.Status == "running" || p.State.Status == "pending") {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asks[a.id] == a {
		c.bury(a)
	}
	return true
}

// inputOf returns the tool call's input if the question does not contain any details about the
// call. MCP tools ask such questions. The boolean result is false if the input cannot be found.
func (c *Client) inputOf(a *ask) (json.RawMessage, bool) {
	if a.request == nil || len(a.request.Metadata) > 0 || a.tool.MessageID == "" {
		return nil, true
	}
	for range inputReads {
		p, found, err := c.callOf(a)
		if err != nil || !found || p.State.Status != "pending" || string(p.State.Input) != "{}" {
			return p.State.Input, found
		}
		if !sleep(a.ctx, inputPause) { // the server stores the input when the call begins to run
			break
		}
	}
	return nil, false
}

// bury forgets a question that is over, so that it is not registered again. c.mu must be held.
func (c *Client) bury(a *ask) {
	c.dies(a.id)
	c.unask(a)
}

// The method "dies" records the id of a question that is over, so that the question is not
// registered again. c.mu must be held.
func (c *Client) dies(id string) {
	if len(id) > maxAskID {
		return // ids of any length would take too much memory; such a question is rejected each time that the server lists it
	}
	if len(c.dead) >= maxDead {
		clear(c.dead)
	}
	c.dead[id] = true
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
			a.told = true
			e.Questions = append(e.Questions, *a.posed)
		}
	}
	s.posed = len(e.Questions) > 0
	c.tell(e)
}

// findAll requests the open questions in the directories of those client sessions for which the
// function "of" returns true. c.mu must be held.
func (c *Client) findAll(of func(*session) bool) {
	dirs := map[string]bool{}
	for _, s := range c.sessions {
		if s.ours && s.dir != "" && of(s) {
			dirs[s.dir] = true
		}
	}
	for dir := range dirs {
		c.find(dir)
	}
}

// find requests the open questions of a directory on another goroutine. If the server does not
// answer, the method "find" keeps trying for about a minute. c.mu must be held.
func (c *Client) find(dir string) {
	c.spawn(func() {
		for pause := time.Second; !c.findAsks(c.life, dir) && pause < time.Minute && sleep(c.life, pause); pause *= 2 {
		}
	})
}

// findAsks requests the open questions of a directory. It is called after a gap in the event
// stream, and while there is no event stream. It reports whether the server answered both requests.
// If one request fails, the questions from the other list are registered nevertheless.
func (c *Client) findAsks(ctx context.Context, dir string) bool {
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
	permissionErr := c.do(ctx, call{method: http.MethodGet, path: "/permission", dir: dir, out: &permissions})
	questionErr := c.do(ctx, call{method: http.MethodGet, path: "/question", dir: dir, out: &questions})
	if unrouted(questionErr) {
		questionErr = nil // older servers have no route for questions
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
		listErr := questionErr
		if a.request != nil {
			listErr = permissionErr
		}
		if listErr == nil && !open[a.id] && c.asks[a.id] == a {
			c.bury(a)
		}
	}
	if permissionErr != nil || questionErr != nil { // the sessions' lists of questions would be incomplete
		return false
	}
	for _, s := range sessions {
		if s.posed {
			c.spawn(func() { c.listed(s, found) })
		}
	}
	return true
}

// unrouted reports whether the error means that the server does not have the requested route. A
// server can answer such a request with a web page.
func unrouted(err error) bool {
	var e *ServerError
	return missing(err) || errors.As(err, &e) && e.Status == http.StatusOK
}

// The method "listed" emits the questions of a session once it is known which of them the manager asks.
func (c *Client) listed(s *session, found []*ask) {
	for _, a := range found {
		if !c.await(a.owned) {
			return
		}
		c.mu.Lock()
		other := a.owner != s.id
		c.mu.Unlock()
		if !other && !c.await(a.settled) {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[s.id] == s && s.posed {
		s.unlisted = false
		c.tellQuestions(s.id)
	}
}

// await waits until the channel is closed. It returns false if the client is closed first.
func (c *Client) await(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	case <-c.life.Done():
		return false
	}
}

// refuse rejects a question that the manager no longer asks. After a while it gives up, because the
// server might never accept the reply.
func (c *Client) refuse(a *ask, reason string) {
	ctx, cancel := context.WithTimeout(c.life, refusing)
	defer cancel()
	retry(ctx, func() error { return c.reply(ctx, a, PermissionReply{Reason: reason}) })
}

const refusing = 10 * time.Minute // how long refuse keeps repeating a reply

// AnswerQuestion implements [bgagent.Answerer]. An agent whose permission question is refused gets
// the reason, preceded by opencode's own sentence that the user rejected the call. A question to the
// user can be refused only without a reason, and the turn then ends.
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
	} else if dir == "" { // an earlier process asked the question
		w, err := c.fetch(ctx, id)
		if err != nil {
			return fmt.Errorf("opencode: answering question %.200q: %w", q.ID, err)
		}
		dir = w.Directory
	}
	if q.Kind == bgagent.QuestionChoice && refusal == nil {
		var err error
		if q.Answer, err = c.labelOf(ctx, a, dir, q); err != nil {
			return fmt.Errorf("opencode: answering question %.200q of session %s: %w", q.ID, id, err)
		}
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

// labelOf returns the agent's label for the answer to a question to the user. If an earlier process asked the
// question, a is nil.
func (c *Client) labelOf(ctx context.Context, a *ask, dir string, q bgagent.Question) (string, error) {
	if a == nil {
		var open list[wireQuestion]
		if err := c.do(ctx, call{method: http.MethodGet, path: "/question", dir: dir, out: &open}); err != nil {
			return "", err
		}
		i := slices.IndexFunc(open.items, func(w wireQuestion) bool { return w.ID == q.ID })
		if i < 0 {
			return "", bgagent.ErrNoQuestion
		}
		a = open.items[i].ask(dir)
	}
	if a.question != nil {
		if label, ok := asktext.Chosen(a.question.Options, q.Answer); ok {
			return label, nil
		}
	}
	return "", fmt.Errorf("%q is not one of its options", q.Answer)
}

// isPosedAs reports whether the question can be the one that the manager asks as q in the given session.
// The manager does not keep the options of a question that it refused as invalid, or the subject of a
// question that was answered in an earlier process.
func (a *ask) isPosedAs(session string, q bgagent.Question) bool {
	switch {
	case a.owner != session && a.owner != "":
		return false
	case a.posed == nil: // an earlier process asked it
		return !a.changed
	}
	return len(q.Options) == 0 || slices.Equal(q.Options, a.posed.Options) && (q.Subject == "" || q.Subject == a.posed.Subject)
}

// isSame reports whether two questions with the same id ask the same thing.
func (a *ask) isSame(b *ask) bool {
	return a.session == b.session && a.text == b.text && reflect.DeepEqual(a.request, b.request) && reflect.DeepEqual(a.details, b.details) && reflect.DeepEqual(a.question, b.question)
}

// The method "answers" sets the path and the body of a request that answers a question.
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
