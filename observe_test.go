package bgagent_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

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
		time.Sleep(50 * time.Millisecond) // the page is being read
		f.put(session, whole)
		f.set(session, bgagent.SessionIdle)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: session, Message: &whole})
		m.Observe(idle(session))
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "the answer", task.Result)
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
		f.put(s, bgagent.Message{ID: "m", Text: "done", Finished: true}) // this client does not report stop reasons
		m.Observe(idle(s))
		time.Sleep(3 * time.Second) // MinIdleTime (5 s) has passed
		require.Equal(t, bgagent.Completed, get(t, m, id).Status)
	})
}

// A late event about an earlier turn does not mark a busy session as quiet. Only a status that the
// manager requests after the event can do that.
func TestALateIdleEventMakesNoRunningSessionQuiet(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "a")
		f.do(func() {
			f.sessions[session].state = bgagent.SessionBusy
			f.abort = func(context.Context, string) error {
				f.set(session, bgagent.SessionBusy) // the session does not stop immediately
				return nil
			}
		})
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
		m.Observe(idle(session)) // a late event about the earlier turn
		synctest.Wait()
		require.False(t, get(t, m, id).Quiet)
		f.set(session, bgagent.SessionIdle)
		before := time.Now()
		m.Observe(idle(session))
		synctest.Wait()
		require.True(t, get(t, m, id).Quiet)
		require.Zero(t, time.Since(before), "the status must be requested immediately")
	})
}

// An event with an unknown status does not count as an answer from the client.
func TestAnUnknownStatusInAnEventIsNoAnswer(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{HostUnreachable: 5 * time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "a")
		f.do(func() { f.statusErr = errors.New("down") })
		for range 10 {
			time.Sleep(time.Minute)
			m.Observe(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: session, Status: bgagent.SessionStatus{State: 99}})
		}
		require.Equal(t, bgagent.CauseHostUnreachable, get(t, m, id).Cause)
	})
}

// Sessions of different clients can have the same id. A deletion applies only to the session of
// the client that reports it.
func TestADeletionConcernsTheClientThatToldIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, other := newServer(), newServer()
		m := manage(t, f, bgagent.Config{Clients: map[string]bgagent.SessionClient{"other": other}})
		id, session := turnOn(t, m, "a")
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostDeleted, Client: "other", Session: session})
		require.Equal(t, bgagent.Running, get(t, m, id).Status)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostDeleted, Session: session})
		synctest.Wait()
		require.Equal(t, bgagent.CauseSessionDeleted, get(t, m, id).Cause)
	})
}

func TestTodosAreReadAfterAGap(t *testing.T) {
	f := &todoServer{server: newServer()}
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		id, session := turnOn(t, m, "p")
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostTodos, Session: session, Todos: []bgagent.Todo{{Text: "a"}}})
		time.Sleep(3 * time.Second)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamGap}) // the todo is completed during the gap
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

type todoing struct{ *server }

func (f todoing) Todos(context.Context, string) ([]bgagent.Todo, error) { return nil, nil }

func TestTodosOfBeforeAGapAreNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		f.started = func(string, bgagent.Prompt) { time.Sleep(3 * time.Second) }
		m := manage(t, todoing{f}, bgagent.Config{})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		id := launch(t, m, "p").ID
		time.Sleep(time.Second) // StartTurn is still running
		s := get(t, m, id).Session
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostTodos, Session: s, Todos: []bgagent.Todo{{Text: "x"}}})
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamGap}) // the stream loses the event that reports the todo "x" as done
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

func TestASessionIsReadBeforeItEndsBadlyByItsEvents(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
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
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
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
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		id, s := turnOn(t, m, "p")
		// The event about the prompt is lost.
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

// The type "streaming" is a server that is an EventSource.
type streaming struct {
	*server
	emit chan bgagent.HostEvent
}

func (f *streaming) Events(ctx context.Context, emit func(bgagent.HostEvent)) error {
	emit(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
	for {
		select {
		case e := <-f.emit:
			emit(e)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestSessionsThatEventsKeepCurrentAreNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &streaming{server: newServer(), emit: make(chan bgagent.HostEvent)}
		m := manage(t, f, bgagent.Config{})
		synctest.Wait()
		id, session := turnOn(t, m, "p")
		beat := func() { f.emit <- bgagent.HostEvent{Kind: bgagent.HostStreamBeat} }
		for range 6 {
			time.Sleep(10 * time.Second)
			beat()
		}
		synctest.Wait()
		require.Zero(t, f.reads)
		f.emit <- bgagent.HostEvent{Kind: bgagent.HostStreamGap}
		f.emit <- bgagent.HostEvent{Kind: bgagent.HostStreamUp}
		time.Sleep(25 * time.Second)
		synctest.Wait()
		require.LessOrEqual(t, f.reads, 2, "after a gap, the messages are read once, or twice if the gap was long")
		require.Positive(t, f.reads)

		id2, session2 := turnOn(t, m, "q")
		f.do(func() { f.reads = 0 })
		msg := bgagent.Message{ID: "m", Role: bgagent.RoleAgent, Text: "all by events", Finished: true, Stop: bgagent.StopEndOfTurn}
		f.emit <- bgagent.HostEvent{Kind: bgagent.HostMessage, Session: session2, Message: &msg}
		f.emit <- idle(session2)
		synctest.Wait()
		task := get(t, m, id2)
		require.Equal(t, bgagent.Completed, task.Status)
		require.Equal(t, "all by events", task.Result)
		f.say(session, "x")
		f.emit <- idle(session)
		ended(t, m, id)
	})
}
