//go:build linux

package command

import (
	"fmt"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// Claude Code and opencode report the tokens of each request, so a budget stops their turns. The
// other programs report them at the end of the turn, so the answer is kept, but no further turn
// begins.
func TestRealProgramsKeepToABudgetOfTokens(t *testing.T) {
	each(t, func(t *testing.T, r real) {
		s := r.scene(t, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 1}})
		calls := 3
		if r.name == "claude" || r.name == "opencode" { // the programs can make some more calls before they are stopped
			calls = 30
		}
		prompt := ""
		for i := range calls { // gemini stops an agent that repeats a call
			prompt += s.shell(fmt.Sprintf("echo %d", i)) + "\n"
		}
		task := s.ended(s.launch(prompt + "@say done").ID)
		switch r.name {
		case "claude", "opencode":
			require.Equal(t, bgagent.CauseBudget, task.Cause, task.Reason)
			require.Less(t, task.Progress.ToolCalls, calls)
		default:
			s.completed(task, "done")
			require.Equal(t, calls, task.Progress.ToolCalls)
		}
		require.GreaterOrEqual(t, task.Budget.Used.InputTokens, int64(1))
		s.nothingLeft()
		requests := len(s.w.Model.Requests())
		_, err := s.m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "@say more"})
		var over *bgagent.BudgetError
		require.ErrorAs(t, err, &over)
		require.Len(t, s.w.Model.Requests(), requests)
	})
}
