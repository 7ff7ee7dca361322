package slots

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSlotIsReleasedOnce(t *testing.T) {
	c := New(alone(2))
	old, ok := c.TryAcquire("m")
	require.True(t, ok)
	kept, ok := c.TryAcquire("m")
	require.True(t, ok)
	cp := old
	old.Release()
	old.Release()
	cp.Release()
	require.Equal(t, 1, c.Stats("m").InUse)

	// The next slot reuses the record. Releasing the old Slot must not change the record.
	next, ok := c.TryAcquire("m")
	require.True(t, ok)
	require.Same(t, old.rec, next.rec)
	old.Release()
	require.Equal(t, 2, c.Stats("m").InUse)

	var all sync.WaitGroup
	for range 8 {
		all.Go(next.Release)
	}
	all.Wait()
	require.Equal(t, 1, c.Stats("m").InUse)
	kept.Release()
	Slot{}.Release()
	requireFullBatch(t, c, "m")
}
