package opencode_test

import (
	"context"
	"maps"
	"strings"
	"time"
)

// The first word of a prompt is an instruction to the fake server's agent:
//
//	say WORDS       answers with the words
//	wait            writes some text and never ends
//	refuse          the model refuses with status 400
//	fail            the model fails with status 500, and the server repeats the request
//	use             calls a tool, then answers
//	run             calls a tool that never ends
//	todo            writes a todo list with an open entry
//	ask             asks for permission; the answer contains the reply
//	question        asks the user, without options
//	choose          asks the user, with the options A and B; the answer contains the reply
//	chooselike      asks the user, with options that look alike
//	ask2            asks for permission twice
//	length          is cut off by the model's token limit
//	recall          answers with the first prompt
//	full WORDS      answers with the words; then its context is compacted
//	midway WORDS    its context is compacted after a tool call; then answers with the words
//	copied WORDS    like midway, but the server prompts it with a copy of the prompt
//	endless         does not fit into its context, even after a compaction
//	dismissed       asks the user, and its turn ends because the question is dismissed
//	mute            works without writing anything
//	blank           begins a message and never writes text
//	limited N WORDS its first N turns are refused with status 429; answers with the words
//	delayed N WORDS its request is refused with status 429 and repeated after N seconds; answers with the words
//	working N WORDS calls six tools; then like limited
//	later WORDS     works for a minute, then answers with the words
//	nap WORDS       works for a second, then answers with the words
//	anything else   answers with the prompt

// prompt accepts any prompt. f.mu must be held.
func (f *fakeServer) prompt(s *fakeSession, body map[string]any) {
	agent, _ := body["agent"].(string)
	if agent == "" {
		agent = "build"
	}
	known := false
	for _, a := range f.agents {
		known = known || a == agent
	}
	if !known {
		f.fault(s, "UnknownError", `Agent not found: "`+agent+`". Available agents: `+strings.Join(f.agents, ", "))
		f.fault(s, "UnknownError", "UnknownError: UnknownError\n    at <anonymous> (chunk.js:1:1)")
		return
	}
	f.store(s, body, agent)
	if tools, ok := body["tools"].(map[string]any); ok { // tools replace the rules
		s.Permission = nil
		for name := range tools {
			s.Permission = append(s.Permission, map[string]any{"permission": name, "pattern": "*", "action": "deny"})
		}
	}
	id := body["messageID"].(string)
	switch noReply, _ := body["noReply"].(bool); {
	case noReply && (s.status == nil || f.passes):
		return
	case s.status != nil:
		s.queue = append(s.queue, id)
		return
	}
	if m, ok := body["model"].(map[string]any); ok && m["providerID"] != "scripted" {
		f.setStatus(s, map[string]any{"type": "busy"})
		f.fault(s, "UnknownError", "Model not found.")
		f.idle(s)
		f.fault(s, "UnknownError", "ProviderModelNotFoundError: Model not found.\n    at <anonymous> (chunk.js:1:1)")
		return
	}
	for _, m := range s.messages {
		if m.Info["parentID"] == id && m.Info["finish"] != nil && m.Info["finish"] != "tool-calls" { // a repeated prompt that was already answered does not start anything
			f.setStatus(s, map[string]any{"type": "busy"})
			f.idle(s)
			return
		}
	}
	s.queue = append(s.queue, id)
	s.turns++
	turn := s.turns
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.status = map[string]any{"type": "busy"}
	f.wg.Go(func() { f.turn(ctx, s, turn) })
}

// store stores the message of a prompt. If the session already has a message with the same id, new
// parts are added to the message, and parts with known ids replace the old parts.
func (f *fakeServer) store(s *fakeSession, body map[string]any, agent string) {
	id := body["messageID"].(string)
	m := s.message(id)
	if m == nil {
		m = &fakeMessage{row: f.now()<<12 + int64(f.ids)}
		s.messages = append(s.messages, m)
	}
	m.Info = map[string]any{"id": id, "sessionID": s.ID, "role": "user", "time": map[string]any{"created": f.now()}, "agent": agent}
	s.Agent, _ = m.Info["agent"].(string)
	f.emit(s.Directory, "message.updated", map[string]any{"sessionID": s.ID, "info": m.Info})
	for _, x := range body["parts"].([]any) {
		part := x.(map[string]any)
		part["sessionID"], part["messageID"] = s.ID, id
		if part["id"] == nil {
			part["id"] = f.id("prt")
		}
		f.part(s, m, part)
	}
}

// part sets a part of a message. f.mu must be held.
func (f *fakeServer) part(s *fakeSession, m *fakeMessage, part map[string]any) {
	found := false
	for i := range m.Parts {
		if m.Parts[i]["id"] == part["id"] {
			m.Parts[i], found = part, true
		}
	}
	if !found {
		m.Parts = append(m.Parts, part)
	}
	f.emit(s.Directory, "message.part.updated", map[string]any{"sessionID": s.ID, "part": part})
}

func (f *fakeServer) fault(s *fakeSession, name, text string) {
	f.emit(s.Directory, "session.error", map[string]any{"sessionID": s.ID, "error": map[string]any{"name": name, "data": map[string]any{"message": text}}})
}

func (f *fakeServer) setStatus(s *fakeSession, status map[string]any) {
	s.status = status
	f.emit(s.Directory, "session.status", map[string]any{"sessionID": s.ID, "status": status})
}

func (f *fakeServer) idle(s *fakeSession) {
	s.status = nil
	if s.deleted {
		delete(f.sessions, s.ID)
	}
	f.tellIdle(s.Directory, s.ID)
}

func (f *fakeServer) tellIdle(dir, id string) {
	f.emit(dir, "session.status", map[string]any{"sessionID": id, "status": map[string]any{"type": "idle"}})
	f.emit(dir, "session.idle", map[string]any{"sessionID": id})
}

// abort stops a session's turn. As in opencode, the end-of-turn events are emitted before the abort
// request is answered, and the turn's message changes only 20 ms later. f.mu must be held.
func (f *fakeServer) abort(id string) {
	s := f.sessions[id]
	if s == nil || s.status == nil {
		f.tellIdle("/work", id)
		return
	}
	s.turns++
	s.cancel()
	s.queue, s.cancel = nil, nil
	retried := s.status["type"] == "retry"
	if !retried {
		f.fault(s, "MessageAbortedError", "Aborted")
	}
	f.idle(s)
	last := s.messages[len(s.messages)-1]
	if last.Info["role"] != "assistant" {
		return
	}
	f.wg.Go(func() {
		time.Sleep(20 * time.Millisecond)
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, p := range last.Parts {
			if state, ok := p["state"].(map[string]any); ok {
				state["status"] = "completed"
			}
			f.part(s, last, p)
		}
		if !retried {
			last.Info["error"] = map[string]any{"name": "MessageAbortedError", "data": map[string]any{"message": "Aborted"}}
		}
		f.complete(s, last, "")
		f.tellIdle(s.Directory, s.ID)
	})
}

// complete ends a message. f.mu must be held.
func (f *fakeServer) complete(s *fakeSession, m *fakeMessage, finish string) {
	m.Info["time"] = map[string]any{"created": m.Info["time"].(map[string]any)["created"], "completed": f.now()}
	if finish != "" {
		m.Info["finish"] = finish
		m.Info["tokens"] = map[string]any{"input": 10, "output": 2, "reasoning": 0, "cache": map[string]any{"read": 0, "write": 0}}
	}
	f.emit(s.Directory, "message.updated", map[string]any{"sessionID": s.ID, "info": m.Info})
}

// fakeTurn is one turn of the fake's agent.
type fakeTurn struct {
	f    *fakeServer
	ctx  context.Context
	s    *fakeSession
	turn int
	m    *fakeMessage
}

// step calls g with the server's lock held, unless the turn was aborted. It reports whether it
// called g.
func (t *fakeTurn) step(g func()) bool {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	if t.s.turns != t.turn {
		return false
	}
	g()
	return true
}

func (t *fakeTurn) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.ctx.Done():
	}
}

// turn simulates one turn, which answers the queued prompts one after the other.
func (f *fakeServer) turn(ctx context.Context, s *fakeSession, turn int) {
	t := &fakeTurn{f: f, ctx: ctx, s: s, turn: turn}
	t.pause(20 * time.Millisecond)
	if !t.step(func() { f.setStatus(s, map[string]any{"type": "busy"}) }) {
		return
	}
	for {
		var text, id string
		more := false
		if !t.step(func() {
			if more = len(s.queue) > 0; more {
				if t.f.gathers {
					s.queue = s.queue[len(s.queue)-1:]
				}
				id = s.queue[0]
				text, _ = s.message(id).Parts[0]["text"].(string)
				s.queue = s.queue[1:]
			} else {
				f.idle(s)
			}
		}) || !more {
			return
		}
		t.answer(id, text)
		t.pause(10 * time.Millisecond)
	}
}

// The method "message" begins a message from the agent. It returns false if the turn was aborted.
func (t *fakeTurn) message(parent string) bool {
	return t.step(func() {
		t.m = &fakeMessage{row: t.f.now()<<12 + int64(t.f.ids), Info: map[string]any{
			"id": t.f.id("msg"), "sessionID": t.s.ID, "role": "assistant", "parentID": parent, "time": map[string]any{"created": t.f.now()},
		}}
		t.s.messages = append(t.s.messages, t.m)
		t.f.emit(t.s.Directory, "message.updated", map[string]any{"sessionID": t.s.ID, "info": t.m.Info})
	})
}

// text writes a text word by word.
func (t *fakeTurn) text(text string) {
	var part map[string]any
	t.step(func() {
		part = map[string]any{"id": t.f.id("prt"), "sessionID": t.s.ID, "messageID": t.m.Info["id"], "type": "text", "text": ""}
		t.f.part(t.s, t.m, part)
	})
	for _, word := range strings.SplitAfter(text, " ") {
		t.pause(5 * time.Millisecond)
		t.step(func() {
			part["text"] = part["text"].(string) + word
			t.f.emit(t.s.Directory, "message.part.delta", map[string]any{
				"sessionID": t.s.ID, "messageID": t.m.Info["id"], "partID": part["id"], "field": "text", "delta": word,
			})
		})
	}
}

func (t *fakeTurn) tool(name string) (part map[string]any) {
	t.step(func() {
		part = map[string]any{"id": t.f.id("prt"), "sessionID": t.s.ID, "messageID": t.m.Info["id"], "type": "tool",
			"callID": "call_1", "tool": name, "state": map[string]any{"status": "running", "input": map[string]any{}}}
		t.f.part(t.s, t.m, part)
	})
	return part
}

func (t *fakeTurn) toolDone(part map[string]any, state string) {
	t.step(func() {
		part["state"] = map[string]any{"status": state}
		t.f.part(t.s, t.m, part)
		t.f.complete(t.s, t.m, "tool-calls")
	})
}

// The method "end" ends the message and emits its whole text.
func (t *fakeTurn) end(finish string) {
	t.step(func() {
		for _, p := range t.m.Parts {
			t.f.part(t.s, t.m, p)
		}
		t.f.complete(t.s, t.m, finish)
	})
}

func (t *fakeTurn) say(parent, text string) {
	if t.message(parent) {
		t.text(text)
		t.end("stop")
	}
}

// ownMessage stores a message that opencode itself writes, and returns the message's id. The message has
// one part.
func (t *fakeTurn) ownMessage(role string, part map[string]any) (id string) {
	t.step(func() {
		id = t.f.id("msg")
		m := &fakeMessage{row: t.f.now()<<12 + int64(t.f.ids), Info: map[string]any{"id": id, "sessionID": t.s.ID, "role": role, "time": map[string]any{"created": t.f.now()}}}
		if role == "assistant" {
			m.Info["summary"], m.Info["mode"] = true, "compaction"
		}
		t.s.messages = append(t.s.messages, m)
		t.f.emit(t.s.Directory, "message.updated", map[string]any{"sessionID": t.s.ID, "info": m.Info})
		part["id"], part["sessionID"], part["messageID"] = t.f.id("prt"), t.s.ID, id
		t.f.part(t.s, m, part)
		if role == "assistant" {
			t.f.complete(t.s, m, "stop")
		}
	})
	return id
}

// compact simulates a compaction of the context.
func (t *fakeTurn) compact(overflow string) {
	t.pause(10 * time.Millisecond)
	t.ownMessage("user", map[string]any{"type": "compaction", "auto": true, "overflow": overflow != ""})
	t.ownMessage("assistant", map[string]any{"type": "text", "text": "a summary"})
	t.pause(10 * time.Millisecond)
}

// askSelf stores the prompt with which opencode makes the agent continue after a compaction.
func (t *fakeTurn) askSelf() (id string) {
	return t.ownMessage("user", map[string]any{"type": "text", "synthetic": true, "metadata": map[string]any{"compaction_continue": true}, "text": "Continue if you have next steps"})
}

// askAgain stores a copy of a prompt, as opencode does for a prompt that did not fit into the
// context.
func (t *fakeTurn) askAgain(id string) string {
	copied := map[string]any{}
	t.step(func() { copied = maps.Clone(t.s.message(id).Parts[0]) })
	return t.ownMessage("user", copied)
}

// answer follows the instruction in one prompt.
func (t *fakeTurn) answer(id, text string) {
	verb, rest, _ := strings.Cut(text, " ")
	switch verb {
	case "say":
		t.say(id, rest)
	case "wait":
		t.message(id)
		t.text("I wait for ever")
		<-t.ctx.Done()
	case "nothing":
		t.message(id)
		t.end("stop")
	case "length":
		t.message(id)
		t.text("so far and no")
		t.end("length")
	case "refuse":
		t.message(id)
		t.step(func() {
			t.f.fault(t.s, "APIError", "refused as told")
			t.f.tellIdle(t.s.Directory, t.s.ID)
			t.m.Info["error"] = map[string]any{"name": "APIError", "data": map[string]any{"message": "refused as told", "statusCode": 400}}
			t.f.complete(t.s, t.m, "")
		})
	case "fail":
		t.message(id)
		for n := 1; t.ctx.Err() == nil; n++ {
			t.step(func() {
				t.f.setStatus(t.s, map[string]any{"type": "retry", "attempt": n, "message": "boom", "next": t.f.now() + 2000})
			})
			t.pause(2 * time.Second)
		}
	case "limited", "working", "delayed":
		t.refused(id, verb, rest)
	case "use", "todo":
		t.message(id)
		part := t.tool("bash")
		t.pause(10 * time.Millisecond)
		if verb == "todo" {
			t.step(func() {
				t.s.todos = []map[string]string{{"content": "later", "status": "pending"}, {"content": "done", "status": "completed"}}
				t.f.emit(t.s.Directory, "todo.updated", map[string]any{"sessionID": t.s.ID, "todos": t.s.todos})
			})
		}
		t.toolDone(part, "completed")
		t.say(id, "used")
	case "run":
		t.message(id)
		t.tool("bash")
		<-t.ctx.Done()
	case "ask", "ask2", "askearly", "question", "dismissed", "choose", "chooselike":
		t.ask(id, verb)
	case "full":
		t.say(id, rest)
		t.compact("")
		t.say(t.askSelf(), "there was nothing left to do")
	case "midway", "copied":
		t.message(id)
		t.toolDone(t.tool("bash"), "completed")
		t.compact("")
		next := id
		if verb == "copied" {
			next = t.askAgain(id)
		} else {
			next = t.askSelf()
		}
		t.say(next, rest)
	case "endless":
		for next := id; t.ctx.Err() == nil; next = t.askSelf() {
			t.message(next)
			t.pause(time.Second)
			t.end("")
			t.compact("overflow")
		}
	case "mute":
		<-t.ctx.Done()
	case "blank":
		t.message(id)
		<-t.ctx.Done()
	case "later", "nap":
		t.message(id)
		part := t.tool("bash")
		t.pause(map[string]time.Duration{"later": time.Minute, "nap": time.Second}[verb])
		t.toolDone(part, "completed")
		t.say(id, rest)
	case "recall":
		t.say(id, t.s.messages[0].Parts[0]["text"].(string))
	default:
		t.say(id, "echo: "+text)
	}
}
