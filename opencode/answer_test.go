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

// streams executes a test with a stream, without a stream, and with a stream that drops again and
// again. Emitted messages and stored messages must lead to the same result.
func streams(t *testing.T, test func(t *testing.T, r *rig)) {
	for name, prepare := range map[string]func(*rig){
		"told": func(*rig) {},
		"read": func(r *rig) { r.f.do(func() { r.f.mute = true }); r.f.breakStreams(); time.Sleep(time.Second) },
		"both": func(r *rig) {
			go func() {
				for range 40 {
					time.Sleep(37 * time.Millisecond)
					r.f.breakStreams()
				}
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
				prepare(r)
				test(t, r)
				time.Sleep(3 * time.Second)
			})
		})
	}
}

func TestAnAnswerBeforeACompactionIsTheResult(t *testing.T) {
	streams(t, func(t *testing.T, r *rig) {
		task := r.wait(r.launch("full the answer"))
		assert.Equal(t, bgagent.Completed, task.Status, task.Reason)
		assert.Equal(t, "the answer", task.Result)
		for _, m := range r.messages(task.Session) {
			if m.Text == "there was nothing left to do" {
				assert.Equal(t, bgagent.RoleOther, m.Role)
			}
		}
		// The agent answers the next prompt as usual.
		_, err := r.m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "say more"})
		require.NoError(t, err)
		assert.Equal(t, "more", r.wait(task).Result)
	})
}

func TestAnAnswerAfterACompactionInTheMiddleOfTheWorkIsTheResult(t *testing.T) {
	for _, script := range []string{"midway the answer", "copied the answer"} {
		streams(t, func(t *testing.T, r *rig) {
			task := r.wait(r.launch(script))
			assert.Equal(t, bgagent.Completed, task.Status, task.Reason)
			assert.Equal(t, "the answer", task.Result)
			assert.Equal(t, 1, task.Progress.ToolCalls)
		})
	}
}

func TestAnInputThatNeverFitsEndsTheTaskAndIsStopped(t *testing.T) {
	for _, muted := range []bool{false, true} {
		bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
			if muted {
				r.f.do(func() { r.f.mute = true })
				r.f.breakStreams()
				seconds(1)
			}
			began := time.Now()
			task := r.wait(r.launch("endless"))
			assert.Equal(t, bgagent.CauseTooLong, task.Cause, task.Reason)
			assert.Equal(t, "the input is too long for the model: opencode has compacted the session twice in a row without an answer or a tool call", task.Reason)
			assert.Less(t, time.Since(began), 40*time.Second)
			require.NoError(t, r.m.Quiet(t.Context(), task.ID))
			assert.Equal(t, bgagent.SessionIdle, r.state(task.Session))
			n := len(r.messages(task.Session))
			seconds(10)
			assert.Len(t, r.messages(task.Session), n, "the turn continues")
			_, err := r.m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "say short"})
			require.NoError(t, err)
			task = r.wait(task)
			assert.Equal(t, bgagent.Completed, task.Status, task.Reason)
			assert.Equal(t, "short", task.Result)
		})
	}
}

func TestTheReasonNamesTheQuestionThatNobodyAnswers(t *testing.T) {
	streams(t, func(t *testing.T, r *rig) {
		task := r.wait(r.launch("dismissed"))
		assert.Equal(t, bgagent.Failed, task.Status)
		assert.Contains(t, task.Reason, `it asked the user "which one?"`)
	})
}

func TestARejectedPermissionThatEndsATurnIsNamed(t *testing.T) {
	const list = `[{"info":{"id":"msg_1","role":"assistant","time":{"created":1,"completed":2},"finish":"tool-calls"},"parts":[
		{"type":"tool","id":"prt_1","tool":"bash","state":{"status":"error","error":"The user rejected permission to use this specific tool call."}}]}]`
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		r.serves(r.root, list)
		m := r.messages(r.root)[0]
		assert.Equal(t, bgagent.StopError, m.Stop)
		assert.Contains(t, m.Error, "bash")
		r.serves(r.root, strings.Replace(list, "The user rejected", "no such file: ", 1))
		assert.Equal(t, bgagent.StopToolCalls, r.messages(r.root)[0].Stop, "the agent goes on after a tool that failed")
	})
}

func TestAServerThatWasKilledBeforeAnyOutputLeavesAnInterruptedTask(t *testing.T) {
	for _, muted := range []bool{false, true} {
		for _, stored := range []bool{true, false} {
			bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
				if muted {
					r.f.do(func() { r.f.mute = true })
					r.f.breakStreams()
					seconds(1)
				}
				task := r.under(r.launch("mute"))
				r.f.crash()
				if !stored {
					r.f.do(func() { r.f.sessions[task.Session].messages = nil })
				}
				seconds(5)
				r.f.restart()
				task = r.wait(task)
				assert.Equal(t, bgagent.Failed, task.Status)
				assert.Equal(t, bgagent.CauseInterrupted, task.Cause, task.Reason)
				assert.Contains(t, task.Reason, "the opencode server was unreachable")
			})
		}
	}
}

func TestATurnThatOutlivesAnOutageIsNotInterrupted(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("wait"))
		r.f.do(func() { r.f.down = true }) // the network fails, not the server
		r.f.breakStreams()
		seconds(10)
		r.f.do(func() { r.f.down = false })
		seconds(20)
		got, err := r.m.Get(task.ID)
		require.NoError(t, err)
		assert.Equal(t, bgagent.Running, got.Status, got.Reason)
	})
}

func TestAnAbortDuringARetryIsACancellation(t *testing.T) {
	streams(t, func(t *testing.T, r *rig) {
		task := r.under(r.launch("fail"))
		r.f.do(func() { r.f.abort(task.Session) }) // as a user does in opencode's own window
		task = r.wait(task)
		assert.Equal(t, bgagent.Cancelled, task.Status, task.Reason)
	})
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.under(r.launch("fail"))
		require.NoError(t, r.c.Abort(t.Context(), task.Session)) // as the host does
		task = r.wait(task)
		assert.Equal(t, bgagent.Cancelled, task.Status, task.Reason)
	})
}

func TestADirectoryThatWasRemovedIsRefused(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		in := bgagent.LaunchInput{Agent: "worker", Prompt: "say x", Directory: "/somewhere"}
		task, err := r.m.Launch(t.Context(), bgagent.Caller{}, in)
		require.NoError(t, err)
		assert.Equal(t, bgagent.Completed, r.wait(task).Status)
		r.f.intercept(func(req *http.Request) *http.Response { // answers as the server does after the directory is removed
			if req.URL.Path == "/file" && req.URL.Query().Get("directory") == "/somewhere" {
				return answer(http.StatusInternalServerError, `{"name":"UnknownError","data":{"message":"Unexpected server error."}}`)
			}
			return nil
		})
		again, err := r.m.Launch(t.Context(), bgagent.Caller{}, in)
		require.NoError(t, err)
		got := r.wait(again)
		assert.Equal(t, bgagent.Failed, got.Status)
		assert.Contains(t, got.Reason, `cannot read the directory "/somewhere"`)
		_, err = r.m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "say y"})
		require.NoError(t, err)
		assert.Contains(t, r.wait(task).Reason, `cannot read the directory "/somewhere"`)
	})
}

func TestARefusedCompactionEndsTheTurnUnlessItHasAnAnswer(t *testing.T) {
	const (
		asks     = `{"info":{"id":"msg_1","role":"user","time":{"created":1}},"parts":[{"type":"text","text":"do it"}]},`
		answers  = `{"info":{"id":"msg_2","role":"assistant","time":{"created":1,"completed":2},"finish":"stop"},"parts":[{"type":"text","text":"done"}]},`
		compacts = `{"info":{"id":"msg_3","role":"user","time":{"created":1}},"parts":[{"type":"compaction"}]},`
		goes     = `{"info":{"id":"msg_4","role":"user","time":{"created":1}},"parts":[{"type":"text","text":"Continue","synthetic":true,"metadata":{"compaction_continue":true}}]},`
		refused  = `"time":{"created":1,"completed":2},"error":{"name":"APIError","data":{"message":"Overloaded","statusCode":529,"isRetryable":true}}},"parts":[]}`
		summary  = `{"info":{"id":"msg_5","role":"assistant","summary":true,` + refused
		agent    = `{"info":{"id":"msg_5","role":"assistant",` + refused
	)
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		for list, ends := range map[string]bool{
			asks + compacts + summary:           true,
			asks + answers + compacts + summary: false,
			asks + answers + goes + agent:       false,
		} {
			r.serves(r.root, "["+list+"]")
			all := r.messages(r.root)
			last := all[len(all)-1]
			require.True(t, last.Finished)
			if ends {
				require.Equal(t, bgagent.RoleAgent, last.Role)
				require.Equal(t, bgagent.StopError, last.Stop)
				require.Equal(t, bgagent.ProviderOverloaded, last.Provider.Kind)
				continue
			}
			require.Equal(t, bgagent.Message{ID: "msg_5", Role: bgagent.RoleOther, Finished: true, Time: time.UnixMilli(1)}, last)
		}
	})
}
