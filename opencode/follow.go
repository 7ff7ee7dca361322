package opencode

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// follower converts the events of one connection into events for the manager. For sessions that the
// client runs, it assembles messages from the pieces in the stream. For other sessions, it does not
// emit messages.
type follower struct {
	c     *Client
	emit  func(bgagent.HostEvent)
	again bool // this is not the client's first connection
	up    bool // the server has confirmed the connection

	// mu guards the fields below. It is needed because a timer emits text that has grown.
	mu     sync.Mutex
	ended  bool
	timer  *time.Timer                  // next emission of text that has grown; nil if none is due
	views  map[string]map[string]*drawn // assembled messages, by session and message id
	whole  map[string]bool              // sessions whose turn has begun on this connection
	full   map[string]bool              // sessions whose view holds the earlier messages of the turn
	failed map[string]bool              // sessions that have reported an error in this turn
	idle   string                       // session that the last event reported as idle, or ""
}

// maxFailed limits the number of sessions whose failure is remembered.
const maxFailed = 1000

func newFollower(c *Client, emit func(bgagent.HostEvent), again bool) *follower {
	return &follower{c: c, emit: emit, again: again, views: map[string]map[string]*drawn{}, whole: map[string]bool{}, full: map[string]bool{}, failed: map[string]bool{}}
}

// wireEvent is an event from the stream. In the stream for all directories, each event
// is the Payload of an outer event.
type wireEvent struct {
	Directory  string          `json:"directory"`
	Type       string          `json:"type"`
	Properties json.RawMessage `json:"properties"`
	Payload    *wireEvent      `json:"payload"`
}

// eventProperties holds the properties of events that this package uses. An event has
// only some of them.
type eventProperties struct {
	ID        string          `json:"id"`
	RequestID string          `json:"requestID"`
	SessionID string          `json:"sessionID"`
	MessageID string          `json:"messageID"`
	PartID    string          `json:"partID"`
	Field     string          `json:"field"`
	Delta     string          `json:"delta"`
	Status    wireStatus      `json:"status"`
	Error     *wireError      `json:"error"`
	Info      json.RawMessage `json:"info"` // the info of a message or a session
	Part      wirePart        `json:"part"`
	Todos     []wireTodo      `json:"todos"`
}

// event processes one event. It skips an event that cannot be decoded. data is nil if the event was too
// large.
func (f *follower) event(ctx context.Context, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget()
	var e wireEvent
	if data == nil || !small(data) {
		f.lost()
		return
	}
	if lenient(json.Unmarshal(data, &e)) != nil {
		return
	}
	dir := e.Directory
	if e.Payload != nil {
		e = *e.Payload
	}
	idleBefore := f.idle
	f.idle = ""
	switch e.Type {
	case "server.connected":
		f.connected()
		return
	case "server.heartbeat":
		f.idle = idleBefore
		f.emit(bgagent.HostEvent{Kind: bgagent.HostStreamBeat})
		return
	case "server.instance.disposed", "global.disposed":
		// The turns in the directory have ended without an event.
		f.lost()
		return
	case "permission.asked", "question.asked":
		f.asked(e, dir)
		return
	}
	if !concerns(e.Type) {
		return
	}
	var p eventProperties
	if lenient(json.Unmarshal(e.Properties, &p)) != nil {
		return
	}
	if p.SessionID == "" {
		p.SessionID = p.Part.SessionID
	}
	switch e.Type {
	case "session.idle":
		if idleBefore != p.SessionID {
			f.status(p.SessionID, wireStatus{Type: "idle"})
		}
	case "session.status":
		f.status(p.SessionID, p.Status)
		if p.Status.Type == "idle" {
			f.idle = p.SessionID
		}
	case "session.error":
		f.failure(p)
	case "session.deleted":
		f.deleted(p)
	case "todo.updated":
		f.emit(bgagent.HostEvent{Kind: bgagent.HostTodos, Session: p.SessionID, Todos: todos(p.Todos)})
	case "permission.replied", "question.replied", "question.rejected":
		f.c.answered(p.RequestID)
	default:
		f.message(ctx, e.Type, p)
	}
}

// The function "concerns" reports whether an event of this type is about a session's work.
func concerns(kind string) bool {
	switch kind {
	case "message.updated", "message.removed", "message.part.updated", "message.part.delta", "message.part.removed",
		"session.status", "session.idle", "session.error", "session.deleted", "todo.updated",
		"permission.replied", "question.replied", "question.rejected":
		return true
	}
	return false
}

// forget drops the data of sessions that the client has forgotten. It is called when the next event
// arrives. ForgetSession cannot call forget: forget needs f.mu, and the function "emit", which can call
// ForgetSession, runs while f.mu is held.
func (f *follower) forget() {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	for _, id := range f.c.dropped {
		if f.c.sessions[id] != nil {
			continue // the session is used again
		}
		delete(f.views, id)
		delete(f.whole, id)
		delete(f.full, id)
		delete(f.failed, id)
	}
	f.c.dropped = nil
}

// The method "connected" records that the server has confirmed the connection of the stream, and reports this
// to the manager.
func (f *follower) connected() {
	if f.up {
		return
	}
	f.up = true
	c := f.c
	c.mu.Lock()
	c.stream = true
	c.findAll(func(*session) bool { return true }) // questions might have been asked while no stream was connected
	c.mu.Unlock()
	if f.again {
		f.emit(bgagent.HostEvent{Kind: bgagent.HostStreamGap}) // makes the manager poll now
	}
	f.emit(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
}

// tick emits the messages whose text has grown.
func (f *follower) tick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer = nil; !f.ended {
		f.flush("")
	}
}

// The method "down" records that the connection has ended. After that, the follower does not emit
// anything.
func (f *follower) down() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended = true; f.timer != nil {
		f.timer.Stop()
	}
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream, c.dropped = false, nil
	for _, s := range c.sessions {
		s.awaited, s.busy = "", false
	}
}

// The method "lost" makes the manager read everything again, because an event was missed.
func (f *follower) lost() {
	clear(f.views)
	clear(f.whole)
	clear(f.full)
	f.emit(bgagent.HostEvent{Kind: bgagent.HostStreamGap})
	f.emit(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.c.findAll(func(s *session) bool { return s.posed }) // the questions might have ended
}

// The method "asked" handles the event that reports an agent's new question.
func (f *follower) asked(e wireEvent, dir string) {
	if e.Type == "permission.asked" {
		var w wirePermission
		if lenient(json.Unmarshal(e.Properties, &w)) == nil {
			f.c.asking(w.ask(dir))
		}
		return
	}
	var w wireQuestion
	if lenient(json.Unmarshal(e.Properties, &w)) == nil {
		f.c.asking(w.ask(dir))
	}
}

// The method "ours" reports whether the client runs the session. The result "awaited" is the id of
// the turn's prompt message, or "" if the stream has already mentioned this message.
func (f *follower) ours(session string) (ours bool, awaited string) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	s := f.c.sessions[session]
	if s == nil {
		return false, ""
	}
	return s.ours, s.awaited
}

// The method "begun" records that the stream has mentioned the session's current turn.
func (f *follower) begun(session string) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if s := f.c.sessions[session]; s != nil {
		s.awaited = ""
	}
}

// status processes a session's status. If the session is reported as idle before the stream has
// mentioned the prompt message of the new turn, the status belongs to the previous, aborted turn.
func (f *follower) status(session string, w wireStatus) {
	f.flush(session)
	s := w.status()
	f.c.mu.Lock()
	awaited := ""
	if known := f.c.sessions[session]; known != nil {
		if awaited = known.awaited; s.State == bgagent.SessionIdle {
			if awaited == "" {
				f.c.rests(known)
			}
		} else {
			f.c.works(known, w)
		}
		known.busy = s.State != bgagent.SessionIdle && s.State != bgagent.SessionUnknown
		known.behind = time.Time{}
	}
	if s.State == bgagent.SessionIdle && awaited == "" {
		f.c.drop(session)
	}
	f.c.mu.Unlock()
	if s.State != bgagent.SessionIdle {
		delete(f.failed, session)
		if question := f.c.asked(session); question != "" && s.State == bgagent.SessionBusy {
			s = bgagent.SessionStatus{State: bgagent.SessionAsking, Detail: question}
		}
		f.emit(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: session, Status: s})
		return
	}
	if awaited != "" {
		return
	}
	delete(f.whole, session)
	delete(f.full, session)
	for id, d := range f.views[session] {
		if m := d.msg.message(); final(&m) {
			delete(f.views[session], id) // the message was emitted and rarely changes afterwards
		}
	}
	if len(f.views[session]) == 0 {
		delete(f.views, session)
	}
	f.emit(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: session, Status: s})
}

// failure processes a session's error. The server often sends an error twice, the second time with
// a stack trace as the message. The second event is ignored. An abort is also ignored if the stream
// has not mentioned the current turn yet, because the abort then belongs to an earlier turn.
func (f *follower) failure(p eventProperties) {
	if p.Error == nil || p.SessionID == "" {
		return
	}
	stop, text := p.Error.stop()
	provider := p.Error.provider(time.Time{})
	if n := f.c.tries(p.SessionID); provider != nil && n > 0 {
		provider.Tries = n
	}
	if _, awaited := f.ours(p.SessionID); awaited != "" && stop == bgagent.StopAborted || f.failed[p.SessionID] {
		return
	}
	if len(f.failed) >= maxFailed {
		clear(f.failed)
	}
	f.failed[p.SessionID] = true
	f.flush(p.SessionID)
	f.emit(bgagent.HostEvent{Kind: bgagent.HostError, Session: p.SessionID, Stop: stop, Error: text, Provider: provider})
}

func (f *follower) deleted(p eventProperties) {
	if p.SessionID == "" {
		var info struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(p.Info, &info) != nil {
			return
		}
		p.SessionID = info.ID
	}
	delete(f.views, p.SessionID)
	delete(f.whole, p.SessionID)
	delete(f.full, p.SessionID)
	f.c.mu.Lock()
	f.c.drop(p.SessionID)
	f.c.mu.Unlock()
	f.emit(bgagent.HostEvent{Kind: bgagent.HostDeleted, Session: p.SessionID})
}
