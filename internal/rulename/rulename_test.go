package rulename

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNamesThatCanBeNoToolsAreFound(t *testing.T) {
	for _, name := range []string{
		"*", "bash", "Run Command", "mcp__db__*", "server.tool/read-only", "plugin:tool", "mcp_?", "[a-c]*", "[!a]*", "[^a]*", "tool@2", "#1", "~x", "list%",
	} {
		require.Empty(t, Problem(name), name)
	}
	for name, want := range map[string]string{
		"":            "has no name",
		" \t":         "has no name",
		"Bash(rm *)":  `the name is "Bash", and the pattern "rm *" belongs beside it`,
		"Bash(rm:*)":  `the name is "Bash", and the pattern "rm *" belongs beside it`,
		"bash,edit":   "write one rule for each",
		"Bash|Edit":   "write one rule for each",
		"{bash,edit}": "which no tool has in its name",
		"^bash$":      "which no tool has in its name",
		"!bash":       "which no tool has in its name",
		"'bash'":      "which no tool has in its name",
		"b\u200bash":  `with "\u200b" in it`,
		"ｂａｓｈ":        `with "\uff42" in it`,
		"bash\x00":    `with "\x00" in it`,
	} {
		require.Contains(t, Problem(name), want, name)
	}
}
