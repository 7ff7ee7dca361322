package opencode_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/opencode"
)

// scene is a real server with a scripted model, and a manager that uses it.
type scene struct {
	testing.TB
	w *realagent.World
	s *realagent.OpencodeServer
	c *opencode.Client
	m *bgagent.BackgroundManager

	cfg opencode.Config
}

// patience is the time limit for one step of a test. On a busy machine, the first request to a
// server can take a minute.
const patience = 5 * time.Minute

func serve(t *testing.T, w *realagent.World, s *realagent.OpencodeServer, cfg opencode.Config, mcfg bgagent.Config) *scene {
	t.Helper()
	cfg.URL, cfg.Directory, cfg.Timeout = s.URL, w.Dir, cmp.Or(cfg.Timeout, patience)
	c, err := opencode.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = c.Check(t.Context())
	require.NoError(t, err)
	mcfg.CreateTimeout = patience
	m, err := bgagent.New(c, mcfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = m.Close(ctx) // the error lists undelivered notices
		require.NoError(t, ctx.Err())
	})
	return &scene{TB: t, w: w, s: s, c: c, m: m, cfg: cfg}
}

// root creates a root session, which does not belong to any task.
func (s *scene) root() string {
	user, err := opencode.New(s.cfg) // the manager's client must not know the session
	require.NoError(s, err)
	defer user.Close()
	id, err := user.CreateSession(s.Context(), bgagent.SessionSpec{Agent: "build", Title: "root", Directory: s.w.Dir})
	require.NoError(s, err)
	return id
}

func (s *scene) launch(by, agent, prompt string) bgagent.Task {
	task, err := s.m.Launch(s.Context(), bgagent.Caller{Session: by}, bgagent.LaunchInput{Agent: agent, Model: realagent.OpencodeModel, Prompt: prompt})
	require.NoError(s, err)
	return task
}

func (s *scene) ended(ids ...string) []bgagent.Task {
	ctx, cancel := context.WithTimeout(s.Context(), 2*patience)
	defer cancel()
	tasks, err := s.m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, ids...)
	require.NoError(s, err)
	return tasks
}

func (s *scene) quiet(id string) {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	require.NoError(s, s.m.Quiet(ctx, id))
}

// waitFor waits until the model has received a matching request.
func (s *scene) waitFor(ok func(r modelserver.Request) bool) {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	require.NoError(s, s.w.Model.WaitFor(ctx, func(all []modelserver.Request) bool { return slices.ContainsFunc(all, ok) }))
}

func isMain(r modelserver.Request) bool { return r.Kind == modelserver.Main }

// recalling is a model that follows scripts. It answers the question "what did I say first" with
// the session's first prompt.
func recalling(r modelserver.Request) modelserver.Reply {
	if r.Kind == modelserver.Main && strings.Contains(r.LastUser(), "what did I say first") {
		for _, m := range r.Messages {
			if m.Role == modelserver.User {
				return modelserver.Say("You said: " + m.Text)
			}
		}
	}
	return r.Scripted()
}

func TestConformanceOfTheRealServer(t *testing.T) {
	w := realagent.New(t, "opencode")
	w.Model.Handle(recalling)
	s := w.ServeOpencodeWith(t, realagent.OpencodeOptions{Password: "secret"})
	root := serve(t, w, s, opencode.Config{Password: "secret"}, bgagent.Config{}).root()
	fixed := func(prompt string) func() string { return func() string { return prompt } }
	connect := func(tb bgagenttest.TB) bgagent.SessionClient {
		return newClient(tb, opencode.Config{URL: s.URL, Password: "secret", Directory: w.Dir})
	}
	bgagenttest.Conformance(t, bgagenttest.Harness{
		New: connect,
		Restart: bgagenttest.Restart{Next: func(tb bgagenttest.TB, _ bgagent.SessionClient, death bgagenttest.Death) bgagent.SessionClient {
			if death != bgagenttest.DeathAlone { // the server survives the death of the process
				return nil
			}
			return connect(tb)
		}},
		Agent: "worker", Directory: w.Dir, Parent: root, Notices: noticesIn,
		Say:  func(text string) string { return "@say " + text },
		Slow: fixed("@hang It takes a while."), Fail: fixed("@error 400 as told"),
		Tool:          fixed("@tool bash {\"command\":\"true\",\"description\":\"nothing\"}\n@say used"),
		Recall:        fixed("what did I say first"),
		KeepsPromptID: true, Soon: 2 * time.Minute,
	})
}

func TestTheRealServer(t *testing.T) {
	w := realagent.New(t, "opencode")
	s := w.ServeOpencodeWith(t, realagent.OpencodeOptions{Env: []string{"OPENCODE_ENABLE_QUESTION_TOOL=1"}}) // offered by default only in opencode's own windows
	for _, x := range []struct {
		name string
		cfg  opencode.Config
		mcfg bgagent.Config
		run  func(*scene)
	}{
		{"three tasks at once keep to a limit of two, and the parent is told once", opencode.Config{}, bgagent.Config{Limits: bgagent.Limits{Default: 2}}, threeTasks},
		{"a task cancelled in mid-stream stops, and can be continued", opencode.Config{}, bgagent.Config{}, cancelStream},
		{"a task cancelled during a tool stops, and so does the tool", opencode.Config{}, bgagent.Config{}, cancelTool},
		{"a model that refuses, fails or is limited", opencode.Config{}, bgagent.Config{}, badModels},
		{"a model that hangs", opencode.Config{}, bgagent.Config{TimeToLive: 8 * time.Second}, hangingModel},
		{"what is asked is rejected with a reason, or allowed", opencode.Config{Permission: decide}, bgagent.Config{}, asking},
		{"what no policy decides is asked, and answered once", opencode.Config{Tools: map[string]bool{"question": true}}, bgagent.Config{Ask: true}, askingTheHost},
		{"an agent or a model that does not exist", opencode.Config{}, bgagent.Config{}, unknowns},
		{"a busy parent is told when it is idle", opencode.Config{}, bgagent.Config{}, busyParent},
		{"delete stops the turns first", opencode.Config{}, bgagent.Config{}, deleting},
		{"a long session is read from its beginning", opencode.Config{}, bgagent.Config{RepeatedCalls: bgagent.Unlimited}, longSession},
		{"an agent that repeats one call is stopped", opencode.Config{}, bgagent.Config{}, repeating},
		{"an agent that uses up its budget is stopped", opencode.Config{}, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 1}}, spending},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(serve(t, w, s, x.cfg, x.mcfg)) })
	}
	t.Run("a request that the provider refuses is repeated, and a turn that it refuses is continued", func(t *testing.T) { refusals(t, w, s) })
}

// threeTasks delegates to the three agents from the example in README.md.
func threeTasks(s *scene) {
	root := s.root()
	ours := func(r modelserver.Request) bool {
		return isMain(r) && strings.HasPrefix(r.Key, "three-") && r.Session != root
	}
	bySession := func(r modelserver.Request) string { return r.Session }
	s.w.Model.Handle(modelserver.Together(2, ours, bySession, nil))
	var ids []string
	for i, agent := range []string{"explore", "librarian", "oracle"} {
		ids = append(ids, s.launch(root, agent, fmt.Sprintf("@key three-%d\n@slow 10 50ms\n@say the answer is number %d", i, i)).ID)
	}
	for i, task := range s.ended(ids...) {
		require.Equal(s, bgagent.Completed, task.Status, task.Reason)
		require.Equal(s, fmt.Sprintf("the answer is number %d", i), task.Result)
		require.Positive(s, task.Progress.Usage.OutputTokens)
	}
	require.Equal(s, 2, s.w.Model.MaxOpen(ours, bySession))
	told := func(r modelserver.Request) bool {
		return isMain(r) && r.Session == root && strings.Contains(r.LastUser(), ids[0])
	}
	s.waitFor(told)
	require.Eventually(s, func() bool { // waits for the end of the turn that the notice started
		all, err := s.c.Statuses(s.Context(), []string{root})
		return err == nil && all[root].State == bgagent.SessionIdle
	}, patience, 50*time.Millisecond)
	n := 0
	for _, r := range s.w.Model.Requests() {
		if told(r) {
			n++
			for _, id := range ids {
				require.Contains(s, r.LastUser(), id)
			}
		}
	}
	require.Equal(s, 1, n, "the parent is told of all three once")
}

func cancelStream(s *scene) {
	task := s.launch("scope", "worker", "@key stream\n@slow 1000 100ms\n@say "+strings.Repeat("more and more ", 100))
	require.Eventually(s, func() bool {
		got, err := s.m.Get(task.ID)
		return err == nil && strings.Contains(got.Progress.LastMessage, "more")
	}, patience, 50*time.Millisecond)
	stopped, err := s.m.Cancel(s.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
	require.NoError(s, err)
	require.True(s, stopped.Partial)
	require.Contains(s, stopped.Result, "more", "the text until the abort")
	s.quiet(task.ID)
	s.waitFor(func(r modelserver.Request) bool { return r.Key == "stream" && isMain(r) && r.Done && r.Left })
	_, err = s.m.Resume(s.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "@say and now it is done"})
	require.NoError(s, err)
	got := s.ended(task.ID)[0]
	require.Equal(s, bgagent.Completed, got.Status, got.Reason)
	require.Equal(s, "and now it is done", got.Result)
}

func cancelTool(s *scene) {
	task := s.launch("scope", "worker", "@key tool\n@tool bash {\"command\":\"sleep 987\",\"description\":\"waits\"}\n@say never")
	require.Eventually(s, func() bool {
		got, err := s.m.Get(task.ID)
		return err == nil && got.Progress.LastTool == "bash" && s.sleeping("987")
	}, patience, 50*time.Millisecond)
	_, err := s.m.Cancel(s.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
	require.NoError(s, err)
	s.quiet(task.ID)
	require.Eventually(s, func() bool { return !s.sleeping("987") }, patience, 50*time.Millisecond)
	require.Equal(s, bgagent.CauseHost, s.ended(task.ID)[0].Cause)
}

// The method "sleeping" reports whether a process of the world is running the command sleep with this number
// of seconds.
func (s *scene) sleeping(seconds string) bool {
	return slices.ContainsFunc(s.w.Processes(), func(p string) bool { return strings.Contains(p, "sleep "+seconds) })
}

func badModels(s *scene) {
	prompts := map[string]string{
		"refuses": "@error 400 not with me",
		"fails":   "@error 500 times=1 broken for once\n@say back again",
		"limited": "@error 429 times=1 retry-after=1 slow down\n@say in time",
	}
	ids := map[string]string{}
	for name, p := range prompts {
		ids[name] = s.launch("scope", "worker", "@key bad-"+name+"\n"+p).ID
	}
	got := map[string]bgagent.Task{}
	for name, id := range ids {
		got[name] = s.ended(id)[0]
	}
	require.Equal(s, bgagent.Failed, got["refuses"].Status)
	require.Contains(s, got["refuses"].Reason, "not with me")
	require.Equal(s, bgagent.Completed, got["fails"].Status, got["fails"].Reason)
	require.Equal(s, "back again", got["fails"].Result)
	require.Equal(s, "in time", got["limited"].Result, got["limited"].Reason)
}

func hangingModel(s *scene) {
	task := s.ended(s.launch("scope", "worker", "@hang I think").ID)[0]
	require.Equal(s, bgagent.CauseTimeToLive, task.Cause, task.Reason)
	s.quiet(task.ID)
}

// decide is a permission policy that allows only the command "echo allowed".
func decide(_ context.Context, p opencode.PermissionRequest) opencode.PermissionReply {
	if slices.ContainsFunc(p.Patterns, func(x string) bool { return strings.Contains(x, "echo allowed") }) {
		return opencode.PermissionReply{Allow: true}
	}
	return opencode.PermissionReply{Reason: "we do not do that here"}
}

func asking(s *scene) {
	yes := s.launch("scope", "asker", "@tool bash {\"command\":\"echo allowed-$((6*7))\",\"description\":\"a\"}\n@say it was ${re:allowed-(\\d+)}")
	no := s.launch("scope", "asker", "@key no\n@tool bash {\"command\":\"touch forbidden\",\"description\":\"b\"}\n@say rejected: ${re:we do not do that here}")
	require.Equal(s, "it was 42", s.ended(yes.ID)[0].Result)
	got := s.ended(no.ID)[0]
	require.NotEqual(s, bgagent.CauseTimeToLive, got.Cause)
	require.NoFileExists(s, s.w.Dir+"/forbidden")
	require.Equal(s, "rejected: we do not do that here", got.Result, got.Reason)
}

func unknowns(s *scene) {
	began := time.Now()
	got := s.ended(s.launch("scope", "nobody", "@say hello").ID)[0]
	require.Equal(s, bgagent.CauseStartFailed, got.Cause)
	require.Contains(s, got.Reason, "explore", "the existing agents are named")
	task, err := s.m.Launch(s.Context(), bgagent.Caller{Session: "scope"}, bgagent.LaunchInput{Agent: "worker", Model: "scripted/nothing", Prompt: "@say hello"})
	require.NoError(s, err)
	got = s.ended(task.ID)[0]
	require.Equal(s, bgagent.Failed, got.Status)
	require.Contains(s, strings.ToLower(got.Reason), "model")
	task, err = s.m.Launch(s.Context(), bgagent.Caller{Session: "scope"}, bgagent.LaunchInput{Agent: "worker", Model: "nothing", Prompt: "@say hello"})
	require.NoError(s, err)
	require.Contains(s, s.ended(task.ID)[0].Reason, "provider/model")
	require.Less(s, time.Since(began), bgagent.DefaultStaleTimeout, "the tasks fail without a wait")
}

func busyParent(s *scene) {
	root := s.root()
	idle := make(chan struct{})
	s.w.Model.Handle(func(r modelserver.Request) modelserver.Reply {
		if isMain(r) && strings.Contains(r.LastUser(), "at work") {
			select {
			case <-idle:
			case <-r.Context().Done():
			}
		}
		return r.Scripted()
	})
	defer s.w.Model.Handle(nil)
	go func() {
		_ = s.c.StartTurn(context.WithoutCancel(s.Context()), root, bgagent.Prompt{ID: "busy", Agent: "build", Text: "@key busy\n@say I am at work"})
	}()
	s.waitFor(func(r modelserver.Request) bool { return r.Key == "busy" && isMain(r) })
	task := s.launch(root, "worker", "@say quick")
	require.Equal(s, "quick", s.ended(task.ID)[0].Result)
	require.ErrorIs(s, s.c.Notify(s.Context(), root, bgagent.Notice{ID: "n", Text: "too early"}), bgagent.ErrBusy)
	close(idle)
	told := func(r modelserver.Request) bool {
		return r.Session == root && isMain(r) && strings.Contains(r.LastUser(), task.ID)
	}
	s.waitFor(told)
	for _, r := range s.w.Model.Requests() {
		if r.Key == "busy" && isMain(r) && !strings.Contains(r.LastUser(), task.ID) {
			require.True(s, r.Done, "the turn ended before the parent was notified")
		}
		require.NotContains(s, r.LastUser(), "too early")
	}
}

func deleting(s *scene) {
	id, err := s.c.CreateSession(s.Context(), bgagent.SessionSpec{Agent: "worker", Title: "doomed"})
	require.NoError(s, err)
	require.NoError(s, s.c.StartTurn(s.Context(), id, bgagent.Prompt{ID: "doomed", Agent: "worker", Text: "@key doomed\n@hang never"}))
	s.waitFor(func(r modelserver.Request) bool { return r.Key == "doomed" && isMain(r) })
	require.NoError(s, s.c.Delete(s.Context(), id))
	s.waitFor(func(r modelserver.Request) bool { return r.Key == "doomed" && isMain(r) && r.Done && r.Left })
	_, err = s.c.FindSession(s.Context(), id)
	require.ErrorIs(s, err, bgagent.ErrNoSession)
	require.NoError(s, s.c.Delete(s.Context(), id), "deleting it again is not an error")
}

func longSession(s *scene) {
	const turns = 55 // enough turns for more messages than one page of the server contains
	prompt := strings.Repeat("@tool bash {\"command\":\"true\",\"description\":\"nothing\"}\n", turns) + "@say that was all"
	got := s.ended(s.launch("scope", "worker", prompt).ID)[0]
	require.Equal(s, "that was all", got.Result, got.Reason)
	require.Equal(s, turns, got.Progress.ToolCalls)
	page, err := s.m.Messages(s.Context(), bgagent.Caller{}, got.ID, "", 0)
	require.NoError(s, err)
	require.Len(s, page.Messages, turns+2)
	require.Equal(s, bgagent.RoleUser, page.Messages[0].Role)
	require.Equal(s, "that was all", page.Messages[turns+1].Text)
	rest, err := s.m.Messages(s.Context(), bgagent.Caller{}, got.ID, page.Next, 0)
	require.NoError(s, err)
	require.Empty(s, rest.Messages)
}

func repeating(s *scene) {
	prompt := strings.Repeat("@tool bash {\"command\":\"true\",\"description\":\"nothing\"}\n", 200) + "@say never"
	got := s.ended(s.launch("scope", "worker", prompt).ID)[0]
	require.Equal(s, bgagent.CauseLoop, got.Cause, got.Reason)
	require.Less(s, got.Progress.ToolCalls, 200)
	require.NoError(s, s.m.Quiet(s.Context(), got.ID))
}

func spending(s *scene) {
	const calls = 50
	prompt := strings.Repeat("@tool bash {\"command\":\"true\",\"description\":\"nothing\"}\n", calls) + "@say never"
	got := s.ended(s.launch("scope", "worker", prompt).ID)[0]
	require.Equal(s, bgagent.CauseBudget, got.Cause, got.Reason)
	require.Less(s, got.Progress.ToolCalls, calls)
	require.NoError(s, s.m.Quiet(s.Context(), got.ID))
}
