package settings

import (
	"cmp"
	"slices"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/demo"
)

// programs lists the agent programs to look for on PATH if there is no configuration
// file.
var programs = []struct{ name, preset, about string }{
	{"codex", "codex", "OpenAI's codex, as it is configured"},
	{"claude", "claude", "Anthropic's Claude Code, as it is configured"},
	{"gemini", "gemini", "Google's gemini-cli, as it is configured"},
	{"opencode", "opencode", "opencode, as it is configured"},
}

// Detect returns the settings that apply without a configuration file: an agent for each agent program that
// lookPath finds, and the demo agents. A program's permissions are those in its own configuration.
func Detect(lookPath func(string) (string, error)) *Settings {
	s := &Settings{Detected: true, Agents: Demo()}
	for _, p := range programs {
		path, err := lookPath(p.name)
		if err != nil {
			continue
		}
		s.Agents = append(s.Agents, Agent{
			Name: p.name, Kind: Command, Preset: p.preset, Description: p.about,
			origins: map[string]bgagent.Origin{"": {File: path}},
		})
	}
	slices.SortFunc(s.Agents, func(a, b Agent) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// Demo returns the demo agents, under names that begin with demo-.
func Demo() []Agent {
	var out []Agent
	for _, a := range demo.Agents() {
		out = append(out, Agent{Name: "demo-" + a.Name, Kind: InProc, Remote: a.Name, Model: demo.Model, Description: a.Description})
	}
	return out
}
