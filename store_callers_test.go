package bgagent_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

func TestARepeatedLaunchIsNotWithdrawnByTheFirstCaller(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		slow(mem, 10*time.Second)
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		in := bgagent.LaunchInput{Agent: "worker", Prompt: "a"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := make(chan error)
		go func() {
			_, err := m.Launch(ctx, by, in)
			first <- err
		}()
		synctest.Wait()
		second := make(chan bgagent.Task)
		go func() {
			task, err := m.Launch(t.Context(), by, in)
			require.NoError(t, err)
			second <- task
		}()
		err := <-first
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		mem.SetFaults(nil)
		require.Equal(t, "answer to a", ended(t, m, (<-second).ID)[0].Result)
		require.Len(t, tasksIn(mem), 1)
	})
}

func TestEveryCallerOfAWithdrawnLaunchLearnsThatItMayBeThere(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		var hung atomic.Int64
		h.mu.Lock()
		h.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			if hung.Add(1) == 1 {
				time.Sleep(40 * time.Second)
			}
			return h.Process.Write(ctx, b)
		}
		h.mu.Unlock()
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		errs := make(chan error)
		for range 2 {
			go func() {
				_, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
				errs <- err
			}()
			synctest.Wait()
		}
		for range 2 {
			err := <-errs
			require.ErrorIs(t, err, bgagent.ErrUncertain)
			require.NotContains(t, strings.TrimSpace(err.Error())+"$", ": $", "the error must contain the reason")
		}
		time.Sleep(time.Minute)
		require.Empty(t, tasksIn(mem))
	})
}

func TestACancelOfAWithdrawnLaunchReturnsAtOnce(t *testing.T) {
	withHands(t, working(time.Hour), limit(1), func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		a := launch(t, m, "a")
		_, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		slow(mem, 20*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { _, _ = m.Resume(ctx, root, a.ID, bgagent.ResumeInput{Prompt: "more"}) }()
		synctest.Wait()
		began := time.Now()
		_, err = m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
	})
}
