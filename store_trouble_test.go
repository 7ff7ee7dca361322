package bgagent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// withMemory runs a test in a bubble, with a manager whose store is in memory.
func withMemory(t *testing.T, sc bgagent.SessionClient, cfg bgagent.Config, test func(*testing.T, *bgagent.BackgroundManager, *storetest.Memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mem := &storetest.Memory{}
		cfg.Store = mem.Process()
		test(t, manage(t, sc, cfg), mem)
	})
}

// breakFor makes all writes fail in the given way for the duration d.
func breakFor(mem *storetest.Memory, d time.Duration, kind storetest.FaultKind) {
	end := time.Now().Add(d)
	mem.SetFaults(func(uint64, int) storetest.Fault {
		if time.Now().Before(end) {
			return storetest.Fault{Kind: kind}
		}
		return storetest.Fault{}
	})
}

// The function "slow" makes each write take the duration d.
func slow(mem *storetest.Memory, d time.Duration) {
	mem.SetFaults(func(uint64, int) storetest.Fault { return storetest.Fault{Delay: d} })
}

var allFailures = []storetest.FaultKind{storetest.Refused, storetest.Full, storetest.LostUnwritten}

func TestALaunchThatCannotBeWrittenIsTakenBack(t *testing.T) {
	for _, kind := range allFailures {
		cfg := limit(1)
		withMemory(t, working(time.Second), cfg, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
			breakFor(mem, 10*time.Second, kind)
			_, sub := m.Subscribe(0)
			for range 3 { // the later launches begin after a write has failed
				_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
				require.ErrorIs(t, err, bgagent.ErrStore)
				require.NotErrorIs(t, err, bgagent.ErrUncertain)
			}
			require.Empty(t, m.List(bgagent.Query{}))
			require.Zero(t, m.Figures().Live+int(m.Figures().Attempts))
			sourceAnswers()
			require.Empty(t, m.Figures().Pools, "the slot must be free")
			time.Sleep(time.Minute)
			require.Empty(t, tasksIn(mem))
			b := launch(t, m, "b")
			require.Equal(t, "answer to b", ended(t, m, b.ID)[0].Result)
			e, err := sub.Next(t.Context())
			require.NoError(t, err)
			require.Equal(t, b.ID, e.Task.ID, "no event may report a withdrawn launch")
		})
	}
}

func tasksIn(mem *storetest.Memory) []bgagent.StoreRecord {
	return slices.DeleteFunc(mem.Records(), func(r bgagent.StoreRecord) bool { return r.Kind != bgagent.StoreTask })
}

func TestAWriteWhoseAnswerIsLostCounts(t *testing.T) {
	withMemory(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		mem.SetFaults(func(_ uint64, try int) storetest.Fault {
			if try == 0 {
				return storetest.Fault{Kind: storetest.LostWritten, Delay: time.Millisecond}
			}
			return storetest.Fault{Kind: storetest.Refused}
		})
		task, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
		if err != nil { // Run returned the write's error, because the manager had not yet found the batch in the store
			require.ErrorIs(t, err, bgagent.ErrUncertain)
			time.Sleep(time.Minute)
			require.Empty(t, tasksIn(mem), "a record that the store might contain must be deleted")
			return
		}
		require.Equal(t, bgagent.Completed, task.Status)
	})
}

func TestALaunchWhoseWriteIsUnderWayIsUncertainAndDeleted(t *testing.T) {
	prompted := 0
	f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
		prompted++
		return bgagent.TurnEnd{Text: "done"}, nil
	}}
	withMemory(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		slow(mem, 10*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Launch(ctx, root, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(15 * time.Second)
		require.EqualValues(t, 1, mem.Batch())
		time.Sleep(15 * time.Second)
		require.Empty(t, tasksIn(mem))
		require.Zero(t, prompted)
	})
}

func TestAResumeThatCannotBeWrittenIsTakenBack(t *testing.T) {
	for _, kind := range allFailures {
		withMemory(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
			a := launch(t, m, "a")
			before := ended(t, m, a.ID)[0]
			breakFor(mem, 10*time.Second, kind)
			_, err := m.Resume(t.Context(), root, a.ID, bgagent.ResumeInput{Prompt: "more", Model: "other"})
			require.ErrorIs(t, err, bgagent.ErrStore)
			require.Equal(t, before, get(t, m, a.ID))
			time.Sleep(time.Minute)
			x, _ := taskIn(mem, a.ID)
			require.Equal(t, 1, x.Attempt)
			n, ok := m.TakeNotice("root")
			require.True(t, ok, "the notice must still be owed")
			require.Len(t, n.Items, 1)
			_, err = m.Resume(t.Context(), root, a.ID, bgagent.ResumeInput{Prompt: "more"})
			require.NoError(t, err)
			require.Equal(t, "answer to more", ended(t, m, a.ID)[0].Result)
		})
	}
}

func TestACancellationStandsWhileWritesFail(t *testing.T) {
	for _, kind := range allFailures {
		withMemory(t, working(time.Hour), bgagent.Config{TimeToLive: bgagent.Disabled}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
			a := launch(t, m, "a")
			time.Sleep(time.Second)
			breakFor(mem, time.Minute, kind)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := m.Cancel(ctx, root, a.ID, bgagent.CancelOptions{})
			require.ErrorIs(t, err, bgagent.ErrStore)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			task := get(t, m, a.ID)
			require.Equal(t, bgagent.Running, task.Status)
			require.Equal(t, bgagent.PhaseStoring, task.Phase)
			tasks, err := m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, a.ID)
			require.ErrorIs(t, err, bgagent.ErrStore)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, bgagent.PhaseStoring, tasks[0].Phase)
			require.Equal(t, bgagent.Cancelled, ended(t, m, a.ID)[0].Status)
			x, _ := taskIn(mem, a.ID)
			require.Equal(t, "cancelled", x.Status)
		})
	}
}

func TestAnEndThatIsNotDurableIsNotShown(t *testing.T) {
	withMemory(t, working(time.Second), limit(1), func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		a, b := launch(t, m, "a"), launch(t, m, "b")
		time.Sleep(100 * time.Millisecond)
		slow(mem, 10*time.Second)
		time.Sleep(2 * time.Second)
		task := get(t, m, a.ID)
		require.Equal(t, bgagent.PhaseStoring, task.Phase)
		require.Equal(t, bgagent.Running, task.Status)
		require.Zero(t, task.Cause)
		require.Equal(t, bgagent.NoticeNone, task.Notice)
		require.Equal(t, bgagent.Running, get(t, m, b.ID).Status, "the update that ends the attempt must release the slot")
		_, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.ErrorIs(t, err, bgagent.ErrAlreadyEnded)
		_, err = m.Resume(t.Context(), root, a.ID, bgagent.ResumeInput{Prompt: "more"})
		require.ErrorIs(t, err, bgagent.ErrStillLive)
		require.Empty(t, m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Completed}}))
		live, owed := m.Outstanding("root")
		require.Equal(t, 3, live+owed, "the end must be owed, and not reported yet")
		_, ok := m.TakeNotice("stranger")
		require.False(t, ok)
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.Completed, get(t, m, a.ID).Status)
		require.Equal(t, bgagent.PhaseNone, get(t, m, a.ID).Phase)
	})
}

func TestFailingWritesAreReportedAndEverythingGoesOnAfterThem(t *testing.T) {
	for _, kind := range allFailures {
		box := &inbox{}
		withMemory(t, working(time.Second), bgagent.Config{Notify: box.notify}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
			a := launch(t, m, "a")
			_, sub := m.Subscribe(1 << 10)
			time.Sleep(100 * time.Millisecond)
			breakFor(mem, 40*time.Second, kind)
			time.Sleep(29 * time.Second)
			for _, e := range unread(sub) {
				require.NotEqual(t, bgagent.EventStoreTrouble, e.Kind)
				require.NotEqual(t, bgagent.EventEnded, e.Kind)
			}
			require.Empty(t, box.all())
			time.Sleep(5 * time.Second)
			events := unread(sub)
			require.Len(t, events, 1)
			require.Equal(t, bgagent.EventStoreTrouble, events[0].Kind)
			time.Sleep(time.Minute)
			require.Equal(t, bgagent.Completed, get(t, m, a.ID).Status)
			require.Len(t, box.all(), 1)
			require.NoError(t, m.Close(t.Context()))
		})
	}
}

// The function "unread" returns the events that can be read without waiting.
func unread(sub *bgagent.Subscription) (all []bgagent.Event) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			return all
		}
		all = append(all, e)
	}
}

func TestEventsOfATaskKeepTheirOrderWhateverWritesTake(t *testing.T) {
	withMemory(t, working(30*time.Millisecond), limit(2), func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		mem.SetFaults(func(batch uint64, try int) storetest.Fault {
			f := storetest.Fault{Delay: time.Duration(batch%7) * 10 * time.Millisecond}
			if batch%5 == 0 && try < 2 {
				f.Kind = allFailures[try]
			}
			return f
		})
		_, sub := m.Subscribe(1 << 10)
		var ids []string
		for len(ids) < 8 {
			task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
			if err != nil {
				require.ErrorIs(t, err, bgagent.ErrStore)
				time.Sleep(time.Second)
				continue
			}
			ids = append(ids, task.ID)
		}
		ended(t, m, ids...)
		time.Sleep(time.Minute)
		kinds, seq := map[string][]bgagent.EventKind{}, uint64(0)
		for _, e := range unread(sub) {
			require.Equal(t, seq+1, e.Seq)
			seq = e.Seq
			if e.Kind != bgagent.EventPhase && e.Kind != bgagent.EventProgress {
				kinds[e.Task.ID] = append(kinds[e.Task.ID], e.Kind)
			}
		}
		require.Len(t, kinds, len(ids))
		for id, got := range kinds {
			require.Equal(t, []bgagent.EventKind{bgagent.EventLaunched, bgagent.EventStarted, bgagent.EventEnded, bgagent.EventQuiet}, got, id)
		}
	})
}

func TestANoticeThatCannotBeWrittenIsNotHandedOut(t *testing.T) {
	withMemory(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		a := launch(t, m, "a")
		ended(t, m, a.ID)
		breakFor(mem, time.Minute, storetest.Refused)
		_, ok := m.TakeNotice("root")
		require.False(t, ok)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.NextNotice(ctx, "root")
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, owed := m.Outstanding("root")
		require.Equal(t, 1, owed)
		slow(mem, time.Hour)
		began := time.Now()
		_, ok = m.TakeNotice("root")
		require.False(t, ok)
		require.LessOrEqual(t, time.Since(began), 30*time.Second)
		mem.SetFaults(nil)
		time.Sleep(2 * time.Hour)
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Len(t, n.Items, 1)
	})
}

// owedIn reports whether, according to the store, the end of the task is still owed to the parent.
func owedIn(t *testing.T, mem *storetest.Memory, id string) bool {
	t.Helper()
	time.Sleep(6 * time.Second) // a change is written within 5 s even if nothing waits for it
	x, ok := taskIn(mem, id)
	require.True(t, ok)
	return x.Notice == "owed"
}

func TestWhatIsPulledStaysOwedInTheStoreUntilItIsAcknowledged(t *testing.T) {
	pulls := map[string]func(t *testing.T, m *bgagent.BackgroundManager, id string) (ack string){
		"TakeNotice": func(t *testing.T, m *bgagent.BackgroundManager, _ string) string {
			n, ok := m.TakeNotice("root")
			require.True(t, ok)
			return n.ID
		},
		"an item of NextNotice": func(t *testing.T, m *bgagent.BackgroundManager, _ string) string {
			n, err := m.NextNotice(t.Context(), "root")
			require.NoError(t, err)
			return n.Items[0].ID
		},
		"Read": func(t *testing.T, m *bgagent.BackgroundManager, id string) string {
			_, err := m.Read(root, id)
			require.NoError(t, err)
			return "bgn_" + id[len("bg_"):] + ".1"
		},
		"a tool": func(t *testing.T, m *bgagent.BackgroundManager, id string) string {
			_, err := bgagent.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: id})
			require.NoError(t, err)
			return "bgn_" + id[len("bg_"):] + ".1"
		},
	}
	for name, pull := range pulls {
		t.Run(name, func(t *testing.T) {
			withMemory(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
				for _, by := range []string{"Ack", "a later call"} {
					id := launch(t, m, "a").ID
					ended(t, m, id)
					ack := pull(t, m, id)
					require.True(t, get(t, m, id).Notice.Settled(), "in memory, the notice must be settled immediately")
					require.True(t, owedIn(t, mem, id))
					m.Ack("bgn_of_nobody")
					_, _ = m.Read(bgagent.Caller{Session: "stranger"}, id)
					require.True(t, owedIn(t, mem, id))
					if by == "Ack" {
						m.Ack(ack)
					} else {
						_, _ = m.Wait(t.Context(), root, bgagent.WaitAll, id)
					}
					require.False(t, owedIn(t, mem, id), by)
				}
				ended(t, m, launch(t, m, "last").ID)
				_, ok := m.TakeNotice("root")
				require.True(t, ok)
				require.NoError(t, m.Close(t.Context()), "the error must not name ends that were handed out")
			})
		})
	}
}

func TestWhatRunReturnsStaysOwedInTheStoreUntilTheCallerGoesOn(t *testing.T) {
	withMemory(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		task, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
		require.NoError(t, err)
		require.Equal(t, bgagent.NoticeRead, task.Notice)
		require.True(t, owedIn(t, mem, task.ID))
		launch(t, m, "b")
		require.False(t, owedIn(t, mem, task.ID))
	})
}

func TestTheEndIsOwedIfRunReturnsBeforeItIsDurable(t *testing.T) {
	withMemory(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		time.AfterFunc(500*time.Millisecond, func() { slow(mem, time.Minute) })
		task, err := m.Run(ctx, root, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, bgagent.PhaseStoring, task.Phase)
		mem.SetFaults(nil)
		n, err := m.NextNotice(t.Context(), "root")
		require.NoError(t, err)
		require.Equal(t, task.ID, n.Items[0].Task)
	})
}

func TestTheStoreKeepsWhatExpiresFromMemory(t *testing.T) {
	withMemory(t, working(time.Second), bgagent.Config{RetainTasks: 1}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		var ids []string
		for range 4 {
			task, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
			require.NoError(t, err)
			ids = append(ids, task.ID)
		}
		_, err := m.Get(ids[0])
		require.ErrorIs(t, err, bgagent.ErrExpired)
		time.Sleep(10 * time.Second)
		all := tasksIn(mem)
		require.Len(t, all, 4)
		for _, r := range all[:1] {
			var x struct{ End struct{ Result string } }
			require.NoError(t, json.Unmarshal(r.Data, &x))
			require.NotEmpty(t, x.End.Result)
		}
		x, _ := taskIn(mem, ids[0])
		require.Equal(t, "read", x.Notice)
	})
}

// fullStore is a store without room for long texts. A write with a long text fails in the middle,
// so it is unknown whether the store contains the batch.
type fullStore struct {
	bgagent.Store
	full bool
}

func (s *fullStore) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	long := func(t bgagent.StoreText) bool { return len(t.Text) > 1000 }
	if s.full && slices.ContainsFunc(b.Texts, long) {
		return fmt.Errorf("%w: %w", bgagent.ErrUncertain, syscall.ENOSPC)
	}
	return s.Store.Write(ctx, b)
}

func TestAStoreWithoutRoomIsNoBadRecord(t *testing.T) {
	result := strings.Repeat("long ", 1000)
	f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
		return bgagent.TurnEnd{Text: result}, nil
	}}
	synctest.Test(t, func(t *testing.T) {
		mem := &storetest.Memory{}
		store := &fullStore{Store: mem.Process(), full: true}
		m := manage(t, f, bgagent.Config{Store: store})
		id := launch(t, m, "a").ID
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.PhaseStoring, get(t, m, id).Phase, "the end must wait for room and must not be set aside")
		store.full = false
		require.Equal(t, strings.TrimSpace(result), strings.TrimSpace(ended(t, m, id)[0].Result))
	})
}

func TestRecordsThatTheStoreRefusedAreTriedOnceMoreWhenItIsClosed(t *testing.T) {
	for _, stays := range []int{0, 1, 3} { // number of records that the store still refuses
		withHands(t, working(time.Minute), bgagent.Config{Wake: bgagent.WakeNever}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory, h *hands) {
			ids := []string{launch(t, m, "a").ID, launch(t, m, "b").ID, launch(t, m, "c").ID}
			time.Sleep(30 * time.Second)
			var bad atomic.Pointer[[]string]
			bad.Store(&ids)
			refused := h.refuse(func(b *bgagent.StoreBatch) bool {
				return slices.ContainsFunc(*bad.Load(), func(id string) bool { return holds(b, id) })
			})
			ended(t, m, ids...)
			still := ids[:stays]
			bad.Store(&still)
			before, began := refused.Load(), time.Now()
			_ = m.Close(t.Context()) // nobody was notified of the ends
			require.Less(t, time.Since(began), 10*time.Second)
			require.EqualValues(t, stays, refused.Load()-before)
			for i, id := range ids {
				x, _ := taskIn(mem, id)
				require.Equal(t, i < stays, x.Status == "running")
			}
		})
	}
}
