package bgagent_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// If every poll counted as activity, no turn would ever be stale. If only tool calls counted, an
// agent that is thinking would be stopped.
func TestOnlyAChangeIsActivity(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		silent, session := turnOn(t, m, "silent")
		thinking, other := turnOn(t, m, "thinking")
		tool, third := turnOn(t, m, "a long tool call")
		f.put(session, bgagent.Message{ID: "m", Text: "one sentence"})
		f.put(third, bgagent.Message{ID: "m", Tools: []bgagent.MessageTool{{ID: "t", Name: "make", State: bgagent.ToolRunning}}})
		for i := range 20 {
			f.put(other, bgagent.Message{ID: "m", Reasoning: fmt.Sprint("hm", i)})
			time.Sleep(30 * time.Second)
		}
		task := get(t, m, silent)
		require.Equal(t, bgagent.CauseStale, task.Cause)
		require.Contains(t, task.Reason, "3 min")
		require.Contains(t, task.Reason, "one sentence")
		require.Contains(t, task.Reason, "staleTimeoutMs")
		require.InDelta(t, 3*60, task.Duration(time.Now()).Seconds(), 5)
		require.Positive(t, f.session(session).aborts)
		require.Equal(t, bgagent.Running, get(t, m, thinking).Status)
		require.Equal(t, bgagent.Running, get(t, m, tool).Status)
	})
}

func TestATodoListThatChangesIsAChange(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		for i := range 6 {
			time.Sleep(time.Minute)
			m.Observe(bgagent.HostEvent{Kind: bgagent.HostTodos, Session: session, Todos: make([]bgagent.Todo, i+1)})
		}
		require.Equal(t, bgagent.Running, get(t, m, id).Status, get(t, m, id).Reason)
	})
}

func TestARetryIsNotStaleAsSoonAsItBegins(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, _ := turnOn(t, m, "p")
		at := time.Now().Add(10 * time.Minute)
		f.do(func() {
			f.statuses = func(m map[string]bgagent.SessionStatus) {
				for id := range m {
					m[id] = bgagent.SessionStatus{State: bgagent.SessionRetrying, RetryAt: at, Detail: "rate limit"}
				}
			}
		})
		time.Sleep(10*time.Minute + 5*time.Second) // the retry has just begun and has not been answered yet
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%s", get(t, m, id).Reason)
	})
}

func TestARetryThatIsPutOffIsAChange(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, _ := turnOn(t, m, "p")
		began := time.Now()
		f.do(func() {
			f.statuses = func(m map[string]bgagent.SessionStatus) {
				// The pause before each retry is 30 s, and each retry takes 3 s.
				n := time.Since(began) / (33 * time.Second)
				at := began.Add(n*33*time.Second + 30*time.Second)
				for id := range m {
					m[id] = bgagent.SessionStatus{State: bgagent.SessionRetrying, RetryAt: at, Detail: "overloaded"}
				}
			}
		})
		time.Sleep(10 * time.Minute)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%s %v", get(t, m, id).Reason, get(t, m, id).Ended.Sub(began))
	})
}

func TestTheLastActivityIsNotInTheFuture(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		time.Sleep(3 * time.Second)
		f.do(func() { f.statusErr = errors.New("down") })
		for range 24 {
			time.Sleep(10 * time.Second)
			m.Observe(bgagent.HostEvent{Kind: bgagent.HostActivity, Session: session})
		}
		f.do(func() { f.statusErr = nil })
		time.Sleep(3 * time.Second)
		require.False(t, get(t, m, id).Progress.LastActivity.After(time.Now()), "%v", time.Until(get(t, m, id).Progress.LastActivity))
	})
}

// A task that has reached its time limit must not leave its session running,
// because a running session costs money.
func TestTheTimeLimitStopsTheSession(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{StaleTimeout: bgagent.Disabled}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		began := time.Now()
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseTimeToLive, task.Cause)
		require.Equal(t, 30*time.Minute, time.Since(began))
		require.NoError(t, m.Quiet(t.Context(), id))
		require.Equal(t, 1, f.session(session).aborts)

		r := working(time.Hour)
		m = manage(t, r, bgagent.Config{})
		task = ended(t, m, launch(t, m, "p").ID)[0]
		require.Equal(t, bgagent.CauseTimeToLive, task.Cause)
		require.NoError(t, m.Quiet(t.Context(), task.ID), "the turn must stop, because its context has ended")
	})
}
