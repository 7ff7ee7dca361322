package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// A session can be idle before its turn begins, between two steps of the turn, and after the turn.
func TestIdleIsNotAlwaysTheEnd(t *testing.T) {
	cases := map[string]struct {
		prepare func(f *server, session string)
		after   time.Duration
		status  bgagent.Status
		cause   bgagent.Cause
	}{
		"with only the user's message":          {func(f *server, s string) { f.set(s, bgagent.SessionIdle) }, 9 * time.Second, bgagent.Running, bgagent.CauseNone},
		"with only the user's message for good": {func(f *server, s string) { f.set(s, bgagent.SessionIdle) }, 20 * time.Second, bgagent.Failed, bgagent.CauseNoOutput},
		"with an unfinished message in the first seconds": {func(f *server, s string) {
			f.put(s, bgagent.Message{ID: "m", Text: "I am"})
			f.set(s, bgagent.SessionIdle)
		}, 4 * time.Second, bgagent.Running, bgagent.CauseNone},
		"with an unfinished message for good": {func(f *server, s string) {
			f.put(s, bgagent.Message{ID: "m", Text: "I am"})
			f.set(s, bgagent.SessionIdle)
		}, 20 * time.Second, bgagent.Failed, bgagent.CauseInterrupted},
		"with a tool in flight": {func(f *server, s string) {
			f.put(s, bgagent.Message{ID: "m", Finished: true, Tools: []bgagent.MessageTool{{ID: "t", Name: "grep", State: bgagent.ToolRunning}}})
			f.set(s, bgagent.SessionIdle)
		}, 4 * time.Second, bgagent.Running, bgagent.CauseNone},
		"busy": {func(f *server, s string) {
			f.put(s, bgagent.Message{ID: "m", Text: "done", Finished: true, Stop: bgagent.StopEndOfTurn})
		}, 60 * time.Second, bgagent.Running, bgagent.CauseNone},
		"with an answer": {func(f *server, s string) { f.say(s, "done") }, 3 * time.Second, bgagent.Completed, bgagent.CauseIdle},
		"with an answer without a finish mark": {func(f *server, s string) {
			f.put(s, bgagent.Message{ID: "m", Text: "done", Finished: true})
			f.set(s, bgagent.SessionIdle)
		}, 6 * time.Second, bgagent.Completed, bgagent.CauseIdle},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newServer()
			bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
				id, session := turnOn(t, m, "p")
				c.prepare(f, session)
				time.Sleep(c.after)
				synctest.Wait()
				task := get(t, m, id)
				require.Equal(t, c.status, task.Status, "%+v", task)
				require.Equal(t, c.cause, task.Cause)
				if c.status == bgagent.Completed {
					require.Equal(t, "done", task.Result)
				}
			})
		})
	}
}

func TestOpenTodosHoldAnIdleSessionBackForAWhile(t *testing.T) {
	f := &todoServer{server: newServer(), todos: []bgagent.Todo{{Text: "a", State: bgagent.TodoCompleted}, {Text: "b"}, {Text: "c", State: bgagent.TodoInProgress}}}
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		f.say(session, "half done")
		time.Sleep(25 * time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status)
		began := time.Now()
		task := ended(t, m, id)[0]
		require.Less(t, time.Since(began), 10*time.Second)
		require.Equal(t, bgagent.Completed, task.Status)
		require.Equal(t, 2, task.OpenTodos)

		id, session = turnOn(t, m, "q")
		f.say(session, "half done")
		time.Sleep(5 * time.Second)
		f.mu.Lock()
		f.todos = nil
		f.mu.Unlock()
		began = time.Now()
		require.Zero(t, ended(t, m, id)[0].OpenTodos)
		require.LessOrEqual(t, time.Since(began), 2*time.Second, "no todo is open")

		f.do(func() { f.err = errors.New("no") })
		id, session = turnOn(t, m, "r")
		f.say(session, "done")
		time.Sleep(20 * time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "a failed read of todos must not end the turn")
	})
}

func TestAnUntoldSessionWithTodosComesToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &todoServer{server: newServer()}
		f.statuses = untold
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		f.put(session, bgagent.Message{ID: "m", Text: "done", Finished: true})
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseStable, task.Cause, task.Reason)
	})
}

// The manager must poll again after an idle event that came too early to count, because the host
// does not repeat the event.
func TestAnEarlyIdleEventIsLookedAtAgain(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{PollInterval: time.Hour, StaleTimeout: bgagent.Disabled, HostUnreachable: bgagent.Disabled}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		f.put(session, bgagent.Message{ID: "m", Text: "quick", Finished: true}) // without a stop reason
		f.set(session, bgagent.SessionIdle)
		began := time.Now()
		m.Observe(idle(session))
		require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
		require.Equal(t, 5*time.Second, time.Since(began))

		id, session = turnOn(t, m, "p")
		f.say(session, "quick")
		began = time.Now()
		m.Observe(idle(session))
		require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
		require.Zero(t, time.Since(began), "an idle event counts immediately if the message is finished")
	})
}

func TestASessionThatIsGoneEndsItsTask(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		f.put(session, bgagent.Message{ID: "m", Text: "so far"})
		time.Sleep(3 * time.Second)
		f.set(session, bgagent.SessionGone)
		began := time.Now()
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseSessionGone, task.Cause)
		require.InDelta(t, 62, time.Since(began).Seconds(), 2)
		require.Equal(t, "so far", task.Result)
		require.True(t, task.Partial)
	})
}

// A failed status call does not return a status for any session. The manager must not conclude that
// the sessions are gone.
func TestAFailedStatusCallDecidesNothing(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		f.put(session, bgagent.Message{ID: "m", Text: "x", Finished: true, Stop: bgagent.StopEndOfTurn})
		f.do(func() { f.statusErr = errors.New("down") })
		time.Sleep(4*time.Minute + 50*time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "time without answers must not make the turn stale")
		f.do(func() { f.statusErr = nil })
		time.Sleep(2 * time.Minute)
		require.Equal(t, bgagent.Running, get(t, m, id).Status)
		f.do(func() { f.statusErr = errors.New("down for good") })
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseHostUnreachable, task.Cause)
		require.Equal(t, "the client has not reported the session's status for 5m0s: down for good; Config.HostUnreachable (hostUnreachableMs) decides how long is too long", task.Reason)
	})
}

func TestReadsThatFailDecideNothing(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, _ := turnOn(t, m, "p")
		f.do(func() { f.readErr = errors.New("messages: 500") })
		time.Sleep(10 * time.Minute)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%s", get(t, m, id).Reason)
	})
}

func TestAnUnknownStatusNeitherCompletesNorLastsForEver(t *testing.T) {
	for name, answer := range map[string]func(map[string]bgagent.SessionStatus){
		"missing": func(m map[string]bgagent.SessionStatus) { clear(m) },
		"garbage": func(m map[string]bgagent.SessionStatus) {
			for id := range m {
				m[id] = bgagent.SessionStatus{State: 77}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				f.statuses = answer
				m := manage(t, f, bgagent.Config{})
				id, session := turnOn(t, m, "p")
				f.say(session, "x")
				time.Sleep(4 * time.Minute)
				require.Equal(t, bgagent.Running, get(t, m, id).Status)
				task := ended(t, m, id)[0]
				require.Equal(t, bgagent.CauseHostUnreachable, task.Cause)
				require.Contains(t, task.Reason, "status for 5m0s; Config", "the client has returned no error")
			})
		})
	}
}

// If sweeps overlapped on a slow host, stable polls would be counted too quickly.
func TestSweepsNeverOverlapAndStablePollsTakeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		running, overlap := 0, false
		f.statuses = func(m map[string]bgagent.SessionStatus) {
			running++
			overlap = overlap || running > 1
			f.mu.Unlock()
			time.Sleep(4 * time.Second) // slower than the poll interval
			f.mu.Lock()
			running--
			for id := range m {
				m[id] = bgagent.SessionStatus{State: bgagent.SessionUntold}
			}
		}
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		f.put(session, bgagent.Message{ID: "m", Text: "done", Finished: true})
		began := time.Now()
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseStable, task.Cause)
		require.False(t, overlap)
		// The polls are answered after 6, 12, 18 and 24 s. The first poll does not count, because
		// MinStabilityTime is 10 s.
		require.Equal(t, 24*time.Second, time.Since(began))
	})
}

func TestSweepsInBetweenAreNoPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		f.statuses = untold
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		var others []string
		for range 4 {
			o, _ := turnOn(t, m, "other")
			others = append(others, o)
		}
		time.Sleep(11 * time.Second)
		f.put(session, bgagent.Message{ID: "m", Text: "now I look at the files", Finished: true})
		for _, o := range others {
			_, err := m.Cancel(t.Context(), root, o, bgagent.CancelOptions{})
			require.NoError(t, err)
			synctest.Wait()
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%v", get(t, m, id).Cause)
	})
}

func TestASiblingThatIsSlowToStopHurriesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		f.abort = func(_ context.Context, s string) error { f.set(s, bgagent.SessionBusy); return nil } // the session does not stop immediately
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		other, _ := turnOn(t, m, "other")
		f.put(session, bgagent.Message{ID: "m", Text: "the ans"})
		time.Sleep(6 * time.Second)
		_, err := m.Cancel(t.Context(), root, other, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Second)
		f.set(session, bgagent.SessionIdle)
		time.Sleep(time.Second)
		f.put(session, bgagent.Message{ID: "m", Text: "the answer", Finished: true, Stop: bgagent.StopEndOfTurn})
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
	})
}

// The type "endless" is a server that always has more messages for one session, and returns them
// slowly.
type endless struct {
	*server
	which string
	n     int
}

func (f *endless) Messages(ctx context.Context, s string, c bgagent.Cursor, max int) (bgagent.Page, error) {
	f.mu.Lock()
	w := f.which
	f.n++
	n := f.n
	f.mu.Unlock()
	if s == w {
		time.Sleep(5 * time.Second)
		return bgagent.Page{Next: bgagent.Cursor(fmt.Sprint(n)), More: true}, nil
	}
	return f.server.Messages(ctx, s, c, max)
}

func TestASessionThatIsSlowToBeReadHoldsUpNoOther(t *testing.T) {
	f := &endless{server: newServer()}
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		_, slow := turnOn(t, m, "slow")
		id, session := turnOn(t, m, "p")
		f.do(func() { f.which = slow })
		defer func() { f.do(func() { f.which = "" }); time.Sleep(10 * time.Second) }()
		for i := range 40 {
			f.put(session, bgagent.Message{ID: "m", Text: fmt.Sprint(i)})
			time.Sleep(10 * time.Second)
		}
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%s", get(t, m, id).Reason)
		f.say(session, "done")
	})
}

// slowServer is a server whose reads take the duration d.
type slowServer struct {
	*server
	d time.Duration
}

func (f slowServer) Messages(ctx context.Context, s string, c bgagent.Cursor, max int) (bgagent.Page, error) {
	select {
	case <-time.After(f.d):
	case <-ctx.Done():
		return bgagent.Page{}, ctx.Err()
	}
	return f.server.Messages(ctx, s, c, max)
}

func TestEveryPollCountsHoweverSlowItsRead(t *testing.T) {
	for _, d := range []time.Duration{0, 50 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			f := newServer()
			f.statuses = func(a map[string]bgagent.SessionStatus) {
				for id := range a {
					a[id] = bgagent.SessionStatus{State: bgagent.SessionUntold}
				}
			}
			m := manage(t, slowServer{f, d}, bgagent.Config{})
			id, s := turnOn(t, m, "p")
			f.say(s, "answer")
			time.Sleep(15 * time.Second) // polls at 10, 12 and 14 s
			require.Equal(t, bgagent.Completed, get(t, m, id).Status, "reads take %v", d)
		})
	}
}

func TestIdleIsAsOldAsItsStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		early := true
		f.statuses = func(a map[string]bgagent.SessionStatus) {
			for id := range a {
				if early {
					a[id] = bgagent.SessionStatus{State: bgagent.SessionIdle}
				}
			}
		}
		m := manage(t, slowServer{f, 4 * time.Second}, bgagent.Config{})
		id, s := turnOn(t, m, "p")
		time.Sleep(2500 * time.Millisecond) // the poll at 2 s has found the session idle
		f.do(func() { early = false })      // the turn begins, and the session is busy
		f.put(s, bgagent.Message{ID: "m", Text: "let me look", Finished: true})
		time.Sleep(10 * time.Second)
		task := get(t, m, id)
		require.Equal(t, bgagent.Running, task.Status, "%s %q", task.Cause, task.Result)
	})
}
