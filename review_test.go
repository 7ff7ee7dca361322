package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// A busy parent is tried again after Config.PollInterval, not at once.
func TestABusyNotifierIsTriedAgainAfterThePollInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		cfg := bgagent.Config{Notify: func(context.Context, string, bgagent.Notice) error {
			if at = append(at, time.Since(began)); len(at) < 10 {
				return bgagent.ErrBusy
			}
			return nil
		}}
		m := manage(t, &goRunner{run: works(time.Second)}, cfg)
		a := launch(t, m, "a")
		time.Sleep(10 * time.Minute)
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, a.ID).Notice)
		for i := 1; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i]-at[i-1], bgagent.DefaultPollInterval, "try %d: %v", i+1, at)
		}
	})
}
