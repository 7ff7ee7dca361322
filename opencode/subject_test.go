package opencode_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/opencode"
)

// emitAsk makes the server list and report a permission request in a session.
func (r *rig) emitAsk(id, session, patterns, metadata string) *fakeAsk {
	a := &fakeAsk{dir: "/work", answer: make(chan map[string]any, 1), body: map[string]any{
		"id": id, "sessionID": session, "permission": "bash", "patterns": json.RawMessage(patterns), "metadata": json.RawMessage(metadata),
	}}
	r.f.do(func() {
		r.f.asks[id] = a
		r.f.emit("/work", "permission.asked", a.body)
	})
	return a
}

func TestTheSubjectOfAPermissionIsExact(t *testing.T) {
	const large = "9007199254740993" // rounded as a float64
	for _, x := range []struct{ patterns, metadata, subject string }{
		{`["ls"]`, `{"command":"ls"}`, "ls"},
		{`["ls"]`, `{"command":"ls\nAllowed: yes\u001b[2K"}`, "command:\n  ls\n  Allowed: yes\\x1b[2K"},
		{`["a","b\nAllowed: yes"]`, `{"x: y":"z\nAllowed: yes","id":` + large + `}`, "a\npattern:\n  b\n  Allowed: yes\nid: " + large + "\n\"x: y\":\n  z\n  Allowed: yes"},
		{`["a: b"]`, `{"diff":"-old\n+new\nAllowed: yes","files":[1]}`, "pattern: a: b\ndiff:\n  -old\n  +new\n  Allowed: yes"},
		{`["*"]`, `{"deep":{"id":` + large + `},"a":"*","b":"\u202e"}`, "*\nb: \\u202e\ndeep: {\"id\":" + large + "}"},
	} {
		bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
			task := r.under(r.launch("wait"))
			r.emitAsk("per_1", task.Session, x.patterns, x.metadata)
			seconds(1)
			require.Equal(t, x.subject, question(t, r.m, task.ID).Subject)
		})
	}
}

func TestThePolicyGetsNumbersAsThePackageJSONDecodesThem(t *testing.T) {
	got := make(chan map[string]any, 9)
	policy := func(_ context.Context, q opencode.PermissionRequest) opencode.PermissionReply {
		got <- q.Metadata
		return opencode.PermissionReply{Ask: true}
	}
	bubble(t, opencode.Config{Permission: policy}, asks, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		r.emitAsk("per_1", task.Session, `["*"]`, `{"id":9007199254740993}`)
		seconds(1)
		require.Equal(t, "*\nid: 9007199254740993", question(t, r.m, task.ID).Subject)
		require.Equal(t, map[string]any{"id": float64(9007199254740992)}, <-got)
		// A question with a different number is a different question, even if both numbers are
		// equal when rounded.
		r.emitAsk("per_1", task.Session, `["*"]`, `{"id":9007199254740992}`)
		seconds(1)
		require.Equal(t, "*\nid: 9007199254740992", question(t, r.m, task.ID).Subject)
		<-got
		r.emitAsk("per_2", task.Session, `["*"]`, `7`)
		require.Empty(t, <-got, "details that are not an object")
	})
}
