package bgotel

import (
	"os"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The map "asked" lists the causes of cancellations that are not errors, because somebody requested them or
// another attempt continues the task. Cancellations due to a time limit are errors.
var asked = map[bgagent.Cause]bool{
	bgagent.CauseCaller:         true,
	bgagent.CauseHost:           true,
	bgagent.CauseAgentWindow:    true,
	bgagent.CauseParentEnded:    true,
	bgagent.CauseSessionDeleted: true,
	bgagent.CauseClosed:         true,
	bgagent.CauseSuperseded:     true, // nobody requested this end, but the task continues
}

func TestEveryPhaseHasAStage(t *testing.T) {
	for p := bgagent.PhaseNone; !strings.HasPrefix(p.String(), "("); p++ {
		require.Contains(t, phaseStages, p, "phaseStages (attempt.go) says which span represents the phase %q", p)
		require.NotEmpty(t, stageNames[phaseStages[p]])
	}
}

func TestEveryCancellationThatNobodyAskedForIsAnErrorAndIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/observability.md")
	require.NoError(t, err)
	_, list, ok := strings.Cut(string(doc), "a time limit ended it (")
	require.True(t, ok, "docs/observability.md lists the causes that are errors even though they are not failures")
	list, _, _ = strings.Cut(list, ")")
	var limits []string
	for c := bgagent.CauseNone + 1; !strings.HasPrefix(c.String(), "("); c++ {
		switch c.Status() {
		case bgagent.Completed:
			require.False(t, wentWrong(c), c)
		case bgagent.Failed:
			require.True(t, wentWrong(c), c)
		default:
			require.Equal(t, !asked[c], wentWrong(c), "%s: a limit belongs to wentWrong and to the list in docs/observability.md; what somebody asked for belongs to asked", c)
			if wentWrong(c) {
				limits = append(limits, "`"+c.String()+"`")
			}
		}
	}
	require.NotEmpty(t, limits)
	require.Equal(t, strings.Join(limits, ", "), strings.Join(strings.Fields(list), " "), "the document can contain line breaks")
}
