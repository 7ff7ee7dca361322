package opencode

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
)

func TestNewNamesWhatIsWrong(t *testing.T) {
	for _, x := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "http://127.0.0.1:4096"},
		{Config{URL: "localhost:4096"}, "http://127.0.0.1:4096"},
		{Config{URL: "http://a b"}, "Config.URL"},
		{Config{URL: "http://server", Model: "gpt"}, "provider/model"},
		{Config{URL: "http://server", Model: "openai/"}, "provider/model"},
	} {
		_, err := New(x.cfg)
		require.ErrorContains(t, err, x.want, "%+v", x.cfg)
	}
}

func TestCheckSaysWhatToDo(t *testing.T) {
	for name, x := range map[string]struct {
		prepare func(*fake)
		cfg     Config
		want    string
	}{
		"nobody listens":     {func(f *fake) { f.down = true }, Config{}, "opencode serve"},
		"no password":        {func(f *fake) { f.password = "p" }, Config{}, "set Config.Password"},
		"wrong password":     {func(f *fake) { f.password = "p" }, Config{Password: "q"}, "refuses the password"},
		"another server":     {func(f *fake) { f.set("GET /global/health", "<html>") }, Config{}, "no opencode server"},
		"an older server":    {func(f *fake) { delete(f.answers, "GET /global/health") }, Config{}, "404"},
		"it is not healthy":  {func(f *fake) { f.set("GET /global/health", "{}") }, Config{}, "not healthy"},
		"it never answers":   {func(f *fake) { f.set("GET /global/health", "hang") }, Config{}, "no answer within 5s"},
		"all is well":        {func(*fake) {}, Config{}, ""},
		"and with passwords": {func(f *fake) { f.password = "p" }, Config{Password: "p"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				x.prepare(f)
				began := time.Now()
				err := fakeClient(t, f, x.cfg).Check(t.Context())
				if x.want == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, x.want)
				}
				require.LessOrEqual(t, time.Since(began), 5*time.Second)
			})
		})
	}
}

func TestASessionIsAChildWithItsRulesInItsDirectory(t *testing.T) {
	f := newFake()
	c := fakeClient(t, f, Config{Directory: "/project"})
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{
		Parent: "ses_0", Title: "find it", Agent: "worker", Directory: "/else",
		Permissions: []bgagent.Permission{{Name: "task", Pattern: "*", Action: bgagent.PermissionDeny}},
	})
	require.NoError(t, err)
	require.Equal(t, "ses_1", id)
	require.Contains(t, f.all(), "POST /session?directory=/else")
	require.Equal(t, []string{`{"parentID":"ses_0","title":"find it","agent":"worker","permission":[{"permission":"task","pattern":"*","action":"deny"}]}`}, f.sent("POST /session"))

	_, err = c.CreateSession(t.Context(), bgagent.SessionSpec{Parent: "scope", Agent: "worker"})
	require.NoError(t, err)
	require.Equal(t, `{"agent":"worker"}`, f.sent("POST /session")[1], "a scope is no session of the server")

	_, err = c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "nobody"})
	var none *bgagent.NoSuchAgentError
	require.ErrorAs(t, err, &none)
	require.Equal(t, []string{"build", "worker"}, none.Known)
	require.Len(t, f.sent("POST /session"), 2)
}

func TestARepeatedPromptHasTheSameIdsAndANewOneALaterOne(t *testing.T) {
	f := newFake()
	c := fakeClient(t, f, Config{Model: "one/model"})
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker"})
	require.NoError(t, err)
	p := bgagent.Prompt{ID: "p1", Agent: "worker", Text: "hello", System: "be brief"}
	require.NoError(t, c.StartTurn(t.Context(), id, p))
	f.set("GET /session/status", `{"ses_1":{"type":"busy"}}`)
	require.NoError(t, c.StartTurn(t.Context(), id, p), "a repetition of what the session is busy with")
	require.ErrorIs(t, c.StartTurn(t.Context(), id, bgagent.Prompt{ID: "p2", Agent: "worker", Text: "more"}), bgagent.ErrBusy)
	f.set("GET /session/status", `{}`)
	require.NoError(t, c.StartTurn(t.Context(), id, bgagent.Prompt{ID: "p3", Agent: "worker", Model: "two/a/b", Text: "more"}))
	sent := f.sent("POST /session/ses_1/prompt_async")
	require.Len(t, sent, 3)
	require.Equal(t, sent[0], sent[1])
	var first, last wirePrompt
	require.NoError(t, json.Unmarshal([]byte(sent[0]), &first))
	require.NoError(t, json.Unmarshal([]byte(sent[2]), &last))
	require.Equal(t, wirePrompt{MessageID: first.MessageID, Agent: "worker", System: "be brief", Model: &wireModel{"one", "model"},
		Parts: []wireTextPart{{ID: "prt_" + first.MessageID[4:], Type: "text", Text: "hello"}}}, first)
	require.Equal(t, &wireModel{"two", "a/b"}, last.Model)
	require.Less(t, first.MessageID, last.MessageID)
	require.Len(t, first.MessageID, len("msg_202b8aa9c001RCO5tpPsXQmoF9"))
	require.Equal(t, "msg_202b8aa", first.MessageID[:11], "the time in it is the server's: 1795341986 s")
}

func TestAPromptIsNewerThanTheNewestMessage(t *testing.T) {
	f := newFake()
	c := fakeClient(t, f, Config{})
	f.set("GET /session/ses_1/message", `[{"info":{"id":"msg_ffffff000001RCO5tpPsXQmoF9","role":"user"}}]`)
	require.NoError(t, c.StartTurn(t.Context(), "ses_1", bgagent.Prompt{ID: "p", Text: "x"}))
	require.Contains(t, f.sent("POST /session/ses_1/prompt_async")[0], `"messageID":"msg_ffffff000002`)
}

func TestStatusesAreAskedForByDirectoryAndWhatIsAbsentIsLookedFor(t *testing.T) {
	f := newFake()
	c := fakeClient(t, f, Config{})
	f.set("GET /session/status?directory=/project", `{"ses_other":{"type":"busy"}}`)
	f.set("GET /session/status?directory=/other", `{"ses_other":{"type":"retry","attempt":2,"message":"overloaded","next":1795341986304},"ses_x":{"type":"busy"}}`)
	got, err := c.Statuses(t.Context(), []string{"ses_1", "ses_other", "ses_none", "scope"})
	require.NoError(t, err)
	require.Equal(t, map[string]bgagent.SessionStatus{
		"ses_1":     {State: bgagent.SessionIdle},
		"ses_other": {State: bgagent.SessionRetrying, Detail: "overloaded", RetryAt: time.UnixMilli(1795341986304)},
		"ses_none":  {State: bgagent.SessionGone},
		"scope":     {State: bgagent.SessionGone},
	}, got)

	delete(f.answers, "GET /session/ses_1") // deleted meanwhile
	got, err = c.Statuses(t.Context(), []string{"ses_1"})
	require.NoError(t, err)
	require.Equal(t, bgagent.SessionGone, got["ses_1"].State)

	f.set("GET /session/status?directory=/other", `{"ses_other":{"type":"compacting"}}`)
	got, err = c.Statuses(t.Context(), []string{"ses_other"})
	require.NoError(t, err)
	require.Equal(t, bgagent.SessionStatus{State: bgagent.SessionBusy, Detail: "compacting"}, got["ses_other"], "a kind of another version")

	f.set("GET /session/status?directory=/other", `{"ses_other":{"type":"busy"}}`)
	f.set("GET /permission", `[{"id":"per_1","sessionID":"ses_other","permission":"bash","patterns":["rm"]}]`)
	got, err = c.Statuses(t.Context(), []string{"ses_other"})
	require.NoError(t, err)
	require.Equal(t, bgagent.SessionStatus{State: bgagent.SessionAsking, Detail: "bash rm"}, got["ses_other"])

	f.set("GET /session/status?directory=/other", "broken")
	_, err = c.Statuses(t.Context(), []string{"ses_1", "ses_other"})
	require.Error(t, err, "no answer is better than half of one")
}

func TestMessagesComeInPagesAndWhatMayChangeComesAgain(t *testing.T) {
	f := newFake()
	c := fakeClient(t, f, Config{})
	var all []string
	for i := range 120 {
		all = append(all, fmt.Sprintf(`{"info":{"id":"msg_%03d","role":"assistant","time":{"created":1,"completed":2},"finish":"tool-calls"},"parts":[{"type":"text","text":"t%d"}]}`, i, i))
	}
	all[118] = `{"info":{"id":"msg_118","role":"assistant","time":{"created":1}},"parts":[{"type":"text","text":"half"}]}`
	page := func(from, to int) string { return "[" + strings.Join(all[from:to], ",") + "]" }
	base := "GET /session/ses_1/message?"
	f.set(base+"directory=/project&limit=50", page(70, 120))
	f.set(base+"before=msg_070&directory=/project&limit=50", page(20, 70))
	f.set(base+"before=msg_020&directory=/project&limit=50", page(0, 20))
	var got []bgagent.Message
	cursor := bgagent.Cursor("")
	for range 10 {
		p, err := c.Messages(t.Context(), "ses_1", cursor, 30)
		require.NoError(t, err)
		got, cursor = append(got, p.Messages...), p.Next
		if !p.More {
			break
		}
	}
	require.Len(t, got, 120)
	require.Equal(t, "t0", got[0].Text)
	require.Equal(t, bgagent.Cursor("msg_117"), cursor, "what comes after half a message comes again, too")
	p, err := c.Messages(t.Context(), "ses_1", cursor, 0)
	require.NoError(t, err)
	require.Equal(t, "half", p.Messages[0].Text)
	require.False(t, p.Messages[0].Finished)
	require.Len(t, p.Messages, 2)
	_, err = c.Messages(t.Context(), "ses_none", "", 0)
	require.ErrorIs(t, err, bgagent.ErrNoSession)
}

func TestHowAMessageEnded(t *testing.T) {
	for info, want := range map[string]bgagent.Message{
		`{"finish":"stop","time":{"completed":2}}`:                                    {Finished: true, Stop: bgagent.StopEndOfTurn},
		`{"finish":"unknown","time":{"completed":2}}`:                                 {Finished: true, Stop: bgagent.StopEndOfTurn},
		`{"finish":"tool-calls","time":{"completed":2}}`:                              {Finished: true},
		`{"finish":"length","time":{"completed":2}}`:                                  {Finished: true, Stop: bgagent.StopLength},
		`{"finish":"content-filter","time":{"completed":2}}`:                          {Finished: true, Stop: bgagent.StopRefused},
		`{"finish":"error","time":{"completed":2}}`:                                   {Finished: true, Stop: bgagent.StopError, Error: "the model's answer ended with an error"},
		`{"time":{"completed":2}}`:                                                    {},
		`{"finish":"stop"}`:                                                           {},
		`{"finish":"stop","error":{"name":"MessageAbortedError","data":{}}}`:          {Finished: true, Stop: bgagent.StopAborted, Error: "MessageAbortedError"},
		`{"error":{"name":"APIError","data":{"message":"not with me"}}}`:              {Finished: true, Stop: bgagent.StopError, Error: "not with me"},
		`{"error":{"name":"MessageOutputLengthError","data":{"message":"too much"}}}`: {Finished: true, Stop: bgagent.StopLength, Error: "too much"},
		`{"error":{"name":"ContentFilterError","data":{"message":"no"}}}`:             {Finished: true, Stop: bgagent.StopRefused, Error: "no"},
	} {
		var w wireMessage
		require.NoError(t, json.Unmarshal([]byte(`{"info":`+info+`}`), &w))
		w.Info.Role = "assistant"
		want.Role = bgagent.RoleAgent
		require.Equal(t, want, fakeClient(t, newFake(), Config{}).message(w), info)
	}
}

func TestAMessageHasItsTextToolsAndCosts(t *testing.T) {
	var w wireMessage
	require.NoError(t, json.Unmarshal([]byte(`{"info":{"id":"msg_1","role":"assistant","cost":0.5,"tokens":{"input":1,"output":2,"reasoning":4,"cache":{"read":8,"write":16}}},
		"parts":[{"type":"step-start"},{"type":"reasoning","text":"hm"},{"type":"text","text":"a"},{"type":"text","text":"x","ignored":true},
		{"type":"tool","callID":"c1","tool":"bash","state":{"status":"running"}},{"type":"tool","callID":"c2","tool":"read","state":{"status":"error"}},{"type":"text","text":"b"}]}`), &w))
	require.Equal(t, bgagent.Message{
		ID: "msg_1", Role: bgagent.RoleAgent, Text: "a\n\nb", Reasoning: "hm",
		Tools: []bgagent.MessageTool{{ID: "c1", Name: "bash", State: bgagent.ToolRunning}, {ID: "c2", Name: "read", State: bgagent.ToolFailed}},
		Usage: bgagent.Usage{InputTokens: 25, OutputTokens: 6, Cost: 0.5},
	}, fakeClient(t, newFake(), Config{}).message(w))
}

func TestTodos(t *testing.T) {
	got, err := fakeClient(t, newFake(), Config{}).Todos(t.Context(), "ses_1")
	require.NoError(t, err)
	require.Equal(t, []bgagent.Todo{{Text: "one", State: bgagent.TodoCompleted}, {Text: "two", State: bgagent.TodoInProgress}, {Text: "three", State: bgagent.TodoCancelled}, {Text: "four"}}, got)
}

func TestAbortOfWhatIsNotThereIsNoError(t *testing.T) {
	f := newFake()
	c := fakeClient(t, f, Config{})
	require.NoError(t, c.Abort(t.Context(), "scope"))
	require.NoError(t, c.Abort(t.Context(), "ses_none"))
	require.NoError(t, c.Abort(t.Context(), "ses_1"))
	require.Contains(t, f.all(), "POST /session/ses_1/abort?directory=/project")
	f.set("POST /session/ses_1/abort", `status 500 {"name":"UnknownError","data":{"message":"broken"}}`)
	require.ErrorContains(t, c.Abort(t.Context(), "ses_1"), "UnknownError broken")
}

func TestANoticeIsForAnIdleSessionWithItsOwnAgentAndModel(t *testing.T) {
	f := newFake()
	c := fakeClient(t, f, Config{})
	f.set("GET /session/ses_1", `{"id":"ses_1","directory":"/project","agent":"plan","model":{"id":"big","providerID":"one"}}`)
	n := bgagent.Notice{ID: "bgn_1", Text: "it has ended"}
	f.set("GET /session/status", `{"ses_1":{"type":"retry"}}`)
	require.ErrorIs(t, c.Notify(t.Context(), "ses_1", n), bgagent.ErrBusy)
	require.Empty(t, f.sent("POST /session/ses_1/prompt_async"))
	f.set("GET /session/status", `{}`)
	require.NoError(t, c.Notify(t.Context(), "ses_1", n))
	require.NoError(t, c.Notify(t.Context(), "ses_1", n))
	sent := f.sent("POST /session/ses_1/prompt_async")
	require.Len(t, sent, 2)
	require.Equal(t, sent[0], sent[1], "a repetition has the same ids")
	require.Contains(t, sent[0], `"agent":"plan","model":{"providerID":"one","modelID":"big"}`)
	require.ErrorIs(t, c.Notify(t.Context(), "scope", n), bgagent.ErrNoSession)
	require.ErrorIs(t, c.Notify(t.Context(), "ses_none", n), bgagent.ErrNoSession)
}

// listen runs the stream and returns what has been told since it was last asked.
func listen(t *testing.T, c *Client) (told func() []bgagent.HostEvent) {
	var mu sync.Mutex
	var all []bgagent.HostEvent
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Events(ctx, func(e bgagent.HostEvent) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, e)
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func() []bgagent.HostEvent {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		out := all
		all = nil
		return out
	}
}

func TestWhatTheStreamTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := fakeClient(t, f, Config{})
		_, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker"})
		require.NoError(t, err)
		told := listen(t, c)
		<-f.opened
		f.say(event("server.connected", "{}"))
		require.Equal(t, []bgagent.HostEvent{{Kind: bgagent.HostStreamGap}}, told(), "what came before is not known")
		status := func(st bgagent.SessionState, rev string) bgagent.HostEvent {
			return bgagent.HostEvent{Kind: bgagent.HostStatus, Session: "ses_1", Status: bgagent.SessionStatus{State: st, Revision: rev}}
		}
		f.say(
			": a comment", "event: message", "data: broken", `data: {"payload":{"type":"session.status","properties":[1]}}`, event("plugin.added", `{"id":"x"}`),
			event("server.heartbeat", "{}"),
			event("session.status", `{"sessionID":"ses_1","status":{"type":"busy"}}`),
			event("message.part.delta", `{"sessionID":"ses_1","field":"text","delta":"a"}`),
			event("message.updated", `{"sessionID":"ses_1","info":{"id":"msg_1"}}`),
			event("todo.updated", `{"sessionID":"ses_1","todos":[{"content":"one","status":"pending"}]}`),
			event("session.error", `{"sessionID":"ses_1","error":{"name":"APIError","data":{"message":"not with me"}}}`),
			event("session.error", `{"sessionID":"ses_1","error":{"name":"MessageAbortedError","data":{"message":"aborted"}}}`),
			event("session.idle", `{"sessionID":"ses_1"}`),
			event("session.deleted", `{"info":{"id":"ses_1"}}`),
		)
		require.Equal(t, []bgagent.HostEvent{
			{Kind: bgagent.HostStreamBeat},
			status(bgagent.SessionBusy, "1"),
			{Kind: bgagent.HostActivity, Session: "ses_1"},
			{Kind: bgagent.HostActivity, Session: "ses_1"},
			{Kind: bgagent.HostTodos, Session: "ses_1", Todos: []bgagent.Todo{{Text: "one"}}},
			{Kind: bgagent.HostError, Session: "ses_1", Stop: bgagent.StopError, Error: "APIError: not with me"},
			status(bgagent.SessionIdle, "3"),
			{Kind: bgagent.HostDeleted, Session: "ses_1"},
		}, told(), "the late error of an abort is not told: it could end the next turn")
	})
}

func TestAStreamThatBreaksOffOrFallsSilentIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := fakeClient(t, f, Config{})
		told := listen(t, c)
		<-f.opened
		f.say(event("server.connected", "{}"))
		require.Len(t, told(), 1)
		time.Sleep(20 * time.Second)
		f.say(event("server.heartbeat", "{}"))
		time.Sleep(20 * time.Second)
		require.Equal(t, []bgagent.HostEvent{{Kind: bgagent.HostStreamBeat}}, told(), "a stream with heartbeats is alive")
		time.Sleep(10 * time.Second)
		<-f.opened
		require.Equal(t, []bgagent.HostEvent{{Kind: bgagent.HostStreamGap}}, told(), "a silent one is not")
		f.mu.Lock()
		f.down = true
		_ = f.streams[1].Close()
		f.mu.Unlock()
		time.Sleep(time.Minute)
		n := len(f.sent("GET /global/event"))
		require.InDelta(t, 13, n, 3, "the pauses between tries grow to 10 s")
		f.mu.Lock()
		f.down = false
		f.mu.Unlock()
		<-f.opened
		f.say(event("server.connected", "{}"), "data: "+strings.Repeat("x", maxEvent+10), event("server.heartbeat", "{}"))
		got := told()
		require.Equal(t, bgagent.HostStreamBeat, got[len(got)-1].Kind, "a line that is too long is passed over")
	})
}

func TestQuestionsOfTasksAreAnsweredAndThoseOfOthersLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := fakeClient(t, f, Config{})
		_, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker"})
		require.NoError(t, err)
		f.set("POST /permission/per_3/reply", `status 500 {"name":"UnknownError"}`)
		f.set("GET /permission?directory=/project", `[{"id":"per_1","sessionID":"ses_1","permission":"bash","patterns":["rm"]}]`)
		told := listen(t, c)
		<-f.opened
		f.say(event("server.connected", "{}"))
		told()
		replies := f.sent("POST /permission/per_1/reply?directory=/project")
		require.Len(t, replies, 1, "what was asked before the stream was there is answered, too")
		require.Contains(t, replies[0], `"reply":"reject"`)
		require.Contains(t, replies[0], "background task")
		f.say(event("permission.asked", `{"id":"per_2","sessionID":"ses_0","permission":"bash","patterns":["ls"]}`),
			event("session.created", `{"sessionID":"ses_2","info":{"id":"ses_2","parentID":"ses_1","directory":"/project"}}`),
			event("permission.asked", `{"id":"per_3","sessionID":"ses_2","permission":"edit","patterns":["a"]}`),
			event("question.asked", `{"id":"que_1","sessionID":"ses_1"}`))
		told()
		require.Empty(t, f.sent("POST /permission/per_2/reply"), "a question of somebody else's session")
		require.Len(t, f.sent("POST /permission/per_3/reply"), 1, "of a session below a task's")
		require.Len(t, f.sent("POST /question/que_1/reject"), 1)
		require.Equal(t, "edit a", c.question("ses_2"), "the reply has failed: it is still asked")
	})
}

func TestForgottenSessionsAreForgotten(t *testing.T) {
	c := fakeClient(t, newFake(), Config{})
	_, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker"})
	require.NoError(t, err)
	c.ForgetSession("ses_1")
	require.Empty(t, c.sessions)
	for i := range keptPrompts + 10 {
		c.messageID(fmt.Sprint(i), "")
	}
	require.Len(t, c.prompts, keptPrompts)
	require.Len(t, c.names, keptPrompts)
}

func FuzzEvent(f *testing.F) {
	for _, s := range []string{event("session.idle", `{"sessionID":"ses_1"}`), event("session.created", `{"info":{"id":"ses_2","parentID":"ses_1"}}`),
		event("session.status", `{"sessionID":"ses_1","status":{"type":"retry","next":1}}`), event("todo.updated", `{"todos":[{}]}`)} {
		f.Add([]byte(strings.TrimPrefix(s, "data: ")))
	}
	stream := []bgagent.HostEventKind{bgagent.HostStreamGap, bgagent.HostStreamBeat}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := fakeClient(t, newFake(), Config{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var answers sync.WaitGroup
		for _, e := range c.event(ctx, data, &answers) {
			require.NotZero(t, e.Kind)
			if slices.Contains(stream, e.Kind) {
				continue
			}
			require.Equal(t, bgagent.StopError == e.Stop, e.Kind == bgagent.HostError)
		}
		answers.Wait()
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"info":{"id":"msg_1","role":"assistant","finish":"stop","time":{"completed":1}},"parts":[{"type":"text","text":"a"},{"type":"tool","state":{}}]}`))
	f.Add([]byte(`{"info":{"role":"user","summary":{"diffs":[]}},"parts":[{"type":"text","text":"a"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var w wireMessage
		if json.Unmarshal(data, &w) != nil {
			return
		}
		msg := fakeClient(t, newFake(), Config{}).message(w)
		for _, p := range w.Parts {
			if p.Type == "text" && !p.Ignored {
				require.Contains(t, msg.Text, p.Text, "no text is lost")
			}
		}
		if msg.Stop != bgagent.StopUntold {
			require.True(t, msg.Finished, "what ended the turn does not change any more")
		}
		require.Equal(t, msg.Role == bgagent.RoleUser, w.Info.Role == "user")
	})
}
