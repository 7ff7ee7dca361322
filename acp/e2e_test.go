package acp

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/stretchr/testify/require"
)

// real is a real agent program.
type real struct {
	name string
	auth string
	// streams says that text is told while the model still writes it.
	streams bool
	argv    func(w *realagent.World) []string
	// Tools of the agent: to run a command, to write and to read a file.
	bash, write, read func(arg, text string) string
}

var (
	opencode = real{
		name: "opencode", streams: true,
		argv: func(w *realagent.World) []string { return w.Opencode("acp") },
		bash: func(cmd, _ string) string {
			return `@tool bash {"command":"` + cmd + `","description":"as told"}`
		},
		write: func(path, text string) string {
			return `@tool write {"filePath":"` + path + `","content":"` + text + `"}`
		},
		read: func(path, _ string) string { return `@tool read {"filePath":"` + path + `"}` },
	}
	gemini = real{
		name: "gemini", auth: "gemini-api-key",
		argv: func(w *realagent.World) []string { return w.Gemini("-m", realagent.GeminiModel, "--acp") },
		bash: func(cmd, _ string) string {
			return `@tool run_shell_command {"command":"` + cmd + `","description":"as told"}`
		},
		write: func(path, text string) string {
			return `@tool write_file {"file_path":"` + path + `","content":"` + text + `"}`
		},
		read: func(path, _ string) string { return `@tool read_file {"file_path":"` + path + `"}` },
	}
	reals = []real{opencode, gemini}
)

// config is a configuration for the program in the world.
func (a real) config(w *realagent.World) Config {
	return Config{
		Command: a.argv(w), Dir: w.Dir, Env: w.Env, Auth: a.auth, StartTimeout: time.Minute,
		Agents: map[string]Agent{a.name: {}},
	}
}

// recalling answers what the user said first, when it is asked for that.
func recalling(r modelserver.Request) modelserver.Reply {
	if !strings.Contains(r.LastUser(), "What did I say first?") {
		return r.Scripted()
	}
	for _, m := range r.Messages {
		if _, said, ok := strings.Cut(m.Text, "@"); ok && m.Role == modelserver.User {
			return modelserver.Say("You said: " + said)
		}
	}
	return modelserver.Say("You said nothing.")
}

func TestConformanceOfRealAgents(t *testing.T) {
	for _, a := range reals {
		t.Run(a.name, func(t *testing.T) {
			w := realagent.New(t, a.name)
			w.Model.Handle(recalling)
			c := open(t, a.config(w)) // the checks share it: a process needs seconds to start, and is to have many sessions
			fixed := func(prompt string) func() string { return func() string { return prompt } }
			bgagenttest.Conformance(t, bgagenttest.Harness{
				New:   func(bgagenttest.TB) bgagent.SessionClient { return c },
				Agent: a.name, Directory: w.Dir,
				Say:  func(text string) string { return "@say " + text },
				Slow: fixed("@hang It takes a while."), Fail: fixed("@error 400 as told"),
				Tool:          fixed(a.read(w.Dir+"/nothing", "") + "\n@say used"),
				KeepsPromptID: true, Soon: 20 * time.Second,
			})
		})
	}
}

var root = bgagent.Caller{Session: "root"}

// scene is a manager with a real agent behind it.
type scene struct {
	*testing.T
	real
	w *realagent.World
	c *Client
	m *bgagent.BackgroundManager
}

// eachReal runs a test with every real agent.
func eachReal(t *testing.T, cfg bgagent.Config, edit func(*Config), test func(s *scene)) {
	for _, a := range reals {
		t.Run(a.name, func(t *testing.T) {
			w := realagent.New(t, a.name)
			w.Model.Handle(recalling)
			ac := a.config(w)
			if edit != nil {
				edit(&ac)
			}
			c := open(t, ac)
			m, err := bgagent.New(c, cfg)
			require.NoError(t, err)
			t.Cleanup(func() {
				var left *bgagent.CloseError // ends that nobody was told of are the test's own business
				if err := m.Close(context.Background()); err != nil {
					require.ErrorAs(t, err, &left)
					require.Empty(t, left.NotStopped)
					require.Empty(t, left.Hung)
				}
			})
			test(&scene{T: t, real: a, w: w, c: c, m: m})
		})
	}
}

// launch launches a task.
func (s *scene) launch(prompt string) bgagent.Task {
	s.Helper()
	task, err := s.m.Launch(s.Context(), root, bgagent.LaunchInput{Agent: s.name, Prompt: prompt, Description: "a test"})
	require.NoError(s, err)
	return task
}

// ended waits for the end of tasks.
func (s *scene) ended(ids ...string) []bgagent.Task {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 2*time.Minute)
	defer cancel()
	tasks, err := s.m.Wait(ctx, root, bgagent.WaitAll, ids...)
	require.NoError(s, err)
	return tasks
}

// run launches a task and waits for its end.
func (s *scene) run(prompt string) bgagent.Task {
	s.Helper()
	return s.ended(s.launch(prompt).ID)[0]
}

// until waits until the requests to the model are as wanted.
func (s *scene) until(ok func([]modelserver.Request) bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	require.NoError(s, s.w.Model.WaitFor(ctx, ok))
}

// asked waits until the model is being asked what contains the text.
func (s *scene) asked(text string) {
	s.Helper()
	s.until(func(list []modelserver.Request) bool {
		for _, r := range list {
			if r.Kind == modelserver.Main && !r.Done && strings.Contains(r.LastUser(), text) {
				return true
			}
		}
		return false
	})
}

// follow waits for an event of the task.
func (s *scene) follow(id string, ok func(bgagent.Task) bool) bgagent.Task {
	s.Helper()
	tasks, sub := s.m.Subscribe(0)
	defer sub.Close()
	for _, task := range tasks {
		if task.ID == id && ok(task) {
			return task
		}
	}
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	for {
		e, err := sub.Next(ctx)
		require.NoError(s, err)
		if e.Task.ID == id && ok(e.Task) {
			return e.Task
		}
	}
}

// cancel cancels a task and waits until nothing of it runs.
func (s *scene) cancel(id string) bgagent.Task {
	s.Helper()
	_, err := s.m.Cancel(s.Context(), root, id, bgagent.CancelOptions{})
	require.NoError(s, err)
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	require.NoError(s, s.m.Quiet(ctx, id))
	task, err := s.m.Get(id)
	require.NoError(s, err)
	return task
}

func isMain(r modelserver.Request) bool { return r.Kind == modelserver.Main }

func TestThreeTasksAtOnceKeepToALimitOfTwo(t *testing.T) {
	eachReal(t, bgagent.Config{Limits: bgagent.Limits{Default: 2}}, nil, func(s *scene) {
		var ids []string
		for i := range 3 {
			ids = append(ids, s.launch(fmt.Sprintf("@key k%d\n@slow 10 50ms\n@say the answer is number %d", i, i)).ID)
		}
		for i, task := range s.ended(ids...) {
			require.Equal(s, bgagent.Completed, task.Status, task.Reason)
			require.Equal(s, fmt.Sprintf("the answer is number %d", i), task.Result)
			require.Positive(s, task.Progress.Usage.OutputTokens)
		}
		require.Equal(s, 2, s.w.Model.MaxOpen(isMain, func(r modelserver.Request) string { return r.Key }))
		n, err := s.m.NextNotice(s.Context(), root.Session)
		require.NoError(s, err)
		require.Len(s, n.Items, 3)
		_, err = s.m.NextNotice(s.Context(), root.Session)
		require.ErrorIs(s, err, bgagent.ErrNothingOwed)
	})
}

func TestACancelledTaskStopsItsModel(t *testing.T) {
	eachReal(t, bgagent.Config{}, nil, func(s *scene) {
		task := s.launch("@hang so far so good")
		s.asked("so far so good")
		if s.streams {
			s.follow(task.ID, func(task bgagent.Task) bool { return task.Progress.LastMessage != "" })
		}
		began := time.Now()
		task = s.cancel(task.ID)
		s.Logf("quiet %v after the cancellation", time.Since(began))
		require.Equal(s, bgagent.Cancelled, task.Status)
		if s.streams {
			require.Contains(s, task.Result, "so far so good")
			require.True(s, task.Partial)
		}
		s.until(func(list []modelserver.Request) bool { return s.w.Model.Open(isMain) == 0 })
		// The session is as good as before.
		_, err := s.m.Resume(s.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "@say on we go"})
		require.NoError(s, err)
		require.Equal(s, "on we go", s.ended(task.ID)[0].Result)
	})
}

func TestACancelledTaskStopsItsTool(t *testing.T) {
	allow := func(c *Config) {
		c.Permit = func(context.Context, PermissionRequest) PermissionAnswer { return PermissionAnswer{Allow: true} }
	}
	eachReal(t, bgagent.Config{}, allow, func(s *scene) {
		task := s.launch(s.bash("touch begun; sleep 300", "") + "\n@say never")
		s.appears(filepath.Join(s.w.Dir, "begun"))
		require.Positive(s, s.sleepers())
		task = s.cancel(task.ID)
		require.Equal(s, bgagent.Cancelled, task.Status)
		require.Zero(s, s.sleepers(), "the command runs on")
	})
}

// sleepers counts the processes of the world that sleep.
func (s *scene) sleepers() (n int) {
	for _, p := range s.w.Processes() {
		if strings.Contains(p, "sleep 300") {
			n++
		}
	}
	return n
}

// appears waits for a file.
func (s *scene) appears(path string) {
	s.Helper()
	require.Eventually(s, func() bool { _, err := os.Stat(path); return err == nil }, time.Minute, 5*time.Millisecond)
}

func TestAQuestionIsAnsweredByTheHost(t *testing.T) {
	var asked atomic.Pointer[PermissionRequest]
	edit := func(c *Config) {
		c.Permit = func(_ context.Context, q PermissionRequest) PermissionAnswer {
			asked.Store(&q)
			return PermissionAnswer{Allow: strings.Contains(q.Title+fmt.Sprint(q.Input), "allowed"), Reason: "not that one"}
		}
	}
	eachReal(t, bgagent.Config{}, edit, func(s *scene) {
		s.asksFirst()
		task := s.run(s.bash("touch allowed", "") + "\n@say done")
		require.Equal(s, bgagent.Completed, task.Status, task.Reason)
		require.Equal(s, "done", task.Result)
		require.FileExists(s, filepath.Join(s.w.Dir, "allowed"))
		require.Equal(s, task.ID, asked.Load().Task)
		require.Equal(s, task.Session, asked.Load().Session)
		require.Equal(s, "execute", asked.Load().Kind)

		task = s.run(s.bash("touch forbidden", "") + "\n@say done")
		s.Logf("%s (%s): %s", task.Status, task.Cause, task.Reason)
		require.NoFileExists(s, filepath.Join(s.w.Dir, "forbidden"))
		if task.Status != bgagent.Completed { // it may also tell its model, and go on
			require.Contains(s, task.Reason, "not that one")
		}
	})
}

// asksFirst makes opencode ask before it runs a command; gemini does anyway.
func (s *scene) asksFirst() {
	if s.name == opencode.name {
		s.w.OpencodeConfig(s, func(config map[string]any) {
			config["permission"] = map[string]any{"bash": "ask", "edit": "ask"}
		})
	}
}

func TestWithoutAPolicyEverythingAskedForIsRefused(t *testing.T) {
	eachReal(t, bgagent.Config{}, nil, func(s *scene) {
		s.asksFirst()
		task := s.run(s.bash("touch forbidden", "") + "\n@say done")
		s.Logf("%s (%s): %s", task.Status, task.Cause, task.Reason)
		require.NoFileExists(s, filepath.Join(s.w.Dir, "forbidden"))
		require.Equal(s, 1, task.Progress.ToolCalls)
	})
}

func TestAModelThatFailsFailsItsTask(t *testing.T) {
	eachReal(t, bgagent.Config{}, nil, func(s *scene) {
		task := s.run("@error 400 you cannot ask for that")
		require.Equal(s, bgagent.Failed, task.Status)
		require.Contains(s, task.Reason, "you cannot ask for that")

		task = s.run("@error 429 times=1 retry-after=1 slow down\n@say patience pays")
		require.Equal(s, bgagent.Completed, task.Status, task.Reason)
		require.Equal(s, "patience pays", task.Result)

		task = s.run("@error 500 times=1 hiccup\n@say better now")
		require.Equal(s, bgagent.Completed, task.Status, task.Reason)
		require.Equal(s, "better now", task.Result)
	})
}

func TestAModelThatNeverAnswersIsEndedByTheLimits(t *testing.T) {
	eachReal(t, bgagent.Config{TimeToLive: 8 * time.Second}, nil, func(s *scene) {
		for _, script := range []string{"@mute", "@error 500 broken for good"} {
			task := s.run(script)
			require.Equal(s, bgagent.Cancelled, task.Status)
			require.Equal(s, bgagent.CauseTimeToLive, task.Cause)
			ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
			require.NoError(s, s.m.Quiet(ctx, task.ID))
			cancel()
			s.until(func([]modelserver.Request) bool { return s.w.Model.Open(isMain) == 0 })
		}
	})
}

// agents returns the ids of the agent's own processes: those that the client
// has started.
func (s *scene) agents() (pids []int) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for p := range s.c.all {
		pids = append(pids, p.run.pid)
	}
	return pids
}

// age makes gemini's records of its sessions a year older. It names them by id
// and minute, and writes over one that it is to load in the minute in which it
// was made; then it finds nothing in it.
func (s *scene) age() {
	s.Helper()
	if s.name != gemini.name {
		return
	}
	records, err := filepath.Glob(filepath.Join(filepath.Dir(s.w.Dir), "home/.gemini/tmp/*/chats/session-*"))
	require.NoError(s, err)
	require.NotEmpty(s, records)
	for _, r := range records {
		id := r[strings.LastIndex(r, "-"):]
		require.NoError(s, os.Rename(r, filepath.Join(filepath.Dir(r), "session-2025-01-01T00-00"+id)))
	}
}

func TestAKilledAgentInterruptsItsTurnsAndIsStartedAgain(t *testing.T) {
	allow := func(c *Config) {
		c.Permit = func(context.Context, PermissionRequest) PermissionAnswer { return PermissionAnswer{Allow: true} }
	}
	eachReal(t, bgagent.Config{}, allow, func(s *scene) {
		first := s.run("@say marzipan")
		require.Equal(s, "marzipan", first.Result, first.Reason)
		one := s.launch("@hang half an ans")
		two := s.launch(s.bash("touch begun; sleep 300", "") + "\n@say never")
		s.asked("half an ans")
		s.appears(filepath.Join(s.w.Dir, "begun"))
		require.Len(s, s.agents(), 1)
		require.NoError(s, syscall.Kill(s.agents()[0], syscall.SIGKILL))
		began := time.Now()
		for _, task := range s.ended(one.ID, two.ID) {
			s.Logf("%s (%s): %s", task.Status, task.Cause, task.Reason)
			require.Equal(s, bgagent.Failed, task.Status)
			require.Contains(s, task.Reason, "killed")
		}
		s.Logf("ended, with all children gone, after %v", time.Since(began))
		require.Empty(s, s.w.Processes(), "children of the killed agent are alive")

		s.age()
		_, err := s.m.Resume(s.Context(), root, first.ID, bgagent.ResumeInput{Prompt: "What did I say first?"})
		require.NoError(s, err)
		task := s.ended(first.ID)[0]
		require.Equal(s, bgagent.Completed, task.Status, task.Reason)
		require.Contains(s, task.Result, "marzipan")
		_, err = s.m.Resume(s.Context(), root, one.ID, bgagent.ResumeInput{Prompt: "What did I say first?"})
		require.NoError(s, err)
		require.Contains(s, s.ended(one.ID)[0].Result, "half an ans")
		require.Len(s, s.agents(), 1)
	})
}
