package bgagent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheTimeOfAProviderCountsFromTheWallClock(t *testing.T) {
	epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	st := state{epoch: epoch, clock: epoch.Add(9 * time.Hour)} // the machine has slept for 8 hours
	now := int64(time.Hour)
	require.Equal(t, now+int64(5*time.Hour), st.providerTime(st.clock.Add(5*time.Hour), now))
	require.Zero(t, st.providerTime(st.clock.Add(-time.Second), now))
	require.Zero(t, st.providerTime(time.Time{}, now))
	require.Positive(t, st.providerTime(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), now))
}
