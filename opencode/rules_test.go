package opencode_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
	"github.com/bgagent/bgagent/opencode"
)

func TestTheDocumentsSayWhatTheServerIsGiven(t *testing.T) {
	raw, err := os.ReadFile("../docs/clients.md")
	require.NoError(t, err)
	require.Contains(t, string(raw), "\n"+permission.All("", permission.Handed).Row("`opencode`")+"\n")
}

func TestARuleMeansWhatItSaysByWhateverWord(t *testing.T) {
	rule := func(name, action string) map[string]any {
		return map[string]any{"permission": name, "pattern": "*", "action": action}
	}
	for name, want := range map[string][]map[string]any{
		"Bash":        {rule("bash", "deny")},
		"execute":     {rule("bash", "deny")},
		"run_command": {rule("bash", "deny")},
		"fetch":       {rule("webfetch", "deny")},
		"web":         {rule("webfetch", "deny"), rule("websearch", "deny"), rule("codesearch", "deny")},
		"WRITE":       {rule("edit", "deny")},
		"delete":      {rule("edit", "deny")}, // opencode has no separate name for deleting
		"*":           {rule("*", "deny")},
		"mcp_tool":    {rule("mcp_tool", "deny")},
	} {
		bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
			rules := []bgagent.Permission{{Name: name, Action: bgagent.PermissionDeny}}
			id, err := r.c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker", Permissions: rules})
			require.NoError(t, err)
			assert.Equal(t, want, r.rules(id), name)
		})
		bubble(t, opencode.Config{Tools: map[string]bool{name: false}}, none, func(t *testing.T, r *rig) {
			assert.Equal(t, want, r.rules(r.session("")), "Config.Tools: %s", name)
		})
	}
}
