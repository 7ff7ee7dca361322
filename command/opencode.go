package command

import (
	"errors"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// Opencode is opencode, called as opencode run --format json. Tested with
// 1.18.34. The package opencode of this module sees much more of it, over its
// server; this is for where there is none.
//
// The model is passed with --model as provider/model, [Agent].Profile with
// --agent; opencode falls back to its default agent when there is none of that
// name. There is no place for a system text, which is put before the first
// prompt instead. All rules are passed on, with their patterns, in
// OPENCODE_PERMISSION; "ask" becomes "deny", because a question that is
// rejected ends the turn without an answer. They are merged into the user's own
// configuration, where a name that it has already keeps its place, and rules
// that it has for the agent come after them.
//
// A message is printed when it is whole, a tool call when it has ended. The
// prompt goes to standard input, since opencode puts words with spaces that it
// gets as arguments into quotation marks.
func Opencode() Program {
	return Program{
		Executable: "opencode",
		Start:      Form{Args: []string{"run", "--format", "json"}},
		Resume:     Form{Args: []string{"run", "--format", "json", "--session={session}"}},
		Model:      []string{"--model={model}"},
		Profile:    []string{"--agent={profile}"},
		Rules:      opencodeRules,
		Overrides:  []string{"--auto"},
		Decode:     decodeOpencode,
		Environ:    []string{"OPENCODE_*"},
	}
}

// opencodeKeeps is what opencode can be held to, and opencodeWords are its own
// words for it.
var (
	opencodeKeeps = permission.Client{Name: "opencode", Others: permission.Handed, Keeps: map[permission.Kind]permission.Means{
		permission.Read: permission.Handed, permission.Edit: permission.Handed, permission.Bash: permission.Handed, permission.Web: permission.Handed,
		permission.Task: permission.Handed, permission.Skill: permission.Handed, permission.Todo: permission.Handed, permission.Question: permission.Handed,
	}}
	opencodeWords = map[permission.Kind][]string{
		permission.Read: {"read"}, permission.Glob: {"glob"}, permission.Grep: {"grep"}, permission.List: {"list"}, permission.Edit: {"edit"},
		permission.Bash: {"bash"}, permission.WebFetch: {"webfetch"}, permission.WebSearch: {"websearch", "codesearch"}, permission.Task: {"task"},
		permission.Skill: {"skill"}, permission.Todo: {"todowrite"}, permission.Question: {"question"},
	}
)

// opencodeRules writes the rules as the permission object of opencode's
// configuration, in which the last entry that matches decides, too. There is
// only one entry for a name, and one for a pattern of it: rules that go back to
// an earlier name after others cannot be written.
func opencodeRules(rules []bgagent.Permission) (_, env []string, err error) {
	if err := opencodeKeeps.Check(rules); err != nil {
		return nil, nil, err
	}
	type entry struct {
		name     string
		patterns []string // each with its action, as JSON
	}
	var entries []entry
	for _, r := range permission.Translate(rules, opencodeWords) {
		pattern, action := r.Pattern, `"deny"`
		if pattern == "" {
			pattern = "*"
		}
		if permission.Allows(r) {
			action = `"allow"`
		}
		if r.Name == "*" && pattern == "*" {
			entries = nil // decides over all before it
		}
		last := len(entries) - 1
		if last < 0 || entries[last].name != r.Name {
			if slices.ContainsFunc(entries, func(e entry) bool { return e.name == r.Name }) {
				return nil, nil, errors.New("opencode takes all rules for one name together; put those for " + jsonString(r.Name) + " after each other")
			}
			entries = append(entries, entry{name: r.Name})
			last++
		}
		e := &entries[last]
		key := jsonString(pattern) + ":"
		e.patterns = slices.DeleteFunc(e.patterns, func(p string) bool { return pattern == "*" || strings.HasPrefix(p, key) })
		e.patterns = append(e.patterns, key+action)
	}
	if len(entries) == 0 {
		return nil, nil, nil
	}
	parts := make([]string, len(entries))
	for i, e := range entries {
		parts[i] = jsonString(e.name) + ":{" + strings.Join(e.patterns, ",") + "}"
	}
	return nil, []string{"OPENCODE_PERMISSION={" + strings.Join(parts, ",") + "}"}, nil
}
