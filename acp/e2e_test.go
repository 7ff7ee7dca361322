package acp

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/realagent"
)

// real is a real agent program.
type real struct {
	name string
	auth string
	argv func(w *realagent.World) []string
	// Tools of the agent: to run a command, to write and to read a file.
	bash, write, read func(arg, text string) string
}

var (
	opencode = real{
		name: "opencode",
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

func TestConformanceOfRealAgents(t *testing.T) {
	for _, a := range reals {
		t.Run(a.name, func(t *testing.T) {
			w := realagent.New(t, a.name)
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
