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
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// newCutServer returns a value of type lives with a starter whose turns are interrupted when the
// process ends.
func newCutServer(t *testing.T) *lives {
	l := newLives(t, 0, true)
	l.fake.NoRestore = false
	l.fake.Fates = func(bgagent.Prompt) bgagenttest.Fate { return bgagenttest.FateCut }
	return l
}

func TestATurnOfAServerThatIsInterruptedTooOftenIsNotContinued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newCutServer(t)
		l.begin()
		id := launch(t, l.m, "explore").ID
		for n := range 3 {
			for get(t, l.m, id).Attempt != n+1 || get(t, l.m, id).Phase != bgagent.PhaseTurn {
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(time.Second)
			require.Equal(t, bgagent.Running, get(t, l.m, id).Status)
			l.die()
			l.begin()
		}
		for get(t, l.m, id).Attempt != 4 || get(t, l.m, id).Phase != bgagent.PhaseTurn {
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		l.die()
		l.begin()
		task := ended(t, l.m, id)[0]
		require.Equal(t, 4, task.Attempt)
		require.Equal(t, bgagent.CauseInterrupted, task.Cause)
		require.Contains(t, task.Reason, "3")
	})
}

func TestAnEmptyAnswerIsNotContinued(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()
		w.answer, w.found = bgagent.PromptAnswered, ""
		task := ended(t, w.begin(), first.ID)[0]
		require.Equal(t, bgagent.CauseNoOutput, task.Cause)
		require.Equal(t, 1, task.Attempt)
		require.Len(t, w.prompts(task.Session), 1)
	})
}

func TestALongTurnIsNoAbsence(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = limit(1)
		w.cfg.TimeToLive, w.work = bgagent.Disabled, 24*time.Hour
		m := w.begin()
		running, pending := launch(t, m, "long"), launch(t, m, "pending")
		time.Sleep(10 * time.Hour)
		w.crash()
		time.Sleep(30 * time.Minute)
		w.takes(time.Minute)
		m = w.begin()
		require.Less(t, time.Since(m.Restored().Seen), 32*time.Minute)
		for _, task := range ended(t, m, running.ID, pending.ID) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
		batch := w.memory.Batch()
		time.Sleep(10 * time.Hour)
		require.LessOrEqual(t, w.memory.Batch(), batch+5, "an idle manager does not write")
	})
}

func TestTheTimeToLiveOfAStartDoesNotPassWithoutAProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.TimeToLive, w.cfg.CreateTimeout = 30*time.Minute, time.Hour
		w.start = time.Hour
		m := w.begin()
		first := launch(t, m, "explore")
		for range 2 {
			time.Sleep(10 * time.Minute)
			w.crash()
			time.Sleep(40 * time.Minute)
			m = w.begin()
			m.Start()
			require.Equal(t, bgagent.Running, get(t, m, first.ID).Status)
		}
		began := time.Now()
		task := ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.CauseTimeToLive, task.Cause)
		require.InDelta(t, 10*time.Minute, time.Since(began), float64(3*time.Minute))
	})
}

// The type "occupied" is a starter whose sessions are busy with somebody else's prompt until they
// are aborted.
type occupied struct {
	bgagenttest.Starter
	aborts int
}

func (s *occupied) Abort(context.Context, string) error {
	s.aborts++
	return nil
}

func (s *occupied) Statuses(_ context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
	state := bgagent.SessionBusy
	if s.aborts > 0 {
		state = bgagent.SessionIdle
	}
	out := map[string]bgagent.SessionStatus{}
	for _, id := range ids {
		out[id] = bgagent.SessionStatus{State: state}
	}
	return out, nil
}

func (*occupied) Messages(context.Context, string, bgagent.Cursor, int) (bgagent.Page, error) {
	return bgagent.Page{Messages: []bgagent.Message{{ID: "msg_x", PromptID: "of somebody else"}}, Next: "1"}, nil
}

func TestASessionThatMayBeBusyAfterARestartIsAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newCutServer(t)
		l.begin()
		id := launch(t, l.m, "explore").ID
		time.Sleep(time.Second)
		l.die()
		client := &occupied{Starter: l.client.(bgagenttest.Starter)}
		l.client = client
		l.begin()
		inside.CheckAlways(l.m, func(err error) { t.Error(err) })
		task := ended(t, l.m, id)[0]
		require.Equal(t, bgagent.CauseInterrupted, task.Cause)
		require.NoError(t, l.m.Quiet(t.Context(), id))
		require.NotZero(t, client.aborts)
	})
}

// The type "illegible" is a starter whose messages cannot be read, or cannot be read completely,
// until a certain time.
type illegible struct {
	bgagenttest.Starter
	until time.Time
	err   error // nil if there is always a further page
}

func (s *illegible) Messages(ctx context.Context, id string, from bgagent.Cursor, most int) (bgagent.Page, error) {
	if time.Now().Before(s.until) {
		return bgagent.Page{Next: from, More: true}, s.err
	}
	return s.Starter.Messages(ctx, id, from, most)
}

func TestAReadThatFailsOrIsIncompleteDoesNotRepeatAPrompt(t *testing.T) {
	for name, err := range map[string]error{"fails": errors.New("the server is starting"), "is incomplete": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newCutServer(t)
				l.begin()
				id := launch(t, l.m, "explore").ID
				time.Sleep(time.Second)
				l.die()
				l.client = &illegible{Starter: l.client.(bgagenttest.Starter), until: time.Now().Add(20 * time.Second), err: err}
				l.begin()
				task := ended(t, l.m, id)[0]
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				require.Equal(t, 2, task.Attempt)
				var ids []string
				for _, p := range l.fake.Prompts() {
					ids = append(ids, p.ID)
				}
				require.Equal(t, []string{id + ".1.1", id + ".2.1"}, ids)
			})
		})
	}
}

// The type "waking" is a starter whose first call to Statuses reports that no session exists.
type waking struct {
	bgagenttest.Starter
	asked atomic.Int32
}

func (s *waking) Statuses(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
	if s.asked.Add(1) > 1 {
		return s.Starter.Statuses(ctx, ids)
	}
	out := map[string]bgagent.SessionStatus{}
	for _, id := range ids {
		out[id] = bgagent.SessionStatus{State: bgagent.SessionGone}
	}
	return out, nil
}

func TestASessionIsMissingOnlyIfTheServerReportsItTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newCutServer(t)
		l.begin()
		first := launch(t, l.m, "explore")
		time.Sleep(time.Second)
		session := get(t, l.m, first.ID).Session
		l.die()
		client := &waking{Starter: l.client.(bgagenttest.Starter)}
		l.client = client
		l.begin()
		task := ended(t, l.m, first.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, session, task.Session)
		require.Greater(t, client.asked.Load(), int32(1))
	})
}

func TestWhatACancelledStartHasLeftIsEndedByTheNextProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start = time.Hour
		w.hangs = true
		m := w.begin()
		first := launch(t, m, "explore")
		time.Sleep(time.Second)
		_, err := m.Cancel(t.Context(), root, first.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		w.crash()
		m = w.begin()
		m.Start()
		require.NoError(t, m.Quiet(t.Context(), first.ID))
		require.Len(t, w.restored, 1)
		require.NotEmpty(t, w.restored[0].Instance)
		require.Empty(t, w.restored[0].Session)
		require.Zero(t, m.Concurrency().Stats("").InUse)
	})
}

// After ErrUnreadable, no process of the session is running, so the manager frees the slot
// immediately. After another error, a process might still be running, so the manager keeps trying
// to stop the session until the stopping deadline.
func TestASessionThatCannotBeReadDoesNotHaveToBeStopped(t *testing.T) {
	for _, err := range []error{fmt.Errorf("a file is damaged: %w", bgagent.ErrUnreadable), errors.New("a file is damaged")} {
		inWorld(t, func(t *testing.T, w *world) {
			w.restoreFails, w.cfg.StopTimeout = err, time.Hour
			first := launch(t, w.begin(), "explore")
			time.Sleep(time.Second)
			w.crash()
			m := w.begin()
			began := time.Now()
			task := ended(t, m, first.ID)[0]
			require.Equal(t, bgagent.CauseInterrupted, task.Cause)
			require.Contains(t, task.Reason, "a file is damaged")
			quiet := m.Quiet(t.Context(), first.ID)
			if !errors.Is(err, bgagent.ErrUnreadable) {
				require.ErrorContains(t, quiet, "did not stop")
				require.GreaterOrEqual(t, time.Since(began), time.Hour)
				return
			}
			require.NoError(t, quiet)
			require.Equal(t, began, time.Now())
			require.Zero(t, m.Concurrency().Stats("").InUse)
			resumed, err := m.Resume(t.Context(), root, first.ID, bgagent.ResumeInput{Prompt: "Go on."})
			require.NoError(t, err)
			task = ended(t, m, resumed.ID)[0]
			require.Equal(t, bgagent.CauseInterrupted, task.Cause, "the session might lack what it is asked to go on with")
			require.Len(t, w.prompts("ses_1"), 1)
		})
	}
}

func TestAServerIsToldAgainToStopATaskThatWasCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLives(t, 0, true)
		l.fake.Fates = nil
		l.fake.Faults = func(c bgagenttest.Call) bgagenttest.Fault {
			return bgagenttest.Fault{Hang: c.Kind == bgagenttest.CallAbort && c.N == 1}
		}
		l.begin()
		first := launch(t, l.m, "explore")
		time.Sleep(time.Second)
		_, err := l.m.Cancel(t.Context(), root, first.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.NotEmpty(t, l.fake.Running())
		l.die()
		l.begin()
		require.NoError(t, l.m.Quiet(t.Context(), first.ID))
		require.Empty(t, l.fake.Running())
	})
}

func TestANoticeKeepsItsTextWhateverTheNextProcessCallsItsTools(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		first := launch(t, m, "explore")
		var text string
		w.told.fail = func(int) error { return context.DeadlineExceeded }
		w.told.seen = func(n bgagent.Notice) { text = n.Text }
		ended(t, m, first.ID)
		time.Sleep(time.Second)
		synctest.Wait()
		require.NotEmpty(t, text)
		w.crash()
		w.told.fail = nil
		w.cfg.ToolNames = map[string]string{"background_output": "read_task"}
		m = w.begin()
		m.Start()
		time.Sleep(time.Minute)
		require.Equal(t, text, w.told.all()[0].Text)
		require.False(t, strings.Contains(text, "read_task"))
	})
}

func TestASupersededAttemptIsReportedOnceItIsDurable(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()
		m := w.begin()
		_, sub := m.Subscribe(100)
		defer sub.Close()
		w.memory.SetFaults(func(uint64, int) storetest.Fault {
			if len(w.called()) > 0 { // writes fail from the restore call onwards
				w.broke = true
			}
			if w.broke {
				return storetest.Fault{Kind: storetest.Refused}
			}
			return storetest.Fault{}
		})
		m.Start()
		time.Sleep(10 * time.Second)
		require.True(t, w.broke)
		for _, e := range unread(sub) {
			require.NotEqual(t, bgagent.EventSuperseded, e.Kind)
		}
		w.memory.SetFaults(nil)
		require.Equal(t, 2, ended(t, m, first.ID)[0].Attempt)
	})
}

func TestSuspendWaitsForADelivery(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		first := launch(t, m, "explore")
		w.told.fail = func(int) error {
			time.Sleep(5 * time.Second)
			return nil
		}
		ended(t, m, first.ID)
		time.Sleep(time.Second)
		require.NoError(t, m.Suspend(t.Context()))
		w.told.fail = nil
		m = w.begin()
		m.Start()
		time.Sleep(time.Minute)
		require.Len(t, w.told.all(), 1)
	})
}
