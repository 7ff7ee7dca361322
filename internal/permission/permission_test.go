package permission

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

const (
	yes = bgagent.PermissionAllow
	no  = bgagent.PermissionDeny
	ask = bgagent.PermissionAsk
)

func rule(name, pattern string, a bgagent.PermissionAction) bgagent.Permission {
	return bgagent.Permission{Name: name, Pattern: pattern, Action: a}
}

func TestAWordMeansTheSameHoweverItIsWritten(t *testing.T) {
	for word, kind := range map[string]Kind{
		"bash": Bash, "Bash": Bash, "BASH": Bash, "execute": Bash, "Shell": Bash, "terminal": Bash, "command": Bash, "run_shell_command": Bash,
		"Edit": Edit, "Write": Edit, "patch": Edit, "apply_patch": Edit, "MultiEdit": Edit, "multi-edit": Edit, "str_replace": Edit,
		"delete": Delete, "Move": Move, "fetch": WebFetch, "web_fetch": WebFetch, "WebFetch": WebFetch, "web-search": WebSearch,
		"google_web_search": WebSearch, "web": Web, "http": Web, "view": Read, "read_file": Read, "LS": List, "Grep": Grep, "agent": Task,
	} {
		got, ok := KindOf(word)
		require.True(t, ok, word)
		require.Equal(t, kind, got, word)
	}
	for _, word := range []string{"", "mcp__db__drop", "delegate_task", "bashful", "*"} {
		_, ok := KindOf(word)
		require.False(t, ok, word)
	}
}

func TestNoWordHasTwoMeanings(t *testing.T) {
	seen := map[string]Kind{}
	for _, e := range vocabulary {
		for _, w := range append(strings.Fields(e.words), string(e.kind)) {
			require.Equal(t, w, fold(w), "KindOf could never find this word")
			require.NotContains(t, seen, w)
			seen[w] = e.kind
		}
		require.NotEmpty(t, e.what, e.kind)
		require.NotEmpty(t, e.some, e.kind)
	}
}

func TestARuleAppliesToEverythingThatItsWordCovers(t *testing.T) {
	for name, test := range map[string]struct {
		access Access
		deny   []string // names of rules that forbid the access
		allow  []string // names of rules that allow the access
		not    []string // names of rules that do not apply to the access
	}{
		"a command": {Of("Bash"), []string{"execute", "b*", "B?SH", "*", "**", "sh*", "[be]ash"}, []string{"shell", "bas*", "*"}, []string{"edit", "", "bashful", "["}},
		"to delete": {Of("delete"), []string{"edit", "Write", "remove", "delete"}, []string{"edit", "delete"}, []string{"move", "bash"}},
		"to edit":   {Of("Write"), []string{"edit", "patch"}, []string{"edit", "patch"}, []string{"delete", "move"}},
		"the web":   {Of("web_search"), []string{"web", "websearch"}, []string{"http", "websearch"}, []string{"fetch"}},
		"a search":  {Of("search"), []string{"read", "grep", "glob", "list"}, []string{"read", "search"}, []string{"edit"}},
		"to grep":   {Of("Grep"), []string{"read", "search", "grep"}, []string{"read", "grep"}, []string{"glob"}},
		"a tool that nobody knows": {
			Of("mcp__db__drop"), []string{"mcp__db__drop", "MCP_*", "*", "mcp__*"}, []string{"mcp__db__drop", "mcp__*", "*"}, []string{"bash", "mcp"},
		},
		"a tool whose name does not show its purpose": {
			Access{Names: []string{"grep"}, Kinds: []Kind{Bash, Grep}}, []string{"grep", "bash", "read"}, []string{"*"}, []string{"edit"},
		},
		"a tool that may do more": {
			Access{Names: []string{"x"}, Maybe: []Kind{Bash}}, []string{"bash", "x"}, []string{"x"}, []string{"edit"},
		},
	} {
		for _, r := range test.deny {
			require.True(t, test.access.Named(rule(r, "", no)), "%s, denied by %s", name, r)
			require.True(t, test.access.Named(rule(r, "", ask)), "%s, asked by %s", name, r)
		}
		for _, r := range test.allow {
			require.True(t, test.access.Named(rule(r, "", yes)), "%s, allowed by %s", name, r)
		}
		for _, r := range test.not {
			require.False(t, test.access.Named(rule(r, "", no)), "%s, not denied by %s", name, r)
			require.False(t, test.access.Named(rule(r, "", yes)), "%s, not allowed by %s", name, r)
		}
	}
}

func TestAWildcardAllowsNothingByAnotherWord(t *testing.T) {
	require.True(t, Of("read").Named(rule("re*", "", yes)))
	for _, tool := range []string{"edit", "delete", "move"} { // the pattern re* matches replace, remove and rename
		require.False(t, Of(tool).Named(rule("re*", "", yes)), tool)
		require.True(t, Of(tool).Named(rule("re*", "", no)), tool)
	}
}

func TestTheLastRuleDecidesWhateverItsWord(t *testing.T) {
	for name, test := range map[string]struct {
		rules []bgagent.Permission
		kind  Kind
		want  Verdict
	}{
		"nothing":                      {nil, Bash, Unsaid},
		"allowed by another word":      {[]bgagent.Permission{rule("Bash", "*", no), rule("execute", "*", yes)}, Bash, Allowed},
		"denied by another word":       {[]bgagent.Permission{rule("bash", "*", yes), rule("SHELL", "", no)}, Bash, Denied},
		"denied, except for a part":    {[]bgagent.Permission{rule("edit", "*", no), rule("delete", "*", yes)}, Edit, Denied},
		"a part denied":                {[]bgagent.Permission{rule("edit", "*", yes), rule("delete", "*", no)}, Edit, Denied},
		"a part denied, then all not":  {[]bgagent.Permission{rule("delete", "*", no), rule("write", "*", yes)}, Edit, Allowed},
		"some":                         {[]bgagent.Permission{rule("bash", "*", yes), rule("execute", "rm *", ask)}, Bash, Partly},
		"all, then some allowed":       {[]bgagent.Permission{rule("*", "*", no), rule("execute", "git *", yes)}, Bash, Denied},
		"rules that the host enforces": {[]bgagent.Permission{{Name: "task", Pattern: "*", Action: no, Kept: true}}, Task, Unsaid},
		"an unknown action":            {[]bgagent.Permission{rule("bash", "*", "forbid")}, Bash, Denied},
		"an action in capitals":        {[]bgagent.Permission{rule("bash", "*", "Allow")}, Bash, Allowed},
		"a part of the web":            {[]bgagent.Permission{rule("websearch", "*", no)}, Web, Denied},
		"the other part of the web":    {[]bgagent.Permission{rule("websearch", "*", no)}, WebFetch, Unsaid},
	} {
		got, by := On(test.rules, test.kind)
		require.Equal(t, test.want, got, name)
		require.Equal(t, got == Denied || got == Partly, by.Name != "", name)
	}
}

func TestARuleThatNobodyEnforcesIsRefused(t *testing.T) {
	none := Client{Name: "x"}
	some := Client{Name: "x", Keeps: map[Kind]Means{Edit: Switch, Bash: Patterns, Read: None}}
	all := All("x", Handed)
	for _, word := range []string{"bash", "Bash", "execute", "Edit", "delete", "fetch", "read", "*", "b*", "mcp__x", "an unknown name", "", "[", "task", "think"} {
		for _, action := range []bgagent.PermissionAction{no, ask, "forbid"} {
			err := none.Check([]bgagent.Permission{rule(word, "*", action)})
			require.ErrorContains(t, err, "x cannot be kept from", "%s %s", word, action)
			require.NoError(t, all.Check([]bgagent.Permission{rule(word, "*", action)}))
		}
		require.NoError(t, none.Check([]bgagent.Permission{rule(word, "*", yes)}))
		require.NoError(t, none.Check([]bgagent.Permission{rule(word, "*", no), rule("*", "*", yes)}), "taken back: %s", word)
		require.NoError(t, none.Check([]bgagent.Permission{{Name: word, Pattern: "*", Action: no, Kept: true}}), word)
	}
	require.EqualError(t, none.Check([]bgagent.Permission{rule("Bash", "rm *", ask)}), `x cannot be kept from running commands, as the rule "Bash rm *" (ask) requires; remove the rule, or use another agent`)
	require.NoError(t, some.Check([]bgagent.Permission{rule("write", "*", no), rule("shell", "rm *", no), rule("bash", "*", no)}))
	require.ErrorContains(t, some.Check([]bgagent.Permission{rule("write", "*.go", no)}), `x cannot be kept from editing some files only, as the rule "write *.go" (deny) requires`)
	require.ErrorContains(t, some.Check([]bgagent.Permission{rule("grep", "*", no)}), "x cannot be kept from reading")
}

func TestRulesAreTranslatedIntoTheWordsOfAServer(t *testing.T) {
	words := map[Kind][]string{Read: {"read"}, Glob: {"glob"}, Edit: {"edit"}, Bash: {"bash"}, WebFetch: {"webfetch"}, WebSearch: {"websearch", "codesearch"}}
	kept := bgagent.Permission{Name: "task", Pattern: "*", Action: no, Kept: true}
	require.Equal(t, []bgagent.Permission{
		rule("*", "", no), rule("bash", "git *", yes), rule("webfetch", "*", no), rule("websearch", "*", no), rule("codesearch", "*", no),
		rule("edit", "*", no), rule("mcp__x", "*", no), rule("Ba*", "*", no), rule("bash", "*", no), kept,
	}, Translate([]bgagent.Permission{
		rule("*", "", no), rule("Execute", "git *", yes), rule("web", "*", no), rule("delete", "*", no), rule("delete", "*", yes), rule("mcp__x", "*", no),
		rule("Ba*", "*", no), kept,
	}, words))
}

func TestPatternsMatchPathsAndCommands(t *testing.T) {
	for pattern, texts := range map[string][]string{
		"":      {"", "x"},
		"*":     {"", "x", "a/b"},
		"*.go":  {"a.go", "a/b.go"},
		"git *": {"git", "git status"},
		"l?":    {"ls"},
		"[ab]":  {"a", "b"},
	} {
		for _, text := range texts {
			require.True(t, Matches(pattern, text), "%q %q", pattern, text)
		}
	}
	for pattern, text := range map[string]string{"git *": "gitk", "ls?": "ls", "*.go": "a.gone", "[": "x"} {
		require.False(t, Matches(pattern, text), "%q %q", pattern, text)
	}
}

func TestTheDocumentsListTheWords(t *testing.T) {
	raw, err := os.ReadFile("../../docs/clients.md")
	require.NoError(t, err)
	lines := strings.Split(string(raw), "\n")
	for _, row := range append(Words(), Header()) {
		require.True(t, slices.Contains(lines, row), "docs/clients.md should have the row\n%s", row)
	}
}
