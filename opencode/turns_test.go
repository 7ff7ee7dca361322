package opencode_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
)

// A session can be idle even though its newest message has the finish reason "tool-calls". This
// happens if the user rejects a permission request without a message in opencode's own window, or
// if the server is killed between two requests to the model.
func TestIdleAfterToolCallsIsNoAnswer(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		r.f.do(func() {
			s := r.f.sessions[task.Session]
			m := s.messages[len(s.messages)-1]
			s.turns++ // stops the turn
			s.cancel()
			r.f.part(s, m, map[string]any{"id": "prt_x", "sessionID": s.ID, "messageID": m.Info["id"], "type": "tool", "callID": "c", "tool": "bash", "state": map[string]any{"status": "error"}})
			r.f.complete(s, m, "tool-calls")
			r.f.idle(s)
		})
		seconds(30)
		task = r.wait(task)
		assert.NotEqual(t, bgagent.Completed, task.Status, "result %q", task.Result)
	})
}

// The parent session belongs to a user, and the manager only sends notices to it. When the turn that answers
// a notice has ended, the session must be reported as idle.
func TestAUsersSessionIsToldIdleAfterANotice(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		other := newClient(t, opencode.Config{HTTPClient: r.f.client()})
		users, err := other.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "build", Directory: "/work"})
		require.NoError(t, err)
		r.root = users
		r.wait(r.launch("say one"))
		seconds(10)
		require.Len(t, r.texts(users), 2)
		require.NoError(t, other.StartTurn(t.Context(), users, prompt("bgp_1", "wait")))
		seconds(1)
		r.wait(r.launch("say two"))
		seconds(3)
		require.Len(t, r.texts(users), 4)
		time.Sleep(200 * time.Millisecond)
		require.NoError(t, other.Abort(t.Context(), users))
		seconds(1) // the notice is delivered, and its turn is over
		idle := false
		for _, e := range r.told(users, bgagent.HostStatus) {
			idle = e.Status.State == bgagent.SessionIdle
		}
		assert.True(t, idle, "the last status of the session is idle: %v", r.told(users, bgagent.HostStatus))
	})
}
