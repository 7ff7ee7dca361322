//go:build unix

package acp

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	name    string
	program string // name in the package realagent; if empty, the value of "name" is used
	auth    string
	model   string // model that the program offers; not the default model if it offers several
	// streams means that text is reported while the model writes it.
	streams bool
	argv    func(w *realagent.World) []string
	// These functions return script lines that make the agent run a command, write a file
	// and read a file.
	bash, write, read func(arg, text string) string
	todos             string // script that sets two todos: "look" is completed, "write" is pending
}

var (
	opencode = real{
		name: "opencode", streams: true, model: realagent.OpencodeModel,
		argv: func(w *realagent.World) []string { return w.Opencode("acp") },
		bash: func(cmd, _ string) string {
			return `@tool bash {"command":"` + cmd + `","description":"as told"}`
		},
		write: func(path, text string) string {
			return `@tool write {"filePath":"` + path + `","content":"` + text + `"}`
		},
		read:  func(path, _ string) string { return `@tool read {"filePath":"` + path + `"}` },
		todos: `@tool todowrite {"todos":[{"content":"look","status":"completed","priority":"high","id":"1"},{"content":"write","status":"pending","priority":"low","id":"2"}]}`,
	}
	gemini = real{
		name: "gemini", auth: "gemini-api-key", model: "gemini-2.5-pro",
		argv: func(w *realagent.World) []string { return w.Gemini("-m", realagent.GeminiModel, "--acp") },
		bash: func(cmd, _ string) string {
			return `@tool run_shell_command {"command":"` + cmd + `","description":"as told"}`
		},
		write: func(path, text string) string {
			return `@tool write_file {"file_path":"` + path + `","content":"` + text + `"}`
		},
		read: func(path, _ string) string { return `@tool read_file {"file_path":"` + path + `"}` },
	}
	// claude is the agent for Claude Code. Its tools work only in the session's directory.
	claude = real{
		name: "claude", program: "claude-acp", streams: true, model: "haiku",
		argv: func(w *realagent.World) []string { return w.ClaudeACP() },
		bash: func(cmd, _ string) string {
			// Claude Code refuses a command that only sleeps.
			return `@tool Bash {"command":"` + strings.ReplaceAll(cmd, "sleep", "env sleep") + `","description":"as told"}`
		},
		write: func(path, text string) string {
			return `@tool Write {"file_path":"` + path + `","content":"` + text + `"}`
		},
		read: func(path, _ string) string { return `@tool Read {"file_path":"` + path + `"}` },
		todos: `@tool TaskCreate {"subject":"look","description":"around"}` + "\n" + `@tool TaskCreate {"subject":"write","description":"it"}` + "\n" +
			`@tool TaskUpdate {"taskId":"1","status":"completed"}`,
	}
	// codex is the agent for codex, in a mode that asks. It runs commands in a read-only sandbox,
	// and asks a question if the model wants to run a command outside of the sandbox.
	codex = real{
		name: "codex", program: "codex-acp", streams: true, model: "gpt-5.6-sol",
		argv: func(w *realagent.World) []string { return w.CodexACP() },
		bash: func(cmd, _ string) string { return unboxed(cmd) },
		write: func(path, text string) string {
			return `@tool apply_patch *** Begin Patch\n*** Add File: ` + path + `\n+` + text + `\n*** End Patch`
		},
		read: func(path, _ string) string { return `@tool exec_command {"cmd":"cat '` + path + `'"}` },
	}
	reals = []real{opencode, gemini, claude, codex}
)

// unboxed returns a script line that makes codex ask to run a command outside of its
// sandbox.
func unboxed(cmd string) string {
	return `@tool exec_command {"cmd":"` + cmd + `","sandbox_permissions":"require_escalated","justification":"as told"}`
}

// world returns a realagent.World that contains the program.
func (a real) world(t *testing.T) *realagent.World {
	if a.program == "" {
		a.program = a.name
	}
	return realagent.New(t, a.program)
}

// config returns a configuration for the program in w.
func (a real) config(w *realagent.World) Config {
	return Config{
		Command: a.argv(w), Dir: w.Dir, Env: w.Env, Auth: a.auth, StartTimeout: 5 * time.Minute, CancelGrace: 30 * time.Second,
		Agents: map[string]Agent{a.name: {}},
	}
}

// recalling answers a question about the user's first prompt. It answers every other prompt
// according to the script in the prompt.
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

var slow = flag.Bool("acp.slow", false, "hold the agent of Claude Code against the conformance suite, too: it has a process of its own for each session, and takes minutes for it. Also kill the host of each agent at all moments and in all ways")

func TestConformanceOfRealAgents(t *testing.T) {
	list := []real{opencode, gemini, codex}
	if *slow {
		list = append(list, claude)
	}
	for _, a := range list {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			w := a.world(t)
			w.Model.Handle(recalling)
			c := open(t, a.config(w)) // shared by all checks, because a process takes seconds to start
			fixed := func(prompt string) func() string { return func() string { return prompt } }
			bgagenttest.Conformance(t, bgagenttest.Harness{
				New:   func(bgagenttest.TB) bgagent.SessionClient { return c },
				Agent: a.name, Directory: w.Dir,
				Say:  func(text string) string { return "@say " + text },
				Slow: fixed("@hang It takes a while."), Fail: fixed("@error 400 as told"),
				Tool: fixed(a.read(w.Dir+"/nothing", "") + "\n@say used"), Recall: fixed("What did I say first?"),
				KeepsPromptID: true, Soon: 2 * time.Minute,
			})
		})
	}
}

func TestPromptsThatLookLikeCommandsReachTheModel(t *testing.T) {
	eachReal(t, bgagent.Config{}, nil, func(s *scene) {
		for _, begin := range []string{"/compact it", " \n/help me", "/src/main.go has a bug", "!ls", "$help", "# a title", "@nobody said"} {
			task := s.run(begin + "\n@say found it")
			require.Equal(s, bgagent.Completed, task.Status, task.Reason)
			require.Equal(s, "found it", task.Result)
			requests := s.w.Model.Requests()
			require.Contains(s, requests[len(requests)-1].LastUser(), strings.TrimSpace(begin))
		}
	})
}

func TestAWarningOfTheProgramIsNoPartOfTheAnswer(t *testing.T) {
	unknown := func(c *Config) { c.Env = append(slices.Clone(c.Env), `CODEX_CONFIG={"model":"scripted"}`) } // with an unknown model, codex-acp warns in each turn
	each(t, []real{codex}, bgagent.Config{}, unknown, func(s *scene) {
		for range 2 {
			require.Equal(s, "the answer", s.run("@slow 3 20ms\n@say the answer").Result)
		}
	})
}

func isMain(r modelserver.Request) bool { return r.Kind == modelserver.Main }

func TestThreeTasksAtOnceKeepToALimitOfTwo(t *testing.T) {
	eachReal(t, bgagent.Config{Limits: bgagent.Limits{Default: 2}}, nil, func(s *scene) {
		key := func(r modelserver.Request) string { return r.Key }
		s.w.Model.Handle(modelserver.Together(2, isMain, key, nil))
		var ids []string
		for i := range 3 {
			ids = append(ids, s.launch(fmt.Sprintf("@key k%d\n@slow 5 20ms\n@say the answer is number %d", i, i)).ID)
		}
		for i, task := range s.ended(ids...) {
			require.Equal(s, bgagent.Completed, task.Status, task.Reason)
			require.Equal(s, fmt.Sprintf("the answer is number %d", i), task.Result)
			require.Positive(s, task.Progress.Usage.OutputTokens)
		}
		require.Equal(s, 2, s.w.Model.MaxOpen(isMain, key))
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
		// The session still works.
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
		s.sleep(true, "the command does not begin")
		task = s.cancel(task.ID)
		require.Equal(s, bgagent.Cancelled, task.Status)
		s.sleep(false, "the command runs on")
	})
}

// If want is true, the method "sleep" waits until a process of the realagent.World is running a
// sleep command. Otherwise, it waits until there is no such process. It polls, because processes
// take a while to start and to exit.
func (s *scene) sleep(want bool, otherwise string) {
	s.Helper()
	sleeps := func(p string) bool { return strings.Contains(p, "sleep 300") }
	require.Eventually(s, func() bool { return slices.ContainsFunc(s.w.Processes(), sleeps) == want }, 2*time.Minute, 10*time.Millisecond, otherwise)
}

// The method "appears" returns once the file exists.
func (s *scene) appears(path string) {
	s.Helper()
	require.Eventually(s, func() bool { _, err := os.Stat(path); return err == nil }, 5*time.Minute, 5*time.Millisecond)
}

func TestAQuestionIsAnsweredByTheHost(t *testing.T) {
	var asked sync.Map // last question of each agent
	edit := func(c *Config) {
		c.Permit = func(_ context.Context, q PermissionRequest) PermissionAnswer {
			asked.Store(q.Agent, q)
			return PermissionAnswer{Allow: strings.Contains(q.Title+fmt.Sprint(q.Input), "allowed"), Reason: "not that one"}
		}
	}
	eachReal(t, bgagent.Config{}, edit, func(s *scene) {
		s.asksFirst()
		task := s.run(s.bash("touch allowed", "") + "\n@say done")
		require.Equal(s, bgagent.Completed, task.Status, task.Reason)
		require.Equal(s, "done", task.Result)
		require.FileExists(s, filepath.Join(s.w.Dir, "allowed"))
		last, ok := asked.Load(s.name)
		require.True(s, ok)
		q := last.(PermissionRequest)
		require.Equal(s, task.ID, q.Task)
		require.Equal(s, task.Session, q.Session)
		require.Equal(s, "execute", q.Kind)

		task = s.run(s.bash("touch forbidden", "") + "\n@say done")
		s.Logf("%s (%s): %s", task.Status, task.Cause, task.Reason)
		require.NoFileExists(s, filepath.Join(s.w.Dir, "forbidden"))
		if task.Status != bgagent.Completed { // the agent can also report the refusal to its model and continue
			require.Contains(s, task.Reason, "not that one")
		}
	})
}

// asksFirst makes opencode ask before it runs a command. Gemini always asks.
func (s *scene) asksFirst() {
	if s.name == opencode.name {
		s.w.OpencodeConfig(s, func(config map[string]any) {
			config["permission"] = map[string]any{"bash": "ask", "edit": "ask"}
		})
	}
}

func TestWithoutAPolicyEveryQuestionIsRefused(t *testing.T) {
	eachReal(t, bgagent.Config{}, nil, func(s *scene) {
		s.asksFirst()
		task := s.run(s.bash("touch forbidden", "") + "\n@say done")
		s.Logf("%s (%s): %s", task.Status, task.Cause, task.Reason)
		require.NoFileExists(s, filepath.Join(s.w.Dir, "forbidden"))
		require.Equal(s, 1, task.Progress.ToolCalls)
	})
}

func TestRulesOnPathsDecideTheAgentsQuestions(t *testing.T) {
	rules := []bgagent.Permission{on("*", "*", bgagent.PermissionAllow), on("edit", "secrets/*", bgagent.PermissionDeny)}
	eachReal(t, bgagent.Config{Permissions: rules}, nil, func(s *scene) {
		s.asksFirst()
		require.NoError(s, os.Mkdir(filepath.Join(s.w.Dir, "secrets"), 0o700))
		key, notes := filepath.Join(s.w.Dir, "secrets", "key"), filepath.Join(s.w.Dir, "notes")
		task := s.run(s.write(key, "a key") + "\n@say done")
		s.Logf("%s (%s): %s", task.Status, task.Cause, task.Reason)
		require.NoFileExists(s, key)
		task = s.run(s.write(notes, "a note") + "\n@say done")
		require.Equal(s, "done", task.Result, task.Reason)
		require.FileExists(s, notes)
	})
}

func TestTodosAndModelsReachTheTask(t *testing.T) {
	eachReal(t, bgagent.Config{}, nil, func(s *scene) {
		const script = "@say done"
		task, err := s.m.Run(s.Context(), root, bgagent.LaunchInput{Agent: s.name, Prompt: script, Model: "google/nothing"})
		require.NoError(s, err)
		require.Equal(s, bgagent.Failed, task.Status)
		require.Contains(s, task.Reason, `has no model "google/nothing"; there are: `)
		task, err = s.m.Run(s.Context(), root, bgagent.LaunchInput{Agent: s.name, Prompt: script, Model: "google/" + s.model})
		require.NoError(s, err)
		require.Equal(s, "done", task.Result, task.Reason)
		asked := slices.DeleteFunc(s.w.Model.Requests(), func(r modelserver.Request) bool { return !isMain(r) })
		got := asked[len(asked)-1].Model // can be longer or shorter than the agent's name for the model
		require.True(s, strings.Contains(s.model, got) || strings.Contains(got, s.model), "%s was asked for %s", got, s.model)
		if s.todos != "" { // over ACP, codex does not offer its model a tool for todos
			task = s.run(s.todos + "\n@say done")
			require.Equal(s, []bgagent.Todo{{Text: "look", State: bgagent.TodoCompleted}, {Text: "write", State: bgagent.TodoPending}}, task.Progress.Todos)
			require.Equal(s, 1, task.OpenTodos)
		}
	})
}

func TestFilesGoThroughTheClientAndStayInside(t *testing.T) {
	edit := func(c *Config) {
		c.Files = FilesReadWrite
		c.Permit = func(_ context.Context, q PermissionRequest) PermissionAnswer {
			inside := true
			for _, p := range q.Paths {
				inside = inside && strings.HasPrefix(p, q.Directory)
			}
			return PermissionAnswer{Allow: inside, Reason: "outside of the directory"}
		}
	}
	eachReal(t, bgagent.Config{}, edit, func(s *scene) {
		s.asksFirst()
		// Gemini cannot create a file through a client, because it treats the answer that the file
		// does not yet exist as a failure.
		file := filepath.Join(s.w.Dir, "notes.txt")
		require.NoError(s, os.WriteFile(file, []byte("as it was"), 0o600))
		task := s.run(s.read(file, "") + "\n" + s.write(file, "written by the agent") + "\n" + s.read(file, "") + "\n@say done")
		require.Equal(s, "done", task.Result, task.Reason)
		text, err := os.ReadFile(file)
		require.NoError(s, err)
		require.Equal(s, "written by the agent", strings.TrimSpace(string(text))) // codex adds a newline, because it patches whole lines

		outside := filepath.Join(s.TempDir(), "outside.txt")
		task = s.run(s.write(outside, "written by the agent") + "\n@say done")
		s.Logf("%s (%s): %s", task.Status, task.Cause, task.Reason)
		require.NoFileExists(s, outside)
		if s.name == codex.name { // codex does not ask before it reads
			return
		}
		require.NoError(s, os.WriteFile(outside, []byte("a secret"), 0o600))
		s.run(s.read(outside, "") + "\n@say done")
		for _, r := range s.w.Model.Requests() {
			for _, result := range r.LastResults() {
				require.NotContains(s, result.Text, "a secret")
			}
		}
	})
}
