package dashboard_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

func TestAnOverdueStopIsShownToEveryPageUntilItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
			"deaf": func(context.Context, *inproc.Turn) (string, error) {
				<-release
				return "", nil
			},
		}), bgagent.Config{})
		require.NoError(t, err)
		defer m.Close(context.Background())
		h := dashboard.New(m, dashboard.Config{})
		id := launch(t, m, "main", "deaf", "x").ID
		early := watch(t, h, 0)
		pass(time.Second)
		_, _ = m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{}) // the error says that the session did not stop
		pass(time.Hour)
		late := watch(t, h, 0) // opened after the event about the session
		pass(time.Second)
		for _, v := range []*viewer{early, late} {
			require.Equal(t, "cancelled", v.status(id))
			require.Equal(t, true, v.tasks[id]["over"])
		}
		close(release)
		pass(time.Second)
		for _, v := range []*viewer{early, late} {
			require.Nil(t, v.tasks[id]["over"])
			v.leave()
		}
	})
}

func TestAChangeWithoutAnEventReachesThePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, bgagent.Config{})
		v := watch(t, dashboard.New(m, dashboard.Config{}), 0)
		id := launch(t, m, "main", "wait", "x").ID
		pass(time.Second)
		require.Equal(t, "agent wait", v.tasks[id]["pool"])
		require.NoError(t, m.Concurrency().SetLimits(bgagent.Limits{Agent: map[string]int{"wait": 2}}))
		pass(time.Minute + time.Second)
		require.Equal(t, "cap wait", v.tasks[id]["pool"])
		v.leave()
	})
}
