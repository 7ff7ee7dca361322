package bgagent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

func recordOf(t *testing.T, memory *storetest.Memory, key string) bgagent.StoreRecord {
	t.Helper()
	all := memory.Records()
	i := slices.IndexFunc(all, func(r bgagent.StoreRecord) bool { return r.Key == key })
	require.GreaterOrEqual(t, i, 0, key)
	return all[i]
}

// sessionsIn returns the keys of all session records.
func sessionsIn(memory *storetest.Memory) (keys []string) {
	for _, r := range memory.Records() {
		if r.Kind == bgagent.StoreSession {
			keys = append(keys, r.Key)
		}
	}
	return keys
}

func TestReadingAnOldTaskChangesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Retention = time.Minute
		m := w.begin()
		id := launch(t, m, "explore").ID
		want := ended(t, m, id)[0]
		time.Sleep(time.Hour)
		before := recordOf(t, &w.memory, id)
		w.crash()
		for range 3 {
			time.Sleep(10 * 24 * time.Hour)
			m = w.begin()
			m.Start()
			task, err := m.Read(root, id)
			require.NoError(t, err)
			require.True(t, want.Queued.Equal(task.Queued) && want.Started.Equal(task.Started) && want.Ended.Equal(task.Ended))
			require.Equal(t, want.Result, task.Result)
			batch := w.memory.Batch()
			time.Sleep(time.Hour)
			require.Equal(t, before, recordOf(t, &w.memory, id))
			require.Equal(t, batch, w.memory.Batch(), "there is nothing to write")
			w.crash()
		}
	})
}

func TestATaskBelowAnExpiredTaskStaysInItsTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLives(t, 0, false)
		l.fake.Fates = nil
		l.begin()
		ended(t, l.m, launch(t, l.m, "delegate").ID)
		time.Sleep(time.Hour)
		l.die()
		l.begin()
		require.Empty(t, l.m.List(bgagent.Query{}))
		below := tasksIn(&l.memory)
		below = slices.DeleteFunc(below, func(r bgagent.StoreRecord) bool { return r.Parent == root.Session })
		require.Len(t, below, 1)
		task, err := l.m.Read(root, below[0].Key)
		require.NoError(t, err)
		require.Equal(t, "half done", task.Result)
		require.Equal(t, root.Session, task.Root)
		time.Sleep(time.Hour)
		require.Equal(t, root.Session, recordOf(t, &l.memory, task.ID).Root)
	})
}

func TestAManagerThatIsOnlyOpenedLeavesTheStoreAsItWas(t *testing.T) {
	for name, end := range map[string]func(m *bgagent.BackgroundManager) error{
		"closed":    func(m *bgagent.BackgroundManager) error { return m.Close(context.Background()) },
		"suspended": func(m *bgagent.BackgroundManager) error { return m.Suspend(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.cfg = limit(2)
				w.cfg.NoticeWindow, w.cfg.QueueTimeToLive, w.cfg.StopTimeout = time.Hour, 20*time.Minute, 30*time.Second
				m := w.begin()
				first := launch(t, m, "first")
				ended(t, m, first.ID)
				second := launch(t, m, "second")
				time.Sleep(time.Second)
				w.takes(2 * time.Minute)
				running, pending, last := launch(t, m, "third"), launch(t, m, "fourth"), launch(t, m, "fifth")
				ended(t, m, second.ID)
				_, ok := m.TakeNotice("root")
				require.True(t, ok)
				_, err := m.Cancel(t.Context(), bgagent.Caller{}, last.ID, bgagent.CancelOptions{})
				require.NoError(t, err)
				time.Sleep(10 * time.Second)
				w.crash()
				before, batch := w.memory.Records(), w.memory.Batch()
				w.memory.SetOutdated("it is a copy")
				time.Sleep(time.Minute)
				for range 3 {
					m = w.begin()
					require.Equal(t, "it is a copy", m.Restored().Outdated)
					require.Equal(t, bgagent.Running, get(t, m, running.ID).Status)
					require.Equal(t, bgagent.PhaseTurn, get(t, m, running.ID).Phase)
					_, err = m.Read(root, second.ID)
					require.NoError(t, err)
					_, err = m.History(t.Context(), bgagent.Query{}, "")
					require.NoError(t, err)
					time.Sleep(time.Hour)
					began := time.Now()
					require.NoError(t, end(m))
					require.Less(t, time.Since(began), time.Second)
					require.Equal(t, before, w.memory.Records())
					require.Equal(t, batch, w.memory.Batch())
				}
				w.memory.SetOutdated("")
				w.cfg.RestartWithin = bgagent.Disabled
				w.cfg.NoticeWindow = 0
				m = w.begin()
				tasks := ended(t, m, running.ID, pending.ID)
				require.Equal(t, bgagent.Completed, tasks[0].Status, tasks[0].Reason)
				require.Equal(t, bgagent.Completed, tasks[1].Status, tasks[1].Reason)
				time.Sleep(time.Hour)
				require.Len(t, w.told.told(), 5)
			})
		})
	}
}

func TestASuspensionIsStillKnownAfterAManagerWasOnlyOpened(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		id := launch(t, w.begin(), "explore").ID
		for range 5 {
			w.life.m.Start()
			time.Sleep(10 * time.Second)
			require.NoError(t, w.life.m.Suspend(t.Context()))
			require.NoError(t, w.begin().Close(t.Context()))
			w.begin()
		}
		require.Equal(t, bgagent.Completed, ended(t, w.life.m, id)[0].Status)
	})
}

// The type "flaky" is a store whose texts cannot be read while the field "broken" is set.
type flaky struct {
	*storetest.Process
	broken bool
}

func (s *flaky) Text(ctx context.Context, record, name string) (string, error) {
	if s.broken && strings.HasPrefix(name, "result") {
		return "", errors.New("the disk does not answer")
	}
	return s.Process.Text(ctx, record, name)
}

func TestResultsThatMemoryHasDroppedAreReadFromTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := &storetest.Memory{}
		var ids []string
		store := &flaky{Process: memory.Process()}
		begin := func() *bgagent.BackgroundManager {
			return manage(t, working(time.Second), bgagent.Config{Store: store, RetainText: 30, Retention: time.Hour})
		}
		m := begin()
		for i := range 5 {
			ids = append(ids, launch(t, m, fmt.Sprint("task ", i)).ID)
		}
		ended(t, m, ids...)
		check := func(when string) {
			for i, id := range ids {
				_, err := m.Read(bgagent.Caller{Session: "stranger"}, id)
				require.ErrorIs(t, err, bgagent.ErrNotDescendant)
				task, err := m.Read(bgagent.Caller{}, id)
				require.NoError(t, err, when)
				require.Equal(t, fmt.Sprint("answer to task ", i), task.Result, when)
				require.False(t, task.Dropped, when)
			}
			require.LessOrEqual(t, m.Figures().KeptText, int64(30))
		}
		dropped := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !get(t, m, id).Dropped })
		require.NotEmpty(t, dropped)
		check("dropped")
		store.broken = true
		task, err := m.Read(bgagent.Caller{}, dropped[0])
		require.NoError(t, err)
		require.True(t, task.Dropped)
		store.broken = false
		time.Sleep(time.Minute)
		store.Crash()

		store = &flaky{Process: memory.Process(), broken: true}
		m = begin() // the results are owed, but currently cannot be read
		m.Start()
		time.Sleep(time.Minute)
		store.broken = false
		check("after a start without them")
		_, ok := m.TakeNotice("root")
		require.True(t, ok)
		_, _ = m.TakeNotice("root")
		time.Sleep(48 * time.Hour)
		require.Zero(t, m.Figures().Kept)
		check("expired")
		time.Sleep(time.Minute)
		store.Crash()
		store = &flaky{Process: memory.Process()}
		m = begin()
		check("in the next process")
	})
}

func TestNoLimitOfMemoryGivesUpWhatIsOwed(t *testing.T) {
	withMemory(t, working(time.Second), bgagent.Config{RetainTasks: 2}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		var ids []string
		for range 6 {
			ids = append(ids, launch(t, m, "a").ID)
		}
		ended(t, m, ids...)
		_, err := m.Read(root, ids[0])
		require.NoError(t, err)
		_, err = m.Resume(t.Context(), bgagent.Caller{}, ids[1], bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		ended(t, m, ids[1])
		_, err = m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
		require.NoError(t, err)
		time.Sleep(48 * time.Hour)
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Len(t, n.Items, 6, "four first attempts, and both attempts of the resumed task")
		m.Ack(n.ID)
		time.Sleep(time.Minute)
		require.LessOrEqual(t, m.Figures().Kept, 2)
		for _, r := range tasksIn(mem) {
			require.False(t, r.Due, string(r.Data))
		}
	})
}

func TestNoNoticeIsToldAgainByALaterProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Retention = time.Minute
		m := w.begin()
		id := launch(t, m, "explore").ID
		breaks := true
		w.told.fail = func(int) error {
			if breaks {
				return errors.New("the process is about to end")
			}
			return nil
		}
		ended(t, m, id)
		time.Sleep(time.Second) // during this time, the delivery of the notice fails
		w.crash()
		breaks = false
		m = w.begin()
		m.Start()
		time.Sleep(10 * time.Second)
		require.Len(t, w.told.all(), 1)
		_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		for range 3 {
			time.Sleep(10 * time.Second)
			w.crash()
			m = w.begin()
			m.Start()
		}
		ended(t, m, id)
		time.Sleep(time.Minute)
		require.Len(t, w.told.all(), 2)
		time.Sleep(2 * time.Minute)
		require.Empty(t, sessionsIn(&w.memory), "the records of sessions end with their tasks")
	})
}

func TestTheRecordsOfSessionsEndWhateverWritesDo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.memory.SetFaults(func(batch uint64, try int) storetest.Fault {
			if batch%2 == 0 && try == 0 {
				return storetest.Fault{Kind: storetest.Refused}
			}
			return storetest.Fault{}
		})
		w.cfg.Retention = time.Minute
		m := w.begin()
		for i := range 10 {
			by := bgagent.Caller{Session: fmt.Sprint("root", i%3)}
			task, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: "a"})
			if err == nil {
				ended(t, m, task.ID)
			}
			time.Sleep(time.Duration(i) * 700 * time.Millisecond)
			if i%4 == 3 {
				w.crash()
				m = w.begin()
				m.Start()
			}
		}
		time.Sleep(5 * time.Minute)
		require.Empty(t, sessionsIn(&w.memory))
	})
}

func TestTheEndsOfAClosedBatchDoNotWaitForTheNextBatch(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.NoticeWindow = time.Minute
		m := w.begin()
		first := launch(t, m, "first").ID
		ended(t, m, first)
		w.takes(10 * time.Minute)
		second := launch(t, m, "second").ID
		time.Sleep(10 * time.Second)
		require.Empty(t, w.told.all())
		w.crash()
		m = w.begin()
		m.Start()
		time.Sleep(2 * time.Minute)
		require.Equal(t, bgagent.Running, get(t, m, second).Status)
		require.Len(t, w.told.told(), 1)
		ended(t, m, second)
		time.Sleep(time.Hour)
		all := w.told.all()
		require.Len(t, all, 2)
		require.True(t, all[1].Closing)
		require.Len(t, all[1].Batch, 1)
		require.Equal(t, second, all[1].Batch[0].Task)
	})
}

func TestAReusedToolCallIDOfAResumedTaskLaunchesANewTask(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		first, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: "explore"})
		require.NoError(t, err)
		ended(t, m, first.ID)
		_, err = m.Resume(t.Context(), root, first.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		by2 := bgagent.Caller{Session: "root", ToolCallID: "call_2"}
		live, err := m.Launch(t.Context(), by2, bgagent.LaunchInput{Agent: "worker", Prompt: "another"})
		require.NoError(t, err)
		w.crash()
		m = w.begin()
		again, err := m.Launch(t.Context(), by2, bgagent.LaunchInput{Agent: "worker", Prompt: "another"})
		require.NoError(t, err)
		require.Equal(t, live.ID, again.ID, "a retry of the launch of a live task gets the task")
		for _, prompt := range []string{"explore", "more"} {
			other, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: prompt})
			require.NoError(t, err)
			require.NotEqual(t, first.ID, other.ID)
		}
	})
}

func TestTheRecordOfANewerVersionStaysAsItIs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.NoticeWindow = time.Hour
		m := w.begin()
		id := launch(t, m, "explore").ID
		ended(t, m, id)
		time.Sleep(10 * time.Second)
		key := "session:root"
		r := recordOf(t, &w.memory, key)
		var x map[string]any
		require.NoError(t, json.Unmarshal(r.Data, &x))
		x["v"], x["news"] = 2, "of the newer version"
		r.Data, _ = json.Marshal(x)
		w.crash()
		p := w.memory.Process()
		c, err := p.Open(t.Context(), bgagent.StoreOwner{})
		require.NoError(t, err)
		require.NoError(t, p.Write(t.Context(), &bgagent.StoreBatch{Number: c.Batch + 1, Records: []bgagent.StoreRecord{r}}))
		require.NoError(t, p.Close())

		w.cfg.NoticeWindow = 0
		m, err = bgagent.New(&life{w: w, dead: make(chan struct{})}, bgagent.Config{Store: w.memory.Process(), Notify: w.told.notify})
		require.NoError(t, err)
		require.Len(t, m.Restored().Damage, 1)
		ended(t, m, launch(t, m, "more").ID)
		time.Sleep(time.Hour)
		require.Len(t, w.told.told(), 2)
		require.Equal(t, r, recordOf(t, &w.memory, key))
		require.NoError(t, m.Close(t.Context()))
	})
}

func TestIDsOfAnyBytesSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, box := &storetest.Memory{}, &inbox{}
		for _, mark := range []string{"\xff", "\xf4\x8f\xbf\xbf", "\xc3(", "\ufffd"} {
			by := bgagent.Caller{Session: "root" + mark, ToolCallID: "call" + mark}
			f := &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
				select {
				case <-time.After(time.Minute):
					return bgagent.TurnEnd{Text: "done"}, nil
				case <-ctx.Done():
					return bgagent.TurnEnd{}, ctx.Err()
				}
			}}
			f.create = func(_ context.Context, s bgagent.SessionSpec) (string, error) { return "ses" + mark + s.Key, nil }
			begin := func() (*bgagent.BackgroundManager, *storetest.Process) {
				store := memory.Process()
				m := manage(t, stub{f}, bgagent.Config{Store: store, Notify: box.notify, MaxDepth: 3})
				require.NoError(t, inside.CheckUnchanged(m))
				m.Start()
				return m, store
			}
			m, store := begin()
			in := bgagent.LaunchInput{Agent: "worker", Prompt: "a", Metadata: map[string]string{"key" + mark: "value" + mark}, Directory: "dir" + mark}
			first, err := m.Launch(t.Context(), by, in)
			require.NoError(t, err)
			time.Sleep(10 * time.Second)
			session := get(t, m, first.ID).Session
			require.Contains(t, session, mark)
			in.Prompt = "b"
			second, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, in)
			require.NoError(t, err)
			time.Sleep(10 * time.Second)
			store.Crash()
			closeNow(m)
			m, store = begin()
			for _, id := range []string{first.ID, second.ID} {
				task := get(t, m, id)
				require.Equal(t, in.Metadata, task.Metadata)
				require.Equal(t, by.Session, task.Root)
				require.Contains(t, task.Session, "ses"+mark)
			}
			require.Equal(t, session, get(t, m, second.ID).Parent)
			require.Equal(t, 1, get(t, m, first.ID).Waiting)
			task := ended(t, m, first.ID)[0]
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			time.Sleep(2 * time.Hour)
			store.Crash()
			closeNow(m)
		}
		require.Len(t, box.told(), 4)
		for _, n := range box.all() {
			require.Equal(t, n.Items[0].Session[len("ses"):len("ses")+1], n.Session[len("root"):len("root")+1])
		}
	})
}

func TestTheRecordOfARepeatedPromptNamesTheManagerThatHandsItOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLives(t, 0, false)
		l.fake.Fates = nil
		l.begin()
		id := launch(t, l.m, "delegate").ID
		time.Sleep(9 * time.Second)
		require.Equal(t, bgagent.PhaseWaiting, get(t, l.m, id).Phase)
		instance := func() string {
			var x struct{ Run struct{ Instance string } }
			require.NoError(t, json.Unmarshal(recordOf(t, &l.memory, id).Data, &x))
			return x.Run.Instance
		}
		before := instance()
		l.die()
		l.begin()
		require.Equal(t, before, instance())
		for get(t, l.m, id).Progress.Turns < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		require.NotEqual(t, before, instance())
	})
}

func TestASessionOfThisProcessIsNotRestored(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Retention = time.Minute
		m := w.begin()
		id := launch(t, m, "explore").ID
		ended(t, m, id)
		time.Sleep(time.Hour)
		_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		ended(t, m, id)
		require.Empty(t, w.restored)
		time.Sleep(time.Hour)
		w.crash()
		m = w.begin()
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "and more"})
		require.NoError(t, err)
		ended(t, m, id)
		require.Len(t, w.restored, 1)
		require.NotEmpty(t, w.restored[0].Instance, "the client can find the processes that the earlier manager left behind")
	})
}
