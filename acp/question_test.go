//go:build unix

package acp

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/cleantext"
	sdk "github.com/coder/acp-go-sdk"
	"github.com/stretchr/testify/require"
)

// The function "asking" runs a test with a fake agent and a manager whose tasks are allowed to ask
// questions.
func asking(t *testing.T, cfg Config, test func(t *testing.T, c *Client, m *bgagent.BackgroundManager)) {
	t.Helper()
	bubble(t, cfg, false, func(t *testing.T, c *Client) {
		m, err := bgagent.New(c, bgagent.Config{Ask: true})
		require.NoError(t, err)
		defer m.Close(context.Background())
		test(t, c, m)
	})
}

func launchIn(t *testing.T, m *bgagent.BackgroundManager, prompt string) bgagent.Task {
	t.Helper()
	task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "fake", Prompt: prompt, Description: "a test"})
	require.NoError(t, err)
	time.Sleep(time.Second)
	task, err = m.Get(task.ID)
	require.NoError(t, err)
	return task
}

func endOf(t *testing.T, m *bgagent.BackgroundManager, id string) bgagent.Task {
	t.Helper()
	got, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, id)
	require.NoError(t, err)
	return got[0]
}

func TestAQuestionIsAskedAndAnswered(t *testing.T) {
	for option, want := range map[string]string{
		`allow once (the agent calls it "Once")`: "answer once <nil>", `deny (the agent calls it "No")`: "answer no the host has denied it",
	} {
		asking(t, Config{}, func(t *testing.T, _ *Client, m *bgagent.BackgroundManager) {
			task := launchIn(t, m, "permit rm -r src")
			require.Len(t, task.Questions, 1)
			q := task.Questions[0]
			require.Equal(t, bgagent.QuestionPermission, q.Kind)
			require.Equal(t, "may it use execute: rm -r src", q.Title)
			require.Equal(t, "rm -r src", q.Subject)
			require.Equal(t, []string{`allow once (the agent calls it "Once")`, `deny (the agent calls it "No")`}, q.Options)
			time.Sleep(3 * time.Hour) // a task that asks does not become stale
			_, err := m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: option})
			require.NoError(t, err)
			got := endOf(t, m, task.ID)
			require.Equal(t, want, got.Result, got.Reason)
		})
	}
}

func TestAnExpiredQuestionIsRefusedAsExpired(t *testing.T) {
	asking(t, Config{}, func(t *testing.T, _ *Client, m *bgagent.BackgroundManager) {
		task := launchIn(t, m, "permit rm -r src")
		got := endOf(t, m, task.ID)
		require.Equal(t, "answer no nobody has answered the question in time", got.Result, got.Reason)
	})
}

func TestTheRulesDecideBeforeTheTaskAsks(t *testing.T) {
	permit := func(_ context.Context, q PermissionRequest) PermissionAnswer {
		return PermissionAnswer{Allow: q.Title == "ls", Ask: q.Title != "rm", Reason: "never"}
	}
	asking(t, Config{Permit: permit}, func(t *testing.T, _ *Client, m *bgagent.BackgroundManager) {
		require.Equal(t, "answer once <nil>", launchIn(t, m, "permit ls").Result)
		require.Equal(t, "answer no never", launchIn(t, m, "permit rm").Result)
		require.Len(t, launchIn(t, m, "permit mv").Questions, 1)
	})
}

func TestTwoAnswersToAQuestionAreOne(t *testing.T) {
	asking(t, Config{}, func(t *testing.T, _ *Client, m *bgagent.BackgroundManager) {
		task := launchIn(t, m, "permit rm -r src")
		q := task.Questions[0]
		var wg sync.WaitGroup
		errs := make([]error, 10)
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: q.Options[i%2]})
			})
		}
		wg.Wait()
		accepted := 0
		for _, err := range errs {
			if err == nil {
				accepted++
				continue
			}
			require.ErrorIs(t, err, bgagent.ErrQuestionOver)
		}
		require.Equal(t, 1, accepted)
		require.Contains(t, endOf(t, m, task.ID).Result, "answer")
	})
}

func TestAQuestionIsWithdrawnWithItsTurn(t *testing.T) {
	for _, end := range []string{"cancel", "the process ends"} {
		asking(t, Config{}, func(t *testing.T, c *Client, m *bgagent.BackgroundManager) {
			task := launchIn(t, m, "permit rm -r src")
			q := task.Questions[0]
			if end == "cancel" {
				_, err := m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
				require.NoError(t, err)
			} else {
				c.mu.Lock()
				for p := range c.all {
					p.end(errClosed)
				}
				c.mu.Unlock()
			}
			require.True(t, endOf(t, m, task.ID).Status.Terminal())
			over, err := m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: q.Options[0]})
			require.ErrorIs(t, err, bgagent.ErrQuestionOver)
			require.Equal(t, bgagent.QuestionWithdrawn, over.State)
		})
	}
}

// In one turn, a hostile agent asks a thousand questions. It also asks a question with a huge
// subject, one without options, and one in the name of another session. All of them are answered.
func TestQuestionsOfAHostileAgent(t *testing.T) {
	asking(t, Config{}, func(t *testing.T, c *Client, m *bgagent.BackgroundManager) {
		task := launchIn(t, m, "wait")
		c.mu.Lock()
		p := c.sessions[task.Session].proc
		c.mu.Unlock()
		options := []sdk.PermissionOption{
			{Kind: "allow_for_ever", Name: "Sure", OptionId: "sure"}, {Kind: sdk.PermissionOptionKindAllowOnce, Name: "Yes", OptionId: "a"},
			{Kind: sdk.PermissionOptionKindAllowOnce, Name: "Yes", OptionId: "b"}, {Kind: sdk.PermissionOptionKindRejectAlways, Name: "Never", OptionId: "n"},
			{Kind: sdk.PermissionOptionKindRejectOnce, OptionId: "r"},
		}
		marshal := func(list []sdk.PermissionOption) string {
			text, err := json.Marshal(list)
			require.NoError(t, err)
			return string(text)
		}
		var wg sync.WaitGroup
		answers := make(chan sdk.RequestPermissionResponse, 2000)
		ask := func(session, command string, options []sdk.PermissionOption) {
			wg.Go(func() {
				params := fmt.Sprintf(`{"sessionId":%q,"toolCall":{"toolCallId":"call","rawInput":{"command":%q}},"options":%s}`, session, command, marshal(options))
				got, problem := p.request(t.Context(), sdk.ClientMethodSessionRequestPermission, []byte(params))
				require.Nil(t, problem)
				answers <- got.(sdk.RequestPermissionResponse)
			})
		}
		for i := range 1000 {
			ask(task.Session, fmt.Sprint("rm ", i), options)
		}
		ask("another", "rm", options)
		time.Sleep(time.Second)
		got, err := m.Get(task.ID)
		require.NoError(t, err)
		require.Len(t, got.Questions, 20)
		require.Len(t, answers, 981, "the others were refused immediately")
		require.Equal(t, []string{`allow once (the agent calls it "Yes")`, `allow once (the agent calls it "Yes") #2`, "deny"}, got.Questions[0].Options)
		_, err = m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: got.Questions[0].Key, Option: got.Questions[0].Options[1]})
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.Len(t, answers, 982)
		ask(task.Session, strings.Repeat("x", 1<<20), options)
		ask(task.Session, "rm", nil)
		time.Sleep(time.Second)
		require.Len(t, answers, 984)
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		wg.Wait()
		close(answers)
		outcomes := map[string]int{}
		for a := range answers {
			switch {
			case a.Outcome.Selected != nil:
				outcomes[string(a.Outcome.Selected.OptionId)]++
			default:
				outcomes["cancelled"]++
			}
		}
		require.Equal(t, map[string]int{"b": 1, "r": 981, "cancelled": 21}, outcomes)
		late, problem := p.request(t.Context(), sdk.ClientMethodSessionRequestPermission, []byte(`{"sessionId":"`+task.Session+`"}`))
		require.Nil(t, problem)
		require.NotNil(t, late.(sdk.RequestPermissionResponse).Outcome.Cancelled, "the question came after its turn")
	})
}

// The kind of an option determines its effect, whatever the agent calls the option.
func TestAnOptionSaysFirstWhatItDoes(t *testing.T) {
	const allow, reject = sdk.PermissionOptionKindAllowOnce, sdk.PermissionOptionKindRejectOnce
	long := strings.Repeat("é", 100)
	for _, x := range []struct {
		kinds []sdk.PermissionOptionKind
		names []string
		want  []string
	}{
		{[]sdk.PermissionOptionKind{allow, reject}, []string{"Deny", "Allow"}, []string{`allow once (the agent calls it "Deny")`, `deny (the agent calls it "Allow")`}},
		{[]sdk.PermissionOptionKind{allow, reject}, []string{"Allow once", "Reject"}, []string{"allow once", "deny"}},
		{[]sdk.PermissionOptionKind{allow, reject}, []string{" allow ", "DENY"}, []string{"allow once", "deny"}},
		{[]sdk.PermissionOptionKind{allow, allow, reject}, []string{"Allow", "Allow", ""}, []string{`allow once (the agent calls it "Allow")`, `allow once (the agent calls it "Allow") #2`, "deny"}},
		{[]sdk.PermissionOptionKind{allow, allow}, []string{"Yes", "Y\u200bes"}, []string{`allow once (the agent calls it "Yes")`, `allow once (the agent calls it "Y\u200bes")`}},
		{[]sdk.PermissionOptionKind{allow, allow}, []string{"a  b\n", "a\u00a0b"}, []string{`allow once (the agent calls it "a b")`, `allow once (the agent calls it "a b") #2`}},
		{[]sdk.PermissionOptionKind{allow}, []string{"x\") #2\nb\x1b[2J\u202e"}, []string{`allow once (the agent calls it "x\") #2 b\x1b[2J\u202e")`}},
		{[]sdk.PermissionOptionKind{allow, reject, reject}, []string{long, long + "a", long + "b"}, []string{
			`allow once (the agent calls it "` + long[:120] + `"…)`, `deny (the agent calls it "` + long[:120] + `"…)`, `deny (the agent calls it "` + long[:120] + `"…) #2`,
		}},
		{[]sdk.PermissionOptionKind{allow, allow, reject}, []string{"", "", "\u200b"}, []string{"allow once", "allow once #2", `deny (the agent calls it "\u200b")`}},
	} {
		var list []sdk.PermissionOption
		for i, kind := range x.kinds {
			list = append(list, sdk.PermissionOption{Kind: kind, Name: x.names[i], OptionId: sdk.PermissionOptionId(fmt.Sprint(i))})
		}
		got := offers(list)
		require.Len(t, got, len(x.want))
		for i, o := range got {
			require.Equal(t, x.want[i], o.text)
			require.EqualValues(t, fmt.Sprint(i), o.option.OptionId)
			require.Equal(t, o.text, cleantext.Line(o.text), "the command that is printed for it contains the same text")
			require.LessOrEqual(t, len(o.text), 200)
		}
	}
}

// The answer selects the option that was shown, even among options with the same name or very long names.
func TestAnAnswerReachesTheOptionThatWasShown(t *testing.T) {
	long := strings.Repeat("x", 500)
	for i, id := range []string{"a", "b", "c", "d"} {
		asking(t, Config{}, func(t *testing.T, c *Client, m *bgagent.BackgroundManager) {
			task := launchIn(t, m, "wait")
			params := fmt.Sprintf(`{"sessionId":%q,"toolCall":{"toolCallId":"call","rawInput":{"command":"ls"}},"options":[{"kind":"allow_once","name":"Deny","optionId":"a"},
				{"kind":"allow_once","name":"Deny","optionId":"b"},{"kind":"reject_once","name":%q,"optionId":"c"},{"kind":"reject_once","name":%[2]q,"optionId":"d"}]}`, task.Session, long)
			task, answers := asksFor(t, c, m, task, params)
			require.Len(t, task.Questions, 1)
			q := task.Questions[0]
			_, err := m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: q.Options[i]})
			require.NoError(t, err)
			got := <-answers
			require.NotNil(t, got.Outcome.Selected)
			require.EqualValues(t, id, got.Outcome.Selected.OptionId)
			require.Equal(t, i > 1, got.Meta["reason"] != nil)
		})
	}
}

func TestARequestThatIsNotKnownAsAWholeIsNotAsked(t *testing.T) {
	asking(t, Config{}, func(t *testing.T, c *Client, m *bgagent.BackgroundManager) {
		task := launchIn(t, m, "wait")
		c.mu.Lock()
		p := c.sessions[task.Session].proc
		c.mu.Unlock()
		params := fmt.Sprintf(`{"sessionId":%q,"toolCall":{"toolCallId":"call","rawInput":{"command":"ls"},"content":[7]},"options":[
			{"kind":"allow_once","name":"Yes","optionId":"y"},{"kind":"reject_once","name":"No","optionId":"n"}]}`, task.Session)
		got, problem := p.request(t.Context(), sdk.ClientMethodSessionRequestPermission, []byte(params))
		require.Nil(t, problem)
		answer := got.(sdk.RequestPermissionResponse)
		require.EqualValues(t, "n", answer.Outcome.Selected.OptionId)
		require.Contains(t, answer.Meta["reason"], "did not report everything")
	})
}

func TestTheSubjectContainsAllThatTheAgentTells(t *testing.T) {
	q := PermissionRequest{Title: "Edit a.go", Input: map[string]any{"path": "/w/abc.go"}, Paths: []string{"/w/a", "/w/abc.go", "/w/b.go"}}
	content := []sdk.ToolCallContent{sdk.ToolDiffContent("/w/a.go", "new\nlast", "old\n"), sdk.ToolContent(sdk.TextBlock("as told"))}
	want := "path: /w/abc.go\ntitle: Edit a.go\npath: /w/a\npath: /w/b.go\nchange of /w/a.go:\n  -old\n  +new\n  +last\ntext: as told"
	require.Equal(t, want, subjectOf(q, content, earlier{}))
	told := earlier{described: described{whole: q.Title, content: content}, input: map[string]any{"path": "/w/abc.go"}}
	require.Equal(t, want, subjectOf(q, content, told), "nothing is repeated")
	require.Equal(t, want, subjectOf(q, nil, told))
	told = earlier{described: described{whole: "Edit", content: content[1:]}, input: map[string]any{"command": "ls", "force": true}}
	require.Equal(t, "path: /w/abc.go\ntitle: Edit a.go\ntitle: Edit\npath: /w/a\npath: /w/b.go\ntext: as told\ninput as told before:\n  ls\n  force: true", subjectOf(q, nil, told))
	run := PermissionRequest{Input: map[string]any{"command": "ls"}}
	require.Equal(t, "ls\ninput as told before:\n  cwd: /w", subjectOf(run, nil, earlier{input: map[string]any{"command": "ls", "cwd": "/w"}}))
	require.Equal(t, "ls\ninput as told before:\n  rm", subjectOf(run, nil, earlier{input: map[string]any{"command": "rm"}}))
	require.Equal(t, "ls\ninput as told before:\n  rm", subjectOf(run, nil, earlier{input: "rm"}))
	require.Equal(t, "title: Edit", subjectOf(PermissionRequest{Title: "Edit"}, nil, earlier{}))
}

func TestAQuestionWithoutASubjectIsNotAsked(t *testing.T) {
	for call, subject := range map[string]string{
		`"toolCallId":"c"`:                 "",
		`"toolCallId":"c","kind":"delete"`: "",
		`"toolCallId":"c","kind":"delete","title":" ","rawInput":{},"content":[]`:    "",
		`"toolCallId":"c","kind":"delete","title":"notes.md"`:                        "title: notes.md\nkind: delete",
		`"toolCallId":"c","kind":"delete","title":"Delete it"`:                       "title: Delete it",
		`"toolCallId":"c","kind":"delete","title":"x","rawInput":{"about":"delete"}`: "about: delete\ntitle: x\nkind: delete",
	} {
		asking(t, Config{}, func(t *testing.T, c *Client, m *bgagent.BackgroundManager) {
			task := launchIn(t, m, "wait")
			params := fmt.Sprintf(`{"sessionId":%q,"toolCall":{%s},"options":[{"kind":"allow_once","name":"Yes","optionId":"y"},{"kind":"reject_once","name":"No","optionId":"n"}]}`, task.Session, call)
			task, answers := asksFor(t, c, m, task, params)
			if subject != "" {
				require.Len(t, task.Questions, 1, call)
				require.Equal(t, subject, task.Questions[0].Subject)
				return
			}
			require.Empty(t, task.Questions, call)
			got := <-answers
			require.EqualValues(t, "n", got.Outcome.Selected.OptionId)
			require.Equal(t, "the agent did not say what it wants to do", got.Meta["reason"])
		})
	}
}

// In a subject, no text from the agent looks like a line from bgagent, and none is invisible.
func TestNothingInTheSubjectCanLookLikeAField(t *testing.T) {
	q := PermissionRequest{Title: "Edit\npath: /w/a", Paths: []string{"/w/x\npath: /w/b"}}
	content := []sdk.ToolCallContent{sdk.ToolDiffContent("/w/a:\nb", "new\rtext\x1b[2K", "\u202eold"), sdk.ToolContent(sdk.TextBlock("a\ntitle: b"))}
	require.Equal(t, "title:\n  Edit\n  path: /w/a\npath:\n  /w/x\n  path: /w/b\n\"change of /w/a:\\nb\":\n  -\\u202eold\n  +new\\rtext\\x1b[2K\ntext:\n  a\n  title: b",
		subjectOf(q, content, earlier{}))
}

// An agent often sends the details of a call before it asks the question, and the question then
// only names the call.
func TestAQuestionShowsWhatWasToldBefore(t *testing.T) {
	begin := func(more string) string {
		return `update {"sessionUpdate":"tool_call","toolCallId":"c","title":"Edit a.go","kind":"edit","status":"pending","rawInput":{"file":"a.go"},"content":[` + more + `]}`
	}
	diff := func(text string) string {
		return fmt.Sprintf(`{"type":"diff","path":"/w/a.go","oldText":"old","newText":%q}`, text)
	}
	text := func(s string) string {
		return fmt.Sprintf(`{"type":"content","content":{"type":"text","text":%q}}`, s)
	}
	update := func(fields string) string {
		return `update {"sessionUpdate":"tool_call_update","toolCallId":"c",` + fields + `}`
	}
	const intro = "file: a.go\ntitle: Edit a.go\n"
	for _, x := range []struct{ prompt, subject, reason string }{
		{begin(diff("new")), intro + "path: /w/a.go\nchange of /w/a.go:\n  -old\n  +new", ""},
		{begin("") + "\n" + update(`"content":[`+diff("new")+`,`+text("note")+`]`), intro + "path: /w/a.go\nchange of /w/a.go:\n  -old\n  +new\ntext: note", ""},
		{begin(diff("new")) + "\n" + update(`"content":[`+diff("newer")+`]`), intro + "path: /w/a.go\nchange of /w/a.go:\n  -old\n  +newer", ""},
		{begin(diff("new")) + "\n" + update(`"status":"in_progress"`), intro + "path: /w/a.go\nchange of /w/a.go:\n  -old\n  +new", ""},
		{begin(text(strings.Repeat("x", maxTitle)+"y")) + "\n" + update(`"title":"`+strings.Repeat("z", maxTitle)+`!"`), "file: a.go\ntitle: " + strings.Repeat("z", maxTitle) + "!\ntext: " + strings.Repeat("x", maxTitle) + "y", ""},
		{begin(text(strings.Repeat("x", maxDescribed))) + "\n" + update(`"content":[`+text("short")+`]`), "", "the agent's description of this call is too long to be shown"},
		{begin(diff("new")) + "\n" + update(`"status":"completed"`), "", "the agent did not say what it wants to do"}, // the question is about a new call
	} {
		asking(t, Config{}, func(t *testing.T, _ *Client, m *bgagent.BackgroundManager) {
			task := launchIn(t, m, x.prompt+"\nbare c")
			switch x.reason {
			case "":
				require.Len(t, task.Questions, 1, task.Result)
				require.Equal(t, x.subject, task.Questions[0].Subject)
			default:
				require.Empty(t, task.Questions)
				require.Contains(t, task.Result, x.reason)
			}
		})
	}
}

func TestLargeNumbersAreShownAsTheAgentWritesThem(t *testing.T) {
	var got any
	permit := func(_ context.Context, q PermissionRequest) PermissionAnswer {
		got = q.Input
		return PermissionAnswer{Ask: true}
	}
	const id = "9007199254740993" // rounded as a float64
	for _, update := range []string{
		`{"sessionUpdate":"tool_call","toolCallId":"c","title":"drop","rawInput":{"id":` + id + `}}`,
		`{"sessionUpdate":"tool_call_update","toolCallId":"c","title":"drop","rawInput":{"id":` + id + `}}`,
	} {
		asking(t, Config{Permit: permit}, func(t *testing.T, _ *Client, m *bgagent.BackgroundManager) {
			task := launchIn(t, m, "update "+update+"\nbare c")
			require.Len(t, task.Questions, 1, task.Result)
			require.Equal(t, "id: "+id+"\ntitle: drop", task.Questions[0].Subject)
			require.Equal(t, map[string]any{"id": float64(9007199254740992)}, got, "Permit gets what the package json decodes")
		})
	}
	asking(t, Config{}, func(t *testing.T, c *Client, m *bgagent.BackgroundManager) {
		task := launchIn(t, m, "wait")
		c.mu.Lock()
		p := c.sessions[task.Session].proc
		c.mu.Unlock()
		go p.request(t.Context(), sdk.ClientMethodSessionRequestPermission, []byte(fmt.Sprintf(`{"sessionId":%q,"toolCall":{"toolCallId":"call",
			"rawInput":{"id":%s}},"options":[{"kind":"allow_once","name":"Yes","optionId":"y"}]}`, task.Session, id)))
		time.Sleep(time.Second)
		task, err := m.Get(task.ID)
		require.NoError(t, err)
		require.Len(t, task.Questions, 1)
		require.Equal(t, "id: "+id, task.Questions[0].Subject)
	})
}

func TestTheDescriptionsOfCallsAreBounded(t *testing.T) {
	asking(t, Config{}, func(t *testing.T, c *Client, m *bgagent.BackgroundManager) {
		task := launchIn(t, m, "wait")
		c.mu.Lock()
		defer c.mu.Unlock()
		s := c.sessions[task.Session]
		large := []sdk.ToolCallContent{sdk.ToolContent(sdk.TextBlock(strings.Repeat("x", maxDescribed-100)))}
		last := func(i int) *toolCall { return s.turn.calls[fmt.Sprint(i)] }
		n := maxAllDescribed/maxDescribed + 2
		for i := range n {
			for range 2 {
				s.apply(s.turn, sdk.StartToolCall(sdk.ToolCallId(fmt.Sprint(i)), "edit", sdk.WithStartContent(large)), false)
			}
			require.LessOrEqual(t, s.turn.described, maxAllDescribed)
		}
		require.False(t, last(0).dropped)
		require.True(t, last(n-1).dropped)
		for i := range n {
			s.apply(s.turn, sdk.UpdateToolCall(sdk.ToolCallId(fmt.Sprint(i)), sdk.WithUpdateStatus(sdk.ToolCallStatusCompleted)), false)
		}
		require.Zero(t, s.turn.described)
		require.Nil(t, last(0).content)
	})
}

// asksFor returns the task after the agent of its session has asked for permission. The channel
// receives the client's answer.
func asksFor(t *testing.T, c *Client, m *bgagent.BackgroundManager, task bgagent.Task, params string) (bgagent.Task, <-chan sdk.RequestPermissionResponse) {
	t.Helper()
	c.mu.Lock()
	p := c.sessions[task.Session].proc
	c.mu.Unlock()
	answers := make(chan sdk.RequestPermissionResponse, 1)
	go func() {
		got, _ := p.request(t.Context(), sdk.ClientMethodSessionRequestPermission, []byte(params))
		answers <- got.(sdk.RequestPermissionResponse)
	}()
	time.Sleep(time.Second)
	task, err := m.Get(task.ID)
	require.NoError(t, err)
	return task, answers
}
