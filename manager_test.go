package bgagent_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

func TestNewRefusesWhatIsNoClient(t *testing.T) {
	type both struct {
		bgagenttest.Runner
		bgagent.TurnStarter
	}
	type neither struct{ bgagent.SessionClient }
	var none *goRunner
	for name, c := range map[string]struct {
		client bgagent.SessionClient
		says   string
	}{
		"nil":         {nil, "client: is nil"},
		"nil pointer": {none, "client: is nil"},
		"both":        {both{bgagenttest.NewRunner(nil), newServer()}, "both a TurnRunner and a TurnStarter"},
		"neither":     {neither{bgagenttest.NewRunner(nil)}, "neither a TurnRunner nor a TurnStarter"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bgagent.New(c.client, bgagent.Config{})
			var input *bgagent.InputError
			require.ErrorAs(t, err, &input)
			require.ErrorContains(t, err, c.says)
		})
	}
	_, err := bgagent.New(bgagenttest.NewRunner(nil), bgagent.Config{Clients: map[string]bgagent.SessionClient{"x": nil}})
	require.ErrorContains(t, err, `Config.Clients["x"]: is nil`)
}

func TestSeveralClientsBehindOneManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := working(time.Second), newServer()
		m := manage(t, a, bgagent.Config{
			Clients:   map[string]bgagent.SessionClient{"server": b},
			ClientFor: func(agent string) string { return strings.TrimPrefix(agent, "local") },
		})
		local, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "local", Prompt: "p"})
		require.NoError(t, err)
		synctest.Wait()
		clash, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "server", Prompt: "p"})
		require.NoError(t, err)
		tasks := ended(t, m, local.ID, clash.ID)
		require.Equal(t, bgagent.Completed, tasks[0].Status)
		require.Contains(t, tasks[1].Reason, "belongs to task "+local.ID, "both name their first session ses_1")
		remote, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "server", Prompt: "p"})
		require.NoError(t, err)
		synctest.Wait()
		b.say(get(t, m, remote.ID).Session, "from afar")
		task := ended(t, m, remote.ID)[0]
		require.Equal(t, "from afar", task.Result)
		require.Equal(t, "server", task.Client)
	})
}

func TestASharedConcurrencyManagerCountsForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cm, err := bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
		require.NoError(t, err)
		a := manage(t, working(time.Minute), bgagent.Config{Concurrency: cm})
		b := manage(t, working(time.Minute), bgagent.Config{Concurrency: cm})
		first, second, third := launch(t, a, "1"), launch(t, b, "2"), launch(t, a, "3")
		began := time.Now()
		ended(t, b, second.ID)
		require.Equal(t, 2*time.Minute, time.Since(began))
		ended(t, a, first.ID, third.ID)
		require.Equal(t, 3*time.Minute, time.Since(began))
		require.NoError(t, cm.SetLimits(bgagent.Limits{Default: 2}))
		fullBatch(t, a, 2)
	})
}
