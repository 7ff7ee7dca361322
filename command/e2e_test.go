//go:build linux

package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/stretchr/testify/require"
)

// real is a real program.
type real struct {
	name  string
	agent func(w *realagent.World) Agent
	shell func(command string) string // returns a line of the model's script that makes the program run the shell command
	is    string                      // part of the program's own command line
}

func inWorld(w *realagent.World, p Program, argv []string, model string) Agent {
	return Agent{Program: p, Command: argv, Env: w.Env, Model: model}
}

var reals = []real{
	{
		name: "codex", is: "exec",
		agent: func(w *realagent.World) Agent { return inWorld(w, Codex(), w.Codex(), "") },
		shell: func(c string) string { return fmt.Sprintf(`@tool exec_command {"cmd":%q}`, c) },
	},
	{
		name: "gemini", is: "gemini.js",
		agent: func(w *realagent.World) Agent {
			return inWorld(w, Gemini(), w.Gemini(), realagent.GeminiModel)
		},
		shell: func(c string) string {
			return fmt.Sprintf(`@tool run_shell_command {"command":%q,"description":"a test"}`, c)
		},
	},
	{
		name: "claude", is: "--output-format stream-json",
		agent: func(w *realagent.World) Agent { return inWorld(w, Claude(), w.Claude(), "") },
		shell: func(c string) string {
			return fmt.Sprintf(`@tool Bash {"command":%q,"description":"a test"}`, strings.ReplaceAll(c, "sleep", "env sleep"))
		},
	},
	{
		name: "opencode", is: "run --format json",
		agent: func(w *realagent.World) Agent { return inWorld(w, Opencode(), w.Opencode(), "") },
		shell: func(c string) string {
			return fmt.Sprintf(`@tool bash {"command":%q,"description":"a test"}`, c)
		},
	},
}

// scene is a manager that runs one real program.
type scene struct {
	*testing.T
	real
	w *realagent.World
	c *Client
	m *bgagent.BackgroundManager
}

var root = bgagent.Caller{Session: "root"}

// everything is a rule that allows everything. Gemini and claude need it to run commands.
var everything = []bgagent.Permission{{Name: "*", Pattern: "*", Action: bgagent.PermissionAllow}}

func (r real) scene(t *testing.T, cfg bgagent.Config, change ...func(*Agent)) *scene {
	t.Helper()
	w := realagent.New(t, r.name)
	a := r.agent(w)
	for _, f := range change {
		f(&a)
	}
	if (r.name == "gemini" || r.name == "claude") && cfg.Permissions == nil {
		cfg.Permissions = everything
	}
	c := clientOf(t, a, func(cc *Config) { cc.Directory, cc.Grace = w.Dir, 0 })
	cfg.StopTimeout = limit
	m, err := bgagent.New(c, cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		var left *bgagent.CloseError // can only be about notices that were not delivered
		if err := m.Close(context.Background()); errors.As(err, &left) {
			require.Empty(t, left.NotStopped)
			require.Empty(t, left.Hung)
		}
	})
	return &scene{T: t, real: r, w: w, c: c, m: m}
}

// limit is the time limit for a normal task on a busy machine.
const limit = 5 * time.Minute

func (s *scene) run(prompt string) bgagent.Task {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), limit)
	defer cancel()
	task, err := s.m.Run(ctx, root, bgagent.LaunchInput{Agent: "a", Prompt: prompt})
	require.NoError(s, err)
	return task
}

func (s *scene) completed(task bgagent.Task, text string) {
	s.Helper()
	require.Equal(s, bgagent.Completed, task.Status, "%s: %s", task.Cause, task.Reason)
	require.Equal(s, text, task.Result)
}

func (s *scene) launch(prompt string) bgagent.Task {
	s.Helper()
	task, err := s.m.Launch(s.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: prompt})
	require.NoError(s, err)
	return task
}

// The method "ended" returns when a task has ended and everything that it started has stopped.
func (s *scene) ended(id string) bgagent.Task {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), limit)
	defer cancel()
	tasks, err := s.m.Wait(ctx, root, bgagent.WaitAll, id)
	require.NoError(s, err)
	require.NoError(s, s.m.Quiet(ctx, id))
	return tasks[0]
}

// The method "cancelled" cancels a task and checks that no process of the task is left.
func (s *scene) cancelled(id string) {
	s.Helper()
	_, err := s.m.Cancel(s.Context(), root, id, bgagent.CancelOptions{})
	require.NoError(s, err)
	require.Equal(s, bgagent.Cancelled, s.ended(id).Status)
	s.nothingLeft()
}

// nothingLeft checks that no process of the realagent.World is running. A killed process can stay
// in the process table for a moment.
func (s *scene) nothingLeft() {
	s.Helper()
	if !until(20*time.Second, func() bool { return len(s.w.Processes()) == 0 }) {
		s.Errorf("left running: %s", strings.Join(s.w.Processes(), "\n"))
	}
}

// modelOpen waits until the model is answering.
func (s *scene) modelOpen() {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), limit)
	defer cancel()
	require.NoError(s, s.w.Model.WaitFor(ctx, func(all []modelserver.Request) bool {
		return slices.ContainsFunc(all, func(r modelserver.Request) bool { return r.Kind == modelserver.Main && !r.Done })
	}))
}

// The method "process" waits until a process of the realagent.World is running whose command line
// contains the given words.
func (s *scene) process(words string) {
	s.Helper()
	require.True(s, until(limit, func() bool { return strings.Contains(strings.Join(s.w.Processes(), "\n"), words) }), "no process has %q", words)
}

// The function "until" polls a condition until it is true. It reports false if the condition is not
// true within the limit.
func until(limit time.Duration, holds func() bool) bool {
	for end := time.Now().Add(limit); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// The function "each" runs a test with every program.
func each(t *testing.T, f func(t *testing.T, r real)) {
	t.Parallel()
	for _, r := range reals {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			f(t, r)
		})
	}
}

func TestRealToolsUsageAndFollowUps(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{})
		task := s.run(s.shell("sleep 0.3; echo one > made.txt") + "\n@say done")
		s.completed(task, "done")
		require.Equal(t, 1, task.Progress.ToolCalls)
		require.Positive(t, task.Progress.Usage.InputTokens)
		require.FileExists(t, filepath.Join(s.w.Dir, "made.txt"))

		own, err := s.c.ProgramSession(task.Session)
		require.NoError(t, err)
		require.NotEmpty(t, own)
		used := task.Progress.Usage.OutputTokens
		task, err = s.m.RunResume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "@say again"})
		require.NoError(t, err)
		s.completed(task, "again")
		require.Less(t, task.Progress.Usage.OutputTokens, 10*used)
		last := s.w.Model.Requests()[len(s.w.Model.Requests())-1]
		require.Contains(t, fmt.Sprint(last.Messages), "made.txt", "the model sees what was said before")
		now, err := s.c.ProgramSession(task.Session)
		require.NoError(t, err)
		require.Equal(t, own, now)
		s.nothingLeft()
	})
}

func TestRealPromptsThatLookLikeCommandsReachTheModel(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{})
		for _, begin := range []string{"/quit", " \n/help me", "!ls and $help", "# a title of @/etc/hostname"} {
			s.completed(s.run(begin+"\n@say found it"), "found it")
			requests := s.w.Model.Requests()
			require.Contains(t, requests[len(requests)-1].LastUser(), strings.TrimSpace(begin))
		}
	})
}

func TestRealCancelInTheMiddleOfAStream(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{})
		task := s.launch("@hang I begin")
		s.modelOpen()
		s.cancelled(task.ID)
		s.w.Model.Handle(func(q modelserver.Request) modelserver.Reply {
			if strings.Contains(q.LastUser(), "@say here again") { // gemini puts both prompts into one message
				return modelserver.Say("here again")
			}
			return q.Scripted()
		})
		again, err := s.m.RunResume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "@say here again"})
		require.NoError(t, err)
		s.completed(again, "here again")
	})
}

func TestRealCancelDuringATool(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{})
		task := s.launch(s.shell("sleep 301 & sleep 302") + "\n@say done")
		s.process("sleep 302")
		s.process("sleep 301")
		s.cancelled(task.ID)
		s.w.Model.Handle(func(modelserver.Request) modelserver.Reply { return modelserver.Say("here again") })
		again, err := s.m.RunResume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "Are you there?"})
		require.NoError(t, err)
		s.completed(again, "here again")
	})
}

func TestRealKillInMidTurn(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{})
		task := s.launch(s.shell("sleep 303") + "\n@say done")
		s.process("sleep 303")
		killed := 0
		for _, line := range s.w.Processes() {
			pid, err := strconv.Atoi(strings.Fields(line)[0])
			require.NoError(t, err)
			if strings.Contains(line, s.is) && parentOf(pid) == os.Getpid() {
				require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
				killed++
			}
		}
		require.Equal(t, 1, killed, "%s", s.w.Processes())
		task = s.ended(task.ID)
		require.Equal(t, bgagent.Failed, task.Status)
		require.Contains(t, task.Reason, "it was terminated by a signal from outside (killed)")
		s.nothingLeft()
	})
}

func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

func TestRealModelRefuses(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{})
		task := s.run("@error 400 no thanks")
		require.Equal(t, bgagent.Failed, task.Status)
		require.Equal(t, bgagent.CauseSessionError, task.Cause)
		require.Contains(t, task.Reason, "no thanks")
		s.nothingLeft()
	})
}

func TestRealModelFailsTwiceAndIsTriedAgain(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{})
		s.completed(s.run("@error 500 times=2 broken\n@say recovered"), "recovered")
	})
}

func TestRealModelLimitsTheRate(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{})
		s.completed(s.run("@error 429 times=1 retry-after=1 slow down\n@say recovered"), "recovered")
	})
}

func TestRealModelHangsUntilTheTimeToLive(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{TimeToLive: 8 * time.Second})
		task := s.ended(s.launch("@mute").ID)
		require.Equal(t, bgagent.CauseTimeToLive, task.Cause, task.Reason)
		s.nothingLeft()
	})
}

func TestRealWrongArguments(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{}, func(a *Agent) { a.Args = []string{"--no-such-flag"} })
		task := s.run("@say hello")
		require.Equal(t, bgagent.Failed, task.Status)
		require.Contains(t, task.Reason, "it exited with code")
	})
}

func TestRealCodexThreeTasksWithALimitOfTwo(t *testing.T) {
	t.Parallel()
	s := reals[0].scene(t, bgagent.Config{Limits: bgagent.Limits{Default: 2}})
	isMain := func(r modelserver.Request) bool { return r.Kind == modelserver.Main }
	bySession := func(r modelserver.Request) string { return r.Session }
	s.w.Model.Handle(modelserver.Together(2, isMain, bySession, nil))
	var ids []string
	for _, name := range []string{"one", "two", "three"} {
		ids = append(ids, s.launch("@slow 10 100ms\n@say "+name).ID)
	}
	for i, name := range []string{"one", "two", "three"} {
		s.completed(s.ended(ids[i]), name)
	}
	require.Equal(t, 2, s.w.Model.MaxOpen(isMain, bySession))
	live, owed := s.m.Outstanding("root")
	require.Equal(t, 0, live)
	notice, err := s.m.NextNotice(t.Context(), "root")
	require.NoError(t, err)
	require.Len(t, notice.Items, 3, "owed were %d", owed)
	s.nothingLeft()
}

func TestRealRulesAreEnforced(t *testing.T) {
	look := []bgagent.Permission{
		{Name: "edit", Pattern: "*", Action: bgagent.PermissionDeny},
		{Name: "bash", Pattern: "*", Action: bgagent.PermissionDeny},
	}
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{Permissions: look})
		task := s.run(s.shell("echo x > made.txt") + "\n@say done")
		require.NoFileExists(t, filepath.Join(s.w.Dir, "made.txt"))
		s.completed(task, "done")
	})
}

func TestRealSystemTextAndModelReachTheModel(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{})
		model := map[string]string{"codex": "another", "gemini": "gemini-2.5-pro", "claude": "claude-opus-4-5", "opencode": "scripted/other"}[r.name]
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		task, err := s.m.Run(ctx, root, bgagent.LaunchInput{Agent: "a", Model: model, System: "Answer in \"verse\".", Prompt: "--dash 'q' \"d\" $HOME\n@say done"})
		require.NoError(t, err)
		s.completed(task, "done")
		requests := s.w.Model.Requests()
		i := slices.IndexFunc(requests, func(q modelserver.Request) bool { return q.Kind == modelserver.Main })
		require.GreaterOrEqual(t, i, 0)
		q := requests[i]
		require.Contains(t, model, q.Model)
		require.Contains(t, q.System+q.LastUser(), `Answer in "verse".`)
		require.Contains(t, q.LastUser(), "--dash 'q' \"d\" $HOME\n@say done")
	})
}

var slow = flag.Bool("command.slow", false, "hold gemini and opencode against the conformance suite, too: they take seconds for every turn, and minutes for it. Also kill the host of each program at all moments and in all ways")

func TestRealConformance(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		if r.name != "codex" && !*slow {
			t.Skip("takes minutes: only with -command.slow")
		}
		fixed := func(prompt string) func() string { return func() string { return prompt } }
		w := realagent.New(t, r.name)
		w.Model.Handle(recalls)
		bgagenttest.Conformance(t, bgagenttest.Harness{
			New: func(tb bgagenttest.TB) bgagent.SessionClient {
				a := r.agent(w)
				if r.name == "gemini" {
					a.Args = append(a.Args, "--approval-mode=yolo")
				}
				c, err := New(Config{Agents: map[string]Agent{"a": a}})
				if err != nil {
					tb.Fatalf("New: %v", err)
				}
				tb.Cleanup(func() { _ = c.Close(context.Background()) })
				if r.name == "codex" {
					return c
				}
				// For the other programs, the optional interfaces are left out, because the client
				// implements them in the same way for all programs, and each turn of a real program
				// takes seconds.
				return struct {
					bgagent.TurnRunner
					bgagent.SessionClient
				}{c, c}
			},
			Agent: "a", Parent: "root", Directory: w.Dir, MayRepeat: true, TurnTime: limit, Soon: time.Minute,
			Say:  func(text string) string { return "@say " + text },
			Slow: fixed("@hang I wait"), Fail: fixed("@error 400 no thanks"),
			Tool: fixed(r.shell("sleep 0.3") + "\n@say done"), Recall: fixed("@say (recall)"),
		})
	})
}

// If a prompt contains (recall), the function "recalls" answers it with the first prompt of the
// conversation. It answers any other prompt according to the script in the prompt. With gemini, an
// unanswered prompt is put in front of the next prompt; in that case, the function follows the last
// script.
func recalls(r modelserver.Request) modelserver.Reply {
	text := r.LastUser()
	if strings.Contains(text, "(recall)") {
		for _, m := range r.Messages {
			if _, script, ok := strings.Cut(m.Text, "@say"); ok && m.Role == modelserver.User {
				return modelserver.Say("@say" + script)
			}
		}
	}
	if i := strings.LastIndex(text, "@say "); i >= 0 && !strings.Contains(text, "@tool") {
		return modelserver.Say(strings.TrimSpace(text[i+len("@say "):]))
	}
	return r.Scripted()
}
