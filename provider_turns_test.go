package bgagent_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// In this test, all turns of the first task are refused. The first turn of each task that begins at
// the same time is also refused.
func TestATaskThatIsAlwaysRefusedDoesNotHoldItsPoolUp(t *testing.T) {
	for _, parked := range []int{1, 5} {
		t.Run(fmt.Sprint(parked), func(t *testing.T) {
			f := newLimited(func(i int, p bgagent.Prompt) error {
				if i < parked || p.Text == "0" {
					time.Sleep(time.Second) // the first turns run at the same time
					return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Status: 429, Next: bgagent.NextRepeat}
				}
				return nil
			})
			bubble(t, f, limit(parked), func(t *testing.T, m *bgagent.BackgroundManager) {
				began := time.Now()
				var ids []string
				for i := range parked + 1 {
					ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
					time.Sleep(time.Millisecond)
				}
				for _, task := range ended(t, m, ids[1:]...) {
					require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				}
				require.Less(t, time.Since(began), time.Minute)
				require.Equal(t, bgagent.CauseRateLimited, ended(t, m, ids[0])[0].Cause)
				require.Less(t, time.Since(began), 40*time.Minute)
			})
		})
	}
}

func TestATaskThatWasSeldomTriedIsNotEndedByTheRefusalsOfOthers(t *testing.T) {
	var until time.Time
	f := newLimited(func(int, bgagent.Prompt) error {
		if time.Sleep(time.Second); time.Now().Before(until) {
			return &bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Status: 529, Next: bgagent.NextRepeat}
		}
		return nil
	})
	bubble(t, f, limit(10), func(t *testing.T, m *bgagent.BackgroundManager) {
		until = time.Now().Add(40 * time.Minute)
		var ids []string
		for i := range 10 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		for _, task := range ended(t, m, ids...) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
		tried := map[string]int{}
		for _, turn := range f.turns() {
			tried[turn.prompt.Task]++
		}
		for _, n := range tried {
			require.InDelta(t, 2.5, n, 1.5, "the tasks take turns")
		}
	})
}

func TestAProviderThatAlwaysTellsATimeDoesNotKeepATaskForever(t *testing.T) {
	f := newLimited(func(int, bgagent.Prompt) error {
		return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, RetryAt: time.Now().Add(time.Minute), Next: bgagent.NextRepeat}
	})
	bubble(t, f, bgagent.Config{MaxPark: 2 * time.Hour}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		time.Sleep(2*time.Hour - time.Minute)
		require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
		time.Sleep(10 * time.Minute) // the longest backoff, and one more turn
		task := get(t, m, id)
		require.Equal(t, bgagent.CauseRateLimited, task.Cause)
		require.Contains(t, task.Reason, "from ")
	})
}

// In this test, a task of another manager holds the pool's only slot until the task's turn is
// refused.
func TestAForegroundCallDoesNotWaitForAPauseThatAnotherManagerBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cm, err := bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
		require.NoError(t, err)
		f := newLimited(func(int, bgagent.Prompt) error {
			time.Sleep(time.Second)
			return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, RetryAt: time.Now().Add(20 * time.Minute), Next: bgagent.NextRepeat}
		})
		launch(t, manage(t, f, bgagent.Config{Concurrency: cm}), "other")
		synctest.Wait()
		m := manage(t, newLimited(first(0, bgagent.ProviderError{})), bgagent.Config{Concurrency: cm})
		waiting := launch(t, m, "p").ID
		read := make(chan bgagent.BackgroundOutputResult, 1)
		go func() {
			out, _ := bgagent.BackgroundOutput(bgagent.WithCaller(t.Context(), root), m, root, bgagent.BackgroundOutputArgs{TaskID: waiting, Block: true, Timeout: new(int64(600_000))})
			read <- out
		}()
		began := time.Now()
		task, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "p"})
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		require.Equal(t, bgagent.Pending, task.Status)
		require.False(t, (<-read).TimedOut)
		require.Equal(t, time.Second, time.Since(began))
	})
}

// In this test, the first turn after the cool-down is silent for a long time, so the pool does not
// grant another slot.
func TestAPauseThatIsOverIsNotQueueTime(t *testing.T) {
	f := newLimited(func(n int, _ bgagent.Prompt) error {
		switch n {
		case 0:
			return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, RetryAt: time.Now().Add(5 * time.Minute), Next: bgagent.NextRepeat}
		case 1:
			time.Sleep(8 * time.Minute)
		}
		return nil
	})
	bubble(t, f, bgagent.Config{Limits: bgagent.Limits{Default: 2}, QueueTimeToLive: 10 * time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "first").ID
		synctest.Wait()
		late := launch(t, m, "late").ID
		for _, task := range ended(t, m, id, late) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
	})
}
