package opencode_test

import (
	"fmt"
	"strings"
	"time"
)

// fakeAsk is an open question of the fake server.
type fakeAsk struct {
	dir    string
	body   map[string]any
	answer chan map[string]any
}

// ask asks for permission or asks the user a question, and waits for the reply. If the turn is
// aborted, the server still lists the question, as opencode does.
func (t *fakeTurn) ask(id, verb string) {
	t.message(id)
	part := t.tool("bash")
	text := t.asks(part, verb)
	if verb == "ask2" && text != "" {
		text += ", " + t.asks(part, verb)
	}
	if t.ctx.Err() != nil {
		t.f.do(func() { part["state"] = map[string]any{"status": "error", "error": "Tool execution aborted"} })
		return
	}
	if verb == "dismissed" {
		t.step(func() {
			part["tool"] = "question"
			part["state"] = map[string]any{"status": "error", "error": "The user dismissed this question", "input": map[string]any{"questions": questions(verb)}}
			t.f.part(t.s, t.m, part)
			t.f.complete(t.s, t.m, "tool-calls")
		})
		return
	}
	t.toolDone(part, "error")
	t.say(id, strings.TrimSpace(text))
}

func questions(verb string) []any {
	q := map[string]any{"question": "which one?"}
	switch verb {
	case "choose":
		q["options"] = []any{map[string]any{"label": "A", "description": "the first"}, map[string]any{"label": "B"}}
	case "chooselike":
		q["options"] = []any{map[string]any{"label": "A b"}, map[string]any{"label": "A\u200b b"}, map[string]any{"label": "A  b"}}
	}
	return []any{q}
}

// The method "asks" lets the agent ask one question, and returns what the agent says about the reply.
func (t *fakeTurn) asks(part map[string]any, verb string) string {
	a := &fakeAsk{dir: t.s.Directory, answer: make(chan map[string]any, 1)}
	kind, prefix := "question", "que"
	if strings.HasPrefix(verb, "ask") {
		kind, prefix = "permission", "per"
	}
	t.step(func() {
		a.body = map[string]any{
			"id": t.f.id(prefix), "sessionID": t.s.ID, "permission": "bash", "patterns": []string{"rm -rf /"}, "metadata": map[string]any{"command": "rm -rf /"},
			"questions": questions(verb), "tool": map[string]any{"messageID": t.m.Info["id"], "callID": part["callID"]},
		}
		if verb == "askearly" { // the server does not have the call's input yet
			a.body["metadata"] = map[string]any{}
			part["state"] = map[string]any{"status": "pending", "input": map[string]any{}}
		}
		t.f.asks[a.body["id"].(string)] = a
		t.f.emit(t.s.Directory, kind+".asked", a.body)
	})
	if verb == "askearly" {
		t.pause(500 * time.Millisecond)
		t.step(func() {
			part["state"] = map[string]any{"status": "running", "input": map[string]any{"path": "/etc/passwd"}}
			t.f.part(t.s, t.m, part)
		})
	}
	select {
	case reply := <-a.answer:
		t.step(func() {
			t.f.emit(t.s.Directory, kind+".replied", map[string]any{"sessionID": t.s.ID, "requestID": a.body["id"]})
		})
		if list, ok := reply["answers"]; ok {
			return fmt.Sprint("chose ", list)
		}
		text, _ := reply["reply"].(string)
		why, _ := reply["message"].(string)
		return "replied " + text + " " + why
	case <-t.ctx.Done():
		return ""
	}
}
