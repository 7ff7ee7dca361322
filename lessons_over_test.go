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

// turnOn launches a task on a server and waits until its turn has begun.
func turnOn(t *testing.T, m *bgagent.BackgroundManager, prompt string) (id, session string) {
	t.Helper()
	id = launch(t, m, prompt).ID
	synctest.Wait()
	task := get(t, m, id)
	require.Equal(t, bgagent.PhaseTurn, task.Phase)
	return id, task.Session
}

func idle(session string) bgagent.HostEvent {
	return bgagent.HostEvent{Kind: bgagent.HostStatus, Session: session, Status: bgagent.SessionStatus{State: bgagent.SessionIdle}}
}

// Lesson 12.
func TestLesson12IdleIsNotAlwaysTheEnd(t *testing.T) {
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
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				m := manage(t, f, bgagent.Config{})
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

// todoServer is a server that can tell todos.
type todoServer struct {
	*server
	todos []bgagent.Todo
	err   error
}

func (f *todoServer) Todos(context.Context, string) ([]bgagent.Todo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.todos, f.err
}

// Lesson 12, open todos.
func TestLesson12OpenTodosHoldAnIdleSessionBackForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &todoServer{server: newServer(), todos: []bgagent.Todo{{Text: "a", State: bgagent.TodoCompleted}, {Text: "b"}, {Text: "c", State: bgagent.TodoInProgress}}}
		m := manage(t, f, bgagent.Config{})
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
		require.LessOrEqual(t, time.Since(began), 2*time.Second, "nothing is open any more")

		f.do(func() { f.err = errors.New("no") })
		id, session = turnOn(t, m, "r")
		f.say(session, "done")
		time.Sleep(20 * time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "a failed read of todos decides nothing")
	})
}

// Lesson 13.
func TestLesson13AnEarlyIdleEventIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{PollInterval: time.Hour, StaleTimeout: bgagent.Disabled, HostUnreachable: bgagent.Disabled})
		id, session := turnOn(t, m, "p")
		f.put(session, bgagent.Message{ID: "m", Text: "quick", Finished: true}) // no finish mark
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
		require.Zero(t, time.Since(began), "with a finish mark it is believed at once")
	})
}

// Lesson 14.
func TestLesson14ASessionThatIsGoneEndsItsTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
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

// Lesson 15.
func TestLesson15AFailedStatusCallDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		f.put(session, bgagent.Message{ID: "m", Text: "x", Finished: true, Stop: bgagent.StopEndOfTurn})
		f.do(func() { f.statusErr = errors.New("down") })
		time.Sleep(4*time.Minute + 50*time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "unanswered time is not stale")
		f.do(func() { f.statusErr = nil })
		time.Sleep(2 * time.Minute)
		require.Equal(t, bgagent.Running, get(t, m, id).Status)
		f.do(func() { f.statusErr = errors.New("down for good") })
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseHostUnreachable, task.Cause)
		require.Contains(t, task.Reason, "5m0s")
	})
}

// Lesson 16.
func TestLesson16AnUnknownStatusNeitherCompletesNorLastsForEver(t *testing.T) {
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
				require.Equal(t, bgagent.CauseHostUnreachable, ended(t, m, id)[0].Cause)
			})
		})
	}
}

// Lesson 17.
func TestLesson17OnlyAChangeIsActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		silent, session := turnOn(t, m, "silent")
		thinking, other := turnOn(t, m, "thinking")
		tool, third := turnOn(t, m, "a long tool call")
		f.put(session, bgagent.Message{ID: "m", Text: "one sentence"})
		f.put(third, bgagent.Message{ID: "m", Tools: []bgagent.MessageTool{{ID: "t", Name: "make", State: bgagent.ToolRunning}}})
		for i := range 20 {
			f.put(other, bgagent.Message{ID: "m", Reasoning: fmt.Sprint("hm", i)})
			time.Sleep(30 * time.Second)
		}
		task := get(t, m, silent)
		require.Equal(t, bgagent.CauseStale, task.Cause)
		require.Contains(t, task.Reason, "3 min")
		require.Contains(t, task.Reason, "one sentence")
		require.Contains(t, task.Reason, "staleTimeoutMs")
		require.InDelta(t, 3*60, task.Duration(time.Now()).Seconds(), 5)
		require.Positive(t, f.session(session).aborts)
		require.Equal(t, bgagent.Running, get(t, m, thinking).Status)
		require.Equal(t, bgagent.Running, get(t, m, tool).Status)
	})
}

// Lesson 18.
func TestLesson18AResumedTaskIsNotEndedByItsPast(t *testing.T) {
	for name, hides := range map[string]bool{"prompts are told": false, "prompts are not told": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				f.hidesPrompts = hides
				m := manage(t, f, bgagent.Config{})
				id, session := turnOn(t, m, "p")
				f.say(session, "first answer")
				all := f.session(session).messages
				first := all[len(all)-1].ID
				ended(t, m, id)
				time.Sleep(25 * time.Minute) // most of the first attempt's time to live
				_, err := m.Resume(t.Context(), root, session, bgagent.ResumeInput{Prompt: "and now"})
				require.NoError(t, err)
				synctest.Wait()
				f.put(session, bgagent.Message{ID: first, Text: "first answer, changed late", Finished: true, Stop: bgagent.StopEndOfTurn})
				m.Observe(idle(session))            // late: of the turn before
				f.set(session, bgagent.SessionIdle) // it takes its time to begin
				time.Sleep(8 * time.Second)
				require.Equal(t, bgagent.Running, get(t, m, id).Status)
				f.set(session, bgagent.SessionBusy)
				for i := range 20 {
					f.put(session, bgagent.Message{ID: "thought", Reasoning: fmt.Sprint(i)})
					time.Sleep(time.Minute)
					require.Equal(t, bgagent.Running, get(t, m, id).Status, "after %d minutes", i)
				}
				f.put(session, bgagent.Message{ID: "thought", Reasoning: "20", Finished: true})
				f.say(session, "second answer")
				task := ended(t, m, id)[0]
				require.Equal(t, "second answer", task.Result)
				require.Equal(t, 2, task.Attempt)
				require.InDelta(t, 20*60+8, task.Duration(time.Now()).Seconds(), 5)
			})
		})
	}
}

// Lesson 18, within one attempt: the turn that tells a task of its own tasks' ends
// is not ended by the answer of the turn before.
func TestLesson18ASecondTurnIsNotEndedByTheFirst(t *testing.T) {
	for name, hides := range map[string]bool{"prompts are told": false, "prompts are not told": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				f.hidesPrompts = hides
				m := manage(t, f, bgagent.Config{MaxDepth: 2, Limits: bgagent.Limits{Default: 1}})
				id, session := turnOn(t, m, "lead")
				child, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "help"})
				require.NoError(t, err)
				f.say(session, "I have sent for help")
				all := f.session(session).messages
				first := all[len(all)-1].ID
				m.Observe(idle(session))
				synctest.Wait()
				require.Equal(t, bgagent.PhaseWaiting, get(t, m, id).Phase)
				helper := get(t, m, child.ID).Session
				require.NotEmpty(t, helper, "the one who waits holds no slot")
				f.say(helper, "here is help")
				ended(t, m, child.ID)
				time.Sleep(time.Second)
				synctest.Wait()
				require.Len(t, f.prompted(), 3)
				require.NotNil(t, f.prompted()[2].Notice)
				f.put(session, bgagent.Message{ID: first, Text: "I have sent for help, changed late", Finished: true, Stop: bgagent.StopEndOfTurn})
				m.Observe(idle(session)) // late: of the turn before
				f.do(func() { f.sessions[session].state = bgagent.SessionIdle })
				time.Sleep(4 * time.Second)
				require.Equal(t, bgagent.Running, get(t, m, id).Status, "nothing has been answered yet")
				f.set(session, bgagent.SessionBusy)
				f.say(session, "with help it is done")
				task := ended(t, m, id)[0]
				require.Equal(t, "with help it is done", task.Result)
				require.Equal(t, 2, task.Progress.Turns)
			})
		})
	}
}

// Lesson 19.
func TestLesson19AnErrorAfterTextIsAnError(t *testing.T) {
	cases := map[bgagent.StopReason]bgagent.Cause{
		bgagent.StopError: bgagent.CauseSessionError, bgagent.StopAborted: bgagent.CauseAgentWindow, bgagent.StopLength: bgagent.CauseLength,
		bgagent.StopTurnLimit: bgagent.CauseTurnLimit, bgagent.StopRefused: bgagent.CauseRefused, bgagent.StopInterrupted: bgagent.CauseInterrupted,
	}
	for stop, cause := range cases {
		t.Run(stop.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				m := manage(t, f, bgagent.Config{})
				id, session := turnOn(t, m, "p")
				f.put(session, bgagent.Message{ID: "a", Text: "the first half", Finished: true})
				f.put(session, bgagent.Message{ID: "b", Finished: true, Stop: stop, Error: "overloaded"})
				f.set(session, bgagent.SessionIdle)
				task := ended(t, m, id)[0]
				require.Equal(t, cause, task.Cause)
				require.Equal(t, cause.Status(), task.Status)
				require.Contains(t, task.Reason, "overloaded")
				require.Equal(t, "the first half", task.Result)
				require.True(t, task.Partial)

				r := &goRunner{}
				r.run = func(_ context.Context, _ string, _ bgagent.Prompt, rep *bgagent.Reporter) (bgagent.TurnEnd, error) {
					rep.Text("the first half")
					return bgagent.TurnEnd{Stop: stop}, nil
				}
				m = manage(t, r, bgagent.Config{})
				task = ended(t, m, launch(t, m, "p").ID)[0]
				require.Equal(t, cause, task.Cause)
				require.Equal(t, "the first half", task.Result)
				require.True(t, task.Partial)
			})
		})
	}
}

// Lesson 20.
func TestLesson20SweepsNeverOverlapAndStablePollsTakeTheirTime(t *testing.T) {
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
		// Polls are answered at 6, 12, 18, 24 …; the first that counts is the
		// one at 12.
		require.Equal(t, 24*time.Second, time.Since(began))
	})
}

// Lesson 21.
func TestLesson21TheTimeLimitStopsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{StaleTimeout: bgagent.Disabled})
		id, session := turnOn(t, m, "p")
		began := time.Now()
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseTimeToLive, task.Cause)
		require.Equal(t, 30*time.Minute, time.Since(began))
		require.NoError(t, m.Quiet(t.Context(), id))
		require.Equal(t, 1, f.session(session).aborts)

		r := &goRunner{run: works(time.Hour)}
		m = manage(t, r, bgagent.Config{})
		task = ended(t, m, launch(t, m, "p").ID)[0]
		require.Equal(t, bgagent.CauseTimeToLive, task.Cause)
		require.NoError(t, m.Quiet(t.Context(), task.ID), "its context has ended")
	})
}
