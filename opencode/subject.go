package opencode

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/bgagent/bgagent/internal/asktext"
)

// subject returns what the agent wants to do: the whole command or diff, or everything that is
// known about the access.
func (a *ask) subject(input json.RawMessage) string {
	command, _ := a.details["command"].(string)
	diff, _ := a.details["diff"].(string)
	shown := map[string]bool{command: true, diff: true}
	var lines []string
	add := func(name, value string) {
		if shown[value] = true; len(lines) == 0 {
			lines = append(lines, asktext.First(name, value))
		} else {
			lines = append(lines, asktext.Field(name, value))
		}
	}
	if command != "" {
		add("command", command)
	}
	for _, p := range a.request.Patterns {
		if a.request.Permission != "bash" || !strings.Contains(command, p) { // the patterns of a command are parts of it
			add("pattern", p)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(a.details)) {
		switch v := a.details[key].(type) {
		case string:
			if !shown[v] {
				lines = append(lines, asktext.Field(key, v))
			}
		default:
			if key != "files" || diff == "" { // the diff contains the changes of all files
				lines = append(lines, asktext.Field(key, asktext.Value(v)))
			}
		}
	}
	if diff != "" {
		lines = append(lines, asktext.Block("diff", diff))
	}
	if v, _ := asktext.Decode(input); asktext.Input(v) != "" {
		lines = append(lines, asktext.Block("input", asktext.Input(v)))
	}
	return strings.Join(lines, "\n")
}
