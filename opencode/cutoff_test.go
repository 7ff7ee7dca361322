package opencode_test

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// cutOff returns a client of the rig's server. The server dies while the client is sending its first prompt,
// and starts again after a while. If stored is true, the server stores the prompt before it dies.
func (r *rig) cutOff(stored bool, away time.Duration) *opencode.Client {
	var died atomic.Bool
	return newClient(r.t, opencode.Config{HTTPClient: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		if !strings.HasSuffix(req.URL.Path, "/prompt_async") || died.Swap(true) {
			return r.f.RoundTrip(req)
		}
		if stored {
			_, err := r.f.RoundTrip(req)
			require.NoError(r.t, err)
		}
		r.f.crash()
		time.AfterFunc(away, r.f.restart)
		return nil, io.EOF
	})}})
}

func TestAPromptThatADyingServerDidNotStoreIsSentOnceMore(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		require.NoError(t, r.cutOff(false, 10*time.Second).StartTurn(t.Context(), id, prompt("bgp_a.1.1", "say once")))
		seconds(1)
		assert.Equal(t, []string{"> say once", "once"}, r.texts(id))
		assert.Len(t, r.f.sent(), 1)
	})
}

func TestAPromptThatADyingServerStoredIsNotSentAgain(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		c := r.cutOff(true, 10*time.Second)
		require.NoError(t, c.StartTurn(t.Context(), id, prompt("bgp_a.1.1", "wait")))
		assert.Len(t, r.f.sent(), 1)
		got, err := c.Statuses(t.Context(), []string{id})
		require.NoError(t, err)
		require.Equal(t, bgagent.SessionIdle, got[id].State)
	})
}

func TestAServerThatDoesNotReturnLeavesItOpenWhetherAPromptArrived(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		began := time.Now()
		err := r.cutOff(false, time.Hour).StartTurn(t.Context(), id, prompt("bgp_a.1.1", "say once"))
		require.ErrorIs(t, err, io.EOF)
		require.NotErrorIs(t, err, bgagent.ErrUnreachable, "the prompt may have arrived")
		require.LessOrEqual(t, time.Since(began), 2*time.Minute)
	})
}

func TestATaskWhoseServerDiesDuringThePromptGoesOnOrCountsAsInterrupted(t *testing.T) {
	for name, stored := range map[string]bool{"the prompt was lost": false, "the prompt was stored": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
				m, err := bgagent.New(r.cutOff(stored, 10*time.Second), bgagent.Config{})
				require.NoError(t, err)
				defer func() { _ = m.Close(t.Context()) }() // the error says that nobody took the notice
				task, err := m.Launch(t.Context(), bgagent.Caller{Session: r.root}, bgagent.LaunchInput{Agent: "worker", Prompt: "say once"})
				require.NoError(t, err)
				tasks, err := m.Wait(t.Context(), bgagent.Caller{Session: r.root}, bgagent.WaitAll, task.ID)
				require.NoError(t, err)
				task = tasks[0]
				require.Len(t, r.f.sent(), 1)
				if !stored {
					require.Equal(t, bgagent.Completed, task.Status, task.Reason)
					require.Equal(t, "once", task.Result)
					return
				}
				require.Equal(t, bgagent.CauseInterrupted, task.Cause, task.Reason)
			})
		})
	}
}
