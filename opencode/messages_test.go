package opencode_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/calldigest"
	"github.com/bgagent/bgagent/opencode"
)

// The method "serves" makes the fake server answer requests for a session's messages with the given list.
func (r *rig) serves(session string, messages string) {
	r.f.intercept(func(req *http.Request) *http.Response {
		if req.URL.Path == "/session/"+session+"/message" {
			return answer(http.StatusOK, messages)
		}
		return nil
	})
}

func TestHowAMessageEndedIsReadFromErrorAndFinish(t *testing.T) {
	said := `"parts":[{"type":"text","id":"prt_1","text":"hi"}]`
	info := func(rest string) string {
		return `[{"info":{"id":"msg_1","role":"assistant","time":{"created":1000` + rest + `},` + said + `}]`
	}
	for rest, want := range map[string]bgagent.Message{
		`}`:                                         {},
		`,"completed":2}`:                           {Finished: true, Stop: bgagent.StopInterrupted},
		`,"completed":2},"finish":"stop"`:           {Finished: true, Stop: bgagent.StopEndOfTurn},
		`,"completed":2},"finish":"other"`:          {Finished: true, Stop: bgagent.StopEndOfTurn},
		`},"finish":"stop"`:                         {},
		`,"completed":2},"finish":"tool-calls"`:     {Finished: true, Stop: bgagent.StopToolCalls},
		`,"completed":2},"finish":"length"`:         {Finished: true, Stop: bgagent.StopLength},
		`,"completed":2},"finish":"content-filter"`: {Finished: true, Stop: bgagent.StopRefused},
		`,"completed":2},"finish":"error"`:          {Finished: true, Stop: bgagent.StopError, Error: "the model ended with an error"},
		`},"error":{"name":"MessageAbortedError","data":{"message":"Aborted"}}`:                   {Finished: true, Stop: bgagent.StopAborted, Error: "Aborted"},
		`},"error":{"name":"MessageOutputLengthError","data":{}}`:                                 {Finished: true, Stop: bgagent.StopLength, Error: "MessageOutputLengthError"},
		`},"error":{"name":"ContentFilterError","data":{"message":"no"}}`:                         {Finished: true, Stop: bgagent.StopRefused, Error: "no"},
		`,"completed":2},"error":{"name":"APIError","data":{"message":"bad\n    at x (y.js:1)"}}`: {Finished: true, Stop: bgagent.StopError, Error: "bad"},
	} {
		bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
			r.serves(r.root, info(rest))
			want.ID, want.Role, want.Text, want.Time = "msg_1", bgagent.RoleAgent, "hi", time.UnixMilli(1000)
			assert.Equal(t, []bgagent.Message{want}, r.messages(r.root), rest)
		})
	}
}

func TestWhatIsInAMessage(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		const list = `[
			{"info":{"id":"msg_1","role":"user","time":{"created":1},"summary":{"diffs":[]}},"parts":[{"type":"text","text":"do it","metadata":{"bgagent":"bgp_1","other":7}},{"type":"text","text":"hidden","ignored":true},{"type":"file"}]},
			{"info":{"id":"msg_2","role":"assistant","time":{"created":1,"completed":2},"finish":"tool-calls","cost":0.5,"tokens":{"input":3,"output":4,"cache":{"read":5,"write":6}}},"parts":[
				{"type":"step-start"},{"type":"reasoning","text":"hm"},{"type":"text","text":"one"},{"type":"text","text":"two"},
				{"type":"tool","id":"prt_a","callID":"call_1","tool":"bash","state":{"status":"running","input":{}}},
				{"type":"tool","id":"prt_b","callID":"call_1","tool":"edit","state":{"status":"error"}},
				{"type":"of-a-later-version"}]},
			{"info":{"id":"msg_3","role":"user","time":{"created":1}},"parts":[{"type":"compaction"}]},
			{"info":{"id":"msg_4","role":"assistant","summary":true,"time":{"created":1,"completed":2},"finish":"stop"},"parts":[{"type":"text","text":"so far"}]},
			{"info":{"id":"msg_5","role":"of-a-later-version"}}]`
		r.serves(r.root, strings.Replace(list, `{"type":"of-a-later-version"}`, `{"type":"of-a-later-version","state":"odd"}`, 1))
		at := time.UnixMilli(1)
		assert.Equal(t, []bgagent.Message{
			{ID: "msg_1", Role: bgagent.RoleUser, PromptID: "bgp_1", Text: "do it", Finished: true, Time: at},
			{ID: "msg_2", Role: bgagent.RoleAgent, Text: "one\n\ntwo", Reasoning: "hm", Finished: true, Stop: bgagent.StopToolCalls, Time: at,
				Tools: []bgagent.MessageTool{{ID: "prt_a", Name: "bash", State: bgagent.ToolRunning, Input: calldigest.Input([]byte("{}"))}, {ID: "prt_b", Name: "edit", State: bgagent.ToolFailed}},
				Usage: bgagent.Usage{InputTokens: 14, OutputTokens: 4, Cost: 0.5}},
			{ID: "msg_3", Role: bgagent.RoleOther, Finished: true, Time: at},
			{ID: "msg_4", Role: bgagent.RoleOther, Text: "so far", Finished: true, Time: at},
			{ID: "msg_5", Role: bgagent.RoleOther},
		}, r.messages(r.root))
	})
}

// Opencode puts the name of a new file into each long result. The digest must not depend on this name.
func TestEqualToolCallsHaveEqualDigests(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		var parts []string
		for _, state := range []string{
			`{"status":"completed","input":{"command":"ls"},"output":"...output truncated...\n\nFull output saved to: /tool_1\n\n9","metadata":{"exit":0,"outputPath":"/tool_1"}}`,
			`{"status":"completed","input":{"command":"ls"},"output":"...output truncated...\n\nFull output saved to: /tool_2\n\n9","metadata":{"exit":0,"outputPath":"/tool_2"}}`,
			`{"status":"completed","input":{"command":"ls"},"output":"...output truncated...\n\nFull output saved to: /tool_3\n\n9","metadata":{"exit":1}}`,
			`{"status":"completed","input":{"command":"pwd"},"output":"8","metadata":{}}`,
			`{"status":"error","input":{"command":"ls"},"error":"no"}`,
			`{"status":"error","input":{"command":"ls"},"error":"no"}`,
			`{"status":"completed","input":{"command":"ls"}}`,
			`{"status":"error","input":5}`,
		} {
			parts = append(parts, `{"type":"tool","id":"prt_`+strconv.Itoa(len(parts))+`","tool":"bash","state":`+state+`}`)
		}
		r.serves(r.root, `[{"info":{"id":"msg_2","role":"assistant","time":{"created":1,"completed":2},"finish":"tool-calls"},"parts":[`+strings.Join(parts, ",")+`]}]`)
		calls := r.messages(r.root)[0].Tools
		require.Len(t, calls, len(parts))
		same := func(i, j int) bool { return calls[i].Input == calls[j].Input && calls[i].Result == calls[j].Result }
		assert.True(t, same(0, 1))
		assert.False(t, same(0, 2))
		assert.False(t, same(0, 3))
		assert.False(t, same(0, 4))
		assert.True(t, same(4, 5))
		for i, call := range calls {
			assert.NotZero(t, call.Input, i)
			assert.Equal(t, i < 6, call.Result != 0, i)
		}
	})
}

// fill stores n turns in a session. Each turn has a prompt and an answer.
func (r *rig) fill(session string, from, n int) {
	r.f.do(func() {
		s := r.f.sessions[session]
		for i := from; i < from+n; i++ {
			for _, role := range []string{"user", "assistant"} {
				m := &fakeMessage{row: int64(2*i + len(role)), Info: map[string]any{"id": r.f.id("msg"), "sessionID": session, "role": role,
					"time": map[string]any{"created": 1, "completed": 2}, "finish": "stop"},
					Parts: []map[string]any{{"id": r.f.id("prt"), "type": "text", "text": fmt.Sprint(role, i)}}}
				m.row = int64(len(s.messages))
				s.messages = append(s.messages, m)
			}
		}
	})
}

func TestReadingOnCostsWhatIsNew(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		r.fill(id, 0, 500)
		page, err := r.c.Messages(t.Context(), id, "", 2000)
		require.NoError(t, err)
		require.Len(t, page.Messages, 1000)
		assert.Less(t, len(page.Next), 400, "a cursor does not grow with the session")
		cursor := page.Next
		r.fill(id, 500, 1)
		before := r.count("GET", id+"/message")
		page, err = r.c.Messages(t.Context(), id, cursor, 100)
		require.NoError(t, err)
		assert.Len(t, page.Messages, 2)
		assert.Equal(t, before+1, r.count("GET", id+"/message"))
		// From here on, there are more new messages than fit on one page of the server.
		r.fill(id, 501, 200)
		got := 0
		for cursor = page.Next; ; cursor = page.Next {
			page, err = r.c.Messages(t.Context(), id, cursor, 150)
			require.NoError(t, err)
			got += len(page.Messages)
			if !page.More {
				break
			}
		}
		assert.Equal(t, 400, got)
	})
}

func TestAChangeOfAnEndedMessageIsReturned(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		r.fill(id, 0, 10)
		page, err := r.c.Messages(t.Context(), id, "", 100)
		require.NoError(t, err)
		r.f.do(func() { // this is how an abort changes a message after the session has become idle
			s := r.f.sessions[id]
			s.messages[len(s.messages)-1].Info["error"] = map[string]any{"name": "MessageAbortedError", "data": map[string]any{"message": "Aborted"}}
		})
		page, err = r.c.Messages(t.Context(), id, page.Next, 100)
		require.NoError(t, err)
		require.Len(t, page.Messages, 1)
		assert.Equal(t, bgagent.StopAborted, page.Messages[0].Stop)
	})
}

func TestAMessageThatIsNeverFinishedDoesNotHoldTheCursorBack(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		r.fill(id, 0, 1)
		r.f.do(func() { r.f.sessions[id].messages[1].Info["time"] = map[string]any{"created": 1} })
		page, err := r.c.Messages(t.Context(), id, "", 1000)
		require.NoError(t, err)
		for i := range 20 {
			r.fill(id, 1+10*i, 10)
			page, err = r.c.Messages(t.Context(), id, page.Next, 1000)
			require.NoError(t, err)
			assert.Len(t, page.Messages, 20)
		}
		assert.Less(t, len(page.Next), 4000)
		before := r.count("GET", id+"/message")
		_, err = r.c.Messages(t.Context(), id, page.Next, 1000)
		require.NoError(t, err)
		assert.Equal(t, before+1, r.count("GET", id+"/message"))
	})
}

func TestMessagesTakenBackDoNotReturnTheOthersAgain(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		r.fill(id, 0, 20)
		page, err := r.c.Messages(t.Context(), id, "", 100)
		require.NoError(t, err)
		r.f.do(func() {
			s := r.f.sessions[id]
			s.messages = slices.Clone(s.messages[:20])
		})
		r.fill(id, 20, 1)
		page, err = r.c.Messages(t.Context(), id, page.Next, 100)
		require.NoError(t, err)
		assert.Len(t, page.Messages, 2)
	})
}

func TestACursorOfAnotherClientIsRefused(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		for _, cursor := range []bgagent.Cursor{"17", "2||", "1|msg_1|msg_2", "1|msg_1|msg_2=zz", "1|msg_1|=1", "1|a|b|c"} {
			_, err := r.c.Messages(t.Context(), r.root, cursor, 10)
			assert.ErrorContains(t, err, "is not a cursor of this client", "%q", cursor)
		}
	})
}

func TestForgettingASessionFreesItAndDoesNotLoseIt(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		task := r.wait(r.launch("say one"))
		r.c.ForgetSession(task.Session)
		assert.Equal(t, bgagent.SessionIdle, r.state(task.Session))
		require.NoError(t, r.c.StartTurn(t.Context(), task.Session, prompt("bgp_x", "say two")))
		seconds(1)
		assert.Equal(t, []string{"> say one", "one", "> say two", "two"}, r.texts(task.Session))
	})
}

func TestManyForeignSessionsAreNotRememberedForEver(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		for range 10000 {
			r.f.do(func() {
				_, s, _ := r.f.create("/work", nil)
				r.f.tellIdle("/work", s.(*fakeSession).ID)
			})
		}
		var ids []string
		r.f.do(func() {
			for id := range r.f.sessions {
				ids = append(ids, id)
			}
		})
		got, err := r.c.Statuses(t.Context(), ids)
		require.NoError(t, err)
		assert.Len(t, got, 10002)
		assert.LessOrEqual(t, opencode.Remembered(r.c), 4096)
		require.NoError(t, r.c.StartTurn(t.Context(), id, prompt("bgp_1", strings.Repeat("say ", 2))))
	})
}
