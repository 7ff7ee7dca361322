//go:build linux

package killed

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
)

// kind is a way to run tasks.
type kind struct {
	name    string
	program string
	server  bool // whether the tasks run on a server
	with    bool // whether the server is killed with the process
	// The field "unclear" is true if the client might be unable to find out how far a turn got. For
	// example, codex can be killed before it has reported the id of its session, or before it has
	// written anything to the session's file.
	unclear bool
	agent   func(w *realagent.World, url string) settings.Agent
	shell   func(command string) modelserver.Reply // makes the program run a command
}

var kinds = []kind{
	{name: "opencode", program: "opencode", server: true, agent: onServer, shell: bash},
	{name: "opencode with its server", program: "opencode", server: true, with: true, agent: onServer, shell: bash},
	{name: "codex", program: "codex", unclear: true, agent: func(w *realagent.World, _ string) settings.Agent {
		return settings.Agent{Kind: settings.Command, Preset: "codex", Command: w.Codex()}
	}, shell: func(c string) modelserver.Reply {
		return modelserver.Use("exec_command", fmt.Sprintf(`{"cmd":%q}`, c))
	}},
	{name: "claude", program: "claude", agent: func(w *realagent.World, _ string) settings.Agent {
		return settings.Agent{Kind: settings.Command, Preset: "claude", Command: w.Claude()}
	}, shell: func(c string) modelserver.Reply {
		return modelserver.Use("Bash", fmt.Sprintf(`{"command":%q,"description":"a step"}`, c))
	}},
	{name: "acp", program: "codex-acp", unclear: true, agent: func(w *realagent.World, _ string) settings.Agent {
		return settings.Agent{Kind: settings.ACP, Command: w.CodexACP()}
	}, shell: func(c string) modelserver.Reply {
		return modelserver.Use("exec_command", fmt.Sprintf(`{"cmd":%q,"sandbox_permissions":"require_escalated","justification":"a step"}`, c))
	}},
}

func onServer(_ *realagent.World, url string) settings.Agent {
	return settings.Agent{Kind: settings.Opencode, URL: url, Remote: "worker", Model: realagent.OpencodeModel}
}

func bash(c string) modelserver.Reply {
	return modelserver.Use("bash", fmt.Sprintf(`{"command":%q,"description":"a step"}`, c))
}

// The method "settings" returns the settings of the agent for this kind.
func (k kind) settings(w *realagent.World, url string) settings.Agent {
	a := k.agent(w, url)
	a.Name, a.Directory = "agent", w.Dir
	a.Permissions = []bgagent.Permission{{Name: "*", Pattern: "*", Action: bgagent.PermissionAllow}}
	if !k.server {
		a.Env = w.Env
	}
	return a
}

const mostSteps = 8 // after this number of commands in one conversation, the model gives up

// reply returns the model's answer to a request. If the model runs a command in the task, it gives its final
// answer once the command's result is in the conversation. Each answer takes a random time.
func (k kind) reply(r modelserver.Request) modelserver.Reply {
	if r.Kind != modelserver.Main || r.Key == "" {
		return r.Scripted()
	}
	_, number, _ := strings.Cut(r.Key, "-")
	name, delay := "task "+number, rand.N(200*time.Millisecond)
	done, results := fmt.Sprintf("step %s is done", r.Key), 0
	said := !runsCommand(name)
	for _, m := range r.Messages {
		for _, result := range m.Results {
			results++
			said = said || strings.Contains(result.Text, done)
		}
	}
	switch {
	case said:
		return modelserver.Reply{Delay: delay, Text: answer(name), Chunks: 4, Gap: rand.N(100 * time.Millisecond)}
	case results >= mostSteps:
		return modelserver.Say("the command does not run")
	}
	// Claude Code refuses a command that begins with sleep, so env runs sleep. The model waits for the text "is
	// done". The quotes in "is' 'done" keep this text out of the command itself.
	rep := k.shell(fmt.Sprintf("echo begun; env sleep 0.%d; echo step %s is' 'done", rand.N(4), r.Key))
	rep.Delay = delay
	return rep
}
