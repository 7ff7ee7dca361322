package bgagenttest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
)

// The function "crashed" begins a turn of half a minute and ends the process after ten seconds. It
// returns the client of the next process, the session's id, and a function that ends the context of
// the old process.
func crashed(t *testing.T, fate Fate) (r Runner, session string, old context.CancelFunc) {
	t.Helper()
	r = NewRunner(func(turn *Turn) {
		turn.Say("half ")
		turn.Sleep(30 * time.Second)
		turn.Say("and all")
	})
	r.Fates = func(p bgagent.Prompt) Fate { return fate }
	session = mustCreate(t, r, "title")
	ctx, cancel := context.WithCancel(t.Context())
	first := r
	done := make(chan struct{})
	go func() {
		defer close(done)
		if end, err := first.RunTurn(ctx, session, bgagent.Prompt{ID: "p1", Task: "t", Text: "look", Instance: "i1"}, nobody); !errors.Is(err, context.Canceled) {
			t.Errorf("RunTurn of the dead process returned %v, %v", end, err)
		}
	}()
	time.Sleep(10 * time.Second)
	next := r.NextProcess()
	t.Cleanup(func() {
		cancel()
		next.Close()
		<-done
		for _, bad := range next.Violations() {
			t.Error(bad)
		}
	})
	return next, session, cancel
}

func restoreP1(r Runner, session string) (bgagent.PromptState, bgagent.TurnEnd, error) {
	return r.RestoreSession(context.Background(), bgagent.SessionRestore{Session: session, Last: bgagent.Prompt{ID: "p1"}, Instance: "i1"})
}

func TestATurnHasItsFateWhenTheProcessEnds(t *testing.T) {
	for name, x := range map[string]struct {
		fate     Fate
		state    bgagent.PromptState
		err      error
		answer   string
		messages int
		lost     int
	}{
		"default":  {fate: FateDefault, state: bgagent.PromptInterrupted, messages: 1},
		"cut":      {fate: FateCut, state: bgagent.PromptInterrupted, messages: 1},
		"unknown":  {fate: FateUnknown, state: bgagent.PromptUnknown, messages: 1},
		"lost":     {fate: FateLost, state: bgagent.PromptMissing, lost: 1},
		"gone":     {fate: FateGone, state: bgagent.PromptMissing, err: bgagent.ErrNoSession, lost: 1},
		"answered": {fate: FateAnswered, state: bgagent.PromptAnswered, answer: "half ", messages: 2},
		"orphan":   {fate: FateOrphan, err: bgagent.ErrBusy, messages: 2},
		"left":     {fate: FateLeft, state: bgagent.PromptInterrupted, messages: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, session, old := crashed(t, x.fate)
				old() // ends a context of the dead process; this must not affect the turn
				state, end, err := restoreP1(r, session)
				if state != x.state || end.Text != x.answer || !errors.Is(err, x.err) {
					t.Errorf("RestoreSession returned %s, %+v, %v", state, end, err)
				}
				equal(t, "the list of receipts", r.Received(), []Receipt{{Session: session, ID: "p1", Text: "look", Times: 1, Lost: x.lost}})
				if errors.Is(err, bgagent.ErrNoSession) {
					return
				}
				page, err := r.Messages(t.Context(), session, "", 0)
				if err != nil || len(page.Messages) != x.messages {
					t.Errorf("the messages are %+v, %v", page.Messages, err)
				}
				time.Sleep(time.Minute)
				if x.fate == FateOrphan {
					state, end, err := restoreP1(r, session)
					if state != bgagent.PromptAnswered || end.Text != "half and all" || err != nil {
						t.Errorf("after the end of the orphan, RestoreSession returned %s, %+v, %v", state, end, err)
					}
				}
				if _, err := r.RunTurn(t.Context(), session, bgagent.Prompt{ID: "p2"}, nobody); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAPromptThatASessionMayHaveMustNotBeSentAgain(t *testing.T) {
	for name, x := range map[string]struct {
		fate Fate
		bad  int
	}{"has it": {FateCut, 1}, "may have it": {FateUnknown, 1}, "has lost it": {FateLost, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := NewRunner(func(turn *Turn) { turn.Sleep(time.Second) })
				r.Fates = func(bgagent.Prompt) Fate { return x.fate }
				id := mustCreate(t, r, "title")
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				first := r
				go func() { _, _ = first.RunTurn(ctx, id, bgagent.Prompt{ID: "p1", Instance: "i1"}, nobody) }()
				synctest.Wait()
				r = r.NextProcess()
				_, _, _ = restoreP1(r, id)
				_, _ = r.RunTurn(ctx, id, bgagent.Prompt{ID: "p1"}, nobody)
				equal(t, "the number of violations", len(r.Violations()), x.bad)
				equal(t, "the number of receipts", r.Received()[0].Times, 2)
			})
		})
	}
}

func TestASessionOfAnEarlierProcessMustBeRestoredFirst(t *testing.T) {
	r := NewRunner(nil)
	id := mustCreate(t, r, "title")
	r = r.NextProcess()
	_, _ = r.RunTurn(t.Context(), id, bgagent.Prompt{ID: "p1"}, nobody)
	equal(t, "the number of violations", len(r.Violations()), 1)
}

func TestAServerGoesOnWhenAProcessEnds(t *testing.T) {
	for name, x := range map[string]struct {
		fate     Fate
		finished bool
		text     string
	}{"default": {FateDefault, true, "half and all"}, "cut": {FateCut, false, "half "}, "answered": {FateAnswered, true, "half "}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewStarter(func(turn *Turn) {
					turn.Say("half ")
					turn.Sleep(30 * time.Second)
					turn.Say("and all")
				})
				s.Fates = func(bgagent.Prompt) Fate { return x.fate }
				id := mustCreate(t, s, "title")
				p := bgagent.Prompt{ID: "p1"}
				if err := s.StartTurn(t.Context(), id, p); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				dead := s
				s = s.NextProcess()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := dead.Abort(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Abort of the dead process returned %v", err)
				}
				if err := s.StartTurn(t.Context(), id, p); err != nil {
					t.Error(err)
				}
				equal(t, "the receipts", s.Received(), []Receipt{{Session: id, ID: "p1", Times: 1, Repeats: 1}})
				page, _ := s.Messages(t.Context(), id, "", 0)
				last := page.Messages[len(page.Messages)-1]
				equal(t, "the text", last.Text, x.text)
				equal(t, "whether the message is finished", last.Finished, x.finished)
			})
		})
	}
}

func TestTheManagerContinuesOverTwoProcessesOfAFake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory storetest.Memory
		r := NewRunner(func(turn *Turn) {
			turn.SaveState([]byte("state of " + turn.Prompt.ID))
			turn.Say("half ")
			turn.Sleep(30 * time.Second)
			turn.Say("and all")
		})
		open := func() (*storetest.Process, *bgagent.BackgroundManager) {
			p := memory.Process()
			m, err := bgagent.New(r, bgagent.Config{Store: p})
			if err != nil {
				t.Fatal(err)
			}
			return p, m
		}
		p, m1 := open()
		task, err := m1.Launch(t.Context(), bgagent.Caller{Session: "root"}, bgagent.LaunchInput{Agent: "a", Prompt: "look"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		p.Crash()
		r = r.NextProcess()
		_, m2 := open()
		m2.Start()
		tasks, err := m2.Wait(t.Context(), bgagent.Caller{Session: "root"}, bgagent.WaitAll, task.ID)
		if err != nil {
			t.Fatal(err)
		}
		if task = tasks[0]; task.Status != bgagent.Completed || task.Result != "half and all" {
			t.Errorf("the task is %s, %q, %s", task.Status, task.Result, task.Reason)
		}
		if got := r.Restored(); len(got) != 1 || string(got[0].Saved) != "state of "+task.ID+".1.1" {
			t.Errorf("the restore calls are %+v", got)
		}
		equal(t, "the number of prompts", len(r.Received()), 2)
		_ = m2.Close(t.Context())
		_ = m1.Close(t.Context())
		r.Close()
		equal(t, "the number of violations", len(r.Violations()), 0)
	})
}
