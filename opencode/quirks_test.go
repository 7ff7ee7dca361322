package opencode_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
)

var none bgagent.Config

func TestNoticesGoOnlyIntoAnIdleSession(t *testing.T) {
	for _, silent := range []bool{false, true} {
		bubble(t, opencode.Config{SilentNotices: silent}, none, func(t *testing.T, r *rig) {
			require.NoError(t, r.c.StartTurn(t.Context(), r.root, prompt("bgp_1", "wait")))
			seconds(1)
			for range 3 {
				require.ErrorIs(t, r.c.Notify(t.Context(), r.root, notice("bgn_1")), bgagent.ErrBusy)
			}
			assert.Len(t, r.f.sent(), 1, "a notice was sent to a busy session")
			require.NoError(t, r.c.Abort(t.Context(), r.root))
			seconds(1)
			require.NoError(t, r.c.Notify(t.Context(), r.root, notice("bgn_1")))
			seconds(1)
			want := []string{"> wait", "I wait for ever", "> a task has ended", "echo: a task has ended"}
			if silent {
				want = want[:3]
			}
			assert.Equal(t, want, r.texts(r.root))
		})
	}
}

func TestTheParentIsToldWhenItFallsIdle(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		require.NoError(t, r.c.StartTurn(t.Context(), r.root, prompt("bgp_1", "wait")))
		seconds(1)
		task := r.wait(r.launch("say done"))
		assert.Equal(t, "done", task.Result)
		seconds(30)
		assert.Len(t, r.texts(r.root), 2, "the busy parent was notified")
		require.NoError(t, r.c.Abort(t.Context(), r.root))
		time.Sleep(100 * time.Millisecond) // the pause is shorter than the time to the next poll
		got := r.texts(r.root)
		require.GreaterOrEqual(t, len(got), 3)
		assert.Contains(t, got[2], "done")
		seconds(60)
		assert.Equal(t, 4, len(r.texts(r.root)), "told once, and answered: %q", r.texts(r.root))
		assert.Equal(t, bgagent.NoticeDelivered, r.wait(task).Notice)
	})
}

func TestANoticeIsForTheAgentAndTheModelOfItsSession(t *testing.T) {
	bubble(t, opencode.Config{Model: "scripted/nested/name"}, none, func(t *testing.T, r *rig) {
		require.NoError(t, r.c.Notify(t.Context(), r.root, notice("bgn_1")))
		body := r.f.sent()[0]
		assert.Equal(t, "build", body["agent"])
		assert.Equal(t, map[string]any{"providerID": "scripted", "modelID": "nested/name"}, body["model"])
	})
}

func TestNoticeToAnotherHostsSessionIsNoSession(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		for _, id := range []string{"ses_missing", "a scope", ""} {
			assert.ErrorIs(t, r.c.Notify(t.Context(), id, notice("bgn_1")), bgagent.ErrNoSession)
			assert.ErrorIs(t, r.c.StartTurn(t.Context(), id, prompt("bgp_1", "say x")), bgagent.ErrNoSession)
			_, err := r.c.Messages(t.Context(), id, "", 10)
			assert.ErrorIs(t, err, bgagent.ErrNoSession)
			_, err = r.c.Todos(t.Context(), id)
			assert.ErrorIs(t, err, bgagent.ErrNoSession)
			assert.NoError(t, r.c.Abort(t.Context(), id))
		}
	})
}

func TestCancelledInTheMiddleKeepsItsTextAndCanBeResumed(t *testing.T) {
	for _, script := range []string{"wait", "run", "fail"} {
		bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
			task := r.under(r.launch(script))
			_, err := r.m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
			require.NoError(t, err)
			task = r.wait(task)
			assert.Equal(t, bgagent.Cancelled, task.Status)
			if script == "wait" {
				assert.Equal(t, "I wait for ever", task.Result)
			}
			require.NoError(t, r.m.Quiet(t.Context(), task.ID))
			assert.Equal(t, bgagent.SessionIdle, r.state(task.Session))
			_, err = r.m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "say again"})
			require.NoError(t, err)
			task = r.wait(task)
			assert.Equal(t, bgagent.Completed, task.Status, task.Reason)
			assert.Equal(t, "again", task.Result)
		})
	}
}

func TestAbortedInItsOwnWindowIsCancelledAndNoAnswer(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		r.f.do(func() { r.f.abort(task.Session) })
		task = r.wait(task)
		assert.Equal(t, bgagent.Cancelled, task.Status, task.Reason)
		assert.True(t, task.Partial)
	})
}

func TestDeleteStopsWhatRunsFirst(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		parent := r.session("")
		child, err := r.c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker", Parent: parent})
		require.NoError(t, err)
		for _, id := range []string{parent, child} {
			require.NoError(t, r.c.StartTurn(t.Context(), id, prompt("bgp_"+id, "wait")))
		}
		seconds(1)
		require.NoError(t, r.c.Delete(t.Context(), parent))
		for _, id := range []string{parent, child} {
			_, err := r.c.FindSession(t.Context(), id)
			assert.ErrorIs(t, err, bgagent.ErrNoSession)
			assert.Equal(t, bgagent.SessionGone, r.state(id))
		}
		assert.NoError(t, r.c.Delete(t.Context(), parent), "deleting again")
		assert.NoError(t, r.c.Delete(t.Context(), "ses_missing"))
	})
}

func TestADeletedSessionEndsItsTaskAtOnce(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		began := time.Now()
		r.f.do(func() { r.f.remove(r.f.sessions[task.Session]) })
		task = r.wait(task)
		assert.Equal(t, bgagent.Cancelled, task.Status)
		assert.Less(t, time.Since(began), time.Second)
	})
}

func TestUnknownAgentIsRefusedByNameWithThoseThereAre(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task, err := r.m.Launch(t.Context(), bgagent.Caller{Session: r.root}, bgagent.LaunchInput{Agent: "wroker", Prompt: "say x"})
		require.NoError(t, err)
		task = r.wait(task)
		assert.Equal(t, bgagent.Failed, task.Status)
		assert.Equal(t, `starting: there is no agent "wroker"; there are: build, worker, explore`, task.Reason)
		assert.Zero(t, r.count("POST", "prompt_async"))
	})
}

func TestAnAgentThatVanishedFailsItsTaskByTheErrorEvent(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		r.wait(r.launch("say x")) // makes the client remember the agent
		r.f.do(func() { r.f.agents = []string{"build"} })
		began := time.Now()
		task := r.wait(r.launch("say y"))
		assert.Equal(t, bgagent.Failed, task.Status)
		assert.Contains(t, task.Reason, `Agent not found: "worker"`)
		assert.NotContains(t, task.Reason, "<anonymous>")
		assert.Less(t, time.Since(began), 5*time.Second)
	})
}

func TestUnknownModelIsRefusedWithThoseThereAre(t *testing.T) {
	for model, want := range map[string]string{
		"scripted/none": `there is no model "scripted/none" on the opencode server; its provider scripted has: nested/name, scripted`,
		"other/none":    `there is no provider "other" on the opencode server for the model "other/none"; there are: scripted`,
		"bare":          `the model "bare" should be written provider/model`,
	} {
		bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
			task, err := r.m.Launch(t.Context(), bgagent.Caller{Session: r.root}, bgagent.LaunchInput{Agent: "worker", Prompt: "say x", Model: model})
			require.NoError(t, err)
			task = r.wait(task)
			assert.Equal(t, bgagent.Failed, task.Status)
			assert.Contains(t, task.Reason, want)
		})
	}
	fallback := bgagent.Config{
		Model:    func(string, string) (string, error) { return "scripted/none", nil },
		Fallback: map[string][]string{"scripted/none": {"other/none", "scripted/nested/name"}},
	}
	bubble(t, opencode.Config{}, fallback, func(t *testing.T, r *rig) {
		task := r.wait(r.launch("say x"))
		assert.Equal(t, bgagent.Completed, task.Status, task.Reason)
		assert.Equal(t, "scripted/nested/name", task.Model)
		assert.Contains(t, task.Fallback, `there is no provider "other"`)
	})
}

func TestAVanishedDirectoryIsRefusedWithASentence(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		for dir, want := range map[string]string{"/vanished/work": `cannot read the directory "/vanished/work": create it there`, "work": "is not an absolute path"} {
			task, err := r.m.Launch(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "worker", Prompt: "say x", Directory: dir})
			require.NoError(t, err)
			assert.Contains(t, r.wait(task).Reason, want)
		}
	})
}

func TestARefusingModelFailsTheTaskWithItsReason(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		began := time.Now()
		task := r.wait(r.launch("refuse"))
		assert.Equal(t, bgagent.Failed, task.Status)
		assert.Contains(t, task.Reason, "refused as told")
		assert.Less(t, time.Since(began), time.Second)
	})
}

func TestAFailingModelIsShownAsRetriedAndWhen(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("fail"))
		got, err := r.c.Statuses(t.Context(), []string{task.Session})
		require.NoError(t, err)
		s := got[task.Session]
		assert.Equal(t, bgagent.SessionRetrying, s.State)
		assert.Equal(t, "boom", s.Detail)
		assert.InDelta(t, 2, time.Until(s.RetryAt).Seconds(), 2)
		task, err = r.m.Get(task.ID)
		require.NoError(t, err)
		assert.Equal(t, "boom", task.Progress.Detail)
	})
}

func TestATurnThatACrashCutOffIsInterruptedAndCanBeResumed(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		r.f.crash()
		seconds(20) // a status that is unknown to the client does not end the task
		got, err := r.m.Get(task.ID)
		require.NoError(t, err)
		assert.Equal(t, bgagent.Running, got.Status)
		r.f.restart()
		began := time.Now()
		task = r.wait(task)
		assert.Equal(t, bgagent.Failed, task.Status)
		assert.Equal(t, bgagent.CauseInterrupted, task.Cause, task.Reason)
		assert.Equal(t, "I wait for ever", task.Result)
		assert.Less(t, time.Since(began), 15*time.Second)
		_, err = r.m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "say again"})
		require.NoError(t, err)
		assert.Equal(t, "again", r.wait(task).Result)
	})
}

func TestAnAnswerCutOffByTheModelsLimitIsNoResult(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.wait(r.launch("length"))
		assert.Equal(t, bgagent.Failed, task.Status)
		assert.Equal(t, bgagent.CauseLength, task.Cause)
		assert.Equal(t, "so far and no", task.Result)
	})
}

func TestStatusesAreAskedForInEachDirectory(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		here, there, idle := r.session("/work"), r.session("/elsewhere"), r.session("/elsewhere")
		for _, id := range []string{here, there} {
			require.NoError(t, r.c.StartTurn(t.Context(), id, prompt("bgp_"+id, "wait")))
		}
		seconds(1)
		other := newClient(t, opencode.Config{HTTPClient: r.f.client()}) // a client that does not know any directories
		for _, c := range []*opencode.Client{r.c, other, other} {
			got, err := c.Statuses(t.Context(), []string{here, there, idle, "ses_missing", "a scope"})
			require.NoError(t, err)
			assert.Equal(t, map[string]bgagent.SessionStatus{
				here: {State: bgagent.SessionBusy}, there: {State: bgagent.SessionBusy}, idle: {State: bgagent.SessionIdle},
				"ses_missing": {State: bgagent.SessionGone}, "a scope": {State: bgagent.SessionGone},
			}, got)
		}
	})
}

func TestWhatOneDirectoryDoesNotTellIsUnknownAndTheRestIsTold(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		here, there := r.session("/work"), r.session("/elsewhere")
		r.f.intercept(func(req *http.Request) *http.Response {
			if req.URL.Path == "/session/status" && req.URL.Query().Get("directory") == "/elsewhere" {
				return answer(http.StatusInternalServerError, `{"name":"UnknownError","data":{"message":"no"}}`)
			}
			return nil
		})
		got, err := r.c.Statuses(t.Context(), []string{here, there})
		require.NoError(t, err)
		assert.Equal(t, map[string]bgagent.SessionStatus{here: {State: bgagent.SessionIdle}}, got)
		_, err = r.c.Statuses(t.Context(), []string{there})
		assert.ErrorContains(t, err, "500")
	})
}

func TestAWebPageIsNoAnswerToAnything(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		page := func(suffix string, do func() error) {
			t.Helper()
			r.f.intercept(func(req *http.Request) *http.Response {
				if strings.HasSuffix(req.URL.Path, suffix) && !(req.Method == http.MethodGet && req.URL.Path == "/session/"+id) {
					return answer(http.StatusOK, "<!doctype html><title>login</title>")
				}
				return nil
			})
			assert.ErrorContains(t, do(), "that is not an opencode server", suffix)
		}
		page("/prompt_async", func() error { return r.c.StartTurn(t.Context(), id, prompt("bgp_a.1.1", "say one")) })
		assert.Empty(t, r.f.sent())
		r.f.intercept(nil)
		require.NoError(t, r.c.StartTurn(t.Context(), id, prompt("bgp_a.1.1", "say one")))
		seconds(1)
		page("/message/"+r.f.lastMessage(), func() error { return r.c.StartTurn(t.Context(), id, prompt("bgp_a.1.1", "say one")) })
		page("/abort", func() error { return r.c.Abort(t.Context(), id) })
		page("/"+id, func() error { return r.c.Delete(t.Context(), id) })
		page("/"+id, func() error { // sets the rules
			p := prompt("bgp_a.2.1", "say two")
			p.Permissions = []bgagent.Permission{{Name: "edit", Pattern: "*", Action: bgagent.PermissionDeny}}
			return r.c.StartTurn(t.Context(), id, p)
		})
	})
}

func TestAPromptSentAgainIsOneMessageAndOneTurn(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		p := prompt("bgp_a.1.1", "say once")
		lose := true
		r.f.intercept(func(req *http.Request) *http.Response {
			if lose && strings.HasSuffix(req.URL.Path, "/prompt_async") {
				lose = false
				resp, err := r.f.RoundTrip(req) // the request is processed, but its answer is lost
				require.NoError(t, err)
				require.Equal(t, http.StatusNoContent, resp.StatusCode)
				return answer(http.StatusBadGateway, "")
			}
			return nil
		})
		require.Error(t, r.c.StartTurn(t.Context(), id, p))
		require.NoError(t, r.c.StartTurn(t.Context(), id, p))
		seconds(1)
		require.NoError(t, r.c.StartTurn(t.Context(), id, p))
		// Another process does not remember the prompt, but finds its message.
		require.NoError(t, newClient(t, opencode.Config{HTTPClient: r.f.client()}).StartTurn(t.Context(), id, p))
		seconds(1)
		assert.Equal(t, []string{"> say once", "once"}, r.texts(id))
		assert.Len(t, r.f.sent(), 1)
		assert.Equal(t, "bgp_a.1.1", r.messages(id)[0].PromptID)
	})
}

func TestAPromptThatNeverArrivedIsSentAgain(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		p := prompt("bgp_a.1.1", "say once")
		r.f.do(func() { r.f.down = true })
		require.Error(t, r.c.StartTurn(t.Context(), id, p))
		r.f.do(func() { r.f.down = false })
		require.NoError(t, r.c.StartTurn(t.Context(), id, p))
		seconds(1)
		assert.Equal(t, []string{"> say once", "once"}, r.texts(id))
	})
}

// Some versions of the server never run a message that sorts before an older message, and
// repeatedly run a message that sorts after its own answer.
func TestIdsOfMessagesSortByTheServersClock(t *testing.T) {
	for _, skew := range []time.Duration{0, -time.Hour, time.Hour} {
		bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
			r.f.do(func() { r.f.skew = skew })
			id := r.session("")
			for _, word := range []string{"one", "two", "three"} {
				require.NoError(t, r.c.StartTurn(t.Context(), id, prompt("bgp_"+word, "say "+word)))
				seconds(1)
			}
			msgs := r.messages(id)
			require.Len(t, msgs, 6)
			for i, m := range msgs {
				assert.Regexp(t, `^msg_[0-9a-f]{12}[0-9A-Za-z]{14}$`, m.ID)
				if i > 0 {
					assert.Less(t, msgs[i-1].ID, m.ID, "message %d", i)
				}
			}
			assert.Equal(t, strings.Replace(msgs[2].ID, "msg_", "prt_", 1), r.f.sent()[1]["parts"].([]any)[0].(map[string]any)["id"])
		})
	}
}

func TestAPromptWaitsForTheAnswerOfAnAbort(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		require.NoError(t, r.c.StartTurn(t.Context(), id, prompt("bgp_1", "wait")))
		seconds(1)
		let := make(chan struct{})
		r.f.intercept(func(req *http.Request) *http.Response {
			if strings.HasSuffix(req.URL.Path, "/abort") {
				<-let
			}
			return nil
		})
		aborted, prompted := make(chan error, 1), make(chan error, 1)
		go func() { aborted <- r.c.Abort(t.Context(), id) }()
		seconds(1)
		go func() { prompted <- r.c.StartTurn(t.Context(), id, prompt("bgp_2", "say after")) }()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.ErrorIs(t, r.c.StartTurn(short, id, prompt("bgp_3", "say never")), context.DeadlineExceeded)
		assert.Len(t, r.f.sent(), 1, "a prompt overtook the abort")
		close(let)
		require.NoError(t, <-aborted)
		require.NoError(t, <-prompted)
		seconds(1)
		assert.Equal(t, []string{"> wait", "I wait for ever", "> say after", "after"}, r.texts(id))
	})
}

func TestLateEventsOfAnAbortedTurnDoNotEndTheNextOne(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		require.NoError(t, r.c.StartTurn(t.Context(), id, prompt("bgp_1", "wait")))
		seconds(1)
		// No event about the abort is delivered before the next prompt is sent.
		r.f.intercept(func(req *http.Request) *http.Response {
			if strings.HasSuffix(req.URL.Path, "/prompt_async") {
				r.f.do(func() {
					s := r.f.sessions[id]
					r.f.fault(s, "MessageAbortedError", "Aborted")
					r.f.idle(s)
					r.f.idle(s)
				})
				seconds(1)
			}
			return nil
		})
		require.NoError(t, r.c.Abort(t.Context(), id))
		seconds(1)
		before := len(r.told(id, bgagent.HostError)) + len(r.told(id, bgagent.HostStatus))
		require.NoError(t, r.c.StartTurn(t.Context(), id, prompt("bgp_2", "wait")))
		seconds(1)
		var states []bgagent.SessionState
		for _, e := range r.told(id, bgagent.HostStatus) {
			states = append(states, e.Status.State)
		}
		assert.Len(t, r.told(id, bgagent.HostError), 1, "only the first turn has an error")
		assert.Equal(t, bgagent.SessionBusy, states[len(states)-1])
		assert.Equal(t, before+1, len(states)+1, "only the new turn's busy status was emitted: %v", states)
	})
}

func TestCheckSaysWhatToDo(t *testing.T) {
	hang := func(req *http.Request) *http.Response { <-req.Context().Done(); return nil }
	says := func(status int, body string) func(*http.Request) *http.Response {
		return func(*http.Request) *http.Response { return answer(status, body) }
	}
	for name, c := range map[string]struct {
		down     bool
		password string
		prefix   func(*http.Request) *http.Response
		want     string
	}{
		"unreachable":    {down: true, want: `start it with "opencode serve", or correct opencode.Config.URL`},
		"wrong password": {password: "secret", want: "set opencode.Config.Password (and Username) to the server's OPENCODE_SERVER_PASSWORD"},
		"a web page":     {prefix: says(200, "<html>hello</html>"), want: "that is not an opencode server"},
		"other JSON":     {prefix: says(200, `{"ok":true}`), want: "that is not an opencode server"},
		"not found":      {prefix: says(404, "404 page not found"), want: "that is not an opencode server"},
		"not well":       {prefix: says(200, `{"healthy":false}`), want: "is not healthy"},
		"hangs":          {prefix: hang, want: "it might still be starting, or it might hang"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, opencode.Config{Password: "wrong"}, none, func(t *testing.T, r *rig) {
				r.f.do(func() { r.f.down, r.f.password, r.f.prefix = c.down, c.password, c.prefix })
				began := time.Now()
				_, err := r.c.Check(t.Context())
				assert.ErrorContains(t, err, c.want)
				assert.LessOrEqual(t, time.Since(began), 10*time.Second)
				var se *opencode.ServerError
				assert.True(t, errors.As(err, &se) || name == "not well")
				_, err = r.c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker"})
				if name != "not well" && name != "other JSON" {
					assert.ErrorContains(t, err, c.want, "a start reports the same error")
				}
			})
		})
	}
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		version, err := r.c.Check(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "fake", version)
	})
}
