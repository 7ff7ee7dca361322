package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// With the zero Config, turns that are refused for a short time wait, and loops are stopped. There
// are no budgets, no fallbacks, no questions and no messages from models.
func TestOnlyRateLimitsAndLoopsAreOnByDefault(t *testing.T) {
	f := newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat}))
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		synctest.Wait()
		require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Zero(t, task.Budget.Limit)
		require.Empty(t, m.Figures().Budgets)
		require.Len(t, bgagent.Tools(m, bgagent.ToolOptions{}), 3)
	})

	f = newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextRepeat}))
	bubble(t, f, bgagent.Config{Model: func(string, string) (string, error) { return "a/b", nil }}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := ended(t, m, launch(t, m, "p").ID)[0]
		require.Equal(t, bgagent.CauseRateLimited, task.Cause)
		require.Equal(t, "a/b", task.Model)
	})

	bubble(t, makes(repeated(1000, nil)...), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		require.Equal(t, bgagent.CauseLoop, ended(t, m, launch(t, m, "p").ID)[0].Cause)
	})

	asks := &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		began := time.Now()
		_, err := r.Ask(ctx, which)
		if err == nil || time.Since(began) > 0 {
			return bgagent.TurnEnd{}, context.DeadlineExceeded
		}
		return bgagent.TurnEnd{Text: "refused at once"}, nil
	}}
	bubble(t, asks, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		require.Equal(t, "refused at once", ended(t, m, launch(t, m, "p").ID)[0].Result)
	})
}

// An attempt ends if its client cannot continue a refused turn, or if it is cancelled while it
// waits for the provider. In both cases, the text that the agent has written is kept.
func TestTheTextOfATurnThatCannotGoOnAfterARefusalIsKept(t *testing.T) {
	for _, next := range []bgagent.ProviderNextStep{bgagent.NextNone, bgagent.NextContinue} {
		f := &goRunner{run: func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Text("half of the answer")
			return bgagent.TurnEnd{}, &bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: next}
		}}
		bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
			id := launch(t, m, "p").ID
			synctest.Wait()
			task := get(t, m, id)
			if next == bgagent.NextContinue {
				require.Equal(t, bgagent.PhaseParked, task.Phase)
				_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
				require.NoError(t, err)
				task = get(t, m, id)
			} else {
				require.Equal(t, bgagent.CauseRateLimited, task.Cause)
				require.Equal(t, bgagent.Failed, task.Status)
			}
			require.Equal(t, "half of the answer", task.Result)
			require.True(t, task.Partial)
		})
	}
}

// Without a time to live, turns that make progress every two minutes can last all day. The stale
// timeout still ends a silent turn, but it does not end a turn that waits for an answer.
func TestHoursOfTurnsWithProgressAreNotStale(t *testing.T) {
	script := func(t *bgagenttest.Turn) {
		switch t.Prompt.Text {
		case "fall silent":
			t.Say("I begin.")
			t.Sleep(time.Hour)
		case "ask":
			_, _ = t.Question(mayI)
		default:
			for range 60 {
				t.Sleep(2 * time.Minute)
				t.Say(".")
			}
		}
	}
	cfg := bgagent.Config{TimeToLive: bgagent.Disabled, Limits: bgagent.Limits{Default: 2}}
	askingOnBoth(t, script, cfg, func(t *testing.T, m *bgagent.BackgroundManager, f *bgagenttest.Fake) {
		began := time.Now()
		task := launch(t, m, "work")
		for _, key := range []string{"a", "b", "c"} {
			send(t, m, task.ID, key, "go on")
		}
		silent := ended(t, m, launch(t, m, "fall silent").ID)[0]
		require.Equal(t, bgagent.CauseStale, silent.Cause, silent.Reason)
		open := launch(t, m, "ask")
		asks(t, m, open.ID)
		time.Sleep(2 * time.Minute)
		open = get(t, m, open.ID)
		running := m.Concurrency().Pools()[0].InUse
		if open.Phase == bgagent.PhaseParked { // a runner's task is parked; a starter's task keeps its slot, because the answer can be sent directly to the server
			require.Equal(t, 1, running)
		} else {
			require.Equal(t, bgagent.PhaseAsking, open.Phase)
			require.Equal(t, 2, running)
		}
		end := ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.Completed, end.Status, end.Reason)
		require.GreaterOrEqual(t, time.Since(began), 8*time.Hour)
		require.Equal(t, bgagent.Running, get(t, m, open.ID).Status, "a question is open for a day")
	})
}

// A server's agent that polls, or reads a changing file, is not in a loop.
func TestAHealthyAgentOfAServerIsNoLoop(t *testing.T) {
	for name, c := range map[string]struct {
		take, think time.Duration
		every       int // number of consecutive calls with the same result; 0 if all calls have the same result
	}{
		"a poller that sleeps and asks":     {take: 4 * time.Second, think: 2 * time.Second},
		"a call that sleeps":                {take: 10 * time.Second},
		"a file that is read as it changes": {take: 100 * time.Millisecond, think: time.Second, every: 19},
	} {
		t.Run(name, func(t *testing.T) {
			f := newServer()
			bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
				m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
				id, session := turnOn(t, m, "p")
				for i := range 100 {
					msg := bgagent.Message{ID: "m" + time.Duration(i).String(), Role: bgagent.RoleAgent}
					msg.Tools = []bgagent.MessageTool{{ID: "c", Name: "bash", State: bgagent.ToolRunning, Input: 1}}
					show := func() {
						f.put(session, msg)
						m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: session, Message: &msg})
					}
					show()
					time.Sleep(c.take)
					msg.Finished, msg.Stop = true, bgagent.StopToolCalls
					msg.Tools = []bgagent.MessageTool{{ID: "c", Name: "bash", State: bgagent.ToolDone, Input: 1, Result: 2}}
					if c.every > 0 {
						msg.Tools[0].Result += bgagent.Digest(i / c.every)
					}
					show()
					time.Sleep(c.think)
				}
				require.Equal(t, 100, get(t, m, id).Progress.ToolCalls)
				f.say(session, "done")
				task := ended(t, m, id)[0]
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			})
		})
	}
}
