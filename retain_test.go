package bgagent_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// heapOf returns the bytes that are reachable.
func heapOf() int {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc)
}

// Spec 6: 64 MiB of text are retained, and not what it was cut out of.
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
			require.Less(t, kept, 24<<20, "%d MiB are kept of at most 20", kept>>20)
			runtime.KeepAlive(m)
		})
	}
}

// A tombstone keeps a title, not the prompt that it is the beginning of.
func TestATombstoneDoesNotKeepThePrompt(t *testing.T) {
	m := manage(t, &goRunner{run: works(0)}, bgagent.Config{RetainTasks: 1, MaxTasksPerRoot: bgagent.Unlimited, Wake: bgagent.WakeNever})
	before := heapOf()
	for i := range 200 {
		ended(t, m, launch(t, m, fmt.Sprintf("title %d\n", i)+strings.Repeat("x", 200<<10)).ID)
		m.TakeNotice("root")
	}
	kept := heapOf() - before
	require.Less(t, kept, 4<<20, "%d MiB are kept of one task", kept>>20)
	runtime.KeepAlive(m)
}

// What a task has launched ends with it, also when its record goes at once.
func TestTheChildrenOfATaskThatExpiresAtItsEndAreCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		var child bgagent.Task
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "parent" {
				var err error
				child, err = m.Launch(ctx, bgagent.Caller{Session: s}, bgagent.LaunchInput{Agent: "a", Prompt: "child"})
				return bgagent.TurnEnd{Text: "launched"}, err
			}
			return works(time.Hour)(ctx, s, p, r)
		}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, RetainTasks: 1, Wake: bgagent.WakeNever, Limits: bgagent.Limits{Default: 3}})
		untold := launch(t, m, "untold")
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, untold.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Minute)
			cancel()
		}()
		parent, err := m.Run(ctx, root, bgagent.LaunchInput{Agent: "a", Prompt: "parent"})
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		_, err = m.Get(parent.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		_, err = m.Get(child.ID)
		require.ErrorContains(t, err, "its last attempt ended as cancelled")
	})
}

// A long answer told in small pieces must not hold up everybody else.
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

func manageUnchecked(t *testing.T, sc bgagent.SessionClient, cfg bgagent.Config) *bgagent.BackgroundManager {
	t.Helper()
	m, err := bgagent.New(sc, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

func TestWhatASessionIsOwedThatNobodyKnowsIsRetainedWithinTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{fail: func(int) error { return bgagent.ErrNoSession }}
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Notify: box.notify, RetainTasks: 10, Limits: bgagent.Limits{Default: bgagent.Unlimited}})
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
