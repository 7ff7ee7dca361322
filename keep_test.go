package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/stretchr/testify/require"
)

// heapOf returns the number of reachable bytes on the heap.
func heapOf() int {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc)
}

// The manager keeps texts up to RetainText bytes. It must not keep the longer strings from
// which the texts were cut.
func TestDroppedTextIsFreed(t *testing.T) {
	const size, tasks = 200 << 10, 200
	for name, run := range map[string]func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error){
		"reported": func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Text(strings.Repeat("x", size))
			return bgagent.TurnEnd{}, nil
		},
		"cut": func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			return bgagent.TurnEnd{Text: strings.Repeat("y", 20*size)}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := manage(t, &goRunner{run: run}, bgagent.Config{RetainText: 20 << 20, MaxTasksPerRoot: bgagent.Unlimited})
			before := heapOf()
			for i := range tasks {
				ended(t, m, launch(t, m, fmt.Sprint("p", i)).ID)
			}
			kept := heapOf() - before
			require.Less(t, kept, 24<<20, "%d MiB are kept; the limit is 20", kept>>20)
			runtime.KeepAlive(m)
		})
	}
}

// A tombstone keeps the title of a task. If the title is the beginning of the prompt, the
// tombstone must not keep the whole prompt.
func TestATombstoneDoesNotKeepThePrompt(t *testing.T) {
	m := manage(t, &goRunner{run: works(0)}, bgagent.Config{RetainTasks: 1, MaxTasksPerRoot: bgagent.Unlimited, Wake: bgagent.WakeNever})
	before := heapOf()
	for i := range 200 {
		ended(t, m, launch(t, m, fmt.Sprintf("title %d\n", i)+strings.Repeat("x", 200<<10)).ID)
		m.TakeNotice("root")
	}
	kept := heapOf() - before
	require.Less(t, kept, 4<<20, "%d MiB are kept for one task", kept>>20)
	runtime.KeepAlive(m)
}

// A long answer that is reported in small pieces must not delay other work.
func TestManySmallPiecesOfTextAreCheap(t *testing.T) {
	const pieces = 100_000
	f := &goRunner{}
	f.run = func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		for range pieces {
			r.Text("word ")
		}
		return bgagent.TurnEnd{}, nil
	}
	m := manageUnchecked(t, f, bgagent.Config{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	task := ended(t, m, launch(t, m, "x").ID)[0]
	runtime.ReadMemStats(&after)
	require.Len(t, task.Result, pieces*5)
	allocated := after.TotalAlloc - before.TotalAlloc
	require.Less(t, allocated, uint64(64<<20), "%d MiB were allocated for %d KiB of text", allocated>>20, pieces*5>>10)
}

func TestWhatASessionIsOwedThatNobodyKnowsIsRetainedWithinTheLimit(t *testing.T) {
	withoutStore(t)
	box := &inbox{fail: func(int) error { return bgagent.ErrNoSession }}
	bubble(t, working(time.Second), bgagent.Config{Notify: box.notify, RetainTasks: 10, Limits: bgagent.Limits{Default: bgagent.Unlimited}}, func(t *testing.T, m *bgagent.BackgroundManager) {
		for i := range 80 {
			launch(t, m, fmt.Sprint(i))
		}
		time.Sleep(time.Minute)
		require.LessOrEqual(t, len(m.List(bgagent.Query{})), 10)
	})
}

func TestATaskDoesNotExpireBeforeItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "short" {
				return bgagent.TurnEnd{Text: "x"}, nil
			}
			return works(time.Minute)(ctx, s, p, r)
		}
		m := manage(t, f, bgagent.Config{Notify: box.notify, RetainTasks: 1, Limits: bgagent.Limits{Default: 1}})
		launch(t, m, "short")
		synctest.Wait()
		launch(t, m, "long")
		c := launch(t, m, "pending")
		_, sub := m.Subscribe(0)
		_, err := m.Cancel(t.Context(), root, c.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		sub2 := sub
		var kinds []bgagent.EventKind
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for {
			e, err := sub2.Next(ctx)
			if err != nil {
				break
			}
			if e.Task.ID == c.ID {
				kinds = append(kinds, e.Kind)
			}
		}
		require.Equal(t, bgagent.EventEnded, kinds[0], "%v", kinds)
	})
}

func TestWhatHasEndedIsForgottenInTime(t *testing.T) {
	withoutStore(t)
	bubble(t, working(time.Second), bgagent.Config{RetainTasks: 5, Wake: bgagent.WakeNever, Limits: bgagent.Limits{Default: 1}}, func(t *testing.T, m *bgagent.BackgroundManager) {
		var ids []string
		for i := range 8 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		ended(t, m, ids...)
		_, err := m.Get(ids[0])
		var expired *bgagent.ExpiredError
		require.ErrorAs(t, err, &expired)
		require.Equal(t, bgagent.Completed, expired.Status)
		require.Len(t, m.List(bgagent.Query{}), 5)

		task, err := m.Resume(t.Context(), root, expired.Session, bgagent.ResumeInput{Prompt: "do you remember"})
		require.NoError(t, err, "a task that has only a tombstone can be resumed by its session")
		require.Equal(t, ids[0], task.ID)
		require.Equal(t, 2, task.Attempt)
		require.Equal(t, "answer to do you remember", ended(t, m, task.ID)[0].Result)

		_, ok := m.TakeNotice("root")
		require.True(t, ok)
		time.Sleep(31 * time.Minute)
		require.Empty(t, m.List(bgagent.Query{}))
	})
}

// When a task's record expires, the notices owed for its earlier attempts also expire.
func TestOldDebtsExpireWithTheirTask(t *testing.T) {
	withoutStore(t)
	bubble(t, working(time.Second), bgagent.Config{Retention: time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "work")
		ended(t, m, task.ID)
		_, err := m.RunResume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = m.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		_, owed := m.Outstanding("root")
		require.Zero(t, owed)
		require.NoError(t, m.Close(t.Context()))
	})
}

func TestWhatNobodyTakesIsBounded(t *testing.T) {
	withoutStore(t)
	synctest.Test(t, func(t *testing.T) {
		m := manageUnchecked(t, working(time.Second), bgagent.Config{RetainTasks: 5})
		for range 2500 {
			ended(t, m, launch(t, m, "p").ID)
		}
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Len(t, n.Items, 5)
		require.LessOrEqual(t, len(n.Batch), 2000)
		require.Equal(t, 2500, len(n.Batch)+n.Omitted)
	})
}

// The type "forgetful" is a SessionForgetter that counts the calls for each session.
type forgetful struct {
	goRunner
	mu     sync.Mutex
	forgot map[string]int
}

func (f *forgetful) ForgetSession(session string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot[session]++
}

// At least 10,000 expired tasks are remembered. Older tasks are forgotten completely, and
// ForgetSession is called once for each of their sessions.
func TestTombstonesGoRoundInARing(t *testing.T) {
	withoutStore(t)
	f := &forgetful{forgot: map[string]int{}}
	f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
		return bgagent.TurnEnd{Text: "done"}, nil
	}
	m, err := bgagent.New(f, bgagent.Config{RetainTasks: 10, MaxTasksPerRoot: bgagent.Unlimited, Wake: bgagent.WakeNever})
	require.NoError(t, err)
	const n = 23_456
	ids := make([]string, n)
	for i := range ids {
		task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.NoError(t, err)
		ids[i] = task.ID
		if i%100 == 99 {
			_, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, ids[i])
			require.NoError(t, err)
		}
	}
	require.Eventually(t, func() bool {
		return len(m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Pending, bgagent.Running}})) == 0
	}, time.Minute, time.Millisecond)
	require.NoError(t, inside.CheckNow(m))
	expired, unknown := 0, 0
	var session string
	for _, id := range ids {
		_, err := m.Get(id)
		var gone *bgagent.ExpiredError
		switch {
		case err == nil:
		case !errors.As(err, &gone):
			require.ErrorIs(t, err, bgagent.ErrUnknownTask)
			unknown++
		default:
			expired++
			session = gone.Session
		}
	}
	require.GreaterOrEqual(t, expired, 10_000)
	require.LessOrEqual(t, expired, 10_250)
	_, err = m.Resume(t.Context(), root, session, bgagent.ResumeInput{Prompt: "again"})
	require.NoError(t, err, "the session of a task that has only a tombstone can be continued")
	_ = m.Close(t.Context())
	require.InDelta(t, unknown, len(f.forgot), 1)
	for s, n := range f.forgot {
		require.Equal(t, 1, n, s)
	}
}
