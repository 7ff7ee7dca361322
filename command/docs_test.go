package command

import (
	"os"
	"testing"

	"github.com/bgagent/bgagent/internal/permission"
	"github.com/stretchr/testify/require"
)

func TestTheDocumentsListTheRulesThatEachProgramEnforces(t *testing.T) {
	raw, err := os.ReadFile("../docs/clients.md")
	require.NoError(t, err)
	for name, client := range map[string]permission.Client{
		"`command`: codex": codexKeeps, "`command`: gemini": geminiKeeps, "`command`: claude": claudeKeeps, "`command`: opencode": opencodeKeeps, "`command`: any other without `Program.Rules`": {},
	} {
		require.Contains(t, string(raw), "\n"+client.Row(name)+"\n")
	}
}
