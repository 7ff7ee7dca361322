//go:build unix

package command

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// asking is a manager whose fake Claude Code asks questions.
type asking struct {
	*testing.T
	c *Client
	m *bgagent.BackgroundManager
}

func askingClaude(t *testing.T, cfg bgagent.Config, change ...func(*Config)) *asking {
	t.Helper()
	a := Agent{Program: ClaudeAsking(), Command: []string{os.Args[0]}, Env: []string{fakeKind + "=claude"}}
	c := clientOf(t, a, change...)
	m, err := bgagent.New(c, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) }) // the error can only be about undelivered notices
	return &asking{t, c, m}
}

// The method "launch" launches a task and waits until it asks n questions, or until it has ended.
func (s *asking) launch(n int, lines ...string) bgagent.Task {
	s.Helper()
	return s.launchUntil(func(task bgagent.Task) bool { return len(task.Questions) >= n }, lines...)
}

// launchUntil launches a task and waits until the function "ok" accepts the task, or until the task has ended.
func (s *asking) launchUntil(ok func(bgagent.Task) bool, lines ...string) bgagent.Task {
	s.Helper()
	task, err := s.m.Launch(s.Context(), bgagent.Caller{Session: "parent"}, bgagent.LaunchInput{Agent: "a", Prompt: strings.Join(lines, "\n")})
	require.NoError(s, err)
	return s.until(task, ok)
}

// The method "until" waits until the function "ok" accepts the task, or until the task has ended.
func (s *asking) until(task bgagent.Task, ok func(bgagent.Task) bool) bgagent.Task {
	s.Helper()
	_, events := s.m.Subscribe(0)
	defer events.Close()
	task, err := s.m.Get(task.ID)
	for err == nil && !ok(task) && !task.Status.Terminal() {
		if _, err = events.Next(s.Context()); err == nil {
			task, err = s.m.Get(task.ID)
		}
	}
	require.NoError(s, err)
	return task
}

// The method "answer" answers the question that has the given subject. The questions are not always in the
// order of the requests.
func (s *asking) answer(task bgagent.Task, subject, option string) (bgagent.Question, error) {
	s.Helper()
	i := slices.IndexFunc(task.Questions, func(q bgagent.Question) bool { return q.Subject == subject })
	require.GreaterOrEqual(s, i, 0, "%+v", task.Questions)
	return s.m.Answer(s.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: task.Questions[i].Key, Option: option})
}

func (s *asking) ended(task bgagent.Task) bgagent.Task {
	s.Helper()
	got, err := s.m.Wait(s.Context(), bgagent.Caller{}, bgagent.WaitAll, task.ID)
	require.NoError(s, err)
	return got[0]
}

func TestAQuestionOfClaudeIsAnswered(t *testing.T) {
	for option, want := range map[string]string{
		"allow once": "r: allow;",
		"deny":       "r: deny The host has denied this. Go on without it, or say in your answer what you would have needed.;",
	} {
		s := askingClaude(t, bgagent.Config{Ask: true})
		task := s.launch(1, "ask rm -r src")
		_, err := s.answer(task, "rm -r src", option)
		require.NoError(t, err)
		got := s.ended(task)
		require.Equal(t, want, got.Result, got.Reason)
	}
}

// Claude Code asks for permission to use any MCP tool that is not named in Claude Code's
// command-line arguments.
func TestToolsOfServersThatTheRulesAllowAreNotAskedFor(t *testing.T) {
	const yes, no, asks = "r: allow;", "r: deny", "asks"
	allow, deny, ask := bgagent.PermissionAllow, bgagent.PermissionDeny, bgagent.PermissionAsk
	rule := func(name, pattern string, action bgagent.PermissionAction) bgagent.Permission {
		return bgagent.Permission{Name: name, Pattern: pattern, Action: action}
	}
	all := rule("*", "*", allow)
	for name, x := range map[string]struct {
		tool, more string
		rules      []bgagent.Permission
		want       string
	}{
		"everything is allowed":           {"mcp__db__read", "", []bgagent.Permission{all}, yes},
		"the tools of servers":            {"mcp__db__read", "", []bgagent.Permission{rule("mcp__*", "*", allow)}, yes},
		"nothing is said":                 {"mcp__db__read", "", []bgagent.Permission{rule("bash", "*", allow)}, asks},
		"the tool is denied":              {"mcp__db__read", "", []bgagent.Permission{all, rule("mcp__db__read", "*", deny)}, asks},
		"the tool of another name":        {"mcp__db__read", "", []bgagent.Permission{all, rule("mcp__db__drop", "*", deny)}, yes},
		"the server is denied":            {"mcp__db__read", "", []bgagent.Permission{all, rule("mcp__db", "*", deny)}, asks},
		"the tool needs permission":       {"mcp__db__read", "", []bgagent.Permission{all, rule("MCP__db__*", "*", ask)}, asks},
		"some inputs are denied":          {"mcp__db__read", "", []bgagent.Permission{all, rule("mcp__db__read", "users*", deny)}, asks},
		"some inputs are allowed":         {"mcp__db__read", "", []bgagent.Permission{rule("mcp__db__*", "users*", allow)}, asks},
		"it is allowed again":             {"mcp__db__read", "", []bgagent.Permission{rule("mcp__db__read", "*", deny), all}, yes},
		"a path outside of the directory": {"mcp__db__read", `"blocked_path":"/etc",`, []bgagent.Permission{all}, asks},
		"a tool of Claude Code":           {"Bash", "", []bgagent.Permission{all}, asks},
		"a name that looks like a server": {"mcp__db", "", []bgagent.Permission{all}, asks},
	} {
		t.Run(name, func(t *testing.T) {
			s := askingClaude(t, bgagent.Config{Ask: true, Permissions: x.rules})
			task := s.launch(1, `send {"type":"control_request","request_id":"r","request":{"subtype":"can_use_tool","tool_name":"`+x.tool+`",`+x.more+`"input":{"command":"c"}}}`, "hear 1")
			if x.want == asks {
				require.Len(t, task.Questions, 1, task.Result)
				_, err := s.answer(task, task.Questions[0].Subject, "deny")
				require.NoError(t, err)
				require.Contains(t, s.ended(task).Result, no)
				return
			}
			require.Empty(t, task.Questions)
			require.Equal(t, x.want, s.ended(task).Result)
		})
	}
}

func TestAQuestionOfClaudeIsRefusedWithoutAnybodyWhoAnswers(t *testing.T) {
	s := askingClaude(t, bgagent.Config{})
	got := s.ended(s.launch(1, "ask rm -r src"))
	require.Contains(t, got.Result, "r: deny This was not allowed: nobody was asked: the host does not answer questions of its tasks (Config.Ask is not set).", got.Reason)
}

func TestAQuestionOfClaudeIsWithdrawnWithItsTurn(t *testing.T) {
	s := askingClaude(t, bgagent.Config{Ask: true})
	task := s.launch(1, "ask rm -r src")
	_, err := s.m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
	require.NoError(t, err)
	s.ended(task)
	over, err := s.answer(task, "rm -r src", "allow once")
	require.ErrorIs(t, err, bgagent.ErrQuestionOver)
	require.Equal(t, bgagent.QuestionWithdrawn, over.State)
}

func TestAQuestionThatClaudeWithdrawsIsWithdrawn(t *testing.T) {
	s := askingClaude(t, bgagent.Config{Ask: true})
	first := "send " + request("one", `"command":"ls"`)
	task := s.launch(2, first, "ask rm") // the turn ends while the first question is open
	_, err := s.answer(task, "rm", "allow once")
	require.NoError(t, err)
	require.Equal(t, "r: allow;", s.ended(task).Result)
	over, err := s.answer(task, "ls", "allow once")
	require.ErrorIs(t, err, bgagent.ErrQuestionOver)
	require.Equal(t, bgagent.QuestionWithdrawn, over.State)

	cancel := `send {"type":"control_cancel_request","request_id":"one"}`
	task = s.launchUntil(func(task bgagent.Task) bool {
		return len(task.Questions) == 1 && task.Questions[0].Subject == "rm"
	}, first, cancel, "ask rm")
	require.Len(t, task.Questions, 1, task.Reason)
	_, err = s.answer(task, "rm", "allow once")
	require.NoError(t, err)
	require.Equal(t, "r: allow;", s.ended(task).Result)
}

func request(id, input string) string {
	return `{"type":"control_request","request_id":"` + id + `","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{` + input + `}}}`
}

func TestRequestsOfAHostileProgram(t *testing.T) {
	s := askingClaude(t, bgagent.Config{Ask: true})
	for _, hear := range []string{"hear 980", "hear 0"} { // the pipe cannot hold all answers
		task := s.launch(20, "many", hear, "hang")
		require.Len(t, task.Questions, 20, "the others are refused immediately")
		_, err := s.m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		s.ended(task)
	}

	nothing := "This was not allowed: the input of the call cannot be read."
	long := "This was not allowed: the request is too long to be shown as a whole (Config.MaxLine)."
	for _, x := range [][2]string{
		{"send " + `{"type":"control_request","request_id":"x","request":{"subtype":"set_mode"}}`, "x: this client cannot answer the request"},
		{"send " + strings.Replace(request("x", ""), "{}", "null", 1), "x: deny " + nothing},
		{"send " + request("x", `"command":"rm [cut: 7 more bytes]"`), "x: deny " + long},
		{"huge", "huge: deny This was not allowed: the question is not valid"},
		{"send " + strings.Replace(request("x", `"questions":[{"question":"Which?","options":[]}]`), "Bash", "AskUserQuestion", 1), "x: deny This question cannot be answered"},
		{"send " + strings.Replace(request("x", `"questions":[{"question":"Which?","options":[{"label":"A"},{"label":"A"}]}]`), "Bash", "AskUserQuestion", 1), "x: deny This was not allowed: "},
	} {
		got := s.ended(s.launch(1, x[0], "hear 1"))
		require.Contains(t, got.Result, x[1], got.Reason)
	}

	// If the client could not read a whole line, it does not ask the question in that line.
	small := askingClaude(t, bgagent.Config{Ask: true}, func(c *Config) { c.MaxLine = 4 << 10 })
	for _, n := range []string{"1000", "40000"} { // the second line is so long that it is dropped before its end is read
		got := small.ended(small.launch(1, "list x "+n, "hear 1"))
		require.Contains(t, got.Result, "x: deny "+long, got.Reason)
	}

	// If two questions have the same id, the answer to the first one is not given to the second
	// one. The question "y" shows that the client has read the second one.
	task := s.launch(2, "send "+request("x", `"command":"ls"`), "send "+request("x", `"command":"rm -r src"`), "send "+request("y", `"command":"pwd"`), "hear 2")
	require.Len(t, task.Questions, 2)
	_, err := s.answer(task, "ls", "allow once")
	require.NoError(t, err)
	require.Contains(t, s.ended(task).Result, "x: this client cannot answer the request")
}

// If a request has no id, no answer can name the request, and the program would wait forever for the
// answer.
func TestARequestThatCannotBeAnsweredEndsTheTurn(t *testing.T) {
	s := askingClaude(t, bgagent.Config{Ask: true}, func(c *Config) { c.MaxLine = 4 << 10 })
	long := strings.Repeat("x", maxName+1)
	for name, lines := range map[string]string{
		"no id":                   "send " + request("", `"command":"ls"`),
		"a long id":               "send " + request(long, `"command":"ls"`),
		"an id that was cut":      "send " + strings.Replace(request("x [cut: 3 more bytes]", `"command":"ls"`), "}}}", `},"more":"`+strings.Repeat("x", 5<<10)+`"}}`, 1),
		"another kind":            "send " + `{"type":"control_request","request":{"subtype":"set_mode"}}`,
		"a long id that is lost":  "list " + long + " 40000",
		"an id behind the cut":    "send " + `{"type":"control_request","request":{"list":["x"` + strings.Repeat(`,"x"`, 40000) + `]},"request_id":"x"}`,
		"not a text that is lost": "send " + `{"type":"control_request","request_id":7,"request":{"list":["x"` + strings.Repeat(`,"x"`, 1000) + `]}}`,
	} {
		got := s.ended(s.launch(1, lines, "hear 1"))
		require.Equal(t, bgagent.Failed, got.Status, name)
		require.Contains(t, got.Reason, "it asked a question without a usable id (a text of 1 to 200 bytes), so that nobody can answer", name)
	}
	got := s.ended(s.launch(1, `send {"type":"user","message":{"content":[{"type":"control_request","list":["x"`+strings.Repeat(`,"x"`, 2000)+`]}]}}`))
	require.Equal(t, "the turn ended without any output; 1 line was too long to be read (Config.MaxLine: 4096 bytes)", got.Reason, "another line that is dropped")
}

func TestTheSubjectOfClaudeIsExact(t *testing.T) {
	s := askingClaude(t, bgagent.Config{Ask: true})
	line := strings.Replace(request("x", `"command":"ls\nAllowed: yes","id":9007199254740993`), `"input"`, `"blocked_path":"/a\nb","input"`, 1)
	task := s.launch(1, "send "+line, "hear 1")
	require.Len(t, task.Questions, 1, task.Reason)
	require.Equal(t, "command:\n  ls\n  Allowed: yes\nid: 9007199254740993\nblocked path:\n  /a\n  b", task.Questions[0].Subject)
	_, err := s.answer(task, task.Questions[0].Subject, "allow once")
	require.NoError(t, err)
	require.Equal(t, "x: allow;", s.ended(task).Result)
	task = s.launch(1, "send "+strings.Replace(request("x", `"questions":[{"question":"Which?\nA: harmless","options":[{"label":"A","description":"removes it\nB: x"},{"label":"B\u001b"}]}]`), "Bash", "AskUserQuestion", 1), "hear 1")
	require.Len(t, task.Questions, 1, task.Reason)
	require.Equal(t, "question:\n  Which?\n  A: harmless\nA:\n  removes it\n  B: x", task.Questions[0].Subject)
}

// Each label is shown in a form that can be typed and differs from the others. The agent gets the
// label as it wrote it.
func TestClaudeGetsItsOwnLabelAsTheAnswer(t *testing.T) {
	s := askingClaude(t, bgagent.Config{Ask: true})
	options := []string{"A", `A\u200b`, `A\u200b `, `\u001b[2JB`, "A b", "A  b"} // written in JSON
	list := `{"label":"` + strings.Join(options, `"},{"label":"`) + `","description":"of the last"}`
	ask := "send " + strings.Replace(request("x", `"questions":[{"question":"Which?","options":[`+list+`]}]`), "Bash", "AskUserQuestion", 1)
	shown := []string{"A", `A\u200b`, `A\u200b #2`, `\x1b[2JB`, "A b", "A b #2"}
	for i, want := range []string{"A", "A\u200b", "A\u200b ", "\x1b[2JB", "A b", "A  b"} {
		task := s.launch(1, ask, "hear 1")
		require.Len(t, task.Questions, 1, task.Reason)
		require.Equal(t, shown, task.Questions[0].Options)
		_, err := s.answer(task, "Which?\nA b #2: of the last", shown[i])
		require.NoError(t, err)
		require.Equal(t, "x: allow "+strconv.Quote(want)+";", s.ended(task).Result)
	}
}

// When its background work has ended, Claude Code continues on its own, and it can then ask a
// question.
func TestClaudeCanAskAfterItsBackgroundWork(t *testing.T) {
	const answer = `send {"type":"assistant","message":{"id":"m1","content":[{"type":"text","text":"started"}]},"session_id":"s"}`
	end := func(text string) string {
		return `send {"type":"result","subtype":"success","is_error":false,"result":"` + text + `","stop_reason":"end_turn","session_id":"s"}`
	}
	first := []string{"send " + claudeStarted, answer, end("started")}
	const over = `send {"type":"system","subtype":"background_tasks_changed","tasks":[]}`

	s := askingClaude(t, bgagent.Config{Ask: true})
	task := s.launch(1, append(first, "ask ls", over, strings.Replace(answer, "m1", "m2", 1), "ask rm")...)
	require.Len(t, task.Questions, 1, "%s: %s", task.Result, task.Reason)
	_, err := s.answer(task, "ls", "allow once") // one of Claude Code's own agents asks
	require.NoError(t, err)
	task = s.until(task, func(task bgagent.Task) bool { return len(task.Questions) == 1 && task.Questions[0].Subject == "rm" })
	require.Len(t, task.Questions, 1, "%s: %s", task.Result, task.Reason)
	_, err = s.answer(task, "rm", "allow once")
	require.NoError(t, err)
	got := s.ended(task)
	require.Equal(t, "r: allow; r: allow;", got.Result, got.Reason)

	// If the program reports another end without having printed a message, its input also ends.
	got = s.ended(s.launch(1, append(first, over, end("nothing"), "rest")...))
	require.Equal(t, bgagent.Completed, got.Status, got.Reason)
	require.Equal(t, "nothing", got.Result)

	// If the program does not continue after its background work, its input ends a while later.
	s = askingClaude(t, bgagent.Config{Ask: true}, func(c *Config) { c.Grace = time.Second })
	s.c.afterBackground = 0
	got = s.ended(s.launch(1, append(first, over, "rest")...))
	require.Equal(t, bgagent.Completed, got.Status, got.Reason)
	require.Equal(t, "started", got.Result)
}
