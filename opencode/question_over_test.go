package opencode_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
)

// A late event, or a list that was requested before the question was answered, does not reopen an
// answered question.
func TestAnAnsweredQuestionIsNotOpenAgain(t *testing.T) {
	for _, end := range []string{"answered", "answered in the window", "answered while unknown", "no longer listed", "the turn ended without an event"} {
		bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
			task := r.under(r.launch("wait"))
			ask := func() { r.emitAsk("per_1", task.Session, `["ls"]`, `{"command":"ls"}`) }
			replied := func() {
				r.f.do(func() {
					delete(r.f.asks, "per_1")
					r.f.emit("/work", "permission.replied", map[string]any{"sessionID": task.Session, "requestID": "per_1"})
				})
			}
			if end != "answered while unknown" {
				ask()
				seconds(1)
				question(t, r.m, task.ID)
			}
			switch end {
			case "answered":
				option(t, r.m, task.ID, question(t, r.m, task.ID), "allow once")
			case "no longer listed":
				r.f.do(func() { delete(r.f.asks, "per_1") })
				r.f.breakStreams()
			case "the turn ended without an event":
				r.f.do(func() { r.f.mute = true })
				_, err := r.m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
				require.NoError(t, err)
				_, err = r.m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "wait"})
				require.NoError(t, err)
				seconds(5)
				r.f.do(func() { r.f.mute = false })
				r.f.breakStreams()
			default:
				replied()
			}
			seconds(10)
			posts := r.count("POST", "/permission/")
			ask() // the event is late, and the server lists the question again
			seconds(1)
			r.f.breakStreams()
			seconds(30)
			got, err := r.m.Get(task.ID)
			require.NoError(t, err)
			assert.Empty(t, got.Questions, end)
			assert.Equal(t, bgagent.SessionBusy, r.state(task.Session), "%s: it does not seem to ask", end)
			assert.Equal(t, posts, r.count("POST", "/permission/"), end)
		})
	}
}

// notFollowed makes the server refuse to send events.
func (r *rig) notFollowed(refused bool) {
	r.f.intercept(func(req *http.Request) *http.Response {
		if refused && req.URL.Path == "/global/event" {
			return answer(http.StatusBadRequest, "{}")
		}
		return nil
	})
	r.f.breakStreams()
}

func TestAQuestionWaitsUntilTheEventsAreFollowedAgain(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		r.notFollowed(true)
		seconds(1)
		task := r.launch("ask")
		seconds(120)
		r.notFollowed(false)
		seconds(120)
		option(t, r.m, task.ID, question(t, r.m, task.ID), "allow once")
		assert.Equal(t, "replied once", r.wait(task).Result)
	})
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) { // nobody follows the events of this client
		c := newClient(t, opencode.Config{HTTPClient: r.f.client()})
		id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker", Directory: "/work"})
		require.NoError(t, err)
		require.NoError(t, c.StartTurn(t.Context(), id, prompt("", "ask")))
		seconds(1)
		_, err = c.Statuses(t.Context(), []string{id})
		require.NoError(t, err)
		said := func() string {
			list := r.messages(id)
			return list[len(list)-1].Text
		}
		seconds(9 * 60)
		require.NotContains(t, said(), "replied")
		seconds(2 * 60)
		require.Contains(t, said(), "replied reject This was not allowed: nobody can be asked, because the events of the server cannot be followed.")
		require.NoError(t, c.Close())
	})
}

// A server that has no route for one of the lists can answer with a page or with an error.
func TestAListThatCannotBeReadDoesNotHideTheOther(t *testing.T) {
	for name, refused := range map[string]func() *http.Response{
		"a page":   func() *http.Response { return answer(http.StatusOK, "<html>") },
		"an error": func() *http.Response { return answer(http.StatusInternalServerError, "{}") },
		"no route": func() *http.Response { return answer(http.StatusNotFound, "{}") },
	} {
		for prompt, path := range map[string]string{"ask": "/question", "choose": "/permission"} {
			if prompt == "choose" && name != "an error" {
				continue // every server has a route for permissions
			}
			bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
				r.f.intercept(func(req *http.Request) *http.Response {
					if req.Method == http.MethodGet && req.URL.Path == path {
						return refused()
					}
					return nil
				})
				r.f.do(func() { r.f.mute = true })
				task := r.launch(prompt)
				time.Sleep(200 * time.Millisecond)
				r.f.do(func() { r.f.mute = false })
				r.f.breakStreams()
				seconds(10)
				q := question(t, r.m, task.ID)
				r.f.breakStreams()
				seconds(60)
				require.Equal(t, q.Key, question(t, r.m, task.ID).Key, "a list that was not read does not end the question")
				option(t, r.m, task.ID, q, q.Options[0])
				assert.Equal(t, bgagent.Completed, r.wait(task).Status, name)
			})
		}
	}
}

// If the server cannot show the tool call that asks a question, the agent must not wait forever.
func TestACallThatTheServerDoesNotShowIsRefused(t *testing.T) {
	bubble(t, opencode.Config{}, asks, func(t *testing.T, r *rig) {
		r.f.intercept(func(req *http.Request) *http.Response {
			if strings.Contains(req.URL.Path, "/message/msg_") {
				return answer(http.StatusBadRequest, `{"name":"BadRequest","data":{}}`)
			}
			return nil
		})
		task := r.launch("askearly")
		seconds(60)
		assert.Contains(t, r.wait(task).Result, "replied reject This was not allowed: the details of the request are not known.")
	})
}
