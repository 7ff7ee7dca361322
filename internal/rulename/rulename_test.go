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
		"Bash(rm *)":  `use "Bash" as the name, and "rm *" as the pattern`,
		"Bash(rm:*)":  `use "Bash" as the name, and "rm *" as the pattern`,
		"bash,edit":   "write one rule for each",
		"Bash|Edit":   "write one rule for each",
		"{bash,edit}": "in its name",
		"^bash$":      "in its name",
		"!bash":       "in its name",
		"'bash'":      "in its name",
		"b\u200bash":  `has "\u200b" in its name`,
		"ｂａｓｈ":        `has "\uff42" in its name`,
		"bash\x00":    `has "\x00" in its name`,
	} {
		require.Contains(t, Problem(name), want, name)
	}
}
