package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestNoticesEndWhenNothingIsOwed(t *testing.T) {
	bubble(t, working(time.Second), limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
		for range m.Notices(t.Context(), root.Session) {
			require.Fail(t, "nothing was launched")
		}
		want := []string{launch(t, m, "one").ID, launch(t, m, "two").ID}
		var told []string
		for n, err := range m.Notices(t.Context(), root.Session) {
			require.NoError(t, err)
			told = append(told, idsOf(n)...)
			if len(want) < 3 { // the loop also waits for a task that its body launches
				want = append(want, launch(t, m, "three").ID)
			}
		}
		require.Equal(t, want, told)
	})
}

func TestALoopOverNoticesThatBreaksOffOrIsSlowLosesNothing(t *testing.T) {
	bubble(t, working(time.Second), bgagent.Config{Wake: bgagent.WakeEach}, func(t *testing.T, m *bgagent.BackgroundManager) {
		first := launch(t, m, "one")
		var want []string
		for n, err := range m.Notices(t.Context(), root.Session) {
			require.NoError(t, err)
			require.Equal(t, []string{first.ID}, idsOf(n))
			want = []string{launch(t, m, "two").ID, launch(t, m, "three").ID}
			time.Sleep(time.Minute)
			break
		}
		_, owed := m.Outstanding(root.Session)
		require.Equal(t, 2, owed, "no notice may be taken while the body runs")
		for n, err := range m.Notices(t.Context(), root.Session) {
			require.NoError(t, err)
			require.ElementsMatch(t, want, idsOf(n), "one notice reports all tasks that ended in the meantime")
		}
	})
}

func TestNoticesOfAContextThatEndsSaySo(t *testing.T) {
	bubble(t, working(time.Hour), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		launch(t, m, "one")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var errs []error
		for n, err := range m.Notices(ctx, root.Session) {
			require.Empty(t, n)
			errs = append(errs, err)
		}
		require.Equal(t, []error{context.DeadlineExceeded}, errs)
	})
}

func TestEventsGoOnAfterALoopThatBreaksOff(t *testing.T) {
	bubble(t, working(time.Second), limit(50), func(t *testing.T, m *bgagent.BackgroundManager) {
		_, sub := m.Subscribe(0)
		_, slow := m.Subscribe(3)
		launch(t, m, "one")
		for _, want := range []bgagent.EventKind{bgagent.EventLaunched, bgagent.EventStarted} {
			for e := range sub.Events(t.Context()) {
				require.Equal(t, want, e.Kind)
				break
			}
		}
		sub.Close()
		for range sub.Events(t.Context()) {
			require.Fail(t, "the subscription is closed")
		}

		synctest.Wait()
		kinds := kindsOf(slow)
		require.Equal(t, bgagent.EventMissed, kinds[0], "a slow loop must learn that it missed events")
		require.Len(t, kinds, 4, "unread events are read even if the context has ended")
	})
}

// kindsOf returns the kinds of the unread events.
func kindsOf(sub *bgagent.Subscription) (kinds []bgagent.EventKind) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for e := range sub.Events(ctx) {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func idsOf(n bgagent.Notice) (ids []string) {
	for _, item := range n.Items {
		ids = append(ids, item.Task)
	}
	return ids
}
