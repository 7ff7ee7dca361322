package command

import (
	"errors"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// Opencode describes the program opencode, called as opencode run --format json. Tested with
// 1.18.34. If there is an opencode server, use the package opencode of this module instead,
// which gets much more information.
//
// The model is passed with --model as provider/model, and [Agent].Profile with --agent. If opencode
// has no agent with that name, it uses its default agent. Opencode does not have an option for the
// system text. The client puts the system text in front of the first prompt.
//
// Opencode gets all rules, with their patterns, in the variable OPENCODE_PERMISSION. "ask" becomes
// "deny", because a rejected question would end the turn without an answer. Opencode merges the
// rules into the user's own configuration. If the configuration already has a rule for a name, the
// new rule takes the old rule's place in the order. The user's rules for the agent come after all
// others.
//
// Opencode prints each message when it is complete, and each tool call when the call has ended. The prompt
// goes to standard input, because opencode puts arguments with spaces into quotation marks.
//
// If the manager has a store, the client chooses an id and makes it the title of the session. After
// a restart, the client reads the session with the command "export". If opencode has not reported
// its own id for the session, the client first finds the session by its title with the command
// "session list".
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
		Choose:     []string{"--title={session}"},
		Look:       here("opencode", lookOpencode),
	}
}

// opencodeKeeps declares the rules that opencode can enforce. opencodeWords are opencode's
// names for the kinds of access.
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

// opencodeRules writes the rules as the permission object of opencode's configuration. The last
// matching entry of that object decides, as with the task's rules. The object has one entry for
// each name, with one entry for each pattern inside it. Therefore, all rules for a name must be
// next to each other; otherwise, opencodeRules returns an error.
func opencodeRules(rules []bgagent.Permission) (_, env []string, err error) {
	if err := opencodeKeeps.Check(rules); err != nil {
		return nil, nil, err
	}
	type entry struct {
		name     string
		patterns []string // patterns with their actions, as JSON
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
			entries = nil // the rule overrides all earlier rules
		}
		last := len(entries) - 1
		if last < 0 || entries[last].name != r.Name {
			if slices.ContainsFunc(entries, func(e entry) bool { return e.name == r.Name }) {
				return nil, nil, errors.New("opencode groups all rules for one name; put the rules for " + jsonString(r.Name) + " next to each other")
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
