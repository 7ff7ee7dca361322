package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// untold is what a client answers that can never tell a status.
func untold(m map[string]bgagent.SessionStatus) {
	for id := range m {
		m[id] = bgagent.SessionStatus{State: bgagent.SessionUntold}
	}
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
		f.abort = func(_ context.Context, s string) error { f.set(s, bgagent.SessionBusy); return nil } // takes a while to stop
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

func TestWhatAnEventHasToldIsNotOverwrittenByAnOlderRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &slowReader{server: newServer()}
		f.statuses = func(map[string]bgagent.SessionStatus) { f.mu.Unlock(); time.Sleep(time.Millisecond); f.mu.Lock() }
		m := manage(t, f, bgagent.Config{})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		id, session := turnOn(t, m, "p")
		user := f.session(session).messages[0]
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: session, Message: &user})
		half := bgagent.Message{ID: "m", Role: bgagent.RoleAgent, Text: "the ans"}
		whole := bgagent.Message{ID: "m", Role: bgagent.RoleAgent, Text: "the answer", Finished: true, Stop: bgagent.StopEndOfTurn}
		f.put(session, half)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: session, Message: &half})
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Second):
					m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamBeat})
				}
			}
		}()
		time.Sleep(10 * time.Second)
		f.do(func() { f.delay = 100 * time.Millisecond })
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamGap})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		time.Sleep(50 * time.Millisecond) // the page is on its way
		f.put(session, whole)
		f.set(session, bgagent.SessionIdle)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: session, Message: &whole})
		m.Observe(idle(session))
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "the answer", task.Result)
	})
}

type slowReader struct {
	*server
	delay time.Duration
}

func (f *slowReader) Messages(ctx context.Context, s string, c bgagent.Cursor, max int) (bgagent.Page, error) {
	p, err := f.server.Messages(ctx, s, c, max)
	f.mu.Lock()
	d := f.delay
	f.mu.Unlock()
	time.Sleep(d)
	return p, err
}

func TestReadsThatFailDecideNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, _ := turnOn(t, m, "p")
		f.do(func() { f.readErr = errors.New("messages: 500") })
		time.Sleep(10 * time.Minute)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%s", get(t, m, id).Reason)
	})
}

func TestARetryIsNotStaleAsSoonAsItBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, _ := turnOn(t, m, "p")
		at := time.Now().Add(10 * time.Minute)
		f.do(func() {
			f.statuses = func(m map[string]bgagent.SessionStatus) {
				for id := range m {
					m[id] = bgagent.SessionStatus{State: bgagent.SessionRetrying, RetryAt: at, Detail: "rate limit"}
				}
			}
		})
		time.Sleep(10*time.Minute + 5*time.Second) // it has just been tried again; no answer yet
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%s", get(t, m, id).Reason)
	})
}

func TestARetryThatIsPutOffIsAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, _ := turnOn(t, m, "p")
		began := time.Now()
		f.do(func() {
			f.statuses = func(m map[string]bgagent.SessionStatus) {
				// tried again every 30 s, each try takes 3 s
				n := time.Since(began) / (33 * time.Second)
				at := began.Add(n*33*time.Second + 30*time.Second)
				for id := range m {
					m[id] = bgagent.SessionStatus{State: bgagent.SessionRetrying, RetryAt: at, Detail: "overloaded"}
				}
			}
		})
		time.Sleep(10 * time.Minute)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%s %v", get(t, m, id).Reason, get(t, m, id).Ended.Sub(began))
	})
}

func TestALateChangeOfAnOlderMessageIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		first := bgagent.Message{ID: "m1", Text: "first", Finished: true, Stop: bgagent.StopEndOfTurn}
		f.put(session, first)
		time.Sleep(3 * time.Second)
		f.do(func() {
			f.putLocked(f.sessions[session], bgagent.Message{ID: "u2", Role: bgagent.RoleUser, Text: "the user: one thing more", Finished: true})
		})
		time.Sleep(3 * time.Second)
		first.Text = "first."
		f.put(session, first)
		f.set(session, bgagent.SessionIdle) // about to take up u2
		time.Sleep(3 * time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status)
		f.set(session, bgagent.SessionBusy)
		time.Sleep(3 * time.Second)
		f.say(session, "second")
		require.Equal(t, "second", ended(t, m, id)[0].Result)
	})
}

func hostError(session string, stop bgagent.StopReason) bgagent.HostEvent {
	return bgagent.HostEvent{Kind: bgagent.HostError, Session: session, Stop: stop, Error: "x"}
}

func TestTheEchoOfAnAbortDoesNotDecideMinutesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.NoError(t, m.Quiet(t.Context(), id))
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		time.Sleep(20 * time.Millisecond)
		m.Observe(hostError(session, bgagent.StopAborted)) // of the turn before
		m.Observe(idle(session))
		time.Sleep(time.Minute)
		f.put(session, bgagent.Message{ID: "a", Text: "the answer", Finished: true}) // a client without reasons
		f.set(session, bgagent.SessionIdle)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
	})
}

func TestTheEchoOfAnErrorDoesNotEndTheNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		id, session := turnOn(t, m, "p")
		f.set(session, bgagent.SessionIdle)
		m.Observe(hostError(session, bgagent.StopError))
		m.Observe(idle(session))
		require.Equal(t, bgagent.Failed, ended(t, m, id)[0].Status)
		_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		time.Sleep(20 * time.Millisecond)
		m.Observe(hostError(session, bgagent.StopError)) // the same again, as opencode does
		synctest.Wait()
		m.Observe(idle(session))
		time.Sleep(time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%s", get(t, m, id).Reason)
	})
}

func TestAnIdleEventCountsWhereStatusesAreUntold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		f.statuses = untold
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		time.Sleep(6 * time.Second)
		f.put(session, bgagent.Message{ID: "m", Text: "done", Finished: true, Stop: bgagent.StopEndOfTurn})
		began := time.Now()
		m.Observe(idle(session))
		ended(t, m, id)
		require.Less(t, time.Since(began), time.Second)
	})
}

func TestTheLastActivityIsNotInTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		time.Sleep(3 * time.Second)
		f.do(func() { f.statusErr = errors.New("down") })
		for range 24 {
			time.Sleep(10 * time.Second)
			m.Observe(bgagent.HostEvent{Kind: bgagent.HostActivity, Session: session})
		}
		f.do(func() { f.statusErr = nil })
		time.Sleep(3 * time.Second)
		require.False(t, get(t, m, id).Progress.LastActivity.After(time.Now()), "%v", time.Until(get(t, m, id).Progress.LastActivity))
	})
}

func TestATurnBeginsOnceItsPromptIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		id, session := turnOn(t, m, "p")
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.NoError(t, m.Quiet(t.Context(), id))
		f.do(func() { f.started = func(string, bgagent.Prompt) { time.Sleep(6 * time.Second) } })
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		time.Sleep(6*time.Second + 20*time.Millisecond)
		m.Observe(hostError(session, bgagent.StopAborted))
		synctest.Wait()
		m.Observe(idle(session))
		time.Sleep(time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%s", get(t, m, id).Reason)
	})
}

func TestAnAnswerThatNobodySawIsNotTheNextOne(t *testing.T) {
	for _, hides := range []bool{false, true} {
		t.Run(fmt.Sprint(hides), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				f.hidesPrompts = hides
				m := manage(t, f, bgagent.Config{})
				id, session := turnOn(t, m, "p")
				f.put(session, bgagent.Message{ID: "m", Text: "old answer", Finished: true, Stop: bgagent.StopEndOfTurn})
				_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{}) // before anybody has seen it
				require.NoError(t, err)
				require.NoError(t, m.Quiet(t.Context(), id))
				_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
				require.NoError(t, err)
				synctest.Wait()
				m.Observe(idle(session)) // late
				f.set(session, bgagent.SessionIdle)
				time.Sleep(4 * time.Second)
				require.Equal(t, bgagent.Running, get(t, m, id).Status, get(t, m, id).Result)
			})
		})
	}
}

// endless always has more messages of one session, and is slow to return them.
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
	synctest.Test(t, func(t *testing.T) {
		f := &endless{server: newServer()}
		m := manage(t, f, bgagent.Config{})
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

func TestATodoListThatChangesIsAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		for i := range 6 {
			time.Sleep(time.Minute)
			m.Observe(bgagent.HostEvent{Kind: bgagent.HostTodos, Session: session, Todos: make([]bgagent.Todo, i+1)})
		}
		require.Equal(t, bgagent.Running, get(t, m, id).Status, get(t, m, id).Reason)
	})
}

func TestTodosAreReadAfterAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &todoServer{server: newServer()}
		m := manage(t, f, bgagent.Config{})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		id, session := turnOn(t, m, "p")
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostTodos, Session: session, Todos: []bgagent.Todo{{Text: "a"}}})
		time.Sleep(3 * time.Second)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamGap}) // in it the todo was completed
		time.Sleep(time.Second)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		time.Sleep(6 * time.Second)
		f.say(session, "all done")
		msgs := f.session(session).messages
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: session, Message: &msgs[len(msgs)-1]})
		began := time.Now()
		m.Observe(idle(session))
		task := ended(t, m, id)[0]
		require.Zero(t, task.OpenTodos)
		require.Less(t, time.Since(began), 5*time.Second)
	})
}

func TestASessionIsReadBeforeItEndsBadlyByItsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		go func() {
			for range 20 {
				time.Sleep(5 * time.Second)
				m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamBeat})
			}
		}()
		id, session := turnOn(t, m, "p")
		f.say(session, "done")
		m.Observe(idle(session))
		task := ended(t, m, id)[0]
		time.Sleep(2 * time.Minute)
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
	})
}

func TestAnAnswerThatIsToldBeforeItsPromptIsReadCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, s := turnOn(t, m, "p")
		time.Sleep(time.Second)
		f.say(s, "answer")
		msg := f.session(s).messages[1]
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: s, Message: &msg})
		m.Observe(idle(s))
		time.Sleep(time.Minute)
		task := get(t, m, id)
		require.Equal(t, bgagent.Completed, task.Status, "%s: %s", task.Cause, task.Reason)
	})
}

func TestAnAnswerAfterAGapCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		id, s := turnOn(t, m, "p")
		// the event about the prompt is lost
		f.say(s, "answer")
		f.set(s, bgagent.SessionBusy)
		msg := f.session(s).messages[1]
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamGap})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: s, Message: &msg})
		time.Sleep(3 * time.Second)
		f.set(s, bgagent.SessionIdle)
		m.Observe(idle(s))
		time.Sleep(time.Minute)
		task := get(t, m, id)
		require.Equal(t, bgagent.Completed, task.Status, "%s: %s", task.Cause, task.Reason)
	})
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
		time.Sleep(2500 * time.Millisecond) // a poll at 2 s has seen idle
		f.do(func() { early = false })      // the turn begins: busy
		f.put(s, bgagent.Message{ID: "m", Text: "let me look", Finished: true})
		time.Sleep(10 * time.Second)
		task := get(t, m, id)
		require.Equal(t, bgagent.Running, task.Status, "%s %q", task.Cause, task.Result)
	})
}

func TestAnEarlyIdleEventIsLookedAtAgainWhereStatusesAreUntold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		f.statuses = func(a map[string]bgagent.SessionStatus) {
			for id := range a {
				a[id] = bgagent.SessionStatus{State: bgagent.SessionUntold}
			}
		}
		m := manage(t, f, bgagent.Config{})
		id, s := turnOn(t, m, "p")
		time.Sleep(3 * time.Second)
		f.put(s, bgagent.Message{ID: "m", Text: "done", Finished: true}) // a client without reasons
		m.Observe(idle(s))
		time.Sleep(3 * time.Second) // the 5 s are over
		require.Equal(t, bgagent.Completed, get(t, m, id).Status)
	})
}

// longServer's sessions have 2000 old messages, a page of which takes 2 s.
type longServer struct{ *server }

func (f longServer) Messages(ctx context.Context, s string, c bgagent.Cursor, max int) (bgagent.Page, error) {
	n, _ := strconv.Atoi(string(c))
	if n < 20 {
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return bgagent.Page{}, ctx.Err()
		}
		return bgagent.Page{Next: bgagent.Cursor(strconv.Itoa(n + 1)), More: true}, nil
	}
	page, err := f.server.Messages(ctx, s, bgagent.Cursor(strconv.Itoa(n-20)), max)
	k, _ := strconv.Atoi(string(page.Next))
	page.Next = bgagent.Cursor(strconv.Itoa(k + 20))
	return page, err
}

func TestALongSessionCanBeResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, longServer{f}, bgagent.Config{})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp}) // nothing is ever read
		id, s := turnOn(t, m, "p")
		f.say(s, "one")
		for i := range f.session(s).messages {
			m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: s, Message: &f.session(s).messages[i]})
		}
		m.Observe(idle(s))
		require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
		_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "q"})
		require.NoError(t, err)
		time.Sleep(50 * time.Second)
		task := get(t, m, id)
		require.Equal(t, bgagent.Running, task.Status, "%s: %s", task.Cause, task.Reason)
	})
}

type todoing struct{ *server }

func (f todoing) Todos(context.Context, string) ([]bgagent.Todo, error) { return nil, nil }

func TestTodosOfBeforeAGapAreNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		f.started = func(string, bgagent.Prompt) { time.Sleep(3 * time.Second) }
		m := manage(t, todoing{f}, bgagent.Config{})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		id := launch(t, m, "p").ID
		time.Sleep(time.Second) // the prompt is being handed over
		s := get(t, m, id).Session
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostTodos, Session: s, Todos: []bgagent.Todo{{Text: "x"}}})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamGap}) // the event that x is done is lost
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		time.Sleep(10 * time.Second)
		f.say(s, "done")
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamBeat})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: s, Message: &f.session(s).messages[1]})
		m.Observe(idle(s))
		time.Sleep(5 * time.Second)
		task := get(t, m, id)
		require.Equal(t, bgagent.Completed, task.Status, "%+v", task.Progress)
		require.Zero(t, task.OpenTodos)
	})
}

func TestAnErrorThatTheAgentGotOverDoesNotDecide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, s := turnOn(t, m, "p")
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "q"})
		require.NoError(t, err)
		time.Sleep(time.Second)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostError, Session: s, Stop: bgagent.StopAborted}) // the old turn's
		time.Sleep(3 * time.Second)
		f.put(s, bgagent.Message{ID: "new", Text: "working"})
		time.Sleep(1200 * time.Millisecond)
		f.put(s, bgagent.Message{ID: "new", Text: "working: done", Finished: true}) // a client without reasons
		f.set(s, bgagent.SessionIdle)
		m.Observe(idle(s))
		time.Sleep(5 * time.Second)
		task := get(t, m, id)
		require.Equal(t, bgagent.Completed, task.Status, "%s: %s", task.Cause, task.Reason)
	})
}

// slowServer's reads take a moment.
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
