package bgagent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// If each commit woke every waiter, the time for many simultaneous launches would grow with the
// square of their number.
func TestACommitWakesOnlyTheWaitersThatNeedNoLaterBatch(t *testing.T) {
	st := &state{storing: newStoring(0)}
	s := st.storing
	var waiters [5]waiter
	for i := range waiters {
		waiters[i] = newWaiter()
		s.await(&waiters[i], uint64(i))
	}
	woken := func() (list []int) {
		for i := range waiters {
			if waiters[i].due {
				list = append(list, i)
			}
		}
		return list
	}
	st.wakeStoring(2)
	require.Equal(t, []int{0, 1, 2}, woken())
	s.forget(&waiters[3], 3)
	require.Len(t, s.waiters, 2)
	st.wakeStoring(anyBatch)
	require.Equal(t, []int{0, 1, 2, 4}, woken())
	require.Empty(t, s.waiters)
}

// A batch that retries a refused record contains no other changes, so its success must not make any
// other change count as durable.
func TestTheRetryOfARefusedRecordMakesNoOtherChangeDurable(t *testing.T) {
	st := &state{storing: newStoring(0)}
	s := st.storing
	record := func(key string) *mark {
		return &mark{texts: map[string]uint64{}, final: &recorded{rec: StoreRecord{Key: key}}}
	}
	refused, urgent := record("refused"), record("urgent")
	refused.refused, s.refused = true, []*mark{refused}
	s.mustChange(urgent)
	written := map[string]bool{}
	for b := st.nextBatch(time.Time{}, 1); b != nil; b = st.nextBatch(time.Time{}, 1) {
		for _, r := range b.Records {
			written[r.Key] = true
		}
		st.committedTo(b.Number, 1)
		require.True(t, written["urgent"] || !s.durable(urgent), "the change counts as durable, but is not written")
	}
	require.True(t, s.durable(urgent))
	require.True(t, written["refused"], "the refused record must be tried again")
	require.False(t, refused.refused)
}

// While the store refuses a record, the next scheduled write is the one that retries this record.
// Changes for which no caller waits must be written sooner.
func TestARefusedRecordDoesNotDelayOtherChanges(t *testing.T) {
	st := &state{storing: newStoring(0)}
	s := st.storing
	s.refused, s.retryAt = []*mark{{}}, int64(storeAsideEvery)
	st.retryLater()
	require.Equal(t, s.retryAt, st.deadlines.store)
	st.storeLater()
	require.Equal(t, int64(storeLaterBy), st.deadlines.store)
}
