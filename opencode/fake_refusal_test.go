package opencode_test

import (
	"strconv"
	"strings"
	"time"
)

// The method "refused" simulates a turn whose requests the model provider refuses.
func (t *fakeTurn) refused(id, verb, rest string) {
	count, words, _ := strings.Cut(rest, " ")
	n, _ := strconv.Atoi(count)
	if verb == "delayed" {
		t.delayed(id, n, words)
		return
	}
	t.limited(id, verb == "working", n, words)
}

// limitText is the provider's message.
const limitText = "Rate limit reached for scripted"

// The method "delayed" simulates a turn whose request is retried after some seconds.
func (t *fakeTurn) delayed(id string, seconds int, words string) {
	t.message(id)
	t.step(func() {
		t.f.setStatus(t.s, map[string]any{"type": "retry", "attempt": 1, "message": limitText, "next": t.f.now() + int64(seconds)*1000})
	})
	t.pause(time.Duration(seconds) * time.Second)
	t.step(func() { t.f.setStatus(t.s, map[string]any{"type": "busy"}) })
	t.text(words)
	t.end("stop")
}

// The method "limited" simulates a turn that is refused unless at least n earlier turns of the prompt were
// refused.
func (t *fakeTurn) limited(id string, works bool, n int, words string) {
	refused := 0
	t.step(func() {
		for _, m := range t.s.messages {
			if m.Info["parentID"] == id && m.Info["error"] != nil {
				refused++
			}
		}
	})
	for range 6 {
		if works && refused == 0 {
			t.message(id)
			t.toolDone(t.tool("bash"), "completed")
		}
	}
	if refused == n {
		t.say(id, words)
		return
	}
	t.message(id)
	t.step(func() {
		t.f.setStatus(t.s, map[string]any{"type": "retry", "attempt": 1, "message": limitText, "next": t.f.now() + 1000})
	})
	t.pause(time.Second)
	fault := map[string]any{"name": "APIError", "data": map[string]any{"message": limitText, "statusCode": 429, "isRetryable": true,
		"responseHeaders": map[string]any{"retry-after": "7"}, "responseBody": `{"error":{"code":"rate_limit_exceeded"}}`}}
	t.step(func() {
		t.f.emit(t.s.Directory, "session.error", map[string]any{"sessionID": t.s.ID, "error": fault})
		t.f.tellIdle(t.s.Directory, t.s.ID)
		t.m.Info["error"] = fault
		t.f.complete(t.s, t.m, "")
	})
}
