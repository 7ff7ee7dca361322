package bgagent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// TestAManagerAsksTheSourceOfTheManagerWhoseSlotsItShares gives a manager the ConcurrencyManager of
// another one, whose slots come from a source.
func TestAManagerAsksTheSourceOfTheManagerWhoseSlotsItShares(t *testing.T) {
	for name, share := range map[string]func(*bgagent.ConcurrencyManager) bgagent.Config{
		"Concurrency": func(c *bgagent.ConcurrencyManager) bgagent.Config { return bgagent.Config{Concurrency: c} },
		"Slots":       func(c *bgagent.ConcurrencyManager) bgagent.Config { return bgagent.Config{Slots: c} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scriptedSource{}
				first := manage(t, working(time.Minute), bgagent.Config{Slots: s})
				second := manage(t, working(time.Minute), share(first.Concurrency()))
				require.Same(t, first.Concurrency(), second.Concurrency(), "they share cool-downs, too")
				task := launch(t, second, "1")
				k := s.claim(t, 0)
				time.Sleep(time.Hour)
				require.Equal(t, bgagent.Pending, get(t, second, task.ID).Status)
				k.h.SlotGranted()
				require.Equal(t, bgagent.Completed, ended(t, second, task.ID)[0].Status)
				require.Equal(t, 1, k.releases())
			})
		})
	}
}

// granted is a holder that appends its name to a list when it gets the slot.
type granted struct {
	name string
	all  *[]string
}

func (g granted) SlotGranted()              { *g.all = append(*g.all, g.name) }
func (g granted) SlotLost(time.Time, error) {}

// TestARequestWithoutAQueueTimeIsQueuedWhenItIsMade has a request arrive later that was queued earlier.
func TestARequestWithoutAQueueTimeIsQueuedWhenItIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
		require.NoError(t, err)
		var all []string
		first := c.Request(bgagent.SlotRequest{Model: "m"}, granted{"first", &all})
		time.Sleep(time.Minute)
		third := c.Request(bgagent.SlotRequest{Model: "m"}, granted{"third", &all})
		second := c.Request(bgagent.SlotRequest{Model: "m", Queued: time.Now().Add(-time.Second)}, granted{"second", &all})
		first.Release()
		second.Release()
		third.Release()
		require.Equal(t, []string{"first", "second", "third"}, all)
	})
}
