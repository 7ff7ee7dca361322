package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

func TestAnExpiredTaskKeepsItsBudget(t *testing.T) {
	f := spending(bgagent.Usage{InputTokens: 10})
	bubble(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 40}, Retention: time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := ended(t, m, launch(t, m, "a").ID)[0]
		_, err := m.Read(root, task.ID)
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		_, err = m.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		_, err = m.Resume(t.Context(), root, task.Session, bgagent.ResumeInput{Prompt: "b"})
		var used *bgagent.BudgetError
		require.ErrorAs(t, err, &used)
		require.Equal(t, task.ID, used.Limit.Task)
	})
}

// In this test, a task without a budget has expired and is resumed with a budget.
func TestAnExpiredTaskKeepsWhatItUsedWithoutABudget(t *testing.T) {
	withoutStore(t)
	f := spending(bgagent.Usage{InputTokens: 10})
	bubble(t, f, bgagent.Config{Retention: time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := ended(t, m, launch(t, m, "a").ID)[0]
		_, err := m.Read(root, task.ID)
		require.NoError(t, err)
		used := task.Progress.Usage.InputTokens
		require.Positive(t, used)
		time.Sleep(2 * time.Minute)
		_, err = m.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		_, err = m.Resume(t.Context(), root, task.Session, bgagent.ResumeInput{Prompt: "b", Budget: bgagent.Budget{InputTokens: used}})
		var over *bgagent.BudgetError
		require.ErrorAs(t, err, &over)
		require.Equal(t, float64(used), over.Limit.Used)
		task, err = m.Resume(t.Context(), root, task.Session, bgagent.ResumeInput{Prompt: "b", Budget: bgagent.Budget{InputTokens: used + 1000}})
		require.NoError(t, err)
		require.Equal(t, used, task.Budget.Used.InputTokens)
	})
}

// If a TurnRunner finds the answer of an interrupted turn, it reports the usage for the whole turn.
// Usage that was reported before the process ended is not counted twice.
func TestTheUsageOfAnAnswerThatIsFoundCountsOnce(t *testing.T) {
	for reported, want := range map[int64]int64{0: 300, 10: 300, 40: 400} { // the turn might have reported more usage than the client finds
		inWorld(t, func(t *testing.T, w *world) {
			w.cfg = bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 1000}, StaleTimeout: bgagent.Disabled}
			w.takes(time.Hour)
			if reported > 0 {
				billed(w, time.Second, bgagent.Usage{InputTokens: reported})
			}
			m := w.begin()
			task := launch(t, m, "a")
			time.Sleep(10*time.Second + time.Millisecond)
			require.Equal(t, 10*reported, get(t, m, task.ID).Budget.Used.InputTokens)
			time.Sleep(400 * time.Millisecond)
			require.NoError(t, w.life.m.Suspend(t.Context()))
			w.answer, w.ending = bgagent.PromptAnswered, bgagent.TurnEnd{Usage: bgagent.Usage{InputTokens: 300, OutputTokens: 7}}
			m = w.begin()
			m.Start()
			end := ended(t, m, task.ID)[0]
			require.Equal(t, bgagent.Completed, end.Status)
			require.Equal(t, "found", end.Result)
			require.Equal(t, bgagent.Usage{InputTokens: 300, OutputTokens: 7}, end.Progress.Usage)
			require.Equal(t, want, end.Budget.Used.InputTokens)
		})
	}
}

func billed(w *world, every time.Duration, u bgagent.Usage) {
	w.bills = func(ctx context.Context, r *bgagent.Reporter) {
		for {
			select {
			case <-time.After(every):
				r.Usage(u)
			case <-ctx.Done():
				return
			}
		}
	}
}

func TestUsedBudgetsSurviveACrash(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 500}, TreeBudget: bgagent.Budget{InputTokens: 600}, BudgetPeriod: time.Hour, StaleTimeout: bgagent.Disabled}
		w.takes(time.Hour)
		billed(w, time.Second, bgagent.Usage{InputTokens: 10})
		m := w.begin()
		began := time.Now()
		task := launch(t, m, "a")
		time.Sleep(20*time.Second + time.Millisecond)
		require.Equal(t, int64(200), get(t, m, task.ID).Budget.Used.InputTokens)
		w.crash()

		m = w.begin()
		used, account := get(t, m, task.ID).Budget.Used.InputTokens, m.Figures().Budgets
		require.GreaterOrEqual(t, used, int64(150), "only reports of the last 5 s can be lost")
		require.Len(t, account, 1)
		require.Equal(t, used, account[0].Used.InputTokens)
		require.WithinDuration(t, began, account[0].Opened, time.Second)
		require.WithinDuration(t, began.Add(time.Hour), account[0].Until, time.Second)
		m.Start()
		end := ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.CauseBudget, end.Cause)
		require.Equal(t, 2, end.Attempt, "another attempt has continued the turn")
		require.Equal(t, int64(500), end.Budget.Used.InputTokens)
		w.crash()

		m = w.begin() // all tasks have ended, but the account is still open
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
		var over *bgagent.BudgetError
		require.ErrorAs(t, err, &over)
		second := launch(t, m, "b")
		require.Contains(t, ended(t, m, second.ID)[0].Reason, "600 of 600 input tokens")
		w.crash()
		m = w.begin()
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "c"})
		require.ErrorAs(t, err, &over)
		require.Empty(t, over.Limit.Task)
		time.Sleep(time.Hour)
		launch(t, m, "c")
	})
}

func TestATurnThatIsReadAgainAfterARestartCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory storetest.Memory
		f := newServer()
		cfg := bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 1000}, TreeBudget: bgagent.Budget{InputTokens: 1000}}
		begin := func() (*bgagent.BackgroundManager, *storetest.Process) {
			p := memory.Process()
			cfg.Store = p
			m := manage(t, f, cfg)
			require.NoError(t, inside.CheckUnchanged(m))
			m.Start()
			return m, p
		}
		m, p := begin()
		task := launch(t, m, "a")
		time.Sleep(time.Second)
		s := get(t, m, task.ID).Session
		use := func(id string, n int64) {
			f.put(s, bgagent.Message{ID: id, Text: id, Finished: true, Stop: bgagent.StopToolCalls, Usage: bgagent.Usage{InputTokens: n}, Tools: []bgagent.MessageTool{{ID: id, Name: "read", State: bgagent.ToolDone}}})
		}
		use("m1", 100)
		use("m2", 200)
		time.Sleep(10 * time.Second)
		require.Equal(t, int64(300), get(t, m, task.ID).Budget.Used.InputTokens)
		p.Crash()
		use("m3", 50) // the turn continues on the server after the crash
		m, _ = begin()
		time.Sleep(10 * time.Second)
		require.Equal(t, int64(350), get(t, m, task.ID).Budget.Used.InputTokens)
		require.Equal(t, 3, get(t, m, task.ID).Budget.Used.ToolCalls)
		require.Equal(t, int64(350), m.Figures().Budgets[0].Used.InputTokens)
		use("m4", 700)
		time.Sleep(5 * time.Second)
		require.Equal(t, bgagent.CauseBudget, get(t, m, task.ID).Cause)
		f.set(s, bgagent.SessionIdle)
		time.Sleep(5 * time.Second)
	})
}

func TestARecordOfAnEndedTaskHasItsBudget(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 50}, Retention: time.Minute, RetainTasks: 1}
		w.takes(time.Hour)
		billed(w, time.Second, bgagent.Usage{InputTokens: 10})
		m := w.begin()
		task := launch(t, m, "a")
		ended(t, m, task.ID)
		time.Sleep(2 * time.Hour)
		_, err := m.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		list, err := m.History(t.Context(), bgagent.Query{}, "")
		require.NoError(t, err)
		require.Equal(t, int64(50), list[0].Budget.Used.InputTokens)
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
		var over *bgagent.BudgetError
		require.ErrorAs(t, err, &over)
	})
}

func TestWhatASupersededTurnUsesAtItsEndCountsOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = bgagent.Config{TreeBudget: bgagent.Budget{InputTokens: 1000}} // the task itself has no budget
		w.answer, w.ending = bgagent.PromptAnswered, bgagent.TurnEnd{Stop: bgagent.StopInterrupted, Usage: bgagent.Usage{InputTokens: 100}}
		m := w.begin()
		task := launch(t, m, "a")
		time.Sleep(time.Second)
		w.crash()
		m = w.begin()
		m.Start()
		end := ended(t, m, task.ID)[0]
		require.Equal(t, 2, end.Attempt)
		require.Equal(t, bgagent.Completed, end.Status)
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more", Budget: bgagent.Budget{InputTokens: 150}})
		require.NoError(t, err)
		require.Equal(t, int64(100), get(t, m, task.ID).Budget.Used.InputTokens)
	})
}

// A turn that is stopped by a suspension can still report its usage. The manager must store this
// usage, because a later process cannot ask the client for it.
func TestWhatAStoppedTurnReportsDuringASuspensionCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory storetest.Memory
		f := &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Usage(bgagent.Usage{InputTokens: 10})
			<-ctx.Done()
			time.Sleep(time.Second)
			r.Usage(bgagent.Usage{InputTokens: 30})
			return bgagent.TurnEnd{Usage: bgagent.Usage{InputTokens: 60}}, ctx.Err()
		}}
		begin := func() *bgagent.BackgroundManager {
			m := manage(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 1000}, TreeBudget: bgagent.Budget{InputTokens: 1000}, BudgetPeriod: time.Hour, Store: memory.Process()})
			m.Start()
			return m
		}
		m := begin()
		task := launch(t, m, "a")
		time.Sleep(time.Second)
		require.NoError(t, m.Suspend(t.Context()))

		m = begin()
		require.Equal(t, int64(100), get(t, m, task.ID).Budget.Used.InputTokens, "the total usage of the turn")
		require.Equal(t, int64(100), m.Figures().Budgets[0].Used.InputTokens)
	})
}

// The type "closing" is a store that records when it is closed.
type closing struct {
	*storetest.Process
	at time.Time
}

func (s *closing) Close() error {
	s.at = time.Now()
	return s.Process.Close()
}

// A turn that ignores the end of its context must not keep the store open until Suspend's deadline.
func TestASuspensionThatWaitsForTheUsageOfAHungTurnClosesTheStoreInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory storetest.Memory
		hangs := make(chan struct{})
		f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-hangs
			return bgagent.TurnEnd{Text: "late"}, nil
		}}
		store := &closing{Process: memory.Process()}
		m := manageUnchecked(t, f, bgagent.Config{TaskBudget: bgagent.Budget{InputTokens: 1000}, Store: store})
		m.Start()
		launch(t, m, "a")
		time.Sleep(time.Second)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var left *bgagent.CloseError
		require.ErrorAs(t, m.Suspend(ctx), &left)
		require.NotEmpty(t, left.Hung)
		require.Equal(t, 25*time.Second, store.at.Sub(began), "turns have 20 s to end, and their calls have half of the remaining 10 s")
		close(hangs)
	})
}
