package bgagenttest

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAFakeCanBeRefusedByItsProvider(t *testing.T) {
	for _, next := range []bgagent.ProviderNextStep{bgagent.NextContinue, bgagent.NextRepeat, bgagent.NextNewSession} {
		for kind, f := range map[string]interface {
			newWith(func(*Turn)) bgagent.SessionClient
		}{"runner": runners{}, "starter": starters{}} {
			if next == bgagent.NextNewSession && kind == "starter" {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				turns := 0
				client := f.newWith(func(turn *Turn) {
					if turns++; turns < 3 {
						turn.Refuse(bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: next})
					}
					turn.Say("answer")
				})
				m, err := bgagent.New(client, bgagent.Config{})
				require.NoError(t, err)
				task, err := m.Run(t.Context(), bgagent.Caller{Session: "root"}, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
				require.NoError(t, err)
				require.Equal(t, bgagent.Completed, task.Status, "%s: %s", kind, task.Reason)
				require.Equal(t, "answer", task.Result)
				require.Equal(t, 3, turns)
				require.NoError(t, m.Close(context.Background()))
			})
		}
	}
}

type runners struct{}

func (runners) newWith(script func(*Turn)) bgagent.SessionClient {
	return NewRunner(script)
}

type starters struct{}

func (starters) newWith(script func(*Turn)) bgagent.SessionClient {
	return NewStarter(script)
}
