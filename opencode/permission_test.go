package opencode_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
)

func TestPermissionQuestionsAreRejectedWithAReason(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		began := time.Now()
		task := r.wait(r.launch("ask"))
		assert.Equal(t, bgagent.Completed, task.Status, task.Reason)
		assert.Contains(t, task.Result, "replied reject This was not allowed: nobody was asked: the host does not answer questions of its tasks (Config.Ask is not set). Go on without it")
		assert.Less(t, time.Since(began), time.Second)
	})
}

func TestQuestionsToTheUserAreDeclined(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		began := time.Now()
		assert.Equal(t, bgagent.Completed, r.wait(r.launch("question")).Status)
		assert.Less(t, time.Since(began), time.Second)
	})
}

func TestThePolicyOfTheHostAnswers(t *testing.T) {
	for want, policy := range map[string]func(context.Context, opencode.PermissionRequest) opencode.PermissionReply{
		"replied once": func(_ context.Context, q opencode.PermissionRequest) opencode.PermissionReply {
			return opencode.PermissionReply{Allow: q.Permission == "bash" && q.Patterns[0] == "rm -rf /" && q.Session == q.Task}
		},
		"replied always": func(context.Context, opencode.PermissionRequest) opencode.PermissionReply {
			return opencode.PermissionReply{Allow: true, Always: true}
		},
		"replied reject not today": func(context.Context, opencode.PermissionRequest) opencode.PermissionReply {
			return opencode.PermissionReply{Reason: "not today"}
		},
		"replied reject This was not allowed: the program that decides about it failed.": func(context.Context, opencode.PermissionRequest) opencode.PermissionReply {
			panic("no idea")
		},
		"replied reject This was not allowed: the program that decides about it failed": func(context.Context, opencode.PermissionRequest) opencode.PermissionReply {
			runtime.Goexit()
			return opencode.PermissionReply{Allow: true}
		},
	} {
		bubble(t, opencode.Config{Permission: policy}, none, func(t *testing.T, r *rig) {
			assert.Contains(t, r.wait(r.launch("ask")).Result, want)
		})
	}
}

func TestATaskAsksUntilItsLastQuestionIsAnswered(t *testing.T) {
	leave := func(context.Context, opencode.PermissionRequest) opencode.PermissionReply {
		return opencode.PermissionReply{Leave: true}
	}
	c := newClient(t, opencode.Config{Permission: leave})
	var last bgagent.SessionStatus
	emit := func(e bgagent.HostEvent) { last = e.Status }
	opencode.Tell(c, emit)
	f := opencode.NewFollower(c, emit, "ses_1")
	event := func(kind, properties string) {
		opencode.Event(f, t.Context(), []byte(`{"directory":"/w","payload":{"type":"`+kind+`","properties":`+properties+`}}`))
	}
	for _, id := range []string{"1", "2", "3"} {
		event("permission.asked", `{"id":"per_`+id+`","sessionID":"ses_1","permission":"bash","patterns":["ls `+id+`"]}`)
	}
	asking := func(what string) bgagent.SessionStatus {
		return bgagent.SessionStatus{State: bgagent.SessionAsking, Detail: "may I: bash " + what}
	}
	event("permission.replied", `{"requestID":"per_1","sessionID":"ses_1"}`)
	assert.Equal(t, asking("ls 2"), last, "the oldest open question")
	event("permission.replied", `{"requestID":"per_3","sessionID":"ses_1"}`)
	assert.Equal(t, asking("ls 2"), last)
	event("permission.replied", `{"requestID":"per_2","sessionID":"ses_1"}`)
	assert.Equal(t, bgagent.SessionStatus{State: bgagent.SessionBusy}, last)
	opencode.Down(f)
}

func TestATaskIsShownAsAskingWhileTheHostDecides(t *testing.T) {
	for _, leave := range []bool{false, true} {
		policy := func(ctx context.Context, _ opencode.PermissionRequest) opencode.PermissionReply {
			if !leave {
				select {
				case <-time.After(time.Hour / 3):
				case <-ctx.Done():
				}
			}
			return opencode.PermissionReply{Allow: true, Leave: leave}
		}
		bubble(t, opencode.Config{Permission: policy}, none, func(t *testing.T, r *rig) {
			task := r.under(r.launch("ask"))
			assert.Equal(t, bgagent.PhaseAsking, task.Phase)
			assert.Equal(t, "may I: bash rm -rf /", task.Progress.Detail)
			assert.Equal(t, bgagent.SessionAsking, r.state(task.Session))
			seconds(600) // a task that asks does not become stale
			if leave {   // the user answers in opencode's own window
				r.f.do(func() {
					for id, a := range r.f.asks {
						delete(r.f.asks, id)
						a.answer <- map[string]any{"reply": "once"}
					}
				})
				time.Sleep(50 * time.Millisecond)
			}
			task = r.wait(task)
			assert.Equal(t, "replied once", task.Result)
		})
	}
}

func TestPoliciesEndWithTheirQuestionAndWithClose(t *testing.T) {
	ended := make(chan time.Time, 8)
	policy := func(ctx context.Context, _ opencode.PermissionRequest) opencode.PermissionReply {
		<-ctx.Done()
		ended <- time.Now()
		return opencode.PermissionReply{Allow: true}
	}
	bubble(t, opencode.Config{Permission: policy}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("ask"))
		_, err := r.m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		seconds(1)
		assert.Len(t, ended, 1, "only the question of the aborted turn has ended")
		r.under(r.launch("ask"))
	})
	assert.Len(t, ended, 2, "Close ends the other question")
}

func TestQuestionsOfAChildsOwnChildrenAreItsOwn(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		// Below the task's session, the test starts sessions that no manager knows, as opencode's own task
		// tool does.
		var grandchild string
		r.f.do(func() {
			_, s, _ := r.f.create("/work", map[string]any{"parentID": task.Session})
			_, s, _ = r.f.create("/work", map[string]any{"parentID": s.(*fakeSession).ID})
			grandchild = s.(*fakeSession).ID
			r.f.prompt(s.(*fakeSession), map[string]any{"agent": "worker", "messageID": "msg_1", "parts": []any{map[string]any{"type": "text", "text": "ask"}}})
		})
		seconds(1)
		texts := r.texts(grandchild)
		assert.Contains(t, texts[len(texts)-1], "replied reject This was not allowed: nobody was asked")
	})
}

func TestQuestionsOfOtherSessionsAreLeftToTheirUsers(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		r.f.do(func() {
			_, s, _ := r.f.create("/work", nil)
			r.f.prompt(s.(*fakeSession), map[string]any{"agent": "worker", "messageID": "msg_1", "parts": []any{map[string]any{"type": "text", "text": "ask"}}})
		})
		seconds(60)
		r.f.do(func() { assert.Len(t, r.f.asks, 1) })
		assert.Zero(t, r.count("POST", "/permission/"))
	})
}

func TestAQuestionAskedWhileTheStreamWasDownIsFound(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		r.f.do(func() { r.f.mute = true })
		task := r.launch("ask")
		time.Sleep(200 * time.Millisecond)
		r.f.do(func() { r.f.mute = false })
		r.f.breakStreams()
		assert.Contains(t, r.wait(task).Result, "replied reject")
	})
}

func TestRulesAreThoseOfTheSessionAtEveryTurn(t *testing.T) {
	deny := []bgagent.Permission{{Name: "edit", Pattern: "*.go", Action: bgagent.PermissionDeny}}
	rule := func(name, pattern, action string) map[string]any {
		return map[string]any{"permission": name, "pattern": pattern, "action": action}
	}
	bubble(t, opencode.Config{Tools: map[string]bool{"task": false, "question": true}}, bgagent.Config{Permissions: deny}, func(t *testing.T, r *rig) {
		task := r.wait(r.launch("say x"))
		want := []map[string]any{rule("question", "*", "allow"), rule("task", "*", "deny"), rule("delegate_task", "*", "deny"), rule("edit", "*.go", "deny")}
		assert.Equal(t, want, r.rules(task.Session))
		_, err := r.m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "say y"})
		require.NoError(t, err)
		r.wait(task)
		assert.Equal(t, want, r.rules(task.Session), "given once")
		for _, body := range r.f.sent() {
			assert.NotContains(t, body, "tools", "tools would replace the rules")
		}
		// Another process with stricter rules resumes the session.
		other := newClient(t, opencode.Config{HTTPClient: r.f.client()})
		p := prompt("bgp_2", "say z")
		p.Permissions = []bgagent.Permission{{Name: "bash", Action: bgagent.PermissionAsk}}
		for range 2 {
			require.NoError(t, other.StartTurn(t.Context(), task.Session, p))
			seconds(1)
		}
		assert.Equal(t, append(want, rule("bash", "*", "ask")), r.rules(task.Session))
	})
}
