package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// When a task is resumed, three things must not end the new attempt: the answer of the earlier
// turn, a late event from that turn, and the time limit of the earlier attempt.
func TestAResumedTaskIsNotEndedByItsPast(t *testing.T) {
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
				m.Observe(idle(session))            // a late event from the earlier turn
				f.set(session, bgagent.SessionIdle) // the new turn does not begin immediately
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

// In this test, a task gets a second turn with the notice about its child task. The answer of the
// first turn must not end the second turn.
func TestASecondTurnIsNotEndedByTheFirst(t *testing.T) {
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
				require.NotEmpty(t, helper, "the waiting task does not hold a slot")
				f.say(helper, "here is help")
				ended(t, m, child.ID)
				time.Sleep(time.Second)
				synctest.Wait()
				require.Len(t, f.prompted(), 3)
				require.NotNil(t, f.prompted()[2].Notice)
				f.put(session, bgagent.Message{ID: first, Text: "I have sent for help, changed late", Finished: true, Stop: bgagent.StopEndOfTurn})
				m.Observe(idle(session)) // a late event from the first turn
				f.do(func() { f.sessions[session].state = bgagent.SessionIdle })
				time.Sleep(4 * time.Second)
				require.Equal(t, bgagent.Running, get(t, m, id).Status, "the prompt has not been answered yet")
				f.set(session, bgagent.SessionBusy)
				f.say(session, "with help it is done")
				task := ended(t, m, id)[0]
				require.Equal(t, "with help it is done", task.Result)
				require.Equal(t, 2, task.Progress.Turns)
			})
		})
	}
}

func TestALateChangeOfAnOlderMessageIsNoAnswer(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
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
		f.set(session, bgagent.SessionIdle) // the agent has not begun to answer u2
		time.Sleep(3 * time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status)
		f.set(session, bgagent.SessionBusy)
		time.Sleep(3 * time.Second)
		f.say(session, "second")
		require.Equal(t, "second", ended(t, m, id)[0].Result)
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
				_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{}) // before a poll has seen the answer
				require.NoError(t, err)
				require.NoError(t, m.Quiet(t.Context(), id))
				_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
				require.NoError(t, err)
				synctest.Wait()
				m.Observe(idle(session)) // a late event from the earlier turn
				f.set(session, bgagent.SessionIdle)
				time.Sleep(4 * time.Second)
				require.Equal(t, bgagent.Running, get(t, m, id).Status, get(t, m, id).Result)
			})
		})
	}
}

func TestTheEchoOfAnAbortDoesNotDecideMinutesLater(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "p")
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.NoError(t, m.Quiet(t.Context(), id))
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		time.Sleep(20 * time.Millisecond)
		m.Observe(hostError(session, bgagent.StopAborted)) // a late event from the earlier turn
		m.Observe(idle(session))
		time.Sleep(time.Minute)
		f.put(session, bgagent.Message{ID: "a", Text: "the answer", Finished: true}) // the client does not report stop reasons
		f.set(session, bgagent.SessionIdle)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
	})
}

func TestTheEchoOfAnErrorDoesNotEndTheNextAttempt(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
		id, session := turnOn(t, m, "p")
		f.set(session, bgagent.SessionIdle)
		m.Observe(hostError(session, bgagent.StopError))
		m.Observe(idle(session))
		require.Equal(t, bgagent.Failed, ended(t, m, id)[0].Status)
		_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		time.Sleep(20 * time.Millisecond)
		m.Observe(hostError(session, bgagent.StopError)) // the same error again, as opencode reports it
		synctest.Wait()
		m.Observe(idle(session))
		time.Sleep(time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status, "%s", get(t, m, id).Reason)
	})
}

func TestATurnBeginsOnceItsPromptIsAccepted(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
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

// longServer is a server whose sessions have 2000 old messages. It takes 2 s to
// return a page of them.
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
	f := newServer()
	bubble(t, longServer{f}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostStreamUp}) // while no events are lost, the manager does not read messages
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

func TestAnErrorAfterTextIsAnError(t *testing.T) {
	cases := map[bgagent.StopReason]bgagent.Cause{
		bgagent.StopError: bgagent.CauseSessionError, bgagent.StopAborted: bgagent.CauseAgentWindow, bgagent.StopLength: bgagent.CauseLength,
		bgagent.StopTurnLimit: bgagent.CauseTurnLimit, bgagent.StopRefused: bgagent.CauseRefused, bgagent.StopInterrupted: bgagent.CauseInterrupted,
	}
	for stop, cause := range cases {
		t.Run(stop.String(), func(t *testing.T) {
			f := newServer()
			bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
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

func TestAnErrorThatTheAgentGotOverDoesNotDecide(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, s := turnOn(t, m, "p")
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "q"})
		require.NoError(t, err)
		time.Sleep(time.Second)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostError, Session: s, Stop: bgagent.StopAborted}) // a late event from the earlier turn
		time.Sleep(3 * time.Second)
		f.put(s, bgagent.Message{ID: "new", Text: "working"})
		time.Sleep(1200 * time.Millisecond)
		f.put(s, bgagent.Message{ID: "new", Text: "working: done", Finished: true}) // the client does not report stop reasons
		f.set(s, bgagent.SessionIdle)
		m.Observe(idle(s))
		time.Sleep(5 * time.Second)
		task := get(t, m, id)
		require.Equal(t, bgagent.Completed, task.Status, "%s: %s", task.Cause, task.Reason)
	})
}

// If RunTurn returns both an error and a stop reason that indicates a failure, the stop reason
// determines the cause of the end.
func TestAnErrorWithAStopReasonEndsAsThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for stop, cause := range map[bgagent.StopReason]bgagent.Cause{
			bgagent.StopUntold: bgagent.CauseSessionError, bgagent.StopEndOfTurn: bgagent.CauseSessionError,
			bgagent.StopInterrupted: bgagent.CauseInterrupted, bgagent.StopLength: bgagent.CauseLength,
		} {
			m := manage(t, &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
				return bgagent.TurnEnd{Stop: stop}, errors.New("killed: " + strings.Repeat("stderr ", 100))
			}}, bgagent.Config{})
			task := ended(t, m, launch(t, m, "work").ID)[0]
			require.Equal(t, cause, task.Cause)
			require.Contains(t, task.Reason, "killed: stderr")
			require.Greater(t, len(task.Reason), 600, "the last output of a program must not be cut off")
		}
	})
}

func TestEmptyPiecesAreNoOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Reasoning("")
			return bgagent.TurnEnd{}, nil
		}}
		m := manage(t, f, bgagent.Config{})
		require.Equal(t, bgagent.CauseNoOutput, ended(t, m, launch(t, m, "p").ID)[0].Cause)
	})
}

func TestAReasonForNoAnswerContainsTheRemarkOfItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const remark = "1 line was not understood, the first: \"hello\""
		for name, c := range map[string]struct {
			turn   func(*bgagent.Reporter) bgagent.TurnEnd
			cause  bgagent.Cause
			reason string
		}{
			"no output":        {func(*bgagent.Reporter) bgagent.TurnEnd { return bgagent.TurnEnd{Remark: remark} }, bgagent.CauseNoOutput, "the turn ended without any output; " + remark},
			"without a remark": {func(*bgagent.Reporter) bgagent.TurnEnd { return bgagent.TurnEnd{} }, bgagent.CauseNoOutput, "the turn ended without any output"},
			"only thoughts":    {func(r *bgagent.Reporter) bgagent.TurnEnd { r.Reasoning("hm"); return bgagent.TurnEnd{Remark: remark} }, bgagent.CauseNoAnswer, "the agent wrote no answer and called no tool; " + remark},
			"an answer":        {func(*bgagent.Reporter) bgagent.TurnEnd { return bgagent.TurnEnd{Text: "yes", Remark: remark} }, bgagent.CauseTurnEnded, ""},
			"a long remark": {func(*bgagent.Reporter) bgagent.TurnEnd {
				return bgagent.TurnEnd{Remark: strings.Repeat("x", 5000) + "end"}
			}, bgagent.CauseNoOutput, "end"},
		} {
			m := manage(t, &goRunner{run: func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
				return c.turn(r), nil
			}}, bgagent.Config{})
			task := ended(t, m, launch(t, m, "p").ID)[0]
			require.Equal(t, c.cause, task.Cause, name)
			if name == "a long remark" {
				require.Less(t, len(task.Reason), 1100)
				require.True(t, strings.HasSuffix(task.Reason, c.reason), task.Reason)
				continue
			}
			require.Equal(t, c.reason, task.Reason, name)
		}
	})
}
