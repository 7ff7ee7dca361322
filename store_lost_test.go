package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// The function "steal" writes batches as another manager, which then closes the store.
func steal(mem *storetest.Memory, batches int) error {
	p := mem.Process()
	c, err := p.Open(context.Background(), bgagent.StoreOwner{Instance: "other"})
	for i := range batches {
		r := bgagent.StoreRecord{Key: "manager", Kind: bgagent.StoreManager, Due: true, Data: []byte(`{"v":1,"instance":"other","seen":"2026-01-01T00:00:00Z"}`)}
		err = errors.Join(err, p.Write(context.Background(), &bgagent.StoreBatch{Number: c.Batch + uint64(i) + 1, Records: []bgagent.StoreRecord{r}}))
	}
	return errors.Join(err, p.Close())
}

func TestAfterTheStoreIsLostNothingIsShownThatIsNotDurable(t *testing.T) {
	for name, thief := range thieves {
		t.Run(name, func(t *testing.T) {
			box := &inbox{}
			stopped := &atomic.Int64{}
			f := &goRunner{run: func(ctx context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
				if p.Text == "short" {
					return bgagent.TurnEnd{Text: "done"}, nil
				}
				<-ctx.Done()
				stopped.Add(1)
				return bgagent.TurnEnd{}, ctx.Err()
			}}
			cfg := limit(3)
			cfg.Notify, cfg.TimeToLive = box.notify, bgagent.Disabled
			withHands(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
				var ids []string
				for range 5 {
					ids = append(ids, launch(t, m, "long").ID)
				}
				time.Sleep(10 * time.Second)
				waited := make(chan error)
				go func() {
					_, err := m.Wait(context.Background(), bgagent.Caller{}, bgagent.WaitAny, ids...)
					waited <- err
				}()
				drained := make(chan error)
				synctest.Wait()
				owned := thief(t, mem, h)
				if chosen(h, &h.write) == nil {
					var writes atomic.Int64
					mem.SetFaults(func(uint64, int) (f storetest.Fault) {
						if writes.Add(1) == 1 {
							f.Kind = storetest.LostUnwritten
						}
						return f
					})
				}
				lost := func(err error) {
					t.Helper()
					require.ErrorIs(t, err, bgagent.ErrStore)
					require.ErrorIs(t, err, bgagent.ErrStoreLost)
					var who *bgagent.StoreOwnedError
					require.Equal(t, owned, errors.As(err, &who))
				}
				_, sub := m.Subscribe(1 << 10)
				_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "short"})
				require.ErrorIs(t, err, bgagent.ErrStore)
				lost(<-waited)
				time.Sleep(time.Minute)
				require.EqualValues(t, 3, stopped.Load(), "all turns must end in this process")
				require.Empty(t, m.Figures().Pools, "the slots must be free")
				for _, id := range ids {
					task := get(t, m, id)
					require.Equal(t, bgagent.PhaseStoring, task.Phase)
					require.False(t, task.Status.Terminal())
				}
				_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "short"})
				lost(err)
				_, err = m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "short"})
				lost(err)
				_, err = m.NextNotice(t.Context(), "root")
				lost(err)
				_, err = m.History(t.Context(), bgagent.Query{}, "")
				lost(err)
				_, ok := m.TakeNotice("root")
				require.False(t, ok)
				go func() { drained <- m.Drain(context.Background()) }()
				lost(<-drained)
				require.Empty(t, box.all(), "no notice may be delivered")
				kinds := map[bgagent.EventKind]int{}
				for _, e := range unread(sub) {
					kinds[e.Kind]++
				}
				require.Equal(t, map[bgagent.EventKind]int{bgagent.EventStoreTrouble: 1}, kinds)
				began := time.Now()
				require.NoError(t, m.Close(context.Background()))
				require.Less(t, time.Since(began), time.Second)
			})
		})
	}
}

// The session is not aborted, because another manager might be following it.
func TestAfterTheStoreIsLostASessionOnAServerIsNotAborted(t *testing.T) {
	f := newServer()
	withHands(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		a := launch(t, m, "a")
		time.Sleep(10 * time.Second)
		thieves["a write is refused because of its owner"](t, mem, h)
		_, err := m.Cancel(t.Context(), root, launchUnsaid(m), bgagent.CancelOptions{})
		require.Error(t, err)
		require.ErrorIs(t, ask(m, a.ID), bgagent.ErrStoreLost)
		time.Sleep(time.Minute)
		for id, s := range f.sessions {
			require.Zero(t, s.aborts, id)
		}
		require.NoError(t, m.Close(context.Background()))
		for id, s := range f.sessions {
			require.Zero(t, s.aborts, id)
		}
	})
}

// launchUnsaid tries to launch a task, so that the manager writes to the store. It returns an id that
// no task has.
func launchUnsaid(m *bgagent.BackgroundManager) string {
	_, _ = m.Launch(context.Background(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "b"})
	return "bg_" + strings.Repeat("0", 13)
}

// The function "ask" waits for the task, and returns the error.
func ask(m *bgagent.BackgroundManager, id string) error {
	_, err := m.Wait(context.Background(), bgagent.Caller{}, bgagent.WaitAll, id)
	return err
}

func TestTheStoreIsNotOpenedAgainWhileTheManagerClosesIt(t *testing.T) {
	withHands(t, working(time.Hour), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
		launch(t, m, "a")
		h.mu.Lock()
		h.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			<-ctx.Done()
			return fmt.Errorf("%w: %w", bgagent.ErrUncertain, ctx.Err())
		}
		h.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, m.Close(ctx))
		time.Sleep(time.Minute)
		_, err := mem.Process().Open(t.Context(), bgagent.StoreOwner{Instance: "next"})
		require.NoError(t, err, "the next manager must be able to open the store")
	})
}
