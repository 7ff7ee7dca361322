//go:build unix

package command

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/bgagent/bgagent"
)

// hostPlan describes a host that runs one turn in its own process. A test can kill this process.
// The host is the test binary itself.
type hostPlan struct {
	Preset  string // name of a preset, or "text" for a fake program that prints plain text; any other name means a fake program that prints lines
	Command []string
	Env     []string
	Args    []string
	Model   string
	Dir     string
	Home    string // directory for the files "id", "saved", "text" and "end"

	Session string // session to continue; empty for a new session
	Saved   []byte
	Prompt  bgagent.Prompt
}

// hostVariable is the environment variable that contains the plan of a host.
const hostVariable = "COMMAND_HOST"

// Instance ids of two managers. They differ between test runs, because a test kills all processes
// with one of these ids, and other test runs might use the same machine.
var (
	firstLife  = "life-one-" + rand.Text()
	secondLife = "life-two-" + rand.Text()
)

// The method "agent" returns the plan's agent.
func (h hostPlan) agent() Agent {
	a := Agent{Program: Lines("fake"), Command: h.Command, Env: h.Env, Args: h.Args, Model: h.Model}
	for name, preset := range map[string]func() Program{"codex": Codex, "gemini": Gemini, "claude": Claude, "opencode": Opencode} {
		if h.Preset == name {
			a.Program = preset()
		}
	}
	if h.Preset == "text" {
		a.Program = Text("fake")
	}
	return a
}

// runHost decodes a hostPlan and runs the turn that it describes. It writes the session's id and
// the last saved state to files, which take the place of a store. It also writes the agent's text
// and how the turn ended.
func runHost(text string) {
	var h hostPlan
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	must(json.Unmarshal([]byte(text), &h))
	c, err := New(Config{Agents: map[string]Agent{"a": h.agent()}, Directory: h.Dir})
	must(err)
	id := h.Session
	if id == "" {
		id, err = c.CreateSession(context.Background(), bgagent.SessionSpec{Agent: "a", Depth: 1, Instance: h.Prompt.Instance})
		must(err)
	} else {
		_, _, err = c.RestoreSession(context.Background(), bgagent.SessionRestore{Spec: bgagent.SessionSpec{Agent: "a", Instance: h.Prompt.Instance}, Session: id, Saved: h.Saved, Instance: "life-zero"})
		must(err)
	}
	write := func(name string, data []byte) {
		path := filepath.Join(h.Home, name)
		must(os.WriteFile(path+".new", data, 0o600))
		must(os.Rename(path+".new", path))
	}
	write("id", []byte(id))
	said := ""
	end, err := c.RunTurn(context.Background(), id, h.Prompt, bgagent.NewReporter(func(r bgagent.Report) {
		switch r.Kind {
		case bgagent.ReportState:
			write("saved", r.Saved)
		case bgagent.ReportText:
			said += r.Text
			write("text", []byte(said))
		}
	}))
	if err != nil {
		end.Text = err.Error()
	}
	write("end", []byte(end.Text))
}
