package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// The function "withdraw" resumes the task with a context that ends during the write, so that the
// manager withdraws the resume.
func withdraw(t *testing.T, m *bgagent.BackgroundManager, memory *storetest.Memory, id, prompt string) {
	t.Helper()
	slow(memory, 2*time.Second)
	// The write of an earlier withdrawal might still be running for half a second.
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	_, err := m.Resume(ctx, root, id, bgagent.ResumeInput{Prompt: prompt})
	require.ErrorIs(t, err, bgagent.ErrUncertain)
	memory.SetFaults(nil)
}

func TestAResumeAfterAWithdrawnOneGetsItsOwnPrompt(t *testing.T) {
	for name, between := range map[string]func(w *world){
		"immediately":            func(*world) {},
		"after the next write":   func(*world) { time.Sleep(time.Minute) },
		"in the next process":    func(w *world) { time.Sleep(time.Minute); w.crash(); w.begin() },
		"after a refused write":  func(w *world) { breakFor(&w.memory, time.Minute, storetest.Refused); time.Sleep(2 * time.Minute) },
		"after it was forgotten": func(w *world) { time.Sleep(48 * time.Hour) },
	} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", crash ", crash), func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					m := w.begin()
					id := launch(t, m, "explore").ID
					ended(t, m, id)
					time.Sleep(time.Minute)
					withdraw(t, m, &w.memory, id, "withdrawn")
					withdraw(t, m, &w.memory, id, "withdrawn too")
					between(w)
					m = w.life.m
					_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "go on"})
					require.NoError(t, err)
					if crash {
						w.crash()
						m = w.begin()
					}
					task := ended(t, m, id)[0]
					require.Contains(t, task.Result, "go on")
					for _, s := range w.sessions[task.Session] {
						require.NotContains(t, s.prompt.Text, "withdrawn")
					}
					last := launch(t, m, "something else")
					require.Equal(t, "answer to something else", ended(t, m, last.ID)[0].Result, "the store must accept further writes")
				})
			})
		}
	}
}

// In this test, the cancelled parent of a task is resumed, and the resume is withdrawn. Nothing
// may run below the parent until the store has recorded the resume.
func TestNothingRunsBelowAFailedTaskWhoseResumeIsWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := &storetest.Memory{}
		f := newServer()
		m := manage(t, f, bgagent.Config{Store: mem.Process(), MaxDepth: 3})
		parent := launch(t, m, "parent")
		synctest.Wait()
		session := get(t, m, parent.ID).Session
		child, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
		require.NoError(t, err)
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, parent.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		ended(t, m, parent.ID, child.ID)
		time.Sleep(time.Minute)

		var calls sync.WaitGroup
		calls.Go(func() { withdraw(t, m, mem, parent.ID, "go on") })
		synctest.Wait()
		_, err = m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "another"})
		require.ErrorIs(t, err, bgagent.ErrSessionEnded)
		_, err = m.Resume(t.Context(), bgagent.Caller{}, child.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		calls.Wait()
		require.Equal(t, bgagent.Cancelled, get(t, m, parent.ID).Status)
		require.Equal(t, "root", get(t, m, child.ID).Parent)
		require.Equal(t, bgagent.Running, get(t, m, child.ID).Status)
	})
}

// In this test, a resume loads an expired task from the store. While Config.Model chooses the model,
// another task ends, so the loaded task expires from memory again. The task's record must not lose its
// data. If the resume is withdrawn, the record must not be deleted.
func TestATaskThatExpiresWhileItIsResumedKeepsItsRecord(t *testing.T) {
	for _, withdrawn := range []bool{false, true} {
		t.Run(fmt.Sprint("withdrawn ", withdrawn), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := &storetest.Memory{}
				var m *bgagent.BackgroundManager
				other := bgagent.LaunchInput{Agent: "worker", Prompt: "other"}
				resuming := false
				choose := func(_, asked string) (string, error) {
					if resuming && asked == "m/b" {
						_, err := m.Run(t.Context(), root, other)
						require.NoError(t, err)
						if withdrawn {
							slow(mem, 2*time.Second)
						}
					}
					return asked, nil
				}
				m = manage(t, working(time.Second), bgagent.Config{RetainTasks: 1, Store: mem.Process(), Model: choose})
				task, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "a", Metadata: map[string]string{"a": "b"}})
				require.NoError(t, err)
				_, err = m.Run(t.Context(), root, other)
				require.NoError(t, err)
				time.Sleep(time.Minute)

				resuming = true
				ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
				defer cancel()
				_, err = m.Resume(ctx, root, task.ID, bgagent.ResumeInput{Prompt: "more", Model: "m/b"})
				mem.SetFaults(nil)
				if withdrawn {
					require.ErrorIs(t, err, bgagent.ErrUncertain)
					time.Sleep(time.Minute)
					again, err := m.Read(root, task.ID)
					require.NoError(t, err)
					require.Equal(t, "answer to a", again.Result)
					return
				}
				require.NoError(t, err)
				end := ended(t, m, task.ID)[0]
				require.Equal(t, "answer to more", end.Result)
				require.Equal(t, "b", end.Metadata["a"])
				require.Len(t, end.Attempts, 1)
			})
		})
	}
}

// unreadable is a store whose history cannot be read while the field "broken" is set.
type unreadable struct {
	*storetest.Process
	broken bool
}

func (s *unreadable) History(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	if s.broken {
		return nil, errors.New("history cannot be read")
	}
	return s.Process.History(ctx, q)
}

func TestARecordThatCannotBeReadIsNotOverwrittenByAResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := &storetest.Memory{}
		store := &unreadable{Process: mem.Process()}
		m := manage(t, working(time.Second), bgagent.Config{RetainTasks: 1, Store: store})
		first, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "a", Metadata: map[string]string{"a": "b"}})
		require.NoError(t, err)
		_, err = m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "b"})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		before, _ := taskIn(mem, first.ID)
		store.broken = true
		_, err = m.Resume(t.Context(), root, first.ID, bgagent.ResumeInput{Prompt: "more"})
		require.ErrorIs(t, err, bgagent.ErrStore)
		time.Sleep(time.Minute)
		after, _ := taskIn(mem, first.ID)
		require.Equal(t, before, after)
		store.broken = false
		_, err = m.Resume(t.Context(), root, first.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		task := ended(t, m, first.ID)[0]
		require.Equal(t, "answer to more", task.Result)
		require.Equal(t, "b", task.Metadata["a"])
	})
}

// In this test, a host takes a notice about a task. While the notice is being written, a resume of that task
// is withdrawn. The notice then still counts as owed until the host has it.
func TestAWithdrawnResumeLeavesTheNoticeThatIsBeingTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := &storetest.Memory{}
		m := manage(t, working(time.Second), bgagent.Config{Store: mem.Process()})
		id := launch(t, m, "a").ID
		end := ended(t, m, id)[0]
		require.Equal(t, bgagent.NoticeOwed, end.Notice)
		time.Sleep(time.Minute)

		slow(mem, 2*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		taken := make(chan bgagent.Notice)
		go func() {
			time.Sleep(time.Second)
			n, _ := m.TakeNotice(root.Session)
			taken <- n
		}()
		_, err := m.Resume(ctx, root, id, bgagent.ResumeInput{Prompt: "more"})
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		require.Equal(t, bgagent.NoticeOwed, get(t, m, id).Notice)

		n := <-taken
		require.Len(t, n.Items, 1)
		require.Equal(t, id, n.Items[0].Task)
		require.Equal(t, 1, n.Items[0].Attempt)
		require.Equal(t, bgagent.NoticeTaken, get(t, m, id).Notice)
	})
}
